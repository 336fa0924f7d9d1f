"""Scene: ground truth to simulate stacks from and to train on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from focaldiffusion.errors import InputError, check_shape
from focaldiffusion.optics import Camera
from focaldiffusion.window import Window


@dataclass(frozen=True, eq=False)
class Scene:
    """An image that is sharp everywhere, its depth, and the camera that sees it.

    Attributes:
        all_in_focus: (3, H, W) linear RGB, float, [0, 1].
        depth_m: (H, W) metres along the optical axis; > 0 where valid, infinity allowed.
        valid: (H, W) bool, True where the depth is trustworthy.
        camera: optics at the size of the image, aperture included.
        source: where the scene comes from, for messages: a path, or a dataset and a sample.
        focus_distances_m: at which it is to be photographed [m], where its data set says so.
        focal_range_m: (near, far), the range that a photographer would sweep [m], chosen without
            looking at the truth; replaces that of the configuration.

    Raises:
        InputError: no valid depth, a valid depth that is not positive, or a camera without an
            aperture.
    """

    all_in_focus: Tensor
    depth_m: Tensor
    valid: Tensor
    camera: Camera
    source: str
    focus_distances_m: tuple[float, ...] | None = None
    focal_range_m: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_shape("Scene.all_in_focus", self.all_in_focus, (3, "H", "W"))
        check_shape("Scene.depth_m", self.depth_m, self.size)
        check_shape("Scene.valid", self.valid, self.size)
        if self.camera.aperture_diameter_m is None:
            raise InputError(
                f"{self.source}: the aperture is unknown, so there is no blur to render."
            )
        if self.camera.image_size != self.size:
            raise ValueError(f"camera of {self.camera.image_size}, scene of {self.size}")
        check_depth(self.depth_m, self.valid, self.source)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.all_in_focus.shape[-2], self.all_in_focus.shape[-1]

    @property
    def aperture_diameter_m(self) -> float:
        """Aperture of the camera, known in every scene."""
        assert self.camera.aperture_diameter_m is not None
        return self.camera.aperture_diameter_m

    @property
    def blur_scale_px_m(self) -> float:
        """`Camera.blur_scale_px_m`, known in every scene."""
        assert self.camera.blur_scale_px_m is not None
        return self.camera.blur_scale_px_m

    def resized(self, long_side: int) -> Scene:
        """The scene with a long side of so many pixels; itself where it is no larger.

        Light is averaged. Depth and validity take the nearest pixel: an average across a
        silhouette would be a surface that is not there.
        """
        height, width = self.size
        step = max(height, width) / long_side
        if step <= 1:
            return self
        # Rounded down, so that the last pixel lies inside; but not for the rounding of a division.
        window = Window(0, 0, step, (int(height / step + 1e-6), int(width / step + 1e-6)))
        return replace(
            self,
            all_in_focus=window.light(self.all_in_focus),
            depth_m=window.nearest(self.depth_m),
            valid=window.nearest(self.valid),
            camera=window.camera(self.camera),
        )


def check_depth(depth_m: Tensor, valid: Tensor, source: str) -> None:
    """Refuse a truth that says nothing, or that is not a depth where it counts as one.

    Args:
        depth_m: (H, W) metres.
        valid: (H, W) bool.
        source: where it comes from, for the message.

    Raises:
        InputError: no valid depth, or a valid depth that is not positive.
    """
    if not bool(valid.any()):
        raise InputError(f"{source}: no pixel has a valid depth. Leave it out.")
    bad = int((valid & ~(depth_m > 0)).sum())
    if bad:
        raise InputError(
            f"{source}: {bad} pixels marked valid have a depth that is not a positive number. "
            "Mark them invalid (NaN in the depth file)."
        )
