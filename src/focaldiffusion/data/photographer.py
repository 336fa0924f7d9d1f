"""The randomised photographer: focal stacks of a scene as different lenses would take them."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from focaldiffusion.config.data import SimulatorKwargs, Source
from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.draws import integer, log_uniform, uniform
from focaldiffusion.errors import InputError
from focaldiffusion.psf import PSF
from focaldiffusion.scene import Scene
from focaldiffusion.simulation.capture import Imperfections, capture

_FARTHEST = 10.0
"""Even steps in log s cannot reach infinity: jitter moves their far end this factor outwards."""
_EXPONENTS_PER_OCTAVE = 8
"""A new PSF exponent costs as much as a frame, so few are used, and their tables are cached."""


def photograph(scene: Scene, source: Source, generator: torch.Generator) -> StackSample:
    """Photograph a scene with a lens and a sweep drawn from the ranges of its source.

    No draw depends on the depth of the scene. It is focused at its own focus distances, else at
    those of the source, else over its own range, else over the `focal_range` of the source.

    Args:
        scene: to photograph, on the device of its tensors.
        source: `focal_range`, `focal_stack_size`, `options.focus_distances_m` and
            `options.simulator_kwargs`.
        generator: draws everything on the CPU. For a scene on another device it seeds a generator
            there, which draws the noise.

    Raises:
        InputError: no `focal_range`, or focus distances at which the lens cannot focus.
    """
    options = source.options.simulator_kwargs
    if options.ideal_share > 0 and uniform(0, 1, generator) < options.ideal_share:
        options = _ideal(options)
    _check_near_end(scene, source)
    focus_dpt = _focus_dpt(scene, source, generator)
    stops = uniform(-options.aperture_stops, options.aperture_stops, generator)
    aperture_m = scene.aperture_diameter_m * 2 ** (stops / 2)
    lens = replace(scene.camera, aperture_diameter_m=aperture_m)
    psf = PSF(options.psf, _exponent(options, generator))
    imperfections = _imperfections(focus_dpt, options, generator)
    noise_std_lsb = uniform(*options.noise_std_lsb_range, generator)
    quality = options.jpeg_quality_range
    try:
        stack = capture(
            replace(scene, camera=lens),
            1 / focus_dpt,
            psf=psf,
            imperfections=imperfections,
            noise_std_lsb=noise_std_lsb,
            bit_depth=options.bit_depth,
            jpeg_quality=None if quality is None else integer(*quality, generator),
            generator=_generator_at(scene.depth_m.device, generator),
        )
    except InputError as error:
        raise InputError(f"{scene.source}: {error}") from error
    truth = scene.depth_m, scene.valid, scene.all_in_focus
    return StackSample(stack, *truth, scene.source, prior=scene.prior)


def _ideal(options: SimulatorKwargs) -> SimulatorKwargs:
    """The same lenses, sweeps and files without faults."""
    kept = {"aperture_stops", "bit_depth", "jpeg_quality_range"}
    return SimulatorKwargs.model_validate(options.model_dump(include=kept))


def _focus_dpt(scene: Scene, source: Source, generator: torch.Generator) -> Tensor:
    """Reported focus of the frames, (N,) dioptres, float64."""
    given_m = scene.focus_distances_m or source.options.focus_distances_m
    if given_m is not None:
        return 1 / torch.tensor(given_m, dtype=torch.float64)
    focal_range_m = scene.focal_range_m or source.focal_range
    if focal_range_m is None:
        raise InputError(
            f"{source.name}: focal_range is missing, and {scene.source} does not say where to "
            "focus. Give the source focal_range: [near, far], in metres."
        )
    options = source.options.simulator_kwargs
    near, far = (1 / distance_m for distance_m in focal_range_m)
    reach = options.focus_range_jitter * (near - far)
    farthest = far / _FARTHEST
    near += uniform(-reach, reach, generator)
    far = max(0.0, far + uniform(-reach, reach, generator))  # 0 is infinity
    share = torch.linspace(0, 1, integer(*source.focal_stack_size, generator), dtype=torch.float64)
    logarithmic = 1.0 if options.focus_spacing == "log" else 0.0
    if options.focus_spacing == "random":
        share = share ** log_uniform(0.5, 2.0, generator)
        logarithmic = uniform(0, 1, generator)
    even = near + (far - near) * share
    even_in_log = near * (max(far, farthest) / near) ** share
    return (1 - logarithmic) * even + logarithmic * even_in_log


def _check_near_end(scene: Scene, source: Source) -> None:
    """Refuse to focus within the focal length, where a lens forms no image.

    If the focal length in metres is unknown, half the aperture is used: no lens is faster than
    f/0.5. The farthest that jitter may reach counts, so that the first sample fails, not a later
    one.
    """
    focal_range_m = scene.focal_range_m or source.focal_range
    given_m = scene.focus_distances_m or source.options.focus_distances_m
    if given_m is not None:
        nearest_m = min(given_m)
    elif focal_range_m is not None:
        near, far = (1 / distance_m for distance_m in focal_range_m)
        jitter = source.options.simulator_kwargs.focus_range_jitter
        nearest_m = 1 / (near + jitter * (near - far))
    else:
        return
    focal_length_m = source.options.camera_defaults.focal_length_m
    least_m = focal_length_m or scene.aperture_diameter_m / 2
    if nearest_m <= least_m:
        what = "the focal length" if focal_length_m else "the focal length of an f/0.5 lens"
        raise InputError(
            f"{scene.source}: the nearest focus, {nearest_m:.4g} m, lies within {what}, "
            f"{least_m:.4g} m, where no lens forms an image. Focus {source.name} farther away, "
            "or check its camera."
        )


def _exponent(options: SimulatorKwargs, generator: torch.Generator) -> float:
    low, high = options.psf_exponent_range
    octaves = math.log2(log_uniform(low, high, generator))
    drawn: float = 2 ** (round(octaves * _EXPONENTS_PER_OCTAVE) / _EXPONENTS_PER_OCTAVE)
    return min(max(drawn, low), high)


def _imperfections(
    focus_dpt: Tensor, options: SimulatorKwargs, generator: torch.Generator
) -> Imperfections:
    """Imperfections of the frames; none where the options are zero."""

    def each(spread: float, *more: int) -> Tensor | None:
        shape = (len(focus_dpt), *more)
        drawn = torch.rand(shape, generator=generator, dtype=torch.float64)
        return spread * (2 * drawn - 1) if spread > 0 else None

    gains = each(options.exposure_jitter)
    breathing = uniform(-options.breathing, options.breathing, generator)
    # About the middle of the sweep, so that image and depth are on the frames' average scale.
    magnifications = 1 + breathing * (focus_dpt - focus_dpt.mean())
    return Imperfections(
        focus_errors_dpt=each(options.focus_jitter_dpt),
        magnifications=magnifications if options.breathing > 0 else None,
        shifts_px=each(options.shift_px, 2),
        gains=None if gains is None else 1 + gains,
    )


def _generator_at(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """A generator on the device, which draws millions of numbers there instead of copying them."""
    seed = integer(0, 2**62, generator)
    return generator if device.type == "cpu" else torch.Generator(device).manual_seed(seed)
