from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from focaldiffusion.depth import inverse_depth_bounds_dpt
from focaldiffusion.errors import InputError
from focaldiffusion.models.surface_code import SurfaceCode
from focaldiffusion.solve.sharpness import sweep_sharpness
from focaldiffusion.stack import FocalStack

F64 = torch.float64
STEP_M = 1e-4  # of a stage

each_kind = pytest.mark.parametrize("kind", ["log", "inverse"])


def code_of(blur_scale_px_m: float | None = None, **focus: torch.Tensor) -> SurfaceCode:
    """The code of a stack of noise."""
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    stack = FocalStack(images, **focus)
    return SurfaceCode.from_stack(stack, sweep_sharpness(stack), blur_scale_px_m)


@given(
    kind=st.sampled_from(["log", "inverse", "linear"]),
    near=st.floats(0.1, 100),
    ratio=st.floats(1.5, 200),
    share=st.floats(0, 1),
)
def test_round_trip(kind, near, ratio, share):
    far = near / ratio
    code = SurfaceCode(kind, near, far)
    coordinate = torch.tensor(near + share * (far - near), dtype=F64)
    found = code.encode(coordinate)
    assert -1 <= found.item() <= 1
    assert code.decode(found).item() == pytest.approx(coordinate.item(), rel=1e-9)


@each_kind
def test_codes_run_from_near_to_far_and_stop_at_the_bounds(kind):
    code = SurfaceCode(kind, 2.0, 0.125)
    found = code.encode(1 / torch.tensor([0.1, 0.5, 1.0, 3.0, 8.0, 20.0, math.inf], dtype=F64))
    assert found[[0, 1, 4, 5, 6]].tolist() == pytest.approx([-1, -1, 1, 1, 1])
    assert (found[1:5].diff() > 0).all()
    assert code.decode(torch.tensor([-1.7, 1.7], dtype=F64)).tolist() == pytest.approx([2, 0.125])
    assert code.encode(torch.tensor(math.nan)).isnan()


def test_codes_by_hand():
    # log: 2 m is the middle of 0.5 m to 8 m. inverse: the middle of 2 and 0.125 dpt is 1.0625 dpt.
    for kind, middle in (("log", 0.5), ("inverse", 1.0625)):
        found = SurfaceCode(kind, 2.0, 0.125).encode(torch.tensor(middle, dtype=F64))
        assert found.item() == pytest.approx(0, abs=1e-12)


@each_kind
def test_gradients(kind):
    code = SurfaceCode(kind, 2.0, 0.125)
    coordinate = torch.tensor([1.6, 0.8, 0.15], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(code.encode, (coordinate,))
    coded = torch.tensor([-0.9, 0.1, 0.8], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(code.decode, (coded,))


@each_kind
def test_beyond_the_bounds_is_exactly_at_them(kind):
    # A surface there is kept where the network agrees: a code of 0.99999 would bring it nearer.
    for far_m in torch.linspace(3, 9, 200).tolist():
        code = SurfaceCode(kind, 1 / 0.51, 1 / far_m)
        assert code.encode(torch.tensor([5.0, 1e-3, 0.0])).tolist() == [-1, 1, 1]


@each_kind
def test_infinity_has_the_code_of_the_far_bound(kind):
    code = SurfaceCode(kind, 2.5, 0.02)
    # Completion may overshoot 0 dpt by a rounding, and there is nothing beyond infinity.
    assert code.encode(torch.tensor([0.0, -1e-7, 0.02])).tolist() == pytest.approx([1, 1, 1])
    assert float(code.decode(torch.tensor(1.0))) == pytest.approx(0.02)


def test_inverse_code_reaches_infinity_and_back():
    code = SurfaceCode("inverse", 2.0, 0.0)
    dioptres = torch.tensor([0.0, 0.5, 2.0])
    assert code.encode(dioptres).tolist() == [1.0, 0.5, -1.0]
    assert code.decode(code.encode(dioptres)).tolist() == [0.0, 0.5, 2.0]


# The bounds


def test_focus_and_blur_bound_the_code():
    focus_m = torch.tensor([0.5, 2.0, math.inf])
    code = code_of(12.5, focus_distances_m=focus_m)
    far, near = inverse_depth_bounds_dpt(1 / focus_m, 12.5)
    assert (code.kind, code.near, code.far) == ("log", near, far)
    # Linear in log z: the geometric mean of two depths lies in the middle of their codes.
    first, middle, last = code.encode(torch.tensor([0.5, math.sqrt(0.5 * 2.0), 2.0])).tolist()
    assert middle == pytest.approx((first + last) / 2)


def test_without_a_lens_depth_is_coded_between_the_hypotheses():
    code = code_of(focus_distances_m=torch.tensor([0.5, 1.0, math.inf]))
    # Hypotheses lie at 0, 0.25, 0.5, ... 2 dpt: the farthest short of infinity bounds the code.
    assert (code.near, code.far) == (2.0, 0.25)
    assert code.encode(torch.tensor([0.0, 0.25, 2.0])).tolist() == [1.0, 1.0, -1.0]


def test_highest_stage_position_is_near():
    code = code_of(focus_positions_m=torch.tensor([0.0, -0.75, -1.5]) * STEP_M)
    # From the first position down to 150 µm below it.
    positions_m = torch.tensor([0.0, -0.75, -1.5]) * STEP_M
    torch.testing.assert_close(code.encode(positions_m), torch.tensor([-1.0, 0.0, 1.0]))
    torch.testing.assert_close(code.decode(code.encode(positions_m)), positions_m)


def test_first_frame_of_an_unknown_order_is_near():
    code = code_of()
    order = torch.tensor([-0.1, 0.0, 0.25, 1.0, 1.1])
    assert code.encode(order).tolist() == [-1, -1, -0.5, 1, 1]
    assert code.decode(torch.tensor([-2.0, -0.5, 2.0])).tolist() == [0, 0.25, 1]


@pytest.mark.parametrize(
    ("kind", "near", "far"),
    [
        ("log", 2.0, 2.0),
        ("log", 0.5, 2.0),
        ("log", 2.0, 0.0),
        ("inverse", 2.0, -0.1),
        ("linear", 1.0, 1.0),
    ],
)
def test_bounds_that_make_no_code(kind, near, far):
    with pytest.raises(ValueError, match=f"no {kind} code from {near} .near. to {far}"):
        SurfaceCode(kind, near, far)


def test_an_unknown_kind():
    with pytest.raises(InputError, match="'lin' is unknown; expected log, inverse, linear"):
        SurfaceCode("lin", 2.0, 1.0)  # type: ignore[arg-type]


# Around a surface


@each_kind
def test_a_code_around_a_surface_is_of_its_spread(kind):
    whole = SurfaceCode(kind, 10.0, 0.01 if kind == "log" else 0.0)
    surface = torch.linspace(0.9, 1.1, 4000).reshape(50, 80)
    ones = torch.ones_like(surface)
    code = whole.around(surface, ones)
    codes = whole.encode(surface)
    # A fiftieth of the weight is a uniform prior, of variance 1/3.
    mean = codes.mean() / 1.02
    square = (codes.square().mean() + 0.02 / 3) / 1.02
    std = (square - mean.square()).sqrt()
    for side, bound in ((-1.0, mean - 2.5 * std), (1.0, mean + 2.5 * std)):
        expected = whole.decode(bound.clamp(-1, 1))
        torch.testing.assert_close(code.decode(torch.tensor(side)), expected, rtol=1e-4, atol=0)
    # Untrusted pixels have no weight, and without trust the range stays.
    outlier = surface.index_fill(0, torch.tensor([0]), 0.05)
    trust = ones.index_fill(0, torch.tensor([0]), 0.0)
    assert whole.around(outlier, trust).near == pytest.approx(code.near, rel=2e-2)
    nothing = whole.around(surface, torch.zeros_like(surface))
    assert (nothing.near, nothing.far) == pytest.approx((whole.near, whole.far), rel=1e-5)


def test_a_code_around_a_surface_means_the_same_for_any_bracket():
    surface = torch.exp(torch.linspace(-0.2, 0.2, 4000)).reshape(50, 80)
    ones = torch.ones_like(surface)
    narrow, wide = (
        SurfaceCode("log", reach, 1 / reach).around(surface, ones) for reach in (4.0, 6.0)
    )
    assert (narrow.encode(surface) - wide.encode(surface)).abs().max() < 0.25
