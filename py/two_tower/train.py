"""Fit both towers to a :class:`~two_tower.features.TrainingData`.

1. Hold out a part of each user's interactions. On the rest, choose the ridge, the worth of skips and nopes, the
weight of
   what is popular, and how content places an item that is new, each by how well the held-out likes are ranked.
2. Measure the towers so chosen on what was held out, then fit again on everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from scipy import sparse

from . import evaluate
from .features import ITEM_NUMERIC, LIKE, NOPE, SKIP, FeatureSchema, TrainingData, user_counts
from .linear import ContentModel, Factors, HistoryModel, balance, column_sums, to_torch
from .model import INNER, ItemTower, UserTower

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of it done, 0 to 1."""

NUMERIC_WEIGHT = 1.5
"""Standard deviation of a numeric content feature, beside a tag's 0 or 1."""


@dataclass(frozen=True)
class TrainOptions:
    """What a caller may choose; the defaults are meant to hold on any data."""

    seed: int = 0
    val_ratio: float = 0.2
    """Share of each user's interactions held out to choose hyperparameters and to measure; 0 takes the defaults."""
    use_price_feature: bool = False
    """Whether prices take part in placing items; where they change with campaigns, they say little of taste."""
    min_likes: int = 5
    """Users with fewer likes keep all of them in training."""
    k: int = 20
    max_seconds: float = 3600.0
    """After so long no further candidate is tried; what was started is finished."""
    max_users: int = 100_000
    """Users (a random part of them beyond this) from whom the factors are derived. All users are embedded."""
    val_users: int = 1_500
    """Users by whom candidates are compared."""
    measured_users: int = 10_000
    """Users by whom the result is measured."""
    hidden: int = 2048
    """Most hidden units of the item tower."""


@dataclass(frozen=True)
class Choice:
    """Hyperparameters that are chosen by validation, with the values the search starts from."""

    ridge: float = 80.0
    """Of the regression on histories, in likes."""
    skip_target: float = 0.4
    nope_target: float = 0.2
    """What a skipped and a noped video are worth as a target, beside 1 for a liked one: they were watched."""
    popular: float = 0.1
    """Of a mean user's taste, what is added to everyone's."""
    bandwidth: float = 0.5
    """Squared width of the content kernel, in variances of the content."""
    content_ridge: float = 0.1
    """Of the regression of places on content."""
    novelty: float = 0.7
    """Length of a place that only content suggests, beside that of the regression."""
    prior: float = 1.0
    """Likes that what content suggests is worth, beside those a known video has."""


@dataclass
class TrainedModel:
    """Both towers and what they were made of."""

    user_tower: UserTower
    item_tower: ItemTower
    schema: FeatureSchema
    metrics: dict[str, Any]
    """Recommender -> metrics on the validation split: ``two-tower``, by towers that had not seen it, and the
    references. Empty without a split."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry per candidate that was tried, in order."""
    hyperparameters: dict[str, Any] = field(default_factory=dict)

    def normalizer(self) -> dict[str, Any]:
        """``normalizer.json``: the constants that are baked into the graphs."""
        mean, divisor = self.item_tower.mean.tolist(), self.item_tower.divisor.tolist()
        used = self.item_tower.used.tolist()
        return {
            "item_numeric": {
                name: {
                    "transform": "(log1p(x) - mean) / divisor, clipped to 5; 0 is unknown",
                    "mean": m,
                    "divisor": d,
                    "used": bool(u),
                }
                for name, m, d, u in zip(ITEM_NUMERIC, mean, divisor, used, strict=True)
            },
            "output": "L2",
        }


def split(data: TrainingData, *, ratio: float, min_likes: int, seed: int) -> np.ndarray:
    """[n] bool: the rows held out. Per user the latest ``ratio`` of the rows; where all times are equal, a random part.

    Users with fewer than ``min_likes`` likes keep everything.
    """
    rng = np.random.default_rng(seed)
    n = len(data.user)
    order = np.lexsort((rng.random(n), data.time, data.user))
    user = data.user[order]
    count = np.bincount(user, minlength=data.n_users)
    first = np.cumsum(count) - count
    place = np.arange(n) - first[user]  # within the user, oldest first
    likes = np.bincount(data.user[data.label == LIKE], minlength=data.n_users)
    kept = np.where(likes < min_likes, count, np.ceil(count * (1 - ratio)))
    held = np.zeros(n, dtype=bool)
    held[order] = place >= kept[user]
    return held


@torch.no_grad()
def fit(data: TrainingData, options: TrainOptions | None = None, progress: Progress | None = None) -> TrainedModel:
    """Train on ``data``. The same data, options, machine and thread count give the same model, bit for bit."""
    options = options or TrainOptions()
    tell = progress or (lambda what, share: None)
    started = time.monotonic()
    held = split(data, ratio=options.val_ratio, min_likes=options.min_likes, seed=options.seed)
    choice, metrics, history = Choice(), dict[str, Any](), list[dict[str, Any]]()
    if (data.label[held] == LIKE).any():
        tell("reading the histories", 0.0)
        search = _Search(data, held, options, tell, started + options.max_seconds)
        choice, history = search.run()
        tell("measuring", 0.6)
        before = time.monotonic()
        metrics = search.measure(choice)
        started += time.monotonic() - before  # the references are not training
    tell("fitting to everything", 0.7)
    part = Part(data, np.ones(len(data.user), dtype=bool), options)
    user_tower, item_tower = part.towers(choice)
    tell("done", 1.0)
    chosen = (
        asdict(options) | asdict(choice) | {"hidden": len(item_tower.centres), "seconds": time.monotonic() - started}
    )
    return TrainedModel(user_tower, item_tower, data.schema, metrics, history, chosen)


@dataclass(frozen=True)
class Placement:
    """Where the known videos are, and where their content alone would put them."""

    own: torch.Tensor
    """[n_videos, rank]"""
    suggested: torch.Tensor
    """[n_videos, rank], each by a regression that left it out; the mean place where a video is no example"""
    outward: torch.Tensor
    """[hidden, rank]"""
    bias: torch.Tensor
    """[rank]"""


class Part:
    """Interactions to train on, as matrices over users and *known* videos (those with an id of their own)."""

    def __init__(self, data: TrainingData, rows: np.ndarray, options: TrainOptions) -> None:
        self.data, self.options = data, options
        self.likes, self.nopes, self.skips = (data.matrix(label, rows) for label in (LIKE, NOPE, SKIP))
        identity = data.schema.segment("item", "id")
        self.ids = data.item_counts[:, identity.slice].tocsr()  # [n_items, n_videos]
        self.known = [(m @ self.ids).tocsr() for m in (self.likes, self.nopes, self.skips)]  # [n_users, n_videos]
        self.like_count = torch.from_numpy(column_sums(self.known[0])).float()  # [n_videos]
        self.item_tower = ItemTower(data.schema)  # with the normaliser's constants alone
        numeric = torch.from_numpy(data.item_counts[:, : len(ITEM_NUMERIC)].toarray())
        self.item_tower.used[ITEM_NUMERIC.index("price")] = float(options.use_price_feature)
        for i in range(len(ITEM_NUMERIC)):
            present = torch.log1p(numeric[:, i][numeric[:, i] > 0])
            if len(present) > 1 and float(present.std()) > 0:
                self.item_tower.mean[i], self.item_tower.divisor[i] = present.mean(), present.std() / NUMERIC_WEIGHT
        # Content is learned from the best-known videos, as many as fit into memory; centres are the best-known of
        # those.
        width = self.item_tower.stop + len(ITEM_NUMERIC)
        order = torch.argsort(self.like_count, descending=True, stable=True)
        self.examples = order[: min(20_000, max(1_000, 200_000_000 // width))]
        counts = self.ids.T.tocsr()[self.examples.numpy()] @ data.item_counts  # [e, item_dim]
        self.content = self.item_tower.content(torch.from_numpy(counts[:, : self.item_tower.stop].toarray()))
        self.hidden = min(options.hidden, 4_000_000 // width, len(self.examples))
        self._histories: HistoryModel | None = None
        self._content_models: dict[float, ContentModel] = {}

    def factors(self, choice: Choice) -> Factors:
        """Factors over the known videos [n_videos, at most INNER]."""
        n_users, n_videos = self.known[0].shape
        if n_users == 0 or n_videos == 0:
            return Factors(*(torch.zeros(n_videos, 0) for _ in range(3)))
        if self._histories is None:
            used = [m[_sample(n_users, self.options.max_users, self.options.seed)] for m in self.known]
            self._histories = HistoryModel(*used, seed=self.options.seed)
        factors = self._histories.solve(
            choice.ridge, INNER, skip_target=choice.skip_target, nope_target=choice.nope_target
        )
        return balance(factors, self.tastes(factors))

    def tastes(self, factors: Factors) -> torch.Tensor:
        """[n_users, rank], before anything is added for popularity."""
        return to_torch(self.known[0]) @ factors.like + to_torch(self.known[1]) @ factors.nope

    def content_model(self, choice: Choice) -> ContentModel:
        if choice.bandwidth not in self._content_models:
            likes = self.like_count[self.examples].clamp(min=0.3)
            model = ContentModel(self.content, self.content[: self.hidden], likes, bandwidth=choice.bandwidth)
            self._content_models[choice.bandwidth] = model
        return self._content_models[choice.bandwidth]

    def place(self, factors: Factors, content: ContentModel, choice: Choice) -> Placement:
        """Places of the known videos, longest 1, and how content suggests them."""
        own = factors.item / factors.item.norm(dim=1).max().clamp(min=1e-12)  # [n_videos, rank]
        outward, bias, left_out = content.solve(own[self.examples], choice.content_ridge)
        suggested = bias.repeat(len(own), 1)
        suggested[self.examples] = left_out
        return Placement(own, suggested, outward, bias)

    def blend(self, placement: Placement, choice: Choice) -> torch.Tensor:
        """Places of the known videos [n_videos, rank]: the fewer likes one has, the more its content counts."""
        likes = self.like_count[:, None]
        blended = likes * placement.own + choice.prior * choice.novelty * placement.suggested
        return blended / (likes + choice.prior)

    def seen(self) -> sparse.csr_matrix:
        return (self.likes + self.nopes + self.skips).tocsr()

    def embed(self, user_tower: UserTower, item_tower: ItemTower) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors of all users [n_users, DIM], by this part's history alone, and of all items [n_items, DIM]."""
        counts = user_counts(self.data.schema, self.data.item_counts, self.likes, self.nopes)
        return user_tower.embed(counts), item_tower.embed(self.data.item_counts)

    @torch.no_grad()
    def towers(self, choice: Choice, factors: Factors | None = None) -> tuple[UserTower, ItemTower]:
        """Towers whose inner products are the scores of the factors."""
        schema = self.data.schema
        factors = self.factors(choice) if factors is None else factors
        n_videos, rank = factors.item.shape
        user_tower, item_tower = UserTower(schema), ItemTower(schema, self.hidden)
        item_tower.mean, item_tower.divisor = self.item_tower.mean, self.item_tower.divisor
        item_tower.used = self.item_tower.used
        if rank == 0:
            return user_tower, item_tower
        content = self.content_model(choice)
        placement = self.place(factors, content, choice)
        item_tower.own[:, :rank] = self.blend(placement, choice)
        item_tower.bias[:rank] = choice.novelty * placement.bias
        item_tower.outward[: self.hidden, :rank] = choice.novelty * placement.outward
        item_tower.centres[: self.hidden] = self.content[: self.hidden]
        item_tower.square_width.fill_(content.square_width)

        # What a liked video without an id of its own says of a user: the weights of the known, regressed on their
        # counts.
        counts = self.ids.T.tocsr() @ self.data.item_counts[:, len(ITEM_NUMERIC) : self.item_tower.stop]
        features = sparse.hstack([sparse.csr_matrix(np.ones((n_videos, 1))), counts], format="csr", dtype=np.float32)
        weight = sparse.diags((self.like_count / (self.like_count + 30)).numpy())
        gram = torch.from_numpy((features.T @ weight @ features).toarray()).float()
        gram.diagonal().add_(10.0)
        by_content = torch.linalg.solve(gram, to_torch(features.T @ weight) @ factors.like)  # [1 + named counts, rank]
        liked = schema.segment("user", "liked_video_ids").slice
        user_tower.weight[0, :rank] = by_content[0]
        user_tower.weight[schema.segment("user", "liked_tags").offset : liked.start, :rank] = by_content[1:]
        user_tower.weight[liked, :rank] = factors.like - to_torch(features) @ by_content
        user_tower.weight[schema.segment("user", "noped_video_ids").slice, :rank] = factors.nope
        user_tower.bias[:rank] = choice.popular * self.tastes(factors).mean(dim=0)
        return user_tower, item_tower


class _Search:
    """Coordinate-wise search for a :class:`Choice` on held-out likes; features hold nothing of what is held out."""

    def __init__(
        self, data: TrainingData, held: np.ndarray, options: TrainOptions, tell: Progress, deadline: float
    ) -> None:
        self.options, self.tell, self.deadline = options, tell, deadline
        self.part = Part(data, ~held, options)
        self.relevant, self.seen = data.matrix(LIKE, held), self.part.seen()
        users = np.flatnonzero(np.diff(self.relevant.indptr))
        self.users = users[_sample(len(users), options.val_users, options.seed)]
        self.history: list[dict[str, Any]] = []

    def run(self) -> tuple[Choice, list[dict[str, Any]]]:
        """The choice and the log of what was tried."""
        best, factors, score = self._factors(Choice())
        for popular in (0.01, 1.0):
            found = self._factors(replace(best, popular=popular), factors)
            if found[2] > score:
                best, factors, score = found
        best, factors, score = self._climb(best, factors, score)
        if self.part.skips.nnz + self.part.nopes.nnz > 0 and time.monotonic() < self.deadline:
            found = self._factors(replace(best, skip_target=0.0, nope_target=0.0))
            if found[2] > score:
                best, factors, score = found
        self._settled = factors
        tastes = self.part.tastes(factors)
        mean, tastes = tastes.mean(dim=0), tastes[self.users]
        best, placement = self._content(best, tastes + best.popular * mean, factors)

        _, tower = self.part.towers(replace(best, novelty=1.0), factors)
        suggested = tower.suggest(self.part.data.item_counts)[:, : factors.item.shape[1]]  # [n_items, rank]
        item, video = self.part.ids.nonzero()

        def catalogue(choice: Choice) -> tuple[torch.Tensor, torch.Tensor]:
            places = choice.novelty * suggested
            places[item] = self.part.blend(placement, choice)[video]
            return tastes + choice.popular * mean, places

        for name, values in (
            ("novelty", (1.0, 0.7, 0.5)),
            ("prior", (0.1, 1.0, 10.0)),
            ("popular", (0.01, 0.1, 0.5, 2.0, 8.0)),
        ):
            if time.monotonic() < self.deadline:
                choices = [replace(best, **{name: value}) for value in values]
                best = max(choices, key=lambda choice: self._score(choice, *catalogue(choice), whole=True))
        return best, self.history

    def measure(self, choice: Choice) -> dict[str, Any]:
        """Metrics of the towers on all held-out likes, beside those of the references."""
        users, items = self.part.embed(*self.part.towers(choice, self._settled))
        k, seed = self.options.k, self.options.seed
        references, left_out = evaluate.references(self.part.likes, seed)
        scorers = {"two-tower": evaluate.by_vectors(users, items)} | references
        asked = np.flatnonzero(np.diff(self.relevant.indptr))
        asked = asked[_sample(len(asked), self.options.measured_users, seed)]
        chosen = sparse.diags(np.isin(np.arange(len(users)), asked).astype(np.float32))
        relevant = (chosen @ self.relevant).tocsr()
        relevant.eliminate_zeros()
        report = evaluate.report(scorers, self.part.likes, self.seen, relevant, k=k, seed=seed)
        return report | ({"left_out": left_out} if left_out else {})

    def _climb(self, best: Choice, factors: Factors, score: float) -> tuple[Choice, Factors, float]:
        """Halve or double the ridge while that helps."""
        for step in (0.5, 2.0):
            moved = False
            while 1 < best.ridge < 10_000 and time.monotonic() < self.deadline:
                found = self._factors(replace(best, ridge=best.ridge * step))
                if found[2] <= score:
                    break
                (best, factors, score), moved = found, True
            if moved:
                break
        return best, factors, score

    def _factors(self, choice: Choice, factors: Factors | None = None) -> tuple[Choice, Factors, float]:
        factors = self.part.factors(choice) if factors is None else factors
        tastes = self.part.tastes(factors)
        tastes = tastes[self.users] + choice.popular * tastes.mean(dim=0)
        return choice, factors, self._score(choice, tastes, factors.item)

    def _content(self, best: Choice, tastes: torch.Tensor, factors: Factors) -> tuple[Choice, Placement]:
        """How content places an item, judged by leaving each item out: as if each in turn were new."""
        top, placement, chosen = -1.0, None, best
        for bandwidth, ridge in ((0.5, 0.1), (1.0, 0.1), (0.0, 0.4)):
            if placement is not None and time.monotonic() > self.deadline:
                break
            choice = replace(chosen, bandwidth=bandwidth or chosen.bandwidth, content_ridge=ridge)
            found = self.part.place(factors, self.part.content_model(choice), choice)
            score = self._score(choice, tastes, found.suggested)
            if score > top:
                top, chosen, placement = score, choice, found
        assert placement is not None
        return chosen, placement

    def _score(self, choice: Choice, tastes: torch.Tensor, places: torch.Tensor, *, whole: bool = False) -> float:
        """Recall@k + NDCG@k of tastes [u, rank] against places of the known videos or of the whole catalogue."""
        scorer, k = evaluate.by_vectors(tastes.numpy(), places.numpy()), self.options.k
        relevant, seen = (m[self.users] for m in (self.relevant, self.seen))
        if not whole:
            relevant, seen = (relevant @ self.part.ids).tocsr(), (seen @ self.part.ids).tocsr()
        mean = evaluate.rank(scorer, relevant, seen, k=k, auc=False).mean()
        self.history.append({"whole": whole} | asdict(choice) | mean)
        self.tell(f"trying candidate {len(self.history)}", min(0.6, 0.02 * len(self.history)))
        return mean[f"recall@{k}"] + mean[f"ndcg@{k}"]


def _sample(n: int, most: int, seed: int) -> np.ndarray:
    """At most ``most`` of ``range(n)``, in order."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))
