"""Losses over scores of users against items. Pure functions, independent of the towers.

Sampled softmax with logQ correction as in Yi et al. 2019, "Sampling-bias-corrected neural modeling for large corpus
item recommendations" (RecSys): an item drawn with probability q is overrepresented by a factor q, so log q is
subtracted from its logit.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

MASKED = -1e9
"""Logit of a candidate that must not count; finite, so that a fully masked row stays finite."""


def full_softmax(
    scores: torch.Tensor,
    targets: torch.Tensor,
    *,
    temperature: torch.Tensor | float = 1.0,
    masked: torch.Tensor | None = None,
    negatives: torch.Tensor | None = None,
    negative_weight: float = 0.0,
) -> torch.Tensor:
    """Multinomial likelihood over the whole catalogue, averaged over rows with a target; 0 if there are none.

    ``scores`` [b, n]; ``targets`` [b, n] non-negative weights, normalised per row; ``masked`` [b, n] bool:
    candidates left out (those already in the user's input); ``negatives`` [b, n] bool and ``negative_weight`` as in
    :func:`sampled_softmax`. Source: Liang et al. 2018, "Variational autoencoders for collaborative filtering".
    """
    logits = scores / temperature
    if negatives is not None:
        logits = logits + negatives * math.log1p(negative_weight)
    if masked is not None:
        logits = logits.masked_fill(masked, MASKED)
    total = targets.sum(dim=1)  # [b]
    loss = -(functional.log_softmax(logits, dim=1) * targets).sum(dim=1) / total.clamp(min=1e-12)
    kept = total > 0
    return (loss * kept).sum() / kept.sum().clamp(min=1)


def sampled_softmax(
    users: torch.Tensor,
    items: torch.Tensor,
    positive: torch.Tensor,
    ids: torch.Tensor,
    log_q: torch.Tensor,
    *,
    temperature: torch.Tensor | float = 1.0,
    masked: torch.Tensor | None = None,
    negatives: torch.Tensor | None = None,
    negative_weight: float = 0.0,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Softmax of each user's positive against all candidates of the batch, corrected for the sampling.

    Averaged over the users; 0 if there are none.

    ``users`` [b, d]; ``items`` [c, d], the in-batch positives and any mixed negatives; ``positive`` [b] int, the
    column of each user's target; ``ids`` [c] int, item ids, so that another copy of the target ("accidental hit") is
    masked; ``log_q`` [c], log of the expected number of each candidate in the batch; ``masked`` [b, c] bool, candidates
    left out (others that the user is known to know; the target is never left out); ``negatives`` [b, c] bool,
    candidates noped by the user: their logits are raised by ``log(1 + negative_weight)``, as if drawn that much more
    often; ``weights`` [b] of the positives.
    """
    logits = users @ items.T / temperature - log_q  # [b, c]
    if negatives is not None:
        logits = logits + negatives * math.log1p(negative_weight)
    left_out = ids[None, :] == ids[positive][:, None]  # [b, c], other copies of the target
    if masked is not None:
        left_out = left_out | masked
    left_out = left_out & ~functional.one_hot(positive, len(ids)).bool()
    each = functional.cross_entropy(logits.masked_fill(left_out, MASKED), positive, reduction="none")
    return (each if weights is None else each * weights).sum() / max(len(positive), 1)


def binary_cross_entropy(
    scores: torch.Tensor,
    labels: torch.Tensor,
    *,
    temperature: torch.Tensor | float = 1.0,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Pointwise loss on explicit feedback, averaged over the pairs; 0 if there are none.

    ``scores``, ``labels`` (1 like, 0 nope or never seen) and ``weights`` have the same shape.
    """
    logits = scores / temperature
    total = functional.binary_cross_entropy_with_logits(logits, labels, weight=weights, reduction="sum")
    return total / max(labels.numel(), 1)
