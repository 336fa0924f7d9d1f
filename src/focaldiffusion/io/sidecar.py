"""`stack.json`: what a user wrote down of a stack, beside its frames."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from focaldiffusion.errors import InputError, unknown_name

SIDECAR_NAME = "stack.json"

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_LENS_FORM = ("focal_length_m", "f_number", "pixel_pitch_m")
_PIXEL_FORM = ("focal_length_px", "aperture_diameter_m")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SidecarCamera(_Strict):
    """The camera at the size of the frames: as a lens, or in pixels."""

    focal_length_m: _Positive | None = None
    f_number: _Positive | None = None
    pixel_pitch_m: _Positive | None = None
    focal_length_px: _Positive | None = None
    aperture_diameter_m: _Positive | None = None

    @model_validator(mode="after")
    def _one_form(self) -> SidecarCamera:
        if set(self.values()) not in (set(_LENS_FORM), set(_PIXEL_FORM)):
            raise ValueError(
                f"has {', '.join(self.values()) or 'nothing'}; expected either "
                f"{', '.join(_LENS_FORM)}, or {', '.join(_PIXEL_FORM)}"
            )
        return self

    def values(self) -> dict[str, float]:
        """The values that are set, by name."""
        return self.model_dump(exclude_none=True)


class Sidecar(_Strict):
    """The content of a `stack.json`.

    `files` gives the frames and their order; without it they are the folder's images in natural
    order. In `focus_distances_m`, null is infinity. `note` is for people.
    """

    files: list[str] | None = None
    focus_distances_m: list[float | None] | None = None
    focus_positions_m: list[float] | None = None
    camera: SidecarCamera | None = None
    note: Any = None

    @model_validator(mode="after")
    def _one_focus(self) -> Sidecar:
        if self.focus_distances_m is not None and self.focus_positions_m is not None:
            raise ValueError(
                "focus_distances_m and focus_positions_m exclude each other; keep the one that "
                "is known"
            )
        return self

    @property
    def focus(self) -> tuple[str, list[float]] | None:
        """The name and the values of the focus settings; None when there are none."""
        if self.focus_distances_m is not None:
            values = [math.inf if value is None else value for value in self.focus_distances_m]
            return "focus_distances_m", values
        if self.focus_positions_m is not None:
            return "focus_positions_m", self.focus_positions_m
        return None


def read_sidecar(folder: Path) -> Sidecar | None:
    """Read the `stack.json` of a folder; None without one.

    Raises:
        InputError: a link to nothing, not JSON (with line and column), an unknown key (with the
            nearest one), one that is there twice, or a value of the wrong kind.
    """
    path = folder / SIDECAR_NAME
    if not (path.exists() or path.is_symlink()):
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
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
    """An object of JSON; of a key that is there twice nobody knows which value was meant."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice!r} is there twice; keep one")
    return content


def _sentence(error: ValidationError) -> str:
    """The first problem of a validation, as one sentence."""
    problem = error.errors()[0]
    place = ""
    for part in problem["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else part
    if problem["type"] == "extra_forbidden":
        model = SidecarCamera if len(problem["loc"]) > 1 else Sidecar
        name = str(problem["loc"][-1])
        return f"key {place!r} {unknown_name(name, model.model_fields)}"
    if problem["type"] == "value_error":
        message = str(problem["ctx"]["error"])
        return f"{place} {message}.".strip()
    expected = problem["msg"].removeprefix("Input should be ")
    return f"{place} is {json.dumps(problem['input'])}; expected {expected}."
