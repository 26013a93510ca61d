"""Fit both towers to a :class:`~two_tower.features.TrainingData`.

1. Hold out a part of each user's interactions, the newest where times differ, or all from one point in time on. On the
   rest, choose from what the factors come, the ridge, the worth of skips and nopes, how many neighbours a video has,
   how much more newer decisions count, the weight of what is popular, and how content places an item that is new, each
   by how well the whole score ranks the held-out likes.
2. Where asked to, or where the closed form does not reach, go on by gradients (:mod:`two_tower.trainer.gradient`) and
   keep the epoch that ranks them best, which may be none.
3. Measure the towers so chosen on what was held out, then fit again on everything.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from scipy import sparse

from two_tower.errors import UserError
from two_tower.features import ITEM_NUMERIC, LIKE, NOPE, SKIP, FeatureSchema, TrainingData, user_counts
from two_tower.progress import Progress
from two_tower.trainer import evaluate, gradient, items, search
from two_tower.trainer.gradient import Examples, Processes, Recipe
from two_tower.trainer.linear import ContentModel, Factors, HistoryModel, balance, column_sums, to_torch, truncated
from two_tower.trainer.model import INNER, ItemTower, UserTower

NUMERIC_WEIGHT = 1.5
"""Standard deviation of a numeric content feature, beside a tag's 0 or 1."""

MEASURED = 200_000_000
"""Scores of users and items that are ranked to measure a recommender, where 2,000 users have fewer."""

CLOSED_FORM = 100_000
"""Videos with an input of their own up to which the closed form is solved: it holds several matrices of these x 1,024.
Beyond, training starts from a truncated factorisation and goes on by gradients."""

HISTORIES = 15_000
"""Videos up to which factors may come from the spectrum of the histories: where there are more, most of them are
watched by few, and of these the leading values say nothing."""

NEIGHBOURS = (10, 20, 50)
"""Neighbours that a video may have, at most."""

RECENCY = (0.25, 0.5, 0.75, 1.0, 1.5)
"""Exponents of recency that are tried where times differ."""

SURE = 2.0
"""Standard errors of the difference by which more must be better than less."""

SURE_SCORES = 60_000_000
"""Scores by which that is decided, where they are of more users than :attr:`TrainOptions.val_users`."""

SURE_USERS = 6_000
"""Most users by whom it is."""


@dataclass(frozen=True)
class TrainOptions:
    """What a caller may choose; the defaults are meant to hold on any data."""

    seed: int = 0
    val_ratio: float = 0.2
    """Share of each user's interactions held out to choose hyperparameters and to measure; 0 takes the defaults."""
    split: str = "user"
    """``user``: of each user's interactions, the latest; ``temporal``: everybody's from one point in time on."""
    epochs: int | None = None
    """Of gradients after the closed form, at most; None takes none where the closed form reaches, else 10."""
    loss: str = "softmax"
    """Of the gradients: ``softmax`` or ``bce``."""
    neg_per_pos: int | None = None
    """Items that a user is not known to know, drawn per like as negatives of the gradients; None takes 4."""
    search: int = 0
    """Trials of the hyperparameter search, in all runs on one study; 0 takes what the search in steps finds."""
    search_timeout: float | None = None
    """Seconds after which no further trial begins."""
    study: str = "two-tower-study.sqlite"
    """File in which the search keeps its trials, so that the same search goes on."""
    use_price_feature: bool = False
    """Whether prices take part in placing items; where they change with campaigns, they say little of taste."""
    min_likes: int = 5
    """Users with fewer likes keep all of them in training."""
    k: int = 20
    max_seconds: float = 3600.0
    """After so long no further candidate is tried; what was started is finished."""
    max_users: int = 20_000
    """Users (a random part of them beyond this) from whom the factors are derived. All users are embedded."""
    search_users: int = 20_000
    """Users (a random part of them beyond this) from whom the factors of a candidate are derived."""
    val_users: int = 1_500
    """Users by whom candidates are compared."""
    measured_users: int = 10_000
    """Most users by whom the result is measured; fewer where the catalogue is large."""
    hidden: int = 2048
    """Most hidden units of the item tower."""

    def recipe(self, data: TrainingData) -> Recipe | None:
        """How to go on by gradients; None where the closed form is all."""
        reached = len(data.schema.vocabularies["video"]) <= CLOSED_FORM
        epochs = (0 if reached else Recipe.epochs) if self.epochs is None else self.epochs
        drawn = Recipe.neg_per_pos if self.neg_per_pos is None else self.neg_per_pos
        return Recipe(epochs, self.loss, neg_per_pos=drawn, seed=self.seed) if epochs else None


@dataclass(frozen=True)
class Choice:
    """Hyperparameters that are chosen by validation, with the values the search starts from."""

    user_power: float = 0.4
    """A user's row weighs ``like_count ** -user_power`` in the regression."""
    nope_input: float = 0.5
    """What a nope weighs among the inputs, beside 1 for a like."""
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
    hint: float = 0.0
    """Likes that a video has for what its content says of those who like it, beside what itself says of them."""
    source: str = "histories"
    """Of the factors: ``histories`` (:class:`HistoryModel`) or ``items`` (:func:`items.factors`)."""
    item_ridge: float = 150.0
    """Of the regression between videos, in likes; 0 counts who likes both instead (:func:`items.tables`)."""
    item_users: float = 0.4
    """A user's row weighs ``like_count ** -item_users`` there."""
    item_power: float = 0.25
    """The ridge there grows with ``like_count ** (2 item_power)`` of a video."""
    neighbours: int = 0
    """Videos to whose score a like adds beside what the towers say; 0 is none."""
    recency: float = 0.0
    """Exponent of :func:`two_tower.features.recency_weights`."""


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
    neighbours: sparse.csr_matrix | None = None
    """[videos, videos] over the vocabulary: what liking the row's video adds to the score of the column's."""

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


def split_in_time(data: TrainingData, *, ratio: float) -> np.ndarray:
    """[n] bool: the rows held out, all from one point in time on: that of the newest ``ratio`` of likes and nopes.

    What happened at that very time is on one side of it; an unknown time is before it. Raises UserError where there is
    no such point.
    """
    times = np.sort(data.time[data.label != SKIP])
    later = times[times > times[0]] if len(times) else times
    if len(later) == 0:
        raise UserError(
            "there is no point in time to split at: all likes and nopes have the same time, or none",
            "import decisions or reviews with created_at, or split by user: --split user",
        )
    return data.time >= max(times[min(int(np.ceil(len(times) * (1 - ratio))), len(times) - 1)], later[0])


@torch.no_grad()
def fit(
    data: TrainingData,
    options: TrainOptions | None = None,
    progress: Progress | None = None,
    processes: Processes | None = None,
) -> TrainedModel:
    """Train on ``data``. The same data, options, machine and thread count give the same model, bit for bit.

    Raises UserError where ``data`` cannot be split in time and are to be. Of several ``processes``, rank 0 calls this.
    """
    options = options or TrainOptions()
    processes = processes or Processes()
    tell = progress or (lambda what, share: None)
    started = time.monotonic()
    deadline = started + options.max_seconds
    if options.split == "temporal":
        held = split_in_time(data, ratio=options.val_ratio)
    else:
        held = split(data, ratio=options.val_ratio, min_likes=options.min_likes, seed=options.seed)
    # Whoever has no history before a point in time is left out: nothing is known that could predict.
    asked = held & np.isin(data.user, data.user[~held])
    measurable = bool((data.label[asked] == LIKE).any() and (data.label[~held] == LIKE).any())
    if options.split == "temporal" and not measurable:
        raise UserError(
            "nobody with a history before the point in time liked anything after it",
            "hold out more with --val-ratio, or split by user: --split user",
        )
    choice, recipe, metrics, history = Choice(), options.recipe(data), dict[str, Any](), list[dict[str, Any]]()
    best_epoch, searched, guess = recipe.epochs if recipe else 0, dict[str, Any](), None
    if measurable:
        tell("reading the histories", 0.0)
        trials = _Search(data, held, asked, options, tell, deadline, processes)
        choice = trials.run(by_gradients=recipe is not None)
        if options.search:
            choice, recipe, searched = trials.tune(choice, recipe)
        tell("fitting what is measured", 0.6)
        user_tower, item_tower, neighbours, best_epoch, scores = trials.fitted(choice, recipe)
        if best_epoch and neighbours is not None:
            # What the factors left is not what other towers leave: with gradients there are no neighbours.
            closed = trials.fitted(choice, None)
            if trials.judge(*closed[:3], choice.recency) >= max(scores):
                user_tower, item_tower, neighbours, best_epoch, _ = closed
            else:
                choice, neighbours = replace(choice, neighbours=0), None
        tell("measuring", 0.65)
        before = time.monotonic()
        metrics, history = trials.measure(user_tower, item_tower, neighbours, choice.recency), trials.history
        started += time.monotonic() - before  # the references are not training
        guess = trials.part.guess
        del trials, user_tower, item_tower, neighbours
    tell("fitting to everything", 0.7)
    part = Part(data, np.ones(len(data.user), dtype=bool), options, guess)
    factors = part.factors(choice)
    user_tower, item_tower = part.towers(choice, factors)
    neighbours = part.neighbours(choice, factors)
    if recipe and best_epoch:
        tell(f"{best_epoch} epochs", 0.8)
        gradient.train(user_tower, item_tower, part.examples(), recipe, until=best_epoch, processes=processes)
    tell("done", 1.0)
    chosen = asdict(options) | asdict(choice) | {"hidden": len(item_tower.centres)} | searched
    del chosen["study"]  # a path of this machine
    if recipe:
        chosen |= {"gradient": asdict(recipe), "best_epoch": best_epoch}
    chosen["held_out"] = _held_out(data, held, options.split)
    if options.split == "temporal":
        chosen["split_at"] = datetime.fromtimestamp(data.time[held].min(), UTC).isoformat()
    chosen["seconds"] = time.monotonic() - started
    schema = replace(data.schema, recency=choice.recency)
    return TrainedModel(user_tower, item_tower, schema, metrics, history, chosen, neighbours)


def _held_out(data: TrainingData, held: np.ndarray, split: str) -> str:
    """What the metrics were measured on, in words."""
    if split == "temporal":
        return "all from one point in time on"
    return "the newest of each user" if data.places()[~held].any() else "a random part of each user's"


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

    def __init__(
        self, data: TrainingData, rows: np.ndarray, options: TrainOptions, guess: torch.Tensor | None = None
    ) -> None:
        """``guess``: the :attr:`guess` of another part of the same data, which saves time."""
        self.data, self.options, self.rows = data, options, rows
        self.likes, self.nopes, self.skips = (data.matrix(label, rows) for label in (LIKE, NOPE, SKIP))
        # A key that nobody liked in these rows was not in the vocabulary when they were all that was known.
        liked = column_sums(sparse.diags(column_sums(self.likes)) @ data.item_counts) > 0
        liked[: len(ITEM_NUMERIC)] = True
        self.item_counts = (data.item_counts @ sparse.diags(liked.astype(np.float32))).tocsr()  # [n_items, item_dim]
        self.item_counts.eliminate_zeros()
        identity = data.schema.segment("item", "id")
        self.ids = self.item_counts[:, identity.slice].tocsr()  # [n_items, n_videos]
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
        order = order[: int((self.like_count > 0).sum())]
        self.taught = order[: min(20_000, max(1_000, 200_000_000 // width))]
        counts = self.ids.T.tocsr()[self.taught.numpy()] @ self.item_counts  # [e, item_dim]
        self.content = self.item_tower.content(torch.from_numpy(counts[:, : self.item_tower.stop].toarray()))
        self.hidden = min(options.hidden, 4_000_000 // width, len(self.taught))
        self.guess = guess  # axes of the first spectrum that was found, from which others are found sooner
        self._histories: tuple[Any, HistoryModel] | None = None
        self._solved: dict[Any, Factors] = {}  # the last of them, by what they depend on
        self._content_models: dict[float, ContentModel] = {}
        self._placed: tuple[Factors | None, dict[Any, Placement]] = None, {}  # of the last factors, by how
        self._table: tuple[Any, items.Table] | None = None  # the last, with what it depends on
        self._weighted: tuple[float, tuple[sparse.csr_matrix, sparse.csr_matrix]] = 0.0, (self.likes, self.nopes)

    def factors(self, choice: Choice, most: int | None = None) -> Factors:
        """Factors over the known videos [n_videos, at most INNER], from at most ``most`` users."""
        n_users, n_videos = self.known[0].shape
        if len(self.taught) == 0:
            return Factors(*(torch.zeros(n_videos, 0) for _ in range(3)))
        if n_videos > CLOSED_FORM:
            factors = truncated(self.known[0], INNER, user_power=choice.user_power, seed=self.options.seed)
            return balance(factors, self.tastes(factors))
        if choice.source == "items":
            key = self._table_key(choice)
            if key not in self._solved:
                factors = self._of_items(choice)
                self._solved[key] = balance(factors, self.tastes(factors))
            return self._solved[key]
        users = min(n_users, self.options.max_users if most is None else most)
        spectrum = users, choice.user_power, choice.nope_input
        solution = *spectrum, choice.ridge, choice.skip_target, choice.nope_target
        if solution in self._solved:
            return self._solved[solution]
        if self._histories is None or self._histories[0] != spectrum:
            used = [m[_sample(n_users, users, self.options.seed)] for m in self.known]
            self._histories = None  # its memory goes to the next
            model = HistoryModel(
                *used,
                user_power=choice.user_power,
                nope_input=choice.nope_input,
                seed=self.options.seed,
                start=self.guess,
            )
            self.guess = model.inputs if self.guess is None else self.guess
            self._histories = spectrum, model
        factors = self._histories[1].solve(
            choice.ridge, INNER, skip_target=choice.skip_target, nope_target=choice.nope_target
        )
        self._solved = dict(list(self._solved.items())[-7:])
        self._solved[solution] = balance(factors, self.tastes(factors))
        return self._solved[solution]

    def _of_items(self, choice: Choice) -> Factors:
        if self.known[0].shape[1] <= items.LOCAL:
            return items.factors(self.table(choice), self.known[0], INNER, seed=self.options.seed)
        return items.spectral(
            self.known[0],
            INNER,
            ridge=choice.item_ridge,
            user_power=choice.item_users,
            item_power=choice.item_power,
            seed=self.options.seed,
        )

    @staticmethod
    def _table_key(choice: Choice) -> tuple[float, float, float]:
        return choice.item_ridge, choice.item_users, choice.item_power

    def table(self, choice: Choice) -> items.Table:
        """What a like of each known video says of every other."""
        key = self._table_key(choice)
        if self._table is None or self._table[0] != key:
            self._table = None  # its memory goes to the next
            (found,) = items.tables(
                self.known[0], [choice.item_ridge], user_power=choice.item_users, item_power=choice.item_power
            )
            self._table = key, found
        return self._table[1]

    def neighbours(self, choice: Choice, factors: Factors) -> sparse.csr_matrix | None:
        """[n_videos, n_videos] what the factors leave of the table, on the scale of :meth:`place`; None for nothing."""
        if not choice.neighbours or factors.item.shape[1] == 0:
            return None
        found = items.residual(
            self.table(choice), factors, self.known[0], choice.neighbours, seed=self.options.seed
        ) / float(factors.item.norm(dim=1).max().clamp(min=1e-12))
        return found.tocsr().astype(np.float32) if found.nnz else None

    def history(self, recency: float) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """[n_users, n_items] what likes and nopes weigh."""
        if self._weighted[0] != recency:
            self._weighted = (
                recency,
                (
                    self.data.matrix(LIKE, self.rows, recency),
                    self.data.matrix(NOPE, self.rows, recency),
                ),
            )
        return self._weighted[1]

    def examples(self) -> Examples:
        """What the gradients learn from."""
        return Examples(self.data.schema, self.item_counts, self.likes, self.nopes, self.skips)

    def content_says(self, factors: Factors) -> tuple[sparse.csr_matrix, torch.Tensor]:
        """What a liked video says of a user by its content alone: ``features @ weights``.

        The features of the known videos [n_videos, 1 + named counts], the first of them 1, and weights of each
        [1 + named counts, rank], regressed on what these videos say themselves.
        """
        counts = self.ids.T.tocsr() @ self.item_counts[:, len(ITEM_NUMERIC) : self.item_tower.stop]
        ones = sparse.csr_matrix(np.ones((counts.shape[0], 1)))
        features = sparse.hstack([ones, counts], format="csr", dtype=np.float32)
        weight = sparse.diags((self.like_count / (self.like_count + 30)).numpy())
        gram = torch.from_numpy((features.T @ weight @ features).toarray()).float()
        gram.diagonal().add_(10.0)
        return features, torch.linalg.solve(gram, to_torch(features.T @ weight) @ factors.like)

    def hinted(self, factors: Factors, said: torch.Tensor, choice: Choice) -> Factors:
        """The same factors, but the fewer likes a video has, the more counts what its content says [n_videos, rank]."""
        likes = self.like_count[:, None]
        return replace(factors, like=(likes * factors.like + choice.hint * said) / (likes + choice.hint).clamp(min=1))

    def tastes(self, factors: Factors, recency: float = 0.0) -> torch.Tensor:
        """[n_users, rank], before anything is added for popularity."""
        likes, nopes = (m @ self.ids for m in self.history(recency)) if recency else self.known[:2]
        return to_torch(likes) @ factors.like + to_torch(nopes) @ factors.nope

    def content_model(self, choice: Choice) -> ContentModel:
        if choice.bandwidth not in self._content_models:
            likes = self.like_count[self.taught].clamp(min=0.3)
            model = ContentModel(self.content, self.content[: self.hidden], likes, bandwidth=choice.bandwidth)
            self._content_models[choice.bandwidth] = model
        return self._content_models[choice.bandwidth]

    def place(self, factors: Factors, choice: Choice) -> Placement:
        """Places of the known videos, longest 1, and how content suggests them."""
        if self._placed[0] is not factors:
            self._placed = factors, {}
        placed, how = self._placed[1], (choice.bandwidth, choice.content_ridge)
        if how not in placed:
            own = factors.item / factors.item.norm(dim=1).max().clamp(min=1e-12)  # [n_videos, rank]
            content = self.content_model(choice)
            outward, bias, left_out = content.solve(own[self.taught], choice.content_ridge)
            suggested = bias.repeat(len(own), 1)
            suggested[self.taught] = left_out
            placed[how] = Placement(own, suggested, outward, bias)
        return placed[how]

    def blend(self, placement: Placement, choice: Choice) -> torch.Tensor:
        """Places of the known videos [n_videos, rank]: the fewer likes one has, the more its content counts."""
        likes = self.like_count[:, None]
        blended = likes * placement.own + choice.prior * choice.novelty * placement.suggested
        return blended / (likes + choice.prior)

    def seen(self) -> sparse.csr_matrix:
        return (self.likes + self.nopes + self.skips).tocsr()

    def scorer(
        self,
        user_tower: UserTower,
        item_tower: ItemTower,
        users: np.ndarray,
        neighbours: sparse.csr_matrix | None = None,
        recency: float = 0.0,
    ) -> evaluate.Scorer:
        """Whole scores of ``users`` [u], by this part's history alone, for all items."""
        likes, nopes = (m[users] for m in self.history(recency))
        counts = user_counts(self.data.schema, self.item_counts, likes, nopes)
        found = evaluate.by_vectors(user_tower.embed(counts), item_tower.embed(self.item_counts))
        if neighbours is None:
            return found
        across = self.ids @ neighbours @ self.ids.T
        return evaluate.with_neighbours(found, likes, across, user_tower.length(counts))

    @torch.no_grad()
    def towers(self, choice: Choice, factors: Factors | None = None) -> tuple[UserTower, ItemTower]:
        """Towers whose inner products are the scores of the factors."""
        schema = self.data.schema
        factors = self.factors(choice) if factors is None else factors
        rank = factors.item.shape[1]
        user_tower, item_tower = UserTower(schema), ItemTower(schema, self.hidden)
        item_tower.mean, item_tower.divisor = self.item_tower.mean, self.item_tower.divisor
        item_tower.used = self.item_tower.used
        if rank == 0:
            return user_tower, item_tower
        content = self.content_model(choice)
        placement = self.place(factors, choice)
        item_tower.own[:, :rank] = self.blend(placement, choice)
        item_tower.bias[:rank] = choice.novelty * placement.bias
        item_tower.outward[: self.hidden, :rank] = choice.novelty * placement.outward
        item_tower.centres[: self.hidden] = self.content[: self.hidden]
        item_tower.square_width.fill_(content.square_width)

        # A liked video without an id of its own speaks by its content; one with an id, by the difference to that.
        features, by_content = self.content_says(factors)
        said = to_torch(features) @ by_content
        factors = self.hinted(factors, said, choice)
        liked = schema.segment("user", "liked_video_ids").slice
        user_tower.weight[0, :rank] = by_content[0]
        user_tower.weight[schema.segment("user", "liked_tags").offset : liked.start, :rank] = by_content[1:]
        user_tower.weight[liked, :rank] = factors.like - said
        user_tower.weight[schema.segment("user", "noped_video_ids").slice, :rank] = factors.nope
        user_tower.bias[:rank] = choice.popular * self.tastes(factors, choice.recency).mean(dim=0)
        return user_tower, item_tower


class _Search:
    """Search for a :class:`Choice`, and a recipe, on held-out likes; features hold nothing of what is held out."""

    def __init__(
        self,
        data: TrainingData,
        held: np.ndarray,
        asked: np.ndarray,
        options: TrainOptions,
        tell: Progress,
        deadline: float,
        processes: Processes,
    ) -> None:
        """``held`` [n]: rows unknown to the features; ``asked`` [n]: those of them whose likes are to be found."""
        self.options, self.tell, self.deadline, self.processes = options, tell, deadline, processes
        self.part = Part(data, ~held, options)
        self.relevant, self.seen = data.matrix(LIKE, asked), self.part.seen()
        users = np.flatnonzero(np.diff(self.relevant.indptr))
        self.users = users[_sample(len(users), options.val_users, options.seed)]
        many = max(options.val_users, min(SURE_USERS, SURE_SCORES // max(data.n_items, 1)))
        self.many = users[_sample(len(users), many, options.seed)]
        self.history: list[dict[str, Any]] = []

    def run(self, *, by_gradients: bool = False) -> Choice:
        """The choice that steps along one coordinate after the other lead to; without recency for gradients."""
        found = self._sources()
        in_time = not by_gradients and bool(self.part.data.places(self.part.rows).any())
        if in_time and time.monotonic() < self.deadline:
            alone = max(found, key=lambda each: self._known(each[0], each[1], None).mean())
            recency = self._recency(alone[0], alone[1], None).recency
            found = [(replace(choice, recency=recency), factors) for choice, factors in found]
        best, factors, near = self._neighbours(found)
        if in_time and near is not None and time.monotonic() < self.deadline:
            best = self._recency(best, factors, near)
        tastes = self.part.tastes(factors, best.recency)
        best, placement = self._content(best, tastes[self.users] + best.popular * tastes.mean(dim=0), factors)

        _, tower = self.part.towers(replace(best, novelty=1.0), factors)
        suggested = tower.suggest(self.part.item_counts)[:, : factors.item.shape[1]]  # [n_items, rank]
        item, video = self.part.ids.nonzero()
        features, weights = self.part.content_says(factors)
        said = to_torch(features) @ weights

        def catalogue(choice: Choice) -> tuple[torch.Tensor, torch.Tensor]:
            places = choice.novelty * suggested
            places[item] = self.part.blend(placement, choice)[video]
            tastes = self.part.tastes(self.part.hinted(factors, said, choice), choice.recency)
            return tastes[self.users] + choice.popular * tastes.mean(dim=0), places

        scores: dict[Choice, float] = {}
        for name, values in (
            ("novelty", (1.0, 0.7, 0.5)),
            ("hint", (0.0, 3.0, 30.0, 300.0)),
            ("prior", (0.1, 1.0, 10.0, 50.0)),
            ("popular", (0.01, 0.1, 0.5, 2.0, 8.0)),
        ):
            if time.monotonic() < self.deadline:
                changes: list[dict[str, Any]] = [{name: value} for value in values]
                for choice in (replace(best, **change) for change in changes):
                    if choice not in scores:
                        scores[choice] = self._score(choice, *catalogue(choice), near, whole=True)
                best = max(scores, key=lambda choice: scores[choice])
        return best

    def _sources(self) -> list[tuple[Choice, Factors]]:
        """The best factors from the histories, where their spectrum says enough, and those from the items."""
        found, n_videos = [], self.part.known[0].shape[1]
        if n_videos > CLOSED_FORM:
            return [(Choice(), self.part.factors(Choice()))]
        if n_videos <= HISTORIES:
            found.append(self._from_histories())
            if time.monotonic() > self.deadline:
                return found
        items_choice = self._from_items()
        factors = self.part.factors(items_choice)
        beside = [
            replace(
                choice,
                item_ridge=items_choice.item_ridge,
                item_users=items_choice.item_users,
                item_power=items_choice.item_power,
            )
            for choice, _ in found
        ]
        return [*zip(beside, (factors for _, factors in found), strict=True), (items_choice, factors)]

    def _from_histories(self) -> tuple[Choice, Factors]:
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
        return best, factors

    def _from_items(self) -> Choice:
        """The table that ranks best by itself."""
        tried: dict[Choice, float] = {}
        start, n_videos = Choice(source="items"), self.part.known[0].shape[1]
        plans: list[tuple[float, float, tuple[float, ...]]] = []
        if n_videos <= items.LOCAL:
            plans += [(0.4, power, (50.0, 150.0, 500.0)) for power in (0.25, 0.0)]
        if n_videos > items.EXACT:
            plans += [(0.75, power, (0.0,)) for power in (0.5, 0.4)]
        for users, power, ridges in plans:
            if tried and time.monotonic() > self.deadline:
                break
            candidates = [replace(start, item_users=users, item_power=power, item_ridge=ridge) for ridge in ridges]
            found = items.tables(self.part.known[0], ridges, user_power=users, item_power=power)
            for choice, table in zip(candidates, found, strict=True):
                tried[choice] = self._of_table(choice, table)
        return max(tried, key=lambda choice: tried[choice])

    def _of_table(self, choice: Choice, table: items.Table) -> float:
        likes = self.part.known[0][self.users]
        return float(self._values(choice, lambda rows: items.scores(table, likes[rows]), self.users).mean())

    def _neighbours(self, found: list[tuple[Choice, Factors]]) -> tuple[Choice, Factors, sparse.csr_matrix | None]:
        """The factors, and how many neighbours beside them; none unless they pay."""
        alone, beside = [], []
        for choice, factors in found:
            alone.append((self._known(choice, factors, None), choice, factors, None))
            if time.monotonic() > self.deadline or not 0 < factors.item.shape[1] < len(factors.item) <= CLOSED_FORM:
                continue
            near = self.part.neighbours(replace(choice, neighbours=NEIGHBOURS[-1]), factors)
            for most in NEIGHBOURS if near is not None else ():
                some = items.strongest(near, most)
                values = self._known(replace(choice, neighbours=most), factors, some)
                beside.append((values, replace(choice, neighbours=most), factors, some))
        best = max(alone, key=lambda each: each[0].mean())
        if beside:
            better = max(beside, key=lambda each: each[0].mean())
            best = better if _surely(better[0] - best[0]) else best
        return best[1:]

    def _recency(self, best: Choice, factors: Factors, near: sparse.csr_matrix | None) -> Choice:
        """How much more newer decisions count; as it is unless that pays."""
        level = self._known(best, factors, near)
        tried = {recency: self._known(replace(best, recency=recency), factors, near) for recency in (0.0, *RECENCY)}
        recency = max(tried, key=lambda each: tried[each].mean())
        return replace(best, recency=recency) if _surely(tried[recency] - level) else best

    def tune(self, start: Choice, recipe: Recipe | None) -> tuple[Choice, Recipe | None, dict[str, Any]]:
        """The best of the study's trials, the first of which is ``start``, and what to note of the search."""

        def trial(choice: Choice, recipe: Recipe | None) -> float:
            user_tower, item_tower, near, _, scores = self.fitted(choice, recipe, self.options.search_users)
            return max(scores) if scores else self.judge(user_tower, item_tower, near, choice.recency)

        return search.tune(trial, start, recipe, self.part.data, self.options, self.tell)

    def fitted(
        self, choice: Choice, recipe: Recipe | None, most: int | None = None
    ) -> tuple[UserTower, ItemTower, sparse.csr_matrix | None, int, list[float]]:
        """Towers that know nothing of what is held out, neighbours beside them before any gradient, the epoch that is
        kept of the towers' training, and its scores, which are of the towers alone."""
        factors = self.part.factors(choice, most)
        user_tower, item_tower = self.part.towers(choice, factors)
        near = self.part.neighbours(choice, factors)
        if recipe is None:
            return user_tower, item_tower, near, 0, []

        def tell(epoch: int) -> bool:
            self.tell(f"epoch {epoch}", 0.6)
            return time.monotonic() < self.deadline

        best, scores = gradient.train(
            user_tower,
            item_tower,
            self.part.examples(),
            recipe,
            score=self.judge,
            processes=self.processes,
            tell=tell,
        )
        self.history += [{"epoch": epoch, "score": score} for epoch, score in enumerate(scores)]
        return user_tower, item_tower, near, best, scores

    def judge(
        self,
        user_tower: UserTower,
        item_tower: ItemTower,
        neighbours: sparse.csr_matrix | None = None,
        recency: float = 0.0,
    ) -> float:
        """Recall@k + NDCG@k by the users of the search on the whole catalogue."""
        scorer = self.part.scorer(user_tower, item_tower, self.users, neighbours, recency)
        k, relevant, seen = self.options.k, self.relevant[self.users], self.seen[self.users]
        mean = evaluate.rank(scorer, relevant, seen, k=k, auc=False).mean()
        return mean[f"recall@{k}"] + mean[f"ndcg@{k}"]

    def measure(
        self, user_tower: UserTower, item_tower: ItemTower, neighbours: sparse.csr_matrix | None, recency: float
    ) -> dict[str, Any]:
        """Metrics of what :meth:`fitted` answers on all held-out likes, beside those of the references."""
        n_users, n_items = self.seen.shape
        k, seed = self.options.k, self.options.seed
        references, left_out = evaluate.references(self.part.likes, seed)
        whole = self.part.scorer(user_tower, item_tower, np.arange(n_users), neighbours, recency)
        scorers = {"two-tower": whole} | references
        asked = np.flatnonzero(np.diff(self.relevant.indptr))
        most = min(self.options.measured_users, max(2_000, MEASURED // n_items))
        asked = asked[_sample(len(asked), most, seed)]
        chosen = sparse.diags(np.isin(np.arange(n_users), asked).astype(np.float32))
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
        factors = self.part.factors(choice, self.options.search_users) if factors is None else factors
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
            found = self.part.place(factors, choice)
            score = self._score(choice, tastes, found.suggested)
            if score > top:
                top, chosen, placement = score, choice, found
        assert placement is not None
        return chosen, placement

    def _known(self, choice: Choice, factors: Factors, near: sparse.csr_matrix | None) -> np.ndarray:
        """[u] Recall@k + NDCG@k of many users among the known videos, as the factors place them."""
        tastes = self.part.tastes(factors, choice.recency)
        tastes = tastes[self.many] + choice.popular * tastes.mean(dim=0)
        own = factors.item / factors.item.norm(dim=1).max().clamp(min=1e-12)
        return self._values(choice, self._scorer(choice, tastes, own, near, self.many), self.many)

    def _score(
        self,
        choice: Choice,
        tastes: torch.Tensor,
        places: torch.Tensor,
        near: sparse.csr_matrix | None = None,
        *,
        whole: bool = False,
    ) -> float:
        """Recall@k + NDCG@k of tastes [u, rank] against places of the known videos or of the whole catalogue."""
        scorer = self._scorer(choice, tastes, places, near, self.users, whole=whole)
        return float(self._values(choice, scorer, self.users, whole=whole).mean())

    def _scorer(
        self,
        choice: Choice,
        tastes: torch.Tensor,
        places: torch.Tensor,
        near: sparse.csr_matrix | None,
        users: np.ndarray,
        *,
        whole: bool = False,
    ) -> evaluate.Scorer:
        """Whole scores of ``users``, whose tastes these are, times the length of the taste."""
        towers = evaluate.by_vectors(tastes.numpy(), places.numpy())
        if near is None:
            return towers
        likes = self.part.history(choice.recency)[0][users] @ self.part.ids
        return evaluate.with_neighbours(towers, likes, near @ self.part.ids.T if whole else near)

    def _values(self, choice: Choice, scorer: evaluate.Scorer, users: np.ndarray, *, whole: bool = False) -> np.ndarray:
        """Recall@k + NDCG@k of those ``users`` who have something to find."""
        k = self.options.k
        relevant, seen = (m[users] for m in (self.relevant, self.seen))
        if not whole:
            relevant, seen = (relevant @ self.part.ids).tocsr(), (seen @ self.part.ids).tocsr()
        ranking = evaluate.rank(scorer, relevant, seen, k=k, auc=False)
        self.history.append({"whole": whole} | asdict(choice) | ranking.mean())
        self.tell(f"trying candidate {len(self.history)}", min(0.6, 0.02 * len(self.history)))
        return ranking.values[f"recall@{k}"] + ranking.values[f"ndcg@{k}"]


def _surely(gain: np.ndarray) -> bool:
    """Whether the mean of differences [n] is above zero by more than chance."""
    return len(gain) > 1 and float(gain.mean()) > SURE * float(gain.std()) / len(gain) ** 0.5


def _sample(n: int, most: int, seed: int) -> np.ndarray:
    """At most ``most`` of ``range(n)``, in order."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))
