"""The error that a route answers as one sentence."""

from __future__ import annotations

from focaldiffusion.errors import printable


class AppError(Exception):
    """A request that cannot be answered; the sentence is for the user.

    Attributes:
        status: HTTP status, 400 to 599.
        sentence: what is wrong, and the remedy.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, printable(sentence)
