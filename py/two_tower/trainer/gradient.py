"""Training of both towers by gradients, from given weights.

    torchrun --nproc-per-node 2 -m two_tower train --epochs 10

An example is a user. A random part of the history is the input; the rest are the positives (likes) and negatives
(nopes), so no target is ever among the features that predict it. The score that is trained is the one that is served:
the cosine on :data:`two_tower.features.DIM` dimensions. The last, the norm dimension, is zero for a user and needs no
gradient.

Up to :data:`WHOLE` items, the softmax is over all items that anybody knows; items that nobody could have liked are no
negatives. Above, it is over the batch's own targets and additional items drawn uniformly, with the logQ correction (Yi
et al. 2019; the mixture: Yang et al. 2020, "Mixed negative sampling for learning two-tower neural networks in
recommendations", WWW). Item ids are dropped at random, so that the content weights learn to place items without an id.
First layers are tables of rows: a step reads, updates and decays only the rows that its users and items use. Decay
pulls towards the initial weights.

With several processes, each draws the same plan for the whole batch and works on its share of the users. The result
is that of one process, except for the order of summation.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from two_tower.features import FeatureSchema, user_counts
from two_tower.trainer.loss import binary_cross_entropy, full_softmax, sampled_softmax
from two_tower.trainer.model import INNER, ItemTower, UserTower

WHOLE = 20_000
"""Most items for which the softmax is over the whole catalogue."""

SCORES = 10_000_000
"""Scores of held-out decisions that are computed at once: each takes about six numbers in memory."""

TARGETS = 4
"""Most likes, and most nopes, of a user in one sampled batch."""

SCHEDULES: dict[str, Callable[[float], float]] = {
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "constant": lambda done: 1.0,
}
"""Share of the steps done so far -> share of the full rate."""

TEMPERATURES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
"""Initial temperatures: training starts from the one with the least loss on the first batch."""


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of the gradient path."""

    epochs: int = 10
    loss: str = "softmax"
    """``softmax`` or ``bce``."""
    rate: float = 0.1
    """Initial step of a weight, relative to the root mean square of its table."""
    schedule: str = "linear"
    """How the step decreases over the epochs, one of :data:`SCHEDULES`."""
    dropout: float = 0.5
    """Share of a history that is left out of the input and becomes the target."""
    id_dropout: float = 0.1
    """Share of the items of a batch that are placed by their content though they have an id."""
    decay: float = 0.01
    """Share of its difference to the initial value that an updated weight loses with each full step."""
    nope_weight: float = 1.0
    """Additional weight of a noped item among the negatives."""
    neg_per_pos: int = 4
    """Items drawn per target, among those that its user is not known to know. A softmax over all items draws none."""
    batch: int = 512
    """Users per step, over all processes."""
    patience: int = 3
    """Epochs without improvement after which training ends."""
    attributes: bool = True
    """Whether a user's input includes the attributes of liked videos, besides the videos themselves."""
    seed: int = 0


@dataclass(frozen=True)
class Examples:
    """The training part of the data about users and items."""

    schema: FeatureSchema
    item_counts: sparse.csr_matrix
    """[n_items, item_dim]"""
    likes: sparse.csr_matrix
    """[n_users, n_items] of weights, like the two below; disjoint"""
    nopes: sparse.csr_matrix
    skips: sparse.csr_matrix
    profile: sparse.csr_matrix | None = None
    """[n_users, n] as :attr:`~two_tower.features.TrainingData.profile`"""
    known: sparse.csr_matrix = field(init=False)
    met: np.ndarray = field(init=False)
    """[m] int: items with a decision of any user"""
    chance: np.ndarray = field(init=False)
    """[n_items] probability that a sampled target is this item"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "known", (self.likes + self.nopes + self.skips).tocsr())
        object.__setattr__(self, "met", np.unique(self.known.indices))
        count = np.maximum(np.diff(self.likes.indptr), 1)
        drawn = self.likes.sign().T @ (np.minimum(count, TARGETS) / count)
        object.__setattr__(self, "chance", drawn / max(drawn.sum(), 1e-12))


@dataclass
class Batch:
    """This process's share of a step. Rows are its users, columns positions in ``items``."""

    inputs: sparse.csr_matrix
    """[b, user_dim]"""
    items: np.ndarray
    """[u] int: distinct items"""
    named: np.ndarray
    """[u] bool: whether an item is placed by its id"""
    share: float
    """Share of the whole batch's loss, times the number of processes, since their gradients are averaged."""
    loss: dict[str, Any]
    """Arguments of the loss, except the vectors."""


class Learner(nn.Module):
    """Both towers' weights, trained in place, and the loss of a batch. The towers' centres and constants are fixed."""

    def __init__(self, user: UserTower, item: ItemTower, examples: Examples, recipe: Recipe) -> None:
        super().__init__()
        self.towers, self.examples, self.recipe = (user, item), examples, recipe  # no submodules: the tables train them
        self.weight = nn.EmbeddingBag(len(user.weight), INNER, mode="sum", sparse=True, _weight=user.weight.data)
        self.own = nn.Embedding(len(item.own), INNER, sparse=True, _weight=item.own.data)
        self.taste = nn.Parameter(user.bias.data)
        self.outward = nn.Parameter(item.outward.data, requires_grad=item.outward.numel() > 0)
        self.place = nn.Parameter(item.bias.data)
        self.log_temperature = nn.Parameter(torch.tensor(TEMPERATURES[2]).log())
        self.offset = nn.Parameter(torch.zeros(()), requires_grad=recipe.loss == "bce")

    def forward(self, batch: Batch) -> torch.Tensor:
        """The batch's share of the loss, a scalar."""
        users, items = UserTower.direct(self.tastes(batch.inputs)), ItemTower.cut(self.places(batch))
        temperature, loss = self.log_temperature.exp(), batch.loss
        weight = self.recipe.nope_weight
        if self.recipe.loss == "bce":
            scores = (users[loss["row"]] * items[loss["column"]]).sum(dim=1) / temperature + self.offset
            found = binary_cross_entropy(scores, loss["label"], weights=loss["weights"])
        elif "targets" in loss:
            found = full_softmax(
                users @ items.T,
                loss["targets"],
                temperature=temperature,
                masked=loss["masked"],
                negatives=loss["negatives"],
                negative_weight=weight,
            )
        else:
            found = sampled_softmax(
                users[loss["row"]],
                items[loss["candidates"]],
                loss["positive"],
                loss["candidates"],
                loss["log_q"],
                temperature=temperature,
                masked=loss["masked"],
                negatives=loss["negatives"],
                negative_weight=weight,
                weights=loss["weights"],
            )
        return found * batch.share

    def tastes(self, counts: sparse.csr_matrix) -> torch.Tensor:
        """[b, user_dim] sparse -> [b, INNER]"""
        at, start = (torch.from_numpy(a.astype(np.int64)) for a in (counts.indices, counts.indptr[:-1]))
        return self.weight(at, start, per_sample_weights=torch.from_numpy(counts.data)) + self.taste

    def places(self, batch: Batch) -> torch.Tensor:
        """Items of the batch [u] -> [u, INNER]"""
        tower = self.towers[1]
        counts = self.examples.item_counts[batch.items]
        column = np.zeros(len(batch.items), dtype=np.int64)
        row, found = counts[:, tower.stop :].nonzero()
        column[row] = found
        named = torch.from_numpy(batch.named)
        suggested = tower.near(counts[~batch.named]) @ self.outward + self.place
        places = torch.zeros(len(batch.items), INNER).index_put((named,), self.own(torch.from_numpy(column)[named]))
        return places.index_put((~named,), suggested)


def draw(examples: Examples, recipe: Recipe, rows: np.ndarray, rng: np.random.Generator, rank: int, size: int) -> Batch:
    """The share of process ``rank`` of ``size`` in a step over users ``rows``. All ranks draw the same."""
    likes, nopes = examples.likes[rows], examples.nopes[rows]
    kept = [rng.random(m.nnz) >= recipe.dropout for m in (likes, nopes)]
    inputs = [_where(m, keep) for m, keep in zip((likes, nopes), kept, strict=True)]
    wanted, refused = (_where(m, ~keep) for m, keep in zip((likes, nopes), kept, strict=True))
    mine = np.arange(rank, len(rows), size)
    counts = _counted(examples, recipe, rows[mine], inputs[0][mine], inputs[1][mine])
    if recipe.loss == "bce":
        items, loss, share = _pairs(examples, recipe, examples.known[rows], wanted, refused, rng, rank, size)
    elif len(examples.met) <= WHOLE:
        items = examples.met
        masked = (inputs[0] + inputs[1] + examples.skips[rows]).tocsr()
        loss = {
            "targets": torch.from_numpy(wanted[mine][:, items].toarray()),
            "masked": torch.from_numpy(masked[mine][:, items].toarray() > 0),
            "negatives": torch.from_numpy(refused[mine][:, items].toarray() > 0),
        }
        asked = np.diff(wanted.indptr) > 0
        share = size * asked[mine].sum() / max(asked.sum(), 1)
    else:
        items, loss, share = _sampled(examples, recipe, rows, wanted, refused, rng, rank, size)
    named = _have_id(examples, items) & (rng.random(len(items)) >= recipe.id_dropout)
    return Batch(counts, items, named, float(share), loss)


def _counted(
    examples: Examples, recipe: Recipe, users: np.ndarray, likes: sparse.csr_matrix, nopes: sparse.csr_matrix
) -> Any:
    """The user tower's input for ``users`` [b] with histories [b, n_items] in training: [b, user_dim]."""
    schema = examples.schema
    profile = None if examples.profile is None else examples.profile[users]
    counts = user_counts(schema, examples.item_counts, likes, nopes, profile)
    if recipe.attributes:
        return _where(counts, (counts.indices == 0) | (counts.indices >= schema.user[0].size))
    videos = slice(schema.segment("user", "liked_video_ids").offset, schema.profile_inputs.start)
    return _where(counts, (counts.indices >= videos.start) & (counts.indices < videos.stop))


def _have_id(examples: Examples, items: np.ndarray) -> np.ndarray:
    identity = examples.schema.segment("item", "id")
    return np.asarray(np.diff(examples.item_counts[items][:, identity.slice].indptr) > 0)


def _where(matrix: sparse.csr_matrix, keep: np.ndarray) -> sparse.csr_matrix:
    """The entries for which ``keep`` [nnz] is true."""
    found = matrix.copy()
    found.data = np.where(keep, found.data, 0).astype(np.float32)
    found.eliminate_zeros()
    return found


def _at(matrix: sparse.csr_matrix, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Values [n] at ``rows`` and ``columns`` [n]; SciPy would return a matrix if n is 0."""
    return np.asarray(matrix[rows, columns]).ravel() if len(rows) else np.empty(0, dtype=matrix.dtype)


def _some(matrix: sparse.csr_matrix, most: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of at most ``most`` entries of every row."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((rng.random(matrix.nnz), row))
    place = np.arange(matrix.nnz) - matrix.indptr[row]  # within the row
    order = order[place < most]
    return row[order], matrix.indices[order]


def _sampled(
    examples: Examples,
    recipe: Recipe,
    rows: np.ndarray,
    wanted: sparse.csr_matrix,
    refused: sparse.csr_matrix,
    rng: np.random.Generator,
    rank: int,
    size: int,
) -> tuple[np.ndarray, dict[str, Any], float]:
    """Candidates are all targets of the batch, items drawn uniformly, and nopes, each for its own user only."""
    met = examples.met
    row, target = _some(wanted, TARGETS, rng)  # [p] each
    noping, noped = _some(refused, TARGETS, rng)
    drawn = met[rng.integers(0, len(met), recipe.neg_per_pos * len(target))]
    candidates = np.concatenate([target, drawn, noped])  # [c]
    shared = len(target) + len(drawn)
    expected = len(target) * examples.chance[candidates] + len(drawn) / len(met)
    expected[shared:] = 1.0
    items, column = np.unique(candidates, return_inverse=True)
    mine = np.flatnonzero(row % size == rank)
    weights = _at(wanted, row, target).astype(np.float32)
    known = examples.known[rows[rank::size]][:, items].toarray() > 0  # [b', u]
    known = known[row[mine] // size][:, column]  # [p', c]
    own = row[mine][:, None] == noping[None, :]  # [p', nopes]
    known[:, shared:] = ~own
    negatives = np.zeros_like(known)
    negatives[:, shared:] = own
    loss = {
        "row": torch.from_numpy(row[mine] // size),
        "candidates": torch.from_numpy(column),
        "positive": torch.from_numpy(mine),
        "log_q": torch.from_numpy(np.log(np.maximum(expected, 1e-12)).astype(np.float32)),
        "masked": torch.from_numpy(known),
        "negatives": torch.from_numpy(negatives),
        "weights": torch.from_numpy(weights[mine]),
    }
    return items, loss, size * len(mine) / max(len(row), 1)


def _pairs(
    examples: Examples,
    recipe: Recipe,
    known: sparse.csr_matrix,
    wanted: sparse.csr_matrix,
    refused: sparse.csr_matrix,
    rng: np.random.Generator,
    rank: int,
    size: int,
) -> tuple[np.ndarray, dict[str, Any], float]:
    """Likes are 1; nopes, and drawn items not in the user's ``known`` [b, n_items], are 0."""
    liking, liked = wanted.nonzero()
    noping, noped = refused.nonzero()
    drawing = np.repeat(liking, recipe.neg_per_pos)
    drawn = examples.met[rng.integers(0, len(examples.met), len(drawing))]
    unknown = _at(known, drawing, drawn) == 0
    row = np.concatenate([liking, noping, drawing[unknown]])
    weights = np.concatenate([wanted.data, refused.data, np.ones(int(unknown.sum()), dtype=np.float32)])
    items, column = np.unique(np.concatenate([liked, noped, drawn[unknown]]), return_inverse=True)
    mine = np.flatnonzero(row % size == rank)
    loss = {
        "row": torch.from_numpy(row[mine] // size),
        "column": torch.from_numpy(column[mine]),
        "label": torch.from_numpy((mine < len(liking)).astype(np.float32)),
        "weights": torch.from_numpy(weights[mine].astype(np.float32)),
    }
    return items, loss, size * len(mine) / max(len(row), 1)


@dataclass(frozen=True)
class Processes:
    """The processes that train together. Only rank 0 reads the database, decides, and registers."""

    rank: int = 0
    size: int = 1

    def share(self, value: Any = None) -> Any:
        """Rank 0's value, in every process."""
        if self.size == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box)
        return box[0]


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that torchrun started, or only this one. All but rank 0 must :func:`follow` it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    # Rank 0 may solve a closed form for a long time before it needs the others.
    torch.distributed.init_process_group("gloo", timeout=timedelta(days=1))
    processes = Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())
    try:
        yield processes
        if processes.rank == 0:
            processes.share(None)
    finally:
        torch.distributed.destroy_process_group()


def follow(processes: Processes) -> None:
    """Take part in each training of rank 0 until there are no more."""
    while (job := processes.share()) is not None:
        _run(*job, score=None, processes=processes)


Score = Callable[[UserTower, ItemTower], float]


@dataclass(frozen=True)
class HeldOut:
    """Decisions that are not in the examples, by which epochs are measured. Rows are users."""

    users: np.ndarray
    """[u] int: positions in the examples"""
    likes: sparse.csr_matrix
    """[u, n_items] of weights, like the next"""
    nopes: sparse.csr_matrix


@torch.no_grad()
def held_out_loss(learner: Learner, held: HeldOut, block: int = 512) -> float:
    """The loss on held-out decisions, with the users' whole training histories as input; NaN without held-out likes.

    With ``bce``, over pairs, with the same negatives in every epoch. Otherwise over users: a softmax over all items
    that anybody knows, even if training samples it.
    """
    examples, recipe = learner.examples, learner.recipe
    if recipe.loss != "bce":
        block = max(1, min(block, SCORES // max(len(examples.met), 1)))
    total, weight = 0.0, 0
    for start in range(0, len(held.users), block):
        rows = held.users[start : start + block]
        likes, nopes = (m[start : start + block] for m in (held.likes, held.nopes))
        counts = _counted(examples, recipe, rows, examples.likes[rows], examples.nopes[rows])
        known = examples.known[rows]
        if recipe.loss == "bce":
            rng = np.random.default_rng((recipe.seed, start))
            items, loss, _ = _pairs(examples, recipe, (known + likes + nopes).tocsr(), likes, nopes, rng, 0, 1)
            share = len(loss["label"])
        else:
            items = examples.met
            targets = likes[:, items].toarray()
            loss = {
                "targets": torch.from_numpy(targets),
                "masked": torch.from_numpy(known[:, items].toarray() > 0),
                "negatives": torch.from_numpy(nopes[:, items].toarray() > 0),
            }
            share = int((targets.sum(axis=1) > 0).sum())
        if share:
            total += share * float(learner(Batch(counts, items, _have_id(examples, items), 1.0, loss)))
            weight += share
    return total / weight if weight else math.nan


Told = Callable[[dict[str, Any]], None]
"""Called after every epoch with ``epoch``, ``train_loss`` and ``val_loss`` (None if there is none), ``score``."""


def train(
    user: UserTower,
    item: ItemTower,
    examples: Examples,
    recipe: Recipe,
    *,
    until: int | None = None,
    score: Score | None = None,
    held: HeldOut | None = None,
    processes: Processes | None = None,
    tell: Callable[[int], bool] = lambda epoch: True,
    told: Told = lambda epoch: None,
) -> tuple[int, list[float]]:
    """Train the towers in place. Only rank 0 calls this; the others :func:`follow`.

    With ``score``, the epoch of the best score is kept, epoch 0 being the initial towers; otherwise that of ``until``
    or the last. ``tell`` is called at every epoch, and ends the training by returning false; ``told`` gets the results
    of each epoch with a score, including its loss on ``held``. Returns the epoch that was kept, and the scores from
    epoch 0 on.
    """
    processes = processes or Processes()
    job = (user, item, examples, recipe, recipe.epochs if until is None else until)
    if processes.size > 1:
        processes.share(job)
    return _run(*job, score=score, held=held, processes=processes, tell=tell, told=told)


def _run(
    user: UserTower,
    item: ItemTower,
    examples: Examples,
    recipe: Recipe,
    until: int,
    *,
    score: Score | None,
    processes: Processes,
    held: HeldOut | None = None,
    tell: Callable[[int], bool] = lambda epoch: True,
    told: Told = lambda epoch: None,
) -> tuple[int, list[float]]:
    learner = Learner(user, item, examples, recipe)
    users = np.flatnonzero(np.diff(examples.likes.indptr))
    size = max(recipe.batch, processes.size)
    steps = len(users) // size + (len(users) % size >= processes.size)  # a process without a user could not take part
    if steps == 0:
        return 0, []
    _set_temperature(learner, draw(examples, recipe, users[:size], np.random.default_rng(recipe.seed), 0, 1))
    model: nn.Module = DistributedDataParallel(learner) if processes.size > 1 else learner
    mover = _Mover(learner, recipe)
    scores: list[float] = []

    def measure(epoch: int, train_loss: float | None) -> None:
        if score is not None:
            scores.append(score(user, item))
            val_loss = held_out_loss(learner, held) if held is not None else math.nan
            found = None if math.isnan(val_loss) else val_loss
            told({"epoch": epoch, "train_loss": train_loss, "val_loss": found, "score": scores[-1]})

    measure(0, None)
    best, kept = 0, _state(user, item) if score else None
    for epoch in range(1, until + 1):
        if not processes.share(tell(epoch)):
            break
        rng = np.random.default_rng((recipe.seed, epoch))
        order = rng.permutation(users)
        losses = 0.0
        for step in range(steps):
            batch = draw(examples, recipe, order[step * size : (step + 1) * size], rng, processes.rank, processes.size)
            with torch.enable_grad():
                loss = model(batch)
                loss.backward()
            losses += float(loss.detach())
            mover.move(SCHEDULES[recipe.schedule](((epoch - 1) * steps + step) / (recipe.epochs * steps)))
        measure(epoch, losses / steps)
        if score is None:
            best = epoch
        elif scores[-1] > scores[best]:
            best, kept = epoch, _state(user, item)
        if not processes.share(epoch - best < recipe.patience):
            break
    if kept is not None:
        user.load_state_dict(kept[0])
        item.load_state_dict(kept[1])
    return best, scores


def _state(*towers: nn.Module) -> tuple[dict[str, torch.Tensor], ...]:
    return tuple({name: value.clone() for name, value in tower.state_dict().items()} for tower in towers)


@torch.no_grad()
def _set_temperature(learner: Learner, batch: Batch) -> None:
    losses = []
    for temperature in TEMPERATURES:
        learner.log_temperature.fill_(float(np.log(temperature)))
        losses.append(float(learner(batch)))
    learner.log_temperature.fill_(float(np.log(TEMPERATURES[int(np.argmin(losses))])))


class _Mover:
    """Adam (Kingma, Ba 2015) that updates only the rows that a step uses, with their moments.

    Steps are relative to the size of the weights, and decay is towards their initial values.
    """

    def __init__(self, learner: Learner, recipe: Recipe) -> None:
        self.decay, self.step = recipe.decay, 0
        self.weights = [p for p in learner.parameters() if p.requires_grad]
        scalars = (learner.log_temperature, learner.offset)
        self.rates = [0.01 if any(p is s for s in scalars) else recipe.rate * _size(p) for p in self.weights]
        self.start = [p.detach().clone() for p in self.weights]
        self.mean, self.square = ([torch.zeros_like(p) for p in self.weights] for _ in range(2))

    @torch.no_grad()
    def move(self, part: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        """A step at ``part`` of the full rate by the gradients, which are then cleared."""
        self.step += 1
        correction = (1 - betas[1] ** self.step) ** 0.5 / (1 - betas[0] ** self.step)
        for weight, rate, start, mean, square in zip(
            self.weights, self.rates, self.start, self.mean, self.square, strict=True
        ):
            assert weight.grad is not None
            rows: Any = ...
            gradient = weight.grad
            if gradient.is_sparse:
                gradient = gradient.coalesce()
                rows, gradient = gradient.indices()[0], gradient.values()
            mean[rows] = betas[0] * mean[rows] + (1 - betas[0]) * gradient
            square[rows] = betas[1] * square[rows] + (1 - betas[1]) * gradient * gradient
            moved = weight[rows] - part * rate * correction * mean[rows] / (square[rows].sqrt() + 1e-8)
            weight[rows] = moved + part * self.decay * (start[rows] - moved)
            weight.grad = None


def _size(weights: torch.Tensor) -> float:
    """Root mean square of the weights that are not zero; for a table of zeros, that of a unit vector's entries."""
    present = weights.detach()[weights.detach() != 0]
    return float(present.square().mean().sqrt()) if len(present) else INNER**-0.5
