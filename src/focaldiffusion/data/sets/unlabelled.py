"""Plain folders of focal stacks without truth, to adapt a model to a camera.

    ROOT/SCENE/          the frames, with stack.json or EXIF

or, as in a folder of `stacks`, ROOT/SCENE/stack/; files beside it are not read.
"""

from __future__ import annotations

from focaldiffusion.config.data import Source
from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.rasters import DepthFormat
from focaldiffusion.data.sets.assembly import SampleFiles
from focaldiffusion.data.sets.folders import scene_folders
from focaldiffusion.errors import InputError
from focaldiffusion.io.simulated import STACK
from focaldiffusion.io.stacks import open_stack
from focaldiffusion.lens import LensFacts


class Unlabelled:
    """The stacks below `data_root`, each folder a scene; a sample has no truth.

    Camera and focus distances come from stack.json or EXIF, completed by `camera_defaults`.

    Attributes:
        skipped: always empty.
    """

    def __init__(self, source: Source) -> None:
        """Find the folders.

        Raises:
            InputError: no scenes, an option that does not apply, or another split than train.
        """
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
        self._names = list(folders)
        self._frames = [
            folder / STACK if (folder / STACK).is_dir() else folder for folder in folders.values()
        ]
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> StackSample:
        """Read a stack.

        Raises:
            InputError: frames that cannot be read, or that do not fit each other.
        """
        frames = self._frames[index]
        files = SampleFiles(str(frames), None, DepthFormat())
        return files.stack(open_stack(frames), LensFacts(), self._defaults)

    def name(self, index: int) -> str:
        """The name of the folder."""
        return self._names[index]

    def scene_name(self, index: int) -> str:
        """The name of the folder, as in `stacks`."""
        return self._names[index]
