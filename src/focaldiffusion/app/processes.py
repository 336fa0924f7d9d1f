"""How the server makes processes: forks of one that has imported torch, which begin at once."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

_IMPORTED = ["focaldiffusion.app.opening", "focaldiffusion.app.worker", "focaldiffusion.app.look"]


def context() -> ForkServerContext | SpawnContext:
    """The way to make processes.

    The process that is forked computes nothing and has no threads of its own. Windows has no
    fork: there each process imports torch itself.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(_IMPORTED)
    return forking
