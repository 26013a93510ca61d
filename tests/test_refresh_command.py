"""``two-tower refresh``: what its options mark, what a dry run says, and what a limit leaves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from conftest import Connection
from two_tower.cli.main import app
from world_fixtures import EPOCH, World, column, make_world, one

pytestmark = pytest.mark.world

WORLD = make_world()


def invoke(dsn: str, *words: str) -> Result:
    return CliRunner().invoke(app, ["refresh", *words, "--dsn", dsn])


def run(dsn: str, *words: str) -> dict[str, Any]:
    result = invoke(dsn, *words, "--json")
    assert result.exit_code == 0, result.stderr
    return dict(json.loads(result.stdout))


def likers(world: World, least: int) -> int:
    return sum(len(world.of(user, "like")) >= least for user in world.users)


def forget(db: Connection, *users: Any) -> None:
    """Takes away vectors without a mark, as nothing but a mishap does."""
    db.execute("delete from two_tower.user_embeddings where user_id = any (%s)", (list(users),))


def test_without_options_it_drains_the_log(dsn: str, db: Connection) -> None:
    db.execute("update user_video_decisions set decision_type = 'nope' where user_id = %s", (WORLD.one_like,))
    db.execute("update videos set price = 1 where id = %s", (WORLD.bare_video,))
    done = run(dsn)
    assert done["marked"] == done["failed"] == 0
    assert done["videos"] == 1
    assert done["users"] >= 1
    assert one(db, "select count(*) from two_tower.user_embeddings where user_id = %s", WORLD.one_like) == 0
    assert run(dsn) | {"seconds": 0} == {"marked": 0, "users": 0, "videos": 0, "vectors": 0, "failed": 0, "seconds": 0}


def test_a_dry_run_says_what_is_pending_and_changes_nothing(dsn: str, db: Connection) -> None:
    db.execute("delete from user_video_decisions where user_id = any (%s)", ([WORLD.one_like, WORLD.usual],))
    db.execute("update videos set price = 1 where id = %s", (WORLD.bare_video,))
    forget(db, WORLD.many)
    stamp = """select (select jsonb_agg(to_jsonb(c)) from two_tower.pending_users c)::text
        || (select md5(string_agg(e::text, '' order by e::text)) from two_tower.user_embeddings e)"""
    before = one(db, stamp)
    assert run(dsn, "--dry-run") == {"pending_users": 2, "pending_videos": 1, "to_mark": 0}
    assert run(dsn, "--dry-run", "--min-likes", "1") == {"pending_users": 2, "pending_videos": 1, "to_mark": 1}
    assert "2 users and 1 videos" in invoke(dsn, "--dry-run").stderr
    assert one(db, stamp) == before


def test_min_likes_marks_who_lacks_a_vector(dsn: str, db: Connection) -> None:
    forget(db, WORLD.one_like, WORLD.many)
    assert run(dsn, "--min-likes", "2")["marked"] == 1
    missing = "select user_id from user_features where like_count > 0 except select user_id from user_embeddings"
    assert column(db, missing) == [WORLD.one_like]
    assert run(dsn, "--min-likes", "1")["vectors"] == 1
    assert column(db, missing) == []


def test_include_existing_marks_who_has_one_too_and_writes_only_what_differs(dsn: str, db: Connection) -> None:
    db.execute("update two_tower.user_embeddings set input_hash = '' where user_id = %s", (WORLD.usual,))
    done = run(dsn, "--include-existing")
    assert done["marked"] == done["users"] == likers(WORLD, 1)
    assert done["vectors"] == 1
    assert run(dsn, "--include-existing", "--min-likes", "10")["marked"] == likers(WORLD, 10)


def test_recent_marks_whose_last_decision_is_recent(dsn: str, db: Connection) -> None:
    assert run(dsn, "--recent", "1 hour", "--include-existing")["marked"] == 0
    db.execute("alter table user_video_decisions disable trigger two_tower_update")
    db.execute("update user_video_decisions set created_at = now() where user_id = %s", (WORLD.many,))
    db.execute("alter table user_video_decisions enable trigger two_tower_update")
    assert run(dsn, "--recent", "1 hour")["marked"] == 0
    assert run(dsn, "--recent", "1 hour", "--include-existing")["marked"] == 1
    newest = one(db, "select liked_video_ids from user_features where user_id = %s", WORLD.many)
    assert set(newest) == WORLD.of(WORLD.many, "like")
    assert EPOCH.year < 2026


def test_a_limit_leaves_the_rest_for_later(dsn: str, db: Connection) -> None:
    assert run(dsn, "--include-existing", "--limit", "7")["users"] == 7
    db.execute("insert into two_tower.user_changes (user_id) select id from auth.users")
    assert run(dsn, "--limit", "20")["users"] == 20
    assert run(dsn, "--dry-run")["pending_users"] == len(WORLD.users) - 20
    assert run(dsn)["users"] == len(WORLD.users) - 20


@pytest.mark.parametrize("words", [["--limit", "0"], ["--min-likes", "0"], ["--min-likes", "many"]])
def test_wrong_usage_exits_with_2(words: list[str], dsn: str) -> None:
    assert invoke(dsn, *words).exit_code == 2


def test_an_interval_that_is_none_is_said(dsn: str) -> None:
    result = invoke(dsn, "--recent", "soon")
    assert result.exit_code == 1
    assert 'invalid input syntax for type interval: "soon"' in result.stderr
    assert "Traceback" not in result.stderr
