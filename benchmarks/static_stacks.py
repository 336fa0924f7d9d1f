"""Render focal stacks of layered scenes with a known all-in-focus image and depth.

    python benchmarks/static_stacks.py --output DIR [--textures FOLDER] [--scenes NAME ...]

Each scene is a few planes (scenery.py). In every frame, colour and coverage of each plane are
blurred by a disc, in linear light, and composited from the front, so background shows through
blurred silhouettes as in a photograph. No code is shared with the package. Frames are 8-bit sRGB
with noise of one step. Focus planes are equally spaced in inverse depth over a range fixed per
scene, so they meet a layer only by chance. DIR/<scene> holds stack/, truth/all_in_focus.png and
truth/depth.npz (key `depth`, metres).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scenery import Array, Layer, Painter, Photographs, linear_to_srgb

RADIUS_STEP_PX = 0.5


@dataclass(frozen=True)
class SceneSpec:
    """Settings of a scene.

    Attributes:
        size: (height, width) of the frames [px].
        frame_count: number of frames.
        near_m: nearest focus plane.
        far_m: farthest focus plane.
        largest_blur_radius_px: blur at `near_m` when focused at `far_m`.
        paint: paints the layers, front to back, on a canvas of a given size.
    """

    size: tuple[int, int]
    frame_count: int
    near_m: float
    far_m: float
    largest_blur_radius_px: float
    paint: Callable[[Painter, tuple[int, int]], list[Layer]]

    @property
    def blur_scale_px_m(self) -> float:
        """Blur diameter [px] per dioptre of defocus."""
        return 2 * self.largest_blur_radius_px / (1 / self.near_m - 1 / self.far_m)


def twig(painter: Painter, size: tuple[int, int]) -> list[Layer]:
    """Two leafy twigs in front of a papered wall."""
    near, middle = Layer.empty(size, 0.33), Layer.empty(size, 0.43)
    wall = Layer.empty(size, 0.74)
    painter.leaves(near, count=7, length_px=0.3 * size[0])
    painter.leaves(middle, count=9, length_px=0.2 * size[0], softness_px=0.8)
    painter.wall(wall, sheet_px=420)
    return [near, middle, wall]


def sign(painter: Painter, size: tuple[int, int]) -> list[Layer]:
    """Cut-out words and stones on a tabletop that recedes to a wall."""
    table, wall = Layer.empty(size, near_m=0.5, far_m=2.4), Layer.empty(size, 1.35)
    front, back = (Layer.empty(size, table.depth_m(share)) for share in (0.93, 0.58))
    painter.word(front, "focus", height_px=int(0.36 * size[0]), baseline=0.93, x=0.05)
    painter.word(back, "stack", height_px=int(0.27 * size[0]), baseline=0.58, x=0.45)
    painter.ground(table, top_share=0.42)
    painter.wall(wall, sheet_px=500)
    return [front, back, table, wall]


def reeds(painter: Painter, size: tuple[int, int]) -> list[Layer]:
    """Thin stalks at three depths in front of a wall: occlusion everywhere."""
    layers = [Layer.empty(size, depth_m) for depth_m in (0.62, 0.8, 1.2, 2.3)]
    painter.stalks(layers[0], count=7, widths_px=(14, 34))
    painter.stalks(layers[1], count=16, widths_px=(6, 18))
    painter.stalks(layers[2], count=26, widths_px=(3, 12))
    painter.wall(layers[3], sheet_px=620)
    return layers


def shore(painter: Painter, size: tuple[int, int]) -> list[Layer]:
    """Stones in three rows on receding ground, a soft twig in front."""
    height, width = size
    twig_layer = Layer.empty(size, 0.42)
    painter.leaves(twig_layer, count=5, length_px=0.25 * height, softness_px=2.0)
    ground = Layer.empty(size, near_m=0.45, far_m=2.6)
    painter.ground(ground, top_share=0.3)
    rows = []
    for bottom, radius_px in ((0.93, 0.11), (0.72, 0.08), (0.52, 0.055)):
        row = Layer.empty(size, ground.depth_m(bottom))
        x = np.linspace(0.06, 0.94, int(0.75 / radius_px)) + painter.rng.uniform(-0.02, 0.02)
        centres = [(float(share) * width, (bottom - 0.7 * radius_px) * height) for share in x]
        painter.stones(row, centres, radius_px * height)
        rows.append(row)
    wall = Layer.empty(size, 1.4)
    painter.wall(wall, sheet_px=560)
    return [twig_layer, *rows, ground, wall]


def thicket(painter: Painter, size: tuple[int, int]) -> list[Layer]:
    """Leaves at four depths, large and small, in front of a tilted wall."""
    layers = [Layer.empty(size, depth_m) for depth_m in (0.36, 0.41, 0.52, 0.66)]
    for layer, count, share in zip(layers, (4, 8, 12, 16), (0.3, 0.24, 0.17, 0.11), strict=True):
        painter.leaves(layer, count, share * size[0], softness_px=painter.rng.choice([0.0, 1.2]))
    wall = Layer.empty(size, near_m=0.7, far_m=0.9)
    painter.wall(wall, sheet_px=760)
    return [*layers, wall]


def evening(painter: Painter, size: tuple[int, int]) -> list[Layer]:
    """A word and stalks in front of a dark wall with lamps that saturate."""
    word, stalks = Layer.empty(size, 0.85), Layer.empty(size, 1.15)
    wall = Layer.empty(size, 2.7)
    painter.word(word, "night", height_px=int(0.42 * size[0]), baseline=0.9, x=0.2)
    painter.stalks(stalks, count=14, widths_px=(8, 40))
    painter.wall(wall, sheet_px=760, darkness=0.35)
    painter.lamps(wall, count=40, radius_px=7, brightness=8.0)
    return [word, stalks, wall]


SCENES = {
    "twig_1mp": SceneSpec((832, 1216), 6, 0.3, 0.8, 14, twig),
    "sign_1mp": SceneSpec((832, 1216), 5, 0.5, 1.6, 11, sign),
    "reeds_2mp": SceneSpec((1200, 1680), 7, 0.6, 2.5, 18, reeds),
    "shore_2mp": SceneSpec((1200, 1680), 8, 0.4, 1.5, 22, shore),
    "thicket_4mp": SceneSpec((1800, 2400), 7, 0.35, 0.9, 24, thicket),
    "evening_4mp": SceneSpec((1800, 2400), 6, 0.8, 3.0, 20, evening),
}


def disc(radius_px: float) -> Array:
    """Area of the disc inside each pixel, normalised to sum 1."""
    half = int(np.ceil(radius_px))
    fine = 16
    centres = (np.arange((2 * half + 1) * fine) + 0.5) / fine - half - 0.5
    inside = (centres[:, None] ** 2 + centres[None] ** 2 <= radius_px**2).astype(np.float32)
    share = inside.reshape(2 * half + 1, fine, 2 * half + 1, fine).sum(axis=(1, 3))
    return share / share.sum() if share.sum() else np.ones((1, 1), np.float32)


def defocus(layer: Layer, inverse_focus_dpt: float, blur_scale_px_m: float) -> tuple[Array, Array]:
    """Colour and coverage of a layer seen through a lens focused at 1/s.

    A tilted plane is split over discs of discrete radii, each row between the nearest two.
    """
    radius_px = 0.5 * blur_scale_px_m * np.abs(inverse_focus_dpt - layer.inverse_depth_dpt)  # (H,)
    planes = np.dstack([layer.colour, layer.alpha])
    if np.ptp(layer.inverse_depth_dpt) == 0:
        blurred = cv2.filter2D(planes, -1, disc(float(radius_px[0])))
        return blurred[..., :3], blurred[..., 3]
    height = len(radius_px)
    total = np.zeros_like(planes)
    received = np.zeros((height, 1, 1), np.float32)
    steps = np.arange(radius_px.min() // RADIUS_STEP_PX, radius_px.max() // RADIUS_STEP_PX + 2)
    for radius in steps * RADIUS_STEP_PX:
        weight = np.clip(1 - np.abs(radius_px - radius) / RADIUS_STEP_PX, 0, 1).astype(np.float32)
        for rows in _runs(weight > 0):
            reach = int(np.ceil(radius)) + 1
            window = slice(max(rows.start - reach, 0), min(rows.stop + reach, height))
            kernel = disc(float(radius))
            strip = planes[window] * weight[window, None, None]
            strip[: rows.start - window.start] = 0
            strip[rows.stop - window.start :] = 0
            total[window] += cv2.filter2D(strip, -1, kernel, borderType=cv2.BORDER_REFLECT)
            # One column suffices to sum the light that a row would receive from a full plane.
            column = np.zeros((window.stop - window.start, 1), np.float32)
            column[rows.start - window.start : rows.stop - window.start, 0] = weight[rows]
            profile = kernel.sum(axis=1, keepdims=True)
            column = cv2.filter2D(column, -1, profile, borderType=cv2.BORDER_REFLECT)
            received[window, :, 0] += column
    # Radii that vary along the plane would brighten or darken it slightly; a lens does not.
    total /= received
    return total[..., :3], total[..., 3]


def _runs(selected: Array) -> list[slice]:
    """The runs of consecutive True in a (H,) array."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], selected.astype(np.int8), [0]])))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def composite(planes: list[tuple[Array, Array]]) -> Array:
    """Composite planes of (colour times coverage, coverage), the first in front."""
    seen = np.zeros_like(planes[0][0])
    through = np.ones_like(planes[0][1])
    for colour, alpha in planes:
        seen += through[..., None] * colour
        through *= 1 - alpha
    return seen


def depth_map(layers: list[Layer]) -> Array:
    """Depth [m] of the first layer that covers at least half of each pixel, (H, W)."""
    depth = np.full(layers[0].alpha.shape, np.nan, np.float32)
    for layer in reversed(layers):
        rows = np.broadcast_to(1 / layer.inverse_depth_dpt[:, None], depth.shape)
        depth = np.where(layer.alpha >= 0.5, rows, depth)
    return depth


def make(name: str, spec: SceneSpec, textures: Path | None, seed: int, output: Path) -> None:
    """Paint a scene and write its stack and truth."""
    rng = np.random.default_rng([seed, list(SCENES).index(name)])
    margin = int(np.ceil(spec.largest_blur_radius_px)) + 2
    canvas = spec.size[0] + 2 * margin, spec.size[1] + 2 * margin
    inside = np.s_[margin:-margin, margin:-margin]
    layers = spec.paint(Painter(Photographs(textures, rng), rng), canvas)

    stack, truth = output / name / "stack", output / name / "truth"
    stack.mkdir(parents=True, exist_ok=True)
    truth.mkdir(parents=True, exist_ok=True)
    sharp = linear_to_srgb(composite([(layer.colour, layer.alpha) for layer in layers])[inside])
    _write_png(truth / "all_in_focus.png", sharp)
    np.savez_compressed(truth / "depth.npz", depth=depth_map(layers)[inside])

    focus_dpt = np.linspace(1 / spec.near_m, 1 / spec.far_m, spec.frame_count)
    for index, inverse_focus_dpt in enumerate(focus_dpt):
        planes = [defocus(layer, inverse_focus_dpt, spec.blur_scale_px_m) for layer in layers]
        frame = linear_to_srgb(composite(planes)[inside])
        noise = rng.normal(scale=1 / 255, size=frame.shape).astype(np.float32)
        _write_png(stack / f"frame_{index:02d}.png", frame + noise)
    focal_length_px = 1.2 * spec.size[1]
    sidecar = {
        "focus_distances_m": [float(1 / dpt) for dpt in focus_dpt],
        "camera": {
            "focal_length_px": focal_length_px,
            "aperture_diameter_m": spec.blur_scale_px_m / focal_length_px,
        },
        "note": "rendered by benchmarks/static_stacks.py; every frame has the same scale",
    }
    (stack / "stack.json").write_text(json.dumps(sidecar, indent=2) + "\n")


def _write_png(path: Path, srgb: Array) -> None:
    Image.fromarray(np.round(np.clip(srgb, 0, 1) * 255).astype(np.uint8)).save(path)


def main() -> None:
    """Render the scenes named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the scenes")
    parser.add_argument(
        "--textures", type=Path, help="folder of photographs (default: those of scikit-image)"
    )
    parser.add_argument("--scenes", nargs="+", choices=list(SCENES), default=list(SCENES))
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes")
    arguments = parser.parse_args()
    for name in arguments.scenes:
        make(name, SCENES[name], arguments.textures, arguments.seed, arguments.output)
        print(name, flush=True)


if __name__ == "__main__":
    main()
