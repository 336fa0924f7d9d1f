"""A living picture: one file that needs neither server nor network."""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from app_browser import chromium
from PIL import Image
from plant import SIZE, run, write_stack

from focaldiffusion.errors import InputError
from focaldiffusion.living_picture.picture import living_picture
from focaldiffusion.saved import SavedResult

NAME = "<b>plant & co</b>"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("living")
    stack = write_stack(folder / "plant").rename(folder / NAME.replace("/", "-"))
    output = folder / "results"
    assert run("infer", stack, "--output", output, "--threads", "1", "--quiet", "--html") == 0
    return output


def facts_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script id="facts" type="application/json">(.*?)</script>', page, re.S)
    assert found is not None
    facts: dict[str, Any] = json.loads(found[1])
    return facts


def test_the_page_holds_everything_and_asks_for_nothing(results: Path) -> None:
    page = (results / "living_picture.html").read_text("utf-8")
    assert (
        "living_picture.html"
        in json.loads((results / "metadata.json").read_text())["results"]["files"]
    )
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", page)
    assert "http" not in page.replace("http-equiv", "")
    assert "<b>" not in page
    assert "&lt;b&gt;plant &amp; co" in page
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert len(pictures) == 11
    for picture in pictures:
        assert Image.open(io.BytesIO(base64.b64decode(picture))).size == SIZE[::-1]


def test_its_depth_is_that_of_the_results(results: Path) -> None:
    facts = facts_of((results / "living_picture.html").read_text("utf-8"))
    content = zlib.decompress(base64.b64decode(facts["bytes"]))
    count = SIZE[0] * SIZE[1]
    assert facts["has_interval"]
    steps = np.frombuffer(content, "<u2", 3 * count).reshape(3, count)
    nearness = facts["low"] + steps / 65535 * (facts["high"] - facts["low"])
    names = ("depth", "depth_near", "depth_far")
    wanted = [1 / np.load(results / f"{name}.npy").ravel() for name in names]
    np.testing.assert_allclose(nearness, wanted, atol=(facts["high"] - facts["low"]) / 65535)
    sure = np.frombuffer(content, np.uint8, offset=6 * count)
    stored = np.asarray(Image.open(results / "confidence.png")).ravel()
    assert (sure == stored).all()


def test_saved_results_make_the_same_page(results: Path) -> None:
    again = facts_of(living_picture(SavedResult.open(results)))
    first = facts_of((results / "living_picture.html").read_text("utf-8"))
    assert again["size"] == first["size"]
    for name in ("focus", "shown", "low", "high"):
        assert again[name] == pytest.approx(first[name]), name


def test_an_image_alone_makes_none(tmp_path: Path) -> None:
    stack, output = write_stack(tmp_path / "plant"), tmp_path / "results"
    assert run("infer", stack, "--output", output, "--image-only", "--html") == 2
    assert run("infer", stack, "--output", output, "--image-only", "--quiet") == 0
    with pytest.raises(InputError, match="a living picture needs depth"):
        living_picture(SavedResult.open(output))


@pytest.fixture
def page(results: Path) -> Iterator[Any]:
    """The page in a browser without network, opened from disk."""
    with chromium() as browser:
        context = browser.new_context(offline=True, viewport={"width": 900, "height": 700})
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text))
        address = (results / "living_picture.html").as_uri()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        yield page
        assert faults == []
        assert [one for one in asked if not one.startswith(("data:", "blob:"))] == [address]
        context.close()


def opacities(page: Any) -> list[float]:
    shown: list[float] = page.eval_on_selector_all(
        "img.focused", "all => all.map(one => Number(one.style.opacity))"
    )
    return shown


def test_it_focuses_where_one_clicks_and_reads_the_depth(page: Any, results: Path) -> None:
    depth = np.load(results / "depth.npy")
    box = page.locator("#stage").bounding_box()
    for x in (8, 85):
        at = (x + 0.5) / SIZE[1], 0.5
        page.mouse.click(box["x"] + at[0] * box["width"], box["y"] + at[1] * box["height"])
        text = page.locator("#probe").text_content()
        said = float(re.search(r"Depth ([\d.]+) m", text)[1])
        assert said == pytest.approx(float(depth[SIZE[0] // 2, x]), rel=0.01)
        sharpest = int(np.argmax(opacities(page)))
        assert sharpest >= 7 if x == 8 else sharpest <= 3  # pictures go from far to near
    page.get_by_role("button", name="All in focus").click()
    assert page.locator("#sharp").is_visible()


def test_the_keyboard_does_it_all(page: Any) -> None:
    page.keyboard.press("Tab")
    for _ in range(10):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Enter")
    far = int(np.argmax(opacities(page)))
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    assert int(np.argmax(opacities(page))) >= 8 > far
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("#depth").is_visible()
    assert page.locator("#scale").is_visible()
