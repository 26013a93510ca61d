"""Problems with the server or with the rights of the role that migrates; and who is to own our objects."""

from __future__ import annotations

from collections.abc import Iterator

from two_tower.rows import column, one, row
from two_tower.server import contract
from two_tower.server.contract import EXTENSIONS, READ, TRIGGERED
from two_tower.server.preflight.catalogue import Connection, quoted, recorded
from two_tower.server.preflight.problem import Problem


def server(connection: Connection) -> Iterator[Problem]:
    version = connection.info.server_version
    if not contract.OLDEST <= version // 10000 <= contract.NEWEST:
        shown = one(connection, "show server_version")
        yield Problem(
            f"pg-two-tower runs on PostgreSQL {contract.OLDEST} to {contract.NEWEST}; this server is {shown}",
            "connect to a supported server",
        )
    encoding = one(
        connection, "select pg_encoding_to_char(encoding) from pg_database where datname = current_database()"
    )
    if encoding != "UTF8":
        yield Problem(
            f"the encoding of this database is {encoding}, and names of the world's catalogues need UTF8",
            "create a database with encoding UTF8, and restore a dump of this one into it",
        )
    if not one(connection, "select to_regcollation('pg_catalog.\"und-x-icu\"') is not null"):
        yield Problem(
            "this server has no collations of ICU, by which words of titles are split",
            "use a PostgreSQL that was built with ICU, as the packages of Debian and the official images are",
        )


def reach(connection: Connection) -> Iterator[Problem]:
    """What this session cannot change, or cannot even read: further checks would end with an error of PostgreSQL."""
    if one(connection, "select pg_is_in_recovery()"):
        yield Problem("this server is a standby, which takes no changes", "connect to the primary")
    role = one(connection, "select quote_ident(current_user)")
    owner = connection.execute(
        """select quote_ident(pg_get_userbyid(nspowner)) from pg_namespace
        where nspname = 'two_tower' and not has_schema_privilege(oid, 'usage')"""
    ).fetchone()
    if owner:
        yield Problem(
            f"the recommender of this database belongs to {owner[0]}, and the role {role} is no member of that",
            as_member(connection, owner[0]),
        )
        return
    if one(connection, "select to_regnamespace('public') is null"):
        yield Problem(
            "there is no schema public, where the application's tables and functions of ours are",
            "as the database's owner run: create schema public",
        )
    yield from _usage(connection, ["public", "auth"])


def _usage(connection: Connection, schemas: list[str]) -> Iterator[Problem]:
    role = one(connection, "select quote_ident(current_user)")
    for schema, whose in connection.execute(
        """select quote_ident(n.nspname), case
            when n.nspowner = 'pg_database_owner'::regrole then 'the database''s owner'
            else quote_ident(pg_get_userbyid(n.nspowner))
        end
        from pg_namespace n where n.nspname = any (%s) and not has_schema_privilege(n.oid, 'usage')
        order by 1""",
        (schemas,),
    ).fetchall():
        yield Problem(
            f"the role {role} may not use the schema {schema}, which belongs to {whose}",
            f"as {whose} run: grant usage on schema {schema} to {role}",
        )


def as_member(connection: Connection, owner: str) -> str:
    """How to act as ``owner`` (quoted), without making anybody a superuser."""
    if one(connection, "select rolsuper from pg_roles where oid = %s::regrole", (owner,)):
        return f"migrate as {owner}"
    return f"migrate as {owner}; or as a superuser run: grant {owner} to " + one(
        connection, "select quote_ident(current_user)"
    )


def rights(connection: Connection) -> Iterator[Problem]:
    role, database, may_create, may_create_roles = row(
        connection,
        """select quote_ident(current_user), quote_ident(current_database()),
            has_database_privilege(current_database(), 'create'), rolcreaterole or rolsuper
        from pg_roles where rolname = current_user""",
    )
    if not one(connection, "select has_schema_privilege('public', 'create')"):
        yield Problem(
            f"the role {role} may not create anything in schema public",
            f"as the schema's owner run: grant create on schema public to {role}",
        )
    if not may_create and not one(connection, "select to_regnamespace('two_tower') is not null"):
        yield Problem(
            f"the role {role} may not create schemas in the database {database}",
            f"as the database's owner run: grant create on database {database} to {role}",
        )
    where = """select n.nspname::text from pg_namespace n where n.nspname = 'extensions'
        or n.oid = (select e.extnamespace from pg_extension e where e.extname = 'vector')"""
    yield from _usage(connection, column(connection, where))
    missing = column(
        connection,
        """select r
        from unnest(%s::text[]) as r
        where not exists (select from pg_roles where rolname = r)""",
        (list(contract.ROLES),),
    )
    if missing and not may_create_roles:
        yield Problem(
            f"the roles {', '.join(missing)} are missing, and {role} may not create roles",
            f"as a superuser run: alter role {role} createrole",
        )


def owner(connection: Connection) -> str | None:
    """The role to which a superuser who migrates gives all our objects; None if they stay with the role that migrates.

    Our routines run as their owner and read the application's tables, and the owner of a table may replace it by a view
    that calls any function. So our owner must have no more rights than the owner of those tables. It is that owner; or,
    if they belong to a superuser, the owner of schema ``public``, who may drop them; or the present owner of ours.
    """
    if not one(connection, "select rolsuper from pg_roles where rolname = current_user"):
        return None
    owners = _owners(connection)
    if owners:
        return owners.get("videos") or min(owners.values())
    found = connection.execute(
        """select o.rolname::text
        from pg_namespace n
        join pg_database d on d.datname = current_database()
        join pg_roles o on o.oid = case when n.nspowner = 'pg_database_owner'::regrole then d.datdba else n.nspowner end
        where n.nspname in ('public', 'two_tower') and not o.rolsuper
        order by n.nspname limit 1"""
    ).fetchone()
    return found and found[0]


def _owners(connection: Connection) -> dict[str, str]:
    """Owners of the tables that we read, by table, without superusers."""
    rows = connection.execute(
        """select c.relname::text, o.rolname::text from pg_class c join pg_roles o on o.oid = c.relowner
        where c.relnamespace = 'public'::regnamespace and c.relname = any (%s)
            and c.relkind in ('r', 'p', 'v', 'm', 'f') and not o.rolsuper
        order by 1""",
        (list(READ),),
    )
    return dict(rows.fetchall())


def ownership(connection: Connection) -> Iterator[Problem]:
    """What prevents the role of :func:`owner` from running our routines."""
    role = owner(connection)
    if role is None:
        return
    name = quoted(connection, role)
    others = {table: whose for table, whose in _owners(connection).items() if whose != role}
    for table, whose in others.items():
        yield Problem(
            f"public.{table} belongs to {whose}, and other tables that we read to {role}: "
            f"{whose} could have {role} run anything",
            f"give the tables to one role, such as: alter table public.{table} owner to {name}",
        )
    # Objects that we created are handed over.
    made = [*recorded(connection, "table"), *recorded(connection, "schema"), *recorded(connection, "function")]
    tables = [f"public.{table}" for table in READ if table not in others and f"public.{table}" not in made]
    for schema in column(
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
        if not one(
            connection, "select coalesce(has_table_privilege(%s, to_regclass(%s), %s), true)", (role, table, privilege)
        ):
            yield _lacks(role, f"{privilege} on {table}", f"grant {privilege} on {table} to {name}")
    if "auth.users" not in made:
        tables.append("auth.users")
        for privilege in ("select", "references"):
            if not one(
                connection,
                """select coalesce(bool_and(has_column_privilege(%s, a.attrelid, a.attnum, %s)), true)
                from pg_attribute a where a.attrelid = to_regclass('auth.users') and a.attname = 'id'""",
                (role, privilege),
            ):
                yield _lacks(role, f"{privilege} (id) on auth.users", f"grant {privilege} (id) on auth.users to {name}")
    if "auth.uid()" not in made and not one(
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


def extensions(connection: Connection) -> Iterator[Problem]:
    package = EXTENSIONS[contract.VECTOR].format(connection.info.server_version // 10000)
    found = connection.execute(
        """select e.extversion, a.default_version from pg_available_extensions a
        full join pg_extension e on e.extname = a.name where coalesce(a.name, e.extname) = %s""",
        (contract.VECTOR,),
    ).fetchone()
    if found is None:
        yield Problem(
            f"the extension {contract.VECTOR} is not installed on this server",
            f"install the package {package} on the server",
        )
        return
    if _numbers(found[0] or found[1]) < contract.VECTOR_NEEDED:
        yield Problem(
            f"pgvector is {found[0] or found[1]}; 0.8.0 or newer is needed, for iterative index scans",
            "upgrade the package, then run: alter extension vector update",
        )
    if found[0] is None and not one(
        connection,
        """select rolsuper or has_database_privilege(current_database(), 'create') and exists (
            select from pg_available_extension_versions v where v.name = 'vector' and v.trusted
        ) from pg_roles where rolname = current_user""",
    ):
        role, trusted, into = row(
            connection,
            """select quote_ident(current_user), exists (
                select from pg_available_extension_versions v where v.name = 'vector' and v.trusted
            ), case when to_regnamespace('extensions') is not null then ' with schema extensions' else '' end""",
        )
        needed = "CREATE on the database" if trusted else "a superuser, since this server does not mark it as trusted"
        whoever = "the database's owner" if trusted else "a superuser"
        yield Problem(
            f"the extension vector is not created in this database, and takes {needed}, which the role {role} lacks",
            f"as {whoever} run: create extension vector{into}",
        )


def python_usable(connection: Connection) -> bool:
    """Whether this role can create routines in PL/Python after the migrations: only a superuser can."""
    return bool(
        one(
            connection,
            """select rolsuper and exists (select from pg_language where lanname = 'plpython3u')
            from pg_roles where rolname = current_user""",
        )
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
