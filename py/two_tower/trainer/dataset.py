"""Reads a :class:`~two_tower.features.TrainingData` from the database, by COPY and in one snapshot.

SQL defines labels (``two_tower.training_set``) and attributes of items (``two_tower.video_attributes``); this module
turns keys into positions. Decisions are mapped from files (:mod:`.columns`), so only the catalogue takes memory.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString, TypeAlias
from uuid import UUID

import numpy as np
import numpy.typing as npt
import polars as pl
import psycopg
from psycopg import sql
from scipy import sparse

from two_tower.database import SNAPSHOT
from two_tower.errors import UserError
from two_tower.features import (
    ITEM_NUMERIC,
    ITEM_SEGMENTS,
    LIKE,
    PROFILE,
    VECTOR,
    VOCABULARIES,
    WORDS,
    FeatureSchema,
    TrainingData,
)
from two_tower.limits import LONGEST_NAME
from two_tower.trainer.columns import read_columns


@dataclass(frozen=True)
class DatasetOptions:
    """What to train on, and which keys get inputs of their own."""

    min_stars: float = 4.0
    """Reviews with at least this many stars are likes."""
    max_negative_stars: float = 2.0
    """Reviews with at most this many stars are nopes; those between count as known, and as neither."""
    mode: str = "all"
    """One of :data:`MODES`."""
    max_tag_features: int = 2_000
    """Inputs for tags, at most. In this and the next four limits, 0 or less means no limit."""
    max_performer_features: int = 5_000
    max_video_features: int | None = None
    """None: all videos with :attr:`min_video_likes`. Each takes 1.5 kB of weights in the database."""
    min_video_likes: int = 2
    """A video that only one user likes does not tell who else would like it, and its weights would reveal that user's
    taste."""
    max_category_features: int = 1_000
    """For each of makers, labels, series, sources, and each column of profiles."""
    max_word_features: int = 2_000
    """For each of titles and descriptions. Vectors of encoders always have all their inputs."""

    def limit(self, vocabulary: str) -> int | None:
        """The most entries that a vocabulary may have; None for no limit."""
        named = {
            "tag": self.max_tag_features,
            "performer": self.max_performer_features,
            "video": self.max_video_features,
        }
        named |= dict.fromkeys(WORDS.values(), self.max_word_features) | {VECTOR: None}
        limit = named.get(vocabulary, self.max_category_features)
        return limit if limit is not None and limit > 0 else None

    def least_likes(self, vocabulary: str) -> int:
        """Likes that an entry must have."""
        return max(self.min_video_likes, 1) if vocabulary == "video" else 1


# Rows of fixed width: a field count, then length and value of each field.
_ROW = np.dtype(
    [("fields", ">i2"), ("l1", ">i4"), ("user_id", "V16"), ("l2", ">i4"), ("item", ">i4"), ("l3", ">i4"),
     ("label", ">i2"), ("l4", ">i4"), ("time", ">f8"), ("l5", ">i4"), ("weight", ">f4")]
)  # fmt: skip
_TYPES: dict[str, npt.DTypeLike] = {
    "user_id": "V16", "item": np.int32, "label": np.int8, "time": np.float64, "weight": np.float32,
}  # fmt: skip

# The only statement that evaluates the training set, since each evaluation takes equally long.
_INTERACTIONS = """
copy (
    with items as (
        select id, (row_number() over (order by id) - 1)::int as position from public.videos
    )
    select l.user_id, i.position, l.label, coalesce(extract(epoch from l.created_at)::double precision, 0), l.weight
    from {labelled} as l join items i on i.id = l.video_id
    where l.user_id is not null
    order by 1, 4, 2
) to stdout (format binary)
"""

_ITEM_IDS = "copy (select id from public.videos order by id) to stdout (format csv)"

MODES: dict[str, LiteralString] = {
    "all": "two_tower.training_set({}, {})",
    "explicit": """(
        select t.* from two_tower.training_set({}, {}) t where exists (
            select from public.user_video_decisions d where d.user_id = t.user_id and d.video_id = t.video_id
        )
    )""",
    "reviews": """(
        select t.* from two_tower.training_set({}, {}) t where not exists (
            select from public.user_video_decisions d where d.user_id = t.user_id and d.video_id = t.video_id
        )
    )""",
}
"""The training set: decisions, and reviews of pairs without a decision; only the former; only the latter."""

_ITEMS = """
copy (
    select video_id, price, duration_seconds, released_days
    from two_tower.video_numbers(array(select id from public.videos)) order by video_id
) to stdout (format csv, header)
"""

_ATTRIBUTES = """
copy (
    select video_id, kind, key from two_tower.video_attributes where kind <> all ({})
) to stdout (format csv, header)
"""

# A word of titles or descriptions must be in at least so many of the liked videos, and in at most this share of
# them: rarer and more common words tell nothing about which videos are similar.
FEWEST_VIDEOS, COMMON = 2, 0.1
_WORDS = """
copy (
    with liked as (
        select unnest({}::uuid[]) as video_id
    ),
    words as materialized (
        select video_id, kind, key from two_tower.video_attributes where kind = any ({})
    ),
    telling as (
        select w.kind, w.key from words w join liked l on l.video_id = w.video_id
        group by w.kind, w.key having count(*) between {} and {} * (select count(*) from liked)
    )
    select w.video_id, w.kind, w.key from words w join telling t on t.kind = w.kind and t.key = w.key
) to stdout (format csv, header)
"""
_KNOWN_WORDS = """
copy (
    with known as (
        select * from unnest({}::text[], {}::text[]) as k (kind, key)
    )
    select a.video_id, a.kind, a.key
    from two_tower.video_attributes a join known k on k.kind = a.kind and k.key = a.key
    where a.kind = any ({})
) to stdout (format csv, header)
"""


# Profiles as they are now: their history is not stored.
_PROFILES = """
copy (
    select {} + u.place - 1 as position, k.kind, k.key
    from unnest({}::uuid[]) with ordinality as u (user_id, place)
    cross join lateral two_tower.profile_keys(u.user_id) as k
    order by 1, 2, 3
) to stdout (format csv, header)
"""
ASKED = 100_000
"""Users whose profiles are read at once."""

_VECTORS = """
copy (
    select i.position, c.encoder, array_send(c.vector)
    from (select id, (row_number() over (order by id) - 1)::int as position from public.videos) as i
    join two_tower.content_vectors c on c.video_id = i.id
) to stdout (format binary)
"""

Vectors: TypeAlias = dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]
"""Encoder and size of its vectors → sorted positions [m] of items, and their vectors [m, size] float32, of length 1.
Vectors of another size count as another encoder's, even under the same name."""

FEWEST_USERS = 5
"""Users who must share a key of their profiles for it to have an input: a key of only one user would reveal that user's
taste."""


def read(
    connection: psycopg.Connection[Any], options: DatasetOptions | None = None, schema: FeatureSchema | None = None
) -> TrainingData:
    """The whole training set, laid out by ``schema``, by default one with vocabularies within the limits of
    ``options``.

    Raises UserError if there is nothing to learn from.

    Runs in one repeatable-read transaction, so a like that arrives meanwhile is in all of the result or in none of it.
    """
    options = options or DatasetOptions()
    with connection.transaction():
        connection.execute(SNAPSHOT)
        decided, items = _decided(connection, options), _items(connection)
        item_ids = items["video_id"].to_numpy().astype(str)
        attributes = _attributes(connection, decided.liked(item_ids), schema)
        profiles, vectors = _profiles(connection, decided.user_ids), _vectors(connection)
    _require_likes(decided, items, options)
    return laid_out(decided, items, attributes, options, schema, profiles, vectors)


def read_part(connection: psycopg.Connection[Any], options: DatasetOptions) -> Part:
    """The decisions of the users of one of several databases, in one snapshot."""
    with connection.transaction():
        connection.execute(SNAPSHOT)
        decided = _decided(connection, options)
        item_ids = np.array(_copy(connection, _ITEM_IDS).decode().split(), dtype=str)
        return Part(decided, item_ids, _profiles(connection, decided.user_ids))


def read_together(connection: psycopg.Connection[Any], parts: Sequence[Part], options: DatasetOptions) -> TrainingData:
    """The training set of all ``parts``, with the catalogue of ``connection``: the same as :func:`read` would return
    for one database with all the users.

    Decisions on videos that are not in this catalogue are left out. Raises UserError as read() does.
    """
    liked = {video for part in parts for video in part.decided.liked(part.item_ids)}
    with connection.transaction():
        connection.execute(SNAPSHOT)
        items, attributes = _items(connection), _attributes(connection, sorted(liked), None)
        vectors = _vectors(connection)
    decided = _joined(parts, items["video_id"].to_numpy().astype(str))
    _require_likes(decided, items, options)
    places = [np.searchsorted(decided.user_ids, part.decided.user_ids) for part in parts]
    profiles = pl.concat(
        part.profiles.with_columns(position=place[part.profiles["position"].to_numpy()])
        for part, place in zip(parts, places, strict=True)
    )
    return laid_out(decided, items, attributes, options, profiles=profiles.unique(), vectors=vectors)


def _joined(parts: Sequence[Part], item_ids: np.ndarray) -> Decided:
    """All parts as one, by positions in the sorted ``item_ids``.

    A user who is being moved may be in two parts: of two decisions on the same video, the later counts.
    """
    user_ids = np.unique(np.concatenate([part.decided.user_ids for part in parts]))
    columns: list[list[np.ndarray]] = [[], [], [], [], []]
    for part in parts:
        users = np.searchsorted(user_ids, part.decided.user_ids).astype(np.int32)
        places = np.searchsorted(item_ids, part.item_ids).astype(np.int32)
        known = np.isin(part.item_ids, item_ids)[part.decided.item]
        own = part.decided
        for column, values in zip(
            columns, (users[own.user], places[own.item], own.label, own.time, own.weight), strict=True
        ):
            column.append(values[known])
    user, item, label, time, weight = (np.concatenate(column) for column in columns)
    by_pair = np.lexsort((time, item, user))
    pairs = np.stack([user[by_pair], item[by_pair]])
    last = np.append((pairs[:, 1:] != pairs[:, :-1]).any(axis=0), True)[: len(by_pair)]
    kept = by_pair[last]
    order = kept[np.lexsort((item[kept], time[kept], user[kept]))]
    return Decided(user_ids, user[order], item[order], label[order], time[order], weight[order])


def _decided(connection: psycopg.Connection[Any], options: DatasetOptions) -> Decided:
    stars = map(sql.Literal, (options.min_stars, options.max_negative_stars))
    labelled = sql.SQL(MODES[options.mode]).format(*stars)
    columns = read_columns(connection, sql.SQL(_INTERACTIONS).format(labelled=labelled), _ROW, _TYPES)
    halves = columns.pop("user_id").view(np.uint64).reshape(-1, 2)  # rows of one user are adjacent
    first = np.append(True, (halves[1:] != halves[:-1]).any(axis=1))[: len(halves)]
    user_ids = [str(UUID(bytes=each.tobytes())) for each in halves[first]]
    return Decided(np.array(user_ids, dtype=str), np.cumsum(first, dtype=np.int32) - 1, **columns)


def _profiles(connection: psycopg.Connection[Any], user_ids: np.ndarray) -> pl.DataFrame:
    """The profiles of these users [n_users], as :func:`laid_out` takes them."""
    found = [
        pl.read_csv(_copy(connection, _PROFILES, start, user_ids[start : start + ASKED].tolist()), infer_schema=False)
        for start in range(0, max(len(user_ids), 1), ASKED)
    ]
    return pl.concat(found).with_columns(pl.col("position").cast(pl.Int64))


def _vectors(connection: psycopg.Connection[Any]) -> Vectors:
    """The vectors of encoders, as :func:`laid_out` takes them."""
    rows: list[tuple[str, int, np.ndarray]] = []
    with connection.cursor().copy(_VECTORS) as copy:
        copy.set_types(["int4", "text", "bytea"])
        for position, encoder, sent in copy.rows():
            # A header of five numbers, then length and value of each.
            numbers = np.frombuffer(sent, ">f4", offset=20)[1::2]
            rows.append((encoder, position, numbers.astype(np.float32)))
    return stacked(rows)


def stacked(rows: Iterable[tuple[str, int, np.ndarray]]) -> Vectors:
    """Rows of encoder, position of an item, and vector, as :data:`Vectors`."""
    alike: dict[tuple[str, int], list[tuple[int, np.ndarray]]] = {}
    for encoder, position, vector in rows:
        alike.setdefault((encoder, len(vector)), []).append((position, vector))
    found = {}
    for key, listed in alike.items():
        listed.sort(key=lambda row: row[0])
        positions = np.array([position for position, _ in listed], dtype=np.int32)
        found[key] = (positions, np.stack([vector for _, vector in listed]))
    return found


def _items(connection: psycopg.Connection[Any]) -> pl.DataFrame:
    """Items as :func:`laid_out` takes them."""
    items = pl.read_csv(_copy(connection, _ITEMS), infer_schema=False)
    return items.with_columns(pl.col(name).cast(pl.Float64) for name in ITEM_NUMERIC)


def _attributes(
    connection: psycopg.Connection[Any], liked: Sequence[str], schema: FeatureSchema | None
) -> pl.DataFrame:
    """Attributes as :func:`laid_out` takes them. Words are those of ``schema``, or else those that are neither too rare
    nor too common among the ``liked`` videos."""
    kinds = list(WORDS.values())
    attributes = pl.read_csv(_copy(connection, _ATTRIBUTES, kinds), infer_schema=False)
    if schema is None:
        words = _copy(connection, _WORDS, list(liked), kinds, FEWEST_VIDEOS, COMMON)
    else:
        known = [(kind, word) for kind in kinds for word in schema.vocabularies[kind]]
        words = _copy(connection, _KNOWN_WORDS, [kind for kind, _ in known], [word for _, word in known], kinds)
    return attributes.vstack(pl.read_csv(words, infer_schema=False, schema=attributes.schema))


def _require_likes(decided: Decided, items: pl.DataFrame, options: DatasetOptions) -> None:
    if items.height == 0:
        raise UserError("there are no videos to recommend", "import a catalogue: two-tower import catalog FILE")
    if not (decided.label == LIKE).any():
        of = {"explicit": " among decisions", "reviews": " among reviews"}.get(options.mode, "")
        raise UserError(
            f"there are no likes{of} to learn from",
            "import some: two-tower import decisions FILE, or import reviews FILE",
        )


@dataclass(frozen=True)
class Decided:
    """Decisions by user and item, as :class:`TrainingData` has them."""

    user_ids: np.ndarray
    user: np.ndarray
    item: np.ndarray
    label: np.ndarray
    time: np.ndarray
    weight: np.ndarray

    def liked(self, item_ids: np.ndarray) -> list[str]:
        """Those of ``item_ids`` [n_items] that somebody likes."""
        return list(item_ids[np.unique(self.item[self.label == LIKE])].tolist())


@dataclass(frozen=True)
class Part:
    """The decisions of the users of one database, and its catalogue."""

    decided: Decided
    item_ids: np.ndarray
    """[n_items] str, in order: the positions of ``decided.item``"""
    profiles: pl.DataFrame
    """``position`` of a user, ``kind``, ``key``: the keys of these users' profiles"""


def laid_out(
    decided: Decided,
    items: pl.DataFrame,
    attributes: pl.DataFrame,
    options: DatasetOptions,
    schema: FeatureSchema | None = None,
    profiles: pl.DataFrame | None = None,
    vectors: Vectors | None = None,
) -> TrainingData:
    """The training set of decisions on ``items`` (``video_id`` and :data:`ITEM_NUMERIC`, in the order of positions).

    ``attributes``: ``video_id``, ``kind``, ``key``. ``profiles``: ``position`` of a user, ``kind``, ``key``.
    ``vectors``: the encoders' vectors of the items.
    """
    likes = np.bincount(decided.item[decided.label == LIKE], minlength=items.height)
    entries = _entries(items, attributes)
    if schema is None:
        schema = FeatureSchema(
            {
                name: _vocabulary(entries[name], likes, options.limit(name), options.least_likes(name))
                for name in VOCABULARIES
            }
            | {VECTOR: _numbers_of(vectors or {}, likes)}
            | ({} if profiles is None else _profile_vocabularies(profiles, options))
        )
    return TrainingData(
        user_ids=decided.user_ids,
        item_ids=items["video_id"].to_numpy().astype(str),
        user=decided.user,
        item=decided.item,
        label=decided.label,
        time=decided.time,
        schema=schema,
        item_counts=_encode_items(items, entries, schema, vectors or {}),
        weight=decided.weight,
        profile=None if profiles is None else _encode_profiles(profiles, schema, len(decided.user_ids)),
    )


def _copy(connection: psycopg.Connection[Any], statement: LiteralString, *values: Any) -> bytes:
    # COPY takes no parameters.
    query = sql.SQL(statement).format(*map(sql.Literal, values))
    buffer = io.BytesIO()
    with connection.cursor().copy(query) as copy:
        for block in copy:
            buffer.write(block)
    return buffer.getvalue()


def _entries(items: pl.DataFrame, attributes: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """By vocabulary: a row with the ``position`` of an item and the ``key`` for each key of each item."""
    positions = items.select("video_id", pl.int_range(pl.len(), dtype=pl.Int32).alias("position"))
    carried = (
        attributes.join(positions, on="video_id").select("kind", "position", "key").sort("kind", "position", "key")
    )
    entries = {name: carried.filter(pl.col("kind") == name).drop("kind") for name in VOCABULARIES}
    entries["video"] = positions.select("position", pl.col("video_id").alias("key"))
    return entries


def _vocabulary(entries: pl.DataFrame, likes: np.ndarray, limit: int | None, least: int) -> tuple[str, ...]:
    """The most liked keys, most liked first, ties by key; none with fewer than ``least`` likes, and none too long for
    the registry's index."""
    counted = (
        entries.with_columns(pl.Series("likes", likes[entries["position"].to_numpy()]))
        .filter(pl.col("key").str.len_bytes() <= LONGEST_NAME)
        .group_by("key")
        .agg(pl.col("likes").sum())
        .filter(pl.col("likes") >= least)
        .sort(["likes", "key"], descending=[True, False])
    )
    return tuple(counted["key"] if limit is None else counted["key"].head(limit))


def _profile_vocabularies(profiles: pl.DataFrame, options: DatasetOptions) -> dict[str, tuple[str, ...]]:
    """For each column with any: the keys that most users share, ties by key; none of fewer than FEWEST_USERS users."""
    counted = (
        profiles.filter(pl.col("kind").str.starts_with(PROFILE) & (pl.col("key").str.len_bytes() <= LONGEST_NAME))
        .group_by("kind", "key")
        .agg(pl.col("position").n_unique().alias("users"))
        .filter(pl.col("users") >= FEWEST_USERS)
        .sort(["kind", "users", "key"], descending=[False, True, False])
    )
    found = {}
    for (kind,), keys in counted.group_by("kind", maintain_order=True):
        limit = options.limit(str(kind))
        found[str(kind)] = tuple(keys["key"] if limit is None else keys["key"].head(limit))
    return found


def _encode_profiles(profiles: pl.DataFrame, schema: FeatureSchema, n_users: int) -> sparse.csr_matrix | None:
    if not schema.profile:
        return None
    start = schema.profile_inputs.start
    inputs = [
        (segment.name, key, segment.offset - start + at)
        for segment in schema.profile
        for at, key in enumerate(schema.vocabularies[segment.name])
    ]
    known = pl.DataFrame(inputs, schema={"kind": pl.String, "key": pl.String, "input": pl.Int64}, orient="row")
    found = profiles.join(known, on=["kind", "key"]).unique(["position", "input"]).sort("position", "input")
    ones = np.ones(found.height, dtype=np.float32)
    places = (found["position"].to_numpy(), found["input"].to_numpy())
    return sparse.csr_matrix((ones, places), shape=(n_users, schema.user_dim - start))


def _numbers_of(vectors: Vectors, likes: np.ndarray) -> tuple[str, ...]:
    """Keys of the vector dimensions of each encoder with vectors of at least FEWEST_VIDEOS liked videos; if its vectors
    have several sizes, the most frequent size counts."""
    telling: dict[str, tuple[int, int]] = {}
    for (encoder, numbers), (at, _) in vectors.items():
        liked = int((likes[at] > 0).sum())
        if liked >= FEWEST_VIDEOS:
            telling[encoder] = max(telling.get(encoder, (0, 0)), (liked, numbers))
    return tuple(f"{encoder}:{n + 1}" for encoder, (_, numbers) in sorted(telling.items()) for n in range(numbers))


def _encode_vectors(vectors: Vectors, schema: FeatureSchema, n_items: int) -> sparse.csr_matrix:
    keys = schema.vocabularies[VECTOR]
    shape = (n_items, len(keys))
    places: dict[str, list[tuple[int, int]]] = {}
    for index, key in enumerate(keys):
        encoder, _, number = key.rpartition(":")
        places.setdefault(encoder, []).append((int(number) - 1, index))
    found = sparse.csr_matrix(shape, dtype=np.float32)
    for encoder, listed in places.items():
        if (encoder, len(listed)) not in vectors:
            continue
        at, matrix = vectors[encoder, len(listed)]
        numbers, columns = np.array(listed, dtype=np.int64).T
        values = matrix[:, numbers].ravel()
        found = found + sparse.csr_matrix((values, (np.repeat(at, len(columns)), np.tile(columns, len(at)))), shape)
    found.eliminate_zeros()
    return found


def _encode_items(
    items: pl.DataFrame, entries: dict[str, pl.DataFrame], schema: FeatureSchema, vectors: Vectors
) -> sparse.csr_matrix:
    numeric = items.select(pl.col(name).fill_null(0) for name in ITEM_NUMERIC).to_numpy()
    blocks = [sparse.csr_matrix(numeric.astype(np.float32))]
    for vocabulary in ITEM_SEGMENTS.values():
        if vocabulary == VECTOR:
            blocks.append(_encode_vectors(vectors, schema, items.height))
            continue
        keys = pl.DataFrame({"key": schema.vocabularies[vocabulary]}, schema={"key": pl.String}).with_row_index("index")
        known = entries[vocabulary].join(keys, on="key")
        ones = np.ones(known.height, dtype=np.float32)
        places = (known["position"].to_numpy(), known["index"].to_numpy())
        blocks.append(sparse.csr_matrix((ones, places), shape=(items.height, keys.height)))
    return sparse.hstack(blocks, format="csr", dtype=np.float32)
