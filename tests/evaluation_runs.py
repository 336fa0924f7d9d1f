"""Runs of `focaldiffusion evaluate` as tests write them: records without the work."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from focaldiffusion.evaluation.records import RUN, Record, write_records


def record(
    sample: str,
    model: str,
    metrics: dict[str, float] | None,
    *,
    protocol: str = "rgbd",
    variant: str | None = None,
    scene: str | None = None,
    counted: bool = True,
    **more: Any,
) -> Record:
    """What became of a sample; one without metrics failed."""
    return Record(
        protocol=protocol,
        variant=variant,
        sample=sample,
        scene=scene or sample,
        counted=counted,
        model=model,
        status="done" if metrics is not None else "failed",
        error=None if metrics is not None else "the frames are too dark to tell.",
        metrics=metrics or {},
        **more,
    )


def write_run(directory: Path, records: Iterable[Record]) -> Path:
    """A folder as the runner leaves it."""
    directory.mkdir(parents=True, exist_ok=True)
    write_records(directory, records)
    facts = {
        "focaldiffusion": "0.1.0",
        "command": ["focaldiffusion", "evaluate", "--output-dir", "my run"],
        "plan": {"protocol": "rgbd", "max_samples": None},
        "started": "2025-01-02 03:04:05+0000",
        "packages": {"torch": "2.9.0"},
        "processor": "A Processor",
        "gpu": None,
    }
    (directory / RUN).write_text(json.dumps(facts), encoding="utf-8")
    return directory
