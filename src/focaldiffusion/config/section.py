"""The base class of configuration blocks, and the types that blocks share."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class Section(BaseModel):
    """A block of the configuration: typed, immutable, without unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Python counts True as 1, so `batch_size: true` would train with batches of one.
        annotation = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and bool not in (annotation, *get_args(annotation)):
            raise ValueError(f"expected another kind of value, got {str(value).lower()}")
        return value


def section_in(annotation: Any) -> type[Section] | None:
    """The section in a field of this type, alone or in a list; None for plain values."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(section_in, get_args(annotation))), None)


def _expanded(path: str) -> str:
    """The path with every `${VARIABLE}` and a leading `~` replaced."""

    def variable(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if not value:
            raise ValueError(f"the environment variable {match[1]} is not set")
        return value

    if not path:
        raise ValueError("expected a path, got an empty text")
    if "\0" in path:
        raise ValueError("expected a path, got a text with a null character")
    return os.path.expanduser(re.sub(r"\$\{([^}]*)\}", variable, path))  # noqa: PTH111


PathText = Annotated[str, AfterValidator(_expanded)]
"""A path, or a text that may be one, with `${VARIABLE}` from the environment."""

NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
