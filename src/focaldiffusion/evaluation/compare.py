"""Comparison of two runs, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focaldiffusion.errors import InputError, printable
from focaldiffusion.evaluation.records import Record, read_records
from focaldiffusion.evaluation.scoring import METRICS
from focaldiffusion.evaluation.statistics import CONFIDENCE, FEW_SCENES, Difference, difference
from focaldiffusion.evaluation.tables import UNBOUNDED, decimals, heading, number

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Comparison:
    """A model of run A and a model of run B on the samples that count and that both have.

    Attributes:
        protocol: of both runs.
        model_a, model_b: models of run A and of run B.
        samples: number of samples that both have.
        scenes: number of scenes they show.
        only_a, only_b: samples that only one has, because the other lacks them or failed.
        metrics: by the names of `scoring.METRICS`, each over the samples that have it (a flat wall
            has no boundary F1).
    """

    protocol: str
    model_a: str
    model_b: str
    samples: int
    scenes: int
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    metrics: dict[str, Difference]

    def as_json(self) -> dict[str, Any]:
        """The comparison as JSON, with verdicts."""
        metrics = {
            name: {**asdict(found), "verdict": found.verdict}
            for name, found in self.metrics.items()
        }
        return {**asdict(self), "metrics": metrics}


def compare(
    a: Path, b: Path, model_a: str | None = None, model_b: str | None = None
) -> list[Comparison]:
    """Compare the models of two runs on the unperturbed protocol.

    Args:
        a: folder of run A.
        b: folder of run B; may be the same, to compare two of its models.
        model_a, model_b: models of A and B; None takes the only one, or each that both runs have.

    Raises:
        InputError: no run, different protocols, an unknown model, or no sample in common.
    """
    runs = [
        [record for record in read_records(folder) if record.variant is None and record.counted]
        for folder in (a, b)
    ]
    protocols = [{record.protocol for record in run} for run in runs]
    for folder, names in zip((a, b), protocols, strict=True):
        if not names:
            raise InputError(f"{folder}: has no sample that counts. Let the evaluation continue.")
    if protocols[0] != protocols[1]:
        one, other = (", ".join(sorted(names)) for names in protocols)
        raise InputError(
            f"{a} follows protocol {one}, {b} follows {other}; their figures do not compare. "
            "Evaluate both on one data set."
        )
    pairs = _pairs(a, b, [{record.model for record in run} for run in runs], model_a, model_b)
    return [_compared(a, b, runs[0], runs[1], *pair) for pair in pairs]


def _pairs(
    a: Path, b: Path, models: Sequence[set[str]], model_a: str | None, model_b: str | None
) -> list[tuple[str, str]]:
    """Models of A and B to compare with each other."""
    for folder, there, wanted in ((a, models[0], model_a), (b, models[1], model_b)):
        if wanted is not None and wanted not in there:
            raise InputError(
                f"{folder}: has no model {wanted!r}; expected one of {', '.join(sorted(there))}."
            )
    choices = [
        sorted(there) if wanted is None else [wanted]
        for there, wanted in zip(models, (model_a, model_b), strict=True)
    ]
    if len(choices[0]) == len(choices[1]) == 1:
        return [(choices[0][0], choices[1][0])]
    common = [(name, name) for name in choices[0] if name in choices[1]]
    if not common:
        raise InputError(
            f"{a} has {', '.join(choices[0])}; {b} has {', '.join(choices[1])}: ambiguous. Choose "
            "with --model-a and --model-b."
        )
    return common


def _compared(
    a: Path, b: Path, run_a: list[Record], run_b: list[Record], model_a: str, model_b: str
) -> Comparison:
    done_a, done_b = (
        {record.sample: record for record in run if record.model == model and record.metrics}
        for run, model in ((run_a, model_a), (run_b, model_b))
    )
    common = [sample for sample in done_a if sample in done_b]
    if not common:
        raise InputError(
            f"{model_a} of {a} and {model_b} of {b} have no scored sample in common. Evaluate both "
            "on the same data."
        )
    metrics = {}
    for name, metric in METRICS.items():
        both = [
            (done_a[sample].metrics[name], done_b[sample].metrics[name], done_a[sample].scene)
            for sample in common
            if name in done_a[sample].metrics and name in done_b[sample].metrics
        ]
        if both and not metric.oracle:
            ours, theirs, scenes = zip(*both, strict=True)
            metrics[name] = difference(ours, theirs, scenes, metric.better)
    return Comparison(
        done_a[common[0]].protocol,
        model_a,
        model_b,
        len(common),
        len({done_a[sample].scene for sample in common}),
        tuple(sample for sample in done_a if sample not in done_b),
        tuple(sample for sample in done_b if sample not in done_a),
        metrics,
    )


def print_comparison(found: Comparison, console: Console) -> None:
    """Print a table of every shared metric, with notes on samples and scenes."""
    from rich import box
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    title = f"{found.protocol}: A {found.model_a}, B {found.model_b}"
    grid = Table(title=Text(printable(title)), title_justify="left", box=box.SIMPLE_HEAD)
    grid.add_column("metric", no_wrap=True)
    for name in ("A", "B", "B − A", f"{100 * CONFIDENCE:g} % interval", "P(B better)"):
        grid.add_column(name, justify="right")
    grid.add_column("B is")
    styles = {"better": "bold green", "worse": "bold red"}
    for name, metric in found.metrics.items():
        change = metric.change
        places = decimals(name, [metric.a, metric.b])
        interval = change.interval
        grid.add_row(
            Text(heading(name)),
            number(metric.a, places),
            number(metric.b, places),
            number(change.mean, places),
            " to ".join(number(end, places) for end in interval) if interval else "–",
            "–" if metric.b_better is None else f"{metric.b_better:.3f}",
            Text(metric.verdict, style=styles.get(metric.verdict, "dim")),
        )
    natural = Measurement.get(console, console.options.update(max_width=UNBOUNDED), grid).maximum
    # A narrower terminal breaks the lines, where rich would cut the numbers.
    console.width = max(console.width, natural)
    console.print(grid)
    for note in _notes(found):
        console.print(Text(printable(note)))


def _notes(found: Comparison) -> list[str]:
    notes = [
        f"{found.samples} samples of {found.scenes} scenes in both. Paired bootstrap over scenes; "
        "each metric is judged on its own, so about one in twenty equal ones will seem to differ."
    ]
    if found.scenes < FEW_SCENES:
        notes.append(
            f"Fewer than {FEW_SCENES} scenes: even if all agree, it may be chance, so there is no "
            "verdict."
        )
    for name, other, only in (("A", "B", found.only_a), ("B", "A", found.only_b)):
        if only:
            notes.append(
                f"{len(only)} more have figures in {name} only; {other} lacks them or failed: "
                f"{', '.join(only[:3])}{', ...' if len(only) > 3 else ''}."
            )
    return notes
