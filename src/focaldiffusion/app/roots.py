"""The folders of this machine whose stacks the page may open; nothing outside is ever read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from focaldiffusion.app.errors import AppError
from focaldiffusion.errors import InputError, printable
from focaldiffusion.files import is_folder
from focaldiffusion.io.file_names import IMAGE_SUFFIXES


@dataclass(frozen=True)
class Root:
    """A folder that was given at the start, without links in its path."""

    id: str
    path: Path

    @property
    def name(self) -> str:
        """Its last part, or the whole path of a root folder."""
        return printable(self.path.name or str(self.path))


class Roots:
    """The folders that were given at the start."""

    def __init__(self, folders: list[Path]) -> None:
        """Check the folders.

        Raises:
            InputError: one is absent, or not a folder.
        """
        for folder in folders:
            if not is_folder(folder):
                raise InputError(f"{folder}: not a folder. Give folders that hold stacks.")
        paths = dict.fromkeys(folder.resolve() for folder in folders)
        self.all = [Root(str(number), path) for number, path in enumerate(paths)]

    def folder(self, root: str, relative: str) -> Path:
        """The folder of a path below a root.

        Raises:
            AppError: unknown root; or not a folder, or outside, also by way of a link.
        """
        home = next((one.path for one in self.all if one.id == root), None)
        if home is None:
            raise AppError(404, f"there is no root {root!r}. Reload the page.")
        inside = _inside(home / relative, home) if "\0" not in relative else None
        if inside is None:
            raise AppError(
                403,
                f"{relative}: lies outside the folders that were given at the start, so it is not "
                "read. Start `focaldiffusion app` with that folder to open it.",
            )
        if not is_folder(inside):
            raise AppError(404, f"{relative}: no such folder.")
        return inside

    def listing(self, root: str, relative: str) -> dict[str, Any]:
        """The folders inside a folder, and the number of its images, hidden ones left out.

        Raises:
            AppError: see `folder`; or the folder may not be read.
        """

        folder = self.folder(root, relative)
        home = next(one.path for one in self.all if one.id == root)
        folders, images = [], 0
        try:
            for entry in os.scandir(folder):
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink() and _inside(Path(entry.path), home) is None:
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                    images += 1
        except OSError as error:
            raise AppError(403, f"{relative}: cannot be listed ({error.strerror}).") from None
        path = "" if folder == home else folder.relative_to(home).as_posix()
        return {"path": path, "folders": sorted(folders, key=str.casefold), "images": images}


def _inside(path: Path, home: Path) -> Path | None:
    """The path without links; None if it leaves the folder."""
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError):  # a circle of links
        return None
    return resolved if resolved.is_relative_to(home) else None


def check_inside(paths: list[Path], home: Path) -> None:
    """Refuse files that lie outside a folder, also by way of a link.

    Raises:
        InputError: names the first.
    """
    for path in paths:
        if os.path.lexists(path) and _inside(path, home) is None:
            raise InputError(
                f"{path.name}: leads outside the folder that may be read. Copy the file there."
            )
