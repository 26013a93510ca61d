"""Neighbours besides the towers: they are part of a version and of every score, by a definition in numpy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest
from psycopg import errors
from safetensors.numpy import save
from scipy import sparse

from conftest import Connection, NewDatabase
from two_tower import neighbours as sparse_part
from two_tower.errors import UserError
from two_tower.lifecycle import artifacts, registry, tower_rows, towers
from world_fixtures import (
    ENGINE,
    NOBODY,
    Client,
    TinyModel,
    column,
    load,
    make_world,
    one,
    random_model,
    refresh,
    schema_of,
    state,
)

pytestmark = pytest.mark.world

WORLD = make_world()
USERS = [WORLD.usual, WORLD.many, WORLD.one_like, *WORLD.users[6:20]]


def quiet(what: str, share: float) -> None:
    pass


def invented(videos: int, seed: int = 0, each: int = 12, scale: float = 0.3, below: float = 0.0) -> sparse.csr_matrix:
    """Random neighbours: most videos have up to ``each``, some have none; a share ``below`` of the weights is negative.

    The scale is such that some neighbours overtake the videos that the towers rank first, and others do not.
    """
    rng = np.random.default_rng(seed)
    matrix = sparse.lil_matrix((videos, videos), dtype=np.float32)
    for row in range(videos):
        others = rng.choice(videos, rng.integers(0, each + 1), replace=False)
        sign = np.where(rng.random(len(others)) < below, -1, 1)
        matrix[row, others[others != row]] = (sign * rng.exponential(scale, len(others)))[others != row]
    return matrix.tocsr()


def weights_of(model: TinyModel, neighbours: sparse.csr_matrix | None) -> bytes:
    """The model's file of weights, with these neighbours in it."""
    tensors = tower_rows.tensors_of(model.weights) | sparse_part.to_tensors(neighbours)
    return save({name: np.array(tensor) for name, tensor in tensors.items()})


def register(
    db: Connection, neighbours: sparse.csr_matrix | None, version: str = "v2", seed: int = 1, engine: str = ENGINE
) -> TinyModel:
    """Registers a model with these neighbours over its vocabulary, as the command line does."""
    db.execute("update two_tower.settings set value = to_jsonb(%s::text) where name = 'inference_engine'", (engine,))
    model = random_model(schema_of(db), seed)
    register_files(db, model, version, weights_of(model, neighbours))
    return model


def register_files(db: Connection, model: TinyModel, version: str, weights: bytes) -> None:
    assert model.metrics is not None
    registry.register_files(
        db,
        version,
        (model.user_graph, model.item_graph, weights),
        feature_schema=model.feature_schema,
        normalizer={},
        vocabularies=model.vocabularies,
        metrics=model.metrics,
        meta={},
    )


def activate(db: Connection, version: str = "v2") -> None:
    registry.activate(db, version, quiet, force=True)


def videos_of(db: Connection) -> int:
    return len(schema_of(db).vocabularies["video"])


def whole_scores(db: Connection, user: UUID, version: str) -> dict[str, float]:
    """By definition, from the model's files: the cosine plus, for each like, its weights over the length of the sum."""
    model = towers.load(db, version)
    ids = model.schema.vocabularies["video"]
    at = {video: n for n, video in enumerate(ids)}
    text = one(
        db,
        "select e.input::text from two_tower.encode_users(array[%s]::uuid[], %s) e",
        user,
        version,
    )
    entries = [entry.split(":") for entry in text[1 : text.index("}")].split(",")]
    total = model.user.bias.detach().numpy().astype(float)
    for position, value in entries:
        total = total + float(value) * model.user.weight.detach().numpy()[int(position) - 1]
    length = float(np.linalg.norm(total))
    taste = total / length
    likes = column(
        db, "select video_id::text from user_video_decisions where user_id = %s and decision_type = 'like'", user
    )
    added = np.zeros(len(ids))
    if model.neighbours is not None:
        for like in likes:
            if like in at:
                added += model.neighbours[at[like]].toarray().ravel()
    query = """select e.video_id::text, e.embedding::text
        from two_tower.video_embeddings e join two_tower.visible_videos v on v.id = e.video_id
        where e.model_version = %s and e.video_id not in (
            select d.video_id from user_video_decisions d where d.user_id = %s)"""
    scores = {}
    for video, embedding in db.execute(query.encode(), (version, user)):
        place = np.array(json.loads(embedding))
        scores[video] = float(place[:127] @ taste / np.linalg.norm(place))
        if video in at:
            scores[video] += added[at[video]] / length
    return scores


def ranked(db: Connection, user: UUID, limit: int = 20) -> list[tuple[str, float]]:
    query = "select video_id::text, score from two_tower.recommend_batch(array[%s]::uuid[], %s) order by rank"
    return db.execute(query.encode(), (user, limit)).fetchall()


def assert_by_definition(db: Connection, users: list[UUID], version: str, *limits: int) -> int:
    """Asserts that lists and scores follow the definition; returns how many videos neighbours bring into them."""
    passed = 0
    for user in users:
        scores = whole_scores(db, user, version)
        plain = whole_scores(db, user, "v1") if version != "v1" else scores
        for limit in limits or (20,):
            best = sorted(scores.values(), reverse=True)[:limit]
            found = [(video, score) for video, score in ranked(db, user, limit) if video in scores][: len(best)]
            # Places are stored in half precision.
            assert [score for _, score in found] == pytest.approx(best, abs=3e-3), (user, limit)
            for video, score in found:
                assert score == pytest.approx(scores[video], abs=3e-3), (user, video)
            passed += len({v for v, _ in found} - set(sorted(plain, key=plain.__getitem__, reverse=True)[:limit]))
    return passed


# ---------------------------------------------------------------------------------------------------- scores


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "shape",
    [{}, {"scale": 0.02}, {"scale": 5}, {"below": 0.5}, {"below": 1.0, "scale": 3}, {"each": 60}],
    ids=["usual", "hardly any", "outweighs the towers", "half below zero", "all far below zero", "many each"],
)
@pytest.mark.parametrize("engine", ["sql", "onnxruntime"])
def test_lists_equal_the_definition_of_the_complete_score(shape: dict[str, Any], engine: str, db: Connection) -> None:
    register(db, invented(videos_of(db), **shape), engine=engine)
    activate(db)
    assert column(db, "select distinct user_engine from two_tower.model_versions where version = 'v2'") == [engine]
    assert_by_definition(db, USERS[:6], "v2", 1, 20, 100)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("neighbours", [None, "empty"])
def test_without_neighbours_lists_are_those_of_the_towers(neighbours: str | None, db: Connection) -> None:
    videos = videos_of(db)
    register(db, None if neighbours is None else sparse.csr_matrix((videos, videos), dtype=np.float32))
    activate(db)
    assert one(db, "select count(*) from two_tower.video_neighbours") == 0
    assert one(db, "select with_neighbours from two_tower.model_versions where version = 'v2'") == 0
    query = """select n.ids from two_tower.user_embeddings e, two_tower.history_of(e.user_id, 'v2') h,
        two_tower.search_videos('v2', e.embedding, 20, h.decided, null, 0) n
        where e.user_id = %s and e.model_version = 'v2'"""
    for user in USERS:
        assert [UUID(v) for v, _ in ranked(db, user)] == one(db, query, user)


def test_decisions_before_a_refresh_count_in_the_complete_score(db: Connection, client: Client) -> None:
    register(db, invented(videos_of(db)))
    activate(db)
    for video in WORLD.published[5:25:2]:
        db.execute("insert into user_video_decisions values (%s, %s, 'like')", (WORLD.no_decisions, video))
    before = ranked(db, WORLD.no_decisions)
    scores = whole_scores(db, WORLD.no_decisions, "v2")
    assert [s for _, s in before] == pytest.approx(sorted(scores.values(), reverse=True)[:20], abs=3e-3)
    refresh(db)
    assert ranked(db, WORLD.no_decisions) == before
    rows = client.rpc("authenticated", WORLD.no_decisions, "recommend_videos")
    assert [(row["video_id"], row["score"]) for row in rows] == before


def test_every_kind_of_list_uses_the_complete_score(db: Connection, client: Client) -> None:
    register(db, invented(videos_of(db)))
    activate(db)
    own = client.rpc("authenticated", WORLD.usual, "recommend_videos", limit=20)
    assert [(row["video_id"], row["score"]) for row in own] == ranked(db, WORLD.usual)
    preview = db.execute(
        "select video_id::text, score from two_tower.preview_recommendations(array[%s]::uuid[], 'v2') order by rank",
        (WORLD.usual,),
    ).fetchall()
    assert preview == ranked(db, WORLD.usual)
    scores = whole_scores(db, WORLD.usual, "v2")
    tag = next(t for t in WORLD.tags if len({str(v) for v in WORLD.tagged(t)} & scores.keys()) > 10)
    tagged = {str(video) for video in WORLD.tagged(tag)}
    rows = client.rpc("authenticated", WORLD.usual, "recommend_videos", limit=10, tag_ids=[tag])
    best = sorted((score for video, score in scores.items() if video in tagged), reverse=True)[:10]
    assert [row["score"] for row in rows] == pytest.approx(best, abs=3e-3)
    assert {row["video_id"] for row in rows} <= tagged
    varied = client.rpc("authenticated", WORLD.usual, "recommend_videos", limit=10, diversity=0.7)
    assert len(varied) == 10
    assert [row["score"] for row in varied] == pytest.approx([scores[row["video_id"]] for row in varied], abs=3e-3)


def test_contributions_of_decisions_sum_to_the_score(db: Connection) -> None:
    register(db, invented(videos_of(db)), engine="sql")
    activate(db)
    added = "select coalesce(sum(value), 0) from two_tower.preview_contributions(%s, %s, 'v2')"
    neighbours = set(column(db, "select neighbour_id::text from two_tower.video_neighbours"))
    lists = {user: ranked(db, user, 20) for user in USERS[:6]}
    assert neighbours & {video for found in lists.values() for video, _ in found}
    for user, found in lists.items():
        for video, score in found:
            assert one(db, added, user, video) == pytest.approx(score, abs=3e-3), (user, video)


def test_because_is_the_like_that_adds_most_to_the_complete_score(db: Connection, client: Client) -> None:
    neighbours = invented(videos_of(db), scale=1)
    register(db, neighbours, engine="sql")
    activate(db)
    ids = schema_of(db).vocabularies["video"]
    at = {video: n for n, video in enumerate(ids)}
    tastes = {
        video: np.array(liked)
        for video, liked in db.execute(
            "select video_id::text, liked::real[] from two_tower.video_tastes where model_version = 'v2'"
        )
        if liked is not None
    }
    places = {
        video: np.array(json.loads(text))[:127]
        for video, text in db.execute(
            "select video_id::text, embedding::text from two_tower.video_embeddings where model_version = 'v2'"
        )
    }
    by_neighbours = 0
    for user in (WORLD.usual, WORLD.many):
        likes = [str(video) for video in WORLD.of(user, "like")]
        for row in client.rpc("authenticated", user, "recommend_videos", because=True):
            video = row["video_id"]
            towers_add = {like: float(tastes[like] @ places[video]) for like in likes if like in tastes}
            added = {
                like: value + (neighbours[at[like], at[video]] if like in at and video in at else 0)
                for like, value in towers_add.items()
            }
            best = max(added.values())
            assert (row["because_video_id"] is None) == (best <= 0)
            if best > 0:
                assert added[row["because_video_id"]] == pytest.approx(best, abs=1e-3)
                by_neighbours += towers_add[row["because_video_id"]] < max(towers_add.values()) - 1e-3
    assert by_neighbours > 0


def test_similar_videos_are_those_for_a_user_who_likes_only_that_video(db: Connection, client: Client) -> None:
    neighbours = invented(videos_of(db))
    model = register(db, neighbours)
    activate(db)
    ids = model.schema.vocabularies["video"]
    liked = next(v for v in map(str, WORLD.published) if v in ids and neighbours[ids.index(v)].nnz)
    db.execute("update two_tower.settings set value = '1' where name = 'least_likers'")
    taste = np.array(
        one(db, "select liked::real[] from two_tower.compute_tastes(array[%s]::uuid[], 'v2')", liked), dtype=float
    )
    query = """select e.video_id::text, e.embedding::text from two_tower.video_embeddings e
        join two_tower.visible_videos v on v.id = e.video_id where e.model_version = 'v2'"""
    places = {video: np.array(json.loads(text))[:127] for video, text in db.execute(query.encode())}
    place = places.pop(liked)
    added = dict(zip(ids, neighbours[ids.index(liked)].toarray().ravel(), strict=True))
    scores = {
        video: float(place @ other / np.linalg.norm(place)) + added.get(video, 0) / np.linalg.norm(taste)
        for video, other in places.items()
    }
    rows = client.rpc("anon", None, "similar_videos", video_id=liked)
    assert [row["score"] for row in rows] == pytest.approx(sorted(scores.values(), reverse=True)[:20], abs=3e-3)
    assert [row["score"] for row in rows] == pytest.approx([scores[row["video_id"]] for row in rows], abs=3e-3)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("shape", [{}, {"scale": 5}, {"below": 0.5}], ids=["usual", "outweighs", "half below zero"])
def test_the_index_with_neighbours_nearly_equals_exact_search(shape: dict[str, Any], db: Connection) -> None:
    register(db, invented(videos_of(db), each=60, **shape))
    activate(db)
    for limit in (1, 20, 60):
        hits = """select sum(two_tower.count_hits(x.exact, n.scores)), sum(cardinality(x.exact))
            from two_tower.user_embeddings e
            cross join lateral two_tower.history_of(e.user_id, 'v2') h
            cross join lateral two_tower.exact_scores(
                'v2', e.embedding, %(limit)s, h.decided, h.liked, h.weights, e.length) x (exact)
            cross join lateral two_tower.nearest_videos(
                'v2', e.embedding, %(limit)s, h.decided, null, 0, h.liked, h.weights, e.length, 900) n
            where e.model_version = 'v2' and e.user_id = any (%(users)s)"""
        row = db.execute(hits.encode(), {"limit": limit, "users": USERS}).fetchone()
        assert row is not None
        assert row[0] >= 0.99 * row[1] > 0, limit


@pytest.mark.sampled(1)
@pytest.mark.parametrize("unknown", [50, 150])
def test_videos_without_any_information_are_in_no_list_by_taste(unknown: int, db: Connection, client: Client) -> None:
    db.execute(
        """insert into videos (id, product_url, title, published_at)
        select gen_random_uuid(), 'unknown ' || n, 'unknown', now() - interval '1 hour'
        from generate_series(1, %s) n""",
        (unknown,),
    )
    register(db, invented(videos_of(db)))
    activate(db)
    assert (
        one(db, "select count(*) from two_tower.video_embeddings where model_version = 'v2' and not placed") >= unknown
    )
    index = one(db, "select pg_get_indexdef('two_tower.video_embeddings_2_hnsw'::regclass)")
    assert ("WHERE placed" in index) == (unknown > 100), "a few do no harm, and queries need not name them"
    for _ in ("as registered", "rebuilt"):
        rows = client.rpc("authenticated", WORLD.usual, "recommend_videos", limit=200)
        by_taste = [row["title"] for row in rows if row["reason"] == "taste"]
        assert by_taste
        assert "unknown" not in by_taste
        assert one(db, "select two_tower.gate_recall('v2')") == 1
        db.execute("call two_tower.rebuild()")
    # A tag that the model knows places a video.
    video = one(db, "select id from videos where title = 'unknown' limit 1")
    known = "select v.key from two_tower.vocabularies v where v.model_version = 'v2' and v.vocabulary = 'tag' limit 1"
    db.execute("insert into video_tags (video_id, tag_id) values (%s, %s)", (video, one(db, known)))
    refresh(db)
    placed = "select placed from two_tower.video_embeddings where model_version = 'v2' and video_id = %s"
    assert one(db, placed, video)


# ---------------------------------------------------------------------------------------------------- part of a version


def test_a_flip_changes_neighbours_with_the_vectors(db: Connection) -> None:
    videos = videos_of(db)
    first = ranked(db, WORLD.usual)
    register(db, invented(videos), "v2")
    activate(db, "v2")
    second = ranked(db, WORLD.usual)
    register(db, invented(videos, seed=9), "v3", seed=1)
    activate(db, "v3")
    third = ranked(db, WORLD.usual)
    assert first != second != third != first
    assert_by_definition(db, [WORLD.usual], "v3")
    registry.roll_back(db, "v2")
    assert ranked(db, WORLD.usual) == second
    registry.roll_back(db, "v1")
    assert ranked(db, WORLD.usual) == first


def test_a_list_is_of_one_version_whatever_is_activated_meanwhile(db: Connection, connect: Callable[..., Any]) -> None:
    register(db, invented(videos_of(db), scale=5))
    activate(db)
    expected = {"v2": ranked(db, WORLD.usual)}
    registry.roll_back(db, "v1")
    expected["v1"] = ranked(db, WORLD.usual)
    reader = connect(autocommit=False)
    reader.execute("set transaction isolation level repeatable read")
    assert ranked(reader, WORLD.usual) == expected["v1"]
    registry.roll_back(db, "v2")
    assert ranked(reader, WORLD.usual) == expected["v1"]
    assert ranked(db, WORLD.usual) == expected["v2"]
    reader.rollback()
    assert ranked(reader, WORLD.usual) == expected["v2"]


def test_retiring_a_version_removes_only_its_neighbours(db: Connection) -> None:
    videos = videos_of(db)
    for seed, version in enumerate(("v2", "v3")):
        register(db, invented(videos, seed), version)
        activate(db, version)
    before = ranked(db, WORLD.usual)
    db.execute("select two_tower.retire_model('v2')")
    assert column(db, "select distinct model_version from two_tower.video_neighbours") == ["v3"]
    assert ranked(db, WORLD.usual) == before


def test_lists_and_neighbours_survive_deleted_videos(db: Connection, client: Client) -> None:
    register(db, invented(videos_of(db), scale=5))
    activate(db)
    gone = [UUID(video) for video, _ in ranked(db, WORLD.usual)[:5]] + sorted(WORLD.of(WORLD.usual, "like"))[:3]
    db.execute("delete from videos where id = any (%s)", (gone,))
    for _ in ("before the refresh", "after it"):
        rows = client.rpc("authenticated", WORLD.usual, "recommend_videos")
        assert len(rows) == 20
        assert not {UUID(row["video_id"]) for row in rows} & set(gone)
        refresh(db)
    assert_by_definition(db, [WORLD.usual, WORLD.many], "v2")
    assert one(db, "select two_tower.gate_recall('v2')") == 1


def test_stored_lengths_equal_those_computed_from_rows(db: Connection) -> None:
    register(db, invented(videos_of(db)))
    activate(db)
    lengths = "select user_id, length from two_tower.user_embeddings where model_version = 'v2' order by 1"
    assert one(db, "select count(*) from two_tower.user_embeddings where length is null and model_version = 'v2'") == 0
    some = column(db, "select video_id from user_video_decisions where user_id = %s limit 4", WORLD.usual)
    nope = "update user_video_decisions set decision_type = 'nope' where user_id = %s and video_id = any (%s)"
    db.execute(nope, (WORLD.usual, some))
    db.execute("delete from user_video_decisions where user_id = %s and random() < 0.2", (WORLD.many,))
    db.execute("update videos set maker = 'another' where id in (select id from videos order by id limit 20)")
    refresh(db)
    stored = db.execute(lengths).fetchall()
    before = state(db)
    db.execute("call two_tower.rebuild()")
    assert db.execute(lengths).fetchall() == stored
    assert state(db) == before
    computed = "select user_id, length from two_tower.compute_users(%s, 'v2') order by 1"
    assert db.execute(computed.encode(), ([user for user, _ in stored],)).fetchall() == stored


def test_the_same_neighbours_register_again_and_others_are_refused(db: Connection) -> None:
    videos = videos_of(db)
    neighbours = invented(videos)
    model = register(db, neighbours)
    shuffled = neighbours[:, ::-1][:, ::-1]
    for same in (neighbours, shuffled):
        register_files(db, model, "v2", weights_of(model, same))
    for other in (None, invented(videos, seed=5), 2 * neighbours):
        with pytest.raises(errors.UniqueViolation, match="registered already, with other content"):
            register_files(db, model, "v2", weights_of(model, other))
    assert one(db, "select count(*) from two_tower.video_neighbours") == neighbours.nnz


def changed(neighbours: sparse.csr_matrix, **arrays: np.ndarray) -> dict[str, np.ndarray]:
    return sparse_part.to_tensors(neighbours) | {f"neighbours.{name}": value for name, value in arrays.items()}


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "fault", ["infinite", "not a number", "out of the vocabulary", "of another size", "half of it"]
)
def test_invalid_neighbours_are_refused(fault: str, db: Connection) -> None:
    neighbours = invented(videos_of(db))
    model = random_model(schema_of(db), 1)
    values, indices = neighbours.data.copy(), neighbours.indices.copy()
    if fault in ("infinite", "not a number"):
        values[7] = np.inf if fault == "infinite" else np.nan
    indices[3] = len(model.vocabularies["video"]) if fault == "out of the vocabulary" else indices[3]
    tensors = changed(neighbours, values=values, indices=indices)
    if fault == "of another size":
        tensors["neighbours.indptr"] = tensors["neighbours.indptr"][:-2]
    if fault == "half of it":
        del tensors["neighbours.values"]
    weights = save({name: np.array(t) for name, t in (tower_rows.tensors_of(model.weights) | tensors).items()})
    with pytest.raises((UserError, errors.InvalidParameterValue), match="neighbours"):
        register_files(db, model, "v2", weights)
    assert one(db, "select count(*) from two_tower.neighbour_lists") == 0
    assert one(db, "select count(*) from two_tower.model_versions where version = 'v2'") == 0


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("array[%(a)s, %(a)s]::uuid[], '{1, 2}'", "one is there twice"),
        ("array[%(nobody)s]::uuid[], '{1}'", "is not in the vocabulary"),
        ("array[null]::uuid[], '{1}'", "null is not in the vocabulary"),
        ("array[%(a)s]::uuid[], '{null}'", "is not finite"),
        ("array[%(a)s]::uuid[], '{-infinity}'", "is not finite"),
    ],
)
def test_invalid_rows_of_neighbours_are_refused(row: str, message: str, db: Connection) -> None:
    first, second = schema_of(db).vocabularies["video"][:2]
    values = {"a": second, "first": first, "nobody": NOBODY}
    db.execute(f"insert into two_tower.neighbour_lists select 'v9', %(first)s, {row}".encode(), values)
    with pytest.raises(errors.InvalidParameterValue, match=message):
        db.execute(
            "select two_tower.check_neighbours('v9', to_jsonb(%s::text[]))",
            (list(schema_of(db).vocabularies["video"]),),
        )


@pytest.mark.sampled(2)
@pytest.mark.parametrize("statement", [
    "insert into two_tower.neighbour_lists values ('v2', gen_random_uuid(), '{}', '{}')",
    "update two_tower.neighbour_lists set weights = '{}', neighbour_ids = '{}' where model_version = 'v2'",
    "delete from two_tower.neighbour_lists where model_version = 'v2'",
    "truncate two_tower.neighbour_lists",
])  # fmt: skip
def test_neighbours_of_a_registered_version_cannot_change(statement: str, db: Connection) -> None:
    register(db, invented(videos_of(db)))
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="do not change"):
        db.execute(statement.encode())


# ---------------------------------------------------------------------------------------------------- files


@pytest.fixture
def other(database: NewDatabase) -> Any:
    """A database with the same world and without any model."""
    with psycopg.connect(database(), autocommit=True) as connection:
        load(connection, WORLD)
        refresh(connection)
        yield connection


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kept", [True, False], ids=["with its files", "as rows alone"])
@pytest.mark.parametrize("way", ["register", "publish"])
def test_an_exported_model_recommends_the_same_in_another_database(
    way: str, kept: bool, db: Connection, other: Connection, tmp_path: Path
) -> None:
    if not kept:
        db.execute("update two_tower.settings set value = '1000' where name = 'model_max_bytes'")
    # The engine onnxruntime needs the files, so a version with only rows uses another.
    register(db, invented(videos_of(db)), engine=ENGINE if kept else "auto")
    activate(db)
    if way == "register":
        artifacts.export(db, "v2", tmp_path / "v2")
        artifacts.register(other, tmp_path / "v2")
    else:
        artifacts.publish(db, "v2", f"file://{tmp_path}/published", quiet)
        artifacts.fetch(other, f"file://{tmp_path}/published", "v2", quiet)
    activate(other)
    pairs = "select * from two_tower.video_neighbours order by video_id, neighbour_id"
    assert other.execute(pairs).fetchall() == db.execute(pairs).fetchall()
    for user in USERS[:6]:
        assert [v for v, _ in ranked(other, user)] == [v for v, _ in ranked(db, user)]


def test_small_files_for_a_browser_have_no_neighbours(db: Connection, tmp_path: Path) -> None:
    register(db, invented(videos_of(db)))
    artifacts.export(db, "v2", tmp_path, max_video_features=20)
    tensors = tower_rows.tensors_of((tmp_path / "weights.safetensors").read_bytes())
    assert not [name for name in tensors if name.startswith("neighbours")]


@pytest.mark.parametrize("seed", range(4))
def test_neighbours_convert_to_tensors_and_back(seed: int) -> None:
    matrix = invented(50, seed, each=seed * 5)
    back = sparse_part.from_tensors(sparse_part.to_tensors(matrix), 50)
    assert (back is None) == (matrix.nnz == 0)
    if back is not None:
        assert (back != matrix).nnz == 0
        one_way, other = (sparse_part.read(sparse_part.to_tensors(of), 50) for of in (back, matrix))
        assert one_way is not None
        assert other is not None
        assert one_way.digest == other.digest
