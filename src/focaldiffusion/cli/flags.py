"""Flags that commands share, their parser, and what they describe."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from focaldiffusion.errors import InputError, printable
from focaldiffusion.lens import LensFacts, check_rivals, implausible
from focaldiffusion.shards import Shard

if TYPE_CHECKING:
    from focaldiffusion.config.run import Config
    from focaldiffusion.psf import PSF, Family

Commands = argparse._SubParsersAction
"""Type that `add_subparsers` returns; argparse has no public name for it."""

_LENS_FLAGS = {
    "--focal-length-mm": ("focal_length_m", 1e3, "focal length, not 35 mm-equivalent [mm]"),
    "--f-number": ("f_number", 1, "focal length / aperture diameter"),
    "--pixel-pitch-um": ("pixel_pitch_m", 1e6, "sensor per pixel of the frames [micrometres]"),
    "--sensor-width-mm": ("sensor_width_m", 1e3, "long side of the sensor, or give the pitch [mm]"),
    "--focal-length-px": ("focal_length_px", 1, "image distance / pixel pitch [px]"),
    "--aperture-diameter-m": (
        "aperture_diameter_m",
        1,
        "diameter of the entrance pupil, or give the f-number [m]",
    ),
}
"""For each flag: its field of `LensFacts`, how many of its units make one there, and its help."""
_FAMILIES: dict[str, Family] = {
    "disc": "disc",
    "gaussian": "gaussian",
    "power-exponential": "power_exponential",
}

_KEY_OF_FLAG = {
    "--data-root": "data.data_root",
    "--train-filelist": "data.train_filelist",
    "--val-filelist": "data.val_filelist",
    "--test-filelist": "data.test_filelist",
    "--output-dir": "output.save_dir",
}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser without abbreviations, whose errors look like all other errors."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)
        # Without this, argparse takes -0.001,0 for an unknown flag; no flag starts with a digit.
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def error(self, message: str) -> NoReturn:
        """Print one sentence and exit with code 2."""
        text = printable(message.rstrip("."))
        print(f"error: {text}. See {self.prog} --help.", file=sys.stderr)
        sys.exit(2)


class Numbers(argparse.Action):
    """A list of numbers, separated by commas, spaces or both."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store the numbers as a list of floats."""
        numbers: list[float] = []
        for text in ",".join(values).replace(",", " ").split():
            try:
                numbers.append(float(text))
            except ValueError:
                raise argparse.ArgumentError(
                    self,
                    f"{text!r} is not a number; expected metres, separated by commas or spaces",
                ) from None
        setattr(namespace, self.dest, numbers)


def add_focus_distances(parser: Any, *, required: bool = False) -> None:
    """Add --focus-distances to a parser or a group of it."""
    parser.add_argument(
        "--focus-distances",
        action=Numbers,
        nargs="+",
        required=required,
        metavar="METRES",
        help="lens to plane of sharp focus of each frame, such as 0.3,0.5,1,inf [m]",
    )


def add_lens(parser: argparse.ArgumentParser, description: str) -> None:
    """Add the flags that `lens` reads."""
    group = parser.add_argument_group("lens", description)
    for flag, (_, _, text) in _LENS_FLAGS.items():
        group.add_argument(flag, type=float, metavar=flag.rsplit("-", 1)[1].upper(), help=text)


def add_psf(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the flags that `psf` reads, and return their group."""
    group = parser.add_argument_group("blur")
    group.add_argument(
        "--psf", choices=_FAMILIES, help="shape of the lens blur (default: disc, an ideal lens)"
    )
    group.add_argument(
        "--psf-exponent",
        type=float,
        metavar="P",
        help="exponent of power-exponential, 2 (a Gaussian) to 32 (nearly a disc) (default: 8)",
    )
    return group


def lens(options: argparse.Namespace) -> LensFacts:
    """The lens of the flags.

    Raises:
        InputError: a value that no lens has, or flags that exclude each other.
    """
    values: dict[str, float] = {}
    flags: dict[str, str] = {}
    for flag, (name, units, _) in _LENS_FLAGS.items():
        value = getattr(options, flag[2:].replace("-", "_"))
        if value is None:
            continue
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{flag} is {value}; expected a positive number.")
        if problem := implausible(name, value / units):
            raise InputError(f"{flag} {value:g}: {problem}.")
        values[name], flags[name] = value / units, flag
    check_rivals(flags)
    return LensFacts(**values)


def psf(options: argparse.Namespace) -> PSF:
    """The blur that the flags describe, with the defaults of `PSF`.

    Raises:
        InputError: an exponent out of range, or for a family without one.
    """
    from focaldiffusion.psf import PSF

    if options.psf_exponent is None:
        return PSF(_FAMILIES[options.psf]) if options.psf else PSF()
    if options.psf != "power-exponential":
        raise InputError(
            f"--psf-exponent {options.psf_exponent:g} does not apply to a "
            f"{options.psf or PSF().family}; use it with --psf power-exponential."
        )
    return PSF("power_exponential", options.psf_exponent)


def add_config(parser: argparse.ArgumentParser, *, saves: bool = True) -> None:
    """Add the flags that `read_config` reads.

    Args:
        parser: parser of a command that reads a configuration.
        saves: whether the command writes to the configuration's `output`.
    """
    group = parser.add_argument_group("overrides of the file")
    group.add_argument(
        "--override",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="such as training.batch_size=4 data.image_size=[480,640]",
    )
    for flag, key in _KEY_OF_FLAG.items():
        if saves or not key.startswith("output."):
            group.add_argument(flag, metavar="PATH", help=f"short for --override {key}=PATH")
    group.add_argument(
        "--allow-missing",
        action="store_true",
        help="short for --override data.allow_missing=true: leave out samples without their files",
    )


def read_config(options: argparse.Namespace, *, saves: bool = True) -> Config:
    """The configuration of `options.config` and the flags; notices go to standard error.

    Args:
        options: parsed flags.
        saves: see `add_config`; without it, --output-dir is another flag of the command.

    Raises:
        InputError: a mistake in it.
    """
    from focaldiffusion.config.load import load_config

    paths = {
        key: getattr(options, flag[2:].replace("-", "_"), None)
        for flag, key in _KEY_OF_FLAG.items()
        if saves or not key.startswith("output.")
    }
    # JSON is YAML, with the quotes that a path may need.
    given = [f"{key}={json.dumps(path)}" for key, path in paths.items() if path is not None]
    if options.allow_missing:
        given.append("data.allow_missing=true")
    loaded = load_config(options.config, [*options.override, *given])
    for notice in loaded.notices:
        print(f"note: {notice}", file=sys.stderr)
    return loaded.config


def add_device(parser: Any, text: str = "where torch computes") -> None:
    """Add --device, which `resolve_device` reads, to a parser or a group of it."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help=f"{text}: cpu, cuda, cuda:1, mps, or auto for the fastest (default: auto)",
    )


def given_path(text: str) -> Path:
    """An argparse type for paths; refuses the empty text of a variable that is not set, and ~."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; expected a path")
    if text.startswith("~"):
        # Behind an equals sign, or in quotes; a folder called ~ would be made.
        raise argparse.ArgumentTypeError(
            f"{text!r}: the shell has not replaced ~ by the home folder. Write --flag ~/name, or "
            "./~ for a folder of that name"
        )
    return Path(text)


def seed(text: str) -> int:
    """An argparse type for the seed of a torch generator."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number from 0 to 2^63 - 1")
    return number


def shard(text: str) -> Shard:
    """An argparse type for a part of the work, such as 3/20."""
    try:
        return Shard.parse(text)
    except InputError as error:
        sentence = str(error).removeprefix("shard ").rstrip(".")
        raise argparse.ArgumentTypeError(f"{sentence} (only `data cache` counts from 0)") from None


def positive_integer(text: str) -> int:
    """An argparse type for positive integers."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number from 1 on")
    return number
