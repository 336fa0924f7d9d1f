"""A running app for browser tests, and the things that a person does with its page."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
SHRUNK = 3
"""Side of the example over the side of its small copy: a job takes seconds instead of minutes."""

PATIENCE_MS, JOB_PATIENCE_MS = 60_000, 300_000
"""For a click, and for a whole job, on a busy machine; nothing waits that long that works."""

FOREIGN_HOST = "elsewhere.test"
"""A name that an attacker has made point to this machine."""

FLAGS = [
    f"--host-resolver-rules=MAP {FOREIGN_HOST} 127.0.0.1",
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]


def small_example(name: str, folder: Path) -> Path:
    """Write a small copy of an example stack, with the same geometry."""
    source = ROOT / "examples" / name / "stack"
    folder.mkdir(parents=True)
    for path in sorted(source.glob("*.jpg")):
        frame = cv2.imread(str(path))
        size = frame.shape[1] // SHRUNK, frame.shape[0] // SHRUNK
        shrunk = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / f"{path.stem}.png"), shrunk)
    facts = json.loads((source / "stack.json").read_text(encoding="utf-8"))
    facts["camera"]["focal_length_px"] /= SHRUNK
    (folder / "stack.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def true_depth_m(name: str) -> NDArray[np.floating[Any]]:
    """True depth at the pixels of the small copy."""
    with np.load(ROOT / "examples" / name / "truth" / "depth.npz") as truth:
        return np.asarray(truth["depth"])[SHRUNK // 2 :: SHRUNK, SHRUNK // 2 :: SHRUNK]


@dataclass
class App:
    """`focaldiffusion app` in a process of its own."""

    work: Path
    root: Path
    process: subprocess.Popen[str] = field(init=False)
    address: str = field(init=False)

    def start(self) -> None:
        """Start the server, and wait for the address that it prints first."""
        command = [sys.executable, "-m", "focaldiffusion", "app", str(self.root)]
        command += ["--no-browser", "--work", str(self.work), "--port", str(free_port())]
        log = (self.work.parent / "server.log").open("a")
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT, env=os.environ
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address.startswith("http://127.0.0.1:"), self.address

    def stop(self, number: int = signal.SIGINT) -> None:
        """End the server, by default as Ctrl-C does."""
        self.process.send_signal(number)
        self.process.wait(timeout=60)

    @property
    def home(self) -> str:
        """The address without the token."""
        return self.address.partition("?")[0]

    def folder_of(self, job: str) -> Path:
        """Folder of a job."""
        return self.work / "jobs" / job


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the test skips, with the reason, where there is none."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: no browser tests."
    )
    with playwright.sync_playwright() as play:
        names = ("chromium", "chromium-browser", "google-chrome")
        found = next(filter(None, map(shutil.which, names)), None)
        if found is None and not Path(play.chromium.executable_path).exists():
            pytest.skip("Neither a system's Chromium nor Playwright's is installed.")
        browser = play.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """A tab of the browser. It keeps what no visit may do, for `check`."""

    def __init__(self, browser: Any, app: App, **context: Any) -> None:
        settings = {"viewport": {"width": 1440, "height": 900}, "reduced_motion": "reduce"}
        self.app = app
        self.context = browser.new_context(**{**settings, **context})
        self.context.set_default_timeout(PATIENCE_MS)
        self.hosts: set[str] = set()
        self.faults: list[str] = []
        self.sent: list[str] = []
        self.page = self.open()

    def open(self) -> Any:
        """A new tab on the start page."""
        page = self.context.new_page()
        page.on("request", self.note)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self.listen)
        page.goto(self.app.address)
        return page

    def note(self, request: Any) -> None:
        """Remember the host of a request, which data and blobs lack, and where it sends a body."""
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob"):
            self.hosts.add(parts.netloc)
        if request.method == "POST":
            self.sent.append(parts.path)

    def listen(self, message: Any) -> None:
        """Remember errors of the console, such as a breach of the content policy."""
        is_refusal = "the server responded with a status of 4" in message.text
        if message.type == "error" and not is_refusal:
            self.faults.append(message.text)

    def check(self) -> None:
        """No request went to another host, and no script failed."""
        assert self.hosts == {urlsplit(self.app.address).netloc}
        assert self.faults == []

    def show(self, job: str) -> Any:
        """The page with a finished job on the stage, its tiles loaded."""
        self.page.goto(f"{self.app.home}#/job/{job}")
        self.page.wait_for_selector(".stage-canvas")
        self.settle()
        return self.page

    def settle(self) -> None:
        """Wait until the tiles of the stage are loaded and painted."""
        self.painted()
        self.page.wait_for_selector('.stage-canvas[aria-busy="false"]', state="attached")
        self.painted()

    def painted(self) -> None:
        """Wait until the browser has painted what has changed."""
        self.page.evaluate(
            "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"
        )

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Point of the window that shows a native pixel, with the whole image on the stage."""
        box = self.page.locator(".stage-canvas").bounding_box()
        width, height = (960 // SHRUNK, 720 // SHRUNK)
        scale = min((box["width"] - 48) / width, (box["height"] - 48) / height)
        left = box["x"] + (box["width"] - width * scale) / 2
        top = box["y"] + (box["height"] - height * scale) / 2
        return left + (x + 0.5) * scale, top + (y + 0.5) * scale

    def click(self, x: float, y: float) -> None:
        """Click a native pixel."""
        self.page.mouse.click(*self.place(x, y))

    def pixels(self, selector: str = ".stage-canvas") -> NDArray[np.uint8]:
        """The canvas as (H, W, 4)."""
        data = self.page.evaluate(
            """(selector) => {
              const source = document.querySelector(selector);
              const copy = document.createElement("canvas");
              [copy.width, copy.height] = [source.width, source.height];
              const context = copy.getContext("2d");
              context.drawImage(source, 0, 0);
              const { data } = context.getImageData(0, 0, copy.width, copy.height);
              let text = "";
              for (let at = 0; at < data.length; at += 32768) {
                text += String.fromCharCode(...data.subarray(at, at + 32768));
              }
              return [copy.width, copy.height, btoa(text)];
            }""",
            selector,
        )
        width, height, text = data
        return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)

    def patch(self, x: int, y: int, reach: int = 6) -> NDArray[np.uint8]:
        """The stage around a native pixel, `reach` native pixels to each side."""
        box = self.page.locator(".stage-canvas").bounding_box()
        (left, top), (right, bottom) = (self.place(x + by, y + by) for by in (-reach, reach))
        columns = slice(round(left - box["x"]), round(right - box["x"]))
        return self.pixels()[round(top - box["y"]) : round(bottom - box["y"]), columns, :3]

    def close(self) -> None:
        """Close the tab and its context."""
        self.context.close()
