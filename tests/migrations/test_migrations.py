"""Migrations go forward, back and forward again; they adopt an application's objects, and report conflicts."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

import catalogue_dump
from conftest import Connect, Connection, NewDatabase, in_database
from tiers import some
from two_tower.errors import UserError
from two_tower.server import contract, migrate
from two_tower.server.embedded import Server
from world_fixtures import column, load, make_world, one, tiny_model

Change = Callable[[str, str], None]
WORLD = make_world()
SQL_IDS = sorted(p.name.removesuffix(".sql") for p in migrate.MIGRATIONS.glob("*.sql") if "rollback" not in p.name)
IDS = ["0000.preflight", *SQL_IDS]

# Everything that a migration could leave behind, except roles, yoyo's tables, which record what was applied, and the
# extensions with their schema, which the application may use by now.
LEFTOVERS = """
select 'schema ' || nspname from pg_namespace
where nspname !~ '^pg_' and nspname not in ('information_schema', 'extensions')
union all
select 'relation ' || c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and c.relname !~ 'yoyo'
union all
select 'type ' || t.oid::regtype::text from pg_type t join pg_namespace n on n.oid = t.typnamespace
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and t.typname !~ 'yoyo'
    and not exists (
        select from pg_depend d where d.classid = 'pg_type'::regclass and d.objid = t.oid
            and (d.deptype = 'e' or d.deptype = 'i' and d.refclassid = 'pg_type'::regclass)
    )
union all
select 'routine ' || p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    and not exists (
        select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
    )
union all
select 'trigger ' || tgname || ' on ' || tgrelid::regclass::text from pg_trigger where not tgisinternal
union all
select 'policy ' || polname || ' on ' || polrelid::regclass::text from pg_policy
union all
select 'default privileges ' || defaclacl::text from pg_default_acl
union all
select 'event trigger ' || evtname from pg_event_trigger
order by 1
"""


@pytest.fixture
def bindir(cluster: Server) -> Path:
    return cluster.installation.bindir


@pytest.fixture
def empty(empty_dsn: str) -> Connection:
    """A connection to ``empty_dsn`` in autocommit mode; closed with its database."""
    return psycopg.connect(empty_dsn, autocommit=True)


@pytest.fixture
def other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Change:
    """``other_files(old, new)`` replaces a text in a copy of the migrations, which ``migrate`` then uses."""

    def change(old: str, new: str) -> None:
        copy = tmp_path / "migrations"
        shutil.copytree(migrate.MIGRATIONS, copy)
        changed = 0
        for path in copy.glob("*.sql"):
            text = path.read_text()
            changed += text.count(old)
            path.write_text(text.replace(old, new))
        assert changed == 1
        monkeypatch.setattr(migrate, "MIGRATIONS", copy)

    return change


# -------------------------------------------------------------------------------------------- there and back


def without_row_security(dump: str) -> str:
    """Our own tables keep row level security after their policies are dropped, so that only the owner can read them."""
    return re.sub(r"ALTER TABLE two_tower\.\w+ ENABLE ROW LEVEL SECURITY;\n+", "", dump).rstrip()


def test_migrating_back_to_zero_and_forward_gives_the_same_database(dsn: str, bindir: Path) -> None:
    fresh = catalogue_dump.schema(bindir, dsn)
    assert migrate.migrate(dsn, to="0") == {"applied": [], "rolled_back": IDS[::-1]}
    assert migrate.migrate(dsn) == {"applied": IDS, "rolled_back": []}
    assert catalogue_dump.schema(bindir, dsn) == fresh


def test_migrating_back_to_zero_leaves_nothing(empty: Connection, empty_dsn: str) -> None:
    before = column(empty, LEFTOVERS)
    migrate.migrate(empty_dsn)
    assert len(column(empty, LEFTOVERS)) > len(before) + 100
    migrate.migrate(empty_dsn, to="0")
    assert column(empty, LEFTOVERS) == before


@pytest.mark.soak
def test_every_migration_goes_back_and_forward(dsn: str, bindir: Path) -> None:
    def state() -> str:
        return without_row_security(catalogue_dump.schema(bindir, dsn))

    fresh = state()
    states: dict[str, str] = {}
    for previous, step in reversed(list(zip(["0", *IDS[:-1]], IDS, strict=True))):
        if step != IDS[-1]:
            states[step] = state()
        assert migrate.migrate(dsn, to=previous) == {"applied": [], "rolled_back": [step]}
    for step in IDS:
        # By number alone, as in the documentation.
        assert migrate.migrate(dsn, to=step.split(".")[0]) == {"applied": [step], "rolled_back": []}
        assert state() == states.get(step, fresh)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("start", IDS[:-1])
def test_an_upgraded_database_equals_a_fresh_one(start: str, dsn: str, empty_dsn: str, bindir: Path) -> None:
    """The upgrade can be rolled back, too."""
    later = IDS[IDS.index(start) + 1 :]
    migrate.migrate(empty_dsn, to=start)
    assert migrate.pending(empty_dsn) == later
    before = catalogue_dump.schema(bindir, empty_dsn)
    assert migrate.migrate(empty_dsn)["applied"] == later
    assert catalogue_dump.schema(bindir, empty_dsn) == catalogue_dump.schema(bindir, dsn)
    assert migrate.migrate(empty_dsn, to=start)["rolled_back"] == later[::-1]
    assert without_row_security(catalogue_dump.schema(bindir, empty_dsn)) == without_row_security(before)


def test_migrating_twice_changes_nothing(world_dsn: str, bindir: Path) -> None:
    with psycopg.connect(world_dsn, autocommit=True) as db:
        db.execute("update two_tower.settings set value = '7' where name = 'popularity_half_life_days'")
        granted = catalogue_dump.privileges(db)
    before = catalogue_dump.schema(bindir, world_dsn, data=True)
    assert migrate.migrate(world_dsn) == {"applied": [], "rolled_back": []}
    assert catalogue_dump.schema(bindir, world_dsn, data=True) == before
    with psycopg.connect(world_dsn, autocommit=True) as db:
        assert catalogue_dump.privileges(db) == granted


def test_a_database_in_use_can_be_migrated_back(world_dsn: str) -> None:
    migrate.migrate(world_dsn, to="0")
    with psycopg.connect(world_dsn, autocommit=True) as db:
        assert one(db, "select to_regclass('public.videos') is null and to_regnamespace('two_tower') is null")
    migrate.migrate(world_dsn)
    with psycopg.connect(world_dsn, autocommit=True) as db:
        assert one(db, "select count(*) from public.videos") == 0


@pytest.mark.parametrize("many", some([4, 20], 1))
def test_concurrent_migrations_apply_once(many: int, empty_dsn: str, dsn: str, bindir: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["two_tower.server.migrate"])
    with ProcessPoolExecutor(many, mp_context=context) as pool:
        results = list(pool.map(migrate.migrate, [empty_dsn] * many))
    assert sorted(result["applied"] for result in results) == [[]] * (many - 1) + [IDS]
    assert catalogue_dump.schema(bindir, empty_dsn) == catalogue_dump.schema(bindir, dsn)


def plain_yoyo(dsn: str, names: list[str]) -> subprocess.CompletedProcess[str]:
    """``yoyo apply`` of those migrations, without two-tower."""
    parts = urlsplit(dsn)
    uri = f"postgresql+psycopg://{parts.username}@{parts.path}?{parts.query}"
    match = "|".join(re.escape(name) for name in names)
    command = [str(Path(sys.executable).parent / "yoyo"), "apply", "--batch", "--no-config-file", "--match", match]
    return subprocess.run(
        [*command, "--database", uri, "migrations"], cwd=migrate.MIGRATIONS.parent, capture_output=True, text=True
    )


def test_plain_yoyo_builds_everything(empty_dsn: str, dsn: str, bindir: Path) -> None:
    done = plain_yoyo(empty_dsn, IDS)
    assert done.returncode == 0, done.stderr
    assert catalogue_dump.schema(bindir, empty_dsn) == catalogue_dump.schema(bindir, dsn)
    with psycopg.connect(empty_dsn) as found, psycopg.connect(dsn) as expected:
        assert catalogue_dump.privileges(found) == catalogue_dump.privileges(expected)


def test_an_unknown_target_is_refused(dsn: str) -> None:
    with pytest.raises(UserError, match=r"no migration '0042'"):
        migrate.migrate(dsn, to="0042")


def test_a_migration_that_fails_leaves_no_trace(empty: Connection, empty_dsn: str, other_files: Change) -> None:
    other_files(
        "create table two_tower.change_failures (", "create table two_tower.nonsense (nonsense); create table x ("
    )
    with pytest.raises(psycopg.Error):
        migrate.migrate(empty_dsn)
    assert migrate.pending(empty_dsn) == IDS
    assert one(empty, "select to_regnamespace('two_tower') is null and to_regclass('public.videos') is null")


# -------------------------------------------------------------------------------------------- adoption

APPLICATION = """
create schema auth;
create table auth.users (id uuid primary key, email text);
create table public.videos (
    id uuid primary key, product_url text unique, title varchar(200), description text, maker text, label text,
    series text, source text, thumbnail_url text, price integer, duration_seconds int,
    distribution_started_at timestamptz, product_released_at timestamptz, published_at timestamptz,
    created_at timestamptz default now(), our_own_column text
);
create table public.tags (id uuid primary key, name text, colour text);
create table public.performers (id uuid primary key, name text);
create table public.video_tags (
    video_id uuid references videos, tag_id uuid references tags, primary key (video_id, tag_id)
);
create table public.video_performers (video_id uuid, performer_id uuid, primary key (video_id, performer_id));
create table public.profiles (user_id uuid primary key, created_at timestamptz, nickname text);
create table public.user_video_decisions (
    user_id uuid not null, video_id uuid not null, decision_type text not null, created_at timestamptz, device text,
    primary key (user_id, video_id)
);
create table public.user_features (
    user_id uuid primary key, liked_tags jsonb default '{}', liked_performers jsonb default '{}',
    updated_at timestamptz, like_count int not null default 0
);
alter table public.profiles enable row level security;
create policy theirs on public.profiles for select using (true);
create index our_own_index on public.videos (our_own_column);
insert into auth.users values ('00000000-0000-0000-0000-000000000001', 'a@example.org');
insert into public.videos (id, product_url, title, price, our_own_column, published_at)
values ('00000000-0000-0000-0000-00000000000a', 'https://v.example/a', 'A', 5, 'x', '2025-01-01');
insert into public.tags values ('00000000-0000-0000-0000-0000000000aa', 'tag', 'red');
insert into public.video_tags values ('00000000-0000-0000-0000-00000000000a', '00000000-0000-0000-0000-0000000000aa');
insert into public.profiles values ('00000000-0000-0000-0000-000000000001', '2025-01-01', 'nick');
insert into public.user_video_decisions
values ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-00000000000a', 'like', '2025-02-01', 'phone');
"""
EXTENSIONS = "create schema extensions; create extension vector with schema extensions; create extension plpython3u;"


def test_existing_tables_are_adopted_and_returned_unchanged(
    template: str, empty: Connection, empty_dsn: str, bindir: Path
) -> None:
    empty.execute(APPLICATION + EXTENSIONS)
    before = catalogue_dump.schema(bindir, empty_dsn, data=True)
    granted = catalogue_dump.privileges(empty, ("public", "auth"))
    migrate.migrate(empty_dsn)
    assert empty.execute("select title, price, our_own_column from public.videos").fetchall() == [("A", 5, "x")]
    assert column(empty, "select name from two_tower.created_objects where kind = 'table' order by 1") == [
        "two_tower.user_features"
    ]
    assert not one(empty, "select relrowsecurity from pg_class where oid = 'public.videos'::regclass")
    # Adopted tables work: the first refresh includes earlier decisions, and writes to our own table of features.
    empty.execute("call two_tower.refresh()")
    tag = "00000000-0000-0000-0000-0000000000aa"
    assert one(empty, "select liked_tags from two_tower.user_features") == {tag: 1}
    assert one(empty, "select count(*) from public.user_features") == 0
    migrate.migrate(empty_dsn, to="0")
    assert catalogue_dump.schema(bindir, empty_dsn, data=True) == before
    assert catalogue_dump.privileges(empty, ("public", "auth")) == granted


SPOILT = {
    "alter table public.videos drop column title": "public.videos.title is missing",
    "alter table public.tags drop column name": "public.tags.name is missing",
    "alter table public.profiles drop column user_id": "public.profiles has neither a user_id nor an id",
    "alter table public.performers alter column id type text": "public.performers.id is of type text",
    "alter table public.user_video_decisions alter column user_id type text": (
        "user_video_decisions.user_id is of type text"
    ),
    "alter table public.videos alter column price type bytea using null": "public.videos.price is of type bytea",
    "alter table public.videos alter column published_at type int using 0": (
        "public.videos.published_at is of type integer"
    ),
    "alter table public.user_video_decisions drop constraint user_video_decisions_pkey": (
        "no unique key on (user_id, video_id)"
    ),
    "alter table public.video_performers drop constraint video_performers_pkey": (
        "no unique key on (video_id, performer_id)"
    ),
    "alter table public.video_performers drop constraint video_performers_pkey, alter video_id drop not null": (
        "video_id may be null"
    ),
    "drop table public.video_performers; create view public.video_performers as "
    "select id as video_id, id as performer_id from public.videos": "public.video_performers is a view",
    "create table public.more (like public.video_performers including all) partition by hash (video_id); "
    "drop table public.video_performers; create table public.video_performers partition of public.more "
    "for values with (modulus 2, remainder 0)": "public.video_performers is part of an inheritance tree",
    "create foreign data wrapper elsewhere; create server there foreign data wrapper elsewhere; "
    "drop table public.video_performers; create foreign table public.video_performers "
    "(video_id uuid not null, performer_id uuid not null) server there": "public.video_performers is a foreign table",
    "create table public.more_videos () inherits (public.videos)": "public.videos is part of an inheritance tree",
    "create function public.update_user_features(uuid) returns void language sql as ''": "update_user_features(uuid)",
    "create function public.get_user_embedding_features(u uuid) returns jsonb language sql as 'select null::jsonb'": (
        "get_user_embedding_features(uuid)"
    ),
    "create schema two_tower; create table two_tower.flights (id int)": "there is a schema two_tower already",
    "create schema two_tower": "there is a schema two_tower already",
    "create function auth.uid() returns uuid language sql as 'select null::uuid'; "
    "create function auth.uid(x int default 1) returns uuid language sql as 'select null::uuid'": (
        "auth.uid() may mean more than one function"
    ),
    "create function public.recommend_videos(a int, b uuid[] default null, c real default 0, d int default 1) "
    "returns int language sql as 'select 1'": "which some calls could not tell from our recommend_videos",
    "create function public.similar_videos(a uuid) returns int language sql as 'select 1'": (
        "which some calls could not tell from our similar_videos"
    ),
    "create function public.embed_user() returns int language sql as 'select 1'": (
        "which some calls could not tell from our embed_user"
    ),
    "drop table public.video_tags, public.tags; create unlogged table public.tags (id uuid primary key, name text)": (
        "public.tags is unlogged"
    ),
    "create function auth.uid() returns text language sql as 'select null::text'": "auth.uid() does not return uuid",
}


@pytest.mark.sampled(5)
@pytest.mark.parametrize("spoil", SPOILT)
def test_conflicting_objects_are_named_before_anything_is_written(
    spoil: str, empty: Connection, empty_dsn: str, bindir: Path
) -> None:
    empty.execute(APPLICATION.encode())
    empty.execute(spoil.encode())
    before = catalogue_dump.schema(bindir, empty_dsn, data=True)
    with pytest.raises(UserError, match=re.escape(SPOILT[spoil])) as caught:
        migrate.migrate(empty_dsn)
    assert "→" in caught.value.message
    assert catalogue_dump.schema(bindir, empty_dsn, data=True) == before


def test_all_conflicts_are_reported_at_once(empty: Connection, empty_dsn: str) -> None:
    empty.execute(APPLICATION.encode())
    # Conflicts that one database can have at once.
    together = [
        spoil
        for spoil in SPOILT
        if not any(word in spoil for word in ("performers", "inherits", "auth.uid", "unlogged"))
        and spoil != "create schema two_tower"
    ]
    for spoil in together:
        empty.execute(spoil.encode())
    with pytest.raises(UserError) as caught:
        migrate.migrate(empty_dsn)
    assert [SPOILT[spoil] for spoil in together if SPOILT[spoil] not in caught.value.message] == []
    problems = migrate.check(empty_dsn).problems
    assert len(problems) >= len(together)
    assert all(problem.remedy for problem in problems)


@pytest.mark.parametrize("encoding", ["EUC_JP", "SQL_ASCII", "LATIN1"])
def test_a_database_of_another_encoding_is_refused(encoding: str, cluster: Server) -> None:
    name = f"test_{encoding.lower()}_{os.getpid()}"
    with psycopg.connect(cluster.dsn, autocommit=True) as connection:
        connection.execute(f"create database {name} template template0 encoding '{encoding}' locale 'C'".encode())
        try:
            with pytest.raises(UserError, match=f"the encoding of this database is {encoding}"):
                migrate.migrate(in_database(cluster.dsn, name))
        finally:
            connection.execute(f"drop database {name} with (force)".encode())


NAMED = """
create table public.user_embeddings (user_id uuid primary key, embedding real[]);
create table public.video_embeddings (video_id uuid primary key, embedding real[]);
create table public.user_features (user_id uuid primary key, liked_tags jsonb);
create function public.update_user_features(uuid) returns void language sql as '';
insert into public.user_embeddings values ('00000000-0000-0000-0000-000000000001', '{1,2}');
"""
ASIDE = ["user_embeddings", "video_embeddings", "user_features"]


def test_existing_relations_keep_their_names_and_ours_are_in_two_tower(
    empty: Connection, empty_dsn: str, bindir: Path
) -> None:
    empty.execute(EXTENSIONS + NAMED.replace("create function", "-- create function"))
    before = catalogue_dump.schema(bindir, empty_dsn, data=True)
    report = migrate.check(empty_dsn)
    assert "public.user_embeddings is yours and stays; ours is two_tower.active_user_embeddings alone" in report.changes
    migrate.migrate(empty_dsn)
    assert one(empty, "select embedding from public.user_embeddings") == [1, 2]
    for name in ("active_user_embeddings", "active_video_embeddings", "user_features"):
        assert one(empty, f"select count(*) from two_tower.{name}") == 0
    migrate.migrate(empty_dsn)
    migrate.migrate(empty_dsn, to="0")
    assert catalogue_dump.schema(bindir, empty_dsn, data=True) == before


def test_names_are_taken_on_request_and_given_back(empty: Connection, empty_dsn: str, bindir: Path) -> None:
    empty.execute(EXTENSIONS + NAMED)
    before = catalogue_dump.schema(bindir, empty_dsn, data=True)
    said: list[str] = []
    migrate.migrate(empty_dsn, take_names=True, say=said.append)
    assert (
        "public.user_features is renamed to user_features_before_two_tower, and a table of ours takes its name" in said
    )
    assert one(empty, "select embedding from public.user_embeddings_before_two_tower") == [1, 2]
    for name in ASIDE:
        assert one(empty, f"select count(*) from public.{name}") == 0
    assert one(empty, "select to_regprocedure('public.update_user_features_before_two_tower(uuid)') is not null")
    migrate.migrate(empty_dsn)
    migrate.migrate(empty_dsn, to="0")
    assert catalogue_dump.schema(bindir, empty_dsn, data=True) == before


def test_profiles_keyed_by_id_are_supported(empty: Connection, empty_dsn: str, bindir: Path) -> None:
    """As in Supabase's template, whose profiles have no creation time either."""
    empty.execute(EXTENSIONS)
    empty.execute(
        """create schema auth;
        create table auth.users (id uuid primary key default gen_random_uuid(), created_at timestamptz default now());
        create table public.profiles (id uuid primary key references auth.users on delete cascade, username text);
        insert into auth.users default values; insert into public.profiles select id from auth.users"""
    )
    before = catalogue_dump.schema(bindir, empty_dsn, data=True)
    migrate.migrate(empty_dsn)
    assert one(empty, "select user_id = (select id from auth.users) from two_tower.accounts()")
    assert (
        one(
            empty,
            "select features -> 'account_age_days' from two_tower.user_payloads(array(select id from auth.users))",
        )
        is None
    )
    migrate.migrate(empty_dsn, to="0")
    assert catalogue_dump.schema(bindir, empty_dsn, data=True) == before


def test_objects_that_depend_on_ours_are_reported_and_kept(empty: Connection, empty_dsn: str) -> None:
    migrate.migrate(empty_dsn)
    empty.execute("create view public.theirs as select two_tower.active_version() as version")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="other objects depend on them") as caught:
        migrate.migrate(empty_dsn, to="0")
    assert "theirs" in str(caught.value)
    assert one(empty, "select version from public.theirs") is None


# -------------------------------------------------------------------------------------------- in one piece


class Stopped(Exception):  # noqa: N818 - an end like that of a killed process
    pass


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int, how: str) -> list[int]:
    """Ends a migration at its statement of that number, by an error in the program or by killing its session.

    The list that it returns grows with each statement."""
    seen: list[int] = []
    plain = psycopg.Cursor.execute

    def execute(self: psycopg.Cursor[Any], *arguments: Any, **named: Any) -> Any:
        if self.connection.info.get_parameters().get("application_name") == "two-tower migrate":
            seen.append(len(seen) + 1)
            if len(seen) == number and how == "stopped":
                raise Stopped
            if len(seen) == number:
                plain(self, "select pg_terminate_backend(pg_backend_pid())")
        return plain(self, *arguments, **named)

    monkeypatch.setattr(psycopg.Cursor, "execute", execute)
    return seen


OPEN = """
select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname in ('public', 'two_tower', 'auth') and c.relkind in ('r', 'p') and not c.relrowsecurity
"""
"""Tables without row level security. All of the application's own tables have it."""


@pytest.mark.sampled(1)
@pytest.mark.parametrize("how", ["stopped", "killed"])
@pytest.mark.parametrize("target", [None, "0"], ids=["forward", "back"])
def test_a_migration_killed_at_any_statement_changes_nothing(
    how: str,
    target: str | None,
    database: NewDatabase,
    bindir: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """At each of some statements from the first to the last; with ``--soak`` at every one."""
    rehearsal, dsn = database(empty=True), database(empty=True)
    for each in (rehearsal, dsn):
        with psycopg.connect(each, autocommit=True) as db:
            db.execute(EXTENSIONS + NAMED)
            for name in ASIDE:
                db.execute(f"alter table public.{name} enable row level security")
        if target is not None:
            migrate.migrate(each, take_names=True)
    before = catalogue_dump.schema(bindir, dsn, data=True)
    with monkeypatch.context() as patch:
        seen = stop_at(patch, 0, how)
        migrate.migrate(rehearsal, target, take_names=True)
    assert len(seen) > 100
    stops = seen if request.config.getoption("--soak") else [*seen[:: len(seen) // 4], seen[-1]]
    for stop in stops:
        with monkeypatch.context() as patch:
            stop_at(patch, stop, how)
            with pytest.raises((Stopped, psycopg.Error)):
                migrate.migrate(dsn, target, take_names=True)
        with psycopg.connect(dsn) as db:
            assert column(db, OPEN) == [], stop
    assert catalogue_dump.schema(bindir, dsn, data=True) == before
    migrate.migrate(dsn, target, take_names=True)
    assert catalogue_dump.schema(bindir, dsn) == catalogue_dump.schema(bindir, rehearsal)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("last", SQL_IDS)
def test_yoyo_stopped_after_any_migration_leaves_no_table_without_row_security(
    last: str, supabase: Connection, empty_dsn: str
) -> None:
    """Each migration enables row level security on the tables that it creates."""
    names = [name for name in IDS if name <= last]
    done = plain_yoyo(empty_dsn, names)
    assert done.returncode == 0, done.stderr
    assert column(supabase, OPEN) == []
    may = column(
        supabase,
        """select c.oid::regclass || ' ' || r.name
        from pg_class c cross join unnest(array['anon', 'authenticated']) as r (name)
        where c.relkind in ('r', 'p') and (
            c.relnamespace = 'two_tower'::regnamespace
                and has_table_privilege(r.name, c.oid, 'insert, update, delete, truncate')
            or c.relnamespace = 'public'::regnamespace and has_table_privilege(r.name, c.oid, 'truncate')
        )""",
    )
    assert may == []


def test_two_tower_continues_a_migration_begun_by_yoyo(empty_dsn: str, dsn: str, bindir: Path) -> None:
    assert plain_yoyo(empty_dsn, IDS[:4]).returncode == 0
    assert migrate.migrate(empty_dsn)["applied"] == IDS[4:]
    assert catalogue_dump.schema(bindir, empty_dsn) == catalogue_dump.schema(bindir, dsn)
    assert migrate.migrate(empty_dsn, to="0")["rolled_back"] == IDS[::-1]


def test_a_newer_database_is_refused_by_an_older_program(dsn: str, db: Connection) -> None:
    db.execute(
        "update two_tower._yoyo_migration set migration_id = '0042.later' where migration_id = '0007.change-log'"
    )
    for verb in (migrate.migrate, migrate.check):
        with pytest.raises(UserError, match=r"this database is newer than this program: it has 0042\.later"):
            verb(dsn)


def test_a_migration_waits_for_the_application_without_blocking_it(dsn: str, db: Connection, connect: Connect) -> None:
    """Tables that have their triggers are not locked; for those that lack one, the lock is retried."""
    writer = connect(autocommit=False)
    writer.execute("lock table public.videos in row exclusive mode")
    migrate.migrate(dsn)
    db.execute("select 1")
    writer.rollback()
    db.execute("drop trigger two_tower_insert on public.videos")
    writer.execute("lock table public.videos in row exclusive mode")
    said: list[str] = []

    def let_go(line: str) -> None:
        said.append(line)
        writer.rollback()

    migrate.migrate(dsn, say=let_go)
    assert said == ["the application's tables are in use; trying again"]
    assert one(db, "select count(*) from pg_trigger where tgname = 'two_tower_insert'") == 4


def test_a_migration_that_waits_for_another_says_so(dsn: str, connect: Connect) -> None:
    other = connect(autocommit=False)
    said: list[str] = []

    def let_go(line: str) -> None:
        said.append(line)
        other.rollback()

    for verb in (migrate.migrate, migrate.check):
        other.execute("select pg_advisory_xact_lock(%s)", (migrate.LOCK,))
        verb(dsn, say=let_go)
        waits = (
            rf"waiting for another migration: process {other.info.backend_pid} \(.+\), whose transaction began at .+"
        )
        assert re.fullmatch(waits, said.pop(0)), said


DEFAULTS = {
    "strings": ["standard_conforming_strings = off", "backslash_quote = on", "array_nulls = off"],
    "dates": ["datestyle = 'German, DMY'", "timezone = 'Asia/Tokyo'", "intervalstyle = 'iso_8601'"],
    "transactions": ["default_transaction_isolation = serializable", "default_transaction_read_only = on"],
    "limits": [
        "statement_timeout = '100ms'",
        "lock_timeout = '100ms'",
        "idle_in_transaction_session_timeout = '100ms'",
    ],
    "names": ["search_path = 'nowhere'", "quote_all_identifiers = on"],
    "encoding": ["client_encoding = 'SJIS'", "bytea_output = 'escape'", "extra_float_digits = 0"],
}


@pytest.mark.parametrize("defaults", some([list(DEFAULTS), *([name] for name in DEFAULTS)], 1), ids=["all", *DEFAULTS])
def test_defaults_of_a_database_do_not_change_the_migrated_schema(
    defaults: list[str], empty_dsn: str, dsn: str, bindir: Path, cluster: Server
) -> None:
    name = urlsplit(empty_dsn).path.removeprefix("/")
    with psycopg.connect(cluster.dsn, autocommit=True) as connection:
        for setting in (setting for each in defaults for setting in DEFAULTS[each]):
            connection.execute(f"alter database {name} set {setting}".encode())
    migrate.migrate(empty_dsn)
    migrate.migrate(empty_dsn)
    with psycopg.connect(cluster.dsn, autocommit=True) as connection:
        connection.execute(f"alter database {name} reset all".encode())
    assert catalogue_dump.schema(bindir, empty_dsn) == catalogue_dump.schema(bindir, dsn)


def test_a_changed_signature_notifies_postgrest(dsn: str, db: Connection) -> None:
    db.execute("listen pgrst")
    migrate.migrate(dsn)
    assert list(db.notifies(timeout=0.2)) == []
    db.execute("drop function public.rank_candidates(uuid[], boolean)")
    migrate.migrate(dsn)
    assert [n.payload for n in db.notifies(timeout=5, stop_after=1)] == ["reload schema"]


SUPABASE = """
create schema auth;
create table auth.users (
    instance_id uuid, id uuid primary key, aud varchar(255), role varchar(255), email varchar(255),
    encrypted_password varchar(255),
    raw_user_meta_data jsonb, is_super_admin boolean, created_at timestamptz, updated_at timestamptz, phone text unique
);
alter table auth.users enable row level security;
grant usage on schema auth to anon, authenticated, service_role;
create function auth.uid() returns uuid language sql stable as $$
    select coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''),
        (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'))::uuid
$$;
grant usage on schema public to anon, authenticated, service_role;
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
grant usage on schema extensions to public;
alter default privileges in schema extensions grant all on functions to anon, authenticated, service_role;
"""


@pytest.fixture
def supabase(cluster: Server, template: str, empty: Connection) -> Connection:
    """An empty database with Supabase's objects. The roles exist, since another database was migrated."""
    empty.execute(EXTENSIONS + SUPABASE)
    return empty


def test_on_supabase_no_existing_object_is_created(supabase: Connection, empty_dsn: str, bindir: Path) -> None:
    theirs = "--schema=auth"
    command: list[str | Path] = [bindir / "pg_dump", theirs, empty_dsn]
    before = subprocess.run(command, capture_output=True, check=True).stdout
    migrate.migrate(empty_dsn)
    after = subprocess.run(command, capture_output=True, check=True).stdout
    assert _without_nonce(after) == _without_nonce(before)
    made = column(
        supabase, "select name from two_tower.created_objects where name !~ '^public[.]' and kind <> 'column'"
    )
    assert made == []


def test_on_supabase_default_privileges_grant_nothing_of_ours(
    supabase: Connection, empty_dsn: str, db: Connection
) -> None:
    migrate.migrate(empty_dsn)
    assert catalogue_dump.privileges(supabase) == catalogue_dump.privileges(db)


def _without_nonce(dump: bytes) -> bytes:
    return re.sub(rb"(?m)^\\(un)?restrict .*$", b"", dump)


# -------------------------------------------------------------------------------------------- what can be wrong


def test_a_missing_extension_is_refused_with_its_package(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "VECTOR", "two_tower_no_such")
    monkeypatch.setitem(contract.EXTENSIONS, "two_tower_no_such", "postgresql-{}-no-such")
    with pytest.raises(
        UserError, match=r"two_tower_no_such is not installed.*\n.*install the package postgresql-\d+-no-such"
    ):
        migrate.migrate(empty_dsn)


def test_an_unsupported_server_version_is_refused(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "OLDEST", 98)
    monkeypatch.setattr(contract, "NEWEST", 99)
    with pytest.raises(UserError, match=r"runs on PostgreSQL 98 to 99; this server is \d+"):
        migrate.migrate(empty_dsn)


def test_an_old_pgvector_is_refused(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "VECTOR_NEEDED", (99, 0, 0))
    with pytest.raises(UserError, match=r"pgvector is .*; 0\.8\.0 or newer is needed"):
        migrate.migrate(empty_dsn)


@pytest.mark.parametrize("schema", some(["Their own", "public"], 1))
def test_pgvector_may_be_in_any_schema(schema: str, empty: Connection, empty_dsn: str) -> None:
    empty.execute(f'create schema if not exists "{schema}"; create extension vector with schema "{schema}"'.encode())
    migrate.migrate(empty_dsn)
    load(empty, WORLD)
    tiny_model(empty)
    assert one(
        empty,
        """select count(*)
        from two_tower.recommend_batch(array(select user_id from two_tower.active_user_embeddings), 5)""",
    )
    assert one(empty, "select to_regnamespace('extensions')") is None
    migrate.migrate(empty_dsn, to="0")
    assert one(
        empty, "select extnamespace = %s::regnamespace from pg_extension where extname = 'vector'", f'"{schema}"'
    )


def test_a_role_without_privileges_is_told_which_grants_it_needs(
    template: str, empty: Connection, empty_dsn: str
) -> None:
    name = urlsplit(empty_dsn).path.removeprefix("/")
    role = f"{name}_owner"
    empty.execute(f"create role {role} login".encode())
    try:
        empty.execute(f"alter database {name} owner to {role}".encode())
        with pytest.raises(UserError, match="create extension vector"):
            migrate.migrate(in_database(empty_dsn, name, user=role))
        empty.execute(f"alter database {name} owner to postgres".encode())
        with pytest.raises(UserError, match=f"grant create on database {name} to {role}"):
            migrate.migrate(in_database(empty_dsn, name, user=role))
    finally:
        empty.execute(f"reassign owned by {role} to postgres; drop owned by {role}; drop role {role}".encode())


# -------------------------------------------------------------------------------------------- released migrations


def test_released_migrations_are_frozen() -> None:
    """A released migration never changes, because databases that have applied it would not get the change."""
    lines = (migrate.MIGRATIONS / "frozen.txt").read_text().splitlines()
    frozen = dict(line.split("  ")[::-1] for line in lines)
    names = {path.name for path in migrate.MIGRATIONS.glob("*.sql")}
    assert frozen.keys() <= names, f"released migrations were removed: {frozen.keys() - names}"
    changed = [name for name, digest in frozen.items() if migrate.checksum(migrate.MIGRATIONS / name) != digest]
    assert changed == [], "released migrations were edited; write a new one instead"
    assert names == frozen.keys(), "not in frozen.txt yet: (cd migrations && sha256sum *.sql > frozen.txt)"


def test_every_migration_has_a_rollback_and_its_dependencies() -> None:
    assert len(SQL_IDS) >= 7
    for previous, name in zip(IDS, SQL_IDS, strict=False):
        text = (migrate.MIGRATIONS / f"{name}.sql").read_text()
        assert (migrate.MIGRATIONS / f"{name}.rollback.sql").exists(), name
        assert re.search(rf"^-- depends: {previous}$", text, re.MULTILINE), name
        assert "%" not in text, f"{name}: a percent sign is a parameter to psycopg"
