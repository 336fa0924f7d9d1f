"""Summary of a run: means with their intervals, failures and costs of every model."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.baselines import ALIGNING, MODELS
from focaldiffusion.evaluation.configured import AnyProtocol, ConfiguredSplit
from focaldiffusion.evaluation.plan import protocol_of
from focaldiffusion.evaluation.records import SAMPLES, Record, read_records, read_run
from focaldiffusion.evaluation.scoring import METRICS
from focaldiffusion.evaluation.statistics import (
    CONFIDENCE,
    FEW_SCENES,
    RESAMPLES,
    SampleMean,
    sample_mean,
)


@dataclass(frozen=True)
class Scores:
    """One model on one variant of the protocol, over the samples that count.

    Attributes:
        means: by the names of `scoring.METRICS`, each over the samples that have it.
        samples: number of samples, failed ones included.
        failed: number of samples without a prediction.
        seconds: mean wall time of a prediction; None if all failed.
        peak_memory_mib: largest peak of the predicting processes.
        calibration: ten rows of `metrics.Decile`, each a mean over samples.
    """

    means: dict[str, SampleMean]
    samples: int
    failed: int
    seconds: float | None
    peak_memory_mib: int | None
    calibration: list[list[float]] | None


@dataclass(frozen=True)
class Summary:
    """A run of `focaldiffusion evaluate`.

    Attributes:
        directory: its folder.
        run: the facts in `run.json`.
        protocol: the protocol it followed.
        records: one per sample, model and variant.
        models: trained ones and stored predictions, then those that need no training.
        scores: by variant (None for the unperturbed protocol) and model.
    """

    directory: Path
    run: dict[str, Any]
    protocol: AnyProtocol
    records: Sequence[Record]
    models: tuple[str, ...]
    scores: dict[tuple[str | None, str], Scores]

    @property
    def title(self) -> str:
        """Name of the protocol, marked if the truth chose the focus planes."""
        mark = " (oracle: focus planes taken from the truth)" if self.protocol.oracle else ""
        return f"{self.protocol.name}{mark}"

    @property
    def plain(self) -> dict[str, Scores]:
        """Scores on the unperturbed protocol, by model."""
        return {
            model: self.scores[None, model] for model in self.models if (None, model) in self.scores
        }

    @property
    def by_source(self) -> dict[str, Summary]:
        """The part of each source of a configured split, by its name; else none."""
        if not isinstance(self.protocol, ConfiguredSplit):
            return {}
        parts: dict[str, list[Record]] = defaultdict(list)
        for record in self.records:
            parts[self.protocol.source_of(record.sample)].append(record)
        return {
            name: replace(self, records=part, scores=_scores_of(part))
            for name, part in parts.items()
        }

    @property
    def untrained(self) -> list[str]:
        """The models that need no training."""
        return [model for model in self.models if model in MODELS]

    @property
    def variants(self) -> list[str]:
        """The perturbed variants, in the order of the run."""
        return list(dict.fromkeys(variant for variant, _ in self.scores if variant is not None))

    @property
    def failures(self) -> list[Record]:
        """The records without a prediction."""
        return [record for record in self.records if record.status == "failed"]

    def failure_notes(self) -> list[str]:
        """A sentence per model and variant with failed samples that count, with a first reason."""
        notes = []
        for (variant, model), scores in self.scores.items():
            if scores.failed:
                first = next(
                    record
                    for record in self.failures
                    if (record.variant, record.model, record.counted) == (variant, model, True)
                )
                where = f", {variant}" if variant else ""
                notes.append(
                    f"{scores.failed} of {scores.samples} samples failed for {model}{where} and "
                    f"are not in its means. First: {first.sample}: {first.error}"
                )
        return notes

    def alignment_note(self) -> str:
        """Which models registered the frames first, on which the figures of motion depend."""
        on = [model for model in self.models if model in ALIGNING]
        off = [model for model in self.models if model not in ALIGNING]
        parts = [
            f"{state} for {', '.join(models)}"
            for state, models in (("on", on), ("off", off))
            if models
        ]
        return f"Alignment of the frames was {', '.join(parts)}."

    def counts_note(self) -> str:
        """Number of samples and scenes in the means, and how far to trust the intervals."""
        plain = [record for record in self.records if record.variant is None]
        counted = {record.sample: record.scene for record in plain if record.counted}
        scenes = len(set(counted.values()))
        note = f"Means over {len(counted)} samples of {scenes} scenes"
        if isinstance(self.protocol, ConfiguredSplit):
            sources = set(map(self.protocol.source_of, counted))
            note += f" from {len(sources)} sources" if len(sources) > 1 else ""
        if left_out := len({record.sample for record in plain}) - len(counted):
            note += f"; {left_out} more reported but not in the mean"
        note += f". Intervals: {100 * CONFIDENCE:g} %, bootstrap over scenes."
        if 0 < scenes < FEW_SCENES:
            note += " Few scenes: intervals are too narrow, and other scenes may differ widely."
        return note


def summarise(directory: Path) -> Summary:
    """Read a run and take its means.

    Raises:
        InputError: the folder holds no run, or the run is empty or follows an unknown protocol.
    """
    records = read_records(directory)
    if not records:
        raise InputError(f"{directory / SAMPLES}: is empty. Let the evaluation continue.")
    remedy = "The settings of the run are unknown: evaluate again into another folder."
    run = read_run(directory, "cannot be read", remedy)
    names = dict.fromkeys(record.model for record in records if record.variant is None)
    return Summary(
        directory,
        run,
        protocol_of(run, records[0].protocol),
        records,
        (
            *(model for model in names if model not in MODELS),
            *(model for model in MODELS if model in names),
        ),
        _scores_of(records),
    )


def write_metrics(summary: Summary, directory: Path) -> None:
    """Write `metrics.json` and `metrics.csv`.

    The JSON holds all means and the samples of the unperturbed protocol, the CSV a row per record.
    """
    content = json.dumps(_as_json(summary), indent=2, allow_nan=False)
    (directory / "metrics.json").write_text(content + "\n", encoding="utf-8")
    # A byte of a name that is not UTF-8 cannot be encoded; JSON escapes it by itself.
    (directory / "metrics.csv").write_text(
        _as_csv(summary.records), encoding="utf-8", errors="backslashreplace"
    )


def _scores_of(records: Iterable[Record]) -> dict[tuple[str | None, str], Scores]:
    """Scores by variant and model."""
    groups: dict[tuple[str | None, str], list[Record]] = defaultdict(list)
    for record in records:
        groups[record.variant, record.model].append(record)
    return {key: _scores(group) for key, group in groups.items()}


def _scores(records: list[Record]) -> Scores:
    counted = [record for record in records if record.counted]
    done = [record for record in counted if record.status == "done"]
    means = {}
    for name in METRICS:
        having = [record for record in done if name in record.metrics]
        if having:
            values = [record.metrics[name] for record in having]
            mean = sample_mean(values, [record.scene for record in having])
            means[name] = replace(mean, spread=_spread(name, having))
    calibrations = [record.calibration for record in done if record.calibration is not None]
    memory = [record.peak_memory_mib for record in done if record.peak_memory_mib is not None]
    return Scores(
        means,
        samples=len(counted),
        failed=len(counted) - len(done),
        seconds=float(np.mean([record.seconds for record in done])) if done else None,
        peak_memory_mib=max(memory, default=None),
        calibration=np.mean(calibrations, axis=0).tolist() if calibrations else None,
    )


def _spread(name: str, records: Sequence[Record]) -> float | None:
    """Standard deviation over repeats of the mean of a metric; None unless all were repeated."""
    repeats = [[run[name] for run in record.repeats if name in run] for record in records]
    if min(map(len, repeats)) < 2 or len(set(map(len, repeats))) > 1:
        return None
    return float(np.std(np.mean(repeats, axis=0), ddof=1))


def _as_json(summary: Summary) -> dict[str, Any]:
    protocol, by_source = summary.protocol, summary.by_source
    found = {name for scores in summary.scores.values() for name in scores.means}
    return {
        "run": summary.run,
        "protocol": {
            "name": protocol.name,
            "oracle": protocol.oracle,
            "about": protocol.about,
            **protocol.settings(),
        },
        "bootstrap": {
            "over": "scenes",
            "confidence": CONFIDENCE,
            "resamples": RESAMPLES,
            "few_scenes_below": FEW_SCENES,
        },
        "metrics": {name: asdict(metric) for name, metric in METRICS.items() if name in found},
        "models": {
            model: {
                "aligns_frames": model in ALIGNING,
                **_scores_as_json(scores),
                "sources": {
                    name: _scores_as_json(part.plain[model])
                    for name, part in by_source.items()
                    if model in part.plain
                },
                "variants": {
                    variant: _scores_as_json(summary.scores[variant, model])
                    for variant in summary.variants
                    if (variant, model) in summary.scores
                },
            }
            for model, scores in summary.plain.items()
        },
        "published": [asdict(row) for row in protocol.published],
        "samples": [asdict(record) for record in summary.records if record.variant is None],
    }


def _scores_as_json(scores: Scores) -> dict[str, Any]:
    means = {}
    for name, mean in scores.means.items():
        low, high = mean.interval or (None, None)
        means[name] = {
            "mean": mean.mean,
            "low": low,
            "high": high,
            "spread": mean.spread,
            "samples": mean.samples,
            "scenes": mean.scenes,
            "few_scenes": mean.few_scenes,
        }
    return {**asdict(scores), "means": means}


def _as_csv(records: Sequence[Record]) -> str:
    found = [name for name in METRICS if any(name in record.metrics for record in records)]
    facts = ("protocol", "variant", "sample", "scene", "counted", "model", "status")
    costs = ("seconds", "peak_memory_mib", "error")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*facts, *found, *costs])
    for record in records:
        writer.writerow(
            [
                *(getattr(record, name) for name in facts),
                *(record.metrics.get(name) for name in found),
                *(getattr(record, name) for name in costs),
            ]
        )
    return text.getvalue()
