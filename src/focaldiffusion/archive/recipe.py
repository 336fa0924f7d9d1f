"""Settings of all stacks of a command, and a digest that tells results of other settings apart."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focaldiffusion.archive.manifest import Entry
from focaldiffusion.archive.storage import is_remote
from focaldiffusion.io.frame_order import FrameOrder
from focaldiffusion.io.results import DepthFormat, PointCloud
from focaldiffusion.lens import LensFacts
from focaldiffusion.prior import PriorKind, PriorSource
from focaldiffusion.reconstruction import Settings

if TYPE_CHECKING:
    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline


@dataclass(frozen=True)
class Recipe:
    """Settings of all stacks of a command.

    Attributes:
        settings: of the reconstruction; its number of threads is that of each process.
        order: see `open_stack`.
        lens: the lens as far as it is known, for all stacks.
        depth_formats: see `Result.save`.
        point_cloud: see `Result.save`.
        model: description of the learned model; None for the physical estimate.
        load: loads that model, once in each process.
        prior: description of the depth network; None for none.
        load_prior: loads that network, once in each process.
        prior_kind: scale of the files that rows name as their priors.
        network_bytes: memory that the weights of both networks take in each process.
        lighter: advice on using less memory.
    """

    settings: Settings = field(default_factory=Settings)
    order: FrameOrder = "auto"
    lens: LensFacts = field(default_factory=LensFacts)
    depth_formats: tuple[DepthFormat, ...] = ("npy", "png")
    point_cloud: PointCloud = "auto"
    model: dict[str, Any] | None = None
    load: Callable[[], FocalDiffusionPipeline] | None = None
    prior: dict[str, str] | None = None
    load_prior: Callable[[], PriorSource] | None = None
    prior_kind: PriorKind | None = None
    network_bytes: int = 0
    lighter: str = "Make the frames smaller, or give fewer frames."

    @cached_property
    def _facts(self) -> dict[str, Any]:
        """All that decides on the results: not how many threads make them."""
        settings = replace(self.settings, threads=None)
        return {
            **{name: getattr(self, name) for name in ("order", "depth_formats", "point_cloud")},
            "settings": asdict(settings),
            "lens": asdict(self.lens),
            "model": self.model,
            "prior": self.prior,
        }

    def digest(self, entry: Entry, folder: Path) -> str:
        """Digest of a row and the settings: other ones give other results.

        Args:
            entry: the row.
            folder: folder of the manifest; frames count relative to it, so that both can move.
        """

        def moved(path: str) -> str:
            return path if is_remote(path) else Path(os.path.relpath(path, folder)).as_posix()

        row: list[object] = [entry.key, [moved(frame) for frame in entry.frames]]
        row += [entry.focus_distances_m, entry.focus_positions_m]
        if entry.prior:
            row += [moved(entry.prior), self.prior_kind]
        text = json.dumps([row, self._facts], sort_keys=True, default=str)
        return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:16]
