"""How the images of a data set are photographed for a protocol: focus planes, lens, blur, noise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from focaldiffusion.config.data import CameraDefaults
from focaldiffusion.data.dataset import StackSample
from focaldiffusion.errors import InputError
from focaldiffusion.psf import PSF
from focaldiffusion.scene import Scene
from focaldiffusion.simulation.capture import capture


@dataclass(frozen=True)
class OraclePlanes:
    """Focus planes taken from the truth: no photographer could choose them.

    Attributes:
        count: number of planes, at least 2.
        quantiles: of the true depth, for the nearest and the farthest plane.
        even_in: the unit in which the planes are evenly spaced.
    """

    count: int
    quantiles: tuple[float, float]
    even_in: Literal["inverse_depth_dpt", "depth_m"] = "inverse_depth_dpt"

    def distances_m(self, scene: Scene) -> tuple[float, ...]:
        """The planes of a scene, near to far [m].

        Raises:
            InputError: the depth of the scene hardly varies, so that its planes coincide.
        """
        depth_m = scene.depth_m[scene.valid].double().numpy()
        inverse = self.even_in == "inverse_depth_dpt"
        # Not torch.quantile: it refuses maps of more than 16 megapixels.
        if inverse:
            ends = np.quantile(1 / depth_m, [1 - share for share in self.quantiles])
        else:
            ends = np.quantile(depth_m, self.quantiles)
        planes = np.linspace(ends[0], ends[1], self.count)
        near_m, *_, far_m = distances_m = tuple((1 / planes if inverse else planes).tolist())
        if far_m < 1.001 * near_m:
            raise InputError(
                f"{scene.source}: the true depth hardly varies ({near_m:.4g} to {far_m:.4g} m), so "
                "focus planes taken from it coincide. Leave this sample out."
            )
        return distances_m

    def __str__(self) -> str:
        low, high = (f"{100 * share:g}" for share in self.quantiles)
        unit = "dioptres" if self.even_in == "inverse_depth_dpt" else "metres"
        return f"{self.count}, even in {unit}, {low}-{high} % of the truth"


@dataclass(frozen=True)
class WorkingRange:
    """Focus planes over the range that a scene was laid out for, before anything stood in it.

    Attributes:
        count: number of planes, at least 2, evenly spaced in dioptres.
    """

    count: int

    def distances_m(self, scene: Scene) -> tuple[float, ...]:
        """The planes of a scene, near to far [m]."""
        if scene.focal_range_m is None:
            raise ValueError(f"{scene.source} has no working range")
        near_m, far_m = scene.focal_range_m
        planes: NDArray[np.float64] = 1 / np.linspace(1 / near_m, 1 / far_m, self.count)
        return tuple(planes.tolist())

    def __str__(self) -> str:
        return f"{self.count}, even in dioptres over each scene's working range"


@dataclass(frozen=True)
class Photography:
    """Simulated photography of the images of a data set.

    Attributes:
        planes: focus distances [m] fixed in advance, or taken from the working range or the truth
            of each scene.
        lens: of the photographer, where the data set has no lens.
        psf: shape of the blur.
        blur_of: see `capture`.
        noise_std_lsb: noise of the frames [1/255 of sRGB].
        bit_depth: of the frames; None does not quantise.
        long_side_px: larger images are reduced to this before they are photographed.
    """

    planes: tuple[float, ...] | WorkingRange | OraclePlanes
    lens: CameraDefaults = field(default_factory=CameraDefaults)
    psf: PSF = field(default_factory=PSF)
    blur_of: Literal["light", "srgb"] = "light"
    noise_std_lsb: float = 0.0
    bit_depth: Literal[8, 16] | None = 8
    long_side_px: int | None = None

    @property
    def oracle(self) -> bool:
        """Whether the focus planes are taken from the truth."""
        return isinstance(self.planes, OraclePlanes)

    def take(self, scene: Scene, generator: torch.Generator) -> StackSample:
        """A stack of a scene, with its truth.

        Raises:
            InputError: no focus planes follow from the scene, or it cannot be photographed.
        """
        if self.long_side_px is not None:
            scene = scene.resized(self.long_side_px)
        stack = capture(
            scene,
            self.planes if isinstance(self.planes, tuple) else self.planes.distances_m(scene),
            psf=self.psf,
            blur_of=self.blur_of,
            noise_std_lsb=self.noise_std_lsb,
            bit_depth=self.bit_depth,
            generator=generator,
        )
        return StackSample(stack, scene.depth_m, scene.valid, scene.all_in_focus, scene.source)

    def settings(self) -> dict[str, str]:
        """The columns of a table of protocols: focus planes, lens, blur and noise in words."""
        planes = str(self.planes)
        if isinstance(self.planes, tuple):
            planes = ", ".join(f"{distance_m:g}" for distance_m in self.planes) + " m"
        bits = "not quantised" if self.bit_depth is None else f"{self.bit_depth} bit"
        return {
            "focus planes": planes,
            "lens": _lens_text(self.lens),
            "blur": f"{self.psf.family}, of {self.blur_of}",
            "noise": f"{self.noise_std_lsb:g} LSB, {bits}",
        }


def _lens_text(lens: CameraDefaults) -> str:
    parts = [f"f/{lens.f_number:g}"] if lens.f_number is not None else []
    if lens.sensor_width_m is not None:
        parts.append(f"sensor {1000 * lens.sensor_width_m:g} mm wide")
    if lens.aperture_diameter_m is not None:
        parts.append(f"aperture {1000 * lens.aperture_diameter_m:.1f} mm")
    return ", ".join(parts)
