"""The interface of a data set, and its two kinds of sample."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from focaldiffusion.errors import InputError, check_shape
from focaldiffusion.prior import Prior
from focaldiffusion.recovery import Estimate
from focaldiffusion.scene import Scene, check_depth
from focaldiffusion.stack import FocalStack


@dataclass(frozen=True, eq=False)
class StackSample:
    """A focal stack and its ground truth.

    Attributes:
        stack: the frames, photographed or rendered.
        depth_m: (H, W) metres along the optical axis; > 0 where valid, anything elsewhere.
        valid: (H, W) bool, True where the depth is trustworthy.
        all_in_focus: (3, H, W) linear RGB, None where the data set has none.
        source: name of the sample in messages.
        estimate: physical estimate of the stack; None where it was not made.
        has_truth: False for samples without ground truth.
        prior: depth from elsewhere, (H, W); None for none.

    Raises:
        InputError: a truth without valid depth, or a valid depth that is not positive.
    """

    stack: FocalStack
    depth_m: Tensor
    valid: Tensor
    all_in_focus: Tensor | None
    source: str
    estimate: Estimate | None = None
    has_truth: bool = True
    prior: Prior | None = None

    def __post_init__(self) -> None:
        check_shape("StackSample.depth_m", self.depth_m, self.stack.size)
        check_shape("StackSample.valid", self.valid, self.stack.size)
        if self.all_in_focus is not None:
            check_shape("StackSample.all_in_focus", self.all_in_focus, (3, *self.stack.size))
        if self.has_truth:
            check_depth(self.depth_m, self.valid, self.source)
        elif bool(self.valid.any()):
            raise ValueError(f"{self.source}: has no truth, but pixels that are valid")


Sample = Scene | StackSample
"""A `Scene` is photographed by the simulator; a `StackSample` already has its frames."""


def sha256_of_sample(sample: Sample) -> str:
    """Digest of frames, truth, focus and camera: of everything that a score depends on.

    Samples of the same files have the same digest, whatever their paths.
    """
    total = hashlib.sha256()
    for part in _parts(sample):
        if isinstance(part, Tensor):
            array = part.detach().cpu().contiguous().numpy()
            total.update(f"{array.dtype.str} {array.shape} ".encode())
            total.update(array.tobytes())
        else:
            total.update(f"{part!r} ".encode())
    return total.hexdigest()


def _parts(sample: Sample) -> tuple[object, ...]:
    truth = sample.depth_m, sample.valid, sample.all_in_focus
    if isinstance(sample, Scene):
        return *truth, sample.camera, sample.focus_distances_m, sample.focal_range_m
    stack = sample.stack
    focus = stack.focus_distances_m, stack.focus_positions_m
    return *truth, stack.images, *focus, stack.camera


def check_metric(stack: FocalStack, source: str) -> None:
    """Refuse a stack whose frames give no depth in metres, so that a truth in metres has no code.

    Raises:
        InputError: it has no focus distances.
    """
    if stack.axis != "inverse_depth_dpt":
        raise InputError(
            f"{source}: has no focus distances, so its depth in metres has no code. Add them to "
            "the file list or to a stack.json, give data.dataset_kwargs.focus_distances_m if all "
            "stacks share them, or leave the sample out."
        )


def check_wide(sample: StackSample) -> None:
    """Refuse a sample whose estimate has no wide windows, where a network sees them.

    Raises:
        InputError: its evidence was written without them.
    """
    if sample.estimate is not None and sample.estimate.evidence.wide is None:
        raise InputError(
            f"{sample.source}: its evidence was written without wide windows, which "
            "model.with_wide needs. Write the cache again."
        )


class Dataset(Protocol):
    """A split of a data set: an index over its files, which are opened one sample at a time.

    It holds paths and numbers only, so that worker processes can copy it.
    """

    skipped: Sequence[str]
    """A sentence for each listed sample that is left out because of missing files."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Read a sample at its native size, with its own optics and planar depth in metres.

        Raises:
            InputError: a missing or invalid file; the message names it.
        """
        ...

    def name(self, index: int) -> str:
        """Unique name of the sample in its data set, such as its relative path."""
        ...

    def scene_name(self, index: int) -> str:
        """Name of the physical scene that the sample shows. No scene is in two splits."""
        ...
