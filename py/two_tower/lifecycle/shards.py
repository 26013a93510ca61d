"""Operations on all shards: one version for everybody, one training set, popularity that counts everybody's likes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from two_tower.database import open_connection
from two_tower.errors import GateFailed, UserError
from two_tower.lifecycle import registry
from two_tower.progress import Progress
from two_tower.rows import one
from two_tower.shards import (
    MODELS,
    Connection,
    Connections,
    Shard,
    answering,
    connected,
    failed,
    is_down,
    last_served,
    on_each,
    serving,
    why,
)

if TYPE_CHECKING:
    from two_tower.features import TrainingData
    from two_tower.trainer.dataset import DatasetOptions

ARRIVAL_SECONDS = 30.0
"""Seconds that a version of the first shard may take to arrive on the others."""

RECOVERY_SECONDS = 10.0
"""Seconds to wait for a shard whose connection broke: a server that lost a backend restarts in less."""


_DELETE = "delete from {} where {} = '{}'"


# ------------------------------------------------------------------------------------------------ activation


@dataclass
class Activated:
    """The result of an activation."""

    version: str
    previous: dict[str, str | None]
    """By shard: the version that served before."""
    left_out: dict[str, str]
    """By shard that was left out: what is known of the version that it serves."""
    warnings: list[str] = field(default_factory=list)


def activate(
    shards: Sequence[Shard],
    version: str | None,
    progress: Progress,
    *,
    without: Sequence[str] = (),
    force: bool = False,
    workers: int = 1,
    overrides: dict[str, float] | None = None,
) -> Activated:
    """Activate one version on all shards, by default the first shard's newest candidate.

    It is embedded and passes its gate on all of them before the first one serves it. Then the shards switch one after
    the other; if one fails, those before it switch back. Each shard is consistent at any time. Raises UserError, before
    the first switch, if a shard is down that is not among ``without``.
    """
    taking_part = [shard for shard in shards if shard.name not in without]
    if not taking_part:
        raise UserError("every shard is left out", "leave one or more of them in")
    with connected(taking_part, writes=True) as connections:
        first = next(iter(connections.values()))
        with answering(first):
            chosen = version or registry.newest_candidate(first)
            first.execute("select two_tower.require_model(%s)", (chosen,))
        wait_for_arrival(connections, chosen)
        replays = stage(connections, chosen, progress, force=force, workers=workers, overrides=overrides)
        with _alone(taking_part):
            previous = on_each(connections, lambda _, connection: serving(connection))
            progress("activating", 1.0)
            flip_in_turn(taking_part, connections, chosen, previous, replays, force=force, overrides=overrides)
        done = Activated(chosen, previous, _left_out(shards, without, first))
        names = [shard.name for shard in shards]

        def count(name: str, connection: Connection) -> None:
            done.warnings.extend(f"{name}: {warning}" for warning in registry.update_popularity(connection))

        for what in (
            lambda: remember(connections, names, dict.fromkeys(connections, chosen)),
            lambda: on_each(connections, count),
        ):
            try:
                what()
            except UserError as error:  # all serve it, or will once they are up again
                done.warnings.append(error.message)
    return done


def remember(connections: Connections, names: Sequence[str], served: Mapping[str, str | None]) -> None:
    """Tell every shard which version each of ``served`` serves, and remove shards that are not among ``names``."""

    def note(_: str, connection: Connection) -> None:
        with connection.transaction():
            connection.execute("delete from two_tower.shards where name <> all (%s)", (list(names),))
            for name in sorted(names):
                connection.execute(
                    """insert into two_tower.shards as s (name, model_version, asked_at)
                    values (%s, %s, case when %s then clock_timestamp() end)
                    on conflict (name) do update
                    set model_version = excluded.model_version, asked_at = excluded.asked_at where %s""",
                    (name, served.get(name), name in served, name in served),
                )

    on_each(connections, note)


@contextmanager
def _alone(shards: Sequence[Shard]) -> Iterator[None]:
    """Keeps other activations from flipping any of the shards: two at once could each succeed on some of them.

    Each lock belongs to a transaction of a connection of its own, since every flip is a transaction. Raises UserError
    if another activation has one.
    """
    with ExitStack() as stack:
        for shard in shards:
            try:
                connection = stack.enter_context(closing(open_connection(shard.dsn)))
                free = one(connection, "select pg_try_advisory_xact_lock(hashtextextended('two_tower.shards', 0))")
            except psycopg.Error as error:
                raise failed({shard.name: error}) from error
            if not free:
                raise UserError(
                    f"{shard.name}: another activation of all shards is under way",
                    "nothing was activated; try again when it is over",
                )
        yield


def _left_out(shards: Sequence[Shard], without: Sequence[str], known_by: Connection) -> dict[str, str]:
    said = {}
    for shard in shards:
        if shard.name not in without:
            continue
        try:
            with open_connection(shard.dsn, autocommit=True) as connection:
                said[shard.name] = f"{shard.name} is left out, and serves {serving(connection) or 'no version'}"
        except (UserError, psycopg.Error):
            said[shard.name] = is_down(shard.name, last_served(known_by))
    return said


def wait_for_arrival(connections: Connections, version: str) -> None:
    """Wait until each shard has all rows of ``version`` that the first has.

    Raises UserError if one does not get them, or has another model of that name.
    """
    names = list(connections)
    wanted, model = _rows_of(connections[names[0]], version), _identity(connections[names[0]], version)
    deadline = time.monotonic() + ARRIVAL_SECONDS

    def require_alive(_: str, connection: Connection) -> None:
        if (state := _state(connection, version)) in ("rejected", "retired"):
            raise UserError(f"model {version} is {state}, and cannot be activated", "train another one")

    def wait(name: str, connection: Connection) -> None:
        while (found := _rows_of(connection, version)) != wanted:
            if time.monotonic() > deadline:
                lacking = ", ".join(table for table in MODELS if found[table] != wanted[table])
                raise UserError(
                    f"model {version} is not what it is on {names[0]}: {lacking}",
                    "`two-tower shards status` says whether the subscription runs, and how far it is behind",
                )
            time.sleep(0.2)
        if _identity(connection, version) != model:
            # Rows of the other tables are deleted with their version.
            alone = ("two_tower.model_versions", "two_tower.model_weights", "two_tower.neighbour_lists")
            remedy = "; ".join(_DELETE.format(table, MODELS[table], version) for table in alone)
            raise UserError(
                f"model {version} is another one than on {names[0]}, and stops the subscription", f"on {name}: {remedy}"
            )

    on_each(connections, require_alive)
    on_each(connections, wait)


def _rows_of(connection: Connection, version: str) -> dict[str, int]:
    """Rows of a version by table. One transaction brings all of them, except in the first copy of a subscription, which
    goes table by table.
    """
    return {
        table: one(connection, f"select count(*) from {table} where {key} = %s".encode(), (version,))  # noqa: S608
        for table, key in MODELS.items()
    }


def _identity(connection: Connection, version: str) -> str | None:
    """What differs between two models of one name: outputs of towers, and neighbours; the same for given vectors."""
    row = connection.execute(
        """select pg_catalog.md5(pg_catalog.jsonb_build_array(d.metrics -> 'parity', d.meta -> 'neighbours')::text)
        from two_tower.model_documents d where d.model_version = %s""",
        (version,),
    ).fetchone()
    return row and str(row[0])


def _state(connection: Connection, version: str) -> str | None:
    row = connection.execute("select state from two_tower.model_versions where version = %s", (version,)).fetchone()
    return row and str(row[0])


def stage(
    connections: Connections,
    version: str,
    progress: Progress,
    *,
    force: bool = False,
    workers: int = 1,
    overrides: dict[str, float] | None = None,
) -> dict[str, dict[str, Any] | None]:
    """Embed ``version`` on every shard and check each gate, so that only the switches remain.

    Returns the evidence for each gate that asks for a replay. The metrics are checked on all shards before any of them
    stages the version, since a rejection by a shard is final. Raises GateFailed if a gate rejects it.
    """

    def require_metrics(_: str, connection: Connection) -> None:
        connection.execute("select two_tower.require_no_experiment()")
        if _state(connection, version) == "candidate" and not force:
            values = (version, *registry.evidence(None, overrides))
            _require(one(connection, "select two_tower.gate_metrics(%s, %s, %s)", values), version)

    def embed(name: str, connection: Connection) -> dict[str, Any] | None:
        def told(what: str, share: float) -> None:
            progress(f"{name}: {what}", share)

        # The encoder's query plan needs statistics, and autovacuum analyses replicated rows only after a while.
        connection.execute("analyze two_tower.model_inputs, two_tower.model_weights, two_tower.neighbour_lists")
        registry.refresh(connection, told)
        registry.backfill(connection, version, told, workers=workers, force=force, overrides=overrides)
        registry.refresh(connection, told)
        if _state(connection, version) != "staged":
            return None  # it has passed before
        replay = registry.replayed(connection, version, overrides)
        if not force:
            connection.execute("select two_tower.tune_search(%s)", (version,))
            values = (version, *registry.evidence(replay, overrides))
            _require(one(connection, "select two_tower.gate_model(%s, %s, %s)", values)["reasons"], version)
        return replay

    on_each(connections, require_metrics)
    return on_each(connections, embed)


def _require(reasons: Sequence[str], version: str) -> None:
    if reasons:
        raise GateFailed(
            f"model {version} does not pass its gate: {'; '.join(reasons)}", "no shard serves it; --force goes ahead"
        )


def flip_in_turn(
    shards: Sequence[Shard],
    connections: Connections,
    version: str,
    previous: Mapping[str, str | None],
    replays: Mapping[str, dict[str, Any] | None],
    *,
    force: bool = False,
    overrides: dict[str, float] | None = None,
) -> None:
    """Switch one shard after the other to a staged ``version``; if one fails, switch all back.

    Raises UserError, or GateFailed, that names the failed shard and what each serves then.
    """
    tried: list[Shard] = []
    try:
        for shard in shards:
            tried.append(shard)
            connection = connections[shard.name]
            with answering(connection):
                registry.flip(connection, version, force=force, measured=replays[shard.name], overrides=overrides)
    except BaseException as error:
        said = [flip_back(shard, version, previous[shard.name]) for shard in reversed(tried)]
        if not isinstance(error, UserError | psycopg.Error):
            error.add_note("; ".join(said))
            raise
        refused = failed({tried[-1].name: error})
        hint = "`two-tower shards status` says what each serves; when all are up, activate again"
        raise type(refused)("; ".join([refused.message, *said]), refused.hint or hint) from error


def flip_back(shard: Shard, version: str, previous: str | None) -> str:
    """Have a shard serve ``previous`` again; returns the version that it serves then.

    Uses a new connection: if the old one broke during a switch, its outcome is unknown.
    """
    try:
        with _open_again(shard) as connection, answering(connection):
            if serving(connection) == version != previous:
                if previous is None:
                    return f"{shard.name} serves {version} all the same, since it served none before"
                try:
                    registry.roll_back(connection, previous)
                except (UserError, psycopg.Error) as error:
                    return f"{shard.name} serves {serving(connection)} all the same: {why(error)}"
            return f"{shard.name} serves {serving(connection) or 'no version'}"
    except (UserError, psycopg.Error) as error:
        return f"{shard.name} served {previous or 'no version'}, and cannot be asked what it serves now: {why(error)}"


def _open_again(shard: Shard) -> Connection:
    deadline = time.monotonic() + RECOVERY_SECONDS
    while True:
        try:
            return open_connection(shard.dsn, autocommit=True)
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


# ------------------------------------------------------------------------------------------------ training, popularity


def read_training_set(connections: Connections, options: DatasetOptions) -> TrainingData:
    """One training set of the decisions on all shards, read in parallel; the catalogue is that of the first."""
    from two_tower.trainer.dataset import read_part, read_together

    parts = on_each(connections, lambda _, connection: read_part(connection, options))
    first = next(iter(connections.values()))
    with answering(first):
        return read_together(first, list(parts.values()), options)


def sum_popularity(connections: Connections, names: Sequence[str]) -> dict[str, int]:
    """Give each shard the likes on the others, and have it recount popularity; returns the videos counted on each.

    Shards in ``names`` without a connection keep their last counts; counts of shards that are in neither are removed.
    """
    counted = on_each(connections, lambda name, connection: _own_popularity(connection, name))
    remember(connections, names, on_each(connections, lambda _, connection: serving(connection)))

    def take(name: str, connection: Connection) -> int:
        with connection.transaction():
            connection.execute("delete from two_tower.shard_popularity where shard = any (%s)", ([*counted],))
            for other, rows in counted.items():
                if other != name:
                    with connection.cursor().copy(
                        """copy two_tower.shard_popularity (shard, days, video_id, score, likers, as_of, counted_at)
                        from stdin (format binary)"""
                    ) as copy:
                        copy.write(rows)
            connection.execute("select two_tower.update_popularity()")
        return int(one(connection, "select count(*) from two_tower.video_popularity"))

    return on_each(connections, take)


def _own_popularity(connection: Connection, name: str) -> bytes:
    from psycopg import sql

    query = sql.SQL(
        """copy (
            select {}::text, p.days, p.video_id, p.score, p.likers, p.as_of, p.counted_at
            from two_tower.own_popularity() p
        ) to stdout (format binary)"""
    )
    with connection.cursor().copy(query.format(sql.Literal(name))) as copy:
        return b"".join(copy)
