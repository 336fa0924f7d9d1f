"""Labelling: one label for each node of a graph, so that the sum of costs is low."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_ROUNDS = 10
_MOST_CHANGES = 10  # rounds of changing single labels afterwards
_NEVER = np.float32(1e30)  # cost of labels that a node with fewer labels than others lacks


@dataclass(frozen=True, eq=False)
class Labelling:
    """One label for each node, and how close the others come.

    Attributes:
        labels: (nodes,) index of the label of each node.
        rises: (L_a,) for each node a, by how much the sum of costs rises with another label and the
            best labels elsewhere. Exact on chains; elsewhere an estimate, which may be negative.
    """

    labels: NDArray[np.int64]
    rises: list[Array]


def least_cost_labels(own: Sequence[Array], joint: Mapping[tuple[int, int], Array]) -> Labelling:
    """Labels with a low sum of costs: sequential tree-reweighted message passing.

    Kolmogorov, Convergent Tree-Reweighted Message Passing for Energy Minimization (2006), followed
    by changes of single labels while they lower the sum. Deterministic.

    Args:
        own: (L_a,) cost of each label of node a.
        joint: (L_a, L_b) cost of the labels of neighbours a < b, by (a, b).
    """
    labels = np.array([costs.argmin() for costs in own], np.int64)
    if not joint:
        return Labelling(labels, [costs - costs.min() for costs in own])
    costs = np.full((len(own), max(map(len, own))), np.inf, np.float32)
    for node, some in enumerate(own):
        costs[node, : len(some)] = some
    graph = _Graph.of(joint, costs.shape)
    messages = np.zeros((len(graph.source), costs.shape[1]), np.float32)
    for _ in range(_ROUNDS):
        for sweep in (graph.forward, graph.backward):
            for step in sweep:
                heard = np.add.reduceat(messages[step.incoming], step.starts)
                total = costs[step.nodes] + heard
                labels[step.nodes] = total.argmin(1)
                rest = graph.share[step.nodes, None] * total
                rest = rest[step.speaker] - messages[graph.opposite[step.outgoing]]
                told = (rest[:, :, None] + graph.tables[step.outgoing]).min(1)
                messages[step.outgoing] = told - told.min(1, keepdims=True)
    with_others = costs.copy()
    np.add.at(with_others, graph.source[graph.opposite], messages)
    for _ in range(_MOST_CHANGES):
        before = labels.copy()
        for step in graph.forward:
            given = graph.tables[step.incoming, labels[graph.source[step.incoming]]]
            total = costs[step.nodes] + np.add.reduceat(given, step.starts)
            labels[step.nodes] = total.argmin(1)
        if (before == labels).all():
            break
    rises = [
        total[: len(some)] - total[label]
        for total, some, label in zip(with_others, own, labels, strict=True)
    ]
    return Labelling(labels, rises)


@dataclass(frozen=True, eq=False)
class _Step:
    """Nodes of a sweep that are not neighbours, and whose earlier neighbours are all done.

    Attributes:
        nodes: (n,).
        incoming: edges to these nodes, node by node.
        starts: (n,) position of the first of each node.
        outgoing: edges from these nodes to later ones of the sweep.
        speaker: position among the nodes of each outgoing edge's node.
    """

    nodes: Array
    incoming: Array
    starts: Array
    outgoing: slice
    speaker: Array


@dataclass(frozen=True, eq=False)
class _Graph:
    """Neighbours and their joint costs; each pair has an edge in either direction.

    Attributes:
        source: (E,) node at which an edge begins.
        opposite: (E,) the edge back.
        tables: (E, L, L) joint costs of the labels of source and target.
        share: (nodes,) share of a node's cost that each message takes along.
        forward: steps of a sweep from the first node to the last.
        backward: steps of a sweep from the last to the first.
    """

    source: Array
    opposite: Array
    tables: Array
    share: Array
    forward: list[_Step]
    backward: list[_Step]

    @classmethod
    def of(cls, joint: Mapping[tuple[int, int], Array], size: tuple[int, ...]) -> _Graph:
        """The graph of a number of nodes with a number of labels."""
        count, most = size
        pairs = np.array(list(joint))
        falling = count - 1 - pairs[:, ::-1]  # the same pairs, with nodes counted from the last
        ranks = _ranks(pairs, count), _ranks(falling, count)[::-1]
        orders = [
            rank[ends].argsort(kind="stable") for rank, ends in zip(ranks, pairs.T, strict=True)
        ]
        source = np.concatenate([pairs[orders[0], 0], pairs[orders[1], 1]])
        target = np.concatenate([pairs[orders[0], 1], pairs[orders[1], 0]])
        places = [order.argsort(kind="stable") for order in orders]
        half = len(pairs)
        opposite = np.concatenate([half + places[1][orders[0]], places[0][orders[1]]])
        tables = np.full((2 * half, most, most), _NEVER)
        for (a, b), up, down in zip(joint, *places, strict=True):
            table = joint[a, b]
            rows, columns = table.shape
            tables[up, :rows, :columns] = table
            tables[half + down, :columns, :rows] = table.T
        later, earlier = (np.bincount(ends, minlength=count) for ends in pairs.T)
        share = (1 / np.maximum(np.maximum(later, earlier), 1)).astype(np.float32)
        by_node = np.lexsort([np.concatenate(orders), target])
        steps = [
            _steps(rank, source, target[by_node], by_node, slice(first, first + half))
            for rank, first in zip(ranks, (0, half), strict=True)
        ]
        return cls(source, opposite, tables, share, *steps)


def _ranks(pairs: Array, count: int) -> Array:
    """(nodes,) length of the longest chain of ever smaller neighbours; pairs (P, 2) ascend."""
    ranks = [0] * count
    for small, large in pairs[pairs[:, 1].argsort(kind="stable")].tolist():
        ranks[large] = max(ranks[large], ranks[small] + 1)
    return np.array(ranks)


def _steps(rank: Array, source: Array, target: Array, by_node: Array, edges: slice) -> list[_Step]:
    """Steps of a sweep.

    Args:
        rank: (nodes,) step of each node.
        source: (E,) see `_Graph`.
        target: (E,) ascending: end of each edge of `by_node`.
        by_node: (E,) edges by their end.
        edges: edges that lead onwards, by the step of their source.
    """
    steps, speakers = [], source[edges]
    first = np.searchsorted(rank[speakers], np.arange(rank.max() + 2))
    for step, (start, stop) in enumerate(pairwise(first.tolist())):
        mine = rank[target] == step
        nodes, starts = np.unique(target[mine], return_index=True)
        outgoing = slice(edges.start + start, edges.start + stop)
        speaker = np.searchsorted(nodes, source[outgoing])
        steps.append(_Step(nodes, by_node[mine], starts, outgoing, speaker))
    return steps
