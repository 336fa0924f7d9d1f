"""Plain folders of focal stacks: with truth, as `focaldiffusion simulate` writes, or without.

    ROOT/SCENE/stack/    the frames, with stack.json or EXIF
    ROOT/SCENE/truth/    depth.npz, depth.npy or depth.png; all_in_focus.png, if there is one

or, without an all-in-focus image,

    ROOT/SCENE/          the frames, with stack.json or EXIF, and depth.npz or depth.npy
"""

from __future__ import annotations

from pathlib import Path

from focaldiffusion.config.data import Source
from focaldiffusion.data.assembly import SampleFiles
from focaldiffusion.data.dataset import Sample, StackSample
from focaldiffusion.data.rasters import DepthFormat
from focaldiffusion.data.sets.folders import DEPTH_SUFFIXES, only_file, scene_folders
from focaldiffusion.data.sets.published import complete_samples
from focaldiffusion.errors import InputError
from focaldiffusion.io.simulated import STACK, TRUTH, TRUTH_IMAGE
from focaldiffusion.io.stacks import open_stack
from focaldiffusion.lens import LensFacts

_ARRANGEMENT = (
    "Expected SCENE/stack with the frames and SCENE/truth with depth.npz, as `focaldiffusion "
    "simulate` writes them, or the frames and depth.npz in SCENE itself."
)


class Stacks:
    """The scenes below `data_root`, all of them in every split; each folder is a scene.

    A sample is a `StackSample`; with `generate_focal_stack` a `Scene` of the image in `truth`.
    Camera and focus distances come from stack.json or EXIF. `camera_defaults` completes the camera;
    `focus_distances_m` replaces the distances.
    """

    def __init__(self, source: Source) -> None:
        self._defaults = source.options.camera_defaults
        self._generate = bool(source.options.generate_focal_stack)
        self._focus_m = source.options.focus_distances_m
        form = DepthFormat.of(source.options)
        self._scenes: dict[str, tuple[Path, SampleFiles]] = {}
        faults: dict[str, str | None] = {}
        for name, folder in scene_folders(source).items():
            apart = (folder / STACK).is_dir()
            truth = folder / TRUTH if apart else folder
            # Beside the frames a depth.png would be one of them.
            depth = only_file(truth, "depth", DEPTH_SUFFIXES if apart else DEPTH_SUFFIXES[:2])
            image = truth / TRUTH_IMAGE if apart and (truth / TRUTH_IMAGE).is_file() else None
            if depth is None:
                faults[name] = f"{truth / 'depth.npz'}: no such file."
            elif image is None and self._generate:
                faults[name] = f"{truth / TRUTH_IMAGE}: no such file, to generate stacks from."
            else:
                faults[name] = None
                form.check(depth, source.name)
                frames = folder / STACK if apart else folder
                self._scenes[name] = (frames, SampleFiles(str(frames), depth, form, image))
        self._names, self.skipped = complete_samples(
            source, faults, Path(str(source.data_root)), _ARRANGEMENT
        )

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        """Read a stack and its truth, or the image to photograph."""
        frames, files = self._scenes[self._names[index]]
        if self._generate:
            return files.scene(open_stack(frames).lens, self._defaults)
        opened = open_stack(frames, focus_distances_m=self._focus_m)
        return files.stack(opened, LensFacts(), self._defaults)

    def name(self, index: int) -> str:
        """The name of the folder."""
        return self._names[index]

    def scene_name(self, index: int) -> str:
        """The name of the folder."""
        return self._names[index]


class Unlabelled:
    """The stacks below `data_root`, each folder a scene; a sample has no truth.

    Folders are arranged as for `Stacks`; files other than the frames are not read.
    Camera and focus distances come from stack.json or EXIF. `camera_defaults` completes the camera;
    `focus_distances_m` replaces the distances.
    """

    def __init__(self, source: Source) -> None:
        if source.split != "train":
            raise InputError(
                f"{source.name}: dataset_type unlabelled has no truth to compare with in "
                f"{source.split}. Name it in data.train_sources, and for {source.split} a data set "
                "with depth, or none."
            )
        folders = scene_folders(source)
        if not folders:
            raise InputError(
                f"{source.data_root}: no folder in this folder. Expected one for each stack, with "
                "its frames and their focus distances."
            )
        self._defaults = source.options.camera_defaults
        self._focus_m = source.options.focus_distances_m
        self._names = list(folders)
        self._frames = [
            folder / STACK if (folder / STACK).is_dir() else folder for folder in folders.values()
        ]
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> StackSample:
        """Read a stack."""
        frames = self._frames[index]
        files = SampleFiles(str(frames), None, DepthFormat())
        opened = open_stack(frames, focus_distances_m=self._focus_m)
        return files.stack(opened, LensFacts(), self._defaults)

    def name(self, index: int) -> str:
        """The name of the folder."""
        return self._names[index]

    def scene_name(self, index: int) -> str:
        """The name of the folder, as in `stacks`."""
        return self._names[index]
