"""The aperture that is configured reaches the simulator, by whatever route it is configured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import exit_code
from fixtures import filelists, hypersim, rgbd

from focaldiffusion.cli.main import main
from focaldiffusion.config.load import load_config
from focaldiffusion.data.loading import batches, open_split
from focaldiffusion.io.stacks import open_stack
from focaldiffusion.stack import FocalStack

WIDE, NARROW = 1.4, 22.0

Route = Callable[[Path, float], FocalStack]


def configured(text: str, folder: Path) -> FocalStack:
    """The first training stack of a configuration."""
    path = folder / "config.yaml"
    path.write_text(text)
    config = load_config(path, ["data.focal_range=[0.8, 8.0]", "data.focal_stack_size=3"]).config
    batch = next(iter(batches(open_split(config.data, "train", seed=0), [0], 1)))
    return batch.stack(0)


def of_hypersim(folder: Path, kwargs: str) -> FocalStack:
    hypersim.write(folder / "hs")
    return configured(
        "data:\n  dataset_type: hypersim\n"
        f"  data_root: {folder / 'hs'}\n  dataset_kwargs: {kwargs}\n",
        folder,
    )


def data_block(folder: Path, f_number: float) -> FocalStack:
    return of_hypersim(
        folder, f"{{camera_defaults: {{sensor_width_m: 0.036, f_number: {f_number}}}}}"
    )


def split_block(folder: Path, f_number: float) -> FocalStack:
    general = "camera_defaults: {sensor_width_m: 0.036, f_number: 8}"
    return of_hypersim(
        folder, f"{{{general}, train: {{camera_defaults: {{f_number: {f_number}}}}}}}"
    )


def pupil_over_f_number(folder: Path, f_number: float) -> FocalStack:
    general = "camera_defaults: {sensor_width_m: 0.036, f_number: 8}"
    pupil_m = 0.0312 / f_number
    return of_hypersim(
        folder, f"{{{general}, train: {{camera_defaults: {{aperture_diameter_m: {pupil_m}}}}}}}"
    )


def names_of_the_original(folder: Path, f_number: float) -> FocalStack:
    kwargs = f"{{simulator_kwargs: {{default_f_number: {f_number}, default_pixel_size: 2.8e-4}}}}"
    return of_hypersim(folder, kwargs)


def source_block(folder: Path, f_number: float) -> FocalStack:
    hypersim.write(folder / "hs")
    return configured(
        f"""
data:
  dataset_kwargs: {{camera_defaults: {{sensor_width_m: 0.036, f_number: 8}}}}
  train_sources:
    - name: rooms
      dataset_type: hypersim
      data_root: {folder / "hs"}
      dataset_kwargs: {{camera_defaults: {{f_number: {f_number}}}}}
""",
        folder,
    )


def override(folder: Path, f_number: float) -> FocalStack:
    hypersim.write(folder / "hs")
    preset = Path(__file__).resolve().parents[1] / "configs" / "hypersim.yaml"
    config = load_config(
        preset,
        [
            f"data.data_root={json.dumps(str(folder / 'hs'))}",
            f"data.dataset_kwargs.camera_defaults.f_number={f_number}",
            "data.dataset_kwargs.train={}",
            "data.image_size=[96, 128]",
        ],
    ).config
    return next(iter(batches(open_split(config.data, "val", seed=0), [0], 1))).stack(0)


def list_entry(suffix: str, line: str) -> Route:
    def route(folder: Path, f_number: float) -> FocalStack:
        path = folder / f"list{suffix}"
        path.write_text(line.replace("NUMBER", str(f_number)))
        filelists.write(folder / "root", path)
        return configured(
            "data:\n  dataset_type: filelist\n"
            f"  train_filelist: {path}\n  data_root: {folder / 'root'}\n"
            "  dataset_kwargs: {generate_focal_stack: true}\n",
            folder,
        )

    return route


def plain_folder(folder: Path, f_number: float) -> FocalStack:
    rgbd.write(folder / "root" / "scene")
    camera = f"{{sensor_width_m: 0.036, f_number: {f_number}}}"
    return configured(
        f"data:\n  dataset_type: rgbd\n  data_root: {folder / 'root'}\n"
        f"  dataset_kwargs: {{camera_defaults: {camera}}}\n",
        folder,
    )


def made_scenes(folder: Path, f_number: float) -> FocalStack:
    return configured(
        "data:\n  dataset_type: procedural\n  image_size: [48, 64]\n"
        f"  dataset_kwargs: {{camera_defaults: {{sensor_width_m: 0.036, f_number: {f_number}}}}}\n",
        folder,
    )


def command(*flags: str) -> Route:
    def route(folder: Path, f_number: float) -> FocalStack:
        rgbd.write(folder / "root" / "scene")
        argv = [flag.replace("ROOT", str(folder / "root")) for flag in flags]
        argv += ["--f-number", str(f_number), "--sensor-width-mm", "36", "--quiet"]
        argv += ["--focus-distances", "0.8,1.4,8", "--output", str(folder / "out")]
        assert exit_code(main, "simulate", *argv) == 0
        opened = open_stack(folder / "out" / "stack")
        frames = [torch.from_numpy(opened.frames.read(i)).permute(2, 0, 1) for i in range(3)]
        return FocalStack(torch.stack(frames), opened.camera_for())

    return route


ROUTES: dict[str, Route] = {
    "data.dataset_kwargs.camera_defaults": data_block,
    "data.dataset_kwargs.train": split_block,
    "aperture_diameter_m over f_number": pupil_over_f_number,
    "simulator_kwargs.default_f_number": names_of_the_original,
    "data.train_sources": source_block,
    "--override": override,
    "JSON list": list_entry(
        ".json",
        '[{"all_in_focus": "a.png", "depth": "a.hdf5", "depth_dataset": "dataset", "camera":'
        ' {"focal_length_px": 40, "pixel_size": 7.5e-4, "f_number": NUMBER}}]',
    ),
    "text list": list_entry(
        ".txt",
        "a.png a.hdf5 depth_dataset=dataset camera.focal_length_px=40 "
        "camera.sensor_width_m=0.036 camera.f_number=NUMBER",
    ),
    "rgbd": plain_folder,
    "procedural": made_scenes,
    "simulate --dataset": command("--dataset", "rgbd", "--data-root", "ROOT"),
    "simulate --image": command(
        "--image=ROOT/scene/image.png", "--depth=ROOT/scene/depth.npz", "--focal-length-mm=45"
    ),
}


@pytest.mark.parametrize("route", ROUTES)
def test_the_aperture_reaches_the_frames(route: str, tmp_path: Path) -> None:
    for f_number in (WIDE, NARROW):
        (tmp_path / str(f_number)).mkdir()
    wide, narrow = (
        ROUTES[route](tmp_path / str(f_number), f_number) for f_number in (WIDE, NARROW)
    )
    assert wide.camera is not None
    assert narrow.camera is not None
    ratio = wide.camera.aperture_diameter_m / narrow.camera.aperture_diameter_m
    assert ratio == pytest.approx(NARROW / WIDE, rel=1e-3)
    assert wide.camera.focal_length_px == pytest.approx(narrow.camera.focal_length_px)
    assert (wide.images - narrow.images).abs().max() > 0.02
