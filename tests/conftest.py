"""Shared fixtures and the one tolerance table."""

from __future__ import annotations

import os
import shutil
import signal

# Two OpenMP threads on a busy two-core machine spin-wait and run ten times slower; this must be
# set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch
from hypothesis import settings

pytest_plugins = ["app_fixtures"]

# A shell's background job ignores Ctrl-C, and so would the tests of it.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("untimed", deadline=None)  # no test measures time
settings.load_profile("untimed")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

TOLERANCE = {
    torch.float64: {"rtol": 1e-9, "atol": 1e-10},
    torch.float32: {"rtol": 1e-4, "atol": 1e-5},
    torch.bfloat16: {"rtol": 2e-2, "atol": 1e-2},
}
"""The tolerance of a comparison, by the dtype of the less exact side."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="mutate files for an hour")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real focal stacks and path-traced truth; the test skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"evaluation data not found at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small stack on disk that no test may change."""
    from plant import write_stack

    return write_stack(tmp_path_factory.mktemp("pristine") / "plant")


@pytest.fixture
def stack(pristine: Path, tmp_path: Path) -> Path:
    """A copy of `pristine` for one test."""
    return Path(shutil.copytree(pristine, tmp_path / "plant"))


@pytest.fixture(scope="session")
def from_noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from plant import save_model

    return save_model(tmp_path_factory.mktemp("model") / "noise", "noise")


@pytest.fixture(scope="session")
def from_estimate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from plant import save_model

    return save_model(tmp_path_factory.mktemp("model") / "estimate", "estimate")
