"""The data sets by name: adding one is one file and one line here."""

from __future__ import annotations

import difflib
import importlib

from focaldiffusion.config.data import Source
from focaldiffusion.data.dataset import Dataset
from focaldiffusion.errors import InputError

DATASETS = {
    "ddff12": "ddff12:DDFF12",
    "diode": "diode:DIODE",
    "filelist": "filelist:FileList",
    "fod500": "fod500:FoD500",
    "hammer": "hammer:HAMMER",
    "hci": "hci:HCI",
    "hypersim": "hypersim:HyperSim",
    "ibims1": "ibims1:IBims1",
    "infinigen_defocus": "infinigen_defocus:InfinigenDefocus",
    "nyuv2": "nyuv2:NYUv2",
    "procedural": "procedural:Procedural",
    "rgbd": "rgbd:RGBD",
    "stacks": "stacks:Stacks",
    "virtual_kitti": "virtual_kitti:VirtualKITTI",
    "zedd": "zedd:ZEDD",
}
"""dataset_type → module of this package and class; each class is built from a `Source`."""


def open_dataset(source: Source) -> Dataset:
    """The data set of a source: its split, its options.

    Raises:
        InputError: an unknown `dataset_type`, or files that are missing.
    """
    if source.dataset_type not in DATASETS:
        near = difflib.get_close_matches(source.dataset_type, DATASETS, n=1)
        raise InputError(
            f"{source.name}: dataset_type {source.dataset_type!r} is unknown"
            + (f"; did you mean {near[0]}?" if near else ".")
            + f" Expected one of {', '.join(DATASETS)}."
        )
    module, name = DATASETS[source.dataset_type].split(":")
    dataset: Dataset = getattr(importlib.import_module(f"focaldiffusion.data.{module}"), name)(
        source
    )
    return dataset
