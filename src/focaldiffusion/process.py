"""Resource use of the running process."""

from __future__ import annotations

import sys


def peak_memory_mib() -> int | None:
    """Peak memory of the process; None where the system does not count it."""
    if sys.platform == "win32":  # has no counter of it in the standard library
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
