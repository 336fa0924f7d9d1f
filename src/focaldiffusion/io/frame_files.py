"""The files of a stack: which they are, in which order, and their pixels as native frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.errors import InputError
from focaldiffusion.files import ABSENT, check_file, is_folder, why_not_file
from focaldiffusion.frames import Pixels, rounded
from focaldiffusion.io.decoding import extended
from focaldiffusion.io.facts import (
    FROM_SIDECAR,
    Focus,
    written_focus,
)
from focaldiffusion.io.file_names import IMAGE_SUFFIXES, SIDECAR_NAME
from focaldiffusion.io.frame_order import (
    by_name,
)
from focaldiffusion.io.images import (
    is_tiff,
    probe_image,
    read_alpha,
    read_image,
    read_pixels,
)
from focaldiffusion.io.mixed import beside, mixed
from focaldiffusion.io.sidecar import Sidecar, read_sidecar
from focaldiffusion.io.tiff import TiffStack, is_ome_set, probe_tiff, read_tiff, read_tiff_alpha


@dataclass
class FileFrames:
    """A FrameSource of files: one a frame, or the same TIFF for all, with the pages of each."""

    files: tuple[Path, ...]
    names: tuple[str, ...]
    size: tuple[int, int]
    bit_depth: int
    is_grey: bool
    orientation: int
    pages: tuple[tuple[int, ...], ...] = ()
    declared_white: float | None = None
    has_alpha: bool = False
    findings: tuple[str, ...] = ()

    _alpha: tuple[int, NDArray[np.float32] | None] | None = None  # of the frame read last

    def alpha(self, index: int) -> NDArray[np.float32] | None:
        """See `TransparentFrames.alpha`."""
        if not self.has_alpha:
            return None
        if self._alpha is None or self._alpha[0] != index:
            path, orientation = self.files[index], self.orientation
            if self.pages:
                alpha = read_tiff_alpha(path, self.pages[index], orientation=orientation)
            else:
                alpha = read_alpha(path, orientation=orientation)
            self._alpha = index, alpha
        return self._alpha[1]

    def read(self, index: int) -> NDArray[np.float32]:
        """See `FrameSource.read`; transparent pixels take the colour of the nearest opaque one."""
        path, orientation = self.files[index], self.orientation
        if self.pages:
            image = read_tiff(path, self.pages[index], orientation=orientation)
        else:
            image = read_image(path, orientation=orientation)
        alpha = self.alpha(index)
        return image if alpha is None else extended(image, alpha)

    def pixels(self, index: int) -> Pixels:
        """See `IntegerFrames.pixels`; transparent pixels as in `read`."""
        if self.pages:
            return rounded(self.read(index))
        image = read_pixels(self.files[index], orientation=self.orientation)
        alpha = self.alpha(index)
        return image if alpha is None else extended(image, alpha)


@dataclass(frozen=True)
class Found:
    """The files of a stack in order, whether a list gives it, and the `stack.json` beside them."""

    name: str
    files: tuple[Path, ...]
    sidecar: Sidecar | None = None
    sidecar_path: Path | None = None
    findings: tuple[str, ...] = ()
    is_listed: bool = False

    def focus(self, frame_count: int) -> Focus | None:
        """The focus settings of `stack.json`."""
        if self.sidecar is None:
            return None
        return written_focus(
            self.sidecar.focus_distances_m,
            self.sidecar.focus_positions_m,
            frame_count,
            FROM_SIDECAR,
            str(self.sidecar_path),
        )


def find_frames(source: str | Path | Sequence[str | Path]) -> Found:
    """Find the files of a stack and its `stack.json`."""
    if not isinstance(source, (str, Path)):
        listed = isinstance(source, (list, tuple))
        if not listed or not all(isinstance(one, (str, Path)) for one in source):
            raise InputError(
                f"stack: got {type(source).__name__}; expected a folder, a multi-page TIFF, or a "
                "list of files or of arrays in the order of the frames, such as "
                "sorted(folder.glob('*.png'))."
            )
        return _find_listed(tuple(Path(one) for one in source))
    if source == "":
        raise InputError("stack: the path is empty; expected a folder, or a multi-page TIFF.")
    path = Path(source)
    if is_folder(path):
        sidecar = read_sidecar(path)
        is_listed = sidecar is not None and sidecar.files is not None
        files = _files_of(path, sidecar)
        findings = () if is_listed else beside(path, files)
        return Found(_name(path), files, sidecar, path / SIDECAR_NAME, findings, is_listed)
    if not is_tiff(path):
        raise InputError(
            f"{path}: one file, but not a multi-page TIFF. Give the folder that holds the frames."
        )
    sidecar = read_sidecar(path.parent)
    if sidecar is not None and sidecar.files is not None and sidecar.files != [path.name]:
        sidecar = None  # it describes another stack of the same folder
    name = path.stem.removesuffix(".ome")  # of .ome.tif
    return Found(name, (path,), sidecar, path.parent / SIDECAR_NAME)


def _name(folder: Path) -> str:
    """Name of the stack in a folder; a folder called `stack` takes its parent's name."""
    resolved = folder.resolve()  # a path such as "." has no name of its own
    return resolved.parent.name if resolved.name == "stack" else resolved.name


def _find_listed(files: tuple[Path, ...]) -> Found:
    """Files in the order given; a `stack.json` beside them is matched by file name."""
    if len(files) == 1:
        return find_frames(files[0])
    if not files:
        raise InputError("no files given; expected the frames of a stack.")
    if (again := _repeated(files)) is not None:
        first, second = again
        other = "" if files[first] == files[second] else f", also as {files[second]}"
        raise InputError(f"{files[first]}: listed more than once{other}. List each frame once.")
    folder = files[0].parent
    together = all(path.parent == folder for path in files)
    sidecar = read_sidecar(folder) if together else None
    found = Found(_name(folder), files, sidecar, folder / SIDECAR_NAME, is_listed=True)
    if sidecar is None:
        return found
    key = "focus_positions_m" if sidecar.focus_distances_m is None else "focus_distances_m"
    values = getattr(sidecar, key)
    if values is None:
        return found
    described = [path.name for path in _files_of(folder, sidecar)]
    # Count before choosing, so that a list of the wrong length is not cut to fit.
    found.focus(len(described))
    by_name = dict(zip(described, values, strict=True))
    for path in files:
        if path.name not in by_name:
            raise InputError(
                f"{path}: not among the files whose focus {found.sidecar_path} gives. Add it "
                "there, or leave it out."
            )
    chosen = [by_name[path.name] for path in files]
    return replace(found, sidecar=sidecar.model_copy(update={key: chosen}))


def _repeated(files: Sequence[Path]) -> tuple[int, int] | None:
    """Indices of the first file that is listed twice, under any name; None without one.

    Raises:
        InputError: one is not a regular file.
    """
    seen: dict[object, int] = {}
    for index, path in enumerate(files):
        check_file(path)
        status = path.stat()
        # Some network file systems number no files.
        identity = (status.st_dev, status.st_ino) if status.st_ino else path.resolve()
        if (before := seen.setdefault(identity, index)) != index:
            return before, index
    return None


def _files_of(folder: Path, sidecar: Sidecar | None) -> tuple[Path, ...]:
    """The frames of a folder: as `stack.json` lists them, else its images in natural order."""
    if sidecar is not None and sidecar.files is not None:
        return _listed_in(folder / SIDECAR_NAME, sidecar.files)
    files = _images_in(folder)
    files = [files[index] for index in by_name([path.name for path in files])]
    if not files:
        raise InputError(
            f"{folder}: no images. Expected the frames of a stack, as JPEG, PNG, TIFF, HEIC or "
            f"camera RAW.{''.join(f' Found {one}' for one in beside(folder, ()))}"
        )
    by_stem: dict[str, Path] = {}
    for path in files:
        other = by_stem.setdefault(path.stem.casefold(), path)
        if other.suffix.lower() != path.suffix.lower():
            raise InputError(
                f"{folder}: holds {other.name} and {path.name}, the same frame twice. Move one "
                f"kind away, or list the frames under files in {SIDECAR_NAME}."
            )
    return tuple(files)


def _open_tiff(files: tuple[Path, ...]) -> TiffStack | None:
    """The layout of a multi-page TIFF, or of a set of OME-TIFFs that refer to each other."""
    if not is_tiff(files[0]) or (len(files) > 1 and not is_ome_set(files[0])):
        return None
    tiff = probe_tiff(files[0])
    if len(files) == 1:
        return tiff
    members = [path.resolve() for path in tiff.files]
    given = [path.resolve() for path in files]
    strays = [path.name for path in given if path not in members]
    if strays:
        raise InputError(
            f"{files[0].parent / strays[0]}: is not of the OME-TIFF set of {files[0].name}. Move "
            "one of them away."
        )
    kept = [index for index, path in enumerate(members) if path in given]
    return tiff.chosen(kept)


def _listed_in(sidecar_path: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """The frames that a `stack.json` lists."""
    if not names:
        raise InputError(f"{sidecar_path}: files is empty. List the frames, or leave the key out.")
    listed = tuple(sidecar_path.parent / name for name in names)
    for name, path in zip(names, listed, strict=True):
        if wrong := why_not_file(path):
            wrong = wrong.replace(ABSENT, "is absent")
            raise InputError(f"{sidecar_path}: files lists {name!r}, which {wrong}.")
    again = _repeated(listed)
    if again is not None:
        first, second = (names[index] for index in again)
        other = "" if first == second else f" Its other name there is {second!r}."
        raise InputError(f"{sidecar_path}: files lists {first!r} more than once.{other}")
    return listed


def _images_in(folder: Path) -> list[Path]:
    """The images of a folder, hidden ones left out; refuses what only has an image's name."""
    try:
        paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}).") from None
    images = [
        path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and not is_folder(path)
    ]
    for path in images:
        try:
            check_file(path)
        except InputError as error:
            raise InputError(
                f"{error} Its name is an image's: move it away, or list the frames under files in "
                f"{SIDECAR_NAME}."
            ) from None
    return images


def open_frames(found: Found) -> tuple[FileFrames, TiffStack | None]:
    """Check the headers of all frames; their source, and the layout of a multi-page TIFF."""
    files, names = found.files, tuple(path.name for path in found.files)
    tiff = _open_tiff(files)
    if tiff is not None:
        files = tiff.files
        names = tuple(
            f"{file.name} page {index}" if len(set(files)) == 1 else file.name
            for index, file in enumerate(files, start=1)
        )
    if len(files) < 2:
        raise InputError(
            f"{files[0]}: the only frame; a focal stack needs at least 2, focused at "
            "different distances. For the depth of a single photograph use a monocular model, "
            "such as Depth Pro."
        )
    headers = [probe_image(path) for path in files] if tiff is None else [tiff.header] * len(files)
    whites = [header.white for header in headers]
    orientation = headers[0].orientation
    sizes = [header.size(orientation) for header in headers]
    size = Counter(sizes).most_common(1)[0][0]  # the first of equally frequent ones
    others = [index for index, one in enumerate(sizes) if one != size]
    if others:
        (height, width), usual = sizes[others[0]], files[sizes.index(size)].name
        more = f" and {len(others) - 1} more of other sizes" if len(others) > 1 else ""
        raise InputError(
            f"{files[others[0]]}: {width}x{height}{more}, but the other frames, such as {usual}, "
            f"are {size[1]}x{size[0]}. All frames need one size; crop them, or leave this one out."
        )
    frames = FileFrames(
        files=files,
        names=names,
        size=size,
        bit_depth=max(header.bit_depth for header in headers),
        is_grey=all(header.is_grey for header in headers),
        orientation=orientation,
        pages=() if tiff is None else tiff.pages,
        declared_white=None if None in whites else max(one for one in whites if one is not None),
        has_alpha=any(header.has_alpha for header in headers),
        findings=mixed(names, headers),
    )
    return frames, tiff
