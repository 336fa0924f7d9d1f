"""Running mean of the weights that train (EMA), for validation and export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_WARMUP = 10.0


class Mean:
    """m ← d m + (1 - d) w after each step, with d = min(decay, (1 + n) / (10 + n)) after n steps.

    The smaller decay at first forgets the random weights that training started from.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        """Start from the current weights.

        Args:
            parameters: that train, by name.
            decay: `training.ema_decay`.
        """
        self._parameters, self._decay = parameters, decay
        self._mean = {name: one.detach().clone() for name, one in parameters.items()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Include the weights after `steps` steps."""
        decay = min(self._decay, (1 + steps) / (_WARMUP + steps))
        for name, one in self._parameters.items():
            self._mean[name].lerp_(one.detach(), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the network the mean instead of its weights, inside the block."""
        kept = {name: one.data for name, one in self._parameters.items()}
        for name, one in self._parameters.items():
            one.data = self._mean[name]
        try:
            yield
        finally:
            for name, one in self._parameters.items():
                one.data = kept[name]

    def state(self) -> dict[str, Tensor]:
        """The mean, by name."""
        return {name: one.contiguous() for name, one in self._mean.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore a mean that `state` returned."""
        for name, one in self._mean.items():
            one.copy_(state[name])
