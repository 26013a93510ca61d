"""Imports: the rows written, repeated imports, and the errors for bad files."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import polars as pl
import psycopg
import pytest
from typer.testing import CliRunner

from two_tower.data import csv_file
from two_tower.data.imports import ImportOptions, ImportSummary, import_catalog, import_decisions, import_reviews
from two_tower.errors import UserError
from two_tower.ids import NAMESPACE, user_uuid, user_uuids
from two_tower.server.embedded import Server
from two_tower.server.migrate import migrate

Connection = psycopg.Connection[Any]
Write = Callable[..., Path]

ANNA = "11111111-1111-4111-8111-111111111111"
BEN = "22222222-2222-4222-8222-222222222222"
CATALOGUE = """\
product_url,title,tags,performers,maker,label,series,source,price,duration_seconds,released_at,thumbnail_url
u/1,One,sea|storm,Ann Lo|Bo Ra,M,L,S,studio,980,3600,2024-05-01,t/1
u/2,Two,sea,,M,,,,,,,
u/3,Three,,,,,,,,,,
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file into the working directory, which is the test's own."""
    monkeypatch.chdir(tmp_path)

    def to_file(content: str | bytes, name: str = "file.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return to_file


@pytest.fixture
def shop(db: Connection, write: Write) -> Connection:
    """A database with the catalogue and one user, Anna."""
    import_catalog(db, write(CATALOGUE, "catalog.csv"))
    db.execute("insert into auth.users (id) values (%s)", [ANNA])
    return db


def rows(db: Connection, query: Any) -> list[Any]:
    return [row[0] if len(row) == 1 else row for row in db.execute(query).fetchall()]


def rejects(summary: ImportSummary) -> list[tuple[Any, ...]]:
    """(line, column, value, reason), by line."""
    if summary.rejects is None:
        return []
    with summary.rejects.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["line", "column", "value", "reason"]
    return sorted((int(line), *rest) for line, *rest in lines)


def adds_up(summary: ImportSummary) -> bool:
    parts = (summary.inserted, summary.updated, summary.unchanged, summary.rejected, summary.duplicates)
    return summary.rows == sum(parts) + summary.resumed


def versions(db: Connection) -> list[Any]:
    """The row versions of all tables that imports write: equal only if nothing was written."""
    tables = ("videos", "tags", "performers", "video_tags", "video_performers", "user_video_decisions")
    names = [f"public.{name}" for name in tables] + ["two_tower.reviews", "auth.users"]
    return [sorted(rows(db, f"select ctid::text, xmin::text from {name}")) for name in names]


# ---------------------------------------------------------------------------------------------------------- catalogue

TAGS = """select v.product_url, string_agg(t.name, '|' order by t.name) from public.videos v
    join public.video_tags l on l.video_id = v.id join public.tags t on t.id = l.tag_id group by 1 order by 1"""


def test_every_column_of_a_catalogue_is_imported(shop: Connection) -> None:
    assert rows(
        shop,
        "select product_url, title, maker, label, series, source, price::text, duration_seconds,"
        " (product_released_at at time zone 'utc')::text, thumbnail_url, published_at is not null"
        " from public.videos order by 1",
    ) == [
        ("u/1", "One", "M", "L", "S", "studio", "980", 3600, "2024-05-01 00:00:00", "t/1", True),
        ("u/2", "Two", "M", None, None, None, None, None, None, None, True),
        ("u/3", "Three", None, None, None, None, None, None, None, None, True),
    ]
    assert rows(shop, TAGS) == [("u/1", "sea|storm"), ("u/2", "sea")]
    assert rows(shop, "select name from public.performers order by 1") == ["Ann Lo", "Bo Ra"]


def test_importing_a_catalogue_twice_writes_nothing(shop: Connection, write: Write) -> None:
    before = versions(shop)
    summary = import_catalog(shop, write(CATALOGUE, "catalog.csv"))
    assert (summary.rows, summary.inserted, summary.updated, summary.unchanged) == (3, 0, 0, 3)
    assert versions(shop) == before


def test_an_import_changes_only_the_columns_of_the_file(shop: Connection, write: Write) -> None:
    published = rows(shop, "select published_at from public.videos order by product_url")
    summary = import_catalog(
        shop, write("product_url,title,tags,price\nu/1,One,storm|fog,\nu/2,Two!,sea,5.50\nu/4,Four,,\n")
    )
    assert (summary.inserted, summary.updated, summary.unchanged) == (1, 2, 0)
    assert rows(shop, TAGS) == [("u/1", "fog|storm"), ("u/2", "sea")]
    assert rows(shop, "select title, maker, price::text from public.videos order by product_url") == [
        ("One", "M", None),
        ("Two!", "M", "5.50"),
        ("Three", None, None),
        ("Four", None, None),
    ]
    assert rows(shop, "select count(*) from public.video_performers") == [2]  # the file has no such column
    assert rows(shop, "select published_at from public.videos order by product_url")[:3] == published


def test_a_video_with_only_other_tags_counts_as_updated(shop: Connection, write: Write) -> None:
    summary = import_catalog(shop, write("product_url,title,tags\nu/1,One,sea\nu/2,Two,sea\n"))
    assert (summary.updated, summary.unchanged) == (1, 1)


def test_duplicate_names_in_an_adopted_table_are_one(shop: Connection, write: Write) -> None:
    shop.execute("alter table public.tags drop constraint tags_name_key")
    shop.execute("insert into public.tags (name) values ('twin'), ('twin')")
    import_catalog(shop, write("product_url,title,tags\nu/3,Three,twin\n"))
    linked = rows(
        shop, "select tag_id from public.video_tags l join public.tags t on t.id = tag_id where name = 'twin'"
    )
    assert linked == rows(shop, "select id from public.tags where name = 'twin' order by id limit 1")
    before = versions(shop)
    assert import_catalog(shop, write("product_url,title,tags\nu/3,Three,twin\n")).unchanged == 1
    assert versions(shop) == before


def test_columns_of_an_adopted_table_keep_their_types(shop: Connection, write: Write) -> None:
    shop.execute("alter table public.videos alter price type numeric(8, 1), alter maker type varchar(5)")
    path = write("product_url,title,price,maker\nu/1,One,9.99,Short\n")
    assert import_catalog(shop, path).updated == 1
    assert rows(shop, "select price::text from public.videos where product_url = 'u/1'") == ["10.0"]
    assert import_catalog(shop, path).unchanged == 1
    summary = import_catalog(shop, write("product_url,title,maker\nu/1,One,Too long\nu/2,Two,Fits\n"))
    assert [(line, reason) for line, _, _, reason in rejects(summary)] == [
        (2, "refused by the database: value too long for type character varying(5)")
    ]
    assert rows(shop, "select maker from public.videos order by product_url limit 2") == ["Short", "Fits"]


def test_bad_cells_of_a_catalogue_are_rejected_by_line_and_column(db: Connection, write: Write) -> None:
    header = "product_url,title,price,duration_seconds,released_at\n"
    good = ["a,A,1,1380.0,2024-02-29", "b,B,1e3,,20240131", 'c,C,,0,"31.01.2024"', "d,D, 5 ,1,2024/01/31 10:00"]
    bad = [
        ",E,,,",
        "f,F,-1,,",
        "g,G,free,,",
        "h,H,,90 min,",
        "i,I,,1.5,",
        "j,J,,,2024-02-30",
        "k,K,nan,,",
        "l,L,,,1/2/24",
    ]
    summary = import_catalog(db, write(header + "\n".join(good + bad) + "\n"))
    assert [(line, column, value) for line, column, value, _ in rejects(summary)] == [
        (6, "product_url", ""),
        (7, "price", "-1"),
        (8, "price", "free"),
        (9, "duration_seconds", "90 min"),
        (10, "duration_seconds", "1.5"),
        (11, "released_at", "2024-02-30"),
        (12, "price", "nan"),
        (13, "released_at", "1/2/24"),
    ]
    assert summary.inserted == 4
    assert adds_up(summary)
    assert rows(db, "select to_char(product_released_at at time zone 'utc', 'YYYY-MM-DD HH24') from public.videos"
                    " where product_released_at is not null order by product_url") == [
        "2024-02-29 00", "2024-01-31 00", "2024-01-31 00", "2024-01-31 10"]  # fmt: skip


# ------------------------------------------------------------------------------------------------- reviews, decisions


def test_importing_reviews_twice_writes_nothing(shop: Connection, write: Write) -> None:
    path = write(f"product_url,reviewer_id,stars,created_at\nu/1,{BEN},5,2024-01-01T10:00:00Z\nu/2,{BEN},0.5,\n")
    first = import_reviews(shop, path)
    assert (first.rows, first.inserted, first.users, first.items) == (2, 2, 1, 2)
    found = rows(
        shop, "select reviewer_id::text, stars, extract(epoch from created_at)::int from two_tower.reviews order by 2"
    )
    assert found == [(BEN, 0.5, None), (BEN, 5.0, 1704103200)]
    before = versions(shop)
    assert import_reviews(shop, path).unchanged == 2
    assert versions(shop) == before
    again = import_reviews(shop, write(f"product_url,reviewer_id,stars\nu/1,{BEN},4\n"))
    assert again.updated == 1
    assert rows(shop, "select stars from two_tower.reviews where created_at is not null") == [4.0]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("stars", ["6", "-1", "nan", "inf", "1e9", "five", "", "4,5,6"])
def test_stars_are_numbers_from_0_to_5(shop: Connection, write: Write, stars: str) -> None:
    summary = import_reviews(shop, write(f'product_url,reviewer_id,stars\nu/1,x,5\nu/1,y,"{stars}"\n'))
    assert rejects(summary) == [(3, "stars", stars, "not a number from 0 to 5")]
    assert summary.inserted == 1
    assert adds_up(summary)


def test_ids_that_are_not_uuids_are_mapped_and_trimmed(shop: Connection, write: Write) -> None:
    import_reviews(shop, write(f"product_url,reviewer_id,stars\nu/1,a b,1\n u/2 , a b ,1\nu/3,{ANNA.upper()},1\n"))
    assert set(rows(shop, "select reviewer_id from two_tower.reviews")) == {user_uuid("a b"), UUID(ANNA)}
    assert user_uuid("a b") == uuid5(NAMESPACE, "a b") == UUID("930ab29f-cf95-56ab-8224-e766b4fc15ba")


def test_single_ids_and_columns_of_ids_map_alike() -> None:
    texts = ["a", ANNA, "ü", "a", ANNA.replace("-", "")]
    assert [UUID(bytes=value) for value in user_uuids(pl.Series(texts)).tolist()] == [user_uuid(t) for t in texts]


def test_unknown_products_are_rejected_or_created(shop: Connection, write: Write) -> None:
    path = write("product_url,reviewer_id,stars\nu/1,x,5\nu/9,x,4\nu/9,y,4\nu/8,y,nine\n,z,1\n")
    refused = import_reviews(shop, path)
    assert [(line, column, value) for line, column, value, _ in rejects(refused)] == [
        (3, "product_url", "u/9"), (4, "product_url", "u/9"), (5, "stars", "nine"), (6, "product_url", "")]  # fmt: skip
    assert rejects(refused)[0][3] == "unknown product"
    created = import_reviews(shop, path, ImportOptions(unknown="create"))
    assert (created.items_created, created.inserted, created.rejected) == (1, 2, 2)
    assert rows(shop, "select title from public.videos where product_url = 'u/9'") == [""]


def test_importing_decisions_twice_writes_nothing(shop: Connection, write: Write) -> None:
    path = write(f"user_id,product_url,decision\n{ANNA},u/1,LIKE\n{ANNA},u/2,Dislike\n{ANNA},u/3,skip\n")
    assert import_decisions(shop, path).inserted == 3
    assert rows(shop, "select decision_type from public.user_video_decisions order by 1") == ["like", "nope", "skip"]
    assert rows(shop, "select count(distinct created_at) from public.user_video_decisions") == [1]
    before = versions(shop)
    assert import_decisions(shop, path).unchanged == 3
    assert versions(shop) == before
    changed = import_decisions(shop, write(f"reviewer_id,product_url,label\n{ANNA},u/1,0\n{ANNA},u/2,0\n"))
    assert (changed.updated, changed.unchanged) == (1, 1)


@pytest.mark.sampled
@pytest.mark.parametrize("stored", ["like", "LIKE", "Like", " like ", "\tlike\r\n"])
@pytest.mark.parametrize("word", ["like", "LIKE", "Like", " like", "1"])
def test_decisions_are_compared_by_their_meaning_in_sql(shop: Connection, write: Write, stored: str, word: str) -> None:
    """Equal decisions that an application wrote differently stay unchanged."""
    shop.execute("alter table public.user_video_decisions drop constraint user_video_decisions_decision_type_check")
    path = write(f"user_id,product_url,decision\n{ANNA},u/1,{word}\n")
    import_decisions(shop, path)
    shop.execute("update public.user_video_decisions set decision_type = %s", (stored,))
    assert import_decisions(shop, path).unchanged == 1
    assert rows(shop, "select decision_type from public.user_video_decisions") == [stored]
    changed = import_decisions(shop, write(f"user_id,product_url,decision\n{ANNA},u/1,Dislike\n"))
    assert changed.updated == 1
    assert rows(shop, "select decision_type from public.user_video_decisions") == ["nope"]


def test_decisions_are_imported_by_video_id(shop: Connection, write: Write) -> None:
    (video,) = rows(shop, "select id::text from public.videos where product_url = 'u/1'")
    lines = [f"{ANNA},{video.upper()},1,2024-01-01", f"{ANNA},{BEN},1,", f"{ANNA},u/1,1,", f"{ANNA},{video},2,"]
    summary = import_decisions(shop, write("user_id,video_id,label,created_at\n" + "\n".join(lines)))
    assert [(line, column) for line, column, _, _ in rejects(summary)] == [
        (3, "video_id"),
        (4, "video_id"),
        (5, "label"),
    ]
    assert rows(shop, "select decision_type, extract(epoch from created_at)::int from public.user_video_decisions") == [
        ("like", 1704067200)
    ]


def test_unknown_users_are_rejected_or_created(shop: Connection, write: Write) -> None:
    path = write(f"user_id,product_url,label\n{ANNA},u/1,1\nbob,u/1,1\nbob,u/2,1\n{BEN},u/1,0\n")
    refused = import_decisions(shop, path)
    assert rejects(refused) == [
        (3, "user_id", "bob", "unknown user"), (4, "user_id", "bob", "unknown user"),
        (5, "user_id", BEN, "unknown user")]  # fmt: skip
    created = import_decisions(shop, path, create_users=True)
    assert (created.users_created, created.inserted, created.unchanged, created.users) == (2, 3, 1, 3)
    assert import_decisions(shop, path, create_users=True).users_created == 0


def test_the_later_of_two_rows_with_one_key_wins(shop: Connection, write: Write) -> None:
    summary = import_reviews(
        shop, write("product_url,reviewer_id,stars\nu/1,x,1\nu/1,y,2\nu/1,x,3\nu/1,y,2\nu/1,x,4\n")
    )
    assert (summary.rows, summary.inserted, summary.duplicates) == (5, 2, 3)
    assert sorted(rows(shop, "select stars from two_tower.reviews")) == [2, 4]
    catalogue = import_catalog(shop, write("product_url,title,tags\nu/7,Old,a\nu/7,New,b|c\n"))
    assert (catalogue.inserted, catalogue.duplicates) == (1, 1)
    assert rows(shop, TAGS)[-1] == ("u/7", "b|c")


def shape_of_reviews(db: Connection) -> list[Any]:
    return rows(
        db,
        "select indexdef from pg_indexes where tablename = 'reviews' union all"
        " select pg_get_constraintdef(oid) from pg_constraint where conrelid = 'two_tower.reviews'::regclass union all"
        " select tgname || tgenabled::text from pg_trigger where tgrelid = 'two_tower.reviews'::regclass order by 1",
    )


@pytest.mark.parametrize("duplicates", [False, True])
def test_a_first_import_and_a_merge_give_the_same_rows(
    shop: Connection, write: Write, monkeypatch: pytest.MonkeyPatch, duplicates: bool
) -> None:
    """Rows go directly into an empty table, and are merged into others, both in batches."""
    monkeypatch.setattr(csv_file, "BLOCK", 256)
    lines = [f"u/{i % 3 + 1},r{i // 3},{i % 6},{'2024-01-01' if i % 2 else ''}" for i in range(60)]
    lines += [f"u/1,r{i},5,2025-01-01" for i in range(9)] if duplicates else []
    path = write("\n".join(["product_url,reviewer_id,stars,created_at", *lines]))
    shape, query = shape_of_reviews(shop), "select * from two_tower.reviews order by reviewer_id, video_id"
    first = import_reviews(shop, path)
    found = rows(shop, query)
    assert shape_of_reviews(shop) == shape
    shop.execute("truncate two_tower.reviews")
    import_reviews(shop, write("product_url,reviewer_id,stars\nu/1,other,3\n", "other.csv"))
    later = import_reviews(shop, path)
    shop.execute("delete from two_tower.reviews where reviewer_id = %s", [user_uuid("other")])
    assert rows(shop, query) == found
    for summary in (first, later):
        summary.seconds = 0
    assert first == later
    assert (first.inserted, first.users, first.duplicates) == (60, 20, 9 if duplicates else 0)


def test_a_role_with_only_write_privileges_can_import(dsn: str, shop: Connection, write: Write) -> None:
    path = write(reviews_text(6))
    with psycopg.connect(dsn) as service:
        service.execute("set role service_role")
        assert import_reviews(service, path).inserted == 6
        assert import_catalog(service, Path("catalog.csv")).unchanged == 3


def test_a_failed_first_import_leaves_the_table_with_its_indexes(shop: Connection, write: Write) -> None:
    shape = shape_of_reviews(shop)
    with pytest.raises(UserError, match="not valid UTF-8"):
        import_reviews(shop, write(b"product_url,reviewer_id,stars\nu/1,a,5\nu/1,\xff,5\n"))
    assert shape_of_reviews(shop) == shape


def test_products_and_users_created_between_batches_are_found(
    shop: Connection, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_file, "BLOCK", 128)
    lines = [f"{ANNA if i % 3 else f'r{i % 5}'},n/{i % 40},1" for i in range(300)]
    path = write("\n".join(["user_id,product_url,label", *lines]))
    known = import_decisions(shop, path, ImportOptions(unknown="create"))
    assert (known.items_created, known.rejected, known.users) == (40, 100, 1)
    everyone = import_decisions(shop, path, create_users=True)
    assert (everyone.users_created, everyone.rejected, everyone.users, everyone.items) == (5, 0, 6, 40)
    assert adds_up(known)
    assert adds_up(everyone)


def test_a_dry_run_reports_the_changes_and_makes_none(shop: Connection, write: Write) -> None:
    before = versions(shop)
    summary = import_decisions(
        shop, write("user_id,product_url,label\nx,u/1,1\nx,u/0,1\n"), ImportOptions(dry_run=True), create_users=True
    )
    assert (summary.inserted, summary.users_created, summary.rejected) == (1, 1, 1)
    assert versions(shop) == before


def test_an_import_logs_only_real_changes(shop: Connection, write: Write) -> None:
    path = write(f"user_id,product_url,label\n{ANNA},u/1,1\n")
    import_decisions(shop, path)
    shop.execute("truncate two_tower.user_change_log, two_tower.user_changes, two_tower.video_changes")
    import_decisions(shop, path)
    import_catalog(shop, Path("catalog.csv"))
    assert (
        rows(shop, "select user_id from two_tower.pending_users union all select video_id from two_tower.video_changes")
        == []
    )


# -------------------------------------------------------------------------------------------------- formats of a file


def reviews_text(count: int, newline: str = "\n") -> str:
    return (
        newline.join(["product_url,reviewer_id,stars", *(f"u/{i % 3 + 1},r{i},{i % 6}" for i in range(count))])
        + newline
    )


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    ("content", "inserted"),
    [
        pytest.param(reviews_text(9).encode(), 9, id="plain"),
        pytest.param(reviews_text(9).rstrip("\n").encode(), 9, id="no last newline"),
        pytest.param(reviews_text(9, "\r\n").encode(), 9, id="CRLF"),
        pytest.param(reviews_text(9, "\r").encode(), 9, id="CR"),
        pytest.param(b"\xef\xbb\xbf" + reviews_text(9).encode(), 9, id="BOM"),
        pytest.param(reviews_text(9).encode("utf-16"), 9, id="UTF-16"),
        pytest.param(gzip.compress(reviews_text(9).encode()), 9, id="gzip, whatever its name"),
        pytest.param(b"\n\n" + reviews_text(9).replace("\n", "\n\n").encode() + b"  \n\n", 9, id="blank lines"),
        pytest.param(b'Product_URL , "reviewer_id",STARS\n"u/1","r ""x""\n, y",5\n', 1, id="quotes"),
        pytest.param(b'product_url,reviewer_id,stars\nu/1,5" screen,5\n', 1, id="a quote inside a cell"),
        pytest.param(b"product_url,reviewer_id,stars\n", 0, id="header alone"),
        pytest.param(b"note,product_url,reviewer_id,stars,x\n,u/1,r,5,\n", 1, id="other columns"),
    ],
)
def test_supported_file_layouts_are_read(shop: Connection, write: Write, content: bytes, inserted: int) -> None:
    summary = import_reviews(shop, write(content))
    assert (summary.rows, summary.inserted, summary.rejects) == (inserted, inserted, None)


@pytest.mark.parametrize(("delimiter", "name"), [(";", "semicolon"), ("\t", "tab")])
def test_another_delimiter_is_detected_and_reported(shop: Connection, write: Write, delimiter: str, name: str) -> None:
    said: list[str] = []
    path = write(reviews_text(4).replace(",", delimiter))
    assert import_reviews(shop, path, ImportOptions(say=said.append)).inserted == 4
    assert name in said[0]
    given = write(reviews_text(4).replace(",", "^"))
    assert import_reviews(shop, given, ImportOptions(delimiter="^")).unchanged == 4


def test_columns_can_be_mapped_and_encodings_given(shop: Connection, write: Write) -> None:
    path = write("url,who,score\nu/1,Zoë,5\n".encode("cp1252"))
    columns = {"url": "product_url", "who": "reviewer_id", "score": "stars"}
    import_reviews(shop, path, ImportOptions(columns=columns, encoding="cp1252"))
    assert rows(shop, "select reviewer_id from two_tower.reviews") == [user_uuid("Zoë")]
    with pytest.raises(UserError, match="no encoding 'klingon'"):
        import_reviews(shop, path, ImportOptions(encoding="klingon"))


def test_parquet_files_are_imported(shop: Connection, write: Write, tmp_path: Path) -> None:
    when = pl.Series([1704103200_000_000, None]).cast(pl.Datetime("us", "UTC"))
    reviews = pl.DataFrame(
        {"product_url": ["u/1", "u/0"], "reviewer_id": ["a", "b"], "stars": [4.5, 9], "created_at": when}
    )
    reviews.write_parquet(tmp_path / "reviews.bin")
    summary = import_reviews(shop, tmp_path / "reviews.bin")
    assert rejects(summary) == [(2, "stars", "9.0", "not a number from 0 to 5")]
    assert rows(shop, "select stars, extract(epoch from created_at)::int from two_tower.reviews") == [(4.5, 1704103200)]
    pl.DataFrame(
        {"product_url": ["u/1"], "title": ["One"], "tags": [["a|b", "c"]], "price": [7.5], "duration_seconds": [60]}
    ).write_parquet(tmp_path / "catalog.parquet")
    assert import_catalog(shop, tmp_path / "catalog.parquet").updated == 1
    assert rows(shop, TAGS)[0] == ("u/1", "a|b|c")
    broken = write((tmp_path / "reviews.bin").read_bytes()[:200], "broken.parquet")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        import_reviews(shop, broken)


IMAGES = "select product_url, image_urls from public.videos order by 1 limit 2"
COLUMNS_OF_IMAGES = ("text[]", "varchar(80)[]", "jsonb")
"""Possible types of the column in an application's table."""


def test_several_images_are_read_from_every_file_and_column_type(
    shop: Connection, write: Write, tmp_path: Path
) -> None:
    lists = [["https://i/1?a=é", "https://i/2"], []]
    for kind in COLUMNS_OF_IMAGES:
        shop.execute("alter table public.videos drop column image_urls")
        shop.execute(f"alter table public.videos add column image_urls {kind}".encode())
        head = "product_url,title,image_urls\n"
        text = head + "u/1,One, https://i/1?a=é | https://i/2|https://i/2|\nu/2,Two,\n"
        listed = pl.DataFrame({"product_url": ["u/1", "u/2"], "title": ["One", "Two"], "image_urls": lists})
        listed.write_parquet(tmp_path / "listed.parquet")
        for source in (write(text), tmp_path / "listed.parquet"):
            shop.execute("update public.videos set image_urls = null")
            assert import_catalog(shop, source).updated == 2, (kind, source.name)
            assert rows(shop, IMAGES) == list(zip(("u/1", "u/2"), lists, strict=True)), (kind, source.name)
            assert import_catalog(shop, source).unchanged == 2, (kind, source.name)
        # Columns absent from the file keep their values; an empty cell clears its column.
        assert import_catalog(shop, write("product_url,title\nu/1,One\n")).unchanged == 1
        assert import_catalog(shop, write(head + "u/1,One,\n")).updated == 1
        assert rows(shop, IMAGES)[0] == ("u/1", []), kind
    for other in ("text", None):  # the type holds no list, or the column is missing: the other columns are imported
        shop.execute("alter table public.videos drop column image_urls")
        if other:
            shop.execute("alter table public.videos add column image_urls text default 'theirs'")
        assert import_catalog(shop, write(head + f"u/1,Title in {other},https://i/9\n")).updated == 1
    assert rows(shop, "select title from public.videos where product_url = 'u/1'") == ["Title in None"]


@pytest.mark.parametrize("parquet", [False, True])
def test_standard_input_is_read(shop: Connection, monkeypatch: pytest.MonkeyPatch, parquet: bool) -> None:
    data = io.BytesIO(reviews_text(5).encode())
    if parquet:
        frame = pl.read_csv(data)
        data = io.BytesIO()
        frame.write_parquet(data)
        data.seek(0)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data))
    assert import_reviews(shop, "-").inserted == 5


# ----------------------------------------------------------------------------------------------------- files in a state

HEAD = b"product_url,reviewer_id,stars\n"


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"\n \n", "is empty", id="blank"),
        pytest.param(b"product_url,who\nu/1,x\n", "lacks the columns reviewer_id, stars", id="wrong header"),
        pytest.param(b"product_url,stars,stars,reviewer_id\n", "names a column twice: stars", id="header twice"),
        pytest.param(HEAD + b"u/1,a,5\nu/1,\xe9t,5\n", "line 3, byte 5: 0xe9 is not valid UTF-8", id="bad UTF-8"),
        pytest.param(HEAD + b'u/1,a,5\nu/1,"b,5\nu/1,c,5\n', "line 3: a quote opens .* never closes", id="open quote"),
        pytest.param(HEAD + b'u/1,"b,5\nu/1,"c",5\n', "line 2: a quote opens .* only on line 3", id="quote astray"),
        pytest.param(HEAD + b'u/1,"' + b"x,y\n" * 300_000, "line 2: a quote opens .* 1,048,576", id="endless quote"),
        pytest.param(gzip.compress(HEAD + b"u/1,a,5\n" * 9000)[:-30], "truncated", id="truncated gzip"),
        pytest.param(gzip.compress(HEAD)[:-8] + bytes(8), "not intact", id="corrupt gzip"),
        pytest.param(b"PK\x03\x04 and so on", "a zip archive or a spreadsheet", id="spreadsheet"),
        pytest.param(b"PAR1 and so on", "not a readable Parquet file", id="not Parquet"),
    ],
)
def test_a_file_that_cannot_be_read_changes_nothing(
    shop: Connection, write: Write, content: bytes, message: str
) -> None:
    before = versions(shop)
    with pytest.raises(UserError, match=message):
        import_reviews(shop, write(content))
    assert versions(shop) == before


def test_a_wrong_header_is_refused_with_the_columns_found(shop: Connection, write: Write) -> None:
    with pytest.raises(UserError) as caught:
        import_decisions(shop, write(b"who,product_url\n"))
    assert "user_id or reviewer_id, decision or label" in caught.value.message
    assert caught.value.hint is not None
    assert "who, product_url" in caught.value.hint


def test_a_database_that_is_not_migrated_is_refused(empty_dsn: str, write: Write) -> None:
    with psycopg.connect(empty_dsn) as empty:
        for work in (import_catalog, import_reviews, import_decisions):
            with pytest.raises(UserError, match="not set up") as caught:
                work(empty, write("product_url,title,reviewer_id,stars,label\nu/1,a,b,1,1\n"))
            assert caught.value.hint == "run `two-tower migrate`"


def test_a_missing_file_is_refused(shop: Connection) -> None:
    with pytest.raises(UserError, match=r"cannot read nowhere\.csv: No such file"):
        import_reviews(shop, Path("nowhere.csv"))


def test_bad_records_are_rejected_and_the_others_imported(shop: Connection, write: Write) -> None:
    content = HEAD + b'u/1,a,5\nu/1,b\nu/1,c,5,6\n\nu/1,d\0,5\nu/1,"e"x,5\n"u/\n1",f,5\nu/1,g,5\n'
    summary = import_reviews(shop, write(content))
    assert [(line, column, reason) for line, column, _, reason in rejects(summary)] == [
        (3, "", "2 cells where the header has 3"),
        (4, "", "4 cells where the header has 3"),
        (6, "reviewer_id", "contains a NUL byte"),
        (7, "", "not CSV: ',' expected after '\"'"),
        (8, "product_url", "unknown product"),
    ]
    assert (summary.rows, summary.inserted) == (7, 2)
    assert adds_up(summary)


def test_short_and_long_rows_do_not_cancel_out(shop: Connection, write: Write) -> None:
    summary = import_reviews(shop, write(HEAD + b"u/1,a\nu/1,b,5,6\nu/1,c,5\n"))
    assert [line for line, *_ in rejects(summary)] == [2, 3]
    assert summary.inserted == 1


def test_line_numbers_are_correct_in_every_block(
    shop: Connection, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks read by either parser in turn, records across their borders, and bad rows between."""
    monkeypatch.setattr(csv_file, "BLOCK", 64)
    lines, bad = ["product_url,reviewer_id,stars"], []
    for i in range(300):
        if i % 50 == 17:
            lines += [f'u/1,"r{i}', f'of several lines",{i % 6}']
        elif i % 30 == 11:
            bad.append(len(lines) + 1)
            lines.append(f"u/1,r{i},{i}00")
        elif i % 70 == 33:
            bad.append(len(lines) + 1)
            lines.append(f"u/1,r{i}")
        else:
            lines.append(f"u/1,r{i},{i % 6}")
    summary = import_reviews(shop, write("\n".join(lines)))
    assert [line for line, *_ in rejects(summary)] == bad
    assert (summary.rows, summary.inserted) == (300, 300 - len(bad))


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "text",
    ["2024-01-01T10:00:00Z", "2024-01-01 10:00:00", "2024-01-01T10:00:00.000+00:00", "2024-01-01T19:00:00+0900",
     "2024-01-01 10:00:00 UTC", "2024/01/01 10:00", "1704103200", "1704103200000"],
)  # fmt: skip
def test_one_time_in_many_formats(shop: Connection, write: Write, text: str) -> None:
    import_reviews(shop, write(f"product_url,reviewer_id,stars,created_at\nu/1,x,5,{text}\n"))
    assert rows(shop, "select extract(epoch from created_at)::int from two_tower.reviews") == [1704103200]


@pytest.mark.parametrize("text", ["01/02/2024", "yesterday", "2024-13-01", "2024-02-30T00:00:00Z", "99999-01-01", "12"])
def test_times_that_cannot_be_read_are_rejected(shop: Connection, write: Write, text: str) -> None:
    summary = import_reviews(shop, write(f"product_url,reviewer_id,stars,created_at\nu/1,x,5,{text}\n"))
    assert [(line, column, value) for line, column, value, _ in rejects(summary)] == [(2, "created_at", text)]


def test_a_database_error_rolls_the_import_back(shop: Connection, write: Write) -> None:
    shop.execute("alter table public.videos add constraint no_nine check (title <> 'Nine')")
    shop.execute(
        "create function public.fall_over() returns trigger language plpgsql as 'begin return 1 / 0 + new.no; end'"
    )
    shop.execute("create trigger falls before insert on public.tags for each row execute function public.fall_over()")
    before = versions(shop)
    with pytest.raises(psycopg.errors.UndefinedColumn):
        import_catalog(shop, write("product_url,title,tags\nu/1,Uno,new\nu/9,Nine,new\n"))
    assert versions(shop) == before
    shop.execute("drop trigger falls on public.tags")
    assert import_catalog(shop, write("product_url,title,tags\nu/1,Uno,new\n")).updated == 1


def test_concurrent_imports_of_the_same_new_rows_succeed(dsn: str, shop: Connection, write: Write) -> None:
    catalogue = [f"n/{i},Title {i},new {i % 7},performer {i % 5}" for i in range(400)]
    decisions = [f"{ANNA},n/{i},1" for i in range(400)]
    write("\n".join(["product_url,title,tags,performers", *catalogue]), "more.csv")
    write("\n".join(["user_id,product_url,label", *decisions]), "decisions.csv")

    def work(number: int) -> ImportSummary:
        with psycopg.connect(dsn, autocommit=True) as connection:
            if number % 2:
                return import_catalog(connection, Path("more.csv"))
            return import_decisions(connection, Path("decisions.csv"), ImportOptions(unknown="create"))

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(work, range(4)))
    assert sum(summary.items_created for summary in done) == 400
    assert rows(shop, "select count(*) from public.videos where title like 'Title%' and product_url like 'n/%'") == [
        400
    ]
    assert rows(shop, "select count(*) from public.user_video_decisions") == [400]


WAITS = {
    "select pg_advisory_xact_lock(hashtextextended('two_tower.public.user_video_decisions', 0))": (
        r"another import into the same tables: process \d+ \(nightly\), whose transaction began at [\d:]+ UTC"
    ),
    "select pg_advisory_xact_lock(hashtextextended('two_tower.import decisions', 0))": (
        r"another import in chunks: process \d+ \(nightly\), whose transaction began at [\d:]+ UTC"
    ),
    "select from two_tower.job_runs where job = 'import decisions' for update": (
        "a chunk of another run of the same file"
    ),
}


def test_an_import_that_waits_says_what_for(dsn: str, shop: Connection, write: Write) -> None:
    path = write("\n".join(["user_id,product_url,label", *(f"{ANNA},u/{n},1" for n in range(1, 4))]))
    import_decisions(shop, path, ImportOptions(chunk=2))
    for lock, awaited in WAITS.items():
        shop.execute("update two_tower.job_runs set finished_at = null, result = result || '{\"line\": 0}'")
        said: list[str] = []
        with psycopg.connect(dsn, application_name="nightly") as other:
            other.execute(lock.encode())

            def told(line: str, other: Connection = other, said: list[str] = said) -> None:
                said.append(line)
                other.rollback()

            import_decisions(shop, path, ImportOptions(chunk=2, say=told))
        assert [line for line in said if re.fullmatch(f"waiting for {awaited}", line)], (lock, said)


# -------------------------------------------------------------------------------------------------- what is summed up


def test_the_summary_equals_counts_of_the_file(shop: Connection, write: Write, tmp_path: Path) -> None:
    lines = [f"u/{i % 4},r{i % 50},{i % 12 / 2}" for i in range(600)]  # u/0 is unknown, 5.5 stars are too many
    path = write("\n".join(["product_url,reviewer_id,stars", *lines]))
    summary = import_reviews(shop, path)
    frame = pl.read_csv(path)
    known = frame.filter(pl.col("product_url") != "u/0")
    taken = known.filter(pl.col("stars") <= 5)
    assert summary.rows == len(frame)
    assert summary.rejected == len(frame) - len(taken)
    assert summary.users == taken["reviewer_id"].n_unique()
    assert summary.items == taken["product_url"].n_unique()
    assert summary.joined == pytest.approx(len(known) / len(frame), abs=1e-6)
    assert summary.distribution == {f"{stars:g}": rows for stars, rows in taken["stars"].value_counts().iter_rows()}
    assert summary.inserted == len(taken.select("product_url", "reviewer_id").unique())
    assert adds_up(summary)


def test_decisions_are_counted_by_kind(shop: Connection, write: Write) -> None:
    path = write(f"user_id,product_url,decision\n{ANNA},u/1,LIKE\n{ANNA},u/2,dislike\n{ANNA},u/3,skip\n{ANNA},x,0\n")
    summary = import_decisions(shop, path)
    assert summary.distribution == {"like": 1, "nope": 1, "skip": 1}
    assert summary.joined == 0.75


def test_an_outdated_report_of_rejects_is_removed(shop: Connection, write: Write) -> None:
    import_reviews(shop, write("product_url,reviewer_id,stars\nu/1,x,9\n"))
    assert Path("file.rejects.csv").exists()
    import_reviews(shop, write("product_url,reviewer_id,stars\nu/1,x,5\n"))
    assert not Path("file.rejects.csv").exists()
    Path("file.rejects.csv").write_text("somebody's notes\n")
    import_reviews(shop, write("product_url,reviewer_id,stars\nu/1,x,5\n"))
    assert Path("file.rejects.csv").read_text() == "somebody's notes\n"


# ------------------------------------------------------------------------------------------------------------ in chunks


@pytest.mark.sampled(2)
@pytest.mark.parametrize("chunk", [1, 7, 50, 1000])
def test_an_import_in_chunks_gives_the_same_rows_as_one_transaction(
    shop: Connection, write: Write, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(csv_file, "BLOCK", 256)
    lines = [f"u/{i % 3 + 1},r{i // 3},{i % 6}" if i != 20 else "u/1,r,9" for i in range(60)]
    path = write("\n".join(["product_url,reviewer_id,stars", *lines]))
    whole = import_reviews(shop, path)
    query = "select reviewer_id, video_id, stars from two_tower.reviews order by 1, 2"
    found = rows(shop, query)
    shop.execute("truncate two_tower.reviews")
    summary = import_reviews(shop, path, ImportOptions(chunk=chunk))
    assert rows(shop, query) == found
    summary.seconds = whole.seconds = 0
    assert summary == whole
    catalogue = import_catalog(shop, write(CATALOGUE, "catalog.csv"), ImportOptions(chunk=2))
    assert (catalogue.unchanged, catalogue.items) == (3, 3)


class _BrokenOffError(Exception):
    pass


@pytest.mark.parametrize("first", [True, False])
def test_committed_chunks_are_kept_and_the_next_run_continues(
    shop: Connection, write: Write, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    """Into an empty table (``first``) and into one that has rows."""
    monkeypatch.setattr(csv_file, "BLOCK", 256)
    if not first:
        import_reviews(shop, write("product_url,reviewer_id,stars\nu/1,other,3\n", "other.csv"))
    lines = [f"u/{i % 3 + 1},r{i // 3},{'9' if i % 10 == 0 else 3}" for i in range(60)]
    path = write("\n".join(["product_url,reviewer_id,stars", *lines]))
    merges = 0

    def broken_off(done: int, total: int | None, step: str) -> None:
        nonlocal merges
        merges += step == "merging"
        if merges == 3:
            raise _BrokenOffError

    with pytest.raises(_BrokenOffError):
        import_reviews(shop, path, ImportOptions(chunk=20), broken_off)
    in_already = rows(shop, "select count(*) from two_tower.reviews")[0] - (not first)
    assert in_already == 36
    said: list[str] = []
    summary = import_reviews(shop, path, ImportOptions(chunk=20, say=said.append))
    assert "goes on after line 41" in said[0]
    assert (summary.rows, summary.resumed, summary.inserted, summary.rejected) == (60, 40, 18, 2)
    assert adds_up(summary)
    assert [line for line, *_ in rejects(summary)] == [2, 12, 22, 32, 42, 52]
    again = import_reviews(shop, path, ImportOptions(chunk=20))  # finished, so there is nothing to continue
    assert (again.resumed, again.unchanged, again.rejected) == (0, 54, 6)
    path.write_text(path.read_text() + "\nu/1,new,1\n")
    assert import_reviews(shop, path, ImportOptions(chunk=20)).inserted == 1


@pytest.mark.sampled(1)
@pytest.mark.parametrize("chunk", [None, 30])
def test_an_import_survives_a_server_crash(
    new_server: Callable[..., Server], write: Write, monkeypatch: pytest.MonkeyPatch, chunk: int | None
) -> None:
    monkeypatch.setattr(csv_file, "BLOCK", 256)
    server = new_server(durable=True)  # otherwise committed rows might be lost too
    dsn = server.start()
    migrate(dsn)
    with psycopg.connect(dsn, autocommit=True) as db:
        import_catalog(db, write(CATALOGUE, "catalog.csv"))
        shape = shape_of_reviews(db)
    path = write(reviews_text(300))
    calls = 0

    def killing(done: int, total: int | None, step: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            for process in processes_of(server):
                os.kill(process, signal.SIGKILL)
            while processes_of(server):  # processes end with a delay
                time.sleep(0.01)

    with (
        psycopg.connect(dsn, autocommit=True) as db,
        pytest.raises(UserError, match="connection to the database was lost") as caught,
    ):
        import_reviews(db, path, ImportOptions(chunk=chunk), killing)
    assert caught.value.hint is not None
    assert "run this again" in caught.value.hint
    with psycopg.connect(server.start(), autocommit=True) as db:
        (there,) = rows(db, "select count(*) from two_tower.reviews")
        assert there == 0 if chunk is None else there > 0 and there % chunk == 0
        assert shape_of_reviews(db) == shape
        summary = import_reviews(db, path, ImportOptions(chunk=chunk))
        assert (summary.rows, summary.inserted, summary.resumed) == (300, 300 - there, there)
        assert rows(db, "select count(*), count(distinct reviewer_id) from two_tower.reviews") == [(300, 300)]


def processes_of(server: Server) -> list[int]:
    """The postmaster and its backends, which are the processes working in its data directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == server.data:
                found.append(int(process.name))
    return found


# -------------------------------------------------------------------------------------------------- the command line


def run(*arguments: str) -> Any:
    from two_tower.cli.main import app

    return CliRunner().invoke(app, ["import", *arguments])


def test_the_import_commands_report_and_exit_correctly(dsn: str, shop: Connection, write: Write) -> None:
    path = str(write("product_url,who,stars\nu/1,x,5\nu/0,x,5\n", "stars.csv"))
    result = run("reviews", path, "--dsn", dsn, "--map", "who=reviewer_id", "--json")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["rows"], summary["inserted"], summary["rejected"]) == (2, 1, 1)
    assert summary["rejects"] == "stars.rejects.csv"
    assert "u/0" in Path("stars.rejects.csv").read_text(encoding="utf-8")
    result = run(
        "reviews", path, "--dsn", dsn, "--map", "who=reviewer_id", "--rejects", "bad.csv", "--unknown", "create"
    )
    assert result.exit_code == 0
    assert "1 were inserted" in result.stdout
    again = run("reviews", path, "--dsn", dsn, "--map", "who=reviewer_id", "--summary", "s.json", "--chunk", "1")
    assert again.exit_code == 0
    assert json.loads(Path("s.json").read_text(encoding="utf-8"))["distribution"] == {"5": 2}
    failed = run("decisions", path, "--dsn", dsn)
    assert failed.exit_code == 1
    assert "lacks the columns" in failed.stderr
    assert "Traceback" not in failed.stderr
    for wrong in (("--map", "who"), ("--unknown", "ask"), ("--delimiter", "--")):
        assert run("reviews", path, "--dsn", dsn, *wrong).exit_code == 2
