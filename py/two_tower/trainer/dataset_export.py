"""``two-tower dataset export DIR``: what the trainer reads, as Parquet, for those who train elsewhere.

``DIR/runs/<time>/`` holds one export; ``DIR/latest`` leads to the newest, and changes only when an export is complete.
Interactions are split as the trainer splits them. What a user's features count is the training part alone, so that no
held-out label is in them.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psycopg

from two_tower.errors import UserError
from two_tower.features import LIKE, NOPE, SKIP
from two_tower.progress import Progress
from two_tower.trainer.dataset import DatasetOptions, read
from two_tower.writing import writing

NAMES = {LIKE: "like", NOPE: "nope", SKIP: "skip"}

_ITEMS = """
copy (
    select c.video_id, v.product_url, v.title, nullif(two_tower.text_of(v.maker) collate "C", '') as maker,
        nullif(two_tower.text_of(v.label) collate "C", '') as label,
        nullif(two_tower.text_of(v.series) collate "C", '') as series,
        nullif(two_tower.text_of(v.source) collate "C", '') as source, c.price, c.duration_seconds,
        to_char(two_tower.time_of(v.product_released_at) at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') as released_at,
        to_json(a.tags) as tags,
        (select coalesce(json_agg(t.name order by u.at), '[]')
            from unnest(a.tags) with ordinality u (id, at) join public.tags t on t.id = u.id) as tag_names,
        to_json(a.performers) as performers,
        (select coalesce(json_agg(p.name order by u.at), '[]')
            from unnest(a.performers) with ordinality u (id, at) join public.performers p on p.id = u.id)
            as performer_names
    from two_tower.video_numbers(array(select id from public.videos)) c
    join public.videos v on v.id = c.video_id
    cross join lateral (
        select array(select t.tag_id from public.video_tags t where t.video_id = v.id order by t.tag_id) as tags,
            array(select p.performer_id from public.video_performers p where p.video_id = v.id order by p.performer_id)
                as performers
    ) as a
) to stdout (format csv, header)
"""
_LISTS = ("tags", "tag_names", "performers", "performer_names")
_NUMBERS = {"price": pl.Float64, "duration_seconds": pl.Int32}
_COUNTED = {
    "liked_tags": "tags",
    "liked_performers": "performers",
    "liked_makers": "maker",
    "liked_labels": "label",
    "liked_series": "series",
    "liked_sources": "source",
}
"""Column of a user's features → that of an item's; named as in the payload of ``get_user_embedding_features``."""


def export(
    connection: psycopg.Connection[Any],
    directory: Path,
    options: DatasetOptions | None = None,
    *,
    val_ratio: float = 0.2,
    min_likes: int = 5,
    seed: int = 0,
    progress: Progress = lambda _what, _share: None,
) -> dict[str, Any]:
    """Writes one run and makes it the latest; its summary. Raises UserError where there is nothing to learn from."""
    from two_tower.trainer.splits import split

    options = options or DatasetOptions()
    progress("reading", 0.0)
    data = read(connection, options)
    held = split(data, ratio=val_ratio, min_likes=min_likes, seed=seed)
    items = _items(connection, data.item_ids)
    known_times = np.where(data.time > 0, data.time, np.nan)
    labels = pl.Series(data.label)
    interactions = pl.DataFrame(
        {
            "user_id": data.user_ids[data.user],
            "video_id": data.item_ids[data.item],
            "label": labels,
            "decision": labels.replace_strict(NAMES, return_dtype=pl.String),
            "created_at": pl.Series(known_times * 1e6).fill_nan(None).cast(pl.Int64).cast(pl.Datetime("us", "UTC")),
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
    made = datetime.now(UTC)
    runs = directory / "runs"
    draft = runs / f".{made:%Y%m%dT%H%M%S%f}Z.partial"
    try:
        with writing(directory):
            draft.mkdir(parents=True)
            for at, (name, frame) in enumerate(frames.items()):
                progress(f"writing {name}", 0.5 + at / 8)
                frame.write_parquet(draft / name)
            summary = {
                "created_at": made.isoformat(timespec="seconds"),
                "options": asdict(options) | {"val_ratio": val_ratio, "min_likes": min_likes, "seed": seed},
                "users": data.n_users,
                "videos": data.n_items,
                "videos_with_interactions": len(np.unique(data.item)),
                "users_in_val": val["user_id"].n_unique(),
                "interactions": {"train": _by_decision(train), "val": _by_decision(val)},
                "stars": _stars(connection),
                "files": {name: _described(draft / name, frame) for name, frame in frames.items()},
            }
            (draft / "summary.json").write_text(
                json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
            run = _name(runs, made)
            draft.rename(run)
            _point(directory / "latest", run)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return {"directory": str(run)} | summary


def user_features(train: pl.DataFrame, items: pl.DataFrame, user_ids: np.ndarray) -> pl.DataFrame:
    """One row per user, counted from ``train``; named as in the payload of ``get_user_embedding_features``.

    Counts by key are lists of ``{key, count}``. What is relative in time is so to the user's latest known decision.
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
    """What the item tower reads of every video, with names and address, in the order of ``item_ids``."""
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
    # Of a video that came or went since the interactions were read, there is the id alone, or nothing.
    return pl.DataFrame({"video_id": item_ids}).join(typed, on="video_id", how="left", maintain_order="left")


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


def _name(runs: Path, made: datetime) -> Path:
    """A run's directory, named by the time; with a number where two end in one second."""
    stem = f"{made:%Y%m%dT%H%M%SZ}"
    return next(path for n in range(1000) if not (path := runs / (f"{stem}.{n}" if n else stem)).exists())


def _point(latest: Path, run: Path) -> None:
    """Makes ``latest`` a link to ``run``, in one step: a reader finds the old run or the new one."""
    if latest.exists() and not latest.is_symlink():
        raise UserError(f"{latest} is not a link, and is left as it is", "move it away; the new run is in " + str(run))
    draft = latest.with_name(f".{latest.name}.{run.name}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(run.relative_to(latest.parent))
    draft.replace(latest)
