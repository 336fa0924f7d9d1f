from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_stacks import SIZE, Frames, native, photograph, texture

from focaldiffusion.fusion.fuse import fuse
from focaldiffusion.fusion.weights import frame_weights
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.progress import Meter


def random_frames(count: int, size: tuple[int, int], bit_depth: int = 8, seed: int = 0) -> Frames:
    steps = 2**bit_depth - 1
    generator = np.random.default_rng(seed)
    levels = generator.integers(0, steps + 1, (count, *size, 3))
    return Frames([(one / steps).astype(np.float32) for one in levels], bit_depth)


def one_hot(count: int, chosen: int, size: tuple[int, int] = SIZE) -> torch.Tensor:
    weights = torch.zeros(count, *size)
    weights[chosen] = 1
    return weights


@given(
    count=st.integers(2, 4),
    height=st.integers(5, 40),
    width=st.integers(5, 40),
    bit_depth=st.sampled_from([8, 16]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=30)
def test_the_result_stays_within_the_frames_at_each_pixel(count, height, width, bit_depth, seed):
    frames = random_frames(count, (height, width), bit_depth, seed)
    weights = torch.rand(count, 7, 9, generator=torch.Generator().manual_seed(seed))
    fused = fuse(frames, weights / weights.sum(0)).all_in_focus
    stacked = np.stack(frames.images)
    assert fused.dtype == np.float32
    rounding = 1e-6
    assert (fused >= stacked.min(0) - rounding).all()
    assert (fused <= stacked.max(0) + rounding).all()


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_equal_frames_give_back_the_frame(bit_depth):
    frame = random_frames(1, (37, 50), bit_depth).images[0]
    weights = torch.rand(3, 10, 12)
    fused = fuse(Frames([frame] * 3, bit_depth), weights / weights.sum(0)).all_in_focus
    # A fifteenth of a step of 16 bits.
    np.testing.assert_allclose(fused, frame, rtol=0, atol=1e-6)


def test_a_frame_with_all_the_weight_is_given_back():
    stack = photograph(texture(), 0.5)
    frames = native(stack)
    # Frame 0 is in focus. The others have less detail and almost no weight.
    fused = fuse(frames, one_hot(4, 0)).all_in_focus
    assert np.abs(fused - frames.images[0]).max() < 0.5 / 255


def test_source_index_names_the_frame_of_largest_weight():
    frames = random_frames(3, (24, 30))
    weights = torch.zeros(3, 24, 30)
    weights[2, :, :10], weights[0, :, 10:20], weights[1, :, 20:] = 1, 1, 1
    index = fuse(frames, weights).source_index
    assert index.dtype == np.uint8
    expected = np.repeat([2, 0, 1], 10)[None].repeat(24, 0)
    np.testing.assert_array_equal(index, expected)


def test_source_index_counts_beyond_256_frames():
    frame = np.full((8, 8, 3), 0.5, np.float32)
    index = fuse(Frames([frame] * 300), one_hot(300, 299, (8, 8))).source_index
    assert index.dtype == np.uint16
    assert (index == 299).all()


def test_weights_of_the_working_size_are_enlarged():
    frames = random_frames(2, (40, 60))
    weights = torch.zeros(2, 4, 6)
    weights[0, :, :3], weights[1, :, 3:] = 1, 1
    index = fuse(frames, weights).source_index
    assert (index[:, :30] == 0).all()
    assert (index[:, 30:] == 1).all()


def test_an_edge_keeps_its_contrast_and_gets_no_halo():
    image = torch.where(torch.arange(SIZE[1]) < 48, 0.1, 0.7).expand(3, *SIZE)
    stack = photograph(image, 0.5, noise_std_lsb=0)
    weights = frame_weights(torch.full(SIZE, 2.0), stack.focus_coordinates)
    fused = fuse(native(stack), weights).all_in_focus
    sharp = linear_to_srgb(image).permute(1, 2, 0).numpy()
    # Half a step of 8 bits, and the leak of the three blurred frames, whose weight is 1e-4.
    assert np.abs(fused - sharp).max() < 2 / 255


def test_detail_decides_where_the_weights_do_not():
    left = torch.arange(SIZE[1]) < 48
    depth_m = torch.where(left, 0.5, 2.0).expand(SIZE)
    stack = photograph(texture(), depth_m, (0.5, 2.0))
    frames = native(stack)
    fused = fuse(frames, torch.full((2, *SIZE), 0.5)).all_in_focus
    sharp = linear_to_srgb(texture()).permute(1, 2, 0).numpy()
    inside = np.r_[0:36, 60:96]

    def error(image: np.ndarray) -> float:
        return float(np.sqrt(np.square(image[:, inside] - sharp[:, inside]).mean()))

    mean = (frames.images[0] + frames.images[1]) / 2
    assert error(fused) < 0.4 * error(mean)


def test_frames_in_another_order_give_the_same_image():
    frames = native(photograph(texture(), 1 / torch.linspace(0.5, 2.0, SIZE[1])))
    weights = torch.rand(4, *SIZE, generator=torch.Generator().manual_seed(0))
    weights /= weights.sum(0)
    order = [2, 0, 3, 1]
    one = fuse(frames, weights)
    other = fuse(Frames([frames.images[index] for index in order]), weights[order])
    np.testing.assert_allclose(other.all_in_focus, one.all_in_focus, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(np.array(order)[other.source_index], one.source_index)


def test_each_frame_is_read_once():
    frames = random_frames(3, (16, 16))
    read = []

    class Counting(Frames):
        def read(self, index: int) -> np.ndarray:
            read.append(index)
            return super().read(index)

    done = []
    fuse(Counting(frames.images), one_hot(3, 0, (4, 4)), meter=Meter(lambda *now: done.append(now)))
    assert read == [0, 1, 2]
    assert done == [(1, 3), (2, 3), (3, 3)]
