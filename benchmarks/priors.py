"""Priors joined with physics: simulated ones by the strength of their errors, and hostile ones.

    python benchmarks/priors.py rendered FOLDER
    python benchmarks/priors.py stacks FOLDER --scenes 9 --strengths 0.5 1

Priors are distorted truth, see `focaldiffusion.simulation.priors`; their seeds are fixed. Prints
Markdown tables of the mean over scenes for depth at the size at which it is solved: by strength of
the distortion, with each error left out, with each part of the joining left out, with each scale
that a prior may speak, hostile priors, the lines of a lidar, and confidence by how far the prior
decided. Physics is solved once for each scene.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from hostile_priors import hostile
from measured import command_line, measured
from torch import Tensor

from focaldiffusion.data.dataset import StackSample
from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.metrics import abs_rel, boundary_f1, delta
from focaldiffusion.prior import Prior, PriorKind
from focaldiffusion.progress import Stages
from focaldiffusion.recovery import Estimate, estimate_depth, with_surface
from focaldiffusion.simulation.priors import Distortion, simulated
from focaldiffusion.solve import join as joining
from focaldiffusion.solve import prior_fit


def _as_it_is(shape: Any, *_: Any) -> Any:
    return shape


def _everywhere(shape: Any) -> Any:
    return np.ones_like(shape)


PARTS: dict[str, list[tuple[Any, str, Any]]] = {
    "nothing": [],
    "steps placed on edges": [(joining, "steps_on_edges", _as_it_is)],
    "evidence beside a step belongs to its nearer side": [(joining, "nearer_side", _everywhere)],
    "curve over the values of the prior": [(joining, "bent", _as_it_is)],
    "local scale by a screened Poisson equation": [(joining, "corrected", _as_it_is)],
    "the sweep votes": [(prior_fit, "_SWEEP_VOTES", 0.0)],
    "fits tried by re-rendering": [(prior_fit, "_MOST_FITS", 1)],
    "steps that miss the edges of the image": [(joining, "_ON_EDGES", -math.inf)],
    "smooth surfaces that predict as well": [(joining, "_BEYOND_QUADRIC", -math.inf)],
    "all of the judge": [
        (joining, "_ON_EDGES", -math.inf),
        (joining, "_BEYOND_QUADRIC", -math.inf),
        (joining, "_believed", lambda *_: True),
    ],
}
"""Names to replace, with their modules, for each part of the joining that is left out."""


TABLES = ("strength", "error left out", "part left out", "scale", "hostile", "lines", "confidence")
"""The tables, by the head of their first column."""

LINES = (64, 32, 16)
"""Numbers of lines of a lidar over the height of the image."""

SHARES = (0.0, 0.1, 0.5, 0.9, 1.1)
"""Bounds of the shares of the prior in the table of confidence."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A sample, its physical estimate and the depth of another sample."""

    sample: StackSample
    physical: Estimate
    other_m: Tensor
    seed: int

    def simulated(
        self, distortion: Distortion, kind: PriorKind = PriorKind.AFFINE_INVERSE_DEPTH
    ) -> Prior:
        """Its truth as a network would see it."""
        return simulated(self.sample.depth_m, self.sample.valid, self.seed, distortion, kind)


def lidar(scene: Scene, lines: int) -> Prior:
    """Its true depth along lines, twice as dense along them as across, with 1 % of noise."""
    depth_m, (height, width) = scene.sample.depth_m, scene.sample.stack.size
    apart_px = height / lines
    rows, columns = (
        ((torch.arange(int(side / step)) + 0.5) * step).long()
        for side, step in ((height, apart_px), (width, apart_px / 2))
    )
    is_hit = torch.zeros_like(scene.sample.valid)
    is_hit[rows[:, None], columns] = True
    noise = torch.randn(depth_m.shape, generator=torch.Generator().manual_seed(scene.seed))
    hits_m = torch.where(is_hit & scene.sample.valid, depth_m * (1 + 0.01 * noise), torch.nan)
    return Prior(hits_m, PriorKind.METRIC_DEPTH, f"{lines} lines")


def scenes(options: argparse.Namespace) -> list[Scene]:
    """The samples of the command line with their physical estimates."""
    found = list(measured(options, options.scenes))
    if len(found) < 2:
        raise InputError(
            f"{options.data_root}: {len(found)} scenes; expected 2, for another image's depth."
        )
    others = [torch.where(one.sample.valid, one.sample.depth_m, torch.nan) for one in found]
    return [
        Scene(
            one.sample,
            estimate_depth(one.sample.stack, one.psf),
            others[(seed - options.other) % len(others)],
            seed,
        )
        for seed, one in enumerate(found)
    ]


@dataclass(frozen=True)
class Outcome:
    """Figures of one surface.

    Attributes:
        abs_rel, delta, f1: accuracy, see `metrics`.
        sure_abs_rel: AbsRel of the half of the pixels with the highest confidence.
        share: mean of `Joined.share`.
        seconds: CPU time of the joining.
    """

    abs_rel: float
    delta: float
    f1: float
    sure_abs_rel: float
    share: float
    seconds: float


def joined_with(
    scene: Scene, prior: Prior, left_out: str = "nothing"
) -> tuple[Estimate, Tensor, float]:
    """The estimate after a prior, `Joined.share`, and the CPU time of the joining [s]."""
    found = scene.physical
    with ExitStack() as stack, torch.inference_mode():
        for module, name, other in PARTS[left_out]:
            stack.enter_context(patch.object(module, name, other))
        start = time.process_time()
        joined = joining.join(
            scene.sample.stack,
            found.evidence,
            found.coordinate,
            found.agreement,
            found.confidence,
            prior,
            found.calibration.blur_scale,
            found.psf,
        )
        seconds = time.process_time() - start
    if joined.accepted:
        found = with_surface(scene.sample.stack, found, joined.coordinate, Stages())
    return found, joined.share, seconds


def depth_of(found: Estimate) -> Tensor:
    """(H, W) metres."""
    return torch.where(found.coordinate > 1e-3, 1 / found.coordinate, torch.nan)


def outcome(scene: Scene, prior: Prior | None, left_out: str = "nothing") -> Outcome:
    """The figures of physics, or of physics joined with a prior."""
    found, share, seconds = scene.physical, torch.zeros(1), 0.0
    if prior is not None:
        found, share, seconds = joined_with(scene, prior, left_out)
    depth_m, truth_m, valid = depth_of(found), scene.sample.depth_m, scene.sample.valid
    sure = valid & (found.confidence >= found.confidence[valid].median())
    return Outcome(
        abs_rel(depth_m, truth_m, valid),
        delta(depth_m, truth_m, valid, 1.05),
        boundary_f1(depth_m, truth_m, valid),
        abs_rel(depth_m, truth_m, sure),
        float(share.mean()),
        seconds,
    )


def calibration(all_scenes: list[Scene], distortion: Distortion) -> Iterator[str]:
    """Lines of the table of pixels by how far the prior decided."""
    yield from (
        "",
        "| share of the prior | pixels | confidence | AbsRel | physics |",
        "|---" * 5 + "|",
    )
    pixels = []
    for scene in all_scenes:
        found, share, _ = joined_with(scene, scene.simulated(distortion))
        valid, truth_m = scene.sample.valid, scene.sample.depth_m
        errors = [
            (torch.nan_to_num(depth_of(one), nan=0) / truth_m - 1).abs()
            for one in (found, scene.physical)
        ]
        fields = [share.expand_as(truth_m), found.confidence, *errors]
        pixels.append(torch.stack([one[valid] for one in fields]))
    share, *columns = torch.cat(pixels, 1)
    for low, high in pairwise(SHARES):
        here = (share >= low) & (share < high)
        means = [f"{float(one[here].mean()):.3f}" for one in columns]
        part = f"{float(here.float().mean()):.0%}"
        yield f"| {' | '.join([f'{low:g} to {min(high, 1):g}', part, *means])} |"


def row(name: str, physics: list[Outcome], found: list[Outcome]) -> str:
    """A row of a table: means over scenes, and the change of AbsRel."""

    def mean(key: str, outcomes: list[Outcome]) -> float:
        return float(np.nanmean([getattr(one, key) for one in outcomes]))

    change = mean("abs_rel", found) / mean("abs_rel", physics) - 1
    pairs = zip(found, physics, strict=True)
    worst = max(one.abs_rel / before.abs_rel - 1 for one, before in pairs)
    figures = [f"{mean(one.name, found):.3f}" for one in fields(Outcome)[:-1]]
    seconds = f"{mean('seconds', found):.1f}"
    return f"| {' | '.join([name, *figures, f'{change:+.0%}', f'{worst:+.0%}', seconds])} |"


HEAD = (
    "AbsRel | δ1.05 | boundary F1 | AbsRel of the surer half | share of the prior | change of "
    "AbsRel | worst scene | CPU s"
)


def tables(all_scenes: list[Scene], strengths: list[float], wanted: Sequence[str]) -> Iterator[str]:
    """Lines of the Markdown tables, those of `TABLES` that are wanted."""
    physics = [outcome(scene, None) for scene in all_scenes]
    usual = Distortion()
    hostiles = [
        hostile(one.sample.depth_m, one.sample.valid, one.other_m, one.seed) for one in all_scenes
    ]
    rows: dict[str, dict[str, Callable[[int], Outcome]]] = {
        "strength": {
            f"{one:g}": lambda index, strength=one: outcome(
                all_scenes[index], all_scenes[index].simulated(usual.times(strength))
            )
            for one in strengths
        },
        "error left out": {
            one.name: lambda index, name=one.name: outcome(
                all_scenes[index], all_scenes[index].simulated(usual.without(name))
            )
            for one in fields(Distortion)
        },
        "part left out": {
            one: lambda index, part=one: outcome(
                all_scenes[index], all_scenes[index].simulated(usual), part
            )
            for one in PARTS
        },
        "scale": {
            str(one): lambda index, kind=one: outcome(
                all_scenes[index], all_scenes[index].simulated(usual, kind)
            )
            for one in PriorKind
        },
        "hostile": {
            one: lambda index, name=one: outcome(all_scenes[index], hostiles[index][name])
            for one in hostiles[0]
        },
        "lines": {
            str(one): lambda index, lines=one: outcome(
                all_scenes[index], lidar(all_scenes[index], lines)
            )
            for one in LINES
        },
    }
    for title, outcomes in rows.items():
        if title in wanted:
            yield from ("", f"| {title} | {HEAD} |", "|---" * 9 + "|")
            yield row("physics", physics, physics)
            for name, of in outcomes.items():
                yield row(name, physics, [of(index) for index in range(len(all_scenes))])
    if "confidence" in wanted:
        yield from calibration(all_scenes, usual)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--scenes", type=int, help="the first of them only")
    parser.add_argument(
        "--other",
        type=int,
        default=1,
        metavar="N",
        help="the other image is that of N scenes before (default: 1)",
    )
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.0, 0.5, 1.0, 2.0])
    parser.add_argument("--tables", choices=TABLES, nargs="+", default=TABLES, metavar="TABLE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for line in tables(scenes(options), options.strengths, options.tables):
        print(line, flush=True)


if __name__ == "__main__":
    main()
