"""Prior: depth of a scene from elsewhere, such as a monocular network, in a scale of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from focaldiffusion.errors import InputError, check_shape, unknown_name

if TYPE_CHECKING:  # configurations name the kinds before torch is needed
    from torch import Tensor


class PriorKind(str, Enum):
    """The scale that a prior speaks.

    Metric depth is in metres along the optical axis. Affine depth is a·z + b, affine inverse depth
    a/z + b, with a > 0 and b unknown and the same for all pixels.
    """

    METRIC_DEPTH = "metric-depth"
    AFFINE_DEPTH = "affine-depth"
    AFFINE_INVERSE_DEPTH = "affine-inverse-depth"

    __str__ = str.__str__  # the word itself, as in Python 3.11's StrEnum

    @classmethod
    def of(cls, word: str) -> PriorKind:
        """The kind that a word names.

        Raises:
            InputError: none; names them all.
        """
        try:
            return cls(word)
        except ValueError:
            raise InputError(f"kind of prior {word!r} {unknown_name(str(word), cls)}") from None


@dataclass(frozen=True, eq=False)
class Prior:
    """Depth of an image, from elsewhere.

    Attributes:
        values: (H, W) float32 at the size of the image, in the scale of `kind`; NaN where unknown.
            Metric depth is positive; no value is infinite.
        kind: the scale of the values; its word is taken too.
        name: its origin, for messages and provenance.

    Raises:
        InputError: no such kind.
    """

    values: Tensor
    kind: PriorKind
    name: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", PriorKind.of(self.kind))
        check_shape("Prior.values", self.values, ("H", "W"))
        known = self.values.isfinite()
        if self.kind is PriorKind.METRIC_DEPTH:
            known &= self.values > 0
        values = self.values.float().masked_fill(~known, float("nan"))
        object.__setattr__(self, "values", values)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.values.shape[0], self.values.shape[1]

    def checked(self) -> Prior:
        """The prior itself.

        Raises:
            InputError: no value is known.
        """
        if bool(self.values.isnan().all()):
            expected = "a positive number" if self.kind is PriorKind.METRIC_DEPTH else "a number"
            raise InputError(
                f"{self.name}: the prior holds no depth anywhere; expected {expected} for some "
                "pixels at least. Give another prior, or none."
            )
        return self

    def mapped(self, plane: Callable[[Tensor], Tensor]) -> Prior:
        """The prior with a change to its values (H, W), such as a crop, which may leave none."""
        return replace(self, values=plane(self.values))


class PriorSource(Protocol):
    """Gives the prior of an image: a network, or a file."""

    @property
    def name(self) -> str:
        """Its origin, for messages and provenance."""

    def __call__(self, image: Tensor) -> Prior:
        """The prior of an image.

        Args:
            image: (3, H, W) sRGB in [0, 1], the fused all-in-focus image.

        Returns:
            The prior at the size of the image, on its device.

        Raises:
            InputError: the prior does not fit the image.
        """
