"""Every reader of the package with small valid files for it, for benchmarks/fuzz.py.

A result that is not sane raises `Insane`: numbers that are not finite or out of range, or a depth
that is called valid and is not positive and finite.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

SIZE = (16, 24)
_SAMPLE = "s"
_LENS = {"aperture_diameter_m": 0.01}


class Insane(Exception):
    """A reader succeeded with a result that no caller can use."""


@dataclass(frozen=True)
class Reader:
    """A reader and its files.

    Attributes:
        write: writes valid files to an empty folder.
        read: reads the folder; its second argument is the file that was mutated. Returns numbers,
            or None where there are none to compare.
        mutates: patterns of the files to mutate.
        cost: time of an input in units of the fastest readers; the default number of inputs is
            shared out by it.
        overlay: folder that a saved folder replaces.
    """

    write: Callable[[Path], None]
    read: Callable[[Path, Path], NDArray[Any] | None]
    mutates: tuple[str, ...] = ("**/*",)
    cost: int = 1
    overlay: str = "."


def sane(holds: bool | torch.Tensor | np.bool_, what: str) -> None:
    if not bool(holds):
        raise Insane(what)


def _valid_depth(depth_m: torch.Tensor) -> NDArray[Any]:
    known = depth_m[~depth_m.isnan()]
    sane(depth_m.ndim == 2, "depth has not two dimensions")
    sane(((known > 0) & known.isfinite()).all(), "depth is not positive and finite")
    return depth_m.numpy()


def unit(image: NDArray[Any] | torch.Tensor) -> NDArray[Any]:
    array = np.asarray(image)
    sane(array.size > 0, "no pixels")
    sane(np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1, "not in [0, 1]")
    return array


def _ramp() -> NDArray[np.float64]:
    """(H, W) from 1 to 3, never a whole number of grey levels."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    ramp: NDArray[np.float64] = 1 + (rows * 7 + columns * 3) % 23 / 11.7
    return ramp


def pixels(kind: type = np.uint8) -> NDArray[Any]:
    """A picture (H, W, 3) without zeros."""
    top = np.iinfo(kind).max
    return (np.stack([_ramp(), _ramp()[::-1], _ramp()[:, ::-1]], -1) * top / 3.01).astype(kind)


# Depth maps.


def _write_np(folder: Path) -> None:
    ramp = _ramp()
    np.save(folder / "f4.npy", ramp.astype("f4"))
    np.save(folder / "u2.npy", (ramp * 1000).astype(">u2"))
    np.save(folder / "f8.npy", np.asfortranarray(ramp))
    np.savez(folder / "a.npz", depth=ramp.astype("f4"))
    np.savez_compressed(folder / "b.npz", depth=ramp.astype("f2"), other=np.zeros(3))


def _write_maps(folder: Path) -> None:
    import cv2
    import tifffile
    from PIL import Image

    ramp = _ramp()
    Image.fromarray((ramp * 80).astype("u1")).save(folder / "u1.png")
    Image.fromarray((ramp * 1000).astype("u2")).save(folder / "u2.png")
    cv2.imwrite(str(folder / "a.pfm"), ramp.astype("f4"))
    for name, options in (("plain", {}), ("packed", {"compression": "zlib"})):
        tifffile.imwrite(folder / f"{name}.tif", ramp.astype("f4"), rowsperstrip=4, **options)
    tifffile.imwrite(folder / "u2.tif", (ramp * 1000).astype("u2"), compression="lzw")


def _write_exr(folder: Path) -> None:
    from focaldiffusion.io.depth_files import write_exr

    write_exr(folder / "a.exr", _ramp().astype("f4"))


def _write_h5(folder: Path) -> None:
    import h5py

    for name, options in (("a.h5", {}), ("b.hdf5", {"compression": "gzip", "chunks": (8, 8)})):
        with h5py.File(folder / name, "w") as file:
            file.create_dataset("depth", data=_ramp().astype("f4"), **options)


def _depth(folder: Path, path: Path) -> NDArray[Any]:
    from focaldiffusion.data.rasters import DepthFormat

    return _valid_depth(DepthFormat(scale_m=0.001).read(path))


# Lists and configurations.


def _write_lists(folder: Path) -> None:
    from PIL import Image

    for name in ("a.png", "d.png"):
        Image.fromarray(pixels()).save(folder / name)
    entry = {
        "all_in_focus": "a.png",
        "depth": "d.png",
        "depth_scale": 0.001,
        "focus_distances_m": [0.5, 1.0, None],
        "camera": {"focal_length_m": 0.05, "f_number": 2.0, "sensor_width_m": 0.036},
        "name": "one",
        "image_orientation": ["flip_vertical"],
    }
    (folder / "a.json").write_text(json.dumps([entry, {**entry, "name": "two"}], indent=1))
    (folder / "a.jsonl").write_text(f"{json.dumps(entry)}\n{json.dumps({**entry, 'name': 'b'})}\n")
    (folder / "a.csv").write_text(
        "all_in_focus,depth,depth_scale,focus_distances_m,camera.focal_length_m\n"
        'a.png,d.png,0.001,"0.5; 1.0",0.05\na.png,d.png,0.01,,0.05\n'
    )
    (folder / "a.txt").write_text(
        '# comment\na.png d.png depth_scale=0.001 num_images=5\n"a.png", d.png depth_scale=1\n'
    )


def _list(folder: Path, path: Path) -> None:
    from fixtures.sources import source_of

    from focaldiffusion.data.sets.filelist import FileList

    found = FileList(source_of("filelist", folder, "train", filelist=path))
    for index in range(len(found)):
        sane(found.name(index) and found.scene_name(index), "a sample without a name")


def _write_yaml(folder: Path) -> None:
    for name in ("base.yaml", "compact.yaml", "hardware/gpu_24gb.yaml"):
        copy = folder / name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes((ROOT / "configs" / name).read_bytes())
    (folder / "run.yaml").write_text(
        "defaults: [compact, hardware/gpu_24gb]\n"
        "data:\n  data_root: {focal_stack: a, depth: [b, c]}\n  image_size: &size [48, 64]\n"
        "training: {num_epochs: 2, batch_size: 2, mixed_precision: bf16}\n"
        "output: {save_dir: out}\n"
    )


def _yaml(folder: Path, path: Path) -> None:
    from focaldiffusion.config.load import load_config, resolved
    from focaldiffusion.config.yaml_files import yaml_text

    yaml_text(resolved(load_config(path).config))


# Models and training.


def _write_checkpoint(folder: Path) -> None:
    weights = ROOT / "src" / "focaldiffusion" / "weights" / "compact"
    for path in sorted(weights.rglob("*")):
        if path.is_file():
            copy = folder / path.relative_to(weights)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())


def _checkpoint(folder: Path, path: Path) -> None:
    from focaldiffusion.checkpoints.checkpoint import find_checkpoint

    model = find_checkpoint(str(folder)).load()
    for part in (model.denoiser, model.prompt):
        for name, weight in part.state_dict().items():
            sane(weight.isfinite().all(), f"{name} is not finite")
    sane(model.scheduler.sigmas.isfinite().all(), "the scheduler's levels are not finite")


def _write_resume(folder: Path) -> None:
    from focaldiffusion.training.state import RunState, write_progress

    (folder / "training").mkdir()
    (folder / "training" / "trained.safetensors").write_bytes(b"weights")
    write_progress(folder, RunState(step=4), 2, {"model": {"start": "noise"}})


def _resume(folder: Path, path: Path) -> None:
    from focaldiffusion.training.state import damage, read_progress

    if path.parent == folder and damage(folder) is not None:
        return  # training falls back to an earlier checkpoint
    sane(read_progress(folder).state.step >= 0, "a negative step")


# Data sets.


def _write_hypersim(folder: Path) -> None:
    from fixtures import hypersim

    hypersim.write(folder)


def _hypersim(folder: Path, path: Path) -> NDArray[Any]:
    from fixtures.sources import source_of

    from focaldiffusion.data.sets.hypersim import HyperSim

    return _scene(HyperSim(source_of("hypersim", folder, "train", camera_defaults=_LENS))[0])


def _scene(scene: Any) -> NDArray[Any]:
    unit(scene.all_in_focus)
    known = scene.depth_m[scene.valid]
    sane((known.isfinite() & (known > 0)).all(), "valid depth is not positive and finite")
    sane(np.isfinite(scene.camera.focal_length_px), "the focal length is not finite")
    return np.concatenate([scene.depth_m.nan_to_num().ravel(), scene.all_in_focus.ravel()])


def _write_ddff12(folder: Path) -> None:
    import h5py
    from fixtures import ddff12

    frames = np.stack([pixels().astype("f4") / 2 + 10 * index for index in range(10)])
    with h5py.File(folder / ddff12.NAME, "w") as file:
        file["stack_val"] = frames[None]
        file["disp_val"] = (0.05 * _ramp().astype("f4"))[None]
        file["AiF_val"] = frames[None, 0]


def _ddff12(folder: Path, path: Path) -> NDArray[Any]:
    from fixtures.sources import source_of

    from focaldiffusion.data.sets.ddff12 import DDFF12

    sample = DDFF12(source_of("ddff12", folder, "val"))[0]
    unit(sample.stack.images)
    known = sample.depth_m[sample.valid]
    sane((known.isfinite() & (known > 0)).all(), "valid depth is not positive and finite")
    if sample.all_in_focus is not None:
        unit(sample.all_in_focus)
    return np.concatenate([sample.depth_m.nan_to_num().ravel(), sample.stack.images.ravel()])


def _write_nyuv2(folder: Path) -> None:
    from fixtures import nyuv2
    from scipy.io import savemat

    nyuv2.write(folder)
    if len(list(folder.glob("*.mat"))) == 2:
        columns = {"trainNdxs": np.array([[1], [3]], "f8"), "testNdxs": np.array([[4]], "u1")}
        savemat(folder / "packed.mat", columns, do_compression=True)


def _nyuv2(folder: Path, path: Path) -> NDArray[Any]:
    from fixtures.sources import source_of

    from focaldiffusion.data.sets.nyuv2 import NYUv2

    splits = folder / "splits.mat"
    if path.name == "packed.mat":
        splits.write_bytes(path.read_bytes())
    found = NYUv2(source_of("nyuv2", folder, "train", camera_defaults=_LENS))
    sane(found.scene_name(0), "no room")
    return _scene(found[0])


def _write_cache(folder: Path) -> None:
    from training_runs import write_stacks

    write_stacks(folder, train=1, val=0)
    (folder / "stacks.yaml").unlink()
    for path in sorted((folder / "train").iterdir()):
        path.rename(folder / path.name)
    (folder / "train").rmdir()


def _cache(folder: Path, path: Path) -> None:
    from fixtures.sources import source_of

    from focaldiffusion.data.cache import Cache

    found = Cache(source_of("cache", folder, "train"))
    for index in range(len(found)):
        sample = found[index]
        unit(sample.stack.images)
        known = sample.depth_m[sample.valid]
        sane((known.isfinite() & (known > 0)).all(), "valid depth is not positive and finite")
        sane(isinstance(found.name(index) + found.scene_name(index), str), "no name")
        if sample.estimate is not None:
            posterior = sample.estimate.evidence.posterior
            sane(posterior.isfinite().all(), "the posterior is not finite")
            unit(sample.estimate.confidence)
            sane(sample.estimate.coordinate.isfinite().all(), "the coordinate is not finite")


# Evaluation.


def _write_run(folder: Path) -> None:
    from evaluation_runs import record, write_run

    records = [
        record(f"s{n}", model, {"abs_rel": 0.1 + n / 50, "delta_1.25": 0.9}, seconds=1.5)
        for n in range(3)
        for model in ("physics", "other")
    ]
    failed = record("s4", "physics", None)
    blur = record("s0", "physics", {"abs_rel": 0.2}, variant="focus_scale=1.05")
    write_run(folder, [*records, failed, blur])


def _run(folder: Path, path: Path) -> None:
    from focaldiffusion.evaluation.compare import compare
    from focaldiffusion.evaluation.report import write_report

    compare(folder, folder)
    write_report(folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    sane("NaN" not in json.dumps(metrics["models"]), "a mean is not a number")


def _write_predictions(folder: Path) -> None:
    from PIL import Image

    ramp, sample = _ramp(), folder / _SAMPLE
    sample.mkdir()
    np.save(sample / "depth.npy", ramp.astype("f4"))
    np.save(sample / "confidence.npy", (ramp / 4).astype("f4"))
    Image.fromarray(pixels(np.uint8)).save(sample / "all_in_focus.png")
    other = folder / "t"
    other.mkdir()
    Image.fromarray((ramp * 1000).astype("u2")).save(other / "depth_mm.png")
    Image.fromarray((ramp * 60).astype("u1")).save(other / "confidence.png")


def _predictions(folder: Path, path: Path) -> NDArray[Any] | None:
    from focaldiffusion.evaluation.external import Predictions
    from focaldiffusion.stack import FocalStack

    sample, size = _SAMPLE if path.is_dir() else path.parent.name, SIZE
    if path.is_dir():
        size = (20, 20)
    stack = FocalStack(torch.full((3, 3, *size), 0.5), focus_distances_m=torch.tensor([1, 2, 3.0]))
    found = Predictions(folder).predict(stack, sample)
    if found.confidence is not None:
        sane(found.confidence.isfinite().all(), "the confidence is not finite")
    if found.all_in_focus is not None:
        unit(found.all_in_focus)
    if found.depth_m is None:
        return None
    sane(found.depth_m.shape == size, "the depth has another size")
    return found.depth_m.numpy()


def _write_zedd(folder: Path) -> None:
    import zipfile

    from focaldiffusion.evaluation.zedd_submission import NAMES

    with zipfile.ZipFile(folder / "depth.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in NAMES:
            with archive.open(name, "w") as file:
                np.lib.format.write_array(file, _ramp().astype("f4"))


def _zedd(folder: Path, path: Path) -> None:
    from focaldiffusion.evaluation import zedd_submission

    if path.name == "depth.zip":
        zedd_submission.SIZE = SIZE  # or one valid archive takes seconds
    zedd_submission.check_submission(path)


DATA_READERS: dict[str, Reader] = {
    "depth_np": Reader(_write_np, _depth),
    "depth_img": Reader(_write_maps, _depth),
    "depth_exr": Reader(_write_exr, _depth),
    "depth_h5": Reader(_write_h5, _depth, cost=2),
    "list": Reader(_write_lists, _list, ("a.[jct]*",)),
    "yaml": Reader(_write_yaml, _yaml, ("*.yaml",), cost=10),
    "checkpoint": Reader(_write_checkpoint, _checkpoint, cost=20),
    "resume": Reader(_write_resume, _resume, ("**/*.json",)),
    "hypersim": Reader(
        _write_hypersim, _hypersim, ("*.csv", "ai_001_001/**/frame.0000.*.hdf5"), cost=4
    ),
    "ddff12": Reader(_write_ddff12, _ddff12, cost=4),
    "nyuv2": Reader(_write_nyuv2, _nyuv2, cost=20),
    "cache": Reader(_write_cache, _cache, cost=4),
    "compare": Reader(_write_run, _run, ("*.json*",), cost=60),
    "predictions": Reader(_write_predictions, _predictions, ("*/*",), overlay=_SAMPLE),
    "zedd": Reader(_write_zedd, _zedd, cost=10),
}
"""Readers of everything but pictures, by name."""
