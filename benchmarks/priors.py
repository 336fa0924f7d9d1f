"""Priors joined with physics: simulated ones by the strength of their errors, and hostile ones.

    python benchmarks/priors.py rendered FOLDER
    python benchmarks/priors.py stacks FOLDER --scenes 9 --strengths 0.5 1

Priors are distorted truth, see `simulated_priors.py`; their seeds are fixed. Prints Markdown tables
of the mean over scenes for depth at the size at which it is solved: by strength of the distortion,
with each error left out, with each part of the joining left out, with each scale that a prior may
speak, and hostile priors. Physics is solved once for each scene.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from simulated_priors import Distortion, hostile, simulated
from torch import Tensor

from focaldiffusion.data.dataset import StackSample
from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.metrics import abs_rel, boundary_f1, delta
from focaldiffusion.evaluation.protocols import find_protocol
from focaldiffusion.prior import Prior, PriorKind
from focaldiffusion.progress import Stages
from focaldiffusion.psf import PSF
from focaldiffusion.recovery import Estimate, estimate_depth, with_surface
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
    "judge": [(joining, "_believed", lambda *_: True)],
}
"""Names to replace, with their modules, for each part of the joining that is left out."""


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


def scenes(protocol_name: str, root: str, most: int | None) -> list[Scene]:
    """The counted samples of a protocol with their physical estimates."""
    protocol = find_protocol(protocol_name)
    dataset = protocol.open(root)
    psf = PSF() if protocol.photography is None else protocol.photography.psf
    samples = []
    for index in protocol.indices(dataset, None)[:most]:
        name = dataset.name(index)
        if not protocol.counted_prefixes or name.startswith(protocol.counted_prefixes):
            samples.append(protocol.sample(dataset, index))
    if len(samples) < 2:
        raise InputError(f"{root}: {len(samples)} scenes; expected 2, for another image's depth.")
    return [
        Scene(
            one,
            estimate_depth(one.stack, psf),
            torch.where(samples[seed - 1].valid, samples[seed - 1].depth_m, torch.nan),
            seed,
        )
        for seed, one in enumerate(samples)
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


def outcome(scene: Scene, prior: Prior | None, left_out: str = "nothing") -> Outcome:
    """The figures of physics, or of physics joined with a prior."""
    found, share, seconds = scene.physical, 0.0, 0.0
    if prior is not None:
        with ExitStack() as stack, torch.inference_mode():
            for module, name, other in PARTS[left_out]:
                stack.enter_context(patch.object(module, name, other))
            start = time.process_time()
            joined = joining.join(
                scene.sample.stack,
                found.evidence,
                found.coordinate,
                found.confidence,
                prior,
                found.calibration.blur_scale,
                found.psf,
            )
            seconds, share = time.process_time() - start, float(joined.share.mean())
        if joined.accepted:
            found = with_surface(scene.sample.stack, found, joined.coordinate, Stages())
    depth_m = torch.where(found.coordinate > 1e-3, 1 / found.coordinate, torch.nan)
    truth_m, valid = scene.sample.depth_m, scene.sample.valid
    sure = valid & (found.confidence >= found.confidence[valid].median())
    return Outcome(
        abs_rel(depth_m, truth_m, valid),
        delta(depth_m, truth_m, valid, 1.05),
        boundary_f1(depth_m, truth_m, valid),
        abs_rel(depth_m, truth_m, sure),
        share,
        seconds,
    )


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


def tables(all_scenes: list[Scene], strengths: list[float]) -> Iterator[str]:
    """Lines of the Markdown tables."""
    physics = [outcome(scene, None) for scene in all_scenes]
    usual = Distortion()

    def head(title: str) -> Iterator[str]:
        yield from ("", f"| {title} | {HEAD} |", "|---" * 9 + "|", row("physics", physics, physics))

    yield from head("strength of the errors")
    for strength in strengths:
        found = [outcome(one, one.simulated(usual.times(strength))) for one in all_scenes]
        yield row(f"{strength:g}", physics, found)
    yield from head("error left out")
    for error in fields(Distortion):
        found = [outcome(one, one.simulated(usual.without(error.name))) for one in all_scenes]
        yield row(error.name, physics, found)
    yield from head("part left out")
    for part in PARTS:
        found = [outcome(one, one.simulated(usual), part) for one in all_scenes]
        yield row(part, physics, found)
    yield from head("scale of the prior")
    for kind in PriorKind:
        found = [outcome(one, one.simulated(usual, kind)) for one in all_scenes]
        yield row(str(kind), physics, found)
    yield from head("hostile prior")
    hostiles = [
        hostile(one.sample.depth_m, one.sample.valid, one.other_m, one.seed) for one in all_scenes
    ]
    for name in hostiles[0]:
        found = [
            outcome(one, priors[name]) for one, priors in zip(all_scenes, hostiles, strict=True)
        ]
        yield row(name, physics, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("protocol", help="a protocol with metric truth, such as rendered")
    parser.add_argument("data_root", help="folder of its data")
    parser.add_argument("--scenes", type=int, help="the first of them only")
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.0, 0.5, 1.0, 2.0])
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = scenes(options.protocol, options.data_root, options.scenes)
    for line in tables(found, options.strengths):
        print(line, flush=True)


if __name__ == "__main__":
    main()
