"""Fusion: the all-in-focus image at native resolution, from captured pixels alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from focaldiffusion.allocation import give_back_freed_memory
from focaldiffusion.filters import bracket
from focaldiffusion.frames import FrameSource, alpha_of, decoded
from focaldiffusion.fusion.tiles import Tile, detail_energy, tiles_of
from focaldiffusion.fusion.upsample import Enlarged
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.progress import Meter
from focaldiffusion.stack import FocalStack
from focaldiffusion.threads import in_parallel

Image = NDArray[Any]  # float32; the return types of OpenCV leave the precision open

_NOISE_STD = 1 / 255  # sRGB; detail below it, or below a step, does not count as sharper
_FEATHER_PX = 4  # width of the generated image's fade-in, at working resolution
_FINE_LEVELS = 4  # blended tile by tile; the others have less than a hundredth of the pixels
_TILES_AT_ONCE = 12
"""Tiles that frames are added to at once, 26 bytes per pixel. Frames larger than these together are
read once for each such group."""


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
    """Blend the frames in a Laplacian pyramid, tile by tile.

    At each level, a frame's weight is its weight from the evidence times its local detail energy.
    Depth decides between frames far apart in focus; detail decides between neighbours and where
    depth is wrong. Blending at every level hides seams. The result is clamped to the range of the
    frames at each pixel, which prevents halos. A frame counts by its alpha.

    Memory holds one frame, or two small ones, the sums of a group of tiles and the result, for any
    number of frames. Frames larger than a group are read once for each.

    Args:
        frames: N native frames of (H, W).
        weights: (N, h, w), summing to one over N, at any size of the same field of view.
        numbers: (N,) number of each frame in `source_index`; from 0 on if None.
        step: see `FocalStack.step`.
        meter: counts the frames.

    Returns:
        The fused image and the origin of its pixels.
    """
    give_back_freed_memory()  # volumes of the sweep leave gaps that no native image fits into
    count, size = len(frames.names), frames.size
    numbers = numbers or range(count)
    levels = max(1, min(size).bit_length() - 4)
    fine = min(_FINE_LEVELS, levels)
    noise_std = max(_NOISE_STD, step)
    tiles = tiles_of(size, fine)
    groups, meter = _groups(tiles), meter or Meter()
    meter.expect(count * len(groups))
    is_opaque = all(alpha_of(frames, index) is None for index in range(count))
    bounds = _open_bounds(size, np.uint8 if frames.bit_depth == 8 else np.uint16)
    fused = np.empty((*size, 3), np.float32)
    opacity = None if is_opaque else np.zeros(size, np.float32)
    source_index = np.zeros(size, index_type(max(numbers) + 1))
    base = _Base(levels - fine, noise_std * 0.5**fine)
    unfinished: dict[int, tuple[Image, Image]] = {}
    following = decoded(frames, [index for _ in groups for index in range(count)])
    for group in groups:
        for tile in group:
            tile.open(bounds)
        for index in range(count):
            frame, alpha = next(following), None if is_opaque else alpha_of(frames, index)
            if opacity is not None:
                np.maximum(opacity, 1 if alpha is None else alpha, out=opacity)
            add = partial(
                Tile.add,
                frame=frame,
                weights=Enlarged(weights[index].cpu().numpy(), size),
                alpha=alpha,
                noise_std=noise_std,
                is_optional=is_opaque,
            )
            image, weight = unfinished.pop(index) if index in unfinished else _empty(tiles[-1])
            for tile, added in zip(group, in_parallel(add, group), strict=True):
                image[tile.coarse.window], weight[tile.coarse.window] = added.image, added.weight
                if added.is_main is not None:
                    main = source_index[tile.area.window]
                    np.copyto(main, main.dtype.type(numbers[index]), where=added.is_main)
            if group is groups[-1]:
                base.add(image, weight)
            else:
                unfinished[index] = image, weight
            del frame, add  # before the next one is decoded
            meter.advance()
        for _ in in_parallel(partial(Tile.close, result=fused), group):
            pass
    for _ in in_parallel(partial(Tile.finish, coarse=base.collapsed(), result=fused), tiles):
        pass
    if opacity is None or opacity.min() == 1:
        return Fusion(fused, source_index)
    fused[opacity == 0] = 0
    return Fusion(fused, source_index, opacity)


def _open_bounds(size: tuple[int, int], dtype: type[np.unsignedinteger[Any]]) -> tuple[Any, Any]:
    """Lowest and highest value (H, W, 3) of no frames."""
    return np.full((*size, 3), np.iinfo(dtype).max, dtype), np.zeros((*size, 3), dtype)


def _groups(tiles: Sequence[Tile]) -> list[Sequence[Tile]]:
    """Groups of tiles that frames are added to at once, of about one size."""
    size = math.ceil(len(tiles) / math.ceil(len(tiles) / _TILES_AT_ONCE))
    return [tiles[at : at + size] for at in range(0, len(tiles), size)]


def _empty(last: Tile) -> tuple[Image, Image]:
    """Image and weight of a frame at the coarsest fine level, given the last tile."""
    size = last.coarse.rows.stop, last.coarse.columns.stop
    return np.empty((*size, 3), np.float32), np.empty(size, np.float32)


class _Base:
    """The coarse levels of the pyramid, blended whole."""

    def __init__(self, levels: int, noise_std: float) -> None:
        self.levels, self.noise_std = levels, noise_std
        self.sums: list[tuple[Image, Image]] = []

    def add(self, image: Image, weight: Image) -> None:
        """Add a frame."""
        parts: list[tuple[Image, Image]] = []
        for level in range(self.levels):
            smaller = cv2.pyrDown(image)
            detail = image - cv2.pyrUp(smaller, dstsize=image.shape[1::-1])
            # Noise halves with each level, because four pixels become one.
            parts.append((detail, weight * detail_energy(detail, self.noise_std * 0.5**level)))
            image, weight = smaller, cv2.pyrDown(weight)
        parts.append((image, weight))
        for detail, share in parts:
            detail *= share[..., None]
        if not self.sums:
            self.sums = parts
            return
        for (total, shares), (detail, share) in zip(self.sums, parts, strict=True):
            total += detail
            shares += share

    def collapsed(self) -> Image:
        """Normalise and sum the levels."""
        total, shares = self.sums.pop()
        image = total / shares[..., None]
        while self.sums:
            total, shares = self.sums.pop()
            image = total / shares[..., None] + cv2.pyrUp(image, dstsize=total.shape[1::-1])
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
