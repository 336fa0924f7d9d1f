"""`focaldiffusion data`: look at the samples of a configuration, or write them once."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from focaldiffusion.cli.flags import (
    Commands,
    add_config,
    add_device,
    given_path,
    positive_integer,
    read_config,
)
from focaldiffusion.cli.progress import progress_bars
from focaldiffusion.devices import resolve_device
from focaldiffusion.errors import InputError
from focaldiffusion.progress import Meter

if TYPE_CHECKING:
    from focaldiffusion.config.run import Config
    from focaldiffusion.data.mixture import Mixture


def add_parser(commands: Commands) -> None:
    """Add the command to those of `focaldiffusion`."""
    parser = commands.add_parser(
        "data",
        help="look at the samples of a configuration, or write them once",
        description="Show or store the data of a configuration as training sees them.",
    )
    kinds = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    inspect = kinds.add_parser(
        "inspect",
        help="a contact sheet of samples",
        description="Draw frames, all-in-focus image and depth of the first samples of a split, "
        "as training sees them.",
    )
    inspect.set_defaults(run=_inspect)
    _add_shared(inspect)
    inspect.add_argument(
        "--samples", type=positive_integer, default=8, metavar="N", help="rows (default: 8)"
    )
    inspect.add_argument(
        "--output", type=given_path, required=True, metavar="PNG", help="the picture to write"
    )
    cache = kinds.add_parser(
        "cache",
        help="simulate stacks once, to train from them",
        description="Write the stacks of a split to a folder, which is then a data set with "
        "dataset_type cache. An interrupted run continues.",
    )
    cache.set_defaults(run=_cache)
    _add_shared(cache)
    cache.add_argument(
        "--samples", type=positive_integer, metavar="N", help="stacks to write (default: an epoch)"
    )
    cache.add_argument(
        "--evidence",
        action="store_true",
        help="also store the physical estimate of each stack, to save time in training",
    )
    cache.add_argument("--output", type=given_path, required=True, metavar="DIR", help="the cache")


def _add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a configuration file")
    add_config(parser, saves=False)
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="train", help="(default: train)"
    )
    add_device(parser)
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _open(options: argparse.Namespace) -> tuple[Config, Mixture, str]:
    from focaldiffusion.data.loading import open_split

    config = read_config(options)
    device = resolve_device(options.device)
    return config, open_split(config.data, options.split, config.training.seed), device


def _inspect(options: argparse.Namespace) -> int:
    """Draw the contact sheet and return the exit code."""
    import numpy as np
    import torch

    from focaldiffusion.data.loading import batches
    from focaldiffusion.io.pictures import SheetRow, contact_sheet
    from focaldiffusion.io.png import write_png
    from focaldiffusion.io.staging import file_errors_named

    if options.output.suffix.lower() != ".png":
        raise InputError(f"--output {options.output}: the sheet is a .png; name it so.")
    _, mixture, device = _open(options)
    count = min(options.samples, len(mixture))
    rows = []
    with progress_bars("reading", quiet=options.quiet) as progress:
        for position, batch in enumerate(batches(mixture, range(count), 1, device=device), start=1):
            sample = batch.to("cpu").sample(0)
            depth_m = sample.depth_m.where(sample.valid, torch.nan).numpy()
            rows.append(SheetRow(sample.source, sample.stack, sample.all_in_focus, depth_m))
            progress("samples", position, count)
    sheet = contact_sheet(f"{options.config}: {options.split}", rows)
    with file_errors_named(options.output):
        options.output.parent.mkdir(parents=True, exist_ok=True)
        write_png(options.output, np.divide(sheet, 255, dtype=np.float32), bit_depth=8)
    if not options.quiet:
        print(f"{count} of {len(mixture)} samples of {options.split} in {options.output}")
    return 0


def _cache(options: argparse.Namespace) -> int:
    """Write the cache and return the exit code."""
    from focaldiffusion.config.sources import FILELESS
    from focaldiffusion.data.cache import write_cache

    config, mixture, device = _open(options)
    made = [source for source in mixture.sources if source.dataset_type in FILELESS]
    endless = [source.name for source in made if source.max_samples is None]
    if options.samples is None and endless:
        raise InputError(f"--samples is missing: {endless[0]} is endless, so a number is needed.")
    count = options.samples or len(mixture)
    with progress_bars("simulating", quiet=options.quiet) as progress:
        write_cache(
            mixture,
            options.output,
            count=count,
            num_workers=config.data.num_workers,
            device=device,
            with_evidence=options.evidence,
            meter=Meter(partial(progress, "stacks")),
        )
    if not options.quiet:
        print(f"{count} stacks of {options.split} in {options.output}")
    return 0
