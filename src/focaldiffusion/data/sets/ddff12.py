"""DDFF 12-Scene: stacks refocused from Lytro light fields, with depth of an RGB-D sensor.

Hazirbas et al., Deep Depth From Focus, 2018, https://hazirbas.com/datasets/ddff12scene/, CC BY 4.0,
as packed by DFV (Yang et al., 2022, https://github.com/fuy34/DFV) so that no scene is in two
splits; in the official train and validation arrays some are.

    my_ddff_trainVal.h5
        stack_train (400, 10, 383, 552, 3)        0 to 255, RGB, stored as float32
        disp_train  (400, 383, 552)               disparity [px], 0 in holes
        AiF_train   (400, 383, 552, 3)            one sub-aperture image; "not used in our work"
        stack_val, disp_val, AiF_val              200 of each

From data_preprocess and dataloader of that repository: arrays, order, units; 100 stacks of each
scene follow each other, train being socialcorner, studentlab, seminaroom and kitchen (in an order
that is not recorded), val glassroom and office41. Frames are means of 9x9 sub-aperture images,
each shifted by a disparity; ten of these are evenly spaced between those of 0.5 m and 7 m,
0.2825 and 0.0202 px (DFV writes 0.28 and 0.02). d = b F / z with F = 521.4052 px and
b = 1982.025 / 7317.021 mm: refocus.py of https://github.com/hazirbas/ddff-toolbox, numbers of its
IntParamLF.mat as printed in https://github.com/albert100121/AiFDepthNet (test.py).

The aperture is not published but follows: a point k px out of focus becomes 9x9 points k px apart,
whose variance is that of a disc of diameter k sqrt(16 (9² - 1) / 12) = 10.3 k, so A = 10.3 b =
2.80 mm. The aperture of a sub-aperture image itself is left out. Means were taken of encoded
pixels, so blur is not linear in light, unlike everywhere else here.

Never run on the real file. Not confirmed: whether it has the AiF arrays (they are optional here),
the encoding (taken as sRGB). In that code AiF is the view next to the centre in both directions,
so it is offset from the frames by up to 0.3 px.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from focaldiffusion.config.data import Source
from focaldiffusion.data.assembly import sample_camera
from focaldiffusion.data.dataset import Sample, StackSample
from focaldiffusion.data.rasters import DepthFormat
from focaldiffusion.data.roots import Roots
from focaldiffusion.data.sets.published import check_published
from focaldiffusion.errors import InputError
from focaldiffusion.io.hdf5 import Hdf5File, open_hdf5
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import srgb_to_linear
from focaldiffusion.scene import Scene
from focaldiffusion.stack import FocalStack

_FILE = "my_ddff_trainVal.h5"
_FOCAL_LENGTH_PX = 521.4052
_PRINCIPAL_POINT_PX = (285.11, 187.83)  # of the paper, arXiv 1704.01085
_BASELINE_M = 1e-3 * 1982.0250823695178 / 7317.020641763665
_VIEWS = 9
_APERTURE_DIAMETER_M = _BASELINE_M * (16 * (_VIEWS**2 - 1) / 12) ** 0.5
_FRAMES = 10
_NEAREST_M, _FARTHEST_M = 0.5, 7.0
_STACKS_PER_SCENE = 100
_REMEDY = (
    f"Download {_FILE} (DFV's pre-processed data, linked in the README of "
    "https://github.com/fuy34/DFV) into data_root."
)

DISPARITY_PX_M = _BASELINE_M * _FOCAL_LENGTH_PX
"""b F: disparity [px] = this / depth [m]. Published figures are errors of disparity."""


def focus_distances_m() -> Tensor:
    """Focus distances of the ten frames [m], near to far, evenly spaced in disparity."""
    disparities_px = np.linspace(
        DISPARITY_PX_M / _NEAREST_M, DISPARITY_PX_M / _FARTHEST_M, num=_FRAMES
    )
    return torch.from_numpy((DISPARITY_PX_M / disparities_px).astype(np.float32))


class DDFF12:
    """The stacks of train or val; the depth of test is kept by the authors' server.

    Stacks have all ten frames, near to far; published figures use frames 0, 2, 4, 6 and 9. With
    `generate_focal_stack` the sub-aperture image and the depth are a `Scene`, to be photographed
    with the aperture of `camera_defaults`.
    """

    def __init__(self, source: Source) -> None:
        check_published(source, split_from="its files", splits=("train", "val"), has_stacks=True)
        self.skipped: list[str] = []
        self._options = source.options
        self._split = source.split
        self._path = Roots.of(source.data_root).need(_FILE, remedy=_REMEDY)
        self._stack, self._disparity, self._sharp = (
            f"{content}_{self._split}" for content in ("stack", "disp", "AiF")
        )
        with open_hdf5(self._path, _REMEDY) as file:
            stacks = file.shape(self._stack)
            if len(stacks) != 5 or stacks[1] != _FRAMES or stacks[4] != 3:
                raise InputError(
                    f"{self._path}: {self._stack} is {stacks}; expected stacks of {_FRAMES} RGB "
                    f"frames. {_REMEDY}"
                )
            self._length = stacks[0]
            size = stacks[2:4]
            self._has_sharp = self._sharp in file.names()
            sharp = self._has_sharp or source.options.generate_focal_stack
            expected: dict[str, tuple[int, ...]] = {self._disparity: (self._length, *size)}
            if sharp:
                expected[self._sharp] = (self._length, *size, 3)
            for name, wanted in expected.items():
                if (shape := file.shape(name)) != wanted:
                    raise InputError(
                        f"{self._path}: {name} is {shape}, but {self._stack} is {stacks}; "
                        f"expected one map for each stack. {_REMEDY}"
                    )

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        """Read one stack."""
        source = f"DDFF-12 {self.name(index)}"
        simulated = bool(self._options.generate_focal_stack)
        with open_hdf5(self._path, _REMEDY) as file:
            disparity_px = torch.from_numpy(file.read(self._disparity, index).astype(np.float32))
            frames = None if simulated else self._light(file, self._stack, index)
            all_in_focus = self._light(file, self._sharp, index) if self._has_sharp else None
        depth_m = DISPARITY_PX_M / disparity_px
        depth_m = depth_m.masked_fill(~((depth_m > 0) & depth_m.isfinite()), torch.nan)
        depth_m = DepthFormat(bounds_m=self._options.depth_bounds).planar(depth_m, None, source)
        valid = ~depth_m.isnan()
        camera = sample_camera(
            (depth_m.shape[0], depth_m.shape[1]),
            LensFacts(
                focal_length_px=_FOCAL_LENGTH_PX,
                aperture_diameter_m=None if simulated else _APERTURE_DIAMETER_M,
            ),
            self._options.camera_defaults,
            source=source,
            principal_point_px=_PRINCIPAL_POINT_PX,
        )
        if frames is None:
            assert all_in_focus is not None
            return Scene(all_in_focus, depth_m, valid, camera, source)
        stack = FocalStack(frames, camera, focus_distances_m())
        return StackSample(stack, depth_m, valid, all_in_focus, source)

    def name(self, index: int) -> str:
        """Split and index in its arrays."""
        return f"{self._split}/{index:03d}"

    def scene_name(self, index: int) -> str:
        """Split and number of the scene; the file has no names."""
        return f"{self._split}/scene_{index // _STACKS_PER_SCENE}"

    def _light(self, file: Hdf5File, name: str, index: int) -> Tensor:
        """Pixels (..., H, W, 3) from 0 to 255 as linear light (..., 3, H, W)."""
        pixels = file.read(name, index).astype(np.float32)
        if not (pixels.min() >= 0 and pixels.max() <= 255):  # NaN fails both
            raise InputError(
                f"{self._path}: {name}, item {index}, holds {pixels.min():g} to "
                f"{pixels.max():g}; expected 0 to 255. {_REMEDY}"
            )
        return srgb_to_linear(torch.from_numpy(pixels) / 255).movedim(-1, -3).contiguous()
