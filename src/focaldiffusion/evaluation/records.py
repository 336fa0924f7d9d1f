"""Records: what became of one sample, one model and one variant, a line of JSON each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from focaldiffusion.errors import InputError

SAMPLES = "samples.jsonl"
RUN = "run.json"


@dataclass(frozen=True)
class Record:
    """One model on one sample.

    Attributes:
        protocol: name of the protocol.
        variant: what was made worse, such as "focus_scale=1.05"; None for the protocol as it is.
        sample: name of the sample.
        scene: its physical scene, over which confidence intervals are drawn.
        counted: whether it enters the mean.
        model: name of the model.
        status: failed means that there is no prediction; `error` says why.
        metrics: by the names of `scoring.METRICS`.
        seconds: wall time of the prediction.
        peak_memory_mib: of the process that made it, so far.
        calibration: ten rows of mean confidence, AbsRel and share of pixels; None without
            confidence.
        picture: of the result, relative to the folder of the run.
        prediction_sha256: of the files of another tool's prediction; None for a model that ran.
    """

    protocol: str
    variant: str | None
    sample: str
    scene: str
    counted: bool
    model: str
    status: Literal["done", "failed"]
    error: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    peak_memory_mib: int | None = None
    calibration: list[list[float]] | None = None
    picture: str | None = None
    prediction_sha256: str | None = None

    @property
    def key(self) -> tuple[str | None, str, str]:
        """What tells it from the others of its run."""
        return self.variant, self.sample, self.model

    def line(self) -> str:
        """As a line of the file."""
        return json.dumps(asdict(self)) + "\n"


def read_records(directory: Path) -> list[Record]:
    """The records of a run, the latest of each key; a line cut off by a crash is dropped.

    Raises:
        InputError: no run there, or a line that no run wrote.
    """
    path = directory / SAMPLES
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{directory}: holds no evaluation ({SAMPLES} cannot be read: {error.strerror}). Give "
            "the --output-dir of focaldiffusion evaluate."
        ) from error
    complete, _, _ = text.rpartition("\n")
    latest: dict[Any, Record] = {}
    for number, line in enumerate(complete.split("\n") if complete else (), start=1):
        try:
            record = Record(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}:{number}: no record of an evaluation ({error}).") from error
        latest[record.key] = record
    return list(latest.values())


def write_records(directory: Path, records: Iterable[Record]) -> None:
    """Replace the file of records by these."""
    partial = directory / f".{SAMPLES}.partial"
    partial.write_text("".join(record.line() for record in records), encoding="utf-8")
    partial.replace(directory / SAMPLES)
