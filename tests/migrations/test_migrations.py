"""Migrations go forward, back and forward again; they adopt what an application has, and say what is wrong."""

from __future__ import annotations

import multiprocessing
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

import catalogue_dump
from conftest import Connection, in_database
from two_tower import migrate, registry
from two_tower.errors import UserError
from two_tower.server import Server
from world_fixtures import column, make_world, one, random_model, register, schema_of

Change = Callable[[str, str], None]
WORLD = make_world()
IDS = sorted(p.name.removesuffix(".sql") for p in migrate.MIGRATIONS.glob("*.sql") if "rollback" not in p.name)

# Everything that a migration could leave behind, roles excepted. Not looked at: yoyo's tables, which say what was
# applied, and the extensions with their schema, which the application may have come to use.
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


def test_back_to_nothing_and_forward_again_is_the_same_database(dsn: str, bindir: Path) -> None:
    fresh = catalogue_dump.schema(bindir, dsn)
    assert migrate.migrate(dsn, to="0") == {"applied": [], "rolled_back": IDS[::-1]}
    assert migrate.migrate(dsn) == {"applied": IDS, "rolled_back": []}
    assert catalogue_dump.schema(bindir, dsn) == fresh


def test_back_to_nothing_leaves_nothing(empty: Connection, empty_dsn: str) -> None:
    before = column(empty, LEFTOVERS)
    migrate.migrate(empty_dsn)
    assert len(column(empty, LEFTOVERS)) > len(before) + 100
    migrate.migrate(empty_dsn, to="0")
    assert column(empty, LEFTOVERS) == before


def test_every_step_goes_back_and_forward(dsn: str, bindir: Path) -> None:
    def state() -> str:
        # Row level security of our own tables outlives the logic that sets it: nobody but the owner gets in meanwhile.
        dump = catalogue_dump.schema(bindir, dsn)
        return re.sub(r"ALTER TABLE two_tower\.\w+ ENABLE ROW LEVEL SECURITY;\n+", "", dump).rstrip()

    fresh = state()
    states: dict[str, str] = {}
    for previous, step in reversed(list(zip(["0", *IDS[:-1]], IDS, strict=True))):
        if step != IDS[-1]:
            states[step] = state()
        assert migrate.migrate(dsn, to=previous) == {"applied": [], "rolled_back": [step]}
    for step in IDS:
        # By number alone, as the documentation has it.
        assert migrate.migrate(dsn, to=step.split(".")[0]) == {"applied": [step], "rolled_back": []}
        assert state() == states.get(step, fresh)


@pytest.mark.parametrize("start", IDS[:-1])
def test_upgraded_equals_fresh(start: str, dsn: str, empty_dsn: str, bindir: Path) -> None:
    migrate.migrate(empty_dsn, to=start)
    assert migrate.pending(empty_dsn) == IDS[IDS.index(start) + 1 :]
    migrate.migrate(empty_dsn)
    assert catalogue_dump.schema(bindir, empty_dsn) == catalogue_dump.schema(bindir, dsn)


def test_migrating_twice_changes_nothing(world_dsn: str, bindir: Path) -> None:
    with psycopg.connect(world_dsn, autocommit=True) as db:
        db.execute("update two_tower.settings set value = '7' where name = 'popularity_half_life_days'")
        granted = catalogue_dump.privileges(db)
    before = catalogue_dump.schema(bindir, world_dsn, data=True)
    assert migrate.migrate(world_dsn) == {"applied": [], "rolled_back": []}
    assert catalogue_dump.schema(bindir, world_dsn, data=True) == before
    with psycopg.connect(world_dsn, autocommit=True) as db:
        assert catalogue_dump.privileges(db) == granted


def test_a_database_in_use_goes_back(world_dsn: str) -> None:
    migrate.migrate(world_dsn, to="0")
    with psycopg.connect(world_dsn, autocommit=True) as db:
        assert one(db, "select to_regclass('public.videos') is null and to_regnamespace('two_tower') is null")
    migrate.migrate(world_dsn)
    with psycopg.connect(world_dsn, autocommit=True) as db:
        assert one(db, "select count(*) from public.videos") == 0


def test_twenty_at_once(empty_dsn: str, dsn: str, bindir: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["two_tower.migrate"])
    with ProcessPoolExecutor(20, mp_context=context) as pool:
        results = list(pool.map(migrate.migrate, [empty_dsn] * 20))
    assert sorted(result["applied"] for result in results) == [[]] * 19 + [IDS]
    assert catalogue_dump.schema(bindir, empty_dsn) == catalogue_dump.schema(bindir, dsn)


def test_plain_yoyo_builds_everything(empty_dsn: str, dsn: str, bindir: Path) -> None:
    parts = urlsplit(empty_dsn)
    yoyo = str(Path(sys.executable).parent / "yoyo")
    uri = f"postgresql+psycopg://{parts.username}@{parts.path}?{parts.query}"
    command = [yoyo, "apply", "--batch", "--no-config-file", "--database", uri, "migrations"]
    done = subprocess.run(command, cwd=migrate.MIGRATIONS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert catalogue_dump.schema(bindir, empty_dsn) == catalogue_dump.schema(bindir, dsn)
    with psycopg.connect(empty_dsn) as found, psycopg.connect(dsn) as expected:
        assert catalogue_dump.privileges(found) == catalogue_dump.privileges(expected)


def test_an_unknown_target_is_an_error(dsn: str) -> None:
    with pytest.raises(UserError, match=r"no migration '0042'"):
        migrate.migrate(dsn, to="0042")


def test_a_migration_that_fails_leaves_no_trace(empty: Connection, empty_dsn: str, other_files: Change) -> None:
    other_files(
        "create table two_tower.change_failures (", "create table two_tower.nonsense (nonsense); create table x ("
    )
    with pytest.raises(psycopg.Error):
        migrate.migrate(empty_dsn)
    assert migrate.pending(empty_dsn) == IDS[IDS.index("0007.change-log") :]
    assert one(empty, "select to_regclass('two_tower.user_changes')") is None


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


def test_existing_tables_are_adopted_and_given_back_untouched(empty: Connection, empty_dsn: str, bindir: Path) -> None:
    empty.execute(APPLICATION + EXTENSIONS)
    before = catalogue_dump.schema(bindir, empty_dsn, data=True)
    migrate.migrate(empty_dsn)
    assert empty.execute("select title, price, our_own_column from public.videos").fetchall() == [("A", 5, "x")]
    assert (
        column(empty, "select name from two_tower.created_objects where kind = 'table' and name <> 'auth.users'") == []
    )
    assert one(empty, "select relrowsecurity from pg_class where oid = 'public.videos'::regclass")
    # They work: what was decided before is in the first refresh.
    empty.execute("call two_tower.refresh()")
    assert one(empty, "select liked_tags from public.user_features") == {"00000000-0000-0000-0000-0000000000aa": 1}
    empty.execute("delete from public.user_features")
    migrate.migrate(empty_dsn, to="0")
    assert catalogue_dump.schema(bindir, empty_dsn, data=True) == before


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        ("alter table public.videos drop column title", "public.videos.title"),
        ("alter table public.tags drop column name", "public.tags.name"),
        ("alter table public.user_features drop column liked_tags", "public.user_features.liked_tags"),
        ("alter table public.profiles drop column created_at", "public.profiles.created_at"),
        ("alter table public.performers alter column id type text", "public.performers.id uuid"),
        (
            "alter table public.user_video_decisions alter column user_id type text",
            "public.user_video_decisions.user_id",
        ),
    ],
)
def test_a_table_that_lacks_a_column_is_an_error_that_names_it(
    spoil: str, named: str, empty: Connection, empty_dsn: str
) -> None:
    empty.execute(APPLICATION.encode())
    empty.execute(spoil.encode())
    with pytest.raises(psycopg.errors.UndefinedColumn, match=re.escape(named)) as caught:
        migrate.migrate(empty_dsn)
    assert caught.value.diag.message_hint
    assert one(empty, "select our_own_column from public.videos") == "x"


def test_tables_named_as_the_views_are_kept_aside(empty: Connection, empty_dsn: str) -> None:
    empty.execute(
        """create table public.user_embeddings (user_id uuid primary key, embedding real[]);
        create table public.video_embeddings (video_id uuid primary key, embedding real[]);
        insert into public.user_embeddings values ('00000000-0000-0000-0000-000000000001', '{1,2}')"""
    )
    migrate.migrate(empty_dsn)
    assert one(empty, "select embedding from public.user_embeddings_before_two_tower") == [1, 2]
    assert one(empty, "select count(*) from public.user_embeddings") == 0
    migrate.migrate(empty_dsn)
    migrate.migrate(empty_dsn, to="0")
    assert one(empty, "select embedding from public.user_embeddings") == [1, 2]
    assert one(empty, "select count(*) from public.video_embeddings") == 0
    assert one(empty, "select to_regclass('public.user_embeddings_before_two_tower')") is None


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
    """An empty database with what Supabase has in one. The roles are there, since another database was migrated."""
    empty.execute(EXTENSIONS + SUPABASE)
    return empty


def test_on_supabase_nothing_that_exists_is_made(supabase: Connection, empty_dsn: str, bindir: Path) -> None:
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


def test_on_supabase_default_privileges_give_nothing_away(supabase: Connection, empty_dsn: str, db: Connection) -> None:
    migrate.migrate(empty_dsn)
    assert catalogue_dump.privileges(supabase) == catalogue_dump.privileges(db)


def _without_nonce(dump: bytes) -> bytes:
    return re.sub(rb"(?m)^\\(un)?restrict .*$", b"", dump)


# -------------------------------------------------------------------------------------------- what can be wrong


def test_an_extension_that_is_not_installed_is_an_error_with_the_package(empty_dsn: str, other_files: Change) -> None:
    other_files("values ('vector', 'postgresql-'", "values ('two_tower_no_such', 'postgresql-'")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match=r"two_tower_no_such is not installed") as caught:
        migrate.migrate(empty_dsn)
    assert "Install the package postgresql-" in str(caught.value.diag.message_hint)


def test_a_server_of_another_version_is_an_error(empty_dsn: str, other_files: Change) -> None:
    other_files("if v_major not between 15 and 18", "if v_major not between 98 and 99")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match=r"runs on PostgreSQL 15 to 18; this server is \d+"):
        migrate.migrate(empty_dsn)


def test_an_old_pgvector_is_an_error(empty_dsn: str, other_files: Change) -> None:
    other_files("'{0,8,0}'", "'{99,0,0}'")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match=r"pgvector 0\.8\.0 or newer"):
        migrate.migrate(empty_dsn)


def test_pgvector_in_another_schema_is_an_error_that_says_how_to_move_it(empty: Connection, empty_dsn: str) -> None:
    empty.execute("create extension vector with schema public")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="another schema than extensions") as caught:
        migrate.migrate(empty_dsn)
    hint = str(caught.value.diag.message_hint)
    empty.execute(re.findall(r"Run: (.*;)", hint)[0].encode())
    assert migrate.migrate(empty_dsn)["applied"] == IDS[1:]


def test_a_role_that_may_not_create_extensions_is_told_what_to_ask_for(
    template: str, empty: Connection, empty_dsn: str
) -> None:
    name = urlsplit(empty_dsn).path.removeprefix("/")
    role = f"{name}_owner"
    empty.execute(f"create role {role} login".encode())
    try:
        empty.execute(f"alter database {name} owner to {role}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="may not create the extension vector") as caught:
            migrate.migrate(in_database(empty_dsn, name, user=role))
        assert "create extension vector with schema extensions" in str(caught.value.diag.message_hint)
    finally:
        empty.execute(f"reassign owned by {role} to postgres; drop owned by {role}; drop role {role}".encode())


# -------------------------------------------------------------------------------------------- released migrations


def test_released_migrations_are_frozen() -> None:
    """A released migration never changes: databases that have applied it would not hear of it."""
    lines = (migrate.MIGRATIONS / "frozen.txt").read_text().splitlines()
    frozen = dict(line.split("  ")[::-1] for line in lines)
    names = {path.name for path in migrate.MIGRATIONS.glob("*.sql")}
    assert frozen.keys() <= names, f"released migrations were removed: {frozen.keys() - names}"
    changed = [name for name, digest in frozen.items() if migrate.checksum(migrate.MIGRATIONS / name) != digest]
    assert changed == [], "released migrations were edited; write a new one instead"
    assert names == frozen.keys(), "not in frozen.txt yet: (cd migrations && sha256sum *.sql > frozen.txt)"


def test_every_migration_has_a_way_back_and_says_what_it_depends_on() -> None:
    assert len(IDS) >= 7
    for previous, name in zip([None, *IDS[:-1]], IDS, strict=True):
        text = (migrate.MIGRATIONS / f"{name}.sql").read_text()
        assert (migrate.MIGRATIONS / f"{name}.rollback.sql").exists(), name
        assert re.search(rf"^-- depends: ?{previous or ''}$", text, re.MULTILINE), name
        assert "%" not in text, f"{name}: a percent sign is a parameter to psycopg"


def test_versions_that_were_live_before_their_attaching_was_noted_stay_live(world_dsn: str) -> None:
    with psycopg.connect(world_dsn, autocommit=True) as db:
        model = random_model(schema_of(db), seed=2)
        register(db, model, "v2")
        db.execute("select two_tower.stage_model('v2')")  # a backfill that has only begun
    migrate.migrate(world_dsn, to="0007")
    with psycopg.connect(world_dsn, autocommit=True) as db:
        assert one(db, "select array_agg(version || ' ' || state) from two_tower.model_versions") == ["v1 active"]
        assert one(db, "select count(*) from pg_class where relname ~ '^(user|video)_embeddings_[0-9]+$'") == 2
    migrate.migrate(world_dsn)
    with psycopg.connect(world_dsn, autocommit=True) as db:
        assert one(db, "select two_tower.live_versions()") == ["v1"]
        registry.activate(db, register(db, model, "v3"), lambda what, share: None)
        assert one(db, "select two_tower.rollback_model() ->> 'model_version'") == "v1"


def test_what_waits_in_the_log_of_decisions_waits_after_the_way_back_too(world_dsn: str) -> None:
    user = WORLD.no_decisions
    with psycopg.connect(world_dsn, autocommit=True) as db:
        db.execute("insert into public.user_video_decisions values (%s, %s, 'like')", (user, WORLD.videos[0]))
        since = one(db, "select logged_at from two_tower.user_change_log where user_id = %s", user)
    migrate.migrate(world_dsn, to="0011")
    with psycopg.connect(world_dsn, autocommit=True) as db:
        assert column(db, "select user_id from two_tower.user_changes") == [user]
    migrate.migrate(world_dsn)
    with psycopg.connect(world_dsn, autocommit=True) as db:
        assert one(db, "select logged_at from two_tower.pending_users where user_id = %s", user) == since
        db.execute("call two_tower.refresh()")
        assert one(db, "select count(*) from public.user_embeddings where user_id = %s", user) == 1
