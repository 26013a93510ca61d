"""What an application gets from its database: the results of all operations by all roles, and a complete dump."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from supabase_fixture import ADA, BEN, CLEO, DEVELOPER, connect_as
from world_fixtures import Client, column, one

Connection = psycopg.Connection[Any]
Answers = dict[str, str]


@dataclass(frozen=True)
class Asker:
    name: str
    role: str | None
    """The role to which PostgREST's login switches; None: a connection of the role ``postgres``."""
    user: UUID | None = None


ASKERS = (
    Asker("anon", "anon"),
    Asker("ada", "authenticated", ADA),
    Asker("ben", "authenticated", BEN),
    Asker("service", "service_role"),
    Asker("postgres", None),
)

VECTOR = "array_fill(1::real, array[128])::extensions.vector"
INSERTS = {
    "profiles": "({key}) values ({whose})",
    "videos": "(id, product_url, title) values (md5('new')::uuid, 'https://app.example/new', 'New')",
    "tags": "values (md5('new')::uuid, 'new', 'blue')",
    "performers": "values (md5('new')::uuid, 'new')",
    "video_tags": "values (md5('video 1')::uuid, md5('tag 2')::uuid)",
    "video_performers": "values (md5('video 1')::uuid, md5('performer 2')::uuid)",
    "user_video_decisions": "values ({whose}, md5('video 1')::uuid, 'like', '2025-05-01', 'tablet')",
    "watch_events": "(user_id, video_id, seconds) values ({whose}, md5('video 1')::uuid, 9)",
    "user_features": "values ({whose}, '{{}}', '{{}}', '2025-05-01')",
    "user_embeddings": f"values ({{whose}}, {VECTOR}, '2025-05-01')",
    "video_embeddings": f"values (md5('video 50')::uuid, {VECTOR}, '2025-05-01')",
}
"""A new row for each table. ``{whose}`` is first the asker's id, then another user's."""

VIEWS = ("liked_titles", "embedded_videos")
CALLS = (
    "public.recommend_videos({me}, 5)",
    "public.recommend_videos(p_user => {me}, p_limit => 5)",
    "public.similar_videos('video-1')",
    "public.similar_videos(p_slug => 'video-1')",
    "public.get_user_embedding_features('ada@app.example')",
    "public.get_user_embedding_features(p_email => 'ben@app.example')",
)
"""Calls of the application's own routines, by position and by name as PostgREST does."""

SIGN_UP = """
insert into auth.users (id, aud, role, email, raw_user_meta_data, created_at, updated_at)
values (md5('dora')::uuid, 'authenticated', 'authenticated', 'dora@app.example', '{"full_name": "dora"}', now(), now())
"""


def answers(dsn: str, calls: tuple[str, ...] = CALLS) -> Answers:
    """For each asker, table and verb: the row, or the number and a hash of rows, or the SQLSTATE. Changes nothing.

    ``dsn`` is the superuser's. ``{me}`` in a call is replaced by the asker's id.
    """
    got: Answers = {}
    with connect_as(dsn, "supabase_admin") as db, _sequences_kept(db):
        columns = {table: _columns(db, table) for table in (*INSERTS, *VIEWS)}
        for asker in ASKERS:
            with _asking(dsn, asker) as connection:
                for what, query in _tries(db, asker, columns, calls):
                    got[f"{asker.name}: {what}"] = _outcome(connection, query)
        with connect_as(dsn, "supabase_auth_admin", autocommit=False) as auth:
            got |= {f"auth: {what}": _outcome(auth, query) for what, query in _tries_of_auth(db)}
    return got


def _tries(
    db: Connection, asker: Asker, columns: dict[str, list[str]], calls: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    me, another = f"'{asker.user or ADA}'", f"'{CLEO}'"
    for table, values in INSERTS.items():
        name, key = f"public.{table}", _key(db, table) or ["id"]  # any column: the table is missing
        # Only a count, since columns may be added; but selecting all columns must stay allowed.
        yield f"{table}: select *", f"select count(*) from (select * from {name}) as t"
        for c in columns[table]:
            yield f"{table}: select {c}", f"select {c}::text from {name}"
            yield f"{table}: update {c}", f"update {name} set {c} = {c} where {key[0]} is not null"
        for whose, who in {"own": me, "another's": another}.items():
            insert = f"insert into {name} " + values.format(key=key[0], whose=who)
            conflict = f"on conflict ({', '.join(key)}) do update set {key[0]} = excluded.{key[0]}"
            yield f"{table}: insert {whose}", insert
            yield f"{table}: insert {whose}, returning", f"{insert} returning {key[0]}"
            yield f"{table}: upsert {whose}", f"{insert} {conflict}"
        yield f"{table}: delete", f"delete from {name} where {key[0]} is not null"
        yield f"{table}: truncate", f"truncate {name}"
        yield f"{table}: truncate cascade", f"truncate {name} cascade"
        yield (
            f"{table}: trigger",
            f"create trigger tried after insert on {name} execute function suppress_redundant_updates_trigger()",
        )
        yield f"{table}: references", f"select has_table_privilege('{name}', 'references')"
    for view in VIEWS:
        for c in columns[view]:
            yield f"{view}: select {c}", f"select {c}::text from public.{view}"
    yield "all tables: truncate", "truncate " + ", ".join(f"public.{table}" for table in INSERTS)
    for call in calls:
        yield f"call {call}", f"select {call.format(me=me)}::text"
    yield "sequence", "select nextval('public.watch_events_id_seq') is null"
    yield "create table", "create table public.tried ()"
    yield "create function", "create function public.tried() returns int language sql return 1"


def _tries_of_auth(db: Connection) -> Iterator[tuple[str, str]]:
    """Supabase's sign-in, with its own role: a sign-up creates a profile, a deletion removes the user's rows."""
    yield "sign up", SIGN_UP
    for user in ("ada", "ben", "cleo"):
        yield f"delete {user}", f"delete from auth.users where id = md5('{user}')::uuid"


@contextmanager
def _asking(dsn: str, asker: Asker) -> Iterator[Connection]:
    """A transaction as the asker."""
    with connect_as(dsn, "authenticator" if asker.role else DEVELOPER, autocommit=False) as connection:
        if asker.role is None:
            yield connection
        else:
            with Client(connection).as_(asker.role, asker.user):
                yield connection


def _outcome(connection: Connection, query: str) -> str:
    try:
        with connection.transaction(force_rollback=True):
            cursor = connection.execute(query.encode())
            # Deferred constraints, foreign keys above all, belong to the answer.
            rows = sorted(map(str, cursor.fetchall())) if cursor.description else None
            connection.execute("set constraints all immediate")
    except psycopg.Error as error:
        return str(error.sqlstate)
    if rows is None:
        return f"{cursor.rowcount} rows" if cursor.rowcount >= 0 else "done"
    return rows[0] if len(rows) == 1 else f"{len(rows)} rows {hashlib.sha256('|'.join(rows).encode()).hexdigest()[:8]}"


def _columns(db: Connection, table: str) -> list[str]:
    return column(
        db,
        """select quote_ident(attname) from pg_attribute
        where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attnum""",
        f"public.{table}",
    )


def _key(db: Connection, table: str) -> list[str]:
    return column(
        db,
        """select quote_ident(a.attname) from pg_index i
        cross join unnest(i.indkey::int2[]) with ordinality as k (attnum, at)
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
        where i.indrelid = to_regclass(%s) and i.indisprimary order by k.at""",
        f"public.{table}",
    )


@contextmanager
def _sequences_kept(db: Connection) -> Iterator[None]:
    """Restores sequences: a rollback does not return their numbers."""
    last = one(db, "select last_value from public.watch_events_id_seq")
    yield
    db.execute("select setval('public.watch_events_id_seq', %s)", (last,))


# ------------------------------------------------------------------------------------------------ protection

# Without our own roles, whose rights we define.
GUARDS = """
with relations as (
    select c.* from pg_class c where c.oid = any (
        select format('public.%%I', r)::regclass from unnest(%(relations)s::text[]) as r
    )
)
select format('%%s belongs to %%s', c.oid::regclass, c.relowner::regrole) from relations c
union all
select format('%%s has row security %%s, forced %%s', c.oid::regclass, c.relrowsecurity, c.relforcerowsecurity)
from relations c
union all
select format('%%s: %%s may %%s%%s', c.oid::regclass, coalesce(nullif(a.grantee, 0)::regrole::text, 'public'),
    lower(a.privilege_type), case when a.is_grantable then ' and grant it' end)
from relations c cross join aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
where a.grantee = 0 or a.grantee::regrole::text !~ '^two_tower'
union all
select format('%%s.%%I: %%s may %%s', c.oid::regclass, t.attname,
    coalesce(nullif(a.grantee, 0)::regrole::text, 'public'), lower(a.privilege_type))
from relations c join pg_attribute t on t.attrelid = c.oid cross join aclexplode(t.attacl) a
where a.grantee = 0 or a.grantee::regrole::text !~ '^two_tower'
union all
select format('policy %%s on %%s.%%s %%s for %%s to %%s: %%s / %%s', policyname, schemaname, tablename, permissive, cmd,
    roles, qual, with_check)
from pg_policies where exists (select from unnest(roles) r where r !~ '^two_tower')
    and tablename in (select relname from relations) and schemaname = 'public'
union all
select format('%%s published in %%s', pr.prrelid::regclass, p.pubname)
from pg_publication_rel pr join pg_publication p on p.oid = pr.prpubid
union all
select format('%%s belongs to %%s, %%s', p.oid::regprocedure, p.proowner::regrole, coalesce(p.proacl::text, 'default'))
from pg_proc p where p.oid = any (%(routines)s::oid[])
order by 1
"""

# What clients and PostgREST see of a table; it may grow, but must not shrink.
PARTS = """
select format('%%s %%s %%s', c.conrelid::regclass, c.conname, pg_get_constraintdef(c.oid)) from pg_constraint c
where c.connamespace = 'public'::regnamespace and c.conrelid <> 0
union all
select pg_get_indexdef(i.indexrelid) from pg_index i join pg_class c on c.oid = i.indrelid
where c.relnamespace = 'public'::regnamespace
union all
select pg_get_triggerdef(t.oid) from pg_trigger t where not t.tgisinternal
union all
select format('%%s.%%s %%s %%s %%s', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod),
    a.attnotnull, pg_get_expr(d.adbin, d.adrelid))
from pg_attribute a join pg_class c on c.oid = a.attrelid
left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v') and a.attnum > 0 and not a.attisdropped
union all
select pg_get_functiondef(p.oid) from pg_proc p where p.pronamespace = 'public'::regnamespace
union all
select format('%%s: %%s', v.oid::regclass, pg_get_viewdef(v.oid)) from pg_class v
where v.relnamespace = 'public'::regnamespace and v.relkind = 'v'
order by 1
"""


def routines(db: Connection) -> list[int]:
    """Every routine in ``public``."""
    return column(db, "select oid from pg_proc where pronamespace = 'public'::regnamespace order by oid")


def guards(db: Connection, of: list[int]) -> list[str]:
    """Owners, grants, policies and publications of the application's tables, views and routines ``of``."""
    parameters = {"relations": [*INSERTS, *VIEWS], "routines": of}
    return [line for (line,) in db.execute(GUARDS.encode(), parameters)]


def parts(db: Connection) -> set[str]:
    """Columns, constraints, indexes, triggers, routines and views of ``public``, a line each."""
    return {line for (line,) in db.execute(PARTS.encode(), {})}


# ------------------------------------------------------------------------------------------------ dump


_NOISE = re.compile(r"^(-- Dumped |\\(un)?restrict )")
_GRANT = re.compile(r"^(GRANT|REVOKE) ")


def full_dump(bindir: Path, dsn: str) -> str:
    """``pg_dump`` of everything: owners, grants, policies, comments, extensions, rows, settings of the database.

    In the order of ``pg_dump``, except for grants on one object and rows of one table, whose order is arbitrary.
    """
    command: list[str | Path] = [bindir / "pg_dump", "--create", dsn]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines: list[str] = []
    unordered: list[str] = []
    copying = False
    for line in text.splitlines():
        if line != "\\." if copying else _GRANT.match(line):
            unordered.append(line)
        elif copying or not _NOISE.match(line):
            lines += [*sorted(unordered), line]
            unordered = []
            copying = line.startswith("COPY ") and line.endswith(" FROM stdin;")
    return "\n".join([*lines, *sorted(unordered)]) + "\n"
