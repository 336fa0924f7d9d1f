"""Work on native frames piece by piece: the pieces and threads change nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from sample_stacks import Frames

from focaldiffusion.align.alignment import Alignment, FrameAlignment, common_crop
from focaldiffusion.align.motion import BASIS, Motion
from focaldiffusion.align.poses import Link, adjust_poses
from focaldiffusion.align.registration import find_alignment
from focaldiffusion.frames import frame_of, reduced, reduced_in_strips, rounded, strips
from focaldiffusion.fusion import fuse as fusing
from focaldiffusion.fusion import tiles
from focaldiffusion.fusion.fuse import fuse
from focaldiffusion.fusion.upsample import Enlarged, upsample
from focaldiffusion.stack import FocalStack
from focaldiffusion.threads import threads

SIZE = (150, 203)


@pytest.fixture(scope="module")
def frames() -> Frames:
    """Four frames of 8 bits, each sharp in another quarter, as a hand moves them."""
    rng = np.random.default_rng(0)
    scene = cv2.GaussianBlur(rng.random((*SIZE, 3), dtype=np.float32), (0, 0), 1.5)
    images = []
    for index in range(4):
        blurred = cv2.GaussianBlur(scene, (0, 0), 2.0)
        columns = slice(index * 50, index * 50 + 53)
        blurred[:, columns] = scene[:, columns]
        matrix = np.array([[1 + index / 500, 0.002, 0.7 * index], [-0.002, 1 + index / 500, 0.3]])
        moved = cv2.warpAffine(blurred, matrix, SIZE[::-1], borderMode=cv2.BORDER_REFLECT_101)
        images.append(rounded(np.clip(moved, 0, 1), np.uint8) / np.float32(255))
    return Frames(images)


@pytest.fixture(scope="module")
def weights() -> torch.Tensor:
    """(4, h, w) of every share, also none."""
    values = torch.rand(4, 30, 41, generator=torch.Generator().manual_seed(0)).square() - 0.2
    values = values.clamp_min(0)
    values[0] += 0.01
    return values / values.sum(0)


def aligned(frames: Frames) -> Alignment:
    """The frames turned and scaled, one of them in place."""
    matrices = [np.array([[1 + k / 99, k / 500, -k], [-k / 500, 1 + k / 99, -k]]) for k in range(4)]
    found = tuple(
        FrameAlignment.of(name, matrix, SIZE)
        for name, matrix in zip(frames.names, matrices, strict=True)
    )
    crop = common_crop(matrices, frames.names, SIZE)
    return Alignment(0, found, tuple(range(4)), {}, crop, SIZE)


@pytest.mark.parametrize("at_once", [1, 3, 99])
def test_fusion_does_not_depend_on_the_tiles(
    frames: Frames, weights: torch.Tensor, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fuse(frames, weights)
    monkeypatch.setattr(tiles, "TILE_PX", 32)
    monkeypatch.setattr(fusing, "_TILES_AT_ONCE", at_once)
    cut = fuse(frames, weights)
    np.testing.assert_array_equal(cut.source_index, whole.source_index)
    np.testing.assert_allclose(cut.all_in_focus, whole.all_in_focus, rtol=0, atol=1e-6)


class MaskedFrames(Frames):
    """Frames with a hole in all of them, and a transparent part in each but the first."""

    def alpha(self, index: int) -> np.ndarray:
        opacity = np.ones(self.size, np.float32)
        opacity[:, : 20 * index] = np.linspace(0, 1, self.size[0], dtype=np.float32)[:, None]
        opacity[60:90, 100:140] = 0
        return opacity


def test_fusion_of_transparent_frames_does_not_depend_on_the_tiles(
    frames: Frames, weights: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked = MaskedFrames(frames.images)
    whole = fuse(masked, weights)
    monkeypatch.setattr(tiles, "TILE_PX", 32)
    monkeypatch.setattr(fusing, "_TILES_AT_ONCE", 3)
    cut = fuse(masked, weights)
    assert whole.alpha is not None
    assert cut.alpha is not None
    np.testing.assert_array_equal(cut.alpha, whole.alpha)
    np.testing.assert_array_equal(cut.source_index, whole.source_index)
    np.testing.assert_allclose(cut.all_in_focus, whole.all_in_focus, rtol=0, atol=1e-6)
    assert (cut.alpha[60:90, 100:140] == 0).all()
    assert (cut.all_in_focus[60:90, 100:140] == 0).all()


def test_a_frame_is_resampled_sharply_where_it_is_asked_to(frames: Frames) -> None:
    source = aligned(frames).apply(frames)
    frame = frame_of(source, 2)
    window = slice(10, 90), slice(20, 130)
    sharp = np.random.default_rng(0).random((80, 110)) < 0.3
    part, whole = frame.encoded(window, sharp), source.read(2)[window]
    # OpenCV rounds positions to 1/32 px, from the corner of the part or of the whole.
    assert np.abs(part - whole)[sharp].max() < 0.02
    assert np.abs(part - whole)[~sharp].mean() > 4 * np.abs(part - whole)[sharp].mean()
    nowhere = frame.encoded(window, np.zeros_like(sharp))
    np.testing.assert_array_equal(nowhere[~sharp], part[~sharp])


def test_strips_and_parts_are_those_of_the_whole() -> None:
    image = np.random.default_rng(0).random((97, 40_001, 3), dtype=np.float32)
    windows = strips(image.shape[:2])
    assert len(windows) > 1
    np.testing.assert_array_equal(np.concatenate([image[one] for one in windows]), image)
    small = reduced_in_strips(image.__getitem__, image.shape[:2], (31, 1024))
    np.testing.assert_allclose(small, reduced(image, (31, 1024)), rtol=0, atol=1e-6)
    plane = image[:20, :30, 0].copy()
    for method in (cv2.INTER_LINEAR, cv2.INTER_NEAREST):
        expected = cv2.resize(plane, (401, 203), interpolation=method)[7:190, 30:300]
        part = Enlarged(plane, (203, 401), method).part((slice(7, 190), slice(30, 300)))
        np.testing.assert_allclose(part, expected, rtol=0, atol=1e-6)


def test_two_threads_give_the_bits_of_one(
    frames: Frames, weights: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "TILE_PX", 64)
    monkeypatch.setattr("focaldiffusion.frames._STRIP_PIXELS", 5000)
    results = []
    for count in (1, 2):
        with threads(count):
            found = find_alignment(frames, mode="on")
            source = found.apply(frames)
            stack = FocalStack.read(source, long_side_px=80)
            fused = fuse(source, weights)
            depth = upsample(stack.images[0, 0], fused.all_in_focus)
        matrices = np.array([one.matrix for one in found.frames])
        results.append((matrices, stack.images, fused.all_in_focus, fused.source_index, depth))
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_poses_solve_the_dense_equations() -> None:
    rng = np.random.default_rng(0)
    basis, count = BASIS["affine"], 12

    def motion() -> Motion:
        matrix = np.eye(3)
        matrix[:2] += rng.normal(0, 1e-4, (2, 3))
        spread = rng.normal(0, 1e-3, (6, 6))
        return Motion(matrix, spread @ spread.T, 1.0, 0.0, 0.0, "intensity")

    pairs = [(i, i + 1) for i in range(count - 1)] + [(4, j) for j in range(count)] + [(1, 9)]
    links = [Link(first, second, motion()) for first, second in pairs if first != second]
    found = adjust_poses({i: np.eye(3) for i in range(count)}, links, 4, "affine")
    # No small change of any pose makes the weighted squares smaller (motions commute to 1e-8).
    frames = [i for i in range(count) if i != 4]
    rows, values = [], []
    for link in links:
        root = np.linalg.cholesky(link.information).T
        expected = found[link.second] @ np.linalg.inv(found[link.first])
        error = (np.linalg.inv(link.motion.matrix) @ expected - np.eye(3))[:2].reshape(6)
        whitened = root @ (np.linalg.pinv(basis) @ error)
        weight = min(1.0, np.sqrt(12) / np.linalg.norm(whitened)) ** 0.5
        row = np.zeros((6, 6 * len(frames)))
        for frame, sign in ((link.second, weight), (link.first, -weight)):
            if frame != 4:
                row[:, 6 * frames.index(frame) :][:, :6] = sign * root
        rows.append(row)
        values.append(-weight * whitened)
    left = np.linalg.lstsq(np.concatenate(rows), np.concatenate(values), rcond=None)[0]
    assert np.abs(left).max() < 1e-6
