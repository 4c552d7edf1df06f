"""The page and the report of a run in headless Chromium: how fast they are, and pictures of them.

    python benchmarks/page.py RUN [--images docs/images] [--seconds 5] [--title Glyphs]

Tells how long the first pictures take from opening the page on (those that lie beside it, and the first
that is computed), and how many pictures a second a slider makes that never stands still; then writes
explore.png, explore-dark.png, explore-phone.png and report.webp.
Needs `chromium` on the PATH and the extras `dev`, `onnx` and `report`.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import threading
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from progan.explore.about import about_of, directions_of
from progan.explore.serving import address, serve
from progan.explore.web_page import write_page
from progan.models.loading import load
from progan.report.html_page import write_report

LOOKS = {
    "explore": {"viewport": {"width": 1280, "height": 1000}},
    "explore-dark": {"viewport": {"width": 1280, "height": 1000}, "color_scheme": "dark"},
    "explore-phone": {"viewport": {"width": 400, "height": 850}, "has_touch": True, "device_scale_factor": 2},
}

MOVE = """seconds => new Promise(done => {
  const slider = document.querySelector("#share"), begun = performance.now();
  const before = Number(document.body.dataset.drawn);
  const step = now => {
    slider.value = (0.5 + 0.5 * Math.sin(now / 400)).toFixed(3);
    slider.dispatchEvent(new Event("input"));
    const passed = (now - begun) / 1000;
    if (passed < seconds) requestAnimationFrame(step);
    else done((Number(document.body.dataset.drawn) - before) / passed);
  };
  requestAnimationFrame(step);
})"""


def measure(page: Page, where: str, seconds: float) -> None:
    begun = time.perf_counter()
    page.goto(where)
    page.wait_for_selector("body[data-preview]")
    print(f"first picture after {time.perf_counter() - begun:.2f} s")
    page.wait_for_selector("body[data-drawn]")
    print(f"first picture that was computed after {time.perf_counter() - begun:.2f} s")
    page.wait_for_selector("body[data-ready]")
    made = page.evaluate(MOVE, seconds)
    print(f"a slider makes {made:.1f} pictures a second ({page.inner_text('#runtime')})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--title")
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder, G = Path(name), load(options.run)
        about = about_of(options.run, G, options.title)
        write_page(G, folder, about, directions=directions_of(options.run, G), offline=True)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with serve(folder) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            measure(browser.new_page(), address(server), options.seconds)
            for look, context in LOOKS.items() if options.images else ():
                page = browser.new_context(**context).new_page()  # type: ignore[arg-type]
                page.goto(address(server))
                page.wait_for_selector("body[data-ready]")
                page.screenshot(path=options.images / f"{look}.png", full_page=look != "explore-phone")
            server.shutdown()
        if options.images and (options.run / "stats.jsonl").is_file():
            report = write_report([options.run], folder / "report.html")
            page = browser.new_context(viewport={"width": 1280, "height": 1000}).new_page()
            page.goto(report.as_uri())
            page.wait_for_selector(".js-plotly-plot .main-svg")
            page.wait_for_timeout(1000)
            # A PNG would be several times as large: it has many small pictures in it.
            with Image.open(io.BytesIO(page.screenshot())) as shot:
                shot.convert("RGB").save(options.images / "report.webp", quality=85, method=6)
        browser.close()


if __name__ == "__main__":
    main()
