"""The page of the app under use: keyboard alone, contrast, closed tabs, and hostile names."""

from __future__ import annotations

import json
import shutil
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
    page.locator(".home-open .picture-card").first.click()
    page.wait_for_selector(".frame-card")
    ratios["stack"] = lowest_contrast(page)
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

    # Another tab removes the job that this one shows.
    other = visit.open()
    other.evaluate("(job) => fetch(`/api/jobs/${job}`, { method: 'DELETE' })", job)
    other.close()
    visit.page.get_by_text("still_life was removed.").first.wait_for()
    visit.page.wait_for_selector(".drop")


def test_two_jobs_are_queued_by_keyboard_alone(visit: Visit, app: App) -> None:
    page = visit.page
    press = page.keyboard.press

    def go_to(name: str) -> None:
        for _ in range(40):
            press("Tab")
            if page.evaluate("document.activeElement.textContent.trim()") == name:
                return
        raise AssertionError(f"Tab does not reach {name!r}")

    jobs = []
    for _ in range(2):
        page.wait_for_selector(".drop")
        go_to("Folders of this machine")
        press("Enter")
        page.locator("dialog .folder", has_text="still_life").wait_for()
        go_to("still_life")
        press("Enter")
        page.get_by_text("still_life · 6 images").wait_for()
        go_to("Open this folder")
        press("Enter")
        page.wait_for_selector(".frame-card")
        press("Control+Enter")
        press("Control+Enter")  # a second time by mistake
        page.wait_for_url("**/#/job/*")
        jobs.append(page.url.rpartition("/")[2])
        press("n")
    listed = page.evaluate("async () => (await fetch('/api/jobs')).json()")
    states = {one["id"]: one["state"] for one in listed}
    assert len([one for one in listed if one["state"] in ("queued", "running")]) == 2
    assert states[jobs[1]] == "queued"
    press("q")
    rows = page.locator(".job-list .job")
    assert rows.nth(0).locator(".muted").inner_text() == "waiting"
    assert page.locator(".count").inner_text() == "2"
    for number in (0, 1):  # the waiting one first
        rows.nth(number).get_by_role("button", name="Cancel").click()
    page.locator(".job.cancelled").nth(1).wait_for()
    for _ in jobs:
        page.get_by_role("button", name="Remove still_life").first.click()
        page.wait_for_timeout(100)
    press("Escape")


def test_ten_tabs_probe_at_once(browser: Any, app: App, job: str) -> None:
    depth_m = np.load(app.folder_of(job) / "result" / "depth.npy")
    visits = [Visit(browser, app) for _ in range(10)]
    for visit in visits:
        visit.page.goto(f"{app.home}#/job/{job}")
    for number, visit in enumerate(visits):
        visit.page.wait_for_selector(".stage-canvas")
        visit.painted()
        visit.page.mouse.move(*visit.place(20 + 30 * number, 120))
    for number, visit in enumerate(visits):
        x = 20 + 30 * number
        readout = visit.page.locator(f'.readout[data-pixel="{x},120"]')
        readout.wait_for()
        assert float(readout.get_attribute("data-value")) == float(depth_m[120, x])
        visit.check()
        visit.close()


def test_a_tab_does_not_undo_the_strokes_of_another(visit: Visit, job: str) -> None:
    first = visit.show(job)
    other = visit.open()
    strokes = [{"tool": "source", "frame": 1, "size_px": 9, "softness": 0, "points": [[50, 50]]}]
    path = f"/api/jobs/{job}/retouch"
    send = """async ([path, body]) => (await fetch(path, {
      method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    })).json()"""
    first.keyboard.press("b")
    first.get_by_text("No strokes yet").wait_for()
    revision = other.evaluate("async (path) => (await fetch(path)).json()", path)["revision"]
    made = other.evaluate(send, [path, {"strokes": strokes, "revision": revision}])
    visit.click(200, 60)
    first.get_by_text("another tab has changed the retouching meanwhile").first.wait_for()
    first.get_by_text("1 stroke", exact=True).wait_for()
    (kept,) = other.evaluate("async (path) => (await fetch(path)).json()", path)["strokes"]
    assert kept["points"] == [[50, 50]]
    other.evaluate(send, [path, {"strokes": [], "revision": made["revision"]}])


def test_a_browser_without_webgl_keeps_the_picture(visit: Visit, job: str) -> None:
    visit.context.add_init_script(
        """HTMLCanvasElement.prototype.getContext = new Proxy(
          HTMLCanvasElement.prototype.getContext,
          { apply: (get, canvas, [kind, ...more]) =>
            kind.startsWith("webgl") ? null : Reflect.apply(get, canvas, [kind, ...more]) },
        );"""
    )
    visit.page = visit.open()
    page = visit.show(job)
    before = visit.pixels()
    page.keyboard.press("d")
    page.get_by_text("This browser has no WebGL 2").wait_for()
    visit.settle()
    np.testing.assert_array_equal(visit.pixels(), before)
    assert page.locator(".stage-canvas").is_visible()


def sixty_megapixels(job: Path, folder: Path) -> None:
    """A copy of a finished job whose image has 60 megapixels that tell their own place."""
    height, width = 6000, 10000
    shutil.copytree(job, folder)
    result = folder / "result"
    for file in ("depth.npy", "confidence.png"):
        (result / file).unlink()
    facts = json.loads((result / "metadata.json").read_text(encoding="utf-8"))
    facts["alignment"]["crop"] |= {"top": 0, "left": 0, "height": height, "width": width}
    (result / "metadata.json").write_text(json.dumps(facts), encoding="utf-8")
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    (folder / "state.json").write_text(json.dumps({**state, "id": folder.name}), encoding="utf-8")
    y, x = np.arange(height)[:, None], np.arange(width)
    image = np.empty((height, width, 3), np.uint8)  # blue, green, red
    image[..., 0], image[..., 1], image[..., 2] = x // 256 + y // 256, y % 256, x % 256
    cv2.imwrite(str(result / "all_in_focus.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    cv2.imwrite(str(result / "source_index.png"), np.zeros((height, width), np.uint8))


def test_sixty_megapixels_are_seen_down_to_single_ones(
    browser: Any, app: App, job: str, tmp_path: Path
) -> None:
    number = "0123456789ab"
    sixty_megapixels(app.folder_of(job), tmp_path / "work" / "jobs" / number)
    large = App(tmp_path / "work", app.root)
    large.start()
    visit = Visit(browser, large)
    tiles: list[str] = []
    visit.page.on("request", lambda one: "/layers/image/" in one.url and tiles.append(one.url))
    page = visit.show(number)
    box = page.locator(".stage-canvas").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    for _ in range(12):
        page.mouse.wheel(0, -600)
    visit.settle()
    assert page.locator(".zoom").inner_text() == "6400 %"
    assert len(tiles) < 40
    pixels = visit.pixels()[:, :, :3].astype(int)
    readout = page.locator(".readout[data-pixel]")
    for shift in (-172, 20, 212):  # three pixels apart, and off the lines between pixels
        at = middle[0] + shift, middle[1] + 20
        page.mouse.move(*at)
        page.wait_for_timeout(300)
        x, y = (int(value) for value in readout.get_attribute("data-pixel").split(","))
        seen = pixels[round(at[1] - box["y"]), round(at[0] - box["x"])]
        assert seen.tolist() == [x % 256, y % 256, x // 256 + y // 256]
    visit.check()
    visit.close()
    large.stop()


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
    page.get_by_text("The server does not answer.").first.wait_for()
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
