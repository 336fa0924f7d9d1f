"""Stacks whose frames contradict what is said of them: each is named, and depth is not trusted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sample_stacks import SIZE, photograph, texture

from focaldiffusion.psf import PSF
from focaldiffusion.recovery import Estimate, estimate_depth, recover
from focaldiffusion.solve.doubts import apparent_order, examined_calibration
from focaldiffusion.stack import FocalStack

# Six frames, 2 to 0.5 dpt in nearly even steps; near things stand before a slope.
FOCUS_M = (0.5, 0.59, 0.71, 0.91, 1.25, 2.0)
NEAR_M = 0.55
BLUR_SCALE_PX_M = 5.0


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    depth_m = 1 / torch.linspace(0.6, 1.2, SIZE[1]).repeat(SIZE[0], 1)
    depth_m[16:56, 20:44] = NEAR_M
    return texture(), depth_m


def sweep_of_six() -> FocalStack:
    return photograph(*scene(), FOCUS_M, blur_scale_px_m=BLUR_SCALE_PX_M)


def with_frame(stack: FocalStack, place: int, frame: torch.Tensor) -> FocalStack:
    images = stack.images.clone()
    images[place] = frame
    return replace(stack, images=images)


def in_order(stack: FocalStack, order: list[int]) -> FocalStack:
    return replace(stack, images=stack.images[order])


def with_distances(stack: FocalStack, distances_m: torch.Tensor) -> FocalStack:
    return replace(stack, focus_distances_m=distances_m)


def only_order(stack: FocalStack) -> FocalStack:
    return FocalStack(stack.images)


def examined(stack: FocalStack) -> Estimate:
    return estimate_depth(stack, PSF(), check_lens=True)


@pytest.mark.parametrize("knows", ["lens", "distances", "order"])
def test_a_right_stack_raises_no_doubt(knows):
    stack = sweep_of_six()
    if knows == "distances":
        stack = replace(stack, camera=None)
    if knows == "order":
        stack = only_order(stack)
    found = examined(stack)
    assert found.calibration.findings == ()
    assert found.calibration.left_out == ()
    assert found.calibration.trust == 1
    assert found.confidence.mean() > 0.6


@pytest.mark.parametrize("knows_lens", [True, False])
def test_frames_without_a_change_of_focus_show_no_depth(knows_lens):
    stack = sweep_of_six()
    noise = torch.randn(stack.images.shape, generator=torch.Generator().manual_seed(2)) / 255
    equal = replace(stack, images=(stack.images[3] + 0.5 * noise).clamp(0, 1))
    found = examined(equal if knows_lens else only_order(equal))
    assert "do not differ in focus" in found.calibration.findings[0]
    assert found.confidence.max() == 0


@pytest.mark.parametrize("order", [[0, 1, 3, 2, 4, 5], [0, 4, 2, 3, 1, 5], [3, 0, 5, 1, 4, 2]])
def test_frames_in_a_wrong_order_are_named(order):
    found = examined_calibration(in_order(sweep_of_six(), order), PSF())
    (finding,) = found.findings
    assert "not in the order of their focus" in finding
    assert found.trust < 0.7
    right = ", ".join(f"frame {order.index(number) + 1}" for number in range(6))
    reverse = ", ".join(reversed(right.split(", ")))
    assert right in finding or reverse in finding


def test_a_wrong_order_is_doubted_where_only_the_order_is_known():
    found = examined(only_order(in_order(sweep_of_six(), [3, 0, 5, 1, 4, 2])))
    assert len(found.calibration.findings) == 1
    assert found.confidence.max() < 0.31


def test_reversed_frames_are_told_by_what_hides_what():
    image, depth_m = scene()
    image[:, depth_m == NEAR_M] *= 0.2  # its outline shows which side hides the other
    stack = photograph(image, depth_m, FOCUS_M, blur_scale_px_m=12.0)
    found = examined(in_order(stack, [5, 4, 3, 2, 1, 0]))
    assert "look reversed" in found.calibration.findings[0]
    assert found.confidence.max() == 0


@pytest.mark.parametrize(
    ("unit", "per_m"), [("feet", 3.281), ("inches", 39.37), ("centimetres", 100.0)]
)
def test_a_list_in_another_unit_is_named(unit, per_m):
    stack = sweep_of_six()
    found = examined_calibration(with_distances(stack, stack.focus_distances_m * per_m), PSF())
    assert f"look like {unit}" in found.findings[0]
    assert found.trust < 0.4


@pytest.mark.parametrize("knows_lens", [True, False])
def test_a_list_in_dioptres_is_named(knows_lens):
    stack = sweep_of_six()
    dioptres = with_distances(stack, 1 / stack.focus_distances_m)
    found = examined_calibration(dioptres if knows_lens else replace(dioptres, camera=None), PSF())
    assert "look like dioptres" in found.findings[0]
    assert found.trust == 0


def test_an_aperture_that_no_camera_has_is_named():
    stack = sweep_of_six()
    camera = replace(stack.camera, focal_length_px=100.0, aperture_diameter_m=None)
    centimetres = with_distances(stack, stack.focus_distances_m * 100)
    result = recover(replace(centimetres, camera=camera).at_working_size())
    assert "takes an aperture of" in result.findings[0]
    assert (result.confidence == 0).all()


@pytest.mark.parametrize("error", [0.7, 1.4])
def test_a_lens_that_explains_the_frames_clearly_worse_is_doubted(error):
    stack = sweep_of_six()
    camera = replace(stack.camera, aperture_diameter_m=stack.camera.aperture_diameter_m * error)
    found = examined_calibration(replace(stack, camera=camera), PSF())
    assert found.contradiction == pytest.approx(1 / error, rel=0.12)
    assert "times the blur predicted" in found.findings[0]
    assert found.trust < 0.9


STRANGERS = {
    "another scene": lambda stack: photograph(texture(seed=5), 1.0, FOCUS_M).images[2],
    "stacked result": lambda _: texture(),
    "copy": lambda stack: stack.images[5],
    "moved": lambda stack: stack.images[1].roll(3, dims=2),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_frame_of_another_kind_is_left_out(kind):
    stack = sweep_of_six()
    found = examined_calibration(with_frame(stack, 1, STRANGERS[kind](stack)), PSF())
    assert found.left_out == (1,)
    assert found.findings[0].startswith("frame 2: ")


def test_depth_comes_from_the_other_frames():
    stack = sweep_of_six()
    strange = with_frame(stack, 1, STRANGERS["another scene"](stack))
    right, found = (examined(only_order(one)) for one in (stack, strange))
    assert found.calibration.left_out == (1,)
    assert (found.coordinate - right.coordinate).abs().median() < 0.05
    assert found.confidence.mean() > 0.7 * right.confidence.mean()


def test_the_rest_keeps_its_place_in_the_sweep():
    stack = sweep_of_six()
    whole = only_order(stack)
    torch.testing.assert_close(
        whole.without([2]).focus_coordinates, whole.focus_coordinates[[0, 1, 3, 4, 5]]
    )
    positions = FocalStack(stack.images, focus_positions_m=torch.arange(6) * 1e-3)
    torch.testing.assert_close(
        positions.without([0]).focus_coordinates, positions.focus_coordinates[1:]
    )
    assert whole.without(()) is whole


@pytest.mark.parametrize("order", [[2, 0, 1, 3], [1, 3, 0, 2, 4]])
def test_the_apparent_order_is_that_of_the_focus(order):
    images = photograph(*scene(), FOCUS_M[: len(order)], blur_scale_px_m=BLUR_SCALE_PX_M).images
    found = [order[index] for index in apparent_order(images[order])]
    assert found in (sorted(order), sorted(order, reverse=True))
