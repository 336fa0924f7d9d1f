"""Refusals of the app in a real browser: each is a sentence that can be read on the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from app_browser import FOREIGN_HOST, App, Visit
from PIL import Image

MOST_FILES = 1000


def picture(name: str, width: int = 64, height: int = 48) -> dict[str, Any]:
    """A small picture to upload."""
    noise = np.random.default_rng(len(name)).integers(0, 255, (height, width, 3), np.uint8)
    content = cv2.imencode(".png", noise)[1].tobytes()
    return {"name": name, "mimeType": "image/png", "buffer": content}


def said(visit: Visit) -> str:
    """The sentence that the page shows."""
    sentence = visit.page.locator(".notice.error p, .findings .error, .frame-card .error-text")
    sentence.first.wait_for()
    return " ".join(sentence.all_inner_texts())


def test_names_are_text(visit: Visit) -> None:
    page = visit.page
    name = "<img src=x onerror=document.title='broken'>.png"
    page.get_by_label("Frames to open").set_input_files([picture(name), picture("b&amp;<b>.png")])
    page.wait_for_selector(".frame-card")
    assert name in page.locator(".frame-name").all_inner_texts()
    assert page.locator(".frame-name *").count() == 0
    assert page.title() != "broken"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([{"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"}], "notes.txt"),
        ([picture("a.png"), picture("b.png", width=80)], "b.png: 80x48, but"),
        ([picture("a.png")], "a.png: the only frame; a focal stack needs at least 2"),
    ],
    ids=["not an image", "two sizes", "one frame"],
)
def test_refused_files(visit: Visit, files: list[Any], words: str) -> None:
    visit.page.get_by_label("Frames to open").set_input_files(files)
    assert words in said(visit)


def test_a_bomb_is_not_decoded(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (50_000, 40_000)).save(path)
    frames = visit.page.get_by_label("Frames to open")
    content = path.read_bytes()
    bomb = {"name": "bomb.png", "mimeType": "image/png", "buffer": content}
    frames.set_input_files([picture("a.png"), bomb])
    assert "bomb.png: declares 50000x40000 pixels; expected at most 400 megapixels" in said(visit)
    assert visit.page.get_by_role("button", name="Reconstruct").is_disabled()


def test_files_beyond_the_limits_are_not_sent(visit: Visit, tmp_path: Path) -> None:
    large = tmp_path / "large.tif"
    with large.open("wb") as file:
        file.truncate(2 * 2**30)  # a hole: nothing is on the disk
    frames = visit.page.get_by_label("Frames to open")
    frames.set_input_files(large)
    assert "large.tif: 2.1 GB; a file may have at most 1.1 GB." in said(visit)

    visit.page.reload()
    many = tmp_path / "many"
    many.mkdir()
    for number in range(5 * MOST_FILES):
        (many / f"{number}.png").touch()
    visit.page.get_by_label("Folder to open").set_input_files(many)
    assert f"5000 files; at most {MOST_FILES} can be opened at once" in said(visit)
    assert visit.sent == []


def test_nothing_outside_the_roots_is_opened(visit: Visit, app: App, tmp_path: Path) -> None:
    page = visit.page
    # The page itself offers nothing outside; this is what it shows of a server that refuses.
    page.route(
        "**/api/drafts",
        lambda route: route.continue_(post_data=json.dumps({"root": "0", "path": "../../etc"})),
    )
    page.get_by_role("button", name="Folders of this machine").click()
    page.get_by_role("button", name="still_life").click()
    page.get_by_role("button", name="Open this folder").click()
    assert "../../etc: lies outside the folders that were given at the start" in said(visit)
    page.unroute("**/api/drafts")

    secret = tmp_path / "secret.png"
    secret.write_bytes(picture("secret.png")["buffer"])
    linked = app.root / "linked"
    linked.mkdir()
    (linked / "a.png").write_bytes(secret.read_bytes())
    (linked / "b.png").symlink_to(secret)
    (app.root / "link").symlink_to(tmp_path)
    page.reload()
    page.get_by_role("button", name="Folders of this machine").click()
    page.get_by_role("button", name="linked").click()
    assert page.get_by_role("button", name="link", exact=True).count() == 0
    page.get_by_role("button", name="Open this folder").click()
    assert "b.png: leads outside the folder that may be read" in said(visit)


def test_strangers_read_why_they_are_refused(browser: Any, app: App) -> None:
    context = browser.new_context()
    page = context.new_page()
    assert page.goto(app.home).status == 403
    alert = page.get_by_role("alert")
    assert "needs the address with the token" in alert.inner_text()

    token = app.address.partition("?")[2]
    foreign = app.home.replace("127.0.0.1", FOREIGN_HOST)
    assert page.goto(f"{foreign}?{token}").status == 403
    assert f"the address names the host '{FOREIGN_HOST}:" in alert.inner_text()
    assert context.cookies() == []

    # A page of another site, in a browser that has the cookie.
    page.goto(app.address)
    form = f'<form method="post" action="{app.home}api/drafts"><button>Go</button></form>'
    page.route(foreign, lambda route: route.fulfill(content_type="text/html", body=form))
    page.goto(foreign)
    page.get_by_role("button", name="Go").click()
    origin = foreign.rstrip("/")
    assert f"the request comes from a page of '{origin}', which may not" in alert.inner_text()
    context.close()
