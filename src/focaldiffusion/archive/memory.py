"""Estimate of the memory that a row needs."""

from __future__ import annotations

import math

from focaldiffusion.archive.manifest import Entry
from focaldiffusion.archive.storage import is_remote
from focaldiffusion.frames import working_size
from focaldiffusion.io.frame_files import find_frames, open_frames
from focaldiffusion.io.images import probe_image

# These bound the peaks of docs/benchmarks.md: 2.4 GB for 3 frames of 60 megapixels, 2.6 GB for 187
# of 0.5 megapixels, 1.0 GB for 6 of 0.7.
_PROCESS_BYTES = 450 * 2**20
_BYTES_PER_WORKING_PIXEL = 170
_BYTES_PER_PIXEL = 30


def need_bytes(entry: Entry, working_size_px: int) -> int:
    """Memory that a process needs for a row, from the headers of its files.

    Args:
        entry: the row.
        working_size_px: `Settings.working_size`.

    Returns:
        0 where frames are remote or cannot be read, which is for the row itself to report.
    """
    if any(map(is_remote, entry.frames)):
        return 0
    try:
        source = entry.frames[0] if len(entry.frames) == 1 else list(entry.frames)
        found = find_frames(source)
        if len(found.files) > 1:
            count, size = len(found.files), probe_image(found.files[0]).stored_size
        else:
            frames, _ = open_frames(found)
            count, size = len(frames.names), frames.size
        working = count * math.prod(working_size(size, count, working_size_px))
    except Exception:  # of any kind, as for the row itself, which names it
        return 0
    return round(
        _PROCESS_BYTES + _BYTES_PER_WORKING_PIXEL * working + _BYTES_PER_PIXEL * math.prod(size)
    )
