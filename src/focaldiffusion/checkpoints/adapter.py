"""The trained part of a widened transformer: a LoRA adapter and the widened layers.

The adapter is a folder in PEFT's format. The layers of `ALWAYS_TRAINED` are stored beside it: if
PEFT saved them as its own modules, other programs could not load the adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from focaldiffusion.errors import InputError
from focaldiffusion.io.reading import read_json, reading
from focaldiffusion.models.denoiser import ALWAYS_TRAINED

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

_ADAPTER, _WIDENED = "adapter", "widened.safetensors"
ADAPTER_FILES = (_ADAPTER, _WIDENED)
"""Names that `save_adapter` writes."""

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."  # PEFT wraps a model twice before naming its layers


def save_adapter(transformer: SD3Transformer2DModel, folder: Path) -> None:
    """Write the only adapter of a transformer, and its widened layers, to an existing folder."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    ((name, adapter),) = transformer.peft_config.items()
    # It holds lora_alpha, which state dicts lack: without it, adapters reload at another scale.
    adapter.save_pretrained(folder / _ADAPTER)
    state = get_peft_model_state_dict(transformer, adapter_name=name)
    named = {f"{_PREFIX}{key}": weight.contiguous() for key, weight in state.items()}
    save_file(named, folder / _ADAPTER / _WEIGHTS, metadata={"format": "pt"})
    save_file(_widened(transformer), folder / _WIDENED, metadata={"format": "pt"})


def load_adapter(transformer: SD3Transformer2DModel, folder: Path) -> None:
    """Attach an adapter from `save_adapter` to a transformer that was widened in the same way.

    Raises:
        InputError: a file is missing, or the weights belong to another transformer.
    """
    from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict

    # PEFT would look for a missing file on the hub.
    if not (folder / _ADAPTER / _CONFIG).is_file():
        raise InputError(f"{folder / _ADAPTER}: has no {_CONFIG}. Get the checkpoint again.")
    widened = _read(folder / _WIDENED)
    _check_same(widened, _widened(transformer), folder / _WIDENED)
    transformer.load_state_dict(widened, strict=False)
    weights = folder / _ADAPTER / _WEIGHTS
    state = {key.removeprefix(_PREFIX): weight for key, weight in _read(weights).items()}
    config = folder / _ADAPTER / _CONFIG
    read_json(config, "cannot be read", "Get the checkpoint again.")
    with reading(config, "fits no adapter", "Get the checkpoint again."):
        transformer.add_adapter(LoraConfig.from_pretrained(str(folder / _ADAPTER)))
    _check_same(state, get_peft_model_state_dict(transformer), weights)
    set_peft_model_state_dict(transformer, state)


def _widened(transformer: SD3Transformer2DModel) -> dict[str, Tensor]:
    """Weights of the widened layers, by their names in the transformer."""
    return {
        f"{layer}.{name}": weight
        for layer in ALWAYS_TRAINED
        for name, weight in transformer.get_submodule(layer).state_dict().items()
    }


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    with reading(path, "cannot be read", "Get the checkpoint again."):
        weights = load_file(path)
        for name, weight in weights.items():
            if not bool(weight.isfinite().all()):
                raise ValueError(f"{name} is not finite everywhere")
    return weights


def _check_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Check the names and shapes of weights.

    Raises:
        InputError: they differ; the message names the first three of each kind.
    """
    shapes = [
        f"{name} {list(found[name].shape)} instead of {list(expected[name].shape)}"
        for name in sorted(expected.keys() & found.keys())
        if found[name].shape != expected[name].shape
    ]
    differences = {
        "missing": sorted(expected.keys() - found.keys()),
        "unexpected": sorted(found.keys() - expected.keys()),
        "shape of": shapes,
    }
    found_wrong = [f"{kind} {', '.join(names[:3])}" for kind, names in differences.items() if names]
    if found_wrong:
        raise InputError(
            f"{path}: the weights do not fit this model ({'; '.join(found_wrong)}). Get the "
            "checkpoint again, or give the base model that it was trained on."
        )
