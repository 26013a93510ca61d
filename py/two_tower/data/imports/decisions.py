"""Users' decisions on videos, and the users themselves if they are to be created."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, LiteralString
from uuid import UUID

import numpy as np
import polars as pl
import psycopg
from psycopg import sql

from two_tower.data.imports.cells import TIMES, numbers, stars, texts
from two_tower.data.imports.feedback import Feedback
from two_tower.data.imports.products import PRODUCTS
from two_tower.data.imports.task import Import
from two_tower.errors import UserError
from two_tower.features import LEAST_GIVEN, MOST_GIVEN
from two_tower.ids import user_uuids

LABELS: Mapping[str, float] = {
    "like": 1, "1": 1, "true": 1, "t": 1,
    "nope": 0, "dislike": 0, "0": 0, "false": 0, "f": 0,
    "skip": -1,
}  # fmt: skip
"""What each word for a decision means, in lower case; PostgreSQL writes t and f."""
NO_LABEL = "not a decision: like, nope, dislike, skip, 1 or 0; -1 could be a dislike or a skip"


def labels(cells: pl.Series) -> pl.Series:
    """1 for a like, 0 for a nope and -1 for a skip, as Float32; null if a cell is none of :data:`LABELS`."""
    words = texts(cells).str.normalize("NFKC").str.to_lowercase().str.strip_suffix(".0")
    return words.replace_strict(LABELS, default=None, return_dtype=pl.Float32)


class Decisions(Feedback):
    name = "decisions"
    analyze = "analyze public.user_video_decisions"
    required = (("user_id", "reviewer_id"), PRODUCTS, ("decision", "label"))
    optional = (*TIMES, "weight", "stars", "watched")
    user_column = "user_id"
    value_column = "decision_type"
    shown = "case t.value when 1 then 'like' when 0 then 'nope' else 'skip' end"
    staged = "line bigint, user_id uuid, video_id uuid, value real, weight real, created_at timestamptz"
    weights: Mapping[str, tuple[float, float]] = {
        "weight": (LEAST_GIVEN, MOST_GIVEN),
        "stars": (0, 5),
        "watched": (0, 1),
    }
    """Column with a decision's weight → its bounds. The first present one is read; 5 stars weigh 1."""

    def __init__(
        self,
        task: Import,
        cursor: psycopg.Cursor[Any],
        columns: list[str],
        *,
        create_users: bool = False,
        weight: float | None = None,
    ) -> None:
        """``weight``: for rows without one; if None, existing decisions keep theirs, and new ones weigh 1."""
        super().__init__(task, cursor, columns)
        self.weighed_by = next((name for name in self.weights if name in columns), None)
        self.weight = weight
        if (self.weighed_by or weight is not None) and "weight" not in self.types("public.user_video_decisions"):
            raise UserError(
                f"{self.summary.source}: {task.done()}: public.user_video_decisions has no column weight",
                "alter table public.user_video_decisions add column weight real not null default 1",
            )
        keys = cursor.execute(
            "select 1 from pg_catalog.pg_index i"
            " where i.indrelid = 'public.user_video_decisions'::regclass and i.indisunique and i.indisvalid"
            " and i.indpred is null and i.indexprs is null and not exists ("
            " select from unnest(i.indkey[0 : i.indnkeyatts - 1]) k (attnum)"
            " join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum"
            " where a.attname not in ('user_id', 'video_id'))"
        ).fetchone()
        if keys is None:
            raise UserError(
                f"{self.summary.source}: {task.done()}: public.user_video_decisions has no unique key of user_id and"
                " video_id, so a user may have decided twice on a video",
                "alter table public.user_video_decisions add unique (user_id, video_id)",
            )
        self.create_users = create_users
        if create_users:
            self.new_users = self.users_to_create()

    def users_to_create(self) -> sql.Composed:
        """The statement that creates the users of some changes, tested once. Raises UserError if it cannot work."""
        found = self.cursor.execute(
            "select attname, attnotnull and not atthasdef and attidentity = '' from pg_catalog.pg_attribute"
            " where attrelid = 'auth.users'::regclass and attnum > 0 and not attisdropped and attgenerated = ''"
        ).fetchall()
        unknown = [name for name, needed in found if needed and name not in _NEW_USER]
        nothing = f"{self.summary.source}: {self.task.done()}"
        if unknown:
            raise UserError(
                f"{nothing}: auth.users wants {', '.join(sorted(unknown))}, of which an import knows nothing",
                "give the column a default, or create the users in the application and import without --create-users",
            )
        values = {name: _NEW_USER[name] for name, _ in found if name in _NEW_USER}
        statement = sql.SQL(
            "insert into auth.users ({columns}) select {values} from ("
            "select distinct l.user_id from pg_temp.changes l where l.line between v_from and v_to and l.is_new"
            " and not exists (select from auth.users u where u.id = l.user_id) order by l.user_id) n"
        ).format(
            columns=sql.SQL(", ").join(map(sql.Identifier, values)),
            values=sql.SQL(", ").join(map(sql.SQL, values.values())),
        )
        if self.task.chunks == 0:
            self.try_to_create(values, nothing)
        return statement

    def try_to_create(self, values: Mapping[str, LiteralString], nothing: str) -> None:
        """Creates a user and rolls back, and lists the triggers that fire."""
        woken = self.cursor.execute(
            "select t.tgname, p.pronamespace::regnamespace::text || '.' || p.proname"
            " from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid"
            " where t.tgrelid = 'auth.users'::regclass and not t.tgisinternal and t.tgenabled in ('O', 'A')"
            " and t.tgtype & 4 > 0 and p.pronamespace <> 'two_tower'::regnamespace order by t.tgname"
        ).fetchall()
        names = ", ".join(f"{name} ({routine})" for name, routine in woken)
        if woken:
            self.task.options.say(f"auth.users has triggers, which fire for every user that is created: {names}")
        query = sql.SQL("insert into auth.users ({}) select {} from (select gen_random_uuid() as user_id) n").format(
            sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join(map(sql.SQL, values.values()))
        )
        remedy = "create the users in the application, and import without --create-users"
        if woken:
            remedy = f"let what the triggers call, {names}, accept users without an e-mail address; or {remedy}"
        try:
            with self.cursor.connection.transaction(force_rollback=True):
                created = self.cursor.execute(query).rowcount
        except psycopg.errors.InsufficientPrivilege as error:
            raise UserError(
                f"{nothing}: auth.users takes no new users from this role: {error.diag.message_primary}",
                "import as a role that may insert into auth.users, such as postgres on Supabase; or " + remedy,
            ) from error
        except (psycopg.IntegrityError, psycopg.DataError, psycopg.ProgrammingError, psycopg.InternalError) as error:
            raise UserError(
                f"{nothing}: auth.users takes no new users: {error.diag.message_primary}", remedy
            ) from error
        if created == 0:
            raise UserError(f"{nothing}: auth.users takes no new users, and does not say why", remedy)

    @staticmethod
    def order(columns: list[str]) -> tuple[str, str, str]:
        return columns[1], columns[0], columns[2]

    def values(self, label: pl.Series) -> tuple[pl.Series, str]:
        return labels(label), NO_LABEL

    @staticmethod
    def word(value: float) -> str:
        return {1.0: "like", 0.0: "nope"}.get(value, "skip")

    def weigh(self, batch: pl.DataFrame) -> tuple[pl.DataFrame, list[tuple[str, pl.Expr, str]]]:
        if self.weighed_by is None:
            return batch, []
        least, most = self.weights[self.weighed_by]
        cells = batch[self.weighed_by]
        of_stars = self.weighed_by == "stars"
        found = stars(cells, self.task.scale) if of_stars else numbers(cells)
        said = cells.is_not_null()
        if cells.dtype == pl.String:
            said &= cells.str.strip_chars() != ""
        weight = (found / 5 if of_stars else found).clip(lower_bound=LEAST_GIVEN)
        if self.weighed_by != "weight":
            # Few stars, or a small watched share, do not mean a weak dislike.
            weight = weight.set(batch["value"].ne_missing(1.0), None)
        bad = said & ~found.is_between(least, most).fill_null(value=False)
        batch = batch.with_columns(weight.set(~said, None).alias("counts"), bad.alias("uncountable"))
        highest = self.task.scale if of_stars else most
        return batch, [(self.weighed_by, pl.col("uncountable"), f"not a number from {least:g} to {highest:g}")]

    def more(self, batch: pl.DataFrame) -> dict[str, Any]:
        # NaN means that the file has no value, since only the last column may have nulls.
        if self.weighed_by is None:
            return {"weight": np.full(len(batch), np.nan, dtype=np.float32)}
        return {"weight": batch["counts"].cast(pl.Float32).fill_null(float("nan")).to_numpy()}

    def known_users(self, batch: pl.DataFrame) -> pl.DataFrame:
        if self.create_users or len(batch) == 0:
            return batch
        ids = batch.select(pl.col(self.user)).unique(maintain_order=True)
        raw = user_uuids(ids[self.user])
        self.settle()
        unknown = self.cursor.execute(
            "select u.at from unnest(%b::uuid[]) with ordinality u (id, at)"
            " where not exists (select from auth.users where id = u.id)",
            [[UUID(bytes=value) for value in raw.tolist()]],
        ).fetchall()
        strangers = ids[[at - 1 for (at,) in unknown]][self.user] if unknown else pl.Series([], dtype=pl.String)
        return self.task.reject(batch, [(self.user, pl.col(self.user).is_in(strangers.implode()), "unknown user")])

    def merge(self) -> None:
        # Compared as text, and cast when it is written: the column may be an enum or a domain of the application.
        word = "(case l.value when 1 then 'like' when 0 then 'nope' else 'skip' end)::text"
        types = self.types("public.user_video_decisions")
        moment = f"l.created_at::{types['created_at']}"
        parts = {"decision": sql.SQL(f"{word}::{types['decision_type']}"), "moment": sql.SQL(moment)}
        # As SQL reads it: LIKE means like, and an existing spelling stays.
        differs = (
            "two_tower.decision_label(t.decision_type) is distinct from l.value::int"
            f" or t.created_at is distinct from coalesce({moment}, t.created_at)"
        )
        update, into, new = "", "", ""
        if self.weighed_by or self.weight is not None:
            otherwise = "null" if self.weight is None else repr(self.weight)
            weight = f"coalesce(nullif(l.weight, 'NaN'), {otherwise})::{types['weight']}"
            differs += f" or t.weight is distinct from coalesce({weight}, t.weight)"
            update = f", weight = coalesce({weight}, t.weight)"
            into, new = ", weight", f", coalesce({weight}, 1::{types['weight']})"
        parts |= {name: sql.SQL(text) for name, text in (("update", update), ("into", into), ("new", new))}
        self.find_changes("public.user_video_decisions", "user_id", differs)
        # The application writes meanwhile, so new rows may exist by now, and existing ones may be gone. An
        # `on conflict` would need a key that is not deferrable, and fire other triggers of the application.
        steps = [
            sql.SQL(
                "update public.user_video_decisions t"
                " set decision_type = {decision}, created_at = coalesce({moment}, t.created_at){update}"
                " from pg_temp.changes l where l.line between v_from and v_to"
                " and t.user_id = l.user_id and t.video_id = l.video_id and ({differs})"
            ).format(**parts, differs=sql.SQL(differs)),
            sql.SQL(
                "insert into public.user_video_decisions (user_id, video_id, decision_type, created_at{into})"
                " select l.user_id, l.video_id, {decision}, coalesce({moment}, now()){new} from pg_temp.changes l"
                " where l.line between v_from and v_to and not exists (select from public.user_video_decisions t"
                " where t.user_id = l.user_id and t.video_id = l.video_id) order by l.user_id, l.video_id"
            ).format(**parts),
        ]
        self.summary.users_created += sum(self.write_changes([self.new_users, *steps] if self.create_users else steps))

    def finish(self) -> None:
        if self.create_users:
            self.cursor.execute("select two_tower.link_reviewers()")


_NEW_USER: Mapping[str, LiteralString] = {
    "id": "n.user_id",
    "instance_id": "'00000000-0000-0000-0000-000000000000'::uuid",
    "aud": "'authenticated'",
    "role": "'authenticated'",
    "encrypted_password": "''",
    "confirmation_token": "''",
    "recovery_token": "''",
    "email_change_token": "''",
    "email_change_token_new": "''",
    "email_change_token_current": "''",
    "email_change": "''",
    "email_change_confirm_status": "0",
    "phone_change": "''",
    "phone_change_token": "''",
    "reauthentication_token": "''",
    "raw_app_meta_data": "'{}'",
    "raw_user_meta_data": "'{}'",
    "is_sso_user": "false",
    "is_anonymous": "false",
    "created_at": "now()",
    "updated_at": "now()",
}
"""What Supabase's sign-in writes for a user without an e-mail address (github.com/supabase/auth,
internal/models/user.go). It reads none of these as null: a text that is null fails every listing of users. Not
anonymous, because projects are told to delete anonymous users after a while."""
