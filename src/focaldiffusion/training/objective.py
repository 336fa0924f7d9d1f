"""The objective: the terms of the loss and their weights.

Every term is a sum over valid pixels, with their number. The mean over an effective batch is then
the same however gradient accumulation and processes split it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.config.run import LossesConfig, ModelConfig, TrainingConfig
from focaldiffusion.data.batch import StackBatch
from focaldiffusion.data.mixture import Draw
from focaldiffusion.errors import InputError
from focaldiffusion.models.codecs import encode_state, pad, unpad
from focaldiffusion.models.completer import Completer
from focaldiffusion.models.flow import clean_from_velocity, draw_sigma, noised, velocity
from focaldiffusion.optics import linear_to_srgb, srgb_to_linear
from focaldiffusion.psf import PSF
from focaldiffusion.simulation.render import render
from focaldiffusion.stack import FocalStack
from focaldiffusion.training.examples import Examples, Shown, Truth, examples_of, patches_of
from focaldiffusion.training.kept import KeptExamples, unpacked

_SCALES = 4  # of gradient matching, each half the last (MiDaS, Ranftl et al. 2020)
_SILOG_SHARE = 0.85  # share of the squared mean that SiLog forgives (Eigen et al. 2014; BTS, 2019)
_SSIM_REACH_PX = 11  # side of the window
_SMALL = 1e-6


@dataclass(frozen=True)
class _Term:
    """Weight of a mean in the loss, and the number of pixels, latent values or pairs in it.

    Attributes:
        reads: the decoded planes that its errors need.
    """

    weight: float
    count: Callable[[Prepared], Tensor]
    reads: tuple[Literal["image", "depth"], ...] = ()


@dataclass(frozen=True, eq=False)
class Prepared:
    """Examples on the network's grid, with the latents that the flow runs between.

    Attributes:
        truth: not padded; the latents are of examples padded to a size that the network takes.
        clean: (B, C, h, w) latents of the truth.
        start: (B, C, h, w) start of the flow: latents of the estimate, or noise.
        latent_valid: (B, C, h, w) bool, True for latents that the truth alone decides.
        condition: (B, C', h, w).
        sigma: (B,).
    """

    truth: Truth
    clean: Tensor
    start: Tensor
    latent_valid: Tensor
    condition: Tensor
    sigma: Tensor


def check_sides(sample: str, size_px: tuple[int, int], max_side_px: int) -> None:
    """Refuse images (height, width) beyond a network's table of positions.

    Raises:
        InputError: names the sample.
    """
    height, width = size_px
    if max(size_px) > max_side_px:
        raise InputError(
            f"{sample}: {width}x{height}, but this network takes sides of at most {max_side_px} "
            "px. Set data.image_size, or training.patch_px for crops."
        )


def prepare(
    completer: Completer, examples: Examples, generators: list[torch.Generator]
) -> Prepared:
    """Encode examples and draw their noise; no weights that train are used.

    Args:
        completer: of the model.
        examples: on its device.
        generators: on the CPU, one for the random numbers of each example.

    Raises:
        InputError: images beyond the network's table of positions.
    """
    height, width = examples.truth.size
    check_sides(examples.truth.sources[0], (height, width), completer.max_side_px)
    with torch.no_grad():

        def grown(maps: Tensor) -> Tensor:
            return pad(maps, completer.multiple_px)

        codec, proposal, truth = completer.codec, examples.proposal, examples.truth
        depth_code = grown(proposal.depth_code)
        if isinstance(proposal, Shown):
            condition = completer.joined(grown(proposal.all_in_focus), proposal.maps)
        else:
            condition = completer.condition(proposal.map(grown))
        true_code = grown(truth.depth_code)
        if bool(truth.has_image.any()):
            clean = encode_state(codec, grown(truth.image), true_code).float()
        else:  # then the proposal's stands in for it, and its latents are known
            clean = completer.estimate(true_code, condition)
        sigma = torch.cat([draw_sigma(completer.start, 1, one) for one in generators])
        if completer.start == "noise":
            start = completer.noise(tuple(clean.shape), generators)
        else:
            start = completer.estimate(depth_code, condition)
        has_image = truth.has_image[:, None, None, None].expand(
            -1, codec.channels, *clean.shape[-2:]
        )
        beyond = (0, -width % completer.multiple_px, 0, -height % completer.multiple_px)
        valid = functional.pad(truth.valid, beyond)  # with invalid pixels
        latent_valid = torch.cat([has_image, codec.decided_by(valid)], dim=1)
        return Prepared(truth, clean, start, latent_valid, condition, sigma.to(clean))


def prepare_batch(
    batch: StackBatch | Examples,
    draws: Sequence[Draw],
    *,
    completer: Completer,
    model: ModelConfig,
    training: TrainingConfig,
    with_stacks: bool,
    kept: KeptExamples | None,
) -> Prepared:
    """A batch for a step, with its random patches and noise.

    Args:
        batch: with an estimate for each of its stacks; or its kept examples, still packed.
        draws: of its samples.
        completer: of the model.
        model: with the depth code, and whether its image half trains.
        training: with the size and number of patches.
        with_stacks: see `examples_of`.
        kept: folder to keep its examples in.

    Raises:
        InputError: see `examples_of` and `patches_of`.
    """
    if isinstance(batch, Examples):
        examples = batch
    else:
        examples = examples_of(
            batch,
            model.depth_code,
            with_stacks=with_stacks,
            with_image=model.with_image,
            **model.shown,
        )
        if kept is not None:
            examples = kept.add(draws, examples)  # rounded as in every later epoch
    generators = [draw.generator("flow") for draw in draws]
    if training.patch_px is not None:
        count = training.patches_per_stack
        examples = patches_of(examples, training.patch_px, count, completer.multiple_px, generators)
        generators = [one for one in generators for _ in range(count)]
    if kept is not None:
        examples = unpacked(examples)
    return prepare(completer, examples, generators)


class Objective:
    """The weighted terms of `losses`.

    Attributes:
        terms: by name, without those of weight 0.
        reads_stacks: whether a term needs the frames of `Truth.stacks`.
        decodes: the planes, image or depth, that a term needs; only these are decoded.
    """

    def __init__(self, losses: LossesConfig) -> None:
        """The terms with a weight in a configuration.

        Raises:
            InputError: there are none.
        """

        def pixels(prepared: Prepared) -> Tensor:
            return prepared.truth.valid.sum()

        def image_pixels(prepared: Prepared) -> Tensor:
            height, width = prepared.truth.image.shape[-2:]
            return prepared.truth.has_image.sum() * height * width

        def frame_pixels(prepared: Prepared) -> Tensor:
            truth = prepared.truth
            frames = (stack.images[:, 0].numel() for stack, _ in _photographed_with(truth))
            return torch.tensor(sum(frames), device=truth.image.device)

        rgb, depth = losses.rgb_weight, losses.depth_weight
        terms = {
            "flow": _Term(losses.diffusion_weight, lambda p: p.latent_valid.sum()),
            "rgb_l1": _Term(rgb * losses.rgb_l1, image_pixels, ("image",)),
            "rgb_ssim": _Term(rgb * losses.rgb_ssim, image_pixels, ("image",)),
            "depth_l1": _Term(depth * losses.depth_l1, pixels, ("depth",)),
            "depth_silog": _Term(depth * losses.depth_silog, pixels, ("depth",)),
            "depth_gradient": _Term(
                depth * losses.depth_gradient, lambda p: _pairs(p.truth), ("depth",)
            ),
            "consistency": _Term(losses.consistency_weight, frame_pixels, ("image", "depth")),
        }
        self.terms = {name: term for name, term in terms.items() if term.weight > 0}
        if not self.terms:
            raise InputError("losses: every weight is 0, so there is no loss. Set one.")
        self.reads_stacks = "consistency" in self.terms
        self.decodes = frozenset(plane for term in self.terms.values() for plane in term.reads)

    def counts(self, prepared: Prepared) -> Tensor:
        """(T,) int64, number of pixels, values or pairs in the mean of each term."""
        return torch.stack([term.count(prepared) for term in self.terms.values()])

    def sums(self, completer: Completer, prepared: Prepared) -> Tensor:
        """(T,) differentiable sum of the errors of each term.

        Args:
            completer: with the network that trains.
            prepared: result of `prepare`.
        """
        state = noised(prepared.clean, prepared.start, prepared.sigma)
        predicted = completer.velocity(state, prepared.sigma, prepared.condition).float()
        sums: dict[str, Tensor] = {}
        if "flow" in self.terms:
            error = (predicted - velocity(prepared.clean, prepared.start)).square()
            sums["flow"] = (error * prepared.latent_valid).sum()
        if self.decodes:
            clean = clean_from_velocity(state, predicted, prepared.sigma)
            codec, truth = completer.codec, prepared.truth
            image, depth = clean.split([codec.channels, codec.depth_channels], dim=1)
            # The truth stands in for a plane that no term reads: decoding is what costs memory.
            planes = (
                codec.decode_image(image) if "image" in self.decodes else truth.image,
                codec.decode_depth(depth) if "depth" in self.decodes else truth.depth_code,
            )
            sums |= self._decoded(truth, *(unpad(one, truth.size) for one in planes))
        return torch.stack([sums[name] for name in self.terms])

    def weights(self, like: Tensor) -> Tensor:
        """(T,) weight of each term."""
        return like.new_tensor([term.weight for term in self.terms.values()])

    def _decoded(self, truth: Truth, image: Tensor, code: Tensor) -> dict[str, Tensor]:
        """The terms of a decoded image (B, 3, H, W) and depth code (B, 1, H, W)."""
        known = truth.has_image[:, None, None, None]
        errors: dict[str, Callable[[], Tensor]] = {
            "rgb_l1": lambda: ((image - truth.image).abs().mean(1, keepdim=True) * known).sum(),
            "rgb_ssim": lambda: _one_minus_ssim(image, truth.image, truth.has_image),
            "depth_l1": lambda: ((code - truth.depth_code).abs() * truth.valid).sum(),
            "depth_silog": lambda: _silog(_log_ratio(truth, code), truth.valid),
            "depth_gradient": lambda: _gradient(_log_ratio(truth, code), truth.valid),
            "consistency": lambda: _consistency(truth, image, code),
        }
        return {name: error() for name, error in errors.items() if name in self.terms}


def _log_ratio(truth: Truth, code: Tensor) -> Tensor:
    """(B, 1, H, W) log of predicted over true depth, both decoded."""
    triples = zip(truth.codes, code, truth.depth_code, strict=True)
    # Coordinates are inverse depths.
    return torch.stack([one.decode(true).log() - one.decode(p).log() for one, p, true in triples])


def _silog(log_ratio: Tensor, valid: Tensor) -> Tensor:
    """√(mean d² - λ mean(d)²) of each image, times its valid pixels, summed."""
    count = valid.sum(dim=(1, 2, 3)).clamp_min(1)
    error = log_ratio * valid
    mean, squared = (x.sum(dim=(1, 2, 3)) / count for x in (error, error.square()))
    spread = (squared - _SILOG_SHARE * mean.square()).clamp_min(0)
    # The square root has no finite slope at zero.
    return ((spread + _SMALL).sqrt() * count * valid.any(dim=(1, 2, 3))).sum()


def _pairs(truth: Truth) -> Tensor:
    """Number of pairs of valid neighbours, across and down, at all scales."""
    counts = [
        both.sum()
        for scale in range(_SCALES)
        for both in _both(truth.valid[..., :: 2**scale, :: 2**scale])
    ]
    return torch.stack(counts).sum()


def _both(valid: Tensor) -> tuple[Tensor, Tensor]:
    """Masks of pairs of valid neighbours, across and down."""
    return valid[..., 1:] & valid[..., :-1], valid[..., 1:, :] & valid[..., :-1, :]


def _gradient(log_ratio: Tensor, valid: Tensor) -> Tensor:
    """|difference of the errors of neighbours|, summed over valid pairs at four scales."""
    total = log_ratio.new_zeros(())
    for scale in range(_SCALES):
        error = log_ratio[..., :: 2**scale, :: 2**scale]
        for dim, both in zip((-1, -2), _both(valid[..., :: 2**scale, :: 2**scale]), strict=True):
            total = total + (error.diff(dim=dim).abs() * both).sum()
    return total


def _one_minus_ssim(image: Tensor, true: Tensor, has_image: Tensor) -> Tensor:
    """1 - SSIM of the images with a truth, times their pixels, summed."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    height, width = image.shape[-2:]
    if not bool(has_image.any()) or min(height, width) < _SSIM_REACH_PX:
        return image.sum() * 0
    similarity = structural_similarity_index_measure(
        image[has_image], true[has_image], data_range=2.0, reduction="none"
    )
    assert isinstance(similarity, Tensor)
    return (1 - similarity).sum() * height * width


def _consistency(truth: Truth, image: Tensor, code: Tensor) -> Tensor:
    """|frames - re-rendered result|, sRGB, mean over channels, summed over pixels."""
    total = (image.sum() + code.sum()) * 0  # keeps the graph if no lens is known
    for stack, index in _photographed_with(truth):
        scale = truth.blur_scales_px_m[index]
        assert scale is not None
        again = render(
            srgb_to_linear((image[index].clamp(-1, 1) + 1) / 2),
            truth.codes[index].decode(code[index, 0]),
            stack.focus_coordinates,
            scale,
            PSF(),
        )
        difference = linear_to_srgb(again.clamp(_SMALL, 1)) - linear_to_srgb(stack.images)
        total = total + difference.abs().mean(1).sum()
    return total


def _photographed_with(truth: Truth) -> list[tuple[FocalStack, int]]:
    """The stacks with a known lens, which can be rendered again, and their index."""
    scales = truth.blur_scales_px_m
    return [(one, i) for i, one in enumerate(truth.stacks) if scales[i] is not None]
