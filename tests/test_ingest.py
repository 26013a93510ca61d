"""A catalogue from an API that pages, throttles, fails and returns wrong answers, as a real HTTP server."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from dmm_api import (
    AFFILIATE_ID,
    API_ID,
    FAST,
    LINK_ID,
    Api,
    Fault,
    changed,
    half_json,
    hang_up,
    last_page_again,
    page_of_html,
    product,
    send,
    source,
    status,
)
from two_tower.data.catalogue_api import IngestOptions, IngestSummary, ingest
from two_tower.data.dmm import DEFAULT_FLOOR, Dmm, duration, floor, price
from two_tower.data.imports import ImportOptions, import_catalog, import_reviews
from two_tower.errors import UserError

Connection = psycopg.Connection[Any]


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.server.shutdown()
    api.server.server_close()


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(db: Connection, api: Api, options: IngestOptions = FAST, **more: Any) -> IngestSummary:
    return ingest(db, source(api, page_size=10), [DEFAULT_FLOOR], options, **more)


def rows(db: Connection, query: str) -> list[Any]:
    return [row[0] if len(row) == 1 else row for row in db.execute(query.encode()).fetchall()]


# -------------------------------------------------------------------------------------------------------- products


def test_products_become_videos(db: Connection, api: Api) -> None:
    api.products = [product(1)]
    summary = run(db, api)
    assert rows(
        db,
        "select product_url, title, maker, label, series, source, price::text, duration_seconds, thumbnail_url,"
        " image_urls, (product_released_at at time zone 'UTC')::text from public.videos",
    ) == [
        (
            "https://www.dmm.co.jp/digital/videoa/-/detail/=/cid=abc00001/", "題名 1", "Maker", "Label", "Series 1",
            "fanza/videoa", "300", 7200, "https://pics.example/1pl.jpg",
            ["https://pics.example/1-1.jpg"], "2025-01-01 02:00:00",
        )
    ]  # fmt: skip
    assert rows(db, "select name from public.tags order by 1") == ["genre 1", "海"]
    assert rows(db, "select name from public.performers") == ["女優 1"]
    (told,) = summary.sections
    assert (told.pages, told.items, told.inserted, told.retries, told.missing) == (1, 1, 1, 0, 0)
    asked = api.requests[0]
    assert (asked["site"], asked["service"], asked["floor"], asked["sort"]) == ("FANZA", "digital", "videoa", "date")


def test_all_pages_are_read_and_a_second_run_writes_nothing(db: Connection, api: Api) -> None:
    api.products = [product(n) for n in range(95)]
    (told,) = run(db, api).sections
    assert (told.pages, told.items, told.inserted) == (10, 95, 95)
    assert [int(asked["offset"]) for asked in api.requests] == list(range(1, 100, 10))
    db.execute("truncate two_tower.video_changes")
    (again,) = run(db, api).sections
    assert (again.inserted, again.updated, again.unchanged) == (0, 0, 95)
    assert rows(db, "select count(*) from two_tower.video_changes") == [0]
    api.products[3] = product(3, title="New title", prices={"price": "1,980"})
    (changed_,) = run(db, api).sections
    assert (changed_.updated, changed_.unchanged) == (1, 94)
    assert rows(db, "select price::text from public.videos where title = 'New title'") == ["1980"]


def test_only_the_requested_days_and_floors_are_imported(db: Connection, api: Api) -> None:
    api.products = [product(n, floor_code=("videoa", "videoc")[n % 2]) for n in range(100)]
    options = IngestOptions(since=date(2025, 1, 2), until=date(2025, 1, 3), pause=0)
    summary = ingest(db, source(api), [DEFAULT_FLOOR, floor("digital/videoc")], options)
    assert [told.items for told in summary.sections] == [24, 24]
    asked = api.requests[0]
    assert (asked["gte_date"], asked["lte_date"]) == ("2025-01-02T00:00:00", "2025-01-03T23:59:59")
    assert rows(db, "select source, count(*) from public.videos group by 1 order by 1") == [
        ("fanza/videoa", 24),
        ("fanza/videoc", 24),
    ]


def test_products_beyond_the_last_offset_are_requested_by_time(db: Connection, api: Api) -> None:
    api.products = [product(n) for n in range(95)]
    api.last_offset = 30
    summary = ingest(db, source(api, page_size=10, last_offset=30), [DEFAULT_FLOOR], FAST)
    assert rows(db, "select count(*) from public.videos") == [95]
    assert max(int(asked["offset"]) for asked in api.requests) <= 30
    assert summary.sections[0].missing == 0
    api.products = [product(n, date="2025-01-01 10:00:00") for n in range(95)]
    with pytest.raises(UserError, match="30 products of one moment"):
        ingest(db, source(api, page_size=10, last_offset=30), [DEFAULT_FLOOR], FAST)


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        ({"price": "300~"}, "300"), ({"price": "1,980"}, "1980"), ({"price": 500}, "500"),
        ({"price": "¥2,480円"}, "2480"),
        ({"price": ""}, None), (None, None), ([], None), ({"price": "無料"}, None),
        ({"deliveries": {"delivery": [{"type": "hd", "price": "980"}, {"type": "stream", "price": "300"}]}}, "300"),
        ({"list_price": "700"}, "700"),
    ],
)  # fmt: skip
def test_prices_are_read_in_every_documented_form(prices: Any, expected: str | None) -> None:
    assert price(prices) == expected


@pytest.mark.parametrize(
    ("volume", "expected"),
    [("120", "7200"), (90, "5400"), ("45分", "2700"), ("1:30:05", "5405"), ("", None), ("2 discs", None), (None, None)],
)
def test_durations_are_read_in_every_documented_form(volume: Any, expected: str | None) -> None:
    assert duration(volume) == expected


def test_products_with_missing_or_malformed_fields_are_imported(db: Connection, api: Api) -> None:
    api.products = [
        product(1, iteminfo=None, imageURL=None, prices="?", volume=None),
        product(2, iteminfo={"genre": {"name": "one"}, "actress": [None, {"ruby": "x"}, {"name": " "}]}, imageURL={}),
        product(3, title="nul \0 and half a pair \ud83d", date="2025-01-01"),
        product(4, URL=None),
        product(5, date="yesterday", title=None),
        product(6, title=None),
    ]
    summary = run(db, api)
    (told,) = summary.sections
    assert (told.items, told.inserted, told.rejected) == (6, 4, 2)
    assert summary.rejects is not None
    with summary.rejects.open(encoding="utf-8") as file:
        reported = [(row["column"], row["value"]) for row in csv.DictReader(file)]
    assert sorted(reported) == [("product_url", ""), ("released_at", "yesterday")]
    found = rows(db, "select title, thumbnail_url from public.videos order by product_url")
    assert found[0] == ("題名 1", "https://pics.example/1-1.jpg")
    assert found[2][0] == "nul  and half a pair ?"
    assert found[3][0] == ""
    assert rows(db, "select name from public.tags order by 1") == ["genre 0", "one", "海"]


def test_links_carry_the_affiliate_id_and_reviews_still_find_their_video(
    db: Connection, api: Api, tmp_path: Path
) -> None:
    """Reviews have the product's address; its video first has no link, then one, then one of another id."""
    plain = product(1)["URL"]
    reviews = tmp_path / "reviews.csv"
    reviews.write_text(f"product_url,reviewer_id,stars\n{plain},x,5\n", encoding="utf-8")
    import_reviews(db, reviews, ImportOptions(unknown="create"))
    api.products = [product(1), product(2)]
    for link in (LINK_ID, "other-002"):
        (told,) = ingest(db, source(api, link), [DEFAULT_FLOOR], FAST).sections
        assert told.readdressed == (1 if link == LINK_ID else 2)
        addresses = rows(db, "select product_url from public.videos order by 1")
        assert len(addresses) == 2
        assert all(f"af_id={link}&" in address for address in addresses)
        assert AFFILIATE_ID not in str(addresses)
    assert rows(db, "select title from public.videos v join two_tower.reviews r on r.video_id = v.id") == ["題名 1"]
    assert import_reviews(db, reviews).unchanged == 1
    catalogue = tmp_path / "catalogue.csv"
    catalogue.write_text(f"product_url,title,maker\n{plain},By hand,M\n", encoding="utf-8")
    assert import_catalog(db, catalogue).updated == 1
    assert rows(db, "select count(*) from public.videos") == [2]
    (told,) = run(db, api).sections
    assert (told.readdressed, told.inserted) == (2, 0)
    assert plain in rows(db, "select product_url from public.videos")


# ---------------------------------------------------------------------------------------------- faults of the API


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        pytest.param(status(500), "the answer is 500", id="500"),
        pytest.param(status(503), "the answer is 503", id="503"),
        pytest.param(status(429), "the answer is 429", id="429"),
        pytest.param(half_json, "not whole JSON", id="half a JSON"),
        pytest.param(hang_up, "no answer", id="hangs up"),
        pytest.param(page_of_html, "not whole JSON", id="HTML"),
        pytest.param(last_page_again, "the same page again", id="the same page twice"),
        pytest.param(changed(items=[], result_count=0), "0 products where there should be 10", id="empty page"),
        pytest.param(changed(result_count=7), "10 products where it says 7", id="wrong count"),
        pytest.param(changed(total_count=None), "no count of all products", id="no total"),
        pytest.param(changed(items="none"), "no list of products", id="no list"),
        pytest.param(changed(status=500), "status 500", id="500 inside"),
    ],
)
def test_a_temporary_error_is_retried(db: Connection, api: Api, fault: Fault, said: str) -> None:
    api.products = [product(n) for n in range(35)]
    api.faults = [None, fault, fault]
    lines: list[str] = []
    (told,) = run(db, api, say=lines.append).sections
    assert (told.items, told.inserted, told.retries, told.missing) == (35, 35, 2, 0)
    assert [said in line for line in lines] == [True, True]
    assert len(api.requests) == 6


@pytest.mark.sampled(2)
@pytest.mark.parametrize("fault", [status(500), half_json, last_page_again], ids=["500", "half", "same page"])
def test_a_lasting_error_ends_the_run_and_the_next_run_continues(db: Connection, api: Api, fault: Fault) -> None:
    api.products = [product(n) for n in range(45)]
    api.faults = [None, None, fault, fault, fault, fault]
    with pytest.raises(UserError, match=r"from product 21: .*, 4 times") as caught:
        run(db, api)
    assert caught.value.hint is not None
    assert "goes on from here" in caught.value.hint
    assert rows(db, "select count(*) from public.videos") == [20]
    api.requests.clear()
    summary = run(db, api)
    assert summary.sections[0].resumed
    assert (summary.sections[0].items, summary.sections[0].pages) == (25, 3)
    assert int(api.requests[0]["offset"]) == 21
    assert rows(db, "select count(*) from public.videos") == [45]
    assert rows(db, "select count(*) from two_tower.job_runs where finished_at is null") == [0]
    assert not any(told.resumed for told in run(db, api).sections)


def test_a_resumed_run_fetches_what_arrived_in_between(db: Connection, api: Api) -> None:
    api.products = [product(n) for n in range(25)]
    api.faults = [None, *[status(500)] * 4]
    with pytest.raises(UserError):
        run(db, api)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    api.products.append(product(99, date=f"{tomorrow:%Y-%m-%d %H:%M:%S}"))
    rest, fresh = run(db, api).sections
    assert (rest.resumed, fresh.resumed) == (True, False)
    assert rows(db, "select count(*) from public.videos") == [26]
    assert fresh.items == 1


def test_a_page_that_stays_short_is_accepted_and_reported(db: Connection, api: Api) -> None:
    api.products = [product(n) for n in range(25)]

    def hides_one(api: Api, handler: BaseHTTPRequestHandler, document: dict[str, Any]) -> bool:
        result = document["result"]
        items = [item for item in result["items"] if item["content_id"] != "abc00012"]
        return send(
            handler, 200, json.dumps({"result": {**result, "items": items, "result_count": len(items)}}).encode()
        )

    api.always = hides_one
    lines: list[str] = []
    (told,) = run(db, api, say=lines.append).sections
    assert (told.items, told.missing) == (24, 1)
    assert "1 products that the API counts are not in its pages" in lines[-1]


def test_waits_grow_and_respect_retry_after(db: Connection, api: Api) -> None:
    api.products = [product(1)]
    api.faults = [status(500), status(500), status(429, **{"Retry-After": "1"})]
    run(db, api, IngestOptions(pause=0, attempts=4, first_wait=0.1))
    waits = [later - earlier for earlier, later in zip(api.times, api.times[1:], strict=False)]
    assert waits[0] >= 0.1
    assert waits[1] >= 0.2
    assert waits[2] >= 1.0


def test_requests_respect_the_rate_limit(db: Connection, api: Api) -> None:
    api.products = [product(n) for n in range(40)]
    run(db, api, IngestOptions(pause=0.15))
    assert all(later - earlier >= 0.14 for earlier, later in zip(api.times, api.times[1:], strict=False))


def test_an_interrupted_page_is_imported_completely_or_not_at_all(db: Connection, api: Api) -> None:
    api.products = [product(n) for n in range(30)]
    db.execute(
        """create function public.no_five() returns trigger language plpgsql as
        $$ begin if new.title = '題名 5' then raise 'no room' using errcode = '53100'; end if; return new; end $$"""
    )
    db.execute("create trigger no_five before insert on public.videos for each row execute function public.no_five()")
    with pytest.raises(psycopg.errors.DiskFull):
        run(db, api)
    assert rows(db, "select count(*) from public.videos") == [20]
    db.execute("drop trigger no_five on public.videos")
    (told,) = run(db, api).sections[:1]
    assert (told.resumed, told.items) == (True, 10)


def test_refused_products_are_reported_and_the_others_imported(db: Connection, api: Api) -> None:
    api.products = [product(n) for n in range(30)]
    db.execute("alter table public.videos add constraint no_five check (title <> '題名 5')")
    summary = run(db, api)
    (told,) = summary.sections
    assert (told.items, told.inserted, told.rejected) == (30, 29, 1)
    assert summary.rejects is not None
    assert "refused by the database" in summary.rejects.read_text()
    assert rows(db, "select count(*) from public.videos where title = '題名 5'") == [0]


def test_a_database_without_migrations_is_an_error(empty_dsn: str, api: Api) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as empty, pytest.raises(UserError, match="not set up"):
        run(empty, api)


# --------------------------------------------------------------------------------------------------------- credentials


def test_credentials_are_in_no_message_file_or_log(
    db: Connection, api: Api, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    api.products = [product(n) for n in range(15)] + [product(99, URL=None, affiliateURL=None)]
    api.faults = [status(500), half_json, hang_up]
    lines: list[str] = []
    summary = run(db, api, say=lines.append)
    wrong = Dmm(api.endpoint, "wrongSecretId", AFFILIATE_ID)
    with pytest.raises(UserError, match="refuses: status 400: BAD REQUEST") as refused:
        ingest(db, wrong, [DEFAULT_FLOOR], FAST)
    with pytest.raises(UserError, match="no answer") as unreachable:
        ingest(db, Dmm("http://127.0.0.1:1/", API_ID, AFFILIATE_ID), [DEFAULT_FLOOR], FAST)
    log = "\n".join(rows(db, "select coalesce(result::text, '') || coalesce(error, '') from two_tower.job_runs"))
    report = "".join(path.read_text(encoding="utf-8") for path in tmp_path.glob("*.csv"))
    everything = [*lines, caplog.text, str(refused.value), str(unreachable.value), summary.to_json(), log, report]
    everything += [repr(wrong), repr(refused.value.__context__), repr(unreachable.value.__cause__)]
    for secret in (API_ID, AFFILIATE_ID, "wrongSecretId"):
        assert not any(secret in text for text in everything)
    assert not any(AFFILIATE_ID in address for address in rows(db, "select product_url from public.videos"))


def test_ingest_takes_credentials_from_the_environment_and_has_a_summary(
    dsn: str, db: Connection, api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from two_tower.cli.main import app

    today = datetime.now(UTC) + timedelta(hours=9)
    api.products = [product(n, date=f"{today - timedelta(days=n):%Y-%m-%d} 00:00:00") for n in range(9)]
    arguments = ["ingest", "dmm", "--dsn", dsn, "--pause", "0"]
    for name in ("DMM_API_ID", "DMM_AFFILIATE_ID", "DMM_LINK_AFFILIATE_ID"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "DMM_API_ID and DMM_AFFILIATE_ID" in result.stderr
    monkeypatch.setenv("DMM_API_ID", API_ID)
    monkeypatch.setenv("DMM_AFFILIATE_ID", AFFILIATE_ID)
    monkeypatch.setenv("TWO_TOWER_DMM_ENDPOINT", api.endpoint)
    result = CliRunner().invoke(app, [*arguments, "--look-back", "2", "--summary", "summary.json"])
    assert result.exit_code == 0, result.output
    assert "3 products on 1 pages; 3 were inserted" in result.stdout
    assert json.loads((tmp_path / "summary.json").read_text())["sections"][0]["items"] == 3
    result = CliRunner().invoke(app, [*arguments, "--all", "--json"])
    assert json.loads(result.stdout)["sections"][0]["inserted"] == 6
    result = CliRunner().invoke(app, [*arguments, "--since", "2025-02-01", "--until", "2025-01-01"])
    assert result.exit_code == 2
    result = CliRunner().invoke(app, [*arguments, "--floor", "a/b/c/d"])
    assert result.exit_code == 1
    assert API_ID not in result.output
