"""Limits of what the page may send, which it states before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass

from focaldiffusion.io.budget import LARGEST_MEGAPIXELS


@dataclass(frozen=True)
class Limits:
    """Limits of the files of one stack.

    Attributes:
        file_bytes: of one file; 150 megapixels of 16 bits in three colours have 0.9e9.
        total_bytes: of all files together.
        files: number of files.
        pixels: of one frame.
    """

    file_bytes: int = 2**30
    total_bytes: int = 50 * 2**30
    files: int = 1000
    pixels: int = LARGEST_MEGAPIXELS * 1_000_000
