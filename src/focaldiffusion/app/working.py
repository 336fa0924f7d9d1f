"""The entry of a job's process, which the server names without importing what it needs."""

from __future__ import annotations

from pathlib import Path


def work(folder: str) -> None:
    """Run the job of a folder."""
    from focaldiffusion.app.worker import do

    do(Path(folder))
