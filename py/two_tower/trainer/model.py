"""The two towers, from raw counts to unit vectors of :data:`two_tower.features.DIM` dimensions.

Cosine ranks exactly like an inner product: the item vector is ``[v, sqrt(1 - |v|^2)]`` and the user vector
``[w, 0] / |w|``, so their cosine is ``w . v / |w|``, and the place ``v`` of an item on the unit sphere may be short
(niche) or long (popular).

Each tower has two equivalent paths: ``forward`` on dense rows, which is exported, and ``embed`` on sparse SciPy rows,
whose cost is proportional to the entries present.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import nn

from two_tower.features import DIM, ITEM_NUMERIC, FeatureSchema

INNER = DIM - 1
"""Dimensions left for the inner product."""

TINY = 1e-12
"""Shorter tastes have no direction."""

VECTOR = 16
"""float32 values in the widest vector register. Rows to which transcendental functions are applied have a multiple of
this length: the scalar code for the remainder may differ in the last bit, and an embedding must not depend on its place
in a batch."""


class UserTower(nn.Module):
    """A weight per input count, a bias (the taste of a user of whom nothing is known), and the norm.

    A liked video counts by its tags, performers, …, and also by its id if this is in the vocabulary: the weight of an
    id is the difference to what its content already adds.
    """

    def __init__(self, schema: FeatureSchema) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(schema.user_dim, INNER))
        self.bias = nn.Parameter(torch.zeros(INNER))

    def forward(self, counts: torch.Tensor) -> torch.Tensor:
        """[b, user_dim] float32 -> [b, DIM], unit length."""
        return self.finish(counts @ self.weight + self.bias)

    @staticmethod
    def direct(taste: torch.Tensor) -> torch.Tensor:
        """[b, INNER] -> [b, INNER] of unit length; the first axis if the taste is zero. The gradient is finite."""
        norm = (taste * taste).sum(dim=1, keepdim=True).clamp(min=TINY**2).sqrt()  # [b, 1]
        first = torch.zeros_like(taste) + torch.eye(1, INNER)  # [b, INNER]
        return torch.where(norm > TINY, taste / norm, first)

    def finish(self, taste: torch.Tensor) -> torch.Tensor:
        """[b, INNER] -> [b, DIM] of unit length, the norm dimension zero."""
        unit = self.direct(taste)
        return torch.cat([unit, torch.zeros_like(unit[:, :1])], dim=1)

    @classmethod
    def load(cls, schema: FeatureSchema, tensors: dict[str, torch.Tensor]) -> UserTower:
        """The tower whose ``state_dict`` is ``tensors``."""
        tower = cls(schema)
        tower.load_state_dict(tensors)
        return tower

    @torch.no_grad()
    def embed(self, counts: sparse.csr_matrix) -> np.ndarray:
        """[m, user_dim] sparse -> [m, DIM] float32."""
        return self.finish(self.sums(counts)).numpy()

    @torch.no_grad()
    def length(self, counts: sparse.csr_matrix) -> np.ndarray:
        """[m, user_dim] sparse -> [m] float32: lengths of the sums before :meth:`finish`; 0 without a direction."""
        found = self.sums(counts).norm(dim=1)
        return torch.where(found > TINY, found, 0.0).numpy()

    def sums(self, counts: sparse.csr_matrix) -> torch.Tensor:
        """[m, user_dim] sparse -> [m, INNER]"""
        taste = counts @ self.weight.detach().numpy() + self.bias.detach().numpy()
        return torch.from_numpy(np.asarray(taste, dtype=np.float32))


class ItemTower(nn.Module):
    """The learnt place of an item whose id is known, or else the place that its content suggests.

    Content is placed by one hidden layer of Gaussian units, each centred on the content of a known item.
    """

    def __init__(self, schema: FeatureSchema, hidden: int = 0) -> None:
        """``hidden`` units, rounded up to whole vectors; unused ones keep weights of zero."""
        super().__init__()
        identity = schema.segment("item", "id")
        self.start, self.stop = len(ITEM_NUMERIC), identity.offset
        width = 2 * len(ITEM_NUMERIC) + self.stop - self.start
        hidden = -(-hidden // VECTOR) * VECTOR
        self.mean = nn.Buffer(torch.zeros(len(ITEM_NUMERIC)))
        self.divisor = nn.Buffer(torch.ones(len(ITEM_NUMERIC)))
        self.used = nn.Buffer(torch.ones(len(ITEM_NUMERIC)))  # 0 for a number that is not used
        self.square_width = nn.Buffer(torch.ones(()))
        self.scale = nn.Buffer(torch.ones(width))  # of each feature of the content
        self.centres = nn.Parameter(torch.zeros(hidden, width))
        self.outward = nn.Parameter(torch.zeros(hidden, INNER))
        self.bias = nn.Parameter(torch.zeros(INNER))
        self.own = nn.Parameter(torch.zeros(identity.size, INNER))

    @classmethod
    def load(cls, schema: FeatureSchema, tensors: dict[str, torch.Tensor]) -> ItemTower:
        """The tower whose ``state_dict`` is ``tensors``."""
        tower = cls(schema, hidden=len(tensors["centres"]))
        # Towers from before words were features have no scale.
        tower.load_state_dict({"scale": tower.scale} | tensors)
        return tower

    def standardise(self, numeric: torch.Tensor) -> torch.Tensor:
        """Raw numbers [b, 3] -> [b, 6]: z-scores of log1p, zero where unknown, then whether each is known."""
        known = (numeric > 0).to(numeric.dtype) * self.used
        score = (torch.log1p(numeric.clamp(min=0)) - self.mean) / self.divisor * known
        return torch.cat([score.clamp(-5, 5), known], dim=1)

    def content(self, counts: torch.Tensor) -> torch.Tensor:
        """Counts without the id [b, stop] -> features [b, width]."""
        features = [self.standardise(counts[:, : self.start]), counts[:, self.start : self.stop]]
        return torch.cat(features, dim=1) * self.scale

    def place(self, features: torch.Tensor) -> torch.Tensor:
        """Content features [b, width] -> [b, INNER]."""
        near = features.square().sum(dim=1, keepdim=True) - 2 * (features @ self.centres.T)
        near = near + self.centres.square().sum(dim=1)  # squared distances [b, hidden]
        return torch.exp(near.clamp(min=0) / (-2 * self.square_width)) @ self.outward + self.bias

    def forward(self, counts: torch.Tensor) -> torch.Tensor:
        """[b, item_dim] float32 -> [b, DIM], unit length."""
        identity = counts[:, self.stop :]  # [b, n_videos], at most a single one
        unknown = 1 - identity.sum(dim=1, keepdim=True)  # [b, 1]
        return self.finish(identity @ self.own + unknown * self.place(self.content(counts)))

    @staticmethod
    def cut(place: torch.Tensor) -> torch.Tensor:
        """[b, INNER] -> [b, INNER], at most of length 1. A user's cosine is the inner product with it."""
        return place / (place * place).sum(dim=1, keepdim=True).clamp(min=1).sqrt()

    def finish(self, place: torch.Tensor) -> torch.Tensor:
        """[b, INNER] -> [b, DIM] of unit length: the place, at most of length 1, and the norm dimension."""
        square = (place * place).sum(dim=1, keepdim=True)  # [b, 1]
        return torch.cat([self.cut(place), (1 - square).clamp(min=0).sqrt()], dim=1)

    @torch.no_grad()
    def near(self, counts: sparse.csr_matrix) -> torch.Tensor:
        """The hidden layer from sparse entries: [b, item_dim] sparse -> [b, hidden]."""
        numbers = 2 * self.start
        numeric = self.standardise(torch.from_numpy(counts[:, : self.start].toarray())) * self.scale[:numbers]
        named = (counts[:, self.start : self.stop] @ sparse.diags(self.scale[numbers:].numpy())).tocsr()
        first, rest = self.centres[:, :numbers], self.centres[:, numbers:]
        products = numeric @ first.T + torch.from_numpy(named @ np.ascontiguousarray(rest.numpy().T))
        square = numeric.square().sum(dim=1, keepdim=True)
        square = square + torch.from_numpy(np.asarray(named.multiply(named).sum(axis=1), dtype=np.float32))
        square = square - 2 * products + self.centres.square().sum(dim=1)  # squared distances [b, hidden]
        return torch.exp(square.clamp(min=0) / (-2 * self.square_width))

    @torch.no_grad()
    def suggest(self, counts: sparse.csr_matrix, block: int = 4096) -> torch.Tensor:
        """The places of items by content alone: [m, item_dim] sparse -> [m, INNER]."""
        blocks = (counts[start : start + block] for start in range(0, counts.shape[0], block))
        return torch.cat([torch.zeros(0, INNER), *(self.near(rows) @ self.outward + self.bias for rows in blocks)])

    @torch.no_grad()
    def embed(self, counts: sparse.csr_matrix) -> np.ndarray:
        """[m, item_dim] sparse -> [m, DIM] float32."""
        identity = counts[:, self.stop :]
        unknown = torch.from_numpy(1 - np.asarray(identity.sum(axis=1), dtype=np.float32))  # [m, 1]
        own = torch.from_numpy(np.asarray(identity @ self.own.numpy(), dtype=np.float32))
        return self.finish(own + unknown * self.suggest(counts)).numpy()
