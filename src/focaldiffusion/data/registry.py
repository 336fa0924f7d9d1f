"""The data sets by name. A new one is one file and one line here."""

from __future__ import annotations

from importlib import import_module

from focaldiffusion.config.data import Source
from focaldiffusion.data.dataset import Dataset
from focaldiffusion.errors import InputError, unknown_name

_DATASETS = {
    "cache": "cache:Cache",
    "ddff12": "sets.ddff12:DDFF12",
    "diode": "sets.diode:DIODE",
    "filelist": "sets.filelist:FileList",
    "fod500": "sets.fod500:FoD500",
    "hammer": "sets.hammer:HAMMER",
    "hci": "sets.hci:HCI",
    "hypersim": "sets.hypersim:HyperSim",
    "ibims1": "sets.ibims1:IBims1",
    "infinigen_defocus": "sets.infinigen_defocus:InfinigenDefocus",
    "nyuv2": "sets.nyuv2:NYUv2",
    "procedural": "procedural.scenes:Procedural",
    "rgbd": "sets.rgbd:RGBD",
    "stacks": "sets.stacks:Stacks",
    "unlabelled": "sets.stacks:Unlabelled",
    "virtual_kitti": "sets.virtual_kitti:VirtualKITTI",
    "zedd": "sets.zedd:ZEDD",
}
"""Module below this package, and class, of each dataset_type; a `Source` constructs it."""


def open_dataset(source: Source) -> Dataset:
    """The data set of a source: its split, its options.

    Raises:
        InputError: an unknown `dataset_type`, an option that does not apply, or missing files.
    """
    if source.dataset_type not in _DATASETS:
        raise InputError(
            f"{source.name}: dataset_type {source.dataset_type!r} "
            f"{unknown_name(source.dataset_type, _DATASETS)}"
        )
    module, name = _DATASETS[source.dataset_type].split(":")
    opened: Dataset = getattr(import_module(f"focaldiffusion.data.{module}"), name)(source)
    return opened
