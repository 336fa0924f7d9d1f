"""`focaldiffusion find`: the focus stacks in a pile of photographs."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from focaldiffusion.cli.flags import Commands, given_path, positive_integer
from focaldiffusion.cli.progress import progress_bars
from focaldiffusion.errors import InputError, printable

if TYPE_CHECKING:
    from focaldiffusion.archive.cutting import Series
    from focaldiffusion.archive.manifest import Entry

_NAMES = {
    "focus stack": ("focus stack", "focus stacks"),
    "exposure bracket": ("exposure bracket", "exposure brackets"),
    "other bracket": ("other bracket", "other brackets"),
    "burst": ("burst", "bursts"),
    "single": ("single shot", "single shots"),
    "unreadable": ("unreadable file", "unreadable files"),
}


def add_parser(commands: Commands) -> None:
    """Add the command to those of `focaldiffusion`."""
    parser = commands.add_parser(
        "find",
        help="find the focus stacks in a pile of photographs",
        description="Find the focus stacks among the photographs of a folder and those below it, "
        "and print them. No file is moved or changed. `focaldiffusion batch` reconstructs what a "
        "manifest lists.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="such as a memory card")
    parser.add_argument(
        "--manifest",
        type=given_path,
        metavar="FILE",
        help="write a row for each stack there, as .csv or .parquet",
    )
    parser.add_argument(
        "--sheets", type=given_path, metavar="DIR", help="write a contact sheet of each stack there"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier manifest")
    parser.add_argument("--all", action="store_true", help="print everything else, too")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("--quiet", action="store_true", help="print only errors")
    parser.add_argument(
        "--threads", type=positive_integer, metavar="N", help="CPU threads (default: all CPUs)"
    )


def run(options: argparse.Namespace) -> int:
    """Find the stacks, write what is asked for, and return the exit code.

    Raises:
        InputError: the folder cannot be read, an output is taken or cannot be written.
    """
    from focaldiffusion.archive.manifest import check_manifest_path, write_manifest
    from focaldiffusion.archive.pile import entries_of, find_series, photographs, write_sheet
    from focaldiffusion.threads import threads

    if options.manifest is not None:
        check_manifest_path(options.manifest)
        if options.manifest.exists() and not options.overwrite:
            raise InputError(
                f"{options.manifest}: exists. Choose another file, or replace it with --overwrite."
            )
    paths = photographs(options.folder)
    bars = progress_bars(str(options.folder), quiet=options.quiet)
    with bars as progress, threads(options.threads):
        series = find_series(paths, progress)
        entries = entries_of(series, options.folder)
        if options.sheets is not None:
            for done, entry in enumerate(entries, start=1):
                write_sheet(entry, options.sheets / f"{entry.key}.png")
                progress("contact sheets", done, len(entries))
    if options.manifest is not None:
        write_manifest(options.manifest, entries)
    if options.json:
        print(json.dumps(_content(entries, series), indent=2, allow_nan=False))
    elif not options.quiet:
        _print(entries, [one for one in series if one.kind != "focus stack"], options)
        print(_summary(series))
    return 0


def _content(entries: Sequence[Entry], series: Sequence[Series]) -> dict[str, object]:
    from focaldiffusion import __version__

    others = [
        {"kind": one.kind, "files": [str(shot.path) for shot in one.shots], "reason": one.reason}
        for one in series
        if one.kind != "focus stack"
    ]
    stacks = [asdict(entry) for entry in entries]
    return {"focaldiffusion": __version__, "stacks": stacks, "others": others}


def _print(entries: Sequence[Entry], others: Sequence[Series], options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("stack", "left"), ("frames", "right"), ("camera", "left"), ("", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for entry in entries:
        texts = entry.key, str(len(entry.frames)), entry.camera, entry.reason
        table.add_row(*map(printable, texts))
    if options.all:
        for one in sorted(others, key=lambda one: one.shots[0].path):
            first, last = one.shots[0].path, one.shots[-1].path
            name = first.name if first == last else f"{first.name} to {last.name}"
            camera = one.shots[0].capture.camera
            texts = name, str(len(one.shots)), camera, f"{one.kind}: {one.reason}"
            table.add_row(*map(printable, texts), style="dim")
    if table.row_count:
        Console(markup=False, highlight=False).print(table)


def _summary(series: Sequence[Series]) -> str:
    """All kinds with their numbers, in words."""
    counts = Counter(one.kind for one in series)
    files = sum(len(one.shots) for one in series)
    framed = sum(len(one.shots) for one in series if one.kind == "focus stack")
    parts = []
    for kind, (singular, plural) in _NAMES.items():
        count = counts[kind]  # type: ignore[index]
        if count or kind == "focus stack":
            text = f"{count or 'no'} {singular if count == 1 else plural}"
            parts.append(text + (f" of {framed} frames" if kind == "focus stack" and count else ""))
    return f"{files} photographs: {', '.join(parts)}."
