"""The order of files: names, a camera's counter, time of capture; and lists in the wrong unit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from stack_folders import folder_of, frame, refusal

from focaldiffusion.io.frame_order import by_counter, by_name, by_time
from focaldiffusion.io.stacks import open_stack
from focaldiffusion.lens import LensFacts


def sorted_names(names: str) -> str:
    files = names.split()
    return " ".join(files[index] for index in by_name(files))


def timed(folder: Path, times: dict[str, str], fractions: Sequence[str] = ()) -> Path:
    """A folder of frames with DateTimeOriginal, and SubSecTimeOriginal where it is given."""
    folder.mkdir(exist_ok=True)
    for index, (name, time) in enumerate(times.items()):
        block = Image.Exif()
        block[0x8769] = {0x9003: f"2024:05:01 {time}"}
        if fractions:
            block[0x8769] = {0x9003: f"2024:05:01 {time}", 0x9291: fractions[index]}
        frame(folder / name, 10 * index, block.tobytes())
    return folder


@pytest.mark.parametrize(
    "names",
    [
        "img1.png img2.png img10.png",
        "v1.9.png v1.10.png",  # a numbering
        "f_0.25m.png f_0.5m.png f_1m.png",  # a length
        "a-1.png a-2.png a-10.png",  # a hyphen
        "z-2.png z-1.png z0.png z1.png",  # a sign
        "z-2mm.png z-1.5mm.png z0mm.png z+1mm.png",
        "frame-2.5mm.png frame-10mm.png",
        "i01.png i1.png i\u0662.png i10.png",
        "image_0_0.5.jpg image_1_0.65.jpg image_2_1.3.jpg",
    ],
)
def test_names_are_sorted_naturally(names: str) -> None:
    assert sorted_names(" ".join(reversed(names.split()))) == names


@pytest.mark.parametrize(
    ("names", "wrapped"),
    [
        ("DSC_0001.jpg DSC_9998.jpg DSC_9999.jpg", "DSC_9998.jpg DSC_9999.jpg DSC_0001.jpg"),
        ("DSC00001.arw DSC09999.arw", "DSC09999.arw DSC00001.arw"),
        ("_MG_0001.cr2 _MG_0003.cr2 _MG_9997.cr2", "_MG_9997.cr2 _MG_0001.cr2 _MG_0003.cr2"),
        ("P1000999.jpg P1010001.jpg", None),
        ("f0001.png f5000.png f9999.png", None),
        ("f0.png f9.png", None),
        ("a001.png b999.png", None),
    ],
)
def test_a_counter_that_starts_again(names: str, wrapped: str | None) -> None:
    files = names.split()
    found = by_counter(files)
    assert (None if found is None else " ".join(files[index] for index in found)) == wrapped


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (("2024:05:01 10:00:02", "2024:05:01 10:00:01"), [1, 0]),
        (("2024:05:01 10:00:01.5", "2024:05:01 10:00:01.07"), [1, 0]),
        (("2024:05:01 10:00:01", "2024:05:01 10:00:01"), None),
        (("2024:05:01 10:00:01", None), None),
        (("0000:00:00 00:00:00", "2024:05:01 10:00:01"), None),
        (("yesterday", "2024:05:01 10:00:01"), None),
    ],
)
def test_times(times: tuple[str | None, ...], expected: list[int] | None) -> None:
    assert by_time(times, [0, 1]) == expected


def test_time_wins_over_names_that_it_contradicts(tmp_path: Path) -> None:
    times = {"DSC_0001.jpg": "10:00:01", "DSC_9998.jpg": "10:00:00", "DSC_9999.jpg": "10:00:00"}
    timed(tmp_path, times, ("10", "25", "75"))
    stack = open_stack(tmp_path)
    assert stack.frames.names == ("DSC_9998.jpg", "DSC_9999.jpg", "DSC_0001.jpg")
    assert [path.name for path in stack.files] == list(stack.frames.names)
    assert "time of capture (EXIF DateTimeOriginal)" in stack.findings[0]
    for order, expected in (("name", tuple(times)), ("given", tuple(times))):
        stack = open_stack(tmp_path, order=order)
        assert (stack.frames.names, stack.findings) == (expected, ())


def test_the_same_sweep_backwards_is_not_a_contradiction(tmp_path: Path) -> None:
    stack = open_stack(timed(tmp_path, {"a.jpg": "3:0:0", "b.jpg": "2:0:0", "c.jpg": "1:0:0"}))
    assert (stack.frames.names, stack.findings) == (("a.jpg", "b.jpg", "c.jpg"), ())


def test_a_counter_orders_frames_without_time(tmp_path: Path) -> None:
    for name in ("IMG_0001.png", "IMG_0002.png", "IMG_9999.png"):
        frame(tmp_path / name, 10)
    stack = open_stack(tmp_path)
    assert stack.frames.names == ("IMG_9999.png", "IMG_0001.png", "IMG_0002.png")
    assert "start again" in stack.findings[0]


def test_a_list_keeps_its_order_unless_another_is_asked_for(tmp_path: Path) -> None:
    times = {"a.jpg": "10:00:02", "b.jpg": "10:00:00", "c.jpg": "10:00:01"}
    folder = timed(tmp_path, times)
    files = [folder / name for name in ("c.jpg", "a.jpg", "b.jpg")]
    assert open_stack(files).frames.names == ("c.jpg", "a.jpg", "b.jpg")
    assert open_stack(files, order="time").frames.names == ("b.jpg", "c.jpg", "a.jpg")
    assert open_stack(files, order="name").frames.names == ("a.jpg", "b.jpg", "c.jpg")


def test_focus_settings_of_a_folder_follow_the_order_of_names(tmp_path: Path) -> None:
    timed(tmp_path, {"a.jpg": "10:00:02", "b.jpg": "10:00:00", "c.jpg": "10:00:01"})
    stack = open_stack(tmp_path, focus_distances_m=(1.0, 2.0, 3.0))
    assert (stack.frames.names, stack.findings) == (("a.jpg", "b.jpg", "c.jpg"), ())


def test_orders_that_cannot_be(tmp_path: Path) -> None:
    folder_of(tmp_path)
    assert "order: 'tiem' is unknown; did you mean time?" in refusal(tmp_path, order="tiem")
    assert "frame_0.png has no time of capture" in refusal(tmp_path, order="time")
    known = {"order": "focus", "focus_distances_m": (1.0, 2.0, 3.0)}
    assert "order: focus, but the focus_distances_m" in refusal(tmp_path, **known)


def test_the_rare_size_is_named(tmp_path: Path) -> None:
    frame(tmp_path / "a_thumbnail.png", 1, size=(15, 20))
    for name in ("b.png", "c.png"):
        frame(tmp_path / name, 1)
    message = refusal(tmp_path)
    assert "a_thumbnail.png: 20x15, but the other frames, such as b.png, are 40x30." in message


LENS = LensFacts(focal_length_px=310, aperture_diameter_m=0.005)
MACRO = LensFacts(focal_length_m=0.05, f_number=4, pixel_pitch_m=1e-5)


@pytest.mark.parametrize(
    ("values", "lens", "expected"),
    [
        ((37, 76, 250), LENS, "changes the blur by 0.036 px, which no frame shows; they look like"),
        ((0.0501, 0.0502, 0.0503), MACRO, "the magnification is 500, as of no lens."),
        ((1e-5, 2e-5, 3e-5), None, "look like positions of a stage."),
        ((0, 0.5, 1), None, "In dioptres, 0 is infinity"),
    ],
)
def test_distances_in_another_unit(
    tmp_path: Path, values: tuple[float, ...], lens: LensFacts | None, expected: str
) -> None:
    assert expected in refusal(folder_of(tmp_path), focus_distances_m=values, lens=lens)


@pytest.mark.parametrize(
    ("values", "lens"),
    [
        ((90.0, 100.0, 110.0), LensFacts(focal_length_m=0.4, f_number=4, pixel_pitch_m=4e-6)),
        ((0.06, 0.0605, 0.061), MACRO),
        ((0.5, 3.0, float("inf")), LENS),
        ((37.0, 76.0, 250.0), None),
    ],
)
def test_unusual_distances_that_are_right(
    tmp_path: Path, values: tuple[float, ...], lens: LensFacts | None
) -> None:
    stack = open_stack(folder_of(tmp_path), focus_distances_m=values, lens=lens)
    assert (stack.focus_distances_m, stack.findings) == (values, ())


def test_stage_positions_in_micrometres_are_refused(tmp_path: Path) -> None:
    message = refusal(folder_of(tmp_path), focus_positions_m=(0, 10, 20))
    assert "longer than any rail: these look like millimetres or micrometres" in message


@pytest.mark.parametrize(
    ("positions_m", "expected"),
    [
        ((0, 2e-5, 1e-5), "go back from frame_1.png (2e-05 m) to frame_2.png (1e-05 m)"),
        ((2e-5, 0, 1e-5), "go back"),
        ((0, 1e-5, 1.001e-5), "hardly move from frame_1.png"),
        ((0, 1e-5, 2e-5), None),
        ((2e-5, 1e-5, 0), None),
    ],
)
def test_stage_positions_that_go_back(
    tmp_path: Path, positions_m: tuple[float, ...], expected: str | None
) -> None:
    findings = open_stack(folder_of(tmp_path), focus_positions_m=positions_m).findings
    assert (findings == ()) if expected is None else (expected in findings[0])


def test_a_key_with_another_unit_is_told_that_values_are_metres(tmp_path: Path) -> None:
    folder_of(tmp_path, sidecar={"focus_distances_cm": [30, 50, 90]})
    assert refusal(tmp_path).endswith("Its values are metres.")
