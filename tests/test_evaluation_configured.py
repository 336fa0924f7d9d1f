"""`evaluate --config`: the sources of a configuration's split, scored as a protocol is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import exit_code, refusal
from fixtures import hypersim, stacks, virtual_kitti

from focaldiffusion.cli.main import main
from focaldiffusion.config.data import DataConfig
from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.configured import ConfiguredSplit
from focaldiffusion.evaluation.records import Record, read_records
from script.evaluate import main as script_evaluate

RANGES_M = {"hypersim": (1.0, 4.0), "virtual_kitti": (3.0, 60.0)}
FRAMES = 3
LENS = {"f_number": 0.5, "sensor_width_m": 0.036}
BIT_DEPTH = 16
"""Bits of the frames, and of the file of the true image, whose rounding figures show at 8 bits."""


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders hypersim and virtual_kitti in native layout."""
    root = tmp_path_factory.mktemp("trees")
    hypersim.write(root / "hypersim")
    virtual_kitti.write(root / "virtual_kitti", scenes=("Scene02",))
    return root


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    """Three small stacks with truth, in the layout of the data set `stacks`."""
    for name in ("desk", "shelf", "window"):
        stacks.write(tmp_path / "rooms" / name)
    return tmp_path / "rooms"


def configuration(path: Path, **data: Any) -> Path:
    """A file with a `data` block alone."""
    path.write_text(json.dumps({"data": data}), encoding="utf-8")
    return path


def mixed(path: Path, trees: Path) -> Path:
    """A configuration that tests on both trees."""
    return configuration(
        path,
        dataset_kwargs={
            "camera_defaults": LENS,
            "simulator_kwargs": {"bit_depth": BIT_DEPTH},
        },
        test_sources=[
            {
                "name": f"{name} here",
                "dataset_type": name,
                "data_root": str(trees / name),
                "focal_range": list(range_m),
                "focal_stack_size": FRAMES,
                "max_samples": 1,
            }
            for name, range_m in RANGES_M.items()
        ],
    )


def figures(folder: Path) -> dict[tuple[str, str], Record]:
    """The records of a run by sample and model."""
    return {(one.sample, one.model): one for one in read_records(folder)}


def simulated(trees: Path, folder: Path, samples: list[str]) -> Path:
    """The samples of a run of `mixed`, each photographed by the command `simulate`."""
    for number, sample in enumerate(samples):
        source, _, name = sample.partition("/")
        dataset = source.removesuffix(" here")
        near, far = RANGES_M[dataset]
        planes = ",".join(map(str, 1 / np.linspace(1 / near, 1 / far, FRAMES)))
        argv = ("--dataset", dataset, "--data-root", trees / dataset, "--sample", name)
        lens = ("--f-number", "0.5", "--sensor-width-mm", "36", "--focus-distances", planes)
        output = ("--bit-depth", str(BIT_DEPTH), "--output", folder / str(number), "--quiet")
        assert exit_code(main, "simulate", *argv, *lens, *output) == 0
    return folder


def test_a_split_equals_a_loop_over_simulate(trees: Path, tmp_path: Path) -> None:
    config, one, other = mixed(tmp_path / "mixed.yaml", trees), tmp_path / "one", tmp_path / "other"
    models = ("--model", "physics", "--model", "shape-from-focus", "--no-baselines", "--quiet")
    assert exit_code(main, "evaluate", "--config", config, *models, "--output-dir", one) == 0
    split = figures(one)
    samples = sorted({sample for sample, _ in split})
    assert [sample.partition(" here/")[0] for sample in samples] == ["hypersim", "virtual_kitti"]
    loop = simulated(trees, tmp_path / "loop", samples)
    argv = ("--dataset", "stacks", "--data-root", loop, *models)
    assert exit_code(main, "evaluate", *argv, "--output-dir", other) == 0
    by_hand = figures(other)
    assert len(split) == len(by_hand) == 4
    for (sample, model), record in split.items():
        expected = by_hand[str(samples.index(sample)), model].metrics
        assert {"abs_rel", "psnr", "ssim"} <= record.metrics.keys()
        assert record.metrics == pytest.approx(expected, abs=1e-6, rel=1e-6)


def test_results_are_those_of_each_source_and_together(
    trees: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = mixed(tmp_path / "mixed.yaml", trees), tmp_path / "out"
    argv = ("evaluate", "--config", config, "--model", "argmax", "--no-baselines")
    assert exit_code(main, *argv, "--output-dir", out) == 0
    values: dict[str, list[float]] = {"hypersim here": [], "virtual_kitti here": []}
    for record in read_records(out):
        values[record.sample.partition("/")[0]].append(record.metrics["abs_rel"])
    content = json.loads((out / "metrics.json").read_text())
    found = content["models"]["argmax"]
    for name, each in values.items():
        assert found["sources"][name]["means"]["abs_rel"]["mean"] == pytest.approx(np.mean(each))
    both = [one for each in values.values() for one in each]
    assert found["means"]["abs_rel"]["mean"] == pytest.approx(np.mean(both))
    assert content["protocol"]["source hypersim here"]["focal_range"] == [1.0, 4.0]
    printed = capsys.readouterr().out
    page = (out / "report.html").read_text()
    assert f"all sources: Means over {len(both)} samples of 2 scenes from 2 sources." in printed
    assert f"Means over {len(both)} samples of 2 scenes from 2 sources." in page
    for name in values:
        assert f"{name}: Means over {len(values[name])} samples of 1 scenes." in printed
        assert f"<h3>{name}</h3>" in page


def test_a_stack_depends_on_its_name_alone(rooms: Path, tmp_path: Path) -> None:
    noisy = {"generate_focal_stack": True, "simulator_kwargs": {"noise_std_lsb_range": [1, 8]}}
    source = {"dataset_type": "stacks", "data_root": str(rooms), "focal_range": [0.5, 4]}
    sources = [{"name": name, **source, "dataset_kwargs": noisy} for name in ("one", "two")]

    def scored(name: str, *flags: str, **data: Any) -> dict[str, float]:
        config = configuration(tmp_path / f"{name}.yaml", **data)
        argv = ("--config", config, "--model", "argmax", "--no-baselines", "--quiet", *flags)
        assert exit_code(main, "evaluate", *argv, "--output-dir", tmp_path / name) == 0
        return {one.sample: one.metrics["abs_rel"] for one in read_records(tmp_path / name)}

    both = scored("both", test_sources=sources)
    assert len(both) == 6
    assert both["one/desk"] != both["two/desk"]  # another name, other noise
    assert scored("again", "--override", "training.seed=9", test_sources=sources) == both
    alone = scored("alone", "--source", "two", "--max-samples", "2", test_sources=sources)
    assert alone == {name: both[name] for name in ("two/desk", "two/shelf")}
    thinned = scored("thinned", test_sources=sources[1:], max_test_samples=1)
    assert thinned == {"two/desk": both["two/desk"]}


def test_a_list_of_the_test_split_is_scored(rooms: Path, tmp_path: Path) -> None:
    lines = {
        "val": "shelf/stack,shelf/truth/depth.npz",
        "test": "desk/stack,desk/truth/depth.npz",
    }
    for split, line in lines.items():
        (tmp_path / f"{split}.csv").write_text(line)
    config = configuration(
        tmp_path / "lists.yaml",
        dataset_type="filelist",
        data_root=str(rooms),
        **{f"{split}_filelist": str(tmp_path / f"{split}.csv") for split in lines},
    )
    for split, line in lines.items():
        out = tmp_path / split
        argv = ("--config", config, "--split", split, "--model", "argmax", "--no-baselines")
        assert exit_code(main, "evaluate", *argv, "--quiet", "--output-dir", out) == 0
        (record,) = read_records(out)
        assert record.sample == f"filelist/{line.partition(',')[0]}"


def test_the_original_command_scores_a_split(rooms: Path, tmp_path: Path) -> None:
    config = configuration(tmp_path / "rooms.yaml", dataset_type="stacks")
    argv = ("--config", config, "--checkpoint", "argmax", "--data_root", rooms, "--split", "val")
    argv = (*argv, "--dataset", "stacks", "--max_samples", "1", "--output_dir", tmp_path / "out")
    assert exit_code(script_evaluate, *argv) == 0
    found = figures(tmp_path / "out")
    assert ("stacks/desk", "argmax") in found
    assert found["stacks/desk", "argmax"].protocol.startswith("val of stacks (")


def test_runs_of_other_sources_are_told_apart(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configuration(tmp_path / "rooms.yaml", dataset_type="stacks", data_root=str(rooms))
    argv = ("evaluate", "--config", config, "--model", "argmax", "--no-baselines", "--quiet")
    first = (*argv, "--output-dir", tmp_path / "first")
    assert exit_code(main, *first) == 0
    assert exit_code(main, *first) == 0  # continues
    moved = tmp_path / "moved"
    rooms.rename(moved)
    fewer = ("--override", "data.image_size=[16,16]")
    error = refusal(capsys, tmp_path, main, *first, "--data-root", moved)
    assert f"with sources.stacks.data_root {rooms}, not {moved}. Choose" in error
    error = refusal(capsys, tmp_path, main, *first, "--data-root", moved, *fewer)
    assert "holds an evaluation with protocol test of stacks (" in error
    second = (*argv, "--data-root", moved, "--output-dir", tmp_path / "second")
    third = (*argv, "--data-root", moved, *fewer, "--output-dir", tmp_path / "third")
    assert exit_code(main, *second) == exit_code(main, *third) == 0
    # Figures compare wherever the files are, but not of another size.
    assert exit_code(main, "compare", tmp_path / "first", tmp_path / "second") == 0
    capsys.readouterr()
    error = refusal(capsys, tmp_path, main, "compare", tmp_path / "first", tmp_path / "third")
    assert "their figures do not compare" in error


def test_flags_that_do_not_go_together(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configuration(tmp_path / "rooms.yaml", dataset_type="stacks", data_root=str(rooms))

    def said(*argv: str | Path) -> str:
        out = ("--output-dir", tmp_path / "out")
        return refusal(capsys, tmp_path, main, "evaluate", *out, *argv)

    assert "not allowed with argument --config" in said("--config", config, "--dataset", "stacks")
    assert "one of the arguments --dataset --config is required" in said()
    protocol = ("--dataset", "stacks", "--data-root", rooms)
    assert "--split does not apply to --dataset" in said(*protocol, "--split", "val")
    assert "did you mean stacks?" in said("--config", config, "--source", "stack")
    argv = ("--output_dir", tmp_path / "out")
    assert "--config or --dataset is missing" in refusal(capsys, tmp_path, script_evaluate, *argv)


def test_sources_without_end_need_a_number() -> None:
    data = DataConfig(dataset_type="procedural")
    with pytest.raises(InputError, match=r"procedural is endless.*set data\.max_val_samples"):
        ConfiguredSplit.of(data, "val")
