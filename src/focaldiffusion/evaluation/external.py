"""Other tools: export of stacks for them, and import of their predictions.

    DIR/SAMPLE/depth.npy            float, metres along the optical axis, NaN where unknown
    DIR/SAMPLE/depth_mm.png         the same in 16-bit millimetres, 0 where unknown
    DIR/SAMPLE/all_in_focus.png     8 or 16 bit sRGB
    DIR/SAMPLE/confidence.npy       larger is more certain; or confidence.png, grey
    DIR/SAMPLE.npy                  depth alone

All have the size of the frames: nothing is resized here, because enlarging a depth map is part of
the tool's work. If both formats exist, the .npy counts. `focaldiffusion infer` writes these names
too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.prediction import Prediction
from focaldiffusion.io.depth_files import read_depth_mm, read_npy, write_npy
from focaldiffusion.io.images import read_image
from focaldiffusion.io.png import write_png
from focaldiffusion.io.sidecar import SIDECAR_NAME
from focaldiffusion.io.simulated import write_stack
from focaldiffusion.io.staging import file_errors_named, sha256_of_files, staging
from focaldiffusion.stack import FocalStack


def sample_folder(directory: Path, sample: str) -> Path:
    """Folder of a sample inside a directory; the parts of its name are nested folders.

    Raises:
        InputError: the name leads outside the directory.
    """
    folder = directory / sample
    if ".." in Path(sample).parts or not folder.is_relative_to(directory):
        raise InputError(
            f"sample {sample!r} does not name a folder inside {directory}. Give it a relative name "
            "in its file list."
        )
    return folder


def export_stack(stack: FocalStack, directory: Path, sample: str) -> None:
    """Write a stack for another tool to DIR/SAMPLE: 16-bit sRGB frames and `stack.json`.

    A stack holds no ground truth, so none can leak.

    Raises:
        InputError: the folder already exists, or cannot be written.
    """
    folder = sample_folder(directory, sample)
    if folder.exists():
        raise InputError(f"{folder}: already exists. Choose another folder for the stacks.")
    with (
        file_errors_named(directory),
        staging(folder.parent, (folder.name,), replace=False) as partial,
    ):
        write_stack(partial / folder.name, stack, bit_depth=16, note=_note(sample))


def is_exported(directory: Path, sample: str) -> bool:
    """Whether an earlier, interrupted export has already written a stack; whole if at all.

    Raises:
        InputError: see `sample_folder`.
    """
    path = sample_folder(directory, sample) / SIDECAR_NAME
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["note"] == _note(sample))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _note(sample: str) -> dict[str, str]:
    return {"sample": sample}


def write_prediction(prediction: Prediction, directory: Path, sample: str) -> None:
    """Write a prediction to DIR/SAMPLE as `Predictions` reads it, replacing an earlier one.

    Depth and confidence are exact; the image is rounded to 16 bits.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = sample_folder(directory, sample)
    arrays = {"depth.npy": prediction.depth_m, "confidence.npy": prediction.confidence}
    with (
        file_errors_named(directory),
        staging(folder, (*arrays, "all_in_focus.png")) as partial,
    ):
        for name, values in arrays.items():
            if values is not None:
                write_npy(partial / name, values.detach().cpu().numpy())
        if prediction.all_in_focus is not None:
            image = prediction.all_in_focus.detach().cpu().permute(1, 2, 0).numpy()
            write_png(partial / "all_in_focus.png", image, bit_depth=16)


class Predictions:
    """A model whose predictions already exist in a folder, see above."""

    def __init__(self, directory: Path) -> None:
        """Open the predictions in `directory`; the model is named after it.

        Raises:
            InputError: the folder does not exist.
        """
        if not directory.is_dir():
            raise InputError(f"{directory}: no such folder; expected predictions, one per sample.")
        self.name = directory.resolve().name
        self._directory = directory

    def predict(self, stack: FocalStack, sample: str) -> Prediction:
        """See `Model`.

        Raises:
            InputError: the sample has no prediction, or a file does not match its frames.
        """
        depth_m, all_in_focus, confidence = (
            _read(stack.size, readers) for readers in self._readers(sample)
        )
        found = Prediction(depth_m, all_in_focus, confidence)
        if found.depth_m is None and found.all_in_focus is None:
            folder = sample_folder(self._directory, sample)
            raise InputError(
                f"{folder}: no prediction for this sample; expected depth.npy, depth_mm.png or "
                f"all_in_focus.png in it, or {folder.name}.npy beside it."
            )
        return found

    def digest(self, sample: str) -> str:
        """SHA-256 of the files that `predict` reads; changes with their content."""
        files = (_first_file(of) for of in self._readers(sample))
        return sha256_of_files(filter(None, files), self._directory)

    def _readers(self, sample: str) -> tuple[dict[Path, Callable[[Path], Tensor]], ...]:
        """Readers by possible file of depth, image and confidence, preferred files first."""
        folder = sample_folder(self._directory, sample)
        return (
            {
                folder / "depth.npy": read_npy,
                folder.with_name(f"{folder.name}.npy"): read_npy,
                folder / "depth_mm.png": read_depth_mm,
            },
            {folder / "all_in_focus.png": _read_srgb},
            {
                folder / "confidence.npy": _read_confidence,
                folder / "confidence.png": lambda path: _read_srgb(path)[0],
            },
        )


def _first_file(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _read(size: tuple[int, int], readers: dict[Path, Callable[[Path], Tensor]]) -> Tensor | None:
    """Content of the first file that exists; None if none does.

    Raises:
        InputError: it does not have `size`, (height, width).
    """
    path = _first_file(readers)
    if path is None:
        return None
    values = readers[path](path)
    height, width = values.shape[-2:]
    if (height, width) != size:
        raise InputError(
            f"{path}: {width}x{height}, but the frames are {size[1]}x{size[0]}. Resize the "
            "prediction to the frames as its tool would."
        )
    return values


def _read_srgb(path: Path) -> Tensor:
    """(3, H, W) in [0, 1]."""
    return torch.from_numpy(read_image(path)).permute(2, 0, 1).contiguous()


def _read_confidence(path: Path) -> Tensor:
    values = read_npy(path)
    if not bool(values.isfinite().all()):
        raise InputError(
            f"{path}: contains NaN or infinity. Write 0 where nothing is certain, and a large "
            "number where all is."
        )
    return values
