"""Procedural scenes: an endless supply of pictures with exact depth, made on the fly."""

from focaldiffusion.data.procedural.dataset import Procedural

__all__ = ["Procedural"]
