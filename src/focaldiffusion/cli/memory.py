"""Recognising that memory ran out, and advice on using less."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from focaldiffusion.cli.model_flags import ChosenModel


def is_out_of_memory(error: Exception) -> bool:
    """Whether NumPy, torch or OpenCV ran out of memory."""
    import cv2
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, cv2.error):
        return error.code == cv2.Error.StsNoMem
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def lighter_work(model: ChosenModel | None) -> str:
    """Advice on reconstructing a stack in less memory, the most effective first.

    The working size comes first: the evidence grows with it, and the network sees no more than
    that. Tiles only help the network.

    Args:
        model: the model in use; None for the physical estimate.
    """
    if model is None:
        return (
            "What helps most, in this order: lower --working-size, make the frames smaller, give "
            "fewer of them."
        )
    last = "use --dtype bfloat16" if _is_wide(model) else "use --model physics"
    return f"What helps most, in this order: lower --working-size, lower --tile-px, {last}."


def lighter_model(model: ChosenModel) -> str:
    """Advice on loading a model into less memory, the most effective first."""
    ways = ["--model compact", "--model physics"]
    if model.device != "cpu":
        ways.insert(0, "--device cpu")
    if _is_wide(model):
        ways.insert(0, "--dtype bfloat16")
    return f"What helps most, in this order: {', '.join(ways[:3])}."


def _is_wide(model: ChosenModel) -> bool:
    return model.dtype.itemsize > 2
