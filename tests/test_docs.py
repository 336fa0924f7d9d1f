"""The Python blocks of the documentation run, its configurations load, what it links to exists."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from focaldiffusion.config.load import load_config

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    page for folder in (".", "docs", "examples") for page in sorted(ROOT.glob(f"{folder}/*.md"))
]

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CONFIGURATION = re.compile(r"^```yaml\n# configs/(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks() -> list[object]:
    """Every Python block, by page and line."""
    found: list[object] = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in BLOCK.finditer(text):
            line = text[: block.start(1)].count("\n")
            name = f"{page.relative_to(ROOT).as_posix()}:{line + 1}"
            # Blank lines before it, so that a traceback shows the line of the page.
            found.append(pytest.param(page, "\n" * line + block[1], id=name))
    return found


@pytest.mark.parametrize(("page", "source"), blocks())
def test_python_block_runs(page: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(source, page, "exec"), {"__name__": "__main__"})


def configurations() -> list[object]:
    """Every configuration that a page tells the reader to write, by its name."""
    return [
        pytest.param(name, content, id=name)
        for page in PAGES
        for name, content in CONFIGURATION.findall(page.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize(("name", "content"), configurations())
def test_configuration_loads(
    name: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in re.findall(r"\$\{(\w+)\}", content):
        monkeypatch.setenv(variable, str(tmp_path))
    folder = tmp_path / "configs"
    shutil.copytree(ROOT / "configs", folder)
    (folder / name).write_text(content, encoding="utf-8")
    assert load_config(folder / name).notices == ()


def anchor(heading: str) -> str:
    """The anchor that a heading gets: lower case, spaces to hyphens, no punctuation."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    headings = {anchor(title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    dead = []
    for target in LINK.findall(text):
        path, _, fragment = target.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        if path and not (page.parent / path).exists():
            dead.append(target)
        if not path and fragment not in headings:
            dead.append(target)
    assert dead == []
