"""A small generated data set with known tastes, for the demo.

    python -c "from two_tower.world import generate; print(generate('world').counts)"

Each user has a few of 25 interests, follows some performers, and likes certain moods, which no tag shows. So content
explains one part of the likes, other people's likes a second, popularity a third, and chance the rest. Likes are drawn
without replacement by utility (Gumbel top-k, Plackett-Luce), nopes by popularity and distaste, skips only by
popularity. On one machine, a seed always gives the same files, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
import polars as pl

from two_tower.writing import writing

INTERESTS: dict[str, str] = {
    "sea": "harbour, lighthouse, sailing, storm, diving, island",
    "space": "orbit, starship, comet, moonbase, nebula, signal",
    "kitchen": "bakery, noodle bar, spice, street food, chef, orchard",
    "detective": "alibi, cold case, locked room, informant, heist, forgery",
    "mountain": "summit, avalanche, cabin, glacier, ridge walk, cable car",
    "school": "classroom, exam week, roommate, club room, graduation, library",
    "ghost": "haunting, seance, graveyard, mirror, attic, curse",
    "music": "piano, choir, garage band, opera, drummer, lullaby",
    "sport": "boxing, relay, goalkeeper, marathon, rival, underdog",
    "court": "trial, verdict, jury, appeal, witness, oath",
    "garden": "greenhouse, rose, beekeeping, harvest, topiary, seed",
    "war": "trench, codebreaker, armistice, deserter, convoy, medic",
    "romance": "first kiss, wedding, letter, reunion, pen friend, slow dance",
    "robot": "android, circuit, uprising, cyborg, lab accident, neon city",
    "western": "saloon, outlaw, railroad, desert, bounty, ranch",
    "magic": "wizard, spellbook, dragon, familiar, enchanted forest, portal",
    "family": "grandmother, twins, inheritance, road trip, new baby, farm",
    "office": "boss, night shift, internship, rumour, promotion, elevator",
    "racing": "grand circuit, pit crew, rally, motorbike, drift, mechanic",
    "history": "palace, dynasty, plague, cathedral, caravan, treaty",
    "nature": "wolf, migration, rainforest, savanna, river, owl",
    "theatre": "rehearsal, understudy, puppet, mask, premiere, backstage",
    "spy": "double agent, safe house, cipher, defector, embassy, microfilm",
    "medicine": "surgery, outbreak, ambulance, village doctor, amnesia, clinic",
    "comedy": "mistaken identity, prank, bad landlord, talent show, parrot, karaoke",
}
"""Interest → its six tags, the most common first."""

_TITLES = (
    "The {0}", "A {0} in Winter", "Beyond the {0}", "The {0} and the {1}", "Last {0}", "{0} at Dawn", "My {0}",
    "Seven Days of {0}", "No {0} Tonight", "The Secret {0}", "Return of the {0}", "{0}, Again", "Under the {0}",
    "The {0} Next Door", "A Small {0}", "Every {0} Has Its {1}", "Midnight {0}", "The Silent {0}", "One More {0}",
)  # fmt: skip
_SYLLABLES = (
    "ba", "ke", "li", "mo", "ra", "su", "ti", "vo", "na", "fe", "do", "mi",
    "zu", "la", "re", "ko", "sha", "pe", "ni", "tor", "wen", "dal", "mar", "vin",
)  # fmt: skip
_START = np.datetime64("2025-01-01T00:00:00", "s")
_SECONDS = 548 * 86_400
"""Eighteen months of decisions."""
MOODS = 8
"""Dimensions of taste that other people's likes show, but the catalogue does not."""
HELD_OUT = 0.2
"""Share of each user's likes, the latest, that are never put into the database."""


@dataclass(frozen=True)
class World:
    """The counts of the files, and the true tastes behind them. Arrays are in the order of ``users`` and ``videos``."""

    catalog: Path
    decisions: Path
    heldout: Path
    users: list[str]
    """User ids."""
    videos: list[str]
    """Product URLs."""
    utility: np.ndarray
    """[users, videos] float32: the utility by which likes were drawn, before random noise."""
    counts: dict[str, int]
    """Rows by kind: videos, likes, nopes, skips, heldout."""


def generate(directory: Path | str, users: int = 3000, videos: int = 3000, seed: int = 1) -> World:
    """Writes ``catalog.csv``, ``decisions.csv`` and ``heldout.csv`` (``user_id,product_url,created_at``)."""
    directory = Path(directory)
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    catalog, interest, performers, mood = _catalogue(rng, videos)
    taste = _taste(rng, users)
    utility = _utility(rng, taste, interest, performers, mood)
    ids = [str(UUID(bytes=rng.bytes(16), version=4)) for _ in range(users)]
    decisions = _decisions(rng, utility, taste @ interest.T)
    urls = catalog["product_url"]
    named = decisions.select(
        pl.Series(ids)[decisions["user"]].alias("user_id"),
        urls[decisions["video"]].alias("product_url"),
        "decision",
        pl.col("created_at").dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "heldout",
    )
    heldout = named.filter("heldout").drop("heldout", "decision")
    known = named.filter(~pl.col("heldout")).drop("heldout")
    paths = (directory / "catalog.csv", directory / "decisions.csv", directory / "heldout.csv")
    for path, frame in zip(paths, (catalog, known, heldout), strict=True):
        with writing(path):
            frame.write_csv(path)
    kinds = dict(known["decision"].value_counts().iter_rows())
    counts = {"videos": videos, "heldout": len(heldout)} | {f"{kind}s": kinds.get(kind, 0) for kind in _KINDS}
    return World(*paths, ids, urls.to_list(), utility, counts)


def _catalogue(rng: np.random.Generator, n: int) -> tuple[pl.DataFrame, np.ndarray, np.ndarray, np.ndarray]:
    """The catalogue; interests [n, 25]; performers [n, 600] as 0 or 1; moods [n, MOODS], in part those of the maker."""
    kinds, stars, makers, labels, lines = len(INTERESTS), 600, 60, 3, 220
    tags = [tag.split(", ") for tag in INTERESTS.values()]
    by_interest = _long_tail(kinds, 0.6)
    maker_interest = rng.choice(kinds, makers, p=by_interest)
    series_interest = rng.choice(kinds, lines, p=by_interest)
    star_interest = rng.choice(kinds, stars, p=by_interest)
    star_fame = rng.permutation(_long_tail(stars, 0.9))
    maker_fame = rng.permutation(_long_tail(makers, 0.8))
    series_fame = rng.permutation(_long_tail(lines, 0.7))
    maker_mood = rng.normal(size=(makers, MOODS))
    star_names = _names(rng, stars, 2)
    maker_names = [f"{name} Works" for name in _names(rng, makers, 1)]
    interest = np.zeros((n, kinds), np.float32)
    cast = np.zeros((n, stars), np.float32)
    made_by = np.empty(n, np.int64)
    rows = []
    episodes = np.zeros(lines, np.int64)
    series_names = [f"{rng.choice(tags[i]).title()} {rng.choice(_SUFFIXES)}" for i in series_interest]
    for video in range(n):
        series = int(rng.choice(lines, p=series_fame)) if rng.random() < 0.35 else None
        main = int(series_interest[series]) if series is not None else int(rng.choice(kinds, p=by_interest))
        second = int(rng.choice(kinds, p=by_interest))
        interest[video, main] += 0.7
        interest[video, second] += 0.3
        count = rng.integers(2, 5)
        chosen = list(rng.choice(tags[main], count, replace=False, p=_TAG_TAIL))
        chosen += list(rng.choice(tags[second], rng.integers(1, 3), replace=False, p=_TAG_TAIL))
        likely = star_fame * np.where(star_interest == main, 30.0, np.where(star_interest == second, 6.0, 0.3))
        for star in rng.choice(stars, rng.integers(1, 4), replace=False, p=likely / likely.sum()):
            cast[video, star] = 1
        likely = maker_fame * np.where(maker_interest == main, 12.0, 1.0)
        maker = made_by[video] = rng.choice(makers, p=likely / likely.sum())
        title = str(rng.choice(_TITLES)).format(chosen[0].title(), chosen[-1].title())
        if series is not None:
            episodes[series] += 1
            title = f"{series_names[series]} {episodes[series]}: {title}"
        rows.append(
            {
                "product_url": f"https://videos.example/item/{video + 1:05}",
                "title": title,
                "tags": "|".join(dict.fromkeys(chosen)),
                "performers": "|".join(star_names[star] for star in np.flatnonzero(cast[video])),
                "maker": maker_names[maker],
                "label": f"{maker_names[maker].split()[0]} {_LABELS[rng.integers(labels)]}",
                "series": series_names[series] if series is not None else None,
                "source": str(rng.choice(("studio", "festival", "archive"), p=(0.7, 0.2, 0.1))),
                "price": int(rng.choice((300, 500, 980, 1480, 1980), p=(0.15, 0.25, 0.3, 0.2, 0.1))),
                "duration_seconds": int(np.clip(rng.normal(5400, 1500), 600, 14_000)),
                "released_at": str((_START - np.timedelta64(int(rng.exponential(700)) + 1, "D")).astype("M8[D]")),
                "thumbnail_url": f"https://videos.example/thumb/{video + 1:05}.jpg",
            }
        )
    mood = 0.6 * maker_mood[made_by] + 0.8 * rng.normal(size=(n, MOODS))
    return pl.DataFrame(rows), interest, cast, mood.astype(np.float32)


def _taste(rng: np.random.Generator, n: int) -> np.ndarray:
    """Shares of interests [n, 25]; each user has two to four."""
    kinds = len(INTERESTS)
    taste = np.zeros((n, kinds), np.float32)
    for user in range(n):
        chosen = rng.choice(kinds, rng.integers(2, 5), replace=False, p=_long_tail(kinds, 0.6))
        taste[user, chosen] = rng.dirichlet(np.full(len(chosen), 2.0))
    return taste


def _utility(
    rng: np.random.Generator, taste: np.ndarray, interest: np.ndarray, performers: np.ndarray, mood: np.ndarray
) -> np.ndarray:
    """[users, videos] float32."""
    n, videos = len(taste), len(interest)
    followed = np.zeros((n, performers.shape[1]), np.float32)
    shown = interest.T @ performers  # [interests, performers]: how much performers appear in each interest
    for user in range(n):
        likely = taste[user] @ shown + 1e-3
        followed[user, rng.choice(len(likely), rng.integers(2, 7), replace=False, p=likely / likely.sum())] = 1
    scenes = rng.normal(size=(12, MOODS))
    scene = scenes[rng.choice(12, n, p=_long_tail(12, 0.5))] + 0.4 * rng.normal(size=(n, MOODS))
    fame = 0.9 * rng.normal(size=videos)
    affinity = np.sqrt(taste @ interest.T)
    known = 7.0 * affinity + 2.0 * np.minimum(followed @ performers.T, 2) + 0.35 * scene @ mood.T + fame
    return known.astype(np.float32)


_KINDS = ("like", "nope", "skip")


def _decisions(rng: np.random.Generator, utility: np.ndarray, affinity: np.ndarray) -> pl.DataFrame:
    """Decisions (user, video, decision, created_at, heldout), in order of user and time."""
    n, videos = utility.shape
    likes = np.clip(rng.lognormal(np.log(42), 0.85, n), 3, videos // 6).astype(np.int64)
    nopes = np.minimum((likes * rng.uniform(0.1, 0.7, n)).astype(np.int64), videos // 6)
    skips = np.minimum((likes * rng.uniform(0.1, 0.5, n)).astype(np.int64), videos // 6)
    fame = utility.mean(axis=0)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for user in range(n):
        chance = -np.log(rng.standard_exponential((3, videos), np.float32) + np.float32(1e-30))  # Gumbel
        chance[0] += utility[user]
        chance[1] += fame - 6 * np.sqrt(affinity[user])
        chance[2] += fame
        free = np.ones(videos, bool)
        for kind, count in enumerate((int(likes[user]), int(nopes[user]), int(skips[user]))):
            score = np.where(free, chance[kind], -np.inf)
            chosen = np.argpartition(-score, count)[:count]
            free[chosen] = False
            parts.append((np.full(count, user), chosen, np.full(count, kind)))
    who, what, which = (np.concatenate(part) for part in zip(*parts, strict=True))
    joined = (0.7 * rng.random((n,)))[who]
    moment = ((joined + (1 - joined) * rng.random(len(who))) * _SECONDS).astype("m8[s]")
    frame = pl.DataFrame(
        {
            "user": who,
            "video": what,
            "decision": pl.Series(_KINDS)[which],
            "created_at": (_START + moment).astype("M8[us]"),
        }
    ).sort("user", "created_at", "video")
    from_last = pl.col("created_at").rank("ordinal", descending=True).over("user", "decision")
    held = (from_last <= (pl.len().over("user", "decision") * HELD_OUT).floor()) & (pl.col("decision") == "like")
    return frame.with_columns(held.alias("heldout"))


_TAG_TAIL = np.array([8, 5, 3, 2, 1, 0.5]) / 19.5
_SUFFIXES = ("Stories", "Diaries", "Files", "Nights", "Club", "Chronicle", "Hours", "Lessons")
_LABELS = ("Blue", "Gold", "Studio")


def _long_tail(n: int, power: float) -> np.ndarray:
    """Shares of n things by Zipf's law, the largest first."""
    shares = np.arange(1, n + 1, dtype=np.float64) ** -power
    return shares / shares.sum()


def _names(rng: np.random.Generator, n: int, words: int) -> list[str]:
    """Distinct invented names."""
    names: dict[str, None] = {}
    while len(names) < n:
        parts: Sequence[str] = ["".join(rng.choice(_SYLLABLES, rng.integers(2, 4))).title() for _ in range(words)]
        names[" ".join(parts)] = None
    return list(names)
