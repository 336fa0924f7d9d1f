"""Results of stacks with one wrong frame, value, order or number, and the sentences about them.

    python benchmarks/faulty_stacks.py [--scene FOLDER ...] [--kind WORD ...]

Each stack (the two examples by default; any folder with stack/ and truth/) is halved in size,
spoilt in one way, written to files, and reconstructed. A row gives the error of depth (mean
relative error, 1 where depth is withheld; without distances the mean error in frames), the PSNR of
the all-in-focus image [dB], the mean confidence, and what was said: a refusal, a frame left out, or
a warning. A row with a large error, high confidence and no sentence is a defect.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

import focaldiffusion as fd

Pixels = NDArray[Any]
Array = NDArray[np.float64]
Spoilt = Iterator[tuple[str, "Stack"]]

ROOT = Path(__file__).parents[1]
SCENES = (ROOT / "examples/still_life", ROOT / "examples/circuit")


@dataclass(frozen=True)
class Stack:
    """Frames as they will be written, and what is told about them.

    Attributes:
        frames: (H, W, C) uint8 or uint16 each.
        told: the content of `stack.json`; empty for none.
        image: (H, W, 3) true all-in-focus image in the values of the frames, from 0 to 1.
        depth_m: (H, W) true depth [m]; NaN where the frames show something else.
        settings: of the reconstruction.
        light: factor from values / (2^bits - 1) to those of `image`.
        black: value / (2^bits - 1) of black.
    """

    frames: tuple[Pixels, ...]
    told: dict[str, Any]
    image: Array
    depth_m: Array
    settings: fd.Settings = field(default_factory=fd.Settings)
    light: float = 1.0
    black: float = 0.0

    @property
    def distances_m(self) -> list[float]:
        """Told focus distances."""
        return list(self.told["focus_distances_m"])

    @property
    def middle(self) -> int:
        """Index of the middle frame."""
        return (len(self.frames) - 1) // 2

    @property
    def order_only(self) -> Stack:
        """The stack without `stack.json`."""
        return replace(self, told={})

    @property
    def on_a_stage(self) -> Stack:
        """The stack with stage positions for distances."""
        return replace(
            self, told={"focus_positions_m": [1e-3 * i for i in range(len(self.frames))]}
        )

    def with_frame(self, index: int, frame: Pixels) -> Stack:
        """The stack with another frame."""
        frames = list(self.frames)
        frames[index] = frame
        return replace(self, frames=tuple(frames))

    def with_distances(self, distances: list[float]) -> Stack:
        """The stack with other distances."""
        return replace(self, told={**self.told, "focus_distances_m": distances})

    def with_aperture(self, factor: float) -> Stack:
        """The stack with an aperture that is wrong by a factor."""
        camera = dict(self.told["camera"])
        camera["aperture_diameter_m"] *= factor
        return replace(self, told={**self.told, "camera": camera})

    def reordered(self, order: list[int]) -> Stack:
        """The frames in another order; what is told stays."""
        return replace(self, frames=tuple(self.frames[index] for index in order))

    def write(self, folder: Path) -> None:
        """Write the frames and `stack.json`."""
        for index, frame in enumerate(self.frames):
            if frame.dtype == np.uint8:
                Image.fromarray(frame).save(folder / f"frame_{index:02d}.png")
            else:
                tifffile.imwrite(folder / f"frame_{index:02d}.tif", frame, photometric="rgb")
        if self.told:
            (folder / "stack.json").write_text(json.dumps(self.told))


def opened(scene: Path) -> Stack:
    """A scene at half size."""
    told = json.loads((scene / "stack/stack.json").read_text())
    camera = told["camera"] | {"focal_length_px": told["camera"]["focal_length_px"] / 2}
    paths = sorted(p for p in (scene / "stack").iterdir() if p.suffix in (".jpg", ".png"))
    image = halved(np.asarray(Image.open(scene / "truth/all_in_focus.png").convert("RGB")))
    with np.load(scene / "truth/depth.npz") as archive:
        depth_m = archive["depth"][::2, ::2].astype(np.float64)
    return Stack(
        frames=tuple(halved(np.asarray(Image.open(path).convert("RGB"))) for path in paths),
        told={"focus_distances_m": told["focus_distances_m"], "camera": camera},
        image=image / 255,
        depth_m=depth_m[: image.shape[0], : image.shape[1]],
    )


def halved(image: Pixels) -> Pixels:
    height, width = image.shape[0] // 2, image.shape[1] // 2
    even = image[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA))


def resized(stack: Stack, size: tuple[int, int]) -> Stack:
    """The stack at (height, width), with the same angle of view."""

    def reduced(image: Pixels, interpolation: int = cv2.INTER_AREA) -> Pixels:
        return np.asarray(cv2.resize(image, size[::-1], interpolation=interpolation))

    camera = dict(stack.told["camera"])
    camera["focal_length_px"] *= size[1] / stack.depth_m.shape[1]
    return replace(
        stack,
        frames=tuple(reduced(frame) for frame in stack.frames),
        told={**stack.told, "camera": camera},
        image=reduced(stack.image),
        depth_m=reduced(stack.depth_m, cv2.INTER_NEAREST),
    )


def exposed(values: Array, gain: float | tuple[float, float, float]) -> Array:
    """sRGB values in [0, 1] of multiplied and clipped light."""
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return encoded(np.clip(light * np.asarray(gain), 0, 1))


def encoded(light: Array) -> Array:
    """sRGB values of light."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def exposed_frame(frame: Pixels, gain: float | tuple[float, float, float]) -> Pixels:
    return np.rint(exposed(frame / 255, gain) * 255).astype(np.uint8)


def wrong_frames(stack: Stack, stranger: Pixels) -> Spoilt:
    """Frames that show nothing, something else, or the same again."""
    count, middle = len(stack.frames), stack.middle
    black = np.zeros_like(stack.frames[0])
    grain = np.random.default_rng(0).integers(100, 140, black.shape).astype(np.uint8)
    for place, index in (("first", 0), ("middle", middle), ("last", count - 1)):
        yield f"black frame, {place}", stack.with_frame(index, black)
    yield "white frame, middle", stack.with_frame(middle, black + np.uint8(255))
    yield "frame of noise, middle", stack.with_frame(middle, grain)
    left_out = replace(stack.order_only, settings=fd.Settings(drop_unaligned=True))
    yield "black frame to leave out, order only", left_out.with_frame(middle, black)
    for name, told in (
        ("", stack),
        (", order only", stack.order_only),
        (", stage", stack.on_a_stage),
    ):
        yield f"foreign frame{name}", told.with_frame(middle, stranger)
        yield (
            f"foreign frame, alignment off{name}",
            replace(told.with_frame(middle, stranger), settings=fd.Settings(align="off")),
        )
        yield f"copy of a frame{name}", told.with_frame(middle + 1, stack.frames[middle])
        yield f"equal frames{name}", replace(told, frames=(stack.frames[middle],) * count)
    sharp = np.rint(stack.image * 255).astype(np.uint8)
    stacked = (*stack.frames, sharp)
    yield "stacked result among the frames, order only", replace(stack.order_only, frames=stacked)


def wrong_exposures(stack: Stack) -> Spoilt:
    """Frames brighter, darker or of another colour than the others."""
    middle, frames = stack.middle, stack.frames
    for gain in (0.25, 2, 8, 0.125):
        for place, index in (("first", 0), ("middle", middle)):
            spoilt = stack.with_frame(index, exposed_frame(frames[index], gain))
            yield f"one frame x {gain:g}, {place}", spoilt
    cast = exposed_frame(frames[middle], (1.3, 1.0, 0.7))
    yield "one frame of another white balance", stack.with_frame(middle, cast)
    stops = range(-2, len(frames) - 2)
    bracket = tuple(exposed_frame(frames[middle], 2.0**stop) for stop in stops)
    yield "exposure bracket at one focus", replace(stack, frames=bracket)
    yield "exposure bracket at one focus, order only", replace(stack.order_only, frames=bracket)
    bright = tuple(exposed_frame(frame, 4) for frame in frames)
    yield (
        "highlights clipped in all frames",
        replace(stack, frames=bright, image=exposed(stack.image, 4)),
    )


def wrong_values(stack: Stack) -> Spoilt:
    """Values that do not fill their files, and pixels that are not shown."""
    for bits in (14, 12, 10):
        white = 2**bits - 1
        frames = tuple(np.rint(frame * (white / 255)).astype(np.uint16) for frame in stack.frames)
        yield f"{bits} bits in 16", replace(stack, frames=frames, light=65535 / white)
    frames = tuple(np.rint(57 + frame * (750 / 255)).astype(np.uint16) for frame in stack.frames)
    yield (
        "counts from 57 to 807 in 16 bits",
        replace(stack, frames=frames, light=65535 / 750, black=57 / 65535),
    )
    for divisor in (8, 32):
        dark = tuple(np.rint(frame / divisor).astype(np.uint8) for frame in stack.frames)
        yield f"values divided by {divisor}", replace(stack, frames=dark, light=float(divisor))
    height, width = stack.frames[0].shape[:2]
    alpha = np.zeros((height, width, 1), np.uint8)
    alpha[height // 12 : -height // 12, width // 12 : -width // 12] = 255
    shown = tuple(np.dstack([frame * (alpha > 0), alpha]) for frame in stack.frames)
    yield "transparent border", replace(stack, frames=shown)
    for width in (120, 60, 40):
        small = resized(stack, (width * 3 // 4, width))
        yield f"{width} px wide", small
        yield f"{width} px wide, order only", small.order_only


def wrong_orders(stack: Stack) -> Spoilt:
    """Frames that are not in the order of their focus."""
    count, middle = len(stack.frames), stack.middle
    shuffled = [int(index) for index in np.random.default_rng(3).permutation(count)]
    centre_first = sorted(range(count), key=lambda index: (abs(index - middle), index))
    twice = [*range(0, count, 2), *range(1, count, 2)]
    for name, order in (
        ("shuffled", shuffled),
        ("centre first", centre_first),
        ("two sweeps in a row", twice),
    ):
        yield f"frames {name}, order only", stack.order_only.reordered(order)
        yield f"frames {name}, distances in order", stack.reordered(order)
    swapped = [0, 2, 1, *range(3, count)]
    yield "two frames swapped, distances in order", stack.reordered(swapped)
    yield "frames reversed, distances in order", stack.reordered([*reversed(range(count))])


def wrong_numbers(stack: Stack) -> Spoilt:
    """Distances in another unit, and another lens than told."""
    distances_m = stack.distances_m
    for unit, factor in (("cm", 100.0), ("feet", 3.2808), ("inches", 39.37)):
        yield f"distances in {unit}", stack.with_distances([one * factor for one in distances_m])
    yield "distances in dioptres", stack.with_distances([1 / one for one in distances_m])
    for factor in (1.3, 1.9, 4.0):
        yield f"aperture x {factor:g}", stack.with_aperture(factor)


def still_cloth(stack: Stack) -> Spoilt:
    """Motionless frames of a periodic pattern, more and more blurred."""
    height, width = stack.frames[0].shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    for period_px in (6, 8, 11):
        waves = np.sin(2 * np.pi * x / period_px) + np.sin(2 * np.pi * y / period_px)
        light = np.dstack([0.3 + 0.12 * waves] * 3)
        blurred = (cv2.GaussianBlur(light, (0, 0), 0.3 + 0.4 * i) for i in range(len(stack.frames)))
        yield (
            f"cloth of {period_px} px period, motionless, order only",
            replace(
                stack.order_only,
                frames=tuple(
                    np.rint(255 * encoded(np.asarray(one, np.float64))).astype(np.uint8)
                    for one in blurred
                ),
                image=encoded(light),
                depth_m=np.full((height, width), np.nan),
            ),
        )


def row(stack: Stack, focus_m: list[float]) -> tuple[str, str, str, str]:
    """Error, PSNR, confidence and what was said."""
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stack.write(Path(name))
        try:
            result = fd.reconstruct(name, settings=stack.settings)
        except fd.InputError as error:
            return "", "", "", f"refused: {str(error).replace(name + '/', '')}"
        said = [str(one.message).replace(f"{Path(name).name}: ", "") for one in caught]
    assert result.alignment is not None
    crop = result.alignment.crop
    window = np.s_[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    said += [
        f"left out frame {index + 1}: {why}" for index, why in result.alignment.dropped.items()
    ]
    shown = result.confidence >= 0 if result.alpha is None else result.alpha > 0
    image = (result.levels.file_values(result.all_in_focus) - stack.black) * stack.light
    difference = np.square(image - stack.image[window])[shown]
    return (
        error_of(result, stack.depth_m[window], shown, focus_m),
        f"{-10 * np.log10(difference.mean()):.1f}",
        f"{result.confidence[shown].mean():.2f}",
        "; ".join(said),
    )


def error_of(result: fd.Result, depth_m: Array, shown: Pixels, focus_m: list[float]) -> str:
    """The error of depth, with its unit."""
    if result.depth_m is not None:
        relative = np.abs(result.depth_m - depth_m) / depth_m
        return f"{np.where(np.isnan(result.depth_m), 1, relative)[shown].mean():.3f}"
    if result.depth_relative is None or np.isnan(depth_m).all():
        return ""
    focus_dpt = 1 / np.array(focus_m)
    order = np.argsort(focus_dpt)
    place = np.interp(1 / depth_m, focus_dpt[order], order.astype(np.float64))
    found = result.depth_relative * (len(focus_m) - 1)
    # A sweep that is found without names may run either way.
    errors = (np.abs(one - place)[shown].mean() for one in (found, len(focus_m) - 1 - found))
    return f"{min(errors):.2f} frames"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scene", nargs="+", type=Path, default=SCENES, help="stacks to spoil")
    parser.add_argument(
        "--kind", nargs="+", default=[""], help="only kinds with one of these words"
    )
    options = parser.parse_args()
    print("| stack | what is wrong | error | PSNR | confidence | said |\n|---|---|---|---|---|---|")
    scenes = [opened(scene) for scene in options.scene]
    for index, (scene, stack) in enumerate(zip(options.scene, scenes, strict=True)):
        other = scenes[index - 1].frames[0] if len(scenes) > 1 else stack.frames[0][::-1]
        size = stack.frames[0].shape[1::-1]
        stranger = np.asarray(cv2.resize(other, size, interpolation=cv2.INTER_AREA))
        spoilt = [
            ("nothing", stack),
            ("nothing, order only", stack.order_only),
            ("nothing, stage", stack.on_a_stage),
            *wrong_frames(stack, stranger),
            *wrong_exposures(stack),
            *wrong_values(stack),
            *wrong_orders(stack),
            *wrong_numbers(stack),
            *still_cloth(stack),
        ]
        for kind, one in spoilt:
            if any(word in kind for word in options.kind):
                cells = row(one, stack.distances_m)
                print(f"| {scene.name} | {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
