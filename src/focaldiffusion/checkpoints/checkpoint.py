"""Checkpoints: folders of safetensors and JSON, with all weights or an adapter to a base model.

A full checkpoint is a pipeline as diffusers saves it. An adapter has these files:

    adapter/              LoRA of the transformer in PEFT's format
    widened.safetensors   the widened layers, which are always trained
    prompt/               the empty prompt

In both, `focaldiffusion.json` records how the model was made. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field, JsonValue, TypeAdapter, ValidationError, model_validator
from torch import nn

from focaldiffusion import __version__
from focaldiffusion.checkpoints.adapter import ADAPTER_FILES, load_adapter
from focaldiffusion.checkpoints.hub import (
    explained,
    is_hub_id,
    is_same_base,
    load_part,
    load_scheduler,
    weights_here,
    widened_base,
)
from focaldiffusion.config.run import Config, ModelConfig
from focaldiffusion.config.section import Section
from focaldiffusion.devices import AUTO, resolve_device
from focaldiffusion.errors import InputError, unknown_name
from focaldiffusion.files import ABSENT, check_file, why_not_file
from focaldiffusion.io.reading import read_json, reading, reason
from focaldiffusion.io.staging import sha256_of, sha256_of_files
from focaldiffusion.io.weight_files import count_weights
from focaldiffusion.models.denoiser import network_class
from focaldiffusion.models.presets import PRESETS

if TYPE_CHECKING:
    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline

DESCRIPTION = "focaldiffusion.json"
"""File that makes a folder a checkpoint; written last."""

COMPACT = "compact"
"""The model whose weights are bundled with the package."""

OF_THE_PIPELINE = ("start", "depth_code", "timestep", "with_prior", "with_wide", "depth_in_pixels")
"""Keys of `ModelConfig` that model_index.json has too."""

PROMPT = "prompt"
_PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
_DENOISER, _VAE = "denoiser", "vae"
_PATCH_FACTOR = TypeAdapter(Annotated[int | None, Field(ge=1, le=256, strict=True)])
PARTS = ("model_index.json", _DENOISER, _VAE, "scheduler", PROMPT, *ADAPTER_FILES)
"""Files and folders of a checkpoint, apart from its description."""


class Description(Section):
    """The content of `focaldiffusion.json`."""

    format: Literal[1] = 1
    """Version of the checkpoint format."""
    focaldiffusion: str
    """Version that wrote it."""
    weights: Literal["full", "adapter"]
    """All weights, or those that differ from the base model's."""
    preset: str | None
    """Preset of the network's size; null if it matches none."""
    config: Config
    """Resolved configuration, with the base model, the start and the depth code."""
    sha256: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each file of weights, by its path in the folder; older checkpoints have none."""
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
    """A checkpoint that was found but not yet loaded.

    Attributes:
        name: name as given.
        folder: its folder; for a hub checkpoint, the one in the cache.
        description: content of its `focaldiffusion.json`.
    """

    name: str
    folder: Path
    description: Description

    @property
    def revision(self) -> str | None:
        """Commit on the hub; None for a local folder."""
        return self.folder.name if self.folder.parent.name == "snapshots" else None

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the names and contents of its files."""
        return sha256_of_files(_files(self.folder), self.folder)

    def as_json(self, *, base_model: str | None = None) -> dict[str, Any]:
        """Description of the checkpoint for the provenance of results.

        Args:
            base_model: `base_model` that was given to `load`.
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

    def weight_bytes(self, dtype: torch.dtype, *, base_model: str | None = None) -> int:
        """Memory that its weights take once loaded, with those of a base model that is here.

        Args:
            dtype: number format of all weights.
            base_model: see `load`.

        Raises:
            InputError: a file is damaged.
        """
        files = [path for path in _files(self.folder) if path.suffix == ".safetensors"]
        if self.description.weights == "adapter":
            model = self.description.config.model
            files += weights_here(base_model or model.base_model_id, model.variant)
        return dtype.itemsize * count_weights(files)

    def check(self, wanted: ModelConfig, *, base_model: str | None = None) -> None:
        """Check that a configuration does not describe another model.

        Args:
            wanted: configuration whose explicitly set keys are compared; defaults are not. A base
                model agrees with any folder or id of the same one.
            base_model: given base model; if set, `base_model_id` may differ.

        Raises:
            InputError: a key differs.
        """
        trained = self.description.config.model
        for key in ModelConfig.model_fields:
            asked, has = getattr(wanted, key), getattr(trained, key)
            given = key in wanted.model_fields_set and (
                base_model is None or key != "base_model_id"
            )
            if given and asked != has and not (key == "base_model_id" and self._is_base(asked)):
                raise InputError(
                    f"model.{key}: the configuration says {_json(asked)}, but the checkpoint "
                    f"{self.name} was made with {_json(has)}. Drop the configuration, since the "
                    "checkpoint has its own, or choose the checkpoint that it made."
                )

    def _is_base(self, name: str | None) -> bool:
        """Whether a folder or hub id names the base model that this was made from."""
        made_from = self.description.config.model.base_model_id
        ids = filter(None, (made_from, self._hub_id))
        return name is not None and any(is_same_base(name, one) for one in ids)

    @property
    def _hub_id(self) -> str | None:
        """Hub id of the base model of its size; None if there is none."""
        preset = PRESETS.get(self.description.preset or "")
        return None if preset is None else preset.base_model_id

    def load(
        self,
        *,
        base_model: str | None = None,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> FocalDiffusionPipeline:
        """The model, ready to run.

        Args:
            base_model: folder or hub id of the weights that an adapter belongs to, instead of
                `model.base_model_id`.
            device: torch device.
            dtype: number format of all weights; None takes `default_dtype`.

        Raises:
            InputError: weights are missing, unexpected or of another shape; the base model is
                unavailable.
        """
        dtype = dtype or default_dtype(device)
        if self.description.weights == "adapter":
            pipeline = self._load_adapter(base_model, dtype)
        elif base_model is None:
            pipeline = self._load_full(dtype)
        else:
            raise InputError(
                f"{self.name}: is a full checkpoint and needs no base model. Drop --base-model "
                f"{base_model}."
            )
        # Last: it says less of a file that does not fit than loading does.
        self._check_digests()
        pipeline.register_to_config(_name_or_path=self.name)
        pipeline.has_image_half = self.description.config.model.with_image
        pipeline.origin = partial(self.as_json, base_model=base_model)
        return pipeline.to(device)

    def _check_digests(self) -> None:
        """Refuse weights whose SHA-256 is not the recorded one."""
        for name, digest in self.description.sha256.items():
            path = self.folder / name
            with reading(path, "is damaged", "Get the checkpoint again."):
                if sha256_of(path) != digest:
                    raise ValueError(f"its SHA-256 is not that of {DESCRIPTION}")

    def _load_full(self, dtype: torch.dtype) -> FocalDiffusionPipeline:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
        from focaldiffusion.models.prompt import EmptyPrompt

        path = self.folder / "model_index.json"
        index = read_json(path, "is damaged", "Get the checkpoint again.")
        with reading(path, "is damaged", "Get the checkpoint again."):
            # Older files lack two keys, and diffusers gives them the same defaults.
            newer = {key: getattr(ModelConfig(), key) for key in OF_THE_PIPELINE[2:]}
            said = {key: (newer | index)[key] for key in (*OF_THE_PIPELINE, "patch_factor")}
            said["patch_factor"] = _PATCH_FACTOR.validate_python(said["patch_factor"])
        model = self.description.config.model
        for key in OF_THE_PIPELINE:
            if said[key] != getattr(model, key):
                raise InputError(
                    f"{self.folder}: model_index.json says {key} {said[key]}, but {DESCRIPTION} "
                    f"says {getattr(model, key)}. Get the checkpoint again."
                )
        network = network_class(self.folder / _DENOISER)
        has_vae = (self.folder / _VAE).is_dir()
        # Part by part: a pipeline loads its parts leniently and leaves missing weights random.
        return FocalDiffusionPipeline(
            denoiser=load_part(network, self.folder, _DENOISER, dtype=dtype),
            prompt=load_part(EmptyPrompt, self.folder, PROMPT, dtype=dtype),
            scheduler=load_scheduler(self.folder),
            vae=load_part(AutoencoderKL, self.folder, _VAE, dtype=dtype) if has_vae else None,
            **said,
        )

    def _load_adapter(self, base_model: str | None, dtype: torch.dtype) -> FocalDiffusionPipeline:
        from focaldiffusion.models.prompt import EmptyPrompt

        prompt = load_part(EmptyPrompt, self.folder, PROMPT, dtype=dtype)
        try:
            pipeline = widened_base(
                self.description.config.model, prompt, base_model=base_model, dtype=dtype
            )
        except InputError as error:
            known = f", such as {self._hub_id}" if self._hub_id else ""
            raise InputError(
                f"{self.name}: its base model cannot be used: {error} --base-model, in training "
                f"model.base_model_id, takes another folder or id of the same weights{known}."
            ) from error
        load_adapter(pipeline.denoiser, self.folder)
        # The method of diffusers warns about layers to keep in float32, although it has none.
        nn.Module.to(pipeline.denoiser, dtype).eval()
        return pipeline


def default_dtype(device: str) -> torch.dtype:
    """Default number format of a network on a device."""
    return torch.bfloat16 if device.startswith("cuda") else torch.float32


def _json(value: object) -> str:
    return json.dumps(value)


def _files(folder: Path) -> Iterator[Path]:
    """The files of a checkpoint, sorted; other files in its folder do not belong to it."""
    for part in sorted((*PARTS, DESCRIPTION)):
        path = folder / part
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (
            one for one in inside if one.suffix in (".json", ".safetensors") and one.is_file()
        )


def find_checkpoint(name: str, others: Iterable[str] = ()) -> Checkpoint:
    """Find a checkpoint and read its description, but not its weights.

    Args:
        name: "compact", a folder, or a hub id.
        others: names of models without a checkpoint, for the error message.

    Raises:
        InputError: the checkpoint does not exist, is damaged, or comes from another program or a
            newer version.
    """
    folder = _folder_of(name, others)
    path = folder / DESCRIPTION
    _check_parts(folder)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{name}: {_not_a_checkpoint(folder)}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error, path)}).") from error
    try:
        description = Description.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{path}: {key + ': ' if key else ''}{first['msg']}. It is damaged, or from a newer "
            f"version than this one, {__version__}."
        ) from error
    return Checkpoint(name, folder, description)


def _check_parts(folder: Path) -> None:
    """Refuse links to nothing and what is not a regular file, before a library waits for it."""
    for part in (DESCRIPTION, *PARTS):
        for path in (folder / part, *(folder / part).rglob("*")):
            if why_not_file(path) not in (None, ABSENT) and not path.is_dir():
                check_file(path)


def load_model(
    name_or_path: str | PathLike[str],
    *,
    base_model: str | None = None,
    device: str = AUTO,
    dtype: torch.dtype | None = None,
    config: Config | None = None,
) -> FocalDiffusionPipeline:
    """Find and load a model.

    Args:
        name_or_path: see `find_checkpoint`.
        base_model: see `Checkpoint.load`.
        device: torch device; "auto" picks the fastest available.
        dtype: see `Checkpoint.load`.
        config: configuration that the model must match; None accepts any.

    Raises:
        InputError: see `find_checkpoint`, `Checkpoint.check` and `Checkpoint.load`.
    """
    checkpoint = find_checkpoint(str(name_or_path))
    if config is not None:
        checkpoint.check(config.model, base_model=base_model)
    return checkpoint.load(base_model=base_model, device=resolve_device(device), dtype=dtype)


def _folder_of(name: str, others: Iterable[str]) -> Path:
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
            f"{name}: not a folder, and single files of weights are not read: a checkpoint is a "
            "folder of safetensors and JSON. Pickled weights can run any code on loading, so they "
            "are never loaded."
        )
    if is_hub_id(name):
        return _downloaded(name)
    if len(path.parts) > 1:
        raise InputError(f"{name}: no such folder. Give the folder of a checkpoint, or a hub id.")
    raise InputError(
        f"model {name!r} {unknown_name(name, [*others, COMPACT])} Other models are named by the "
        "folder of a checkpoint, or by their hub id, owner/name."
    )


def _downloaded(name: str) -> Path:
    """Folder of a hub checkpoint in the local cache, downloaded if missing."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with explained(name):
        try:
            # The description first: another program's model may be large.
            description = Path(hf_hub_download(name, DESCRIPTION))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError as error:
            raise InputError(
                f"{name}: has no {DESCRIPTION}, so it is not a checkpoint of this program. A base "
                "model must be trained first."
            ) from error
        return Path(
            snapshot_download(
                name,
                revision=description.parent.name,
                allow_patterns=["*.json", "*.safetensors"],
            )
        )


def _not_a_checkpoint(folder: Path) -> str:
    """Why a folder without a description is not a checkpoint, as a sentence without its subject."""
    if inside := sorted(folder.glob(f"checkpoints/*/{DESCRIPTION}")):
        names = ", ".join(path.parent.name for path in inside)
        return (
            f"is the folder of a run, with the checkpoints {names}. Give one of them: "
            f"{inside[-1].parent}."
        )
    if pickled := sorted(path.name for path in folder.rglob("*") if path.suffix in _PICKLES):
        return (
            f"has no {DESCRIPTION}, and {pickled[0]} is pickled: it could run any code, so it is "
            "never read. Give a folder of safetensors and JSON that this program wrote."
        )
    if (folder / "model_index.json").is_file():
        return (
            f"has no {DESCRIPTION}, so it is a base model or another program's model. Train it "
            "first, or give an adapter for it."
        )
    return f"has no {DESCRIPTION}, so it is not a checkpoint. Give the folder of a checkpoint."
