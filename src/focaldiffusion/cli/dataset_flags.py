"""Flags that choose a data set, and the source that they describe."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from focaldiffusion.errors import InputError

if TYPE_CHECKING:
    from focaldiffusion.config.data import Source
    from focaldiffusion.lens import LensFacts

_SPLITS = ("train", "val", "test")


def add_dataset(group: argparse._ArgumentGroup) -> None:
    """Add the flags that `source` reads."""
    group.add_argument(
        "--dataset", metavar="NAME", help="a data set by name, such as hypersim; see docs/data.md"
    )
    group.add_argument("--data-root", metavar="DIR", help="folder of the data set")
    group.add_argument(
        "--split", choices=_SPLITS, default="test", help="part of the data set (default: test)"
    )
    group.add_argument(
        "--filelist", metavar="FILE", help="file list of the data set called filelist"
    )
    group.add_argument(
        "--layout", metavar="NAME", help="arrangement of the data set's files, if it has several"
    )


def source(
    options: argparse.Namespace,
    lens: LensFacts,
    *,
    generate: bool | None,
    depth_scale_m: float | None = None,
) -> Source:
    """The source that the flags describe.

    Args:
        options: with the flags of `add_dataset`, `--dataset` given.
        lens: the lens of samples that name none.
        generate: whether stacks are to be simulated; None takes them as the data set has them.
        depth_scale_m: metres per unit of the depth files, where the data set does not say.

    Raises:
        InputError: no --data-root.
    """
    from focaldiffusion.config.data import CameraDefaults, DatasetOptions, Source
    from focaldiffusion.config.sources import FILELESS

    if options.data_root is None and options.dataset not in FILELESS:
        raise InputError(
            f"--dataset {options.dataset} needs --data-root, the folder that holds its files."
        )
    return Source(
        name=options.dataset,
        split=options.split,
        dataset_type=options.dataset,
        data_root=[] if options.data_root is None else options.data_root,
        filelist=options.filelist,
        options=DatasetOptions(
            camera_defaults=CameraDefaults(**lens.values()),
            depth_scale=depth_scale_m,
            generate_focal_stack=generate,
            layout=options.layout,
        ),
    )
