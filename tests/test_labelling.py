from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pytest

from focaldiffusion.solve.labelling import least_cost_labels

Tables = Mapping[tuple[int, int], np.ndarray]

# Edges of graphs of at most seven nodes; nodes are passed in the order of their index, so trees
# come in several orders.
TREES = {
    "chain": [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)],
    "star": [(0, 3), (1, 3), (2, 3), (3, 4), (3, 5), (3, 6)],
    "star from its centre": [(0, 1), (0, 2), (0, 3), (0, 4)],
    "crossed chain": [(0, 4), (1, 4), (1, 3), (3, 5), (2, 5)],
    "two trees": [(0, 2), (2, 4), (1, 3), (3, 5)],
}
LOOPS = {
    "triangle": [(0, 1), (1, 2), (0, 2)],
    "square": [(0, 1), (1, 2), (2, 3), (0, 3)],
    "square with a diagonal": [(0, 1), (1, 2), (2, 3), (0, 3), (0, 2)],
}
SEEDS = range(10)


def drawn(edges: Sequence[tuple[int, int]], seed: int) -> tuple[list[np.ndarray], Tables]:
    """Random costs; nodes have two to four labels."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(2, 5, 1 + max(map(max, edges)))
    own = [rng.random(count).astype(np.float32) for count in counts]
    joint = {(a, b): rng.random((counts[a], counts[b])).astype(np.float32) for a, b in edges}
    return own, joint


def stepwise(edges: Sequence[tuple[int, int]], seed: int) -> tuple[list[np.ndarray], Tables]:
    """Random depths of three labels a node; neighbours pay for a step between their depths."""
    rng = np.random.default_rng(seed)
    depths = [rng.random(3) for _ in range(1 + max(map(max, edges)))]
    own = [rng.random(3).astype(np.float32) for _ in depths]
    joint = {(a, b): np.abs(depths[a][:, None] - depths[b]).astype(np.float32) for a, b in edges}
    return own, joint


def total(labels: Sequence[int], own: Sequence[np.ndarray], joint: Tables) -> float:
    """The sum of costs, term by term."""
    single = sum(float(costs[label]) for costs, label in zip(own, labels, strict=True))
    return single + sum(float(table[labels[a], labels[b]]) for (a, b), table in joint.items())


def least(own: Sequence[np.ndarray], joint: Tables) -> float:
    """The least sum among all labellings."""
    return min(total(labels, own, joint) for labels in product(*(range(len(one)) for one in own)))


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("costs", [drawn, stepwise])
def test_labels_of_trees_have_the_least_sum(name, costs):
    for seed in SEEDS:
        own, joint = costs(TREES[name], seed)
        assert total(least_cost_labels(own, joint).labels, own, joint) == pytest.approx(
            least(own, joint)
        )


@pytest.mark.parametrize("name", LOOPS)
def test_labels_of_small_loops_have_nearly_the_least_sum(name):
    # Messages around a loop need not settle; for steps of depth they nearly always do.
    exact = 0
    for seed in SEEDS:
        own, joint = stepwise(LOOPS[name], seed)
        found, best = total(least_cost_labels(own, joint).labels, own, joint), least(own, joint)
        exact += found == pytest.approx(best)
        assert found <= 1.2 * best
    assert exact >= len(SEEDS) - 1


def test_no_change_of_a_single_label_lowers_the_sum():
    own, joint = drawn([(a, b) for b in range(12) for a in range(b)], seed=0)
    labels = least_cost_labels(own, joint).labels
    found = total(labels, own, joint)
    for node, costs in enumerate(own):
        for label in range(len(costs)):
            changed = labels.copy()
            changed[node] = label
            assert total(changed, own, joint) >= found - 1e-5


def test_a_node_without_neighbours_takes_its_cheapest_label():
    own, joint = drawn([(0, 2)], seed=0)  # node 1 has none
    labels = least_cost_labels(own, joint).labels
    assert labels[1] == own[1].argmin()
    assert least_cost_labels(own, {}).labels.tolist() == [one.argmin() for one in own]
    assert least_cost_labels([], {}).labels.shape == (0,)


def test_the_same_costs_give_the_same_labels():
    own, joint = drawn(LOOPS["square with a diagonal"], seed=0)
    kept = [costs.copy() for costs in own], {pair: table.copy() for pair, table in joint.items()}
    labels = least_cost_labels(own, joint).labels
    assert np.array_equal(labels, least_cost_labels(own, dict(reversed(joint.items()))).labels)
    # The arguments are not written to.
    assert all(np.array_equal(a, b) for a, b in zip(own, kept[0], strict=True))
    assert all(np.array_equal(joint[pair], kept[1][pair]) for pair in joint)


def test_rises_of_chains_are_those_of_the_least_sums():
    for seed in SEEDS:
        own, joint = drawn([(0, 1), (1, 2)], seed)
        found = least_cost_labels(own, joint)
        best = least(own, joint)
        for node, rises in enumerate(found.rises):
            for label, rise in enumerate(rises):
                fixed = [
                    costs[label : label + 1] if at == node else costs
                    for at, costs in enumerate(own)
                ]
                tables = {
                    pair: table.take([label], pair.index(node)) if node in pair else table
                    for pair, table in joint.items()
                }
                assert rise == pytest.approx(least(fixed, tables) - best, abs=1e-4)


def test_of_equal_labels_the_first_is_taken():
    own = [np.zeros(3, np.float32)] * 2
    assert least_cost_labels(own, {(0, 1): np.zeros((3, 3), np.float32)}).labels.tolist() == [0, 0]
