"""The estimate of a working stack: evidence, a surface through it, and how far to trust it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from focaldiffusion import __version__
from focaldiffusion.evidence import Evidence
from focaldiffusion.optics import far_bound_dpt
from focaldiffusion.psf import PSF
from focaldiffusion.solve.calibrate import BlurScale, find_blur_scale
from focaldiffusion.solve.complete import Completion, complete
from focaldiffusion.solve.consistency import confidence, rerender_residual
from focaldiffusion.solve.sweep import box_mean, noise_std, sweep, sweep_sharpness
from focaldiffusion.stack import FocalStack

Stage = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Makes the context of a named stage, which yields the function to be called with the units of
work done and in all."""


_GRADES = {
    "inverse_depth_dpt": "focus distances only",
    "position_m": "stage positions",
    "order": "order only",
}

_SUPPORT_PX = 4  # half window over which the posterior's say on a surface counts
_SMALLEST_POSTERIOR = 1e-6  # differences below say nothing


@contextmanager
def silent(name: str) -> Iterator[Callable[[int, int], None]]:
    """The stage of work that nobody times or watches."""
    yield lambda done, total: None


@dataclass(frozen=True, eq=False)
class Generation:
    """What a model adds to an estimate.

    Attributes:
        model: its name.
        provenance: how to repeat it: weights, seed, steps, ...; JSON-serialisable.
        image: (3, H, W) linear RGB in [0, 1]; None where it was not asked for.
        spread: (H, W) standard deviation over an ensemble, in units of the depth code, which
            ranges over 2; None for a single member.
    """

    model: str
    provenance: dict[str, Any]
    image: Tensor | None = None
    spread: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Estimate:
    """What is known of a stack at working resolution: by physics alone, or by a model as well.

    Attributes:
        evidence: of the plane sweep, or of sharpness where the lens is unknown.
        coordinate: (H, W) the surface, in the unit of the evidence's axis.
        agreement: (H, W) in [0, 1], how far the completion's directions agree.
        confidence: (H, W) in [0, 1], of the surface.
        grade: what was known of the camera, in words.
        found_scale: the blur scale that was searched for, None where it was known.
        blur_scale: blur diameter [px] per unit of the axis, of frames of which only the order is
            known over the whole sweep; None where only sharpness counts.
        psf: shape of the lens blur.
        residual_rms: of the re-rendered stack, sRGB; None where there is no lens or metric depth.
        beyond_dpt: inverse depth below which a depth cannot be told from infinity.
        generation: what a model added; None for the physical estimate.
    """

    evidence: Evidence
    coordinate: Tensor
    agreement: Tensor
    confidence: Tensor
    grade: str
    found_scale: BlurScale | None
    blur_scale: float | None
    psf: PSF
    residual_rms: float | None
    beyond_dpt: float
    generation: Generation | None = None

    def mapped(
        self, plane: Callable[[Tensor], Tensor], light: Callable[[Tensor], Tensor] | None = None
    ) -> Estimate:
        """The estimate with each of its maps (..., H, W) changed alike: mirrored, cropped, moved.

        Args:
            plane: of every map.
            light: of the image of the evidence; None for `plane`.
        """
        evidence = self.evidence
        return replace(
            self,
            evidence=replace(
                evidence,
                posterior=plane(evidence.posterior),
                all_in_focus=(light or plane)(evidence.all_in_focus),
                sharpest=plane(evidence.sharpest),
                never_sharp=plane(evidence.never_sharp),
            ),
            coordinate=plane(self.coordinate),
            agreement=plane(self.agreement),
            confidence=plane(self.confidence),
        )

    def to(self, device: torch.device | str) -> Estimate:
        """The estimate on a device."""
        moved = self.mapped(lambda plane: plane.to(device))
        hypotheses = self.evidence.hypotheses.to(device)
        return replace(moved, evidence=replace(moved.evidence, hypotheses=hypotheses))


Refine = Callable[[FocalStack, Estimate, Stage], Estimate]
"""A model's part: another surface, and how far to trust it, for that of the physical estimate."""


def estimate_depth(stack: FocalStack, psf: PSF, stage: Stage = silent) -> Estimate:
    """The physical estimate: evidence, completed surface and confidence of a working stack.

    Args:
        stack: at working resolution; needs no native frames.
        psf: shape of the lens blur.
        stage: times the work and shows its progress.
    """
    with torch.inference_mode():
        scale, grade, found = known_blur_scale(stack), "calibrated", None
        if scale is None:
            with stage("calibrating") as count:
                found = find_blur_scale(stack, psf, progress=count)
            scale = found.value if found.is_clear else None
            grade = _GRADES[stack.axis] + ("" if scale is not None else ", depth from sharpness")
        with stage("sweeping") as count:
            if scale is None:
                evidence = sweep_sharpness(stack)
            else:
                growth = 0.0 if found is None else found.step_growth
                evidence = sweep(stack, scale, psf, step_growth=growth, progress=count)
        with stage("completing") as count:
            falls_with_distance = stack.axis == "inverse_depth_dpt"
            background = float(stack.focus_coordinates.min()) if falls_with_distance else None
            completion = complete(evidence, background=background, progress=count)
        with stage("checking"):
            trust, residual_rms = _checked(stack, evidence, completion, scale, psf)
        return Estimate(
            evidence=evidence,
            coordinate=completion.coordinate,
            agreement=completion.agreement,
            confidence=trust,
            grade=grade,
            found_scale=found,
            blur_scale=scale,
            psf=psf,
            residual_rms=residual_rms,
            # An eighth of a pixel of blur, or a kilometre where blur says nothing.
            beyond_dpt=1e-3 if scale is None else far_bound_dpt(scale, tolerance_px=0.125),
        )


def resurface(stack: FocalStack, estimate: Estimate, coordinate: Tensor, stage: Stage) -> Estimate:
    """The estimate with another surface (H, W), and how far to trust that one.

    Its confidence is that of the physical surface by the same rules, re-rendering included, times
    min(1, p / p₀), averaged around: the posterior at the other surface over that at the one it
    replaces. Where the evidence is flat, another surface is as good; where it speaks, a surface
    that it contradicts loses its confidence. None gains by the ratio.
    """
    completion = Completion(coordinate, estimate.agreement)
    with stage("checking again"), torch.inference_mode():
        trust, residual_rms = _checked(
            stack, estimate.evidence, completion, estimate.blur_scale, estimate.psf
        )
        now, before = (
            estimate.evidence.posterior_at(surface) + _SMALLEST_POSTERIOR
            for surface in (coordinate, estimate.coordinate)
        )
        trust = trust * box_mean((now / before).clamp_max(1), _SUPPORT_PX)
    return replace(estimate, coordinate=coordinate, confidence=trust, residual_rms=residual_rms)


def _checked(
    stack: FocalStack,
    evidence: Evidence,
    completion: Completion,
    blur_scale: float | None,
    psf: PSF,
) -> tuple[Tensor, float | None]:
    """Confidence in a surface (H, W), and the RMS of re-rendering it where that says something."""
    if blur_scale is None or stack.axis != "inverse_depth_dpt":
        return confidence(evidence, completion, None), None
    residual = rerender_residual(stack, evidence, completion.coordinate, blur_scale, psf)
    return confidence(evidence, completion, residual), float(residual.square().mean().sqrt())


def describe(stack: FocalStack, estimate: Estimate) -> dict[str, Any]:
    """The part of a provenance that a working stack and its estimate tell."""
    camera, generation = stack.camera, estimate.generation
    return {
        "focaldiffusion": __version__,
        "model": "physics" if generation is None else generation.model,
        "generation": None if generation is None else generation.provenance,
        "grade": estimate.grade,
        "camera_at_working_size": None if camera is None else asdict(camera),
        "blur_scale_found": None if estimate.found_scale is None else asdict(estimate.found_scale),
        "working_size": list(stack.size),
        "hypotheses": estimate.evidence.hypotheses.tolist(),
        "noise_std_srgb": noise_std(stack.images),
        "rerender_residual_rms_srgb": estimate.residual_rms,
        "mean_confidence": float(estimate.confidence.mean()),
        "never_sharp_share": float(estimate.evidence.never_sharp.float().mean()),
    }


def known_blur_scale(stack: FocalStack) -> float | None:
    """Blur scale [px m] of a stack whose lens and focus distances are known; else None."""
    if stack.camera is None or stack.axis != "inverse_depth_dpt":
        return None
    return stack.camera.blur_scale_px_m
