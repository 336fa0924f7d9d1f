from __future__ import annotations

import os
import pty
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import contents
from plant import (
    command,
    write_large_stack,
)

# The following tests need a process of their own.


@pytest.mark.parametrize("module", ["focaldiffusion", "focaldiffusion.cli.main"])
def test_version_and_modules(module: str) -> None:
    for flag, text in (("--version", "focaldiffusion 0."), ("--help", "usage: focaldiffusion")):
        done = subprocess.run(
            [sys.executable, "-m", module, flag], capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith(text)


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom focaldiffusion.cli.main import main\n"
        "heavy = {'torch', 'numpy', 'cv2', 'PIL', 'diffusers', 'huggingface_hub', 'pydantic',"
        " 'rich', 'safetensors', 'transformers'}\n"
        "try: main(['infer', '--help'])\n"
        "except SystemExit: print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_result_is_saved_without_matplotlib(stack: Path, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom focaldiffusion.cli.main import main\n"
        "code = main(sys.argv[1:])\nprint(code or 0, 'matplotlib' in sys.modules)"
    )
    arguments = ["infer", str(stack), "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 False", "its import takes half a second"
    assert (tmp_path / "out" / "overview.png").exists()


def test_a_full_disk_leaves_nothing_behind(stack: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    done = subprocess.run(
        command("infer", stack, "--output", tmp_path / "new" / "out"),
        capture_output=True,
        text=True,
        # The kernel refuses any byte beyond, as a full disk does.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path / 'new' / 'out'}: cannot write results (")
    assert done.stderr.count("\n") == 1
    assert contents(tmp_path) == before


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("model", "ways"),
    [
        ("physics", "lower --working-size, make the frames smaller, give fewer frames"),
        ("noise", "lower --working-size, lower --tile-px, use --dtype bfloat16"),
    ],
)
def test_running_out_of_memory_is_reported(
    model: str, ways: str, tmp_path: Path, from_noise: Path
) -> None:
    chosen = str(from_noise) if model == "noise" else model
    stack = write_large_stack(tmp_path / "plant", (600, 800), count=3)
    # Memory is limited only after all imports, because libraries reserve far more than they use,
    # and after OpenBLAS has its buffers, because it ends the process if it cannot get them.
    script = (
        "import resource, sys\n"
        "import focaldiffusion.checkpoints.pipeline, focaldiffusion.checkpoints.checkpoint\n"
        "import focaldiffusion.io.results\n"
        "from focaldiffusion.cli.main import main\n"
        "import torch; torch.set_num_threads(1); import cv2; cv2.setNumThreads(1)\n"
        "import numpy; numpy.linalg.solve(numpy.eye(300), numpy.ones((300, 300)))\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "limit = pages * resource.getpagesize() + 60 * 2**20\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    argv = ("infer", str(stack), "--output", str(tmp_path / "out"), "--model", chosen)
    before = contents(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", script, *argv],
        capture_output=True,
        text=True,
    )
    assert done.stderr == (
        "error: plant: not enough memory on cpu for 3 frames of 800x600. Remedies, most "
        f"effective first: {ways}.\n"
    )
    assert done.returncode == 2
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_stopped_in_the_middle(number: signal.Signals, code: int, tmp_path: Path) -> None:
    stack = write_large_stack(tmp_path / "plant", (240, 320), count=8)
    before = contents(tmp_path)
    # A terminal, so that the bars show when the computing begins.
    terminal, stderr = pty.openpty()
    child = subprocess.Popen(
        command("infer", stack, "--output", tmp_path / "new" / "out"),
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        # A shell's background jobs, and so their children, may ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(stderr)
    shown = b""
    deadline = time.monotonic() + 60
    while b"sweeping" not in shown and time.monotonic() < deadline:
        shown += os.read(terminal, 4096)
    child.send_signal(number)
    while True:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # closed by the child
            break
    os.close(terminal)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == code
    assert out == b""
    assert b"Traceback" not in shown
    assert b"left" in shown
    assert contents(tmp_path) == before


@pytest.mark.parametrize("where", ["| true", ">/dev/full", ">&- 2>&-"])
def test_results_outlive_standard_output(where: str, stack: Path, tmp_path: Path) -> None:
    words = shlex.join(command("infer", stack, "--output", tmp_path / "out"))
    done = subprocess.run(
        ["bash", "-c", f"{words} {where}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert done.returncode == (1 if "full" in where else 0)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert (tmp_path / "out" / "metadata.json").exists()
