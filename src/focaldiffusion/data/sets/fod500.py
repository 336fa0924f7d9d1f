"""FoD500: rendered stacks of floating objects, the data of DefocusNet (Maximov et al., 2020).

500 samples of 5 frames, 256x256, focused at 0.1, 0.15, 0.3, 0.7 and 1.5 m with a lens of 2.9 mm and
f/1. Linked from https://github.com/dvl-tum/defocus-net.

    fs_6/000000_01All.tif ... 000000_05All.tif    8-bit RGB, near to far
    fs_6/000000Dpt.exr                            metres, half float, three equal channels R, G, B

From the README and source/util_func.py of that repository: the lens, the distances, the
beginning (six digits) and the end (All.tif, Dpt.exr) of names, five frames of each number in the
order of their names, depth in channel R in metres (clipped there at 3 m), 400 training samples.
From https://github.com/fuy34/DFV (dataloader/FoD500.py): numbers below 400 are train.

Never run on real files. Not confirmed: the text between the number and All.tif (any is read), the
encoding (taken as sRGB), that depth is planar (Blender's own is), how empty background is marked
(values that are not finite or not positive are holes). The sensor is not published: later code has
3.1 mm or 36 mm. So the focal length in pixels is unknown, and with it the camera, unless
`camera_defaults` has sensor_width_m, pixel_pitch_m or focal_length_px.
"""

from __future__ import annotations

import re
from collections import defaultdict

import torch

from focaldiffusion.config.data import Source
from focaldiffusion.data.assembly import sample_camera
from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.rasters import DepthFormat
from focaldiffusion.data.roots import Roots
from focaldiffusion.data.sets.published import check_published, complete_samples, light_on_grid
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import Camera
from focaldiffusion.stack import FocalStack

_FOCUS_DISTANCES_M = (0.1, 0.15, 0.3, 0.7, 1.5)
_FOCAL_LENGTH_M, _F_NUMBER = 2.9e-3, 1.0
_TRAIN_SAMPLES = 400
_NAME = re.compile(r"(?P<sample>\d{6}).*(?:All\.tif|Dpt\.exr)")
_REMEDY = (
    "Unpack the data set that https://github.com/dvl-tum/defocus-net links and make data_root the "
    "folder that holds 000000Dpt.exr."
)


class FoD500:
    """The first 400 samples as train, the others as val or as test.

    Each sample is a separate scene, without an all-in-focus image.
    """

    def __init__(self, source: Source) -> None:
        check_published(source, split_from="its files", has_stacks=True, has_all_in_focus=False)
        self._options = source.options
        self._folder = Roots.of(source.data_root).need(".", remedy=_REMEDY)
        files: dict[str, list[str]] = defaultdict(list)
        for name in sorted(path.name for path in self._folder.iterdir()):
            match = _NAME.fullmatch(name)
            if match and (int(match["sample"]) < _TRAIN_SAMPLES) == (source.split == "train"):
                files[match["sample"]].append(name)
        faults = {sample: self._fault(sample, names) for sample, names in files.items()}
        self._samples, self.skipped = complete_samples(source, faults, self._folder, _REMEDY)
        self._frames = {
            sample: tuple(name for name in files[sample] if name.endswith(".tif"))
            for sample in self._samples
        }

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> StackSample:
        """Read one sample."""
        sample = self._samples[index]
        source = f"FoD500 {sample}"
        depths = DepthFormat(1.0, bounds_m=self._options.depth_bounds)
        depth_m = depths.planar(depths.read(self._folder / f"{sample}Dpt.exr"), None, source)
        size = (depth_m.shape[0], depth_m.shape[1])
        frames = torch.stack(
            [light_on_grid(self._folder / name, size) for name in self._frames[sample]]
        )
        stack = FocalStack(frames, self._camera(size, source), torch.tensor(_FOCUS_DISTANCES_M))
        return StackSample(stack, depth_m, ~depth_m.isnan(), None, source)

    def name(self, index: int) -> str:
        """The six digits that start its file names."""
        return self._samples[index]

    def scene_name(self, index: int) -> str:
        """The sample."""
        return self._samples[index]

    def _fault(self, sample: str, names: list[str]) -> str | None:
        """A sentence on what a sample lacks, or None."""
        frames = sum(name.endswith(".tif") for name in names)
        if frames != len(_FOCUS_DISTANCES_M):
            pattern = self._folder / f"{sample}*All.tif"
            return f"{pattern}: {frames} files; expected {len(_FOCUS_DISTANCES_M)}."
        depth = f"{sample}Dpt.exr"
        return None if depth in names else f"{self._folder / depth}: no such file."

    def _camera(self, size: tuple[int, int], source: str) -> Camera | None:
        """The published lens on the configured sensor; None without one."""
        defaults = self._options.camera_defaults
        if defaults.focal_length_px is not None:
            lens = LensFacts(aperture_diameter_m=_FOCAL_LENGTH_M / _F_NUMBER)
        elif defaults.sensor_width_m is not None or defaults.pixel_pitch_m is not None:
            lens = LensFacts(focal_length_m=_FOCAL_LENGTH_M, f_number=_F_NUMBER)
        else:
            return None
        return sample_camera(size, lens, defaults, source=source)
