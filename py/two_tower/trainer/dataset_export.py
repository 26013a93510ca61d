"""``two-tower dataset export DIR``: the trainer's input as Parquet, for training elsewhere.

``DIR/runs/<time>/`` holds one export; ``DIR/latest`` links to the newest, and changes only when an export is complete.
Interactions are split as the trainer splits them. A user's features count only the training part, so they contain no
held-out label.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, LiteralString

import numpy as np
import polars as pl
import psycopg
from psycopg import sql

from two_tower.database import SNAPSHOT
from two_tower.features import LIKE, NOPE, SKIP, VECTOR, VECTORS, TrainingData
from two_tower.progress import Progress
from two_tower.trainer.dataset import DatasetOptions, read
from two_tower.trainer.dataset_files import OF_ENCODER
from two_tower.trainer.runs import name_by_time, run_directory
from two_tower.writing import writing

NAMES = {LIKE: "like", NOPE: "nope", SKIP: "skip"}

_ITEMS = """
copy (
    select c.video_id, v.product_url, v.title, nullif(two_tower.text_of(v.maker) collate "C", '') as maker,
        nullif(two_tower.text_of(v.label) collate "C", '') as label,
        nullif(two_tower.text_of(v.series) collate "C", '') as series,
        nullif(two_tower.text_of(v.source) collate "C", '') as source, c.price, c.duration_seconds,
        to_char(
            coalesce(two_tower.time_of(v.product_released_at), two_tower.time_of(v.distribution_started_at))
                at time zone 'UTC',
            'YYYY-MM-DD HH24:MI:SS.US'
        ) as released_at,
        to_json(a.tags) as tags,
        (select coalesce(json_agg(t.name order by u.at), '[]')
            from unnest(a.tags) with ordinality u (id, at) join public.tags t on t.id = u.id) as tag_names,
        to_json(a.performers) as performers,
        (select coalesce(json_agg(p.name order by u.at), '[]')
            from unnest(a.performers) with ordinality u (id, at) join public.performers p on p.id = u.id)
            as performer_names,
        w.title_words, w.description_words, to_json(i.urls) as image_urls
    from two_tower.video_numbers(array(select id from public.videos)) c
    join public.videos v on v.id = c.video_id
    cross join lateral (
        select array(select t.tag_id from public.video_tags t where t.video_id = v.id order by t.tag_id) as tags,
            array(select p.performer_id from public.video_performers p where p.video_id = v.id order by p.performer_id)
                as performers
    ) as a
    cross join lateral (
        select coalesce(json_agg(c.key order by c.key) filter (where c.kind = 'title_word'), '[]') as title_words,
            coalesce(json_agg(c.key order by c.key) filter (where c.kind = 'description_word'), '[]')
                as description_words
        from two_tower.contents_of(v.id) c
    ) as w
    -- An adopted table may have no list of images, or one of JSON.
    cross join lateral (
        select array(
            select jsonb_array_elements_text(case when jsonb_typeof(o.urls) = 'array' then o.urls else '[]' end)
        ) as urls
        from (select null::text[] as image_urls) as absent
        cross join lateral (select to_jsonb(image_urls) as urls from public.videos p where p.id = v.id) as o
    ) as i
) to stdout (format csv, header)
"""
_LISTS = ("tags", "tag_names", "performers", "performer_names", "title_words", "description_words", "image_urls")
_NUMBERS = {"price": pl.Float64, "duration_seconds": pl.Int32}
_COUNTED = {
    "liked_tags": "tags",
    "liked_performers": "performers",
    "liked_makers": "maker",
    "liked_labels": "label",
    "liked_series": "series",
    "liked_sources": "source",
}
"""Column of user features → column of item features; named as in the payload of ``get_user_embedding_features``."""


def export(
    connection: psycopg.Connection[Any],
    directory: Path,
    options: DatasetOptions | None = None,
    *,
    run: str | None = None,
    snapshot_inputs: bool = False,
    neg_per_pos: int = 0,
    val_ratio: float = 0.2,
    min_likes: int = 5,
    seed: int = 0,
    progress: Progress = lambda _what, _share: None,
) -> dict[str, Any]:
    """Writes one run, named ``run`` or by the time, and makes it the latest; returns its summary. All of its files show
    the database at one moment.

    ``snapshot_inputs``: also writes the decisions and reviews as they are in the database. ``neg_per_pos``: negatives
    drawn for each like of the training part, among the videos that the user is not known to know in that part: leaving
    out the held-out likes would reveal them. Raises UserError if there is nothing to learn from, or the files cannot be
    written.
    """
    from two_tower.trainer.splits import split

    options = options or DatasetOptions()
    progress("reading", 0.0)
    with connection.transaction():
        connection.execute(SNAPSHOT)
        data = read(connection, options)
        items = _items(connection, data.item_ids).with_columns(_vectors(data))
        inputs = {name: _snapshot(connection, query) for name, query in _INPUTS.items() if snapshot_inputs}
        stars, joined = _stars(connection), _joined(connection)
    held = split(data, ratio=val_ratio, min_likes=min_likes, seed=seed)
    known_times = np.where(data.time > 0, data.time, np.nan)
    labels = pl.Series(data.label)
    interactions = pl.DataFrame(
        {
            "user_id": data.user_ids[data.user],
            "video_id": data.item_ids[data.item],
            "label": labels,
            "decision": labels.replace_strict(NAMES, return_dtype=pl.String),
            "created_at": pl.Series(known_times * 1e6).fill_nan(None).cast(pl.Int64).cast(pl.Datetime("us", "UTC")),
            "weight": pl.Series(data.weight),
        }
    )
    interactions = interactions.join(
        items.select("video_id", "product_url"), on="video_id", how="left", maintain_order="left"
    )
    train, val = interactions.filter(pl.Series(~held)), interactions.filter(pl.Series(held))
    progress("counting", 0.4)
    users = user_features(train, items, data.user_ids)
    frames = {
        "interactions_train.parquet": train,
        "interactions_val.parquet": val,
        "user_features.parquet": users,
        "item_features.parquet": items,
    }
    if neg_per_pos:
        frames["negatives_train.parquet"] = _negatives(data, ~held, neg_per_pos, seed)
    frames |= {f"inputs/{name}.parquet": frame for name, frame in inputs.items()}
    made = datetime.now(UTC)
    name = name_by_time(directory, made) if run is None else run
    with run_directory(directory, name) as draft:
        for at, (file, frame) in enumerate(frames.items()):
            progress(f"writing {file}", 0.5 + 0.5 * at / len(frames))
            (draft / file).parent.mkdir(exist_ok=True)
            with writing(draft / file):
                frame.write_parquet(draft / file)
        summary = {
            "run": name,
            "created_at": made.isoformat(timespec="seconds"),
            "options": asdict(options)
            | {"val_ratio": val_ratio, "min_likes": min_likes, "neg_per_pos": neg_per_pos, "seed": seed},
            "users": data.n_users,
            "videos": data.n_items,
            "videos_with_interactions": len(np.unique(data.item)),
            "users_in_val": val["user_id"].n_unique(),
            "interactions": {"train": _by_decision(train), "val": _by_decision(val)},
            "stars": stars,
            "joined": joined,
            "cids": _cids(items),
            "files": {file: _described(draft / file, frame) for file, frame in frames.items()},
        }
        (draft / "summary.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return {"directory": str(directory / "runs" / name)} | summary


def user_features(train: pl.DataFrame, items: pl.DataFrame, user_ids: np.ndarray) -> pl.DataFrame:
    """One row per user, counted from ``train``; named as in the payload of ``get_user_embedding_features``.

    Counts by key are lists of ``{key, count}``. Times are relative to the user's latest known decision.
    """
    newest = pl.col("created_at").max().over("user_id")
    recent = pl.col("created_at") > newest - pl.duration(days=30)
    liked, noped = pl.col("label") == LIKE, pl.col("label") == NOPE
    ordered = train.with_columns(recent.alias("recent")).sort(
        "user_id", "created_at", "video_id", descending=[False, True, False], nulls_last=True
    )
    basic = ordered.group_by("user_id").agg(
        liked.sum().alias("like_count"),
        noped.sum().alias("nope_count"),
        (pl.col("label") == SKIP).sum().alias("skip_count"),
        pl.col("video_id").filter(liked).alias("liked_video_ids"),
        pl.col("video_id").filter(noped).alias("noped_video_ids"),
        (liked & pl.col("recent")).sum().alias("like_count_30d"),
        ((liked | noped) & pl.col("recent")).sum().alias("decisions_30d"),
    )
    ratio = pl.col("like_count") / (pl.col("like_count") + pl.col("nope_count"))
    users = pl.DataFrame({"user_id": user_ids}).join(basic, on="user_id", how="left", maintain_order="left")
    users = users.with_columns(
        ratio.fill_nan(None).alias("like_ratio"),
        (pl.col("like_count_30d") / pl.col("decisions_30d")).fill_nan(None).alias("positive_ratio_30d"),
    ).drop("decisions_30d")
    likes = ordered.filter(liked).select("user_id", "video_id").join(items, on="video_id", maintain_order="left")
    prices = (
        likes.filter(pl.col("price") > 0)
        .group_by("user_id")
        .agg(pl.col("price").mean().alias("price_mean"), pl.col("price").median().alias("price_median"))
    )
    users = users.join(prices, on="user_id", how="left", maintain_order="left")
    for name, column in _COUNTED.items():
        entries = likes.select("user_id", pl.col(column).alias("key"))
        if entries.schema["key"] == pl.List:
            entries = entries.explode("key")
        counted = (
            entries.filter(pl.col("key").is_not_null() & (pl.col("key") != ""))
            .group_by("user_id", "key")
            .agg(pl.len().cast(pl.Int32).alias("count"))
            .sort(["user_id", "count", "key"], descending=[False, True, False])
            .group_by("user_id", maintain_order=True)
            .agg(pl.struct("key", "count").alias(name))
        )
        users = users.join(counted, on="user_id", how="left", maintain_order="left")
    counts = pl.col("like_count", "nope_count", "skip_count", "like_count_30d").fill_null(0).cast(pl.Int32)
    return users.with_columns(counts, pl.col("liked_video_ids", "noped_video_ids", *_COUNTED).fill_null([]))


def _items(connection: psycopg.Connection[Any], item_ids: np.ndarray) -> pl.DataFrame:
    """The item tower's input for every video, with names and address, in the order of ``item_ids``."""
    data = io.BytesIO()
    with connection.cursor().copy(_ITEMS) as copy:
        for block in copy:
            data.write(block)
    raw = pl.read_csv(data.getvalue(), infer_schema=False)
    typed = raw.with_columns(
        *(pl.col(name).str.json_decode(pl.List(pl.String)) for name in _LISTS),
        *(pl.col(name).cast(kind) for name, kind in _NUMBERS.items()),
        pl.col("released_at").str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us").dt.replace_time_zone("UTC"),
    )
    return pl.DataFrame({"video_id": item_ids}).join(typed, on="video_id", how="left", maintain_order="left")


def _vectors(data: TrainingData) -> list[pl.Series]:
    """A column for each encoder, of lists of numbers; null for a video without a vector."""
    counts = data.item_counts[:, data.schema.segment("item", VECTORS).slice].tocsc()
    of = np.array([key.rpartition(":")[0] for key in data.schema.vocabularies[VECTOR]], dtype=str)
    found = []
    for encoder in np.unique(of):
        matrix = counts[:, np.flatnonzero(of == encoder)].toarray()
        column = pl.Series(f"{OF_ENCODER}{encoder}", matrix).cast(pl.List(pl.Float32))
        found.append(column.set(pl.Series(~matrix.any(axis=1)), None))
    return found


def _negatives(data: TrainingData, train: np.ndarray, each: int, seed: int) -> pl.DataFrame:
    """``user_id``, ``video_id``, ``label`` 0: for each like, ``each`` videos that anybody knows, without those that the
    user is known to know; each pair once.
    """
    rng = np.random.default_rng(seed)
    known = np.unique(data.item[train])
    liking = np.repeat(data.user[train & (data.label == LIKE)], each)
    drawn = known[rng.integers(0, max(len(known), 1), len(liking))] if len(known) else np.zeros(0, dtype=np.int32)
    pair = liking[: len(drawn)].astype(np.int64) * data.n_items + drawn
    pair = np.unique(pair)
    pair = pair[~np.isin(pair, data.user[train].astype(np.int64) * data.n_items + data.item[train])]
    return pl.DataFrame(
        {
            "user_id": data.user_ids[pair // data.n_items],
            "video_id": data.item_ids[pair % data.n_items],
            "label": np.zeros(len(pair), dtype=np.int8),
        }
    )


_INPUTS: dict[str, LiteralString] = {
    "decisions": """select user_id::text, video_id::text, decision_type::text, two_tower.time_of(created_at)
        from public.user_video_decisions
        where user_id not in (select c.user_id from two_tower.user_choices c where not c.trained_on)""",
    "reviews": """select reviewer_id::text, video_id::text, stars::text, two_tower.time_of(created_at)
        from two_tower.reviews
        where reviewer_id not in (select c.user_id from two_tower.user_choices c where not c.trained_on)""",
}
"""The rows from which labels are computed, as they are in the database."""


def _snapshot(connection: psycopg.Connection[Any], query: LiteralString) -> pl.DataFrame:
    what = "stars" if "stars" in query else "decision_type"
    rows = connection.execute(query + " order by 1, 2").fetchall()
    columns: dict[str, Any] = {
        "user_id": pl.String,
        "video_id": pl.String,
        what: pl.String,
        "created_at": pl.Datetime("us", "UTC"),
    }
    return pl.DataFrame(rows, schema=columns, orient="row")


def _joined(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """How many decisions and reviews refer to an existing video."""
    found: dict[str, Any] = {}
    for name, table in (("decisions", "public.user_video_decisions"), ("reviews", "two_tower.reviews")):
        rows, joined = connection.execute(
            sql.SQL("select count(*), count(v.id) from {} d left join public.videos v on v.id = d.video_id").format(
                sql.SQL(table)
            )
        ).fetchone() or (0, 0)
        found[name] = {"rows": rows, "with_video": joined, "rate": joined / rows if rows else None}
    return found


def _cids(items: pl.DataFrame) -> dict[str, int]:
    """Numbers of videos whose address has a content id of DMM, as in ``/cid=abc00123/``, and of those without."""
    having = int(items["product_url"].str.contains(r"[/?&]cid=[^/&]+").fill_null(value=False).sum())
    return {"with_cid": having, "without_cid": len(items) - having}


def _by_decision(interactions: pl.DataFrame) -> dict[str, int]:
    counts = dict(interactions["decision"].value_counts().iter_rows())
    return {name: counts.get(name, 0) for name in NAMES.values()}


def _stars(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """Reviews by stars, to the nearest half."""
    rows = connection.execute("select round(stars * 2) / 2, count(*) from two_tower.reviews group by 1 order by 1")
    return {f"{stars:g}": count for stars, count in rows}


def _described(path: Path, frame: pl.DataFrame) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"rows": len(frame), "bytes": path.stat().st_size, "sha256": digest}
