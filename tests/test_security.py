"""Access of every role to every table, view, partition, sequence and routine (I6), and attempts of hostile sessions.

``tests/golden/access.txt`` has the results of trying: all rows or their number, or the SQLSTATE of the refusal. A
planned change updates it by ``pytest tests/test_security.py --golden-update``; review the difference.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
import pytest
from psycopg import errors, sql

import catalogue_dump
from conftest import Connect, Connection
from world_fixtures import NOBODY, Client, column, make_world, one, refresh, rpc

pytestmark = pytest.mark.world

WORLD = make_world()
ME, OTHER = WORLD.usual, WORLD.many

# Who asks: a role, and the user of the token.
ASKERS: dict[str, tuple[str, UUID | None]] = {
    "anon": ("anon", None),
    "nobody": ("authenticated", None),
    "me": ("authenticated", ME),
    "service": ("service_role", None),
    "viewer": ("two_tower_viewer", None),
}


@pytest.fixture
def anyone(db: Connection, dsn: str, connect: Connect) -> Iterator[Client]:
    """A login that may switch to every role of ASKERS, including the viewer, unlike the login of clients."""
    login = f"{urlsplit(dsn).path.removeprefix('/')}_login"
    db.execute(f"create role {login} login noinherit in role authenticator, two_tower_viewer".encode())
    connection = connect(autocommit=False, user=login)
    yield Client(connection)
    connection.close()
    db.execute(f"drop role {login}".encode())


def attempt(client: Client, asker: str, query: str) -> str:
    """The result of a query for the asker: the number in its only row, the number of affected rows, or the refusal."""
    role, user = ASKERS[asker]
    try:
        with client.connection.transaction(force_rollback=True), client.as_(role, user):
            return outcome(client.connection, query)
    except psycopg.Error as error:
        return str(error.sqlstate)


def outcome(connection: Connection, query: str) -> str:
    cursor = connection.execute(query.encode())
    if not cursor.description:
        return str(cursor.rowcount)
    rows = cursor.fetchall()
    return str(rows[0][0]) if len(rows) == 1 and isinstance(rows[0][0], int) else f"{len(rows)} rows"


def whole(db: Connection, query: str) -> str:
    """The same for the owner."""
    try:
        with db.transaction(force_rollback=True):
            return outcome(db, query)
    except psycopg.Error as error:
        return str(error.sqlstate)


def relations(db: Connection) -> list[tuple[str, str, bool]]:
    """Name and kind of all relations with rows in our schemas, and whether they have a user_id.

    Without partitions named by a day, which test_shown checks.
    """
    rows = db.execute(
        """select format('%I.%I', n.nspname, c.relname), c.relkind::text, exists (
            select from pg_attribute a where a.attrelid = c.oid and a.attname = 'user_id' and not a.attisdropped
        )
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname in ('public', 'two_tower', 'auth') and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
            and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e')
            and c.relname !~ '^impressions_[0-9]{8}$'
        order by n.nspname collate "C", c.relname collate "C" """
    ).fetchall()
    return [(name, kind, keyed) for name, kind, keyed in rows]


def line(what: str, got: dict[str, str]) -> str:
    return f"{what}: " + ", ".join(f"{asker} {answer}" for asker, answer in got.items())


def rows_of_relations(db: Connection, client: Client) -> list[str]:
    lines = []
    for name, kind, keyed in relations(db):
        if kind == "S":
            tries = {"nextval": f"select nextval('{name}')::int", "read": f"select count(*)::int from {name}"}
        else:
            tries = {"read": f"select count(*)::int from {name}"}
            if keyed:
                tries = {
                    "own": f"select count(*)::int from {name} where user_id = '{ME}'",
                    "others'": f"select count(*)::int from {name} where user_id <> '{ME}'",
                }
            tries |= {
                "insert": f"insert into {name} default values",
                "update": f"update {name} set {first_column(db, name)} = {first_column(db, name)}",
                "delete": f"delete from {name}",
            }
            if kind != "v":
                tries["truncate"] = f"truncate {name} cascade"
        for what, query in tries.items():
            every = whole(db, query)
            got = {asker: attempt(client, asker, query) for asker in ASKERS}
            told = {
                asker: "all" if answer == every != "0" and len(answer) < 5 else answer for asker, answer in got.items()
            }
            lines.append(line(f"{name} {what}", told))
    return lines


def first_column(db: Connection, name: str) -> str:
    return str(
        one(
            db,
            """select quote_ident(attname) from pg_attribute
            where attrelid = %s::regclass and attnum > 0 and not attisdropped and attidentity = '' and attgenerated = ''
            order by attnum limit 1""",
            name,
        )
    )


RPCS: dict[str, str] = {
    "embed_user": "select (public.embed_user() ->> 'success')::bool::int",
    "update_user_features own": f"select (public.update_user_features('{ME}')).like_count",
    "update_user_features another's": f"select (public.update_user_features('{OTHER}')).like_count",
    "update_user_features nobody's": f"select (public.update_user_features('{NOBODY}')).like_count",
    "get_user_embedding_features own": f"select (public.get_user_embedding_features('{ME}') ->> 'like_count')::int",
    "get_user_embedding_features another's": f"select (get_user_embedding_features('{OTHER}') ->> 'like_count')::int",
    "get_user_embedding_features nobody's": f"select (get_user_embedding_features('{NOBODY}') ->> 'like_count')::int",
    "get_item_embedding_features": f"select (get_item_embedding_features('{WORLD.videos[5]}') ? 'price')::int",
    "get_item_embedding_features unknown": f"select (get_item_embedding_features('{NOBODY}') ? 'price')::int",
    "get_user_embedding_feature_batch": "select count(*)::int from public.get_user_embedding_feature_batch(5)",
    "get_item_embedding_feature_batch": "select count(*)::int from public.get_item_embedding_feature_batch(5)",
    "recommend_videos": "select count(*)::int from public.recommend_videos()",
    "recommend_videos for another": f"select count(*)::int from public.recommend_videos(p_user_id => '{OTHER}')",
    "embed_user for another": f"select (public.embed_user(p_user_id => '{OTHER}') ->> 'success')::bool::int",
    "next_videos": "select count(*)::int from public.next_videos()",
    "log_shown": f"""select public.log_shown(jsonb_build_array(jsonb_build_object(
        'video_id', '{WORLD.published[3]}', 'list_id', '{NOBODY}', 'rank', 1, 'reason', 'taste')))""",
    "recommend_from": f"select count(*)::int from public.recommend_from(array['{WORLD.published[3]}']::uuid[])",
    "popular_videos_now": "select count(*)::int from public.popular_videos_now()",
    "trending_videos": "select count(*)::int from public.trending_videos()",
    "claim_session": f"select public.claim_session(array['{WORLD.videos[0]}']::uuid[])",
    "rank_candidates": f"select count(*)::int from public.rank_candidates(array['{WORLD.published[3]}']::uuid[])",
    "set_choices": "select (public.set_choices(personalised => true) ->> 'personalised')::bool::int",
    "set_choices for another": f"select (public.set_choices(p_user_id => '{OTHER}') ->> 'trained_on')::bool::int",
    "export_user_data": "select jsonb_array_length(public.export_user_data() -> 'decisions')",
    "export_user_data for another": f"select jsonb_array_length(public.export_user_data('{OTHER}') -> 'decisions')",
    "similar_videos": f"select count(*)::int from public.similar_videos('{WORLD.published[3]}')",
}


def calls_of_routines(db: Connection) -> list[tuple[str, str, str]]:
    """Signature, volatility and a call with nulls of each routine in schema two_tower."""
    routines = db.execute(
        # A strict function with a constant null is answered before the caller's privilege is checked.
        """select p.oid::regprocedure::text, p.provolatile::text, p.prokind::text, coalesce(array_agg(
                format(case p.prokind when 'p' then 'null::%s' else '(select null::%s)' end, format_type(a.type, null))
            order by a.at) filter (where a.type is not null), '{}'), p.proretset, format('%I.%I', n.nspname, p.proname)
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        left join lateral unnest(p.proargtypes::oid[]) with ordinality as a (type, at) on true
        where n.nspname = 'two_tower' group by p.oid, n.nspname order by p.oid::regprocedure::text collate "C" """
    ).fetchall()
    calls = []
    for signature, volatility, kind, arguments, many, name in routines:
        inner = ", ".join(arguments)
        query = (
            f"call {name}({inner})"
            if kind == "p"
            else f"select 1 from {name}({inner})"
            if many
            else f"select {name}({inner})"
        )
        calls.append((signature, volatility, query))
    return calls


def answers_of_routines(db: Connection, client: Client) -> list[str]:
    lines = []
    for name, query in RPCS.items():
        got = {asker: attempt(client, asker, query) for asker in ASKERS}
        lines.append(line(f"public.{name}", got))
    for signature, _, query in calls_of_routines(db):
        got = {asker: attempt(client, asker, query) for asker in ("anon", "nobody", "me", "viewer")}
        lines.append(line(signature, got))
    return lines


def test_access_of_every_role_equals_the_golden_file(
    db: Connection, anyone: Client, request: pytest.FixtureRequest
) -> None:
    refresh(db)
    found = "\n".join(
        ["# relations", *rows_of_relations(db, anyone), "", "# routines", *answers_of_routines(db, anyone), ""]
    )
    path = catalogue_dump.GOLDEN / "access.txt"
    if request.config.getoption("--golden-update"):
        path.write_text(found)
    difference = "\n".join(
        difflib.unified_diff(path.read_text().splitlines(), found.splitlines(), "golden", "found", "", "", 1)
    )
    assert not difference, f"{difference}\n\nWhere the change is meant: pytest tests/test_security.py --golden-update"


def test_every_public_routine_is_in_the_access_matrix(db: Connection) -> None:
    ours = column(
        db,
        """select p.proname from pg_proc p where p.pronamespace = 'public'::regnamespace
        and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')""",
    )
    assert set(ours) == {name.split()[0] for name in RPCS}


# -------------------------------------------------------------------------------------------- own rows


def test_a_user_sees_only_their_own_rows(db: Connection, client: Client) -> None:
    with client.as_("authenticated", ME) as connection:
        for name in ("profiles", "user_video_decisions", "user_features", "user_embeddings"):
            assert set(column(connection, f"select user_id from public.{name}")) == {ME}
        assert set(column(connection, "select user_id from two_tower.user_embeddings")) == {ME}
        decided = column(connection, "select video_id from public.user_video_decisions")
    assert set(decided) == WORLD.decided(ME)


def test_no_routine_of_clients_takes_another_user(db: Connection, client: Client) -> None:
    """Each that a client may execute and that has an argument for a user, with any other arguments."""
    routines = db.execute(
        """select p.oid::regprocedure::text, format('%I.%I(%s)', n.nspname, p.proname, string_agg(
            case when p.proargnames[a.at] ~ '(user|viewer|reviewer)_id$' then '$user'
                else format('null::%s', format_type(a.type, null)) end,
            ', ' order by a.at
        ))
        from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        cross join lateral unnest(p.proargtypes::oid[]) with ordinality as a (type, at)
        where n.nspname in ('public', 'two_tower') and p.prokind = 'f'
            and exists (
                select from unnest(array['anon', 'authenticated']) as r (name)
                where has_function_privilege(r.name, p.oid, 'execute')
            )
        group by p.oid, n.nspname
        having bool_or(a.type = 'uuid'::regtype and p.proargnames[a.at] ~ '(user|viewer|reviewer)_id$')"""
    ).fetchall()
    assert len(routines) > 5
    for role, user in (("authenticated", ME), ("anon", None)):
        for signature, call in routines:
            query = "select * from " + call.replace("$user", f"'{OTHER}'::uuid")
            try:
                with client.as_(role, user) as connection:
                    answer = connection.execute(query.encode()).fetchall()
            except errors.InsufficientPrivilege:
                continue
            pytest.fail(f"{signature} answers {role}: {answer}")


def test_another_users_token_gives_the_other_rows(client: Client) -> None:
    """In the same connection, one transaction after the other, as in a pool."""
    for user in (ME, OTHER, ME):
        with client.as_("authenticated", user) as connection:
            assert set(column(connection, "select user_id from public.user_embeddings")) == {user}
    with client.as_("authenticated") as connection:
        assert column(connection, "select user_id from public.user_embeddings") == []


def test_a_user_edits_only_their_own_decisions(db: Connection, client: Client) -> None:
    free = next(v for v in WORLD.videos if v not in WORLD.decided(ME) | WORLD.decided(OTHER))
    insert = "insert into public.user_video_decisions (user_id, video_id, decision_type) values (%s, %s, 'like')"
    with client.as_("authenticated", ME) as connection:
        connection.execute(insert, (ME, free))
        connection.execute("update public.user_video_decisions set decision_type = 'nope' where video_id = %s", (free,))
        done = connection.execute("delete from public.user_video_decisions where video_id = %s", (free,))
        assert done.rowcount == 1
        assert connection.execute("update public.user_video_decisions set decision_type = 'nope'").rowcount == len(
            WORLD.decided(ME)
        )
        theirs = connection.execute("delete from public.user_video_decisions where user_id = %s", (OTHER,))
        assert theirs.rowcount == 0
    with (
        pytest.raises(errors.InsufficientPrivilege, match="row-level security"),
        client.as_("authenticated", ME) as connection,
    ):
        connection.execute(insert, (OTHER, free))
    with (
        pytest.raises(errors.InsufficientPrivilege, match="row-level security"),
        client.as_("authenticated", ME) as connection,
    ):
        connection.execute("update public.user_video_decisions set user_id = %s", (OTHER,))
    with pytest.raises(errors.InsufficientPrivilege), client.as_("anon") as connection:
        connection.execute(insert, (ME, free))
    kept = column(db, "select video_id from user_video_decisions where user_id = %s", OTHER)
    assert set(kept) == WORLD.decided(OTHER)


@pytest.mark.sampled(12)
@pytest.mark.parametrize(
    "write",
    [
        "update public.user_embeddings set embedding = embedding",
        "delete from public.user_embeddings",
        "insert into public.user_embeddings (user_id) select auth.uid()",
        "update public.user_features set like_count = 9",
        "update public.videos set title = 'mine'",
        "delete from public.video_tags",
        "insert into two_tower.user_changes (user_id) select auth.uid()",
        "insert into two_tower.user_change_log (user_id) select auth.uid()",
        "select two_tower.collect_user_changes()",
        "update two_tower.model_versions set state = 'active'",
        "select liked from two_tower.video_tastes",
        "select weight from two_tower.model_weights",
        "insert into two_tower.model_weights values ('v9', 'user', 'bias', 0, '[1]')",
        "select content from two_tower.model_files",
        "select * from two_tower.model_versions",
        "table auth.users",
        "table two_tower._yoyo_migration",
        "set role service_role; table public.profiles",
        "set session authorization postgres",
        "select pg_read_file('/etc/passwd')",
        "copy public.videos to '/tmp/x'",
        "create function public.evil() returns int language plpython3u as 'return 1'",
        "do language plpython3u 'plpy.notice(1)'",
        "create schema evil",
        "create table public.evil (a int)",
        "create table two_tower.evil (a int)",
        "create table extensions.evil (a int)",
        "alter function public.recommend_videos reset search_path",
        "drop function public.recommend_videos",
        "grant service_role to authenticated",
        "lock table public.videos in access exclusive mode",
        "alter table public.user_video_decisions disable trigger all",
        "set session_replication_role = replica",
        "analyze two_tower.user_changes",
        "comment on table public.videos is 'mine'",
    ],
)  # fmt: skip
def test_a_hostile_session_cannot_write_or_switch_roles(write: str, db: Connection, client: Client) -> None:
    """As ``authenticated``, with any SQL; ``set role`` is a right of the pooled login, not of the token's role."""
    before = one(db, "select count(*) from two_tower.pending_users")
    with client.as_("authenticated", ME) as connection:
        if write.startswith("set role"):
            # The login may set roles, but PostgREST accepts no SQL; the token's role is a member of no other.
            assert one(connection, "select count(*) from pg_auth_members where member = 'authenticated'::regrole") == 0
        elif write.startswith("analyze"):
            connection.execute(write.encode())  # only a warning
        else:
            with pytest.raises((errors.InsufficientPrivilege, errors.ActiveSqlTransaction)), connection.transaction():
                connection.execute(write.encode())
    assert one(db, "select count(*) from two_tower.pending_users") == before
    assert one(db, "select state from two_tower.model_versions") == "active"


def test_everybody_can_read_the_catalogue(client: Client) -> None:
    for role in ("anon", "authenticated"):
        with client.as_(role) as connection:
            assert one(connection, "select count(*) from public.videos") == len(WORLD.videos)
            assert one(connection, "select count(*) from public.video_tags") == len(WORLD.video_tags)


def test_only_signed_in_users_read_embeddings_of_videos(client: Client) -> None:
    with client.as_("authenticated", ME) as connection:
        assert one(connection, "select count(*) from public.video_embeddings") == len(WORLD.videos)
    with pytest.raises(errors.InsufficientPrivilege), client.as_("anon") as connection:
        connection.execute("select * from public.video_embeddings")


@pytest.mark.world(models=2)
def test_clients_see_only_the_active_version(db: Connection, client: Client) -> None:
    with client.as_("authenticated", ME) as connection:
        assert column(connection, "select version from two_tower.model_versions") == ["v2"]
        assert column(connection, "select distinct model_version from public.user_embeddings") == ["v2"]


# -------------------------------------------------------------------------------------------- SQL in texts

INJECTIONS = [
    "v1'; drop table public.videos; --",
    'v1"; select pg_sleep(9); --',
    "%s%n%I%L",
    "../../etc/passwd",
    "\\'; --",
    "$$",
]
TEXT_ARGUMENTS = [
    "select two_tower.activate_model(%s)",
    "select two_tower.rollback_model(%s)",
    "select two_tower.retire_model(%s)",
    "call two_tower.backfill_model(%s)",
    "select two_tower.stage_model(%s)",
    "select two_tower.stage_given(%s, '{}')",
    "select two_tower.add_given(%s, 'video', '{}', '{}')",
    "select two_tower.close_given(%s)",
    "select two_tower.finish_backfill(%s)",
    "select two_tower.backfill_batch(%s, 'user')",
    "select two_tower.backfill_batch('v1', %s)",
    "select two_tower.rebuild_batch(%s)",
    "select two_tower.refresh_set(%s, '{}')",
    "select * from two_tower.embed_users('{}', %s)",
    "select * from two_tower.embed_videos('{}', %s)",
    "select two_tower.require_model(%s)",
    "select two_tower.infer(%s, 'user', '{}')",
    "select two_tower.infer('v1', %s, '{}')",
    "select two_tower.infer('v1', 'user', '{}', %s)",
    "select two_tower.infer_sql(%s, 'user', '{}')",
    "select two_tower.infer_sql('v1', %s, '{}')",
    "select two_tower.sum_users('{}', %s)",
    "select two_tower.compute_users('{}', %s)",
    "select two_tower.define_users('{}', 'v1', %s)",
    "select two_tower.compute_videos('{}', %s)",
    "select two_tower.compute_tastes('{}', %s)",
    "select * from two_tower.encode_users('{}', %s)",
]


def test_sql_in_a_text_argument_stays_text(db: Connection) -> None:
    db.execute("set statement_timeout = '5s'")
    kept = """select (select count(*) from videos)::text
        || (select jsonb_agg(to_jsonb(m) order by m.version) from two_tower.model_versions m)"""
    before = one(db, kept)
    for call, text in product(TEXT_ARGUMENTS, INJECTIONS):
        refused = None
        try:
            db.execute(call.encode(), (text,))
        except psycopg.Error as error:
            refused = error.sqlstate
        assert refused not in ("42601", "42P01", "57014", "XX000"), (call, text)  # syntax, table, timeout, internal
        assert one(db, kept) == before, (call, text)


def test_names_of_the_catalogue_stay_text(db: Connection, client: Client) -> None:
    """A maker is a key of JSON, an entry of a vocabulary, a word in a message: never a piece of SQL."""
    for text in INJECTIONS:
        db.execute("update videos set maker = %s, title = %s where id = %s", (text, text, WORLD.published[3]))
        db.execute(
            "insert into user_video_decisions values (%s, %s, 'like') on conflict do nothing", (ME, WORLD.published[3])
        )
        refresh(db)
        (payload,) = client.rpc("authenticated", ME, "get_user_embedding_features", user_id=ME)
        assert payload["liked_makers"][text] == 1
    assert one(db, "select count(*) from videos") == len(WORLD.videos)


# -------------------------------------------------------------------------------------------- stand-ins

# Functions and operators that raise errors, in a schema that the session puts first in its path.
TRAPS = """
create schema evil;
grant usage on schema evil to public;
do $traps$
declare
    v_operator text;
    v_type text;
begin
    for v_operator, v_type in
        values ('=', 'uuid'), ('=', 'text'), ('<>', 'text'), ('<>', 'uuid'), ('>', 'int'), ('<', 'int'),
            ('<=', 'timestamptz'), ('<=>', 'extensions.halfvec'), ('||', 'uuid[]'), ('->>', 'text'), ('+', 'int')
    loop
        execute format($f$create or replace function evil.trap(%1$s, %1$s) returns boolean
            language plpgsql as 'begin raise ''trapped''; end'$f$, v_type);
        execute format(
            'create operator evil.%s (leftarg = %s, rightarg = %2$s, function = evil.trap)', v_operator, v_type
        );
    end loop;
end
$traps$;
create function evil.now() returns timestamptz language plpgsql as 'begin raise ''trapped''; end';
create function evil.cardinality(anyarray) returns int language plpgsql as 'begin raise ''trapped''; end';
create function evil.upper(text) returns text language plpgsql as 'begin raise ''trapped''; end';
create function evil.sha256(bytea) returns bytea language plpgsql as 'begin raise ''trapped''; end';
create function evil.current_setting(text, boolean) returns text language plpgsql as 'begin raise ''trapped''; end';
create function evil.pg_has_role(name, name, text) returns boolean language plpgsql as 'begin raise ''trapped''; end';
create function evil.pg_has_role(text, text, text) returns boolean language plpgsql as 'begin raise ''trapped''; end';
create table evil.videos (id uuid);
create table evil.user_video_decisions (user_id uuid);
create table evil.model_versions (version text, state text);
"""
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("recommend_videos", {"limit": 50}),
    ("recommend_videos", {"tag_ids": [str(t) for t in WORLD.tags[:5]]}),
    ("recommend_videos", {"exclude": [str(v) for v in WORLD.published[:50]]}),
    ("similar_videos", {"video_id": str(WORLD.published[3])}),
    ("recommend_from", {"liked": [str(v) for v in WORLD.published[:3]], "noped": [str(WORLD.published[4])]}),
    ("popular_videos_now", {"limit": 50}),
    ("rank_candidates", {"video_ids": [str(v) for v in WORLD.published[:9]]}),
    ("trending_videos", {"window": "30 days"}),
    ("embed_user", {"force": True}),
    ("update_user_features", {"p_user_id": str(ME)}),
    ("get_user_embedding_features", {"user_id": str(ME)}),
    ("get_item_embedding_features", {"video_id": str(WORLD.videos[5])}),
]


@pytest.mark.sampled
@pytest.mark.parametrize(
    "forge",
    [
        "set local search_path = evil, pg_catalog, public",
        "create temp table videos (id uuid); create temp table user_video_decisions (user_id uuid, video_id uuid); "
        "create temp table model_versions (version text, state text); create temp table user_embeddings (id uuid); "
        "set local search_path = pg_temp, evil, pg_catalog, public",
    ],
    ids=["search path", "temporary tables"],
)
@pytest.mark.parametrize(("name", "arguments"), ASKED)
def test_a_forged_search_path_changes_nothing(
    forge: str, name: str, arguments: dict[str, Any], db: Connection, client: Client
) -> None:
    db.execute(TRAPS.encode())
    expected = client.rpc("authenticated", ME, name, **arguments)
    with client.as_("authenticated", ME) as connection:
        query, values = prepared(connection, name, arguments)
        connection.execute(forge.encode())
        trapped = "select 'a'::text = 'b'::text"
        with pytest.raises(errors.RaiseException, match="trapped"), connection.transaction():
            connection.execute(trapped.encode())
        found = [row[0] for row in connection.execute(query, values)]
    assert found == expected


def prepared(connection: Connection, name: str, arguments: dict[str, Any]) -> tuple[sql.Composed, list[Any]]:
    """A call with only qualified names, so that only the routine itself can use wrong objects."""
    arrays = dict.fromkeys(("tag_ids", "exclude", "liked", "noped", "video_ids"), "_uuid")
    types = {"limit": "int4", "force": "bool", "window": "interval"} | arrays
    parts = [
        sql.SQL("{} => %s::pg_catalog.{}").format(sql.Identifier(key), sql.SQL(types.get(key, "uuid")))
        for key in arguments
    ]
    query = sql.SQL("select pg_catalog.to_jsonb(answer) from public.{}({}) as answer")
    return query.format(sql.Identifier(name), sql.SQL(", ").join(parts)), list(arguments.values())


def test_decisions_under_a_forged_search_path_are_logged(db: Connection, client: Client) -> None:
    db.execute(TRAPS.encode())
    free = next(v for v in WORLD.videos if v not in WORLD.decided(ME))
    with client.as_("authenticated", ME) as connection:
        connection.execute("set local search_path = evil, pg_catalog, public")
        connection.execute("insert into public.user_video_decisions values (%s, %s, 'like')", (ME, free))
    assert column(db, "select user_id from two_tower.pending_users") == [ME]


@pytest.mark.parametrize("view", ["user_embeddings", "video_embeddings"])
def test_a_forged_search_path_does_not_change_views(view: str, db: Connection, client: Client) -> None:
    db.execute(TRAPS.encode())
    query = f"select pg_catalog.count(v.model_version) from public.{view} v"
    with client.as_("authenticated", ME) as connection:
        expected = one(connection, query)
        connection.execute("set local search_path = evil, pg_catalog, public")
        assert one(connection, query) == expected > 0


@pytest.mark.parametrize(
    "setting",
    ["hnsw.ef_search = 1", "hnsw.iterative_scan = off", "enable_indexscan = off", "enable_seqscan = off",
     "row_security = off", "plan_cache_mode = force_generic_plan", "work_mem = '64kB'",
     "timezone = 'Asia/Tokyo'", "extra_float_digits = -15"],
)  # fmt: skip
def test_no_setting_of_a_session_changes_an_answer(setting: str, client: Client) -> None:
    expected = [row["video_id"] for row in client.rpc("authenticated", ME, "recommend_videos", limit=100)]
    with client.as_("authenticated", ME) as connection:
        connection.execute(f"set local {setting}".encode())
        assert [row["video_id"] for row in rpc(connection, "recommend_videos", limit=100)] == expected


def test_a_routine_leaves_no_setting_behind(client: Client) -> None:
    # store_user_features() sets a faster compression of new rows until the transaction ends.
    watched = """select jsonb_object_agg(name, setting) from pg_settings
        where name !~ 'transaction' and name <> 'default_toast_compression'"""
    with client.as_("authenticated", ME) as connection:
        before = one(connection, watched)
        for name, arguments in ASKED:
            rpc(connection, name, **arguments)
        after = one(connection, watched)
    # Libraries add their settings when they are first used.
    assert {name: after[name] for name in before} == before
    assert after.get("hnsw.ef_search", "40") == "40"


# -------------------------------------------------------------------------------------------- the service


def test_the_service_operates_everything_without_owning_it(db: Connection, client: Client) -> None:
    """Everything that an operator needs: import, refresh, retrain, roll back."""
    from world_fixtures import random_model, register, schema_of

    model = random_model(schema_of(db), seed=2)
    with client.as_("service_role") as connection:
        connection.execute(
            "insert into public.user_video_decisions values (%s, %s, 'like')", (WORLD.no_decisions, WORLD.videos[0])
        )
        register(connection, model, "v2")
    for call in (
        "call two_tower.refresh()",
        "call two_tower.backfill_model('v2')",
        "select two_tower.activate_model('v2')",
        "select two_tower.rollback_model()",
        "select two_tower.retire_model('v2')",
        "select two_tower.sync_user_embeddings()",
        "select two_tower.sync_video_embeddings()",
        "select two_tower.update_popularity()",
        "call two_tower.rebuild()",
        "table two_tower.status",
        "table two_tower.models",
        "table two_tower.job_log",
        "table two_tower.failed_changes",
    ):
        service = client.connection
        service.rollback()
        service.autocommit = True
        service.execute("set role service_role")
        service.execute(call.encode())
        service.execute("reset role")
        service.autocommit = False
    assert one(db, "select state from two_tower.models where version = 'v2'") == "retired"
    assert one(db, "select count(*) from public.user_embeddings where user_id = %s", WORLD.no_decisions) == 1


def test_a_role_claimed_in_a_token_has_no_effect(client: Client) -> None:
    """The role is the one that PostgREST set, whatever the token claims."""
    claims = json.dumps({"sub": str(ME), "role": "service_role", "app_metadata": {"role": "service_role"}})
    with client.as_("authenticated", ME) as connection:
        connection.execute("select set_config('request.jwt.claims', %s, true)", (claims,))
        refused: list[Callable[[], Any]] = [
            lambda: rpc(connection, "get_user_embedding_features", user_id=str(OTHER)),
            lambda: rpc(connection, "update_user_features", p_user_id=str(OTHER)),
            lambda: rpc(connection, "get_user_embedding_feature_batch"),
        ]
        for ask in refused:
            with pytest.raises(errors.InsufficientPrivilege), connection.transaction():
                ask()


def test_every_client_role_has_a_statement_timeout(db: Connection, client: Client) -> None:
    """PostgREST applies it when it switches to the role, and the server at login."""
    found = dict(
        db.execute(
            """select rolname, substring(c.setting from '=(.*)')
            from pg_roles cross join unnest(rolconfig) as c (setting)
            where rolname in ('anon', 'authenticated', 'authenticator') and c.setting like 'statement_timeout=%'"""
        ).fetchall()
    )
    assert found == {"anon": "3s", "authenticated": "8s", "authenticator": "8s"}
    assert one(client.connection, "show statement_timeout") == "8s"


def test_the_login_of_postgrest_has_no_rights_of_its_own(client: Client, connect: Connect) -> None:
    for query in ("table public.videos", "select * from public.recommend_videos()", "table two_tower.status"):
        with pytest.raises(errors.InsufficientPrivilege), client.connection.transaction():
            client.connection.execute(query.encode())
