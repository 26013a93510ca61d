"""The schema of a database by pg_dump, and its privileges by the catalogue, as text that can be compared."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import psycopg

GOLDEN = Path(__file__).parent / "golden"
ROLES = ("public", "anon", "authenticated", "service_role", "authenticator", "two_tower_viewer")

_NOISE = re.compile(r"^(--.*|SET .*|SELECT pg_catalog\.set_config.*|\\(un)?restrict .*)$")
_VIEW = re.compile(r"(?m)^(CREATE VIEW .*?) AS\n.*?;$", re.DOTALL)
_BODY = re.compile(r"\n    (?:AS (\$\w*\$).*?\1|RETURN .*?);$", re.DOTALL | re.MULTILINE)


def schema(bindir: Path, dsn: str, *, data: bool = False) -> str:
    """``pg_dump`` without differences between server versions, and without yoyo's own tables."""
    command: list[str | Path] = [bindir / "pg_dump", "--no-owner", "--no-privileges", "--exclude-table=*.*yoyo*"]
    command += ["--exclude-table=two_tower.impressions_[0-9]*"]  # partitions are like their parent
    command += [*([] if data else ["--schema-only"]), dsn]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line for line in text.splitlines() if not _NOISE.match(line)]
    return re.sub(r"\n{2,}", "\n\n", "\n".join(lines)).strip() + "\n"


def without_bodies(dump: str) -> str:
    """The dump without bodies of routines and views. Their text is in ``sql/``; servers print views differently."""
    return _VIEW.sub(r"\1;", _BODY.sub(";", dump))


def privileges(db: psycopg.Connection[Any], schemas: tuple[str, ...] = ("public", "two_tower")) -> str:
    """One line per object: the privileges of roles, and the settings that protect tables and routines."""
    parts = [
        ("schemas", _SCHEMAS),
        ("tables and views", _RELATIONS),
        ("columns", _COLUMNS),
        ("sequences", _SEQUENCES),
        ("routines", _ROUTINES),
        ("policies", _POLICIES),
    ]
    text = []
    for title, query in parts:
        rows = db.execute(query.encode(), {"roles": list(ROLES), "schemas": list(schemas)}).fetchall()
        text.append(f"# {title}\n" + "".join(f"{line}\n" for (line,) in rows))
    # yoyo's tables may be in either schema; tests/migrations checks their privileges.
    # Partitions of impressions are named by their day; test_shown checks one.
    return re.sub(r"(?m)^(\S*yoyo_|two_tower\.impressions_\d).*\n", "", "\n".join(text))


_SCHEMAS = """
select n.nspname || ': ' || coalesce(string_agg(r.role || ' ' || a.privileges, ', ' order by r.at), 'nobody')
from pg_namespace n
cross join lateral unnest(%(roles)s::text[]) with ordinality as r (role, at)
cross join lateral (
    select string_agg(lower(p), '+' order by p) from unnest(array['CREATE', 'USAGE']) as p
    where has_schema_privilege(r.role, n.oid, p)
) as a (privileges)
where n.nspname = any (%(schemas)s) and a.privileges is not null
group by n.nspname
order by n.nspname collate "C"
"""

# Only what was granted to the role itself, or to everybody: an authenticator does not inherit other grants.
_RELATIONS = """
select n.nspname || '.' || c.relname
    || case c.relkind when 'v' then ' view ' || coalesce(array_to_string(c.reloptions, ','), 'WITHOUT OPTIONS')
        else case when c.relrowsecurity then ' rls' else ' NO RLS' end end
    || ': ' || coalesce(string_agg(r.role || ' ' || a.privileges, ', ' order by r.at), 'nobody')
from pg_class c join pg_namespace n on n.oid = c.relnamespace
cross join lateral unnest(%(roles)s::text[]) with ordinality as r (role, at)
cross join lateral (
    select string_agg(lower(p), '+' order by p)
    from unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) as p
    where has_table_privilege(r.role, c.oid, p)
) as a (privileges)
where n.nspname = any (%(schemas)s) and c.relkind in ('r', 'p', 'v', 'm', 'f')
group by n.nspname, c.relname, c.relkind, c.reloptions, c.relrowsecurity
order by n.nspname collate "C", c.relname collate "C"
"""

# For tables, grants on a column without a grant on the table; for views, the types that clients see.
_COLUMNS = """
select n.nspname || '.' || c.relname || '.' || t.attname
    || case c.relkind when 'v' then ' ' || format_type(t.atttypid, t.atttypmod) else '' end
    || coalesce(': ' || string_agg(r.role || ' ' || a.privileges, ', ' order by r.at), '')
from pg_class c join pg_namespace n on n.oid = c.relnamespace
join pg_attribute t on t.attrelid = c.oid and t.attnum > 0 and not t.attisdropped
left join lateral unnest(%(roles)s::text[]) with ordinality as r (role, at) on c.relkind <> 'v'
left join lateral (
    select string_agg(lower(p), '+' order by p) from unnest(array['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) as p
    where has_column_privilege(r.role, c.oid, t.attnum, p) and not has_table_privilege(r.role, c.oid, p)
) as a (privileges) on true
where n.nspname = any (%(schemas)s) and c.relkind in ('r', 'p', 'v', 'm', 'f')
group by n.nspname, c.relname, c.relkind, t.attname, t.atttypid, t.atttypmod
having c.relkind = 'v' or count(a.privileges) > 0
order by n.nspname collate "C", c.relname collate "C", t.attname collate "C"
"""

_SEQUENCES = """
select n.nspname || '.' || c.relname || ': '
    || coalesce(string_agg(r.role || ' ' || a.privileges, ', ' order by r.at), 'nobody')
from pg_class c join pg_namespace n on n.oid = c.relnamespace
cross join lateral unnest(%(roles)s::text[]) with ordinality as r (role, at)
cross join lateral (
    select string_agg(lower(p), '+' order by p) from unnest(array['USAGE', 'SELECT', 'UPDATE']) as p
    where has_sequence_privilege(r.role, c.oid, p)
) as a (privileges)
where n.nspname = any (%(schemas)s) and c.relkind = 'S'
group by n.nspname, c.relname
order by n.nspname collate "C", c.relname collate "C"
"""

_ROUTINES = """
select p.oid::regprocedure::text || ' '
    || case when p.prokind = 'p' then 'procedure' when p.provolatile = 'i' then 'immutable'
        when p.provolatile = 's' then 'stable' else 'volatile' end
    || case when p.prosecdef then ' DEFINER' else ' invoker' end
    || ' parallel ' || case p.proparallel when 's' then 'safe' when 'r' then 'restricted' else 'unsafe' end
    || coalesce(' ' || (select s from unnest(p.proconfig) s where s like 'search_path=%%'), ' NO SEARCH_PATH')
    || ': '
    || coalesce(string_agg(case when has_function_privilege(r.role, p.oid, 'EXECUTE') then r.role end, ', '
        order by r.at), 'nobody')
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
cross join lateral unnest(%(roles)s::text[]) with ordinality as r (role, at)
where n.nspname = any (%(schemas)s)
    and not exists (
        select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
    )
group by n.nspname, p.oid
order by n.nspname collate "C", p.oid::regprocedure::text collate "C"
"""

_POLICIES = """
select p.schemaname || '.' || p.tablename || ' ' || p.policyname || ' ' || lower(p.permissive) || ' ' || lower(p.cmd)
    || ' to ' || array_to_string(p.roles, ', ') || ' using ' || coalesce(p.qual, 'nothing')
    || ' check ' || coalesce(p.with_check, 'nothing')
from pg_policies p where p.schemaname = any (%(schemas)s)
order by p.schemaname collate "C", p.tablename collate "C", p.policyname collate "C"
"""
