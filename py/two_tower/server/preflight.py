"""What a database must be for ``two-tower migrate``, asked before anything is written.

Every reason to refuse is a row of one list, each with what mends it, so that nobody mends one only to meet the next.
Nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

from two_tower.errors import UserError

Connection = psycopg.Connection[Any]

OLDEST, NEWEST = 15, 18
"""Major versions of PostgreSQL."""
VECTOR_NEEDED = (0, 8, 0)
"""pgvector with iterative index scans."""

VECTOR = "vector"
"""What pgvector's extension is called."""

EXTENSIONS = {VECTOR: "postgresql-{}-pgvector", "plpython3u": "postgresql-plpython3-{}"}
"""The Debian package that has each for a major version. pgvector must be there; PL/Python is for one engine."""

ROUTINES = {
    "embed_user(boolean)": 0,
    "update_user_features(uuid)": 1,
    "get_user_embedding_features(uuid)": 1,
    "get_user_embedding_feature_batch(integer, integer, uuid)": 0,
    "get_item_embedding_features(uuid)": 1,
    "get_item_embedding_feature_batch(integer, integer, uuid)": 0,
    "recommend_videos(integer, uuid[], real, boolean)": 0,
    "similar_videos(uuid, integer, real)": 1,
}
"""Signatures of the routines that we make in schema ``public``, and how many arguments a call must give at least."""

ARGUMENTS = {
    "embed_user": ("force",),
    "update_user_features": ("p_user_id",),
    "get_user_embedding_features": ("user_id",),
    "get_user_embedding_feature_batch": ("limit", "offset", "after"),
    "get_item_embedding_features": ("video_id",),
    "get_item_embedding_feature_batch": ("limit", "offset", "after"),
    "recommend_videos": ("limit", "tag_ids", "diversity", "because"),
    "similar_videos": ("video_id", "limit", "diversity"),
}
"""The names of their arguments, by which PostgREST chooses among routines of one name."""

INDEXES = {
    "videos": ("videos_published_at_idx",),
    "video_tags": ("video_tags_tag_id_idx",),
    "video_performers": ("video_performers_performer_id_idx",),
    "user_video_decisions": ("user_video_decisions_video_id_idx",),
}
"""Names of indexes that come with a table that we make."""

NAMES = ("user_features", "user_embeddings", "video_embeddings")
"""Relations that we make in ``public`` where the name is free; else in ``two_tower`` alone, unless names are taken."""

ASIDE = "_before_two_tower"
"""What a relation or routine of the application is called while ``--take-names`` has its name."""

UUID, TEXT, NUMBER, TIME = "uuid", "text", "a number", "a date or time"

COLUMNS: dict[str, dict[str, str]] = {
    "videos": {
        "id": UUID,
        "product_url": TEXT,
        "title": TEXT,
        "description": TEXT,
        "maker": TEXT,
        "label": TEXT,
        "series": TEXT,
        "source": TEXT,
        "thumbnail_url": TEXT,
        "price": NUMBER,
        "duration_seconds": NUMBER,
        "distribution_started_at": TIME,
        "product_released_at": TIME,
        "published_at": TIME,
        "created_at": TIME,
    },
    "tags": {"id": UUID, "name": TEXT},
    "performers": {"id": UUID, "name": TEXT},
    "video_tags": {"video_id": UUID, "tag_id": UUID},
    "video_performers": {"video_id": UUID, "performer_id": UUID},
    "user_video_decisions": {"user_id": UUID, "video_id": UUID, "decision_type": TEXT, "created_at": TIME},
}
"""What the application's tables must have, by table. ``profiles`` is looked at by itself: its key may be ``id``."""

KEYS = {
    "videos": ("id",),
    "tags": ("id",),
    "performers": ("id",),
    "video_tags": ("video_id", "tag_id"),
    "video_performers": ("video_id", "performer_id"),
    "user_video_decisions": ("user_id", "video_id"),
}
"""Columns that must be unique together and never null."""

TRIGGERED = ("user_video_decisions", "videos", "video_tags", "video_performers")
"""Tables that get triggers."""

TRIGGERS = tuple(f"two_tower_{what}" for what in ("insert", "update", "delete", "truncate", "row"))
"""Their names, on each of these tables."""

READ = (*COLUMNS, "profiles")
"""Tables of the application that routines of ours read with the rights of their owner."""


@dataclass(frozen=True)
class Problem:
    """A reason to refuse, and what mends it."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}\n  → {self.remedy}"


@dataclass(frozen=True)
class Report:
    """``problems`` keep ``migrate`` from beginning; ``changes`` are what it would do to what is there."""

    problems: list[Problem]
    changes: list[str]
    notes: list[str]


def require(connection: Connection) -> Report:
    """The report of a database without problems. Raises UserError with all of them otherwise."""
    _hold(connection)
    report = look(connection)
    if report.problems:
        count = len(report.problems)
        raise UserError(
            f"this database cannot be migrated, for {count} reason{'s' if count > 1 else ''}; nothing was changed\n"
            + "\n".join(f"- {problem}" for problem in report.problems),
            "mend these, then migrate again; `two-tower migrate --check` lists what is left",
        )
    return report


def _hold(connection: Connection) -> None:
    """Keeps what is about to be looked at from being replaced by something else until the transaction ends."""
    for table in _column(
        connection,
        """select quote_ident(relname) from pg_class
        where relnamespace = 'public'::regnamespace and relname = any (%s) and relkind in ('r', 'p')
            -- One that this role may not read is a reason to refuse anyway.
            and has_table_privilege(oid, 'select')
        order by 1""",
        (list(READ),),
    ):
        connection.execute(f"lock table public.{table} in access share mode")  # quoted by the server


def look(connection: Connection) -> Report:
    """Everything that would be refused, and everything that would change, for the role that is connected.

    ``two_tower.take_names``, a setting of the transaction, says whether names in ``public`` are taken.
    """
    take_names = _one(connection, "select coalesce(current_setting('two_tower.take_names', true), '') = 'on'")
    problems = [
        *_server(connection),
        *_rights(connection),
        *_ownership(connection),
        *_extensions(connection),
        *_schemas(connection),
        *_tables(connection),
        *_profiles(connection),
        *_condition(connection),
        *_triggers(connection),
        *_routines(connection, take_names),
        *_relations(connection, take_names),
    ]
    changes = [] if problems else list(_changes(connection, take_names))
    return Report(problems, changes, list(_notes(connection)))


# ------------------------------------------------------------------------------------------------ the server


def _server(connection: Connection) -> Iterator[Problem]:
    version = connection.info.server_version
    if not OLDEST <= version // 10000 <= NEWEST:
        shown = _one(connection, "show server_version")
        yield Problem(
            f"pg-two-tower runs on PostgreSQL {OLDEST} to {NEWEST}; this server is {shown}",
            "connect to a supported server",
        )
    encoding = _one(
        connection, "select pg_encoding_to_char(encoding) from pg_database where datname = current_database()"
    )
    if encoding != "UTF8":
        yield Problem(
            f"the encoding of this database is {encoding}, and names of the world's catalogues need UTF8",
            "create a database with encoding UTF8, and restore a dump of this one into it",
        )


def _rights(connection: Connection) -> Iterator[Problem]:
    role, database, may_create, may_create_roles = _row(
        connection,
        """select quote_ident(current_user), quote_ident(current_database()),
            has_database_privilege(current_database(), 'create'), rolcreaterole or rolsuper
        from pg_roles where rolname = current_user""",
    )
    if not _one(connection, "select has_schema_privilege('public', 'create')"):
        yield Problem(
            f"the role {role} may not create anything in schema public",
            f"as the schema's owner run: grant create on schema public to {role}",
        )
    if not may_create and not _one(connection, "select to_regnamespace('two_tower') is not null"):
        yield Problem(
            f"the role {role} may not create schemas in this database",
            f"as the database's owner run: grant create on database {database} to {role}",
        )
    missing = _column(
        connection,
        """select r
        from unnest(array['anon', 'authenticated', 'service_role', 'authenticator', 'two_tower_viewer']) as r
        where not exists (select from pg_roles where rolname = r)""",
    )
    if missing and not may_create_roles:
        yield Problem(
            f"the roles {', '.join(missing)} are missing, and {role} may not create roles",
            f"as a superuser run: alter role {role} createrole",
        )


def owner(connection: Connection) -> str | None:
    """The role to whom a superuser who migrates hands over all that is ours; None where it stays with whoever migrates.

    Routines of ours run as their owner and read the application's tables, and whoever owns a table may put a view in
    its place that calls what he likes. So nobody owns ours who may do more than the owner of those tables: it is he, or
    where they are a superuser's, the owner of schema ``public``, who may drop them, or whoever has ours already.
    """
    if not _one(connection, "select rolsuper from pg_roles where rolname = current_user"):
        return None
    owners = _owners(connection)
    if owners:
        return owners.get("videos") or min(owners.values())
    row = connection.execute(
        """select o.rolname::text
        from pg_namespace n
        join pg_database d on d.datname = current_database()
        join pg_roles o on o.oid = case when n.nspowner = 'pg_database_owner'::regrole then d.datdba else n.nspowner end
        where n.nspname in ('public', 'two_tower') and not o.rolsuper
        order by n.nspname limit 1"""
    ).fetchone()
    return row and row[0]


def _owners(connection: Connection) -> dict[str, str]:
    """Owners of the tables that we read, by table, but for those of superusers."""
    rows = connection.execute(
        """select c.relname::text, o.rolname::text from pg_class c join pg_roles o on o.oid = c.relowner
        where c.relnamespace = 'public'::regnamespace and c.relname = any (%s)
            and c.relkind in ('r', 'p', 'v', 'm', 'f') and not o.rolsuper
        order by 1""",
        (list(READ),),
    )
    return dict(rows.fetchall())


def _ownership(connection: Connection) -> Iterator[Problem]:
    """What keeps the role of :func:`owner` from running what it is to own."""
    role = owner(connection)
    if role is None:
        return
    name = _quoted(connection, role)
    others = {table: whose for table, whose in _owners(connection).items() if whose != role}
    for table, whose in others.items():
        yield Problem(
            f"public.{table} belongs to {whose}, and other tables that we read to {role}: "
            f"{whose} could have {role} run anything",
            f"give the tables to one role, such as: alter table public.{table} owner to {name}",
        )
    # What we made ourselves is handed over.
    made = [*_recorded(connection, "table"), *_recorded(connection, "schema"), *_recorded(connection, "function")]
    tables = [f"public.{table}" for table in READ if table not in others and f"public.{table}" not in made]
    for schema in _column(
        connection,
        """select quote_ident(n.nspname) from pg_namespace n
        where not has_schema_privilege(%s, n.oid, 'usage') and n.nspname <> all (%s) and (
            n.nspname in ('public', 'auth')
            or n.oid = (select e.extnamespace from pg_extension e where e.extname = 'vector')
        )
        order by 1""",
        (role, made),
    ):
        yield _lacks(role, f"use the schema {schema}", f"grant usage on schema {schema} to {name}")
    triggered = [table for table in tables if table.removeprefix("public.") in TRIGGERED]
    for privilege, table in [("select", table) for table in tables] + [("trigger", table) for table in triggered]:
        if not _one(
            connection, "select coalesce(has_table_privilege(%s, to_regclass(%s), %s), true)", (role, table, privilege)
        ):
            yield _lacks(role, f"{privilege} on {table}", f"grant {privilege} on {table} to {name}")
    if "auth.users" not in made:
        tables.append("auth.users")
        for privilege in ("select", "references"):
            if not _one(
                connection,
                """select coalesce(bool_and(has_column_privilege(%s, a.attrelid, a.attnum, %s)), true)
                from pg_attribute a where a.attrelid = to_regclass('auth.users') and a.attname = 'id'""",
                (role, privilege),
            ):
                yield _lacks(role, f"{privilege} (id) on auth.users", f"grant {privilege} (id) on auth.users to {name}")
    if "auth.uid()" not in made and not _one(
        connection,
        "select coalesce(has_function_privilege(%s, to_regprocedure('auth.uid()'), 'execute'), true)",
        (role,),
    ):
        yield _lacks(role, "execute auth.uid()", f"grant execute on function auth.uid() to {name}")
    for table, is_owner in connection.execute(
        """select quote_ident(n.nspname) || '.' || quote_ident(c.relname), pg_has_role(r.oid, c.relowner, 'usage')
        from pg_class c join pg_namespace n on n.oid = c.relnamespace cross join pg_roles r
        where r.rolname = %s and not r.rolbypassrls and c.oid in (select to_regclass(t) from unnest(%s::text[]) as t)
            and c.relrowsecurity and (c.relforcerowsecurity or not pg_has_role(r.oid, c.relowner, 'usage'))
        order by 1""",
        (role, tables),
    ).fetchall():
        yield Problem(
            f"{table} has row level security that binds {role}, to whom our routines are to belong, so refreshes would "
            "not see all rows",
            f"run: alter table {table} no force row level security"
            if is_owner
            else f"as a superuser run: alter role {name} bypassrls",
        )


def _lacks(role: str, what: str, remedy: str) -> Problem:
    return Problem(f"the role {role}, to whom our routines are to belong, may not {what}", f"run: {remedy}")


def _extensions(connection: Connection) -> Iterator[Problem]:
    package = EXTENSIONS[VECTOR].format(connection.info.server_version // 10000)
    found = connection.execute(
        """select e.extversion, a.default_version from pg_available_extensions a
        full join pg_extension e on e.extname = a.name where coalesce(a.name, e.extname) = %s""",
        (VECTOR,),
    ).fetchone()
    if found is None:
        yield Problem(
            f"the extension {VECTOR} is not installed on this server", f"install the package {package} on the server"
        )
        return
    if _numbers(found[0] or found[1]) < VECTOR_NEEDED:
        yield Problem(
            f"pgvector is {found[0] or found[1]}; 0.8.0 or newer is needed, for iterative index scans",
            "upgrade the package, then run: alter extension vector update",
        )
    if found[0] is None and not _one(
        connection,
        """select rolsuper or has_database_privilege(current_database(), 'create') and exists (
            select from pg_available_extension_versions v where v.name = 'vector' and v.trusted
        ) from pg_roles where rolname = current_user""",
    ):
        yield Problem(
            "the extension vector is not created in this database, and takes a superuser",
            "as a superuser run: create extension vector with schema extensions",
        )


def python_usable(connection: Connection) -> bool:
    """Whether this role makes routines in PL/Python, once migrations have run: only a superuser may."""
    return bool(
        _one(
            connection,
            """select rolsuper and exists (select from pg_language where lanname = 'plpython3u')
            from pg_roles where rolname = current_user""",
        )
    )


# ------------------------------------------------------------------------------------------------ names and tables


def _schemas(connection: Connection) -> Iterator[Problem]:
    if _one(
        connection,
        """select to_regnamespace('two_tower') is not null and to_regclass('two_tower.created_objects') is null
            and to_regclass('two_tower._yoyo_migration') is null""",
    ):
        yield Problem(
            "there is a schema two_tower already, and it is not ours", "rename it: alter schema two_tower rename to …"
        )
    owner = connection.execute(
        """select quote_ident(pg_get_userbyid(nspowner)) from pg_namespace
        where nspname = 'two_tower' and not pg_has_role(nspowner, 'usage')"""
    ).fetchone()
    if owner:
        yield Problem(
            f"the schema two_tower belongs to {owner[0]}", f"migrate as {owner[0]}, or as a member of that role"
        )
    if _one(connection, "select to_regclass('auth.users') is not null") and not _one(
        connection,
        """select exists (
            select from pg_class c
            join pg_attribute a on a.attrelid = c.oid and a.attname = 'id' and a.atttypid = 'uuid'::regtype
            join pg_index i on i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate
                and i.indpred is null and i.indnkeyatts = 1 and i.indkey[0] = a.attnum
            where c.oid = 'auth.users'::regclass and c.relkind in ('r', 'p')
        )""",
    ):
        yield Problem(
            "auth.users is no table with a unique id of type uuid",
            "users are known by a uuid, which foreign keys of ours refer to: give the table such a column, unique",
        )
    if _one(
        connection,
        """select exists (
            select from pg_proc where oid = to_regprocedure('auth.uid()')
                and (prorettype <> 'uuid'::regtype or proretset or prokind <> 'f')
        )""",
    ):
        yield Problem("auth.uid() does not return uuid", "make it return the id of the user who asks, as on Supabase")
    if _one(
        connection,
        """select count(*) > 1 from pg_proc
        where pronamespace = to_regnamespace('auth') and proname = 'uid' and pronargs = pronargdefaults""",
    ):
        yield Problem(
            "auth.uid() may mean more than one function", "drop the one that has arguments, or their defaults"
        )
    if _one(
        connection,
        """select to_regnamespace('auth') is not null
            and (to_regclass('auth.users') is null or to_regprocedure('auth.uid()') is null)
            and not has_schema_privilege('auth', 'create')""",
    ):
        yield Problem(
            "the schema auth lacks auth.users or auth.uid(), and may not be written",
            "as its owner run: grant create on schema auth to " + _one(connection, "select quote_ident(current_user)"),
        )


def _tables(connection: Connection) -> Iterator[Problem]:
    for table, columns in COLUMNS.items():
        found = _found(connection, table)
        if found is None:
            yield from _absent(connection, table)
            continue
        kind, owner, mine, forced = found
        name = f"public.{table}"
        if kind != "r":
            yield Problem(
                f"{name} is a {_KINDS.get(kind, 'relation')}, "
                "and writes into what is below or behind it fire no trigger of its own",
                f"give the application's rows to an ordinary table {name}",
            )
            continue
        if _one(connection, "select relpersistence = 'u' from pg_class where oid = %s::regclass", (name,)):
            yield Problem(
                f"{name} is unlogged: a crash empties it, and permanent tables cannot refer to it",
                f"run: alter table {name} set logged",
            )
        if _one(
            connection, "select exists (select from pg_inherits where %s::regclass in (inhrelid, inhparent))", (name,)
        ):
            yield Problem(
                f"{name} is part of an inheritance tree, and writes into children fire no trigger of the parent",
                f"give the application's rows to one ordinary table {name}",
            )
        if not mine:
            yield Problem(
                f"{name} belongs to {owner}, and what we ask of it takes its owner",
                f"migrate as a member of {owner}",
            )
        if forced and not _one(
            connection, "select rolsuper or rolbypassrls from pg_roles where rolname = current_user"
        ):
            yield Problem(
                f"{name} has row level security that is forced on its owner too, so refreshes would not see all rows",
                f"run: alter table {name} no force row level security",
            )
        types = _types(connection, table)
        for column, wanted in columns.items():
            if column not in types:
                yield Problem(
                    f"{name}.{column} is missing ({wanted})",
                    f"run: alter table {name} add column {column} {_ADDED[wanted]}",
                )
            elif not _fits(wanted, *types[column]):
                yield Problem(
                    f"{name}.{column} is of type {types[column][0]}, and must be {wanted}",
                    f"run: alter table {name} alter column {column} type {_ADDED[wanted]} using …",
                )
        yield from _key(connection, name, KEYS[table], types)


def _absent(connection: Connection, table: str) -> Iterator[Problem]:
    """A table that is to be made takes free names; one that was there, and is gone, is not made anew."""
    if _one(connection, "select to_regprocedure('two_tower.refresh(int, interval)') is not null"):
        yield Problem(
            f"public.{table} is gone, which routines of ours read",
            "give it its name back, or go back with `two-tower migrate --to 0` and migrate again",
        )
        return
    yield from _taken(connection, table, *INDEXES.get(table, ()))


def _taken(connection: Connection, *names: str) -> Iterator[Problem]:
    """Names of tables or indexes to be made that an index, a sequence or a type has."""
    for name, kind in connection.execute(
        """select c.relname::text, case c.relkind when 'S' then 'sequence' when 'c' then 'type' else 'index' end
        from pg_class c
        where c.relnamespace = 'public'::regnamespace and c.relname = any (%(names)s)
            and c.relkind in ('i', 'I', 'S', 'c')
        union all
        -- The type of an array makes way by itself.
        select t.typname::text, 'type' from pg_type t
        where t.typnamespace = 'public'::regnamespace and t.typname = any (%(names)s) and t.typrelid = 0
            and not exists (select from pg_type e where e.typarray = t.oid)
        order by 1""",
        {"names": list(names)},
    ).fetchall():
        yield Problem(
            f"public.{name}, a name that ours must have, is that of {'an' if kind == 'index' else 'a'} {kind}",
            f"rename it: alter {kind} public.{name} rename to my_{name}",
        )


def _key(
    connection: Connection, name: str, key: tuple[str, ...], types: dict[str, tuple[str, str, bool]]
) -> Iterator[Problem]:
    if not set(key) <= types.keys():
        return
    if not _one(
        connection,
        """select exists (
            select from pg_index i
            where i.indrelid = %s::regclass and i.indisunique and i.indisvalid and i.indimmediate
                and i.indpred is null and i.indexprs is null
                and (
                    select array_agg(a.attname::text order by a.attname)
                    from pg_attribute a
                    where a.attrelid = i.indrelid and a.attnum = any ((i.indkey::int2[])[0 : i.indnkeyatts - 1])
                ) = (select array_agg(k order by k) from unnest(%s::text[]) as k)
        )""",
        (name, list(key)),
    ):
        yield Problem(
            f"{name} has no unique key on ({', '.join(key)}), so a row could count twice",
            f"run: alter table {name} add unique ({', '.join(key)})",
        )
    for column in key:
        if not types[column][2]:
            yield Problem(f"{name}.{column} may be null", f"run: alter table {name} alter column {column} set not null")


def _triggers(connection: Connection) -> Iterator[Problem]:
    for trigger, table in connection.execute(
        """select quote_ident(t.tgname), 'public.' || quote_ident(c.relname)
        from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_proc p on p.oid = t.tgfoid
        where c.relnamespace = 'public'::regnamespace and c.relname = any (%s) and t.tgname = any (%s)
            and p.pronamespace is distinct from to_regnamespace('two_tower')
        order by 2, 1""",
        (list(TRIGGERED), list(TRIGGERS)),
    ).fetchall():
        yield Problem(
            f"{table} has a trigger {trigger} of the application, a name that ours must have",
            f"rename it: alter trigger {trigger} on {table} rename to …",
        )


def _profiles(connection: Connection) -> Iterator[Problem]:
    found = _found(connection, "profiles")
    if found is None:
        yield from _absent(connection, "profiles")
        return
    if found[0] not in "rpv":
        yield Problem("public.profiles is not a table", "rename it")
        return
    types = _types(connection, "profiles")
    if not any(name in types and types[name][1] == "uuid" for name in ("user_id", "id")):
        yield Problem(
            "public.profiles has neither a user_id nor an id of type uuid",
            "run: alter table public.profiles add column user_id uuid references auth.users (id)",
        )


def _condition(connection: Connection) -> Iterator[Problem]:
    """What somebody said of which videos may be shown, which a view is made of, must fit the table as it is now."""
    if _one(
        connection,
        "select to_regclass('two_tower.catalogue_rule') is null or to_regclass('public.videos') is null",
    ):
        return
    said, condition = _row(connection, "select stated, visible_when from two_tower.catalogue_rule")
    if not said:
        return
    try:
        with connection.transaction():
            # Parsed alone, as one statement: a plan would call what the owner's condition calls, as whoever migrates.
            query = f"select v.id from public.videos v where ({condition})"  # noqa: S608
            result = connection.pgconn.prepare(b"", query.encode())
            if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
                raise psycopg.errors.error_from_result(result)
    except psycopg.Error as error:
        yield Problem(
            f"videos cannot be shown by the condition {condition!r}: {error.diag.message_primary}",
            "say it anew: select two_tower.set_visible_when('…')",
        )


def _routines(connection: Connection, take_names: bool) -> Iterator[Problem]:
    for signature in _theirs(connection):
        shown = signature.removeprefix("public.")
        if not take_names:
            name, _, arguments = shown.partition("(")
            yield Problem(
                f"the application has a routine public.{shown}, whose name and arguments ours must have",
                f"rename it: alter routine public.{shown} rename to my_{name}; "
                f"or migrate with --take-names, which calls it {name}{ASIDE}({arguments} until the way back",
            )
        elif (aside := _aside(connection, signature)) is not None:
            yield Problem(f"{aside} exists, so {signature} cannot be put aside under that name", "rename one of them")
    for signature, least in ROUTINES.items():
        # A call that gives as many arguments as both take, of types that are the same so far, could mean either. So
        # could one of PostgREST's, which gives by name what both must be given and nothing that either does not take.
        for theirs in _column(
            connection,
            """select p.oid::regprocedure::text from pg_proc p cross join generate_series(0, 100) as given
            where p.pronamespace = 'public'::regnamespace and p.proname = split_part(%(ours)s, '(', 1)
                and p.oid <> all (select to_regprocedure(m) from unnest(%(made)s::text[]) as m
                    where to_regprocedure(m) is not null)
                and given between greatest(p.pronargs - p.pronargdefaults, %(least)s)
                and least(p.pronargs, cardinality(%(types)s::regtype[]))
                and (given < p.pronargs or given < cardinality(%(types)s::regtype[]))
                and (p.proargtypes::oid[])[0 : given - 1] = (%(types)s::regtype[]::oid[])[1 : given]
            group by p.oid
            union
            select p.oid::regprocedure::text from pg_proc p
            cross join lateral (select p.proargnames[: p.pronargs] as every,
                coalesce(p.proargnames[: p.pronargs - p.pronargdefaults], '{}') as needed) as n
            where p.pronamespace = 'public'::regnamespace and p.proname = split_part(%(ours)s, '(', 1)
                and p.proargmodes is null and (p.proargnames is not null or p.pronargs = 0)
                and p.oid <> all (select to_regprocedure(m) from unnest(%(made)s::text[]) as m
                    where to_regprocedure(m) is not null)
                and n.needed <@ %(names)s::text[]
                and (%(names)s::text[])[: %(least)s] <@ coalesce(n.every, '{}')
            order by 1""",
            {
                "ours": signature,
                "least": least,
                "names": list(ARGUMENTS[signature.partition("(")[0]]),
                "types": [part.strip() for part in signature.partition("(")[2].rstrip(")").split(",")],
                "made": [f"public.{ours}" for ours in ROUTINES],
            },
        ):
            yield Problem(
                f"the application has a routine {theirs}, which some calls could not tell from our {signature}",
                f"rename it: alter routine {theirs} rename to …",
            )


def _relations(connection: Connection, take_names: bool) -> Iterator[Problem]:
    late = [f"public.{name}" for name in NAMES if _foreign(connection, name)]
    if (
        take_names
        and late
        and _one(connection, "select to_regprocedure('two_tower.refresh(int, interval)') is not null")
    ):
        yield Problem(
            f"the names {', '.join(late)} are taken when ours are made, and ours are made already",
            "migrate without --take-names; or go back with `two-tower migrate --to 0`, then migrate with it",
        )
        return
    for name in NAMES:
        # A relation of this name is put aside, or ours is in two_tower alone.
        if _one(connection, "select to_regclass(%s) is null", (f"public.{name}",)):
            yield from _taken(connection, name)
        if (
            take_names
            and _foreign(connection, name)
            and _one(connection, "select relkind = 'c' from pg_class where oid = to_regclass(%s)", (f"public.{name}",))
        ):
            yield Problem(
                f"public.{name} is a type, and is not put aside",
                f"rename it: alter type public.{name} rename to …; or migrate without --take-names",
            )
        if (
            take_names
            and _foreign(connection, name)
            and _one(connection, "select to_regclass(%s) is not null", (f"public.{name}{ASIDE}",))
        ):
            yield Problem(
                f"public.{name}{ASIDE} exists, so public.{name} cannot be put aside under that name",
                "rename one of them",
            )


# ------------------------------------------------------------------------------------------------ what would change


def _changes(connection: Connection, take_names: bool) -> Iterator[str]:
    for role in ("anon", "authenticated", "service_role", "authenticator", "two_tower_viewer"):
        if not _one(connection, "select exists (select from pg_roles where rolname = %s)", (role,)):
            yield f"role {role} is created"
    for extension, created in (
        ("vector", True),
        ("plpython3u", _one(connection, _PYTHON_OFFERED)),
    ):
        there = _one(connection, "select exists (select from pg_extension where extname = %s)", (extension,))
        if created and not there:
            yield f"extension {extension} is created"
    whose = owner(connection)
    if whose and not _one(
        connection,
        "select exists (select from pg_namespace where nspname = 'two_tower' and nspowner = %s::regrole)",
        (_quoted(connection, whose),),
    ):
        yield f"all that is ours belongs to {whose}, who owns the application's tables: routines run as that role"
    if _one(connection, "select to_regclass('two_tower.created_objects') is not null"):
        return
    yield "schema two_tower is created, for models, vectors, the change log and operators' routines"
    for table in ("auth.users", *(f"public.{name}" for name in COLUMNS), "public.profiles"):
        if _one(connection, "select to_regclass(%s) is null", (table,)):
            yield f"table {table} is created"
        elif table.removeprefix("public.") in TRIGGERED:
            yield (
                f"table {table} is yours: it gets triggers called two_tower_*, "
                "and the role two_tower_viewer may read the columns that the page shows"
            )
        else:
            yield f"table {table} is yours: it is read, and gets nothing" + (
                ""
                if table.startswith("auth.")
                else " but that the role two_tower_viewer may read the columns that the page shows"
            )
    for name in NAMES:
        kind = "table" if name == "user_features" else "view"
        if not _foreign(connection, name):
            yield f"{kind} public.{name} is created"
        elif take_names:
            yield f"public.{name} is renamed to {name}{ASIDE}, and a {kind} of ours takes its name"
        else:
            yield f"public.{name} is yours and stays; ours is {IN_TWO_TOWER[name]} alone"
    referring = ["public.profiles", "public.user_video_decisions"]
    referring = [name for name in referring if _one(connection, "select to_regclass(%s) is null", (name,))]
    features = "two_tower" if _foreign(connection, "user_features") and not take_names else "public"
    referring += [f"{features}.user_features", "two_tower.reviews"]
    yield f"foreign keys of {', '.join(referring)} refer to auth.users: a deleted user's rows there are deleted"
    for signature in _theirs(connection):
        if take_names:
            yield f"{signature} is renamed to end in {ASIDE}, and ours takes its name"
    for signature in ROUTINES:
        yield f"function public.{signature} is created"


IN_TWO_TOWER = {
    "user_features": "two_tower.user_features",
    "user_embeddings": "two_tower.active_user_embeddings",
    "video_embeddings": "two_tower.active_video_embeddings",
}
"""Where what the public names show is found in any case."""


_PYTHON_OFFERED = """
select rolsuper and exists (select from pg_available_extensions where name = 'plpython3u')
from pg_roles where rolname = current_user
"""


def _notes(connection: Connection) -> Iterator[str]:
    """What is no reason to refuse, and worth knowing."""
    if not _one(connection, "select to_regprocedure('two_tower.infer_onnxruntime(text, text, bytea)') is not null"):
        if _one(connection, _PYTHON_OFFERED):
            yield "users' vectors are computed in SQL, videos' by onnxruntime where it is installed (engine auto)"
        else:
            yield (
                "vectors are computed in SQL (engine sql): PL/Python takes a superuser and its package, "
                "and is needed only for towers whose weights are not rows"
            )
    outside = _column(
        connection,
        """select r.rolname::text from pg_roles r
        where to_regnamespace('auth') is not null and r.rolname in ('anon', 'authenticated', 'service_role')
            and not has_schema_privilege(r.oid, to_regnamespace('auth'), 'usage')
        order by 1""",
    )
    if outside:
        yield (
            f"the roles {', '.join(outside)} may not use the schema auth: they cannot ask for recommendations "
            f"(grant usage on schema auth to {', '.join(outside)})"
        )
    role = owner(connection)
    if role:
        name = _quoted(connection, role)
        if not _one(connection, "select has_database_privilege(%s, current_database(), 'temporary')", (role,)):
            database = _one(connection, "select quote_ident(current_database())")
            yield (
                f"the role {role} may not make temporary tables, which imports need "
                f"(grant temporary on database {database} to {name})"
            )
        if _one(
            connection,
            """select not rolcanlogin and exists (select from pg_extension where extname = 'pg_cron')
            from pg_roles where rolname = %s""",
            (role,),
        ):
            yield f"the role {role} may not log in, so pg_cron cannot run jobs as that role (alter role {name} login)"
    found = _found(connection, "user_video_decisions")
    # A superuser looks: what is behind a view or a foreign table would run as one.
    if (
        found is None
        or found[0] != "r"
        or not _one(connection, "select has_table_privilege('public.user_video_decisions', 'select')")
    ):
        return
    if _types(connection, "user_video_decisions").keys() >= {"decision_type"}:
        words = _column(
            connection,
            # Not by a cast to text, which the application may have made: it would run as whoever migrates.
            """select distinct left(w.word, 100) from public.user_video_decisions d
            cross join lateral (select concat(d.decision_type) as word) as w
            where d.decision_type is not null and lower(btrim(w.word)) not in ('like', 'nope', 'skip')
            order by 1 limit 20""",
        )
        if words:
            yield (
                f"public.user_video_decisions.decision_type holds {', '.join(map(repr, words))}: "
                "rows that say neither like, nope nor skip count as nothing"
            )
    if not _one(
        connection,
        """select exists (
            select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
            where i.indrelid = 'public.user_video_decisions'::regclass and a.attname = 'video_id'
        )""",
    ):
        yield (
            "public.user_video_decisions has no index on video_id: a changed video has its likers looked up by a scan "
            "(create index on public.user_video_decisions (video_id))"
        )


def put_aside(connection: Connection) -> None:
    """Renames the application's routines whose signatures ours take, and records it. For ``--take-names`` alone."""
    for signature in _theirs(connection):
        name = signature.removeprefix("public.").partition("(")[0]
        connection.execute(f"alter routine {signature} rename to {name}{ASIDE}")  # quoted by the server
        connection.execute("insert into two_tower.created_objects values ('renamed routine', %s)", (signature,))


# ------------------------------------------------------------------------------------------------ helpers

_KINDS = {"p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}
_ADDED = {UUID: "uuid", TEXT: "text", NUMBER: "numeric", TIME: "timestamptz"}


def _fits(wanted: str, shown: str, base: str, _: bool) -> bool:
    """Other columns than ids may be of any type that the conversions of sql/20_features take."""
    if wanted == UUID:
        return base == "uuid"
    if wanted == NUMBER:
        return base in {"int2", "int4", "int8", "numeric", "float4", "float8", "money", "text", "varchar", "bpchar"}
    if wanted == TIME:
        return base in {"timestamptz", "timestamp", "date", "text", "varchar", "bpchar"}
    return base in {"text", "varchar", "bpchar", "citext", "name", "enum"}


def _found(connection: Connection, table: str) -> tuple[str, str, bool, bool] | None:
    """Kind, owner, whether the owner's rights are ours, whether policies are forced; None where there is none such."""
    row = connection.execute(
        """select c.relkind::text, quote_ident(pg_get_userbyid(c.relowner)), pg_has_role(c.relowner, 'usage'),
            c.relforcerowsecurity
        from pg_class c
        where c.relnamespace = 'public'::regnamespace and c.relname = %s
            and c.relkind in ('r', 'p', 'v', 'm', 'f')""",
        (table,),
    ).fetchone()
    return row and (row[0], row[1], row[2], row[3])


def _types(connection: Connection, table: str) -> dict[str, tuple[str, str, bool]]:
    """By column: its type as shown, its base type (``enum`` for any), and whether it is never null."""
    rows = connection.execute(
        """with recursive typed as (
            select a.attname, format_type(a.atttypid, a.atttypmod) as shown, a.attnotnull,
                t.oid, t.typtype, t.typbasetype, t.typname
            from pg_attribute a join pg_type t on t.oid = a.atttypid
            where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped
            union all
            select d.attname, d.shown, d.attnotnull, t.oid, t.typtype, t.typbasetype, t.typname
            from typed d join pg_type t on t.oid = d.typbasetype where d.typtype = 'd'
        )
        -- An ordinary role makes no base type, and may give any other the name of one.
        select attname, shown,
            case typtype when 'e' then 'enum' when 'b' then typname::text else 'another' end, attnotnull
        from typed where typtype <> 'd'""",
        (f"public.{table}",),
    ).fetchall()
    return {name: (shown, base, never_null) for name, shown, base, never_null in rows}


def _recorded(connection: Connection, kind: str) -> set[str]:
    if _one(connection, "select to_regclass('two_tower.created_objects') is null"):
        return set()
    return set(_column(connection, "select name from two_tower.created_objects where kind = %s", (kind,)))


def _theirs(connection: Connection) -> list[str]:
    """Routines of the application that have a signature of ours, qualified."""
    ours = _recorded(connection, "routine")
    return [
        name
        for name in (f"public.{signature}" for signature in ROUTINES)
        if name not in ours and _one(connection, "select to_regprocedure(%s) is not null", (name,))
    ]


def _aside(connection: Connection, signature: str) -> str | None:
    name, _, arguments = signature.partition("(")
    aside = f"{name}{ASIDE}({arguments}"
    return aside if _one(connection, "select to_regprocedure(%s) is not null", (aside,)) else None


def _foreign(connection: Connection, name: str) -> bool:
    """Whether the application has a relation of this name in ``public``."""
    ours = _recorded(connection, "table") | _recorded(connection, "view")
    return f"public.{name}" not in ours and _one(connection, "select to_regclass(%s) is not null", (f"public.{name}",))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _row(connection: Connection, query: str, values: Any = None) -> tuple[Any, ...]:
    row = connection.execute(query, values).fetchone()
    if row is None:
        raise LookupError(query)
    return tuple(row)


def _quoted(connection: Connection, role: str) -> str:
    return str(_one(connection, "select quote_ident(%s)", (role,)))


def _one(connection: Connection, query: str, values: Any = None) -> Any:
    return _row(connection, query, values)[0]


def _column(connection: Connection, query: str, values: Any = None) -> list[Any]:
    return [value for (value,) in connection.execute(query, values)]
