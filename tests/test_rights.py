"""Users' choices, eligibility of videos for users, limits on one account's influence, and exports of user data."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from psycopg import errors
from typer.testing import CliRunner

from conftest import Connection
from test_filters import LISTS, VIDEOS, listed
from test_serving import ids
from test_steering import promote, setting
from two_tower.cli.main import app
from two_tower.data.imports import import_reviews
from two_tower.ids import user_uuid
from world_fixtures import NOBODY, Client, column, make_world, one, refresh, rpc, state

pytestmark = pytest.mark.world

WORLD = make_world()
ME = WORLD.usual
MAKERS = ["maker a", "maker b", "maker c", 'maker "d", {x}', "no such maker"]
OPEN = {"personalised": True, "trained_on": True, "never_makers": [], "never_tag_ids": [], "never_performer_ids": []}


def choose(client: Client, user: UUID = ME, **choices: Any) -> dict[str, Any]:
    (chosen,) = client.rpc("authenticated", user, "set_choices", **choices)
    assert isinstance(chosen, dict)
    return chosen


def as_viewer(db: Connection, query: str) -> list[Any]:
    """The first column of a query as the role of the page."""
    db.execute("set role two_tower_viewer")
    try:
        return column(db, query)
    finally:
        db.execute("reset role")


# ------------------------------------------------------------------------------------------------ choices


def test_arguments_left_out_of_set_choices_keep_their_values(client: Client) -> None:
    tags = sorted(str(t) for t in WORLD.tags[:2])
    assert choose(client) == OPEN
    assert choose(client, personalised=False) == OPEN | {"personalised": False}
    assert choose(client, never_tag_ids=tags)["personalised"] is False
    chosen = choose(client, personalised=True, never_makers=["x", None, "x"])
    assert chosen | {"never_tag_ids": sorted(chosen["never_tag_ids"])} == OPEN | {
        "never_makers": ["x"],
        "never_tag_ids": tags,
    }
    assert choose(client, never_makers=[], never_tag_ids=[]) == OPEN
    assert client.rpc("service_role", None, "set_choices", p_user_id=str(ME), trained_on=False) == [
        OPEN | {"trained_on": False}
    ]


def test_choices_can_be_written_only_by_set_choices(db: Connection, client: Client) -> None:
    choose(client, personalised=False)
    for query in (
        "select 1 from two_tower.user_choices",
        "update two_tower.user_choices set personalised = true",
        f"insert into two_tower.user_choices (user_id) values ('{ME}')",
        "delete from two_tower.user_choices",
    ):
        for role in ("anon", "authenticated"):
            with pytest.raises(errors.InsufficientPrivilege), client.as_(role, ME) as connection:
                connection.execute(query.encode())
        with pytest.raises(errors.InsufficientPrivilege):
            as_viewer(db, query)
    assert one(db, "select count(*) from two_tower.user_choices") == 1


def never(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    return {
        "never_makers": rng.sample(MAKERS, rng.choice([0, 1, 3])),
        "never_tag_ids": [str(t) for t in rng.sample(WORLD.tags, rng.choice([0, 1, 5]))],
        "never_performer_ids": [str(p) for p in rng.sample(WORLD.performers, rng.choice([0, 1, 4]))],
    }


@pytest.mark.parametrize("name", LISTS)
def test_excluded_makers_tags_and_performers_are_in_no_list(name: str, client: Client) -> None:
    """A list equals that with these filters, also together with others, but does not count as filtered."""
    for seed in range(6):
        given = never(seed)
        as_filters = {
            "no_makers": given["never_makers"],
            "no_tag_ids": given["never_tag_ids"],
            "no_performer_ids": given["never_performer_ids"],
        }
        with_further = {"price_max": 30, "no_makers": ["maker b"]}
        nothing: dict[str, Any] = {key: [] for key in given}
        choose(client, **nothing)
        expected = listed(client, name, **as_filters)
        further = listed(client, name, **as_filters | with_further | {"no_makers": [*given["never_makers"], "maker b"]})
        choose(client, **given)
        found = listed(client, name)
        assert [row | {"list_id": None} for row in found] == [row | {"list_id": None} for row in expected], given
        assert {UUID(row["list_id"]).version for row in found} <= {3}
        assert {UUID(row["list_id"]).version for row in expected} <= {8 if any(given.values()) else 3}
        assert listed(client, name, **with_further) == further, given


LARGE = 5_200
"""More videos than are checked one by one."""
MOST_POPULAR = 1_000
"""Number of videos that are checked first."""
LARGE_CASES: list[tuple[str, dict[str, Any], str | None]] = [
    ("none of the most popular", {"never_makers": ["loud"]}, None),
    ("the most popular alone", {"never_makers": ["quiet"]}, None),
    ("some of each", {}, "v.price % 7 = 0"),
    ("none of the most popular, by the owner's condition", {}, "v.maker is distinct from 'loud'"),
    ("few, by both", {"never_makers": ["loud"]}, f"v.price > {LARGE - 60}"),
    ("nothing", {"never_makers": ["loud", "quiet"]}, "v.price > 100"),
]
"""Case → choices and condition."""


def test_popular_lists_of_a_large_catalogue_skip_hidden_videos(db: Connection, client: Client) -> None:
    db.execute(
        """insert into videos (id, product_url, title, maker, price, published_at)
        select md5(n::text)::uuid, 'large ' || n, 'Large ' || n, case when n <= %s then 'loud' else 'quiet' end, n,
            timestamptz '2020-01-01' + n * interval '1 minute'
        from generate_series(1, %s) n""",
        (MOST_POPULAR, LARGE),
    )
    db.execute("delete from two_tower.video_popularity where video_id is not null")
    db.execute(
        """insert into two_tower.video_popularity
        select md5(n::text)::uuid, 100000 - n, 50 from generate_series(1, %s) n""",
        (LARGE,),
    )
    user = WORLD.no_decisions
    for what, choices, condition in LARGE_CASES:
        client.rpc("authenticated", user, "set_choices", **{"never_makers": [], **choices})
        db.execute("select two_tower.set_eligible_when(%s)", [condition])
        expected = column(
            db,
            f"""select v.id::text from videos v left join two_tower.video_popularity p on p.video_id = v.id
            where (v.maker = any (%s)) is not true and ({(condition or "true").replace("%", "%%")})
                and exists (select from two_tower.visible_videos s where s.id = v.id)
            order by p.score desc nulls last, v.published_at desc, v.id limit 200""",
            choices.get("never_makers", []),
        )
        assert ids(client.rpc("authenticated", user, "recommend_videos", limit=200)) == expected, what
        assert ids(client.rpc("authenticated", user, "popular_videos_now", limit=200)) == expected, what
        excluded = expected[:20]
        rows = client.rpc("authenticated", user, "popular_videos_now", limit=50, exclude=excluded)
        assert ids(rows) == expected[20:70], what


def test_exclusions_apply_to_candidates_batches_and_the_page(db: Connection, client: Client) -> None:
    given: dict[str, Any] = {"never_makers": ["maker a"], "never_tag_ids": [str(WORLD.tags[0])]}
    choose(client, **given)
    every = [str(v.id) for v in VIDEOS]
    allowed = {str(v.id) for v in VIDEOS if v.passes({"no_makers": ["maker a"], "no_tag_ids": given["never_tag_ids"]})}
    ranked = client.rpc("authenticated", ME, "rank_candidates", video_ids=every)
    assert {row["video_id"] for row in ranked} == allowed
    assert [row["rank"] for row in ranked] == list(range(1, len(allowed) + 1))
    mailing = (
        f"select video_id::text from two_tower.recommend_batch(array['{ME}', '{WORLD.many}']::uuid[], 100)"
        " where user_id = %s"
    )
    page = f"select video_id::text from two_tower.preview_recommendations(array['{ME}']::uuid[])"
    with client.as_("service_role") as connection:
        assert set(column(connection, mailing, ME)) < allowed
        assert not set(column(connection, mailing, WORLD.many)) <= allowed
    shown = as_viewer(db, page)
    assert len(shown) == 20
    assert set(shown) < allowed


# ------------------------------------------------------------------------------------------------ opting out


OPTED_OUT = [ME, WORLD.many, WORLD.one_like, WORLD.only_nopes, WORLD.no_decisions]


def test_opted_out_users_have_no_features_vectors_or_personal_lists(db: Connection, client: Client) -> None:
    before = state(db)
    decided = [str(v) for v in WORLD.decided(ME)]
    everybodys = client.rpc("authenticated", WORLD.no_decisions, "recommend_videos", limit=50, exclude=decided)
    for user in OPTED_OUT:
        choose(client, user, personalised=False)
    # At once, before any refresh.
    rows = listed(client, "recommend_videos", limit=50)
    assert ids(rows) == ids(everybodys)
    assert {row["reason"] for row in rows} <= {"popular", "newest"}
    ranked = client.rpc("authenticated", ME, "rank_candidates", video_ids=ids(rows))
    assert {row["score"] for row in ranked} == {None}
    with client.as_("authenticated", ME) as connection:
        assert {row["because_video_id"] for row in rpc(connection, "recommend_videos", because=True)} == {None}
    refresh(db)
    gone = {str(user) for user in OPTED_OUT}
    after = state(db)
    assert after == {key: value for key, value in before.items() if key.split()[1] not in gone}
    (answer,) = client.rpc("authenticated", ME, "embed_user")
    assert answer["message"] == "the user chose that no lists be made of decisions"
    (features,) = client.rpc("authenticated", ME, "get_user_embedding_features", user_id=str(ME))
    assert (features["like_count"], features["liked_tags"], features["price_median"]) == (0, {}, None)
    assert state(db) == after
    # Coverage does not count it as missing, and a rebuild has the same result.
    assert db.execute("select missing_users, users - user_vectors from two_tower.coverage").fetchall() == [(0, 0)]
    assert one(db, "select v.features || v.vectors from two_tower.verify_batch('user', null, 10000) v") == []
    assert not set(column(db, "select two_tower.stale_users()")) & set(OPTED_OUT)
    db.execute("call two_tower.rebuild()")
    assert state(db) == after
    for user in OPTED_OUT:
        choose(client, user, personalised=True)
    refresh(db)
    assert state(db) == before


def test_choices_applied_by_a_subscription_take_effect(db: Connection, client: Client) -> None:
    db.execute("set session_replication_role = replica")
    db.execute("insert into two_tower.user_choices (user_id, personalised) values (%s, false)", [ME])
    db.execute("reset session_replication_role")
    refresh(db)
    assert one(db, "select count(*) from two_tower.user_embeddings where user_id = %s", ME) == 0


def test_opting_out_of_training_removes_all_influence_on_others(db: Connection, client: Client) -> None:
    db.execute(
        "insert into two_tower.reviews (reviewer_id, video_id, stars) select %s, id, 5 from videos limit 3", [ME]
    )
    whole = sorted(db.execute("select * from two_tower.training_set()").fetchall(), key=str)
    db.execute("select two_tower.update_popularity()")
    counted = dict(db.execute("select video_id, likers from two_tower.video_popularity").fetchall())
    liked = set(column(db, "select video_id from two_tower.training_set() where user_id = %s and label = 1", ME))
    lists = [row for row in listed(client, "recommend_videos") if row["reason"] == "taste"]
    choose(client, trained_on=False)
    assert sorted(db.execute("select * from two_tower.training_set()").fetchall(), key=str) == [
        row for row in whole if row[0] != ME
    ]
    db.execute("select two_tower.update_popularity()")
    for video, likers in db.execute("select video_id, likers from two_tower.video_popularity").fetchall():
        assert likers == counted[video] - (video in liked)
    # The user's own lists have not changed.
    assert [row for row in listed(client, "recommend_videos") if row["reason"] == "taste"] == lists
    choose(client, trained_on=True)
    assert sorted(db.execute("select * from two_tower.training_set()").fetchall(), key=str) == whole


@pytest.mark.parametrize("most", [0, 1, 7, 60, 10_000])
def test_most_decisions_limits_what_an_account_counts_in_training(most: int, db: Connection) -> None:
    """The latest rows count, of decisions and reviews together."""
    reviewer = WORLD.no_decisions
    db.execute(
        "insert into two_tower.reviews (reviewer_id, video_id, stars, created_at)"
        " select u.id, v.id, 5, case when v.id::text < '8' then timestamptz '2020-01-01' end"
        " from videos v cross join unnest(%s::uuid[]) u (id)",
        [[reviewer, WORLD.many]],
    )
    whole = db.execute("select user_id, video_id, label, created_at from two_tower.training_set()").fetchall()
    assert max(Counter(row[0] for row in whole).values()) == len(WORLD.videos)
    db.execute("update two_tower.settings set value = to_jsonb(%s) where name = 'most_decisions'", [most])
    found = db.execute("select user_id, video_id, label, created_at from two_tower.training_set()").fetchall()
    expected = []
    for user in {row[0] for row in whole}:
        rows = [row for row in whole if row[0] == user]
        rows.sort(key=lambda row: (row[3] is None, -row[3].timestamp() if row[3] else 0, row[1]))
        expected += rows[: most or None]
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_most_decisions_limits_what_an_account_counts_in_popularity(db: Connection) -> None:
    db.execute("update two_tower.settings set value = '20' where name = 'most_decisions'")
    bot = WORLD.no_decisions
    db.execute("select two_tower.update_popularity()")
    before = dict(db.execute("select video_id, likers from two_tower.video_popularity").fetchall())
    db.execute(
        "insert into user_video_decisions (user_id, video_id, decision_type) select %s, id, 'like' from videos", [bot]
    )
    db.execute("select two_tower.update_popularity()")
    after = dict(db.execute("select video_id, likers from two_tower.video_popularity").fetchall())
    assert sum(after.values()) - sum(before.values()) == 20
    assert all(0 <= likers - before.get(video, 0) <= 1 for video, likers in after.items())


# ------------------------------------------------------------------------------------------------ visibility


CONDITIONS = {
    "not for visitors": "viewer_id is not null",
    "some videos for some users": "v.maker is distinct from 'maker a' or viewer_id::text < '8'",
    "by what the application knows of the user": "v.price is null or v.price < 20 or exists (select from"
    " public.profiles p where p.user_id = viewer_id)",
    "by what others may not read": "exists (select from two_tower.settings) and v.maker is distinct from 'maker b'",
    "nothing for anybody": "false",
    "null is no": "v.maker <> 'maker a'",
}


def may(db: Connection, condition: str, viewer: UUID | None) -> set[str]:
    query = f"select v.id::text from videos v, (select %s::uuid as viewer_id) as w where {condition}"
    return set(column(db, query, viewer)) & {str(v.id) for v in VIDEOS}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)
def test_lists_contain_only_videos_eligible_for_the_user(condition: str, db: Connection, client: Client) -> None:
    db.execute("select two_tower.set_eligible_when(%s)", [condition])
    for user in (ME, WORLD.users[0], WORLD.users[7]):
        allowed = may(db, condition, user)
        rows = client.rpc("authenticated", user, "recommend_videos", limit=200)
        assert set(ids(rows)) <= allowed
        assert len(rows) == min(200, len(allowed - {str(v) for v in WORLD.decided(user)}))
        assert client.rpc("service_role", None, "recommend_videos", limit=200, p_user_id=str(user)) == rows
        ranked = client.rpc("authenticated", user, "rank_candidates", video_ids=[str(v) for v in WORLD.videos])
        assert set(ids(ranked)) == allowed
        page = f"select video_id::text from two_tower.preview_recommendations(array['{user}']::uuid[])"
        assert set(as_viewer(db, page)) <= allowed
    visitors = may(db, condition, None)
    for name in ("popular_videos_now", "trending_videos", "recommend_from", "similar_videos"):
        rows = client.rpc("anon", None, name, **LISTS[name] | {"limit": 200})
        assert set(ids(rows)) <= visitors
        assert len(rows) >= min(200, len(visitors) - 3)
        members = listed(client, name)
        assert set(ids(members)) <= may(db, condition, ME)
    # A request with a further exclusion.
    (tag,) = WORLD.tags[:1]
    assert set(ids(listed(client, "next_videos", tag_ids=[str(tag)]))) <= may(db, condition, ME)


def test_a_condition_on_eligibility_can_be_removed(db: Connection, client: Client) -> None:
    before = listed(client, "recommend_videos")
    db.execute("select two_tower.set_eligible_when('false')")
    assert listed(client, "recommend_videos") == []
    db.execute("select two_tower.set_eligible_when(null)")
    assert listed(client, "recommend_videos") == before


@pytest.mark.parametrize(
    "condition",
    ["", "  ", "no_such_column", "v.maker =", "count(*) > 1", "true; drop table videos", "v.maker",
     "1 / (v.price - v.price) > 0", "maker_of(v)"],
)  # fmt: skip
def test_an_invalid_condition_on_eligibility_is_refused(condition: str, db: Connection, client: Client) -> None:
    db.execute("select two_tower.set_eligible_when('v.maker is not null')")
    before = listed(client, "recommend_videos")
    with pytest.raises(errors.InvalidParameterValue) as caught:
        db.execute("select two_tower.set_eligible_when(%s)", [condition])
    assert caught.value.diag.message_hint
    assert listed(client, "recommend_videos") == before
    with pytest.raises(errors.InsufficientPrivilege), client.as_("service_role") as connection:
        connection.execute("select two_tower.set_eligible_when('true')")


def test_a_column_that_the_condition_names_is_not_dropped_unnoticed(db: Connection, client: Client) -> None:
    db.execute("select two_tower.set_eligible_when('v.source is distinct from ''source a''')")
    with pytest.raises(errors.DependentObjectsStillExist):
        db.execute("alter table videos drop column source")
    db.execute("select two_tower.set_eligible_when(null)")
    db.execute("alter table videos drop column source")
    assert listed(client, "recommend_videos") != []


def steered(client: Client, name: str) -> list[dict[str, Any]]:
    """The list with promotions, whose reasons are in no fixed order."""
    with client.as_("authenticated", ME) as connection, connection.transaction(force_rollback=True):
        return rpc(connection, name, **LISTS[name] | {"limit": 200})


@pytest.mark.parametrize("name", LISTS)
def test_promotions_do_not_override_user_choices(name: str, db: Connection, client: Client) -> None:
    """Pins, exploration and boosts never show videos that the user excludes or is not eligible for."""
    pinned = [next(v for v in VIDEOS if v.maker == maker and v.id not in WORLD.decided(ME)) for maker in MAKERS[:3]]
    for rank, video in enumerate(pinned, 1):
        promote(db, "pin", video_id=video.id, rank=rank)
    promote(db, "boost", videos={"makers": MAKERS[:2]}, strength=10)
    setting(db, "exploration_share", 0.5)
    db.execute("select two_tower.draw_exploration()")
    assert {str(video.id) for video in pinned} <= set(ids(steered(client, name)))
    choose(client, never_makers=[MAKERS[0]])
    db.execute("select two_tower.set_eligible_when(%s)", [f"v.maker is distinct from '{MAKERS[1]}'"])
    rows = steered(client, name)
    assert set(ids(rows)) <= {str(v.id) for v in VIDEOS if v.maker not in MAKERS[:2]}
    assert (rows[2]["video_id"], rows[2]["reason"]) == (str(pinned[2].id), "pinned")


def test_users_who_opted_out_are_in_no_segment(db: Connection, client: Client) -> None:
    liked = next(v for v in VIDEOS if v.id in WORLD.of(ME, "like") and v.tags)
    video = next(v for v in VIDEOS if v.id not in WORLD.decided(ME))
    promote(db, "pin", video_id=video.id, rank=1, segment={"tag_ids": sorted(liked.tags)})
    assert steered(client, "recommend_videos")[0]["reason"] == "pinned"
    choose(client, personalised=False)
    assert {row["reason"] for row in steered(client, "recommend_videos")} <= {"popular", "newest"}


# ------------------------------------------------------------------------------------------------ exports of user data


def test_exported_user_data_is_complete(db: Connection, client: Client, dsn: str, tmp_path: Path) -> None:
    client.rpc("authenticated", ME, "next_videos", limit=7)
    chosen = choose(client, never_makers=["maker a"])
    db.execute(
        "insert into two_tower.reviews (reviewer_id, video_id, stars) select %s, id, 5 from videos limit 2", [ME]
    )
    (data,) = client.rpc("authenticated", ME, "export_user_data")
    assert data["user_id"] == str(ME)
    assert {k: v for k, v in data["choices"].items() if k != "updated_at"} == chosen
    assert {d["video_id"]: d["decision_type"] for d in data["decisions"]} == {
        str(video): kind for user, video, kind, _ in WORLD.decisions if user == ME
    }
    assert (len(data["reviews"]), len(data["impressions"]), len(data["vectors"])) == (2, 7, 1)
    assert data["features"]["like_count"] == sum(d["decision_type"] == "like" for d in data["decisions"])
    assert str(ME) not in json.dumps({k: v for k, v in data.items() if k != "user_id"})
    assert client.rpc("service_role", None, "export_user_data", p_user_id=str(ME)) == [data]
    path = tmp_path / "me.json"
    result = CliRunner().invoke(app, ["user-data", str(ME), "--dsn", dsn, "--output", str(path)])
    assert (result.exit_code, result.output) == (0, "")
    assert json.loads(path.read_text()) == data
    for kind in ("decisions", "reviews", "impressions", "vectors"):
        assert client.rpc("service_role", None, "export_user_data", p_user_id=str(NOBODY))[0][kind] == []
    db.execute("select two_tower.forget_user(%s)", [ME])
    (left,) = client.rpc("authenticated", ME, "export_user_data")
    assert {k: v for k, v in left.items() if v} == {"user_id": str(ME)}


def test_a_reviewer_is_exported_by_the_id_of_the_file(db: Connection, dsn: str, tmp_path: Path) -> None:
    address = one(db, "select product_url from videos order by id limit 1")
    path = tmp_path / "reviews.csv"
    path.write_text(f"reviewer_id,product_url,stars\n評者 7,{address},5\n")
    import_reviews(db, path)
    result = CliRunner().invoke(app, ["user-data", "評者 7", "--dsn", dsn])
    data = json.loads(result.stdout)
    assert (data["user_id"], [r["stars"] for r in data["reviews"]]) == (str(user_uuid("評者 7")), [5])


# ----------------------------------------------------------------------------------- the application's triggers


PATHS = {
    "nothing said": [],
    "the database": ["alter database {} set search_path = app, public"],
    "the owner": ["alter role current_user in database {} set search_path = app, public"],
}


@pytest.mark.parametrize("said", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("level", ["row", "statement"])
def test_triggers_of_the_application_run_with_their_usual_search_path(
    said: list[str], level: str, db: Connection, client: Client, dsn: str
) -> None:
    """A trigger whose table and function are found only by the search path."""
    schema = "app" if said else "public"
    db.execute("create schema app; grant usage on schema app to authenticated")
    db.execute(
        f"create table {schema}.activity (what text); grant insert on {schema}.activity to authenticated".encode()
    )
    db.execute(f"create function {schema}.word(text) returns text language sql as 'select upper($1)'".encode())
    db.execute(
        f"""create function app.note() returns trigger language plpgsql as
        $$ begin insert into activity values (word(tg_op)); return null; end $$;
        create trigger note after insert or delete on user_video_decisions
        for each {level} execute function app.note()""".encode()
    )
    for statement in said:
        db.execute(statement.format(db.info.dbname).encode())
    with client.as_("authenticated", ME) as connection:
        connection.execute(f"set local search_path = {schema}, public".encode())
        rpc(connection, "claim_session", liked=[str(v) for v in WORLD.published if v not in WORLD.decided(ME)][:2])
    with client.as_("service_role") as connection:
        connection.execute("set local search_path = pg_temp, pg_catalog")
        assert one(connection, "select two_tower.forget_user(%s)", ME)["decisions"] > 2
    assert set(column(db, f"select what from {schema}.activity")) == {"INSERT", "DELETE"}
    for statement in said:
        db.execute(statement.split(" set ")[0].format(db.info.dbname).encode() + b" reset search_path")


def test_the_callers_search_path_does_not_apply_to_triggers(db: Connection, client: Client) -> None:
    """forget_user() runs as its owner, so objects in the caller's schemas must not be used."""
    db.execute("create table activity (what text)")
    db.execute(
        """create function note() returns trigger language plpgsql as
        $$ begin insert into activity values (tg_op); return null; end $$;
        create trigger note after delete on user_video_decisions for each row execute function note();
        create schema evil; grant all on schema evil to service_role"""
    )
    with client.as_("service_role") as connection:
        connection.execute("create table evil.activity (what text)")
        connection.execute("grant insert on evil.activity to public")
        connection.execute("set local search_path = evil, public")
        connection.execute("select two_tower.forget_user(%s)", [ME])
        assert one(connection, "show search_path") == "evil, public"
    assert one(db, "select count(*) from evil.activity") == 0
    assert one(db, "select count(*) from public.activity") > 0
