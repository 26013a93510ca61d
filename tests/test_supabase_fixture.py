"""The fixture has Supabase's roles, its safeupdate and its lints, and an application that works on it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

import supabase_answers
from supabase_fixture import ADA, BEN, CLEO, HIDDEN, SHOWN, Connection, Supabase, Variant, connect_as, running
from supabase_lints import NAMES, lints
from world_fixtures import Client, column, one


@pytest.fixture(scope="module")
def supabase() -> Iterator[Supabase]:
    with running() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def dsn(supabase: Supabase) -> str:
    """An application that tests do not change."""
    return supabase.database()


@pytest.fixture
def db(dsn: str) -> Iterator[Connection]:
    with connect_as(dsn, "supabase_admin") as connection:
        yield connection


def test_postgres_is_no_superuser_and_owns_the_database_and_public(db: Connection) -> None:
    attributes = "rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolcanlogin, rolinherit"
    row = db.execute(f"select {attributes} from pg_roles where rolname = 'postgres'".encode()).fetchone()
    assert row == (False, True, True, True, True, True, True)
    assert column(db, "select rolname from pg_roles where rolsuper") == ["supabase_admin"]
    assert one(db, "select datdba::regrole::text from pg_database where datname = current_database()") == "postgres"
    assert one(db, "select nspowner::regrole::text from pg_namespace where nspname = 'public'") == "pg_database_owner"
    assert one(db, "select not pg_has_role('postgres', 'supabase_auth_admin', 'member')")


@pytest.mark.parametrize("role", ["postgres", "supabase_admin"])
def test_objects_in_public_are_granted_to_all_by_default(db: Connection, role: str) -> None:
    with db.transaction(force_rollback=True):
        db.execute(f"set local role {role}".encode())
        db.execute("create table public.made (id int); create function public.made() returns int language sql return 1")
        db.execute("create sequence public.made_seq")
        for client in ("anon", "authenticated", "service_role"):
            assert one(
                db,
                """select has_table_privilege(r, 'public.made', 'truncate')
                    and has_function_privilege(r, 'public.made()', 'execute')
                    and has_sequence_privilege(r, 'public.made_seq', 'usage') from (select %s) as c (r)""",
                client,
            )


def test_auth_functions_read_both_kinds_of_claims(dsn: str) -> None:
    query = "select auth.uid(), auth.role(), auth.email(), auth.jwt() ->> 'aud'"
    with connect_as(dsn, "authenticator", autocommit=False) as connection:
        client = Client(connection)
        with client.as_("authenticated", ADA, email="a@app.example", aud="x") as user:
            assert user.execute(query.encode()).fetchone() == (ADA, "authenticated", "a@app.example", "x")
        with client.as_("anon") as visitor:
            assert one(visitor, "select auth.uid()") is None
            visitor.execute("select set_config('request.jwt.claim.sub', %s, true)", (str(BEN),))
            assert one(visitor, "select auth.uid()") == BEN


def test_authenticator_may_not_write_without_a_where_clause(dsn: str) -> None:
    with connect_as(dsn, "authenticator") as connection:
        connection.execute("set role service_role")
        for query, verb in {
            "update public.videos set title = title": "UPDATE",
            "delete from public.videos": "DELETE",
            "with gone as (delete from public.videos returning 1) select from gone": "DELETE",
            "do $$ begin delete from public.videos; end $$": "DELETE",
        }.items():
            with pytest.raises(psycopg.errors.CardinalityViolation, match=f"{verb} requires a WHERE clause"):
                connection.execute(query.encode())
        with connection.transaction(force_rollback=True):
            assert connection.execute("delete from public.videos where true").rowcount == 100
    with connect_as(dsn, "postgres") as connection, connection.transaction(force_rollback=True):
        assert connection.execute("delete from public.watch_events").rowcount == 5


def test_clients_see_what_the_policies_of_the_application_let_them(dsn: str) -> None:
    with connect_as(dsn, "authenticator", autocommit=False) as connection:
        client = Client(connection)
        for role, user in {"anon": None, "authenticated": ADA}.items():
            with client.as_(role, user) as asker:
                assert set(column(asker, "select id from public.videos")) == set(SHOWN)
            with (
                pytest.raises(psycopg.errors.InsufficientPrivilege),
                client.as_(role, user) as asker,
            ):
                asker.execute("select internal_notes from public.videos")
        with client.as_("service_role") as asker:
            assert set(column(asker, "select id from public.videos")) == {*SHOWN, *HIDDEN}


def test_a_sign_up_fills_a_profile(dsn: str) -> None:
    with connect_as(dsn, "supabase_auth_admin") as auth, auth.transaction(force_rollback=True):
        auth.execute(supabase_answers.SIGN_UP.encode())
        auth.execute("reset role")
    with connect_as(dsn, "postgres") as connection:
        assert column(connection, "select full_name from public.profiles order by 1") == ["ada", "ben", "cleo"]
        assert set(column(connection, "select id from public.profiles")) == {ADA, BEN, CLEO}


def test_a_change_of_the_schema_tells_postgrest(dsn: str) -> None:
    with connect_as(dsn, "postgres") as listener, connect_as(dsn, "postgres") as other:
        listener.execute("listen pgrst")
        for change in ("create table public.told ()", "drop table public.told"):
            other.execute(change.encode())
            assert [n.payload for n in listener.notifies(timeout=5, stop_after=1)] == ["reload schema"]


def test_answers_and_dumps_are_repeatable_and_cover_every_table(supabase: Supabase, dsn: str, db: Connection) -> None:
    tables = column(
        db, "select relname::text from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'"
    )
    assert set(tables) == supabase_answers.INSERTS.keys()
    dump = supabase_answers.full_dump(supabase.bindir, dsn)
    first = supabase_answers.answers(dsn)
    assert supabase_answers.answers(dsn) == first
    assert supabase_answers.full_dump(supabase.bindir, dsn) == dump


@pytest.fixture(scope="module")
def before(dsn: str) -> supabase_answers.Answers:
    return supabase_answers.answers(dsn)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "harm",
    [
        "create policy more on public.videos for select to anon using (true)",
        "create policy less on public.videos as restrictive for select to anon using (false)",
        "create policy ours on public.user_video_decisions for all to authenticated using (true)",
        "revoke select on public.profiles from anon",
        "revoke insert on public.user_features from service_role",
        "grant select on public.videos to authenticated",
        "grant update (title) on public.videos to authenticated",
        "alter table public.video_embeddings rename to video_embeddings_before",
        "alter table public.performers enable row level security",
        "revoke execute on function public.recommend_videos(uuid, int) from authenticated",
        "drop function public.similar_videos(text) cascade",
        "create table public.ours (video_id uuid references public.videos)",
        "update public.user_features set liked_tags = '{}' where true",
        "alter table public.tags add constraint ours check (colour = 'red')",
        """create trigger ours before delete on auth.users
            for each row execute function suppress_redundant_updates_trigger()""",
    ],
)
def test_answers_change_after_each_kind_of_damage(
    supabase: Supabase, before: supabase_answers.Answers, harm: str
) -> None:
    other = supabase.database()
    with connect_as(other, "supabase_admin") as db:
        db.execute(harm.encode())
    after = supabase_answers.answers(other)
    supabase.drop(other)
    assert after != before


# ------------------------------------------------------------------------------------------------ lints

EXAMPLES = {
    "unindexed_foreign_keys": (
        "create table public.x (id int primary key, v uuid references videos)",
        "public.x x_v_fkey",
    ),
    "auth_users_exposed": ("create view public.x as select id from auth.users", "public.x"),
    "auth_rls_initplan": ("create policy x on tags for update using (auth.uid() is null)", "public.tags x"),
    "no_primary_key": ("create table public.x (id int)", "public.x"),
    "multiple_permissive_policies": (
        "create policy x on videos for select to anon using (title = 'x')",
        "public.videos anon SELECT",
    ),
    "policy_exists_rls_disabled": ("create policy x on performers for select using (name = 'x')", "public.performers"),
    "rls_enabled_no_policy": (
        "create table public.x (id int primary key); alter table public.x enable row level security",
        "public.x",
    ),
    "duplicate_index": (
        "create index x on video_tags (tag_id)",
        "public.video_tags video_tags_tag_id_idx x",
    ),
    "security_definer_view": ("create view public.x as select id from videos", "public.x"),
    "function_search_path_mutable": ("create function x() returns int language sql return 1", "public.x"),
    "rls_disabled_in_public": ("create table public.x (id int primary key)", "public.x"),
    "extension_in_public": ("alter extension vector set schema public", "vector"),
    "rls_references_user_metadata": (
        "create policy x on tags for update using ((auth.jwt() -> 'user_metadata' ->> 'admin') = 'true')",
        "public.tags x",
    ),
    "materialized_view_in_api": ("create materialized view public.x as select 1 as id", "public.x"),
    "foreign_table_in_api": (
        """create foreign data wrapper w; create server s foreign data wrapper w;
        create foreign table public.x (id int) server s""",
        "public.x",
    ),
    "unsupported_reg_types": ("create table public.x (id int primary key, f regproc)", "public.x.f"),
    "fkey_to_auth_unique": (
        "create table public.x (id int primary key, phone text references auth.users (phone))",
        "public.x x_phone_fkey",
    ),
    "extension_versions_outdated": (
        "update pg_extension set extversion = '0.0.1' where extname = 'vector'",
        "vector",
    ),
    "sensitive_columns_exposed": ("create table public.x (id int primary key, api_key text)", "public.x.api_key"),
    "rls_policy_always_true": ("create policy x on tags for update to authenticated using (true)", "public.tags x"),
    "pg_graphql_anon_table_exposed": ("create table public.x (id int primary key)", "public.x"),
    "pg_graphql_authenticated_table_exposed": ("create table public.x (id int primary key)", "public.x"),
    "anon_security_definer_function_executable": (
        "create function x() returns int language sql security definer return 1",
        "public.x",
    ),
    "authenticated_security_definer_function_executable": (
        "create function x() returns int language sql security definer return 1",
        "public.x",
    ),
}
"""For each lint a statement that causes it, and the object that it names."""


def test_every_lint_has_an_example() -> None:
    assert EXAMPLES.keys() == set(NAMES)


@pytest.mark.sampled(12)
@pytest.mark.parametrize("name", EXAMPLES)
def test_each_lint_finds_its_example_and_only_after_the_change(db: Connection, name: str) -> None:
    change, named = EXAMPLES[name]
    with db.transaction(force_rollback=True):
        before = {(lint, what) for _, lint, what in lints(db)}
        db.execute("set local search_path = public; set local allow_system_table_mods = on")
        db.execute(change.encode())
        after = {(lint, what) for _, lint, what in lints(db)}
    assert (name, named) not in before
    assert (name, named) in after


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "variant",
    [
        Variant(),
        Variant(profiles="user_id"),
        Variant(foreign_owner=True),
        Variant(superusers=True),
        Variant(clash=True),
        Variant(plpython=True),
    ],
    ids=str,
)
def test_the_application_has_only_the_lints_it_is_meant_to_have(supabase: Supabase, variant: Variant) -> None:
    dsn = supabase.database(variant)
    with connect_as(dsn, "supabase_admin") as db:
        found = {(lint, what) for level, lint, what in lints(db, graphql=False) if level != "INFO"}
    supabase.drop(dsn)
    assert found == {
        ("rls_disabled_in_public", "public.performers"),
        ("anon_security_definer_function_executable", "public.handle_new_user"),
        ("authenticated_security_definer_function_executable", "public.handle_new_user"),
        ("authenticated_security_definer_function_executable", "public.get_user_embedding_features"),
    }
