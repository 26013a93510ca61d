"""Evaluate a version offline on logged impressions, without showing it to anybody.

Each logged list that was drawn at random is compared with the list that the version would have shown: a video in both,
shown with a known propensity p, counts 1/p times. This estimates the version's like rate from impressions of another
one: inverse propensity scoring, normalised by the sum of the weights (Swaminathan and Joachims, "The Self-Normalized
Estimator for Counterfactual Learning", NIPS 2015). It works slot by slot, assuming that a like does not depend on the
videos around it. With w a weight and r a like, the rate is R = sum(w r) / sum(w); its variance is that of a ratio over
users, as in ``sql/66_experiments/rate_variance.sql``.

If everything that the version would show could have been shown, the weights of a list sum to its length on average.
Their share of that length is the ``support``: the log says nothing about the rest.

Clients log propensities themselves, and as many rows as ``shown_per_day`` allows. So a user counts at most
:data:`MOST_SHARE` of all weights, whatever was logged; the excess is scaled down.

A user's history holds only decisions before the list. Videos that the user never wants to see, or that the owner's
condition hides from the user, are left out as in serving. Lists for which such conditions are unknown are skipped and
counted (:data:`LEFT_OUT`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from two_tower.errors import UserError
from two_tower.features import decision_weights
from two_tower.rows import column, one, row

if TYPE_CHECKING:
    from uuid import UUID

    import psycopg
    from numpy.typing import NDArray

    Connection = psycopg.Connection[Any]
    Floats = NDArray[np.float64]

Decision = tuple[float, int, int, float]
"""Time, video, 1 like, 0 nope or -1 skip, and the decision's own weight."""

MOST_LISTS = 20_000
"""At most this many lists are replayed, the newest."""

MOST_SHARE = 0.1
"""A user has at most this share of the weights of an estimate; where too few users have any for that, all the same."""

LEAST_USERS = 30
"""An estimate from fewer users has no interval; nor if too few of them have a weight to bound each (MOST_SHARE)."""

LEFT_OUT = {
    "filtered": "asked for with filters, which the log does not have",
    "opted_out": "of users who opted out of personalisation or training",
    "chosen_since": "from before their users chose anew what never to see",
    "before_a_like": "of users who had liked nothing by then",
}
"""Why lists with chance in them say nothing of a version."""


@dataclass(frozen=True)
class Shown:
    """A logged list."""

    user: int
    at: float
    videos: NDArray[np.int64]
    propensity: Floats
    liked: Floats
    """1 where the user liked the video after this list and before it was shown again."""


@dataclass
class Log:
    """Impressions and decisions. Users and videos are numbered in the order of first mention."""

    lists: list[Shown] = field(default_factory=list)
    users: dict[Any, int] = field(default_factory=dict)
    videos: dict[Any, int] = field(default_factory=dict)
    decisions: dict[int, list[Decision]] = field(default_factory=dict)
    """By user, in the order of time."""
    shown: dict[int, list[tuple[float, list[int]]]] = field(default_factory=dict)
    """By user, all that was shown and when, also in lists that are left out."""
    left_out: dict[str, int] = field(default_factory=dict)
    """How many lists are not among ``lists``, by the names of :data:`LEFT_OUT`."""
    again_after: float = 0.0
    """Seconds within which a page of next_videos() does not repeat what was shown."""


@dataclass(frozen=True)
class Sums:
    """Sums per user: weights, weights of likes, and slots."""

    weight: Floats
    hits: Floats
    slots: Floats
    weights: Floats
    """Each weight above zero, whoever's."""
    unranked: int
    """Lists for which there was nothing to rank by."""

    @property
    def rate(self) -> float:
        return float(self.hits.sum() / self.weight.sum()) if self.weight.sum() > 0 else float("nan")

    @property
    def influence(self) -> Floats:
        """Influence of each user on the rate."""
        return (self.hits - self.rate * self.weight) / self.weight.sum()


def replay(connection: Connection, version: str, days: int = 30) -> dict[str, Any]:
    """Estimates for ``version`` and the active version from the lists of the last ``days``.

    ``lists`` and ``users`` that were replayed; ``left_out``, the number of skipped lists by :data:`LEFT_OUT`;
    ``shown_rate``, the like rate of the logged lists; for ``version`` and, if it is another, ``incumbent``:
    ``like_rate`` with ``low`` and ``high`` (95 %, one look), ``support`` and ``effective``, the effective sample size;
    ``difference`` of both, with ``low`` and ``high``. Values that do not exist are None.

    Raises UserError if there is no such version, if it has no vectors yet, or if no list was drawn at random.
    """
    require_replayable(connection, version)
    active = one(connection, "select two_tower.active_version()")
    log = read_log(connection, days)
    allowed = Allowed.read(connection, log)
    own = estimate(log, Ranker.read(connection, version, log), allowed)
    compared = active not in (None, version) and _replayable(connection, active)
    other = estimate(log, Ranker.read(connection, active, log), allowed) if compared else None
    slots = sum(len(shown.videos) for shown in log.lists)
    return {
        "version": version,
        "days": days,
        "lists": len(log.lists),
        "users": len({shown.user for shown in log.lists}),
        "left_out": log.left_out | ({"before_a_like": own.unranked} if own.unranked else {}),
        "shown_rate": sum(float(shown.liked.sum()) for shown in log.lists) / slots,
        **_figures(own),
        "incumbent": None if other is None else {"version": active, **_figures(other)},
        "difference": None if other is None else _difference(own, other),
    }


def require_replayable(connection: Connection, version: str) -> None:
    """Raises UserError unless ``version`` has vectors, and weights as rows."""
    one(connection, "select two_tower.require_model(%s)", (version,))
    if version not in one(connection, "select two_tower.live_versions()"):
        raise UserError(f"model {version} has no vectors to rank with", f"two-tower model backfill {version}")
    if not column(connection, _BIAS, (version,)):
        raise UserError(
            f"model {version} cannot be replayed: its weights are not there as rows",
            "compare it on users: two-tower ab start",
        )


def _replayable(connection: Connection, version: str) -> bool:
    try:
        require_replayable(connection, version)
    except UserError:
        return False
    return True


def evidence(connection: Connection, version: str, overrides: dict[str, float] | None = None) -> dict[str, Any] | None:
    """``{"replay": …}`` for the gate if the setting gate_max_replay_drop asks for it, else None.

    If there is no estimate, ``replay`` has the reason as ``nothing``.
    """
    limit = (overrides or {}).get("gate_max_replay_drop")
    if limit is None:
        limit = one(connection, "select two_tower.model_setting('gate_max_replay_drop')")
    active = one(connection, "select two_tower.active_version()")
    if limit >= 1 or active in (None, version) or not _replayable(connection, active):
        return None
    try:
        return {"replay": replay(connection, version)}
    except UserError as error:
        return {"replay": {"nothing": error.message}}


# ------------------------------------------------------------------------------------------------ reading

_BIAS = "select weight::text from two_tower.model_weights where model_version = %s and tower = 'user' and part = 'bias'"

_PROFILES = """
select k.user_id, extensions.sum(w.weight)::text
from two_tower.profile_positions(%(users)s, %(version)s) k
left join two_tower.model_weights w
    on w.model_version = %(version)s and w.tower = 'user' and w.part = 'row' and w.position = k.place
group by k.user_id
"""


def read_log(connection: Connection, days: int) -> Log:
    """Lists with known propensities of which some are below 1. Raises UserError if there are none."""
    log = Log(again_after=3600 * one(connection, "select two_tower.model_setting('shown_again_after_hours')"))
    log.left_out = dict(
        connection.execute(
            """select l.left_out, count(*) from two_tower.lists_by_chance(%s) l
            where l.left_out is not null group by 1 order by 1""",
            (days,),
        ).fetchall()
    )
    rows = connection.execute(
        """with lists as materialized (
            select l.* from two_tower.lists_by_chance(%(days)s) l
            where l.left_out is null order by l.shown_at desc limit %(most)s
        ),
        shown as (
            select i.user_id, i.list_id, i.shown_at, i.video_id, i.rank, i.propensity,
                lead(i.shown_at) over (partition by i.user_id, i.video_id order by i.shown_at) as next_at
            from two_tower.impressions i
            where i.shown_at >= now() - %(days)s * interval '1 day' and i.user_id in (select l.user_id from lists l)
        )
        select s.user_id, extract(epoch from s.shown_at)::float8, array_agg(s.video_id order by s.rank),
            array_agg(s.propensity::float8 order by s.rank),
            array_agg((d.at is not null and (s.next_at is null or d.at < s.next_at))::int order by s.rank)
        from lists l
        join shown s on s.user_id = l.user_id and s.list_id = l.list_id and s.shown_at = l.shown_at
        left join lateral (
            select two_tower.time_of(o.created_at) as at from public.user_video_decisions o
            where o.user_id = s.user_id and o.video_id = s.video_id and two_tower.decision_label(o.decision_type) = 1
        ) as d on d.at >= s.shown_at and d.at <= now()  -- as shown_outcomes.sql has it
        group by s.user_id, s.list_id, s.shown_at
        order by s.shown_at desc""",
        {"days": days, "most": MOST_LISTS},
    ).fetchall()
    if not rows and log.left_out:
        raise UserError(
            f"of what was shown in the last {days} days by chance, nothing can be replayed: {left_out(log.left_out)}",
            "let users see lists of exploration without filters for some days",
        )
    if not rows:
        raise UserError(
            f"nothing that was shown in the last {days} days was drawn by chance, so the log does not say how anything "
            "else would have been liked",
            "set exploration_share, and let users see lists for some days",
        )
    for user, at, videos, propensity, liked in rows:
        number = log.users.setdefault(user, len(log.users))
        ids = np.array([log.videos.setdefault(video, len(log.videos)) for video in videos])
        log.lists.append(Shown(number, at, ids, np.array(propensity), np.array(liked, float)))
    for user, at, videos in connection.execute(
        """select i.user_id, extract(epoch from i.shown_at)::float8, array_agg(i.video_id)
        from two_tower.impressions i
        where i.user_id = any (%s) and i.shown_at >= now() - %s * interval '1 day' - %s * interval '1 second'
        group by i.user_id, i.shown_at""",
        (list(log.users), days, log.again_after),
    ):
        numbers = [log.videos.setdefault(video, len(log.videos)) for video in videos]
        log.shown.setdefault(log.users[user], []).append((at, numbers))
    for user, video, label, weight, at in connection.execute(
        """select d.user_id, d.video_id, g.label, g.weight,
            extract(epoch from coalesce(two_tower.time_of(d.created_at), '1970-01-01 00:00+00'))::float8
        from unnest(%s) as u (id)
        cross join lateral two_tower.given_decisions(u.id) g
        join public.user_video_decisions d on d.user_id = u.id and d.video_id = g.video_id
        order by 5, d.video_id""",
        (list(log.users),),
    ):
        if label is not None:
            known = log.videos.setdefault(video, len(log.videos))
            log.decisions.setdefault(log.users[user], []).append((at, known, label, weight))
    return log


def left_out(counts: Mapping[str, int]) -> str:
    """What a replay skipped and why, in words."""
    return "; ".join(f"{count:,} {'list' if count == 1 else 'lists'} {LEFT_OUT[why]}" for why, count in counts.items())


def _numbers(text: str) -> Floats:
    return np.array(text[1:-1].split(","), float)


@dataclass(frozen=True)
class Allowed:
    """Which videos lists may show to which user, by the current conditions."""

    connection: Connection
    log: Log
    users: list[UUID]
    conditions: bool
    """Whether the owner has said what is for whom."""
    choosy: set[UUID]
    """Who has said what never to see."""
    videos: list[UUID] = field(default_factory=list)
    known: dict[tuple[int, int], bool] = field(default_factory=dict)

    @classmethod
    def read(cls, connection: Connection, log: Log) -> Allowed:
        users = list(log.users)
        said = "select exists (select from two_tower.catalogue_rule r where r.eligible_when is not null)"
        choosy = column(
            connection,
            """select c.user_id from two_tower.user_choices c where c.user_id = any (%s)
            and (c.never_makers <> '{}' or c.never_tag_ids <> '{}' or c.never_performer_ids <> '{}')""",
            (users,),
        )
        return cls(connection, log, users, one(connection, said), set(choosy))

    def first(self, user: int, videos: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """The first ``length`` of ``videos`` that ``user`` may be shown; both are numbers of the log."""
        if not self.conditions and self.users[user] not in self.choosy:
            return videos[:length]
        found: list[int] = []
        at, step = 0, 4 * length
        while at < len(videos) and len(found) < length:
            part = videos[at : at + step].tolist()
            self._ask(user, [video for video in part if (user, video) not in self.known])
            found += [video for video in part if self.known[user, video]]
            at, step = at + step, 2 * step
        return np.array(found[:length], np.int64)

    def _ask(self, user: int, numbers: list[int]) -> None:
        if len(self.videos) < len(self.log.videos):
            self.videos[:] = self.log.videos
        if numbers:
            asked = [self.videos[number] for number in numbers]
            query = "select two_tower.allowed_videos(%s, %s)"
            allowed = set(one(self.connection, query, (self.users[user], asked)))
            self.known.update({(user, n): video in allowed for n, video in zip(numbers, asked, strict=True)})


@dataclass(frozen=True)
class Ranker:
    """The parameters that a version ranks by. ``place`` is [videos, 127], zero for videos that it does not list."""

    bias: Floats
    place: Floats
    listed: NDArray[np.bool_]
    tastes: dict[int, tuple[Floats | None, Floats | None]]
    neighbours: dict[int, tuple[NDArray[np.int64], Floats]]
    profiles: dict[int, Floats]
    """By user, what the profile adds, as it is now."""
    recency: float

    @classmethod
    def read(cls, connection: Connection, version: str, log: Log) -> Ranker:
        """``version`` as it is stored; its videos that are not in ``log`` are added to it."""
        placed = connection.execute(
            """select e.video_id, e.embedding::text from two_tower.video_embeddings e
            where e.model_version = %s and e.placed
                and (select true from two_tower.visible_videos v where v.id = e.video_id)""",
            (version,),
        ).fetchall()
        numbers = [log.videos.setdefault(video, len(log.videos)) for video, _ in placed]
        decided = {video for made in log.decisions.values() for _, video, _, _ in made}
        ids = [video for video, number in log.videos.items() if number in decided]
        tastes = {
            log.videos[video]: (None if liked is None else _numbers(liked), None if noped is None else _numbers(noped))
            for video, liked, noped in connection.execute(
                """select video_id, liked::text, noped::text from two_tower.video_tastes
                where model_version = %s and video_id = any (%s)""",
                (version, ids),
            )
        }
        neighbours = {
            log.videos[video]: (
                np.array([log.videos.setdefault(other, len(log.videos)) for other in others], np.int64),
                np.array(weights, float),
            )
            for video, others, weights in connection.execute(
                """select video_id, neighbour_ids, weights from two_tower.neighbour_lists
                where model_version = %s and video_id = any (%s)""",
                (version, ids),
            )
        }
        bias = _numbers(one(connection, _BIAS, (version,)))
        # Of a profile that adds nothing, the rows are zero and not there.
        profiles = {
            log.users[user]: np.zeros(len(bias)) if text is None else _numbers(text)
            for user, text in connection.execute(_PROFILES, {"version": version, "users": list(log.users)})
        }
        place = np.zeros((len(log.videos), len(bias)))
        listed = np.zeros(len(log.videos), bool)
        if placed:
            place[numbers] = np.stack([_numbers(text)[: len(bias)] for _, text in placed])
            listed[numbers] = True
        (recency,) = row(connection, "select two_tower.recency_of(%s)", (version,))
        return cls(bias, place, listed, tastes, neighbours, profiles, float(recency))

    def ranked(self, user: int, history: list[Decision], without: set[int]) -> NDArray[np.int64] | None:
        """What it lists for a user with this history, best first; None for a user without a like or a profile."""
        made = [decision for decision in history if decision[2] in (0, 1)]
        if user not in self.profiles and not any(label == 1 for _, _, label, _ in made):
            return None
        times = np.array([at for at, *_ in made])
        given = np.array([weight for *_, weight in made])
        weights = decision_weights(len(times) - np.searchsorted(times, times, side="right"), self.recency, given)
        total = self.bias + self.profiles.get(user, 0.0)
        extra = np.zeros(len(self.place))
        for (_, video, label, _), weight in zip(made, weights, strict=True):
            taste = self.tastes.get(video, (None, None))[0 if label == 1 else 1]
            if taste is not None:
                total += weight * taste
            if label == 1 and video in self.neighbours:
                others, values = self.neighbours[video]
                known = others < len(extra)
                np.add.at(extra, others[known], weight * values[known])
        size = float(np.linalg.norm(total))
        if size <= 1e-12:
            return None
        scores = self.place @ (total / size) + extra / size
        free = self.listed.copy()
        free[[video for video in without if video < len(free)]] = False
        scores = np.where(free, scores, -np.inf)
        return np.argsort(-scores, kind="stable")[: int(free.sum())]


# ------------------------------------------------------------------------------------------------ estimating


def estimate(log: Log, ranker: Ranker, allowed: Allowed) -> Sums:
    """Compare the lists of ``log`` with what ``ranker`` would have shown among ``allowed``. A user without likes yet
    gets no list.
    """
    weight, hits, slots = (np.zeros(len(log.users)) for _ in range(3))
    weights: list[tuple[int, Floats]] = []
    unranked = 0
    by_user: dict[int, list[Shown]] = {}
    for shown in log.lists:
        by_user.setdefault(shown.user, []).append(shown)
    for user, lists in by_user.items():
        made = log.decisions.get(user, [])
        for shown in lists:
            history = [decision for decision in made if decision[0] < shown.at]
            lately = {
                video
                for at, videos in log.shown.get(user, [])
                if shown.at - log.again_after < at < shown.at
                for video in videos
            }
            # A list that repeats a video of the last hours did not come from next_videos(), which leaves those out.
            if lately & set(shown.videos.tolist()):
                lately = set()
            without = lately | {video for _, video, _, _ in history}
            ranked = ranker.ranked(user, history, without)
            if ranked is None:
                unranked += 1
                continue
            both = np.isin(shown.videos, allowed.first(user, ranked, len(shown.videos)))
            counts = both / shown.propensity
            weight[user] += counts.sum()
            hits[user] += (counts * shown.liked).sum()
            slots[user] += len(shown.videos)
            weights.append((user, counts[both]))
    scale = bounded(weight) / np.where(weight > 0, weight, 1)
    scaled = [scale[user] * each for user, each in weights]
    return Sums(scale * weight, scale * hits, slots, np.concatenate([np.zeros(0), *scaled]), unranked)


def bounded(weight: Floats) -> Floats:
    """The weights of users, none above :data:`MOST_SHARE` of their sum; all equal if there are too few for that."""
    falling = np.sort(weight[weight > 0])[::-1]
    for above, most in enumerate(falling[: round(1 / MOST_SHARE)]):
        # The bound if it applies to the largest ``above``: its share of them and of the rest, which stays.
        bound = MOST_SHARE * falling[above:].sum() / (1 - above * MOST_SHARE)
        if most <= bound:
            return np.minimum(weight, bound)
    return np.minimum(weight, falling.min(initial=np.inf))


def _spread(influence: Floats, *estimates: Sums) -> float | None:
    """Standard deviation of what is estimated from ``estimates``, by the influence of each user; None for too few."""
    users = int(np.logical_or.reduce([sums.slots > 0 for sums in estimates]).sum())
    if users < LEAST_USERS or any((sums.weight > 0).sum() * MOST_SHARE < 1 for sums in estimates):
        return None
    return float(np.sqrt(users / (users - 1) * (influence**2).sum()))


def _interval(value: float, spread: float | None) -> dict[str, float | None]:
    if spread is None or not np.isfinite(value):
        return {"low": None, "high": None}
    return {"low": value - 1.96 * spread, "high": value + 1.96 * spread}


def _figures(sums: Sums) -> dict[str, Any]:
    total = float(sums.weight.sum())
    if not total:
        return {"like_rate": None, "low": None, "high": None, "support": 0.0, "effective": 0.0}
    return {
        "like_rate": sums.rate,
        **_interval(sums.rate, _spread(sums.influence, sums)),
        "support": total / float(sums.slots.sum()),
        "effective": float(sums.weights.sum() ** 2 / (sums.weights**2).sum()),
    }


def _difference(own: Sums, other: Sums) -> dict[str, float | None]:
    if not own.weight.sum() or not other.weight.sum():
        return {"like_rate": None, "low": None, "high": None}
    value = own.rate - other.rate
    return {"like_rate": value, **_interval(value, _spread(own.influence - other.influence, own, other))}


def verdict(found: dict[str, Any]) -> str:
    """The result of a replay, in a sentence."""
    difference = found["difference"]
    if difference is None:
        return "no other version is active to compare it with"
    incumbent = found["incumbent"]["version"]
    if difference["low"] is None:
        return f"too little of what was shown would have been shown by both to compare it with {incumbent}"
    if difference["low"] > 0:
        return f"it would be liked more than {incumbent}"
    if difference["high"] < 0:
        return f"it would be liked less than {incumbent}"
    return f"no difference to {incumbent} that is more than chance"
