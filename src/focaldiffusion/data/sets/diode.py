"""DIODE: photographs with dense laser depth, indoors and outdoors.

Vasiljevic et al., 2019, https://diode-dataset.org.

    val/indoors/scene_00019/scan_00183/00019_00183_indoors_300_010.png
                                       00019_00183_indoors_300_010_depth.npy
                                       00019_00183_indoors_300_010_depth_mask.npy

From the devkit, https://github.com/diode-dataset/diode-devkit: names, sizes (1024 x 768), the mask
(1 where valid), metres, and the focal lengths 886.81 and 927.06 px, whose geometric mean is used
here. Those are disputed: its issue 20 fits 42.3° x 32.4°, 1323 px, to right angles in the scans,
and has no answer. Not confirmed, never run on real files: the dtype of the mask, and whether
depth is planar. Readers take it as planar and so does this one, unless `depth_kind` says `ray`.
"""

from __future__ import annotations

import math
from pathlib import Path

from focaldiffusion.config.data import Source
from focaldiffusion.data.assembly import SampleFiles
from focaldiffusion.data.rasters import DepthFormat
from focaldiffusion.data.roots import Roots
from focaldiffusion.data.sets.published import check_published, samples_with_files
from focaldiffusion.lens import LensFacts
from focaldiffusion.scene import Scene

_GET = (
    "Unpack train.tar.gz and val.tar.gz of https://diode-dataset.org and let data_root be the "
    "folder that holds train and val."
)
_TYPES = ("indoors", "outdoor")
_SIZE = (768, 1024)
_FOCAL_LENGTH_PX = math.sqrt(886.81 * 927.06)


class DIODE:
    """The images of a split; `layout: indoors` or `outdoor` reads one type only.

    train reads the folder train; val and test both read val, since no test set was published.
    Depth reaches 350 m outdoors.
    """

    def __init__(self, source: Source) -> None:
        kind = source.options.depth_kind or "planar"
        check_published(source, split_from="its folders", depth_kind=kind, layouts=_TYPES)
        self._defaults = source.options.camera_defaults
        self._depths = DepthFormat(1.0, kind=kind, bounds_m=source.options.depth_bounds)
        split = "train" if source.split == "train" else "val"
        self._folder = Roots.of(source.data_root).need(split, remedy=_GET)
        layout = source.options.layout
        names = sorted(
            path.relative_to(self._folder).with_suffix("").as_posix()
            for part in ((layout,) if layout else _TYPES)
            for path in self._folder.glob(f"{part}/scene_*/scan_*/*.png")
        )
        self._names, self.skipped = samples_with_files(
            source, names, self._files, self._folder, _GET
        )

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Scene:
        """Read one scene."""
        image, depth, mask = self._files(self._names[index])
        files = SampleFiles(
            str(image), depth, self._depths, image, masks=(mask,), published_size=_SIZE
        )
        return files.scene(LensFacts(focal_length_px=_FOCAL_LENGTH_PX), self._defaults)

    def name(self, index: int) -> str:
        """Path without suffix below the folder of the split."""
        return self._names[index]

    def scene_name(self, index: int) -> str:
        """The place, such as indoors/scene_00019, which was scanned from several points."""
        return "/".join(self._names[index].split("/")[:2])

    def _files(self, name: str) -> tuple[Path, Path, Path]:
        """Image, depth and mask."""
        stem = self._folder / name
        return (
            stem.with_name(f"{stem.name}.png"),
            stem.with_name(f"{stem.name}_depth.npy"),
            stem.with_name(f"{stem.name}_depth_mask.npy"),
        )
