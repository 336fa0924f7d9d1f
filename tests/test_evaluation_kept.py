"""Predictions that an evaluation keeps, and repeats with other seeds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import exit_code, names
from fixtures import stacks

from focaldiffusion.cli.main import main
from focaldiffusion.evaluation.records import read_records

SEEDS = 3
ROUNDED = {"psnr", "ssim", "lpips"}
"""Figures that show the rounding of the image to 16 bits."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two small stacks with truth."""
    for name in ("desk", "shelf"):
        stacks.write(tmp_path / "root" / name)
    return tmp_path / "root"


def evaluated(root: Path, out: Path, *flags: str | Path) -> dict[tuple[str, str], dict[str, float]]:
    argv = ("--dataset", "stacks", "--data-root", root, "--output-dir", out, "--quiet")
    assert exit_code(main, "evaluate", *argv, *flags) == 0
    return {(one.sample, one.model): one.metrics for one in read_records(out)}


def test_kept_predictions_have_the_same_figures(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = evaluated(root, out, "--save-predictions")
    assert names(out / "predictions") == sorted({model for _, model in before})
    assert names(out / "predictions" / "argmax" / "desk") == ["depth.npy"]
    kept = out / "predictions" / "physics"
    assert names(kept / "desk") == ["all_in_focus.png", "confidence.npy", "depth.npy"]
    again = evaluated(root, tmp_path / "again", "--predictions", kept, "--no-baselines")
    for sample in ("desk", "shelf"):
        expected, found = before[sample, "physics"], again[sample, "physics"]
        for name in found.keys() - ROUNDED:
            assert found[name] == pytest.approx(expected[name], abs=1e-6), name
        for name in found.keys() & ROUNDED:
            assert found[name] == pytest.approx(expected[name], rel=1e-3), name


def test_repeats_have_a_mean_and_its_spread(
    root: Path, tmp_path: Path, from_noise: Path, from_estimate: Path
) -> None:
    out = tmp_path / "out"
    models = ("--model", str(from_noise), "--model", str(from_estimate), "--no-baselines")
    evaluated(root, out, *models, "--repeat", str(SEEDS))
    runs = [one.repeats for one in read_records(out) if one.model == str(from_noise)]
    assert [len(each) for each in runs] == [SEEDS, SEEDS]
    errors = np.array([[run["abs_rel"] for run in each] for each in runs])
    assert np.ptp(errors, axis=1).min() > 0  # every seed draws other noise
    found = json.loads((out / "metrics.json").read_text())["models"]
    mean = found[str(from_noise)]["means"]["abs_rel"]
    assert mean["mean"] == pytest.approx(errors.mean())
    assert mean["spread"] == pytest.approx(errors.mean(axis=0).std(ddof=1))
    # The first seed is that of a single run; a model without noise runs once.
    alone = evaluated(root, tmp_path / "alone", *models)
    assert alone["desk", str(from_noise)] == pytest.approx(runs[0][0])
    assert found[str(from_estimate)]["means"]["abs_rel"]["spread"] is None
    assert " ± " in (out / "report.html").read_text()


def test_samples_are_listed_with_their_digests(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("evaluate", "--dataset", "stacks", "--data-root", root, "--list-samples")
    assert exit_code(main, *argv) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [line[:3] for line in lines] == [[name, name, "counts"] for name in ("desk", "shelf")]
    evaluated(root, tmp_path / "out", "--model", "argmax", "--no-baselines")
    digests = [one.data_sha256 for one in read_records(tmp_path / "out")]
    assert [line[3] for line in lines] == digests
