"""Records: the outcome of one model on one variant of one sample, a line of JSON each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from focaldiffusion.errors import InputError
from focaldiffusion.files import why_not_file
from focaldiffusion.io.staging import write_whole

SAMPLES = "samples.jsonl"
RUN = "run.json"


@dataclass(frozen=True)
class Record:
    """One model on one sample.

    Attributes:
        protocol: name of the protocol.
        variant: the perturbation, such as "focus_scale=1.05"; None for the unperturbed protocol.
        sample: name of the sample.
        scene: its physical scene; confidence intervals resample scenes.
        counted: whether it enters the mean.
        model: name of the model.
        status: failed if there is no prediction; `error` gives the reason.
        metrics: by the names of `scoring.METRICS`.
        seconds: wall time of the prediction.
        peak_memory_mib: peak of the predicting process up to then.
        calibration: ten rows of `metrics.Decile`; None without confidence.
        picture: path of the result's picture, relative to the folder of the run.
        prediction_sha256: hash of another tool's prediction files; None for a model that ran.
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
        """Its identity within the run: variant, sample, model."""
        return self.variant, self.sample, self.model

    def line(self) -> str:
        """The record as one line of JSON."""
        return json.dumps(asdict(self)) + "\n"


def read_records(directory: Path) -> list[Record]:
    """The records of a run, the latest of each key; a line cut off by a crash is dropped.

    Raises:
        InputError: the folder holds no run, or a line is damaged.
    """
    path = directory / SAMPLES
    if why := why_not_file(path):
        raise InputError(
            f"{directory}: holds no evaluation ({SAMPLES}: {why}). Give the --output-dir of "
            "focaldiffusion evaluate."
        )
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
            raise InputError(
                f"{path}:{number}: not a record of an evaluation ({error}). Evaluate again into "
                "another folder."
            ) from error
        latest[record.key] = record
    return list(latest.values())


def write_records(directory: Path, records: Iterable[Record]) -> None:
    """Replace the file of records."""
    write_whole(directory / SAMPLES, "".join(record.line() for record in records).encode())
