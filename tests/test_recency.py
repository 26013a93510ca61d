"""Recent decisions count more: input schema version 2.

A version weighs a decision by its place among the likes and nopes of its user: how many are strictly newer.
"""

from __future__ import annotations

import numpy as np
import pytest

from synthetic import make_data
from two_tower.features import LIKE, NOPE, SKIP, FeatureSchema, TrainingData, recency_places, recency_weights

EXPONENTS = [0.0, 0.3, 0.5, 1.0, 2.0, 10.0]


# -------------------------------------------------------------------------------------------- the trainer's side


def timed(seed: int, distinct: int) -> TrainingData:
    """Data with ``distinct`` times, so that ties are common where there are few."""
    data = make_data(users=25, items=40, each=12, seed=seed)
    times = np.random.default_rng(seed).integers(0, distinct, len(data.user)) * 1e6
    return TrainingData(**{**vars(data), "time": times.astype(np.float64)})


@pytest.mark.parametrize("distinct", [1, 2, 5, 1000])
def test_a_place_is_the_number_of_newer_likes_and_nopes_of_the_user(distinct: int) -> None:
    data = timed(7, distinct)
    found = data.places()
    for row, (user, time, label) in enumerate(zip(data.user, data.time, data.label, strict=True)):
        newer = (data.user == user) & (data.time > time) & (data.label != SKIP)
        assert found[row] == (0 if label == SKIP else newer.sum())


def test_a_place_counts_the_rows_at_hand() -> None:
    """What is held out is not there, so nothing is older for it."""
    data = timed(3, 50)
    kept = np.random.default_rng(0).random(len(data.user)) < 0.5
    part = TrainingData(**{**vars(data), **{n: getattr(data, n)[kept] for n in ("user", "item", "label", "time")}})
    np.testing.assert_array_equal(data.places(kept)[kept], part.places())
    for label in (LIKE, NOPE):
        difference = data.matrix(label, kept, 0.5) - part.matrix(label, recency=0.5)
        assert difference.nnz == 0 or abs(difference).max() == 0


def test_places_of_nobody() -> None:
    assert recency_places(np.array([], dtype=np.int32), np.array([])).tolist() == []


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_weights_fall_from_one_and_never_to_nothing(exponent: float) -> None:
    weights = recency_weights(np.array([0, 0, 1, 2, 50, 10**9]), exponent)
    assert weights.dtype == np.float32
    assert weights[:2].tolist() == [1, 1]
    assert (np.diff(weights) <= 0).all()
    assert weights[-1] >= np.float32(1e-6)
    assert weights[2] == pytest.approx(max(2**-exponent, 1e-6))


def test_a_matrix_without_recency_is_of_ones() -> None:
    data = timed(1, 30)
    assert set(data.matrix(LIKE).data) == set(data.matrix(LIKE, recency=0.0).data) == {1.0}
    weighted = data.matrix(LIKE, recency=0.5)
    assert (weighted.indices == data.matrix(LIKE).indices).all()
    assert weighted.data.min() < 1 == weighted.data.max()


def test_the_schema_says_the_exponent() -> None:
    data = timed(1, 30)
    schema = FeatureSchema(data.schema.vocabularies, 0.5)
    assert schema.to_json()["user"]["recency"] == 0.5
    assert data.schema.to_json()["user"]["recency"] == 0
    for bad in (-1e-9, 10.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="recency"):
            FeatureSchema(data.schema.vocabularies, bad)
