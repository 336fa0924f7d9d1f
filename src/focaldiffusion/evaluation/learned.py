"""Learned models: each completes the physical estimate that all models share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from focaldiffusion.checkpoints.finding import find_checkpoint
from focaldiffusion.evaluation.physical import PhysicalEstimates
from focaldiffusion.evaluation.prediction import Prediction
from focaldiffusion.stack import FocalStack

if TYPE_CHECKING:
    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline


class Learned:
    """A checkpoint, as `focaldiffusion infer` runs it: with its own steps, one member, seed 0."""

    def __init__(self, name: str, estimates: PhysicalEstimates, others: Iterable[str] = ()) -> None:
        """Finds the checkpoint; its weights are loaded when they are needed.

        Args:
            name: see `find_checkpoint`.
            estimates: what it completes, on the device where it computes.
            others: see `find_checkpoint`.

        Raises:
            InputError: there is no such checkpoint.
        """
        self.name = name
        self.checkpoint = find_checkpoint(name, others)
        self._estimates = estimates
        self._pipeline: FocalDiffusionPipeline | None = None

    def load(self) -> FocalDiffusionPipeline:
        """The model, read once a process; called ahead of `predict` so as not to be timed with it.

        Raises:
            InputError: its weights are damaged or missing.
        """
        if self._pipeline is None:
            self._pipeline = self.checkpoint.load(device=self._estimates.device)
        return self._pipeline

    def predict(self, stack: FocalStack, sample: str) -> Prediction:
        """See `Model`."""
        return self._estimates.of(stack).prediction(self.load().refine)
