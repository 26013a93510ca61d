"""Catalogues from an API, page by page, through the same merge as ``two-tower import catalog``.

A :class:`Source` defines requests and reads answers. Everything else is here: a rate limit, retries with growing
waits, resumption, and answers that are truncated, repeated or shorter than they claim. A page and the position after
it are committed together, so a run may be interrupted anywhere.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import httpx2
import polars as pl
import psycopg
from psycopg.types.json import Jsonb

from two_tower.data.imports import import_catalog_rows
from two_tower.data.table import Rejects
from two_tower.errors import UserError
from two_tower.progress import Progress, Say
from two_tower.rows import one

Connection = psycopg.Connection[Any]


class GarbledError(Exception):
    """An answer that cannot be right; a retry may help."""


class RefusedError(Exception):
    """An answer that will stay the same: the request is wrong, or the credentials are."""


@dataclass(frozen=True)
class Listing:
    """One product as the API has it."""

    id: str
    row: dict[str, Any]
    """Columns of a catalogue, as ``import_catalog`` takes them; text, or lists of it (tags, performers, images)."""
    known_as: tuple[str, ...] = ()
    """Other addresses, up to their first ``&``, under which the catalogue may have it already."""


@dataclass(frozen=True)
class Page:
    """The answer to one request."""

    listings: list[Listing]
    total: int
    """The total number of products, according to the API."""
    oldest: str | None = None
    """Value for ``Span.until`` that leaves out nothing older than this page's last product."""


@dataclass(frozen=True)
class Span:
    """Which products to ask for, by release: in the source's own notation, both ends included."""

    since: str | None
    until: str | None


class Source(Protocol):
    """An API. A second one is a class with these members, and a verb that makes it."""

    @property
    def name(self) -> str: ...

    @property
    def page_size(self) -> int: ...

    @property
    def last_offset(self) -> int:
        """The last offset that the API accepts, counted from 1; listings are newest first."""
        ...

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown."""
        ...

    def span(self, since: date | None, until: date | None) -> Span:
        """Whole days, in the source's own notation and time zone."""
        ...

    def request(self, section: str, span: Span, offset: int) -> tuple[str, dict[str, str]]:
        """Address and parameters of a page; ``offset`` counts from 1. Each section is paged by itself."""
        ...

    def read(self, section: str, document: Any) -> Page:
        """The page in a JSON document. Raises GarbledError or RefusedError."""
        ...


@dataclass(frozen=True)
class IngestOptions:
    """Rate limit, retries and time-outs."""

    since: date | None = None
    until: date | None = None
    pause: float = 1.0
    """Seconds from one request to the next."""
    attempts: int = 6
    """Attempts for a page."""
    first_wait: float = 1.0
    """Seconds before the second attempt; each further wait is twice as long."""
    longest_wait: float = 120.0
    timeout: float = 30.0
    """Seconds without a byte."""
    rejects: Path | None = None
    """Else ``<source>.rejects.csv``."""


@dataclass
class SectionSummary:
    """The result of one section. ``items`` = inserted + updated + unchanged + rejected + duplicates."""

    section: str
    since: str | None
    until: str | None
    resumed: bool = False
    pages: int = 0
    items: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    duplicates: int = 0
    readdressed: int = 0
    """Videos of the catalogue that had another address, and now have the source's."""
    retries: int = 0
    missing: int = 0
    """Products that the API counts but did not return in any attempt."""


@dataclass
class IngestSummary:
    """The results of all sections."""

    source: str
    sections: list[SectionSummary] = field(default_factory=list)
    rejects: Path | None = None
    seconds: float = 0.0

    def to_json(self) -> str:
        """The summary as a JSON object."""
        return json.dumps(asdict(self), default=str, ensure_ascii=False)


def ingest(
    connection: Connection,
    source: Source,
    sections: list[str],
    options: IngestOptions | None = None,
    say: Say = lambda _: None,
    progress: Progress = lambda _what, _share: None,
) -> IngestSummary:
    """Upserts what ``source`` lists in ``sections``. ``connection`` is in autocommit mode: every page is a transaction.

    An interrupted run is finished first. Raises UserError if the API keeps failing; pages before that
    are stored, and the next run continues after them.
    """
    options = options or IngestOptions()
    started = time.monotonic()
    summary = IngestSummary(source.name)
    with (
        _without_addresses_in_logs(),
        Rejects(options.rejects or Path(f"{source.name}.rejects.csv")) as rejects,
        httpx2.Client(timeout=options.timeout, headers={"User-Agent": "pg-two-tower"}) as client,
    ):
        rejects.begin()
        asker = _Asker(source, client, options, say)
        for section in sections:
            for task in _tasks(connection, source, section, options):
                summary.sections.append(task.summary)
                if task.summary.resumed:
                    say(f"{section}: continues at product {task.offset:,}, where an earlier run was interrupted")
                task.run(connection, asker, rejects, progress)
                if task.summary.missing:
                    say(f"{section}: {task.summary.missing:,} products that the API counts are not in its pages")
    summary.rejects = rejects.path if rejects.rows else None
    summary.seconds = round(time.monotonic() - started, 3)
    return summary


@contextmanager
def _without_addresses_in_logs() -> Iterator[None]:
    """httpx2 logs the address of every request, and addresses carry credentials."""
    log = logging.getLogger("httpx2")

    def harmless(record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO

    log.addFilter(harmless)
    try:
        yield
    finally:
        log.removeFilter(harmless)


# ------------------------------------------------------------------------------------------------------ one section


def _tasks(connection: Connection, source: Source, section: str, options: IngestOptions) -> Iterator[_Task]:
    """The tasks: the rest of an interrupted run, and the part of the requested span that it does not cover."""
    job = f"ingest {source.name} {section}"
    span = source.span(options.since, options.until)
    try:
        row = connection.execute(
            "select id, result, started_at from two_tower.job_runs"
            " where job = %s and finished_at is null order by id desc limit 1",
            [job],
        ).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise UserError("the database is not set up", "run `two-tower migrate`") from error
    if row is None:
        yield _Task(source, section, job, span)
        return
    run, state, began = row
    old = Span(state["since"], state["until"])
    yield _Task(source, section, job, old, run, state)
    if old.since is not None and (span.since is None or span.since < old.since):
        yield _Task(source, section, job, span)
        return
    # The rest of that run covers everything older. Newer products may have appeared since it began.
    fresh = source.span((began - timedelta(days=1)).astimezone(UTC).date(), options.until)
    if options.until is None or span.until != old.until:
        yield _Task(source, section, job, max(span, fresh, key=lambda one: one.since or ""))


class _Task:
    """One section of a source in one span."""

    def __init__(
        self,
        source: Source,
        section: str,
        job: str,
        span: Span,
        run: int | None = None,
        state: dict[str, Any] | None = None,
    ) -> None:
        self.source = source
        self.section = section
        self.job = job
        self.span = span
        self.run_id = run
        self.offset = state["offset"] if state else 1
        self.window = Span(span.since, state["window"] if state else span.until)
        """The span, limited to what offsets can still reach."""
        self.seen: set[str] = set()
        """Pages of the window, by their ids."""
        self.summary = SectionSummary(section, span.since, span.until, resumed=state is not None)

    def run(self, connection: Connection, asker: _Asker, rejects: Rejects, progress: Progress) -> None:
        """Page by page to the end."""
        told, size = self.summary, self.source.page_size
        while True:
            page, attempts = asker.page(self.section, self.window, self.offset, self.seen)
            told.retries += attempts - 1
            left = max(page.total - self.offset + 1, 0)
            told.missing += max(min(left, size) - len(page.listings), 0) if page.listings else left
            following = self.offset + size
            finished = not page.listings or following > page.total
            window = self.window
            if not finished and following > self.source.last_offset:
                if page.oldest is None or page.oldest == window.until:
                    raise UserError(
                        f"{self.section}: the API shows {self.source.last_offset:,} products of one moment at most"
                        f" and has {page.total:,}",
                        "ask for a shorter time: --since, --until",
                    )
                window, following = Span(window.since, page.oldest), 1
            with connection.transaction():
                self.merge(connection, page, rejects)
                self.record(connection, following, window, finished=finished)
            told.pages += 1
            progress(self.section, min(self.offset / max(page.total, 1), 1.0))
            if finished:
                return
            if window != self.window:
                self.seen.clear()
            self.window, self.offset = window, following

    def merge(self, connection: Connection, page: Page, rejects: Rejects) -> None:
        """Upserts the page's products."""
        if not page.listings:
            return
        told = self.summary
        pairs = [(stem, item.row["product_url"]) for item in page.listings for stem in item.known_as]
        if pairs:
            stems, addresses = zip(*pairs, strict=True)
            told.readdressed += connection.execute(
                "update public.videos v set product_url = n.address"
                " from (select distinct on (n.address) v.id, n.address"
                "  from unnest(%s::text[], %s::text[]) n (stem, address)"
                "  join public.videos v on split_part(v.product_url, '&', 1) = n.stem"
                "  where not exists (select from public.videos o where o.product_url = n.address)"
                "  order by n.address, v.created_at, v.id) n where v.id = n.id",
                [list(stems), list(addresses)],
            ).rowcount
        columns: dict[str, Any] = {"line": range(told.items + 1, told.items + 1 + len(page.listings))}
        names = dict.fromkeys(name for item in page.listings for name in item.row)
        for name in names:
            values = [item.row.get(name) for item in page.listings]
            kind = pl.List(pl.String) if name in ("tags", "performers", "image_urls") else pl.String
            columns[name] = pl.Series(values, dtype=kind)
        done = import_catalog_rows(connection, f"{self.source.name} {self.section}", pl.DataFrame(columns), rejects)
        told.items += done.rows
        for name in ("inserted", "updated", "unchanged", "rejected", "duplicates"):
            setattr(told, name, getattr(told, name) + getattr(done, name))

    def record(self, connection: Connection, offset: int, window: Span, *, finished: bool) -> None:
        """Records where to continue, in the transaction of the page."""
        state = Jsonb({**asdict(self.span), "window": window.until, "offset": offset, **self.counts()})
        if self.run_id is None:
            self.run_id = one(
                connection,
                "insert into two_tower.job_runs (job, result) values (%s, %s) returning id",
                [self.job, state],
            )
        connection.execute(
            "update two_tower.job_runs set result = %s, finished_at = case when %s then clock_timestamp() end"
            " where id = %s",
            [state, finished, self.run_id],
        )

    def counts(self) -> dict[str, int]:
        names = ("pages", "items", "inserted", "updated", "rejected", "missing")
        return {name: getattr(self.summary, name) for name in names}


# ------------------------------------------------------------------------------------------------------ one request


class _Asker:
    """Sends requests with a rate limit and retries."""

    def __init__(self, source: Source, client: httpx2.Client, options: IngestOptions, say: Say) -> None:
        self.source = source
        self.client = client
        self.options = options
        self.say = say
        self.asked = -1e9
        """When the last request was sent."""

    def page(self, section: str, span: Span, offset: int, seen: set[str]) -> tuple[Page, int]:
        """The page and the attempts that it took. A page that stays shorter than announced is accepted as it is."""
        wait, short, refusal = self.options.first_wait, None, None
        for attempt in range(1, self.options.attempts + 1):
            try:
                page = self.source.read(section, self.answer(section, span, offset))
                expected = min(page.total - offset + 1, self.source.page_size)
                if page.listings:
                    mark = sha256("\n".join(item.id for item in page.listings).encode()).hexdigest()
                    if mark in seen:
                        raise GarbledError("the same page again")
                    if len(page.listings) >= expected:
                        seen.add(mark)
                if len(page.listings) >= expected:
                    return page, attempt
                short = page
                problem, asked_to_wait = f"{len(page.listings)} products where there should be {expected}", None
            except _RetryError as error:
                problem, asked_to_wait = error.args
            except GarbledError as error:
                problem, asked_to_wait = str(error), None
            except RefusedError as error:
                refusal = str(error)
            if refusal is not None:  # raised here, so that no traceback contains the answer
                raise UserError(f"{self.source.name} refuses: {self.redacted(refusal)}")
            if attempt < self.options.attempts:
                pause = min(max(wait, asked_to_wait or 0), self.options.longest_wait)
                self.say(f"{section}, from product {offset:,}: {self.redacted(problem)}; again in {pause:.0f} s")
                time.sleep(pause)
                wait *= 2
        if short is not None:
            return short, self.options.attempts
        raise UserError(
            f"{self.source.name} {section}, from product {offset:,}: {self.redacted(problem)},"
            f" {self.options.attempts} times",
            "what came before is in; run this again later: it goes on from here",
        )

    def answer(self, section: str, span: Span, offset: int) -> Any:
        """One request's JSON. Raises _RetryError or RefusedError."""
        time.sleep(max(self.asked + self.options.pause - time.monotonic(), 0))
        self.asked = time.monotonic()
        address, parameters = self.source.request(section, span, offset)
        try:
            response = self.client.get(address, params=parameters)
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):
            raise RefusedError("the endpoint is not an address") from None
        except httpx2.HTTPError as error:
            raise _RetryError(f"no answer ({type(error).__name__})", None) from None
        status = response.status_code
        if status == httpx2.codes.TOO_MANY_REQUESTS or status >= 500:
            raise _RetryError(f"the answer is {status}", retry_after(response.headers.get("Retry-After", "")))
        try:
            document = response.json()
        except ValueError:
            if status != httpx2.codes.OK:
                raise RefusedError(f"the answer is {status}") from None
            raise _RetryError("the answer is not whole JSON", None) from None
        if status != httpx2.codes.OK:
            with suppress(GarbledError):
                self.source.read(section, document)  # the body may say why
            raise RefusedError(f"the answer is {status}")
        return document

    def redacted(self, text: str) -> str:
        """``text`` without credentials, in case the API repeats them."""
        for secret in self.source.secrets:
            text = text.replace(secret, "…") if secret else text
        return text


class _RetryError(Exception):
    """A problem, and how many seconds the server wants the client to wait."""


def retry_after(value: str) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date; None if it is neither."""
    if value.isdecimal():
        return float(value)
    try:
        return (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None
