"""Texts from files never steer a terminal or a page."""

from __future__ import annotations

import pickle

import pytest

from focaldiffusion.errors import InputError, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 日本 ½ \N{NO-BREAK SPACE}.", "plain é 日本 ½ \N{NO-BREAK SPACE}."),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\x9b2J\x7f\x00", r"\x9b2J\x7f\x00"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("gnp\u202e.exe \u2066\u200f\ufeff", r"gnp\u202e.exe \u2066\u200f\ufeff"),
        ("line\u2028para\u2029", r"line\u2028para\u2029"),
        ("byte \udcff, surrogate \ud800", r"byte \xff, surrogate \ud800"),
        ("tag \U000e0041", r"tag \U000e0041"),
        ("family \U0001f468\u200d\U0001f469", "family \U0001f468\u200d\U0001f469"),
        (r"C:\new\x1b", r"C:\new\x1b"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == printable(shown) == shown
    shown.encode()


def test_own_line_breaks_may_stay() -> None:
    assert printable("a\n\x1b", keep="\n") == "a\n\\x1b"


def test_errors_are_printable_also_from_another_process() -> None:
    error = InputError("a\x1b[2J\nb: broken.")
    assert str(error) == r"a\x1b[2J\nb: broken."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
