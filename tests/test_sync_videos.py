"""The daily job: the current model, new products, their vectors; each step by itself, and its failure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from dmm_api import API_ID, FAST, Api, product, source, status
from two_tower.data.catalogue_api import IngestSummary, ingest
from two_tower.data.dmm import DEFAULT_FLOOR
from two_tower.lifecycle import artifacts
from two_tower.lifecycle.sync_videos import sync_videos
from world_fixtures import load, make_world, one, tiny_model

pytestmark = pytest.mark.world

Connection = psycopg.Connection[Any]


def quiet(what: str, share: float) -> None:
    pass


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.server.shutdown()
    api.server.server_close()


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def step(db: Connection, api: Api) -> Callable[[], IngestSummary]:
    return lambda: ingest(db, source(api), [DEFAULT_FLOOR], FAST)


def uncovered(db: Connection) -> int:
    """Videos without a vector of the active model."""
    return int(
        one(
            db,
            "select count(*) from public.videos v where not exists"
            " (select from public.video_embeddings e where e.video_id = v.id)",
        )
    )


def test_new_products_are_embedded(db: Connection, api: Api) -> None:
    api.products = [product(n) for n in range(12)]
    summary = sync_videos(db, model_url=None, ingest=step(db, api))
    assert summary.model is None
    assert summary.ingest is not None
    assert summary.ingest.sections[0].inserted == 12
    assert summary.embeddings is not None
    assert summary.embeddings["videos"] >= 12
    assert uncovered(db) == 0
    again = sync_videos(db, model_url=None, ingest=step(db, api))
    assert again.embeddings is not None
    assert (again.embeddings["marked"], again.embeddings["vectors"]) == (0, 0)


def test_a_new_model_is_fetched_and_activated_once(
    db: Connection, database: Callable[..., str], tmp_path: Path, api: Api
) -> None:
    url = f"file://{tmp_path}/models"
    artifacts.publish(db, "v1", url, quiet)
    with psycopg.connect(database(), autocommit=True) as other:
        load(other, make_world())
        api.products = [product(1)]
        first = sync_videos(other, model_url=url, ingest=step(other, api))
        assert first.errors == {}
        assert first.model is not None
        assert (first.model["registered"], first.model["activated"]) == (True, True)
        assert one(other, "select two_tower.active_version()") == "v1"
        assert uncovered(other) == 0
        second = sync_videos(other, model_url=url, ingest=None)
        assert second.model is not None
        assert (second.model["registered"], second.model["activated"]) == (False, False)
        # After an activation of v2 and a rollback, the published v2 is not activated again.
        tiny_model(db, "v2", seed=1)
        artifacts.publish(db, "v2", url, quiet)
        sync_videos(other, model_url=url, ingest=None)
        assert one(other, "select two_tower.active_version()") == "v2"
        other.execute("select two_tower.rollback_model()")
        assert sync_videos(other, model_url=url, ingest=None).model == second.model | {"version": "v2"}
        assert one(other, "select two_tower.active_version()") == "v1"


def test_a_step_that_fails_does_not_keep_the_next_from_running(db: Connection, api: Api, tmp_path: Path) -> None:
    api.products = [product(n) for n in range(150)]
    api.faults = [None, *[status(500)] * 4]
    summary = sync_videos(db, model_url=f"file://{tmp_path}/nothing", ingest=step(db, api))
    assert list(summary.errors) == ["model", "ingest"]
    assert summary.embeddings is not None
    assert one(db, "select count(*) from public.videos where source = 'fanza/videoa'") == 100
    assert uncovered(db) == 0
    rest = sync_videos(db, model_url=None, ingest=step(db, api))
    assert rest.errors == {}
    assert one(db, "select count(*) from public.videos where source = 'fanza/videoa'") == 150
    assert uncovered(db) == 0


def test_sync_videos_runs_all_steps_and_writes_a_summary(
    dsn: str, db: Connection, api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from two_tower.cli.main import app

    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["sync-videos", "--dsn", dsn, "--pause", "0", *arguments])

    monkeypatch.setenv("DMM_API_ID", API_ID)
    monkeypatch.setenv("DMM_AFFILIATE_ID", "secret-990")
    monkeypatch.setenv("TWO_TOWER_DMM_ENDPOINT", api.endpoint)
    api.products = [product(1)]
    assert invoke().exit_code == 2  # neither a model's URL nor --skip-fetch
    everything = invoke("--skip-fetch", "--since", "2025-01-01", "--summary", "summary.json")
    assert everything.exit_code == 0, everything.output
    written = json.loads((tmp_path / "summary.json").read_text())
    assert (written["model"], written["ingest"]["sections"][0]["items"]) == (None, 1)
    assert written["embeddings"]["videos"] == 1
    api.requests.clear()
    skipped = invoke("--skip-fetch", "--skip-ingest", "--skip-embed", "--json")
    assert json.loads(skipped.stdout)["embeddings"] is None
    assert api.requests == []
    artifacts.publish(db, "v1", f"file://{tmp_path}/models", quiet)
    fetched = invoke("--model", f"file://{tmp_path}/models", "--skip-ingest", "--json")
    assert json.loads(fetched.stdout)["model"]["activated"] is False
    api.always = status(403)
    failed = invoke("--skip-fetch", "--since", "2025-01-01", "--summary", "summary.json")
    assert failed.exit_code == 1
    assert "ingest failed: dmm refuses: the answer is 403" in failed.stderr
    assert list(json.loads((tmp_path / "summary.json").read_text())["errors"]) == ["ingest"]
    assert API_ID not in failed.output + everything.output
