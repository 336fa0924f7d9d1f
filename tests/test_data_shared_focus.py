"""Focus distances that all stacks of a source share, and dry runs of data that lack them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from command_line import exit_code
from fixtures import stacks, zedd
from fixtures.sources import source_of

from focaldiffusion.cli.main import main
from focaldiffusion.config.data import DatasetOptions
from focaldiffusion.config.load import load_config, save_resolved
from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.loading import batches, open_split
from focaldiffusion.data.registry import open_dataset
from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.configured import ConfiguredSplit

SHARED_M = [0.4, 0.9, math.inf]
LINE = "desk/stack,desk/truth/depth.npz,3\n"
"""The three values of the original's lists."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a stack of three frames, whose stack.json has the lens alone."""
    stacks.write(tmp_path / "desk")
    sidecar = tmp_path / "desk" / "stack" / "stack.json"
    content = json.loads(sidecar.read_text())
    del content["focus_distances_m"]
    sidecar.write_text(json.dumps(content))
    (tmp_path / "list.csv").write_text(LINE)
    return tmp_path


def focus_of(root: Path, kind: str, **options: object) -> list[float] | None:
    """Reported focus of the first sample of a source, photographed where it has no frames."""
    filelist = root / "list.csv" if kind == "filelist" else None
    split = "train" if kind == "unlabelled" else "test"
    source = source_of(kind, root, split, filelist=filelist, **options)
    split_of_one = ConfiguredSplit((source.model_copy(update={"focal_range": (0.5, 2.0)}),))
    sample = split_of_one.sample(split_of_one.open(), 0)
    distances = sample.stack.focus_distances_m
    return None if distances is None else distances.tolist()


@pytest.mark.parametrize(
    ("kind", "generate"),
    [
        ("filelist", False),
        ("filelist", True),
        ("stacks", False),
        ("stacks", True),
        ("unlabelled", False),
    ],
)
def test_stacks_share_the_distances(root: Path, kind: str, generate: bool) -> None:
    if kind == "filelist" and generate:
        line = "all_in_focus,depth\ndesk/truth/all_in_focus.png,desk/truth/depth.npz\n"
        (root / "list.csv").write_text(line)
    camera = {"focal_length_px": 400, "aperture_diameter_m": 0.01}
    options: dict[str, object] = {"camera_defaults": camera} if generate else {}
    options["generate_focal_stack"] = generate or None
    assert focus_of(root, kind, focus_distances_m=SHARED_M, **options) == pytest.approx(SHARED_M)
    alone = focus_of(root, kind, **options)
    assert alone != pytest.approx(SHARED_M) if generate else alone is None


def test_a_line_of_the_list_comes_first(root: Path) -> None:
    header = "focal_stack,depth,focus_distances_m\n"
    (root / "list.csv").write_text(f"{header}desk/stack,desk/truth/depth.npz,1;2;3\n")
    assert focus_of(root, "filelist", focus_distances_m=SHARED_M) == [1, 2, 3]


def test_contradictions_are_named(root: Path) -> None:
    with pytest.raises(InputError, match=r"list\.csv:1: num_images is 3, but filelist_test has 2"):
        focus_of(root, "filelist", focus_distances_m=[1, 2])
    header = "all_in_focus,depth,focal_range\n"
    line = "desk/truth/all_in_focus.png,desk/truth/depth.npz,1;2\n"
    (root / "list.csv").write_text(header + line)
    with pytest.raises(InputError, match=r"list\.csv:2: focal_range is given, but filelist_test"):
        focus_of(root, "filelist", focus_distances_m=SHARED_M)
    zedd.write(root / "zedd")
    with pytest.raises(InputError, match="the stacks of zedd come with their own"):
        open_dataset(source_of("zedd", root / "zedd", "val", focus_distances_m=SHARED_M))


@pytest.mark.parametrize("wrong", [[1.0], [1, 1], [300, 400], [-1, 2], 3])
def test_distances_of_no_sweep_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="focus_distances_m"):
        DatasetOptions.model_validate({"focus_distances_m": wrong})


def config_of(root: Path, **options: object) -> Path:
    """Training and validation of a small network on the list."""
    block = {
        "model": {"preset": "compact"},
        "training": {"tuning": "full"},
        "data": {
            "dataset_type": "filelist",
            "data_root": str(root),
            "train_filelist": str(root / "list.csv"),
            "dataset_kwargs": options,
        },
    }
    (root / "mine.yaml").write_text(json.dumps(block))
    return root / "mine.yaml"


def test_null_is_infinity_and_stays_so_in_the_saved_configuration(root: Path) -> None:
    config = load_config(config_of(root, focus_distances_m=[0.4, 0.9, None])).config
    assert config.data.dataset_kwargs.focus_distances_m == tuple(SHARED_M)
    save_resolved(config, root / "saved.yaml")
    assert load_config(root / "saved.yaml").config == config
    (batch,) = batches(open_split(config.data, "train", 0), [0], 1)
    assert np.allclose(batch.focus_distances_m, [SHARED_M])
    assert isinstance(batch.sample(0), StackSample)


@pytest.mark.parametrize("model", [{}, {"base_model_id": "nowhere/at-all", "preset": None}])
def test_a_dry_run_refuses_stacks_without_distances_as_training_does(
    root: Path, model: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [f"model.{key}={json.dumps(value)}" for key, value in model.items()]
    flags = ("--override", "training.seed=1", *overrides)
    assert exit_code(main, "train", "--config", config_of(root), "--dry-run", *flags) == 2
    error = capsys.readouterr().err
    assert "list.csv:1 (desk/stack): has no focus distances" in error
    assert "give data.dataset_kwargs.focus_distances_m" in error

    shared = config_of(root, focus_distances_m=[0.5, 1.0, 2.0])
    assert exit_code(main, "train", "--config", shared, "--dry-run", *flags) == 0
    out = capsys.readouterr().out
    # Of a base model without its weights, and of no preset, nothing is known.
    assert ("no step ran" in out) == bool(model)
    assert ("filelist: a step on 1 stacks of 32x24 px needs" in out) != bool(model)


def test_a_dry_run_prices_each_source_at_its_size_and_batch(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(root, focus_distances_m=[0.5, 1.0, 2.0])
    block = json.loads(config.read_text())
    del block["data"]["train_filelist"]
    block["training"]["batch_size"] = 2
    (root / "two.csv").write_text(LINE + LINE)
    sizes = {"small": [8, 16], "large": [24, 32]}
    block["data"]["train_sources"] = [
        {"name": name, "filelist": str(root / "two.csv"), "image_size": size}
        for name, size in sizes.items()
    ]
    config.write_text(json.dumps(block))
    exit_code(main, "train", "--config", config, "--dry-run")
    out = capsys.readouterr().out
    for name, (height, width) in sizes.items():
        assert f"{name}: a step on 2 stacks of {width}x{height} px needs" in out
        assert f"for 2 stacks of 3 frames of {width}x{height} px" in out


def test_a_dry_run_warns_of_what_looks_wrong_and_fails_if_strict(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(root, focus_distances_m=[0.5, 1.0, 2.0], depth_scale=1.0)
    argv = ("train", "--config", config, "--dry-run")
    assert exit_code(main, *argv, "--strict") == 0
    assert "the data are in order" in capsys.readouterr().out
    truth = root / "desk" / "truth" / "depth.npz"
    with np.load(truth) as arrays:
        depth = 1000 * arrays["depth"]
    np.savez(truth, depth=depth)
    assert exit_code(main, *argv) == 0
    out, err = capsys.readouterr()
    assert "warning: filelist (train): " in err
    assert "looks like millimetres: multiply depth_scale by 0.001." in err
    assert "the data are readable, with 1 warnings" in out
    assert exit_code(main, *argv, "--strict") == 2
    assert "1 warnings, see above; --strict ends here." in capsys.readouterr().err
    assert exit_code(main, "train", "--config", config, "--strict") == 2
    assert "--strict does not apply to training" in capsys.readouterr().err
