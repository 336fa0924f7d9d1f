"""The models that need no training, on simulated stacks whose truth is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.baselines import MODELS, open_model
from focaldiffusion.evaluation.image_metrics import psnr
from focaldiffusion.evaluation.prediction import Prediction
from focaldiffusion.evaluation.protocol import chosen_frames
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.simulation.capture import Imperfections, moved
from focaldiffusion.stack import FocalStack
from tests.conftest import TOLERANCE
from tests.sample_stacks import FOCUS_M, photograph, texture

SIZE = (96, 128)
IMAGE = texture(SIZE)
NEAR, FAR = slice(8, 48), slice(80, 120)
"""Columns of the two walls that the blur at their seam does not reach."""


def walls_m(near_m: float = 0.5, far_m: float = 2.0) -> Tensor:
    """A wall on the left, one farther away on the right."""
    depth_m = torch.full(SIZE, near_m)
    depth_m[:, SIZE[1] // 2 :] = far_m
    return depth_m


def two_walls(near_m: float = 0.5, far_m: float = 2.0) -> FocalStack:
    return photograph(IMAGE, walls_m(near_m, far_m), size=SIZE)


def depth_of(prediction: Prediction) -> Tensor:
    assert prediction.depth_m is not None
    return prediction.depth_m


@pytest.mark.parametrize("name", MODELS)
def test_predictions_have_frame_size_and_ignore_the_listed_order(name: str) -> None:
    stack = two_walls()

    model = open_model(name)
    found = model.predict(stack, "walls")
    again = model.predict(chosen_frames(stack, (2, 0, 3, 1)), "walls")

    assert model.name == name
    for field, shape in (("depth_m", SIZE), ("all_in_focus", (3, *SIZE)), ("confidence", SIZE)):
        one, other = getattr(found, field), getattr(again, field)
        assert (one is None) == (other is None)
        if one is not None:
            assert one.shape == shape
            # Sums over the frames run in another order.
            torch.testing.assert_close(other, one, equal_nan=True, **TOLERANCE[torch.float32])


@pytest.mark.parametrize("name", ["argmax", "shape-from-focus", "physics"])
def test_walls_in_focus_are_at_their_distances(name: str) -> None:
    depth_m = depth_of(open_model(name).predict(two_walls(), "walls"))

    torch.testing.assert_close(depth_m[:, NEAR].median(), torch.tensor(0.5), rtol=0.01, atol=0)
    torch.testing.assert_close(depth_m[:, FAR].median(), torch.tensor(2.0), rtol=0.01, atol=0)


def test_argmax_returns_only_focus_distances() -> None:
    depth_m = depth_of(open_model("argmax").predict(two_walls(0.58, 1.4), "walls"))

    assert all(min(abs(depth - one) for one in FOCUS_M) < 1e-6 for depth in depth_m.unique())


def test_pixels_sharpest_at_infinity_have_no_depth() -> None:
    stack = photograph(IMAGE, walls_m(0.5, math.inf), (0.5, 1.0, math.inf), size=SIZE)

    for name in ("argmax", "shape-from-focus"):
        depth_m = depth_of(open_model(name).predict(stack, "walls"))

        assert depth_m[:, FAR].isnan().float().mean() > 0.99
        assert not depth_m[:, NEAR].isnan().any()


def test_shape_from_focus_finds_a_slanted_plane_between_the_frames() -> None:
    """Frames are 0.25 dpt apart, so the sharpest alone errs by 0.0625 dpt at best."""
    slant_dpt = torch.linspace(2.0, 0.5, SIZE[1]).expand(SIZE)
    focus_m = [1 / (0.25 * step) for step in range(9, 0, -1)]
    stack = photograph(IMAGE, 1 / slant_dpt, focus_m, size=SIZE, blur_scale_px_m=16.0)

    error_dpt = {
        name: float((1 / depth_of(open_model(name).predict(stack, "")) - slant_dpt).abs().mean())
        for name in ("argmax", "shape-from-focus")
    }

    assert error_dpt["argmax"] > 0.06
    assert error_dpt["shape-from-focus"] < 0.03


def test_shape_from_focus_is_surer_of_texture_than_of_a_bare_wall() -> None:
    image = IMAGE.clone()
    image[:, :, SIZE[1] // 2 :] = 0.3
    confidence = (
        open_model("shape-from-focus")
        .predict(photograph(image, walls_m(), size=SIZE), "walls")
        .confidence
    )

    assert confidence is not None
    assert float(confidence.min()) >= 0
    assert float(confidence.max()) <= 1
    assert float(confidence[:, NEAR].mean()) > 2 * float(confidence[:, FAR].mean())


def test_shape_from_focus_is_unsure_of_empty_frames() -> None:
    stack = photograph(0.5, 1.0, size=SIZE, noise_std_lsb=0)

    confidence = open_model("shape-from-focus").predict(stack, "nothing").confidence

    assert confidence is not None
    assert not confidence.any()


@pytest.mark.parametrize("name", ["laplacian-pyramid", "physics", "shape-from-focus"])
def test_fusion_is_better_than_every_single_frame(name: str) -> None:
    stack = two_walls()
    truth = linear_to_srgb(IMAGE)
    best = max(psnr(linear_to_srgb(frame), truth) for frame in stack.images)

    image = open_model(name).predict(stack, "walls").all_in_focus

    assert image is not None
    assert psnr(image, truth) > best + 6


def test_physics_solves_large_frames_at_its_working_size() -> None:
    size = (32, 1536)
    depth_m = torch.full(size, 0.5)
    depth_m[:, 768:] = 2.0
    stack = photograph(texture(size), depth_m, size=size, blur_scale_px_m=16.0)

    found = depth_of(open_model("physics").predict(stack, "long"))

    assert found.shape == size
    torch.testing.assert_close(found[:, :720].median(), torch.tensor(0.5), rtol=0.02, atol=0)
    torch.testing.assert_close(found[:, 816:].median(), torch.tensor(2.0), rtol=0.02, atol=0)


def test_aligned_physics_leaves_unmoved_frames_alone() -> None:
    stack = two_walls()

    plain, aligned = (
        open_model(name).predict(stack, "") for name in ("physics", "physics-aligned")
    )

    assert torch.equal(depth_of(plain), depth_of(aligned))


def test_aligned_physics_predicts_in_the_view_of_the_middle_frame() -> None:
    size = (192, 256)
    depth_m = torch.full(size, 0.5)
    depth_m[:, 128:] = 2.0
    image = texture(size)
    stack = photograph(image, depth_m, size=size)
    shifts_px = torch.tensor([[4.0, 3.0], [0.0, 0.0], [-4.0, 2.0], [3.0, -4.0]])
    centre = size[1] / 2, size[0] / 2
    images = moved(stack.images, centre, Imperfections(shifts_px=shifts_px)).clamp(0, 1)
    hand_held = replace(stack, images=images)

    found = open_model("physics-aligned").predict(hand_held, "walls")

    assert found.all_in_focus is not None
    assert found.confidence is not None
    known = ~depth_of(found).isnan()
    # The frames share all but 4 px at each border; alignment may cost another pixel.
    assert bool(known[6:-6, 6:-6].all())
    assert not bool(known[:2].any())
    assert not bool(found.confidence[~known].any())
    inner = ((depth_of(found) - depth_m).abs() / depth_m)[8:-8, 8:-8]
    assert float(inner.mean()) < 0.05
    truth = linear_to_srgb(image)
    unaligned = open_model("physics").predict(hand_held, "walls").all_in_focus
    assert unaligned is not None
    assert psnr(found.all_in_focus, truth) > psnr(unaligned, truth) + 3


@pytest.mark.parametrize("name", ["argmax", "shape-from-focus"])
def test_depth_needs_focus_distances(name: str) -> None:
    stack = replace(two_walls(), focus_distances_m=None)

    with pytest.raises(InputError, match=rf"{name}: the stack has no focus distances.*stack\.json"):
        open_model(name).predict(stack, "walls")


def test_fusion_needs_no_focus_distances() -> None:
    stack = two_walls()
    blind = replace(stack, focus_distances_m=None, camera=None)

    known, unknown = (
        open_model("laplacian-pyramid").predict(one, "walls").all_in_focus for one in (stack, blind)
    )

    assert known is not None
    assert unknown is not None
    assert psnr(known, unknown) > 50


def test_unknown_model_error_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"model 'phisics' is unknown; did you mean physics\?"):
        open_model("phisics")
