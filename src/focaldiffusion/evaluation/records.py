"""Records: the outcome of one model on one variant of one sample, a line of JSON each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from focaldiffusion.errors import InputError
from focaldiffusion.files import why_not_file
from focaldiffusion.io.reading import parsed_json, read_json, reading
from focaldiffusion.io.staging import write_whole

SAMPLES = "samples.jsonl"
RUN = "run.json"


_Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e150, le=1e150)]
"""Sums and squares of such numbers are finite too."""


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
        metrics: by the names of `scoring.METRICS`; means over the repeats.
        seconds: wall time of the prediction.
        peak_memory_mib: peak of the predicting process up to then.
        calibration: ten rows of `metrics.Decile`; None without confidence.
        picture: path of the result's picture, relative to the folder of the run.
        prediction_sha256: hash of another tool's prediction files; None for a model that ran.
        repeats: metrics for each seed of a model that ran several times; else empty.
        data_sha256: digest of the sample's frames, truth, focus and camera before any variant; None
            for a sample that could not be read.
    """

    protocol: str
    variant: str | None
    sample: str
    scene: str
    counted: bool
    model: str
    status: Literal["done", "failed"]
    error: str | None = None
    metrics: dict[str, _Finite] = field(default_factory=dict)
    seconds: _Finite = 0.0
    peak_memory_mib: int | None = None
    calibration: list[list[_Finite]] | None = None
    picture: str | None = None
    prediction_sha256: str | None = None
    repeats: list[dict[str, _Finite]] = field(default_factory=list)
    data_sha256: str | None = None

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
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{directory}: holds no evaluation ({SAMPLES} cannot be read: {error.strerror}). Give "
            "the --output-dir of focaldiffusion evaluate."
        ) from error
    complete, _, _ = data.rpartition(b"\n")
    latest: dict[Any, Record] = {}
    shapes: set[tuple[int, ...]] = set()
    for number, line in enumerate(complete.split(b"\n") if complete else (), start=1):
        place = path.with_name(f"{path.name}:{number}")
        with reading(place, "not a record of an evaluation", "Evaluate again into another folder."):
            # Strictly: JSON that is almost a record was not written here.
            parsed_json(line.decode())
            record = _records().validate_json(line, strict=True)
            if record.status == "failed" and record.error is None:
                raise ValueError("it failed without a reason")
            if record.calibration is not None:
                shapes.add((len(record.calibration), *{len(row) for row in record.calibration}))
                if len(shapes) > 1 or len(min(shapes)) != 2:
                    raise ValueError("its calibration has another shape than the others")
        latest[record.key] = record
    return list(latest.values())


def read_run(directory: Path, fault: str, remedy: str) -> dict[str, Any]:
    """The settings of a run in `run.json`.

    Args:
        directory: folder of the run.
        fault, remedy: see `reading`.

    Raises:
        InputError: missing or damaged.
    """
    path = directory / RUN
    run: dict[str, Any] = read_json(path, fault, remedy)
    with reading(path, fault, remedy):
        _Run.model_validate(run)
    return run


class _Run(BaseModel):
    """Those parts of `run.json` that are read."""

    class Weights(BaseModel):
        """A learned model of the run."""

        sha256: str

    model_config = ConfigDict(strict=True)
    focaldiffusion: str | None = None
    command: list[Any] = []
    plan: dict[str, Any] = {}
    checkpoints: dict[str, Weights] = {}


@cache
def _records() -> TypeAdapter[Record]:
    return TypeAdapter(Record)


def write_records(directory: Path, records: Iterable[Record]) -> None:
    """Replace the file of records."""
    write_whole(directory / SAMPLES, "".join(record.line() for record in records).encode())
