"""`focaldiffusion data`: look at the samples of a configuration, check them, or write them once."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from focaldiffusion.cli.engine_flags import add_engine, check_engine, cluster_engine
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
    from focaldiffusion.engines.engine import MakeEngine
    from focaldiffusion.shards import Shard


def add_parser(commands: Commands) -> None:
    """Add the command to those of `focaldiffusion`."""
    parser = commands.add_parser(
        "data",
        help="look at the samples of a configuration, check them, or write them once",
        description="Show, check or store the data of a configuration as training sees them.",
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
    check = kinds.add_parser(
        "check",
        help="read every file once",
        description="Read each sample of all configured splits once, and name those that cannot be "
        "read. The exit code is 1 if there are any.",
    )
    check.set_defaults(run=_check)
    check.add_argument("config", type=Path, metavar="CONFIG", help="a configuration file")
    add_config(check, saves=False)
    check.add_argument(
        "--workers",
        type=positive_integer,
        metavar="N",
        help="processes (default: data.num_workers)",
    )
    check.add_argument(
        "--output", type=given_path, metavar="CSV", help="write the bad samples and reasons there"
    )
    check.add_argument("--quiet", action="store_true", help="print nothing but errors")
    _add_cache(kinds)
    merge = kinds.add_parser(
        "merge",
        help="join the caches that several machines have written",
        description="Join caches of the same stacks, such as shards in folders of their own, by "
        "linking or copying their files.",
    )
    merge.set_defaults(run=_merge)
    merge.add_argument("parts", type=Path, nargs="+", metavar="DIR", help="a cache")
    merge.add_argument("--output", type=given_path, required=True, metavar="DIR", help="the whole")
    merge.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _add_cache(kinds: Commands) -> None:
    """Add the command that writes samples once."""
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
    cache.add_argument(
        "--examples",
        action="store_true",
        help="instead of stacks, store what the network is shown and compared with, for "
        "training.examples_dir: training.draws_per_sample draws of each sample of train",
    )
    cache.add_argument(
        "--shard",
        default="0/1",
        metavar="I/N",
        help="write every N-th stack from I on, counted from 0: 0/3, 1/3 and 2/3 are three "
        "processes or machines (`batch` and `evaluate` count from 1)",
    )
    add_engine(
        cache,
        "processes; with slurm, jobs (default: data.num_workers; as many as the cluster has room "
        "for with ray; 10 jobs)",
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


def _check(options: argparse.Namespace) -> int:
    """Read all samples and return the exit code."""
    from focaldiffusion.config.data import SPLITS
    from focaldiffusion.config.sources import has_split
    from focaldiffusion.data.check import BadSample, bad_samples, count_of, write_bad
    from focaldiffusion.data.loading import open_split
    from focaldiffusion.io.staging import file_errors_named

    config = read_config(options)
    data = config.data.model_copy(update={"allow_missing": True})
    bad: list[BadSample] = []
    count = 0
    with progress_bars("reading", quiet=options.quiet) as progress:
        for split in filter(partial(has_split, data), SPLITS):
            mixture = open_split(data, split, config.training.seed)
            bad += bad_samples(
                mixture,
                num_workers=options.workers or data.num_workers,
                meter=Meter(partial(progress, split)),
            )
            count += count_of(mixture)
    if options.output is not None:
        with file_errors_named(options.output):
            options.output.parent.mkdir(parents=True, exist_ok=True)
            write_bad(options.output, bad)
    for one in bad:
        print(f"{one.split}: {one.source}: {one.reason}", file=sys.stderr)
    if not options.quiet:
        print(f"{len(bad)} of {count} samples are bad")
    return 1 if bad else 0


def _cache(options: argparse.Namespace) -> int:
    """Write the cache and return the exit code."""
    from focaldiffusion.config.sources import FILELESS
    from focaldiffusion.data.cache import bytes_of_sample, write_cache
    from focaldiffusion.shards import Shard

    shard = Shard.parse_from_zero(options.shard)
    check_engine(options)
    config, mixture, device = _open(options)
    if options.engine == "local" and options.workers is not None:
        data = config.data.model_copy(update={"num_workers": options.workers})
        config = config.model_copy(update={"data": data})
    made = [source for source in mixture.sources if source.dataset_type in FILELESS]
    endless = [source.name for source in made if source.max_samples is None]
    if options.samples is None and endless:
        raise InputError(f"--samples is missing: {endless[0]} is endless, so a number is needed.")
    if options.examples:
        return _keep(options, config, mixture, shard, device)
    count = options.samples or len(mixture)
    with progress_bars("simulating", quiet=options.quiet) as progress:
        write_cache(
            mixture,
            options.output,
            count=count,
            shard=shard,
            num_workers=config.data.num_workers,
            device=device,
            with_evidence=options.evidence,
            engine=_cluster(options, device),
            meter=Meter(partial(progress, "stacks")),
        )
    if not options.quiet:
        written = len(shard.of(range(count)))
        size = f"{bytes_of_sample(options.output) / 1e6:.1f} MB each" if written else "none here"
        print(f"{written} stacks of {options.split} in {options.output}, {size}")
    return 0


def _cluster(options: argparse.Namespace, device: str) -> MakeEngine | None:
    """The engine of a cluster, whose workers have CPUs alone; None for this machine.

    Raises:
        InputError: a GPU is asked for.
    """
    if options.engine != "local" and device != "cpu":
        raise InputError(
            f"--engine {options.engine} with --device {device}: workers of a cluster write caches "
            "on CPUs. Give --device cpu."
        )
    return cluster_engine(options, "cpu")


def _keep(
    options: argparse.Namespace, config: Config, mixture: Mixture, shard: Shard, device: str
) -> int:
    """Write examples and return the exit code."""
    from focaldiffusion.training.kept import KeptExamples
    from focaldiffusion.training.kept_writer import bytes_of_example, grid_of, write_examples

    if options.evidence or options.split != "train":
        other = "--evidence" if options.evidence else f"--split {options.split}"
        raise InputError(f"--examples with {other}: they are of train, and hold their evidence.")
    training = config.training.model_copy(update={"examples_dir": str(options.output)})
    run = config.model_copy(update={"training": training})
    kept = KeptExamples.open(run, mixture, grid_of(config.model))
    assert kept is not None
    count = options.samples or len(mixture) * kept.draws
    with progress_bars("making", quiet=options.quiet) as progress:
        write_examples(
            run,
            mixture,
            kept,
            count=count,
            shard=shard,
            device=device,
            engine=_cluster(options, device),
            meter=Meter(partial(progress, "examples")),
        )
    if not options.quiet:
        written = len(shard.of(range(count)))
        size = f"{bytes_of_example(options.output) / 1e6:.1f} MB each" if written else "none here"
        print(f"{written} examples in {options.output}, {size}")
    return 0


def _merge(options: argparse.Namespace) -> int:
    """Join the caches and return the exit code."""
    from focaldiffusion.data.cache import merge_caches
    from focaldiffusion.training.kept import KeptExamples

    missing = 0
    if KeptExamples.lie_in(options.parts[0]):
        KeptExamples.joined(options.parts, options.output)
    else:
        missing = merge_caches(options.parts, options.output)
    if not options.quiet:
        lacks = f"; {missing} stacks are still missing" if missing else ""
        print(f"{len(options.parts)} folders joined in {options.output}{lacks}")
    return 0
