"""A real browser, headless, that opens pages of this machine."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from progan.errors import DependencyError
from progan.explore.runtime import FILES, PACKAGE, VERSION, copy_runtime
from progan.explore.serving import address, serve
from progan.system.files import cache_folder

HOME_CACHE = os.environ.get("XDG_CACHE_HOME")
"""As it was before tests were given caches of their own."""


def find_browser() -> str:
    """Return the program of a browser, or skip the test."""
    pytest.importorskip("playwright")
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium is installed")


def require_runtime() -> None:
    """Fill this test's cache with the page's runtime, from the user's own or the registry, or skip."""
    target = cache_folder() / f"{PACKAGE}-{VERSION}"
    own = (Path(HOME_CACHE) if HOME_CACHE else Path.home() / ".cache") / "progan" / target.name
    target.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        if (own / file.name).is_file():
            shutil.copyfile(own / file.name, target / file.name)
    try:
        copy_runtime(target)
    except DependencyError as error:
        pytest.skip(str(error))


class Opened:
    """A page in a browser.

    Attributes:
        page: Playwright's.
        said: Errors and warnings of its console.
        asked: Addresses that it asked for.
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda m: self.said.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def elsewhere(self) -> list[str]:
        """Return the addresses that are not of this machine."""
        here = ("http://127.0.0.1:", "blob:", "data:")
        return [each for each in self.asked if not each.startswith(here)]

    def drawn(self) -> int:
        """Return how many pictures the page has drawn."""
        return int(self.page.get_attribute("body", "data-drawn") or 0)

    def after(self, act: Any) -> None:
        """Do something that draws a picture, and wait until it is there."""
        before = self.drawn()
        act()
        for number in range(before + 1, before + 50):
            # Of several asked for at once the last is drawn; it is there when nothing more is wanted.
            self.page.wait_for_selector(f'body[data-drawn="{number}"]', timeout=30000)
            self.page.wait_for_timeout(100)
            if self.drawn() == number:
                return

    def another(self, fragment: str) -> Opened:
        """Open the same page beside it, at a state that its address says, and wait until it is there."""
        beside = Opened(self.page.context.new_page())
        beside.page.goto(self.page.url.split("#")[0] + fragment)
        beside.page.wait_for_selector("body[data-ready]", timeout=60000)
        return beside

    def picture(self) -> Any:
        """Return the pixels of the large picture: [height, width, 4]."""
        import numpy as np

        width, height, data = self.page.evaluate(
            "() => { const c = document.querySelector('#picture');"
            "const t = new OffscreenCanvas(c.width, c.height);"
            "const x = t.getContext('2d', { willReadFrequently: true }); x.drawImage(c, 0, 0);"
            "const d = x.getImageData(0, 0, c.width, c.height);"
            "return [c.width, c.height, Array.from(d.data)]; }"
        )
        return np.array(data, np.uint8).reshape(height, width, 4)


@contextmanager
def opened(folder: Path, flags: Sequence[str] = (), **context: Any) -> Iterator[Opened]:
    """Serve a folder and open its page, in a browser that is started with some flags."""
    from playwright.sync_api import sync_playwright

    program = find_browser()
    with serve(folder) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", *flags])
            try:
                page = browser.new_context(**context).new_page()
                watched = Opened(page)
                page.goto(address(server))
                yield watched
            finally:
                browser.close()
                server.shutdown()
