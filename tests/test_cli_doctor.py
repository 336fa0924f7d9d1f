"""`focaldiffusion doctor`: what it says is so, and it never waits for a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import exit_code, refusal
from hub_server import GATED, serving
from huggingface_hub import constants

from focaldiffusion.cli import doctor
from focaldiffusion.cli.main import main
from focaldiffusion.models.memory import MemoryRow, memory_row


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    with serving(monkeypatch, tmp_path) as address:
        yield address


def report(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    assert (
        exit_code(main, "doctor", "--json", *(flags or ("--preset", "tiny", "--side-px", "64")))
        == 0
    )
    return json.loads(capsys.readouterr().out)


def test_versions_devices_and_memory(hub: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--preset", "tiny", "--preset", "compact", "--side-px", "64", "--side-px", "128")
    found = report(capsys, *flags)
    assert found["packages"]["torch"] == metadata.version("torch")
    assert None not in found["packages"].values()
    assert not {"pytest", "rawpy"} & set(found["packages"]), "these are optional"
    optional = {one["package"]: one for one in found["optional"]}
    assert optional["OpenEXR"]["version"] == metadata.version("OpenEXR")
    assert optional["OpenEXR"]["install"].endswith("[exr]'")
    assert {"flash-attn", "xformers", "rawpy"} <= set(optional)
    assert "pytest" not in optional

    cpu = found["devices"][0]
    assert cpu["device"] == "cpu"
    assert 0 < cpu["free_bytes"] <= cpu["total_bytes"]
    assert len(found["devices"]) == 1 + torch.cuda.device_count()

    priors = {one["family"]: one for one in found["priors"]}
    assert priors["depth_anything"]["scale"] == "as configured"
    assert priors["zoedepth"]["scale"] == "metric-depth"
    assert priors["prompt_depth_anything"]["scale"] == "to be given"
    assert priors["marigold"]["missing"] is None
    installed = optional["torchvision"]["version"] is not None
    assert (priors["depth_pro"]["missing"] is None) == installed

    rows = [(row["preset"], row["side_px"]) for row in found["memory"]]
    assert rows == [("tiny", 64), ("tiny", 128), ("compact", 64), ("compact", 128)]
    row = memory_row("compact", 128)
    assert found["memory"][3]["training_bytes"] == row.training_bytes
    assert found["memory"][3]["fits"]["cpu"] == "trains"


@pytest.mark.parametrize(
    ("memory_bytes", "fit"),
    [
        (None, None),
        (99, "too large"),
        (100, "runs"),
        (200, "trains checkpointed"),
        (300, "trains"),
    ],
)
def test_what_fits(memory_bytes: int | None, fit: str | None) -> None:
    row = MemoryRow("x", 64, 1, 1.0, 50, 100, "lora", 300, 200)
    assert doctor._fit(row, memory_bytes) == fit


@pytest.mark.parametrize(
    ("token", "says"),
    [
        (None, "not logged in to the hub"),
        ("refused", "the licence is not accepted"),
        ("accepted", None),
    ],
)
def test_access_to_the_hub(
    token: str | None,
    says: str | None,
    hub: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    found = report(capsys)["hub"]
    assert found["endpoint"] == hub
    assert found["token"] == (token is not None)
    (medium,) = (one for one in found["models"] if one["model"] == GATED)
    assert medium["access"] == (says is None)
    assert (medium["problem"] is None) if says is None else (says in medium["problem"])


def test_no_network_is_told(
    hub: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    problems = [one["problem"] for one in report(capsys)["hub"]["models"]]
    assert all("cannot reach the Hugging Face hub" in problem for problem in problems)


def test_a_hub_that_never_answers_is_not_waited_for(
    hub: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            released.wait()

    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(doctor, "_HUB_PATIENCE_S", 0.2)
        problems = [one["problem"] for one in report(capsys)["hub"]["models"]]
        assert all("has not answered within 0.2 s. Check" in problem for problem in problems)
        released.set()
        server.shutdown()


def test_the_tables_are_for_people(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "focaldiffusion", "doctor", "--preset", "compact"],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "COLUMNS": "80"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["torch", metadata.version("torch")] in lines
    (compact,) = (line for line in lines if line[:1] == ["compact"])
    assert compact[1] == "1024"
    assert compact[-1] == "trains"
    assert f"{GATED}: HF_HUB_OFFLINE is set, so the hub cannot be reached." in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--preset compcat", "--preset compcat is unknown; did you mean compact?"),
        ("--side-px 102", "--side-px 102: compact takes multiples of 4 up to 1536. Choose"),
        ("--side-px 2048", "--side-px 2048: compact takes multiples of 4 up to 1536."),
        ("--side-px 0", "argument --side-px: '0'; expected a whole number from 1 on"),
    ],
)
def test_flags_that_make_no_sense(
    flags: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capsys, tmp_path, main, "doctor", *flags.split())
