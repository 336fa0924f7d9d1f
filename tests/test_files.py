"""Only regular files are opened; anything else is one sentence, and never a wait."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from stack_folders import folder_of, frame, refusal

from focaldiffusion.checkpoints.checkpoint import find_checkpoint
from focaldiffusion.config.load import load_config
from focaldiffusion.data.lists.formats import read_list
from focaldiffusion.errors import InputError, printable
from focaldiffusion.evaluation.records import read_records
from focaldiffusion.files import check_file, read_small
from focaldiffusion.io.depth_files import read_depth_mm, read_values
from focaldiffusion.io.images import probe_image, read_image
from focaldiffusion.io.stacks import open_stack

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs pipes and devices with names")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        # Names of sockets are short, so it is bound from within its folder.
        here = Path.cwd()
        os.chdir(path.parent)
        try:
            one.bind(path.name)
        finally:
            os.chdir(here)


def _linked_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


SPECIAL: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "is a named pipe"),
    "link to a pipe": (_linked_pipe, "is a named pipe"),
    "socket": (_socket, "is a socket"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a device"),
    "link to nothing": (lambda path: path.symlink_to("moved"), "is a link to moved, which is abs"),
    "loop of links": (lambda path: path.symlink_to(path.name), "cannot be opened ("),
}


@pytest.mark.parametrize("kind", SPECIAL)
class TestSpecialFiles:
    def test_among_the_frames(self, kind: str, tmp_path: Path) -> None:
        make, why = SPECIAL[kind]
        folder = folder_of(tmp_path / "stack")
        make(folder / "frame_7.png")
        message = refusal(folder)
        assert message.startswith(f"{folder / 'frame_7.png'}: {why}")
        assert "Its name is an image's" in message
        # Hidden, or under another name, it is not a frame.
        (folder / "frame_7.png").rename(folder / "notes.txt")
        assert len(open_stack(folder)) == 3

    def test_listed(self, kind: str, tmp_path: Path) -> None:
        make, why = SPECIAL[kind]
        frames = ["frame_0.png", "frame_1.png", "other"]
        folder = folder_of(tmp_path / "stack", sidecar={"files": frames})
        make(folder / "other")
        assert f"stack.json: files lists 'other', which {why}" in refusal(folder)
        (folder / "stack.json").unlink()
        assert f"other: {why}" in refusal([folder / name for name in frames])
        assert f"other: {why}" in refusal([folder / "other"])
        assert f"other: {why}" in refusal(folder / "other")

    def test_as_sidecar(self, kind: str, tmp_path: Path) -> None:
        make, why = SPECIAL[kind]
        folder = folder_of(tmp_path / "stack")
        make(folder / "stack.json")
        assert f"stack.json: cannot be read ({why}" in refusal(folder)

    def test_in_other_readers(self, kind: str, tmp_path: Path) -> None:
        make, why = SPECIAL[kind]
        for name in ("x.png", "x.tif", "x.npy", "x.yaml", "x.csv", "samples.jsonl"):
            (tmp_path / name).mkdir()
            make(tmp_path / name / name)
        model = tmp_path / "model"
        model.mkdir()
        (model / "focaldiffusion.json").write_text("{}")
        (model / "denoiser").mkdir()
        make(model / "denoiser" / "config.json")
        for read, path in (
            (probe_image, "x.png"),
            (read_image, "x.tif"),
            (read_depth_mm, "x.png"),
            (read_values, "x.npy"),
            (load_config, "x.yaml"),
            (read_list, "x.csv"),
            (lambda path: read_records(path.parent), "samples.jsonl"),
        ):
            with pytest.raises(InputError) as caught:
                read(tmp_path / path / path)
            assert why in str(caught.value)
        with pytest.raises(InputError) as caught:
            find_checkpoint(str(model))
        assert why in str(caught.value)


@pytest.mark.parametrize(
    "name", ["a\0b.png", "\ud800.png", "x" * 300 + ".png", "frame_0.png/b.png", "../absent/b.png"]
)
def test_a_name_that_no_file_has_is_refused(name: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "stack", sidecar={"files": ["frame_0.png", name]})
    message = refusal(folder)
    assert message.startswith(f"{folder / 'stack.json'}: files lists ")
    assert message.isprintable()
    message = refusal([folder / "frame_0.png", folder / name])
    assert message.startswith(printable(f"{folder / name}: "))
    for source in (folder / name, str(folder / name / "below")):
        assert refusal(source).isprintable()


def test_a_short_text_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"12345")
    assert read_small(path, 5) == b"12345"
    with pytest.raises(InputError, match="text: more than 4 bytes; expected a short text"):
        read_small(path, 4)
    check_file(path)
    with pytest.raises(InputError, match=r"none: no such file or folder\.$"):
        check_file(tmp_path / "none")
    with pytest.raises(InputError, match=": is a folder; expected a regular file"):
        check_file(tmp_path)


def test_a_frame_under_two_names_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "stack")
    (folder / "again.png").symlink_to("frame_1.png")
    (folder / "hard.png").hardlink_to(folder / "frame_1.png")
    for other in ("again.png", "hard.png", "./frame_1.png"):
        files = [folder / "frame_0.png", folder / "frame_1.png", f"{folder}/{other}"]
        assert "frame_1.png: listed more than once" in refusal(files)


def test_many_listed_frames_are_each_looked_at_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, calls = 300, []
    frame(tmp_path / "f0.png", 10)
    for index in range(1, count):
        (tmp_path / f"f{index}.png").write_bytes((tmp_path / "f0.png").read_bytes())
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **how: calls.append(path) or stat(path, **how))
    open_stack([tmp_path / f"f{index}.png" for index in range(count)])
    assert len(calls) < 30 * count


def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "stack")
    folder.chmod(0o300)
    try:
        if os.access(folder, os.R_OK):
            pytest.skip("the superuser lists every folder")
        assert "stack: cannot be listed (" in refusal(folder)
    finally:
        folder.chmod(0o700)
