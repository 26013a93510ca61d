"""``two-tower ui`` in a separate process, and Debian's Chromium to open it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import urlopen

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # requests of a page to other hosts fail
]
PICTURE = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 9"><rect width="16" height="9" fill="#7aa2c8"/></svg>'
)
PATIENCE = 40_000
"""Milliseconds to wait for an expected change; a machine that builds beside the tests is slow."""


@contextmanager
def served(dsn: str, directory: Path, *options: str) -> Iterator[str]:
    """Serves the page for a database and yields its address. ``directory`` gets the log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "two-tower"), "ui", "--port", str(port), *options]
    log = directory / f"ui-{port}.log"
    environment = os.environ | {"DATABASE_URL": dsn, "HOME": str(directory)}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=directory) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(f"{url}/_stcore/health", process, log)
            yield url
        finally:
            process.terminate()


class Pictures(BaseHTTPRequestHandler):
    """Serves the same picture at every address."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "image/svg+xml")
        self.end_headers()
        self.wfile.write(PICTURE)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def pictures() -> Iterator[str]:
    """The address of a server of pictures."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < until and process.poll() is None:
        try:
            with urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"two-tower ui does not answer:\n{log.read_text()}")


@contextmanager
def chromium(height: int = 1000) -> Iterator[BrowserContext]:
    """A headless Chromium with an empty profile, which the pages of one context share."""
    program = shutil.which("chromium")
    assert program, "chromium is not installed; run ./setup.sh --test"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        context = browser.new_context(
            viewport={"width": 1440, "height": height}, timezone_id="UTC", locale="en-GB", color_scheme="light"
        )
        context.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        yield context
        browser.close()


DRAWN = """title => document.querySelector('h1')?.innerText === title
    && document.querySelector('[data-testid="stApp"]').dataset.testScriptState === 'notRunning'
    && !document.querySelector('[data-stale="true"], [data-testid="stSkeleton"]')
    && [...document.querySelectorAll('[data-testid="stVegaLiteChart"]')].every(chart => chart.querySelector('svg'))"""
"""Whether the page with a title has been run to its end, with its charts."""


class Visitor:
    """One visit: a page, the errors of its console, and the hosts that it requested."""

    def __init__(self, browser: BrowserContext, url: str, *, phone: bool = False, dark: bool = False) -> None:
        self.complaints: list[str] = []
        self.hosts: set[str | None] = set()
        self.page: Page = browser.new_page()
        if phone:
            self.page.set_viewport_size({"width": 390, "height": 844})
        if dark:
            self.page.emulate_media(color_scheme="dark")
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).hostname))
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(url)
        expect(self.page.get_by_role("heading", name="Users", exact=True, level=1)).to_be_visible()
        self.settle()

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def go(self, title: str) -> float:
        """Opens a page by its link, waits until it is idle, and returns the seconds that took, as the page itself sees
        it. Role locators meanwhile would cost the browser as much as some pages do."""
        link = self.page.get_by_role("link", name=title, exact=True)
        link.hover()
        started = time.perf_counter()
        link.click()
        self.page.wait_for_function(DRAWN, arg=title, polling=50)
        took = time.perf_counter() - started
        self.settle()
        return took

    def settle(self) -> None:
        """Waits until the server has finished running the page."""
        expect(self.page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]')).to_be_visible()
        expect(self.page.locator('[data-stale="true"]')).to_have_count(0)

    def press(self, name: str) -> None:
        """Presses a button of the page once the page is idle."""
        self.settle()
        self.page.get_by_role("button", name=name, exact=True).click()

    def choose(self, label: str, option: str) -> None:
        """Chooses an option of a select box. A page that is redrawn closes the list, or undoes the click, so this
        repeats until the box shows the option."""
        box = self.page.get_by_role("combobox", name=label, exact=True)
        wanted = self.page.get_by_role("option", name=option).first
        until = time.monotonic() + PATIENCE / 1000
        while True:
            self.settle()
            try:
                if wanted.count() == 0:
                    box.click()
                wanted.click(timeout=PATIENCE / 10)
                self.settle()
                expect(box).to_have_value(
                    re.compile(re.escape(option)), timeout=PATIENCE / 10
                )  # `v2` of `v2 (standby)`
                return
            except (PlaywrightTimeout, AssertionError):
                if time.monotonic() > until:
                    raise

    def videos(self, key: str) -> list[str]:
        """Ids of the cards in a list that is not empty, from top to bottom, once the page is idle."""
        cards = self.page.locator(f".st-key-{key} .tt-card")
        expect(cards.first).to_be_visible()  # a page also looks idle before its first run begins
        self.settle()
        found: list[str] = cards.evaluate_all("cards => cards.map(card => card.dataset.video)")
        return found
