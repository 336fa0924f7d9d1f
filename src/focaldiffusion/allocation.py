"""Memory: what a process has freed stays with it, and how its exhaustion shows."""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt(3), from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MOST_ARENAS = -1, -3, -8
_KEPT_BYTES = 2**30


def keep_freed_memory() -> bool:
    """Let glibc reuse large blocks instead of returning them to the system.

    Each large array would otherwise be mapped anew and faulted in page by page, which takes a tenth
    of the time of a reconstruction.

    Returns:
        True if the C library was told; False where it is another one.
    """
    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return False
    settings = ((_MMAP_THRESHOLD, _KEPT_BYTES), (_TRIM_THRESHOLD, _KEPT_BYTES), (_MOST_ARENAS, 1))
    return all(library.mallopt(parameter, value) for parameter, value in settings)


def is_out_of_memory(error: Exception) -> bool:
    """Whether NumPy, torch or OpenCV ran out of memory."""
    import cv2
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, cv2.error):
        return error.code == cv2.Error.StsNoMem
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
