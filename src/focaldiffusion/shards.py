"""Parts of a list of work, for job arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from focaldiffusion.errors import InputError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """Every `count`-th item from the `number`-th on; all shards together have each item once.

    Attributes:
        number: from 1 to `count`.
        count: number of shards.
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise InputError(
                f"shard {self.number}/{self.count}: expected a number from 1 to the count, such as "
                "1/3, 2/3 and 3/3."
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard of a text such as `3/20`.

        Raises:
            InputError: it is not one.
        """
        numbers = _numbers(text)
        if numbers is None:
            raise InputError(f"shard {text!r}: expected NUMBER/COUNT, such as 1/3, 2/3 and 3/3.")
        return cls(*numbers)

    @classmethod
    def parse_from_zero(cls, text: str) -> Shard:
        """The shard of a text that counts from 0, such as `0/3`, the first of three.

        Raises:
            InputError: any other text.
        """
        number, count = _numbers(text) or (0, 0)
        if not number < count:
            raise InputError(
                f"shard {text!r}: expected I/N with I from 0 to N - 1, such as 0/3, 1/3 and 2/3, "
                "which are three shards; `batch` and `evaluate` count from 1."
            )
        return cls(number + 1, count)

    def __str__(self) -> str:
        return f"{self.number}-of-{self.count}"

    @property
    def is_whole(self) -> bool:
        """Whether it has every item."""
        return self.count == 1

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Its items; a range of a range."""
        return items[self.number - 1 :: self.count]


def _numbers(text: str) -> tuple[int, int] | None:
    """The two numbers of a text such as `3/20`; None for any other text."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and text.isascii()):
        return None
    return int(number), int(count)
