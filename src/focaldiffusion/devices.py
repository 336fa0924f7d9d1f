"""The device that torch computes on."""

from __future__ import annotations

from focaldiffusion.errors import InputError

AUTO = "auto"
"""Name of the fastest device: CUDA, then MPS (Apple GPUs), else the CPU."""


def resolve_device(name: str) -> str:
    """Torch's name of a device that computes here; `auto` becomes the fastest one.

    Raises:
        InputError: torch does not know the device or cannot compute on it.
    """
    import torch

    if name == AUTO:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()  # fails on `meta`, which has shapes but no numbers
    # AssertionError: torch was built without CUDA.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")  # some are a page long
        raise InputError(
            f"--device {name}: torch cannot compute there ({reason}). Use --device cpu, "
            "or install a torch that suits the device."
        ) from None
    return name
