"""Hooks of the site that MkDocs builds: pages from outside docs/, notebooks, formulas as SVG."""

from __future__ import annotations

import base64
import html
import pathlib
import posixpath
import re
from typing import Any

import matplotlib
import nbformat
import numpy as np
from matplotlib.path import Path
from matplotlib.textpath import TextPath

ROOT = pathlib.Path(__file__).resolve().parents[1]

PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "LICENSE.txt",
    "CITATION.cff": "CITATION.cff",
    "examples/README.md": "examples.md",
    "data/filelists/README.md": "filelists.md",
    "docs/tutorial.ipynb": "tutorial.md",
    "docs/own_data.ipynb": "own_data.md",
}
"""Files of the repository, and what the site calls them; docs/NAME is NAME."""

RUN = {"docs/tutorial.ipynb"}
"""Notebooks that are run when the site is built, and shown with their output; others take long."""

LETTERS = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C"}
FLIPPED = np.tile([1, -1], 3)  # y runs down in SVG

LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
FORMULA = re.compile(
    r'<(?:div|span) class="arithmatex">(\\\[|\\\()(.*?)(?:\\\]|\\\))</(?:div|span)>', re.DOTALL
)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie outside docs/."""
    from mkdocs.structure.files import File

    for source, target in PAGES.items():
        pictures: dict[str, bytes] = {}
        if source.endswith(".ipynb"):
            content, pictures = notebook_page(source)
        else:
            content = (ROOT / source).read_text(encoding="utf-8")
        present = files.get_file_from_path(source.removeprefix("docs/"))
        if present is not None:
            files.remove(present)
        files.append(File.generated(config, target, content=content))
        for name, picture in pictures.items():
            files.append(File.generated(config, name, content=picture))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Point links at the pages of the site; in the sources they are paths of the repository."""
    site = page.file.src_uri
    source = next((one for one, target in PAGES.items() if target == site), f"docs/{site}")

    def relinked(match: re.Match[str]) -> str:
        start, path, anchor, end = match.groups()
        if re.match(r"\w+:", path):
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        page = PAGES.get(target, target.removeprefix("docs/"))
        return f"{start}{posixpath.relpath(page, posixpath.dirname(site))}{anchor or ''}{end}"

    parts = CODE.split(markdown)  # every second part is code
    parts[::2] = [LINK.sub(relinked, part) for part in parts[::2]]
    return "".join(parts)


def on_page_content(html_text: str, **_: Any) -> str:
    """Draw the formulas: they then look alike everywhere, and no script has to come with them."""
    return FORMULA.sub(
        lambda match: formula(html.unescape(match[2]).strip(), is_block=match[1] == r"\["),
        html_text,
    )


def formula(tex: str, *, is_block: bool) -> str:
    """A formula as an inline SVG in the colour and size of the text around it."""
    laid_out = tex.replace(r"\frac", r"\dfrac") if is_block else tex
    with matplotlib.rc_context({"mathtext.fontset": "cm"}):
        path = TextPath((0, 0), f"${' '.join(laid_out.split())}$", size=100)
    outline = []
    for points, code in path.iter_segments(simplify=False):
        numbers = " ".join(f"{value:.0f}" for value in points * FLIPPED[: len(points)])
        outline.append("Z" if code == Path.CLOSEPOLY else f"{LETTERS[code]}{numbers}")
    box = path.get_extents().padded(3)
    size = f'width="{box.width / 100:.2f}em" height="{box.height / 100:.2f}em"'
    view = f"{box.x0:.0f} {-box.y1:.0f} {box.width:.0f} {box.height:.0f}"
    drawing = (
        f'<svg role="img" aria-label="{html.escape(tex, quote=True)}" {size} viewBox="{view}" '
        f'style="vertical-align: {box.y0 / 100:.2f}em; fill: currentColor">'
        f'<path d="{"".join(outline)}"/></svg>'
    )
    return f'<p style="margin-left: 2em">{drawing}</p>' if is_block else drawing


def notebook_page(source: str) -> tuple[str, dict[str, bytes]]:
    """The cells of a notebook as Markdown, and the pictures that it refers to, by path."""
    notebook = nbformat.read(ROOT / source, as_version=4)
    if source in RUN:
        from nbclient import NotebookClient

        NotebookClient(notebook, resources={"metadata": {"path": ROOT}}).execute()
    parts = []
    pictures = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"images/{pathlib.Path(source).stem}_{len(pictures)}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                parts.append(f"![output of this cell]({name})")
            elif text := output.get("text", data.get("text/plain", "")):
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n", pictures
