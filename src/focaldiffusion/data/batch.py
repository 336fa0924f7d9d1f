"""StackBatch: samples of one size, collated; missing values are marked, never invented."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from focaldiffusion.data.dataset import StackSample
from focaldiffusion.errors import InputError
from focaldiffusion.optics import Camera
from focaldiffusion.prior import Prior
from focaldiffusion.psf import PSF
from focaldiffusion.recovery import Estimate, estimate_depths
from focaldiffusion.scene import Scene
from focaldiffusion.stack import FocalStack

_FILL_M = 1.0
_Holder = TypeVar("_Holder", "StackBatch", Scene, StackSample, FocalStack)


@dataclass(frozen=True, eq=False)
class StackBatch:
    """B samples with up to N frames of one size.

    Attributes:
        images: (B, N, 3, H, W) linear RGB; padding frames are black.
        slice_valid: (B, N) bool, True where a stack has the frame.
        focus_distances_m: (B, N), infinity allowed; NaN for padding frames and for stacks without
            distances (see `stack(i).axis`).
        focus_positions_m: (B, N), the same for the positions of a stage.
        all_in_focus: (B, 3, H, W) linear RGB, black for samples without one.
        has_all_in_focus: (B,) bool.
        depth_m: (B, H, W); 1 where invalid, so that masks never multiply NaN; may be infinite
            where valid.
        valid: (B, H, W) bool.
        cameras: camera of each stack, or None.
        sources: name of each sample in messages.
        estimates: physical estimate of each stack; None where it was not made.
        priors: prior of each stack; None where there is none.
    """

    images: Tensor
    slice_valid: Tensor
    focus_distances_m: Tensor
    focus_positions_m: Tensor
    all_in_focus: Tensor
    has_all_in_focus: Tensor
    depth_m: Tensor
    valid: Tensor
    cameras: tuple[Camera | None, ...]
    sources: tuple[str, ...]
    estimates: tuple[Estimate | None, ...]
    priors: tuple[Prior | None, ...]

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def blur_scale_px_m(self) -> Tensor:
        """(B,) `Camera.blur_scale_px_m`; NaN where camera or aperture are unknown."""
        return self._of_cameras(lambda camera: camera.blur_scale_px_m)

    @property
    def focal_length_px(self) -> Tensor:
        """(B,) `Camera.focal_length_px`; NaN where the camera is unknown."""
        return self._of_cameras(lambda camera: camera.focal_length_px)

    def to(self, device: torch.device | str) -> StackBatch:
        """The batch on a device, copied asynchronously from pinned memory."""
        # An asynchronous copy to the CPU would return memory that is still being written.
        waits = torch.device(device).type == "cpu"
        batch = moved(self, device, non_blocking=not waits)
        estimates = tuple(one and one.to(device) for one in self.estimates)
        priors = tuple(one and one.mapped(lambda p: p.to(device)) for one in self.priors)
        return replace(batch, estimates=estimates, priors=priors)

    def stack(self, index: int) -> FocalStack:
        """One stack, without padding."""
        used = self.slice_valid[index]
        distances_m, positions_m = (
            None if bool(values.isnan().all()) else values
            for values in (self.focus_distances_m[index][used], self.focus_positions_m[index][used])
        )
        return FocalStack(self.images[index][used], self.cameras[index], distances_m, positions_m)

    def sample(self, index: int) -> StackSample:
        """One sample, without padding."""
        return StackSample(
            self.stack(index),
            self.depth_m[index],
            self.valid[index],
            self.all_in_focus[index] if bool(self.has_all_in_focus[index]) else None,
            self.sources[index],
            self.estimates[index],
            has_truth=bool(self.valid[index].any()),
            prior=self.priors[index],
        )

    def _of_cameras(self, value: Callable[[Camera], float | None]) -> Tensor:
        values = [None if camera is None else value(camera) for camera in self.cameras]
        return self.images.new_tensor([math.nan if one is None else one for one in values])


def moved(holder: _Holder, device: torch.device | str, *, non_blocking: bool = False) -> _Holder:
    """A dataclass with its tensors, stack and estimate on a device."""
    changed: dict[str, Any] = {}
    for field in fields(holder):
        value = getattr(holder, field.name)
        if isinstance(value, Tensor):
            changed[field.name] = value.to(device, non_blocking=non_blocking)
        elif isinstance(value, FocalStack):
            changed[field.name] = moved(value, device)
        elif isinstance(value, Estimate):
            changed[field.name] = value.to(device)
        elif isinstance(value, Prior):
            changed[field.name] = value.mapped(lambda values: values.to(device))
    return replace(holder, **changed)


def of_one_size(sizes: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Indices of equal sizes, group by group, in the order of their first."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(sizes):
        groups.setdefault(size, []).append(index)
    return list(groups.values())


def estimated(samples: Sequence[StackSample], in_step: bool | None = None) -> list[StackSample]:
    """The samples with a physical estimate each; those that have none get one.

    Args:
        samples: of any sizes, on one device.
        in_step: make the estimates of a size together, which starts fewer kernels; None does so on
            any device but a CPU, which is a fifth faster with one stack at a time.
    """
    missing = [index for index, sample in enumerate(samples) if sample.estimate is None]
    completed = list(samples)
    if in_step is None:
        in_step = samples[0].stack.images.device.type != "cpu"
    groups = of_one_size([samples[index].stack.size for index in missing])
    for group in groups if in_step else [[one] for one in range(len(missing))]:
        indices = [missing[one] for one in group]
        made = estimate_depths([samples[index].stack for index in indices], PSF())
        for index, estimate in zip(indices, made, strict=True):
            # Made for inference alone, its tensors could not be saved for a backward pass.
            completed[index] = replace(samples[index], estimate=estimate.mapped(Tensor.clone))
    return completed


def collate(samples: Sequence[StackSample]) -> StackBatch:
    """Collate samples of one size; shorter stacks are padded to the longest.

    Raises:
        InputError: samples of different sizes; names two of them.
    """
    first = samples[0]
    for sample in samples:
        if sample.stack.size != first.stack.size:
            (height, width), (first_height, first_width) = sample.stack.size, first.stack.size
            raise InputError(
                f"{sample.source}: {width}x{height}, but {first.source} of the same batch is "
                f"{first_width}x{first_height}. Give both one image_size."
            )
    images = pad_sequence([sample.stack.images for sample in samples], batch_first=True)
    count = images.shape[1]

    def focus(values: Tensor | None) -> Tensor:
        known = images.new_empty(0) if values is None else values.to(images)
        return functional.pad(known, (0, count - len(known)), value=math.nan)

    lengths = torch.tensor([len(sample.stack) for sample in samples], device=images.device)
    nothing = torch.zeros_like(first.stack.images[0])
    return StackBatch(
        images=images,
        slice_valid=torch.arange(count, device=images.device) < lengths[:, None],
        focus_distances_m=torch.stack([focus(s.stack.focus_distances_m) for s in samples]),
        focus_positions_m=torch.stack([focus(s.stack.focus_positions_m) for s in samples]),
        all_in_focus=torch.stack(
            [nothing if s.all_in_focus is None else s.all_in_focus for s in samples]
        ),
        has_all_in_focus=torch.tensor(
            [s.all_in_focus is not None for s in samples], device=images.device
        ),
        depth_m=torch.stack([torch.where(s.valid, s.depth_m, _FILL_M) for s in samples]),
        valid=torch.stack([s.valid for s in samples]),
        cameras=tuple(s.stack.camera for s in samples),
        sources=tuple(s.source for s in samples),
        estimates=tuple(s.estimate for s in samples),
        priors=tuple(s.prior for s in samples),
    )
