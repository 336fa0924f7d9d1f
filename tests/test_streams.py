"""Standard streams that are closed, full, without a reader, or given odd text."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from plant import run

from focaldiffusion.cli import infer
from focaldiffusion.cli.main import main
from focaldiffusion.cli.streams import lasting_streams


def _stream(path: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.FileIO(path, "w"), encoding="ascii", line_buffering=True)


def test_text_is_shown_escaped_in_any_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", _stream(str(tmp_path / "out")))
    with lasting_streams() as out:
        print("a\x1b[31m\udcff\tb\u202e 日本", flush=True)
        sys.stdout.writelines(["x\x07", "\n"])
        assert sys.stdout.encoding == "ascii"
        assert not sys.stdout.isatty()
        assert out.loss is None
    shown = (tmp_path / "out").read_bytes()
    assert shown == b"a\\x1b[31m\\xff\tb\\u202e \\u65e5\\u672c\nx\\x07\n"


def test_rich_styles_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    monkeypatch.setattr(sys, "stdout", _stream(str(tmp_path / "out")))
    with lasting_streams():
        Console(force_terminal=True, color_system="standard").print("[red]red")
    assert b"\x1b[31mred" in (tmp_path / "out").read_bytes()


def test_no_streams_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["infer", "/no/such/stack"]) == 2
    with pytest.raises(SystemExit):
        main(["infer", "--no-such-flag"])
    assert sys.stdout is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_costs_the_text_alone(
    stack: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdout", _stream("/dev/full"))
    assert run("infer", stack, "--output", tmp_path / "out", "--working-size", "32") == 1
    assert (tmp_path / "out" / "metadata.json").exists()
    said = capsys.readouterr().err
    assert said == "error: standard output cannot be written (No space left on device).\n"
    monkeypatch.setattr(sys, "stderr", _stream("/dev/full"))
    assert run("infer", tmp_path / "absent") == 2


def test_a_reader_that_leaves_is_no_failure(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writing, "w"))
    assert run("infer", stack, "--output", tmp_path / "out", "--working-size", "32") == 0
    assert (tmp_path / "out" / "metadata.json").exists()
    sys.stdout.close()  # which flushes
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(os.name == "nt", reason="descriptors are POSIX's")
def test_closed_descriptors_are_not_taken_by_results(tmp_path: Path) -> None:
    import subprocess

    script = (
        "import os, sys\nfrom focaldiffusion.cli.streams import lasting_streams\n"
        "with lasting_streams():\n"
        f"    file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "    assert file.fileno() > 2\n    print('lost')\n    print('lost', file=sys.stderr)\n"
    )
    shell = f'{sys.executable} -c "$SCRIPT" >&- 2>&- <&-'
    done = subprocess.run(["sh", "-c", shell], env={**os.environ, "SCRIPT": script}, check=False)
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == ""


def test_an_error_of_ours_ends_one_stack_and_is_shown_last(
    stack: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = stack.with_name("b\x1bad")
    bad.mkdir()
    for path in stack.iterdir():
        (bad / path.name).write_bytes(path.read_bytes())
    outcome_of = infer.outcome_of

    def fails(opened, *rest):  # type: ignore[no-untyped-def]
        if opened.name == bad.name:
            raise TypeError(f"int() argument of {opened.name}")
        return outcome_of(opened, *rest)

    monkeypatch.setattr(infer, "outcome_of", fails)
    code = run("infer", bad, stack, "--output", tmp_path / "out", "--working-size", "32", "--quiet")
    assert code == 70
    assert (tmp_path / "out" / "plant" / "metadata.json").exists()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(r"error: b\x1bad: unexpected TypeError: int() argument of b\x1bad.")
    assert lines[1] == "1 of 2 stacks failed:"
    assert lines[3] == "Traceback (most recent call last):"
    assert lines[-1] == "" or lines[-1].startswith("TypeError: int()")
    assert not any("\x1b" in line for line in lines)


def test_an_error_of_ours_in_any_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a\x1bb")

    monkeypatch.setattr("focaldiffusion.evaluation.compare.compare", fails)
    assert run("compare", "a", "b") == 70
    assert r"ZeroDivisionError: a\x1bb" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--output=~/out", "--output=~"])
def test_a_home_folder_that_the_shell_left_is_refused(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("infer", tmp_path, flag) == 2
    assert "the shell has not replaced ~ by the home folder" in capsys.readouterr().err


def test_a_deleted_current_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert run("infer", tmp_path) == 2
    assert "error: the current folder cannot be used (" in capsys.readouterr().err


def test_names_that_are_not_utf8_work(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    try:
        odd = stack.rename(tmp_path / "od\udcff\x1b[31md")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    (odd / "frame_1.png").rename(odd / "frame_1\udcfe.png")
    sidecar = json.loads((odd / "stack.json").read_text())
    sidecar.pop("files", None)
    (odd / "stack.json").write_text(json.dumps(sidecar))
    output = tmp_path / "o\udcffut"
    assert run("infer", odd, "--output", output, "--depth-format", "npy,png,exr") == 0
    out, err = capsys.readouterr()
    assert out.startswith(r"od\xff\x1b[31md: 3 frames")
    assert "\x1b" not in out + err
    metadata = json.loads((output / "metadata.json").read_bytes())
    assert metadata["frames"][1].endswith("frame_1\udcfe.png")
