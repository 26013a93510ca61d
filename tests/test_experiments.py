"""Experiments: which users each version serves (I5 per user), what the registry refuses meanwhile, and the reported
figures."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import psycopg
import pytest
from psycopg import errors
from typer.testing import CliRunner

from conftest import Connect, Connection
from tiers import some
from two_tower.cli.main import app
from world_fixtures import NAMESPACE, Client, column, copy_rows, make_world, one, tiny_model

pytestmark = pytest.mark.world(models=2)

WORLD = make_world()
START = "select two_tower.start_experiment(%s, %s, %s)"
STOP = "select two_tower.stop_experiment(%s)"
IN_SHARE = "select u.id from unnest(%s::uuid[]) as u (id) where two_tower.in_share(u.id, %s, %s)"


def start(db: Connection, share: float = 0.5, control: str = "v2", challenger: str = "v1") -> int:
    return int(one(db, START, control, challenger, share)["experiment"])


def answers(client: Client, db: Connection, user: UUID) -> dict[str, Any]:
    """All answers of a version to a user, or to the service on the user's behalf. Ids of lists contain the version."""
    videos = [str(v) for v in WORLD.published[:40]]
    asks: dict[str, dict[str, Any]] = {
        "recommend_videos": {"because": True},
        "similar_videos": {"video_id": videos[5]},
        "recommend_from": {"liked": videos[:3], "noped": videos[3:4], "because": True},
        "rank_candidates": {"video_ids": videos, "because": True},
        "popular_videos_now": {},
        "trending_videos": {},
        "embed_user": {},
        "get_user_embedding_features": {"user_id": user},
    }
    found: dict[str, Any] = {name: client.rpc("authenticated", user, name, **given) for name, given in asks.items()}
    found["for the user"] = client.rpc("service_role", None, "recommend_videos", p_user_id=user, because=True)
    found["embedded for the user"] = client.rpc("service_role", None, "embed_user", p_user_id=user)
    with client.as_("authenticated", user) as connection:
        for view in ("public.user_embeddings", "public.video_embeddings"):
            query = f"select model_version, md5(string_agg(t::text, '' order by t::text)) from {view} t group by 1"
            found[view] = connection.execute(query.encode()).fetchall()
        with connection.transaction(force_rollback=True):
            found["next_videos"] = connection.execute(
                "select to_jsonb(n) from public.next_videos(because => true) n"
            ).fetchall()
    found["recommend_batch"] = db.execute("select * from two_tower.recommend_batch(%s)", [[user]]).fetchall()
    found["preview"] = db.execute("select * from two_tower.preview_recommendations(%s)", [[user]]).fetchall()
    return found


def test_i5_a_user_sees_only_one_version(db: Connection, client: Client) -> None:
    """Each answer equals that of the same version when it serves everybody, also for a version with recency."""
    tiny_model(db, "v3", seed=3, recency=0.4)
    users = [WORLD.usual, WORLD.many, WORLD.one_like, WORLD.only_nopes, WORLD.no_decisions, *WORLD.users[6:9]]
    alone = {"v3": {user: answers(client, db, user) for user in users}}
    db.execute("select two_tower.rollback_model()")
    alone["v2"] = {user: answers(client, db, user) for user in users}
    db.execute("select two_tower.activate_model('v3')")
    number = start(db, 0.5, "v3", "v2")
    challenged = set(column(db, IN_SHARE, users, number, 0.5))
    assert 0 < len(challenged) < len(users), "both versions are seen"
    for user in users:
        version = "v2" if user in challenged else "v3"
        assert one(db, "select two_tower.served_version(%s)", user) == version
        found = answers(client, db, user)
        for name, expected in alone[version][user].items():
            assert found[name] == expected, f"{name} of a user of {version}"
    assert alone["v2"][WORLD.usual] != alone["v3"][WORLD.usual]


def test_visitors_and_operators_are_served_by_the_active_version(db: Connection, client: Client) -> None:
    start(db, 0.999)
    liked = [str(v) for v in WORLD.published[:3]]
    assert {row["model_version"] for row in client.rpc("anon", None, "recommend_from", liked=liked)} == {"v2"}
    assert {row["model_version"] for row in client.rpc("anon", None, "similar_videos", video_id=liked[0])} == {"v2"}
    with client.as_("service_role") as connection:
        assert column(connection, "select distinct model_version from public.video_embeddings") == ["v2"]
        assert one(connection, "select mixed_versions from two_tower.status") == 0


def test_a_larger_share_keeps_its_users_and_draws_are_independent(db: Connection) -> None:
    """With many users, each share is met within chance, a larger share includes the smaller, and another experiment
    draws independently."""
    users = [uuid5(NAMESPACE, f"drawn {n}") for n in range(20_000)]
    shares = (0.01, 0.1, 0.5, 0.9)
    for number in (1, 2, 77):
        drawn = [set(column(db, IN_SHARE, users, number, share)) for share in shares]
        for share, of_share in zip(shares, drawn, strict=True):
            assert abs(len(of_share) - share * 20_000) < 4.5 * (share * (1 - share) * 20_000) ** 0.5
        assert all(smaller <= larger for smaller, larger in pairwise(drawn))
    halves = [set(column(db, IN_SHARE, users, number, 0.5)) for number in (1, 2)]
    assert abs(len(halves[0] & halves[1]) - 5000) < 300


# ------------------------------------------------------------------------------------------------ the registry


def test_versions_cannot_change_state_during_their_experiment(db: Connection) -> None:
    tiny_model(db, "v3", seed=3, activate=False)
    db.execute("call two_tower.backfill_model('v3')")
    start(db)
    for statement in (
        "select two_tower.activate_model('v1')",
        "select two_tower.activate_model('v3', true)",
        "select two_tower.rollback_model()",
        "select two_tower.rollback_model('v1')",
        "select two_tower.retire_model('v1')",
        "update two_tower.model_versions set state = 'retired' where version = 'v1'",
        "update two_tower.model_versions set state = 'standby' where version = 'v2'",
        "select two_tower.start_experiment('v2', 'v3')",
    ):
        with pytest.raises(errors.ObjectInUse, match="an experiment compares v2 and v1") as caught:
            db.execute(statement.encode())
        assert "two-tower ab stop" in (caught.value.diag.message_hint or "")
    assert one(db, "select two_tower.active_version()") == "v2"
    # The third version is shown to nobody.
    db.execute("select two_tower.retire_model('v3')")
    db.execute(STOP, ["v1"])
    assert one(db, "select two_tower.active_version()") == "v1"
    assert column(db, "select state from two_tower.model_versions order by number") == ["active", "standby", "retired"]


@pytest.mark.parametrize(("winner", "active"), [("v1", "v1"), ("v2", "v2"), (None, "v2")])
def test_stopping_an_experiment_serves_the_winner_to_everybody(
    winner: str | None, active: str, db: Connection, client: Client
) -> None:
    start(db)
    told = one(db, STOP, winner)
    assert (told["model_version"], told["winner"], told["changed"]) == (active, winner, winner == "v1")
    for user in WORLD.users[5:15]:
        assert {row["model_version"] for row in client.rpc("authenticated", user, "recommend_videos")} == {active}
    kept = db.execute("select winner, stopped_at >= started_at from two_tower.experiments").fetchall()
    assert kept == [(winner, True)]
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="no experiment is running"):
        db.execute(STOP, [None])
    assert start(db, 0.5, active, {"v1": "v2", "v2": "v1"}[active]) == 2


@pytest.mark.parametrize(
    ("given", "state", "told"),
    [
        (("v1", "v2", 0.1), "55000", "model v1 does not serve"),
        (("v2", "v2", 0.1), "22023", "takes two versions"),
        (("v2", "v9", 0.1), "P0002", "no model version v9"),
        (("v9", "v1", 0.1), "P0002", "no model version v9"),
        (("v2", None, 0.1), "22023", "takes two versions"),
        (("v2", "v1; drop table videos", 0.1), "P0002", "no model version"),
        *(
            (("v2", "v1", share), "22023", "above 0 and below 1")
            for share in (0, 1, -0.1, 1.5, None, "nan", "infinity")
        ),
    ],
)
def test_impossible_experiments_are_refused(given: Any, state: str, told: str, db: Connection) -> None:
    with pytest.raises(psycopg.Error, match=told) as caught:
        db.execute(START, given)
    assert caught.value.sqlstate == state
    assert one(db, "select count(*) from two_tower.experiments") == 0


def test_a_candidate_passes_its_gate_before_users_see_it(db: Connection, connect: Connect) -> None:
    tiny_model(db, "v3", seed=3, activate=False)
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="v3 is not backfilled"):
        start(db, 0.1, "v2", "v3")
    db.execute("call two_tower.backfill_model('v3')")
    db.execute("update two_tower.settings set value = '0.9' where name = 'gate_min_recall_at_20'")
    with pytest.raises(psycopg.Error, match=r"v3 does not pass its gate: recall@20 is 0.5") as caught:
        start(db, 0.1, "v2", "v3")
    assert caught.value.sqlstate == "TT003"
    service = connect()
    service.execute("set role service_role")
    assert one(service, "select two_tower.start_experiment('v2', 'v3', 0.1, true)")["forced"] is True
    states = db.execute("select state, forced from two_tower.model_versions where version = 'v3'").fetchall()
    assert states == [("standby", True)]
    event = (
        "select from_state, to_state, forced, report is not null from two_tower.model_events order by id desc limit 1"
    )
    assert db.execute(event).fetchall() == [("staged", "standby", True, True)]
    # A rollback does not go back to the loser by default.
    service.execute("select two_tower.stop_experiment('v2')")
    assert one(service, "select two_tower.rollback_model()")["model_version"] == "v1"
    assert one(service, "select two_tower.activate_model('v3')")["changed"] is True


def test_two_concurrent_starts_start_one_experiment(db: Connection, connect: Connect) -> None:
    first, second = connect(autocommit=False), connect()
    first.execute(START, ["v2", "v1", 0.1])
    for statement in (START, "select two_tower.activate_model(%s)"):
        with pytest.raises(errors.ObjectInUse, match="activation is under way"):
            second.execute(statement, ["v2", "v1", 0.1] if statement == START else ["v1"])
    second.execute("set lock_timeout = '1s'")
    with pytest.raises(psycopg.Error):
        second.execute("select two_tower.retire_model('v1', '0.2 seconds')")
    first.commit()
    with pytest.raises(errors.ObjectInUse, match="an experiment compares"):
        second.execute("select two_tower.retire_model('v1')")
    with pytest.raises(errors.UniqueViolation):
        db.execute("insert into two_tower.experiments (control, challenger, share) values ('a', 'b', 0.5)")


def test_clients_cannot_read_experiments(db: Connection, client: Client) -> None:
    start(db)
    for role, user in (("anon", None), ("authenticated", WORLD.usual)):
        for query in (
            "select * from two_tower.experiments",
            "select * from two_tower.experiment_days(1)",
            "select * from two_tower.shown_rates()",
            "select two_tower.start_experiment('v2', 'v1')",
            "select two_tower.stop_experiment()",
            f"select two_tower.served_version('{WORLD.many}')",
            f"select two_tower.in_share('{WORLD.many}', 1, 0.5)",
        ):
            with pytest.raises(errors.InsufficientPrivilege), client.as_(role, user) as connection:
                connection.execute(query.encode())


# ------------------------------------------------------------------------------------------------ figures


def shown(db: Connection, rows: list[tuple[Any, ...]]) -> None:
    """Writes impressions: user, video, days ago, version."""
    db.execute(
        "select two_tower.make_impression_day((now() at time zone 'UTC')::date - n) from generate_series(0, 40) as n"
    )
    for user, video, age, version in rows:
        db.execute(
            """insert into two_tower.impressions (user_id, shown_at, list_id, video_id, rank, model_version, reason)
            values (%s, now() - %s * interval '1 day', gen_random_uuid(), %s, 1, %s, 'taste')""",
            (user, age, video, version),
        )


def decided(db: Connection, user: UUID, video: UUID, kind: str, age: float) -> None:
    db.execute(
        """insert into user_video_decisions values (%s, %s, %s, now() - %s * interval '1 day')
        on conflict (user_id, video_id) do update set decision_type = excluded.decision_type,
            created_at = excluded.created_at""",
        (user, video, kind, age),
    )


def test_figures_equal_values_computed_by_hand(db: Connection) -> None:
    """A like counts once, after it was shown, from its day on, for the version that serves the user."""
    number = start(db)
    db.execute("update two_tower.experiments set started_at = now() - interval '10 days'")
    served = {user: one(db, "select two_tower.served_version(%s)", user) for user in WORLD.users}
    ones = [user for user in WORLD.users if served[user] == "v1"][:2]
    twos = [user for user in WORLD.users if served[user] == "v2"][:2]
    free = WORLD.published
    db.execute("delete from user_video_decisions where user_id = any (%s)", [ones + twos])
    shown(
        db,
        [
            *((ones[0], free[n], 5, "v1") for n in range(4)),
            (ones[0], free[0], 3, "v1"),  # once more
            (ones[1], free[4], 4, "v1"),
            (ones[1], free[5], 4, "v2"),  # logged for a version that does not serve the user
            *((twos[0], free[n], 5, "v2") for n in range(2)),
            (twos[1], free[0], 20, "v2"),  # before the experiment
        ],
    )
    decided(db, ones[0], free[0], "like", 2)
    decided(db, ones[0], free[1], "nope", 4.5)
    decided(db, ones[0], free[2], "like", 6)  # before it was shown
    decided(db, ones[0], free[3], "skip", 1)
    decided(db, ones[1], free[4], "like", 1)
    decided(db, twos[0], free[7], "like", 1)  # not shown
    last = db.execute(
        """select distinct on (model_version) model_version, users, shown, likes, nopes, like_rate, nope_rate
        from two_tower.experiment_days(%s) order by model_version, day desc""",
        [number],
    ).fetchall()
    assert last == [("v1", 2, 5, 2, 1, 0.4, 0.2), ("v2", 1, 2, 0, 0, 0, 0)]
    likes = column(
        db, "select likes from two_tower.experiment_days(%s) where model_version = 'v1' order by day", number
    )
    assert likes == sorted(likes)
    assert likes[0] == 0
    coverage = db.execute("select model_version, videos, share from two_tower.experiment_coverage(%s)", [number])
    catalogue = one(db, "select count(*) from two_tower.visible_videos")
    found = {version: (videos, round(share * catalogue, 6)) for version, videos, share in coverage}
    # Of two users one is drawn: half of 5 videos that one user saw each.
    assert found == {"v1": (5, 2.5), "v2": (2, 2)}
    assert one(db, "select count(*) from two_tower.experiment_tests(%s) where p_value is not null", number) == 0
    reasons = db.execute(
        "select model_version, reason, shown, likes from two_tower.shown_rates(8) order by 1"
    ).fetchall()
    assert reasons == [("v1", "taste", 5, 2), ("v2", "taste", 3, 0)]


def test_a_user_counts_as_a_thousand_videos_at_most(db: Connection) -> None:
    """On each day, as if what the user was shown and liked until then had been scaled down."""
    number = start(db)
    db.execute("update two_tower.experiments set started_at = now() - interval '10 days'")
    bot, *others = [user for user in WORLD.users if one(db, "select two_tower.served_version(%s)", user) == "v1"][:3]
    db.execute("delete from user_video_decisions where user_id = any (%s)", [[bot, *others]])
    db.execute(
        "insert into videos (product_url) select 'https://videos.example/bot/' || n from generate_series(1, 2000) n"
    )
    videos = column(db, "select id from videos where product_url like '%%/bot/%%' order by product_url")
    shown(
        db, [(other, video, 5, "v1") for other, count in zip(others, (7, 3), strict=True) for video in videos[:count]]
    )
    decided(db, others[0], videos[0], "like", 4)
    day = "now() - %s * interval '1 day'"
    log = f"""insert into two_tower.impressions (user_id, shown_at, list_id, video_id, rank, model_version, reason)
        select %s, {day}, gen_random_uuid(), v, 1, 'v1', 'taste' from unnest(%s::uuid[]) v"""
    like = f"insert into user_video_decisions select %s, v, 'like', {day} from unnest(%s::uuid[]) v"
    for age, first, last in ((5, 0, 600), (3, 600, 2000)):
        db.execute(log.encode(), (bot, age, videos[first:last]))
    for age, first, last in ((5, 0, 300), (2, 600, 1800)):
        db.execute(like.encode(), (bot, age, videos[first:last]))
    found = db.execute(
        """select users, shown, likes, like_rate, like_variance from two_tower.experiment_days(%s)
        where model_version = 'v1' order by day""",
        [number],
    ).fetchall()
    # (shown, liked) of each of the three until the end of each day.
    until = [(600, 300), (600, 300), (2000, 300), (2000, 1500)]
    assert len(found) == len(until)
    for at, ((users, shows, likes, rate, variance), (all_shown, all_likes)) in enumerate(
        zip(found, until, strict=True)
    ):
        share = min(1, 1000 / all_shown)
        m = np.array([all_shown * share, 7, 3])
        hits = np.array([all_likes * share, float(at > 0), 0])
        assert (users, shows, likes) == (3, round(m.sum()), round(hits.sum()))
        assert rate == pytest.approx(hits.sum() / m.sum())
        residual = hits - hits.sum() / m.sum() * m
        assert variance == pytest.approx((residual**2).sum() * 3 / 2 / m.sum() ** 2, rel=1e-9)


def test_the_variance_of_a_rate_is_that_over_users(db: Connection) -> None:
    """It equals numpy's, and that of resampled users."""
    rng = np.random.default_rng(1)
    sums = "select two_tower.rate_variance(%s, %s, %s, %s, %s, %s)"
    for users, most in ((2, 3), (10, 5), (400, 60)):
        m = rng.integers(1, most, users).astype(float)
        hits = rng.binomial(m.astype(int), rng.beta(2, 8, users)).astype(float)
        found = one(db, sums, users, m.sum(), hits.sum(), (m * m).sum(), (hits * hits).sum(), (m * hits).sum())
        residual = hits - hits.sum() / m.sum() * m
        assert found == pytest.approx((residual**2).sum() * users / (users - 1) / m.sum() ** 2, rel=1e-9, abs=1e-15)
    drawn = rng.integers(0, users, (2000, users))
    assert found == pytest.approx((hits[drawn].sum(1) / m[drawn].sum(1)).var(), rel=0.15)
    assert one(db, sums, 1, 5, 1, 25, 1, 5) is None
    assert one(db, sums, 2, 0, 0, 0, 0, 0) is None


def test_tests_give_valid_intervals_for_any_variance(db: Connection) -> None:
    """For all sizes, from a million users to users who all behave the same."""
    ask = "select p_value, low, high from two_tower.compare_rates(%s, %s, %s, %s, %s, %s, %s, %s)"

    def answer(rate_a: float, rate_b: float, variance: float, users: int = 10**6, hits: int = 10**5) -> Any:
        found = db.execute(ask, (rate_a, variance, users, hits, rate_b, variance, users, hits)).fetchone()
        assert found is not None
        return found

    for variance in (1e-300, 1e-30, 1e-12, 1e-6, 1e-3, 1.0, 1e6):
        for rate_b in (0.1, 0.1 + 1e-12, 0.11, 0.9, 1.0):
            p_value, low, high = answer(0.1, rate_b, variance)
            assert 0 < p_value <= 1
            assert low <= rate_b - 0.1 <= high
            assert (p_value <= 0.05) == (low >= 0 or high <= 0)
    assert answer(0.1, 0.2, 0.0) == (None, None, None)
    assert answer(0.1, 0.2, 1e-6, users=49) == (None, None, None)
    assert answer(0.1, 0.2, 1e-6, hits=9) == (None, None, None)
    assert answer(0.1, 0.2, 1e-6, users=50, hits=10)[0] < 0.05


DAYS, RUNS, USERS = 14, 1000, 600


def experiments(share: float, rate: float, lift: float, seed: int) -> list[tuple[float, ...]]:
    """Sums over users of RUNS experiments at the end of each of DAYS: run, day, and of both sides rate_variance()'s
    arguments. Users come over the days, return as they like, and differ in how much they like."""
    rng = np.random.default_rng(seed)
    shape, concentration = (RUNS, USERS), 12.0
    challenged = rng.random(shape, np.float32) < share
    mean = np.where(challenged, rate * (1 + lift), rate)
    likes_it = rng.beta(mean * concentration, (1 - mean) * concentration)
    arrival = rng.integers(0, DAYS, shape)
    returns = rng.beta(1, 3, shape).astype(np.float32)
    m, hits = np.zeros(shape), np.zeros(shape)
    rows = []
    for day in range(DAYS):
        there = (arrival == day) | ((arrival < day) & (rng.random(shape, np.float32) < returns))
        seen = rng.integers(5, 30, int(there.sum()))
        m[there] += seen
        hits[there] += rng.binomial(seen, likes_it[there])
        sums = [np.arange(RUNS), np.full(RUNS, day)]
        for side in (~challenged, challenged):
            a, b = m * side, hits * side
            sums += [(a > 0).sum(1), a.sum(1), b.sum(1), (a * a).sum(1), (b * b).sum(1), (a * b).sum(1)]
        rows += np.stack(sums, axis=1).tolist()
    return rows


def crossed(db: Connection, rows: list[tuple[float, ...]]) -> tuple[float, float]:
    """Share of the runs in which any day's p-value was at most 0.05, and in which any day's interval missed the true
    difference of 0."""
    names = [f"{name}_{side}" for side in "ab" for name in ("n", "m", "h", "m2", "h2", "mh")]
    db.execute(f"create temp table looks (run int, day int, {', '.join(f'{name} float8' for name in names)})".encode())
    copy_rows(db, f"looks (run, day, {', '.join(names)})", [(int(row[0]), int(row[1]), *row[2:]) for row in rows])
    found = db.execute(
        """select avg(hit::int), avg(missed::int) from (
            select bool_or(coalesce(t.p_value <= 0.05, false)) as hit,
                bool_or(coalesce(t.low > 0 or t.high < 0, false)) as missed
            from looks l
            cross join lateral two_tower.compare_rates(
                h_a / nullif(m_a, 0), two_tower.rate_variance(n_a::bigint, m_a, h_a, m2_a, h2_a, mh_a),
                n_a::bigint, h_a::bigint,
                h_b / nullif(m_b, 0), two_tower.rate_variance(n_b::bigint, m_b, h_b, m2_b, h2_b, mh_b),
                n_b::bigint, h_b::bigint
            ) t
            group by l.run
        ) as r"""
    ).fetchone()
    db.execute("drop table looks")
    assert found is not None
    return float(found[0]), float(found[1])


@pytest.mark.parametrize("case", some([(0.5, 0.1), (0.1, 0.02), (0.1, 0.1), (0.5, 0.4)], 1))
def test_of_1000_experiments_without_a_difference_few_find_one(case: tuple[float, float], db: Connection) -> None:
    """With a look on each of 14 days, a nominal error of 5 % is at most 7 %."""
    hit, missed = crossed(db, experiments(*case, 0.0, seed=3))
    assert hit == missed, "the interval and the p-value say the same"
    assert hit <= 0.07


def test_of_1000_experiments_with_a_difference_most_find_it(db: Connection) -> None:
    """600 users, half of them each, a like rate of 10 % that becomes 14.5 %, looked at on each of 14 days."""
    hit, _ = crossed(db, experiments(0.5, 0.1, 0.45, seed=4))
    assert hit >= 0.8


# ------------------------------------------------------------------------------------------------ output


@pytest.mark.soak
def test_verbs_and_metrics_show_the_same_figures(
    db: Connection, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", dsn)
    run = CliRunner()

    def two_tower(*words: str, code: int = 0) -> str:
        done = run.invoke(app, [*words])
        assert done.exit_code == code, done.output
        return done.output

    assert "no experiment was started" in two_tower("ab", "status")
    assert "between 0 and 1" in two_tower("ab", "start", "v2", "v1", "--share", "1", code=2)
    assert "does not serve" in two_tower("ab", "start", "v1", "v2", code=1)
    started = two_tower("ab", "start", "v2", "v1", "--share", "0.4", "--publish", f"file://{tmp_path}")
    assert "v1 serves 40.0% of the users" in started
    assert {path.parent.name for path in tmp_path.glob("*/manifest.json")} == {"v1", "v2"}
    assert "ab stop" in two_tower("model", "rollback", code=1)
    assert "ab stop" in two_tower("retrain", code=1)
    assert "there are no impressions of both versions yet" in two_tower("ab", "status")
    rows = []
    for n, user in enumerate(uuid5(NAMESPACE, f"seen {n}") for n in range(400)):
        version = one(db, "select two_tower.served_version(%s)", user)
        rows += [(user, video, 0.01, version) for video in WORLD.published[:10]]
        db.execute("insert into auth.users (id) values (%s)", [user])
        liked = n % 5 < 4 if version == "v1" else n % 5 == 0
        for video in WORLD.published[: 3 if liked else 0]:
            decided(db, user, video, "like", 0)
        decided(db, user, WORLD.published[9], "nope", 0)
    db.execute("update two_tower.experiments set started_at = now() - interval '1 day'")
    shown(db, rows)
    found = json.loads(two_tower("ab", "status", "--json"))
    assert found["better"] == "v1"
    assert [row["model_version"] for row in found["versions"]] == ["v2", "v1"]
    assert found["versions"][1]["coverage"]["videos"] == 10
    assert "v1 is liked more; to have it serve everybody: two-tower ab stop --winner v1" in two_tower("ab", "status")
    measured = two_tower("metrics")
    for row in found["versions"]:
        version = row["model_version"]
        assert f'two_tower_experiment_users{{version="{version}"}} {float(row["users"])}' in measured
        assert f'two_tower_experiment_rate{{rate="like",version="{version}"}} {row["like_rate"]}' in measured
    assert "two_tower_experiment_p_value" in measured
    assert "not in the experiment" in two_tower("ab", "stop", "--winner", "v3", code=1)
    assert "v1 serves everybody" in two_tower("ab", "stop", "--winner", "v1")
    assert "two_tower_experiment_" not in two_tower("metrics")
    assert "v1 was made the winner" in two_tower("ab", "status", "1")
    assert "no experiment 7" in two_tower("ab", "status", "7", code=1)


def test_a_rate_with_unknown_variance_has_no_interval(db: Connection) -> None:
    bounds = "select low is null and high is null, coalesce(low >= 0 and high <= 1, true) from two_tower.rate_interval"
    assert db.execute(f"{bounds}(0.1, null)".encode()).fetchone() == (True, True)
    assert db.execute(f"{bounds}(0.1, 0.0001)".encode()).fetchone() == (False, True)


def test_a_decision_dated_in_the_future_does_not_count(db: Connection) -> None:
    user, video = WORLD.no_decisions, WORLD.published[0]
    shown(db, [(user, video, 0.5, "v1")])
    db.execute("insert into user_video_decisions values (%s, %s, 'like', '2099-01-01')", (user, video))
    outcomes = "select label from two_tower.shown_outcomes(now() - interval '1 day') where user_id = %s"
    assert db.execute(outcomes, [user]).fetchall() == [(None,)]
