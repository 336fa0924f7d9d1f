"""Focal stacks of a scene through a thin lens: layers, blurred and composited."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.errors import check_shape
from focaldiffusion.optics import blur_radius_px
from focaldiffusion.psf import PSF, transfer
from focaldiffusion.simulation.bokeh import Bokeh
from focaldiffusion.simulation.patches import Patch, find_patches

MAX_LAYERS = 32
"""A pixel shared by layers whose blur differs by d px of diameter gains at most d²/64 px² of blur
variance. If a scene fills 55 px of blur diameter without a gap, 32 layers are 1.8 px apart: a
Gaussian of 0.22 px. On path-traced rooms, 64 layers are not closer, and 16 lose 0.4 dB."""

SILHOUETTE_PX = 2.0
"""Neighbouring pixels lie on two surfaces if their blur diameters differ by more than this."""

_MAX_LATTICE = 1 << 20  # bounds the memory needed for a stray pixel at a micrometre
_CHUNK_PX = 1 << 20  # grid pixels of frames blurred at once; more would not fit the cache
_TRUSTED_COVERAGE = 0.02
"""Least coverage of a layer's blur to divide by."""
_WINDOW = 2
"""Reach of the window [px] to search for pure colours beside a silhouette: the rim is one pixel
wide on each side, so two pixels away there is an unmixed one."""
_RIM_WEIGHT = 1e-3  # of mixed pixels as a source of colour: negligible next to pure ones
_COLOUR_NOISE = 1e-3  # squared linear difference below which the colours of both sides are alike


def render(
    all_in_focus: Tensor,
    inverse_depth_dpt: Tensor,
    focus_dpt: Tensor,
    blur_scale_px_m: float,
    psf: PSF | Bokeh,
    *,
    max_layers: int = MAX_LAYERS,
) -> Tensor:
    """Photograph a scene at several focus distances, with occlusion.

    The pixels are shared among fronto-parallel layers k, near to far, by masks A_k that sum to
    one. With S_k = Σ_{j≥k} A_j, the cover of layer k and all behind it, and * the blur of layer k,

        opacity a_k = (A_k * PSF) / (S_k * PSF),   light c_k = (A_k J * PSF) / (S_k * PSF),
        I = Σ_k T_k c_k,   T_k = Π_{j<k} (1 - a_j).

    The division keeps the colour of nearer layers out of farther ones. If all layers have the
    same blur, the product telescopes to T_k = S_k * PSF and I is the plain convolution, so a
    slanted plane has no cracks. Where nearer layers hide everything within reach of a layer's blur
    (behind the translucent rim of a defocused foreground), the layer is continued from its
    surroundings, see `_continue_behind`.

    Args:
        all_in_focus: J, (3, H, W), linear light.
        inverse_depth_dpt: (H, W), dioptres, >= 0, no gaps.
        focus_dpt: (N,), dioptres, >= 0.
        blur_scale_px_m: `Camera.blur_scale_px_m` at this image size.
        psf: the shape of the blur.
        max_layers: upper limit; layers are at least a pixel of blur diameter apart.

    Returns:
        (N, 3, H, W), linear light. Differentiable in `all_in_focus`, and in `inverse_depth_dpt`
        through the masks.
    """
    check_shape("all_in_focus", all_in_focus, (3, "H", "W"))
    size = (all_in_focus.shape[-2], all_in_focus.shape[-1])
    check_shape("inverse_depth_dpt", inverse_depth_dpt, size)
    planes = layer_planes(inverse_depth_dpt.detach(), focus_dpt, blur_scale_px_m, max_layers)
    radii_px = blur_radius_px(planes[:, None], focus_dpt.to(planes), blur_scale_px_m).abs()
    share, *both = split_mixed_pixels(
        all_in_focus, inverse_depth_dpt, SILHOUETTE_PX / blur_scale_px_m
    )
    surfaces = torch.stack([side[:3] for side in both])  # (2, 3, H, W)
    shares = torch.stack([share, 1 - share])
    coordinate = _layer_coordinate(torch.stack([side[3] for side in both]), planes)

    # Two real planes blurred as one complex plane (red with green, blue with opacity) cost little
    # more than one.
    frames = _paired(all_in_focus.new_zeros((len(focus_dpt), 4, *size)))
    touched = coordinate.detach().floor().cpu().numpy()
    sight_px = 0.0  # reach of the blur of nearer layers
    for k, layer_radii_px in enumerate(radii_px):
        reach_px = psf.support * float(layer_radii_px.max())
        hidden = None
        for patch in find_patches(((touched == k) | (touched == k - 1)).any(0), reach_px, sight_px):
            layer = _layer(
                patch.source(surfaces), patch.source(shares), patch.source(coordinate) - k
            )
            for chosen, seen, coverage in _blurred(layer, patch, psf, layer_radii_px):
                missing = (_TRUSTED_COVERAGE - coverage).clamp_min(0)
                if bool((missing > 0).any()):
                    if hidden is None:
                        hidden = _continue_behind(_layer(surfaces, shares, coordinate - k))
                    seen = seen + missing * patch.seen(hidden)
                seen = seen / coverage.clamp_min(_TRUSTED_COVERAGE)
                opacity = seen[:, 1:].imag
                composite = patch.seen(frames[chosen])
                visible = (1 - composite[:, 1:].imag).clamp_min(0)
                # Light scales with its clamped opacity, so that a constant image stays constant.
                composite += seen * (visible * opacity.clamp(0, 1) / opacity.clamp_min(1e-6))
        sight_px = max(sight_px, reach_px)
    light = torch.stack([frames[:, 0].real, frames[:, 0].imag, frames[:, 1].real], dim=1)
    # The band limit of the PSF may undershoot black next to a highlight by 0.7 %.
    return light.clamp_min(0)


def _paired(planes: Tensor) -> Tensor:
    """(..., 4, H, W) as (..., 2, H, W) complex planes."""
    return torch.complex(planes[..., 0::2, :, :], planes[..., 1::2, :, :])


def _blurred(
    layer: Tensor, patch: Patch, psf: PSF | Bokeh, radii_px: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """A layer (5, h, w) blurred within a patch, for every frame.

    Yields:
        A slice of n frames; their light and opacity, (n, 2, rows, columns) complex; and their
        coverage, (n, 1, rows, columns).
    """
    pairs, coverage = _paired(layer[:4]), layer[4:]
    spectrum = patch.spectrum(pairs)  # (2, P, Q)
    hides = bool((coverage < 1).any())
    coverage_spectrum = patch.spectrum(coverage + 0j) if hides else None
    height, width = patch.grid_size
    step = max(2, _CHUNK_PX // (height * width))
    for first in range(0, len(radii_px), step):
        chosen = slice(first, first + step)
        factors = _factors(psf, radii_px[chosen], patch.grid_size)[:, None]  # (n, 1, P, Q)
        blurred = patch.inside(torch.fft.ifft2(spectrum * factors))
        covered = coverage.new_ones(len(factors), 1, 1, 1)
        if coverage_spectrum is not None:
            # Two frames at once: factors are symmetric, so each gives a real plane.
            two = functional.pad(factors, (0, 0, 0, 0, 0, 0, 0, len(factors) % 2))
            both = torch.fft.ifft2(coverage_spectrum * torch.complex(two[0::2], two[1::2]))
            both = patch.inside(both)
            covered = torch.stack([both.real, both.imag], dim=1).flatten(0, 1)[: len(factors)]
        sharp = radii_px[chosen] == 0
        if bool(sharp.any()):  # the transform would round
            still = sharp[:, None, None, None]
            blurred = torch.where(still, patch.unblurred(pairs), blurred)
            covered = torch.where(still, patch.unblurred(coverage), covered)
        yield chosen, blurred, covered


def _factors(psf: PSF | Bokeh, radii_px: Tensor, grid_size: tuple[int, int]) -> Tensor:
    """Factors (n, P, Q) that blur a spectrum, for each radius."""
    if isinstance(psf, Bokeh):
        return psf.factors(radii_px, grid_size)
    half = transfer(psf, radii_px, grid_size)
    return torch.cat([half, half[..., 1:-1].flip(-1)], dim=-1)


def split_mixed_pixels(
    image: Tensor, inverse_depth_dpt: Tensor, jump_dpt: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Separate the two surfaces averaged by a pixel on an anti-aliased silhouette.

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

    Returns:
        The share (H, W) of each pixel that its front surface covers, in [0, 1]; and the front and
        the back surface (4, H, W), linear RGB and inverse depth [dpt]. Blended by the share, the
        colours give the image. Away from silhouettes both are the pixel itself, and the share is 1.
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
    return (
        torch.ones_like(inverse_depth_dpt).index_put(at, share),
        _put(pixels, at, torch.cat([front_colour, front[3:]])),
        _put(pixels, at, torch.cat([back_colour, back[3:]])),
    )


def _put(pixels: Tensor, at: tuple[Tensor, Tensor], values: Tensor) -> Tensor:
    """A copy of (4, H, W) `pixels` with the (4, M) `values` at M places."""
    return pixels.movedim(0, -1).index_put(at, values.T).movedim(-1, 0)


def layer_planes(
    inverse_depth_dpt: Tensor, focus_dpt: Tensor, blur_scale_px_m: float, max_layers: int
) -> Tensor:
    """Inverse depths of the layers, near to far.

    A regular lattice with steps of a pixel of blur diameter, or coarser to respect `max_layers`,
    without planes that have no pixel next to them. Planes move by up to half a step onto the focus
    planes of frames, so that surfaces in focus stay exactly sharp.

    Returns:
        (K,), dioptres, descending, K <= `max_layers`.
    """
    far, near = (float(bound) for bound in inverse_depth_dpt.aminmax())
    if near == far:
        return inverse_depth_dpt.new_tensor([near])
    steps = min(math.ceil((near - far) * blur_scale_px_m), _MAX_LATTICE)
    while True:
        depth_in_steps = (near - inverse_depth_dpt.flatten()) * (steps / (near - far))
        cell = depth_in_steps.long().clamp(0, steps - 1)
        used = functional.pad(torch.bincount(cell, minlength=steps) > 0, (1, 1))
        used = used[:-1] | used[1:]  # a pixel needs the planes on both sides of its cell
        count = int(used.sum())
        if count <= max(max_layers, 2):
            break
        steps = min(steps - 1, steps * max_layers // count)
    lattice = torch.linspace(near, far, steps + 1).to(inverse_depth_dpt)
    lattice[0], lattice[-1] = near, far
    for focus in focus_dpt.tolist():
        index = round((near - focus) * steps / (near - far))
        if 0 < index < steps:
            lattice[index] = focus
    return lattice[used]


def _layer_coordinate(inverse_depth_dpt: Tensor, planes: Tensor) -> Tensor:
    """k + t if layers k and k + 1 share a pixel as 1 - t to t, linearly in inverse depth."""
    if len(planes) == 1:
        return torch.zeros_like(inverse_depth_dpt)
    k = torch.bucketize(-inverse_depth_dpt.detach(), -planes) - 1
    k = k.clamp(0, len(planes) - 2)
    t = (planes[k] - inverse_depth_dpt) / (planes[k] - planes[k + 1])
    return k + t.clamp(0, 1)


def _layer(surfaces: Tensor, shares: Tensor, steps_behind: Tensor) -> Tensor:
    """Planes of a layer to blur: light, opacity, cover of the layer and all behind it, (5, H, W).

    Args:
        surfaces: (2, 3, H, W), light of the front and the back surface of each pixel.
        shares: (2, H, W), share of the pixel that each covers.
        steps_behind: (2, H, W), number of layers from this one back to each.
    """
    masks = shares * (1 - steps_behind.abs()).clamp_min(0)
    behind = shares * steps_behind.clamp(0, 1)
    light = (surfaces * masks[:, None]).sum(0)
    opacity = masks.sum(0)[None]
    return torch.cat([light, opacity, opacity + behind.sum(0)])


def _continue_behind(layer: Tensor) -> Tensor:
    """Light and opacity of a layer, continued smoothly behind nearer layers.

    Pull-push: average over ever coarser pixels, then fill from coarse to fine.

    Args:
        layer: (5, H, W): light and opacity, both multiplied by the coverage, and the coverage.

    Returns:
        (2, H, W) complex, light and opacity at full coverage.
    """
    pyramid = [layer[None]]
    while max(pyramid[-1].shape[-2:]) > 1:
        height, width = pyramid[-1].shape[-2:]
        if height % 2 or width % 2:
            # Unlike strided pooling, this halves odd sizes symmetrically.
            half = ((height + 1) // 2, (width + 1) // 2)
            pulled = functional.adaptive_avg_pool2d(pyramid[-1], half)
        else:
            pulled = functional.avg_pool2d(pyramid[-1], 2)
        # The value of a partly covered coarse pixel is as good as that of a full one.
        coverage = pulled[:, 4:]
        pyramid.append(pulled * ((4 * coverage).clamp_max(1) / coverage.clamp_min(1e-12)))
    filled = pyramid[-1]
    filled = filled[:, :4] / filled[:, 4:].clamp_min(1e-12)
    for fine in reversed(pyramid[:-1]):
        coarse = functional.interpolate(
            filled, size=fine.shape[-2:], mode="bilinear", align_corners=False
        )
        filled = fine[:, :4] + (1 - fine[:, 4:]) * coarse
    return _paired(filled[0])
