"""Stacks exported for other tools, and their predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.external import Predictions, export_stack
from focaldiffusion.io.depth_files import write_depth_mm, write_npy
from focaldiffusion.io.images import read_image
from focaldiffusion.io.png import write_png
from focaldiffusion.io.stacks import open_stack
from focaldiffusion.optics import linear_to_srgb
from tests.sample_stacks import SIZE, photograph, texture

STACK = photograph(texture(), 1.0, (0.5, 1.0, float("inf")))
DEPTH_M = torch.rand(SIZE, generator=torch.Generator().manual_seed(0)) + 0.5
DEPTH_M[0, 0] = torch.nan
IMAGE = linear_to_srgb(texture())
SAMPLE = "room_1/view.02"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder where another tool puts its prediction for SAMPLE."""
    folder = tmp_path / "fossa" / SAMPLE
    folder.mkdir(parents=True)
    return folder


def predictions(folder: Path) -> Predictions:
    return Predictions(folder.parents[1])


def test_exported_stack_opens_unchanged_and_holds_no_truth(tmp_path: Path) -> None:
    export_stack(STACK, tmp_path / "stacks", SAMPLE)

    folder = tmp_path / "stacks" / SAMPLE
    opened = open_stack(folder)
    assert {path.name for path in folder.iterdir()} == {
        "frame_00.png",
        "frame_01.png",
        "frame_02.png",
        "stack.json",
    }
    assert opened.focus_distances_m == (0.5, 1.0, float("inf"))
    assert opened.camera_for() == STACK.camera
    for index, frame in enumerate(STACK.images):
        written = torch.from_numpy(opened.frames.read(index)).permute(2, 0, 1)
        torch.testing.assert_close(written, linear_to_srgb(frame), rtol=0, atol=0.5 / 65535 + 1e-6)


def test_a_stack_without_optics_is_exported_without(tmp_path: Path) -> None:
    images = STACK.images
    export_stack(type(STACK)(images), tmp_path, "order")

    opened = open_stack(tmp_path / "order")

    assert opened.focus_distances_m is None
    assert opened.camera_for() is None


def test_an_exported_stack_is_not_overwritten(tmp_path: Path) -> None:
    export_stack(STACK, tmp_path, SAMPLE)

    with pytest.raises(InputError, match=r"view\.02: already exists\. Choose another folder"):
        export_stack(STACK, tmp_path, SAMPLE)


@pytest.mark.parametrize("sample", ["../outside", "/outside"])
def test_samples_cannot_leave_the_folder(tmp_path: Path, sample: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()

    with pytest.raises(InputError, match=rf"sample '{sample}' does not name a folder inside"):
        export_stack(STACK, inside, sample)
    with pytest.raises(InputError, match="does not name a folder inside"):
        Predictions(inside).predict(STACK, sample)


def test_predictions_are_read_back_unchanged(folder: Path) -> None:
    write_npy(folder / "depth.npy", DEPTH_M)
    write_png(folder / "all_in_focus.png", IMAGE.permute(1, 2, 0).numpy(), bit_depth=16)
    write_npy(folder / "confidence.npy", 10 * DEPTH_M.nan_to_num(0))

    model = predictions(folder)
    found = model.predict(STACK, SAMPLE)

    assert model.name == "fossa"
    assert found.depth_m is not None
    assert found.all_in_focus is not None
    assert found.confidence is not None
    assert torch.equal(found.depth_m.nan_to_num(-1), DEPTH_M.nan_to_num(-1))
    torch.testing.assert_close(found.all_in_focus, IMAGE, rtol=0, atol=0.5 / 65535 + 1e-6)
    assert torch.equal(found.confidence, 10 * DEPTH_M.nan_to_num(0))


def test_pictures_of_depth_and_confidence_are_read_too(folder: Path) -> None:
    write_depth_mm(folder / "depth_mm.png", DEPTH_M.numpy())
    levels = np.full(SIZE, 0.4, np.float32)
    write_png(folder / "confidence.png", levels)

    found = predictions(folder).predict(STACK, SAMPLE)

    assert found.depth_m is not None
    assert found.confidence is not None
    assert found.all_in_focus is None
    torch.testing.assert_close(found.depth_m, DEPTH_M, rtol=0, atol=0.00051, equal_nan=True)
    assert torch.equal(
        found.confidence, torch.from_numpy(read_image(folder / "confidence.png")[..., 0])
    )


def test_the_exact_file_takes_precedence(folder: Path) -> None:
    write_depth_mm(folder / "depth_mm.png", DEPTH_M.numpy())
    write_npy(folder / "depth.npy", 2 * DEPTH_M)

    found = predictions(folder).predict(STACK, SAMPLE)

    assert found.depth_m is not None
    assert torch.equal(found.depth_m.nan_to_num(), 2 * DEPTH_M.nan_to_num())


def test_depth_alone_is_one_file_per_sample(folder: Path) -> None:
    write_npy(folder.parent / "view.02.npy", DEPTH_M)

    found = predictions(folder).predict(STACK, SAMPLE)

    assert found.depth_m is not None
    assert found.all_in_focus is None
    assert found.confidence is None


def test_a_missing_prediction_lists_the_expected_files(folder: Path) -> None:
    write_npy(folder / "confidence.npy", DEPTH_M.nan_to_num())

    with pytest.raises(
        InputError,
        match=r"room_1/view\.02: no prediction for this sample; expected depth\.npy, depth_mm\.png "
        r"or all_in_focus\.png in it, or view\.02\.npy beside it\.",
    ):
        predictions(folder).predict(STACK, SAMPLE)


def test_nothing_is_resized(folder: Path) -> None:
    write_npy(folder / "depth.npy", DEPTH_M[::2, ::2])

    with pytest.raises(InputError, match=r"depth\.npy: 48x36, but the frames are 96x72\. Resize"):
        predictions(folder).predict(STACK, SAMPLE)


def test_confidence_must_be_known_everywhere(folder: Path) -> None:
    write_npy(folder / "depth.npy", DEPTH_M)
    for confidence in (DEPTH_M, torch.full(SIZE, torch.inf)):
        write_npy(folder / "confidence.npy", confidence)
        with pytest.raises(InputError, match=r"confidence\.npy: contains NaN or infinity\. Write"):
            predictions(folder).predict(STACK, SAMPLE)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder; expected predictions"):
        Predictions(tmp_path / "nowhere")
