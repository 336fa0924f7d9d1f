"""The `model` block: which network is trained, and what it estimates from what."""

from __future__ import annotations

from typing import Literal

from focaldiffusion.config.section import PathText, Section


class ModelConfig(Section):
    """The generative model."""

    base_model_id: PathText | None = None
    """Weights to adapt: an id of the Hugging Face hub or a local folder; null starts from none."""
    preset: str | None = None
    """Size of a network that starts from no weights, such as `compact`; null with base weights."""
    variant: str | None = None
    """Which files of these weights are read, such as `fp16`; null reads the plain ones."""
    start: Literal["estimate", "noise"] = "estimate"
    """Where the flow starts: the physical estimate (one exact step) or noise (generative)."""
    depth_code: Literal["log", "inverse"] = "log"
    """Depth is coded for the network in even steps of log z or of 1/z."""
