"""Checkpoints: round trips are exact to the bit, and errors name the parts that do not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import names
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from hub_server import COMMIT, GATED, Hub, serving
from huggingface_hub import constants
from miniature import TINY, empty_prompt, save_base
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from focaldiffusion.checkpoints.checkpoint import DESCRIPTION, find_checkpoint, load_model
from focaldiffusion.checkpoints.hub import widened_base
from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.checkpoints.saving import save_checkpoint
from focaldiffusion.config.run import Config, ModelConfig
from focaldiffusion.errors import InputError
from focaldiffusion.models.conditioning import FEATURES, HISTOGRAM_BINS, SURROUNDINGS, Proposal
from focaldiffusion.models.denoiser import ALWAYS_TRAINED, ATTENTION_LAYERS

PROVENANCE: dict[str, Any] = {"steps": 3, "data": ["procedural"], "loss": 0.25}


def randomised(model: FocalDiffusionPipeline, layers: tuple[str, ...]) -> FocalDiffusionPipeline:
    """A model as after training: random numbers in these layers, which start as zeros."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for layer in layers:
            for weight in model.denoiser.get_submodule(layer).parameters():
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.02)
    return model


@cache
def trained(name: str) -> FocalDiffusionPipeline:
    model = FocalDiffusionPipeline.from_preset(name)
    return randomised(model, ("conv_out",) if name == "compact" else ALWAYS_TRAINED)


def config_of(**model: Any) -> Config:
    return Config(model=ModelConfig(**model))


def output(model: FocalDiffusionPipeline) -> Tensor:
    """Prediction of the model for a random proposal."""
    generator = torch.Generator().manual_seed(1)

    def rand(channels: int) -> Tensor:
        return torch.rand(1, channels, 32, 64, generator=generator)

    proposal = Proposal(
        *map(rand, (3, 1, len(FEATURES), HISTOGRAM_BINS, SURROUNDINGS, 0, 0)),
    )
    return torch.cat(model.predict(proposal, generator=torch.Generator().manual_seed(2)), 1)


def saved(folder: Path, name: str = "tiny", **settings: Any) -> Path:
    """A checkpoint with all weights of a preset."""
    save_checkpoint(
        trained(name), folder, config_of(preset=name), PROVENANCE, adapter_only=False, **settings
    )
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


def with_adapter(base: Path, **keys: bool) -> FocalDiffusionPipeline:
    """A widened base model with a trained LoRA whose scale differs from PEFT's default."""
    model = widened_base(ModelConfig(base_model_id=str(base), **keys), empty_prompt())
    torch.manual_seed(1)
    model.denoiser.add_adapter(
        LoraConfig(
            r=2, lora_alpha=6, init_lora_weights=False, target_modules=list(ATTENTION_LAYERS)
        )
    )
    return randomised(model, ALWAYS_TRAINED)


def saved_adapter(folder: Path, base: Path, **keys: bool) -> FocalDiffusionPipeline:
    model, config = with_adapter(base, **keys), config_of(base_model_id=str(base), **keys)
    save_checkpoint(model, folder, config, PROVENANCE, adapter_only=True)
    return model


# Round trips


@pytest.mark.parametrize("name", ["tiny", "compact"])
def test_all_weights_come_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "run" / "checkpoints" / "step-3", name)
    loaded = load_model(str(folder))
    assert type(loaded.denoiser) is type(trained(name).denoiser)
    assert torch.equal(output(loaded), output(trained(name)))
    # A copy that was loaded and saved elsewhere does not contain the first path.
    save_checkpoint(
        loaded, tmp_path / "elsewhere", config_of(preset=name), PROVENANCE, adapter_only=False
    )
    for file in (tmp_path / "elsewhere").rglob("*.json"):
        assert str(tmp_path) not in file.read_text()
    assert loaded.name_or_path == str(folder)
    assert not loaded.denoiser.training


def test_an_adapter_comes_back_bit_for_bit(base: Path, tmp_path: Path) -> None:
    model = saved_adapter(tmp_path / "out", base)
    loaded = load_model(str(tmp_path / "out"))
    assert torch.equal(output(loaded), output(model))
    assert loaded.scheduler.config.shift == 2.0
    assert names(tmp_path / "out") == ["adapter", DESCRIPTION, "prompt", "widened.safetensors"]
    # The adapter changes the output of `denoiser`.
    untouched = widened_base(ModelConfig(base_model_id=str(base)), empty_prompt())
    assert not torch.equal(output(randomised(untouched, ALWAYS_TRAINED)), output(model))


def test_an_adapter_works_with_its_base_in_any_folder(base: Path, tmp_path: Path) -> None:
    here = shutil.copytree(base, tmp_path / "base")
    model = saved_adapter(tmp_path / "out", here)
    moved = here.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"base: no such folder. Give the folder of the base"):
        load_model(str(tmp_path / "out"))
    loaded = load_model(str(tmp_path / "out"), base_model=str(moved))
    assert torch.equal(output(loaded), output(model))
    found = find_checkpoint(str(tmp_path / "out"))
    assert found.as_json()["base_model"] == str(here)
    assert found.as_json(base_model=str(moved))["base_model"] == str(moved)


def test_bfloat16_weights_load_as_the_same_values_in_float32(tmp_path: Path) -> None:
    before = {name: one.clone() for name, one in trained("compact").denoiser.state_dict().items()}
    folder = saved(tmp_path / "out", "compact", dtype=torch.bfloat16)
    stored = load_file(folder / "denoiser" / "diffusion_pytorch_model.safetensors")
    assert {one.dtype for one in stored.values()} == {torch.bfloat16}
    loaded = load_model(str(folder)).denoiser.state_dict()
    for name, weight in before.items():
        assert torch.equal(loaded[name], weight.bfloat16().float())
        assert torch.equal(trained("compact").denoiser.state_dict()[name], weight)
    assert load_model(str(folder), dtype=torch.bfloat16).denoiser.dtype == torch.bfloat16


def test_a_checkpoint_records_how_it_was_made(tmp_path: Path) -> None:
    found = find_checkpoint(str(saved(tmp_path / "out", "compact")))
    assert found.description.weights == "full"
    assert found.description.preset == "compact"
    assert found.description.config == config_of(preset="compact")
    said = found.as_json()
    assert said["training"] == PROVENANCE
    assert said["model"]["preset"] == "compact"
    assert said["revision"] is None
    assert said["base_model"] is None
    json.dumps(said, allow_nan=False)


def test_the_digest_covers_only_the_checkpoint(tmp_path: Path) -> None:
    folder = saved(tmp_path / "out")
    digest = find_checkpoint(str(folder)).digest
    (folder / "optimizer.json").write_text("{}")
    assert find_checkpoint(str(folder)).digest == digest
    assert find_checkpoint(str(saved(tmp_path / "again"))).digest == digest
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    assert find_checkpoint(str(folder)).digest != digest


def test_saving_replaces_a_checkpoint_and_keeps_other_files(base: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "out")
    (folder / "notes.txt").write_text("mine")
    model = saved_adapter(folder, base)
    assert names(folder) == ["adapter", DESCRIPTION, "notes.txt", "prompt", "widened.safetensors"]
    assert torch.equal(output(load_model(str(folder))), output(model))


# Parts that do not fit


def set_in(path: Path, keys: tuple[str, ...], value: Any) -> None:
    content = json.loads(path.read_text())
    block = content
    for key in keys[:-1]:
        block = block[key]
    block[keys[-1]] = value
    path.write_text(json.dumps(content))


def change_weights(path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


DENOISER = "denoiser/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda weights: weights.pop("proj_out.bias"),
            r"denoiser: the weights do not fit config.json \(missing proj_out.bias\)",
        ),
        (
            lambda weights: weights.update(more=torch.zeros(1)),
            r"denoiser: the weights do not fit config.json \(unexpected more\)",
        ),
        (
            lambda weights: weights.update({"proj_out.bias": torch.zeros(3)}),
            r"denoiser: .*proj_out.bias",
        ),
    ],
)
def test_weights_that_differ_are_named(
    change: Callable[[dict[str, Tensor]], Any], message: str, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "out")
    change_weights(folder / DENOISER, change)
    with pytest.raises(InputError, match=f"(?s){message}") as error:
        load_model(str(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "widened.safetensors",
            lambda weights: weights.pop("proj_out.bias"),
            r"widened.safetensors: the weights do not fit this model \(missing proj_out.bias",
        ),
        (
            "adapter/adapter_model.safetensors",
            lambda weights: weights.update(more=torch.zeros(1)),
            r"adapter_model.safetensors: the weights do not fit .*\(unexpected more\)",
        ),
    ],
)
def test_weights_of_an_adapter_that_differ_are_named(
    file: str, change: Callable[[dict[str, Tensor]], Any], message: str, base: Path, tmp_path: Path
) -> None:
    saved_adapter(tmp_path / "out", base)
    change_weights(tmp_path / "out" / file, change)
    with pytest.raises(InputError, match=message):
        load_model(str(tmp_path / "out"))


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    saved_adapter(tmp_path / "out", base)
    other = shutil.copytree(base, tmp_path / "other")
    wider = {**TINY.network, "attention_head_dim": 32, "caption_projection_dim": 64}
    channels = TINY.image_channels
    SD3Transformer2DModel(**wider, in_channels=channels, out_channels=channels).save_pretrained(
        other / "transformer"
    )
    with pytest.raises(InputError, match=r"shape of pos_embed.proj.bias \[32\] instead of \[64\]"):
        load_model(str(tmp_path / "out"), base_model=str(other))


def test_a_full_checkpoint_refuses_a_base(tmp_path: Path) -> None:
    folder = saved(tmp_path / "out")
    with pytest.raises(
        InputError, match=r"is a full checkpoint and needs no base model\. Drop --base-model sd"
    ):
        load_model(str(folder), base_model="sd")


@pytest.mark.parametrize(
    ("file", "keys", "value", "message"),
    [
        (DESCRIPTION, ("format",), 2, r"json: format: .*\. It is damaged, or from a newer version"),
        (DESCRIPTION, ("config", "model", "size"), 3, r"config\.model\.size: "),
        (DESCRIPTION, ("weights",), "adapter", "an adapter, but config.model.base_model_id is nu"),
        (DESCRIPTION, ("preset",), "compact", "preset compact, but config.model.preset tiny"),
        ("model_index.json", ("start",), "noise", "model_index.json says start noise, but focaldi"),
        ("denoiser/config.json", ("_class_name",), "FluxTransformer2DModel", "class FluxTransfor"),
        ("denoiser/config.json", ("in_channels",), 7, "denoiser: "),
    ],
)
def test_contradictory_files_are_refused(
    file: str, keys: tuple[str, ...], value: Any, message: str, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "out")
    set_in(folder / file, keys, value)
    with pytest.raises(InputError, match=message) as error:
        load_model(str(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "file", [DESCRIPTION, DENOISER, "denoiser/config.json", "model_index.json"]
)
def test_damaged_files_are_named(file: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "out")
    (folder / file).write_bytes((folder / file).read_bytes()[:100])
    with pytest.raises(InputError, match="out") as error:
        load_model(str(folder))
    assert "\n" not in str(error.value)


def test_a_configuration_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = str(saved(tmp_path / "out"))
    load_model(folder, config=config_of(start="estimate"))
    # A default that the configuration does not set is not a contradiction.
    load_model(folder, config=Config())
    with pytest.raises(InputError, match=r'model.depth_code: the configuration says "inverse", bu'):
        load_model(folder, config=config_of(depth_code="inverse"))


def test_a_given_base_may_differ_from_the_configuration(base: Path, tmp_path: Path) -> None:
    saved_adapter(tmp_path / "out", base)
    config = config_of(base_model_id="stabilityai/stable-diffusion-3.5-medium")
    with pytest.raises(InputError, match=r"model.base_model_id: the configuration says"):
        load_model(str(tmp_path / "out"), config=config)
    load_model(str(tmp_path / "out"), config=config, base_model=str(base))


def test_pickles_are_never_read(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    torch.save(Bomb(), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model.pt: not a folder, .* Pickled weights can run any"):
        load_model(str(tmp_path / "model.pt"))
    with pytest.raises(InputError, match=r"model.pt is pickled: it could run any code, so it is"):
        load_model(str(tmp_path))
    folder = saved(tmp_path / "out")
    (folder / DENOISER).unlink()
    (tmp_path / "model.pt").rename(folder / "denoiser" / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match=r"denoiser: expected config.json and weights in safet"):
        load_model(str(folder))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "compcat",
            r"model 'compcat' is unknown; did you mean compact\? Expected one of physics, c",
        ),
        ("a/b/c", "a/b/c: no such folder. Give the folder of a checkpoint, or a hub id."),
        ("weights.safetensors", "weights.safetensors: not a folder, and single files"),
    ],
)
def test_names_that_are_not_models(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_checkpoint(name, others=["physics"])


# The hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    with serving(monkeypatch, tmp_path) as address:
        yield address


def test_a_hub_checkpoint_is_complete_and_names_its_revision(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "accepted")
    folder = saved(tmp_path / "out")
    (folder / "optimizer.bin").write_bytes(b"not asked for")
    Hub.files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    found = find_checkpoint(GATED)
    assert found.revision == COMMIT
    assert found.digest == find_checkpoint(str(folder)).digest
    assert set(Hub.sent) == set(Hub.files) - {"optimizer.bin"}
    assert torch.equal(output(found.load()), output(trained("tiny")))
    # Once cached, it needs no network.
    nowhere = "http://127.0.0.1:9"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(hub, nowhere)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    assert find_checkpoint(GATED).digest == found.digest


def test_a_hub_base_model_is_not_a_checkpoint(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "accepted")
    with pytest.raises(InputError, match=f"^{GATED}: has no focaldiffusion.json, so it is not a "):
        find_checkpoint(GATED)
    assert Hub.sent == []


def test_an_unavailable_checkpoint_is_explained(hub: str) -> None:
    with pytest.raises(InputError, match=f"^{GATED}: not logged in to the hub"):
        find_checkpoint(GATED)


# Other folders


def test_a_base_model_is_not_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(InputError, match=r"has no focaldiffusion.json, so it is a base model or"):
        find_checkpoint(str(tmp_path))


def test_the_folder_of_a_run_names_its_checkpoints(tmp_path: Path) -> None:
    for name in ("best", "step-000200"):
        folder = tmp_path / "checkpoints" / name
        folder.mkdir(parents=True)
        (folder / "focaldiffusion.json").write_text("{}")
        (folder / "optimizer.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"best, step-000200\. Give one of them: .*step-000200\.$"):
        find_checkpoint(str(tmp_path))


def test_mismatched_configurations_are_not_saved(base: Path, tmp_path: Path) -> None:
    model = trained("tiny")
    for config, adapter_only, message in (
        (config_of(start="noise"), False, "model.start of the configuration is not the pipeline's"),
        (config_of(preset="tiny"), True, "is saved with adapter_only"),
        (config_of(preset="compact"), False, "preset tiny, but config.model.preset compact"),
    ):
        with pytest.raises(ValueError, match=message):
            save_checkpoint(model, tmp_path / "out", config, {}, adapter_only=adapter_only)
    with pytest.raises(ValueError, match=r"an adapter, but config.model.base_model_id is null"):
        save_checkpoint(with_adapter(base), tmp_path / "out", config_of(), {}, adapter_only=True)
    assert names(tmp_path) == []
