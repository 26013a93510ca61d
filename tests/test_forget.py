"""``two-tower forget``: it leaves no rows of a user or reviewer, and reports what it removed."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import errors
from typer.testing import CliRunner

from conftest import Connect, Connection
from test_erasure import holding_users, tables_with, whole_tables
from two_tower.cli.main import app
from two_tower.data.imports import import_reviews
from two_tower.ids import user_uuid
from world_fixtures import NOBODY, Client, make_world, one, refresh, rpc

pytestmark = pytest.mark.world

WORLD = make_world()
ME = WORLD.usual
NOTHING = dict.fromkeys(("decisions", "reviews", "impressions", "choices", "features", "vectors"), 0)


def forget(dsn: str, user: Any, *options: str) -> Any:
    result = CliRunner().invoke(app, ["forget", str(user), "--dsn", dsn, *options])
    assert result.exit_code == 0, result.output
    return result


def removed(dsn: str, user: Any) -> dict[str, int]:
    answer = json.loads(forget(dsn, user, "--json").stdout)
    assert answer.keys() == {"user_id", "removed"}
    counts: dict[str, int] = answer["removed"]
    return counts


def test_forgetting_a_user_leaves_only_the_account(db: Connection, dsn: str, client: Client) -> None:
    client.rpc("authenticated", ME, "next_videos", limit=7)
    client.rpc("authenticated", ME, "set_choices", never_makers=["maker a"])
    db.execute(
        "insert into two_tower.reviews (reviewer_id, video_id, stars) select %s, id, 5 from videos limit 2", [ME]
    )
    # Changes are pending in both parts of the log.
    db.execute("update user_video_decisions set decision_type = 'nope' where user_id = %s", [ME])
    db.execute("select two_tower.collect_user_changes()")
    db.execute("update user_video_decisions set decision_type = 'like' where user_id = %s", [ME])
    db.execute(
        """insert into two_tower.change_failures (kind, id, sqlstate, error, retry_at)
        values ('user', %s, 'XX000', 'no', now())""",
        [ME],
    )
    assert whole_tables(db, tables_with(db, ME)) == holding_users(db)
    others = {table: one(db, f"select count(*) from {table} where user_id <> %s", ME) for table in (
        "user_video_decisions", "user_features", "two_tower.user_embeddings")}  # fmt: skip
    assert removed(dsn, ME) == {
        "decisions": len(WORLD.decided(ME)), "reviews": 2, "impressions": 7, "choices": 1, "features": 1,
        "vectors": 1,
    }  # fmt: skip
    assert tables_with(db, ME) == {"auth.users", "public.profiles"}
    for table, count in others.items():
        assert one(db, f"select count(*) from {table} where user_id <> %s", ME) == count
    refresh(db)
    assert tables_with(db, ME) == {"auth.users", "public.profiles"}
    assert removed(dsn, ME) == NOTHING


@pytest.mark.sampled(2)
@pytest.mark.parametrize("reviewer", ["reviewer-17", " 評者 ", "abcdef01-2345-4789-8abc-def012345678"])
def test_reviewers_are_forgotten_by_the_id_in_the_file(
    reviewer: str, db: Connection, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = one(db, "select product_url from videos order by id limit 1")
    path = tmp_path / "reviews.csv"
    path.write_text(f"reviewer_id,product_url,stars\n{reviewer},{address},5\nsomebody else,{address},4\n")
    import_reviews(db, path)
    result = forget(dsn, reviewer)
    assert result.stdout == "1 reviews removed\n"
    assert tables_with(db, user_uuid(reviewer)) == set()
    assert one(db, "select count(*) from two_tower.reviews") == 1
    assert forget(dsn, reviewer).stdout == f"nothing is known of user {user_uuid(reviewer)}\n"


def test_rows_of_a_user_deleted_by_replication_are_forgotten(db: Connection, dsn: str, client: Client) -> None:
    """If deletions do not cascade, a deleted account leaves rows behind."""
    client.rpc("authenticated", ME, "next_videos", limit=7)
    db.execute("set session_replication_role = replica")
    db.execute("delete from auth.users where id = %s", [ME])
    db.execute("reset session_replication_role")
    assert removed(dsn, ME) | {"decisions": 0} == NOTHING | {"impressions": 7, "features": 1, "vectors": 1}
    assert tables_with(db, ME) == {"public.profiles"}


def test_only_the_service_may_forget_users(db: Connection, client: Client) -> None:
    call = f"select two_tower.forget_user('{ME}')"
    for role, user in (("anon", None), ("authenticated", ME), ("two_tower_viewer", None)):
        with pytest.raises(errors.InsufficientPrivilege), client.as_(role, user) as connection:
            connection.execute(call.encode())
    with client.as_("service_role") as connection:
        assert one(connection, call)["decisions"] == len(WORLD.decided(ME))
        assert one(connection, f"select two_tower.forget_user('{NOBODY}')") == NOTHING
    with pytest.raises(errors.InvalidParameterValue):
        db.execute("select two_tower.forget_user(null)")


def test_next_videos_and_forgetting_a_user_wait_for_each_other(
    db: Connection, client: Client, connect: Connect
) -> None:
    client.rpc("authenticated", ME, "next_videos", limit=7)
    done: list[Any] = []
    other = connect()
    with client.as_("authenticated", ME) as connection:
        rpc(connection, "next_videos", limit=7)
        thread = threading.Thread(target=lambda: done.append(one(other, "select two_tower.forget_user(%s)", ME)))
        thread.start()
        time.sleep(0.2)
        assert done == []
    thread.join()
    assert done[0]["impressions"] == 14
    assert tables_with(db, ME) == {"auth.users", "public.profiles"}


# ------------------------------------------------------------------------------------------------ on behalf of a user


@pytest.mark.parametrize("user", [ME, WORLD.no_decisions, WORLD.many])
def test_the_service_gets_a_users_list(user: UUID, client: Client) -> None:
    given = {"limit": 50, "because": True, "price_max": 30}
    theirs = client.rpc("authenticated", user, "recommend_videos", **given)
    assert client.rpc("service_role", None, "recommend_videos", **given, p_user_id=str(user)) == theirs


def test_the_service_embeds_a_user(db: Connection, client: Client) -> None:
    db.execute("update user_video_decisions set decision_type = 'like' where user_id = %s", [ME])
    (answer,) = client.rpc("service_role", None, "embed_user", p_user_id=str(ME))
    assert (answer["user_id"], answer["message"]) == (str(ME), "features and embedding updated")
    assert one(db, "select count(*) from two_tower.pending_users where user_id = %s", ME) == 0
    with pytest.raises(errors.NoDataFound):
        client.rpc("service_role", None, "embed_user", p_user_id=str(NOBODY))


@pytest.mark.parametrize("name", ["recommend_videos", "embed_user"])
@pytest.mark.parametrize("whose", [WORLD.many, ME, NOBODY])
def test_only_the_service_may_act_for_a_user(name: str, whose: UUID, client: Client) -> None:
    """Not even for oneself, and whatever the token claims."""
    with pytest.raises(errors.InsufficientPrivilege, match="only service_role"):
        client.rpc("authenticated", ME, name, p_user_id=str(whose))
    with pytest.raises(errors.InsufficientPrivilege):
        client.rpc("anon", None, name, p_user_id=str(whose))
    claims = json.dumps({"sub": str(ME), "role": "service_role"})
    with client.as_("authenticated", ME) as connection:
        connection.execute("select set_config('request.jwt.claims', %s, true)", [claims])
        with pytest.raises(errors.InsufficientPrivilege), connection.transaction():
            rpc(connection, name, p_user_id=str(whose))


@pytest.mark.parametrize("name", ["recommend_videos", "embed_user"])
def test_the_service_must_name_the_user(name: str, client: Client) -> None:
    with pytest.raises(psycopg.Error) as caught:
        client.rpc("service_role", None, name)
    assert caught.value.sqlstate == "28000"


def test_only_the_service_reads_candidates_of_other_users(client: Client) -> None:
    """By SQL, too."""
    call = f"select count(*) from two_tower.list_candidates(row('own', {'null, ' * 6} 0, '{WORLD.many}'), 5)"
    reasons = f"select * from two_tower.own_reasons('{{{WORLD.published[3]}}}', '{WORLD.many}')"
    for query in (call, reasons):
        with pytest.raises(errors.InsufficientPrivilege), client.as_("authenticated", ME) as connection:
            connection.execute(query.encode())
    with client.as_("service_role") as connection:
        assert one(connection, call) == 5
