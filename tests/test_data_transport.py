"""Answers of workers where shared memory is small, and under any start method."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from rooms import photographed

from focaldiffusion.data.transport import Piped, Sender, free_shared_bytes, tensor_bytes

MANY = 24 * 2**20  # numbers, 96 MB


@dataclass(frozen=True)
class Large:
    """Answers with as many numbers as the evidence of a stack of 480x640."""

    count: int = MANY

    def __getitem__(self, item: int) -> list[torch.Tensor]:
        return [torch.full((self.count,), float(item))]


UNDER_64_MB = """
import sys
from test_data_transport import Large, free_shared_bytes
from focaldiffusion.data import loading
if __name__ == "__main__":
    assert free_shared_bytes() <= 64 * 2**20
    loading._START = sys.argv[1]
    for item, (answer,) in enumerate(loading.read_by_workers(Large(), range(4), 2)):
        assert answer.shape == Large()[0][0].shape and bool((answer == item).all())
"""


def may_mount() -> bool:
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", "/dev/shm"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not may_mount(), reason="needs the right to mount a smaller /dev/shm")
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_answers_larger_than_shared_memory_arrive(tmp_path: Path, method: str) -> None:
    script = tmp_path / "under_64_mb.py"
    script.write_text(UNDER_64_MB)
    mount = "mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"{mount} {sys.executable} {script} {method}"],
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        timeout=300,
    )


def test_what_fits_is_shared_and_what_does_not_is_piped(monkeypatch: pytest.MonkeyPatch) -> None:
    sender = Sender(Large(1000), writers=4)
    for free, kind in ((16_000, list), (15_999, Piped), (None, list)):
        monkeypatch.setattr("focaldiffusion.data.transport.free_shared_bytes", lambda of=free: of)
        answer = sender[3]
        assert type(answer) is kind
        opened = answer.opened() if isinstance(answer, Piped) else answer
        assert torch.equal(opened[0], torch.full((1000,), 3.0))


def test_the_bytes_of_a_sample_are_those_of_its_tensors() -> None:
    sample = photographed()
    tensors = (sample.stack.images, sample.depth_m, sample.valid)
    assert tensor_bytes([(sample, "name")]) == sum(one.nbytes for one in tensors)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone limits shared memory")
def test_free_shared_memory_is_known_here() -> None:
    free = free_shared_bytes()
    assert free is not None
    assert free > 0
