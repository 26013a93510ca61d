"""What users and applications write is data: no value of one row stops, or changes, what others get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql
from typer.testing import CliRunner

from conftest import Connect, Connection
from test_engines import assert_equal
from test_refresh import assert_fresh, pending
from tiers import some
from two_tower.cli.main import app
from two_tower.lifecycle import registry
from two_tower.trainer import dataset, dataset_export
from world_fixtures import Client, column, make_world, one, refresh, state

pytestmark = pytest.mark.world

WORLD = make_world()
ME, LIKED = WORLD.one_like, min(WORLD.of(WORLD.one_like, "like"))

MOMENTS = ("infinity", "-infinity", "4713-01-01 BC", "0001-01-01", "1899-12-31", "2300-01-01", "20000-01-01", None)
NAMES = (
    "",
    " ",
    "Foo",
    "foo",
    "FOO ",
    'a "b" \\ {c},',
    "null",
    "NULL",
    "\x01\n\t",
    "\u00fc",
    "u\u0308",
    "\u200b",
    "x" * 9000,
)
NUMBERS = ("NaN", "Infinity", "-Infinity", "-1", "0", "1e-400", "1e-50", "1e-38", "1e-30", "0.1", "999999999999",
           "1e12", "1e30", "1e39", "1e300", None)  # fmt: skip
WORDS = ("like", "LIKE", " Like", "nope ", "Nope", "skip", "SKIP", "dislike", "love", "")
REFUSED = (errors.DataError, errors.IntegrityError, errors.NotSupportedError)
"""What a column says of a value that its type cannot hold."""
KIND = "select format_type(atttypid, atttypmod) from pg_attribute where attrelid = %s::regclass and attname = %s"
SIGNS = {"like": 1, "nope": 0, "skip": -1}

# Columns of the application, as somebody may have them; values that the type cannot hold are left out by the server.
PRICES = ("numeric", "double precision", "real", "money", "text", "varchar(400)", "char(40)", "numeric(14,2)", "bigint")
TIMES = ("timestamptz", "timestamp", "date", "text", "varchar(40)")
TEXTS = ("text", "varchar", "char(12)", "citext", "text collate blind", "word")
DECISIONS = ("text", "varchar(20)", "char(10)", "citext", "text collate blind", "word")


def adopt(db: Connection, table: str, kinds: dict[str, str], words: tuple[str | None, ...] = ()) -> None:
    """The columns get types that the application could have given them, and lose the checks that we gave them."""
    db.execute("create extension if not exists citext schema extensions")
    db.execute(
        "create collation if not exists blind (provider = icu, locale = 'und-u-ks-level1', deterministic = false)"
    )
    for name, kind in kinds.items():
        if kind == "word":
            there = column(db, f"select distinct {name}::text from {table} where {name} is not null")
            labels = sql.SQL(", ").join(
                sql.Literal(w) for w in dict.fromkeys([*there, *(w for w in words if w)]) if len(w) < 60
            )
            db.execute(sql.SQL("create type {} as enum ({})").format(sql.Identifier(f"word_{name}"), labels))
        for check in column(
            db,
            """select conname from pg_constraint where conrelid = %s::regclass and contype = 'c'
            and pg_get_constraintdef(oid) ~ %s""",
            table,
            name,
        ):
            db.execute(f"alter table {table} drop constraint {check}".encode())
        kind = kind.replace("citext", "extensions.citext").replace("word", f"word_{name}")
        base = kind.split(" collate")[0]
        db.execute(f"alter table {table} alter {name} drop not null".encode())
        through = "::numeric" if base in ("money", "bigint") else "::text"
        db.execute(f"alter table {table} alter {name} type {kind} using {name}{through}::{base}".encode())
    # Rewriting a table fires no trigger, and some of these types round or cut what was there.
    db.execute("call two_tower.rebuild()")


def write(db: Connection, table: str, name: str, values: tuple[str | None, ...], ids: list[Any], key: str) -> int:
    """Gives rows of ``ids`` these values in turn; how many the column could hold."""
    kind = one(db, KIND, table, name)
    held = 0
    for at, value in enumerate(values):
        query = sql.SQL(f"update {table} set {name} = {{}}::text::{kind} where {key} = {{}}")
        if kind in ("money", "bigint"):
            query = sql.SQL(f"update {table} set {name} = {{}}::numeric::{kind} where {key} = {{}}")
        try:
            db.execute(query.format(value, ids[at % len(ids)]))
            held += 1
        except REFUSED:
            continue
    assert held > 1
    return held


def order(db: Connection) -> list[Any]:
    return column(db, "select video_id from two_tower.video_popularity order by score desc, video_id")


def assert_served(db: Connection, client: Client) -> None:
    """All that reads the rows has an answer, and the answers agree."""
    refresh(db)
    assert db.execute("select kind, id, error from two_tower.change_failures").fetchall() == []
    assert pending(db) == (0, 0)
    assert_equal(db, WORLD.users)
    before = state(db)
    db.execute("call two_tower.rebuild()")
    assert state(db) == before
    db.execute("select two_tower.update_popularity()")
    assert one(db, "select bool_and(score > 0 and score < 1e6 and score::real > 0) from two_tower.video_popularity")
    assert one(db, "select count(*) from get_user_embedding_feature_batch(10000)") >= len(WORLD.users) - 1
    assert one(db, "select count(*) from get_item_embedding_feature_batch(10000)") == len(WORLD.videos)
    for user in (ME, WORLD.no_decisions):
        assert len(client.rpc("authenticated", user, "recommend_videos", limit=20)) == 20
    for query in ("select two_tower.sync_user_embeddings('1 hour')", "select two_tower.sync_video_embeddings()",
                  "select count(*) from two_tower.stale_users('1 hour', 1, true)"):  # fmt: skip
        db.execute(query.encode())
    data = dataset.read(db)
    likes = one(db, "select count(*) from user_video_decisions where two_tower.decision_label(decision_type) = 1")
    assert (data.label == 1).sum() == likes
    assert set(data.label) <= {1, 0, -1}
    features = dict(db.execute("select user_id::text, like_count from user_features").fetchall())
    counted = {str(u): 0 for u in features} | {
        u: int(((data.user == n) & (data.label == 1)).sum()) for n, u in enumerate(data.user_ids)
    }
    assert {u: n for u, n in counted.items() if u in features} == features


# ------------------------------------------------------------------------------------------------ every value and type

VIDEO_VALUES: dict[str, tuple[tuple[str, ...], tuple[str | None, ...]]] = {
    "price": (PRICES, NUMBERS),
    "duration_seconds": (
        ("int", "bigint", "numeric", "double precision", "text"),
        (*NUMBERS, "2147483647", "2147483648", "10.5", "-3"),
    ),
    "product_released_at": (TIMES, MOMENTS),
    "distribution_started_at": (TIMES, MOMENTS),
    "maker": (TEXTS, NAMES),
    "label": (TEXTS, NAMES),
    "series": (TEXTS, NAMES),
    "source": (TEXTS, NAMES),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("at", range(max(len(kinds) for kinds, _ in VIDEO_VALUES.values())))
def test_no_value_of_a_video_stops_or_leans_anything(at: int, db: Connection, client: Client) -> None:
    """Every column takes its values under each of its types; the columns change theirs together."""
    kinds = {name: kinds[at % len(kinds)] for name, (kinds, _) in VIDEO_VALUES.items()}
    adopt(db, "public.videos", kinds, NAMES)
    refresh(db)
    liked = sorted(WORLD.of(WORLD.many, "like"))
    for name, (_, values) in VIDEO_VALUES.items():
        write(db, "public.videos", name, values, [LIKED, *liked[: len(values)]], "id")
    assert_served(db, client)
    # Whoever did not decide on these videos has the features of before; each write alone is seen by the triggers.
    for name, (_, values) in VIDEO_VALUES.items():
        for value in values:
            cast = one(db, KIND, "public.videos", name)
            try:
                db.execute(
                    sql.SQL(f"update videos set {name} = {{}}::text::{cast} where id = {{}}").format(value, LIKED)
                )
            except REFUSED:
                continue
    refresh(db)
    assert_fresh(db)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", TIMES)
def test_no_time_of_a_decision_stops_or_leans_anything(kind: str, db: Connection, client: Client) -> None:
    adopt(db, "public.user_video_decisions", {"created_at": kind})
    refresh(db)
    db.execute("select two_tower.update_popularity()")
    before = order(db)
    mine = sorted(WORLD.decided(WORLD.many))
    write(db, "public.user_video_decisions", "created_at", MOMENTS, mine, f"user_id = '{WORLD.many}' and video_id")
    assert_served(db, client)
    touched = set(mine[: len(MOMENTS)])
    assert [v for v in order(db) if v not in touched] == [v for v in before if v not in touched]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", DECISIONS)
def test_words_for_decisions_in_any_case_and_type(kind: str, db: Connection, client: Client) -> None:
    adopt(db, "public.user_video_decisions", {"decision_type": kind}, WORDS)
    refresh(db)
    mine = sorted(WORLD.decided(WORLD.many))
    words = tuple(w for w in WORDS if kind != "word" or w)
    write(db, "public.user_video_decisions", "decision_type", words, mine, f"user_id = '{WORLD.many}' and video_id")
    assert_served(db, client)
    read = dict(
        db.execute(
            """select video_id, two_tower.decision_label(decision_type) from user_video_decisions where user_id = %s""",
            (WORLD.many,),
        ).fetchall()
    )
    assert [read[v] for v, _ in zip(mine, words, strict=False)] == [SIGNS.get(w.strip().lower()) for w in words]


def test_times_of_people_and_reviews_are_data_too(db: Connection, client: Client, tmp_path: Path) -> None:
    for at, moment in enumerate(m for m in MOMENTS if m):
        db.execute("update profiles set created_at = %s where user_id = %s", (moment, WORLD.users[5 + at]))
        db.execute("update auth.users set created_at = %s where id = %s", (moment, WORLD.users[5 + at]))
        db.execute(
            "insert into two_tower.reviews values (%s, %s, 5, %s)", (WORLD.users[at], WORLD.videos[100 + at], moment)
        )
        db.execute("update user_video_decisions set created_at = %s where user_id = %s", (moment, WORLD.users[9 + at]))
        db.execute("update videos set product_released_at = %s where id = %s", (moment, WORLD.videos[50 + at]))
    refresh(db)
    assert_fresh(db)
    db.execute("select two_tower.update_popularity()")
    assert one(db, "select count(*) from get_user_embedding_feature_batch(10000)") > 40
    done = dataset_export.export(db, tmp_path)
    assert done["videos"] == len(WORLD.videos)
    data = dataset.read(db)
    from types import SimpleNamespace

    model: Any = SimpleNamespace(schema=data.schema, hyperparameters={}, metrics={}, loss=dict)
    assert registry.meta("v2", model, data)["training_data"]["latest"] == "2100-01-01T00:00:00+00:00"


def test_popularity_of_a_like_with_a_chosen_date(db: Connection, client: Client) -> None:
    """As a signed-in client may write it; the day after, the refresh does all of its work."""
    likes = {v: sum(d[1] == v and d[2] == "like" for d in WORLD.decisions) for v in WORLD.published}
    video = min(set(WORLD.published) - WORLD.decided(ME), key=lambda v: (likes[v], v))
    db.execute("select two_tower.update_popularity()")
    before = order(db)
    for moment in ("2300-01-01", "infinity", "1500-01-01", "-infinity", "20000-01-01", "4713-01-01 BC"):
        with client.as_("authenticated", ME) as connection:
            connection.execute("insert into user_video_decisions values (%s, %s, 'like', %s)", (ME, video, moment))
        db.execute(
            "update two_tower.job_runs set started_at = started_at - interval '2 days' where job = 'update_popularity'"
        )
        refresh(db)
        assert pending(db) == (0, 0), moment
        assert [v for v in order(db) if v != video] == [v for v in before if v != video], moment
        # It counts as one like at most.
        scores = dict(db.execute("select video_id, score from two_tower.video_popularity").fetchall())
        assert 0 < scores[video] <= 1 + likes[video], moment
        assert order(db)[0] == before[0], moment
        db.execute("delete from user_video_decisions where user_id = %s and video_id = %s", (ME, video))


def test_names_too_long_for_the_registry_have_no_input(db: Connection) -> None:
    db.execute(
        "update videos set maker = (select string_agg(md5(n::text), '') from generate_series(1, 500) n) where id = %s",
        (LIKED,),
    )
    refresh(db)
    from world_fixtures import tiny_model

    tiny_model(db, "v2", seed=2)
    assert_fresh(db)


# ------------------------------------------------------------------------------------------------ housekeeping


def break_popularity(db: Connection) -> None:
    db.execute("alter table two_tower.video_popularity add constraint broken check (score < 0) not valid")


def mend_popularity(db: Connection) -> None:
    db.execute("alter table two_tower.video_popularity drop constraint broken")


def test_a_failing_popularity_is_named_and_stops_no_refresh(db: Connection) -> None:
    break_popularity(db)
    db.execute("update two_tower.job_runs set started_at = started_at - interval '2 days'")
    db.execute(
        "update user_video_decisions set created_at = created_at + interval '1 day' where decision_type = 'like'"
    )
    refresh(db)
    assert_fresh(db)
    problem = db.execute("select detail, remedy from two_tower.problems where what = 'job_failing'").fetchall()
    assert len(problem) == 1
    assert "update_popularity failed" in problem[0][0]
    runs = "select count(*) from two_tower.job_log where job = 'update_popularity' and error is not null"
    assert one(db, runs) == 1
    refresh(db)
    assert one(db, runs) == 1, "it is tried again an hour later"
    mend_popularity(db)
    db.execute(problem[0][1].encode())
    assert one(db, "select count(*) from two_tower.problems") == 0


def test_a_failing_popularity_takes_no_activation_back(db: Connection, dsn: str) -> None:
    from world_fixtures import tiny_model

    tiny_model(db, "v2", seed=2, activate=False)
    break_popularity(db)
    done = CliRunner().invoke(app, ["model", "activate", "v2", "--dsn", dsn])
    assert done.exit_code == 0, done.output
    assert "warning: popularity was not updated: " in done.output
    assert one(db, "select two_tower.active_version()") == "v2"


DEFAULTS = (
    "default_transaction_isolation = 'serializable'",
    "default_transaction_isolation = 'repeatable read'",
    "default_transaction_read_only = on",
    "search_path = ''",
    "search_path = shadow, pg_catalog",
)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("default", DEFAULTS)
@pytest.mark.parametrize(
    "how",
    ["call two_tower.refresh()", "call two_tower.rebuild()", "call two_tower.backfill_model('v2', true)", "python"],
)
def test_procedures_work_under_any_default(default: str, how: str, db: Connection, connect: Connect) -> None:
    from world_fixtures import tiny_model

    tiny_model(db, "v2", seed=2, activate=False)
    db.execute(
        """create schema shadow;
        create function shadow.no(anyelement, anyelement) returns boolean language plpgsql
        as $$ begin raise 'shadowed'; end $$;
        create operator shadow.= (leftarg = anyelement, rightarg = anyelement, function = shadow.no);
        create operator shadow.> (leftarg = anyelement, rightarg = anyelement, function = shadow.no);
        create operator shadow.>= (leftarg = anyelement, rightarg = anyelement, function = shadow.no);
        create domain shadow.text as pg_catalog.int4; create domain shadow.uuid as pg_catalog.int4;
        create domain shadow.jsonb as pg_catalog.int4; create type shadow.record as (x pg_catalog.int4)"""
    )
    db.execute(
        "update user_video_decisions set created_at = created_at + interval '1 day' where decision_type = 'like'"
    )
    other = connect()
    other.execute(f"set {default}".encode())
    if how == "python":
        if "search_path" not in default:
            assert registry.refresh(other, lambda what, share: None).counts["failed"] == 0
            assert pending(db) == (0, 0)
        return
    other.execute(how.encode())
    if "refresh" in how:
        assert pending(db) == (0, 0)
    assert one(db, "select count(*) from two_tower.change_failures") == 0
    with pytest.raises(errors.InvalidTransactionTermination), other.transaction():
        other.execute(how.encode())


# ------------------------------------------------------------------------------------------------ columns that go

COLUMNS = {
    "public.videos": (
        "maker", "label", "series", "source", "price", "duration_seconds", "product_released_at",
        "distribution_started_at", "title", "description", "id",
    ),
    "public.video_tags": ("tag_id", "video_id"),
    "public.video_performers": ("performer_id", "video_id"),
    "public.user_video_decisions": ("user_id", "video_id", "decision_type", "created_at"),
}  # fmt: skip
WRITES = {
    "public.videos": (
        "insert into public.videos (product_url) values ('https://new.example/')",
        "update public.videos set {rest} = {rest}, thumbnail_url = 'x'",
        "delete from public.videos where product_url = 'https://new.example/'",
    ),
    "public.video_tags": (
        "update public.video_tags set {rest} = {rest}",
        "delete from public.video_tags where ctid in (select ctid from public.video_tags limit 30)",
    ),
    "public.video_performers": (
        "update public.video_performers set {rest} = {rest}",
        "delete from public.video_performers where ctid in (select ctid from public.video_performers limit 30)",
    ),
    "public.user_video_decisions": (
        "update public.user_video_decisions set {rest} = {rest}",
        "delete from public.user_video_decisions where ctid in (select ctid from public.user_video_decisions limit 30)",
    ),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("how", ["rename", "drop"])
@pytest.mark.parametrize(("table", "name"), [(t, n) for t, names in COLUMNS.items() for n in names])
def test_the_application_still_writes_after_dropping_a_column(how: str, table: str, name: str, db: Connection) -> None:
    rest = next(n for n in COLUMNS[table] if n != name)
    change = f"rename {name} to elsewhere" if how == "rename" else f"drop {name} cascade"
    # A session that has run the triggers before, and one that has not.
    for write_ in WRITES[table]:
        with db.transaction(force_rollback=True):
            db.execute(write_.format(rest=rest).encode())
    db.execute(f"alter table {table} {change}".encode())
    for write_ in WRITES[table]:
        db.execute(write_.format(rest=rest).encode())
    if table == "public.user_video_decisions" and how == "rename":
        values = {
            "user_id": str(ME),
            "video_id": str(WORLD.videos[0]),
            "decision_type": "like",
            "created_at": "2025-01-01",
        }
        names = ", ".join("elsewhere" if n == name else n for n in values)
        db.execute(f"insert into {table} ({names}) values (%s, %s, %s, %s)".encode(), tuple(values.values()))
    assert pending(db) != (0, 0)
    with pytest.raises(errors.UndefinedColumn):
        refresh(db)
    assert one(db, "select count(*) from two_tower.change_failures") == 0
    found = dict(db.execute("select what, detail || ' -> ' || remedy from two_tower.problems").fetchall())
    assert found["columns"] == f"{table} has no column {name}, which refreshes and lists read -> two-tower migrate"
    assert name in found["job_failing"]
    assert one(db, "select error is not null from two_tower.job_log where job = 'refresh' order by id desc limit 1")
    if how == "rename":
        db.execute(f"alter table {table} rename elsewhere to {name}".encode())
        refresh(db)
        assert_fresh(db)
        assert one(db, "select count(*) from two_tower.problems") == 0


# ------------------------------------------------------------------------------------------ columns of other types


def castable(to: str, kind: str = "implicit") -> str:
    """An enum of the application with a cast that fails wherever we call it, as where it needs another path."""
    return f"""create type public.word as enum ('2024-01-01', '7', 'like', 'skip');
    create function public.meant(public.word) returns {to} language plpgsql
    as $$ begin return nowhere.{to.replace(" ", "_")}($1); end $$;
    create cast (public.word as {to}) with function public.meant(public.word) as {kind};"""


ODD: dict[str, tuple[str, str, str, str]] = {
    "char": ("", '"char"', "1", "2"),
    "enum to text": (castable("text"), "public.word", "like", "7"),
    "enum to numeric": (castable("numeric"), "public.word", "7", "2024-01-01"),
    "enum to double": (castable("double precision"), "public.word", "7", "2024-01-01"),
    "enum to int": (castable("int"), "public.word", "7", "2024-01-01"),
    "enum to timestamptz": (castable("timestamptz"), "public.word", "2024-01-01", "7"),
    "enum to date": (castable("date"), "public.word", "2024-01-01", "7"),
    "enum to uuid": (castable("uuid"), "public.word", "2024-01-01", "7"),
    "enum, assigned to text": (castable("text", "assignment"), "public.word", "like", "7"),
    "domain of numeric": ("create domain public.held as numeric", "public.held", "7", "1e30"),
    "domain of char": ('create domain public.held as "char"', "public.held", "7", "8"),
    "domain of a domain of citext": (
        "create domain public.within as public.citext; create domain public.held as public.within check (value <> 'x')",
        "public.held",
        "like",
        "7",
    ),
    "domain of money": ("create domain public.held as money", "public.held", "7", "8"),
    "composite": ("create type public.pair as (a int, b text)", "public.pair", "(1,like)", "(,)"),
    **{
        kind: ("", kind, value, other)
        for kind, value, other in (
            ("money", "7", "-8"),
            ("bytea", "\\x37", "\\x38"),
            ("json", '{"a": 7}', "8"),
            ("jsonb", '"like"', "8"),
            ("xml", "<a/>", "7"),
            ("uuid", str(WORLD.videos[0]), str(WORLD.videos[1])),
            ("int[]", "{7}", "{}"),
            ("text[]", "{like}", "{7,NULL}"),
            ("numrange", "[1,2)", "empty"),
            ("datemultirange", "{[2024-01-01,2024-02-01)}", "{}"),
            ("bit(3)", "101", "111"),
            ("varbit", "101", ""),
            ("boolean", "true", "false"),
            ("interval", "00:10:00", "-3 years"),
            ("time", "10:00", "24:00"),
            ("timetz", "10:00+09", "24:00-12"),
            ("timestamptz", "infinity", "4713-01-01 BC"),
            ("timestamp", "-infinity", "2024-01-01"),
            ("date", "infinity", "2024-01-01"),
            ("smallint", "-7", "8"),
            ("bigint", "7", "9223372036854775807"),
            ("real", "NaN", "1e-40"),
            ("double precision", "1e300", "-Infinity"),
            ("oid", "7", "8"),
            ("regclass", "pg_class", "pg_proc"),
            ("inet", "10.0.0.7", "::1"),
            ("point", "(1,2)", "(3,4)"),
            ("tsvector", "like", "7"),
            ("name", "like", "7"),
            ("citext", "like", "7"),
            ("extensions.halfvec", "[1,2]", "[3]"),
        )
    },
}
"""What makes a type that a migration would not accept of some column, its name, and two values that it can hold."""
# Two that were ambiguous, one whose values do not compare, one whose cast fails.
FIRST = ("char", "enum to numeric", "json", "enum to text")
KINDS_OF_COLUMNS = some(sorted(ODD, key=lambda kind: kind not in FIRST), len(FIRST))
VALUES = (
    "price",
    "duration_seconds",
    "product_released_at",
    "distribution_started_at",
    "maker",
    "label",
    "series",
    "source",
)


def retype(db: Connection, table: str, names: tuple[str, ...], kind: str) -> None:
    """Gives columns of the application another type, all rows with the same value."""
    _, shown, value, _ = ODD[kind]
    dropped = column(
        db,
        """select format('drop constraint %%I cascade', c.conname) from pg_constraint c
        where c.conrelid = %s::regclass and exists (
            select from pg_attribute a
            where a.attrelid = c.conrelid and a.attnum = any (c.conkey) and a.attname = any (%s)
        )""",
        table,
        list(names),
    )
    for drop in dropped:
        db.execute(f"alter table {table} {drop}".encode())
    indexes = """select i.indexrelid::regclass::text from pg_index i where i.indrelid = %s::regclass and exists (
        select from pg_attribute a
        where a.attrelid = i.indrelid and a.attnum = any ((i.indkey::int2[])[0 : i.indnkeyatts - 1])
            and a.attname = any (%s)
    )"""
    for index in column(db, indexes, table, list(names)):
        db.execute(f"drop index {index}".encode())
    for name in names:
        db.execute(f"alter table {table} alter {name} drop default, alter {name} drop not null".encode())
        db.execute(sql.SQL(f"alter table {table} alter {name} type {shown} using {{}}::text::{shown}").format(value))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", KINDS_OF_COLUMNS)
def test_columns_may_get_any_type_and_everything_goes_on(kind: str, db: Connection, client: Client) -> None:
    made, shown, _, other = ODD[kind]
    db.execute("create extension if not exists citext schema public")
    db.execute(made.encode())
    # A session that has run the triggers before.
    db.execute("update videos set price = 1 where id = %s", (LIKED,))
    refresh(db)
    retype(db, "public.videos", VALUES, kind)
    retype(db, "public.user_video_decisions", ("created_at",), kind)
    db.execute("call two_tower.rebuild()")
    assert pending(db) == (0, 0)
    value = sql.SQL(f"{{}}::text::{shown}").format(other)
    for name in VALUES:
        db.execute(sql.SQL(f"update videos set {name} = {{}} where id = {{}}").format(value, LIKED))
    db.execute(
        sql.SQL(
            "insert into videos (id, product_url, title, {}) values (default, 'https://new.example/', 'new', {})"
        ).format(sql.SQL(", ").join(map(sql.Identifier, VALUES)), sql.SQL(", ").join([value] * len(VALUES)))
    )
    db.execute("delete from videos where product_url = 'https://new.example/'")
    mine = sql.SQL("user_id = {} and video_id = {}").format(ME, LIKED)
    db.execute(sql.SQL("update user_video_decisions set created_at = {} where ").format(value) + mine)
    db.execute(sql.SQL("delete from user_video_decisions where ") + mine)
    db.execute(sql.SQL("insert into user_video_decisions values ({}, {}, 'like', {})").format(ME, LIKED, value))
    assert pending(db) != (0, 0)
    assert_served(db, client)
    assert column(db, "select what from two_tower.problems") == []


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", KINDS_OF_COLUMNS)
def test_the_application_still_writes_after_columns_change_their_type(kind: str, db: Connection) -> None:
    made, shown, _, other = ODD[kind]
    db.execute("create extension if not exists citext schema public")
    db.execute(made.encode())
    value = sql.SQL(f"{{}}::text::{shown}").format(other)
    # The id of a video is in a view and policies of ours, so PostgreSQL keeps its type.
    columns = {
        "user_video_decisions": ("user_id", "video_id", "decision_type", "created_at"),
        "video_tags": ("video_id", "tag_id"),
        "video_performers": ("video_id", "performer_id"),
    }
    for table, names in columns.items():
        for policy in column(db, "select polname from pg_policy where polrelid = %s::regclass", table):
            db.execute(f"drop policy {policy} on {table}".encode())
        retype(db, f"public.{table}", names, kind)
    for role in ("origin", "replica"):
        db.execute(f"set session_replication_role = {role}".encode())
        for table, names in columns.items():
            for given in (value, sql.NULL):
                values = sql.SQL(", ").join([given] * len(names))
                db.execute(sql.SQL(f"insert into {table} ({', '.join(names)}) values ({{}})").format(values))
            for name in names:
                db.execute(sql.SQL(f"update {table} set {name} = {{}}").format(value))
            db.execute(f"delete from {table} where ctid in (select ctid from {table} limit 30)".encode())
    assert pending(db) != (0, 0)
    found = [what for (what,) in db.execute("select detail from two_tower.problems where what = 'columns'")]
    ids = [f"{table}.{name} is of type" for table, names in columns.items() for name in names if name.endswith("_id")]
    assert len(found) == (0 if kind == "uuid" else len(ids))
    assert all(any(i in what for what in found) for i in ids) or kind == "uuid"


@pytest.mark.sampled(1)
@pytest.mark.parametrize("rows", ["origin", "replica"])
def test_columns_may_be_called_anything(rows: str, db: Connection, client: Client) -> None:
    """As variables, arguments, results and aliases of ours are, and as columns of other tables: writes go on. So does
    everything else, unless a column has one of the prefixes by which our variables are told from columns."""
    names = column(
        db,
        r"""select distinct m[1] from pg_proc p join pg_language l on l.oid = p.prolang
        cross join lateral regexp_matches(p.prosrc, '\m([a-z]|[cvp]_[a-z_0-9]+)\M', 'g') as m
        where p.pronamespace in ('two_tower'::regnamespace, 'public'::regnamespace) and l.lanname in ('sql', 'plpgsql')
        union
        select distinct n from pg_proc p cross join unnest(p.proargnames) as n
        where p.pronamespace in ('two_tower'::regnamespace, 'public'::regnamespace) and n <> ''
        union
        select distinct attname from pg_attribute where attrelid::regclass::text = any (%s) and attnum > 0
        union
        values ('found'), ('new'), ('old'), ('tg_op'), ('absent'), ('new_rows'), ('old_rows'), ('label'), ('word')""",
        ["user_video_decisions", "videos", "video_tags", "video_performers"],
    )
    tables = ("user_video_decisions", "videos", "video_tags", "video_performers")
    for table in tables:
        there = set(column(db, "select attname from pg_attribute where attrelid = %s::regclass", table))
        # An attribute's table has one of the two ids.
        more = [name for name in names if name not in there and name not in ("tag_id", "performer_id")]
        added = sql.SQL(", ").join(sql.SQL("add {} text default 'x'").format(sql.Identifier(name)) for name in more)
        db.execute(sql.SQL(f"alter table {table} ") + added)
    db.execute(f"set session_replication_role = {rows}".encode())
    for table, statements in WRITES.items():
        rest = "video_id" if table != "public.videos" else "title"
        for statement in statements:
            db.execute(statement.format(rest=rest).encode())
    db.execute("update user_video_decisions set decision_type = 'nope' where user_id = %s", (ME,))
    db.execute(
        "insert into user_video_decisions (user_id, video_id, decision_type) values (%s, %s, 'like')",
        (WORLD.no_decisions, LIKED),
    )
    db.execute("reset session_replication_role")
    assert pending(db) != (0, 0)
    for table in tables:
        prefixed = "select attname from pg_attribute where attrelid = %s::regclass and attname ~ '^[cvp]_'"
        dropped = [sql.SQL("drop {}").format(sql.Identifier(name)) for name in column(db, prefixed, table)]
        db.execute(sql.SQL(f"alter table {table} ") + sql.SQL(", ").join(dropped))
    refresh(db)
    assert_fresh(db)
    assert column(db, "select what from two_tower.problems") == []
    assert len(client.rpc("authenticated", ME, "recommend_videos", limit=20)) == 20
    assert len(client.rpc("anon", None, "similar_videos", video_id=LIKED, limit=20)) == 20
    db.execute("select two_tower.update_popularity()")
    dataset.read(db)


@pytest.mark.parametrize(
    "change", ["drop created_at", "rename created_at to since", "alter created_at type json using '{}'"]
)
def test_profiles_need_not_say_since_when_later_either(change: str, db: Connection, client: Client) -> None:
    db.execute(
        f"alter table profiles alter created_at drop default, {change}".encode()
        if "type" in change
        else f"alter table profiles {change}".encode()
    )
    payload = one(db, "select features from two_tower.user_payloads(array[%s])", ME)
    assert payload["account_age_days"] is None
    assert payload["like_count"] == 1
    assert len(client.rpc("authenticated", ME, "get_user_embedding_features", user_id=ME)) == 1


def test_unknown_decision_words_are_named(db: Connection) -> None:
    db.execute("alter table user_video_decisions drop constraint user_video_decisions_decision_type_check")
    db.execute("update user_video_decisions set decision_type = 'it''s love' where decision_type = 'nope'")
    db.execute("update user_video_decisions set decision_type = ' LIKE' where decision_type = 'like'")
    refresh(db)
    db.execute("analyze user_video_decisions")
    ((detail, remedy),) = db.execute(
        "select detail, remedy from two_tower.problems where what = 'unknown_decisions'"
    ).fetchall()
    assert detail.startswith("decisions are called 'it''s love', and count as nothing")
    before = state(db)
    db.execute(remedy.encode())
    refresh(db)
    assert state(db) == before
    assert one(db, "select count(*) from two_tower.problems") == 0


def test_what_a_table_of_ours_refuses_is_still_refused(db: Connection) -> None:
    for change in ("price = -1", "price = 1e12", "price = 'NaN'", "duration_seconds = -1"):
        with pytest.raises(psycopg.IntegrityError):
            db.execute(f"update videos set {change} where id = %s".encode(), (LIKED,))


# ------------------------------------------------------------------------------------------------ operators' settings

SETTINGS = (
    "1e400", "-1e400", "1e-400", "1e308", "-1", "0", "-0.0", "0.5", "1", "1.5", "1000", "5000", "1e9", "9" * 20, "true",
    "false", "null", '""', '" "', '"abc"', '"NaN"', '"Infinity"', '"1"', '"１"', '"auto"', '"sql"', '"onnxruntime"',
    '"AUTO"', '"true"', '"as_written"', '"normalised"', "[]", "[1]", "{}", '{"value": 1}', f'"{"9" * 9000}"',
)  # fmt: skip
NO_JSON = ("", " ", "abc", "NaN", "Infinity", "１", "'1'", "0x10", "1,5")
GATE = ("select two_tower.gate_metrics('v1')", "select two_tower.gate_model('v1')")
STATUS = ("select count(*) from two_tower.problems", "select count(*) from two_tower.status")
POPULARITY = ("select two_tower.update_popularity()",)
TUNING = ("select two_tower.tune_search('v1')",)
LIST = ("select count(*) from public.popular_videos_now(5)",)
READERS = {
    "inference_engine": (),
    "popularity_half_life_days": POPULARITY,
    "model_max_bytes": ("select two_tower.model_setting('model_max_bytes')",),
    "gate_max_drop": GATE[:1],
    "gate_over_popularity": GATE[:1],
    "gate_min_recall_at_20": GATE[:1],
    "gate_min_ndcg_at_20": GATE[:1],
    "gate_min_recall": GATE[1:],
    "search_min_recall": TUNING,
    "gate_max_distance": GATE[1:],
    "gate_sample": (*GATE[1:], *TUNING),
    "status_max_lag_seconds": STATUS,
    "status_expects_jobs": STATUS,
    "least_likers": LIST,
    "impressions_kept_days": ("select two_tower.model_setting('impressions_kept_days')",),
    "shown_again_after_hours": ("select two_tower.model_setting('shown_again_after_hours')",),
    "shown_per_day": ("select two_tower.model_setting('shown_per_day')",),
    "freshness_half_life_days": LIST,
    "exploration_share": ("select two_tower.draw_exploration()", *LIST),
    "gate_max_replay_drop": GATE[:1],
    "most_decisions": POPULARITY,
    "product_urls": (),
}
"""By setting: what reads it, but for registrations, which tests/test_artifacts.py has."""


def refusal(db: Connection, query: str, *values: object) -> psycopg.Error | None:
    try:
        with db.transaction():
            db.execute(query.encode(), values)
    except psycopg.Error as error:
        return error
    return None


def test_no_value_of_a_setting_breaks_what_reads_it(db: Connection, request: pytest.FixtureRequest) -> None:
    """Either it is refused where it is set, in a sentence that says what is allowed, or everything has an answer;
    without ``--soak``, every third value that is allowed is read."""
    every = 1 if request.config.getoption("--soak") else 3
    before = db.execute("select name, value from two_tower.settings order by name").fetchall()
    assert {name for name, _ in before} == READERS.keys()
    set_to = "update two_tower.settings set value = %s where name = %s"
    db.execute("set role service_role")
    for name, readers in READERS.items():
        accepted = 0
        for value in (*SETTINGS, None):
            with db.transaction(force_rollback=True):
                error = refusal(db, set_to, value, name)
                if error is None:
                    for reader in readers if accepted % every == 0 else ():
                        db.execute(reader.encode())
                    accepted += 1
                else:
                    assert isinstance(error, errors.InvalidParameterValue), (name, value)
                    assert str(error).startswith(f"the setting {name} must be "), (name, value)
        assert accepted > 1
        for value in NO_JSON:
            assert isinstance(refusal(db, set_to, value, name), errors.InvalidTextRepresentation)
        for query in ("delete from two_tower.settings", "update two_tower.settings set name = 'x'"):
            error = refusal(db, f"{query} where name = %s", name)
            assert str(error).startswith(f"the setting {name} can be neither removed nor renamed")
    assert db.execute("select name, value from two_tower.settings order by name").fetchall() == before


def test_readers_refuse_an_invalid_setting_that_bypassed_its_trigger(db: Connection) -> None:
    """A session without triggers may write it. A refresh goes on."""
    db.execute("set session_replication_role = replica")
    db.execute("update two_tower.settings set value = '1e400'")
    db.execute("reset session_replication_role")
    said = r"the setting \w+ must be a (whole )?number from [-0-9.]+ to \d+, and is 1000"
    for reader in (*GATE, *STATUS[:1], *POPULARITY, *TUNING):
        with pytest.raises(errors.InvalidParameterValue, match=said):
            db.execute(reader.encode())
    db.execute("update two_tower.job_runs set started_at = started_at - interval '2 days'")
    db.execute("update videos set price = 1 where id = %s", (LIKED,))
    refresh(db)
    assert pending(db) == (0, 0)
