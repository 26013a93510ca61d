"""A cluster like Supabase's, with databases of an application that existed before us.

It is a cluster of its own, because the most important properties are those of clusters: here ``postgres`` is the
developer's role and no superuser, ``supabase_admin`` is the superuser, and ``authenticator`` has Supabase's settings,
such as ``safeupdate`` in its sessions. The facts are in ``tests/supabase/*.sql``.

::

    with running() as supabase:                       # one per session
        dsn = supabase.database()                     # as supabase_admin; drop it with supabase.drop(dsn)
        client = connect_as(dsn, "authenticator")
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import psycopg
from psycopg import sql

from conftest import compiled, in_database, new_cluster, remove_server
from two_tower.server.embedded import Server

Connection = psycopg.Connection[Any]

FILES = Path(__file__).parent / "supabase"
SUPERUSER = "supabase_admin"
DEVELOPER = "postgres"


def ident(name: str) -> UUID:
    """The id of a name in ``rows.sql``: ``ada``, ``video 7``, ``tag 3``."""
    return UUID(hashlib.md5(name.encode()).hexdigest())


ADA, BEN, CLEO = ident("ada"), ident("ben"), ident("cleo")
"""Users. Ada and Ben have decisions; Cleo has only a profile."""
SHOWN = [ident(f"video {n}") for n in range(60)]
"""Videos that the policy of the application shows to everybody."""
HIDDEN = [ident(f"video {n}") for n in range(60, 100)]
"""Drafts, withdrawn videos, and videos to be published in the future."""


@dataclass(frozen=True)
class Variant:
    """Additions to, and differences from, the standard application."""

    profiles: str = "id"
    """The key of ``profiles``: ``id`` as in Supabase's template, or ``user_id`` (with ``created_at``)."""
    foreign_owner: bool = False
    """``performers`` belongs to the role ``content_team``."""
    superusers: bool = False
    """``performers`` belongs to the superuser; the developers may read it."""
    clash: bool = False
    """Whether there is an ``update_user_features(uuid)`` that returns nothing: our signature with another result."""
    plpython: bool = False
    """Whether the extension ``plpython3u`` exists already; Supabase's image has none."""
    more: str = ""
    """Further SQL that the developers ran."""


PROFILES_BY_USER_ID = """
alter table public.profiles rename column id to user_id;
alter table public.profiles add column created_at timestamptz not null default '2025-01-01';
create or replace function public.handle_new_user() returns trigger
language plpgsql security definer set search_path = '' as $func$
begin
    insert into public.profiles (user_id, full_name, avatar_url)
    values (new.id, new.raw_user_meta_data ->> 'full_name', new.raw_user_meta_data ->> 'avatar_url');
    return new;
end
$func$;
"""
CLASH = """
create function public.update_user_features(p_user_id uuid) returns void
language sql set search_path = '' as $func$
    update public.user_features set updated_at = '2025-05-01' where user_id = p_user_id
$func$;
"""


def connect_as(dsn: str, role: str, *, autocommit: bool = True) -> Connection:
    """A connection to the database of ``dsn`` as this login."""
    return psycopg.connect(login(dsn, role), autocommit=autocommit)


def login(dsn: str, role: str) -> str:
    """The connection string of the same database for another login."""
    return in_database(dsn, urlsplit(dsn).path.removeprefix("/"), role)


class Supabase:
    """A running cluster of :func:`running`."""

    def __init__(self, server: Server) -> None:
        self.installation = server.installation
        self._dsn = in_database(server.dsn, "postgres", SUPERUSER)

    @property
    def bindir(self) -> Path:
        return self.installation.bindir

    def database(self, variant: Variant | None = None, *, application: bool = True) -> str:
        """A new database, with or without the application; its connection string is the superuser's."""
        variant = variant or Variant()
        name = f"app_{uuid4().hex[:12]}"
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(f"create database {name} owner {DEVELOPER}".encode())
            connection.execute(f"grant all on database {name} to {DEVELOPER}, dashboard_user".encode())
        dsn = in_database(self._dsn, name)
        with connect_as(dsn, SUPERUSER) as connection:
            _run(connection, "database.sql")
            if variant.plpython:
                connection.execute("create extension plpython3u")
        if application:
            self._install(dsn, variant)
        return dsn

    def _install(self, dsn: str, variant: Variant) -> None:
        with connect_as(dsn, DEVELOPER) as connection:
            _run(connection, "application.sql")
            if variant.profiles != "id":
                connection.execute(PROFILES_BY_USER_ID.encode())
            if variant.clash:
                connection.execute(CLASH.encode())
            connection.execute(variant.more.encode())
        with connect_as(dsn, SUPERUSER) as connection:
            _run(connection, "rows.sql")
            if variant.foreign_owner:
                connection.execute("alter table public.performers owner to content_team")
            if variant.superusers:
                connection.execute(f"alter table public.performers owner to {SUPERUSER}".encode())
                connection.execute(f"grant select on public.performers to {DEVELOPER}".encode())
            connection.execute("analyze")

    def clone(self, dsn: str) -> str:
        """A copy of a database without connections."""
        name = f"app_{uuid4().hex[:12]}"
        source = urlsplit(dsn).path.removeprefix("/")
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(
                f"create database {name} template {source} owner {DEVELOPER} strategy file_copy".encode()
            )
        return in_database(self._dsn, name)

    def drop(self, dsn: str) -> None:
        name = sql.Identifier(urlsplit(dsn).path.removeprefix("/"))
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(name))


@contextmanager
def running() -> Iterator[Supabase]:
    """A cluster like Supabase's, removed at the end with its databases."""
    server = new_cluster("two-tower-supabase-")
    try:
        server.start()
        _hand_over(server.dsn)
        with psycopg.connect(in_database(server.dsn, "postgres", SUPERUSER), autocommit=True) as connection:
            path = sql.Literal(f"$libdir:{compiled(FILES / 'safeupdate.c', server.installation).parent}")
            connection.execute(sql.SQL("alter system set dynamic_library_path = {}").format(path))
            connection.execute("select pg_reload_conf()")
            _run(connection, "cluster.sql")
        yield Supabase(server)
    finally:
        remove_server(server)


def _hand_over(dsn: str) -> None:
    """Renames the superuser ``postgres`` of the cluster to ``supabase_admin``; a role cannot rename itself."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create role registrar login superuser")
    with psycopg.connect(in_database(dsn, "postgres", "registrar"), autocommit=True) as connection:
        connection.execute(f"alter role {DEVELOPER} rename to {SUPERUSER}".encode())
    with psycopg.connect(in_database(dsn, "postgres", SUPERUSER), autocommit=True) as connection:
        connection.execute("drop role registrar")


def _run(connection: Connection, file: str) -> None:
    connection.execute((FILES / file).read_bytes())
