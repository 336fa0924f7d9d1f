"""`focaldiffusion data inspect | cache`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import exit_code, names, refusal
from fixtures import hypersim
from PIL import Image

from focaldiffusion.cli.main import main

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "hypersim.yaml"
SMALL = ("--override", "data.image_size=[48,64]", "data.num_workers=0", "--quiet")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """HyperSim in its native layout."""
    root = tmp_path / "tree"
    hypersim.write(root)
    return root


def test_inspect_draws_a_row_a_sample(tree: Path, tmp_path: Path) -> None:
    sheets = []
    for count in (1, 3):
        output = tmp_path / f"sheet_{count}.png"
        argv = (CONFIG, "--data-root", tree, *SMALL, "--samples", str(count), "--output", output)
        assert exit_code(main, "data", "inspect", *argv) == 0
        sheets.append(np.asarray(Image.open(output)))
    one, three = sheets
    assert one.shape[1] == three.shape[1] == 1800
    title, margin = 42, 28
    assert three.shape[0] - title - 2 * margin == 3 * (one.shape[0] - title - 2 * margin)
    # The first row is the same sample, drawn the same, whatever comes below it.
    bottom = one.shape[0] - margin - 6
    assert np.array_equal(three[:bottom], one[:bottom])
    # Depth has colours: a warm one and a cold one, which grey frames do not.
    last = one[:, -300:].reshape(-1, 3).astype(int)
    assert (last[:, 0] - last[:, 2]).max() > 120
    assert (last[:, 2] - last[:, 0]).max() > 120


def test_a_cache_is_a_data_set_with_the_same_stacks(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    argv = (CONFIG, "--data-root", tree, *SMALL, "--output", cache)
    assert exit_code(main, "data", "cache", *argv) == 0
    assert len(names(cache / "samples")) == 5
    written = {path: path.read_bytes() for path in (cache / "samples").iterdir()}

    # It continues: nothing is made twice, what is missing is made the same.
    path = next(iter(written))
    path.unlink()
    assert exit_code(main, "data", "cache", *argv) == 0
    assert {path: path.read_bytes() for path in (cache / "samples").iterdir()} == written

    config = tmp_path / "cached.yaml"
    config.write_text(
        f"data:\n  dataset_type: cache\n  data_root: {cache}\n  max_train_samples: 2\n"
    )
    sheet = tmp_path / "cached.png"
    assert exit_code(main, "data", "inspect", config, "--quiet", "--output", sheet) == 0
    assert sheet.exists()
    assert capsys.readouterr() == ("", "")


def test_scenes_without_end_need_a_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "scenes.yaml"
    config.write_text("data:\n  dataset_type: procedural\n")
    error = refusal(capsys, tmp_path, main, "data", "cache", config, "--output", tmp_path / "cache")
    assert "--samples is missing: procedural is endless, so a number is needed." in error


def test_a_sheet_is_a_png_and_goes_where_output_says(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("data", "inspect", CONFIG, "--data-root", tree, "--output", tmp_path / "sheet.jpg")
    assert "sheet.jpg: the sheet is a .png" in refusal(capsys, tmp_path, main, *argv)
    flag = ("--output-dir", tmp_path)
    assert "unrecognized arguments" in refusal(capsys, tmp_path, main, *argv, *flag)
    png = ("--output", tmp_path / "sheet.png", "--device", "gpu")
    assert "device gpu: torch cannot" in refusal(capsys, tmp_path, main, *argv, *png)


def test_an_output_that_cannot_be_written_is_one_sentence(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    argv = (CONFIG, "--data-root", tree, *SMALL, "--output", taken / "sheet.png")
    assert "cannot write results" in refusal(capsys, tmp_path, main, "data", "inspect", *argv)
