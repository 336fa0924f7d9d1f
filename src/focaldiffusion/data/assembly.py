"""From the files of one sample to a scene, or to a stack with its truth; its camera."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from focaldiffusion.config.data import CameraDefaults
from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.rasters import DepthFormat, Turn, as_light, check_size, read_light
from focaldiffusion.errors import InputError
from focaldiffusion.io.depth_files import read_values
from focaldiffusion.io.images import read_image
from focaldiffusion.io.stacks import OpenedStack
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import Camera
from focaldiffusion.scene import Scene
from focaldiffusion.stack import FocalStack

_WHERE = "with the sample or in data.dataset_kwargs.camera_defaults"


def sample_camera(
    image_size: tuple[int, int],
    given: LensFacts,
    defaults: CameraDefaults,
    *,
    source: str,
    principal_point_px: tuple[float, float] | None = None,
) -> Camera:
    """The camera of one sample, with an aperture, focused at infinity as after alignment.

    A data set that knows its focal length in pixels needs the pitch, or the sensor's width, only
    to make an aperture of an f-number.

    Args:
        image_size: (height, width) on disk [px].
        given: the lens as the sample or its data set has it.
        defaults: `data.dataset_kwargs.camera_defaults`.
        source: what messages call the sample.
        principal_point_px: (x, y), the image centre when not given.

    Raises:
        InputError: the values do not make a camera; names what is missing.
    """
    lens = given.over(defaults.facts())
    camera = lens.camera(image_size, principal_point_px=principal_point_px)
    if camera is None:
        raise InputError(
            f"{source}: the focal length in pixels is unknown. Give focal_length_px, or "
            f"focal_length_m with pixel_pitch_m or sensor_width_m, {_WHERE}."
        )
    if camera.aperture_diameter_m is None:
        needs = "f_number"
        if "focal_length_m" in lens.missing():
            needs = "f_number and sensor_width_m (or the pitch)"
        raise InputError(
            f"{source}: the aperture is unknown. Give aperture_diameter_m, or {needs}, {_WHERE}."
        )
    return camera


@dataclass(frozen=True)
class SampleFiles:
    """The depth map of a sample and its image, with their turns and units.

    Attributes:
        source: name of the sample in messages.
        depth: the depth map; None for a stack without truth.
        depth_format: units and kind of the depth map.
        image: sharp everywhere; None where there is none.
        depth_dataset: name of the array in an HDF5 depth map.
        depth_turns: how the depth map is turned.
        image_turns: how the image and the frames are turned.
        masks: maps of the size of the depth map, 0 where the depth is unknown.
        published_size: (height, width) of the image, to which published intrinsics belong; None
            where they follow the image.
    """

    source: str
    depth: Path | None
    depth_format: DepthFormat
    image: Path | None = None
    depth_dataset: str | None = None
    depth_turns: tuple[Turn, ...] = ()
    image_turns: tuple[Turn, ...] = ()
    masks: tuple[Path, ...] = ()
    published_size: tuple[int, int] | None = None

    def scene(
        self,
        given: LensFacts,
        defaults: CameraDefaults,
        *,
        principal_point_px: tuple[float, float] | None = None,
    ) -> Scene:
        """Read the image and its depth.

        Args:
            given: known values of the sample's camera, at the size of the turned image.
            defaults: `camera_defaults`.
            principal_point_px: (x, y), the image centre when not given.

        Raises:
            InputError: files that cannot be read or do not fit each other, or too little known of
                the camera.
        """
        assert self.image is not None
        image = read_light(self.image, self.image_turns)
        size = (image.shape[-2], image.shape[-1])
        if self.published_size is not None and size != self.published_size:
            height, width = self.published_size
            raise InputError(
                f"{self.image}: {size[1]}x{size[0]}; expected {width}x{height} as published, which "
                "the intrinsics belong to. image_size resizes samples."
            )
        camera = sample_camera(
            size, given, defaults, source=self.source, principal_point_px=principal_point_px
        )
        depth_m = self._depth_m(camera, size, self.image)
        return Scene(image, depth_m, ~depth_m.isnan(), camera, self.source)

    def stack(self, opened: OpenedStack, given: LensFacts, defaults: CameraDefaults) -> StackSample:
        """Read the frames, their depth and the image, if there is one.

        The given camera overrides that of stack.json or EXIF, which overrides the defaults. The
        camera is None if all of them are empty, or the files incomplete.

        Raises:
            InputError: files that cannot be read or do not fit each other, or a camera that is
                given in part.
        """
        images = torch.stack(
            [as_light(opened.frames.read(index), self.image_turns) for index in range(len(opened))]
        )
        size = (images.shape[-2], images.shape[-1])
        camera = self._stack_camera(opened, size, given, defaults)
        stack = FocalStack(
            images,
            camera,
            focus_distances_m=_values(opened.focus_distances_m),
            focus_positions_m=_values(opened.focus_positions_m),
            step=opened.levels.step,
        )
        first = opened.files[0]
        if self.depth is None:
            unknown = torch.full(size, torch.nan)
            return StackSample(stack, unknown, ~unknown.isnan(), None, self.source, has_truth=False)
        depth_m = self._depth_m(camera, size, first)
        image = None
        if self.image is not None:
            encoded = read_image(self.image)
            if encoded.max() <= opened.levels.white:  # else it fills its range already
                encoded = opened.levels.normalised(encoded)
            image = as_light(encoded, self.image_turns)
            check_size(self.image, image, size, first)
        return StackSample(stack, depth_m, ~depth_m.isnan(), image, self.source)

    def _stack_camera(
        self,
        opened: OpenedStack,
        size: tuple[int, int],
        given: LensFacts,
        defaults: CameraDefaults,
    ) -> Camera | None:
        if not given.over(defaults.facts()).values():
            return opened.lens.camera(size)
        return sample_camera(size, given.over(opened.lens), defaults, source=self.source)

    def _depth_m(self, camera: Camera | None, size: tuple[int, int], other: Path) -> Tensor:
        """(H, W) planar, NaN where unknown; its size is checked against that of another file."""
        assert self.depth is not None
        depth_m = self.depth_format.read(
            self.depth, dataset=self.depth_dataset, turns=self.depth_turns
        )
        check_size(self.depth, depth_m, size, other)
        for path in self.masks:
            mask = read_values(path)
            check_size(path, mask, size, other)
            depth_m = depth_m.masked_fill(mask == 0, torch.nan)
        return self.depth_format.planar(depth_m, camera, self.source)


def _values(values_m: tuple[float, ...] | None) -> Tensor | None:
    return None if values_m is None else torch.tensor(values_m)
