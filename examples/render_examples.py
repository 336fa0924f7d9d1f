"""Render the focal stacks of this folder, and the truth beside them, with Mitsuba 3.

    pip install mitsuba==3.9.1 numpy pillow
    python examples/render_examples.py                # both, about 15 minutes on two cores
    python examples/render_examples.py --only circuit --scale 0.25 --samples 16 --output preview

The camera is a thin lens of fixed image distance, so every frame has the same scale, as frames
have after alignment: blur diameter [px] = aperture_diameter_m * focal_length_px * |1/z - 1/s|.
The focus distances are decided below, from where the photographer put things, and never computed
from the rendered depth.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from path_tracing import View, depth_at_pixel_centres, mitsuba_scene, render

SIZE = (720, 960)
"""(height, width) of every frame [px]."""
JPEG_QUALITY = 95
DEPTH_MANTISSA_BITS = 17
"""Depth is float32 rounded to 17 mantissa bits: relative error below 2^-18, 10 µm at 2.5 m."""


@dataclass(frozen=True)
class Example:
    """Choices of the photographer before the first exposure.

    Attributes:
        focal_length_px: image distance over pixel pitch, at SIZE [px].
        aperture_diameter_m: diameter of the entrance pupil [m].
        focus_distances_m: lens to plane of sharp focus of each frame [m].
        position_m: centre of the lens, world coordinates, z up [m].
        target_m: point that the optical axis goes through [m].
        exposure: factor from radiance to linear display light.
        samples: paths per pixel of a frame; the sampler rounds up to a product of like factors.
        seed: of the textures and the paths.
    """

    focal_length_px: float
    aperture_diameter_m: float
    focus_distances_m: tuple[float, ...]
    position_m: tuple[float, float, float]
    target_m: tuple[float, float, float]
    exposure: float
    samples: int
    seed: int

    def view(self, scale: float) -> View:
        """The set-up for images of `scale` times SIZE."""
        return View(
            (round(SIZE[0] * scale), round(SIZE[1] * scale)),
            self.focal_length_px * scale,
            self.aperture_diameter_m,
            self.position_m,
            self.target_m,
        )


# Equal steps in dioptres from the nearest to the farthest subject, rounded as on a focus scale.
EXAMPLES = {
    # 35 mm at f/2.8 on full frame. 2.70, 2.24, 1.78, 1.32, 0.86, 0.40 dpt: page to wall.
    "still_life": Example(
        focal_length_px=930.0,
        aperture_diameter_m=0.0125,
        focus_distances_m=(0.37, 0.45, 0.56, 0.76, 1.15, 2.5),
        position_m=(0.0, 0.0, 0.25),
        target_m=(0.0, 1.0, 0.01),
        exposure=2.0,
        samples=100,
        seed=7,
    ),
    # 50 mm at f/11 on full frame. 8.00, 7.14, 6.25, 5.26, 4.35, 3.33 dpt: near to far corner.
    "circuit": Example(
        focal_length_px=1330.0,
        aperture_diameter_m=0.0045,
        focus_distances_m=(0.125, 0.14, 0.16, 0.19, 0.23, 0.3),
        position_m=(0.0, 0.0, 0.091),
        target_m=(0.0, 0.1456, 0.0),
        exposure=2.1,
        samples=196,
        seed=11,
    ),
}


def rounded_depth(depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
    """Depth with DEPTH_MANTISSA_BITS kept, so that it compresses to half."""
    mantissa, exponent = np.frexp(depth_m)
    scale = 2.0 ** (DEPTH_MANTISSA_BITS + 1)
    return np.ldexp(np.round(mantissa * scale) / scale, exponent).astype(np.float32)


def linear_to_srgb(linear: NDArray) -> NDArray:
    """IEC 61966-2-1, clipped to [0, 1]."""
    x = np.clip(linear, 0, 1)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055)


def make(name: str, output: Path, scale: float, samples: int | None) -> None:
    """Render one example into output/name."""
    from PIL import Image

    example = EXAMPLES[name]
    view = example.view(scale)
    folder = output / name
    for sub in ("stack", "truth"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        module = importlib.import_module(name)
        parts = module.build(np.random.default_rng(example.seed))
        scene = mitsuba_scene(parts, module.LIGHTS, module.AMBIENT, Path(scratch))
    depth = rounded_depth(depth_at_pixel_centres(scene, view))
    np.savez_compressed(folder / "truth" / "depth.npz", depth=depth)
    print(f"{name}: depth {depth.min():.3f} m to {depth.max():.3f} m", flush=True)
    for k, focus_m in enumerate((None, *example.focus_distances_m)):
        paths = samples or example.samples
        if focus_m is None:
            paths = round(1.44 * paths)  # the reference: cleaner than the frames
        image = render(scene, view, focus_m, paths, example.seed + k)
        picture = Image.fromarray(
            np.round(255 * linear_to_srgb(example.exposure * image)).astype(np.uint8)
        )
        if focus_m is None:
            picture.save(folder / "truth" / "all_in_focus.png", optimize=True)
        else:
            path = folder / "stack" / f"frame_{k - 1:02d}.jpg"
            picture.save(path, quality=JPEG_QUALITY, subsampling=0)
        print(f"{name}: {'pinhole' if focus_m is None else f'focus {focus_m} m'}", flush=True)
    note = f"Rendered by examples/render_examples.py: JPEG quality {JPEG_QUALITY}, 4:4:4."
    settings = {
        "focus_distances_m": list(example.focus_distances_m),
        "camera": {
            "focal_length_px": view.focal_length_px,
            "aperture_diameter_m": view.aperture_diameter_m,
        },
        "note": note,
    }
    (folder / "stack" / "stack.json").write_text(json.dumps(settings, indent=2) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=EXAMPLES, help="one example instead of all")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    parser.add_argument("--scale", type=float, default=1.0, help="of the image size")
    parser.add_argument("--samples", type=int, help="paths per pixel of a frame, for a quick look")
    parser.add_argument("--variant", default="llvm_ad_rgb", help="or scalar_rgb: slower, no LLVM")
    options = parser.parse_args()
    import mitsuba as mi

    mi.set_variant(options.variant)
    for name in [options.only] if options.only else EXAMPLES:
        make(name, options.output, options.scale, options.samples)


if __name__ == "__main__":
    main()
