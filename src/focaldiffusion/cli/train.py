"""`focaldiffusion train`: train a model, resume a run, or check both data and model first."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from focaldiffusion.cli.flags import Commands, add_config, add_device, read_config
from focaldiffusion.devices import AUTO, resolve_device
from focaldiffusion.errors import InputError
from focaldiffusion.packages import check_installed

if TYPE_CHECKING:
    from focaldiffusion.config.run import Config
    from focaldiffusion.data.dry_run import SourceCheck


_WHY_NO_DEBUG = (
    "for more messages set logging.level=DEBUG, for fewer samples data.max_train_samples, by "
    "--override"
)


def add_parser(commands: Commands) -> None:
    """Add the command to those of `focaldiffusion`."""
    parser = commands.add_parser(
        "train",
        help="train a model from a configuration",
        description="Train the model of a configuration on its data. Start it with `accelerate "
        "launch` or `torchrun` for several GPUs or machines.",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--config", required=True, type=Path, metavar="FILE", help="such as configs/hypersim.yaml"
    )
    add_config(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="read and simulate one batch of every source and split, take one step on each "
        "source of train, and write nothing",
    )
    parser.add_argument(
        "--strict", action="store_true", help="let a dry run fail if anything looks wrong"
    )
    parser.add_argument(
        "--resume",
        metavar="auto|DIR",
        help="resume from this checkpoint, or from the newest complete one of output.save_dir; "
        "auto starts anew if there is none",
    )
    add_device(parser, "where a dry run computes; training itself takes cpu or auto (accelerate)")
    refused = parser.add_argument_group("flags of the original, refused")
    refused.add_argument(
        "--debug", nargs="?", const=True, metavar="...", help=f"refused: {_WHY_NO_DEBUG}"
    )


def run(options: argparse.Namespace) -> int:
    """Train, or try it, and return the exit code.

    Raises:
        InputError: a mistake in the configuration; missing packages, data or weights; bad data.
    """
    if options.debug is not None:
        raise InputError(f"--debug: {_WHY_NO_DEBUG}.")
    if not options.dry_run and options.device not in (AUTO, "cpu"):
        raise InputError(
            f"--device {options.device}: training runs where accelerate starts it. Leave the flag "
            "out, and choose GPUs by CUDA_VISIBLE_DEVICES."
        )
    if options.strict and not options.dry_run:
        raise InputError("--strict does not apply to training; use it with --dry-run.")
    config = read_config(options)
    # Before torch is loaded, data are read or weights downloaded.
    check_installed(config.needed_packages)
    if options.dry_run:
        return _dry_run(config, resolve_device(options.device), strict=options.strict)
    from focaldiffusion.training.trainer import train

    _note_drawn_textures(config)
    ending = train(config, options.resume, cpu=options.device == "cpu")
    done = "done" if ending.step == ending.steps else f"{ending.step} of {ending.steps} steps"
    if _reports():
        print(f"{done}; --model {ending.checkpoint} runs it")
    return 0


def _reports() -> bool:
    """Whether this is the first of the processes that `torchrun` or accelerate started."""
    return os.environ.get("RANK", "0") == "0"


def _dry_run(config: Config, device: str, *, strict: bool) -> int:
    """Check the data and try the model; returns the exit code.

    Raises:
        InputError: bad samples, or with `strict` doubtful ones.
    """
    from focaldiffusion.config.data import SPLITS
    from focaldiffusion.config.sources import has_split
    from focaldiffusion.data.disjoint import check_disjoint
    from focaldiffusion.data.dry_run import check_split
    from focaldiffusion.data.loading import open_split
    from focaldiffusion.training.dry_run import try_model
    from focaldiffusion.training.schedule import Schedule

    _note_drawn_textures(config)
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
            device=device,
        )
        print(split)
        for check in found:
            _print(check)
        checks += found
    bad = [sentence for check in checks for sentence in check.bad]
    if len(bad) > config.data.skip_bad_samples:
        raise InputError(f"{len(bad)} of the samples read are bad; the first: {bad[0]}")
    for sentence in bad:
        print(f"left out: {sentence}", file=sys.stderr)
    check_disjoint(checks)
    doubts = [sentence for check in checks for sentence in check.doubts]
    for sentence in doubts:
        print(f"warning: {sentence}", file=sys.stderr)
    if strict and doubts:
        raise InputError(f"{len(doubts)} warnings, see above; --strict ends here.")
    # Checks that training makes: a weight that gives a source nothing, too few stacks for a step.
    Schedule.of(config.training, len(open_split(config.data, "train", config.training.seed)), 1)
    faults = [f"{len(bad)} bad samples left out"] * bool(bad)
    faults += [f"{len(doubts)} warnings"] * bool(doubts)
    state = f"are readable, with {' and '.join(faults)}" if faults else "are in order"
    print(f"the data {state}; no scene of val or test is in train.\nmodel, on {device}")
    for sentence in try_model(config, checks, device):
        print(f"  {sentence}")
    return 0


def _note_drawn_textures(config: Config) -> None:
    """Name the sources of train whose textures are drawn for lack of photographs."""
    from focaldiffusion.config.sources import FILELESS, PHOTOGRAPHS, resolve_sources

    drawn = [
        source.name
        for source in resolve_sources(config.data, "train")
        if source.dataset_type in FILELESS and not source.data_root
    ]
    if drawn and _reports():
        print(
            f"note: {', '.join(drawn)}: drawn textures; set {PHOTOGRAPHS} to a folder of "
            "photographs to use those.",
            file=sys.stderr,
        )


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
