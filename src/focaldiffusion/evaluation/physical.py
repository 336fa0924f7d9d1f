"""The physical estimate of a stack, made once for all models, and the models that complete it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.checkpoints.checkpoint import find_checkpoint
from focaldiffusion.checkpoints.parts import without_prior
from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.prediction import Prediction, channels_first
from focaldiffusion.models.completer import Sampling
from focaldiffusion.prior import PriorKind, PriorSource
from focaldiffusion.priors.given import GivenPrior
from focaldiffusion.priors.shelf import find_prior
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

    def prediction(
        self, refine: Refine | None = None, prior: PriorSource | None = None
    ) -> Prediction:
        """The result of `focaldiffusion infer`, with a model, a prior, or physics alone."""
        found = recover(self.working, prior=prior, refine=refine, physical=self.estimate)
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
        self._prior: Joined | None = None
        self._loaded: list[FocalDiffusionPipeline] = []

    def beside(self, priors: Sequence[Joined]) -> list[Learned]:
        """This model, or one that sees a prior with each of them.

        Raises:
            InputError: it sees a prior, and there is none.
        """
        if not self.checkpoint.description.config.model.with_prior:
            return [self]
        if not priors:
            raise without_prior(self.name)
        models = [copy(self) for _ in priors]  # their weights are shared
        for model, prior in zip(models, priors, strict=True):
            model.name, model._prior = f"{self.name}+{prior.prior}", prior
        return models

    def as_json(self) -> dict[str, Any]:
        """Description for the report."""
        described = self.checkpoint.as_json(base_model=self.base_model)
        return described if self._prior is None else {**described, "prior": self._prior.as_json()}

    def load(self) -> FocalDiffusionPipeline:
        """The model, loaded once per process; called before `predict` to keep it out of its time.

        Raises:
            InputError: its weights are damaged or missing.
        """
        if self._prior is not None:
            self._prior.load()
        if not self._loaded:
            device = self._estimates.device
            self._loaded.append(self.checkpoint.load(base_model=self.base_model, device=device))
        return self._loaded[0]

    def predict(self, stack: FocalStack, sample: str) -> Prediction:
        """See `Model`."""
        return self._predicted(stack, self.load().refine)

    def predict_again(self, stack: FocalStack, count: int) -> Iterator[Prediction]:
        """Predictions from seeds 1 to `count`; none from a model that uses no random numbers."""
        pipeline = self.load()
        for seed in range(1, count + 1) if pipeline.config["start"] == "noise" else ():
            refine = partial(pipeline.refine, sampling=Sampling(seed=seed))
            yield self._predicted(stack, refine)

    def _predicted(self, stack: FocalStack, refine: Refine) -> Prediction:
        prior = None if self._prior is None else self._prior.load()
        return self._estimates.of(stack).prediction(refine, prior)


class Joined:
    """The physical estimate joined with a depth network, as by `focaldiffusion infer --prior`."""

    def __init__(self, prior: str, kind: PriorKind | None, estimates: PhysicalEstimates) -> None:
        """Find the network and download it; it is loaded when needed.

        Args:
            prior: folder or hub id of the network.
            kind: see `find_prior`.
            estimates: physical estimates to join it with, on the device to use.

        Raises:
            InputError: no such network, or a file, which is the prior of one stack.
        """
        found = find_prior(prior, kind)
        if isinstance(found, GivenPrior):
            raise InputError(
                f"{prior}: a file is the prior of one stack, and an evaluation has many; expected "
                "a depth network. Score one stack with `focaldiffusion infer --prior`."
            )
        found.fetch()
        self.prior = prior
        self.name = f"physics+{prior}"
        self._found = found
        self._estimates = estimates
        self._source: PriorSource | None = None

    def as_json(self) -> dict[str, Any]:
        """Description for the report."""
        return self._found.as_json()

    def load(self) -> PriorSource:
        """The network, loaded once per process; called before `predict` to keep it out of its time.

        Raises:
            InputError: its weights are damaged or missing.
        """
        if self._source is None:
            self._source = self._found.load(self._estimates.device)
        return self._source

    def predict(self, stack: FocalStack, sample: str) -> Prediction:
        """See `Model`."""
        return self._estimates.of(stack).prediction(prior=self.load())

    def predict_again(self, stack: FocalStack, count: int) -> Iterator[Prediction]:
        """None: a prior has one seed."""
        return iter(())
