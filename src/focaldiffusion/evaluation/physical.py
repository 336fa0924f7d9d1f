"""The physical estimate of a stack, computed once for all models that build on it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.evaluation.prediction import Prediction, channels_first
from focaldiffusion.psf import PSF
from focaldiffusion.recovery import Estimate, Refine, estimate_depth, recover
from focaldiffusion.stack import FocalStack


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
