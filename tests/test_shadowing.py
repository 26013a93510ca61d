"""Objects that a session creates never run under another role than the session's own (I6).

A session may have a temporary schema, in which types are found first unless the path says otherwise, and may set any
``search_path``. Here a hostile one shadows every type of ``pg_catalog`` and ``extensions``, every operator and function
that our sources could use, and every relation. Each stand-in does the same as the original, and reports if it runs as
another role than the caller. The catalogue lists what is called: every routine that a client, the viewer or the service
may execute, every view that each may read, every trigger that their writes fire.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
import pytest

from conftest import Connection, NewDatabase, in_database
from world_fixtures import make_world, one, random_model, register, schema_of

WORLD = make_world()
ROLES = ("anon", "authenticated", "service_role", "two_tower_viewer")
LOGIN = "shadowing_login"
CLAIMS = f'{{"sub": "{WORLD.usual}"}}'

# Relations and functions of the caller are in a schema of their own, which comes right after pg_temp.
STAND_INS = r"""
create schema evil;
grant usage on schema evil to public;

-- Not raised but told: an exception would be caught, or end the call before the next one of them is met.
create function evil.told(what pg_catalog.text) returns pg_catalog.bool language plpgsql as $f$
begin
    if current_user::pg_catalog.text operator(pg_catalog.<>) pg_catalog.current_setting('evil.caller') then
        raise notice 'shadow: % ran as %', what, current_user;
    elsif pg_catalog.current_setting('evil.loud') operator(pg_catalog.=) 'on' then
        raise notice 'own: % ran as %', what, current_user;
    end if;
    return true;
end
$f$;

do $make$
declare
    f record;
    words pg_catalog.text[];
begin
    -- Every word of a routine's body or of a view, so that nothing depends on how a call is written.
    select array_agg(distinct w[1]) into words
    from (
        select p.prosrc as source from pg_proc p
        where p.pronamespace in ('two_tower'::regnamespace, 'public'::regnamespace, 'auth'::regnamespace)
        union all
        select pg_get_viewdef(c.oid) from pg_class c
        where c.relkind = 'v' and c.relnamespace in ('two_tower'::regnamespace, 'public'::regnamespace)
    ) as s
    cross join lateral regexp_matches(s.source, '\m[a-z_][a-z_0-9]*\M', 'g') as w;

    for f in
        select p.proname, p.proretset, pg_get_function_identity_arguments(p.oid) as arguments,
            array(select format_type(t, null) from unnest(p.proargtypes::oid[]) as t) as types,
            format_type(p.prorettype, null) as returned, n.nspname
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname in ('pg_catalog', 'extensions') and p.prokind = 'f' and p.provariadic = 0
            and p.proargmodes is null and p.proname = any (words)
            and not exists (
                select from unnest(p.proargtypes::oid[] || p.prorettype) as a (type) join pg_type t on t.oid = a.type
                where t.typtype = 'p' and t.typname !~ '^any(element|array|compatible|compatiblearray)$'
                    and t.typname <> 'void'
            )
            and not (format_type(p.prorettype, null) ~ '^any' and not exists (
                select from unnest(p.proargtypes::oid[]) as a where format_type(a, null) ~ '^any'
            ))
    loop
        execute format(
            'create function evil.%I(%s) returns %s %s language plpgsql as %L', f.proname,
            array_to_string(f.types, ', '), case when f.proretset then 'setof' end, f.returned, format(
                'begin perform evil.told(%L); %s; end', f.proname || '()', case
                    when f.proretset then 'return query select ' || format('%I.%I', f.nspname, f.proname)
                    when f.returned = 'void' then 'perform ' || format('%I.%I', f.nspname, f.proname)
                    else 'return ' || format('%I.%I', f.nspname, f.proname)
                end || '(' || (
                    select coalesce(string_agg('$' || i, ', '), '') from generate_series(1, cardinality(f.types)) i
                ) || ')'
            )
        );
    end loop;

    for f in
        select o.oid, o.oprname, n.nspname, format_type(nullif(o.oprleft, 0), null) as l,
            format_type(o.oprright, null) as r, format_type(o.oprresult, null) as result
        from pg_operator o join pg_namespace n on n.oid = o.oprnamespace
        where n.nspname in ('pg_catalog', 'extensions') and o.oprcode <> 0
            and not exists (
                select from pg_type t where t.oid in (o.oprleft, o.oprright, o.oprresult) and t.typtype = 'p'
                    and t.typname !~ '^any(element|array|compatible|compatiblearray)$'
            )
    loop
        execute format(
            'create function evil.%I(%s) returns %s language plpgsql as %L', 'op' || f.oid,
            concat_ws(', ', f.l, f.r), f.result, format(
                'begin perform evil.told(%L); return %s operator(%s.%s) %s; end', 'operator ' || f.oprname,
                case when f.l is not null then '$1' end, f.nspname, f.oprname,
                case when f.l is null then '$1' else '$2' end
            )
        );
        execute format(
            'create operator evil.%s (%s rightarg = %s, function = evil.%I)', f.oprname,
            case when f.l is not null then format('leftarg = %s,', f.l) end, f.r, 'op' || f.oid
        );
    end loop;

    for f in
        select n.nspname, c.relname, (
            -- A view has no column of a pseudo-type.
            select string_agg(quote_ident(a.attname), ', ' order by a.attnum) from pg_attribute a
            where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.atttypid <> 'anyarray'::regtype
        ) as columns
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p', 'v') and not c.relispartition and (
            n.nspname in ('two_tower', 'auth', 'public') or n.nspname = 'pg_catalog' and c.relname = any (words)
        )
        order by n.nspname in ('pg_catalog', 'public')
    loop
        begin
            execute format(
                'create view evil.%2$I as select %4$s from %1$I.%2$I where evil.told(%3$L)', f.nspname, f.relname,
                'relation ' || f.relname, f.columns
            );
        exception when duplicate_table then null;  -- a view in public of a table of the same name in two_tower
        end;
    end loop;
end
$make$;
grant select on all tables in schema evil to public;
"""


@pytest.fixture
def hostile(database: NewDatabase, world_template: str) -> Iterator[str]:
    """The DSN of a world with the stand-ins, for a login that may only switch to each of ROLES."""
    dsn = database(template=world_template)
    name = urlsplit(dsn).path.removeprefix("/")
    with psycopg.connect(dsn, autocommit=True) as db:
        register(db, random_model(schema_of(db), seed=2), "v2")
        db.execute(STAND_INS.encode())
        login = f"{name}_{LOGIN}"
        db.execute(f"create role {login} login noinherit in role {', '.join(ROLES)}".encode())
        yield in_database(dsn, name, login)
        db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = %s and pid <> pg_backend_pid()",
            (login,),
        )
        db.execute(f"drop owned by {login}; drop role {login}".encode())


def types_of(db: Connection) -> list[str]:
    """Every base type, enum and range of ``pg_catalog`` and ``extensions``, as it is written with its schema."""
    rows = db.execute(
        """select format('%I.%I', n.nspname, t.typname) from pg_catalog.pg_type t
        join pg_catalog.pg_namespace n on n.oid = t.typnamespace
        where n.nspname in ('pg_catalog', 'extensions') and t.typtype in ('b', 'e', 'r') and t.typelem = 0 or
            n.nspname = 'pg_catalog' and t.typname in ('name', 'point', 'box')
        order by 1"""
    )
    return [name for (name,) in rows]


def types_in_sources(db: Connection) -> list[str]:
    """Those of :func:`types_of` that are named in our bodies, arguments, variables or prepared queries."""
    source = one(
        db,
        """select pg_catalog.string_agg(pg_catalog.pg_get_functiondef(p.oid), ' ') from pg_catalog.pg_proc p
        where p.prokind in ('f', 'p') and p.pronamespace in ('two_tower'::regnamespace, 'public'::regnamespace)
            and p.prosrc not like '%%onnxruntime%%'""",
    )
    words = set(re.findall(r"\w+", source))
    return [name for name in types_of(db) if name.split(".")[1].strip('"') in words]


class Session:
    """A connection of a role, optionally with objects that shadow those that we use."""

    def __init__(self, dsn: str, role: str) -> None:
        self.connection = psycopg.connect(dsn, autocommit=True, prepare_threshold=None)
        self.role = role
        self.told: list[str] = []
        self.connection.add_notice_handler(lambda notice: self.told.append(notice.message_primary or ""))
        self.connection.execute("set statement_timeout = '60s'")
        self.connection.execute(f"set role {role}".encode())
        self.connection.execute("select set_config('request.jwt.claims', %s, false)", (CLAIMS,))
        self.connection.execute(
            "select set_config('evil.caller', %s, false), set_config('evil.loud', 'off', false)", (role,)
        )

    def shadow(self, types: list[str]) -> None:
        """Create stand-ins of ``types`` in pg_temp, and put pg_temp and the stand-ins first in the path."""
        made = [
            f"create domain pg_temp.{name.split('.')[1]} as {name} check (evil.told('type {name}'))" for name in types
        ]
        self.connection.execute("; ".join(made).encode())
        self.connection.execute("set search_path = pg_temp, evil, pg_catalog, public, extensions")

    def shadows(self) -> list[str]:
        return sorted({line for line in self.told if line.startswith("shadow")})

    def outcome(self, statement: str, *, keep: bool = False) -> str:
        """The number of rows of a statement, or the SQLSTATE of its refusal. It is undone unless ``keep``."""
        try:
            if keep:
                cursor = self.connection.execute(statement.encode())
                return f"{cursor.rowcount} rows"
            with self.connection.transaction(force_rollback=True):
                cursor = self.connection.execute(statement.encode())
                return f"{cursor.rowcount} rows"
        except psycopg.Error as error:
            return f"{error.sqlstate}: {error.diag.message_primary}"


@contextmanager
def session(dsn: str, role: str) -> Iterator[Session]:
    opened = Session(dsn, role)
    try:
        yield opened
    finally:
        opened.connection.close()


Ids = tuple[UUID, UUID]


def argument(name: str, kind: str, users: Ids, videos: Ids) -> str:
    """A value with which a call passes its first checks."""
    these = videos if "video" in name or name in ("p_ids", "p_excluded") else users
    values = {
        "uuid": f"'{these[0]}'",
        "uuid[]": f"array['{these[0]}', '{these[1]}']",
        "text": "'user'" if name in ("p_kind", "p_tower") else "'v1'",
        "text[]": "array['v1']",
        "integer": "5",
        "interval": "'1 day'",
        "boolean": "false",
        "real": "0.1",
        "double precision": "0.1",
        "extensions.halfvec": "pg_catalog.array_fill(0.1::pg_catalog.float4, array[128])::extensions.halfvec",
    }
    kind_in_full = {"integer": "int4", "boolean": "bool", "real": "float4", "double precision": "float8"}.get(
        kind, kind
    )
    schema = "" if "." in kind else "pg_catalog."
    return f"{values.get(kind, 'null')}::{schema}{kind_in_full}"


def calls(
    db: Connection,
    role: str,
    users: Ids = (WORLD.usual, WORLD.many),
    videos: Ids = (WORLD.published[3], WORLD.videos[5]),
) -> dict[str, str]:
    """Every routine that ``role`` may execute, and every view that it may read → a statement that does so."""
    found: dict[str, str] = {}
    routines = db.execute(
        """select format('%%I.%%I', n.nspname, p.proname), p.oid::regprocedure::text, p.prokind::text,
            coalesce(p.proargnames, '{}'), array(select format_type(t, null) from unnest(p.proargtypes::oid[]) as t)
        from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where n.nspname in ('two_tower', 'public', 'auth') and has_function_privilege(%s, p.oid, 'execute')
            and has_schema_privilege(%s, n.oid, 'usage') and p.prorettype <> 'trigger'::regtype
            and not exists (select from pg_catalog.pg_depend d where d.objid = p.oid and d.deptype = 'e')
        order by 2""",
        (role, role),
    ).fetchall()
    for name, signature, kind, names, types in routines:
        inner = ", ".join(argument(*given, users, videos) for given in zip(names, types, strict=False))
        found[signature] = f"call {name}({inner})" if kind == "p" else f"select * from {name}({inner})"
    for (name,) in db.execute(
        """select format('%%I.%%I', n.nspname, c.relname)
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where n.nspname in ('two_tower', 'public') and c.relkind = 'v' and has_table_privilege(%s, c.oid, 'select')
            and has_schema_privilege(%s, n.oid, 'usage') order by 1""",
        (role, role),
    ).fetchall():
        found[name] = f"select * from {name}"
    return found


def writes(role: str) -> list[str]:
    """Statements that fire every trigger that ``role`` may fire."""
    free = next(v for v in WORLD.published if v not in WORLD.decided(WORLD.usual))
    decisions = "public.user_video_decisions"
    of_users = [
        f"insert into {decisions} (user_id, video_id, decision_type) values ('{WORLD.usual}', '{free}', 'like')",
        f"insert into {decisions} (user_id, video_id, decision_type) select user_id, video_id, 'nope' from {decisions} "
        f"where user_id = '{WORLD.usual}' on conflict (user_id, video_id) do update set decision_type = 'like'",
        f"update {decisions} set decision_type = 'nope' where user_id = '{WORLD.usual}'",
        f"delete from {decisions} where user_id = '{WORLD.usual}'",
    ]
    of_the_service = [
        "insert into public.videos (product_url, title) values ('https://videos.example/new', 'new')",
        f"update public.videos set maker = 'another' where id = '{free}'",
        f"delete from public.videos where id = '{free}'",
        f"insert into public.video_tags select '{WORLD.bare_video}', id from public.tags",
        f"update public.video_tags set tag_id = tag_id where video_id = '{free}'",
        f"delete from public.video_performers where video_id = '{WORLD.videos[5]}'",
    ]
    return {"authenticated": of_users, "service_role": of_users + of_the_service}.get(role, [])


@pytest.mark.parametrize("role", ROLES)
def test_objects_of_a_session_never_run_as_another_role(role: str, hostile: str) -> None:
    """Every routine, view and write, with everything shadowed at once; each has the same result as without."""
    with session(hostile, role) as plain, session(hostile, role) as forged:
        statements = calls(plain.connection, role)
        tried = [*statements.values(), *writes(role)]
        tried = [statement for statement in tried if not statement.startswith("call ")]
        expected = {statement: plain.outcome(statement) for statement in tried}
        forged.shadow(types_of(forged.connection))
        found = {statement: forged.outcome(statement) for statement in tried}
        assert forged.shadows() == []
        assert found == expected
        # The stand-ins are effective: the session's own statements use them.
        forged.connection.execute("set evil.loud = 'on'")
        forged.connection.execute("select 'a'::text = 'b', pg_catalog.now() <= now(), count(*) from videos")
        heard = " ".join(forged.told)
        assert all(f"own: {what} ran as {role}" in heard for what in ("operator =", "now()", "relation videos"))
        assert f"own: type pg_catalog.text ran as {role}" in heard
    minimum = {"anon": 1, "authenticated": 8, "service_role": 45, "two_tower_viewer": 15}
    assert len(statements) >= minimum[role]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_shadowing_single_types_does_not_affect_routines_of_clients(role: str, hostile: str) -> None:
    """One type at a time, each in a new session without compiled routines, so that no error hides another."""
    with session(hostile, role) as plain:
        tried = list(calls(plain.connection, role).values()) + writes(role)
        expected = {statement: plain.outcome(statement) for statement in tried}
        types = types_in_sources(plain.connection)
    assert {"pg_catalog.text", "pg_catalog.uuid", "pg_catalog.jsonb", "extensions.halfvec"} <= set(types)
    for name in types:
        with session(hostile, role) as forged:
            forged.shadow([name])
            found = {statement: forged.outcome(statement) for statement in tried}
            assert (forged.shadows(), found) == ([], expected), name


def test_procedures_never_run_objects_of_a_session_as_another_role(hostile: str) -> None:
    """They commit, so they cannot set a path of their own: objects of the caller run at most as the caller."""
    with session(hostile, "service_role") as forged:
        assert forged.outcome(writes("authenticated")[2], keep=True) != "0 rows"
        procedures = [s for s in calls(forged.connection, "service_role").values() if s.startswith("call ")]
        assert {s.split("(")[0].removeprefix("call two_tower.") for s in procedures} == {
            "backfill_model",
            "rebuild",
            "refresh",
        }
        forged.shadow(types_of(forged.connection))
        for statement in [*procedures, "call two_tower.backfill_model('v2'::pg_catalog.text)"]:
            assert forged.outcome(statement, keep=True) == "-1 rows", statement
        for statement in (
            "select two_tower.activate_model('v2'::pg_catalog.text, true)",
            "select two_tower.rollback_model()",
            "select two_tower.retire_model('v2'::pg_catalog.text)",
        ):
            assert forged.outcome(statement, keep=True) == "1 rows", statement
        assert forged.shadows() == []
    with psycopg.connect(hostile) as db:
        db.execute("set role service_role")
        assert one(db, "select count(*) from two_tower.pending_users") == 0
        assert one(db, "select state from two_tower.model_versions where version = 'v2'") == "retired"


# One routine of each kind that must be found.
CANARIES = {
    "a type, by an empty path": (
        "security definer set search_path = '' as $f$ begin return 'a'::text; end $f$",
        "shadow: type pg_catalog.text ran as postgres",
    ),
    "a variable's type, by an empty path": (
        "security definer set search_path = '' as $f$ declare v jsonb := '{}'; begin return v #>> '{}'; end $f$",
        "shadow: type pg_catalog.jsonb ran as postgres",
    ),
    "an operator, by no path": (
        "security definer as $f$ begin return ('a'::pg_catalog.text = 'b'::pg_catalog.text)::pg_catalog.text; end $f$",
        "shadow: operator = ran as postgres",
    ),
    "a function, by no path": (
        "security definer as $f$ begin return now()::pg_catalog.text; end $f$",
        "shadow: now() ran as postgres",
    ),
    "a relation, by no path": (
        "security definer as $f$ begin return (select pg_catalog.max(v.title) from videos v); end $f$",
        "shadow: relation videos ran as postgres",
    ),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", CANARIES)
def test_the_check_finds_routines_that_shadowing_affects(kind: str, hostile: str, cluster: Any) -> None:
    body, told = CANARIES[kind]
    with psycopg.connect(in_database(cluster.dsn, urlsplit(hostile).path[1:]), autocommit=True) as db:
        db.execute(f"create function public.canary() returns text language plpgsql {body}".encode())
        db.execute("grant execute on function public.canary() to anon")
    with session(hostile, "anon") as forged:
        statement = calls(forged.connection, "anon")["canary()"]
        forged.shadow(types_of(forged.connection))
        forged.outcome(statement)
        assert told in forged.shadows()


def test_the_check_finds_triggers_that_shadowing_affects(hostile: str, cluster: Any) -> None:
    with psycopg.connect(in_database(cluster.dsn, urlsplit(hostile).path[1:]), autocommit=True) as db:
        db.execute(
            """create function public.canary() returns trigger language plpgsql security definer set search_path = ''
            as $f$ declare v text := 'a'; begin return null; end $f$;
            create trigger canary after insert on public.user_video_decisions
            for each statement execute function public.canary()"""
        )
    with session(hostile, "authenticated") as forged:
        forged.shadow(types_of(forged.connection))
        forged.outcome(writes("authenticated")[0])
        assert "shadow: type pg_catalog.text ran as postgres" in forged.shadows()
