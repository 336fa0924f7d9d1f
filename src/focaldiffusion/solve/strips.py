"""Volumes (K, H, W) in strips of rows: small temporaries, which threads share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from focaldiffusion.threads import in_parallel

_ROWS = 32


def in_strips(work: Callable[[slice], Tensor], height: int) -> Tensor:
    """Join the results (..., h, W) of `work` for slices of h rows to (..., H, W)."""
    strips = [slice(top, min(top + _ROWS, height)) for top in range(0, height, _ROWS)]
    made = in_parallel(work, strips)
    first = next(made)
    if first.requires_grad:
        return torch.cat([first, *made], dim=-2)
    joined = first.new_empty((*first.shape[:-2], height, first.shape[-1]))
    joined[..., strips[0], :] = first
    for rows, one in zip(strips[1:], made, strict=True):
        joined[..., rows, :] = one
    return joined


def with_margin(rows: slice, margin: int) -> tuple[slice, slice]:
    """The rows and a margin, clipped at row 0, and the place of the rows within them."""
    first = max(rows.start - margin, 0)
    return slice(first, rows.stop + margin), slice(rows.start - first, rows.stop - first)
