"""FocalStack: N registered photographs of one scene, and what is known of their focus."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.errors import InputError, check_shape
from focaldiffusion.optics import Camera, inverse_m, linear_to_srgb

Axis = Literal["inverse_depth_dpt", "position_m", "order"]

_LEAST_DISTANCE_M = 1e-6
_LEAST_STEP_M = 1e-9  # of a stage
_FARTHEST_POSITION_M = 1e4  # of a rail


class FrameSource(Protocol):
    """The native frames of a stack, read one at a time so that memory never grows with N."""

    names: tuple[str, ...]
    """What messages call each frame: its file name, or the file name and page."""
    size: tuple[int, int]
    """(height, width) of every frame [px]."""
    bit_depth: int
    """8 or 16: the depth that outputs keep."""
    is_grey: bool
    """True when the files hold one channel; `read` still returns three equal ones."""

    def read(self, index: int) -> NDArray[np.float32]:
        """Frame `index`, sRGB-encoded, (H, W, 3) float32 in [0, 1].

        Raises:
            InputError: the frame cannot be read; the message names it.
        """
        ...


@dataclass(frozen=True, eq=False)
class FocalStack:
    """N >= 2 frames at working resolution, aligned to one scale, and their focus settings.

    Attributes:
        images: (N, 3, H, W) linear RGB, float32, [0, 1].
        camera: optics at the size of `images`, or None when unknown.
        focus_distances_m: (N,) lens to plane of sharp focus [m], > 0, infinity allowed.
        focus_positions_m: (N,) stage or rail position of each frame [m]; excludes distances.
        frames: the native frames, aligned like `images`; None for stacks that live in memory.

    Raises:
        InputError: focus settings that contradict the number of frames or each other.
    """

    images: Tensor
    camera: Camera | None = None
    focus_distances_m: Tensor | None = None
    focus_positions_m: Tensor | None = None
    frames: FrameSource | None = None

    def __post_init__(self) -> None:
        check_shape("FocalStack.images", self.images, ("N", 3, "H", "W"))
        count = self.images.shape[0]
        if count < 2:
            raise InputError(
                f"a focal stack needs at least 2 frames, got {count}. For the depth of a single "
                "photograph use a monocular model, such as Depth Pro."
            )
        if self.focus_distances_m is not None and self.focus_positions_m is not None:
            raise InputError("focus_distances_m and focus_positions_m exclude each other.")
        for name in ("focus_distances_m", "focus_positions_m"):
            values = getattr(self, name)
            if values is not None:
                # EXIF quantises distances, so equal ones may reach us; `check_focus` refuses
                # them where a user wrote them.
                check_focus(name, values.tolist(), count, allow_equal=True)
                if min(values) == max(values):
                    raise InputError(
                        f"{name}: all {count} frames have the same one, {float(values[0])}, so "
                        "defocus says nothing about depth. Photograph at different focus settings."
                    )
        if self.camera is not None and self.camera.image_size != tuple(self.images.shape[-2:]):
            raise ValueError(
                f"camera of {self.camera.image_size}, images of {tuple(self.images.shape[-2:])}"
            )

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of `images`."""
        return self.images.shape[-2], self.images.shape[-1]

    @property
    def axis(self) -> Axis:
        """What a depth hypothesis of this stack means."""
        if self.focus_distances_m is not None:
            return "inverse_depth_dpt"
        return "position_m" if self.focus_positions_m is not None else "order"

    @property
    def focus_coordinates(self) -> Tensor:
        """(N,) where each frame is focused on `axis`.

        Dioptres; metres from the first position, because micrometres at the end of a long stage
        are below the precision of float32; or order in [0, 1].
        """
        if self.focus_distances_m is not None:
            return inverse_m(self.focus_distances_m).to(self.images)
        if self.focus_positions_m is not None:
            return (self.focus_positions_m - self.focus_positions_m[0]).to(self.images)
        return torch.linspace(0, 1, len(self)).to(self.images)


class MemoryFrames:
    """The frames of a stack that has no files, as native frames to fuse."""

    def __init__(self, stack: FocalStack) -> None:
        """For the frames of `stack`, which counts as 8-bit."""
        self.names = tuple(f"frame {index + 1}" for index in range(len(stack)))
        self.size = stack.size
        self.bit_depth = 8
        self.is_grey = False
        self._images = stack.images

    def read(self, index: int) -> NDArray[np.float32]:
        """Frame `index`, sRGB-encoded, (H, W, 3) float32 in [0, 1]."""
        frame = linear_to_srgb(self._images[index].cpu().float()).clamp(0, 1)
        return np.ascontiguousarray(frame.permute(1, 2, 0).numpy())


def check_focus(
    name: str, values: list[float], frame_count: int, *, allow_equal: bool = False
) -> None:
    """Check the `focus_distances_m` or `focus_positions_m` (the `name`) of a stack.

    Raises:
        InputError: not one value a frame, NaN, a duplicate, a number that no lens or stage has, or
            (distances) not positive or in millimetres by mistake.
    """
    if len(values) != frame_count:
        raise InputError(
            f"{name}: {len(values)} values for {frame_count} frames. Give one value for each "
            "frame, in the order of the frames."
        )
    if any(value != value for value in values):
        raise InputError(f"{name}: contains NaN: {values}. Give a number for each frame.")
    if name == "focus_distances_m":
        if any(value <= 0 for value in values):
            raise InputError(f"{name}: {values} are not all positive. Distances are metres > 0.")
        if any(value < _LEAST_DISTANCE_M for value in values):
            raise InputError(
                f"{name}: {min(values)} is less than a micrometre. Distances are metres from the "
                "lens."
            )
        if all(value > 100 for value in values) and min(values) < math.inf:
            raise InputError(
                f"{name}: all above 100 ({values}): these look like millimetres. "
                "Give metres: divide by 1000."
            )
    elif any(abs(value) == math.inf for value in values):
        raise InputError(f"{name}: {values} are not all finite.")
    elif any(abs(value) > _FARTHEST_POSITION_M for value in values):
        raise InputError(
            f"{name}: {max(values, key=abs)} is no position of a rail or stage. Give metres."
        )
    elif any(0 < after - before < _LEAST_STEP_M for before, after in pairwise(sorted(values))):
        raise InputError(f"{name}: {values} are less than a nanometre apart. Give metres.")
    if not allow_equal and len(set(values)) < len(values):
        duplicate = next(value for value in values if values.count(value) > 1)
        raise InputError(
            f"{name}: {duplicate} appears more than once. Frames with equal focus add nothing: "
            "leave one out, or correct the list."
        )
