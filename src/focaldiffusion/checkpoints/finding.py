"""Finding checkpoints: the bundled one, a folder, or an id on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError

from focaldiffusion import __version__
from focaldiffusion.checkpoints.checkpoint import DESCRIPTION, Checkpoint, Description
from focaldiffusion.checkpoints.hub import explained, is_hub_id
from focaldiffusion.config.run import Config
from focaldiffusion.devices import AUTO, resolve_device
from focaldiffusion.errors import InputError, unknown_name

if TYPE_CHECKING:
    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline

COMPACT = "compact"
"""The model whose weights are bundled with the package."""

_PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")


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
            f"{path}: {key + ': ' if key else ''}{first['msg']}. It is damaged, or from a newer "
            f"version than this one, {__version__}."
        ) from error
    return Checkpoint(name, folder, description)


def load_model(
    name_or_path: str,
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
    checkpoint = find_checkpoint(name_or_path)
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
