"""A finished result as the page sees it: its layers as pyramids on disk, with the retouching."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.errors import InputError
from focaldiffusion.fusion.retouch import Canvas, Rectangle, Retouch, Stroke, union
from focaldiffusion.io.colour_scales import DepthRange
from focaldiffusion.io.pyramid import Pyramid
from focaldiffusion.io.results import METADATA_FILE, RETOUCH_FILE
from focaldiffusion.io.staging import alone_in
from focaldiffusion.saved import SavedResult

_RETOUCHED = ("image", "source", "depth", "confidence")


class Place(NamedTuple):
    """Where a result lies; light enough for the server, which imports nothing of this.

    Attributes:
        results: folder that `infer` wrote.
        cache: folder of the pyramids, which can be made again.
        strokes: the file of the retouching; None for a draft, which is not retouched.
    """

    results: str
    cache: str
    strokes: str | None = None


class View:
    """The layers of a result, opened when they are first seen."""

    def __init__(self, place: Place, stamp: int) -> None:
        """Open a result.

        Args:
            place: of the result.
            stamp: of its `metadata.json`; the cache of an earlier result is removed.

        Raises:
            InputError: no results are there.
        """
        self.saved = SavedResult.open(Path(place.results))
        self.cache = Path(place.cache, str(stamp))
        self._kept = None if place.strokes is None else Path(place.strokes)
        if self.cache.parent.exists():
            for other in self.cache.parent.iterdir():
                if other != self.cache:
                    shutil.rmtree(other, ignore_errors=True)
        self.cache.mkdir(parents=True, exist_ok=True)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every layer."""
        return self.saved.size

    @property
    def frame_numbers(self) -> tuple[int, ...]:
        """Numbers of the frames, as in the source index."""
        return self.saved.alignment.kept

    @cached_property
    def depth_range(self) -> DepthRange | None:
        """Range of the depth before retouching; None without any known depth."""
        if self.saved.depth_field is None:
            return None
        return DepthRange.of(self.pristine("depth").native, self.saved.depth_field)

    @cached_property
    def screen_values(self) -> NDArray[np.uint8]:
        """Table from the values of the image to 8 bits for the screen."""
        white = np.iinfo(self.pristine("image").native.dtype).max
        shares = np.arange(white + 1, dtype=np.float32) / np.float32(white)
        return np.rint(self.saved.levels.normalised(shares) * 255).astype(np.uint8)

    def layer(self, name: str) -> Pyramid:
        """The pyramid of a layer, with the retouching.

        Raises:
            InputError: there is no such layer.
        """
        if name in _RETOUCHED and self.strokes:
            with alone_in(self.cache):  # several processes show one result
                if strokes := self.strokes:
                    self._replay(strokes)
                    return self._retouched(name)
        return self.pristine(name)

    def pristine(self, name: str) -> Pyramid:
        """The pyramid of a layer without retouching.

        Raises:
            InputError: there is no such layer.
        """
        if name in ("depth", "confidence") and self.saved.depth_field is None:
            raise InputError(f"{self.saved.name}: only the image was wanted, so it has no {name}.")
        number = name.removeprefix("frame-")
        if number != name and number.isdecimal() and int(number) in self.frame_numbers:
            index = self.frame_numbers.index(int(number))
            return self._pyramid(name, lambda: self.saved.frame_pixels(index))
        makers = {
            "image": lambda: self.saved.pixels,
            "source": lambda: self.saved.source_index,
            "depth": lambda: self.saved.depth,
            "confidence": lambda: np.rint(self.saved.confidence * 255).astype(np.uint8),
        }
        if name not in makers:
            raise InputError(f"layer {name!r}: expected {', '.join(makers)} or frame-NUMBER.")
        return self._pyramid(name, makers[name])

    def _pyramid(self, name: str, make: Any, *, writable: bool = False) -> Pyramid:
        is_image = name.endswith("image") or name.startswith("frame-")
        return Pyramid.opened(self.cache / name, make, is_image=is_image, writable=writable)

    def _retouched(self, name: str) -> Pyramid:
        pristine = self.pristine(name)
        return self._pyramid(f"retouched-{name}", lambda: pristine.native, writable=True)

    # The strokes of a result, and what of them is in its retouched layers.

    @property
    def revision(self) -> int:
        """Number of changes by retouching."""
        return int(self._state.get("revision", 0))

    @property
    def strokes(self) -> tuple[Stroke, ...]:
        """The strokes that the result has; none if they are those of an earlier result."""
        if not self._state:
            return ()
        retouch = Retouch.of(self._state, RETOUCH_FILE)
        try:
            self._check(retouch)
        except InputError:
            return ()
        return retouch.strokes

    @property
    def _state(self) -> dict[str, Any]:
        """The retouching on disk, with its revision."""
        path = self._kept
        if path is None or not path.exists():
            return {}
        state: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return state

    def _check(self, retouch: Retouch) -> None:
        has_depth = self.saved.depth_field is not None
        retouch.check(self.size, self.frame_numbers, self.saved.name, has_depth=has_depth)

    def retouch(self, values: object, revision: object) -> tuple[Rectangle | None, int]:
        """Replace the strokes.

        Args:
            values: the list of strokes, as in `retouch.json`.
            revision: the one that they replace.

        Returns:
            The rectangle that has changed, and the number of changes so far.

        Raises:
            InputError: a stroke is none, or sets depth where there is none; or another page has
                changed the strokes meanwhile.
        """
        path = self._kept
        if path is None:
            raise InputError(f"{self.saved.name}: this is the draft; retouch the full result.")
        retouch = Retouch.of({"size": list(self.size), "strokes": values}, "retouching")
        self._check(retouch)
        with alone_in(self.cache):
            if revision != self.revision:
                raise InputError(
                    f"{self.saved.name}: another tab has changed the retouching meanwhile. Its "
                    "strokes are shown now; paint yours again."
                )
            # Drawn before they are kept: a stroke that cannot be drawn must not come back.
            changed = self._replay(retouch.strokes)
            _write(path, {**retouch.summary(), "revision": self.revision + 1})
            return changed, self.revision

    def _replay(self, wanted: Sequence[Stroke]) -> Rectangle | None:
        """Bring the retouched layers up to date, and return the rectangle that has changed."""
        log = self.cache / "drawn.json"
        if log.exists():
            drawn = Retouch.of(json.loads(log.read_text("utf-8")), log.name).strokes
        else:  # never drawn, or interrupted
            drawn = ()
            for name in _RETOUCHED:
                shutil.rmtree(self.cache / f"retouched-{name}", ignore_errors=True)
        if drawn == tuple(wanted):
            return None
        log.unlink(missing_ok=True)
        names = [n for n in _RETOUCHED if n in ("image", "source") or self.saved.depth_field]
        layers = {name: self._retouched(name) for name in names}
        changed: list[Rectangle | None] = []
        more = wanted[len(drawn) :]
        if tuple(wanted[: len(drawn)]) != drawn:
            more = wanted
            changed = [found[0] for one in drawn if (found := one.mask(self.size))]
            if (old := union(changed)) is not None:
                left, top, right, bottom = old
                for name, pyramid in layers.items():
                    native = self.pristine(name).native[top:bottom, left:right]
                    pyramid.native[top:bottom, left:right] = native
        canvas = Canvas(*(layers[name].native for name in names))
        changed += [canvas.apply(stroke, self._frame) for stroke in more]
        if (rectangle := union(changed)) is not None:
            left, top, right, bottom = rectangle
            for pyramid in layers.values():
                pyramid.update(rectangle, pyramid.native[top:bottom, left:right])
        _write(log, Retouch(self.size, tuple(wanted)).summary())
        return rectangle

    def _frame(self, number: int) -> NDArray[Any]:
        return self.pristine(f"frame-{number}").native


def _write(path: Path, values: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(values, allow_nan=False), "utf-8")
    partial.replace(path)


def view_of(place: tuple[str, str, str | None]) -> View:
    """The view of a result; the last few stay open.

    Raises:
        InputError: no results are there.
    """
    try:
        stamp = Path(place[0], METADATA_FILE).stat().st_mtime_ns
    except OSError:
        raise InputError("this job has no result to look at yet.") from None
    return _opened(Place(*place), stamp)


@lru_cache(maxsize=4)
def _opened(place: Place, stamp: int) -> View:
    return View(place, stamp)
