from __future__ import annotations

import math
from dataclasses import fields, replace
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sample_stacks import BLUR_SCALE_PX_M, SIZE, photograph, texture
from torch import Tensor
from torch.nn import functional

from focaldiffusion.evidence import Evidence
from focaldiffusion.models.codecs import pad
from focaldiffusion.models.conditioning import (
    FEATURES,
    HISTOGRAM_BINS,
    SURROUNDINGS,
    Proposal,
    condition_channels,
    latent_condition,
    proposal_of,
)
from focaldiffusion.models.surface_code import SurfaceCode
from focaldiffusion.psf import PSF
from focaldiffusion.solve.complete import complete
from focaldiffusion.solve.consistency import confidence
from focaldiffusion.solve.sharpness import sweep_sharpness
from focaldiffusion.solve.sweep import sweep
from focaldiffusion.stack import Axis, FocalStack

AXES: tuple[Axis, ...] = ("inverse_depth_dpt", "position_m", "order")
STEP_M = 1e-4  # of a stage, for each dioptre of the photographed scene
NEAR_M, FAR_M, EDGE = 0.62, 1.4, 50  # a near half, a far half and the column between them


def edge_scene(near: float = NEAR_M, far: float = FAR_M) -> Tensor:
    """(H, W) with an edge that falls inside a cell of 8 px."""
    return torch.where(torch.arange(SIZE[1]) < EDGE, near, far).expand(SIZE)


def stack_of(axis: Axis, count: int = 5) -> FocalStack:
    """The edge scene photographed from 2 dpt to 0.5 dpt, near first."""
    focus_dpt = torch.linspace(2, 0.5, count)
    stack = photograph(texture(), edge_scene(), (1 / focus_dpt).tolist())
    if axis == "position_m":
        return FocalStack(stack.images, focus_positions_m=STEP_M * focus_dpt)
    return stack if axis == "inverse_depth_dpt" else FocalStack(stack.images)


def propose(stack: FocalStack) -> tuple[Proposal, SurfaceCode]:
    """The physical path up to the proposal."""
    scale = BLUR_SCALE_PX_M / (STEP_M if stack.axis == "position_m" else 1)
    with torch.inference_mode():  # as the pipeline does
        known = stack.axis != "order"
        evidence = sweep(stack, scale, PSF()) if known else sweep_sharpness(stack)
        completion = complete(evidence)
        trust = confidence(evidence, completion.coordinate, completion.agreement, None)
    code = SurfaceCode.from_stack(stack, evidence, scale)
    return proposal_of(evidence, completion.coordinate, completion.agreement, trust, code), code


@cache
def proposal(axis: Axis, count: int = 5) -> Proposal:
    return propose(stack_of(axis, count))[0]


def maps_of(found: Proposal) -> list[Tensor]:
    return [getattr(found, field.name) for field in fields(found)]


def evidence_of(
    hypotheses: Tensor, posterior: Tensor, axis: Axis = "inverse_depth_dpt"
) -> Evidence:
    """Evidence of the posterior (K,) at each of 2x3 pixels."""
    plane = torch.zeros(2, 3)
    return Evidence(
        axis,
        hypotheses,
        (posterior / posterior.sum()).reshape(-1, 1, 1).expand(-1, 2, 3),
        torch.full((3, 2, 3), 0.2),
        plane,
        plane.bool(),
    )


def posterior_maps(evidence: Evidence, code: SurfaceCode) -> tuple[Tensor, dict[str, float]]:
    """Histogram (M,) and named features of its first pixel."""
    ones = torch.ones(2, 3)
    found = proposal_of(evidence, ones, ones, ones, code)
    return found.histogram[0, :, 0, 0], dict(
        zip(FEATURES, found.features[0, :, 0, 0].tolist(), strict=True)
    )


# The posterior


@given(
    steps=st.lists(st.floats(0.02, 1.0), min_size=5, max_size=60),
    kind=st.sampled_from(["log", "inverse"]),
)
def test_without_defocus_no_spacing_of_hypotheses_shows(steps, kind):
    spacing = torch.tensor([0.2, *steps], dtype=torch.float64).cumsum(0)
    code = SurfaceCode(kind, float(spacing[-1]), 0.2)
    histogram, features = posterior_maps(evidence_of(spacing, torch.ones(len(spacing))), code)
    # Cells narrower than a 512th of the range are widened to it.
    flat = torch.full((HISTOGRAM_BINS,), 1 / HISTOGRAM_BINS, dtype=histogram.dtype)
    torch.testing.assert_close(histogram, flat, rtol=0.05, atol=0)
    assert features["posterior_entropy"] == pytest.approx(1, abs=1e-3)
    assert features["posterior_mean"] == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("count", [40, 80, 173])
def test_histogram_is_that_of_the_density_for_any_number_of_hypotheses(count):
    code = SurfaceCode("linear", near=1.0, far=0.0)
    hypotheses = torch.linspace(0, 1, count)
    mean, std = 0.2, 0.15
    density = torch.exp(-(((code.encode(hypotheses) - mean) / std) ** 2) / 2)
    histogram, features = posterior_maps(evidence_of(hypotheses, density, "order"), code)
    normal = torch.distributions.Normal(mean, std)
    mass = normal.cdf(torch.linspace(-1, 1, HISTOGRAM_BINS + 1)).diff()
    assert float(histogram.sum()) == pytest.approx(1)
    torch.testing.assert_close(histogram, mass, rtol=0, atol=0.01)
    assert features["posterior_mean"] == pytest.approx(mean, abs=1e-3)
    assert features["posterior_std"] == pytest.approx(std, abs=1e-3)
    exact = -torch.xlogy(mass, mass).sum() / math.log(HISTOGRAM_BINS)
    assert features["posterior_entropy"] == pytest.approx(float(exact), abs=0.02)


def test_a_cell_across_two_bins_is_shared_by_area():
    # Codes -1, -0.3, 0.4, 1 whose cells end at -0.65, 0.05 and 0.7. The second covers 0.025 of
    # bin 2 (-0.75 to -0.625), five whole bins of 0.125, and 0.05 of bin 8 (0 to 0.125).
    code = SurfaceCode("linear", near=-1.0, far=1.0)
    hypotheses = torch.tensor([-1.0, -0.3, 0.4, 1.0])
    histogram, features = posterior_maps(
        evidence_of(hypotheses, torch.tensor([0.0, 1.0, 0.0, 0.0]), "order"), code
    )
    expected = torch.tensor([0, 0, 0.025, *[0.125] * 5, 0.05, *[0] * 7]) / 0.7
    torch.testing.assert_close(histogram, expected)
    assert features["posterior_mean"] == pytest.approx(-0.3)
    assert features["posterior_std"] == pytest.approx(0, abs=1e-3)


def test_a_posterior_at_infinity_is_heard():
    # The first two hypotheses lie at or beyond the far bound of the code.
    hypotheses = torch.tensor([0.0, 0.01, 0.3, 0.6, 1.0, 1.4, 2.0])
    code = SurfaceCode("log", 2.0, 0.01)
    posterior = torch.tensor([1.0, 1e-6, 1e-6, 1e-6, 1e-6, 1e-6, 1e-6])
    histogram, features = posterior_maps(evidence_of(hypotheses, posterior), code)
    assert float(histogram[-1]) > 0.999
    assert features["posterior_mean"] == pytest.approx(1, abs=1e-3)


def test_of_two_surfaces_the_histogram_keeps_both():
    code = SurfaceCode("linear", near=0.0, far=1.0)
    hypotheses = torch.linspace(0, 1, 65)
    posterior = torch.zeros(65)
    posterior[[10, 50]] = 1.0
    histogram, features = posterior_maps(evidence_of(hypotheses, posterior, "order"), code)
    assert histogram.topk(2).indices.sort().values.tolist() == [2, 12]
    assert features["posterior_mean"] == pytest.approx(-1 + 60 / 64)
    assert features["posterior_std"] == pytest.approx(40 / 64)


# The proposal of real stacks


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("count", [2, 5, 9])
def test_any_number_of_frames_gives_bounded_maps_of_one_shape(axis, count):
    found = proposal(axis, count)
    assert [planes.shape[:2] for planes in maps_of(found)] == [
        (1, 3),
        (1, 1),
        (1, len(FEATURES)),
        (1, HISTOGRAM_BINS),
        (1, SURROUNDINGS),
        (1, 0),  # no prior
        (1, 0),  # no wide windows
    ]
    assert all(planes.shape[2:] == SIZE for planes in maps_of(found))
    for signed in (
        found.all_in_focus,
        found.depth_code,
        found.features[:, :1],
        found.surroundings,
    ):
        assert -1 <= float(signed.min()) < float(signed.max()) <= 1
    for share in (found.features[:, 1:], found.histogram):
        assert 0 <= float(share.min()) < float(share.max()) <= 1
    torch.testing.assert_close(found.histogram.sum(1), torch.ones(1, *SIZE))


@pytest.mark.parametrize("axis", AXES)
def test_near_half_has_the_lower_code(axis):
    """Seen near first, the codes of all axes agree on which half is near."""
    found = proposal(axis)
    for surface in (found.depth_code[0, 0], found.features[0, 0], found.histogram[0].argmax(0)):
        near, far = surface[:, : EDGE - 15], surface[:, EDGE + 15 :]
        assert float(near.median()) < float(far.median())


def test_codes_are_those_of_the_photographed_depths():
    _, code = propose(stack_of("inverse_depth_dpt"))
    found = proposal("inverse_depth_dpt")
    for depth_m, columns in ((NEAR_M, slice(0, EDGE - 15)), (FAR_M, slice(EDGE + 15, None))):
        truth = float(code.encode(torch.tensor(1 / depth_m)))
        assert float(found.depth_code[0, 0, :, columns].median()) == pytest.approx(truth, abs=0.03)
        bins = found.histogram[0, :, :, columns].mean((1, 2))
        assert int(bins.argmax()) == int((truth + 1) / 2 * HISTOGRAM_BINS)


def test_image_is_encoded_and_spans_both_signs():
    evidence = evidence_of(torch.tensor([0.5, 1.0, 2.0]), torch.ones(3))
    evidence = replace(
        evidence, all_in_focus=torch.tensor([-0.1, 0.214041, 1.2])[:, None, None].expand(3, 2, 3)
    )
    ones = torch.ones(2, 3)
    code = SurfaceCode("log", 2.0, 0.5)
    found = proposal_of(evidence, ones, ones, ones, code).all_in_focus[0, :, 0, 0]
    torch.testing.assert_close(found, torch.tensor([-1.0, 0.0, 1.0]))  # half of sRGB is 21 % light


@pytest.mark.parametrize("axis", ["inverse_depth_dpt", "position_m"])
def test_order_of_the_frames_changes_nothing(axis):
    stack, order = stack_of(axis), [3, 0, 4, 2, 1]
    focus = {
        name: values[order]
        for name in ("focus_distances_m", "focus_positions_m")
        if (values := getattr(stack, name)) is not None
    }
    shuffled, _ = propose(replace(stack, images=stack.images[order], **focus))
    for found, expected in zip(maps_of(shuffled), maps_of(proposal(axis)), strict=True):
        # Sums over the frames round differently; the deviation is the root of such a difference,
        # and a plane through two walls turns with the confidence in each.
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_a_network_can_be_trained_on_what_inference_mode_made():
    found = proposal("inverse_depth_dpt")
    layer = torch.nn.Conv2d(3 + condition_channels(8, keep_pixels=False), 2, 1)
    image = functional.avg_pool2d(found.all_in_focus, 8)
    layer(torch.cat([image, latent_condition(found, 8, keep_pixels=False)], 1)).sum().backward()
    assert layer.weight.grad is not None
    assert not any(planes.is_inference() for planes in maps_of(found))


# The latent grid


@pytest.mark.parametrize("keep_pixels", [False, True])
@pytest.mark.parametrize("factor", [2, 8])
def test_condition_has_the_channels_that_were_announced(factor, keep_pixels):
    found = latent_condition(proposal("inverse_depth_dpt"), factor, keep_pixels)
    cells = (SIZE[0] // factor, SIZE[1] // factor)
    assert found.shape == (1, condition_channels(factor, keep_pixels), *cells)
    assert -1 <= float(found.min()) < float(found.max()) <= 1


def test_a_depth_edge_inside_a_cell_stays_two_depths():
    code = SurfaceCode("log", 2.0, 0.5)
    truth = code.encode(1 / edge_scene())[None, None]
    found = replace(proposal("inverse_depth_dpt"), depth_code=truth)
    maps = 1 + len(FEATURES)
    mean, lowest, highest = latent_condition(found, 8, keep_pixels=False)[0, [0, maps, 2 * maps]]
    cell = EDGE // 8
    near, far = truth[0, 0, 0, 0], truth[0, 0, 0, -1]
    assert torch.equal(lowest[:, cell], near.expand(len(lowest)))
    assert torch.equal(highest[:, cell], far.expand(len(highest)))
    torch.testing.assert_close(mean[:, cell], ((2 * near + 6 * far) / 8).expand(len(mean)))
    # Beside the edge, a cell is one depth.
    assert torch.equal(lowest[:, cell - 1], highest[:, cell - 1])


def test_pooled_histogram_keeps_its_mass_and_both_peaks():
    found = proposal("inverse_depth_dpt")
    near, far = (torch.eye(HISTOGRAM_BINS)[index] for index in (2, 12))
    is_near = (torch.arange(SIZE[1]) < EDGE)[None, None, None]
    histogram = torch.where(is_near, near[None, :, None, None], far[None, :, None, None])
    found = replace(found, histogram=histogram.expand(1, -1, *SIZE).contiguous())
    smooth = HISTOGRAM_BINS + SURROUNDINGS
    pooled = latent_condition(found, 8, keep_pixels=False)[0, -smooth:-SURROUNDINGS]
    assert pooled[[2, 12], 0, EDGE // 8].tolist() == [0.25, 0.75]
    torch.testing.assert_close(pooled.sum(0), torch.ones(SIZE[0] // 8, SIZE[1] // 8))


def test_unshuffled_maps_lose_nothing():
    found = proposal("inverse_depth_dpt")
    maps = latent_condition(found, 4, keep_pixels=True)[:, : -HISTOGRAM_BINS - SURROUNDINGS]
    restored = functional.pixel_shuffle(maps, 4)
    assert torch.equal(restored[:, :1], found.depth_code)
    assert torch.equal(restored[:, 1:], found.features)


def test_a_batch_equals_singles():
    singles = [proposal("inverse_depth_dpt", 5), proposal("order", 9)]
    batch = latent_condition(Proposal.batched(singles), 8, keep_pixels=False)
    assert torch.equal(
        batch, torch.cat([latent_condition(one, 8, keep_pixels=False) for one in singles])
    )


def test_all_maps_change_alike():
    padded = proposal("inverse_depth_dpt").map(lambda planes: pad(planes, 64))
    assert {tuple(planes.shape[2:]) for planes in maps_of(padded)} == {(128, 128)}
