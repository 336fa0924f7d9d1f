"""The sources of a split, with inherited values."""

from __future__ import annotations

import os
import re
from functools import reduce
from typing import Any

from focaldiffusion.config.data import (
    SIMULATED_PRIOR,
    DataConfig,
    DataRoot,
    DatasetKwargs,
    DatasetOptions,
    Source,
    SourceConfig,
    Split,
)
from focaldiffusion.config.yaml_files import KeyPath, dotted
from focaldiffusion.errors import InputError
from focaldiffusion.lens import replaced

FILELESS = {"procedural"}
"""Data sets that are made, not read."""

PHOTOGRAPHS = "PHOTOGRAPHS"
"""Environment variable with the folder of textures of such data sets; without it, they draw all."""


def resolve_sources(data: DataConfig, split: Split) -> list[Source]:
    """The sources of a split, completed from the `data` block.

    In `dataset_kwargs` the most specific value wins, in rising order: the block's, the block's
    for this split, the source's, the source's for this split.

    Raises:
        InputError: no source for this split, or one without a data set or a folder.
    """
    sources: tuple[SourceConfig, ...] | None = getattr(data, f"{split}_sources")
    if sources is None:
        if (name := data.dataset_type) is None:
            raise InputError(
                f"the configuration has no data for {split}: give data.{split}_sources, or "
                "data.dataset_type for a single data set."
            )
        filelist = getattr(data, f"{split}_filelist")
        sources = (SourceConfig(name=name, filelist=filelist, data_root=data.data_root),)
    return [_resolved(source, data, split) for source in sources]


def has_split(data: DataConfig, split: Split) -> bool:
    """Whether the configuration has data for a split."""
    if getattr(data, f"{split}_sources") is not None:
        return True
    if data.dataset_type == "filelist":
        return getattr(data, f"{split}_filelist") is not None
    return data.dataset_type is not None


def merged(base: dict[str, Any], over: dict[str, Any], path: KeyPath = ()) -> dict[str, Any]:
    """The merged block: inner blocks merge as well, other values are replaced.

    A block whose keys are numbers changes the items of a list, counted from 0.

    Setting a camera value in one form removes the other form from `base`: an aperture diameter
    the f-number, a pixel pitch the sensor's width.

    Args:
        base: the lower block.
        over: the upper one.
        path: of both, for messages.

    Raises:
        InputError: a list has no such item.
    """
    obsolete = replaced(
        [key for key, value in base.items() if value is not None],
        [key for key, value in over.items() if value is not None],
    )
    result = {key: value for key, value in base.items() if key not in obsolete}
    for key, value in over.items():
        below = result.pop(key, None)  # before it is set, so that the key is the upper one, too
        result[key] = _over(below, value, (*path, key))
    return result


def _over(below: Any, value: Any, path: KeyPath) -> Any:
    """A value laid over another one, which it changes in part if both are blocks."""
    if not isinstance(value, dict):
        return value
    if isinstance(below, dict):
        return merged(below, value, path)
    if not isinstance(below, list) or not all(map(str.isdecimal, value)):
        return value
    items = list(below)
    for key, change in value.items():
        index = int(key)
        if index >= len(items):
            raise InputError(
                f"{key.where}{dotted((*path, index))}: the list has {len(items)} items, counted "
                "from 0"
            )
        items[index] = _over(items[index], change, (*path, index))
    return items


def _resolved(source: SourceConfig, data: DataConfig, split: Split) -> Source:
    kind = source.dataset_type or data.dataset_type
    if kind is None:
        raise InputError(
            f"source {source.name} of data.{split}_sources has no dataset_type. Give it one, or "
            "all of them by data.dataset_type."
        )
    options = _options(data.dataset_kwargs, source.dataset_kwargs, split)
    if options.prior == SIMULATED_PRIOR and split != "train":
        raise InputError(
            f"source {source.name} of data.{split}: a {SIMULATED_PRIOR} prior is made from the "
            "truth, which no prediction may see. Set it in data.dataset_kwargs.train, and give "
            f"data.dataset_kwargs.{split}.prior a network or files."
        )
    frames = source.focal_stack_size or data.focal_stack_size
    size = source.image_size or data.image_size
    return Source(
        name=source.name,
        split=split,
        dataset_type=kind,
        data_root=_root(source, data, kind),
        filelist=source.filelist,
        focal_range=source.focal_range or data.focal_range,
        focal_stack_size=(frames, frames) if isinstance(frames, int) else frames,
        image_size=(size, size) if isinstance(size, int) else size,
        max_samples=source.max_samples or getattr(data, f"max_{split}_samples"),
        weight=source.weight,
        allow_missing=data.allow_missing or data.skip_bad_samples > 0,
        options=options,
    )


def _options(general: DatasetKwargs, special: DatasetKwargs, split: Split) -> DatasetOptions:
    """Options of a split from two blocks; defaults override nothing."""
    layers: list[dict[str, Any]] = []
    for kwargs in (general, special):
        layers.append(kwargs.model_dump(exclude_unset=True, exclude={"train", "val", "test"}))
        layers.append(getattr(kwargs, split).model_dump(exclude_unset=True))
    return DatasetOptions.model_validate(reduce(merged, layers))


def _root(source: SourceConfig, data: DataConfig, kind: str) -> DataRoot:
    """Folder of a source: its own, that of the `data` block or of the environment."""
    root = source.data_root
    if kind in FILELESS:
        # Not `data.data_root`: a folder of other sources would be taken for a folder of textures.
        return os.environ.get(PHOTOGRAPHS) or [] if root is None else root
    root = data.data_root if root is None else root
    if root is not None:
        return root
    names = dict.fromkeys((source.name, kind, "focaldiffusion"))
    variables = [f"{re.sub(r'[^A-Z0-9]+', '_', name.upper())}_DATA_ROOT" for name in names]
    given = next(filter(None, map(os.environ.get, variables)), None)
    if given is None:
        raise InputError(
            f"source {source.name}: the folder of its files is unknown. Give the source a "
            "data_root, give data.data_root, or set the environment variable "
            f"{' or '.join(variables)}."
        )
    return given
