"""Who may talk to the server: pages that it served itself, to the holder of the token.

Any page of the web can send requests to a port of this machine, and by DNS rebinding even under
its own name. So the Host header must name this machine, the Origin header, if there is one, this
server, and every request needs the cookie that the address with the token sets.
"""

from __future__ import annotations

import hmac
from html import escape
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    # Nothing from other hosts, no script or style in the page's text, no frame around it.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self' blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """ASGI middleware that refuses strangers, and sets the headers that protect the page."""

    def __init__(self, app: ASGIApp, *, token: str, port: int) -> None:
        """Guard an application.

        Args:
            app: the application.
            token: secret of the address that was printed.
            port: of the server.
        """
        self._app, self._token = app, token
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._origins = {f"http://{host}" for host in self._hosts}
        self._cookie = f"fd_token_{port}"  # browsers share cookies between ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        if scope["type"] != "http":
            return  # no WebSockets: the handshake fails
        answer = self._refusal(scope)
        await (answer or self._app)(scope, receive, protected)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer instead of the application; None if the request may pass."""
        headers = Headers(scope=scope)
        sentence = self._why_not(headers)
        if sentence is None:
            query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            given = next((value for name, value in query if name == "token"), None)
            if given is not None and self._is_token(given):
                return self._welcome(scope["path"], [one for one in query if one[0] != "token"])
            if self._is_token(cookie_parser(headers.get("cookie", "")).get(self._cookie, "")):
                return None
            sentence = (
                "this page needs the address with the token that `focaldiffusion app` printed "
                "when it started. Copy it from the terminal."
            )
        if "text/html" in headers.get("accept", ""):  # somebody has typed the address
            return HTMLResponse(_PAGE.format(sentence=escape(sentence)), 403)
        return JSONResponse({"error": sentence}, 403)

    def _why_not(self, headers: Headers) -> str | None:
        """The reason to refuse a request by its origin; None if there is none."""
        if headers.get("host") not in self._hosts:
            return (
                f"the address names the host {headers.get('host', '')!r}; expected one of "
                f"{', '.join(sorted(self._hosts))}. Open the address that the command printed."
            )
        if headers.get("origin", next(iter(self._origins))) not in self._origins:
            return (
                f"the request comes from a page of {headers['origin']!r}, which may not use this "
                "server."
            )
        return None

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self._token.encode())

    def _welcome(self, path: str, query: list[tuple[str, str]]) -> RedirectResponse:
        """The same address without the token, and the cookie instead of it."""
        target = "/" + path.lstrip("/")  # //host would be another one's address
        answer = RedirectResponse(target + (f"?{urlencode(query)}" if query else ""), 303)
        answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
        return answer


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="dark light">
<title>FocalDiffusion</title>
<h1>FocalDiffusion</h1>
<p role="alert">Refused: {sentence}</p>
"""
