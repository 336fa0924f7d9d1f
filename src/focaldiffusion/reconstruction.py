"""From photographs to a result: stages 1 to 3, and the sequence of all ten.

 1. Open. Files are found, ordered and checked; lens and focus settings come from the caller,
    `stack.json` and EXIF, in this order of precedence. Pixels stay on disk.
    folder, TIFF, files or arrays -> OpenedStack
 2. Align. Motion, focus breathing and exposure of each frame are measured relative to a reference
    frame. A stack that stood still stays unchanged, to the last bit.
    native frames, read one at a time -> Alignment
 3. Working stack. The aligned frames are read in linear light, at the size at which depth is
    solved; camera and focus settings follow every crop and reduction. Copies and results of a
    stacking among the frames are left out, and the order of the sweep is checked.
    -> FocalStack (N, 3, H, W)

`recovery.py` has the others: 4 calibrate, 5 sweep, 6 complete, 7 check, 8 model, 9 fuse and
10 enlarge.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import Tensor

from focaldiffusion.align.alignment import Alignment
from focaldiffusion.align.registration import AlignMode, find_alignment
from focaldiffusion.align.review import Review, review
from focaldiffusion.allocation import give_back_freed_memory
from focaldiffusion.devices import resolve_device
from focaldiffusion.errors import InputError, unknown_name
from focaldiffusion.frames import WORKING_SIZE_PX
from focaldiffusion.io.arrays import Array
from focaldiffusion.io.frame_order import FrameOrder
from focaldiffusion.io.stacks import OpenedStack, open_stack
from focaldiffusion.lens import LensFacts
from focaldiffusion.models.completer import Sampling
from focaldiffusion.optics import Camera
from focaldiffusion.prior import Prior, PriorSource
from focaldiffusion.priors.given import GivenPrior
from focaldiffusion.progress import Report, Stages
from focaldiffusion.psf import PSF
from focaldiffusion.recovery import Refine, recover
from focaldiffusion.result import Result
from focaldiffusion.stack import FocalStack
from focaldiffusion.threads import threads

if TYPE_CHECKING:
    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline

PHYSICS = "physics"
"""Name of the physical estimate, which uses no model."""


class DoubtfulInput(UserWarning):
    """Something about the frames or what is said of them is doubtful; see `Result.findings`."""


@dataclass(frozen=True)
class Settings:
    """Settings of a reconstruction; each has a flag of `focaldiffusion infer`.

    Attributes:
        align: "auto" registers the frames if they moved, "on" always, "off" never.
        drop_unaligned: leave out frames that cannot be aligned, instead of stopping.
        working_size: long side [px] at which depth is solved; reduced for stacks of many frames.
        psf: shape of the lens blur.
        find_blur: measure the blur per dioptre from the frames even if the lens is known.
        device: torch device, such as "cpu" or "cuda"; "auto" picks the fastest available.
        threads: number of CPU threads, which does not change the result; None for all CPUs that the
            process may use.
        fill_unsharp: fill pixels that no frame shows sharp from the model's image.
        image_only: make the all-in-focus image alone, the same as with depth, in less time.
        sampling: how to run a learned model.
    """

    align: AlignMode = "auto"
    drop_unaligned: bool = False
    working_size: int = WORKING_SIZE_PX
    psf: PSF = field(default_factory=PSF)
    find_blur: bool = False
    device: str = "auto"
    threads: int | None = None
    fill_unsharp: bool = False
    image_only: bool = False
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        modes = get_args(AlignMode)
        if self.align not in modes:
            problem = unknown_name(str(self.align), modes)
            raise InputError(f"Settings.align: {self.align!r} {problem}")
        counts = {"working_size": "a number of pixels", "threads": "a number of threads, or None"}
        for name, expected in counts.items():
            count = getattr(self, name)
            if name == "threads" and count is None:
                continue
            if not isinstance(count, int) or count < 1:
                raise InputError(f"Settings.{name}: got {count!r}; expected {expected}.")
        for name, kind in (("psf", PSF), ("sampling", Sampling)):
            if not isinstance(value := getattr(self, name), kind):
                raise InputError(
                    f"Settings.{name}: got {type(value).__name__}; expected a {kind.__name__}."
                )
        object.__setattr__(self, "device", str(self.device))  # torch.device is not JSON


def reconstruct(
    source: str | Path | Sequence[str | Path] | Array | Sequence[Array] | OpenedStack | FocalStack,
    *,
    focus_distances_m: Sequence[float] | None = None,
    focus_positions_m: Sequence[float] | None = None,
    lens: LensFacts | None = None,
    order: FrameOrder = "auto",
    prior: str | Path | Prior | PriorSource | None = None,
    model: str | Path | FocalDiffusionPipeline = PHYSICS,
    settings: Settings | None = None,
    progress: Report | None = None,
) -> Result:
    """Recover the all-in-focus image and the depth of a focal stack.

    Args:
        source: a folder of frames, a multi-page TIFF, the frame files in order, or the frames as
            arrays: N of (H, W, 3) or (H, W), uint8, uint16, or float in [0, 1], encoded like a
            picture file (sRGB), NumPy or torch. Also an opened stack, or a `FocalStack`, whose
            frames are aligned and in linear light.
        focus_distances_m: lens to plane of sharp focus for each frame [m], infinity allowed.
        focus_positions_m: stage or rail position of each frame [m], instead of distances.
        lens: facts of the lens. Arguments override `stack.json`, which overrides EXIF.
        order: what decides on the order of the frames, see `open_stack`.
        prior: depth from elsewhere, joined where defocus shows nothing: the folder or hub id of a
            depth network, a `Prior`, or what `load_prior` returned, as for files; None for none.
        model: model that fills in depth where the frames carry no evidence: "physics" for none,
            "compact", the folder or hub id of a checkpoint, or a pipeline from `load_model`.
        settings: settings of the reconstruction; None for the defaults.
        progress: called as progress(stage, done, total).

    Returns:
        The result, at the native size of the frames; if they moved, cropped to their common area.

    Raises:
        InputError: the input cannot be used; the message gives cause and remedy.
    """
    settings = Settings() if settings is None else settings
    given = {
        "focus_distances_m": focus_distances_m,
        "focus_positions_m": focus_positions_m,
        "lens": lens,
        "order": None if order == "auto" else order,
    }
    _check_arguments(source, given, model, settings)
    _check_prior(prior, settings)
    settings = replace(settings, device=resolve_device(settings.device))
    stages = Stages(progress)
    with threads(settings.threads):
        opened = source
        if not isinstance(source, (OpenedStack, FocalStack)):
            opened = open_stack(source, **{**given, "order": order})  # type: ignore[arg-type]  # 1
        # Before the long work, which would be wasted if the model or prior is missing.
        refine = _refine(model, settings, stages, has_prior=prior is not None)
        shelf = _prior_source(prior, settings, stages)
        if isinstance(opened, OpenedStack):
            working = registered(opened, settings, stages)  # 2 and 3
        else:
            assert isinstance(opened, FocalStack)
            working = _in_memory(opened, settings)  # 3
        result = recover(  # 4 to 10
            **working,
            psf=settings.psf,
            find_blur=settings.find_blur,
            prior=_in_register(shelf, opened, working.get("alignment")),
            refine=refine,
            fill_unsharp=settings.fill_unsharp,
            image_only=settings.image_only,
            stages=stages,
        )
    for finding in result.findings:
        warnings.warn(f"{result.name}: {finding}", DoubtfulInput, stacklevel=2)
    return result


def registered(opened: OpenedStack, settings: Settings, stages: Stages) -> dict[str, Any]:
    """Stages 2 and 3: the arguments of `recover` for an opened stack.

    Args:
        opened: the stack.
        settings: see `reconstruct`, on a device that is available.
        stages: times the two stages and reports their steps.

    Raises:
        InputError: a frame cannot be read or aligned, or the frames are too small for defocus.
    """
    with stages("aligning") as meter:  # 2
        alignment = find_alignment(
            opened.frames,
            focus_order=_focus_order(opened),
            mode=settings.align,
            drop_unaligned=settings.drop_unaligned,
            meter=meter,
        )
        give_back_freed_memory()  # the structure of all frames
    camera = opened.camera_for(alignment.reference)
    if camera is not None:
        crop = alignment.crop
        camera = camera.cropped(crop.left, crop.top, crop.size)
    try:
        with stages("reading") as meter:  # 3
            stack = FocalStack.read(
                alignment.apply(opened.frames),
                long_side_px=settings.working_size,
                device=settings.device,
                meter=meter,
                camera=camera,
                step=opened.levels.step,
                **_focus_settings(opened, alignment),
            )
    except InputError as error:
        # Errors of a file name it already; an error about size needs the stack's name.
        named = str(error).startswith("frames of")
        raise InputError(f"{opened.name}: {error}") if named else error from error
    try:
        seen = review(stack, [frame.name for frame in alignment.frames], wanted=opened.order)
    except InputError as error:
        raise InputError(f"{opened.name}: {error}") from None
    stack, alignment = _reviewed(stack, alignment, seen, opened)
    return {
        "stack": stack,
        "camera": camera,
        "lens": opened.lens,
        "alignment": alignment,
        "levels": opened.levels,
        "image_metadata": opened.metadata_for(alignment.reference),
        "provenance": _provenance(opened, alignment, settings, camera),
        "findings": opened.findings + opened.levels.findings + alignment.findings + seen.findings,
        "name": opened.name,
    }


def _reviewed(
    stack: FocalStack, alignment: Alignment, seen: Review, opened: OpenedStack
) -> tuple[FocalStack, Alignment]:
    """The stack and its alignment without strangers, in the order of the sweep."""
    if not seen.left_out and not seen.is_reordered:
        return stack, alignment
    number_of = alignment.kept
    strangers = {number_of[index]: reason for index, reason in seen.left_out.items()}
    alignment = alignment.without(strangers)
    order = [number for number in range(len(opened)) if number not in strangers]
    if seen.is_reordered:  # a frame that could not be aligned then has no place
        order = [number_of[index] for index in seen.order]
    return replace(
        stack.without(seen.left_out),
        frames=alignment.apply(opened.frames),
        focus_order=tuple(order) if stack.axis == "order" else None,
    ), alignment


def _in_memory(stack: FocalStack, settings: Settings) -> dict[str, Any]:
    """Stage 3: the arguments of `recover` for an aligned stack."""
    if not bool(((stack.images >= 0) & (stack.images <= 1)).all()):
        raise InputError(
            "FocalStack.images: not all in [0, 1]; expected linear light. Divide by the white "
            "level, and replace NaN."
        )
    working = stack.at_working_size(settings.working_size, settings.device)
    assert working.frames is not None
    return {
        "stack": working,
        "camera": stack.camera and stack.camera.resized(working.frames.size),
        "provenance": {"settings": asdict(settings)},
    }


def _check_arguments(
    source: object, given: dict[str, Any], model: object, settings: Settings
) -> None:
    """Refuse arguments of another type or without effect, before the long work.

    Raises:
        InputError: names them.
    """
    for name, value, kind in (("lens", given["lens"], LensFacts), ("settings", settings, Settings)):
        if value is not None and not isinstance(value, kind):
            raise InputError(f"{name}: got {type(value).__name__}; expected {kind.__name__}.")
    if not (isinstance(model, (str, Path)) or hasattr(model, "refine")):
        raise InputError(
            f"model: got {type(model).__name__}; expected a name, a folder, or the model that "
            "load_model returned."
        )
    if isinstance(source, (OpenedStack, FocalStack)):
        stray = [name for name, value in given.items() if value is not None]
        if stray:
            raise InputError(
                f"{', '.join(stray)}: no effect on a {type(source).__name__}, which has its own. "
                "Give them where the stack is opened or made."
            )
    if model != PHYSICS and settings.image_only:
        raise InputError(
            "image_only: no effect of a model, which completes depth, on the image. Leave the "
            "model out, or set image_only=False."
        )
    if model == PHYSICS and settings.sampling != Sampling():
        raise InputError(
            "sampling: no effect with the model physics, which is not a network. Choose a learned "
            "model, or leave it out."
        )
    if model == PHYSICS and settings.fill_unsharp:
        raise InputError(
            "fill_unsharp: needs a model to generate what no frame shows sharp. Choose a model, "
            "or leave it off."
        )


def _refine(
    model: str | Path | FocalDiffusionPipeline,
    settings: Settings,
    stages: Stages,
    *,
    has_prior: bool,
) -> Refine | None:
    """Stage 8; None without a model."""
    if model == PHYSICS:
        return None
    if isinstance(model, (str, Path)):
        from focaldiffusion.checkpoints.checkpoint import find_checkpoint

        with stages("loading the model"):
            model = find_checkpoint(str(model), [PHYSICS]).load(device=settings.device)
    with_image = settings.fill_unsharp
    model.check_inputs(settings.sampling, with_image=with_image, has_prior=has_prior)
    return partial(model.refine, sampling=settings.sampling, with_image=with_image)


def _check_prior(prior: object, settings: Settings) -> None:
    """Refuse a prior of another type or without effect, before the long work.

    Raises:
        InputError: names it.
    """
    if prior is None:
        return
    if not (isinstance(prior, (str, Path, Prior)) or callable(prior)):
        raise InputError(
            f"prior: got {type(prior).__name__}; expected a name, a folder, a Prior, or what "
            "load_prior returned."
        )
    if settings.image_only:
        raise InputError(
            "image_only: no effect of a prior, which completes depth, on the image. Leave the "
            "prior out, or set image_only=False."
        )


def _prior_source(
    prior: str | Path | Prior | PriorSource | None, settings: Settings, stages: Stages
) -> PriorSource | None:
    """The prior, loaded; None for none."""
    if isinstance(prior, Prior):
        return GivenPrior(prior)
    if isinstance(prior, (str, Path)):
        from focaldiffusion.priors.shelf import load_prior

        with stages("loading the prior"):
            return load_prior(prior, device=settings.device)
    return prior


def _in_register(
    prior: PriorSource | None, opened: object, alignment: Alignment | None
) -> PriorSource | None:
    """The prior as the aligned frames see it: numbers of the reference frame are cropped too."""
    if isinstance(prior, GivenPrior) and isinstance(opened, OpenedStack) and alignment is not None:
        return prior.cropped(opened.frames.size, alignment.crop)
    return prior


def _focus_order(opened: OpenedStack) -> list[int] | None:
    """Frame indices from one end of the sweep to the other; None if only their order is known."""
    focus = opened.focus_distances_m or opened.focus_positions_m
    return None if focus is None else np.argsort(focus, kind="stable").tolist()


def _focus_settings(opened: OpenedStack, alignment: Alignment) -> dict[str, Any]:
    """The focus fields of the working stack, for the frames that alignment kept."""

    def kept(values: tuple[float, ...] | None) -> Tensor | None:
        if values is None:
            return None
        return torch.tensor([values[index] for index in alignment.kept], dtype=torch.float64)

    positions_m = opened.focus_positions_m
    sign = None if positions_m is None else math.copysign(1, positions_m[-1] - positions_m[0])
    return {
        "focus_distances_m": kept(opened.focus_distances_m),
        "focus_positions_m": kept(positions_m),
        "height_origin_m": None if positions_m is None else positions_m[0],
        "height_sign": sign,
        "frame_numbers": alignment.kept,
        "focus_order": tuple(range(len(opened))) if opened.is_order_only else None,
        "gains": None if alignment.gains is None else torch.from_numpy(alignment.gains),
    }


def _provenance(
    opened: OpenedStack, alignment: Alignment, settings: Settings, camera: Camera | None
) -> dict[str, Any]:
    """The provenance of stages 1 to 3; `camera` is that of the results."""
    return {
        "name": opened.name,
        "camera": None if camera is None else asdict(camera),
        "lens": opened.lens.values(),
        "frames": [str(path) for path in opened.files],
        "origins": {name: str(origin) for name, origin in opened.origins.items()},
        "focus_distances_m": opened.focus_distances_m,
        "focus_positions_m": opened.focus_positions_m,
        "focus_uncertainty_dpt": opened.focus_uncertainty_dpt,
        "order": opened.order,
        "alignment": alignment.summary(),
        "levels": asdict(opened.levels),
        "settings": asdict(settings),
    }
