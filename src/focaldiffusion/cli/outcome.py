"""The outcome of one stack, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from focaldiffusion.errors import printable

if TYPE_CHECKING:
    from focaldiffusion.io.stacks import OpenedStack
    from focaldiffusion.result import Result


INTERNAL_ERROR = 70
"""Exit code after an error of this program, EX_SOFTWARE of sysexits.h."""


@dataclass(frozen=True)
class StackOutcome:
    """The outcome of one stack.

    Attributes:
        name: name of the stack; its path if it could not be opened.
        output: folder of its results; None if it could not be opened.
        status: done, skipped because results exist, or failed.
        error: reason for failure, in one sentence.
        traceback: of an error of this program.
        grade: knowledge of the camera, in words.
        files: names of the results in `output`.
        left_out: frames and files that were left out, and why.
        warnings: unknown facts of the camera, and why; facts that the frames contradict.
        figures: key figures of the result, see `_figures`.
    """

    name: str
    output: Path | None
    status: Literal["done", "skipped", "failed"]
    error: str | None = None
    traceback: str | None = None
    grade: str | None = None
    files: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def failure(self) -> str:
        """The error, preceded by the stack's name, for lists of several stacks."""
        error, name = self.error or "", printable(self.name)
        return error if error.startswith(name) else f"{name}: {error}"

    def summary(self) -> str:
        """A few lines about a finished or skipped stack."""
        if self.status == "skipped":
            return printable(f"{self.name}: skipped, {self.output} holds results")
        figures = self.figures
        height, width = figures["size"]
        best = "overview.png" if "overview.png" in self.files else "all_in_focus.png"
        rows = [
            ("depth", _depth_text(figures)),
            *_prior_rows(figures["prior"]),
            ("model", f"{figures['model']}, on {figures['device']}"),
            ("alignment", _alignment_text(figures["alignment"])),
            *(("left out", f"{name}: {why}") for name, why in self.left_out.items()),
            ("results", f"{self.output}, best seen in {best}"),
        ]
        title = f"{self.name}: {figures['frames']} frames of {width}x{height}, {self.grade}"
        lines = [title, *(f"  {name:<10} {text}" for name, text in rows)]
        return "\n".join(map(printable, lines))


def outcome_of(
    opened: OpenedStack, result: Result, output: Path, unwritten: dict[str, str]
) -> StackOutcome:
    """The outcome of a stack after its results are written.

    Args:
        opened: the stack.
        result: its result.
        output: folder that holds the results.
        unwritten: return value of `Result.save`.
    """
    from focaldiffusion.io.results import OWN_FILES

    warnings = [f"{opened.name}: {text}" for text in (*opened.lacks, *result.findings)]
    assert result.alignment is not None
    dropped = result.alignment.dropped.items()
    return StackOutcome(
        name=opened.name,
        output=output,
        status="done",
        grade=str(result.calibration),
        files=tuple(name for name in OWN_FILES if (output / name).exists()),
        left_out={opened.frames.names[index]: why for index, why in dropped} | unwritten,
        warnings=tuple(warnings),
        figures=_figures(opened, result),
    )


def _figures(opened: OpenedStack, result: Result) -> dict[str, Any]:
    """The key figures of a result.

    Returns:
        `frames` used and their `size` (height, width); `depth_field`, its `depth_range` (1 % and
        99 % quantile, in the field's unit; None if nothing is known) and both in words, `depth`;
        `mean_confidence` (None, like these, without depth); the `prior`, whether it was accepted
        and its share of the image (None without one); the `model` used and its `device`;
        `alignment`; `rerender_residual_rms_srgb`; total `seconds`.
    """
    from focaldiffusion.io.colour_scales import DepthRange

    provenance, name, depth, words = result.provenance, None, None, None
    if result.confidence is not None:
        name = result.depth_field
        depth, words = DepthRange.of(result.depth, name), "nothing is known"
    if depth is not None:
        words = depth.text or "relative, from 0 (first frame) to 1 (last frame)"
    alignment = provenance["alignment"]
    return {
        "frames": len(result.stack),
        "size": list(result.all_in_focus.shape[:2]),
        "depth_field": name,
        "depth_range": None if depth is None else [depth.low, depth.high],
        "depth": None if words is None else words.removeprefix("depth "),
        "mean_confidence": provenance["mean_confidence"],
        "prior": provenance["prior"],
        "model": provenance["model"],
        "device": provenance["device"],
        "alignment": {
            "mode": provenance["settings"]["align"],
            "reference": opened.frames.names[alignment["reference"]],
            "largest_motion_px": max(one["corner_displacement_px"] for one in alignment["frames"]),
            "gains": _ends([one["gain"] for one in alignment["frames"]]),
        },
        "rerender_residual_rms_srgb": provenance["rerender_residual_rms_srgb"],
        "seconds": round(sum(provenance["seconds"].values()), 3),
    }


def _depth_text(figures: dict[str, Any]) -> str:
    if figures["depth"] is None:
        return "none, only the image is wanted"
    return f"{figures['depth']}; mean confidence {figures['mean_confidence']:.2f}"


def _prior_rows(prior: dict[str, Any] | None) -> list[tuple[str, str]]:
    """The row of the prior, if there is one."""
    if prior is None:
        return []
    verdict = f"refused, since {prior['refused']}"
    if prior["accepted"]:
        verdict = f"decides on {100 * prior['share']:.0f} % of the depth, see prior_share.png"
    return [("prior", f"{prior['name']}: {verdict}")]


def _ends(values: Sequence[float]) -> list[float]:
    return [min(values), max(values)]


def _alignment_text(alignment: dict[str, Any]) -> str:
    if alignment["mode"] == "off":
        return "off"
    motion_px, (darkest, brightest) = alignment["largest_motion_px"], alignment["gains"]
    found = []
    if motion_px > 0:
        found.append(f"frames moved by up to {motion_px:.1f} px")
    if darkest != brightest:
        found.append(f"exposure differed by {100 * (brightest / darkest - 1):.0f} %")
    if not found:
        return "not needed"
    return f"undone: {', '.join(found)}; reference {alignment['reference']}"
