"""The widened transformer: starts as the base or as nothing, and stays a diffusers model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from conftest import TOLERANCE
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from peft import LoraConfig
from torch import Tensor, nn

from focaldiffusion.errors import InputError
from focaldiffusion.models.denoiser import (
    ALWAYS_TRAINED,
    ATTENTION_LAYERS,
    _DispatchedAttention,
    build,
    use_attention,
    widen,
)
from focaldiffusion.models.flow import Start
from focaldiffusion.models.presets import PRESETS

TINY = PRESETS["tiny"]


@pytest.fixture
def base() -> SD3Transformer2DModel:
    torch.manual_seed(0)
    return SD3Transformer2DModel(
        **TINY.network, in_channels=TINY.image_channels, out_channels=TINY.image_channels
    ).eval()


@pytest.fixture
def wide() -> SD3Transformer2DModel:
    """A wide transformer whose output is not zero."""
    torch.manual_seed(0)
    return build(TINY, "noise").eval()


def widened(base: SD3Transformer2DModel, start: Start) -> SD3Transformer2DModel:
    return widen(copy.deepcopy(base), TINY.state_channels, TINY.condition_channels, start)


def inputs(batch: int = 2, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator).to(dtype)

    return {
        "hidden_states": normal(TINY.state_channels + TINY.condition_channels, 10, 6),
        "encoder_hidden_states": normal(TINY.prompt_tokens, TINY.network["joint_attention_dim"]),
        "pooled_projections": normal(TINY.network["pooled_projection_dim"]),
        "timestep": torch.linspace(300.5, 1000, batch),
    }


def velocity(model: SD3Transformer2DModel, given: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**given).sample


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_untrained_with_noise_it_is_the_base_bit_for_bit(
    base: SD3Transformer2DModel, dtype: torch.dtype
) -> None:
    base = base.to(dtype)
    given = inputs(dtype=dtype)
    image = given["hidden_states"][:, : TINY.image_channels]
    expected = velocity(base, {**given, "hidden_states": image})
    got = velocity(widened(base, "noise"), given)
    assert expected.abs().amax() > 0.1
    assert torch.equal(got[:, : TINY.image_channels], expected)
    assert got[:, TINY.image_channels :].eq(0).all(), "the depth half"


def test_untrained_with_estimate_nothing_moves(base: SD3Transformer2DModel) -> None:
    assert velocity(widened(base, "estimate"), inputs()).eq(0).all()
    assert velocity(build(TINY, "estimate"), inputs()).eq(0).all()


def test_depth_and_conditioning_are_read_once_trained(base: SD3Transformer2DModel) -> None:
    """Channel by channel: a change of each input reaches each output after one step of training.

    Random inputs, because the layer norm erases constants.
    """
    model = widened(base, "noise")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    given = inputs()
    for _ in range(2):
        optimizer.zero_grad()
        (model(**given).sample - 1).square().mean().backward()
        optimizer.step()
    before = velocity(model, given)
    for channel in range(given["hidden_states"].shape[1]):
        changed = given["hidden_states"].clone()
        changed[:, channel] += torch.randn(10, 6)
        moved = velocity(model, {**given, "hidden_states": changed}) - before
        assert moved.abs().amax((0, 2, 3)).gt(0).all(), f"input channel {channel}"


def test_with_all_else_frozen_the_always_trained_layers_learn(base: SD3Transformer2DModel) -> None:
    model = widened(base, "estimate").requires_grad_(False)
    layers = {name: model.get_submodule(name).requires_grad_(True) for name in ALWAYS_TRAINED}
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    gradients = []
    for _ in range(2):
        optimizer.zero_grad()
        (model(**inputs()).sample - 1).square().mean().backward()
        gradients.append({name: layer.weight.grad.norm() for name, layer in layers.items()})
        optimizer.step()
    at_first, then = gradients
    assert at_first["pos_embed.proj"] == 0
    assert at_first["proj_out"] > 0
    assert then["pos_embed.proj"] > 0


def test_saved_and_loaded_it_is_the_same(base: SD3Transformer2DModel, tmp_path: Path) -> None:
    model = widened(base, "noise")
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    loaded, report = SD3Transformer2DModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert loaded.config["in_channels"] == TINY.state_channels + TINY.condition_channels
    assert loaded.config["out_channels"] == TINY.state_channels
    assert torch.equal(velocity(loaded, inputs()), velocity(model, inputs()))


def test_a_model_that_is_wide_already_is_no_base(base: SD3Transformer2DModel) -> None:
    model = widened(base, "noise")
    channels = TINY.state_channels + TINY.condition_channels
    with pytest.raises(InputError, match=f"has {channels} input and 8 output channels"):
        widen(model, TINY.state_channels, TINY.condition_channels, "noise")


def test_adapters_are_on_every_projection_of_every_attention(wide: SD3Transformer2DModel) -> None:
    expected = {
        name
        for name, module in wide.named_modules()
        if isinstance(module, nn.Linear) and (".attn." in name or ".attn2." in name)
    }
    wide.add_adapter(LoraConfig(r=2, target_modules=list(ATTENTION_LAYERS)))
    adapted = {name for name, module in wide.named_modules() if hasattr(module, "lora_A")}
    assert adapted == expected
    assert any(".attn2." in name for name in adapted)


def test_a_batch_equals_its_samples(wide: SD3Transformer2DModel) -> None:
    given = inputs(batch=3)
    together = velocity(wide, given)
    for index in range(3):
        one = {name: value[index : index + 1] for name, value in given.items()}
        torch.testing.assert_close(
            velocity(wide, one)[0], together[index], **TOLERANCE[torch.float32]
        )


def test_bfloat16_is_near_float32(wide: SD3Transformer2DModel) -> None:
    expected = velocity(wide, inputs())
    got = velocity(wide.bfloat16(), inputs(dtype=torch.bfloat16))
    assert got.dtype == torch.bfloat16
    error = (got.float() - expected).norm() / expected.norm()
    assert error < TOLERANCE[torch.bfloat16]["rtol"]


def checkpointed(model: SD3Transformer2DModel) -> None:
    model.enable_gradient_checkpointing()


def dispatched(model: SD3Transformer2DModel) -> None:
    use_attention(model, "native")


@pytest.mark.parametrize("change", [checkpointed, dispatched])
def test_output_and_gradients_stay_bit_for_bit(
    wide: SD3Transformer2DModel, change: Callable[[SD3Transformer2DModel], None]
) -> None:
    def output_and_gradients() -> list[Tensor]:
        wide.zero_grad()
        output = wide(**inputs()).sample
        output.square().mean().backward()
        return [output.detach(), *(p.grad.clone() for p in wide.parameters() if p.grad is not None)]

    expected = output_and_gradients()
    change(wide)
    got = output_and_gradients()
    assert len(got) == len(expected)
    assert all(map(torch.equal, got, expected))


def test_the_chosen_backend_computes_attention(wide: SD3Transformer2DModel) -> None:
    """The name reaches the dispatcher; with torch's own kernels, since the packages are missing."""
    expected = velocity(wide, inputs())
    wide.set_attn_processor(_DispatchedAttention("_native_math"))  # type: ignore[arg-type]
    torch.testing.assert_close(velocity(wide, inputs()), expected, **TOLERANCE[torch.float32])
    wide.set_attn_processor(_DispatchedAttention("nobody"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'nobody' is not a valid AttentionBackendName"):
        velocity(wide, inputs())


@pytest.mark.parametrize(
    ("backend", "package", "module"),
    [("flash", "flash-attn", "flash_attn"), ("xformers", "xformers", "xformers")],
)
def test_a_missing_attention_package_is_named(
    wide: SD3Transformer2DModel, backend: str, package: str, module: str
) -> None:
    if find_spec(module):
        pytest.skip(f"{package} is installed")
    with pytest.raises(InputError, match=f"(?s){backend}.*`pip install {package}`, or use native"):
        use_attention(wide, backend)  # type: ignore[arg-type]
    velocity(wide, inputs())


def test_a_convolutional_network_has_no_backends() -> None:
    with pytest.raises(InputError, match="this model is convolutional and has no attention"):
        use_attention(build(PRESETS["compact"], "noise"), "native")  # type: ignore[arg-type]


def test_an_unknown_attention_backend_is_refused(wide: SD3Transformer2DModel) -> None:
    with pytest.raises(InputError, match="'flahs' is unknown; expected native, flash, xformers"):
        use_attention(wide, "flahs")  # type: ignore[arg-type]
