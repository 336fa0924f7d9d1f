from __future__ import annotations

import math

import pytest
import torch
from rooms import SIZE, photographed, room, source

from focaldiffusion.data.batch import StackBatch, collate, estimated
from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.photographer import photograph
from focaldiffusion.errors import InputError
from focaldiffusion.optics import Camera
from focaldiffusion.stack import FocalStack

HEIGHT, WIDTH = SIZE


@pytest.fixture
def samples() -> list[StackSample]:
    """Simulated in 4 frames; order only, in 2; positions of a stage, in 3."""
    four = photograph(room(), source(focal_stack_size=(4, 4)), torch.Generator().manual_seed(0))
    positions = torch.tensor([0.0, 1e-3, 2e-3])
    return [four, photographed(1), photographed(2, 3, focus_positions_m=positions)]


def test_what_a_sample_lacks_is_marked(samples: list[StackSample]):
    batch = collate(samples)
    assert batch.images.shape == (3, 4, 3, HEIGHT, WIDTH)
    assert batch.slice_valid.tolist() == [
        [True] * 4,
        [True, True, False, False],
        [True, True, True, False],
    ]
    assert (batch.images[1, 2:] == 0).all()
    assert batch.focus_distances_m[0].tolist() == samples[0].stack.focus_distances_m.tolist()
    assert batch.focus_distances_m[1:].isnan().all()
    assert batch.focus_positions_m[2, 3].isnan()
    assert batch.has_all_in_focus.tolist() == [True, False, False]
    assert (batch.all_in_focus[1:] == 0).all()
    camera = samples[0].stack.camera
    assert batch.blur_scale_px_m[0].item() == pytest.approx(camera.blur_scale_px_m)
    assert batch.focal_length_px[0].item() == camera.focal_length_px
    assert batch.blur_scale_px_m[1:].isnan().all()
    assert batch.sources == ("room 0", "room 1", "room 2")


def test_invalid_depth_is_a_number_that_no_mask_turns_into_nan(samples: list[StackSample]):
    batch = collate(samples)
    assert (batch.depth_m[~batch.valid] == 1).all()
    for i, sample in enumerate(samples):
        assert torch.equal(batch.valid[i], sample.valid)
        assert torch.equal(batch.depth_m[i][sample.valid], sample.depth_m[sample.valid])
    assert ((batch.depth_m - 2).abs() * batch.valid).sum().isfinite()


def assert_equal(found: FocalStack, expected: FocalStack) -> None:
    assert torch.equal(found.images, expected.images)
    assert found.camera == expected.camera
    assert found.axis == expected.axis
    assert torch.equal(found.focus_coordinates, expected.focus_coordinates)


def test_each_sample_comes_out_as_it_went_in(samples: list[StackSample]):
    batch = collate(samples)
    assert len(batch) == 3
    for i, sample in enumerate(samples):
        found = batch.sample(i)
        assert_equal(found.stack, sample.stack)
        assert (found.all_in_focus is None) == (sample.all_in_focus is None)
        assert found.source == sample.source


def test_infinity_is_a_focus_distance():
    stack = FocalStack(
        torch.rand(2, 3, *SIZE), Camera(200.0, 0.02, SIZE), torch.tensor([1.0, math.inf])
    )
    truth = room()
    batch = collate([StackSample(stack, truth.depth_m, truth.valid, None, "far")])
    assert batch.stack(0).focus_distances_m.tolist() == [1.0, math.inf]


def test_to_moves_every_tensor(samples: list[StackSample]):
    batch = collate(samples).to("meta")
    assert isinstance(batch, StackBatch)
    assert batch.images.is_meta
    assert batch.has_all_in_focus.is_meta
    assert batch.blur_scale_px_m.is_meta
    assert batch.sources == ("room 0", "room 1", "room 2")


def test_unlike_sizes_are_named():
    small = room(1, (24, 32))
    other = photograph(small, source(), torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match=r"room 1: 32x24, but room 0 of the same batch is 64x48"):
        collate([photographed(0), other])


def test_estimates_in_step_equal_single_ones():
    many = [simulated(0, 3), simulated(1, 2, (36, 64)), simulated(2, 2), simulated(3, 4)]
    (known,) = estimated(many[:1])
    alone = estimated(many, in_step=False)
    together = estimated([known, *many[1:]], in_step=True)
    assert together[0].estimate is known.estimate
    for one, two in zip(alone, together, strict=True):
        assert one.source == two.source
        for name in ("coordinate", "agreement", "confidence"):
            maps = [getattr(sample.estimate, name) for sample in (one, two)]
            torch.testing.assert_close(*maps, rtol=0, atol=1e-5)
        posteriors = [sample.estimate.evidence.posterior for sample in (one, two)]
        torch.testing.assert_close(*posteriors, rtol=0, atol=1e-5)


def simulated(index: int, frames: int, size: tuple[int, int] = SIZE) -> StackSample:
    of_frames = source(focal_stack_size=(frames, frames))
    return photograph(room(index, size), of_frames, torch.Generator().manual_seed(index))
