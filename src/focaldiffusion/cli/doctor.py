"""`focaldiffusion doctor`: installed packages, devices, memory, priors, and access to the hub."""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import threading
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from focaldiffusion import __version__
from focaldiffusion.cli.flags import Commands, positive_integer
from focaldiffusion.devices import AUTO, list_devices, resolve_device
from focaldiffusion.errors import InputError, unknown_name

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from focaldiffusion.models.memory import MemoryRow

_PRESETS = ("compact", "sd35-medium", "sd35-large")
_SIDE_PX = 1024  # the working size of `infer`
_GIB = 2**30
_HUB_PATIENCE_S = 15.0  # the hub's client itself waits forever


def add_parser(commands: Commands) -> None:
    """Add the command to those of `focaldiffusion`."""
    parser = commands.add_parser(
        "doctor",
        help="versions, devices, memory that models need, access to the hub",
        description="List the installed packages, the devices and the memory that each preset "
        "needs there in bfloat16, the depth networks that --prior may run, and check access to the "
        "base models. Changes nothing.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--preset",
        action="append",
        metavar="NAME",
        help=f"preset to compute memory for, repeatable (default: {', '.join(_PRESETS)})",
    )
    parser.add_argument(
        "--side-px",
        action="append",
        type=positive_integer,
        metavar="PX",
        help=f"side of the square working image, repeatable (default: {_SIDE_PX})",
    )


def run(options: argparse.Namespace) -> int:
    """Print the report and return 0.

    Raises:
        InputError: an unknown preset, or a side that it does not take.
    """
    from rich.console import Console

    names, sides_px = options.preset or _PRESETS, options.side_px or [_SIDE_PX]
    _check_sizes(names, sides_px)
    watched = Console(stderr=True)
    # Large presets take seconds each.
    with watched.status("computing memory") if watched.is_terminal else nullcontext():
        report = _report(names, sides_px)
    if options.json:
        print(json.dumps(report, indent=2, allow_nan=False))
    else:
        # Without markup: the brackets of `focaldiffusion[raw]` must not be taken for a style.
        _print(Console(markup=False, emoji=False), report)
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
    from focaldiffusion.models.memory import memory_row

    devices = list_devices()
    free = {one.device: one.free_bytes or one.total_bytes for one in devices}
    return {
        "focaldiffusion": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _required(),
        "optional": _optional(),
        "devices": [asdict(device) for device in devices],
        AUTO: resolve_device(AUTO),
        "priors": _priors(),
        "memory": [
            asdict(row) | {"fits": {name: _fit(row, memory) for name, memory in free.items()}}
            for row in (memory_row(name, side_px) for name in names for side_px in sides_px)
        ],
        "hub": _hub(),
    }


def _required() -> dict[str, str | None]:
    """Versions of the required packages by name; None for a missing one."""
    from importlib import metadata

    found: dict[str, str | None] = {}
    for requirement in metadata.requires("focaldiffusion") or ():
        if "extra ==" not in requirement:
            name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = None
    return found


def _optional() -> list[dict[str, str | None]]:
    """Version, purpose and installation of the optional packages and of exiftool."""
    from focaldiffusion.packages import OPTIONAL

    found: list[dict[str, str | None]] = [
        {"package": one.name, "version": one.version, "for": one.purpose, "install": one.install}
        for one in OPTIONAL.values()
    ]
    exiftool = {
        "package": "exiftool (program)",
        "version": shutil.which("exiftool"),
        "for": "lens data of camera raw",
        "install": "see exiftool.org",
    }
    return [*found, exiftool]


def _priors() -> list[dict[str, str | None]]:
    """The families of depth networks for --prior: their scale, and the package that they miss."""
    from focaldiffusion.priors import marigold, transformer
    from focaldiffusion.priors.scales import scale_of_transformer

    found: list[dict[str, str | None]] = []
    for family, name in transformer.families().items():
        scale = scale_of_transformer({"model_type": family})
        usual = scale.kind or "to be given"
        found.append(
            {
                "family": family,
                "class": name,
                "scale": "as configured" if scale.stated_by else str(usual),
                "missing": transformer.missing_package(family),
            }
        )
    of_diffusers = {"class": marigold.CLASS, "scale": "as configured", "missing": None}
    return [*found, {"family": "marigold", **of_diffusers}]


def _fit(row: MemoryRow, memory_bytes: int | None) -> str | None:
    """The most that fits into this much memory; None if that is unknown."""
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
    """Whether a token is stored, and whether base models and a usual prior can be downloaded."""
    from huggingface_hub import constants, get_token

    from focaldiffusion.models.presets import PRESETS
    from focaldiffusion.priors.shelf import EXAMPLE

    ids = [preset.base_model_id for preset in PRESETS.values() if preset.base_model_id]
    ids.append(EXAMPLE)
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
    """The reason why each model cannot be downloaded, or None; all are asked at once."""
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
    threads = [threading.Thread(target=ask, args=(i,), daemon=True) for i in range(len(ids))]
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
        optional.add_row(one["package"], one["version"] or "missing", one["for"])
    console.print(optional)
    # Outside the table, which would break a command into lines.
    missing: dict[str, list[str]] = {}
    for one in report["optional"]:
        if one["version"] is None:
            missing.setdefault(one["install"], []).append(one["package"])
    for install, packages in missing.items():
        console.print(f"to install {', '.join(packages)}: {install}", soft_wrap=True)

    devices = _table("device", "name", "GiB", "free")
    for one in report["devices"]:
        sizes = (_gib(one["total_bytes"]), _gib(one["free_bytes"]))
        devices.add_row(one["device"], one["name"], *sizes)
    console.print(devices)
    console.print(f"--device {AUTO} takes {report[AUTO]}")

    priors = _table("prior", "scale", "misses")
    for one in report["priors"]:
        priors.add_row(one["family"], one["scale"], one["missing"] or "")
    console.print(priors)

    names = [one["device"] for one in report["devices"]]
    columns = ("GiB, bfloat16", "px", "weights", "run", "train", "checkpointed")
    memory = _table(*columns, *(f"on {name}" for name in names))
    for row in report["memory"]:
        memory.add_row(
            row["preset"],
            str(row["side_px"]),
            _gib(row["weights_bytes"]),
            _gib(row["inference_bytes"]),
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
