"""Counting in numpy, which refreshes do, equals the definitions in SQL, which clients and the trainer read (I2)."""

from __future__ import annotations

from uuid import UUID

import pytest

from conftest import Connect, Connection
from world_fixtures import NOBODY, make_world, one, tiny_model

WORLD = make_world()
COLUMNS = (
    "liked_tags, liked_performers, liked_makers, liked_labels, liked_series, liked_sources, liked_video_ids::uuid[], "
    "noped_video_ids::uuid[], like_count, nope_count, price_sum, priced_count"
)


@pytest.fixture
def dsn(world_dsn: str) -> str:
    return world_dsn


def compare(db: Connection, users: list[UUID] = WORLD.users) -> int:
    """Features are the same both ways; the number of users with features."""
    counted = f"select user_id, {COLUMNS} from two_tower.count_user_features(%s) order by 1"
    computed = f"select user_id, {COLUMNS} from two_tower.compute_users(%s, '{{}}') order by 1"
    expected = db.execute(counted.encode(), (users,)).fetchall()
    assert db.execute(computed.encode(), (users,)).fetchall() == expected
    return len(expected)


def assert_equal(db: Connection, users: list[UUID]) -> int:
    """Features and hashes of inputs are the same both ways, and what is stored; the number of users with features."""
    found = compare(db, users)
    for version in one(db, "select two_tower.live_versions()"):
        encoded = """select e.user_id, encode(sha256(extensions.sparsevec_send(e.input)), 'hex')
            from two_tower.encode_users(
                array(select c from two_tower.count_user_features(%s) c where c.like_count > 0), %s) e order by 1"""
        hashed = """select user_id, encode(input_hash, 'hex')
            from two_tower.compute_users(%s, array[%s], true, false) order by 1"""
        digests = db.execute(encoded.encode(), (users, version)).fetchall()
        assert db.execute(hashed.encode(), (users, version)).fetchall() == digests
        stored = "select user_id, encode(input_hash, 'hex') from two_tower.user_embeddings where model_version = %s"
        assert set(digests) <= set(db.execute(stored.encode(), (version,)).fetchall())
    return found


def test_i2_every_user_is_counted_alike(db: Connection) -> None:
    assert assert_equal(db, WORLD.users) == len(WORLD.users) - 2
    assert assert_equal(db, [WORLD.no_decisions, NOBODY]) == 0
    for user in (WORLD.one_like, WORLD.many, WORLD.only_nopes, WORLD.bare_video):
        assert_equal(db, [user])


def test_i2_under_every_version_whatever_its_vocabulary(db: Connection) -> None:
    db.execute("delete from user_video_decisions where user_id = any (%s)", (WORLD.users[30:],))
    db.execute("call two_tower.refresh()")
    tiny_model(db, "v2", seed=2, activate=False)
    db.execute("call two_tower.backfill_model('v2', true)")
    assert one(db, "select two_tower.live_versions()") == ["v1", "v2"]
    assert_equal(db, WORLD.users)


def test_i2_odd_prices_names_and_times(db: Connection) -> None:
    db.execute(
        """update videos set maker = %s, label = %s, series = '',
            price = case when title like '%%1' then 0.1 when title like '%%2' then 123456.789 end
        where title ~ '[1-4]$'""",
        ('a "quoted" \\ name\nof two lines, with {braces}', "\u00fcml\u00e4ut \U0001f600"),
    )
    for time, user in (("infinity", WORLD.usual), ("-infinity", WORLD.users[7])):
        db.execute("update user_video_decisions set created_at = %s where user_id = %s", (time, user))
    db.execute("call two_tower.refresh()")
    assert one(db, "select count(*) from two_tower.failed_changes") == 0
    assert_equal(db, WORLD.users)


def test_i3_what_a_backend_knows_of_the_catalogue_gets_old(db: Connection, connect: Connect) -> None:
    other = connect()
    retag = """update video_tags set tag_id = %s where tag_id = %s
        and video_id not in (select video_id from video_tags where tag_id = %s)"""
    first, second, third = WORLD.tags[:3]
    assert_equal(db, WORLD.users)
    # In the log, by whomever; then refreshed by another backend.
    other.execute(retag, (first, second, first))
    compare(db)
    other.execute("call two_tower.refresh()")
    assert_equal(db, WORLD.users)
    other.execute("delete from videos where id = %s", (WORLD.videos[5],))
    compare(db)
    other.execute("call two_tower.refresh()")
    assert_equal(db, WORLD.users)
    # Past the triggers, then rebuilt.
    other.execute("set session_replication_role = replica")
    other.execute(retag, (second, third, second))
    other.execute("call two_tower.rebuild()")
    assert_equal(db, WORLD.users)


def test_i3_a_catalogue_that_was_rolled_back_is_forgotten(db: Connection, connect: Connect) -> None:
    assert_equal(db, WORLD.users)
    with db.transaction(force_rollback=True):
        db.execute("update videos set maker = 'never', price = 7")
        db.execute("select two_tower.refresh_batch(null)")
        compare(db)
    assert_equal(db, WORLD.users)
    other = connect()
    other.execute("update videos set maker = 'in the end' where maker = 'maker a'")
    other.execute("call two_tower.refresh()")
    assert_equal(db, WORLD.users)


def test_i3_an_old_snapshot_keeps_to_its_catalogue(db: Connection, connect: Connect) -> None:
    other = connect()
    assert_equal(db, WORLD.users)
    with db.transaction():
        db.execute("set transaction isolation level repeatable read")
        compare(db)
        other.execute("update videos set maker = 'later'")
        other.execute("call two_tower.refresh()")
        compare(db)
    assert_equal(db, WORLD.users)
