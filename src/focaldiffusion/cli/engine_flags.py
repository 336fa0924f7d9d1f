"""Flags of commands whose work runs on this machine or on a cluster."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from focaldiffusion.cli.flags import positive_integer
from focaldiffusion.errors import InputError
from focaldiffusion.packages import check_installed

if TYPE_CHECKING:
    from focaldiffusion.engines.engine import MakeEngine

_OWNERS = {
    "memory_gb": ("local",),
    "address": ("ray",),
    "cpus": ("ray", "slurm"),
    "slurm": ("slurm",),
}
"""Flags that only some engines have, and these engines."""

_PACKAGES = {"ray": "ray", "slurm": "submitit"}


def add_engine(parser: argparse.ArgumentParser, workers: str) -> argparse._ArgumentGroup:
    """Add the flags of engines, and return their group.

    Args:
        parser: of the command.
        workers: help of --workers.
    """
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--engine",
        choices=("local", "ray", "slurm"),
        default="local",
        help="processes of this machine, a Ray cluster, or Slurm (default: local)",
    )
    group.add_argument("--workers", type=positive_integer, metavar="N", help=workers)
    group.add_argument(
        "--address", metavar="ADDRESS", help="ray: address of the cluster (default: auto)"
    )
    group.add_argument(
        "--cpus",
        type=positive_integer,
        metavar="N",
        help="ray: CPUs for each worker (default: 1); slurm: CPUs, and so processes, of each job "
        "(default: 4)",
    )
    group.add_argument(
        "--slurm",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="options of submitit, such as slurm_partition=short timeout_min=240",
    )
    return group


def check_engine(options: argparse.Namespace) -> None:
    """Refuse flags of another engine, and an engine whose package is missing.

    Raises:
        InputError: names them.
    """
    for name, engines in _OWNERS.items():
        if getattr(options, name, None) and options.engine not in engines:
            raise InputError(
                f"--{name.replace('_', '-')}: no effect with --engine {options.engine}; it belongs "
                f"to {' and '.join(engines)}."
            )
    if options.engine in _PACKAGES:
        check_installed({_PACKAGES[options.engine]: f"--engine {options.engine}"})


def cluster_engine(options: argparse.Namespace, device: str) -> MakeEngine | None:
    """The engine of a cluster that the flags choose; None for this machine.

    Args:
        options: parsed flags.
        device: torch device of the work.

    Raises:
        InputError: an option of submitit is wrong.
    """
    if options.engine == "ray":
        from focaldiffusion.engines.ray_cluster import RayEngine

        return partial(
            RayEngine,
            address=options.address or "auto",
            workers=options.workers,
            cpus=options.cpus or 1,
            gpus=0 if device == "cpu" else 1,
        )
    if options.engine == "slurm":
        from focaldiffusion.engines.slurm import SlurmEngine

        return partial(
            SlurmEngine,
            logs=Path(".submitit"),
            jobs=options.workers or 10,
            cpus=options.cpus or 4,
            options=_pairs(options.slurm),
        )
    return None


def _pairs(texts: list[str]) -> dict[str, str | int]:
    """Options of submitit; whole numbers become numbers.

    Raises:
        InputError: one has no equals sign.
    """
    pairs: dict[str, str | int] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--slurm {text!r}: expected KEY=VALUE, such as timeout_min=240.")
        pairs[name] = int(value) if value.isdecimal() else value
    return pairs
