"""Arrays of HDF5 files: checked for kind, type and size before they are read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.errors import InputError
from focaldiffusion.io.budget import check_pixels, check_values
from focaldiffusion.io.reading import reading


class Hdf5File:
    """An HDF5 file that is open for reading; every error names it."""

    def __init__(self, path: Path, file: Any, remedy: str, fault: str) -> None:
        self._path, self._file, self._remedy, self._fault = path, file, remedy, fault

    def names(self) -> list[str]:
        """Names at the root of the file, of arrays and of groups."""
        with self._reading():
            return list(self._file)

    def arrays(self) -> list[str]:
        """Names of the arrays at the root of the file."""
        import h5py

        with self._reading():
            # Asked of each link: one that leads nowhere is not an array.
            return [name for name in self._file if isinstance(self._file.get(name), h5py.Dataset)]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array, without reading it.

        Raises:
            InputError: no such array, or none of real numbers.
        """
        shape, kind = self._header(name)
        if kind not in "fiu":
            raise InputError(
                f"{self._path}: {name} holds no real numbers; expected integers or floats. "
                f"{self._remedy}"
            )
        return shape

    def read(self, name: str, item: int | None = None) -> NDArray[Any]:
        """An array, or one item along its first axis.

        Raises:
            InputError: no such array or item, none of real numbers, or one beyond the budget.
        """
        shape = self.shape(name)
        if item is not None:
            if not shape or item >= shape[0]:
                raise InputError(
                    f"{self._path}: {name} has no item {item}; its shape is {shape}. {self._remedy}"
                )
            shape = shape[1:]
        if len(shape) == 2:
            check_pixels(self._path, *shape, name)
        check_values(self._path, shape, name)
        with self._reading():
            found = self._file[name]
            # HDF5 fills parts that were never written with zeros.
            chunks = found.chunks and math.prod(
                -(-length // chunk) for length, chunk in zip(found.shape, found.chunks, strict=True)
            )
            if found.id.get_storage_size() == 0 or (chunks and found.id.get_num_chunks() < chunks):
                raise ValueError(f"parts of {name} are missing")
            array = np.asarray(found[() if item is None else item])
            return array.astype(array.dtype.newbyteorder("="), copy=False)  # torch needs it

    def shape_of_references(self, name: str) -> tuple[int, ...]:
        """Shape of an array of references, which lead to other arrays.

        Raises:
            InputError: no such array.
        """
        return self._header(name)[0]

    def text(self, name: str, item: Sequence[int]) -> str:
        """The text that an item of an array of references leads to, as MATLAB 7.3 stores it.

        Raises:
            InputError: no such array or item, or one that leads to no text.
        """
        with self._reading():
            target = self._file[self._file[name][tuple(item)]]
            check_values(self._path, target.shape, name)
            return "".join(map(chr, target[()].ravel()))

    def _reading(self) -> AbstractContextManager[None]:
        return reading(self._path, self._fault, self._remedy)

    def _header(self, name: str) -> tuple[tuple[int, ...], str]:
        import h5py

        with self._reading():
            if name not in self._file:
                present = ", ".join(self._file) or "nothing"
                raise InputError(f"{self._path}: holds {present}; expected {name}. {self._remedy}")
            found = self._file[name]
            if not isinstance(found, h5py.Dataset) or found.shape is None:
                raise InputError(f"{self._path}: {name} is not an array of numbers. {self._remedy}")
            return tuple(found.shape), found.dtype.kind


@contextmanager
def open_hdf5(path: Path, remedy: str, fault: str = "cannot be read as HDF5") -> Iterator[Hdf5File]:
    """Open an HDF5 file.

    Args:
        path: the file.
        remedy: a sentence that ends error messages.
        fault: see `reading`.

    Raises:
        InputError: missing, or not HDF5.
    """
    import h5py

    with reading(path, fault, remedy):
        file = h5py.File(path, "r")
    try:
        yield Hdf5File(path, file, remedy, fault)
    finally:
        file.close()
