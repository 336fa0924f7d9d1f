"""Warnings of a dry run about depth, focus and blur that contradict each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from sample_stacks import FOCUS_M, SIZE, photograph, texture

from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.plausibility import doubts
from focaldiffusion.optics import Camera

HEIGHT, WIDTH = SIZE[0] * 2, SIZE[1] * 2
DEPTH_M = (1 / torch.linspace(1.9, 0.6, WIDTH)).expand(HEIGHT, WIDTH)
"""A slanted floor within the sweep, near at the left; its inverse depth is within it too."""


def sample() -> StackSample:
    size = HEIGHT, WIDTH
    stack = photograph(texture(size), DEPTH_M, size=size)
    return StackSample(stack, DEPTH_M, torch.ones(size, dtype=torch.bool), None, "floor")


def with_depth(change: Callable[[torch.Tensor], torch.Tensor]) -> StackSample:
    return replace(sample(), depth_m=change(DEPTH_M))


def with_aperture(factor: float) -> StackSample:
    right = sample()
    camera = right.stack.camera
    assert isinstance(camera, Camera)
    assert camera.aperture_diameter_m is not None
    changed = replace(camera, aperture_diameter_m=factor * camera.aperture_diameter_m)
    return replace(right, stack=replace(right.stack, camera=changed))


def with_stack(**changes: object) -> StackSample:
    right = sample()
    return replace(right, stack=replace(right.stack, **changes))


def with_valid(count: int) -> StackSample:
    valid = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    valid[:, :count] = True
    return replace(sample(), valid=valid)


WRONG: dict[str, tuple[Callable[[], StackSample], dict[str, str]]] = {
    "right": (sample, {}),
    "millimetres": (
        lambda: with_depth(lambda z: 1000 * z),
        {"focus": "looks like millimetres: multiply depth_scale by 0.001."},
    ),
    "centimetres": (
        lambda: with_depth(lambda z: 100 * z),
        {"focus": "looks like centimetres: multiply depth_scale by 0.01."},
    ),
    "metres as millimetres": (
        lambda: with_depth(lambda z: z / 1000),
        {"focus": "taken for millimetres: multiply depth_scale by 1000.", "blur": "short side"},
    ),
    "another unit": (
        lambda: with_depth(lambda z: 1e7 * z),
        {"focus": "Check the units of both."},
    ),
    "inverse depth": (
        lambda: with_depth(lambda z: 1 / z),
        {"order": "disparity or inverse depth in place of depth"},
    ),
    "feet": (
        lambda: with_depth(lambda z: 3.28 * z),
        {"factor": "the depth is 3.3 times its focus distance."},
    ),
    "another view": (
        lambda: with_depth(lambda z: z[:, :HEIGHT].mT.repeat(1, 2)[:, :WIDTH]),
        {"unrelated": "turned (depth_orientation), or of another view"},
    ),
    "reversed focus": (
        lambda: with_stack(focus_distances_m=torch.tensor(FOCUS_M[::-1])),
        {"order": "or focus distances in reverse order"},
    ),
    "wide aperture": (lambda: with_aperture(100), {"blur": "times the short side"}),
    "pinhole": (lambda: with_aperture(0.001), {"sharp": "nothing is defocused"}),
    "dark": (
        lambda: with_stack(images=sample().stack.images / 255),
        {"dark": "10 to 14 bits in 16-bit files"},
    ),
    "equal frames": (
        lambda: with_stack(images=sample().stack.images[:1].repeat(len(FOCUS_M), 1, 1, 1)),
        {"equal": "all 4 frames are the same"},
    ),
    "flat": (lambda: with_depth(torch.ones_like), {"flat": "every pixel has the depth 1 m"}),
    "8 bits": (
        lambda: with_depth(lambda z: (z / z.max() * 255).round() / 255 * 2),
        {"8 bits": "multiples of 1/255 of the largest, 2 m"},
    ),
    "few pixels": (lambda: with_valid(2), {"valid": "only 1.0% of the pixels"}),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_kind_of_mistake_is_named(case: str) -> None:
    make, expected = WRONG[case]
    found = doubts(make())
    assert found.keys() == expected.keys(), found
    for kind, text in expected.items():
        assert found[kind].startswith("floor: ")
        assert text in found[kind]


def test_a_sample_without_truth_is_judged_by_its_frames() -> None:
    nothing = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    right = replace(sample(), valid=nothing, has_truth=False)
    assert doubts(right) == {}
    black = replace(right, stack=replace(right.stack, images=0 * right.stack.images))
    assert doubts(black).keys() == {"dark", "equal"}


def test_the_sentence_has_both_ranges_and_the_factor() -> None:
    found = doubts(with_depth(lambda z: torch.full_like(z, 3000.0)))
    # The middle of the sweep from 0.5 to 2 m is 1 m.
    assert (
        "depth from 3000 to 3000 m, focus from 0.5 to 2 m: the depth is 3e+03 times"
        in (found["focus"])
    )
