"""Rules for every object of the schema, checked by the catalogue and plpgsql_check."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import psycopg
import pytest

import two_tower
from conftest import Connection
from two_tower.server import migrate
from world_fixtures import column, one

OURS = """
(n.nspname = 'two_tower' or n.nspname = 'public') and not exists (
    select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
)
"""
ROUTINES = f"from pg_proc p join pg_namespace n on n.oid = p.pronamespace where {OURS}"

# A set clause on a procedure forbids commit inside it; routines in C resolve no names; and routines that read a value
# for every row of a query are inlined only without one. Names in a body that is no string are bound at creation.
WITHOUT_SEARCH_PATH = {
    "two_tower.change_key(text,uuid)",
    "two_tower.count_decisions(uuid[])",
    "two_tower.label_of_word(text)",
    "two_tower.decision_label(anyelement)",
    *(
        f"two_tower.{name}({kind},double precision)"
        for name, kinds in {
            "text_of": ("text", "character varying", "character"),
            "id_of": ("uuid",),
            "price_of": ("numeric", "double precision", "real", "bigint", "integer", "money"),
            "duration_of": ("numeric", "double precision", "real", "integer", "money"),
            "weight_of": ("numeric", "double precision", "real"),
            "time_of": ("timestamp with time zone", "timestamp without time zone", "date"),
        }.items()
        for kind in kinds
    ),
    *(
        f"two_tower.{name}_of{arguments}"
        for name in ("text", "id", "price", "duration", "weight", "time")
        for arguments in ("(anyelement)", "(anyelement,integer)")
    ),
    *(f"two_tower.{name}_of_word(text)" for name in ("id", "price", "duration", "weight", "time")),
    "two_tower.decision_weight(bigint,double precision,real)",
    "two_tower.input_numbers()",
    "two_tower.input_segments()",
    # The application's triggers run under the caller's path, as when the caller writes decisions.
    "claim_session(uuid[],uuid[])",
    "two_tower.refresh(integer,interval)",
    "two_tower.rebuild()",
    "two_tower.backfill_model(text,boolean)",
    # Inlined by the planner, which a set clause would prevent; every name in it is qualified.
    "two_tower.accounts()",
    "two_tower.keys_of(jsonb)",
    "two_tower.profile_keys(uuid)",
    "two_tower.weighted_decisions(uuid,double precision)",
    "two_tower.given_decisions(uuid)",
    "two_tower.attributes_of(uuid)",
    "two_tower.contents_of(uuid)",
    "two_tower.passing(two_tower.video_filter,uuid)",
    "two_tower.eligible(uuid,uuid)",
    "two_tower.passing_named(text,uuid)",
    "two_tower.model_rows(text,text,text)",
    "two_tower.in_share(uuid,integer,double precision)",
    "two_tower.user_vector(extensions.vector)",
    "two_tower.video_vector(extensions.vector)",
    "two_tower.times(extensions.vector,real)",
}
# Routines that clients may call with the rights of the owner.
DEFINERS_OF_CLIENTS = {
    "embed_user",
    "export_user_data",
    "get_user_embedding_features",
    "keep_shown",
    "list_candidates",
    "own_reasons",
    "own_scores",
    "own_version",
    "session_reasons",
    "set_choices",
    "shown_lately",
    "steer_list",
    "update_user_features",
}


# As in pg_cron, which exists in only one database of a cluster.
CRON = """
create schema cron;
create table cron.job (
    jobid bigint, schedule text, command text, nodeport int, database text, jobname text, active boolean
);
create table cron.job_run_details (
    jobid bigint, runid bigint, status text, return_message text, start_time timestamptz, end_time timestamptz
);
create function cron.schedule(text, text, text) returns bigint language sql as 'select 1::bigint';
create function cron.unschedule(bigint) returns bool language sql as 'select true';
"""
# Documented names of arguments, and literals that are assigned to a variable at its declaration.
# nearest_videos() changes a setting that its own SET clause restores at its end: for its caller it is STABLE.
HARMLESS = (
    r"name of parameter \"(limit|offset|window)\" is reserved keyword|cast \"text\" value .* \(statement block\)"
    r"|^two_tower\.nearest_videos\(.* routine is marked as STABLE"
    # Its argument is a piece of SQL, and only the owner, as whom it runs, may call it.
    r"|^two_tower\.(set_visible_when|compile_eligible)\(.* security 00000 text type variable is not sanitized"
    # A trigger's definition is SQL that change_triggers() writes, of names of tables that it quotes.
    r"|^two_tower\.make_triggers\(.* text type variable is not sanitized"
    # It is documented; every call computes from the rows.
    r"|^embed_user\(.* unused parameter \"force\""
)


@pytest.fixture
def profiled(db: Connection) -> Connection:
    """A database with the triggers that exist if a column of profiles is an input."""
    db.execute("alter table public.profiles add column age_band text")
    db.execute("select two_tower.set_profile_inputs('{age_band}')")
    return db


def test_plpgsql_check_finds_nothing(profiled: Connection) -> None:
    """Every plpgsql routine, and every trigger function for each table that it is a trigger of."""
    db = profiled
    db.execute(CRON.encode())
    try:
        db.execute("create extension plpgsql_check")
    except psycopg.Error as error:
        major = db.info.server_version // 10000
        pytest.fail(f"install the package postgresql-{major}-plpgsql-check for this test: {error}")
    routines = f"""{ROUTINES} and p.prolang = (select oid from pg_language where lanname = 'plpgsql')"""
    found = db.execute(
        f"""select format(
            '%s %s line %s: %s %s %s (%s)', p.oid::regprocedure, t.tgrelid::regclass, c.lineno, c.level, c.sqlstate,
            concat_ws(', ', c.message, c.detail, c.hint), c.statement
        )
        from (select p.* {routines}) p
        left join pg_trigger t on t.tgfoid = p.oid
        cross join lateral plpgsql_check_function_tb(
            p.oid::regprocedure, coalesce(t.tgrelid, 0::oid)::regclass,
            oldtable => t.tgoldtable, newtable => t.tgnewtable,
            performance_warnings => false, extra_warnings => true, security_warnings => true
        ) c
        where p.prorettype <> 'trigger'::regtype or t.oid is not null""".encode()
    ).fetchall()
    assert [line for (line,) in found if not re.search(HARMLESS, line)] == []
    assert one(db, f"select count(*) {routines}") > 20


def test_every_trigger_function_is_a_trigger_somewhere(profiled: Connection) -> None:
    idle = column(
        profiled,
        f"""select p.oid::regprocedure::text {ROUTINES} and p.prorettype = 'trigger'::regtype
        and not exists (select from pg_trigger t where t.tgfoid = p.oid)""",
    )
    assert idle == []


def test_public_may_execute_nothing(db: Connection) -> None:
    assert (
        column(
            db, f"select p.oid::regprocedure::text {ROUTINES} and has_function_privilege('public', p.oid, 'EXECUTE')"
        )
        == []
    )


def test_every_routine_pins_its_search_path(db: Connection) -> None:
    loose = column(
        db,
        f"""select p.oid::regprocedure::text {ROUTINES} and not exists (
            select from unnest(p.proconfig) s where s = 'search_path=pg_catalog, pg_temp'
        )""",
    )
    assert set(loose) == WITHOUT_SEARCH_PATH


def test_every_definer_routine_sets_a_search_path(db: Connection) -> None:
    definers = column(db, f"select p.oid::regprocedure::text {ROUTINES} and p.prosecdef")
    assert not WITHOUT_SEARCH_PATH & set(definers)
    clients = f"""select p.proname {ROUTINES} and p.prosecdef and (
        has_function_privilege('anon', p.oid, 'EXECUTE') or has_function_privilege('authenticated', p.oid, 'EXECUTE')
    )"""
    assert set(column(db, clients)) == DEFINERS_OF_CLIENTS


def test_every_routine_states_volatility_security_and_parallel_safety() -> None:
    """They are stated explicitly, not left to defaults (volatility only of functions)."""
    silent = []
    for path in migrate.logic_files():
        for header in re.findall(
            r"create or replace (function|procedure) (\S+?)\((.*?)as \$", path.read_text(), re.DOTALL
        ):
            kind, name, text = header
            volatility = re.search(r"\b(immutable|stable|volatile)\b", text)
            if (kind == "function" and "returns trigger" not in text and not volatility) or not re.search(
                r"\bsecurity (invoker|definer)\b", text
            ):
                silent.append(f"{path.name}: {name}")
            if re.search(r"\b(immutable|stable)\b", text) and "language sql" in text and "parallel" not in text:
                silent.append(f"{path.name}: {name} (parallel)")
    assert silent == []


def test_every_routine_has_a_file_of_its_name() -> None:
    stray = []
    for path in migrate.logic_files():
        names = re.findall(r"create or replace (?:function|procedure) (?:public|two_tower)\.(\w+)", path.read_text())
        if names and not (
            path.stem in names or path.stem.startswith("log_") or (len(names) == 1 and names[0] == path.stem)
        ):
            stray.append(f"{path.name}: {names}")
    assert stray == []


def test_sql_readme_names_its_folders_and_files_and_is_not_applied() -> None:
    readme = migrate.LOGIC / "README.md"
    assert readme not in migrate.logic_files()
    text = readme.read_text()
    files = re.findall(r"`(\d\d_\w+/\w+\.sql)`", text)
    assert len(files) > 30
    assert [file for file in files if not (migrate.LOGIC / file).is_file()] == []
    rows = re.findall(r"^\| `(.+?)` \|", text, re.MULTILINE)
    assert rows == sorted({path.relative_to(migrate.LOGIC).parts[0] for path in migrate.logic_files()})


def test_every_definer_says_why() -> None:
    """Above ``security definer`` is its reason, in words and not by reference."""
    silent = []
    for path in migrate.logic_files():
        head = "".join(re.findall(r"^--.*\n", path.read_text().split("as $", 1)[0], re.MULTILINE))
        reason = re.search(r"(?<!Not )SECURITY DEFINER: (?!as\b)\w+", head)
        if ("security definer" in path.read_text()) != bool(reason):
            silent.append(path.name)
    assert silent == []


def test_every_definer_routine_is_granted_to_another_role(db: Connection) -> None:
    """Routines that only the owner calls have the owner's rights anyway; any role that writes calls triggers."""
    idle = column(
        db,
        f"""select p.oid::regprocedure::text {ROUTINES} and p.prosecdef and p.prorettype <> 'trigger'::regtype
        and not exists (
            select from unnest(array['anon', 'authenticated', 'service_role', 'two_tower_viewer']) as r (name)
            where has_function_privilege(r.name, p.oid, 'execute')
        )""",
    )
    assert idle == []


# ---------------------------------------------------------------------------------------- rows that a statement reads

_WRITE = re.compile(
    r"(?<!do )(?<!for )(?<!for no key )\b"
    r"(?:update\s+(?:only\s+)?(?!set\b|of\b|on\b|skip\b|nowait\b)[\w.%$\"{}]+"
    r"(?:\s+(?:as\s+)?\w+)?\s+set\b"
    r"|delete\s+from\b)",
    re.IGNORECASE,
)


def unbounded(text: str) -> list[str]:
    """UPDATE and DELETE of ``text`` without a WHERE, as the module safeupdate would refuse them."""
    text = re.sub(r"--[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
    found = []
    for match in _WRITE.finditer(text):
        depth, end = 0, len(text)
        outer = []
        for at in range(match.end(), len(text)):
            depth += {"(": 1, ")": -1}.get(text[at], 0)
            if depth < 0 or (text[at] == ";" and depth == 0) or (text[at] == "$" and depth == 0):
                end = at
                break
            outer.append(text[at] if depth == 0 else " ")
        if not re.search(r"\bwhere\b", "".join(outer), re.IGNORECASE):
            found.append(" ".join(text[match.start() : end].split())[:100])
    return found


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("update a set b = 1", 1),
        ("update a as x set b = (select 1 from c where d)", 1),
        ("delete from a", 1),
        ("with x as (delete from a returning 1) select 1 from x where true", 1),
        ("with x as (update s.a set b = 1) update c set d = 1 where e", 1),
        ("delete from a; delete from b where c", 1),
        ("update a set b = 1 where c", 0),
        ("delete from a using b where a.c = b.c", 0),
        ("insert into a values (1) on conflict do update set b = 1", 0),
        ("select 1 from a for update skip locked", 0),
        ("create trigger t after update on a", 0),
        ("-- delete from a", 0),
    ],
)
def test_updates_and_deletes_without_a_condition_are_found(text: str, faults: int) -> None:
    assert len(unbounded(text)) == faults


@pytest.mark.slow
def test_every_update_and_delete_has_a_condition() -> None:
    """Supabase loads safeupdate for PostgREST's login, which refuses others, also in routines."""
    found = [(path.name, fault) for path in migrate.logic_files() for fault in unbounded(migrate.expand(path))]
    for path in Path(two_tower.__file__).parent.rglob("*.py"):
        if path.parent.name == "bench":
            continue  # it works only on its own databases
        for node in ast.walk(ast.parse(path.read_text())):
            texts = [node] if isinstance(node, ast.Constant) else node.values if isinstance(node, ast.JoinedStr) else []
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in texts)
            found += [(path.name, fault) for fault in unbounded(text)]
    assert found == []


def test_every_table_has_row_level_security(world_dsn: str) -> None:
    """Including partitions, which staging a model creates."""
    with psycopg.connect(world_dsn) as db:
        tables = """from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where n.nspname in ('public', 'two_tower', 'auth')"""
        assert (
            column(db, f"select c.oid::regclass::text {tables} and c.relkind in ('r', 'p') and not c.relrowsecurity")
            == []
        )
        assert (
            one(db, f"select count(*) {tables} and c.relispartition and c.relkind = 'r' and c.relname !~ '^imp'") == 3
        )


def test_every_view_reads_with_the_rights_of_its_reader(db: Connection) -> None:
    views = column(
        db,
        """select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname in ('public', 'two_tower') and c.relkind = 'v'
            and not coalesce('security_invoker=true' = any (c.reloptions), false)""",
    )
    # The owner's condition decides which videos are shown, whatever policies the application has on them.
    assert views == ["two_tower.visible_videos"]


def test_every_foreign_key_is_indexed(db: Connection) -> None:
    """A deleted user or video must not scan what refers to it."""
    missing = column(
        db,
        """select k.conrelid::regclass || ' ' || k.conname from pg_constraint k
        join pg_namespace n on n.oid = k.connamespace
        where k.contype = 'f' and n.nspname in ('public', 'two_tower') and not exists (
            -- What looks for a value is served by an index of all values, nulls left out.
            select from pg_index i where i.indrelid = k.conrelid and i.indisvalid
                and (i.indpred is null or pg_get_expr(i.indpred, i.indrelid) = (
                    select '(' || quote_ident(a.attname) || ' IS NOT NULL)' from pg_attribute a
                    where a.attrelid = k.conrelid and array[a.attnum] = k.conkey
                ))
                and (i.indkey::int2[])[0 : cardinality(k.conkey) - 1] @> k.conkey
        )""",
    )
    assert missing == []


def test_every_policy_reads_the_user_once_per_statement(db: Connection) -> None:
    """``auth.uid()`` as a sub-select is an InitPlan; bare, it runs for every row."""
    bare = column(
        db,
        """select schemaname || '.' || tablename || ' ' || policyname from pg_policies
        where concat(qual, with_check) ~ 'auth\\.uid\\(\\)'
            and concat(qual, with_check) !~* '\\( SELECT auth\\.uid\\(\\) AS uid\\)'""",
    )
    assert bare == []
    assert one(db, "select count(*) from pg_policies where qual ~ 'auth'") >= 4


OURS = "c.relkind in ('r', 'p') and c.relnamespace in ('public'::regnamespace, 'two_tower'::regnamespace)"
"""Tables in pg_class c."""


def test_tables_without_a_policy_are_closed_to_clients(world_dsn: str) -> None:
    """Supabase's rls_enabled_no_policy: tables without a policy are only for their owner and roles with bypassrls."""
    with psycopg.connect(world_dsn) as db:
        closed = column(
            db,
            f"""select c.oid::regclass::text from pg_class c
            where {OURS} and not exists (select from pg_policy p where p.polrelid = c.oid)""",
        )
        assert "two_tower.model_files" in closed
        open_ones = column(
            db,
            """select t.name || ' ' || r.name from unnest(%s::text[]) as t (name)
            cross join unnest(array['anon', 'authenticated', 'two_tower_viewer']) as r (name)
            where has_any_column_privilege(r.name, t.name, 'select, insert, update')""",
            closed,
        )
        assert open_ones == []


def test_every_table_has_a_primary_key(world_dsn: str) -> None:
    """Supabase's no_primary_key. Every like would pay for a key of the log that it appends to."""
    with psycopg.connect(world_dsn) as db:
        query = f"""select c.oid::regclass::text from pg_class c
            where {OURS} and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)"""
        assert column(db, query) == ["two_tower.user_change_log"]


def test_no_two_indexes_are_alike(world_dsn: str) -> None:
    """Supabase's duplicate_index."""
    with psycopg.connect(world_dsn) as db:
        query = f"""select array_agg(i.indexrelid::regclass)::text from pg_index i join pg_class c on c.oid = i.indrelid
            where {OURS} group by i.indrelid, i.indkey::text, i.indclass::text, i.indpred::text, i.indexprs::text
            having count(*) > 1"""
        assert column(db, query) == []


def test_at_most_one_policy_applies_to_a_role_and_command(db: Connection) -> None:
    """Supabase's multiple_permissive_policies: each would run for every row."""
    several = column(
        db,
        f"""select c.oid::regclass || ' ' || r.rolname from pg_policy p join pg_class c on c.oid = p.polrelid
        join pg_roles r on r.oid = any (p.polroles) or p.polroles = '{{0}}'
        cross join lateral unnest(case p.polcmd when '*' then '{{r,a,w,d}}' else array[p.polcmd] end) as command
        where {OURS} and p.polpermissive and not r.rolbypassrls and r.rolname !~ '^pg_'
        group by c.oid, r.rolname, command having count(*) > 1""",
    )
    assert several == []


def test_every_routine_and_view_has_a_comment(db: Connection) -> None:
    assert (
        column(db, f"select p.oid::regprocedure::text {ROUTINES} and obj_description(p.oid, 'pg_proc') is null") == []
    )
    views = """select c.oid::regclass::text from pg_class c
        where c.relkind = 'v' and obj_description(c.oid, 'pg_class') is null
        and c.relnamespace in ('public'::regnamespace, 'two_tower'::regnamespace)"""
    assert column(db, views) == []


def test_every_table_and_type_of_ours_has_a_comment(db: Connection) -> None:
    tables = column(
        db,
        """select c.oid::regclass::text from pg_class c
        where c.relnamespace = 'two_tower'::regnamespace and c.relkind in ('r', 'p', 'c') and not c.relispartition
            and coalesce(obj_description(c.oid, 'pg_class'), obj_description(c.reltype, 'pg_type')) is null
        order by 1""",
    )
    assert tables == []


def test_the_four_client_roles_own_nothing_and_belong_to_nobody(db: Connection) -> None:
    roles = "('anon', 'authenticated', 'service_role', 'authenticator')"
    owned = one(
        db,
        f"""select count(*) from pg_shdepend
        where deptype = 'o' and refobjid in (select oid from pg_roles where rolname in {roles})""",
    )
    assert owned == 0
    members = db.execute(
        f"""select m.rolname, g.rolname from pg_auth_members a
        join pg_roles m on m.oid = a.member join pg_roles g on g.oid = a.roleid
        where m.rolname in {roles} order by 1, 2""".encode()
    ).fetchall()
    assert members == [("authenticator", "anon"), ("authenticator", "authenticated"), ("authenticator", "service_role")]
    powers = db.execute(
        f"""select rolname from pg_roles where rolname in {roles}
        and (rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls and rolname <> 'service_role'
            or rolinherit or rolcanlogin and rolname <> 'authenticator')""".encode()
    ).fetchall()
    assert powers == []
