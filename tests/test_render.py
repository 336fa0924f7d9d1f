from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TOLERANCE
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reference import render as reference
from reference.psf import disc_integral
from torch import Tensor

from focaldiffusion.optics import blur_radius_px, linear_to_srgb, srgb_to_linear
from focaldiffusion.psf import PSF, blur
from focaldiffusion.simulation.render import (
    SILHOUETTE_PX,
    layer_planes,
    render,
    split_mixed_pixels,
)

F64 = torch.float64
DISC = PSF()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def two_planes(near_dpt: float, far_dpt: float, height: int = 40, width: int = 80) -> Tensor:
    """Inverse depth of a near half-plane that hides the left half of a far one."""
    left = torch.arange(width) < width // 2
    return torch.where(left, near_dpt, far_dpt).to(F64).expand(height, width)


# --- against loops over pixels in float64


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("surface", ["steps", "slope", "noise"])
def test_matches_the_loops(seed, surface):
    image = random(3, 6, 6, seed=seed)
    depths = {
        "steps": two_planes(2.0, 0.5, 6, 6).clone(),
        "slope": torch.linspace(0.5, 2.0, 6, dtype=F64).expand(6, 6),
        "noise": 0.5 + 1.5 * random(6, 6, seed=seed + 10),
    }
    inverse_depth = depths[surface]
    focus, blur_scale, max_layers = torch.tensor([0.5, 1.1, 3.0], dtype=F64), 3.0, 5
    found = render(image, inverse_depth, focus, blur_scale, DISC, max_layers=max_layers)
    planes = layer_planes(inverse_depth, focus, blur_scale, max_layers).tolist()
    for frame, distance in zip(found, focus.tolist(), strict=True):
        expected = reference.render(
            image.numpy(),
            inverse_depth.numpy(),
            distance,
            blur_scale,
            planes,
            jump=SILHOUETTE_PX / blur_scale,
            trusted=0.02,
        )
        # torch's float64 Bessel function is exact to 5e-7 only, scipy's to 1e-15.
        torch.testing.assert_close(frame, torch.from_numpy(expected), rtol=0, atol=1e-6)


def test_float32_matches_float64():
    image, depth = random(3, 30, 41), 0.3 + 2 * random(30, 41, seed=1)
    focus = torch.tensor([0.3, 1.0])
    exact = render(image, depth, focus.double(), 8.0, DISC)
    found = render(image.float(), depth.float(), focus, 8.0, DISC)
    assert found.dtype == torch.float32
    # The division by a coverage of 0.02 magnifies the rounding of the transforms fifty times.
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=5e-4)


# --- closed forms


@pytest.mark.parametrize("depth", ["plane", "slope", "steps", "noise"])
def test_a_constant_image_stays_constant(depth):
    depths = {
        "plane": torch.full((31, 45), 1.3),
        "slope": torch.linspace(0, 4, 45).expand(31, 45),
        "steps": two_planes(4.0, 0.0, 31, 45).float(),
        "noise": 4 * torch.rand(31, 45, generator=torch.Generator().manual_seed(0)),
    }
    image = torch.tensor([0.2, 0.5, 0.9])[:, None, None].expand(3, 31, 45)
    frames = render(image, depths[depth], torch.tensor([0.0, 1.3, 4.0, 9.0]), 9.0, DISC)
    torch.testing.assert_close(frames, image.expand(4, -1, -1, -1), **TOLERANCE[torch.float32])


@pytest.mark.parametrize("distance", [0.0, 1.0, 3.0])
def test_a_frontal_plane_is_convolved(distance):
    image = random(3, 24, 33)
    depth = torch.full((24, 33), 1.0, dtype=F64)
    frame = render(image, depth, torch.tensor([distance], dtype=F64), 6.0, DISC)[0]
    expected = blur(image, 3 * abs(distance - 1), DISC)
    torch.testing.assert_close(frame, expected.clamp_min(0), **TOLERANCE[F64])


def test_what_is_in_focus_is_untouched():
    image, depth = random(3, 40, 80), two_planes(2.0, 0.5)
    near, far = render(image, depth, torch.tensor([2.0, 0.5], dtype=F64), 8.0, DISC)
    # The pixel on each side of the silhouette may be mixed; the near plane's blur reaches 6 px.
    torch.testing.assert_close(near[..., :39], image[..., :39], **TOLERANCE[F64])
    torch.testing.assert_close(far[..., 50:], image[..., 50:], rtol=0, atol=2e-3)


def test_focus_planes_between_the_depths_are_exactly_sharp_too():
    depth = torch.linspace(0, 4, 64, dtype=F64).expand(16, 64).clone()
    depth[:8] = 1.2345
    image = random(3, 16, 64)
    frame = render(image, depth, torch.tensor([1.2345], dtype=F64), 3.0, DISC)[0]
    torch.testing.assert_close(frame[:, :2, :10], image[:, :2, :10], rtol=0, atol=1e-2)
    planes = layer_planes(depth, torch.tensor([1.2345], dtype=F64), 3.0, 32)
    assert 1.2345 in planes.tolist()


def test_a_defocused_edge_in_front_follows_the_integral_of_the_disc():
    # White in front of black, focused on the black: the edge is translucent on both sides, and
    # the black behind it, seen by no pixel on the left, is continued.
    depth = two_planes(2.0, 0.5)
    image = (depth > 1).to(F64).expand(3, 40, 80)
    frame = render(image, depth, torch.tensor([0.5], dtype=F64), 8.0, DISC)[0]
    expected = [disc_integral(40 - (x + 0.5), 6.0) for x in range(80)]
    assert frame[0, 20].tolist() == pytest.approx(expected, abs=0.01)


def test_a_defocused_background_does_not_bleed_over_an_edge_in_focus():
    depth = two_planes(2.0, 0.5)
    image = torch.where(depth > 1, 0.1, 0.9).to(F64).expand(3, 40, 80)
    frame = render(image, depth, torch.tensor([2.0], dtype=F64), 8.0, DISC)[0]
    torch.testing.assert_close(frame, image, rtol=0, atol=1e-3)
    # Blurring the whole image at each pixel's own radius mixes the two.
    assert (blur(image, 6.0, DISC) - image)[..., 40:].abs().max() > 0.3


def test_a_thin_rod_in_front_is_as_blurred_as_it_should_be():
    depth = torch.full((40, 80), 0.5, dtype=F64)
    depth[:, 39:42] = 2.0
    rod = (depth > 1).to(F64)
    image = (0.2 + 0.7 * rod).expand(3, 40, 80)
    frame = render(image, depth, torch.tensor([0.5], dtype=F64), 8.0, DISC)[0]
    torch.testing.assert_close(
        frame, (0.2 + 0.7 * blur(rod, 6.0, DISC)).expand_as(frame), rtol=0, atol=5e-3
    )


def test_a_slanted_plane_has_no_cracks():
    # 12 px of blur diameter across the image, in focus in its middle, in 32 layers; the waves are
    # vertical, so that each row is a frontal plane to within its own reach.
    height, width = 96, 64
    depth = torch.linspace(0.5, 3.5, height, dtype=F64)[:, None].expand(height, width)
    waves = 0.5 + 0.4 * torch.sin(2 * torch.pi * torch.arange(width, dtype=F64) / 8)
    image = waves.expand(3, height, width)
    frame = render(image, depth, torch.tensor([2.0], dtype=F64), 4.0, DISC)[0]
    radii = blur_radius_px(depth[:, 0], torch.tensor(2.0, dtype=F64), 4.0)
    expected = torch.stack([blur(image[:, :1], float(r), DISC)[:, 0] for r in radii], dim=1)
    # A row borrows light from rows whose radius differs by up to 0.4 px.
    torch.testing.assert_close(frame, expected, rtol=0, atol=0.03)


# --- laws


@given(order=st.permutations(range(4)), seed=st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_the_order_of_the_frames_changes_nothing(order, seed):
    image, depth = random(3, 12, 14, seed=seed), 2 * random(12, 14, seed=seed + 1)
    focus = torch.tensor([0.2, 0.9, 1.4, 5.0], dtype=F64)
    frames = render(image, depth, focus, 5.0, DISC)
    permuted = render(image, depth, focus[order], 5.0, DISC)
    torch.testing.assert_close(permuted, frames[order], **TOLERANCE[F64])


@given(
    seed=st.integers(0, 99),
    size=st.tuples(st.sampled_from([8, 14]), st.sampled_from([10, 20])),
    axes=st.sampled_from([(-1,), (-2,), (-1, -2)]),
)
@settings(max_examples=8, deadline=None)
def test_flips_commute_with_rendering(seed, size, axes):
    image, depth = random(3, *size, seed=seed), 2 * random(*size, seed=seed + 1)
    focus = torch.tensor([0.4, 1.7], dtype=F64)
    frames = render(image, depth, focus, 5.0, DISC)
    flipped = render(image.flip(*axes), depth.flip(*axes), focus, 5.0, DISC).flip(*axes)
    torch.testing.assert_close(flipped, frames, **TOLERANCE[F64])


def test_half_the_pixels_and_focal_length_show_half_the_blur():
    coarse = 0.3 + 0.4 * random(1, 3, 12, 20)
    fine = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bicubic")[0]
    depth = two_planes(2.0, 0.5, 96, 160)
    focus = torch.tensor([0.5, 1.0, 2.0], dtype=F64)

    def halved(images: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(images, 2)

    large = halved(render(fine, depth, focus, 8.0, DISC))
    small = render(halved(fine), halved(depth[None])[0], focus, 4.0, DISC)
    difference = (large - small).abs()
    # The texture has no detail that halving would lose, but the rim of a silhouette is two pixels
    # wide at either size, and what is hidden behind it is a guess.
    assert difference.mean() < 1e-3
    assert difference[..., :36].max() < 0.01
    assert difference[..., 44:].max() < 0.01


# --- layers and silhouettes


def test_layers_are_a_pixel_of_blur_apart_and_only_where_the_scene_is():
    gap = torch.cat([torch.linspace(0, 1, 50), torch.linspace(9, 10, 50)]).reshape(10, 10)
    planes = layer_planes(gap, torch.tensor([0.5]), 4.0, 32)
    assert planes[0] == 10
    assert planes[-1] == 0
    # 40 cells of a quarter dioptre, of which 5 hold the far part and 4 the near one.
    assert len(planes) == 11
    assert (planes.diff() < 0).all()
    assert len(layer_planes(gap, torch.tensor([0.5]), 400.0, 32)) <= 32
    assert layer_planes(torch.ones(3, 3), torch.tensor([0.5]), 4.0, 32).tolist() == [1.0]


def test_a_stray_pixel_does_not_take_the_layers_from_the_scene():
    depth = torch.linspace(0.5, 2, 400).reshape(20, 20).clone()
    depth[3, 3] = 500.0
    planes = layer_planes(depth, torch.tensor([1.0]), 10.0, 32)
    # At most one of 32 layers and its neighbour are spent on it.
    assert (planes < 3).sum() >= 14


def test_mixed_pixels_are_separated():
    # An edge at x = 10.25: pixel 10 is a quarter white, its centre is black and behind.
    image = torch.zeros(3, 8, 20, dtype=F64)
    image[..., :10], image[..., 10] = 0.8, 0.2
    depth = two_planes(2.0, 0.5, 8, 20)
    share, front, back = split_mixed_pixels(image, depth, 0.5)
    # The regulariser of the share (1e-3 against a contrast of 3 * 0.64) pulls it by 0.01 %.
    assert share[4, 8:12].tolist() == pytest.approx([1, 1, 0.25, 1], abs=1e-3)
    assert front[0, 4, 10].item() == pytest.approx(0.8, abs=1e-3)
    assert back[0, 4, 10].item() == pytest.approx(0.0, abs=1e-3)
    assert front[3, 4, 9:12].tolist() == [2.0, 2.0, 0.5]
    assert back[3, 4, 10].item() == 0.5


@given(seed=st.integers(0, 500))
@settings(max_examples=25, deadline=None)
def test_separated_pixels_blend_to_the_image(seed):
    image, depth = random(3, 9, 11, seed=seed), 2 * random(9, 11, seed=seed + 1)
    share, front, back = split_mixed_pixels(image, depth, 0.7)
    blended = share * front[:3] + (1 - share) * back[:3]
    torch.testing.assert_close(blended, image, **TOLERANCE[F64])
    assert ((share >= 0) & (share <= 1)).all()


# --- gradients


@pytest.mark.parametrize("blur_scale", [1.5, 4.0])
def test_gradients(blur_scale):
    # The layer planes follow the extremes of the depth, which gradcheck therefore leaves alone.
    image, inner = 0.2 + 0.6 * random(3, 5, 6), 0.6 + 0.8 * random(5, 4, seed=1)
    ends = torch.tensor([0.5, 1.5], dtype=F64).expand(5, 2)
    focus = torch.tensor([0.55, 1.1], dtype=F64)

    def frames(image: Tensor, inner: Tensor) -> Tensor:
        depth = torch.cat([ends[:, :1], inner, ends[:, 1:]], dim=1)
        return render(image, depth, focus, blur_scale, DISC, max_layers=4)

    inputs = (image.requires_grad_(), inner.requires_grad_())
    assert torch.autograd.gradcheck(frames, inputs, atol=1e-4, fast_mode=True)
    gradients = torch.autograd.grad(frames(*inputs).square().sum(), inputs)
    assert all((gradient.abs() > 1e-6).float().mean() > 0.9 for gradient in gradients)


# --- against path-traced frames of a thin lens


def load_room(folder: Path) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """Frames and all-in-focus image (sRGB), inverse depth, inverse focus, blur scale."""

    def image(path: Path) -> Tensor:
        return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).float() / 255

    settings_of_stack = json.loads((folder / "stack" / "stack.json").read_text())
    camera = settings_of_stack["camera"]
    depth_m = torch.from_numpy(np.load(folder / "truth" / "depth.npz")["depth"])
    return (
        torch.stack([image(path) for path in sorted(folder.glob("stack/frame_*.png"))]),
        image(folder / "truth" / "all_in_focus.png"),
        1 / depth_m,
        1 / torch.tensor(settings_of_stack["focus_distances_m"]),
        camera["focal_length_px"] * camera["aperture_diameter_m"],
    )


def psnr(found: Tensor, truth: Tensor) -> float:
    unsaturated = truth < 0.99
    return -10 * float(torch.log10((found - truth)[unsaturated].square().mean()))


@pytest.mark.parametrize(
    ("room", "least_psnr"),
    # The frames hold 1-2 steps of sensor noise (about 44 dB), the grain of 144 paths per pixel
    # where they are defocused (about 38 dB), and what no renderer can know from one view: the
    # background that a defocused foreground uncovers, and highlights that the all-in-focus image
    # has clipped. All eight rooms reach 33.2 to 39.1 dB; blurring each pixel by its own radius
    # alone, without occlusion, reaches 27.9 to 36.1.
    [("room_1", 36.0), ("room_5", 34.0)],
)
def test_matches_path_traced_frames(shared_data, room, least_psnr):
    frames, all_in_focus, inverse_depth, focus, blur_scale = load_room(
        shared_data / "rendered" / room
    )
    chosen = [0, 4]
    image = srgb_to_linear(all_in_focus)
    rendered = linear_to_srgb(render(image, inverse_depth, focus[chosen], blur_scale, DISC))
    gathered = linear_to_srgb(gather(image, inverse_depth, focus[chosen], blur_scale))
    for n, index in enumerate(chosen):
        assert psnr(rendered[n], frames[index]) > least_psnr - 0.6
        assert psnr(rendered[n], frames[index]) > psnr(gathered[n], frames[index]) + 1.5
    mean = np.mean([psnr(rendered[n], frames[index]) for n, index in enumerate(chosen)])
    assert mean > least_psnr


def gather(image: Tensor, inverse_depth: Tensor, focus: Tensor, blur_scale: float) -> Tensor:
    """Without occlusion: each pixel of the image blurred as a whole at that pixel's radius."""
    radii = blur_radius_px(inverse_depth, focus[:, None, None], blur_scale).abs()
    step = 0.5
    levels = torch.stack(
        [blur(image, step * k, DISC) for k in range(int(radii.max() / step) + 2)]
    )  # (K, 3, H, W)
    below = (radii / step).long()
    share = radii / step - below
    frames = [
        (1 - t) * levels.gather(0, k.expand(1, 3, -1, -1))[0]
        + t * levels.gather(0, (k + 1).expand(1, 3, -1, -1))[0]
        for k, t in zip(below, share, strict=True)
    ]
    return torch.stack(frames).clamp_min(0)
