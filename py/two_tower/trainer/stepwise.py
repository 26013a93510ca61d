"""The stepwise search for a :class:`.options.Choice`; each step is judged by the ranking of held-out likes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import sparse

from two_tower.features import LIKE, NOPE, PLACING, TrainingData
from two_tower.progress import Progress
from two_tower.trainer import evaluate, gradient, items, search
from two_tower.trainer.gradient import Processes, Recipe
from two_tower.trainer.linear import Factors, to_torch
from two_tower.trainer.model import ItemTower, UserTower
from two_tower.trainer.options import Choice, TrainOptions
from two_tower.trainer.part import Part, Placement
from two_tower.trainer.splits import sample

HISTORIES = 15_000
"""Most videos for which factors may come from the spectrum of the histories."""

EACH = 15
"""Mean number of likes per video that this takes in a catalogue larger than :data:`items.EXACT`: the leading values of
the spectrum have no information about videos that few watched."""

NEIGHBOURS = (10, 20, 50)
"""Largest numbers of neighbours of a video that are tried."""

DIRECTION = (0.15, 0.3)
"""Directions of a regression between videos that are tried if times differ."""

TOGETHER = (0.3, 0.5, 0.7)
"""Shares of :func:`items.together` that are tried in a large catalogue."""

PROFILE_WORTH = (1.0, 3.0, 10.0)
"""Weights of profiles that are tried."""

RECENCY = (0.25, 0.5, 0.75, 1.0, 1.5)
"""Exponents of recency that are tried if times differ."""

SURE = 2.0
"""Standard errors by which more complexity must improve the result."""

SURE_SCORES = 60_000_000
"""Scores on which that is decided, if they are of more users than :attr:`TrainOptions.val_users`."""

SURE_USERS = 6_000
"""Most users on whom that is decided."""


class StepwiseSearch:
    """Search for a :class:`Choice`, and a recipe, on held-out likes; features contain no held-out rows."""

    def __init__(
        self,
        data: TrainingData,
        held: np.ndarray,
        asked: np.ndarray,
        options: TrainOptions,
        tell: Progress,
        deadline: float,
        processes: Processes,
        told: gradient.Told = lambda epoch: None,
    ) -> None:
        """``held`` [n]: rows left out of the features; ``asked`` [n]: those of them whose likes are the targets."""
        self.options, self.tell, self.deadline, self.processes = options, tell, deadline, processes
        self.told = told
        self.part = Part(data, ~held, options, search=True)
        self.relevant, self.seen = data.matrix(LIKE, asked), self.part.seen()
        users = np.flatnonzero(np.diff(self.relevant.indptr))
        self.users = users[sample(len(users), options.val_users, options.seed)]
        self.held = gradient.HeldOut(self.users, self.relevant[self.users], data.matrix(NOPE, asked)[self.users])
        many = max(options.val_users, min(SURE_USERS, SURE_SCORES // max(data.n_items, 1)))
        self.many = users[sample(len(users), many, options.seed)]
        self.history: list[dict[str, Any]] = []
        self.epochs: list[dict[str, Any]] = []  # of the measured training
        self._in_time = bool(data.places(~held).any())

    def run(self, *, by_gradients: bool = False) -> Choice:
        """The choice found by one coordinate after the other; without recency for gradients."""
        found = self._sources()
        in_time = not by_gradients and self._in_time
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
        by_profile = self.part.data.profile is not None and self.options.user_attributes

        def catalogue(choice: Choice) -> tuple[torch.Tensor, torch.Tensor]:
            places = choice.novelty * suggested
            places[item] = self.part.blend(placement, choice)[video]
            tastes = self.part.tastes(self.part.hinted(factors, said, choice), choice.recency)
            usual = tastes.mean(dim=0)
            if by_profile:
                usual = usual + choice.profile * self.part.from_profiles(tastes, self.users)
            return tastes[self.users] + choice.popular * usual, places

        found_by: dict[Choice, np.ndarray] = {}
        for name, values in (
            ("novelty", (1.0, 0.7, 0.5)),
            ("hint", (0.0, 3.0, 30.0, 300.0)),
            ("prior", (0.1, 1.0, 10.0, 50.0)),
            ("popular", (0.01, 0.1, 0.5, 2.0, 8.0)),
            # At least 1: users without a history depend on it, and none of those measured here is without one.
            *([("profile", PROFILE_WORTH)] if by_profile else []),
        ):
            if time.monotonic() < self.deadline:
                changes: list[dict[str, Any]] = [{name: value} for value in values]
                for choice in (replace(best, **change) for change in changes):
                    if choice not in found_by:
                        scorer = self._scorer(choice, *catalogue(choice), near, self.users, whole=True)
                        found_by[choice] = self._values(choice, scorer, self.users, whole=True)
                best = max(found_by, key=lambda choice: found_by[choice].mean())

        # Lists of new videos depend on what is popular, and these users cannot tell how much: so keep the default,
        # unless another value improves the result.
        usual = replace(best, popular=Choice.popular)
        return usual if usual in found_by and not _surely(found_by[best] - found_by[usual]) else best

    def _sources(self) -> list[tuple[Choice, Factors]]:
        """The best factors from histories, if their spectrum is informative enough, and those from items."""
        found, n_videos = [], self.part.known[0].shape[1]
        known = self.part.known[0].nnz >= EACH * n_videos or n_videos <= items.EXACT
        if known and n_videos <= HISTORIES:
            found.append(self._from_histories())
            if time.monotonic() > self.deadline:
                return found
        items_choice = self._from_items()
        factors = self.part.factors(items_choice)
        same: dict[str, Any] = dict(items_choice.table())
        return [*((replace(choice, **same), beside) for choice, beside in found), (items_choice, factors)]

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
        """The table with the best ranking by itself."""
        n_videos = self.part.known[0].shape[1]
        if not items.regressable(self.part.known[0], seed=self.options.seed):
            return replace(Choice(source="items"), together=1.0)
        plans: list[tuple[float, float, tuple[float, ...]]]
        plans = [(0.4, 0.25, (50.0, 150.0, 500.0)), (0.4, 0.0, (50.0, 150.0, 500.0))]
        if n_videos > items.LOCAL:
            plans = [(0.75, 0.4, (300.0,))]
        best: tuple[float, Choice, items.Table] | None = None
        for users, power, ridges in plans:
            if best and time.monotonic() > self.deadline:
                break
            choices = [
                replace(Choice(source="items"), item_users=users, item_power=power, item_ridge=ridge)
                for ridge in ridges
            ]
            best = self._best_table(best, zip(choices, self.part.regressed(choices), strict=True))
        assert best is not None
        if self._in_time and time.monotonic() < self.deadline:
            towards = (replace(best[1], direction=direction) for direction in DIRECTION)
            best = self._best_table(best, ((choice, next(self.part.regressed([choice]))) for choice in towards))
        if n_videos > items.EXACT and time.monotonic() < self.deadline:
            (_, choice, table), other = best, items.together(self.part.known[0])
            shares = (replace(choice, together=share) for share in TOGETHER)
            best = self._best_table(best, ((each, self.part.mixed(table, other, each.together)) for each in shares))
        self.part.keep(*best[1:])
        return best[1]

    def _best_table(
        self, best: tuple[float, Choice, items.Table] | None, tried: Iterable[tuple[Choice, items.Table]]
    ) -> tuple[float, Choice, items.Table]:
        """``best``, or the best table of ``tried`` if it ranks better by itself."""
        likes = self.part.known[0][self.many]
        for choice, table in tried:
            score = float(self._values(choice, partial(_by_table, table, likes), self.many).mean())
            if best is None or score > best[0]:
                best = score, choice, table
        assert best is not None
        return best

    def _neighbours(self, found: list[tuple[Choice, Factors]]) -> tuple[Choice, Factors, sparse.csr_matrix | None]:
        """The factors, and the number of neighbours besides them, which is zero unless they improve the result."""
        alone, beside = [], []
        for choice, factors in found:
            alone.append((self._known(choice, factors, None), choice, factors, None))
            (n_videos, rank) = factors.item.shape
            if time.monotonic() > self.deadline or not 0 < rank < n_videos:
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
        """``best``, with another recency exponent if that improves the result."""
        tried = {recency: self._known(replace(best, recency=recency), factors, near) for recency in (0.0, *RECENCY)}
        recency = max(tried, key=lambda each: tried[each].mean())
        return replace(best, recency=recency) if _surely(tried[recency] - tried[best.recency]) else best

    def tune(self, start: Choice, recipe: Recipe | None) -> tuple[Choice, Recipe | None, dict[str, Any]]:
        """The best of the study's trials, the first of which is ``start``, and a record of the search."""

        def trial(choice: Choice, recipe: Recipe | None) -> float:
            user_tower, item_tower, near, _, scores = self.fitted(choice, recipe, self.options.search_users)
            return max(scores) if scores else self.judge(user_tower, item_tower, near, choice.recency)

        return search.tune(trial, start, recipe, self.part.data, self.options, self.tell)

    def fitted(
        self, choice: Choice, recipe: Recipe | None, most: int | None = None
    ) -> tuple[UserTower, ItemTower, sparse.csr_matrix | None, int, list[float]]:
        """Towers trained without held-out rows, the neighbours that go with them before gradients, the epoch that was
        kept, and the scores by epoch, which are of the towers alone."""
        factors = self.part.factors(choice, most)
        user_tower, item_tower = self.part.towers(choice, factors)
        near = self.part.neighbours(choice, factors)
        if recipe is None:
            return user_tower, item_tower, near, 0, []

        def tell(epoch: int) -> bool:
            self.tell(f"epoch {epoch}", 0.6)
            return time.monotonic() < self.deadline

        def told(epoch: dict[str, Any]) -> None:
            self.history.append(epoch)
            if most is None:  # otherwise it is one of many trials
                self.epochs.append(epoch)
                self.told(epoch)

        self.epochs = []
        best, scores = gradient.train(
            user_tower,
            item_tower,
            self.part.examples(),
            recipe,
            score=self.judge,
            held=self.held,
            processes=self.processes,
            tell=tell,
            told=told,
        )
        return user_tower, item_tower, near, best, scores

    def judge(
        self,
        user_tower: UserTower,
        item_tower: ItemTower,
        neighbours: sparse.csr_matrix | None = None,
        recency: float = 0.0,
    ) -> float:
        """Recall@k + NDCG@k of the users of the search on the whole catalogue."""
        scorer = self.part.scorer(user_tower, item_tower, self.users, neighbours, recency)
        k, relevant, seen = self.options.k, self.relevant[self.users], self.seen[self.users]
        mean = evaluate.rank(scorer, relevant, seen, k=k, auc=False).mean()
        return mean[f"recall@{k}"] + mean[f"ndcg@{k}"]

    def measure(
        self, user_tower: UserTower, item_tower: ItemTower, neighbours: sparse.csr_matrix | None, recency: float
    ) -> dict[str, Any]:
        """Metrics of the result of :meth:`fitted` on all held-out likes, with those of the references."""
        k, seed = self.options.k, self.options.seed
        # References are defined on likes without weights.
        likes = self.part.likes.sign()
        references, left_out = evaluate.references(likes, seed)
        asked, relevant = evaluate.asked(self.relevant, self.options.measured_users, seed)
        # Only for the measured users: features are several times as large as decisions.
        whole = self.part.scorer(user_tower, item_tower, asked, neighbours, recency)

        def own(rows: np.ndarray) -> np.ndarray:
            return whole(np.searchsorted(asked, rows))

        scorers: dict[str, evaluate.Scorer] = {"two-tower": own} | references
        report = evaluate.report(scorers, likes, self.seen, relevant, k=k, also=self.options.also, seed=seed)
        return report | ({"left_out": left_out} if left_out else {})

    def _climb(self, best: Choice, factors: Factors, score: float) -> tuple[Choice, Factors, float]:
        """Halve or double the ridge as long as that improves the score."""
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
        """How content places an item, measured by leaving out each item as if it were new."""
        top, placement, chosen = -1.0, None, best
        changes: list[dict[str, Any]] = [{}, {"bandwidth": 1.0}]
        for name in PLACING:
            if self.part.content[:, self.part.placing(name)].any():
                changes += [{name: 0.5}, {name: 0.0}]
        for change in (*changes, {"content_ridge": 0.4}):
            if placement is not None and (time.monotonic() > self.deadline or not self.part.content.any()):
                break
            choice = replace(chosen, **change)
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
        """Complete scores of ``users`` with these tastes, times the length of the taste."""
        towers = evaluate.by_vectors(tastes.numpy(), places.numpy())
        if near is None:
            return towers
        likes = self.part.history(choice.recency)[0][users] @ self.part.ids
        return evaluate.with_neighbours(towers, likes, near @ self.part.ids.T if whole else near)

    def _values(self, choice: Choice, scorer: evaluate.Scorer, users: np.ndarray, *, whole: bool = False) -> np.ndarray:
        """Recall@k + NDCG@k of those ``users`` who have relevant items."""
        k = self.options.k
        relevant, seen = (m[users] for m in (self.relevant, self.seen))
        if not whole:
            relevant, seen = (relevant @ self.part.ids).tocsr(), (seen @ self.part.ids).tocsr()
        ranking = evaluate.rank(scorer, relevant, seen, k=k, auc=False)
        self.history.append({"whole": whole} | asdict(choice) | ranking.mean())
        self.tell(f"trying candidate {len(self.history)}", min(0.6, 0.02 * len(self.history)))
        return ranking.values[f"recall@{k}"] + ranking.values[f"ndcg@{k}"]


def _by_table(table: items.Table, likes: sparse.csr_matrix, rows: np.ndarray) -> np.ndarray:
    return items.scores(table, likes[rows])


def _surely(gain: np.ndarray) -> bool:
    """Whether the mean of the differences [n] is significantly above zero."""
    return len(gain) > 1 and float(gain.mean()) > SURE * float(gain.std()) / len(gain) ** 0.5
