"""Stages 4 to 10 of a reconstruction: from a working stack to its depth and all-in-focus image.

`reconstruction.py` has stages 1 to 3. N frames, K hypotheses, H W working size, H' W' native size.

 4. Calibrate. The blur diameter per unit of defocus, A F, follows from lens and focus distances and
    is checked against the frames; if unknown, it is the one with which a plane sweep explains the
    frames best.
    FocalStack (N, 3, H, W) -> Calibration
 5. Sweep. Each hypothesis blurs one sharp image into N frames; the misfit to the captured frames
    becomes a posterior. Without a blur scale, the sharpness of each frame gives the posterior.
    -> Evidence, posterior (K, H, W) and sharpest focus of each pixel (H, W)
 6. Complete. Evidence travels within surfaces, stops at image edges, and follows planes of the
    scene, until every pixel has a depth.
    -> Completion, surface (H, W) and agreement (H, W)
 7. Check. Confidence falls where evidence is thin or contradictory, and where blurring the image
    with the same lens does not reproduce the frames.
    -> Estimate, confidence (H, W)
 8. Model. A prior, and a learned model, replace the surface where physics is not trusted; stage 7
    checks the new surface too. Skipped without.
    -> Estimate
 9. Fuse. The native frames are blended in a Laplacian pyramid, weighted by depth and detail; only
    captured pixels are used.
    -> Fusion, image (H', W', 3) and source index (H', W')
10. Enlarge. Depth is enlarged to native size, following the edges of the fused image.
    -> Result, depth, its interval and confidence (H', W')
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from focaldiffusion import __version__
from focaldiffusion.align.alignment import Alignment
from focaldiffusion.enlarge import enlarged
from focaldiffusion.errors import InputError
from focaldiffusion.evidence import Evidence
from focaldiffusion.filters import box_mean
from focaldiffusion.fusion.fuse import Fusion, fill, frame_weights, fuse
from focaldiffusion.fusion.highlights import spare_highlights
from focaldiffusion.io.images import ImageMetadata
from focaldiffusion.io.levels import Levels
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import Camera
from focaldiffusion.prior import Prior, PriorSource
from focaldiffusion.progress import Stages, peak_memory_mib
from focaldiffusion.psf import PSF
from focaldiffusion.result import Plane, Result
from focaldiffusion.solve.calibrate import Calibration, calibrate
from focaldiffusion.solve.consistency import confidence, rerender_residual, reversal
from focaldiffusion.solve.doubts import doubting_direction, examined_calibration
from focaldiffusion.solve.join import Joined, join
from focaldiffusion.solve.outlines import completed
from focaldiffusion.solve.sharpness import sweep_sharpness
from focaldiffusion.solve.sweep import sweep
from focaldiffusion.solve.units import absurd_aperture
from focaldiffusion.stack import FocalStack

_SUPPORT_PX = 4  # half window over which the posterior at a surface is averaged
_SMALLEST_POSTERIOR = 1e-6  # smaller differences are meaningless


@dataclass(frozen=True, eq=False)
class Generation:
    """A model's contribution to an estimate.

    Attributes:
        model: name of the model.
        provenance: weights, seed, steps and everything else needed to repeat it; JSON-serialisable.
        image: (3, H, W) linear RGB in [0, 1]; None unless requested.
        spread: (H, W) standard deviation over an ensemble, in units of the surface code, whose
            range is 2; None for a single member.
    """

    model: str
    provenance: dict[str, Any]
    image: Tensor | None = None
    spread: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Estimate:
    """The surface of a stack at working size: from physics alone, or completed by a model.

    Attributes:
        evidence: evidence from the plane sweep, or from sharpness if the blur is unknown.
        coordinate: (H, W) surface, in the unit of the evidence's axis.
        agreement: (H, W) in [0, 1], agreement of the completion's directions.
        confidence: (H, W) in [0, 1], trust in the surface.
        calibration: knowledge of the lens.
        psf: shape of the lens blur.
        residual_rms: RMS residual of the re-rendered stack, sRGB; None without blur scale or metric
            depth.
        generation: a model's contribution; None for the physical estimate.
        joined: a prior's contribution; None without one.
        competing: (2, H, W) see `Completion`.
    """

    evidence: Evidence
    coordinate: Tensor
    agreement: Tensor
    confidence: Tensor
    calibration: Calibration
    psf: PSF
    residual_rms: float | None
    generation: Generation | None = None
    joined: Joined | None = None
    competing: Tensor | None = None

    def mapped(
        self, plane: Callable[[Tensor], Tensor], light: Callable[[Tensor], Tensor] | None = None
    ) -> Estimate:
        """The estimate with the same change to each of its maps (..., H, W), such as a crop.

        Args:
            plane: function applied to every map.
            light: function applied to the evidence's image; None for `plane`.
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
                wide=None if evidence.wide is None else plane(evidence.wide),
            ),
            coordinate=plane(self.coordinate),
            agreement=plane(self.agreement),
            confidence=plane(self.confidence),
            competing=None if self.competing is None else plane(self.competing),
        )

    def to(self, device: torch.device | str) -> Estimate:
        """The estimate on a device."""
        moved = self.mapped(lambda plane: plane.to(device))
        hypotheses = self.evidence.hypotheses.to(device)
        return replace(moved, evidence=replace(moved.evidence, hypotheses=hypotheses))


Refine = Callable[[FocalStack, Estimate, Stages], Estimate]
"""A model's step: replaces the surface and confidence of a physical estimate."""


def recover(
    stack: FocalStack,
    *,
    psf: PSF | None = None,
    find_blur: bool = False,
    check_lens: bool = True,
    prior: PriorSource | None = None,
    refine: Refine | None = None,
    fill_unsharp: bool = False,
    image_only: bool = False,
    physical: Estimate | None = None,
    stages: Stages | None = None,
    camera: Camera | None = None,
    lens: LensFacts | None = None,
    alignment: Alignment | None = None,
    levels: Levels | None = None,
    image_metadata: ImageMetadata | None = None,
    provenance: Mapping[str, Any] | None = None,
    findings: Sequence[str] = (),
    name: str = "stack",
) -> Result:
    """Recover the all-in-focus image and the depth of an aligned stack: stages 4 to 10.

    Args:
        stack: stack at working size, with its native frames, see `FocalStack.at_working_size`.
        psf: shape of the lens blur; None for a disc.
        find_blur, check_lens: see `calibrate`.
        prior: gives depth from elsewhere; None for none.
        refine: a model's step; None keeps the physical estimate.
        fill_unsharp: fill pixels that no frame shows sharp from the image that `refine` generates.
        image_only: leave out stages 6 to 8 and 10, which the image does not need.
        physical: result of stages 4 to 7 for this stack, if available.
        stages: times the stages and reports their progress.
        camera: optics at native size.
        lens: facts of the lens.
        alignment: alignment of the frames.
        levels: black and white of the frames' files; None for those of a full 8-bit range.
        image_metadata: ICC profile and EXIF of the reference frame.
        provenance, findings: those of stages 1 to 3, see `Result`.
        name: name of the stack.
    """
    psf, facts, stages = psf or PSF(), lens or LensFacts(), stages or Stages()
    checks = {"find_blur": find_blur, "check_lens": check_lens}
    found = None if image_only else physical or estimate_depth(stack, psf, stages, **checks)
    if found:
        calibration, evidence = found.calibration, found.evidence
    else:
        calibration, evidence = find_evidence(stack, psf, stages, **checks)
    if not (prior or refine):  # nothing needs the largest array any more
        evidence = evidence.without_posterior()
        found = found and replace(found, evidence=evidence)
    fusion = _fused(stack, calibration, evidence, stages)  # 9, which a prior looks at
    if found and prior:
        found = joined_with(stack, found, _asked(prior, found, fusion, stages), stages)
    if found and refine:
        found = refine(stack, found, stages)  # 8
    doubts = absurd_aperture(stack, calibration, facts)
    if found and (doubts or (alignment is not None and alignment.is_bracket)):
        found = replace(found, confidence=torch.zeros_like(found.confidence))
    findings = (*findings, *calibration.findings, *doubts)
    fusion = _filled(stack, found, fusion) if found and fill_unsharp else fusion
    with stages("enlarging"):  # 10
        maps = _enlarged(stack, found, fusion) if found else {}
    return Result(
        all_in_focus=fusion.all_in_focus,
        source_index=fusion.source_index,
        alpha=fusion.alpha,
        stack=stack,
        calibration=calibration,
        camera=camera,
        lens=facts,
        alignment=alignment,
        levels=levels or Levels(),
        image_metadata=image_metadata or ImageMetadata(),
        findings=findings,
        provenance=_provenance(stack, calibration, evidence, found, stages)
        | {**(provenance or {}), "findings": list(findings)},
        name=name,
        **maps,  # type: ignore[arg-type]
    )


def estimate_depth(
    stack: FocalStack,
    psf: PSF,
    stages: Stages | None = None,
    *,
    find_blur: bool = False,
    check_lens: bool = False,
) -> Estimate:
    """The physical estimate of a stack: stages 4 to 7.

    Args:
        stack: stack at working size.
        psf: shape of the lens blur.
        stages: times the stages and reports their progress.
        find_blur: see `calibrate`.
        check_lens: see `calibrate`.
    """
    return estimate_depths([stack], psf, stages, find_blur=find_blur, check_lens=check_lens)[0]


def estimate_depths(
    stacks: Sequence[FocalStack],
    psf: PSF,
    stages: Stages | None = None,
    *,
    find_blur: bool = False,
    check_lens: bool = False,
) -> list[Estimate]:
    """`estimate_depth` of several stacks of one size, which a GPU completes in step."""
    stages = stages or Stages()
    found = [
        find_evidence(stack, psf, stages, find_blur=find_blur, check_lens=check_lens)
        for stack in stacks
    ]
    stacks = [stack.without(one.left_out) for stack, (one, _) in zip(stacks, found, strict=True)]
    estimates = []
    with torch.inference_mode():
        with stages("completing") as meter:  # 6
            evidences, scales = [one for _, one in found], [one.blur_scale for one, _ in found]
            growths = [one.step_growth for one, _ in found]
            matched, completions = completed(stacks, evidences, scales, growths, psf, meter)
        with stages("checking"):  # 7
            for stack, (calibration, evidence), before, completion in zip(
                stacks, found, matched, completions, strict=True
            ):
                scale = calibration.blur_scale
                if check_lens and scale is not None and stack.axis == "inverse_depth_dpt":
                    # The matched surface knows nothing of near and far, unlike outlines.
                    ratio = reversal(stack, evidence, before.coordinate, scale, psf)
                    calibration = doubting_direction(calibration, ratio)
                surface, agreement = completion.coordinate, completion.agreement
                trust, rms = _checked(stack, evidence, surface, agreement, calibration, psf)
                one = Estimate(evidence, surface, agreement, trust, calibration, psf, rms)
                estimates.append(replace(one, competing=completion.competing))
    return estimates


def find_evidence(
    stack: FocalStack,
    psf: PSF,
    stages: Stages,
    *,
    find_blur: bool = False,
    check_lens: bool = False,
) -> tuple[Calibration, Evidence]:
    """Stages 4 and 5 of the physical estimate, see `estimate_depth`."""
    # Evidence is differentiable, but gradients are not needed here and would double the memory.
    with torch.inference_mode():
        with stages("calibrating") as meter:  # 4
            if check_lens:
                calibration = examined_calibration(stack, psf, find_blur=find_blur, meter=meter)
            else:
                calibration = calibrate(
                    stack, psf, find_blur=find_blur, check_lens=False, meter=meter
                )
        stack = stack.without(calibration.left_out)
        with stages("sweeping") as meter:  # 5
            scale, growth = calibration.blur_scale, calibration.step_growth
            if scale is None:
                return calibration, sweep_sharpness(stack)
            evidence = sweep(stack, scale, psf, step_growth=growth, meter=meter)
            return calibration, evidence


def with_surface(
    stack: FocalStack, physical: Estimate, coordinate: Tensor, stages: Stages
) -> Estimate:
    """The estimate with another surface (H, W), checked as in stage 7.

    Its confidence follows the rules of the physical surface, re-rendering included, times the local
    mean of min(1, p / p₀), where p and p₀ are the posteriors at the new and the old surface. Where
    the evidence is flat, another surface is as good; where it is not, a surface that contradicts it
    loses confidence. The ratio never raises confidence.
    """
    with stages("checking again"), torch.inference_mode():
        used, agreement = stack.without(physical.calibration.left_out), physical.agreement
        lens = physical.calibration, physical.psf
        trust, residual_rms = _checked(used, physical.evidence, coordinate, agreement, *lens)
        now, before = (
            physical.evidence.posterior_at(surface) + _SMALLEST_POSTERIOR
            for surface in (coordinate, physical.coordinate)
        )
        trust = trust * box_mean((now / before).clamp_max(1), _SUPPORT_PX)
    return replace(physical, coordinate=coordinate, confidence=trust, residual_rms=residual_rms)


def _asked(prior: PriorSource, found: Estimate, fusion: Fusion, stages: Stages) -> Prior:
    """The prior of the fused image."""
    with stages("asking the prior"):
        image = torch.from_numpy(fusion.all_in_focus).permute(2, 0, 1)
        return prior(image.to(found.coordinate.device)).checked()


def joined_with(stack: FocalStack, found: Estimate, given: Prior, stages: Stages) -> Estimate:
    """The estimate joined with a prior of the same view, checked as in stage 7."""
    with stages("joining the prior"), torch.inference_mode():
        used, scale = stack.without(found.calibration.left_out), found.calibration.blur_scale
        surface = found.evidence, found.coordinate, found.agreement, found.confidence
        joined = join(used, *surface, given, scale, found.psf)
    if joined.accepted:
        found = with_surface(stack, found, joined.coordinate, stages)
    return replace(found, joined=joined)


def _checked(
    stack: FocalStack,
    evidence: Evidence,
    coordinate: Tensor,
    agreement: Tensor,
    calibration: Calibration,
    psf: PSF,
) -> tuple[Tensor, float | None]:
    """Confidence (H, W) in a surface, and the RMS of re-rendering it, if possible."""
    scale, growth = calibration.blur_scale, calibration.step_growth
    residual = None
    if scale is not None:
        residual = rerender_residual(stack, evidence, coordinate, scale, psf, step_growth=growth)
    trust = calibration.trust * confidence(evidence, coordinate, agreement, residual)
    if stack.shown is not None:
        trust = trust * (stack.shown.sum(0) > 1)  # one frame shows no change of focus
    return trust, None if residual is None else float(residual.square().mean().sqrt())


def _fused(
    stack: FocalStack, calibration: Calibration, evidence: Evidence, stages: Stages
) -> Fusion:
    """The fused image, from captured pixels alone."""
    frames = stack.frames
    if frames is None:
        raise ValueError("fusion needs the native frames: FocalStack.frames is None")
    with stages("fusing") as meter, torch.inference_mode():
        sharpest, left_out = evidence.sharpest, calibration.left_out
        used = stack.without(left_out)
        weights = sharpest.new_zeros((len(stack), *sharpest.shape))
        weights[[index for index in range(len(stack)) if index not in left_out]] = spare_highlights(
            used, frame_weights(sharpest, used.focus_coordinates)
        )
        return fuse(frames, weights, numbers=stack.frame_numbers, step=stack.step, meter=meter)


def _filled(stack: FocalStack, found: Estimate, fusion: Fusion) -> Fusion:
    """The fused image with generated pixels where no frame is sharp."""
    if found.generation is None or found.generation.image is None:
        raise InputError(
            "fill_unsharp: needs a model to generate what no frame shows sharp. Choose a "
            "model, or leave it off."
        )
    image = found.generation.image
    assert stack.frames is not None
    if stack.frames.is_grey:
        image = image.mean(0, keepdim=True).expand(3, -1, -1)
    return fill(fusion, image, found.evidence.never_sharp)


def _enlarged(stack: FocalStack, found: Estimate, fusion: Fusion) -> dict[str, Plane]:
    shares = {"confidence": found.confidence}
    if found.joined is not None:
        shares["prior_share"] = found.joined.share
    scale = found.calibration.blur_scale
    return enlarged(stack, found.coordinate, shares, found.competing, scale, fusion)


def _provenance(
    stack: FocalStack,
    calibration: Calibration,
    evidence: Evidence,
    found: Estimate | None,
    stages: Stages,
) -> dict[str, Any]:
    """The provenance of stages 4 to 10; `found` is None if only the image is wanted."""
    camera, measured = stack.camera, calibration.measured
    generation = None if found is None else found.generation
    return {
        "focaldiffusion": __version__,
        "model": "physics" if generation is None else generation.model,
        "generation": None if generation is None else generation.provenance,
        "prior": None if found is None or found.joined is None else found.joined.summary(),
        "grade": str(calibration),
        "device": str(stack.images.device),
        "camera_at_working_size": None if camera is None else asdict(camera),
        "blur_scale": calibration.blur_scale,
        "blur_scale_measured": None if measured is None else asdict(measured),
        "frames_left_out_of_depth": list(calibration.left_out),
        "blur_contradiction": calibration.contradiction,
        "working_size": list(stack.size),
        "hypotheses": evidence.hypotheses.tolist(),
        "noise_std_srgb": stack.noise_std,
        "rerender_residual_rms_srgb": None if found is None else found.residual_rms,
        "mean_confidence": None if found is None else float(found.confidence.mean()),
        "never_sharp_share": float(evidence.never_sharp.float().mean()),
        "seconds": stages.seconds,
        "process_peak_memory_mib": peak_memory_mib(),
    }
