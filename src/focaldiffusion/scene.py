"""Scene: ground truth to simulate stacks from and to train on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from focaldiffusion.errors import InputError, check_shape
from focaldiffusion.optics import Camera
from focaldiffusion.prior import Prior
from focaldiffusion.window import Window


@dataclass(frozen=True, eq=False)
class Scene:
    """An all-in-focus image, its depth, and the camera that sees it.

    Attributes:
        all_in_focus: (3, H, W) linear RGB, float, [0, 1].
        depth_m: (H, W) metres along the optical axis; > 0 where valid, infinity allowed.
        valid: (H, W) bool, True where the depth is trustworthy.
        camera: optics at the size of the image, aperture included.
        source: origin of the scene, for messages: a path, or a data set and a sample.
        focus_distances_m: where to focus the frames [m]; None leaves it to the simulation.
        focal_range_m: (near, far) of the sweep [m], chosen without looking at the truth; replaces
            the configured one.
        prior: depth from elsewhere, (H, W); None for none.

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
    prior: Prior | None = None

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
        """The scene with a long side of `long_side` pixels; unchanged if it is not larger.

        Light is averaged; depth and validity take the nearest pixel, see `Window`.
        """
        height, width = self.size
        step = max(height, width) / long_side
        if step <= 1:
            return self
        # Rounded down, so that the last pixel lies inside, with a margin for the division.
        window = Window(0, 0, step, (int(height / step + 1e-6), int(width / step + 1e-6)))
        return replace(
            self,
            all_in_focus=window.light(self.all_in_focus),
            depth_m=window.nearest(self.depth_m),
            valid=window.nearest(self.valid),
            camera=window.camera(self.camera),
            prior=self.prior and self.prior.mapped(window.nearest),
        )


def check_depth(depth_m: Tensor, valid: Tensor, source: str) -> None:
    """Refuse a truth without valid pixels, or with valid pixels that are not a depth.

    Args:
        depth_m: (H, W) metres.
        valid: (H, W) bool.
        source: its origin, for the message.

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
