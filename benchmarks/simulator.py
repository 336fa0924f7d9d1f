"""Speed of the simulator and of data loading, next to what they replace, in one run.

    python benchmarks/simulator.py [--rooms FOLDER] [--rgbd FOLDER]

Four tables:

- *Renderer*: 512x512, five frames, blur of up to 40 px diameter, 32 layers, next to one FFT
  convolution per layer and frame: the same layers and masks, with each frame's kernel sampled and
  transformed, and light, opacity and coverage convolved and composited. Errors are root mean
  squares in sRGB against 256 layers. Our renderer also runs with fewer layers, at an error that is
  still smaller. Scenes are procedural; --rooms and --rgbd add those of the evaluation data.
- *Against a path-traced lens* (--rooms): PSNR in sRGB of frames rendered from true image and depth.
- *Workers*: stacks of procedural scenes per second, from one and from two processes.
- *Reading*: a HyperSim frame of 1024x768 from HDF5, resized, next to h5py and OpenCV alone.

CPU seconds are process time on one thread, the best of three runs. On a machine with CUDA, stacks
per second on the GPU are printed too.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.config.data import CameraDefaults, DatasetOptions, Source
from focaldiffusion.data.loading import batches
from focaldiffusion.data.mixture import Mixture
from focaldiffusion.data.procedural.scenes import Procedural
from focaldiffusion.data.sets.hypersim import HyperSim
from focaldiffusion.data.sets.rgbd import RGBD
from focaldiffusion.data.sets.stacks import Stacks
from focaldiffusion.optics import blur_radius_px, inverse_m, linear_to_srgb
from focaldiffusion.psf import PSF, MirrorGrid
from focaldiffusion.scene import Scene
from focaldiffusion.simulation.capture import filled_inverse_depth
from focaldiffusion.simulation.render import layer_planes, render

SIDE_PX, FRAMES, LAYERS, BLUR_PX = 512, 5, 32, 40.0
FEWER_LAYERS = 12
"""Enough for a smaller error than the convolutions have with 32, whose sampled discs ring."""
RUNS = 3


@dataclass(frozen=True)
class Case:
    """A scene at 512x512 whose blur reaches a diameter of 40 px."""

    name: str
    image: Tensor
    inverse_depth_dpt: Tensor
    focus_dpt: Tensor
    blur_scale_px_m: float

    @classmethod
    def of(cls, name: str, scene: Scene) -> Case:
        """A case from a scene, resized to a square: a benchmark of speed needs no camera."""
        inverse_depth = filled_inverse_depth(scene)
        size = (SIDE_PX, SIDE_PX)
        image = functional.interpolate(scene.all_in_focus[None], size, mode="area")[0]
        inverse_depth = functional.interpolate(inverse_depth[None, None], size, mode="nearest")[
            0, 0
        ]
        far, near = (float(end) for end in inverse_depth.aminmax())
        focus = torch.linspace(near, far, FRAMES)
        return cls(name, image, inverse_depth, focus, BLUR_PX / (near - far))

    def arguments(self, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor, float, PSF]:
        """Positional arguments of `render`."""
        tensors = (self.image, self.inverse_depth_dpt, self.focus_dpt)
        image, inverse_depth, focus = (tensor.to(device) for tensor in tensors)
        return image, inverse_depth, focus, self.blur_scale_px_m, PSF()


def convolve_layers(case: Case) -> Tensor:
    """Render with one FFT convolution per layer and frame, without shortcuts."""
    planes = layer_planes(case.inverse_depth_dpt, case.focus_dpt, case.blur_scale_px_m, LAYERS)
    radii = blur_radius_px(planes[:, None], case.focus_dpt, case.blur_scale_px_m).abs()
    size = (case.image.shape[-2], case.image.shape[-1])
    grid = MirrorGrid(size, float(radii.max()))
    frames = case.image.new_zeros(FRAMES, 3, *size)
    visible = case.image.new_ones(FRAMES, *size)
    behind = case.image.new_ones(size)
    for k, plane in enumerate(planes):
        coverage = behind
        if k + 1 < len(planes):
            share = (plane - case.inverse_depth_dpt) / (plane - planes[k + 1])
            behind = share.clamp(0, 1)
        else:
            behind = torch.zeros_like(coverage)
        mask = coverage - behind
        layer = torch.cat([case.image * mask, mask[None], coverage[None]])
        for n, radius in enumerate(radii[k].tolist()):
            kernel = torch.fft.rfft2(disc_kernel(radius, grid.grid_size).to(case.image)).mT
            blurred = grid.image(grid.spectrum(layer) * kernel)
            seen = blurred[:4] / blurred[4].clamp_min(0.02)
            opacity = seen[3].clamp(0, 1)
            frames[n] += visible[n] * seen[:3] * (opacity / seen[3].clamp_min(1e-6))
            visible[n] *= 1 - opacity
    return frames


def disc_kernel(radius_px: float, grid_size: tuple[int, int]) -> Tensor:
    """A disc with a soft edge, sampled around the origin of a periodic grid."""
    reach = math.ceil(radius_px + 0.5)
    offset = torch.arange(-reach, reach + 1.0)
    disc = (radius_px + 0.5 - torch.hypot(offset[:, None], offset)).clamp(0, 1)
    kernel = torch.zeros(grid_size)
    kernel[: len(disc), : len(disc)] = disc / disc.sum()
    return kernel.roll((-reach, -reach), (0, 1))


def best_cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds of the best of `RUNS` runs."""
    found = math.inf
    for _ in range(RUNS):
        started = time.process_time()
        work()
        found = min(found, time.process_time() - started)
    return found


def rms_srgb(frames: Tensor, truth: Tensor) -> float:
    """Root mean square difference in sRGB."""
    difference = linear_to_srgb(frames.clamp(0, 1)) - linear_to_srgb(truth.clamp(0, 1))
    return float(difference.square().mean().sqrt())


def renderer_rows(cases: Iterator[Case]) -> Iterator[list[str]]:
    """A row per scene, then the mean ratio."""
    yield [
        "scene",
        "convolutions [CPU s]",
        "error",
        f"ours, {LAYERS} layers [CPU s]",
        "error",
        "times faster",
        f"ours, {FEWER_LAYERS} layers [CPU s]",
        "error",
        "times faster",
    ]
    ratios = []
    for case in cases:
        truth = render(*case.arguments(), max_layers=256)
        plain_s = best_cpu_s(lambda case=case: convolve_layers(case))
        row = [case.name, f"{plain_s:.2f}", f"{rms_srgb(convolve_layers(case), truth):.4f}"]
        faster = []
        for layers in (LAYERS, FEWER_LAYERS):

            def ours(case: Case = case, layers: int = layers) -> Tensor:
                return render(*case.arguments(), max_layers=layers)

            ours_s = best_cpu_s(ours)
            faster.append(plain_s / ours_s)
            row += [f"{ours_s:.2f}", f"{rms_srgb(ours(), truth):.4f}", f"{faster[-1]:.1f}"]
        ratios.append(faster)
        yield row
    same, fewer = np.mean(ratios, axis=0)
    yield ["mean", "", "", "", "", f"{same:.1f}", "", "", f"{fewer:.1f}"]


def source(dataset_type: str, root: str | list[str] = "", **settings: object) -> Source:
    """A source with everything that its data set does not read left at nothing."""
    fields = {
        "name": dataset_type,
        "split": "train",
        "dataset_type": dataset_type,
        "data_root": root or [],
        "filelist": None,
        "focal_range": None,
        "focal_stack_size": (FRAMES, FRAMES),
        "image_size": None,
        "max_samples": None,
        "weight": 1.0,
        "allow_missing": False,
        "options": DatasetOptions(
            camera_defaults=CameraDefaults(f_number=2.8, sensor_width_m=0.036)
        ),
    }
    return Source.model_validate(fields | settings)


def procedural(**settings: object) -> Source:
    """Procedural scenes with their own lens at 512x512."""
    size = {"image_size": (SIDE_PX, SIDE_PX), "options": DatasetOptions()}
    return source("procedural", **(size | settings))


def cases(rgbd: Path | None, rooms: Path | None) -> Iterator[Case]:
    """Four procedural scenes, then those of the folders."""
    made = Procedural(procedural())
    for index in range(4):
        yield Case.of(f"procedural {index}", made[index])
    if rooms is not None:
        options = DatasetOptions(generate_focal_stack=True)
        dataset = Stacks(source("stacks", str(rooms), options=options))
        for index in range(len(dataset)):
            scene = dataset[index]
            assert isinstance(scene, Scene)
            yield Case.of(dataset.name(index), scene)
    if rgbd is not None:
        real = RGBD(source("rgbd", str(rgbd)))
        for index in range(0, len(real), 4):
            yield Case.of(real.name(index), real[index])


def lens_rows(rooms: Path) -> Iterator[list[str]]:
    """PSNR of frames rendered from the truth, a row per room."""
    stacks = Stacks(source("stacks", str(rooms), options=DatasetOptions()))
    yield ["room", "PSNR [dB]"]
    found = []
    for index in range(len(stacks)):
        sample = stacks[index]
        assert not isinstance(sample, Scene)
        assert sample.all_in_focus is not None
        assert sample.stack.camera is not None
        frames = render(
            sample.all_in_focus,
            inverse_m(sample.depth_m),
            sample.stack.focus_coordinates,
            sample.stack.camera.blur_scale_px_m,
            PSF(),
        )
        found.append(-20 * math.log10(rms_srgb(frames, sample.stack.images)))
        yield [stacks.name(index), f"{found[-1]:.2f}"]
    yield ["mean", f"{np.mean(found):.2f}"]


def worker_rows() -> Iterator[list[str]]:
    """Rate of the same 24 stacks with one worker and with two, one thread each."""
    settings = procedural()
    mixture = Mixture([(settings, Procedural(settings))], seed=0, shuffle=True)
    yield ["workers", "stacks per second", "relative to one"]
    rates = []
    for workers in (1, 2):
        stream = batches(mixture, range(2 * workers + 24), 1, num_workers=workers)
        for _ in range(2 * workers):  # wait until every worker has started
            next(stream)
        started = time.perf_counter()
        count = sum(1 for _ in stream)
        rates.append(count / (time.perf_counter() - started))
        yield [str(workers), f"{rates[-1]:.2f}", f"{rates[-1] / rates[0]:.2f}"]


def reading_rows() -> Iterator[list[str]]:
    """One HyperSim frame, read by the loader and by h5py with OpenCV."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from fixtures import hypersim

    yield ["reading path", "CPU ms"]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        hypersim.write(root)
        settings = source("hypersim", name)
        frames = HyperSim(settings)
        images = root / frames.name(0).split("/")[0] / "images"
        stem = "frame.0000"
        paths = [
            images / "scene_cam_00_final_hdf5" / f"{stem}.color.hdf5",
            images / "scene_cam_00_geometry_hdf5" / f"{stem}.depth_meters.hdf5",
            images / "scene_cam_00_geometry_hdf5" / f"{stem}.render_entity_id.hdf5",
        ]

        for path in paths:  # the fixture is 128x96
            with h5py.File(path, "r") as file:
                values = file["dataset"][()].repeat(8, axis=0).repeat(8, axis=1)
            noise = np.random.default_rng(0).uniform(0.9, 1.1, values.shape)
            hypersim.write_array(path, (values * noise).astype(values.dtype))

        def plain() -> None:
            for path in paths:
                with h5py.File(path, "r") as file:
                    values = file["dataset"][()].astype(np.float32)
                area = cv2.INTER_AREA if values.ndim == 3 else cv2.INTER_NEAREST
                cv2.resize(values, (640, 480), interpolation=area)

        alone, ours = best_cpu_s(plain), best_cpu_s(lambda: frames[0].resized(640))
    yield ["h5py and OpenCV", f"{alone * 1000:.0f}"]
    yield ["HyperSim loader", f"{ours * 1000:.0f} ({ours / alone:.2f} times)"]


def cuda_rows(case: Case) -> Iterator[list[str]]:
    """Stacks per second on the GPU."""
    arguments = case.arguments("cuda")
    render(*arguments)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(20):
        render(*arguments)
    torch.cuda.synchronize()
    rate = 20 / (time.perf_counter() - started)
    yield [torch.cuda.get_device_name(), "stacks per second"]
    yield [case.name, f"{rate:.1f}"]


def show(title: str, rows: Iterator[list[str]]) -> None:
    """Print a table as Markdown, each row as soon as it is known."""
    print(f"\n{title}\n")
    for number, row in enumerate(rows):
        print("| " + " | ".join(row) + " |", flush=True)
        if number == 0:
            print("|" + "---|" * len(row))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rooms", type=Path, help="path-traced stacks with truth")
    parser.add_argument("--rgbd", type=Path, help="images with depth")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    show("Renderer", renderer_rows(cases(options.rgbd, options.rooms)))
    if options.rooms is not None:
        show("Against a path-traced lens", lens_rows(options.rooms))
    show("Workers", worker_rows())
    show("Reading", reading_rows())
    if torch.cuda.is_available():
        show("GPU", cuda_rows(next(cases(None, None))))


if __name__ == "__main__":
    main()
