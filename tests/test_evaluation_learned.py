"""Learned models in an evaluation: scored beside physics, on its estimate, and named by weights."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import exit_code
from fixtures import stacks

from focaldiffusion.checkpoints.checkpoint import find_checkpoint
from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.checkpoints.saving import save_checkpoint
from focaldiffusion.cli.main import main
from focaldiffusion.config.run import Config, ModelConfig
from focaldiffusion.errors import InputError
from focaldiffusion.evaluation import physical
from focaldiffusion.evaluation.baselines import open_model
from focaldiffusion.evaluation.physical import Learned
from focaldiffusion.evaluation.plan import EvaluationPlan
from focaldiffusion.evaluation.prediction import Prediction
from focaldiffusion.evaluation.records import read_records
from focaldiffusion.evaluation.runner import evaluate
from script.evaluate import main as script_evaluate
from tests.conftest import TOLERANCE
from tests.evaluation_runs import check_that_truth_is_not_seen

SCENES = ("desk", "shelf")


def saved(folder: Path, *, seed: int | None) -> Path:
    """A checkpoint whose output is zero, as before training, or random, as after it."""
    model = FocalDiffusionPipeline.from_preset("compact")
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            model.denoiser.conv_out.weight.normal_(std=0.02, generator=generator)
    config = Config(model=ModelConfig(preset="compact"))
    save_checkpoint(model, folder, config, {"steps": 7}, adapter_only=False)
    return folder


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models") / "untrained", seed=None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models") / "trained", seed=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two small stacks with truth, in the layout of the protocol `stacks`."""
    folder = tmp_path / "root"
    for name in SCENES:
        stacks.write(folder / name)
    return folder


def maps(prediction: Prediction) -> dict[str, torch.Tensor]:
    assert prediction.depth_m is not None
    assert prediction.all_in_focus is not None
    assert prediction.confidence is not None
    return {
        "depth_m": prediction.depth_m,
        "all_in_focus": prediction.all_in_focus,
        "confidence": prediction.confidence,
    }


def test_an_untrained_model_equals_physics(root: Path, untrained: Path) -> None:
    plan = EvaluationPlan("stacks", str(root), ("physics", str(untrained)))
    records = evaluate(plan, root.parent / "out")
    assert [one.status for one in records] == ["done"] * 4
    assert {one.model for one in records} == {"physics", str(untrained)}
    for physics, model in zip(records[::2], records[1::2], strict=True):
        assert "abs_rel_untextured" in physics.metrics
        # A pixel on the threshold of a share may cross it by the rounding of the code.
        assert model.metrics == pytest.approx(physics.metrics, rel=1e-3, abs=2 / 768)


def test_sharing_the_estimate_does_not_change_results(
    root: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = stacks.capture(stacks.scene(), stacks.FOCUS_M)
    made = []

    def counted(*arguments: object) -> physical.Estimate:
        made.append(arguments)
        return estimate_depth(*arguments)

    estimate_depth = physical.estimate_depth
    monkeypatch.setattr(physical, "estimate_depth", counted)
    names = ("physics", str(trained))
    apart = [open_model(name).predict(stack, "desk") for name in names]
    assert len(made) == 2
    estimates = physical.PhysicalEstimates("cpu")
    together = [open_model(name, estimates=estimates).predict(stack, "desk") for name in names]
    assert len(made) == 3
    for one, other in zip(apart, together, strict=True):
        for name, values in maps(one).items():
            torch.testing.assert_close(maps(other)[name], values, rtol=0, atol=0, equal_nan=True)
    # The second model gets the time that the first one spent for both.
    assert together[0].shared_seconds == apart[1].shared_seconds == 0
    assert together[1].shared_seconds > 0
    assert not torch.equal(maps(together[0])["depth_m"], maps(together[1])["depth_m"])


def test_a_model_equals_its_pipeline(trained: Path) -> None:
    stack = stacks.capture(stacks.scene(), stacks.FOCUS_M)
    model = open_model(str(trained))
    assert isinstance(model, Learned)
    assert model.load() is model.load()
    pipeline = model.checkpoint.load()
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(stack)
    found = maps(model.predict(stack, "desk"))
    exact = TOLERANCE[torch.float32]
    for name in ("depth_m", "confidence"):
        expectation = torch.from_numpy(getattr(expected, name))
        torch.testing.assert_close(found[name], expectation, equal_nan=True, **exact)


def test_separate_runs_and_workers_give_the_same_figures(root: Path, trained: Path) -> None:
    alone = evaluate(EvaluationPlan("stacks", str(root), (str(trained),)), root.parent / "alone")
    beside = evaluate(
        EvaluationPlan("stacks", str(root), ("physics", str(trained))),
        root.parent / "beside",
        workers=2,
    )
    assert [one.metrics for one in beside if one.model == str(trained)] == [
        one.metrics for one in alone
    ]


def test_predictions_do_not_depend_on_the_truth(root: Path, trained: Path) -> None:
    check_that_truth_is_not_seen(str(trained), root, SCENES[0])


def test_the_command_reports_models_by_their_weights(
    root: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    argv = ("evaluate", "--dataset", "stacks", "--data-root", root, "--output-dir", out)
    flags = ("--device", "cpu", "--max-samples", "1")
    assert exit_code(main, *argv, "--model", trained, *flags) == 0
    digest = find_checkpoint(str(trained)).digest
    printed = capsys.readouterr().out
    assert f"weightswithSHA-256{digest}" in "".join(printed.split())  # lines are wrapped
    assert "untextured" in printed
    models = {one.model for one in read_records(out)}
    assert models == {str(trained), "physics", "argmax", "shape-from-focus", "laplacian-pyramid"}

    page = (out / "report.html").read_text(encoding="utf-8")
    assert digest in page
    assert "AbsRel, untextured" in page
    content = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert content["run"]["checkpoints"][str(trained)]["sha256"] == digest
    assert content["run"]["checkpoints"][str(trained)]["training"] == {"steps": 7}
    for model in (str(trained), "physics", "argmax"):
        assert content["models"][model]["means"]["abs_rel_untextured"]["samples"] == 1
    with (out / "metrics.csv").open(encoding="utf-8", newline="") as file:
        assert all(row["abs_rel_untextured"] for row in csv.DictReader(file) if row["abs_rel"])

    assert (exit_code(main, "compare", out, out, "--model-a", "physics", "--model-b", trained)) == 0
    assert "AbsRel, untextured" in capsys.readouterr().out.replace("\N{NO-BREAK SPACE}", " ")


def test_the_original_command_takes_a_checkpoint(root: Path, trained: Path, tmp_path: Path) -> None:
    argv = ("--dataset", "stacks", "--data_root", root, "--output_dir", tmp_path / "out")
    flags = ("--max_samples", "1", "--device", "cpu")
    assert exit_code(script_evaluate, *argv, "--checkpoint", trained, *flags) == 0
    assert read_records(tmp_path / "out")[0].model == str(trained)


def test_other_weights_do_not_continue_a_run(root: Path, trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained, tmp_path / "model")
    plan = EvaluationPlan("stacks", str(root), (str(folder),), max_samples=1)
    evaluate(plan, tmp_path / "out")
    evaluate(plan, tmp_path / "out")
    saved(folder, seed=2)
    with pytest.raises(InputError, match=f"an evaluation of {folder} with other weights"):
        evaluate(plan, tmp_path / "out")


def test_damaged_weights_end_a_run(root: Path, trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained, tmp_path / "model")
    weights = next((folder / "denoiser").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match=str(folder)):
        evaluate(EvaluationPlan("stacks", str(root), (str(folder),)), tmp_path / "out")


def test_names_that_are_not_models_are_refused_in_one_sentence(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("evaluate", "--dataset", "stacks", "--data-root", root, "--output-dir", tmp_path / "x")
    for flags, said in (
        (("--model", root), "has no focaldiffusion.json, so it is not a checkpoint"),
        (("--model", tmp_path / "nowhere"), "nowhere: no such folder"),
        (("--device", "abacus"), "device abacus: torch cannot compute there"),
    ):
        assert exit_code(main, *argv, *flags) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
