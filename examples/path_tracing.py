"""Path tracing with Mitsuba 3: scenes of parts, seen through a thin lens or a pinhole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from parts import Bulb, Part, Softbox
from shapes import Mesh
from textures import Colour

BAND_ROWS = 120
"""Rows rendered at a time. Bands bound the memory and leave all paths of a pixel in one pass, where
multijittering spreads them evenly: half the noise of several passes."""


@dataclass(frozen=True)
class View:
    """A lens, where it stands and what it looks at.

    Attributes:
        size: (height, width) of the image [px].
        focal_length_px: image distance over pixel pitch [px].
        aperture_diameter_m: diameter of the entrance pupil [m].
        position_m: centre of the lens, world coordinates, z up [m].
        target_m: point that the optical axis goes through [m].
    """

    size: tuple[int, int]
    focal_length_px: float
    aperture_diameter_m: float
    position_m: tuple[float, float, float]
    target_m: tuple[float, float, float]


def mitsuba_scene(
    parts: Sequence[Part], lights: Sequence[Softbox | Bulb], ambient: Colour, folder: Path
) -> Any:
    """A scene without a sensor.

    Args:
        parts: what there is to see.
        lights: the first is the key light: it makes the image, and most of the noise.
        ambient: radiance from every direction that nothing blocks.
        folder: for the meshes, which Mitsuba reads from files.
    """
    import mitsuba as mi

    scene: dict[str, Any] = {"type": "scene", "integrator": {"type": "path", "max_depth": 4}}
    emitter = {"type": "constant", "radiance": _rgb(ambient), "sampling_weight": 0.15}
    scene["ambient"] = emitter
    for k, light in enumerate(lights):
        # What is sampled at the expense of the key light, which makes most of the image.
        weight = 1.0 if k == 0 else 0.04 if isinstance(light, Bulb) else 0.15
        radiance = _rgb(light.radiance)
        emitter = {"type": "area", "radiance": radiance, "sampling_weight": weight}
        scene[f"light_{k}"] = {**_shape(light), "emitter": emitter}
    for k, part in enumerate(parts):
        path = folder / f"part_{k}.ply"
        write_ply(path, part.mesh)
        bsdf = {"type": "twosided", "inner": _bsdf(part)}
        scene[f"part_{k}"] = {"type": "ply", "filename": str(path), "bsdf": bsdf}
    # Merged meshes come in another order in every run, and with it the lights and their noise.
    return mi.load_dict(scene, optimize=False)


def _shape(light: Softbox | Bulb) -> dict[str, Any]:
    import mitsuba as mi

    if isinstance(light, Bulb):
        return {"type": "sphere", "center": list(light.position_m), "radius": light.radius_m}
    to_world = mi.ScalarTransform4f().look_at(
        list(light.position_m), list(light.target_m), [0, 0, 1]
    )
    size = mi.ScalarTransform4f().scale([light.width_m / 2, light.height_m / 2, 1])
    return {"type": "rectangle", "to_world": to_world @ size}


def write_ply(path: Path, mesh: Mesh) -> None:
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


def _bsdf(part: Part) -> dict[str, Any]:
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


def _rgb(linear: Colour) -> dict[str, Any]:
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


def sensor(view: View, focus_m: float | None, top: int = 0, rows: int | None = None) -> Any:
    """A thin lens focused at a distance, or a pinhole at its centre for None.

    Args:
        view: the set-up.
        focus_m: lens to plane of sharp focus [m].
        top: first row of the band to render.
        rows: height of the band; the whole image when not given.
    """
    import mitsuba as mi

    height, width = view.size
    to_world = mi.ScalarTransform4f().look_at(list(view.position_m), list(view.target_m), [0, 0, 1])
    settings: dict[str, Any] = {
        "type": "perspective",
        "to_world": to_world,
        "fov": 2 * math.degrees(math.atan(width / 2 / view.focal_length_px)),
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
        settings["aperture_radius"] = view.aperture_diameter_m / 2
        settings["focus_distance"] = focus_m  # planar, along the axis
    return mi.load_dict(settings)


def render(
    scene: Any, view: View, focus_m: float | None, samples: int, seed: int
) -> NDArray[np.float32]:
    """Mean radiance on each pixel (H, W, 3), with `samples` paths per pixel."""
    import mitsuba as mi

    height, bands = view.size[0], []
    for top in range(0, height, BAND_ROWS):
        camera = sensor(view, focus_m, top, min(BAND_ROWS, height - top))
        image = mi.render(scene, sensor=camera, spp=samples, seed=1000 * seed + top)
        bands.append(np.asarray(image, np.float32))
    return np.concatenate(bands)


def depth_at_pixel_centres(scene: Any, view: View) -> NDArray[np.float32]:
    """Planar Z of the first surface on the ray through each pixel's centre (H, W) [m]."""
    import mitsuba as mi

    camera = sensor(view, None)
    height, width = view.size
    axis = np.subtract(view.target_m, view.position_m)
    axis = axis / np.linalg.norm(axis)
    points = np.empty((height, width, 3))
    for row, column in _pixels(height, width):
        u, v = (column + 0.5) / width, (row + 0.5) / height
        position = mi.Point2f(mi.Float(u), mi.Float(v)) if np.ndim(u) else mi.Point2f(u, v)
        ray, _ = camera.sample_ray(0.0, 0.5, position, mi.Point2f(0.5))
        hit = scene.ray_intersect(ray)
        points[row, column] = np.array(hit.p).T if np.ndim(u) else np.array(hit.p)
    return ((points - view.position_m) @ axis).astype(np.float32)


def _pixels(height: int, width: int) -> Iterator[tuple[Any, Any]]:
    """(row, column) indices: all at once for vectorised variants, one by one for scalar ones."""
    import mitsuba as mi

    rows, columns = np.divmod(np.arange(height * width), width)
    if mi.variant().startswith("scalar"):
        yield from zip(rows.tolist(), columns.tolist(), strict=True)
    else:
        yield rows, columns


def srgb_to_linear(srgb: NDArray) -> NDArray:
    """IEC 61966-2-1."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
