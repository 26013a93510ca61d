"""Inspects the files of a model without libraries for their formats. Pure functions; ``plpy`` is passed in.

An ONNX file is a protocol buffer. Only the fields that decide whether the file is safe to open are read: where its
weights are, and which operators it uses. Strings stay on one line, because PL/Python indents a body.
"""

# The operators that a tower's layers need, of the default domain of ONNX. Refused because they are not listed: control
# flow, which may not end and cannot be interrupted in a backend; operators that make large tensors from a few numbers
# (Expand, Tile, ConstantOfShape, Range, Resize, OneHot, Einsum); random numbers; operators on text, sequences, images.
ONNX_OPERATORS = frozenset(
    [
        # arithmetic, element by element
        "Abs", "Add", "Ceil", "Clip", "Cos", "Div", "Erf", "Exp", "Floor", "Log", "Max", "Mean", "Min", "Mul", "Neg",
        "Pow", "Reciprocal", "Round", "Sign", "Sin", "Sqrt", "Sub", "Sum",
        # comparisons and choices
        "And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Where",
        "Xor",
        # activations
        "Celu", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "LogSoftmax", "Mish", "PRelu", "Relu", "Selu",
        "Sigmoid", "Softmax", "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu",
        # layers and norms
        "BatchNormalization", "Dropout", "Gemm", "LayerNormalization", "LpNormalization", "MatMul",
        "RMSNormalization",
        # sums over an axis
        "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
        "ReduceProd", "ReduceSum", "ReduceSumSquare",
        # shapes and constants
        "Cast", "Concat", "Constant", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Shape", "Slice", "Split",
        "Squeeze", "Transpose", "Unsqueeze",
    ]
)  # fmt: skip
ONNX_NODES = 2000
ONNX_PADDED = 4096  # entries that a Pad may add in all

# message -> field number -> message of a field to descend into, by the names of onnx.proto.
ONNX_MESSAGES = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Subgraph", 10: "Tensor", 11: "Subgraph", 22: "SparseTensor", 23: "SparseTensor"},
    "Tensor": {},
}
# Parts that a tower does not need. A sparse tensor of a few bytes becomes a dense one of any size once it is read.
ONNX_REFUSED = {
    "Function": "a function of its own",
    "Subgraph": "a graph inside an operator",
    "Training": "a graph for training",
    "SparseTensor": "a sparse tensor",
}


def varint(data, at):
    """(value, position after it) of a base-128 number."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError(f"a number is cut off at byte {at}")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def varints(value):
    """The 64-bit integers of a repeated field, packed or by itself; no more than a Pad could need."""
    if isinstance(value, int):
        return [signed(value)]
    at, found = 0, []
    while at < len(value) and len(found) <= ONNX_PADDED:
        number, at = varint(value, at)
        found.append(signed(number))
    return found


def signed(number):
    """A 64-bit number as two's complement has it."""
    return number - (1 << 64) if number >= 1 << 63 else number


def fields(data):
    """(number, value) of every field of a protocol buffer: an int, or a memoryview of what has a length."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = data[at : at + size], at + size
        elif kind == 2:
            size, at = varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"byte {at} is not the start of a field")
        # Parsers keep 32 bits of a key, so they would read a longer key as another field than this code does.
        if number == 0 or key >= 1 << 32 or at > len(data):
            raise ValueError(f"a field is cut off at byte {min(at, len(data))}")
        yield number, value


def inspect_onnx(data):
    """What is in an ONNX file. Raises ValueError if ``data`` is not a complete protocol buffer.

    ``domains`` and ``operators`` in use; ``external``: tensors kept in other files; ``parts``: values of ONNX_REFUSED;
    ``nodes``: how many; ``padded``: for each Pad, how many entries it adds, None if the file does not say.
    """
    found = {"domains": set(), "operators": set(), "external": set(), "parts": set(), "nodes": 0, "padded": []}
    integers, pads = {}, []
    inspect_message(memoryview(data), "Model", found, integers, pads)
    for amounts, source in pads:
        amounts = amounts + integers.get(source, [])
        found["padded"].append(sum(amount for amount in amounts if amount > 0) if amounts else None)
    return found


def inspect_message(data, message, found, integers, pads):
    """Adds the contents of a message to ``found``, its tensors by name to ``integers``, and Pad sizes to ``pads``.

    Returns what the enclosing message needs: the name of an attribute and its integers.
    """
    operators, inputs, outputs, attributes = [], [], [], {}
    name, numbers, is_external = "", [], False
    for number, value in fields(data):
        is_bytes = not isinstance(value, int)
        below = ONNX_MESSAGES[message].get(number)
        if below in ONNX_REFUSED:
            found["parts"].add(ONNX_REFUSED[below])
        elif below and is_bytes:
            inner_name, inner = inspect_message(value, below, found, integers, pads)
            if message == "Node":
                attributes.setdefault(inner_name, []).extend(inner)
            elif message == "Attribute":
                numbers += inner
        elif message == "Node" and number in (1, 2, 4, 7) and is_bytes:
            text = bytes(value).decode()
            if number == 7:
                found["domains"].add(text)
            else:
                {1: inputs, 2: outputs, 4: operators}[number].append(text)
        elif message == "Attribute":
            if number == 1 and is_bytes:
                name = bytes(value).decode()
            elif number == 8:
                numbers += varints(value)
        elif message == "Tensor":
            if number == 8 and is_bytes:
                name = bytes(value).decode()
            elif number == 7:  # int64_data
                numbers += varints(value)
            elif number == 9 and is_bytes:  # raw_data
                value = value[: 8 * ONNX_PADDED]
                numbers += [signed(int.from_bytes(value[at : at + 8], "little")) for at in range(0, len(value), 8)]
            elif number in (13, 14):  # external_data, data_location
                is_external = is_external or bool(value)
    if message == "Node":
        found["nodes"] += 1
        found["operators"] |= set(operators or [""])
        if "Constant" in operators:
            for output in outputs:
                integers.setdefault(output, []).extend(attributes.get("value", []) + attributes.get("value_ints", []))
        if "Pad" in operators:
            pads.append((attributes.get("pads", []) + attributes.get("paddings", []), "".join(inputs[1:2])))
        if "Dropout" in operators and len(inputs) > 2:
            found["parts"].add("a Dropout that can be told to draw at random")
    elif message == "Tensor" and name:
        integers.setdefault(name, []).extend(numbers)
    if is_external:
        found["external"].add(name)
    return name, numbers


def what_is_wrong_with_onnx(data):
    """A reason to refuse an ONNX file before any library opens it; None if there is none."""
    try:
        found = inspect_onnx(data)
    except (ValueError, UnicodeDecodeError) as error:
        return f"is not a whole ONNX model: {error}"
    if not found["nodes"]:
        return "is not an ONNX model: it has no operators"
    if found["external"]:
        return f"keeps weights in other files ({', '.join(sorted(found['external'])[:3])}); it must hold all of them"
    custom = sorted(found["domains"] - {"", "ai.onnx"})
    if custom:
        return f"uses operators that are not of standard ONNX ({', '.join(custom[:3])})"
    if found["parts"]:
        return f"has {sorted(found['parts'])[0]}, and must be one flat graph that computes a row from a row"
    refused = sorted(found["operators"] - ONNX_OPERATORS)
    if refused:
        allowed = ", ".join(sorted(ONNX_OPERATORS))
        return f"uses the operator {', '.join(map(repr, refused[:3]))}; a tower may use {allowed}"
    if found["nodes"] > ONNX_NODES:
        return f"has {found['nodes']} operators, and may have {ONNX_NODES}"
    if any(amount is None or amount > ONNX_PADDED for amount in found["padded"]):
        return f"pads by more than {ONNX_PADDED} entries, or by numbers that are not constants of the file"
    return None


def what_is_wrong_with_safetensors(data):
    """A reason to refuse a file of weights; None if there is none. The format: length, JSON header, tensors."""
    import json

    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        return "is not a safetensors file: it is cut off"
    try:
        header = json.loads(bytes(data[8 : 8 + size]))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return "is not a safetensors file: its header cannot be read"
    if max(ends, default=0) != len(data) - 8 - size:
        return "is not a safetensors file: it is cut off"
    return None


def check_tower_file(plpy, tower, content):
    """Raises 22023 if a tower must not even be opened."""
    wrong = what_is_wrong_with_onnx(content)
    if wrong:
        plpy.error(f"the {tower} tower {wrong}", sqlstate="22023")


def check_files(plpy, tower, content, weights):
    """Raises 22023 if a tower or the weights must not even be opened."""
    check_tower_file(plpy, tower, content)
    wrong = weights is not None and what_is_wrong_with_safetensors(weights)  # a file that is too large is not stored
    if wrong:
        plpy.error(f"the file of weights {wrong}", sqlstate="22023")


def check_sample(plpy, numpy, session, tower, content, sample, max_distance):
    """Raises 22023 unless the tower reproduces PyTorch's outputs for the sample in its metrics.

    ``sample``: the sha256 of the tower it was taken from, ``inputs`` (rows of [position, count] pairs, positions from
    0) and ``outputs`` (their vectors).
    """
    import hashlib

    if not isinstance(sample, dict) or not sample.get("inputs"):
        plpy.error(
            f"the metrics have no parity sample of the {tower} tower",
            hint="Register through two-tower, which takes one: two-tower train, two-tower model register DIR.",
            sqlstate="22023",
        )
    if sample.get("sha256") != hashlib.sha256(content).hexdigest():
        plpy.error(f"the {tower} tower is not the file that its parity sample was taken from", sqlstate="22023")
    feed = session.get_inputs()[0]
    rows = numpy.zeros((len(sample["inputs"]), feed.shape[1]), dtype=numpy.float32)
    try:
        for row, entries in zip(rows, sample["inputs"]):  # noqa: B905 - PL/Python may be older than strict=
            for position, value in entries:
                row[position] = value
        expected = numpy.array(sample["outputs"], dtype=numpy.float32).reshape(len(rows), -1)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        plpy.error(f"the parity sample of the {tower} tower does not fit it: {error}", sqlstate="22023")
    found = session.run(None, {feed.name: rows})[0]
    if found.shape != expected.shape:
        plpy.error(f"the parity sample of the {tower} tower does not fit it: {expected.shape}", sqlstate="22023")
    with numpy.errstate(all="ignore"):
        distance = numpy.max(1 - (found * expected).sum(axis=1))
        unit = numpy.abs((found * found).sum(axis=1) - 1).max() < 1e-2
    if not (distance <= max_distance and unit):
        plpy.error(
            f"the {tower} tower does not answer its parity sample as it did when it was trained",
            detail=f"Cosine distance {distance:.3g}, at most {max_distance:g}; vectors of unit length: {bool(unit)}.",
            sqlstate="22023",
        )
