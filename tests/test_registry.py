"""Models from candidate to retired, refused steps, and the agreement of all engines (I5)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import onnx
import onnxruntime
import psycopg
import pytest
from onnx import TensorProto, helper, numpy_helper
from psycopg import errors

from conftest import Connect, Connection, NewDatabase, borrowed
from two_tower.errors import UserError
from two_tower.features import DIM, LIKE, NOPE, user_counts
from two_tower.lifecycle import registry
from two_tower.server.embedded import Server
from two_tower.trainer import dataset
from world_fixtures import (
    NOBODY,
    Client,
    TinyModel,
    column,
    load,
    make_world,
    one,
    random_model,
    refresh,
    register,
    schema_of,
    tiny_model,
)

pytestmark = pytest.mark.world

WORLD = make_world()
UNCHANGED: dict[str, str] = {"v1": "active"}


@pytest.fixture
def candidate(db: Connection) -> TinyModel:
    """A valid model that is not registered yet."""
    return random_model(schema_of(db), seed=2)


def states(db: Connection) -> dict[str, str]:
    return dict(db.execute("select version, state from two_tower.models").fetchall())


def backfill(db: Connection, version: str) -> None:
    db.execute("call two_tower.backfill_model(%s)", (version,))


def activate(db: Connection, version: str, force: bool = False) -> dict[str, Any]:
    return dict(one(db, "select two_tower.activate_model(%s, %s)", version, force))


# -------------------------------------------------------------------------------------------- all steps


def test_a_model_passes_through_all_states(db: Connection, candidate: TinyModel) -> None:
    assert register(db, candidate, "v2") == "v2"
    assert states(db) == {"v1": "active", "v2": "candidate"}
    metrics = one(db, "select metrics from two_tower.models where version = 'v2'")
    assert metrics == candidate.metrics

    backfill(db, "v2")
    assert states(db) == {"v1": "active", "v2": "staged"}
    assert one(db, "select backfilled_at is not null from two_tower.models where version = 'v2'")
    counts = "select count(*) from two_tower.{}_embeddings where model_version = 'v2'"
    assert one(db, counts.format("video")) == len(WORLD.videos)
    assert one(db, counts.format("user")) == one(db, counts.format("user").replace("v2", "v1")) == 47

    answer = activate(db, "v2")
    assert (answer["model_version"], answer["previous"], answer["changed"]) == ("v2", "v1", True)
    assert states(db) == {"v1": "standby", "v2": "active"}
    assert activate(db, "v2")["changed"] is False

    assert one(db, "select two_tower.rollback_model() ->> 'model_version'") == "v1"
    assert states(db) == {"v1": "active", "v2": "standby"}
    assert one(db, "select two_tower.rollback_model('v2') ->> 'previous'") == "v1"

    db.execute("select two_tower.retire_model('v1')")
    assert states(db) == {"v1": "retired", "v2": "active"}
    assert one(db, "select count(*) from two_tower.video_embeddings where model_version = 'v1'") == 0
    assert one(db, "select count(*) from public.video_embeddings") == len(WORLD.videos)
    # The record and the files stay, so that one can later see which model served.
    assert one(db, "select count(*) from two_tower.model_files where model_version = 'v1'") == 3
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="no version to go back to"):
        db.execute("select two_tower.rollback_model()")


@pytest.mark.world(models=2)
def test_rollback_goes_to_the_version_that_served_last(db: Connection) -> None:
    tiny_model(db, "v3", seed=3)
    assert one(db, "select two_tower.rollback_model() ->> 'model_version'") == "v2"
    assert states(db) == {"v1": "standby", "v2": "active", "v3": "standby"}
    assert one(db, "select two_tower.rollback_model('v1') ->> 'model_version'") == "v1"


@pytest.mark.world(models=2)
def test_i5_views_and_lists_show_only_the_active_version(db: Connection, client: Client) -> None:
    for version in ("v2", "v1"):
        if version == "v1":
            db.execute("select two_tower.rollback_model()")
        for view in ("user_embeddings", "video_embeddings"):
            assert column(db, f"select distinct model_version from public.{view}") == [version]
        rows = client.rpc("authenticated", WORLD.usual, "recommend_videos")
        assert {row["model_version"] for row in rows} == {version}
        for row in rows:
            score = one(
                db,
                """select 1 - (u.embedding operator(extensions.<=>) v.embedding)
                from two_tower.user_embeddings u join two_tower.video_embeddings v using (model_version)
                where u.user_id = %s and v.video_id = %s and model_version = %s""",
                WORLD.usual,
                row["video_id"],
                version,
            )
            assert row["score"] == pytest.approx(score, abs=1e-6)


@pytest.mark.world(models=2)
def test_a_transaction_reads_one_version_despite_activations(db: Connection, connect: Connect) -> None:
    reader = connect(autocommit=False)
    reader.execute("set transaction isolation level repeatable read")
    assert one(reader, "select two_tower.active_version()") == "v2"
    db.execute("select two_tower.rollback_model()")
    assert one(reader, "select two_tower.active_version()") == "v2"
    assert column(reader, "select distinct model_version from public.video_embeddings") == ["v2"]


# -------------------------------------------------------------------------------------------- refusals


def tower(
    name: str,
    width: int,
    *,
    dim: int = DIM,
    source: str = "",
    output: str = "",
    batch: Any = "batch",
    kind: int = TensorProto.FLOAT,
) -> bytes:
    """A graph that multiplies by zeros, valid except for the arguments of a test."""
    source, output = source or f"{name}_features", output or f"{name}_embedding"
    dtype = np.float32 if kind == TensorProto.FLOAT else np.float64
    graph = helper.make_graph(
        [helper.make_node("MatMul", [source, "w"], [output])],
        "test",
        [helper.make_tensor_value_info(source, kind, [batch, width])],
        [helper.make_tensor_value_info(output, kind, [batch, dim])],
        [numpy_helper.from_array(np.zeros((width, dim), dtype), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def flipped(content: bytes, at: bytes) -> bytes:
    """Flips one bit of the first occurrence of ``at``."""
    position = content.index(at)
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def shorter(model: TinyModel, name: str) -> dict[str, list[str]]:
    return model.vocabularies | {name: model.vocabularies[name][:-1]}


def without(document: dict[str, Any], *path: str) -> dict[str, Any]:
    copy = json.loads(json.dumps(document))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return dict(copy)


def with_recency(model: TinyModel, recency: object) -> TinyModel:
    user = model.feature_schema["user"] | {"recency": recency}
    return replace(model, feature_schema=model.feature_schema | {"user": user})


NO_EXPONENTS: tuple[object, ...] = (-0.1, 10.5, 1e300, "0.5", None, True, [], {})

SPOILT: dict[str, tuple[Callable[[TinyModel], TinyModel], str]] = {
    "user tower is cut in half": (
        lambda m: replace(m, user_graph=m.user_graph[: len(m.user_graph) // 2]),
        "user tower is not",
    ),
    "item tower lacks its last byte": (lambda m: replace(m, item_graph=m.item_graph[:-1]), "item tower"),
    "user tower is empty": (lambda m: replace(m, user_graph=b""), "user tower"),
    "user tower is no ONNX": (lambda m: replace(m, user_graph=b"import os; os.abort()"), "user tower is not"),
    "user tower has a bit flipped in an operator": (
        lambda m: replace(m, user_graph=flipped(m.user_graph, b"MatMul")),
        "user tower uses the operator '.atMul'",
    ),
    "user tower has a bit flipped in its input": (
        lambda m: replace(m, user_graph=flipped(m.user_graph, b"user_features")),
        "user",
    ),
    "user tower gives 64 dimensions": (
        lambda m: replace(m, user_graph=tower("user", m.schema.user_dim, dim=64)),
        r"user_embedding must be float32 \[batch, 128\]",
    ),
    "item tower gives 256 dimensions": (
        lambda m: replace(m, item_graph=tower("item", m.schema.item_dim, dim=256)),
        r"item_embedding must be float32 \[batch, 128\]",
    ),
    "user tower is one input too wide": (
        lambda m: replace(m, user_graph=tower("user", m.schema.user_dim + 1)),
        r"user_features must be float32 \[batch, ",
    ),
    "item tower is one input too narrow": (
        lambda m: replace(m, item_graph=tower("item", m.schema.item_dim - 1)),
        r"item_features must be float32 \[batch, ",
    ),
    "towers are swapped": (
        lambda m: replace(m, user_graph=m.item_graph, item_graph=m.user_graph),
        "must have one input called user_features",
    ),
    "input has another name": (
        lambda m: replace(m, user_graph=tower("user", m.schema.user_dim, source="x")),
        "must have one input called user_features",
    ),
    "output has another name": (
        lambda m: replace(m, item_graph=tower("item", m.schema.item_dim, output="y")),
        "must have one output called item_embedding",
    ),
    "batch is fixed": (
        lambda m: replace(m, user_graph=tower("user", m.schema.user_dim, batch=1)),
        "dynamic batch",
    ),
    "tower is of double precision": (
        lambda m: replace(m, user_graph=tower("user", m.schema.user_dim, kind=TensorProto.DOUBLE)),
        "must be float32",
    ),
    "vocabulary is one entry short": (lambda m: replace(m, vocabularies=shorter(m, "tag")), "vocabulary tag has"),
    "video vocabulary is one entry short": (
        lambda m: replace(m, vocabularies=shorter(m, "video")),
        "vocabulary video has",
    ),
    "vocabulary is missing": (
        lambda m: replace(m, vocabularies=without(m.vocabularies, "maker")),
        "vocabulary maker has no",
    ),
    "vocabulary holds a key twice": (
        lambda m: replace(m, vocabularies=m.vocabularies | {"tag": ["x"] * len(m.vocabularies["tag"])}),
        "holds an entry twice",
    ),
    "no metrics": (lambda m: replace(m, metrics={}), "without metrics"),
    "null for metrics": (lambda m: replace(m, metrics=None), "without metrics"),
    "feature schema of another release": (
        lambda m: replace(m, feature_schema=m.feature_schema | {"schema_version": 3}),
        "schema version 3",
    ),
    **{
        f"recency is {recency}": (partial(with_recency, recency=recency), "user.recency")
        for recency in NO_EXPONENTS
    },
    "recency in version 1": (
        lambda m: replace(m, feature_schema=m.feature_schema | {"schema_version": 1}),
        "user.recency",
    ),
    "version 2 without recency": (
        lambda m: replace(m, feature_schema=without(m.feature_schema, "user", "recency")),
        "user.recency",
    ),
    "feature schema without a version": (
        lambda m: replace(m, feature_schema=without(m.feature_schema, "schema_version")),
        "schema version null",
    ),
    "feature schema without dimensions": (
        lambda m: replace(m, feature_schema=without(m.feature_schema, "user", "dim")),
        "does not say user.dim",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def lasting(cluster: Server, world_template: str) -> Iterator[Connection]:
    """The world, for tests that undo their changes."""
    with borrowed(cluster, world_template) as db:
        yield db


@pytest.mark.sampled(6)
@pytest.mark.parametrize("fault", SPOILT)
def test_an_invalid_model_is_refused(fault: str, lasting: Connection) -> None:
    spoil, message = SPOILT[fault]
    sound = random_model(schema_of(lasting), seed=2)
    with lasting.transaction(force_rollback=True):
        with pytest.raises(psycopg.Error, match=message) as caught, lasting.transaction():
            register(lasting, spoil(sound), "v2")
        assert caught.value.sqlstate in ("22023", "23505")
        assert states(lasting) == UNCHANGED
        # The backend survives, and the same model without the fault is accepted.
        assert register(lasting, sound, "v2") == "v2"


@pytest.mark.sampled(2)
@pytest.mark.parametrize("version", ["", "a b", "../v2", "v2'; drop table videos; --", "x" * 64, "-v2", "v2\n", "Ü"])
def test_a_version_with_an_invalid_name_is_refused(version: str, db: Connection, candidate: TinyModel) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="is not a name"):
        register(db, candidate, version)
    assert states(db) == UNCHANGED


def spellings(name: str) -> list[str]:
    return [name, name.upper(), name.title(), name[:-1] + name[-1].upper()]


def test_python_and_sql_reserve_the_same_names(db: Connection) -> None:
    assert set(one(db, "select two_tower.reserved_versions()")) == registry.RESERVED_VERSIONS


@pytest.mark.sampled(2)
@pytest.mark.parametrize("version", [s for name in sorted(registry.RESERVED_VERSIONS) for s in spellings(name)])
def test_a_reserved_name_is_refused_as_a_version(version: str, db: Connection, candidate: TinyModel) -> None:
    with pytest.raises(errors.InvalidParameterValue, match=f"no model version can be called {version}"):
        register(db, candidate, version)
    assert states(db) == UNCHANGED
    with pytest.raises(UserError, match=f"no model version can be called {version}"):
        registry.require_version_name(version)
    for near in (f"{version}s", f"{version}.1", f"a{version}"):
        registry.require_version_name(near)
    assert register(db, candidate, f"{version}-1") == f"{version}-1"


def test_registering_the_same_model_again_changes_nothing(db: Connection, candidate: TinyModel) -> None:
    register(db, candidate, "v2")
    at = one(db, "select registered_at from two_tower.models where version = 'v2'")
    assert register(db, candidate, "v2") == "v2"
    assert one(db, "select registered_at from two_tower.models where version = 'v2'") == at
    backfill(db, "v2")
    assert register(db, candidate, "v2") == "v2"
    assert states(db)["v2"] == "staged"


def test_other_content_under_a_taken_version_is_refused(db: Connection, candidate: TinyModel) -> None:
    register(db, candidate, "v2")
    with pytest.raises(errors.UniqueViolation, match="registered already"):
        register(db, random_model(candidate.schema, seed=3), "v2")
    other = random_model(candidate.schema, seed=3)
    assert candidate.metrics
    assert other.metrics
    parity = candidate.metrics["parity"] | {"item": other.metrics["parity"]["item"]}
    mixed = replace(candidate, item_graph=other.item_graph, metrics=candidate.metrics | {"parity": parity})
    with pytest.raises(errors.UniqueViolation, match="registered already"):
        register(db, mixed, "v2")


def test_the_same_towers_with_another_vocabulary_are_another_model(db: Connection, candidate: TinyModel) -> None:
    register(db, candidate, "v2")
    reordered = candidate.vocabularies | {"tag": candidate.vocabularies["tag"][::-1]}
    with pytest.raises(errors.UniqueViolation, match="registered already"):
        register(db, replace(candidate, vocabularies=reordered), "v2")
    assert register(db, replace(candidate, vocabularies=reordered), "v3") == "v3"


@pytest.mark.parametrize(
    "call",
    [
        "call two_tower.backfill_model('v9')",
        "select two_tower.activate_model('v9')",
        "select two_tower.rollback_model('v9')",
        "select two_tower.retire_model('v9')",
        "select * from two_tower.embed_users('{}', 'v9')",
        "select * from two_tower.embed_videos('{}', 'v9')",
    ],
)
def test_an_unknown_version_is_an_error(call: str, db: Connection) -> None:
    with pytest.raises(errors.NoDataFound, match="no model version v9"):
        db.execute(call.encode())


def test_routines_say_that_no_model_is_active(database: NewDatabase) -> None:
    with psycopg.connect(database(), autocommit=True) as db:
        for call in ("select * from two_tower.embed_users('{}')", "select two_tower.retire_model(null)"):
            with pytest.raises(errors.ObjectNotInPrerequisiteState, match="no model is active") as caught:
                db.execute(call.encode())
            assert "two-tower train" in str(caught.value.diag.message_hint)


@pytest.mark.parametrize("force", [False, True])
def test_a_version_without_backfill_is_not_activated(force: bool, db: Connection, candidate: TinyModel) -> None:
    register(db, candidate, "v2")
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="not backfilled") as caught:
        activate(db, "v2", force)
    assert "backfill_model('v2')" in str(caught.value.diag.message_hint)
    assert states(db) == {"v1": "active", "v2": "candidate"}


def test_a_version_that_lacks_vectors_is_activated_only_by_force(db: Connection, candidate: TinyModel) -> None:
    register(db, candidate, "v2")
    backfill(db, "v2")
    db.execute(
        "delete from two_tower.video_embeddings where model_version = 'v2' and video_id = %s", (WORLD.videos[3],)
    )
    db.execute(
        "delete from two_tower.user_embeddings where model_version = 'v2' and user_id = any (%s)",
        ([WORLD.usual, WORLD.many],),
    )
    with pytest.raises(psycopg.Error, match="lacks the vectors of 1 videos and 2 users"):
        activate(db, "v2")
    assert states(db)["v1"] == "active"
    assert activate(db, "v2", force=True)["changed"]
    assert states(db) == {"v1": "standby", "v2": "active"}


def test_a_rejected_or_retired_model_stays_so(db: Connection, candidate: TinyModel) -> None:
    register(db, candidate, "v2")
    db.execute("update two_tower.model_versions set state = 'rejected' where version = 'v2'")
    register(db, candidate, "v3")
    backfill(db, "v3")
    db.execute("select two_tower.retire_model('v3')")
    for version in ("v2", "v3"):
        with pytest.raises(errors.ObjectNotInPrerequisiteState):
            backfill(db, version)
        with pytest.raises(errors.ObjectNotInPrerequisiteState):
            activate(db, version, force=True)
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="cannot be retired"):
            db.execute("select two_tower.retire_model(%s)", (version,))
    assert states(db) == {"v1": "active", "v2": "rejected", "v3": "retired"}


def test_active_and_never_staged_versions_are_not_retired(db: Connection, candidate: TinyModel) -> None:
    register(db, candidate, "v2")
    for version in ("v1", "v2"):
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="cannot be retired"):
            db.execute("select two_tower.retire_model(%s)", (version,))
    assert states(db) == {"v1": "active", "v2": "candidate"}


STATES = ("candidate", "rejected", "staged", "active", "standby", "retired")
LEGAL = {
    ("candidate", "staged"), ("candidate", "rejected"), ("staged", "active"), ("staged", "standby"),
    ("staged", "retired"),
    ("active", "standby"), ("standby", "active"), ("standby", "retired"),
}  # fmt: skip
PATHS: dict[str, list[str]] = {
    "candidate": [], "rejected": ["rejected"], "staged": ["staged"], "standby": ["standby"],
    "retired": ["standby", "retired"], "active": [],
}  # fmt: skip


def test_only_the_transitions_of_the_lifecycle_are_possible(db: Connection, candidate: TinyModel) -> None:
    """Not even a role that can write the table can make others."""
    register(db, candidate, "v2")
    update = "update two_tower.model_versions set state = %s where version = %s"
    for start, end in product(STATES, STATES):
        if start == end or (start, end) in LEGAL:
            continue
        version = "v1" if start in ("active", "standby") or PATHS[start][:1] == ["standby"] else "v2"
        with db.transaction(force_rollback=True):
            for step in PATHS[start]:
                db.execute(update, (step, version))
            with pytest.raises(errors.ObjectNotInPrerequisiteState, match=f"cannot go from {start} to {end}"):
                db.execute(update, (end, version))


def test_at_most_one_version_is_active(db: Connection, candidate: TinyModel) -> None:
    register(db, candidate, "v2")
    backfill(db, "v2")
    with pytest.raises(errors.UniqueViolation):
        db.execute("update two_tower.model_versions set state = 'active' where version = 'v2'")


# -------------------------------------------------------------------------------------------- side by side


def test_a_concurrent_activation_is_refused_and_readers_do_not_wait(db: Connection, connect: Connect) -> None:
    for version in ("v2", "v3"):
        register(db, random_model(schema_of(db), seed=int(version[1])), version)
        backfill(db, version)
    first = connect(autocommit=False)
    activate(first, "v2")
    db.execute("set lock_timeout = '300ms'")
    with pytest.raises(errors.ObjectInUse, match="another activation"):
        activate(db, "v3")
    assert one(db, "select two_tower.active_version()") == "v1"
    assert one(db, "select count(*) from two_tower.recommend_batch(array[%s]::uuid[], 20)", WORLD.usual) == 20
    db.execute("insert into user_video_decisions values (%s, %s, 'like')", (WORLD.no_decisions, WORLD.videos[0]))
    refresh(db)
    first.commit()
    assert states(db) == {"v1": "standby", "v2": "active", "v3": "staged"}
    activate(db, "v3")
    assert states(db) == {"v1": "standby", "v2": "standby", "v3": "active"}


@pytest.mark.world(models=2)
def test_many_activations_at_once_leave_one_active(db: Connection, connect: Connect) -> None:
    connections = [connect() for _ in range(4)]

    def flip(at: int) -> int:
        done = 0
        for n in range(10):
            try:
                activate(connections[at], f"v{(at + n) % 2 + 1}")
                done += 1
            except errors.ObjectInUse:
                continue
        return done

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(flip, range(4))) >= 1
    assert sorted(states(db).values()) == ["active", "standby"]


def test_an_interrupted_backfill_resumes(db: Connection, candidate: TinyModel, connect: Connect) -> None:
    register(db, candidate, "v2")
    broken = connect()
    broken.execute("set statement_timeout = '60ms'")
    with pytest.raises(errors.QueryCanceled):
        backfill(broken, "v2")
    assert states(db)["v2"] in ("candidate", "staged")
    backfill(db, "v2")
    activate(db, "v2")
    assert states(db)["v2"] == "active"


def test_changes_during_a_backfill_are_in_it_or_in_the_log(db: Connection, candidate: TinyModel) -> None:
    register(db, candidate, "v2")
    db.execute("update public.videos set price = coalesce(price, 0) + 1")
    db.execute("insert into user_video_decisions values (%s, %s, 'like')", (WORLD.no_decisions, WORLD.videos[0]))
    backfill(db, "v2")
    refresh(db)
    stored = (
        "select array_agg(embedding::text order by {0}_id) from two_tower.{0}_embeddings where model_version = 'v2'"
    )
    fresh = (
        "select array_agg(embedding::text order by {0}_id) from two_tower.embed_{0}s(array(select id from {1}), 'v2')"
    )
    for kind, table in (("user", "auth.users"), ("video", "public.videos")):
        assert one(db, stored.format(kind)) == one(db, fresh.format(kind, table))


# -------------------------------------------------------------------------------------------- torch = ONNX = stored


def cosine_distance(a: np.ndarray, b: np.ndarray) -> float:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.max(1 - (a * b).sum(axis=1) / norms))


def by_onnx(graph: bytes, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: rows})[0])


def stored(db: Connection, kind: str, version: str) -> dict[str, np.ndarray]:
    query = f"select {kind}_id::text, embedding::text from two_tower.{kind}_embeddings where model_version = %s"
    return {key: np.array(json.loads(text), dtype=np.float32) for key, text in db.execute(query.encode(), (version,))}


def test_torch_onnx_and_stored_vectors_agree(db: Connection) -> None:
    model = tiny_model(db, "v2", seed=2)
    data = dataset.read(db)
    users = user_counts(data.schema, data.item_counts, data.matrix(LIKE), data.matrix(NOPE))
    for kind, ids, counts, tower_, graph in (
        ("user", data.user_ids, users, model.user_tower, model.user_graph),
        ("video", data.item_ids, data.item_counts, model.item_tower, model.item_graph),
    ):
        vectors = stored(db, kind, "v2")
        known = [at for at, key in enumerate(ids) if key in vectors]
        assert len(known) == len(vectors) == (47 if kind == "user" else len(data.item_ids))
        rows = counts[known]
        torch_ = tower_.embed(rows)
        onnx_ = by_onnx(graph, rows.toarray())
        found = np.stack([vectors[ids[at]] for at in known])
        assert cosine_distance(torch_, onnx_) < 1e-5
        assert cosine_distance(onnx_, found) < 1e-3
        # Sums in another order may round differently, by at most one step of half precision.
        halves = onnx_.astype(np.float16)
        assert np.all(np.abs(halves.astype(np.float32) - found) <= np.spacing(np.abs(halves)).astype(np.float32))
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=2e-3)


def test_registered_files_are_stored_unchanged(db: Connection, candidate: TinyModel) -> None:
    register(db, candidate, "v2")
    content = one(
        db, "select content from two_tower.model_files where model_version = 'v2' and name = 'user_tower.onnx'"
    )
    assert bytes(content) == candidate.user_graph
    onnx.checker.check_model(onnx.load_model_from_string(bytes(content)))


# -------------------------------------------------------------------------------------------- driving it from Python


def test_activation_first_refreshes_everything(database: NewDatabase) -> None:
    with psycopg.connect(database(), autocommit=True) as db:
        load(db, WORLD)
        with pytest.raises(UserError, match="no candidate"):
            registry.activate(db, None, lambda what, share: None)
        register(db, random_model(schema_of(db)), "first")
        shares: list[float] = []
        answer = registry.activate(db, None, lambda what, share: shares.append(share))
        assert (answer["model_version"], answer["previous"], answer["changed"]) == ("first", None, True)
        assert all(0 <= share <= 1 for share in shares)
        assert [row["state"] for row in registry.versions(db)] == ["active"]
        assert one(db, "select count(*) from public.user_embeddings") == 47
        assert one(db, "select count(*) from two_tower.video_popularity") > 100


def test_new_version_names_are_unused(db: Connection, candidate: TinyModel) -> None:
    taken = {registry.new_version(db)}
    for _ in range(3):
        version = registry.new_version(db)
        register(db, candidate, version)
        taken.add(version)
        assert registry.new_version(db) not in taken


def test_the_newest_candidate_is_found(db: Connection, candidate: TinyModel) -> None:
    register(db, candidate, "z")
    register(db, candidate, "a")
    assert registry.newest_candidate(db) == "a"
    with pytest.raises(errors.NoDataFound):
        registry.activate(db, str(NOBODY), lambda what, share: None)
