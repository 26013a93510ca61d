"""Counting in numpy, which refreshes do, equals the definitions in SQL, which clients and the trainer read (I2)."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Connect, Connection
from two_tower.paths import DATABASE_FILES
from two_tower.server.ownership import KEPT
from world_fixtures import NOBODY, make_world, one, refresh, tiny_model

WORLD = make_world()
MAPS = "liked_tags, liked_performers, liked_makers, liked_labels, liked_series, liked_sources"
TOTALS = "like_count, nope_count, price_sum, priced_count"
Input = dict[int, float]


def plpython(name: str) -> Any:
    """A module of ``plpython/``, as a routine includes it."""
    spec = importlib.util.spec_from_file_location(name, DATABASE_FILES / "plpython" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


histories = plpython("histories")


@pytest.fixture
def dsn(world_dsn: str) -> str:
    return world_dsn


def compare(db: Connection, users: list[UUID] = WORLD.users) -> int:
    """Features are the same both ways; the number of users with features."""
    counted = (
        f"select user_id, {MAPS}, liked_video_ids, noped_video_ids, {TOTALS} from two_tower.count_user_features(%s)"
    )
    lists = "two_tower.uuids_of(liked_video_ids, -1, true), two_tower.uuids_of(noped_video_ids, -1, true)"
    computed = f"select user_id, {MAPS}, {lists}, {TOTALS} from two_tower.compute_users(%s, '{{}}')"
    expected = db.execute(f"{counted} order by 1".encode(), (users,)).fetchall()
    assert db.execute(f"{computed} order by 1".encode(), (users,)).fetchall() == expected
    return len(expected)


def unpacked(packed: bytes, dim: int) -> Input:
    """Values by position, from 1, of a packed input."""
    ((rows, cells, values),) = histories.packed_pieces(np, dim, 1, np.array([len(packed)]), packed)
    assert rows == 1
    return {cell + 1: value for cell, value in zip(cells.tolist(), values.tolist(), strict=True) if cell != dim}


def parsed(sparse: str) -> tuple[Input, int]:
    """Values by position, and the dimensions, of a sparsevec literal."""
    entries, dim = sparse.removeprefix("{").split("}/")
    pairs = (entry.split(":") for entry in entries.split(","))
    return {int(at): float(np.float32(value)) for at, value in pairs}, int(dim)


def assert_equal(db: Connection, users: list[UUID]) -> int:
    """Features and inputs are the same both ways, and what is stored; the number of users with features."""
    found = compare(db, users)
    for version in one(db, "select two_tower.live_versions()"):
        encoded = """select e.user_id, e.input::text
            from two_tower.encode_users(
                array(select c from two_tower.count_user_features(%s) c where c.like_count > 0), %s) e order by 1"""
        packed = """select user_id, input, input_hash
            from two_tower.compute_users(%s, array[%s], true, false) order by 1"""
        expected = [(user, *parsed(text)) for user, text in db.execute(encoded.encode(), (users, version))]
        computed = db.execute(packed.encode(), (users, version)).fetchall()
        assert [
            (user, unpacked(one_input, dim))
            for (user, one_input, _), (_, _, dim) in zip(computed, expected, strict=True)
        ] == [(user, values) for user, values, _ in expected]
        assert all(hashlib.sha256(one_input).digest() == digest for _, one_input, digest in computed)
        stored = "select user_id, input, input_hash from two_tower.user_embeddings where model_version = %s"
        assert set(computed) <= set(db.execute(stored.encode(), (version,)).fetchall())
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


# ---------------------------------------------------------------------------------------------- inputs that are stored


@given(
    dim=st.sampled_from([5, 5_000, 1 << 20, (1 << 20) + 1, 1 << 30]),
    rows=st.lists(
        st.dictionaries(
            st.integers(0, 4),
            st.sampled_from([1.0, 2.0, 4095.0, 4096.0, 0.5, 1.5, -1.0, 123456.79, 1e30]).map(np.float32),
            min_size=1,
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_a_packed_input_is_the_same_unpacked(dim: int, rows: list[dict[int, Any]]) -> None:
    # The last five positions, so that wide inputs need their width.
    expected = [{dim - 5 + at: row[at] for at in sorted(row)} for row in rows]
    entries = [(n, at, value) for n, row in enumerate(expected) for at, value in row.items()]
    number, column, value = (np.array(each) for each in zip(*entries, strict=True))
    packed = histories.pack_inputs(np, dim, number, column, value.astype(np.float32))
    assert [unpacked(each, dim) for each in packed] == [{at + 1: v for at, v in row.items()} for row in expected]
    # Several at once, two rows to a piece.
    found = []
    sizes = np.array([len(each) for each in packed])
    for count, cells, values in histories.packed_pieces(np, dim, 2, sizes, b"".join(packed)):
        piece: list[Input] = [{} for _ in range(count)]
        for cell, each in zip(cells.tolist(), values.tolist(), strict=True):
            if cell != 2 * dim:
                piece[cell // dim][cell % dim] = each
        found += piece
    assert found == expected


def embedded(db: Connection, *users: UUID, version: str = "v1") -> dict[UUID, str]:
    query = "select user_id, embedding::text from two_tower.embed_users(%s, %s)"
    return dict(db.execute(query, (list(users), version)).fetchall())


def swap_inputs(db: Connection, first: UUID, second: UUID) -> None:
    """Each gets the stored input of the other, so that it shows where an input is read."""
    db.execute(
        """update two_tower.user_embeddings e set input = o.input from two_tower.user_embeddings o
        where o.model_version = e.model_version and (e.user_id, o.user_id) in ((%(a)s, %(b)s), (%(b)s, %(a)s))""",
        {"a": first, "b": second},
    )


def test_i7_embedding_reads_the_stored_input_of_a_user_without_changes(db: Connection) -> None:
    first, second = WORLD.usual, WORLD.many
    right = embedded(db, first, second)
    assert right == dict(
        db.execute("select user_id, embedding::text from user_embeddings where user_id = any (%s)", ([first, second],))
    )
    swap_inputs(db, first, second)
    assert embedded(db, first, second) == {first: right[second], second: right[first]}
    db.execute("update two_tower.user_embeddings set input = null")
    assert embedded(db, first, second) == right


STALE: dict[str, Callable[[Connection], object]] = {
    "a like in the log": lambda db: db.execute(
        "insert into user_video_decisions values (%s, %s, 'like')",
        (WORLD.usual, next(v for v in WORLD.videos if v not in WORLD.decided(WORLD.usual))),
    ),
    "a video in the log": lambda db: db.execute(
        "update videos set maker = 'another' where id = %s", (min(WORLD.of(WORLD.usual, "like")),)
    ),
    "a failure set aside": lambda db: db.execute(
        """insert into two_tower.change_failures (kind, id, sqlstate, error, retry_at)
        values ('user', %s, '22023', 'tried', now() + interval '1 day')""",
        (WORLD.usual,),
    ),
    "a version that no refresh writes": lambda db: db.execute(
        "update two_tower.model_versions set attached_at = null where version = 'v1'"
    ),
}


@pytest.mark.parametrize("change", STALE)
def test_i3_embedding_counts_rows_where_a_stored_input_may_be_old(change: str, db: Connection) -> None:
    swap_inputs(db, WORLD.usual, WORLD.many)
    STALE[change](db)
    found = embedded(db, WORLD.usual)
    db.execute("update two_tower.user_embeddings set input = null")
    assert found == embedded(db, WORLD.usual)


def test_i3_embedding_a_changed_user_gives_what_a_refresh_will_store(db: Connection) -> None:
    for change in ("a like in the log", "a video in the log"):
        STALE[change](db)
        before = embedded(db, *WORLD.users)
        refresh(db)
        assert dict(db.execute("select user_id, embedding::text from user_embeddings").fetchall()) == before
        assert embedded(db, *WORLD.users) == before


def test_the_gate_goes_by_the_rows_and_not_by_a_stored_input(db: Connection) -> None:
    assert one(db, "select two_tower.gate_parity('v1', 1000)") < 1e-6
    db.execute(
        """update two_tower.user_embeddings e set input = o.input, embedding = o.embedding
        from two_tower.user_embeddings o where e.user_id = %s and o.user_id = %s""",
        (WORLD.usual, WORLD.many),
    )
    assert one(db, "select two_tower.gate_parity('v1', 1000)") > 1e-4


# ---------------------------------------------------------------------------------------------- bytes taken for values


@pytest.mark.parametrize(("dim", "image"), [(128, "\\x03000000003c00c00028"), (3, "\\x04000000003c00c000280000")])
def test_bytes_of_other_dimensions_are_no_vector(dim: int, image: str, db: Connection) -> None:
    with pytest.raises(psycopg.errors.DataException, match=r"expected \d+ dimensions"):
        db.execute("select two_tower.halfvec_of(%s, %s, true)", (image, dim))


def test_an_engine_that_gives_too_few_bytes_is_refused(db: Connection) -> None:
    db.execute(
        """create or replace function two_tower.infer_onnxruntime(p_version text, p_tower text, p_packed bytea)
        returns bytea language sql as $$ select ''::bytea $$"""
    )
    db.execute(
        """create or replace function two_tower.evaluate_inputs(p_version text, p_sizes bytea, p_inputs bytea)
        returns bytea language sql as $$ select ''::bytea $$"""
    )
    with pytest.raises(psycopg.errors.RaiseException, match="the engine gave 0 bytes for 1 vectors"):
        embedded(db, WORLD.usual)
    with pytest.raises(psycopg.errors.RaiseException, match="the engine gave 0 bytes for 1 vectors"):
        db.execute("select * from two_tower.embed_videos(%s)", (WORLD.videos[:1],))


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
def test_i6_nobody_but_the_owner_makes_values_of_bytes(role: str, db: Connection) -> None:
    for routine in KEPT:
        assert not one(db, "select has_function_privilege(%s, %s, 'execute')", role, routine)
        assert not one(db, "select has_function_privilege('public', %s, 'execute')", routine)
    db.execute(f"set role {role}".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.execute("select two_tower.halfvec_of('\\x0100000000', 1, true)")


def test_bytes_that_are_no_value_are_refused(db: Connection) -> None:
    """Whatever is cut off, added or changed in what says how long it is: what is read ends where the bytes end."""
    vector, ids = np.zeros(130, np.uint16), bytes.fromhex("0100000000000000860b00000200000001000000") + bytes(32)
    vector[0] = 128
    for call, image, head in (
        ("two_tower.halfvec_of(%s, 128, true)", vector.tobytes(), 4),
        ("two_tower.uuids_of(%s, -1, true)", ids, 20),
    ):
        db.execute(f"select {call}".encode(), (image,))
        cut = [image[:n] for n in (*range(head + 1), len(image) - 1)]
        changed = [image[:n] + bytes([image[n] ^ bit]) + image[n + 1 :] for n in range(head) for bit in (1, 2, 128)]
        for bad in [*cut, image + b"\0", *changed]:
            with pytest.raises(psycopg.errors.CheckViolation):
                db.execute(f"select {call}".encode(), (bad,))
    for limit in (0, 4, 10, 24):
        with pytest.raises(psycopg.errors.CheckViolation):
            db.execute("select two_tower.uuids_of(%s::bytea, %s, true)", (ids, limit))
    for dim in (0, 127, 129, 2**30):
        with pytest.raises(psycopg.DataError):
            db.execute("select two_tower.halfvec_of(%s, %s, true)", (vector.tobytes(), dim))


def test_values_made_of_bytes_are_the_values(db: Connection) -> None:
    """Every half-precision number that a vector of unit length can hold; lists of all lengths."""
    inference = plpython("inference")
    halves = np.arange(0x3C01, dtype=np.uint16)
    numbers = np.concatenate([halves, halves[1:] | 0x8000]).view(np.float16).astype(np.float32)
    vectors = np.resize(numbers, (len(numbers) // 128 + 1, 128))
    images = inference.images(np, vectors)
    for n, vector in enumerate(vectors):
        same = """select extensions.halfvec_send(two_tower.halfvec_of(%s, 128, true))
            = extensions.halfvec_send(%s::real[]::extensions.halfvec)"""
        assert one(db, same, images[260 * n : 260 * n + 260], vector.tolist())
