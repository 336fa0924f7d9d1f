"""All results of a batch as one Zarr set, for programs: a group for each key."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from focaldiffusion.archive.storage import is_remote
from focaldiffusion.errors import InputError
from focaldiffusion.io.staging import file_errors_named
from focaldiffusion.packages import check_installed
from focaldiffusion.saved import SavedResult

_MARK = "digest"
"""Attribute of a complete group, written last: digest of the row and settings it was made with."""

_ROOT = "zarr.json"
"""File that makes a folder a Zarr group."""


@dataclass(frozen=True)
class ZarrSet:
    """A Zarr group with the results of each key in a group of its own.

    Each group is filled from the files of a result by one worker, so workers and shards need not
    talk. It has the arrays `all_in_focus` (H, W, 3) as in the picture; `depth_m`, `height_m` or
    `depth_relative` (H, W) float32, NaN where unknown; `confidence` (H, W) float32; `source_index`
    (H, W); and the attribute `metadata`, the content of `metadata.json`.

    Attributes:
        place: path of its folder, or a URL that fsspec opens.
    """

    place: str

    def begin(self) -> None:
        """Make the set, unless it is there.

        Raises:
            InputError: zarr is not installed, the place cannot be written, or holds something else.
        """
        check_installed({"zarr": "--zarr"})
        import zarr

        folder = Path(self.place)
        if not is_remote(self.place) and folder.exists():
            if not folder.is_dir():
                raise InputError(f"{folder}: is a file; expected a new folder, or a Zarr set.")
            if not (folder / _ROOT).exists() and any(folder.iterdir()):
                raise InputError(
                    f"{folder}: holds files, but is not a Zarr set. Choose another --zarr."
                )
        with file_errors_named(folder):
            zarr.open_group(self.place, mode="a", zarr_format=3)

    def has(self, key: str, digest: str) -> bool:
        """Whether the group of a key is complete, and of this row and these settings."""
        return key in self._root and self._root[key].attrs.get(_MARK) == digest

    def add(self, key: str, folder: Path, digest: str) -> None:
        """Fill the group of a key from its files.

        Args:
            key: the key.
            folder: its results.
            digest: see `Recipe.digest`.

        Raises:
            InputError: the place cannot be written.
        """
        saved = SavedResult.open(folder)
        arrays: dict[str, Any] = {
            "all_in_focus": saved.pixels,
            "source_index": saved.source_index,
        }
        if saved.depth_field is not None:
            arrays |= {saved.depth_field: saved.depth, "confidence": saved.confidence}
        with file_errors_named(Path(self.place)):
            group = self._root.create_group(key, overwrite=True)
            for name, values in arrays.items():
                group[name] = values
            group.attrs.update({"metadata": saved.metadata, _MARK: digest})

    @cached_property
    def _root(self) -> Any:
        import zarr

        return zarr.open_group(self.place, mode="r+")
