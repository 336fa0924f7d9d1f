"""Procedural scenes, an endless supply of pictures with exact depth, each made from its seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from focaldiffusion.config.data import SPLITS, Source
from focaldiffusion.data.assembly import sample_camera
from focaldiffusion.data.procedural.backdrops import set_backdrop
from focaldiffusion.data.procedural.props import set_props
from focaldiffusion.data.procedural.rays import Rays
from focaldiffusion.data.procedural.rendering import Lighting, picture
from focaldiffusion.data.procedural.studio import DrawPhotograph, Studio, View
from focaldiffusion.data.procedural.textures import Photographs
from focaldiffusion.data.procedural.vectors import Vector3, floats, log_uniform, unit
from focaldiffusion.data.rasters import DepthFormat
from focaldiffusion.data.roots import Roots
from focaldiffusion.data.sets.published import check_published
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import Camera
from focaldiffusion.scene import Scene

SCENES = 1_000_000
"""Scenes per split: practically endless, but a data set has a length. `max_samples` limits it."""
_DEFAULT_SIZE = (384, 512)
"""(height, width) where the source names no `image_size`."""
_SEED = 20251
WORKING_RANGE_M = (0.1, 50.0)
"""Limits of the working ranges [m]."""
CONTENT = (1 / 1.3, 2.0)
"""Nearest and farthest depth of anything, in units of the ends of the working range."""
_FOCAL_LENGTH_WIDTHS = (0.7, 2.5)
"""Focal length in image widths: fields of view from 71 to 23 degrees."""
BLUR_PX_AT_512 = (4.0, 60.0)
"""Blur diameter at one end of the working range when focused at the other, at 512 px width."""
_STENCIL_SHARE = 0.25
"""Share of scenes lit as through a window or foliage: edges without an edge in depth."""
_SWEPT_TO_THE_END = 0.5
"""Share of scenes whose sweep ends on the backdrop: many photographers turn the ring until the
background is sharp. In the others it lies at any distance beyond."""
LARGEST_APERTURE = 0.125
"""Largest aperture diameter, in units of the near end of the working range, as of macro lenses. A
wider one would see around objects, which a single view cannot show."""


class Procedural:
    """Scenes generated when they are read, at the `image_size` of the source.

    Scene i of a split is the same in every process and in any order. `data_root`, which may be
    empty, is a folder of photographs for textures. `focal_range` is the working range of every
    scene; without it each scene has its own, from macro to street. The lens suits the working
    range, unless `camera_defaults` has an aperture.
    """

    skipped: Sequence[str] = ()

    def __init__(self, source: Source) -> None:
        check_published(source, split_from="its seeds")
        self._source = source
        folders = Roots.of(source.data_root).folders.values()
        self._photographs = Photographs.of([path for kind in folders for path in kind])

    def __len__(self) -> int:
        return SCENES

    def __getitem__(self, index: int) -> Scene:
        """Make a scene."""
        source, options = self._source, self._source.options
        scene = make_scene(
            (_SEED, SPLITS.index(source.split), index),
            source.image_size or _DEFAULT_SIZE,
            working_range_m=source.focal_range,
            draw_photograph=self._photographs,
        )
        defaults = options.camera_defaults
        own_aperture = defaults.f_number is None and defaults.aperture_diameter_m is None
        given = LensFacts(
            focal_length_px=scene.camera.focal_length_px,
            aperture_diameter_m=scene.camera.aperture_diameter_m if own_aperture else None,
        )
        name = f"procedural {self.name(index)}"
        camera = sample_camera(scene.size, given, defaults, source=name)
        within = DepthFormat(bounds_m=options.depth_bounds)
        depth_m = within.planar(scene.depth_m, camera, name)
        return replace(
            scene, depth_m=depth_m, valid=~torch.isnan(depth_m), camera=camera, source=name
        )

    def name(self, index: int) -> str:
        """The split and the number of the scene."""
        return f"{self._source.split} {index}"

    def scene_name(self, index: int) -> str:
        """The sample itself, which is a separate scene: no two splits share a seed."""
        return self.name(index)


def make_scene(
    seed: int | Sequence[int],
    image_size: tuple[int, int],
    *,
    working_range_m: tuple[float, float] | None = None,
    draw_photograph: DrawPhotograph | None = None,
    device: torch.device | str = "cpu",
) -> Scene:
    """A scene with exact depth, the same for the same arguments.

    The working range is chosen before the scene is set up. Content may lie nearer and, in half of
    the scenes, farther, or fill only a part of it, so it reveals no more of the truth than a
    photographer's guess.

    Args:
        seed: numbers >= 0 that identify the scene.
        image_size: (height, width) [px].
        working_range_m: (near, far) to sweep [m]; random within `WORKING_RANGE_M` by default.
        draw_photograph: draws some of the textures.
        device: where to compute; all random numbers are drawn on the CPU.

    Returns:
        A scene with the depth of the ray through each pixel's centre, valid everywhere.
    """
    rng = np.random.default_rng(seed)
    height, width = image_size
    near_m, far_m = working_range_m or _working_range_m(rng)
    sweep_dpt = 1 / near_m - 1 / far_m
    focal_length_px = width * log_uniform(rng, *_FOCAL_LENGTH_WIDTHS)
    blur_px = log_uniform(rng, *BLUR_PX_AT_512) * width / 512
    aperture_m = min(blur_px / (sweep_dpt * focal_length_px), LARGEST_APERTURE * near_m)
    camera = Camera(focal_length_px, aperture_m, image_size)
    beyond_dpt = 0.0 if rng.random() < _SWEPT_TO_THE_END else log_uniform(rng, 0.02, 1) * sweep_dpt
    view = View(
        half_width=width / (2 * focal_length_px),
        half_height=height / (2 * focal_length_px),
        pixel=1 / focal_length_px,
        near_dpt=1 / near_m,
        far_dpt=1 / far_m,
        nearest_dpt=min(1 / near_m + 0.3 * sweep_dpt, 1 / (CONTENT[0] * near_m)),
        farthest_dpt=max(1 / far_m - beyond_dpt, 1 / (CONTENT[1] * far_m)),
    )
    device = torch.device(device)
    with torch.inference_mode():
        studio = Studio(rng, view, draw_photograph, device)
        set_backdrop(studio)
        set_props(studio)
        rays = Rays.of_image(image_size, view.pixel, device)
        light, depth_m = picture(studio.bodies, rays, _lighting(studio))
        image = _exposed(rng, light)
    return Scene(
        image.clone(),  # outside inference mode, so that gradients are possible
        depth_m.clone(),
        torch.ones(image_size, dtype=torch.bool, device=device),
        camera,
        source=f"procedural scene {seed}",
        focal_range_m=(near_m, far_m),
    )


def _working_range_m(rng: np.random.Generator) -> tuple[float, float]:
    """A working range from macro, which is shallow, to street."""
    nearest, farthest = WORKING_RANGE_M
    near = log_uniform(rng, nearest, 5.0)
    shallowest, deepest = (1.25, 4.0) if near < 0.25 else (1.5, 16.0)
    return near, min(near * log_uniform(rng, shallowest, deepest), farthest)


def _lighting(studio: Studio) -> Lighting:
    rng, view = studio.rng, studio.view
    x, y, z = floats(rng.standard_normal(3))
    lamp_position = rng.uniform(0, 1.1)
    lamp = studio.at(rng.uniform(-1.2, 1.2), rng.uniform(-1.5, 0.3), view.dioptres(lamp_position))
    ambient, main = log_uniform(rng, 0.1, 0.7), log_uniform(rng, 0.1, 2)
    near = log_uniform(rng, 0.1, 1) if rng.random() < 0.5 else 0.0
    a, b, c = studio.ground_dpt or (0.0, 1.0, 0.0)
    return Lighting(
        # From above and from the camera's side, so that visible surfaces are lit.
        towards=unit((x, -abs(y) - 0.3, -abs(z) - 0.2)),
        colour=_tinted(rng, main),
        ambient=_tinted(rng, ambient),
        up=unit((-a, -b, -c)),
        softness=log_uniform(rng, 0.05, 1.0),
        lamp_m=lamp,
        lamp_colour=_tinted(rng, near),
        lamp_reach_m=lamp[2] * view.half_width,
        corner_m=rng.uniform(0, 0.5) * view.half_width / view.dioptres(1.0),
        stencil=studio.new_outline().outline if rng.random() < _STENCIL_SHARE else None,
        stencil_m=studio.size_m(1 / view.dioptres(1.0), 0.2, 1.5),
    )


def _tinted(rng: np.random.Generator, strength: float) -> Vector3:
    """Colour of light, from bluish to yellowish."""
    warmth = rng.normal(0, 0.12)
    return strength * math.exp(warmth), strength, strength * math.exp(-warmth)


def _exposed(rng: np.random.Generator, light: Tensor) -> Tensor:
    """Light at a random exposure: dark, well exposed, or with blown highlights."""
    few = light.amax(0).flatten()[::17]
    middle, bright = torch.quantile(few, few.new_tensor([0.5, 0.95])).clamp_min(1e-6)
    gain = torch.minimum(log_uniform(rng, 0.12, 2.0) / bright, 0.8 / middle)
    return (light * gain).clamp(0, 1)
