"""The data set of procedural scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from focaldiffusion.config.data import SPLITS, Source
from focaldiffusion.data.cameras import sample_camera
from focaldiffusion.data.procedural.photographs import Photographs
from focaldiffusion.data.procedural.scenes import make_scene
from focaldiffusion.data.rasters import DepthFormat
from focaldiffusion.data.roots import Roots
from focaldiffusion.data.sets.options import check_published
from focaldiffusion.lens import LensFacts
from focaldiffusion.scene import Scene

SCENES = 1_000_000
"""Scenes per split: practically endless, but a data set has a length. `max_samples` limits it."""
_DEFAULT_SIZE = (384, 512)
"""(height, width) where the source names no `image_size`."""

_SEED = 20251


class Procedural:
    """Scenes generated when they are read, at the `image_size` of the source.

    Scene i of a split is the same in every process and in any order. `data_root`, which may be
    empty, is a folder of photographs for textures. `focal_range` is the working range of every
    scene; without it each scene has its own, from macro to street. The lens suits the working
    range, unless `camera_defaults` has an aperture.

    Attributes:
        skipped: always empty.
    """

    skipped: Sequence[str] = ()

    def __init__(self, source: Source) -> None:
        check_published(source, split_from="its seeds", depth_kind="planar", depth_scale=1.0)
        self._source = source
        folders = Roots.of(source.data_root).folders.values()
        self._photographs = Photographs.of([path for kind in folders for path in kind])

    def __len__(self) -> int:
        return SCENES

    def __getitem__(self, index: int) -> Scene:
        """Make a scene.

        Raises:
            InputError: an unreadable photograph, or an incomplete camera.
        """
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
