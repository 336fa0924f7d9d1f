from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from focaldiffusion.errors import InputError
from focaldiffusion.io.staging import file_errors_named, staging

NAMES = ("a", "b", "c", "mark")

_renames_left: list[int] = []


def _interrupt_rename(event: str, arguments: tuple) -> None:
    """Press Ctrl-C just before the rename that brings `_renames_left` to zero."""
    if event == "os.rename" and _renames_left:
        _renames_left[0] -= 1
        if _renames_left[0] == 0:
            _renames_left.clear()
            signal.raise_signal(signal.SIGINT)


sys.addaudithook(_interrupt_rename)


def state(folder: Path) -> dict[str, str | None]:
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else None
        for path in folder.rglob("*")
    }


def write_set(folder: Path, names: str, text: str) -> None:
    with staging(folder, NAMES) as partial:
        for name in names.split():
            (partial / name).write_text(text)


def test_a_new_folder_appears_with_its_parents(tmp_path: Path):
    write_set(tmp_path / "x" / "out", "a mark", "new")
    assert state(tmp_path) == {"x": None, "x/out": None, "x/out/a": "new", "x/out/mark": "new"}


def test_nothing_shows_before_the_end(tmp_path: Path):
    out = tmp_path / "out"
    with staging(out, NAMES) as partial:
        (partial / "a").write_text("new")
        assert partial.name.startswith(".out.partial-")
        assert partial.parent == tmp_path
        assert not out.exists()
    assert state(out) == {"a": "new"}


def test_only_the_named_files_are_replaced(tmp_path: Path):
    for name in ("a", "b", "mark", "foreign"):
        (tmp_path / name).write_text("old")
    write_set(tmp_path, "b c mark", "new")
    assert state(tmp_path) == {"b": "new", "c": "new", "mark": "new", "foreign": "old"}


def test_a_relative_path_and_a_symbolic_link_work(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_set(Path("out"), "a", "new")
    (tmp_path / "link").symlink_to("out")
    write_set(Path("link"), "a b", "newer")
    write_set(Path(), "mark", "here")
    expected = {"out": None, "out/a": "newer", "out/b": "newer", "mark": "here"}
    assert {name: text for name, text in state(tmp_path).items() if "link" not in name} == expected


@pytest.mark.parametrize("exists", [False, True])
def test_an_error_leaves_everything_as_it_was(tmp_path: Path, exists: bool):
    out = tmp_path / "x" / "out"
    if exists:
        write_set(out, "a mark", "old")
    before = state(tmp_path)
    with pytest.raises(FileNotFoundError):
        write_set(out, "a no/such/folder", "new")
    assert state(tmp_path) == before


@pytest.mark.parametrize(("earlier", "renames"), [(None, 1), ("", 3), ("a b mark foreign", 6)])
def test_ctrl_c_at_any_rename_leaves_everything_as_it_was(tmp_path: Path, earlier, renames):
    out = tmp_path / "out"
    if earlier is not None:
        out.mkdir()
        for name in earlier.split():
            (out / name).write_text("old")
    before = state(tmp_path)

    for count in range(1, renames + 1):
        _renames_left.append(count)
        with pytest.raises(KeyboardInterrupt):
            write_set(out, "b c mark", "new")
        assert state(tmp_path) == before

    _renames_left.append(renames + 1)
    write_set(out, "b c mark", "new")
    assert _renames_left.pop() == 1  # so every rename was interrupted once
    assert state(out)["b"] == state(out)["mark"] == "new"


def test_what_a_killed_run_left_behind_is_replaced(tmp_path: Path):
    with staging(tmp_path / "out", NAMES) as partial:
        left = partial
    left.mkdir()
    (left / "b").write_text("stale")
    write_set(tmp_path / "out2", "a", "new")
    left.rename(tmp_path / left.name.replace(".out.", ".out3."))
    write_set(tmp_path / "out3", "a", "new")
    assert state(tmp_path / "out3") == {"a": "new"}


def test_a_full_disk_is_said_so(tmp_path: Path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs Linux's /dev/full")
    with (
        pytest.raises(InputError, match=r"out: the disk is full; nothing was written\. Free some"),
        file_errors_named(tmp_path / "out"),
    ):
        full.write_text("x")


def test_other_refusals_carry_their_reason(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match=r"out: cannot write results \(Not a directory\)"),
        file_errors_named(tmp_path / "out"),
    ):
        (tmp_path / "file" / "below").mkdir()
