"""The RPCs and tables through PostgREST: HTTP, a JWT, and JSON as supabase-js receives it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import psycopg
import pytest

from conftest import in_database
from documents import REPOSITORY
from rest_api import PREFIX, serve
from tiers import some
from two_tower.bench.rest import sign
from two_tower.server.embedded import Server
from world_fixtures import NOBODY, Client, make_world, one

pytestmark = [pytest.mark.database, pytest.mark.xdist_group("postgrest")]

WORLD = make_world()
USER, OTHER, LIKING, VIDEO = WORLD.usual, WORLD.many, WORLD.users[6], WORLD.published[3]
ME, LIKER, NOT_HERE = (sign(role="authenticated", sub=str(user)) for user in (USER, LIKING, NOBODY))
WITHOUT_SUB = sign(role="authenticated")
VISITOR, SERVICE = sign(role="anon"), sign(role="service_role")
DECISIONS = "/user_video_decisions"


@dataclass
class Api:
    """PostgREST on a database of its own."""

    http: httpx2.Client
    dsn: str

    def ask(self, method: str, path: str, token: str | None, **options: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.http.request(method, path, headers=headers | options.pop("headers", {}), **options)

    def rpc(self, token: str | None, name: str, **arguments: Any) -> httpx2.Response:
        return self.ask("POST", f"/rpc/{name}", token, json=arguments)

    def rows(self, path: str, token: str | None) -> list[dict[str, Any]]:
        answer = self.ask("GET", path, token)
        assert answer.is_success, answer.text
        return list(answer.json())

    def recommended(self, token: str) -> list[str]:
        return [row["video_id"] for row in self.rpc(token, "recommend_videos", limit=200).json()]


@pytest.fixture(scope="module")
def api(cluster: Server, world_template: str, node_modules: Path) -> Iterator[Api]:
    name = f"rest_{os.getpid()}"
    dsn = in_database(cluster.dsn, name)
    with psycopg.connect(cluster.dsn, autocommit=True) as admin:
        admin.execute(f"create database {name} template {world_template}".encode())
        with serve(dsn, node_modules) as url, httpx2.Client(base_url=url + PREFIX, timeout=30) as http:
            yield Api(http, dsn)
        admin.execute(f"drop database {name} with (force)".encode())


def refused(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """Asserts that the answer is this error; returns its body."""
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    assert answer.headers["Content-Type"].startswith("application/json")
    body: dict[str, Any] = answer.json()
    assert body.keys() == {"code", "message", "details", "hint"}
    assert body["message"]
    return body


# -------------------------------------------------------------------------------------------- routines

OWN = {
    "claim_session",
    "embed_user",
    "export_user_data",
    "get_item_embedding_features",
    "get_user_embedding_features",
    "log_shown",
    "next_videos",
    "popular_videos_now",
    "rank_candidates",
    "recommend_from",
    "recommend_videos",
    "set_choices",
    "similar_videos",
    "trending_videos",
    "update_user_features",
}
VISITORS = {"popular_videos_now", "recommend_from", "similar_videos", "trending_videos"}
WRITING = {"claim_session", "log_shown", "next_videos"}
"""Routines whose answer changes when they are called again."""
OPERATORS = (OWN - WRITING - {"rank_candidates"}) | {
    "get_item_embedding_feature_batch",
    "get_user_embedding_feature_batch",
}


@pytest.mark.parametrize(
    ("token", "expected"),
    [(None, VISITORS), (VISITOR, VISITORS), (ME, OWN), (SERVICE, OPERATORS)],
    ids=["no token", "anon", "authenticated", "service_role"],
)
def test_the_description_shows_each_role_its_own_routines(token: str | None, expected: set[str], api: Api) -> None:
    paths = api.ask("GET", "/", token).json()["paths"]
    assert {path.removeprefix("/rpc/") for path in paths if path.startswith("/rpc/")} == expected


CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("authenticated", "recommend_videos", {}),
    ("authenticated", "recommend_videos", {"limit": 7, "diversity": 0.5, "tag_ids": [str(t) for t in WORLD.tags[:9]]}),
    ("authenticated", "embed_user", {"force": True}),
    ("authenticated", "update_user_features", {"p_user_id": str(USER)}),
    ("authenticated", "get_user_embedding_features", {"user_id": str(USER)}),
    ("authenticated", "get_item_embedding_features", {"video_id": str(VIDEO)}),
    ("anon", "similar_videos", {"video_id": str(VIDEO), "limit": 5}),
    ("anon", "recommend_from", {"liked": [str(v) for v in WORLD.published[:3]], "noped": [str(VIDEO)]}),
    ("anon", "popular_videos_now", {"limit": 50}),
    ("authenticated", "rank_candidates", {"video_ids": [str(v) for v in WORLD.published[:30]]}),
    ("anon", "trending_videos", {"window": "1 day", "tag_ids": [str(t) for t in WORLD.tags[:9]]}),
    ("authenticated", "trending_videos", {}),
    ("service_role", "popular_videos_now", {}),
    ("service_role", "recommend_videos", {"p_user_id": str(OTHER), "limit": 5}),
    ("service_role", "embed_user", {"p_user_id": str(OTHER)}),
    ("authenticated", "set_choices", {"trained_on": True, "never_makers": []}),
    ("service_role", "set_choices", {"p_user_id": str(OTHER)}),
    ("authenticated", "export_user_data", {}),
    ("service_role", "export_user_data", {"p_user_id": str(OTHER)}),
    ("service_role", "get_user_embedding_features", {"user_id": str(OTHER)}),
    ("service_role", "get_user_embedding_feature_batch", {"limit": 3, "offset": 2}),
    ("service_role", "get_item_embedding_feature_batch", {"limit": 3, "after": str(VIDEO)}),
]


@pytest.mark.parametrize(("role", "name", "arguments"), CALLS, ids=[f"{name} as {role}" for role, name, _ in CALLS])
def test_routines_answer_over_http_as_in_sql(role: str, name: str, arguments: dict[str, Any], api: Api) -> None:
    """A set is a list of objects, a row or a JSON value is an object, with the database's answer as content."""
    answer = api.rpc({"authenticated": ME, "anon": VISITOR, "service_role": SERVICE}[role], name, **arguments)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    with psycopg.connect(in_database(api.dsn, urlsplit(api.dsn).path[1:], "authenticator")) as connection:
        rows = Client(connection).rpc(role, USER if role == "authenticated" else None, name, **arguments)
    assert rows
    if name.endswith(("_videos", "_now", "_from", "_candidates", "_batch")):
        assert answer.json() == rows
    else:
        (expected,) = rows
        found = answer.json()
        for row in (found, expected):
            row.pop("updated_at", None)  # the two calls were not made in the same moment
        assert found == expected


def test_every_routine_of_the_api_is_called_by_a_test() -> None:
    assert {name for _, name, _ in CALLS} | WRITING == OWN | OPERATORS


# -------------------------------------------------------------------------------------------- by supabase-js

CALLER, SERVED = WORLD.users[8], WORLD.users[9]
"""The calling user, and the user for whom the service calls."""
TOKENS = {"anon": VISITOR, "authenticated": sign(role="authenticated", sub=str(CALLER)), "service_role": SERVICE}
VALUES: dict[str, Any] = {
    "liked": [str(v) for v in WORLD.published[:3]],
    "noped": [str(VIDEO)],
    "p_user_id": str(CALLER),
    "shown": [{"video_id": str(VIDEO), "list_id": str(NOBODY), "rank": 1, "reason": "taste"}],
    "user_id": str(CALLER),
    "video_id": str(VIDEO),
    "video_ids": [str(v) for v in WORLD.published[:9]],
}
"""Argument without a default → its value in calls."""


@dataclass(frozen=True)
class Routine:
    """An RPC, from the catalogue."""

    name: str
    arguments: dict[str, str]
    """Name → type."""
    required: list[str]
    roles: set[str]
    """Who may execute it."""

    def call(self, role: str) -> dict[str, Any]:
        """The arguments of a plain call."""
        given = {name: VALUES[name] for name in self.required}
        return given | ({"p_user_id": str(SERVED)} if role == "service_role" and "p_user_id" in self.arguments else {})


@pytest.fixture(scope="module")
def routines(api: Api) -> list[Routine]:
    """All our routines in the schema that PostgREST exposes."""
    with psycopg.connect(api.dsn) as db:
        rows = db.execute(
            """select p.proname, a.names, a.types, p.pronargs - p.pronargdefaults, array(
                select r.name from unnest(array['anon', 'authenticated', 'service_role']) as r (name)
                where has_function_privilege(r.name, p.oid, 'execute')
            )
            from pg_proc p
            cross join lateral (
                select array_agg(p.proargnames[t.at] order by t.at) as names,
                    array_agg(format_type(t.type, null) order by t.at) as types
                from unnest(p.proargtypes::oid[]) with ordinality as t (type, at)
            ) as a
            where p.pronamespace = 'public'::regnamespace
                and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
            order by p.proname"""
        ).fetchall()
    return [
        Routine(name, dict(zip(names, types, strict=True)), names[:required], set(roles))
        for name, names, types, required, roles in rows
    ]


def by_supabase_js(
    api: Api, node_modules: Path, directory: Path, calls: list[tuple[str, str, dict[str, Any]]], at_once: int = 1
) -> list[dict[str, Any]]:
    """The answers of the calls, of which ``at_once`` run concurrently."""
    url = str(api.http.base_url).rstrip("/").removesuffix(PREFIX)
    job = directory / "job.json"
    job.write_text(json.dumps({"url": url, "tokens": TOKENS, "calls": calls, "at_once": at_once}))
    driver = Path(__file__).parent / "rpc_driver.mjs"
    done = subprocess.run(
        ["node", str(driver), str(job), str(node_modules)], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def test_supabase_js_calls_each_routine_as_each_role(
    api: Api, routines: list[Routine], node_modules: Path, tmp_path: Path
) -> None:
    """Roles that may execute it get the answer of SQL, others a refusal. The catalogue lists routines and roles."""
    assert {routine.name for routine in routines} == OWN | OPERATORS
    # Writing routines come first, so that the others read the same rows as SQL below.
    writing = WRITING | {"embed_user", "set_choices", "update_user_features"}
    routines = sorted(routines, key=lambda routine: routine.name not in writing)
    calls = [(role, routine.name, routine.call(role)) for routine in routines for role in TOKENS]
    allowed = [role in routine.roles for routine in routines for role in TOKENS]
    answers = by_supabase_js(api, node_modules, tmp_path, calls)
    with psycopg.connect(in_database(api.dsn, urlsplit(api.dsn).path[1:], "authenticator")) as connection:
        client = Client(connection)
        for (role, name, given), may, answer in zip(calls, allowed, answers, strict=True):
            if not may:
                assert (answer["code"], answer["status"]) == ("42501", 401 if role == "anon" else 403), (role, name)
                continue
            assert answer["code"] is None, (role, name, answer)
            assert answer["status"] == 200
            if name in writing:
                continue
            rows = client.rpc(role, CALLER if role == "authenticated" else None, name, **given)
            assert answer["data"] in (rows, *rows), (role, name)


HOSTILE: dict[str, list[Any]] = {
    "integer": ["three", 2.5, -1, 0, 10**9, 10**12, True, [], {}, None],
    "uuid": ["x", "", 7, [], str(NOBODY), "'); drop table videos; --", None],
    "uuid[]": ["x", ["x"], [None], [[]], {}, 5, [str(NOBODY)] * 101, [str(NOBODY)] * 20_001, None],
    "text[]": ["x", [None], [""], ["'); drop table videos; --"], [["a"], ["b", "c"]], ["\u0000"], ["x" * 100_000], {}],
    "boolean": ["perhaps", 2, [], None],
    "real": ["x", "NaN", "Infinity", "-Infinity", -1, 1e300, [], None],
    "timestamp with time zone": ["soon", "infinity", "-infinity", "0001-01-01 BC", 0, None],
    "interval": ["x", "-1 day", "100 years", "infinity", 7, None],
    "jsonb": [None, {}, "x", 5, [None], [[]], [{}], [{"video_id": "x"}], [{"rank": 10**30}], [{}] * 201],
}
"""Type of an argument → invalid values."""


@pytest.mark.parametrize("part", some(range(4), 1))
def test_hostile_arguments_are_answered_or_refused_with_a_message(
    part: int, api: Api, routines: list[Routine], node_modules: Path, tmp_path: Path
) -> None:
    """Every argument of every routine, as each role that may call it: only client errors, and no side effects."""
    calls: list[tuple[str, str, dict[str, Any]]] = []
    for routine in routines:
        for role in sorted(routine.roles):
            for at, (argument, kind) in enumerate(routine.arguments.items()):
                values = HOSTILE[kind]
                calls += [
                    (role, routine.name, routine.call(role) | {argument: value})
                    for number, value in enumerate(values)
                    if (number + at + len(role)) % 4 == part
                ]
    kept = """select (select count(*) from videos), (select count(*) from auth.users),
        (select count(*) from user_video_decisions where user_id <> all (%s))"""
    with psycopg.connect(api.dsn) as db:
        before = db.execute(kept, ([CALLER, SERVED],)).fetchone()
    for call, answer in zip(calls, by_supabase_js(api, node_modules, tmp_path, calls, 4), strict=True):
        code = answer["code"]
        assert code is None or code[:2] == "22" or code in ("28000", "42501", "54000", "P0002"), (call, answer)
        assert code is None or answer["message"], call
    with psycopg.connect(api.dsn) as db:
        assert db.execute(kept, ([CALLER, SERVED],)).fetchone() == before


def test_read_only_functions_answer_get_requests(api: Api) -> None:
    """``limit`` in a query string is PostgREST's own: it truncates the answer, and the routine uses its default."""
    rows = api.rows("/rpc/recommend_videos?limit=50&select=video_id,rank&order=rank.desc", ME)
    assert [row["rank"] for row in rows] == list(range(20, 0, -1))
    assert rows[0].keys() == {"video_id", "rank"}
    refused(api.ask("GET", "/rpc/embed_user", ME), 405, "25006")


def test_pages_follow_each_other_and_a_list_is_logged_once(api: Api) -> None:
    pages = [api.rpc(LIKER, "next_videos", limit=5).json() for _ in range(3)]
    seen = [row["video_id"] for page in pages for row in page]
    assert len(set(seen)) == 15
    rows = api.rpc(LIKER, "recommend_videos", limit=5, exclude=seen).json()
    assert rows[0].keys() == pages[0][0].keys()
    assert [api.rpc(LIKER, "log_shown", shown=rows).json() for _ in range(2)] == [5, 0]
    assert not {row["video_id"] for row in api.rpc(LIKER, "next_videos").json()} & {
        *seen,
        *(row["video_id"] for row in rows),
    }


def test_a_session_is_claimed_once(api: Api) -> None:
    user = str(WORLD.no_decisions)
    token = sign(role="authenticated", sub=user)
    session = {"liked": [str(v) for v in WORLD.published[:3]], "noped": [str(v) for v in WORLD.published[3:5]]}
    assert [api.rpc(token, "claim_session", **session).json() for _ in range(2)] == [5, 0]
    kept = {row["video_id"]: row["decision_type"] for row in api.rows(DECISIONS, token)}
    assert kept == dict.fromkeys(session["liked"], "like") | dict.fromkeys(session["noped"], "nope")
    assert api.ask("DELETE", f"{DECISIONS}?user_id=eq.{user}", token).status_code == 204


def test_one_user_can_log_a_limited_number_of_impressions_per_day(api: Api) -> None:
    with psycopg.connect(api.dsn, autocommit=True) as db:
        limit = "update two_tower.settings set value = to_jsonb(%s) where name = 'shown_per_day'"
        db.execute(limit, (200,))
        rows = api.rpc(ME, "recommend_videos", limit=100).json()
        for _ in range(2):
            again = [row | {"list_id": str(uuid4())} for row in rows]
            assert api.rpc(ME, "log_shown", shown=again).json() == 100
        refused(api.rpc(ME, "log_shown", shown=rows[:50]), 413, "54000")
        db.execute(limit, (10_000,))


# -------------------------------------------------------------------------------------------- errors

ERRORS: list[tuple[str | None, str, dict[str, Any], int, str]] = [
    (ME, "similar_videos", {}, 404, "PGRST202"),
    (ME, "recommend_videos", {"user_id": str(OTHER)}, 404, "PGRST202"),
    (ME, "no_such_routine", {}, 404, "PGRST202"),
    (SERVICE, "recommend_batch", {"user_ids": [str(USER)], "limit": 3}, 404, "PGRST202"),
    (ME, "recommend_videos", {"limit": "three"}, 400, "22P02"),
    (ME, "recommend_videos", {"limit": 2.5}, 400, "22P02"),
    (ME, "recommend_videos", {"tag_ids": ["'); drop table videos; --"]}, 400, "22P02"),
    (ME, "embed_user", {"force": "perhaps"}, 400, "22P02"),
    (sign(role="authenticated", sub="me"), "recommend_videos", {}, 400, "22P02"),
    (ME, "recommend_videos", {"limit": 201}, 400, "22023"),
    (ME, "recommend_videos", {"limit": 0}, 400, "22023"),
    (ME, "recommend_videos", {"limit": None}, 400, "22023"),
    (ME, "recommend_videos", {"diversity": 2}, 400, "22023"),
    (ME, "recommend_videos", {"tag_ids": [str(NOBODY)] * 101}, 400, "22023"),
    (ME, "next_videos", {"limit": 201}, 400, "22023"),
    (VISITOR, "popular_videos_now", {"filters": ["v.price < 5"]}, 400, "22023"),
    (ME, "log_shown", {"shown": {"rank": 1}}, 400, "22023"),
    (ME, "log_shown", {"shown": [{"rank": 1}]}, 400, "22023"),
    (VISITOR, "next_videos", {}, 401, "42501"),
    (ME, "rank_candidates", {"video_ids": [str(NOBODY)] * 2001}, 400, "22023"),
    (VISITOR, "rank_candidates", {"video_ids": []}, 401, "42501"),
    (WITHOUT_SUB, "rank_candidates", {"video_ids": []}, 403, "28000"),
    (VISITOR, "recommend_from", {"liked": [str(NOBODY)] * 300, "noped": [str(NOBODY)] * 201}, 400, "22023"),
    (VISITOR, "recommend_from", {"noped": []}, 404, "PGRST202"),
    (VISITOR, "recommend_from", {"liked": ["x"]}, 400, "22P02"),
    (VISITOR, "popular_videos_now", {"limit": 201}, 400, "22023"),
    (VISITOR, "trending_videos", {"window": "2 days"}, 400, "22023"),
    (VISITOR, "claim_session", {"liked": []}, 401, "42501"),
    (WITHOUT_SUB, "claim_session", {"liked": []}, 403, "28000"),
    (ME, "claim_session", {"liked": [str(NOBODY)] * 501}, 400, "22023"),
    (VISITOR, "log_shown", {"shown": []}, 401, "42501"),
    (SERVICE, "next_videos", {}, 403, "42501"),
    (WITHOUT_SUB, "next_videos", {}, 403, "28000"),
    (VISITOR, "similar_videos", {"video_id": str(VIDEO), "limit": 201}, 400, "22023"),
    (SERVICE, "get_item_embedding_feature_batch", {"limit": 10_001}, 400, "22023"),
    (VISITOR, "similar_videos", {"video_id": str(NOBODY)}, 500, "P0002"),
    (NOT_HERE, "embed_user", {}, 500, "P0002"),
    (SERVICE, "get_user_embedding_features", {"user_id": str(NOBODY)}, 500, "P0002"),
    (ME, "get_item_embedding_features", {"video_id": str(NOBODY)}, 500, "P0002"),
    (ME, "get_user_embedding_features", {"user_id": str(OTHER)}, 403, "42501"),
    (ME, "update_user_features", {"p_user_id": str(OTHER)}, 403, "42501"),
    (ME, "get_user_embedding_feature_batch", {"limit": 1}, 403, "42501"),
    (SERVICE, "recommend_videos", {}, 403, "28000"),
    (SERVICE, "embed_user", {}, 403, "28000"),
    (SERVICE, "embed_user", {"p_user_id": str(NOBODY)}, 500, "P0002"),
    (ME, "recommend_videos", {"p_user_id": str(OTHER)}, 403, "42501"),
    (ME, "set_choices", {"p_user_id": str(OTHER)}, 403, "42501"),
    (ME, "set_choices", {"never_makers": ["x"] * 101}, 400, "22023"),
    (VISITOR, "set_choices", {}, 401, "42501"),
    (WITHOUT_SUB, "set_choices", {}, 403, "28000"),
    (NOT_HERE, "set_choices", {}, 500, "P0002"),
    (ME, "export_user_data", {"p_user_id": str(OTHER)}, 403, "42501"),
    (VISITOR, "export_user_data", {}, 401, "42501"),
    (SERVICE, "export_user_data", {}, 403, "28000"),
    (ME, "embed_user", {"p_user_id": str(USER)}, 403, "42501"),
    (VISITOR, "recommend_videos", {"p_user_id": str(USER)}, 401, "42501"),
    (sign(role="postgres", sub=str(USER)), "recommend_videos", {}, 403, "42501"),
    (VISITOR, "recommend_videos", {}, 401, "42501"),
    (VISITOR, "embed_user", {}, 401, "42501"),
    (None, "recommend_videos", {}, 401, "42501"),
    (WITHOUT_SUB, "recommend_videos", {}, 403, "28000"),
    (WITHOUT_SUB, "embed_user", {}, 403, "28000"),
]


@pytest.mark.parametrize(("token", "name", "arguments", "status", "code"), ERRORS)
def test_an_invalid_call_has_a_status_and_a_code(
    token: str | None, name: str, arguments: dict[str, Any], status: int, code: str, api: Api
) -> None:
    refused(api.rpc(token, name, **arguments), status, code)


def test_a_message_says_what_is_wrong(api: Api) -> None:
    body = refused(api.rpc(ME, "recommend_videos", limit=5000), 400, "22023")
    assert body["message"] == "limit must be between 1 and 200, not 5000"


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (sign(role="authenticated", sub=str(USER), exp=1), "expired"),
        (sign(role="authenticated", sub=str(USER), nbf=4_000_000_000), "NotYetValid|not yet valid"),
        (sign(role="authenticated", sub=str(USER), secret="another secret, of 32 bytes or more"), "JWS|JWT"),
        (ME.rpartition(".")[0] + ".", "JWS|JWT"),
        ("rubbish", "JWS|JWT"),
    ],
    ids=["expired", "not yet valid", "forged", "without signature", "rubbish"],
)
def test_an_invalid_token_is_refused_before_the_database(token: str, message: str, api: Api) -> None:
    answer = api.rpc(token, "recommend_videos")
    body = refused(answer, 401, answer.json()["code"])
    assert re.fullmatch("PGRST30[0-3]", body["code"])  # which one depends on PostgREST's version
    assert re.search(message, body["message"])


def test_an_invalid_json_body_is_a_client_error(api: Api) -> None:
    answer = api.ask("POST", "/rpc/recommend_videos", ME, content="{", headers={"Content-Type": "application/json"})
    refused(answer, 400, "PGRST102")


def test_the_schema_two_tower_is_not_exposed(api: Api) -> None:
    for method, header in (("GET", "Accept-Profile"), ("POST", "Content-Profile")):
        answer = api.ask(method, "/model_versions", SERVICE, headers={header: "two_tower"}, json={})
        refused(answer, 406, "PGRST106")


def test_a_database_without_a_model_says_how_to_train_one(dsn: str, node_modules: Path) -> None:
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute("insert into auth.users (id) values (%s)", (USER,))
    with serve(dsn, node_modules) as url, httpx2.Client(base_url=url + PREFIX) as http:
        api = Api(http, dsn)
        body = refused(api.rpc(ME, "embed_user"), 500, "55000")
        assert "two-tower train" in body["hint"]
        assert api.rpc(ME, "recommend_videos").json() == []


def test_the_recipes_say_which_status_each_code_has() -> None:
    recipes = (REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8")
    documented = {
        code: set(status.split(", ")) for code, status in re.findall(r"\| `(\w{5})` \| ([\d, ]+?) \|", recipes)
    }
    measured: dict[str, set[str]] = {"25006": {"405"}, "54000": {"413"}, "55000": {"500"}, "57014": {"500"}}
    for _, _, _, status, code in ERRORS:
        measured.setdefault(code, set()).add(str(status))
    del measured["PGRST202"]
    assert documented == measured


# -------------------------------------------------------------------------------------------- own rows


def decision(user: Any, video: Any, kind: str = "like") -> dict[str, str]:
    return {"user_id": str(user), "video_id": str(video), "decision_type": kind}


def test_a_liked_video_counts_and_leaves_the_list(api: Api) -> None:
    before = api.recommended(LIKER)
    answer = api.ask("POST", DECISIONS, LIKER, json=decision(LIKING, before[0]))
    assert (answer.status_code, answer.content) == (201, b"")
    assert before[0] not in api.recommended(LIKER)
    embedded = api.rpc(LIKER, "embed_user").json()
    assert (embedded["success"], embedded["user_id"], embedded["model_version"]) == (True, str(LIKING), "v1")
    assert before[0] in api.rpc(LIKER, "get_user_embedding_features", user_id=str(LIKING)).json()["liked_video_ids"]
    assert before[0] not in api.recommended(LIKER)

    changed = api.ask("PATCH", f"{DECISIONS}?video_id=eq.{before[0]}", LIKER, json={"decision_type": "skip"})
    assert changed.status_code == 204
    undone = api.ask("DELETE", f"{DECISIONS}?video_id=eq.{before[0]}", LIKER)
    assert (undone.status_code, undone.content) == (204, b"")
    api.rpc(LIKER, "embed_user")
    assert api.recommended(LIKER) == before


@pytest.mark.parametrize(
    ("token", "row", "status", "code"),
    [
        (ME, decision(OTHER, NOBODY), 403, "42501"),
        (WITHOUT_SUB, decision(USER, VIDEO), 403, "42501"),
        (VISITOR, decision(USER, VIDEO), 401, "42501"),
        (ME, decision(USER, VIDEO, "love"), 400, "23514"),
        (ME, decision(USER, NOBODY), 409, "23503"),
        (ME, decision(USER, min(WORLD.decided(USER))), 409, "23505"),
    ],
    ids=["another user's", "nobody's", "a visitor's", "no such decision", "no such video", "decided on already"],
)
def test_forbidden_or_invalid_decisions_are_refused(
    token: str, row: dict[str, str], status: int, code: str, api: Api
) -> None:
    refused(api.ask("POST", DECISIONS, token, json=row), status, code)


@pytest.mark.parametrize("table", ["user_video_decisions", "user_features", "user_embeddings", "profiles"])
def test_other_users_rows_are_invisible(table: str, api: Api) -> None:
    assert {row["user_id"] for row in api.rows(f"/{table}", ME)} == {str(USER)}
    assert api.rows(f"/{table}?user_id=eq.{OTHER}", ME) == []
    assert api.rows(f"/{table}?user_id=eq.{OTHER}", SERVICE) != []
    refused(api.ask("GET", f"/{table}", VISITOR), 401, "42501")


def test_another_users_decisions_cannot_be_changed(api: Api) -> None:
    path = f"{DECISIONS}?user_id=eq.{OTHER}"
    before = api.rows(path, SERVICE)
    wanted = {"Prefer": "return=representation"}
    assert api.ask("DELETE", path, ME, headers=wanted).json() == []
    assert api.ask("PATCH", path, ME, headers=wanted, json={"decision_type": "nope"}).json() == []
    mine = f"{DECISIONS}?video_id=eq.{min(WORLD.decided(USER))}"
    refused(api.ask("PATCH", mine, ME, json={"user_id": str(WORLD.no_decisions)}), 403, "42501")
    assert api.rows(path, SERVICE) == before


def test_clients_can_read_but_not_write_vectors(api: Api) -> None:
    path = f"/user_embeddings?user_id=eq.{USER}"
    (row,) = api.rows(path, ME)
    assert len(row["embedding"].strip("[]").split(",")) == 128
    refused(api.ask("PATCH", path, ME, json={"model_version": "mine"}), 403, "42501")


# -------------------------------------------------------------------------------------------- limits


def test_no_answer_has_more_than_a_thousand_rows(api: Api) -> None:
    with psycopg.connect(api.dsn) as connection:
        there = one(connection, "select count(*) from user_video_decisions")
    assert there > 1000
    answer = api.ask("GET", f"{DECISIONS}?limit=5000", SERVICE, headers={"Prefer": "count=exact"})
    assert (answer.status_code, len(answer.json())) == (206, 1000)
    assert answer.headers["Content-Range"] == f"0-999/{there}"


def test_visitors_have_a_shorter_statement_timeout_than_users(api: Api) -> None:
    waiting = "select count(*) from pg_locks where relation = 'public.videos'::regclass and not granted"
    with psycopg.connect(api.dsn) as holder, ThreadPoolExecutor(1) as pool:
        holder.execute("lock table public.videos in access exclusive mode")
        user = pool.submit(api.rpc, ME, "recommend_videos", limit=1)
        while not one(holder, waiting):
            time.sleep(0.01)
        visitor = api.ask("GET", "/videos?limit=1", VISITOR)
        assert not user.done()
        holder.rollback()
        refused(visitor, 500, "57014")
        assert len(user.result().json()) == 1
