"""Kernels that the physical estimate of a stack starts on a GPU, counted on a CPU.

    python benchmarks/launches.py [--stacks 4] [--size 480 640] [--frames 5]

Every operation that reaches a backend counts as one kernel, except views, allocations and reading a
number. Work is cut into the pieces of a GPU, see `strips.values_at_once`, so its time on the CPU
says nothing. Transforms over two dimensions count once, although a library may start several.
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from focaldiffusion import strips
from focaldiffusion.data.procedural.scenes import make_scene
from focaldiffusion.psf import PSF
from focaldiffusion.recovery import estimate_depths
from focaldiffusion.simulation.capture import capture, filled_inverse_depth
from focaldiffusion.stack import FocalStack

_NO_KERNEL = {
    "detach",
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "_local_scalar_dense",
}


class Launches(TorchDispatchMode):
    """Counts kernels by the name of their operation while it is entered."""

    def __init__(self) -> None:
        """Start from zero."""
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operation and run it."""
        returned = [one.alias_info for one in func._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in returned)
        name = func.overloadpacket.__name__
        if not is_view and name not in _NO_KERNEL:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def photographed(seed: int, size: tuple[int, int], frames: int) -> FocalStack:
    """A stack of a procedural scene, focused evenly over its depth."""
    scene = make_scene(seed, size)
    inverse_depth = filled_inverse_depth(scene).flatten()
    far, near = inverse_depth.quantile(torch.tensor([0.02, 0.98])).tolist()
    return capture(scene, 1 / torch.linspace(far, near, frames))


def counted(stacks: list[FocalStack]) -> Counter[str]:
    """Kernels by operation for stacks that are estimated together."""
    with patch.object(strips, "_OF_A_CACHE", strips._OF_A_GPU), Launches() as launches:
        estimate_depths(stacks, PSF())
    return launches.counts


def main() -> None:
    """Print the kernels of one stack and of several together."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stacks", type=int, default=4, help="stacks in a batch (default: 4)")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), help="height and width")
    parser.add_argument("--frames", type=int, default=5, help="frames of a stack (default: 5)")
    arguments = parser.parse_args()
    size = (arguments.size[0], arguments.size[1])
    stacks = [photographed(3 + index, size, arguments.frames) for index in range(arguments.stacks)]
    alone = [counted([stack]).total() for stack in stacks]
    together = counted(stacks).total()
    mean = sum(alone) / len(alone)
    print(f"kernels of each stack alone: {alone}, mean {mean:.0f}")
    print(f"of {len(stacks)} together: {together}, {together / mean:.2f} times the mean")


if __name__ == "__main__":
    main()
