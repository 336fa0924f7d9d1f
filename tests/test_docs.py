"""Python blocks of the pages and the notebook run, configurations load, links are alive."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
from archives import write_archive
from nbclient import NotebookClient
from plant import run
from ruamel.yaml import YAML

from focaldiffusion.config.load import load_config

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    page
    for folder in (".", "docs", "examples", "data/filelists")
    for page in sorted(ROOT.glob(f"{folder}/*.md"))
]

BLOCK = re.compile(r"^```python([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CONFIGURATION = re.compile(r"^```yaml\n# configs/(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
GENERATED = re.compile(r"^::: (\S+)$", re.MULTILINE)

NOT_RUN: set[str] = set()
"""Pages with blocks marked `python no-run REASON`: those that need a GPU or a download."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[int, str, str]]:
    """Line, mark and source of every Python block of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        (text[: block.start(2)].count("\n"), block[1].strip(), block[2])
        for block in BLOCK.finditer(text)
    ]


WITH_BLOCKS = [page for page in PAGES if blocks(page)]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder like the repository's root, for blocks that write."""
    for name in ("examples", "configs", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def make_set() -> None:
    """The results of a batch, which the page on archives reads."""
    pytest.importorskip("zarr")
    manifest = write_archive(Path("archive"), 1)
    where = ("--output", "results", "--zarr", "results.zarr", "--quiet", "--workers", "1")
    fast = ("--device", "cpu", "--align", "off", "--working-size", "48")
    assert run("batch", manifest, *where, *fast) == 0


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name_of)
def test_python_blocks_run_in_order(
    page: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    if name_of(page) == "docs/archives.md":
        make_set()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for line, mark, source in blocks(page):
        if not mark:
            # Blank lines before it, so that a traceback shows the line of the page.
            exec(compile("\n" * line + source, page, "exec"), namespace)


def test_blocks_that_do_not_run_are_few_and_have_a_reason() -> None:
    marks = {name_of(page): mark for page in PAGES for _, mark, _ in blocks(page) if mark}
    assert all(re.fullmatch(r"no-run \w.*", mark) for mark in marks.values()), marks
    assert marks.keys() == NOT_RUN


@pytest.mark.parametrize(
    ("name", "parameters", "written"),
    [
        ("tutorial", None, "tutorial/metadata.json"),
        (
            "own_data",
            "image_size, epochs, working_size = [64, 80], 2, 64",
            "own_data/run/checkpoints/best/focaldiffusion.json",
        ),
    ],
)
def test_a_notebook_runs(name: str, parameters: str | None, written: str, checkout: Path) -> None:
    notebook = nbformat.read(ROOT / "docs" / f"{name}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    if parameters is not None:
        (cell,) = (one for one in notebook.cells if "parameters" in one.metadata.get("tags", ()))
        cell.source = parameters
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": checkout}}
    ).execute()
    assert (checkout / "outputs" / written).is_file()


def configurations() -> list[object]:
    """Every configuration that a page asks the reader to write, by its name."""
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


def anchors(page: Path) -> set[str]:
    """The anchors of a page: headings in lower case with hyphens, and generated names."""
    text = page.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", one.strip().lower()).replace(" ", "-") for one in titles}
    return slugs | set(GENERATED.findall(text))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    dead = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, fragment = link.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        target = page.parent / path if path else page
        if not target.exists() or (fragment and fragment not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_documented_names_exist() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in GENERATED.findall(page):
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/algorithm.md"])
def test_named_files_exist(page: str) -> None:
    """Paths are below the package or the root; a bare name is in the folder of the one before."""
    missing, folder = [], ROOT
    for path in re.findall(r"`([\w/]+(?:\.py|/))`", (ROOT / page).read_text(encoding="utf-8")):
        places = [base / path for base in (ROOT / "src" / "focaldiffusion", ROOT, folder)]
        found = next((place for place in places if place.exists()), None)
        if found is None:
            missing.append(path)
        else:
            folder = found.parent
    assert missing == []


def test_every_page_is_in_the_navigation_of_the_site(site: ModuleType) -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r": (\S+\.md)$", text, re.MULTILINE))
    own = {page.name for page in (ROOT / "docs").glob("*.md")}
    others = {page for page in site.PAGES.values() if page.endswith(".md")}
    assert listed == own | others


@pytest.fixture(scope="module")
def site() -> ModuleType:
    """The hooks of the site, which live beside the pages."""
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_site_builds_and_requests_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > len(WITH_BLOCKS)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"<(?:img|script|iframe)[^>]+src=[\"']?(?:https?:)?//[^>]*>", text) == []
        assert re.findall(r"<link[^>]+href=[\"']?(?:https?:)?//[^>]*>", text) == []


def test_formulas_become_drawings(site: ModuleType) -> None:
    page = site.on_page_content(r'<div class="arithmatex">\[\frac{a}{b} &lt; c\]</div>')
    assert 'aria-label="\\frac{a}{b} &lt; c"' in page
    assert page.count("<svg") == 1
    assert "arithmatex" not in page


def test_links_of_the_site_stay_within_it(site: ModuleType) -> None:
    class Readme:
        class file:
            src_uri = "index.md"

    text = "[a](docs/data.md#add-one) [b](examples/README.md) `[c](docs/d.md)`"
    assert site.on_page_markdown(text, page=Readme) == (
        "[a](data.md#add-one) [b](examples.md) `[c](docs/d.md)`"
    )


def test_citation_has_what_the_format_needs() -> None:
    citation = YAML(typ="safe").load(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation.keys() >= {"message", "title", "authors", "version", "license"}
    assert citation["authors"] == [{"name": "The FocalDiffusion developers"}]
