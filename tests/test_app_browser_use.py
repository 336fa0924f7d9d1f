"""The page of the app under use: keyboard alone, contrast, closed tabs, and hostile names."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from app_browser import JOB_PATIENCE_MS, App, Visit, small_example

LEAST_CONTRAST = 4.5
"""Contrast of text on its ground: level AA of WCAG 2.2."""

CONTRASTS = """() => {
  const channels = (text) => {
    const found = (text.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
    return [...found.slice(0, 3), found[3] ?? 1];
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((value) => value / 255)
      .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const over = (top, below) =>
    top.slice(0, 3).map((value, at) => value * top[3] + below[at] * (1 - top[3]));
  const ground = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) {
      layers.push(channels(getComputedStyle(at).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [0, 0, 0]);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    const isShown = node.checkVisibility({ visibilityProperty: true });
    if (!text || !isShown || node.closest("button:disabled, .unseen, noscript")) continue;
    const below = ground(node);
    const ink = over(channels(getComputedStyle(node).color), below);
    const [low, high] = [luminance(ink), luminance(below)].sort((a, b) => a - b);
    found.push([(high + 0.05) / (low + 0.05), text]);
  }
  return found;
}"""


def lowest_contrast(page: Any) -> tuple[float, str]:
    """The lowest contrast of any text of the page, with the text."""
    found = page.evaluate(CONTRASTS)
    assert found
    ratio, text = min(found)
    return float(ratio), str(text)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_text_stands_out(browser: Any, app: App, job: str, theme: str) -> None:
    visit = Visit(browser, app, color_scheme=theme)
    page = visit.page
    page.wait_for_selector(".picture-card")
    ratios = {"home": lowest_contrast(page)}
    visit.show(job)
    for tool in "vmrdbe":
        page.keyboard.press(tool)
        ratios[tool] = lowest_contrast(page)
    page.keyboard.press("v")
    page.keyboard.press("z")
    page.keyboard.press("w")
    ratios["wipe"] = lowest_contrast(page)
    page.keyboard.press("?")
    ratios["help"] = lowest_contrast(page)
    page.keyboard.press("Escape")
    page.keyboard.press("q")
    ratios["jobs"] = lowest_contrast(page)
    assert {place: found for place, found in ratios.items() if found[0] < LEAST_CONTRAST} == {}
    visit.check()
    visit.close()


def test_everything_by_keyboard(visit: Visit, job: str) -> None:
    page = visit.show(job)
    press = page.keyboard.press

    press("ArrowLeft")  # to the stage: the crosshair appears
    page.locator(".readout[data-pixel]").wait_for()
    press("ArrowLeft")
    press("m")
    press("ArrowLeft")
    press("Enter")
    for _ in range(3):
        press("ArrowRight")
    press("Enter")
    page.locator(".measurements b").wait_for()

    press("r")
    press("Enter")
    page.locator(".strip-item", has_text="Sharp:").wait_for()
    press("i")
    press("w")
    assert page.evaluate("document.activeElement.className") == "divider"
    press("w")

    press("b")
    page.get_by_text("No strokes yet").wait_for()
    press("ArrowRight")
    press("ArrowLeft")
    press("Space")
    for _ in range(4):
        press("ArrowRight")
    with page.expect_response("**/retouch"):
        press("Space")
    page.get_by_text("1 stroke", exact=True).wait_for()
    with page.expect_response("**/retouch"):
        press("Control+z")
    page.get_by_text("No strokes yet").wait_for()

    press("e")
    press("?")
    page.locator("dialog kbd").first.wait_for()
    press("Escape")
    page.locator("dialog").wait_for(state="detached")


def test_focus_is_seen_at_every_stop(visit: Visit, job: str) -> None:
    page = visit.show(job)
    stops = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        name, is_seen = page.evaluate(
            """() => {
              const at = document.activeElement;
              const drawn = [at, at.nextElementSibling, at.firstElementChild].filter(Boolean);
              const pseudo = getComputedStyle(at, "::before").outlineStyle !== "none";
              return [
                at.getAttribute("aria-label") ?? at.textContent.trim() ?? at.tagName,
                pseudo || drawn.some((node) => getComputedStyle(node).outlineStyle !== "none")
                  || at === document.body,
              ];
            }"""
        )
        assert is_seen, name
        stops.add(name)
    assert {"Look", "Measure", "Refocus", "3-D", "Retouch", "Take away", "Fit (0)"} <= stops


def test_every_control_has_a_name(visit: Visit, job: str) -> None:
    page = visit.show(job)
    for tool in "vmrdbe":
        page.keyboard.press(tool)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll(
                "button, a, input, select, [role=slider], canvas[tabindex]")]
              .filter((node) => node.checkVisibility())
              .filter((node) => !(node.getAttribute("aria-label") || node.textContent.trim()
                || node.title || node.labels?.length))
              .map((node) => node.outerHTML)"""
        )
        assert nameless == []


def test_tablet_shows_everything_without_scrolling_the_page(
    browser: Any, app: App, job: str
) -> None:
    visit = Visit(browser, app, viewport={"width": 820, "height": 1180}, has_touch=True)
    page = visit.show(job)
    for tool in ("Look", "Measure", "Refocus", "Retouch", "Take away"):
        page.locator(".rail-button", has_text=tool).tap()
        assert page.evaluate("document.documentElement.scrollWidth") == 820
        assert page.locator(".stage-canvas").bounding_box()["height"] > 500
    small = page.evaluate(
        """() => [...document.querySelectorAll(".rail button, .bar button, .stage-tools button")]
          .map((node) => node.getBoundingClientRect())
          .filter(({ width, height }) => width < 44 || height < 44).length"""
    )
    assert small == 0
    visit.check()
    visit.close()


def test_closed_tab_finds_its_job_again(visit: Visit, app: App) -> None:
    page = visit.page
    job = page.evaluate(
        """async (root) => {
          const headers = { "Content-Type": "application/json" };
          const send = async (path, body) => (await fetch(path, {
            method: "POST", headers, body: JSON.stringify(body),
          })).json();
          const draft = await send("/api/drafts", { root, path: "still_life" });
          return (await send("/api/jobs", { draft: draft.id, options: { image_only: true } })).id;
        }""",
        "0",
    )
    page.goto(f"{app.home}#/job/{job}")
    page.wait_for_selector(".waiting .progress, .stage-canvas")
    page.close()
    visit.page = visit.open()
    visit.page.locator(f'.picture-card[href="#/job/{job}"]').click()
    visit.page.wait_for_selector(".stage-canvas", timeout=JOB_PATIENCE_MS)
    visit.page.locator(".badge").wait_for(state="hidden", timeout=JOB_PATIENCE_MS)
    assert visit.page.locator('.strip-item[data-layer="depth"]').count() == 0
    visit.page.evaluate("(job) => fetch(`/api/jobs/${job}`, { method: 'DELETE' })", job)


def picture(name: str, width: int = 64, height: int = 48) -> dict[str, Any]:
    """A small picture to upload."""
    noise = np.random.default_rng(len(name)).integers(0, 255, (height, width, 3), np.uint8)
    content = cv2.imencode(".png", noise)[1].tobytes()
    return {"name": name, "mimeType": "image/png", "buffer": content}


def test_names_are_text(visit: Visit) -> None:
    page = visit.page
    name = "<img src=x onerror=document.title='broken'>.png"
    page.get_by_label("Frames to open").set_input_files([picture(name), picture("b&amp;<b>.png")])
    page.wait_for_selector(".frame-card")
    assert name in page.locator(".frame-name").all_inner_texts()
    assert page.locator(".frame-name *").count() == 0
    assert page.title() != "broken"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([{"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"}], "notes.txt"),
        ([picture("a.png"), picture("b.png", width=80)], "b.png"),
    ],
    ids=["not an image", "two sizes"],
)
def test_refusal_is_a_sentence_on_the_page(visit: Visit, files: list[Any], said: str) -> None:
    page = visit.page
    page.get_by_label("Frames to open").set_input_files(files)
    sentence = page.locator(".notice.error p, .findings .error, .frame-card .error-text").first
    sentence.wait_for()
    assert said in sentence.inner_text()


def test_server_that_was_killed_goes_on(browser: Any, tmp_path: Path) -> None:
    small_example("still_life", tmp_path / "stacks" / "still_life")
    app = App(tmp_path / "work", tmp_path / "stacks")
    app.start()
    visit = Visit(browser, app)
    page = visit.page
    page.get_by_role("button", name="Folders of this machine").click()
    page.get_by_role("button", name="still_life").click()
    page.get_by_role("button", name="Open this folder").click()
    page.get_by_label("Image alone").check()
    page.get_by_role("button", name="Reconstruct").click()
    page.wait_for_url("**/#/job/*")
    job = page.url.rpartition("/")[2]
    app.stop(signal.SIGKILL)
    app.start()
    visit.close()

    visit = Visit(browser, app)
    visit.page.goto(f"{app.home}#/job/{job}")
    retry = visit.page.get_by_role("button", name="Try again")
    visit.page.locator(".stage-canvas").or_(retry).first.wait_for(timeout=JOB_PATIENCE_MS)
    if retry.is_visible():
        assert visit.page.locator(".waiting .error-text").inner_text()
        retry.click()
    visit.page.wait_for_selector(".stage-canvas", timeout=JOB_PATIENCE_MS)
    visit.check()
    visit.close()
    app.stop()
