"""Fusion: the all-in-focus image at native resolution, from captured pixels alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from focaldiffusion.filters import bracket
from focaldiffusion.frames import FrameSource, alpha_of
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.progress import Meter
from focaldiffusion.stack import FocalStack

Image = NDArray[Any]  # float32; the return types of OpenCV leave the precision open

_NOISE_STD = 1 / 255  # sRGB; detail below it, or below a step, does not count as sharper
_FEATHER_PX = 4  # width of the generated image's fade-in, at working resolution
_WEIGHT_FLOOR = 1e-6  # keeps a pixel defined where every frame's weight has faded
_HIDDEN_FLOOR = 1e-12  # the same where every frame is transparent


@dataclass(frozen=True, eq=False)
class Fusion:
    """A fused image and the origin of its pixels.

    Attributes:
        all_in_focus: (H, W, 3) sRGB-encoded float32, within the range of the frames at each pixel.
        source_index: (H, W) of `index_type`, number of the frame with the largest weight.
        alpha: (H, W) float32 in [0, 1], largest alpha of the frames; None if they are opaque.
    """

    all_in_focus: Image
    source_index: NDArray[np.integer[Any]]
    alpha: Image | None = None


def fuse(
    frames: FrameSource,
    weights: Tensor,
    *,
    numbers: Sequence[int] | None = None,
    step: float = 1 / 255,
    meter: Meter | None = None,
) -> Fusion:
    """Blend the frames in a Laplacian pyramid, reading each one once.

    At each level, a frame's weight is its weight from the evidence times its local detail energy.
    Depth decides between frames far apart in focus; detail decides between neighbours and where
    depth is wrong. Blending at every level hides seams. The result is clamped to the range of the
    frames at each pixel, which prevents halos. A frame counts by its alpha.

    Memory holds two pyramids and one frame, for any number of frames.

    Args:
        frames: N native frames of (H, W).
        weights: (N, h, w), summing to one over N, at any size of the same field of view.
        numbers: (N,) number of each frame in `source_index`; from 0 on if None.
        step: see `FocalStack.step`.
        meter: counts the frames.

    Returns:
        The fused image and the origin of its pixels.
    """
    meter = meter or Meter()
    meter.expect(len(frames.names))
    numbers = numbers or range(len(frames.names))
    height, width = frames.size
    levels = max(1, min(height, width).bit_length() - 4)
    steps = 2**frames.bit_depth - 1
    storage = np.uint8 if frames.bit_depth == 8 else np.uint16
    lowest = np.full((height, width, 3), steps, storage)
    highest = np.zeros((height, width, 3), storage)
    source_index = np.zeros((height, width), index_type(max(numbers) + 1))
    source_weight = np.full((height, width), -1, np.float32)
    opacity, is_opaque = None, False
    blended: list[Image] = []
    total: list[Image] = []
    for index in range(len(frames.names)):
        frame, alpha = frames.read(index), alpha_of(frames, index)
        seen: Any = True if alpha is None else (alpha > 0)[..., None]
        quantised = np.rint(frame * steps).astype(storage)
        np.minimum(lowest, quantised, out=lowest, where=seen)
        np.maximum(highest, quantised, out=highest, where=seen)
        del quantised
        weight: Image = cv2.resize(
            weights[index].cpu().numpy(), (width, height), interpolation=cv2.INTER_LINEAR
        )
        if alpha is not None:
            weight *= alpha
            opacity = alpha if opacity is None else np.maximum(opacity, alpha)
        is_opaque |= alpha is None
        better = weight > source_weight
        if alpha is not None:
            better &= alpha > 0
        source_index[better] = numbers[index]
        np.copyto(source_weight, weight, where=better)
        weight += _WEIGHT_FLOOR if alpha is None else _WEIGHT_FLOOR * alpha + _HIDDEN_FLOOR
        details = _weighted_details(frame, weight, levels, max(_NOISE_STD, step))
        for level, (detail, level_weight) in enumerate(details):
            detail *= level_weight[..., None]
            if index == 0:
                blended.append(detail)
                total.append(level_weight)
            else:
                blended[level] += detail
                total[level] += level_weight
        del frame, weight, better
        meter.advance()
    del source_weight
    image = _collapse(blended, total)
    if is_opaque or opacity is None or opacity.min() == 1:
        opacity = None
    np.clip(image, lowest / np.float32(steps), highest / np.float32(steps), out=image)
    if opacity is not None:
        image[opacity == 0] = 0
    return Fusion(image, source_index, opacity)


def _weighted_details(
    frame: Image, weight: Image, levels: int, noise_std: float
) -> Iterator[tuple[Image, Image]]:
    """Yield (detail, weight) from the finest level to the base; memory holds two levels."""
    current = frame
    for level in range(levels):
        smaller = cv2.pyrDown(current)
        detail = current - cv2.pyrUp(smaller, dstsize=current.shape[1::-1])
        energy = cv2.GaussianBlur(np.einsum("hwc,hwc->hw", detail, detail), (0, 0), 1.0)
        # Noise halves with each level, because four pixels become one.
        energy += np.float32(3 * (noise_std * 0.5**level) ** 2)
        yield detail, weight * energy
        current, weight = smaller, cv2.pyrDown(weight)
    yield current, weight


def _collapse(blended: list[Image], total: list[Image]) -> Image:
    """Normalise and sum the pyramid, consuming it."""
    image = blended.pop() / total.pop()[..., None]
    while blended:
        detail = blended.pop()
        detail /= total.pop()[..., None]
        detail += cv2.pyrUp(image, dstsize=detail.shape[1::-1])
        image = detail
    return image


def index_type(frame_count: int) -> type[np.unsignedinteger[Any]]:
    """Smallest type of a `source_index` with room for every frame and the mark."""
    return np.uint8 if frame_count <= np.iinfo(np.uint8).max else np.uint16


def generated_mark(dtype: DTypeLike) -> int:
    """Value of generated pixels in a `source_index`: 255 in uint8, 65535 in uint16."""
    return int(np.iinfo(dtype).max)  # type: ignore[arg-type]


def frame_weights(coordinate: Tensor, focus: Tensor) -> Tensor:
    """Weight of each frame (N, ...), summing to 1, at pixels that are sharpest at a coordinate.

    Between two focus settings the weights are the normalised cubes of linear interpolation: 1 at a
    frame's own focus, 1/2 half-way to the next. Frames with equal focus, which rounded EXIF
    distances produce, share one weight.

    Args:
        coordinate: sharpest coordinate of each pixel, any shape, on the axis of the stack.
        focus: (N,) coordinate at which each frame is focused.
    """
    ordered, member = focus.unique(return_inverse=True)
    before, after, share = bracket(coordinate, ordered)
    near, far = (1 - share) ** 3, share**3
    weights = coordinate.new_zeros((len(ordered), *coordinate.shape))
    weights.scatter_(0, before[None], (near / (near + far))[None])
    weights.scatter_(0, after[None], (far / (near + far))[None])
    sharing = member.bincount().to(weights)[member]
    return weights[member] / sharing.reshape(-1, *[1] * coordinate.ndim)


def blend_sharpest(stack: FocalStack, sharpest: Tensor) -> Tensor:
    """All-in-focus image (3, H, W) at working resolution, linear, from the frames in focus."""
    weights = frame_weights(sharpest, stack.focus_coordinates)
    return torch.einsum("nhw,nchw->chw", weights, stack.images)


def fill(fusion: Fusion, generated: Tensor, never_sharp: Tensor) -> Fusion:
    """Let a generated image replace the pixels that no frame shows sharp.

    The image fades in inside the mask, so every pixel outside keeps its captured value to the bit.
    Each pixel that it contributes to is marked.

    Args:
        fusion: fused image at native size (H, W).
        generated: (3, h, w) linear RGB in [0, 1], at working resolution.
        never_sharp: (h, w) bool.

    Returns:
        The fusion with the generated image in it, `generated_mark` in its `source_index`.
    """
    size = fusion.source_index.shape[::-1]
    # The outermost pixels of the mask are left out, also beside a concave corner, which is why
    # diagonal steps count as 1: enlarging spreads them half a pixel outwards.
    depth_px = cv2.distanceTransform(never_sharp.cpu().numpy().astype(np.uint8), cv2.DIST_C, 3)
    share: Image = cv2.resize(
        np.clip((depth_px - 1) / _FEATHER_PX, 0, 1), size, interpolation=cv2.INTER_LINEAR
    )
    encoded = linear_to_srgb(generated.clamp(0, 1)).permute(1, 2, 0).cpu().numpy()
    image: Image = cv2.resize(encoded, size, interpolation=cv2.INTER_LINEAR)
    # In place, because the image has native size.
    image -= fusion.all_in_focus
    image *= share[..., None]
    image += fusion.all_in_focus
    source_index = fusion.source_index.copy()
    source_index[share > 0] = generated_mark(source_index.dtype)
    return replace(fusion, all_in_focus=image, source_index=source_index)
