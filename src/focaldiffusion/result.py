"""Result: the all-in-focus image and the depth of a stack, and everything needed to save them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.align.alignment import Alignment
from focaldiffusion.errors import InputError, check_shape
from focaldiffusion.frames import Pixels
from focaldiffusion.fusion.retouch import Canvas, Retouch
from focaldiffusion.io.colour_scales import DepthRange
from focaldiffusion.io.depth_files import write_npy
from focaldiffusion.io.images import ImageMetadata, pillow_image
from focaldiffusion.io.levels import Levels
from focaldiffusion.io.panels import depth_picture, srgb_pixels
from focaldiffusion.io.pictures import overview
from focaldiffusion.io.png import save_png, write_png
from focaldiffusion.io.results import (
    LIVING_FILE,
    RETOUCH_FILE,
    DepthFormat,
    PointCloud,
    check_formats,
    results_folder,
    write_depth,
    write_metadata,
    write_points,
    write_retouch,
)
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import Camera
from focaldiffusion.solve.calibrate import Calibration
from focaldiffusion.stack import Axis, FocalStack, Grade
from focaldiffusion.threads import in_parallel

Plane = NDArray[np.float32]

FIELD_OF_AXIS: dict[Axis, str] = {
    "inverse_depth_dpt": "depth_m",
    "position_m": "height_m",
    "order": "depth_relative",
}
"""Field, and file, that holds the depth of a sweep over each axis."""


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The all-in-focus image and the depth of a stack, at the native size of its frames.

    Exactly one of `depth_m`, `height_m` and `depth_relative` is set, depending on the knowledge of
    the camera: only metric values are named metres. With `Settings.image_only` none is set, nor is
    `confidence`.

    Attributes:
        all_in_focus: (H, W, 3) float32, sRGB-encoded, in [0, 1], normalised by `levels`.
        confidence: (H, W) float32 in [0, 1], trust in the depth; None without depth.
        source_index: (H, W) uint8 or uint16, number of the main source frame of each pixel, from 0;
            the largest value of the type marks generated pixels.
        alpha: (H, W) float32 in [0, 1], 0 where all frames are transparent: depth is NaN there, and
            confidence 0; None if every pixel is opaque in some frame.
        stack: the frames at working size, aligned.
        calibration: knowledge of the lens behind the depth.
        depth_m: (H, W) float32, metres along the optical axis; NaN where indistinguishable from
            infinity.
        height_m: (H, W) float32, metres relative to the first stage position, positive in the
            direction of the listed positions.
        depth_relative: (H, W) float32, position in the focus sweep: 0 first frame, 1 last frame.
        depth_near: (H, W) float32, low end of the interval that holds the true depth in nine of ten
            pixels, in the unit of the depth; None without a blur scale that can be trusted.
        depth_far: (H, W) float32, high end of that interval; infinite where the depth may be.
        prior_share: (H, W) float32 in [0, 1], how far the prior decided on the depth; 0 where
            physics did; None without a prior.
        camera: optics at native size; None if the focal length is unknown.
        lens: facts of the lens.
        alignment: motion, exposure and crop of each frame; None for a stack given aligned.
        levels: black and white of the stack; `all_in_focus.png` gets the values of the files.
        image_metadata: ICC profile and EXIF of the reference frame.
        findings: sentences about doubtful input, without the name of the stack.
        provenance: everything needed to reproduce the result; saved to `metadata.json`.
        name: name of the stack in pictures and messages.
        retouch: retouching by hand that the arrays have, see `retouched`; None without.
    """

    all_in_focus: Plane
    source_index: NDArray[np.integer[Any]]
    stack: FocalStack
    calibration: Calibration
    confidence: Plane | None = None
    alpha: Plane | None = None
    depth_m: Plane | None = None
    height_m: Plane | None = None
    depth_relative: Plane | None = None
    depth_near: Plane | None = None
    depth_far: Plane | None = None
    prior_share: Plane | None = None
    camera: Camera | None = None
    lens: LensFacts = field(default_factory=LensFacts)
    alignment: Alignment | None = None
    levels: Levels = field(default_factory=Levels)
    image_metadata: ImageMetadata = field(default_factory=ImageMetadata)
    findings: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    name: str = "stack"
    retouch: Retouch | None = None

    def __post_init__(self) -> None:
        size = self.all_in_focus.shape[:2]
        maps = [name for name in FIELD_OF_AXIS.values() if getattr(self, name) is not None]
        maps += ["confidence"] * (self.confidence is not None)
        if maps not in ([], [self.depth_field, "confidence"]):
            raise ValueError(f"expected {self.depth_field} and confidence, or neither; got {maps}")
        others = "depth_near", "depth_far", "prior_share"
        maps += [name for name in others if getattr(self, name) is not None]
        for name in (*maps, "source_index"):
            check_shape(name, getattr(self, name), size)

    def __repr__(self) -> str:
        height, width = self.all_in_focus.shape[:2]
        about = f"{self.name}: {self.calibration}, {width}x{height} px"
        if self.confidence is None:
            return f"<Result {about}, image only>"
        known = DepthRange.of(self.depth, self.depth_field)
        depth = "no depth is known" if known is None else known.text or "relative depth"
        return f"<Result {about}, {depth}, mean confidence {self.confidence.mean():.2f}>"

    @property
    def grade(self) -> Grade:
        """Knowledge of the camera."""
        return self.calibration.grade

    @property
    def depth_field(self) -> str:
        """Name of the field that holds the depth."""
        return FIELD_OF_AXIS[self.stack.axis]

    @property
    def depth(self) -> Plane:
        """The depth field.

        Raises:
            InputError: there is none, because only the image was wanted.
        """
        depth: Plane | None = getattr(self, self.depth_field)
        if depth is None:
            raise InputError(
                f"{self.name}: has no depth, because image_only was set. Reconstruct it without."
            )
        return depth

    @property
    def blur_scale_px_m(self) -> float | None:
        """Blur diameter [px] per dioptre at native size; None without metric depth or blur."""
        scale = self.calibration.blur_scale
        if scale is None or self.depth_m is None:
            return None
        return scale * max(self.depth_m.shape) / max(self.stack.size)

    def retouched(self, retouch: Retouch) -> Result:
        """The result with strokes of a brush, which take pixels from frames or set depth.

        Raises:
            InputError: the strokes are those of another result; or a frame cannot be read.
        """
        frames = self.stack.frames
        if frames is None:
            raise InputError(f"{self.name}: its frames are gone, so no stroke can take from them.")
        size, has_depth = self.source_index.shape, self.confidence is not None
        numbers = self.stack.frame_numbers or tuple(range(len(self.stack)))
        retouch.check(size, numbers, self.name, has_depth=has_depth)

        @lru_cache(maxsize=2)
        def frame_pixels(number: int) -> Pixels:
            image = frames.read(numbers.index(number))
            return self.levels.file_pixels(image, frames.bit_depth)

        before = self.levels.file_pixels(self.all_in_focus, frames.bit_depth)
        maps = {}
        if self.confidence is not None:
            maps = {self.depth_field: self.depth.copy(), "confidence": self.confidence.copy()}
        canvas = Canvas(before.copy(), self.source_index.copy(), *maps.values())
        for stroke in retouch.strokes:
            canvas.apply(stroke, frame_pixels)
        if self.depth_near is not None and self.depth_far is not None:
            maps["depth_near"] = np.fmin(self.depth_near, maps[self.depth_field])
            maps["depth_far"] = np.fmax(self.depth_far, maps[self.depth_field])
        shares = canvas.pixels / np.float32(np.iinfo(before.dtype).max)
        is_kept = canvas.pixels == before
        image = np.where(is_kept, self.all_in_focus, self.levels.normalised(shares))
        return replace(
            self,
            all_in_focus=image.astype(np.float32),
            source_index=canvas.source_index,
            retouch=retouch,
            **maps,  # type: ignore[arg-type]
        )

    def save(
        self,
        directory: str | PathLike[str],
        *,
        overwrite: bool = False,
        point_cloud: PointCloud = "auto",
        depth_formats: Sequence[DepthFormat] = ("npy", "png"),
        living_picture: str | None = None,
    ) -> dict[str, str]:
        """Write all results to a folder, or none of them.

        Args:
            directory: the folder; created if missing.
            overwrite: replace earlier results in it.
            point_cloud: whether to write `point_cloud.ply` if depth is metric and the focal length
                known: "auto" for images of at most 2 megapixels, "on" for all, "off" for none.
            depth_formats: formats of the depth map: npy (float32), png (16-bit millimetres), exr
                (float32).
            living_picture: page that `living_picture` made of this result; None writes none.

        Returns:
            Requested files that were left out, and why.

        Raises:
            InputError: the folder already holds results, or cannot be written.
        """
        check_formats(depth_formats, point_cloud)
        sources = {Path(file).resolve().parent for file in self.provenance.get("frames", ())}
        if Path(directory).resolve() in sources:
            raise InputError(
                f"{directory}: holds the frames of the stack, and the results would count as "
                "frames the next time. Choose another folder."
            )
        with results_folder(Path(directory), overwrite=overwrite) as folder:
            writers = self._picture_writers(folder)
            if self.confidence is not None:
                depth = self.depth_field, self.depth
                writers.append(partial(write_depth, folder, *depth, depth_formats))
            if "npy" in depth_formats:
                ends = {"depth_near": self.depth_near, "depth_far": self.depth_far}
                writers += [
                    partial(write_npy, folder / f"{name}.npy", end)
                    for name, end in ends.items()
                    if end is not None
                ]
            if self.depth_m is not None:
                points = self.depth_m, self.all_in_focus, self.camera
                writers.append(partial(write_points, folder, *points, point_cloud))
            left_out: dict[str, str] = {}
            for reasons in in_parallel(lambda write: write(), writers):
                left_out |= reasons or {}
            if living_picture is not None:
                (folder / LIVING_FILE).write_text(living_picture, "utf-8")
            if self.retouch is not None:
                write_retouch(folder / RETOUCH_FILE, self.retouch)
            write_metadata(folder, self.provenance, left_out)
        return left_out

    def _picture_writers(self, folder: Path) -> list[Callable[[], dict[str, str] | None]]:
        """Functions that write one picture each, the slowest first."""
        frames = self.stack.frames
        is_grey = frames is not None and frames.is_grey
        image = self.all_in_focus[..., 0] if is_grey else self.all_in_focus
        pictures: list[Callable[[], None]] = [
            lambda: write_png(
                folder / "all_in_focus.png",
                self.levels.file_values(image),
                bit_depth=16 if frames is not None and frames.bit_depth == 16 else 8,
                metadata=self.image_metadata,
                alpha=self.alpha,
            ),
            partial(save_png, folder / "source_index.png", self.source_index),
        ]
        if self.confidence is None:
            return [*pictures]
        if self.prior_share is not None:
            pictures.append(partial(write_png, folder / "prior_share.png", self.prior_share))
        return [
            lambda: save_png(folder / "overview.png", self.overview()),
            lambda: save_png(
                folder / "depth_colored.png", depth_picture(self.depth, self.depth_field)
            ),
            *pictures,
            partial(write_png, folder / "confidence.png", self.confidence),
        ]

    def overview(self) -> NDArray[np.uint8]:
        """Frames, image, depth and confidence side by side, (height, width, 3) sRGB.

        Without depth, the image alone.
        """
        if self.confidence is None:
            return srgb_pixels(self.all_in_focus)
        return overview(
            self.stack,
            self.all_in_focus,
            self.depth,
            self.depth_field,
            self.confidence,
            name=self.name,
            grade=str(self.calibration),
        )

    def show(self) -> None:
        """Show the overview in the system's picture viewer."""
        pillow_image(self.overview()).show()

    def _repr_png_(self) -> bytes | None:
        """The overview for notebooks."""
        return pillow_image(self.overview())._repr_png_()
