"""The base model of an adapter: found from any folder, and named where it is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import exit_code
from miniature import save_base
from test_checkpoint import PROVENANCE, config_of, output, saved_adapter, with_adapter

from focaldiffusion.checkpoints.checkpoint import find_checkpoint, load_model
from focaldiffusion.checkpoints.hub import TEXT_ENCODERS, is_same_base, resolve_base
from focaldiffusion.checkpoints.saving import save_checkpoint
from focaldiffusion.cli.main import main
from focaldiffusion.config.run import ModelConfig, TrainingConfig
from focaldiffusion.errors import InputError
from focaldiffusion.models.presets import PRESETS
from focaldiffusion.training.model import trainable_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


def test_a_relative_base_is_found_from_any_folder(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base.parent)
    model = with_adapter(Path(base.name))
    config = config_of(base_model_id=base.name)
    save_checkpoint(model, tmp_path / "out", config, PROVENANCE, adapter_only=True)
    monkeypatch.chdir(tmp_path)
    stored = find_checkpoint("out").description.config.model.base_model_id
    assert stored == str(base.resolve())
    assert torch.equal(output(load_model("out")), output(model))


def test_a_base_that_is_gone_is_named_with_its_checkpoint_and_the_flag(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = shutil.copytree(base, tmp_path / "base")
    saved_adapter(tmp_path / "out", gone)
    shutil.rmtree(gone)
    stack = "examples/still_life/stack"
    argv = ("infer", stack, "--model", tmp_path / "out", "--output", tmp_path / "results")
    assert exit_code(main, *argv) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {tmp_path / 'out'}: its base model cannot be used: {gone}: no s")
    assert err.endswith("--base-model takes another folder or id of the same weights.\n")
    assert not (tmp_path / "results").exists()


def test_a_folder_of_the_same_base_agrees_with_a_configuration(base: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(base, tmp_path / "copy")
    saved_adapter(tmp_path / "out", base)
    load_model(str(tmp_path / "out"), config=config_of(base_model_id=str(copy)))
    (copy / "transformer" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"model\.base_model_id: the configuration says"):
        load_model(str(tmp_path / "out"), config=config_of(base_model_id=str(copy)))


def test_a_folder_with_the_configuration_of_a_hub_model_is_that_model(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "transformer"
    folder.mkdir(parents=True)
    medium = dict(PRESETS["sd35-medium"].network)
    (folder / "config.json").write_text(json.dumps({**medium, "_class_name": "any"}))
    here = str(tmp_path / "mine")
    assert is_same_base("stabilityai/stable-diffusion-3.5-medium", here)
    assert not is_same_base("stabilityai/stable-diffusion-3.5-large", here)


def test_a_base_without_its_index_is_one_sentence(base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "base")
    for part in TEXT_ENCODERS[1:]:
        (folder / part).mkdir(exist_ok=True)
    with pytest.raises(InputError, match=r"base: has no model_index\.json; expected Stable Diff"):
        resolve_base(str(folder), TEXT_ENCODERS)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_configuration_of_the_base_is_one_sentence(
    base: Path, tmp_path: Path, content: str
) -> None:
    folder = shutil.copytree(base, tmp_path / "base")
    for part in TEXT_ENCODERS:
        (folder / part).mkdir(exist_ok=True)
    path = tmp_path / "base" / "transformer" / "config.json"
    path.write_text(content)
    model = ModelConfig(base_model_id=str(tmp_path / "base"))
    with pytest.raises(InputError, match=r"config\.json: is damaged"):
        trainable_model(model, TrainingConfig(), "cpu", prompt_of_zeros=True)
