"""Errors of libraries on the files of users, as sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from focaldiffusion.errors import InputError
from focaldiffusion.files import why_not_file

_LONGEST_REASON = 200


@contextmanager
def reading(path: Path, fault: str, remedy: str = "Copy or export it again.") -> Iterator[None]:
    """Turn any exception of a library that reads a file into an InputError that names the file.

    Libraries raise anything on a broken file: TypeError, AssertionError, exceptions of their own.
    So everything is caught, and only calls of libraries belong inside the block: a programming
    error of ours would be reported as a broken file.

    Args:
        path: the file, which begins the sentence.
        fault: what is wrong with a file that fails, such as "cannot be read as HDF5".
        remedy: a sentence that ends the message.

    Raises:
        InputError: for any exception inside the block, except a lack of memory.
    """
    try:
        yield
    except (InputError, MemoryError, ImportError):
        raise
    except RecursionError:
        raise InputError(f"{path}: {fault} (nested too deeply). {remedy}") from None
    except Exception as error:
        raise InputError(f"{path}: {fault} ({reason(error, path)}). {remedy}") from error


def reason(error: Exception, path: Path) -> str:
    """An error's message in a clause: one line, without the path that precedes it."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    line = " ".join(re.sub(rf"{re.escape(str(path))}(?![/\\])", "the file", text).split())
    return line[:_LONGEST_REASON].rstrip(" .") or type(error).__name__


def read_json(path: Path, fault: str, remedy: str) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: see `reading`; also for text that is not Unicode and for numbers and nesting
            beyond what Python reads.
    """
    if why := why_not_file(path):
        raise InputError(f"{path}: {fault} ({why}). {remedy}")
    with reading(path, fault, remedy):
        return parsed_json(path.read_text(encoding="utf-8"))


def parsed_json(text: str) -> Any:
    """The value of a JSON text whose every part can be written again as UTF-8.

    Raises:
        ValueError: not JSON, or a lone surrogate or number that is not finite in it.
        RecursionError: nested too deeply.
    """
    value = json.loads(text, parse_constant=_refuse)
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
