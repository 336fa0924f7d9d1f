"""Configurations from files and overrides, and back to one file."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from pydantic import ValidationError

from focaldiffusion.config.data import SPLITS
from focaldiffusion.config.merge import merged
from focaldiffusion.config.originals import translate
from focaldiffusion.config.problems import sentence
from focaldiffusion.config.run import Config
from focaldiffusion.config.yaml_files import Block, read_layers, read_override, yaml_text
from focaldiffusion.errors import InputError


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
        raise InputError(sentence(error, block, str(path))) from error


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
    for name in (f"{split}_sources" for split in SPLITS):
        data[name] = data_given.get(name)
    for split in SPLITS:
        data["dataset_kwargs"][split] = data_given.get("dataset_kwargs", {}).get(split, {})
    return block
