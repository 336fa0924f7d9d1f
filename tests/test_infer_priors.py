"""`infer --prior` and `evaluate --prior`: the flags, and what they refuse."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import exit_code, refusal
from depth_networks import save_network
from fixtures import stacks
from plant import SIZE, run

import focaldiffusion as fd
from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.checkpoints.saving import save_checkpoint
from focaldiffusion.cli.main import main
from focaldiffusion.config.run import Config, ModelConfig
from focaldiffusion.io.depth_files import write_npy


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network("depth_anything relative", tmp_path_factory.mktemp("networks") / "tiny")


@pytest.fixture
def depth_file(tmp_path: Path) -> Path:
    write_npy(tmp_path / "depth.npy", np.full(SIZE, 1.5, np.float32))
    return tmp_path / "depth.npy"


def test_a_network_by_its_folder(
    stack: Path, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("infer", stack, "--output", tmp_path / "out", "--prior", network) == 0
    assert np.load(tmp_path / "out" / "depth.npy").shape == SIZE
    assert (tmp_path / "out" / "prior_share.png").is_file()
    prior = json.loads((tmp_path / "out" / "metadata.json").read_text())["prior"]
    assert (prior["name"], prior["kind"]) == (str(network), "affine-inverse-depth")
    verdict = "decides on" if prior["accepted"] else f"refused, since {prior['refused']}"
    assert f"  prior      {network}: {verdict}" in capsys.readouterr().out


def test_a_file(stack: Path, depth_file: Path, tmp_path: Path) -> None:
    flags = ("--prior", depth_file, "--prior-kind", "metric-depth", "--quiet")
    assert run("infer", stack, "--output", tmp_path / "out", *flags) == 0
    assert np.load(tmp_path / "out" / "depth.npy").shape == SIZE


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--prior-kind affine-depth", "--prior-kind: no effect without --prior"),
        ("--prior {depth}", "does not say whether it holds depth or inverse depth"),
        ("--prior {depth} --prior-kind disparity", "invalid choice: 'disparity'"),
        (
            "--prior {depth} --prior-kind metric-depth --image-only",
            "--prior: no effect with --imag",
        ),
        ("--prior {network} --prior-kind metric-depth", "which is affine-inverse-depth, but the"),
        ("--prior nowhere", "nowhere: no such file or folder, and not an id on the hub"),
    ],
)
def test_flags_that_make_no_sense(
    flags: str,
    message: str,
    stack: Path,
    depth_file: Path,
    network: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = flags.format(depth=depth_file, network=network).split()
    output = ("--output", tmp_path / "out")
    assert message in refusal(capsys, tmp_path, main, "infer", stack, *output, *given)


def test_one_file_is_not_the_prior_of_several_stacks(
    stack: Path, depth_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--prior", depth_file, "--prior-kind", "metric-depth", "--output", tmp_path / "out")
    other = shutil.copytree(stack, tmp_path / "other")
    said = refusal(capsys, tmp_path, main, "infer", stack, other, *given)
    assert "one file for 2 stacks; expected one stack" in said


def test_a_prior_of_another_aspect_fails_its_stack(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_npy(tmp_path / "wide.npy", np.ones((10, 90), np.float32))
    given = ("--prior", tmp_path / "wide.npy", "--prior-kind", "affine-depth", "--quiet")
    assert exit_code(main, "infer", stack, "--output", tmp_path / "out", *given) == 2
    assert "90x10 pixels; expected the aspect of the all-in-focus image" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("prior", [3, torch.zeros(3, 3)])
def test_what_is_not_a_prior_is_refused(stack: Path, prior: object) -> None:
    with pytest.raises(fd.InputError, match=r"^prior: got (int|Tensor); expected a name, a folder"):
        fd.reconstruct(stack, prior=prior)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose network sees a prior."""
    folder = tmp_path_factory.mktemp("models") / "seeing"
    model = FocalDiffusionPipeline.from_preset("compact", with_prior=True)
    config = Config(model=ModelConfig(preset="compact", with_prior=True))
    save_checkpoint(model, folder, config, {"steps": 0}, adapter_only=False)
    return folder


def test_a_model_that_sees_a_prior(
    stack: Path, network: Path, seeing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (stack, "--output", tmp_path / "out", "--model", seeing, "--quiet")
    said = refusal(capsys, tmp_path, main, "infer", *given)
    assert f"{seeing}: was trained with a prior (model.with_prior) and cannot run without" in said
    with pytest.raises(fd.InputError, match=r"seeing: was trained with a prior"):
        fd.reconstruct(stack, model=seeing)
    assert run("infer", *given, "--prior", network) == 0
    facts = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert facts["generation"]["with_prior"] is True


def test_an_evaluation_runs_it_with_each_prior(
    network: Path, seeing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stacks.write(tmp_path / "root" / "desk")
    out = tmp_path / "out"
    flags = ("--dataset", "stacks", "--data-root", tmp_path / "root", "--output-dir", out)
    model = ("--no-baselines", "--model", seeing, "--quiet")
    assert exit_code(main, "evaluate", *flags, *model) == 2
    assert "cannot run without one" in capsys.readouterr().err
    assert exit_code(main, "evaluate", *flags, *model, "--prior", network) == 0
    rows = list(csv.DictReader((out / "metrics.csv").open(encoding="utf-8")))
    name = f"{seeing}+{network}"
    assert {row["model"] for row in rows} == {f"physics+{network}", name}
    facts = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert facts["checkpoints"][name]["prior"]["name"] == str(network)


def test_an_evaluation_scores_it_beside_physics(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stacks.write(tmp_path / "root" / "desk")
    out = tmp_path / "out"
    flags = ("--dataset", "stacks", "--data-root", tmp_path / "root", "--output-dir", out)
    assert exit_code(main, "evaluate", *flags, "--no-baselines", "--prior", network, "--quiet") == 0
    rows = list(csv.DictReader((out / "metrics.csv").open(encoding="utf-8")))
    assert {row["model"] for row in rows} == {"physics", f"physics+{network}"}
    facts = json.loads((out / "run.json").read_text(encoding="utf-8"))
    described = facts["checkpoints"][f"physics+{network}"]
    assert described["kind"] == "affine-inverse-depth"
    assert len(described["sha256"]) == 64
    file = tmp_path / "depth.npy"
    write_npy(file, np.ones((3, 4), np.float32))
    again = ("--prior", file, "--prior-kind", "metric-depth", "--quiet")
    assert exit_code(main, "evaluate", *flags, *again) == 2
    assert "a file is the prior of one stack" in capsys.readouterr().err
