"""The trainer: no held-out row leaks, the same seed gives the same model, and it learns from the data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from synthetic import make_data
from two_tower.errors import UserError
from two_tower.features import LIKE, NOPE, SKIP, TrainingData, user_counts
from two_tower.trainer import evaluate
from two_tower.trainer.linear import ContentModel, Factors, HistoryModel, balance, low_rank_svd, to_torch
from two_tower.trainer.options import Choice, TrainOptions
from two_tower.trainer.part import Part
from two_tower.trainer.splits import split, split_in_time
from two_tower.trainer.train import TrainedModel, fit

pytestmark = pytest.mark.slow


def hold_out(data: TrainingData, seed: int = 0) -> np.ndarray:
    return split(data, ratio=0.25, min_likes=5, seed=seed)


def kept(data: TrainingData, rows: np.ndarray) -> TrainingData:
    return replace(data, user=data.user[rows], item=data.item[rows], label=data.label[rows], time=data.time[rows])


def outside(data: TrainingData, train: TrainingData, model: TrainedModel, held: np.ndarray) -> float:
    """Recall@20 on held-out likes that ``fit`` never saw in any form."""
    likes, nopes, skips = (train.matrix(label) for label in (LIKE, NOPE, SKIP))
    users = model.user_tower.embed(user_counts(train.schema, train.item_counts, likes, nopes))
    items = model.item_tower.embed(train.item_counts)
    seen = (likes + nopes + skips).tocsr()
    return evaluate.rank(evaluate.by_vectors(users, items), data.matrix(LIKE, held), seen).mean()["recall@20"]


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return make_data()


@pytest.fixture(scope="module")
def model(data: TrainingData) -> TrainedModel:
    return fit(data)


def test_a_split_takes_the_latest_where_times_differ() -> None:
    data = make_data(users=40, times=True)
    held = hold_out(data)
    for user in range(data.n_users):
        mine = data.user == user
        if held[mine].any():
            assert data.time[mine & held].min() >= data.time[mine & ~held].max()


def test_a_split_is_random_by_seed_where_times_are_equal(data: TrainingData) -> None:
    one, same, other = (hold_out(data, seed) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert one.mean() == pytest.approx(0.25, abs=0.03)


def test_users_with_few_likes_keep_them_all() -> None:
    data = make_data(users=50, each=8)
    held = split(data, ratio=0.5, min_likes=4, seed=0)
    likes = np.bincount(data.user[data.label == LIKE], minlength=50)
    assert not held[np.isin(data.user, np.flatnonzero(likes < 4))].any()
    assert held.any()


def test_a_split_in_time_holds_out_all_that_came_later() -> None:
    data = make_data(users=60, times=True)
    held = split_in_time(data, ratio=0.2)
    assert data.time[held].min() > data.time[~held].max()
    labelled = data.label != SKIP
    assert held[labelled].mean() == pytest.approx(0.2, abs=0.01)


def test_rows_of_equal_or_no_time_stay_on_one_side_of_the_split() -> None:
    data = make_data(users=60, times=True)
    coarse = replace(data, time=np.where(data.user % 3 == 0, 0.0, np.round(data.time / 250_000) * 250_000 + 1))
    held = split_in_time(coarse, ratio=0.3)
    assert held.any()
    assert not held[coarse.time == 0].any()
    for time in np.unique(coarse.time):
        assert len(np.unique(held[coarse.time == time])) == 1


def test_a_split_in_time_needs_times_that_differ(data: TrainingData) -> None:
    with pytest.raises(UserError, match="no point in time"):
        fit(data, TrainOptions(split="temporal"))


def test_users_without_a_history_before_the_point_in_time_are_left_out() -> None:
    data = make_data(users=120, times=True)
    late = data.user % 4 == 0
    data = replace(data, time=np.where(late, 2e6 + data.time, data.time))
    model = fit(data, TrainOptions(split="temporal", val_ratio=0.4, max_seconds=0))
    assert 0 < model.metrics["two-tower"]["users"] <= 90  # 30 of 120 came after it
    assert model.hyperparameters["split_at"] > "1970"


def test_a_training_without_users_to_measure_says_so() -> None:
    data = make_data(users=40, times=True)
    data = replace(data, time=(data.user >= 30).astype(np.float64))  # all who came later are new
    with pytest.raises(UserError, match="nobody with a history"):
        fit(data, TrainOptions(split="temporal", val_ratio=0.25))


@pytest.mark.parametrize("temporal", [False, True])
def test_held_out_rows_do_not_influence_the_measured_towers(temporal: bool) -> None:
    """Rows, target items and vocabularies: the result is the same as if held-out rows did not exist."""
    data = make_data(users=60, items=240, each=8, times=True)
    held = split_in_time(data, ratio=0.3) if temporal else hold_out(data)
    later = np.setdiff1d(data.item[held & (data.label == LIKE)], data.item[~held & (data.label == LIKE)])
    assert len(later) > 5  # liked among the held-out rows alone
    one = Part(data, ~held, TrainOptions())
    other = Part(kept(data, ~held), np.ones(int((~held).sum()), dtype=bool), TrainOptions())
    for ours, theirs in zip(one.towers(Choice()), other.towers(Choice()), strict=True):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    known = data.schema.segment("item", "id").slice
    assert one.item_counts[later][:, known].nnz == 0


def test_no_held_out_row_is_in_the_features_that_predict_it(data: TrainingData) -> None:
    held = hold_out(data)
    part = Part(data, ~held, TrainOptions())
    counts = user_counts(data.schema, data.item_counts, part.likes, part.nopes).toarray()
    liked, noped = (data.schema.segment("user", f"{kind}_video_ids").slice for kind in ("liked", "noped"))
    ids = data.item_counts[:, data.schema.segment("item", "id").slice].toarray()
    for user, item in zip(data.user[held], data.item[held], strict=True):
        assert counts[user, liked] @ ids[item] == 0
        assert counts[user, noped] @ ids[item] == 0
    assert counts[:, 0].sum() == (data.label[~held] == LIKE).sum()
    assert counts[:, data.schema.segment("user", "liked_tags").slice].sum() == (data.label[~held] == LIKE).sum()


def test_held_out_labels_do_not_change_the_validation_towers(data: TrainingData) -> None:
    """With all held-out labels inverted, the towers that are measured on them are the same, bit for bit."""
    held = hold_out(data)
    turned = replace(data, label=np.where(held, 1 - data.label, data.label).astype(np.int8))
    towers = [Part(d, ~held, TrainOptions()).towers(Choice()) for d in (data, turned)]
    for one, other in zip(*towers, strict=True):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


def test_leaving_out_an_item_equals_a_subtraction(data: TrainingData) -> None:
    likes, nopes = data.matrix(LIKE), data.matrix(NOPE)
    one = sparse.csr_matrix(([1.0], ([0], [likes[0].indices[0]])), shape=likes.shape, dtype=np.float32)
    nothing = sparse.csr_matrix(likes.shape, dtype=np.float32)
    less = user_counts(data.schema, data.item_counts, (likes - one).tocsr(), nopes)
    difference = user_counts(data.schema, data.item_counts, likes, nopes) - user_counts(
        data.schema, data.item_counts, one, nothing
    )
    assert abs(less - difference).max() == 0


def test_no_item_predicts_itself() -> None:
    """The factors at full rank are EASE^R: every column is the ridge regression on the other items."""
    rng = np.random.default_rng(0)
    likes = sparse.csr_matrix((rng.random((40, 9)) < 0.4).astype(np.float32))
    nothing = sparse.csr_matrix((40, 9), dtype=np.float32)
    model = HistoryModel(likes, nothing, nothing, user_power=0.0)
    factors = model.solve(3.0, 9)
    scores = (to_torch(likes) @ factors.like @ factors.item.T).numpy()
    assert np.allclose(scores, evaluate.by_ease(likes, 3.0)(np.arange(40)), atol=1e-3)


def test_a_truncated_spectrum_comes_close_to_the_exact_one(data: TrainingData) -> None:
    labels = [data.matrix(label) for label in (LIKE, NOPE, SKIP)]
    exact, truncated = (HistoryModel(*labels, exact=limit, rank=160).solve(100.0, 32) for limit in (data.n_users, 10))
    one, other = ((to_torch(labels[0]) @ f.like @ f.item.T).numpy().ravel() for f in (exact, truncated))
    assert np.corrcoef(one, other)[0, 1] > 0.99


def test_randomised_svd_finds_the_leading_triplets() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(60, 20, generator=generator) @ torch.randn(20, 80, generator=generator)
    u, s, v = low_rank_svd(lambda q: matrix @ q, lambda q: matrix.T @ q, 80, 20, iterations=4, seed=0)
    assert torch.allclose(s, torch.linalg.svdvals(matrix)[:20], rtol=1e-3)
    assert torch.allclose(u * s @ v.T, matrix, atol=1e-2)


def test_balancing_moves_spread_and_keeps_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    like, nope, item = (torch.randn(n, 4, generator=generator) * torch.tensor([9.0, 3, 1, 0.3]) for n in (30, 30, 30))
    tastes = torch.randn(50, 30, generator=generator) @ like
    moved = balance(Factors(like, nope, item), tastes, length=1.0)
    assert torch.allclose(moved.like @ moved.item.T, like @ item.T, rtol=1e-3, atol=1e-2)
    assert torch.allclose(moved.nope @ moved.item.T, nope @ item.T, rtol=1e-3, atol=1e-2)
    level = balance(Factors(like, nope, item), tastes, length=0.0).item.norm(dim=1)
    assert torch.allclose(level, torch.ones(30))


def test_leave_one_out_equals_refitting_without_the_item() -> None:
    generator = torch.Generator().manual_seed(0)
    features, target = torch.rand(12, 3, generator=generator), torch.rand(12, 2, generator=generator)
    likes = torch.full((12,), 100.0)
    model = ContentModel(features, features, likes, square_width=0.25)
    _, bias, left_out = model.solve(target, 0.1)
    rest = torch.arange(12) != 4
    gram = (model.basis[rest] * model.weight[rest]).T @ model.basis[rest] + 0.1 * torch.eye(12)
    solution = torch.linalg.solve(gram, model.basis[rest].T @ (model.weight[rest] * (target[rest] - bias)))
    assert torch.allclose(left_out[4], bias + model.basis[4] @ solution, atol=1e-3)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("spread", [0.0, 1e-4, 1e-2])
def test_videos_that_are_almost_the_same_are_placed(spread: float) -> None:
    generator = torch.Generator().manual_seed(0)
    features = 1 + spread * torch.rand(1000, 3, generator=generator)
    model = ContentModel(features, features, torch.full((1000,), 50.0), square_width=1.0)
    outward, bias, left_out = model.solve(torch.rand(1000, 2, generator=generator), 0.1)
    assert all(bool(torch.isfinite(each).all()) for each in (outward, bias, left_out))
    assert float((left_out - 0.5).abs().max()) < 0.3


def test_a_catalogue_without_content_has_one_centre() -> None:
    data = make_data(tags=False)
    blank = data.item_counts.tolil()
    blank[:, :3] = 0
    part = Part(replace(data, item_counts=blank.tocsr()), np.ones(len(data.user), bool), TrainOptions())
    assert len(part.centres) == 1
    assert len(part.towers(Choice())[1].centres) == 16


def test_training_beats_popularity_and_shuffled_likes_do_not(data: TrainingData) -> None:
    held = hold_out(data, 9)
    train = kept(data, ~held)
    rng = np.random.default_rng(0)
    shuffled = replace(train, item=rng.permutation(train.item))
    pairs = np.unique(np.stack([shuffled.user, shuffled.item]), axis=1, return_index=True)[1]
    real, nonsense = (outside(data, train, fit(t), held) for t in (train, kept(shuffled, pairs)))
    popular = evaluate.by_popularity(train.matrix(LIKE))
    baseline = evaluate.rank(popular, data.matrix(LIKE, held), train.matrix(LIKE)).mean()["recall@20"]
    assert real > 1.5 * baseline
    assert nonsense < 0.6 * real


def test_new_items_are_placed_near_similar_ones() -> None:
    data = make_data(items=150, new_items=24)
    model = fit(data)
    likes, nopes = data.matrix(LIKE), data.matrix(NOPE)
    users = model.user_tower.embed(user_counts(data.schema, data.item_counts, likes, nopes))
    items = model.item_tower.embed(data.item_counts)
    new = np.arange(126, 150)
    mine = (new[None, :] % 6) == (np.arange(data.n_users)[:, None] % 6)
    relevant = sparse.csr_matrix((mine.astype(np.float32).ravel(), np.indices(mine.shape).reshape(2, -1)), mine.shape)
    found = evaluate.rank(lambda rows: (users @ items[new].T)[rows], relevant, k=4).mean()
    assert found["recall@4"] > 0.9


def test_a_like_of_an_item_without_an_id_counts() -> None:
    data = make_data(items=150, new_items=24)
    model = fit(data)
    likes = sparse.csr_matrix((np.ones(2, dtype=np.float32), ([0, 0], [126, 132])), shape=(1, 150))  # both of group 0
    users = model.user_tower.embed(user_counts(data.schema, data.item_counts, likes, likes * 0))
    score = (users @ model.item_tower.embed(data.item_counts).T)[0, :126]
    of_kind = np.arange(126) % 6 == 0
    assert score[of_kind].mean() > score[~of_kind].mean()


def test_the_same_seed_gives_the_same_model(data: TrainingData, model: TrainedModel) -> None:
    again = fit(data)
    for one, other in ((model.user_tower, again.user_tower), (model.item_tower, again.item_tower)):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    assert again.metrics == model.metrics


def test_metrics_are_those_of_the_validation_split(data: TrainingData, model: TrainedModel) -> None:
    metrics = model.metrics["two-tower"]
    assert metrics["recall@20"] > model.metrics["popularity"]["recall@20"]
    assert metrics["users"] > 50
    low, high = metrics["interval"]["recall@20"]
    assert low <= metrics["recall@20"] <= high
    assert set(model.normalizer()["item_numeric"]) == {"price", "duration_seconds", "released_days"}
    assert model.hyperparameters["ridge"] > 0
    assert len(model.history) >= 10


def test_time_that_has_run_out_ends_the_search(data: TrainingData) -> None:
    hurried = fit(data, TrainOptions(max_seconds=0.0))
    assert len(hurried.history) < 6
    assert hurried.metrics["two-tower"]["recall@20"] > hurried.metrics["popularity"]["recall@20"]


def test_progress_only_grows(data: TrainingData) -> None:
    shares: list[float] = []
    fit(data, TrainOptions(max_seconds=0.0), lambda _, share: shares.append(share))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize("seed", range(6))
def test_likes_without_common_items_train_too(seed: int) -> None:
    """If no held-out like is of a video that is known without it, nothing can be chosen by validation."""
    data = make_data(users=4, items=300, each=9, groups=2, tags=True, seed=seed)
    model = fit(data)
    assert np.isfinite(model.item_tower.embed(data.item_counts)).all()


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("users", "items", "each"), [(0, 5, 3), (5, 0, 0), (4, 4, 0), (1, 3, 2), (12, 6, 5), (40, 12, 6)]
)
@pytest.mark.parametrize("tags", [True, False])
def test_tiny_data_trains_too(users: int, items: int, each: int, tags: bool) -> None:
    data = make_data(users=users, items=items, each=each, groups=2, tags=tags)
    model = fit(data)
    likes, nopes = data.matrix(LIKE), data.matrix(NOPE)
    vectors = model.user_tower.embed(user_counts(data.schema, data.item_counts, likes, nopes))
    for found in (vectors, model.item_tower.embed(data.item_counts)):
        assert np.isfinite(found).all()
        assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
