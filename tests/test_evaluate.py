"""Metrics compared with values computed by hand, and the references."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from synthetic import make_data
from two_tower.features import LIKE
from two_tower.trainer import evaluate, items
from two_tower.trainer.splits import split


def scorer(scores: np.ndarray) -> evaluate.Scorer:
    return lambda rows: scores[rows]


def csr(rows: list[list[int]]) -> sparse.csr_matrix:
    return sparse.csr_matrix(np.array(rows, dtype=np.float32))


def test_metrics_equal_values_computed_by_hand() -> None:
    scores = np.array([[9, 8, 7, 6, 5], [1, 2, 3, 4, 5]], dtype=np.float32)
    relevant = csr([[0, 1, 0, 1, 0], [1, 0, 0, 0, 0]])
    seen = csr([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    found = evaluate.rank(scorer(scores), relevant, seen, k=2)
    # User 0: ranks items 1, 2 | 3, 4 (0 is seen): a hit at rank 1, the other relevant one is out of the top 2.
    # User 1: ranks 4, 3 | 2, 1, 0: no hit.
    assert found.values["recall@2"].tolist() == [0.5, 0.0]
    assert found.values["ndcg@2"][0] == pytest.approx(1 / (1 + 1 / np.log2(3)))
    assert found.values["map@2"].tolist() == [0.5, 0.0]
    assert found.values["auc"].tolist() == [pytest.approx(3 / 4), 0.0]  # pairs (1,2), (1,4), (3,4) right; (3,2) wrong
    assert found.coverage == pytest.approx(4 / 5)


def test_no_seen_item_is_recommended_even_when_too_few_are_left() -> None:
    relevant, seen = csr([[1, 0, 0]]), csr([[0, 1, 1]])
    found = evaluate.rank(scorer(np.array([[0.0, 2.0, 1.0]], dtype=np.float32)), relevant, seen, k=20)
    assert found.values["recall@20"].tolist() == [1.0]
    assert found.values["ndcg@20"].tolist() == [1.0]
    assert found.coverage == pytest.approx(1 / 3)


def test_a_relevant_item_that_is_seen_is_a_miss() -> None:
    found = evaluate.rank(scorer(np.ones((1, 3), dtype=np.float32)), csr([[1, 0, 0]]), csr([[1, 0, 0]]), k=2)
    assert found.values["recall@2"].tolist() == [0.0]


def test_only_candidates_are_ranked() -> None:
    scores = np.array([[5, 4, 3, 2]], dtype=np.float32)
    found = evaluate.rank(scorer(scores), csr([[1, 0, 0, 1]]), candidates=np.array([2, 3]), k=1)
    assert found.values["recall@1"].tolist() == [0.0]
    found = evaluate.rank(scorer(scores), csr([[1, 0, 0, 1]]), candidates=np.array([2, 3]), k=2)
    assert found.values["recall@2"].tolist() == [1.0]


def test_metrics_of_several_lengths_equal_those_of_each_alone() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((40, 30), dtype=np.float32)
    relevant = sparse.csr_matrix((rng.random((40, 30)) < 0.1).astype(np.float32))
    together = evaluate.rank(scorer(scores), relevant, k=5, also=(1, 3, 20, 100))
    best = np.argsort(-scores, axis=1)
    for k in (1, 3, 5, 20, 100):
        alone = evaluate.rank(scorer(scores), relevant, k=k)
        names = [f"{name}@{k}" for name in ("recall", "ndcg", "map", "precision")]
        for name in names:
            assert np.allclose(together.values[name], alone.values[name]), name
        hits = np.take_along_axis(relevant.toarray(), best[:, :k], axis=1).sum(axis=1)
        assert np.allclose(together.values[f"precision@{k}"], hits[together.users] / k)
    assert together.coverage == evaluate.rank(scorer(scores), relevant, k=5).coverage


def test_the_size_of_blocks_does_not_change_the_metrics() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((50, 30), dtype=np.float32)
    relevant = sparse.csr_matrix((rng.random((50, 30)) < 0.1).astype(np.float32))
    one, many = (evaluate.rank(scorer(scores), relevant, k=5, block=b) for b in (7, 1000))
    for name, values in one.values.items():
        assert np.array_equal(values, many.values[name]), name


def test_memory_bounds_the_block_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    scores = rng.random((40, 30)).astype(np.float32)
    relevant = sparse.csr_matrix((rng.random((40, 30)) < 0.2).astype(np.float32))
    whole, held = evaluate.rank(scorer(scores), relevant, k=5), []

    def counted(rows: np.ndarray) -> np.ndarray:
        held.append(len(rows) * scores.shape[1])
        return scores[rows]

    for most in (1, 90, 10_000):
        monkeypatch.setattr(evaluate, "SCORES", most)
        held.clear()
        found = evaluate.rank(counted, relevant, k=5)
        assert max(held) <= max(most, 30)
        assert all(np.array_equal(found.values[name], whole.values[name]) for name in whole.values)
        assert found.coverage == whole.coverage


def test_item_knn_equals_the_computation_from_all_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of one or of all; the nearest columns of likes of each, without itself."""
    rng = np.random.default_rng(4)
    likes = sparse.csr_matrix((rng.random((60, 25)) < 0.3).astype(np.float32))
    dense = likes.toarray()
    cosine = dense.T @ dense / np.maximum(np.outer(*[np.linalg.norm(dense, axis=0)] * 2), 1)
    np.fill_diagonal(cosine, 0)
    for products in (1, 200, 1024):
        monkeypatch.setattr(items, "PRODUCTS", products)
        assert np.allclose(evaluate.by_item_knn(likes, 25)(np.arange(60)), dense @ cosine, atol=1e-5)
    few = np.where(np.argsort(np.argsort(-cosine, axis=1, kind="stable"), axis=1) < 4, cosine, 0)
    assert np.allclose(evaluate.by_item_knn(likes, 4)(np.arange(60)), dense @ few.T, atol=1e-5)


def test_top_k_is_best_first() -> None:
    scores = np.array([[1.0, 3.0, 2.0, 3.0]])
    assert evaluate.top_k(scores, 4).tolist() == [[1, 3, 2, 0]]
    assert evaluate.top_k(scores, 2).tolist() == [[1, 3]]


def test_an_interval_contains_the_mean_and_narrows_with_more_users() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for users in (100, 10_000):
        found = evaluate.Ranking(np.arange(users), {"recall@20": rng.random(users)}, 1.0)
        low, high = found.interval("recall@20")
        assert low < found.mean()["recall@20"] < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 5


def test_metrics_without_relevant_items_are_nan() -> None:
    found = evaluate.rank(scorer(np.ones((2, 3), dtype=np.float32)), sparse.csr_matrix((2, 3), dtype=np.float32))
    assert np.isnan(found.mean()["recall@20"])
    assert all(np.isnan(found.interval("ndcg@20")))


def test_references_rank_in_the_expected_order() -> None:
    data = make_data()
    held = split(data, ratio=0.2, min_likes=5, seed=0)
    likes, relevant = data.matrix(LIKE, ~held), data.matrix(LIKE, held)
    found, missing = evaluate.references(likes)
    assert missing == {}
    report = evaluate.report(found, likes, likes, relevant)
    score = {name: metrics["ndcg@20"] for name, metrics in report.items()}
    assert score["random"] < score["popularity"] < min(score["item-kNN"], score["ALS"], score["EASE^R"])


@pytest.mark.soak
def test_als_minimises_its_objective() -> None:
    likes = make_data(users=40, items=20).matrix(LIKE)
    exact = evaluate.by_als(likes, factors=4, confidence=10.0, ridge=2.0, rounds=60, steps=8)(np.arange(40))
    left, values, right = np.linalg.svd(exact, full_matrices=False)
    users, items = (side * np.sqrt(values[:4]) for side in (left[:, :4], right[:4].T))
    for _ in range(200):  # the same by solving for each user and item, from there on
        for mine, other, pairs in ((users, items, likes.toarray()), (items, users, likes.toarray().T)):
            for at, liked in enumerate(pairs):
                weight = np.diag(1 + 10.0 * liked)
                mine[at] = np.linalg.solve(other.T @ weight @ other + 2.0 * np.eye(4), other.T @ weight @ liked)
    assert np.abs(users @ items.T - exact).max() < 0.02


def test_gains_of_references_are_reported_with_standard_errors() -> None:
    data = make_data(users=2000)
    held = split(data, ratio=0.2, min_likes=5, seed=0)
    likes, relevant = data.matrix(LIKE, ~held), data.matrix(LIKE, held)
    scorers = {"two-tower": evaluate.by_popularity(likes), "item-kNN": evaluate.by_item_knn(likes)}
    report = evaluate.report(scorers, likes, likes, relevant)
    ranked = [evaluate.rank(scorer, relevant, likes) for scorer in scorers.values()]
    gain = ranked[1].values["ndcg@20"] - ranked[0].values["ndcg@20"]
    count = np.diff(likes.indptr)[ranked[0].users]
    found = {name: each["ahead"] for name, each in report["item-kNN"]["by_likes"].items()}
    for name, (least, most) in {"1-5": (0, 5), "6-20": (6, 20)}.items():
        where = (count >= least) & (count <= most)
        if where.any():
            error = gain[where].std() / where.sum() ** 0.5
            assert found.pop(name) == pytest.approx({"ndcg": gain[where].mean(), "standard_error": error})
    assert found == {}
    assert all("ahead" not in each for each in report["two-tower"]["by_likes"].values())
    (sentence, *_) = evaluate.behind(report)
    assert "are better served by item-kNN" in sentence
    assert evaluate.behind(evaluate.report(dict(reversed(scorers.items())), likes, likes, relevant)) == []
    assert evaluate.behind({"two-tower": {"recall@20": 0.1}, "parity": []}) == []


def test_metrics_are_reported_by_the_number_of_known_likes() -> None:
    data = make_data()
    held = split(data, ratio=0.2, min_likes=5, seed=0)
    likes, relevant = data.matrix(LIKE, ~held), data.matrix(LIKE, held)
    (report,) = evaluate.report({"popularity": evaluate.by_popularity(likes)}, likes, likes, relevant).values()
    asked = np.flatnonzero(np.diff(relevant.indptr))
    count = np.diff(likes.indptr)
    for name, (least, most) in {"1-5": (0, 5), "6-20": (6, 20), "21-100": (21, 100), "101 or more": (101, 1e9)}.items():
        some = asked[(count[asked] >= least) & (count[asked] <= most)]
        if len(some) == 0:
            assert name not in report["by_likes"]
            continue
        alone = sparse.diags(np.isin(np.arange(data.n_users), some).astype(np.float32)) @ relevant
        alone.eliminate_zeros()
        expected = evaluate.rank(evaluate.by_popularity(likes), alone.tocsr(), likes).mean()
        assert report["by_likes"][name] == pytest.approx(expected | {"users": len(some)})
    assert sum(each["users"] for each in report["by_likes"].values()) == report["users"]


def test_ease_is_left_out_with_a_reason_where_it_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "EASE_LIMIT", 10)
    found, missing = evaluate.references(make_data(users=30, items=20, each=5).matrix(LIKE))
    assert "EASE^R" not in found
    assert "20 items" in missing["EASE^R"]


def test_ease_is_the_ridge_regression_that_leaves_each_item_out() -> None:
    rng = np.random.default_rng(0)
    likes = sparse.csr_matrix((rng.random((60, 8)) < 0.4).astype(np.float32))
    dense, ridge = likes.toarray().astype(np.float64), 3.0
    expected = np.zeros((60, 8))
    for item in range(8):
        others = np.delete(dense, item, axis=1)
        weights = np.linalg.solve(others.T @ others + ridge * np.eye(7), others.T @ dense[:, item])
        expected[:, item] = others @ weights
    assert np.allclose(evaluate.by_ease(likes, ridge)(np.arange(60)), expected, atol=1e-4)


@pytest.mark.parametrize("most", [1, 7, 100])
def test_sampled_users_all_have_relevant_items(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    relevant = sparse.csr_matrix((np.random.default_rng(5).random((40, 30)) < 0.03).astype(np.float32))
    able = np.flatnonzero(np.diff(relevant.indptr))
    users, found = evaluate.asked(relevant, most)
    assert len(users) == min(most, len(able)) == len(np.unique(users))
    assert set(users) <= set(able)
    assert found.shape == relevant.shape
    assert (found[users] != relevant[users]).nnz == 0
    assert found.nnz == relevant[users].nnz
    monkeypatch.setattr(evaluate, "LEAST_USERS", 3)
    monkeypatch.setattr(evaluate, "MEASURED", 150)  # five users' scores
    assert len(evaluate.asked(relevant, most)[0]) == min(most, 5, len(able))
