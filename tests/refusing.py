"""A workshop for tests of engines, in a module that workers import quickly."""

from __future__ import annotations

from focaldiffusion.errors import InputError


class Refusing:
    """Finds that its model is damaged when the first task comes."""

    def open(self) -> Refusing:
        return self

    def run(self, task: int) -> int:
        raise InputError("weights are damaged")

    def need_bytes(self, task: int) -> int:
        return 0

    def lost(self, task: int, how: str) -> int:
        raise AssertionError(how)
