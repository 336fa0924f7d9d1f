"""How often the true depth lies in its interval, and how wide that is.

    python benchmarks/intervals.py stacks FOLDER     # path_traced_rooms.py makes such folders
    python benchmarks/intervals.py rendered FOLDER

Prints Markdown tables, mean over scenes: the interval of `depth_near` and `depth_far`, beside one
that follows from confidence alone. Rims lie within 14 px of a step of true depth; bare pixels have
no texture nearby. Widths are in pixels of blur diameter at the size at which depth is solved.
Distances are those of pairs of pixels drawn at random; their width is relative to the distance.
"""

from __future__ import annotations

from collections import defaultdict

import cv2
import numpy as np
import torch
from measured import Measured, command_line, measured
from numpy.typing import NDArray

from focaldiffusion.data.dataset import StackSample
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.recovery import Estimate, estimate_depth
from focaldiffusion.solve.uncertainty import coordinate_interval, distance_interval

Array = NDArray[np.float64]

_STEP = 1.08  # ratio of depths of neighbours, from which there is an outline
_RIM_PX = 14
_BUSY = 8.0  # mean gradient in 9x9 px, 8 bit, from which there is texture
_PAIRS = 400
# The error that nine of ten pixels stay below at each confidence, in pixels of blur diameter.
_CONFIDENCE = (0.0, 0.6, 0.7, 0.8, 0.9, 1.0)
_ERROR_PX = (9.0, 9.0, 2.0, 0.57, 0.36, 0.32)


def regions(sample: StackSample) -> dict[str, NDArray[np.bool_]]:
    """Where the true depth is known (H, W): everywhere, at rims, on bare and textured surfaces."""
    valid = sample.valid.numpy()
    log = np.log(np.where(valid, sample.depth_m.numpy(), 1e4).astype(np.float32))
    kernel = np.ones((3, 3), np.uint8)
    flat = cv2.dilate(log, kernel) - cv2.erode(log, kernel) <= np.log(_STEP)
    rims = cv2.distanceTransform(flat.astype(np.uint8), cv2.DIST_L2, 5) <= _RIM_PX
    assert sample.all_in_focus is not None
    image = linear_to_srgb(sample.all_in_focus.clamp(0, 1)).permute(1, 2, 0).numpy() * 255
    luma = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 1)
    slope = np.hypot(cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1))
    busy = cv2.blur(slope, (9, 9)) > _BUSY
    return {
        "all pixels": valid,
        "rims": valid & rims,
        "bare": valid & ~rims & ~busy,
        "textured": valid & ~rims & busy,
    }


def intervals_px(found: Estimate) -> dict[str, Array]:
    """Ends (2, H, W) of either interval of the inverse depth, in pixels of blur diameter."""
    scale = found.calibration.blur_scale
    if scale is None:
        raise SystemExit("the blur of the lens is unknown, so there are no intervals.")
    ours = coordinate_interval(found.coordinate, found.confidence, found.competing, scale)
    centre = found.coordinate.double().numpy() * scale
    half = np.exp(np.interp(found.confidence.numpy(), _CONFIDENCE, np.log(_ERROR_PX)))
    return {
        "near and far": (ours.double().numpy() * scale).clip(0),
        "confidence alone": np.stack([centre - half, centre + half]).clip(0),
    }


def distances(sample: StackSample, found: Estimate, ends_dpt: Array) -> tuple[float, float]:
    """Share of distances in their intervals, and the median width of these."""
    camera, random = sample.stack.camera, np.random.default_rng(0)
    assert camera is not None
    known = sample.valid.numpy() & (found.coordinate.numpy() > 0)
    pixels = random.choice(np.flatnonzero(known), (_PAIRS, 2))
    depth_m, near_m, far_m = (
        1 / np.maximum(plane.ravel()[pixels], 1e-9)
        for plane in (found.coordinate.double().numpy(), ends_dpt[1], ends_dpt[0])
    )
    far_m[far_m >= 1e9] = np.inf
    row, column = np.divmod(pixels, known.shape[1])
    focal_px, (x, y) = camera.focal_length_px, camera.principal_point_px
    rays = np.stack(
        [(column + 0.5 - x) / focal_px, (row + 0.5 - y) / focal_px, np.ones(row.shape)], -1
    )
    true_m = sample.depth_m.double().numpy().ravel()[pixels][..., None] * rays
    apart_m = np.linalg.norm(true_m[:, 0] - true_m[:, 1], axis=1)
    low_m, high_m = np.transpose(
        [
            distance_interval(ray, list(zip(*spans, strict=True)))
            for ray, *spans in zip(rays, near_m, depth_m, far_m, strict=True)
        ]
    )
    holds = (apart_m >= low_m * (1 - 1e-6)) & (apart_m <= high_m * (1 + 1e-6))
    estimate_m = depth_m[..., None] * rays
    scale_m = np.linalg.norm(estimate_m[:, 0] - estimate_m[:, 1], axis=1)
    return float(holds.mean()), float(np.median((high_m - low_m) / np.maximum(scale_m, 1e-9)))


def figures(one: Measured) -> dict[str, dict[str, tuple[float, float]]]:
    """Coverage and width in every region, for either interval."""
    sample, found = one.sample, estimate_depth(one.sample.stack, one.psf)
    scale = found.calibration.blur_scale
    places = regions(sample)
    valid = places["all pixels"]
    order = found.confidence.numpy()[valid].argsort(kind="stable")
    true_px = torch.where(sample.valid, 1 / sample.depth_m, 0).double().numpy() * (scale or 0)
    rows: dict[str, dict[str, tuple[float, float]]] = {}
    for name, ends in intervals_px(found).items():
        holds, width = (true_px >= ends[0] - 1e-6) & (true_px <= ends[1] + 1e-6), ends[1] - ends[0]
        row = rows[name] = {
            place: (float(holds[where].mean()), float(width[where].mean()))
            for place, where in places.items()
            if where.any()
        }
        for tenth, some in enumerate(np.array_split(order, 10), 1):
            row[f"tenth {tenth}"] = (
                float(holds[valid][some].mean()),
                float(width[valid][some].mean()),
            )
        row["distances"] = distances(sample, found, ends / (scale or 1))
    return rows


def main() -> None:
    options = command_line(__doc__).parse_args()
    every: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for one in measured(options):
        found = figures(one)
        for name, row in found.items():
            for place, values in row.items():
                every[place][name].append(values)
        holds, width = found["near and far"]["all pixels"]
        print(f"{one.name}: {holds:.3f} inside, {width:.1f} px", flush=True)
    names = list(found)
    print(f"\n| | {' | '.join(f'{name}: inside | width' for name in names)} |")
    print("|---|" + "---|---|" * len(names))
    for place, columns in every.items():
        means = [np.mean(columns[name], axis=0) for name in names]
        cells = [f"{holds:.3f} | {width:.2f}" for holds, width in means]
        print(f"| {place} | {' | '.join(cells)} |")
    spread = [np.std([holds for holds, _ in every["all pixels"][name]]) for name in names]
    print(f"\nStandard deviation over scenes: {', '.join(f'{value:.3f}' for value in spread)}")


if __name__ == "__main__":
    main()
