"""Reports of a run: lines to read, a log to plot, TensorBoard or Weights & Biases."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.config.load import resolved
from focaldiffusion.config.run import Config
from focaldiffusion.errors import InputError
from focaldiffusion.io.staging import write_whole

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Watch:
    """Reports of the main process; the others stay silent."""

    def __init__(
        self, config: Config, *, active: bool, step: int, owes_validation: bool = False
    ) -> None:
        """Open the logs of a run after a step. Entries of what will be done again are removed.

        Args:
            config: of the run.
            active: whether this is the main process.
            step: the run goes on from.
            owes_validation: whether that step will be validated, perhaps once more.

        Raises:
            InputError: the package to report with is missing.
        """
        self._active = active
        self._talks = active and config.logging.level in ("DEBUG", "INFO")
        if config.logging.level == "DEBUG":
            logging.basicConfig(level=logging.DEBUG)  # of the libraries, too
        self._log = Path(config.output.save_dir) / "log.jsonl"
        self._board: SummaryWriter | None = None
        self._run: Any = None
        if not active:
            return
        again = _forget(self._log, step, owes_validation)
        if config.logging.use_wandb:
            self._run = _wandb(config)
        else:
            # TensorBoard forgets whole steps only, so the numbers that stay are written again.
            first = step if owes_validation else step + 1
            self._board = _tensorboard(Path(config.output.save_dir) / "tensorboard", first)
            for name, value in again.items():
                self._board.add_scalar(name, value, step)

    def say(self, sentence: str) -> None:
        """Print a line to the terminal."""
        if self._talks:
            print(sentence, flush=True)

    def numbers(self, step: int, values: dict[str, float]) -> None:
        """Log the numbers of a step."""
        if not self._active:
            return
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            if self._board is not None:
                self._board.add_scalar(name, value, step)
        if self._run is not None:
            self._run.log(values, step=step)

    def validation(
        self, step: int, values: dict[str, float], pictures: list[NDArray[np.uint8]]
    ) -> None:
        """Log metrics `val/...` and pictures (height, width, 3) of the model after a step."""
        self.numbers(step, values)
        for index, picture in enumerate(pictures):
            self._picture(step, f"val/{index}", picture)
        lines: dict[str, list[str]] = {}  # by source, all of them first
        for name, value in values.items():
            source, _, metric = name.removeprefix("val/").rpartition("/")
            lines.setdefault(source, []).append(f"{metric} {value:.4g}")
        for source, metrics in lines.items():
            where = f"  {source}" if source else f"validation after step {step}"
            self.say(f"{where}: {'  '.join(metrics)}")

    def close(self) -> None:
        """Flush the logs."""
        if self._board is not None:
            self._board.close()
        if self._run is not None:
            self._run.finish()

    def _picture(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        if self._board is not None:
            self._board.add_image(name, image, step, dataformats="HWC")
        if self._run is not None:
            import wandb

            self._run.log({name: wandb.Image(image)}, step=step)


class Pace:
    """Stacks per second over the last reports, and the time left."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []

    def mark(self, stacks: int) -> None:
        """Note the number of stacks done by now."""
        self._marks = [*self._marks[-8:], (time.perf_counter(), stacks)]

    def text(self, total: int) -> str:
        """The pace towards a total of stacks, as text; empty before the second mark."""
        if not self.rate:
            return ""
        left = round((total - self._marks[-1][1]) / self.rate)
        return (
            f"{self.rate:.2f} stacks/s, {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
        )

    @property
    def rate(self) -> float:
        """Stacks per second; 0 before the second mark."""
        (first, before), (last, after) = self._marks[0], self._marks[-1]
        return (after - before) / (last - first) if after > before else 0.0


def _forget(log: Path, step: int, owes_validation: bool) -> dict[str, float]:
    """Remove lines of later steps, truncated ones, and a validation of this step that is owed.

    Returns:
        The numbers of this step that stay, where its validation is owed.
    """
    if not log.exists():
        return {}
    kept: list[str] = []
    again: dict[str, float] = {}
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            values = json.loads(line)
            done = values.pop("step")
            owed = owes_validation and done == step
            if done > step or not line.endswith("\n") or (owed and _is_validation(values)):
                continue
        except (ValueError, LookupError, TypeError, AttributeError):
            continue  # a line that a crash has cut off, or a disk has damaged
        kept.append(line)
        again |= values if owed else {}
    write_whole(log, "".join(kept).encode())
    return again


def _is_validation(values: dict[str, float]) -> bool:
    return any(name.startswith("val/") for name in values)


def _tensorboard(folder: Path, first_step: int) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=first_step)


def _wandb(config: Config) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise InputError(
            "logging.use_wandb: the package wandb is missing. Install it with `pip install wandb`, "
            "or leave the key out for TensorBoard."
        ) from error
    # If the server can be reached, the same run goes on there.
    note = Path(config.output.save_dir) / "wandb_id.txt"
    known = note.read_text(encoding="utf-8") if note.exists() else uuid4().hex
    note.write_text(known, encoding="utf-8")
    return wandb.init(
        id=known,
        project=config.logging.project_name,
        name=config.logging.run_name,
        tags=list(config.logging.tags),
        dir=config.output.save_dir,
        config=resolved(config),
        resume="allow",
    )
