"""FocalStack: N registered photographs of one scene and their focus settings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.errors import InputError, check_shape
from focaldiffusion.filters import noise_std
from focaldiffusion.focus import check_focus, focus_numbers
from focaldiffusion.frames import (
    LEAST_ALPHA,
    WORKING_SIZE_PX,
    FrameSource,
    alpha_of,
    decoded,
    reduced,
    reduced_in_strips,
    working_size,
)
from focaldiffusion.optics import Camera, inverse_m, linear_to_srgb
from focaldiffusion.progress import Meter

Axis = Literal["inverse_depth_dpt", "position_m", "order"]

_CLIPPED = 0.98
"""Linear light from which a pixel counts as clipped."""


class Grade(str, Enum):
    """Knowledge of the camera, which decides the meaning of depth."""

    CALIBRATED = "calibrated"
    """Focus distances and lens are known: depth in metres."""
    FOCUS_DISTANCES = "focus distances only"
    """Depth in metres; blur per dioptre is measured from the frames."""
    STAGE_POSITIONS = "stage positions"
    """Height in metres relative to the first position."""
    ORDER = "order only"
    """Depth relative to the sweep, from 0 to 1."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, eq=False, repr=False)
class FocalStack:
    """N >= 2 frames at working resolution, aligned to one scale, and their focus settings.

    Attributes:
        images: (N, 3, H, W) linear RGB, float32, [0, 1].
        camera: optics at the size of `images`; None if unknown.
        focus_distances_m: (N,) lens to plane of sharp focus [m], > 0, infinity allowed.
        focus_positions_m: (N,) stage or rail position of each frame [m]; excludes distances.
        frames: the native frames, aligned like `images`; None for stacks in memory.
        height_origin_m: position at which heights are 0; None for that of the first frame.
        height_sign: 1 if heights grow with the positions, -1 if against them; None for the
            direction from the first to the last frame.
        frame_numbers: (N,) number of each frame among the opened ones, from 0; None if all are
            present.
        step: difference of neighbouring values of the frames' files, as a share of their range;
            noise is at least that of rounding to it.
        shown: (N, H, W) bool, False where a frame is transparent and proves nothing; None where
            all frames are opaque.
        focus_order: numbers of all frames of the sweep from one end to the other, also of those
            that are absent here; None if the frames are the whole sweep, in order.
        gains: (N, 3) light of each channel as photographed over that of `images`, where alignment
            evened out the exposure; None if nothing was.

    Raises:
        InputError: images of another shape or type; focus settings, native frames or a camera that
            contradict them or each other.
    """

    images: Tensor
    camera: Camera | None = None
    focus_distances_m: Tensor | None = None
    focus_positions_m: Tensor | None = None
    frames: FrameSource | None = None
    height_origin_m: float | None = None
    height_sign: float | None = None
    frame_numbers: tuple[int, ...] | None = None
    step: float = 1 / 255
    shown: Tensor | None = None
    focus_order: tuple[int, ...] | None = None
    gains: Tensor | None = None

    def __post_init__(self) -> None:
        images = self.images
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3:
            raise InputError(
                f"FocalStack.images: got {_described(images)}; expected a tensor (N, 3, H, W) of "
                "linear RGB."
            )
        if images.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"FocalStack.images: got {images.dtype}; expected float32 in linear light. "
                "reconstruct() takes arrays of pictures as such."
            )
        count = images.shape[0]
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
                if not isinstance(values, Tensor):
                    values = torch.tensor(focus_numbers(name, values), dtype=torch.float64)
                    object.__setattr__(self, name, values)
                # EXIF quantises distances, so equal ones are allowed here. Where a user wrote them,
                # they are refused.
                check_focus(name, values.tolist(), count, allow_equal=True)
                if min(values) == max(values):
                    raise InputError(
                        f"{name}: all {count} frames have the same one, {float(values[0])}, so "
                        "defocus cannot show depth. Photograph at different focus settings."
                    )
        if self.camera is not None and self.camera.image_size != self.size:
            raise InputError(
                f"FocalStack.camera: of images of {self.camera.image_size}, but these are "
                f"{self.size}. Use Camera.resized or Camera.cropped."
            )
        if self.shown is not None:
            check_shape("FocalStack.shown", self.shown, (count, *self.size))
        names = () if self.frames is None else self.frames.names
        for name, given in (("frames", names), ("frame_numbers", self.frame_numbers or ())):
            if given and len(given) != count:
                raise InputError(f"FocalStack.{name}: {len(given)} for {count} images.")
        if self.focus_order is not None:
            numbers, ordered = self.frame_numbers or range(count), set(self.focus_order)
            if len(ordered) < len(self.focus_order) or not ordered.issuperset(numbers):
                raise InputError(
                    f"FocalStack.focus_order: {self.focus_order}; expected each frame of the sweep "
                    f"once, among them {tuple(numbers)}."
                )

    def __repr__(self) -> str:
        height, width = self.size
        return f"<FocalStack: {len(self)} frames of {width}x{height} px on the axis {self.axis}>"

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of `images`."""
        return self.images.shape[-2], self.images.shape[-1]

    @property
    def axis(self) -> Axis:
        """Quantity that a depth hypothesis of this stack measures."""
        if self.focus_distances_m is not None:
            return "inverse_depth_dpt"
        return "position_m" if self.focus_positions_m is not None else "order"

    @property
    def sweep_length(self) -> int:
        """Number of frames of the whole sweep, also of those that are absent here."""
        return len(self) if self.focus_order is None else len(self.focus_order)

    @property
    def places(self) -> Tensor:
        """(N,) place of each frame in the whole sweep, int64, from 0 to `sweep_length` - 1."""
        if self.focus_order is None:
            return torch.arange(len(self))
        place_of = {number: place for place, number in enumerate(self.focus_order)}
        return torch.tensor([place_of[n] for n in self.frame_numbers or range(len(self))])

    @property
    def focus_coordinates(self) -> Tensor:
        """(N,) focus of each frame on `axis`.

        Dioptres; metres from the origin of heights (float32 cannot resolve micrometres at the end
        of a long stage); or place in the whole sweep, from 0 to 1.
        """
        if self.focus_distances_m is not None:
            return inverse_m(self.focus_distances_m).to(self.images)
        if self.focus_positions_m is not None:
            first_m = self.focus_positions_m[0]
            origin_m = first_m if self.height_origin_m is None else self.height_origin_m
            return (self.focus_positions_m - origin_m).to(self.images)
        return torch.linspace(0, 1, self.sweep_length)[self.places].to(self.images)

    @property
    def blur_scale_px_m(self) -> float | None:
        """Blur diameter [px] per dioptre; None if lens or focus distances are unknown."""
        if self.camera is None or self.axis != "inverse_depth_dpt":
            return None
        return self.camera.blur_scale_px_m

    @cached_property
    def noise_std(self) -> float:
        """Standard deviation of the noise in sRGB luma, see `filters.noise_std`."""
        return noise_std(self.images, self.step)

    @property
    def photographed(self) -> Tensor:
        """(N, 3, H, W) linear light before exposure was evened out; clipped where it reaches 1."""
        if self.gains is None:
            return self.images
        return (self.images * self.gains.to(self.images)[:, :, None, None]).clamp_(0, 1)

    @property
    def unclipped(self) -> Tensor:
        """(N, H, W) bool, pixels whose light no channel clips, before or after evening out."""
        images = self.images.detach()
        if self.gains is None:
            return images.amax(1) < _CLIPPED
        # Dividing by a gain takes a clipped pixel below 1, where it looks like any other. Products
        # of one frame at a time: those of all would be the peak of memory.
        clear = [
            torch.maximum(image, image * gain).amax(0) < _CLIPPED
            for image, gain in zip(images, self.gains.to(images)[:, :, None, None], strict=True)
        ]
        return torch.stack(clear)

    @property
    def usable(self) -> Tensor:
        """(N, H, W) bool, pixels whose light is known: shown and not clipped."""
        return self.unclipped if self.shown is None else self.unclipped & self.shown

    def without(self, left_out: Collection[int]) -> FocalStack:
        """The stack without some frames, by index; each of the rest keeps its place in the sweep.

        Native frames are left out too.
        """
        if not left_out:
            return self
        numbers = self.frame_numbers or tuple(range(len(self)))
        origin_m = self.height_origin_m
        if origin_m is None and self.focus_positions_m is not None:
            origin_m = float(self.focus_positions_m[0])
        numbered = replace(
            self,
            height_origin_m=origin_m,
            frame_numbers=numbers,
            focus_order=self.focus_order or numbers,
        )
        return numbered.of_frames([i for i in range(len(self)) if i not in left_out])

    def of_frames(self, indices: Sequence[int]) -> FocalStack:
        """A stack of some of the frames, in this order. Native frames are left out."""

        def chosen(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[list(indices)]

        numbers = self.frame_numbers
        return replace(
            self,
            images=self.images[list(indices)],
            focus_distances_m=chosen(self.focus_distances_m),
            focus_positions_m=chosen(self.focus_positions_m),
            frames=None,
            frame_numbers=None if numbers is None else tuple(numbers[i] for i in indices),
            shown=chosen(self.shown),
            gains=chosen(self.gains),
        )

    @classmethod
    def read(
        cls,
        frames: FrameSource,
        *,
        long_side_px: int = WORKING_SIZE_PX,
        device: str = "cpu",
        meter: Meter | None = None,
        camera: Camera | None = None,
        **settings: Any,
    ) -> FocalStack:
        """Read native frames at working size, one at a time.

        Args:
            frames: the native frames, aligned.
            long_side_px: see `working_size`.
            device: device of the images.
            meter: counts the frames.
            camera: optics at native size.
            **settings: focus and other fields of the stack.

        Raises:
            InputError: a frame cannot be read, or the working size is too small for defocus.
        """
        total = len(frames.names)
        size = working_size(frames.size, total, long_side_px)
        meter = meter or Meter()
        meter.expect(total)
        images = torch.empty((total, 3, *size), dtype=torch.float32)
        shown = torch.ones((total, *size), dtype=torch.bool)
        draft = max(size) <= max(frames.size) / 2
        for index, frame in enumerate(decoded(frames, range(total))):
            light = reduced_in_strips(partial(frame.light, draft=draft), frames.size, size)
            images[index] = torch.from_numpy(light).permute(2, 0, 1)
            if (alpha := alpha_of(frames, index)) is not None:
                shown[index] = torch.from_numpy(reduced(alpha, size) > LEAST_ALPHA)
            meter.advance()
        if not shown.all():
            images = _completed(images, shown)
            settings["shown"] = shown.to(device)
        return cls(
            images.to(device),
            camera=None if camera is None else camera.resized(size),
            frames=frames,
            **settings,
        )

    def at_working_size(
        self, long_side_px: int = WORKING_SIZE_PX, device: torch.device | str | None = None
    ) -> FocalStack:
        """The stack at working size, with its native frames.

        Images are averaged over areas, in linear light, as in `read`. A stack without native frames
        keeps its images as such.

        Args:
            long_side_px: see `working_size`.
            device: device of the images; None leaves them in place.
        """
        frames = self.frames or MemoryFrames(self)
        size = working_size(self.size, len(self), long_side_px)
        device = device or self.images.device
        if size == self.size:
            shown = None if self.shown is None else self.shown.to(device)
            return replace(self, images=self.images.to(device), frames=frames, shown=shown)
        images = [
            torch.from_numpy(reduced(image.permute(1, 2, 0).cpu().numpy(), size)).permute(2, 0, 1)
            for image in self.images
        ]
        shown = None
        if self.shown is not None:
            planes = [reduced(plane, size) for plane in self.shown.cpu().numpy().astype("f4")]
            shown = torch.from_numpy(np.stack(planes) > LEAST_ALPHA).to(device)
        return replace(
            self,
            images=torch.stack(images).to(device),
            shown=shown,
            camera=None if self.camera is None else self.camera.resized(size),
            frames=frames,
        )


def _described(value: object) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _completed(images: Tensor, shown: Tensor) -> Tensor:
    """The images (N, 3, H, W) with the nearest frame in the list where one does not show a pixel.

    The sweep transforms whole frames, so a hole would spread by the blur around it. Neighbours in
    focus differ little in blur. Pixels that no frame shows keep what `FrameSource.read` put there.
    """
    completed = images.clone()
    count = len(images)
    for index in range(count):
        missing = ~shown[index]
        for other in sorted(range(count), key=lambda other: abs(other - index)):
            taken = missing & shown[other]
            completed[index][:, taken] = images[other][:, taken]
            missing = missing & ~taken
    return completed


class MemoryFrames:
    """Frames of a stack in memory, as native frames for fusion."""

    def __init__(self, stack: FocalStack, bit_depth: Literal[8, 16] = 8) -> None:
        """Serve the images of `stack` as frames of 8 or 16 bits."""
        self.names = tuple(f"frame {index + 1}" for index in range(len(stack)))
        self.size = stack.size
        self.bit_depth: int = bit_depth
        self.is_grey = False
        self._images, self._shown = stack.images, stack.shown

    def alpha(self, index: int) -> NDArray[np.float32] | None:
        """1 where frame `index` shows the scene and 0 elsewhere, (H, W); None if everywhere."""
        shown = self._shown
        return None if shown is None else shown[index].cpu().numpy().astype(np.float32)

    def read(self, index: int) -> NDArray[np.float32]:
        """Frame `index`, sRGB-encoded, (H, W, 3) float32 in [0, 1]."""
        frame = linear_to_srgb(self._images[index].cpu().float()).clamp(0, 1)
        return np.ascontiguousarray(frame.permute(1, 2, 0).numpy())
