"""A frame as alignment sees it, and the frames of a stack that show nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from focaldiffusion.align.pyramid import Plane, Pyramid
from focaldiffusion.frames import (
    Pixels,
    looked_up,
    reduced,
    reduced_in_strips,
    shares_of_white,
)
from focaldiffusion.optics import srgb_to_linear

_LONG_SIDE_PX = 1024
_EXPOSURE_PX = 256
_COARSE_PX = 8
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
_SATURATED = 0.95  # relative to the light that encodes as 1
_WHITE = 0.98  # share of clipped pixels
MOSTLY = 0.5
"""Clipped share of a frame, from which clipping explains what it lacks."""
_BLACK = 1 / 64  # of the light of the other frames
_GRAIN = 10.0
"""Coarse contrast over the one that noise leaves, from which a frame has structure: noise has 1,
noise with a grain of 4 px 28, up to six frames of each of 37 stacks over 240."""
_FADED = 0.1
"""Coarse contrast over that of the other frames. The most defocused frames of those stacks keep
0.89, because no defocus reaches an eighth of the image; an exposure bracket keeps 0.46."""
_LEAST_COARSE = 0.02  # coarse contrast of a scene in which its absence means anything


@dataclass(frozen=True, eq=False)
class View:
    """Features of a frame: its structure, and its light at the resolution of exposures.

    Attributes:
        pyramid: structure.
        size: (height, width) at the resolution of registration.
        light: (h, w, 3) linear RGB.
        saturated: (h, w), share of each pixel that is clipped in any channel.
    """

    pyramid: Pyramid
    size: tuple[int, int]
    light: Plane
    saturated: Plane

    @classmethod
    def of(cls, encoded: Plane, alpha: Plane | None = None) -> View:
        """The view of what `shrunk_frame` gives."""
        light = srgb_to_linear(torch.from_numpy(encoded)).numpy()
        luminance = light @ _LUMINANCE
        # Twenty times faster than NumPy's maximum over three.
        red, green, blue = np.moveaxis(light, 2, 0)
        brightest = np.maximum(np.maximum(red, green), blue)
        saturated = (brightest > _SATURATED).astype(np.float32)
        shown = None
        if alpha is not None:
            shown = (alpha > 0.999).astype(np.float32)
            np.maximum(saturated, 1 - shown, out=saturated)  # hidden light counts no more
        small = _shrink(light, _EXPOSURE_PX), _shrink(saturated, _EXPOSURE_PX)
        return cls(Pyramid.of(luminance, shown), luminance.shape, *small)

    @property
    def luminance(self) -> Plane:
        """(h, w) linear luminance."""
        return self.light @ _LUMINANCE

    @property
    def brightness(self) -> float:
        """Mean luminance."""
        return float(self.luminance.mean())

    @property
    def clipped(self) -> float:
        """Share of the frame that is clipped."""
        return float(self.saturated.mean())

    @property
    def is_constant(self) -> bool:
        """Whether all pixels are equal."""
        return float(np.ptp(self.luminance)) < 1e-6

    @property
    def coarse_contrast(self) -> float:
        """Standard deviation of eighths of the frame, over the mean: hardly any blur reaches it."""
        return float(_shrink(self.luminance, _COARSE_PX).std()) / max(self.brightness, 1e-9)

    @property
    def grain(self) -> float:
        """Coarse contrast of white noise as strong as the finest detail."""
        luminance = self.luminance
        detail = cv2.Laplacian(luminance, cv2.CV_32F)
        eighth = _shrink(luminance, _COARSE_PX)
        # The Laplacian of white noise has sqrt(20) times its standard deviation.
        noise = float(np.median(np.abs(detail))) / 0.6745 / 20**0.5
        averaged = noise / np.sqrt(luminance.size / eighth.size)
        return float(averaged) / max(self.brightness, 1e-9)


def shrunk_frame(pixels: Pixels, alpha: Plane | None) -> tuple[Plane, Plane | None]:
    """A frame (H, W, 3), sRGB-encoded, and its alpha (H, W) at the resolution of registration."""
    # Light must be averaged as light. Within one small pixel, its square root is close enough to
    # the sRGB encoding, and a square is far cheaper than sRGB's power.
    squares = np.square(shares_of_white(pixels.dtype))
    full = pixels.shape[0], pixels.shape[1]
    size = _shrunk_size(full, _LONG_SIDE_PX)
    mean = reduced_in_strips(lambda strip: looked_up(pixels[strip], squares), full, size)
    return np.sqrt(mean), None if alpha is None else reduced(alpha, size)


def showing_nothing(views: Sequence[View]) -> dict[int, str]:
    """Frames that show nothing although others show something: index and kind.

    A frame far out of focus loses its detail, but keeps light and shade at an eighth of its size;
    a black, white, constant or noisy one has neither. Frames are compared with those that have
    structure. If none has, nothing is decided.
    """
    contrast = [view.coarse_contrast for view in views]
    seen = [
        index
        for index, view in enumerate(views)
        if not view.is_constant and contrast[index] > _GRAIN * view.grain
    ]
    if not seen:
        return {}
    brightness = float(np.median([views[index].brightness for index in seen]))
    typical = float(np.median([contrast[index] for index in seen]))
    clipped = float(np.median([views[index].clipped for index in seen]))
    can_fade = typical > _LEAST_COARSE and 2 * len(seen) > len(views)
    nothing = {}
    for index, view in enumerate(views):
        is_white = view.clipped > _WHITE > clipped
        is_black = view.brightness < _BLACK * brightness
        is_noise = contrast[index] < _GRAIN / 2 * view.grain and contrast[index] < typical / 2
        has_faded = (
            can_fade
            and (is_noise or contrast[index] < _FADED * typical)
            and view.clipped < MOSTLY  # the exposure explains a mostly clipped frame
        )
        if is_white:
            nothing[index] = "white"
        elif is_black or (has_faded and view.brightness < 4 * _BLACK * brightness):
            nothing[index] = "black"
        elif view.is_constant:
            nothing[index] = "of one value everywhere"
        elif has_faded:
            nothing[index] = "noise"
    return nothing


def _shrink(image: Plane, long_side_px: int) -> Plane:
    """Average over areas, down to a long side; smaller images are unchanged."""
    return reduced(image, _shrunk_size(image.shape[:2], long_side_px))


def _shrunk_size(size: tuple[int, ...], long_side_px: int) -> tuple[int, int]:
    """(height, width) after shrinking to a long side; smaller ones are unchanged."""
    scale = min(1.0, long_side_px / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
