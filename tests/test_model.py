"""The towers: unit vectors from any input, the same by dense and sparse paths, ONNX and torch, and in any batch."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from scipy import sparse

from two_tower.features import DIM, VOCABULARIES, FeatureSchema
from two_tower.trainer.export import export_towers, item_graph, parity, user_graph
from two_tower.trainer.model import ItemTower, UserTower

FULL = {"tag": 20, "performer": 30, "maker": 5, "label": 3, "series": 4, "source": 2}
FULL |= {"title_word": 25, "description_word": 15, "content_vector": 10, "video": 70}
SIZES = {
    "full": FULL,
    "no performers": FULL | {"performer": 0, "source": 0},
    "no videos": FULL | {"video": 0},
    "videos alone": dict.fromkeys(VOCABULARIES, 0) | {"video": 40},
    "nothing": dict.fromkeys(VOCABULARIES, 0),
}


def make_towers(sizes: dict[str, int], hidden: int = 24, seed: int = 0) -> tuple[FeatureSchema, UserTower, ItemTower]:
    schema = FeatureSchema({name: tuple(f"{name}{i}" for i in range(n)) for name, n in sizes.items()})
    user, item = UserTower(schema), ItemTower(schema, hidden)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in [*user.parameters(), *item.parameters()]:
            parameter.normal_(0, 0.2, generator=generator)
        item.mean.copy_(torch.tensor([6.0, 7.0, 10.5]))
        item.divisor.copy_(torch.tensor([1.0, 0.5, 0.05]))
        item.square_width.fill_(3.0)
        item.scale[-40:] = 0.6
    return schema, user, item


def user_rows(schema: FeatureSchema, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = (rng.random((n, schema.user_dim)) < 0.1) * rng.integers(1, 5, (n, schema.user_dim))
    rows[0] = 0  # a user of whom nothing is known
    return rows.astype(np.float32)


def item_rows(schema: FeatureSchema, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    identity = schema.segment("item", "id")
    rows = (rng.random((n, schema.item_dim)) < 0.1).astype(np.float32)
    rows[:, :3] = rng.integers(0, 2, (n, 3)) * np.array([980.0, 3600.0, 41_000.0])
    rows[:, identity.slice] = 0
    if identity.size:
        half = np.arange(1, n, 2)
        rows[half, identity.offset + rng.integers(0, identity.size, len(half))] = 1
    rows[0] = 0  # an item without tags, numbers or id
    return rows


@pytest.mark.parametrize("name", SIZES)
def test_any_input_gives_finite_unit_vectors_by_both_paths(name: str) -> None:
    schema, user, item = make_towers(SIZES[name])
    for tower, rows in ((user, user_rows(schema, 12)), (item, item_rows(schema, 12))):
        with torch.no_grad():
            dense = tower(torch.from_numpy(rows)).numpy()
        assert dense.shape == (12, DIM)
        assert np.isfinite(dense).all()
        assert np.allclose(np.linalg.norm(dense, axis=1), 1, atol=1e-5)
        assert np.allclose(tower.embed(sparse.csr_matrix(rows)), dense, atol=1e-5)
        assert tower.embed(sparse.csr_matrix(rows[:0])).shape == (0, DIM)


@pytest.mark.parametrize("name", SIZES)
def test_onnx_agrees_with_torch(name: str) -> None:
    schema, user, item = make_towers(SIZES[name])
    assert parity(user_graph(user), user, user_rows(schema, 40)) < 1e-5
    assert parity(item_graph(item), item, item_rows(schema, 40)) < 1e-5
    assert parity(item_graph(item), item) < 1e-5


def test_towers_of_zero_weights_give_unit_vectors() -> None:
    schema = make_towers(FULL)[0]
    user, item = UserTower(schema), ItemTower(schema)  # all weights zero
    rows = torch.from_numpy(user_rows(schema, 3))
    assert torch.equal(user(rows), torch.eye(1, DIM).repeat(3, 1))
    assert parity(user_graph(user), user, rows.numpy()) == 0
    assert parity(item_graph(item), item, item_rows(schema, 3)) == 0


@pytest.mark.parametrize("batch", [1, 3, 16, 64, 256])
def test_a_row_does_not_depend_on_its_batch(batch: int) -> None:
    """Bit for bit, since a refresh must equal a rebuild."""
    schema, user, item = make_towers(FULL | {"video": 700, "performer": 301}, hidden=100)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    for graph, rows in ((user_graph(user), user_rows(schema, 256)), (item_graph(item), item_rows(schema, 256))):
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        whole = session.run(None, {name: rows})[0]
        parts = [session.run(None, {name: rows[i : i + batch]})[0] for i in range(0, len(rows), batch)]
        assert np.array_equal(np.concatenate(parts), whole)


def test_cosine_is_the_inner_product_of_taste_and_place() -> None:
    """An item may be short without leaving the sphere: a niche item scores lower than a popular one of its kind."""
    schema, user, item = make_towers({**dict.fromkeys(VOCABULARIES, 0), "video": 2})
    direction = torch.randn(127, generator=torch.Generator().manual_seed(1))
    direction /= direction.norm()
    with torch.no_grad():
        user.weight.zero_()
        user.bias.copy_(direction * 7)
        item.own.copy_(torch.stack([direction * 0.9, direction * 0.3]))
    items = item.embed(sparse.csr_matrix(np.array([[0, 0, 0, 1, 0], [0, 0, 0, 0, 1]], dtype=np.float32)))
    users = user.embed(sparse.csr_matrix((1, schema.user_dim), dtype=np.float32))
    assert (users @ items.T)[0] == pytest.approx([0.9, 0.3], abs=1e-6)


def test_known_ids_outweigh_content_and_unknown_ids_use_content() -> None:
    schema, _, item = make_towers(FULL)
    rows = item_rows(schema, 4)
    identity = schema.segment("item", "id")
    rows[:, identity.slice] = 0
    rows[2, identity.offset + 5] = rows[3, identity.offset + 5] = 1
    found = item.embed(sparse.csr_matrix(rows))
    assert np.allclose(found[2], found[3], atol=1e-6)
    assert not np.allclose(found[1], found[0], atol=1e-2)


def test_saved_weights_load_unchanged() -> None:
    from safetensors.torch import load

    schema, user, item = make_towers(FULL)
    weights = load(export_towers(user, item)[2])
    side = {s: {k.removeprefix(s): v for k, v in weights.items() if k.startswith(s)} for s in ("user.", "item.")}
    again = UserTower.load(schema, side["user."]), ItemTower.load(schema, side["item."])
    rows = sparse.csr_matrix(user_rows(schema, 5)), sparse.csr_matrix(item_rows(schema, 5))
    assert np.array_equal(again[0].embed(rows[0]), user.embed(rows[0]))
    assert np.array_equal(again[1].embed(rows[1]), item.embed(rows[1]))


def test_an_export_that_differs_from_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, user, item = make_towers(FULL)
    monkeypatch.setattr("two_tower.trainer.export.parity", lambda graph, tower: 0.5)
    with pytest.raises(RuntimeError, match="user tower"):
        export_towers(user, item)
