"""Examples that are made once and kept, so that later epochs need not read their stacks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from focaldiffusion.config.run import Config
from focaldiffusion.data.batch import of_one_size
from focaldiffusion.data.mixture import Draw, Mixture
from focaldiffusion.errors import InputError
from focaldiffusion.io.staging import file_errors_named, write_whole
from focaldiffusion.models.conditioning import FEATURES, Proposal
from focaldiffusion.models.surface_code import SurfaceCode
from focaldiffusion.models.surroundings import SURROUNDINGS
from focaldiffusion.training.examples import Examples, Truth

_INDEX = "examples.json"
_FORMAT = 2

_STEPS: dict[torch.dtype, float] = {torch.uint8: 255.0, torch.int8: 127.0}
"""Steps from 0 to 1: unsigned for values in [0, 1], signed for values in [-1, 1]."""
_KEPT_AS: dict[str, torch.dtype] = {
    "all_in_focus": torch.int8,
    "depth_code": torch.float16,
    "features": torch.int8,
    "histogram": torch.uint8,
    "surroundings": torch.int8,
    "true_image": torch.int8,
    "true_depth_code": torch.float16,
    "valid": torch.bool,
}


@dataclass(frozen=True)
class KeptExamples:
    """A folder with a file for each finished example of a mixture."""

    directory: Path

    @classmethod
    def open(cls, config: Config, mixture: Mixture) -> KeptExamples | None:
        """The folder of a configuration, created if it is missing; None without one.

        Raises:
            InputError: it holds examples of other sources or another code.
        """
        if config.training.examples_dir is None:
            return None
        directory = Path(config.training.examples_dir)
        wanted = {
            "format": _FORMAT,
            "depth_code": config.model.depth_code,
            "channels": [*FEATURES, SURROUNDINGS],
            "seed": mixture.seed,
            "sources": [source.model_dump(mode="json") for source in mixture.sources],
        }
        path = directory / _INDEX
        with file_errors_named(directory):
            directory.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                write_whole(path, (json.dumps(wanted, indent=1) + "\n").encode())
            try:
                there = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise InputError(f"{path}: is damaged ({error}). Remove the folder.") from error
        different = [key for key, value in wanted.items() if there.get(key) != value]
        if different:
            raise InputError(
                f"training.examples_dir: {directory} holds examples with other {different[0]}. "
                "Choose another folder, or remove this one."
            )
        return cls(directory)

    def find(self, draws: Sequence[Draw]) -> list[tuple[Sequence[Draw], Examples]] | None:
        """The examples of some draws, size by size, still `packed`; None if one is missing.

        Raises:
            InputError: a file is damaged.
        """
        if not all(self._path(draw).exists() for draw in draws):
            return None
        found = [_read(self._path(draw)) for draw in draws]
        return [
            ([draws[index] for index in group], Examples.batched([found[index] for index in group]))
            for group in of_one_size([one.truth.size for one in found])
        ]

    def read(self, draws: Sequence[Draw]) -> Examples:
        """The examples of some draws, still `packed`.

        Raises:
            InputError: a file is missing or damaged.
        """
        return Examples.batched([_read(self._path(draw)) for draw in draws])

    def add(self, draws: Sequence[Draw], examples: Examples) -> Examples:
        """Keep the missing ones, without frames.

        A sample keeps the variation of its first draw: a killed run that goes on repeats draws,
        some of them kept already.

        Returns:
            All examples of the draws, as they are kept, still `packed`.

        Raises:
            InputError: a file is damaged or cannot be written.
        """
        small = packed(examples)
        for index, draw in enumerate(draws):
            path = self._path(draw)
            if not path.exists():
                with file_errors_named(self.directory):
                    write_whole(path, _file_of(small, index))
        return self.read(draws).to(small.truth.valid.device)

    def _path(self, draw: Draw) -> Path:
        return self.directory / f"{draw.source}-{draw.sample:07d}.safetensors"


def packed(examples: Examples) -> Examples:
    """Examples in a fifth of the memory, with 8 or 16 bits for each number.

    They can be moved and cut into patches before `unpacked`.
    """

    def small(name: str, maps: Tensor) -> Tensor:
        kind = _KEPT_AS[name]
        return (maps * _STEPS[kind]).round().to(kind) if kind in _STEPS else maps.to(kind)

    return _changed(examples, small)


def unpacked(examples: Examples) -> Examples:
    """Undo `packed`, to within half a step."""
    return _changed(
        examples,
        lambda name, maps: (
            maps.float().div_(_STEPS.get(_KEPT_AS[name], 1.0)) if maps.dtype != torch.bool else maps
        ),
    )


def _changed(examples: Examples, change: Callable[[str, Tensor], Tensor]) -> Examples:
    maps = {name: change(name, one) for name, one in _maps_of(examples).items()}
    return _with_maps(examples.truth, maps)


def _maps_of(examples: Examples) -> dict[str, Tensor]:
    truth = examples.truth
    proposal = {field.name: getattr(examples.proposal, field.name) for field in fields(Proposal)}
    true = {"true_image": truth.image, "true_depth_code": truth.depth_code, "valid": truth.valid}
    return proposal | true


def _with_maps(truth: Truth, maps: Mapping[str, Tensor]) -> Examples:
    """Examples of these maps, and of the rest of a truth."""
    proposal = Proposal(**{field.name: maps[field.name] for field in fields(Proposal)})
    image, depth_code, valid = maps["true_image"], maps["true_depth_code"], maps["valid"]
    return Examples(proposal, replace(truth, image=image, depth_code=depth_code, valid=valid))


def _file_of(examples: Examples, index: int) -> bytes:
    """The file content for one of packed examples."""
    from safetensors.torch import save

    truth = examples.truth
    notes = {
        "has_image": bool(truth.has_image[index]),
        "code": asdict(truth.codes[index]),
        "blur_scale_px_m": truth.blur_scales_px_m[index],
        "source": truth.sources[index],
    }
    maps = {name: one[index].cpu().contiguous() for name, one in _maps_of(examples).items()}
    return save(maps, metadata={"notes": json.dumps(notes)})


def _read(path: Path) -> Examples:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            notes = json.loads(file.metadata()["notes"])
            maps = {name: file.get_tensor(name)[None] for name in _KEPT_AS}
        truth = Truth(
            maps["true_image"],
            torch.tensor([notes["has_image"]]),
            maps["true_depth_code"],
            maps["valid"],
            (SurfaceCode(**notes["code"]),),
            (),
            (notes["blur_scale_px_m"],),
            (notes["source"],),
        )
        return _with_maps(truth, maps)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is damaged ({error}). Remove it.") from error
