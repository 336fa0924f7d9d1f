"""A configuration from its files and overrides, and back to one file."""

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
    """A configuration, and what its reader should be told about how it was written.

    Attributes:
        config: checked, every path expanded.
        notices: a sentence for each key under a name that only the published original has.
    """

    config: Config
    notices: tuple[str, ...]


def load_config(
    path: Path, overrides: Sequence[str] = (), only: Collection[str] | None = None
) -> Loaded:
    """Read a configuration file, what it builds on, and what the command line says otherwise.

    Args:
        path: a YAML file.
        overrides: `key.path=value` each, laid over the file in turn.
        only: the blocks that are wanted; others are not checked, and have their defaults.

    Raises:
        InputError: the first problem, with its file and line (or override) and its key.
    """
    layers = [*read_layers(path), *map(read_override, overrides)]
    # Before they are merged: an old name in one layer replaces the new one of a lower layer.
    notices = tuple(notice for layer in layers for notice in translate(layer))
    block: Block = reduce(merged, layers, Block())
    unwanted = set() if only is None else Config.model_fields.keys() - set(only)
    wanted = {key: value for key, value in block.items() if key not in unwanted}
    try:
        return Loaded(Config.model_validate(wanted), notices)
    except ValidationError as error:
        raise InputError(sentence(error, block, str(path))) from error


def save_resolved(config: Config, path: Path) -> None:
    """Write a configuration to one file that says everything and gives an equal one when read."""
    path.write_text(yaml_text(resolved(config)), encoding="utf-8")


def resolved(config: Config) -> Block:
    """A configuration as one block that says everything and gives an equal one when read.

    Per-split options and sources are as they were given: what they leave out they inherit, and a
    default written there would stand above it.
    """
    block = config.model_dump(mode="json")
    given = config.model_dump(mode="json", exclude_unset=True)
    data, data_given = block["data"], given.get("data", {})
    for name in (f"{split}_sources" for split in SPLITS):
        data[name] = data_given.get(name)
    for split in SPLITS:
        data["dataset_kwargs"][split] = data_given.get("dataset_kwargs", {}).get(split, {})
    return block
