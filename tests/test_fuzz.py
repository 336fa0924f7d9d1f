"""Mutated files: every reader succeeds with a sane result, or refuses them with a sentence."""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

pytest.importorskip("resource", reason="memory is limited on Unix only")

from fuzz import READERS, Outcome, corpus_tasks, judged, shared_out
from mutations import mutated

INPUTS = 1200
"""For all readers together: about a minute, most of it imports."""
LONG_SECONDS = 3600


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> list[Outcome]:
    """Outcomes of the inputs of one seed; with --long, of further seeds for an hour."""
    ends = time.monotonic() + (LONG_SECONDS if request.config.getoption("--long") else 0)
    found: list[Outcome] = []
    for seed in itertools.count():
        found += judged(shared_out(READERS, INPUTS), seed)
        if time.monotonic() >= ends:
            return found
    raise AssertionError("unreachable")


@pytest.mark.parametrize("reader", READERS)
def test_mutated_files_succeed_or_are_refused(reader: str, outcomes: list[Outcome]) -> None:
    kinds = Counter(one.kind for one in outcomes if one.task.reader == reader)
    # Absurd EXIF is unknown, with a reason; it never refuses a frame.
    assert (kinds["refused"] > 0) == (reader != "exif")
    assert set(kinds) <= {"success", "refused"}


def test_saved_faulty_files(shared_data: Path) -> None:
    tasks = corpus_tasks(shared_data / "faulty" / "files", set(READERS))
    if not tasks:
        pytest.skip("no saved files")
    faults = [f"{one.task.saved}: {one.kind}" for one in judged(tasks, 0) if one.is_fault]
    assert faults == []


def test_an_input_is_a_function_of_its_number() -> None:
    data = b'{"focus_distances_m": [1, 2.5], "name": "x"}'
    first, again = (
        [mutated(data, "a.json", [b"abc"], Random(f"0 x {n}")) for n in range(50)] for _ in "ab"
    )
    assert first == again
    assert len({one.data for one in first}) > 25
    assert {one.kind for one in first} > {"flip", "truncate", "json structure"}
