"""Mistakes in a configuration as one sentence with file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from focaldiffusion.config.data import RootKind
from focaldiffusion.config.run import Config
from focaldiffusion.config.section import Section, section_in
from focaldiffusion.config.yaml_files import Block, KeyPath, dotted
from focaldiffusion.errors import unknown_name

_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a block of keys",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_type": "a block of keys",
    "string_type": "a text",
    "too_long": "a list of {max_length}",
    "too_short": "a list of at least {min_length}",
    "tuple_type": "a list",
}
"""pydantic's kinds of error → the expected value, with the limits in the error."""


def sentence(error: ValidationError, block: Block, file: str) -> str:
    """The first problem of a configuration and the number of others.

    Args:
        error: raised by `Config`.
        block: the configuration as written, all layers merged.
        file: to name if no key can be named.
    """
    problems: dict[KeyPath, list[tuple[KeyPath, ErrorDetails]]] = {}
    for details in error.errors():
        value, path = _paths(details, block)
        problems.setdefault(value, []).append((path, details))
    # The members of a union complain one by one: the one that got furthest was meant.
    first = next(iter(problems.values()))
    path = max((path for path, _ in first), key=len)
    complaint = _complaint(path, [details for other, details in first if other == path])
    more = len(problems) - 1
    others = f" ({more} more problem{'s' if more > 1 else ''})" if more else ""
    return f"{_where(path, block, file)}{dotted(path)}{complaint}{others}"


def _paths(details: ErrorDetails, block: Block) -> tuple[KeyPath, KeyPath]:
    """The paths of the wrong value and of the mistake in it, which differ for unions.

    pydantic's own location also names the members of a union, which are not keys.
    """
    node: Any = block
    path: list[str | int] = []
    value: KeyPath | None = None
    for part in details["loc"]:
        if isinstance(node, dict) and part in node:
            node = node[str(part)]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        elif details["type"] != "missing" or part != details["loc"][-1]:
            value = tuple(path) if value is None else value
            continue
        path.append(part)
    return tuple(path) if value is None else value, tuple(path)


def _where(path: KeyPath, block: Block, file: str) -> str:
    """The place of the last written key of a path."""
    where = f"{file}: "
    node: Any = block
    for part in path:
        if isinstance(node, list):
            node = node[int(part)] if int(part) < len(node) else None
            keys = list(node)[:1] if isinstance(node, dict) else []
        else:
            keys = [key for key in node or () if key == part]
            node = node[part] if keys else None
        where = keys[0].where if keys else where
    return where


def _complaint(path: KeyPath, found: list[ErrorDetails]) -> str:
    """Error text that follows the path of the value."""
    kinds = {details["type"]: details for details in found}
    if "value_error" in kinds:
        # Messages about several blocks name their keys.
        return f"{': ' if path else ''}{kinds['value_error']['ctx']['error']}"
    if "missing" in kinds:
        return " is missing"
    if "extra_forbidden" in kinds or found[0]["loc"][-1] == "[key]":
        return f" {_unknown(path)}"
    expected = [
        _EXPECTED[kind].format(**details.get("ctx", {})) if kind in _EXPECTED else details["msg"]
        for kind, details in kinds.items()
    ]
    got = json.dumps(found[0]["input"], default=str)
    got = got if len(got) <= 60 else f"{got[:57]}..."
    return f": expected {' or '.join(dict.fromkeys(expected))}, got {got}"


def _unknown(path: KeyPath) -> str:
    """Error text for an unknown key: the likeliest known key, then all."""
    name = str(path[-1])
    section: type[Section] | None = Config
    for part in path[:-1]:
        if isinstance(part, str) and section is not None:
            section = section_in(section.model_fields[part].annotation)
    # data_root is the only mapping that is not a section.
    names = get_args(RootKind) if section is None else tuple(section.model_fields)
    elsewhere = [key for key in _known_keys() if key.endswith(f".{name}")]
    containing = (other for other in names if name in other)
    return unknown_name(name, names, likely=[*containing, *sorted(elsewhere, key=len)])


def _known_keys(section: type[Section] = Config, prefix: str = "") -> Iterator[str]:
    """Paths of all keys below a section, blocks before their keys, without list indices."""
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        inner = section_in(field.annotation)
        if inner is not None:
            yield from _known_keys(inner, f"{prefix}{name}.")
