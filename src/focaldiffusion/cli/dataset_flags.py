"""Flags that choose a data set, and the source that they describe."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from focaldiffusion.errors import InputError

if TYPE_CHECKING:
    from focaldiffusion.config.data import CameraDefaults, Source
    from focaldiffusion.io.known import Known

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
    facts: Known,
    *,
    generate: bool | None,
    depth_scale_m: float | None = None,
) -> Source:
    """The source that the flags describe.

    Args:
        options: with the flags of `add_dataset`, `--dataset` given.
        facts: lens of samples without lens data.
        generate: whether to simulate stacks; None leaves it to the data set.
        depth_scale_m: metres per unit of the depth files; None leaves it to the data set.

    Raises:
        InputError: no --data-root, or a lens value in the wrong unit.
    """
    from focaldiffusion.config.data import DatasetOptions, Source
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
            camera_defaults=camera_defaults(facts),
            depth_scale=depth_scale_m,
            generate_focal_stack=generate,
            layout=options.layout,
        ),
    )


def camera_defaults(facts: Known) -> CameraDefaults:
    """The lens of the flags, in metres.

    Raises:
        InputError: a length that no lens has.
    """
    from pydantic import ValidationError

    from focaldiffusion.config.data import CameraDefaults
    from focaldiffusion.data.fields import first_problem

    try:
        return CameraDefaults(
            f_number=facts.f_number,
            focal_length_m=facts.focal_length_mm and facts.focal_length_mm / 1000,
            pixel_pitch_m=facts.pixel_pitch_um and facts.pixel_pitch_um / 1e6,
            sensor_width_m=facts.sensor_width_mm and facts.sensor_width_mm / 1000,
            focal_length_px=facts.focal_length_px,
            aperture_diameter_m=facts.aperture_diameter_m,
        )
    except ValidationError as error:
        raise InputError(f"the lens of the flags: {first_problem(error)}") from None
