"""Three servers, each with a third of the users; the first publishes catalogue and models (docs/scaling.md).

Together they have the same results as one server with all users.
"""

from __future__ import annotations

import json
import random
import re
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from typer.testing import CliRunner

import two_tower.shards as shards_module
import two_tower.trainer.train as training
from conftest import borrowed, new_cluster, remove_server
from documents import REPOSITORY, blocks
from test_crash import kill, send
from test_refresh import assert_fresh
from test_replicas import standby_of
from tiers import some
from two_tower import database
from two_tower.cli.main import app
from two_tower.errors import UserError
from two_tower.lifecycle import registry, shards, verify
from two_tower.lifecycle.shards import read_training_set
from two_tower.server import status
from two_tower.server.embedded import Server
from two_tower.server.migrate import migrate
from two_tower.shards import parse
from two_tower.trainer import dataset
from world_fixtures import column, copy_rows, ident, load, make_world, one, random_model, refresh, register, state

Connection = psycopg.Connection[Any]

WORLD = make_world(60, 45, seed=5)
NAMES = ("east", "west", "north")
FIRST = "v1"
SETUP = [
    block.text
    for block in blocks(REPOSITORY / "docs" / "scaling.md")
    if block.language == "sql" and "test_shards.py" in (block.why_not or "")
]
"""The statements that the document gives the operator: for the first shard, and for each of the others."""
PLACE = "host=east.internal dbname=app user=replicator"
"""The first shard's address in the document."""


@dataclass
class Three:
    """The shards, up unless a test has stopped one."""

    servers: dict[str, Server]
    urls: dict[str, str]
    single: Connection
    """One server with all users, and the same models."""
    models: list[str] = field(default_factory=list)

    @property
    def setting(self) -> str:
        return " ".join(f"{name}={url}" for name, url in self.urls.items())

    @contextmanager
    def opened(self, *names: str) -> Iterator[dict[str, Connection]]:
        with ExitStack() as stack:
            yield {
                name: stack.enter_context(psycopg.connect(self.urls[name], autocommit=True)) for name in names or NAMES
            }

    def run(self, *arguments: str, code: int = 0) -> str:
        """Output of ``two-tower shards``, both streams."""
        done = CliRunner().invoke(app, ["shards", *arguments], env={"TWO_TOWER_SHARDS": self.setting})
        assert done.exit_code == code, f"exit {done.exit_code}: {done.output}{done.exception!r}"
        return " ".join(done.output.split())

    def serve(self) -> dict[str, str]:
        with self.opened() as each:
            return {name: one(db, "select two_tower.active_version()") for name, db in each.items()}

    def states(self, version: str) -> dict[str, str]:
        with self.opened() as each:
            query = "select state from two_tower.model_versions where version = %s"
            return {name: one(db, query, version) for name, db in each.items()}

    def replicate(self) -> None:
        """Waits until the others have everything that the first has committed."""
        with self.opened() as each:
            marker = f"marker {random.random()}"
            each["east"].execute("insert into public.tags (name) values (%s)", (marker,))
            for name in NAMES[1:]:
                until(each[name], "select exists (select from public.tags where name = %s)", marker)

    def register(self) -> str:
        """Registers another version on the first shard; the first version also on the single server."""
        version = f"v{len(self.models) + 1}"
        self.models.append(version)
        model = random_model(dataset.read(self.single).schema, seed=len(self.models))
        with self.opened("east") as each:
            for db in (each["east"], self.single) if version == FIRST else (each["east"],):
                register(db, model, version, engine="sql")
        return version

    def refresh(self) -> None:
        with self.opened() as each:
            for db in each.values():
                refresh(db)


def until(db: Connection, condition: str, *values: Any) -> None:
    deadline = time.monotonic() + 60
    while not one(db, condition, *values):
        assert time.monotonic() < deadline, condition
        time.sleep(0.05)


@pytest.fixture(scope="module")
def three(cluster: Server, template: str) -> Iterator[Three]:
    servers = {name: new_cluster(f"two-tower-{name}-") for name in NAMES}
    try:
        for name, server in servers.items():
            server.start()
            with psycopg.connect(server.dsn, autocommit=True) as db:
                # Acknowledged commits must survive a kill, and only flushed WAL is replicated.
                db.execute("alter system set synchronous_commit = on")
                db.execute("alter system set wal_level = logical")
                db.execute("select pg_reload_conf()")
            if name == NAMES[0]:
                server.stop()
                server.start()
            migrate(server.dsn)
        with borrowed(cluster, template) as single:
            made = Three(servers, {name: server.dsn for name, server in servers.items()}, single)
            with made.opened() as each:
                for db in (*each.values(), single):
                    db.execute("select two_tower.unschedule_jobs()")
                    db.execute("update two_tower.settings set value = 'false' where name = 'status_expects_jobs'")
                set_up(each)
            load(single, WORLD)
            refresh(single)
            made.register()
            made.run("activate")
            registry.activate(single, FIRST, lambda what, share: None)
            yield made
    finally:
        for server in reversed(servers.values()):
            remove_server(server)


def set_up(each: dict[str, Connection]) -> None:
    """Sets up the shards by the document, with the catalogue on the first and a third of the users on each."""
    load(each["east"], WORLD)
    each["east"].execute("delete from auth.users")
    for statement in filter(str.strip, SETUP[0].split(";")):
        each["east"].execute(statement.encode())
    info = each["east"].info
    place = f"host={info.host} port={info.port} dbname={info.dbname} user={info.user}"
    for name in NAMES[1:]:
        each[name].execute(SETUP[1].replace("two_tower_west", f"two_tower_{name}").replace(PLACE, place).encode())
    for name, db in each.items():
        until(db, "select coalesce(bool_and(srsubstate in ('r', 's')), true) from pg_subscription_rel")
        users = WORLD.users[NAMES.index(name) :: 3]
        copy_rows(db, "auth.users (id)", [(user,) for user in users])
        load_decisions(db, [row for row in WORLD.decisions if row[0] in users])
        refresh(db)


def load_decisions(db: Connection, rows: list[Any]) -> None:
    copy_rows(db, "public.user_video_decisions (user_id, video_id, decision_type, created_at)", rows)


def in_all(three: Three) -> dict[str, Any]:
    """The combined rows of the shards; asserts that rows of a video are the same on all."""
    found: dict[str, Any] = {}
    with three.opened() as each:
        for name, db in each.items():
            for key, value in state(db).items():
                assert found.setdefault(key, value) == value, f"{key} differs on {name}"
    return found


# ------------------------------------------------------------------------------------------------ the setting


BROKEN = {
    "": "names no server",
    "  \n ": "names no server",
    "postgresql://a@b/c": "entry 1 of TWO_TOWER_SHARDS is not NAME=URL",
    "=postgresql://a@b/c": "entry 1 of TWO_TOWER_SHARDS is not NAME=URL",
    "ea st=postgresql://a@b/c": "entry 1 of TWO_TOWER_SHARDS is not NAME=URL",
    "east=postgresql://a@b/c west": "entry 2 of TWO_TOWER_SHARDS is not NAME=URL",
    "east=host=b": "gives east no URL",
    "east=mysql://secret@b/c": "gives east no URL",
    "east=": "gives east no URL",
    "east=postgresql://a@b/c\neast=postgresql://a@d/c": "names east twice",
}


@pytest.mark.parametrize("setting", BROKEN)
def test_a_setting_that_names_no_shards_is_refused_and_shows_no_secret(setting: str) -> None:
    with pytest.raises(UserError, match=BROKEN[setting]) as refused:
        parse(setting)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("between", [" ", "\n", "\n  ", "\t", " \r\n"])
def test_shards_may_be_separated_by_any_white_space(between: str) -> None:
    urls = ["postgresql://a:p%20w=x@b/c?sslmode=require", "postgres://b", "postgresql:///d?host=/tmp"]
    found = parse(between.join(f"{name}={url}" for name, url in zip(NAMES, urls, strict=True)))
    assert [(shard.name, shard.dsn) for shard in found] == list(zip(NAMES, urls, strict=True))
    assert "p%20w" not in repr(found)


def test_errors_name_missing_settings_unknown_shards_and_down_servers() -> None:
    two = {"TWO_TOWER_SHARDS": "east=postgresql:///a?host=/nowhere west=postgresql:///b?host=/nowhere"}
    for arguments, env, code, said in (
        (["status"], {"TWO_TOWER_SHARDS": ""}, 1, "TWO_TOWER_SHARDS names no server"),
        (["activate", "--without", "south"], two, 2, "south is none of east, west"),
        (["popularity", "--without", "east", "--without", "west"], two, 2, "leaves out every shard"),
        (["train", "--without", "east"], two, 2, "east publishes the models, so it takes part"),
        (["popularity"], two, 1, "nothing was done: east: "),
        (["status"], two, 1, "east: down: east is down: "),
        (["status"], two, 1, "west: down: west is down: "),
    ):
        done = CliRunner().invoke(app, ["shards", *arguments], env=env)
        assert done.exit_code == code, done.output
        assert said in " ".join(done.output.replace("│", " ").split())


# ------------------------------------------------------------------------------------------------ three shards as one


def test_vectors_and_lists_equal_those_of_a_single_server(three: Three) -> None:
    assert set(three.serve().values()) == {FIRST}
    three.refresh()
    refresh(three.single)
    assert in_all(three) == state(three.single)
    said = three.run("status")
    assert all(name in said for name in NAMES)
    three.run("verify")


def test_the_training_set_equals_that_of_a_single_server(three: Three) -> None:
    alone = dataset.read(three.single)
    with three.opened() as each:
        together = read_training_set(each, dataset.DatasetOptions())
        # A user who is on two shards while being moved counts once, with the later of two decisions.
        user = WORLD.usual
        away = each[NAMES[(WORLD.users.index(user) + 1) % 3]]
        copy_rows(away, "auth.users (id)", [(user,)])
        load_decisions(away, [(u, v, "nope", at - timedelta(days=1)) for u, v, _, at in WORLD.decisions if u == user])
        moving = read_training_set(each, dataset.DatasetOptions())
        away.execute("delete from auth.users where id = %s", (user,))
    for found in (together, moving):
        for name in ("user_ids", "item_ids", "user", "item", "label", "time", "weight"):
            assert np.array_equal(getattr(found, name), getattr(alone, name)), name
        assert found.schema == alone.schema
        assert (found.item_counts != alone.item_counts).nnz == 0


def test_popularity_equals_that_of_a_single_server(three: Three) -> None:
    recent, at = WORLD.videos[7:10], datetime.now(UTC) - timedelta(hours=1)
    with three.opened() as each:
        for db in (*each.values(), three.single):
            for user in column(db, "select id from auth.users"):
                db.execute(
                    """insert into public.user_video_decisions select %s, v, 'like', %s from unnest(%s::uuid[]) v
                    on conflict (user_id, video_id) do update
                    set decision_type = excluded.decision_type, created_at = excluded.created_at""",
                    (user, at, recent[: 1 + user.int % 3]),
                )
        three.run("popularity")
        three.single.execute("select two_tower.update_popularity()")
        alone, trends = popularity(three.single)
        for db in each.values():
            assert_same_popularity(popularity(db), (alone, trends))
            # The shard's own job adds only its own likes to the counts of the others.
            db.execute("select two_tower.update_popularity()")
            assert_same_popularity(popularity(db), (alone, trends))
        # The counts of a shard that is left out stay.
        assert "west" in three.run("popularity", "--without", "north", "--json")
        for name in NAMES[:2]:
            assert_same_popularity(popularity(each[name]), (alone, trends))
        # A day later, counts of the last day are outdated; popularity stays.
        db = each["east"]
        db.execute("update two_tower.shard_popularity set counted_at = counted_at - interval '25 hours'")
        db.execute("select two_tower.update_popularity()")
        now_alone, now_trends = popularity(db)
        own = dict(db.execute("select video_id, likers from two_tower.own_popularity() where days = 1").fetchall())
        assert {video: likers for (days, video), likers in now_trends.items() if days == 1} == own
        assert now_alone.keys() == alone.keys()
    three.run("popularity")


def test_changes_of_the_catalogue_are_refreshed_on_each_shard(three: Three) -> None:
    retagged, gone, new = WORLD.videos[11], WORLD.videos[12], ident("video", 777)
    changes = [
        "update public.videos set price = price + 3, maker = 'another' where product_url like '%1'",
        f"delete from public.video_tags where video_id = '{retagged}'",
        f"insert into public.video_tags select '{retagged}', id from public.tags where name = 'tag 3'",
        f"insert into public.videos (id, product_url, title) values ('{new}', 'https://videos.example/new', '東京')",
        f"delete from public.videos where id = '{gone}'",
    ]
    with three.opened() as each:
        for change in changes:
            for db in (each["east"], three.single):
                db.execute(change.encode())
        three.replicate()
        for db in each.values():
            refresh(db)
            assert_fresh(db)
            kept = "select exists (select from two_tower.video_embeddings where video_id = %s)"
            assert (one(db, kept, new), one(db, kept, gone)) == (True, False)
    refresh(three.single)
    found, alone = in_all(three), state(three.single)
    assert {key: value for key, value in found.items() if key.endswith(f" {FIRST}")} == {
        key: value for key, value in alone.items() if key.endswith(f" {FIRST}")
    }


@pytest.mark.soak
def test_a_model_is_trained_on_all_users_and_serves_them(three: Three) -> None:
    three.run("train", "--version", "trained")
    three.replicate()
    three.run("activate", "trained", "--force")
    assert set(three.serve().values()) == {"trained"}
    with three.opened("east") as each:
        meta = one(each["east"], "select meta from two_tower.models where version = 'trained'")
        assert meta["training_data"]["users"] == dataset.read(three.single).n_users
    three.run("activate", FIRST)


def test_a_model_is_kept_if_the_first_shard_is_gone_when_it_is_trained(
    three: Three, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    fit = training.fit

    def and_then_gone(*arguments: Any, **options: Any) -> Any:
        model = fit(*arguments, **options)
        three.servers["east"].stop()
        return model

    monkeypatch.setattr(training, "fit", and_then_gone)
    try:
        said = three.run("train", "--version", "kept", code=1)
    finally:
        three.servers["east"].start()
    (directory,) = tmp_path.iterdir()
    assert "error: kept is trained, but was not registered: " in said
    assert f"its files are in {directory} hint: two-tower model register {directory} --dsn " in said
    done = CliRunner().invoke(app, shlex.split(said.split("hint: two-tower ")[1]))
    assert (done.exit_code, done.output) == (0, "kept is registered\n")
    three.replicate()
    assert set(three.states("kept").values()) == {"candidate"}


@pytest.mark.soak
def test_given_vectors_reach_every_shard_and_activate_together(three: Three) -> None:
    with three.opened() as each:
        for db in each.values():
            with db.transaction():
                db.execute("select two_tower.stage_given('given', '{}')")
                for kind in ("video", "user"):
                    db.execute(
                        f"""select two_tower.add_given('given', %s, array_agg({kind}_id), array_agg(embedding))
                        from two_tower.{kind}_embeddings where model_version = %s""".encode(),
                        (kind, FIRST),
                    )
                db.execute("select two_tower.close_given('given')")
    three.replicate()
    three.run("activate", "given")
    assert set(three.serve().values()) == {"given"}
    three.run("activate", FIRST)
    retire(three, "given")
    three.run("status")


def popularity(db: Connection) -> tuple[dict[Any, Any], dict[Any, int]]:
    scores = {v: (s, n) for v, s, n in db.execute("select video_id, score, likers from two_tower.video_popularity")}
    trends = {(d, v): n for d, v, n in db.execute("select days, video_id, likers from two_tower.video_trends")}
    return scores, trends


def assert_same_popularity(found: Any, wanted: Any) -> None:
    (scores, trends), (wanted_scores, wanted_trends) = found, wanted
    assert trends == wanted_trends
    assert {video: likers for video, (_, likers) in scores.items()} == {v: n for v, (_, n) in wanted_scores.items()}
    for video, (score, _) in scores.items():
        assert score == pytest.approx(wanted_scores[video][0], rel=1e-9), video


# ------------------------------------------------------------------------------------------------ one version for all


def test_a_down_shard_stops_the_activation_unless_left_out(three: Three) -> None:
    before, version = three.serve()["north"], three.register()
    three.replicate()
    three.servers["north"].stop()
    try:
        said = three.run("activate", version, code=1)
        assert "nothing was done: north:" in said
        assert "--without NAME" in said
        said = three.run("activate", version, "--without", "north")
        assert "north is down; when it was asked last, at 2" in said
        assert f"it served {before}" in said
        assert f"east, west serve {version}" in said
        said = three.run("status", code=1)
        assert "north: down: north is down; when it was asked last" in said
    finally:
        three.servers["north"].start()
    assert three.serve() == {"east": version, "west": version, "north": before}
    said = three.run("status", code=1)
    assert f"shards serve different versions: east {version}, west {version}, north {before}" in said
    assert f"two-tower shards activate {version}" in said
    three.run("activate", version)
    assert set(three.serve().values()) == {version}
    # Back to a standby version.
    three.run("activate", before)
    assert set(three.serve().values()) == {before}


def test_a_shard_that_is_not_migrated_is_not_said_to_be_down(three: Three) -> None:
    with three.opened("north") as each:
        db = each["north"]
        applied = "from two_tower._yoyo_migration where migration_id = '0011.shards'"
        db.execute(f"create temp table kept as select * {applied}".encode())
        db.execute(f"delete {applied}".encode())
        try:
            older = "is older than this program: it lacks migration 0011.shards"
            said = three.run("status", code=1)
            assert re.search(rf"north: unfit: database \S+ {older} → two-tower migrate", said), said
            for verb in ("activate", "popularity"):
                assert re.search(rf"nothing was done: north: database \S+ {older}", three.run(verb, code=1)), verb
            said = three.run("verify", code=1)
            assert re.search(rf"east: \d+ users .* west: \d+ users .* error: north: database \S+ {older}", said), said
        finally:
            db.execute("insert into two_tower._yoyo_migration select * from kept")


@pytest.mark.parametrize("failing", some(("west", "east", "north"), 1))
def test_a_failed_flip_restores_the_version_of_every_shard(three: Three, failing: str) -> None:
    before, version = three.serve(), three.register()
    with three.opened(failing) as each, each[failing].transaction():
        each[failing].execute("select pg_advisory_xact_lock(hashtextextended('two_tower.activate', 0))")
        said = three.run("activate", version, code=1)
    assert f"{failing}: another activation is under way" in said
    for name in NAMES[: NAMES.index(failing) + 1]:
        assert f"{name} serves {before[name]}" in said
    assert three.serve() == before
    assert set(three.states(version).values()) == {"staged"} | ({"standby"} if failing != "east" else set())
    retire(three, version)


@pytest.mark.parametrize("failing", some(("north", "east"), 1))
def test_a_gate_failing_on_one_shard_keeps_a_candidate_on_all(three: Three, failing: str) -> None:
    before, version = three.serve(), three.register()
    three.replicate()
    change = "update two_tower.settings set value = %s where name = 'gate_min_recall_at_20'"
    with three.opened(failing) as each:
        each[failing].execute(change, ("0.9",))
        try:
            assert f"{failing}: model {version} does not pass its gate" in three.run("activate", version, code=3)
        finally:
            each[failing].execute(change, ("0",))
    assert three.serve() == before
    assert set(three.states(version).values()) == {"candidate"}


def test_two_activations_at_once_cannot_each_have_some_of_the_shards(
    three: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the others' knowledge, the second would flip the last shards, and the first those before them."""
    before, versions = three.serve(), [three.register(), three.register()]
    said: list[str] = []
    flip = registry.flip

    def interrupted(connection: Connection, version: str, **options: Any) -> Any:
        done = flip(connection, version, **options)
        if version == versions[0] and not said:
            said.append(three.run("activate", versions[1], code=1))
        return done

    monkeypatch.setattr(registry, "flip", interrupted)
    three.run("activate", versions[0])
    assert "east: another activation of all shards is under way" in said[0]
    assert set(three.serve().values()) == {versions[0]}
    three.run("activate", before["east"])
    for version in versions:
        retire(three, version)


@pytest.mark.soak
def test_an_experiment_on_one_shard_stops_it_before_anything_is_staged(three: Three) -> None:
    before, version = three.serve(), three.register()
    three.replicate()
    with three.opened("west") as each:
        running = "insert into two_tower.experiments (control, challenger, share) values (%s, 'other', 0.5)"
        each["west"].execute(running, (before["west"],))
        said = three.run("activate", version, code=1)
        each["west"].execute("delete from two_tower.experiments")
    assert "west: an experiment compares" in said
    assert set(three.states(version).values()) == {"candidate"}
    assert three.serve() == before


@pytest.mark.soak
def test_a_version_that_does_not_arrive_is_named(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "ARRIVAL_SECONDS", 0.5)
    with three.opened("west") as each:
        each["west"].execute("alter subscription two_tower_west disable")
        try:
            version = three.register()
            said = three.run("activate", version, code=1)
            assert f"west: model {version} is not what it is on east: two_tower.model_versions" in said
            assert "the subscription two_tower_west" in three.run("status", code=1)
        finally:
            each["west"].execute("alter subscription two_tower_west enable")
    three.replicate()
    assert set(three.states(version).values()) == {"candidate"}


def test_another_model_of_the_same_name_on_one_shard_is_named(three: Three) -> None:
    """It has as many rows in each table, and the subscription stops at it."""
    before, schema = three.serve(), dataset.read(three.single).schema
    with three.opened() as each:
        for name, seed in (("west", 98), ("east", 99)):
            register(each[name], random_model(schema, seed=seed), "twin", engine="sql")
        until(each["north"], "select exists (select from two_tower.model_versions where version = 'twin')")
        said, remedy = three.run("activate", "twin", "--force", code=1).split(" hint: on west: ")
        assert said == "error: west: model twin is another one than on east, and stops the subscription"
        assert three.serve() == before
        each["west"].execute(remedy.encode())
    three.replicate()
    assert set(three.states("twin").values()) == {"candidate"}


@pytest.mark.soak
def test_a_version_retired_on_one_shard_stays_on_the_others(three: Three) -> None:
    before, version = three.serve()["east"], three.register()
    three.run("activate", version)
    with three.opened() as each:
        retire(three, before, "east")
        three.replicate()
        assert three.states(before) == {"east": "retired", "west": "standby", "north": "standby"}
        for name in NAMES[1:]:
            registry.roll_back(each[name], before)
            assert_fresh(each[name])
        said = three.run("activate", before, code=1)
        assert f"east: model {before} is retired" in said
    three.run("activate", version)
    assert set(three.serve().values()) == {version}


def test_what_is_retired_on_a_shard_during_an_activation_is_reported(
    three: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new version, on the shard that is next: all go back. The old one, on a shard that has to go back to it: it
    cannot, and the message says so."""
    before, version = three.serve()["east"], three.register()
    flip = registry.flip

    def retiring(gone: str, name: str, moment: str) -> Callable[..., Any]:
        return striking(three, name, moment, flip, lambda _: retire(three, gone, name))

    with monkeypatch.context() as patch:
        patch.setattr(registry, "flip", retiring(version, "west", "before"))
        said = three.run("activate", version, code=1)
    assert f"west: model {version} is retired" in said
    assert f"west serves {before}; east serves {before}" in said
    assert three.serve() == dict.fromkeys(NAMES, before)

    version = three.register()
    with monkeypatch.context() as patch, three.opened("north") as each, each["north"].transaction():
        each["north"].execute("select pg_advisory_xact_lock(hashtextextended('two_tower.activate', 0))")
        patch.setattr(registry, "flip", retiring(before, "west", "after"))
        said = three.run("activate", version, code=1)
    assert re.search(rf"west serves {version} all the same: .*{before}.*; east serves {before}", said), said
    assert three.serve() == {"east": before, "west": version, "north": before}
    said = three.run("status", code=1)
    assert f"shards serve different versions: east {before}, west {version}, north {before}" in said
    three.run("activate", version)
    assert set(three.serve().values()) == {version}


def retire(three: Three, version: str, *names: str) -> None:
    with three.opened(*names) as each:
        for db in each.values():
            db.execute("select two_tower.retire_model(%s)", (version,))


# ------------------------------------------------------------------------------------------------ a shard is killed


STEPS: dict[str, tuple[str, Any, str]] = {
    "activate, embedding": ("activate", registry, "backfill"),
    "activate, flipping": ("activate", registry, "flip"),
    "popularity": ("popularity", shards, "_own_popularity"),
    "train": ("train", dataset, "read_part"),
    "status": ("status", status, "look"),
    "verify": ("verify", verify, "verify"),
}
"""Verb and step → the verb, and the function that does the step for one shard; its first argument is the connection."""


def striking(
    three: Three, name: str, moment: str, work: Callable[..., Any], strike: Callable[[Server], object] = kill
) -> Callable[..., Any]:
    """``work``, but the shard ``name`` is killed, or struck otherwise, before or after ``work`` runs on it."""
    place = conninfo_to_dict(three.urls[name])["host"]

    def do(connection: Connection, *arguments: Any, **options: Any) -> Any:
        here = connection.info.host == place
        if here and moment == "before":
            strike(three.servers[name])
        done = work(connection, *arguments, **options)
        if here and moment == "after":
            strike(three.servers[name])
        return done

    return do


def one_kill(three: Three, monkeypatch: pytest.MonkeyPatch, step: str, name: str, moment: str) -> tuple[int, str]:
    """Exit code and output of the verb during which a shard is killed; it is up again afterwards."""
    verb, module, function = STEPS[step]
    with monkeypatch.context() as patch:
        patch.setattr(shards, "RECOVERY_SECONDS", 0.5)
        patch.setattr(module, function, striking(three, name, moment, getattr(module, function)))
        try:
            done = CliRunner().invoke(app, ["shards", verb], env={"TWO_TOWER_SHARDS": three.setting})
        finally:
            if not three.servers[name].running:
                three.servers[name].start()
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


def test_killing_a_shard_during_its_flip_restores_all_shards(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    before, version = three.serve(), three.register()
    three.replicate()
    code, said = one_kill(three, monkeypatch, "activate, flipping", "west", "before")
    assert code == 1
    assert said.startswith("error: west:")
    assert f"west served {before['west']}, and cannot be asked what it serves now" in said
    assert f"east serves {before['east']}" in said
    assert three.serve() == before
    three.run("activate", version)
    assert set(three.serve().values()) == {version}


@pytest.mark.soak
@pytest.mark.parametrize(("step", "name", "moment"), list(product(STEPS, NAMES, ("before", "after"))))
def test_verbs_can_be_repeated_after_a_shard_was_killed(
    three: Three, monkeypatch: pytest.MonkeyPatch, step: str, name: str, moment: str
) -> None:
    before = three.serve()
    version = three.register() if step.startswith("activate") else None
    three.replicate()
    code, said = one_kill(three, monkeypatch, step, name, moment)
    if version and (step, moment) == ("activate, flipping", "after"):
        assert (code, said.startswith(f"warning: {name}:")) == (0, True), said
        assert three.serve() == dict.fromkeys(NAMES, version)
    else:
        if moment == "before" or version:
            assert (code, name in said) == (1, True), said
        assert three.serve() == before
    if version:
        three.run("activate", version)
        assert set(three.serve().values()) == {version}
        retire(three, before["east"])
    three.run("popularity")
    with three.opened() as each:
        for db in each.values():
            refresh(db)
            assert_fresh(db)
            # Subscribers of a server that was killed reconnect after wal_retrieve_retry_interval.
            until(db, "select not exists (select from two_tower.problems)")
    three.run("status")


@pytest.mark.sampled(1)
@pytest.mark.parametrize("verb", ["status", "verify"])
def test_a_frozen_shard_is_named_and_the_others_answer(
    three: Three, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Its kernel still takes what is sent to it. It freezes in the middle, and then is so from the beginning."""
    monkeypatch.setitem(database.DEFAULTS, "connect_timeout", "5")
    monkeypatch.setattr(shards_module, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(shards_module, "SILENT_SECONDS", 5)
    before, freeze = three.serve(), partial(send, what=signal.SIGSTOP)
    _, module, function = STEPS[verb]
    try:
        with monkeypatch.context() as patch:
            patch.setattr(module, function, striking(three, "west", "before", getattr(module, function), freeze))
            said = [three.run(verb, code=1)]
        said.append(three.run(verb, code=1))
    finally:
        send(three.servers["west"], signal.SIGCONT)
    whats = ["it does not answer, and takes no connection within 5 s", "connection timeout expired"]
    for found, what in zip(said, whats, strict=True):
        assert re.search(rf"west: .*{what}", found), found
        for name in ("east", "north"):
            answer = (
                f"│ {name} │ {before[name]} │" if verb == "status" else rf"{name}: \d+ users and \d+ videos compared"
            )
            assert re.search(answer, found), found
    three.run(verb)


@pytest.mark.soak
def test_a_shard_that_freezes_during_its_flip_does_not_hold_the_others_up(
    three: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it goes on, it does what it was told, or not; status says what each serves, and the activation mends it."""
    before, version = three.serve(), three.register()
    monkeypatch.setitem(database.DEFAULTS, "connect_timeout", "5")
    monkeypatch.setattr(shards_module, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(shards_module, "SILENT_SECONDS", 5)
    monkeypatch.setattr(shards, "RECOVERY_SECONDS", 0.5)
    with monkeypatch.context() as patch:
        freeze = partial(send, what=signal.SIGSTOP)
        patch.setattr(registry, "flip", striking(three, "west", "before", registry.flip, freeze))
        try:
            said = three.run("activate", version, code=1)
        finally:
            send(three.servers["west"], signal.SIGCONT)
    assert "error: west: it does not answer, and takes no connection within 5 s; " in said
    assert f"west served {before['west']}, and cannot be asked what it serves now" in said
    assert f"east serves {before['east']}" in said
    assert {**three.serve(), "west": None} == {**before, "west": None}
    three.run("activate", version)
    assert set(three.serve().values()) == {version}


@pytest.mark.soak
def test_a_query_may_last_as_long_as_its_shard_takes_connections(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(shards_module, "SILENT_SECONDS", 5)
    with three.opened() as each:
        done = shards_module.on_each(each, lambda _, db: one(db, "select count(pg_sleep(6))"))
    assert done == dict.fromkeys(NAMES, 1)


def test_an_interrupt_ends_the_queries_on_all_shards(three: Three) -> None:
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    main = threading.main_thread().ident
    assert main is not None
    interrupt = threading.Timer(1, signal.pthread_kill, [main, signal.SIGUSR1])
    try:
        with three.opened() as each:
            interrupt.start()
            with pytest.raises(KeyboardInterrupt):
                shards_module.on_each(each, lambda _, db: one(db, "select count(pg_sleep(20))"))
            left = {name: db.info.transaction_status for name, db in each.items()}
    finally:
        interrupt.join()
        signal.signal(signal.SIGUSR1, before)
    assert left == dict.fromkeys(NAMES, TransactionStatus.IDLE)


@pytest.mark.soak
def test_a_shard_may_fail_over_in_the_middle_of_a_training(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training names it, and the next one finds the new primary by the same URL, as do subscription and verbs. The
    new primary stays in the old one's place."""
    old, heir = three.servers["west"], standby_of(three.servers["west"])
    three.servers["west"] = heir  # to be removed with the others
    heir.start()
    with three.opened("west") as each:
        written = one(each["west"], "select pg_current_wal_flush_lsn()")
    with psycopg.connect(heir.dsn, autocommit=True) as db:
        until(db, "select pg_last_wal_replay_lsn() >= %s::pg_lsn", written)

    def fail_over(_: Server) -> None:
        kill(old)
        with psycopg.connect(heir.dsn, autocommit=True) as db:
            assert one(db, "select pg_promote()")

    monkeypatch.setattr(dataset, "read_part", striking(three, "west", "before", dataset.read_part, fail_over))
    places = [conninfo_to_dict(server.dsn) for server in (old, heir)]
    hosts, ports = (",".join(str(place[name]) for place in places) for name in ("host", "port"))
    three.urls["west"] = f"postgresql://postgres@/two_tower?host={hosts}&port={ports}&target_session_attrs=read-write"
    try:
        assert "error: west: " in three.run("train", "--version", "interrupted", code=1)
        found = json.loads(three.run("train", "--version", "failed-over", "--json"))
        assert found["users"] == dataset.read(three.single).n_users
        three.replicate()
        assert set(three.states("failed-over").values()) == {"candidate"}
        three.run("activate", "failed-over", "--force")
        assert set(three.serve().values()) == {"failed-over"}
        three.run("verify")
        three.run("status")
    finally:
        three.urls["west"] = heir.dsn
        remove_server(old)
