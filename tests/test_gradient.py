"""Training by gradients: no target predicts itself, nothing gets worse, two processes do as one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from synthetic import make_data
from two_tower.errors import UserError
from two_tower.features import LIKE, NOPE, SKIP, FeatureSchema, TrainingData, user_counts
from two_tower.trainer import evaluate, gradient
from two_tower.trainer.export import export_towers
from two_tower.trainer.gradient import Batch, Learner, Recipe, draw
from two_tower.trainer.model import ItemTower, UserTower
from two_tower.trainer.options import Choice, TrainOptions
from two_tower.trainer.part import Part
from two_tower.trainer.splits import split
from two_tower.trainer.train import fit

pytestmark = pytest.mark.slow


KINDS = ("whole", "sampled", "bce")
RECIPE = {kind: Recipe(epochs=3, batch=48, loss="bce" if kind == "bce" else "softmax") for kind in KINDS}


def whole(kind: str) -> int:
    """Items up to which the softmax is over all of them."""
    return 20_000 if kind == "whole" else 10


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return make_data()


@pytest.fixture(scope="module")
def part(data: TrainingData) -> Part:
    return Part(data, ~split(data, ratio=0.25, min_likes=5, seed=0), TrainOptions())


@pytest.fixture(params=KINDS)
def recipe(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(gradient, "WHOLE", whole(request.param))
    return RECIPE[request.param]


def start(part: Part, seed: int = 0) -> tuple[UserTower, ItemTower]:
    """Towers that know the content layer's centres and nothing else: small random weights."""
    user, item = part.towers(Choice())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in (user.weight, item.own):
            weights.normal_(0, 0.05, generator=generator)
        for weights in (user.bias, item.outward, item.bias):
            weights.zero_()
    return user, item


def score(part: Part, data: TrainingData) -> gradient.Score:
    """NDCG@20 on what ``part`` does not hold."""
    relevant = (data.matrix(LIKE) - part.likes).tocsr()
    relevant.eliminate_zeros()

    def measure(user: UserTower, item: ItemTower) -> float:
        scorer = part.scorer(user, item, np.arange(data.n_users))
        return evaluate.rank(scorer, relevant, part.seen()).mean()["ndcg@20"]

    return measure


def one_batch(part: Part, recipe: Recipe, rank: int = 0, size: int = 1) -> tuple[Batch, np.ndarray]:
    rows = np.arange(40)
    return draw(part.examples(), recipe, rows, np.random.default_rng(1), rank, size), rows[rank::size]


def targets(batch: Batch, recipe: Recipe) -> list[tuple[int, int]]:
    """(row of the batch, item) of every like that the batch asks for."""
    loss = batch.loss
    if recipe.loss == "bce":
        liked = loss["label"] == 1
        return list(zip(loss["row"][liked].tolist(), batch.items[loss["column"][liked]].tolist(), strict=True))
    if "targets" in loss:
        row, column = loss["targets"].nonzero(as_tuple=True)
        return list(zip(row.tolist(), batch.items[column].tolist(), strict=True))
    return list(zip(loss["row"].tolist(), batch.items[loss["candidates"][loss["positive"]]].tolist(), strict=True))


def test_no_target_is_among_the_features_that_predict_it(data: TrainingData, part: Part, recipe: Recipe) -> None:
    batch, rows = one_batch(part, recipe)
    liked, noped = (data.schema.segment("user", f"{kind}_video_ids").slice for kind in ("liked", "noped"))
    tags = data.schema.segment("user", "liked_tags").slice
    inputs, ids = batch.inputs.toarray(), data.item_counts[:, data.schema.segment("item", "id").slice].toarray()
    asked = targets(batch, recipe)
    assert len(asked) > 40
    for row, item in asked:
        assert part.likes[rows[row], item] == 1
        assert inputs[row, liked] @ ids[item] == 0
        assert inputs[row, noped] @ ids[item] == 0
    assert np.array_equal(inputs[:, tags].sum(axis=1), inputs[:, 0])  # one tag per like that is in the input
    assert np.array_equal(inputs[:, liked].sum(axis=1), inputs[:, 0])


def test_no_known_item_is_drawn_as_unknown(part: Part, recipe: Recipe) -> None:
    batch, rows = one_batch(part, recipe)
    examples, loss = part.examples(), batch.loss
    if recipe.loss == "bce":
        refused = loss["label"] == 0
        pairs = rows[loss["row"][refused]], batch.items[loss["column"][refused]]
        known, noped = (np.asarray(m[pairs]).ravel() for m in (examples.known, examples.nopes))
        assert np.array_equal(known, noped)  # the others that count 0 are nopes
        assert (known == 0).sum() > 100
        return
    candidates = batch.items[loss["candidates"]] if "candidates" in loss else batch.items
    row = rows[loss["row"]] if "row" in loss else rows
    known = examples.known[row][:, candidates].toarray() > 0
    counts = ~loss["masked"].numpy()
    allowed = examples.nopes[row][:, candidates].toarray() > 0
    wanted = np.zeros_like(known)
    if "targets" in loss:
        wanted = loss["targets"].numpy() > 0
        assert candidates.tolist() == examples.met.tolist()
    else:
        wanted[np.arange(len(row)), loss["positive"]] = True
    assert not (counts & known & ~allowed & ~wanted).any()
    assert loss["negatives"].any()
    assert not (loss["negatives"].numpy() & ~allowed).any()


def test_it_learns_from_nothing(data: TrainingData, part: Part, recipe: Recipe) -> None:
    user, item = start(part)
    best, scores = gradient.train(
        user, item, part.examples(), replace(recipe, epochs=6, rate=0.3), score=score(part, data)
    )
    popular = evaluate.rank(
        evaluate.by_popularity(part.likes), data.matrix(LIKE) - part.likes, part.seen(), auc=False
    ).mean()["ndcg@20"]
    assert best > 0
    assert scores[best] == max(scores) > 1.2 * max(popular, scores[0])
    assert score(part, data)(user, item) == scores[best]


def test_training_that_only_spoils_leaves_the_towers_as_they_came(data: TrainingData, part: Part) -> None:
    user, item = part.towers(Choice())
    before = {name: value.clone() for tower in (user, item) for name, value in tower.state_dict().items()}
    declining = iter(range(0, -100, -1))
    best, scores = gradient.train(
        user, item, part.examples(), Recipe(epochs=9, batch=32, patience=2), score=lambda *_: float(next(declining))
    )
    assert (best, len(scores)) == (0, 3)
    after = {name: value for tower in (user, item) for name, value in tower.state_dict().items()}
    assert all(torch.equal(before[name], value) for name, value in after.items())


def test_dropped_ids_teach_content_where_new_items_belong() -> None:
    data = make_data(items=150, new_items=24)
    part = Part(data, np.ones(len(data.user), dtype=bool), TrainOptions())
    user, item = start(part)
    gradient.train(user, item, part.examples(), Recipe(epochs=20, rate=0.1, batch=32, id_dropout=0.3))
    users = user.embed(user_counts(data.schema, data.item_counts, data.matrix(LIKE), data.matrix(NOPE)))
    new = np.arange(126, 150)
    mine = (new[None, :] % 6) == (np.arange(data.n_users)[:, None] % 6)
    vectors = item.embed(data.item_counts)[new]
    found = evaluate.rank(evaluate.by_vectors(users, vectors), sparse.csr_matrix(mine.astype(np.float32)), k=4).mean()
    assert found["recall@4"] > 0.8  # by chance: 1/6


def test_a_step_moves_the_rows_it_touches_and_no_others(part: Part, recipe: Recipe) -> None:
    user, item = start(part)
    learner = Learner(user, item, part.examples(), recipe)
    mover = gradient._Mover(learner, recipe)
    batch, _ = one_batch(part, recipe)
    before = user.weight.detach().clone()
    learner(batch).backward()
    mover.move(1.0)
    moved = (user.weight.detach() != before).any(dim=1).numpy()
    touched = np.asarray((batch.inputs != 0).sum(axis=0)).ravel() > 0
    assert moved.any()
    assert not (moved & ~touched).any()
    assert not touched.all()


def test_the_same_seed_trains_the_same_towers(part: Part, recipe: Recipe) -> None:
    towers = []
    for seed in (0, 0, 1):
        user, item = start(part)
        gradient.train(user, item, part.examples(), replace(recipe, epochs=2, seed=seed))
        towers.append(user.weight.detach())
    assert torch.equal(towers[0], towers[1])
    assert not torch.equal(towers[0], towers[2])


def test_the_shares_of_two_processes_make_up_the_whole(part: Part, recipe: Recipe) -> None:
    user, item = start(part)
    learner = Learner(user, item, part.examples(), recipe)
    whole, first, second = (learner(one_batch(part, recipe, rank, size)[0]) for rank, size in ((0, 1), (0, 2), (1, 2)))
    assert ((first + second) / 2).item() == pytest.approx(whole.item(), rel=1e-5)


def test_validation_loss_falls_during_training(part: Part, data: TrainingData, recipe: Recipe) -> None:
    held = data.matrix(LIKE, ~part.rows)
    users = np.flatnonzero(np.diff(held.indptr))
    asked = gradient.HeldOut(users, held[users], data.matrix(NOPE, ~part.rows)[users])
    user, item = start(part)
    told: list[dict[str, float]] = []
    quiet = replace(recipe, patience=99)
    gradient.train(user, item, part.examples(), quiet, score=score(part, data), held=asked, told=told.append)
    assert [entry["epoch"] for entry in told] == [0, 1, 2, 3]
    assert told[0]["train_loss"] is None
    assert told[3]["val_loss"] < told[1]["val_loss"] < told[0]["val_loss"]
    assert told[3]["train_loss"] < told[1]["train_loss"]


def test_validation_loss_is_the_softmax_over_unseen_items(part: Part, data: TrainingData) -> None:
    held = data.matrix(LIKE, ~part.rows)
    users = np.flatnonzero(np.diff(held.indptr))[:7]
    user, item = start(part)
    with torch.no_grad():
        user.weight[1 : data.schema.user[0].size] = 0  # numbers that training leaves as they are
    learner = Learner(user, item, part.examples(), replace(RECIPE["whole"], nope_weight=0.0))
    scores = part.scorer(user, item, users)(np.arange(len(users))) / float(learner.log_temperature.detach().exp())
    losses = []
    for row, of in enumerate(users):
        unknown = np.setdiff1d(part.examples().met, part.seen()[of].indices)
        wanted = np.intersect1d(held[of].indices, unknown)
        if len(wanted):
            losses.append(np.log(np.exp(scores[row, unknown]).sum()) - scores[row, wanted].mean())
    asked = gradient.HeldOut(users, held[users], data.matrix(NOPE, ~part.rows)[users])
    for block in (2, 512):
        assert gradient.held_out_loss(learner, asked, block) == pytest.approx(np.mean(losses), rel=1e-3)


@pytest.mark.parametrize("name", gradient.SCHEDULES)
def test_steps_begin_whole_and_never_grow(name: str) -> None:
    steps = [gradient.SCHEDULES[name](done) for done in np.linspace(0, 1, 21)]
    assert steps[0] == 1
    assert all(after <= before for before, after in pairwise(steps))
    assert steps[-1] == pytest.approx(1 if name == "constant" else 0)


def test_users_without_attributes_are_counted_by_videos_alone(part: Part, data: TrainingData, recipe: Recipe) -> None:
    bare = replace(recipe, attributes=False)
    batch = draw(part.examples(), bare, np.arange(40), np.random.default_rng(0), 0, 1)
    first = data.schema.segment("user", "liked_video_ids").offset
    assert batch.inputs.nnz
    assert batch.inputs.indices.min() >= first
    model = fit(data, TrainOptions(epochs=1, loss=recipe.loss, user_attributes=False))
    assert not model.user_tower.weight[:first].any()
    assert model.user_tower.weight[first:].any()


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_epochs_after_the_closed_form_do_not_make_it_worse(data: TrainingData, loss: str) -> None:
    closed = fit(data)
    model = fit(data, TrainOptions(epochs=2, loss=loss))
    scores = [entry["score"] for entry in model.history if "epoch" in entry]
    assert scores[model.hyperparameters["best_epoch"]] == max(scores)
    if model.hyperparameters["best_epoch"] == 0:
        assert model.metrics == closed.metrics
    assert None not in export_towers(model.user_tower, model.item_tower)  # ONNX agrees with torch, else it raises


@pytest.mark.parametrize(("users", "items", "each"), [(5, 4, 0), (1, 3, 2), (12, 6, 5)])
def test_tiny_data_trains_by_gradients_too(users: int, items: int, each: int) -> None:
    data = make_data(users=users, items=items, each=each, groups=2)
    model = fit(data, TrainOptions(epochs=2))
    found = model.item_tower.embed(data.item_counts)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def torchrun(script: Path | str, *arguments: str | Path, environment: dict[str, str] | None = None) -> str:
    """Standard output of two processes that torchrun starts; they must end well."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    target = [str(script)] if isinstance(script, Path) else ["-m", script]
    done = subprocess.run(
        [*run, *target, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SCRIPT = """
import sys
import torch
from safetensors.torch import save_file
from synthetic import make_data
from test_gradient import RECIPE, start, whole
from two_tower.trainer import gradient
from two_tower.trainer.options import TrainOptions
from two_tower.trainer.part import Part
from two_tower.trainer.splits import split

kind, file = sys.argv[1:]
gradient.WHOLE = whole(kind)
with gradient.joined() as processes:
    if processes.rank:
        gradient.follow(processes)
    else:
        data = make_data()
        part = Part(data, ~split(data, ratio=0.25, min_likes=5, seed=0), TrainOptions())
        towers = start(part)
        gradient.train(*towers, part.examples(), RECIPE[kind], processes=processes)
        named = {f"{at}.{k}": v for at, tower in enumerate(towers) for k, v in tower.state_dict().items()}
        save_file(named, file)
"""


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_what_one_does(
    part: Part, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    monkeypatch.setattr(gradient, "WHOLE", whole(kind))
    (tmp_path / "script.py").write_text(SCRIPT)
    torchrun(tmp_path / "script.py", kind, tmp_path / "weights")
    two = load_file(tmp_path / "weights")
    came, towers = start(part), start(part)
    gradient.train(*towers, part.examples(), RECIPE[kind])
    for at, (tower, before) in enumerate(zip(towers, came, strict=True)):
        for name, value in tower.state_dict().items():
            # Within a hundredth of the way that training went.
            way = (value - before.state_dict()[name]).abs().max().item()
            assert (two[f"{at}.{name}"] - value).abs().max().item() <= 0.01 * way + 1e-7, name


LABELS = {
    "likes": (LIKE,),
    "likes and nopes": (LIKE, NOPE),
    "nopes": (NOPE,),
    "skips": (SKIP,),
    "one of each": (0, 1, -1),
}


def smallest(users: int, items: int, labels: tuple[int, ...]) -> TrainingData:
    """Everybody decides on everything, in turn by these labels; videos with two likes have an id of their own."""
    user, item = (axis.ravel().astype(np.int32) for axis in np.indices((users, items)))
    label = np.array([labels[(u + i) % len(labels)] for u, i in zip(user, item, strict=True)], dtype=np.int8)
    likes = np.bincount(item[label == LIKE], minlength=items)
    known = np.flatnonzero(likes >= 2)
    data = make_data(users=0, items=items, groups=1)
    keys = {**data.schema.vocabularies, "video": tuple(str(data.item_ids[at]) for at in known)}
    schema = FeatureSchema(keys, data.schema.recency)
    ids = np.zeros((items, len(known)), dtype=np.float32)
    ids[known, np.arange(len(known))] = 1
    content = data.item_counts[:, : data.schema.segment("item", "id").offset]
    return replace(
        data,
        user_ids=np.array([f"user-{n}" for n in range(users)], dtype=str),
        user=user,
        item=item,
        label=label,
        time=np.zeros(len(user)),
        schema=schema,
        item_counts=sparse.hstack([content, sparse.csr_matrix(ids)], format="csr", dtype=np.float32),
    )


@pytest.mark.sampled(6)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", LABELS)
def test_the_smallest_worlds_train_or_are_refused_before_the_work(
    kind: str, labels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient, "WHOLE", 20_000 if kind == "whole" else 0)
    loss = "bce" if kind == "bce" else "softmax"
    for (users, items), seed in product([(0, 2), (1, 1), (1, 6), (2, 2), (3, 1), (6, 6)], (0, 1)):
        data = smallest(users, items, LABELS[labels])
        options = TrainOptions(epochs=1, loss=loss, seed=seed)
        model = fit(data, options)
        found = user_counts(data.schema, data.item_counts, data.matrix(LIKE), data.matrix(NOPE))
        for vectors in (model.user_tower.embed(found), model.item_tower.embed(data.item_counts)):
            assert np.isfinite(vectors).all(), (users, items, seed)
        if not model.metrics:
            told: list[str] = []

            def tell(what: str, share: float, told: list[str] = told) -> None:
                told.append(what)

            with pytest.raises(UserError, match="cannot be measured"):
                fit(data, options, tell, to_register=True)
            assert told == [], "it is said before the work"
