"""From the rows of users' histories to features and raw inputs of the user tower, many users at once.

Counting in numpy costs tens of microseconds per user where grouping in SQL costs hundreds. What is counted is what
``two_tower.count_user_features`` and ``two_tower.encode_users`` say in SQL; a test holds the two equal for every user.
Strings stay on one line, because PL/Python indents a body.
"""

VOCABULARIES_KEPT = 4
VIDEOS_KEPT = 50_000
UUID = 2950
"""The type's oid."""
CONTENT = ("liked_tags", "liked_performers", "liked_makers", "liked_labels", "liked_series", "liked_sources")
VIDEOS = ("liked_video_ids", "noped_video_ids")
DECISIONS = "select * from two_tower.user_decisions($1)"
CONTENTS = "select * from two_tower.video_contents($1)"
KNOWN = "select array_send(array_agg(u.n::int - 1)) as users, string_agg(e.input_hash, '') as hashes from unnest($1) with ordinality as u (id, n) join two_tower.user_embeddings e on e.model_version = $2 and e.user_id = u.id where octet_length(e.input_hash) = 32"  # noqa: E501
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


def uuids(numpy, packed):
    """The 16 bytes of every uuid of a packed array."""
    return column(numpy, packed, "V16").tolist()


def cut(raw, size):
    """Bytes or text, cut into pieces of one size."""
    return [raw[at : at + size] for at in range(0, len(raw), size)]


def identifiers(raw):
    """Text of uuids given as bytes."""
    parts = cut(b"".join(raw).hex(), 32)
    return [f"{p[:8]}-{p[8:12]}-{p[12:16]}-{p[16:20]}-{p[20:]}" for p in parts]


def ranges(numpy, starts, lengths):
    """Concatenation of ``arange(start, start + length)``."""
    ends = numpy.cumsum(lengths)
    return numpy.arange(ends[-1] if len(ends) else 0) + numpy.repeat(starts - (ends - lengths), lengths)


class Contents:
    """What likes of videos count, by slot: each video that was asked for has one, in order of appearance.

    Keys have codes in the same way, over all segments. ``quoted`` has them as JSON, ``order`` what to sort codes by:
    segment after segment, and in each as jsonb does, which then need not sort.
    """

    def __init__(self, numpy):
        self.numpy = numpy
        self.slots, self.names = {}, []
        self.known = [{} for _ in CONTENT]
        self.keys, self.quoted, self.order = [], [], []
        self.price = numpy.zeros(0)
        self.start, self.size, self.codes = (numpy.zeros(0, dtype=numpy.int64) for _ in range(3))
        self.places = {}

    def find(self, plpy, GD, ids):
        """Slots of videos by the bytes of their ids, -1 for those that do not exist. Reads those it has not seen."""
        found = list(map(self.slots.get, ids))
        if None in found:
            missing = [key for key in dict.fromkeys(ids) if key not in self.slots]
            self._add(plpy.execute(prepared(plpy, GD, CONTENTS, ["uuid[]"]), [identifiers(missing)])[0])
            found = [self.slots.get(key, -1) for key in ids]
        return self.numpy.array(found, dtype=self.numpy.int64)

    def _add(self, row):
        numpy = self.numpy
        ids = uuids(numpy, row["video_ids"])
        videos, codes = [], []
        for segment, name in enumerate(("tag", "performer")):
            values = uuids(numpy, row[f"{name}_ids"])
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
        """Codes of keys of a segment, with new ones for the new keys."""
        import json

        known = self.known[segment]
        new = [value for value in dict.fromkeys(values) if value not in known]
        known.update(zip(new, range(len(self.keys), len(self.keys) + len(new)), strict=True))
        for key in text(new):
            encoded = key.encode()
            self.keys.append(key)
            self.quoted.append(json.dumps(key, ensure_ascii=False))
            self.order.append((segment, len(encoded), encoded))
        return self.numpy.array([known[value] for value in values], dtype=self.numpy.int64)

    def places_in(self, number, vocabulary):
        """Positions in the input of model version ``number``, 0 for none: of keys, of liked and of disliked videos."""
        segments = [vocabulary.get(name, {}) for name in CONTENT]
        videos = [vocabulary.get(name, {}) for name in VIDEOS]
        places = self.places.pop(number, None) or [self.numpy.zeros(0, dtype=self.numpy.int64)] * 3
        while len(self.places) >= VOCABULARIES_KEPT:
            self.places.pop(next(iter(self.places)))
        self.places[number] = places
        keys, names = range(len(places[0]), len(self.keys)), self.names[len(places[1]) :]
        new = [[segments[self.order[code][0]].get(self.keys[code], 0) for code in keys]]
        new += [[known.get(name, 0) for name in names] for known in videos]
        for n, values in enumerate(new):
            if values:
                places[n] = self.numpy.concatenate([places[n], self.numpy.array(values, dtype=self.numpy.int64)])
        return places


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
        ids = numpy.frombuffer(numpy.ascontiguousarray(column(numpy, row["videos"], "V16")).tobytes(), dtype=">u8")
        there = numpy.flatnonzero(slots >= 0)
        ids = ids.reshape(-1, 2)[there]
        # Likes before nopes, newest first, equally new ones by id.
        side = column(numpy, row["sides"], ">i4")[there].astype(numpy.min_scalar_type(2 * users))
        newest = ~column(numpy, row["times"], ">i8").astype(numpy.int64)[there]
        order = numpy.argsort(newest)
        order = order[numpy.argsort(side[order], kind="stable")]
        same = (numpy.diff(side[order]) == 0) & (numpy.diff(newest[order]) == 0)
        if same.any():
            order = numpy.lexsort((ids[:, 1], ids[:, 0], newest, side))
        self.ids, self.video, self.side = ids[order], slots[there[order]], side[order].astype(numpy.int64)
        self.user, self.liked = self.side >> 1, self.side & 1 == 0
        self.like_count, self.nope_count = numpy.bincount(self.side, minlength=2 * users).reshape(-1, 2).T
        price = contents.price[self.video]
        priced = self.liked & (price > 0)
        self.priced_count = numpy.bincount(self.user[priced], minlength=users)
        self.price_sum = numpy.bincount(self.user[priced], price[priced], users)
        self._count_content()

    def _count_content(self):
        """Number of likes by user and key. Keys in use are numbered through, in their order."""
        numpy, contents = self.numpy, self.contents
        video = self.video[self.liked]
        lengths = contents.size[video]
        carried = contents.codes[ranges(numpy, contents.start[video], lengths)]
        used = numpy.zeros(len(contents.keys), dtype=bool)
        used[carried] = True
        codes = sorted(numpy.flatnonzero(used).tolist(), key=contents.order.__getitem__)
        self.codes = numpy.array(codes, dtype=numpy.int64)
        self.first = numpy.searchsorted([contents.order[code][0] for code in codes], range(len(CONTENT) + 1))
        rank = numpy.zeros(len(contents.keys), dtype=numpy.int64)
        rank[self.codes] = numpy.arange(len(codes))
        width = self.width = max(len(codes), 1)
        counted = numpy.repeat(self.user[self.liked] * width, lengths) + rank[carried]
        # Narrow integers sort faster.
        counted = counted.astype(numpy.min_scalar_type(self.users * width))
        cells, self.content_count = numpy.unique(counted, return_counts=True)
        self.cells = cells.astype(numpy.int64)
        ends = numpy.searchsorted(self.cells, numpy.arange(self.users + 1) * width)
        self.content_user = numpy.repeat(numpy.arange(self.users), numpy.diff(ends))
        self.content_code = self.cells - self.content_user * width

    def features(self):
        """Of every user with a like or nope, by number: the columns of user_features after the id.

        Maps as text; lists of videos as the bytes that PostgreSQL stores, which two_tower.uuids_of() takes.
        """
        import struct

        numpy = self.numpy
        # Most counts are small: their text is looked up.
        quoted = [self.contents.quoted[code] for code in self.codes.tolist()]
        short = numpy.array([f"{key}:{count}" for count in (1, 2, 3) for key in quoted], dtype=object)
        size = numpy.array([len(entry) for entry in short], dtype=numpy.int64)
        at = (numpy.minimum(self.content_count, 3) - 1) * self.width + self.content_code
        entries, size = short[at], size[at]
        rest = numpy.flatnonzero(self.content_count > 3)
        pairs = zip(self.content_code[rest].tolist(), self.content_count[rest].tolist(), strict=True)
        entries[rest] = [f"{quoted[code]}:{count}" for code, count in pairs]
        size[rest] = [len(entry) for entry in entries[rest]]
        text = ",".join(entries.tolist())
        ends = numpy.concatenate([[0], numpy.cumsum(size + 1)])
        corners = numpy.arange(self.users)[:, None] * self.width + self.first[None, :]
        corners = ends[numpy.searchsorted(self.cells, corners.ravel())].reshape(corners.shape)
        starts, ends = corners[:, :-1], numpy.maximum(corners[:, 1:] - 1, corners[:, :-1])
        bounds = numpy.stack([starts, ends], axis=2).tolist()
        ids = self.ids.tobytes()
        sides = numpy.searchsorted(self.side, numpy.arange(2 * self.users + 1)).tolist()
        totals = [t.tolist() for t in (self.like_count, self.nope_count, self.price_sum, self.priced_count)]
        found = {}
        for n in numpy.flatnonzero(self.like_count + self.nope_count).tolist():
            lists = []
            for a, b in ((sides[2 * n], sides[2 * n + 1]), (sides[2 * n + 1], sides[2 * n + 2])):
                head = struct.pack("=5i", 1, 0, UUID, b - a, 1) if a < b else struct.pack("=3i", 0, 0, UUID)
                lists.append(head + ids[16 * a : 16 * b])
            found[n] = (*[f"{{{text[a:b]}}}" for a, b in bounds[n]], *lists, *(t[n] for t in totals))
        return found

    def inputs(self, number, vocabulary, dim):
        """Raw inputs of users with a like: their numbers, then row, column and value of every entry, in that order."""
        numpy = self.numpy
        keys, *videos = self.contents.places_in(number, vocabulary)
        numbers = (self.like_count, self.nope_count, self.price_sum, self.priced_count)
        every = numpy.arange(self.users)
        row = numpy.concatenate([self.content_user, self.user, *(every for _ in numbers)])
        position = numpy.concatenate(
            [keys[self.codes][self.content_code], numpy.where(self.liked, *(place[self.video] for place in videos))]
            + [numpy.where(value != 0, n + 1, 0) for n, value in enumerate(numbers)]
        )
        value = numpy.concatenate([self.content_count, numpy.ones(len(self.user)), *numbers]).astype(numpy.float32)
        has_like = self.like_count > 0
        kept = numpy.flatnonzero((position > 0) & has_like[row])
        kept = kept[numpy.argsort(row[kept] * dim + position[kept])]
        row = (numpy.cumsum(has_like) - 1)[row[kept]]
        return numpy.flatnonzero(has_like), row, position[kept] - 1, value[kept]


def word(dim):
    """Width of what packed inputs consist of: above the 12 bits of a count there must be room for a position."""
    return "<u4" if dim <= 1 << 20 else "<i8"


def pack_inputs(numpy, dim, rows, columns, values):
    """Of every row, the input in words: an entry each, the position 12 bits up and the value below.

    Values that are no integers below 4096 come first: how many they are, their positions, and they as float32. ``rows``
    counts from 0 without gaps, entries are in the order of rows and columns.
    """
    counts = numpy.where((values >= 1) & (values < 4096), values, 0).astype(numpy.uint32)
    small = counts == values
    wide, small = numpy.flatnonzero(~small), numpy.flatnonzero(small)
    total = int(rows[-1]) + 1
    wides, smalls = (numpy.bincount(rows[which], minlength=total) for which in (wide, small))
    sizes = 1 + 2 * wides + smalls
    ends = numpy.cumsum(sizes)
    starts = ends - sizes
    words = numpy.zeros(ends[-1], dtype=word(dim))
    words[starts] = wides
    words[ranges(numpy, starts + 1, wides)] = columns[wide]
    words[ranges(numpy, starts + 1 + wides, wides)] = values[wide].view(numpy.uint32)
    words[ranges(numpy, starts + 1 + 2 * wides, smalls)] = columns[small] << 12 | counts[small]
    packed, size = words.tobytes(), words.itemsize
    return [packed[a:b] for a, b in zip((size * starts).tolist(), (size * ends).tolist(), strict=True)]


def packed_pieces(numpy, width, rows_per_run, sizes, packed):
    """Pieces as :func:`run` takes them of packed inputs that lie one after the other, given their sizes in bytes."""
    words = numpy.frombuffer(packed, word(width))
    ends = numpy.cumsum(sizes) // words.itemsize
    for first in range(0, len(sizes), rows_per_run):
        end = ends[first : first + rows_per_run]
        offset = int(ends[first - 1]) if first else 0
        start = numpy.concatenate([[0], end[:-1] - offset])
        mine = words[offset : int(end[-1])]
        base = numpy.arange(len(end)) * width
        cells = numpy.repeat(base, end - offset - start)
        cells += mine >> 12
        values = (mine & 4095).astype(numpy.float32)
        # What comes before the entries goes to the cell that nobody reads, then the wide values to their own.
        wides = mine[start].astype(numpy.int64)
        cells[ranges(numpy, start, 1 + 2 * wides)] = rows_per_run * width
        at = ranges(numpy, start + 1, wides)
        cells[at] = mine[at] + numpy.repeat(base, wides)
        values[at] = mine[at + numpy.repeat(wides, wides)].astype(numpy.uint32).view(numpy.float32)
        yield len(end), cells, values


def vocabulary_of(plpy, GD, version):
    """A version's number; positions by segment and key, from 1, kept in this backend; the width of the input."""
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
    return number, entry, dim


def compute_users(plpy, GD, numpy, evaluate, ids, versions, force, features, cached):
    """Rows of two_tower.compute_users(): features once per user, then input and vector once per user and version.

    A vector is None where the stored one was made of the same input, unless ``force``. ``cached`` lets it use what this
    backend knows of the catalogue. ``evaluate`` turns a version and sparse rows, given as :func:`sparse_pieces` takes
    them, into images of halfvecs.
    """
    import hashlib

    row = plpy.execute(prepared(plpy, GD, DECISIONS, ["uuid[]"]), [ids])[0]
    contents = contents_of(GD, numpy, row["generation"], cached)
    slots = contents.find(plpy, GD, uuids(numpy, row["videos"]))
    histories = Histories(numpy, row, len(ids), contents, slots)
    if features:
        for n, values in histories.features().items():
            yield (ids[n], None, *values, None, None, None)
    blank = (None,) * 12
    for version in versions:
        number, vocabulary, dim = vocabulary_of(plpy, GD, version)
        users, rows, columns, values = histories.inputs(number, vocabulary, dim)
        if not len(users):
            return
        packed = pack_inputs(numpy, dim, rows, columns, values)
        hashes = [hashlib.sha256(one).digest() for one in packed]
        wanted = numpy.ones(len(users), dtype=bool)
        if not force:
            known = plpy.execute(prepared(plpy, GD, KNOWN, ["uuid[]", "text"]), [ids, version])[0]
            numbers = column(numpy, known["users"], ">i4").tolist()
            known = dict(zip(numbers, cut(known["hashes"] or b"", 32), strict=True))
            wanted = numpy.array([known.get(n) != h for n, h in zip(users.tolist(), hashes, strict=True)])
        found = [None] * len(users)
        if wanted.any():
            chosen = wanted[rows]
            total = int(wanted.sum())
            entries = (numpy.cumsum(wanted) - 1)[rows[chosen]], columns[chosen], values[chosen], total
            vectors = evaluate(version, entries)
            for n, vector in zip(numpy.flatnonzero(wanted).tolist(), cut(vectors, len(vectors) // total), strict=True):
                found[n] = vector
        for n, one, h, vector in zip(users.tolist(), packed, hashes, found, strict=True):
            yield (ids[n], version, *blank, one, h, vector)
