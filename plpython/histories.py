"""From the rows of users' histories to features and raw inputs of the user tower, many users at once.

Counting in numpy costs tens of microseconds per user where grouping in SQL costs hundreds. What is counted is what
``two_tower.count_user_features`` and ``two_tower.encode_users`` say in SQL; a test holds the two equal for every user.
Strings stay on one line, because PL/Python indents a body.
"""

VOCABULARIES_KEPT = 4
VIDEOS_KEPT = 50_000
KEYS = 26
"""Bits of a key's number within its segment; above them is the segment's."""
CONTENT = ("liked_tags", "liked_performers", "liked_makers", "liked_labels", "liked_series", "liked_sources")
DECISIONS = "select * from two_tower.user_decisions($1)"
CONTENTS = "select * from two_tower.video_contents($1)"
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


def ranges(numpy, starts, lengths):
    """Concatenation of ``arange(start, start + length)``."""
    ends = numpy.cumsum(lengths)
    return numpy.arange(ends[-1] if len(ends) else 0) + numpy.repeat(starts - (ends - lengths), lengths)


class Contents:
    """What likes of videos count, by slot: each video that was asked for has one, in order of appearance."""

    def __init__(self, numpy):
        self.numpy = numpy
        self.slots, self.names = {}, []
        self.keys, self.numbers = [[] for _ in CONTENT], [{} for _ in CONTENT]
        self.price = numpy.zeros(0)
        self.start, self.size, self.codes = (numpy.zeros(0, dtype=numpy.int64) for _ in range(3))

    def find(self, plpy, GD, ids):
        """Slots of videos by the bytes of their ids, -1 for those that do not exist. Reads those it has not seen."""
        missing = [key for key in dict.fromkeys(ids) if key not in self.slots]
        if missing:
            self._add(plpy.execute(prepared(plpy, GD, CONTENTS, ["uuid[]"]), [identifiers(missing)])[0])
        return self.numpy.array([self.slots.get(key, -1) for key in ids], dtype=self.numpy.int64)

    def _add(self, row):
        numpy = self.numpy
        ids = pieces(numpy, row["video_ids"])
        videos, codes = [], []
        for segment, name in enumerate(("tag", "performer")):
            values = pieces(numpy, row[f"{name}_ids"])
            videos.append(column(numpy, row[f"{name}_videos"], ">i4").astype(numpy.int64))
            codes.append(self._number(segment, values, identifiers))
        for segment, name in enumerate(("makers", "labels", "series", "sources"), start=2):
            present = [(n, value) for n, value in enumerate(row[name] or ()) if value]
            videos.append(numpy.array([n for n, _ in present], dtype=numpy.int64))
            codes.append(self._number(segment, [value for _, value in present], list))
        at, code = numpy.concatenate(videos), numpy.concatenate(codes)
        size = numpy.bincount(at, minlength=len(ids))
        self.start = numpy.concatenate([self.start, len(self.codes) + numpy.cumsum(size) - size])
        self.size = numpy.concatenate([self.size, size])
        self.codes = numpy.concatenate([self.codes, code[numpy.argsort(at, kind="stable")]])
        self.price = numpy.concatenate([self.price, column(numpy, row["prices"], ">f8").astype(numpy.float64)])
        self.slots.update(zip(ids, range(len(self.names), len(self.names) + len(ids)), strict=True))
        self.names += identifiers(ids)

    def _number(self, segment, values, text):
        """Codes of keys of a segment, with numbers for the new ones."""
        known, keys = self.numbers[segment], self.keys[segment]
        new = [value for value in dict.fromkeys(values) if value not in known]
        known.update(zip(new, range(len(keys), len(keys) + len(new)), strict=True))
        keys += text(new)
        return self.numpy.array([known[value] for value in values], dtype=self.numpy.int64) | segment << KEYS


def contents_of(GD, numpy, generation, cached):
    """What this backend knows of the catalogue, if it is of that generation; else nothing yet.

    Whoever takes changes of videos out of the log sets another generation in the same transaction. So where the log has
    none and the generation is the same, the rows are the same.
    """
    if not cached or generation is None:
        return Contents(numpy)
    kept = GD.get("two_tower_contents")
    if kept is None or kept[0] != generation or len(kept[1].names) > VIDEOS_KEPT:
        kept = GD["two_tower_contents"] = (generation, Contents(numpy))
    return kept[1]


class Histories:
    """Counts of a batch of users, numbered from 0. Users without likes and nopes are in none of it."""

    def __init__(self, numpy, row, users, contents, slots):
        self.numpy, self.users, self.contents = numpy, users, contents
        there = slots >= 0
        ids = numpy.frombuffer(numpy.ascontiguousarray(column(numpy, row["videos"], "V16")).tobytes(), dtype=">u8")
        ids = ids.reshape(-1, 2)[there]
        user = column(numpy, row["users"], ">i4").astype(numpy.int64)[there]
        liked = column(numpy, row["likes"], "?")[there]
        # Likes before nopes, newest first, equally new ones by id.
        newest = ~column(numpy, row["times"], ">i8").astype(numpy.int64)[there]
        order = numpy.lexsort((ids[:, 1], ids[:, 0], newest, user * 2 + ~liked))
        self.user, self.video, self.liked = user[order], slots[there][order], liked[order]
        price = contents.price[self.video]
        priced = self.liked & ~(price <= 0)
        count = [numpy.bincount(self.user[mask], minlength=users) for mask in (self.liked, ~self.liked, priced)]
        self.like_count, self.nope_count, self.priced_count = count
        self.price_sum = numpy.bincount(self.user[priced], price[priced], users)
        self._count_content()

    def _count_content(self):
        """Number of likes by user and key. Keys in use are numbered through, segment after segment."""
        numpy, contents = self.numpy, self.contents
        video = self.video[self.liked]
        lengths = contents.size[video]
        carried = contents.codes[ranges(numpy, contents.start[video], lengths)]
        offsets = numpy.cumsum([0] + [len(keys) for keys in contents.keys])
        carried = offsets[carried >> KEYS] + (carried & (1 << KEYS) - 1)
        used = numpy.zeros(offsets[-1], dtype=bool)
        used[carried] = True
        used = numpy.flatnonzero(used)
        self.first = numpy.searchsorted(used, offsets).tolist()
        # In the order in which jsonb keeps keys, which saves it the sorting.
        self.keys, rank = [], numpy.zeros(offsets[-1], dtype=numpy.int64)
        for keys, offset, a, b in zip(contents.keys, offsets.tolist(), self.first[:-1], self.first[1:], strict=False):
            ordered = sorted((len(key), key, n) for n in used[a:b].tolist() for key in [keys[n - offset].encode()])
            rank[[n for _, _, n in ordered]] = numpy.arange(a, b)
            self.keys += [keys[n - offset] for _, _, n in ordered]
        self.width = max(len(self.keys), 1)
        self.cells, self.content_count = numpy.unique(
            numpy.repeat(self.user[self.liked], lengths) * self.width + rank[carried], return_counts=True
        )
        self.content_user, self.content_code = self.cells // self.width, self.cells % self.width

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
        ids = [self.contents.names[slot] for slot in self.video.tolist()]
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
        seen, place_of = numpy.unique(self.video, return_inverse=True)
        names = [self.contents.names[slot] for slot in seen.tolist()]
        own = numpy.array([[known.get(name, 0) for name in names] for known in (noped, liked)], dtype=numpy.int64)
        numbers = (self.like_count, self.nope_count, self.price_sum, self.priced_count)
        every = numpy.arange(self.users)
        row = numpy.concatenate([self.content_user, self.user, *(every for _ in numbers)])
        position = numpy.concatenate(
            [place[self.content_code], own[self.liked.astype(numpy.int64), place_of]]
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


def compute_users(plpy, GD, numpy, evaluate, ids, versions, force, features, cached):
    """Rows of two_tower.compute_users(): features once per user, then hash and vector once per user and version.

    A vector is None where the stored one was made of the same input, unless ``force``. ``cached`` lets it use what this
    backend knows of the catalogue. ``evaluate`` turns a version and sparse rows, given as :func:`run` takes them, into
    literals.
    """
    row = plpy.execute(prepared(plpy, GD, DECISIONS, ["uuid[]"]), [ids])[0]
    contents = contents_of(GD, numpy, row["generation"], cached)
    slots = contents.find(plpy, GD, pieces(numpy, row["videos"]))
    histories = Histories(numpy, row, len(ids), contents, slots)
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
