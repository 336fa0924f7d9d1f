"""The zip for the test server of ZEDD: written, checked, refused."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import exit_code, refusal
from fixtures import zedd
from PIL import Image

from focaldiffusion.cli.main import main
from focaldiffusion.data.sets.zedd import SIZE
from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.prediction import Prediction
from focaldiffusion.evaluation.zedd_submission import (
    NAMES,
    check_submission,
    predicted_depths,
    write_submission,
)
from focaldiffusion.stack import FocalStack


def depths(
    count: int = 50, gap: float | None = None, size: tuple[int, int] = SIZE
) -> Iterator[tuple[str, torch.Tensor]]:
    """Scene k is k metres deep; one pixel of the second may be a gap."""
    for number in range(1, count + 1):
        depth_m = torch.full(size, float(number))
        if gap is not None and number == 2:
            depth_m[3, 4] = gap
        yield f"test_{number:04d}", depth_m


@pytest.mark.parametrize("gap", [None, math.nan])
def test_the_server_takes_what_is_written(gap: float | None, tmp_path: Path) -> None:
    path = tmp_path / "ours" / "physics.zip"
    write_submission(path, depths(gap=gap), fill_m=None if gap is None else 100.0)
    check_submission(path)
    assert list(tmp_path.rglob("*")) == [path.parent, path]
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"zedd_output_{number:04d}.npy" for number in range(1, 51)]
        with archive.open("zedd_output_0002.npy") as file:
            array = np.load(file)
    assert array.dtype == np.float32
    assert array.shape == (1216, 1824)
    assert array[3, 4] == (2 if gap is None else 100)
    assert array[4, 3] == 2


@pytest.mark.parametrize("gap", [math.nan, math.inf, 0.0, -1.0])
def test_gaps_are_not_filled_unasked(gap: float, tmp_path: Path) -> None:
    message = rf"test_0002: 1 of {SIZE[0] * SIZE[1]} pixels have no depth.*fill_m"
    with pytest.raises(InputError, match=message):
        write_submission(tmp_path / "new" / "out.zip", depths(gap=gap))
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_zip_survives_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "out.zip"
    path.write_bytes(b"earlier")
    with pytest.raises(InputError, match=r"test_0003 is missing\. Give test_0001 to test_0050\."):
        write_submission(path, depths(count=2))
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_not_a_zip(tmp_path: Path) -> None:
    kept = tmp_path / "out" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("years of work")
    with pytest.raises(InputError, match=r"out: is a folder; expected the name of a zip"):
        write_submission(kept.parent, depths())
    assert kept.read_text() == "years of work"


def test_depths_of_another_size_order_or_fill_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.zip"
    with pytest.raises(InputError, match=r"test_0001: depth of \(480, 640\).*\(1216, 1824\)"):
        write_submission(path, depths(size=(480, 640)))
    later = ((f"test_{number:04d}", torch.ones(SIZE)) for number in (1, 3))
    with pytest.raises(InputError, match="got the depth of test_0003, expected test_0002"):
        write_submission(path, later)
    with pytest.raises(InputError, match=r"fill_m is nan; expected metres"):
        write_submission(path, depths(), fill_m=math.nan)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(SIZE, np.int32), r"zedd_output_0001\.npy is int32; the server takes floats"),
        (np.ones((1, *SIZE), np.float32), r"is \(1, 1216, 1824\); the server takes \(1216, 1824\)"),
        (np.full(SIZE, np.nan, np.float16), "holds NaN or infinity"),
        (np.array([None]), r"cannot be read as a zip of \.npy files"),
    ],
)
def test_an_array_that_the_server_refuses(array: np.ndarray, message: str, tmp_path: Path) -> None:
    path = tmp_path / "out.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in NAMES:
            with archive.open(name, "w") as file:
                np.lib.format.write_array(file, array if name == NAMES[0] else np.ones(1))
    with pytest.raises(InputError, match=message):
        check_submission(path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            (*NAMES, "notes.txt"),
            r"holds notes\.txt; the server takes only zedd_output_0001\.npy to",
        ),
        ([f"results/{name}" for name in NAMES], r"holds results/zedd_output_0001\.npy"),
        (NAMES[:7] + NAMES[9:], r"zedd_output_0008\.npy is missing, one of 2\."),
    ],
)
def test_other_files_than_the_fifty(names: list[str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "out.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    with pytest.raises(InputError, match=message):
        check_submission(path)


def test_a_missing_or_damaged_zip(tmp_path: Path) -> None:
    path = tmp_path / "out.zip"
    with pytest.raises(InputError, match=r"cannot be read as a zip.*no such file"):
        check_submission(path)
    path.write_bytes(b"text")
    with pytest.raises(InputError, match=r"cannot be read as a zip.*not a zip file"):
        check_submission(path)


class NearestFocus:
    """Puts everything at the first focus distance, and records its input."""

    name = "nearest focus"

    def predict(self, stack: FocalStack, sample: str) -> Prediction:
        self.stack, self.sample = stack, sample
        assert stack.focus_distances_m is not None
        return Prediction(stack.focus_distances_m[0].expand(stack.size))


def test_a_model_sees_the_published_frames_of_the_test_stacks(tmp_path: Path) -> None:
    zedd.write(tmp_path, scenes=1)
    stack = tmp_path / "test" / "test_0001" / "focus_stack"
    for run, motor in enumerate(zedd.MOTORS, 1):
        grey = zedd.level(run, "F2.8")
        name = f"img_run_{run}_motor_{motor}_aperture_F2.8.jpg"
        Image.new("RGB", SIZE[::-1], (grey, grey, grey)).save(stack / name)
    model = NearestFocus()
    ((scene, depth_m),) = predicted_depths(model, tmp_path)
    assert (scene, model.sample) == ("test_0001", "test/test_0001")
    assert tuple(depth_m.shape) == SIZE
    assert depth_m[0, 0].item() == pytest.approx(0.82)
    assert model.stack.focus_distances_m.tolist() == pytest.approx([0.82, 1.68, 3.06, 4.91, 8.10])
    assert model.stack.camera.aperture_diameter_m == pytest.approx(0.05 / 2.8)
    assert model.stack.images[:, 0, 5, 5].diff().gt(0).all()  # each frame brighter than the last


def test_missing_test_scenes_are_named(tmp_path: Path) -> None:
    zedd.write(tmp_path, scenes=1)
    lost = tmp_path / "test" / "test_0001" / "gt" / "K.txt"
    lost.unlink()
    with pytest.raises(InputError, match=rf"{lost}: no such file.*huggingface"):
        next(predicted_depths(NearestFocus(), tmp_path))


def test_the_command_checks_a_zip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "good.zip"
    write_submission(good, depths())
    assert exit_code(main, "submit", "--check", good) == 0
    assert "50 depth maps" in capsys.readouterr().out
    bad = tmp_path / "bad.zip"
    with zipfile.ZipFile(good) as archive, zipfile.ZipFile(bad, "w") as copy:
        for name in archive.namelist()[:-1]:
            copy.writestr(name, archive.read(name))
    assert "zedd_output_0050.npy" in refusal(capsys, tmp_path, main, "submit", "--check", bad)
    with zipfile.ZipFile(good) as archive:
        start = archive.getinfo("zedd_output_0001.npy").header_offset + 80
    damaged = bytearray(good.read_bytes())
    damaged[start : start + 400] = bytes(range(200)) * 2
    bad.write_bytes(damaged)
    assert "cannot be read as a zip" in refusal(capsys, tmp_path, main, "submit", "--check", bad)
    message = refusal(capsys, tmp_path, main, "submit", "--output", tmp_path / "new.zip")
    assert "--data-root" in message


def test_the_command_refuses_other_folders_than_zedd(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    argv = ("submit", "--data-root", root, "--output", tmp_path / "new.zip")
    assert "metadata.txt" in refusal(capsys, tmp_path, main, *argv)
