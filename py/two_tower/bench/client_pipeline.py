"""User embeddings computed outside the database, page by page, as scripts do it: the baseline for a refresh."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np

from two_tower.bench.common import VERSION, Connection
from two_tower.rows import one


class ClientPipeline:
    """User embeddings computed outside the database, as scripts do it."""

    FETCH = "select user_id, features from public.get_user_embedding_feature_batch(%s, %s, %s)"
    STORE = """
        insert into public.bench_client_embeddings (user_id, embedding, model_version)
        values (%s, %s::extensions.halfvec, %s)
        on conflict (user_id) do update
        set embedding = excluded.embedding, model_version = excluded.model_version, updated_at = now()
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        connection.execute(
            """create table public.bench_client_embeddings (
                user_id uuid primary key, embedding extensions.halfvec(128) not null, model_version text not null,
                updated_at timestamptz not null default now())"""
        )
        self.schema: dict[str, Any] = one(
            connection,
            "select feature_schema -> 'user' from two_tower.model_documents where model_version = %s",
            (VERSION,),
        )
        vocabularies: dict[str, dict[str, int]] = {}
        query = "select vocabulary, key, index from two_tower.vocabularies where model_version = %s"
        for name, key, index in connection.execute(query, (VERSION,)):
            vocabularies.setdefault(name, {})[key] = index
        self.segments = [
            (s["name"], s["offset"], vocabularies[s["vocabulary"]]) for s in self.schema["segments"] if s["vocabulary"]
        ]
        self.session = runtime_session(connection)

    def run(self, size: int, pages: Sequence[tuple[int, UUID | None]]) -> float:
        """Fetches, encodes, infers and stores pages of ``size`` users, each (offset, last id before); seconds taken."""
        started = time.perf_counter()
        for offset, after in pages:
            rows = self.connection.execute(self.FETCH, (size, offset, after)).fetchall()
            inputs = self.encode([features for _, features in rows])
            vectors = np.concatenate(
                [
                    self.session.run(None, {"user_features": inputs[at : at + 256]})[0]
                    for at in range(0, len(inputs), 256)
                ]
            )
            values = [(user, str(v.tolist()), VERSION) for (user, _), v in zip(rows, vectors, strict=True)]
            with self.connection.transaction(), self.connection.cursor() as cursor:
                cursor.executemany(self.STORE, values)
        return time.perf_counter() - started

    def encode(self, payloads: Sequence[dict[str, Any]]) -> np.ndarray:
        """[n, user_dim] float32"""
        inputs = np.zeros((len(payloads), self.schema["dim"]), dtype=np.float32)
        for row, payload in zip(inputs, payloads, strict=True):
            for at, name in enumerate(self.schema["numeric"]):
                row[at] = payload[name]
            for name, offset, vocabulary in self.segments:
                values = payload[name]
                for key in values:
                    index = vocabulary.get(key)
                    if index is not None:
                        row[offset + index] = values[key] if isinstance(values, dict) else 1
        return inputs


def runtime_session(connection: Connection) -> Any:
    """The bench model's user tower in this process, with one thread."""
    import onnxruntime

    tower = one(
        connection,
        "select content from two_tower.model_files where model_version = %s and name = 'user_tower.onnx'",
        (VERSION,),
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(tower, options, providers=["CPUExecutionProvider"])
