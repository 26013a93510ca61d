"""Columns of profiles as inputs of the user tower: off by default, refreshed after changes, equal in every engine, and
the only input of users without likes."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest
from psycopg import errors
from scipy import sparse

from conftest import Connection, NewDatabase, Prepared, WorldOf
from synthetic import make_data
from two_tower.features import LIKE, NOPE, PROFILE, FeatureSchema, TrainingData, user_counts
from two_tower.lifecycle import registry, verify
from two_tower.lifecycle.replay import Log, Ranker
from two_tower.server.migrate import migrate
from two_tower.trainer import dataset
from two_tower.trainer.options import Choice, TrainOptions
from two_tower.trainer.part import Part
from two_tower.trainer.train import fit
from world_fixtures import (
    ENGINE,
    Client,
    TinyModel,
    column,
    make_world,
    one,
    packed,
    random_model,
    refresh,
    register,
    schema_of,
    state,
    tiny_model,
)

WORLD = make_world()
BANDS = ("20s", "30s", "40s")
INTERESTS = ("sea", "stars", 'trains, "old" {ones}')
COLD = WORLD.only_skips
"""A user without likes, but with a profile."""

COLUMNS = """
alter table public.profiles add column age_band text, add column interests text[], add column note text;
update public.profiles p set age_band = (%(bands)s::text[])[1 + n %% 3],
    interests = case when n %% 4 = 0 then null else (%(interests)s::text[])[1 + n %% 2 : 1 + n %% 3] end
from (select user_id, row_number() over (order by user_id) as n from public.profiles) o where o.user_id = p.user_id;
"""


def profiled(db: Connection) -> None:
    """Fills profiles and activates a version that reads them; v1, which reads none, is on standby."""
    for statement in COLUMNS.strip().split(";\n"):
        psycopg.ClientCursor(db).execute(statement, {"bands": list(BANDS), "interests": list(INTERESTS)})
    db.execute("select two_tower.set_profile_inputs('{interests,age_band}')")
    tiny_model(db, "profiled", seed=5)
    refresh(db)


@pytest.fixture
def dsn(prepared: Prepared, database: NewDatabase, world_of: WorldOf) -> str:
    return database(template=prepared(world_of(ENGINE), profiled))


def computed(db: Connection, version: str = "profiled") -> dict[UUID, np.ndarray]:
    """Vectors of all users, computed from the present rows."""
    found = db.execute(
        "select user_id, embedding::text from two_tower.embed_users(array(select id from auth.users), %s)", (version,)
    )
    return {user: np.array(json.loads(text), dtype=np.float32) for user, text in found}


def keys(db: Connection, user: UUID) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for kind, key in db.execute("select kind, key from two_tower.profile_keys(%s) order by 1, 2", (user,)):
        found.setdefault(kind, []).append(key)
    return found


def assert_fresh(db: Connection) -> dict[str, Any]:
    """Asserts that a refresh equals a rebuild, bit for bit, and that nothing is missing; returns the vectors."""
    refreshed = state(db)
    db.execute("call two_tower.rebuild()")
    assert state(db) == refreshed
    assert sum(verify.verify(db, lambda what, share: None).differing.values()) == 0
    assert column(db, "select missing_users from two_tower.coverage where missing_users <> 0") == []
    return refreshed


# ------------------------------------------------------------------------------------------------ defaults


def test_versions_without_profile_inputs_keep_their_vectors_bit_for_bit(
    database: NewDatabase, world_of: WorldOf, prepared: Prepared
) -> None:
    def of_v1(dsn: str) -> dict[str, Any]:
        with psycopg.connect(dsn, autocommit=True) as db:
            db.execute("call two_tower.rebuild()")
            return {key: value for key, value in state(db).items() if not key.endswith(" profiled")}

    assert of_v1(database(template=prepared(world_of(ENGINE), profiled))) == of_v1(database(template=world_of(ENGINE)))


def test_profiles_are_not_read_until_columns_are_named(database: NewDatabase, world_of: WorldOf) -> None:
    with psycopg.connect(database(template=world_of(ENGINE)), autocommit=True) as db:
        before = state(db)
        db.execute("alter table public.profiles add column age_band text default '20s'")
        db.execute("update public.profiles set age_band = '30s'")
        assert column(db, "select user_id from two_tower.pending_users") == []
        db.execute("select two_tower.set_profile_inputs('{age_band}')")
        assert column(db, "select user_id from two_tower.pending_users") == []  # no version reads it yet
        assert [s.name for s in schema_of(db).profile] == ["profile_age_band"]
        assert assert_fresh(db) == before
        db.execute("select two_tower.set_profile_inputs(null)")
        assert schema_of(db).profile == ()
        names = "select tgname from pg_trigger where tgrelid = 'public.profiles'::regclass and not tgisinternal"
        assert column(db, names) == []


NAMES: dict[str, list[str | None]] = {
    "public.profiles has no column": ["no_such_column", "user"],
    "cannot be an input": ["Age", "age band", "", "1st", "x" * 56, "a;drop", None],
}


@pytest.mark.parametrize("message", NAMES)
def test_an_unknown_column_is_refused_by_name(message: str, db: Connection) -> None:
    for name in NAMES[message]:
        with pytest.raises(errors.InvalidParameterValue, match=message):
            db.execute("select two_tower.set_profile_inputs(%s::text[])", ([name],))
    assert column(db, "select name from two_tower.profile_inputs order by 1") == ["age_band", "interests"]


def test_only_the_owner_sets_profile_inputs(client: Client) -> None:
    for role in ("anon", "authenticated", "service_role"):
        with pytest.raises(errors.InsufficientPrivilege), client.as_(role, WORLD.usual) as connection:
            connection.execute("select two_tower.set_profile_inputs('{note}')")


# ------------------------------------------------------------------------------------------------ inputs

VALUES: dict[str, tuple[str, list[str]]] = {
    "text": ("'  a b '", ["a b"]),
    "text, empty": ("''", []),
    "text, null": ("null::text", []),
    "int": ("30", ["30"]),
    "numeric": ("1.50::numeric", ["1.50"]),
    "boolean": ("false", ["false"]),
    "date": ("date '2001-02-03'", ["2001-02-03"]),
    "text[]": ("array['b', null, '', 'a', 'b']", ["a", "b"]),
    "int[]": ("array[2, 10]", ["10", "2"]),
    "jsonb": ("""'["y", "x"]'::jsonb""", ["x", "y"]),
    "jsonb, one": ("""'"x"'::jsonb""", ["x"]),
    "jsonb, object": ("""'{"x": 1}'::jsonb""", []),
    "jsonb, null": ("'null'::jsonb", []),
    "varchar(9)": ("'é'::varchar(9)", ["é"]),
}


def test_a_column_of_any_type_gives_keys_and_may_change_its_type(db: Connection) -> None:
    for kind, (value, expected) in VALUES.items():
        db.execute("alter table public.profiles drop column note")
        db.execute(f"alter table public.profiles add column note {kind.partition(',')[0]}".encode())
        db.execute("select two_tower.set_profile_inputs('{note}')")
        db.execute(f"update public.profiles set note = {value} where user_id = '{COLD}'".encode())
        assert keys(db, COLD) == ({"profile_note": expected} if expected else {}), kind
    refresh(db)
    # Also without a new call.
    db.execute("alter table public.profiles alter column note type int using 7")
    assert keys(db, COLD) == {"profile_note": ["7"]}
    # A dropped column gives no keys, and blocks nothing.
    db.execute("alter table public.profiles drop column note")
    db.execute("update public.profiles set age_band = '40s'")
    refresh(db)
    assert keys(db, COLD) == {}


def test_a_profile_column_has_at_most_a_hundred_keys(db: Connection) -> None:
    db.execute(
        "update public.profiles set interests = array(select 'k' || n from generate_series(1, 1000) n)"
        " where user_id = %s",
        (COLD,),
    )
    assert len(keys(db, COLD)["profile_interests"]) == 100


def test_a_key_of_few_users_is_no_input(db: Connection) -> None:
    for users, known in ((dataset.FEWEST_USERS - 1, False), (dataset.FEWEST_USERS, True)):
        db.execute("update public.profiles set interests = null")
        db.execute(
            "update public.profiles set interests = '{rare}' where user_id = any (%s)", (WORLD.users[4 : 4 + users],)
        )
        assert ("rare" in schema_of(db).vocabularies.get("profile_interests", ())) is known


def test_i2_sql_encodes_profiles_as_the_trainer_does_and_the_towers_agree(db: Connection) -> None:
    """Every user, with or without a history: definition, sums, torch, and inputs that clients derive from payloads."""
    schema = schema_of(db)
    data = dataset.read(db, schema=schema)
    assert data.profile is not None
    assert [s.name for s in schema.profile] == ["profile_age_band", "profile_interests"]
    assert data.profile.nnz > data.n_users
    model = random_model(schema, seed=5)
    inputs = user_counts(schema, data.item_counts, data.matrix(LIKE), data.matrix(NOPE), data.profile)
    by_torch = dict(zip(data.user_ids, model.user_tower.embed(inputs), strict=True))
    found = computed(db)
    defined = dict(
        db.execute(
            """select user_id, embedding::text from two_tower.define_users(array(select id from auth.users), 'profiled',
                case when two_tower.has_onnxruntime() then 'onnxruntime' end)"""
        ).fetchall()
    )
    assert found.keys() == defined.keys()
    assert COLD in found
    assert WORLD.no_decisions not in found  # has no profile, either
    for user, vector in found.items():
        assert np.allclose(vector, json.loads(defined[user]), atol=2e-3), user
        if str(user) in by_torch:  # the others are in no training set
            assert np.allclose(vector, by_torch[str(user)], atol=2e-3), user
    payloads = dict(db.execute("select user_id, features from two_tower.user_payloads(%s)", (list(found),)).fetchall())
    for user, payload in payloads.items():
        read = {name: payload.get(name, []) for name in ("profile_age_band", "profile_interests")}
        assert read == {"profile_age_band": [], "profile_interests": []} | keys(db, user)
        row = np.zeros(schema.user_dim, dtype=np.float32)
        for segment in schema.profile:
            known = schema.vocabularies[segment.name]
            row[[segment.offset + known.index(key) for key in read[segment.name] if key in known]] = 1
        if str(user) in by_torch:
            expected = inputs[list(data.user_ids).index(str(user))].toarray()[0]
            assert np.array_equal(expected[schema.profile_inputs], row[schema.profile_inputs]), user
    # The profile is the only input of a user without a history.
    cold = list(data.user_ids).index(str(COLD))
    assert inputs[cold].nnz == data.profile[cold].nnz > 0


def test_weighted_payloads_include_the_profile(db: Connection) -> None:
    db.execute("update public.user_video_decisions set weight = 2 where user_id = %s", (WORLD.usual,))
    (payload,) = column(db, "select features from two_tower.user_payloads(%s)", [WORLD.usual])
    for kind, listed in keys(db, WORLD.usual).items():
        assert payload["weighted"][kind] == dict.fromkeys(listed, 1)


# ------------------------------------------------------------------------------------------------ change detection

OTHER, THIRD, LIKING = WORLD.users[7:10]
CHANGES: dict[str, str] = {
    "another key": "update public.profiles set age_band = case age_band when '20s' then '30s' else '20s' end"
    f" where user_id = '{COLD}'",
    "an element": f"update public.profiles set interests = (array['sea', '{INTERESTS[2]}']) where user_id = '{OTHER}'",
    "a key that no version knows": f"update public.profiles set age_band = 'unheard' where user_id = '{THIRD}'",
    "gone": f"delete from public.profiles where user_id = '{COLD}'",
    "null": f"update public.profiles set age_band = null, interests = null where user_id = '{OTHER}'",
    "a new profile": f"insert into public.profiles (user_id, age_band) values ('{WORLD.no_decisions}', '40s')",
    "an upsert": f"insert into public.profiles (user_id, age_band) values ('{OTHER}', '30s') "
    "on conflict (user_id) do update set age_band = '40s'",
    "somebody else's": f"update public.profiles set user_id = '{COLD}' where user_id = '{WORLD.no_decisions}'",
    "all at once": "update public.profiles set age_band = '20s', interests = '{sea}'",
    "the user": f"delete from auth.users where id = '{LIKING}'",
    "truncated": "truncate public.profiles",
}
BYPASSING = ("another key", "gone", "a new profile", "truncated")
"""Changes that are repeated in a session that replicates, in which usual triggers do not fire."""


def test_i3_every_change_of_a_profile_is_in_the_vectors_after_a_refresh(db: Connection) -> None:
    before = state(db)
    for name, change in [*CHANGES.items(), ("profiles again", None), *((name, CHANGES[name]) for name in BYPASSING)]:
        if change is None:
            db.execute("insert into public.profiles (user_id, age_band) select id, '30s' from auth.users")
            db.execute("delete from public.profiles where user_id = %s", (WORLD.no_decisions,))
            db.execute("set session_replication_role = replica")
        else:
            db.execute(change.encode())
        refresh(db)
        found = state(db)
        changed = {key for key in found.keys() | before.keys() if found.get(key) != before.get(key)}
        assert changed, name
        assert all(key.endswith(" profiled") or name == "the user" for key in changed), name
        db.execute("call two_tower.rebuild()")
        assert state(db) == found, name
        before = found
    assert_fresh(db)


def test_changes_of_unused_profile_columns_are_not_logged(db: Connection) -> None:
    for change in (
        "update public.profiles set note = 'x'",
        "update public.profiles set created_at = now()",
        "update public.profiles set age_band = age_band, interests = interests",
    ):
        db.execute(change.encode())
        assert column(db, "select user_id from two_tower.pending_users") == [], change


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [("numeric", "1", "1.0"), ("jsonb", "[1]", "[1.0]"), ("jsonb", "1", "1.00"), ("text[]", "{a}", '{" a"}')],
)
def test_i3_a_value_that_prints_differently_is_a_change(kind: str, before: str, after: str, db: Connection) -> None:
    db.execute(f"alter table public.profiles add column level {kind}".encode())
    db.execute("select two_tower.set_profile_inputs('{interests,age_band,level}')")
    db.execute("update public.profiles set level = %s", (before,))
    refresh(db)
    db.execute("update public.profiles set level = %s where user_id = %s", (after, COLD))
    assert column(db, "select user_id from two_tower.user_change_log") == [COLD]


def test_i4_profiles_that_lose_their_key_column_can_still_be_written(db: Connection) -> None:
    refresh(db)
    db.execute("alter table public.profiles rename column user_id to whose")
    db.execute("update public.profiles set age_band = 'other' where whose = %s", (COLD,))
    assert column(db, "select user_id::text from two_tower.user_change_log") == ["00000000-0000-0000-0000-000000000000"]


@pytest.mark.parametrize("value", [r'"\u0000"', '{"n": 1e1000000}'])
def test_i4_columns_of_type_json_can_be_written_but_are_no_inputs(value: str, db: Connection) -> None:
    db.execute("alter table public.profiles add column settings json")
    db.execute("update public.profiles set settings = %s where user_id = %s", (value, COLD))
    with pytest.raises(errors.InvalidParameterValue, match="of type json") as caught:
        db.execute("select two_tower.set_profile_inputs('{settings}')")
    assert "jsonb" in str(caught.value.diag.message_hint)


def test_the_parts_of_a_score_add_up_to_it(db: Connection) -> None:
    for user in (WORLD.usual, COLD):
        for video, score in db.execute(
            """select video_id, score from two_tower.preview_recommendations(array[%s::uuid], 'profiled')
            where reason = 'taste' order by rank limit 5""",
            (user,),
        ).fetchall():
            parts = dict(
                db.execute(
                    "select kind, sum(value) from two_tower.preview_contributions(%s, %s, 'profiled') group by kind",
                    (user, video),
                ).fetchall()
            )
            assert "profile" in parts
            assert sum(parts.values()) == pytest.approx(score, abs=3e-3)


def test_a_profile_of_zero_weights_has_a_list_reasons_and_a_replay(db: Connection) -> None:
    """Zero weights are not stored as rows, but the profile is still known."""
    model = random_model(schema_of(db), seed=6)
    model.user_tower.weight.data[model.schema.profile_inputs] = 0
    register(db, packed(model.schema, model.user_tower, model.item_tower), "weightless")
    registry.activate(db, "weightless", lambda what, share: None)
    places = "select count(*) from two_tower.profile_positions(array[%s::uuid], 'weightless')"
    assert one(db, places, COLD) > 0
    rows = db.execute(
        """select video_id, score from two_tower.preview_recommendations(array[%s::uuid], 'weightless')
        where reason = 'taste' order by rank limit 5""",
        (COLD,),
    ).fetchall()
    assert len(rows) == 5
    for video, score in rows:
        parts = db.execute(
            "select kind, value from two_tower.preview_contributions(%s, %s, 'weightless')", (COLD, video)
        ).fetchall()
        assert parts == [("everybody", pytest.approx(score, abs=3e-3))]
    log = Log(users={COLD: 0})
    ranked = Ranker.read(db, "weightless", log).ranked(0, [], set())
    assert ranked is not None
    videos = list(log.videos)
    assert {video for video, _ in rows} == {videos[number] for number in ranked[:5]}


def test_profile_changes_that_bypassed_triggers_are_repaired(db: Connection) -> None:
    db.execute("alter table public.profiles disable trigger two_tower_row")
    assert "profiles" in one(db, "select string_agg(detail, ' ') from two_tower.problems where what = 'triggers'")
    db.execute(CHANGES["another key"].encode())
    db.execute("alter table public.profiles enable always trigger two_tower_row")
    refresh(db)
    found = verify.verify(db, lambda what, share: None)
    assert found.user_vectors == {COLD}
    assert verify.repair(db, found) == 1
    refresh(db)
    assert_fresh(db)
    db.execute("drop trigger two_tower_row on public.profiles")
    db.execute("select two_tower.make_triggers()")
    assert column(db, "select name from two_tower.lacking_triggers()") == []


def test_profiles_may_be_keyed_by_id(db: Connection, dsn: str) -> None:
    db.execute("alter table public.profiles rename column user_id to id")
    migrate(dsn)
    assert assert_fresh(db)
    db.execute(CHANGES["another key"].replace("user_id", "id").encode())
    assert set(column(db, "select user_id from two_tower.pending_users")) == {COLD}
    refresh(db)
    assert_fresh(db)


def test_changing_profile_inputs_refreshes_all_users(db: Connection) -> None:
    for columns in ("{age_band}", "{}", "{age_band,interests,note}"):
        db.execute("select two_tower.set_profile_inputs(%s)", (columns,))
        refresh(db)
        assert_fresh(db)


# ------------------------------------------------------------------------------------------------ users without likes


def test_new_users_get_a_list_from_their_profile(db: Connection, client: Client) -> None:
    lists = {}
    for band in BANDS:
        db.execute("update public.profiles set age_band = %s, interests = null where user_id = %s", (band, COLD))
        db.execute("delete from two_tower.user_embeddings where user_id = %s", (COLD,))
        # Also before a refresh.
        found = client.rpc("authenticated", COLD, "recommend_videos", limit=20)
        assert {row["reason"] for row in found} == {"taste"}
        refresh(db)
        again = client.rpc("authenticated", COLD, "recommend_videos", limit=20)
        lists[band] = tuple(row["video_id"] for row in again)
        assert lists[band] == tuple(row["video_id"] for row in found)
    assert len(set(lists.values())) == len(BANDS)
    (scored,) = client.rpc("authenticated", COLD, "rank_candidates", video_ids=[str(WORLD.published[5])])
    assert scored["score"] is not None
    told = client.rpc("authenticated", COLD, "embed_user")[0]
    assert told["message"] == "features and embedding were up to date"


def test_users_without_likes_are_embedded_and_counted_in_coverage(db: Connection) -> None:
    wanted = "select users from two_tower.coverage where model_version = %s"
    users = {version: one(db, wanted, version) for version in ("v1", "profiled")}
    assert users["profiled"] > users["v1"]
    vectors = "select count(*) from two_tower.user_embeddings where model_version = %s"
    assert {version: one(db, vectors, version) for version in users} == users
    db.execute("delete from two_tower.user_embeddings where user_id = %s", (COLD,))
    assert one(db, "select missing_users from two_tower.coverage where model_version = 'profiled'") == 1
    assert column(db, "select * from two_tower.stale_users()") == [COLD]
    assert column(db, "select * from two_tower.stale_users(p_min_likes => 2)") == []
    db.execute("select two_tower.mark_users()")
    refresh(db)
    assert_fresh(db)


def test_opted_out_users_have_no_vector_from_their_profile(db: Connection, client: Client) -> None:
    client.rpc("authenticated", COLD, "set_choices", personalised=False)
    refresh(db)
    assert one(db, "select count(*) from two_tower.user_embeddings where user_id = %s", COLD) == 0
    assert {r["reason"] for r in client.rpc("authenticated", COLD, "recommend_videos", limit=5)} <= {
        "popular",
        "newest",
    }
    assert assert_fresh(db)


def test_an_opted_out_user_has_no_vector_after_being_forgotten(db: Connection, client: Client) -> None:
    client.rpc("authenticated", COLD, "set_choices", personalised=False)
    db.execute("select two_tower.forget_user(%s)", (COLD,))
    assert_fresh(db)
    assert one(db, "select count(*) from two_tower.user_embeddings where user_id = %s", COLD) == 0


def test_a_forgotten_user_keeps_a_profile_vector_while_the_profile_exists(db: Connection) -> None:
    db.execute("select two_tower.forget_user(%s)", (WORLD.usual,))
    assert_fresh(db)
    assert WORLD.usual in computed(db)
    db.execute("delete from public.profiles where user_id = %s", (WORLD.usual,))
    db.execute("select two_tower.forget_user(%s)", (WORLD.usual,))
    assert one(db, "select count(*) from two_tower.user_embeddings where user_id = %s", WORLD.usual) == 0
    refresh(db)
    assert_fresh(db)
    assert not column(db, "select 1 from two_tower.profile_keys(%s)", WORLD.usual)


def test_exported_user_data_has_the_documented_keys(db: Connection, client: Client) -> None:
    (told,) = client.rpc("authenticated", COLD, "export_user_data")
    assert told.keys() == {"user_id", "choices", "decisions", "reviews", "impressions", "features", "vectors"}
    assert [v["model_version"] for v in told["vectors"]] == ["profiled"]


# ------------------------------------------------------------------------------------------------ registration


def test_segments_of_profiles_come_last_and_by_name(db: Connection) -> None:
    def model() -> TinyModel:
        return random_model(schema_of(db), seed=6)

    def swapped(segments: list[dict[str, Any]], a: int, b: int) -> None:
        segments[a], segments[b] = segments[b], segments[a]

    spoilt = model()
    for a, b in ((-1, -2), (1, -1), (-3, -2)):
        spoilt = model()
        swapped(spoilt.feature_schema["user"]["segments"], a, b)
        with pytest.raises(errors.InvalidParameterValue, match="segments of the feature schema"):
            register(db, spoilt, "spoilt")
    for name in ("profile_", "profile_Age", "profiles_age", "profile_a b"):
        spoilt = model()
        spoilt.feature_schema["user"]["segments"][-1] |= {"name": name, "vocabulary": name}
        with pytest.raises(errors.InvalidParameterValue, match="segments of the feature schema"):
            register(db, spoilt, "spoilt")
    on_items = model()
    on_items.feature_schema["item"]["segments"].append(on_items.feature_schema["user"]["segments"][-1])
    with pytest.raises(errors.InvalidParameterValue, match="segments of the feature schema"):
        register(db, on_items, "spoilt")
    assert register(db, model(), "whole") == "whole"


# ------------------------------------------------------------------------------------------------ training


def with_profiles(data: TrainingData, cold: int = 6) -> TrainingData:
    """Each user's profile has the group that the user likes; the last ``cold`` users lose their history."""
    groups = 6
    schema = FeatureSchema({**data.schema.vocabularies, f"{PROFILE}group": tuple(map(str, range(groups)))})
    keep = data.user < data.n_users - cold
    profile = sparse.csr_matrix(np.eye(groups, dtype=np.float32)[np.arange(data.n_users) % groups])
    rows = {name: getattr(data, name)[keep] for name in ("user", "item", "label", "time")}
    return TrainingData(**{**vars(data), **rows, "schema": schema, "profile": profile})


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [0, 1])
def test_users_without_history_get_lists_from_their_profile(epochs: int) -> None:
    data = with_profiles(make_data())
    model = fit(data, TrainOptions(epochs=epochs, max_seconds=5 if epochs else 3600))
    assert data.profile is not None
    cold = np.arange(data.n_users - 6, data.n_users)
    nothing = sparse.csr_matrix((len(cold), data.n_items), dtype=np.float32)
    inputs = user_counts(data.schema, data.item_counts, nothing, nothing, data.profile[cold])
    scores = model.user_tower.embed(inputs) @ model.item_tower.embed(data.item_counts).T
    group = np.arange(data.n_items) % 6
    for user, row in zip(cold, scores, strict=True):
        assert row[group == user % 6].mean() > row[group != user % 6].mean(), user
    assert model.hyperparameters["profile"] >= 1


@pytest.mark.slow
def test_training_without_user_attributes_ignores_profiles() -> None:
    data = with_profiles(make_data())
    for epochs in (0, 1):
        model = fit(data, TrainOptions(user_attributes=False, epochs=epochs, max_seconds=3))
        assert not model.user_tower.weight[data.schema.profile_inputs].any()


@pytest.mark.slow
def test_data_without_profiles_trains_the_same_towers() -> None:
    data = make_data(users=60)
    none, blank = data, TrainingData(**{**vars(data), "profile": None})
    rows = np.ones(len(data.user), dtype=bool)
    for one_tower, other in zip(
        *(Part(d, rows, TrainOptions()).towers(Choice(profile=worth)) for d, worth in ((none, 1.0), (blank, 10.0))),
        strict=True,
    ):
        for name, value in one_tower.state_dict().items():
            assert bool((value == other.state_dict()[name]).all()), name
