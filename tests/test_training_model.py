"""Which weights move, from which model, and what a run of each kind leaves behind."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from accelerate.state import AcceleratorState
from command_line import names
from miniature import TINY, empty_prompt, save_base
from torch import nn
from training_runs import checkpoint, config_of, losses, state, val_sources, write_stacks

from focaldiffusion.checkpoints.checkpoint import find_checkpoint, load_model
from focaldiffusion.checkpoints.hub import TEXT_ENCODERS
from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.checkpoints.saving import save_checkpoint
from focaldiffusion.config.run import Config, ModelConfig, OptimizerConfig, TrainingConfig
from focaldiffusion.errors import InputError
from focaldiffusion.models.denoiser import ALWAYS_TRAINED, ATTENTION_LAYERS, quantize
from focaldiffusion.training import model as model_module
from focaldiffusion.training.model import Mean, make_optimizer, trainable_model, trained_parameters
from focaldiffusion.training.trainer import train


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stacks(tmp_path_factory.mktemp("stacks"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text-to-image model in miniature, with the text encoders' folders."""
    folder = save_base(tmp_path_factory.mktemp("base"))
    # Which nothing loads where their prompt is known.
    index, *parts = TEXT_ENCODERS
    (folder / index).touch()
    for part in parts:
        (folder / part).mkdir(exist_ok=True)
    return folder


@pytest.fixture
def base(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """That model, whose empty prompt lies in the cache: test_models_prompt.py makes one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    empty_prompt().save_pretrained(model_module._prompt_cache(folder))
    return str(folder)


def moving(base: str, tuning: str, **keys: str) -> set[str]:
    training = TrainingConfig(tuning=tuning, lora_rank=2, **keys)  # type: ignore[arg-type]
    return set(
        trained_parameters(
            trainable_model(ModelConfig(base_model_id=base), training, "cpu").denoiser
        )
    )


def test_every_tuning_moves_its_own_weights(base: str) -> None:
    widened = {f"{layer}.{kind}" for layer in ALWAYS_TRAINED for kind in ("weight", "bias")}
    assert moving(base, "frozen") == widened
    lora = moving(base, "lora")
    assert widened < lora
    adapted = {name.partition(".lora_")[0] for name in lora - widened}
    assert all(name.endswith(ATTENTION_LAYERS) for name in adapted)
    assert any(".attn2." in name for name in adapted)
    attention = moving(base, "attention_only")
    assert widened < attention
    assert {name.rpartition(".")[0] for name in attention - widened} == adapted
    wider = moving(base, "lora", lora_layers="attention_and_feed_forward") - lora
    more = {name.partition(".lora_")[0].partition(".ff")[2] for name in wider}
    assert more == {".net.0.proj", ".net.2", "_context.net.0.proj", "_context.net.2"}
    full = moving(base, "full")
    assert attention < full
    assert any(".ff." in name for name in full)


def test_weights_that_do_not_move_may_be_bfloat16(base: str) -> None:
    training = TrainingConfig(
        tuning="lora", lora_rank=2, base_weights="bfloat16", mixed_precision="bf16"
    )
    network = trainable_model(ModelConfig(base_model_id=base), training, "cpu").denoiser
    dtypes = {one.requires_grad: one.dtype for one in network.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    with pytest.raises(ValueError, match="base_weights bfloat16 with mixed_precision no"):
        TrainingConfig(base_weights="bfloat16")


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_what_a_checkpoint_has_learned_is_not_rounded(
    base: str, tmp_path: Path, tuning: Literal["lora", "full"]
) -> None:
    kept: dict[str, Any] = {"tuning": tuning, "lora_rank": 2, "mixed_precision": "bf16"}
    config = Config(model=ModelConfig(base_model_id=base), training=TrainingConfig(**kept))
    first = trainable_model(config.model, config.training, "cpu")
    generator = torch.Generator().manual_seed(0)
    learned = trained_parameters(first.denoiser)
    for one in learned.values():
        one.data = torch.randn(one.shape, generator=generator)
    save_checkpoint(first, tmp_path / "first", config, {}, adapter_only=tuning == "lora")
    training = TrainingConfig(**kept, base_weights="bfloat16", start_from=str(tmp_path / "first"))
    second = trainable_model(config.model, training, "cpu").denoiser
    found = trained_parameters(second)
    assert found.keys() == learned.keys()
    assert all(torch.equal(found[name], one) for name, one in learned.items())
    frozen = {one.dtype for one in second.parameters() if not one.requires_grad}
    assert frozen == ({torch.bfloat16} if tuning == "lora" else set())


def test_weights_that_do_not_move_may_have_four_bits(base: str) -> None:
    pytest.importorskip("bitsandbytes")
    kept: dict[str, Any] = {"tuning": "lora", "lora_rank": 2, "mixed_precision": "bf16"}
    networks = [
        trainable_model(
            ModelConfig(base_model_id=base, start="noise"),
            TrainingConfig(**kept, base_weights=weights),
            "cpu",
        ).denoiser
        for weights in ("bfloat16", "nf4")
    ]
    moves, quantized = (set(trained_parameters(network)) for network in networks)
    assert moves == quantized
    shapes = {name: one.shape for name, one in networks[0].named_parameters()}
    small = [one for one in networks[1].parameters() if one.dtype == torch.uint8]
    linear = [one for name, one in networks[0].named_parameters() if "base_layer.weight" in name]
    assert len(small) > len(linear) > 0
    name = "transformer_blocks.0.attn.to_q.base_layer.weight"
    assert 2 * networks[1].get_parameter(name).numel() == math.prod(shapes[name])
    # The widened layers keep their weights, and what they are shown comes out much the same.
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "hidden_states": torch.randn(1, networks[0].config.in_channels, 8, 8, generator=generator),
        "encoder_hidden_states": torch.randn(
            1, TINY.prompt_tokens, TINY.prompt_channels, generator=generator
        ),
        "pooled_projections": torch.randn(1, TINY.pooled_prompt_channels, generator=generator),
        "timestep": torch.tensor([500.0]),
        "return_dict": False,
    }
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole, rounded = (network(**inputs)[0].float() for network in networks)
    error = (whole - rounded).square().mean().sqrt() / whole.square().mean().sqrt()
    assert 1e-3 < error < 0.1
    with pytest.raises(ValueError, match="base_weights nf4 with tuning full"):
        TrainingConfig(base_weights="nf4", mixed_precision="bf16", tuning="full")


def test_four_bits_train_on_after_a_validation() -> None:
    pytest.importorskip("bitsandbytes")
    network = nn.Sequential(nn.Linear(128, 64))
    quantize(network)
    gradients = []
    for _ in range(2):
        inputs = torch.ones(1, 128, requires_grad=True)
        network.train()(inputs).sum().backward()
        gradients.append(inputs.grad)
        with torch.no_grad():
            network.eval()(inputs.detach())
    assert gradients[0] is not None
    assert float(gradients[0].abs().min()) > 0
    assert torch.equal(*gradients)


def test_four_bits_need_their_package(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.nn", None)
    training = TrainingConfig(base_weights="nf4", mixed_precision="bf16")
    with pytest.raises(InputError, match="nf4: needs the package bitsandbytes"):
        trainable_model(ModelConfig(base_model_id=base), training, "cpu")


@pytest.fixture
def other_precision() -> Iterator[None]:
    """Accelerate keeps one number format for a process; the test may choose its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("other_precision")
@pytest.mark.parametrize(
    ("start", "weights"), [("estimate", "bfloat16"), ("noise", "bfloat16"), ("estimate", "nf4")]
)
def test_an_adapter_trains_resumes_and_loads(
    start: str, weights: str, base: str, stacks: Path
) -> None:
    if weights == "nf4":
        pytest.importorskip("bitsandbytes")
    changes: dict[str, Any] = {
        "model": {"preset": None, "base_model_id": base, "start": start},
        "data": {"val_sources": val_sources(stacks)},
        "validation": {"num_inference_steps": 1 if start == "estimate" else 2},
    }
    training = {
        "tuning": "lora",
        "lora_rank": 2,
        "lora_alpha": 3,
        "use_ema": True,
        "mixed_precision": "bf16",
        "base_weights": weights,
        "gradient_checkpointing": True,
    }
    run, again = (stacks / f"{name}-{start}-{weights}" for name in ("lora", "again"))
    train(config_of(stacks, run, training=training, **changes))
    assert "adapter" in names(checkpoint(run, 8))
    assert "denoiser" not in names(checkpoint(run, 8))
    assert find_checkpoint(str(checkpoint(run, 8))).description.weights == "adapter"
    loaded = load_model(str(checkpoint(run, 8)), dtype=torch.float32)
    kept = state(run, 8)
    for name, one in loaded.denoiser.named_parameters():
        if f"mean {name}" in kept:
            assert torch.equal(one, kept[f"mean {name}"])
    train(config_of(stacks, again, training=training, **changes), str(checkpoint(run, 6)))
    other = state(again, 8)
    assert all(torch.equal(kept[name], other[name]) for name in kept)


def test_training_goes_on_from_a_checkpoint_with_other_losses(stacks: Path, tmp_path: Path) -> None:
    train(config_of(stacks, tmp_path / "first"))
    first = str(checkpoint(tmp_path / "first", 8))
    start = {"start_from": first, "num_epochs": 1}
    changes = {"losses": {"consistency_weight": 1}, "optimizer": {"type": "sgd"}}
    train(config_of(stacks, tmp_path / "second", training=start, **changes))
    from_it = losses(tmp_path / "second")[0]
    train(config_of(stacks, tmp_path / "third", training={"num_epochs": 1}, **changes))
    assert from_it < losses(tmp_path / "third")[0]
    with pytest.raises(InputError, match=r"model.start: the configuration says .noise., but t"):
        train(config_of(stacks, tmp_path / "x", model={"start": "noise"}, training=start))
    inverse = config_of(stacks, tmp_path / "inverse", model={"depth_code": "inverse"})
    train(inverse)
    other = {**start, "start_from": str(checkpoint(tmp_path / "inverse", 8))}
    with pytest.raises(InputError, match=r"depth_code is log, but .*inverse. Set model.depth_code"):
        train(config_of(stacks, tmp_path / "x", training=other))
    lora = {**start, "tuning": "lora"}
    with pytest.raises(InputError, match=r"tuning lora: .* has all weights. Use full, attention_o"):
        train(config_of(stacks, tmp_path / "x", training=lora))


@pytest.mark.parametrize(
    ("model", "tuning", "message"),
    [
        ({"preset": "tiny"}, "lora", "a preset starts from random weights"),
        ({"preset": "compact"}, "frozen", "a preset starts from random weights"),
        ({"preset": "huge"}, "full", "preset 'huge' is unknown"),
        ({}, "full", "base_model_id is None and preset is None; expected one of the two"),
        ({"preset": "tiny", "base_model_id": "x"}, "full", "expected one of the two"),
        ({"base_model_id": "nowhere/at-all/x"}, "lora", "no such folder"),
    ],
)
def test_models_that_cannot_be_trained_are_named(
    model: dict[str, str], tuning: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        trainable_model(ModelConfig(**model), TrainingConfig(tuning=tuning), "cpu")  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_the_optimiser_is_the_one_that_is_named() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2))]

    def of(kind: str) -> torch.optim.Optimizer:
        config = OptimizerConfig(type=kind, weight_decay=0.1, betas=(0.8, 0.9))  # type: ignore[arg-type]
        return make_optimizer(config, parameters)

    assert type(of("adam")) is torch.optim.Adam
    assert type(of("adamw")) is torch.optim.AdamW
    assert of("adamw").defaults["betas"] == (0.8, 0.9)
    assert of("sgd").defaults["momentum"] == 0.8
    assert {of(kind).defaults["weight_decay"] for kind in ("adam", "adamw", "sgd")} == {0.1}


@pytest.mark.parametrize("kind", ["adamw_8bit", "paged_adamw_8bit"])
def test_a_missing_package_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(InputError, match=f"optimizer.type {kind}: needs the package bitsandbytes"):
        make_optimizer(OptimizerConfig(type=kind), [torch.nn.Parameter(torch.zeros(1))])  # type: ignore[arg-type]


def test_the_mean_forgets_its_start_and_stands_in_for_the_weights() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    mean = Mean({"w": weight}, 0.5)
    expected = 0.0
    for step in (1, 2, 3):
        weight.grad = torch.full((1,), -1.0)
        optimizer.step()
        mean.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    storage = weight.data_ptr()
    with mean.in_place():
        assert weight.item() == pytest.approx(expected)
    assert weight.item() == 3
    assert weight.data_ptr() == storage
    other = Mean({"w": torch.nn.Parameter(torch.zeros(1))}, 0.5)
    other.load(mean.state())
    assert torch.equal(other.state()["w"], mean.state()["w"])


def test_attention_is_chosen(base: str) -> None:
    with pytest.raises(InputError, match="attention 'xformers' needs the package xformers"):
        trainable_model(
            ModelConfig(base_model_id=base), TrainingConfig(attention="xformers"), "cpu"
        )
    full = TrainingConfig(attention="flash", tuning="full")
    with pytest.raises(InputError, match="this model is convolutional and has no attention"):
        trainable_model(ModelConfig(preset="compact"), full, "cpu")


def test_the_autoencoder_has_a_number_format_of_its_own() -> None:
    formats = {"base_weights": "bfloat16", "mixed_precision": "bf16"}
    for chosen, dtype in ((None, torch.bfloat16), ("float32", torch.float32)):
        training = TrainingConfig.model_validate({**formats, "autoencoder_weights": chosen})
        pipeline = model_module.made_trainable(
            FocalDiffusionPipeline.from_preset("tiny"), training, "cpu"
        )
        assert {one.dtype for one in pipeline.vae.parameters()} == {dtype}
        frozen = {one.dtype for one in pipeline.denoiser.parameters() if not one.requires_grad}
        assert frozen == {torch.bfloat16}
        image = torch.zeros(1, 3, 16, 16)
        assert pipeline.codec.encode_image(image).dtype == dtype
