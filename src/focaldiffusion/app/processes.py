"""How the server makes processes: forks of one that has imported torch, which begin at once."""

from __future__ import annotations

import multiprocessing
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

_IMPORTED = ["focaldiffusion.app.opening", "focaldiffusion.app.worker", "focaldiffusion.app.look"]


def context() -> ForkServerContext | SpawnContext:
    """The way to make processes.

    The process that is forked computes nothing and has no threads of its own. Windows has no
    fork, and system libraries of macOS break in forks: there each process imports torch itself.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(_IMPORTED)
    return forking
