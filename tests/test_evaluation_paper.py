"""Tables of several evaluations for a paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import exit_code, refusal

from focaldiffusion.cli.main import main
from tests.evaluation_runs import record, write_run

ROOMS = ("hall", "stairs")


def run(folder: Path, figures: dict[str, float], protocol: str, **more: object) -> Path:
    """A run whose models have these errors in every room."""
    return write_run(
        folder,
        [
            record(room, model, {"abs_rel": error, "psnr": 30.0}, protocol=protocol, **more)
            for room in ROOMS
            for model, error in figures.items()
        ],
    )


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two runs of one protocol that share a model, and one of another."""
    return [
        run(tmp_path / "one", {"my_model": 0.1, "physics": 0.2}, "rgbd"),
        run(tmp_path / "two", {"my_model": 0.05, "physics": 0.2}, "rgbd"),
        run(
            tmp_path / "far", {"physics": 0.3}, "hci", repeats=[{"abs_rel": 0.2}, {"abs_rel": 0.4}]
        ),
    ]


def test_markdown(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("compare", *runs, "--markdown", "--metrics", "abs_rel")
    assert exit_code(main, *argv) == 0
    lines = capsys.readouterr().out.replace("\N{NO-BREAK SPACE}", " ").splitlines()
    assert re.fullmatch(r"\| model \| rgbd: AbsRel ↓ \| hci.*: AbsRel ↓ \|", lines[0])
    assert lines[1] == "|---|---:|---:|"
    # Equal figures of one model share a row; others are told apart by their folder.
    assert lines[2:5] == [
        "| my_model | 0.100 | – |",
        "| physics | 0.200 | 0.300 ± 0.141 |",
        "| my_model (two) | **0.050** | – |",
    ]
    assert any(line.startswith("rgbd: Means over 2 samples of 2 scenes.") for line in lines)


def test_latex(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(main, "compare", *runs[:2], "--latex") == 0
    lines = capsys.readouterr().out.splitlines()
    comments = [line for line in lines if line.startswith("%")]
    assert comments[0].startswith("% rgbd: Means over 2 samples")
    assert lines[len(comments) :] == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"& \multicolumn{2}{c}{rgbd} \\",
        r"\cmidrule(lr){2-3}",
        r"Model & AbsRel~$\downarrow$ & PSNR~[dB]~$\uparrow$ \\",
        r"\midrule",
        r"my\_model & 0.100 & 30.00 \\",
        r"physics & 0.200 & 30.00 \\",
        r"my\_model (two) & \textbf{0.050} & 30.00 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_a_name_in_brackets_is_no_option_of_the_line_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, [record("hall", "[2pt] mine", {"abs_rel": 0.1})])
    assert exit_code(main, "compare", tmp_path, "--latex") == 0
    assert "\\midrule\n{}[2pt] mine & 0.100" in capsys.readouterr().out


def test_flags_that_do_not_go_together(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*argv: str | Path) -> str:
        return refusal(capsys, tmp_path, main, "compare", *argv)

    assert "3 evaluations; expected two to compare." in said(*runs)
    assert "--metrics does not apply to a verdict" in said(*runs[:2], "--metrics", "psnr")
    assert "--model-a does not apply to a table" in said(*runs, "--latex", "--model-a", "physics")
    assert "did you mean abs_rel?" in said(*runs, "--latex", "--metrics", "absrel")
    assert "no model has ssim." in said(*runs, "--latex", "--metrics", "ssim")
