"""Poses of all frames, from the motions measured between pairs of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

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
from focaldiffusion.threads import in_parallel

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
    neighbours = list(pairwise(order))

    def motion_of(pair: tuple[int, int]) -> Motion:
        return find_motion(*(pyramids[index] for index in pair))

    motions = in_parallel(motion_of, neighbours)
    for position, ((nearest, index), motion) in enumerate(
        zip(neighbours, motions, strict=True), start=1
    ):
        link = Link(nearest, index, motion)
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
    if len(poses) == 1:
        return poses
    roots = [np.linalg.cholesky(link.information).T for link in links]
    to_parameters = np.linalg.pinv(basis)
    for _ in range(_PASSES):
        equations = _Equations(count)
        for link, root in zip(links, roots, strict=True):
            expected = poses[link.second] @ np.linalg.inv(poses[link.first])
            error = np.linalg.inv(link.motion.matrix) @ expected - np.eye(3)
            whitened = root @ (to_parameters @ error[:2].reshape(6))
            length = max(float(np.linalg.norm(whitened)), 1e-12)
            root_weight = min(1.0, np.sqrt(2 * count) / length) ** 0.5
            ends = {link.second: root_weight * root, link.first: -root_weight * root}
            ends.pop(reference, None)
            equations.add(ends, -root_weight * whitened)
        adjusted = {reference: poses[reference]}
        for frame, solution in equations.solved().items():
            step = np.eye(3)
            step[:2] += (basis @ solution).reshape(2, 3)
            adjusted[frame] = step @ poses[frame]
        poses = adjusted
    return poses


class _Equations:
    """Normal equations of least squares whose residuals depend on one or two frames each.

    Frames are eliminated from the last one on. Chained to earlier frames, each then has one
    neighbour left, so the work grows with the number of frames.
    """

    def __init__(self, count: int) -> None:
        """Equations of a number of parameters for each frame."""
        self.count = count
        self.blocks: dict[int, dict[int, Matrix]] = {}
        self.right: dict[int, Matrix] = {}

    def add(self, parts: Mapping[int, Matrix], values: Matrix) -> None:
        """Add the residuals: the sum of each part times its frame's parameters, less the values."""
        for frame, part in parts.items():
            self.right[frame] = self.right.get(frame, 0) + part.T @ values
            row = self.blocks.setdefault(frame, {})
            for other, another in parts.items():
                row[other] = row.get(other, 0) + part.T @ another

    def solved(self) -> dict[int, Matrix]:
        """The parameters of each frame; consumes the equations."""
        order = list(self.blocks)
        eliminated = []
        for frame in reversed(order):
            row = self.blocks.pop(frame)
            inverse = np.linalg.inv(row.pop(frame))
            for other, block in row.items():
                share = block.T @ inverse
                del self.blocks[other][frame]
                self.right[other] = self.right[other] - share @ self.right[frame]
                for another, other_block in row.items():
                    target = self.blocks[other]
                    target[another] = target.get(another, 0) - share @ other_block
            eliminated.append((frame, inverse, row))
        solution: dict[int, Matrix] = {}
        for frame, inverse, row in reversed(eliminated):
            known = sum(block @ solution[other] for other, block in row.items())
            solution[frame] = inverse @ (self.right[frame] - known)
        return solution
