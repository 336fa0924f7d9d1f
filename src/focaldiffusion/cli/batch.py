"""`focaldiffusion batch`: all stacks of a manifest, on one machine or many."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from focaldiffusion.cli.batch_progress import with_progress
from focaldiffusion.cli.engine_flags import add_engine, check_engine, cluster_engine
from focaldiffusion.cli.flags import Commands, add_lens, given_path, lens, shard
from focaldiffusion.cli.infer_flags import (
    DEPTH_FORMATS,
    add_blur,
    add_method,
    add_results,
    check_image_only,
    settings_of,
)
from focaldiffusion.cli.memory import lighter_work
from focaldiffusion.cli.model_flags import add_model, chosen_model
from focaldiffusion.cli.outcome import INTERNAL_ERROR
from focaldiffusion.cli.prior_flags import add_prior, chosen_kind, chosen_network
from focaldiffusion.errors import InputError

if TYPE_CHECKING:
    from focaldiffusion.archive.batch import Batch
    from focaldiffusion.archive.recipe import Recipe
    from focaldiffusion.archive.report import Line
    from focaldiffusion.archive.work import Task, Workshop
    from focaldiffusion.engines.engine import Engine

_MOST_TRACEBACKS = 3


def add_parser(commands: Commands) -> None:
    """Add the command to those of `focaldiffusion`."""
    parser = commands.add_parser(
        "batch",
        help="all stacks of a manifest, on one machine or a cluster",
        description="Reconstruct every row of a manifest into DIR/KEY, and list the outcomes in "
        "DIR/report.csv. A bad stack is a failed row and stops no other. The same command "
        "continues an interrupted batch: finished rows stay.",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "manifest",
        nargs="?",
        type=given_path,
        metavar="MANIFEST",
        help=".csv or .parquet, see `focaldiffusion find`",
    )
    parser.add_argument(
        "--watch",
        type=given_path,
        metavar="FOLDER",
        help="instead of a manifest: each folder that appears in FOLDER, once its files rest",
    )
    parser.add_argument(
        "--rest-s",
        type=_positive,
        default=10.0,
        metavar="S",
        help="a folder is complete when nothing in it has changed for this long [s] (default: 10)",
    )
    parser.add_argument(
        "--output",
        required=True,
        type=_place,
        metavar="DIR",
        help="folder for the results, or a URL such as s3://bucket/results",
    )
    parser.add_argument(
        "--retry",
        choices=("failed", "all"),
        help="try failed rows again, or make every row again",
    )
    parser.add_argument(
        "--shard",
        type=shard,
        metavar="N/COUNT",
        help="only every COUNT-th row from the N-th on, counted from 1: 1/20 to 20/20 are the "
        "jobs of an array",
    )
    parser.add_argument("--quiet", action="store_true", help="print only errors")
    group = add_engine(
        parser,
        "stacks at a time; with slurm, jobs (default: one for each CPU, or 1 on a GPU; as many as "
        "the cluster has room for with ray; 10 jobs)",
    )
    group.add_argument(
        "--memory-gb",
        type=_positive,
        metavar="GB",
        help="memory that stacks in work may need together; others wait (default: most of what is "
        "free)",
    )
    results = parser.add_argument_group("results")
    add_results(results)
    results.add_argument(
        "--zarr",
        type=_place,
        metavar="SET",
        help="also put all results into one Zarr set, a group for each key: a folder such as "
        "results.zarr, or a URL",
    )
    add_lens(parser, "Of all stacks. Overrides stack.json, which overrides EXIF.")
    add_blur(parser)
    add_method(parser)
    add_prior(parser)
    add_model(parser)


def run(options: argparse.Namespace) -> int:
    """Run the batch and return the exit code: 1 if rows failed, 2 if all did.

    Raises:
        InputError: a flag or the manifest is wrong, or no worker can start.
    """
    from focaldiffusion.archive.batch import Batch
    from focaldiffusion.archive.manifest import read_manifest
    from focaldiffusion.archive.storage import Storage
    from focaldiffusion.archive.watch import watched
    from focaldiffusion.archive.work import Workshop
    from focaldiffusion.archive.zarr_set import ZarrSet
    from focaldiffusion.io.results import check_formats

    if (options.manifest is None) == (options.watch is None):
        raise InputError("give either a manifest, or a folder with --watch.")
    if options.watch is not None and options.shard is not None:
        raise InputError("--shard: no effect with --watch, whose rows are not known yet. Drop it.")
    check_image_only(options)
    formats = options.depth_format or DEPTH_FORMATS
    check_formats(formats)
    if options.zarr is not None and "npy" not in formats:
        raise InputError("--zarr: takes the depth from npy files. Add npy to --depth-format.")
    check_engine(options)
    entries, folder = [], options.watch
    if folder is None:
        entries, folder = read_manifest(options.manifest), options.manifest.parent
    has_files = not options.image_only and any(entry.prior for entry in entries)
    zarr_set = None if options.zarr is None else ZarrSet(options.zarr)
    recipe = _recipe(options, has_files=has_files)
    workshop = Workshop(recipe, Storage(options.output), zarr_set)
    batch = Batch(entries, folder.resolve(), workshop, options.shard)
    with _engine(options, workshop) as engine, batch.opened():
        if options.watch is None:
            lines = batch.run(engine, batch.due(retry=options.retry))
        else:
            lines = watched(
                batch, engine, options.watch, rest_s=options.rest_s, retry=options.retry
            )
        with_progress(lines, batch, quiet=options.quiet)
    return _ended(batch, quiet=options.quiet)


def _ended(batch: Batch, *, quiet: bool) -> int:
    """Print the outcome of the whole batch, and return the exit code."""
    lines = batch.lines()
    failed = [line for line in lines if line.status == "failed"]
    if not quiet:
        print(f"{len(lines) - len(failed)} done, {len(failed)} failed: {batch.report.place}")
        if failed:
            print("With --retry failed, the same command tries the failed rows again.")
    unexpected = [line.traceback for line in failed if line.traceback is not None]
    for text in unexpected[:_MOST_TRACEBACKS]:
        print(text, file=sys.stderr)
    if unexpected:
        return INTERNAL_ERROR
    if not failed:
        return 0
    return 2 if len(failed) == len(lines) else 1


def _recipe(options: argparse.Namespace, *, has_files: bool) -> Recipe:
    """The settings from the flags.

    Args:
        options: the flags.
        has_files: whether rows name files that are their priors.

    Raises:
        InputError: a value makes no sense, or the model, the prior or the device is not available.
    """
    from focaldiffusion.archive.recipe import Recipe

    settings = replace(settings_of(options), threads=options.threads or 1)
    has_prior = options.prior is not None or has_files
    model = chosen_model(options, settings.device, has_prior=has_prior)
    prior = chosen_network(options, has_files=has_files)
    if prior is not None:
        prior.fetch()  # before any worker needs it, and for its digest
    network_bytes = 0
    if settings.device == "cpu":
        network_bytes += 0 if prior is None else prior.weight_bytes
        network_bytes += 0 if model is None else model.weight_bytes
    return Recipe(
        settings,
        options.order,
        lens(options),
        options.depth_format or DEPTH_FORMATS,
        options.point_cloud or "auto",
        model=None if model is None else model.checkpoint.as_json(base_model=model.base_model),
        load=None if model is None else model.load,
        prior=None if prior is None else prior.as_json(),
        load_prior=None if prior is None else partial(prior.load, settings.device),
        prior_kind=chosen_kind(options, has_files=has_files),
        network_bytes=network_bytes,
        lighter=lighter_work(model),
    )


def _engine(options: argparse.Namespace, workshop: Workshop) -> Engine[Task, Line]:
    """The engine of the flags.

    Raises:
        InputError: an option of it is wrong.
    """
    device = workshop.recipe.settings.device
    make = cluster_engine(options, device)
    if make is not None:
        return make(workshop)
    from focaldiffusion.engines.local import LocalEngine
    from focaldiffusion.engines.memory import budget_bytes
    from focaldiffusion.threads import available_threads

    most = budget_bytes() if options.memory_gb is None else round(options.memory_gb * 1e9)
    workers = options.workers or (available_threads() if device == "cpu" else 1)
    return LocalEngine(workshop, workers, budget_bytes=most)


def _positive(text: str) -> float:
    """Argparse type for positive numbers."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text!r}; expected a positive number")
    return number


def _place(text: str) -> str:
    """Argparse type for a folder or a URL."""
    return text if "://" in text else str(given_path(text))
