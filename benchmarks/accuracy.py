"""Accuracy of FocalDiffusion's depth and all-in-focus image where the truth is known.

    python benchmarks/accuracy.py stacks FOLDER [FOLDER ...] [--json FILE]
    python benchmarks/accuracy.py rgbd FOLDER [--json FILE]

`stacks` takes scenes of `stack/` and `truth/{all_in_focus.png,depth.npz}`, or folders of such
scenes. `rgbd` takes a folder of scenes of `image.png`, `depth.npz` and `camera.json` (`fx` in
pixels) and simulates their stacks: long side at most 768 px, never enlarged; focus planes fixed at
0.8, 1.7, 3.0, 4.7 and 8.0 m whatever the scene; a full-frame lens at f/2.8, that is focal length
f = fx 36 mm / max(W, H) and aperture f / 2.8, with fx as the image distance of every frame;
disc blur in linear light; 8-bit sRGB with noise of 1 step. The frames then go through files and the
same reconstruction as any stack, unaligned, since all frames have one scale.

Depth is metric, never aligned to the truth, and scored where the truth is finite. The baseline is
the focus distance of the frame with the largest local Laplacian energy.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.evaluation import metrics
from focaldiffusion.evaluation.calibration import abs_rel_confident
from focaldiffusion.evaluation.image_metrics import psnr, ssim
from focaldiffusion.io.images import read_image, write_png
from focaldiffusion.io.stacks import OpenedStack, open_stack
from focaldiffusion.optics import Camera, linear_to_srgb, srgb_to_linear
from focaldiffusion.physics.capture import capture
from focaldiffusion.pipeline import Settings, reconstruct
from focaldiffusion.scene import Scene

FOCUS_DISTANCES_M = (0.8, 1.7, 3.0, 4.7, 8.0)
LONG_SIDE_PX = 768
F_NUMBER = 2.8
FULL_FRAME_WIDTH_M = 0.036
SCORED_PREFIXES = ("icl_", "midd_")
"""RGB-D scenes of opaque surfaces and truth without sensor noise; only they enter the mean."""

STACKS_CAPTION = "Depth is metric and never aligned to the truth."
RGBD_CAPTION = (
    "Simulated stacks: **our own renderer made the frames, with the blur model of our own sweep, "
    f"which flatters us.** Target: mean AbsRel of {' and '.join(f'{p}*' for p in SCORED_PREFIXES)} "
    "at most 0.08."
)


@dataclass(frozen=True)
class Score:
    """One scene: metric depth and its baseline, the all-in-focus image and its, and the cost."""

    abs_rel: float
    delta_1_05: float
    delta_1_25: float
    coverage: float
    abs_rel_confident_half: float
    argmax_abs_rel: float
    argmax_delta_1_25: float
    psnr_db: float
    ssim: float
    best_frame_psnr_db: float
    cpu_s: float


COLUMNS = {
    "abs_rel": "AbsRel",
    "delta_1_05": "δ1.05",
    "delta_1_25": "δ1.25",
    "coverage": "coverage",
    "abs_rel_confident_half": "AbsRel, confident half",
    "argmax_abs_rel": "argmax AbsRel",
    "argmax_delta_1_25": "argmax δ1.25",
    "psnr_db": "AiF PSNR",
    "ssim": "AiF SSIM",
    "best_frame_psnr_db": "best frame PSNR",
    "cpu_s": "CPU s",
}


@dataclass(frozen=True, eq=False)
class Scored:
    """A scene's score, and the confidence and relative error of its (P,) pixels with truth."""

    name: str
    score: Score
    confidence: NDArray[np.float32]
    relative_error: NDArray[np.float32]


def score_scene(scene: Path) -> Scored:
    """Reconstruct `scene`/stack and compare the result with `scene`/truth."""
    started = time.process_time()
    opened = open_stack(scene / "stack")
    found = reconstruct(opened, Settings(align="off")).reconstruction
    cpu_s = time.process_time() - started
    if found.depth_m is None:
        sys.exit(f"{scene}: no metric depth; its stack.json needs focus_distances_m.")

    truth_m = read_depth(scene / "truth" / "depth.npz")
    valid = truth_m.isfinite()
    depth = metrics.depth_metrics(found.depth_m, truth_m, valid)
    argmax_m = depth_of_sharpest_frame(opened)
    truth_image = chw(read_image(scene / "truth" / "all_in_focus.png"))
    image = chw(found.all_in_focus)
    relative_error = ((found.depth_m - truth_m).abs() / truth_m)[valid].nan_to_num(
        nan=1.0, posinf=1.0
    )
    score = Score(
        abs_rel=depth["abs_rel"],
        delta_1_05=depth["delta_1.05"],
        delta_1_25=depth["delta_1.25"],
        coverage=depth["coverage"],
        abs_rel_confident_half=abs_rel_confident(found.depth_m, truth_m, valid, found.confidence),
        argmax_abs_rel=metrics.abs_rel(argmax_m, truth_m, valid),
        argmax_delta_1_25=metrics.delta(argmax_m, truth_m, valid, 1.25),
        psnr_db=psnr(image, truth_image),
        ssim=ssim(image, truth_image),
        best_frame_psnr_db=max(
            psnr(chw(opened.frames.read(index)), truth_image) for index in range(len(opened))
        ),
        cpu_s=cpu_s,
    )
    return Scored(scene.name, score, found.confidence[valid].numpy(), relative_error.numpy())


def depth_of_sharpest_frame(opened: OpenedStack, window_px: int = 9) -> Tensor:
    """Depth by argmax of sharpness: (H, W) focus distance [m] of each pixel's sharpest frame.

    Sharpness is the squared Laplacian of the grey sRGB frame, averaged over a square window.
    """
    assert opened.focus_distances_m is not None
    sharpest = np.full(opened.frames.size, -1, np.float32)
    depth_m = np.zeros(opened.frames.size, np.float32)
    for index, distance_m in enumerate(opened.focus_distances_m):
        grey = cv2.cvtColor(opened.frames.read(index), cv2.COLOR_RGB2GRAY)
        energy = cv2.blur(cv2.Laplacian(grey, cv2.CV_32F) ** 2, (window_px, window_px))
        depth_m[energy > sharpest] = distance_m
        np.maximum(sharpest, energy, out=sharpest)
    return torch.from_numpy(depth_m)


def simulate(source: Path, output: Path, seed: int) -> None:
    """Photograph an RGB-D scene as this file's docstring says; write `output`/stack and /truth."""
    fx = json.loads((source / "camera.json").read_text())["fx"]
    image = srgb_to_linear(chw(read_image(source / "image.png")))
    depth_m = read_depth(source / "depth.npz")
    height, width = depth_m.shape
    focal_length_m = fx * FULL_FRAME_WIDTH_M / max(height, width)
    camera = Camera(fx, focal_length_m / F_NUMBER, (height, width))
    scene = Scene(image, depth_m, depth_m.isfinite(), camera, str(source)).resized(LONG_SIDE_PX)
    generator = torch.Generator().manual_seed(seed)
    frames = capture(scene, FOCUS_DISTANCES_M, noise_std_lsb=1.0, generator=generator).images

    stack, truth = output / "stack", output / "truth"
    stack.mkdir(parents=True)
    truth.mkdir()
    for index, frame in enumerate(frames):
        write_png(stack / f"frame_{index:02d}.png", hwc(linear_to_srgb(frame)))
    write_png(truth / "all_in_focus.png", hwc(linear_to_srgb(scene.all_in_focus)))
    known_m = scene.depth_m.where(scene.valid, torch.nan)
    np.savez_compressed(truth / "depth.npz", depth=known_m.numpy())
    sidecar = {
        "focus_distances_m": FOCUS_DISTANCES_M,
        "camera": {
            "focal_length_px": scene.camera.focal_length_px,
            "aperture_diameter_m": scene.camera.aperture_diameter_m,
        },
    }
    (stack / "stack.json").write_text(json.dumps(sidecar))


def find_scenes(folders: Sequence[Path], marker: str) -> list[Path]:
    """The scenes, which hold `marker`, at the folders: each itself one, or a folder of them."""
    scenes: list[Path] = []
    for folder in folders:
        inside = sorted(folder.iterdir()) if folder.is_dir() else []
        found = [path for path in (folder, *inside) if (path / marker).exists()]
        if not found:
            sys.exit(f"{folder}: no {marker} here, nor in a folder inside it.")
        scenes += found
    return scenes


def read_depth(path: Path) -> Tensor:
    """(H, W) metres of the key `depth`, NaN where the truth is not known."""
    depth_m = torch.from_numpy(np.load(path)["depth"].astype(np.float32))
    return depth_m.where(depth_m.isfinite() & (depth_m > 0), torch.nan)


def chw(image: NDArray[np.float32]) -> Tensor:
    """(H, W, 3) to (3, H, W)."""
    return torch.tensor(image).permute(2, 0, 1)


def hwc(image: Tensor) -> NDArray[np.float32]:
    """(3, H, W) to (H, W, 3)."""
    return image.permute(1, 2, 0).contiguous().numpy()


def mean_score(scored: Sequence[Scored]) -> Score:
    """The mean over scenes of every figure."""
    return Score(
        **{
            field.name: float(np.mean([getattr(one.score, field.name) for one in scored]))
            for field in fields(Score)
        }
    )


def calibration(scored: Sequence[Scored]) -> list[dict[str, float]]:
    """What confidence is worth: per tenth of all pixels, from the least confident, its hit rates.

    Pixels of equal confidence count alike, wherever a boundary falls between them.
    """
    confidence = np.concatenate([one.confidence for one in scored])
    error = np.concatenate([one.relative_error for one in scored])
    _, level, size = np.unique(confidence, return_inverse=True, return_counts=True)
    order = np.argsort(level, kind="stable")
    columns = {"mean_confidence": confidence.astype(np.float64)}
    for name, limit in (("within_5_percent", 0.05), ("within_10_percent", 0.1)):
        columns[name] = (np.bincount(level, weights=error < limit) / size)[level]
    tenths = {name: np.array_split(values[order], 10) for name, values in columns.items()}
    return [{name: float(tenths[name][i].mean()) for name in tenths} for i in range(10)]


def table(scored: Sequence[Scored], reported_only: Sequence[Scored]) -> str:
    """A row a scene, the mean of the scored ones, then those that are only reported."""
    rows = [["scene", *COLUMNS.values()], ["---"] * (len(COLUMNS) + 1)]
    rows += [_row(one.name, one.score) for one in scored]
    if scored:
        rows.append(_row(f"**mean of {len(scored)}**", mean_score(scored)))
    rows += [_row(f"{one.name} (reported only)", one.score) for one in reported_only]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _row(name: str, score: Score) -> list[str]:
    decimals = {"abs_rel": 4, "psnr_db": 2, "ssim": 4, "best_frame_psnr_db": 2, "cpu_s": 1}
    cells = {key: f"{getattr(score, key):.{decimals.get(key, 3)}f}" for key in COLUMNS}
    if score.psnr_db < score.best_frame_psnr_db:
        cells["psnr_db"] += " (below best frame)"
    return [name, *cells.values()]


def calibration_table(tenths: Sequence[dict[str, float]]) -> str:
    """The calibration, a column a tenth of the pixels."""
    rows = [["confidence", *(f"{t['mean_confidence']:.2f}" for t in tenths)]]
    rows.append(["---"] * (len(tenths) + 1))
    rows.append(["error < 5 %", *(f"{t['within_5_percent']:.0%}" for t in tenths)])
    rows.append(["error < 10 %", *(f"{t['within_10_percent']:.0%}" for t in tenths)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def score_stacks(folders: Sequence[Path]) -> list[Scored]:
    """The scores of all scenes at the folders, each announced when it is done."""
    scored = []
    for scene in find_scenes(folders, "truth/depth.npz"):
        scored.append(score_scene(scene))
        print(f"{scene.name}: AbsRel {scored[-1].score.abs_rel:.3f}", file=sys.stderr, flush=True)
    return scored


def score_rgbd(folder: Path, seed: int) -> list[Scored]:
    """The scores of the stacks simulated from the RGB-D scenes in the folder."""
    with tempfile.TemporaryDirectory() as name:
        simulated = Path(name)
        for scene in find_scenes([folder], "camera.json"):
            simulate(scene, simulated / scene.resolve().name, seed)
        return score_stacks([simulated])


def main() -> None:
    """Score the scenes of the command line, print the tables and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    stacks = commands.add_parser("stacks", help="stacks on disk with truth beside them")
    stacks.add_argument("folders", type=Path, nargs="+", help="scenes, or folders of scenes")
    rgbd = commands.add_parser("rgbd", help="stacks simulated from images with metric depth")
    rgbd.add_argument("folder", type=Path, help="a scene, or a folder of scenes")
    rgbd.add_argument("--seed", type=int, default=0, help="of the noise")
    for command in (stacks, rgbd):
        command.add_argument("--json", type=Path, help="where to write all figures")
    arguments = parser.parse_args()

    if arguments.command == "rgbd":
        every = score_rgbd(arguments.folder, arguments.seed)
        caption = RGBD_CAPTION
        scored = [one for one in every if one.name.startswith(SCORED_PREFIXES)]
    else:
        every = scored = score_stacks(arguments.folders)
        caption = STACKS_CAPTION
    tenths = calibration(scored or every)
    print(caption, table(scored, [one for one in every if one not in scored]), sep="\n\n")
    print("\nTenths of the pixels, by confidence:", calibration_table(tenths), sep="\n\n")
    if arguments.json:
        record = {
            "caption": caption,
            "scenes": {one.name: asdict(one.score) for one in every},
            "mean_of": [one.name for one in scored],
            "mean": asdict(mean_score(scored)) if scored else None,
            "calibration": tenths,
        }
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
