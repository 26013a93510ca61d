"""How much of a large table is read: all of it, or a sample, so that a page is displayed within two seconds.

A sample consists of pages of the table (``tablesample system``) and stays the same until the table changes. Counts in
it are scaled up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

from two_tower.ui.queries.viewer import Connection

AT_MOST = {
    "decisions": 100_000,
    "features": 5_000,
    "vectors": 20_000,
    "impressions": 40_000,
    "attributes": 50_000,
    "videos": 10_000,
}
"""Most rows that one figure reads. Features are wide, and each impression is looked up among the decisions."""

_ESTIMATED: LiteralString = """case
    when c.reltuples > 0 and c.relpages > 0
        then c.reltuples / c.relpages * (pg_relation_size(c.oid) / current_setting('block_size')::int)
    else pg_relation_size(c.oid) / 100.0
end"""
"""Estimated rows of a relation c: by its density when it was last analysed, or else by the size of a typical row."""


@dataclass(frozen=True)
class Source:
    """A table or a sample of it, and the number of rows that each row read represents."""

    relation: LiteralString
    clause: LiteralString = ""
    factor: float = 1.0
    rows: float = 0.0
    """Number of rows of the table, by the server's estimate."""

    @property
    def table(self) -> LiteralString:
        """SQL for a ``from``."""
        return f"{self.relation}{self.clause}"

    def called(self, name: LiteralString) -> LiteralString:
        """The same under a name."""
        return f"{self.relation} {name}{self.clause}"

    @property
    def counted(self) -> LiteralString:
        """SQL for the number of rows of the table that the rows read represent."""
        return f"{self.scaled('count(*)')}::bigint"

    def scaled(self, figure: LiteralString) -> LiteralString:
        """SQL that scales ``figure``, a count or a sum over the rows read, up to the table."""
        return figure if self.factor == 1 else f"round({figure} * {self.factor!r}::numeric)"


def _rows(connection: Connection, table: LiteralString) -> float:
    """The server's estimate; by its size if it was never analysed; 0 if it does not exist."""
    found = connection.execute(
        """select coalesce(
            sum("""
        + _ESTIMATED
        + """), 0
        )::float8 as rows
        from (
            -- For a table that is not partitioned, the tree is empty.
            select to_regclass(%(table)s) as relid
            union
            select t.relid from pg_partition_tree(to_regclass(%(table)s)) t
        ) as t
        join pg_class c on c.oid = t.relid and c.relkind in ('r', 'm')""",
        {"table": table},
    ).fetchone()
    return float(found["rows"]) if found else 0.0


def _source(connection: Connection, table: LiteralString, at_most: int) -> Source:
    rows = _rows(connection, table)
    if rows <= at_most:
        return Source(table, rows=rows)
    share = round(100 * at_most / rows, 6)
    return Source(table, f" tablesample system ({share!r}) repeatable (1)", 100 / share, rows)


def decisions(connection: Connection) -> Source:
    """Rows of ``public.user_video_decisions``."""
    return _source(connection, "public.user_video_decisions", AT_MOST["decisions"])


def features(connection: Connection) -> Source:
    """Rows of ``two_tower.user_features``, which is a view if the table is in public."""
    found = connection.execute(
        "select relkind = 'v' as is_view from pg_class where oid = 'two_tower.user_features'::regclass"
    ).fetchone()
    is_view = bool(found and found["is_view"])
    return _source(connection, "public.user_features" if is_view else "two_tower.user_features", AT_MOST["features"])


def vectors(connection: Connection) -> Source:
    """Rows of ``two_tower.user_embeddings``, of all versions."""
    return _source(connection, "two_tower.user_embeddings", AT_MOST["vectors"])


def videos(connection: Connection) -> Source:
    """Rows of ``public.videos``."""
    return _source(connection, "public.videos", AT_MOST["videos"])


CARRIED: tuple[LiteralString, ...] = ("public.video_tags", "public.video_performers")
"""Tables with a row for each pair of a video and an attribute."""


def attributes(connection: Connection, table: LiteralString) -> Source:
    """Rows of a table of :data:`CARRIED`."""
    return _source(connection, table, AT_MOST["attributes"])


def sampled(connection: Connection) -> float:
    """The smallest share of a table that figures about everything read; 1 if they read all of each."""
    read = (decisions(connection), videos(connection), *(attributes(connection, table) for table in CARRIED))
    return 1 / max(source.factor for source in read)


def shown_days(connection: Connection, days: int, times: int = 1) -> int:
    """The number of last days, at most ``days``, whose impressions are few enough to count when a page opens, or
    ``times`` as many; 0 if a single day has too many."""
    left = float(AT_MOST["impressions"] * times)
    found = connection.execute(
        """select p.ago, p.rows
        from (
            select d.today - case when c.relname ~ '^impressions_[0-9]{8}$' then right(c.relname, 8)::date end as ago,
                ("""
        + _ESTIMATED
        + """)::float8 as rows
            from pg_partition_tree('two_tower.impressions') t
            join pg_class c on c.oid = t.relid
            cross join (select (now() at time zone 'UTC')::date as today) as d
        ) as p
        where p.ago between 0 and %s order by p.ago""",
        (days,),
    ).fetchall()
    for day in found:
        left -= day["rows"]
        if left < 0:
            return max(0, int(day["ago"]) - 1)
    return days
