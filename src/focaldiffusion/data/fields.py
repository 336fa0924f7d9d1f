"""Sentences about fields that someone wrote wrongly, in a list or beside an image."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import ValidationError


def unknown_name(name: str, known: Iterable[str]) -> str:
    """A sentence about a name that is none of the known ones: the nearest, then all."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return (
        f"unknown field {name!r}"
        + (f"; did you mean {near[0]!r}?" if near else ".")
        + f" Known fields: {', '.join(known)}."
    )


def first_problem(error: ValidationError) -> str:
    """The first problem of a validation, as one sentence."""
    problem = error.errors()[0]
    # A position in a list is named after the list.
    name = ".".join(part for part in problem["loc"] if isinstance(part, str))
    if problem["type"] == "missing":
        return f"{name} is missing."
    if problem["type"] == "value_error":
        return f"{name} {problem['ctx']['error']}".strip().removesuffix(".") + "."
    return f"{name} is {problem['input']!r}; expected {_expected(problem['msg'])}."


def _expected(message: str) -> str:
    return message.removeprefix("Input should be ").partition(", unable to parse")[0]
