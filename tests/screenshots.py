"""Pictures of the pages for the documentation, of a database with a model or two.

    make demo ARGS=--no-ui
    make screenshots DSN='the DSN that it prints'

Writes ``docs/screenshots/*.png``, says how many seconds each page took to be drawn, and fails where one does, or a
console complains of one. Nothing in the database is changed. ``tests/test_ui.py`` takes them of its own world.
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
    """Every page on a large screen, and the first of them in the dark and on a phone."""
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
    """A second model, where there is one. The box keeps no focus, whose frame would be in the picture."""
    visitor.page.get_by_role("combobox", name="Model B", exact=True).click()
    visitor.page.get_by_role("option").last.click()
    visitor.settle()
    visitor.page.evaluate("document.activeElement.blur()")


def _write(visitor: Visitor, path: Path) -> None:
    """What is to be seen, with 256 colours, chosen so that those of small things stay."""
    visitor.settle()
    visitor.page.mouse.move(0, 0)
    visitor.page.wait_for_timeout(1000)  # charts fade in
    expect(visitor.page.get_by_test_id("stException")).to_have_count(0)
    assert visitor.complaints == [], f"{path.stem}: {visitor.complaints}"
    image = Image.open(BytesIO(visitor.page.screenshot())).convert("RGB")
    image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
