"""Options of a training (:class:`TrainOptions`), and what it chooses by validation (:class:`Choice`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from two_tower.features import PLACING
from two_tower.trainer.gradient import Recipe


@dataclass(frozen=True)
class TrainOptions:
    """What a caller may choose; the defaults should suit any data."""

    seed: int = 0
    val_ratio: float = 0.2
    """Share of each user's interactions held out to choose hyperparameters and to measure; with 0, the hyperparameters
    keep their defaults."""
    split: str = "user"
    """``user``: hold out the latest interactions of each user; ``temporal``: all from one point in time on."""
    epochs: int | None = None
    """Most epochs of gradients after the closed form; None for none."""
    loss: str = "softmax"
    """Loss of the gradients: ``softmax`` or ``bce``."""
    neg_per_pos: int | None = None
    """Negatives drawn per like for the gradients, among items that the user is not known to know."""
    rate: float | None = None
    """For the gradients, like the next three: see :class:`~two_tower.trainer.gradient.Recipe`, whose default replaces
    None."""
    schedule: str | None = None
    batch: int | None = None
    patience: int | None = None
    user_attributes: bool = True
    """Whether the user tower reads tags, performers, … of liked videos. Otherwise it reads only which videos a user
    likes and nopes, and users who like no video with an input of its own all have the same vector."""
    search: int = 0
    """Trials of the hyperparameter search, over all runs on one study; 0 keeps the result of the stepwise search."""
    search_timeout: float | None = None
    """Seconds after which no further trial begins."""
    study: str = "two-tower-study.sqlite"
    """File in which the search keeps its trials, so that it can be resumed."""
    use_price_feature: bool = False
    """Whether prices help to place items; if they change with campaigns, they say little about taste."""
    min_likes: int = 5
    """Users with fewer likes keep all of them in training."""
    k: int = 20
    also: tuple[int, ...] = ()
    """Lengths of lists at which the result is measured besides ``k``."""
    max_seconds: float = 3600.0
    """Time after which no further candidate is tried; one that was started is finished."""
    max_users: int = 20_000
    """Users (a random part of them beyond this) from whom the factors are derived. All users are embedded."""
    search_users: int = 20_000
    """Users (a random part of them beyond this) from whom the factors of a candidate are derived."""
    val_users: int = 1_500
    """Users on whom candidates are compared."""
    measured_users: int = 10_000
    """Most users on whom the result is measured; fewer for a large catalogue."""
    hidden: int = 4096
    """Most hidden units of the item tower."""
    search_hidden: int = 2048
    """Most hidden units while candidates are compared."""

    def recipe(self) -> Recipe | None:
        """How to continue by gradients; None if only the closed form is used."""
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
    """Hyperparameters that are chosen by validation, with the initial values of the search."""

    user_power: float = 0.4
    """A user's row weighs ``like_count ** -user_power`` in the regression."""
    nope_input: float = 0.5
    """Weight of a nope among the inputs; a like has 1."""
    ridge: float = 80.0
    """Ridge of the regression on histories, in likes."""
    skip_target: float = 0.4
    nope_target: float = 0.2
    """Values of a skipped and a noped video as targets; a liked one has 1. They count because they were watched."""
    popular: float = 0.1
    """Share of the mean user's taste that is added to everyone's."""
    profile: float = 1.0
    """Share of the difference between the mean taste of users with the same profile and that of all users that is
    added, besides ``popular``: with 1, a user without a history has the mean taste of users with the same profile."""
    bandwidth: float = 0.5
    """Squared width of the content kernel, in variances of the content."""
    content_ridge: float = 0.1
    """Ridge of the regression of places on content."""
    title_words: float = 0.15
    """Variance of words of titles in the distances of the kernel, relative to the rest of the content; 0 leaves them
    out."""
    description_words: float = 0.15
    """The same of the words of descriptions."""
    content_vectors: float = 0.15
    """The same of the vectors of encoders."""
    novelty: float = 0.7
    """Factor on the length of a place that only content suggests."""
    prior: float = 1.0
    """Likes that the place suggested by content is worth when it is averaged with that of a known video."""
    hint: float = 0.0
    """Likes that the taste predicted from a video's content is worth when it is averaged with the video's own."""
    source: str = "histories"
    """Source of the factors: ``histories`` (:class:`HistoryModel`) or ``items`` (:func:`items.factors`)."""
    item_ridge: float = 150.0
    """Ridge of the regression between videos, in likes (:func:`items.tables`)."""
    item_users: float = 0.4
    """A user's row weighs ``like_count ** -item_users`` there."""
    item_power: float = 0.25
    """The ridge there grows with ``like_count ** (2 item_power)`` of a video."""
    direction: float = 0.0
    """How much more a like there predicts later likes than earlier ones."""
    together: float = 0.0
    """Share of :func:`items.together` in the table, the rest being the regression; with 1 there is no regression."""
    neighbours: int = 0
    """Videos to whose scores a like adds in addition to the towers; 0 for none."""
    recency: float = 0.0
    """Exponent of :func:`two_tower.features.decision_weights`."""

    def kernel(self) -> tuple[float, ...]:
        """The values on which the kernel between contents depends."""
        return self.bandwidth, *(getattr(self, name) for name in PLACING)

    def table(self) -> tuple[tuple[str, float], ...]:
        """Names and values of the fields on which the table between videos depends."""
        names = ("item_ridge", "item_users", "item_power", "direction", "together")
        return tuple((name, getattr(self, name)) for name in names)
