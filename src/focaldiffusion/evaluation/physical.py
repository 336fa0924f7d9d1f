"""The physical estimate of a stack, made once for all models, and the models that complete it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.checkpoints.checkpoint import find_checkpoint
from focaldiffusion.evaluation.prediction import Prediction, channels_first
from focaldiffusion.models.completer import Sampling
from focaldiffusion.psf import PSF
from focaldiffusion.recovery import Estimate, Refine, estimate_depth, recover
from focaldiffusion.stack import FocalStack

if TYPE_CHECKING:
    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline


@dataclass(frozen=True, eq=False)
class Physical:
    """The physical estimate of a stack, at working size.

    Attributes:
        stack: the stack at its own size.
        working: the stack at working size, with its native frames.
        estimate: estimate of `working`.
        shared_seconds: wall time of the estimate if another model computed it; 0 for the one that
            did.
    """

    stack: FocalStack
    working: FocalStack
    estimate: Estimate
    shared_seconds: float = 0.0

    def prediction(self, refine: Refine | None = None) -> Prediction:
        """The result of `focaldiffusion infer`, with a model or with physics alone."""
        found = recover(self.working, refine=refine, physical=self.estimate)
        return Prediction(
            None if found.depth_m is None else torch.from_numpy(found.depth_m),
            channels_first(found.all_in_focus),
            torch.from_numpy(found.confidence),
            self.shared_seconds,
        )

    def entropy(self) -> Tensor:
        """Entropy (H, W) at the size of the stack, by nearest working pixel; 1 is ignorance."""
        entropy = self.estimate.evidence.entropy.cpu()
        return functional.interpolate(
            entropy[None, None], size=self.stack.size, mode="nearest-exact"
        )[0, 0]


class PhysicalEstimates:
    """Computes physical estimates, and keeps the last one for other models on the same stack."""

    def __init__(self, device: str) -> None:
        """Compute on a torch device, such as "cpu" or "cuda"."""
        self.device = device
        self._last: tuple[FocalStack, Physical] | None = None

    def of(self, stack: FocalStack) -> Physical:
        """The estimate of a stack; reused if it is the same object as the last one."""
        if self._last is None or self._last[0] is not stack:
            self._last = None  # frees memory: a posterior is large
            started = time.perf_counter()
            made = self.anew(stack)
            seconds = time.perf_counter() - started
            self._last = stack, replace(made, shared_seconds=seconds)
            return made
        return self._last[1]

    def anew(self, stack: FocalStack) -> Physical:
        """The estimate of a stack, not kept."""
        working = stack.at_working_size(device=self.device)
        return Physical(stack, working, estimate_depth(working, PSF()))


class Learned:
    """A checkpoint, run as by `focaldiffusion infer`: default steps, one member, seed 0."""

    def __init__(
        self,
        name: str,
        estimates: PhysicalEstimates,
        others: Iterable[str] = (),
        base_model: str | None = None,
    ) -> None:
        """Find the checkpoint; its weights are loaded when needed.

        Args:
            name: see `find_checkpoint`.
            estimates: physical estimates to complete, on the device to use.
            others: see `find_checkpoint`.
            base_model: see `Checkpoint.load`; ignored unless the checkpoint is an adapter.

        Raises:
            InputError: the checkpoint does not exist.
        """
        self.name = name
        self.checkpoint = find_checkpoint(name, others)
        is_adapter = self.checkpoint.description.weights == "adapter"
        self.base_model = base_model if is_adapter else None
        self._estimates = estimates
        self._pipeline: FocalDiffusionPipeline | None = None

    def load(self) -> FocalDiffusionPipeline:
        """The model, loaded once per process; called before `predict` to keep it out of its time.

        Raises:
            InputError: its weights are damaged or missing.
        """
        if self._pipeline is None:
            self._pipeline = self.checkpoint.load(
                base_model=self.base_model, device=self._estimates.device
            )
        return self._pipeline

    def predict(self, stack: FocalStack, sample: str) -> Prediction:
        """See `Model`."""
        return self._estimates.of(stack).prediction(self.load().refine)

    def predict_again(self, stack: FocalStack, count: int) -> Iterator[Prediction]:
        """Predictions from seeds 1 to `count`; none from a model that uses no random numbers."""
        pipeline = self.load()
        for seed in range(1, count + 1) if pipeline.config["start"] == "noise" else ():
            refine = partial(pipeline.refine, sampling=Sampling(seed=seed))
            yield self._estimates.of(stack).prediction(refine)
