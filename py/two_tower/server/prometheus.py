"""The figures of ``two-tower status`` for Prometheus.

If the database cannot be read, ``two_tower_up`` is 0 and the error goes to ``say``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from two_tower.errors import UserError
from two_tower.progress import Say
from two_tower.server import experiments
from two_tower.server.status import Report, look
from two_tower.signals import until_signalled

if TYPE_CHECKING:
    import psycopg

EXPERIMENT_S = 300
"""For how long what came of an experiment is remembered: it is counted from every video that was shown."""

TIMEOUT_S = 60
"""Of each statement, so that requests do not pile up on a database that hangs."""


class StatusCollector(Collector):
    """Reads the database at each collection, one at a time."""

    def __init__(self, dsn: str | None, sample: int | None, say: Say) -> None:
        self.dsn = dsn
        self.sample = sample
        self.say = say
        self._one_at_a_time = threading.Lock()
        self._experiment: dict[str, Any] | None = None
        self._counted_at = -float(EXPERIMENT_S)

    def collect(self) -> Iterator[Metric]:
        import psycopg

        from two_tower.server.connection import connect

        report, experiment = None, None
        with self._one_at_a_time:
            started = time.perf_counter()
            try:
                with connect(self.dsn, application_name="two-tower metrics") as connection:
                    report = look(connection, self.sample, TIMEOUT_S)
                    experiment = self._count(connection)
            except (psycopg.Error, UserError) as error:
                self.say(f"two_tower_up is 0: {str(error).strip()}")
            took = time.perf_counter() - started
        yield GaugeMetricFamily("two_tower_up", "Whether the database could be read.", value=float(report is not None))
        yield GaugeMetricFamily("two_tower_look_seconds", "How long reading it took.", value=took)
        if report is not None:
            yield from families(report)
        if experiment is not None:
            yield from experiment_families(experiment)

    def _count(self, connection: psycopg.Connection[Any]) -> dict[str, Any] | None:
        """The running experiment, if any, at most EXPERIMENT_S old."""
        import psycopg

        if time.monotonic() - self._counted_at >= EXPERIMENT_S:
            self._counted_at = time.monotonic()
            try:
                with connection.transaction():
                    connection.execute("select set_config('statement_timeout', %s, true)", (f"{TIMEOUT_S}s",))
                    self._experiment = experiments.running(connection)
            except psycopg.Error as error:
                self._experiment = None
                self.say(f"the experiment was not counted: {str(error).strip()}")
        return self._experiment


def families(report: Report) -> Iterator[Metric]:
    """All metrics of a report."""
    status = report.status

    def gauge(name: str, text: str, value: Any) -> Metric:
        return GaugeMetricFamily(f"two_tower_{name}", text, value=float(value))

    gauges = _gauges
    broken: dict[str, int] = {}
    for row in report.problems:
        broken[row["what"]] = broken.get(row["what"], 0) + 1
    yield gauge("healthy", "1 where no promise is broken.", not report.problems)
    yield gauges("problems", "Broken promises, by what is broken; see two_tower.problems.", ["what"], [*broken.items()])
    active = [(status["active_version"], 1)] if status["active_version"] else []
    yield gauges("active_model", "The version that serves.", ["version"], active)
    yield gauge("lag_seconds", "Age of the oldest change that waits for a refresh.", status["lag_seconds"])
    waiting = [("user", status["pending_user_changes"]), ("video", status["pending_video_changes"])]
    yield gauges("pending_changes", "Rows of the change log.", ["kind"], waiting)
    yield gauge("set_aside", "Users and videos whose refresh failed.", status["failed_changes"])
    rate = [(status["vectors_per_second"],)]
    yield gauges("refresh_vectors_per_second", "Over the last 20 refreshes that wrote any.", [], rate)
    yield gauge("mixed_versions", "Served vectors that are not of the active version.", status["mixed_versions"])
    wanted = [("video", status["videos"]), ("user", status["users_with_likes"])]
    yield gauges("embeddable", "Videos, and users with a like: who should have a vector.", ["kind"], wanted)

    def by_version(column: str) -> list[tuple[Any, ...]]:
        kinds = (("video", column.format("video")), ("user", column.format("user")))
        return [(row["model_version"], row["state"], kind, row[key]) for row in report.coverage for kind, key in kinds]

    labels = ["version", "state", "kind"]
    yield gauges("vectors", "Stored vectors of the versions that refreshes write.", labels, by_version("{}_vectors"))
    yield gauges("missing_vectors", "Missing, and not in the change log.", labels, by_version("missing_{}s"))
    shares = [(row["model_version"], row["state"], row["share"]) for row in report.coverage]
    yield gauges("coverage_ratio", "Share of vectors that is there or in the change log.", labels[:2], shares)

    def by_job(value: Any) -> list[tuple[Any, ...]]:
        return [(row["job"], value(row)) for row in report.jobs]

    yield gauges("job_scheduled", "By pg_cron, where there is one.", ["job"], by_job(lambda row: row["scheduled"]))
    yield gauges("job_failing", "The last run to end failed.", ["job"], by_job(lambda row: row["failing"]))
    for end in ("success", "failure"):
        moments = by_job(lambda row, end=end: moment.timestamp() if (moment := row[f"last_{end}"]) else None)
        yield gauges(f"job_last_{end}_timestamp_seconds", f"When it last ended in {end}.", ["job"], moments)
    for part in ("table", "index"):
        sizes = [(row["relation"], row[f"{part}_bytes"]) for row in report.sizes]
        yield gauges(
            f"{part}_bytes",
            f"Size of each table{'' if part == 'table' else chr(39) + 's indexes'}.",
            ["relation"],
            sizes,
        )
    if report.sample:
        for what, text in (
            ("recall", "Share of the exact nearest videos that lists hold."),
            ("parity", "Largest cosine distance between stored and computed vectors."),
        ):
            found = [(row["model_version"], row["value"]) for row in report.sample if row["what"] == what]
            yield gauges(f"sample_{what}", f"{text} On a sample.", ["version"], found)


def experiment_families(experiment: dict[str, Any]) -> Iterator[Metric]:
    """The results of an experiment, as :func:`experiments.report` has them."""

    def gauges(name: str, text: str, labels: list[str], rows: list[tuple[Any, ...]]) -> Metric:
        return _gauges(f"experiment_{name}", text, labels, rows)

    versions = experiment["versions"]
    for name, text in (("users", "Users who were shown anything."), ("shown", "Videos shown, each once to each user.")):
        yield gauges(name, text, ["version"], [(row["model_version"], row[name]) for row in versions])
    for end, text in (("", "Share of these liked, noped."), ("_low", "At least, at all looks."), ("_high", "At most.")):
        rates = [
            (row["model_version"], rate, row[f"{rate}_rate" if not end else f"{rate}{end}"])
            for row in versions
            for rate in ("like", "nope")
        ]
        yield gauges(f"rate{end}", text, ["version", "rate"], rates)
    covered = [(row["model_version"], (row["coverage"] or {}).get("share")) for row in versions]
    yield gauges("coverage_ratio", "Share of the catalogue shown to as many users of each.", ["version"], covered)
    tests = [(rate, test["p_value"]) for rate, test in experiment["tests"].items()]
    yield gauges("p_value", "Whether the rates differ; it may be looked at daily.", ["rate"], tests)


def _gauges(name: str, text: str, labels: list[str], rows: list[tuple[Any, ...]]) -> Metric:
    """``rows`` of the labels' values and the value; None is left out."""
    family = GaugeMetricFamily(f"two_tower_{name}", text, labels=labels)
    for *values, value in rows:
        if value is not None:
            family.add_metric([str(label) for label in values], float(value))
    return family


def text(collector: Collector) -> str:
    """One collection in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def serve(collector: Collector, host: str, port: int, say: Say) -> None:
    """Serve /metrics until SIGTERM or SIGINT, collecting at every request; ``say`` is told the address.

    ``port`` 0 is any free one. Raises UserError if it cannot listen on the address.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port}: {error}", "choose another --port or --host") from error
    with until_signalled() as stop:
        say(f"http://{host}:{server.server_port}/metrics")
        stop.wait()
    server.shutdown()
    thread.join()
