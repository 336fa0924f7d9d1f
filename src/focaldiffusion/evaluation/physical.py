"""The physical estimate of a stack, made once for all models that build on it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn import functional

from focaldiffusion.evaluation.prediction import Prediction, channels_first
from focaldiffusion.reconstruction import Settings, recover, working_size
from focaldiffusion.recovery import Estimate, Refine, estimate_depth, silent
from focaldiffusion.stack import FocalStack, MemoryFrames

_SETTINGS = Settings()


@dataclass(frozen=True, eq=False)
class Physical:
    """What physics says of a stack, before anything is enlarged to the size of its frames.

    Attributes:
        stack: with its native frames.
        working: the same at working resolution.
        estimate: of that.
        shared_seconds: wall time that making it cost another model; 0 for the one that made it.
    """

    stack: FocalStack
    working: FocalStack
    estimate: Estimate
    shared_seconds: float = 0.0

    def prediction(self, refine: Refine | None = None) -> Prediction:
        """What `focaldiffusion infer` makes of it, by a model's part or by physics alone."""
        found, _ = recover(
            self.working,
            self.stack.camera,
            _SETTINGS.psf,
            silent,
            refine,
            physical=self.estimate,
        )
        return Prediction(
            found.depth_m,
            channels_first(found.all_in_focus),
            found.confidence.cpu(),
            self.shared_seconds,
        )

    def entropy(self) -> Tensor:
        """(H, W) at the size of the frames, of the nearest working pixel; 1 says nothing."""
        entropy = self.estimate.evidence.entropy.cpu()
        return functional.interpolate(
            entropy[None, None], size=self.stack.size, mode="nearest-exact"
        )[0, 0]


class PhysicalEstimates:
    """Makes physical estimates, and keeps the last one for whoever asks for the same stack."""

    def __init__(self, device: str) -> None:
        """Computes on a torch device, such as "cpu" or "cuda"."""
        self.device = device
        self._last: tuple[FocalStack, Physical] | None = None

    def of(self, stack: FocalStack) -> Physical:
        """That of a stack in memory; of the very same one without making it again."""
        if self._last is None or self._last[0] is not stack:
            self._last = None  # the posterior of one stack is large enough
            started = time.perf_counter()
            made = self.anew(replace(stack, frames=MemoryFrames(stack)))
            seconds = time.perf_counter() - started
            self._last = stack, replace(made, shared_seconds=seconds)
            return made
        return self._last[1]

    def anew(self, stack: FocalStack) -> Physical:
        """That of a stack with native frames; keeps nothing."""
        size = working_size(stack.size, len(stack), _SETTINGS.working_size)
        working = stack
        if size != stack.size:
            working = replace(
                stack,
                images=functional.interpolate(
                    stack.images, size=size, mode="bilinear", antialias=True
                ),
                camera=None if stack.camera is None else stack.camera.resized(size),
            )
        working = replace(working, images=working.images.to(self.device))
        return Physical(stack, working, estimate_depth(working, _SETTINGS.psf))
