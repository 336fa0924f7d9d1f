"""Strangers among the frames, and the order that the frames show."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch
from sample_stacks import photograph
from torch import Tensor

from focaldiffusion.align.order import check_listed, find_order, sharpness_profiles
from focaldiffusion.align.review import review
from focaldiffusion.errors import InputError
from focaldiffusion.psf import PSF
from focaldiffusion.reconstruction import Settings, reconstruct
from focaldiffusion.solve.sweep import sweep
from focaldiffusion.stack import FocalStack

SIZE = (128, 256)
DPT = (0.5, 0.8, 1.1, 1.4, 1.7, 2.0)
SURFACE_DPT = torch.linspace(0.4, 2.1, SIZE[1]).expand(SIZE)


def speckles(seed: int = 0) -> Tensor:
    """(3, H, W) linear light of many small spots, which every blur weakens."""
    generator = torch.Generator().manual_seed(seed)
    return (0.1 + 0.8 * torch.rand(1, *SIZE, generator=generator)).square().expand(3, -1, -1)


def shot(depth_m: Tensor | float, dpt: Sequence[float] = DPT) -> FocalStack:
    """The speckles at a depth, focused at some dioptres: 4.8 px of blur from frame to frame."""
    focus_m = [1 / one for one in dpt]
    return photograph(speckles(), depth_m, focus_m, size=SIZE, blur_scale_px_m=16.0)


@cache
def scene() -> FocalStack:
    """A slanted plane that every frame shows sharp in a part."""
    return shot(1 / SURFACE_DPT)


def images(order: list[int]) -> Tensor:
    return scene().images[order]


def names_of(count: int) -> list[str]:
    return [f"f{index}" for index in range(count)]


def seen(stack: FocalStack, wanted: str = "auto"):
    return review(stack, names_of(len(stack)), wanted=wanted)


def again(image: Tensor, seed: int = 0, lsb: float = 0.5) -> Tensor:
    """The same light with other noise, as by another exposure or by compression."""
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed)) * lsb / 255
    return (image.sqrt() + noise).clamp(0, 1).square()


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [0, 2, 3, 5], [1, 2]])
def test_a_sweep_is_left_alone(order):
    found = seen(FocalStack(images(order)))
    assert found.order == tuple(range(len(order)))
    assert (found.left_out, found.findings, found.is_reordered) == ({}, (), False)


@pytest.mark.parametrize(
    "order",
    [[2, 1, 3, 0, 4, 5], [3, 4, 5, 0, 1, 2], [2, 0, 5, 1, 4, 3], [0, 2, 4, 1, 3, 5]],
    ids=["centre-first", "wrapped", "shuffled", "odd-after-even"],
)
def test_a_list_out_of_order_is_put_in_order(order):
    stack = FocalStack(images(order))
    found = seen(stack)
    assert [order[index] for index in found.order] in (sorted(order), sorted(order)[::-1])
    assert "does not rise and fall once along the list, so they were put in order" in str(
        found.findings
    )
    kept = seen(stack, "given")
    assert kept.order == tuple(range(6))
    assert "--order focus uses it" in kept.findings[0]
    assert seen(stack, "focus").order == found.order


def test_two_sweeps_that_differ_are_merged():
    focus_dpt = (0.5, 0.8, 1.1, 1.4, 1.7, 2.0, 0.65, 0.95, 1.25, 1.55, 1.85)
    found = seen(FocalStack(shot(1 / SURFACE_DPT, focus_dpt).images))
    dpt = [focus_dpt[index] for index in found.order]
    assert dpt in (sorted(dpt), sorted(dpt)[::-1])


def test_focus_settings_that_belong_to_other_frames_are_doubted():
    distances_m = torch.tensor([1 / dpt for dpt in DPT])
    right = seen(FocalStack(scene().images, focus_distances_m=distances_m))
    wrong = seen(FocalStack(images([2, 0, 5, 1, 4, 3]), focus_distances_m=distances_m))
    assert right.findings == ()
    assert "along their focus settings" in wrong.findings[0]
    assert not wrong.is_reordered


def test_a_flat_scene_shows_no_order():
    flat = shot(1 / 1.2).images
    assert seen(FocalStack(flat)).findings == ()
    assert not seen(FocalStack(flat[[2, 0, 5, 1, 4, 3]])).is_reordered
    chosen = seen(FocalStack(flat), "focus")
    assert "do not show one order of focus beyond doubt" in chosen.findings[0]


def test_frames_without_texture_have_no_order():
    profiles = sharpness_profiles(torch.full((4, 3, 64, 64), 0.5))
    assert check_listed(profiles, [2, 0, 3, 1]) is None
    assert find_order(profiles, [2, 0, 3, 1]).order == (2, 0, 3, 1)
    assert seen(FocalStack(torch.full((3, 3, 8, 8), 0.5))).order == (0, 1, 2)


@pytest.mark.parametrize("lsb", [0.0, 0.5])
def test_a_copy_is_left_out_of_an_order(lsb):
    frames = [*scene().images, again(scene().images[1], lsb=lsb)]
    found = seen(FocalStack(torch.stack(frames)))
    assert dict(found.left_out) == {6: "shows the same as f1"}
    assert found.order == (0, 1, 2, 3, 4, 5)


def test_a_sweep_back_and_forth_is_the_sweep():
    back = [again(image, seed) for seed, image in enumerate(scene().images.flip(0))]
    found = seen(FocalStack(torch.stack([*scene().images, *back])))
    assert sorted(found.left_out) == [6, 7, 8, 9, 10, 11]


def test_a_copy_with_another_focus_is_doubted():
    distances_m = torch.tensor([1 / dpt for dpt in DPT])
    found = seen(FocalStack(images([0, 1, 1, 3, 4, 5]), focus_distances_m=distances_m))
    assert "f1, f2 show the same picture, although their focus differs" in found.findings[0]
    assert found.left_out == {}


@pytest.mark.parametrize("sharpened", [False, True])
def test_the_result_of_a_stacking_is_left_out(sharpened):
    nearest = (SURFACE_DPT[..., None] - torch.tensor(DPT)).abs().argmin(-1)
    fused = scene().images.gather(0, nearest.expand(1, 3, *SIZE))[0]
    if sharpened:
        soft = torch.nn.functional.avg_pool2d(fused[None], 3, 1, 1, count_include_pad=False)[0]
        fused = (1.5 * fused - 0.5 * soft).clamp(0, 1)
    found = seen(FocalStack(torch.stack([fused, *scene().images])))
    assert list(found.left_out) == [0]
    assert "like the result of a focus stacking" in found.left_out[0]
    assert found.order == (1, 2, 3, 4, 5, 6)


def test_equal_frames_without_focus_settings_are_refused():
    with pytest.raises(InputError, match="no change of focus"):
        seen(FocalStack(scene().images[2].repeat(4, 1, 1, 1)))


# Numbering


def test_absent_frames_keep_the_places_of_the_others():
    whole = FocalStack(scene().images)
    left = [0, 1, 3, 5]
    part = FocalStack(images(left), frame_numbers=tuple(left), focus_order=tuple(range(6)))
    assert torch.equal(part.focus_coordinates, whole.focus_coordinates[left])
    unshuffled = FocalStack(images([3, 1, 0, 2, 4, 5]), focus_order=(2, 1, 3, 0, 4, 5))
    assert torch.equal(unshuffled.focus_coordinates[[2, 1, 3, 0, 4, 5]], whole.focus_coordinates)
    with pytest.raises(InputError, match=r"FocalStack.focus_order"):
        FocalStack(whole.images, focus_order=(0, 1, 2, 3, 4, 4))


@pytest.mark.parametrize("growth", [0.0, 1.0])
def test_depth_does_not_depend_on_the_order_of_images(growth):
    order = [2, 0, 5, 1, 4, 3]
    whole = sweep(FocalStack(scene().images), 12.0, PSF(), step_growth=growth)
    mixed = FocalStack(images(order), focus_order=tuple(np.argsort(order).tolist()))
    found = sweep(mixed, 12.0, PSF(), step_growth=growth)
    # Sums over frames in another order differ by rounding.
    assert float((found.sharpest - whole.sharpest).abs().median()) < 1e-3


def test_relative_depth_refers_to_the_frames_given():
    pictures = [image.permute(1, 2, 0).numpy() ** (1 / 2.2) for image in scene().images]
    foreign = np.random.default_rng(0).random(pictures[0].shape, dtype=np.float32)
    settings = Settings(drop_unaligned=True)
    whole = reconstruct(pictures, settings=settings)
    part = reconstruct([*pictures[:2], foreign, *pictures[3:]], settings=settings)
    assert list(part.alignment.dropped) == [2]
    assert part.stack.focus_coordinates.tolist() == pytest.approx([0, 0.2, 0.6, 0.8, 1])
    error = np.abs(part.depth_relative - whole.depth_relative)
    # A third of a step, in a place that no frame of the part shows sharp.
    assert np.median(error) < 0.2 / 3
