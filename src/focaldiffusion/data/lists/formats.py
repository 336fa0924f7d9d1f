"""File lists: CSV, JSON (an array, or an object a line) and plain text."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from focaldiffusion.data.lists.entry import Entry, entry_of, known_field, our_name
from focaldiffusion.errors import InputError
from focaldiffusion.files import why_not_file
from focaldiffusion.io.file_names import IMAGE_SUFFIXES

_Fields = dict[str, Any]

_SPACE = re.compile(r"\s*")
# A comment to the end of the line, or a word, parts of which may be quoted.
_WORD = re.compile(r'[\s,]*(#.*|(?:"[^"]*"|[^\s,"])+)')


@dataclass(frozen=True)
class FileListing:
    """Content of a file list.

    Attributes:
        entries: its samples, in its order.
        places: file and line of each entry, for messages.
        notices: a sentence for each field name of the original in the list.
    """

    entries: tuple[Entry, ...]
    places: tuple[str, ...]
    notices: tuple[str, ...]


def read_list(path: Path) -> FileListing:
    """Read a file list: .csv, .json or .jsonl, or plain text under any other suffix.

    Raises:
        InputError: no such file, no samples, or a bad line, with file, line and reason.
    """
    if why := why_not_file(path):
        raise InputError(f"{path}: cannot be read as a file list ({why}).")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected UTF-8 text. Save the list in that encoding.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read as a file list ({error}).") from None
    suffix = path.suffix.lower()
    if suffix == ".csv":
        lines = _csv_fields(text, path)
    elif suffix in (".json", ".jsonl"):
        array = suffix == ".json" and text.lstrip().startswith("[")
        lines = _array_fields(text, path) if array else _object_fields(text, path)
    else:
        lines = _text_fields(text, path)
    notices: dict[str, str] = {}
    places, entries = [], []
    for line, fields in lines:
        places.append(_place(path, line))
        entries.append(entry_of(fields, places[-1], notices))
    if not entries:
        raise InputError(f"{path}: lists no samples. Expected a sample a line.")
    return FileListing(tuple(entries), tuple(places), tuple(notices.values()))


def _place(path: Path, line: int) -> str:
    return f"{path}:{line}"


def _csv_fields(text: str, path: Path) -> Iterator[tuple[int, _Fields]]:
    """`stack_directory,depth_map_path[,num_images]`, or the columns that a first row names."""
    header: list[str] | None = None
    for number, (line, cells) in enumerate(_csv_rows(text, path)):
        place = _place(path, line)
        if number == 0 and any(map(known_field, cells)):
            header = cells
            names = [our_name(cell, place) for cell in cells]
            for name in names:
                if names.count(name) > 1:
                    raise InputError(f"{place}: {name} is the name of two columns.")
        elif header is None:
            # A spreadsheet ends every row as the longest one does.
            yield line, _by_position([*cells[:2], *filter(None, cells[2:])], place)
        elif len(cells) != len(header):
            raise InputError(f"{place}: {len(cells)} cells, but {len(header)} columns.")
        else:
            filled = zip(header, cells, strict=True)
            yield line, {name: cell for name, cell in filled if cell}


def _csv_rows(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Non-empty rows, each with the number of its first line."""
    reader = csv.reader(text.split("\n"), skipinitialspace=True, strict=True)
    line = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield line, cells
            line = reader.line_num + 1  # the reader counts to the last line of a row
    except csv.Error as error:
        raise InputError(f"{_place(path, line)}: not CSV ({error}).") from None


def _text_fields(text: str, path: Path) -> Iterator[tuple[int, _Fields]]:
    """`image_or_stack depth [count] [field=value ...]`, by spaces or commas; `#` comments."""
    for line, content in enumerate(text.split("\n"), start=1):
        place = _place(path, line)
        words, end = [], 0
        while match := _WORD.match(content, end):
            end = match.end()
            if not match[1].startswith("#"):
                words.append(match[1])
        if content[end:].strip(" \t,"):
            raise InputError(f"{place}: a quotation mark is not closed: {content[end:].strip()}")
        if not words:
            continue
        bare = [word.replace('"', "") for word in words if not _is_pair(word)]
        fields = _by_position(bare, place)
        for word in filter(_is_pair, words):
            name, _, value = word.replace('"', "").partition("=")
            if name in fields:
                raise InputError(f"{place}: {name} is given twice.")
            fields[name] = value
        yield line, fields


def _is_pair(word: str) -> bool:
    """Whether a word is field=value; a path may hold = after a slash, a dot or a quote."""
    return re.match(r"[a-z_.]+=", word) is not None


def _by_position(values: Sequence[str], place: str) -> _Fields:
    """The fields of a line without names: an image or a folder of frames, the depth, the count."""
    if not 2 <= len(values) <= 3:
        raise InputError(
            f"{place}: {len(values)} values without a name ({', '.join(values)}); expected an "
            "image or a folder of frames, a depth map and, if need be, the number of frames. "
            "Quote names with spaces or commas; name what else there is."
        )
    is_image = PurePath(values[0]).suffix.lower() in IMAGE_SUFFIXES
    fields: _Fields = {"all_in_focus" if is_image else "focal_stack": values[0], "depth": values[1]}
    if len(values) == 3:
        if not values[2].isdecimal():
            raise InputError(f"{place}: the third value is {values[2]!r}; expected a frame count.")
        fields["num_images"] = values[2]
    return fields


def _array_fields(text: str, path: Path) -> Iterator[tuple[int, _Fields]]:
    """The objects of a JSON array, each with the number of its first line."""
    at = _skip(text, text.index("[") + 1)
    line, counted = 1, 0
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        fields, at = _object(text, at, path, 1, line)
        yield line, fields
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
            if text[at : at + 1] != "]":
                continue
        elif text[at : at + 1] == "]":
            break
        raise InputError(
            f"{_place(path, line)}: not JSON: expected a comma and another object, or ]."
        )
    if text[at + 1 :].strip():
        raise InputError(f"{path}: not JSON: text after the end of the array.")


def _object_fields(text: str, path: Path) -> Iterator[tuple[int, _Fields]]:
    """JSON Lines: one object per line."""
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            fields, end = _object(content, _skip(content, 0), path, line, line)
            if content[end:].strip():
                raise InputError(
                    f"{_place(path, line)}: text after the object; expected one object a line."
                )
            yield line, fields


def _skip(text: str, at: int) -> int:
    """Position of the next character that is not white space."""
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]


def _object(text: str, at: int, path: Path, first_line: int, line: int) -> tuple[_Fields, int]:
    """The JSON object at a position, and where it ends.

    `text` starts at the line `first_line` of the list, the object at `line`.
    """
    try:
        value, end = _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{_place(path, first_line + error.lineno - 1)}: not JSON: {error.msg}, column "
            f"{error.colno}. Expected an array of objects, or one object a line."
        ) from None
    except InputError as error:
        raise InputError(f"{_place(path, line)}: {error}") from None
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else "a number too long"
        raise InputError(f"{_place(path, line)}: not JSON that can be read: {what}.") from None
    if not isinstance(value, dict):
        raise InputError(
            f"{_place(path, line)}: {json.dumps(value)}; expected an object in braces."
        )
    return value, end


def _once(pairs: list[tuple[str, Any]]) -> _Fields:
    """An object without duplicate names, which would silently lose values."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name} is given twice.")
    return dict(pairs)


_DECODER = json.JSONDecoder(object_pairs_hook=_once)
