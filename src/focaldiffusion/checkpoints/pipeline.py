"""FocalDiffusionPipeline: a diffusers pipeline in which a model completes the physical estimate.

Import this module only where needed, because diffusers takes seconds to import, but before loading
a model: diffusers looks up the classes of a model's parts among the imported modules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from os import PathLike
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor, nn

from focaldiffusion.checkpoints.parts import check_parts, without_prior
from focaldiffusion.errors import InputError
from focaldiffusion.models.codecs import LatentCodec, codec_of
from focaldiffusion.models.completer import (
    DEFAULT_STEPS,
    Completer,
    Generators,
    Sampling,
    median_and_spread,
)
from focaldiffusion.models.conditioning import Proposal, proposal_of
from focaldiffusion.models.convolutional import ConvolutionalDenoiser
from focaldiffusion.models.denoiser import build, realign_weights
from focaldiffusion.models.flow import Start
from focaldiffusion.models.presets import PRESETS
from focaldiffusion.models.prompt import EmptyPrompt
from focaldiffusion.models.surface_code import SurfaceCode
from focaldiffusion.optics import srgb_to_linear
from focaldiffusion.prior import PriorSource
from focaldiffusion.progress import Meter, Report, Stages
from focaldiffusion.psf import PSF
from focaldiffusion.recovery import Estimate, Generation, recover, with_surface
from focaldiffusion.result import Result
from focaldiffusion.stack import FocalStack
from focaldiffusion.threads import network_threads

_SHIFT = 3.0  # shift of the noise levels in Stable Diffusion 3.5
_SMALLEST_TILE_TOKENS = 4  # per side, so that the quarter shared with a neighbour is one token
_AT_THE_BOUND = 1 / 16  # code units: a surface this close to a bound counts as on it
_TOLERATED_SPREAD = 1 / 16  # code units: members that agree within half a bin of the conditioning


class FocalDiffusionPipeline(DiffusionPipeline):
    """Turns a focal stack into its all-in-focus image and depth.

    The physical estimate comes first. The network sees its image, its surface and the evidence
    around them, and completes the surface. The final image is still fused from captured pixels.
    """

    has_image_half: bool = True
    """Whether the image half was trained; without, there is nothing to fill pixels from."""

    origin: Callable[[], dict[str, Any]] | None = None
    """Describes the checkpoint of the weights, for a result's provenance."""

    model_cpu_offload_seq = "prompt->denoiser->vae"  # type: ignore[assignment]
    _optional_components = ["vae"]  # noqa: RUF012

    def __init__(
        self,
        denoiser: SD3Transformer2DModel | ConvolutionalDenoiser,
        prompt: EmptyPrompt,
        scheduler: FlowMatchEulerDiscreteScheduler,
        vae: AutoencoderKL | None = None,
        start: str = "estimate",
        depth_code: str = "log",
        patch_factor: int | None = None,
        timestep: float = 1000.0,
        with_prior: bool = False,
        with_wide: bool = False,
        depth_in_pixels: bool = False,
    ) -> None:
        """Assemble a model from its parts.

        Args:
            denoiser: a transformer, widened for state and conditioning, see `widen`; or a
                convolutional network with the same number of channels.
            prompt: the empty prompt.
            scheduler: scheduler of the flow.
            vae: the autoencoder; None for the patch codec.
            start: start of the flow: "estimate" or "noise".
            depth_code: kind of `SurfaceCode`: "log" or "inverse".
            patch_factor: side [px] of a latent cell of the patch codec; None with a vae.
            timestep: told to the network at noise level 1; "noise" needs the 1000 of its base.
            with_prior: whether the network sees a prior, which every stack then needs.
            with_wide: whether it sees the evidence of wide windows.
            depth_in_pixels: whether it predicts depth by its pixels, beside an autoencoder.

        Raises:
            InputError: the parts do not fit each other.
        """
        super().__init__()
        self.register_modules(denoiser=denoiser, prompt=prompt, scheduler=scheduler, vae=vae)
        self.register_to_config(
            start=start,
            depth_code=depth_code,
            patch_factor=patch_factor,
            timestep=timestep,
            with_prior=with_prior,
            with_wide=with_wide,
            depth_in_pixels=depth_in_pixels,
        )
        check_parts(self)

    @classmethod
    def from_preset(
        cls,
        name: str,
        start: Start = "estimate",
        seed: int = 0,
        depth_code: str = "log",
        timestep: float = 1000.0,
        with_prior: bool = False,
        with_wide: bool = False,
        depth_in_pixels: bool = False,
    ) -> FocalDiffusionPipeline:
        """A model with random weights; with `estimate` it returns the physical estimate.

        Args:
            name: a name in `PRESETS`.
            start: start of the flow.
            seed: seed of the weights; torch's global generator is left untouched.
            depth_code: kind of `SurfaceCode`.
            timestep: see the class, as for all that follows.

        Raises:
            InputError: the preset does not exist.
        """
        if name not in PRESETS:
            raise InputError(f"preset {name!r} is unknown; expected {', '.join(PRESETS)}.")
        preset = replace(PRESETS[name], depth_in_pixels=depth_in_pixels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            denoiser = build(preset, start, with_prior=with_prior, with_wide=with_wide).eval()
            vae = None if preset.autoencoder is None else AutoencoderKL(**preset.autoencoder).eval()
        prompt = EmptyPrompt(
            preset.prompt_tokens,
            preset.prompt_channels,
            preset.pooled_prompt_channels,
        )
        pipeline = cls(
            denoiser,
            prompt,
            FlowMatchEulerDiscreteScheduler(shift=_SHIFT),
            vae,
            start=start,
            depth_code=depth_code,
            patch_factor=preset.patch_factor,
            timestep=timestep,
            with_prior=with_prior,
            with_wide=with_wide,
            depth_in_pixels=depth_in_pixels,
        )
        pipeline.register_to_config(_name_or_path=f"{name}, random weights of seed {seed}")
        return pipeline

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | PathLike[str], **kwargs: Any
    ) -> FocalDiffusionPipeline:
        """Load a pipeline as diffusers does, but only from safetensors: nothing is unpickled."""
        pipeline = super().from_pretrained(
            pretrained_model_name_or_path, **{**kwargs, "use_safetensors": True}
        )
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                realign_weights(part)
        return pipeline

    @classmethod
    def download(cls, pretrained_model_name: str, **kwargs: Any) -> str:
        """Fetch a model from the hub. The inherited method refuses parts that diffusers lacks."""
        from huggingface_hub import snapshot_download

        names = ("cache_dir", "force_download", "local_files_only", "token", "revision")
        return snapshot_download(
            pretrained_model_name,
            allow_patterns=["*.json", "*.safetensors"],
            **{name: kwargs[name] for name in names if kwargs.get(name) is not None},
        )

    @property
    def codec(self) -> LatentCodec:
        """Converts images and depth codes to the latents of the flow, and back."""
        return codec_of(self.vae, self.config["patch_factor"], self.config["depth_in_pixels"])

    @property
    def completer(self) -> Completer:
        """The network with everything needed to run it."""
        return Completer(
            self.denoiser,
            self.prompt,
            self.scheduler,
            self.codec,
            self.config["start"],
            self.config["timestep"],
            self._execution_device,
        )

    def __call__(
        self,
        stack: FocalStack,
        *,
        psf: PSF | None = None,
        prior: PriorSource | None = None,
        sampling: Sampling | None = None,
        fill_unsharp: bool = False,
    ) -> Result:
        """Recover the all-in-focus image and the depth of an aligned stack.

        Args:
            stack: stack of any size; depth is solved at working size.
            psf: shape of the lens blur; None for a disc.
            prior: gives depth from elsewhere; None for none.
            sampling: how to run the model.
            fill_unsharp: fill pixels that no frame shows sharp from the generated image.

        Returns:
            The result at the size of the native frames.

        Raises:
            InputError: see `check_inputs`.
        """
        sampling = sampling or Sampling()
        self.check_inputs(sampling, with_image=fill_unsharp, has_prior=prior is not None)
        return recover(
            stack.at_working_size(),
            psf=psf,
            check_lens=False,
            prior=prior,
            refine=partial(self.refine, sampling=sampling, with_image=fill_unsharp),
            fill_unsharp=fill_unsharp,
            stages=Stages(self._bars()),
            camera=stack.camera and stack.camera.resized((stack.frames or stack).size),
        )

    def check_inputs(self, sampling: Sampling, *, with_image: bool, has_prior: bool) -> None:
        """Check the sampling options, before the long work.

        Raises:
            InputError: steps, ensemble or tiles that this model does not support; an image of a
                model that was trained for depth alone; no prior for one that sees it.
        """
        if self.config["with_prior"] and not has_prior:
            raise without_prior(str(self.name_or_path or "the model"))
        if with_image and not self.has_image_half:
            raise InputError(
                "fill_unsharp: this model was trained for depth alone (model.with_image false). "
                "Leave it out, or use a model with an image half."
            )
        steps, ensemble, tile_px = sampling.steps, sampling.ensemble, sampling.tile_px
        if self.config["start"] == "estimate" and steps not in (None, 1):
            raise InputError(
                f"steps: got {steps}, but this model goes from the physical estimate to the "
                "result in 1 step. Leave steps out."
            )
        if self.config["start"] == "estimate" and ensemble > 1:
            raise InputError(
                f"ensemble: got {ensemble}, but this model starts from the physical estimate, so "
                "its members would all be equal. Leave it out, or use a model that starts from "
                "noise."
            )
        for name, value in (("steps", steps), ("ensemble", ensemble)):
            if value is not None and value < 1:
                raise InputError(f"{name}: got {value}; expected at least 1.")
        completer = self.completer
        smallest_px = _SMALLEST_TILE_TOKENS * completer.multiple_px
        if tile_px is not None and not smallest_px <= tile_px <= completer.max_side_px:
            raise InputError(
                f"tile_px: got {tile_px}; expected {smallest_px} to {completer.max_side_px} for "
                "this model. Leave it out for the largest."
            )

    def propose(self, stack: FocalStack, estimate: Estimate) -> tuple[Proposal, SurfaceCode]:
        """The network's view of a physical estimate, B = 1, and the code for its surfaces."""
        evidence = estimate.evidence
        whole = SurfaceCode.from_stack(
            stack, evidence, estimate.calibration.blur_scale, self.config["depth_code"]
        )
        code = whole.around(estimate.coordinate, estimate.confidence)
        shown = estimate.coordinate, estimate.agreement, estimate.confidence
        prior, with_wide = self._prior_of(estimate), self.config["with_wide"]
        return proposal_of(evidence, *shown, code, prior, with_wide), code

    def _prior_of(self, estimate: Estimate) -> Tensor | None:
        """The maps of a prior for a network that sees it."""
        if not self.config["with_prior"]:
            return None
        assert estimate.joined is not None  # `check_inputs`
        return estimate.joined.maps()

    @torch.no_grad()
    def predict(
        self, proposal: Proposal, steps: int | None = None, generator: Generators = None
    ) -> tuple[Tensor, Tensor]:
        """Complete proposals, B of any size.

        Args:
            proposal: (B, ..., H, W).
            steps: steps along the flow; None for 1 from the estimate, 4 from noise.
            generator: generator of the noise, or a list with one per sample.

        Returns:
            The image (B, 3, H, W), sRGB, and the depth code (B, 1, H, W); may leave [-1, 1].
        """
        planes = self.completer.predict(proposal, self._steps(steps), generator, with_image=True)
        return planes[:, :3], planes[:, 3:]

    @torch.no_grad()
    def refine(
        self,
        stack: FocalStack,
        physical: Estimate,
        stages: Stages | None = None,
        *,
        sampling: Sampling | None = None,
        with_image: bool = False,
    ) -> Estimate:
        """Complete a physical estimate. With its options bound, this is a `Refine`.

        The surface blends the physical one with the median of the ensemble, weighted by confidence
        in physics: evidence wins over a guess. Confidence is that of `with_surface` times
        exp(-(spread / tolerated)² / 2): where the members differ, evidence and prior together leave
        the depth open.

        Args:
            stack: stack at working size.
            physical: physical estimate of the stack.
            stages: times the stages and reports their progress; None for diffusers' bars.
            sampling: how to run the model.
            with_image: generate the image too, which filling needs.

        Raises:
            InputError: see `check_inputs`; or the model returns NaN or infinity.
        """
        sampling = sampling or Sampling()
        has_prior = physical.joined is not None
        self.check_inputs(sampling, with_image=with_image, has_prior=has_prior)
        stages = stages or Stages(self._bars())
        proposal, code = self.propose(stack, physical)
        with stages("generating") as meter, network_threads():
            members = self._members(proposal, sampling, with_image, meter)
        self.maybe_free_model_hooks()
        planes, spreads = median_and_spread(members.to(physical.coordinate.device))
        if not planes.isfinite().all():
            raise InputError(
                f"the model gave NaN or infinity in {self.denoiser.dtype}. Use bfloat16 or "
                "float32; if it already uses one of them, its weights are damaged."
            )
        coordinate = _coordinate(planes[-1], code, physical)
        refined = with_surface(stack, physical, coordinate, stages)
        spread = spreads[-1] if sampling.ensemble > 1 else None
        if spread is not None:
            agreed = torch.exp(-((spread / _TOLERATED_SPREAD) ** 2) / 2)
            refined = replace(refined, confidence=refined.confidence * agreed)
        generation = Generation(
            model=str(self.name_or_path or type(self).__name__),
            provenance=self._provenance(sampling, spread),
            image=srgb_to_linear((planes[:3].clamp(-1, 1) + 1) / 2) if with_image else None,
            spread=spread,
        )
        return replace(refined, generation=generation)

    def _members(
        self, proposal: Proposal, sampling: Sampling, with_image: bool, meter: Meter
    ) -> Tensor:
        """The planes of an ensemble, (members, C, H, W)."""
        completer, steps = self.completer, self._steps(sampling.steps)
        passes = completer.passes(proposal, steps, sampling.tile_px)
        meter.expect(sampling.ensemble * passes)
        members = [
            completer.predict(
                proposal,
                steps,
                torch.Generator().manual_seed(sampling.seed + index),
                with_image=with_image,
                tile_px=sampling.tile_px,
                meter=meter,
            )
            for index in range(sampling.ensemble)
        ]
        return torch.cat(members)

    def _provenance(self, sampling: Sampling, spread: Tensor | None) -> dict[str, Any]:
        return {
            # In the hub's cache, this path contains the revision.
            "weights": self.denoiser.config.get("_name_or_path"),
            "start": self.config["start"],
            "depth_code": self.config["depth_code"],
            "timestep": self.config["timestep"],
            "with_prior": self.config["with_prior"],
            "with_wide": self.config["with_wide"],
            "depth_in_pixels": self.config["depth_in_pixels"],
            "dtype": str(self.denoiser.dtype).removeprefix("torch."),
            **asdict(sampling),
            "steps": self._steps(sampling.steps),
            "mean_spread": None if spread is None else float(spread.mean()),
            "checkpoint": None if self.origin is None else self.origin(),
        }

    def _steps(self, steps: int | None) -> int:
        return DEFAULT_STEPS[self.config["start"]] if steps is None else steps

    def _bars(self) -> Report:
        """Show stages as diffusers' progress bars, one after another."""
        shown: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in shown:
                for bar in shown.values():
                    bar.close()
                shown.clear()
                shown[stage] = self.progress_bar(total=total)
                shown[stage].set_description(stage)
            bar = shown[stage]
            # A stage ends with 1 of 1, however many steps it had.
            bar.n, bar.total = (bar.total, bar.total) if done == total == 1 else (done, total)
            bar.refresh()

        return show


def _coordinate(refined: Tensor, code: SurfaceCode, estimate: Estimate) -> Tensor:
    """The surface (H, W) of a refined code, blended with physics by confidence in physics.

    Codes saturate at their bounds. If physics lies beyond a bound and the model stays on it, keep
    physics.
    """
    physical = code.encode(estimate.coordinate)
    beyond = physical.abs() == 1
    stays = (refined - physical).abs() < _AT_THE_BOUND
    completed = code.decode(torch.lerp(refined, physical, estimate.confidence))
    trust = torch.where(stays, 1.0, estimate.confidence)
    kept = torch.lerp(code.decode(refined), estimate.coordinate, trust)
    return torch.where(beyond, kept, completed)
