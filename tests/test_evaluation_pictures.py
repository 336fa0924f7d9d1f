"""The picture of a result."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from focaldiffusion.data.dataset import StackSample
from focaldiffusion.evaluation.pictures import result_picture
from focaldiffusion.evaluation.prediction import Prediction
from focaldiffusion.stack import FocalStack

HEIGHT, WIDTH = 30, 40
PANEL = 369 * 277  # px of a panel, three in a row of 1200
TOO_FAR = (103, 0, 31)  # ends of Matplotlib's RdBu_r
TOO_NEAR = (5, 48, 97)
RIGHT = (247, 246, 246)
UNKNOWN = (150, 150, 150)


def sample(*, with_image: bool = True, invalid_rows: int = 0) -> StackSample:
    depth_m = torch.linspace(1, 2, WIDTH).expand(HEIGHT, WIDTH).clone()
    valid = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    valid[:invalid_rows] = False
    image = torch.full((3, HEIGHT, WIDTH), 0.2) if with_image else None
    stack = FocalStack(torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)))
    return StackSample(stack, depth_m, valid, image, "wall")


def share(picture: np.ndarray, colour: tuple[int, int, int]) -> float:
    """How many panels the colour would fill."""
    close = np.abs(np.rint(picture * 255) - colour).max(axis=-1) <= 1
    return float(close.sum() / PANEL)


def test_a_full_picture() -> None:
    prediction = Prediction(
        sample().depth_m, torch.full((3, HEIGHT, WIDTH), 0.5), torch.ones(HEIGHT, WIDTH)
    )
    picture = result_picture(sample(), prediction)
    assert picture.dtype == np.float32
    assert picture.shape[1:] == (1200, 3)
    assert (picture.min(), picture.max()) == (0, 1)
    assert share(picture, RIGHT) == pytest.approx(1, abs=0.02)  # nowhere wrong
    assert share(picture, UNKNOWN) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize(("factor", "colour"), [(2.0, TOO_FAR), (0.5, TOO_NEAR)])
def test_the_error_says_on_which_side(factor: float, colour: tuple[int, int, int]) -> None:
    picture = result_picture(sample(), Prediction(depth_m=factor * sample().depth_m))
    assert share(picture, colour) == pytest.approx(1, abs=0.03)


def test_missing_is_no_truth_and_unknown_is_no_error() -> None:
    truth = sample(with_image=False, invalid_rows=HEIGHT // 2)
    depth_m = truth.depth_m.clone()
    depth_m[-HEIGHT // 2 :] = torch.nan
    picture = result_picture(truth, Prediction(depth_m=depth_m))
    # Upper half: unknown in truth and error; lower half: unknown in the prediction, black in error.
    assert share(picture, UNKNOWN) > 1.2
    assert share(picture, (0, 0, 0)) > 0.4


def test_truth_and_prediction_share_their_colours() -> None:
    right = result_picture(sample(with_image=False), Prediction(depth_m=sample().depth_m))
    wild = sample().depth_m.clone()
    wild[0, 0] = 1e6
    off = result_picture(sample(with_image=False), Prediction(depth_m=wild))
    assert np.mean(np.abs(right - off).max(axis=-1) > 0.01) < 0.01


def test_what_is_not_there_is_left_out() -> None:
    image = torch.full((3, HEIGHT, WIDTH), 0.5)
    depth_m = sample().depth_m
    heights = [
        result_picture(truth, prediction).shape[0]
        for truth, prediction in (
            (sample(), Prediction(depth_m, image, torch.zeros(HEIGHT, WIDTH))),
            (sample(), Prediction(depth_m)),
            (sample(), Prediction(None, image)),
            (sample(with_image=False), Prediction(None, image)),
        )
    ]
    assert heights[0] == heights[1]  # truth above prediction
    assert heights[2] == heights[3] < heights[0]  # images in one row


@pytest.mark.parametrize(("sureness", "colour"), [(300.0, 255), (1.0, 255), (0.0, 0), (-7.0, 0)])
def test_confidence_of_any_range_is_shown(sureness: float, colour: int) -> None:
    confidence = torch.full((HEIGHT, WIDTH), sureness)
    with_it = result_picture(sample(), Prediction(sample().depth_m, None, confidence))
    without = result_picture(sample(), Prediction(sample().depth_m))
    panel = share(with_it, (colour,) * 3) - share(without, (colour,) * 3)
    # The page is white already, but for the heading and the colour bar.
    assert panel == pytest.approx(0 if colour else 1, abs=0.1)
