"""Shapes, textures and shadows of procedural scenes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from focaldiffusion.data.procedural.rays import Rays
from focaldiffusion.data.procedural.rendering import Lighting, cast, picture
from focaldiffusion.data.procedural.shapes import (
    Body,
    Box,
    Card,
    Cylinder,
    Ellipsoid,
    Form,
    Plane,
    Relief,
)
from focaldiffusion.data.procedural.textures import Material, Texture

RAYS = Rays.of_image((96, 128), 1 / 120)
WHITE = Material(Texture(torch.ones(3, 1, 1)))
# Turned about two axes; the rows are orthonormal.
TURNED = ((0.8, 0.0, 0.6), (0.36, 0.8, -0.48), (-0.48, 0.6, 0.64))
STRAIGHT = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def body(form: Form, centre=(0.1, -0.05, 2.0), axes=TURNED, half=(0.5, 0.4, 0.3)) -> Body:
    return Body(form, centre, axes, half, WHITE, texel_m=0.01)


# Depth: against loops in double precision


def entry_by_search(one: Body, rays: np.ndarray) -> np.ndarray:
    """The depth (P,) at which rays (P, 3) first are within a body, infinite where never."""
    axes, centre, half = (np.array(value) for value in (one.axes, one.centre_m, one.half_m))

    def outside(depth: np.ndarray) -> np.ndarray:
        x, y, z = np.moveaxis((depth[..., None] * rays[:, None] - centre) @ axes.T / half, -1, 0)
        if isinstance(one.form, Box):
            return np.maximum(np.maximum(abs(x), abs(y)), abs(z)) > 1
        if isinstance(one.form, Cylinder):
            return (x * x + z * z > 1) | (abs(y) > 1)
        return x * x + y * y + z * z > 1

    steps = np.linspace(1.0, 3.0, 1001)
    is_in = ~outside(np.broadcast_to(steps, (len(rays), len(steps))))
    high = steps[is_in.argmax(1)]
    low = high - (steps[1] - steps[0])
    for _ in range(40):
        middle = (low + high) / 2
        is_before = outside(middle[:, None])[:, 0]
        low, high = np.where(is_before, middle, low), np.where(is_before, high, middle)
    return np.where(is_in.any(1), high, np.inf)


@pytest.mark.parametrize("form", [Box(), Ellipsoid(), Cylinder()])
def test_the_depth_of_solids_is_that_of_the_ray_through_the_pixel_centre(form):
    one = body(form)
    depth_m, _ = cast([one], RAYS)
    rows, columns = np.mgrid[0:96:4, 0:128:4].reshape(2, -1)
    x, y = (columns + 0.5 - 64) / 120, (rows + 0.5 - 48) / 120
    expected = entry_by_search(one, np.stack([x, y, np.ones_like(x)], 1))
    found = depth_m.double().numpy()[rows, columns]
    hit = np.isfinite(expected)
    assert 80 < hit.sum() < 400
    # The search may step over an edge that is thinner than its steps.
    assert (np.isfinite(found) & ~hit).sum() <= 2
    np.testing.assert_allclose(found[hit], expected[hit], rtol=2e-6)


def test_small_far_spheres_keep_their_roundness():
    ball = body(Ellipsoid(), (0.0, 0.0, 60.0), STRAIGHT, (0.6, 0.6, 0.6))
    depth_m, _ = cast([ball], Rays.of_image((9, 9), 0.0015))
    x = (np.arange(9) - 4.0) * 0.0015
    length_squared = 1 + x**2 + x[:, None] ** 2
    expected = (60 - np.sqrt(3600 - length_squared * (3600 - 0.36))) / length_squared
    # A ten-thousandth of the radius.
    np.testing.assert_allclose(depth_m.double().numpy(), expected, rtol=1e-6)


def test_depth_is_planar_not_along_the_ray():
    straight = body(Plane(), (0.0, 0.0, 2.0), STRAIGHT, (math.inf, math.inf, 0.0))
    depth_m, _ = cast([straight], RAYS)
    assert torch.equal(depth_m, torch.full_like(depth_m, 2.0))


@pytest.mark.parametrize("form", [Plane(), Card()])
def test_slanted_planes_have_linear_inverse_depth(form):
    half = (math.inf, math.inf, 0.0) if isinstance(form, Plane) else (9.0, 9.0, 0.0)
    slanted = body(form, half=half)
    depth_m, _ = cast([slanted], RAYS)
    normal, centre = np.array(slanted.axes[2]), np.array(slanted.centre_m)
    x, y = (slope.double().numpy() for slope in RAYS.slopes)
    inverse = (normal[0] * x + normal[1] * y + normal[2]) / (normal @ centre)
    seen = torch.isfinite(depth_m).numpy()
    assert seen.mean() > 0.9
    np.testing.assert_allclose(1 / depth_m.double().numpy()[seen], inverse[seen], rtol=1e-5)


def test_relief_is_the_plane_scaled_by_its_heights():
    height = torch.rand(16, 16, generator=torch.Generator().manual_seed(0)) * 0.1
    relief = body(
        Relief((0.2, 0.3, 0.5), height, (128 / 240, 96 / 240)),
        (0.0, 0.0, 0.0),
        STRAIGHT,
        (math.inf,) * 3,
    )
    depth_m, _ = cast([relief], RAYS)
    heights = functional.interpolate(
        height[None, None].double(), size=(96, 128), mode="bicubic", align_corners=False
    )[0, 0]
    x, y = RAYS.slopes
    expected = 1 / ((0.2 * x + 0.3 * y + 0.5) * (1 + heights))
    torch.testing.assert_close(depth_m.double(), expected, rtol=1e-5, atol=0)


def test_a_cut_card_shows_what_is_behind_its_holes():
    ring = torch.tensor([[1.0, 1, 1, 1], [1, -1, -1, 1], [1, -1, -1, 1], [1, 1, 1, 1]])
    card = body(Card(ring), (0.0, 0.0, 1.0), STRAIGHT, (0.4, 0.4, 0.0))
    wall = body(Plane(), (0.0, 0.0, 2.0), STRAIGHT, (math.inf, math.inf, 0.0))
    depth_m, owner = cast([card, wall], RAYS)
    assert depth_m[48, 64] == 2.0  # through the hole
    assert depth_m[48, 64 + 40] == 1.0  # the rim
    assert depth_m[48, 64 + 55] == 2.0  # beside the card
    assert (owner == (depth_m == 2.0)).all()


def test_edges_are_smooth_in_the_picture_and_sharp_in_depth():
    black = Material(Texture(torch.zeros(3, 1, 1)))
    bodies = [
        Body(Card(), (0.0, 0.0, 1.0), TURNED, (0.3, 0.3, 0.0), WHITE, 0.01, False),
        Body(Plane(), (0.0, 0.0, 2.0), STRAIGHT, (math.inf, math.inf, 0.0), black, 0.01, False),
    ]
    light, depth_m = picture(bodies, RAYS, lit_evenly())
    _, owner = cast(bodies, RAYS)
    assert torch.equal(depth_m == 2.0, owner == 1)
    inner = light[0][owner == 0].max()
    mixed = (light[0] > 0.1 * inner) & (light[0] < 0.9 * inner)
    assert 50 < mixed.sum() < 400  # a line about the card
    shares = (light[0][mixed] / inner * 5).double()
    assert (shares - shares.round()).abs().max() < 0.05  # of five rays


def test_a_body_throws_its_shadow_away_from_the_lamp():
    ball = body(Ellipsoid(), (0.0, 0.0, 1.5), STRAIGHT, (0.1, 0.1, 0.1))
    wall = Body(Plane(), (0.0, 0.0, 2.0), STRAIGHT, (math.inf, math.inf, 0.0), WHITE, 0.01, False)
    lighting = replace(lit_evenly(), towards=(-0.6, 0.0, -0.8), colour=(1.0, 1.0, 1.0))
    light, _ = picture([ball, wall], RAYS, lighting)
    lit = light[0, 48, 20]
    # Half a metre behind the ball, the shadow is 0.375 m to the right: 22.5 px.
    assert light[0, 48, 64 + 22] < lit - 0.7
    assert light[0, 48, 64 - 22] == lit
    assert light[0, 48, 64] > 0.8  # the ball itself, seen and lit from its left
    assert light[0, 48, 64 - 7] > light[0, 48, 64 + 7] + 0.2


def lit_evenly() -> Lighting:
    return Lighting(
        towards=(0.0, 0.0, -1.0),
        colour=(0.0, 0.0, 0.0),
        ambient=(1.0, 1.0, 1.0),
        up=(0.0, -1.0, 0.0),
        softness=0.1,
        lamp_m=(0.0, 0.0, 0.0),
        lamp_colour=(0.0, 0.0, 0.0),
        lamp_reach_m=1.0,
        corner_m=0.0,
        stencil=None,
        stencil_m=1.0,
    )


# Textures


def test_textures_are_averaged_over_what_a_pixel_sees():
    checks = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2).float()
    texture = Texture(checks.expand(3, -1, -1).contiguous())
    at = torch.full((5,), 20.5)
    near = texture.sample(at, at, torch.ones(5))
    far = texture.sample(at, at, torch.tensor([4.0, 8.0, 2.0, 16.0, 30.0]))
    assert torch.equal(near[0], checks[20, 20].expand(5))
    torch.testing.assert_close(far, torch.full((3, 5), 0.5))


def test_textures_are_mirrored_without_end():
    ramp = torch.linspace(0, 1, 32).expand(3, 32, 32).contiguous()
    u = torch.tensor([4.5, -4.5, 64 + 4.5, 64 - 4.5])
    colours = Texture(ramp).sample(u, torch.full((4,), 7.5), torch.ones(4))
    torch.testing.assert_close(colours[0], ramp[0, 0, 4].expand(4))
