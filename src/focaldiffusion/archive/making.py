"""One stack to one folder of results, for every command, and the sentence if that fails."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focaldiffusion.allocation import is_out_of_memory
from focaldiffusion.archive.recipe import Recipe
from focaldiffusion.errors import InputError, printable
from focaldiffusion.fusion.retouch import Retouch
from focaldiffusion.io.stacks import OpenedStack
from focaldiffusion.prior import PriorSource
from focaldiffusion.progress import Report
from focaldiffusion.reconstruction import PHYSICS, DoubtfulInput, reconstruct
from focaldiffusion.result import Result
from focaldiffusion.threads import threads

if TYPE_CHECKING:
    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline


def make_results(
    opened: OpenedStack,
    folder: Path,
    recipe: Recipe,
    *,
    model: FocalDiffusionPipeline | None = None,
    prior: PriorSource | None = None,
    overwrite: bool = False,
    retouch: Retouch | None = None,
    with_page: bool = False,
    note: Callable[[Result], Mapping[str, Any]] | None = None,
    progress: Report = lambda stage, done, total: None,
) -> tuple[Result, dict[str, str]]:
    """Reconstruct a stack and write its results.

    Args:
        opened: the stack.
        folder: for the results, see `Result.save`.
        recipe: the settings.
        model: the learned model; None for the physical estimate.
        prior: see `reconstruct`.
        overwrite: see `Result.save`.
        retouch: strokes to replay on the result.
        with_page: also write a living picture.
        note: gives more entries for the provenance.
        progress: see `reconstruct`.

    Returns:
        The result; requested files that were left out, and why.
    """
    with threads(recipe.settings.threads):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DoubtfulInput)  # summary and report have it
            result = reconstruct(
                opened,
                prior=prior,
                model=model or PHYSICS,
                settings=recipe.settings,
                progress=progress,
            )
        if retouch is not None:
            result = result.retouched(retouch)
        page = None
        if with_page:
            from focaldiffusion.living_picture.picture import living_picture

            progress("living picture", 0, 0)
            page = living_picture(result)
        if note is not None:
            result = replace(result, provenance={**result.provenance, **note(result)})
        progress("writing", 0, 0)
        left_out = result.save(
            folder,
            overwrite=overwrite,
            point_cloud=recipe.point_cloud,
            depth_formats=recipe.depth_formats,
            living_picture=page,
        )
    return result, left_out


def failure(
    name: str, error: Exception, recipe: Recipe, opened: OpenedStack | None = None
) -> tuple[str, str | None]:
    """A sentence about an error that ended a stack, and the traceback of an error of this program.

    Args:
        name: of the stack.
        error: what was raised.
        recipe: the settings.
        opened: the stack, if it could be opened.
    """
    if isinstance(error, InputError):
        return str(error), None
    if is_out_of_memory(error):
        size = ""
        if opened is not None:
            height, width = opened.frames.size
            size = f" for {len(opened)} frames of {width}x{height}"
        device = recipe.settings.device
        return printable(f"{name}: not enough memory on {device}{size}. {recipe.lighter}"), None
    return printable(
        f"{name}: unexpected {type(error).__name__}: {error}. This is an error of focaldiffusion; "
        "please report it with its traceback."
    ), "".join(traceback.format_exception(error))
