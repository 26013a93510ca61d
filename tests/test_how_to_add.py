"""An attribute of videos is added to a copy of the sources by the list in docs/developing.md, and changes vectors."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import NewDatabase

ROOT = Path(__file__).parent.parent
EDITS: dict[str, list[tuple[str, str]]] = {
    "migrations/0003.catalogue.sql": [
        ("            maker text,\n", "            maker text,\n            director text,\n")
    ],
    "py/two_tower/server/contract.py": [('"maker": TEXT,', '"maker": TEXT, "director": TEXT,')],
    "py/two_tower/features.py": [
        ('"source", *PLACING', '"source", "director", *PLACING'),
        ('"liked_sources": "source",', '"liked_sources": "source", "liked_directors": "director",'),
        ('    "source": "source",', '    "source": "source", "director": "director",'),
    ],
    "sql/20_features/input_segments.sql": [
        ("('user', 8, 'noped", "('user', 9, 'noped"),
        ("('user', 7,", "('user', 7, 'liked_directors', 'director', true), ('user', 8,"),
        ("('item', 10,", "('item', 11,"),
        ("('item', 9,", "('item', 10,"),
        ("('item', 8,", "('item', 9,"),
        ("('item', 7,", "('item', 7, 'director', 'director', false), ('item', 8,"),
    ],
    "sql/20_features/attributes_of.sql": [
        (
            "('source', two_tower.text_of(v.source))",
            "('source', two_tower.text_of(v.source)), ('director', two_tower.text_of(v.director))",
        ),
    ],
    "sql/40_changes/log_video_changes.sql": [
        ("'before' as source,", "'before' as source, 'before' as director,"),
        ("'after' as source,", "'after' as source, 'after' as director,"),
        (
            'collate "C" as source,',
            'collate "C" as source, two_tower.text_of(director) collate "C" as director,',
        ),
        ("c.series, c.source,", "c.series, c.source, c.director,"),
    ],
}
"""File → replacements: old text, and new text."""

SCRIPT = '''
import sys

import psycopg

from two_tower.server.migrate import migrate
from world_fixtures import column, load, make_world, one, schema_of, state, tiny_model

dsn, world = sys.argv[1], make_world()
migrate(dsn)
with psycopg.connect(dsn, autocommit=True) as db:
    load(db, world)
    db.execute("update videos set director = 'director ' || mod(ascii(substr(id::text, 1, 1)), 5)")
    db.execute("analyze")
    assert len(schema_of(db).vocabularies["director"]) == 5
    tiny_model(db, engine="auto")
    video = min(world.of(world.usual, "like"))
    before = state(db)
    # What is known already, and what nobody has heard of.
    for director in ("'director ' || mod(ascii(substr(id::text, 1, 1)) + 1, 5)", "'unheard of'"):
        db.execute(f"update videos set director = {director} where id = %s", (video,))
        db.execute("call two_tower.refresh()")
        after = state(db)
        changed = {key for key in after if after[key] != before.get(key)}
        assert f"taste {video} v1" in changed and f"user {world.usual} v1" in changed, changed
        db.execute("call two_tower.rebuild()")
        assert state(db) == after
        before = after
    distances = column(
        db,
        """select s.embedding operator(extensions.<=>) d.embedding
        from two_tower.sum_users(%s, 'v1') s join two_tower.define_users(%s, 'v1', 'onnxruntime') d using (user_id)""",
        world.users, world.users,
    )
    assert len(distances) > 40 and max(distances) < 1e-5, distances
'''


def test_an_attribute_added_by_the_documented_steps_is_in_the_vectors(database: NewDatabase, tmp_path: Path) -> None:
    section = (ROOT / "docs" / "developing.md").read_text().partition("### An attribute of videos\n")[2]
    named = set(re.findall(r"`((?:sql|py|migrations)/[\w./-]+)`", section.partition("\nClients")[0]))
    assert named >= EDITS.keys()
    assert len(named) <= 10
    for folder in ("sql", "py", "migrations", "plpython"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, changes in EDITS.items():
        path = tmp_path / name
        text = path.read_text()
        for before, after in changes:
            assert before in text, f"{name} has no {before!r}"
            text = text.replace(before, after)
        path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, database(empty=True)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(str(p) for p in (tmp_path / "py", ROOT / "tests"))},
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
