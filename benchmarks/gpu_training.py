"""Parts of gpu.py that train: lora, trainer and compact."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from gpu_models import random_pipeline
from random_base import save_base

from focaldiffusion.config.load import load_config
from focaldiffusion.config.run import Config
from focaldiffusion.data.loading import open_split, prepared
from focaldiffusion.models.memory import training_bytes
from focaldiffusion.training.learner import Learner
from focaldiffusion.training.objective import Objective, Prepared, prepare_batch

if TYPE_CHECKING:
    from gpu import Probe

_CONFIGS = Path(__file__).resolve().parents[1] / "configs"
_SOURCES = Path(__file__).resolve().parents[1] / "src"
_GIB = 2**30
_RATE = 1e-5  # of learning; nothing is learnt from random weights
_TRAINER_STEPS = 20
_STEPS = 6  # of the run that is killed, two in an epoch
_PROCEDURAL = ["data.dataset_type=procedural", "data.data_root=[]", "data.num_workers=0"]


def lora(probe: Probe) -> None:
    """Training steps with the real learner, each beside the estimate of its memory."""
    name, side_px = ("tiny", 64) if probe.tiny else ("sd35-medium", 512)
    accelerator = Accelerator(mixed_precision="bf16", cpu=probe.tiny)
    checkpointed = "training.gradient_checkpointing=true"
    image = ["model.with_image=true", "losses.rgb_weight=1", "losses.rgb_ssim=0.2"]
    runs: list[tuple[str, int, list[str]]] = [
        ("depth", 1, []),
        ("depth, checkpointed", 1, [checkpointed]),
        ("depth and image", 1, image),
        *(("depth, checkpointed", size, [checkpointed]) for size in (2, 4, 8)),
        ("depth", 4, []),
        ("depth and image, checkpointed", 4, [*image, checkpointed]),
        ("depth, checkpointed, compiled", 4, [checkpointed, "training.compile=true"]),
    ]
    if find_spec("bitsandbytes"):
        small = [checkpointed, "training.base_weights=nf4", "optimizer.type=adamw_8bit"]
        runs.insert(-1, ("depth, checkpointed, nf4, 8-bit AdamW", 4, small))
    if probe.tiny:
        runs = [*runs[:3], *runs[3:][-2:-1]]
    most = 2 if probe.tiny else 8
    batches: dict[bool, Prepared] = {}
    for label, size, changes in runs:
        size = min(size, most)
        with probe.guarded(f"{label}, batch {size}"):
            config = _lora_config(side_px, size, changes)
            learner = Learner(config, accelerator, random_pipeline(name, probe.device))
            kind = config.model.with_image
            if kind not in batches:
                batches[kind] = _batch(probe, _lora_config(side_px, 2, changes), learner)
            _training_row(probe, f"{label}, batch {size}", name, config, learner, batches[kind])
        learner = None
        accelerator.free_memory()
        probe.free()


def _lora_config(side_px: int, batch_size: int, changes: list[str]) -> Config:
    """configs/base.yaml on procedural scenes."""
    given = [
        *_PROCEDURAL,
        f"data.image_size=[{side_px}, {side_px}]",
        "data.focal_stack_size=5",
        f"training.batch_size={batch_size}",
        *changes,
    ]
    return load_config(_CONFIGS / "base.yaml", given).config


def _batch(probe: Probe, config: Config, learner: Learner) -> Prepared:
    """A batch of procedural scenes, photographed, estimated and encoded on the device."""
    mixture = open_split(config.data, "train", config.training.seed)
    make = partial(
        prepare_batch,
        completer=learner.pipeline.completer,
        model=config.model,
        training=config.training,
        with_stacks=False,
        kept=None,
    )
    size = config.training.batch_size
    found: list[Prepared] = []

    def prepare() -> None:
        stream = prepared(
            mixture, range(size), size, make, device=probe.device, with_estimates=True
        )
        found.extend(one for batch in stream for one in batch)

    seconds = probe.seconds(prepare)
    height, width = found[0].truth.valid.shape[-2:]
    images = ", and images" if config.model.with_image else ""
    probe.row(
        f"making {size} stacks of {width}x{height} with estimates{images}",
        stacks_per_s=size / seconds,
        runs=1,
    )
    return found[0]


def _repeated(value: Any, size: int) -> Any:
    """A batch of another size, with the same stacks over and over."""
    if isinstance(value, torch.Tensor):
        return value[torch.arange(size, device=value.device) % len(value)]
    if isinstance(value, tuple):
        return tuple(value[index % len(value)] for index in range(size)) if value else ()
    if is_dataclass(value) and not isinstance(value, type):
        changed = {one.name: _repeated(getattr(value, one.name), size) for one in fields(value)}
        return replace(value, **changed)
    return value


def _training_row(
    probe: Probe, title: str, name: str, config: Config, learner: Learner, batch: Prepared
) -> None:
    """Add a row on training steps, and on their memory beside `models/memory.py`."""
    objective = Objective(config.losses)
    repeated = _repeated(batch, config.training.batch_size)
    done = 0

    def step() -> None:
        nonlocal done
        learner.backward(objective, [repeated])
        learner.clip_gradients()
        done += 1
        learner.step(_RATE, done)

    probe.start_peak()
    timing = probe.median(step)
    peak_gib = probe.peak_gib()
    decoded = sum(bool(one) for one in (config.losses.rgb_weight, config.losses.depth_weight))
    assert config.data.image_size is not None
    estimated = training_bytes(
        name,
        config.data.image_size,
        config.training.batch_size,
        config.training,
        config.optimizer.type,
        decoded,
    )
    probe.row(
        title,
        ms_per_step=1000 * timing.seconds,
        stacks_per_s=config.training.batch_size / timing.seconds,
        peak_GiB=peak_gib,
        estimated_GiB=estimated / _GIB,
        runs=timing.runs,
    )


def trainer(probe: Probe) -> None:
    """`focaldiffusion train` from a folder of weights: killed after a checkpoint, and resumed."""
    name, side_px = ("tiny", 64) if probe.tiny else ("sd35-medium", 512)
    with tempfile.TemporaryDirectory() as folder:
        base, run = Path(folder, "base"), Path(folder, "run")
        probe.row(
            "a base model of random weights is saved",
            seconds=probe.seconds(partial(save_base, base, name, probe.device)),
        )
        command = [
            *(sys.executable, "-m", "focaldiffusion", "train"),
            *("--config", str(_CONFIGS / "base.yaml"), "--override", *_PROCEDURAL),
            f"model.base_model_id={base}",
            f"data.image_size=[{side_px}, {side_px}]",
            "data.focal_stack_size=5",
            "data.max_train_samples=4",
            "data.max_val_samples=1",
            "training.gradient_checkpointing=true",
            "training.gradient_accumulation_steps=1",
            f"training.num_epochs={_STEPS // 2}",
            "training.save_every_n_steps=1",
            f"training.val_every_n_epochs={_STEPS // 2}",
            "logging.log_every_n_steps=1",
            f"output.save_dir={run}",
        ]
        if probe.tiny:
            command[4:4] = ["--device", "cpu"]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(_SOURCES), os.environ.get("PYTHONPATH", "")]),
            "XDG_CACHE_HOME": str(Path(folder, "cache")),
        }
        with probe.guarded("killed"):
            seconds = _until_killed(command, environment, run)
            probe.row("until the second checkpoint, then killed", seconds=seconds)
        with probe.guarded("resumed"):
            started = time.perf_counter()
            command[4:4] = ["--resume", "auto"]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
            steps = [line for line in log if "train/loss" in line]
            probe.row(
                f"resumed, to step {steps[-1]['step']} of {_STEPS}",
                seconds=time.perf_counter() - started,
                stacks_per_s=steps[-1]["train/stacks_per_second"],
            )


def _until_killed(command: list[str], environment: dict[str, str], run: Path) -> float:
    """Start a training, and kill it after its second checkpoint; returns the seconds until then."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=errors
        )
        try:
            while not (run / "checkpoints" / "step-000002").exists():
                if process.poll() is not None:
                    errors.seek(0)
                    raise RuntimeError(f"it ended by itself: {errors.read()[-2000:]}")
                time.sleep(0.2)
        finally:
            process.kill()
            process.wait()
    return time.perf_counter() - started


def compact(probe: Probe) -> None:
    """Steps of configs/compact.yaml on one batch in memory, then the trainer itself."""
    from training import in_memory, trainer_rate

    with _compact_config(probe) as config, probe.guarded("in memory"):
        steps = 2 if probe.tiny else 100
        probe.start_peak()
        rate = in_memory(config, steps, torch.device(probe.device))
        probe.row("in memory", stacks_per_s=rate, peak_GiB=probe.peak_gib(), steps=steps)
    with _compact_config(probe) as config, probe.guarded("trainer"):
        probe.start_peak()
        rate = trainer_rate(config)
        probe.row(
            "trainer, from kept examples",
            stacks_per_s=rate,
            peak_GiB=probe.peak_gib(),
            steps=_TRAINER_STEPS,
        )


@contextmanager
def _compact_config(probe: Probe) -> Iterator[Config]:
    """configs/compact.yaml on one batch of procedural scenes, without validation."""
    size, batch_size = ("[64, 64]", 2) if probe.tiny else ("[256, 320]", 16)
    source = {"name": "train", "dataset_type": "procedural", "data_root": []}
    with tempfile.TemporaryDirectory() as folder:
        changes = [
            f"data.train_sources={json.dumps([source | {'max_samples': batch_size}])}",
            "data.dataset_type=null",
            "data.val_sources=null",
            "data.num_workers=0",
            f"data.image_size={size}",
            f"training.batch_size={batch_size}",
            f"training.num_epochs={_TRAINER_STEPS}",
            f"training.examples_dir={json.dumps(f'{folder}/examples')}",
            "training.save_every_n_epochs=1000000",
            "logging.log_every_n_steps=2",
            "logging.level=ERROR",
            f"output.save_dir={json.dumps(f'{folder}/run')}",
        ]
        yield load_config(_CONFIGS / "compact.yaml", changes).config
