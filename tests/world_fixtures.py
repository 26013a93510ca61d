"""A small world, a model with random weights for it, and clients as PostgREST makes them.

Nothing is trained: weights are drawn from a seed, which is enough for tests of the database.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from two_tower.features import FeatureSchema
    from two_tower.lifecycle import tower_rows
    from two_tower.trainer.model import ItemTower, UserTower

Connection = psycopg.Connection[Any]

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
NAMESPACE = UUID("00000000-0000-0000-0000-00000000c0de")
NOBODY = UUID("ffffffff-ffff-ffff-ffff-ffffffffffff")
"""An id that no user, video or tag has."""


def ident(kind: str, number: int) -> UUID:
    """The same id for the same thing in every test."""
    return uuid5(NAMESPACE, f"{kind} {number}")


# ---------------------------------------------------------------------------------------------------- the world


@dataclass(frozen=True)
class World:
    """Rows of a catalogue and of decisions. Some users and videos are deliberately unusual."""

    users: list[UUID]
    videos: list[UUID]
    tags: list[UUID]
    performers: list[UUID]
    published: list[UUID]
    video_rows: list[tuple[Any, ...]]
    video_tags: list[tuple[UUID, UUID]]
    video_performers: list[tuple[UUID, UUID]]
    decisions: list[tuple[UUID, UUID, str, datetime]]

    no_decisions: UUID
    only_skips: UUID
    only_nopes: UUID
    one_like: UUID
    many: UUID
    """A user with decisions on most videos."""
    usual: UUID
    bare_video: UUID
    """Published, with neither tags nor performers nor anything else that is optional."""
    unpublished_video: UUID
    future_video: UUID
    rare_tag: UUID
    """On two videos only."""

    def decided(self, user: UUID) -> set[UUID]:
        return {v for u, v, _, _ in self.decisions if u == user}

    def of(self, user: UUID, decision: str) -> set[UUID]:
        return {v for u, v, d, _ in self.decisions if u == user and d == decision}

    def tagged(self, tag: UUID) -> set[UUID]:
        return {v for v, t in self.video_tags if t == tag}


WORDS = (
    *("island", "Straße", "wind's", "l\u2019été", "don't", "2001", "MACHINE", "ocean", "glass", "ﬁre"),
    *("星の船", "東京", "ｶﾀｶﾅ", "カタカナ", "夏", "ถนนสายหนึ่ง", "서울 이야기", "Ёлка", "café", "cafe\u0301"),
)  # fmt: skip
"""Words for titles and descriptions: in scripts with spaces and without, and with two spellings."""


@cache
def make_world(n_videos: int = 150, n_users: int = 50, seed: int = 0) -> World:
    """The same world for the same arguments."""
    rng, words = random.Random(seed), random.Random(seed + 1)
    videos = [ident("video", n) for n in range(n_videos)]
    users = [ident("user", n) for n in range(n_users)]
    tags = [ident("tag", n) for n in range(30)]
    performers = [ident("performer", n) for n in range(20)]
    rows, video_tags, video_performers, published = [], [], [], []
    for n, video in enumerate(videos):
        odd = n == 0
        at: datetime | None = EPOCH - timedelta(days=rng.randrange(1, 900), seconds=n)
        if n == 1 or n % 41 == 40:
            at = None
        elif n == 2:
            at = datetime(2999, 1, 1, tzinfo=UTC)
        else:
            published.append(video)
        rows.append(
            (
                video,
                f"https://videos.example/{n}",
                "" if odd else f"Title {n}: {words.choice(WORDS)} {words.choice(WORDS)}",
                None if odd else rng.choice(["maker a", "maker b", "maker c", 'maker "d", {x}', "", None]),
                None if odd else rng.choice(["label a", "label b", None]),
                None if odd else rng.choice([None, "series a", "Serie \\ ü"]),
                None if odd else rng.choice(["source a", "source b"]),
                None if odd else f"https://images.example/{n}.jpg",
                None if odd or n % 7 == 0 else round(rng.uniform(0, 40), 2) if n % 11 else 0,
                None if odd or n % 5 == 0 else rng.randrange(0, 9000),
                None if odd or n % 3 == 0 else EPOCH - timedelta(days=rng.randrange(20000), hours=rng.randrange(24)),
                at,
                None if n % 4 == 0 else f"{words.choice(WORDS).upper()}; {words.choice(WORDS)}, {words.choice(WORDS)}.",
            )
        )
        if not odd:
            video_tags += [(video, t) for t in rng.sample(tags[:-1], rng.randrange(0, 5))]
            video_performers += [(video, p) for p in rng.sample(performers, rng.randrange(0, 3))]
    video_tags += [(videos[10], tags[-1]), (videos[20], tags[-1])]
    decisions = []
    for n, user in enumerate(users):
        count = {0: 0, 1: 3, 2: 4, 3: 1, 4: n_videos * 2 // 3}.get(n, rng.randrange(2, 40))
        for video in rng.sample(videos[:n_videos], count):
            kind = {1: "skip", 2: "nope", 3: "like"}.get(n) or rng.choices(["like", "nope", "skip"], [6, 2, 2])[0]
            decisions.append((user, video, kind, EPOCH + timedelta(minutes=rng.randrange(200_000))))
    return World(
        users, videos, tags, performers, published, rows, video_tags, video_performers, decisions,
        no_decisions=users[0], only_skips=users[1], only_nopes=users[2], one_like=users[3], many=users[4],
        usual=users[5], bare_video=videos[0], unpublished_video=videos[1], future_video=videos[2],
        rare_tag=tags[-1],
    )  # fmt: skip


def load(db: Connection, world: World) -> None:
    """Writes the world into an empty, migrated database."""
    copy_rows(db, "auth.users (id, created_at)", [(u, EPOCH - timedelta(days=40)) for u in world.users])
    copy_rows(db, "public.profiles (user_id, created_at)", [(u, EPOCH - timedelta(days=30)) for u in world.users[1:]])
    copy_rows(db, "public.tags (id, name)", [(t, f"tag {n}") for n, t in enumerate(world.tags)])
    copy_rows(db, "public.performers (id, name)", [(p, f"performer {n}") for n, p in enumerate(world.performers)])
    copy_rows(
        db,
        "public.videos (id, product_url, title, maker, label, series, source, thumbnail_url, price, duration_seconds, "
        "product_released_at, published_at, description)",
        world.video_rows,
    )
    copy_rows(db, "public.video_tags (video_id, tag_id)", world.video_tags)
    copy_rows(db, "public.video_performers (video_id, performer_id)", world.video_performers)
    copy_rows(db, "public.user_video_decisions (user_id, video_id, decision_type, created_at)", world.decisions)


def copy_rows(db: Connection, target: str, rows: list[Any]) -> None:
    """COPY ``rows`` into ``table (columns)``."""
    with db.cursor().copy(f"copy {target} from stdin".encode()) as copy:
        for row in rows:
            copy.write_row(row)


def one(db: Connection, query: str, *values: Any) -> Any:
    """The only column of the only row."""
    row = db.execute(query.encode(), values).fetchone()
    assert row is not None, query
    return row[0]


def column(db: Connection, query: str, *values: Any) -> list[Any]:
    """The first column of every row."""
    return [row[0] for row in db.execute(query.encode(), values)]


# ---------------------------------------------------------------------------------------------------- models


METRICS = {
    "two-tower": {"recall@20": 0.5, "ndcg@20": 0.5},
    "popularity": {"recall@20": 0.1, "ndcg@20": 0.1},
}
"""Invented metrics of a model that is better than popularity."""


@dataclass
class TinyModel:
    """Towers with random weights, and all arguments of ``two_tower.register_model``. Tests may change fields."""

    user_tower: UserTower
    item_tower: ItemTower
    schema: FeatureSchema
    user_graph: bytes
    item_graph: bytes
    feature_schema: dict[str, Any]
    vocabularies: dict[str, list[str]]
    metrics: dict[str, Any] | None
    weights: bytes


def random_model(schema: FeatureSchema, seed: int = 0) -> TinyModel:
    """Towers for ``schema``, the same for the same seed."""
    import torch

    from two_tower.trainer.model import ItemTower, UserTower

    user, item = UserTower(schema), ItemTower(schema, hidden=16)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in [*user.parameters(), *item.parameters()]:
            parameter.normal_(0, 0.1, generator=generator)
        item.centres.mul_(5)
        words = schema.segment("item", "title_words")
        item.scale[words.offset + 3 : words.offset + words.size + 3] = 0.7
        for buffer, value in ((item.mean, 3), (item.divisor, 2), (item.square_width, 12)):
            buffer.fill_(value)
    return packed(schema, user, item)


def packed(schema: FeatureSchema, user: UserTower, item: ItemTower) -> TinyModel:
    """These towers with their files, and a parity sample of their outputs."""
    from safetensors.torch import save

    from two_tower.lifecycle.registry import parity_sample
    from two_tower.trainer.export import item_graph, user_graph

    vocabularies = {name: list(keys) for name, keys in schema.vocabularies.items()}
    graphs = user_graph(user), item_graph(item)
    metrics = METRICS | {"parity": parity_sample(schema, (user, graphs[0]), (item, graphs[1]))}
    weights = save(
        {f"user.{k}": v.detach().contiguous() for k, v in user.state_dict().items()}
        | {f"item.{k}": v.detach().contiguous() for k, v in item.state_dict().items()}
    )
    return TinyModel(user, item, schema, *graphs, schema.to_json(), vocabularies, metrics, weights)


_schemas: dict[str, FeatureSchema] = {}


def schema_of(db: Connection) -> FeatureSchema:
    """The trainer's vocabularies if there are likes, else empty ones; read once for databases with the same rows."""
    from two_tower.features import VOCABULARIES, FeatureSchema
    from two_tower.trainer import dataset

    key = fingerprint(db)
    if key not in _schemas:
        if one(db, "select exists (select from two_tower.training_set() where label = 1)"):
            _schemas[key] = dataset.read(db).schema
        else:
            _schemas[key] = FeatureSchema(dict.fromkeys(VOCABULARIES, ()))
    return _schemas[key]


def fingerprint(db: Connection) -> str:
    """A hash of all inputs of a training: every row of the application, imports, users' choices, the settings, and our
    routines."""
    relations = db.execute(
        """select format('%I.%I', n.nspname, c.relname)
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'v', 'm') and (
            n.nspname in ('public', 'auth')
            or n.nspname = 'two_tower' and c.relname in ('reviews', 'content_vectors', 'user_choices', 'settings')
        )
        order by 1"""
    ).fetchall()
    hashed = (f"select sum(hashtextextended(t::text, 0))::text from {relation} t" for (relation,) in relations)
    routines = "select sum(hashtextextended(p.prosrc, 0))::text from pg_proc p"
    return str(db.execute(" union all ".join([routines, *hashed]).encode()).fetchall())


ENGINE = os.environ.get("TEST_ENGINE", "auto")
"""The inference engine under test: ``auto``, ``sql`` or ``onnxruntime``."""


def rows_of(model: TinyModel) -> list[tower_rows.Row]:
    """The weights of a model as rows of ``two_tower.model_weights``."""
    from two_tower.lifecycle import tower_rows

    tensors = {f"user.{k}": v.detach().numpy() for k, v in model.user_tower.state_dict().items()}
    tensors |= {f"item.{k}": v.detach().numpy() for k, v in model.item_tower.state_dict().items()}
    rows = tower_rows.to_rows(tensors)
    assert rows is not None
    return rows


def register(
    db: Connection,
    model: TinyModel,
    version: str = "v1",
    meta: dict[str, Any] | None = None,
    engine: str = ENGINE,
) -> str:
    """``two_tower.register_model`` itself, by name, so that a test can pass it anything.

    Stores the weights as rows, unless the engine does not need them.
    """
    from two_tower.lifecycle import tower_rows

    db.execute("update two_tower.settings set value = to_jsonb(%s::text) where name = 'inference_engine'", (engine,))
    taken = one(db, "select exists (select from two_tower.model_versions where version = %s)", version)
    if engine != "onnxruntime" and not taken:
        tower_rows.store(db, version, rows_of(model))
    return register_model(db, model, version, meta)


def register_model(db: Connection, model: TinyModel, version: str = "v1", meta: dict[str, Any] | None = None) -> str:
    """Only the call of ``two_tower.register_model``: rows and settings stay as they are."""
    row = db.execute(
        """select two_tower.register_model(
            p_version => %s, p_user_tower => %s, p_item_tower => %s, p_feature_schema => %s, p_normalizer => '{}',
            p_vocabularies => %s, p_metrics => %s, p_meta => %s, p_weights => %s)""",
        (
            version,
            model.user_graph,
            model.item_graph,
            Jsonb(model.feature_schema),
            Jsonb(model.vocabularies),
            None if model.metrics is None else Jsonb(model.metrics),
            Jsonb(meta or {}),
            model.weights,
        ),
    ).fetchone()
    assert row is not None
    return str(row[0])


def tiny_model(
    db: Connection,
    version: str = "v1",
    *,
    seed: int = 0,
    activate: bool = True,
    engine: str = ENGINE,
    recency: float = 0.0,
) -> TinyModel:
    """Registers a random model for this database and activates it. ``db`` is in autocommit mode."""
    from two_tower.lifecycle import registry

    model = random_model(replace(schema_of(db), recency=recency), seed)
    register(db, model, version, engine=engine)
    if activate:
        registry.activate(db, version, lambda what, share: None)
    return model


def refresh(db: Connection) -> None:
    """Drains the change log. ``db`` is in autocommit mode."""
    db.execute("call two_tower.refresh()")


State = dict[str, Any]


def state(db: Connection) -> State:
    """Everything that refreshes write, bit for bit: features, and vectors and tastes of every version; no times."""
    features = db.execute("select user_id, (to_jsonb(f) - 'updated_at')::text from public.user_features f").fetchall()
    found: State = {f"features {key}": text for key, text in features}
    for kind, table, values in (
        ("user", "user_embeddings", "jsonb_build_array(embedding::text, length)"),
        ("video", "video_embeddings", "embedding::text"),
        ("taste", "video_tastes", "jsonb_build_array(liked::text, noped::text)"),
    ):
        key = "user_id" if kind == "user" else "video_id"
        for one_id, version, value in db.execute(
            f"select {key}, model_version, {values} from two_tower.{table}".encode()
        ):
            found[f"{kind} {one_id} {version}"] = value
    return found


def poison(db: Connection, video: UUID) -> None:
    """Makes every write about this video, and about users who like or nope it, fail until :func:`heal`."""
    who = "select distinct user_id from user_video_decisions where video_id = %s and decision_type <> 'skip'"
    users = ", ".join(f"'{user}'" for user in column(db, who, video))
    for table, allowed in (
        ("two_tower.video_embeddings", f"video_id <> '{video}'"),
        ("public.user_features", f"user_id not in ({users})"),
    ):
        db.execute(f"alter table {table} add constraint poisoned check ({allowed}) not valid".encode())
    db.execute("update videos set price = coalesce(price, 0) + 1 where id = %s", (video,))


def heal(db: Connection) -> None:
    """Removes what :func:`poison` created."""
    for table in ("two_tower.video_embeddings", "public.user_features"):
        db.execute(f"alter table {table} drop constraint poisoned".encode())


# ---------------------------------------------------------------------------------------------------- clients


class Client:
    """A connection like PostgREST's: role ``authenticator``, which switches to another role for one transaction."""

    def __init__(self, connection: Connection) -> None:
        assert not connection.autocommit
        self.connection = connection

    @contextmanager
    def as_(self, role: str, user: UUID | str | None = None, **claims: Any) -> Iterator[Connection]:
        """A transaction as ``role`` with the JWT claims of ``user``."""
        with self.connection.transaction():
            self.connection.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
            claims = {"role": role, **({} if user is None else {"sub": str(user)}), **claims}
            self.connection.execute("select set_config('request.jwt.claims', %s, true)", (json.dumps(claims),))
            yield self.connection

    def rpc(self, role: str, user: UUID | str | None, name: str, **arguments: Any) -> list[Any]:
        """The rows of a routine that is called with named JSON arguments, as in PostgREST's query."""
        with self.as_(role, user) as connection:
            return rpc(connection, name, **arguments)


def rpc(connection: Connection, name: str, **arguments: Any) -> list[Any]:
    """The rows of ``POST /rpc/name`` with ``arguments``, inside a transaction of :meth:`Client.as_`."""
    columns = connection.execute(
        """select a.name, format_type(t.oid, null) from pg_proc p
        cross join unnest(p.proargnames, coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargmodes)
            as a (name, type, mode)
        join pg_type t on t.oid = a.type
        where p.proname = %s and p.pronamespace = 'public'::regnamespace and coalesce(a.mode, 'i') = 'i'""",
        (name,),
    ).fetchall()
    types = dict(columns)
    unknown = sorted(arguments.keys() - types.keys())
    if unknown:
        raise LookupError(f"no function {name} with arguments {unknown}")  # PostgREST answers 404, PGRST202
    given = [argument for argument in types if argument in arguments]
    fields = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(a), sql.SQL(types[a])) for a in given)
    named = sql.SQL(", ").join(sql.SQL("{0} := body.{0}").format(sql.Identifier(a)) for a in given)
    body = sql.SQL("json_to_record(%s) as body ({}), lateral ").format(fields) if given else sql.SQL("")
    query = sql.SQL("select to_jsonb(answer) from {}public.{}({}) as answer").format(body, sql.Identifier(name), named)
    return [row[0] for row in connection.execute(query, (json.dumps(arguments, default=str),) if given else ())]
