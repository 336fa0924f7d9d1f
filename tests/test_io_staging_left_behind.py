"""Leftovers of killed processes go, those of living ones stay, and races have a loser."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import contents, names

from focaldiffusion.errors import InputError
from focaldiffusion.io.owners import PARTIAL, owner_is_gone, partial_name
from focaldiffusion.io.results import check_output
from focaldiffusion.io.staging import claimed, recover, staging

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX's signals")

NAMES = ("a", "b", "mark")

KILLED = """
import os, signal, sys
from pathlib import Path
from focaldiffusion.io.staging import staging

left = [int(sys.argv[2])]

def kill(event, arguments):
    if event == "os.rename":
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
with staging(Path(sys.argv[1]), ("a", "b", "mark")) as partial:
    for name in ("b", "mark"):
        (partial / name).write_text("new")
"""


def write(folder: Path, text: str, *, replace: bool = True) -> None:
    with staging(folder, NAMES, replace=replace) as partial:
        for name in NAMES:
            (partial / name).write_text(text)


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.mark.parametrize("renames", [1, 2, 3, 4, 5])
def test_after_a_kill_at_any_rename_the_earlier_files_come_back(
    renames: int, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in (*NAMES, "foreign"):
        (out / name).write_text("old")
    before = contents(tmp_path)
    done = subprocess.run([sys.executable, "-c", KILLED, str(out), str(renames)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert contents(tmp_path) != before
    recover(out)
    assert contents(tmp_path) == before


def test_a_check_brings_earlier_results_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with staging(out, ("metadata.json",)) as partial:
        (partial / "metadata.json").write_text("old")
    left = out / f".out{PARTIAL}{dead_pid()}"
    (left / ".earlier").mkdir(parents=True)
    (left / ".names").write_text('["metadata.json"]')
    (out / "metadata.json").rename(left / ".earlier" / "metadata.json")
    with pytest.raises(InputError, match=r"already holds metadata\.json"):
        check_output(out)
    assert names(out) == ["metadata.json"]


@pytest.mark.parametrize("exists", [False, True])
def test_partial_folders_of_dead_processes_are_swept(exists: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if exists:
        write(out, "old")
    home = out if exists else tmp_path
    ours = partial_name("out")
    _, start, host = ours.partition(PARTIAL)[2].split("-")
    pid, parent = dead_pid(), os.getppid()
    for owner in (str(pid), f"{pid}-{start}-{host}", f"{parent}-1-{host}"):
        left = home / f".out{PARTIAL}{owner}"
        left.mkdir()
        (left / "a").write_text("half")
    kept = [
        f".out{PARTIAL}{os.getpid()}",  # alive
        f".out{PARTIAL}{pid}-{start}-00000000",  # of another machine
        f".out{PARTIAL}mine",  # of nobody
        f".other{PARTIAL}{pid}",  # of another folder
    ]
    for name in kept:
        (home / name).mkdir()
    write(out, "new")
    assert names(out) == sorted([*NAMES, *kept] if exists else NAMES)
    if not exists:
        assert names(tmp_path) == sorted([*kept, "out"])


def test_a_killed_child_that_nobody_waited_for_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = str(child.pid)
    assert not owner_is_gone(owner)
    child.kill()
    if not Path("/proc/self/stat").exists():
        child.wait()
    else:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert owner_is_gone(owner)
    child.communicate()


def test_a_long_name_has_a_partial_folder(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127, "\udcff" * 250):
        try:
            write(tmp_path / name, "new")
        except OSError:
            pytest.skip("this file system takes UTF-8 alone")
        write(tmp_path / name, "newer")
        assert names(tmp_path / name) == sorted(NAMES)
        assert len(os.fsencode(partial_name(name))) <= 255
    assert len(names(tmp_path)) == 3


@pytest.mark.parametrize("exists", [False, True])
def test_of_two_processes_the_later_one_is_told(exists: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if exists:
        out.mkdir()
    with pytest.raises(InputError, match=r"out: another process has put a there since this one b"):
        _overtaken(out, replace=False)
    assert {path.read_text() for path in out.iterdir()} == {"theirs"}
    assert names(tmp_path) == ["out"]
    # Who may replace does so, as a whole.
    _overtaken(out, replace=True)
    assert names(out) == ["mark"]
    assert (out / "mark").read_text() == "mine"


def _overtaken(out: Path, *, replace: bool) -> None:
    """Write a set while another process writes one."""
    with staging(out, NAMES, replace=replace) as partial:
        (partial / "mark").write_text("mine")
        _by_another(out)


def _by_another(out: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from focaldiffusion.io.staging import staging\n"
        "with staging(Path(sys.argv[1]), ('a', 'b', 'mark')) as partial:\n"
        "    for name in ('a', 'b', 'mark'): (partial / name).write_text('theirs')"
    )
    subprocess.run([sys.executable, "-c", script, str(out)], check=True)


def test_an_output_that_is_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("absent")
    (tmp_path / "loop").symlink_to("loop")
    for path in ("link", "link/below", "loop"):
        with pytest.raises(InputError, match=r"(link|loop): (is a link to|cannot be opened).*Mend"):
            check_output(tmp_path / path)
    for path in ("a\0b", "\ud800"):
        with pytest.raises(InputError, match="no folder can have this name"):
            check_output(tmp_path / path)
    assert names(tmp_path) == ["link", "loop"]


def test_a_claimed_folder_has_one_process(tmp_path: Path) -> None:
    with claimed(tmp_path):
        with pytest.raises(InputError, match="another process is writing here"), claimed(tmp_path):
            pass
        # A forked worker may outlive us; the claim is not its.
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, b"x")
            signal.pause()
        os.read(reading, 1)
    try:
        with claimed(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
