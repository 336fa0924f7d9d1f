"""The memory that there is for the tasks of a machine."""

from __future__ import annotations

import math
from pathlib import Path

_SHARE = 0.85
"""Part of the memory that is free at the start which tasks may take."""


def budget_bytes() -> int:
    """Memory that tasks in work may take together: most of what is free for this process."""
    import psutil

    free = psutil.virtual_memory().available
    return round(_SHARE * min(free, _group_bytes()))


def _group_bytes() -> float:
    """Memory that is free in the group that a scheduler or a container put this process in."""
    try:
        where = Path("/proc/self/cgroup").read_text(encoding="ascii").rpartition("::/")[2].strip()
        group = Path("/sys/fs/cgroup") / where
        most = (group / "memory.max").read_text(encoding="ascii")
        taken = (group / "memory.current").read_text(encoding="ascii")
        return math.inf if most.strip() == "max" else int(most) - int(taken)
    except (OSError, ValueError):
        return math.inf
