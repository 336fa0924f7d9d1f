"""The focus stackers that peers.py compares: how to install and call each, and where it writes.

Each is called as its own documentation recommends for focus stacking. Only the standard library is
imported here; peers.py says why.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class FusionJob:
    """A task for a tool: fuse `frames`, a folder of links 000.png, 001.png ..."""

    stack: Path
    frames: Path
    scratch: Path
    align: bool

    @property
    def frame_paths(self) -> list[str]:
        """The links in focus order."""
        return [str(path) for path in sorted(self.frames.iterdir())]


class Tool(Protocol):
    """A focus stacker that can be run from a command line."""

    name: str
    how_to_install: str

    def version(self) -> str | None:
        """The installed version; None if the tool is not installed."""
        ...

    def commands(self, job: FusionJob) -> list[list[str]]:
        """The commands that do the job, in order."""
        ...

    def image(self, job: FusionJob) -> Path:
        """Path at which the commands leave the fused image."""
        ...


class FocalDiffusion:
    """This package, in the environment that runs the benchmark."""

    name = "focaldiffusion"
    how_to_install = "pip install -e . in the repository"

    def version(self) -> str | None:
        """See `Tool`."""
        try:
            return importlib.metadata.version("focaldiffusion")
        except importlib.metadata.PackageNotFoundError:
            return None

    def commands(self, job: FusionJob) -> list[list[str]]:
        """See `Tool`; reads the stack itself, because stack.json is part of the input."""
        infer = [sys.executable, "-m", "focaldiffusion.cli.main", "infer", str(job.stack)]
        align = [] if job.align else ["--align", "off"]
        return [[*infer, "--output", str(job.scratch / "result"), *align]]

    def image(self, job: FusionJob) -> Path:
        """See `Tool`."""
        return job.scratch / "result" / "all_in_focus.png"


class FocusWeave:
    """FocusWeave with default options; with alignment, the canvas keeps the size of the frames."""

    name = "focusweave"

    def __init__(self, venvs: Path) -> None:
        self.program = venvs / "focusweave" / "bin" / "focusweave"
        venv = venvs / "focusweave"
        self.how_to_install = f"python -m venv {venv} && {venv}/bin/pip install focusweave"

    def version(self) -> str | None:
        """See `Tool`."""
        return _first_line([str(self.program), "--version"])

    def commands(self, job: FusionJob) -> list[list[str]]:
        """See `Tool`."""
        align = "--keep-size" if job.align else "--no-align"
        return [[str(self.program), str(job.frames), align, "--output", str(self.image(job))]]

    def image(self, job: FusionJob) -> Path:
        """See `Tool`."""
        return job.scratch / "fused.png"


class OpenFocus:
    """OpenFocus with default options, by one of its methods; the network's weights come with it."""

    def __init__(self, venvs: Path, method: str) -> None:
        self.name = f"openfocus-{method.removeprefix('openfocus_')}"
        self.method = method
        venv = venvs / "openfocus"
        self.python, self.program = venv / "bin" / "python", venv / "bin" / "openfocus"
        self.how_to_install = f"python -m venv {venv} && {venv}/bin/pip install openfocus==1.72"

    def version(self) -> str | None:
        """See `Tool`."""
        return _installed_version(self.python, "openfocus")

    def commands(self, job: FusionJob) -> list[list[str]]:
        """See `Tool`."""
        how = ["--method", self.method, "--align", "openfocus" if job.align else "none", "--cpu"]
        paths = ["--input", str(job.frames), "--output", str(self.image(job))]
        return [[str(self.program), *how, *paths]]

    def image(self, job: FusionJob) -> Path:
        """See `Tool`."""
        return job.scratch / "fused.png"


class Enfuse:
    """Enfuse as in chapter 8.6.3 of its manual, aligned by Hugin's tool."""

    name = "enfuse"
    how_to_install = "apt-get install enfuse hugin-tools"

    def version(self) -> str | None:
        """See `Tool`."""
        return _first_line(["enfuse", "--version"])

    def commands(self, job: FusionJob) -> list[list[str]]:
        """See `Tool`."""
        aligned = [str(job.scratch / f"aligned{i:04d}.tif") for i in range(len(job.frame_paths))]
        weights = ["--exposure-weight=0", "--saturation-weight=0", "--contrast-weight=1"]
        fuse = ["enfuse", *weights, "--hard-mask", f"--output={self.image(job)}"]
        if not job.align:
            return [[*fuse, *job.frame_paths]]
        # -m lets the field of view vary between frames, as it does under focus breathing.
        align = ["align_image_stack", "-m", "--use-given-order", "-a", str(job.scratch / "aligned")]
        return [[*align, *job.frame_paths], [*fuse, *aligned]]

    def image(self, job: FusionJob) -> Path:
        """See `Tool`."""
        return job.scratch / "fused.png"


class ShineStacker:
    """Shine Stacker's pyramid method with default options, through its Python interface."""

    name = "shinestacker"

    def __init__(self, venvs: Path) -> None:
        self.python = venvs / "shinestacker" / "bin" / "python"
        venv = venvs / "shinestacker"
        self.how_to_install = f"python3.12 -m venv {venv} && {venv}/bin/pip install shinestacker"

    def version(self) -> str | None:
        """See `Tool`."""
        return _installed_version(self.python, "shinestacker")

    def commands(self, job: FusionJob) -> list[list[str]]:
        """See `Tool`."""
        script = Path(__file__).with_name("run_shinestacker.py")
        align = "on" if job.align else "off"
        return [[str(self.python), str(script), str(job.frames), str(job.scratch), align]]

    def image(self, job: FusionJob) -> Path:
        """See `Tool`; Shine Stacker chooses the name within the folder."""
        results = sorted((job.scratch / "result").glob("*"))
        return results[0] if results else job.scratch / "result"


def _installed_version(python: Path, package: str) -> str | None:
    """Version of a package in the environment of an interpreter; None if it is not installed."""
    probe = f"from importlib.metadata import version; print(version({package!r}))"
    return _first_line([str(python), "-c", probe])


def _first_line(command: Sequence[str]) -> str | None:
    """First line that a command prints; None if it fails."""
    try:
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return finished.stdout.partition("\n")[0].strip()
