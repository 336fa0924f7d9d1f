"""`focaldiffusion infer`: stacks in, all-in-focus images and depth out."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from focaldiffusion.allocation import is_out_of_memory
from focaldiffusion.cli.flags import (
    Commands,
    Numbers,
    add_focus_distances,
    add_lens,
    add_psf,
    given_path,
    lens,
)
from focaldiffusion.cli.infer_flags import (
    DEPTH_FORMATS,
    add_looks,
    add_method,
    add_results,
    check_image_only,
    settings_of,
)
from focaldiffusion.cli.memory import lighter_work
from focaldiffusion.cli.model_flags import PHYSICS, add_model, chosen_model
from focaldiffusion.cli.networks import Networks, load_networks
from focaldiffusion.cli.outcome import INTERNAL_ERROR, StackOutcome, outcome_of
from focaldiffusion.cli.prior_flags import add_prior, chosen_prior
from focaldiffusion.cli.progress import progress_bars
from focaldiffusion.errors import InputError, printable

if TYPE_CHECKING:
    from focaldiffusion.io.stacks import OpenedStack
    from focaldiffusion.reconstruction import Settings

_OWN_SUFFIX = "_focaldiffusion"
"""Ending of the results folder beside a stack, used without --output."""


def add_parser(commands: Commands) -> None:
    """Add the command to those of `focaldiffusion`."""
    parser = commands.add_parser(
        "infer",
        help="all-in-focus image and depth of focal stacks",
        description="Recover the all-in-focus image and the depth of focal stacks. Without focus "
        "settings the depth is relative; with them it is metric.",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "stacks", nargs="*", metavar="STACK", help="folder of frames, or one multi-page TIFF"
    )
    parser.add_argument(
        "--files", nargs="+", metavar="FILE", help="frames of one stack, instead of STACK"
    )
    parser.add_argument(
        "--output",
        type=given_path,
        metavar="DIR",
        help="folder for the results; several stacks get DIR/<stack name> each (default: "
        f"STACK{_OWN_SUFFIX} beside each stack)",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace earlier results")
    existing.add_argument(
        "--skip-existing", action="store_true", help="skip stacks that already have results"
    )
    add_results(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of the summary"
    )
    parser.add_argument("--quiet", action="store_true", help="print only errors")

    focus = parser.add_argument_group(
        "focus", "Overrides stack.json and EXIF. One value per frame, in the order of the frames."
    ).add_mutually_exclusive_group()
    add_focus_distances(focus)
    focus.add_argument(
        "--focus-positions",
        action=Numbers,
        nargs="+",
        metavar="METRES",
        help="position of a rail or stage for each frame, such as 0,1e-5,2e-5 [m]",
    )
    add_lens(parser, "Overrides stack.json, which overrides EXIF.")
    add_psf(parser).add_argument(
        "--find-blur",
        action="store_true",
        help="measure the blur per dioptre from the frames even if the lens is known",
    )
    add_method(parser)
    add_looks(parser)
    add_prior(parser)
    add_model(parser)


def run(options: argparse.Namespace) -> int:
    """Reconstruct the stacks and return the exit code.

    Flags, outputs, model and prior are checked before the long work; a mistake in them stops
    everything. An unusable stack does not stop the others, nor does an error of this program,
    whose traceback is printed at the end.

    Raises:
        InputError: a flag is wrong, an output is taken, or the model or prior does not
            exist.
    """
    from focaldiffusion.io.results import check_formats, read_retouch

    check_image_only(options)
    if options.retouch is not None:
        read_retouch(options.retouch)  # a mistake in it stops everything
    check_formats(options.depth_format or DEPTH_FORMATS)
    settings = settings_of(options)
    jobs = _open_all(options)
    if options.retouch is not None and len(jobs) > 1:
        raise InputError(
            f"--retouch {options.retouch}: belongs to one stack, but {len(jobs)} are given. Run "
            "them one by one."
        )
    _check_outputs(jobs, options)
    model = chosen_model(options, settings.device)
    prior = chosen_prior(options, len(jobs))
    networks = Networks(model)
    if any(_is_due(job, options) for job in jobs):
        networks = load_networks(model, prior, settings.device, quiet=options.quiet)
    several = len(jobs) > 1
    outcomes: list[StackOutcome] = []
    for number, job in enumerate(jobs, start=1):
        title = f"{job.name} ({number} of {len(jobs)})" if several else job.name
        outcome = _process(job, settings, options, title, networks)
        outcomes.append(outcome)
        if outcome.error is not None:
            print(f"error: {outcome.failure if several else outcome.error}", file=sys.stderr)
        elif not options.quiet:
            _report(outcome, summary=not options.json)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed and several:
        print(f"{len(failed)} of {len(jobs)} stacks failed:", file=sys.stderr)
        for outcome in failed:
            print(f"  {outcome.failure}", file=sys.stderr)
    if options.json:
        _print_json(outcomes)
    unexpected = [outcome.traceback for outcome in failed if outcome.traceback is not None]
    for text in unexpected:
        print(text, file=sys.stderr)
    if unexpected:
        return INTERNAL_ERROR
    if not failed:
        return 0
    return 2 if len(failed) == len(jobs) else 1


@dataclass(frozen=True)
class _Job:
    """A given stack, opened or with its failure, and the folder of its results."""

    source: str | list[str]
    opened: OpenedStack | None = None
    failure: StackOutcome | None = None
    output: Path | None = None

    @property
    def name(self) -> str:
        """The stack's name; the path as given if it could not be opened."""
        return self.opened.name if self.opened is not None else _given(self.source)

    def folders(self) -> set[Path]:
        """Folders in which any new picture would count as a frame."""
        if self.opened is None:
            return set()
        paths = {Path(path).resolve() for path in _paths(self.source)}
        if isinstance(self.source, list):
            return {path.parent for path in paths}
        return {path for path in paths if path.is_dir()}


def _paths(source: str | list[str]) -> list[str]:
    return source if isinstance(source, list) else [source]


def _given(source: str | list[str]) -> str:
    """A stack as it was given."""
    return " ".join(_paths(source))


def _open_all(options: argparse.Namespace) -> list[_Job]:
    """Open every stack, which checks everything but the pixels."""
    from focaldiffusion.io.stacks import open_stack

    if bool(options.stacks) == bool(options.files):
        raise InputError("give either stacks, or the frames of one stack with --files.")
    if "" in (options.stacks or options.files):
        raise InputError("a path is empty, perhaps from an unset variable; expected a stack.")
    given = {
        "focus_distances_m": options.focus_distances,
        "focus_positions_m": options.focus_positions,
        "lens": lens(options),
        "order": options.order,
    }
    sources = [options.files] if options.files else options.stacks
    jobs: list[_Job] = []
    for source in sources:
        try:
            opened = open_stack(source, **given)
            output = _output(source, opened, options, len(sources))
        except Exception as error:
            jobs.append(_Job(source, failure=_failure(_given(source), None, error)))
        else:
            jobs.append(_Job(source, opened, output=output))
    return jobs


def _failure(name: str, output: Path | None, error: Exception) -> StackOutcome:
    """The outcome of a stack that an exception ended; called where it is caught."""
    if isinstance(error, InputError):
        return StackOutcome(name, output, "failed", str(error))
    sentence = (
        f"{name}: unexpected {type(error).__name__}: {error}. This is an error of focaldiffusion; "
        "please report it with the traceback at the end."
    )
    text = traceback.format_exc()
    return StackOutcome(name, output, "failed", printable(sentence), traceback=text)


def _output(
    source: str | list[str], opened: OpenedStack, options: argparse.Namespace, stack_count: int
) -> Path:
    """Folder of the results of a stack."""
    if options.output is not None:
        return options.output / opened.name if stack_count > 1 else options.output
    first = Path(_paths(source)[0]).resolve()
    stack = first.parent if isinstance(source, list) else first
    return stack.parent / f"{stack.name if stack.is_dir() else stack.stem}{_OWN_SUFFIX}"


def _check_outputs(jobs: list[_Job], options: argparse.Namespace) -> None:
    """Check all outputs before any work.

    Raises:
        InputError: an output is shared by two stacks, holds results, is a folder of frames, or
            cannot be written.
    """
    from focaldiffusion.io.results import check_output, has_results
    from focaldiffusion.io.staging import recover

    sources: dict[Path, str] = {}
    folders = set().union(*(job.folders() for job in jobs))
    for job in jobs:
        if job.output is None:
            continue
        source = _given(job.source)
        # Some file systems ignore case.
        key = job.output.parent / job.output.name.casefold()
        if key in sources:
            raise InputError(
                f"{sources[key]} and {source}: their results would go to the same folder, "
                f"{job.output}. Run them separately, with different outputs."
            )
        sources[key] = source
        if job.output.resolve() in folders:
            raise InputError(
                f"{job.output}: holds the frames of a stack, and the results would count as "
                "frames next time. Choose another output."
            )
        recover(job.output)  # the earlier results of a killed process
        if not (options.skip_existing and has_results(job.output)):
            check_output(job.output, overwrite=options.overwrite)


def _is_due(job: _Job, options: argparse.Namespace) -> bool:
    """Whether a stack must be reconstructed: it is open, and has no results to keep."""
    from focaldiffusion.io.results import has_results

    if job.opened is None or job.output is None:
        return False
    return not (options.skip_existing and has_results(job.output))


def _process(
    job: _Job,
    settings: Settings,
    options: argparse.Namespace,
    title: str,
    networks: Networks,
) -> StackOutcome:
    """Reconstruct one stack and write its results."""
    from focaldiffusion.io.results import read_retouch
    from focaldiffusion.reconstruction import DoubtfulInput, reconstruct
    from focaldiffusion.threads import threads

    if job.opened is None or job.output is None:
        assert job.failure is not None
        return job.failure
    if not _is_due(job, options):
        return StackOutcome(job.name, job.output, "skipped")
    try:
        with progress_bars(title, quiet=options.quiet) as progress, threads(settings.threads):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DoubtfulInput)  # the summary has it
                result = reconstruct(
                    job.opened,
                    prior=networks.prior,
                    model=networks.pipeline or PHYSICS,
                    settings=settings,
                    progress=progress,
                )
            if options.retouch is not None:
                result = result.retouched(read_retouch(options.retouch))
            page = None
            if options.html:
                from focaldiffusion.living_picture.picture import living_picture

                progress("living picture", 0, 0)
                page = living_picture(result)
            progress("writing", 0, 0)
            left_out = result.save(
                job.output,
                overwrite=options.overwrite,
                point_cloud=options.point_cloud or "auto",
                depth_formats=options.depth_format or DEPTH_FORMATS,
                living_picture=page,
            )
            return outcome_of(job.opened, result, job.output, left_out)
    except Exception as error:
        if isinstance(error, InputError) or not is_out_of_memory(error):
            return _failure(job.name, job.output, error)
        height, width = job.opened.frames.size
        sentence = (
            f"{job.name}: not enough memory on {settings.device} for {len(job.opened)} frames of "
            f"{width}x{height}. {lighter_work(networks.chosen)}"
        )
        return StackOutcome(job.name, job.output, "failed", printable(sentence))


def _report(outcome: StackOutcome, *, summary: bool) -> None:
    """Print the warnings and the summary of a finished stack."""
    for warning in outcome.warnings:
        print(f"warning: {printable(warning)}", file=sys.stderr)
    if summary:
        print(outcome.summary(), flush=True)


def _print_json(outcomes: list[StackOutcome]) -> None:
    from focaldiffusion import __version__
    from focaldiffusion.io.results import strict_json

    content = {
        "focaldiffusion": __version__,
        "stacks": [strict_json(asdict(outcome)) for outcome in outcomes],
    }
    print(json.dumps(content, indent=2, allow_nan=False))
