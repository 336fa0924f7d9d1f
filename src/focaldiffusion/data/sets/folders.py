"""Plain folders as data sets: one folder per scene, with fixed file names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from focaldiffusion.config.data import Source
from focaldiffusion.data.roots import Roots
from focaldiffusion.errors import InputError
from focaldiffusion.io.images import natural_key

DEPTH_SUFFIXES = (".npz", ".npy", ".png")


def scene_folders(source: Source) -> dict[str, Path]:
    """The folders below the roots of a source by name, in natural order.

    They are its samples in every split: train and val need separate roots.

    Raises:
        InputError: a missing root, roots per kind of file, a list or a layout, or two folders with
            one name.
    """
    for name, value in (("filelist", source.filelist), ("layout", source.options.layout)):
        if value is not None:
            raise InputError(
                f"{source.name}: {name} does not apply to dataset_type {source.dataset_type}, "
                "whose samples are the folders of data_root. Remove it, or write a list for "
                "dataset_type filelist."
            )
    roots = Roots.of(source.data_root).folders
    if roots.keys() != {"default"}:
        raise InputError(
            f"{source.name}: data_root names folders for {', '.join(roots)}; the files of a scene "
            f"lie together in a {source.dataset_type} folder. Give one folder, or several."
        )
    found: dict[str, Path] = {}
    for root in roots["default"]:
        if not root.is_dir():
            raise InputError(
                f"{root}: no such folder. {source.name} expects it to hold a folder for each "
                "scene. Correct data_root; docs/data.md says where data are to be had."
            )
        for path in sorted(root.iterdir(), key=lambda path: natural_key(path.name)):
            if not path.is_dir() or path.name.startswith("."):
                continue
            if path.name in found:
                raise InputError(
                    f"{path}: {found[path.name]} has the same name. Rename one: reports could not "
                    "tell them apart."
                )
            found[path.name] = path
    return found


def only_file(folder: Path, stem: str, suffixes: Sequence[str]) -> Path | None:
    """The file of a folder with this stem, or None.

    Raises:
        InputError: several such files.
    """
    files = [path for suffix in suffixes if (path := folder / f"{stem}{suffix}").is_file()]
    if len(files) > 1:
        raise InputError(
            f"{files[0]}: {files[1].name} lies beside it. Keep one of them, or move the other."
        )
    return files[0] if files else None
