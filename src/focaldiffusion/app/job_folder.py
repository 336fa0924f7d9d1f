"""The folder of a job, for the server, for its process, and for what shows its result."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request

from focaldiffusion.app.errors import AppError
from focaldiffusion.app.folders import read_object
from focaldiffusion.files import why_not_file

ENDED = ("done", "failed", "cancelled", "interrupted")
"""States in which no process works on a job."""

_COMPLETE = "metadata.json"  # the mark of complete results, see `io/results.py`


@dataclass(frozen=True)
class JobFolder:
    """The folder of a job; see `jobs.py` for its files."""

    path: Path

    @property
    def request(self) -> dict[str, Any]:
        """The order: `draft`, `name`, `source`, `inside`, `corrections` and `options`."""
        return read_object(self.path / "request.json")

    @property
    def state(self) -> dict[str, Any]:
        """How far it is; empty if the folder is damaged."""
        return read_object(self.path / "state.json")

    @property
    def opened(self) -> Path:
        """The folder of the draft that it runs, see `drafts.py`."""
        return self.path.parents[1] / "drafts" / self.request["draft"]

    @property
    def draft(self) -> Path:
        """The draft result, a folder as `infer` writes it."""
        return self.path / "draft"

    @property
    def result(self) -> Path:
        """The result, a folder as `infer` writes it."""
        return self.path / "result"

    @property
    def has_draft(self) -> bool:
        """Whether the draft result is complete."""
        return why_not_file(self.draft / _COMPLETE) is None

    @property
    def has_result(self) -> bool:
        """Whether the result is complete."""
        return why_not_file(self.result / _COMPLETE) is None

    def shown(self, of: str | None = None) -> Path:
        """The results to show.

        Args:
            of: "draft" or "result"; None for the best there is.

        Raises:
            AppError: they are not there, or the name is unknown.
        """
        if of not in (None, "draft", "result"):
            raise AppError(400, f"of={of}: expected draft or result.")
        if of != "draft" and self.has_result:
            return self.result
        if of != "result" and self.has_draft:
            return self.draft
        raise AppError(409, f"this job has no {of or 'result'} yet.")

    def clear(self) -> None:
        """Remove the results, before the job runs again."""
        for folder in (self.draft, self.result):
            shutil.rmtree(folder, ignore_errors=True)


def job_of(request: Request) -> JobFolder:
    """The job that the path of a request names.

    Raises:
        AppError: there is none.
    """
    folder: JobFolder = request.app.state.jobs.folder(request.path_params["job"])
    return folder
