"""``two-tower bench training``: a training on up to a million users' histories.

The data set has interests, and product lines within them. A user follows a few of both, and also likes popular and
random videos. So part of the structure is coarse, as the dimensions of a vector can hold, and part is in small groups
of videos that go together. It is generated in the database. The training reads it from there, in a process of its
own, whose peak memory is measured, mapped files included.

Nothing here is registered; ``two-tower bench catalogue`` measures that for a large model.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psycopg
from psycopg.conninfo import make_conninfo

from two_tower.bench.common import Connection, Figure, connect, new_database
from two_tower.errors import UserError
from two_tower.progress import Progress
from two_tower.server.embedded import Server

DATABASE = "bench_training"
BLOCK = 20_000
"""Users whose likes are drawn at once."""
SHARES = (0.45, 0.3, 0.2, 0.05)
"""Shares of likes: of a line that a user follows, of an interest, of popular videos, and random ones."""
FOLLOWED = 3
"""Interests of a user, and lines, one in each."""
LINES = 10
"""Of an interest, where it has enough videos."""
SPREAD = 0.8
"""Of the logarithm of how many likes a user has."""
YEAR = 365 * 86_400

# Without triggers, those for replication included: nobody refreshes here.
_VIDEOS = """
alter table public.videos disable trigger all;
alter table public.video_tags disable trigger all;
alter table public.user_video_decisions disable trigger all;
alter table auth.users disable trigger all;
insert into public.videos (id, product_url, title, maker, series, price, duration_seconds, published_at)
select md5('video' || n)::uuid, 'https://videos.example/' || n, 'Title ' || n, 'maker ' || n % {interests} / 3,
    'line ' || n % ({interests} * {lines}), n % 40, 600 + n % 9000, timestamptz '2025-01-01'
from generate_series(0, {videos} - 1) n;
insert into public.tags (id, name)
select md5('tag' || n)::uuid, 'tag ' || n from generate_series(0, {interests} - 1) n;
insert into public.video_tags (video_id, tag_id)
select md5('video' || n)::uuid, md5('tag' || n % {interests})::uuid from generate_series(0, {videos} - 1) n;
insert into auth.users (id) select md5('user' || n)::uuid from generate_series(0, {users} - 1) n;
alter table public.user_video_decisions drop constraint user_video_decisions_pkey;
drop index public.user_video_decisions_video_id_idx;
"""
# Training uses no index; the key exists all the same, as in a real database.
_KEYS = """
alter table public.user_video_decisions add primary key (user_id, video_id);
analyze public.videos, public.video_tags, auth.users, public.user_video_decisions
"""
_COPY = """
copy public.user_video_decisions (user_id, video_id, decision_type, created_at) from stdin (format binary)
"""
_ROW = np.dtype(
    [
        ("fields", ">i2"),
        *(("l0", ">i4"), ("user", "V16")),
        *(("l1", ">i4"), ("video", "V16")),
        *(("l2", ">i4"), ("decision", "S4")),
        *(("l3", ">i4"), ("time", ">i8")),
    ]
)

_TRAIN = "from two_tower.bench.training import main; main()"


@dataclass(frozen=True)
class Scale:
    """How much of it. The defaults are the full benchmark."""

    users: int = 1_000_000
    videos: int = 300_000
    likes: int = 40_000_000

    @classmethod
    def quick(cls) -> Scale:
        return cls(users=5_000, videos=3_000, likes=200_000)

    @property
    def interests(self) -> int:
        return max(4, int(self.videos**0.5))

    @property
    def lines(self) -> int:
        return max(1, min(LINES, self.videos // self.interests // 20))


def run(server: Server, scale: Scale, progress: Progress) -> tuple[list[Figure], list[str]]:
    """All figures, and the time and memory of each step of the training."""
    progress(f"making {scale.users:,} users with {scale.likes:,} likes of {scale.videos:,} videos", 0.0)
    likes = make_world(server, scale, lambda what, share: progress(what, 0.3 * share))
    found = train(make_conninfo(server.dsn, dbname=DATABASE), lambda what, share: progress(what, 0.3 + 0.7 * share))
    return figures(found, likes), found.said()


@dataclass(frozen=True)
class Trained:
    """What the training process reports."""

    minutes: float
    """Of reading and training, without evaluation."""
    reading: float
    """Minutes of these."""
    peak: float
    """Gigabytes that were resident at once, mapped files included."""
    metrics: dict[str, dict[str, float]]
    """Recommender -> NDCG and recall."""
    steps: list[tuple[str, float, float]]
    """Each step, minutes from the start to its end, peak in gigabytes until then."""
    choice: dict[str, float]
    """Some of what the training chose."""

    def said(self) -> list[str]:
        """The steps, and the choice, in words."""
        lines = [f"{what}: until {minutes:.1f} min, peak {peak:.2f} GB" for what, minutes, peak in self.steps]
        return [*lines, "chosen: " + ", ".join(f"{name} {value:g}" for name, value in self.choice.items())]


def figures(found: Trained, likes: int) -> list[Figure]:
    """Minutes with those of reading as baseline; gigabytes with those of the likes as read; quality with the
    references."""
    mapped = likes * LIKE_BYTES / 2**30
    rows = [
        Figure("training_minutes", found.minutes, found.reading, found.minutes / found.reading, "min"),
        Figure("training_peak_gb", found.peak, mapped, found.peak / mapped, "GB"),
    ]
    for metric in ("ndcg", "recall"):
        own = found.metrics["two-tower"][f"{metric}@20"]
        for name, label in (("item-kNN", "item_knn"), ("popularity", "popularity")):
            other = found.metrics[name][f"{metric}@20"]
            rows.append(Figure(f"{metric}_vs_{label}", own, other, own / other if other else None, f"{metric}@20"))
    return rows


LIKE_BYTES = 21
"""Bytes of a like in training: video, label, time and weight in mapped files, the user in memory."""


# ------------------------------------------------------------------------------------------------ the world


def make_world(server: Server, scale: Scale, progress: Progress) -> int:
    """Fills :data:`DATABASE`; how many likes there are."""
    new_database(server, DATABASE)
    with connect(server, DATABASE) as connection:
        sizes = {"users": scale.users, "videos": scale.videos, "interests": scale.interests, "lines": scale.lines}
        connection.execute(_VIDEOS.format(**sizes).encode())
        count = _copy_likes(connection, scale, progress)
        progress("making the key", 0.9)
        connection.execute(_KEYS.encode())
    return count


def _copy_likes(connection: Connection, scale: Scale, progress: Progress) -> int:
    users, videos = _ids("user", scale.users), _ids("video", scale.videos)
    count = 0
    with connection.cursor().copy(_COPY) as copy:
        copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
        for user, video, seconds in likes_of(scale):
            rows = np.zeros(len(user), dtype=_ROW)
            rows["fields"], rows["l0"], rows["l1"], rows["l2"], rows["l3"] = 4, 16, 16, 4, 8
            rows["user"], rows["video"], rows["decision"] = users[user], videos[video], b"like"
            rows["time"] = seconds * 1_000_000  # from the year 2000 on
            copy.write(rows.tobytes())
            count += len(user)
            progress(f"{count:,} likes", 0.9 * int(user[-1]) / scale.users)
        copy.write(b"\xff\xff")
    return count


def likes_of(scale: Scale, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """User [n], video [n] and seconds [n] of distinct likes, by blocks of users.

    Video ``n`` is of interest ``n % interests`` and, in it, of line ``n // interests % lines``; the lower, the more
    popular.
    """
    interests, lines, videos = scale.interests, scale.lines, scale.videos
    ranks = videos // interests  # complete interests only; the remaining videos are liked only by chance and popularity
    rng = np.random.default_rng(seed)
    mean = scale.likes / scale.users
    fame = 1 / np.arange(1, interests + 1) ** 0.5
    for first in range(0, scale.users, BLOCK):
        size = min(BLOCK, scale.users - first)
        wanted = np.exp(rng.normal(np.log(mean) - SPREAD**2 / 2, SPREAD, size))
        wanted = np.clip(np.round(wanted), 1, videos // 4).astype(np.int64)
        followed = rng.choice(interests, (size, FOLLOWED), p=fame / fame.sum())
        line = rng.integers(0, lines, (size, FOLLOWED))
        # More than needed, since some are drawn twice.
        user = np.repeat(np.arange(size), wanted + wanted // 3 + 2)
        which, chance = rng.integers(0, FOLLOWED, len(user)), rng.random(len(user))
        kind = np.searchsorted(np.cumsum(SHARES)[:-1], rng.random(len(user)), side="right")
        interest = followed[user, which]
        within = (ranks * chance**2).astype(np.int64)
        of_line = np.minimum(within // lines * lines + line[user, which], ranks - 1)
        video = np.select(
            [kind == 0, kind == 1, kind == 2],
            [of_line * interests + interest, within * interests + interest, (videos * chance**4).astype(np.int64)],
            (videos * chance).astype(np.int64),
        )
        pairs = np.unique(user * videos + video)
        user, video = pairs // videos, pairs % videos
        order = np.lexsort((rng.random(len(user)), user))
        user, video = user[order], video[order]
        place = np.arange(len(user)) - np.searchsorted(user, user)
        kept = place < wanted[user]
        user, video = user[kept], video[kept]
        yield first + user, video, rng.integers(25 * YEAR, 26 * YEAR, len(user))


def _ids(kind: str, count: int) -> np.ndarray:
    """[count] of 16 bytes: what ``md5(kind || n)::uuid`` is in SQL."""
    digests = (hashlib.md5(f"{kind}{n}".encode(), usedforsecurity=False).digest() for n in range(count))
    return np.frombuffer(b"".join(digests), dtype="V16")


# ------------------------------------------------------------------------------------------------ the training


def train(dsn: str, progress: Progress) -> Trained:
    """A training in a process of its own. ``progress`` is called with each step and the peak so far."""
    said: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", _TRAIN, dsn], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(STEP):
                what, share = json.loads(line.removeprefix(STEP))
                progress(what, share)
            else:
                said.append(line)
        answer = process.stdout.read()
    if process.returncode:
        killed = "it was killed, as a rule for want of memory. " if process.returncode < 0 else ""
        raise UserError(f"the training failed: {killed}{''.join(said).strip()[-600:]}")
    return Trained(**json.loads(answer))


STEP = "step "
"""Prefix of the training process's progress lines."""


def main() -> None:
    """The training process: the first argument is the database."""

    def tell(what: str, share: float) -> None:
        sys.stderr.write(f"{STEP}{json.dumps([what, share])}\n")
        sys.stderr.flush()

    sys.stdout.write(json.dumps(asdict(measured(sys.argv[1], tell))))


def measured(dsn: str, progress: Progress) -> Trained:
    """A training in this process, whose peak memory is measured."""
    from two_tower.trainer.dataset import read
    from two_tower.trainer.train import fit

    started = time.monotonic()
    steps: list[tuple[str, float, float]] = []
    now = ""

    def tell(what: str, share: float) -> None:
        nonlocal now
        minutes, peak = (time.monotonic() - started) / 60, _peak()
        progress(f"{what} ({minutes:.1f} min, peak {peak:.1f} GB)", share)
        what = re.sub(r"trying candidate \d+", "searching", what)
        if now and what != now:
            steps.append((now, minutes, peak))
        now = what

    tell("reading", 0.0)
    with psycopg.connect(dsn, autocommit=True) as connection:
        data = read(connection)
    reading = (time.monotonic() - started) / 60
    model = fit(data, progress=tell)
    metrics = {
        name: {metric: found[metric] for metric in ("ndcg@20", "recall@20")}
        for name, found in model.metrics.items()
        if isinstance(found, dict) and "ndcg@20" in found
    }
    if not metrics:
        raise UserError("the world is too small to hold anything out", "make more users, or more likes of each")
    choice = {name: float(model.hyperparameters[name]) for name in ("together", "neighbours", "recency")}
    minutes = reading + model.hyperparameters["seconds"] / 60
    return Trained(minutes, reading, _peak(), metrics, steps, choice)


def _peak() -> float:
    """Gigabytes of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20
