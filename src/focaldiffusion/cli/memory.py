"""Telling that memory ran out, which every library says in its own way."""

from __future__ import annotations


def is_out_of_memory(error: Exception) -> bool:
    """Whether NumPy, torch or OpenCV ran out of memory."""
    import cv2
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, cv2.error):
        return error.code == cv2.Error.StsNoMem
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
