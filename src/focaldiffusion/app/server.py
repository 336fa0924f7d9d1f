"""The routes of the app, and its life: from the first request to the end of its processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

import focaldiffusion
from focaldiffusion.app.desk import Desk
from focaldiffusion.app.drafts import UPLOADED, Drafts
from focaldiffusion.app.errors import AppError
from focaldiffusion.app.events import Events
from focaldiffusion.app.examples import Examples
from focaldiffusion.app.jobs import Jobs
from focaldiffusion.app.limits import Limits
from focaldiffusion.app.options import Options
from focaldiffusion.app.requests import json_body
from focaldiffusion.app.roots import Roots
from focaldiffusion.app.security import Guard
from focaldiffusion.app.uploads import receive
from focaldiffusion.errors import InputError, printable

_STATIC = Path(__file__).parent / "static"
_COLOURS = Path(__file__).parent / "colours.json"
"""The answer of `look.colour_maps`, kept because the server itself has no NumPy."""


def build(
    work: Path, roots: Roots, *, token: str, port: int, limits: Limits | None = None
) -> Starlette:
    """The application.

    Args:
        work: folder of its drafts and jobs, which no other server uses.
        roots: folders whose stacks may be opened.
        token: secret that every visitor needs.
        port: of the server.
        limits: of uploads.
    """
    app = Starlette(
        routes=_routes(),
        middleware=[Middleware(Guard, token=token, port=port)],
        exception_handlers={
            AppError: _app_error,
            InputError: _input_error,
            HTTPException: _http_error,
            ClientDisconnect: _gone,
            OSError: _os_error,
            Exception: _unexpected,
        },
        lifespan=_lifespan,
    )
    state = app.state
    state.roots, state.limits, state.examples = roots, limits or Limits(), Examples.of_checkout()
    state.events, state.desk, state.viewer = Events(), Desk(2), Desk(2)
    state.full_size = asyncio.Semaphore(1)
    state.jobs = Jobs(work / "jobs", state.events)
    state.drafts = Drafts(work / "drafts", state.desk, state.events)
    state.drafts.sweep(state.jobs.drafts())
    return app


def _routes() -> list[BaseRoute]:
    routes: list[BaseRoute] = [
        Route("/", _page),
        Route("/api/about", _about),
        Route("/api/folders", _folders),
        Route("/api/drafts", _open_draft, methods=["POST"]),
        Route("/api/drafts/{draft}", _draft, methods=["GET"]),
        Route("/api/drafts/{draft}", _correct_draft, methods=["PATCH"]),
        Route("/api/drafts/{draft}", _delete_draft, methods=["DELETE"]),
        Route("/api/drafts/{draft}/thumbnails/{frame}", _thumbnail),
        Route("/api/examples/{example}/thumbnail", _example_thumbnail),
        Route("/api/jobs", _jobs, methods=["GET"]),
        Route("/api/jobs", _start_job, methods=["POST"]),
        Route("/api/jobs/{job}", _job, methods=["GET"]),
        Route("/api/jobs/{job}", _delete_job, methods=["DELETE"]),
        Route("/api/jobs/{job}/cancel", _cancel_job, methods=["POST"]),
        Route("/api/jobs/{job}/retry", _retry_job, methods=["POST"]),
        Route("/api/events", _events),
    ]
    if find_spec("focaldiffusion.app.look_routes") is not None:
        from focaldiffusion.app.look_routes import ROUTES

        routes += ROUTES
    return [*routes, Mount("/static", _Static(directory=_STATIC))]


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    state = app.state
    watching = asyncio.create_task(state.jobs.watch())
    # The first stack then opens at once.
    warming = asyncio.create_task(state.desk.run("focaldiffusion.app.opening", "ready"))
    try:
        yield
    finally:
        for task in (watching, warming):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
        await state.jobs.close()
        state.desk.close()
        state.viewer.close()


class _Static(StaticFiles):
    """Files of the page, which a new version replaces at once."""

    def file_response(self, *arguments: Any, **settings: Any) -> Response:
        response = super().file_response(*arguments, **settings)
        response.headers["Cache-Control"] = "no-cache"
        return response


async def _page(request: Request) -> Response:
    return FileResponse(_STATIC / "index.html", headers={"Cache-Control": "no-cache"})


async def _about(request: Request) -> Response:
    state, limits = request.app.state, request.app.state.limits
    return JSONResponse(
        {
            "version": focaldiffusion.__version__,
            "roots": [{"id": root.id, "name": root.name} for root in state.roots.all],
            "examples": state.examples.listed(),
            "limits": vars(limits),
            "colours": json.loads(_COLOURS.read_text(encoding="utf-8")),
        }
    )


async def _folders(request: Request) -> Response:
    query = request.query_params
    roots: Roots = request.app.state.roots
    return JSONResponse(roots.listing(query.get("root", ""), query.get("path", "")))


async def _open_draft(request: Request) -> Response:
    state = request.app.state
    drafts: Drafts = state.drafts
    if request.headers.get("content-type", "").startswith("multipart/"):
        folder = drafts.new()
        source = folder / UPLOADED
        source.mkdir()
        try:
            name, notes = await receive(request, source, state.limits)
        except BaseException:
            drafts.delete(folder.name)
            raise
        return JSONResponse(await drafts.open(folder, name, source, source, notes), 201)
    body = await json_body(request)
    if "example" in body:
        name, source = state.examples.find(str(body["example"]))
        inside = source
    else:
        root = str(body.get("root", ""))
        source = state.roots.folder(root, str(body.get("path", "")))
        inside = state.roots.folder(root, "")
        name = source.parent.name if source.name == "stack" else source.name
    return JSONResponse(await drafts.open(drafts.new(), name, source, inside), 201)


async def _draft(request: Request) -> Response:
    return JSONResponse(request.app.state.drafts.get(request.path_params["draft"]))


async def _correct_draft(request: Request) -> Response:
    patch = await json_body(request)
    drafts: Drafts = request.app.state.drafts
    return JSONResponse(await drafts.correct(request.path_params["draft"], patch))


async def _delete_draft(request: Request) -> Response:
    draft = request.path_params["draft"]
    if draft in request.app.state.jobs.drafts():
        raise AppError(409, "a job has this stack. Delete the job instead.")
    request.app.state.drafts.delete(draft)
    return Response(status_code=204)


async def _thumbnail(request: Request) -> Response:
    drafts: Drafts = request.app.state.drafts
    path = await drafts.thumbnail(request.path_params["draft"], request.path_params["frame"])
    return FileResponse(path, media_type="image/jpeg", headers={"Cache-Control": "no-cache"})


async def _example_thumbnail(request: Request) -> Response:
    path = request.app.state.examples.picture(request.path_params["example"])
    return FileResponse(path, headers={"Cache-Control": "max-age=3600, private"})


async def _jobs(request: Request) -> Response:
    return JSONResponse(request.app.state.jobs.all())


async def _start_job(request: Request) -> Response:
    body = await json_body(request)
    options = Options.of(body.get("options", {}))
    state = request.app.state
    draft = state.drafts.get(str(body.get("draft", "")))
    if draft["errors"]:
        raise AppError(422, draft["errors"][0])
    saved = state.drafts.saved(draft["id"])
    stack = {name: saved[name] for name in ("source", "inside", "corrections")}
    job = state.jobs.add(draft["id"], draft["name"], {**stack, "options": vars(options)})
    return JSONResponse(job, 201)


async def _job(request: Request) -> Response:
    return JSONResponse(request.app.state.jobs.get(request.path_params["job"]))


async def _cancel_job(request: Request) -> Response:
    return JSONResponse(request.app.state.jobs.cancel(request.path_params["job"]))


async def _retry_job(request: Request) -> Response:
    return JSONResponse(request.app.state.jobs.retry(request.path_params["job"]))


async def _delete_job(request: Request) -> Response:
    state = request.app.state
    unused = state.jobs.delete(request.path_params["job"])
    if unused is not None:
        with suppress(AppError):  # deleted already
            state.drafts.delete(unused)
    return Response(status_code=204)


async def _events(request: Request) -> Response:
    state = request.app.state
    first = [("job", job["id"], job) for job in reversed(state.jobs.all())]
    stream = state.events.stream([*first, ("ready", "", {})])
    return StreamingResponse(
        stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"}
    )


async def _app_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AppError)
    return JSONResponse({"error": error.sentence}, error.status)


async def _input_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 422)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # which nobody reads


async def _os_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    sentence = (
        f"the work folder cannot be used ({error.strerror or error}). Mend that, and try again."
    )
    return JSONResponse({"error": sentence}, 507)


async def _unexpected(request: Request, error: Exception) -> Response:
    # Starlette raises the error again, so that the terminal shows its traceback.
    sentence = f"unexpected {type(error).__name__}: {error}. This is an error of focaldiffusion; "
    sentence += "please report it with what the terminal shows."
    return JSONResponse({"error": printable(sentence)}, 500)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    sentence = {404: f"{path}: there is nothing here.", 405: f"{path}: not with {request.method}."}
    text = sentence.get(error.status_code, str(error.detail))
    return JSONResponse({"error": text}, error.status_code, headers=error.headers)
