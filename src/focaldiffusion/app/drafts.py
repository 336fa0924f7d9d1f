"""Drafts: stacks that were opened and may be corrected before they run, each in a folder."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from focaldiffusion.app.corrections import Corrections
from focaldiffusion.app.desk import Desk
from focaldiffusion.app.errors import AppError
from focaldiffusion.app.events import Events
from focaldiffusion.app.folders import (
    folders_in,
    known_folder,
    new_folder,
    read_object,
    remove_folder,
    write_object,
)
from focaldiffusion.errors import InputError, printable

_FILE, UPLOADED, _THUMBNAILS, SMALL = "draft.json", "frames", "thumbnails", "small"
_OPENING = "focaldiffusion.app.opening"
_KEPT_S = 7 * 24 * 3600.0
_THUMBNAIL_WAIT_S = 30.0


class Drafts:
    """The drafts of a work folder."""

    def __init__(self, home: Path, desk: Desk, events: Events) -> None:
        """Serve the drafts of a folder; it need not exist."""
        self.home = home
        self._desk, self._events = desk, events
        self._checks: dict[str, asyncio.Task[None]] = {}
        self._correcting = asyncio.Lock()

    def new(self) -> Path:
        """The folder of a new draft, for its uploads; `open` makes it a draft."""
        folder = new_folder(self.home)
        (folder / _THUMBNAILS).mkdir()
        return folder

    async def open(
        self, folder: Path, name: str, source: Path, inside: Path, notes: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Open a stack as a draft.

        Args:
            folder: of the draft; removed if the stack cannot be opened.
            name: of the stack.
            source: folder of the frames.
            inside: folder that no frame may lie outside of.
            notes: sentences about its files.

        Raises:
            InputError: there are no frames, or one lies outside.
        """
        try:
            await self._describe(
                folder,
                {
                    "name": printable(name),
                    "source": str(source),
                    "inside": str(inside),
                    "notes": list(notes),
                    "corrections": asdict(Corrections()),
                },
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return self.get(folder.name)

    def get(self, name: str) -> dict[str, Any]:
        """A draft as the page gets it.

        Raises:
            AppError: there is none.
        """
        folder = known_folder(self.home, name, "draft")
        saved = self.saved(name)
        opened, checked = saved["opened"], saved.get("checked")
        frames = [
            {**frame, "thumbnail": f"/api/drafts/{name}/thumbnails/{frame['id']}"}
            for frame in opened["frames"]
        ]
        return {
            **opened,
            "id": folder.name,
            "name": saved["name"],
            "frames": frames,
            "checking": folder.name in self._checks,
            "warnings": [
                *saved["notes"],
                *opened["warnings"],
                *(checked or {}).get("warnings", []),
            ],
            "errors": [*opened["errors"], *(checked or {}).get("errors", [])],
        }

    def saved(self, name: str) -> dict[str, Any]:
        """The record of a draft: name, source, inside, corrections, and what was found.

        Raises:
            AppError: there is none.
        """
        saved = read_object(known_folder(self.home, name, "draft") / _FILE)
        if not saved:
            raise AppError(404, f"draft {name}: its file is damaged. Open the stack again.")
        return saved

    async def correct(self, name: str, patch: dict[str, Any]) -> dict[str, Any]:
        """Change the corrections of a draft and open it again.

        Raises:
            AppError: there is no such draft, or a mistake in the request.
            InputError: a lens that cannot be.
        """
        folder = known_folder(self.home, name, "draft")
        async with self._correcting:  # each one begins with what the one before has left
            saved = self.saved(name)
            frames = [frame["id"] for frame in saved["opened"]["frames"]]
            corrections = Corrections(**saved["corrections"]).changed(patch, frames)
            corrections.facts()
            await self._describe(folder, {**saved, "corrections": asdict(corrections)})
        return self.get(name)

    async def _describe(self, folder: Path, draft: dict[str, Any]) -> None:
        if (running := self._checks.pop(folder.name, None)) is not None:
            running.cancel()
        stack = draft["source"], draft["inside"], draft["corrections"]
        opened = await self._desk.run(_OPENING, "describe", *stack)
        content = {**draft, "opened": opened, "checked": None}
        write_object(folder / _FILE, content)
        task = asyncio.create_task(self._check(folder, content))
        self._checks[folder.name] = task

    async def _check(self, folder: Path, draft: dict[str, Any]) -> None:
        """Check a draft in the background, and send it when that is done."""
        stack = draft["source"], draft["inside"], draft["corrections"]
        folders = str(folder / _THUMBNAILS), str(folder / SMALL)
        try:
            checked = await self._desk.run(
                _OPENING, "check", *stack, folders, not draft["opened"]["errors"]
            )
        except (InputError, AppError) as error:
            checked = {"warnings": [], "errors": [str(error)]}
        if self._checks.get(folder.name) is not asyncio.current_task():
            return  # corrected or deleted meanwhile
        del self._checks[folder.name]
        write_object(folder / _FILE, {**draft, "checked": checked})
        self._events.send("draft", folder.name, self.get(folder.name))

    async def thumbnail(self, name: str, frame: str) -> Path:
        """The thumbnail of a frame, a JPEG file; waits until it is made.

        Raises:
            AppError: there is no such frame, or it cannot be read.
        """
        folder = known_folder(self.home, name, "draft")
        if not (frame.isascii() and frame.isdecimal()):
            raise AppError(404, f"there is no frame {frame!r}.")
        path, end = folder / _THUMBNAILS / f"{frame}.jpg", time.monotonic() + _THUMBNAIL_WAIT_S
        while not path.exists():
            if name not in self._checks or time.monotonic() > end:
                raise AppError(404, f"frame {frame} has no thumbnail; it cannot be read.")
            await asyncio.sleep(0.1)
        return path

    def delete(self, name: str) -> None:
        """Delete a draft with its uploads; the frames of folders stay.

        Raises:
            AppError: there is none.
        """
        folder = known_folder(self.home, name, "draft")
        if (running := self._checks.pop(name, None)) is not None:
            running.cancel()
        remove_folder(folder)

    def sweep(self, used: set[str]) -> None:
        """Delete drafts that no job uses: unfinished uploads, and those left a week ago."""
        for folder in folders_in(self.home):
            file = folder / _FILE
            recent = file.exists() and time.time() - file.stat().st_mtime < _KEPT_S
            if folder.name not in used and not recent:
                shutil.rmtree(folder, ignore_errors=True)
