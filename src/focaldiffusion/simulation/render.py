"""Focal stacks of a scene through a thin lens: layers, blurred and composited."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from focaldiffusion.errors import check_shape
from focaldiffusion.optics import blur_radius_px
from focaldiffusion.psf import PSF, transfer
from focaldiffusion.simulation.bokeh import Bokeh
from focaldiffusion.simulation.patches import Patch, find_patches
from focaldiffusion.strips import values_at_once

MAX_LAYERS = 32
"""A pixel shared by layers whose blur differs by d px of diameter gains at most d²/64 px² of blur
variance. If a scene fills 55 px of blur diameter without a gap, 32 layers are 1.8 px apart: a
Gaussian of 0.22 px. On path-traced rooms, 64 layers are not closer, and 16 lose 0.4 dB."""

SILHOUETTE_PX = 2.0
"""Neighbouring pixels lie on two surfaces if their blur diameters differ by more than this."""

_MAX_LATTICE = 1 << 20  # bounds the memory needed for a stray pixel at a micrometre
_AT_ONCE = 4  # times `values_at_once`: pixels of layers and frames blurred at once
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
    check_shape("inverse_depth_dpt", inverse_depth_dpt, tuple(all_in_focus.shape[-2:]))
    return render_all(
        all_in_focus[None],
        inverse_depth_dpt[None],
        focus_dpt[None],
        [blur_scale_px_m],
        psf,
        max_layers=max_layers,
    )[0]


def render_all(
    all_in_focus: Tensor,
    inverse_depth_dpt: Tensor,
    focus_dpt: Tensor,
    blur_scales_px_m: Sequence[float],
    psf: PSF | Bokeh,
    *,
    max_layers: int = MAX_LAYERS,
) -> Tensor:
    """`render` for B scenes of one size and N focus distances each, in step.

    Args:
        all_in_focus: (B, 3, H, W).
        inverse_depth_dpt: (B, H, W).
        focus_dpt: (B, N).
        blur_scales_px_m: of each scene.
        psf: see `render`.
        max_layers: see `render`.

    Returns:
        (B, N, 3, H, W).
    """
    scenes, _, *size = all_in_focus.shape
    planes = pad_sequence(
        [
            layer_planes(one, focus, scale, max_layers)
            for one, focus, scale in zip(
                inverse_depth_dpt.detach(), focus_dpt, blur_scales_px_m, strict=True
            )
        ],
        batch_first=True,
        padding_value=-1.0,  # behind everything: without pixels
    )
    scales = all_in_focus.new_tensor(blur_scales_px_m)[:, None, None]
    focus_dpt = focus_dpt.to(planes)
    radii_px = blur_radius_px(planes[..., None], focus_dpt[:, None], scales).abs()  # (B, K, N)
    radii_px = torch.where(planes[..., None] < 0, 0, radii_px)
    share, *both = _split(all_in_focus, inverse_depth_dpt, SILHOUETTE_PX / scales)
    surfaces = torch.stack([side[:, :3] for side in both], 1)  # (B, 2, 3, H, W)
    shares = torch.stack([share, 1 - share], 1)
    coordinate = _layer_coordinate(torch.stack([side[:, 3] for side in both], 1), planes)

    # Two real planes blurred as one complex plane (red with green, blue with opacity) cost little
    # more than one.
    frames = _paired(all_in_focus.new_zeros((scenes, focus_dpt.shape[1], 4, *size)))
    touched = coordinate.detach().floor().cpu().numpy()
    reaches_px = psf.support * radii_px.amax((0, 2))
    most = _AT_ONCE * values_at_once(frames.device)
    at_once = max(1, most // frames[:, :, 0].numel())
    sight_px = 0.0  # reach of the blur of nearer layers
    for first in range(0, planes.shape[1], at_once):
        layers = slice(first, min(first + at_once, planes.shape[1]))
        reach_px = float(reaches_px[layers].max())
        if at_once > 1:
            sight_px = max(sight_px, reach_px)
        steps = torch.arange(layers.start, layers.stop, device=frames.device)[:, None, None, None]
        behind = coordinate[:, None] - steps  # (B, k, 2, H, W)
        hidden = None
        used = ((touched >= first - 1) & (touched < layers.stop)).any((0, 1))
        for patch in find_patches(np.asarray(used), reach_px, sight_px):
            layer = _layer(patch.source(surfaces), patch.source(shares), patch.source(behind))
            for chosen, seen, coverage in _blurred(layer, patch, psf, radii_px[:, layers], most):
                missing = (_TRUSTED_COVERAGE - coverage).clamp_min(0)
                if bool((missing > 0).any()):
                    if hidden is None:
                        hidden = _continue_behind(_layer(surfaces, shares, behind))[:, :, None]
                    seen = seen + missing * patch.seen(hidden)
                seen = seen / coverage.clamp_min(_TRUSTED_COVERAGE)
                _composite(patch.seen(frames[:, chosen]), seen)
        sight_px = max(sight_px, reach_px)
    light = torch.stack([frames[:, :, 0].real, frames[:, :, 0].imag, frames[:, :, 1].real], dim=2)
    # The band limit of the PSF may undershoot black next to a highlight by 0.7 %.
    return light.clamp_min(0)


def _composite(frames: Tensor, seen: Tensor) -> None:
    """Add layers (B, k, N, 2, h, w), near to far, behind what frames (B, N, 2, h, w) hold."""
    opacity = seen[..., 1:, :, :].imag
    visible = (1 - frames[..., 1:, :, :].imag).clamp_min(0)[:, None]
    covers = opacity.clamp(0, 1)
    if seen.shape[1] > 1:
        through = (1 - covers[:, :-1]).cumprod(1)
        visible = visible * torch.cat([torch.ones_like(covers[:, :1]), through], 1)
    # Light scales with its clamped opacity, so that a constant image stays constant.
    frames += (seen * (visible * covers / opacity.clamp_min(1e-6))).sum(1)


def _paired(planes: Tensor) -> Tensor:
    """(..., 4, H, W) as (..., 2, H, W) complex planes."""
    return torch.complex(planes[..., 0::2, :, :], planes[..., 1::2, :, :])


def _blurred(
    layers: Tensor, patch: Patch, psf: PSF | Bokeh, radii_px: Tensor, most: int
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Layers (B, k, 5, h, w) blurred within a patch, for every frame.

    Args:
        layers: see `_layer`.
        patch: where they show.
        psf: the shape of the blur.
        radii_px: (B, k, N).
        most: values in work at once.

    Yields:
        A slice of n frames; their light and opacity, (B, k, n, 2, rows, columns) complex; and their
        coverage, (B, k, n, 1, rows, columns).
    """
    pairs, coverage = _paired(layers[..., :4, :, :]), layers[..., 4, :, :]
    spectrum = patch.spectrum(pairs)[:, :, None]  # (B, k, 1, 2, P, Q)
    hides = bool((coverage < 1).any())
    coverage_spectrum = patch.spectrum(coverage + 0j)[:, :, None] if hides else None
    height, width = patch.grid_size
    step = max(2, most // (layers.shape[0] * layers.shape[1] * height * width))
    for first in range(0, radii_px.shape[2], step):
        chosen = slice(first, first + step)
        radii = radii_px[:, :, chosen]
        factors = _factors(psf, radii, patch.grid_size)  # (B, k, n, P, Q)
        blurred = patch.inside(torch.fft.ifft2(spectrum * factors[:, :, :, None]))
        covered = coverage.new_ones(*factors.shape[:3], 1, 1)
        if coverage_spectrum is not None:
            # Two frames at once: factors are symmetric, so each gives a real plane.
            two = functional.pad(factors, (0, 0, 0, 0, 0, factors.shape[2] % 2))
            both = torch.complex(two[:, :, 0::2], two[:, :, 1::2])
            both = patch.inside(torch.fft.ifft2(coverage_spectrum * both))
            covered = torch.stack([both.real, both.imag], dim=3).flatten(2, 3)
            covered = covered[:, :, : factors.shape[2]]
        sharp = radii == 0
        if bool(sharp.any()):  # the transform would round
            still = sharp[..., None, None]
            blurred = torch.where(still[..., None], patch.unblurred(pairs)[:, :, None], blurred)
            covered = torch.where(still, patch.unblurred(coverage)[:, :, None], covered)
        yield chosen, blurred, covered[:, :, :, None]


def _factors(psf: PSF | Bokeh, radii_px: Tensor, grid_size: tuple[int, int]) -> Tensor:
    """Factors (..., P, Q) that blur a spectrum, for each radius (...)."""
    if isinstance(psf, Bokeh):
        return psf.factors(radii_px.flatten(), grid_size).unflatten(0, radii_px.shape)
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
    jump = inverse_depth_dpt.new_tensor(jump_dpt)
    share, front, back = _split(image[None], inverse_depth_dpt[None], jump)
    return share[0], front[0], back[0]


def _split(image: Tensor, inverse_depth_dpt: Tensor, jump_dpt: Tensor) -> tuple[Tensor, ...]:
    """`split_mixed_pixels` of B images."""
    pixels = torch.cat([image, inverse_depth_dpt[:, None]], 1)
    padded = functional.pad(inverse_depth_dpt.detach(), (1, 1, 1, 1), mode="replicate")
    nearest = functional.max_pool2d(padded, 3, stride=1)
    farthest = -functional.max_pool2d(-padded, 3, stride=1)
    mixed = nearest - farthest > jump_dpt
    at = mixed.nonzero(as_tuple=True)
    between = ((nearest + farthest) / 2)[at]

    # Neighbours of each mixed pixel, and their side of its silhouette: (M, W²).
    (which, y, x), (height, width) = at, mixed.shape[1:]
    reach = torch.arange(-_WINDOW, _WINDOW + 1, device=image.device)
    dy, dx = (offset.flatten() for offset in torch.meshgrid(reach, reach, indexing="ij"))
    near_y, near_x = (y[:, None] + dy).clamp(0, height - 1), (x[:, None] + dx).clamp(0, width - 1)
    near = (which[:, None], near_y, near_x)
    neighbours = _at(pixels, near)  # (4, M, W²)
    weight = torch.where(mixed[near], _RIM_WEIGHT, 1.0).to(image)
    in_front = neighbours[3].detach() >= between[:, None]
    front, back = (
        (neighbours * side).sum(-1) / side.sum(-1)
        for side in (weight * in_front, weight * ~in_front)
    )  # (4, M)

    colour, contrast = _at(image, at), (front - back)[:3]
    shows_front = (inverse_depth_dpt[at] >= between).to(image)
    share = (((colour - back[:3]) * contrast).sum(0) + _COLOUR_NOISE * shows_front) / (
        (contrast**2).sum(0) + _COLOUR_NOISE
    )
    share = torch.minimum(torch.maximum(share, shows_front / 2), (1 + shows_front) / 2)
    # Both colours must blend to J. If the centre shows the front, the rest is its texture; if it
    # shows the back, the rest may be the texture of either.
    rest = colour - share * front[:3] - (1 - share) * back[:3]
    front_colour = front[:3] + rest * torch.where(shows_front > 0, 1 / share.clamp_min(0.5), 1.0)
    back_colour = back[:3] + rest * (1 - shows_front)
    return (
        torch.ones_like(inverse_depth_dpt).index_put(at, share),
        _put(pixels, at, torch.cat([front_colour, front[3:]])),
        _put(pixels, at, torch.cat([back_colour, back[3:]])),
    )


def _at(pixels: Tensor, at: tuple[Tensor, ...]) -> Tensor:
    """Values (C, ...) of (B, C, H, W) `pixels` at places (...)."""
    return pixels.movedim(1, -1)[at].movedim(-1, 0)


def _put(pixels: Tensor, at: tuple[Tensor, ...], values: Tensor) -> Tensor:
    """A copy of (B, 4, H, W) `pixels` with the (4, M) `values` at M places."""
    return pixels.movedim(1, -1).index_put(at, values.T).movedim(-1, 1)


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
    coordinates = inverse_depth_dpt.detach().cpu().numpy().ravel()
    far, near = float(coordinates.min()), float(coordinates.max())
    if near == far:
        return inverse_depth_dpt.new_tensor([near])
    steps = min(math.ceil((near - far) * blur_scale_px_m), _MAX_LATTICE)
    while True:
        depth_in_steps = (near - coordinates) * (steps / (near - far))
        cell = depth_in_steps.astype(int).clip(0, steps - 1)
        used = np.pad(np.bincount(cell, minlength=steps) > 0, 1)
        used = used[:-1] | used[1:]  # a pixel needs the planes on both sides of its cell
        count = int(used.sum())
        if count <= max(max_layers, 2):
            break
        steps = min(steps - 1, steps * max_layers // count)
    lattice = np.linspace(near, far, steps + 1)
    for focus in focus_dpt.tolist():
        index = round((near - focus) * steps / (near - far))
        if 0 < index < steps:
            lattice[index] = focus
    return torch.from_numpy(lattice[used]).to(inverse_depth_dpt)


def _layer_coordinate(inverse_depth_dpt: Tensor, planes: Tensor) -> Tensor:
    """k + t if layers k and k + 1 share a pixel as 1 - t to t, linearly in inverse depth.

    Args:
        inverse_depth_dpt: (B, ...).
        planes: (B, K) descending.
    """
    if planes.shape[1] == 1:
        return torch.zeros_like(inverse_depth_dpt)
    flat = inverse_depth_dpt.flatten(1)
    k = torch.searchsorted(-planes, -flat.detach()) - 1
    k = k.clamp(0, planes.shape[1] - 2)
    before, after = planes.gather(1, k), planes.gather(1, k + 1)
    return (k + ((before - flat) / (before - after)).clamp(0, 1)).view_as(inverse_depth_dpt)


def _layer(surfaces: Tensor, shares: Tensor, steps_behind: Tensor) -> Tensor:
    """Planes of k layers to blur: light, opacity, cover of a layer and all behind it.

    Args:
        surfaces: (B, 2, 3, H, W), light of the front and the back surface of each pixel.
        shares: (B, 2, H, W), share of the pixel that each covers.
        steps_behind: (B, k, 2, H, W), number of layers from each layer back to each surface.

    Returns:
        (B, k, 5, H, W).
    """
    shares = shares[:, None]
    masks = shares * (1 - steps_behind.abs()).clamp_min(0)
    behind = shares * steps_behind.clamp(0, 1)
    light = (surfaces[:, None] * masks[:, :, :, None]).sum(2)
    opacity = masks.sum(2, keepdim=True)
    return torch.cat([light, opacity, opacity + behind.sum(2, keepdim=True)], 2)


def _continue_behind(layer: Tensor) -> Tensor:
    """Light and opacity of a layer, continued smoothly behind nearer layers.

    Pull-push: average over ever coarser pixels, then fill from coarse to fine.

    Args:
        layer: (B, k, 5, H, W): light and opacity, both multiplied by the coverage, and the
            coverage.

    Returns:
        (B, k, 2, H, W) complex, light and opacity at full coverage.
    """
    pyramid = [layer.flatten(0, 1)]
    while max(pyramid[-1].shape[-2:]) > 1:
        height, width = pyramid[-1].shape[-2:]
        if height % 2 or width % 2:
            # Unlike strided pooling, this halves odd sizes symmetrically.
            half = ((height + 1) // 2, (width + 1) // 2)
            pulled = functional.adaptive_avg_pool2d(pyramid[-1], half)
        else:
            pulled = functional.avg_pool2d(pyramid[-1], 2)
        # The value of a partly covered coarse pixel is as good as that of a full one.
        pyramid.append(pulled / pulled[:, 4:].clamp_min(0.25))
    filled = pyramid[-1]
    filled = filled[:, :4] / filled[:, 4:].clamp_min(1e-12)
    for fine in reversed(pyramid[:-1]):
        coarse = functional.interpolate(
            filled, size=fine.shape[-2:], mode="bilinear", align_corners=False
        )
        filled = torch.addcmul(fine[:, :4], 1 - fine[:, 4:], coarse)
    return _paired(filled.unflatten(0, layer.shape[:2]))
