"""Learned models, which complete the physical estimate shared by all models."""

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
    """A checkpoint, run as by `focaldiffusion infer`: default steps, one member, seed 0."""

    def __init__(self, name: str, estimates: PhysicalEstimates, others: Iterable[str] = ()) -> None:
        """Find the checkpoint; its weights are loaded when needed.

        Args:
            name: see `find_checkpoint`.
            estimates: physical estimates to complete, on the device to use.
            others: see `find_checkpoint`.

        Raises:
            InputError: the checkpoint does not exist.
        """
        self.name = name
        self.checkpoint = find_checkpoint(name, others)
        self._estimates = estimates
        self._pipeline: FocalDiffusionPipeline | None = None

    def load(self) -> FocalDiffusionPipeline:
        """The model, loaded once per process; called before `predict` to keep it out of its time.

        Raises:
            InputError: its weights are damaged or missing.
        """
        if self._pipeline is None:
            self._pipeline = self.checkpoint.load(device=self._estimates.device)
        return self._pipeline

    def predict(self, stack: FocalStack, sample: str) -> Prediction:
        """See `Model`."""
        return self._estimates.of(stack).prediction(self.load().refine)
