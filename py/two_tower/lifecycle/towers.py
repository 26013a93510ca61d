"""A registered version as PyTorch modules, and its files, regenerated if the database has only its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psycopg
import torch
from scipy import sparse

from two_tower.errors import UserError
from two_tower.features import VOCABULARIES, FeatureSchema
from two_tower.lifecycle import registry, tower_rows
from two_tower.neighbours import from_tensors
from two_tower.trainer.export import export_towers
from two_tower.trainer.model import ItemTower, UserTower

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Towers:
    """Both towers, the layout of their inputs, and the neighbours."""

    schema: FeatureSchema
    user: UserTower
    item: ItemTower
    neighbours: sparse.csr_matrix | None = None
    """[videos, videos] over the vocabulary: what a like of the row's video adds to the score of the column's."""


def load(connection: Connection, version: str) -> Towers:
    """The towers of ``version``, from its safetensors file, or from its rows if the file was too large to store."""
    keys: dict[str, tuple[str, ...]] = dict.fromkeys(VOCABULARIES, ())
    found = connection.execute(
        """select vocabulary, array_agg(key order by index)
        from two_tower.vocabularies where model_version = %s group by vocabulary""",
        (version,),
    )
    keys |= {name: tuple(listed) for name, listed in found}
    recency = connection.execute("select two_tower.recency_of(%s)", (version,)).fetchone()
    schema = FeatureSchema(keys, recency[0] if recency else 0.0)
    row = connection.execute(
        "select content from two_tower.model_files where model_version = %s and name = 'weights.safetensors'",
        (version,),
    ).fetchone()
    if row is not None:
        tensors = tower_rows.tensors_of(bytes(row[0]))
        neighbours = from_tensors(tensors, len(keys["video"]))
    else:
        rows = list(tower_rows.read(connection, version))
        if not rows and is_given(connection, version):
            raise UserError(
                f"model {version} has vectors that were given, and no towers", "choose one that was trained: model list"
            )
        if not rows:
            raise UserError(
                f"model {version} has no weights in this database",
                "a version whose weights are only rows loses them when it is retired; export it before that",
            )
        tensors = tower_rows.to_tensors(rows, schema.user_dim, schema.item_dim)
        neighbours = tower_rows.read_neighbours(connection, version, keys["video"])
    try:
        return Towers(
            schema,
            UserTower.load(schema, _part(tensors, "user.")),
            ItemTower.load(schema, _part(tensors, "item.")),
            neighbours,
        )
    except (KeyError, RuntimeError) as error:
        raise UserError(f"the weights of model {version} are not those of two_tower.model: {error}") from error


def is_given(connection: Connection, version: str) -> bool:
    """Whether a version's vectors were computed elsewhere."""
    found = connection.execute(
        "select user_engine = 'given' from two_tower.model_versions where version = %s", (version,)
    ).fetchone()
    return bool(found and found[0])


def _part(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): torch.from_numpy(np.array(value))
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def smaller(towers: Towers, videos: int) -> Towers:
    """The same towers with inputs for at most the first ``videos`` videos of the vocabulary, the most liked.

    The others are represented by their content, as new ones are. Without neighbours, which a browser does not use.
    """
    old = towers.schema
    schema = replace(old, vocabularies={**old.vocabularies, "video": old.vocabularies["video"][:videos]})
    kept = torch.cat([torch.arange(s.offset, s.offset + schema.segment("user", s.name).size) for s in old.user])
    user = {"weight": towers.user.weight.detach()[kept], "bias": towers.user.bias.detach()}
    item = dict(towers.item.state_dict())
    item["own"] = item["own"][:videos]
    return Towers(schema, UserTower.load(schema, user), ItemTower.load(schema, item))


def files(towers: Towers, parity: dict[str, Any] | None) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The three files by name, and the parity sample of their outputs.

    ``parity`` is the sample recorded with these towers, of which only the hashes change; None takes a new one. Raises
    UserError if a tower is larger than an ONNX file can be.
    """
    user, item, weights = export_towers(towers.user, towers.item, towers.neighbours)
    if user is None or item is None:
        videos = len(towers.schema.vocabularies["video"])
        raise UserError(
            f"a tower of {videos:,} videos is larger than an ONNX file can be (2 GB)",
            "write one with fewer: two-tower model export DIRECTORY --max-video-features 100000",
        )
    sample = parity or registry.parity_sample(towers.schema, (towers.user, user), (towers.item, item))
    for name, graph in (("user", user), ("item", item)):
        sample = sample | {name: sample[name] | {"sha256": hashlib.sha256(graph).hexdigest()}}
    return {"user_tower.onnx": user, "item_tower.onnx": item, "weights.safetensors": weights}, sample
