"""Findings about the files of a stack that differ in kind, and about pictures left beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from focaldiffusion.io.decoding import ImageHeader
from focaldiffusion.io.encoding import profile_name, same_colours
from focaldiffusion.io.formats import overlooked


def mixed(names: Sequence[str], headers: Sequence[ImageHeader]) -> tuple[str, ...]:
    """Sentences about frames whose colours do not compare.

    Args:
        names: of the frames.
        headers: of the frames; the others are compared to the first.
    """
    findings = []
    first = headers[0].icc_profile
    profiles = {header.icc_profile for header in headers}
    odd = {one for one in profiles if not same_colours(one, first)}
    others = [name for name, one in zip(names, headers, strict=True) if one.icc_profile in odd]
    if others:
        other = headers[names.index(others[0])].icc_profile
        findings.append(
            f"the colour profile of {_counted(others)} is {profile_name(other)}, that of "
            f"{names[0]} {profile_name(first)}: their colours differ. Export all frames with one "
            "profile."
        )
    grey = [name for name, header in zip(names, headers, strict=True) if header.is_grey]
    if 0 < len(grey) < len(names):
        findings.append(
            f"grey among frames in colour: {grey[0]} ({len(grey)} of {len(names)}). Export all "
            "frames alike."
        )
    return tuple(findings)


def beside(folder: Path, frames: Sequence[Path]) -> tuple[str, ...]:
    """A sentence about pictures in a folder that are not read as frames."""
    names = overlooked(folder, frames)
    if not names:
        return ()
    return (
        f"not read as frames: {_counted(names)}, by suffix no photograph, but a picture. Convert "
        "it if it is a frame, or list the frames under files in stack.json.",
    )


def _counted(names: Sequence[str]) -> str:
    """The first name, and how many others."""
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
