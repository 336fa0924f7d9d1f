"""A batch: the rows that are due, run by an engine, with a report that survives any end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from focaldiffusion.archive.manifest import Entry
from focaldiffusion.archive.report import Line, Report
from focaldiffusion.archive.work import Task, Workshop
from focaldiffusion.engines.engine import Engine
from focaldiffusion.shards import Shard


class Batch:
    """Rows of a manifest, and their results and report in one place.

    Attributes:
        report: the report.
        expected: number of rows that were due so far.
    """

    def __init__(
        self, entries: Sequence[Entry], folder: Path, workshop: Workshop, shard: Shard | None = None
    ) -> None:
        """Describe a batch; nothing is read or written yet.

        Args:
            entries: all rows of the manifest.
            folder: folder of the manifest, see `Recipe.digest`.
            workshop: settings of all rows, and place of the results.
            shard: the part to work on, with a report of its own; None for all.
        """
        shard = shard or Shard()
        name = "report.csv" if shard.is_whole else f"report-{shard}.csv"
        self.report = Report(workshop.storage, name)
        self.expected = 0
        self._is_whole = shard.is_whole
        self._entries = {entry.key: entry for entry in shard.of(entries)}
        self._folder, self._workshop = folder, workshop

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Open the report for the block, and make the Zarr set if one is wanted.

        Raises:
            InputError: see `Report.opened` and `ZarrSet.begin`.
        """
        if self._workshop.zarr_set is not None:
            self._workshop.zarr_set.begin()
        with self.report.opened(self._entries, whole=self._is_whole):
            yield

    def due(self, *, retry: str | None = None) -> list[Task]:
        """The rows without results of the same row and settings, nor a failure.

        Args:
            retry: "failed" adds failed rows, "all" all rows.
        """
        there = self._workshop.storage.names()
        tasks = []
        for entry in self._entries.values():
            digest = self._workshop.recipe.digest(entry, self._folder)
            line = self.report.lines.get(entry.key)
            if retry != "all" and line is not None and line.digest == digest:
                if line.status == "done" and entry.key in there and self._is_in_set(line):
                    continue
                if line.status == "failed" and retry is None:
                    continue
            tasks.append(Task(entry, digest, again=retry == "all"))
        return tasks

    def _is_in_set(self, line: Line) -> bool:
        """Whether the results of a finished row are in the Zarr set, if one is wanted."""
        zarr_set = self._workshop.zarr_set
        return zarr_set is None or zarr_set.has(line.key, line.digest)

    def add(self, entries: Sequence[Entry]) -> None:
        """Add rows, or replace those of the same keys."""
        self._entries |= {entry.key: entry for entry in entries}

    def run(self, engine: Engine[Task, Line], tasks: Sequence[Task]) -> Iterator[Line]:
        """Work on rows; the report has each line before it is yielded.

        Args:
            engine: its workers start when needed.
            tasks: rows of this batch.

        Raises:
            InputError: see `Engine.run`.
        """
        self.expected += len(tasks)
        for line in engine.run(tasks):
            self.report.append(line)
            yield line

    def lines(self) -> list[Line]:
        """The newest line of each row that has one."""
        lines = self.report.lines
        return [lines[key] for key in self._entries if key in lines]
