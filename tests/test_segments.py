from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from focaldiffusion.solve import segments as segments_module
from focaldiffusion.solve.segments import (
    Cracks,
    facing_pairs,
    find_segments,
    relabelled,
)

SIZE = (60, 80)
NOISE_STD = 1 / 255
Y, X = np.mgrid[: SIZE[0], : SIZE[1]]
BOX = (Y >= 15) & (Y < 45) & (X >= 20) & (X < 60)


def grey(values: np.ndarray, noise_std: float = NOISE_STD) -> np.ndarray:
    """(H, W, 3) sRGB of grey values, with independent noise in each channel."""
    noise = np.random.default_rng(0).standard_normal((*values.shape, 3))
    return (values[..., None] + noise_std * noise).astype(np.float32)


def regions(segments: np.ndarray) -> int:
    """Number of segments; fails unless their indices have no gaps."""
    found = np.unique(segments)
    assert found.tolist() == list(range(len(found)))
    return len(found)


def random_segments(count: int = 5, size: tuple[int, int] = (7, 9)) -> np.ndarray:
    return np.random.default_rng(1).integers(0, count, size)


@pytest.mark.parametrize("blur_px", [0, 1.5])
@pytest.mark.parametrize("shape", [BOX, (Y - 30) ** 2 + (X - 40) ** 2 < 20**2, X + Y > 70])
def test_two_flat_colours_are_two_segments_with_the_border_on_the_crack(shape, blur_px):
    values = np.where(shape, 0.3, 0.5)
    if blur_px:
        values = cv2.GaussianBlur(values, (0, 0), blur_px)
    segments = find_segments(grey(values), NOISE_STD)
    assert regions(segments) == 2
    wrong = (segments == np.bincount(segments[shape]).argmax()) != shape
    # Blur rounds the four corners of a box: three pixels of each at the most.
    assert wrong.sum() <= 12


def test_pieces_along_a_steep_outline_belong_to_their_surface():
    # Noise makes hundreds of basins; borders between those along the outline end at it.
    noise_std = 0.008
    segments = find_segments(grey(np.where(BOX, 0.2, 0.8), noise_std), noise_std)
    assert regions(segments) == 2


def test_neither_colour_gains_at_the_border():
    # Which side has the lower index does not matter.
    first = find_segments(grey(np.where(BOX, 0.3, 0.7), 0), 0)
    second = find_segments(grey(np.where(BOX, 0.7, 0.3), 0), 0)
    assert np.array_equal(first, second)


def test_an_outline_with_a_gap_of_a_pixel_stays_closed():
    line = cv2.dilate(BOX.astype(np.uint8), np.ones((3, 3), np.uint8)) > BOX
    line[14, 40] = False
    segments = find_segments(grey(np.where(line, 0.2, 0.6)), NOISE_STD)
    inside, outside = segments[20:40, 25:55], segments[:10]
    assert len(np.unique(inside)) == len(np.unique(outside)) == 1
    assert inside[0, 0] != outside[0, 0]


def test_smooth_shading_does_not_cut_a_ball():
    # Lit from the front: the shade falls to a third at the rim, and steeply there.
    radius = 20
    distance = np.hypot(Y - 30, X - 40) / radius
    ball = distance < 1
    light = np.sqrt(np.clip(1 - distance**2, 0, 1))
    segments = find_segments(grey(np.where(ball, 0.3 + 0.3 * light, 0.9)), NOISE_STD)
    assert len(np.unique(segments[distance < 0.8])) == 1
    assert segments[30, 40] != segments[0, 0]


def test_noise_alone_is_one_segment():
    for noise_std in (NOISE_STD, 4 * NOISE_STD):
        assert regions(find_segments(grey(np.full(SIZE, 0.5), noise_std), noise_std)) == 1


def test_a_speck_joins_what_surrounds_it():
    side = int(segments_module._SMALLEST_PX**0.5) - 2
    for length, expected in ((side, 1), (3 * side, 2)):
        values = np.full(SIZE, 0.5)
        values[20 : 20 + length, 30 : 30 + length] = 0.1
        assert regions(find_segments(grey(values), NOISE_STD)) == expected


def test_the_weaker_of_two_boundaries_opens_first():
    # Three stripes; the middle one is too small, and resembles the left one.
    values = np.full((8, 40), 0.3)
    values[:, 20:24] = 0.4
    values[:, 24:] = 0.9
    segments = find_segments(grey(values, 0), 0)
    assert regions(segments) == 2
    assert segments[4, 21] == segments[4, 5] != segments[4, 35]


def test_a_tiny_image_is_one_segment():
    assert find_segments(np.zeros((3, 3, 3), np.float32), NOISE_STD).tolist() == [[0] * 3] * 3


def test_cracks_are_all_borders_between_neighbours():
    segments = random_segments()
    image = np.random.default_rng(2).random((*segments.shape, 3))
    expected = set()
    for y, x in np.ndindex(segments.shape):
        for below, beside in ((y + 1, x), (y, x + 1)):
            inside = below < segments.shape[0] and beside < segments.shape[1]
            if inside and segments[y, x] != segments[below, beside]:
                contrast = np.linalg.norm(image[y, x] - image[below, beside])
                expected.add((y, x, below, beside, round(contrast, 9)))
    cracks = Cracks.of(segments)
    contrast = cracks.contrast(image).round(9)
    found = zip(*cracks.first.T, *cracks.second.T, contrast, strict=True)
    assert {tuple(one) for one in found} == expected
    assert len(cracks.first) == len(expected)


def test_segments_taken_as_one_share_an_index_without_gaps():
    segments = random_segments()
    # 3 joins 1, and 0 joins 4: the indices 1, 2 and 4 are left.
    joined = relabelled(segments, np.array([4, 1, 2, 1, 4]))
    assert regions(joined) == 3
    assert np.array_equal(joined, np.array([2, 0, 1, 0, 2])[segments])


def slow_facing_pairs(segments: np.ndarray, guide: np.ndarray) -> set[tuple[int, ...]]:
    """Pixels of like colour before and behind something narrow, row by row."""
    shortest = segments_module._SHORTEST_PX
    found = set()
    for y, row in enumerate(segments):
        cuts = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), len(row)]
        stretches = list(pairwise(cuts))
        for one, (start, end) in enumerate(stretches):
            for other in range(
                one + 2, min(one + segments_module._MOST_BETWEEN, len(cuts) - 2) + 1
            ):
                begin, finish = stretches[other]
                right = max(end - 1 - 3, (start + end - 1) // 2)
                left = min(begin + 3, (begin + finish - 1) // 2)
                if (
                    row[start] != row[begin]
                    and begin - (end - 1) <= segments_module._WIDEST_PX
                    and min(end - start, finish - begin) >= shortest
                    and np.linalg.norm(guide[y, right] - guide[y, left]) < segments_module._LIKE
                ):
                    found.add((y, right, y, left))
                    break  # the nearest one faces it
    return found


def test_pairs_face_each_other_across_something_narrow():
    # Stretches of every length from one pixel to beyond the widest occluder, in three colours.
    rng = np.random.default_rng(4)
    segments = np.repeat(rng.permutation(120).reshape(8, 15), rng.integers(1, 16, 15), axis=1)
    colours = np.array([0.2, 0.22, 0.7])[rng.integers(0, 3, 120)]
    guide = np.repeat(colours[segments][..., None], 3, 2).astype(np.float32)
    before, behind, likeness = facing_pairs(segments, guide)
    expected = slow_facing_pairs(segments, guide)
    turned = slow_facing_pairs(segments.T, guide.transpose(1, 0, 2))
    expected |= {(x, y, other_x, other_y) for y, x, other_y, other_x in turned}
    assert {tuple(pair) for pair in np.hstack([before, behind]).tolist()} == expected
    unlike = np.linalg.norm(guide[tuple(before.T)] - guide[tuple(behind.T)], axis=1)
    np.testing.assert_allclose(likeness, 1 - (unlike / segments_module._LIKE) ** 2, atol=1e-6)


@pytest.mark.parametrize("upright", [True, False])
def test_a_wall_faces_itself_behind_a_bar(upright):
    bar = (np.abs(X - 40) < 6) if upright else (np.abs(Y - 30) < 6)
    values = np.where(bar, 0.2, 0.6)
    segments = np.where(bar, 1, 2 * ((X > 40) if upright else (Y > 30)))
    before, behind, likeness = facing_pairs(segments, grey(values, noise_std=0))
    assert len(before) == SIZE[0 if upright else 1]
    assert {(0, 2)} == set(zip(segments[tuple(before.T)], segments[tuple(behind.T)], strict=True))
    assert (likeness == 1).all()


def test_different_colours_do_not_face_each_other():
    bar = np.abs(X - 40) < 6
    segments = np.where(bar, 1, 2 * (X > 40))
    before, behind, likeness = facing_pairs(
        segments, grey(np.where(bar, 0.2, 0.3 + 0.4 * (X > 40)))
    )
    assert before.shape == behind.shape == (0, 2)
    assert likeness.shape == (0,)
