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
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE = (720, 960)
"""(height, width) of every frame [px]."""
JPEG_QUALITY = 95
DEPTH_MANTISSA_BITS = 17
"""Depth is float32 rounded to 17 mantissa bits: relative error below 2^-18, 10 µm at 2.5 m."""
BAND_ROWS = 120
"""Rows rendered at a time. Bands bound the memory and leave all paths of a pixel in one pass, where
multijittering spreads them evenly: half the noise of several passes."""


@dataclass(frozen=True)
class Example:
    """What the photographer decides before the first exposure.

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


def mitsuba_scene(example: Example, module: Any, folder: Path) -> Any:
    """The scene of a module (`build`, `LIGHTS`, `AMBIENT`) without a sensor."""
    import mitsuba as mi

    look_at = mi.ScalarTransform4f().look_at
    scene: dict[str, Any] = {"type": "scene", "integrator": {"type": "path", "max_depth": 4}}
    # The first light is the key light: it makes the image, and most of the noise.
    ambient = {"type": "constant", "radiance": _rgb(module.AMBIENT), "sampling_weight": 0.15}
    scene["ambient"] = ambient
    for k, light in enumerate(module.LIGHTS):
        to_world = look_at(list(light.position_m), list(light.target_m), [0, 0, 1])
        size = mi.ScalarTransform4f().scale([light.width_m / 2, light.height_m / 2, 1])
        weight = 0.15 if k else 1.0
        radiance = _rgb(light.radiance)
        emitter = {"type": "area", "radiance": radiance, "sampling_weight": weight}
        scene[f"light_{k}"] = {"type": "rectangle", "to_world": to_world @ size, "emitter": emitter}
    for k, part in enumerate(module.build(np.random.default_rng(example.seed))):
        path = folder / f"part_{k}.ply"
        write_ply(path, part.mesh)
        bsdf = {"type": "twosided", "inner": _bsdf(part)}
        scene[f"part_{k}"] = {"type": "ply", "filename": str(path), "bsdf": bsdf}
    return mi.load_dict(scene)


def write_ply(path: Path, mesh: Any) -> None:
    """A mesh as binary PLY with normals and uv."""
    names = ("x", "y", "z", "nx", "ny", "nz", "u", "v")
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(mesh.positions)}"]
    header += [f"property float {name}" for name in names]
    header += [f"element face {len(mesh.faces)}", "property list uchar int vertex_indices"]
    vertices = np.concatenate([mesh.positions, mesh.normals, mesh.uv], 1).astype("<f4")
    faces = np.empty(len(mesh.faces), [("count", "u1"), ("index", "<i4", 3)])
    faces["count"], faces["index"] = 3, mesh.faces
    text = "\n".join([*header, "end_header", ""])
    path.write_bytes(text.encode() + vertices.tobytes() + faces.tobytes())


def _bsdf(part: Any) -> dict[str, Any]:
    """Matte: Lambert; gloss: a clear coat over paint; metal: a tinted rough conductor."""
    if part.finish == "matte":
        return {"type": "diffuse", "reflectance": _reflectance(part.colour)}
    if part.finish == "metal":
        return {
            "type": "roughconductor",
            "material": "none",
            "alpha": part.roughness,
            "specular_reflectance": _reflectance(part.colour),
        }
    return {
        "type": "roughplastic",
        "distribution": "ggx",
        "alpha": part.roughness,
        "diffuse_reflectance": _reflectance(part.colour),
    }


def _rgb(linear: tuple[float, float, float]) -> dict[str, Any]:
    return {"type": "rgb", "value": list(linear)}


def _reflectance(srgb: Any) -> dict[str, Any]:
    import mitsuba as mi

    linear = srgb_to_linear(np.asarray(srgb, np.float32))
    if linear.ndim == 1:
        return _rgb(tuple(linear.tolist()))
    return {
        "type": "bitmap",
        "bitmap": mi.Bitmap(np.ascontiguousarray(linear[::-1])),  # its v points down
        "raw": True,
        "wrap_mode": "clamp",
    }


def sensor(
    example: Example,
    size: tuple[int, int],
    focus_m: float | None,
    top: int = 0,
    rows: int | None = None,
) -> Any:
    """A thin lens focused at a distance, or a pinhole at its centre for None.

    Args:
        example: the set-up.
        size: (height, width) of the whole frame [px].
        focus_m: lens to plane of sharp focus [m].
        top: first row of the band to render.
        rows: height of the band; the whole frame when not given.
    """
    import mitsuba as mi

    height, width = size
    to_world = mi.ScalarTransform4f().look_at(
        list(example.position_m), list(example.target_m), [0, 0, 1]
    )
    settings: dict[str, Any] = {
        "type": "perspective",
        "to_world": to_world,
        "fov": 2 * math.degrees(math.atan(SIZE[1] / 2 / example.focal_length_px)),
        "fov_axis": "x",
        "near_clip": 0.01,
        "far_clip": 100.0,
        "film": {
            "type": "hdrfilm",
            "width": width,
            "height": height,
            "crop_offset_y": top,
            "crop_height": rows or height,
            "pixel_format": "rgb",
            "component_format": "float32",
            "rfilter": {"type": "box"},  # a pixel integrates the light on its own square
        },
        "sampler": {"type": "multijitter"},
    }
    if focus_m is not None:
        settings["type"] = "thinlens"
        settings["aperture_radius"] = example.aperture_diameter_m / 2
        settings["focus_distance"] = focus_m  # planar, along the axis
    return mi.load_dict(settings)


def render(
    scene: Any,
    example: Example,
    size: tuple[int, int],
    focus_m: float | None,
    samples: int,
    seed: int,
) -> NDArray[np.float32]:
    """Mean radiance on each pixel (H, W, 3), with `samples` paths per pixel."""
    import mitsuba as mi

    bands = []
    for top in range(0, size[0], BAND_ROWS):
        camera = sensor(example, size, focus_m, top, min(BAND_ROWS, size[0] - top))
        image = mi.render(scene, sensor=camera, spp=samples, seed=1000 * seed + top)
        bands.append(np.asarray(image, np.float32))
    return np.concatenate(bands)


def depth_at_pixel_centres(scene: Any, camera: Any, example: Example) -> NDArray[np.float32]:
    """Planar Z of the first surface on the ray through each pixel's centre (H, W) [m]."""
    import mitsuba as mi

    width, height = (int(length) for length in camera.film().size())
    axis = np.subtract(example.target_m, example.position_m)
    axis = axis / np.linalg.norm(axis)
    points = np.empty((height, width, 3))
    for row, column in _pixels(height, width):
        u, v = (column + 0.5) / width, (row + 0.5) / height
        position = mi.Point2f(mi.Float(u), mi.Float(v)) if np.ndim(u) else mi.Point2f(u, v)
        ray, _ = camera.sample_ray(0.0, 0.5, position, mi.Point2f(0.5))
        hit = scene.ray_intersect(ray)
        points[row, column] = np.array(hit.p).T if np.ndim(u) else np.array(hit.p)
    return ((points - example.position_m) @ axis).astype(np.float32)


def _pixels(height: int, width: int) -> Iterator[tuple[Any, Any]]:
    """(row, column) indices: all at once for vectorised variants, one by one for scalar ones."""
    import mitsuba as mi

    rows, columns = np.divmod(np.arange(height * width), width)
    if mi.variant().startswith("scalar"):
        yield from zip(rows.tolist(), columns.tolist(), strict=True)
    else:
        yield rows, columns


def rounded_depth(depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
    """Depth with DEPTH_MANTISSA_BITS kept, so that it compresses to half."""
    mantissa, exponent = np.frexp(depth_m)
    scale = 2.0 ** (DEPTH_MANTISSA_BITS + 1)
    return np.ldexp(np.round(mantissa * scale) / scale, exponent).astype(np.float32)


def srgb_to_linear(srgb: NDArray) -> NDArray:
    """IEC 61966-2-1."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(linear: NDArray) -> NDArray:
    """IEC 61966-2-1, clipped to [0, 1]."""
    x = np.clip(linear, 0, 1)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055)


def make(name: str, output: Path, scale: float, samples: int | None) -> None:
    """Render one example into output/name."""
    from PIL import Image

    example = EXAMPLES[name]
    size = (round(SIZE[0] * scale), round(SIZE[1] * scale))
    folder = output / name
    for sub in ("stack", "truth"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        scene = mitsuba_scene(example, importlib.import_module(name), Path(scratch))
    pinhole = sensor(example, size, None)
    depth = rounded_depth(depth_at_pixel_centres(scene, pinhole, example))
    np.savez_compressed(folder / "truth" / "depth.npz", depth=depth)
    print(f"{name}: depth {depth.min():.3f} m to {depth.max():.3f} m", flush=True)
    for k, focus_m in enumerate((None, *example.focus_distances_m)):
        paths = samples or example.samples
        if focus_m is None:
            paths = round(1.44 * paths)  # the reference: cleaner than the frames
        image = render(scene, example, size, focus_m, paths, example.seed + k)
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
            "focal_length_px": example.focal_length_px * scale,
            "aperture_diameter_m": example.aperture_diameter_m,
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
