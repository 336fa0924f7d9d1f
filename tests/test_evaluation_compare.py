"""`focaldiffusion compare`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from focaldiffusion.cli.main import main
from focaldiffusion.evaluation.compare import compare
from tests.command_line import exit_code, refusal
from tests.evaluation_runs import record, write_run

NAMES = [f"room_{number}" for number in range(8)]


def run(folder: Path, model: str, factor: float = 1.0, names: list[str] = NAMES, **more) -> Path:
    """A run in which AbsRel is 0.1, 0.2, ... times a factor, and PSNR 30 dB throughout."""
    return write_run(
        folder,
        [
            record(name, model, {"abs_rel": 0.1 * (1 + place) * factor, "psnr": 30.0}, **more)
            for place, name in enumerate(names)
        ],
    )


@pytest.mark.parametrize(("factor", "verdict"), [(0.9, "better"), (1.1, "worse"), (1.0, "equal")])
def test_verdicts(tmp_path: Path, factor: float, verdict: str) -> None:
    (found,) = compare(run(tmp_path / "a", "old"), run(tmp_path / "b", "new", factor))
    assert (found.protocol, found.model_a, found.model_b) == ("rgbd", "old", "new")
    assert (found.samples, found.scenes, found.only_a, found.only_b) == (8, 8, (), ())
    error = found.metrics["abs_rel"]
    assert (error.a, error.b) == (pytest.approx(0.45), pytest.approx(0.45 * factor))
    assert error.verdict == verdict
    assert found.metrics["psnr"].verdict == "equal"


def test_only_samples_that_both_have_and_that_count(tmp_path: Path) -> None:
    a = write_run(
        tmp_path / "a",
        [
            *(record(name, "m", {"abs_rel": 0.2}) for name in NAMES),
            record("failed", "m", None),
            record("only a", "m", {"abs_rel": 9.0}),
            record("hard", "m", {"abs_rel": 9.0}, counted=False),
            record(NAMES[0], "m", {"abs_rel": 9.0}, variant="noise_lsb=8"),
        ],
    )
    b = write_run(
        tmp_path / "b",
        [
            *(record(name, "m", {"abs_rel": 0.1, "ause": 0.1}) for name in NAMES),
            record("failed", "m", {"abs_rel": 9.0}),
            record("hard", "m", {"abs_rel": 0.0}, counted=False),
        ],
    )
    (found,) = compare(a, b)
    assert (found.samples, found.only_a, found.only_b) == (8, ("only a",), ("failed",))
    assert list(found.metrics) == ["abs_rel"]
    assert found.metrics["abs_rel"].change.mean == pytest.approx(-0.1)


def test_images_of_one_scene_count_as_one(tmp_path: Path) -> None:
    a, b = (run(tmp_path / name, "m", scene="kitchen") for name in "ab")
    (found,) = compare(a, b)
    assert (found.samples, found.scenes) == (8, 1)
    assert found.metrics["abs_rel"].verdict == "too few scenes to tell"


def test_pairs_of_models(tmp_path: Path) -> None:
    def several(folder: Path, *models: str) -> Path:
        return write_run(
            folder, [record(name, model, {"ssim": 0.9}) for name in NAMES for model in models]
        )

    a, b = several(tmp_path / "a", "x", "y", "z"), several(tmp_path / "b", "z", "y")

    def pairs(*models: str | None) -> list[tuple[str, str]]:
        return [(one.model_a, one.model_b) for one in compare(a, b, *models)]

    assert pairs() == [("y", "y"), ("z", "z")]
    assert pairs("x", "y") == [("x", "y")]
    assert pairs("y") == [("y", "y")]
    assert [(one.model_a, one.model_b) for one in compare(a, a, "x", "y")] == [("x", "y")]


def test_the_command_prints_its_verdicts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = run(tmp_path / "a", "m")
    b = write_run(
        tmp_path / "b",
        [
            *(record(name, "m", {"abs_rel": 0.05, "psnr": 29.0}) for name in NAMES[:7]),
            record(NAMES[7], "m", None),
        ],
    )
    file = tmp_path / "found.json"
    assert exit_code(main, "compare", a, b, "--json", file) == 0
    out = capsys.readouterr().out
    assert "rgbd: A m, B m" in out
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    # Means over the seven that both have: A (0.1 + ... + 0.7) / 7, B 0.05.
    assert lines["AbsRel"].split()[2:5] == ["0.400", "0.050", "−0.350"]
    assert lines["AbsRel"].split()[-1] == "better"
    assert lines["PSNR"].split()[-1] == "worse"
    assert "7 samples of 7 scenes in both." in out
    assert "1 more have figures in A only; B lacks them or failed: room_7." in out
    (found,) = json.loads(file.read_text(encoding="utf-8"))["comparisons"]
    assert found["metrics"]["abs_rel"]["verdict"] == "better"
    assert found["metrics"]["abs_rel"]["change"]["mean"] == pytest.approx(-0.35)
    assert found["metrics"]["abs_rel"]["b_better"] == 1.0
    low, high = found["metrics"]["abs_rel"]["change"]["interval"]
    assert low < -0.35 < high < 0
    assert found["only_a"] == ["room_7"]


def test_few_scenes_have_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = run(tmp_path / "a", "m", 1, NAMES[:5]), run(tmp_path / "b", "m", 0.1, NAMES[:5])
    assert exit_code(main, "compare", a, b) == 0
    out = capsys.readouterr().out
    assert "too few scenes to tell" in out
    assert "Fewer than 6 scenes" in out


def test_runs_that_do_not_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = run(tmp_path / "a", "m")

    def said(*argv: str | Path) -> str:
        return refusal(capsys, tmp_path, main, "compare", *argv)

    assert "no-run: holds no evaluation" in said(a, tmp_path / "no-run")
    other = run(tmp_path / "other", "m", protocol="rendered")
    assert "a follows protocol rgbd" in said(a, other)
    assert "follows rendered; their figures do not compare" in said(a, other)
    elsewhere = run(tmp_path / "elsewhere", "m", names=["hall", "stairs"])
    assert "have no scored sample in common" in said(a, elsewhere)
    failed = write_run(tmp_path / "failed", [record(name, "m", None) for name in NAMES])
    assert "have no scored sample in common" in said(a, failed)
    uncounted = run(tmp_path / "uncounted", "m", counted=False)
    assert "has no sample that counts" in said(a, uncounted)
    assert "a: has no model 'n'; expected one of m." in said(a, a, "--model-a", "n")
    two = write_run(tmp_path / "two", [record("hall", model, {"ssim": 1.0}) for model in "xy"])
    assert "ambiguous. Choose with --model-a and --model-b." in said(a, two)
    nowhere = tmp_path / "missing" / "found.json"
    assert exit_code(main, "compare", a, a, "--json", nowhere) == 2
    assert "found.json: cannot be written" in capsys.readouterr().err


def test_as_a_process_into_a_pipe(tmp_path: Path) -> None:
    a, b = run(tmp_path / "a", "[red]m"), run(tmp_path / "b", "[red]m", 0.5)
    done = subprocess.run(
        [sys.executable, "-m", "focaldiffusion", "compare", str(a), str(b)],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "A [red]m, B [red]m" in done.stdout  # a name is not markup
    assert "better" in done.stdout
