"""Throughput of the trainer, next to the same arithmetic on one batch held in memory.

    python benchmarks/training.py [--config FILE] [--steps N] [--override KEY=VALUE ...]

The recipe of `--config` (configs/compact.yaml) on procedural scenes without photographs:

- *in memory*: losses, backward pass, clipping, step and running mean, repeated on one batch;
- *kept*: stacks per second of `focaldiffusion train` from examples kept by an earlier run;
- *cached*: the same from cached stacks with their evidence, without kept examples;
- *uncached*: the same with stacks simulated, and their physical estimates made, during training.

Validation is off, and the first steps are not timed. The in-memory rate is the mean of a
measurement before the trainer and one after it, because other work on the machine slows all runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from focaldiffusion.config.load import load_config
from focaldiffusion.config.run import Config
from focaldiffusion.data.cache import write_cache
from focaldiffusion.data.loading import open_split, prepared
from focaldiffusion.training.model import Mean, make_optimizer, trainable_model, trained_parameters
from focaldiffusion.training.objective import Objective, prepare_batch
from focaldiffusion.training.trainer import train

ROOT = Path(__file__).resolve().parents[1]
REPORTS = 9  # log lines per run; the rate covers all but the first
BATCHES = 2  # different batches, which a run repeats


def in_memory(config: Config, steps: int, device: torch.device) -> float:
    """Stacks per second of repeated training steps on one batch."""
    training = config.training
    mixture = open_split(config.data, "train", training.seed)
    pipeline = trainable_model(config.model, training, device)
    completer, objective = pipeline.completer, Objective(config.losses)
    ((part,),) = prepared(
        mixture,
        range(training.batch_size),
        training.batch_size,
        partial(
            prepare_batch,
            completer=completer,
            model=config.model,
            training=training,
            with_stacks=objective.reads_stacks,
            kept=None,
        ),
        device=device,
        with_estimates=True,
    )
    moving = trained_parameters(pipeline.denoiser)
    optimizer = make_optimizer(config.optimizer, list(moving.values()))
    mean = Mean(moving, training.ema_decay)
    counts = objective.counts(part).clamp_min(1)

    def step(done: int) -> None:
        with torch.autocast(
            device.type, torch.bfloat16, enabled=training.mixed_precision == "bf16"
        ):
            sums = objective.sums(completer, part)
        (sums / counts * objective.weights(sums)).sum().backward()
        torch.nn.utils.clip_grad_norm_(moving.values(), training.max_grad_norm or 1e9)
        optimizer.step()
        optimizer.zero_grad()
        mean.update(done)
        if device.type == "cuda":
            torch.cuda.synchronize()

    step(1)
    started = time.perf_counter()
    for done in range(steps):
        step(done + 2)
    return steps * training.batch_size / (time.perf_counter() - started)


def trainer_rate(config: Config) -> float:
    """Stacks per second of the last eight ninths of a run."""
    train(config)
    log = (Path(config.output.save_dir) / "log.jsonl").read_text(encoding="utf-8")
    return json.loads(log.splitlines()[-1])["train/stacks_per_second"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "compact.yaml")
    parser.add_argument("--steps", type=int, default=90, help="steps of fast runs (default: 90)")
    parser.add_argument("--override", nargs="+", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    os.environ.setdefault("PHOTOGRAPHS", str(ROOT))  # required by the recipe
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as home:

        def load(
            name: str, source: dict[str, object], steps: int, *, keeps: bool = False
        ) -> Config:
            """Configuration of a run over `steps` steps on one source."""
            batch = load_config(options.config, options.override).config.training.batch_size
            source = {"name": "train", **source, "max_samples": batch * BATCHES}
            changes = [
                f"data.train_sources={json.dumps([source])}",
                "data.dataset_type=null",  # no validation
                "data.val_sources=null",
                f"training.num_epochs={max(1, steps // BATCHES)}",
                f"training.examples_dir={json.dumps(f'{home}/examples' if keeps else None)}",
                "training.save_every_n_epochs=1000000",
                f"logging.log_every_n_steps={max(1, steps // REPORTS)}",
                f"output.save_dir={json.dumps(f'{home}/{name}')}",
            ]
            return load_config(options.config, [*options.override, *changes]).config

        made: dict[str, object] = {"dataset_type": "procedural", "data_root": []}
        stacks: dict[str, object] = {"dataset_type": "cache", "data_root": f"{home}/stacks"}
        uncached = load("uncached", made, 2 * BATCHES)
        cached = load("cached", stacks, options.steps)
        count = BATCHES * cached.training.batch_size
        started = time.perf_counter()
        write_cache(
            open_split(uncached.data, "train", 0),
            Path(home, "stacks"),
            count=count,
            num_workers=1,
            device=device,
            with_evidence=True,
        )
        making = count / (time.perf_counter() - started)
        train(load("first", stacks, BATCHES, keeps=True))
        before = in_memory(cached, options.steps // 2, device)
        kept = trainer_rate(load("kept", stacks, options.steps, keeps=True))
        rate = trainer_rate(cached)
        after = in_memory(cached, options.steps // 2, device)
        slow = trainer_rate(uncached)
    memory = (before + after) / 2
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU"
    training = cached.training
    print(
        f"\n{cached.model.preset or cached.model.base_model_id}, {cached.data.image_size} px, "
        f"batch {training.batch_size}, {training.patches_per_stack} patch(es) of "
        f"{training.patch_px} px, {cached.data.num_workers} worker(s), {name}, "
        f"{torch.get_num_threads()} thread(s)\n\n"
        "| | stacks/s | of in memory |\n|---|---|---|\n"
        f"| in memory | {memory:.2f} ({before:.2f}, {after:.2f}) | |\n"
        f"| kept | {kept:.2f} | {kept / memory:.0%} |\n"
        f"| cached | {rate:.2f} | {rate / memory:.0%} |\n"
        f"| uncached | {slow:.2f} | {slow / memory:.0%} |\n"
        f"| writing the cache | {making:.2f} | |"
    )


if __name__ == "__main__":
    main()
