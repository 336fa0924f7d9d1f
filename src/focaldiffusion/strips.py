"""Large arrays in strips of rows: small temporaries, which threads share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch import Tensor

from focaldiffusion.threads import in_parallel

_OF_A_CACHE = 1 << 18
_OF_A_GPU = 1 << 26  # starting a kernel takes as long as a million values


def values_at_once(device: torch.device) -> int:
    """Number of values to have in work at once: those that fit a cache, or keep a GPU busy."""
    return _OF_A_CACHE if device.type == "cpu" else _OF_A_GPU


def in_strips(
    work: Callable[[slice], Tensor],
    shape: Sequence[int],
    device: torch.device,
    *,
    margin: int = 0,
    multiple: int = 1,
) -> Tensor:
    """Join the results (..., h, W) of `work` for slices of rows to (..., H, W).

    Args:
        work: called with the rows of a strip.
        shape: (..., H, W) of the array that it reads.
        device: of the array.
        margin: rows that it reads beyond either end of a strip, see `with_margin`.
        multiple: strips begin at multiples of it; the result may have one row for as many rows.
    """
    *leading, height, width = shape
    of_a_row = width
    for count in leading:
        of_a_row *= count
    rows = max(values_at_once(device) // of_a_row, 8 * margin, 1)
    rows = multiple * max(1, rows // multiple)
    strips = [slice(top, min(top + rows, height)) for top in range(0, height, rows)]
    made = in_parallel(work, strips)
    first = next(made)
    if first.requires_grad or len(strips) == 1:
        return torch.cat([first, *made], dim=-2)
    shrink = 1 if first.shape[-2] == strips[0].stop else multiple
    joined = first.new_empty((*first.shape[:-2], -(-height // shrink), first.shape[-1]))
    for strip, one in zip(strips, chain([first], made), strict=True):
        joined[..., strip.start // shrink : -(-strip.stop // shrink), :] = one
    return joined


def with_margin(rows: slice, margin: int) -> tuple[slice, slice]:
    """The rows and a margin, clipped at row 0, and the place of the rows within them."""
    first = max(rows.start - margin, 0)
    return slice(first, rows.stop + margin), slice(rows.start - first, rows.stop - first)
