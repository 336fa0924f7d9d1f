"""The example stacks of the repository, where the package runs from a checkout of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import focaldiffusion
from focaldiffusion.app.errors import AppError
from focaldiffusion.io.file_names import IMAGE_SUFFIXES


@dataclass(frozen=True)
class Examples:
    """Example stacks by their id, each a folder of frames."""

    folders: dict[str, Path]

    @classmethod
    def of_checkout(cls) -> Examples:
        """The examples beside the source code; none for an installed package."""
        home = Path(focaldiffusion.__file__).resolve().parents[2] / "examples"
        return cls({path.parent.name: path for path in sorted(home.glob("*/stack"))})

    def listed(self) -> list[dict[str, Any]]:
        """The examples for the page."""
        return [
            {
                "id": name,
                "name": name.replace("_", " ").capitalize(),
                "frames": len(_frames(folder)),
                "thumbnail": f"/api/examples/{name}/thumbnail",
            }
            for name, folder in self.folders.items()
        ]

    def find(self, name: str) -> tuple[str, Path]:
        """Name and folder of an example.

        Raises:
            AppError: there is none.
        """
        if name not in self.folders:
            raise AppError(404, f"there is no example {name!r}.")
        return name, self.folders[name]

    def picture(self, name: str) -> Path:
        """A frame from the middle of an example.

        Raises:
            AppError: there is no such example.
        """
        frames = _frames(self.find(name)[1])
        return frames[len(frames) // 2]


def _frames(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
