"""Checkpoints of a run: a model that is ready for use, and the state of training to resume from.

    checkpoints/step-000200/            a checkpoint for `--model`
    checkpoints/step-000200/training/   weights that train, optimiser, running mean, step
    checkpoints/step-000200/files.json  sizes and SHA-256 of all of these
    checkpoints/best                    a link to the one with the best metric

A folder is written under another name and renamed when it is complete. The state of training loads
with `weights_only`, so that no pickle can run code.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import TypeAdapter
from torch import nn

from focaldiffusion.config.load import resolved
from focaldiffusion.config.run import Config
from focaldiffusion.errors import InputError
from focaldiffusion.files import check_file
from focaldiffusion.io.reading import read_json, reading
from focaldiffusion.io.staging import file_errors_named, sha256_of
from focaldiffusion.training.model import Mean, trained_parameters
from focaldiffusion.training.stopping import from_the_first, in_any_process

if TYPE_CHECKING:
    from accelerate import Accelerator

_FILES, _STATE, _PROGRESS = "files.json", "training", "progress.json"
_WEIGHTS, _MEAN = "trained.safetensors", "mean.safetensors"
_PARTIAL, _GONE = ".partial", ".gone"
_MAY_CHANGE = {
    # Length and reports.
    "training.num_epochs",
    "training.val_every_n_epochs",
    "training.save_every_n_epochs",
    "training.save_every_n_steps",
    "validation",
    "logging",
    "output",
    # Validation and test data.
    "data.val_filelist",
    "data.val_sources",
    "data.max_val_samples",
    "data.dataset_kwargs.val",
    "data.test_filelist",
    "data.test_sources",
    "data.max_test_samples",
    "data.dataset_kwargs.test",
    # Place of the same data, and ways to compute the same. The product of the first two with the
    # number of processes may not change.
    "training.batch_size",
    "training.gradient_accumulation_steps",
    "training.gradient_checkpointing",
    "training.compile",
    "training.attention",
    "data.num_workers",
    # Which samples are left out is asked when one turns out to be bad.
    "data.skip_bad_samples",
    "data.data_root",
    "data.train_sources.data_root",
}
"""Keys and blocks that may differ from the configuration of a checkpoint to resume from."""


@dataclass(frozen=True)
class RunState:
    """Progress of a run.

    Attributes:
        step: optimiser steps done.
        best: best metric so far; None before the first validation.
        best_step: step of the best metric.
        seconds: training time, over all interruptions.
        owes_score: whether this step still has to be validated.
    """

    step: int = 0
    best: float | None = None
    best_step: int | None = None
    seconds: float = 0.0
    owes_score: bool = False


_STATES = TypeAdapter(RunState)
_DIGESTS = TypeAdapter(dict[str, tuple[int, str]])


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(
        self,
        config: Config,
        accelerator: Accelerator,
        network: nn.Module,
        mean: Mean | None,
        stacks_per_step: int,
    ) -> None:
        """Limit `accelerator.save_state` to the weights that train.

        Args:
            config: of the run.
            accelerator: with the model and the optimiser prepared.
            network: that trains, not wrapped.
            mean: running mean of its weights; None without one.
            stacks_per_step: size of the effective batch.
        """
        self.directory = Path(config.output.save_dir) / "checkpoints"
        self._config, self._accelerator, self._network = config, accelerator, network
        self._mean, self._stacks_per_step = mean, stacks_per_step
        accelerator.register_save_state_pre_hook(self._write_weights)
        accelerator.register_load_state_pre_hook(self._read_weights)

    def save(self, state: RunState, export: Callable[[Path], None]) -> Path:
        """Write a checkpoint, complete or not at all, and remove the oldest.

        Args:
            state: of the run.
            export: writes the model to a folder that exists; called in the main process.

        Raises:
            InputError: a file cannot be written.
        """
        accelerator = self._accelerator
        final = self.directory / f"step-{state.step:06d}"
        partial = self.directory / f".{final.name}{_PARTIAL}"
        with file_errors_named(self.directory):
            if accelerator.is_main_process:
                for left_behind in self.directory.glob(".step-*"):  # of a killed run
                    shutil.rmtree(left_behind)
                (partial / _STATE).mkdir(parents=True)
            accelerator.wait_for_everyone()
            try:
                accelerator.save_state(str(partial / _STATE), safe_serialization=True)
                accelerator.wait_for_everyone()
                if accelerator.is_main_process:
                    export(partial)
                    write_progress(partial, state, self._stacks_per_step, resolved(self._config))
            except BaseException:
                # On a full disk, half a checkpoint is in the way of what others write.
                shutil.rmtree(partial, ignore_errors=True)
                raise
            if accelerator.is_main_process:
                earlier = _set_aside(final) if final.exists() else None
                partial.rename(final)
                if earlier is not None:
                    shutil.rmtree(earlier, ignore_errors=True)
                self._point_to_best(state)
                self._prune(state)
            accelerator.wait_for_everyone()
            # On a machine without the disk of the first, its processes wrote here for nothing.
            if accelerator.is_local_main_process and not accelerator.is_main_process:
                shutil.rmtree(partial, ignore_errors=True)
        return final

    def find(self, resume: str) -> Path | None:
        """The checkpoint to go on from: what the main process finds, in all processes.

        Args:
            resume: "auto" for the newest undamaged one; or a folder.

        Returns:
            None if "auto" finds none.

        Raises:
            InputError: the folder is missing or damaged, or the run has newer checkpoints.
        """
        return from_the_first(self._accelerator, lambda: self._found(resume))

    def _found(self, resume: str) -> Path | None:
        newest_first = self._newest_first()
        if resume != "auto":
            path = Path(resume)
            if not path.is_dir():
                raise InputError(
                    f"{path}: no such folder. Give one of {self.directory}, or --resume auto."
                )
            if problem := damage(path):
                raise InputError(f"{path}: {problem}. Give another checkpoint, or --resume auto.")
            step = read_progress(path).state.step
            if newest_first and _step_of(newest_first[0]) > step:
                raise InputError(
                    f"{path}: is of step {step}, but {self.directory} already has "
                    f"{newest_first[0].name}. Remove the later ones, or choose another "
                    "output.save_dir (--output-dir)."
                )
            return path
        for path in newest_first:
            problem = damage(path)
            if problem is None:
                return path
            self._accelerator.print(f"{path}: {problem}; using the checkpoint before it.")
        return None

    def load(self, path: Path) -> RunState:
        """Restore model, optimiser and running mean from a checkpoint.

        Raises:
            InputError: it is of another model or other data, or not on every machine.
        """
        lacks = not (path / _STATE / _PROGRESS).is_file()
        if in_any_process(self._accelerator, lacks):
            raise InputError(
                f"{path}: is not on every machine. Copy the folder to the same place on each, or "
                "put output.save_dir on a disk that they share."
            )
        state, stacks_per_step, config = read_progress(path)
        if stacks_per_step != self._stacks_per_step:
            raise InputError(
                f"{path}: was trained with {stacks_per_step} stacks a step, and this run has "
                f"{self._stacks_per_step}. Choose training.batch_size and "
                "training.gradient_accumulation_steps so that their product with the number of "
                "processes is the same."
            )
        different = _difference(config, resolved(self._config))
        if different:
            raise InputError(
                f"{path}: was trained with another {different}. Go on with its own configuration, "
                "or train in another output.save_dir."
            )
        self._accelerator.load_state(str(path / _STATE))
        return state

    def _write_weights(self, models: Any, weights: list[Any], directory: str) -> None:
        """Write the weights that train instead of all; accelerate has written shards itself."""
        from safetensors.torch import save_file

        if not weights:
            return
        if self._accelerator.is_main_process:
            moving = trained_parameters(self._network)
            state = {name: one.detach().contiguous() for name, one in moving.items()}
            save_file(state, Path(directory) / _WEIGHTS)
            if self._mean is not None:
                save_file(self._mean.state(), Path(directory) / _MEAN)
        weights.clear()

    def _read_weights(self, models: list[Any], directory: str) -> None:
        from safetensors.torch import load_file

        if not models:
            return
        state = load_file(Path(directory) / _WEIGHTS)
        _, unexpected = self._network.load_state_dict(state, strict=False)
        missing = trained_parameters(self._network).keys() - state.keys()
        if unexpected or missing:
            name = sorted([*unexpected, *missing])[0]
            raise InputError(
                f"{directory}: the weights do not fit this model; only one of them has {name}."
            )
        if self._mean is not None:
            self._mean.load(load_file(Path(directory) / _MEAN))
        models.clear()

    def _point_to_best(self, state: RunState) -> None:
        if state.best_step is None:
            return
        target = f"step-{state.best_step:06d}"
        if not (self.directory / target).is_dir():
            return
        link = self.directory / ".best.partial"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        link.replace(self.directory / "best")

    def _prune(self, state: RunState) -> None:
        """Keep the newest `output.save_top_k`, and the best."""
        for path in self._newest_first()[self._config.output.save_top_k :]:
            if _step_of(path) != state.best_step:
                shutil.rmtree(_set_aside(path), ignore_errors=True)

    def _newest_first(self) -> list[Path]:
        # Copies that a user made have other names.
        folders = self.directory.glob("step-*")
        ours = (path for path in folders if path.name.removeprefix("step-").isdecimal())
        return sorted(ours, key=_step_of, reverse=True)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _set_aside(path: Path) -> Path:
    """Rename a checkpoint before its removal; half a folder would look like a damaged one."""
    gone = path.with_name(f".{path.name}{_GONE}")
    path.rename(gone)
    return gone


def _digests(folder: Path) -> dict[str, Any]:
    """Size and SHA-256 of all files in a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): [path.stat().st_size, sha256_of(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _FILES
    }


def damage(folder: Path) -> str | None:
    """Error text for a damaged checkpoint of training; None for a good one."""
    try:
        check_file(folder / _FILES)
        files = _DIGESTS.validate_json((folder / _FILES).read_bytes())
    except (OSError, ValueError):
        return f"is not a checkpoint to resume from: {_FILES} is missing or damaged"
    if f"{_STATE}/{_PROGRESS}" not in files:
        return f"is damaged: {_FILES} lacks {_STATE}/{_PROGRESS}"
    for name, (size, digest) in files.items():
        path = folder / name
        try:
            if path.stat().st_size != size or sha256_of(path) != digest:
                return f"is damaged: {name} has changed"
        except (OSError, ValueError):  # also for a name that no file system allows
            return f"is damaged: {name} is missing"
    try:
        read_progress(folder)
    except InputError as error:
        return f"is damaged: {error}"
    return None


class Progress(NamedTuple):
    """State of a run at a checkpoint, and the run to which it belongs."""

    state: RunState
    stacks_per_step: int
    config: dict[str, Any]


def write_progress(
    folder: Path, state: RunState, stacks_per_step: int, config: dict[str, Any]
) -> None:
    """Write the state of a run to a checkpoint, and then the digests of all its files.

    Raises:
        OSError: the file system refuses.
    """
    note = {**vars(state), "stacks_per_step": stacks_per_step, "config": config}
    _write(folder / _STATE / _PROGRESS, json.dumps(note, indent=1))
    _write(folder / _FILES, json.dumps(_digests(folder), indent=1))


def read_progress(folder: Path) -> Progress:
    """The state of a run at a checkpoint.

    Raises:
        InputError: missing or damaged.
    """
    path = folder / _STATE / _PROGRESS
    note = read_json(path, "is damaged", "Go on from another checkpoint.")
    with reading(path, "is damaged", "Go on from another checkpoint."):
        stacks_per_step, config = int(note.pop("stacks_per_step")), dict(note.pop("config"))
        state = _STATES.validate_python(note)
        if state.step < 0 or stacks_per_step < 1:
            raise ValueError(f"step {state.step} of {stacks_per_step} stacks")
        return Progress(state, stacks_per_step, config)


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def _difference(there: Any, here: Any, path: str = "") -> str | None:
    """The first key that differs between two configurations and must not."""
    if there == here or path in _MAY_CHANGE:
        return None
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        items = (_difference(*pair, path) for pair in zip(there, here, strict=True))
        return next(filter(None, items), None)
    if isinstance(there, dict) and isinstance(here, dict):
        trios = ((there.get(key), here.get(key), key) for key in sorted({*there, *here}))
        prefix = f"{path}." if path else ""
        items = (_difference(one, other, f"{prefix}{key}") for one, other, key in trios)
        return next(filter(None, items), None)
    return path
