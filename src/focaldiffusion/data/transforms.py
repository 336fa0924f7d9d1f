"""Variations of a sample: window, size, mirror image and colours, applied to all its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from focaldiffusion.config.data import Transforms
from focaldiffusion.data.dataset import Sample, StackSample
from focaldiffusion.data.draws import integer, uniform
from focaldiffusion.errors import InputError
from focaldiffusion.optics import Camera, linear_to_srgb, srgb_to_linear
from focaldiffusion.scene import Scene
from focaldiffusion.window import Window

_WINDOW_DRAWS = 8
_GREY = (0.2126, 0.7152, 0.0722)  # Rec. 709, whose primaries sRGB has


def transform(
    sample: Sample,
    options: Transforms,
    image_size: tuple[int, int] | None,
    generator: torch.Generator,
) -> Sample:
    """Vary a sample: image, frames, depth, validity and camera together.

    A window with the aspect of `image_size` is resized to it, and the camera follows. Light is
    averaged; depth and validity take the nearest pixel. A scene is varied before it is
    photographed, so that its blur is that of the new camera. The frames of a photographed stack
    change colour with its all-in-focus image. Existing evidence follows, except a change of size.

    Args:
        sample: read from its data set.
        options: what to vary, and how much.
        image_size: (height, width) of the result; the size of the sample by default.
        generator: draws everything.

    Raises:
        InputError: no valid depth in the drawn windows or in the middle; or another size for a
            sample with evidence.
    """
    height, width = sample.valid.shape
    window = _window(sample, options, image_size or (height, width), generator)
    if isinstance(sample, StackSample) and sample.estimate is not None and window.step != 1:
        raise InputError(
            f"{sample.source}: its evidence was made at {width}x{height}, and blur does not scale "
            f"with an image: it cannot be resized by {1 / window.step:.3g}. Leave image_size and "
            "scale_range out, or cache the stacks without evidence."
        )
    mirror = options.flip and integer(0, 1, generator) == 1
    moved = sample
    if window != Window(0, 0, 1, (height, width)):  # skip: it would only copy the sample
        moved = _mapped(sample, window.light, window.nearest, window.camera)
    if mirror:
        moved = _mapped(moved, _mirrored, _mirrored, Camera.mirrored)
    brightness, contrast, saturation = (
        1 + uniform(-spread, spread, generator)
        for spread in (options.brightness, options.contrast, options.saturation)
    )
    if brightness == contrast == saturation == 1:
        return moved
    colours = _colours(_reference(moved), brightness, contrast, saturation)
    return _mapped(moved, colours, _same, _same)


def _window(
    sample: Sample, options: Transforms, size: tuple[int, int], generator: torch.Generator
) -> Window:
    """A window of the wanted size that contains valid depth, random or in the middle."""
    height, width = sample.valid.shape
    largest_step = min(height / size[0], width / size[1])

    has_truth = isinstance(sample, Scene) or sample.has_truth

    def has_depth(window: Window) -> bool:
        return not has_truth or bool(window.nearest(sample.valid).any())

    for _ in range(_WINDOW_DRAWS if options.random_crop else 0):
        window = Window(0, 0, largest_step * uniform(*options.scale_range, generator), size)
        rows, columns = window.extent
        left, top = integer(0, width - columns, generator), integer(0, height - rows, generator)
        window = replace(window, left=left, top=top)
        if has_depth(window):
            return window
    window = Window(0, 0, largest_step * uniform(*options.scale_range, generator), size)
    rows, columns = window.extent
    window = replace(window, left=(width - columns) // 2, top=(height - rows) // 2)
    if not has_depth(window):
        raise InputError(
            f"{sample.source}: cropped to {size[1]}x{size[0]}, its middle has no pixel with a "
            "valid depth. Leave this sample out, or crop less."
        )
    return window


def _mapped(
    sample: Sample,
    light: Callable[[Tensor], Tensor],
    plane: Callable[[Tensor], Tensor],
    optics: Callable[[Camera], Camera],
) -> Sample:
    """The sample with changed images, depth, validity and camera.

    The native frames of a stack are dropped, because its images no longer show them.
    """
    depth_m, valid = plane(sample.depth_m), plane(sample.valid)
    prior = None if sample.prior is None else sample.prior.mapped(plane)
    if isinstance(sample, Scene):
        return replace(
            sample,
            all_in_focus=light(sample.all_in_focus),
            depth_m=depth_m,
            valid=valid,
            camera=optics(sample.camera),
            prior=prior,
        )
    camera = None if sample.stack.camera is None else optics(sample.stack.camera)
    return replace(
        sample,
        stack=replace(sample.stack, images=light(sample.stack.images), camera=camera, frames=None),
        depth_m=depth_m,
        valid=valid,
        all_in_focus=None if sample.all_in_focus is None else light(sample.all_in_focus),
        estimate=None if sample.estimate is None else sample.estimate.mapped(plane, light),
        prior=prior,
    )


def _same(value: Any) -> Any:
    return value


def _mirrored(image: Tensor) -> Tensor:
    return image.flip(-1)


def _reference(sample: Sample) -> Tensor:
    """The image whose mean anchors the contrast, for the image and its frames alike."""
    if isinstance(sample, Scene):
        return sample.all_in_focus
    return sample.stack.images if sample.all_in_focus is None else sample.all_in_focus


def _colours(
    reference: Tensor, brightness: float, contrast: float, saturation: float
) -> Callable[[Tensor], Tensor]:
    """A change of colours, the same for every image."""

    def exposed(image: Tensor) -> Tensor:
        return (image * brightness).clamp(0, 1)

    # In float64: in float32 it would depend on the number of threads.
    mean = float(linear_to_srgb(exposed(reference)).mean(dtype=torch.float64))

    def coloured(image: Tensor) -> Tensor:
        if contrast == saturation == 1:
            return exposed(image)
        code = mean + contrast * (linear_to_srgb(exposed(image)) - mean)
        grey = (code * code.new_tensor(_GREY)[:, None, None]).sum(-3, keepdim=True)
        return srgb_to_linear((grey + saturation * (code - grey)).clamp(0, 1))

    return coloured
