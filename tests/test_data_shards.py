"""Caches that several processes or machines write: shards, their union, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import exit_code, names, refusal
from fixtures import hypersim
from rooms import Rooms, source

from focaldiffusion.cli.main import main
from focaldiffusion.data.cache import merge_caches, write_cache
from focaldiffusion.data.mixture import Mixture
from focaldiffusion.errors import InputError
from focaldiffusion.io.staging import claimed
from focaldiffusion.progress import Meter
from focaldiffusion.shards import Shard

NOISY = {"simulator_kwargs": {"noise_std_lsb_range": [1.0, 1.0]}}
CONFIG = Path(__file__).resolve().parents[1] / "configs" / "hypersim.yaml"


def mixture(count: int = 7, seed: int = 0) -> Mixture:
    return Mixture([(source(options=NOISY), Rooms(count))], seed, shuffle=True)


def content(directory: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path there."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_the_union_of_three_shards_is_the_whole(tmp_path: Path, workers: int) -> None:
    write_cache(mixture(), tmp_path / "whole", with_evidence=True)
    for index in (2, 0, 1):
        counts: list[tuple[int, int]] = []
        write_cache(
            mixture(),
            tmp_path / "shards",
            shard=Shard(index + 1, 3),
            num_workers=workers,
            with_evidence=True,
            meter=Meter(lambda *count, to=counts: to.append(count)),
        )
        assert len(counts) == counts[-1][1] == (3, 2, 2)[index]
    assert content(tmp_path / "shards") == content(tmp_path / "whole")
    assert names(tmp_path / "shards") == names(tmp_path / "whole")


def test_shards_in_folders_of_their_own_are_joined(tmp_path: Path) -> None:
    write_cache(mixture(), tmp_path / "whole")
    parts = [tmp_path / str(index) for index in range(3)]
    for index, part in enumerate(parts):
        write_cache(mixture(), part, shard=Shard(index + 1, 3))
    assert merge_caches(parts[:2], tmp_path / "joined") == 2
    assert merge_caches(parts, tmp_path / "joined") == 0
    assert content(tmp_path / "joined") == content(tmp_path / "whole")
    # One of the parts may become the whole.
    assert merge_caches(parts, parts[0]) == 0
    assert content(parts[0]) == content(tmp_path / "whole")
    other = tmp_path / "other"
    write_cache(mixture(seed=1), other, count=1)
    with pytest.raises(InputError, match="other: holds a cache with other seed"):
        merge_caches([parts[0], other], tmp_path / "wrong")
    with pytest.raises(InputError, match=r"nowhere/cache\.json: is not the index of a cache"):
        merge_caches([parts[0], tmp_path / "nowhere"], tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_a_cache_grows_and_keeps_what_it_has(tmp_path: Path) -> None:
    """From 6 samples to 8, the last of a second epoch; by one writer, and by shards."""
    write_cache(mixture(), tmp_path / "whole", count=8)
    write_cache(mixture(), tmp_path / "grown", count=6)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "grown/samples").iterdir()}
    for index in range(2):
        write_cache(mixture(), tmp_path / "grown", count=8, shard=Shard(index + 1, 2))
    assert content(tmp_path / "grown") == content(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())
    # Fewer than there are: nothing to do, and nothing lost.
    write_cache(mixture(), tmp_path / "grown", count=6)
    assert content(tmp_path / "grown") == content(tmp_path / "whole")


WRITES = """
import sys
from pathlib import Path
from test_data_shards import Shard, mixture, write_cache
write_cache(mixture(60), Path(sys.argv[1]), shard=Shard(2, 2), num_workers=1)
"""


def test_a_killed_shard_continues(tmp_path: Path) -> None:
    write_cache(mixture(60), tmp_path / "whole")
    killed = tmp_path / "killed"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITES, str(killed)], cwd=Path(__file__).parent
    )
    while len(list(killed.glob("samples/[!.]*"))) < 2 and writer.poll() is None:
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert 2 <= len(list(killed.glob("samples/[!.]*"))) < 30, "killed half way"
    # As a kill in the middle of a file leaves it.
    (killed / "samples" / f".000001.safetensors.{writer.pid}").write_bytes(b"half")
    mine = killed / "samples" / f".000003.safetensors.{os.getpid()}"
    mine.write_bytes(b"of a living process")
    for index in range(2):
        write_cache(mixture(60), killed, shard=Shard(index + 1, 2))
    assert mine.exists()
    mine.unlink()
    assert content(killed) == content(tmp_path / "whole")


def test_a_shard_has_one_writer(tmp_path: Path) -> None:
    own = tmp_path / "c" / "shards" / "1-of-2"
    own.mkdir(parents=True)
    with claimed(own):
        write_cache(mixture(), tmp_path / "c", shard=Shard(1, 2))
        with pytest.raises(InputError, match="1-of-2: another process is writing here"):
            write_cache(mixture(), tmp_path / "c", shard=Shard(2, 2))


@pytest.mark.parametrize("text", ["3/3", "1", "a/b", "-1/3", "1/0", "0/3/1", "", "²/3"])
def test_no_shard_is_one_sentence(text: str) -> None:
    with pytest.raises(InputError, match=r"expected I/N with I from 0 to N - 1"):
        Shard.parse_from_zero(text)


def test_shards_and_their_union_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hypersim.write(tmp_path / "tree")
    small = ("--override", "data.image_size=[48,64]", "data.num_workers=0")
    shared = ("data", "cache", CONFIG, "--data-root", tmp_path / "tree", *small)
    for index in range(2):
        where = ("--shard", f"{index}/2", "--output", tmp_path / f"part{index}")
        assert exit_code(main, *shared, *where) == 0
    assert exit_code(main, *shared, "--output", tmp_path / "whole") == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["3", "2", "5"]
    assert all(line.endswith(" MB each") for line in said)
    parts = (tmp_path / "part0", tmp_path / "part1")
    assert exit_code(main, "data", "merge", *parts, "--output", tmp_path / "joined") == 0
    assert capsys.readouterr().out == f"2 folders joined in {tmp_path / 'joined'}\n"
    assert content(tmp_path / "joined") == content(tmp_path / "whole")
    argv = (*shared, "--shard", "2/2", "--output", tmp_path / "none")
    assert "shard '2/2': expected I/N" in refusal(capsys, tmp_path, main, *argv)
