"""Files of the page: complete, packaged, without markup from data and without other hosts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import focaldiffusion

STATIC = Path(focaldiffusion.__file__).parent / "app" / "static"
MODULES = sorted(STATIC.rglob("*.js"))
MOST_LINES = 450

FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser"
)
"""Ways from text to markup or code. A file's name is text, whatever it contains."""

ADDRESS = re.compile(r"https?://([\w.-]+)")
NAMED_ONLY = {"www.w3.org", "registry.khronos.org"}
"""Hosts in names of formats and in comments; nothing is requested from them."""

IMPORT = re.compile(r"(?:\bfrom |\bimport\()\"(\.\.?/.+?)\"")


def imported(module: Path) -> list[Path]:
    """Modules that a module imports."""
    return [
        (module.parent / path).resolve()
        for path in IMPORT.findall(module.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize("file", sorted(STATIC.rglob("*.*")), ids=lambda file: file.name)
def test_page_makes_no_markup_from_text_and_names_no_host(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert FORBIDDEN.findall(text) == []
    assert set(ADDRESS.findall(text)) <= NAMED_ONLY
    assert len(text.splitlines()) <= MOST_LINES


def test_every_module_is_reached_from_the_page() -> None:
    waiting, reached = [STATIC / "js" / "main.js"], set()
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += imported(module)
    assert reached == {module.resolve() for module in MODULES}


def test_every_style_is_linked_and_no_script_is_inline() -> None:
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    styles = re.findall(r'href="/static/(css/\w+\.css)"', page)
    assert sorted(styles) == sorted(f"css/{style.name}" for style in STATIC.rglob("*.css"))
    assert re.findall(r"<script(?![^>]*\bsrc=)[^>]*>", page) == []
    assert re.findall(r"\bon\w+=|\bstyle=", page) == []
