"""The `model` block: the network, its inputs and outputs."""

from __future__ import annotations

from typing import Literal

from focaldiffusion.config.section import PathText, Section


class ModelConfig(Section):
    """The generative model."""

    base_model_id: PathText | None = None
    """Weights to adapt: an id of the Hugging Face hub or a local folder; null starts from none."""
    preset: str | None = None
    """Size of a network with random weights, such as `compact`; null with base weights."""
    variant: str | None = None
    """Variant of the weight files, such as `fp16`; null reads the plain ones."""
    start: Literal["estimate", "noise"] = "estimate"
    """Start of the flow: the physical estimate (one exact step) or noise (generative)."""
    depth_code: Literal["log", "inverse"] = "log"
    """Depth code of the network: even steps of log z or of 1/z."""
