"""Names that our objects need, and that the application may already use."""

from __future__ import annotations

from collections.abc import Iterator

from two_tower.rows import column, one
from two_tower.server.contract import ARGUMENTS, ASIDE, NAMES, ROUTINES, TRIGGERED, TRIGGERS
from two_tower.server.preflight.catalogue import Connection, is_foreign, taken_signatures
from two_tower.server.preflight.problem import Problem
from two_tower.server.preflight.server import as_member


def schemas(connection: Connection) -> Iterator[Problem]:
    if one(
        connection,
        """select to_regnamespace('two_tower') is not null and to_regclass('two_tower.created_objects') is null
            and to_regclass('two_tower._yoyo_migration') is null""",
    ):
        yield Problem(
            "there is a schema two_tower already, and it is not ours", "rename it: alter schema two_tower rename to …"
        )
    owner = connection.execute(
        """select quote_ident(pg_get_userbyid(nspowner)), quote_ident(current_user) from pg_namespace
        where nspname = 'two_tower' and not pg_has_role(nspowner, 'usage')"""
    ).fetchone()
    if owner:
        yield Problem(
            f"the schema two_tower belongs to {owner[0]}, and the role {owner[1]} is no member of that",
            as_member(connection, owner[0]),
        )
    if one(connection, "select to_regclass('auth.users') is not null") and not one(
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
            "users are identified by a uuid, to which our foreign keys refer: give the table such a unique column",
        )
    if one(
        connection,
        """select exists (
            select from pg_proc where oid = to_regprocedure('auth.uid()')
                and (prorettype <> 'uuid'::regtype or proretset or prokind <> 'f')
        )""",
    ):
        yield Problem("auth.uid() does not return uuid", "make it return the id of the user who asks, as on Supabase")
    if one(
        connection,
        """select count(*) > 1 from pg_proc
        where pronamespace = to_regnamespace('auth') and proname = 'uid' and pronargs = pronargdefaults""",
    ):
        yield Problem(
            "auth.uid() may mean more than one function", "drop the one that has arguments, or their defaults"
        )
    if one(
        connection,
        """select to_regnamespace('auth') is not null
            and (to_regclass('auth.users') is null or to_regprocedure('auth.uid()') is null)
            and not has_schema_privilege('auth', 'create')""",
    ):
        yield Problem(
            "the schema auth lacks auth.users or auth.uid(), and may not be written",
            "as its owner run: grant create on schema auth to " + one(connection, "select quote_ident(current_user)"),
        )


def routines(connection: Connection, take_names: bool) -> Iterator[Problem]:
    for signature in taken_signatures(connection):
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
        # A call with a number of arguments that both accept, if their types agree so far, would be ambiguous. So would
        # a call by PostgREST that gives all arguments by name that either needs, and none that only one accepts.
        for theirs in column(
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


def triggers(connection: Connection) -> Iterator[Problem]:
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


def _aside(connection: Connection, signature: str) -> str | None:
    name, _, arguments = signature.partition("(")
    aside = f"{name}{ASIDE}({arguments}"
    return aside if one(connection, "select to_regprocedure(%s) is not null", (aside,)) else None


def relations(connection: Connection, take_names: bool) -> Iterator[Problem]:
    late = [f"public.{name}" for name in NAMES if is_foreign(connection, name)]
    if (
        take_names
        and late
        and one(connection, "select to_regprocedure('two_tower.refresh(int, interval)') is not null")
    ):
        yield Problem(
            f"the names {', '.join(late)} are taken when ours are made, and ours are made already",
            "migrate without --take-names; or go back with `two-tower migrate --to 0`, then migrate with it",
        )
        return
    for name in NAMES:
        # A relation of this name is put aside, or ours is only in two_tower.
        if one(connection, "select to_regclass(%s) is null", (f"public.{name}",)):
            yield from taken_names(connection, name)
        if (
            take_names
            and is_foreign(connection, name)
            and one(connection, "select relkind = 'c' from pg_class where oid = to_regclass(%s)", (f"public.{name}",))
        ):
            yield Problem(
                f"public.{name} is a type, and is not put aside",
                f"rename it: alter type public.{name} rename to …; or migrate without --take-names",
            )
        if (
            take_names
            and is_foreign(connection, name)
            and one(connection, "select to_regclass(%s) is not null", (f"public.{name}{ASIDE}",))
        ):
            yield Problem(
                f"public.{name}{ASIDE} exists, so public.{name} cannot be put aside under that name",
                "rename one of them",
            )


def taken_names(connection: Connection, *names: str) -> Iterator[Problem]:
    """Problems with names of tables or indexes to be created that an index, a sequence or a type has."""
    for name, kind in connection.execute(
        """select c.relname::text, case c.relkind when 'S' then 'sequence' when 'c' then 'type' else 'index' end
        from pg_class c
        where c.relnamespace = 'public'::regnamespace and c.relname = any (%(names)s)
            and c.relkind in ('i', 'I', 'S', 'c')
        union all
        -- PostgreSQL renames an array's type by itself.
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


def put_aside(connection: Connection) -> None:
    """Renames the application's routines that have signatures of ours, and records it; only for ``--take-names``."""
    for signature in taken_signatures(connection):
        name = signature.removeprefix("public.").partition("(")[0]
        connection.execute(f"alter routine {signature} rename to {name}{ASIDE}")  # quoted by the server
        connection.execute("insert into two_tower.created_objects values ('renamed routine', %s)", (signature,))
