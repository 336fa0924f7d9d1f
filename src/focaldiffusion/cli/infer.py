"""`focaldiffusion infer`: stacks in, all-in-focus images and depth out."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from focaldiffusion.allocation import uncollected
from focaldiffusion.cli.flags import (
    Commands,
    Numbers,
    add_focus_distances,
    add_lens,
    given_path,
    lens,
)
from focaldiffusion.cli.infer_flags import (
    DEPTH_FORMATS,
    add_blur,
    add_looks,
    add_method,
    add_results,
    check_image_only,
    settings_of,
)
from focaldiffusion.cli.memory import lighter_work
from focaldiffusion.cli.model_flags import add_model, chosen_model
from focaldiffusion.cli.networks import Networks, load_networks
from focaldiffusion.cli.outcome import INTERNAL_ERROR, StackOutcome, outcome_of
from focaldiffusion.cli.prior_flags import add_prior, chosen_prior
from focaldiffusion.cli.progress import progress_bars
from focaldiffusion.engines.engine import Here
from focaldiffusion.errors import InputError, printable

if TYPE_CHECKING:
    from focaldiffusion.archive.recipe import Recipe
    from focaldiffusion.cli.model_flags import ChosenModel
    from focaldiffusion.io.stacks import OpenedStack
    from focaldiffusion.priors.given import GivenPrior
    from focaldiffusion.priors.shelf import FoundNetwork

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
    add_blur(parser)
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
    with uncollected():
        from focaldiffusion.archive.recipe import Recipe
        from focaldiffusion.io.results import check_formats, read_retouch

    check_image_only(options)
    if options.retouch is not None:
        read_retouch(options.retouch)  # a mistake in it stops everything
    formats = options.depth_format or DEPTH_FORMATS
    check_formats(formats)
    settings = settings_of(options)
    recipe = Recipe(settings, options.order, lens(options), formats, options.point_cloud or "auto")
    jobs = _open_all(options, recipe)
    if options.retouch is not None and len(jobs) > 1:
        raise InputError(
            f"--retouch {options.retouch}: belongs to one stack, but {len(jobs)} are given. Run "
            "them one by one."
        )
    _check_outputs(jobs, options)
    model = chosen_model(options, settings.device, has_prior=options.prior is not None)
    prior = chosen_prior(options, len(jobs))
    several = len(jobs) > 1
    outcomes: list[StackOutcome] = []
    for outcome in Here(_Workshop(options, recipe, jobs, model, prior)).run(range(len(jobs))):
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


def _open_all(options: argparse.Namespace, recipe: Recipe) -> list[_Job]:
    """Open every stack, which checks everything but the pixels."""
    from focaldiffusion.archive.making import failure
    from focaldiffusion.io.stacks import open_stack

    if bool(options.stacks) == bool(options.files):
        raise InputError("give either stacks, or the frames of one stack with --files.")
    if "" in (options.stacks or options.files):
        raise InputError("a path is empty, perhaps from an unset variable; expected a stack.")
    given = {
        "focus_distances_m": options.focus_distances,
        "focus_positions_m": options.focus_positions,
        "lens": recipe.lens,
        "order": recipe.order,
    }
    sources = [options.files] if options.files else options.stacks
    jobs: list[_Job] = []
    for source in sources:
        try:
            opened = open_stack(source, **given)
            output = _output(source, opened, options, len(sources))
        except Exception as error:
            sentence, text = failure(_given(source), error, recipe)
            failed = StackOutcome(_given(source), None, "failed", sentence, traceback=text)
            jobs.append(_Job(source, failure=failed))
        else:
            jobs.append(_Job(source, opened, output=output))
    return jobs


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


class _Workshop:
    """All stacks of the command, made in this process; see `engines.Workshop`."""

    def __init__(
        self,
        options: argparse.Namespace,
        recipe: Recipe,
        jobs: list[_Job],
        model: ChosenModel | None,
        prior: FoundNetwork | GivenPrior | None,
    ) -> None:
        self._options, self._jobs, self._model, self._prior = options, jobs, model, prior
        self._recipe = replace(recipe, lighter=lighter_work(model))
        self._networks = Networks(model)

    def open(self) -> _Workshop:
        """Load the networks, unless all results exist.

        Raises:
            InputError: see `load_networks`.
        """
        if any(_is_due(job, self._options) for job in self._jobs):
            self._networks = load_networks(
                self._model, self._prior, self._recipe.settings.device, quiet=self._options.quiet
            )
        return self

    def run(self, number: int) -> StackOutcome:
        """Reconstruct the stack of this index and write its results."""
        from focaldiffusion.archive.making import failure, make_results
        from focaldiffusion.io.results import read_retouch

        options, job = self._options, self._jobs[number]
        if job.opened is None or job.output is None:
            assert job.failure is not None
            return job.failure
        if not _is_due(job, options):
            return StackOutcome(job.name, job.output, "skipped")
        several = f" ({number + 1} of {len(self._jobs)})" if len(self._jobs) > 1 else ""
        try:
            with progress_bars(f"{job.name}{several}", quiet=options.quiet) as progress:
                result, left_out = make_results(
                    job.opened,
                    job.output,
                    self._recipe,
                    model=self._networks.pipeline,
                    prior=self._networks.prior,
                    overwrite=options.overwrite,
                    retouch=None if options.retouch is None else read_retouch(options.retouch),
                    with_page=options.html,
                    progress=progress,
                )
                return outcome_of(job.opened, result, job.output, left_out)
        except Exception as error:
            sentence, text = failure(job.name, error, self._recipe, job.opened)
            return StackOutcome(job.name, job.output, "failed", sentence, traceback=text)


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
