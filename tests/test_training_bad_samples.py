"""Bad files: they are listed, left out by name, and never cost what was trained."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from command_line import exit_code
from PIL import Image
from training_runs import checkpoint, losses, run_yaml

from focaldiffusion.cli.main import main
from focaldiffusion.config.load import load_config
from focaldiffusion.errors import InputError
from focaldiffusion.training.trainer import train

SIZE = (32, 48)
GOOD = 10


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def unknown_everywhere(path: Path) -> None:
    write_depth(path, np.full(SIZE, np.nan))


def of_another_shape(path: Path) -> None:
    write_depth(path, np.full((SIZE[0] + 1, SIZE[1]), 2.0))


BROKEN: list[tuple[str, Callable[[Path], Any]]] = [
    (".hdf5", cut),
    (".npy", cut),
    (".png", cut),
    (".npy", lambda path: path.write_bytes(b"")),
    (".hdf5", Path.unlink),
    (".npy", of_another_shape),
    (".hdf5", unknown_everywhere),
]
"""Kind of a depth map, and how it is broken."""


def write_depth(path: Path, depth_m: np.ndarray) -> None:
    if path.suffix == ".hdf5":
        with h5py.File(path, "w") as file:
            file["dataset"] = depth_m.astype(np.float32)
    elif path.suffix == ".npy":
        np.save(path, depth_m.astype(np.float32))
    else:
        Image.fromarray((depth_m * 1000).astype(np.uint16)).save(path)


def entry(root: Path, index: int, suffix: str) -> dict[str, Any]:
    """Write an image and its depth map; returns their line of a list."""
    generator = np.random.default_rng(index)
    coarse = Image.fromarray(generator.integers(0, 256, (8, 12, 3), np.uint8))
    coarse.resize(SIZE[::-1], Image.Resampling.BICUBIC).save(root / f"{index}.png")
    write_depth(root / f"depth_{index}{suffix}", np.linspace(1, 3, SIZE[1]) * np.ones(SIZE))
    millimetres = {"depth_scale": 0.001} if suffix == ".png" else {}
    return {
        "all_in_focus": f"{index}.png",
        "depth": f"depth_{index}{suffix}",
        "camera": {"focal_length_px": 50.0, "aperture_diameter_m": 0.02},
        **millimetres,
    }


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two lists: all.jsonl, and good.jsonl without the broken samples."""
    root = tmp_path_factory.mktemp("data")
    good = [entry(root, index, ".npy") for index in range(GOOD)]
    bad = [entry(root, GOOD + index, suffix) for index, (suffix, _) in enumerate(BROKEN)]
    for line, (_, broken) in zip(bad, BROKEN, strict=True):
        broken(root / line["depth"])
    mixed = [*good[:4], *bad[:3], *good[4:7], *bad[3:], *good[7:]]
    for name, lines in (("all", mixed), ("good", good)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (root / f"{name}.jsonl").write_text(text)
    return root


def configuration(lists: Path, run: Path, name: str, **changes: Any) -> Path:
    """The configuration file of a run of five steps on a list."""
    data = {
        "train_sources": None,
        "dataset_type": "filelist",
        "data_root": str(lists),
        "train_filelist": str(lists / f"{name}.jsonl"),
        "focal_range": [0.5, 4.0],
        "focal_stack_size": 3,
        "num_workers": 1,
    }
    training = {"num_epochs": 1, "save_every_n_steps": 100}
    changes = {"data": {**data, **changes}, "training": training}
    run.with_suffix(".yaml").write_text(run_yaml(lists, run, **changes))
    return run.with_suffix(".yaml")


def test_a_check_lists_every_bad_file_and_its_reason(
    lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configuration(lists, tmp_path / "run", "all")
    argv = ("data", "check", config, "--workers", "2", "--output", tmp_path / "new/bad.csv")
    assert exit_code(main, *argv) == 1
    out, err = capsys.readouterr()
    assert out == f"{len(BROKEN)} of {GOOD + len(BROKEN)} samples are bad\n"
    assert err.count("train: filelist: ") == err.count("\n") == len(BROKEN)
    with (tmp_path / "new/bad.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(BROKEN)
    for index, (suffix, _) in enumerate(BROKEN):
        name = f"depth_{GOOD + index}{suffix}"
        image = f"{GOOD + index}.png"
        (row,) = (row for row in rows if name in row["reason"] or row["sample"] == image)
        assert (row["split"], row["source"]) == ("train", "filelist")
    good = configuration(lists, tmp_path / "good", "good")
    assert exit_code(main, "data", "check", good) == 0
    assert capsys.readouterr() == (f"0 of {GOOD} samples are bad\n", "")


def test_samples_that_are_left_out_might_as_well_not_be_listed(
    lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(load_config(configuration(lists, tmp_path / "good", "good")).config)
    allowed = {"skip_bad_samples": len(BROKEN)}
    config = load_config(configuration(lists, tmp_path / "all", "all", **allowed)).config
    capsys.readouterr()
    train(config)
    out = capsys.readouterr().out
    assert out.count("left out: train: filelist: ") == len(BROKEN)
    assert f"{len(BROKEN)} bad samples are left out, see bad_samples.csv" in out
    assert losses(tmp_path / "all") == losses(tmp_path / "good")
    # A run that goes on leaves out the same, by its record.
    shutil.copytree(tmp_path / "all", tmp_path / "more")
    longer = configuration(lists, tmp_path / "more", "all", **allowed)
    capsys.readouterr()
    train(load_config(longer, ["training.num_epochs=2"]).config, "auto")
    out = capsys.readouterr().out
    assert "reading every sample" not in out
    assert out.count("left out: ") == len(BROKEN)
    (lists / "3.png").rename(lists / "gone.png")
    try:
        with pytest.raises(InputError, match=r"when other files were missing: .*3\.png"):
            train(load_config(longer, ["training.num_epochs=3"]).config, "auto")
    finally:
        (lists / "gone.png").rename(lists / "3.png")


def test_more_bad_samples_than_allowed_are_refused(lists: Path, tmp_path: Path) -> None:
    config = configuration(lists, tmp_path / "run", "all", skip_bad_samples=len(BROKEN) - 1)
    with pytest.raises(InputError, match=rf"^{len(BROKEN)} samples of train and val are bad, and "):
        train(load_config(config).config)
    assert not (tmp_path / "run").exists()


def test_a_file_that_breaks_during_a_run_costs_nothing(lists: Path, tmp_path: Path) -> None:
    shutil.copytree(lists, tmp_path / "data")
    run = tmp_path / "run"
    config = configuration(tmp_path / "data", run, "good")
    train(load_config(configuration(tmp_path / "data", tmp_path / "whole", "good")).config)
    broken = tmp_path / "data" / "depth_0.npy"
    kept = broken.read_bytes()
    cut(broken)
    with pytest.raises(InputError) as caught:
        train(load_config(config).config)
    (saved,) = (run / "checkpoints").glob("step-*")
    step = int(saved.name[5:])
    assert 0 < step < 5
    assert str(broken) in str(caught.value)
    assert f"Step {step} is saved: mend the file, or leave bad samples out by" in str(caught.value)
    broken.write_bytes(kept)
    train(load_config(config).config, "auto")
    assert losses(run) == losses(tmp_path / "whole")
    # Or without it: another number of stacks in an epoch, from the same checkpoint.
    cut(broken)
    shutil.rmtree(checkpoint(run, 5))
    less = load_config(config, ["data.skip_bad_samples=1", "training.num_epochs=2"]).config
    assert train(less, "auto").steps == 9


def test_a_dry_run_replaces_bad_samples_as_training_does(
    lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configuration(lists, tmp_path / "run", "all", skip_bad_samples=len(BROKEN))
    argv = ("train", "--config", config, "--dry-run", "--device", "cpu")
    assert exit_code(main, *argv, "--override", f"training.batch_size={GOOD}") == 0
    out, err = capsys.readouterr()
    left = err.count("left out: ") - 1  # and the file that is missing
    assert f"{GOOD + left} read, {left} bad" in out
    assert f"the data are readable, with {left} bad samples left out" in out
    assert "filelist: one step taken" in out
    lines = (lists / "all.jsonl").read_text().splitlines()
    (lists / "bad.jsonl").write_text(lines[4] + "\n")
    config = configuration(lists, tmp_path / "none", "bad", skip_bad_samples=1)
    assert exit_code(main, "train", "--config", config, "--dry-run") == 2
    assert "filelist: all of its train samples are bad; the first: " in capsys.readouterr().err
