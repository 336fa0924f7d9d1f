"""How well `focaldiffusion find` cuts a memory card whose series are known.

    python benchmarks/find.py [--files N] [--seeds FIRST LAST] [--output DIR] [--timing N]

Each seed makes a card of two cameras: three focus brackets, bursts, exposure brackets and single
shots of procedural scenes, as small JPEGs with the EXIF and maker notes that the cameras write,
their counters passing 9999. It is cut with its metadata, and once more without any, when names and
pictures are all there is. `--timing N` cuts N files of one card size by their metadata.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from focaldiffusion.archive.cutting import Series
from focaldiffusion.archive.pile import find_series, photographs
from focaldiffusion.threads import threads

SIZE = (240, 320)
_BRACKET_FRAMES = (12, 25, 40)
_START = datetime(2026, 5, 1, 9, 0, 0)

Image8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Planned:
    """A photograph to write.

    Attributes:
        series: number of its series; the kind is that of the card.
        kind: focus, exposure, burst or single.
        shot: number in the series, from 1.
        stops: exposure relative to the series' first frame.
        focus: in [0, 1], from the nearest to the farthest part of the scene.
        gap_s: time since the frame before.
    """

    series: int
    kind: str
    shot: int
    stops: float
    focus: float
    gap_s: float


def plan(files: int, rng: np.random.Generator) -> list[Planned]:
    """The photographs of a card in the order they are taken."""
    series: list[tuple[str, int]] = [("focus", count) for count in _BRACKET_FRAMES]
    left = files - sum(_BRACKET_FRAMES)
    for kind, share, counts in (("burst", 0.2, (4, 12)), ("exposure", 0.12, (3, 8))):
        room = share * files
        while room > 0 and left > counts[1]:
            count = int(rng.integers(*counts))
            series.append((kind, count))
            room, left = room - count, left - count
    series += [("single", 1)] * left
    rng.shuffle(series)  # type: ignore[arg-type]
    planned = []
    for number, (kind, count) in enumerate(series):
        pause_s = float(rng.choice([1.5, 4.0, 12.0, 90.0, 1500.0]))
        usual_s = {"focus": 0.4, "burst": 0.15, "exposure": 0.5, "single": 0.0}[kind]
        focus = float(rng.uniform())
        for shot in range(count):
            planned.append(
                Planned(
                    number,
                    kind,
                    shot + 1,
                    stops=float(shot - count // 2) if kind == "exposure" else 0.0,
                    focus=shot / (count - 1) if kind == "focus" else focus,
                    gap_s=usual_s if shot else pause_s,
                )
            )
    return planned


def scene(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Light (H, W, 3) and depth (H, W) in [0, 1] of a drawn scene."""
    height, width = SIZE
    light = np.empty((height, width, 3), np.float32)
    light[:] = rng.uniform(0.05, 0.5, 3)
    depth = np.tile(np.linspace(1, 0, height, dtype=np.float32)[:, None], (1, width))
    for size in (120, 60, 30, 15, 8, 4):
        for _ in range(int(6000 / size**1.5)):
            x, y = rng.integers(0, width), rng.integers(0, height)
            corner = x + int(rng.uniform(0.4, 1.5) * size), y + int(rng.uniform(0.4, 1.5) * size)
            colour = rng.uniform(0.02, 0.9, 3).tolist()
            cv2.rectangle(light, (int(x), int(y)), corner, colour, -1, cv2.LINE_AA)
            if size == 60:
                cv2.rectangle(depth, (int(x), int(y)), corner, float(rng.uniform()), -1)
    return light, depth


def photograph(
    light: NDArray[np.float32], depth: NDArray[np.float32], one: Planned, rng: np.random.Generator
) -> Image8:
    """A frame: blur by distance from the focus, a small motion, exposure, noise."""
    blurred = np.zeros_like(light)
    weight = np.zeros(light.shape[:2], np.float32)
    for level in np.linspace(0, 1, 7):
        mask = np.clip(1 - 6 * np.abs(depth - level), 0, 1).astype(np.float32)
        sigma = max(0.4, 9 * abs(level - one.focus))
        blurred += cv2.GaussianBlur(light * mask[..., None], (0, 0), sigma)
        weight += cv2.GaussianBlur(mask, (0, 0), sigma)
    blurred /= np.maximum(weight, 1e-3)[..., None]
    moved = 0.8 if one.kind == "focus" else 3.0
    shift = np.array([[1, 0, rng.normal(0, moved)], [0, 1, rng.normal(0, moved)]])
    frame = cv2.warpAffine(
        blurred, shift, SIZE[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    encoded = np.clip(frame * 2.0**one.stops, 0, 1) ** (1 / 2.2) * 255
    return np.clip(encoded + rng.normal(0, 1.5, encoded.shape), 0, 255).astype(np.uint8)


Entries = Sequence[tuple[int, int, bytes]]  # tag, TIFF type, data


def directory(entries: Entries, start: int) -> bytes:
    """A little-endian IFD at an offset, with its data behind it."""
    place = start + 2 + 12 * len(entries) + 4
    body, data = struct.pack("<H", len(entries)), b""
    for tag, kind, value in sorted(entries):
        count = len(value) // {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1}[kind]
        if len(value) <= 4:
            body += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
        else:
            body += struct.pack("<HHII", tag, kind, count, place + len(data))
            data += value + b"\0" * (len(value) % 2)
    return body + b"\0\0\0\0" + data


def olympus_note(one: Planned) -> bytes:
    """DriveMode in the camera settings of an OM SYSTEM note, whose offsets count from its start."""
    mode = {"single": 0, "burst": 1, "exposure": 2, "focus": 5}[one.kind]
    bits = 1 << 6 if one.kind == "focus" else 0
    drive = struct.pack("<5H", mode, one.shot if mode else 0, bits, 0, 4)
    settings_at = 16 + 2 + 12 + 4
    note = directory([(0x2020, 4, struct.pack("<I", settings_at))], 16)
    return b"OM SYSTEM\0\0\0II\4\0" + note + directory([(0x0600, 3, drive)], settings_at)


def canon_note(one: Planned, start: int) -> bytes:
    """CameraSettings and FileInfo of a Canon note, whose offsets count from the EXIF block."""
    settings = [102] + [0] * 50
    settings[5], settings[50] = int(one.kind == "burst"), int(one.kind == "focus")
    info = [44] + [0] * 21
    if one.kind == "exposure":
        info[3], info[5] = 1, one.shot
    words = [(0x0001, 3, struct.pack("<51H", *settings)), (0x0093, 3, struct.pack("<22H", *info))]
    return directory(words, start)


def exif(one: Planned, taken: datetime, *, is_canon: bool) -> bytes:
    """An EXIF block with the maker note of either camera."""
    exposure = (max(1, round(1000 * 2**one.stops)), 250_000)
    make, model = (b"Canon", b"Canon EOS R5") if is_canon else (b"OM Digital Solutions", b"OM-1")
    photo: list[tuple[int, int, bytes]] = [
        (0x829A, 5, struct.pack("<II", *exposure)),
        (0x829D, 5, struct.pack("<II", 40, 10)),
        (0x8827, 3, struct.pack("<H", 200)),
        (0x9003, 2, taken.strftime("%Y:%m:%d %H:%M:%S").encode() + b"\0"),
        (0x920A, 5, struct.pack("<II", 60, 1)),
    ]
    if is_canon:  # the other camera counts whole seconds
        photo.append((0x9291, 2, f"{taken.microsecond // 10_000:02d}".encode() + b"\0"))
    head = [(0x010F, 2, make + b"\0"), (0x0110, 2, model + b"\0"), (0x8769, 4, b"\0" * 4)]
    photo_at = 8 + len(directory(head, 8))
    head[-1] = (0x8769, 4, struct.pack("<I", photo_at))
    placed = photo_at + len(directory(photo, photo_at)) + 12  # with the note's own entry
    note = canon_note(one, placed) if is_canon else olympus_note(one)
    photo.append((0x927C, 7, note))  # the last data of its directory
    return b"Exif\0\0II*\0\x08\0\0\0" + directory(head, 8) + directory(photo, photo_at)


def make_card(folder: Path, files: int, seed: int) -> dict[Path, Planned]:
    """Write a card; the plan of each file."""
    rng = np.random.default_rng(seed)
    pictures = _pictures(plan(files, rng), rng)
    written = {}
    numbers, time_of = [9990, 300], [_START, _START]
    for one, pixels in pictures:
        camera = one.series % 2
        time_of[camera] += timedelta(seconds=one.gap_s)
        numbers[camera] = numbers[camera] % 9999 + 1
        name = f"{('P', 'IMG_')[camera]}{numbers[camera]:04d}.JPG"
        path = folder / f"DCIM/{('100OMSYS', '100CANON')[camera]}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        block = exif(one, time_of[camera], is_canon=camera == 1)
        Image.fromarray(pixels).save(path, quality=85, exif=block)
        stamp = float(rng.uniform(1e9, 1.7e9))  # as copying leaves it
        os.utime(path, (stamp, stamp))
        written[path] = one
    return written


def _pictures(
    planned: Sequence[Planned], rng: np.random.Generator
) -> Iterator[tuple[Planned, Image8]]:
    number = -1
    for one in planned:
        if one.series != number:
            number, (light, depth) = one.series, scene(rng)
        yield one, photograph(light, depth, one, rng)


def right_frames(found: Sequence[Series], truth: dict[Path, Planned]) -> tuple[int, int]:
    """Frames in the right stack, or rightly in none; and stacks that are exactly right."""
    stack_of = {
        shot.path: index
        for index, one in enumerate(found)
        if one.kind == "focus stack"
        for shot in one.shots
    }
    wanted = {path: one.series for path, one in truth.items() if one.kind == "focus"}
    overlap = Counter((stack_of[path], wanted[path]) for path in stack_of.keys() & wanted.keys())
    partner: dict[int, int] = {}
    for (index, series), _ in overlap.most_common():
        if series not in partner and index not in partner.values():
            partner[series] = index
    right = sum(
        stack_of.get(path) == (partner.get(wanted[path], -1) if path in wanted else None)
        for path in truth
    )
    exact = 0
    for series, index in partner.items():
        members = {shot.path for shot in found[index].shots}
        exact += members == {path for path, number in wanted.items() if number == series}
    return right, exact


def without_metadata(folder: Path, target: Path) -> None:
    """A copy of a card whose JPEGs have lost all segments of metadata, pixels untouched."""
    for path in sorted(folder.rglob("*.JPG")):
        data, place = path.read_bytes(), 2
        kept = io.BytesIO(b"\xff\xd8")
        kept.seek(2)
        while data[place + 1] != 0xDA:
            (length,) = struct.unpack_from(">H", data, place + 2)
            if not 0xE1 <= data[place + 1] <= 0xEF:
                kept.write(data[place : place + 2 + length])
            place += 2 + length
        kept.write(data[place:])
        copy = target / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(kept.getvalue())


def cut_card(folder: Path) -> tuple[list[Series], float]:
    """The series of a card, and the CPU seconds that finding them took."""
    started = time.process_time()
    with threads(1):
        found = find_series(photographs(folder), lambda stage, done, total: None)
    return found, time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs=2, default=(100, 102), metavar=("FIRST", "LAST"))
    parser.add_argument("--timing", type=int, metavar="N", help="cut a card of N files instead")
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep the cards here")
    options = parser.parse_args()
    home = options.output or Path(tempfile.mkdtemp())
    if options.timing:
        truth = make_card(home / "timed", min(options.timing, 500), 0)
        copies = [home / "timed" / f"copy{n}" for n in range(1, -(-options.timing // len(truth)))]
        for copy in copies:
            shutil.copytree(home / "timed" / "DCIM", copy)
        _, seconds = cut_card(home / "timed")
        print(f"{len(truth) * (1 + len(copies))} JPEGs: {seconds:.1f} s of CPU")
    else:
        print("| seed | metadata | frames right | stacks exact | CPU s |\n|---|---|---|---|---|")
        for seed in range(options.seeds[0], options.seeds[1] + 1):
            card, bare = home / f"card{seed}", home / f"bare{seed}"
            truth = make_card(card, options.files, seed)
            without_metadata(card, bare)
            for name, folder in (("all", card), ("none", bare)):
                plans = {folder / path.relative_to(card): one for path, one in truth.items()}
                found, seconds = cut_card(folder)
                right, exact = right_frames(found, plans)
                share = f"{right / len(plans):.1%}"
                print(f"| {seed} | {name} | {share} | {exact} of 3 | {seconds:.1f} |", flush=True)
    if options.output is None:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
