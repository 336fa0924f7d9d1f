"""`focaldiffusion find` on a generated card, and each rule that cuts it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import find as card

from focaldiffusion.archive import pile
from focaldiffusion.archive.cutting import Series, Shot, cut
from focaldiffusion.archive.looks import Look, focus_change, likeness
from focaldiffusion.archive.manifest import read_manifest
from focaldiffusion.archive.pile import find_series, photographs
from focaldiffusion.cli.main import main
from focaldiffusion.errors import InputError
from focaldiffusion.io.capture import Capture, read_capture
from focaldiffusion.io.drive import Drive, DriveKind
from focaldiffusion.io.makernotes import FocusReading
from focaldiffusion.io.stacks import open_stack

FILES = 200


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Path, card.Planned]]:
    folder = tmp_path_factory.mktemp("card")
    return folder, card.make_card(folder, FILES, seed=7)


def scored(folder: Path, truth: dict[Path, card.Planned]) -> tuple[int, int]:
    found, _ = card.cut_card(folder)
    assert sorted(shot.path for one in found for shot in one.shots) == sorted(truth)
    return card.right_frames(found, truth)


def test_a_card_is_cut_exactly(made: tuple[Path, dict[Path, card.Planned]]) -> None:
    folder, truth = made
    assert scored(folder, truth) == (FILES, 3)


def test_pictures_suffice(made: tuple[Path, dict[Path, card.Planned]], tmp_path: Path) -> None:
    folder, truth = made
    card.without_metadata(folder, tmp_path)
    assert all(read_capture(path).taken_s is None for path in tmp_path.rglob("*.JPG"))
    moved = {tmp_path / path.relative_to(folder): one for path, one in truth.items()}
    right, exact = scored(tmp_path, moved)
    assert right >= 0.95 * FILES
    assert exact == 3


def test_the_command_writes_manifest_and_sheets(
    made: tuple[Path, dict[Path, card.Planned]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, truth = made
    before = {path: path.stat() for path in truth}
    manifest, sheets = tmp_path / "stacks.csv", tmp_path / "sheets"
    arguments = ["find", str(folder), "--manifest", str(manifest), "--sheets", str(sheets)]
    assert main([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    entries = read_manifest(manifest)
    assert [one["key"] for one in printed["stacks"]] == [one.key for one in entries]
    assert sorted(len(one.frames) for one in entries) == [12, 25, 40]
    assert {path.name for path in sheets.iterdir()} == {f"{one.key}.png" for one in entries}
    with Image.open(sheets / f"{entries[0].key}.png") as sheet:
        assert np.asarray(sheet).std() > 20
    assert {path: path.stat() for path in truth} == before
    assert main(arguments) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0
    out = capsys.readouterr().out
    assert "3 focus stacks of 77 frames" in out


def shots(count: int, **facts: object) -> list[Shot]:
    """Photographs of one camera, a second apart."""
    basis = Capture((100, 150), "A", exposure_s=0.01, f_number=4.0, iso=100.0, **facts)  # type: ignore[arg-type]
    return [Shot(Path(f"IMG_{n:04d}.JPG"), replace(basis, taken_s=float(n))) for n in range(count)]


def changed(shot: Shot, **facts: object) -> Shot:
    return replace(shot, capture=replace(shot.capture, **facts))  # type: ignore[arg-type]


def unseen(path: Path) -> Look | None:
    raise AssertionError(f"{path} was looked at, although metadata decide")


def kinds(found: list[Series]) -> list[tuple[str, int]]:
    return [(one.kind, len(one.shots)) for one in found]


def test_shots_that_start_again_are_another_bracket() -> None:
    def driven(shot: Shot, number: int) -> Shot:
        return changed(shot, drive=Drive("focus", number, "a tag"))

    pile = [driven(shot, number % 5 + 1) for number, shot in enumerate(shots(10))]
    assert kinds(cut(pile[::-1], unseen)) == [("focus stack", 5)] * 2


KINDS: dict[DriveKind, str] = {
    "focus": "focus stack",
    "exposure": "exposure bracket",
    "other bracket": "other bracket",
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_camera_names_its_brackets(kind: DriveKind) -> None:
    pile = [changed(shot, drive=Drive(kind, None, "a tag")) for shot in shots(4)]
    assert kinds(cut(pile, unseen)) == [(KINDS[kind], 4)]


def test_focus_distances_tell_a_sweep() -> None:
    pile = [
        changed(shot, focus=FocusReading(0.3 + 0.1 * n, 0.3 + 0.1 * n, "lens", "a distance"))
        for n, shot in enumerate(shots(6))
    ]
    (found,) = cut(pile, unseen)
    assert (found.kind, found.reason) == ("focus stack", "a distance from frame to frame")


APART: dict[str, Callable[[Shot], Shot]] = {
    "aperture": lambda shot: changed(shot, f_number=8.0),
    "zoom": lambda shot: changed(shot, focal_length_mm=50.0),
    "turned": lambda shot: changed(shot, size=(150, 100)),
    "later": lambda shot: changed(shot, taken_s=shot.capture.taken_s + 600),  # type: ignore[operator]
    "other drive": lambda shot: changed(shot, drive=Drive("exposure", None, "a tag")),
}


@pytest.mark.parametrize("what", APART)
def test_what_differs_is_another_series(what: str) -> None:
    pile = [changed(shot, drive=Drive("focus", None, "a tag")) for shot in shots(8)]
    pile[4:] = [APART[what](shot) for shot in pile[4:]]
    assert [len(one.shots) for one in cut(pile, unseen)] == [4, 4]


def test_a_file_that_is_no_picture_is_said(tmp_path: Path) -> None:
    (tmp_path / "IMG_0001.JPG").write_bytes(b"not a picture")
    found = find_series(photographs(tmp_path), lambda stage, done, total: None)
    assert kinds(found) == [("unreadable", 1)]


@pytest.mark.parametrize("reader", ["read_capture", "thumbnail"])
def test_a_card_that_is_pulled_ends_the_search(
    reader: str, stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = getattr(pile, reader)

    def pulled(path: Path, *size: int) -> object:
        for one in stack.iterdir():
            one.unlink()
        return read(path, *size)

    monkeypatch.setattr(pile, reader, pulled)
    paths = pile.photographs(stack)
    with pytest.raises(InputError, match=r"frame_\d\.png: has vanished while photographs were re"):
        pile.find_series(paths, lambda *_: None)


def test_raw_beside_jpeg_is_one_stack(
    made: tuple[Path, dict[Path, card.Planned]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, truth = made
    for path, one in truth.items():
        if one.kind == "focus" and "OMSYS" in str(path):
            shutil.copy(path, tmp_path)
            shutil.copy(path, (tmp_path / path.name).with_suffix(".ORF"))
    assert main(["find", str(tmp_path), "--json"]) == 0
    stacks = json.loads(capsys.readouterr().out)["stacks"]
    assert stacks
    assert all(frame.endswith(".JPG") for one in stacks for frame in one["frames"])


def test_an_empty_folder_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["find", str(tmp_path)]) == 2
    assert "holds no photographs" in capsys.readouterr().err
    assert main(["find", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_looks_tell_scene_and_focus_apart() -> None:
    rng = np.random.default_rng(3)
    light, depth = card.scene(rng)
    near, far = card.Planned(0, "focus", 1, 0, 0, 0), card.Planned(0, "focus", 2, 0, 1, 0)
    look, again, other = (
        Look.of(card.photograph(light, depth, one, rng)) for one in (near, near, far)
    )
    stranger = Look.of(card.photograph(*card.scene(rng), near, rng))
    assert focus_change(look, again) < 0.1 < 0.5 < focus_change(look, other)
    assert likeness(look, stranger) < 0.6 < likeness(look, other)


def test_real_stacks_in_one_pile_come_apart(shared_data: Path, tmp_path: Path) -> None:
    names = ("phone_backpack", "macro_flies", "wall_panels", "microscope_algae", "lytro_figures")
    wanted, number = [], 0
    for name in names:
        files = [Path(path) for path in open_stack(shared_data / "stacks" / name).files]
        copies: set[Path] = set()
        for path in files:
            number += 1
            copies.add(copy := tmp_path / f"IMG_{number:04d}{path.suffix}")
            shutil.copy(path, copy)
        wanted.append(copies)
    found = find_series(photographs(tmp_path), lambda stage, done, total: None)
    assert all(one.kind == "focus stack" for one in found)
    assert [{shot.path for shot in one.shots} for one in found] == wanted
