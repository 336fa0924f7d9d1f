"""What is scored, and whatever makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.stack import FocalStack


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of a stack, at the size of its frames; None for what it does not say.

    Attributes:
        depth_m: (H, W) metres along the optical axis, NaN where it knows none.
        all_in_focus: (3, H, W) sRGB-encoded, [0, 1].
        confidence: (H, W), larger is surer, no NaN.
        shared_seconds: wall time of a physical estimate that it builds on and that was made for
            another model.
    """

    depth_m: Tensor | None = None
    all_in_focus: Tensor | None = None
    confidence: Tensor | None = None
    shared_seconds: float = 0.0


class Model(Protocol):
    """Anything that makes a prediction from a stack: it never sees the truth."""

    name: str

    def predict(self, stack: FocalStack, sample: str) -> Prediction:
        """Reconstruct a stack.

        Args:
            stack: aligned, with everything that is known of its focus and lens.
            sample: the name of the sample, by which predictions made elsewhere are found.

        Raises:
            InputError: the model cannot work on this stack.
        """
        ...


def channels_first(image: NDArray[Any]) -> Tensor:
    """(H, W, 3) to (3, H, W)."""
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


def near_to_far(stack: FocalStack) -> list[int]:
    """The frames in order of focus: what follows it depends on no order they are listed in."""
    order: list[int] = stack.focus_coordinates.argsort(descending=True, stable=True).tolist()
    return order


def reference_frame(stack: FocalStack) -> int:
    """The frame whose view the truth has where frames moved: the middle one of the sweep."""
    return near_to_far(stack)[(len(stack) - 1) // 2]
