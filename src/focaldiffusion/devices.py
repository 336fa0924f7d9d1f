"""The devices that torch computes on."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from focaldiffusion.errors import InputError

AUTO = "auto"
"""Name of the fastest device: CUDA, then MPS (Apple GPUs), else the CPU."""


def resolve_device(name: str) -> str:
    """Torch's name of a device that computes here; `auto` becomes the fastest one.

    Raises:
        InputError: torch does not know the device or cannot compute on it.
    """
    import torch

    if name == AUTO:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()  # fails on `meta`, which has shapes but no numbers
    # AssertionError: torch was built without CUDA.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")  # some are a page long
        raise InputError(
            f"device {name}: torch cannot compute there ({reason}). Use cpu or auto, "
            "or install a torch that suits the device."
        ) from None
    return name


@dataclass(frozen=True)
class Device:
    """A device, with its total and free memory in bytes (None if unknown)."""

    device: str
    name: str
    total_bytes: int | None
    free_bytes: int | None


def list_devices() -> list[Device]:
    """All devices of this machine, the CPU first."""
    import torch

    devices = [Device("cpu", f"{platform.machine()}, {os.cpu_count()} logical cores", *_memory())]
    for index in range(torch.cuda.device_count()):
        free_bytes, total_bytes = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        devices.append(Device(f"cuda:{index}", name, total_bytes, free_bytes))
    if torch.backends.mps.is_available():
        total_bytes = torch.mps.recommended_max_memory()
        free_bytes = total_bytes - torch.mps.driver_allocated_memory()
        devices.append(Device("mps", "Apple GPU, in main memory", total_bytes, free_bytes))
    return devices


def _memory() -> tuple[int | None, int | None]:
    """Total and free main memory in bytes; None if the system does not report it."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
        except (AttributeError, ValueError, OSError):  # Windows has no such function
            return None, None
    kib = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE))
    return int(kib["MemTotal"]) * 1024, int(kib["MemAvailable"]) * 1024
