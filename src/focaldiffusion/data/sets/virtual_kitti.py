"""Virtual KITTI 2: five drives, each rendered ten times by two cameras, with exact depth.

Cabon, Murray and Humenberger, 2020, https://europe.naverlabs.com/proxy-virtual-worlds-vkitti-2/.
The archives vkitti_2.0.3_rgb.tar, vkitti_2.0.3_depth.tar and vkitti_2.0.3_textgt.tar.gz all hold
SceneXX/<variation>/...; each is searched in a folder of its name below a root, then in the root
itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from focaldiffusion.config.data import RootKind, Source, Split
from focaldiffusion.data.assembly import SampleFiles
from focaldiffusion.data.rasters import DepthFormat
from focaldiffusion.data.roots import Roots
from focaldiffusion.data.sets.published import check_published, without_frame
from focaldiffusion.errors import InputError
from focaldiffusion.lens import LensFacts
from focaldiffusion.scene import Scene

SCENES: dict[Split, tuple[str, ...]] = {
    "train": ("Scene01", "Scene18", "Scene20"),
    "val": ("Scene06",),
    "test": ("Scene02",),
}
"""Our split by drive, as no official one exists. A drive has all variations of the same views, from
both cameras: 1623, 270 and 233 views, each 20 times. Two short urban drives are held out."""

VARIATIONS = (
    "15-deg-left",
    "15-deg-right",
    "30-deg-left",
    "30-deg-right",
    "clone",
    "fog",
    "morning",
    "overcast",
    "rain",
    "sunset",
)
CAMERAS = ("Camera_0", "Camera_1")

_ARCHIVES = "https://europe.naverlabs.com/proxy-virtual-worlds-vkitti-2/"
_GET = (
    f"Unpack vkitti_2.0.3_rgb.tar and vkitti_2.0.3_depth.tar of {_ARCHIVES} under data_root, or "
    "allow missing samples."
)
_SIZE = (375, 1242)
_METRES = 0.01
_SKY = 65535
# K of intrinsic.txt, the same for every frame: focal length, and the principal point with pixel
# centres at integers.
_K = (725.0087, 620.5, 187.0)
_K_COLUMNS = ("K[0,0]", "K[0,2]", "K[1,2]")


@dataclass(frozen=True)
class _Drive:
    """The files of one camera in one variation of a scene."""

    scene: str
    variation: str
    camera: str
    images: Path
    depths: Path
    intrinsics: Path | None

    def paths(self, frame: int) -> tuple[Path, Path]:
        """Image and depth map of a frame."""
        return self.images / f"rgb_{frame:05d}.jpg", self.depths / f"depth_{frame:05d}.png"

    def frames(self) -> Iterator[tuple[int, Path | None]]:
        """The frames with an image or a depth map, and the missing one of the two.

        In an empty or absent folder, frame 0 is missing.
        """
        present = {*self.images.glob("rgb_*.jpg"), *self.depths.glob("depth_*.png")}
        for frame in sorted({int(path.stem.rpartition("_")[2]) for path in present} or {0}):
            yield frame, next((path for path in self.paths(frame) if path not in present), None)


class VirtualKITTI:
    """The frames of one split, see `SCENES`: every variation, both cameras.

    Depth is planar, in centimetres; 65535, sky and everything beyond 655.34 m, is invalid.
    Published figures use 80 m at most: `depth_bounds: [0.1, 80]`.
    """

    def __init__(self, source: Source) -> None:
        check_published(source, split_from="its scenes", depth_scale=_METRES)
        self.skipped: list[str] = []
        self._defaults = source.options.camera_defaults
        self._depths = DepthFormat(
            _METRES, largest_m=(_SKY - 0.5) * _METRES, bounds_m=source.options.depth_bounds
        )
        self._frames: list[tuple[_Drive, int]] = []
        roots = Roots.of(source.data_root)
        for folders in product(SCENES[source.split], VARIATIONS, CAMERAS):
            drive = _find(roots, *folders)
            for frame, missing in drive.frames():
                if missing is None:
                    self._frames.append((drive, frame))
                else:
                    self.skipped.append(without_frame(source, missing, _GET))

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Scene:
        """Read one frame."""
        drive, frame = self._frames[index]
        image, depth = drive.paths(frame)
        source = f"Virtual KITTI 2 {self.name(index)}"
        focal_length_px, x, y = _intrinsics(drive, frame)
        return SampleFiles(source, depth, self._depths, image, published_size=_SIZE).scene(
            LensFacts(focal_length_px=focal_length_px),
            self._defaults,
            principal_point_px=(x + 0.5, y + 0.5),
        )

    def name(self, index: int) -> str:
        """Scene, variation, camera and frame."""
        drive, frame = self._frames[index]
        return f"{drive.scene}/{drive.variation}/{drive.camera}/{frame:05d}"

    def scene_name(self, index: int) -> str:
        """The scene, in all weathers, directions of view and cameras."""
        return self._frames[index][0].scene


def _find(roots: Roots, scene: str, variation: str, camera: str) -> _Drive:
    """The folders of a drive, existing or expected."""

    def find(kind: RootKind, archive: str, content: str) -> Path:
        inside = f"{scene}/{variation}/{content}"
        below = f"vkitti_2.0.3_{archive}/{inside}"
        return (
            roots.find(below, kind) or roots.find(inside, kind) or roots.candidates(below, kind)[0]
        )

    tables = [find(kind, "textgt", "intrinsic.txt") for kind in roots.folders]
    return _Drive(
        scene,
        variation,
        camera,
        images=find("all_in_focus", "rgb", f"frames/rgb/{camera}"),
        depths=find("depth", "depth", f"frames/depth/{camera}"),
        intrinsics=next((path for path in tables if path.is_file()), None),
    )


def _intrinsics(drive: _Drive, frame: int) -> tuple[float, float, float]:
    """Focal length [px] and principal point (pixel centres at integers) of a frame.

    From `intrinsic.txt`, whose lines are `frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]`; the
    published constants where the archive textgt is not unpacked.
    """
    if drive.intrinsics is None:
        return _K
    header, *lines = (line.split() for line in drive.intrinsics.read_text().splitlines())
    wanted = [str(frame), drive.camera.removeprefix("Camera_")]
    for line in lines:
        if line[:2] == wanted:
            values = dict(zip(header, line, strict=False))
            focal_length_px, x, y = (float(values[column]) for column in _K_COLUMNS)
            return focal_length_px, x, y
    raise InputError(
        f"{drive.intrinsics}: no line for frame {wanted[0]} of camera {wanted[1]}. Unpack "
        f"vkitti_2.0.3_textgt.tar.gz of {_ARCHIVES} again."
    )
