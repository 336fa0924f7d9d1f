"""A process that has imported torch already, so that the next job begins at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

_KEPT_S = 600.0


class Spare:
    """Processes for jobs, one of them ready where a job is likely soon."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._since = 0.0

    def prepare(self) -> None:
        """Let a process be ready, because a job is likely."""
        self._since = time.monotonic()
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "focaldiffusion.app.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C and a closing terminal reach the server alone
            )

    def start(self, job: Path) -> subprocess.Popen[bytes]:
        """The process of a job, which begins with it at once."""
        self.prepare()
        process, self._process = self._process, None
        assert process is not None
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # one that has died meanwhile shows by its exit code
            process.stdin.write(os.fsencode(job) + b"\n")
            process.stdin.close()
        return process

    def tidy(self) -> None:
        """End the process if no job has needed it for a while."""
        if self._process is not None and time.monotonic() > self._since + _KEPT_S:
            self.close()

    def close(self) -> None:
        """End the process that waits, if there is one."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()  # the end of its input ends it
            self._process.terminate()
            self._process.wait()
            self._process = None
