"""All-in-focus quality, time and memory of FocalDiffusion and other focus stackers, side by side.

    python benchmarks/peers.py SCENES... --output DIR [--align on|off] [--tools NAME ...]

A scene is a folder of frames, or a folder with `stack/` and, for a score, `truth/all_in_focus.png`;
a folder of scenes stands for all of them. Every tool runs as a child process with the settings that
its documentation recommends for focus stacking. DIR receives <tool>/<scene>.png and results.json.

PSNR and SSIM are computed on sRGB in [0, 1]. Time is user + system over all cores; memory is the
largest resident set of any process of the tool.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import IO, TYPE_CHECKING

from stackers import (
    Enfuse,
    FocalDiffusion,
    FocusWeave,
    FusionJob,
    OpenFocus,
    ShineStacker,
    Tool,
)

if TYPE_CHECKING:
    from torch import Tensor

# Only the standard library is imported here: on Linux a child's peak memory includes that of the
# process that starts it, so this process stays small until the last tool has run.

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"}
BEST_FRAME = "best single frame"


@dataclass(frozen=True)
class StackFiles:
    """One stack: frames in focus order, and the true all-in-focus image if known."""

    name: str
    stack: Path
    frames: tuple[Path, ...]
    truth: Path | None


@dataclass(frozen=True)
class Usage:
    """Resources of a tool: wall, user and system time, and peak memory."""

    wall_s: float
    user_s: float
    system_s: float
    peak_rss_mib: float


@dataclass(frozen=True)
class ToolRun:
    """One tool on one scene: its image and resources, or its failure."""

    tool: str
    scene: str
    usage: Usage | None = None
    image: str | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Score:
    """Agreement of an image with the truth."""

    psnr_db: float
    ssim: float


def find_scenes(paths: Sequence[Path]) -> list[StackFiles]:
    """The scenes at paths that are each a scene or a folder of scenes."""
    scenes: list[StackFiles] = []
    for path in paths:
        if not path.is_dir():
            sys.exit(f"{path}: folder not found; expected a scene or a folder of scenes.")
        scene = _scene_at(path)
        inside = [] if scene else [_scene_at(entry) for entry in sorted(path.iterdir())]
        found = [candidate for candidate in (scene, *inside) if candidate is not None]
        if not found:
            sys.exit(f"{path}: no frames, neither here nor in scenes inside it.")
        scenes += found
    return scenes


def _scene_at(path: Path) -> StackFiles | None:
    stack = path / "stack" if (path / "stack").is_dir() else path
    if not stack.is_dir():
        return None
    sidecar = stack / "stack.json"
    listed = json.loads(sidecar.read_text()).get("files") if sidecar.exists() else None
    images = (entry for entry in stack.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES)
    frames = tuple(stack / name for name in listed) if listed else tuple(sorted(images))
    truth = path / "truth" / "all_in_focus.png"
    return (
        StackFiles(path.name, stack, frames, truth if truth.exists() else None) if frames else None
    )


def measure(tool: Tool, scene: StackFiles, output: Path, align: bool) -> ToolRun:
    """Run a tool on a scene in child processes; its image and log go to `output`/<scene>.*."""
    output.mkdir(parents=True, exist_ok=True)
    log = output / f"{scene.name}.log"
    used: list[Usage] = []
    with tempfile.TemporaryDirectory() as folder, log.open("w") as log_stream:
        job = FusionJob(scene.stack.resolve(), Path(folder, "frames"), Path(folder), align)
        job.frames.mkdir()
        for index, frame in enumerate(scene.frames):
            (job.frames / f"{index:03d}{frame.suffix.lower()}").symlink_to(frame.resolve())
        for command in tool.commands(job):
            if shutil.which(command[0]) is None:
                missing = f"{command[0]} not installed: {tool.how_to_install}"
                return ToolRun(tool.name, scene.name, failure=missing)
            usage, exit_code = run_measured(command, job.scratch, log_stream)
            used.append(usage)
            if exit_code != 0:
                return ToolRun(tool.name, scene.name, failure=f"exit code {exit_code}, see {log}")
        fused = tool.image(job)
        if not fused.is_file():
            return ToolRun(tool.name, scene.name, failure=f"no image written, see {log}")
        image = output / f"{scene.name}{fused.suffix}"
        shutil.copyfile(fused, image)
    total = Usage(
        wall_s=sum(usage.wall_s for usage in used),
        user_s=sum(usage.user_s for usage in used),
        system_s=sum(usage.system_s for usage in used),
        peak_rss_mib=max(usage.peak_rss_mib for usage in used),
    )
    return ToolRun(tool.name, scene.name, total, str(image))


def run_measured(command: Sequence[str], folder: Path, log: IO[str]) -> tuple[Usage, int]:
    """Run a command in a folder; resources of it and its descendants, and its exit code."""
    start = time.perf_counter()
    child = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    _, status, usage = os.wait4(child.pid, 0)
    wall_s = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    # Kibibytes on Linux, bytes on macOS.
    peak_rss_mib = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return Usage(wall_s, usage.ru_utime, usage.ru_stime, peak_rss_mib), child.returncode


def score(image: Path, truth: Path) -> Score:
    """PSNR and SSIM of an image file against the truth, on sRGB in [0, 1].

    Raises:
        ValueError: sizes differ.
    """
    from focaldiffusion.evaluation.image_metrics import psnr, ssim

    prediction, reference = _load(image), _load(truth)
    if prediction.shape != reference.shape:
        raise ValueError(f"{image}: {tuple(prediction.shape)}, truth {tuple(reference.shape)}")
    return Score(psnr(prediction, reference), ssim(prediction, reference))


def best_frame(scene: StackFiles, truth: Path) -> ToolRun:
    """The frame with the best PSNR: the result of doing nothing."""
    from focaldiffusion.evaluation.image_metrics import psnr

    reference = _load(truth)
    best = max(scene.frames, key=lambda frame: psnr(_load(frame), reference))
    return ToolRun(BEST_FRAME, scene.name, image=str(best))


def _load(path: Path) -> Tensor:
    import numpy as np
    import torch
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W)


def score_all(
    results: Sequence[ToolRun], truths: Mapping[str, Path]
) -> tuple[list[ToolRun], dict[tuple[str, str], Score]]:
    """Score runs against the truth.

    Returns:
        The runs, as failures where an image differs in size from the truth; and the scores by
        (tool, scene), none for scenes without truth.
    """
    scored: list[ToolRun] = []
    scores: dict[tuple[str, str], Score] = {}
    for result in results:
        if result.image and result.scene in truths:
            try:
                scores[result.tool, result.scene] = score(Path(result.image), truths[result.scene])
            except ValueError as error:
                result = replace(result, failure=str(error))
        scored.append(result)
    return scored, scores


def markdown_table(results: Sequence[ToolRun], scores: dict[tuple[str, str], Score]) -> str:
    """A row per scene and a column per tool: PSNR [dB] / SSIM, user + system time, memory."""
    tools = list(dict.fromkeys(result.tool for result in results))
    scenes = list(dict.fromkeys(result.scene for result in results))
    cells = {(result.tool, result.scene): _cell(result, scores) for result in results}
    rows = [["scene", *tools], ["---"] * (len(tools) + 1)]
    rows += [[scene, *(cells.get((tool, scene), "") for tool in tools)] for scene in scenes]
    return markdown(rows)


def summary_table(results: Sequence[ToolRun], scores: dict[tuple[str, str], Score]) -> str:
    """A row per tool: mean PSNR [dB] and SSIM, mean time a scene, largest memory.

    A tool that failed on a scene has no means: over fewer scenes they would invite a false
    comparison.
    """
    rows = [["tool", "PSNR [dB]", "SSIM", "user + system [s]", "peak memory [MiB]"], ["---"] * 5]
    scenes = {scene for _, scene in scores}
    for tool in dict.fromkeys(result.tool for result in results):
        found = [scores[tool, scene] for scene in scenes if (tool, scene) in scores]
        row = [tool, "", "", "", ""]
        if found and len(found) == len(scenes):
            row[1] = f"{fmean(score.psnr_db for score in found):.2f}"
            row[2] = f"{fmean(score.ssim for score in found):.3f}"
        runs = [result for result in results if result.tool == tool]
        used = [result.usage for result in runs if result.usage is not None]
        if used and len(used) == len(runs):
            user_s = fmean(one.user_s for one in used)
            system_s = fmean(one.system_s for one in used)
            row[3] = f"{user_s:.1f} + {system_s:.1f}"
            row[4] = f"{max(one.peak_rss_mib for one in used):.0f}"
        rows.append(row)
    return markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown; the first two rows are its head."""
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cell(result: ToolRun, scores: dict[tuple[str, str], Score]) -> str:
    if result.failure:
        return result.failure
    parts = []
    if score := scores.get((result.tool, result.scene)):
        parts.append(f"{score.psnr_db:.2f} / {score.ssim:.4f}")
    if usage := result.usage:
        parts.append(f"{usage.user_s:.1f} + {usage.system_s:.1f} s, {usage.peak_rss_mib:.0f} MiB")
    return "; ".join(parts)


def main() -> None:
    """Run the tools on the scenes, score their images, print a table and write results.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("scenes", type=Path, nargs="+", help="scenes, or folders of scenes")
    parser.add_argument("--output", type=Path, required=True, help="folder for images and results")
    parser.add_argument("--align", choices=("on", "off"), default="off", help="register the frames")
    parser.add_argument(
        "--venvs", type=Path, default=Path("peers"), help="folder of the peers' environments"
    )
    parser.add_argument("--tools", nargs="+", help="tools to run (default: all)")
    arguments = parser.parse_args()

    venvs = arguments.venvs.resolve()
    tools: list[Tool] = [
        FocalDiffusion(),
        FocusWeave(venvs),
        Enfuse(),
        ShineStacker(venvs),
        OpenFocus(venvs, "stackmffv3"),
        OpenFocus(venvs, "openfocus_b"),
    ]
    names = [tool.name for tool in tools]
    unknown = set(arguments.tools or []) - set(names)
    if unknown:
        parser.error(f"unknown tools {sorted(unknown)}; there are {', '.join(names)}")
    scenes = find_scenes(arguments.scenes)

    arguments.output.mkdir(parents=True, exist_ok=True)
    versions: dict[str, str] = {}
    results: list[ToolRun] = []
    for tool in tools:
        if arguments.tools and tool.name not in arguments.tools:
            continue
        version = tool.version()
        versions[tool.name] = version or f"not installed: {tool.how_to_install}"
        print(f"{tool.name}: {versions[tool.name]}", flush=True)
        for scene in scenes:
            if version is None:
                results.append(ToolRun(tool.name, scene.name, failure="not installed"))
                continue
            result = measure(tool, scene, arguments.output / tool.name, arguments.align == "on")
            print(f"  {scene.name}: {_cell(result, {})}", flush=True)
            results.append(result)

    results += [best_frame(scene, scene.truth) for scene in scenes if scene.truth]
    truths = {scene.name: scene.truth for scene in scenes if scene.truth}
    results, scores = score_all(results, truths)
    rows = []
    for result in results:
        score_ = scores.get((result.tool, result.scene))
        rows.append({**asdict(result), "score": asdict(score_) if score_ else None})
    record = {"align": arguments.align, "versions": versions, "results": rows}
    (arguments.output / "results.json").write_text(json.dumps(record, indent=2))
    print(f"{markdown_table(results, scores)}\n\n{summary_table(results, scores)}")


if __name__ == "__main__":
    main()
