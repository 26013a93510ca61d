"""Towers -> ONNX and safetensors.

The graphs are written node by node with ``onnx.helper``. They consist of a few dozen standard operators, so a file does
not depend on the exporter of a release of torch; :func:`parity` compares it with torch on every export. Opset 17, IR
version 8: supported by onnxruntime and onnxruntime-web since 1.12.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save
from scipy import sparse

from two_tower.features import DIM
from two_tower.neighbours import to_tensors
from two_tower.trainer.model import INNER, TINY, VECTOR, ItemTower, UserTower

OPSET = 17
IR_VERSION = 8
LARGEST = 2**31 - 2**20
"""Most bytes of weights in a file, since protocol buffers are limited to 2 GB."""


class _Graph:
    """Nodes and constants of a graph under construction; every method returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: Any, dtype: type = np.float32) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value, dtype=dtype), name)
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def columns(self, source: str, start: int, stop: int, output: str) -> str:
        """Columns ``start`` to ``stop`` of a matrix."""
        bounds = [
            self.constant(f"{output}_{k}", [v], np.int64) for k, v in (("start", start), ("stop", stop), ("axis", 1))
        ]
        return self.add("Slice", [source, *bounds], output)

    def model(self, source: str, width: int, output: str) -> bytes:
        """The finished file: float32 [batch, width] -> float32 [batch, DIM]."""
        graph = helper.make_graph(
            self.nodes,
            output,
            [helper.make_tensor_value_info(source, TensorProto.FLOAT, ["batch", width])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", DIM])],
            list(self.constants.values()),
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="pg-two-tower")
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def user_graph(tower: UserTower) -> bytes:
    """``user_features`` [batch, user_dim] -> ``user_embedding`` [batch, DIM]; see :meth:`UserTower.forward`."""
    g = _Graph()
    weight = g.constant("weight", _array(tower.weight))
    taste = g.add("MatMul", ["user_features", weight], "summed")
    taste = g.add("Add", [taste, g.constant("bias", _array(tower.bias))], "taste")
    norm = g.add("ReduceL2", [taste], "norm", axes=[1], keepdims=1)
    tiny = g.constant("tiny", TINY)
    unit = g.add("Div", [taste, g.add("Max", [norm, tiny], "divisor")], "direction")
    known = g.add("Greater", [norm, tiny], "known")
    unit = g.add("Where", [known, unit, g.constant("first", np.eye(1, INNER))], "unit")
    g.add("Pad", [unit, g.constant("pads", [0, 0, 0, DIM - INNER], np.int64)], "user_embedding")
    return g.model("user_features", tower.weight.shape[0], "user_embedding")


def item_graph(tower: ItemTower) -> bytes:
    """``item_features`` [batch, item_dim] -> ``item_embedding`` [batch, DIM]; see :meth:`ItemTower.forward`."""
    g = _Graph()
    width = tower.stop + tower.own.shape[0]
    zero, one = g.constant("zero", 0), g.constant("one", 1)
    numeric = g.columns("item_features", 0, tower.start, "numeric")
    known = g.add("Cast", [g.add("Greater", [numeric, zero], "positive")], "present", to=TensorProto.FLOAT)
    known = g.add("Mul", [known, g.constant("used", _array(tower.used))], "known")
    # Rows of whole vectors, see VECTOR.
    wide = g.add("Pad", [numeric, g.constant("vector_pads", [0, 0, 0, VECTOR - tower.start], np.int64)], "wide")
    score = g.add("Log", [g.add("Add", [g.add("Max", [wide, zero], "clamped"), one], "shifted")], "logarithm_wide")
    score = g.columns(score, 0, tower.start, "logarithm")
    score = g.add("Sub", [score, g.constant("mean", _array(tower.mean))], "centred")
    score = g.add("Div", [score, g.constant("divisor", _array(tower.divisor))], "score")
    score = g.add("Mul", [score, known], "score_known")
    score = g.add("Clip", [score, g.constant("low", -5), g.constant("high", 5)], "score_clipped")
    parts = [score, known, g.columns("item_features", tower.start, tower.stop, "named")]
    features = g.add("Concat", parts, "unscaled", axis=1)
    features = g.add("Mul", [features, g.constant("scale", _array(tower.scale))], "content")
    place = g.constant("place_bias", _array(tower.bias)[None])
    if len(tower.centres):
        centres = _array(tower.centres)  # [hidden, width]
        near = g.add("MatMul", [features, g.constant("centres", -2 * centres.T)], "products")
        near = g.add(
            "Add", [near, g.add("ReduceSumSquare", [features], "square_length", axes=[1], keepdims=1)], "partial"
        )
        near = g.add("Add", [near, g.constant("square_centres", np.square(centres).sum(axis=1))], "differences")
        near = g.add("Max", [near, zero], "square_distances")
        near = g.add("Mul", [near, g.constant("decay", -0.5 / tower.square_width.item())], "exponents")
        hidden = g.add("MatMul", [g.add("Exp", [near], "near"), g.constant("outward", _array(tower.outward))], "moved")
        place = g.add("Add", [hidden, place], "suggested")
    if tower.own.shape[0]:
        identity = g.columns("item_features", tower.stop, width, "identity")
        has = g.add("ReduceSum", [identity, g.constant("axis", [1], np.int64)], "has_id", keepdims=1)
        place = g.add("Mul", [place, g.add("Sub", [one, has], "has_none")], "suggested_if_none")
        own = g.add("MatMul", [identity, g.constant("own", _array(tower.own))], "own_place")
        place = g.add("Add", [own, place], "long_place")
    if not len(tower.centres) and not tower.own.shape[0]:
        # Nothing distinguishes items, but the output must still have a row for each.
        nothing = g.add("ReduceMax", [known], "anything_known", axes=[1], keepdims=1)
        place = g.add("Add", [place, g.add("Mul", [nothing, zero], "nothing")], "long_place")
    square = g.add("ReduceSumSquare", [place], "square", axes=[1], keepdims=1)
    place = g.add("Div", [place, g.add("Sqrt", [g.add("Max", [square, one], "square_cut")], "longer")], "place")
    rest = g.add("Sqrt", [g.add("Max", [g.add("Sub", [one, square], "rest_square"), zero], "rest_clamped")], "rest")
    g.add("Concat", [place, rest], "item_embedding", axis=1)
    return g.model("item_features", width, "item_embedding")


def export_towers(
    user_tower: UserTower, item_tower: ItemTower, neighbours: sparse.csr_matrix | None = None
) -> tuple[bytes | None, bytes | None, bytes]:
    """(user_tower.onnx, item_tower.onnx, weights.safetensors), None for a tower that is too large for ONNX.

    ``neighbours`` [videos, videos] go into the weights, as CSR; the graphs do not contain them.

    Raises RuntimeError if ONNX and torch disagree.
    """
    graphs = _checked("user", user_tower), _checked("item", item_tower)
    weights = {f"user.{k}": v.detach().contiguous() for k, v in user_tower.state_dict().items()}
    weights |= {f"item.{k}": v.detach().contiguous() for k, v in item_tower.state_dict().items()}
    weights |= {name: torch.from_numpy(tensor) for name, tensor in to_tensors(neighbours).items()}
    return *graphs, save(weights)


def _checked(name: str, tower: UserTower | ItemTower) -> bytes | None:
    if sum(weight.numel() * weight.element_size() for weight in tower.state_dict().values()) > LARGEST:
        return None
    graph = user_graph(tower) if isinstance(tower, UserTower) else item_graph(tower)
    worst = parity(graph, tower)
    if not worst <= 1e-5:
        raise RuntimeError(f"the exported {name} tower is {worst:.2g} (cosine distance) from the trained one")
    return graph


def parity(graph: bytes, tower: UserTower | ItemTower, rows: np.ndarray | None = None, seed: int = 0) -> float:
    """Largest cosine distance between ONNX and torch on ``rows`` [b, width], by default random counts."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    if rows is None:
        rng = np.random.default_rng(seed)
        rows = (rng.random((16, source.shape[1])) < 0.02) * rng.integers(1, 4, (16, source.shape[1])).astype(np.float32)
        if isinstance(tower, ItemTower):
            rows[:, tower.stop :] = 0
            if tower.own.shape[0]:
                rows[np.arange(8), tower.stop + rng.integers(0, tower.own.shape[0], 8)] = 1
        rows[0] = 0
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    found = session.run(None, {source.name: rows})[0]  # [b, DIM]
    with torch.no_grad():
        expected = tower(torch.from_numpy(rows)).numpy()
    return float(np.max(1 - (found * expected).sum(axis=1), initial=0))
