"""The weekly run, with real training and a real webhook: whatever fails, the active version stays active."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from conftest import Connection
from two_tower.cli.main import app
from world_fixtures import make_world, one

pytestmark = pytest.mark.world

WORLD = make_world()
LENIENT = ("--over-popularity", "0", "--max-drop", "1")


@dataclass
class Webhook:
    """A local server that records the requests."""

    url: str
    status: int = 200
    told: list[Any] = field(default_factory=list)

    @property
    def text(self) -> str:
        assert len(self.told) == 1, self.told
        assert list(self.told[0]) == ["text"]
        return str(self.told[0]["text"])


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    hook = Webhook("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.headers["content-type"] == "application/json"
            hook.told.append(json.loads(body))
            self.send_response(hook.status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hook.url = f"http://127.0.0.1:{server.server_port}/services/secret"
    yield hook
    server.shutdown()
    server.server_close()


def retrain(dsn: str, *arguments: str, code: int = 0, **env: str) -> Result:
    """``two-tower retrain --json``, which must exit with ``code``; in this process, which has loaded PyTorch."""
    environment = {"COLUMNS": "500", **env}
    done = CliRunner().invoke(app, ["retrain", "--dsn", dsn, "--json", *arguments], env=environment)
    assert done.exit_code == code, f"{done.output}{done.exception!r}"
    return done


def states(db: Connection) -> dict[str, str]:
    return dict(db.execute("select version, state from two_tower.models order by registered_at").fetchall())


def lenient(db: Connection) -> None:
    """Makes the gate pass models of random likes, from which nothing can be learned."""
    db.execute("update two_tower.settings set value = '1' where name = 'gate_max_drop'")
    db.execute("update two_tower.settings set value = '0' where name = 'gate_over_popularity'")


def current(directory: Path) -> str | None:
    path = directory / "current" / "manifest.json"
    return str(json.loads(path.read_text())["version"]) if path.exists() else None


@pytest.mark.world(models=2)
def test_retraining_activates_publishes_notifies_and_retires(
    db: Connection, dsn: str, webhook: Webhook, tmp_path: Path
) -> None:
    lenient(db)
    done = retrain(dsn, *LENIENT, "--publish", f"file://{tmp_path}", TWO_TOWER_WEBHOOK=webhook.url)
    result = json.loads(done.stdout)
    version = result["version"]
    assert (result["previous"], result["published"], result["retired"], result["warnings"]) == ("v2", True, ["v1"], [])
    assert states(db) == {"v1": "retired", "v2": "standby", version: "active"}
    assert current(tmp_path) == version
    assert webhook.text.startswith(f"Model {version} is active; Recall@20 ")
    assert f"v2 stands by; published to file://{tmp_path}" in webhook.text
    meta = one(db, "select meta from two_tower.models where state = 'active'")
    assert meta["lineage"]["incumbent"] == "v2"
    # A rollback is possible.
    assert one(db, "select two_tower.rollback_model() ->> 'model_version'") == "v2"


def test_a_model_that_misses_the_gate_is_rejected_with_exit_code_3(
    db: Connection, dsn: str, webhook: Webhook, tmp_path: Path
) -> None:
    done = retrain(dsn, "--webhook", webhook.url, "--publish", f"file://{tmp_path}", code=3)
    assert "is rejected: recall@20 is " in done.stderr
    assert list(states(db).values()) == ["active", "rejected"]
    assert webhook.text.startswith("Retraining was stopped by a gate: ")
    assert "recall@20" in webhook.text
    assert webhook.text.endswith("Model v1 stays active.")
    assert current(tmp_path) is None
    report = one(db, "select report from two_tower.model_events where to_state = 'rejected'")
    assert any("recall@20" in reason for reason in report["reasons"])


@pytest.mark.soak
def test_retrain_honours_the_allowed_drop_in_settings(db: Connection, dsn: str) -> None:
    lenient(db)
    result = json.loads(retrain(dsn).stdout)
    assert states(db) == {"v1": "standby", result["version"]: "active"}


@pytest.mark.soak
@pytest.mark.parametrize("flag", ["--over-popularity", "--max-drop"])
def test_a_flag_of_retrain_overrides_its_own_limit_alone(flag: str, db: Connection, dsn: str, webhook: Webhook) -> None:
    value, other = {"--over-popularity": ("0", "of active v1"), "--max-drop": ("1", "times popularity's")}[flag]
    db.execute("update two_tower.settings set value = '100' where name = 'gate_over_popularity'")
    retrain(dsn, flag, value, "--webhook", webhook.url, code=3)
    assert list(states(db).values()) == ["active", "rejected"]
    assert other in webhook.text


def test_overrides_of_retrain_last_until_activation_and_are_recorded(db: Connection, dsn: str) -> None:
    before = db.execute("select name, value from two_tower.settings order by name").fetchall()
    version = json.loads(retrain(dsn, *LENIENT).stdout)["version"]
    overrides = {"gate_over_popularity": 0, "gate_max_drop": 1}
    for state in ("staged", "active"):
        event = "select report from two_tower.model_events where model_version = %s and to_state = %s"
        report = one(db, event, version, state)
        assert (report["reasons"], report["forced"], report["overrides"]) == ([], False, overrides)
    assert db.execute("select name, value from two_tower.settings order by name").fetchall() == before


def test_a_refused_activation_leaves_no_staged_version(
    db: Connection, dsn: str, webhook: Webhook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lenient(db)
    db.execute("update two_tower.settings set value = '-1' where name = 'gate_max_distance'")
    done = retrain(dsn, *LENIENT, "--webhook", webhook.url, code=1)
    assert "parity sample" in done.stderr  # registration measures by the same setting
    (kept,) = tmp_path.iterdir()
    assert str(kept) in webhook.text
    assert states(db) == {"v1": "active"}
    db.execute("update two_tower.settings set value = '0.001' where name = 'gate_max_distance'")
    db.execute("update two_tower.settings set value = '1.1' where name = 'gate_min_recall'")
    webhook.told.clear()
    retrain(dsn, *LENIENT, "--webhook", webhook.url, code=3)
    assert list(states(db).values()) == ["active", "retired"]
    assert "its lists hold" in webhook.text
    assert one(db, "select count(*) from pg_class where relname ~ '^(user|video)_embeddings_[0-9]+$'") == 2


@pytest.mark.soak
def test_failed_popularity_is_a_warning_and_undoes_no_activation(db: Connection, dsn: str, webhook: Webhook) -> None:
    lenient(db)
    db.execute("alter table two_tower.video_popularity add constraint broken check (score < 0) not valid")
    result = json.loads(retrain(dsn, *LENIENT, "--webhook", webhook.url).stdout)
    assert states(db) == {"v1": "standby", result["version"]: "active"}
    assert len(result["warnings"]) == 1
    assert result["warnings"][0].startswith("popularity was not updated: ")
    assert "popularity was not updated" in webhook.text


def test_retraining_without_likes_fails_and_notifies(db: Connection, dsn: str, webhook: Webhook) -> None:
    db.execute("delete from public.user_video_decisions")
    done = retrain(dsn, "--webhook", webhook.url, code=1)
    assert "no likes to learn from" in done.stderr
    assert states(db) == {"v1": "active"}
    assert webhook.text.startswith("Retraining failed while training: there are no likes to learn from")


def test_if_publishing_fails_the_old_model_stays_active(
    db: Connection, dsn: str, webhook: Webhook, tmp_path: Path
) -> None:
    lenient(db)
    (tmp_path / "file").write_text("in the way")
    retrain(dsn, *LENIENT, "--webhook", webhook.url, "--publish", f"file://{tmp_path}/file/models", code=1)
    assert list(states(db).values()) == ["active", "retired"]
    assert webhook.text.startswith("Retraining failed while publishing: ")


@pytest.mark.soak
def test_if_moving_current_fails_the_old_model_is_restored(
    db: Connection, dsn: str, webhook: Webhook, tmp_path: Path
) -> None:
    lenient(db)
    (tmp_path / "current").write_text("no directory")
    retrain(dsn, *LENIENT, "--webhook", webhook.url, "--publish", f"file://{tmp_path}", code=1)
    assert list(states(db).values()) == ["active", "retired"]
    assert one(db, "select two_tower.active_version()") == "v1"
    assert webhook.text.endswith("Model v1 stays active.")


@pytest.mark.sampled(1)
@pytest.mark.parametrize("fault", ["status", "nobody there", "no URL"])
def test_a_failing_webhook_is_a_warning_without_its_url(fault: str, db: Connection, dsn: str, webhook: Webhook) -> None:
    lenient(db)
    webhook.status = 500
    url = {"status": webhook.url, "nobody there": "http://127.0.0.1:9/secret", "no URL": "secret"}[fault]
    done = retrain(dsn, *LENIENT, "--webhook", url)
    assert len(json.loads(done.stdout)["warnings"]) == 1
    assert "warning: the webhook" in done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert list(states(db).values()) == ["standby", "active"]
