"""Priors as numbers: files of other tools, their size and register, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TOLERANCE
from torch import Tensor

from focaldiffusion.align.alignment import Crop
from focaldiffusion.errors import InputError
from focaldiffusion.io.depth_files import write_depth_mm, write_exr, write_npy
from focaldiffusion.io.png import save_png
from focaldiffusion.prior import Prior, PriorKind
from focaldiffusion.priors.given import GivenPrior
from focaldiffusion.priors.shelf import load_prior

METRIC, DEPTH, INVERSE = PriorKind
EXACT = TOLERANCE[torch.float32]
SIZE = (30, 40)


def ramp(size: tuple[int, int] = SIZE) -> Tensor:
    """Depth 1 m to 2 m from the first to the last column, at the centres of pixels."""
    columns = (torch.arange(size[1]) + 0.5) / size[1]
    return (1 + columns).expand(size).clone()


def image(size: tuple[int, int] = SIZE) -> Tensor:
    return torch.zeros(3, *size)


def given(values: Tensor, kind: PriorKind = METRIC) -> GivenPrior:
    return GivenPrior(Prior(values, kind, "it"))


def test_metric_files_are_in_metres_and_a_png_in_millimetres(tmp_path: Path) -> None:
    depth_m = ramp()
    depth_m[0, 0] = torch.nan
    write_npy(tmp_path / "depth.npy", depth_m.numpy())
    write_exr(tmp_path / "depth.exr", depth_m.numpy())
    write_depth_mm(tmp_path / "depth.png", depth_m.numpy())
    half_a_millimetre = 0.0005 + EXACT["atol"]
    for name, bound in (("depth.npy", 0), ("depth.exr", 0), ("depth.png", half_a_millimetre)):
        found = load_prior(tmp_path / name, kind="metric-depth")(image())
        assert found.kind is METRIC
        assert found.name == str(tmp_path / name)
        assert found.values.isnan().nonzero().tolist() == [[0, 0]]
        assert float((found.values - depth_m).nan_to_num().abs().max()) <= bound


def test_a_png_of_inverse_depth_is_taken_as_its_numbers(tmp_path: Path) -> None:
    numbers = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE)
    save_png(tmp_path / "disparity.png", numbers)
    found = load_prior(tmp_path / "disparity.png", kind="affine-inverse-depth")(image())
    assert found.values.tolist() == numbers.tolist()


def test_a_file_says_no_kind(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"does not say whether .* --prior-kind .*: one of metric-"
    ):
        load_prior(tmp_path / "depth.npy")


@pytest.mark.parametrize("name", ["depth.npy", "folder/depth.EXR"])
def test_a_file_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        load_prior(tmp_path / name, kind="affine-depth")


def test_millimetres_are_not_metres(tmp_path: Path) -> None:
    write_npy(tmp_path / "depth.npy", 1000 * ramp().numpy())
    with pytest.raises(InputError, match="half of its depth is beyond 100; expected metres"):
        load_prior(tmp_path / "depth.npy", kind="metric-depth")


def test_an_8_bit_picture_of_depth_holds_no_metres(tmp_path: Path) -> None:
    save_png(tmp_path / "depth.png", np.zeros(SIZE, np.uint8))
    with pytest.raises(InputError, match="expected 16-bit grey millimetres"):
        load_prior(tmp_path / "depth.png", kind="metric-depth")


@pytest.mark.parametrize("size", [(60, 80), (15, 20), (45, 60)])
def test_another_size_of_the_same_aspect_is_resampled(size: tuple[int, int]) -> None:
    found = given(ramp(size))(image()).values
    # Nearest errs by half a pixel of the finer grid; linear by the constant outermost half pixels.
    half_a_pixel = 0.5 / min(size[1], SIZE[1])
    assert float((found - ramp()).abs().max()) <= half_a_pixel + EXACT["atol"]


def test_shrinking_invents_no_surface_between_two() -> None:
    step = torch.ones(60, 80)
    step[:, 37:] = 2
    assert set(given(step)(image()).values.unique().tolist()) == {1.0, 2.0}


def test_growing_keeps_unknown_pixels_unknown_and_the_others_as_they_are() -> None:
    values = torch.full((15, 20), 3.0)
    values[:, 10:] = torch.nan
    found = given(values)(image()).values
    assert bool((found[:, :19] == 3).all())
    assert bool(found[:, 21:].isnan().all())


def test_another_aspect_is_refused() -> None:
    with pytest.raises(InputError, match=r"it: 40x40 pixels; expected the aspect of .* 40x30"):
        given(ramp((40, 40)))(image())


CROP = Crop(left=4, top=3, height=24, width=33)


def test_a_prior_of_the_frames_is_cropped_with_them() -> None:
    found = given(ramp()).cropped(SIZE, CROP)
    assert torch.equal(found.prior.values, ramp()[3:27, 4:37])
    assert given(ramp()).cropped(SIZE, Crop(0, 0, *SIZE)).prior.size == SIZE


def test_a_prior_of_the_common_area_stays() -> None:
    assert given(ramp(CROP.size)).cropped(SIZE, CROP).prior.size == CROP.size


def test_a_smaller_prior_of_frames_that_moved_is_ambiguous() -> None:
    with pytest.raises(InputError, match="20x15 pixels, while the frames have 40x30 and moved"):
        given(ramp((15, 20))).cropped(SIZE, CROP)
