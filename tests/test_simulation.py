"""A simulated application over several days: pages do not repeat, an experiment finds the better of two versions, and a
replay of impressions ranks versions as their users would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import torch
from psycopg.types.json import Jsonb

from conftest import Connection, NewDatabase, Prepared, WorldOf
from tiers import some
from two_tower.errors import UserError
from two_tower.lifecycle import registry, replay
from two_tower.server.experiments import report
from two_tower.simulation import Application
from two_tower.trainer.model import ItemTower, UserTower
from world_fixtures import ENGINE, ident, one, packed, register, schema_of

TASTES, FAME = 6, 6  # the axes of tastes, then that of fame
VERSIONS = ("popularity", "guess", "taste")
"""From the worst to the best: by popularity, by tastes with half noise, by the users' true tastes."""


@dataclass(frozen=True)
class Truth:
    videos: list[UUID]
    users: list[UUID]
    place: np.ndarray
    fame: np.ndarray
    chance: np.ndarray


def truth(published: list[UUID], users: int = 120, seed: int = 5) -> Truth:
    """Each user likes videos in one direction, famous ones at least a little, and hardly any others."""
    rng = np.random.default_rng(seed)
    place = rng.normal(size=(len(published), TASTES))
    place /= np.linalg.norm(place, axis=1, keepdims=True)
    fame = rng.random(len(published))
    wish = rng.normal(size=(users, TASTES))
    wish /= np.linalg.norm(wish, axis=1, keepdims=True)
    chance = 1 / (1 + np.exp(-(5.5 * wish @ place.T + 0.7 * fame - 3.5)))
    return Truth(published, [ident("simulated", n) for n in range(users)], place, fame, chance)


def versions_of(db: Connection) -> Truth:
    """Registers and backfills the three; ``popularity`` is active, the others are on standby."""
    db.execute(
        "delete from public.user_video_decisions where video_id not in (select id from two_tower.visible_videos)"
    )
    schema = schema_of(db)
    known = [UUID(key) for key in schema.vocabularies["video"]]
    # No version would know anything about the others.
    db.execute("update public.videos set published_at = null where id <> all (%s)", [known])
    found = truth(known)
    rng = np.random.default_rng(9)
    for version in VERSIONS:
        user, item = UserTower(schema), ItemTower(schema, hidden=16)
        place = found.place
        if version == "guess":
            place = 0.5 * place + 0.5 * rng.normal(size=place.shape) / TASTES**0.5
        liked, noped = (schema.segment("user", f"{name}_video_ids") for name in ("liked", "noped"))
        with torch.no_grad():
            for number in range(len(known)):
                vector = torch.zeros(127)
                if version == "popularity":
                    vector[FAME] = 0.1 + 0.8 * float(found.fame[number])
                else:
                    vector[:TASTES] = torch.tensor(place[number])
                item.own[number] = 0.9 * vector
                if version != "popularity":
                    user.weight[liked.offset + number] = vector
                    user.weight[noped.offset + number] = -0.3 * vector
            user.bias[FAME] = 1.0 if version == "popularity" else 0.01
        register(db, packed(schema, user, item), version)
        registry.activate(db, version, lambda what, share: None, force=True)
    db.execute("select two_tower.activate_model('popularity')")
    return found


@pytest.fixture
def live(database: NewDatabase, prepared: Prepared, world_of: WorldOf) -> Any:
    import psycopg

    name = prepared(world_of(ENGINE), versions_of)
    with psycopg.connect(database(template=name), autocommit=True) as db:
        known = [
            row[0]
            for row in db.execute(
                """select key::uuid from two_tower.vocabularies
                where model_version = 'taste' and vocabulary = 'video' order by index"""
            )
        ]
        found = truth(known)
        application = Application(db, found.users, found.videos, found.chance, np.random.default_rng(3))
        application.join(likes=4)
        yield application


@pytest.mark.soak
@pytest.mark.database
@pytest.mark.parametrize("days", some([2, 7], 1))
def test_an_experiment_finds_the_better_version_and_no_page_repeats(days: int, live: Application) -> None:
    db = live.connection
    started = one(db, "select two_tower.start_experiment('popularity', 'taste', 0.5)")
    live.stays = 0.4
    for _ in range(days):
        for visit in live.day():
            shown = [video for page in visit.pages for video in page]
            assert len(shown) == len(set(shown)), "a page repeats"
            assert visit.version == one(db, "select two_tower.served_version(%s)", visit.user)
    found = report(db, started["experiment"])
    assert found is not None
    assert found["better"] == "taste", found["tests"]
    assert found["split"] is None
    popularity, taste = found["versions"]
    assert taste["like_rate"] > popularity["like_rate"]
    assert taste["coverage"]["low"] > popularity["coverage"]["high"], "tastes differ, fame does not"
    assert {row["day"] for row in found["tests_by_day"]} == {row["day"] for row in found["days"]}


@pytest.mark.database
def test_a_replay_ranks_versions_by_their_true_like_rates(live: Application) -> None:
    """From randomly drawn pages while ``popularity`` is active; lists of the other versions are shown to nobody."""
    db = live.connection
    with pytest.raises(UserError, match="nothing that was shown in the last 30 days was drawn by chance"):
        replay.replay(db, "taste")
    live.stays, live.comes, live.page = 0.0, 1.0, 25
    days = []
    for _ in range(2):
        # Before the day, since videos liked on its pages are in no later list.
        days.append({version: expected(live, version) for version in VERSIONS})
        live.day(by_chance=True)
    found = {version: replay.replay(db, version) for version in VERSIONS}
    true = {version: float(np.mean([day[version] for day in days])) for version in VERSIONS}
    assert sorted(VERSIONS, key=true.get) == list(VERSIONS), true  # type: ignore[arg-type]
    estimated = {version: found[version]["like_rate"] for version in VERSIONS}
    assert sorted(VERSIONS, key=estimated.get) == list(VERSIONS), (true, estimated)  # type: ignore[arg-type]
    best = found["taste"]
    assert best["incumbent"]["version"] == "popularity"
    assert best["difference"]["low"] > 0
    assert replay.verdict(best) == "it would be liked more than popularity"
    for version in VERSIONS:
        assert abs(found[version]["support"] - 1) < 0.2, "everything could have been shown"
        assert found[version]["low"] < true[version] < found[version]["high"]
    assert found["popularity"]["difference"] is None

    # The gate can require it.
    db.execute("update two_tower.settings set value = '0.05' where name = 'gate_max_replay_drop'")
    assert judged(db, "taste") == []
    db.execute("select two_tower.activate_model('taste')")
    (reason,) = judged(db, "popularity")
    assert "of active taste" in reason
    assert judged(db, "popularity", {}) == [
        "it was not replayed on what was shown to users, which the setting gate_max_replay_drop asks for"
    ]
    db.execute("truncate two_tower.impressions")
    (reason,) = judged(db, "popularity")
    assert "its replay says nothing: nothing that was shown" in reason
    db.execute("update two_tower.settings set value = '1' where name = 'gate_max_replay_drop'")
    assert judged(db, "popularity", {}) == []


def judged(db: Connection, version: str, measured: dict[str, Any] | None = None) -> list[str]:
    """The gate's reasons by a replay, which is measured unless it is given."""
    found = replay.evidence(db, version) if measured is None else measured
    report = one(db, "select two_tower.gate_model(%s, %s)", version, Jsonb(found or {}))
    return [reason for reason in report["reasons"] if "replay" in reason]


def expected(live: Application, version: str) -> float:
    """True probability that the first videos of the version are liked."""
    column = {video: number for number, video in enumerate(live.videos)}
    row = {user: number for number, user in enumerate(live.users)}
    shown = live.connection.execute(
        "select user_id, video_id from two_tower.preview_recommendations(%s, %s, %s)",
        (live.users, version, live.page),
    ).fetchall()
    return float(np.mean([live.chance[row[user], column[video]] for user, video in shown if video in column]))
