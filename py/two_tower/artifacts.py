"""The files of a model version, as a browser, another database or a notebook reads them."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any, LiteralString

import numpy as np
import polars as pl
import psycopg

from two_tower.errors import UserError
from two_tower.features import DIM

# A row of (uuid, halfvec) in a binary COPY: field count, then length and bytes of each field.
_ROW = np.dtype(
    [
        ("fields", ">i2"),
        ("l1", ">i4"),
        ("id", "V16"),
        ("l2", ">i4"),
        ("dim", ">i2"),
        ("unused", ">i2"),
        ("embedding", ">f2", DIM),
    ]
)
_HEADER = 19  # signature, flags, length of an extension


def vectors(connection: psycopg.Connection[Any], statement: LiteralString, version: str) -> pl.DataFrame:
    """``id`` (text), ``embedding`` (128 float32) of a query of (uuid, halfvec) whose one parameter is the version."""
    query = psycopg.sql.SQL(statement).format(psycopg.sql.Literal(version))
    packed = b"".join(_copy(connection, psycopg.sql.SQL("copy ({}) to stdout (format binary)").format(query)))
    rows = np.frombuffer(packed, _ROW, (len(packed) - _HEADER - 2) // _ROW.itemsize, _HEADER)
    hexes = [row.tobytes().hex() for row in rows["id"]]
    ids = [f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}" for h in hexes]
    embedding = rows["embedding"].astype(np.float32)
    return pl.DataFrame(
        {"id": ids, "embedding": embedding}, schema={"id": pl.String, "embedding": pl.Array(pl.Float32, DIM)}
    )


def _copy(connection: psycopg.Connection[Any], query: psycopg.sql.Composed) -> list[bytes]:
    with connection.cursor().copy(query) as copy:
        return [bytes(block) for block in copy]


def export(connection: psycopg.Connection[Any], version: str, directory: Path) -> list[Path]:
    """Write every file of ``version`` into ``directory``, ``manifest.json`` last; their paths.

    All come from one snapshot. A directory whose manifest is there is complete.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "manifest.json").unlink(missing_ok=True)
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        written = [_write(directory / name, content) for name, content in _files(connection, version)]
    entries = [
        {"path": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
        for path in written
    ]
    manifest = {"version": version, "files": entries}
    return [*written, _write(directory / "manifest.json", _json(manifest))]


def _files(connection: psycopg.Connection[Any], version: str) -> list[tuple[str, bytes]]:
    row = connection.execute(
        "select feature_schema, normalizer, metrics, meta from two_tower.model_documents where model_version = %s",
        (version,),
    ).fetchone()
    if row is None:
        raise UserError(f"there is no model version {version}", "list them with `two-tower model list`")
    files = connection.execute("select name, content from two_tower.model_files where model_version = %s", (version,))
    found = [(name, bytes(content)) for name, content in files]
    names = ("feature_schema.json", "normalizer.json", "metrics.json", "model_meta.json")
    found += [(name, _json(document)) for name, document in zip(names, row, strict=True)]
    keys = connection.execute(
        """select s.vocabulary, coalesce(jsonb_agg(v.key order by v.index) filter (where v.key is not null), '[]')
        from (
            select distinct vocabulary from two_tower.model_segments
            where model_version = %(v)s and vocabulary is not null
        ) s
        left join two_tower.vocabularies v on v.model_version = %(v)s and v.vocabulary = s.vocabulary
        group by s.vocabulary""",
        {"v": version},
    )
    # A JSON object from key to index, which is what a client looks up.
    found += [(f"vocab_{name}.json", _json({key: at for at, key in enumerate(listed)})) for name, listed in keys]
    users = vectors(
        connection,
        "select user_id, embedding from two_tower.user_embeddings where model_version = {} order by user_id",
        version,
    )
    videos = vectors(
        connection,
        "select video_id, embedding from two_tower.video_embeddings where model_version = {} order by video_id",
        version,
    )
    urls = connection.execute("select id::text, product_url from public.videos").fetchall()
    known = pl.DataFrame(urls, schema={"id": pl.String, "product_url": pl.String}, orient="row")
    videos = videos.join(known, on="id", how="left").select(pl.col("id").alias("video_id"), "product_url", "embedding")
    found.append(("user_embeddings.parquet", _parquet(users.rename({"id": "user_id"}))))
    found.append(("video_embeddings.parquet", _parquet(videos)))
    return found


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
