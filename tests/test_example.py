"""The example application, in Chromium: a visitor swipes, signs in, and gets lists that follow."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from conftest import Connection
from documents import REPOSITORY
from rest_api import serve
from two_tower.bench.rest import sign
from ui_browser import chromium
from world_fixtures import column, make_world, one

WORLD = make_world()
ME = WORLD.no_decisions
CONFIG = """
const connect = (options) => supabase.createClient('{url}', '{anon}', options)
export const visitor = () => connect()
export const signedIn = async () => connect({{ accessToken: async () => '{token}' }})
"""

pytestmark = [pytest.mark.world, pytest.mark.xdist_group("ui")]


@pytest.fixture
def page(dsn: str, node_modules: Path, tmp_path: Path) -> Iterator[Page]:
    """The example, served as its README says, with a sign-in of the test's own."""
    site = tmp_path / "site"
    shutil.copytree(REPOSITORY / "examples" / "swipe", site)
    shutil.copy(node_modules / "@supabase/supabase-js/dist/umd/supabase.js", site)
    with serve(dsn, node_modules) as url:
        token = sign(role="authenticated", sub=str(ME))
        (site / "config.js").write_text(CONFIG.format(url=url, anon=sign(role="anon"), token=token))
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(site)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with chromium() as browser:
                opened = browser.new_page()
                opened.goto(f"http://127.0.0.1:{server.server_port}/")
                yield opened
        finally:
            server.shutdown()


def test_a_visitor_swipes_signs_in_and_has_a_list_that_follows(page: Page, db: Connection) -> None:
    db.execute("select two_tower.update_popularity()")
    page.reload()
    card, listed, error = page.locator("#card"), page.locator("#list li"), page.locator("#error")
    titles = []
    for press in ("Like →", "No ←", "Like →"):
        expect(card).not_to_have_text("")
        titles.append(card.text_content() or "")
        page.get_by_role("button", name=press).click()
        expect(card).not_to_have_text(titles[-1])
    assert len(set(titles)) == 3
    assert one(db, "select count(*) from user_video_decisions where user_id = %s", ME) == 0

    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#who")).to_have_text("You are signed in.")
    expect(listed).to_have_count(10)
    words = "select d.decision_type from user_video_decisions d join videos v on v.id = d.video_id where user_id = %s"
    assert sorted(column(db, words, ME)) == ["like", "like", "nope"]
    liked = [title for title, press in zip(titles, "lnl", strict=True) if press == "l"]
    because = [entry.split("because you liked ")[1] for entry in listed.all_text_contents()]
    assert set(because) <= set(liked)

    before = card.text_content()
    page.keyboard.press("ArrowRight")
    expect(card).not_to_have_text(str(before))
    assert one(db, "select count(*) from user_video_decisions where user_id = %s", ME) == 4
    page.get_by_role("button", name="Load more").click()
    expect(listed).to_have_count(20)
    shown = [entry.split(" because")[0] for entry in listed.all_text_contents()]
    assert len(set(shown)) == 20
    assert not set(shown) & {*titles, before}
    expect(error).to_have_text("")
    assert one(db, "select count(distinct video_id) = count(*) from two_tower.impressions where user_id = %s", ME)
