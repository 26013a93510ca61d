"""Handing over what a superuser made to the role that owns the application's tables (:func:`preflight.owner`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from two_tower.server import preflight

_OURS = """
with made as (
    select o.kind, o.name from two_tower.created_objects o
),
relations as (
    select c.oid, c.relowner as owner
    from pg_class c
    where c.relkind in ('r', 'p', 'v') and (
        c.relnamespace = 'two_tower'::regnamespace
        or c.oid in (select to_regclass(t) from unnest(%(tables)s::text[]) as t)
        or c.oid in (
            select to_regclass(m.name) from made m
            -- As in teardown.sql: a relation of that name without our marks was created later by the application.
            where m.kind = 'table' and (
                not starts_with(m.name, 'public.')
                or exists (
                    select from pg_policy p
                    where p.polrelid = to_regclass(m.name) and p.polname = 'two_tower_viewer'
                )
            ) or m.kind = 'view' and exists (
                select from pg_rewrite w
                join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
                join pg_class r on r.oid = d.refobjid and r.relnamespace = 'two_tower'::regnamespace
                where w.ev_class = to_regclass(m.name)
            )
        )
    )
),
objects as (
    select 1 as n, 'schema ' || quote_ident(s.nspname) as what, s.nspowner as owner
    from pg_namespace s
    where s.nspname = 'two_tower'
        or s.nspname = 'auth' and exists (select from made m where m.kind = 'schema' and m.name = 'auth')
    union all
    select 2, 'table ' || r.oid::regclass, r.owner from relations r
    union all
    -- Sequences and row types change owner with their tables.
    select 3, 'type ' || t.oid::regtype, t.typowner
    from pg_type t left join pg_class c on c.oid = t.typrelid
    where t.typnamespace = 'two_tower'::regnamespace and t.typtype in ('c', 'e', 'r')
        and coalesce(c.relkind, 'c') = 'c'
    union all
    select 4, 'routine ' || p.oid::regprocedure, p.proowner
    from pg_proc p
    where p.pronamespace = 'two_tower'::regnamespace
        or p.oid in (select to_regprocedure(m.name) from made m where m.kind in ('routine', 'function'))
)
select o.what from objects o where o.owner <> %(owner)s::regrole order by o.n, o.what
"""


def hand_over(connection: psycopg.Connection[Any], tables: Sequence[str] = ()) -> None:
    """Gives all our objects that belong to another role to that of :func:`preflight.owner`, if there is one.

    Runs inside the caller's transaction, as a superuser; repeating it changes nothing. From then on our jobs in pg_cron
    run as that role. ``tables`` are further tables of ours, in ``public``.
    """
    role = preflight.owner(connection)
    if role is None:
        return
    owner = sql.Identifier(role)
    values = {"owner": owner.as_string(connection), "tables": list(tables)}
    for (what,) in connection.execute(_OURS, values).fetchall():
        connection.execute(sql.SQL("alter {} owner to {}").format(sql.SQL(what), owner))  # quoted by the server
    # The role that migrated may switch to the role as which the page reads.
    connection.execute(sql.SQL("grant two_tower_viewer to {}").format(owner))
    _hand_over_jobs(connection, role)


def _hand_over_jobs(connection: psycopg.Connection[Any], role: str) -> None:
    made = connection.execute(
        """select exists (select from two_tower.created_objects where kind = 'extension' and name = 'pg_cron')
        from pg_extension where extname = 'pg_cron'"""
    ).fetchone()
    if made is None:
        return
    if made[0]:
        connection.execute(sql.SQL("grant usage on schema cron to {}").format(sql.Identifier(role)))
    # The role may have a job of the same name already, which stays.
    connection.execute(
        """select case when exists (select from cron.job o where o.jobname = j.jobname and o.username = %(role)s)
            then cron.unschedule(j.jobid)::text
            else cron.alter_job(j.jobid, username => %(role)s)::text end
        from cron.job j
        where j.jobname in (select d.cron_name from two_tower.job_definitions() d)
            and j.database = current_database() and j.username <> %(role)s""",
        {"role": role},
    )
