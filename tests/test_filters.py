"""Filters have the same meaning in every list, and lists have the requested length as long as enough videos pass."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from conftest import Connection
from test_serving import check, ids
from two_tower.server.contract import ARGUMENTS, FILTERS, INDEXES
from world_fixtures import NOBODY, Client, column, make_world, one, rpc

pytestmark = pytest.mark.world

WORLD = make_world()
ME = WORLD.usual
LIKED = [str(v) for v in WORLD.published[:3]]
LISTS: dict[str, dict[str, Any]] = {
    "recommend_videos": {},
    "next_videos": {},
    "similar_videos": {"video_id": str(WORLD.published[3])},
    "recommend_from": {"liked": LIKED},
    "popular_videos_now": {},
    "trending_videos": {"window": "30 days"},
}
OUT: dict[str, set[str]] = {
    "recommend_videos": {str(v) for v in WORLD.decided(ME)},
    "next_videos": {str(v) for v in WORLD.decided(ME)},
    "similar_videos": {str(WORLD.published[3])},
    "recommend_from": set(LIKED),
}
"""Videos that a list leaves out without filters."""
LENGTH = 100
"""Length of lists: fewer than there are videos, so that some lists end by their length and others by the filter."""
Filter = dict[str, Any]


class Video:
    """The values of a video that filters read, from the rows of the world."""

    def __init__(self, row: tuple[Any, ...]) -> None:
        self.id, _, _, self.maker, _, self.series, _, _, self.price, self.duration, self.released, *_ = row
        self.tags = {str(t) for v, t in WORLD.video_tags if v == self.id}
        self.performers = {str(p) for v, p in WORLD.video_performers if v == self.id}

    def passes(self, given: Filter) -> bool:
        return all(RULES[name](self, value) for name, value in given.items())


NAMED: dict[str, tuple[str, Callable[[Video], bool]]] = {
    "in_reach": ("price < 20", lambda v: v.price is not None and v.price < 20),
    "long": ("v.duration_seconds > 3000", lambda v: v.duration is not None and v.duration > 3000),
    "tagged": (
        "exists (select from public.video_tags t where t.video_id = v.id and t.tag_id::text < '8')",
        lambda v: any(tag < "8" for tag in v.tags),
    ),
}
"""Filters that the owner defined: the SQL condition, and the same in Python."""
RULES: dict[str, Callable[[Video, Any], bool]] = {
    "tag_ids": lambda v, x: bool(v.tags & set(x)),
    "all_tag_ids": lambda v, x: set(x) <= v.tags,
    "no_tag_ids": lambda v, x: not v.tags & set(x),
    "performer_ids": lambda v, x: bool(v.performers & set(x)),
    "all_performer_ids": lambda v, x: set(x) <= v.performers,
    "no_performer_ids": lambda v, x: not v.performers & set(x),
    "makers": lambda v, x: v.maker in x,
    "no_makers": lambda v, x: v.maker not in x,
    "series": lambda v, x: v.series in x,
    "no_series": lambda v, x: v.series not in x,
    "price_min": lambda v, x: v.price is not None and v.price >= x,
    "price_max": lambda v, x: v.price is not None and v.price <= x,
    "duration_min": lambda v, x: v.duration is not None and v.duration >= x,
    "duration_max": lambda v, x: v.duration is not None and v.duration <= x,
    "released_after": lambda v, x: v.released is not None and v.released > datetime.fromisoformat(x),
    "filters": lambda v, x: all(NAMED[name][1](v) for name in x),
    "exclude": lambda v, x: str(v.id) not in x,
}
VIDEOS = [Video(row) for row in WORLD.video_rows if row[0] in set(WORLD.published)]
MAKERS = ["maker a", "maker b", "maker c", 'maker "d", {x}', "no such maker"]
SERIES = ["series a", "Serie \\ ü", "'; drop table videos; --"]


def some_filter(name: str, rng: random.Random) -> Any:
    if name.endswith("tag_ids"):
        return rng.sample([str(t) for t in WORLD.tags] + [str(NOBODY)], rng.choice([1, 2, 5]))
    if name.endswith("performer_ids"):
        return rng.sample([str(p) for p in WORLD.performers], rng.choice([1, 2, 5]))
    if name.endswith("makers"):
        return rng.sample(MAKERS, rng.choice([1, 2]))
    if name.endswith("series"):
        return rng.sample(SERIES, rng.choice([1, 2]))
    if name == "filters":
        return rng.sample(sorted(NAMED), rng.choice([1, 2]))
    if name.startswith("price"):
        # Some equal the price of a video, which is within the range.
        return rng.choice([round(rng.uniform(0, 40), 2), *(v.price for v in VIDEOS[:20] if v.price is not None)])
    if name.startswith("duration"):
        return rng.randrange(9000)
    if name == "exclude":
        return rng.sample([str(v) for v in WORLD.videos], rng.choice([1, 20, 100]))
    return datetime(rng.randrange(1970, 2025), 1, 1, tzinfo=UTC).isoformat()


@pytest.fixture(autouse=True)
def named(request: pytest.FixtureRequest) -> None:
    """Every test that has a database has these filters in it."""
    if "client" in request.fixturenames:
        for name, (condition, _) in NAMED.items():
            request.getfixturevalue("db").execute("select two_tower.set_filter(%s, %s)", [name, condition])


def filters(seed: int) -> list[Filter]:
    """Each filter alone, and several of two and three at once."""
    rng = random.Random(seed)
    names = list(RULES)
    chosen = [[name] for name in names] + [rng.sample(names, size) for size in (2,) * 8 + (3,) * 8]
    return [{name: some_filter(name, rng) for name in group} for group in chosen]


def listed(client: Client, name: str, **arguments: Any) -> list[dict[str, Any]]:
    """The list, without logging by next_videos(). Its id says whether it had filters."""
    with client.as_("authenticated", ME) as connection, connection.transaction(force_rollback=True):
        rows = rpc(connection, name, **LISTS[name] | {"limit": LENGTH} | arguments)
    for row in rows:
        for further in ("because_video_id", "because_title"):
            row.pop(further, None)
    check(rows)
    return rows


@pytest.mark.sampled
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", LISTS)
def test_lists_contain_only_videos_that_pass_and_as_many_as_exist(name: str, seed: int, client: Client) -> None:
    for given in filters(seed):
        passing = {str(v.id) for v in VIDEOS if v.passes(given)} - OUT.get(name, set())
        rows = listed(client, name, **given)
        assert set(ids(rows)) <= passing, given
        assert len(rows) == min(LENGTH, len(passing)), given


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", LISTS)
def test_a_filter_keeps_the_order(name: str, client: Client) -> None:
    every = ids(listed(client, name))
    for given in filters(9):
        found = ids(listed(client, name, **given))
        both = set(every) & set(found)
        if "exclude" not in given:
            assert [v for v in found if v in both] == [v for v in every if v in both], given


@pytest.mark.parametrize("name", LISTS)
def test_an_empty_array_and_null_are_no_filter(name: str, client: Client) -> None:
    expected = listed(client, name)
    arrays = [key for key, kind in FILTERS.items() if kind.endswith("[]")] + ["tag_ids", "exclude"]
    assert listed(client, name, **{key: [] for key in arrays}) == expected
    assert listed(client, name, **dict.fromkeys([*FILTERS, "tag_ids", "exclude"])) == expected


@pytest.mark.sampled
@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(
    "given",
    [{"price_min": 9, "price_max": 8}, {"tag_ids": [None]}, {"all_tag_ids": [None]}, {"makers": [None]},
     {"price_min": "NaN"}, {"price_min": "infinity"}, {"released_after": "infinity"}, {"duration_max": -1},
     {"all_tag_ids": [str(NOBODY)]}, {"performer_ids": [str(NOBODY)]}],
)  # fmt: skip
def test_a_filter_that_no_video_passes_gives_an_empty_list(name: str, given: Filter, client: Client) -> None:
    assert listed(client, name, **given) == []


@pytest.mark.sampled
@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("key", [key for key, kind in FILTERS.items() if kind.endswith("[]")] + ["tag_ids"])
def test_filters_take_at_most_100_values(name: str, key: str, client: Client) -> None:
    value = "long" if key == "filters" else str(NOBODY)
    assert isinstance(listed(client, name, **{key: [value] * 100}), list)
    with pytest.raises(errors.InvalidParameterValue, match=r"at most 100 (tags|performers|makers|series|filters)"):
        listed(client, name, **{key: [value] * 101})


def test_every_list_takes_every_filter() -> None:
    for name in LISTS:
        assert {"tag_ids", "exclude", *FILTERS} <= set(ARGUMENTS[name])
    assert RULES.keys() == {"tag_ids", "exclude", *FILTERS}


def test_a_column_that_the_application_dropped_passes_no_filter(db: Connection, client: Client) -> None:
    """Lists without it still work, and a filter by it passes nothing."""
    db.execute("alter table videos drop column maker")
    for name in LISTS:
        assert len(listed(client, name)) == LENGTH
        assert listed(client, name, makers=MAKERS) == []
        assert len(listed(client, name, no_makers=MAKERS)) == LENGTH


def test_a_type_that_the_application_changed_is_read(db: Connection, client: Client) -> None:
    given: Filter = {"price_min": 10, "duration_max": 5000, "makers": MAKERS[:3]}
    expected = {name: listed(client, name, **given) for name in LISTS}
    # Filters of the owner depend on these columns (tested below).
    for name in NAMED:
        db.execute("select two_tower.set_filter(%s, null)", [name])
    db.execute("alter table videos drop constraint videos_price_check, drop constraint videos_duration_seconds_check")
    db.execute(
        "alter table videos alter price type text, alter duration_seconds type numeric, alter maker type varchar(99)"
    )
    assert {name: listed(client, name, **given) for name in LISTS} == expected


def test_the_planner_inlines_filters(db: Connection) -> None:
    """A call for each row would cost more than the search."""
    db.execute("set plan_cache_mode = force_generic_plan")
    db.execute("set search_path = pg_catalog")
    db.execute(
        """prepare filtered (two_tower.video_filter) as
        select e.video_id from two_tower.video_embeddings e
        where $1 is null or (select p.passes from two_tower.passing($1, e.video_id) as p (passes))"""
    )
    plan = "\n".join(row[0] for row in db.execute("explain (costs off) execute filtered (null)"))
    assert "Function Scan" not in plan.replace("Function Scan on unnest", "")
    assert "passing" not in plan
    assert "Index" in plan


# ------------------------------------------------------------------------------------------------ by name


@pytest.mark.sampled
@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("given", [["no_such"], ["long", "no_such"], [None], [""], ["v.price < 5"], ["long'); --"]])
def test_clients_can_use_only_defined_filters(name: str, given: list[Any], client: Client) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="there is no filter") as caught:
        listed(client, name, filters=given)
    assert "set_filter" in str(caught.value.diag.message_hint)


@pytest.mark.parametrize(
    ("name", "condition"),
    [("long", ""), ("long", "no_such_column > 1"), ("long", "v.price"), ("long", "true) or (true; drop table videos"),
     ("long", "1 / (v.price - v.price) > 0"), ("Long", "true"), ("", "true"), (None, "true"), ("a b", "true"),
     ("ä", "true")],
)  # fmt: skip
def test_invalid_filters_are_refused(name: str | None, condition: str, db: Connection, client: Client) -> None:
    before = listed(client, "recommend_videos", filters=["long"])
    with pytest.raises(errors.InvalidParameterValue) as caught:
        db.execute("select two_tower.set_filter(%s, %s)", [name, condition])
    assert caught.value.diag.message_hint
    assert listed(client, "recommend_videos", filters=["long"]) == before
    with pytest.raises(errors.InsufficientPrivilege), client.as_("service_role") as connection:
        connection.execute("select two_tower.set_filter('long', 'true')")


def test_filters_can_be_changed_and_removed(db: Connection, client: Client) -> None:
    whole = listed(client, "popular_videos_now")
    db.execute("select two_tower.set_filter('long', 'true')")
    assert ids(listed(client, "popular_videos_now", filters=["long"])) == ids(whole)
    db.execute("select two_tower.set_filter('long', null)")
    with pytest.raises(errors.InvalidParameterValue, match="there is no filter 'long'"):
        listed(client, "popular_videos_now", filters=["long"])
    assert len(listed(client, "popular_videos_now", filters=["in_reach"])) > 0


def test_a_column_that_a_filter_names_is_not_dropped_unnoticed(db: Connection, client: Client) -> None:
    with pytest.raises(errors.DependentObjectsStillExist):
        db.execute("alter table videos drop column duration_seconds")
    db.execute("select two_tower.set_filter('long', null)")
    db.execute("alter table videos drop column duration_seconds")
    assert len(listed(client, "recommend_videos", filters=["in_reach"])) > 0


INDEXED: list[Filter] = [
    {"makers": ["maker a"], "price_min": 5},
    {"series": ["series a"], "price_min": 5},
    {"price_min": 10},
    {"price_max": 10},
    {"price_min": 10, "price_max": 12, "makers": MAKERS},
    {"duration_min": 3000},
    {"duration_max": 3000},
    {"duration_min": 1000, "duration_max": 5000, "price_min": 3},
    {"released_after": "2015-01-01 00:00+00"},
    {"released_after": "2015-01-01 00:00+00", "makers": MAKERS},
]


@pytest.mark.parametrize("given", INDEXED, ids=lambda given: "-".join(given))
def test_rare_values_are_found_by_an_index(given: Filter, db: Connection, client: Client) -> None:
    """Lists are the same with the index and without it."""
    with_index = {name: listed(client, name, **given) for name in LISTS}
    compiled = "two_tower.compile_filter(jsonb_populate_record(null::two_tower.video_filter, %s), null)"
    among = f"select two_tower.few_by_index({compiled})"
    assert {v.id for v in VIDEOS if v.passes(given)} <= set(one(db, among, Jsonb(given)))
    for index in column(db, "select indexname from pg_indexes where tablename = 'videos' and schemaname = 'public'"):
        if index in INDEXES["videos"]:
            db.execute(f"drop index {index}".encode())
    assert one(db, among, Jsonb(given)) is None
    assert {name: listed(client, name, **given) for name in LISTS} == with_index


def test_passing_videos_are_searched_only_once(db: Connection) -> None:
    """The first stage that searches passes its result on to the later stages."""
    query = """select n.among from two_tower.model_versions m
        cross join lateral two_tower.nearest_videos(m.version, (
            select e.embedding from two_tower.user_embeddings e limit 1
        ), 20, '{}', jsonb_populate_record(null::two_tower.video_filter, %s), 0, p_margin => 10) n"""
    given = {"price_min": float(sorted(v.price for v in VIDEOS if v.price is not None)[-10])}
    assert {v.id for v in VIDEOS if v.passes(given)} <= set(one(db, query, Jsonb(given)))
