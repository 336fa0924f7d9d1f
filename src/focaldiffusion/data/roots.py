"""Folders that hold the files of a data set: one, several tried in turn, or one per kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from focaldiffusion.config.data import DataRoot, RootKind
from focaldiffusion.errors import InputError

_LONGEST_NAME = 500  # of a path in a message


@dataclass(frozen=True)
class Roots:
    """The folders of a `data_root`.

    Attributes:
        folders: folders to search in turn, by kind of file; other kinds use `default`.
    """

    folders: dict[RootKind, tuple[Path, ...]]

    @classmethod
    def of(cls, data_root: DataRoot) -> Roots:
        """The folders that a configuration names."""
        by_kind: dict[RootKind, str | list[str]]
        by_kind = data_root if isinstance(data_root, dict) else {"default": data_root}
        return cls(
            {
                kind: tuple(Path(path) for path in ([paths] if isinstance(paths, str) else paths))
                for kind, paths in by_kind.items()
            }
        )

    def candidates(self, relative: str, kind: RootKind = "default") -> list[Path]:
        """Every path at which a file may lie; an absolute path is unchanged."""
        folders = self.folders.get(kind) or self.folders.get("default", ())
        return [folder / relative for folder in folders] or [Path(relative)]

    def find(self, relative: str, kind: RootKind = "default") -> Path | None:
        """The first candidate that exists, a file or a folder, or None."""
        return next((path for path in self.candidates(relative, kind) if _exists(path)), None)

    def need(self, relative: str, kind: RootKind = "default", *, remedy: str) -> Path:
        """The first candidate that exists.

        Args:
            relative: path below the roots.
            kind: which roots.
            remedy: a sentence on where to get the file, which ends the message.

        Raises:
            InputError: no candidate exists; names all of them.
        """
        found = self.find(relative, kind)
        if found is None:
            places = " or ".join(map(str, self.candidates(relative, kind)))
            if not places.isprintable() or len(places) > _LONGEST_NAME:
                places = ascii(places[:_LONGEST_NAME])
            raise InputError(f"{places}: no such file or folder. {remedy}")
        return found


def _exists(path: Path) -> bool:
    """Whether a path exists; one that no file system allows does not."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, a NUL, not Unicode, or in a closed folder
        return False
