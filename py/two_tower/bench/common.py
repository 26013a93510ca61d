"""What every benchmark shares: a throwaway server, a synthetic data set, a random model, figures with baselines.

A figure compares two things measured in alternating rounds of the same run, so that a busy machine slows both. Its
ratio is the median of the rounds' ratios. Nothing here trains, and nothing is left behind.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from two_tower.features import VOCABULARIES, FeatureSchema
from two_tower.rows import one
from two_tower.server.embedded import Server
from two_tower.server.migrate import migrate

Connection = psycopg.Connection[Any]

TEMPLATE = "bench_template"
VERSION = "bench"
CATALOGUE = 10_000
"""Videos of the world."""


@dataclass(frozen=True)
class Figure:
    """One line of a benchmark's result. ``ratio`` is None if there is no baseline."""

    figure: str
    value: float
    baseline: float | None
    ratio: float | None
    unit: str

    def as_dict(self) -> dict[str, Any]:
        """With four significant digits, which is more than the precision of any figure."""
        return {k: v if not isinstance(v, float) else float(f"{v:.4g}") for k, v in asdict(self).items()}


def compared(figure: str, rounds: Sequence[tuple[float, float]], unit: str) -> Figure:
    """Medians of ``rounds`` of (value, baseline); the ratio is the median of their ratios."""
    values, baselines = zip(*rounds, strict=True)
    ratio = statistics.median(value / baseline for value, baseline in rounds)
    return Figure(figure, statistics.median(values), statistics.median(baselines), ratio, unit)


# ------------------------------------------------------------------------------------------------ environment


@contextmanager
def throwaway_server(*, durable: bool = True) -> Iterator[Server]:
    """A server of the benchmark's own, in a temporary directory, gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="two-tower-bench-"))
    directory.chmod(0o755)  # the server's user must have access, which root's own temporary directories do not give
    server = Server(directory, durable=durable)
    try:
        server.start()
        yield server
    finally:
        home = server.home
        server.stop()
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)


def connect(server: Server, database: str) -> Connection:
    """A superuser's connection in autocommit mode."""
    dsn = make_conninfo(server.dsn, dbname=database)
    return psycopg.connect(dsn, autocommit=True, application_name="two-tower bench")


def new_database(server: Server, name: str, template: str | None = None) -> None:
    """A copy of ``template``, or of a migrated database that is created on first use."""
    create = sql.SQL("create database {} template {}")
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        if template is None:
            template = TEMPLATE
            if not connection.execute("select 1 from pg_database where datname = %s", (TEMPLATE,)).fetchone():
                connection.execute(create.format(sql.Identifier(TEMPLATE), sql.Identifier("template1")))
                migrate(make_conninfo(server.dsn, dbname=TEMPLATE))
        connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))


# ------------------------------------------------------------------------------------------------ contents

# Ids are hashes of a kind and a number, so that any statement can name the same thing again.
_CATALOGUE = """
create function public.ident(kind text, n bigint) returns uuid language sql immutable parallel safe
    return md5(kind || n)::uuid;
select setseed(0.5);
insert into public.tags (id, name) select public.ident('tag', n), 'tag ' || n from generate_series(0, 299) n;
insert into public.performers (id, name)
select public.ident('performer', n), 'performer ' || n from generate_series(0, 799) n;
insert into public.videos (
    id, product_url, title, maker, label, series, source, thumbnail_url, price, duration_seconds, product_released_at,
    published_at
)
select public.ident('video', n), 'https://videos.example/' || n, 'Title ' || n, 'maker ' || floor(60 * random() ^ 2),
    'label ' || floor(100 * random() ^ 2), case when random() < 0.5 then 'series ' || floor(150 * random() ^ 2) end,
    'source ' || floor(5 * random() ^ 2), 'https://images.example/' || n, round((5 + 40 * random())::numeric, 2),
    600 + floor(9000 * random()), timestamptz '2018-01-01' + random() * interval '2500 days', timestamptz '2025-01-01'
from generate_series(0, {videos} - 1) n;
-- Four tags and one or two performers each, some of them far more frequent than others.
insert into public.video_tags (video_id, tag_id)
select distinct public.ident('video', n), public.ident('tag', (60 * random() ^ 2 + 60 * k)::int)
from generate_series(0, {videos} - 1) n, generate_series(0, 3) k;
insert into public.video_performers (video_id, performer_id)
select distinct public.ident('video', n), public.ident('performer', floor(800 * random() ^ 2)::int)
from generate_series(0, {videos} - 1) n, generate_series(0, 1) k
where k = 0 or random() < 0.4;
analyze public.tags, public.performers, public.videos, public.video_tags, public.video_performers;
"""

# Decision k of a user is about a video in the k-th stretch of the catalogue; stretches grow, so the first are popular.
# All users' first decisions come first, then all second ones, so a user's rows are scattered, as in a real table.
_PEOPLE = """
select setseed(0.25);
insert into auth.users (id, created_at)
select public.ident('user', n), timestamptz '2024-01-01' from generate_series(0, {users} - 1) n;
insert into public.profiles (user_id, created_at)
select public.ident('user', n), timestamptz '2024-01-01' from generate_series(0, {users} - 1) n;
alter table public.user_video_decisions drop constraint user_video_decisions_pkey;
drop index public.user_video_decisions_video_id_idx;
insert into public.user_video_decisions (user_id, video_id, decision_type, created_at)
select public.ident('user', n), public.ident('video', s.first + floor(random() * s.width)::int),
    case when random() < 0.7 then 'like' when random() < 0.67 then 'nope' else 'skip' end,
    timestamptz '2024-06-01' + k * interval '3 days' + random() * interval '2 days'
from generate_series(0, {decisions} - 1) k
cross join lateral (
    select k * k * {unit} as first, (2 * k + 1) * {unit} as width
) s
cross join generate_series(0, {users} - 1) n;
alter table public.user_video_decisions add primary key (user_id, video_id) include (decision_type, created_at, weight);
create index user_video_decisions_video_id_idx on public.user_video_decisions (video_id);
analyze auth.users, public.profiles, public.user_video_decisions;
"""


@contextmanager
def no_triggers(connection: Connection) -> Iterator[None]:
    """No trigger fires and no foreign key is checked; nothing is logged as changed."""
    always = connection.execute(
        """select tgrelid::regclass::text, tgname, case tgenabled when 'R' then 'replica' else 'always' end
        from pg_trigger where tgenabled in ('R', 'A')"""
    ).fetchall()
    for table, name, _ in always:
        connection.execute(f"alter table {table} disable trigger {name}".encode())
    connection.execute("set session_replication_role = replica")
    yield
    connection.execute("set session_replication_role = origin")
    for table, name, when in always:
        connection.execute(f"alter table {table} enable {when} trigger {name}".encode())


def make_catalogue(connection: Connection, videos: int = CATALOGUE) -> None:
    """Creates ``videos`` videos with tags, performers and the rest, without firing triggers."""
    with no_triggers(connection):
        connection.execute(_CATALOGUE.format(videos=videos).encode())


def make_people(connection: Connection, users: int, decisions: int, videos: int = CATALOGUE) -> None:
    """Creates ``users`` users with ``decisions`` decisions each, seven in ten likes, without firing triggers."""
    unit = videos // decisions**2
    if not unit:
        raise ValueError(f"{videos} videos are too few for {decisions} decisions each")
    with no_triggers(connection):
        connection.execute(_PEOPLE.format(users=users, decisions=decisions, unit=unit).encode())


def make_model(connection: Connection, known_videos: int = 1_800) -> FeatureSchema:
    """Registers and activates a model of random weights over the catalogue's keys, about 5,000 user inputs wide.

    ``known_videos`` of the first, most popular videos have inputs of their own.
    """
    from two_tower.lifecycle import registry

    schema = schema_of(connection, known_videos)
    register_random(connection, VERSION, schema)
    # Random weights would not pass the quality gate.
    registry.activate(connection, VERSION, lambda what, share: None, force=True)
    return schema


def schema_of(connection: Connection, known_videos: int) -> FeatureSchema:
    """The layout over all keys of the catalogue, and the first ``known_videos`` videos."""

    def keys(query: LiteralString, *values: Any) -> tuple[str, ...]:
        return tuple(key for (key,) in connection.execute(query, values or None))

    found = {
        "tag": keys("select id::text from public.tags order by name"),
        "performer": keys("select id::text from public.performers order by name"),
        "video": keys("select public.ident('video', n)::text from generate_series(0, %s - 1) n", known_videos),
    }
    for name in ("maker", "label", "series", "source"):
        found[name] = keys(
            "select distinct to_jsonb(v) ->> %s from public.videos v where to_jsonb(v) ->> %s <> ''", name, name
        )
    return FeatureSchema({name: found.get(name, ()) for name in VOCABULARIES})


def register_random(connection: Connection, version: str, schema: FeatureSchema, seed: int = 0) -> None:
    """Registers a model of weights drawn from ``seed``, with made-up metrics."""
    from two_tower.lifecycle import registry

    files, sample = random_towers(schema, seed)
    good, popular = dict.fromkeys(("recall@20", "ndcg@20"), 0.5), dict.fromkeys(("recall@20", "ndcg@20"), 0.1)
    registry.register_files(
        connection,
        version,
        files,
        feature_schema=schema.to_json(),
        normalizer={},
        vocabularies={name: list(values) for name, values in schema.vocabularies.items()},
        metrics={"two-tower": good, "popularity": popular, "parity": sample},
        meta={},
    )


def random_towers(schema: FeatureSchema, seed: int = 0) -> tuple[tuple[bytes, bytes, bytes], dict[str, Any]]:
    """The files of a user and an item tower with weights drawn from ``seed`` (two of ONNX, and safetensors), and their
    parity sample."""
    import torch
    from safetensors.torch import save

    from two_tower.lifecycle.registry import parity_sample
    from two_tower.trainer.export import item_graph, user_graph
    from two_tower.trainer.model import ItemTower, UserTower

    user, item = UserTower(schema), ItemTower(schema)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in [*user.parameters(), *item.parameters()]:
            parameter.normal_(0, 0.1, generator=generator)
    graphs = user_graph(user), item_graph(item)
    weights = {f"user.{k}": v.detach().contiguous() for k, v in user.state_dict().items()}
    weights |= {f"item.{k}": v.detach().contiguous() for k, v in item.state_dict().items()}
    return (*graphs, save(weights)), parity_sample(schema, (user, graphs[0]), (item, graphs[1]))


# ------------------------------------------------------------------------------------------------ measuring


def private_megabytes(connection: Connection) -> float:
    """Private memory of a backend on this machine, in MB."""
    backend = one(connection, "select pg_backend_pid()")
    lines = (Path("/proc") / str(backend) / "smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:"))) / 1024


def seconds(work: Callable[[], Any]) -> float:
    """How long ``work()`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
