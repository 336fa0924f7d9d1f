"""Flags of `focaldiffusion infer` for its method."""

from __future__ import annotations

import argparse

from focaldiffusion.cli.flags import add_device, positive_integer


def add_method(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the method."""
    method = parser.add_argument_group("method")
    method.add_argument(
        "--align",
        choices=("auto", "on", "off"),
        help="register the frames: if they moved, always, or never (default: auto)",
    )
    method.add_argument(
        "--order",
        choices=("auto", "given", "name", "time", "focus"),
        default="auto",
        help="order of the frames where their focus is unknown: as listed or by name unless time "
        "or the frames themselves contradict; as given; by name; by EXIF time; as found from the "
        "frames (default: auto)",
    )
    method.add_argument(
        "--drop-unaligned", action="store_true", help="leave out frames that match no other"
    )
    method.add_argument(
        "--working-size",
        type=positive_integer,
        metavar="PX",
        help="long side at which depth is solved, for aspects up to 2:1 (default: 1024)",
    )
    add_device(method)
    method.add_argument(
        "--threads",
        type=positive_integer,
        metavar="N",
        help="number of CPU threads, which does not change the result (default: all CPUs)",
    )
