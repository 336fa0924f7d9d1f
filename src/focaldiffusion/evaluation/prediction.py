"""Predictions to score, and the interface of the models that make them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.stack import FocalStack


@dataclass(frozen=True, eq=False)
class Prediction:
    """Prediction of a model for a stack, at the size of its frames; None for missing parts.

    Attributes:
        depth_m: (H, W) metres along the optical axis, NaN where unknown.
        all_in_focus: (3, H, W) sRGB-encoded, [0, 1].
        confidence: (H, W), larger is surer, no NaN.
        shared_seconds: wall time of a physical estimate that was made for another model and that
            this prediction reuses.
    """

    depth_m: Tensor | None = None
    all_in_focus: Tensor | None = None
    confidence: Tensor | None = None
    shared_seconds: float = 0.0


class Model(Protocol):
    """Anything that makes a prediction from a stack, without access to the truth."""

    name: str

    def predict(self, stack: FocalStack, sample: str) -> Prediction:
        """Reconstruct a stack.

        Args:
            stack: aligned, with all known facts about its focus and lens.
            sample: name of the sample, by which stored predictions are found.

        Raises:
            InputError: a stack that the model cannot process.
        """
        ...


def channels_first(image: NDArray[Any]) -> Tensor:
    """(H, W, 3) to (3, H, W)."""
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


def near_to_far(stack: FocalStack) -> list[int]:
    """Indices of the frames in order of focus, independent of their order in the stack."""
    order: list[int] = stack.focus_coordinates.argsort(descending=True, stable=True).tolist()
    return order


def reference_frame(stack: FocalStack) -> int:
    """The frame whose view is that of the truth if frames moved: the middle one of the sweep."""
    return near_to_far(stack)[(len(stack) - 1) // 2]
