"""Recommendations for clients: always k good rows, without decided videos, and each with a reason."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import numpy as np
import polars as pl
import psycopg
import pytest
from psycopg import errors

from conftest import Connect, Connection, NewDatabase, copy_cluster, in_database, remove_server, server_directory
from test_refresh import assert_fresh
from two_tower.bench import serving
from two_tower.lifecycle import recommend as recommend_file
from two_tower.server import migrate
from two_tower.server.embedded import Server
from world_fixtures import (
    EPOCH,
    NOBODY,
    Client,
    column,
    copy_rows,
    ident,
    load,
    make_world,
    one,
    refresh,
    rpc,
    tiny_model,
)

pytestmark = pytest.mark.world

WORLD = make_world()
COLUMNS = {"video_id", "score", "rank", "title", "thumbnail_url", "product_url", "reason", "model_version"}
COLUMNS |= {"list_id", "propensity"}
BECAUSE = {"because_video_id", "because_title"}
"""Further columns of a user's own list."""
Rows = list[dict[str, Any]]


def recommend(client: Client, user: UUID, **arguments: Any) -> Rows:
    """The answer, after assertions that hold for every answer."""
    rows = client.rpc("authenticated", user, "recommend_videos", **arguments)
    check(rows, COLUMNS | BECAUSE)
    return rows


def check(rows: Rows, columns: set[str] = COLUMNS) -> None:
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    assert len({row["video_id"] for row in rows}) == len(rows)
    assert all(row.keys() == columns for row in rows)
    published = {str(v) for v in WORLD.published}
    assert {row["video_id"] for row in rows} <= published | {str(NOBODY)}
    order = ["taste", "similar", "trending", "popular", "newest"]
    reasons = [order.index(row["reason"]) for row in rows]
    assert reasons == sorted(reasons), "a rung of the ladder fills what the ones above left open"
    for reason in order:
        scores = [row["score"] for row in rows if row["reason"] == reason]
        assert scores == sorted(scores, reverse=True)


def ids(rows: Rows) -> list[str]:
    return [row["video_id"] for row in rows]


def without(user: UUID) -> set[str]:
    """Published videos that the user has not decided on."""
    return {str(v) for v in WORLD.published} - {str(v) for v in WORLD.decided(user)}


def vectors(db: Connection, kind: str) -> dict[str, np.ndarray]:
    query = f"select {kind}_id::text, embedding::text from public.{kind}_embeddings"
    return {key: np.array(json.loads(text), dtype=np.float32) for key, text in db.execute(query.encode())}


# -------------------------------------------------------------------------------------------- lists


def test_the_default_is_twenty_ranked_rows(client: Client) -> None:
    rows = recommend(client, WORLD.usual)
    assert len(rows) == 20
    assert {row["reason"] for row in rows} == {"taste"}
    assert {row["model_version"] for row in rows} == {"v1"}
    titles = {str(row[0]): row[2] for row in WORLD.video_rows}
    assert all(row["title"] == titles[row["video_id"]] for row in rows)


def test_lists_are_the_nearest_videos_without_a_decision(db: Connection, client: Client) -> None:
    taste, items = vectors(db, "user")[str(WORLD.usual)], vectors(db, "video")
    norm = np.linalg.norm
    scores = {v: float(items[v] @ taste / norm(items[v]) / norm(taste)) for v in without(WORLD.usual)}
    rows = recommend(client, WORLD.usual, limit=50)
    assert ids(rows) == sorted(scores, key=lambda v: (-round(scores[v], 6), v))[:50]
    assert [row["score"] for row in rows] == pytest.approx([scores[row["video_id"]] for row in rows], abs=1e-5)


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        (WORLD.no_decisions, "popular"),
        (WORLD.only_skips, "popular"),
        (WORLD.only_nopes, "popular"),
        (WORLD.one_like, "taste"),
        (WORLD.usual, "taste"),
        (WORLD.many, "taste"),
        (NOBODY, "popular"),
    ],
    ids=["no decisions", "only skips", "only nopes", "one like", "usual", "many decisions", "deleted"],
)
def test_every_user_gets_twenty_videos(user: UUID, reason: str, client: Client) -> None:
    rows = recommend(client, user)
    assert len(rows) == 20
    assert rows[0]["reason"] == reason
    assert set(ids(rows)) <= without(user)


def test_lists_have_the_requested_length(db: Connection, client: Client) -> None:
    # Videos without a vector make more than the longest list.
    db.execute(
        "insert into videos (id, product_url, title, published_at) select gen_random_uuid(), n::text, '', now()"
        " from generate_series(1, 150) n"
    )
    every = [row["video_id"] for row in client.rpc("authenticated", WORLD.usual, "recommend_videos", limit=200)]
    assert set(every) > without(WORLD.usual)
    for limit in (1, 2, 19, 100, 200):
        rows = client.rpc("authenticated", WORLD.usual, "recommend_videos", limit=limit)
        assert len(rows) == limit
        assert ids(rows) == every[:limit]


@pytest.mark.parametrize("limit", [0, -1, 201, 2**31 - 1, None])
def test_a_limit_out_of_bounds_is_a_bad_argument(limit: int | None, client: Client) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="limit must be between 1 and 200"):
        client.rpc("authenticated", WORLD.usual, "recommend_videos", limit=limit)
    with pytest.raises(errors.InvalidParameterValue, match="limit must be between 1 and 200"):
        client.rpc("anon", None, "similar_videos", video_id=WORLD.published[3], limit=limit)


def test_a_user_with_30_undecided_videos_gets_those(db: Connection, client: Client) -> None:
    left = {str(v) for v in sorted(WORLD.published)[::4][:30]}
    db.execute(
        """insert into user_video_decisions
        select %s, id, case hashtext(id::text) %% 3 when 0 then 'like' when 1 then 'nope' else 'skip' end from videos
        where id <> all (%s) on conflict do nothing""",
        (WORLD.no_decisions, [UUID(v) for v in left]),
    )
    for _ in ("before the refresh", "after it"):
        assert set(ids(recommend(client, WORLD.no_decisions, limit=200))) == left
        assert len(recommend(client, WORLD.no_decisions, limit=30)) == 30
        refresh(db)
    db.execute(
        "insert into user_video_decisions select %s, id, 'skip' from videos on conflict do nothing",
        (WORLD.no_decisions,),
    )
    assert recommend(client, WORLD.no_decisions) == []


def test_a_decision_removes_a_video_from_lists_at_once(db: Connection, client: Client) -> None:
    first = ids(recommend(client, WORLD.usual))
    for video, decision in zip(first[:3], ("like", "nope", "skip"), strict=True):
        db.execute("insert into user_video_decisions values (%s, %s, %s)", (WORLD.usual, video, decision))
    again = ids(recommend(client, WORLD.usual))
    assert again[:17] == first[3:]
    assert len(again) == 20


def test_a_video_of_which_only_the_address_is_given_is_shown(db: Connection, client: Client) -> None:
    row = db.execute("insert into videos (product_url) values ('https://videos.example/bare') returning id").fetchone()
    assert row is not None
    assert str(row[0]) in ids(client.rpc("anon", None, "popular_videos_now", limit=200))


def test_a_video_unpublished_a_second_ago_is_hidden(db: Connection, client: Client) -> None:
    first = ids(recommend(client, WORLD.usual))
    similar = ids(client.rpc("anon", None, "similar_videos", video_id=WORLD.published[3]))
    for published_at in (None, "infinity"):
        db.execute(
            "update videos set published_at = %s where id = any (%s)", (published_at, [*first[:2], *similar[:2]])
        )
        assert not {*first[:2], *similar[:2]} & set(ids(recommend(client, WORLD.usual)))
        assert ids(recommend(client, WORLD.usual))[0] in first
        assert not set(similar[:2]) & set(ids(client.rpc("anon", None, "similar_videos", video_id=WORLD.published[3])))


def test_lists_are_full_although_the_nearest_videos_are_unpublished(db: Connection, client: Client) -> None:
    ranked = ids(recommend(client, WORLD.usual, limit=200))
    # More than a first search keeps: twice the limit, plus the decided videos.
    assert len(ranked) > 2 * 3 + len(WORLD.decided(WORLD.usual)) + 3
    db.execute("update videos set published_at = null where id::text <> all (%s)", (ranked[-3:],))
    rows = recommend(client, WORLD.usual, limit=3)
    assert ids(rows) == ranked[-3:]
    assert {row["reason"] for row in rows} == {"taste"}


def test_new_videos_without_a_vector_fill_the_end_of_lists(db: Connection, client: Client) -> None:
    before = recommend(client, WORLD.many, limit=200)
    assert {row["reason"] for row in before} == {"taste"}
    assert len(before) == len(without(WORLD.many)) < 200
    db.execute("insert into videos (id, product_url, title, published_at) values (%s, 'n', 'new', now())", (NOBODY,))
    after = recommend(client, WORLD.many, limit=200)
    assert (after[-1]["video_id"], after[-1]["reason"]) == (str(NOBODY), "newest")
    assert ids(after[:-1]) == ids(before)


def test_first_likes_give_a_list_by_taste_before_a_refresh(db: Connection, client: Client) -> None:
    liked = WORLD.published[5:9]
    for video in liked:
        db.execute("insert into user_video_decisions values (%s, %s, 'like')", (WORLD.no_decisions, video))
    at_once = recommend(client, WORLD.no_decisions)
    assert {row["reason"] for row in at_once} == {"taste"}
    refresh(db)
    assert recommend(client, WORLD.no_decisions) == at_once


def test_embed_user_changes_only_the_callers_list(db: Connection, client: Client) -> None:
    mine, theirs = recommend(client, WORLD.usual), recommend(client, WORLD.one_like)
    for video in ids(mine)[5:10]:
        db.execute("insert into user_video_decisions values (%s, %s, 'nope')", (WORLD.usual, video))
    stale = recommend(client, WORLD.usual)
    client.rpc("authenticated", WORLD.usual, "embed_user")
    fresh = recommend(client, WORLD.usual)
    assert {row["video_id"]: row["score"] for row in fresh} != {row["video_id"]: row["score"] for row in stale}
    assert recommend(client, WORLD.one_like) == theirs


def test_the_same_request_has_the_same_answer(db: Connection, client: Client, connect: Connect) -> None:
    other = Client(connect(autocommit=False, user="authenticator"))
    first = recommend(client, WORLD.usual, limit=200)
    assert recommend(other, WORLD.usual, limit=200) == first
    db.execute("vacuum analyze two_tower.video_embeddings")
    assert recommend(client, WORLD.usual, limit=200) == first


def test_ties_are_broken_by_id(db: Connection, client: Client) -> None:
    db.execute(
        "update two_tower.video_embeddings set embedding = (select embedding from two_tower.video_embeddings limit 1) "
        "where video_id = any (%s)",
        (WORLD.published,),
    )
    expected = sorted(without(WORLD.usual))[:20]
    assert ids(recommend(client, WORLD.usual)) == expected
    assert (
        ids(client.rpc("anon", None, "similar_videos", video_id=WORLD.published[3]))
        == [str(v) for v in sorted(WORLD.published) if v != WORLD.published[3]][:20]
    )


# -------------------------------------------------------------------------------------------- filters


def test_tags_filter_a_list_and_keep_its_order(client: Client) -> None:
    every = ids(recommend(client, WORLD.usual, limit=200))
    for tags in ([WORLD.tags[0]], [WORLD.tags[1], WORLD.tags[2]], [WORLD.tags[3], NOBODY], WORLD.tags[:10] * 10):
        carriers = set().union(*({str(v) for v in WORLD.tagged(t)} for t in tags))
        rows = recommend(client, WORLD.usual, limit=200, tag_ids=tags)
        assert set(ids(rows)) == carriers & without(WORLD.usual)
        assert {row["reason"] for row in rows} == {"taste"}
        assert [v for v in every if v in carriers] == [v for v in ids(rows) if v in every]


@pytest.mark.parametrize("user", [WORLD.no_decisions, WORLD.only_nopes, WORLD.usual, WORLD.many])
def test_a_filter_that_two_videos_pass_gives_those_two(user: UUID, client: Client) -> None:
    rows = recommend(client, user, tag_ids=[WORLD.rare_tag])
    assert set(ids(rows)) == {str(v) for v in WORLD.tagged(WORLD.rare_tag)} & without(user)


@pytest.mark.parametrize("tags", [[NOBODY], [None]])
def test_a_filter_that_no_video_passes_gives_no_rows(tags: list[Any], client: Client) -> None:
    assert recommend(client, WORLD.usual, tag_ids=tags) == []
    assert recommend(client, WORLD.no_decisions, tag_ids=tags) == []


@pytest.mark.parametrize("nothing", [None, []])
def test_no_filter_and_null_are_the_same(nothing: Any, client: Client) -> None:
    assert recommend(client, WORLD.usual, tag_ids=nothing) == recommend(client, WORLD.usual)


def test_more_tags_than_a_hundred_are_a_bad_argument(client: Client) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="at most 100 tags"):
        client.rpc("authenticated", WORLD.usual, "recommend_videos", tag_ids=[NOBODY] * 101)


# -------------------------------------------------------------------------------------------- by the index

by_index = pytest.mark.xdist_group("large")
LARGE = 6_000
TAGGED = 6
"""Videos with the tag that a thousandth of the catalogue has."""


@pytest.fixture(scope="module")
def large_template(cluster: Server, world_template: str) -> Iterator[str]:
    """The world with 6,000 videos more, in clusters, and an index that is searched as for a million."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, 128))
    vectors = centres[rng.integers(60, size=LARGE)] + 0.7 * rng.normal(size=(LARGE, 128))
    name = f"large_{os.getpid()}"
    with psycopg.connect(cluster.dsn, autocommit=True) as admin:
        admin.execute(f"create database {name} template {world_template}".encode())
        with psycopg.connect(in_database(cluster.dsn, name), autocommit=True) as db:
            db.execute("set session_replication_role = replica")
            index = one(db, "select pg_get_indexdef('two_tower.video_embeddings_1_hnsw'::regclass)")
            db.execute("drop index two_tower.video_embeddings_1_hnsw")
            added = [ident("more", n) for n in range(LARGE)]
            at = EPOCH - timedelta(days=1)
            columns = "(id, product_url, title, published_at)"
            copy_rows(db, f"public.videos {columns}", [(v, f"https://more.example/{v}", str(v), at) for v in added])
            rows = [(v, "v1", str([round(x, 3) for x in e])) for v, e in zip(added, vectors.tolist(), strict=True)]
            copy_rows(db, "two_tower.video_embeddings (video_id, model_version, embedding)", rows)
            copy_rows(db, "public.video_tags", [(v, WORLD.rare_tag) for v in added[: TAGGED - 2]])
            copy_rows(db, "public.video_tags", [(v, t) for v in added[::2] for t in WORLD.tags[:2]])
            for user in (WORLD.no_decisions, WORLD.one_like, WORLD.usual, WORLD.many):
                taste = str((centres[rng.choice(60, 3)].sum(axis=0) + rng.normal(size=128)).round(3).tolist())
                db.execute("delete from two_tower.user_embeddings where user_id = %s", (user,))
                db.execute("insert into two_tower.user_embeddings values ('v1', %s, %s)", (user, taste))
            db.execute(index.encode())
            db.execute("analyze")
            # Larger tables than the limit are not searched exactly.
            db.execute("update pg_class set reltuples = 1e6 where relname = 'video_embeddings_1'")
        yield name
        admin.execute(f"drop database {name} with (force)".encode())


@pytest.fixture
def large(large_template: str, database: NewDatabase) -> Iterator[tuple[Connection, Client]]:
    target = database(template=large_template)
    with psycopg.connect(target, autocommit=True) as db, psycopg.connect(
        in_database(target, target.split("/")[-1].split("?")[0], "authenticator")
    ) as connection:  # fmt: skip
        yield db, Client(connection)


def decide(db: Connection, user: UUID, count: int) -> None:
    """Replaces the user's decisions by ones on the ``count`` nearest videos."""
    db.execute("delete from user_video_decisions where user_id = %s", (user,))
    db.execute(
        """insert into user_video_decisions (user_id, video_id, decision_type)
        select u.user_id, n.video_id, 'skip' from user_embeddings u cross join lateral (
            select v.video_id from video_embeddings v
            order by (v.embedding operator(extensions.<=>) u.embedding) + 0, v.video_id limit %s
        ) n where u.user_id = %s""",
        (count, user),
    )


def nearest(db: Connection, user: UUID, limit: int, tags: list[UUID] | None = None) -> dict[str, float]:
    """Ids and cosines of the nearest videos that the user may be shown, by comparing all videos."""
    rows = db.execute(
        """select e.video_id::text, 1 - (e.embedding operator(extensions.<=>) u.embedding) as score
        from user_embeddings u cross join video_embeddings e
        join videos v on v.id = e.video_id and v.published_at <= now()
        where u.user_id = %(user)s
            and not exists (select from user_video_decisions d where (d.user_id, d.video_id) = (u.user_id, e.video_id))
            and (%(tags)s::uuid[] is null or exists (
                select from video_tags t where t.video_id = e.video_id and t.tag_id = any (%(tags)s)
            ))
        order by 2 desc, 1 limit %(limit)s""",
        {"user": user, "tags": tags, "limit": limit},
    ).fetchall()
    return dict(rows)


def found_by_index(db: Connection, client: Client, user: UUID, limit: int = 20, tags: list[UUID] | None = None) -> Rows:
    """The answer; asserts that it is complete, ordered, has right scores and at least 95 % of the nearest videos."""
    rows = client.rpc("authenticated", user, "recommend_videos", limit=limit, tag_ids=tags)
    expected = nearest(db, user, limit, tags)
    assert len(rows) == len(expected) == limit
    assert {row["reason"] for row in rows} == {"taste"}
    everything = nearest(db, user, 10_000, tags)
    assert [row["score"] for row in rows] == pytest.approx([everything[v] for v in ids(rows)], abs=1e-5)
    order = sorted(rows, key=lambda row: (-row["score"], row["video_id"]))
    assert [row["score"] for row in rows] == [row["score"] for row in order]
    assert len(expected.keys() & set(ids(rows))) >= 0.95 * limit
    return rows


@pytest.mark.sampled(2)
@by_index
@pytest.mark.parametrize("decisions", [0, 1, 50, 5_000])
@pytest.mark.parametrize("limit", [20, 200])
def test_the_index_fills_lists_for_any_number_of_decisions(
    decisions: int, limit: int, large: tuple[Connection, Client]
) -> None:
    db, client = large
    decide(db, WORLD.usual, decisions)
    found_by_index(db, client, WORLD.usual, limit)


@by_index
def test_recommend_videos_uses_the_index(large: tuple[Connection, Client]) -> None:
    db, client = large
    scans = "select idx_scan from pg_stat_user_indexes where indexrelname = 'video_embeddings_1_hnsw'"
    before = one(db, scans)
    with client.as_("authenticated", WORLD.usual) as connection:
        connection.execute("select * from public.recommend_videos()")
        connection.execute("select pg_stat_force_next_flush()")
    assert one(db, scans) == before + 1


@pytest.mark.soak
@by_index
def test_the_width_of_index_searches_is_measured_at_activation(large: tuple[Connection, Client]) -> None:
    db, client = large
    widths = {*range(0, 61, 10), *range(80, 201, 20), *range(240, 401, 40), *range(480, 641, 80), 760, 900}
    for least, margins in ((0.99, widths), (1.01, {0})):
        db.execute("update two_tower.settings set value = to_jsonb(%s) where name = 'search_min_recall'", (least,))
        assert one(db, "select two_tower.tune_search('v1')") in margins
        assert one(db, "select search_margin from two_tower.model_versions where version = 'v1'") in margins
        assert one(db, "select two_tower.gate_recall('v1')") >= min(least, 1) - 0.005
        found_by_index(db, client, WORLD.usual)


@by_index
def test_lists_are_full_although_the_index_finds_nothing(large: tuple[Connection, Client]) -> None:
    """All but the thirty farthest videos are decided, which no scan of an index reaches."""
    db, client = large
    known = one(db, "select count(*) from video_embeddings v join videos on id = video_id where published_at <= now()")
    every = list(nearest(db, WORLD.one_like, known))
    db.execute("delete from user_video_decisions where user_id = %s", (WORLD.one_like,))
    left = list(nearest(db, WORLD.one_like, known))[-30:]
    assert set(left) <= set(every)
    db.execute(
        "insert into user_video_decisions select %s, id, 'nope' from videos where id <> all (%s::uuid[])",
        (WORLD.one_like, left),
    )
    rows = client.rpc("authenticated", WORLD.one_like, "recommend_videos", limit=30)
    assert ids(rows) == left
    assert {row["reason"] for row in rows} == {"taste"}


@by_index
@pytest.mark.parametrize("tags", [WORLD.tags[:1], WORLD.tags[:2]], ids=["looked up", "by the index"])
def test_filters_by_common_tags_use_the_index(tags: list[UUID], large: tuple[Connection, Client]) -> None:
    db, client = large
    found_by_index(db, client, WORLD.many, 20, tags)
    found_by_index(db, client, WORLD.many, 200, tags)


@by_index
def test_a_filter_by_a_rare_tag_finds_all_its_videos(large: tuple[Connection, Client]) -> None:
    db, client = large
    decide(db, WORLD.usual, 50)
    expected = nearest(db, WORLD.usual, 20, [WORLD.rare_tag])
    rows = client.rpc("authenticated", WORLD.usual, "recommend_videos", tag_ids=[WORLD.rare_tag])
    assert TAGGED - 2 <= len(expected) <= TAGGED
    assert ids(rows) == list(expected)


@pytest.mark.sampled
@by_index
@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("user", [WORLD.usual, WORLD.many, WORLD.no_decisions])
def test_a_range_finds_as_many_videos_as_pass(share: float, user: UUID, large: tuple[Connection, Client]) -> None:
    """By the index if many pass, exactly if few do; later stages of the list respect it, too."""
    db, client = large
    db.execute("update videos set duration_seconds = 1 + abs(hashtext(id::text)) % 1000000")
    most = int(share * 1_000_000)
    passing = {
        str(v): at
        for v, at in db.execute(
            "select id, published_at from videos where duration_seconds <= %s and published_at <= now()", [most]
        )
    }
    rows = client.rpc("authenticated", user, "recommend_videos", limit=100, duration_max=most)
    decided = {str(v) for v in column(db, "select video_id from user_video_decisions where user_id = %s", user)}
    assert set(ids(rows)) <= passing.keys() - decided
    assert len(rows) == min(100, len(passing.keys() - decided))
    taste = [row for row in rows if row["reason"] == "taste"]
    everything = {v: score for v, score in nearest(db, user, 10_000).items() if v in passing}
    assert [row["score"] for row in taste] == pytest.approx([everything[v] for v in ids(taste)], abs=1e-5)
    best = sorted(everything, key=lambda v: (-everything[v], v))[:100]
    assert len(set(best) & set(ids(taste))) >= 0.95 * len(best)


@by_index
def test_a_filter_that_all_decided_videos_but_few_others_pass(large: tuple[Connection, Client]) -> None:
    """The share of the decided videos that pass only says how to begin."""
    db, client = large
    decide(db, WORLD.usual, 60)
    left = list(nearest(db, WORLD.usual, 10_000))[500::1000]
    db.execute(
        """update videos v set duration_seconds = case
            when v.id = any (%s::uuid[])
                or exists (select from user_video_decisions d where (d.user_id, d.video_id) = (%s, v.id)) then 1 else 2
        end""",
        (left, WORLD.usual),
    )
    rows = client.rpc("authenticated", WORLD.usual, "recommend_videos", limit=len(left), duration_max=1)
    assert ids(rows) == left


@by_index
def test_unpublished_videos_in_the_index_are_not_shown(large: tuple[Connection, Client]) -> None:
    db, client = large
    first = ids(found_by_index(db, client, WORLD.usual))
    db.execute("update videos set published_at = null where id = any (%s)", (first[:5],))
    again = ids(found_by_index(db, client, WORLD.usual))
    assert not set(first[:5]) & set(again)
    assert set(first[5:]) <= set(again)


@by_index
def test_diversity_by_the_index_keeps_the_best_and_the_length(large: tuple[Connection, Client]) -> None:
    _, client = large
    plain = client.rpc("authenticated", WORLD.usual, "recommend_videos", limit=200)
    varied = client.rpc("authenticated", WORLD.usual, "recommend_videos", limit=200, diversity=0.5)
    assert len(set(ids(varied))) == 200
    assert ids(varied)[0] == ids(plain)[0]
    assert ids(varied) != ids(plain)


@by_index
def test_the_documented_query_uses_the_index_with_default_settings(large: tuple[Connection, Client]) -> None:
    """As a signed-in user, through the views, with row level security."""
    db, client = large
    db.execute("update pg_class set reltuples = 6300 where relname = 'video_embeddings_1'")
    with client.as_("authenticated", WORLD.usual) as connection:
        plan = "\n".join(column(connection, f"explain (analyze, costs off, timing off, summary off) {DOCUMENTED}"))
    assert "Index Scan using video_embeddings_1_hnsw on video_embeddings_1" in plan, plan
    assert "Seq Scan" not in plan, plan


DOCUMENTED = """
select v.video_id from public.video_embeddings v
order by v.embedding operator(extensions.<=>) (
    select u.embedding from public.user_embeddings u where u.user_id = auth.uid()
) limit 20
"""


@pytest.mark.soak
def test_the_benchmark_yields_every_figure_with_its_baseline(cluster: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "USERS", 100)
    figures = list(serving.run(cluster, [1_000], 0.2, lambda what, share: None))
    assert [figure.figure for figure in figures] == [
        f"{figure}_{label}"
        for label in ("1k", "neighbours_1k")
        for figure in (
            "recall_at_20",
            "recommend_p50_vs_fastest",
            "recommend_p99_vs_fastest",
            "lists_per_s_2",
            "lists_per_s_16",
            "recommend_batch_users_per_s",
        )
    ]
    assert figures[0].value == figures[6].value == 1, "a small catalogue is searched exactly"
    assert all(figure.value > 0 and figure.baseline and figure.ratio for figure in figures)


# -------------------------------------------------------------------------------------------- before a model


@pytest.fixture
def bare(database: NewDatabase) -> Iterator[tuple[Connection, Client]]:
    """The world without a model."""
    target = database()
    with psycopg.connect(target, autocommit=True) as db, psycopg.connect(
        in_database(target, target.split("/")[-1].split("?")[0], "authenticator")
    ) as connection:  # fmt: skip
        load(db, WORLD)
        yield db, Client(connection)


def popularity() -> dict[str, float]:
    newest = max(at for _, _, d, at in WORLD.decisions if d == "like")
    scores: dict[str, float] = {}
    for _, video, decision, at in WORLD.decisions:
        if decision == "like":
            scores[str(video)] = scores.get(str(video), 0) + 0.5 ** ((newest - at) / timedelta(days=90))
    return scores


def test_without_an_active_model_lists_are_by_popularity(bare: tuple[Connection, Client]) -> None:
    db, client = bare
    refresh(db)
    db.execute("select two_tower.update_popularity()")
    scores = popularity()
    for user in (WORLD.usual, WORLD.no_decisions):
        rows = recommend(client, user)
        assert {(row["reason"], row["model_version"]) for row in rows} == {("popular", None)}
        expected = sorted(without(user) & scores.keys(), key=lambda v: (-scores[v], v))[:20]
        assert ids(rows) == expected
        # Not the popularity, which for a video with one like would reveal the time of the like.
        assert [row["score"] for row in rows] == pytest.approx([1 / row["rank"] for row in rows], rel=1e-5)
    tagged = recommend(client, WORLD.usual, tag_ids=[WORLD.tags[0]])
    assert set(ids(tagged)) <= {str(v) for v in WORLD.tagged(WORLD.tags[0])} & without(WORLD.usual)
    assert len(tagged) == 20 or set(ids(tagged)) == {str(v) for v in WORLD.tagged(WORLD.tags[0])} & without(WORLD.usual)


def test_without_popularity_the_newest_videos_come_first(bare: tuple[Connection, Client]) -> None:
    db, client = bare
    db.execute("truncate user_video_decisions")
    rows = recommend(client, WORLD.no_decisions, limit=200)
    published_at = {str(row[0]): row[11] for row in WORLD.video_rows}
    newest = sorted((str(v) for v in WORLD.published), key=lambda v: (EPOCH - published_at[v], v))
    assert ids(rows) == newest[:200]
    assert {row["reason"] for row in rows} == {"popular"}


def test_similar_videos_without_a_model_are_popular_ones(bare: tuple[Connection, Client]) -> None:
    db, client = bare
    db.execute("select two_tower.update_popularity()")
    rows = client.rpc("anon", None, "similar_videos", video_id=WORLD.published[3], limit=100)
    check(rows)
    assert len(rows) == 100
    assert {row["model_version"] for row in rows} == {None}
    scores, likers = popularity(), Counter(str(v) for _, v, d, _ in WORLD.decisions if d == "like")
    published_at = {str(row[0]): row[11] for row in WORLD.video_rows}
    others = {str(v) for v in WORLD.published} - {str(WORLD.published[3])}
    # A video with fewer than five likers is where it would be without their likes.
    popular = sorted((v for v in others if likers[v] >= 5), key=lambda v: (-scores[v], v))
    newest = sorted(others - set(popular), key=lambda v: (EPOCH - published_at[v], v))
    assert 0 < len(popular) < 100
    assert ids(rows) == (popular + newest)[:100]
    assert {row["reason"] for row in rows} == {"popular"}


# -------------------------------------------------------------------------------------------- similar videos


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
def test_every_role_gets_similar_videos(role: str, client: Client) -> None:
    rows = client.rpc(role, None, "similar_videos", video_id=WORLD.published[3])
    check(rows)
    assert len(rows) == 20
    assert str(WORLD.published[3]) not in ids(rows)
    assert rows[0]["reason"] == "similar"
    assert {row["model_version"] for row in rows} == {"v1"}


@pytest.mark.parametrize("video", [NOBODY, WORLD.unpublished_video, WORLD.future_video])
def test_hidden_videos_have_no_similar_videos(video: UUID, client: Client) -> None:
    with pytest.raises(errors.NoDataFound, match=str(video)):
        client.rpc("anon", None, "similar_videos", video_id=video)


def test_a_video_without_a_vector_has_popular_neighbours(db: Connection, client: Client) -> None:
    db.execute("insert into videos (id, product_url, title, published_at) values (%s, 'n', 'new', now())", (NOBODY,))
    rows = client.rpc("anon", None, "similar_videos", video_id=NOBODY)
    check(rows)
    assert len(rows) == 20
    assert {row["reason"] for row in rows} <= {"popular", "newest"}


# -------------------------------------------------------------------------------------------- many users


def test_recommend_batch_equals_recommend_videos(db: Connection, client: Client) -> None:
    users = [*WORLD.users, NOBODY]
    rows = db.execute(
        "select user_id, video_id::text, score, rank from two_tower.recommend_batch(%s, 20)", (users,)
    ).fetchall()
    assert len(rows) == 20 * len(users)
    for user in users[::5]:
        own = [row[1:] for row in rows if row[0] == user]
        expected = [(r["video_id"], pytest.approx(r["score"], rel=1e-6), r["rank"]) for r in recommend(client, user)]
        assert sorted(own, key=lambda row: row[2]) == expected


def test_only_the_service_calls_recommend_batch_within_bounds(db: Connection, client: Client) -> None:
    batch = "select * from two_tower.recommend_batch(%s, %s)"
    with client.as_("service_role") as connection:
        assert len(connection.execute(batch, ([WORLD.usual], 7)).fetchall()) == 7
    for role in ("anon", "authenticated"):
        with pytest.raises(errors.InsufficientPrivilege), client.as_(role, WORLD.usual) as connection:
            connection.execute(batch, ([WORLD.usual], 7))
    assert db.execute(batch, ([], 7)).fetchall() == []
    assert db.execute(batch, (None, 7)).fetchall() == []
    for limit in (0, 1001, None):
        with pytest.raises(errors.InvalidParameterValue):
            db.execute(batch, ([WORLD.usual], limit))


@pytest.mark.parametrize("name", ["answers.csv", "answers.parquet"])
def test_a_file_for_everyone_is_the_same_however_many_connections_write_it(
    name: str, db: Connection, tmp_path: Path
) -> None:
    files = []
    for workers in (1, 3):
        directory = tmp_path / str(workers)
        directory.mkdir()
        rows = recommend_file.write(db, None, 7, directory / name, lambda *_: None, workers)
        assert rows == 7 * len(WORLD.users)
        assert recommend_file.write(db, [str(WORLD.usual)], 7, directory / f"one-{name}", lambda *_: None, workers) == 7
        assert sorted(path.name for path in directory.iterdir()) == [name, f"one-{name}"]
        read = pl.read_csv if name.endswith("csv") else pl.read_parquet
        files.append((read(directory / name).rows(), read(directory / f"one-{name}").rows()))
    assert files[0] == files[1]
    assert [len(rows) for rows in files[0]] == [7 * len(WORLD.users), 7]


# -------------------------------------------------------------------------------------------- as PostgREST calls it


def test_arguments_may_be_json_strings(client: Client) -> None:
    assert len(recommend(client, WORLD.usual, limit="3")) == 3
    assert ids(recommend(client, WORLD.usual, tag_ids=[str(WORLD.rare_tag).upper()])) == ids(
        recommend(client, WORLD.usual, tag_ids=[WORLD.rare_tag])
    )


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("recommend_videos", {"limit": "three"}),
        ("recommend_videos", {"limit": 2.5}),
        ("recommend_videos", {"limit": [1]}),
        ("recommend_videos", {"tag_ids": ["x"]}),
        ("recommend_videos", {"tag_ids": "'); drop table videos; --"}),
        ("similar_videos", {"video_id": "1 or 1=1"}),
        ("similar_videos", {"video_id": {"a": 1}}),
        ("get_item_embedding_features", {"video_id": "../../etc/passwd"}),
        ("embed_user", {"force": "perhaps"}),
    ],
)
def test_a_mistyped_argument_is_the_clients_error(name: str, arguments: dict[str, Any], client: Client) -> None:
    with pytest.raises(errors.InvalidTextRepresentation):
        client.rpc("authenticated", WORLD.usual, name, **arguments)


def test_missing_and_extra_arguments_find_no_function(client: Client) -> None:
    with pytest.raises(errors.UndefinedFunction):
        client.rpc("anon", None, "similar_videos")
    with pytest.raises(LookupError):
        client.rpc("authenticated", WORLD.usual, "recommend_videos", user_id=str(WORLD.many))


def test_requests_without_a_user_are_refused(client: Client) -> None:
    for claims in ({}, {"sub": None}, {"email": "a@example.org"}):
        with (
            pytest.raises(errors.InvalidAuthorizationSpecification, match="not signed in"),
            client.as_("authenticated", **claims) as connection,
        ):
            connection.execute("select * from public.recommend_videos()")
    with pytest.raises(errors.InsufficientPrivilege):
        client.rpc("anon", WORLD.usual, "recommend_videos")
    for nobody in ("", "not-a-uuid"):
        with pytest.raises(errors.InvalidTextRepresentation), client.as_("authenticated", nobody) as connection:
            connection.execute("select * from public.recommend_videos()")


def test_an_expired_claim_opens_no_more_than_a_valid_one(client: Client) -> None:
    """PostgREST refuses expired tokens before the database sees them; if one got through, it would read as its user."""
    with client.as_("authenticated", WORLD.usual, exp=1) as connection:
        assert rpc(connection, "recommend_videos") == recommend(client, WORLD.usual)
        assert set(column(connection, "select user_id from public.user_video_decisions")) == {WORLD.usual}
        with pytest.raises(errors.InsufficientPrivilege), connection.transaction():
            rpc(connection, "get_user_embedding_features", user_id=str(WORLD.many))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("update_user_features", {"p_user_id": str(WORLD.many)}),
        ("get_user_embedding_features", {"user_id": str(WORLD.many)}),
    ],
)
def test_a_claim_of_another_user_is_refused(name: str, arguments: dict[str, str], client: Client) -> None:
    with pytest.raises(errors.InsufficientPrivilege, match="another user"):
        client.rpc("authenticated", WORLD.usual, name, **arguments)
    assert len(client.rpc("authenticated", WORLD.many, name, **arguments)) == 1


def test_a_connection_forgets_the_user_after_a_transaction(client: Client) -> None:
    """The pool gives the connection to the next request."""
    recommend(client, WORLD.usual)
    with pytest.raises(errors.InvalidAuthorizationSpecification):
        client.rpc("authenticated", None, "recommend_videos")
    assert one(client.connection, "select current_user") == "authenticator"


# -------------------------------------------------------------------------------------------- SQL users


@pytest.mark.world(models=2)
def test_the_documented_query_uses_the_index_of_one_version(db: Connection) -> None:
    db.execute("set enable_seqscan = off; set enable_sort = off")
    plan = "\n".join(
        column(
            db,
            """explain (analyze, costs off, timing off, summary off)
            select v.video_id from public.video_embeddings v
            order by v.embedding operator(extensions.<=>) (
                select u.embedding from public.user_embeddings u where u.user_id = %s
            ) limit 20""",
            WORLD.usual,
        )
    )
    assert re.search(r"Index Scan using video_embeddings_2_hnsw on video_embeddings_2", plan), plan
    executed = [line for line in plan.splitlines() if "video_embeddings_1" in line and "never executed" not in line]
    assert executed == [], plan


@pytest.mark.world(models=2)
def test_the_views_show_only_the_active_version(db: Connection) -> None:
    assert one(db, "select count(*) from public.video_embeddings") == len(WORLD.videos)
    assert column(db, "select distinct model_version from public.user_embeddings") == ["v2"]
    types = db.execute("select * from public.user_embeddings limit 0").description
    assert types is not None
    assert [c.name for c in types] == ["user_id", "embedding", "model_version", "updated_at"]


# -------------------------------------------------------------------------------------------- without onnxruntime


@pytest.fixture(scope="module")
def poor_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose Python finds neither numpy nor onnxruntime."""
    directory = server_directory("two-tower-poor-")
    (directory / "nothing").mkdir(mode=0o755)
    copy_cluster(directory)
    before = os.environ.get("TWO_TOWER_SERVER_PACKAGES")
    os.environ["TWO_TOWER_SERVER_PACKAGES"] = str(directory / "nothing")
    server = Server(directory, durable=False)
    try:
        server.start()
        migrate.migrate(server.dsn)  # also creates the roles, which are not in a dump of a database
        yield server
    finally:
        if before is None:
            del os.environ["TWO_TOWER_SERVER_PACKAGES"]
        else:
            os.environ["TWO_TOWER_SERVER_PACKAGES"] = before
        remove_server(server)


@pytest.fixture
def poor(
    poor_server: Server, database: NewDatabase, world_of: Callable[[str], str], request: pytest.FixtureRequest
) -> Iterator[tuple[Connection, Client]]:
    """The world with an active model of one engine, restored from a dump into the server without onnxruntime."""
    dsn = database(template=world_of(request.param))
    bindir: Path = poor_server.installation.bindir
    with psycopg.connect(poor_server.dsn, autocommit=True) as connection:
        connection.execute("drop database if exists world with (force)")
        connection.execute("create database world")
    target = in_database(poor_server.dsn, "world")
    dump = subprocess.run([bindir / "pg_dump", dsn], capture_output=True, check=True).stdout
    restore = [str(bindir / "psql"), "-q", "-v", "ON_ERROR_STOP=1", target]
    done = subprocess.run(restore, input=dump, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    with psycopg.connect(target, autocommit=True) as db, psycopg.connect(
        in_database(target, "world", "authenticator")
    ) as connection:  # fmt: skip
        db.execute("analyze")
        yield db, Client(connection)


@pytest.mark.parametrize("poor", ["onnxruntime"], indirect=True)
def test_without_onnxruntime_inference_fails_clearly_and_serving_goes_on(poor: tuple[Connection, Client]) -> None:
    db, client = poor
    # Stored vectors still serve: the dump contains everything that serving needs.
    rows = recommend(client, WORLD.usual)
    assert {row["reason"] for row in rows} == {"taste"}
    # A new user's vector cannot be computed, so the list is by popularity.
    for user in (WORLD.usual, WORLD.no_decisions):
        db.execute("insert into user_video_decisions values (%s, %s, 'like')", (user, rows[0]["video_id"]))
    db.execute("select two_tower.update_popularity()")
    fallback = recommend(client, WORLD.no_decisions)
    assert len(fallback) == 20
    assert fallback[0]["reason"] == "popular"
    assert rows[0]["video_id"] not in ids(fallback)

    with pytest.raises(psycopg.Error, match=r"the server's Python 3\.\d+ cannot import onnxruntime") as caught:
        client.rpc("authenticated", WORLD.usual, "embed_user")
    assert caught.value.sqlstate == "58000"
    assert "Install numpy and onnxruntime for Python 3." in str(caught.value.diag.message_hint)
    assert len(recommend(client, WORLD.usual)) == 20, "the backend lives on"

    # A refresh fails as a whole: no user is set aside, and the log keeps the changes.
    with pytest.raises(psycopg.Error, match="cannot import onnxruntime"):
        refresh(db)
    assert one(db, "select pending_user_changes from two_tower.status") == 2
    assert one(db, "select failed_changes from two_tower.status") == 0
    assert "cannot import onnxruntime" in one(db, "select last_error from two_tower.status")
    with pytest.raises(psycopg.Error, match="cannot import onnxruntime"):
        db.execute("select * from two_tower.embed_users(array[%s]::uuid[])", (WORLD.usual,))
    with pytest.raises(psycopg.Error, match="model v2 needs onnxruntime, which this server does not have") as refused:
        tiny_model(db, "v2", engine="onnxruntime")
    assert refused.value.sqlstate == "55000"
    assert "two-tower doctor" in str(refused.value.diag.message_hint)
    assert one(db, "select count(*) from two_tower.models") == 1


@pytest.mark.parametrize("poor", ["sql"], indirect=True)
def test_without_onnxruntime_a_version_of_the_engine_sql_stays_fresh(poor: tuple[Connection, Client]) -> None:
    db, client = poor
    liked = recommend(client, WORLD.usual)[0]["video_id"]
    for user in (WORLD.usual, WORLD.no_decisions):
        db.execute("insert into user_video_decisions values (%s, %s, 'like')", (user, liked))
    # A new user's vector is computed on request.
    assert recommend(client, WORLD.no_decisions)[0]["reason"] == "taste"
    assert client.rpc("authenticated", WORLD.usual, "embed_user")[0]["message"] == "features and embedding updated"
    db.execute("update videos set price = coalesce(price, 0) + 1 where id = %s", (liked,))
    refresh(db)
    assert_fresh(db)
    tiny_model(db, "v2", engine="auto")
    assert one(db, "select array[user_engine, item_engine] from two_tower.model_versions where version = 'v2'") == [
        "sql", "sql",
    ]  # fmt: skip
    assert_fresh(db)


@pytest.mark.parametrize("poor", ["auto"], indirect=True)
def test_without_onnxruntime_likes_still_count_and_changed_videos_wait(poor: tuple[Connection, Client]) -> None:
    """Users are sums; videos were placed by onnxruntime while it was available."""
    db, client = poor
    liked = recommend(client, WORLD.usual)[0]["video_id"]
    db.execute("insert into user_video_decisions values (%s, %s, 'like')", (WORLD.usual, liked))
    db.execute("update videos set price = coalesce(price, 0) + 1 where id = %s", (liked,))
    assert client.rpc("authenticated", WORLD.usual, "embed_user")[0]["message"] == "features and embedding updated"
    with pytest.raises(psycopg.Error, match="cannot import onnxruntime"):
        refresh(db)
    assert one(db, "select pending_video_changes from two_tower.status") == 1
    assert one(db, "select failed_changes from two_tower.status") == 0
    assert len(recommend(client, WORLD.usual)) == 20


# ------------------------------------------------------------------------------------------------ because


def terms(db: Connection, user: UUID, video: str) -> dict[str, float]:
    """What each of the user's decisions, and the bias, adds to the score of a video by definition: the score is the sum
    of these terms divided by the length of the user's sum."""
    rows = db.execute(
        """with decided as (
            select d.video_id, two_tower.decision_label(d.decision_type) as label
            from user_video_decisions d where d.user_id = %s and two_tower.decision_label(d.decision_type) <> -1
        ),
        tastes as (
            select * from two_tower.compute_tastes(array(select video_id from decided), two_tower.active_version())
        )
        select d.video_id::text, (case d.label when 1 then t.liked else t.noped end)::real[]
        from decided d join tastes t using (video_id)
        union all
        select 'bias', weight::real[] from two_tower.model_weights
        where model_version = two_tower.active_version() and tower = 'user' and part = 'bias'""",
        (user,),
    ).fetchall()
    place = np.array(
        one(db, "select embedding::text from two_tower.embed_videos(array[%s]::uuid[])", video)[1:-1].split(","), float
    )[:127]
    vectors = {key: np.array(values) for key, values in rows if values is not None}
    length = np.linalg.norm(sum(vectors.values()))
    return {key: float(vector @ place / length) for key, vector in vectors.items()}


@pytest.fixture
def explained(database: NewDatabase, world_of: Callable[[str], str]) -> Iterator[tuple[Connection, Client]]:
    """The world with a model whose users are sums, for any engine under test."""
    dsn = database(template=world_of("sql"))
    name = urlsplit(dsn).path.removeprefix("/")
    with (
        psycopg.connect(dsn, autocommit=True) as db,
        psycopg.connect(in_database(dsn, name, "authenticator")) as session,
    ):
        yield db, Client(session)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("user", [WORLD.usual, WORLD.many, WORLD.one_like])
def test_because_names_the_like_that_adds_most_to_a_score(user: UUID, explained: tuple[Connection, Client]) -> None:
    db, client = explained
    rows = recommend(client, user, limit=20, because=True)
    by_taste = [row for row in rows if row["reason"] == "taste"]
    assert len(by_taste) > 10
    likes = {str(video) for video in WORLD.of(user, "like")}
    for row in by_taste:
        added = terms(db, user, row["video_id"])
        assert sum(added.values()) == pytest.approx(row["score"], abs=2e-3)  # places are stored in half precision
        best = max(likes & added.keys(), key=added.__getitem__)
        if added[best] <= 0:
            assert row["because_video_id"] is None
        else:
            assert added[row["because_video_id"]] == pytest.approx(added[best], abs=1e-4)
            assert row["because_title"] == one(db, "select title from videos where id = %s", row["because_video_id"])


@pytest.mark.parametrize("user", [WORLD.usual, WORLD.many, WORLD.one_like])
def test_because_is_the_same_in_every_list_of_a_user(user: UUID, explained: tuple[Connection, Client]) -> None:
    db, client = explained
    rows = recommend(client, user, limit=20, because=True)
    expected = {row["video_id"]: (row["because_video_id"], row["because_title"]) for row in rows}
    assert {title for _, title in expected.values()} != {None}
    with client.as_("authenticated", user) as connection, connection.transaction(force_rollback=True):
        page = rpc(connection, "next_videos", because=True)
    ranked = client.rpc("authenticated", user, "rank_candidates", video_ids=[*expected], because=True)
    # A session of the same likes and nopes, none of which few people like.
    db.execute("update two_tower.settings set value = '1' where name = 'least_likers'")
    db.execute("select two_tower.update_popularity()")
    liked, noped = ([str(v) for v in WORLD.of(user, kind)] for kind in ("like", "nope"))
    session = client.rpc("anon", None, "recommend_from", liked=liked, noped=noped, limit=200, because=True)
    for found in (page, ranked, session):
        both = [row for row in found if row["video_id"] in expected]
        assert len(both) > 10
        for row in both:
            assert (row["because_video_id"], row["because_title"]) == expected[row["video_id"]]


def test_reasons_from_rarely_liked_videos_use_only_their_content(explained: tuple[Connection, Client]) -> None:
    """Reasons must not reveal what was learnt from few users: they are the same whoever likes these videos."""
    db, client = explained
    liked = [str(v) for v in WORLD.published[:5]]
    db.execute("update two_tower.settings set value = '1000' where name = 'least_likers'")
    rows = client.rpc("anon", None, "recommend_from", liked=liked, because=True)
    assert {row["because_video_id"] for row in rows if row["reason"] == "taste"} & set(liked)
    db.execute(
        "update two_tower.video_tastes set liked = extensions.l2_normalize(noped) where video_id = any (%s)", [liked]
    )
    assert client.rpc("anon", None, "recommend_from", liked=liked, because=True) == rows


def test_because_names_no_like_that_the_caller_may_not_see(explained: tuple[Connection, Client]) -> None:
    db, client = explained
    liked = [str(v) for v in WORLD.published[:5]]
    db.execute(
        "alter policy two_tower_catalogue on videos using (id <> all (%s::uuid[]))".replace("%s", f"'{{{liked[0]}}}'")
    )
    rows = client.rpc("anon", None, "recommend_from", liked=liked, because=True)
    assert liked[0] not in {row["because_video_id"] for row in rows}
    for call in (f"two_tower.session_reasons('{{{WORLD.published[9]}}}', array_fill('{liked[0]}'::uuid, array[501]))",
                 f"two_tower.session_reasons(array_fill('{liked[0]}'::uuid, array[201]), '{{}}')"):  # fmt: skip
        with pytest.raises(errors.InvalidParameterValue), client.as_("anon") as connection:
            connection.execute(f"select * from {call}".encode())


@pytest.mark.parametrize("name", ["recommend_videos", "next_videos", "recommend_from", "rank_candidates"])
def test_reasons_are_given_only_on_request(name: str, client: Client) -> None:
    videos = [str(v) for v in WORLD.published[:5]]
    given = {"recommend_from": {"liked": videos}, "rank_candidates": {"video_ids": videos}}.get(name, {"limit": 5})
    for because in ({}, {"because": None}, {"because": False}):
        for row in client.rpc("authenticated", WORLD.usual, name, **given, **because):
            assert (row["because_video_id"], row["because_title"]) == (None, None)


def test_lists_of_users_without_likes_have_no_because(client: Client) -> None:
    for row in recommend(client, WORLD.no_decisions, limit=5, because=True):
        assert (row["because_video_id"], row["because_title"]) == (None, None)


def test_a_tower_that_is_no_sum_gives_no_because(database: NewDatabase, world_of: Callable[[str], str]) -> None:
    dsn = database(template=world_of("onnxruntime"))
    with psycopg.connect(in_database(dsn, urlsplit(dsn).path.removeprefix("/"), "authenticator")) as session:
        rows = recommend(Client(session), WORLD.usual, limit=5, because=True)
    assert [row["reason"] for row in rows] == ["taste"] * 5
    assert {(row["because_video_id"], row["because_title"]) for row in rows} == {(None, None)}
