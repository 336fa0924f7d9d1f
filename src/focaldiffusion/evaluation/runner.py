"""Runs models over a protocol: in several processes, counting failures, resuming if interrupted."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor

from focaldiffusion.data.dataset import StackSample, sha256_of_sample
from focaldiffusion.engines.engine import Engine, Here, MakeEngine
from focaldiffusion.engines.local import LocalEngine
from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.baselines import check_base_model, open_model
from focaldiffusion.evaluation.external import Predictions, write_prediction
from focaldiffusion.evaluation.physical import Joined, Learned, PhysicalEstimates
from focaldiffusion.evaluation.pictures import result_picture
from focaldiffusion.evaluation.plan import EvaluationPlan, begin, check_same
from focaldiffusion.evaluation.prediction import Model, Prediction
from focaldiffusion.evaluation.records import SAMPLES, Record, read_records, write_records
from focaldiffusion.evaluation.robustness import VARIANTS
from focaldiffusion.evaluation.scoring import calibration_of, score
from focaldiffusion.io.png import write_png
from focaldiffusion.io.staging import claimed
from focaldiffusion.progress import Meter, peak_memory_mib
from focaldiffusion.shards import Shard
from focaldiffusion.stack import FocalStack
from focaldiffusion.threads import available_threads, threads

_SHARDS = "shards"
"""Folder of the records of shards in that of a run: one folder per shard."""

PREDICTIONS = "predictions"
"""Folder of kept predictions in that of a run: one folder per model."""


def evaluate(
    plan: EvaluationPlan,
    directory: Path,
    *,
    workers: int = 1,
    engine: MakeEngine | None = None,
    command: Sequence[str] = (),
    meter: Meter | None = None,
    shard: Shard | None = None,
) -> list[Record]:
    """Score every model on every sample; each record is written to disk at once.

    Args:
        plan: plan of the run.
        directory: folder of the run. An unfinished run of the same plan is continued: finished
            records stay; failed ones are made again, as are those of data or predictions that have
            changed since.
        workers: number of processes of this machine; 1 uses the current one.
        engine: makes the engine of a cluster, which has workers of its own.
        command: command line as typed, for the report.
        meter: counts the samples.
        shard: part of the samples, whose records go to a folder of their own; a run without takes
            them over. None for all.

    Returns:
        The records of the whole run, or the shard, in the order of the plan.

    Raises:
        InputError: data are missing, a name is unknown, the folder holds another run or one that
            another process is making, or weights are damaged.
    """
    evaluator = _Evaluator(plan, directory, shard or Shard())
    checkpoints, home, shards = evaluator.checkpoints(), directory, []
    if shard is None:
        shards = sorted(path.parent for path in directory.glob(f"{_SHARDS}/*/{SAMPLES}"))
    else:
        home = directory / _SHARDS / str(shard)
    home.mkdir(parents=True, exist_ok=True)
    with claimed(home):
        if engine is None:
            engine = Here if workers == 1 else partial(LocalEngine, workers=workers)
            each = available_threads() // workers
        else:
            each = 1
        running = engine(_Workshop(evaluator, max(1, each)))
        begin(plan, home, running.workers, command, checkpoints)
        for folder in shards:
            check_same(plan, folder, checkpoints)
        return _continued(plan, home, shards, running, evaluator, meter or Meter())


def _continued(
    plan: EvaluationPlan,
    directory: Path,
    shards: Sequence[Path],
    engine: Engine[_Task, list[Record]],
    evaluator: _Evaluator,
    meter: Meter,
) -> list[Record]:
    """Make the records that are missing, also from shards, and return all."""
    wanted = set(evaluator.keys_in_order())
    done = {
        record.key: record
        for folder in (*shards, directory)
        for record in _earlier(folder)
        if record.key in wanted and evaluator.stands(record)
    }
    write_records(directory, done.values())
    tasks = [
        _Task(index, variant, missing)
        for variant in (None, *plan.variants)
        for index in evaluator.samples
        if (missing := evaluator.missing(index, variant, done))
    ]
    meter.expect(len(tasks))
    with engine, (directory / SAMPLES).open("a", encoding="utf-8") as file:
        for records in engine.run(tasks):
            for record in records:
                done[record.key] = record
                file.write(record.line())
            file.flush()
            meter.advance()
    records = [done[key] for key in evaluator.keys_in_order() if key in done]
    write_records(directory, records)  # in order, whichever worker was first
    return records


@dataclass(frozen=True)
class _Task:
    """The models that have not yet seen one variant of one sample."""

    index: int
    variant: str | None
    models: tuple[str, ...]


class _Evaluator:
    """The protocol, its data and the models, in one process."""

    def __init__(self, plan: EvaluationPlan, directory: Path, shard: Shard) -> None:
        for name in plan.variants:
            if name not in VARIANTS:
                raise InputError(f"variant {name!r} is unknown; expected one of {list(VARIANTS)}.")
        self._plan = plan
        self.directory = directory
        self.variants = plan.variants
        self.protocol, self.dataset = plan.open()
        self.estimates = estimates = PhysicalEstimates(plan.device)
        self.models: dict[str, Model] = {}
        priors = [Joined(one, plan.kind, estimates) for one in plan.priors]
        opened = [
            open_model(one, device=plan.device, estimates=estimates, base_model=plan.base_model)
            for one in plan.models
        ]
        for model in (
            *(
                each
                for one in opened
                for each in (one.beside(priors) if isinstance(one, Learned) else [one])
            ),
            *priors,
            *(Predictions(Path(folder)) for folder in plan.predictions),
        ):
            if model.name in self.models:
                raise InputError(
                    f"two models are called {model.name}; predictions are called after their "
                    "folder. Rename the folder, or leave one out."
                )
            self.models[model.name] = model
        check_base_model(plan.base_model, self.models.values())
        self.samples = shard.of(self.protocol.indices(self.dataset, plan.max_samples))
        self._index_of = {self.dataset.name(index): index for index in self.samples}
        self._data_sha256: dict[int, str | None] = {}

    @property
    def learned(self) -> dict[str, Learned | Joined]:
        """The models that have weights."""
        kinds = Learned, Joined
        return {name: one for name, one in self.models.items() if isinstance(one, kinds)}

    def checkpoints(self) -> dict[str, Any]:
        """Description of each learned model, for the report."""
        return {name: model.as_json() for name, model in self.learned.items()}

    def keys_in_order(self) -> Iterator[tuple[str | None, str, str]]:
        for variant in (None, *self.variants):
            for index in self.samples:
                for model in self._models_of(variant):
                    yield variant, self.dataset.name(index), model

    def stands(self, earlier: Record) -> bool:
        """Whether a record of an earlier run is still valid."""
        if earlier.status != "done":
            return False
        # Plan and weights are the same, but data and predictions of other tools may have changed.
        if self._prediction_sha256(earlier.model, earlier.sample) != earlier.prediction_sha256:
            return False
        digest = self.data_sha256(self._index_of[earlier.sample])
        return digest is not None and digest == earlier.data_sha256

    def data_sha256(self, index: int) -> str | None:
        """Digest of a sample before any variant; None if it cannot be read."""
        if index not in self._data_sha256:
            try:
                self._data_sha256[index] = sha256_of_sample(self.dataset[index])
            # Read again when it is its turn, where the failure is recorded.
            except Exception:
                self._data_sha256[index] = None
        return self._data_sha256[index]

    def missing(self, index: int, variant: str | None, done: dict[Any, Record]) -> tuple[str, ...]:
        name = self.dataset.name(index)
        models = self._models_of(variant)
        return tuple(model for model in models if (variant, name, model) not in done)

    def _models_of(self, variant: str | None) -> list[str]:
        """Models to run on a variant. Stored predictions only cover the unperturbed stack."""
        if variant is None:
            return list(self.models)
        return [name for name, one in self.models.items() if not isinstance(one, Predictions)]

    def run(self, task: _Task) -> list[Record]:
        """The records of a task; a variant that does not apply to the protocol has none.

        Raises:
            InputError: the weights of a model are damaged.
        """
        for model, learned in self.learned.items():
            if model in task.models:
                learned.load()
        try:
            sample = self._sample(task)
        except Exception as error:
            return self.failed(task, _reason(error))
        if sample is None:
            return []
        name = self.dataset.name(task.index)
        common = {**self._facts(task), "data_sha256": self.data_sha256(task.index)}
        entropy = self._entropy(sample.stack)
        return [self._record(common, sample, name, model, entropy) for model in task.models]

    def failed(self, task: _Task, reason: str) -> list[Record]:
        """The records of a task that ended before any model ran."""
        facts = self._facts(task)
        return [
            Record(**facts, model=model, status="failed", error=reason) for model in task.models
        ]

    def _facts(self, task: _Task) -> dict[str, Any]:
        """The entries that all records of a task share."""
        name = self.dataset.name(task.index)
        return {
            "protocol": self.protocol.name,
            "variant": task.variant,
            "sample": name,
            "scene": self.dataset.scene_name(task.index),
            "counted": self.protocol.counts(name),
        }

    def _sample(self, task: _Task) -> StackSample | None:
        if task.variant is None:
            return self.protocol.sample(self.dataset, task.index)
        return VARIANTS[task.variant].sample(self.protocol, self.dataset, task.index)

    def _entropy(self, stack: FocalStack) -> Tensor | None:
        """Entropy (H, W) of the physical evidence, if a model of the run computes it anyway."""
        if "physics" not in self.models and not self.learned:
            return None
        try:
            return self.estimates.of(stack).entropy()
        # The models that need the estimate fail too, and are counted.
        except Exception:
            return None

    def _record(
        self,
        common: dict[str, Any],
        sample: StackSample,
        name: str,
        model: str,
        entropy: Tensor | None,
    ) -> Record:
        started = time.perf_counter()
        try:
            prediction = self.models[model].predict(sample.stack, name)
            seconds = time.perf_counter() - started + prediction.shared_seconds
            calibration = calibration_of(sample, prediction)
            runs = [
                score(sample, one, self.protocol.domain, entropy)
                for one in (prediction, *self._again(model, sample.stack))
            ]
            picture = None
            if common["variant"] is None:
                picture = self._picture(sample, prediction, name, model)
                self._keep(prediction, name, model)
        # No error of one model may end the run of the others.
        except Exception as error:
            return Record(**common, model=model, status="failed", error=_reason(error))
        return Record(
            **common,
            model=model,
            status="done",
            metrics=_means(runs),
            repeats=runs if len(runs) > 1 else [],
            seconds=round(seconds, 3),
            peak_memory_mib=peak_memory_mib(),
            calibration=calibration,
            picture=picture,
            prediction_sha256=self._prediction_sha256(model, name),
        )

    def _again(self, model: str, stack: FocalStack) -> Iterator[Prediction]:
        """Predictions from further seeds."""
        learned = self.learned.get(model)
        if learned is not None:
            yield from learned.predict_again(stack, self._plan.repeat - 1)

    def _keep(self, prediction: Prediction, sample: str, model: str) -> None:
        if self._plan.save_predictions and not isinstance(self.models[model], Predictions):
            folder = self.directory / PREDICTIONS / model.replace("/", "_")
            write_prediction(prediction, folder, sample)

    def _prediction_sha256(self, model: str, sample: str) -> str | None:
        found = self.models[model]
        return found.digest(sample) if isinstance(found, Predictions) else None

    def _picture(self, sample: StackSample, prediction: Prediction, name: str, model: str) -> str:
        # A list may name files above its folder; their pictures stay here.
        parts = ("_" if part == ".." else part for part in name.split("/"))
        path = Path("pictures", *parts, f"{model.replace('/', '_')}.png")
        (self.directory / path).parent.mkdir(parents=True, exist_ok=True)
        write_png(self.directory / path, result_picture(sample, prediction), bit_depth=8)
        return path.as_posix()


def _means(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean over repeats of each metric that all of them have."""
    first, *others = runs
    return {
        name: fmean((value, *(run[name] for run in others)))
        for name, value in first.items()
        if all(name in run for run in others)
    }


@dataclass(frozen=True)
class _Workshop:
    """See `engines.Workshop`; each process evaluates with some threads."""

    evaluator: _Evaluator
    thread_count: int

    def open(self) -> _Workshop:
        return self

    def run(self, task: _Task) -> list[Record]:
        with threads(self.thread_count):
            return self.evaluator.run(task)

    def need_bytes(self, task: _Task) -> int:
        return 0

    def lost(self, task: _Task, how: str) -> list[Record]:
        return self.evaluator.failed(
            task,
            f"its worker {how}; perhaps the system ran out of memory. The same command tries it "
            "again; give it fewer --workers.",
        )


def _earlier(directory: Path) -> list[Record]:
    return read_records(directory) if (directory / SAMPLES).exists() else []


def _reason(error: Exception) -> str:
    """Reason for a missing prediction, in one sentence; programming errors with their location."""
    if isinstance(error, InputError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
