"""Labelling: one label for each node of a graph, so that the sum of costs is low."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_ROUNDS = 10
_MOST_CHANGES = 10  # rounds of changing single labels afterwards


def least_cost_labels(
    own: Sequence[Array], joint: Mapping[tuple[int, int], Array]
) -> NDArray[np.int64]:
    """Labels with a low sum of costs: sequential tree-reweighted message passing.

    Kolmogorov, Convergent Tree-Reweighted Message Passing for Energy Minimization (2006), followed
    by changes of single labels while they lower the sum. Deterministic.

    Args:
        own: (L_a,) cost of each label of node a.
        joint: (L_a, L_b) cost of the labels of neighbours a < b, by (a, b).

    Returns:
        (nodes,) index of the label of each node.
    """
    neighbours: list[list[int]] = [[] for _ in own]
    tables: dict[tuple[int, int], Array] = {}
    messages: dict[tuple[int, int], Array] = {}
    for (a, b), table in joint.items():
        for one, other, costs in ((a, b, table), (b, a, np.ascontiguousarray(table.T))):
            neighbours[one].append(other)
            tables[one, other] = costs
            messages[one, other] = np.zeros(costs.shape[1], np.float32)
    labels = np.zeros(len(own), np.int64)
    for _ in range(_ROUNDS):
        for forward in (True, False):
            nodes = range(len(own))
            for node in nodes if forward else reversed(nodes):
                total = own[node] + sum(messages[other, node] for other in neighbours[node])
                later = sum(other > node for other in neighbours[node])
                share = 1 / max(later, len(neighbours[node]) - later, 1)
                for other in neighbours[node]:
                    if (other > node) == forward:
                        rest = share * total - messages[other, node]
                        message = (rest[:, None] + tables[node, other]).min(0)
                        messages[node, other] = message - message.min()
                labels[node] = total.argmin()
    for _ in range(_MOST_CHANGES):
        before = labels.copy()
        for node, costs in enumerate(own):
            labels[node] = (
                costs + sum(tables[other, node][labels[other]] for other in neighbours[node])
            ).argmin()
        if (before == labels).all():
            break
    return labels
