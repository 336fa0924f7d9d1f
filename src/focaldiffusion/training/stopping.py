"""Reasons to stop a run early: a signal, a bad loss, too little memory."""

from __future__ import annotations

import errno
import math
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from focaldiffusion.config.run import TrainingConfig
from focaldiffusion.errors import InputError
from focaldiffusion.signals import on_ending

if TYPE_CHECKING:
    from accelerate import Accelerator

_T = TypeVar("_T")
_FAILED_WRITES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
_EXPLODED = 100.0  # times the running loss, once it has settled
_SETTLED_STEPS = 50  # steps in the running loss


class RunningLoss:
    """Mean of the last losses, and a check of the next one."""

    def __init__(self) -> None:
        self._mean, self._count = 0.0, 0

    def problem_of(self, loss: float) -> str | None:
        """Error text for a loss; None for a good one, which joins the mean."""
        if not math.isfinite(loss):
            return f"{loss}"
        if self._count >= _SETTLED_STEPS and loss > _EXPLODED * self._mean:
            return f"{loss:.3g}, more than {_EXPLODED:.0f} times its mean of {self._mean:.3g}"
        self._count += 1
        self._mean += (loss - self._mean) / min(self._count, _SETTLED_STEPS)
        return None


def in_any_process(accelerator: Accelerator, happened: bool) -> bool:
    """Whether something happened in any process: equal in all of them, which all have to ask."""
    if accelerator.num_processes == 1:
        return happened
    flag = torch.tensor(float(happened), device=accelerator.device)
    return bool(accelerator.reduce(flag, "sum") > 0)


def from_the_first(accelerator: Accelerator, find: Callable[[], _T]) -> _T:
    """The result of `find` in the main process, for all of them; they all have to ask.

    Raises:
        InputError: that of the main process, in all of them: the others would wait for an answer.
    """
    from accelerate.utils import broadcast_object_list

    found: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            found = [find()]
        except InputError as error:
            found = [error]
    (answer,) = broadcast_object_list(found)
    if isinstance(answer, InputError):
        raise answer
    return answer


class Stop:
    """Whether any process got SIGTERM, which schedulers send before they take a machine, or SIGHUP,
    which a closing terminal sends."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._come = False
        self._noting = on_ending(self._note)

    def __enter__(self) -> Stop:
        self._noting.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._noting.__exit__(*error)

    def _note(self, number: int) -> None:
        self._come = True

    @property
    def asked(self) -> bool:
        """Whether to stop: equal in all processes, which all have to ask."""
        return in_any_process(self._accelerator, self._come)


@contextmanager
def write_errors_named(directory: Path) -> Iterator[None]:
    """Turn a full disk, or another write that fails, inside the block into one sentence.

    torch and safetensors have errors of their own for it, and TensorBoard writes in a thread, whose
    traceback would precede the sentence.

    Raises:
        InputError: instead of the library's error.
    """
    from safetensors import SafetensorError

    def of_thread(failed: threading.ExceptHookArgs) -> None:
        # TensorBoard raises it again in the main thread.
        if not isinstance(failed.exc_value, OSError):
            before(failed)

    before, threading.excepthook = threading.excepthook, of_thread
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        number = error.errno if isinstance(error, OSError) else None
        if found := re.search(r"os error (\d+)", str(error)):
            number = int(found[1])
        failed = number in _FAILED_WRITES or "PytorchStreamWriter failed" in str(error)
        if not failed or isinstance(error, InputError):
            raise
        reason = os.strerror(number).lower() if number else "the disk is full, or was removed"
        raise InputError(
            f"{directory}: cannot write ({reason}). Free some space, and go on from the last "
            "checkpoint with --resume auto."
        ) from error
    finally:
        threading.excepthook = before


@contextmanager
def memory_explained(training: TrainingConfig) -> Iterator[None]:
    """Turn a lack of memory inside the block into advice on settings that need less.

    Raises:
        InputError: instead of torch's error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # Only the error of CUDA has a class of its own.
        of_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        words = str(error)
        if not of_memory and "can't allocate memory" not in words and "out of memory" not in words:
            raise
        helps = []
        if training.batch_size > 1:
            helps.append(
                f"training.batch_size={training.batch_size // 2} with "
                f"gradient_accumulation_steps={2 * training.gradient_accumulation_steps}"
            )
        if not training.gradient_checkpointing:
            helps.append("training.gradient_checkpointing=true")
        if training.base_weights == "float32" and training.tuning != "full":
            helps.append("training.base_weights=bfloat16 with mixed_precision=bf16")
        if training.base_weights == "bfloat16" and training.tuning == "lora":
            helps.append("training.base_weights=nf4")
        helps.append("a smaller data.image_size")
        raise InputError(f"out of memory. Settings that need less: {', '.join(helps)}.") from error
