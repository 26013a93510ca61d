"""Losses: the sign of the logQ correction, accidental hits, masks, temperature."""

from __future__ import annotations

import math

import pytest
import torch

from two_tower.trainer.loss import binary_cross_entropy, full_softmax, sampled_softmax


def test_a_candidate_drawn_more_often_counts_for_less() -> None:
    """Log q is subtracted: doubling a negative's chance of being drawn must halve its share of the denominator."""
    users, items = torch.zeros(1, 4), torch.zeros(3, 4)  # all logits 0 before the correction
    positive, ids = torch.tensor([0]), torch.arange(3)
    even = sampled_softmax(users, items, positive, ids, torch.zeros(3))
    corrected = sampled_softmax(users, items, positive, ids, torch.tensor([0.0, math.log(2), math.log(2)]))
    assert even.item() == pytest.approx(math.log(3))
    assert corrected.item() == pytest.approx(math.log(1 + 2 * 0.5))


def test_logq_makes_popularity_sampling_estimate_the_full_softmax() -> None:
    torch.manual_seed(0)
    user, items = torch.randn(1, 8), torch.randn(50, 8)
    chance = torch.softmax(torch.randn(50), 0)
    full = torch.logsumexp(user @ items.T, 1).item()
    drawn = torch.multinomial(chance, 100_000, replacement=True)
    # The loss is log(sum of exp(corrected)) - own corrected logit; add the own logit back.
    log_q = torch.log(chance[drawn] * len(drawn))
    own = (user @ items[drawn[0]]).item() - log_q[0].item()
    ids = torch.arange(len(drawn))  # distinct, so that no copy is masked
    loss = sampled_softmax(user, items[drawn], torch.tensor([0]), ids, log_q)
    assert loss.item() + own == pytest.approx(full, abs=0.05)


def test_another_copy_of_the_target_is_no_negative() -> None:
    users, items = torch.ones(1, 2), torch.ones(3, 2)
    hit = sampled_softmax(users, items, torch.tensor([0]), torch.tensor([7, 7, 9]), torch.zeros(3))
    distinct = sampled_softmax(users, items, torch.tensor([0]), torch.tensor([7, 8, 9]), torch.zeros(3))
    assert hit.item() == pytest.approx(math.log(2))
    assert distinct.item() == pytest.approx(math.log(3))


def test_a_noped_candidate_weighs_more() -> None:
    users, items, ids = torch.zeros(1, 2), torch.zeros(2, 2), torch.arange(2)
    refused = torch.tensor([[False, True]])
    loss = sampled_softmax(users, items, torch.tensor([0]), ids, torch.zeros(2), negatives=refused, negative_weight=2.0)
    assert loss.item() == pytest.approx(math.log(1 + 3))


def test_known_items_are_no_negatives_but_the_target_stays() -> None:
    users, items, ids = torch.zeros(1, 2), torch.zeros(3, 2), torch.arange(3)
    known = torch.tensor([[True, True, False]])
    loss = sampled_softmax(users, items, torch.tensor([0]), ids, torch.zeros(3), masked=known)
    assert loss.item() == pytest.approx(math.log(2))


def test_a_noped_item_weighs_more_in_the_full_softmax_too() -> None:
    scores, targets = torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]])
    refused = torch.tensor([[False, True, False]])
    loss = full_softmax(scores, targets, negatives=refused, negative_weight=2.0)
    assert loss.item() == pytest.approx(math.log(1 + 3 + 1))


def test_the_loss_of_an_empty_batch_is_zero() -> None:
    none, items = torch.zeros(0, 2), torch.zeros(3, 2)
    nobody = torch.zeros(0, dtype=torch.int64)
    assert sampled_softmax(none, items, nobody, torch.arange(3), torch.zeros(3)).item() == 0
    assert binary_cross_entropy(torch.zeros(0), torch.zeros(0)).item() == 0


def test_full_softmax_ignores_the_input_and_rows_without_target() -> None:
    scores = torch.tensor([[5.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    targets = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    masked = torch.tensor([[True, False, False], [False, False, False]])
    assert full_softmax(scores, targets, masked=masked).item() == pytest.approx(math.log(2))
    assert full_softmax(scores, torch.zeros(2, 3)).item() == 0


def test_temperature_divides_the_scores() -> None:
    scores, targets = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    assert full_softmax(scores, targets, temperature=2.0).item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert binary_cross_entropy(scores, targets, temperature=2.0).item() == pytest.approx(
        (math.log(1 + math.exp(-1)) + math.log(2)) / 2
    )


def test_losses_stay_finite_when_everything_is_masked() -> None:
    scores = torch.randn(2, 3, requires_grad=True)
    loss = full_softmax(scores, torch.ones(2, 3), masked=torch.ones(2, 3, dtype=torch.bool))
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
