"""A :class:`~two_tower.features.TrainingData` from files such as those of ``two-tower dataset export``, without a
database.

    two-tower train --train interactions_train.parquet --val interactions_val.parquet --items item_features.parquet

The files are read as imports read them (:mod:`two_tower.data`), and rows that cannot be used are reported in the same
way. Interactions have a user (``user_id`` or ``reviewer_id``), an item, and the
decision: ``decision``, or ``label`` (1, 0), or ``stars``; ``created_at`` and ``weight`` if known. Items
have their id and the item tower's input, with the column names of ``item_features.parquet``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl

from two_tower.data.files import open_table, parquet_errors
from two_tower.data.imports.cells import (
    AHEAD,
    FACTS,
    FIRST_MOMENT,
    NO_ID,
    NO_TIME,
    NOT_YET,
    TIMES,
    facts,
    faults_of_length,
    listed,
    names,
    numbers,
    outside,
    seems_ten_point,
    stars,
    texts,
    timestamps,
    with_ids,
)
from two_tower.data.imports.decisions import NO_LABEL, labels
from two_tower.data.imports.task import require_plain, without
from two_tower.data.imports.vectors import MOST_NUMBERS
from two_tower.data.table import Rejects, shown_names, tidy_name
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
from two_tower.limits import LONGEST, LONGEST_ADDRESS
from two_tower.lists import NO_LIST
from two_tower.progress import Say
from two_tower.trainer.dataset import COMMON, FEWEST_VIDEOS, DatasetOptions, Decided, Vectors, laid_out, stacked

USERS = ("user_id", "reviewer_id")
LABELS = ("decision", "label", "stars")
NUMBERS = ("price", "duration_seconds")
MOST_REJECTED = 0.5
"""The share of rows that cannot be used above which a file is not what it seems."""
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
    """All likes, nopes and skips that can be used."""


def load(
    train: Path,
    val: Path | None,
    items: Path,
    options: DatasetOptions | None = None,
    *,
    item_key: str = "video_id",
    say: Say = lambda _: None,
) -> Loaded:
    """Read the files. Interactions with items that ``items`` lacks are left out; in ``val`` and ``train`` both, ``val``
    counts. Rows that cannot be used go to a report per file, in the working directory. Raises UserError where a file
    cannot be read, lacks what it must have, or has more rows than not that cannot be used."""
    options = options or DatasetOptions()
    item_key = tidy_name(item_key).lower()
    catalogue = _catalogue(items, item_key, say)
    parts = [_interactions(train, "train", item_key, options, say).with_columns(held=pl.lit(value=False))]
    if val is not None:
        parts.append(_interactions(val, "val", item_key, options, say).with_columns(held=pl.lit(value=True)))
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
        decided, _numbers(catalogue), _attributes(catalogue, liked), options, vectors=_vectors(catalogue, items)
    )
    addresses = {}
    if "product_url" in catalogue.columns:
        addresses = dict(catalogue.select("item", "product_url").drop_nulls().iter_rows())
    held = None if val is None else rows["held"].to_numpy()
    return Loaded(data, held, addresses, rows.height, told.height)


class _File:
    """The columns of a file that are wanted, and the report of the rows that cannot be used."""

    def __init__(self, path: Path, role: str, needed: Sequence[Sequence[str]], others: Iterable[str], say: Say) -> None:
        """``role`` names the report. The file has one column of each group of ``needed``, and may lack ``others``."""
        self.path, self.say = path, say
        self.rejects = Rejects(Path(f"{role}.rejects.csv"), path)
        self.rejects.begin()
        known = {*others, *(name for group in needed for name in group)}
        with self.rejects, open_table(path, self.rejects, expected=known, renamed=_of_encoders(path), say=say) as table:
            self.chosen = [_first_of(table.columns, path, group) for group in needed]
            optional = [n for n in table.columns if n not in self.chosen and (n in others or n.startswith(OF_ENCODER))]
            batches = list(table.batches([*self.chosen, *optional]))
        empty = dict.fromkeys(["line", *self.chosen, *optional], pl.String)
        frame = pl.concat(batches) if batches else pl.DataFrame(schema=empty)
        self.frame = frame.with_columns(texts(cells) for cells in frame if cells.dtype == pl.String)
        self.rows = table.rows

    def without(self, faults: Iterable[tuple[str, pl.Expr, str]]) -> pl.DataFrame:
        """The rows that have none of ``faults``. Raises UserError where they are fewer than the others."""
        with self.rejects:
            found = without(self.frame, faults, self.rejects)
        self.rejects.require_few(str(self.path), self.rows, MOST_REJECTED, "nothing is trained")
        if self.rejects.rows:
            self.say(f"{self.path}: {self.rejects.rows:,} of {self.rows:,} rows are left out: see {self.rejects.path}")
        return found


def _of_encoders(path: Path) -> Mapping[str, str]:
    """Columns of vectors, which keep the letters of their encoder's name. Only Parquet has such columns."""
    try:
        with parquet_errors(str(path)):
            names = pl.read_parquet_schema(path)
    except UserError:
        return {}
    return {name: name for name in names if name.startswith(OF_ENCODER)}


def _first_of(columns: Sequence[str], path: Path, names: Sequence[str]) -> str:
    """The first of ``names`` that a file has."""
    found = next((name for name in names if name in columns), None)
    if found is None:
        raise UserError(f"{path} has no column {' or '.join(names)}", f"it has {shown_names(columns)}")
    return found


def _interactions(path: Path, role: str, item_key: str, options: DatasetOptions, say: Say) -> pl.DataFrame:
    """``user``, ``item``, ``label``, ``time``, ``weight`` of likes, nopes and skips; the last of a pair counts."""
    file = _File(path, role, (USERS, LABELS, (item_key, "item_id")), (*TIMES, "weight"), say)
    user, what, item = file.chosen
    require_plain(str(path), file.frame, ())
    frame = with_ids(with_ids(file.frame, user, "user_is_no_id"), item, "item_is_no_id")
    label, reason = _labels(file, what, options)
    time = next((frame[name] for name in TIMES if name in frame.columns), None)
    weight = frame["weight"] if "weight" in frame.columns else None
    file.frame = frame.with_columns(
        label.alias("what"),
        (pl.lit(None, pl.Datetime("us")) if time is None else timestamps(time)).alias("when"),
        (pl.lit(1.0) if weight is None else numbers(weight)).alias("counts"),
    )
    faults = [
        *((name, pl.col(name).is_null(), "empty") for name in (user, item)),
        (user, pl.col("user_is_no_id"), NO_ID),
        (item, pl.col("item_is_no_id"), NO_ID),
        *faults_of_length(frame, {user: user}),
        (what, pl.col("what").is_null(), reason),
    ]
    if time is not None:
        faults.append((time.name, pl.col(time.name).is_not_null() & pl.col("when").is_null(), NO_TIME))
        latest = datetime.now(UTC).replace(tzinfo=None) + AHEAD
        faults.append((time.name, outside("when", FIRST_MOMENT, latest), NOT_YET))
    if weight is not None:
        good = pl.col("counts").is_between(LEAST_GIVEN, MOST_GIVEN).fill_null(value=False)
        reason = f"not a weight from {LEAST_GIVEN:g} to {MOST_GIVEN:g}"
        faults.append(("weight", pl.col("weight").is_not_null() & ~good, reason))
    return file.without(faults).select(
        pl.col(user).str.normalize("NFC").alias("user"),
        pl.col(item).alias("item"),
        pl.col("what").cast(pl.Int8).alias("label"),
        (pl.col("when").dt.epoch("us") / 1e6).fill_null(0.0).alias("time"),
        pl.col("counts").cast(pl.Float32).fill_null(1.0).alias("weight"),
    )


def _labels(file: _File, column: str, options: DatasetOptions) -> tuple[pl.Series, str]:
    """LIKE, NOPE or SKIP; null of a cell that is none; and the reason to reject those."""
    cells = file.frame[column]
    if column != "stars":
        return labels(cells), NO_LABEL
    scale = 10.0 if seems_ten_point(cells) else 5.0
    if scale != 5:
        file.say(f"{file.path}: stars go to 10, so 10 are read as 5")
    given = pl.col("stars")
    liked = pl.when(given >= options.min_stars).then(LIKE).when(given <= options.max_negative_stars).then(NOPE)
    meant = pl.when(given.is_not_null()).then(liked.otherwise(SKIP)).cast(pl.Float32)
    return stars(cells, scale).alias("stars").to_frame().select(meant).to_series(), f"not a number from 0 to {scale:g}"


def _catalogue(path: Path, item_key: str, say: Say) -> pl.DataFrame:
    """The items, by ``item``, each once: the last row of several. Numbers are Float64, ``released_at`` is Datetime,
    and names are lists."""
    file = _File(path, "items", ((item_key,),), (*FACTS, "product_url", *CONTENT), say)
    vectors = [name for name in file.frame.columns if name.startswith(OF_ENCODER)]
    require_plain(str(path), file.frame, (*NAMES, *WORDS, *vectors))
    frame = with_ids(file.frame, item_key, "item_is_no_id")
    lists = {name: listed(frame[name]) for name in NAMES if name in frame.columns}
    single = [name for name in LONGEST if name in frame.columns and name in CONTENT and name not in lists]
    frame = frame.with_columns(names(frame[name]) for name in single)
    frame, of_facts = facts(frame.with_columns(cells.alias(f"{name}_") for name, cells in lists.items()))
    read = {name: f"{name}_" if name in lists else name for name in LONGEST if name in frame.columns}
    file.frame = frame
    faults = [
        (item_key, pl.col(item_key).is_null(), "empty"),
        (item_key, pl.col("item_is_no_id"), NO_ID),
        (item_key, pl.col(item_key).str.len_bytes() > LONGEST_ADDRESS, f"longer than {LONGEST_ADDRESS:,} bytes"),
        *((name, pl.col(name).is_not_null() & pl.col(f"{name}_").is_null(), NO_LIST) for name in lists),
        *faults_of_length(frame, read),
        *of_facts,
    ]
    found = file.without(faults).with_columns(
        pl.col(item_key).alias("item"),
        *(pl.col(f"{name}_").alias(name) for name in (*lists, *FACTS) if f"{name}_" in frame.columns),
    )
    return found.unique("item", keep="last", maintain_order=True).sort("item")


def _numbers(catalogue: pl.DataFrame) -> pl.DataFrame:
    """``video_id`` and the columns of :data:`~two_tower.features.ITEM_NUMERIC`; null if unknown."""

    def known(name: str) -> pl.Expr:
        return pl.col(name) if name in catalogue.columns else pl.lit(None)

    since = known("released_at").cast(pl.Datetime("us")) - datetime.combine(
        date.fromisoformat(EPOCH), datetime.min.time()
    )
    return catalogue.select(
        pl.col("item").alias("video_id"),
        *(known(name).cast(pl.Float64).alias(name) for name in NUMBERS),
        (since.dt.total_seconds() / 86400).floor().alias("released_days"),
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
        sizes = known[name].list.len().unique().sort().to_list()
        if len(sizes) > 1 or (sizes and not 1 <= sizes[0] <= MOST_NUMBERS):
            raise UserError(
                f"{path}: the vectors of {name} have from {sizes[0]:,} to {sizes[-1]:,} numbers",
                f"those of one encoder have all the same number, from 1 to {MOST_NUMBERS:,}",
            )
        for position, given in known.iter_rows():
            vector = np.asarray(given, dtype=np.float32)
            size = float(np.linalg.norm(vector.astype(np.float64)))
            if not np.isfinite(size) or size == 0:
                raise UserError(f"{path}: {name} of {catalogue[position, 'item']} is a vector without a direction")
            if abs(size - 1) >= 1e-6:
                vector /= size
            rows.append((name.removeprefix(OF_ENCODER), int(position), vector))
    return stacked(rows)


def _attributes(catalogue: pl.DataFrame, liked: pl.Series) -> pl.DataFrame:
    """``video_id``, ``kind``, ``key``: what items carry. Of words, those that the training reads from a database."""
    parts = [pl.DataFrame(schema={"video_id": pl.String, "kind": pl.String, "key": pl.String})]
    for segment in CONTENT:
        if segment not in catalogue.columns:
            continue
        keys = catalogue[segment]
        if catalogue.schema[segment] != pl.List:
            text = texts(keys)
            if segment in WORDS:
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
