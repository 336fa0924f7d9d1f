"""Surfaces and points as binary glTF, which every 3-D program opens."""

from __future__ import annotations

import json
import math
import struct
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from focaldiffusion.errors import InputError
from focaldiffusion.io.pyramid import encoded_jpeg

_MAGIC, _VERSION, _JSON, _BINARY = 0x46546C67, 2, 0x4E4F534A, 0x004E4942
_FLOAT, _BYTE, _INT = 5126, 5121, 5125  # of OpenGL
_VERTICES, _INDICES = 34962, 34963
_POINTS, _TRIANGLES = 0, 4
_STEEP = 5.0  # a surface seen at less than 11 degrees may be the gap between two surfaces
_DOUBTFUL = 128  # of 255
_TEXTURE_PX = 4096  # long side


class Grid(NamedTuple):
    """The point that each pixel of an image shows.

    Attributes:
        points: (h, w, 3), x right, y down, z forward; NaN where unknown.
        pixels: (h, w, 3) uint8, sRGB.
        kept: (h, w) bool, pixels that may be shown.
        pitch: (h, w), distance between neighbours on a surface that faces the camera.
        gap: least difference of nearness across an outline, in the unit of `nearness`.
        nearness: (h, w), grows towards the camera.
        confidence: (h, w) uint8.
    """

    points: NDArray[np.float32]
    pixels: NDArray[np.uint8]
    kept: NDArray[np.bool_]
    pitch: NDArray[np.float32]
    gap: float
    nearness: NDArray[np.float32]
    confidence: NDArray[np.uint8]


def surface_glb(grid: Grid, texture: NDArray[np.uint8]) -> bytes:
    """The surface through all points, textured, cut along outlines.

    Two neighbours belong to two surfaces if the surface between them would be seen at a grazing
    angle, and their nearness differs by `gap` or the depth of one is doubtful.

    Args:
        grid: the points.
        texture: (H, W, 3) uint8, sRGB, of the same view at any size.

    Returns:
        A GLB: y up, the camera looks along negative z.

    Raises:
        InputError: no surface is left.
    """
    height, width = grid.kept.shape
    faces = _faces(grid)
    used, indices = np.unique(faces, return_inverse=True)
    if len(used) == 0:
        raise InputError("no surface is left at this confidence. Lower it.")
    y, x = np.divmod(used, width)
    places = np.stack([(x + 0.5) / width, (y + 0.5) / height], axis=-1).astype("<f4")
    step = math.ceil(max(texture.shape) / _TEXTURE_PX)
    picture = encoded_jpeg(np.ascontiguousarray(texture[::step, ::step]), quality=90)
    file = _File()
    positions = file.positions(grid.points.reshape(-1, 3)[used])
    image = {"bufferView": file.view(picture), "mimeType": "image/jpeg"}
    primitive = {
        "attributes": {"POSITION": positions, "TEXCOORD_0": file.array(places, "VEC2", _FLOAT)},
        "indices": file.array(indices.reshape(-1).astype("<u4"), "SCALAR", _INT, target=_INDICES),
        "mode": _TRIANGLES,
        "material": 0,
    }
    material = {
        "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0},
        "extensions": {"KHR_materials_unlit": {}},
        "doubleSided": True,
    }
    return file.content(
        primitive,
        materials=[material],
        textures=[{"source": 0, "sampler": 0}],
        samplers=[{"wrapS": 33071, "wrapT": 33071}],
        images=[image],
    )


def with_sharp_outlines(
    nearness: NDArray[np.float32], reach_px: int, gap: float
) -> NDArray[np.float32]:
    """Nearness (h, w) whose ramps at outlines are steps, so that they can be cut.

    Enlarging smears an outline over some pixels. Each pixel of a ramp goes to the nearer or the
    farther of the two surfaces around it, whichever is closer.

    Args:
        nearness: (h, w), no gaps.
        reach_px: largest distance from a pixel of a ramp to both of its ends.
        gap: least height of a ramp.
    """
    side = 2 * reach_px + 1
    window = np.ones((side, side), np.uint8)
    low, high = cv2.erode(nearness, window), cv2.dilate(nearness, window)
    snapped = np.where(nearness - low < high - nearness, low, high)
    return np.where(high - low > gap, snapped, nearness).astype(np.float32)


def points_glb(grid: Grid) -> bytes:
    """All points in their colours, see `surface_glb`.

    Raises:
        InputError: no point is left.
    """
    kept = grid.kept & np.isfinite(grid.points).all(-1)
    if not kept.any():
        raise InputError("no point is left at this confidence. Lower it.")
    file = _File()
    positions = file.positions(grid.points[kept])
    colours = np.pad(grid.pixels[kept], ((0, 0), (0, 1)), constant_values=255)
    primitive = {
        "attributes": {
            "POSITION": positions,
            "COLOR_0": file.array(colours, "VEC4", _BYTE, normalized=True),
        },
        "mode": _POINTS,
        "material": 0,
    }
    return file.content(primitive, materials=[{"extensions": {"KHR_materials_unlit": {}}}])


def _faces(grid: Grid) -> NDArray[np.intp]:
    """Triangles of the cells between pixels, as indices of pixels (n, 3)."""
    height, width = grid.kept.shape
    number = np.arange(height * width).reshape(height, width)
    kept = grid.kept & np.isfinite(grid.points).all(-1)
    corners = ((0, 0), (0, 1), (1, 0), (1, 1))
    cells = [np.s_[dy : height - 1 + dy, dx : width - 1 + dx] for dy, dx in corners]
    top_left, top_right, bottom_left, bottom_right = (number[cell] for cell in cells)
    # Seen from the camera, front faces run counter-clockwise once y points up.
    both = (
        ((0, 2, 1), (top_left, bottom_left, top_right)),
        ((1, 2, 3), (top_right, bottom_left, bottom_right)),
    )
    faces = []
    for places, triangle in both:
        whole = np.logical_and.reduce([kept[cells[place]] for place in places])
        depth = np.stack([grid.points[cells[place]][..., 2] for place in places])
        nearness = np.stack([grid.nearness[cells[place]] for place in places])
        deep = np.ptp(depth, axis=0)
        wide = np.stack([grid.pitch[cells[place]] for place in places]).max(0)
        sure = np.stack([grid.confidence[cells[place]] for place in places]).min(0)
        is_outline = (np.ptp(nearness, axis=0) > grid.gap) | (sure < _DOUBTFUL)
        is_gap = (deep > _STEEP * wide) & is_outline
        faces.append(np.stack(triangle, axis=-1)[whole & ~is_gap])
    return np.concatenate(faces)


class _File:
    """A GLB in the making."""

    def __init__(self) -> None:
        self._binary = bytearray()
        self._views: list[dict[str, Any]] = []
        self._accessors: list[dict[str, Any]] = []

    def view(self, content: bytes, target: int | None = None) -> int:
        """Add bytes, and return the number of their view."""
        view: dict[str, Any] = {
            "buffer": 0,
            "byteOffset": len(self._binary),
            "byteLength": len(content),
        }
        self._views.append(view if target is None else {**view, "target": target})
        self._binary += content + bytes(-len(content) % 4)
        return len(self._views) - 1

    def array(
        self,
        values: NDArray[Any],
        kind: str,
        component: int,
        *,
        target: int = _VERTICES,
        **more: Any,
    ) -> int:
        """Add an array, and return the number of its accessor."""
        accessor = {
            "bufferView": self.view(np.ascontiguousarray(values).tobytes(), target),
            "componentType": component,
            "count": len(values),
            "type": kind,
        }
        self._accessors.append({**accessor, **more})
        return len(self._accessors) - 1

    def positions(self, points: NDArray[np.float32]) -> int:
        """Add points (n, 3): y down and z forward become y up and z backward."""
        turned = (points * np.array([1, -1, -1], np.float32)).astype("<f4")
        ends = {"min": turned.min(0).tolist(), "max": turned.max(0).tolist()}
        return self.array(turned, "VEC3", _FLOAT, **ends)

    def content(self, primitive: dict[str, Any], **more: Any) -> bytes:
        """The whole file."""
        scene = {
            "asset": {"version": "2.0", "generator": "FocalDiffusion"},
            "extensionsUsed": ["KHR_materials_unlit"],
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [primitive]}],
            "accessors": self._accessors,
            "bufferViews": self._views,
            "buffers": [{"byteLength": len(self._binary)}],
            **more,
        }
        text = json.dumps(scene, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        length = 12 + 8 + len(text) + 8 + len(self._binary)
        return b"".join(
            [
                struct.pack("<3I", _MAGIC, _VERSION, length),
                struct.pack("<2I", len(text), _JSON),
                text,
                struct.pack("<2I", len(self._binary), _BINARY),
                bytes(self._binary),
            ]
        )
