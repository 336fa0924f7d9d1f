"""The command itself: its address, its end, and what survives it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from app_client import PATIENCE_S, eventually, frames_of, sentence, uploaded
from plant import command, run, write_large_stack

from focaldiffusion.io.owners import owner_is_gone

Start = Callable[..., "Running"]


class Running:
    """A server that runs, and a visitor of it."""

    def __init__(self, work: Path, *arguments: str | Path) -> None:
        argv = command("app", "--no-browser", "--work", work, *arguments)
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        self.visitor = self.new_visitor()

    def new_visitor(self) -> httpx.Client:
        visitor = httpx.Client(
            base_url=self.address.partition("/?")[0], follow_redirects=True, timeout=PATIENCE_S
        )
        assert visitor.get(self.address).status_code == 200
        return visitor

    def job(self, name: str) -> dict[str, Any]:
        job: dict[str, Any] = self.visitor.get(f"/api/jobs/{name}").json()
        return job

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Running] = []

    def begin(work: Path, *arguments: str | Path) -> Running:
        started.append(Running(work, *arguments))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stack that takes its time."""
    return write_large_stack(tmp_path_factory.mktemp("root") / "large", (500, 700), 8).parent


def queued(server: Running, path: str) -> dict[str, Any]:
    draft = server.visitor.post("/api/drafts", json={"root": "0", "path": path}).json()
    job: dict[str, Any] = server.visitor.post("/api/jobs", json={"draft": draft["id"]}).json()
    return job


def begun(server: Running, job: dict[str, Any]) -> None:
    def look() -> bool:
        now = server.job(job["id"])
        return bool(now["state"] == "running" and now["progress"] > 0)

    eventually(look, "the work to begin")


def owner(work: Path, job: dict[str, Any]) -> str:
    state = json.loads((work / "jobs" / job["id"] / "state.json").read_text())
    return str(state["owner"])


def test_a_job_goes_on_while_the_server_is_killed_and_started_again(
    start: Start, tmp_path: Path, large: Path
) -> None:
    server = start(tmp_path, large)
    job, waiting = queued(server, "large"), queued(server, "large")
    begun(server, job)
    process = owner(tmp_path, job)
    server.end(signal.SIGKILL)
    assert not owner_is_gone(process)
    again = start(tmp_path, large)
    assert again.job(job["id"])["state"] == "running"
    assert again.job(waiting["id"])["state"] == "queued"
    done = eventually(lambda: (now := again.job(job["id"]))["state"] == "done" and now, "the job")
    assert done["has_result"]
    begun(again, waiting)
    # Cancelled by a server that has not started it.
    process = owner(tmp_path, waiting)
    again.end(signal.SIGKILL)
    last = start(tmp_path, large)
    last.visitor.post(f"/api/jobs/{waiting['id']}/cancel")
    eventually(lambda: last.job(waiting["id"])["state"] == "cancelled", "the end of the job")
    assert owner_is_gone(process)


def test_a_job_that_died_with_the_server_is_said_to_be_interrupted(
    start: Start, tmp_path: Path, large: Path
) -> None:
    server = start(tmp_path, large)
    job = queued(server, "large")
    begun(server, job)
    process = owner(tmp_path, job)
    server.end(signal.SIGKILL)
    os.kill(int(process.partition("-")[0]), signal.SIGKILL)
    eventually(lambda: owner_is_gone(process), "the end of the process")
    again = start(tmp_path, large)
    interrupted = again.job(job["id"])
    assert interrupted["state"] == "interrupted"
    assert interrupted["error"].startswith("interrupted: the computer or its processes stopped")
    assert again.visitor.post(f"/api/jobs/{job['id']}/retry").json()["state"] == "queued"
    begun(again, job)


def test_ctrl_c_ends_everything_and_keeps_the_queue(
    start: Start, tmp_path: Path, large: Path
) -> None:
    server = start(tmp_path, large)
    job, waiting = queued(server, "large"), queued(server, "large")
    begun(server, job)
    process = owner(tmp_path, job)
    with server.visitor.stream("GET", "/api/events"):  # a page that stays open
        assert server.end(signal.SIGINT) == 0
    assert owner_is_gone(process)
    again = start(tmp_path, large)
    assert again.job(job["id"])["error"].startswith("interrupted: the server was stopped")
    assert again.job(waiting["id"])["state"] in ("queued", "running")


def test_ten_clients_at_once(start: Start, tmp_path: Path, pristine: Path) -> None:
    server = start(tmp_path)
    files = frames_of(pristine)

    def visit(number: int) -> list[str]:
        with closing(server.new_visitor()) as visitor:
            answer = uploaded(visitor, [(f"stack {number}/{name}", one) for name, one in files])
            draft = answer.json()
            pictures = [visitor.get(frame["thumbnail"]) for frame in draft["frames"]]
            assert [one.headers["content-type"] for one in pictures] == ["image/jpeg"] * 3
            if number > 2:  # a few jobs tell enough of their queue
                return [draft["name"], "done"]
            options = {"image_only": True}
            job = visitor.post("/api/jobs", json={"draft": draft["id"], "options": options}).json()
            states: list[str] = []
            with visitor.stream("GET", "/api/events") as events:
                for line in events.iter_lines():
                    if line.startswith("data: ") and job["id"] in line:
                        states.append(json.loads(line.removeprefix("data: "))["state"])
                    if states and states[-1] not in ("queued", "running"):
                        break
            return [draft["name"], states[-1]]

    with ThreadPoolExecutor(10) as pool:
        ends = list(pool.map(visit, range(10)))
    assert ends == [[f"stack {number}", "done"] for number in range(10)]
    assert len(server.visitor.get("/api/jobs").json()) == 3


def test_the_server_itself_stays_small(start: Start, tmp_path: Path) -> None:
    server = start(tmp_path)
    assert server.visitor.get("/api/about").json()["roots"] == []
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert [name for name in ("torch", "numpy", "cv2") if f"/{name}/" in maps] == []


def test_a_taken_port_or_work_folder_is_a_sentence(
    start: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    start(tmp_path)
    capfd.readouterr()
    assert run("app", "--no-browser", "--work", tmp_path) == 2
    assert "another process is writing here" in capfd.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run("app", "--no-browser", "--work", tmp_path / "b", "--port", port) == 2
    assert f"--port {port}: cannot be used (Address already in use)." in capfd.readouterr().err
    assert run("app", "--no-browser", "--work", "/proc/sys") == 2  # a folder without room for files
    assert "/proc/sys: cannot write results (" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing"], "missing: not a folder. Give folders that hold stacks."),
        (["--port", "0"], "'0'; expected a whole number from 1 to 65535"),
        (["--port", "99999"], "'99999'; expected a whole number from 1 to 65535"),
    ],
)
def test_mistakes_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run("app", "--no-browser", "--work", tmp_path, *arguments) == 2
    assert words in capsys.readouterr().err


def test_folders_are_listed_and_nothing_outside_is_read(
    start: Start, tmp_path: Path, stack: Path
) -> None:
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    stack.rename(root / "plant")
    (tmp_path / "outside").mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "inner link").symlink_to(root / "plant")
    (root / ".hidden").mkdir()
    server = start(tmp_path / "work", root)
    listed = server.visitor.get("/api/folders", params={"root": "0", "path": ""}).json()
    assert listed == {"path": "", "folders": ["inner", "inner link", "plant"], "images": 0}
    inside = server.visitor.get("/api/folders", params={"root": "0", "path": "plant"}).json()
    assert inside == {"path": "plant", "folders": [], "images": 3}
    for path in ("..", "../outside", "link", "plant/../..", "/etc", "inner/../../outside", "\0"):
        for answer in (
            server.visitor.get("/api/folders", params={"root": "0", "path": path}),
            server.visitor.post("/api/drafts", json={"root": "0", "path": path}),
        ):
            assert "lies outside the folders that were given" in sentence(answer, 403)
    (root / "plant" / "frame_9.png").symlink_to("/etc/hostname")
    answer = server.visitor.post("/api/drafts", json={"root": "0", "path": "plant"})
    assert "frame_9.png: leads outside the folder that may be read" in sentence(answer, 422)
