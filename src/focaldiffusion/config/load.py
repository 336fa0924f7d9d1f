"""Configurations from files and overrides, their mistakes in one sentence, and back to one file."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from focaldiffusion.config.data import SPLITS, RootKind
from focaldiffusion.config.originals import translate
from focaldiffusion.config.run import Config
from focaldiffusion.config.section import Section, section_in
from focaldiffusion.config.sources import merged
from focaldiffusion.config.yaml_files import (
    Block,
    KeyPath,
    dotted,
    read_layers,
    read_override,
    yaml_text,
)
from focaldiffusion.errors import InputError, unknown_name

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


@dataclass(frozen=True)
class Loaded:
    """A configuration, and notices for its author.

    Attributes:
        config: checked, every path expanded.
        notices: a sentence for each key under its name in the published original.
    """

    config: Config
    notices: tuple[str, ...]


def load_config(
    path: Path, overrides: Sequence[str] = (), only: Collection[str] | None = None
) -> Loaded:
    """Read a configuration file, its `defaults`, and the overrides.

    Args:
        path: a YAML file.
        overrides: `key.path=value` each, applied in turn.
        only: blocks to read; the others are not checked and have their defaults.

    Raises:
        InputError: the first problem, with its file and line (or override) and its key.
    """
    layers = [*read_layers(path), *map(read_override, overrides)]
    # Before merging: an old name in one layer replaces the new one of a lower layer.
    notices = tuple(notice for layer in layers for notice in translate(layer))
    block: Block = reduce(merged, layers, Block())
    unwanted = set() if only is None else Config.model_fields.keys() - set(only)
    wanted = {key: value for key, value in block.items() if key not in unwanted}
    try:
        return Loaded(Config.model_validate(wanted), notices)
    except ValidationError as error:
        raise InputError(_sentence(error, block, str(path))) from error


def save_resolved(config: Config, path: Path) -> None:
    """Write a configuration to one complete file, which reads back equal."""
    path.write_text(yaml_text(resolved(config)), encoding="utf-8")


def resolved(config: Config) -> Block:
    """A configuration as one complete block, which reads back equal.

    Per-split options and sources are kept as given, since they inherit: a default written there
    would override the inherited value.
    """
    block = config.model_dump(mode="json")
    given = config.model_dump(mode="json", exclude_unset=True)
    data, data_given = block["data"], given.get("data", {})
    for split in SPLITS:
        data[f"{split}_sources"] = data_given.get(f"{split}_sources")
        data["dataset_kwargs"][split] = data_given.get("dataset_kwargs", {}).get(split, {})
    return block


def _sentence(error: ValidationError, block: Block, file: str) -> str:
    """The first problem of a configuration and the number of others; names the key, or the file."""
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
