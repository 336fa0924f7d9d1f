"""The objective: every term by hand, what is masked, means, and noise levels."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from rooms import room, source
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.config.run import Config, LossesConfig, TrainingConfig
from focaldiffusion.data.batch import StackBatch, collate
from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.photographer import photograph
from focaldiffusion.errors import InputError
from focaldiffusion.models.completer import Completer
from focaldiffusion.models.flow import draw_sigma
from focaldiffusion.models.surface_code import SurfaceCode
from focaldiffusion.optics import Camera, linear_to_srgb, srgb_to_linear
from focaldiffusion.psf import PSF
from focaldiffusion.recovery import estimate_depth
from focaldiffusion.simulation.render import render
from focaldiffusion.stack import FocalStack
from focaldiffusion.training.examples import Truth, examples_of, patches_of
from focaldiffusion.training.objective import Objective, Prepared, prepare

NOTHING = {"diffusion_weight": 0, "rgb_l1": 0, "depth_l1": 0}
ALL = {
    "diffusion_weight": 1,
    "rgb_weight": 1,
    "rgb_ssim": 0.2,
    "depth_weight": 1,
    "depth_silog": 0.1,
    "depth_gradient": 0.5,
    "consistency_weight": 0.3,
}
CODE = SurfaceCode("log", 1.0, math.exp(-2))
"""A code that is log z - 1, so that differences of codes are log ratios of depths."""


def only(**weights: float) -> Objective:
    """An objective with one term, of weight 1."""
    return Objective(LossesConfig(**{**NOTHING, "rgb_weight": 1, "depth_weight": 1, **weights}))


def truth(
    depth_code: Tensor,
    valid: Tensor,
    image: Tensor | None = None,
    stack: FocalStack | None = None,
    blur_scale: float | None = None,
) -> Truth:
    """The truth of (H, W) maps; an image that is not given is not known."""
    size = tuple(depth_code.shape)
    stack = stack or FocalStack(torch.zeros(2, 3, *size), None, torch.tensor([1.0, 2.0]))
    return Truth(
        torch.zeros(1, 3, *size) if image is None else image[None],
        torch.tensor([image is not None]),
        depth_code[None, None],
        valid[None, None],
        (CODE,),
        (stack,),
        (blur_scale,),
        ("one",),
    )


def prepared(one: Truth) -> Prepared:
    """A truth without latents, for the terms of pixels."""
    nothing = torch.zeros(1, 1, 1, 1)
    return Prepared(one, nothing, nothing, nothing.bool(), nothing, torch.ones(1))


def term(objective: Objective, one: Truth, image: Tensor, code: Tensor) -> tuple[float, int]:
    """Sum and count of the only term of an objective, of what the network made."""
    (value,) = objective._decoded(one, image[None], code[None, None]).values()
    return float(value), int(objective.counts(prepared(one)))


TRUE = torch.tensor([[-0.5, 0.0], [0.25, 0.5]])
GUESS = torch.tensor([[-0.3, 0.4], [9.0, 0.5]])  # the third is not valid
VALID = torch.tensor([[True, True], [False, True]])
BLACK = torch.zeros(3, 2, 2)


def test_depth_l1_is_the_error_of_the_code() -> None:
    total, count = term(only(depth_l1=1), truth(TRUE, VALID), BLACK, GUESS)
    assert total == pytest.approx(0.2 + 0.4)
    assert count == 3


def test_silog_forgives_most_of_a_common_factor() -> None:
    total, count = term(only(depth_silog=1), truth(TRUE, VALID), BLACK, GUESS)
    # Errors of log z are 0.2, 0.4 and 0: mean 0.2, mean square 0.2 / 3.
    assert total == pytest.approx(3 * math.sqrt(0.2 / 3 - 0.85 * 0.2**2 + 1e-6), rel=1e-5)
    assert count == 3
    shifted = torch.where(VALID, TRUE + 0.3, TRUE)
    total, _ = term(only(depth_silog=1), truth(TRUE, VALID), BLACK, shifted)
    assert total == pytest.approx(3 * math.sqrt(0.15 * 0.3**2 + 1e-6), rel=1e-4)


def test_gradient_matching_compares_valid_neighbours() -> None:
    total, count = term(only(depth_gradient=1), truth(TRUE, VALID), BLACK, GUESS)
    # Two of the four pairs do not touch the invalid pixel: above, and at the right.
    assert total == pytest.approx(abs(0.4 - 0.2) + abs(0.0 - 0.4))
    assert count == 2


def test_gradient_matching_sees_every_second_pixel_as_well() -> None:
    true, guess = torch.zeros(1, 3), torch.tensor([[0.0, 0.1, 0.6]])
    valid = torch.ones(1, 3, dtype=torch.bool)
    one = truth(true, valid)
    total, count = term(only(depth_gradient=1), one, torch.zeros(3, 1, 3), guess)
    assert total == pytest.approx(0.1 + 0.5 + 0.6)
    assert count == 3


def test_rgb_l1_is_the_mean_over_channels() -> None:
    image = torch.full((3, 2, 2), 0.25)
    guess = image + torch.tensor([0.3, -0.6, 0.0])[:, None, None]
    total, count = term(only(rgb_l1=1), truth(TRUE, VALID, image), guess, GUESS)
    assert total == pytest.approx(4 * 0.3)
    assert count == 4
    assert term(only(rgb_l1=1), truth(TRUE, VALID), guess, GUESS) == (0.0, 0)


def test_ssim_is_that_of_torchmetrics() -> None:
    size = (12, 16)
    image, guess = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    one = truth(torch.zeros(size), torch.ones(size, dtype=torch.bool), image)
    total, count = term(only(rgb_ssim=1), one, guess, torch.zeros(size))
    similar = structural_similarity_index_measure(guess[None], image[None], data_range=2.0)
    assert count == 12 * 16
    assert total / count == pytest.approx(1 - float(similar), rel=1e-5)


def test_consistency_is_zero_at_the_truth_and_needs_a_lens() -> None:
    size = (24, 32)
    light = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    code = torch.linspace(-0.5, 0.5, 32).expand(size).contiguous()
    distances = torch.tensor([1.5, 4.0])
    frames = render(light, CODE.decode(code), 1 / distances, 4.0, PSF())
    stack = FocalStack(frames, Camera(200.0, 0.02, size), distances)
    nowhere = torch.zeros(size, dtype=torch.bool)
    srgb = 2 * linear_to_srgb(light) - 1
    one = truth(torch.zeros(size), nowhere, stack=stack, blur_scale=4.0)
    total, count = term(only(consistency_weight=1), one, srgb, code)
    assert count == 2 * 24 * 32
    assert total / count < 1e-5
    flat = torch.zeros(size)
    again = render(srgb_to_linear((srgb + 1) / 2), CODE.decode(flat), 1 / distances, 4.0, PSF())
    expected = (linear_to_srgb(again.clamp(1e-6, 1)) - linear_to_srgb(frames)).abs().mean()
    total, _ = term(only(consistency_weight=1), one, srgb, flat)
    assert total / count == pytest.approx(float(expected), rel=1e-5)
    unknown = replace(one, blur_scales_px_m=(None,))
    assert term(only(consistency_weight=1), unknown, srgb, flat) == (0.0, 0)


def test_weights_multiply_within_their_group_and_zeros_are_left_out() -> None:
    objective = Objective(LossesConfig(depth_weight=2, depth_silog=0.25))
    assert {name: one.weight for name, one in objective.terms.items()} == {
        "flow": 1,
        "depth_l1": 2,
        "depth_silog": 0.5,
    }
    with pytest.raises(InputError, match="every weight is 0"):
        Objective(LossesConfig(diffusion_weight=0))


# With a model


@pytest.mark.parametrize(
    ("weights", "decoded"),
    [
        ({}, []),
        ({"rgb_weight": 1}, ["image"]),
        ({"depth_weight": 1}, ["depth"]),
        ({"consistency_weight": 1}, ["image", "depth"]),
    ],
)
def test_only_planes_that_a_term_reads_are_decoded(
    weights: dict[str, float], decoded: list[str]
) -> None:
    objective, completer = Objective(LossesConfig(**weights)), model()
    assert objective.decodes == set(decoded)
    part = prepare(completer, examples_of(batch(sample(0)), "log", with_stacks=True), generators(1))
    calls = []
    hook = completer.codec.vae.decoder.register_forward_hook(lambda *_: calls.append(1))
    assert bool(objective.sums(completer, part).isfinite().all())
    hook.remove()
    assert len(calls) == len(decoded)


def sample(index: int, changed: float | None = None) -> StackSample:
    """A photographed room of a size that the network pads, with a hole in its depth.

    Args:
        index: of the room.
        changed: depth in the hole, which nothing may see.
    """
    scene = room(index, (40, 64))
    made = photograph(scene, source(), torch.Generator().manual_seed(index))
    made = replace(made, estimate=estimate_depth(made.stack, PSF()).mapped(Tensor.clone))
    if changed is None:
        return made
    return replace(made, depth_m=made.depth_m.where(made.valid, changed))


def batch(*samples: StackSample) -> StackBatch:
    return collate(samples)


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(index) for index in range(count)]


def model(start: str = "estimate") -> Completer:
    """The tiny model as after some training: its output is not zero."""
    pipeline = FocalDiffusionPipeline.from_preset("tiny", start)  # type: ignore[arg-type]
    with torch.no_grad():
        out = pipeline.denoiser.proj_out
        out.weight.normal_(0, 0.02, generator=torch.Generator().manual_seed(1))
    return pipeline.completer


def sums_and_counts(
    objective: Objective, completer: Completer, stacks: StackBatch, seeds: list[torch.Generator]
) -> tuple[Tensor, Tensor]:
    part = prepare(completer, examples_of(stacks, "log", with_stacks=True), seeds)
    return objective.sums(completer, part), objective.counts(part)


def test_masked_truth_changes_neither_loss_nor_gradient() -> None:
    objective, completer = Objective(LossesConfig(**ALL)), model()

    def of(stacks: StackBatch) -> tuple[Tensor, list[Tensor]]:
        sums, counts = sums_and_counts(objective, completer, stacks, generators(1))
        completer.denoiser.zero_grad()
        (sums / counts * objective.weights(sums)).sum().backward()
        return sums.detach(), [one.grad.clone() for one in completer.denoiser.parameters()]

    loss, gradients = of(batch(sample(0)))
    for changed in (0.01, 1e6, torch.nan):
        again, others = of(batch(sample(0, changed)))
        assert torch.equal(again, loss)
        assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))
    assert bool(loss.isfinite().all())
    assert completer.denoiser.pos_embed.proj.weight.grad.abs().max() > 0


def test_no_mean_is_over_what_was_padded() -> None:
    objective, completer = Objective(LossesConfig(**ALL)), model()
    stacks = batch(sample(0))
    part = prepare(completer, examples_of(stacks, "log", with_stacks=True), generators(1))
    assert part.clean.shape[-2:] == (48 // 8, 64 // 8)
    counts = dict(zip(objective.terms, objective.counts(part).tolist(), strict=True))
    valid = int(stacks.valid.sum())
    assert counts["depth_l1"] == counts["depth_silog"] == valid
    assert counts["rgb_l1"] == counts["rgb_ssim"] == 40 * 64
    assert counts["consistency"] == 3 * 40 * 64
    # Five of six rows of cells are whole; the quarter of the room without depth has two columns.
    assert counts["flow"] == 4 * (6 * 8) + 4 * (5 * 6)


def test_a_step_is_the_same_however_it_is_split() -> None:
    objective, completer = Objective(LossesConfig(**ALL)), model()
    samples = [sample(0), replace(sample(1), all_in_focus=None)]
    sums, counts = sums_and_counts(objective, completer, batch(*samples), generators(2))
    split = [
        sums_and_counts(objective, completer, batch(one), [seed])
        for one, seed in zip(samples, generators(2), strict=True)
    ]
    assert torch.equal(split[0][1] + split[1][1], counts)
    torch.testing.assert_close(split[0][0] + split[1][0], sums, rtol=1e-5, atol=1e-5)


def test_training_and_sampling_start_from_the_same_state() -> None:
    completer = model()
    one = examples_of(batch(sample(0)), "log", with_stacks=True)
    part = prepare(completer, one, generators(1))
    assert torch.equal(part.sigma, torch.ones(1))
    seen = {}

    class Seeing(Completer):
        def velocity(self, state: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
            seen.update(state=state, sigma=sigma, condition=condition)
            return super().velocity(state, sigma, condition)

    sampler = Seeing(**vars(completer))
    sampler.predict(one.proposal, 1, None, with_image=False)
    assert torch.equal(seen["sigma"], part.sigma)
    assert torch.equal(seen["state"], part.start)
    assert torch.equal(seen["condition"], part.condition)
    Objective(LossesConfig()).sums(sampler, part)
    assert torch.equal(seen["state"], part.start), "at sigma 1 the clean latents have no part"


def test_from_noise_sigma_and_noise_are_of_each_sample() -> None:
    completer = model("noise")
    one = examples_of(batch(sample(0), sample(1)), "log", with_stacks=True)
    part = prepare(completer, one, generators(2))
    for index, seed in enumerate(generators(2)):
        assert torch.equal(part.sigma[index], draw_sigma("noise", 1, seed)[0])
        alone = completer.noise((1, *part.clean.shape[1:]), [seed])
        assert torch.equal(part.start[index], alone[0])
    assert part.sigma[0] != part.sigma[1]


def test_a_perfect_velocity_has_no_flow_loss_and_decodes_to_the_truth() -> None:
    class Perfect(Completer):
        def velocity(self, state: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
            return part.start - part.clean

    # With the patch codec: the random autoencoder of the tiny model does not give back an image.
    pipeline = FocalDiffusionPipeline.from_preset("compact", "noise")
    completer = Perfect(**vars(pipeline.completer))
    objective = Objective(LossesConfig(**{**ALL, "consistency_weight": 0}))
    part = prepare(completer, examples_of(batch(sample(0)), "log", with_stacks=True), generators(1))
    means = objective.sums(completer, part) / objective.counts(part)
    assert part.sigma < 1
    for name, mean in zip(objective.terms, means.tolist(), strict=True):
        assert mean < (2e-3 if name == "depth_silog" else 1e-5), name


def test_a_stack_without_focus_distances_is_named() -> None:
    made = sample(0)
    stack = replace(made.stack, focus_distances_m=None)
    with pytest.raises(InputError, match=r"^room 0: has no focus distances"):
        examples_of(batch(replace(made, stack=stack)), "log", with_stacks=True)


# Patches


def test_patches_are_squares_of_the_whole_turned_alike() -> None:
    one = examples_of(batch(sample(0), sample(1)), "log", with_stacks=False)
    cut = patches_of(one, 16, 20, 4, generators(2))
    assert len(cut.truth) == 40
    assert cut.truth.sources == ("room 0",) * 20 + ("room 1",) * 20
    assert cut.truth.codes == tuple(code for code in one.truth.codes for _ in range(20))

    def turned(maps: Tensor) -> list[Tensor]:
        mirrored = [maps, maps.flip(1), maps.flip(2), maps.flip(1, 2)]
        return mirrored + [part.mT for part in mirrored]

    names = ("image", "depth_code", "valid")
    whole = [getattr(one.truth, name) for name in names]
    whole += [one.proposal.features, one.proposal.surroundings]
    parts = [getattr(cut.truth, name) for name in names]
    parts += [cut.proposal.features, cut.proposal.surroundings]
    height, width = one.truth.valid.shape[-2:]
    found = set()
    for index in range(40):
        wanted = [maps[index] for maps in parts]
        matches = [
            (top, left, turn)
            for top in range(0, height - 15, 4)
            for left in range(0, width - 15, 4)
            for turn in range(8)
            if all(
                torch.equal(
                    turned(maps[index // 20][:, top : top + 16, left : left + 16])[turn], part
                )
                for maps, part in zip(whole, wanted, strict=True)
            )
        ]
        assert matches, f"patch {index} is not a square of its stack"
        found.add(matches[0])
    assert len(found) > 20
    assert {turn for _, _, turn in found} == set(range(8))


def test_patches_are_those_of_their_generators() -> None:
    one = examples_of(batch(sample(0), sample(1)), "log", with_stacks=False)
    first, again = (patches_of(one, 16, 3, 4, generators(2)) for _ in range(2))
    assert torch.equal(first.proposal.features, again.proposal.features)
    alone = patches_of(
        examples_of(batch(sample(1)), "log", with_stacks=False), 16, 3, 4, generators(2)[1:]
    )
    assert torch.equal(first.truth.image[3:], alone.truth.image)


@pytest.mark.parametrize("side_px", [18, 64])
def test_patches_that_do_not_fit_are_refused(side_px: int) -> None:
    one = examples_of(batch(sample(0)), "log", with_stacks=False)
    with pytest.raises(
        InputError, match=rf"^training.patch_px: got {side_px}, for images of 64x40"
    ):
        patches_of(one, side_px, 1, 4, generators(1))


def test_patches_are_not_photographed_again() -> None:
    with pytest.raises(ValueError, match="patch_px with losses"):
        Config(training=TrainingConfig(patch_px=16), losses=LossesConfig(consistency_weight=1))
