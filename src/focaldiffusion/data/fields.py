"""Error text for fields that users write, in a file list or beside an image."""

from __future__ import annotations

from pydantic import ValidationError


def first_problem(error: ValidationError) -> str:
    """The first problem of a failed validation, as one sentence."""
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
