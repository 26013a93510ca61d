"""Writes docs/reference/: what the database says of itself by ``comment on``, what verbs say by ``--help``.

``pytest tests/test_reference.py`` compares the pages with both; with ``--golden-update`` it writes them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any, LiteralString

import psycopg
import typer

from two_tower.cli.main import app

Connection = psycopg.Connection[Any]
CALLERS = ("anon", "authenticated", "service_role")

ROUTINES: LiteralString = """
select n.nspname = 'public' as is_rpc, p.proname, pg_get_function_identity_arguments(p.oid) as named,
    pg_get_function_arguments(p.oid) as arguments, pg_get_function_result(p.oid) as result,
    p.prokind = 'p' as is_procedure,
    case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end as volatility,
    case when p.prosecdef then 'definer' else 'invoker' end as security,
    array(select r from unnest(%s::text[]) as r where has_function_privilege(r, p.oid, 'execute')) as callers,
    obj_description(p.oid, 'pg_proc') as says
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname in ('public', 'two_tower') and p.prorettype <> 'trigger'::regtype
    and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
order by n.nspname, p.proname, named
"""
RELATIONS: LiteralString = """
select format('%%s.%%s', n.nspname, c.relname) as name, c.relkind in ('v', 'm') as is_view,
    array(select r from unnest(%s::text[]) as r where has_any_column_privilege(r, c.oid, 'select')) as readers,
    array(select r from unnest(%s::text[]) as r
        where has_any_column_privilege(r, c.oid, 'insert') or has_any_column_privilege(r, c.oid, 'update')) as writers,
    obj_description(c.oid, 'pg_class') as says,
    (
        select json_agg(json_build_array(a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
            col_description(c.oid, a.attnum)) order by a.attnum)
        from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    ) as columns
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname in ('public', 'two_tower') and c.relkind in ('r', 'p', 'v', 'm') and not c.relispartition
    and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e')
    and c.relname !~ '^(_yoyo|yoyo)'
order by n.nspname, c.relname
"""

OF_THE_APPLICATION = {
    "public.performers": "Who appears in videos",
    "public.profiles": "One row for each person who has an account",
    "public.tags": "Names of tags",
    "public.user_features": "What was counted of each user's likes and nopes; written by refreshes",
    "public.user_video_decisions": "Likes, nopes and skips: what the application records",
    "public.video_performers": "Who appears in which video",
    "public.video_tags": "Which video has which tags",
    "public.videos": "The catalogue",
}
"""Of tables that may be the application's own, and so have no comment of ours."""

SQLSTATES = {
    "22023": "An argument or setting has a value that it cannot have. The message says what is allowed.",
    "23505": "What is registered is there already, with other content.",
    "25006": "The routine writes, and this server is a standby: call it on the primary.",
    "28000": "Nobody is signed in, or somebody else than is asked for.",
    "42501": "The role may not do this.",
    "54000": "More than a limit allows.",
    "55000": "The database is not in the state for it, such as no active model. The message says what comes first.",
    "55006": "Another session is doing the same, or an experiment on users is running.",
    "55P03": "A lock was not to be had in time; try again.",
    "P0002": "There is no such user, video or version.",
    "TT003": "The quality gate said no.",
}


def page(title: str, what: str, lines: Iterable[str]) -> str:
    return "\n".join([f"# {title}", "", what, "", *lines]).rstrip() + "\n"


def cell(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").replace("|", "\\|")


def routines(connection: Connection, *, rpcs: bool) -> Iterator[str]:
    for row in connection.execute(ROUTINES, [list(CALLERS)]).fetchall():
        is_rpc, name, _, arguments, result, is_procedure, volatility, security, callers, says = row
        if is_rpc != rpcs:
            continue
        yield f"## {name}"
        yield ""
        yield "```sql"
        given = re.sub(r", (?=\"?\w+\"? )", ",\n    ", arguments)
        written = f"{name}(\n    {given}\n)" if "\n" in given else f"{name}({given})"
        columns = re.sub(r", (?=\"?\w+\"? )", ",\n    ", result or "").replace("TABLE(", "table (\n    ")
        columns = re.sub(r"\)$", "\n)", columns) if columns.startswith("table") else columns
        yield f"call {written}" if is_procedure else f"{written} returns {columns}"
        yield "```"
        yield ""
        yield f"{says}."
        yield ""
        who = ", ".join(f"`{role}`" for role in callers) or "the owner alone"
        yield f"Called by {who}. {volatility.capitalize()}, security {security}."
        yield ""


def relations(connection: Connection) -> Iterator[str]:
    for name, is_view, readers, writers, says, columns in connection.execute(
        RELATIONS, [list(CALLERS), list(CALLERS)]
    ).fetchall():
        yield f"## {name}"
        yield ""
        yield f"{'View' if is_view else 'Table'}. {says or OF_THE_APPLICATION.get(name)}."
        read = ", ".join(f"`{role}`" for role in readers) or "the owner alone"
        write = ", ".join(f"`{role}`" for role in writers) or "the owner alone"
        yield f"Read by {read}" + ("." if is_view else f"; written by {write}.")
        yield ""
        yield "| column | type | null | |"
        yield "|---|---|---|---|"
        for column, kind, required, comment in columns:
            yield f"| `{column}` | `{kind}` | {'no' if required else 'yes'} | {cell(comment)} |"
        yield ""


def settings(connection: Connection) -> Iterator[str]:
    yield "| name | default | |"
    yield "|---|---|---|"
    for name, value, description in connection.execute(
        "select name, value::text, description from two_tower.settings order by name"
    ):
        yield f"| `{name}` | `{value}` | {cell(description)} |"


def commands() -> Iterator[str]:
    yield from _command(typer.main.get_command(app), "two-tower", None)


def _command(command: Any, path: str, above: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=path.rpartition(" ")[2], parent=above)
    yield f"## {path}"
    yield ""
    yield "```text"
    yield " ".join([path, *command.collect_usage_pieces(context)])
    yield "```"
    yield ""
    yield inspect.cleandoc(command.help or "")
    yield ""
    records = [given.get_help_record(context) for given in command.params if not given.hidden and given.name != "help"]
    if records := [record for record in records if record]:
        yield "| | |"
        yield "|---|---|"
        for names, says in records:
            yield f"| `{cell(names)}` | {cell(says)} |"
        yield ""
    if command.epilog:
        yield "```text"
        yield inspect.cleandoc(command.epilog)
        yield "```"
        yield ""
    for name, below in sorted(getattr(command, "commands", {}).items()):
        if not below.hidden:
            yield from _command(below, f"{path} {name}", context)


def errors() -> Iterator[str]:
    yield "Exit codes of `two-tower`: 0 done, 1 the work failed or a promise is broken, 2 wrong usage, 3 the"
    yield "quality gate said no."
    yield ""
    yield "| SQLSTATE | |"
    yield "|---|---|"
    for state, says in SQLSTATES.items():
        yield f"| `{state}` | {says} |"


def pages(connection: Connection) -> dict[str, str]:
    """Texts of the pages by names of their files."""
    rpcs = page(
        "RPCs", "What applications call, by PostgREST or SQL, in schema `public`.", routines(connection, rpcs=True)
    )
    tables = page(
        "Tables and views",
        "In `public`, those of the contract, where the application has none of its own; all others in `two_tower`.",
        relations(connection),
    )
    return {
        "rpcs.md": rpcs,
        "routines.md": page("Routines", "What is in schema `two_tower`.", routines(connection, rpcs=False)),
        "tables.md": tables,
        "settings.md": page("Settings", "Rows of `two_tower.settings`.", settings(connection)),
        "commands.md": page("Commands", "As `--help` says it.", commands()),
        "errors.md": page("Errors", "What programs can go by.", errors()),
    }
