"""Flags of `focaldiffusion infer` for its method, and for what is made of its results."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from focaldiffusion.cli.flags import add_device, given_path, positive_integer, psf
from focaldiffusion.cli.model_flags import sampling

if TYPE_CHECKING:
    from focaldiffusion.reconstruction import Settings


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


def add_looks(parser: argparse.ArgumentParser) -> None:
    """Add the flags for retouching and for pages to look at."""
    looks = parser.add_argument_group("after the reconstruction")
    looks.add_argument(
        "--retouch",
        type=given_path,
        metavar="FILE",
        help="replay the strokes of a retouch.json of `focaldiffusion app` on the results",
    )
    looks.add_argument(
        "--html",
        action="store_true",
        help="write living_picture.html, one page to refocus and probe, which needs no network",
    )


def formats(text: str) -> tuple[str, ...]:
    """An argparse type for the formats of the depth map."""
    return tuple(dict.fromkeys(filter(None, text.replace(",", " ").split())))


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings from the flags; all others keep the defaults of `Settings`.

    Raises:
        InputError: the blur is impossible, or the device is not available.
    """
    from focaldiffusion.devices import resolve_device
    from focaldiffusion.reconstruction import Settings

    given = {name: getattr(options, name) for name in ("align", "working_size", "threads")}
    return Settings(
        psf=psf(options),
        drop_unaligned=options.drop_unaligned,
        find_blur=options.find_blur,
        device=resolve_device(options.device),
        fill_unsharp=bool(options.fill_unsharp),
        image_only=options.image_only,
        sampling=sampling(options),
        **{name: value for name, value in given.items() if value is not None},
    )
