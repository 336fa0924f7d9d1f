"""The base model of an adapter: found from any folder, and named where it is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import exit_code, refusal
from fixtures import stacks
from miniature import save_base
from test_checkpoint import PROVENANCE, config_of, output, saved_adapter, with_adapter

from focaldiffusion.checkpoints.checkpoint import find_checkpoint, load_model
from focaldiffusion.checkpoints.hub import TEXT_ENCODERS, is_same_base, resolve_base
from focaldiffusion.checkpoints.saving import save_checkpoint
from focaldiffusion.cli.main import main
from focaldiffusion.config.run import ModelConfig, TrainingConfig
from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.records import RUN, read_records
from focaldiffusion.models.presets import PRESETS
from focaldiffusion.training.model import trainable_model
from script.evaluate import main as script_evaluate


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
    assert err.endswith(
        "--base-model, in training model.base_model_id, takes another folder or id of the same "
        "weights.\n"
    )
    assert not (tmp_path / "results").exists()


def test_the_memory_of_weights_counts_a_base_that_is_here(base: Path, tmp_path: Path) -> None:
    saved_adapter(tmp_path / "out", base)
    found = find_checkpoint(str(tmp_path / "out"))
    loaded = found.load()
    parts = loaded.denoiser, loaded.vae, loaded.prompt
    held = sum(one.numel() for part in parts for one in part.state_dict().values())
    whole = found.weight_bytes(torch.float32)
    alone = found.weight_bytes(torch.float32, base_model="nobody/nothing")
    assert alone < whole
    # The narrow layers of the base, which the adapter replaces, count as well.
    first, last = loaded.denoiser.pos_embed.proj, loaded.denoiser.proj_out
    replaced = sum(one.numel() for layer in (first, last) for one in layer.parameters())
    assert 4 * held <= whole <= 4 * (held + replaced)
    assert found.weight_bytes(torch.bfloat16) == whole // 2


def test_an_evaluation_takes_the_base_from_where_it_lies_now(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = shutil.copytree(base, tmp_path / "base")
    adapter = tmp_path / "adapter"
    saved_adapter(adapter, here)
    rooms = tmp_path / "rooms"
    stacks.write(rooms / "desk")
    config = tmp_path / "rooms.json"
    config.write_text(json.dumps({"data": {"dataset_type": "stacks", "data_root": str(rooms)}}))
    models = ("--model", adapter, "--model", "compact", "--no-baselines", "--quiet")
    protocol = ("evaluate", "--dataset", "stacks", "--data-root", rooms, *models)
    assert exit_code(main, *protocol, "--output-dir", tmp_path / "before") == 0
    expected = [one.metrics for one in read_records(tmp_path / "before")]
    assert len(expected) == 2

    moved = here.rename(tmp_path / "elsewhere")
    error = refusal(capsys, tmp_path / "before", main, *protocol, "--output-dir", tmp_path / "not")
    assert f"{adapter}: its base model cannot be used" in error
    split = ("evaluate", "--config", config, *models, "--base-model", moved)
    original = ("--config", config, "--checkpoint", adapter, "--base_model", moved)
    for name, command, argv in (
        ("dataset", main, (*protocol, "--base-model", moved, "--output-dir")),
        ("config", main, (*split, "--output-dir")),
        ("original", script_evaluate, (*original, "--output_dir")),
    ):
        assert exit_code(command, *argv, tmp_path / name) == 0
        found = {one.model: one.metrics for one in read_records(tmp_path / name)}
        assert found[str(adapter)] == expected[0]
        facts = json.loads((tmp_path / name / RUN).read_text())["checkpoints"]
        assert facts[str(adapter)]["base_model"] == str(moved)
        assert name == "original" or facts["compact"]["base_model"] is None


@pytest.mark.parametrize("model", ["physics", "compact"])
@pytest.mark.parametrize("command", ["evaluate", "submit"])
def test_a_base_model_that_no_model_needs_is_refused(
    command: str, model: str, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("--data-root", "examples", "--model", model, "--base-model", base)
    output = ("--dataset", "examples", "--output-dir") if command == "evaluate" else ("--output",)
    error = refusal(capsys, tmp_path, main, command, *argv, *output, tmp_path / "out.zip")
    assert f"--base-model {base}: no model is an adapter" in error


def test_training_goes_on_from_an_adapter_with_a_copy_of_its_base(
    base: Path, tmp_path: Path
) -> None:
    here, copy = (shutil.copytree(base, tmp_path / name) for name in ("base", "copy"))
    saved_adapter(tmp_path / "adapter", here)
    for weights in here.rglob("*.safetensors"):
        weights.unlink()
    training = TrainingConfig(start_from=str(tmp_path / "adapter"), lora_rank=2)
    trainable_model(ModelConfig(base_model_id=str(copy)), training, "cpu")
    with pytest.raises(InputError, match=r"its base model cannot be used"):
        trainable_model(ModelConfig(base_model_id=str(here)), training, "cpu")


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
