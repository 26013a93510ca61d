"""ONNX files that are accepted as towers: an allow-list of operators is checked before any library opens the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from psycopg import errors

import model_files as untyped_model_files
from conftest import Connect, Connection
from world_fixtures import random_model, schema_of

pytestmark = pytest.mark.world

model_files: Any = untyped_model_files  # its functions name no types, since PL/Python's arguments have none
STANDARD = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})
WEIGHTS = b"\x02\0\0\0\0\0\0\0{}"


def model(*nodes: onnx.NodeProto, constants: tuple[onnx.TensorProto, ...] = (), **more: Any) -> bytes:
    """A file with these nodes. It need not make sense, since it is checked before anybody tries to run it."""
    source = helper.make_tensor_value_info("user_features", TensorProto.FLOAT, ["batch", 4])
    output = helper.make_tensor_value_info("user_embedding", TensorProto.FLOAT, ["batch", 128])
    graph = helper.make_graph(list(nodes), "test", [source], [output], list(constants))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, **more)
    return bytes(made.SerializeToString())


def node(operator: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, list(inputs) or ["user_features"], ["user_embedding"], **attributes)


def amounts(*values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), "amounts")


def body() -> onnx.GraphProto:
    """A graph inside an operator that consists of an allowed operator."""
    output = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1])
    return helper.make_graph([helper.make_node("Identity", ["user_features"], ["inner"])], "body", [], [output])


def operator_file(name: str) -> bytes:
    if name == "Pad":
        return model(node("Pad", "user_features", "amounts"), constants=(amounts(0, 0, 0, 1),))
    return model(node(name))


def looped(iterations: int) -> bytes:
    """A valid graph whose loop runs so many times."""
    inner = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
    ]
    outer = [
        helper.make_tensor_value_info("d", TensorProto.BOOL, []),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    nodes = [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Sin", ["x"], ["y"])]
    loop = helper.make_node(
        "Loop", ["times", "go", "user_features"], ["user_embedding"],
        body=helper.make_graph(nodes, "body", inner, outer),
    )  # fmt: skip
    times = numpy_helper.from_array(np.array(iterations, np.int64), "times")
    return model(loop, constants=(times, numpy_helper.from_array(np.array(True), "go")))


def local_function() -> bytes:
    """A function of the model's own, in its own domain and, to look harmless, in the default one."""
    made = onnx.load_model_from_string(model(node("Relu")))
    function = helper.make_function(
        "", "Relu", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])], [helper.make_opsetid("", 17)]
    )
    made.functions.append(function)
    return bytes(made.SerializeToString())


def with_training() -> bytes:
    made = onnx.load_model_from_string(model(node("Relu")))
    made.training_info.append(onnx.TrainingInfoProto(algorithm=body()))
    return bytes(made.SerializeToString())


def with_sparse_constant() -> bytes:
    made = onnx.load_model_from_string(model(node("Relu")))
    values = numpy_helper.from_array(np.ones(1, np.float32), "wide")
    made.graph.sparse_initializer.append(
        onnx.SparseTensorProto(values=values, indices=amounts(0), dims=[1 << 20, 1 << 20])
    )
    return bytes(made.SerializeToString())


def with_long_keys(content: bytes) -> bytes:
    """The same file for a parser that keeps 32 bits of a field's key; unknown fields for one that keeps more."""
    found = bytearray()
    view = memoryview(content)
    at = 0
    while at < len(view):
        key, after = model_files.varint(view, at)
        length, start = model_files.varint(view, after)
        end = start if key & 7 == 0 else start + length
        wide = key | 1 << 33
        while wide >= 0x80:
            found.append(wide & 0x7F | 0x80)
            wide >>= 7
        found.append(wide)
        found += view[after:end]
        at = end
    return bytes(found)


PADS: dict[str, Callable[[], bytes]] = {
    "by too many": lambda: model(node("Pad", "user_features", "amounts"), constants=(amounts(0, 0, 0, 1 << 40),)),
    "by many together": lambda: model(
        node("Pad", "user_features", "amounts"), constants=(amounts(0, 2048, 0, 2049),)
    ),
    "by what the rows say": lambda: model(node("Pad", "user_features", "user_features")),
    "by what is computed": lambda: model(
        helper.make_node("Shape", ["user_features"], ["amounts"]), node("Pad", "user_features", "amounts")
    ),
    "by nothing": lambda: model(node("Pad")),
    "by many, as attribute": lambda: model(node("Pad", pads=[0, 0, 0, 1 << 40])),
    "by many, of an old attribute": lambda: model(node("Pad", paddings=[0, 0, 0, 1 << 40])),
    "by many, of a constant node": lambda: model(
        helper.make_node("Constant", [], ["amounts"], value=amounts(0, 0, 0, 1 << 40)),
        node("Pad", "user_features", "amounts"),
    ),
    "by many, of a list": lambda: model(
        helper.make_node("Constant", [], ["amounts"], value_ints=[0, 0, 0, 1 << 40]),
        node("Pad", "user_features", "amounts"),
    ),
    "by many, twice named": lambda: model(
        node("Pad", "user_features", "amounts"), constants=(amounts(0, 0, 0, 1), amounts(0, 0, 0, 1 << 40))
    ),
    "by many, unpacked": lambda: model(
        node("Pad", "user_features", "amounts"),
        constants=(helper.make_tensor("amounts", TensorProto.INT64, [4], [0, 0, 0, 1 << 40]),),
    ),
}  # fmt: skip

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    **{
        f"operator {name}": (lambda name=name: operator_file(name), f"uses the operator '{name}'")  # type: ignore[misc]
        for name in STANDARD
        if name not in model_files.ONNX_OPERATORS
    },
    **{
        f"{attribute} in {name}": (
            lambda name=name, attribute=attribute: model(  # type: ignore[misc]
                node(name, **{attribute: body() if attribute == "graph" else [body(), body()]})
            ),
            "has a graph inside an operator",
        )
        for name in sorted(model_files.ONNX_OPERATORS)
        for attribute in ("graph", "graphs")
    },
    **{f"pads {how}": (file, "pads by more than") for how, file in PADS.items()},
    "loop that ends": (lambda: looped(2), "uses the operator 'Loop'|has a graph inside"),
    "loop without end": (lambda: looped(2**62), "uses the operator 'Loop'|has a graph inside"),
    "operator without a name": (lambda: model(onnx.NodeProto(output=["user_embedding"])), "uses the operator ''"),
    "operator of another domain": (lambda: model(node("Relu", domain="com.microsoft")), "not of standard ONNX"),
    "operator of a domain like the default": (lambda: model(node("Relu", domain="ai.onnx.ml")), "not of standard ONNX"),
    "function of the model": (local_function, "has a function of its own"),
    "graph for training": (with_training, "has a graph for training"),
    "sparse constant": (with_sparse_constant, "has a sparse tensor"),
    "sparse attribute": (
        lambda: model(
            helper.make_node(
                "Constant", [], ["user_embedding"],
                sparse_value=onnx.SparseTensorProto(
                    values=numpy_helper.from_array(np.ones(1, np.float32)), indices=amounts(0), dims=[1 << 40]
                ),
            )
        ),
        "has a sparse tensor",
    ),
    "dropout that draws": (
        lambda: model(node("Dropout", "user_features", "ratio", "training")), "has a Dropout that can be told to draw"
    ),
    "thousands of operators": (lambda: model(*[node("Relu")] * 2001), "has 2001 operators"),
    "keys of fields that are too long": (lambda: with_long_keys(looped(2**62)), "is not a whole ONNX model"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(model_files.ONNX_OPERATORS))
def test_allowed_operators_are_of_the_onnx_standard_and_pass(name: str) -> None:
    assert name in STANDARD
    assert model_files.what_is_wrong_with_onnx(operator_file(name)) is None


def test_a_refusal_lists_the_allowed_operators() -> None:
    told = model_files.what_is_wrong_with_onnx(model(node("Loop")))
    assert all(name in told for name in ("'Loop'", *model_files.ONNX_OPERATORS))


@pytest.mark.parametrize("what", REFUSED)
def test_a_refused_file_is_named_with_the_reason(what: str) -> None:
    file, message = REFUSED[what]
    told = model_files.what_is_wrong_with_onnx(file())
    assert told is not None
    assert any(part in told for part in message.split("|"))


def test_every_occurrence_of_a_repeated_field_is_checked() -> None:
    """A field that occurs twice: a parser takes the last, so every one must be allowed."""
    harmless, harmful = node("Relu").SerializeToString(), onnx.NodeProto(op_type="Loop").SerializeToString()
    for content in (harmless + harmful, harmful + harmless):
        parsed = onnx.NodeProto.FromString(content)
        told = model_files.what_is_wrong_with_onnx(with_raw_node(content))
        assert parsed.op_type in ("Relu", "Loop")
        assert told is not None
        assert "'Loop'" in told


def with_raw_node(content: bytes) -> bytes:
    """A model whose graph has a node of these bytes."""

    def field(number: int, inner: bytes) -> bytes:
        size, out = len(inner), bytearray([number << 3 | 2])
        while size >= 0x80:
            out.append(size & 0x7F | 0x80)
            size >>= 7
        return bytes([*out, size]) + inner

    return field(7, field(1, content))


@pytest.fixture
def fresh(connect: Connect) -> Connection:
    """A backend that has not loaded onnxruntime."""
    return connect()


NO_ONNXRUNTIME = """do language plpython3u $$
import sys
sys.modules["onnxruntime"] = None
$$"""
"""Importing it fails from then on in this session, whether or not it was imported before."""


def test_refused_files_never_reach_onnxruntime(fresh: Connection) -> None:
    fresh.execute(NO_ONNXRUNTIME)
    for what, (file, _) in REFUSED.items():
        with pytest.raises(errors.InvalidParameterValue, match="the user tower") as caught:
            fresh.execute("select two_tower.check_tower('user', %s, 4, %s, '{}', 0.001)", (file(), WEIGHTS))
        assert caught.value.sqlstate == "22023", what
    # This shows that the test works: a file that passes the check would be opened.
    with pytest.raises(errors.Error, match="onnxruntime"):
        fresh.execute("select two_tower.check_tower('user', %s, 4, %s, '{}', 0.001)", (model(node("Relu")), WEIGHTS))


def test_files_written_around_registration_are_checked_too(fresh: Connection) -> None:
    """The table's owner, who need not be a superuser, may write a file, and its graph runs in the server's process."""
    fresh.execute("set session_replication_role = replica")
    for what, (file, _) in REFUSED.items():
        fresh.execute("update two_tower.model_files set content = %s where name = 'item_tower.onnx'", (file(),))
        with pytest.raises(errors.InvalidParameterValue, match="the item tower") as caught:
            fresh.execute("select two_tower.infer_onnxruntime('v1', 'item', extensions.sparsevec_send('{1:1}/4'))")
        assert caught.value.sqlstate == "22023", what


def test_files_exported_by_the_trainer_pass(fresh: Connection) -> None:
    made = random_model(schema_of(fresh), seed=2)
    for content in (made.user_graph, made.item_graph):
        assert model_files.what_is_wrong_with_onnx(content) is None
