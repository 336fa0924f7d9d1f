"""Running the application in a server, until the user ends it."""

from __future__ import annotations

import socket
import webbrowser
from contextlib import suppress

import uvicorn
from starlette.applications import Starlette


class _Server(uvicorn.Server):
    """A server that ends its event streams when it is to stop, and opens the browser."""

    def __init__(self, config: uvicorn.Config, app: Starlette, address: str | None) -> None:
        super().__init__(config)
        self._app, self._address = app, address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, then open the page."""
        await super().startup(sockets)
        if self._address is not None:
            webbrowser.open(self._address)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; streams never end by themselves."""
        self._app.state.events.close()
        await super().shutdown(sockets)


def serve(app: Starlette, listening: socket.socket, address: str | None) -> None:
    """Serve an application until SIGINT or SIGTERM.

    Args:
        app: from `server.build`.
        listening: a socket of this machine.
        address: to open in the browser; None opens none.
    """
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=3
    )
    with suppress(KeyboardInterrupt):  # raised again by the server once it has stopped
        _Server(config, app, address).run(sockets=[listening])
