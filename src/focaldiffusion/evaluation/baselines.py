"""Models by name: our physical estimate, classical methods, and learned models."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.align.registration import find_alignment
from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.physical import Learned, PhysicalEstimates
from focaldiffusion.evaluation.prediction import (
    Model,
    Prediction,
    channels_first,
    near_to_far,
    reference_frame,
)
from focaldiffusion.optics import srgb_to_linear
from focaldiffusion.stack import FocalStack, MemoryFrames

Image = NDArray[Any]  # float32; the return types of OpenCV leave the precision open

_WINDOW_PX = 9  # side of the square over which sharpness is averaged
_SALIENCE_PX = 5
_SMALLEST_MEASURE = 1e-12  # keeps the logarithm of sharpness finite


class Physics:
    """Our physical estimate without a learned model, as in `focaldiffusion infer`."""

    def __init__(self, estimates: PhysicalEstimates, *, aligned: bool = False) -> None:
        """Predict from physical estimates.

        Args:
            estimates: shared physical estimates, on the device to use.
            aligned: first register the frames to the middle one of the sweep, if they moved.
        """
        self.name = "physics-aligned" if aligned else "physics"
        self._estimates = estimates
        self._aligned = aligned

    def predict(self, stack: FocalStack, sample: str) -> Prediction:
        """See `Model`."""
        return self._in_register(stack) if self._aligned else self._recovered(stack)

    def _recovered(self, stack: FocalStack) -> Prediction:
        return self._estimates.of(stack).prediction()

    def _in_register(self, stack: FocalStack) -> Prediction:
        """Prediction from the registered frames, mapped back to the view of the reference.

        Outside the area common to all frames, depth is NaN and the image is that of the reference.
        """
        given = MemoryFrames(stack)
        reference = reference_frame(stack)
        alignment = find_alignment(given, focus_order=near_to_far(stack), reference=reference)
        if alignment.is_identity:
            return self._recovered(stack)
        frames, crop = alignment.apply(given), alignment.crop
        images = torch.stack([channels_first(frames.read(i)) for i in range(len(stack))])
        camera = stack.camera
        registered = replace(
            stack,
            images=srgb_to_linear(images),
            camera=camera and camera.cropped(crop.left, crop.top, crop.size),
            frames=frames,
        )
        inner = self._estimates.anew(registered).prediction()
        assert inner.all_in_focus is not None
        assert inner.confidence is not None
        window = np.s_[..., crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        depth_m = None
        if inner.depth_m is not None:
            depth_m = torch.full(stack.size, torch.nan)
            depth_m[window] = inner.depth_m
        all_in_focus = channels_first(given.read(reference))
        all_in_focus[window] = inner.all_in_focus
        confidence = torch.zeros(stack.size)
        confidence[window] = inner.confidence
        return Prediction(depth_m, all_in_focus, confidence)


class Argmax:
    """Depth as the focus distance of the sharpest frame; no image."""

    name = "argmax"

    def predict(self, stack: FocalStack, sample: str) -> Prediction:
        """See `Model`. Sharpness is the squared Laplacian of the grey sRGB frame, averaged."""
        order = near_to_far(stack)
        focus_dpt = _focus_dpt(stack, self.name)[order]
        frames = MemoryFrames(stack)
        sharpness = [
            _window_mean(cv2.Laplacian(_grey(frames.read(index)), cv2.CV_32F) ** 2)
            for index in order
        ]
        return Prediction(_depth_m(focus_dpt[np.argmax(sharpness, axis=0)]))


class ShapeFromFocus:
    """Classical shape from focus: Nayar & Nakagawa, Shape from Focus, PAMI 1994.

    The focus measure is their sum-modified-Laplacian. Depth is the peak of a Gaussian through the
    largest measure and its two neighbours, over inverse focus distance, where blur is linear; steps
    may be unequal. At either end of the sweep nothing is interpolated. Confidence is the rise of
    the peak above the other frames: 1 - mean of the others / peak. The image takes each pixel from
    its sharpest frame.
    """

    name = "shape-from-focus"

    def predict(self, stack: FocalStack, sample: str) -> Prediction:
        """See `Model`."""
        order = near_to_far(stack)
        focus_dpt = _focus_dpt(stack, self.name)[order]
        frames = MemoryFrames(stack)
        images = np.stack([frames.read(index) for index in order])
        measures = np.stack([_window_mean(_modified_laplacian(_grey(one))) for one in images])
        sharpest = measures.argmax(axis=0)[None]
        peak = np.take_along_axis(measures, sharpest, axis=0)[0]
        others = (measures.sum(axis=0) - peak) / (len(order) - 1)
        confidence = 1 - others / np.maximum(peak, _SMALLEST_MEASURE)
        confidence[peak == 0] = 0
        depth_m = _depth_m(_gaussian_peak(focus_dpt, measures, sharpest[0]))
        image = np.take_along_axis(images, sharpest[..., None], axis=0)[0]
        return Prediction(depth_m, channels_first(image), torch.from_numpy(confidence))


class LaplacianPyramid:
    """Classical fusion, which gives an image but no depth: Burt & Kolczynski, ICCV 1993.

    Every coefficient of the fused Laplacian pyramid comes from the frame with the largest energy
    around it, summed over the channels. The base of the pyramid is the mean of the frames.
    """

    name = "laplacian-pyramid"

    def predict(self, stack: FocalStack, sample: str) -> Prediction:
        """See `Model`."""
        frames = MemoryFrames(stack)
        fused: list[Image] = []
        strongest: list[Image] = []
        bases: list[Image] = []
        for index in near_to_far(stack):
            details, base = _laplacian_pyramid(frames.read(index))
            bases.append(base)
            for level, detail in enumerate(details):
                square = np.einsum("hwc,hwc->hw", detail, detail)
                salience = cv2.blur(square, (_SALIENCE_PX, _SALIENCE_PX))
                if level == len(fused):
                    fused.append(detail)
                    strongest.append(salience)
                    continue
                stronger = salience > strongest[level]
                fused[level][stronger] = detail[stronger]
                np.maximum(strongest[level], salience, out=strongest[level])
        image = np.mean(bases, axis=0)
        for detail in reversed(fused):
            image = detail + cv2.pyrUp(image, dstsize=detail.shape[1::-1])
        return Prediction(all_in_focus=channels_first(image.clip(0, 1)))


MODELS: dict[str, Callable[[PhysicalEstimates], Model]] = {
    "physics": Physics,
    "physics-aligned": lambda estimates: Physics(estimates, aligned=True),
    "argmax": lambda _: Argmax(),
    "shape-from-focus": lambda _: ShapeFromFocus(),
    "laplacian-pyramid": lambda _: LaplacianPyramid(),
}
"""Constructors of the models that need no training; the classical ones run on the CPU only."""

ALIGNING = ("physics-aligned",)
"""The models that register the frames first; all others do not."""


def open_model(
    name: str,
    *,
    device: str = "cpu",
    estimates: PhysicalEstimates | None = None,
    base_model: str | None = None,
) -> Model:
    """Open a model by name.

    Args:
        name: a name in `MODELS`, or a checkpoint, see `find_checkpoint`.
        device: torch device, for models that use torch.
        estimates: physical estimates shared with other models, on that device; None for its own.
        base_model: base model of an adapter, see `Checkpoint.load`; others have none.

    Raises:
        InputError: an unknown name.
    """
    estimates = estimates or PhysicalEstimates(device)
    if name in MODELS:
        return MODELS[name](estimates)
    return Learned(name, estimates, MODELS, base_model)


def check_base_model(base_model: str | None, models: Iterable[Model]) -> None:
    """Refuse a base model that none of the models uses.

    Raises:
        InputError: none of them is an adapter.
    """
    used = (isinstance(one, Learned) and one.base_model is not None for one in models)
    if base_model is not None and not any(used):
        raise InputError(
            f"--base-model {base_model}: no model is an adapter, so none needs a base model. "
            "Drop the flag, or give the adapter with --model."
        )


def _focus_dpt(stack: FocalStack, model: str) -> Image:
    """(N,) inverse focus distances.

    Raises:
        InputError: they are unknown.
    """
    if stack.axis != "inverse_depth_dpt":
        raise InputError(
            f"{model}: the stack has no focus distances, so it has no depth in metres. Give "
            "focus_distances_m in its stack.json, or leave this model out."
        )
    return stack.focus_coordinates.cpu().numpy()


def _depth_m(inverse_depth_dpt: Image) -> Tensor:
    """Metres, NaN at infinity."""
    inverse = torch.from_numpy(inverse_depth_dpt)
    return torch.where(inverse > 0, 1 / inverse, torch.nan)


def _grey(srgb: Image) -> Image:
    return cv2.cvtColor(srgb, cv2.COLOR_RGB2GRAY)


def _window_mean(plane: Image) -> Image:
    return cv2.blur(plane, (_WINDOW_PX, _WINDOW_PX))


def _modified_laplacian(grey: Image) -> Image:
    """|second difference along x| + |second difference along y|: opposite signs do not cancel."""
    second = np.array([[-1.0, 2.0, -1.0]], np.float32)
    return np.abs(cv2.filter2D(grey, -1, second)) + np.abs(cv2.filter2D(grey, -1, second.T))


def _gaussian_peak(focus_dpt: Image, measures: Image, sharpest: NDArray[np.intp]) -> Image:
    """Peak of a Gaussian through three neighbouring measures: a parabola through the logarithms.

    Args:
        focus_dpt: (N,) focus of each frame, monotonic.
        measures: (N, H, W) focus measures, >= 0.
        sharpest: (H, W) index of the largest measure.

    Returns:
        (H, W) dioptres, closest to the focus of the sharpest frame; equal to it at the ends of the
        sweep.
    """
    at_peak = focus_dpt[sharpest]
    if len(focus_dpt) < 3:
        return at_peak
    middle = sharpest.clip(1, len(focus_dpt) - 2)
    x0, x1, x2 = (focus_dpt[middle + step] for step in (-1, 0, 1))
    logarithm = np.log(np.maximum(measures, _SMALLEST_MEASURE))
    y0, y1, y2 = (
        np.take_along_axis(logarithm, (middle + step)[None], axis=0)[0] for step in (-1, 0, 1)
    )
    # Frames with equal focus, and plateaus, have no parabola.
    with np.errstate(divide="ignore", invalid="ignore"):
        before, after = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
        vertex = (x0 + x1) / 2 - before * (x2 - x0) / (2 * (after - before))
    return np.where((middle == sharpest) & np.isfinite(vertex), vertex, at_peak)


def _laplacian_pyramid(image: Image) -> tuple[list[Image], Image]:
    """The details, finest first, and the base, whose short side has 8 to 16 pixels."""
    details = []
    for _ in range(max(1, min(image.shape[:2]).bit_length() - 4)):
        smaller = cv2.pyrDown(image)
        details.append(image - cv2.pyrUp(smaller, dstsize=image.shape[1::-1]))
        image = smaller
    return details, image
