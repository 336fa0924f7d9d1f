"""One row of a manifest to one folder of results, in a process that stays warm."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from focaldiffusion.archive.making import failure, make_results
from focaldiffusion.archive.manifest import Entry
from focaldiffusion.archive.memory import need_bytes
from focaldiffusion.archive.recipe import Recipe
from focaldiffusion.archive.report import Line
from focaldiffusion.archive.storage import Storage, is_remote, local_frames
from focaldiffusion.archive.zarr_set import ZarrSet
from focaldiffusion.errors import InputError
from focaldiffusion.io.stacks import open_stack
from focaldiffusion.prior import PriorSource
from focaldiffusion.priors.given import GivenPrior, read_prior
from focaldiffusion.result import Result

_BLOCK = "batch"
"""Block of `metadata.json` that says which row of a batch a result is of."""


@dataclass(frozen=True)
class Task:
    """A row to work on.

    Attributes:
        entry: the row.
        digest: see `Recipe.digest`.
        again: whether to make results again that exist.
    """

    entry: Entry
    digest: str
    again: bool = False


@dataclass(frozen=True)
class Workshop:
    """Where and how rows become results; small, so that it travels to any process.

    Attributes:
        recipe: settings of all rows.
        storage: place of the results.
        zarr_set: gets all results, too; None for none.
    """

    recipe: Recipe
    storage: Storage
    zarr_set: ZarrSet | None = None

    def open(self) -> Bench:
        """A warm place to work, with the model loaded.

        Raises:
            InputError: the model cannot be loaded.
        """
        return Bench(self)

    def need_bytes(self, task: Task) -> int:
        """Memory that a process needs for a row, from the headers of its files and of weights."""
        recipe = self.recipe
        return need_bytes(task.entry, recipe.settings.working_size) + recipe.network_bytes

    def lost(self, task: Task, how: str) -> Line:
        """The outcome of a row whose workers ended before it did; see `engines.Workshop`."""
        return Line(
            task.entry.key,
            "failed",
            f"{task.entry.key}: its worker {how}; perhaps the system ran out of memory. Lower "
            "--working-size, give fewer frames, or use a machine with more memory, and add --retry "
            "failed.",
            digest=task.digest,
        )


class Bench:
    """Makes results of rows, one after another; no error ends it."""

    def __init__(self, workshop: Workshop) -> None:
        self._recipe, self._storage = workshop.recipe, workshop.storage
        self._set = workshop.zarr_set
        recipe = self._recipe
        self._model = None if recipe.load is None else recipe.load()
        self._prior = None if recipe.load_prior is None else recipe.load_prior()

    def run(self, task: Task) -> Line:
        """Make the results of a row; keep those that an earlier, interrupted run made of it."""
        key = task.entry.key
        try:
            earlier = self._storage.metadata(key)
            if earlier is not None:
                made = self._of_batch(key, earlier)
                if made["digest"] == task.digest and not task.again:
                    if self._set is not None and not self._set.has(key, task.digest):
                        with self._storage.saved(key) as folder:
                            self._set.add(key, folder, task.digest)
                    return self._line(task, earlier)
            return self._line(task, self._make(task))
        except Exception as error:
            sentence, text = failure(key, error, self._recipe)
            return Line(key, "failed", sentence, digest=task.digest, traceback=text)

    def _of_batch(self, key: str, metadata: dict[str, Any]) -> dict[str, Any]:
        """The block of a batch in earlier results.

        Raises:
            InputError: another command made them.
        """
        if _BLOCK not in metadata:
            raise InputError(
                f"{self._storage.root}/{key}: holds results that another command made. Move them "
                "away, or choose another output."
            )
        return dict(metadata[_BLOCK])

    def _make(self, task: Task) -> dict[str, Any]:
        """Reconstruct and save; returns the provenance."""
        entry, recipe = task.entry, self._recipe
        with (
            local_frames(entry.frames) as source,
            self._storage.results(entry.key) as folder,
        ):
            opened = open_stack(
                source,
                focus_distances_m=entry.focus_distances_m,
                focus_positions_m=entry.focus_positions_m,
                lens=recipe.lens,
                order=recipe.order,
            )
            result, _ = make_results(
                replace(opened, name=entry.key),
                folder,
                recipe,
                model=self._model,
                prior=self._prior_of(entry),
                overwrite=True,
                note=lambda result: self._note(task, result),
            )
            if self._set is not None:
                self._set.add(entry.key, folder, task.digest)
        return result.provenance

    def _note(self, task: Task, result: Result) -> dict[str, Any]:
        """Entries for the provenance of a row."""
        block = {
            "key": task.entry.key,
            "digest": task.digest,
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "size": list(result.all_in_focus.shape[:2]),
        }
        frames = task.entry.frames
        remote = {"frames": list(frames)} if any(map(is_remote, frames)) else {}
        return {**remote, _BLOCK: block}

    def _prior_of(self, entry: Entry) -> PriorSource | None:
        """The file of the row, or the network of all rows; images alone need neither.

        Raises:
            InputError: see `read_prior`.
        """
        if not entry.prior or self._recipe.settings.image_only:
            return self._prior
        with local_frames((entry.prior,)) as path:
            given = read_prior(Path(str(path)), self._recipe.prior_kind)
        return GivenPrior(replace(given.prior, name=entry.prior))

    def _line(self, task: Task, provenance: dict[str, Any]) -> Line:
        block, confidence = provenance[_BLOCK], provenance["mean_confidence"]
        prior = provenance["prior"]
        return Line(
            task.entry.key,
            "done",
            frames=len(provenance["alignment"]["kept"]),
            size="x".join(map(str, reversed(block["size"]))),
            grade=str(provenance["grade"]),
            mean_confidence="" if confidence is None else f"{confidence:.3f}",
            prior_share="" if prior is None else f"{prior['share']:.3f}",
            findings=" ".join(provenance["findings"]),
            seconds=f"{sum(provenance['seconds'].values()):.3f}",
            finished=block["finished"],
            digest=task.digest,
        )
