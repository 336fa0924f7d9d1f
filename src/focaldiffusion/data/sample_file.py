"""One file per stack: frames, truth and an optional physical estimate, as safetensors."""

from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from focaldiffusion.data.dataset import StackSample
from focaldiffusion.evidence import Evidence
from focaldiffusion.io.reading import parsed_json, reading
from focaldiffusion.io.staging import file_errors_named, write_whole
from focaldiffusion.optics import Camera, linear_to_srgb, srgb_to_linear
from focaldiffusion.prior import Prior
from focaldiffusion.psf import PSF
from focaldiffusion.recovery import Estimate
from focaldiffusion.solve.calibrate import Calibration
from focaldiffusion.stack import FocalStack

_CAMERA = ("focal_length_px", "aperture_diameter_m", "principal_point_px")
_DTYPES = {
    "depth_m": ("float32",),
    "valid": ("bool",),
    "frames": ("uint8", "uint16"),
    "all_in_focus": ("uint8", "uint16"),
    "first_all_in_focus": ("uint8", "uint16"),
    "posterior_codes": ("uint8",),
    "never_sharp": ("bool",),
    "wide_codes": ("uint16",),
    "prior": ("float32",),
    **dict.fromkeys(("focus_distances_m", "focus_positions_m", "hypotheses"), ("float32",)),
    **dict.fromkeys(("sharpest", "coordinate", "agreement", "confidence"), ("float32",)),
}
"""Types of the tensors of a file, by name."""
_FINITE = {"hypotheses", "sharpest", "coordinate", "agreement", "confidence"}
_LAST_CODE = 65535  # of 16 bits
_WHOLE_CODE = 0.01
"""Light this close to 8-bit codes, in codes, is stored in 8 bits: a round trip adds 1e-3."""


def write_sample(path: Path, sample: StackSample) -> None:
    """Write a sample, complete or not at all, to an existing folder.

    Frames and image are stored as sRGB codes, in 8 bits where that loses nothing, else in 16 (an
    error below 2e-5 in linear light); depth as float32. The posterior of an estimate is stored as
    the square root of its ratio to the maximum of each pixel, in 8 bits: its peak keeps its shape,
    and ratios below 1 / 250,000 are lost. Wide windows have 16 bits between the outermost
    hypotheses. Readers ignore unknown names.

    Raises:
        InputError: the file system refuses.
    """
    from safetensors.numpy import save

    stack = sample.stack
    tensors = {
        "frames": _codes(stack.images),
        "all_in_focus": None if sample.all_in_focus is None else _codes(sample.all_in_focus),
        "depth_m": sample.depth_m.numpy(),
        "valid": sample.valid.numpy(),
        "focus_distances_m": _numpy(stack.focus_distances_m),
        "focus_positions_m": _numpy(stack.focus_positions_m),
    }
    estimate, prior = sample.estimate, sample.prior
    if estimate is not None:
        tensors |= _maps_of(estimate)
    if prior is not None:
        tensors["prior"] = prior.values.numpy()
    known = {name: np.ascontiguousarray(t) for name, t in tensors.items() if t is not None}
    camera = stack.camera
    notes: dict[str, Any] = {
        "source": sample.source,
        "camera": camera and {name: getattr(camera, name) for name in _CAMERA},
        "estimate": None if estimate is None else _notes_of(estimate),
    }
    if prior is not None:
        notes["prior"] = {"kind": str(prior.kind), "name": prior.name}
    notes["sha256"] = _digest(known, notes)
    # One entry of metadata: the order of several would differ from file to file.
    data = save(known, metadata={"notes": json.dumps(notes)})
    with file_errors_named(path.parent):
        write_whole(path, data)


def read_sample(path: Path) -> StackSample:
    """Read a file of `write_sample`.

    Raises:
        InputError: a missing or damaged file.
    """
    from safetensors import safe_open

    fault, remedy = "is missing or damaged", "Remove it and write the cache again."
    damaged = partial(reading, path, fault, remedy)
    with damaged(), safe_open(path, framework="np") as file:
        notes = parsed_json(file.metadata()["notes"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        digest = notes.pop("sha256", None)
        if digest is not None and digest != _digest(tensors, notes):
            raise ValueError("its SHA-256 differs from the recorded one")
        _check_numbers(tensors)
    # Files of older versions have no digest: what does not fit together in them is damage too.
    with damaged() if digest is None else nullcontext():
        return _sample(notes, tensors)


def _sample(notes: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> StackSample:
    """The sample of a file's content."""
    camera = notes["camera"] and _camera(notes["camera"], tensors["depth_m"].shape)
    stack = FocalStack(
        _light(tensors["frames"]),
        camera,
        _tensor(tensors.get("focus_distances_m")),
        _tensor(tensors.get("focus_positions_m")),
    )
    if not isinstance(notes["source"], str):
        raise TypeError("its source is not a text")
    return StackSample(
        stack,
        torch.from_numpy(tensors["depth_m"]),
        torch.from_numpy(tensors["valid"]),
        _light(tensors["all_in_focus"]) if "all_in_focus" in tensors else None,
        notes["source"],
        notes.get("estimate") and _estimate(notes["estimate"], stack, tensors),
        has_truth=bool(tensors["valid"].any()),
        prior=Prior(torch.from_numpy(tensors["prior"]), **notes["prior"])
        if "prior" in tensors
        else None,
    )


def _digest(tensors: dict[str, NDArray[Any]], notes: dict[str, Any]) -> str:
    """SHA-256 of all numbers and notes."""
    total = hashlib.sha256(json.dumps(notes, sort_keys=True).encode())
    for name in sorted(tensors):
        array = tensors[name]
        total.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        total.update(array.data if array.size else b"")
    return total.hexdigest()


def _check_numbers(tensors: dict[str, NDArray[Any]]) -> None:
    """Refuse tensors of another type than written, and numbers that no sample has."""
    for name, array in tensors.items():
        expected = _DTYPES.get(name)
        if expected is not None and array.dtype.name not in expected:
            raise ValueError(f"{name} is {array.dtype}")
        if array.size == 0 and name != "valid":
            raise ValueError(f"{name} is empty")
        if name in _FINITE and not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite everywhere")
    depth_m = tensors["depth_m"][tensors["valid"]]
    if not (np.isfinite(depth_m) & (depth_m > 0)).all():
        raise ValueError("some of the valid depth is not positive and finite")


def _camera(notes: dict[str, Any], image_size: tuple[int, int]) -> Camera:
    point = tuple(notes["principal_point_px"])
    return Camera(**{**notes, "image_size": image_size, "principal_point_px": point})


def _maps_of(estimate: Estimate) -> dict[str, NDArray[Any] | None]:
    """Tensors of an estimate by their names in a file."""
    evidence = estimate.evidence
    ratio = evidence.posterior / evidence.posterior.amax(0)
    return {
        "hypotheses": evidence.hypotheses.numpy(),
        "posterior_codes": (ratio.sqrt_() * 255).round_().byte().numpy(),
        "first_all_in_focus": _codes(evidence.all_in_focus),
        "sharpest": evidence.sharpest.numpy(),
        "never_sharp": evidence.never_sharp.numpy(),
        "wide_codes": _wide_codes(evidence),
        "coordinate": estimate.coordinate.numpy(),
        "agreement": estimate.agreement.numpy(),
        "confidence": estimate.confidence.numpy(),
    }


def _wide_codes(evidence: Evidence) -> NDArray[np.uint16] | None:
    """The maps of wide windows in 16 bits: means between the outermost hypotheses, certainties."""
    if evidence.wide is None:
        return None
    first, last = evidence.hypotheses[0], evidence.hypotheses[-1]
    means, certainties = evidence.wide.chunk(2)
    shares = torch.cat([(means - first) / (last - first), certainties])
    return (shares.clamp(0, 1) * _LAST_CODE).round().numpy().astype(np.uint16)


def _wide(codes: NDArray[np.uint16], hypotheses: Tensor) -> Tensor:
    """Undo `_wide_codes`."""
    shares, certainties = torch.from_numpy(codes.astype(np.float32) / _LAST_CODE).chunk(2)
    return torch.cat([torch.lerp(hypotheses[0], hypotheses[-1], shares), certainties])


def _notes_of(estimate: Estimate) -> dict[str, Any]:
    """The rest of an estimate, as JSON."""
    return {
        "calibration": asdict(estimate.calibration),
        "psf": asdict(estimate.psf),
        "residual_rms": estimate.residual_rms,
    }


def _estimate(
    notes: dict[str, Any], stack: FocalStack, tensors: dict[str, NDArray[Any]]
) -> Estimate:
    posterior = torch.from_numpy(tensors["posterior_codes"]).float().square_()
    hypotheses = torch.from_numpy(tensors["hypotheses"])
    maps: dict[str, Any] = {
        name: torch.from_numpy(tensors[name]) for name in ("coordinate", "agreement", "confidence")
    }
    return Estimate(
        evidence=Evidence(
            stack.axis,
            hypotheses,
            posterior.div_(posterior.sum(0)),
            _light(tensors["first_all_in_focus"]),
            torch.from_numpy(tensors["sharpest"]),
            torch.from_numpy(tensors["never_sharp"]),
            _wide(tensors["wide_codes"], hypotheses) if "wide_codes" in tensors else None,
        ),
        # Their types, too, are checked: JSON holds anything.
        calibration=TypeAdapter(Calibration).validate_python(notes["calibration"]),
        psf=TypeAdapter(PSF).validate_python(notes["psf"]),
        residual_rms=TypeAdapter(float | None).validate_python(notes["residual_rms"]),
        **maps,
    )


def _numpy(values: Tensor | None) -> NDArray[Any] | None:
    return None if values is None else values.numpy()


def _tensor(values: NDArray[Any] | None) -> Tensor | None:
    return None if values is None else torch.from_numpy(values)


def _codes(light: Tensor) -> NDArray[Any]:
    """Linear light as sRGB codes: uint8 where that loses nothing, else uint16."""
    srgb = linear_to_srgb(light.clamp(0, 1)).numpy()
    eight = np.round(srgb * 255)
    if np.abs(srgb * 255 - eight).max() < _WHOLE_CODE:
        return eight.astype(np.uint8)
    return np.round(srgb * _LAST_CODE).astype(np.uint16)


def _light(codes: NDArray[Any]) -> Tensor:
    """The linear light of sRGB codes."""
    return torch.from_numpy(_table(int(np.iinfo(codes.dtype).max))[codes])


@lru_cache(maxsize=2)
def _table(largest: int) -> NDArray[np.float32]:
    """Linear light of every code up to the largest."""
    light: NDArray[np.float32]
    light = srgb_to_linear(torch.arange(largest + 1, dtype=torch.float32) / largest).numpy()
    return light
