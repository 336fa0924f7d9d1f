"""Fusion: the all-in-focus image at native resolution, from captured pixels alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from focaldiffusion.progress import Meter
from focaldiffusion.stack import FrameSource

Image = NDArray[Any]  # float32; the return types of OpenCV leave the precision open

_NOISE_STD = 1 / 255  # sRGB; detail below it does not count as sharper
_WEIGHT_FLOOR = 1e-6  # keeps a pixel defined where every frame's weight has faded


@dataclass(frozen=True, eq=False)
class Fusion:
    """A fused image and the origin of its pixels.

    Attributes:
        all_in_focus: (H, W, 3) sRGB-encoded float32, within the range of the frames at each pixel.
        source_index: (H, W) of `index_type`, number of the frame with the largest weight.
    """

    all_in_focus: Image
    source_index: NDArray[np.integer[Any]]


def fuse(
    frames: FrameSource,
    weights: Tensor,
    *,
    numbers: Sequence[int] | None = None,
    meter: Meter | None = None,
) -> Fusion:
    """Blend the frames in a Laplacian pyramid, reading each one once.

    At each level, a frame's weight is its weight from the evidence times its local detail energy.
    Depth decides between frames far apart in focus; detail decides between neighbours and where
    depth is wrong. Blending at every level hides seams. The result is clamped to the range of the
    frames at each pixel, which prevents halos.

    Memory holds two pyramids and one frame, for any number of frames.

    Args:
        frames: N native frames of (H, W).
        weights: (N, h, w), summing to one over N, at any size of the same field of view.
        numbers: (N,) number of each frame in `source_index`; from 0 on if None.
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
    blended: list[Image] = []
    total: list[Image] = []
    for index in range(len(frames.names)):
        frame = frames.read(index)
        quantised = np.rint(frame * steps).astype(storage)
        np.minimum(lowest, quantised, out=lowest)
        np.maximum(highest, quantised, out=highest)
        del quantised
        weight: Image = cv2.resize(
            weights[index].cpu().numpy(), (width, height), interpolation=cv2.INTER_LINEAR
        )
        better = weight > source_weight
        source_index[better] = numbers[index]
        np.copyto(source_weight, weight, where=better)
        weight += _WEIGHT_FLOOR
        for level, (detail, level_weight) in enumerate(_weighted_details(frame, weight, levels)):
            if index == 0:
                blended.append(detail * level_weight[..., None])
                total.append(level_weight)
            else:
                blended[level] += detail * level_weight[..., None]
                total[level] += level_weight
        del frame, weight, better
        meter.advance()
    del source_weight
    image = _collapse(blended, total)
    np.clip(image, lowest / np.float32(steps), highest / np.float32(steps), out=image)
    return Fusion(image, source_index)


def _weighted_details(frame: Image, weight: Image, levels: int) -> Iterator[tuple[Image, Image]]:
    """Yield (detail, weight) from the finest level to the base; memory holds two levels."""
    current = frame
    for level in range(levels):
        smaller = cv2.pyrDown(current)
        detail = current - cv2.pyrUp(smaller, dstsize=current.shape[1::-1])
        energy = cv2.GaussianBlur(np.einsum("hwc,hwc->hw", detail, detail), (0, 0), 1.0)
        # Noise halves with each level, because four pixels become one.
        energy += np.float32(3 * (_NOISE_STD * 0.5**level) ** 2)
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
