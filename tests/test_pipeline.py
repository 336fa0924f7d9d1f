from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pipelines import (
    EXACT,
    each_preset,
    each_start,
    last_layer,
    model_of,
    of_grade,
    physical,
    quiet,
    slanted_plane,
    trained,
    untrained,
)
from sample_stacks import photograph, texture

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.models.codecs import decode_state, encode_state
from focaldiffusion.models.completer import Sampling, tiles_of
from focaldiffusion.models.conditioning import Proposal
from focaldiffusion.progress import Meter
from focaldiffusion.psf import PSF
from focaldiffusion.recovery import Estimate, estimate_depth, recover
from focaldiffusion.stack import FocalStack

# The floor: an untrained model equals physics


@pytest.mark.parametrize("grade", ["calibrated", "stage positions", "order only"])
def test_untrained_with_the_lossless_codec_is_the_physical_estimate(grade):
    stack, estimate = physical(grade)
    assert str(estimate.calibration).startswith(grade)
    refined = untrained().refine(stack, estimate, with_image=True)
    scale = float(estimate.coordinate.abs().max())
    torch.testing.assert_close(refined.coordinate / scale, estimate.coordinate / scale, **EXACT)
    torch.testing.assert_close(refined.confidence, estimate.confidence, **EXACT)
    torch.testing.assert_close(
        refined.generation.image, estimate.evidence.all_in_focus.clamp(0, 1), **EXACT
    )


def test_untrained_with_an_autoencoder_is_the_coded_physical_estimate():
    stack, estimate = physical()
    model = untrained("tiny")
    proposal, _ = model.propose(stack, estimate)
    # 72 x 96 px are not a multiple of the 16 px of a token; this size is.
    proposal = proposal.map(lambda maps: maps[..., :64, :96])
    image, code = model.predict(proposal)
    with torch.no_grad():
        state = encode_state(model.codec, proposal.all_in_focus, proposal.depth_code)
        expected_image, expected_code = decode_state(model.codec, state)
    torch.testing.assert_close(image, expected_image, **EXACT)
    torch.testing.assert_close(code, expected_code, **EXACT)


def test_untrained_in_bfloat16_is_the_physical_estimate():
    # The state stays float32: low precision only rounds the velocity.
    stack, estimate = physical()
    model = quiet(FocalDiffusionPipeline.from_preset("compact")).to(torch.bfloat16)
    refined = model.refine(stack, estimate)
    assert refined.generation.provenance["dtype"] == "bfloat16"
    torch.testing.assert_close(refined.coordinate, estimate.coordinate, **EXACT)


def test_surfaces_beyond_the_code_are_not_brought_nearer():
    stack, estimate = physical()
    coordinate = estimate.coordinate.clone()
    coordinate[:, :20] = 0  # the sky
    refined = untrained().refine(stack, replace(estimate, coordinate=coordinate))
    assert (refined.coordinate[:, :20] == 0).all()


def test_an_untrained_model_reconstructs_like_physics():
    stack = slanted_plane()
    expected = recover(stack.at_working_size(), camera=stack.camera)
    got = untrained()(stack)
    np.testing.assert_allclose(got.depth_m, expected.depth_m, **EXACT)
    np.testing.assert_allclose(got.confidence, expected.confidence, **EXACT)
    # Captured pixels win: the image is fused as without a model.
    np.testing.assert_array_equal(got.all_in_focus, expected.all_in_focus)
    np.testing.assert_array_equal(got.source_index, expected.source_index)
    assert got.camera == expected.camera


# Predictions


@each_preset
@each_start
def test_a_batch_equals_singles(name, start):
    model = model_of(name, start)
    proposals = []
    for seed in (0, 1):
        stack = slanted_plane(seed)
        proposals.append(model.propose(stack, estimate_depth(stack, PSF()))[0])

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in (3, 4)]

    image, code = model.predict(Proposal.batched(proposals), generator=generators())
    for index, (proposal, generator) in enumerate(zip(proposals, generators(), strict=True)):
        single_image, single_code = model.predict(proposal, generator=generator)
        # A batch is summed in another order, and the network's normalisations amplify that.
        torch.testing.assert_close(image[index], single_image[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(code[index], single_code[0], rtol=1e-4, atol=1e-4)
    assert (image[0] - image[1]).abs().max() > 0.01


@each_preset
@each_start
def test_save_and_load_gives_identical_bits(name, start, tmp_path):
    model = model_of(name, start)
    model.save_pretrained(tmp_path)
    loaded = quiet(FocalDiffusionPipeline.from_pretrained(tmp_path))
    stack, estimate = physical()
    expected, got = (
        one.refine(stack, estimate, sampling=Sampling(seed=3), with_image=True)
        for one in (model, loaded)
    )
    assert torch.equal(got.coordinate, expected.coordinate)
    assert torch.equal(got.confidence, expected.confidence)
    assert torch.equal(got.generation.image, expected.generation.image)
    for key in ("start", "depth_code", "patch_factor"):
        assert loaded.config[key] == model.config[key]
    assert got.generation.model == str(tmp_path)
    assert got.generation.provenance["weights"] == str(tmp_path / "denoiser")


def test_pickled_weights_are_refused(tmp_path):
    untrained("tiny").save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(OSError, match="safetensors"):
        FocalDiffusionPipeline.from_pretrained(tmp_path)


def test_a_hub_model_loads_from_the_cache_and_names_its_revision(tmp_path):
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--focal"
    untrained("tiny").save_pretrained(repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    model = quiet(
        FocalDiffusionPipeline.from_pretrained(
            "someone/focal", cache_dir=tmp_path, local_files_only=True
        )
    )
    generation = model.refine(*physical()).generation
    assert generation.model == "someone/focal"
    assert revision in generation.provenance["weights"]


def test_the_same_seed_gives_the_same_output_and_another_another():
    stack, estimate = physical()
    model = untrained("tiny", "noise")
    one, same, other = (
        model.refine(stack, estimate, sampling=Sampling(seed=seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one.coordinate, same.coordinate)
    assert not torch.equal(one.coordinate, other.coordinate)
    assert torch.equal(
        trained().refine(stack, estimate, sampling=Sampling(seed=1)).coordinate,
        trained().refine(stack, estimate, sampling=Sampling(seed=2)).coordinate,
    )


def test_steps_change_the_result_from_noise():
    stack, estimate = physical()
    model = untrained("tiny", "noise")
    one, two = (model.refine(stack, estimate, sampling=Sampling(steps=steps)) for steps in (1, 2))
    assert two.generation.provenance["steps"] == 2
    assert not torch.equal(one.coordinate, two.coordinate)


def test_frames_in_another_order_give_the_same_result():
    order = [2, 0, 3, 1]
    stack = slanted_plane()
    shuffled = FocalStack(
        stack.images[order], camera=stack.camera, focus_distances_m=stack.focus_distances_m[order]
    )
    one, other = (trained()(each) for each in (stack, shuffled))
    # Sums over the frames round differently, which decides between equally good hypotheses.
    assert np.quantile(np.abs(other.depth_m / one.depth_m - 1), 0.999) < 1e-2
    assert (np.abs(other.confidence - one.confidence) < 0.01).mean() > 0.99
    same = np.array(order)[other.source_index] == one.source_index
    assert same.mean() > 0.999


@pytest.mark.parametrize("count", [2, 5, 9, 30])
def test_one_model_takes_any_number_of_frames(count):
    focus_m = (1 / torch.linspace(0.5, 2.0, count)).tolist()
    stack = slanted_plane(focus_m=focus_m)
    estimate = estimate_depth(stack, PSF())
    torch.testing.assert_close(
        untrained().refine(stack, estimate).coordinate, estimate.coordinate, **EXACT
    )
    proposal, code = trained().propose(stack, estimate)
    _, refined = trained().predict(proposal)
    # The network sees the same maps for any stack, and adds its random guess.
    change = (refined[0, 0] - code.encode(estimate.coordinate)).abs()
    assert 0.01 < change.mean() < 0.5


@pytest.mark.parametrize(
    ("grade", "field"),
    [("stage positions", "height_m"), ("order only", "depth_relative")],
)
def test_stacks_without_distances_are_completed(grade, field):
    stack = of_grade(grade)
    result = trained()(stack)
    assert result.depth_field == field
    values = getattr(result, field)
    assert np.isfinite(values).all()
    focus = stack.focus_coordinates.abs()  # heights grow in the direction of the travel
    assert focus.min() - 1e-6 <= values.min() < values.max() <= focus.max() + 1e-6


@pytest.mark.parametrize("size", [(50, 67), (8, 8)])
def test_sizes_that_are_not_whole_tokens(size):
    stack = photograph(texture(size), 1.0, size=size)
    result = untrained()(stack)
    expected = estimate_depth(stack, PSF()).coordinate
    np.testing.assert_allclose(1 / result.depth_m, expected, **EXACT)


# Confidence


def untrusted(estimate: Estimate) -> Estimate:
    """The estimate without any confidence: all of the surface is the model's."""
    return replace(estimate, confidence=torch.zeros_like(estimate.confidence))


def test_trusted_physics_stays_and_the_model_fills_the_rest():
    stack, estimate = physical()
    model = trained("compact")
    confidence = torch.zeros_like(estimate.confidence)
    confidence[:, 30:60], confidence[:, 60:] = 0.5, 1
    estimate = replace(estimate, confidence=confidence)
    proposal, code = model.propose(stack, estimate)
    predicted = model.predict(proposal)[1][0, 0]
    refined = model.refine(stack, estimate).coordinate
    surface = code.encode(estimate.coordinate)
    inside = surface.abs() < 1
    torch.testing.assert_close(refined[:, 60:], estimate.coordinate[:, 60:], **EXACT)
    for weight, part in ((0.0, slice(0, 30)), (0.5, slice(30, 60))):
        here = inside[:, part]
        assert here.float().mean() > 0.3
        mixed = torch.lerp(predicted[:, part], surface[:, part], weight)
        torch.testing.assert_close(refined[:, part][here], code.decode(mixed)[here], **EXACT)


def test_a_surface_beyond_the_code_stays_unless_the_model_moves_it():
    stack, estimate = physical()
    confidence = torch.zeros_like(estimate.confidence)
    confidence[:, :20] = 1  # all of one depth
    coordinate = estimate.coordinate.clone()
    coordinate[:, 60:] = 1e-3
    estimate = replace(estimate, confidence=confidence, coordinate=coordinate)
    _, code = untrained("compact").propose(stack, estimate)
    assert (code.encode(coordinate[:, 60:]) == 1).all()
    refined = untrained("compact").refine(stack, estimate).coordinate
    assert torch.equal(refined[:, 60:], coordinate[:, 60:])


def test_a_surface_that_the_evidence_contradicts_loses_its_confidence():
    stack, estimate = physical()
    assert estimate.confidence.mean() > 0.6
    refined = untrained("compact", "noise").refine(stack, untrusted(estimate))
    # Random weights put the surface anywhere.
    assert (refined.coordinate - estimate.coordinate).abs().median() > 0.2
    assert refined.confidence.mean() < 0.1
    assert refined.residual_rms > estimate.residual_rms


def test_the_ensemble_gives_its_median_and_spread_lowers_confidence():
    stack, estimate = physical()
    estimate = untrusted(estimate)
    model = untrained("tiny", "noise")
    proposal, code = model.propose(stack, estimate)
    codes = torch.stack(
        [
            model.predict(proposal, generator=torch.Generator().manual_seed(seed))[1][0, 0]
            for seed in (7, 8, 9)
        ]
    )
    refined = model.refine(stack, estimate, sampling=Sampling(ensemble=3, seed=7))
    median = codes.median(0).values
    torch.testing.assert_close(refined.coordinate, code.decode(median), **EXACT)
    # 1.4826 times the median absolute deviation is the standard deviation of normal numbers.
    spread = 1.4826 * (codes - median).abs().median(0).values
    torch.testing.assert_close(refined.generation.spread, spread, **EXACT)
    provenance = refined.generation.provenance
    assert (provenance["ensemble"], provenance["seed"]) == (3, 7)
    assert provenance["mean_spread"] == pytest.approx(float(spread.mean()), rel=1e-4)


def test_members_that_differ_lower_confidence_and_members_that_agree_do_not():
    stack, estimate = physical()
    model = quiet(FocalDiffusionPipeline.from_preset("compact", "noise"))
    proposal, _ = model.propose(stack, untrusted(estimate))
    confidence = {}
    for spread in (0.0, 1 / 16):
        # Replaces the network by one that always ends at the proposal, offset by `spread`.
        state = encode_state(model.codec, proposal.all_in_focus, proposal.depth_code)

        def velocity(hidden_states, timestep, state=state, spread=spread, **_):
            noise = hidden_states[:, : state.shape[1]]
            clean = state.clone()
            shift = torch.sign(noise[:, :1].mean()) * spread
            clean[:, model.codec.channels :] += shift
            return ((noise - clean) * 1000 / timestep.reshape(-1, 1, 1, 1),)

        model.denoiser.forward = velocity
        refined = model.refine(stack, untrusted(estimate), sampling=Sampling(steps=1, ensemble=6))
        confidence[spread] = refined.confidence
    torch.testing.assert_close(confidence[0.0], estimate.confidence, **EXACT)
    assert confidence[1 / 16].mean() < 0.5 * confidence[0.0].mean()


# Tiles


def test_tiles_of_an_untrained_model_are_the_physical_estimate():
    stack, estimate = physical()
    refined = untrained().refine(stack, estimate, sampling=Sampling(tile_px=48))
    torch.testing.assert_close(refined.coordinate, estimate.coordinate, **EXACT)
    assert refined.generation.provenance["tile_px"] == 48


def test_tiles_blend_without_seams():
    stack, estimate = physical()
    model, tile_px = trained(), 48
    completer = model.completer
    proposal, _ = model.propose(stack, estimate)

    def predict(part: Proposal, tile_px: int | None = None) -> torch.Tensor:
        with torch.no_grad():
            return completer.predict(part, 1, None, with_image=False, tile_px=tile_px)[0, 0]

    tiled, whole = predict(proposal, tile_px), predict(proposal)
    # The network sees other pixels in a tile, so random weights give another result.
    assert (tiled - whole).abs().max() > 1e-3
    parts = torch.full((6, *whole.shape), torch.nan)
    tiles = tiles_of(tuple(whole.shape), tile_px, completer.multiple_px)
    for part, tile in zip(parts, tiles, strict=True):
        tile.of(part).copy_(predict(proposal.map(tile.of)))
    lowest, highest = parts.nan_to_num(torch.inf).amin(0), parts.nan_to_num(-torch.inf).amax(0)
    assert (tiled >= lowest - 1e-5).all()
    assert (tiled <= highest + 1e-5).all()
    # A step is one inside a tile, or a ramp's share of the difference between tiles, see blend.
    ramp_step = 2 * (highest - lowest).max() / (tile_px / 4)
    for axis in (0, 1):
        own = parts.diff(dim=axis + 1).abs().nan_to_num(0).amax(0)
        assert (tiled.diff(dim=axis).abs() <= own + ramp_step + 1e-5).all()


def test_tiles_share_their_noise():
    stack, estimate = physical()
    model = quiet(FocalDiffusionPipeline.from_preset("compact", "noise"))
    with torch.no_grad():
        # At zero velocity the output is the noise.
        last_layer(model).weight.zero_()
        last_layer(model).bias.zero_()
        proposal, _ = model.propose(stack, estimate)
        whole, tiled = (
            model.completer.predict(
                proposal, 2, torch.Generator().manual_seed(0), with_image=True, tile_px=tile_px
            )
            for tile_px in (None, 48)
        )
    assert whole.std() > 0.9
    torch.testing.assert_close(tiled, whole, **EXACT)


def test_an_image_larger_than_the_position_embedding_is_tiled():
    model = untrained("tiny")
    assert model.completer.max_side_px == 384
    stack, estimate = physical()
    proposal, _ = model.propose(stack, estimate)
    wide = proposal.map(lambda maps: maps[..., :32, :].repeat(1, 1, 1, 5))
    passes = []
    with torch.no_grad():
        planes = model.completer.predict(
            wide, 1, None, with_image=False, meter=Meter(lambda *call: passes.append(call), 2)
        )
    assert planes.shape == (1, 1, 32, 480)
    assert passes == [(1, 2), (2, 2)]
