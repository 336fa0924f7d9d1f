"""Advice on using less memory, where it is exhausted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from focaldiffusion.cli.model_flags import ChosenModel


def lighter_work(model: ChosenModel | None) -> str:
    """Advice on reconstructing a stack in less memory, most effective first.

    The working size comes first: both the evidence and the input of the network grow with it. Tiles
    help only the network.

    Args:
        model: the model in use; None for the physical estimate.
    """
    if model is None:
        return (
            "Remedies, most effective first: lower --working-size, make the frames smaller, give "
            "fewer frames."
        )
    last = "use --dtype bfloat16" if _is_wide(model) else "use --model physics"
    return f"Remedies, most effective first: lower --working-size, lower --tile-px, {last}."


def lighter_model(model: ChosenModel) -> str:
    """Advice on loading a model into less memory, most effective first."""
    ways = ["--model compact", "--model physics"]
    if model.device != "cpu":
        ways.insert(0, "--device cpu")
    if _is_wide(model):
        ways.insert(0, "--dtype bfloat16")
    return f"Remedies, most effective first: {', '.join(ways[:3])}."


def _is_wide(model: ChosenModel) -> bool:
    return model.dtype.itemsize > 2
