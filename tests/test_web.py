"""In the browser: a payload, the JavaScript module and onnxruntime-web give the vector that the database stores."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pgvector import HalfVector, SparseVector

import two_tower
from conftest import Connection
from two_tower.lifecycle import artifacts, experiments
from world_fixtures import Client, load, make_world, one, tiny_model

WORLD = make_world(n_users=120)
MODULE = Path(two_tower.__file__).parent / "client" / "two-tower.js"


def publish(db: Connection, version: str, directory: Path, *, current: bool) -> None:
    artifacts.publish(db, version, f"file://{directory}", lambda what, share: None, activate=current)


@pytest.fixture
def model(db: Connection, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A published model of a world with a hundred users and more."""
    load(db, WORLD)
    # All users but one have decisions of different weights.
    db.execute(
        """update user_video_decisions set weight = (array[0.01, 0.8, 1, 3])[1 + abs(hashtext(video_id::text)) %% 4]
        where user_id <> %s""",
        (WORLD.usual,),
    )
    # Nearly all users have profiles with values, some of them lists; two have no likes, only profiles.
    db.execute("alter table public.profiles add column age_band int, add column interests text[]")
    db.execute(
        """update public.profiles set age_band = abs(hashtext(user_id::text)) %% 4 * 10,
            interests = (array['sea', 'a "b" {c}', '星'])[1 + abs(hashtext(user_id::text)) %% 2 : %s]""",
        (3,),
    )
    db.execute("select two_tower.set_profile_inputs('{age_band,interests}')")
    tiny_model(db, recency=getattr(request, "param", 0.0))
    publish(db, "v1", tmp_path, current=True)
    return tmp_path


def in_node(
    modules: Path, directory: Path, users: list[Any], videos: list[Any], version: str | None = None
) -> dict[str, Any]:
    """A browser's results for the payloads: users by the version in their payload, or all by ``version``."""
    job = {"module": str(MODULE), "users": users, "videos": videos, "version": version}
    (directory / "job.json").write_text(json.dumps(job))
    driver = Path(__file__).parent / "web_driver.mjs"
    done = subprocess.run(
        ["node", str(driver), str(directory), str(modules)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def stored(db: Connection, kind: str) -> dict[str, np.ndarray]:
    rows = db.execute(f"select {kind}_id::text, embedding::text from public.{kind}_embeddings".encode())
    return {name: HalfVector.from_text(text).to_numpy().astype(np.float32) for name, text in rows}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("model", [0.0, 0.5], indirect=True)
def test_a_hundred_users_get_the_stored_vector(db: Connection, client: Client, model: Path, node_modules: Path) -> None:
    expected = stored(db, "user")
    assert len(expected) >= 100
    payloads = [client.rpc("authenticated", user, "get_user_embedding_features", user_id=user)[0] for user in expected]
    found = in_node(node_modules, model, payloads, [])
    assert set(found["versions"]) == {"v1"}
    worst = np.abs(np.array(found["users"]) - np.stack(list(expected.values()))).max()
    assert worst <= 2e-3

    # And the input equals the encoder's, number by number.
    inputs = db.execute(
        "select e.user_id::text, e.input::text from two_tower.encode_users(%s::uuid[], 'v1') e",
        (list(expected),),
    )
    encoded = {user: SparseVector.from_text(text).to_numpy().astype(np.float32) for user, text in inputs}
    for user, row in zip(expected, found["inputs"], strict=True):
        assert (np.array(row, dtype=np.float32) == encoded[user]).all()


def assert_each_by_the_own_version(db: Connection, client: Client, directory: Path, node_modules: Path) -> None:
    """During an experiment, users of both versions get their stored vector of that version, and load no other model."""
    rows = db.execute(
        """select e.user_id::text, e.model_version, e.embedding::text from two_tower.user_embeddings e
        where e.model_version = two_tower.served_version(e.user_id) order by e.user_id limit 20"""
    ).fetchall()
    assert {version for _, version, _ in rows} == {"v1", "v2"}
    payloads = [client.rpc("authenticated", user, "get_user_embedding_features", user_id=user)[0] for user, *_ in rows]
    found = in_node(node_modules, directory, payloads, [])
    assert found["versions"] == [version for _, version, _ in rows]
    expected = np.stack([HalfVector.from_text(text).to_numpy() for *_, text in rows])
    assert np.abs(np.array(found["users"]) - expected).max() <= 2e-3
    theirs = next(payload for payload in payloads if payload["model_version"] == "v1")
    with pytest.raises(AssertionError, match="the payload is for model v1, and v2 is loaded"):
        in_node(node_modules, directory, [theirs], [], version="v2")


@pytest.mark.world(models=2)
def test_i5_a_browser_goes_by_the_version_that_serves_its_user(
    db: Connection, client: Client, tmp_path: Path, node_modules: Path
) -> None:
    experiments.start(db, "v2", "v1", 0.5, lambda what, share: None, publish=f"file://{tmp_path}")
    assert_each_by_the_own_version(db, client, tmp_path, node_modules)


@pytest.mark.soak
def test_i5_a_browser_handles_versions_with_and_without_recency(
    db: Connection, client: Client, model: Path, node_modules: Path
) -> None:
    tiny_model(db, "v2", recency=0.5)
    publish(db, "v2", model, current=False)
    db.execute("select two_tower.start_experiment('v2', 'v1', 0.5)")
    assert_each_by_the_own_version(db, client, model, node_modules)


@pytest.mark.soak
def test_every_video_gets_the_stored_vector(db: Connection, client: Client, model: Path, node_modules: Path) -> None:
    expected = stored(db, "video")
    assert len(expected) == len(WORLD.videos)
    payloads = [
        [video, client.rpc("service_role", None, "get_item_embedding_features", video_id=video)[0]]
        for video in expected
    ]
    found = in_node(node_modules, model, [], payloads)
    assert np.abs(np.array(found["videos"]) - np.stack(list(expected.values()))).max() <= 2e-3


def test_a_user_without_decisions_has_a_zero_input(
    model: Path, node_modules: Path, db: Connection, client: Client
) -> None:
    payload = client.rpc("service_role", None, "get_user_embedding_features", user_id=WORLD.no_decisions)[0]
    strange = payload | {"liked_makers": {"constructor": 2, "__proto__": 1, "toString": 1, "nobody": 7}}
    found = in_node(node_modules, model, [payload, strange], [])
    assert found["inputs"] == [[0.0] * one(db, "select user_dim from two_tower.model_versions")] * 2
    assert abs(np.linalg.norm(found["users"][0]) - 1) < 1e-5
