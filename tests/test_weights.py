from __future__ import annotations

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from focaldiffusion.fusion.weights import frame_weights


@given(
    focus=st.lists(st.floats(0, 10, width=32), min_size=2, max_size=8),
    coordinates=st.lists(st.floats(-1, 11, width=32), min_size=1, max_size=8),
)
@settings(deadline=None)
def test_frame_weights_sum_to_one_with_repeated_focus(focus, coordinates):
    assume(len(set(focus)) > 1)  # FocalStack refuses frames that all have the same focus
    weights = frame_weights(torch.tensor(coordinates), torch.tensor(focus))
    assert weights.shape == (len(focus), len(coordinates))
    torch.testing.assert_close(weights.sum(0), torch.ones(len(coordinates)))
    assert weights.min() >= 0


def test_frames_of_equal_focus_share_the_weight():
    weights = frame_weights(torch.tensor([3.0, 2.5, 1.0]), torch.tensor([3.0, 2.0, 3.0, 1.0]))
    assert weights[0].tolist() == weights[2].tolist() == [0.5, 0.25, 0]
    assert weights[1].tolist() == [0, 0.5, 0]


def test_a_frame_has_all_weight_at_its_own_focus_and_half_between_two():
    focus = torch.tensor([2.0, 0.5, 1.0])
    weights = frame_weights(torch.tensor([2.0, 0.5, 1.0, 0.75, 1.5, 0.0, 3.0]), focus)
    expected = torch.tensor(
        [
            [1, 0, 0, 0, 0.5, 0, 1],
            [0, 1, 0, 0.5, 0, 1, 0],
            [0, 0, 1, 0.5, 0.5, 0, 0],
        ]
    )
    torch.testing.assert_close(weights, expected)


def test_frame_weights_follow_their_frames():
    focus = torch.tensor([2.0, 0.5, 1.0, 1.7])
    coordinate = torch.rand(5, 6, generator=torch.Generator().manual_seed(0)) * 2.5
    order = [3, 1, 0, 2]
    torch.testing.assert_close(
        frame_weights(coordinate, focus[order]), frame_weights(coordinate, focus)[order]
    )
