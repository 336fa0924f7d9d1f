"""Uploads: files of a stack, streamed to the disk while they arrive."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from focaldiffusion.app.errors import AppError
from focaldiffusion.app.limits import Limits
from focaldiffusion.errors import printable
from focaldiffusion.io.file_names import IMAGE_SUFFIXES, SIDECAR_NAME

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MOST_DRAINED = 8 * 2**30
_LONGEST_NAME = 200  # bytes; file systems take 255
_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_KEPT_FREE = 2**30
"""Bytes of the disk that uploads leave free."""


async def receive(request: Request, folder: Path, limits: Limits) -> tuple[str, list[str]]:
    """Write the files of a multipart request into a folder.

    Once a file is refused nothing more is written, but the rest is still read: a browser shows
    the answer only after it has sent all.

    Args:
        request: `multipart/form-data`, files in fields of any name.
        folder: an existing empty folder.
        limits: of the files.

    Returns:
        Name of the stack, and sentences about files that were left out.

    Raises:
        AppError: not multipart, or beyond a limit.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise AppError(415, "expected files as multipart/form-data, or a JSON object.")
    files = _Files(folder, limits)
    refusal = files.too_long(request.headers.get("content-length", ""))
    parser = MultipartParser(options[b"boundary"], files.callbacks())
    drained = 0
    async for chunk in request.stream():
        if refusal is None:
            try:
                parser.write(chunk)
            except AppError as error:
                refusal = error
            except FormParserError as error:
                refusal = AppError(400, f"the upload is damaged ({error}). Try again.")
            except OSError as error:
                refusal = AppError(507, f"the upload cannot be written ({error.strerror}).")
            continue
        drained += len(chunk)
        if drained > _MOST_DRAINED:
            break
    files.close()
    if refusal is not None:
        raise refusal
    if not files.is_complete:
        raise AppError(400, "the upload is incomplete. Try again.")
    return files.stack_name(), files.notes


class _Files:
    """The files of one upload, as a multipart parser finds them."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.notes: list[str] = []
        self.is_complete = False
        self._folder, self._limits = folder, limits
        self._names: set[str] = set()
        self._folders: set[str] = set()
        self._stems: list[str] = []
        self._others = 0
        self._total = 0
        self._file: BinaryIO | None = None
        self._bytes = 0
        self._name = ""
        self._header = b""
        self._value = b""
        self._room = shutil.disk_usage(folder).free - _KEPT_FREE

    def callbacks(self) -> MultipartCallbacks:
        """The callbacks of a `MultipartParser`."""
        return {
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_part_data": self._on_part_data,
            "on_part_end": self.close,
            "on_end": self._on_end,
        }

    def too_long(self, declared: str) -> AppError | None:
        """The refusal of a request whose declared length is beyond the limit."""
        length = int(declared) if declared.isascii() and declared.isdecimal() else 0
        if length > self._limits.total_bytes:
            return self._too_much()
        if length > self._room:
            return AppError(
                507,
                f"the upload has {_size(length)}, but the disk of the work folder has "
                f"{_size(max(0, self._room))} to spare. Open the folder where it is instead.",
            )
        return None

    def stack_name(self) -> str:
        """The name of the folder that was dropped, or what the names of the files share."""
        if not self._stems:
            left = f" Left out: {self.notes[0]}" if self.notes else ""
            raise AppError(422, f"there is no photograph among the files.{left}")
        if len(self._folders) == 1 and "" not in self._folders:
            return self._folders.pop()
        if len(self._stems) == 1:
            return self._stems[0]
        shared = os.path.commonprefix(self._stems)  # noqa: RUF071 - of texts, not paths
        common = shared.rstrip("0123456789 _-.")
        return common or f"{len(self._stems)} frames"

    def close(self) -> None:
        """Close the current file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _on_end(self) -> None:
        self.is_complete = True

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        header, value = self._header.lower(), self._value
        self._header = self._value = b""
        if header != b"content-disposition":
            return
        _, options = parse_options_header(value)
        if b"filename" in options:
            self._begin(options[b"filename"].decode("utf-8", "replace"))

    def _begin(self, given: str) -> None:
        """Begin a file, or leave it out unless it is a photograph."""
        path = PurePosixPath(given.replace("\\", "/"))
        name, shown = path.name, printable(path.name)
        if name.startswith(".") or not name or "\0" in name:
            return
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES and name != SIDECAR_NAME:
            self._others += 1
            if self._others <= 3:
                self.notes.append(f"{shown}: is no photograph by its suffix, so it was left out.")
            return
        if len(name.encode()) > _LONGEST_NAME:
            raise AppError(422, f"{shown[:80]}...: the name is too long. Rename the file.")
        if name.casefold() in self._names:
            raise AppError(
                422,
                f"{shown}: two files have this name. Give the frames of one stack different names.",
            )
        if len(self._names) == self._limits.files:
            raise AppError(
                413,
                f"more than {self._limits.files} files, the most that a stack may have. Choose the "
                "frames of one stack.",
            )
        self._names.add(name.casefold())
        self._folders.add(path.parent.name)
        if name != SIDECAR_NAME:
            self._stems.append(path.stem)
        self._name, self._bytes = shown, 0
        self._file = (self._folder / name).open("xb")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is None:
            return
        self._bytes += end - start
        self._total += end - start
        if self._bytes > self._limits.file_bytes:
            raise AppError(
                413,
                f"{self._name}: has more than {_size(self._limits.file_bytes)}; no frame may be "
                "larger. Open the folder where it is instead, or reduce the file.",
            )
        if self._total > self._limits.total_bytes:
            raise self._too_much()
        self._file.write(data[start:end])

    def _too_much(self) -> AppError:
        return AppError(
            413,
            f"the files have more than {_size(self._limits.total_bytes)} together. Open the folder "
            "where it is instead.",
        )


def _size(count: int) -> str:
    unit, name = next(((u, n) for u, n in _UNITS if count >= u), _UNITS[-1])
    return f"{count / unit:.3g} {name}"
