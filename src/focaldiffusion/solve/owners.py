"""Owners of outlines: which of its two sides is as near as an outline shows.

Blur at an outline tells the depth of the nearer side, whichever it is. So a bare card before a
textured wall is as near as its outline, and a bare wall behind a textured card is not. Segments of
the image take one plane of the scene each, or the surface that texture gives them. With the depths
d_A and d_B of a contact's sides, larger where nearer, and the evidence e along it, the labels keep

    Σ contacts: doubt_e(max(d_A, d_B)) + price · [d_A ≠ d_B]   +   Σ segments: doubt inside

low. Segments of one colour on both sides of something narrow share a price too, so that a wall
behind a fence stays one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.solve.labelling import least_cost_labels
from focaldiffusion.solve.planes import image_coordinates, planes_through
from focaldiffusion.solve.segments import Cracks, facing_pairs, find_segments, relabelled

Array = NDArray[Any]

_CONTACT_PX = 20  # contacts are cut at a grid of this width
_BAND_PX = 2  # evidence this near to a crack belongs to the contact
_INSIDE_PX = 3  # farther from all cracks, it belongs to the segment
_INSIDE_WEIGHT = 0.1
_ENOUGH_DOUBT = 1.0  # doubt, summed across a contact, that is worth half of the utmost
_JUMP_PRICE = 0.1  # per pixel of contact, for a step of depth of ...
_JUMP_STEPS = 1.5  # ... this number of hypotheses and more
_RECESSION_PRICE = 0.01  # of that, per hypothesis: a surface recedes no farther than it must
_FACING_PRICE = 0.4  # per pair of facing pixels, for different depths
_SLANT_PRICE = 15.0  # of a slanted plane, which fits by chance more easily than a level one
_BEYOND_PRICE = 1.0  # per pixel of outline, for a segment that leaves the range of depth
_BEYOND_QUANTILE = 0.02  # of inverse depth at sure pixels; half of it bounds the range
_SURE = 3.0  # doubt about the worst hypothesis, from which a pixel is sure
_CLEAR = 0.3  # weight per pixel, from which a contact shows a depth
_SHOWN = (0.1, 0.5, 0.9)  # quantiles, by weight, of the depths that an outline shows
_CLOSE_PRICE = 8.0  # sum of costs by which a label may be above the best, and still compete
_LABELS = 40  # most promising planes of a segment
_SAMPLES = 600  # pixels of a segment at which planes are compared
_TEXTURED = 0.35  # share of supported pixels in a textured segment
_SUPPORT = 1.0  # mean doubt above that of the surface, from which a pixel supports it
_BUSY = 0.12  # share of cracks in a window around textured segments that are joined ...
_BUSY_PX = 10  # ... and its half size
_STEP_FREE_PX = 8  # radius without a depth step, where textured segments are joined
_STEP = 3.0  # hypotheses


@dataclass(frozen=True, eq=False)
class _Doubt:
    """Doubt about each hypothesis at each pixel.

    Attributes:
        hypotheses: (K,) ascending, larger where nearer.
        pixels: (K, H, W), -log of the posterior over its maximum.
    """

    hypotheses: Array
    pixels: Array

    def rank(self, coordinate: Array) -> Array:
        """Coordinates as fractional indices of hypotheses, extrapolated beyond the outermost."""
        steps = self.hypotheses
        after = np.clip(np.searchsorted(steps, coordinate), 1, len(steps) - 1)
        before = after - 1
        return before + (coordinate - steps[before]) / (steps[after] - steps[before])

    @property
    def farthest(self) -> float:
        """The end of the range of depth, a little behind all that is sure."""
        sure = self.hypotheses[self.pixels.argmin(0)[self.pixels.max(0) > _SURE]]
        return np.quantile(sure, _BEYOND_QUANTILE) / 2 if len(sure) else self.hypotheses[0]

    def within(self, coordinate: Array, pixels: Array) -> Array:
        """Sum (...) of doubt about coordinates (..., P) at flat indices of pixels (P,)."""
        last = len(self.hypotheses) - 1
        rank = np.clip(self.rank(coordinate), 0, last)
        before = np.minimum(rank.astype(int), last - 1)
        flat, share = self.pixels.reshape(last + 1, -1), rank - before
        return (flat[before, pixels] * (1 - share) + flat[before + 1, pixels] * share).sum(-1)


@dataclass(frozen=True, eq=False)
class _Contacts:
    """Stretches along which two segments touch, and stretches across which two face each other.

    Attributes:
        sides: (M, 2) segments, ascending.
        places: (M, 2, 2) row and column [px] on either side.
        doubt: (M, K) cost of the nearer side's hypothesis; zero where segments only face.
        price: (M,) cost of a step of depth.
        length_px: (M,), zero where segments only face.
        shown: (M,) coordinate that the evidence shows.
        weight: (M,) how clearly it does.
    """

    sides: Array
    places: Array
    doubt: Array
    price: Array
    length_px: Array
    shown: Array
    weight: Array


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Labels of one segment: planes and, last, the given surface.

    Attributes:
        planes: (L, 3) coefficients of `plane_basis`.
        own: (L + 1,) cost of each label.
        contacts: (m,) indices of the segment's contacts.
        ranks: (L + 1, m) depth at each, as an index of the hypotheses.
    """

    planes: Array
    own: Array
    contacts: Array
    ranks: Array


@dataclass(frozen=True, eq=False)
class Owned:
    """A surface by the owners of outlines, and what may be changed about it.

    Attributes:
        surface: (H, W).
        segments: (H, W) integers.
        joined: (H, W) integers, J segments after those within one textured surface are joined.
        levels: those that the outline of each of the J shows, ascending.
        competing: (2, H, W) least and greatest coordinate that costs little more than the best.
    """

    surface: Tensor
    segments: Tensor
    joined: Tensor
    levels: list[Array]
    competing: Tensor


def owned_surface(
    hypotheses: Tensor,
    doubt: Tensor,
    guide: Tensor,
    surface: Tensor,
    planes: Tensor,
    noise_std: float,
) -> Owned:
    """A surface that agrees with the evidence at outlines, whoever owns them.

    Args:
        hypotheses: (K,) ascending, larger where nearer.
        doubt: (K, H, W), see `Evidence.doubt`.
        guide: (3, H, W) sRGB.
        surface: (H, W) a surface that is right where there is texture.
        planes: (P, 3) planes of the scene, coefficients of `plane_basis`.
        noise_std: of the guide, see `filters.noise_std`.
    """
    evidence = _Doubt(hypotheses.cpu().double().numpy(), doubt.cpu().numpy())
    image = np.ascontiguousarray(guide.permute(1, 2, 0).cpu().numpy())
    given = surface.cpu().numpy()
    segments = find_segments(image, noise_std)
    parts = _textured_joined(segments, evidence, given)
    contacts = _contacts(parts, evidence, image)
    farthest = evidence.farthest
    candidates = _all_candidates(
        parts, evidence, contacts, given, planes.cpu().double().numpy(), farthest
    )
    found = least_cost_labels([one.own for one in candidates], _joint_costs(contacts, candidates))
    result, competing = np.empty(given.shape), np.empty((2, *given.shape))
    for pixels, one, label, rises in zip(
        _pixels_of(parts), candidates, found.labels, found.rises, strict=True
    ):
        y, x = np.divmod(pixels, parts.shape[1])
        close = np.flatnonzero(rises < _CLOSE_PRICE)  # with the label itself
        depth = np.concatenate([one.planes @ _basis(y, x, parts.shape), given[y, x][None]])
        result[y, x] = depth[label]
        competing[:, y, x] = depth[close].min(0), depth[close].max(0)
    result, competing = (
        field.clip(evidence.hypotheses[0], evidence.hypotheses[-1]) for field in (result, competing)
    )
    return Owned(
        torch.from_numpy(result).to(surface),
        torch.from_numpy(segments).to(surface.device),
        torch.from_numpy(parts).to(surface.device),
        [_shown_levels(contacts, one.contacts, farthest) for one in candidates],
        torch.from_numpy(competing).to(surface),
    )


def _shown_levels(contacts: _Contacts, mine: Array, farthest: float) -> Array:
    """Levels that the outline of a segment shows, where it shows one clearly."""
    clear = mine[contacts.weight[mine] > _CLEAR * np.maximum(contacts.length_px[mine], 1)]
    shown, weight = contacts.shown[clear], contacts.weight[clear]
    order = shown.argsort()
    total = weight[order].cumsum()
    if not len(total):
        return total
    chosen = np.unique(shown[order][np.searchsorted(total, np.array(_SHOWN) * total[-1])])
    return chosen[chosen >= farthest]


def _textured_joined(segments: Array, doubt: _Doubt, surface: Array) -> Array:
    """Segments, joined where they lie within one textured surface.

    Otherwise small ones would fall behind it: their contacts are explained by their neighbours.
    """
    rank = np.clip(doubt.rank(surface), 0, len(doubt.hypotheses) - 1).astype(np.float32)
    kernel = np.ones((3, 3), np.uint8)
    even = cv2.medianBlur(rank, 5)  # keeps steps, but not the scatter of fine hypotheses
    smooth = cv2.dilate(even, kernel) - cv2.erode(even, kernel) <= _STEP
    quiet = cv2.distanceTransform(smooth.astype(np.uint8), cv2.DIST_L2, 5) > _STEP_FREE_PX
    here = np.take_along_axis(doubt.pixels, rank.round().astype(int)[None], 0)[0]
    supported = doubt.pixels.mean(0) - here > _SUPPORT
    sizes = np.bincount(segments.ravel())
    textured = np.bincount(segments.ravel(), supported.ravel()) >= _TEXTURED * sizes
    cracks = Cracks.of(segments)
    first, second = tuple(cracks.first.T), tuple(cracks.second.T)
    cracked = np.zeros(segments.shape, np.float32)
    cracked[first] = 1
    window = 2 * _BUSY_PX + 1
    # The least share nearby: outlines of bare things are busy on neither side.
    busy = cv2.erode(cv2.blur(cracked, (window, window)), np.ones((window, window), np.uint8))
    near = cv2.blur(supported.astype(np.float32), (7, 7))
    inner = (busy[first] > _BUSY) & quiet[first] & (near[first] > 0.3)
    inner &= textured[segments[first]] & textured[segments[second]]
    sides = np.sort([segments[first], segments[second]], axis=0)
    pairs, index = np.unique(sides, axis=1, return_inverse=True)
    mostly = np.bincount(index.ravel(), inner) >= 0.5 * np.bincount(index.ravel())
    same = np.arange(len(sizes))
    for one, other in pairs[:, mostly].T:
        same[same == same[other]] = same[one]
    return relabelled(segments, same)


def _contacts(segments: Array, doubt: _Doubt, guide: Array) -> _Contacts:
    cracks = Cracks.of(segments)
    pixels = np.stack([cracks.first, cracks.second], 1)  # (C, 2, 2)
    touching = _Stretches.of(segments, pixels)
    # Evidence near a crack belongs to its contact.
    near = np.full(segments.shape, -1)
    for side in (0, 1):
        near[tuple(pixels[:, side].T)] = touching.index
    distance_px, nearest = cv2.distanceTransformWithLabels(
        (near < 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    contact_of = np.zeros(nearest.max() + 1, int)
    contact_of[nearest[near >= 0]] = near[near >= 0]
    band = distance_px <= _BAND_PX
    owner, count = contact_of[nearest[band]], len(touching.sides)
    total = np.stack([np.bincount(owner, plane[band], count) for plane in doubt.pixels], 1)
    # A surface may be off by a hypothesis: half of the doubt forgives that.
    padded = np.pad(total, ((0, 0), (1, 1)), mode="edge")
    forgiving = np.minimum(total, np.minimum(padded[:, 2:], padded[:, :-2]))
    mean = _above_least((total + forgiving) / 2) / touching.count[:, None]
    raw = _above_least(total) / touching.count[:, None]

    facing = facing_pairs(segments, guide)
    across = _Stretches.of(segments, np.stack(facing[:2], 1), facing[2])
    none = np.zeros(len(across.sides))
    return _Contacts(
        np.concatenate([touching.sides, across.sides]),
        np.concatenate([touching.places, across.places]),
        np.concatenate(
            [
                touching.count[:, None] * mean / (mean + _ENOUGH_DOUBT),
                np.zeros((len(none), len(doubt.hypotheses))),
            ]
        ).astype(np.float32),
        np.concatenate([_JUMP_PRICE * touching.count, _FACING_PRICE * across.count]),
        np.concatenate([touching.count, none]),
        np.concatenate([doubt.hypotheses[raw.argmin(1)], none]),
        np.concatenate([touching.count * raw.mean(1) / (raw.mean(1) + _ENOUGH_DOUBT), none]),
    )


def _above_least(costs: Array) -> Array:
    return costs - costs.min(1, keepdims=True)


@dataclass(frozen=True, eq=False)
class _Stretches:
    """Pairs of pixels of two segments, gathered where they lie in one cell of a grid.

    Attributes:
        sides: (M, 2) segments, ascending.
        places: (M, 2, 2) mean row and column on either side.
        count: (M,) sum of weights of the pairs.
        index: (P,) the stretch of each pair.
    """

    sides: Array
    places: Array
    count: Array
    index: Array

    @classmethod
    def of(cls, segments: Array, pixels: Array, weights: Array | None = None) -> _Stretches:
        """Gather pairs of pixels (P, 2, 2)."""
        sides = np.stack([segments[tuple(pixels[:, side].T)] for side in (0, 1)], 1)
        order = sides.argsort(1)
        sides = np.take_along_axis(sides, order, 1)
        pixels = np.take_along_axis(pixels, order[..., None], 1)
        keys = np.concatenate([sides, pixels[:, 0] // _CONTACT_PX], 1)
        unique, index = np.unique(keys, axis=0, return_inverse=True)
        index = index.ravel()
        number = np.bincount(index)
        places = np.stack(
            [
                np.bincount(index, pixels[:, side, axis]) / number
                for side in (0, 1)
                for axis in (0, 1)
            ],
            1,
        ).reshape(-1, 2, 2)
        return cls(unique[:, :2], places, np.bincount(index, weights), index)


def _all_candidates(
    segments: Array,
    doubt: _Doubt,
    contacts: _Contacts,
    surface: Array,
    planes: Array,
    farthest: float,
) -> list[_Candidates]:
    count, size = int(segments.max()) + 1, segments.shape
    pixels = _pixels_of(segments)
    touched: list[list[int]] = [[] for _ in range(count)]
    for contact, (one, other) in enumerate(contacts.sides.tolist()):
        touched[one].append(contact)
        touched[other].append(contact)
    cracks = Cracks.of(segments)
    apart = np.ones(size, np.uint8)
    apart[tuple(cracks.first.T)] = apart[tuple(cracks.second.T)] = 0
    inside = (cv2.distanceTransform(apart, cv2.DIST_L2, 5) > _INSIDE_PX).ravel()
    bends = _bends(segments, doubt, surface)
    bend_of = np.bincount(segments.ravel(), bends.ravel())
    # The least promising contact still asks for the best hypothesis at or before a depth.
    hopes = np.minimum.accumulate(contacts.doubt[:, ::-1], 1)[:, ::-1]
    level = np.zeros((len(doubt.hypotheses), 3))
    level[:, 2] = doubt.hypotheses
    result = []
    for segment in range(count):
        mine = np.array(touched[segment], int)
        side = (contacts.sides[mine, 1] == segment).astype(int)
        places = contacts.places[mine, side]
        basis = _basis(places[:, 0], places[:, 1], size)
        clear = contacts.weight[mine] > _CLEAR * np.maximum(contacts.length_px[mine], 1)
        own_planes = planes_through(
            basis[:, clear],
            contacts.shown[mine][clear],
            contacts.weight[mine][clear],
            doubt.hypotheses,
        )
        tried = np.concatenate([level, planes, own_planes])
        some = pixels[segment][:: max(1, len(pixels[segment]) // _SAMPLES)]
        depth = tried @ _basis(some // size[1], some % size[1], size)
        inner = inside[some]
        scale = _INSIDE_WEIGHT * len(pixels[segment]) / len(some)
        own = scale * doubt.within(depth[:, inner], some[inner])
        outside = (depth < farthest) | (depth > doubt.hypotheses[-1])
        own += _BEYOND_PRICE * contacts.length_px[mine].sum() * outside.mean(1)
        own += _SLANT_PRICE * (tried[:, :2] != 0).any(1)
        ranks = doubt.rank(tried @ basis)
        nearest = ranks.round().astype(int).clip(0, len(doubt.hypotheses) - 1)
        promise = own + hopes[mine, nearest].sum(1)
        best = promise.argsort(kind="stable")[:_LABELS]
        as_given = scale * doubt.within(surface.ravel()[some[inner]], some[inner])
        y, x = (places.round().astype(int).clip(0, np.array(size) - 1)).T
        ranks = np.concatenate([ranks[best], doubt.rank(surface[y, x])[None]])
        result.append(
            _Candidates(
                tried[best],
                np.append(own[best], as_given + bend_of[segment]).astype(np.float32),
                mine,
                ranks.clip(0, len(doubt.hypotheses) - 1).astype(np.float32),
            )
        )
    return result


def _pixels_of(segments: Array) -> list[Array]:
    """Flat indices of the pixels of each segment."""
    order = segments.ravel().argsort(kind="stable")
    return np.split(order, np.bincount(segments.ravel()).cumsum()[:-1])


def _basis(y: Array, x: Array, size: tuple[int, int]) -> Array:
    """(3, P) basis of planes at rows and columns [px]."""
    u, v = image_coordinates(x, y, size)
    return np.stack([u, v, np.ones_like(u)])


def _bends(segments: Array, doubt: _Doubt, surface: Array) -> Array:
    """(H, W) price of bends of a surface within a segment, where no evidence calls for them."""
    rank = doubt.rank(surface)
    silent = np.exp(-cv2.blur(doubt.pixels.max(0) - doubt.pixels.min(0), (5, 5)))
    price = np.zeros(segments.shape)
    for turned in (False, True):
        ranks, parts, target = ((field.T if turned else field) for field in (rank, segments, price))
        bend = np.abs(np.diff(ranks, n=2, axis=0)) / _JUMP_STEPS
        target[1:-1] += bend.clip(0, 1) * (parts[2:] == parts[:-2])
    return _JUMP_PRICE * silent * price


def _joint_costs(
    contacts: _Contacts, candidates: list[_Candidates]
) -> dict[tuple[int, int], Array]:
    """Cost (L_a, L_b) of the labels of two segments with contacts."""
    places = [
        {int(contact): position for position, contact in enumerate(one.contacts)}
        for one in candidates
    ]
    by_pair: dict[tuple[int, int], list[int]] = {}
    for contact, (one, other) in enumerate(contacts.sides.tolist()):
        by_pair.setdefault((one, other), []).append(contact)
    last = contacts.doubt.shape[1] - 1
    joint = {}
    for (one, other), shared in by_pair.items():
        a = candidates[one].ranks[:, [places[one][contact] for contact in shared]].T[:, :, None]
        b = candidates[other].ranks[:, [places[other][contact] for contact in shared]].T[:, None]
        nearer, apart = np.maximum(a, b), np.abs(a - b)
        before = np.minimum(nearer.astype(int), last - 1)
        which, share = np.arange(len(shared))[:, None, None], nearer - before
        doubt = contacts.doubt[shared]
        cost = doubt[which, before] * (1 - share) + doubt[which, before + 1] * share
        step = np.minimum(apart / _JUMP_STEPS, 1) + _RECESSION_PRICE * apart
        cost += contacts.price[shared][:, None, None] * step
        joint[one, other] = cost.sum(0).astype(np.float32)
    return joint
