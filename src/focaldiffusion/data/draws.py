"""Random numbers for one sample, drawn on the CPU in a fixed order: a seed repeats them."""

from __future__ import annotations

import math

import torch


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """A number from `low` to `high`."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def log_uniform(low: float, high: float, generator: torch.Generator) -> float:
    """A number from `low` to `high`, both > 0, whose logarithm is uniform."""
    return math.exp(uniform(math.log(low), math.log(high), generator))


def integer(low: int, high: int, generator: torch.Generator) -> int:
    """A whole number from `low` to `high`, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))
