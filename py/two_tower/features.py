"""What the towers read: the layout of the raw inputs, and the trainer's side of building them.

SQL turns rows into counts for serving (``sql/20_features``); the trainer sums the same per-item counts over histories,
so that a part of a history can be left out by subtraction. Both follow one :class:`FeatureSchema`, and a test compares
them for every user. Nothing here is non-linear: log1p, z-scores and norms are inside the exported towers.

A raw input is a concatenation of segments. ``numeric`` comes first; every other segment holds one count per entry of a
vocabulary. A vocabulary belongs to a feature (``tag``, ``performer``, ...), and the two towers share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # scipy comes with the trainer; activating or showing a model must work without it
    from scipy import sparse

SCHEMA_VERSION = 2
"""Version of the layout below. It changes whenever the meaning or the order of an input changes.

Version 2 weighs decisions by ``recency``; version 1 does not, and is the same otherwise.
"""

DIM = 128
"""Length of an embedding."""

NORM_DIMENSION = DIM
"""The dimension, counted from 1, that extends an item vector to length 1. A user vector has zero there, so that cosine
ranks like the inner product. Similarity of two items ignores it."""

EPOCH = "1900-01-01"
"""``released_days`` counts from here, so that every plausible date is positive and zero can mean "unknown"."""

WORDS = {"title_words": "title_word", "description_words": "description_word"}
"""Item segment -> vocabulary of words."""

VECTORS, VECTOR = "content_vectors", "content_vector"
"""Item segment for vectors of images or texts, and its vocabulary: a key for each number of an encoder's vector,
from 1: ``clip:1``, ``clip:2``. They place a video as words do, by their values."""

PLACING = WORDS | {VECTORS: VECTOR}
"""Item segment -> vocabulary of inputs that place a video, but are not counted for users."""

VOCABULARIES = ("tag", "performer", "maker", "label", "series", "source", *PLACING.values(), "video")
"""Vocabulary names, in segment order, without those of :data:`PROFILE`."""

PROFILE = "profile_"
"""Prefix of the vocabulary of a profile column, and of its user segment, which comes after all others:
``profile_age_band``. The owner chooses the columns by ``two_tower.set_profile_inputs``."""

LEAST_GIVEN, MOST_GIVEN = 0.01, 10.0
"""Bounds of a decision's own weight. SQL: ``two_tower.weight_of``, and the check of the table."""

WEIGHT_UNIT = 2.0**-24
"""Weights are multiples of this, so that their sums are exact in any order."""

LEAST_WEIGHT = 2.0**-20
"""The smallest weight, of the oldest decision in the longest history, so that products do not underflow."""

MAX_RECENCY = 10.0
"""The largest ``recency``, at which only the newest decision counts."""

USER_NUMERIC = ("like_count", "nope_count", "price_sum", "priced_count")
"""All additive over the history, so that leaving an item out is exact; ratios and means are formed inside the tower."""

ITEM_NUMERIC = ("price", "duration_seconds", "released_days")
"""Zero means unknown."""

USER_SEGMENTS = {
    "liked_tags": "tag",
    "liked_performers": "performer",
    "liked_makers": "maker",
    "liked_labels": "label",
    "liked_series": "series",
    "liked_sources": "source",
    "liked_video_ids": "video",
    "noped_video_ids": "video",
}
"""User segment -> vocabulary, in order; names are those of the payload of ``get_user_embedding_features``."""

ITEM_SEGMENTS = {
    "tags": "tag",
    "performers": "performer",
    "maker": "maker",
    "label": "label",
    "series": "series",
    "source": "source",
    **PLACING,
    "id": "video",
}
"""Item segment -> vocabulary, in order; names are those of the payload of ``get_item_embedding_features``."""


@dataclass(frozen=True)
class Segment:
    """A run of inputs. ``vocabulary`` is None for ``numeric``."""

    name: str
    offset: int
    size: int
    vocabulary: str | None = None

    @property
    def slice(self) -> slice:
        """Columns of this segment in a raw input."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True)
class FeatureSchema:
    """Layout of both raw inputs, derived from the vocabularies' sizes."""

    vocabularies: Mapping[str, tuple[str, ...]]
    """Vocabulary name -> keys in index order (uuid text for tag, performer and video)."""
    recency: float = 0.0
    """Exponent of :func:`decision_weights`; 0 where the time of a decision does not matter."""
    user: tuple[Segment, ...] = field(init=False)
    item: tuple[Segment, ...] = field(init=False)

    def __post_init__(self) -> None:
        profile = sorted(name for name in self.vocabularies if name.startswith(PROFILE))
        missing = {*VOCABULARIES, *profile} ^ set(self.vocabularies)
        if missing:
            raise ValueError(f"vocabularies must be exactly {VOCABULARIES}; check {sorted(missing)}")
        if not 0 <= self.recency <= MAX_RECENCY:
            raise ValueError(f"recency must be from 0 to {MAX_RECENCY:g}, and is {self.recency}")
        object.__setattr__(self, "user", self._layout(USER_NUMERIC, USER_SEGMENTS | {n: n for n in profile}))
        object.__setattr__(self, "item", self._layout(ITEM_NUMERIC, ITEM_SEGMENTS))

    def _layout(self, numeric: tuple[str, ...], named: Mapping[str, str]) -> tuple[Segment, ...]:
        segments = [Segment("numeric", 0, len(numeric))]
        for name, vocabulary in named.items():
            last = segments[-1]
            segments.append(Segment(name, last.offset + last.size, len(self.vocabularies[vocabulary]), vocabulary))
        return tuple(segments)

    @property
    def user_dim(self) -> int:
        """Inputs of the user tower."""
        return self.user[-1].offset + self.user[-1].size

    @property
    def item_dim(self) -> int:
        """Inputs of the item tower."""
        return self.item[-1].offset + self.item[-1].size

    @property
    def profile(self) -> tuple[Segment, ...]:
        """Segments of the user tower that read profiles, the last ones."""
        return self.user[1 + len(USER_SEGMENTS) :]

    @property
    def profile_inputs(self) -> slice:
        """Columns of these segments in a raw user input."""
        return slice(self.user[len(USER_SEGMENTS)].offset + self.user[len(USER_SEGMENTS)].size, self.user_dim)

    def segment(self, tower: str, name: str) -> Segment:
        """The segment called ``name`` of the ``user`` or ``item`` tower; KeyError if there is none."""
        for segment in self.user if tower == "user" else self.item:
            if segment.name == name:
                return segment
        raise KeyError(f"{tower} tower has no segment {name!r}")

    def to_json(self) -> dict[str, Any]:
        """``feature_schema.json``: everything a client needs to place counts, apart from the vocabularies."""

        def side(segments: tuple[Segment, ...], numeric: tuple[str, ...]) -> dict[str, Any]:
            return {
                "dim": segments[-1].offset + segments[-1].size,
                "numeric": list(numeric),
                "segments": [
                    {"name": s.name, "offset": s.offset, "size": s.size, "vocabulary": s.vocabulary} for s in segments
                ],
            }

        return {
            "schema_version": SCHEMA_VERSION,
            "epoch": EPOCH,
            "embedding_dim": DIM,
            "norm_dimension": NORM_DIMENSION,
            "user": side(self.user, USER_NUMERIC) | {"recency": self.recency},
            "item": side(self.item, ITEM_NUMERIC),
        }


LIKE, NOPE, SKIP = 1, 0, -1
"""Labels of :attr:`TrainingData.label`. A skip is neither liked nor disliked, but it is known."""


@dataclass(frozen=True)
class TrainingData:
    """Interactions and item inputs, as read from the database.

    ``user`` and ``item`` are positions in ``user_ids`` and ``item_ids``. Rows are in order of user, time and item.
    """

    user_ids: np.ndarray
    """[n_users] str"""
    item_ids: np.ndarray
    """[n_items] str, the whole catalogue"""
    user: np.ndarray
    """[n] int32"""
    item: np.ndarray
    """[n] int32"""
    label: np.ndarray
    """[n] int8: LIKE, NOPE or SKIP"""
    time: np.ndarray
    """[n] float64, seconds since 1970; 0 where a time is unknown"""
    schema: FeatureSchema
    item_counts: sparse.csr_matrix
    """[n_items, item_dim] float32 raw item inputs, own id included"""
    weight: np.ndarray | None = None
    """[n] float32, each decision's own weight, from LEAST_GIVEN to MOST_GIVEN; None: 1"""
    profile: sparse.csr_matrix | None = None
    """[n_users, n] float32, 1 where a user's profile has a key: the columns :attr:`FeatureSchema.profile_inputs` as
    profiles are now, since nothing says what they were; None where the schema reads none"""

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    def places(self, rows: np.ndarray | None = None) -> np.ndarray:
        """[n] int64: places from the newest among the user's likes and nopes (of ``rows``, a mask, if given).

        0 for all that is neither, or not among ``rows``.
        """
        counted = self.label != SKIP
        if rows is not None:
            counted = counted & rows
        places = np.zeros(len(self.user), dtype=np.int64)
        places[counted] = recency_places(self.user[counted], self.time[counted])
        return places

    def matrix(
        self,
        label: int,
        rows: np.ndarray | None = None,
        recency: float = 0.0,
        *,
        given: bool = True,
        places: np.ndarray | None = None,
    ) -> sparse.csr_matrix:
        """[n_users, n_items] float32: weights of interactions (of ``rows``, a mask, if given) with ``label``.

        These are :func:`decision_weights` among the user's likes and nopes of ``rows``. Without ``given``, own weights
        are ignored, so all are 1 if ``recency`` is 0. ``places``: the result of :meth:`places` for ``rows``, if known.
        """
        from scipy import sparse

        keep = self.label == label
        if rows is not None:
            keep = keep & rows
        shape, user, item = (self.n_users, self.n_items), self.user[keep], self.item[keep]
        weights = np.ones(len(user), dtype=np.float32)
        told = self.weight[keep] if given and self.weight is not None else None
        if recency or told is not None:
            if recency and places is None:
                places = self.places(rows)
            place = places[keep] if recency and places is not None else 0
            weights *= decision_weights(place, recency, 1.0 if told is None else told)
        return sparse.csr_matrix((weights, (user, item)), shape=shape)


def recency_places(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """[n] int64: how many of the rows [n] of the same user are strictly newer. Rows of the same time share a place."""
    order = np.lexsort((-time, user))
    row = np.arange(len(order))
    other_user = np.diff(user[order], prepend=-1) != 0
    later = other_user | (np.diff(time[order], prepend=np.inf) != 0)
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.maximum.accumulate(np.where(later, row, 0)) - np.maximum.accumulate(np.where(other_user, row, 0))
    return places


def decision_weights(places: np.ndarray | int, exponent: float, given: np.ndarray | float = 1.0) -> np.ndarray:
    """[n] float32: weights of decisions at these places from the newest, with own weights ``given`` [n]; either may be
    one number for all.

    SQL: ``two_tower.decision_weight``.
    """
    weights = (1.0 + places) ** -float(exponent) * np.asarray(given, dtype=np.float64)
    weights = np.round(weights / WEIGHT_UNIT) * WEIGHT_UNIT
    return np.maximum(weights, LEAST_WEIGHT).astype(np.float32)


def user_counts(
    schema: FeatureSchema,
    item_counts: sparse.csr_matrix,
    likes: sparse.csr_matrix,
    nopes: sparse.csr_matrix,
    profile: sparse.csr_matrix | None = None,
) -> sparse.csr_matrix:
    """Raw user inputs [m, user_dim] float32 from histories ``likes`` and ``nopes`` [m, n_items] of weights.

    Weights are those of :meth:`TrainingData.matrix` by the schema's recency. Linear in the histories:
    ``user_counts(a) - user_counts(b) == user_counts(a - b)``. ``profile`` [m, n]: rows of
    :attr:`TrainingData.profile`; None where nothing is known of these users.
    """
    from scipy import sparse

    item = {s.name: item_counts[:, s.slice] for s in schema.item}
    price = item["numeric"][:, 0].astype(np.float64)  # SQL sums in double precision too
    priced = (price > 0).astype(np.float64)
    numeric = sparse.hstack([likes.sum(axis=1), nopes.sum(axis=1), likes @ price, likes @ priced])
    # The order of USER_SEGMENTS, ending in the video's own id.
    content = [likes @ item[name] for name in ITEM_SEGMENTS if name not in PLACING]
    inputs = [numeric, *content, nopes @ item["id"]]
    if schema.profile:
        width = schema.user_dim - schema.profile_inputs.start
        inputs.append(sparse.csr_matrix((likes.shape[0], width), dtype=np.float32) if profile is None else profile)
    return sparse.hstack(inputs, format="csr", dtype=np.float32)
