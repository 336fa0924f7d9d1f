"""One browser, one app and one finished job for all browser tests of a module.

They end with it: processes that later tests fork would keep the browser's pipes open, and closing
it would wait for their end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from app_browser import JOB_PATIENCE_MS, App, Visit, chromium, small_example


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("app")
    small_example("still_life", folder / "stacks" / "still_life")
    running = App(folder / "work", folder / "stacks")
    running.start()
    yield running
    running.stop()


@pytest.fixture
def visit(browser: Any, app: App) -> Iterator[Visit]:
    visit = Visit(browser, app)
    yield visit
    visit.check()
    visit.close()


@pytest.fixture(scope="module")
def job(browser: Any, app: App) -> str:
    """A finished job of the small still life, opened and started by clicks."""
    visit = Visit(browser, app)
    page = visit.page
    page.get_by_role("button", name="Folders of this machine").click()
    page.get_by_role("button", name="still_life").click()
    page.get_by_role("button", name="Open this folder").click()
    page.wait_for_selector(".frame-card")
    page.get_by_role("button", name="Reconstruct").click()
    page.wait_for_url("**/#/job/*")
    number = page.url.rpartition("/")[2]
    page.wait_for_selector(".stage-canvas", timeout=JOB_PATIENCE_MS)
    page.locator(".badge").wait_for(state="hidden", timeout=JOB_PATIENCE_MS)
    visit.check()
    visit.close()
    return number
