"""Memory: what a process has freed, until it is given back, and how its exhaustion shows."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

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
    if (library := _glibc()) is None:
        return False
    settings = ((_MMAP_THRESHOLD, _KEPT_BYTES), (_TRIM_THRESHOLD, _KEPT_BYTES), (_MOST_ARENAS, 1))
    return all(library.mallopt(parameter, value) for parameter, value in settings)


def give_back_freed_memory() -> bool:
    """Let glibc return freed memory to the system, after work with many small arrays.

    They leave gaps that no large array fits into.

    Returns:
        True if the C library had some; False also where it is another one.
    """
    return (library := _glibc()) is not None and bool(library.malloc_trim(0))


@contextmanager
def uncollected() -> Iterator[None]:
    """Let the garbage collector rest while modules are imported.

    Torch makes 250,000 objects that stay. Looking through them again and again takes a tenth of the
    time of its import.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def is_out_of_memory(error: Exception) -> bool:
    """Whether NumPy, torch or OpenCV ran out of memory."""
    import cv2
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, cv2.error):
        return error.code == cv2.Error.StsNoMem
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is glibc."""
    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return None
    return library
