"""After a user is deleted and refreshed, the id occurs nowhere in the database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from conftest import Connection, NewDatabase, Prepared, WorldOf
from two_tower.data.imports import import_decisions, import_reviews
from world_fixtures import ENGINE, column, make_world, one, random_model, refresh, register, schema_of

pytestmark = pytest.mark.world

WORLD = make_world()
STATES = {
    "v1": ("standby", True),
    "v2": ("active", True),
    "v3": ("staged", True),
    "v4": ("staged", False),
    "v5": ("rejected", False),
    "v6": ("candidate", False),
    "v7": ("retired", False),
}
"""Version → its state, and whether its tables are attached, so that refreshes write them. v3 is backfilled; v4 has
with videos in them, which nobody reads yet, and where no user's vector is before they are attached."""


@pytest.fixture
def lived_in(prepared: Prepared, database: NewDatabase, world_of: WorldOf) -> Iterator[Connection]:
    """A database with a version in every state."""
    with psycopg.connect(database(template=prepared(world_of(ENGINE, models=2), live)), autocommit=True) as db:
        yield db


def live(db: Connection) -> None:
    for version in ("v3", "v4", "v5", "v6", "v7"):
        register(db, random_model(schema_of(db), seed=int(version[1])), version)
    for version in ("v3", "v7"):
        db.execute("call two_tower.backfill_model(%s, true)", [version])
    db.execute("select two_tower.retire_model('v7')")
    db.execute("select two_tower.stage_model('v4', true)")
    db.execute("select two_tower.backfill_batch('v4', 'video')")
    db.execute("select two_tower.reject_model('v5', '{}')")
    found = db.execute("select version, state, attached_at is not null from two_tower.model_versions").fetchall()
    assert {version: (state, attached) for version, state, attached in found} == STATES
    assert one(db, "select count(*) from two_tower.video_embeddings_4") > 0


def tables_with(db: Connection, user: str | UUID) -> set[str]:
    """Every table of our schemas and the application's, attached or not, a row of which contains the id as text."""
    tables = db.execute(
        "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname in ('public', 'auth', 'two_tower') and c.relkind = 'r'"
    ).fetchall()
    assert len(tables) > 30
    found = set()
    for schema, name in tables:
        query = sql.SQL("select exists (select from {} t where t::text like any (%s))").format(
            sql.Identifier(schema, name)
        )
        spelled = str(user)
        if one(db, query.as_string(db), [f"%{spelled}%", f"%{spelled.replace('-', '')}%"]):
            found.add(f"{schema}.{name}")
    return found


def holding_users(db: Connection) -> set[str]:
    """Every table with a column for users: each uuid column unless its name says that it is of something else.
    Partitions count as their parent table."""
    return set(
        column(
            db,
            r"""select distinct format('%%I.%%I', n.nspname, c.relname)
            from pg_class c
            join pg_namespace n on n.oid = c.relnamespace
            join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            where n.nspname in ('public', 'auth', 'two_tower') and c.relkind in ('r', 'p') and not c.relispartition
                and a.atttypid in ('uuid'::regtype, 'uuid[]'::regtype)
                and a.attname !~ '(video|tag|performer|neighbour|list)_ids?$'
                and not (a.attname = 'id' and c.oid in ('videos'::regclass, 'tags'::regclass, 'performers'::regclass))
                -- Of versions that nobody reads yet.
                and c.relname !~ '_embeddings_[0-9]+$'""",
        )
    )


def whole_tables(db: Connection, names: set[str]) -> set[str]:
    """The names with partitions replaced by their parent table."""
    query = """select coalesce((
        select format('%%I.%%I', n.nspname, p.relname) from pg_inherits i
        join pg_class p on p.oid = i.inhparent join pg_namespace n on n.oid = p.relnamespace
        where i.inhrelid = to_regclass(t.name)
    ), t.name) from unnest(%s::text[]) as t (name)"""
    return set(column(db, query, sorted(names)))


def reviews_of(db: Connection, user: str | UUID, directory: Path) -> None:
    path = directory / "reviews.csv"
    address = one(db, "select product_url from public.videos order by id limit 1")
    path.write_text(f"reviewer_id,product_url,stars\n{user},{address},5\nsomebody else,{address},4\n")
    import_reviews(db, path)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("when", ["a user writes reviews", "a reviewer becomes a user", "a reviewer is made a user"])
def test_a_deleted_user_leaves_no_rows(
    lived_in: Connection, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = lived_in
    monkeypatch.chdir(tmp_path)
    user = WORLD.usual if when == "a user writes reviews" else UUID("abcdef01-2345-4789-8abc-def012345678")
    reviews_of(db, user, tmp_path)
    if when == "a reviewer becomes a user":
        db.execute("insert into auth.users (id) values (%s)", [user])
        db.execute("insert into public.user_video_decisions values (%s, %s, 'like')", [user, WORLD.videos[0]])
        db.execute("select two_tower.update_popularity()")
    elif when == "a reviewer is made a user":
        path = tmp_path / "decisions.csv"
        path.write_text(f"user_id,video_id,label\n{user},{WORLD.videos[0]},1\n")
        assert import_decisions(db, path, create_users=True).users_created == 1
    refresh(db)
    db.execute("insert into public.profiles (user_id) values (%s) on conflict do nothing", [user])
    with db.transaction():
        db.execute("select set_config('request.jwt.claims', json_build_object('sub', %s::text)::text, true)", [user])
        assert db.execute("select * from public.next_videos(3)").rowcount == 3
        db.execute("select public.set_choices(never_makers => '{maker a}')")
    # Set aside, and changed again since: the id is in every log.
    db.execute(
        "insert into two_tower.change_failures (kind, id, sqlstate, error, retry_at)"
        " values ('user', %s, 'XX000', 'no', now() + interval '1 day')",
        [user],
    )
    db.execute("insert into two_tower.user_changes (user_id) values (%s)", [user])
    db.execute("insert into public.user_video_decisions values (%s, %s, 'nope')", [user, WORLD.videos[-1]])
    versions = sorted(v for v, (_, attached) in STATES.items() if attached)
    query = "select model_version from two_tower.user_embeddings where user_id = %s order by 1"
    assert column(db, query, user) == versions
    numbers = {v: one(db, "select number from two_tower.model_versions where version = %s", v) for v in versions}
    assert tables_with(db, user) >= {
        "auth.users", "public.user_video_decisions", "public.user_features", "two_tower.reviews",
        "two_tower.impression_users", f"two_tower.impressions_{datetime.now(UTC):%Y%m%d}",
        "two_tower.change_failures", "two_tower.user_changes", "two_tower.user_change_log",
        *(f"two_tower.user_embeddings_{number}" for number in numbers.values()),
    }  # fmt: skip
    # All tables with users are in this test: a new one must be filled above and emptied below.
    assert whole_tables(db, tables_with(db, user)) == holding_users(db)
    others = one(db, "select count(*) from two_tower.reviews where reviewer_id <> %s", user)

    db.execute("delete from auth.users where id = %s", [user])
    refresh(db)
    assert tables_with(db, user) == set()
    assert one(db, "select count(*) from two_tower.training_set() where user_id = %s", user) == 0
    assert one(db, "select count(*) from two_tower.reviews") == others > 0


def test_only_failures_of_deleted_rows_are_dropped(db: Connection) -> None:
    gone = UUID("abcdef01-2345-4789-8abc-def012345678")
    for kind, key in (("user", gone), ("user", WORLD.usual), ("video", gone), ("video", WORLD.videos[0])):
        db.execute(
            "insert into two_tower.change_failures (kind, id, sqlstate, error, retry_at)"
            " values (%s, %s, 'XX000', 'no', now() + interval '1 day')",
            [kind, key],
        )
    # A vector that was left behind is deleted together with the recorded failure.
    db.execute(
        "insert into two_tower.user_embeddings select model_version, %s, embedding from"
        " two_tower.user_embeddings limit 1", [gone]
    )  # fmt: skip
    refresh(db)
    assert set(db.execute("select kind, id from two_tower.change_failures").fetchall()) == {
        ("user", UUID(str(WORLD.usual))), ("video", UUID(str(WORLD.videos[0])))}  # fmt: skip
    assert tables_with(db, gone) == set()
