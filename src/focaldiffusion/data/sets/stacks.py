"""Plain folders of focal stacks with their truth, such as `focaldiffusion simulate` writes.

    ROOT/SCENE/stack/    the frames, with stack.json or EXIF
    ROOT/SCENE/truth/    depth.npz, depth.npy or depth.png; all_in_focus.png, if there is one

or, without an all-in-focus image,

    ROOT/SCENE/          the frames, with stack.json or EXIF, and depth.npz or depth.npy
"""

from __future__ import annotations

from pathlib import Path

from focaldiffusion.config.data import Source
from focaldiffusion.data.dataset import Sample
from focaldiffusion.data.rasters import DepthFormat
from focaldiffusion.data.sets.assembly import SampleFiles
from focaldiffusion.data.sets.files import complete_samples
from focaldiffusion.data.sets.folders import DEPTH_SUFFIXES, only_file, scene_folders
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
    Camera and focus distances come from stack.json or EXIF; `camera_defaults` completes the camera.

    Attributes:
        skipped: see `Dataset`.
    """

    def __init__(self, source: Source) -> None:
        """Find the files.

        Raises:
            InputError: no scenes, an option that does not apply, or a scene without truth.
        """
        self._defaults = source.options.camera_defaults
        self._generate = bool(source.options.generate_focal_stack)
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
        """Read a stack and its truth, or the image to photograph.

        Raises:
            InputError: files that cannot be read, or that do not fit each other.
        """
        frames, files = self._scenes[self._names[index]]
        opened = open_stack(frames)
        if not self._generate:
            return files.stack(opened, LensFacts(), self._defaults)
        return files.scene(opened.lens, self._defaults)

    def name(self, index: int) -> str:
        """The name of the folder."""
        return self._names[index]

    def scene_name(self, index: int) -> str:
        """The name of the folder."""
        return self._names[index]
