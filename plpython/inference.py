"""Inference inside the server. Pure functions of their arguments: ``plpy`` and the dictionary ``SD`` are passed in.

It uses ``SD``, not ``GD``, so that a backend's cache is discarded when another release replaces the routine.

This runs in PL/Python with the server's own Python, so it needs only numpy and onnxruntime. Strings stay on one line,
because PL/Python indents a body.
"""

SESSIONS_KEPT = 4
ROWS_PER_RUN = 128


def load_libraries(plpy):
    """numpy and onnxruntime, or an error that says how to install them for this Python.

    From 1.32 on, onnxruntime reports its use over the network, from a thread, unless it is told not to.
    """
    import os
    import sys

    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import numpy
        import onnxruntime
    except ImportError as error:
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        plpy.error(
            f"the server's Python {python} cannot import onnxruntime: {error}",
            hint=f"Install numpy and onnxruntime for Python {python} where the server can read them, set PYTHONPATH for it, and restart it; two-tower doctor shows the command.",  # noqa: E501
            sqlstate="58000",
        )
    return numpy, onnxruntime


def open_session(onnxruntime, content):
    """A session with one thread, without arena or spinning, since a backend is one process among many."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def same_in_any_batch(numpy, session):
    """Whether a row's vector has the same bits alone as among others, tested with rows of few counts.

    Matrix kernels may add in another order for another number of rows, but a refresh must equal a rebuild bit for bit.
    """
    feed = session.get_inputs()[0]
    random = numpy.random.RandomState(0)
    rows = numpy.zeros((ROWS_PER_RUN, feed.shape[1]), dtype=numpy.float32)
    for row in rows:
        row[random.randint(0, feed.shape[1], 40)] = random.randint(1, 9, 40)
    whole = session.run(None, {feed.name: rows})[0]
    parts = [session.run(None, {feed.name: part})[0] for part in numpy.split(rows, [1, 4, 9, 26])]
    return bool((numpy.concatenate(parts) == whole).all())


def session_for(plpy, SD, numpy, onnxruntime, version, tower):
    """The session of a version's tower, and whether it needs full batches. Cached in this backend by checksum."""
    if "two_tower_find" not in SD:
        for name, column in (("two_tower_find", "sha256"), ("two_tower_read", "content")):
            query = f"select {column} from two_tower.model_files where model_version = $1 and name = $2"  # noqa: S608
            SD[name] = plpy.prepare(query, ["text", "text"])
    key = [version, f"{tower}_tower.onnx"]
    found = plpy.execute(SD["two_tower_find"], key)
    if not found:
        plpy.error(f"model {version} has no {tower} tower", sqlstate="P0002")
    checksum = found[0]["sha256"]
    sessions = SD.setdefault("two_tower_sessions", {})
    entry = sessions.pop(checksum, None)
    if entry is None:
        content = plpy.execute(SD["two_tower_read"], key)[0]["content"]
        # The owner of the table may write it without register_model(), and need not be a superuser.
        check_tower_file(plpy, tower, content)  # noqa: F821 - of model_files.py, which is included beside this
        session = open_session(onnxruntime, content)
        entry = (session, not same_in_any_batch(numpy, session))
        while len(sessions) >= SESSIONS_KEPT:
            sessions.pop(next(iter(sessions)))
    sessions[checksum] = entry
    return entry


def unpack(numpy, packed):
    """(row, position, value) of every entry in concatenated outputs of sparsevec_send, and the number of rows.

    The data are four-byte words. Each row has its dimensions, its number of entries, zero, the positions, the values.
    """
    words = numpy.frombuffer(packed, ">u4").astype(numpy.uint32)
    starts, counts, at = [], [], 0
    while at < len(words):
        count = int(words[at + 1])
        starts.append(at + 3)
        counts.append(count)
        at += 3 + 2 * count
    counts = numpy.array(counts)
    rows = numpy.repeat(numpy.arange(len(counts)), counts)
    within = numpy.arange(len(rows)) - numpy.repeat(numpy.cumsum(counts) - counts, counts)
    positions = numpy.repeat(starts, counts) + within
    return (
        rows,
        words[positions].astype(numpy.int64),
        words[positions + numpy.repeat(counts, counts)].view(numpy.float32),
        len(counts),
    )


def run(numpy, session, full_batches, pieces):
    """Vectors [n, 128] float32 of sparse rows.

    ``pieces`` yields up to ROWS_PER_RUN rows at a time: their number, then the non-zero cells of the dense matrix
    [rows, width], and their values.
    """
    feed = session.get_inputs()[0]
    size = ROWS_PER_RUN * feed.shape[1]
    cells = numpy.zeros(size, dtype=numpy.float32)
    dense = cells.reshape(ROWS_PER_RUN, -1)
    outputs = []
    for rows, at, values in pieces:
        cells[at] = values
        outputs.append(session.run(None, {feed.name: dense if full_batches else dense[:rows]})[0][:rows])
        cells[at] = 0  # cheaper than new pages for each run
    return numpy.concatenate(outputs)


def sparse_pieces(numpy, width, entries):
    """Pieces for :func:`run` from sparse rows, given as (row, column, value, number of rows) in row order."""
    rows, columns, values, total = entries
    cells = rows * width + columns
    bounds = numpy.searchsorted(rows, numpy.arange(0, total + ROWS_PER_RUN, ROWS_PER_RUN)).tolist()
    for start, first, last in zip(range(0, total, ROWS_PER_RUN), bounds[:-1], bounds[1:], strict=True):
        yield min(ROWS_PER_RUN, total - start), cells[first:last] - start * width, values[first:last]


def infer(plpy, SD, version, tower, packed):
    """Vectors, as text, for concatenated sparse inputs as sparsevec_send makes them, in the same order."""
    numpy, onnxruntime = load_libraries(plpy)
    if not packed:
        return []
    session, full_batches = session_for(plpy, SD, numpy, onnxruntime, version, tower)
    pieces = sparse_pieces(numpy, session.get_inputs()[0].shape[1], unpack(numpy, packed))
    vectors = run(numpy, session, full_batches, pieces)
    bad = numpy.flatnonzero(~(numpy.abs(vectors) <= 1.0001).all(axis=1))
    if len(bad):
        plpy.error(
            f"the {tower} tower of model {version} gave a vector that is not finite and of unit length",
            detail=f"{len(bad)} of {len(vectors)} rows, the first at position {bad[0] + 1}.",
            sqlstate="22023",
        )
    return ["[" + ",".join(["%.9g"] * vectors.shape[1]) % tuple(vector) + "]" for vector in vectors.tolist()]


def check_tower(plpy, tower, content, input_dim):
    """Errors with 22023 unless ``content`` is an ONNX tower with the contract's names, shapes and 128 dimensions."""
    _, onnxruntime = load_libraries(plpy)
    try:
        session = open_session(onnxruntime, content)
    except Exception as error:
        reason = str(error).replace("\n", " ")[:300]
        plpy.error(f"the {tower} tower is not an ONNX model that onnxruntime can load: {reason}", sqlstate="22023")
    for kind, found, name, width in (
        ("input", session.get_inputs(), "user_features" if tower == "user" else "item_features", input_dim),
        ("output", session.get_outputs(), f"{tower}_embedding", 128),
    ):
        names = [value.name for value in found]
        if names != [name]:
            plpy.error(f"the {tower} tower must have one {kind} called {name}, and has {names}", sqlstate="22023")
        value = found[0]
        if value.type != "tensor(float)" or len(value.shape) != 2 or value.shape[1] != width:
            wrong = f"{value.type} {value.shape}"
            plpy.error(f"{kind} {name} must be float32 [batch, {width}], and is {wrong}", sqlstate="22023")
        if isinstance(value.shape[0], int):
            plpy.error(f"{kind} {name} must have a dynamic batch dimension, not {value.shape[0]}", sqlstate="22023")
