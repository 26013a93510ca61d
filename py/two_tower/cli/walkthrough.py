"""``two-tower demo``: the whole path, from start to finish, on generated data or on your own files.

    make demo
    make demo CATALOG=catalog.csv REVIEWS=reviews.csv

It uses a database of its own in the embedded server, recreated each time, so it touches nothing else and is repeatable.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.request import urlopen
from uuid import UUID

import numpy as np
import polars as pl
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from rich.table import Table
from scipy import sparse

from two_tower.cli import ui as page
from two_tower.cli.console import bar, metrics_table, out, say
from two_tower.data import imports
from two_tower.database import open_connection
from two_tower.errors import UserError
from two_tower.features import LIKE, TrainingData
from two_tower.lifecycle import registry
from two_tower.progress import Progress
from two_tower.server.connection import connect
from two_tower.server.embedded import Server
from two_tower.server.migrate import migrate
from two_tower.signals import until_signalled
from two_tower.trainer import evaluate
from two_tower.trainer.dataset import read

if TYPE_CHECKING:
    from two_tower.trainer.train import TrainedModel

HOST = "127.0.0.1"
DATABASE = "two_tower_demo"
NEWCOMER = UUID("00000000-0000-4000-8000-000000000001")
K = 20

Connection = psycopg.Connection[Any]
T = TypeVar("T")


def run(catalog: Path | None = None, reviews: Path | None = None) -> str:
    """Everything except the page; returns the DSN of its database. Raises UserError if only one of the two files is
    given, or a file cannot be imported."""
    if (catalog is None) != (reviews is None):
        raise UserError(
            "a demo on your own files needs both of them", "make demo CATALOG=catalog.csv REVIEWS=reviews.csv"
        )
    started = time.perf_counter()
    dsn = _database()
    with (
        connect(dsn, autocommit=True, application_name="two-tower demo") as connection,
        TemporaryDirectory() as made,
    ):
        heldout: Path | None = None
        if catalog and reviews:
            _import(connection, imports.import_catalog, catalog)
            _import(connection, imports.import_reviews, reviews)
        else:
            from two_tower.world import generate

            world = _step("generating a world", lambda _: generate(Path(made)))
            heldout = world.heldout
            _import(connection, imports.import_catalog, world.catalog)
            _import(connection, imports.import_decisions, world.decisions, create_users=True)
        data = _step("reading the training set", lambda _: read(connection))
        model = _step("training both towers", lambda progress: _train(data, progress))
        version = registry.register(connection, model, data)
        # On a user's own files a model may be worse than popularity. The demo then goes on and says so.
        activated = _step(
            f"embedding {data.n_users:,} users and {data.n_items:,} videos inside PostgreSQL",
            lambda progress: registry.activate(connection, version, progress, force=True),
        )
        if activated["forced"]:
            reasons = connection.execute(
                """select string_agg(r, '; ')
                from two_tower.model_events, jsonb_array_elements_text(report -> 'reasons') r
                where model_version = %s and to_state = 'active'""",
                (version,),
            ).fetchone()
            say(f"  outside a demo, the gate would refuse this model: {reasons and reasons[0]}")
        if heldout:
            metrics = _step(
                "recommending to everyone, beside EASE^R and item-kNN",
                lambda progress: _measure(connection, data, heldout, progress),
            )
            out.print(
                metrics_table(
                    metrics, f"On likes that the database never saw ({pl.read_csv(heldout).height:,} of them)"
                )
            )
        else:
            out.print(metrics_table(model.metrics, "On a fifth of the reviews, held out while these were measured"))
        _newcomer(connection)
    say(f"Done in {time.perf_counter() - started:.0f} s.")
    return dsn


def show(dsn: str, port: int) -> None:
    """Serves the page on this database until interrupted. Once it answers, prints its address, which shows the newcomer
    with the likes replayed."""
    with socket.socket() as free:
        try:
            free.bind((HOST, port))
        except OSError:
            free.bind((HOST, 0))
        port = free.getsockname()[1]
    environment = os.environ | page.environment(dsn) | {"DATABASE_READ_URL": dsn}
    with subprocess.Popen(page.command(port, HOST), env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            _step("starting the page", lambda _: _wait(f"http://{HOST}:{port}/_stcore/health", process))
            say(f"http://{HOST}:{port}/?find={NEWCOMER}&replay=true\nIt is there until Ctrl-C.")
            with until_signalled() as stop:
                while process.poll() is None and not stop.wait(0.2):
                    pass
            say("stopped")
        finally:
            process.terminate()


def _wait(url: str, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        try:
            with urlopen(url, timeout=5):  # noqa: S310 - of this machine
                return
        except OSError:
            time.sleep(0.1)
    raise UserError("the page does not answer", "two-tower ui says why")


def _database() -> str:
    server = Server(Path.cwd())
    admin = _step("starting PostgreSQL", lambda _: server.start(None, lambda _: None))
    with open_connection(admin, autocommit=True, as_owner=False) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(DATABASE)))
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))
    dsn = make_conninfo(admin, dbname=DATABASE)
    _step("migrating", lambda _: migrate(dsn))
    return dsn


def _step(what: str, work: Callable[[Progress], T]) -> T:
    """Work with a bar beside it, and how long it took."""
    started = time.perf_counter()
    with bar(what) as progress:
        result = work(progress)
    say(f"{what} … {time.perf_counter() - started:.1f} s")
    return result


def _train(data: TrainingData, progress: Progress) -> TrainedModel:
    from two_tower.trainer.train import fit

    return fit(data, None, progress, to_register=True)


def _import(connection: Connection, work: Callable[..., imports.ImportSummary], path: Path, **options: Any) -> None:
    def imported(progress: Progress) -> imports.ImportSummary:
        def advance(done: int, total: int | None, step: str) -> None:
            progress(step, done / total if total else 0.0)

        return work(connection, path, None, advance, **options)

    summary = _step(f"importing {path.name}", imported)
    say(f"  {summary.rows:,} rows, {summary.inserted:,} inserted, {summary.rejected:,} rejected")


def _measure(
    connection: Connection, data: TrainingData, heldout: Path, progress: Progress
) -> dict[str, dict[str, object]]:
    """Metrics of the database's recommendations, beside those of the references, on held-out likes."""
    users = {str(u): at for at, u in enumerate(data.user_ids)}
    items = {str(v): at for at, v in enumerate(data.item_ids)}
    shape = (data.n_users, data.n_items)
    urls = dict(connection.execute("select product_url, id::text from public.videos").fetchall())
    wanted = [
        (users[u], items[urls[v]])
        for u, v in pl.read_csv(heldout).select("user_id", "product_url").iter_rows()
        if u in users
    ]
    rows, columns = np.array(wanted).T
    relevant = sparse.csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=shape)
    answers = connection.execute(
        "select user_id::text, video_id::text, rank from two_tower.recommend_batch(%s::uuid[], %s)", (list(users), K)
    ).fetchall()
    place = [(users[u], items[v], 1 / rank) for u, v, rank in answers]
    served = sparse.csr_matrix(
        ([p[2] for p in place], ([p[0] for p in place], [p[1] for p in place])), shape=shape, dtype=np.float32
    )
    likes = data.matrix(LIKE, given=False)
    seen = sparse.csr_matrix((np.ones(len(data.user), dtype=np.float32), (data.user, data.item)), shape=shape)
    scorers: dict[str, Callable[[], evaluate.Scorer]] = {
        "two-tower": lambda: lambda chosen: served[chosen].toarray(),
        "EASE^R": lambda: evaluate.by_ease(likes),
        "item-kNN": lambda: evaluate.by_item_knn(likes),
        "popularity": lambda: evaluate.by_popularity(likes),
        "random": lambda: evaluate.by_chance(data.n_items),
    }
    found: dict[str, dict[str, object]] = {}
    for at, (name, made) in enumerate(scorers.items()):
        progress(f"measuring {name}", at / len(scorers))
        # The database returns only 20 rows, so AUC and coverage would not be comparable.
        found[name] = {**evaluate.rank(made(), relevant, seen, k=K, auc=False).mean()}
    return found


def _newcomer(connection: Connection) -> None:
    """A newcomer without a history likes three videos; shows recommendations before and after."""
    connection.execute("insert into auth.users (id) values (%s)", (NEWCOMER,))
    # Three popular videos of a tag that is neither rare nor everywhere.
    liked = connection.execute(
        """with sizes as (
            select t.tag_id, count(*) as videos, sum(p.score) as likes
            from public.video_tags t left join two_tower.video_popularity p on p.video_id = t.video_id group by t.tag_id
        ),
        chosen as (
            select tag_id from sizes
            where videos between 3 and greatest(3, (select count(*) from public.videos) / 20)
            order by likes / sqrt(videos) desc nulls last, tag_id limit 1
        )
        select v.id, v.title, g.name
        from chosen c
        join public.tags g on g.id = c.tag_id
        join public.video_tags t on t.tag_id = c.tag_id
        join public.videos v on v.id = t.video_id
        left join two_tower.video_popularity p on p.video_id = v.id
        order by p.score desc nulls last, v.id limit 3"""
    ).fetchall()
    if not liked:
        liked = connection.execute("select id, title, null from public.videos order by id limit 3").fetchall()
    before = _recommended(connection)
    out.print(f"\nSomebody new likes {len(liked)} videos" + (f" tagged “{liked[0][2]}”:" if liked[0][2] else ":"))
    for _, title, _ in liked:
        out.print(f"  ♥ {title}", markup=False, highlight=False)
    connection.cursor().executemany(
        "insert into public.user_video_decisions (user_id, video_id, decision_type) values (%s, %s, 'like')",
        [(NEWCOMER, video) for video, _, _ in liked],
    )
    started = time.perf_counter()
    done = registry.refresh(connection, lambda what, share: None).counts
    milliseconds = 1000 * (time.perf_counter() - started)
    out.print(f"refresh: {done['users']} user, {done['vectors']} vector, {milliseconds:.0f} ms", highlight=False)
    table = Table("", "before (nothing known: popular)", "after", title="Recommended", title_justify="left")
    for rank, (old, new) in enumerate(zip(before, _recommended(connection), strict=True), 1):
        table.add_row(str(rank), old, new)
    out.print(table)


def _recommended(connection: Connection) -> list[str]:
    """The ten best titles for the newcomer, called as PostgREST calls: as ``authenticated``, with a JWT's claims."""
    with connection.transaction():
        connection.execute(
            "select set_config('request.jwt.claims', json_build_object('sub', %s::text)::text, true)", (NEWCOMER,)
        )
        connection.execute("set local role authenticated")
        rows = connection.execute("select title, reason from recommend_videos(10) order by rank").fetchall()
    return [f"{title} ({reason})" for title, reason in rows]
