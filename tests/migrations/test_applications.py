"""Applications of many shapes: `migrate --check` predicts a migration, and a rollback restores everything."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

import catalogue_dump
from conftest import Connection
from two_tower.errors import UserError
from two_tower.server import migrate
from two_tower.server.embedded import Server

EXTENSIONS = "create schema extensions; create extension vector with schema extensions; create extension plpython3u;"
VIDEOS = """
create table public.videos (
    id uuid primary key default gen_random_uuid(), product_url text unique, title text, description text, maker text,
    label text, series text, source text, thumbnail_url text, price numeric, duration_seconds int,
    distribution_started_at timestamptz, product_released_at timestamptz,
    published_at timestamptz default now(), created_at timestamptz default now()
);
"""
USERS = """
create schema auth;
create table auth.users (id uuid primary key default gen_random_uuid(), created_at timestamptz default now());
"""
DECISIONS = """
create table public.user_video_decisions (
    user_id uuid not null references auth.users on delete cascade,
    video_id uuid not null references public.videos on delete cascade, decision_type text not null,
    created_at timestamptz not null default now(), primary key (user_id, video_id)
);
"""


def videos(old: str, new: str) -> str:
    """The catalogue with another definition of a column."""
    assert old in VIDEOS
    return VIDEOS.replace(old, new)


KEY = "id uuid primary key default gen_random_uuid()"
EVENT_TRIGGER = "create function public.et() returns event_trigger language plpgsql as"
APPLICATIONS = {
    "a generated column": videos("maker text", "maker text generated always as (upper(title)) stored"),
    "a domain": "create domain public.name as text check (value <> 'x');" + videos("maker text", "maker public.name"),
    "odd names": VIDEOS + 'alter table videos add column "Odd Name" text, add column "select" int',
    "publication by date": videos("published_at timestamptz default now()", "published_at date"),
    "publication as text": videos("published_at timestamptz default now()", "published_at text"),
    "no time zone": videos("published_at timestamptz default now()", "published_at timestamp"),
    "a unique index": videos(KEY, "id uuid not null") + "create unique index on videos (id)",
    "a deferrable key": videos("id uuid primary key", "id uuid primary key deferrable"),
    "a partial key": videos(KEY, "id uuid not null") + "create unique index on videos (id) where price > 0",
    "a key that includes": videos(KEY, "id uuid not null") + "create unique index on videos (id) include (title)",
    "everything published": VIDEOS + "create publication p for all tables",
    "a schema published": VIDEOS + "create publication p for tables in schema public",
    "auth without uid": USERS + VIDEOS + DECISIONS,
    "decisions of an enum": "create type public.word as enum ('like', 'nope');"
    + USERS
    + VIDEOS
    + DECISIONS.replace("decision_type text", "decision_type public.word"),
    "prices as money": videos("price numeric", "price money"),
    "names of fixed length": videos("title text", "title char(40)").replace("maker text", "maker char(8)"),
    "a view over what is put aside": USERS
    + "create table public.user_embeddings (user_id uuid primary key references auth.users, embedding real[]);"
    "create view public.theirs as select * from public.user_embeddings;"
    "create table public.child (user_id uuid references public.user_embeddings)",
    "a materialized view of that name": "create materialized view public.user_embeddings as select 1 as user_id",
    "a sequence of that name": "create sequence public.user_features",
    "a type of that name": "create type public.video_embeddings as (a int)",
    "a view of that name": "create view public.user_features as select 1 as x",
    "more columns in a link": VIDEOS
    + "create table public.tags (id uuid primary key, name text); create table public.video_tags ("
    "video_id uuid references videos, tag_id uuid references tags, weight int, primary key (video_id, tag_id))",
    "a harmless event trigger": EVENT_TRIGGER
    + " $$ begin perform 1; end $$; create event trigger et on ddl_command_end execute function et()",
    "a rule": USERS + VIDEOS + DECISIONS + "create rule r as on insert to user_video_decisions do also select 1",
    "profiles as a view": USERS + "create view public.profiles as select id as user_id, created_at from auth.users",
    "an unlogged table": videos("create table", "create unlogged table"),
    "other ids": videos(KEY, "id bigint primary key generated always as identity"),
    "everything to everybody": "alter default privileges grant all on tables to public;"
    "alter default privileges grant all on functions to public;" + VIDEOS,
    "comments and statistics": VIDEOS
    + "comment on table videos is 'x'; create statistics st on maker, label from videos;"
    "alter table videos alter column maker set statistics 50",
    "a replica identity": USERS + VIDEOS + DECISIONS + "alter table user_video_decisions replica identity full",
    "a name that ours have": VIDEOS
    + "create function public.active_version() returns text language sql as 'select 1::text'",
    "overloads that nothing confuses": "create function public.recommend_videos(uuid, int) returns int "
    "language sql as 'select 1';"
    "create function public.similar_videos(text) returns int language sql as 'select 2'",
}
REFUSED = {"a deferrable key", "a partial key", "an unlogged table", "other ids"}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("application", APPLICATIONS)
def test_preflight_is_accurate_and_rollback_restores_everything(
    application: str, template: str, empty_dsn: str, cluster: Server
) -> None:
    bindir: Path = cluster.installation.bindir
    db: Connection
    with psycopg.connect(empty_dsn, autocommit=True) as db:
        db.execute((EXTENSIONS + APPLICATIONS[application]).encode())
    before = catalogue_dump.schema(bindir, empty_dsn, data=True)
    report = migrate.check(empty_dsn)
    assert bool(report.problems) == (application in REFUSED)
    if report.problems:
        with pytest.raises(UserError):
            migrate.migrate(empty_dsn)
    else:
        # Names are taken where possible; a type cannot be renamed, which the check reports too.
        taken = "that name" in application or "put aside" in application
        take_names = taken and not migrate.check(empty_dsn, take_names=True).problems
        migrate.migrate(empty_dsn, take_names=take_names)
        with psycopg.connect(empty_dsn, autocommit=True) as db:
            db.execute("call two_tower.refresh()")
            db.execute("table two_tower.problems")
        migrate.migrate(empty_dsn)
        migrate.migrate(empty_dsn, to="0")
    assert catalogue_dump.schema(bindir, empty_dsn, data=True) == before
