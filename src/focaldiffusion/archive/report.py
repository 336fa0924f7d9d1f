"""`report.csv`: a line for each row of a batch, appended when the row ends."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Literal, get_args

from focaldiffusion.archive.storage import Storage
from focaldiffusion.errors import InputError, printable
from focaldiffusion.io.staging import claimed, file_errors_named

Status = Literal["done", "failed"]

_TRACEBACKS = "tracebacks.txt"
_SECONDS_BETWEEN_UPLOADS = 30


@dataclass(frozen=True)
class Line:
    """The outcome of a row.

    Attributes:
        key: key of the row.
        status: done or failed.
        error: reason for failure, in one sentence.
        frames: number of frames in the result.
        size: width and height of the result, such as 6000x4000 [px].
        grade: knowledge of the camera.
        mean_confidence: trust in the depth, from 0 to 1; empty without depth.
        prior_share: how far a prior decided on the depth, from 0 to 1; empty without a prior.
        findings: sentences about doubtful input.
        seconds: time of the reconstruction, without saving.
        finished: date and time, UTC.
        digest: digest of the row and the settings that it was made with.
        traceback: of an error of this program; not part of the table.
    """

    key: str
    status: Status
    error: str = ""
    frames: int | None = None
    size: str = ""
    grade: str = ""
    mean_confidence: str = ""
    prior_share: str = ""
    findings: str = ""
    seconds: str = ""
    finished: str = ""
    digest: str = ""
    traceback: str | None = None


_COLUMNS = tuple(field.name for field in fields(Line) if field.name != "traceback")


class Report:
    """The report of a batch, or of one shard of it, while it runs.

    Attributes:
        lines: the newest line of each key, of this report and of all others in the same place.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage, self._name = storage, name
        self.lines: dict[str, Line] = {}
        self._own: set[str] = set()
        self._tracebacks = ""
        self._written = time.monotonic()

    @property
    def place(self) -> str:
        """Its path or URL."""
        return f"{self._storage.root.rstrip('/')}/{self._name}"

    @contextmanager
    def opened(self, keys: Collection[str], *, whole: bool) -> Iterator[None]:
        """Read what there is, and keep others from the report inside the block.

        When the block ends, however it does, the report has one line for each key, in order.

        Args:
            keys: keys of the rows that the report is for, in order; may grow inside the block.
            whole: whether it takes over the lines of all other reports, such as those of shards.

        Raises:
            InputError: another process works on it, or a report is not one of ours.
        """
        with self._claimed():
            self._read()
            self._own = {key for key in keys if key in self.lines}
            if whole:
                self._own |= set(self.lines)
            self._write(keys)
            try:
                yield
            finally:
                self._write(keys)

    def append(self, line: Line) -> None:
        """Add a line at once, so that a killed process loses none."""
        self.lines[line.key] = line
        self._own.add(line.key)
        folder = self._storage.folder
        if line.traceback is not None:
            self._tracebacks += f"{printable(line.key)}\n{line.traceback}\n"
        if folder is None:
            if time.monotonic() - self._written > _SECONDS_BETWEEN_UPLOADS:
                self._write(())
            return
        with file_errors_named(folder):
            # One call, so that no reader and no killed process sees half a line.
            _add(folder / self._name, _csv([line]))
            if line.traceback is not None:
                _add(folder / _TRACEBACKS, self._tracebacks.encode(errors="backslashreplace"))
                self._tracebacks = ""

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        folder = self._storage.folder
        if folder is None:  # object storage knows no locks
            yield
            return
        with file_errors_named(folder):
            claim = folder / f".{self._name}.claim"
            claim.mkdir(parents=True, exist_ok=True)
        with claimed(claim):
            yield

    def _read(self) -> None:
        """The newest line of each key: this report goes last, since it is written now."""
        others = sorted(
            name
            for name in self._storage.names()
            if name.startswith("report") and name.endswith(".csv") and name != self._name
        )
        for name in (*others, self._name):
            for line in _lines(f"{self._storage.root}/{name}", self._storage.read(name) or b""):
                known = self.lines.get(line.key)
                if known is None or known.status == "failed" or line.status == "done":
                    self.lines[line.key] = line

    def _write(self, keys: Collection[str]) -> None:
        """Rewrite the report, in the order of the keys; others follow."""
        order = {key: number for number, key in enumerate(keys)}
        own = sorted(self._own, key=lambda key: (order.get(key, len(order)), key))
        data = _csv([Line(**{name: name for name in _COLUMNS})])  # type: ignore[arg-type]
        data += _csv([self.lines[key] for key in own])
        self._storage.write(self._name, data)
        if self._storage.folder is None and self._tracebacks:
            self._storage.write(_TRACEBACKS, self._tracebacks.encode(errors="backslashreplace"))
        self._written = time.monotonic()


def _add(path: os.PathLike[str], data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _csv(lines: Sequence[Line]) -> bytes:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    for line in lines:
        values = ("" if (one := getattr(line, name)) is None else str(one) for name in _COLUMNS)
        table.writerow([printable(value) for value in values])
    return text.getvalue().encode(errors="backslashreplace")


def _lines(place: str, data: bytes) -> Iterator[Line]:
    """The lines of a report; a last one that a full disk cut is left out.

    Raises:
        InputError: it has other columns.
    """
    if not data:
        return
    whole = data[: data.rfind(b"\n") + 1].decode("utf-8", errors="replace")
    rows = csv.reader(io.StringIO(whole, newline=""))
    if tuple(next(rows, ())) != _COLUMNS:
        raise InputError(
            f"{place}: is not a report of `focaldiffusion batch`. Move it away, or choose another "
            "output."
        )
    for row in rows:
        if len(row) != len(_COLUMNS):
            continue
        values = dict(zip(_COLUMNS, row, strict=True))
        if values["status"] in get_args(Status):
            frames = int(values["frames"]) if values["frames"].isdecimal() else None
            yield Line(**{**values, "frames": frames})  # type: ignore[arg-type]
