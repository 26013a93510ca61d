"""Pictures of the pages for the documentation, of a database with a model or two.

    make demo
    .venv/bin/python tests/screenshots.py --dsn 'the DSN that it prints'

Writes ``docs/screenshots/*.png``. Nothing in the database is changed; hosts of thumbnails are not asked for any.
"""

from __future__ import annotations

import argparse
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect

from ui_browser import Visitor, chromium, served

TARGET = Path(__file__).parents[1] / "docs" / "screenshots"
PAGES = ("Users", "Data", "Recommendations", "Models", "Freshness")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--user", default="", help="an id, or its beginning; by default the one with the most likes")
    given = parser.parse_args()
    TARGET.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as directory,
        served(given.dsn, Path(directory)) as url,
        chromium() as browser,
    ):
        visitor = Visitor(browser, url)
        for title in PAGES:
            visitor.go(title)
            if title == "Users":
                box = visitor.page.get_by_role("textbox", name="Find a user")
                box.fill(given.user)
                box.press("Enter")
                visitor.settle()
                visitor.page.get_by_role("combobox", name="Model B", exact=True).click()
                visitor.page.get_by_role("option").last.click()
                expect(visitor.page.get_by_role("heading", name="Model B: ")).to_be_visible()
            visitor.settle()
            visitor.page.mouse.move(0, 0)
            visitor.page.wait_for_timeout(1000)  # charts fade in
            write(visitor.page.screenshot(), TARGET / f"{title.lower()}.png")


def write(png: bytes, path: Path) -> None:
    """With 256 colours, chosen so that those of small things stay."""
    image = Image.open(BytesIO(png)).convert("RGB")
    image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
