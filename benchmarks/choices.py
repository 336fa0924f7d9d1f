"""Settings of training compared on small stacks: the network of `compact`, a CPU, minutes.

    python benchmarks/choices.py make FOLDER --sets SETS     # stacks with evidence, once
    python benchmarks/choices.py train FOLDER CHOICE         # one of `CHOICES`, each seed a run
    python benchmarks/choices.py judge FOLDER CHOICE ...     # a Markdown table

SETS is a folder of path-traced scenes (`benchmarks/path_traced_rooms.py`). They are judged and
never trained on. Figures are those of the depth at the size at which it is solved, blended with
physics as in a result. Choices with a prior get simulated ones, with seeds that no training stack
has.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from focaldiffusion.checkpoints.checkpoint import find_checkpoint
from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.config.data import Split
from focaldiffusion.config.load import load_config
from focaldiffusion.config.run import Config
from focaldiffusion.data.cache import write_cache
from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.loading import open_split
from focaldiffusion.data.sample_file import read_sample
from focaldiffusion.evaluation.metrics import abs_rel, delta
from focaldiffusion.evaluation.statistics import difference
from focaldiffusion.progress import Stages
from focaldiffusion.recovery import Estimate, joined_with
from focaldiffusion.simulation.priors import Distortion, simulated
from focaldiffusion.training.trainer import train

RECIPE = Path(__file__).with_name("choices.yaml")
SIMULATOR = "data.dataset_kwargs.train.simulator_kwargs"
STACKS = {
    "half": [f"{SIMULATOR}.ideal_share=0.5", f"{SIMULATOR}.focus_jitter_dpt=0.02"],
    "faulty": [f"{SIMULATOR}.ideal_share=0", f"{SIMULATOR}.focus_jitter_dpt=0.05"],
}
"""Training stacks by name, of the same scenes: half of them without faults, or all with."""

_SIMULATED = "data.dataset_kwargs.train.prior=simulated"
FIRST_UNSEEN_SEED = 1000
STRENGTHS = (0.5, 1.0)  # of the errors of the priors that are judged


@dataclass(frozen=True)
class Choice:
    """Training stacks and the settings of a run.

    Attributes:
        stacks: a name in `STACKS`.
        inputs: settings that change the examples, such as a prior.
    """

    stacks: str = "half"
    inputs: tuple[str, ...] = ()

    @property
    def has_prior(self) -> bool:
        """Whether its stacks get a prior."""
        return _SIMULATED in self.inputs


CHOICES = {
    "half": Choice(),
    "faulty": Choice("faulty"),
    "joined": Choice(inputs=(_SIMULATED,)),
    "channel": Choice(inputs=(_SIMULATED, "model.with_prior=true")),
    "wide": Choice(inputs=("model.with_wide=true",)),
}


def make(folder: Path, sets: Path, count: int) -> None:
    """Write the stacks with their evidence; continues after an interruption."""
    for name, overrides in STACKS.items():
        _write(folder / name, "train", overrides, count)
    test = f"data.test_sources={json.dumps([{'name': 'unseen', 'dataset_type': 'stacks'}])}"
    _write(folder / "test", "test", [test, f"data.data_root={sets}"], None)


def _write(folder: Path, split: Split, overrides: list[str], count: int | None) -> None:
    config = load_config(RECIPE, overrides).config
    write_cache(open_split(config.data, split, 0), folder, count=count, with_evidence=True)


def configured(folder: Path, name: str, seed: int, steps: int) -> Config:
    """The run of a choice."""
    choice = CHOICES[name]
    root = folder / choice.stacks
    count = len(json.loads((root / "cache.json").read_text(encoding="utf-8"))["samples"])
    source = {"name": "stacks", "dataset_type": "cache", "data_root": str(root)}
    # Choices of the same inputs share their examples.
    inputs = "-".join((choice.stacks, *choice.inputs)).replace("=", "-")
    settings = [
        f"data.train_sources={json.dumps([source])}",
        "data.dataset_type=null",
        "data.image_size=null",
        "data.test_sources=null",
        *STACKS[choice.stacks],  # a cache refuses other ones
        f"training.seed={seed}",
        f"training.num_epochs={round(steps * 16 / count)}",
        f"training.examples_dir={folder / 'examples' / f'{inputs}-{seed}'}",
        f"output.save_dir={folder / 'runs' / f'{name}-{seed}'}",
        *choice.inputs,
    ]
    return load_config(RECIPE, settings).config


def judged(
    folder: Path, models: Mapping[str, Sequence[FocalDiffusionPipeline]], shown: Collection[str]
) -> tuple[dict[str, dict[str, list[float]]], list[str]]:
    """Figures of every unseen stack by row, those of physics too, and the scenes.

    Args:
        folder: of `make`.
        models: of each row, one for each seed.
        shown: rows whose stacks get a prior.
    """
    found: dict[str, dict[str, list[float]]] = {}
    paths = sorted((folder / "test" / "samples").glob("*.safetensors"))
    for index, path in enumerate(paths):
        sample = read_sample(path)
        assert sample.estimate is not None
        cases: dict[str, Estimate] = {"": sample.estimate}
        for strength in STRENGTHS if shown else ():
            seed, errors = FIRST_UNSEEN_SEED + index, Distortion().times(strength)
            prior = simulated(sample.depth_m, sample.valid, seed, errors)
            joined = joined_with(sample.stack, sample.estimate, prior, Stages())
            cases[f"prior {strength:g}"] = joined
        for case, estimate in cases.items():
            _note(found, f"physics {case}".strip(), sample, [estimate])
            for name, pipelines in models.items():
                if (name in shown) == bool(case):
                    refined = [model.refine(sample.stack, estimate) for model in pipelines]
                    _note(found, f"{name} {case}".strip(), sample, refined)
    return found, [str(index) for index in range(len(paths))]


def _note(found: Any, row: str, sample: StackSample, estimates: list[Estimate]) -> None:
    """Add the mean figures of estimates, one for each seed, to a row."""
    figures = found.setdefault(row, {"abs_rel": [], "delta": []})
    depths = [1 / one.coordinate.clamp_min(1e-6) for one in estimates]
    truth = sample.depth_m, sample.valid
    figures["abs_rel"].append(sum(abs_rel(one, *truth) for one in depths) / len(depths))
    figures["delta"].append(sum(delta(one, *truth, 1.05) for one in depths) / len(depths))


def trained(folder: Path, name: str, seeds: Sequence[int]) -> list[FocalDiffusionPipeline]:
    """The models of a choice, one for each seed."""
    models = []
    for seed in seeds:
        newest = max((folder / "runs" / f"{name}-{seed}" / "checkpoints").glob("step-*"))
        models.append(find_checkpoint(str(newest)).load())
        models[-1].set_progress_bar_config(disable=True)
    return models


def table(
    folder: Path,
    models: Mapping[str, Sequence[FocalDiffusionPipeline]],
    shown: Collection[str] = (),
    against: str = "physics",
) -> str:
    """The rows of physics and of models, see `judged`; differences are to the row `against`.

    Models that see a prior are compared with a row that saw the same one.
    """
    found, scenes = judged(folder, models, shown)
    rows = [f"| | AbsRel | minus {against}, 95 % | δ1.05 |", "|---|---|---|---|"]
    for row, figures in found.items():
        case = next((f" prior {one:g}" for one in STRENGTHS if row.endswith(f" {one:g}")), "")
        before = found[f"{against}{case}"]["abs_rel"]
        change = difference(before, figures["abs_rel"], scenes, "down")
        low, high = change.change.interval or (0.0, 0.0)
        share = sum(figures["delta"]) / len(scenes)
        moved = "" if row.startswith((against, "physics")) else f"[{low:+.4f}, {high:+.4f}]"
        rows.append(f"| {row} | {change.b:.4f} | {moved} | {share:.3f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=("make", "train", "judge"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("choices", nargs="*", metavar="CHOICE", help=", ".join(CHOICES))
    parser.add_argument("--sets", type=Path, help="folder of scenes to judge on, for make")
    parser.add_argument("--count", type=int, default=96, help="training stacks (default: 96)")
    parser.add_argument("--steps", type=int, default=120, help="steps of a run (default: 120)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(default: 0)")
    parser.add_argument("--against", default="physics", help="row to compare with, for judge")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "make":
        make(options.folder, options.sets, options.count)
    elif options.command == "train":
        for name in options.choices:
            for seed in options.seeds:
                ending = train(configured(options.folder, name, seed, options.steps), "auto")
                if ending.step < ending.steps:  # stopped; the same command goes on
                    return
    else:
        models = {one: trained(options.folder, one, options.seeds) for one in options.choices}
        shown = [one for one in models if CHOICES[one].has_prior]
        print(table(options.folder, models, shown, options.against))


if __name__ == "__main__":
    main()
