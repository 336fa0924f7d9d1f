"""Manifests: tables of stacks, one row each, as CSV or Parquet.

`focaldiffusion find` writes them and `focaldiffusion batch` works through them; people write them
by hand, too. Only `key` and `frames` are required. In CSV, frames are separated by `|` and numbers
by spaces; in Parquet, both are lists. Paths are relative to the folder of the manifest.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from focaldiffusion.errors import InputError, unknown_name
from focaldiffusion.files import check_file
from focaldiffusion.focus import check_focus
from focaldiffusion.io.staging import file_errors_named, write_whole
from focaldiffusion.packages import OPTIONAL

_BETWEEN_FRAMES = "|"
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# Keys name folders, on every file system and in every object store.
_LONGEST_KEY = 120
_KEY = re.compile(rf"\w[\w .()+=@,-]{{0,{_LONGEST_KEY - 1}}}")
_NOT_LAST = " ."
_RESERVED = frozenset(
    ("con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)))
)


@dataclass(frozen=True)
class Entry:
    """A stack of an archive.

    Attributes:
        key: name of the stack in the archive, and of the folder of its results.
        frames: paths or URLs of its frames in order; or one, of a folder or a multi-page file.
        focus_distances_m: lens to plane of sharp focus for each frame [m]; None leaves them to the
            files.
        focus_positions_m: stage or rail position of each frame [m], instead of distances.
        prior: path or URL of a file with depth from elsewhere, see `read_prior`; empty for none.
        camera: as the files name it, for people.
        notes: for people.
        reason: what made these frames a stack, for people.
    """

    key: str
    frames: tuple[str, ...]
    focus_distances_m: tuple[float, ...] | None = None
    focus_positions_m: tuple[float, ...] | None = None
    prior: str = ""
    camera: str = ""
    notes: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key) or self.key[-1] in _NOT_LAST or _is_reserved(self.key):
            raise InputError(
                f"key {self.key!r}: cannot name a folder everywhere. Expected up to {_LONGEST_KEY} "
                "letters, digits and any of `_ .()+=@,-`, with a letter or digit first, and no dot "
                "or space last."
            )
        if not self.frames:
            raise InputError(f"{self.key}: has no frames.")
        focus = {
            name: values
            for name in ("focus_distances_m", "focus_positions_m")
            if (values := getattr(self, name)) is not None
        }
        if len(focus) > 1:
            raise InputError(
                f"{self.key}: has both {' and '.join(focus)}. A stack is focused by distances or "
                "by positions: leave one empty."
            )
        for name, values in focus.items():
            # The number of frames in a folder, or of pages in a file, is not known yet.
            count = len(self.frames) if len(self.frames) > 1 else len(values)
            try:
                check_focus(name, list(values), count)
            except InputError as error:
                raise InputError(f"{self.key}: {error}") from None


def as_key(text: str) -> str:
    """A text as a key: characters that no key has become `-`, and a long one loses its middle."""
    key = re.sub(r"[^\w .()+=@,-]", "-", text).lstrip(" .()+=@,-").rstrip(_NOT_LAST) or "stack"
    if len(key) > _LONGEST_KEY:
        half = (_LONGEST_KEY - 3) // 2
        key = f"{key[:half]}---{key[-half:]}"
    return f"_{key}" if _is_reserved(key) else key


_COLUMNS = tuple(field.name for field in fields(Entry))
_NUMBERS = ("focus_distances_m", "focus_positions_m")


def read_manifest(path: Path) -> list[Entry]:
    """Read a manifest; each path is made absolute, and URLs stay.

    Args:
        path: a `.csv` or `.parquet` file.

    Raises:
        InputError: it cannot be read, has other columns, or two rows of one key; names the row.
    """
    check_file(path)
    rows = _parquet_rows(path) if _is_parquet(path) else _csv_rows(path)
    folder, entries = path.parent.resolve(), []
    known: dict[str, int] = {}
    for number, row in rows:
        place = f"{path}, row {number}"
        entry = _entry(place, row, folder)
        # Some file systems ignore case.
        before = known.setdefault(entry.key.casefold(), number)
        if before != number:
            raise InputError(
                f"{place}: the key {entry.key!r} is that of row {before}, too. Give each stack a "
                "key of its own."
            )
        entries.append(entry)
    if not entries:
        raise InputError(f"{path}: has no rows; expected one for each stack.")
    return entries


def write_manifest(path: Path, entries: Sequence[Entry]) -> None:
    """Write a manifest; files below its folder get relative paths, so that both can move.

    Args:
        path: of a `.csv` or `.parquet` file, which is replaced.
        entries: its rows.

    Raises:
        InputError: the kind of file is unknown, or it cannot be written.
    """
    folder = path.parent.resolve()
    rows = [{name: getattr(entry, name) for name in _COLUMNS} for entry in entries]
    for row in rows:
        row["frames"] = tuple(_below(folder, frame) for frame in row["frames"])
        row["prior"] = row["prior"] and _below(folder, row["prior"])
    data = _parquet(rows) if _is_parquet(path) else _csv(path, rows)
    with file_errors_named(path.parent):
        write_whole(path, data)


def _is_reserved(key: str) -> bool:
    """Whether Windows keeps a name for a device."""
    return key.partition(".")[0].casefold() in _RESERVED


def check_manifest_path(path: Path) -> None:
    """Check that a manifest of this name can be written and read here.

    Raises:
        InputError: it is neither CSV nor Parquet, or Parquet without pyarrow.
    """
    if _is_parquet(path):
        _pyarrow()


def _is_parquet(path: Path) -> bool:
    """Whether a manifest is Parquet rather than CSV, by its name.

    Raises:
        InputError: it is neither.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise InputError(f"{path}: is neither .csv nor .parquet, the kinds of manifest.")
    return suffix == ".parquet"


def _entry(place: str, row: Mapping[str, Any], folder: Path) -> Entry:
    missing = [name for name in ("key", "frames") if not row.get(name)]
    if missing:
        raise InputError(f"{place}: {' and '.join(missing)} missing; each row needs both.")
    if not all(row["frames"]):
        raise InputError(f"{place}: frames names an empty path. Write one path for each frame.")
    frames = tuple(_absolute(folder, frame) for frame in row["frames"])
    prior = row.get("prior", "")
    try:
        return Entry(**{**row, "frames": frames, "prior": prior and _absolute(folder, prior)})
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def _absolute(folder: Path, path: str) -> str:
    """A path of a manifest in this folder; URLs stay."""
    return path if _REMOTE.match(path) else str(folder / path)


def _below(folder: Path, frame: str) -> str:
    """A path relative to a folder, if it lies below; URLs stay."""
    if _REMOTE.match(frame):
        return frame
    absolute = Path(frame).absolute()
    if ".." in absolute.parts or not absolute.is_relative_to(folder):
        return str(absolute)
    return absolute.relative_to(folder).as_posix()


def _check_columns(path: Path, columns: Iterable[str]) -> None:
    given = list(columns)
    for name in given:
        if name not in _COLUMNS:
            commas = " Separate columns by commas." if ";" in name else ""
            raise InputError(f"{path}: the column {name!r} {unknown_name(name, _COLUMNS)}{commas}")
    if twice := sorted({name for name in given if given.count(name) > 1}):
        raise InputError(f"{path}: has the column {twice[0]!r} twice. Remove one.")
    if absent := [name for name in ("key", "frames") if name not in given]:
        raise InputError(
            f"{path}: has no column {absent[0]!r}. Expected a first line with the names of the "
            f"columns: {', '.join(_COLUMNS)}; all but key and frames may be left out."
        )


def _csv_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The rows of a CSV with the numbers of their first lines."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # as spreadsheets write it
        lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        columns = next(lines, [])
        _check_columns(path, columns)
        rows, number = [], lines.line_num + 1
        for values in lines:
            if any(values):
                if len(values) != len(columns):
                    raise InputError(
                        f"{path}, row {number}: {len(values)} values in {len(columns)} columns. "
                        "Quote values that contain commas."
                    )
                rows.append((number, dict(zip(columns, values, strict=True))))
            number = lines.line_num + 1
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is not a CSV in UTF-8 ({error}).") from None
    return [(number, _parsed(f"{path}, row {number}", row)) for number, row in rows]


def _parsed(place: str, row: Mapping[str, str]) -> dict[str, Any]:
    """The texts of a row of CSV as `Entry` takes them."""
    frames = tuple(row["frames"].split(_BETWEEN_FRAMES)) if row["frames"] else ()
    numbers = {name: _numbers(f"{place}, {name}", row.get(name, "")) for name in _NUMBERS}
    return {**row, "frames": frames, **numbers}


def _numbers(place: str, text: str) -> tuple[float, ...] | None:
    try:
        return tuple(float(word) for word in text.split()) or None
    except ValueError:
        raise InputError(
            f"{place}: got {text!r}; expected numbers in metres with spaces between, such as "
            "`0.3 0.8 inf`."
        ) from None


def _csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    lines = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    lines.writeheader()
    for row in rows:
        for frame in row["frames"]:
            if _BETWEEN_FRAMES in frame:
                raise InputError(
                    f"{frame}: its name contains `{_BETWEEN_FRAMES}`, which separates frames in "
                    f"CSV. Write {path.with_suffix('.parquet').name} instead."
                )
        numbers = {name: " ".join(map(repr, row[name] or ())) for name in _NUMBERS}
        lines.writerow({**row, "frames": _BETWEEN_FRAMES.join(row["frames"]), **numbers})
    # Bytes that are not UTF-8 in a file's name cannot stand in a table.
    try:
        return text.getvalue().encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{path}: the name of a frame is not UTF-8. Rename that file.") from None


def _parquet_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    arrow, parquet = _pyarrow()
    try:
        table = parquet.read_table(path)
    except (arrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error}).") from None
    _check_columns(path, table.column_names)
    rows = []
    for number, row in enumerate(table.to_pylist(), start=1):
        for name, value in row.items():
            row[name] = _checked_value(f"{path}, row {number}, {name}", name, value)
        rows.append((number, row))
    return rows


def _checked_value(place: str, name: str, value: Any) -> Any:
    """A value of a Parquet table as `Entry` takes it."""
    kind: type | tuple[type, ...] = (int, float) if name in _NUMBERS else str
    if name in ("frames", *_NUMBERS):
        if value is None or (
            isinstance(value, list) and all(isinstance(one, kind) for one in value)
        ):
            return tuple(value) if value else None
        raise InputError(f"{place}: got {value!r}; expected a list.")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{place}: got {value!r}; expected text.")
    return value


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    arrow, parquet = _pyarrow()
    text, numbers = arrow.string(), arrow.list_(arrow.float64())
    kinds = {name: numbers if name in _NUMBERS else text for name in _COLUMNS}
    kinds["frames"] = arrow.list_(text)
    table = arrow.Table.from_pylist(
        [{**row, "frames": list(row["frames"])} for row in rows], schema=arrow.schema(kinds.items())
    )
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    return sink.getvalue()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError(
            f"a Parquet manifest needs pyarrow: {OPTIONAL['pyarrow'].install}. A CSV needs nothing."
        ) from None
    return pyarrow, parquet
