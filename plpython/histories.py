"""From the rows of users' histories to features and raw inputs of the user tower, many users at once.

Counting in numpy costs a few microseconds per user where grouping in SQL costs hundreds. What is counted is what
``two_tower.count_user_features`` and ``two_tower.encode_users`` say in SQL; a test holds the two equal for every user.
Strings stay on one line, because PL/Python indents a body.
"""

VOCABULARIES_KEPT = 4
CONTENT = ("liked_tags", "liked_performers", "liked_makers", "liked_labels", "liked_series", "liked_sources")
HISTORIES = "select * from two_tower.user_histories($1)"
KNOWN = "select u.n::int - 1 as n, e.input_hash from unnest($1) with ordinality as u (id, n) join two_tower.user_embeddings e on e.model_version = $2 and e.user_id = u.id"  # noqa: E501
VERSION = "select number, user_dim from two_tower.model_versions where version = $1"
INPUTS = "select segment, array_agg(key) as keys, array_agg(position) as positions from two_tower.model_inputs where model_version = $1 and tower = 'user' group by segment"  # noqa: E501


def prepared(plpy, GD, query, types):
    """The plan of a query, kept in this backend."""
    plans = GD.setdefault("two_tower_plans", {})
    if query not in plans:
        plans[query] = plpy.prepare(query, types)
    return plans[query]


def column(numpy, packed, kind):
    """Values of what array_send made of a one-dimensional array of fixed-width values without nulls."""
    cell = numpy.dtype([("length", ">i4"), ("value", kind)])
    return numpy.frombuffer(packed, cell, offset=20)["value"] if packed else numpy.zeros(0, kind)


def pieces(numpy, packed):
    """The 16 bytes of every uuid of a packed array."""
    raw = numpy.ascontiguousarray(column(numpy, packed, "V16")).tobytes()
    return [raw[at : at + 16] for at in range(0, len(raw), 16)]


def identifiers(raw):
    """Text of uuids given as bytes."""
    text = b"".join(raw).hex()
    parts = [text[at : at + 32] for at in range(0, len(text), 32)]
    return [f"{p[:8]}-{p[8:12]}-{p[12:16]}-{p[16:20]}-{p[20:]}" for p in parts]


def numbered(values):
    """Number of each value in order of appearance, and the distinct values in that order."""
    known = {}
    return [known.setdefault(value, len(known)) for value in values], list(known)


def ranges(numpy, starts, lengths):
    """Concatenation of ``arange(start, start + length)``."""
    ends = numpy.cumsum(lengths)
    return numpy.arange(ends[-1] if len(ends) else 0) + numpy.repeat(starts - (ends - lengths), lengths)


class Histories:
    """Counts of a batch of users, numbered from 0. Users without likes and nopes are in none of it."""

    def __init__(self, numpy, row, users):
        self.numpy, self.users = numpy, users
        user, video = (column(numpy, row[name], ">i4").astype(numpy.int64) for name in ("users", "seen"))
        liked = column(numpy, row["likes"], "?")
        # Newest first, equally new ones by id, as the videos' numbers are ordered; likes before nopes.
        order = numpy.lexsort((video, ~column(numpy, row["times"], ">i8").astype(numpy.int64), ~liked, user))
        self.user, self.video, self.liked = user[order], video[order], liked[order]
        self.video_ids = identifiers(pieces(numpy, row["video_ids"]))
        price = column(numpy, row["prices"], ">f8").astype(numpy.float64)[self.video]
        priced = self.liked & ~(price <= 0)
        count = [numpy.bincount(self.user[mask], minlength=users) for mask in (self.liked, ~self.liked, priced)]
        self.like_count, self.nope_count, self.priced_count = count
        self.price_sum = numpy.bincount(self.user[priced], price[priced], users)
        self._count_content(row)

    def _count_content(self, row):
        """Number of likes by user and key. Keys of all segments are numbered through, segment after segment."""
        numpy = self.numpy
        videos, codes, self.keys, self.first = [], [], [], [0]
        for at, ids in (("tag_videos", "tag_ids"), ("performer_videos", "performer_ids")):
            code, keys = numbered(pieces(numpy, row[ids]))
            videos.append(column(numpy, row[at], ">i4").astype(numpy.int64))
            self._add(codes, code, identifiers(keys))
        for name in ("makers", "labels", "series", "sources"):
            present = [(n, value) for n, value in enumerate(row[name] or ()) if value]
            code, keys = numbered(value for _, value in present)
            videos.append(numpy.array([n for n, _ in present], dtype=numpy.int64))
            self._add(codes, code, keys)
        at, code = numpy.concatenate(videos), numpy.concatenate(codes)
        code = code[numpy.argsort(at)]
        size = numpy.bincount(at, minlength=len(self.video_ids))
        start = numpy.cumsum(size) - size
        lengths = size[self.video[self.liked]]
        carried = code[ranges(numpy, start[self.video[self.liked]], lengths)]
        width = max(len(self.keys), 1)
        cells, self.content_count = numpy.unique(
            numpy.repeat(self.user[self.liked], lengths) * width + carried, return_counts=True
        )
        self.cells, self.width = cells, width
        self.content_user, self.content_code = cells // width, cells % width

    def _add(self, codes, code, keys):
        codes.append(self.numpy.array(code, dtype=self.numpy.int64) + len(self.keys))
        self.keys += keys
        self.first.append(len(self.keys))

    def features(self):
        """Of every user with a like or nope, by number: the columns of user_features after the id, as literals."""
        import json

        numpy = self.numpy
        quoted = [json.dumps(key, ensure_ascii=False) for key in self.keys]
        # Most counts are small: their text is looked up.
        short = numpy.array([f"{key}:{count}" for count in (1, 2, 3) for key in quoted], dtype=object)
        rest = numpy.flatnonzero(self.content_count > 3)
        entries = numpy.empty(len(self.cells), dtype=object)
        small = self.content_count <= 3
        entries[small] = short[(self.content_count[small] - 1) * len(quoted) + self.content_code[small]]
        pairs = zip(self.content_code[rest].tolist(), self.content_count[rest].tolist(), strict=True)
        entries[rest] = [f"{quoted[code]}:{count}" for code, count in pairs]
        entries = entries.tolist()
        ids = numpy.array(self.video_ids, dtype=object)[self.video].tolist()
        every = numpy.arange(self.users)
        corners = (every[:, None] * self.width + numpy.array(self.first)[None, :]).ravel()
        bound = numpy.searchsorted(self.cells, corners).reshape(self.users, len(self.first)).tolist()
        sides = numpy.searchsorted(self.user * 2 + ~self.liked, numpy.arange(2 * self.users + 1)).tolist()
        totals = [t.tolist() for t in (self.like_count, self.nope_count, self.price_sum, self.priced_count)]
        found = {}
        for n in numpy.flatnonzero(self.like_count + self.nope_count).tolist():
            maps = [f"{{{','.join(entries[a:b])}}}" for a, b in zip(bound[n][:-1], bound[n][1:], strict=True)]
            lists = [f"{{{','.join(ids[sides[m] : sides[m + 1]])}}}" for m in (2 * n, 2 * n + 1)]
            found[n] = (*maps, *lists, *(t[n] for t in totals))
        return found

    def inputs(self, vocabulary, dim):
        """Raw inputs of users with a like: their numbers, then row, column and value of every entry, in that order."""
        numpy = self.numpy
        bounds = zip(CONTENT, self.first[:-1], self.first[1:], strict=True)
        place = [vocabulary.get(name, {}).get(key, 0) for name, a, b in bounds for key in self.keys[a:b]]
        place = numpy.array(place, dtype=numpy.int64)
        liked, noped = (vocabulary.get(name, {}) for name in ("liked_video_ids", "noped_video_ids"))
        own = numpy.array(
            [[known.get(key, 0) for key in self.video_ids] for known in (noped, liked)], dtype=numpy.int64
        )
        numbers = (self.like_count, self.nope_count, self.price_sum, self.priced_count)
        every = numpy.arange(self.users)
        row = numpy.concatenate([self.content_user, self.user, *(every for _ in numbers)])
        position = numpy.concatenate(
            [place[self.content_code], own[self.liked.astype(numpy.int64), self.video]]
            + [numpy.where(value != 0, n + 1, 0) for n, value in enumerate(numbers)]
        )
        value = numpy.concatenate([self.content_count, numpy.ones(len(self.user)), *numbers]).astype(numpy.float32)
        kept = numpy.flatnonzero((position > 0) & (self.like_count[row] > 0))
        kept = kept[numpy.argsort(row[kept] * dim + position[kept], kind="stable")]
        return numpy.flatnonzero(self.like_count), row[kept], position[kept] - 1, value[kept]


def checksums(numpy, dim, rows, columns, values):
    """sha256 of what sparsevec_send makes of every row. ``rows`` counts from 0 without gaps."""
    import hashlib

    sizes = numpy.bincount(rows)
    ends = numpy.cumsum(3 + 2 * sizes)
    starts = ends - 3 - 2 * sizes
    words = numpy.zeros(ends[-1], dtype=">u4")
    words[starts] = dim
    words[starts + 1] = sizes
    at = ranges(numpy, starts + 3, sizes)
    words[at] = columns
    words[at + numpy.repeat(sizes, sizes)] = values.view(numpy.uint32)
    packed = words.tobytes()
    bounds = zip((4 * starts).tolist(), (4 * ends).tolist(), strict=True)
    return [hashlib.sha256(packed[a:b]).digest() for a, b in bounds]


def vocabulary_of(plpy, GD, version):
    """Positions by segment and key, counted from 1, and the width of the input. Kept in this backend."""
    found = plpy.execute(prepared(plpy, GD, VERSION, ["text"]), [version])
    if not found:
        plpy.error(f"there is no model version {version}", sqlstate="P0002")
    number, dim = found[0]["number"], found[0]["user_dim"]
    kept = GD.setdefault("two_tower_vocabularies", {})
    entry = kept.pop(number, None)
    if entry is None:
        segments = plpy.execute(prepared(plpy, GD, INPUTS, ["text"]), [version])
        entry = {s["segment"]: dict(zip(s["keys"], s["positions"], strict=True)) for s in segments}
        while len(kept) >= VOCABULARIES_KEPT:
            kept.pop(next(iter(kept)))
    kept[number] = entry
    return entry, dim


def compute_users(plpy, GD, numpy, evaluate, ids, versions, force, features):
    """Rows of two_tower.compute_users(): features once per user, then hash and vector once per user and version.

    A vector is None where the stored one was made of the same input, unless ``force``. ``evaluate`` turns a version and
    sparse rows, given as (row, column, value, number of rows), into literals.
    """
    row = plpy.execute(prepared(plpy, GD, HISTORIES, ["uuid[]"]), [ids])[0]
    histories = Histories(numpy, row, len(ids))
    if features:
        for n, values in histories.features().items():
            yield (ids[n], None, *values, None, None)
    blank = (None,) * 12
    for version in versions:
        vocabulary, dim = vocabulary_of(plpy, GD, version)
        users, rows, columns, values = histories.inputs(vocabulary, dim)
        if not len(users):
            return
        rows = numpy.searchsorted(users, rows)
        hashes = checksums(numpy, dim, rows, columns, values)
        wanted = numpy.ones(len(users), dtype=bool)
        if not force:
            known = plpy.execute(prepared(plpy, GD, KNOWN, ["uuid[]", "text"]), [ids, version])
            known = {k["n"]: k["input_hash"] for k in known}
            wanted = numpy.array([known.get(n) != h for n, h in zip(users.tolist(), hashes, strict=True)])
        texts = [None] * len(users)
        if wanted.any():
            chosen = wanted[rows]
            compact = (numpy.cumsum(wanted) - 1)[rows[chosen]]
            vectors = evaluate(version, (compact, columns[chosen], values[chosen], int(wanted.sum())))
            for n, text in zip(numpy.flatnonzero(wanted).tolist(), vectors, strict=True):
                texts[n] = text
        for n, h, text in zip(users.tolist(), hashes, texts, strict=True):
            yield (ids[n], version, *blank, h, text)
