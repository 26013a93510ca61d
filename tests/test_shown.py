"""Impressions: logged once and within bounds, not repeated too soon, kept for a time, deleted with their user."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors

from conftest import Connect, Connection
from test_serving import BECAUSE, COLUMNS, check, ids, without
from world_fixtures import NOBODY, Client, column, make_world, one, rpc

pytestmark = pytest.mark.world

WORLD = make_world()
ME, OTHER = WORLD.usual, WORLD.users[6]
Rows = list[dict[str, Any]]
OF = "select video_id::text from two_tower.impressions where user_id = %s"


def page(client: Client, user: UUID, limit: int = 20) -> Rows:
    rows = client.rpc("authenticated", user, "next_videos", limit=limit)
    check(rows, COLUMNS | BECAUSE)
    return rows


def log(client: Client, user: UUID | None, shown: Any) -> int:
    (kept,) = client.rpc("authenticated", user, "log_shown", shown=shown)
    return int(kept)


def a_row(**changes: Any) -> dict[str, Any]:
    row = {"video_id": str(WORLD.published[0]), "list_id": str(NOBODY), "rank": 1, "reason": "taste"}
    return row | {"model_version": "v1", "propensity": 1} | changes


# ------------------------------------------------------------------------------------------------ pages


@pytest.mark.parametrize("user", [ME, WORLD.no_decisions, WORLD.only_nopes, WORLD.many])
def test_pages_never_repeat_and_end_when_everything_was_shown(user: UUID, db: Connection, client: Client) -> None:
    expected = ids(client.rpc("authenticated", user, "recommend_videos", limit=200))
    seen: list[str] = []
    while rows := page(client, user, 60):
        assert not set(ids(rows)) & set(seen)
        seen += ids(rows)
    assert set(seen) == without(user)
    assert seen[:60] == expected[:60], "the first page is the list"
    assert sorted(column(db, OF, user)) == sorted(seen)
    assert page(client, user) == []


def test_next_videos_logs_the_page_that_it_returns(db: Connection, client: Client) -> None:
    rows = page(client, ME, 7)
    kept = db.execute(
        """select video_id::text, rank, reason, model_version, list_id::text, propensity,
            shown_at > now() - interval '1 minute'
        from two_tower.impressions where user_id = %s order by rank""",
        [ME],
    ).fetchall()
    names = ("video_id", "rank", "reason", "model_version", "list_id", "propensity")
    assert kept == [(*(row[name] for name in names), True) for row in rows]
    assert len({row["list_id"] for row in rows}) == 1


def test_videos_are_shown_again_after_the_time_in_the_setting(db: Connection, client: Client) -> None:
    first = page(client, ME)
    db.execute("update two_tower.settings set value = '0' where name = 'shown_again_after_hours'")
    assert ids(page(client, ME)) == ids(first)


def test_impressions_of_other_users_hide_no_videos(client: Client) -> None:
    expected = ids(client.rpc("authenticated", ME, "recommend_videos"))
    page(client, OTHER, 200)
    assert ids(page(client, ME)) == expected


def test_videos_logged_by_log_shown_are_not_on_the_next_page(client: Client) -> None:
    rows = client.rpc("authenticated", ME, "recommend_videos", limit=15)
    assert log(client, ME, rows) == 15
    assert not set(ids(page(client, ME, 30))) & set(ids(rows))


def test_concurrent_requests_of_a_user_get_different_pages(db: Connection, client: Client, connect: Connect) -> None:
    """The second waits for the first, and then sees its page."""
    other = Client(connect(autocommit=False, user="authenticator"))
    got: list[Rows] = []
    with client.as_("authenticated", ME) as first:
        one_page = rpc(first, "next_videos")
        thread = threading.Thread(target=lambda: got.append(page(other, ME)))
        thread.start()
        waiting = """select exists (
            select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')"""
        for _ in range(200):
            if one(db, waiting):
                break
            time.sleep(0.02)
        assert one(db, waiting)
    thread.join()
    assert len(got[0]) == 20
    assert not set(ids(got[0])) & set(ids(one_page))


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
@pytest.mark.parametrize("call", ["next_videos", "log_shown"])
def test_a_snapshot_older_than_a_page_repeats_nothing_of_it(
    call: str, level: psycopg.IsolationLevel, db: Connection, client: Client, connect: Connect
) -> None:
    """Also with the first page of a user."""
    connection = connect(autocommit=False, user="authenticator")
    connection.isolation_level = level
    late = Client(connection)
    arguments = {} if call == "next_videos" else {"shown": [a_row()]}

    def wait_for_a_page() -> None:
        with late.as_("authenticated", ME):
            one(connection, "select count(*) from videos")
            page(client, ME)
            rpc(connection, call, **arguments)

    for number in (1, 2):
        with pytest.raises(errors.SerializationFailure):
            wait_for_a_page()
        assert one(db, "select count(*) from two_tower.impressions") == 20 * number
    page(late, ME)
    assert len(set(column(db, OF, ME))) == 60


def test_next_videos_does_not_block_other_users(client: Client, connect: Connect) -> None:
    others = connect()
    others.execute("set statement_timeout = '2s'")
    with client.as_("authenticated", ME) as connection:
        rpc(connection, "next_videos")
        others.execute(
            "insert into user_video_decisions values (%s, %s, 'skip')", [WORLD.no_decisions, WORLD.videos[0]]
        )
        others.execute("call two_tower.refresh()")
        second = Client(connect(autocommit=False, user="authenticator"))
        assert len(page(second, OTHER)) == 20


# ------------------------------------------------------------------------------------------------ exclusions


@pytest.mark.parametrize("count", [1, 50, 100])
def test_lists_leave_out_excluded_videos(count: int, client: Client) -> None:
    out = sorted(without(ME))[:count]
    rows = client.rpc("authenticated", ME, "recommend_videos", limit=200, exclude=out)
    assert set(ids(rows)) <= without(ME) - set(out)
    assert len(rows) == len(without(ME)) - count
    expected = [v for v in ids(client.rpc("authenticated", ME, "recommend_videos", limit=200)) if v not in out]
    if count < 100:
        assert ids(rows)[:40] == expected[:40]


@pytest.mark.parametrize("exclude", [None, [], [None], [str(NOBODY)], [None, str(NOBODY), str(NOBODY)]])
def test_an_empty_exclusion_changes_nothing(exclude: Any, client: Client) -> None:
    expected = ids(client.rpc("authenticated", ME, "recommend_videos"))
    assert ids(client.rpc("authenticated", ME, "recommend_videos", exclude=exclude)) == expected


def test_the_number_of_exclusions_is_limited(client: Client) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="at most 20000 videos"):
        client.rpc("authenticated", ME, "recommend_videos", exclude=[str(NOBODY)] * 20_001)


def test_every_list_has_its_own_id(client: Client) -> None:
    def list_id(user: UUID, **arguments: Any) -> str:
        (found,) = {row["list_id"] for row in client.rpc("authenticated", user, "recommend_videos", **arguments)}
        return str(found)

    lists = [
        list_id(ME),
        list_id(OTHER),
        list_id(ME, limit=19),
        list_id(ME, exclude=ids(client.rpc("authenticated", ME, "recommend_videos"))[:1]),
    ]
    assert len(set(lists)) == 4
    assert list_id(ME) == lists[0]


# ------------------------------------------------------------------------------------------------ the log


def test_logging_a_list_twice_keeps_it_once(db: Connection, client: Client) -> None:
    rows = client.rpc("authenticated", ME, "recommend_videos", limit=10)
    assert log(client, ME, rows[:4]) == 4
    assert log(client, ME, rows) == 6
    assert log(client, ME, rows + rows) == 0
    assert sorted(column(db, OF, ME)) == sorted(ids(rows))


@pytest.mark.world(models=2)
def test_only_live_versions_and_videos_that_exist_are_kept(db: Connection, client: Client) -> None:
    videos = [str(v) for v in WORLD.published[:6]]
    rows = [
        a_row(video_id=videos[0], model_version="v1"),  # stands by
        a_row(video_id=videos[1], model_version="v2"),
        a_row(video_id=videos[2], model_version=None),
        a_row(video_id=videos[3], model_version="v3"),
        a_row(video_id=str(NOBODY)),
    ]
    assert log(client, ME, rows) == 3
    assert sorted(column(db, OF, ME)) == sorted(videos[:3])


FIELDS: dict[str, list[Any]] = {
    "video_id": [None, "", "x", 1, [], {}],
    "list_id": [None, "", "x", 7],
    "rank": [None, 0, -1, 201, 1.5, "x", 1e30],
    "reason": [None, "", "because", "x" * 10_000, 1, {}],
    "propensity": [0, -1, 1.01, 1e-320, 1e39, "nan", "infinity", "x"],
}
"""Invalid values of a row's fields."""
BAD: list[Any] = [
    *(None, {}, "x", 1, True, [1], [None], ["x"], [[]], [{}]),
    *([a_row(**{name: value})] for name, values in FIELDS.items() for value in values),
    [a_row()] * 201,
    [a_row(), a_row(rank=0)],
]


@pytest.mark.sampled(15)
@pytest.mark.parametrize("shown", BAD, ids=lambda shown: json.dumps(shown)[:60])
def test_an_invalid_row_refuses_the_whole_list(shown: Any, db: Connection, client: Client) -> None:
    with pytest.raises(errors.DataError):
        log(client, ME, shown)
    assert one(db, "select count(*) from two_tower.impressions") == 0


@pytest.mark.parametrize("propensity", [1e-6, 1, None])
def test_propensities_are_kept_up_to_their_bounds(propensity: float | None, db: Connection, client: Client) -> None:
    assert log(client, ME, [a_row(propensity=propensity)]) == 1
    assert one(db, "select propensity from two_tower.impressions") == (propensity and pytest.approx(propensity))


def test_a_refusal_names_the_row_and_the_field(client: Client) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="row 2 of shown has no good rank") as caught:
        log(client, ME, [a_row(), a_row(rank=0)])
    assert "list_id" in (caught.value.diag.message_hint or "")


def test_unknown_fields_of_logged_rows_are_ignored(db: Connection, client: Client) -> None:
    assert log(client, ME, [a_row(user_id=str(OTHER), shown_at="2001-01-01", note="x" * 100_000)]) == 1
    (kept,) = db.execute("select user_id, shown_at::date from two_tower.impressions").fetchall()
    assert kept == (ME, one(db, "select current_date"))


def keep(client: Client, user: UUID, **values: Any) -> int:
    """Impressions that a login of its own keeps, which may call what PostgREST does not show."""
    row = {"user_id": str(user), "shown_at": None} | a_row(**values)
    query = "select two_tower.keep_shown(array[jsonb_populate_record(null::two_tower.impressions, %s::jsonb)])"
    with client.as_("authenticated", user) as connection:
        return int(one(connection, query, json.dumps(row)))


def test_a_login_of_its_own_keeps_impressions_of_itself_alone(db: Connection, client: Client) -> None:
    assert keep(client, ME, user_id=str(OTHER), shown_at="2001-01-01") == 1
    (kept,) = db.execute("select user_id, shown_at::date from two_tower.impressions").fetchall()
    assert kept == (ME, one(db, "select current_date"))


@pytest.mark.parametrize(
    "values", [{"video_id": None}, {"list_id": None}, {"rank": 201}, {"reason": "because"}, {"propensity": 0}], ids=str
)
def test_a_login_of_its_own_keeps_only_what_a_list_has(values: dict[str, Any], client: Client) -> None:
    with pytest.raises(errors.InvalidParameterValue, match=f"row 1 of shown has no good {next(iter(values))}"):
        keep(client, ME, **values)


def test_shown_per_day_limits_the_impressions_of_a_user(db: Connection, client: Client) -> None:
    db.execute("update two_tower.settings set value = '200' where name = 'shown_per_day'")
    rows = [a_row(list_id=str(uuid4())) for _ in range(150)]
    assert log(client, ME, rows) == 150
    for again in (lambda: log(client, ME, rows), lambda: page(client, ME, 51)):
        with pytest.raises(errors.ProgramLimitExceeded, match="at most 200"):
            again()
    assert len(page(client, ME, 50)) == 50
    assert log(client, OTHER, rows) == 150


def test_impressions_of_unknown_users_are_refused(client: Client) -> None:
    for ask in (lambda: log(client, NOBODY, [a_row()]), lambda: page(client, NOBODY)):
        with pytest.raises(errors.NoDataFound, match=str(NOBODY)):
            ask()
    for ask in (lambda: log(client, None, [a_row()]), lambda: page(client, None)):  # type: ignore[arg-type]
        with pytest.raises(psycopg.Error) as caught:
            ask()
        assert caught.value.sqlstate == "28000"


# ------------------------------------------------------------------------------------------------ days


def days(db: Connection) -> list[str]:
    query = """select right(c.relname, 8) from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'two_tower.impressions'::regclass order by 1"""
    return column(db, query)


def today() -> date:
    return datetime.now(UTC).date()


def forget_days(db: Connection) -> None:
    for day in days(db):
        db.execute(f"drop table two_tower.impressions_{day}".encode())


def test_purge_logs_creates_partitions_ahead_and_drops_old_ones(db: Connection) -> None:
    forget_days(db)
    for age in (200, 91, 90, 1):
        db.execute("select two_tower.make_impression_day(%s)", [today() - timedelta(days=age)])
    done = one(db, "select two_tower.purge_logs()")
    assert done["impression_days"] == 2
    assert days(db) == [f"{today() + timedelta(days=d):%Y%m%d}" for d in (-90, -1, 0, 1, 2)]
    assert one(db, "select two_tower.purge_logs()")["impression_days"] == 0
    db.execute("update two_tower.settings set value = '1' where name = 'impressions_kept_days'")
    assert one(db, "select two_tower.purge_logs()")["impression_days"] == 1


def test_the_first_writer_creates_a_missing_partition(db: Connection, client: Client) -> None:
    forget_days(db)
    assert len(page(client, ME)) == 20
    assert days(db) == [f"{today():%Y%m%d}"]


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Los_Angeles", "Pacific/Kiritimati", "UTC"])
def test_partitions_do_not_depend_on_the_time_zone(zone: str, db: Connection, client: Client) -> None:
    forget_days(db)
    with client.as_("authenticated", ME) as connection:
        connection.execute(f"set local timezone = '{zone}'".encode())
        assert len(rpc(connection, "next_videos")) == 20
    assert days(db) == [f"{today():%Y%m%d}"]


def test_two_concurrent_first_writers_create_one_partition(db: Connection, client: Client, connect: Connect) -> None:
    forget_days(db)
    other = Client(connect(autocommit=False, user="authenticator"))
    got: list[Rows] = []
    with client.as_("authenticated", ME) as first:
        rpc(first, "next_videos")
        thread = threading.Thread(target=lambda: got.append(page(other, OTHER)))
        thread.start()
        time.sleep(0.1)
    thread.join()
    assert len(got[0]) == 20
    assert len(days(db)) == 1


def test_dropping_a_partition_blocks_others_only_briefly(db: Connection, client: Client, connect: Connect) -> None:
    """While somebody reads, the job gives up in time and writers continue; the next run drops it."""
    db.execute("select two_tower.make_impression_day(%s)", [today() - timedelta(days=100)])
    reader = connect(autocommit=False)
    reader.execute("select count(*) from two_tower.impressions")
    started = time.monotonic()
    assert one(db, "select two_tower.purge_logs()")["impression_days"] == 0
    assert time.monotonic() - started < 5
    assert one(db, "show lock_timeout") == "0"
    assert len(page(client, ME)) == 20
    reader.rollback()
    assert one(db, "select two_tower.purge_logs()")["impression_days"] == 1


def test_clients_cannot_read_partitions_of_impressions(db: Connection, client: Client) -> None:
    page(client, ME)
    day = f"two_tower.impressions_{today():%Y%m%d}"
    assert one(db, "select relrowsecurity from pg_class where oid = %s::regclass", day)
    for role in ("anon", "authenticated", "service_role", "two_tower_viewer"):
        for what in ("select", "insert", "update", "delete", "truncate"):
            assert not one(db, "select has_table_privilege(%s, %s, %s)", role, day, what)
    for role, user in (("anon", None), ("authenticated", ME)):
        with pytest.raises(errors.InsufficientPrivilege), client.as_(role, user) as connection:
            connection.execute("table two_tower.impressions")
    with client.as_("service_role") as connection:
        assert one(connection, "select count(*) from two_tower.impressions") == 20


# ------------------------------------------------------------------------------------------------ erasure


def test_deleting_a_user_deletes_the_impressions_at_once(db: Connection, client: Client) -> None:
    """Also those of a user without decisions, who is in no log."""
    for user in (ME, WORLD.no_decisions, OTHER):
        page(client, user)
    db.execute("delete from auth.users where id = any (%s)", [[ME, WORLD.no_decisions]])
    assert set(column(db, "select user_id from two_tower.impressions")) == {OTHER}
    assert column(db, "select user_id from two_tower.impression_users") == [OTHER]


@pytest.mark.parametrize("first", ["the page", "the deletion"])
def test_next_videos_and_the_deletion_of_its_user_wait_for_each_other(
    first: str, db: Connection, client: Client, connect: Connect
) -> None:
    page(client, ME)
    deleting = connect(autocommit=False)
    other = Client(connect(autocommit=False, user="authenticator"))
    failed: list[psycopg.Error] = []

    def attempt(what: Any) -> None:
        try:
            what()
        except psycopg.Error as error:
            failed.append(error)

    def delete() -> None:
        deleting.execute("delete from auth.users where id = %s", [ME])
        deleting.commit()

    if first == "the page":
        with client.as_("authenticated", ME) as connection:
            rpc(connection, "next_videos")
            thread = threading.Thread(target=lambda: attempt(delete))
            thread.start()
            time.sleep(0.2)
            assert one(db, "select count(*) from auth.users where id = %s", ME) == 1
        thread.join()
        assert failed == []
    else:
        deleting.execute("delete from auth.users where id = %s", [ME])
        thread = threading.Thread(target=lambda: attempt(lambda: page(other, ME)))
        thread.start()
        time.sleep(0.2)
        deleting.commit()
        thread.join()
        assert [error.sqlstate for error in failed] == ["P0002"]
    assert one(db, "select count(*) from two_tower.impressions") == 0


# ------------------------------------------------------------------------------------------------ results


def test_a_page_that_is_shown_again_is_logged_again(db: Connection, client: Client) -> None:
    db.execute("update two_tower.settings set value = '1' where name = 'shown_again_after_hours'")
    first = ids(page(client, ME))
    db.execute("update two_tower.impressions set shown_at = shown_at - interval '10 minutes'")
    second = ids(page(client, ME))
    assert not set(second) & set(first)
    with db.transaction():
        db.execute("select two_tower.make_impression_day((now() - interval '3 hours')::date)")
        db.execute("update two_tower.impressions set shown_at = shown_at - interval '3 hours'")
    assert ids(page(client, ME)) == first
    assert ids(page(client, ME)) == second


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "value",
    [{"video_id": "x"}, {"rank": 1.5}, {"rank": 1e20}, {"propensity": "x"}, {"propensity": 1e300}, {"list_id": "1"}],
)
def test_logged_values_that_no_list_has_are_refused(value: dict[str, Any], db: Connection, client: Client) -> None:
    with pytest.raises(errors.InvalidParameterValue):
        log(client, ME, [a_row(), a_row(**value)])
    assert column(db, OF, ME) == []


def test_hidden_and_unknown_videos_are_not_logged(client: Client) -> None:
    hidden = [a_row(video_id=str(video)) for video in (WORLD.unpublished_video, WORLD.future_video, NOBODY)]
    assert log(client, ME, [*hidden, a_row()]) == 1


def test_excluded_ids_may_be_written_in_any_form(client: Client) -> None:
    first = ids(client.rpc("authenticated", ME, "recommend_videos", limit=4))
    rows = client.rpc("authenticated", ME, "next_videos", limit=4, exclude=[first[:2], first[2:]])
    assert not set(ids(rows)) & set(first)
