"""Doubts about a stack: do its frames show a sweep of focus, in order, through the given lens?

Calibration compares blur scales with each other, and the best of them may still explain nothing.
Here the misfit that it leaves is compared with that of other explanations: no blur at all, another
order of the frames, fewer frames, another unit of the focus distances.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from focaldiffusion.errors import InputError
from focaldiffusion.filters import box_mean, srgb_luma
from focaldiffusion.lens import DISTANCE_UNITS
from focaldiffusion.progress import Meter
from focaldiffusion.psf import PSF
from focaldiffusion.solve.calibrate import Calibration, calibrate
from focaldiffusion.solve.small_stack import SmallStack
from focaldiffusion.stack import FocalStack
from focaldiffusion.threads import in_parallel

# Chosen on still_life, room_4, macro_12 and a simulated scene, each right and with 20 faults.
# Share of the misfit without blur: right 0.3 and more, a phone's frames that moved 0.10, equal
# frames 0.02.
_LEAST_EXPLAINED = 0.05
_LEAST_EXPLAINED_THERE = 0.15  # of the busiest part, which is chosen for it: equal frames 0.08
_BUSIEST = 0.05  # share of the image with the largest gain: a scene may be bare elsewhere
_BETTER_ORDER = 0.7  # misfit in another order; two neighbours swapped 0.6 and less
# Without focus settings, whose spacing is then assumed: shuffled 0.17 and less, right 0.45.
_FAR_BETTER_ORDER = 0.3
_UNORDERED_TRUST = 0.3  # where no spacing of focus steps explains the order
_SUSPECT = 2.0  # misfit of a frame over the median, from which the others are tried without it
# Misfit of the others without it: foreign frames 0.01 to 0.43, copies 0.27 to 0.68, right ones 0.92
# and more; 0.73 in a phone's stack whose distances are wrong.
_BETTER_WITHOUT = 0.7
_STRANGER = 0.7  # times as good as another order, the sweep without a frame is the explanation
_SUBSET = 12  # frames that are examined together
_EXAMINED_PX = 128  # long side of the parts of a long stack; a stranger differs at any size
_FEWEST = 4  # frames, to blame one of them
_UNIT_TOLERANCE = 0.12  # relative; the blur scale is found to 7 %
_AS_DIOPTRES = 0.6  # misfit with the numbers read as dioptres, from which they are taken for them
_DETAIL_PX = 8  # half window of the mean that is not detail
_SCALES = tuple(2 ** (half / 2) for half in range(-2, 5))  # disorder makes blur look too small
_WIDE_SCALES = tuple(2 ** (half / 2) for half in range(-8, 5))

_REVERSED = 1.15  # see `reversal`; right 0.97 and less

_CONSEQUENCE = "so depth cannot be trusted"


@dataclass(frozen=True, eq=False)
class _Model:
    """An explanation of a small stack by blur.

    Attributes:
        scale: blur diameter [px] per unit of the axis, at the size of the whole stack.
        focus: (n,) focus of the frames.
        misfit: see `SmallStack.misfit`.
    """

    scale: float
    focus: Tensor
    misfit: float


def examined_calibration(
    stack: FocalStack, psf: PSF, *, find_blur: bool = False, meter: Meter | None = None
) -> Calibration:
    """Calibrate a stack, and doubt what its frames contradict.

    Frames that no sweep explains are left out, and the rest is calibrated again.

    Args:
        stack: the frames.
        psf: the shape of the blur.
        find_blur: see `calibrate`.
        meter: see `calibrate`.
    """
    small = SmallStack.of(stack)
    calibration = calibrate(stack, psf, find_blur=find_blur, small=small, meter=meter)
    if calibration.measured is not None and not calibration.measured.is_sweep:
        calibration = replace(calibration, trust=_UNORDERED_TRUST)
    model = _model(small, calibration, psf)
    without = _strange_frames(small, model, calibration, psf)
    order = _better_order(small, model, psf)
    if order is not None and not (without and without[1] < _STRANGER * order[1]):
        return _out_of_order(stack, small, calibration, order)
    if not without and not _is_explained(small, model, psf):
        doubt = (
            "the frames do not differ in focus: no blur explains their differences better than "
            f"none, {_CONSEQUENCE}. Equal frames, an exposure bracket and a scene without texture "
            "do this; photograph textured things at different focus settings."
        )
        return replace(calibration, doubts=(doubt,), trust=0.0)
    doubts: tuple[str, ...] = ()
    left_out: tuple[int, ...] = ()
    if without:
        left_out = without[0]
        doubts = (_strange(stack, left_out),)
        stack = stack.without(left_out)
        small = SmallStack.of(stack)
        calibration = calibrate(stack, psf, find_blur=find_blur, small=small)
        model = _model(small, calibration, psf)
    calibration = _with_lens(stack, small, model, calibration, psf)
    return replace(calibration, doubts=doubts + calibration.doubts, left_out=left_out)


def doubting_direction(calibration: Calibration, reversal: float) -> Calibration:
    """The calibration, doubted if the frames look reversed; see `consistency.reversal`."""
    if reversal < _REVERSED or calibration.doubts:
        return calibration
    doubt = (
        f"the frames look reversed, {_CONSEQUENCE}: what should be far hides what should be near. "
        "Check which focus distance belongs to which frame."
    )
    return replace(calibration, doubts=(doubt,), trust=0.0)


def _model(small: SmallStack, calibration: Calibration, psf: PSF) -> _Model:
    """The better of the known and the measured blur."""
    measured = calibration.measured
    assert measured is not None
    scales = [measured.value] if measured.is_sweep else [measured.value * one for one in _SCALES]
    models = [_best(small, psf, scales, small.focus(_growth(calibration)))]
    if calibration.blur_scale is not None and not calibration.is_measured:
        models.append(_best(small, psf, [calibration.blur_scale], small.focus()))
    return min(models, key=lambda model: model.misfit)


def _growth(calibration: Calibration) -> float:
    """Growth of the focus steps; none where no growth makes a sweep of the frames."""
    measured = calibration.measured
    return measured.step_growth if measured is not None and measured.is_sweep else 0.0


def _best(small: SmallStack, psf: PSF, scales: Sequence[float], focus: Tensor) -> _Model:
    """The best of ascending blur scales at the size of the whole stack.

    Misfit changes little from one scale to the next, so every other scale is tried first, then the
    neighbours of the best.
    """

    def tried(indices: Iterable[int]) -> dict[int, _Model]:
        return {
            index: _Model(
                scales[index], focus, small.misfit(scales[index] * small.shrink, psf, focus)
            )
            for index in indices
            if 0 <= index < len(scales)
        }

    models = tried(range(0, len(scales), 2))
    best = min(models, key=lambda index: models[index].misfit)
    models |= tried((best - 1, best + 1))
    return min(models.values(), key=lambda model: model.misfit)


def _is_explained(small: SmallStack, model: _Model, psf: PSF) -> bool:
    """Whether blur explains differences between the frames, at least where most of it shows."""
    still, blurred = (
        small.misfit_of_frames(scale, psf, model.focus).sum(0).flatten()
        for scale in (0.0, model.scale * small.shrink)
    )
    busiest = (still - blurred).topk(max(1, round(_BUSIEST * still.numel()))).indices
    return any(
        float(after.sum()) < (1 - least) * float(before.sum())
        for before, after, least in (
            (still, blurred, _LEAST_EXPLAINED),
            (still[busiest], blurred[busiest], _LEAST_EXPLAINED_THERE),
        )
    )


def _better_order(small: SmallStack, model: _Model, psf: PSF) -> tuple[list[int], float] | None:
    """Another order of the frames that explains them better, and its share of the misfit."""
    count = len(small.frames)
    path = apparent_order(small.images.images)
    focus, rising = model.focus.sort(stable=True)
    rank_of = {index: rank for rank, index in enumerate(rising.tolist())}
    ranks = [rank_of[index] for index in path]
    if ranks in ([*range(count)], [*reversed(range(count))]):
        return None
    models = []
    for order in (path, path[::-1]):  # a path has no direction
        assigned = torch.empty_like(focus)
        assigned[torch.tensor(order)] = focus
        scales = [model.scale * one for one in _SCALES]
        models.append((_best(small, psf, scales, assigned), order))
    best, order = min(models, key=lambda one: one[0].misfit)
    share = best.misfit / model.misfit
    told = small.stack.axis != "order"
    return (order, share) if share < (_BETTER_ORDER if told else _FAR_BETTER_ORDER) else None


def apparent_order(images: Tensor) -> list[int]:
    """Order of frames (N, 3, H, W) in which each differs least from the next.

    The shortest path through the frames' detail needs no lens, and has no direction. It is found by
    the nearest neighbour from every start, improved by turning parts of it round.
    """
    luma = srgb_luma(images)
    detail = (luma - box_mean(luma, _DETAIL_PX)).flatten(1)
    between = torch.cdist(detail, detail).square().tolist()
    count = len(between)

    def length(path: list[int]) -> float:
        return sum(between[here][there] for here, there in pairwise(path))

    best = list(range(count))
    for first in range(count):
        path, left = [first], set(range(count)) - {first}
        while left:
            path.append(min(sorted(left), key=between[path[-1]].__getitem__))
            left.remove(path[-1])
        improves = True
        while improves:
            improves = False
            for start in range(count - 1):
                for stop in range(start + 2, count + 1):
                    turned = path[:start] + path[start:stop][::-1] + path[stop:]
                    if length(turned) < length(path) * (1 - 1e-6):
                        path, improves = turned, True
        if length(path) < length(best) * (1 - 1e-6):
            best = path
    return best


def _out_of_order(
    stack: FocalStack, small: SmallStack, calibration: Calibration, order: tuple[list[int], float]
) -> Calibration:
    """The calibration of frames in a wrong order: without a blur that was measured in it."""
    path, share = order
    listed = ", ".join(_name(stack, int(small.frames[index])) for index in path)
    remedy = {
        "inverse_depth_dpt": "Check which focus distance belongs to which frame.",
        "position_m": "Check which position belongs to which frame.",
        "order": "Give the frames in this order.",
    }[stack.axis]
    doubt = (
        f"the frames are not in the order of their focus, {_CONSEQUENCE}: blur explains them "
        f"{1 / share:.2g} times better in the order {listed}. {remedy}"
    )
    scale = None if calibration.is_measured else calibration.blur_scale
    return replace(calibration, blur_scale=scale, doubts=(doubt,), trust=share)


def _strange_frames(
    whole: SmallStack, model: _Model, calibration: Calibration, psf: PSF
) -> tuple[tuple[int, ...], float] | None:
    """Indices of frames that no blur explains together with the others.

    The share of misfit per degree of freedom that is left without all of them is returned too.
    """
    stack, growth = whole.stack, _growth(calibration)
    parts = math.ceil(len(stack) / _SUBSET)
    places = stack.places.argsort().tolist() if stack.axis == "order" else list(range(len(stack)))

    def examined(part: int) -> tuple[list[int], float]:
        if parts == 1:
            return _strange_of_some(whole, model, growth, psf)
        some = SmallStack.of(stack, places[part::parts], long_side_px=_EXAMINED_PX)
        return _strange_of_some(some, model, growth, psf)

    found = list(in_parallel(examined, range(parts)))
    strange = sorted(index for indices, _ in found for index in indices)
    return (tuple(strange), min(share for _, share in found)) if strange else None


def _strange_of_some(
    small: SmallStack, model: _Model, growth: float, psf: PSF
) -> tuple[list[int], float]:
    """Indices of strange frames among those that are examined together, and the share of misfit.

    A frame is strange if the others are explained much better without it.
    """
    strange, share = [], 1.0
    for _ in range(max(1, len(small.frames) // 4)):
        count = len(small.frames)
        if count < _FEWEST:
            break
        scale, focus = model.scale * small.shrink, small.focus(growth)
        of_frames = small.misfit_of_frames(scale, psf, focus).mean((1, 2))
        worst = int(of_frames.argmax())
        if float(of_frames[worst]) < _SUSPECT * float(of_frames.median()):
            break
        rest = small.without(worst)
        # A foreign frame spoils the blur scale too, so others are tried without it.
        scales = [model.scale * one for one in _WIDE_SCALES]
        without = _best(rest, psf, scales, rest.focus(growth)).misfit
        total = float(of_frames.sum())
        # Of the others alone: the one sharp frame of a flat scene has most of the misfit too.
        if without > _BETTER_WITHOUT * (total - float(of_frames[worst])):
            break
        strange.append(int(small.frames[worst]))
        small, share = rest, share * (without / (count - 2)) / (total / (count - 1))
    return strange, share


def _strange(stack: FocalStack, left_out: Sequence[int]) -> str:
    names = ", ".join(_name(stack, index) for index in left_out)
    them, was = ("it", "it was") if len(left_out) == 1 else ("them", "they were")
    return (
        f"{names}: no blur explains {them} together with the other frames, so {was} left out. A "
        f"stacked result, a copy of another frame, another scene or movement; remove {them}, or "
        "correct the order."
    )


def _with_lens(
    stack: FocalStack, small: SmallStack, model: _Model, calibration: Calibration, psf: PSF
) -> Calibration:
    """The calibration with doubts about the given focus distances and lens."""
    measured, known = calibration.measured, calibration.blur_scale
    assert measured is not None
    if stack.focus_distances_m is None:
        return calibration
    if _are_dioptres(stack, small, model, calibration, psf):
        doubt = (
            "the focus distances look like dioptres, not metres, so depth in metres is wrong: read "
            "as dioptres they explain the frames clearly better. Give metres: 1 / dioptres."
        )
        return replace(calibration, doubts=(doubt,), trust=0.0)
    if calibration.is_measured:
        return calibration
    assert known is not None
    told = _best(small, psf, [known], small.focus())
    seen = _best(small, psf, [measured.value], small.focus())
    calibration = replace(calibration, known_misfit=told.misfit / seen.misfit)
    ratio = calibration.contradiction
    if ratio is None:
        return calibration
    trust = min(ratio, 1 / ratio)
    for unit, per_m in DISTANCE_UNITS.items():
        if abs(math.log(ratio / per_m)) < _UNIT_TOLERANCE:
            doubt = (
                f"the focus distances look like {unit}, not metres, so depth in metres is wrong: "
                f"the frames show {ratio:.3g} times the blur predicted from camera and distances. "
                f"Give metres, or correct the camera if they are: divide by {per_m:.4g}."
            )
            return replace(calibration, doubts=(doubt,), trust=trust)
    return replace(calibration, trust=trust)


def _are_dioptres(
    stack: FocalStack, small: SmallStack, model: _Model, calibration: Calibration, psf: PSF
) -> bool:
    """Whether the numbers explain the frames clearly better as dioptres than as metres."""
    assert stack.focus_distances_m is not None
    try:
        other = replace(stack, focus_distances_m=1 / stack.focus_distances_m, frames=None)
    except InputError:  # infinity, or all beyond what a list in metres may have
        return False
    as_dioptres = replace(small, stack=other)
    if calibration.is_measured:
        scales = [model.scale * one * small.span / as_dioptres.span for one in _SCALES]
    else:
        assert calibration.blur_scale is not None
        scales = [calibration.blur_scale]
    best = _best(as_dioptres, psf, scales, as_dioptres.focus())
    return best.misfit < _AS_DIOPTRES * model.misfit


def _name(stack: FocalStack, index: int) -> str:
    return f"frame {index + 1}" if stack.frames is None else stack.frames.names[index]
