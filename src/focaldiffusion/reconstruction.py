"""From an opened stack to its reconstruction: align, sweep, complete, fuse, check."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.align import Alignment, find_alignment
from focaldiffusion.errors import InputError
from focaldiffusion.fusion.fill import fill
from focaldiffusion.fusion.fuse import fuse
from focaldiffusion.fusion.upsample import upsample
from focaldiffusion.io.images import ImageMetadata
from focaldiffusion.io.stacks import OpenedStack
from focaldiffusion.optics import Camera, srgb_to_linear
from focaldiffusion.process import peak_memory_mib
from focaldiffusion.psf import PSF
from focaldiffusion.recovery import Estimate, Refine, Stage, describe, estimate_depth, silent
from focaldiffusion.result import (
    FIELD_OF_AXIS,
    Reconstruction,
    generated_mark,
    index_type,
)
from focaldiffusion.solve.calibrate import find_blur_scale
from focaldiffusion.solve.sweep import frame_weights
from focaldiffusion.stack import FocalStack

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total) whenever a unit of work is done."""

_WORKING_PIXELS = 16 * 1024 * 768
"""Pixels of all working images together. Longer stacks are solved at a smaller size, so neither
memory nor time grows with the number of frames."""

_SMALLEST_PX = 8  # side of a working image, for the windows that evidence is averaged over


@dataclass(frozen=True)
class Settings:
    """How to reconstruct; every field has a flag of `focaldiffusion infer`.

    Attributes:
        align: "auto" registers the frames when it finds motion, "on" always, "off" never.
        drop_unaligned: leave out frames that cannot be aligned, instead of stopping.
        working_size: long side [px] at which depth is solved; less for stacks of many frames.
        psf: shape of the lens blur.
        find_blur: find the blur per dioptre from the frames although the lens is known.
        device: where torch computes, such as "cpu" or "cuda".
        fill_unsharp: let the model's image replace what no frame shows sharp.
    """

    align: Literal["auto", "on", "off"] = "auto"
    drop_unaligned: bool = False
    working_size: int = 1024
    psf: PSF = field(default_factory=PSF)
    find_blur: bool = False
    device: str = "cpu"
    fill_unsharp: bool = False


@dataclass(frozen=True, eq=False)
class Result:
    """A reconstruction and what writing it needs.

    Attributes:
        reconstruction: at the native size of the aligned frames.
        stack: the working stack it was made from.
        grade: what was known of the camera, in words.
        image_metadata: ICC profile and EXIF of the reference frame.
        focal_length_px: at native size, for the point cloud; None when unknown.
        blur_doubt: so many times the blur that camera and focus distances say is what the frames
            show; None where they agree, or one of them is unknown.
    """

    reconstruction: Reconstruction
    stack: FocalStack
    grade: str
    image_metadata: ImageMetadata
    focal_length_px: float | None
    blur_doubt: float | None


def reconstruct(
    opened: OpenedStack,
    settings: Settings,
    progress: Progress | None = None,
    refine: Refine | None = None,
) -> Result:
    """Recover the all-in-focus image and the depth of a stack.

    Args:
        opened: the stack.
        settings: how.
        progress: called as the work goes on.
        refine: a model's part; None leaves the physical estimate.

    Raises:
        InputError: a frame that cannot be read or aligned; settings the stack cannot fulfil.
    """
    if settings.fill_unsharp and refine is None:
        raise InputError(
            "fill_unsharp: there is no model to generate what no frame shows sharp. Choose a "
            "model, or leave it off."
        )
    clock = _Clock(progress)
    with clock.stage("aligning") as count:
        alignment = _align(opened, settings, count)
    native_camera = opened.camera_for(alignment.reference)
    if native_camera is not None:
        crop = alignment.crop
        native_camera = native_camera.cropped(crop.left, crop.top, crop.size)
    with clock.stage("reading") as count:
        stack = load_stack(opened, alignment, native_camera, settings, count)
    seen, blur_doubt = None, None
    if settings.find_blur:
        stack = replace(stack, camera=None)
    elif stack.camera is not None and stack.axis == "inverse_depth_dpt":
        with clock.stage("checking the lens") as count:
            seen = find_blur_scale(stack, settings.psf, progress=count)
        if seen.contradicts(stack.camera.blur_scale_px_m):
            blur_doubt = seen.value / stack.camera.blur_scale_px_m
    recovered, estimate = recover(
        stack,
        native_camera,
        settings.psf,
        clock.stage,
        refine,
        fill_unsharp=settings.fill_unsharp,
    )
    height_m = recovered.height_m
    if height_m is not None and opened.focus_positions_m is not None:
        first, last = opened.focus_positions_m[0], opened.focus_positions_m[-1]
        height_m = (height_m + (opened.focus_positions_m[alignment.kept[0]] - first)) * (
            math.copysign(1, last - first)
        )
    return Result(
        reconstruction=replace(
            recovered,
            source_index=_given_index(recovered.source_index, alignment.kept, len(opened)),
            height_m=height_m,
            provenance=_provenance(opened, alignment, settings, stack, estimate, clock)
            | {"blur_scale_seen": None if seen is None else asdict(seen)},
        ),
        stack=stack,
        grade=estimate.grade,
        image_metadata=opened.metadata_for(alignment.reference),
        focal_length_px=opened.focal_length_px_for(alignment.reference),
        blur_doubt=blur_doubt,
    )


def recover(
    stack: FocalStack,
    native_camera: Camera | None,
    psf: PSF,
    stage: Stage = silent,
    refine: Refine | None = None,
    *,
    fill_unsharp: bool = False,
    physical: Estimate | None = None,
) -> tuple[Reconstruction, Estimate]:
    """The all-in-focus image and the depth of a stack that is aligned.

    Args:
        stack: at working resolution, with its native frames.
        native_camera: optics at the size of the native frames, None when unknown.
        psf: shape of the lens blur.
        stage: times the work and shows its progress.
        refine: a model's part; None leaves the physical estimate.
        fill_unsharp: let the image that `refine` generates replace what no frame shows sharp.
        physical: the estimate of `estimate_depth`, where it is made already.

    Returns:
        The reconstruction at native size, heights counted from the stack's first position and
        without provenance; and the estimate it was made from.
    """
    if stack.frames is None:
        raise ValueError("fusion needs the native frames: FocalStack.frames is None")
    estimate = physical or estimate_depth(stack, psf, stage)
    if refine is not None:
        estimate = refine(stack, estimate, stage)
    frames = stack.frames
    with stage("fusing") as count, torch.inference_mode():
        weights = frame_weights(estimate.evidence.sharpest, stack.focus_coordinates)
        fusion = fuse(frames, weights, progress=count)
        if fill_unsharp:
            image = _generated_image(estimate, grey=frames.is_grey)
            fusion = fill(fusion, image, estimate.evidence.never_sharp)
    with stage("enlarging"):
        coordinate = upsample(estimate.coordinate, fusion.all_in_focus)
        certain = cv2.resize(
            estimate.confidence.cpu().numpy(), frames.size[::-1], interpolation=cv2.INTER_LINEAR
        )
    values = coordinate
    if stack.axis == "inverse_depth_dpt":
        # NaN where the depth cannot be told from infinity.
        known = np.where(coordinate > estimate.beyond_dpt, coordinate, np.float32("nan"))
        values = np.reciprocal(known, dtype=np.float32)
    elif stack.axis == "order":
        values = np.clip(coordinate, 0, 1)
    depth: dict[str, Any] = {FIELD_OF_AXIS[stack.axis]: torch.from_numpy(values)}
    reconstruction = Reconstruction(
        all_in_focus=fusion.all_in_focus,
        confidence=torch.from_numpy(certain),
        source_index=fusion.source_index,
        camera=native_camera,
        **depth,
    )
    return reconstruction, estimate


def load_stack(
    opened: OpenedStack,
    alignment: Alignment,
    camera: Camera | None,
    settings: Settings,
    count: Callable[[int, int], None] = lambda done, total: None,
) -> FocalStack:
    """Read the aligned frames at working resolution, one at a time."""
    frames = alignment.apply(opened.frames)
    height, width = frames.size
    total = len(frames.names)
    size = working_size(frames.size, total, settings.working_size)
    if min(size) < _SMALLEST_PX:
        raise InputError(
            f"{opened.name}: frames of {width}x{height} are solved at {size[1]}x{size[0]}, too "
            f"small for defocus. Both sides need {_SMALLEST_PX} px: give larger frames, or a "
            "larger --working-size."
        )
    source = alignment.apply(opened.frames, draft=max(size) <= max(frames.size) / 2)
    # Light is averaged, not its encoding; a table of 16 bits is exact and spares the power.
    to_linear = srgb_to_linear(torch.linspace(0, 1, 65536, dtype=torch.float64)).float().numpy()
    images = torch.empty((total, 3, *size), dtype=torch.float32)
    for index in range(total):
        linear = to_linear.take(np.rint(source.read(index) * 65535).astype(np.uint16))
        if size != frames.size:
            linear = cv2.resize(linear, size[::-1], interpolation=cv2.INTER_AREA)
        images[index] = torch.from_numpy(linear).permute(2, 0, 1)
        count(index + 1, total)

    def kept(values: tuple[float, ...] | None) -> Tensor | None:
        if values is None:
            return None
        return torch.tensor([values[index] for index in alignment.kept], dtype=torch.float64)

    return FocalStack(
        images.to(settings.device),
        camera=None if camera is None else camera.resized(size),
        focus_distances_m=kept(opened.focus_distances_m),
        focus_positions_m=kept(opened.focus_positions_m),
        frames=frames,
    )


def working_size(size: tuple[int, int], frame_count: int, long_side: int) -> tuple[int, int]:
    """The (height, width) at which depth is solved: less than `long_side` for many frames."""
    height, width = size
    scale = min(
        1.0, long_side / max(size), math.sqrt(_WORKING_PIXELS / (frame_count * height * width))
    )
    return max(1, round(height * scale)), max(1, round(width * scale))


def _align(opened: OpenedStack, settings: Settings, count: Callable[[int, int], None]) -> Alignment:
    focus = opened.focus_distances_m or opened.focus_positions_m
    order = None if focus is None else [int(index) for index in np.argsort(focus, kind="stable")]
    return find_alignment(
        opened.frames,
        focus_order=order,
        mode=settings.align,
        drop_unaligned=settings.drop_unaligned,
        progress=count,
    )


def _generated_image(estimate: Estimate, *, grey: bool) -> Tensor:
    """(3, H, W) the model's image; of a stack of one channel, without colour."""
    generation = estimate.generation
    if generation is None or generation.image is None:
        raise ValueError("fill_unsharp: `refine` has generated no image")
    if grey:
        return generation.image.mean(0, keepdim=True).expand(3, -1, -1)
    return generation.image


def _given_index(
    source_index: NDArray[np.integer[Any]], kept: Sequence[int], given: int
) -> NDArray[np.integer[Any]]:
    """Alignment may have left frames out; users count those they gave."""
    table = np.full(generated_mark(source_index.dtype) + 1, 0, index_type(given))
    table[: len(kept)] = kept
    table[-1] = generated_mark(table.dtype)
    return table[source_index]


def _provenance(
    opened: OpenedStack,
    alignment: Alignment,
    settings: Settings,
    stack: FocalStack,
    estimate: Estimate,
    clock: _Clock,
) -> dict[str, Any]:
    return {
        **describe(stack, estimate),
        "frames": [str(path) for path in opened.files],
        "origins": opened.origins,
        "focus_distances_m": opened.focus_distances_m,
        "focus_positions_m": opened.focus_positions_m,
        "focus_uncertainty_dpt": opened.focus_uncertainty_dpt,
        "alignment": alignment.summary(),
        "settings": asdict(settings),
        "seconds": clock.seconds,
        "process_peak_memory_mib": peak_memory_mib(),
    }


class _Clock:
    """Times the stages and passes their progress on."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Time a stage; yields the function that reports the work done and in all."""
        started = time.perf_counter()

        def count(done: int, total: int) -> None:
            if self._progress is not None:
                self._progress(name, done, total)

        count(0, 1)
        yield count
        count(1, 1)
        self.seconds[name] = round(time.perf_counter() - started, 3)
