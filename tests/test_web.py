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
from two_tower.lifecycle import artifacts
from world_fixtures import Client, load, make_world, one, tiny_model

WORLD = make_world(n_users=120)
MODULE = Path(two_tower.__file__).parent / "client" / "two-tower.js"


@pytest.fixture
def model(db: Connection, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A published model of a world with a hundred users and more."""
    load(db, WORLD)
    # Everybody but one has decisions that count more or less than others.
    db.execute(
        """update user_video_decisions set weight = (array[0.01, 0.8, 1, 3])[1 + abs(hashtext(video_id::text)) %% 4]
        where user_id <> %s""",
        (WORLD.usual,),
    )
    # And nearly all have a profile that says something, some of it in lists; two like nothing, and have that alone.
    db.execute("alter table public.profiles add column age_band int, add column interests text[]")
    db.execute(
        """update public.profiles set age_band = abs(hashtext(user_id::text)) %% 4 * 10,
            interests = (array['sea', 'a "b" {c}', '星'])[1 + abs(hashtext(user_id::text)) %% 2 : %s]""",
        (3,),
    )
    db.execute("select two_tower.set_profile_inputs('{age_band,interests}')")
    tiny_model(db, recency=getattr(request, "param", 0.0))
    artifacts.publish(db, "v1", f"file://{tmp_path}", lambda what, share: None)
    return tmp_path


def in_node(modules: Path, directory: Path, users: list[Any], videos: list[Any]) -> dict[str, Any]:
    job = {"module": str(MODULE), "users": users, "videos": videos}
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
    assert found["version"] == "v1"
    worst = np.abs(np.array(found["users"]) - np.stack(list(expected.values()))).max()
    assert worst <= 2e-3

    # And the input is the encoder's own, number by number.
    inputs = db.execute(
        "select e.user_id::text, e.input::text from two_tower.encode_users(%s::uuid[], 'v1') e",
        (list(expected),),
    )
    encoded = {user: SparseVector.from_text(text).to_numpy().astype(np.float32) for user, text in inputs}
    for user, row in zip(expected, found["inputs"], strict=True):
        assert (np.array(row, dtype=np.float32) == encoded[user]).all()


@pytest.mark.soak
def test_a_payload_of_another_exponent_is_refused_unless_plain_counts_will_do(
    db: Connection, client: Client, model: Path, node_modules: Path
) -> None:
    """The browser has the model without recency still, the database one with it."""
    tiny_model(db, "v2", recency=0.5)
    (plain, weighed) = (
        client.rpc("authenticated", user, "get_user_embedding_features", user_id=user)[0]
        for user in (WORLD.usual, WORLD.many)
    )
    found = in_node(node_modules, model, [plain], [])
    encoded = one(db, "select input::text from two_tower.encode_users(array[%s::uuid], 'v1')", WORLD.usual)
    assert (np.array(found["inputs"][0]) == SparseVector.from_text(encoded).to_numpy()).all()
    with pytest.raises(AssertionError, match="load the model anew"):
        in_node(node_modules, model, [weighed], [])


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


def test_nobody_in_particular_has_an_input_too(model: Path, node_modules: Path, db: Connection, client: Client) -> None:
    payload = client.rpc("service_role", None, "get_user_embedding_features", user_id=WORLD.no_decisions)[0]
    strange = payload | {"liked_makers": {"constructor": 2, "__proto__": 1, "toString": 1, "nobody": 7}}
    found = in_node(node_modules, model, [payload, strange], [])
    assert found["inputs"] == [[0.0] * one(db, "select user_dim from two_tower.model_versions")] * 2
    assert abs(np.linalg.norm(found["users"][0]) - 1) < 1e-5
