"""`focaldiffusion evaluate`: models and baselines on a protocol, with a report."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from focaldiffusion.cli.engine_flags import add_engine, check_engine, cluster_engine
from focaldiffusion.cli.flags import (
    Commands,
    add_device,
    given_path,
    positive_integer,
    read_config,
    shard,
)
from focaldiffusion.cli.model_flags import PHYSICS, add_base_model
from focaldiffusion.cli.prior_flags import add_prior, chosen_kind
from focaldiffusion.cli.progress import progress_bars
from focaldiffusion.devices import resolve_device
from focaldiffusion.errors import InputError, printable
from focaldiffusion.progress import Meter
from focaldiffusion.shards import Shard

if TYPE_CHECKING:
    from focaldiffusion.evaluation.plan import EvaluationPlan

_BASELINES = ("physics", "argmax", "shape-from-focus", "laplacian-pyramid")


def add_parser(commands: Commands) -> None:
    """Add the command to those of `focaldiffusion`."""
    parser = commands.add_parser(
        "evaluate",
        help="score models against known depth and images",
        description="Run models on every sample of a protocol, score them, and write "
        "metrics.json, metrics.csv, report.html and a picture per sample. Give --dataset for a "
        "published protocol, or --config for a split of a configuration. The same command "
        "continues an interrupted run, and tries failed samples again.",
    )
    parser.set_defaults(run=run)
    _add_data(parser)
    parser.add_argument(
        "--output-dir", type=given_path, metavar="DIR", help="folder for the report"
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME",
        help="compact, the folder or hub id of a checkpoint, or a baseline such as "
        f"physics-aligned; repeatable (default: {PHYSICS})",
    )
    add_base_model(parser)
    parser.add_argument(
        "--no-baselines", action="store_true", help=f"leave out {', '.join(_BASELINES)}"
    )
    parser.add_argument(
        "--predictions",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="predictions of another tool, one folder per sample, repeatable",
    )
    add_prior(parser, action="append", default=[])
    parser.add_argument(
        "--save-predictions",
        action="store_true",
        help="keep depth, image and confidence of each model in DIR/predictions/MODEL/SAMPLE",
    )
    parser.add_argument(
        "--repeat",
        type=positive_integer,
        default=1,
        metavar="N",
        help="seeds of models that start from noise, for a mean and its spread (default: 1)",
    )
    parser.add_argument(
        "--export-stacks",
        type=given_path,
        metavar="DIR",
        help="write the stacks (not the truth) for another tool, and stop; stacks that an "
        "interrupted export has written stay",
    )
    parser.add_argument(
        "--list-samples",
        action="store_true",
        help="print sample, scene, whether it counts, and a digest of frames, truth, focus and "
        "camera, and stop",
    )
    parser.add_argument(
        "--robustness",
        choices=("none", "quick", "full"),
        default="none",
        help="also score with known errors in focus distances, lens, frames, noise ...",
    )
    _add_work(parser)


def _add_work(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose a part of the samples, and where they are computed."""
    parser.add_argument(
        "--max-samples",
        type=positive_integer,
        metavar="N",
        help="evaluate at most N samples, evenly spaced",
    )
    parser.add_argument(
        "--shard",
        type=shard,
        metavar="N/COUNT",
        help="only every COUNT-th sample from the N-th on, counted from 1: 1/20 to 20/20 are the "
        "jobs of an array; after all shards, the same command without it makes the report",
    )
    add_engine(
        parser,
        "processes; with slurm, jobs (default: 1; as many as the cluster has room for with ray; 10 "
        "jobs)",
    )
    add_device(parser)
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _add_data(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose the samples."""
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--dataset", metavar="NAME", help="a protocol, see docs/evaluation.md")
    data.add_argument(
        "--config", type=Path, metavar="FILE", help="a configuration, whose sources are scored"
    )
    parser.add_argument(
        "--data-root",
        metavar="DIR",
        help="folder of the data set, procedural scenes need none; with --config, short for "
        "--override data.data_root=DIR",
    )
    configured = parser.add_argument_group("split of a configuration")
    configured.add_argument(
        "--split", choices=("test", "val"), help="part of the data (default: test)"
    )
    configured.add_argument(
        "--source",
        action="append",
        metavar="NAME",
        help="a source of the split, repeatable (default: all)",
    )
    configured.add_argument(
        "--override",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="such as data.max_test_samples=50",
    )
    configured.add_argument(
        "--allow-missing", action="store_true", help="leave out samples without their files"
    )


def run(options: argparse.Namespace) -> int:
    """Evaluate, report and return the exit code: 1 if a prediction failed.

    Raises:
        InputError: an unknown name, missing data, damaged weights, or a folder with another run.
    """
    from focaldiffusion.evaluation.report import print_summary, write_report
    from focaldiffusion.evaluation.runner import evaluate
    from focaldiffusion.io.staging import file_errors_named

    if options.list_samples:
        return _list(options)
    if options.export_stacks is not None:
        return _export(options)
    if options.output_dir is None:
        raise InputError("--output-dir is missing: the folder for the report.")
    check_engine(options)
    plan = _plan(options)
    with (
        file_errors_named(options.output_dir),
        progress_bars(f"evaluating {plan.protocol}", quiet=options.quiet) as progress,
    ):
        records = evaluate(
            plan,
            options.output_dir,
            workers=options.workers or 1,
            engine=cluster_engine(options, plan.device),
            command=["focaldiffusion", *sys.argv[1:]],
            meter=Meter(partial(progress, "samples")),
            shard=options.shard,
        )
        summary = None if options.shard else write_report(options.output_dir)
    if summary is not None and not options.quiet:
        print_summary(summary)
        print(f"report: {shlex.quote(str(options.output_dir / 'report.html'))}")
    return 1 if any(record.status == "failed" for record in records) else 0


def _plan(options: argparse.Namespace) -> EvaluationPlan:
    """The plan of the flags.

    Raises:
        InputError: flags that do not go together, or a mistake in the configuration.
    """
    from focaldiffusion.evaluation.configured import ConfiguredSplit
    from focaldiffusion.evaluation.plan import EvaluationPlan
    from focaldiffusion.evaluation.robustness import SUITES

    alone = options.predictions and options.no_baselines
    models = options.model or ([] if alone else [PHYSICS])
    if not options.no_baselines:
        models += [name for name in _BASELINES if name not in models]
    plan = EvaluationPlan(
        protocol=options.dataset,
        data_root=options.data_root,
        models=tuple(dict.fromkeys(models)),
        base_model=options.base_model,
        priors=tuple(dict.fromkeys(options.prior)),
        prior_kind=None if (kind := chosen_kind(options)) is None else str(kind),
        predictions=tuple(map(str, options.predictions)),
        variants=SUITES[options.robustness],
        max_samples=options.max_samples,
        device=resolve_device(options.device),
        repeat=options.repeat,
        save_predictions=options.save_predictions,
    )
    if options.config is None:
        of_config = ("split", "source", "override", "allow_missing")
        if stray := [flag for flag in of_config if getattr(options, flag)]:
            raise InputError(
                f"--{stray[0].replace('_', '-')} does not apply to --dataset, whose protocol fixes "
                "everything; use it with --config."
            )
        return plan
    data = read_config(options, saves=False).data
    split = ConfiguredSplit.of(data, options.split or "test", options.source or ())
    return replace(plan, protocol=split.name, data_root=None, sources=split.sources)


def _list(options: argparse.Namespace) -> int:
    """Print a line for each sample and return the exit code."""
    from focaldiffusion.data.dataset import sha256_of_sample

    protocol, dataset = _plan(options).open()
    for index in protocol.indices(dataset, options.max_samples):
        name = dataset.name(index)
        counts = "counts" if protocol.counts(name) else "reported"
        digest = sha256_of_sample(dataset[index])
        print(printable("  ".join((name, dataset.scene_name(index), counts, digest))))
    return 0


def _export(options: argparse.Namespace) -> int:
    """Write the stacks of the protocol and return the exit code."""
    from focaldiffusion.evaluation.external import export_stack, is_exported

    protocol, dataset = _plan(options).open()
    chosen = (options.shard or Shard()).of(protocol.indices(dataset, options.max_samples))
    with progress_bars("exporting", quiet=options.quiet) as progress:
        for done, index in enumerate(chosen, 1):
            name = dataset.name(index)
            if not is_exported(options.export_stacks, name):
                stack = protocol.sample(dataset, index).stack
                export_stack(stack, options.export_stacks, name)
            progress("stacks", done, len(chosen))
    if not options.quiet:
        print(f"{len(chosen)} stacks in {options.export_stacks}; score predictions for them with")
        print("--predictions DIR, where DIR/SAMPLE holds depth.npy or all_in_focus.png")
    return 0
