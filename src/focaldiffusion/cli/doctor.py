"""`focaldiffusion doctor`: what is installed, what runs here, and which models can be had."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import threading
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focaldiffusion.cli.flags import Commands, positive_integer
from focaldiffusion.errors import InputError, unknown_name

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from focaldiffusion.models.memory import MemoryRow

_PRESETS = ("compact", "sd35-medium", "sd35-large")
_SIDE_PX = 1024  # the working size of `infer`
_GIB = 2**30
_HUB_PATIENCE_S = 15.0  # the hub's client itself waits forever
_USES = {
    "exr": "OpenEXR images",
    "raw": "camera raw, HEIC, exiftool",
    "train": "training, adapters",
    "flash": "attention: flash",
    "xformers": "attention: xformers",
}
"""What optional packages are for, by extra or by attention backend."""


def add_parser(commands: Commands) -> None:
    """Add the command to those of `focaldiffusion`."""
    parser = commands.add_parser(
        "doctor",
        help="versions, devices, memory that models need, access to the hub",
        description="Tell what is installed, which devices there are, how much memory each preset "
        "needs there in bfloat16, and whether the base models can be downloaded. Changes nothing.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--preset",
        action="append",
        metavar="NAME",
        help=f"whose memory to compute, repeatable (default: {', '.join(_PRESETS)})",
    )
    parser.add_argument(
        "--side-px",
        action="append",
        type=positive_integer,
        metavar="PX",
        help=f"of the square working image, repeatable (default: {_SIDE_PX})",
    )


def run(options: argparse.Namespace) -> int:
    """Look around, print what is there and return 0.

    Raises:
        InputError: there is no such preset, or a side that it does not take.
    """
    from rich.console import Console

    names, sides_px = options.preset or _PRESETS, options.side_px or [_SIDE_PX]
    _check_sizes(names, sides_px)
    watched = Console(stderr=True)
    # Seconds for each of the large ones.
    with watched.status("computing memory") if watched.is_terminal else nullcontext():
        report = _report(names, sides_px)
    if options.json:
        print(json.dumps(report, indent=2, allow_nan=False))
    else:
        _print(Console(), report)
    return 0


def _check_sizes(names: Iterable[str], sides_px: Iterable[int]) -> None:
    from focaldiffusion.models.presets import PRESETS, cells_of_token

    for name in names:
        if name not in PRESETS:
            raise InputError(f"--preset {name} {unknown_name(name, PRESETS)}")
        preset = PRESETS[name]
        multiple = preset.factor * cells_of_token(preset.network)
        for side_px in sides_px:
            if side_px % multiple or side_px > preset.max_side_px:
                raise InputError(
                    f"--side-px {side_px}: {name} takes multiples of {multiple} up to "
                    f"{preset.max_side_px}. Choose one of these."
                )


def _report(names: Iterable[str], sides_px: Sequence[int]) -> dict[str, Any]:
    from focaldiffusion import __version__
    from focaldiffusion.models.memory import memory_table

    devices = _devices()
    required, optional = _packages()
    return {
        "focaldiffusion": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": required,
        "optional": optional,
        "devices": devices,
        "memory": [_need(row, devices) for row in memory_table(names, sides_px)],
        "hub": _hub(),
    }


def _packages() -> tuple[dict[str, str | None], list[dict[str, Any]]]:
    """Versions of the packages that are required, and of those that are optional."""
    from importlib import metadata

    from focaldiffusion.models.denoiser import ATTENTION_PACKAGES

    def version(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    required, optional = {}, []
    for requirement in metadata.requires("focaldiffusion") or ():
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        extra = re.search(r'extra == "([\w-]+)"', requirement)
        if extra is None:
            required[name] = version(name)
        elif extra[1] in _USES:
            install = f"pip install 'focaldiffusion[{extra[1]}]'"
            optional.append((name, extra[1], install))
    optional += [
        (name, backend, f"pip install {name}") for backend, name in ATTENTION_PACKAGES.items()
    ]
    found = [
        {"package": name, "version": version(name), "for": _USES[use], "install": install}
        for name, use, install in optional
    ]
    exiftool = shutil.which("exiftool")
    found.append(
        {
            "package": "exiftool (program)",
            "version": exiftool,
            "for": "lens data of camera raw",
            "install": "see exiftool.org",
        }
    )
    return required, found


def _devices() -> list[dict[str, Any]]:
    """Where torch can compute, with the memory there in all and that is free, in bytes."""
    import torch

    total, free = _main_memory()
    devices: list[dict[str, Any]] = [
        {
            "device": "cpu",
            "name": f"{platform.machine()}, {os.cpu_count()} logical cores",
            "total_bytes": total,
            "free_bytes": free,
        }
    ]
    for index in range(torch.cuda.device_count()):
        free_bytes, total_bytes = torch.cuda.mem_get_info(index)
        devices.append(
            {
                "device": f"cuda:{index}",
                "name": torch.cuda.get_device_name(index),
                "total_bytes": total_bytes,
                "free_bytes": free_bytes,
            }
        )
    if torch.backends.mps.is_available():
        recommended = torch.mps.recommended_max_memory()
        devices.append(
            {
                "device": "mps",
                "name": "Apple GPU, in main memory",
                "total_bytes": recommended,
                "free_bytes": recommended - torch.mps.driver_allocated_memory(),
            }
        )
    return devices


def _main_memory() -> tuple[int | None, int | None]:
    """Main memory in bytes, in all and free; None where the system does not tell."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
        except (AttributeError, ValueError, OSError):  # Windows has no such function
            return None, None
    kib = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE))
    return int(kib["MemTotal"]) * 1024, int(kib["MemAvailable"]) * 1024


def _need(row: MemoryRow, devices: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What a preset needs, and on which devices it fits into the free memory."""
    from dataclasses import asdict

    return {
        **asdict(row),
        "fits": {
            one["device"]: _fit(row, one["free_bytes"] or one["total_bytes"]) for one in devices
        },
    }


def _fit(row: MemoryRow, memory_bytes: int | None) -> str | None:
    """The most that fits into so much memory; None where that is not known."""
    if memory_bytes is None:
        return None
    for need, text in (
        (row.training_bytes, "trains"),
        (row.training_checkpointed_bytes, "trains checkpointed"),
        (row.inference_bytes, "runs"),
    ):
        if need <= memory_bytes:
            return text
    return "too large"


def _hub() -> dict[str, Any]:
    """Whether a token is stored, and whether the base models can be downloaded."""
    from huggingface_hub import constants, get_token

    from focaldiffusion.models.presets import PRESETS

    ids = [preset.base_model_id for preset in PRESETS.values() if preset.base_model_id]
    return {
        "endpoint": constants.ENDPOINT,
        "token": get_token() is not None,
        "cache": constants.HF_HUB_CACHE,
        "models": [
            {"model": name, "access": problem is None, "problem": problem}
            for name, problem in zip(ids, _problems(ids), strict=True)
        ],
    }


def _problems(ids: Sequence[str]) -> list[str | None]:
    """Why each model cannot be downloaded, None where it can; all are asked at once."""
    from focaldiffusion.checkpoints.hub import check_access

    answers: list[str | None] = [
        f"{name}: the hub has not answered within {_HUB_PATIENCE_S:g} s. Check the network."
        for name in ids
    ]

    def ask(index: int) -> None:
        try:
            check_access(ids[index])
            answers[index] = None
        except InputError as error:
            answers[index] = str(error)

    # Daemons, since nobody can stop a thread that waits for a network.
    threads = [
        threading.Thread(target=ask, args=(index,), daemon=True) for index in range(len(ids))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_HUB_PATIENCE_S)
    return list(answers)


def _print(console: Console, report: dict[str, Any]) -> None:
    versions = _table("package", "version")
    versions.add_row("focaldiffusion", report["focaldiffusion"])
    versions.add_row("python", report["python"])
    for name, version in report["packages"].items():
        versions.add_row(name, version or "missing")
    console.print(versions)

    optional = _table("optional", "version", "for")
    for one in report["optional"]:
        optional.add_row(one["package"], one["version"] or f"missing: {one['install']}", one["for"])
    console.print(optional)

    devices = _table("device", "what", "GiB", "free")
    for one in report["devices"]:
        sizes = (_gib(one["total_bytes"]), _gib(one["free_bytes"]))
        devices.add_row(one["device"], one["name"], *sizes)
    console.print(devices)

    names = [one["device"] for one in report["devices"]]
    memory = _table(
        "GiB, bfloat16",
        "px",
        "weights",
        "run",
        "train",
        "checkpointed",
        *(f"on {n}" for n in names),
    )
    for row in report["memory"]:
        memory.add_row(
            row["preset"],
            str(row["side_px"]),
            *(_gib(row[f"{what}_bytes"]) for what in ("weights", "inference")),
            f"{_gib(row['training_bytes'])} {row['tuning']}",
            _gib(row["training_checkpointed_bytes"]),
            *(row["fits"][name] or "unknown" for name in names),
        )
    console.print(memory)

    hub = report["hub"]
    console.print(f"hub: {hub['endpoint']}, {'a token' if hub['token'] else 'no token'} is stored")
    for one in hub["models"]:
        console.print(one["problem"] or f"{one['model']}: may be downloaded", soft_wrap=True)


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(*columns, box=box.SIMPLE_HEAD)


def _gib(size_bytes: int | None) -> str:
    return "unknown" if size_bytes is None else f"{size_bytes / _GIB:.2f}"
