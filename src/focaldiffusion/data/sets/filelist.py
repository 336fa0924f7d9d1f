"""Samples that a file list names one by one; data/filelists/README.md explains the lists."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import numpy as np

from focaldiffusion.config.data import DatasetOptions, RootKind, Source
from focaldiffusion.data.assembly import SampleFiles
from focaldiffusion.data.dataset import Sample
from focaldiffusion.data.lists.entry import Entry
from focaldiffusion.data.lists.formats import read_list
from focaldiffusion.data.rasters import DepthFormat
from focaldiffusion.data.roots import Roots
from focaldiffusion.errors import InputError
from focaldiffusion.io.images import natural_key
from focaldiffusion.io.stacks import OpenedStack, open_stack


@dataclass(frozen=True)
class _Item:
    """A sample whose files exist."""

    entry: Entry
    name: str
    files: SampleFiles
    frames: Path | None
    """None for a stack to simulate."""
    focus_distances_m: tuple[float, ...] | None
    """Focus of each frame, of the list or of the configuration; None leaves it to the simulator, or
    to the files of the frames."""


class FileList:
    """The samples of `source.filelist`, with paths relative to `data.data_root`.

    An entry overrides the configuration. Conflicts are errors.

    Attributes:
        skipped: see `Dataset`.
        notices: a sentence for each field name of the original in the list, and for each value that
            overrides another one of the configuration.
    """

    def __init__(self, source: Source) -> None:
        if source.filelist is None:
            raise InputError(
                f"{source.name}: no list of the {source.split} samples. Give "
                f"data.{source.split}_filelist, or filelist in the source."
            )
        if source.options.layout is not None:
            raise InputError(f"{source.name}: layout does not apply to a file list; remove it.")
        listing = read_list(Path(source.filelist))
        self._defaults = source.options.camera_defaults
        self.notices = list(listing.notices)
        self.skipped: list[str] = []
        self._items: list[_Item] = []
        roots, names = Roots.of(source.data_root), set[str]()
        for entry, place in zip(listing.entries, listing.places, strict=True):
            simulated = entry.simulated(source.options.generate_focal_stack, place)
            name = _name(entry, simulated, place, names)
            try:
                depth, image, frames = _paths(entry, simulated, roots, place)
            except InputError as error:
                if not source.allow_missing:
                    raise
                self.skipped.append(str(error))
                continue
            scale = source.options.depth_scale
            if scale is not None and entry.depth_scale not in (None, scale):
                self.notices.append(
                    f"{place}: its depth_scale {entry.depth_scale:g} overrides "
                    f"data.dataset_kwargs.depth_scale {scale:g}."
                )
            form = _depth_format(entry, source.options)
            form.check(depth, place)
            files = SampleFiles(
                f"{place} ({name})",
                depth,
                form,
                image,
                entry.depth_dataset,
                entry.depth_orientation,
                entry.image_orientation,
            )
            shared_m = _shared_m(entry, source, place)
            focus_m = entry.focus_distances_m or shared_m
            if simulated and focus_m is None:
                focus_m = _even_m(entry, source.focal_range)
            self._items.append(_Item(entry, name, files, frames, focus_m))
        if not self._items:
            raise InputError(
                f"{source.filelist}: the files of all {len(self.skipped)} samples are missing. "
                f"{self.skipped[0]}"
            )

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        """Read an image to photograph, or a stack that was photographed or rendered before."""
        item, defaults = self._items[index], self._defaults
        if item.frames is None:
            return replace(
                item.files.scene(item.entry.camera.facts(), defaults),
                focus_distances_m=item.focus_distances_m,
                focal_range_m=item.entry.focal_range if item.focus_distances_m is None else None,
            )
        opened = _opened(item, item.frames)
        return item.files.stack(opened, item.entry.camera.facts(), defaults)

    def name(self, index: int) -> str:
        """The listed name, or the listed path of the image or the frames."""
        return self._items[index].name

    def scene_name(self, index: int) -> str:
        """The listed scene, or the first folder of the listed path.

        A path without folders, or an absolute one, counts as a scene by itself.
        """
        item = self._items[index]
        if item.entry.scene is not None:
            return item.entry.scene
        path = PurePosixPath(_main(item.entry, item.frames is None))
        return path.parts[0] if path.parts and not path.is_absolute() else str(path)


def _name(entry: Entry, simulated: bool, place: str, taken: set[str]) -> str:
    """A unique name for an entry, which is added to `taken`."""
    name = entry.name or _main(entry, simulated)
    if name in taken:
        if entry.name is not None:
            raise InputError(
                f"{place}: another sample is called {name} too. Give it a name of its own."
            )
        name = f"{name} (line {place.rpartition(':')[2]})"
    taken.add(name)
    return name


def _main(entry: Entry, simulated: bool) -> str:
    """The listed path of the image or of the frames."""
    path = entry.all_in_focus if simulated else entry.focal_stack
    assert path is not None
    return path


def _paths(
    entry: Entry, simulated: bool, roots: Roots, place: str
) -> tuple[Path, Path | None, Path | None]:
    """The depth map, the image and, unless the stack is simulated, the frames of an entry."""

    def found(relative: str | None, kind: RootKind) -> Path | None:
        remedy = (
            f"{place} lists it. Correct data.data_root or the list; data/filelists/README.md says "
            "where the data sets are to be had."
        )
        return None if relative is None else roots.need(relative, kind, remedy=remedy)

    image = found(entry.all_in_focus, "all_in_focus")
    frames = None if simulated else found(entry.focal_stack, "focal_stack")
    depth = found(entry.depth, "depth")
    assert depth is not None
    return depth, image, frames


def _depth_format(entry: Entry, options: DatasetOptions) -> DepthFormat:
    """Format of an entry's depth map."""
    given = {
        "scale_m": entry.depth_scale,
        "shift_m": entry.depth_shift,
        "kind": entry.depth_kind,
        "bounds_m": entry.depth_bounds,
    }
    return replace(
        DepthFormat.of(options),
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
    )


def _shared_m(entry: Entry, source: Source, place: str) -> tuple[float, ...] | None:
    """Focus that an entry shares with all stacks of its source.

    Raises:
        InputError: the entry contradicts it.
    """
    shared_m = source.options.focus_distances_m
    if shared_m is None or entry.focus_distances_m is not None:
        return None
    fault = None
    if entry.focal_range is not None:
        fault = "focal_range is given"
    elif entry.num_images not in (None, len(shared_m)):
        fault = f"num_images is {entry.num_images}"
    if fault is not None:
        raise InputError(
            f"{place}: {fault}, but {source.name} has {len(shared_m)} focus distances for every "
            "stack (dataset_kwargs.focus_distances_m). Give one of the two, or the entry its own "
            "focus_distances_m."
        )
    return shared_m


def _even_m(entry: Entry, focal_range_m: tuple[float, float] | None) -> tuple[float, ...] | None:
    """Focus of a number of frames, even in dioptres over the range of the entry or source.

    None leaves it to the simulator.
    """
    span_m = entry.focal_range or focal_range_m
    if entry.num_images is None or span_m is None:
        return None
    near_dpt, far_dpt = 1 / span_m[0], 1 / span_m[1]
    return tuple((1 / np.linspace(near_dpt, far_dpt, entry.num_images)).tolist())


def _opened(item: _Item, frames: Path) -> OpenedStack:
    """The frames of an item, with focus distances from it, stack.json or EXIF."""
    entry, source = item.entry, item.files.source
    chosen: Path | list[Path] = frames
    if entry.image_glob is not None:
        found = frames.iterdir() if frames.is_dir() else ()
        chosen = [path for path in found if fnmatchcase(path.name, entry.image_glob)]
        chosen.sort(key=lambda path: natural_key(path.name))
        if not chosen:
            raise InputError(f"{source}: no file in {frames} matches {entry.image_glob}.")
    try:
        opened = open_stack(chosen, focus_distances_m=item.focus_distances_m)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    if entry.num_images not in (None, len(opened)):
        raise InputError(
            f"{source}: {len(opened)} frames in {frames}, but num_images is {entry.num_images}. "
            "Correct the number, or choose the frames with image_glob."
        )
    return opened
