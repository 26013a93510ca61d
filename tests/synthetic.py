"""Small training sets with known tastes, for the trainer's tests: no database, no files."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from two_tower.features import ITEM_SEGMENTS, LIKE, NOPE, SKIP, VOCABULARIES, FeatureSchema, TrainingData


def make_data(
    users: int = 150,
    items: int = 120,
    *,
    groups: int = 6,
    each: int = 16,
    seed: int = 0,
    new_items: int = 0,
    tags: bool = True,
    times: bool = False,
) -> TrainingData:
    """Each user watches ``each`` items, mostly of one of ``groups``, likes those of it and nopes or skips the others.

    An item's only tag is its group. The last ``new_items`` items are watched by nobody and have no id of their own.
    """
    rng = np.random.default_rng(seed)
    group = np.arange(items) % groups
    taste = np.arange(users) % groups
    weight = 1 / (1 + rng.permutation(items)) ** 0.5
    weight[items - new_items :] = 0
    rows: list[tuple[int, int, int]] = []
    for person in range(users):
        chance = weight * np.where(group == taste[person], 8.0, 1.0)
        count = min(each, int((chance > 0).sum()))
        for watched in np.sort(rng.choice(items, count, replace=False, p=chance / chance.sum() if count else None)):
            other = NOPE if rng.random() < 0.5 else SKIP
            rows.append((person, int(watched), LIKE if group[watched] == taste[person] else other))
    user, item, label = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    likes = np.bincount(item[label == LIKE], minlength=items)
    known = [int(i) for i in np.argsort(-likes, kind="stable") if likes[i] > 0]
    keys: dict[str, tuple[str, ...]] = dict.fromkeys(VOCABULARIES, ())
    keys["video"] = tuple(f"video-{i:04d}" for i in known)
    if tags:
        keys["tag"] = tuple(f"tag-{g}" for g in range(groups))
    schema = FeatureSchema(keys)
    numeric = np.stack([np.zeros(items), rng.integers(600, 6000, items), rng.integers(36_000, 44_000, items)], axis=1)
    parts = {name: np.zeros((items, len(keys[vocabulary]))) for name, vocabulary in ITEM_SEGMENTS.items()}
    if tags:
        parts["tags"][np.arange(items), group] = 1
    parts["id"][known, np.arange(len(known))] = 1
    return TrainingData(
        user_ids=np.array([f"user-{u:04d}" for u in range(users)]),
        item_ids=np.array([f"video-{i:04d}" for i in range(items)]),
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        label=label.astype(np.int8),
        time=rng.integers(0, 1_000_000, len(user)).astype(np.float64) if times else np.zeros(len(user)),
        schema=schema,
        item_counts=sparse.csr_matrix(np.concatenate([numeric, *parts.values()], axis=1), dtype=np.float32),
    )
