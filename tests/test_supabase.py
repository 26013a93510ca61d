"""A guest in somebody else's database: what ``migrate`` does to an application on Supabase, and does not do (I6).

The application and Supabase are those of ``supabase_fixture.py``. What these tests settle:

- ``migrate`` refuses with one UserError whose text names everything that stands in its way, each with its remedy,
  before it has written anything, roles included.
- Going back leaves what was found: also the extensions and yoyo's tables that ``migrate`` made are gone.
- A lint that we cause at WARN or above is accepted where a line of docs/security.md has its name and its object, each
  in backticks.
- ``two_tower.set_visible_when(text)`` takes a condition over the columns of ``videos``, unqualified.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

import supabase_answers
from supabase_answers import CALLS, answers, full_dump, guards, parts, routines
from supabase_fixture import (
    ADA,
    BEN,
    CLEO,
    DEVELOPER,
    HIDDEN,
    SHOWN,
    SUPERUSER,
    Connection,
    Supabase,
    Variant,
    connect_as,
    ident,
    login,
)
from supabase_lints import lints
from two_tower.errors import UserError
from two_tower.lifecycle import registry
from two_tower.server import migrate
from world_fixtures import Client, column, one, tiny_model

SECURITY = Path(__file__).parents[1] / "docs" / "security.md"

RPCS = sorted(
    {
        name
        for path in migrate.logic_files()
        for name in re.findall(r"create or replace function public\.(\w+)", path.read_text())
    }
)
"""Names of the routines that we put into ``public``."""

NAMESAKES = "".join(
    f"""
    create function public.{name}(p_one text, p_two text, p_three text) returns text
    language sql set search_path = '' as $$ select 'theirs: {name}' $$;
    revoke all on function public.{name}(text, text, text) from public, anon, service_role;
    comment on function public.{name}(text, text, text) is 'theirs';
    """
    for name in RPCS
)
NAMESAKE_CALLS = tuple(f"public.{name}('a', 'b', 'c')" for name in RPCS)

VARIANTS = {
    "as in the template": Variant(),
    "profiles by user_id": Variant(profiles="user_id"),
    "a table of the superuser's": Variant(superusers=True),
    "plpython3u is there": Variant(plpython=True),
    "a namesake of every routine": Variant(more=NAMESAKES),
}
with_variants = pytest.mark.parametrize(
    ("variant", "whom"),
    [
        pytest.param(variant, whom, id=f"{name}, by {whom}")
        for name, variant in VARIANTS.items()
        for whom in (SUPERUSER, DEVELOPER)
        # What is a superuser's, its owner alone can adopt.
        if whom == SUPERUSER or not variant.superusers
    ],
)
"""Applications, and who migrates: the superuser, or the application's owner, who is none."""


@pytest.fixture(scope="module")
def adopted(supabase: Supabase) -> str:
    """The application, adopted, with the random model ``v1`` active and everything fresh. Nobody changes it."""
    dsn = supabase.database()
    migrate.migrate(dsn)
    with connect_as(dsn, SUPERUSER) as db:
        tiny_model(db)
        db.execute("analyze")
    return dsn


@pytest.fixture
def served(supabase: Supabase, adopted: str) -> Iterator[str]:
    """A copy of ``adopted`` of this test's own."""
    dsn = supabase.clone(adopted)
    yield dsn
    supabase.drop(dsn)


def assert_same(before: str, after: str) -> None:
    """That two texts are equal; the failure shows every line that is not."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", lineterm="", n=1)
    assert_none(list(lines))


def assert_none(found: Iterable[object]) -> None:
    """That nothing was found; the failure lists all that was, where pytest would cut it short."""
    lines = [str(what) for what in found]
    assert not lines, "\n".join(lines)


# ------------------------------------------------------------------------------------------------ adoption


@pytest.mark.sampled(1)
@with_variants
def test_adoption_changes_no_answers_and_rollback_restores_the_database(
    supabase: Supabase, new: Callable[..., str], variant: Variant, whom: str
) -> None:
    dsn = new(variant)
    calls = CALLS + (NAMESAKE_CALLS if variant.more else ())
    answered = answers(dsn, calls)
    dumped = full_dump(supabase.bindir, dsn)
    with connect_as(dsn, SUPERUSER) as db:
        theirs = routines(db)
        guarded, made_of = guards(db, theirs), parts(db)
        migrate.migrate(login(dsn, whom))
        assert_same("\n".join(guarded), "\n".join(guards(db, theirs)))
        assert_none(made_of - parts(db))
    after = answers(dsn, calls)
    assert_none(f"{what}: {was} -> {after.get(what)}" for what, was in answered.items() if after.get(what) != was)
    assert full_dump(supabase.bindir, dsn) != dumped
    migrate.migrate(login(dsn, whom))
    migrate.migrate(login(dsn, whom), to="0")
    assert_same(dumped, full_dump(supabase.bindir, dsn))


def test_refreshes_and_models_leave_the_rows_of_the_application(new: Callable[..., str]) -> None:
    dsn = new()
    tables = [f"public.{table}" for table in supabase_answers.INSERTS]

    def rows(db: Connection) -> dict[str, list[str]]:
        return {t: column(db, f"select to_jsonb(r)::text from {t} r order by 1") for t in tables}

    with connect_as(dsn, DEVELOPER) as developer:
        before = rows(developer)
        migrate.migrate(dsn)
        with connect_as(dsn, SUPERUSER) as db:
            tiny_model(db)
            db.execute("call two_tower.rebuild()")
        assert rows(developer) == before


@pytest.mark.parametrize("application", [True, False], ids=["with the application", "without"])
def test_no_table_of_ours_is_open_and_no_routine_is_everybodys(new: Callable[..., str], application: bool) -> None:
    dsn = new(application=application)
    ours = "n.nspname in ('public', 'two_tower')"
    tables = f"""select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where {ours} and c.relkind in ('r', 'p')"""
    functions = (
        f"select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace where {ours}"
    )
    with connect_as(dsn, SUPERUSER) as db:
        theirs = {*column(db, tables), *column(db, functions)}
        migrate.migrate(dsn)
        assert_none(set(column(db, f"{tables} and not c.relrowsecurity")) - theirs)
        assert_none(set(column(db, f"{functions} and has_function_privilege('public', p.oid, 'execute')")) - theirs)


# ------------------------------------------------------------------------------------------------ and back


@pytest.mark.soak
def test_rollback_without_an_application_restores_the_database(supabase: Supabase, new: Callable[..., str]) -> None:
    dsn = new(application=False)
    before = full_dump(supabase.bindir, dsn)
    migrate.migrate(dsn)
    migrate.migrate(dsn, to="0")
    assert_same(before, full_dump(supabase.bindir, dsn))


def test_rollback_after_use_restores_the_database(supabase: Supabase, new: Callable[..., str]) -> None:
    dsn = new()
    before = full_dump(supabase.bindir, dsn)
    migrate.migrate(dsn)
    with connect_as(dsn, SUPERUSER) as db, connect_as(dsn, DEVELOPER) as developer:
        tiny_model(db)
        # What comes and goes: a like, a video with a tag, a title, a user.
        with (
            connect_as(dsn, "authenticator", autocommit=False) as session,
            Client(session).as_("authenticated", CLEO) as cleo,
        ):
            cleo.execute("insert into public.user_video_decisions values (%s, %s, 'like')", (CLEO, SHOWN[1]))
        with connect_as(dsn, "supabase_auth_admin") as auth:
            auth.execute(supabase_answers.SIGN_UP.encode())
        developer.execute("update public.videos set title = title || '!' where maker = 'maker 1'")
        developer.execute("insert into public.videos (id, product_url, title) values (md5('new')::uuid, 'new', 'New')")
        developer.execute("insert into public.video_tags values (md5('new')::uuid, md5('tag 1')::uuid)")
        db.execute("call two_tower.refresh()")
        tiny_model(db, "v2", seed=1)
        developer.execute("delete from public.videos where id = md5('new')::uuid")
        developer.execute("update public.videos set title = rtrim(title, '!') where maker = 'maker 1'")
        developer.execute("delete from public.user_video_decisions where user_id = md5('cleo')::uuid")
        with connect_as(dsn, "supabase_auth_admin") as auth:
            auth.execute("delete from auth.users where id = md5('dora')::uuid")
        db.execute("call two_tower.refresh()")
        registry.roll_back(db)
    migrate.migrate(dsn, to="0")
    assert_same(before, full_dump(supabase.bindir, dsn))


# ------------------------------------------------------------------------------------------------ lints


@pytest.mark.sampled(1)
@pytest.mark.parametrize("application", [True, False], ids=["with the application", "without"])
def test_we_cause_no_lint_but_those_that_the_documentation_names(new: Callable[..., str], application: bool) -> None:
    dsn = new(application=application)
    with connect_as(dsn, SUPERUSER) as db:
        before = lints(db)
        migrate.migrate(dsn)
        tiny_model(db)
        caused = [lint for lint in lints(db) if lint not in before and lint[0] != "INFO"]
    lines = SECURITY.read_text(encoding="utf-8").splitlines()
    named = [
        (level, name, what)
        for level, name, what in caused
        if any(f"`{name}`" in line and f"`{what}`" in line for line in lines)
    ]
    assert_none(lint for lint in caused if lint not in named)


# ------------------------------------------------------------------------------------------------ what is refused


def refusal(dsn: str, supabase: Supabase, login_dsn: str | None = None) -> str:
    """What ``migrate`` says; asserts that it changed nothing, in the database or among the roles."""

    def everything() -> str:
        with connect_as(dsn, SUPERUSER) as db:
            roles = column(db, "select to_jsonb(r)::text from pg_roles r order by 1")
        return full_dump(supabase.bindir, dsn) + "\n".join(roles)

    before = everything()
    with pytest.raises(UserError) as caught:
        migrate.migrate(login_dsn or dsn)
    assert_same(before, everything())
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("variant", "named"),
    [
        (Variant(clash=True), ("public.update_user_features(uuid)",)),
        (Variant(foreign_owner=True), ("public.performers", "content_team")),
        (
            Variant(clash=True, foreign_owner=True),
            ("public.update_user_features(uuid)", "public.performers", "content_team"),
        ),
    ],
    ids=["a clash", "another's table", "both"],
)
def test_postgres_is_refused_with_one_list_of_all_that_is_in_the_way(
    supabase: Supabase, new: Callable[..., str], variant: Variant, named: tuple[str, ...]
) -> None:
    dsn = new(variant)
    said = refusal(dsn, supabase, login(dsn, DEVELOPER))
    assert [what for what in named if what not in said] == []


def test_a_login_that_owns_nothing_is_refused_likewise(supabase: Supabase, new: Callable[..., str]) -> None:
    dsn = new()
    said = refusal(dsn, supabase, login(dsn, "supabase_auth_admin"))
    assert "public.videos belongs to postgres, and the role supabase_auth_admin is no member of that" in said
    assert "migrate as postgres; or as a superuser run: grant postgres to supabase_auth_admin" in said


@pytest.mark.soak
def test_a_routine_with_our_signature_and_another_result_is_refused(
    supabase: Supabase, new: Callable[..., str]
) -> None:
    dsn = new(Variant(clash=True))
    said = refusal(dsn, supabase)
    assert "public.update_user_features(uuid)" in said
    assert "rename" in said
    # The remedy helps.
    with connect_as(dsn, DEVELOPER) as developer:
        developer.execute("alter function public.update_user_features(uuid) rename to count_features")
    migrate.migrate(dsn)


@pytest.mark.parametrize("result", ["another", "the same"])
def test_a_routine_with_one_of_our_signatures_is_refused_by_name(
    supabase: Supabase, new: Callable[..., str], adopted: str, result: str
) -> None:
    with connect_as(adopted, SUPERUSER) as db:
        ours = db.execute(
            """select p.proname::text, pg_get_function_identity_arguments(p.oid), pg_get_function_result(p.oid)
            from pg_proc p where p.pronamespace = 'public'::regnamespace and p.proname = any (%s)
                and p.oid in (select to_regprocedure(o.name) from two_tower.created_objects o where o.kind = 'routine')
            order by 1, 2""",
            (RPCS,),
        ).fetchall()
    assert {name for name, _, _ in ours} == set(RPCS)
    theirs = "set check_function_bodies = off;" + "".join(
        # The row of counts, of the application's table of that name.
        f"create function public.{name}({arguments}) "
        f"returns {answer.replace('two_tower.', 'public.') if result == 'the same' else 'void'} "
        f"language sql set search_path = '' as $$ select 'theirs' $$;"
        for name, arguments, answer in ours
    )
    dsn = new(Variant(more=theirs))
    said = refusal(dsn, supabase)
    assert [name for name in RPCS if f"public.{name}(" not in said] == []


# ------------------------------------------------------------------------------------------------ drafts


ASKERS = (("authenticated", ADA), ("authenticated", BEN), ("authenticated", CLEO))
VISITORS: tuple[tuple[str, UUID | None], ...] = (("anon", None), *ASKERS)

POLICIES = {
    "as it was": "status = 'published' and published_at <= now()",
    "another column": "maker <> 'maker 1'",
    "another table": "right(title, 1) in (select right(p.name, 1) from public.performers p)",
    "who asks": "price < 10 or price < 20 and (select auth.uid()) is not null",
    "one user": f"maker = 'maker 2' or (select auth.uid()) = '{BEN}'",
    "nothing": "false",
}
"""What the application's policy may say of who sees a video."""


def listed(client: Client, role: str, user: UUID | None, call: str, *values: Any) -> list[UUID]:
    with client.as_(role, user) as connection:
        return column(connection, f"select video_id from public.{call}", *values)


def seen(db: Connection, policy: str, user: UUID | None) -> set[UUID]:
    """What the policy shows to a user, of what is published by the date; asked of the rows, past all policies."""
    with db.transaction():
        claims = {} if user is None else {"sub": str(user)}
        db.execute("select set_config('request.jwt.claims', %s, true)", (json.dumps(claims),))
        return set(column(db, f"select id from public.videos where published_at <= now() and ({policy})"))


@pytest.fixture
def client(served: str) -> Iterator[Client]:
    with connect_as(served, "authenticator", autocommit=False) as connection:
        yield Client(connection)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
def test_lists_show_a_client_exactly_what_the_policy_shows(served: str, client: Client, policy: str) -> None:
    with connect_as(served, DEVELOPER) as developer:
        developer.execute(f'alter policy "Published videos are public" on public.videos using ({policy})'.encode())
    decided = "select video_id from public.user_video_decisions where user_id = %s"
    with connect_as(served, SUPERUSER) as db:
        shown = {user: seen(db, policy, user) for _, user in VISITORS}
        expected = {user: shown[user] - set(column(db, decided, user)) for _, user in ASKERS}
    for role, user in ASKERS:
        assert set(listed(client, role, user, 'recommend_videos("limit" => 200)')) == expected[user]
        for count in (1, 7, 20):
            got = listed(client, role, user, 'recommend_videos("limit" => %s)', count)
            assert set(got) <= expected[user]
            assert len(got) == min(count, len(expected[user]))
    for role, visitor in VISITORS:
        visible = shown[visitor]
        for video in sorted(visible)[:3]:
            for count in (7, 200):
                got = listed(client, role, visitor, 'similar_videos(video_id => %s, "limit" => %s)', video, count)
                assert set(got) <= visible - {video}
                assert len(got) == min(count, len(visible) - 1)


def test_a_hidden_video_gives_nothing_away(client: Client) -> None:
    """Not what is similar to it, and not that it exists: the answer is that for an id that there is not."""
    hidden = [*HIDDEN[:2], HIDDEN[-1]]

    def answer(role: str, user: UUID | None, video: UUID) -> object:
        try:
            return listed(client, role, user, "similar_videos(video_id => %s)", video)
        except psycopg.Error as error:
            return error.sqlstate

    for role, user in (("anon", None), ("authenticated", ADA)):
        unknown = answer(role, user, ident("no such video"))
        assert [answer(role, user, video) for video in hidden] == [unknown] * len(hidden)


def test_bulk_lists_are_refused_while_visibility_is_unknown(served: str, client: Client) -> None:
    batch = "select user_id, video_id from two_tower.recommend_batch(%s, 100)"
    users = [ADA, CLEO]
    with pytest.raises(psycopg.Error, match="set_visible_when") as caught, client.as_("service_role") as service:
        service.execute(batch, (users,))
    assert caught.value.diag.message_hint
    with connect_as(served, SUPERUSER) as db:
        db.execute("select two_tower.set_visible_when($$ status = 'published' and published_at <= now() $$)")
        decided = set(column(db, "select video_id from public.user_video_decisions where user_id = %s", ADA))
    with client.as_("service_role") as service:
        rows = service.execute(batch, (users,)).fetchall()
    assert {video for user, video in rows if user == CLEO} == set(SHOWN)
    assert {video for user, video in rows if user == ADA} == set(SHOWN) - decided


def test_every_list_honours_the_condition(served: str, client: Client) -> None:
    with connect_as(served, SUPERUSER) as db:
        db.execute("select two_tower.set_visible_when($$ maker <> 'maker 2' $$)")
        wanted = set(column(db, "select id from public.videos where maker <> 'maker 2'"))
    shown = set(SHOWN) & wanted
    assert set(listed(client, "authenticated", CLEO, 'recommend_videos("limit" => 200)')) == shown
    video = min(shown)
    for role in ("anon", "authenticated"):
        got = listed(client, role, None, 'similar_videos(video_id => %s, "limit" => 200)', video)
        assert set(got) == shown - {video}
    with client.as_("service_role") as service:
        got = column(service, "select video_id from two_tower.recommend_batch(%s, 200)", [CLEO])
    # The condition is all there is to it, so it says of a date of publication what is to be said.
    assert set(got) == wanted


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
def test_no_client_sets_the_condition(client: Client, role: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege), client.as_(role, ADA) as connection:
        connection.execute("select two_tower.set_visible_when('true')")


# ------------------------------------------------------------------------------------------------ safeupdate


@pytest.fixture
def service(served: str) -> Iterator[Connection]:
    """What an operator's script has on Supabase: PostgREST's login, with ``safeupdate`` loaded, as service_role."""
    with connect_as(served, "authenticator") as connection:
        connection.execute("set role service_role")
        with pytest.raises(psycopg.errors.CardinalityViolation):
            connection.execute("update public.tags set colour = colour")
        yield connection


def test_operating_works_with_safeupdate(service: Connection, served: str) -> None:
    def change() -> None:
        service.execute("update public.videos set label = 'changed' where maker = 'maker 3'")
        service.execute("delete from public.video_tags where tag_id = md5('tag 4')::uuid")
        service.execute("update public.user_video_decisions set decision_type = 'like' where user_id = %s", (BEN,))

    change()
    service.execute("call two_tower.refresh()")
    assert one(service, "select count(*) from two_tower.pending_users") == 0
    for job in (
        "select two_tower.sync_user_embeddings('1000 years')",
        "select two_tower.sync_video_embeddings()",
        "select two_tower.update_popularity()",
        "select two_tower.retry_failures()",
        "select two_tower.purge_logs('0 days')",
        "call two_tower.rebuild()",
    ):
        change()
        service.execute(job.encode())
    with connect_as(served, SUPERUSER) as db:
        tiny_model(db, "v2", seed=1, activate=False)
    registry.activate(service, "v2", lambda what, share: None)
    assert one(service, "select two_tower.active_version()") == "v2"
    registry.roll_back(service)
    assert one(service, "select two_tower.active_version()") == "v1"
    service.execute("select two_tower.retire_model('v2')")


def test_a_user_works_with_safeupdate(client: Client) -> None:
    with client.as_("authenticated", CLEO) as user:
        user.execute("insert into public.user_video_decisions values (%s, %s, 'like')", (CLEO, SHOWN[1]))
        assert one(user, "select public.embed_user() ->> 'success'") == "true"
    assert SHOWN[1] not in listed(client, "authenticated", CLEO, 'recommend_videos("limit" => 200)')


def test_no_routine_writes_without_a_where_clause(served: str) -> None:
    """In any branch: safeupdate looks at each statement that plpgsql_check, and the validator of SQL, analyse."""
    ours = """from pg_proc p join pg_language l on l.oid = p.prolang
        where p.pronamespace in ('two_tower'::regnamespace, 'public'::regnamespace)"""
    with connect_as(served, SUPERUSER) as db:
        db.execute("create extension plpgsql_check with schema extensions")
        db.execute("load 'safeupdate'")
        found = column(
            db,
            f"""select format('%%s line %%s: %%s', p.oid::regprocedure, c.lineno, c.message)
            from (select p.* {ours} and l.lanname = 'plpgsql') p
            left join pg_trigger t on t.tgfoid = p.oid
            cross join lateral extensions.plpgsql_check_function_tb(
                p.oid::regprocedure, coalesce(t.tgrelid, 0::oid)::regclass,
                oldtable => t.tgoldtable, newtable => t.tgnewtable, fatal_errors => false
            ) c
            where (p.prorettype <> 'trigger'::regtype or t.oid is not null) and c.sqlstate = '21000' and %s""",
            True,
        )
        for name, definition in db.execute(
            f"select p.oid::regprocedure::text, pg_get_functiondef(p.oid) {ours} and l.lanname = 'sql'".encode()
        ).fetchall():
            try:
                with db.transaction(force_rollback=True):
                    db.execute(definition.encode())
            except psycopg.errors.CardinalityViolation as error:
                found.append(f"{name}: {error}")
    assert_none(found)
