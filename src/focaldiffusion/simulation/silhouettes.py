"""Mixed pixels: anti-aliased silhouettes of an image over a depth map without anti-aliasing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_WINDOW = 2
"""Reach of the window [px] to search for pure colours beside a silhouette: the rim is one pixel
wide on each side, so two pixels away there is an unmixed one."""
_RIM_WEIGHT = 1e-3  # of mixed pixels as a source of colour: negligible next to pure ones
_COLOUR_NOISE = 1e-3  # squared linear difference below which the colours of both sides are alike


@dataclass(frozen=True, eq=False)
class Silhouettes:
    """Each pixel as a front surface that covers a share of it, and a back surface.

    Attributes:
        share: (H, W) in [0, 1], share of the pixel that the front surface covers.
        front, back: (4, H, W), linear RGB and inverse depth [dpt]. Blended by `share`, the colours
            give the image. Away from silhouettes both are the pixel itself, and the share is 1.
    """

    share: Tensor
    front: Tensor
    back: Tensor


def split_mixed_pixels(image: Tensor, inverse_depth_dpt: Tensor, jump_dpt: float) -> Silhouettes:
    """Separate the two surfaces averaged by a pixel on a silhouette.

    An image holds the average over a pixel, its depth map the surface at the centre. Blurred as
    one surface, the far pixels of a silhouette would draw the near object's colour as a sharp,
    dashed line behind its blur, and in-focus objects would lose their anti-aliasing. With the
    mean colours F and B of pure pixels beside it, a mixed colour J has the share
    <J - B, F - B> / |F - B|², at least a half if the centre shows the front surface and at most a
    half if it shows the back.

    Args:
        image: J, (3, H, W), linear light.
        inverse_depth_dpt: (H, W), dioptres.
        jump_dpt: least difference between neighbours across a silhouette, dioptres.
    """
    pixels = torch.cat([image, inverse_depth_dpt[None]])
    padded = functional.pad(inverse_depth_dpt.detach()[None], (1, 1, 1, 1), mode="replicate")
    nearest = functional.max_pool2d(padded, 3, stride=1)[0]
    farthest = -functional.max_pool2d(-padded, 3, stride=1)[0]
    mixed = nearest - farthest > jump_dpt
    y, x = mixed.nonzero(as_tuple=True)
    between = ((nearest + farthest) / 2)[y, x]

    # Neighbours of each mixed pixel, and their side of its silhouette: (M, W²).
    height, width = mixed.shape
    reach = torch.arange(-_WINDOW, _WINDOW + 1, device=image.device)
    dy, dx = (offset.flatten() for offset in torch.meshgrid(reach, reach, indexing="ij"))
    near_y, near_x = (y[:, None] + dy).clamp(0, height - 1), (x[:, None] + dx).clamp(0, width - 1)
    neighbours = pixels[:, near_y, near_x]  # (4, M, W²)
    weight = torch.where(mixed[near_y, near_x], _RIM_WEIGHT, 1.0).to(image)
    in_front = neighbours[3].detach() >= between[:, None]
    front, back = (
        (neighbours * side).sum(-1) / side.sum(-1)
        for side in (weight * in_front, weight * ~in_front)
    )  # (4, M)

    colour, contrast = image[:, y, x], (front - back)[:3]
    shows_front = (inverse_depth_dpt[y, x] >= between).to(image)
    share = (((colour - back[:3]) * contrast).sum(0) + _COLOUR_NOISE * shows_front) / (
        (contrast**2).sum(0) + _COLOUR_NOISE
    )
    share = torch.minimum(torch.maximum(share, shows_front / 2), (1 + shows_front) / 2)
    # Both colours must blend to J. If the centre shows the front, the rest is its texture; if it
    # shows the back, the rest may be the texture of either.
    rest = colour - share * front[:3] - (1 - share) * back[:3]
    front_colour = front[:3] + rest * torch.where(shows_front > 0, 1 / share.clamp_min(0.5), 1.0)
    back_colour = back[:3] + rest * (1 - shows_front)
    at = (y, x)
    return Silhouettes(
        torch.ones_like(inverse_depth_dpt).index_put(at, share),
        _put(pixels, at, torch.cat([front_colour, front[3:]])),
        _put(pixels, at, torch.cat([back_colour, back[3:]])),
    )


def _put(pixels: Tensor, at: tuple[Tensor, Tensor], values: Tensor) -> Tensor:
    """A copy of (4, H, W) `pixels` with the (4, M) `values` at M places."""
    return pixels.movedim(0, -1).index_put(at, values.T).movedim(-1, 0)
