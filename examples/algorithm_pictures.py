"""Draw the picture of each stage for docs/algorithm.md, from the example stack: about a minute.

    python examples/algorithm_pictures.py

Writes docs/images/stage_01_open.png to stage_10_enlarge.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import focaldiffusion as fd
from focaldiffusion.align.registration import find_alignment
from focaldiffusion.filters import box_mean
from focaldiffusion.fusion.fuse import Fusion, frame_weights, fuse
from focaldiffusion.fusion.upsample import upsample
from focaldiffusion.io.arrays import ArrayFrames
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.recovery import Estimate, estimate_depth
from focaldiffusion.simulation.render import render
from focaldiffusion.solve.consistency import rerender_residual
from focaldiffusion.solve.sweep import plane_misfit

ROOT = Path(__file__).resolve().parents[1]
STACK = ROOT / "examples" / "still_life" / "stack"

WORKING_SIZE_PX = 480
WIDTH_IN, DPI = 9.0, 100
NEAR_M, FAR_M = 0.37, 2.5

Picture = NDArray[Any]

# (x, y) in shares of the image: texture in the foreground, at the back, and none at all.
POINTS = {"paper": (0.50, 0.77), "globe": (0.80, 0.15), "bare wall": (0.95, 0.20)}
DETAIL = (slice(0, 190), slice(640, 893))  # of the native image: globe and wall
LEAVES = (slice(90, 210), slice(133, 293))


def panels(count: int, height_in: float) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side."""
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def picture(axes: Axes, image: Picture, title: str, **options: Any) -> Any:
    """Show an image without ticks."""
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.imshow(image, **options)


def depth(axes: Axes, coordinate_dpt: Picture, title: str) -> Any:
    """Show inverse depth in colours, near red."""
    return picture(axes, coordinate_dpt, title, cmap="turbo", vmin=1 / FAR_M, vmax=1 / NEAR_M)


def scale(figure: Figure, drawn: Any, axes: Any, label: str, **options: Any) -> Any:
    """Add a colour bar."""
    bar = figure.colorbar(drawn, ax=axes, shrink=0.9, pad=0.02, **options)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return bar


def metres(figure: Figure, drawn: Any, axes: Any) -> None:
    """Add the colour bar of `depth`, in metres."""
    bar = scale(figure, drawn, axes, "depth [m]")
    distances_m = [0.4, 0.5, 0.7, 1.0, 2.0]
    bar.set_ticks([1 / one for one in distances_m], labels=[f"{one:g}" for one in distances_m])


def save(figure: Figure, path: Path) -> None:
    """Write a small PNG, without the white below."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
    used = np.flatnonzero(pixels.min(axis=(1, 2)) < 255)
    pixels = pixels[: used[-1] + 5]
    Image.fromarray(pixels).quantize(256).save(path, optimize=True)
    print(f"{path.relative_to(path.parents[2])}: {path.stat().st_size / 1000:.0f} kB")


def srgb(linear: Tensor) -> Picture:
    """(3, H, W) linear light as an (H, W, 3) picture."""
    return linear_to_srgb(linear.clamp(0, 1)).permute(1, 2, 0).numpy()


def draw_open(opened: Any) -> Figure:
    """1: the frames and their focus distances."""
    figure, axes = panels(len(opened), 1.5)
    for index, distance_m in enumerate(opened.focus_distances_m):
        small = cv2.resize(opened.frames.read(index), (240, 180), interpolation=cv2.INTER_AREA)
        picture(axes[index], small, f"{distance_m:g} m")
    return figure


def draw_align(opened: Any) -> Figure:
    """2: the example does not move, so two of its frames are moved here."""
    frames = [opened.frames.read(index) for index in range(len(opened))]
    height, width = opened.frames.size
    for index in range(len(frames)):
        turn, zoom = 0.35 * (index - 2), 1 - 0.006 * (index - 2)
        motion = cv2.getRotationMatrix2D((width / 2, height / 2), turn, zoom)
        motion[:, 2] += (5 * (index - 2), -3 * (index - 2))
        frames[index] = cv2.warpAffine(
            frames[index], motion, (width, height), flags=cv2.INTER_LANCZOS4, borderMode=1
        ).clip(0, 1)
    moved = ArrayFrames(frames)
    found = find_alignment(moved)
    aligned = found.apply(moved)

    def overlaid(first: Picture, second: Picture) -> Picture:
        grey = [image.mean(2) for image in (first, second)]
        return np.stack([grey[0], grey[1], grey[1]], axis=2)

    figure, axes = panels(2, 2.9)
    shift = max(one.corner_displacement_px for one in found.frames)
    picture(axes[0], overlaid(frames[1], frames[4]), f"moved by up to {shift:.0f} px")
    crop = found.crop
    picture(
        axes[1],
        overlaid(aligned.read(1), aligned.read(4)),
        f"aligned, cropped to {crop.width}x{crop.height}",
    )
    return figure


def draw_working(opened: Any, stack: fd.FocalStack) -> Figure:
    """3: a detail of a native frame, and of the working image, in light."""
    figure, axes = panels(3, 2.6)
    native = opened.frames.read(4)[DETAIL]
    factor = stack.size[0] / opened.frames.size[0]
    rows, columns = (slice(int(one.start * factor), int(one.stop * factor)) for one in DETAIL)
    light = stack.images[4, :, rows, columns]
    picture(axes[0], native, f"native, {opened.frames.size[1]}x{opened.frames.size[0]}, sRGB")
    picture(axes[1], srgb(light), f"working size, {stack.size[1]}x{stack.size[0]}")
    picture(axes[2], light.permute(1, 2, 0).numpy().clip(0, 1), "the same as light, shown raw")
    return figure


def draw_calibrate(stack: fd.FocalStack, found: Estimate) -> Figure:
    """4: the misfit of the best plane against the blur scale."""
    small = stack.at_working_size(240)
    focus = stack.focus_coordinates
    known = found.calibration.blur_scale
    assert known is not None
    shrink = max(small.size) / max(stack.size)
    factors = np.geomspace(0.25, 4, 17)
    hypotheses = torch.linspace(float(focus.min()) - 0.3, float(focus.max()) + 0.3, 28)
    misfits = []
    for factor in factors:
        planes = plane_misfit(small, focus, hypotheses, known * shrink * factor, fd.PSF())
        misfits.append(float(box_mean(planes, 3).amin(0).mean()))
    figure, (axes,) = panels(1, 2.6)
    axes.plot(known * factors, np.array(misfits) / min(misfits), "o-", markersize=4)
    axes.axvline(known, color="tab:green", label=f"lens: {known:.2f} px per dioptre")
    measured = found.calibration.measured
    if measured is not None:
        label = f"measured: {measured.value:.2f}"
        axes.axvline(measured.value, color="tab:red", linestyle="--", label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.set_xlabel("blur diameter per dioptre [px]", fontsize=8)
    axes.set_ylabel("misfit / lowest", fontsize=8)
    axes.set_xticks([1.5, 3, 6, 12, 24], labels=["1.5", "3", "6", "12", "24"])
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8)
    return figure


def draw_sweep(stack: fd.FocalStack, found: Estimate) -> Figure:
    """5: the posterior at three pixels, its mean and its entropy."""
    evidence = found.evidence
    height, width = stack.size
    figure, axes = panels(3, 2.4)
    picture_axes, curve_axes, entropy_axes = axes
    depth(picture_axes, evidence.mean.numpy(), "posterior mean")
    for colour, (name, (x, y)) in zip(("red", "magenta", "black"), POINTS.items(), strict=True):
        column, row = int(x * width), int(y * height)
        picture_axes.plot(column, row, "o", color=colour, markersize=5, markeredgecolor="white")
        posterior = evidence.posterior[:, row, column].numpy()
        curve_axes.plot(evidence.hypotheses.numpy(), posterior, color=colour, label=name)
    curve_axes.set_title("posterior at three pixels", fontsize=9)
    curve_axes.set_xlabel("inverse depth [1/m]", fontsize=8)
    curve_axes.tick_params(labelsize=7)
    curve_axes.legend(fontsize=7)
    entropy = picture(entropy_axes, evidence.entropy.numpy(), "entropy", cmap="gray")
    scale(figure, entropy, entropy_axes, "0 certain, 1 flat")
    return figure


def draw_complete(found: Estimate) -> Figure:
    """6: from where evidence is to a surface everywhere."""
    evidence = found.evidence
    figure, axes = panels(3, 2.3)
    sure = evidence.certainty.numpy() > 0.2
    depth(axes[0], np.where(sure, evidence.mean.numpy(), np.nan), "certain evidence")
    drawn = depth(axes[1], found.coordinate.numpy(), "completed surface")
    metres(figure, drawn, axes[1])
    agreement = picture(
        axes[2], found.agreement.numpy(), "agreement of the directions", cmap="gray", vmin=0, vmax=1
    )
    scale(figure, agreement, axes[2], "share")
    return figure


def draw_check(stack: fd.FocalStack, found: Estimate) -> Figure:
    """7: a frame, the same frame rendered from the result, their difference, the confidence."""
    blur_scale = found.calibration.blur_scale
    assert blur_scale is not None
    evidence = found.evidence
    last = stack.focus_coordinates[-1:]
    rendered = render(evidence.all_in_focus, found.coordinate, last, blur_scale, found.psf)[0]
    residual = rerender_residual(stack, evidence, found.coordinate, blur_scale, found.psf)
    figure, axes = panels(4, 1.8)
    picture(axes[0], srgb(stack.images[-1]), "frame focused at 2.5 m")
    picture(axes[1], srgb(rendered), "the same, re-rendered")
    drawn = picture(
        axes[2], 255 * residual.numpy(), "difference, all frames", cmap="magma", vmin=0, vmax=15
    )
    scale(figure, drawn, axes[2], "of 255")
    drawn = picture(axes[3], found.confidence.numpy(), "confidence", cmap="gray", vmin=0, vmax=1)
    scale(figure, drawn, axes[3], "")
    return figure


def draw_model(physical: Estimate, refined: Estimate) -> Figure:
    """8: how far the compact model moves the surface, and where it may."""
    figure, axes = panels(3, 2.1)
    depth(axes[0], refined.coordinate.numpy(), "surface with the compact model")
    change = 100 * (physical.coordinate / refined.coordinate - 1).numpy()
    drawn = picture(axes[1], change, "change of depth", cmap="RdBu_r", vmin=-4, vmax=4)
    scale(figure, drawn, axes[1], "% (red: farther)")
    drawn = picture(
        axes[2],
        1 - physical.confidence.numpy(),
        "weight of the model",
        cmap="gray",
        vmin=0,
        vmax=1,
    )
    scale(figure, drawn, axes[2], "1 - confidence")
    return figure


def draw_fuse(opened: Any, fusion: Fusion) -> Figure:
    """9: the frame that each pixel comes from, and a detail of two frames and the fused image."""
    figure, axes = panels(4, 1.9)
    drawn = picture(axes[0], fusion.source_index + 1, "main frame", cmap="viridis", vmin=1, vmax=6)
    scale(figure, drawn, axes[0], "")
    for panel, index in ((axes[1], 0), (axes[2], 5)):
        distance_m = opened.focus_distances_m[index]
        picture(panel, opened.frames.read(index)[DETAIL], f"frame at {distance_m:g} m")
    picture(axes[3], fusion.all_in_focus[DETAIL], "fused")
    return figure


def draw_enlarge(found: Estimate, fusion: Fusion) -> Figure:
    """10: a detail of depth at working size, enlarged without and with the image."""
    size = fusion.source_index.shape
    working = found.coordinate.numpy()
    nearest = cv2.resize(working, size[::-1], interpolation=cv2.INTER_NEAREST)
    guided = upsample(found.coordinate, fusion.all_in_focus)
    figure, axes = panels(3, 2.4)
    picture(axes[0], fusion.all_in_focus[LEAVES], "fused image")
    depth(axes[1], nearest[LEAVES], "depth at working size")
    depth(axes[2], guided[LEAVES], "depth at native size")
    return figure


def main() -> None:
    """Draw all of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)

    opened = fd.open_stack(STACK)
    camera = opened.camera_for(0)
    stack = fd.FocalStack.read(
        opened.frames,
        long_side_px=WORKING_SIZE_PX,
        camera=camera,
        focus_distances_m=torch.tensor(opened.focus_distances_m),
    )
    physical = estimate_depth(stack, fd.PSF(), check_lens=True)
    refined = fd.load_model("compact", device="cpu").refine(stack, physical)
    weights = frame_weights(physical.evidence.sharpest, stack.focus_coordinates)
    fusion = fuse(opened.frames, weights)

    with torch.inference_mode():
        figures = {
            "stage_01_open": draw_open(opened),
            "stage_02_align": draw_align(opened),
            "stage_03_working": draw_working(opened, stack),
            "stage_04_calibrate": draw_calibrate(stack, physical),
            "stage_05_sweep": draw_sweep(stack, physical),
            "stage_06_complete": draw_complete(physical),
            "stage_07_check": draw_check(stack, physical),
            "stage_08_model": draw_model(physical, refined),
            "stage_09_fuse": draw_fuse(opened, fusion),
            "stage_10_enlarge": draw_enlarge(physical, fusion),
        }
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")


if __name__ == "__main__":
    main()
