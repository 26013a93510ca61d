"""Neighbours and recency: they add what towers cannot represent, and are not chosen if there is nothing to add."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load
from scipy import sparse

from synthetic import make_data
from two_tower.features import LIKE, NOPE, SKIP, TrainingData, user_counts
from two_tower.neighbours import from_tensors
from two_tower.trainer import evaluate, items
from two_tower.trainer.export import export_towers
from two_tower.trainer.linear import Factors, to_torch
from two_tower.trainer.options import Choice, TrainOptions
from two_tower.trainer.part import Part
from two_tower.trainer.train import fit

pytestmark = pytest.mark.slow


def dense(table: items.Table) -> np.ndarray:
    """The table as a dense array."""
    return np.asarray(table.toarray() if isinstance(table, sparse.csr_matrix) else table)


def made_of(rows: list[tuple[int, int, int, float]], users: int, videos: int) -> TrainingData:
    """User, item, label and time of each decision, on a catalogue without content."""
    data = make_data(users=users, items=videos, each=0, tags=False)
    user, item, label, time = np.array(sorted(rows, key=lambda row: (row[0], row[3], row[1]))).T
    keys = {**data.schema.vocabularies, "video": tuple(data.item_ids)}
    counts = sparse.hstack([data.item_counts[:, :3] * 0, sparse.identity(videos)], format="csr", dtype=np.float32)
    return replace(
        data,
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        label=label.astype(np.int8),
        time=time.astype(np.float64),
        schema=type(data.schema)(keys),
        item_counts=counts,
    )


def pairs(users: int, pairs: int, each: int, seed: int) -> TrainingData:
    """Users who like one of two paired videos like the other; which pairs, is random."""
    rng = np.random.default_rng(seed)
    chosen = [(u, int(p)) for u in range(users) for p in rng.choice(pairs, each, replace=False)]
    return made_of([(u, 2 * p + side, LIKE, 0.0) for u, p in chosen for side in (0, 1)], users, 2 * pairs)


def noise(users: int, videos: int, each: int, seed: int, *, times: bool) -> TrainingData:
    rng = np.random.default_rng(seed)
    rows = [
        (u, int(v), LIKE, float(place) if times else 0.0)
        for u in range(users)
        for place, v in enumerate(rng.choice(videos, each, replace=False))
    ]
    return made_of(rows, users, videos)


def drift(users: int, groups: int, size: int, each: int, seed: int) -> TrainingData:
    """Tastes change: every user likes videos of one group after those of another."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        before, after = rng.choice(groups, 2, replace=False)
        for half, group in enumerate((before, after)):
            liked = rng.choice(size, each, replace=False) * groups + group
            rows += [(user, int(v), LIKE, float(half * each + place)) for place, v in enumerate(liked)]
    return made_of(rows, users, groups * size)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", [0, 1])
def test_pairs_beyond_the_rank_are_found_by_neighbours(seed: int) -> None:
    """300 unrelated pairs do not fit into 127 dimensions."""
    model = fit(pairs(400, 300, 12, seed))
    assert model.neighbours is not None
    assert 0 < np.diff(model.neighbours.indptr).max() <= model.hyperparameters["neighbours"]
    assert model.hyperparameters["recency"] == 0
    alone = [entry["recall@20"] for entry in model.history if entry.get("neighbours") == 0]
    assert model.metrics["two-tower"]["recall@20"] > max(alone) + 0.05
    pair = model.neighbours.tocoo()
    keys = np.array([int(key.removeprefix("video-")) for key in model.schema.vocabularies["video"]])
    together = (keys[pair.row] ^ 1) == keys[pair.col]
    assert pair.data[together].mean() > 3 * pair.data[~together].mean()
    assert together.sum() > 0.9 * len(keys)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("times", [False, True])
def test_random_likes_choose_neither_neighbours_nor_recency(seed: int, times: bool) -> None:
    model = fit(noise(300, 200, 12, seed, times=times))
    assert model.neighbours is None
    assert model.hyperparameters["neighbours"] == 0
    assert model.hyperparameters["recency"] == model.schema.recency == 0


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", [0, 1])
def test_changing_tastes_choose_recency(seed: int) -> None:
    data = drift(300, 8, 40, 10, seed)
    model = fit(data)
    assert model.hyperparameters["recency"] == model.schema.recency > 0
    assert model.schema.to_json()["user"]["recency"] == model.schema.recency
    assert model.hyperparameters["held_out"] == "the newest of each user"
    still = fit(replace(data, time=np.zeros(len(data.time))))
    assert still.schema.recency == 0
    assert still.hyperparameters["held_out"] == "a random part of each user's"


def test_a_table_without_weights_equals_ease() -> None:
    likes = sparse.csr_matrix((np.random.default_rng(0).random((60, 12)) < 0.4).astype(np.float32))
    (table,) = items.tables(likes, [7.0], user_power=0, item_power=0)
    assert np.allclose(items.scores(table, likes), evaluate.by_ease(likes, 7.0)(np.arange(60)), atol=1e-4)


def every(matrix: sparse.csr_matrix, most: int) -> sparse.csr_matrix:
    """All entries, including negative ones, which regressions do not select otherwise."""
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix


@pytest.mark.parametrize("direction", [0.0, 0.3])
@pytest.mark.parametrize(("user_power", "item_power"), [(0.0, 0.0), (0.4, 0.25), (0.75, 0.5)])
def test_local_regressions_on_all_videos_equal_the_exact_one(
    user_power: float, item_power: float, direction: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    likes = sparse.csr_matrix((rng.random((80, 14)) < 0.4).astype(np.float32))
    order = likes.copy()
    order.data = rng.random(likes.nnz).astype(np.float32)
    how: dict[str, Any] = {
        "user_power": user_power,
        "item_power": item_power,
        "order": order,
        "direction": direction,
    }
    whole = list(items.tables(likes, [3.0, 40.0], **how))
    monkeypatch.setattr(items, "EXACT", 0)
    monkeypatch.setattr(items, "largest", every)
    local = list(items.tables(likes, [3.0, 40.0], **how))
    for one, other in zip(whole, local, strict=True):
        assert isinstance(other, sparse.csr_matrix)
        assert np.allclose(one, other.toarray(), atol=1e-4)


@pytest.mark.parametrize("direction", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("window", [50, 3])
def test_direction_weighs_later_likes_more_than_earlier_ones(
    direction: float, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each column equals ridge regression without its own row, on pairs that are counted one by one."""
    monkeypatch.setattr(items, "WINDOW", window)
    rng = np.random.default_rng(5)
    likes = sparse.csr_matrix((rng.random((60, 9)) < 0.5).astype(np.float32))
    order = likes.copy()
    order.data = rng.integers(1, 6, likes.nnz).astype(np.float32)  # with ties
    (table,) = items.tables(likes, [10.0], user_power=0.5, item_power=0, order=order, direction=direction)
    count = np.asarray(likes.sum(axis=1)).ravel().clip(1)
    weight = (count / count.mean()) ** -0.5
    times, known = order.toarray(), likes.toarray()
    target = (known * weight[:, None]).T @ known
    for user in range(60):
        place = sorted(np.flatnonzero(known[user]), key=lambda video: (times[user, video], video))
        for one, first in enumerate(place):
            for second in place[one + 1 : one + 1 + window]:
                if times[user, second] > times[user, first]:
                    target[first, second] += direction * weight[user]
                    target[second, first] -= direction * weight[user]
    gram = (known * weight[:, None]).T @ known + 10 * np.eye(9)
    for video in range(9):
        others = np.delete(np.arange(9), video)
        expected = np.linalg.solve(gram[np.ix_(others, others)], target[others, video])
        assert np.allclose(np.asarray(table)[others, video], expected, atol=1e-4)


def test_direction_without_an_order_has_no_effect() -> None:
    likes = sparse.csr_matrix((np.random.default_rng(6).random((60, 12)) < 0.4).astype(np.float32))
    alike = likes.copy()
    found = [
        next(items.tables(likes, [7.0], user_power=0.4, item_power=0.25, order=order, direction=direction))
        for order, direction in ((None, 0.0), (None, 0.3), (alike, 0.3))
    ]
    assert np.allclose(found[0], found[1])
    assert np.allclose(found[0], found[2], atol=1e-6)


def test_a_very_large_ridge_gives_counts_of_common_likers(monkeypatch: pytest.MonkeyPatch) -> None:
    likes = sparse.csr_matrix((np.random.default_rng(2).random((70, 11)) < 0.3).astype(np.float32))
    monkeypatch.setattr(items, "TOGETHER", {"user_power": 0.5, "item_power": 0.3})
    (ridge,) = items.tables(likes, [3e4], user_power=0.5, item_power=0.3)
    count = np.asarray(likes.sum(axis=0)).ravel() / np.asarray(likes.sum(axis=0)).mean()
    regressed = 3e4 * count[:, None] ** 0.3 * np.asarray(ridge) * count ** (-0.3 * items.COLUMNS)
    assert np.allclose(regressed, dense(items.together(likes)), rtol=1e-2, atol=1e-2)


def test_the_spectrum_is_that_of_counts_of_common_likers() -> None:
    """At full rank, apart from the diagonal."""
    likes = sparse.csr_matrix((np.random.default_rng(4).random((70, 11)) < 0.3).astype(np.float32))
    found = items.spectral(likes, 11)
    product = (found.like @ found.item.T).numpy()
    np.fill_diagonal(product, 0)
    assert np.allclose(product, dense(items.together(likes)), rtol=1e-3, atol=1e-3)


def test_products_of_histories_are_computed_in_bounded_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if unequal: every fifth video is liked together with all, the others with few."""
    rng = np.random.default_rng(3)
    share = np.where(np.arange(60) % 5 == 0, 0.8, 0.02)
    likes = sparse.csr_matrix((rng.random((200, 60)) < share).astype(np.float32))
    whole = items.together(likes)
    for most in (1, 100, 400, 10_000):
        monkeypatch.setattr(items, "PRODUCTS", most)
        found = list(items.blocks(likes))
        assert [row for rows in found for row in range(rows.start, rows.stop)] == list(range(60))
        for rows in found:
            assert rows.stop - rows.start == 1 or (likes.T.tocsr()[rows] @ likes).nnz <= most
        assert (items.together(likes) != whole).nnz == 0
        assert len(found) < 60 or most < 60


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixed_tables_are_scaled_by_users_best_scores(share: float) -> None:
    likes = sparse.csr_matrix((np.random.default_rng(7).random((70, 40)) < 0.3).astype(np.float32))
    (regressed,) = items.tables(likes, [50.0], user_power=0.4, item_power=0.25)
    other = items.together(likes)
    found = dense(items.mixed(regressed, other, share, likes))
    levels = [np.sort(items.scores(table, likes), axis=1)[:, -20:].mean() for table in (regressed, other)]
    expected = (1 - share) * np.asarray(regressed) / levels[0] + share * other.toarray() / levels[1]
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-6)
    nothing = sparse.csr_matrix(other.shape, dtype=np.float32)
    assert np.allclose(dense(items.mixed(nothing, other, share, likes)), dense(other))
    assert np.allclose(dense(items.mixed(regressed, nothing, share, likes)), regressed)


@pytest.mark.parametrize("large", [False, True])
def test_neighbours_are_the_largest_residuals_of_the_factors(large: bool) -> None:
    rng = np.random.default_rng(3)
    likes = sparse.csr_matrix((rng.random((50, 20)) < 0.3).astype(np.float32))
    dense = (rng.random((20, 20)) * (rng.random((20, 20)) < 0.6)).astype(np.float32)
    np.fill_diagonal(dense, 0)
    left, singular, right = np.linalg.svd(dense)
    factors = Factors(*(torch.from_numpy(m.copy()) for m in (left[:, :3] * singular[:3], left[:, :3] * 0, right[:3].T)))
    found = items.residual(sparse.csr_matrix(dense) if large else dense, factors, likes, 4)
    scores = (likes @ factors.like.numpy()) @ factors.item.numpy().T
    scale = (scores**2).sum() / (scores * (likes @ dense)).sum()
    rest = scale * dense - factors.like.numpy() @ factors.item.numpy().T
    np.fill_diagonal(rest, 0)
    rest[dense == 0] = 0  # missing entries of the table have no residual
    for row in range(20):
        best = np.sort(rest[row][rest[row] > 0])[::-1][:4]
        assert np.allclose(np.sort(found[row].data)[::-1], best, atol=1e-4)
        assert np.allclose(found[row].data, rest[row, found[row].indices], atol=1e-4)


@pytest.mark.parametrize("large", [False, True])
def test_no_video_is_its_own_neighbour(large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if large:
        monkeypatch.setattr(items, "EXACT", 0)
    data = make_data(users=80, items=90)
    likes = data.matrix(LIKE)
    (regressed,) = items.tables(likes, [50.0], user_power=0.4, item_power=0.25)
    together = items.together(likes)
    for table in (regressed, together, items.mixed(regressed, together, 0.5, likes)):
        assert np.count_nonzero(table.diagonal()) == 0
        factors = items.factors(table, likes, 8)
        near = items.residual(table, factors, likes, 5)
        assert np.count_nonzero(near.diagonal()) == 0
        assert np.diff(near.indptr).max() <= 5


def test_large_catalogues_train_by_local_regressions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "EXACT", 50)
    monkeypatch.setattr("two_tower.trainer.stepwise.HISTORIES", 50)
    model = fit(make_data(users=200))
    assert model.hyperparameters["source"] == "items"
    assert model.metrics["two-tower"]["recall@20"] > 1.5 * model.metrics["popularity"]["recall@20"]


@pytest.mark.parametrize("limit", ["REGRESSED", "PAIRS"])
def test_larger_catalogues_train_by_counts_of_common_likers(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With too many videos for regressions, or with too many pairs of them."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("there is no room for a regression")

    monkeypatch.setattr(items, "EXACT", 50)
    monkeypatch.setattr(items, limit, 60)
    monkeypatch.setattr(items, "_local", never)
    monkeypatch.setattr("two_tower.trainer.stepwise.HISTORIES", 50)
    model = fit(make_data(users=200))
    assert model.hyperparameters["together"] == 1
    assert "gradient" not in model.hyperparameters
    assert model.metrics["two-tower"]["recall@20"] > 1.5 * model.metrics["popularity"]["recall@20"]
    assert model.metrics["two-tower"]["ndcg@20"] > 0.95 * model.metrics["item-kNN"]["ndcg@20"]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("most", [1, 3, 10, 40])
def test_the_largest_entries_of_each_row_equal_those_found_by_sorting(most: int, seed: int) -> None:
    """Of equal ones the first, none negative, in any order of columns."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-2, 4, (12, 30)).astype(np.float32) * (rng.random((12, 30)) < rng.random((12, 1)))
    matrix = sparse.csr_matrix(values)
    shuffled = sparse.csr_matrix((matrix.data.copy(), matrix.indices.copy(), matrix.indptr.copy()), matrix.shape)
    for row in range(12):
        within = slice(matrix.indptr[row], matrix.indptr[row + 1])
        order = rng.permutation(np.arange(within.start, within.stop))
        shuffled.indices[within], shuffled.data[within] = matrix.indices[order], matrix.data[order]
    shuffled.has_sorted_indices = False
    found = items.largest(shuffled, most)
    for row in range(12):
        best = [at for at in np.argsort(-values[row], kind="stable")[:most] if values[row, at] > 0]
        assert found[row].indices.tolist() == sorted(best)
        assert found[row].data.tolist() == values[row, sorted(best)].tolist()


@pytest.mark.parametrize("entries", [0, 150, 400, 10_000])
def test_a_wide_table_keeps_fewer_of_each_row(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    likes = sparse.csr_matrix((np.random.default_rng(8).random((70, 50)) < 0.3).astype(np.float32))
    whole = items.together(likes)
    monkeypatch.setattr(items, "ENTRIES", entries)
    monkeypatch.setattr(items, "REGRESSORS", 5)
    found = items.together(likes)
    most = max(5, entries // 50)
    assert np.diff(found.indptr).max() <= most
    assert (found != items.largest(whole.copy(), most)).nnz == 0


def test_residuals_do_not_depend_on_the_block_size() -> None:
    likes = sparse.csr_matrix((np.random.default_rng(9).random((70, 40)) < 0.3).astype(np.float32))
    table = items.together(likes)
    factors = items.spectral(likes, 6)
    whole = items.residual(table, factors, likes, 4)
    for block in (1, 7, 40):
        assert np.allclose(items.residual(table, factors, likes, 4, block=block).toarray(), whole.toarray(), atol=1e-5)


def test_residuals_of_single_entries_equal_those_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a very sparse table."""
    rng = np.random.default_rng(10)
    likes = sparse.csr_matrix((rng.random((70, 40)) < 0.3).astype(np.float32))
    table = sparse.csr_matrix((rng.random((40, 40)) * (rng.random((40, 40)) < 0.2)).astype(np.float32))
    table.setdiag(0)  # explicit zeros
    factors = items.spectral(likes, 6)
    whole = items.residual(table, factors, likes, 4)
    monkeypatch.setattr(items, "SPARSE", 0)
    assert whole.nnz
    for block in (1, 7, 40):
        found = items.residual(table, factors, likes, 4, block=block)
        assert np.allclose(found.toarray(), whole.toarray(), atol=1e-5)


def test_exported_tensors_give_the_measured_scores() -> None:
    data = pairs(300, 250, 12, 4)
    model = fit(data)
    assert model.neighbours is not None
    tensors = {
        name: value.numpy()
        for name, value in load(export_towers(model.user_tower, model.item_tower, model.neighbours)[2]).items()
    }
    assert tensors["neighbours.indptr"].dtype == np.int64
    assert tensors["neighbours.indices"].dtype == np.int32
    assert tensors["neighbours.values"].dtype == np.float32
    near = from_tensors(tensors, len(data.schema.vocabularies["video"]))
    assert near is not None
    part = Part(data, np.ones(len(data.user), dtype=bool), TrainOptions())
    rows = np.arange(40)
    scorer = part.scorer(model.user_tower, model.item_tower, np.arange(data.n_users), model.neighbours)
    likes = part.likes[rows].toarray()
    sums = user_counts(data.schema, data.item_counts, part.likes[rows], part.nopes[rows]) @ tensors["user.weight"]
    length = np.linalg.norm(sums + tensors["user.bias"], axis=1, keepdims=True)
    own = tensors["item.own"]
    cosine = (sums + tensors["user.bias"]) / length @ (own / np.maximum(np.linalg.norm(own, axis=1), 1)[:, None]).T
    assert np.allclose(scorer(rows), cosine + likes @ near.toarray() / length, atol=1e-4)


def test_held_out_rows_do_not_influence_neighbours() -> None:
    data = pairs(200, 80, 6, 5)
    rng = np.random.default_rng(0)
    held = rng.random(len(data.user)) < 0.2
    turned = replace(data, label=np.where(held, 1 - data.label, data.label).astype(np.int8))
    found = []
    for each in (data, turned):
        part = Part(each, ~held, TrainOptions())
        choice = Choice(source="items", neighbours=10)
        near = part.neighbours(choice, part.factors(choice))
        assert near is not None
        found.append(near)
    assert abs(found[0] - found[1]).nnz == 0


def test_recency_weighs_measured_and_served_scores_equally() -> None:
    data = make_data(users=60, times=True)
    part = Part(data, np.ones(len(data.user), dtype=bool), TrainOptions())
    likes, nopes = part.history(0.7)
    assert (likes != data.matrix(LIKE, recency=0.7)).nnz == 0
    assert (nopes != data.matrix(NOPE, recency=0.7)).nnz == 0
    assert (part.history(0.0)[0] != data.matrix(LIKE)).nnz == 0
    assert part.seen().nnz == sum(data.matrix(label).nnz for label in (LIKE, NOPE, SKIP))
    factors = Factors(*(torch.ones(len(data.schema.vocabularies["video"]), 1) for _ in range(3)))
    expected = to_torch(likes @ part.ids) @ factors.like + to_torch(nopes @ part.ids) @ factors.nope
    assert torch.equal(part.tastes(factors, 0.7), expected)
