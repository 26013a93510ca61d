"""Those lints of Supabase's database linter ("splinter") that can apply to us, as queries of our own.

https://supabase.com/docs/guides/database/database-linter describes each; names and levels are Supabase's. Lints about
usage or storage (unused_index, table_bloat, buckets, queues) are left out, since no migration can cause them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]
Lint = tuple[str, str, str]
"""Level (``INFO``, ``WARN``, ``ERROR``), name, object."""

EXPOSED = ("public", "graphql_public")
"""Schemas that PostgREST exposes on Supabase."""
PLATFORM = (
    "auth", "cron", "extensions", "graphql", "graphql_public", "information_schema", "net", "pg_catalog", "pg_toast",
    "pgbouncer", "pgmq", "pgsodium", "realtime", "storage", "supabase_functions", "supabase_migrations", "vault",
)  # fmt: skip
"""Supabase's own schemas, which the linter skips."""

# Source of the queries below: relations, policies and routines of schemas that are not Supabase's, without those of
# extensions. "secured" means row level security, "readable" that a client may select from it, "exposed" that PostgREST
# shows it.
_PARTS = """
with relations as (
    select c.oid as relation, n.nspname || '.' || c.relname as name, c.relkind as kind,
        c.relrowsecurity as secured, n.nspname = any (%(exposed)s) as exposed,
        coalesce(lower(c.reloptions::text) ~ 'security_invoker=(1|true|yes|on)', false) as invoker,
        has_table_privilege('anon', c.oid, 'select')
            or has_table_privilege('authenticated', c.oid, 'select') as readable
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where not n.nspname = any (%(platform)s) and n.nspname !~ '^pg_temp'
        and not exists (
            select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
        )
),
policies as (
    select r.*, p.polname as policy, p.polpermissive as permissive, p.polroles as roles, p.polcmd as command,
        coalesce(pg_get_expr(p.polqual, p.polrelid), '') as condition,
        coalesce(pg_get_expr(p.polwithcheck, p.polrelid), '') as rows_checked
    from relations r join pg_policy p on p.polrelid = r.relation
    where r.kind = 'r'
),
routines as (
    select p.*, n.nspname || '.' || p.proname as name, n.nspname = any (%(exposed)s) as exposed
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where not n.nspname = any (%(platform)s)
        and not exists (
            select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
        )
)
"""


@dataclass(frozen=True)
class _Query:
    level: str
    name: str
    text: str
    """Selects the objects, over ``_PARTS``."""


_QUERIES = (
    _Query(
        "INFO",
        "unindexed_foreign_keys",
        """select r.name || ' ' || k.conname from relations r join pg_constraint k on k.conrelid = r.relation
        where k.contype = 'f' and not exists (
            select from pg_index i where i.indrelid = k.conrelid and i.indisvalid
                and (i.indkey::int2[])[0:cardinality(k.conkey) - 1] = k.conkey
        )""",
    ),
    _Query(
        "ERROR",
        "auth_users_exposed",
        """select distinct r.name from relations r
        join pg_rewrite w on w.ev_class = r.relation
        join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid and d.deptype = 'n'
        join pg_class u on u.oid = d.refobjid and u.oid = to_regclass('auth.users')
        where r.exposed and r.readable
            and (r.kind = 'm' or r.kind = 'v' and (not r.invoker or not u.relrowsecurity))""",
    ),
    _Query(
        "WARN",
        "auth_rls_initplan",
        """select p.name || ' ' || p.policy from policies p
        where p.secured and regexp_replace(
            p.condition || ' ' || p.rows_checked, 'select (auth\\.\\w+\\(\\)|current_setting\\()', '', 'gi'
        ) ~ 'auth\\.(uid|jwt|role|email)\\(\\)|current_setting\\('""",
    ),
    _Query(
        "INFO",
        "no_primary_key",
        """select r.name from relations r
        where r.kind = 'r' and not exists (select from pg_index i where i.indrelid = r.relation and i.indisprimary)""",
    ),
    _Query(
        "WARN",
        "multiple_permissive_policies",
        """select p.name || ' ' || g.rolname || ' ' || v.verb from policies p
        cross join unnest(array['r', 'a', 'w', 'd'], array['SELECT', 'INSERT', 'UPDATE', 'DELETE']) as v (command, verb)
        join pg_roles g on g.oid = any (p.roles) or p.roles = '{0}'
        where p.permissive and p.command in (v.command::"char", '*')
            and g.rolname !~ '^(pg_|supabase.*admin$)' and not g.rolbypassrls
        group by p.name, g.rolname, v.verb having count(*) > 1""",
    ),
    _Query("ERROR", "policy_exists_rls_disabled", "select distinct p.name from policies p where not p.secured"),
    _Query(
        "INFO",
        "rls_enabled_no_policy",
        """select r.name from relations r
        where r.kind = 'r' and r.secured and not exists (select from pg_policy p where p.polrelid = r.relation)""",
    ),
    _Query(
        "WARN",
        "duplicate_index",
        """select r.name || ' ' || string_agg(c.relname, ' ' order by c.relname) from relations r
        join pg_index i on i.indrelid = r.relation join pg_class c on c.oid = i.indexrelid
        where r.kind in ('r', 'm')
        group by r.name, regexp_replace(pg_get_indexdef(i.indexrelid), ' INDEX .*? ON ', ' ON ')
        having count(*) > 1""",
    ),
    _Query(
        "ERROR",
        "security_definer_view",
        "select r.name from relations r where r.kind = 'v' and r.exposed and r.readable and not r.invoker",
    ),
    _Query(
        "WARN",
        "function_search_path_mutable",
        """select distinct f.name from routines f
        where not exists (select from unnest(f.proconfig) s where s ~ '^search_path=')""",
    ),
    _Query(
        "ERROR",
        "rls_disabled_in_public",
        "select r.name from relations r where r.kind = 'r' and r.exposed and r.readable and not r.secured",
    ),
    _Query(
        "WARN",
        "extension_in_public",
        """select e.extname from pg_extension e
        where e.extname <> 'plpgsql' and e.extnamespace = 'public'::regnamespace""",
    ),
    _Query(
        "ERROR",
        "rls_references_user_metadata",
        """select p.name || ' ' || p.policy from policies p
        where p.condition || ' ' || p.rows_checked ~ '(auth\\.jwt\\(\\)|request\\.jwt\\.claims).*user_metadata'""",
    ),
    _Query(
        "WARN",
        "materialized_view_in_api",
        "select r.name from relations r where r.kind = 'm' and r.exposed and r.readable",
    ),
    _Query(
        "WARN",
        "foreign_table_in_api",
        "select r.name from relations r where r.kind = 'f' and r.exposed and r.readable",
    ),
    _Query(
        "WARN",
        "unsupported_reg_types",
        """select r.name || '.' || a.attname from relations r
        join pg_attribute a on a.attrelid = r.relation and not a.attisdropped
        where a.atttypid = any (array[
            'regcollation', 'regconfig', 'regdictionary', 'regnamespace', 'regoper', 'regoperator', 'regproc',
            'regprocedure'
        ]::regtype[])""",
    ),
    _Query(
        "ERROR",
        "fkey_to_auth_unique",
        """select r.name || ' ' || k.conname from relations r
        join pg_constraint k on k.conrelid = r.relation and k.contype = 'f'
        join pg_class u on u.oid = k.confrelid and u.relnamespace = to_regnamespace('auth')
        join pg_index i on i.indexrelid = k.conindid
        where not i.indisprimary""",
    ),
    _Query(
        "WARN",
        "extension_versions_outdated",
        "select e.name from pg_available_extensions e where e.installed_version <> e.default_version",
    ),
    _Query(
        "ERROR",
        "sensitive_columns_exposed",
        """select r.name || '.' || a.attname from relations r
        join pg_attribute a on a.attrelid = r.relation and a.attnum > 0 and not a.attisdropped
        where r.kind = 'r' and r.exposed and r.readable and not r.secured
            and lower(a.attname) ~
                '^(pass(word|wd|phrase)|secret|(.*_)?token|jwt|(api|private|secret)_?key|session_(id|key)|otp)$'""",
    ),
    _Query(
        "WARN",
        "rls_policy_always_true",
        """select p.name || ' ' || p.policy from policies p
        where p.secured and p.permissive
            and (p.roles = '{0}' or exists (
                select from pg_roles g where g.oid = any (p.roles) and g.rolname in ('anon', 'authenticated')
            ))
            and (
                p.command in ('w', 'd', '*') and p.condition in ('true', '') or p.command = 'a' and p.rows_checked = ''
                or p.rows_checked = 'true'
            )""",
    ),
    _Query(
        "WARN",
        "pg_graphql_anon_table_exposed",
        """select distinct r.name from relations r
        join pg_attribute a on a.attrelid = r.relation and a.attnum > 0 and not a.attisdropped
        where r.kind in ('r', 'v', 'm', 'f') and has_column_privilege('anon', r.relation, a.attnum, 'select')""",
    ),
    _Query(
        "WARN",
        "pg_graphql_authenticated_table_exposed",
        """select distinct r.name from relations r
        join pg_attribute a on a.attrelid = r.relation and a.attnum > 0 and not a.attisdropped
        where r.kind in ('r', 'v', 'm', 'f')
            and has_column_privilege('authenticated', r.relation, a.attnum, 'select')""",
    ),
    _Query(
        "WARN",
        "anon_security_definer_function_executable",
        """select distinct f.name from routines f
        where f.prosecdef and f.exposed and has_function_privilege('anon', f.oid, 'execute')""",
    ),
    _Query(
        "WARN",
        "authenticated_security_definer_function_executable",
        """select distinct f.name from routines f
        where f.prosecdef and f.exposed and has_function_privilege('authenticated', f.oid, 'execute')""",
    ),
)

NAMES = tuple(query.name for query in _QUERIES)


def lints(connection: Connection, *, graphql: bool = True) -> list[Lint]:
    """The linter's findings in a database; ``graphql``: as if pg_graphql were installed, as on Supabase."""
    found: list[Lint] = []
    schemas = {"exposed": list(EXPOSED), "platform": list(PLATFORM)}
    with connection.transaction(force_rollback=True):
        # With an empty path each name in an expression is printed with its schema.
        connection.execute("set local search_path = ''")
        for query in _QUERIES:
            if query.name.startswith("pg_graphql") and not graphql:
                continue
            rows = connection.execute((_PARTS + query.text).encode(), schemas)
            found += [(query.level, query.name, name) for (name,) in rows]
    return sorted(found)
