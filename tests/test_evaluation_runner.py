"""Runs of models over a protocol: figures, resuming, failures, and no leak of the truth."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import exit_code, names, refusal
from fixtures import stacks

from focaldiffusion.cli.main import main
from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.baselines import MODELS
from focaldiffusion.evaluation.plan import EvaluationPlan
from focaldiffusion.evaluation.records import SAMPLES, read_records
from focaldiffusion.evaluation.runner import evaluate
from focaldiffusion.progress import Meter
from focaldiffusion.shards import Shard
from script.evaluate import main as script_evaluate
from tests.evaluation_runs import check_that_truth_is_not_seen

SCENES = ("desk", "shelf", "window")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three small stacks with truth, in the layout of the protocol `stacks`."""
    folder = tmp_path / "root"
    for name in SCENES:
        stacks.write(folder / name)
    return folder


def plan(root: Path, *models: str, **settings: object) -> EvaluationPlan:
    return replace(EvaluationPlan("stacks", str(root), models or ("argmax",)), **settings)


def test_every_model_sees_every_sample(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    steps: list[tuple[int, int]] = []
    records = evaluate(
        plan(root, "argmax", "laplacian-pyramid"),
        out,
        meter=Meter(lambda done, total: steps.append((done, total))),
    )
    assert [(one.sample, one.model) for one in records] == [
        (sample, model) for sample in SCENES for model in ("argmax", "laplacian-pyramid")
    ]
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert all(one.status == "done" and one.counted for one in records)
    assert read_records(out) == records
    assert {"abs_rel", "delta_1.25"} <= records[0].metrics.keys()
    assert "psnr" not in records[0].metrics
    assert {"psnr", "ssim"} <= records[1].metrics.keys()
    assert "abs_rel" not in records[1].metrics
    for record in records:
        assert record.picture is not None
        assert (out / record.picture).is_file()
    facts = json.loads((out / "run.json").read_text())
    assert facts["plan"]["models"] == ["argmax", "laplacian-pyramid"]
    assert facts["packages"]["torch"].startswith(torch.__version__.split("+")[0])


def test_workers_do_not_change_the_figures(root: Path, tmp_path: Path) -> None:
    one, two = (
        evaluate(plan(root), tmp_path / str(workers), workers=workers) for workers in (1, 2)
    )
    assert [record.metrics for record in one] == [record.metrics for record in two]


def test_an_interrupted_run_continues(root: Path, tmp_path: Path) -> None:
    whole = evaluate(plan(root), tmp_path / "whole")
    part = tmp_path / "part"
    evaluate(plan(root), part)
    lines = (part / SAMPLES).read_text().splitlines(keepends=True)
    # Killed in the middle of the second line.
    marked = json.loads(lines[0]) | {"seconds": 123.0}
    (part / SAMPLES).write_text(json.dumps(marked) + "\n" + lines[1][:40])
    continued = evaluate(plan(root), part)
    assert [one.metrics for one in continued] == [one.metrics for one in whole]
    assert [one.seconds == 123.0 for one in continued] == [True, False, False]
    assert len((part / SAMPLES).read_text().splitlines()) == 3


def test_a_damaged_run_is_named(root: Path, tmp_path: Path) -> None:
    evaluate(plan(root), tmp_path / "out")
    (tmp_path / "out" / "run.json").write_text("")
    with pytest.raises(InputError, match=r"run\.json: is damaged \(.*Choose another --output-dir"):
        evaluate(plan(root), tmp_path / "out")


def test_a_run_of_another_plan_is_refused(root: Path, tmp_path: Path) -> None:
    evaluate(plan(root), tmp_path / "out")
    with pytest.raises(InputError, match=r"holds an evaluation with models \['argmax'\], not"):
        evaluate(plan(root, "physics"), tmp_path / "out")


def test_a_failure_is_recorded_and_tried_again(root: Path, tmp_path: Path) -> None:
    frame = next((root / "shelf" / "stack").glob("*.png"))
    content = frame.read_bytes()
    frame.write_bytes(content[:60])
    records = evaluate(plan(root), tmp_path / "out")
    assert [one.status for one in records] == ["done", "failed", "done"]
    assert str(frame) in (records[1].error or "")
    assert records[1].metrics == {}

    frame.write_bytes(content)
    records = evaluate(plan(root), tmp_path / "out")
    assert [one.status for one in records] == ["done", "done", "done"]


def test_figures_of_other_data_are_made_again(root: Path, tmp_path: Path) -> None:
    before = evaluate(plan(root), tmp_path / "out")
    assert all(one.data_sha256 for one in before)
    assert evaluate(plan(root), tmp_path / "out") == before  # nothing is made twice
    sidecar = root / "desk" / "stack" / "stack.json"
    content = json.loads(sidecar.read_text())
    content["focus_distances_m"] = [1.5 * one for one in content["focus_distances_m"]]
    sidecar.write_text(json.dumps(content))
    with np.load(root / "shelf" / "truth" / "depth.npz") as arrays:
        depth = arrays["depth"] * 2
    np.savez(root / "shelf" / "truth" / "depth.npz", depth=depth)
    after = evaluate(plan(root), tmp_path / "out")
    changed = {one.sample for one, other in zip(before, after, strict=True) if one != other}
    assert changed == {"desk", "shelf"}
    assert [one.metrics for one in after] == [
        one.metrics for one in evaluate(plan(root), tmp_path / "fresh")
    ]


def test_limited_samples_are_evenly_spaced(root: Path, tmp_path: Path) -> None:
    records = evaluate(plan(root, max_samples=2), tmp_path / "out")
    assert [one.sample for one in records] == ["desk", "shelf"]


def test_models_with_the_same_name_are_refused(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "argmax"
    folder.mkdir()
    with pytest.raises(InputError, match="two models are called argmax"):
        evaluate(plan(root, predictions=(str(folder),)), tmp_path / "out")


def test_variants_are_scored_beside_the_protocol(root: Path, tmp_path: Path) -> None:
    variants = ("focus_scale=1.05", "focus_scale=0.95")
    records = evaluate(plan(root, max_samples=1, variants=variants), tmp_path / "out")
    assert [one.variant for one in records] == [None, *variants]
    plain, farther, nearer = (one.metrics["abs_rel"] for one in records)
    assert farther != plain
    assert nearer != plain
    with pytest.raises(InputError, match="variant 'noise' is unknown"):
        evaluate(plan(root, variants=("noise",)), tmp_path / "other")


def test_stored_predictions_are_not_scored_on_variants(root: Path, tmp_path: Path) -> None:
    for name in SCENES:
        (tmp_path / "tool" / name).mkdir(parents=True)
        np.save(tmp_path / "tool" / name / "depth.npy", np.ones(stacks.SIZE, np.float32))
    flags = ("--model", "argmax", "--no-baselines", "--robustness", "quick", "--max-samples", 1)
    argv = ("evaluate", "--dataset", "stacks", "--data-root", root, "--output-dir", tmp_path / "o")
    assert exit_code(main, *argv, "--predictions", tmp_path / "tool", *flags) == 0
    seen = {(one.model, one.variant is None) for one in read_records(tmp_path / "o")}
    assert seen == {("argmax", True), ("argmax", False), ("tool", True)}
    assert (tmp_path / "o" / "report.html").is_file()

    argv = (*argv[:-1], tmp_path / "alone", "--predictions", tmp_path / "tool", "--no-baselines")
    assert exit_code(main, *argv) == 0
    assert {one.model for one in read_records(tmp_path / "alone")} == {"tool"}


def test_missing_samples_and_other_versions_do_not_count(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert len(evaluate(plan(root), out)) == 3
    shutil.rmtree(root / "desk")
    assert [one.sample for one in evaluate(plan(root), out)] == ["shelf", "window"]
    assert len(read_records(out)) == 2

    facts = json.loads((out / "run.json").read_text()) | {"focaldiffusion": "0.0.1"}
    (out / "run.json").write_text(json.dumps(facts))
    with pytest.raises(
        InputError, match=r"by focaldiffusion 0\.0\.1, and this is .*Choose another"
    ):
        evaluate(plan(root), out)


@pytest.mark.parametrize("model", MODELS)
def test_predictions_do_not_depend_on_the_truth(model: str, root: Path) -> None:
    check_that_truth_is_not_seen(model, root, SCENES[0])


def test_textureless_pixels_come_from_physics(root: Path, tmp_path: Path) -> None:
    alone, beside = (
        evaluate(plan(root, *models, max_samples=1), tmp_path / str(len(models)))
        for models in (("argmax",), ("argmax", "physics"))
    )
    assert "abs_rel_untextured" not in alone[0].metrics
    assert ["abs_rel_untextured" in one.metrics for one in beside] == [True, True]
    # The same in a resumed run that lacks only this sample.
    path = tmp_path / "2" / SAMPLES
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[1])
    again = evaluate(plan(root, "argmax", "physics", max_samples=1), tmp_path / "2")
    assert again[0].metrics == beside[0].metrics


def test_the_command_writes_a_report(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    argv = ("evaluate", "--dataset", "stacks", "--data-root", root, "--output-dir", out)
    assert exit_code(main, *argv) == 0
    printed = capsys.readouterr().out
    for name in ("physics", "argmax", "shape-from-focus", "laplacian-pyramid"):
        assert name in printed
    assert {"metrics.json", "metrics.csv", "report.html", "run.json", "samples.jsonl"} <= set(
        names(out)
    )


def test_failures_give_exit_code_1(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    next((root / "shelf" / "stack").glob("*.png")).write_bytes(b"")
    out = tmp_path / "out"
    argv = ("--dataset", "stacks", "--data-root", root, "--output-dir", out, "--no-baselines")
    assert exit_code(main, "evaluate", *argv) == 1
    assert "1 of 3" in capsys.readouterr().out


def test_the_original_command_translates_its_flags(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("--dataset", "stacks", "--data_root", root, "--output_dir", tmp_path / "out")
    assert exit_code(script_evaluate, *argv, "--checkpoint", "argmax", "--max_samples", "1") == 0
    records = read_records(tmp_path / "out")
    assert {one.sample for one in records} == {"desk"}
    assert records[0].model == "argmax"
    capsys.readouterr()
    assert "every sample gets its picture" in refusal(
        capsys, tmp_path, script_evaluate, *argv, "--num_viz", "3"
    )


def test_shards_together_are_the_run(root: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    expected = evaluate(plan(root), whole)
    parts = [evaluate(plan(root), out, shard=Shard(number, 2)) for number in (1, 2)]
    assert [[one.sample for one in part] for part in parts] == [["desk", "window"], ["shelf"]]
    assert not (out / SAMPLES).exists()
    steps: list[tuple[int, int]] = []
    found = evaluate(plan(root), out, meter=Meter(lambda *counts: steps.append(counts)))
    assert steps == []
    assert [one.metrics for one in found] == [one.metrics for one in expected]
    assert all((out / str(one.picture)).is_file() for one in found)
    # Records of another plan are not taken over.
    with pytest.raises(InputError, match="holds an evaluation with models"):
        evaluate(plan(root, "physics"), out, shard=Shard(1, 2))
    (out / "run.json").unlink()
    with pytest.raises(InputError, match="1-of-2: holds an evaluation with models"):
        evaluate(plan(root, "physics"), out)


def test_unknown_models_and_protocols_are_refused_in_one_sentence(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("evaluate", "--data-root", root, "--output-dir", tmp_path / "out")
    err = refusal(capsys, tmp_path, main, *argv, "--dataset", "stacks", "--model", "phisics")
    assert "did you mean physics?" in err
    err = refusal(capsys, tmp_path, main, *argv, "--dataset", "stack")
    assert "stacks" in err
    err = refusal(capsys, tmp_path, main, *argv, "--dataset", "stacks", "--output-dir", "")
    assert "argument --output-dir: is empty; expected a path" in err


def test_exported_stacks_come_back_as_predictions(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported, predicted = tmp_path / "exported", tmp_path / "other_tool"
    argv = ("evaluate", "--dataset", "stacks", "--data-root", root)
    assert exit_code(main, *argv, "--export-stacks", exported) == 0
    assert "3 stacks" in capsys.readouterr().out
    assert names(exported) == sorted(SCENES)
    assert not list(exported.rglob("depth*"))
    # An interrupted export continues.
    kept = (exported / "desk" / "stack.json").stat().st_ino
    shutil.rmtree(exported / "shelf")
    assert exit_code(main, *argv, "--export-stacks", exported, "--quiet") == 0
    assert names(exported) == sorted(SCENES)
    assert (exported / "desk" / "stack.json").stat().st_ino == kept
    shard = ("--export-stacks", tmp_path / "part", "--shard", "2/3", "--quiet")
    assert exit_code(main, *argv, *shard) == 0
    assert names(tmp_path / "part") == ["shelf"]
    assert exit_code(main, *argv, "--export-stacks", tmp_path / "few", "--max-samples", 2) == 0
    assert "2 stacks" in capsys.readouterr().out
    assert names(tmp_path / "few") == sorted(SCENES[:2])
    for name in SCENES[:2]:
        (predicted / name).mkdir(parents=True)
        np.save(predicted / name / "depth.npy", np.full(stacks.SIZE, 1.0, np.float32))
    out = tmp_path / "out"
    flags = ("--model", "argmax", "--no-baselines", "--predictions", predicted)
    assert exit_code(main, *argv, "--output-dir", out, *flags) == 1  # one sample is missing
    found = {(one.sample, one.model): one for one in read_records(out)}
    # Half of the scene is 1 m deep, half 2 m; one of its 768 pixels has no truth.
    assert found["desk", "other_tool"].metrics["abs_rel"] == pytest.approx(0.25, abs=1e-3)
    assert found["window", "other_tool"].status == "failed"
    assert "no prediction for this sample" in (found["window", "other_tool"].error or "")

    # Missing predictions are added, and changed ones are scored again.
    for name in ("desk", "window"):
        (predicted / name).mkdir(exist_ok=True)
        np.save(predicted / name / "depth.npy", np.full(stacks.SIZE, 2.0, np.float32))
    assert exit_code(main, *argv, "--output-dir", out, *flags) == 0
    again = {(one.sample, one.model): one for one in read_records(out)}
    assert again["desk", "other_tool"].metrics["abs_rel"] == pytest.approx(0.5, abs=1e-3)
    assert again["window", "other_tool"].status == "done"
    for kept in (("desk", "argmax"), ("shelf", "other_tool")):
        assert again[kept] == found[kept]
