"""Render focal stacks of random rooms with exact truth, using Mitsuba 3: test data for everyone.

    pip install -e . mitsuba==3.9.1
    python benchmarks/path_traced_rooms.py --output DIR --scenes 12 --seed 0
    focaldiffusion evaluate --dataset stacks --data-root DIR --output-dir outputs/rooms

Twelve scenes of 512 x 384 take about 20 minutes on two cores. Each is a folder with

    stack/frame_00.png ...          8-bit sRGB, sensor noise of 1/255, near focus to far
    stack/stack.json                focus distances, camera
    truth/all_in_focus.png          noise-free, through a pinhole in the centre of the lens
    truth/depth.npz                 key `depth`: planar Z at pixel centres, metres, float32

**Lens and focus distances are fixed in advance** for each kind of scene, in `KINDS`. They do not
depend on the scene that is drawn, nor on its depth:

    macro   50 mm f/8     8 planes, 0.1 to 0.5 m, equal steps in dioptres
    table   50 mm f/2.8   6 planes, 0.4 to 1.5 m, equal steps in dioptres
    room    50 mm f/1.4   6 planes, 1 to 6 m, equal ratios
    hall    50 mm f/1.4   7 planes, 1.5 to 20 m, equal ratios

Four further kinds, which `--kinds` asks for by name, confront bare and textured things:

    cards    50 mm f/2     5 planes, 0.6 to 2.6 m    sheets at any tilt, one behind the other
    desk     35 mm f/1.8   6 planes, 0.35 to 2 m     bottles, balls, boxes and cards on a table
    outdoor  85 mm f/1.8   5 planes, 2 to 30 m       trunks and walls, a background up to 75 m away
    thin     50 mm f/2.8   5 planes, 0.5 to 2.2 m    wires, poles, leaves and lattices before boxes

    python benchmarks/path_traced_rooms.py --output DIR --scenes 12 --kinds cards desk outdoor thin

Scenes then take these kinds in turn; the first round is medium, the second hard, and so on.

The exposure is metered on the finished scene, as a photographer would do. All frames have the same
image distance and scale: blur diameter [px] = aperture_diameter_m focal_length_px |1/z - 1/s|.
Occlusion and bokeh come from the rays, not from the package's simulator. Focal lengths are the
image distances of a full-frame camera: focal_length_px = width 50 mm / 36 mm.

On one machine, with one version of Mitsuba and its compiler (LLVM), a seed gives the same files for
any number of workers. Elsewhere Mitsuba guarantees the image only in expectation: geometry,
textures and depth agree to rounding, but path noise may differ.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from focaldiffusion.errors import InputError
from focaldiffusion.io.simulated import check_simulation_output, write_simulation
from focaldiffusion.optics import Camera, linear_to_srgb, srgb_to_linear
from focaldiffusion.stack import FocalStack

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from path_tracing import View, depth_at_pixel_centres, mitsuba_scene, render
from room_layout import AMBIENT, DIFFICULTIES, Room, draw_room
from scene_kinds import draw_cards, draw_desk, draw_outdoor, draw_thin

SENSOR_WIDTH_MM = 36.0
NOISE_STD_LSB = 1.0
TRUTH_PASSES = 3
"""Paths of the all-in-focus image, as a multiple of those of a frame."""
PAPER_WHITE = 0.75
"""Linear value of the 95 % quantile of brightness after exposure."""


@dataclass(frozen=True)
class Kind:
    """Decisions of the photographer before seeing a scene.

    Attributes:
        focal_length_mm, f_number: full-frame lens.
        focus_distances_m: distance from the lens to the plane of sharp focus, per frame.
        pitch_deg: smallest and largest angle of the camera below the horizon.
        draw: layout of the scenes; arguments as for `draw_room`.
    """

    focal_length_mm: float
    f_number: float
    focus_distances_m: tuple[float, ...]
    pitch_deg: tuple[float, float]
    draw: Callable[..., Room] = draw_room

    def camera(self, size: tuple[int, int]) -> Camera:
        """The camera for images of (height, width)."""
        return Camera(
            focal_length_px=size[1] * self.focal_length_mm / SENSOR_WIDTH_MM,
            aperture_diameter_m=self.focal_length_mm / 1000 / self.f_number,
            image_size=size,
        )


def equal_steps(near_m: float, far_m: float, count: int) -> tuple[float, ...]:
    """Focus distances equally spaced in dioptres, rounded to three digits as on a focus scale."""
    dioptres = np.linspace(1 / near_m, 1 / far_m, count)
    return tuple(float(f"{1 / value:.3g}") for value in dioptres)


def equal_ratios(near_m: float, far_m: float, count: int) -> tuple[float, ...]:
    """Focus distances in a geometric sequence, rounded to three digits."""
    return tuple(float(f"{value:.3g}") for value in np.geomspace(near_m, far_m, count))


KINDS = {
    "macro": Kind(50, 8.0, equal_steps(0.1, 0.5, 8), pitch_deg=(10, 30)),
    "table": Kind(50, 2.8, equal_steps(0.4, 1.5, 6), pitch_deg=(8, 25)),
    "room": Kind(50, 1.4, equal_ratios(1.0, 6.0, 6), pitch_deg=(3, 15)),
    "hall": Kind(
        50, 1.4, equal_ratios(1.5, 20.0, 7), pitch_deg=(2, 5), draw=partial(draw_room, hall=True)
    ),
    "cards": Kind(50, 2.0, (0.6, 0.8, 1.1, 1.6, 2.6), pitch_deg=(0, 8), draw=draw_cards),
    "desk": Kind(35, 1.8, (0.35, 0.45, 0.6, 0.8, 1.2, 2.0), pitch_deg=(5, 16), draw=draw_desk),
    "outdoor": Kind(85, 1.8, (2.0, 3.5, 6.0, 12.0, 30.0), pitch_deg=(0, 3), draw=draw_outdoor),
    "thin": Kind(50, 2.8, (0.5, 0.65, 0.9, 1.3, 2.2), pitch_deg=(2, 8), draw=draw_thin),
}

Programme = tuple[tuple[str, str], ...]
PROGRAMME: Programme = (
    ("table", "easy"),
    ("room", "medium"),
    ("macro", "easy"),
    ("table", "hard"),
    ("room", "easy"),
    ("hall", "medium"),
    ("macro", "hard"),
    ("table", "medium"),
    ("room", "hard"),
    ("table", "easy"),
    ("macro", "medium"),
    ("room", "medium"),
)
"""Kind and difficulty of the scenes, repeated after the last."""


def programme_of(kinds: Sequence[str]) -> Programme:
    """A round of medium scenes, one of each kind, and a round of hard ones."""
    return tuple((kind, difficulty) for difficulty in ("medium", "hard") for kind in kinds)


@dataclass(frozen=True)
class RoomJob:
    """One scene to render: number `index` of the run with `seed`."""

    index: int
    seed: int
    size: tuple[int, int]
    samples: int

    programme: Programme = PROGRAMME

    @property
    def turn(self) -> tuple[str, str]:
        """Kind and difficulty."""
        return self.programme[self.index % len(self.programme)]

    @property
    def kind(self) -> Kind:
        """The set-up, which depends only on the index."""
        return KINDS[self.turn[0]]

    @property
    def name(self) -> str:
        """The scene's folder, such as 03_table_hard."""
        return "_".join((f"{self.index:02d}", *self.turn))

    def room(self) -> Room:
        """The scene, independent of the number of scenes, paths and pixels (at one aspect)."""
        kind, difficulty = self.kind, DIFFICULTIES[self.turn[1]]
        height, width = self.size
        half_width = SENSOR_WIDTH_MM / 2 / kind.focal_length_mm
        return kind.draw(
            np.random.default_rng([self.seed, self.index]),
            (kind.focus_distances_m[0], kind.focus_distances_m[-1]),
            kind.pitch_deg,
            (half_width, half_width * height / width),
            difficulty,
        )

    def note(self, version: str) -> dict[str, Any]:
        """Provenance of the stack, for its stack.json."""
        return {
            "simulated": f"path traced with Mitsuba {version} by benchmarks/path_traced_rooms.py",
            "focus_distances": f"fixed in advance for every {self.turn[0]} scene, as is the lens",
            "scale": "one image distance, so all frames have one scale, as after alignment",
            "seed": self.seed,
            "scene": self.index,
            "paths_per_pixel": self.samples,
            "noise_std_lsb": NOISE_STD_LSB,
        }


@dataclass(frozen=True, eq=False)
class Light:
    """Result of path tracing: radiance (H, W, 3) per frame and through a pinhole; depth [m]."""

    frames: list[NDArray[np.float32]]
    pinhole: NDArray[np.float32]
    depth_m: NDArray[np.float32]


def trace(job: RoomJob) -> Light:
    """Render one scene; the caller must set the variant of Mitsuba first."""
    room, camera = job.room(), job.kind.camera(job.size)
    view = View(
        job.size,
        camera.focal_length_px,
        camera.aperture_diameter_m,
        room.eye.position_m,
        room.eye.target_m,
    )
    with tempfile.TemporaryDirectory() as scratch:
        scene = mitsuba_scene(room.parts, room.lights, AMBIENT, Path(scratch))
    images = [
        render(scene, view, focus_m, job.samples, 1000 * job.seed + 20 * job.index + k)
        for k, focus_m in enumerate([None] * TRUTH_PASSES + list(job.kind.focus_distances_m))
    ]
    return Light(
        images[TRUTH_PASSES:],
        np.mean(images[:TRUTH_PASSES], 0),
        depth_at_pixel_centres(scene, view),
    )


def write_scene(job: RoomJob, light: Light, folder: Path, version: str) -> None:
    """Expose the frames and write them with their truth.

    Raises:
        InputError: the folder is not writable.
    """
    exposure = PAPER_WHITE / float(np.quantile(light.pinhole.mean(-1), 0.95))
    rng = np.random.default_rng([job.seed, job.index, 1])  # sensor noise, not the room
    images = torch.stack([photographed(exposure * frame, rng) for frame in light.frames])
    distances_m = torch.tensor(job.kind.focus_distances_m)
    write_simulation(
        folder,
        FocalStack(images, job.kind.camera(job.size), distances_m),
        torch.from_numpy(exposure * light.pinhole).permute(2, 0, 1).clamp(0, 1),
        torch.from_numpy(light.depth_m),
        bit_depth=8,
        note=job.note(version),
    )


def photographed(light: NDArray[np.float32], rng: np.random.Generator) -> torch.Tensor:
    """Light (H, W, 3) after clipping, sensor noise and 8-bit sRGB, as linear (3, H, W)."""
    encoded = linear_to_srgb(torch.from_numpy(light).permute(2, 0, 1).clamp(0, 1))
    noise = torch.from_numpy(rng.standard_normal(encoded.shape, np.float32))
    levels = torch.round(255 * encoded + NOISE_STD_LSB * noise).clamp(0, 255)
    return srgb_to_linear(levels / 255)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the scenes")
    parser.add_argument("--scenes", type=int, default=len(PROGRAMME), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, metavar="KIND", help=f"any of {', '.join(KINDS)}"
    )
    parser.add_argument("--size", type=int, nargs=2, default=(512, 384), metavar=("W", "H"))
    parser.add_argument("--samples-per-pixel", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--workers", type=int, help="threads (default: one per core)")
    parser.add_argument("--variant", default="llvm_ad_rgb", help="or scalar_rgb: slower, no LLVM")
    parser.add_argument("--overwrite", action="store_true", help="replace existing scenes")
    options = parser.parse_args()
    try:
        import drjit
        import mitsuba as mi
    except ImportError:
        sys.exit("Mitsuba is not installed: pip install mitsuba==3.9.1.")
    mi.set_variant(options.variant)
    if options.workers:
        drjit.set_thread_count(options.workers)
    width, height = options.size
    programme = programme_of(options.kinds) if options.kinds else PROGRAMME
    jobs = [
        RoomJob(index, options.seed, (height, width), options.samples_per_pixel, programme)
        for index in range(options.scenes)
    ]
    try:
        for job in jobs:
            check_simulation_output(options.output / job.name, overwrite=options.overwrite)
        for job in jobs:
            start = time.monotonic()
            write_scene(job, trace(job), options.output / job.name, mi.__version__)
            print(f"{job.name}: {time.monotonic() - start:.0f} s", flush=True)
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
