"""Flags of `focaldiffusion infer` for its method, and for what is made of its results."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from focaldiffusion.cli.flags import add_device, add_psf, given_path, positive_integer, psf
from focaldiffusion.cli.model_flags import PHYSICS, sampling
from focaldiffusion.errors import InputError

if TYPE_CHECKING:
    from focaldiffusion.io.results import DepthFormat
    from focaldiffusion.reconstruction import Settings

DEPTH_FORMATS: tuple[DepthFormat, ...] = ("npy", "png")
"""Formats of the depth map, used without --depth-format."""


def add_blur(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the blur: its shape, and whether it is measured."""
    add_psf(parser).add_argument(
        "--find-blur",
        action="store_true",
        help="measure the blur per dioptre from the frames even if the lens is known",
    )


def add_results(parser: argparse._ActionsContainer) -> None:
    """Add the flags for what is made of a stack."""
    parser.add_argument(
        "--image-only",
        action="store_true",
        help="make the all-in-focus image alone, the same as with depth, in less time",
    )
    parser.add_argument(
        "--depth-format",
        type=_formats,
        metavar="LIST",
        help="formats of the depth map: any of npy (float32), png (16-bit millimetres) and exr "
        "(float32) (default: npy,png)",
    )
    parser.add_argument(
        "--point-cloud",
        choices=("auto", "on", "off"),
        help="write point_cloud.ply: for images of up to 2 megapixels, always, or never (default: "
        "auto)",
    )


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


def check_image_only(options: argparse.Namespace) -> None:
    """Refuse flags that have an effect on depth alone, where none is wanted.

    Raises:
        InputError: names them.
    """
    if not options.image_only:
        return
    given = {
        "--depth-format": options.depth_format is not None,
        "--point-cloud": options.point_cloud is not None,
        "--prior": options.prior is not None,
        "--model": options.model != PHYSICS,
        "--html": "html" in options and options.html,
    }
    flags = [flag for flag, is_given in given.items() if is_given]
    if flags:
        raise InputError(
            f"{', '.join(flags)}: no effect with --image-only, which makes no depth. Drop "
            "--image-only, or the others."
        )


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


def _formats(text: str) -> tuple[str, ...]:
    """An argparse type for the formats of the depth map."""
    return tuple(dict.fromkeys(filter(None, text.replace(",", " ").split())))
