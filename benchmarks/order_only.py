"""Cost of knowing only the order of the frames.

    python benchmarks/order_only.py rendered FOLDER
    python benchmarks/order_only.py rgbd FOLDER
    python benchmarks/order_only.py examples examples

Each stack is solved three times: with lens and focus distances; with neither, as `focaldiffusion
infer` does; and from the sharpness of each frame alone. The error is the mean difference of depth
in units of frames (0.33 is a third of the way to the next frame), where the truth lies between the
nearest and the farthest focus. PSNR is that of the all-in-focus image at the size at which depth is
solved, before fusion.
"""

from __future__ import annotations

import numpy as np
import torch
from measured import Measured, command_line, measured
from torch import Tensor

from focaldiffusion.evaluation.image_metrics import psnr
from focaldiffusion.filters import interpolated
from focaldiffusion.optics import inverse_m, linear_to_srgb
from focaldiffusion.recovery import estimate_depth
from focaldiffusion.solve.complete import complete
from focaldiffusion.solve.sharpness import sweep_sharpness
from focaldiffusion.stack import FocalStack


def figures(one: Measured) -> list[float]:
    """Errors of depth [frames] and PSNR [dB] of each way to solve a stack."""
    sample, stack = one.sample, one.sample.stack
    focus_dpt, order = stack.focus_coordinates.sort()
    places = torch.linspace(0, len(stack) - 1, len(stack))
    only_order = FocalStack(stack.images[order])
    known, found = estimate_depth(stack, one.psf), estimate_depth(only_order, one.psf)
    sharpness = sweep_sharpness(only_order)
    results = (
        (interpolated(known.coordinate, focus_dpt, places), known.evidence.all_in_focus),
        (found.coordinate * places[-1], found.evidence.all_in_focus),
        (complete(sharpness).coordinate * places[-1], sharpness.all_in_focus),
    )
    true_dpt = inverse_m(sample.depth_m)
    inside = sample.valid & (true_dpt >= focus_dpt[0]) & (true_dpt <= focus_dpt[-1])
    true_frame = interpolated(true_dpt, focus_dpt, places)

    def error(frame: Tensor) -> float:
        return float((frame - true_frame).abs()[inside].mean())

    assert sample.all_in_focus is not None
    truth = linear_to_srgb(sample.all_in_focus.clamp(0, 1))
    quality = [psnr(linear_to_srgb(image.clamp(0, 1)), truth) for _, image in results]
    return [*(error(frame) for frame, _ in results), *quality]


def main() -> None:
    options = command_line(__doc__).parse_args()
    rows = []
    print("             error [frames]                PSNR [dB]")
    print("  lens known  order only  sharpness   lens known  order only  sharpness")
    for one in measured(options):
        rows.append(figures(one))
        print(_line(rows[-1]), one.name, flush=True)
    print(_line(np.mean(rows, axis=0).tolist()), "mean")


def _line(row: list[float]) -> str:
    return "".join(f"{value:12.3f}" for value in row[:3]) + "".join(
        f"{value:12.2f}" for value in row[3:]
    )


if __name__ == "__main__":
    main()
