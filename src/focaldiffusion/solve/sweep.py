"""The plane sweep: how well the defocus of each candidate depth explains the frames.

For a plane at hypothesis k the lens turns one sharp image J into N frames, J blurred by the
radii r(s, k). The J that fits them best has a closed form in the Fourier domain (a Wiener
estimate from all frames at once), so nothing needs to know the sharp image beforehand:

    J_k = Σ_s H_sk I_s / (Σ_s H_sk² + ε),   cost_k(x) = Σ_s (I_s - H_sk J_k)²(x) / noise²

with H_sk the transfer function of frame s at hypothesis k. Where the blur is not known and cannot
be found, sharpness per frame fills the same interface.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.depth import inverse_depth_bounds_dpt
from focaldiffusion.evidence import Evidence
from focaldiffusion.optics import blur_radius_px, linear_to_srgb
from focaldiffusion.psf import PSF, MirrorGrid
from focaldiffusion.stack import FocalStack

LUMA_WEIGHTS = (0.3, 0.5, 0.2)
"""Near the noise-optimal mix of three equally noisy channels, with green's sharper optics ahead."""

POSTERIOR_STRENGTH = 36.0
"""Log-odds against a hypothesis of a pixel whose texture is all its own. Bounded, so that model
error (occlusion, an imperfect PSF) never counts as certainty. Among equally textured neighbours
a pixel's share is 0.4."""

_MIN_NOISE_STD = 0.6 / 255  # rounding to 8 bits, and the JPEG coder, leave at least this in luma
_MISFIT_VARIANCE = 10.0  # squared misfit, in noise variances, at which a hypothesis is doubted
_TEXTURE_TO_NOISE = 1.5  # gradient, in noise deviations, at which texture begins to count
_NEIGHBOUR_LEAK = 1.2  # weight of the strongest gradient nearby, whose blur a pixel may be showing
# The same where sharpness alone counts. Beside an edge it is highest where its halo ends, in the
# most blurred frame, and no model of the blur says otherwise.
_HALO_LEAK = 2.4
_AGGREGATION_PX = 2  # half window over which misfit is averaged
_SHARPEST_AGGREGATION_PX = 3  # half window of the choice of frame, which fusion refines by itself
# ε at frequency 0, the inverse signal-to-noise ratio of natural images. A larger one favours
# planes that several frames show sharp: at 4e-3 depth was off by a tenth of a pixel of blur.
_PRIOR_STRENGTH = 5e-4
_PRIOR_KNEE = 0.02  # the frequency [cycles/px] from which the signal falls as 1/f²
_TILE_PX = 1536  # side of a tile; a working image of 1024 is one tile


@dataclass(frozen=True)
class _Luma:
    """What the sweep reads of a stack: linear luma and its noise, (N, H, W) each."""

    linear: Tensor
    noise_std: Tensor
    trusted: Tensor

    def cropped(self, rows: slice, columns: slice) -> _Luma:
        return _Luma(*(field[:, rows, columns] for field in vars(self).values()))


def depth_hypotheses(focus_dpt: Tensor, blur_scale_px_m: float) -> Tensor:
    """Inverse depths to try: fine where frames are focused, coarser where all are blurred.

    Steps are 0.25-1 px of blur diameter between the nearest and farthest focus; beyond them
    they grow with the blur itself, because a change of a tenth of a blur is what can be seen.

    Args:
        focus_dpt: (N,) where the frames are focused, dioptres.
        blur_scale_px_m: A F, see `Camera.blur_scale_px_m`.

    Returns:
        (K,) dioptres, ascending, between the bounds of `inverse_depth_bounds_dpt`.
    """
    far, near = inverse_depth_bounds_dpt(focus_dpt, blur_scale_px_m)
    first, last = float(focus_dpt.min()), float(focus_dpt.max())
    span_px = (last - first) * blur_scale_px_m
    step_px = _step_px(span_px)

    def outwards(room_px: float) -> Iterator[float]:
        offset = 0.0
        while offset < room_px:
            offset = min(offset + max(step_px, 0.1 * offset), room_px)
            yield offset

    inner = torch.linspace(first, last, max(2, math.ceil(span_px / step_px) + 1)).tolist()
    below = [first - px / blur_scale_px_m for px in outwards((first - far) * blur_scale_px_m)]
    above = [last + px / blur_scale_px_m for px in outwards((near - last) * blur_scale_px_m)]
    values = torch.tensor([*reversed(below), *inner, *above], dtype=torch.float64)
    return values.clamp_min(0).to(focus_dpt).unique()  # no two may round to one number


def sweep(
    stack: FocalStack,
    blur_scale: float,
    psf: PSF,
    *,
    step_growth: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> Evidence:
    """Evidence from defocus: the posterior over planes, for a lens whose blur is known.

    Args:
        stack: the frames.
        blur_scale: blur diameter [px] per unit of the stack's axis: A F on the inverse depth
            axis; on the position axis, pixels of blur per metre of defocus; of frames of which
            only the order is known, pixels over the whole sweep.
        psf: the shape of the blur.
        step_growth: of those frames, see `ordered_focus`.
        progress: called with the hypotheses done and in all.

    Returns:
        Evidence on the axis of the stack. Its posterior is differentiable in `stack.images`.
    """
    focus = stack.focus_coordinates
    if stack.axis == "order":
        focus = ordered_focus(len(stack), step_growth).to(focus)
    if stack.axis == "inverse_depth_dpt":
        hypotheses = depth_hypotheses(focus, blur_scale)
    else:
        hypotheses = _position_hypotheses(focus, blur_scale)
    misfit = plane_misfit(stack, focus, hypotheses, blur_scale, psf, progress=progress)
    # Each volume of (K, H, W) is let go as soon as the next one stands: they are what memory holds.
    with torch.no_grad():
        sharpest = refine_minimum(box_mean(misfit, _SHARPEST_AGGREGATION_PX), hypotheses)
    misfit = box_mean(misfit, _AGGREGATION_PX)
    lowest = misfit.amin(0)
    # One sharp image fits N frames up to N - 1 variances of their noise. What is left above that no
    # plane explains: motion, the true shape of the blur, what a JPEG coder did. Then differences
    # between planes that are small beside it say nothing either (Birge, 1932).
    unexplained = box_mean(lowest / (len(focus) - 1), _AGGREGATION_PX).clamp_min(1)
    misfit = (lowest - misfit) / (_MISFIT_VARIANCE * unexplained)
    doubt = -torch.expm1(misfit)
    del misfit
    reach_px = 0.25 * blur_scale * float(focus.max() - focus.min())
    nearest_px = 0.5 * blur_scale * (sharpest - focus[:, None, None]).abs().amin(0)
    never_sharp = nearest_px > 2
    if stack.axis == "order":  # is told in frames
        hypotheses, sharpest = (
            interpolated(one, focus, stack.focus_coordinates) for one in (hypotheses, sharpest)
        )
    return _evidence(stack, hypotheses, doubt, sharpest, reach_px, _NEIGHBOUR_LEAK, never_sharp)


def ordered_focus(frame_count: int, step_growth: float) -> Tensor:
    """Where frames are focused of which only the order is known, (N,) from 0 to 1.

    Their steps, measured by the blur that they make, are equal, or grow along the sweep by the
    same factor each: a lens that is turned evenly, or set to round distances, comes near to that.

    Args:
        frame_count: N.
        step_growth: logarithm of the last step over the first.
    """
    steps = torch.linspace(0, step_growth, frame_count - 1, dtype=torch.float64).exp()
    ends = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
    return ends / ends[-1]


def interpolated(values: Tensor, points: Tensor, targets: Tensor) -> Tensor:
    """Of values, any shape, what a piecewise linear map makes that takes points to targets, (N,).

    Both ascend; values outside of the points get the target of the nearest.
    """
    right = torch.searchsorted(points, values.contiguous()).clamp(1, len(points) - 1)
    share = (values - points[right - 1]) / (points[right] - points[right - 1])
    return torch.lerp(targets[right - 1], targets[right], share.clamp(0, 1))


def sweep_sharpness(stack: FocalStack) -> Evidence:
    """Evidence from sharpness alone, for a stack whose blur is not known and cannot be found.

    The sharpness of a frame is the local energy of its Laplacian; a hypothesis between two
    frames takes their interpolation. A flat wall is equally sharp in all frames, up to noise,
    and its posterior stays flat.

    Returns:
        Evidence on the axis of the stack.
    """
    focus, member = stack.focus_coordinates.unique(return_inverse=True)
    frame_energy = _sharpness(_srgb_luma(stack.images))
    # Of frames with equal focus, as rounded EXIF distances make them, the sharper one speaks.
    energy = torch.stack([frame_energy[member == k].amax(0) for k in range(len(focus))])
    steps = 4 if len(focus) <= 24 else 2
    position = torch.linspace(0, len(focus) - 1, steps * (len(focus) - 1) + 1).to(energy)
    left = position.long().clamp_max(len(focus) - 2)
    share = position - left
    hypotheses = torch.lerp(focus[left], focus[left + 1], share)
    noise = noise_std(stack.images) ** 2
    doubt_of_frame = 1 - (energy + noise) / (energy.amax(0) + noise)
    doubt = torch.lerp(doubt_of_frame[left], doubt_of_frame[left + 1], share[:, None, None])
    with torch.no_grad():
        sharpest = refine_minimum(box_mean(doubt, _SHARPEST_AGGREGATION_PX), hypotheses)
    never_sharp = torch.zeros_like(sharpest, dtype=torch.bool)
    # How far blur reaches is unknown here; defocus rarely exceeds a fortieth of the image.
    reach_px = max(stack.size) / 40
    return _evidence(stack, hypotheses, doubt, sharpest, reach_px, _HALO_LEAK, never_sharp)


def plane_misfit(
    stack: FocalStack,
    focus: Tensor,
    hypotheses: Tensor,
    blur_scale: float,
    psf: PSF,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Squared misfit of the frames to a plane at each hypothesis, in noise variances.

    Args:
        stack: the frames.
        focus: (N,) on the axis of `hypotheses`.
        hypotheses: (K,).
        blur_scale: blur diameter [px] per unit of the axis.
        psf: the shape of the blur.
        progress: called with the planes done and in all, over all tiles.

    Returns:
        (K, H, W), summed over the frames, mean over pixels not taken.
    """
    luma = _luma(stack.images)
    radii_px = blur_radius_px(hypotheses[:, None], focus, blur_scale).abs()  # (K, N)
    # A blur that reaches further than this is flat over a tile: its exact border does not matter.
    reach_px = math.ceil(min(float(radii_px.max()) * psf.support, 48))
    spans = [_spans(side, _TILE_PX) for side in stack.size]
    total = len(hypotheses) * len(spans[0]) * len(spans[1])
    steps = count(1)

    def step() -> None:
        if progress is not None:
            progress(next(steps), total)

    misfit = luma.linear.new_empty((len(hypotheses), *stack.size))
    for top, bottom in spans[0]:
        for left, right in spans[1]:
            # The tile and a margin of blur around it, as far as the image goes.
            y, x = max(top - reach_px, 0), max(left - reach_px, 0)
            part = luma.cropped(slice(y, bottom + reach_px), slice(x, right + reach_px))
            window = (slice(top - y, bottom - y), slice(left - x, right - x))
            for k, plane in enumerate(_tile_misfit(part, radii_px, reach_px, psf)):
                misfit[k, top:bottom, left:right] = plane[window]
                step()
    return misfit


def _tile_misfit(
    luma: _Luma,
    radii_px: Tensor,
    reach_px: float,
    psf: PSF,
) -> Iterator[Tensor]:
    """Yield the (H, W) misfit of each plane of (K, N) radii."""
    grid = MirrorGrid((luma.linear.shape[-2], luma.linear.shape[-1]), reach_px)
    spectrum = grid.spectrum(luma.linear)  # (N, P, Q/2+1)
    height, width = grid.grid_size
    options: Any = {"dtype": luma.linear.dtype, "device": luma.linear.device}
    vertical = torch.fft.fftfreq(height, **options)[:, None]
    frequency_squared = vertical**2 + torch.fft.rfftfreq(width, **options) ** 2
    prior = _PRIOR_STRENGTH * (1 + frequency_squared / _PRIOR_KNEE**2)
    weight = luma.trusted / luma.noise_std
    for radii in radii_px:
        transfer = grid.transfer(psf, radii)  # (N, P, Q/2+1)
        sharp = (transfer * spectrum).sum(0) / ((transfer**2).sum(0) + prior)
        residual = grid.image(spectrum - transfer * sharp) * weight
        yield (residual**2).sum(0)


def _evidence(
    stack: FocalStack,
    hypotheses: Tensor,
    doubt: Tensor,
    sharpest: Tensor,
    reach_px: float,
    leak: float,
    never_sharp: Tensor,
) -> Evidence:
    """Evidence from the doubt (K, H, W) in [0, 1] against each hypothesis."""
    all_in_focus = blend_sharpest(stack, sharpest)
    own_texture = own_texture_share(all_in_focus, reach_px, leak, noise_std(stack.images))
    posterior = torch.softmax(doubt * (-POSTERIOR_STRENGTH * own_texture), dim=0)
    return Evidence(stack.axis, hypotheses, posterior, all_in_focus, sharpest, never_sharp)


def own_texture_share(
    all_in_focus: Tensor, reach_px: float, leak: float, noise_std_srgb: float
) -> Tensor:
    """How far what a pixel shows is its own texture, in [0, 1]: the right to speak about depth.

    Beside a silhouette the foreground's blur covers the background, and the frames are explained
    well by the foreground's depth. So a gradient counts against noise, and against the strongest
    gradient within reach of the blur: t / (t + (1.5 noise)² + (leak · max |∇|)²), where t is what
    |∇|² exceeds noise by.

    Args:
        all_in_focus: (3, H, W) linear RGB.
        reach_px: how far blur carries.
        leak: weight of the strongest gradient within reach.
        noise_std_srgb: see `noise_std`.

    Returns:
        (H, W).
    """
    smooth = box_mean(_srgb_luma(all_in_focus[None]), 1)
    padded = functional.pad(smooth[None], (1, 1, 1, 1), mode="replicate")[0, 0]
    gradient_x = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2
    gradient_y = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
    squared = gradient_x**2 + gradient_y**2
    reach = min(max(round(reach_px), 3), 32, min(squared.shape) // 2 - 1)
    strongest = squared[None, None]
    for window in ((2 * reach + 1, 1), (1, 2 * reach + 1)):
        padding = (window[0] // 2, window[1] // 2)
        strongest = functional.max_pool2d(strongest, window, stride=1, padding=padding)
    noise = noise_std_srgb**2
    # Noise alone gives a squared gradient of about a tenth of its variance, and hardly ever half
    # of it: that much is no texture.
    texture = (squared - 0.5 * noise).clamp_min(0)
    return texture / (texture + _TEXTURE_TO_NOISE**2 * noise + leak**2 * strongest[0, 0])


def frame_weights(coordinate: Tensor, focus: Tensor) -> Tensor:
    """Weight of each frame at pixels whose sharpest coordinate is known, (N, ...), summing to 1.

    Between two focus settings the weights fall as the cubes of linear interpolation's: all of a
    frame at its own focus, half of each half-way. Frames of equal focus, which rounded EXIF
    distances make, share.
    """
    ordered, member = focus.unique(return_inverse=True)
    inside = coordinate.contiguous().clamp(float(ordered[0]), float(ordered[-1]))
    right = torch.searchsorted(ordered, inside).clamp(1, len(ordered) - 1)
    share = (inside - ordered[right - 1]) / (ordered[right] - ordered[right - 1])
    near, far = (1 - share) ** 3, share**3
    weights = coordinate.new_zeros((len(ordered), *coordinate.shape))
    weights.scatter_(0, (right - 1)[None], (near / (near + far))[None])
    weights.scatter_(0, right[None], (far / (near + far))[None])
    sharing = member.bincount().to(weights)[member]
    return weights[member] / sharing.reshape(-1, *[1] * coordinate.ndim)


def blend_sharpest(stack: FocalStack, sharpest: Tensor) -> Tensor:
    """All-in-focus image (3, H, W) at working resolution, linear, from the frames in focus."""
    weights = frame_weights(sharpest, stack.focus_coordinates)
    return torch.einsum("nhw,nchw->chw", weights, stack.images)


def refine_minimum(cost: Tensor, hypotheses: Tensor) -> Tensor:
    """Where a cost (K, H, W) is lowest over the hypotheses (K,), to sub-step precision, (H, W).

    A parabola through the minimum and its neighbours, in steps of the index; at either end the
    minimum itself.
    """
    count = len(hypotheses)
    index = cost.argmin(0)
    if count < 3:
        return hypotheses[index]
    middle = index.clamp(1, count - 2)
    before, here, after = (cost.gather(0, (middle + step)[None])[0] for step in (-1, 0, 1))
    offset = 0.5 * (before - after) / (before - 2 * here + after).clamp_min(1e-9)
    offset = torch.where(index == middle, offset.clamp(-0.5, 0.5), (index - middle).to(cost))
    neighbour = (middle + offset.sign().long()).clamp(0, count - 1)
    return torch.lerp(hypotheses[middle], hypotheses[neighbour], offset.abs())


def noise_std(images: Tensor) -> float:
    """Standard deviation of the noise in a stack's sRGB luma, at least that of an 8-bit file.

    Immerkær, Fast Noise Variance Estimation (1996): the median absolute response to a mask that
    no linear ramp excites. Of all frames the smallest, because sharp texture adds to it.

    Args:
        images: (N, 3, H, W) linear RGB.
    """
    mask = images.new_tensor([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 6
    response = functional.conv2d(_srgb_luma(images)[:, None], mask[None, None])
    measured = response.detach().abs().flatten(1).median(dim=1).values.min() / 0.6745
    return max(float(measured), _MIN_NOISE_STD)


def _luma(images: Tensor) -> _Luma:
    weights = images.new_tensor(LUMA_WEIGHTS)
    encoded = _srgb_luma(images.detach())
    # Noise is even in sRGB; the encoding's slope carries it to linear light (IEC 61966-2-1).
    slope = (2.4 / 1.055 * ((encoded + 0.055) / 1.055) ** 1.4).clamp_min(1 / 12.92)
    # A clipped highlight is darker than its light, and no blur of it predicts the frames.
    trusted = (images.detach().amax(1) < 0.98).to(images)
    return _Luma(
        torch.einsum("c,nchw->nhw", weights, images), noise_std(images.detach()) * slope, trusted
    )


def _srgb_luma(images: Tensor) -> Tensor:
    """(N, H, W) luma of the sRGB encoding of linear (N, 3, H, W)."""
    weights = images.new_tensor(LUMA_WEIGHTS)
    # One by one: the encoding takes several copies of what it is given.
    encoded = (linear_to_srgb(image.clamp(0, 1)) for image in images)
    return torch.stack([torch.einsum("c,chw->hw", weights, image) for image in encoded])


def _sharpness(luma: Tensor) -> Tensor:
    """(N, H, W) local energy of the Laplacian, summed over two scales."""
    laplacian = luma.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None] / 4
    energy = torch.zeros_like(luma)
    for scale in (1, 2):
        smooth = box_mean(luma, scale - 1) if scale > 1 else luma
        padded = functional.pad(smooth[:, None], (1, 1, 1, 1), mode="replicate")
        response = functional.conv2d(padded, laplacian)[:, 0]
        energy = energy + box_mean(response**2, 2 * scale)
    return energy


def _position_hypotheses(focus: Tensor, blur_scale: float) -> Tensor:
    """Stage positions to try: the focused range, at least two for a frame."""
    first, last = float(focus.min()), float(focus.max())
    span_px = (last - first) * blur_scale
    count = max(math.ceil(span_px / _step_px(span_px)), min(2 * len(focus), 96)) + 1
    return torch.linspace(first, last, count).to(focus)


def _step_px(span_px: float) -> float:
    """Between hypotheses in the focused range: 0.25 to 1 px of blur diameter, or an eightieth."""
    return max(min(max(span_px / 40, 0.25), 1.0), span_px / 80)


def box_mean(planes: Tensor, half_width: int) -> Tensor:
    """Mean over a square window of 2 h + 1 pixels, of (..., H, W); borders replicate."""
    if half_width == 0:
        return planes
    flat = planes.reshape(-1, *planes.shape[-2:])
    side = 2 * half_width + 1
    if planes.device.type == "cpu" and not planes.requires_grad:
        # Running sums: ten times faster than pooling, which adds up every window anew.
        means = torch.empty_like(flat)
        for plane, mean in zip(flat.numpy(), means.numpy(), strict=True):
            cv2.blur(plane, (side, side), dst=mean, borderType=cv2.BORDER_REPLICATE)
        return means.reshape(planes.shape)
    padded = functional.pad(flat[None], (half_width,) * 4, mode="replicate")
    return functional.avg_pool2d(padded, side, stride=1).reshape(planes.shape)


def _spans(length: int, tile: int) -> list[tuple[int, int]]:
    """Even [start, stop) spans that cover a length, none longer than a tile."""
    count = math.ceil(length / tile)
    edges = [round(length * index / count) for index in range(count + 1)]
    return list(pairwise(edges))
