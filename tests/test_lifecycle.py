"""Deployments do not disturb readers and writers: backfills, gates, flips, rollbacks and retirements (I3, I5)."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import UUID

import onnx
import psycopg
import pytest
from onnx import TensorProto, helper, numpy_helper
from psycopg import errors
from typer.testing import CliRunner

import model_files as untyped_model_files
from conftest import Connect, Connection, NewDatabase, Prepared, WorldOf
from two_tower.bench import lifecycle
from two_tower.cli.main import app
from two_tower.errors import GateFailed
from two_tower.lifecycle import registry
from world_fixtures import (
    ENGINE,
    METRICS,
    TinyModel,
    column,
    ident,
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

model_files: Any = untyped_model_files  # its functions name no types, since PL/Python's arguments have none
WORLD = make_world()
K = 10


@pytest.fixture
def dsn(database: NewDatabase, world_of: WorldOf, prepared: Prepared, request: pytest.FixtureRequest) -> str:
    """The small world with an active model; for tests with the fixture :func:`staged`, with the next one staged."""
    world = world_of(ENGINE, **request.node.get_closest_marker("world").kwargs)
    return database(template=prepared(world, stage) if "staged" in request.fixturenames else world)


@pytest.fixture
def candidate(db: Connection) -> TinyModel:
    """A valid model that is not registered yet."""
    return random_model(schema_of(db), seed=2)


def quiet(what: str, share: float) -> None:
    pass


def states(db: Connection) -> dict[str, str]:
    return dict(db.execute("select version, state from two_tower.models").fetchall())


def activate(db: Connection, version: str, force: bool = False) -> dict[str, Any]:
    return dict(one(db, "select two_tower.activate_model(%s, %s)", version, force))


def set_to(db: Connection, name: str, value: str) -> None:
    assert db.execute("update two_tower.settings set value = %s where name = %s", (value, name)).rowcount == 1


def wrong_vectors(db: Connection, version: str) -> list[Any]:
    """Ids whose stored vector is missing, or differs from what the version computes from the present rows."""
    query = """
        select coalesce(e.id, s.id) from (
            select video_id as id, embedding from two_tower.embed_videos(array(select id from public.videos), %(v)s)
            union all
            select user_id, embedding from two_tower.embed_users(array(select id from auth.users), %(v)s)
        ) e
        full join (
            select video_id as id, embedding from two_tower.video_embeddings where model_version = %(v)s
            union all
            select user_id, embedding from two_tower.user_embeddings where model_version = %(v)s
        ) s on s.id = e.id
        where (e.embedding = s.embedding) is not true"""
    with db.cursor() as cursor:
        cursor.execute(
            "set local search_path = public, extensions"
            if not db.autocommit
            else "set search_path = public, extensions"
        )
        return [row[0] for row in cursor.execute(query, {"v": version})]


# ------------------------------------------------------------------------------------------------ readers


class Readers:
    """Eight clients that request recommendations as fast as they can, and wait for locks at most half a second."""

    def __init__(self, connect: Connect, versions: tuple[str, ...], clients: int = 8) -> None:
        self.connect, self.clients = connect, clients
        self.stop = threading.Event()
        self.answers = 0
        self.mixed: list[Any] = []
        self.seen: set[str] = set()
        with contextlib.closing(connect()) as db:
            users = [u for u in WORLD.users if WORLD.of(u, "like")][:20]
            self.users = users
            self.expected: dict[tuple[UUID, str], list[Any]] = {}
            query = "select video_id, score from two_tower.rank_videos(%s, %s) order by rank"
            for version in versions:
                with db.transaction(force_rollback=True):
                    activate(db, version)
                    for user in users:
                        self.expected[user, version] = db.execute(query.encode(), (user, K)).fetchall()

    def __enter__(self) -> Readers:
        self.pool = ThreadPoolExecutor(self.clients)
        self.work = [self.pool.submit(self._read, seed) for seed in range(self.clients)]
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop.set()
        self.pool.shutdown()
        for work in self.work:
            work.result()

    def _read(self, seed: int) -> None:
        chance = random.Random(seed)
        with contextlib.closing(self.connect()) as db:
            db.execute("set lock_timeout = '500ms'")
            db.execute("set role authenticated")
            while not self.stop.is_set():
                user = chance.choice(self.users)
                db.execute(
                    "select set_config('request.jwt.claims', json_build_object('sub', %s::text)::text, false)", (user,)
                )
                rows = db.execute(
                    "select video_id, score, model_version from recommend_videos(%s) order by rank", (K,)
                ).fetchall()
                versions = {version for _, _, version in rows}
                if len(versions) != 1 or self.expected[user, rows[0][2]] != [row[:2] for row in rows]:
                    self.mixed.append((user, rows))
                self.seen |= versions
                self.answers += 1


@pytest.mark.world(models=2)
def test_i5_eight_readers_through_thirty_flips_get_no_mixed_answer(db: Connection, connect: Connect) -> None:
    with Readers(connect, ("v1", "v2")) as readers:
        for turn in range(30):
            if turn % 3:
                db.execute("select two_tower.rollback_model()")
            else:
                activate(db, "v1" if one(db, "select two_tower.active_version()") == "v2" else "v2")
            time.sleep(0.02)
    assert readers.mixed == []
    assert readers.seen == {"v1", "v2"}
    assert readers.answers > 100


@pytest.mark.soak
def test_backfill_activation_and_retirement_do_not_block_readers(
    db: Connection, connect: Connect, candidate: TinyModel
) -> None:
    with Readers(connect, ("v1",)) as readers:
        for version in ("v2", "v3"):
            register(db, candidate, version)
            db.execute("call two_tower.backfill_model(%s)", (version,))
            db.execute("select two_tower.retire_model(%s)", (version,))
    assert readers.mixed == []
    assert states(db) == {"v1": "active", "v2": "retired", "v3": "retired"}
    assert one(db, "select count(*) from pg_class where relname ~ '^(user|video)_embeddings_[0-9]+$'") == 2


@pytest.mark.world(models=2)
def test_retirement_yields_to_a_long_reader_and_blocks_nobody(db: Connection, connect: Connect) -> None:
    reader = connect(autocommit=False)
    reader.execute("select count(*) from public.user_embeddings")
    with Readers(connect, ("v1", "v2")) as readers:
        with pytest.raises(errors.LockNotAvailable, match="v1 is still being read or written"):
            db.execute("select two_tower.retire_model('v1', '2 seconds')")
        assert states(db) == {"v1": "standby", "v2": "active"}
        reader.rollback()
        db.execute("select two_tower.retire_model('v1')")
    assert readers.mixed == []
    assert states(db) == {"v1": "retired", "v2": "active"}


@pytest.mark.soak
@pytest.mark.database
def test_the_benchmark_yields_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = lifecycle.Scale(videos=500, users=60, readers=2, flips=6, pause=0.02)
    monkeypatch.setattr(lifecycle.Scale, "quick", lambda: toy)
    done = CliRunner().invoke(app, ["bench", "lifecycle", "--quick", "--json"])
    assert done.exit_code == 0, done.output
    figures = {figure["figure"]: figure for figure in json.loads(done.stdout)}
    assert list(figures) == ["flip_p50_ms", "flip_p99_ms", "slowest_read_ms", "mixed_answers"]
    assert figures["mixed_answers"]["value"] == 0


# ------------------------------------------------------------------------------------------------ backfill


def test_i3_changes_during_the_embedding_of_videos_are_refreshed_when_it_is_over(
    db: Connection, candidate: TinyModel
) -> None:
    register(db, candidate, "v2")
    db.execute("select two_tower.stage_model('v2')")
    while one(db, "select seen from two_tower.backfill_batch('v2', 'video', null, 100)"):
        pass
    # All of it happens between a video's embedding and the attaching, and is refreshed only for the active version.
    changed, gone, new = WORLD.videos[10], WORLD.videos[11], ident("video", 9999)
    db.execute("update public.videos set maker = 'maker c', price = 3 where id = %s", (changed,))
    db.execute("delete from public.video_tags where video_id = %s", (changed,))
    db.execute("delete from public.videos where id = %s", (gone,))
    db.execute(
        "insert into public.videos (id, product_url, title) values (%s, 'https://videos.example/new', 'New')", (new,)
    )
    db.execute("delete from public.user_video_decisions where user_id = %s", (WORLD.usual,))
    refresh(db)
    assert one(db, "select live_versions from two_tower.live_versions()") == ["v1"]
    db.execute("call two_tower.backfill_model('v2')")
    assert one(db, "select live_versions from two_tower.live_versions()") == ["v1", "v2"]
    # These, and no others, are computed once more.
    assert set(column(db, "select video_id from two_tower.video_changes")) == {changed, gone, new}
    refresh(db)
    assert wrong_vectors(db, "v2") == []
    assert wrong_vectors(db, "v1") == []


@pytest.mark.soak
def test_refreshes_and_likes_go_on_while_the_index_is_built(
    db: Connection, connect: Connect, candidate: TinyModel
) -> None:
    register(db, candidate, "v2")
    db.execute("select two_tower.stage_model('v2')")
    while one(db, "select seen from two_tower.backfill_batch('v2', 'video', null, 100)"):
        pass
    builder = connect(autocommit=False)
    assert builder.execute("select two_tower.index_partitions('v2')").fetchone() == (True,)
    # The index is built, but not committed: the builder holds all of its locks now.
    db.execute("set lock_timeout = '500ms'")
    like = "insert into public.user_video_decisions (user_id, video_id, decision_type) values (%s, %s, 'like')"
    db.execute(like, (WORLD.no_decisions, WORLD.videos[20]))
    db.execute("update public.videos set maker = 'maker c' where id = %s", (WORLD.videos[10],))
    refresh(db)
    assert one(db, "select count(*) from two_tower.pending_users") == 0
    assert wrong_vectors(db, "v1") == []
    builder.commit()
    db.execute("call two_tower.backfill_model('v2')")
    assert wrong_vectors(db, "v2") == []


def test_a_backfill_that_is_killed_resumes_where_it_was(db: Connection, connect: Connect, candidate: TinyModel) -> None:
    register(db, candidate, "v2")
    db.execute("select two_tower.stage_model('v2')")
    worker, batch = connect(), len(WORLD.videos) // 3
    for _ in range(2):
        worker.execute("select two_tower.backfill_batch('v2', 'video', null, %s)", (batch,))
    dying = connect(autocommit=False)
    dying.execute("select two_tower.backfill_batch('v2', 'video', null, %s)", (batch // 2,))
    db.execute("select pg_terminate_backend(%s)", (dying.info.backend_pid,))
    number = one(db, "select number from two_tower.model_versions where version = 'v2'")
    done = f"select video_id, updated_at from two_tower.video_embeddings_{number} order by 1"
    before = db.execute(done.encode()).fetchall()
    assert len(before) == 2 * batch
    share = one(db, "select backfilled from two_tower.models where version = 'v2'")
    liking = {user for user, _, decision, _ in WORLD.decisions if decision == "like"}
    assert float(share) == round(len(before) / (len(WORLD.videos) + len(liking)), 3)
    registry.backfill(db, "v2", quiet)
    assert set(before) <= set(db.execute(done.encode()).fetchall())
    assert one(db, "select backfilled from two_tower.models where version = 'v2'") == 1
    assert wrong_vectors(db, "v2") == []


@pytest.mark.soak
def test_several_workers_share_the_work_and_progress_only_grows(database: NewDatabase) -> None:
    world = make_world(600, 400)
    with psycopg.connect(database(), autocommit=True) as db:
        load(db, world)
        refresh(db)
        register(db, random_model(schema_of(db)), "v1")
        shares: list[float] = []
        registry.backfill(db, "v1", lambda what, share: shares.append(share), workers=3)
        assert wrong_vectors(db, "v1") == []
        assert states(db) == {"v1": "staged"}
    assert shares
    embedding = [share for share in shares if share != 0.5]
    assert embedding == sorted(embedding)


@pytest.mark.soak
def test_concurrent_backfill_procedures_share_the_work(db: Connection, connect: Connect, candidate: TinyModel) -> None:
    register(db, candidate, "v2")
    with ThreadPoolExecutor(3) as pool:
        workers = [pool.submit(connect().execute, "call two_tower.backfill_model('v2')") for _ in range(3)]
        for worker in workers:
            worker.result()
    assert states(db)["v2"] == "staged"
    assert wrong_vectors(db, "v2") == []
    assert activate(db, "v2")["changed"]


def test_a_backfill_by_the_command_line_and_procedures_share_the_work(
    db: Connection, connect: Connect, candidate: TinyModel
) -> None:
    register(db, candidate, "v2")
    db.execute("select two_tower.stage_model('v2')")
    with ThreadPoolExecutor(2) as pool:
        procedure = pool.submit(connect().execute, "call two_tower.backfill_model('v2')")
        registry.backfill(db, "v2", quiet, workers=2)
        procedure.result()
    assert wrong_vectors(db, "v2") == []
    assert activate(db, "v2")["changed"]


@pytest.mark.soak
def test_if_one_worker_fails_the_others_end_and_a_second_call_continues(database: NewDatabase) -> None:
    with psycopg.connect(database(), autocommit=True) as db:
        load(db, make_world(3_000, 50))
        refresh(db)
        register(db, random_model(schema_of(db)), "v1")

        def stumble(what: str, share: float) -> None:
            if share > 0.1:
                raise RuntimeError("stumbled")

        with pytest.raises(RuntimeError, match="stumbled"):
            registry.backfill(db, "v1", stumble, workers=3)
        assert 0.1 < one(db, "select backfilled from two_tower.models where version = 'v1'") < 1
        registry.backfill(db, "v1", quiet, workers=3)
        assert wrong_vectors(db, "v1") == []


@pytest.mark.sampled(1)
@pytest.mark.parametrize("how", ["activate", "flip", "roll_back"])
def test_a_flip_is_durable_even_with_asynchronous_commits(how: str, db: Connection, candidate: TinyModel) -> None:
    if how == "roll_back":
        tiny_model(db, "v2", seed=2)
    else:
        register(db, candidate, "v2")
    if how == "flip":
        registry.backfill(db, "v2", quiet)
    db.execute("""create table public.flipped (at pg_lsn);
        create function public.note() returns trigger language plpgsql as
        $f$ begin insert into public.flipped values (pg_current_wal_insert_lsn()); return null; end $f$;
        create trigger note after update on two_tower.model_versions for each row
            when (new.state = 'active') execute function public.note()""")
    db.execute("set synchronous_commit = off")
    if how == "activate":
        registry.activate(db, "v2", quiet)
    elif how == "flip":
        registry.flip(db, "v2")
    else:
        registry.roll_back(db)
    assert one(db, "select pg_current_wal_flush_lsn() > (select max(at) from public.flipped)")
    assert one(db, "show synchronous_commit") == "off"


@pytest.mark.soak
def test_a_version_backfilled_during_traffic_is_as_fresh_as_the_active(
    db: Connection, connect: Connect, candidate: TinyModel
) -> None:
    register(db, candidate, "v2")
    stop = threading.Event()

    def traffic(seed: int) -> None:
        chance = random.Random(seed)
        with contextlib.closing(connect()) as mine:
            while not stop.is_set():
                user = chance.choice(WORLD.users)
                video = chance.choice(WORLD.videos)
                mine.execute(
                    """insert into public.user_video_decisions (user_id, video_id, decision_type)
                    values (%s, %s, 'like') on conflict (user_id, video_id) do update set decision_type = 'nope'""",
                    (user, video),
                )
                if chance.random() < 0.2:
                    mine.execute(
                        "update public.videos set maker = %s where id = %s", (f"maker {chance.random()}", video)
                    )
                if chance.random() < 0.3:
                    mine.execute("call two_tower.refresh()")

    with ThreadPoolExecutor(2) as pool:
        work = [pool.submit(traffic, seed) for seed in range(2)]
        try:
            registry.backfill(db, "v2", quiet, workers=2)
        finally:
            stop.set()
        for one_ in work:
            one_.result()
    refresh(db)
    assert wrong_vectors(db, "v2") == []
    assert wrong_vectors(db, "v1") == []


# ------------------------------------------------------------------------------------------------ the gate


def worse(model: TinyModel, **metrics: float) -> TinyModel:
    assert model.metrics
    return replace(model, metrics=model.metrics | {"two-tower": METRICS["two-tower"] | metrics})


def test_a_model_worse_than_the_incumbent_is_rejected(db: Connection, candidate: TinyModel) -> None:
    register(db, worse(candidate, **{"ndcg@20": 0.47}), "v2")
    with pytest.raises(
        psycopg.Error, match=r"v2 is rejected: ndcg@20 is 0\.4700, more than 5\.0 % below the 0\.5000 of active v1"
    ) as e:
        db.execute("call two_tower.backfill_model('v2')")
    assert e.value.sqlstate == registry.GATE
    assert states(db) == {"v1": "active", "v2": "rejected"}
    assert one(
        db, "select report #>> '{reasons,0}' from two_tower.model_events where to_state = 'rejected'"
    ).startswith("ndcg@20")
    assert one(db, "select count(*) from pg_class where relname ~ '^(user|video)_embeddings_[0-9]+$'") == 2
    register(db, worse(candidate, **{"ndcg@20": 0.48}), "v3")  # within the allowed share
    registry.activate(db, "v3", quiet)
    register(db, worse(candidate, **{"recall@20": 0.4}), "v4")
    with pytest.raises(GateFailed, match="v4 is rejected"):
        registry.activate(db, "v4", quiet)


def test_the_first_model_is_compared_with_popularity(database: NewDatabase) -> None:
    with psycopg.connect(database(), autocommit=True) as db:
        load(db, WORLD)
        model = random_model(schema_of(db))
        register(db, worse(model, **{"recall@20": 0.05}), "v1")
        with pytest.raises(GateFailed, match=r"recall@20 is 0\.0500, more than 5\.0 % below the 0\.1000 of popularity"):
            registry.activate(db, "v1", quiet)
        assert model.metrics
        alone = replace(model, metrics={k: v for k, v in model.metrics.items() if k != "popularity"})
        register(db, alone, "v2")
        with pytest.raises(GateFailed, match="of popularity, which the first model is compared with, was not measured"):
            registry.activate(db, "v2", quiet)
        assert one(db, "select two_tower.active_version()") is None
        # Without users or vectors, a first model can still be activated.
        register(db, model, "v3")
        registry.activate(db, "v3", quiet)
        assert one(db, "select two_tower.active_version()") == "v3"


def test_force_overrules_the_gate_and_is_recorded(db: Connection, candidate: TinyModel) -> None:
    register(db, worse(candidate, **{"recall@20": 0.1}), "v2")
    registry.activate(db, "v2", quiet, force=True)
    assert states(db) == {"v1": "standby", "v2": "active"}
    assert one(db, "select forced from two_tower.models where version = 'v2'")
    events = db.execute(
        """select to_state, forced, report #>> '{reasons,0}' from two_tower.model_events
        where model_version = 'v2' order by id"""
    ).fetchall()
    reason = "recall@20 is 0.1000, more than 5.0 % below the 0.5000 of active v1"
    assert events == [("candidate", False, None), ("staged", True, reason), ("active", True, reason)]


def stage(db: Connection) -> None:
    register(db, random_model(schema_of(db), seed=2), "v2")
    db.execute("call two_tower.backfill_model('v2')")


@pytest.fixture
def staged(db: Connection) -> Connection:
    """``db`` with ``v2``, the candidate, ready to be activated."""
    return db


def refused(db: Connection, reason: str) -> None:
    """Asserts that ``v2`` is refused for only that reason, that nothing changes, and that force activates it."""
    with pytest.raises(psycopg.Error, match=f"model v2 does not pass its gate: {reason}") as caught:
        activate(db, "v2")
    assert caught.value.sqlstate == registry.GATE
    assert ";" not in (caught.value.diag.message_primary or "")
    assert states(db) == {"v1": "active", "v2": "staged"}
    assert activate(db, "v2", force=True)["forced"]
    assert one(db, "select forced from two_tower.models where version = 'v2'")


def test_the_gate_requires_a_vector_of_every_video(staged: Connection) -> None:
    staged.execute(
        "delete from two_tower.video_embeddings where model_version = 'v2' and video_id = %s", (WORLD.videos[9],)
    )
    refused(staged, "its backfill is not complete: it lacks the vectors of 1 videos and 0 users")


def test_the_gate_requires_a_vector_of_every_user(staged: Connection) -> None:
    staged.execute("delete from two_tower.user_embeddings where model_version = 'v2' and user_id = %s", (WORLD.usual,))
    refused(staged, "its backfill is not complete: it lacks the vectors of 0 videos and 1 users")


def test_the_gate_requires_stored_vectors_to_equal_computed_ones(staged: Connection) -> None:
    staged.execute(
        """update two_tower.video_embeddings set embedding = (
            select embedding from two_tower.video_embeddings where model_version = 'v1' order by video_id limit 1
        ) where model_version = 'v2'"""
    )
    refused(staged, "what is stored is .* from what it computes")


def test_the_gate_requires_the_index_to_find_the_nearest_videos(staged: Connection) -> None:
    set_to(staged, "gate_min_recall", "1.01")
    refused(staged, "its lists hold 1.0000 of the nearest videos, and must find 1.01")


def test_the_gate_compares_with_the_version_active_at_that_time(
    db: Connection, staged: Connection, candidate: TinyModel
) -> None:
    register(db, worse(candidate, **{"recall@20": 0.9}), "v3")
    registry.activate(db, "v3", quiet)
    with pytest.raises(psycopg.Error, match=r"recall@20 is 0\.5000, more than 5\.0 % below the 0\.9000 of active v3"):
        activate(db, "v2")


def test_pending_changes_do_not_fail_the_gate(staged: Connection) -> None:
    staged.execute("insert into public.videos (product_url, title) values ('https://videos.example/new', 'New')")
    staged.execute("update public.videos set maker = 'maker c' where id = %s", (WORLD.videos[10],))
    staged.execute(
        "insert into public.user_video_decisions (user_id, video_id, decision_type) values (%s, %s, 'like')",
        (WORLD.no_decisions, WORLD.videos[20]),
    )
    assert one(staged, "select two_tower.gate_model('v2') -> 'reasons'") == []
    assert activate(staged, "v2")["changed"]


def test_force_does_not_activate_a_version_during_its_backfill(db: Connection, candidate: TinyModel) -> None:
    register(db, candidate, "v2")
    db.execute("select two_tower.stage_model('v2')")
    db.execute("select two_tower.backfill_batch('v2', 'video', null, 100)")
    for force in (False, True):
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="v2 is not backfilled"):
            activate(db, "v2", force)
    assert states(db) == {"v1": "active", "v2": "staged"}


def test_a_setting_that_is_not_a_number_is_an_error(staged: Connection) -> None:
    """When it is set; and when it is read, if a session without triggers wrote it."""
    said = 'the setting gate_max_drop must be a number from -1000 to 1000, and is "little"'
    with pytest.raises(errors.InvalidParameterValue, match=said):
        set_to(staged, "gate_max_drop", '"little"')
    staged.execute("set session_replication_role = replica")
    set_to(staged, "gate_max_drop", '"little"')
    staged.execute("reset session_replication_role")
    with pytest.raises(errors.InvalidParameterValue, match=said):
        activate(staged, "v2")


# ------------------------------------------------------------------------------------------------ rollbacks


@pytest.mark.world(models=2)
def test_after_a_day_of_likes_the_old_version_is_as_fresh_as_the_new_one(db: Connection) -> None:
    chance = random.Random(1)
    for user in WORLD.users:
        for video in chance.sample(WORLD.videos, 5):
            db.execute(
                """insert into public.user_video_decisions (user_id, video_id, decision_type) values (%s, %s, %s)
                on conflict do nothing""",
                (user, video, chance.choice(["like", "nope"])),
            )
    db.execute("delete from public.videos where id = %s", (WORLD.videos[30],))
    db.execute("update public.videos set maker = 'maker c' where id = any (%s)", (WORLD.videos[40:60],))
    refresh(db)
    assert wrong_vectors(db, "v1") == []
    assert wrong_vectors(db, "v2") == []
    assert one(db, "select two_tower.rollback_model() ->> 'model_version'") == "v1"
    assert one(db, "select count(*) from two_tower.pending_users") == 0
    assert column(db, "select distinct model_version from public.user_embeddings") == ["v1"]


@pytest.mark.world(models=2)
def test_any_standby_version_can_be_rolled_back_to(db: Connection) -> None:
    tiny_model(db, "v3", seed=3)
    assert one(db, "select two_tower.rollback_model('v1') ->> 'previous'") == "v3"
    assert one(db, "select two_tower.rollback_model() ->> 'model_version'") == "v3"
    db.execute("select two_tower.retire_model('v1')")
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="v1 is retired, and cannot be activated"):
        db.execute("select two_tower.rollback_model('v1')")


@pytest.mark.world(models=2)
def test_even_the_owner_cannot_bypass_the_lifecycle(db: Connection, candidate: TinyModel) -> None:
    """The owner's statements on the tables are refused, too."""
    register(db, candidate, "v3")
    for statement in (
        "insert into two_tower.model_versions (version, state, schema_version, user_dim, item_dim) "
        "values ('x', 'active', 1, 1, 1)",
        "update two_tower.model_versions set state = 'active' where version = 'v3'",
        "update two_tower.model_versions set state = 'candidate' where version = 'v1'",
        "update two_tower.model_versions set user_dim = 1 where version = 'v3'",
        "update two_tower.model_files set content = 'x' where model_version = 'v3'",
        "update two_tower.model_documents set metrics = '{}'",
        "update two_tower.vocabularies set key = 'x' where model_version = 'v3' and index = 0 and vocabulary = 'tag'",
        "delete from two_tower.model_inputs where model_version = 'v2'",
        "delete from two_tower.model_versions where version = 'v1'",
        "delete from two_tower.model_versions where version = 'v2'",
        "truncate two_tower.model_versions cascade",
    ):
        with pytest.raises(errors.ObjectNotInPrerequisiteState):
            db.execute(statement.encode())
    # A version that is not live may be deleted; its history stays.
    db.execute("delete from two_tower.model_versions where version = 'v3'")
    assert one(db, "select count(*) from two_tower.model_inputs where model_version = 'v3'") == 0
    assert column(db, "select to_state from two_tower.model_events where model_version = 'v3'") == ["candidate"]


@pytest.mark.soak
def test_service_role_can_run_the_whole_lifecycle(db: Connection, connect: Connect, candidate: TinyModel) -> None:
    service = connect()
    service.execute("set role service_role")
    register(service, candidate, "v2")
    service.execute("call two_tower.backfill_model('v2')")
    assert one(service, "select two_tower.gate_model('v2') -> 'reasons'") == []
    assert activate(service, "v2")["previous"] == "v1"
    service.execute("select two_tower.rollback_model()")
    service.execute("select two_tower.retire_model('v2')")
    register(service, candidate, "v3")
    service.execute("select two_tower.reject_model('v3', %s)", (["it is a test"],))
    events = service.execute(
        """select to_state, role, report ->> 'reasons' from two_tower.model_events
        where model_version = 'v3' order by id"""
    )
    assert events.fetchall()[1] == ("rejected", "postgres", '["it is a test"]')


# ------------------------------------------------------------------------------------------------ files


def spoilt(model: TinyModel, graph: bytes) -> TinyModel:
    """``model`` with another user tower, and a parity sample that fits its hash."""
    import hashlib

    assert model.metrics
    parity = model.metrics["parity"]
    user = parity["user"] | {"sha256": hashlib.sha256(graph).hexdigest()}
    return replace(model, user_graph=graph, metrics=model.metrics | {"parity": parity | {"user": user}})


def external(graph: bytes) -> bytes:
    model = onnx.load_from_string(graph)
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "/etc/hostname")
    tensor.ClearField("raw_data")
    return bytes(model.SerializeToString())


def external_in_a_branch(graph: bytes) -> bytes:
    """Hides the tensor in an attribute of a node of a subgraph."""
    model = onnx.load_from_string(graph)
    tensor = numpy_helper.from_array(numpy_helper.to_array(model.graph.initializer[0]), "inner")
    onnx.external_data_helper.set_external_data(tensor, "../secrets")
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    branch = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, None)])
    condition = numpy_helper.from_array(__import__("numpy").array(True), "yes")
    model.graph.initializer.append(condition)
    model.graph.node.append(helper.make_node("If", ["yes"], ["unused"], then_branch=branch, else_branch=branch))
    return bytes(model.SerializeToString())


def custom_operator(graph: bytes) -> bytes:
    model = onnx.load_from_string(graph)
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return bytes(model.SerializeToString())


def own_function(graph: bytes) -> bytes:
    model = onnx.load_from_string(graph)
    node = helper.make_node("Identity", ["x"], ["y"])
    model.functions.append(helper.make_function("mine", "F", ["x"], ["y"], [node], [helper.make_opsetid("", 17)]))
    return bytes(model.SerializeToString())


def one_weight_changed(graph: bytes) -> bytes:
    model = onnx.load_from_string(graph)
    tensor = next(t for t in model.graph.initializer if t.name == "weight")
    weight = numpy_helper.to_array(tensor) * 1.0
    tensor.CopyFrom(numpy_helper.from_array((weight[:, ::-1]).astype("float32").copy(), "weight"))
    return bytes(model.SerializeToString())


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (external, r"keeps weights in other files \(weight\)"),
        (external_in_a_branch, "has a graph inside an operator"),
        (custom_operator, r"uses operators that are not of standard ONNX \(com.example\)"),
        (own_function, "has a function of its own"),
        (one_weight_changed, "does not answer its parity sample"),
        (lambda graph: graph[:-1000], "is not a whole ONNX model: a field is cut off"),
        (lambda graph: b"", "it has no operators"),
    ],
)
def test_an_invalid_model_file_is_refused(change: Any, reason: str, db: Connection, candidate: TinyModel) -> None:
    with pytest.raises(errors.InvalidParameterValue, match=reason):
        register(db, spoilt(candidate, change(candidate.user_graph)), "v2")
    assert states(db) == {"v1": "active"}
    assert one(db, "select count(*) from two_tower.model_files where model_version = 'v2'") == 0


def test_any_flipped_bit_is_refused(db: Connection, candidate: TinyModel) -> None:
    chance = random.Random(0)
    for _ in range(10):
        graph = bytearray(candidate.user_graph)
        graph[chance.randrange(len(graph))] ^= 1 << chance.randrange(8)
        with pytest.raises(errors.InvalidParameterValue):
            register(db, replace(candidate, user_graph=bytes(graph)), "v2")
    assert states(db) == {"v1": "active"}


def test_a_parity_sample_is_required_and_must_match(db: Connection, candidate: TinyModel) -> None:
    assert candidate.metrics
    register(db, candidate, "sound")
    parity = candidate.metrics["parity"]
    for user, reason in (
        (None, "no parity sample of the user tower"),
        (parity["user"] | {"inputs": []}, "no parity sample of the user tower"),
        (parity["user"] | {"inputs": [[[10**6, 1.0]]], "outputs": [[0.0] * 128]}, "does not fit"),
        (parity["user"] | {"outputs": parity["user"]["outputs"][:-1]}, "does not fit"),
        (parity["user"] | {"outputs": parity["user"]["outputs"][::-1]}, "does not answer"),
        (parity["item"], "is not the file that its parity sample was taken from"),
    ):
        metrics = candidate.metrics | {"parity": parity | {"user": user}}
        with pytest.raises(errors.InvalidParameterValue, match=reason):
            register(db, replace(candidate, metrics=metrics), "v2")


def test_oversized_files_and_invalid_weights_are_refused(db: Connection, candidate: TinyModel) -> None:
    for weights in (
        b"",
        b"none",
        b"\xff" * 16,
        candidate.weights[:-1],
        candidate.weights + b"0",
        b"\2\0\0\0\0\0\0\0[]",
    ):
        with pytest.raises(errors.InvalidParameterValue, match="not a safetensors file"):
            register(db, replace(candidate, weights=weights), "v2")
    set_to(db, "model_max_bytes", "1000")
    with pytest.raises(errors.InvalidParameterValue, match=r"user tower has [0-9]+ bytes, more than the 1000 allowed"):
        register(db, candidate, "v2")
    assert states(db) == {"v1": "active"}


def test_a_layout_that_the_encoder_does_not_support_is_refused(db: Connection, candidate: TinyModel) -> None:
    schema = candidate.feature_schema
    segments = schema["user"]["segments"]
    renamed = [segments[0], segments[1] | {"name": "loved_tags"}, *segments[2:]]
    shifted = [*segments[:-1], segments[-1] | {"offset": segments[-1]["offset"] + 1}]
    for user, reason in (
        (schema["user"] | {"segments": renamed}, "are not those of schema version 2"),
        (schema["user"] | {"segments": segments[:-1]}, "are not those of schema version 2"),
        (
            schema["user"] | {"numeric": ["age", "nope_count", "price_sum", "priced_count"]},
            "are not those of schema version 2",
        ),
        (schema["user"] | {"segments": shifted}, "begins at .* and must begin at"),
    ):
        with pytest.raises(errors.InvalidParameterValue, match=reason):
            register(db, replace(candidate, feature_schema=schema | {"user": user}), "v2")


@pytest.mark.soak
def test_checks_of_model_files_survive_any_bytes(candidate: TinyModel) -> None:
    chance = random.Random(0)
    graph = candidate.item_graph
    assert model_files.what_is_wrong_with_onnx(graph) is None
    assert model_files.inspect_onnx(graph)["nodes"] > 10
    for size in [*range(300), *(chance.randrange(len(graph)) for _ in range(300))]:
        for content in (graph[:size], chance.randbytes(size % 300), graph[:size] + chance.randbytes(9) + graph[size:]):
            reason = model_files.what_is_wrong_with_onnx(content)
            assert reason is None or isinstance(reason, str)
            reason = model_files.what_is_wrong_with_safetensors(content)
            assert reason is None or isinstance(reason, str)
    deep = b""
    for _ in range(200):
        for tag in (0x32, 0x2A, 0x0A):  # an attribute's graph, a node's attribute, a graph's node
            deep = bytes([tag]) + encoded(len(deep)) + deep
    assert "a graph inside an operator" in (
        model_files.what_is_wrong_with_onnx(b"\x3a" + encoded(len(deep)) + deep) or ""
    )


def encoded(number: int) -> bytes:
    """A number in the encoding of protocol buffers."""
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])
