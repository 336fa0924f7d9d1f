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

from focaldiffusion.depth import DepthCodec
from focaldiffusion.evidence import Evidence
from focaldiffusion.models.codecs import pad
from focaldiffusion.models.conditioning import (
    FEATURES,
    HISTOGRAM_BINS,
    SURROUNDINGS,
    Proposal,
    SurfaceCode,
    condition_channels,
    latent_condition,
    proposal_of,
)
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
        trust = confidence(evidence, completion, None)
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


# The code of a surface


def test_metric_code_is_the_depth_codec_of_the_stack():
    stack = stack_of("inverse_depth_dpt")
    _, code = propose(stack)
    codec = DepthCodec.from_stack(stack, BLUR_SCALE_PX_M)
    dioptres = torch.tensor([0.4, 0.7, 1.1, 2.2])
    torch.testing.assert_close(code.encode(dioptres), codec.encode(1 / dioptres))
    torch.testing.assert_close(code.decode(code.encode(dioptres)), dioptres)
    # Linear in log z: the geometric mean of two depths lies in the middle of their codes.
    first, middle, last = code.encode(torch.tensor([0.5, math.sqrt(0.5 * 2.0), 2.0])).tolist()
    assert middle == pytest.approx((first + last) / 2)


@pytest.mark.parametrize("kind", ["log", "inverse"])
def test_beyond_the_bounds_is_exactly_at_them(kind):
    # What lies there is kept where the network agrees: a code of 0.99999 would bring it nearer.
    for far_m in torch.linspace(3, 9, 200).tolist():
        code = SurfaceCode.of_depth(DepthCodec(kind, 0.51, far_m))
        assert code.encode(torch.tensor([5.0, 1e-3, 0.0])).tolist() == [-1, 1, 1]


@pytest.mark.parametrize("kind", ["log", "inverse"])
def test_infinity_has_the_code_of_the_far_bound(kind):
    code = SurfaceCode.of_depth(DepthCodec(kind, 0.4, 50.0))
    # Completion may overshoot 0 dpt by a rounding, and there is nothing beyond infinity.
    assert code.encode(torch.tensor([0.0, -1e-7, 0.02])).tolist() == pytest.approx([1, 1, 1])
    assert float(code.decode(torch.tensor(1.0))) == pytest.approx(0.02)


def test_inverse_code_reaches_infinity_and_back():
    code = SurfaceCode.of_depth(DepthCodec("inverse", 0.5, math.inf))
    dioptres = torch.tensor([0.0, 0.5, 2.0])
    assert code.encode(dioptres).tolist() == [1.0, 0.5, -1.0]
    assert code.decode(code.encode(dioptres)).tolist() == [0.0, 0.5, 2.0]


def test_without_a_lens_depth_is_coded_between_the_hypotheses():
    stack = FocalStack(
        torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)),
        focus_distances_m=torch.tensor([0.5, 1.0, math.inf]),
    )
    evidence = sweep_sharpness(stack)
    code = SurfaceCode.from_stack(stack, evidence, None)
    # Hypotheses lie at 0, 0.25, 0.5, ... 2 dpt: the farthest short of infinity bounds the code.
    assert (code.near, code.far) == (2.0, 0.25)
    assert code.encode(torch.tensor([0.0, 0.25, 2.0])).tolist() == [1.0, 1.0, -1.0]


@pytest.mark.parametrize("kind", ["log", "inverse"])
def test_a_code_around_a_surface_is_of_its_spread(kind):
    far_m = 100.0 if kind == "log" else math.inf
    whole = SurfaceCode.of_depth(DepthCodec(kind, 0.1, far_m))
    surface = torch.linspace(0.9, 1.1, 4000).reshape(50, 80)
    ones = torch.ones_like(surface)
    code = whole.around(surface, ones)
    codes = whole.encode(surface)
    # A fiftieth of the weight says that it may be anywhere, with a variance of a third.
    mean = codes.mean() / 1.02
    square = (codes.square().mean() + 0.02 / 3) / 1.02
    std = (square - mean.square()).sqrt()
    for side, bound in ((-1.0, mean - 2.5 * std), (1.0, mean + 2.5 * std)):
        expected = whole.decode(bound.clamp(-1, 1))
        torch.testing.assert_close(code.decode(torch.tensor(side)), expected, rtol=1e-4, atol=0)
    # What is not trusted has no say, and nothing trusted leaves the range as it was.
    outlier = surface.index_fill(0, torch.tensor([0]), 0.05)
    trust = ones.index_fill(0, torch.tensor([0]), 0.0)
    assert whole.around(outlier, trust).near == pytest.approx(code.near, rel=2e-2)
    nothing = whole.around(surface, torch.zeros_like(surface))
    assert (nothing.near, nothing.far) == pytest.approx((whole.near, whole.far), rel=1e-5)


def test_a_code_around_a_surface_means_the_same_for_any_bracket():
    surface = torch.exp(torch.linspace(-0.2, 0.2, 4000)).reshape(50, 80)
    ones = torch.ones_like(surface)
    narrow, wide = (
        SurfaceCode.of_depth(DepthCodec("log", 1 / reach, reach)).around(surface, ones)
        for reach in (4.0, 6.0)
    )
    assert (narrow.encode(surface) - wide.encode(surface)).abs().max() < 0.25


def test_highest_stage_position_is_near():
    _, code = propose(stack_of("position_m"))
    # From the first position, 2 dpt, down to 0.5 dpt: 150 µm.
    positions_m = torch.tensor([0.0, -0.75, -1.5]) * STEP_M
    torch.testing.assert_close(code.encode(positions_m), torch.tensor([-1.0, 0.0, 1.0]))
    torch.testing.assert_close(code.decode(code.encode(positions_m)), positions_m)


def test_first_frame_of_an_unknown_order_is_near():
    _, code = propose(stack_of("order"))
    order = torch.tensor([-0.1, 0.0, 0.25, 1.0, 1.1])
    assert code.encode(order).tolist() == [-1, -1, -0.5, 1, 1]
    assert code.decode(torch.tensor([-2.0, -0.5, 2.0])).tolist() == [0, 0.25, 1]


# The posterior


@given(
    steps=st.lists(st.floats(0.02, 1.0), min_size=5, max_size=60),
    kind=st.sampled_from(["log", "inverse"]),
)
def test_where_defocus_says_nothing_no_spacing_of_hypotheses_shows(steps, kind):
    spacing = torch.tensor([0.2, *steps], dtype=torch.float64).cumsum(0)
    code = SurfaceCode.of_depth(DepthCodec(kind, 1 / float(spacing[-1]), 5.0))
    histogram, features = posterior_maps(evidence_of(spacing, torch.ones(len(spacing))), code)
    # Cells narrower than a 512th of the range are widened to it.
    flat = torch.full((HISTOGRAM_BINS,), 1 / HISTOGRAM_BINS, dtype=histogram.dtype)
    torch.testing.assert_close(histogram, flat, rtol=0.05, atol=0)
    assert features["posterior_entropy"] == pytest.approx(1, abs=1e-3)
    assert features["posterior_mean"] == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("count", [40, 80, 173])
def test_histogram_is_that_of_the_density_for_any_number_of_hypotheses(count):
    code = SurfaceCode(near=1.0, far=0.0)
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
    # Codes -1, -0.3, 0.4, 1 whose cells end at -0.65, 0.05 and 0.7. The second reaches from bin
    # 2 (-0.75 to -0.625), of which it covers 0.025, over five whole bins of 0.125 to bin 8 (0 to
    # 0.125), of which it covers 0.05.
    code = SurfaceCode(near=-1.0, far=1.0)
    hypotheses = torch.tensor([-1.0, -0.3, 0.4, 1.0])
    histogram, features = posterior_maps(
        evidence_of(hypotheses, torch.tensor([0.0, 1.0, 0.0, 0.0]), "order"), code
    )
    expected = torch.tensor([0, 0, 0.025, *[0.125] * 5, 0.05, *[0] * 7]) / 0.7
    torch.testing.assert_close(histogram, expected)
    assert features["posterior_mean"] == pytest.approx(-0.3)
    assert features["posterior_std"] == pytest.approx(0, abs=1e-3)


def test_a_posterior_at_infinity_is_heard():
    # Of 0, 0.01, 0.3, ... 2 dpt, the first two lie at or beyond the far bound of the code.
    hypotheses = torch.tensor([0.0, 0.01, 0.3, 0.6, 1.0, 1.4, 2.0])
    code = SurfaceCode.of_depth(DepthCodec("log", 0.5, 100.0))
    posterior = torch.tensor([1.0, 1e-6, 1e-6, 1e-6, 1e-6, 1e-6, 1e-6])
    histogram, features = posterior_maps(evidence_of(hypotheses, posterior), code)
    assert float(histogram[-1]) > 0.999
    assert features["posterior_mean"] == pytest.approx(1, abs=1e-3)


def test_of_two_surfaces_the_histogram_keeps_both():
    code = SurfaceCode(near=0.0, far=1.0)
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
    code = SurfaceCode.of_depth(DepthCodec("log", 0.5, 2.0))
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
    layer = torch.nn.Conv2d(3 + condition_channels(8, "extremes"), 2, 1)
    image = functional.avg_pool2d(found.all_in_focus, 8)
    layer(torch.cat([image, latent_condition(found, 8, "extremes")], 1)).sum().backward()
    assert layer.weight.grad is not None
    assert not any(planes.is_inference() for planes in maps_of(found))


# The latent grid


@pytest.mark.parametrize("pooling", ["extremes", "unshuffled"])
@pytest.mark.parametrize("factor", [2, 8])
def test_condition_has_the_channels_that_were_announced(factor, pooling):
    found = latent_condition(proposal("inverse_depth_dpt"), factor, pooling)
    cells = (SIZE[0] // factor, SIZE[1] // factor)
    assert found.shape == (1, condition_channels(factor, pooling), *cells)
    assert -1 <= float(found.min()) < float(found.max()) <= 1


def test_a_depth_edge_inside_a_cell_stays_two_depths():
    code = SurfaceCode.of_depth(DepthCodec("log", 0.5, 2.0))
    truth = code.encode(1 / edge_scene())[None, None]
    found = replace(proposal("inverse_depth_dpt"), depth_code=truth)
    maps = 1 + len(FEATURES)
    mean, lowest, highest = latent_condition(found, 8, "extremes")[0, [0, maps, 2 * maps]]
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
    pooled = latent_condition(found, 8, "extremes")[0, -smooth:-SURROUNDINGS]
    assert pooled[[2, 12], 0, EDGE // 8].tolist() == [0.25, 0.75]
    torch.testing.assert_close(pooled.sum(0), torch.ones(SIZE[0] // 8, SIZE[1] // 8))


def test_unshuffled_maps_lose_nothing():
    found = proposal("inverse_depth_dpt")
    maps = latent_condition(found, 4, "unshuffled")[:, : -HISTOGRAM_BINS - SURROUNDINGS]
    restored = functional.pixel_shuffle(maps, 4)
    assert torch.equal(restored[:, :1], found.depth_code)
    assert torch.equal(restored[:, 1:], found.features)


def test_a_batch_equals_singles():
    singles = [proposal("inverse_depth_dpt", 5), proposal("order", 9)]
    batch = latent_condition(Proposal.batched(singles), 8, "extremes")
    assert torch.equal(batch, torch.cat([latent_condition(one, 8, "extremes") for one in singles]))


def test_all_maps_change_alike():
    padded = proposal("inverse_depth_dpt").map(lambda planes: pad(planes, 64))
    assert {tuple(planes.shape[2:]) for planes in maps_of(padded)} == {(128, 128)}
