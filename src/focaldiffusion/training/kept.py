"""Examples that are made once and kept, so that later epochs need not read their stacks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from focaldiffusion.config.run import Config
from focaldiffusion.data.batch import of_one_size
from focaldiffusion.data.cache import join_files
from focaldiffusion.data.mixture import Draw, Mixture
from focaldiffusion.errors import InputError
from focaldiffusion.io.reading import reading
from focaldiffusion.io.staging import claimed, file_errors_named, write_whole
from focaldiffusion.models.conditioning import FEATURES, WIDE_MAPS, Proposal
from focaldiffusion.models.surface_code import SurfaceCode
from focaldiffusion.models.surroundings import SURROUNDINGS
from focaldiffusion.training.examples import Examples, Grid, Shown, Truth

_INDEX = "examples.json"
_FORMAT = 5
_PNG_OFFSET = 2**15  # makes signed codes unsigned, neighbours included


class _Kept(NamedTuple):
    """Number format of kept maps: whole numbers are (value + offset) * steps, rounded."""

    dtype: torch.dtype
    steps: float = 1.0
    offset: float = 0.0


_FROM_0_TO_1 = _Kept(torch.uint8, 255)
_SIGNED = _Kept(torch.int8, 127)
_FINE = _Kept(torch.int16, 32767)
_HALF, _MASK = _Kept(torch.float16), _Kept(torch.bool)
_TRUE_IMAGE = "true_image"
_IN_PIXELS = {
    "all_in_focus": _SIGNED,
    "depth_code": _HALF,
    "features": _SIGNED,
    "histogram": _FROM_0_TO_1,
    "surroundings": _SIGNED,
    "prior": _HALF,
    "wide": _HALF,
    _TRUE_IMAGE: _SIGNED,
    "true_depth_code": _HALF,
    "valid": _MASK,
}
"""Formats of the maps of a `Proposal` and its truth."""
_ON_GRID = {
    "all_in_focus": _Kept(torch.uint8, 127.5, 1),
    "depth_code": _FINE,
    "maps": _HALF,
    _TRUE_IMAGE: _Kept(torch.uint8, 127.5, 1),
    "true_depth_code": _FINE,
    "valid": _MASK,
}
"""Formats of those of a `Shown`; its planes of pixels lie in the file as PNG."""


@dataclass(frozen=True)
class KeptExamples:
    """A folder with a file for each finished example of a mixture.

    Attributes:
        directory: of the files.
        draws: number of draws of each sample that are kept; later ones are those again.
        grid: of the network; None where the maps keep their pixels.
    """

    directory: Path
    draws: int
    grid: Grid | None

    @classmethod
    def open(cls, config: Config, mixture: Mixture, grid: Grid | None) -> KeptExamples | None:
        """The folder of a configuration, created if it is missing; None without one.

        Args:
            config: of the run.
            mixture: whose examples are kept.
            grid: of the network.

        Raises:
            InputError: it holds examples of other sources or for another network.
        """
        if config.training.examples_dir is None:
            return None
        directory = Path(config.training.examples_dir)
        wanted = {
            "format": _FORMAT,
            "grid": None if grid is None else asdict(grid),
            "depth_code": config.model.depth_code,
            "with_image": config.model.with_image,
            **config.model.shown,
            "channels": [*FEATURES, SURROUNDINGS, WIDE_MAPS],
            "seed": mixture.seed,
            # Without the place of the data, which may differ from machine to machine.
            "sources": [
                {**source.model_dump(mode="json", exclude={"data_root"}), "samples": len(used)}
                for source, used in zip(mixture.sources, mixture.used, strict=True)
            ],
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
        return cls(directory, config.training.draws_per_sample, grid)

    @staticmethod
    def lie_in(directory: Path) -> bool:
        """Whether a folder is one of examples."""
        return (directory / _INDEX).exists()

    @staticmethod
    def joined(parts: Sequence[Path], directory: Path) -> None:
        """Join the folders that several machines have filled, see `join_files`.

        Raises:
            InputError: a folder without examples, or with those of another run.
        """
        texts = []
        for part in parts:
            with reading(part / _INDEX, "is not the index of examples", "Correct the path."):
                texts.append((part / _INDEX).read_text(encoding="utf-8"))
            if texts[-1] != texts[0]:
                raise InputError(f"{part}: holds other examples than {parts[0]}. Leave it out.")
        with file_errors_named(directory):
            directory.mkdir(parents=True, exist_ok=True)
            with claimed(directory):
                if not (directory / _INDEX).exists():
                    write_whole(directory / _INDEX, texts[0].encode())
                if (directory / _INDEX).read_text(encoding="utf-8") != texts[0]:
                    raise InputError(f"{directory}: holds other examples. Choose another folder.")
                for part in parts:
                    join_files(part, directory)

    def has(self, draw: Draw) -> bool:
        """Whether the example of a draw is there."""
        return self._path(draw).exists()

    def find(self, draws: Sequence[Draw]) -> list[tuple[Sequence[Draw], Examples]] | None:
        """The examples of some draws, size by size, still `packed`; None if one is missing.

        Raises:
            InputError: a file is damaged.
        """
        if not all(map(self.has, draws)):
            return None
        found = [_read(self._path(draw), self.grid is not None) for draw in draws]
        return [
            ([draws[index] for index in group], Examples.batched([found[index] for index in group]))
            for group in of_one_size([one.truth.size for one in found])
        ]

    def read(self, draws: Sequence[Draw]) -> Examples:
        """The examples of some draws, still `packed`.

        Raises:
            InputError: a file is missing or damaged.
        """
        return Examples.batched([_read(self._path(draw), self.grid is not None) for draw in draws])

    def add(self, draws: Sequence[Draw], examples: Examples) -> Examples:
        """Keep the missing ones, without frames.

        A sample keeps the variations of its first draws: a killed run that goes on repeats some
        that are kept already.

        Returns:
            All examples of the draws, as they are kept, still `packed`.

        Raises:
            InputError: a file is damaged or cannot be written.
        """
        small = packed(self._reduced(examples))
        for index, draw in enumerate(draws):
            path = self._path(draw)
            if not path.exists():
                with file_errors_named(self.directory):
                    write_whole(path, _file_of(small, index))
        return self.read(draws).to(small.truth.valid.device)

    def _reduced(self, examples: Examples) -> Examples:
        if self.grid is None or isinstance(examples.proposal, Shown):
            return examples
        return Examples(Shown.on_grid(examples.proposal, self.grid), examples.truth)

    def _path(self, draw: Draw) -> Path:
        turn = draw.round % self.draws
        return self.directory / f"{draw.source}-{draw.sample:07d}-{turn}.safetensors"


def packed(examples: Examples) -> Examples:
    """Examples in a fifth of the memory, with 8 or 16 bits for each number.

    They can be moved and cut into patches before `unpacked`.
    """

    def small(kept: _Kept, maps: Tensor) -> Tensor:
        if kept.dtype.is_floating_point or kept.dtype == torch.bool:
            return maps.to(kept.dtype)
        return ((maps + kept.offset) * kept.steps).round().to(kept.dtype)

    return _changed(examples, small)


def unpacked(examples: Examples) -> Examples:
    """Undo `packed`, to within half a step."""
    return _changed(
        examples,
        lambda kept, maps: (
            maps if kept.dtype == torch.bool else maps.float().div_(kept.steps).sub_(kept.offset)
        ),
    )


def _changed(examples: Examples, change: Callable[[_Kept, Tensor], Tensor]) -> Examples:
    formats = _formats(examples.proposal)
    maps = {name: change(formats[name], one) for name, one in _maps_of(examples).items()}
    return _with_maps(type(examples.proposal), examples.truth, maps)


def _formats(proposal: Proposal | Shown) -> dict[str, _Kept]:
    return _ON_GRID if isinstance(proposal, Shown) else _IN_PIXELS


def _maps_of(examples: Examples) -> dict[str, Tensor]:
    truth = examples.truth
    true = {_TRUE_IMAGE: truth.image, "true_depth_code": truth.depth_code, "valid": truth.valid}
    return {**vars(examples.proposal), **true}


def _with_maps(
    kind: type[Proposal] | type[Shown], truth: Truth, maps: Mapping[str, Tensor]
) -> Examples:
    """Examples of these maps, and of the rest of a truth."""
    proposal = kind(**{field.name: maps[field.name] for field in fields(kind)})
    image, depth_code, valid = maps[_TRUE_IMAGE], maps["true_depth_code"], maps["valid"]
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
    if isinstance(examples.proposal, Shown):
        if not notes["has_image"]:
            del maps[_TRUE_IMAGE]  # it is that of the proposal
        maps = {name: one if name == "maps" else _as_png(one) for name, one in maps.items()}
    return save(maps, metadata={"notes": json.dumps(notes)})


def _as_png(plane: Tensor) -> Tensor:
    """The bytes of a PNG of a plane (C, H, W) of bool, uint8 or int16."""
    codes = plane.permute(1, 2, 0).contiguous().numpy()
    if codes.dtype == np.int16:
        codes = codes.view(np.uint16) + np.uint16(_PNG_OFFSET)
    done, data = cv2.imencode(".png", codes.astype(np.uint8) if codes.dtype == bool else codes)
    assert done
    return torch.from_numpy(data)


def _of_png(data: Tensor, dtype: torch.dtype) -> Tensor:
    codes = cv2.imdecode(data.numpy(), cv2.IMREAD_UNCHANGED)
    if codes is None:
        raise ValueError("a PNG in it is damaged")
    if dtype == torch.int16:
        codes = (codes - np.uint16(_PNG_OFFSET)).view(np.int16)
    plane = torch.from_numpy(codes).to(dtype)
    return plane[None] if plane.ndim == 2 else plane.permute(2, 0, 1).contiguous()


def _read(path: Path, on_grid: bool) -> Examples:
    from safetensors import SafetensorError, safe_open

    formats = _ON_GRID if on_grid else _IN_PIXELS
    try:
        with safe_open(path, framework="pt") as file:
            notes = json.loads(file.metadata()["notes"])
            maps = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if on_grid:
            maps = {
                name: one if name == "maps" else _of_png(one, formats[name].dtype)
                for name, one in maps.items()
            }
            maps.setdefault(_TRUE_IMAGE, maps["all_in_focus"])
        maps = {name: maps[name][None] for name in formats}
        truth = Truth(
            maps[_TRUE_IMAGE],
            torch.tensor([notes["has_image"]]),
            maps["true_depth_code"],
            maps["valid"],
            (SurfaceCode(**notes["code"]),),
            (),
            (notes["blur_scale_px_m"],),
            (notes["source"],),
        )
        return _with_maps(Shown if on_grid else Proposal, truth, maps)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, cv2.error) as error:
        raise InputError(f"{path}: is damaged ({error}). Remove it.") from error
