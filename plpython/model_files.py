"""What is inside the files of a model, read without libraries of their formats. Pure functions; ``plpy`` is passed in.

An ONNX file is a protocol buffer. Only the fields that decide whether the file is safe to open are looked at: where its
weights are, and whose operators it uses. Strings stay on one line, because PL/Python indents a body.
"""

# message -> field number -> message of a field to descend into, by the names of onnx.proto.
ONNX_MESSAGES = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Training": {1: "Graph", 2: "Graph"},
    "Tensor": {},
}
ONNX_DEPTH = 64


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
        if number == 0 or at > len(data):
            raise ValueError(f"a field is cut off at byte {min(at, len(data))}")
        yield number, value


def inspect_onnx(data, message="Model", depth=0):
    """{"domains": operators' domains in use, "external": tensors kept in other files, "nodes": their number}.

    Raises ValueError where ``data`` is not a whole protocol buffer.
    """
    if depth > ONNX_DEPTH:
        raise ValueError("it is nested too deeply")
    found = {"domains": set(), "external": [], "nodes": 0}
    name, is_external = "", False
    for number, value in fields(memoryview(data)):
        below = ONNX_MESSAGES[message].get(number)
        if below and not isinstance(value, int):
            inner = inspect_onnx(value, below, depth + 1)
            found["domains"] |= inner["domains"]
            found["external"] += inner["external"]
            found["nodes"] += inner["nodes"]
        elif message == "Node" and number == 7 and not isinstance(value, int):
            found["domains"].add(bytes(value).decode())
        elif message == "Tensor" and number == 8 and not isinstance(value, int):
            name = bytes(value).decode()
        elif message == "Tensor" and number in (13, 14):  # external_data, data_location
            is_external = is_external or bool(value)
    if message == "Node":
        found["nodes"] += 1
    if message == "Function":
        found["domains"].add("a function of its own")
    if is_external:
        found["external"].append(name)
    return found


def what_is_wrong_with_onnx(data):
    """A reason to refuse an ONNX file before any library opens it; None if there is none."""
    try:
        found = inspect_onnx(data)
    except (ValueError, UnicodeDecodeError) as error:
        return f"is not a whole ONNX model: {error}"
    if not found["nodes"]:
        return "is not an ONNX model: it has no operators"
    if found["external"]:
        return (
            f"keeps weights in other files ({', '.join(sorted(set(found['external']))[:3])}); it must hold all of them"
        )
    custom = sorted(found["domains"] - {"", "ai.onnx"})
    if custom:
        return f"uses operators that are not of standard ONNX ({', '.join(custom[:3])})"
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


def check_files(plpy, tower, content, weights):
    """Errors with 22023 where a tower or the weights must not even be opened."""
    wrong = what_is_wrong_with_onnx(content)
    if wrong:
        plpy.error(f"the {tower} tower {wrong}", sqlstate="22023")
    wrong = what_is_wrong_with_safetensors(weights)
    if wrong:
        plpy.error(f"the file of weights {wrong}", sqlstate="22023")


def check_sample(plpy, numpy, session, tower, content, sample, max_distance):
    """Errors with 22023 unless the tower answers the sample of its metrics as torch did.

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
