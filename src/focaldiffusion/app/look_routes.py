"""Routes that show a finished result: its layers, values, renderings and files to take away."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from focaldiffusion.app.errors import AppError
from focaldiffusion.app.job_folder import job_of
from focaldiffusion.app.requests import json_body
from focaldiffusion.errors import InputError

_MOST_STROKE_BYTES = 1 << 26
_TILE_AGE = "private, max-age=3600"  # the page's addresses have the revision in them


async def _result(request: Request) -> Response:
    """`GET result`: size, frames, range of depth and knowledge of the camera."""
    found = await _called(request, "look", "describe")
    of = "draft" if _results(request) == job_of(request).draft else "result"
    return JSONResponse({**found, "of": of})


async def _tile(request: Request) -> Response:
    """`GET layers/LAYER/tiles/LEVEL/X/Y`: a tile of a layer."""
    path, query = request.path_params, request.query_params
    ends = None
    if text := query.get("range"):
        low, _, high = text.partition(",")
        ends = _number(low, "range"), _number(high, "range")
    at = path["level"], path["x"], path["y"]
    colours = query.get("colours", "viridis")
    media_type, content = await _called(request, "look", "tile", path["layer"], at, ends, colours)
    return Response(content, media_type=media_type, headers={"Cache-Control": _TILE_AGE})


async def _probe(request: Request) -> Response:
    """`GET probe`: the depth at a native pixel."""
    x, y = (_number(request.query_params.get(name), name) for name in ("x", "y"))
    return JSONResponse(await _called(request, "look", "probe", x, y))


async def _measure(request: Request) -> Response:
    """`GET measure`: the distance between two native pixels."""
    x0, y0, x1, y1 = (
        _number(request.query_params.get(name), name) for name in ("x0", "y0", "x1", "y1")
    )
    try:
        return JSONResponse(await _called(request, "look", "measure", (x0, y0), (x1, y1)))
    except InputError as error:
        raise AppError(409, str(error)) from None


async def _strokes(request: Request) -> Response:
    """`GET retouch`: the strokes of the result."""
    return JSONResponse(await _called(request, "look", "strokes"))


async def _retouch(request: Request) -> Response:
    """`PUT retouch`: other strokes; answers what they change."""
    body = await json_body(request, _MOST_STROKE_BYTES)
    wanted = body.get("strokes"), body.get("revision")
    return JSONResponse(await _called(request, "look", "retouch", *wanted))


async def _refocus(request: Request) -> Response:
    """`POST refocus`: the image, focused elsewhere."""
    body = await json_body(request)
    is_full = body.get("size") == "full"
    try:
        # One full size at a time: drafts keep the other process, and follow at once.
        async with request.app.state.full_size if is_full else nullcontext():
            if is_full and await request.is_disconnected():
                raise ClientDisconnect
            media_type, content = await _called(request, "refocus", "refocused", body)
    except InputError as error:
        raise AppError(409, str(error)) from None
    return Response(content, media_type=media_type)


async def _film(request: Request) -> Response:
    """`POST pull` and `POST parallax`: a film, to take away."""
    body = await json_body(request)
    kind = request.url.path.rpartition("/")[2]
    try:
        file = await _called(request, "films", kind, body)
    except InputError as error:
        raise AppError(409, str(error)) from None
    return _download(Path(file))


async def _mesh(request: Request) -> Response:
    """`GET mesh`: the surface, or its points, as GLB."""
    query = request.query_params
    detail, least = (
        _number(query.get(name, default), name)
        for name, default in (("detail", "300000"), ("confidence", "0"))
    )
    points = query.get("points", "0") == "1"
    try:
        content = await _called(request, "exports", "mesh", int(detail), least, points)
    except InputError as error:
        raise AppError(409, str(error)) from None
    return Response(content, media_type="model/gltf-binary")


async def _export(request: Request) -> Response:
    """`GET export/FORMAT`: a file to take away."""
    try:
        file = await _called(request, "exports", "exported", request.path_params["format"])
    except InputError as error:
        raise AppError(409, str(error)) from None
    return _download(Path(file))


def _download(file: Path) -> Response:
    """A file that is removed, with its folder, once it is sent."""
    return FileResponse(file, filename=file.name, background=BackgroundTask(_remove, file))


def _remove(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.parent.rmdir()


def _results(request: Request) -> Path:
    return job_of(request).shown(request.query_params.get("of"))


async def _called(request: Request, module: str, function: str, *arguments: Any) -> Any:
    """Call a function with the place of the result, in the process that has the heavy modules."""
    job, results = job_of(request), _results(request)
    is_draft = results == job.draft
    place = (
        str(results),
        str(job.path / f"look-{results.name}"),
        None if is_draft else str(job.path / "retouch.json"),
    )
    viewer = request.app.state.viewer
    return await viewer.run(f"focaldiffusion.app.{module}", function, place, *arguments)


def _number(text: str | None, name: str) -> float:
    """A number of an address, infinity included.

    Raises:
        AppError: it is none.
    """
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise AppError(400, f"{name}={text}: expected a number.")
    return number


_JOB = "/api/jobs/{job}"

ROUTES = [
    Route(f"{_JOB}/result", _result),
    Route(f"{_JOB}/layers/{{layer}}/tiles/{{level:int}}/{{x:int}}/{{y:int}}", _tile),
    Route(f"{_JOB}/probe", _probe),
    Route(f"{_JOB}/measure", _measure),
    Route(f"{_JOB}/retouch", _strokes),
    Route(f"{_JOB}/retouch", _retouch, methods=["PUT"]),
    Route(f"{_JOB}/refocus", _refocus, methods=["POST"]),
    Route(f"{_JOB}/pull", _film, methods=["POST"]),
    Route(f"{_JOB}/parallax", _film, methods=["POST"]),
    Route(f"{_JOB}/mesh", _mesh),
    Route(f"{_JOB}/export/{{format}}", _export),
]
"""The routes of this module."""
