"""From workers to their process: by shared memory where there is enough, else through a pipe."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

from torch import Tensor

_SHARED = "/dev/shm"  # containers have 64 MB there unless they are started with more


class Piped(NamedTuple):
    """An answer without shared memory."""

    data: bytes

    def opened(self) -> Any:
        """The answer."""
        return pickle.loads(self.data)


@dataclass(frozen=True)
class Sender:
    """A reader whose answers never wait in more shared memory than there is.

    A write beyond the end of shared memory kills the process (SIGBUS), so room is looked for
    before. All workers of the machine may write at the same time.

    Attributes:
        reader: answers in a worker.
        writers: workers of all processes of this machine.
    """

    reader: Any
    writers: int

    def __getitem__(self, item: Any) -> Any:
        answer = self.reader[item]
        free = free_shared_bytes()
        if free is None or tensor_bytes(answer) * self.writers <= free:
            return answer
        return Piped(pickle.dumps(answer, protocol=pickle.HIGHEST_PROTOCOL))


def free_shared_bytes() -> int | None:
    """Shared memory that is free; None where the system has no limit of its own."""
    try:
        found = os.statvfs(_SHARED)
    except (AttributeError, OSError):
        return None
    return found.f_bavail * found.f_frsize


def tensor_bytes(value: Any) -> int:
    """Bytes of all tensors in dataclasses and sequences."""
    if isinstance(value, Tensor):
        return value.untyped_storage().nbytes()
    if isinstance(value, (list, tuple)):
        return sum(map(tensor_bytes, value))
    if is_dataclass(value):
        return sum(tensor_bytes(getattr(value, field.name)) for field in fields(value))
    return 0
