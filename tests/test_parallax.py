"""Views from beside the camera."""

from __future__ import annotations

import numpy as np

from focaldiffusion.simulation.parallax import Parallax

SIZE = (40, 60)
WALL, CARD = (30, 60, 200), (220, 180, 20)


def scene() -> Parallax:
    image, nearness = np.full((*SIZE, 3), WALL, np.uint8), np.zeros(SIZE, np.float32)
    image[10:30, 20:40] = CARD
    nearness[10:30, 20:40] = 2.0
    return Parallax(image, nearness, layers=10)


def columns(view: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int]:
    """First and last column of a colour in the middle row."""
    at = np.flatnonzero(np.abs(view[20].astype(int) - colour).max(-1) < 60)
    return int(at[0]), int(at[-1])


def test_near_things_move_and_the_wall_shows_behind_them() -> None:
    still, moved = scene().view((0, 0)), scene().view((10, 0), pivot=0.05)
    assert columns(still, CARD) == (20, 39)
    first, last = columns(moved, CARD)
    assert last == 48
    assert 28 <= first <= 29  # the layer behind shows its continuation, a pixel of shift less
    # Neither a copy of the card nor a hole is left where it was.
    assert (np.abs(moved[20, 2:26].astype(int) - WALL).max(-1) <= 2).all()


def test_without_a_shift_the_image_stays() -> None:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    nearness = np.tile(np.linspace(0, 1, SIZE[1], dtype=np.float32), (SIZE[0], 1))
    view = Parallax(image, nearness).view((0, 0))
    assert np.abs(view.astype(int) - image).max() <= 1  # of rounding


def test_a_flat_scene_moves_as_a_whole() -> None:
    image = np.full((*SIZE, 3), 77, np.uint8)
    assert (Parallax(image, np.ones(SIZE, np.float32)).view((9, 5)) == 77).all()
