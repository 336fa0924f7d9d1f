"""Variants of a protocol in which one thing goes wrong, by a known amount.

A curve varies one thing. Where a protocol simulates its frames, noise, PSF and the number of frames
change how they are photographed. Everything else changes the recorded frames or what is reported
about them, and applies to every stack. The truth never changes. Where frames move or their exposure
drifts, the middle frame of the sweep keeps its view, which is that of the truth.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from focaldiffusion.data.dataset import Dataset, StackSample
from focaldiffusion.evaluation.configured import AnyProtocol
from focaldiffusion.evaluation.prediction import near_to_far, reference_frame
from focaldiffusion.evaluation.protocol import Photography, Protocol, chosen_frames
from focaldiffusion.optics import inverse_m, linear_to_srgb, srgb_to_linear
from focaldiffusion.psf import PSF
from focaldiffusion.simulation.capture import Imperfections, compressed, moved
from focaldiffusion.stack import FocalStack


@dataclass(frozen=True)
class Curve:
    """One thing that goes wrong.

    Attributes:
        meaning: label of an axis of the values.
        values: amounts; words where they have no order.
        unchanged: the value of the unperturbed protocol; None where there is none, or where it
            differs from protocol to protocol.
        photograph: changes how a protocol photographs, if it does.
        change: changes a stack; returns None where it does not apply. Its generator starts from the
            same state at all values, so that a curve shows the value and not the draws.
    """

    meaning: str
    values: tuple[float | str, ...]
    unchanged: float | None = None
    photograph: Callable[[Photography, Any], Photography] | None = None
    change: Callable[[FocalStack, Any, torch.Generator], FocalStack | None] | None = None


@dataclass(frozen=True)
class Variant:
    """A point on a curve: the name of one of `CURVES`, and one of its values."""

    curve: str
    value: float | str

    @property
    def name(self) -> str:
        """Curve and value, such as focus_scale=1.05."""
        value = self.value if isinstance(self.value, str) else f"{self.value:g}"
        return f"{self.curve}={value}"

    def sample(self, protocol: AnyProtocol, dataset: Dataset, index: int) -> StackSample | None:
        """A sample of the protocol, made worse; its truth is unchanged.

        Args:
            protocol: the unperturbed protocol.
            dataset: the data set that `protocol.open` returned.
            index: of the sample.

        Returns:
            The sample, the same each time; None where the variant does not apply to it.

        Raises:
            InputError: same as `Protocol.sample`.
        """
        curve = CURVES[self.curve]
        if isinstance(protocol, Protocol) and protocol.photography and curve.photograph:
            photography = curve.photograph(protocol.photography, self.value)
            return replace(protocol, photography=photography).sample(dataset, index)
        if curve.change is None:
            return None
        sample = protocol.sample(dataset, index)
        seed = zlib.crc32(f"{self.curve} {dataset.name(index)}".encode())
        stack = curve.change(sample.stack, self.value, torch.Generator().manual_seed(seed))
        return None if stack is None else replace(sample, stack=stack)


def _focus_scaled(stack: FocalStack, factor: float, _: torch.Generator) -> FocalStack | None:
    if stack.focus_distances_m is None:
        return None
    return replace(stack, focus_distances_m=stack.focus_distances_m * factor)


def _focus_offset(
    stack: FocalStack, offset_dpt: float | Tensor, _: torch.Generator
) -> FocalStack | None:
    if stack.focus_distances_m is None:
        return None
    reported_dpt = inverse_m(stack.focus_distances_m) + offset_dpt
    # No lens reports a focus beyond infinity.
    return replace(stack, focus_distances_m=inverse_m(reported_dpt.clamp_min(0)))


def _focus_jittered(
    stack: FocalStack, spread_dpt: float, generator: torch.Generator
) -> FocalStack | None:
    drawn = 2 * torch.rand(len(stack), generator=generator, dtype=torch.float64) - 1
    return _focus_offset(stack, spread_dpt * drawn.to(stack.images.device), generator)


def _aperture_scaled(stack: FocalStack, factor: float, _: torch.Generator) -> FocalStack | None:
    if stack.camera is None or stack.camera.aperture_diameter_m is None:
        return None
    reported_m = stack.camera.aperture_diameter_m * factor
    return replace(stack, camera=replace(stack.camera, aperture_diameter_m=reported_m))


def _reordered(stack: FocalStack, how: str, generator: torch.Generator) -> FocalStack | None:
    if how == "shuffled":  # frames and distances alike
        return chosen_frames(stack, tuple(torch.randperm(len(stack), generator=generator).tolist()))
    if stack.focus_distances_m is None:
        return None
    order = near_to_far(stack)
    wrong = list(reversed(order))
    if how == "two_swapped":
        middle = len(order) // 2
        wrong = [*order[: middle - 1], order[middle], order[middle - 1], *order[middle + 1 :]]
    reported_m = stack.focus_distances_m.clone()
    reported_m[order] = stack.focus_distances_m[wrong]
    return replace(stack, focus_distances_m=reported_m)


def _frame_missing(stack: FocalStack, which: str, _: torch.Generator) -> FocalStack | None:
    order = near_to_far(stack)
    if len(order) < 3:
        return None
    lost = {"nearest": order[0], "middle": reference_frame(stack), "farthest": order[-1]}[which]
    return chosen_frames(stack, tuple(index for index in range(len(stack)) if index != lost))


def _frames_photographed(photography: Photography, count: int) -> Photography:
    """Evenly along the original sweep: its own number of frames gives its own planes."""
    planes = photography.planes
    if not isinstance(planes, tuple):
        return replace(photography, planes=replace(planes, count=count))
    focus_dpt = 1 / np.array(planes)
    place = np.linspace(0, len(planes) - 1, count)
    between = torch.from_numpy(np.interp(place, np.arange(len(planes)), focus_dpt))
    return replace(photography, planes=tuple(inverse_m(between).tolist()))


def _frames_left(stack: FocalStack, count: int, _: torch.Generator) -> FocalStack | None:
    if count > len(stack):
        return None
    order = near_to_far(stack)
    kept = {order[round(place)] for place in np.linspace(0, len(order) - 1, count)}
    return chosen_frames(stack, tuple(sorted(kept)))


def _noisy(stack: FocalStack, std_lsb: float, generator: torch.Generator) -> FocalStack:
    encoded = linear_to_srgb(stack.images)
    noise = torch.randn(encoded.shape, generator=generator).to(encoded)
    return _recorded(stack, srgb_to_linear((encoded + noise * (std_lsb / 255)).clamp(0, 1)))


def _compressed(stack: FocalStack, quality: int, _: torch.Generator) -> FocalStack:
    return _recorded(stack, srgb_to_linear(compressed(linear_to_srgb(stack.images), quality)))


def _exposure_drifted(stack: FocalStack, drift: float, _: torch.Generator) -> FocalStack:
    gains = 1 + drift * _along_sweep(stack)
    return _recorded(stack, stack.images * gains[:, None, None, None].to(stack.images))


def _magnified(stack: FocalStack, growth: float, _: torch.Generator) -> FocalStack:
    return _moved(stack, Imperfections(magnifications=1 + growth * _along_sweep(stack)))


def _shifted(stack: FocalStack, distance_px: float, generator: torch.Generator) -> FocalStack:
    angle = 2 * torch.pi * torch.rand(len(stack), generator=generator, dtype=torch.float64)
    shifts_px = distance_px * torch.stack([angle.cos(), angle.sin()], dim=1)
    shifts_px[reference_frame(stack)] = 0
    return _moved(stack, Imperfections(shifts_px=shifts_px))


def _moved(stack: FocalStack, motion: Imperfections) -> FocalStack:
    height, width = stack.size
    centre = stack.camera.principal_point_px if stack.camera is not None else None
    images = moved(stack.images, centre or (width / 2, height / 2), motion)
    return _recorded(stack, images)


def _recorded(stack: FocalStack, images: Tensor) -> FocalStack:
    """The stack with other images, clipped to what a file can hold."""
    return replace(stack, images=images.clamp(0, 1).to(stack.images), frames=None)


def _along_sweep(stack: FocalStack) -> Tensor:
    """(N,) place of each frame in a sweep of length 1 with even steps; the middle frame is at 0."""
    along = torch.empty(len(stack), dtype=torch.float64)
    along[near_to_far(stack)] = torch.linspace(0, 1, len(stack), dtype=torch.float64)
    return along - along[reference_frame(stack)]


CURVES: dict[str, Curve] = {
    "focus_scale": Curve(
        "reported focus distance / true one",
        (0.9, 0.95, 0.98, 1.02, 1.05, 1.1),
        unchanged=1.0,
        change=_focus_scaled,
    ),
    "focus_offset_dpt": Curve(
        "reported focus - true one [dpt], the same for all frames",
        (-0.05, 0.05),
        unchanged=0.0,
        change=_focus_offset,
    ),
    "focus_jitter_dpt": Curve(
        "reported focus - true one [dpt], up to ± this, drawn for each frame",
        (0.025, 0.05, 0.1),
        unchanged=0.0,
        change=_focus_jittered,
    ),
    "aperture_scale": Curve(
        "reported aperture diameter / true one",
        (0.9, 1.1),
        unchanged=1.0,
        change=_aperture_scaled,
    ),
    "order": Curve(
        "frames shuffled with their distances; distances of the middle two swapped; all reversed",
        ("shuffled", "two_swapped", "reversed"),
        change=_reordered,
    ),
    "missing_frame": Curve(
        "the frame that is left out", ("nearest", "middle", "farthest"), change=_frame_missing
    ),
    "frames": Curve(
        "number of frames, evenly over the sweep",
        tuple(range(2, 11)),
        photograph=_frames_photographed,
        change=_frames_left,
    ),
    "noise_lsb": Curve(
        "standard deviation of the noise in sRGB [1/255]; added to frames that are not simulated",
        (0, 1, 2, 4, 8),
        photograph=lambda photography, std_lsb: replace(photography, noise_std_lsb=std_lsb),
        change=_noisy,
    ),
    "jpeg_quality": Curve("JPEG quality", (60, 75, 85, 95), change=_compressed),
    "exposure_drift": Curve(
        "light of the farthest frame / nearest - 1, about the middle one",
        (0.02, 0.05, 0.1, 0.2),
        unchanged=0.0,
        change=_exposure_drifted,
    ),
    "magnification": Curve(
        "scale of the farthest frame - nearest, about the middle one",
        (0.001, 0.0025, 0.005, 0.01, 0.02),
        unchanged=0.0,
        change=_magnified,
    ),
    "shift_px": Curve(
        "every frame but the middle one displaced this far in a direction of its own [px]",
        (0.25, 0.5, 1, 2, 5, 10),
        unchanged=0.0,
        change=_shifted,
    ),
    "psf_exponent": Curve(
        "exponent of the lens blur, 2 a Gaussian; a disc is assumed",
        (2, 4, 8, 16),
        photograph=lambda photography, exponent: replace(
            photography, psf=PSF("power_exponential", exponent)
        ),
    ),
}
"""Curves by name."""

VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for name, curve in CURVES.items()
    for variant in (Variant(name, value) for value in curve.values)
}
"""Variants by name."""

SUITES: dict[str, tuple[str, ...]] = {
    "none": (),
    "quick": (
        "focus_scale=0.95",
        "focus_scale=1.05",
        "focus_jitter_dpt=0.05",
        "aperture_scale=1.1",
        "missing_frame=middle",
        "noise_lsb=4",
        "jpeg_quality=75",
        "shift_px=1",
    ),
    "full": tuple(VARIANTS),
}
"""Names of the variants in each suite."""
