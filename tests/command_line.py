"""What tests of the commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest


def exit_code(command: Callable[[Sequence[str]], int], *argv: str | Path) -> int:
    """The exit code of a command's `main`, whether it returns or exits."""
    try:
        return command([str(one) for one in argv])
    except SystemExit as stop:
        return int(stop.code or 0)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, hidden ones too, and what is in the files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def names(folder: Path) -> list[str]:
    """What a folder holds, sorted."""
    return sorted(path.name for path in folder.iterdir())


def refusal(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    command: Callable[[Sequence[str]], int],
    *argv: str | Path,
) -> str:
    """Run a command that must exit with 2, leave a folder as it is and print one error line.

    Returns:
        The line.
    """
    before = contents(folder)
    assert exit_code(command, *argv) == 2
    out, err = capsys.readouterr()
    assert contents(folder) == before
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err
