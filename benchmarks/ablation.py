"""Rules of completion and of outlines, each left out in turn.

    python benchmarks/ablation.py rendered FOLDER
    python benchmarks/ablation.py stacks FOLDER     # path_traced_rooms.py makes such folders

Prints a Markdown table of the mean over scenes, AbsRel and boundary F1, for depth at the size at
which it is solved. The evidence of each scene is computed once.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from measured import Measured, command_line, measured
from torch import Tensor

from focaldiffusion.evaluation.metrics import abs_rel, boundary_f1
from focaldiffusion.optics import far_bound_dpt
from focaldiffusion.recovery import estimate_depth
from focaldiffusion.solve import outlines, owners
from focaldiffusion.solve.complete import complete
from focaldiffusion.solve.consistency import Search
from focaldiffusion.solve.outlines import with_outlines


def _first_stays(_: Any, first: Tensor, *__: Any) -> Search[Tensor]:
    yield from ()
    return torch.zeros_like(first, dtype=torch.bool)


def _no_level(_: Any, surface: Tensor, *__: Any) -> Search[Tensor]:
    yield from ()
    return torch.full_like(surface, torch.nan)


def _not_joined(segments: Any, *_: Any) -> Any:
    return segments


RULES: dict[str, list[tuple[Any, str, Any]]] = {
    "all rules": [],
    "no levels tried by re-rendering": [(outlines, "better_levels", _no_level)],
    "no choice of surfaces by re-rendering": [(outlines, "second_fits_better", _first_stays)],
    "neither": [
        (outlines, "better_levels", _no_level),
        (outlines, "second_fits_better", _first_stays),
    ],
    "no links across narrow things": [(owners, "_FACING_PRICE", 0.0)],
    "segments within a textured surface not joined": [(owners, "_textured_joined", _not_joined)],
    "depth steps of any height at one price": [(owners, "_RECESSION_PRICE", 0.0)],
    "no bound behind what is sure": [(owners, "_BEYOND_PRICE", 0.0)],
}
"""Names to replace, with their modules, for each rule that is left out."""
NO_BACKGROUND = "no rule for bare backgrounds"
NO_OUTLINES = "completion alone"


def surfaces(one: Measured) -> dict[str, Tensor]:
    """Depth (H, W) in metres of a scene, for each rule that is left out."""
    stack, psf = one.sample.stack, one.psf
    physical = estimate_depth(stack, psf)
    evidence, scale = physical.evidence, physical.calibration.blur_scale
    if scale is None:
        raise SystemExit(f"{one.name}: the blur of its lens is unknown, so nothing re-renders.")

    def outlined(completion: Any) -> Tensor:
        return with_outlines(stack, evidence, completion, scale, psf).coordinate

    with torch.inference_mode():
        completion = complete(evidence, background=float(stack.focus_coordinates.min()))
        found = {}
        for name, replacements in RULES.items():
            with ExitStack() as left_out:
                for module, attribute, value in replacements:
                    left_out.enter_context(patch.object(module, attribute, value))
                found[name] = outlined(completion)
        found[NO_BACKGROUND] = outlined(complete(evidence))
        found[NO_OUTLINES] = completion.coordinate
    farthest = far_bound_dpt(scale, tolerance_px=0.125)
    return {
        name: torch.where(level > farthest, 1 / level, torch.nan) for name, level in found.items()
    }


def main() -> None:
    options = command_line(__doc__).parse_args()
    rows: dict[str, list[list[float]]] = {}
    for one in measured(options):
        for name, depth_m in surfaces(one).items():
            compared = (depth_m, one.sample.depth_m, one.sample.valid)
            rows.setdefault(name, []).append([abs_rel(*compared), boundary_f1(*compared)])
        print(f"{one.name}: {rows['all rules'][-1][0]:.3f}", flush=True)
    print("\n| left out | AbsRel | boundary F1 |\n|---|---|---|")
    for name, figures in rows.items():
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in np.mean(figures, 0))} |")


if __name__ == "__main__":
    main()
