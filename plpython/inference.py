"""Inference inside the server. Pure functions of their arguments: ``plpy`` and the dictionary ``GD`` are passed in.

Runs in PL/Python of the server's own Python, so it needs nothing but numpy and onnxruntime. Long strings stay on one line,
because PL/Python indents a body.
"""

SESSIONS_KEPT = 4
ROWS_PER_RUN = 64


def load_libraries(plpy):
    """numpy and onnxruntime, or an error that says how to install them for this Python."""
    import sys

    try:
        import numpy
        import onnxruntime
    except ImportError as error:
        version = "%d.%d" % sys.version_info[:2]
        plpy.error(
            "the server's Python %s cannot import onnxruntime: %s" % (version, error),
            hint="Install numpy and onnxruntime for Python %s where the server can read them, set PYTHONPATH for the server process, and restart it; two-tower doctor shows the command." % version,
            sqlstate="58000",
        )
    return numpy, onnxruntime


def open_session(onnxruntime, content):
    """A session of one thread without arena or spinning: a backend is one process among many."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def session_for(plpy, GD, onnxruntime, version, tower):
    """The session of a version's tower, cached in this backend by the checksum of its file."""
    if "two_tower_find" not in GD:
        GD["two_tower_find"] = plpy.prepare("select sha256 from two_tower.model_files where model_version = $1 and name = $2", ["text", "text"])
        GD["two_tower_read"] = plpy.prepare("select content from two_tower.model_files where model_version = $1 and name = $2", ["text", "text"])
    key = [version, tower + "_tower.onnx"]
    found = plpy.execute(GD["two_tower_find"], key)
    if not found:
        plpy.error("model %s has no %s tower" % (version, tower), sqlstate="P0002")
    checksum = found[0]["sha256"]
    sessions = GD.setdefault("two_tower_sessions", {})
    session = sessions.pop(checksum, None)
    if session is None:
        session = open_session(onnxruntime, plpy.execute(GD["two_tower_read"], key)[0]["content"])
        while len(sessions) >= SESSIONS_KEPT:
            sessions.pop(next(iter(sessions)))
    sessions[checksum] = session
    return session


def unpack(numpy, packed):
    """Positions and values of each sparse vector in a concatenation of what sparsevec_send makes."""
    at, rows = 0, []
    while at < len(packed):
        count = int.from_bytes(packed[at + 4 : at + 8], "big")
        positions = numpy.frombuffer(packed, ">i4", count, at + 12)
        values = numpy.frombuffer(packed, ">f4", count, at + 12 + 4 * count)
        rows.append((positions, values))
        at += 12 + 8 * count
    return rows


def half_literals(numpy, GD):
    """Text of every half-precision number in [-1, 1] by its bit pattern; five digits bring each back exactly."""
    table = GD.get("two_tower_literals")
    if table is None:
        table = numpy.full(65536, b"", dtype="S12")
        codes = numpy.arange(0x3C01, dtype=numpy.uint16)
        for sign in (0, 0x8000):
            numbers = (codes | sign).astype(numpy.uint16).view(numpy.float16).tolist()
            table[sign : sign + 0x3C01] = [b"%-12s" % (b"%.5g," % number) for number in numbers]
        GD["two_tower_literals"] = table
    return table


def literals(numpy, GD, vectors):
    """One halfvec literal per row of ``vectors`` [n, dim] float32, each number rounded to nearest."""
    codes = vectors.astype(numpy.float16).view(numpy.uint16)
    text = half_literals(numpy, GD)[codes].tobytes().decode("ascii")
    width = 12 * vectors.shape[1]
    return ["[" + text[at : at + width].rstrip(" ,") + "]" for at in range(0, len(text), width)]


def run(numpy, session, rows):
    """Vectors [n, dim] float32 of sparse rows.

    Every run has ROWS_PER_RUN rows, the last one padded with zeros: the matrix kernels then do the same arithmetic for a
    row whether it comes alone or among others, which is what makes a refresh equal a rebuild bit for bit.
    """
    feed = session.get_inputs()[0]
    dense = numpy.zeros((ROWS_PER_RUN, feed.shape[1]), dtype=numpy.float32)
    outputs = []
    for start in range(0, len(rows), ROWS_PER_RUN):
        part = rows[start : start + ROWS_PER_RUN]
        dense[:] = 0
        for at, (positions, values) in enumerate(part):
            dense[at, positions] = values
        outputs.append(session.run(None, {feed.name: dense})[0][: len(part)])
    return numpy.concatenate(outputs)


def infer(plpy, GD, version, tower, packed):
    """Halfvec literals for packed sparse inputs, in their order."""
    if not packed:
        return []
    numpy, onnxruntime = load_libraries(plpy)
    session = session_for(plpy, GD, onnxruntime, version, tower)
    vectors = run(numpy, session, unpack(numpy, packed))
    bad = numpy.flatnonzero(~(numpy.abs(vectors) <= 1).all(axis=1))
    if len(bad):
        plpy.error(
            "the %s tower of model %s gave a vector that is not finite and of unit length" % (tower, version),
            detail="%d of %d rows, the first at position %d." % (len(bad), len(vectors), bad[0] + 1),
            sqlstate="22023",
        )
    return literals(numpy, GD, vectors)


def check_tower(plpy, tower, content, input_dim):
    """Errors with 22023 unless ``content`` is an ONNX tower with the contract's names, shapes and 128 dimensions."""
    numpy, onnxruntime = load_libraries(plpy)
    try:
        session = open_session(onnxruntime, content)
    except Exception as error:
        plpy.error("the %s tower is not an ONNX model that onnxruntime can load: %s" % (tower, str(error)[:300]), sqlstate="22023")
    for kind, found, name, width in (
        ("input", session.get_inputs(), ("user_features" if tower == "user" else "item_features"), input_dim),
        ("output", session.get_outputs(), tower + "_embedding", 128),
    ):
        if [value.name for value in found] != [name]:
            plpy.error("the %s tower must have one %s called %s, and has %s" % (tower, kind, name, [value.name for value in found]), sqlstate="22023")
        value = found[0]
        if value.type != "tensor(float)" or len(value.shape) != 2 or value.shape[1] != width:
            plpy.error("%s %s must be float32 [batch, %d], and is %s %s" % (kind, name, width, value.type, value.shape), sqlstate="22023")
        if isinstance(value.shape[0], int):
            plpy.error("%s %s must have a dynamic batch dimension, and has %d" % (kind, name, value.shape[0]), sqlstate="22023")
