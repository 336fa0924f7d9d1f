"""Server-sent events: what has changed, to every page that is open."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

_HEARTBEAT_S = 15.0


class Events:
    """Sends events to any number of listeners; a slow one gets the latest of each thing."""

    def __init__(self) -> None:
        self._listeners: set[_Listener] = set()
        self._is_open = True

    def send(self, kind: str, key: str, data: Any) -> None:
        """Send an event to all listeners.

        Args:
            kind: name of the event.
            key: of the thing that it is about; a newer event about it replaces one that waits.
            data: JSON.
        """
        for listener in self._listeners:
            listener.put(kind, key, data)

    def close(self) -> None:
        """End all listeners, so that the server can stop."""
        self._is_open = False
        for listener in self._listeners:
            listener.changed.set()

    async def stream(self, first: list[tuple[str, str, Any]]) -> AsyncIterator[str]:
        """The text of an event stream: the first events as (kind, key, data), then all others."""
        listener = _Listener()
        for event in first:
            listener.put(*event)
        self._listeners.add(listener)
        try:
            while self._is_open:
                for kind, data in listener.take():
                    yield f"event: {kind}\ndata: {json.dumps(data, allow_nan=False)}\n\n"
                try:
                    await asyncio.wait_for(listener.changed.wait(), _HEARTBEAT_S)
                except asyncio.TimeoutError:
                    yield ": still here\n\n"
        finally:
            self._listeners.discard(listener)


class _Listener:
    """One open stream and what waits for it."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._waiting: dict[tuple[str, str], Any] = {}

    def put(self, kind: str, key: str, data: Any) -> None:
        """Let an event wait, in place of an earlier one about the same thing."""
        self._waiting.pop((kind, key), None)
        self._waiting[kind, key] = data
        self.changed.set()

    def take(self) -> list[tuple[str, Any]]:
        """All events that wait, oldest first."""
        self.changed.clear()
        events = [(kind, data) for (kind, _), data in self._waiting.items()]
        self._waiting.clear()
        return events
