"""Pyramids of tiles on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from focaldiffusion.errors import InputError
from focaldiffusion.io.pyramid import TILE_PX, Pyramid, level_count

SIZE = (701, 1303)


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def opened(folder: Path, array: np.ndarray, is_image: bool = True) -> Pyramid:
    return Pyramid.opened(folder, lambda: array, is_image=is_image, writable=True)


@pytest.mark.parametrize(("side", "levels"), [(1, 1), (512, 1), (513, 2), (1024, 2), (9000, 6)])
def test_the_first_level_fits_a_tile(side: int, levels: int) -> None:
    assert level_count((3, side)) == level_count((side, 2)) == levels


@pytest.mark.parametrize("is_image", [True, False])
def test_levels_halve_and_round_up(tmp_path: Path, is_image: bool) -> None:
    array = noise()
    pyramid = opened(tmp_path / "p", array, is_image)
    shapes = [level.shape[:2] for level in pyramid.levels]
    assert shapes == [(176, 326), (351, 652), (701, 1303)]
    assert (pyramid.native == array).all()
    block = array[10:12, 20:22].astype(float)
    wanted = block.mean((0, 1)) if is_image else array[10, 20]
    assert np.abs(pyramid.levels[1][5, 10] - wanted).max() <= 0.5


def test_tiles_cover_a_level_and_no_more(tmp_path: Path) -> None:
    pyramid = opened(tmp_path / "p", noise())
    rows = [np.hstack([pyramid.tile(2, x, y) for x in range(3)]) for y in range(2)]
    assert (np.vstack(rows) == noise()).all()
    assert pyramid.tile(2, 2, 1).shape == (701 - TILE_PX, 1303 - 2 * TILE_PX, 3)
    for level, x, y in ((3, 0, 0), (-1, 0, 0), (2, 3, 0), (0, 0, 1)):
        with pytest.raises(InputError, match=r"level|tile"):
            pyramid.tile(level, x, y)


@pytest.mark.parametrize("is_image", [True, False])
@pytest.mark.parametrize("rectangle", [(0, 0, 1303, 701), (1301, 699, 1303, 701), (7, 3, 300, 5)])
def test_an_update_is_the_same_as_a_new_pyramid(
    tmp_path: Path, rectangle: tuple[int, int, int, int], is_image: bool
) -> None:
    changed, other = noise(), noise(1)
    left, top, right, bottom = rectangle
    changed[top:bottom, left:right] = other[top:bottom, left:right]
    pyramid = opened(tmp_path / "p", noise(), is_image)
    pyramid.update(rectangle, other[top:bottom, left:right])
    wanted = opened(tmp_path / "q", changed, is_image)
    for found, level in zip(pyramid.levels, wanted.levels, strict=True):
        assert (found == level).all()


def test_it_is_made_once(tmp_path: Path) -> None:
    opened(tmp_path / "p", noise())
    again = Pyramid.opened(tmp_path / "p", noise, is_image=True, writable=False)
    assert not again.native.flags.writeable
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_two_processes_make_it_at_once(tmp_path: Path) -> None:
    array = noise()

    def overtaken() -> np.ndarray:
        opened(tmp_path / "p", array)
        return array

    pyramid = Pyramid.opened(tmp_path / "p", overtaken, is_image=True, writable=True)
    assert (pyramid.native == array).all()
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
