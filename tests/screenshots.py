"""Screenshots of the pages for the documentation, from a database with one or two models.

    make demo ARGS=--no-ui
    make screenshots DSN='the DSN that it prints'

Writes ``docs/screenshots/*.png``, prints the seconds that each page took to draw, and fails on errors of a page or its
console. It does not change the database. ``tests/test_ui.py`` takes them of its own world.
"""

from __future__ import annotations

import argparse
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import BrowserContext, expect

from ui_browser import Visitor, chromium, served

TARGET = Path(__file__).parents[1] / "docs" / "screenshots"
PAGES = ("Users", "Data", "Recommendations", "Models", "Shown", "Freshness")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--user", default="", help="an id, or its beginning; by default the one with the most likes")
    given = parser.parse_args()
    with chromium() as browser:
        take(browser, given.dsn, TARGET, given.user)


def take(browser: BrowserContext, dsn: str, target: Path, user: str = "") -> None:
    """Every page on a large screen, and the first one also in dark mode and on a phone."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, served(dsn, Path(directory)) as url:
        visitor = Visitor(browser, f"{url}/?find={user}")
        for title in PAGES:
            print(f"{title}: {visitor.go(title):.1f} s")
            if title == "Users":
                _beside(visitor)
            _write(visitor, target / f"{title.lower()}.png")
        visitor.page.close()
        for name in ("dark", "phone"):
            _write(_opened(browser, f"{url}/?find={user}", name), target / f"{name}.png")


def _opened(browser: BrowserContext, url: str, name: str) -> Visitor:
    visitor = Visitor(browser, url, dark=name == "dark", phone=name == "phone")
    visitor.videos("list-A")
    return visitor


def _beside(visitor: Visitor) -> None:
    """Chooses a second model, if there is one. The box loses the focus, whose frame would be in the picture."""
    visitor.page.get_by_role("combobox", name="Model B", exact=True).click()
    visitor.page.get_by_role("option").last.click()
    visitor.settle()
    visitor.page.evaluate("document.activeElement.blur()")


def _write(visitor: Visitor, path: Path) -> None:
    """Writes the visible page with 256 colours: maximum coverage keeps those of small objects, and k-means makes
    those of large areas exact."""
    visitor.settle()
    visitor.page.mouse.move(0, 0)
    visitor.page.wait_for_timeout(1000)  # charts fade in
    expect(visitor.page.get_by_test_id("stException")).to_have_count(0)
    assert visitor.complaints == [], f"{path.stem}: {visitor.complaints}"
    image = Image.open(BytesIO(visitor.page.screenshot())).convert("RGB")
    image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
