"""A :class:`~two_tower.features.TrainingData` from files such as those of ``two-tower dataset export``, without a
database.

    two-tower train --train interactions_train.parquet --val interactions_val.parquet --items item_features.parquet

Files are Parquet or CSV, whatever their names. Interactions have a user (``user_id`` or ``reviewer_id``), an item, and
the decision: ``label`` (1, 0; -1 is a skip), or ``decision``, or ``stars``; ``created_at`` and ``weight`` if known.
Items have their id and the item tower's input, with the column names of ``item_features.parquet``; lists are lists, or
texts that :mod:`two_tower.lists` reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from two_tower.errors import UserError
from two_tower.features import (
    EPOCH,
    ITEM_SEGMENTS,
    LEAST_GIVEN,
    LIKE,
    MOST_GIVEN,
    NOPE,
    SKIP,
    VECTORS,
    WORDS,
    TrainingData,
)
from two_tower.lists import NO_LIST, split_lists
from two_tower.trainer.dataset import COMMON, FEWEST_VIDEOS, DatasetOptions, Decided, Vectors, laid_out, stacked

DECISIONS = {"like": LIKE, "nope": NOPE, "dislike": NOPE, "skip": SKIP}
USERS = ("user_id", "reviewer_id")
TIMES = ("created_at", "timestamp")
FORMATS = ("%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")
"""Formats of times as text, with a blank between date and time; UTC unless they state another zone."""
NAMES = ("tags", "performers")
CONTENT = tuple(name for name in ITEM_SEGMENTS if name not in ("id", VECTORS))
OF_ENCODER = "vector_"
"""Prefix of the columns of encoders' vectors, such as ``vector_clip``."""


@dataclass(frozen=True)
class Loaded:
    """The contents of the files."""

    data: TrainingData
    held: np.ndarray | None
    """[n] bool: the rows that came from ``val``; None without such a file."""
    addresses: dict[str, str]
    """Item → ``product_url``, for items that have one."""
    joined: int
    """Interactions with an item of the catalogue."""
    interactions: int
    """All likes, nopes and skips."""


def load(
    train: Path, val: Path | None, items: Path, options: DatasetOptions | None = None, *, item_key: str = "video_id"
) -> Loaded:
    """Read the files. Interactions with items that ``items`` lacks are left out; if one is in both ``val`` and
    ``train``, ``val`` counts. Raises UserError if a file cannot be read, or lacks a required column."""
    options = options or DatasetOptions()
    catalogue = _table(items)
    _require(catalogue, items, item_key)
    catalogue = catalogue.with_columns(pl.col(item_key).cast(pl.String).alias("item")).drop_nulls("item")
    catalogue = catalogue.unique("item", keep="last", maintain_order=True).sort("item")
    parts = [_interactions(train, item_key, options).with_columns(held=pl.lit(value=False))]
    if val is not None:
        parts.append(_interactions(val, item_key, options).with_columns(held=pl.lit(value=True)))
    told = pl.concat(parts).unique(["user", "item"], keep="last", maintain_order=True)
    if catalogue.height == 0:
        raise UserError(f"{items} has no items")
    positions = catalogue.select("item", pl.int_range(pl.len(), dtype=pl.Int32).alias("position"))
    rows = told.join(positions, on="item").sort("user", "time", "position")
    if not (rows["label"] == LIKE).any():
        raise UserError(
            f"there are no likes to learn from: of {told.height} interactions, {rows.height} name an item of {items}",
            f"both files must have the same {item_key}, and some label be 1",
        )
    users = rows["user"].unique().sort()
    decided = Decided(
        users.to_numpy().astype(str),
        rows["user"].replace_strict(users, np.arange(len(users), dtype=np.int32)).to_numpy().astype(np.int32),
        rows["position"].to_numpy(),
        rows["label"].to_numpy(),
        rows["time"].to_numpy(),
        rows["weight"].to_numpy(),
    )
    liked = rows.filter(pl.col("label") == LIKE)["item"].unique()
    data = laid_out(
        decided, _numbers(catalogue), _attributes(catalogue, liked, items), options, vectors=_vectors(catalogue, items)
    )
    addresses = {}
    if "product_url" in catalogue.columns:
        addresses = dict(catalogue.select("item", "product_url").drop_nulls().iter_rows())
    held = None if val is None else rows["held"].to_numpy()
    return Loaded(data, held, addresses, rows.height, told.height)


def _table(path: Path) -> pl.DataFrame:
    try:
        with path.open("rb") as file:
            parquet = file.read(4) == b"PAR1"
        return pl.read_parquet(path) if parquet else pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(
            f"cannot read {path}: {reason}", "it must be Parquet, or CSV in UTF-8 with a heading"
        ) from error


def _require(frame: pl.DataFrame, path: Path, *names: str) -> str:
    """The first of these columns that exists."""
    found = next((name for name in names if name in frame.columns), None)
    if found is None:
        raise UserError(f"{path} has no column {' or '.join(names)}", f"it has {', '.join(frame.columns)}")
    return found


def _interactions(path: Path, item_key: str, options: DatasetOptions) -> pl.DataFrame:
    """``user``, ``item``, ``label``, ``time``, ``weight`` of likes, nopes and skips; the last of a pair counts."""
    frame = _table(path)
    user, what = _require(frame, path, *USERS), _require(frame, path, "label", "decision", "stars")
    item, given = _require(frame, path, item_key, "item_id"), pl.col(what)
    if what == "decision":
        label = given.cast(pl.String).str.to_lowercase().replace_strict(DECISIONS, default=None, return_dtype=pl.Int8)
    elif what == "label":
        number = given.cast(pl.Float64, strict=False)
        label = pl.when(number.is_in([float(LIKE), float(NOPE), float(SKIP)])).then(number).cast(pl.Int8)
    else:
        stars = given.cast(pl.Float64, strict=False)
        label = (
            pl.when(stars >= options.min_stars)
            .then(LIKE)
            .when(stars <= options.max_negative_stars)
            .then(NOPE)
            .when(stars.is_not_null())
            .then(SKIP)
            .cast(pl.Int8)
        )
    time = next((name for name in TIMES if name in frame.columns), None)
    seconds = pl.lit(0.0) if time is None else _seconds(frame.schema[time], pl.col(time))
    if time is not None:
        unread = frame.filter(pl.col(time).is_not_null() & (pl.col(time).cast(pl.String) != "") & seconds.is_null())
        if unread.height:
            raise UserError(f"{path}: {unread[0, time]!r} in {time} is no time", "write it as 2026-01-31T12:00:00Z")
    found = frame.select(
        pl.col(user).cast(pl.String).alias("user"),
        pl.col(item).cast(pl.String).alias("item"),
        label.alias("label"),
        seconds.alias("time"),
        (pl.col("weight").cast(pl.Float32, strict=False) if "weight" in frame.columns else pl.lit(1.0, pl.Float32))
        .fill_nan(None)
        .fill_null(1.0)
        .clip(LEAST_GIVEN, MOST_GIVEN)
        .alias("weight"),
    )
    return found.drop_nulls(["user", "item", "label"]).with_columns(pl.col("time").fill_null(0.0))


def _seconds(kind: pl.DataType, column: pl.Expr) -> pl.Expr:
    """Seconds since 1970, from a time, a text or a number."""
    if kind == pl.String:
        text = column.str.replace("T", " ", literal=True).str.replace(r"Z$", "+00:00")
        column = pl.coalesce(
            *(text.str.to_datetime(form, time_zone="UTC", time_unit="us", strict=False) for form in FORMATS),
            pl.from_epoch((text.cast(pl.Float64, strict=False) * 1e6).cast(pl.Int64), "us").dt.replace_time_zone("UTC"),
        )
    elif kind.is_numeric():
        return column.cast(pl.Float64)
    return column.cast(pl.Datetime("us")).dt.epoch("us") / 1e6


def _numbers(catalogue: pl.DataFrame) -> pl.DataFrame:
    """``video_id`` and the columns of :data:`~two_tower.features.ITEM_NUMERIC`; null if unknown."""

    def number(name: str) -> pl.Expr:
        known = name in catalogue.columns
        return (pl.col(name).cast(pl.Float64, strict=False) if known else pl.lit(None, pl.Float64)).alias(name)

    days = pl.lit(None, pl.Float64)
    if "released_at" in catalogue.columns:
        seconds = _seconds(catalogue.schema["released_at"], pl.col("released_at"))
        days = (seconds / 86400).floor() - (date.fromisoformat(EPOCH) - date(1970, 1, 1)).days
    return catalogue.select(
        pl.col("item").alias("video_id"), number("price"), number("duration_seconds"), days.alias("released_days")
    )


def _vectors(catalogue: pl.DataFrame, path: Path) -> Vectors:
    """The encoders' vectors of the items, from the columns with the prefix :data:`OF_ENCODER`."""
    rows: list[tuple[str, int, np.ndarray]] = []
    for name in catalogue.columns:
        if not name.startswith(OF_ENCODER):
            continue
        kind = catalogue.schema[name]
        if not isinstance(kind, pl.List | pl.Array) or not kind.inner.is_numeric():
            raise UserError(f"{path}: {name} is {kind}, and must be lists of numbers", "write Parquet, or leave it out")
        known = catalogue.select(
            pl.int_range(pl.len(), dtype=pl.Int32).alias("position"), pl.col(name).cast(pl.List(pl.Float32))
        ).drop_nulls()
        for position, given in known.iter_rows():
            vector = np.asarray(given, dtype=np.float32)
            size = float(np.linalg.norm(vector.astype(np.float64)))
            if not np.isfinite(size) or size == 0:
                raise UserError(f"{path}: {name} of {catalogue[position, 'item']} is a vector without a direction")
            if abs(size - 1) >= 1e-6:
                vector /= size
            rows.append((name.removeprefix(OF_ENCODER), int(position), vector))
    return stacked(rows)


def _attributes(catalogue: pl.DataFrame, liked: pl.Series, path: Path) -> pl.DataFrame:
    """``video_id``, ``kind``, ``key`` of the items. Words are chosen as for a training from a database."""
    parts = [pl.DataFrame(schema={"video_id": pl.String, "kind": pl.String, "key": pl.String})]
    for segment in CONTENT:
        if segment not in catalogue.columns:
            continue
        keys = catalogue[segment]
        if catalogue.schema[segment] != pl.List:
            text = keys.cast(pl.String)
            if segment in NAMES:
                text = text.str.strip_chars()
                keys = split_lists(text).list.eval(pl.element().str.strip_chars())
                if (bad := text.filter(keys.is_null() & text.is_not_null())).len():
                    raise UserError(f"{path}: {bad[0]!r} in {segment} {NO_LIST}")
            elif segment in WORDS:
                keys = text.str.split("|").list.eval(pl.element().str.strip_chars())
            else:
                keys = pl.select(pl.concat_list(text)).to_series()
        carried = pl.DataFrame({"video_id": catalogue["item"], "key": keys}).explode("key")
        carried = carried.with_columns(pl.col("key").cast(pl.String))
        carried = carried.filter(pl.col("key").is_not_null() & (pl.col("key") != "")).unique(maintain_order=True)
        if segment in WORDS:
            telling = carried.filter(pl.col("video_id").is_in(liked.implode())).group_by("key").len()
            telling = telling.filter(pl.col("len").is_between(FEWEST_VIDEOS, COMMON * len(liked)))
            carried = carried.join(telling, on="key", how="semi", maintain_order="left")
        parts.append(carried.select("video_id", pl.lit(ITEM_SEGMENTS[segment]).alias("kind"), "key"))
    return pl.concat(parts)
