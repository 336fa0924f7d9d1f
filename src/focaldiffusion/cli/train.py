"""`focaldiffusion train`: for now, whether the data of a configuration are fit to train on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from focaldiffusion.cli.config_flags import add_config, read_config
from focaldiffusion.cli.flags import Commands, check_device

if TYPE_CHECKING:
    from focaldiffusion.data.dry_run import SourceCheck


REFUSED = {
    "--resume": "this version does not train yet, so there is nothing to resume",
    "--debug": "for more messages set logging.level=DEBUG, for fewer samples "
    "data.max_train_samples, by --override",
}
"""Flags of the original that have no meaning here, and why."""


def add_parser(commands: Commands) -> None:
    """Add the command to those of `focaldiffusion`."""
    parser = commands.add_parser(
        "train",
        help="check the data of a training configuration",
        description="Open the data of a configuration: read and simulate one batch of every "
        "source and split, and print what is in it.",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--config", required=True, type=Path, metavar="FILE", help="such as configs/hypersim.yaml"
    )
    add_config(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="open the data, write nothing, train nothing"
    )
    parser.add_argument("--device", default="cpu", metavar="NAME", help="to simulate on")
    refused = parser.add_argument_group("of the original, without a meaning in this version")
    for flag, reason in REFUSED.items():
        refused.add_argument(flag, nargs="?", const=True, metavar="...", help=f"refused: {reason}")


def run(options: argparse.Namespace) -> int:
    """Check the data and return the exit code.

    Raises:
        InputError: a mistake in the configuration, data that are missing or bad.
    """
    from focaldiffusion.config.data import SPLITS
    from focaldiffusion.config.sources import has_split
    from focaldiffusion.data.dry_run import check_disjoint, check_split
    from focaldiffusion.errors import InputError

    for flag, reason in REFUSED.items():
        if getattr(options, flag[2:]) is not None:
            raise InputError(f"{flag}: {reason}.")
    check_device(options.device)
    if not options.dry_run:
        raise InputError(
            "this version does not train yet; --dry-run checks the data of the configuration."
        )
    config = read_config(options)
    checks: list[SourceCheck] = []
    for split in SPLITS:
        if split != "train" and not has_split(config.data, split):
            print(f"{split}\n  not configured")
            continue
        found = check_split(
            config.data,
            split,
            batch_size=config.training.batch_size,
            seed=config.training.seed,
            device=options.device,
        )
        print(split)
        for check in found:
            _print(check)
        checks += found
    bad = [sentence for check in checks for sentence in check.bad]
    if bad:
        raise InputError(f"{len(bad)} of the samples read are bad; the first: {bad[0]}")
    check_disjoint(checks)
    print("the data are in order; no scene of val or test is in train.")
    return 0


def _print(check: SourceCheck) -> None:
    """A paragraph on one source."""
    from focaldiffusion.data.dry_run import describe

    read = len(check.bad) + (0 if check.batch is None else len(check.batch))
    weight = f", weight {check.source.weight:g}" if check.source.split == "train" else ""
    print(
        f"  {check.source.name} ({check.source.dataset_type}{weight}): {check.samples} samples of "
        f"{len(check.scenes)} scenes, {len(check.skipped)} left out for missing files; "
        f"{read} read, {len(check.bad)} bad"
    )
    for notice in check.notices:
        print(f"note: {notice}", file=sys.stderr)
    for sentence in check.skipped:
        print(f"left out: {sentence}", file=sys.stderr)
    for name, shape, unit, extent in describe(check.batch) if check.batch else ():
        print(f"    {name:<16} {shape:<24} {unit:<13} {extent}".rstrip())
