"""docs/configuration.md agrees with the code; every key is read by something."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo

from focaldiffusion.config.data import SPLITS
from focaldiffusion.config.run import Config
from focaldiffusion.config.section import Section, section_in

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configuration.md"


def sections() -> list[tuple[str, type[Section]]]:
    """Every section once, under the shortest path that leads to it; no base classes of others."""
    found: dict[type[Section], str] = {}
    waiting: list[tuple[str, type[Section]]] = [("", Config)]
    for path, section in waiting:
        if any(issubclass(other, section) for other in found):
            continue
        found[section] = path
        for name, field in section.model_fields.items():
            inner = section_in(field.annotation)
            if inner is not None:
                waiting.append((f"{path}.{name}".removeprefix("."), inner))
    return [(path, section) for section, path in found.items() if section is not Config]


def choices(annotation: Any) -> list[str]:
    """The words that a field takes."""
    if get_origin(annotation) is dict:
        return []
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    return [word for member in get_args(annotation) for word in choices(member)]


def default_of(field: FieldInfo) -> str:
    """The default of a field, and what it may be instead where the choice is limited."""
    if field.is_required():
        return "required"
    value = field.get_default()
    if isinstance(value, Section):
        return "a block"
    text = json.dumps(value).strip('"')
    others = [word for word in choices(field.annotation) if word != text]
    return f"{text} (or {', '.join(others)})" if others else text


def table(section: type[Section]) -> str:
    """The table of a section's keys, as the page has it."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for name, field in section.model_fields.items():
        sentence = " ".join((field.description or "").split())
        rows.append(f"| `{name}` | {default_of(field)} | {sentence} |")
    return "\n".join(rows)


@pytest.mark.parametrize(("path", "section"), sections(), ids=lambda value: str(value))
def test_the_page_has_the_table_of_every_block(path: str, section: type[Section]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert f"### `{path}`\n" in page
    assert table(section) in page, f"write this below the heading {path}:\n{table(section)}"


@pytest.mark.parametrize("section", [Config, *(section for _, section in sections())])
def test_every_key_has_a_sentence(section: type[Section]) -> None:
    silent = [name for name, field in section.model_fields.items() if not field.description]
    assert silent == []


def words_of_code() -> set[str]:
    """Attributes, keywords and strings of the package outside the configuration's own schema."""
    words: set[str] = set()
    package = ROOT / "src" / "focaldiffusion"
    schema = {"data.py", "model.py", "run.py", "training.py"}
    for file in package.rglob("*.py"):
        if file.parent.name == "config" and file.name in schema:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                words.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (part if isinstance(part, ast.Constant) else None for part in node.values)
                words.add("".join(str(part.value) if part else "*" for part in parts))
    return words


def test_every_key_is_read() -> None:
    words = words_of_code()
    words |= {pattern.replace("*", split) for pattern in words for split in SPLITS}
    unread = [
        f"{path}.{name}"
        for path, section in sections()
        for name in section.model_fields
        if name not in words
    ]
    assert unread == [], "a key that nothing reads lies to its user"
