"""Imports into adopted tables: rows that a table refuses are reported by line, and the others imported; Supabase's
sign-in can read the users created; values have bounds."""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest

from conftest import Connect
from two_tower.data.imports import ImportOptions, ImportSummary, import_catalog, import_decisions, import_reviews
from two_tower.errors import UserError

Connection = psycopg.Connection[Any]
Write = Callable[..., Path]

ANNA = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file into the working directory, which is the test's own."""
    monkeypatch.chdir(tmp_path)

    def to_file(content: str, name: str = "file.csv") -> Path:
        path = tmp_path / name
        path.write_text(content)
        return path

    return to_file


@pytest.fixture
def shop(db: Connection, write: Write) -> Connection:
    """A database with twelve videos and one user, Anna."""
    import_catalog(db, write("product_url,title\n" + "".join(f"u/{n},Title\n" for n in range(12)), "catalog.csv"))
    db.execute("insert into auth.users (id) values (%s)", [ANNA])
    return db


def rows(db: Connection, query: str) -> list[Any]:
    return [row[0] if len(row) == 1 else row for row in db.execute(query.encode()).fetchall()]


def rejects(summary: ImportSummary) -> list[tuple[Any, ...]]:
    """(line, column, value, reason), by line."""
    if summary.rejects is None:
        return []
    with summary.rejects.open(encoding="utf-8", newline="") as file:
        return sorted((int(line), *rest) for line, *rest in list(csv.reader(file))[1:])


def versions(db: Connection) -> list[Any]:
    """The row versions of all tables that imports write: equal only if nothing was written."""
    tables = ("videos", "tags", "performers", "video_tags", "video_performers", "user_video_decisions")
    names = [f"public.{name}" for name in tables] + ["two_tower.reviews", "auth.users"]
    return [sorted(rows(db, f"select ctid::text, xmin::text from {name}")) for name in names]


def adds_up(summary: ImportSummary) -> bool:
    parts = (summary.inserted, summary.updated, summary.unchanged, summary.rejected, summary.duplicates)
    return summary.rows == sum(parts) + summary.resumed and min(parts) >= 0


def trigger(table: str, condition: str, action: str = "raise exception 'not here' using errcode = 'P0001'") -> str:
    """A trigger of the application's, which does ``action`` to a new or changed row where ``condition`` holds."""
    return f"""create function public.mind() returns trigger language plpgsql as
        $$ begin if {condition} then {action}; end if; return new; end $$;
        create trigger minds before insert or update on {table} for each row execute function public.mind()"""


def deferred(table: str, condition: str) -> str:
    """The same, checked at the end of the transaction."""
    return f"""create function public.mind() returns trigger language plpgsql as
        $$ begin if {condition} then raise exception 'not here'; end if; return null; end $$;
        create constraint trigger minds after insert or update on {table} deferrable initially deferred
        for each row execute function public.mind()"""


# -------------------------------------------------------------------------------- what the application's tables refuse

CATALOGUE = """product_url,title,tags,maker,price,duration_seconds,released_at
n/1,Good,sea,fine,1,1,2024-01-01
n/2,Bad,wrong,wrong name,99999,9999999,1900-01-01
n/3,Good,sea|fog,fine,2,2,2024-01-02
n/4,Bad,wrong,wrong name,99999,9999999,1900-01-01
u/1,Good,sea,fine,3,3,2024-01-03
u/2,Bad,wrong,wrong name,99999,9999999,1900-01-01
n/5,Good,fog,fine,4,4,2024-01-04
"""
DECISIONS = "user_id,product_url,decision,created_at\n" + "".join(
    f"{ANNA},u/{n},{'skip' if n % 5 == 1 else ('like', 'nope')[n % 2]},2024-01-0{1 + n % 9}\n" for n in range(12)
)
CONSTRAINTS: dict[str, tuple[str, str]] = {
    "check on decisions": (
        "decisions", "alter table public.user_video_decisions add check (decision_type in ('like', 'nope'))"
    ),
    "check of another column": ("decisions", """alter table public.user_video_decisions add column seen int default 1;
        alter table public.user_video_decisions add check (seen = 1 and decision_type <> 'skip')"""),
    "enum": ("decisions", """alter table public.user_video_decisions
        drop constraint user_video_decisions_decision_type_check; create type public.mood as enum ('like', 'nope');
        alter table public.user_video_decisions
        alter decision_type type public.mood using decision_type::public.mood"""),
    "domain": ("decisions", """create domain public.mood as text check (value in ('like', 'nope'));
        alter table public.user_video_decisions alter decision_type type public.mood"""),
    "foreign key of decisions": ("decisions", """create table public.moods (name text primary key);
        insert into public.moods values ('like'), ('nope');
        alter table public.user_video_decisions add foreign key (decision_type) references public.moods"""),
    "deferred foreign key": ("decisions", """create table public.moods (name text primary key);
        insert into public.moods values ('like'), ('nope');
        alter table public.user_video_decisions add foreign key (decision_type) references public.moods
        deferrable initially deferred"""),
    "trigger on decisions": ("decisions", trigger("public.user_video_decisions", "new.decision_type = 'skip'")),
    "deferred trigger on decisions": (
        "decisions", deferred("public.user_video_decisions", "new.decision_type = 'skip'")
    ),
    "trigger with a code of its own": ("decisions", trigger(
        "public.user_video_decisions", "new.decision_type = 'skip'", "raise exception 'no' using errcode = 'PT400'"
    )),
    "trigger that empties": ("decisions", trigger(
        "public.user_video_decisions", "new.decision_type = 'skip'", "new.created_at := null"
    )),
    "exclusion": ("decisions", """alter table public.user_video_decisions add column zero int default 0;
        alter table public.user_video_decisions add exclude using btree (zero with =) where (decision_type = 'skip');
        insert into auth.users values (gen_random_uuid());
        insert into public.user_video_decisions select u.id, v.id, 'skip' from auth.users u, public.videos v
        where u.id <> '11111111-1111-4111-8111-111111111111' limit 1"""),
    "partial unique": ("decisions", """create unique index on public.user_video_decisions (decision_type)
        where decision_type = 'skip'; insert into auth.users values (gen_random_uuid());
        insert into public.user_video_decisions select u.id, v.id, 'skip' from auth.users u, public.videos v
        where u.id <> '11111111-1111-4111-8111-111111111111' limit 1"""),
    "check on a title": ("catalog", "alter table public.videos add check (title <> 'Bad')"),
    "domain of a title": ("catalog", """create domain public.name as text check (value <> 'Bad');
        alter table public.videos alter title type public.name"""),
    "check on a price": ("catalog", "alter table public.videos add check (price < 100)"),
    "overflow of a price": ("catalog", "alter table public.videos alter price type numeric(5, 1)"),
    "overflow of a duration": ("catalog", "alter table public.videos alter duration_seconds type smallint"),
    "length of a maker": ("catalog", "alter table public.videos alter maker type varchar(5)"),
    "enum of makers": ("catalog", """create type public.house as enum ('fine');
        alter table public.videos alter maker type public.house using maker::public.house"""),
    "foreign key of makers": ("catalog", """create table public.makers (name text primary key);
        insert into public.makers values ('fine');
        alter table public.videos add foreign key (maker) references public.makers"""),
    "check on a date": ("catalog", "alter table public.videos add check (product_released_at > '2000-01-01')"),
    "trigger on videos": ("catalog", trigger("public.videos", "new.title = 'Bad'")),
    "deferred trigger on videos": ("catalog", deferred("public.videos", "new.title = 'Bad'")),
    "check on tags": ("catalog", "alter table public.tags add check (name <> 'wrong')"),
    "length of tags": ("catalog", "alter table public.tags alter name type varchar(4)"),
    "domain of tags": ("catalog", """create domain public.word as text check (value <> 'wrong');
        alter table public.tags alter name type public.word"""),
    "trigger on tags": ("catalog", trigger("public.tags", "new.name = 'wrong'")),
    "trigger on links": ("catalog", trigger(
        "public.video_tags", "(select name from public.tags where id = new.tag_id) = 'wrong'")),
}  # fmt: skip


@pytest.mark.sampled(12)
@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_rows_refused_by_a_table_are_reported_and_the_others_imported(
    shop: Connection, write: Write, kind: str, chunk: int | None
) -> None:
    run: Callable[..., ImportSummary]
    verb, statements = CONSTRAINTS[kind]
    shop.execute(statements.encode())
    if verb == "decisions":
        run, text, bad = import_decisions, DECISIONS, [3, 8, 13]
        query = "select v.product_url from public.user_video_decisions d join public.videos v on v.id = video_id"
        query += f" where d.user_id = '{ANNA}' order by 1"
        good = sorted(f"u/{n}" for n in range(12) if n % 5 != 1)
    else:
        run, text, bad = import_catalog, CATALOGUE, [3, 5, 7]
        query, good = (
            "select product_url from public.videos where maker = 'fine' order by 1",
            ["n/1", "n/3", "n/5", "u/1"],
        )
    options = ImportOptions(chunk=chunk)
    summary = run(shop, write(text), options)
    assert [line for line, *_ in rejects(summary)] == bad
    assert all(reason.startswith("refused by the database: ") for *_, reason in rejects(summary))
    assert rows(shop, query) == good
    assert adds_up(summary)
    assert rows(shop, "select count(*) from public.tags where name = 'wrong'") == [0]
    if verb == "decisions":
        assert "skip" not in {name for name, count in summary.distribution.items() if count}
    before = versions(shop)
    again = run(shop, write(text), options)
    assert versions(shop) == before
    assert (again.inserted, again.updated, again.unchanged) == (0, 0, len(good))
    assert [line for line, *_ in rejects(again)] == bad


def test_a_constraint_on_one_column_is_reported_with_column_and_value(shop: Connection, write: Write) -> None:
    shop.execute(
        "alter table public.user_video_decisions add constraint said check (decision_type in ('like', 'nope'))"
    )
    summary = import_decisions(
        shop, write(f"who,product_url,decision\n{ANNA},u/1,SKIP\n"), ImportOptions(columns={"who": "user_id"})
    )
    assert rejects(summary) == [
        (2, "decision", "skip", "refused by the database: new row for relation \"user_video_decisions\" violates check"
         " constraint \"said\"")
    ]  # fmt: skip


@pytest.mark.sampled
@pytest.mark.parametrize("statement", [
    "alter table public.videos add check (product_url <> 'new/1')",
    "alter table public.videos alter product_url type varchar(5)",
    trigger("public.videos", "new.product_url like 'new%'"),
], ids=["check", "length", "trigger"])  # fmt: skip
@pytest.mark.parametrize("verb", ["reviews", "decisions"])
def test_products_that_cannot_be_created_are_reported(
    shop: Connection, write: Write, verb: str, statement: str
) -> None:
    shop.execute(statement.replace("varchar(5)", "varchar(4)").encode())
    new = "new/1"
    if verb == "reviews":
        summary = import_reviews(
            shop, write(f"product_url,reviewer_id,stars\nu/1,x,1\n{new},x,1\nn/2,y,2\n{new},y,2\n"),
            ImportOptions(unknown="create"),
        )  # fmt: skip
    else:
        text = f"product_url,user_id,label\nu/1,{ANNA},1\n{new},{ANNA},1\nn/2,{ANNA},1\n{new},{ANNA},0\n"
        summary = import_decisions(shop, write(text), ImportOptions(unknown="create"))
    assert [(line, column, value) for line, column, value, _ in rejects(summary)] == [
        (3, "product_url", new), (5, "product_url", new)]  # fmt: skip
    assert (summary.inserted, summary.items_created) == (2, 1)
    assert adds_up(summary)


@pytest.mark.soak
def test_import_time_is_proportional_to_the_refused_rows(shop: Connection, write: Write) -> None:
    shop.execute("alter table public.user_video_decisions add check (decision_type <> 'skip')")
    shop.execute("insert into auth.users (id) select md5('u' || n)::uuid from generate_series(1, 1500) n")
    users = rows(shop, "select id::text from auth.users")
    lines = [f"{user},u/{n},{'skip' if n % 3 == 0 else 'like'}" for user in users for n in range(3)]
    summary = import_decisions(shop, write("user_id,product_url,decision\n" + "\n".join(lines) + "\n"))
    assert (summary.rejected, summary.inserted) == (len(users), 2 * len(users))
    assert summary.seconds < 60


def test_an_error_not_caused_by_a_row_fails_the_import(shop: Connection, connect: Connect, write: Write) -> None:
    """A policy or a missing privilege: one message, and nothing is imported."""
    role = f"writer_{shop.info.dbname}"
    shop.execute(f"create role {role} login".encode())
    try:
        shop.execute(
            f"""grant usage on schema public, auth, two_tower, extensions to {role};
            grant execute on all routines in schema two_tower to {role};
            grant select on all tables in schema public, two_tower, auth to {role};
            grant insert, update, delete on public.videos, public.video_tags to {role}""".encode()
        )
        before = versions(shop)
        with pytest.raises(UserError, match=r"nothing is imported: permission denied|violates row-level security"):
            import_catalog(connect(user=role), write(CATALOGUE))
        assert versions(shop) == before
    finally:
        shop.execute(f"drop owned by {role}; drop role {role}".encode())


@pytest.mark.parametrize("column", ["videos.product_url", "tags.name", "performers.name"])
def test_names_equal_by_the_columns_type_are_one(shop: Connection, write: Write, column: str) -> None:
    shop.execute("create extension if not exists citext with schema extensions")
    table, name = column.split(".")
    shop.execute(f"alter table public.{table} alter {name} type extensions.citext".encode())
    path = write("product_url,title,tags,performers\nn/1,A,Sea,Ann\nN/2,B,SEA|fog,ANN\n")
    import_catalog(shop, path)
    (found,) = rows(shop, f"select count(*) from public.{table} where lower({name}::text) in ('sea', 'ann', 'n/1')")
    assert found == 1
    before = versions(shop)
    again = import_catalog(shop, path)
    assert (again.unchanged, rejects(again)) == (2, [])
    assert versions(shop) == before


KEYS = [
    ("videos", "videos_product_url_key"), ("tags", "tags_name_key"), ("performers", "performers_name_key"),
    ("video_tags", "video_tags_pkey"), ("video_performers", "video_performers_pkey"),
]  # fmt: skip


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("table", "key"), KEYS)
def test_a_catalogue_without_unique_keys_is_imported_once(shop: Connection, write: Write, table: str, key: str) -> None:
    shop.execute(f"alter table public.{table} drop constraint {key}".encode())
    path = write("product_url,title,tags,performers\nn/1,A,Sea,Ann\nn/2,B,Sea|fog,Ann\n")
    assert import_catalog(shop, path).inserted == 2
    before = versions(shop)
    assert import_catalog(shop, path).unchanged == 2
    assert versions(shop) == before


def test_decisions_without_a_unique_key_are_refused_with_the_remedy(shop: Connection, write: Write) -> None:
    shop.execute("alter table public.user_video_decisions drop constraint user_video_decisions_pkey")
    before = versions(shop)
    with pytest.raises(UserError, match="no unique key of user_id and video_id") as caught:
        import_decisions(shop, write(DECISIONS))
    assert versions(shop) == before
    shop.execute(str(caught.value.hint).encode())
    assert import_decisions(shop, write(DECISIONS)).inserted == 12


# ------------------------------------------------------------------------------------------------------ values' bounds

NOW = datetime.now(UTC)
MOMENTS: dict[str, bool] = {
    "1970-01-01": True, "1970-01-01T00:00:00Z": True, "2024-06-01 12:00": True, NOW.isoformat(): True,
    (NOW + timedelta(hours=23)).isoformat(): True, "0": False, "1969-12-31T23:59:59Z": False, "0001-01-01": False,
    "0044-03-15 BC": False, "-0044-03-15": False, "infinity": False, "-infinity": False, "1500-01-01": False,
    (NOW + timedelta(hours=25)).isoformat(): False, "2300-01-01": False, "2999-01-01": False, "9999-12-31": False,
    "294276-12-31": False, "99999999999999": False, "9999999999": False,
}  # fmt: skip


@pytest.mark.parametrize("verb", ["reviews", "decisions"])
def test_times_of_decisions_and_reviews_have_bounds(shop: Connection, write: Write, verb: str) -> None:
    lines = [f"u/1,user {n},1,{text}\n" for n, text in enumerate(["", *MOMENTS])]
    if verb == "reviews":
        summary = import_reviews(shop, write("product_url,reviewer_id,stars,created_at\n" + "".join(lines)))
    else:
        path = write("product_url,user_id,label,created_at\n" + "".join(lines))
        summary = import_decisions(shop, path, create_users=True)
    bad = [(line, "created_at", text) for line, (text, good) in enumerate(MOMENTS.items(), 3) if not good]
    assert [reject[:3] for reject in rejects(summary)] == bad
    assert summary.inserted == 1 + sum(MOMENTS.values())


@pytest.mark.sampled
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_times_of_parquet_have_bounds(shop: Connection, write: Write, unit: Any, zone: str | None) -> None:
    """The limits of the type, the limits of what is accepted, and values beyond them."""
    per_second = {"ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    now = int(NOW.timestamp())
    edges = {0: True, -1: False, now: True, now + 80_000: True, now + 90_000: False}
    edges |= {sign * min(2**63 // per_second - 100, far): False for sign in (1, -1) for far in (9**11, 9**13, 9**19)}
    moments = pl.Series("created_at", [s * per_second for s in edges], dtype=pl.Int64).cast(pl.Datetime(unit))
    moments = moments.dt.replace_time_zone("UTC").dt.convert_time_zone(zone) if zone else moments
    path = write("", "reviews.parquet")
    pl.DataFrame(
        {"product_url": [f"u/{n}" for n in range(len(edges))], "reviewer_id": "x", "stars": 5.0, "created_at": moments}
    ).write_parquet(path)
    summary = import_reviews(shop, path)
    good = [n for n, is_good in enumerate(edges.values()) if is_good]
    assert sorted(
        rows(shop, "select v.product_url from two_tower.reviews join public.videos v on v.id = video_id")
    ) == [f"u/{n}" for n in good]
    assert {column for _, column, *_ in rejects(summary)} == {"created_at"}


RELEASES = {
    "1850-01-01": True, "1895-12-28": True, "2199-12-31": True, "2200-01-01": False, "1849-12-31": False,
    "0001-01-01": False, "infinity": False, "-infinity": False, "9999-01-01": False, "0044-03-15 BC": False,
}  # fmt: skip
PRICES = {
    "0": True, "0.0": True, "-0": True, "0.000001": True, "1e-6": True, "980": True, "999999999999.99": True,
    "9e11": True, "1e-7": False, "1e-50": False, "1e-400": False, "-1": False, "-1e-9": False, "1e12": False,
    "1e30": False,
    "1e400": False, "inf": False, "-inf": False, "Infinity": False, "nan": False, "NaN": False, "free": False,
}  # fmt: skip


@pytest.mark.parametrize(("column", "values"), [("released_at", RELEASES), ("price", PRICES)])
def test_releases_and_prices_have_bounds(db: Connection, write: Write, column: str, values: dict[str, bool]) -> None:
    lines = [f"p/{n},A,{text}\n" for n, text in enumerate(["", *values])]
    summary = import_catalog(db, write(f"product_url,title,{column}\n" + "".join(lines)))
    bad = [(line, column, text) for line, (text, good) in enumerate(values.items(), 3) if not good]
    assert [reject[:3] for reject in rejects(summary)] == bad
    assert summary.inserted == 1 + sum(values.values())


# -------------------------------------------------------------------------------------------------- users of Supabase

GOTRUE = """
alter table auth.users add instance_id uuid, add aud varchar(255), add role varchar(255), add email varchar(255),
    add encrypted_password varchar(255), add email_confirmed_at timestamptz, add invited_at timestamptz,
    add confirmation_token varchar(255), add confirmation_sent_at timestamptz, add recovery_token varchar(255),
    add recovery_sent_at timestamptz, add email_change_token_new varchar(255), add email_change varchar(255),
    add email_change_sent_at timestamptz, add last_sign_in_at timestamptz, add raw_app_meta_data jsonb,
    add raw_user_meta_data jsonb, add is_super_admin boolean, add updated_at timestamptz, add phone text unique,
    add phone_confirmed_at timestamptz, add phone_change text default '',
    add phone_change_token varchar(255) default '',
    add phone_change_sent_at timestamptz, add email_change_token_current varchar(255) default '',
    add email_change_confirm_status smallint default 0 check (email_change_confirm_status between 0 and 2),
    add banned_until timestamptz, add reauthentication_token varchar(255) default '',
    add reauthentication_sent_at timestamptz, add is_sso_user boolean not null default false,
    add deleted_at timestamptz,
    add is_anonymous boolean not null default false,
    add confirmed_at timestamptz generated always as (least(email_confirmed_at, phone_confirmed_at)) stored,
    alter created_at drop not null, alter created_at drop default, alter id drop default;
create unique index confirmation_token_idx on auth.users (confirmation_token) where confirmation_token !~ '^[0-9 ]*$';
create unique index recovery_token_idx on auth.users (recovery_token) where recovery_token !~ '^[0-9 ]*$';
create unique index users_email_partial_key on auth.users (email) where is_sso_user = false;
"""
"""Columns of Supabase's auth.users, as its sign-in service creates them."""
READ = (
    "aud", "role", "confirmation_token", "recovery_token", "email_change_token_current", "email_change_token_new",
    "email_change", "email_change_confirm_status", "phone_change_token", "phone_change", "reauthentication_token",
    "raw_app_meta_data", "raw_user_meta_data", "created_at", "updated_at", "is_sso_user", "is_anonymous", "instance_id",
)  # fmt: skip
"""Columns that the service reads into variables that cannot be null; one null makes listing all users fail."""
NEW = "user_id,product_url,label\nbob,u/1,1\ncem,u/1,0\nbob,u/2,1\n"


@pytest.mark.sampled(3)
@pytest.mark.parametrize("missing", [None, *READ])
def test_created_users_are_readable_by_supabases_sign_in(shop: Connection, write: Write, missing: str | None) -> None:
    shop.execute(GOTRUE.encode())
    if missing:  # as in an older or newer release
        shop.execute(f"alter table auth.users drop column {missing}".encode())
    summary = import_decisions(shop, write(NEW), create_users=True)
    assert (summary.users_created, summary.inserted) == (2, 3)
    for column in (c for c in READ if c != missing):
        assert rows(shop, f"select count(*) from auth.users where id <> '{ANNA}' and {column} is null") == [0], column
    columns = [c for c in ("aud", "role") if c != missing]
    assert rows(shop, f"select distinct {columns[0]} from auth.users where id <> '{ANNA}'") == ["authenticated"]
    assert rows(shop, f"select count(*) from auth.users where id <> '{ANNA}' and email is null and phone is null") == [
        2
    ]
    if missing != "is_anonymous":  # anonymous users may be deleted later
        assert rows(shop, "select count(*) from auth.users where is_anonymous") == [0]
    before = versions(shop)
    assert import_decisions(shop, write(NEW), create_users=True).users_created == 0
    assert versions(shop) == before


HANDLE_NEW_USER = """create function public.handle_new_user() returns trigger language plpgsql security definer as
    $$ begin {}; return new; end $$;
    create trigger on_auth_user_created {} insert on auth.users
    for each row execute function public.handle_new_user()"""
NOT_CREATED: dict[str, tuple[str, str, str]] = {
    "a column that nobody knows": (
        "alter table auth.users add tenant int; update auth.users set tenant = 1;"
        " alter table auth.users alter tenant set not null",
        "auth.users wants tenant", "give the column a default"),
    "an e-mail address that must be there": (
        "delete from auth.users; alter table auth.users alter email set not null",
        "auth.users wants email", "create the users"),
    "a check": ("alter table auth.users add check (email is not null) not valid", "violates check", "create the users"),
    "a trigger that raises": (
        HANDLE_NEW_USER.format("raise exception 'no username'", "after"), "no username", "on_auth_user_created"),
    "a trigger that inserts a null": (
        "create table public.people (id uuid, mail text not null); "
        + HANDLE_NEW_USER.format("insert into public.people values (new.id, new.email)", "after"),
        "null value in column", "on_auth_user_created"),
    "a trigger that is wrong itself": (
        HANDLE_NEW_USER.format("insert into public.nowhere values (new.id)", "after"),
        "does not exist", "handle_new_user"),
    "a trigger that says nothing": (
        HANDLE_NEW_USER.format("return null", "before"), "does not say why", "on_auth_user_created"),
    "a trigger at the end of the transaction": (
        HANDLE_NEW_USER.format("raise exception 'no username'", "after").replace(
            "create trigger", "create constraint trigger"
        ).replace("for each row", "deferrable initially deferred for each row"),
        "no username", "on_auth_user_created"),
}  # fmt: skip


@pytest.mark.sampled(4)
@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize("why", NOT_CREATED)
def test_an_import_that_cannot_create_users_writes_nothing(
    shop: Connection, write: Write, why: str, chunk: int | None
) -> None:
    statements, message, hint = NOT_CREATED[why]
    shop.execute((GOTRUE + statements).encode())
    before = versions(shop)
    with pytest.raises(UserError, match=f"nothing is imported: .*{message}") as caught:
        import_decisions(shop, write(NEW), ImportOptions(chunk=chunk), create_users=True)
    assert hint in str(caught.value.hint)
    assert "\n" not in caught.value.message
    assert versions(shop) == before


def test_a_role_that_may_not_create_users_is_refused(shop: Connection, connect: Connect, write: Write) -> None:
    before = versions(shop)
    service = connect()
    service.execute("set role service_role")
    with pytest.raises(UserError, match=r"nothing is imported: .*permission denied") as caught:
        import_decisions(service, write(NEW), create_users=True)
    assert "role" in str(caught.value.hint)
    assert versions(shop) == before


@pytest.mark.parametrize(
    ("state", "told"), [("", True), ("disable", False), ("enable always", True), ("enable replica", False)]
)
def test_triggers_on_users_are_reported_before_the_import(
    shop: Connection, write: Write, state: str, told: bool
) -> None:
    shop.execute(HANDLE_NEW_USER.format("null", "after").encode())
    if state:
        shop.execute(f"alter table auth.users {state} trigger on_auth_user_created".encode())
    said: list[str] = []
    import_decisions(shop, write(NEW), ImportOptions(say=said.append, chunk=1), create_users=True)
    lines = [line for line in said if "on_auth_user_created (public.handle_new_user)" in line]
    assert len(lines) == told
