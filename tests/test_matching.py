from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from focaldiffusion.progress import Meter
from focaldiffusion.solve import matching
from focaldiffusion.solve.matching import Labels, aggregate
from focaldiffusion.threads import threads


def random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def levels(count: int, height: int, width: int) -> Labels:
    return Labels(torch.arange(float(count)), torch.zeros(0, height, width))


def path_costs(
    cost: torch.Tensor,
    jump: torch.Tensor,
    depth: torch.Tensor,
    hypotheses: int,
    background: float | None,
    farther: torch.Tensor,
) -> torch.Tensor:
    """Path costs (L, W) along one row, label by label: the formula of `aggregate`, written slowly.

    `jump` (W - 1) between neighbours and `farther` (W) are prices, `depth` is that of the labels.
    """
    count, width = cost.shape
    path = cost.clone()
    for x in range(1, width):
        previous = path[:, x - 1]
        lowest = int(previous.argmin())
        for label in range(count):
            price = jump[x - 1]
            if background is not None and depth[label, x] <= depth[lowest, x - 1]:
                price = min(price, farther[x])
            if background is not None and depth[label, x] < background:
                price = matching._JUMP_PRICE
            ways = [previous[label], previous[lowest] + price]
            if label < hypotheses:
                ways += [
                    previous[other] + matching._STEP_PRICE
                    for other in (label - 1, label + 1)
                    if 0 <= other < hypotheses
                ]
            path[label, x] = cost[label, x] + min(ways) - previous[lowest]
    return path


@pytest.mark.parametrize("background", [None, 1.0])
def test_path_costs_follow_their_recursion(background):
    width, hypotheses = 24, 6
    planes = torch.stack([torch.linspace(0.5, 4, width), torch.linspace(5, 2, width)])[:, None]
    labels = Labels(torch.arange(float(hypotheses)), planes, background)
    cost = labels.cost(80 * random(hypotheses, 1, width))
    guide = (0.05 * random(1, 1, width)).cumsum(2).expand(3, -1, -1)
    total, choices = aggregate(cost, guide, labels, Meter())

    jump = matching._JUMP_PRICE * torch.exp(-guide[:, 0].diff().norm(dim=0) / matching.EDGE_STD)
    outline = torch.nn.functional.max_pool1d(guide[:, 0].diff().norm(dim=0)[None], 5, 1, 2)[0]
    neighbours = torch.cat([outline, outline[-1:]]), torch.cat([outline[:1], outline])
    farther = matching._JUMP_PRICE * torch.exp(-torch.maximum(*neighbours) / matching._OUTLINE_STD)
    jump, farther = jump.clamp_min(matching._STEP_PRICE), farther.clamp_min(matching._STEP_PRICE)
    depth = torch.cat([labels.hypotheses[:, None].expand(-1, width), planes[:, 0]])
    rest = depth, hypotheses, background
    rightwards = path_costs(cost[:, 0], jump, *rest, farther)
    leftwards = path_costs(
        cost[:, 0].flip(1), jump.flip(0), depth.flip(1), *rest[1:], farther.flip(0)
    ).flip(1)
    # In one row only the paths to the right and left move; the other six see single pixels.
    # Sums are of costs above the lowest of each direction.
    expected = (path - path.amin(0) for path in (rightwards, leftwards, *6 * [cost[:, 0]]))
    torch.testing.assert_close(total[:, 0], sum(expected))
    for found, path in zip(choices[[6, 2], 0], (rightwards, leftwards), strict=True):
        assert (found == depth.gather(0, path.argmin(0)[None])[0]).all()
    assert (choices[[0, 1, 3, 4, 5, 7], 0] == depth.gather(0, cost[:, 0].argmin(0)[None])[0]).all()


def test_all_eight_directions_travel():
    # One pixel has evidence: the eight rays from it follow it, all other pixels are free.
    cost = torch.zeros(3, 9, 9)
    cost[[0, 2], 4, 4] = 1000
    total, _ = aggregate(cost, torch.full((3, 9, 9), 0.5), levels(3, 9, 9), Meter())
    y, x = torch.meshgrid(torch.arange(9) - 4, torch.arange(9) - 4, indexing="ij")
    star = (y == 0) | (x == 0) | (y == x) | (y == -x)
    assert ((total.amax(0) > 0) == star).all()
    assert (total.argmin(0)[star] == 1).all()


def test_threads_do_not_change_the_result():
    planes = 3 * random(2, 20, 30)
    labels = Labels(torch.arange(5.0), planes, background=1.0)
    cost, guide = labels.cost(80 * random(5, 20, 30)), 0.3 * random(3, 20, 30)
    with threads(1):
        expected = aggregate(cost, guide, labels, Meter())
    with threads(2):
        got = aggregate(cost, guide, labels, Meter())
    assert all(torch.equal(*both) for both in zip(got, expected, strict=True))


def test_progress_is_called_after_each_direction():
    calls = []
    aggregate(
        torch.zeros(2, 4, 4),
        torch.zeros(3, 4, 4),
        levels(2, 4, 4),
        Meter(lambda *_: calls.append(1)),
    )
    assert len(calls) == matching.DIRECTIONS


def test_plane_costs_are_interpolated_between_hypotheses():
    labels = Labels(
        torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 0.25, 2.0, 3.0, -0.1, 3.1])[:, None, None]
    )
    cost = labels.cost(torch.tensor([10.0, 20.0, 40.0])[:, None, None])
    outside = matching._JUMP_PRICE
    expected = torch.tensor([10.0, 20.0, 40.0, 10.0, 12.5, 30.0, 40.0, outside, outside])
    torch.testing.assert_close(cost[:, 0, 0], expected)


def test_without_evidence_all_but_supporting_planes_cost_something():
    planes = torch.tensor([0.5, 1.0, 0.5])[:, None, None].expand(3, 1, 2)
    told = torch.tensor([[0.0, 0.0], [0.0, 40.0]])[:, None]  # nothing, and much
    labels = Labels(torch.tensor([0.0, 1.0]), planes, background=0.0)
    alike, beneath = labels.cost(told), replace(labels, beneath=2).cost(told)
    price = torch.tensor([matching._FLOATING_PRICE] * 3 + [0.0] * 2)
    torch.testing.assert_close((beneath - alike)[:, 0], torch.stack([price, 0 * price], 1))


def test_labels_know_their_depth():
    planes = torch.stack([torch.full((2, 3), 0.5), torch.arange(6.0).view(2, 3)])
    labels = Labels(torch.tensor([7.0, 8.0]), planes)
    index = torch.tensor([[[0, 1, 2], [3, 3, 3]], [[3, 2, 1], [0, 1, 2]]])
    expected = [[[7.0, 8.0, 0.5], [3.0, 4.0, 5.0]], [[0.0, 0.5, 8.0], [7.0, 8.0, 0.5]]]
    assert labels.coordinate(index).tolist() == expected
    assert labels.coordinate(index[0]).tolist() == expected[0]


def test_outlines_reach_two_pixels_on_either_side():
    guide = torch.zeros(3, 7, 12)
    guide[:, :, 6:] = 0.3
    outlines = matching._outlines(guide)
    height = pytest.approx(0.3 * math.sqrt(3))
    assert outlines[3].tolist() == [0, 0, 0] + [height] * 6 + [0, 0, 0]
    torch.testing.assert_close(matching._outlines(guide.mT).T, outlines)
