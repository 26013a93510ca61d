"""A part of the interactions as matrices, and the towers and neighbours that a :class:`.options.Choice` derives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from scipy import sparse

from two_tower.features import ITEM_NUMERIC, LIKE, NOPE, PLACING, SKIP, VECTORS, TrainingData, user_counts
from two_tower.trainer import evaluate, items
from two_tower.trainer.gradient import Examples
from two_tower.trainer.linear import ContentModel, Factors, HistoryModel, balance, column_sums, to_torch
from two_tower.trainer.model import INNER, ItemTower, UserTower
from two_tower.trainer.options import Choice, TrainOptions
from two_tower.trainer.splits import sample

PARAMETERS = 12_000_000
"""Most weights of the hidden layer of the item tower."""

NUMERIC_WEIGHT = 1.5
"""Standard deviation of a numeric content feature; a tag is 0 or 1."""

PROFILE_DOUBT = 30.0
"""Users that the mean taste is worth when it is averaged with that of the users who share a key of their profiles."""


@dataclass(frozen=True)
class Placement:
    """Places of the known videos, and those that their content alone suggests."""

    own: torch.Tensor
    """[n_videos, rank]"""
    suggested: torch.Tensor
    """[n_videos, rank], each by a regression without that video; the mean place for a video that is no example"""
    outward: torch.Tensor
    """[hidden, rank]"""
    bias: torch.Tensor
    """[rank]"""


class Part:
    """Interactions to train on, as matrices over users and *known* videos (those with an id of their own)."""

    def __init__(
        self,
        data: TrainingData,
        rows: np.ndarray,
        options: TrainOptions,
        guess: torch.Tensor | None = None,
        *,
        search: bool = False,
    ) -> None:
        """``guess``: the :attr:`guess` of another part of the same data, which saves time; ``search``: for comparing
        candidates, which takes fewer hidden units."""
        self.data, self.options, self.rows = data, options, rows
        self.likes, self.nopes, self.skips = (data.matrix(label, rows) for label in (LIKE, NOPE, SKIP))
        # With only these rows, a key without likes in them would not be in the vocabulary.
        liked = column_sums(sparse.diags(column_sums(self.likes)) @ abs(data.item_counts)) > 0
        liked[: len(ITEM_NUMERIC)] = True
        self.item_counts = (data.item_counts @ sparse.diags(liked.astype(np.float32))).tocsr()  # [n_items, item_dim]
        self.item_counts.eliminate_zeros()
        identity = data.schema.segment("item", "id")
        self.ids = self.item_counts[:, identity.slice].tocsr()  # [n_items, n_videos]
        self.known = [(m @ self.ids).tocsr() for m in (self.likes, self.nopes, self.skips)]  # [n_users, n_videos]
        # How well a video is known depends on the number of its likes, not on their weights.
        self.like_count = torch.from_numpy(column_sums(self.known[0].sign())).float()  # [n_videos]
        self.item_tower = ItemTower(data.schema)  # with only the normaliser's constants
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
        # Equal centres would make the matrix singular.
        rows = self.content.numpy()
        distinct = {blake2b(rows[at], digest_size=16).digest(): at for at in reversed(range(len(rows)))}
        self.centres = sorted(distinct.values())[
            : min(options.search_hidden if search else options.hidden, PARAMETERS // width)
        ]
        self.guess = guess  # axes of the first spectrum, with which others are found faster
        self._histories: tuple[Any, HistoryModel] | None = None
        self._solved: dict[Any, Factors] = {}  # the last ones, by what they depend on
        self._content_model: tuple[Any, ContentModel] | None = None  # the last, with what it depends on
        self._placed: tuple[Factors | None, dict[Any, Placement]] = None, {}  # of the last factors, by hyperparameters
        self._table: tuple[Any, items.Table] | None = None  # the last, with what it depends on
        # The last neighbours, with what they depend on and their largest number per video.
        self._near: tuple[Factors, Any, int, sparse.csr_matrix] | None = None
        self._weighted: tuple[float, tuple[sparse.csr_matrix, sparse.csr_matrix]] = 0.0, (self.likes, self.nopes)
        self._places: np.ndarray | None = None  # of the rows, from the newest of each user's

    def factors(self, choice: Choice, most: int | None = None) -> Factors:
        """Factors over the known videos [n_videos, at most INNER], from at most ``most`` users."""
        n_users, n_videos = self.known[0].shape
        if len(self.taught) == 0:
            return Factors(*(torch.zeros(n_videos, 0) for _ in range(3)))
        if choice.source == "items":
            key = choice.table()
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
            used = [m[sample(n_users, users, self.options.seed)] for m in self.known]
            self._histories = None  # frees its memory for the next
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
        if choice.together < 1 and self.known[0].shape[1] <= items.LOCAL:
            return items.factors(self.table(choice), self.known[0], INNER, seed=self.options.seed)
        return items.spectral(self.known[0], INNER, seed=self.options.seed)

    def table(self, choice: Choice) -> items.Table:
        """How a like of each known video predicts likes of the others."""
        if self._table is None or self._table[0] != choice.table():
            self._table = None  # frees its memory for the next
            if choice.together == 1:
                found: items.Table = items.together(self.known[0])
            else:
                (found,) = self.regressed([choice])
                if choice.together:
                    found = self.mixed(found, items.together(self.known[0]), choice.together)
            self.keep(choice, found)
        assert self._table is not None
        return self._table[1]

    def mixed(self, regressed: items.Table, together: items.Table, share: float) -> items.Table:
        return items.mixed(regressed, together, share, self.known[0], seed=self.options.seed)

    def keep(self, choice: Choice, table: items.Table) -> None:
        """Keep ``table`` as the :meth:`table` of ``choice``, so that it is not computed again."""
        self._table = choice.table(), table

    def regressed(self, choices: Sequence[Choice]) -> Iterator[items.Table]:
        """The tables of choices that differ only in their ``item_ridge``, before anything is mixed with them."""
        first = choices[0]
        return items.tables(
            self.known[0],
            [choice.item_ridge for choice in choices],
            user_power=first.item_users,
            item_power=first.item_power,
            order=(self.data.matrix(LIKE, self.rows, 1.0, given=False) @ self.ids).tocsr() if first.direction else None,
            direction=first.direction,
        )

    def neighbours(self, choice: Choice, factors: Factors) -> sparse.csr_matrix | None:
        """[n_videos, n_videos] the table minus the factors' scores, on the scale of :meth:`place`; None if empty."""
        if not choice.neighbours or factors.item.shape[1] == 0:
            return None
        key = choice.table()
        if (
            self._near is None
            or self._near[0] is not factors
            or self._near[1] != key
            or self._near[2] < choice.neighbours
        ):
            left = items.residual(self.table(choice), factors, self.known[0], choice.neighbours, seed=self.options.seed)
            longest = float(factors.item.norm(dim=1).max().clamp(min=1e-12))
            self._near = factors, key, choice.neighbours, (left / longest).tocsr().astype(np.float32)
        found = items.strongest(self._near[3], choice.neighbours)
        return found if found.nnz else None

    def history(self, recency: float) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """[n_users, n_items] weights of likes and of nopes."""
        if self._weighted[0] != recency:
            if self._places is None:
                self._places = self.data.places(self.rows).astype(np.int32)
            likes, nopes = (self.data.matrix(label, self.rows, recency, places=self._places) for label in (LIKE, NOPE))
            self._weighted = recency, (likes, nopes)
        return self._weighted[1]

    def examples(self) -> Examples:
        """The training data of the gradients."""
        return Examples(self.data.schema, self.item_counts, self.likes, self.nopes, self.skips, self.data.profile)

    def content_says(self, factors: Factors) -> tuple[sparse.csr_matrix, torch.Tensor]:
        """Features and weights whose product predicts the taste of a liked video from its content alone.

        Features of the known videos are [n_videos, 1 + named counts], the first of them 1; their weights
        [1 + named counts, rank] are a regression of these videos' own tastes.
        """
        placing = self.data.schema.segment("item", next(iter(PLACING)))
        counts = self.ids.T.tocsr() @ self.item_counts[:, len(ITEM_NUMERIC) : placing.offset]
        ones = sparse.csr_matrix(np.ones((counts.shape[0], 1)))
        features = sparse.hstack([ones, counts], format="csr", dtype=np.float32)
        weight = sparse.diags((self.like_count / (self.like_count + 30)).numpy())
        gram = torch.from_numpy((features.T @ weight @ features).toarray()).float()
        gram.diagonal().add_(10.0)
        return features, torch.linalg.solve(gram, to_torch(features.T @ weight) @ factors.like)

    def hinted(self, factors: Factors, said: torch.Tensor, choice: Choice) -> Factors:
        """The same factors, averaged with predictions from content ``said`` [n_videos, rank] for videos with few
        likes."""
        likes = self.like_count[:, None]
        return replace(factors, like=(likes * factors.like + choice.hint * said) / (likes + choice.hint).clamp(min=1))

    def tastes(self, factors: Factors, recency: float = 0.0) -> torch.Tensor:
        """[n_users, rank], before anything is added for popularity."""
        likes, nopes = (m @ self.ids for m in self.history(recency)) if recency else self.known[:2]
        return to_torch(likes) @ factors.like + to_torch(nopes) @ factors.nope

    def profile_says(self, tastes: torch.Tensor) -> torch.Tensor:
        """[n profile keys, rank]: what each key of a profile adds to the mean of ``tastes`` [n_users, rank].

        A ridge regression, so that correlated keys share their effect.
        """
        assert self.data.profile is not None
        known = np.flatnonzero(np.diff(self.likes.indptr))
        profile = self.data.profile[known]
        gram = torch.from_numpy((profile.T @ profile).toarray()).float()
        gram.diagonal().add_(PROFILE_DOUBT)
        return torch.linalg.solve(gram, to_torch(profile.T.tocsr()) @ (tastes[known] - tastes[known].mean(dim=0)))

    def from_profiles(self, tastes: torch.Tensor, users: np.ndarray) -> torch.Tensor:
        """[u, rank] what the profiles of ``users`` [u] add to their tastes, given everybody's [n_users, rank]."""
        assert self.data.profile is not None
        return to_torch(self.data.profile[users]) @ self.profile_says(tastes)

    def placing(self, name: str) -> slice:
        """Columns of this item segment in the content."""
        segment, numbers = self.data.schema.segment("item", name), len(ITEM_NUMERIC)
        return slice(segment.offset + numbers, segment.offset + segment.size + numbers)

    def _spread(self, name: str) -> float:
        """The mean squared length of this segment, over rows of the content where it is not empty.

        Vectors of an encoder share a common direction without information, so their mean is subtracted first.
        """
        rows = self.content[:, self.placing(name)]
        if name == VECTORS:
            given = rows.any(dim=1, keepdim=True)
            rows = (rows - rows.sum(dim=0) / given.sum().clamp(min=1)) * given
        square = rows.square().sum(dim=1)
        return float(square[square > 0].mean()) if bool((square > 0).any()) else 0.0

    def scale(self, choice: Choice) -> tuple[torch.Tensor, float]:
        """The scale of each feature of the content [width], and the squared width of the kernel.

        Without words and vectors, scales are 1, and the squared width is ``bandwidth`` times the sum of variances.
        """
        variance = self.content.var(dim=0, unbiased=False)
        placing = {name: self.placing(name) for name in PLACING}
        rest = variance.sum().item() - sum(variance[columns].sum().item() for columns in placing.values())
        # Over videos that have any, so that videos with a rare segment are no further from the others.
        spread = {name: self._spread(name) for name in placing}
        # If there is nothing else, they are the content.
        rest = rest if rest > 1e-6 else max(sum(spread.values()), 1e-6)
        scale = torch.ones(self.content.shape[1])
        for name, columns in placing.items():
            scale[columns] = (getattr(choice, name) * rest / max(spread[name], 1e-6)) ** 0.5
        return scale, choice.bandwidth * rest

    def content_model(self, choice: Choice) -> ContentModel:
        key = choice.kernel()
        if self._content_model is None or self._content_model[0] != key:
            self._content_model = None  # frees its memory for the next
            scale, square_width = self.scale(choice)
            content, likes = self.content * scale, self.like_count[self.taught].clamp(min=0.3)
            model = ContentModel(content, content[self.centres], likes, square_width=square_width)
            self._content_model = key, model
        return self._content_model[1]

    def place(self, factors: Factors, choice: Choice) -> Placement:
        """Places of the known videos, the longest of length 1, and their prediction from content."""
        if self._placed[0] is not factors:
            self._placed = factors, {}
        placed, how = self._placed[1], (*choice.kernel(), choice.content_ridge)
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
        """Complete scores of ``users`` [u] for all items, using only this part's history."""
        likes, nopes = (m[users] for m in self.history(recency))
        profile = None if self.data.profile is None else self.data.profile[users]
        counts = user_counts(self.data.schema, self.item_counts, likes, nopes, profile)
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
        user_tower, item_tower = UserTower(schema), ItemTower(schema, len(self.centres))
        item_tower.mean, item_tower.divisor = self.item_tower.mean, self.item_tower.divisor
        item_tower.used = self.item_tower.used
        if rank == 0:
            return user_tower, item_tower
        placement = self.place(factors, choice)
        item_tower.own[:, :rank] = self.blend(placement, choice)
        item_tower.bias[:rank] = choice.novelty * placement.bias
        item_tower.outward[: len(self.centres), :rank] = choice.novelty * placement.outward
        scale, square_width = self.scale(choice)
        item_tower.scale.copy_(scale)
        item_tower.centres[: len(self.centres)] = self.content[self.centres] * item_tower.scale
        item_tower.square_width.fill_(square_width)

        # A liked video without an id of its own counts by its content; one with an id adds the difference to that.
        features, by_content = self.content_says(factors)
        said = to_torch(features) @ by_content
        factors = self.hinted(factors, said, choice)
        liked = schema.segment("user", "liked_video_ids").slice
        if not self.options.user_attributes:
            said, by_content = torch.zeros_like(said), torch.zeros_like(by_content)
        user_tower.weight[0, :rank] = by_content[0]
        user_tower.weight[schema.segment("user", "liked_tags").offset : liked.start, :rank] = by_content[1:]
        user_tower.weight[liked, :rank] = factors.like - said
        user_tower.weight[schema.segment("user", "noped_video_ids").slice, :rank] = factors.nope
        tastes = self.tastes(factors, choice.recency)
        user_tower.bias[:rank] = choice.popular * tastes.mean(dim=0)
        if self.data.profile is not None and self.options.user_attributes:
            says = choice.popular * choice.profile * self.profile_says(tastes)
            user_tower.weight[schema.profile_inputs, :rank] = says
        return user_tower, item_tower
