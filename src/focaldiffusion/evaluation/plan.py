"""The plan of an evaluation, and the file of a run that records it with the machine."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from focaldiffusion import __version__
from focaldiffusion.config.data import Source
from focaldiffusion.data.dataset import Dataset
from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.configured import AnyProtocol, ConfiguredSplit
from focaldiffusion.evaluation.protocols import find_protocol
from focaldiffusion.evaluation.records import RUN, read_run
from focaldiffusion.io.staging import write_whole
from focaldiffusion.prior import PriorKind

_PACKAGES = ("torch", "numpy", "opencv-python-headless", "diffusers")


@dataclass(frozen=True)
class EvaluationPlan:
    """Models, samples and variants of an evaluation; runs of one plan give the same figures.

    Attributes:
        protocol: a name in `PROTOCOLS`, or that of a `ConfiguredSplit`.
        data_root: folder of the data set; None if scenes are generated, or sources are given.
        models: names for `open_model`.
        base_model: of the adapters among them, see `Checkpoint.load`; None takes their own.
        sources: of a `ConfiguredSplit`; none for a protocol of `PROTOCOLS`.
        priors: depth networks to join the physical estimate with, see `find_prior`.
        prior_kind: scale of all priors; None takes that of each configuration.
        predictions: folders of predictions by other tools.
        variants: names in `VARIANTS`, in addition to the unperturbed protocol.
        max_samples: largest number of samples, evenly spaced; None takes all.
        device: torch device of the models.
        repeat: number of seeds for models that start from noise, counted from 0.
        save_predictions: keep the predictions of all models that run, see `write_prediction`.
    """

    protocol: str
    data_root: str | None
    models: tuple[str, ...]
    base_model: str | None = None
    sources: tuple[Source, ...] = ()
    priors: tuple[str, ...] = ()
    prior_kind: str | None = None
    predictions: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    max_samples: int | None = None
    device: str = "cpu"
    repeat: int = 1
    save_predictions: bool = False

    @property
    def kind(self) -> PriorKind | None:
        """The scale of the priors, if given."""
        return None if self.prior_kind is None else PriorKind.of(self.prior_kind)

    def open(self) -> tuple[AnyProtocol, Dataset]:
        """The protocol and its data set.

        Raises:
            InputError: an unknown protocol, or data that are missing or invalid.
        """
        if self.sources:
            split = ConfiguredSplit(self.sources)
            return split, split.open()
        protocol = find_protocol(self.protocol)
        return protocol, protocol.open(self.data_root)

    def as_json(self) -> dict[str, Any]:
        """The plan as `run.json` has it."""
        return {**vars(self), "sources": ConfiguredSplit(self.sources).as_json()}


def begin(
    plan: EvaluationPlan,
    directory: Path,
    workers: int | None,
    command: Sequence[str],
    checkpoints: dict[str, Any],
) -> None:
    """Record the plan and the system in a folder, or check that it holds a run of this plan.

    Args:
        plan: plan of the run.
        directory: folder of the run.
        workers: see `Engine`.
        command: command line as typed.
        checkpoints: description of each learned model.

    Raises:
        InputError: it holds another run.
    """
    check_same(plan, directory, checkpoints)
    facts = {
        "focaldiffusion": __version__,
        "command": list(command),
        "plan": plan.as_json(),
        "checkpoints": checkpoints,
        "workers": workers,
        "started": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    write_whole(directory / RUN, (json.dumps(facts, indent=2) + "\n").encode())


def check_same(plan: EvaluationPlan, directory: Path, checkpoints: dict[str, Any]) -> None:
    """Check that a folder holds a run of a plan, or none.

    Args:
        plan: see `begin`.
        directory: see `begin`.
        checkpoints: see `begin`.

    Raises:
        InputError: it holds another run.
    """
    written = json.loads(json.dumps(plan.as_json()))
    if not (directory / RUN).exists():
        return
    remedy = "Choose another --output-dir, or remove this one."
    earlier = read_run(directory, "is damaged", remedy)
    if (made_by := earlier.get("focaldiffusion")) != __version__:
        raise InputError(
            f"{directory}: holds an evaluation by focaldiffusion {made_by}, and this is "
            f"{__version__}. Choose another --output-dir."
        )
    there = earlier.get("plan", {})
    different = [key for key in written if there.get(key) != written[key]]
    if different:
        where, before, now = _difference(there, written, different[0])
        raise InputError(
            f"{directory}: holds an evaluation with {where} {before}, not {now}. Choose "
            "another --output-dir."
        )
    for name, checkpoint in checkpoints.items():
        digest = earlier.get("checkpoints", {}).get(name, {}).get("sha256")
        if digest != checkpoint["sha256"]:
            raise InputError(
                f"{directory}: holds an evaluation of {name} with other weights, of sha256 "
                f"{digest}, not {checkpoint['sha256']}. Choose another --output-dir."
            )


def protocol_of(run: dict[str, Any], name: str) -> AnyProtocol:
    """The protocol that a run followed.

    Args:
        run: content of its `run.json`.
        name: of the protocol, as its records have it.

    Raises:
        InputError: an unknown protocol.
    """
    sources = run.get("plan", {}).get("sources")
    return ConfiguredSplit.from_json(sources) if sources else find_protocol(name)


def _difference(earlier: dict[str, Any], now: dict[str, Any], key: str) -> tuple[str, Any, Any]:
    """Path of the first value that differs below a key of two plans, and both values."""
    one, other = earlier.get(key), now.get(key)
    if isinstance(one, list) and isinstance(other, list) and key == "sources":
        one, other = ({source["name"]: source for source in plan} for plan in (one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        inner = next(name for name in {**other, **one} if one.get(name) != other.get(name))
        where, *values = _difference(one, other, inner)
        return f"{key}.{where}", *values
    return key, one, other


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Model name of the processor, as reported by the system."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
