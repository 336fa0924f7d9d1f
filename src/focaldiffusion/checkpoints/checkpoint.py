"""Checkpoints: folders of safetensors and JSON, with all weights or an adapter to a base model.

All weights lie as diffusers saves a pipeline. An adapter has these files:

    adapter/              LoRA of the transformer in the format of PEFT
    widened.safetensors   the layers that are widened, and always train
    prompt/               the empty prompt

Beside either, `focaldiffusion.json` says how the model was made. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import JsonValue, ValidationError, model_validator

from focaldiffusion import __version__
from focaldiffusion.checkpoints.adapter import ADAPTER_FILES, load_adapter, save_adapter
from focaldiffusion.checkpoints.hub import explained, is_hub_id, load_part, resolve_base
from focaldiffusion.config.load import resolved
from focaldiffusion.config.model import ModelConfig
from focaldiffusion.config.run import Config
from focaldiffusion.config.section import Section
from focaldiffusion.errors import InputError, unknown_name
from focaldiffusion.io.digest import sha256_of_files
from focaldiffusion.io.staging import file_errors_named, staging
from focaldiffusion.models.denoiser import network_class, widen
from focaldiffusion.models.presets import PRESETS

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
        FlowMatchEulerDiscreteScheduler,
    )

    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
    from focaldiffusion.models.prompt import EmptyPrompt

DESCRIPTION = "focaldiffusion.json"
"""The file that makes a folder a checkpoint; written last."""

COMPACT = "compact"
"""The model whose weights lie inside the package."""

OF_THE_PIPELINE = ("start", "depth_code")
"""Keys of `ModelConfig` that model_index.json has as well."""

_DENOISER, _PROMPT, _VAE = "denoiser", "prompt", "vae"
_PARTS = ("model_index.json", _DENOISER, _VAE, "scheduler", _PROMPT, *ADAPTER_FILES)
_PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")


class Description(Section):
    """The content of `focaldiffusion.json`."""

    format: Literal[1] = 1
    """Of checkpoints."""
    focaldiffusion: str
    """The version that wrote it."""
    weights: Literal["full", "adapter"]
    """All of them, or those that differ from the base model's."""
    preset: str | None
    """The name of the network's size; null where no preset has it."""
    config: Config
    """The resolved configuration, with the base model, the start and the depth code."""
    provenance: dict[str, JsonValue]
    """How the model was trained: steps, data, commit, hardware, ..."""

    @model_validator(mode="after")
    def _is_of_one_model(self) -> Description:
        model = self.config.model
        if self.weights == "adapter" and model.base_model_id is None:
            raise ValueError("an adapter, but config.model.base_model_id is null")
        if model.preset not in (None, self.preset):
            raise ValueError(f"preset {self.preset}, but config.model.preset {model.preset}")
        return self


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found, not yet loaded.

    Attributes:
        name: as it was given.
        folder: where it lies; for one of the hub, in its cache.
        description: what it says of itself.
    """

    name: str
    folder: Path
    description: Description

    @property
    def revision(self) -> str | None:
        """The commit at the hub; None for a local folder."""
        return self.folder.name if self.folder.parent.name == "snapshots" else None

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the names and the content of its files."""
        return sha256_of_files(_files(self.folder), self.folder)

    def as_json(self, *, base_model: str | None = None) -> dict[str, Any]:
        """What a result made with it should say of it.

        Args:
            base_model: as `load` was given it.
        """
        model = self.description.config.model
        return {
            "name": self.name,
            "revision": self.revision,
            "sha256": self.digest,
            "written_by": self.description.focaldiffusion,
            "weights": self.description.weights,
            "preset": self.description.preset,
            "model": model.model_dump(mode="json"),
            "base_model": (base_model or model.base_model_id)
            if self.description.weights == "adapter"
            else None,
            "training": self.description.provenance,
        }

    def check(self, wanted: ModelConfig, *, base_model: str | None = None) -> None:
        """Check that a configuration is not of another model.

        Args:
            wanted: the keys that it sets are compared; defaults are not.
            base_model: given besides, so that it may differ.

        Raises:
            InputError: a key differs.
        """
        trained = self.description.config.model
        for key in ModelConfig.model_fields:
            asked, has = getattr(wanted, key), getattr(trained, key)
            given = key in wanted.model_fields_set and (
                base_model is None or key != "base_model_id"
            )
            if given and asked != has:
                raise InputError(
                    f"model.{key}: the configuration says {_json(asked)}, but the checkpoint "
                    f"{self.name} was made with {_json(has)}. Leave the configuration out, since "
                    "the checkpoint has its own, or choose the checkpoint that it made."
                )

    def load(
        self,
        *,
        base_model: str | None = None,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> FocalDiffusionPipeline:
        """The model, ready to run.

        Args:
            base_model: folder or hub id of the weights that an adapter belongs to, in place of
                `model.base_model_id`.
            device: where it computes.
            dtype: of all weights; None takes `default_dtype`.

        Raises:
            InputError: weights that are missing, too many or of another shape; a base model that
                cannot be had.
        """
        dtype = dtype or default_dtype(device)
        if self.description.weights == "adapter":
            pipeline = self._load_adapter(base_model, dtype)
        elif base_model is None:
            pipeline = self._load_full(dtype)
        else:
            raise InputError(
                f"{self.name}: has all weights, and reads none of the base model {base_model}. "
                "Leave it out."
            )
        pipeline.register_to_config(_name_or_path=self.name)
        return pipeline.to(device)

    def _load_full(self, dtype: torch.dtype) -> FocalDiffusionPipeline:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
        from focaldiffusion.models.prompt import EmptyPrompt

        try:
            index: Any = FocalDiffusionPipeline.load_config(self.folder, local_files_only=True)
            said = {key: index[key] for key in ("start", "depth_code", "patch_factor", "pooling")}
        except (OSError, KeyError) as error:
            raise InputError(
                f"{self.folder / 'model_index.json'}: is damaged ({error}). Get the checkpoint "
                "again."
            ) from error
        model = self.description.config.model
        for key in OF_THE_PIPELINE:
            if said[key] != getattr(model, key):
                raise InputError(
                    f"{self.folder}: model_index.json says {key} {said[key]}, but {DESCRIPTION} "
                    f"says {getattr(model, key)}. Get the checkpoint again."
                )
        network = network_class(self.folder / _DENOISER)
        has_vae = (self.folder / _VAE).is_dir()
        # Part by part: a pipeline loads its parts leniently, and what it misses stays random.
        return FocalDiffusionPipeline(
            denoiser=load_part(network, self.folder, _DENOISER, dtype=dtype),
            prompt=load_part(EmptyPrompt, self.folder, _PROMPT, dtype=dtype),
            scheduler=_scheduler(self.folder),
            vae=load_part(AutoencoderKL, self.folder, _VAE, dtype=dtype) if has_vae else None,
            **said,
        )

    def _load_adapter(self, base_model: str | None, dtype: torch.dtype) -> FocalDiffusionPipeline:
        from focaldiffusion.models.prompt import EmptyPrompt

        prompt = load_part(EmptyPrompt, self.folder, _PROMPT, dtype=dtype)
        pipeline = widened_base(
            self.description.config.model, prompt, base_model=base_model, dtype=dtype
        )
        load_adapter(pipeline.denoiser, self.folder)
        pipeline.denoiser.to(dtype).eval()
        return pipeline


def default_dtype(device: str) -> torch.dtype:
    """The number format in which a network runs on a device unless told otherwise."""
    return torch.bfloat16 if device.startswith("cuda") else torch.float32


def find_checkpoint(name: str, besides: Iterable[str] = ()) -> Checkpoint:
    """Find a checkpoint and read what it says of itself; its weights are not read yet.

    Args:
        name: "compact", a folder, or an id of the hub.
        besides: names of models without a checkpoint, for the message.

    Raises:
        InputError: there is none; or it is of another program, damaged, or of a newer version.
    """
    folder = _folder_of(name, besides)
    path = folder / DESCRIPTION
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{name}: {_not_a_checkpoint(folder)}") from error
    try:
        description = Description.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{path}: {key + ': ' if key else ''}{first['msg']}. It is damaged, or of a newer "
            f"version than this one, {__version__}."
        ) from error
    return Checkpoint(name, folder, description)


def load_model(
    name_or_path: str,
    *,
    base_model: str | None = None,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    config: Config | None = None,
) -> FocalDiffusionPipeline:
    """Find and load a model.

    Args:
        name_or_path: see `find_checkpoint`.
        base_model: see `Checkpoint.load`.
        device: where it computes.
        dtype: see `Checkpoint.load`.
        config: what it must have been made with; None takes any.

    Raises:
        InputError: see `find_checkpoint`, `Checkpoint.check` and `Checkpoint.load`.
    """
    checkpoint = find_checkpoint(name_or_path)
    if config is not None:
        checkpoint.check(config.model, base_model=base_model)
    return checkpoint.load(base_model=base_model, device=device, dtype=dtype)


def save_checkpoint(
    pipeline: FocalDiffusionPipeline,
    directory: Path,
    config: Config,
    provenance: Mapping[str, JsonValue],
    *,
    adapter_only: bool,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model to a folder: complete, or not at all.

    Args:
        pipeline: the model. Its denoiser has one LoRA adapter if `adapter_only`, else none.
        directory: to make, or to replace a checkpoint in.
        config: that made it.
        provenance: how it was trained.
        adapter_only: write what differs from `config.model.base_model_id`, not all weights.
        dtype: of the stored weights; None stores them as they are.

    Raises:
        InputError: the folder cannot be written.
        ValueError: the configuration or the adapter is not of this model.
    """
    for key in OF_THE_PIPELINE:
        if getattr(config.model, key) != pipeline.config[key]:
            raise ValueError(f"model.{key} of the configuration is not the pipeline's")
    if adapter_only != bool(getattr(pipeline.denoiser, "peft_config", None)):
        raise ValueError("a denoiser with an adapter, and no other, is saved with adapter_only")
    description = Description(
        focaldiffusion=__version__,
        weights="adapter" if adapter_only else "full",
        preset=_preset_of(pipeline),
        config=config,
        provenance=dict(provenance),
    )
    content = {**description.model_dump(mode="json"), "config": resolved(config)}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with file_errors_named(directory), staging(directory, (*_PARTS, DESCRIPTION)) as partial:
        if adapter_only:
            save_adapter(pipeline.denoiser, partial)
            pipeline.prompt.save_pretrained(partial / _PROMPT)
        else:
            pipeline.save_pretrained(partial)
        _forget_paths(partial)
        if dtype is not None:
            _cast(partial, dtype)
        (partial / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


def widened_base(
    model: ModelConfig,
    prompt: EmptyPrompt,
    *,
    base_model: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> FocalDiffusionPipeline:
    """What training starts from: a Stable Diffusion 3.5 model, widened.

    Args:
        model: with a `base_model_id`.
        prompt: the empty prompt of that model.
        base_model: folder or hub id in place of `base_model_id`.
        dtype: of all weights.

    Raises:
        InputError: the base model cannot be had, or is of another kind.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
    from focaldiffusion.models.codecs import VAECodec
    from focaldiffusion.models.conditioning import condition_channels

    base_model = base_model or model.base_model_id
    if base_model is None:
        raise ValueError("model.base_model_id is None: there is nothing to widen")
    folder = resolve_base(base_model, variant=model.variant)
    vae = load_part(AutoencoderKL, folder, "vae", model.variant, dtype)
    codec = VAECodec(vae)
    transformer = widen(
        load_part(SD3Transformer2DModel, folder, "transformer", model.variant, dtype),
        codec.channels + codec.depth_channels,
        codec.channels + condition_channels(codec.factor, "extremes"),
        model.start,
    )
    return FocalDiffusionPipeline(
        transformer,
        prompt,
        _scheduler(folder),
        vae,
        start=model.start,
        depth_code=model.depth_code,
    )


def _scheduler(folder: Path) -> FlowMatchEulerDiscreteScheduler:
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
        FlowMatchEulerDiscreteScheduler,
    )

    try:
        return FlowMatchEulerDiscreteScheduler.from_pretrained(
            folder, subfolder="scheduler", local_files_only=True
        )
    except OSError as error:
        raise InputError(
            f"{folder / 'scheduler'}: cannot be read ({error}). Get the folder again."
        ) from error


def _folder_of(name: str, besides: Iterable[str]) -> Path:
    if name == COMPACT:
        folder = Path(str(files("focaldiffusion"))) / "weights" / COMPACT
        if not folder.is_dir():
            raise InputError(
                f"model {COMPACT}: this version ships no compact weights (they would lie in "
                f"{folder}). Use physics, or give the folder of a checkpoint."
            )
        return folder
    path = Path(name)
    if path.is_dir():
        return path
    if path.is_file() or path.suffix in (*_PICKLES, ".safetensors"):
        raise InputError(
            f"{name}: is no folder, and single files of weights are not read: a checkpoint is a "
            "folder of safetensors and JSON. Pickled weights can run any code when they are "
            "loaded, so they never are."
        )
    if is_hub_id(name):
        return _downloaded(name)
    if len(path.parts) > 1:
        raise InputError(f"{name}: no such folder. Give the folder of a checkpoint, or a hub id.")
    raise InputError(
        f"model {name!r} {unknown_name(name, [*besides, COMPACT])} Others are named by the folder "
        "of a checkpoint, or by an id of the hub, owner/name."
    )


def _downloaded(name: str) -> Path:
    """The folder of a checkpoint in the cache of the hub."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with explained(name):
        try:
            # First alone: another program's model may be large.
            description = Path(hf_hub_download(name, DESCRIPTION))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError as error:
            raise InputError(
                f"{name}: has no {DESCRIPTION}, so it is no checkpoint of this program. A base "
                "model is trained first."
            ) from error
        return Path(
            snapshot_download(
                name,
                revision=description.parent.name,
                allow_patterns=["*.json", "*.safetensors"],
            )
        )


def _not_a_checkpoint(folder: Path) -> str:
    """Why a folder without a description is none, in a sentence."""
    if inside := sorted(folder.glob(f"checkpoints/*/{DESCRIPTION}")):
        names = ", ".join(path.parent.name for path in inside)
        return (
            f"is the folder of a run, with the checkpoints {names}. Give one of them: "
            f"{inside[-1].parent}."
        )
    if pickled := sorted(path.name for path in folder.rglob("*") if path.suffix in _PICKLES):
        return (
            f"has no {DESCRIPTION}, and {pickled[0]} is pickled, which could run any code and is "
            "never read. Give a folder of safetensors and JSON that this program wrote."
        )
    if (folder / "model_index.json").is_file():
        return (
            f"has no {DESCRIPTION}, so it is a base model or one of another program. Train it "
            "first, or give an adapter to it."
        )
    return f"has no {DESCRIPTION}, so it is no checkpoint. Give the folder of one."


def _preset_of(pipeline: FocalDiffusionPipeline) -> str | None:
    """The name of the preset that a model has the network and the codec of."""
    config = pipeline.denoiser.config
    for name, preset in PRESETS.items():
        # As JSON, tuples and lists are the same.
        same = all(_json(config.get(key)) == _json(value) for key, value in preset.network.items())
        if same and pipeline.config["patch_factor"] == preset.patch_factor:
            return name
    return None


def _files(folder: Path) -> Iterator[Path]:
    """The files of a checkpoint, sorted; what else lies in its folder is not of it."""
    for part in sorted((*_PARTS, DESCRIPTION)):
        path = folder / part
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (
            one for one in inside if one.suffix in (".json", ".safetensors") and one.is_file()
        )


def _forget_paths(folder: Path) -> None:
    """Take out of all files where on this machine their part was loaded from."""
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _cast(folder: Path, dtype: torch.dtype) -> None:
    """Store the weights of all files below a folder in another format of floating numbers."""
    from safetensors.torch import load_file, save_file

    for path in folder.rglob("*.safetensors"):
        weights = {
            name: weight.to(dtype) if weight.is_floating_point() else weight
            for name, weight in load_file(path).items()
        }
        save_file(weights, path, metadata={"format": "pt"})


def _json(value: object) -> str:
    return json.dumps(value)
