"""Eight clients write likes at full speed during two refreshes: nobody waits, nothing fails or is lost (I3, I4)."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from uuid import UUID

import psycopg
import pytest

from conftest import Connect, Connection
from world_fixtures import column, make_world, one, state

pytestmark = pytest.mark.world

WORLD = make_world()
CLIENTS = 8
REFRESHERS = 2
SECONDS = 2.0


def test_i3_i4_many_likes_during_two_refreshes(db: Connection, connect: Connect) -> None:
    until = time.monotonic() + SECONDS
    calm = threading.Event()

    def like(connection: Connection, seed: int) -> dict[tuple[UUID, UUID], str | None]:
        """Writes at full speed; returns the final state of each pair. Clients share users, but not videos."""
        rng = random.Random(seed)
        mine = WORLD.videos[seed::CLIENTS]
        last: dict[tuple[UUID, UUID], str | None] = {}
        # A write that has to wait for a refresh fails.
        connection.execute("set lock_timeout = '100ms'")
        for turn in count():
            if time.monotonic() > until:
                return last
            user, video = rng.choice(WORLD.users), rng.choice(mine)
            kind = rng.choice(["like", "like", "like", "nope", "skip", None])
            if kind is None:
                connection.execute(
                    "delete from user_video_decisions where (user_id, video_id) = (%s, %s)", (user, video)
                )
            else:
                connection.execute(
                    """insert into user_video_decisions values (%s, %s, %s) on conflict (user_id, video_id)
                    do update set decision_type = excluded.decision_type, created_at = now()""",
                    (user, video, kind),
                )
            last[user, video] = kind
            if seed == 0 and turn % 50 == 49:
                connection.execute("update videos set price = random() * 40 where id = %s", (rng.choice(mine),))
        raise AssertionError

    def refresh(connection: Connection) -> int:
        runs = 0
        while not calm.is_set():
            connection.execute("call two_tower.refresh()")
            runs += 1
        return runs

    with ThreadPoolExecutor(CLIENTS + REFRESHERS) as pool:
        refreshers = [pool.submit(refresh, connect()) for _ in range(REFRESHERS)]
        clients = [pool.submit(like, connect(), seed) for seed in range(CLIENTS)]
        try:
            written = {pair: kind for client in clients for pair, kind in client.result().items()}
        finally:
            calm.set()
        assert all(refresher.result() > 0 for refresher in refreshers)
    assert len(written) > 500, "that was no storm"

    stored = {(u, v): d for u, v, d in db.execute("select user_id, video_id, decision_type from user_video_decisions")}
    assert {pair: stored.get(pair) for pair in written} == written

    db.execute("call two_tower.refresh()")
    assert one(db, "select pending_user_changes + pending_video_changes from two_tower.status") == 0
    assert column(db, "select error from two_tower.failed_changes") == []
    assert column(db, "select error from two_tower.job_log where error is not null") == []
    fresh = state(db)
    db.execute("call two_tower.rebuild()")
    assert state(db) == fresh


def test_i4_likes_do_not_wait_for_a_refresh_idle_in_its_transaction(db: Connection, connect: Connect) -> None:
    db.execute("insert into two_tower.user_changes (user_id) select id from auth.users")
    db.execute("insert into two_tower.video_changes (video_id) select id from videos")
    refresher = connect(autocommit=False)
    for _ in range(2):
        refresher.execute("select two_tower.refresh_batch(null)")
    db.execute("set lock_timeout = '50ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        db.execute("select two_tower.lock_changes('user', array[%s]::uuid[])", (WORLD.usual,))
    for user in WORLD.users:
        query = "insert into user_video_decisions values (%s, %s, 'like') on conflict do nothing"
        db.execute(query, (user, WORLD.bare_video))
    db.execute("reset lock_timeout")
    refresher.commit()
    db.execute("call two_tower.refresh()")
    liked = "select count(*) from user_features where %s = any (liked_video_ids)"
    likers = "select count(*) from user_video_decisions where video_id = %s and decision_type = 'like'"
    assert one(db, liked, WORLD.bare_video) == one(db, likers, WORLD.bare_video) > 40
