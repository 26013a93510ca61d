"""What a training may be told (:class:`TrainOptions`), and what it chooses by validation (:class:`Choice`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from two_tower.features import PLACING
from two_tower.trainer.gradient import Recipe


@dataclass(frozen=True)
class TrainOptions:
    """What a caller may choose; the defaults are meant to hold on any data."""

    seed: int = 0
    val_ratio: float = 0.2
    """Share of each user's interactions held out to choose hyperparameters and to measure; 0 takes the defaults."""
    split: str = "user"
    """``user``: of each user's interactions, the latest; ``temporal``: everybody's from one point in time on."""
    epochs: int | None = None
    """Of gradients after the closed form, at most; None takes none."""
    loss: str = "softmax"
    """Of the gradients: ``softmax`` or ``bce``."""
    neg_per_pos: int | None = None
    """Items that a user is not known to know, drawn per like as negatives of the gradients."""
    rate: float | None = None
    """Of the gradients, like the next three: see :class:`~two_tower.trainer.gradient.Recipe`, whose defaults None
    takes."""
    schedule: str | None = None
    batch: int | None = None
    patience: int | None = None
    user_attributes: bool = True
    """Whether users are counted by tags, performers, … of what they like. Without, the user tower reads which videos a
    user likes and refuses, and who likes none that has an input of its own is nobody in particular."""
    search: int = 0
    """Trials of the hyperparameter search, in all runs on one study; 0 takes what the search in steps finds."""
    search_timeout: float | None = None
    """Seconds after which no further trial begins."""
    study: str = "two-tower-study.sqlite"
    """File in which the search keeps its trials, so that the same search goes on."""
    use_price_feature: bool = False
    """Whether prices take part in placing items; where they change with campaigns, they say little of taste."""
    min_likes: int = 5
    """Users with fewer likes keep all of them in training."""
    k: int = 20
    also: tuple[int, ...] = ()
    """Lengths of lists that the result is measured at beside ``k``."""
    max_seconds: float = 3600.0
    """After so long no further candidate is tried; what was started is finished."""
    max_users: int = 20_000
    """Users (a random part of them beyond this) from whom the factors are derived. All users are embedded."""
    search_users: int = 20_000
    """Users (a random part of them beyond this) from whom the factors of a candidate are derived."""
    val_users: int = 1_500
    """Users by whom candidates are compared."""
    measured_users: int = 10_000
    """Most users by whom the result is measured; fewer where the catalogue is large."""
    hidden: int = 4096
    """Most hidden units of the item tower."""
    search_hidden: int = 2048
    """Most of them while candidates are compared."""

    def recipe(self) -> Recipe | None:
        """How to go on by gradients; None where the closed form is all."""
        given: dict[str, Any] = {
            name: value
            for name in ("neg_per_pos", "rate", "schedule", "batch", "patience")
            if (value := getattr(self, name)) is not None
        }
        if not self.epochs:
            return None
        return Recipe(self.epochs, self.loss, attributes=self.user_attributes, seed=self.seed, **given)


@dataclass(frozen=True)
class Choice:
    """Hyperparameters that are chosen by validation, with the values the search starts from."""

    user_power: float = 0.4
    """A user's row weighs ``like_count ** -user_power`` in the regression."""
    nope_input: float = 0.5
    """What a nope weighs among the inputs, beside 1 for a like."""
    ridge: float = 80.0
    """Of the regression on histories, in likes."""
    skip_target: float = 0.4
    nope_target: float = 0.2
    """What a skipped and a noped video are worth as a target, beside 1 for a liked one: they were watched."""
    popular: float = 0.1
    """Of a mean user's taste, what is added to everyone's."""
    profile: float = 1.0
    """Of what those of the same profile like beyond the mean user, what is added, beside ``popular``: with 1, who has
    no history has the mean taste of those of the same profile."""
    bandwidth: float = 0.5
    """Squared width of the content kernel, in variances of the content."""
    content_ridge: float = 0.1
    """Of the regression of places on content."""
    title_words: float = 0.15
    """What words of titles vary in the distances of the kernel, beside the rest of the content; 0 leaves them out."""
    description_words: float = 0.15
    """The same of the words of descriptions."""
    content_vectors: float = 0.15
    """The same of the vectors of encoders."""
    novelty: float = 0.7
    """Length of a place that only content suggests, beside that of the regression."""
    prior: float = 1.0
    """Likes that what content suggests is worth, beside those a known video has."""
    hint: float = 0.0
    """Likes that a video has for what its content says of those who like it, beside what itself says of them."""
    source: str = "histories"
    """Of the factors: ``histories`` (:class:`HistoryModel`) or ``items`` (:func:`items.factors`)."""
    item_ridge: float = 150.0
    """Of the regression between videos, in likes (:func:`items.tables`)."""
    item_users: float = 0.4
    """A user's row weighs ``like_count ** -item_users`` there."""
    item_power: float = 0.25
    """The ridge there grows with ``like_count ** (2 item_power)`` of a video."""
    direction: float = 0.0
    """How much more a like says there of what was liked after it than of what was liked before."""
    together: float = 0.0
    """Share that is not regression but counts who likes both (:func:`items.mixed`); with 1 there is no regression."""
    neighbours: int = 0
    """Videos to whose score a like adds beside what the towers say; 0 is none."""
    recency: float = 0.0
    """Exponent of :func:`two_tower.features.decision_weights`."""

    def kernel(self) -> tuple[float, ...]:
        """What the kernel between contents depends on."""
        return self.bandwidth, *(getattr(self, name) for name in PLACING)

    def table(self) -> tuple[tuple[str, float], ...]:
        """What the table between videos depends on: names and values here."""
        names = ("item_ridge", "item_users", "item_power", "direction", "together")
        return tuple((name, getattr(self, name)) for name in names)
