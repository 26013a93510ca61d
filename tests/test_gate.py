"""The gate in the database: its inputs, its comparisons, and its limits, by settings or by overrides of a run."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb
from typer.testing import CliRunner

from conftest import Connection, NewDatabase, in_database
from two_tower.cli.main import app
from two_tower.lifecycle import gate, registry
from two_tower.server.embedded import Server
from world_fixtures import (
    METRICS,
    TinyModel,
    load,
    make_world,
    one,
    random_model,
    register,
    schema_of,
)

pytestmark = pytest.mark.world

ROOT = Path(__file__).parent.parent
WORLD = make_world()
LATE = datetime(2026, 1, 1, tzinfo=UTC)
"""Later than every decision of the world."""


def evaluate(dsn: str, *words: str, code: int = 0) -> dict[str, Any]:
    """``two-tower evaluate --json``, which must exit with ``code``."""
    done = CliRunner().invoke(app, ["evaluate", *words, "--dsn", dsn, "--json"])
    assert done.exit_code == code, (done.output, done.exception)
    return dict(json.loads(done.stdout))


def like(db: Connection, at: datetime) -> None:
    """Ten new likes by each of 40 users, of videos without a decision of theirs."""
    chance = random.Random(0)
    rows = [
        (user, video, at)
        for user in WORLD.users[5:45]
        for video in chance.sample([v for v in WORLD.published if v not in WORLD.decided(user)], 10)
    ]
    with db.cursor() as cursor:
        cursor.executemany(
            """insert into public.user_video_decisions (user_id, video_id, decision_type, created_at)
            values (%s, %s, 'like', %s)""",
            rows,
        )


def put(db: Connection, name: str, value: float) -> None:
    """Changes a row of two_tower.settings."""
    assert db.execute("update two_tower.settings set value = %s where name = %s", (Jsonb(value), name)).rowcount == 1


# ------------------------------------------------------------------------------------------------ parity


@pytest.mark.sampled(1)
@pytest.mark.parametrize("waits", ["in the log", "collected", "for a video"])
def test_evaluate_ignores_users_with_pending_changes(waits: str, db: Connection, dsn: str) -> None:
    if waits == "for a video":
        db.execute(
            """update public.videos set maker = 'another', price = 39 where id in (
                select video_id from public.user_video_decisions group by video_id order by count(*) desc limit 10
            )"""
        )
    else:
        like(db, LATE)
    if waits == "collected":
        db.execute("select two_tower.collect_user_changes()")
    put(db, "gate_sample", 1000)
    verdict = evaluate(dsn, "v1")
    assert verdict["reasons"] == []
    assert all(distance is not None and distance < 1e-5 for distance in verdict["parity"].values())


def test_evaluate_compares_vectors_computed_from_rows_with_stored_ones(db: Connection, dsn: str) -> None:
    db.execute(
        """update two_tower.user_embeddings
        set embedding = (select v.embedding from two_tower.video_embeddings v limit 1) where user_id = %s""",
        (WORLD.usual,),
    )
    put(db, "gate_sample", 1000)
    verdict = evaluate(dsn, "v1", code=3)
    assert [r for r in verdict["reasons"] if r.startswith("the engine and what is stored, users differ by")]


def test_evaluate_compares_a_candidate_that_has_no_vectors_yet(db: Connection, dsn: str) -> None:
    register(db, random_model(schema_of(db), seed=2), "v2")
    parity = evaluate(dsn, "v2")["parity"]
    assert [what for what, distance in parity.items() if distance is None] == [
        "the engine and what is stored, users",
        "the engine and what is stored, videos",
    ]


# These take changes, or count them by table; everything else must read two_tower.pending_users.
MACHINERY = re.compile(
    r"sql/(40_changes|50_refresh)/.*|sql/30_inference/embed_user\.sql|sql/55_jobs/purge_logs\.sql|sql/90_privileges\.sql"
)
READS = re.compile(
    r"""(?<!delete\ )\b(?:from|join|using|table|copy|only)\s+(?:"?two_tower"?\.)?"?user_change(?:s|_log)\b"""
    r"""|(?:\{\w*\}|%I|%s|\|\|\s*')_change(?:s|_log)\b""",
    re.IGNORECASE | re.VERBOSE,
)


def test_only_the_refresh_machinery_reads_the_change_logs() -> None:
    files = [path for folder in ("sql", "py", "plpython") for path in sorted((ROOT / folder).rglob("*.[ps][yq]*"))]
    assert len(files) > 150
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in files
        if path.suffix in (".sql", ".py") and not MACHINERY.fullmatch(str(path.relative_to(ROOT)))
        for match in READS.finditer(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "select from two_tower.user_changes c",
        "join two_tower.user_change_log l on true",
        'Identifier(f"{kind}_changes")',
        "format('two_tower.%I_changes', kind)",
        "'two_tower.' || kind || '_changes'",
    ],
)
def test_every_way_of_reading_a_change_log_is_found(text: str) -> None:
    assert READS.search(text)
    assert not READS.search("insert into two_tower.user_changes (user_id) values (p_user_id)")
    assert not READS.search("exists (select from two_tower.pending_users c)")


# ------------------------------------------------------------------------------------------------ comparisons


def at(moment: datetime) -> dict[str, str]:
    return {"trained_at": moment.isoformat()}


@pytest.fixture(scope="module")
def fresh_template(cluster: Server, template: str) -> Iterator[str]:
    """Name of a database with many new likes, where ``v1``, trained long ago, is active with overstated metrics."""
    name = f"fresh_{uuid4().hex[:12]}"
    with psycopg.connect(cluster.dsn, autocommit=True) as admin:
        admin.execute(f"create database {name} template {template}".encode())
        with psycopg.connect(in_database(cluster.dsn, name), autocommit=True) as db:
            load(db, WORLD)
            like(db, LATE)
            register(db, random_model(schema_of(db), seed=6), "v1", at(LATE - timedelta(days=2)))
            registry.activate(db, "v1", lambda what, share: None, force=True)
        yield name
        admin.execute(f"drop database {name} with (force)".encode())


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, database: NewDatabase, fresh_template: str) -> str:
    """A copy of that database for one test."""
    monkeypatch.setattr(gate, "FRESH_USERS", 10)
    return database(template=fresh_template)


@pytest.mark.soak
def test_evaluate_measures_the_incumbent_again_on_the_same_likes(fresh: str) -> None:
    with psycopg.connect(fresh, autocommit=True) as db:
        # The same towers under another name are equal on the same likes, whatever v1's record says.
        register(db, random_model(schema_of(db), seed=6), "v2", at(LATE - timedelta(days=1)))
        verdict = evaluate(fresh, "v2", "--over-popularity", "0")
        assert verdict["measured_on"] == "likes since it was trained"
        assert verdict["incumbent"]["version"] == "v1"
        for name in ("recall@20", "ndcg@20"):
            assert 0 < verdict["metrics"]["two-tower"][name] == verdict["incumbent"]["metrics"][name] != 0.5
        # And a worse one is recognised, though its record is equally overstated.
        before = verdict["incumbent"]["metrics"]
        register(db, random_model(schema_of(db), seed=0), "v3", at(LATE - timedelta(days=1)))
        own = evaluate(fresh, "v3", "--over-popularity", "0", "--max-drop", "1")["metrics"]["two-tower"]
        worse = [name for name in ("recall@20", "ndcg@20") if own[name] < before[name]]
        assert worse, "of these random weights, those of v3 are to be the worse ones: try another seed"
        reasons = evaluate(fresh, "v3", "--over-popularity", "0", "--max-drop", "0", code=3)["reasons"]
        assert [reason.split()[0] for reason in reasons] == worse
        assert all(f"{before[name]:.4f} of active v1" in reason for name, reason in zip(worse, reasons, strict=True))


@pytest.mark.soak
def test_a_version_with_other_vocabularies_is_measured_on_the_same_likes(fresh: str) -> None:
    with psycopg.connect(fresh, autocommit=True) as db:
        schema = schema_of(db)
        keys = {name: keys[: len(keys) // 2] for name, keys in schema.vocabularies.items()}
        register(db, random_model(replace(schema, vocabularies=keys)), "v2", at(LATE - timedelta(days=1)))
    verdict = evaluate(fresh, "v2", "--over-popularity", "0", "--max-drop", "1")
    assert verdict["measured_on"] == "likes since it was trained"
    assert verdict["incumbent"]["metrics"] == evaluate(fresh, "v1", "--over-popularity", "0")["metrics"]["two-tower"]
    assert verdict["incumbent"]["metrics"]["recall@20"] not in (0, 0.5)


@pytest.mark.parametrize("later", ["v1", "v2", "unknown"])
def test_gate_compares_records_if_a_version_was_trained_on_new_likes(later: str, fresh: str) -> None:
    """Likes on which one of them was trained would favour it."""
    after = LATE + timedelta(days=1)
    meta = {"v1": at(LATE - timedelta(days=1)), "v2": at(after), "unknown": {}}[later]
    with psycopg.connect(fresh, autocommit=True) as db:
        if later == "v1":
            register(db, random_model(schema_of(db)), "v1.later", at(after))
            registry.activate(db, "v1.later", lambda what, share: None, force=True)
        register(db, random_model(schema_of(db), seed=2), "v2", meta)
    verdict = evaluate(fresh, "v2")
    assert verdict["measured_on"] == "likes held out of its training"
    assert verdict["metrics"]["two-tower"] == verdict["incumbent"]["metrics"] == METRICS["two-tower"]


def test_evaluate_says_what_the_incumbent_was_measured_on(fresh: str) -> None:
    with psycopg.connect(fresh, autocommit=True) as db:
        register(db, random_model(schema_of(db)), "v2", at(LATE - timedelta(days=1)))
        register(db, random_model(schema_of(db)), "v3", at(LATE + timedelta(days=1)))
    for version, said in (("v2", "on the same likes"), ("v3", "on likes held out of its own training")):
        done = CliRunner().invoke(app, ["evaluate", version, "--over-popularity", "0", "--dsn", fresh])
        assert f"active v1, {said}: Recall@20 " in done.output


# ------------------------------------------------------------------------------------------------ limits


@dataclass(frozen=True)
class Limit:
    """A setting of the gate, values that ``METRICS`` compared with themselves reach and miss, and the message."""

    setting: str
    reached: float
    missed: float
    said: str
    option: str | None = None
    """The option that overrides it."""


LIMITS = [
    Limit("gate_max_drop", 0.05, -0.5, r"recall@20 is 0\.5000, more than -50\.0 % below the", "--max-drop"),
    Limit("gate_over_popularity", 4.9, 5.1, r"must be at least 5\.1 times popularity's 0\.1000", "--over-popularity"),
    Limit("gate_min_recall_at_20", 0.5, 0.51, r"recall@20 is 0\.5000, and must be at least 0\.5100", "--min-recall"),
    Limit("gate_min_ndcg_at_20", 0.5, 0.51, r"ndcg@20 is 0\.5000, and must be at least 0\.5100", "--min-ndcg"),
    Limit("gate_max_distance", 1, 0.1, r"towers differ by a cosine distance of 0\.2, and may by 0\.1"),
]
MEASURED = {"distances": {"towers": 0.2}}
CASES = [
    # setting, override, whether the candidate passes
    ("reached", None, True),
    ("missed", None, False),
    ("missed", "reached", True),
    ("reached", "missed", False),
]


@pytest.fixture
def candidate(db: Connection) -> TinyModel:
    model = random_model(schema_of(db), seed=2)
    register(db, model, "v2")
    return model


@pytest.mark.sampled(2)
@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.setting)
def test_each_limit_is_a_setting_and_an_override_comes_first(
    limit: Limit, db: Connection, candidate: TinyModel
) -> None:
    put(db, "gate_max_distance", 1)
    for setting, override, good in CASES:
        put(db, limit.setting, getattr(limit, setting))
        overrides = {limit.setting: getattr(limit, override)} if override else {}
        found = one(db, "select two_tower.gate_metrics('v2', %s, %s)", Jsonb(MEASURED), Jsonb(overrides))
        assert (found == []) == good, (setting, override, found)
        assert good or any(re.search(limit.said, reason) for reason in found)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("verb", ["evaluate", "backfill", "activate"])
@pytest.mark.parametrize("limit", [limit for limit in LIMITS if limit.option], ids=lambda limit: limit.setting)
def test_each_verb_obeys_the_settings_and_its_options_override_them(
    limit: Limit, verb: str, db: Connection, dsn: str, candidate: TinyModel
) -> None:
    for n, (setting, override, good) in enumerate(CASES):
        put(db, limit.setting, getattr(limit, setting))
        version = register(db, candidate, f"case{n}")
        words = [*(["evaluate"] if verb == "evaluate" else ["model", verb]), version, "--dsn", dsn]
        if override:
            assert limit.option
            words += [limit.option, str(getattr(limit, override))]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == (0 if good else 3), (setting, override, done.output)
        assert good or re.search(limit.said, done.output)
        state = one(db, "select state from two_tower.models where version = %s", version)
        assert state == {"evaluate": "candidate", "backfill": "staged", "activate": "active"}[verb] or (
            state == "rejected" and not good
        )


def test_train_reports_the_reasons_of_the_gate(db: Connection, dsn: str) -> None:
    """A model of random likes has low metrics; the settings determine which limits refuse it."""
    for name, value in (("gate_max_drop", 1), ("gate_over_popularity", 0), ("gate_min_recall_at_20", 0.99)):
        put(db, name, value)
    for wanted in (True, False):
        done = CliRunner().invoke(app, ["train", "--dsn", dsn, "--json", "--version", f"v{wanted}"])
        assert done.exit_code == 0, done.output
        reasons = json.loads(done.stdout)["reasons"]
        assert [reason.split(",")[-1] for reason in reasons] == [" and must be at least 0.9900"] * wanted
        put(db, "gate_min_recall_at_20", 0)


def test_overrides_apply_to_the_gates_own_measurements(db: Connection, candidate: TinyModel) -> None:
    registry.backfill(db, "v2", lambda what, share: None)
    db.execute(
        """update two_tower.video_embeddings set embedding = (
            select embedding from two_tower.video_embeddings where model_version = 'v1' order by video_id limit 1
        ) where model_version = 'v2' and video_id = (
            select video_id from two_tower.video_embeddings where model_version = 'v2'
            order by hashtextextended(video_id::text, 0) desc limit 1
        )"""
    )

    def found(**overrides: float) -> list[str]:
        return list(one(db, "select two_tower.gate_model('v2', null, %s) -> 'reasons'", Jsonb(overrides)))

    assert found() == []  # not in a sample of 50
    assert [reason[:17] for reason in found(gate_sample=1000)] == ["what is stored is"]
    assert found(gate_sample=1000, gate_max_distance=2) == []
    assert found(gate_min_recall=1.01) == ["its lists hold 1.0000 of the nearest videos, and must find 1.01"]


@pytest.mark.parametrize("verb", ["stage_model", "activate_model"])
def test_staging_and_activation_judge_the_given_measurements(verb: str, db: Connection, candidate: TinyModel) -> None:
    if verb == "activate_model":
        registry.backfill(db, "v2", lambda what, share: None)
    measured = {"metrics": {"v2": METRICS, "v1": {"two-tower": {"recall@20": 0.9, "ndcg@20": 0.1}}}}
    call = f"select two_tower.{verb}(%s, false, %s, %s)"
    said = r"recall@20 is 0\.5000, more than 5\.0 % below the 0\.9000 of active v1"
    version = "v2"
    if verb == "stage_model":
        assert re.search(said, one(db, call, version, Jsonb(measured), Jsonb({}))["reasons"][0])
        version = register(db, candidate, "v3")  # v2 is rejected
        measured["metrics"][version] = METRICS
    else:
        with pytest.raises(psycopg.Error, match=said) as caught:
            one(db, call, version, Jsonb(measured), Jsonb({}))
        assert caught.value.sqlstate == registry.GATE
    overrides = {"gate_max_drop": 0.5}
    one(db, call, version, Jsonb(measured), Jsonb(overrides))
    report = one(db, "select report from two_tower.model_events order by id desc limit 1")
    assert (report["measured"], report["overrides"]) == (measured, overrides)


def test_metrics_of_one_version_are_not_compared_with_a_record_of_another(db: Connection, candidate: TinyModel) -> None:
    found = one(db, "select two_tower.gate_metrics('v2', %s)", Jsonb({"metrics": {"v2": METRICS}}))
    assert found == ["active v1 was not measured on the same likes"]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("distance", ["nan", "Infinity", "2"])
def test_distances_that_are_not_small_numbers_fail(distance: str, db: Connection, candidate: TinyModel) -> None:
    found = one(db, "select two_tower.gate_metrics('v2', %s)", Jsonb({"distances": {"these": distance, "those": None}}))
    assert len(found) == 1
    assert found[0].startswith("these differ by a cosine distance of")


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"gate_max_dorp": 1}, "there is no gate setting gate_max_dorp"),
        ({"inference_engine": 1}, "there is no gate setting inference_engine"),
        (
            {"gate_max_drop": "little"},
            'the override of gate_max_drop must be a number from -1000 to 1000, and is "little"',
        ),
        ({"gate_max_drop": None}, "the override of gate_max_drop must be a number from -1000 to 1000, and is null"),
        ({"gate_sample": 1.5}, "the override of gate_sample must be a whole number from 1 to 1000000, and is 1.5"),
        ([1], "overrides of the gate must be an object, and are [1]"),
    ],
)
def test_invalid_overrides_are_refused(overrides: Any, said: str, db: Connection, candidate: TinyModel) -> None:
    for call in ("gate_metrics('v2', null, %s)", "gate_model('v2', null, %s)", "stage_model('v2', false, null, %s)"):
        with pytest.raises(errors.InvalidParameterValue, match=re.escape(said)):
            one(db, f"select two_tower.{call}", Jsonb(overrides))
    assert one(db, "select state from two_tower.models where version = 'v2'") == "candidate"


def test_a_nan_distance_is_passed_to_the_gate_as_nan() -> None:
    """JSON has no NaN, and a null would pass."""
    unit, broken = np.eye(2, 4, dtype=np.float32), np.zeros((2, 4), dtype=np.float32)
    with np.errstate(invalid="ignore"):
        distance = gate._distance(unit, broken)
    found = gate.Measured("v2", "", {"two-tower": {"auc": float("nan")}}, None, {"a": distance, "b": 0.5}, fresh=True)
    assert found.numbers() == {
        "metrics": {"v2": {"two-tower": {"auc": None}}},
        "distances": {"a": "nan", "b": 0.5},
    }
