"""Copies of another database: complete, consistent during writes, and afterwards only the changes."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import pytest
import trustme
from typer.testing import CliRunner

from conftest import Prepared
from two_tower.data.pull import TABLES, PullSummary, TableSummary, pull
from two_tower.errors import UserError
from two_tower.server.embedded import Server
from two_tower.server.migrate import migrate

Connection = psycopg.Connection[Any]
NewDatabase = Callable[..., str]

KEY = b"sixteen letters and more"

SHOP = """
insert into auth.users (id, created_at) select md5('u' || n)::uuid, '2024-01-01' from generate_series(1, 400) n;
insert into public.profiles (user_id, created_at) select id, created_at from auth.users;
insert into public.tags (id, name) select md5('t' || n)::uuid, 'tag ' || n from generate_series(1, 30) n;
insert into public.performers (id, name) select md5('p' || n)::uuid, 'performer ' || n from generate_series(1, 30) n;
insert into public.videos (id, product_url, title, maker, price, product_released_at, created_at, image_urls)
select md5('v' || n)::uuid, 'u/' || n, 'Title, "quoted" ' || n, nullif('maker ' || n % 5, 'maker 0'), n + 0.50,
    '2024-05-01', '2024-05-02', array(select format('i/"%s", {%s}', n, k) from generate_series(1, n % 3) k)
from generate_series(1, 500) n;
insert into public.video_tags
select md5('v' || n)::uuid, md5('t' || 1 + (n + k * 7) % 30)::uuid
from generate_series(1, 500) n, generate_series(0, 2) k;
insert into public.video_performers
select md5('v' || n)::uuid, md5('p' || 1 + n % 30)::uuid from generate_series(1, 500) n;
insert into public.user_video_decisions
select md5('u' || n)::uuid, md5('v' || 1 + (n * 7 + k * 3) % 500)::uuid, (array['like', 'nope', 'skip'])[1 + k % 3],
    timestamptz '2024-06-01' + n * interval '1 minute' + k * interval '1 microsecond', 0.01 + k
from generate_series(1, 400) n, generate_series(0, 9) k;
insert into two_tower.reviews
select md5('r' || n)::uuid, md5('v' || n)::uuid, n % 11 * 0.5, case when n % 3 > 0 then timestamptz '2024-01-01' end
from generate_series(1, 100) n;
insert into two_tower.user_choices (user_id, personalised, trained_on)
select md5('u' || n)::uuid, n % 2 = 0, n % 2 = 1 from generate_series(1, 6) n;
analyze
"""


def open_shop(db: Connection) -> None:
    db.execute(SHOP)


@pytest.fixture
def source(database: NewDatabase, template: str, prepared: Prepared) -> Iterator[Connection]:
    """A shop with 500 videos and 400 users."""
    with psycopg.connect(database(template=prepared(template, open_shop)), autocommit=True) as connection:
        yield connection


@pytest.fixture
def target(database: NewDatabase) -> Iterator[Connection]:
    with psycopg.connect(database(), autocommit=True) as connection:
        yield connection


def dsn_of(connection: Connection) -> str:
    info = connection.info
    return f"postgresql://{info.user}@/{info.dbname}?host={quote(info.host, safe='')}&port={info.port}"


def contents(connection: Connection, *, users: bool = True) -> dict[str, list[Any]]:
    """All rows of all tables that are pulled."""
    connection.execute("set timezone to 'UTC'")
    return {
        table.name: sorted(
            connection.execute(f"select row({', '.join(table.columns)})::text from {table.name}".encode()).fetchall()
        )
        for table in TABLES
        if users or not table.user
    }


def moved(summary: PullSummary) -> int:
    return sum(told.copied for told in summary.tables.values())


def moved_by(summary: dict[str, Any]) -> int:
    return sum(told["copied"] for told in summary["tables"].values())


def changes(summary: PullSummary) -> dict[str, tuple[int, int, int]]:
    """Numbers inserted, updated and deleted, of tables with any."""
    found = {name: (told.inserted, told.updated, told.deleted) for name, told in summary.tables.items()}
    return {name: counts for name, counts in found.items() if any(counts)}


def test_a_pull_that_waits_for_an_import_says_so(source: Connection, target: Connection) -> None:
    said: list[str] = []
    with psycopg.connect(dsn_of(target)) as other:
        other.execute("select pg_advisory_xact_lock(hashtextextended('two_tower.catalogue', 0))")

        def let_go(line: str) -> None:
            said.append(line)
            other.rollback()

        pull(target, dsn_of(source), say=let_go)
        assert said[0].startswith(f"waiting for an import or another pull: process {other.info.backend_pid} (")


def test_a_copy_is_complete_and_a_second_pull_transfers_nothing(source: Connection, target: Connection) -> None:
    first = pull(target, dsn_of(source))
    assert contents(target) == contents(source)
    assert first.tables["public.videos"].inserted == 500
    assert first.tables["public.user_video_decisions"].inserted == 4000
    target.execute("truncate two_tower.user_change_log, two_tower.user_changes, two_tower.video_changes")
    second = pull(target, dsn_of(source))
    assert moved(second) == 0
    assert changes(second) == {}
    assert second.bytes < first.bytes / 20
    for log in ("pending_users", "video_changes"):
        assert target.execute(f"select count(*) from two_tower.{log}".encode()).fetchone() == (0,)


def test_a_later_pull_transfers_only_changes(source: Connection, target: Connection) -> None:
    pull(target, dsn_of(source))
    source.execute("update public.videos set title = 'New' where product_url = 'u/7'")
    source.execute("insert into public.videos (product_url, title) values ('u/new', 'N')")
    source.execute("delete from public.user_video_decisions where user_id = md5('u9')::uuid")
    source.execute("update two_tower.reviews set created_at = null where reviewer_id = md5('r1')::uuid")
    source.execute("delete from auth.users where id = md5('u3')::uuid")
    target.execute("truncate two_tower.user_change_log, two_tower.user_changes, two_tower.video_changes")
    summary = pull(target, dsn_of(source))
    assert contents(target) == contents(source)
    assert changes(summary) == {
        "auth.users": (0, 0, 1),
        "public.profiles": (0, 0, 1),
        "public.user_video_decisions": (0, 0, 20),
        "public.videos": (1, 1, 0),
        "two_tower.reviews": (0, 1, 0),
        "two_tower.user_choices": (0, 0, 1),
    }
    assert moved(summary) < 600  # a few buckets of about 64 rows, of 7,000 rows
    woken = target.execute("select distinct user_id from two_tower.pending_users").fetchall()
    assert len(woken) == 2


def test_a_row_replaced_by_another_with_the_same_name_is_copied(source: Connection, target: Connection) -> None:
    pull(target, dsn_of(source))
    source.execute("delete from public.tags where name = 'tag 5'")
    source.execute("insert into public.tags (name) values ('tag 5')")
    pull(target, dsn_of(source))
    assert contents(target) == contents(source)


@pytest.mark.soak
def test_a_copy_is_one_snapshot_of_a_source_under_writes(source: Connection, new_server: Callable[..., Server]) -> None:
    """Between two servers. The writers' transactions keep invariants that a mixture of snapshots would break: as many
    likes by the writer as nopes, and a tag for each video."""
    server = new_server(with_cluster=True)
    target_dsn = server.start()
    migrate(target_dsn)
    stop, written = threading.Event(), [0]

    def write() -> None:
        with psycopg.connect(dsn_of(source), autocommit=True) as connection:
            while not stop.is_set():
                written[0] += 1
                connection.execute(
                    """with v as (
                        insert into public.videos (product_url, title)
                        select 'w/' || gen_random_uuid(), 'w' from generate_series(1, 2) returning id
                    ),
                    u as (insert into auth.users (id) values (gen_random_uuid()) returning id),
                    t as (insert into public.tags (name) select 'w ' || id from v returning id, name),
                    l as (insert into public.video_tags select v.id, t.id from v join t on t.name = 'w ' || v.id),
                    p as (insert into public.profiles (user_id) select id from u)
                    insert into public.user_video_decisions (user_id, video_id, decision_type)
                    select u.id, v.id, (array['like', 'nope'])[row_number() over ()] from v, u"""
                )
                connection.execute(
                    "delete from public.videos where title = 'w' and (select count(*) from public.videos where"
                    " title = 'w') > 300"
                )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with psycopg.connect(target_dsn, autocommit=True) as target:
            for _ in range(4):
                before = written[0]
                pull(target, dsn_of(source))
                assert written[0] > before, "nobody wrote meanwhile"
                broken = target.execute(
                    """select count(*) filter (where n_like <> n_nope) from (
                        select count(*) filter (where decision_type = 'like') as n_like,
                            count(*) filter (where decision_type = 'nope') as n_nope
                        from public.user_video_decisions d join public.videos v on v.id = d.video_id
                        where v.title = 'w' group by user_id
                    ) as counted"""
                ).fetchone()
                assert broken == (0,)
                untagged = target.execute(
                    "select count(*) from public.videos v where title = 'w'"
                    " and not exists (select from public.video_tags t where t.video_id = v.id)"
                ).fetchone()
                assert untagged == (0,)
    finally:
        stop.set()
        writer.join()
    with psycopg.connect(target_dsn, autocommit=True) as target:
        last = pull(target, dsn_of(source))
        assert contents(target) == contents(source)
        assert last.tables["auth.users"].inserted < 400


def test_user_ids_become_pseudonyms(source: Connection, target: Connection) -> None:
    pull(target, dsn_of(source), key=KEY)
    assert contents(target, users=False) == contents(source, users=False)
    theirs = {
        row[0] for row in source.execute("select id from auth.users union select reviewer_id from two_tower.reviews")
    }
    ours = {
        row[0] for row in target.execute("select id from auth.users union select reviewer_id from two_tower.reviews")
    }
    assert len(ours) == len(theirs)
    assert not ours & theirs
    assert {user.version for user in ours} == {8}
    likes = "select count(*) from public.user_video_decisions where decision_type = 'like' group by user_id order by 1"
    assert target.execute(likes).fetchall() == source.execute(likes).fetchall()
    joined = "select count(*) from public.user_video_decisions join public.profiles using (user_id)"
    assert target.execute(joined).fetchone() == (4000,)
    assert moved(pull(target, dsn_of(source), key=KEY)) == 0

    source.execute("delete from auth.users where id = md5('u3')::uuid")
    source.execute("update public.user_video_decisions set decision_type = 'skip' where user_id = md5('u9')::uuid")
    summary = pull(target, dsn_of(source), key=KEY)
    assert changes(summary)["auth.users"] == (0, 0, 1)
    assert changes(summary)["public.user_video_decisions"] == (0, 7, 10)
    assert summary.tables["public.user_video_decisions"].copied == 10  # a bucket is a user

    with pytest.raises(UserError, match="with another key"):
        pull(target, dsn_of(source), key=b"another key, just as long")


def test_rows_from_elsewhere_are_deleted_only_with_replace(source: Connection, target: Connection) -> None:
    target.execute("insert into public.videos (product_url, title) values ('mine/1', 'Mine')")
    before = contents(target)
    with pytest.raises(UserError, match=r"1 of public\.videos; nothing here was pulled before") as caught:
        pull(target, dsn_of(source))
    assert caught.value.hint is not None
    assert "--replace" in caught.value.hint
    assert contents(target) == before
    assert pull(target, dsn_of(source), replace=True, dry_run=True).tables["public.videos"].deleted == 1
    assert contents(target) == before
    pull(target, dsn_of(source), replace=True)
    assert contents(target) == contents(source)


def test_imported_reviews_stay_if_the_source_has_none(source: Connection, target: Connection) -> None:
    source.execute("truncate two_tower.reviews")
    pull(target, dsn_of(source))
    target.execute("insert into two_tower.reviews select gen_random_uuid(), id, 3 from public.videos limit 5")
    assert "two_tower.reviews" not in pull(target, dsn_of(source)).tables
    assert target.execute("select count(*) from two_tower.reviews").fetchone() == (5,)


APPLICATION = """
create schema auth;
create table auth.users (id uuid primary key, email text);
create table public.videos (
    id uuid primary key, product_url varchar(40), title text, price numeric(12, 3), extra jsonb, created_at timestamp
);
create table public.tags (id uuid primary key, name text);
create table public.video_tags (id bigserial primary key, video_id uuid, tag_id uuid);
create table public.user_video_decisions (
    user_id uuid, video_id uuid, decision_type text, created_at timestamptz default now(), weight numeric
);
insert into auth.users select md5('u' || n)::uuid, n || '@example.com' from generate_series(1, 5) n;
insert into public.videos
select md5('v' || n)::uuid, 'u/' || n, null, 980, '{{}}', '2024-05-01 10:00' from generate_series(1, 5) n;
insert into public.tags values (md5('t')::uuid, 'sea');
insert into public.video_tags (video_id, tag_id)
values (md5('v1')::uuid, md5('t')::uuid), (md5('gone')::uuid, md5('t')::uuid);
insert into public.user_video_decisions values
(md5('u1')::uuid, md5('v1')::uuid, 'like', default, 50), (md5('gone')::uuid, md5('v1')::uuid, 'like', default, 'NaN');
create role {role} login;
grant usage on schema public to {role};
grant select on all tables in schema public to {role};
"""


def test_an_application_with_a_different_schema_is_copied(database: NewDatabase, target: Connection) -> None:
    """Columns are missing or of other types, references dangle, and the role may not see auth.users."""
    dsn = database(empty=True)
    role = "reader_" + urlsplit(dsn).path[1:]
    with psycopg.connect(dsn, autocommit=True) as source:
        source.execute(APPLICATION.format(role=role).encode())
        said: list[str] = []
        try:
            parts = urlsplit(dsn)
            reader = urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))
            summary = pull(target, reader, say=said.append)
            assert summary.tables["public.video_tags"].orphans == 1
            assert summary.tables["auth.users"] == TableSummary(2, 2, 2, copied=2, inserted=2)
            assert any("auth.users cannot be read" in line for line in said)
            assert any("no public.performers" in line for line in said)
            rows = target.execute(
                "select product_url, title, price::text, created_at at time zone 'UTC' from public.videos order by 1"
            ).fetchall()
            assert [row[:3] for row in rows] == [(f"u/{n}", "", "980.000") for n in range(1, 6)]
            assert str(rows[0][3]) == "2024-05-01 10:00:00"
            weights = target.execute("select weight from public.user_video_decisions order by 1").fetchall()
            assert weights == [(1,), (10,)]  # within their bounds
            assert changes(pull(target, reader)) == {}

            source.execute("alter table public.user_video_decisions enable row level security")
            with pytest.raises(UserError, match="row-level security") as caught:
                pull(target, reader)
            assert caught.value.hint is not None
            assert "BYPASSRLS" in caught.value.hint
            source.execute("drop table public.user_video_decisions")
            with pytest.raises(
                UserError, match=r"lacks, or this role may not read: public\.user_video_decisions\.user_id"
            ):
                pull(target, reader)
        finally:
            source.execute(f"drop owned by {role}; drop role {role}".encode())


NULLABLE = [(table.name, column) for table in TABLES for column in table.columns]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("table", "column"), NULLABLE)
def test_a_null_of_the_source_is_filled_left_out_or_kept(
    source: Connection, target: Connection, table: str, column: str
) -> None:
    """Any column that is read may be null in two rows: both sides agree after the first pull, and the second transfers
    nothing."""
    pulled = next(t for t in TABLES if t.name == table)
    # An application without our keys, checks and triggers.
    source.execute("set session_replication_role = replica")
    source.execute(
        """do $$ declare c record; begin
        for c in select conrelid::regclass t, conname from pg_constraint where contype in ('p', 'u', 'f', 'c')
            and conrelid in (select oid from pg_class where relkind = 'r' and relnamespace in
            ('public'::regnamespace, 'auth'::regnamespace, 'two_tower'::regnamespace)) order by contype loop
            execute format('alter table %s drop constraint if exists %I cascade', c.t, c.conname); end loop; end $$"""
    )
    source.execute(f"alter table {table} alter {column} drop not null".encode())
    source.execute(f"update {table} set {column} = null where ctid in (select ctid from {table} limit 2)".encode())
    (rows,) = source.execute(f"select count(*) from {table}".encode()).fetchone() or (0,)
    summary = pull(target, dsn_of(source))
    left_out = column in (*pulled.key, *pulled.needed)
    told = summary.tables[table]
    assert (told.incomplete, told.rows) == ((2, rows - 2) if left_out else (0, rows))
    (here,) = target.execute(f"select count(*) from {table}".encode()).fetchone() or (0,)
    assert here == told.rows - told.orphans
    assert changes(pull(target, dsn_of(source))) == {}


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("table", "column"), [(t.name, column) for t in TABLES for column in t.longest])
def test_rows_with_texts_too_long_for_an_index_are_left_out(
    source: Connection, target: Connection, table: str, column: str
) -> None:
    limit = next(t for t in TABLES if t.name == table).longest[column]
    source.execute(
        f"""do $$ declare c record; begin
        for c in select conname from pg_constraint where contype = 'u' and conrelid = '{table}'::regclass loop
            execute format('alter table {table} drop constraint %I', c.conname); end loop; end $$""".encode()
    )
    noise = "(select string_agg(md5(random()::text || n), '') from generate_series(1, 200) n)"
    for size in (limit, limit + 1, 6_000):
        source.execute(
            f"update {table} set {column} = left({noise}, {size}) where ctid = (select min(ctid) from {table}"
            f" where length({column}) < 100)".encode()
        )
    (rows,) = source.execute(f"select count(*) from {table}".encode()).fetchone() or (0,)
    told = pull(target, dsn_of(source)).tables[table]
    assert (told.incomplete, told.rows) == (2, rows - 2)
    assert changes(pull(target, dsn_of(source))) == {}


def test_duplicate_keys_at_the_source_are_an_error(source: Connection, target: Connection) -> None:
    source.execute("alter table public.user_video_decisions drop constraint user_video_decisions_pkey")
    source.execute("insert into public.user_video_decisions select * from public.user_video_decisions limit 1")
    with pytest.raises(UserError, match="several rows of one user_id and video_id") as caught:
        pull(target, dsn_of(source))
    assert "add unique (user_id, video_id)" in str(caught.value.hint)
    assert target.execute("select count(*) from public.user_video_decisions").fetchone() == (0,)


def test_an_unreachable_or_unreadable_source_is_an_error(target: Connection, empty_dsn: str) -> None:
    with pytest.raises(UserError, match="cannot connect to the source"):
        pull(target, "postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(UserError, match="not a connection string") as caught:
        pull(target, "postgresql//me:secret@host/db")
    assert "secret" not in str(caught.value)
    with pytest.raises(UserError, match="the source lacks"):
        pull(target, empty_dsn)


def test_a_lost_connection_leaves_the_target_unchanged(source: Connection, target: Connection) -> None:
    before = contents(target)

    def cut(what: str, share: float) -> None:
        if what == "copying videos":
            source.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'two-tower pull' and datname = current_database()"
            )

    with pytest.raises(UserError, match="connection to the source was lost, and nothing has changed"):
        pull(target, dsn_of(source), progress=cut)
    assert contents(target) == before
    pull(target, dsn_of(source))
    assert contents(target) == contents(source)


@pytest.mark.soak
def test_the_certificate_of_the_source_is_verified(
    source: Connection, target: Connection, new_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = new_server(with_cluster=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dsn = server.start(port)
    authority, stranger = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = {"server.key": certificate.private_key_pem, "server.crt": certificate.cert_chain_pems[0]}
    owner = server.data.stat()
    for name, content in files.items():
        content.write_to_path(server.data / name)
        os.chown(server.data / name, owner.st_uid, owner.st_gid)
        (server.data / name).chmod(0o600)
    authority.cert_pem.write_to_path(tmp_path / "right.crt")
    stranger.cert_pem.write_to_path(tmp_path / "wrong.crt")
    migrate(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("alter system set ssl = on")
        connection.execute("select pg_reload_conf()")
        connection.execute(SHOP)
    tcp = f"{server.tcp_dsn}?sslmode=verify-full&sslrootcert={tmp_path}"
    with pytest.raises(UserError, match="certificate verify failed"):
        pull(target, f"{tcp}/wrong.crt")
    pull(target, f"{tcp}/right.crt")
    assert contents(target) == contents(source)


class Pooler:
    """A transaction pooler: transactions alternate between its two server connections, without a reset.

    It knows only the frames of the server's messages, and ReadyForQuery, which shows that a transaction has ended.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.transactions = [0, 0]
        self.next = 0
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.relay, args=(client,), daemon=True).start()

    def relay(self, client: socket.socket) -> None:
        (size, code) = struct.unpack("!ii", client.recv(8, socket.MSG_WAITALL))
        while code in (80877103, 80877104):  # asks for TLS or GSSAPI
            client.sendall(b"N")
            (size, code) = struct.unpack("!ii", client.recv(8, socket.MSG_WAITALL))
        startup = struct.pack("!ii", size, code) + client.recv(size - 8, socket.MSG_WAITALL)
        servers = []
        for first in (True, False):
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.path)
            server.sendall(startup)
            ready = False
            while not ready:
                message, ready = self.message(server)
                if first:
                    client.sendall(message)
            servers.append(server)
        current = self.next
        while True:
            readable, _, _ = select.select([client, servers[current]], [], [])
            if servers[current] in readable:
                message, ready = self.message(servers[current])
                if ready and message[5:6] == b"I":
                    self.transactions[current] += 1
                    self.next = current = 1 - current
                client.sendall(message)
            elif not (data := client.recv(1 << 16)):
                break
            else:
                servers[current].sendall(data)
        for server in servers:
            server.close()

    @staticmethod
    def message(server: socket.socket) -> tuple[bytes, bool]:
        head = server.recv(5, socket.MSG_WAITALL)
        if len(head) < 5:
            raise ConnectionError
        rest = struct.unpack("!i", head[1:])[0] - 4
        return head + (server.recv(rest, socket.MSG_WAITALL) if rest else b""), head[:1] == b"Z"


@pytest.mark.soak
def test_pull_works_through_a_transaction_pooler(source: Connection, target: Connection) -> None:
    info = source.info
    pooler = Pooler(f"{info.host}/.s.PGSQL.{info.port}")
    dsn = f"postgresql://{info.user}@127.0.0.1:{pooler.port}/{info.dbname}"
    try:
        for _ in range(2):
            pull(target, dsn)
        assert contents(target) == contents(source)
        assert all(pooler.transactions)  # both servers took part
        source.execute("delete from public.videos where product_url = 'u/1'")
        assert pull(target, dsn).tables["public.videos"].deleted == 1
    finally:
        pooler.listener.close()


def test_pull_needs_a_key_to_anonymise_and_writes_a_summary(
    source: Connection, target: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from two_tower.cli.main import app

    monkeypatch.chdir(tmp_path)
    arguments = ["pull", "--from", dsn_of(source), "--dsn", dsn_of(target)]
    result = CliRunner().invoke(app, [*arguments, "--anonymise"])
    assert result.exit_code == 1
    assert "TWO_TOWER_ANONYMISE_KEY" in result.stderr
    monkeypatch.setenv("TWO_TOWER_ANONYMISE_KEY", KEY.decode())
    result = CliRunner().invoke(app, [*arguments, "--anonymise", "--summary", "summary.json"])
    assert result.exit_code == 0, result.stderr
    assert "public.videos: 500 rows, 500 copied; were 500 inserted" in result.stdout
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["anonymised"] is True
    assert KEY.decode() not in result.output + json.dumps(summary)
    assert CliRunner().invoke(app, ["pull", "--dsn", dsn_of(target)]).exit_code == 2
    monkeypatch.setenv("TWO_TOWER_PULL_FROM", dsn_of(source))
    result = CliRunner().invoke(app, ["pull", "--dsn", dsn_of(target), "--anonymise", "--json"])
    assert moved_by(json.loads(result.stdout)) == 0
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 1
    assert "with another key" in result.stderr
