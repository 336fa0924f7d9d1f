"""`stack.json`: notes that a user wrote on a stack, beside its frames."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from focaldiffusion.errors import InputError, unknown_name
from focaldiffusion.files import read_small, why_not_file
from focaldiffusion.io.file_names import SIDECAR_NAME
from focaldiffusion.lens import LensFacts

_MOST_BYTES = 2**24  # 100,000 frames need a third of it
_SHOWN_CHARACTERS = 80  # of a wrong value


def _lens(camera: Any) -> LensFacts | None:
    """The lens of the key `camera`, None for null."""
    if camera is None:
        return None
    if not isinstance(camera, dict):
        raise ValueError(f"is {json.dumps(camera)}; expected an object")
    names = [one.name for one in fields(LensFacts)]
    for name, value in camera.items():
        if name not in names:
            raise ValueError(f"key {name!r} {unknown_name(name, names)}".removesuffix("."))
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise ValueError(f"{name} is {json.dumps(value)}; expected a number")
    try:
        known = {name: float(value) for name, value in camera.items() if value is not None}
    except OverflowError:
        raise ValueError("holds a number that is too large") from None
    return LensFacts(**known)


def _null_is_infinity(values: Any) -> Any:
    if not isinstance(values, list):
        return values
    return [math.inf if value is None else value for value in values]


class Sidecar(BaseModel):
    """The content of a `stack.json`.

    `files` gives the frames and their order; without it they are the folder's images in natural
    order. In `focus_distances_m`, null is infinity. `camera` holds any of the values of
    `LensFacts`, at the size of the frames. `note` is for people.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    files: list[str] | None = None
    focus_distances_m: Annotated[list[float] | None, BeforeValidator(_null_is_infinity)] = None
    focus_positions_m: list[float] | None = None
    camera: Annotated[LensFacts | None, BeforeValidator(_lens)] = None
    note: Any = None

    @model_validator(mode="after")
    def _one_focus(self) -> Sidecar:
        if self.focus_distances_m is not None and self.focus_positions_m is not None:
            raise ValueError(
                "focus_distances_m and focus_positions_m exclude each other; keep the one that "
                "is known"
            )
        return self


def read_sidecar(folder: Path) -> Sidecar | None:
    """Read the `stack.json` of a folder; None without one.

    Raises:
        InputError: a link to nothing, a pipe or a device, too long, not JSON (with line and
            column), an unknown key (with the nearest one) or a repeated one, or a value of the
            wrong kind.
    """
    path = folder / SIDECAR_NAME
    if not os.path.lexists(path):
        return None
    if why := why_not_file(path):
        raise InputError(f"{path}: cannot be read ({why}).")
    try:
        text = read_small(path, _MOST_BYTES).decode("utf-8-sig")
        content = json.loads(text, object_pairs_hook=_once)
    except InputError:
        raise
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    # Numbers of thousands of digits, thousands of brackets, another encoding.
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; expected an object in braces.")
    try:
        return Sidecar.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {_sentence(error)}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a repeated key is ambiguous, so it is refused."""
    content = dict(pairs)
    if len(content) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"key {twice!r} appears twice; keep one")
    return content


def _sentence(error: ValidationError) -> str:
    """The first problem of a validation, as one sentence."""
    problem = error.errors()[0]
    place = ""
    for part in problem["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else part
    if problem["type"] == "extra_forbidden":
        hint = " Its values are metres." if re.search("focus|distance|position", place) else ""
        return f"key {place!r} {unknown_name(place, Sidecar.model_fields)}{hint}"
    if problem["type"] == "value_error":
        message = str(problem["ctx"]["error"]).removesuffix(".")
        return f"{place} {message}.".strip()
    expected = problem["msg"].removeprefix("Input should be ")
    if problem["type"] == "float_type":
        expected = "a number of metres, such as 0.3"
    got = json.dumps(problem["input"])
    if len(got) > _SHOWN_CHARACTERS:
        got = f"{got[:_SHOWN_CHARACTERS]}..."
    return f"{place} is {got}; expected {expected}."
