"""Folders of flat frames with EXIF and a `stack.json`, and the refusal of one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from focaldiffusion.errors import InputError
from focaldiffusion.io.stacks import open_stack

HEIGHT, WIDTH = 30, 40


def exif(
    focus_m: float | None = None,
    focal_mm: float | None = None,
    f_number: float | None = None,
    f35_mm: int | None = None,
    make: str = "Maker",
    orientation: int = 1,
) -> bytes:
    block = Image.Exif()
    block[0x010F], block[0x0112] = make, orientation
    values = {0x9206: focus_m, 0x920A: focal_mm, 0x829D: f_number, 0xA405: f35_mm}
    block[0x8769] = {tag: value for tag, value in values.items() if value is not None}
    return block.tobytes()


def frame(
    path: Path, level: int, exif_block: bytes = b"", size: tuple[int, int] = (30, 40)
) -> Path:
    """A flat grey frame whose level tells which it is."""
    Image.new("RGB", size[::-1], (level, level, level)).save(path, exif=exif_block)
    return path


def folder_of(
    folder: Path, exif_blocks: Sequence[bytes] = (b"",) * 3, sidecar: dict[str, Any] | None = None
) -> Path:
    """Frames frame_0.png, frame_1.png ... of level 20, 40 ..."""
    folder.mkdir(exist_ok=True)
    for index, block in enumerate(exif_blocks):
        frame(folder / f"frame_{index}.png", 20 * (index + 1), block)
    if sidecar is not None:
        (folder / "stack.json").write_text(json.dumps(sidecar))
    return folder


def refusal(source: Any, **given: Any) -> str:
    with pytest.raises(InputError) as caught:
        open_stack(source, **given)
    return str(caught.value)
