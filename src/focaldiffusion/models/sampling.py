"""Sampling: how a learned model is run on a stack."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """How a learned model is run.

    Attributes:
        steps: along the flow; None for 1 from the physical estimate, 4 from noise.
        ensemble: number of members, of seeds `seed`, `seed` + 1, ...; their median counts.
        seed: of the noise.
        tile_px: longest side of a tile [px]; None for the longest that the model covers.
    """

    steps: int | None = None
    ensemble: int = 1
    seed: int = 0
    tile_px: int | None = None
