"""Poses of all frames, from the motions measured between pairs of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from focaldiffusion.align.motion import (
    BASIS,
    Matrix,
    Motion,
    MotionModel,
    find_motion,
    refine_motion,
)
from focaldiffusion.align.pyramid import Pyramid

_FLOOR = 1e-4  # half diagonals: least error of a measured motion, about 0.05 px
_FAR_ERROR = 3.0
"""Error of a motion between frames that are not neighbours, over its standard deviation: a large
change of blur misleads all tiles alike. Measured on path-traced stacks; neighbours have 1 to 2."""
_PASSES = 4


@dataclass(frozen=True, eq=False)
class Link:
    """The motion measured from frame `first` to frame `second`."""

    first: int
    second: int
    motion: Motion
    is_far: bool = False

    @property
    def information(self) -> Matrix:
        """(P, P) inverse covariance of the motion's parameters."""
        covariance = self.motion.covariance * (_FAR_ERROR**2 if self.is_far else 1.0)
        return np.asarray(np.linalg.inv(covariance + _FLOOR**2 * np.eye(len(covariance))))


@dataclass(frozen=True, eq=False)
class Chains:
    """Frames linked to one another.

    Attributes:
        groups: indices of linked frames, each group in the order of the sweep.
        links: one per frame, except the first of each group.
        failures: best match of each later group's first frame with an earlier frame.
    """

    groups: tuple[tuple[int, ...], ...]
    links: tuple[Link, ...]
    failures: dict[int, Link]


def link_frames(
    pyramids: Sequence[Pyramid], order: Sequence[int], advance: Callable[[], None]
) -> Chains:
    """Link each frame to its predecessor or, if that fails, to the most similar earlier frame.

    Args:
        pyramids: structure of all frames.
        order: from one end of the sweep to the other.
        advance: called after each frame.
    """
    groups = [[order[0]]]
    links: list[Link] = []
    failures: dict[int, Link] = {}
    advance()
    for position, index in enumerate(order[1:], start=1):
        nearest = order[position - 1]
        link = Link(nearest, index, find_motion(pyramids[nearest], pyramids[index]))
        if not link.motion.is_reliable and position > 1:
            correlations = {
                other: refine_motion(pyramids[other], pyramids[index], only_middle=True).correlation
                for other in order[: position - 1]
            }
            likeliest = max(correlations, key=correlations.__getitem__)
            motion = find_motion(pyramids[likeliest], pyramids[index])
            if motion.is_reliable or motion.correlation > link.motion.correlation:
                link = Link(likeliest, index, motion)
        if link.motion.is_reliable:
            links.append(link)
            next(group for group in groups if link.first in group).append(index)
        else:
            failures[index] = link
            groups.append([index])
        advance()
    return Chains(tuple(tuple(group) for group in groups), tuple(links), failures)


def chain_poses(links: Sequence[Link], reference: int) -> dict[int, Matrix]:
    """(3, 3) from the reference to each frame, by composing motions along a tree of links."""
    poses = {reference: np.eye(3)}
    pending = list(links)
    while pending:
        rest = []
        for link in pending:
            if link.first in poses:
                poses[link.second] = link.motion.matrix @ poses[link.first]
            elif link.second in poses:
                poses[link.first] = np.linalg.inv(link.motion.matrix) @ poses[link.second]
            else:
                rest.append(link)
        pending = rest
    return poses


def adjust_poses(
    poses: dict[int, Matrix], links: Sequence[Link], reference: int, model: MotionModel
) -> dict[int, Matrix]:
    """The poses that agree best with all measured motions: weighted least squares.

    A chain of neighbours drifts, and a direct comparison with a far frame suffers from the
    difference in blur. Both together, weighted by their inverse covariances, beat either alone;
    a motion that contradicts the others loses weight (Huber).

    Args:
        poses: a first guess, from a chain: (3, 3) from the reference to each frame.
        links: at least those of the chain.
        reference: the frame whose pose stays the identity.
        model: the motions of the links.
    """
    basis = BASIS[model]
    count = basis.shape[1]
    column = {frame: i * count for i, frame in enumerate(f for f in poses if f != reference)}
    if not column:
        return poses
    roots = [np.linalg.cholesky(link.information).T for link in links]
    for _ in range(_PASSES):
        rows = np.zeros((len(links) * count, len(column) * count))
        values = np.zeros(len(links) * count)
        for i, (link, root) in enumerate(zip(links, roots, strict=True)):
            here = slice(i * count, (i + 1) * count)
            expected = poses[link.second] @ np.linalg.inv(poses[link.first])
            error = np.linalg.inv(link.motion.matrix) @ expected - np.eye(3)
            whitened = root @ (np.linalg.pinv(basis) @ error[:2].reshape(6))
            length = max(float(np.linalg.norm(whitened)), 1e-12)
            root_weight = min(1.0, np.sqrt(2 * count) / length) ** 0.5
            values[here] = -root_weight * whitened
            for frame, sign in ((link.second, root_weight), (link.first, -root_weight)):
                if frame != reference:
                    rows[here, column[frame] : column[frame] + count] = sign * root
        solution = np.linalg.lstsq(rows, values, rcond=None)[0]
        adjusted = {reference: poses[reference]}
        for frame, start in column.items():
            step = np.eye(3)
            step[:2] += (basis @ solution[start : start + count]).reshape(2, 3)
            adjusted[frame] = step @ poses[frame]
        poses = adjusted
    return poses
