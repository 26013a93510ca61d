"""What ``migrate`` would change, and notes that are no reason to refuse."""

from __future__ import annotations

from collections.abc import Iterator

from two_tower.rows import column, one
from two_tower.server.contract import ASIDE, COLUMNS, IN_TWO_TOWER, NAMES, ROLES, ROUTINES, TRIGGERED
from two_tower.server.preflight.catalogue import (
    Connection,
    column_types,
    is_foreign,
    quoted,
    relation,
    taken_signatures,
)
from two_tower.server.preflight.server import owner


def changes(connection: Connection, take_names: bool) -> Iterator[str]:
    for role in ROLES:
        if not one(connection, "select exists (select from pg_roles where rolname = %s)", (role,)):
            yield f"role {role} is created"
    for extension, created in (
        ("vector", True),
        ("plpython3u", one(connection, PYTHON_OFFERED)),
    ):
        there = one(connection, "select exists (select from pg_extension where extname = %s)", (extension,))
        if created and not there:
            yield f"extension {extension} is created"
    whose = owner(connection)
    if whose and not one(
        connection,
        "select exists (select from pg_namespace where nspname = 'two_tower' and nspowner = %s::regrole)",
        (quoted(connection, whose),),
    ):
        yield f"our objects belong to {whose}, who owns the application's tables: routines run as that role"
    if one(connection, "select to_regclass('two_tower.created_objects') is not null"):
        return
    yield "schema two_tower is created, for models, vectors, the change log and operators' routines"
    for table in ("auth.users", *(f"public.{name}" for name in COLUMNS), "public.profiles"):
        if one(connection, "select to_regclass(%s) is null", (table,)):
            yield f"table {table} is created"
        elif table.removeprefix("public.") in TRIGGERED:
            yield (
                f"table {table} is yours: it gets triggers called two_tower_*, "
                "and the role two_tower_viewer may read the columns that the page shows"
            )
        else:
            yield f"table {table} is yours: it is only read" + (
                ""
                if table.startswith("auth.")
                else ", and the role two_tower_viewer may read the columns that the page shows"
            )
    for name in NAMES:
        kind = "table" if name == "user_features" else "view"
        if not is_foreign(connection, name):
            yield f"{kind} public.{name} is created"
        elif take_names:
            yield f"public.{name} is renamed to {name}{ASIDE}, and a {kind} of ours takes its name"
        else:
            yield f"public.{name} is yours and stays; ours is {IN_TWO_TOWER[name]} alone"
    referring = ["public.profiles", "public.user_video_decisions"]
    referring = [name for name in referring if one(connection, "select to_regclass(%s) is null", (name,))]
    features = "two_tower" if is_foreign(connection, "user_features") and not take_names else "public"
    referring += [
        f"{features}.user_features",
        "two_tower.reviews",
        "two_tower.impression_users",
        "two_tower.user_choices",
    ]
    yield f"foreign keys of {', '.join(referring)} refer to auth.users: a deleted user's rows there are deleted"
    for signature in taken_signatures(connection):
        if take_names:
            yield f"{signature} is renamed to end in {ASIDE}, and ours takes its name"
    for signature in ROUTINES:
        yield f"function public.{signature} is created"


PYTHON_OFFERED = """
select rolsuper and exists (select from pg_available_extensions where name = 'plpython3u')
from pg_roles where rolname = current_user
"""


def notes(connection: Connection) -> Iterator[str]:
    """Facts that are worth knowing, but no reason to refuse."""
    if not one(connection, "select to_regprocedure('two_tower.infer_onnxruntime(text, text, bytea)') is not null"):
        if one(connection, PYTHON_OFFERED):
            yield "users' vectors are computed in SQL, videos' by onnxruntime where it is installed (engine auto)"
        else:
            yield (
                "vectors are computed in SQL (engine sql): PL/Python takes a superuser and its package, "
                "and is needed only for towers whose weights are not rows"
            )
    outside = column(
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
        name = quoted(connection, role)
        if not one(connection, "select has_database_privilege(%s, current_database(), 'temporary')", (role,)):
            database = one(connection, "select quote_ident(current_database())")
            yield (
                f"the role {role} may not make temporary tables, which imports need "
                f"(grant temporary on database {database} to {name})"
            )
        if one(
            connection,
            """select not rolcanlogin and exists (select from pg_extension where extname = 'pg_cron')
            from pg_roles where rolname = %s""",
            (role,),
        ):
            yield f"the role {role} may not log in, so pg_cron cannot run jobs as that role (alter role {name} login)"
    found = relation(connection, "user_video_decisions")
    # A superuser may be connected: code behind a view or a foreign table would run as superuser.
    if (
        found is None
        or found[0] != "r"
        or not one(connection, "select has_table_privilege('public.user_video_decisions', 'select')")
    ):
        return
    types = column_types(connection, "user_video_decisions")
    if "weight" in types and not one(connection, "select to_regclass('two_tower.created_objects') is not null"):
        yield "public.user_video_decisions has a column weight: decisions count by it, from 0.01 to 10"
    if "decision_type" in types:
        words = column(
            connection,
            # Not by a cast to text, which the application may have defined: it would run as the role that migrates.
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
    if not one(
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
