"""Priors by name: a file, the folder of a depth network, or its id on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from focaldiffusion.checkpoints.checkpoint import DESCRIPTION
from focaldiffusion.checkpoints.hub import explained, is_hub_id
from focaldiffusion.devices import AUTO, resolve_device
from focaldiffusion.errors import InputError
from focaldiffusion.io.staging import sha256_of_files
from focaldiffusion.io.weight_files import count_weights
from focaldiffusion.prior import PriorKind, PriorSource
from focaldiffusion.priors import marigold, transformer
from focaldiffusion.priors.given import FILE_SUFFIXES, GivenPrior, read_prior
from focaldiffusion.priors.scales import scale_of_marigold, scale_of_transformer, settled

EXAMPLE = "depth-anything/Depth-Anything-V2-Small-hf"
"""A usual network, for messages."""

_BYTES_PER_WEIGHT = 4  # networks run in float32


@dataclass(frozen=True)
class FoundNetwork:
    """A depth network whose description is here; its weights may still be on the hub.

    Attributes:
        name: folder or hub id, as given.
        folder: local folder with its description.
        kind: the scale that it speaks.
        is_marigold: whether it belongs to diffusers, not to transformers.
    """

    name: str
    folder: Path
    kind: PriorKind
    is_marigold: bool

    def fetch(self) -> None:
        """Download the weights of a network on the hub, if missing.

        Raises:
            InputError: the hub cannot be reached, or has no weights in safetensors.
        """
        if Path(self.name).is_dir():
            return
        wanted, unwanted = [*transformer.DESCRIPTIONS, *transformer.WEIGHTS], list[str]()
        if self.is_marigold:
            wanted, unwanted = marigold.weights_of(marigold.read_index(self.name, self.folder))
        _download(self.name, wanted, unwanted, revision=self.folder.name)
        # Without a network the client is content with what it has.
        if not any(self.folder.rglob("*.safetensors")):
            raise InputError(
                f"{self.name}: the weights are not downloaded in full, and the hub cannot be "
                "reached, or none in safetensors exist. Check the network, or give another model."
            )

    def as_json(self) -> dict[str, str]:
        """Description for the provenance of results: name, kind, and digest of the files."""
        ends = (".json", ".safetensors")
        files = sorted(path for path in self.folder.rglob("*") if path.suffix in ends)
        digest = sha256_of_files(files, self.folder)
        return {"name": self.name, "kind": str(self.kind), "sha256": digest}

    @property
    def weight_bytes(self) -> int:
        """Memory that its weights take once loaded.

        Raises:
            InputError: a file is damaged.
        """
        return _BYTES_PER_WEIGHT * count_weights(sorted(self.folder.rglob("*.safetensors")))

    def load(self, device: str) -> PriorSource:
        """The network on a device, its weights downloaded if missing.

        Raises:
            InputError: the hub cannot be reached, or the files are no such network.
        """
        self.fetch()
        kind = marigold.MarigoldNetwork if self.is_marigold else transformer.TransformerNetwork
        return kind.load(self.name, self.folder, self.kind, device)


def find_prior(name: str, kind: PriorKind | None = None) -> FoundNetwork | GivenPrior:
    """Find a prior, and the scale that it speaks. Of a network on the hub only its description is
    downloaded.

    Args:
        name: a file, a folder, or a hub id, owner/name.
        kind: see `settled`; files need it.

    Raises:
        InputError: no such prior, its scale is unknown, or the hub cannot be reached.
    """
    path = Path(name)
    if path.suffix.lower() in FILE_SUFFIXES and not path.is_dir():
        return read_prior(path, kind)
    folder = path if path.is_dir() else _described(name)
    if (folder / marigold.INDEX).is_file():
        scale, is_marigold = scale_of_marigold(marigold.read_index(name, folder)), True
    elif (folder / transformer.CONFIG).is_file():
        scale, is_marigold = scale_of_transformer(transformer.read_config(name, folder)), False
    else:
        raise InputError(f"{name}: {_not_a_network(folder)}")
    return FoundNetwork(name, folder, settled(name, scale, kind), is_marigold)


def load_prior(
    name_or_path: str | PathLike[str], *, kind: str | None = None, device: str = AUTO
) -> PriorSource:
    """Find and load a prior for `reconstruct`.

    Args:
        name_or_path: a file, the folder of a depth network, or its id on the Hugging Face hub.
        kind: "metric-depth", "affine-depth" or "affine-inverse-depth"; None takes the scale that
            the network's configuration states. Files need it.
        device: torch device; "auto" picks the fastest available.

    Raises:
        InputError: no such prior, its scale is unknown, or the hub cannot be reached.
    """
    found = find_prior(str(name_or_path), None if kind is None else PriorKind.of(kind))
    return found if isinstance(found, GivenPrior) else found.load(resolve_device(device))


def _described(name: str) -> Path:
    """Local folder with the description of a network on the hub."""
    if not is_hub_id(name):
        raise InputError(
            f"{name}: no such file or folder, and not an id on the hub, owner/name, such as "
            f"{EXAMPLE}. Files are {', '.join(FILE_SUFFIXES)}."
        )
    return _download(name, [marigold.INDEX, *transformer.DESCRIPTIONS])


def _download(
    name: str, wanted: Sequence[str], unwanted: Sequence[str] = (), revision: str | None = None
) -> Path:
    from huggingface_hub import snapshot_download

    with explained(name):
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(wanted),
            ignore_patterns=list(unwanted) or None,
        )
    return Path(folder)


def _not_a_network(folder: Path) -> str:
    """Why a folder is not that of a depth network, as a sentence without its subject."""
    if (folder / DESCRIPTION).is_file():
        return "is a checkpoint of this program. Give it to --model (model= in Python)."
    return (
        f"holds no {transformer.CONFIG} of transformers and no {marigold.INDEX} of diffusers, so "
        f"it is not a depth network in their layout. Give one that is, such as {EXAMPLE}."
    )
