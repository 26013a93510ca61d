"""``two-tower bench import``: a reviews CSV into an empty database, and again, beside a bare COPY of the same file.

The bare COPY sends the file as it is into a table without keys, indexes or checks: nothing that sends the same rows
through the same protocol can be faster. Each measurement runs in a separate process, to measure its peak memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
import polars as pl
from psycopg.conninfo import make_conninfo

from two_tower.bench.common import Figure, compared, connect, make_catalogue, new_database
from two_tower.errors import UserError
from two_tower.progress import Progress
from two_tower.server.embedded import Server

VIDEOS = 10_000
ROWS_PER_REVIEWER = 50
_PART = 1_000_000
DATABASE = "bench_import"

# The kernel's peak for a child starts at its parent's memory at the time of the fork.
_PEAK = """
import atexit, pathlib, sys
def say_peak():
    status = pathlib.Path("/proc/self/status").read_text()
    print("peak", status.split("VmHWM:")[1].split()[0], file=sys.stderr)
atexit.register(say_peak)
"""
_IMPORT = f"""{_PEAK}
from two_tower.cli.main import app
app()
"""
_BARE = f"""{_PEAK}
import json, sys, time
import psycopg
started = time.monotonic()
with psycopg.connect(sys.argv[1]) as connection, open(sys.argv[2], "rb") as file:
    with connection.cursor().copy("copy public.bare from stdin (format csv, header)") as copy:
        while block := file.read(1 << 18):
            copy.write(block)
print(json.dumps(dict(seconds=time.monotonic() - started)))
"""


@dataclass(frozen=True)
class _Run:
    seconds: float
    peak_mb: float


def run(server: Server, rows: int, rounds: int, progress: Progress) -> list[Figure]:
    """``import_vs_copy``, ``reimport_vs_copy`` (rows per second) and ``import_peak_mb``."""
    new_database(server, DATABASE)
    dsn = make_conninfo(server.dsn, dbname=DATABASE)
    firsts, agains, peaks = [], [], []
    # The directory must be the benchmark's: an import writes its report of rejects where it runs.
    with tempfile.TemporaryDirectory() as made, connect(server, DATABASE) as connection:
        progress("generating", 0.0)
        make_catalogue(connection, VIDEOS)
        connection.execute("create table public.bare (product_url text, reviewer_id uuid, stars real, created_at text)")
        path = Path(made) / "reviews.csv"
        write_reviews(path, rows)
        command = [sys.executable, "-c", _IMPORT, "import", "reviews", str(path), "--dsn", dsn, "--json"]
        for at in range(rounds):
            progress(f"round {at + 1} of {rounds}", (at + 0.5) / rounds)
            connection.execute("truncate two_tower.reviews, public.bare")
            connection.execute("checkpoint")
            bare = _measured([sys.executable, "-c", _BARE, dsn, str(path)], made)
            connection.execute("checkpoint")
            first = _measured(command, made)
            connection.execute("checkpoint")
            again = _measured(command, made)
            firsts.append((rows / first.seconds, rows / bare.seconds))
            agains.append((rows / again.seconds, rows / bare.seconds))
            peaks.append((max(first.peak_mb, again.peak_mb), bare.peak_mb))
    return [
        compared("import_vs_copy", firsts, "rows/s"),
        compared("reimport_vs_copy", agains, "rows/s"),
        compared("import_peak_mb", peaks, "MB"),
    ]


def write_reviews(path: Path, rows: int, seed: int = 0) -> None:
    """A reviews CSV about the videos of ``make_catalogue``: a few popular, each reviewer with about fifty rows."""
    rng = np.random.default_rng(seed)
    reviewers = pl.Series([str(UUID(bytes=rng.bytes(16), version=4)) for _ in range(max(rows // ROWS_PER_REVIEWER, 1))])
    with path.open("wb") as file:
        for start in range(0, rows, _PART):
            count = min(_PART, rows - start)
            video = pl.Series((VIDEOS * rng.random(count) ** 2).astype(np.int64))
            moment = pl.Series(1_500_000_000_000_000 + rng.integers(0, 2 * 10**14, count)).cast(pl.Datetime("us"))
            frame = pl.DataFrame(
                {
                    "product_url": "https://videos.example/" + video.cast(pl.String),
                    "reviewer_id": reviewers.gather(rng.integers(0, len(reviewers), count)),
                    "stars": rng.integers(1, 6, count),
                    "created_at": moment.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
                }
            )
            frame.write_csv(file, include_header=start == 0)


def _measured(command: list[str], directory: str) -> _Run:
    """The time that a process reports, and its peak memory."""
    process = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if process.returncode:
        raise UserError(f"a measured process failed: {process.stderr.strip()[-600:]}")
    peak = int(process.stderr.rsplit("peak ", 1)[1])
    return _Run(json.loads(process.stdout)["seconds"], peak / 1024)
