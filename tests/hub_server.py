"""A small server that stands for the Hugging Face hub, over real HTTP."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from huggingface_hub import constants

COMMIT = "0123456789" * 4
GATED = "stabilityai/stable-diffusion-3.5-medium"


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does: one gated model, whose file list is public."""

    files: ClassVar[dict[str, bytes]]
    sent: ClassVar[list[str]]

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token == "expired":
            self.refuse(401, message="Invalid credentials in Authorization header")
        elif token == "down":
            self.refuse(502)
        elif GATED not in path:
            self.refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif path == f"/api/models/{GATED}/revision/main":
            self.send({"id": GATED, "sha": COMMIT, "siblings": []})
        elif path == f"/api/models/{GATED}/tree/{COMMIT}":
            self.send(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": f"{number:040x}"}
                    for number, (name, content) in enumerate(self.files.items())
                ]
            )
        elif token != "accepted":
            self.refuse(403 if token else 401, "GatedRepo", "Access is restricted")
        elif path.endswith("/auth-check"):
            self.send({})
        elif (name := re.sub(f"^/{GATED}/resolve/(main|{COMMIT})/", "", path)) not in self.files:
            self.refuse(404, "EntryNotFound", "Entry not found")
        else:
            self.sent.append(name)
            self.send(self.files[name], {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT})

    def refuse(self, status: int, code: str = "", message: str = "") -> None:
        self.send({"error": message}, {"X-Error-Code": code, "X-Error-Message": message}, status)

    def send(self, body: object, headers: dict[str, str] | None = None, status: int = 200) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Address of a hub; the client has an empty cache and no login."""
    names = [
        "model_index.json",
        "sd3.5_medium.safetensors",
        "scheduler/scheduler_config.json",
        "text_encoder/model.safetensors",
        "text_encoder/model.fp16.safetensors",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
        "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
        "transformer/diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
        "transformer/diffusion_pytorch_model.bin",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]
    Hub.files = {name: name.encode() for name in names}
    Hub.sent = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        # What HF_ENDPOINT and HF_HOME set when the client is imported.
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield address
        server.shutdown()
