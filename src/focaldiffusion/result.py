"""Reconstruction: what FocalDiffusion returns for a stack."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from focaldiffusion.errors import check_shape
from focaldiffusion.optics import Camera
from focaldiffusion.stack import Axis


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """The all-in-focus image and the depth of a stack, at the native size of its frames.

    Exactly one of `depth_m`, `height_m` and `depth_relative` is set: the field's name says what
    was known of the camera, and no number is called metres that is not.

    Attributes:
        all_in_focus: (H, W, 3) sRGB-encoded float32 in [0, 1].
        depth_m: (H, W) metres along the optical axis, NaN where unknown.
        height_m: (H, W) metres relative to the first stage position, positive in the direction
            of the listed positions.
        depth_relative: (H, W) position in the focus sweep, 0 the first frame, 1 the last.
        confidence: (H, W) in [0, 1].
        source_index: (H, W) uint8 or uint16, the frame that each pixel mainly comes from; the
            largest value of its type marks generated pixels, see `generated_mark`.
        camera: optics at the native size, or None when unknown.
        provenance: everything needed to reproduce the result; JSON-serialisable.
    """

    all_in_focus: NDArray[np.float32]
    confidence: Tensor
    source_index: NDArray[np.integer[Any]]
    depth_m: Tensor | None = None
    height_m: Tensor | None = None
    depth_relative: Tensor | None = None
    camera: Camera | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        height, width = self.all_in_focus.shape[:2]
        given = [name for name in FIELD_OF_AXIS.values() if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(FIELD_OF_AXIS.values())}; got {given}")
        check_shape(given[0], getattr(self, given[0]), (height, width))
        check_shape("confidence", self.confidence, (height, width))

    @property
    def depth_field(self) -> str:
        """Name of the one depth field that is set."""
        return next(n for n in FIELD_OF_AXIS.values() if getattr(self, n) is not None)


FIELD_OF_AXIS: dict[Axis, str] = {
    "inverse_depth_dpt": "depth_m",
    "position_m": "height_m",
    "order": "depth_relative",
}
"""Which field, and which file, carries the result of a sweep over each axis."""


def index_type(frame_count: int) -> type[np.unsignedinteger[Any]]:
    """The type of a `source_index`: the smallest with room for every frame and the mark."""
    return np.uint8 if frame_count <= np.iinfo(np.uint8).max else np.uint16


def generated_mark(dtype: DTypeLike) -> int:
    """What a `source_index` says of generated pixels: 255 in uint8, 65535 in uint16."""
    return int(np.iinfo(dtype).max)  # type: ignore[arg-type]
