"""Names of partial folders, which say whose they are, so that those of the dead can be swept."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

PARTIAL = ".partial-"
"""Before the owner in the name of a partial folder."""

_LONGEST_BYTES = 255  # of a name, on all common file systems
_TAG = 8  # characters of a digest


def partial_name(name: str) -> str:
    """Name of this process's partial folder for a folder of results.

    `.NAME.partial-PID-START-HOST`: process ids repeat, so the time at which the process started
    belongs to it, and disks are shared, so the machine does. A long NAME is cut.
    """
    owner = f"{PARTIAL}{this_process()}"
    room = _LONGEST_BYTES - len(owner) - 1
    if len(os.fsencode(name)) > room:
        tag = _digest(os.fsencode(name))
        # Cut between bytes; a half character stays in the name as such.
        name = os.fsdecode(os.fsencode(name)[: room - 1 - _TAG]) + f"~{tag}"
    return f".{name}{owner}"


def this_process() -> str:
    """This process for `owner_is_gone`, in which others tell whether it still runs."""
    pid = os.getpid()
    return f"{pid}-{_start_of(pid)}-{_host()}"


def owner_is_gone(owner: str) -> bool:
    """Whether the process that made a partial folder has ended for certain.

    Args:
        owner: see `this_process`; the name of the folder from behind `PARTIAL`. A process id alone
            is of this machine.
    """
    pid, *rest = owner.split("-")
    if not (pid.isascii() and pid.isdecimal()) or len(rest) not in (0, 2):
        return False
    if rest and rest[1] != _host():
        return False
    if not _runs(int(pid)):
        return True
    # The same number, but of a process that started later.
    return bool(rest) and rest[0] != _start_of(int(pid))


def _runs(pid: int) -> bool:
    if os.name == "nt":  # where os.kill would end it
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return _facts_of(pid)[:1] not in ([b"Z"], [b"X"])  # killed, but its parent has not looked


def _start_of(pid: int) -> str:
    """Time at which a process started, in ticks since the system did; 0 where it is unknown."""
    facts = _facts_of(pid)
    return facts[19].decode() if len(facts) > 19 else "0"


def _facts_of(pid: int) -> list[bytes]:
    """Linux's fields for a process from its state on, see proc(5); none on other systems."""
    try:
        # Its name, in brackets, may hold any character.
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []


def _host() -> str:
    """Digest of what tells machines apart, and containers, which number processes anew."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return _digest(f"{platform.node()} {space}".encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_TAG]
