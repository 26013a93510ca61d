"""Words of titles and descriptions: how they are split, which of them the towers read, and that both engines agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import numpy as np
import psycopg
import pytest
from scipy import sparse

from conftest import Connection
from synthetic import make_data
from two_tower.features import LIKE, NOPE, WORDS, FeatureSchema, TrainingData, user_counts
from two_tower.lifecycle import towers
from two_tower.trainer import dataset
from two_tower.trainer.options import Choice, TrainOptions
from two_tower.trainer.part import Part
from two_tower.trainer.train import fit
from world_fixtures import WORDS as WRITTEN
from world_fixtures import column, load, make_world, one, random_model, refresh, register, tiny_model

WORLD = make_world(120, 40)

SPLIT: dict[str, set[str]] = {
    "": set(),
    " .!?\t\n…—「」・〜～": set(),
    "The Island of GLASS, the island": {"the", "island", "of", "glass"},
    "Don't   stop": {"don", "t", "stop"},
    "Vol.2 (2001)": {"vol", "2", "2001"},
    "Straße ÉTÉ Ёлка Ελλάδα": {"straße", "été", "ёлка", "ελλάδα"},
    "cafe\u0301": {"café"},
    "ﬁre ＡＢＣ １２": {"fire", "abc", "12"},
    "東京": {"東京"},
    "夏": {"夏"},
    "東京物語": {"東京", "京物", "物語"},
    "ｶﾀｶﾅ": {"カタ", "タカ", "カナ"},
    "ガンダムSEED 3": {"ガン", "ンダ", "ダム", "seed", "3"},
    "時をかける・少女": {"時を", "をか", "かけ", "ける", "少女"},
    "人々 スーパー": {"人々", "スー", "ーパ", "パー"},
    "𠮷野家": {"𠮷野", "野家"},
    "ถนน": {"ถน", "นน"},
    "서울 이야기": {"서울", "이야기"},
    "x" * 5000: {"x" * 4000},
    "[a]\\^-b_c": {"a", "b", "c"},
}
"""Text → its words."""


@pytest.fixture
def clean_db(database: Any) -> Any:
    """A migrated database without a world."""
    connection = psycopg.connect(database(), autocommit=True)
    yield connection
    connection.close()


def words(db: Connection, text: str | None) -> list[str]:
    return column(db, "select w from two_tower.words_of(%s) w", text)


def test_texts_split_the_same_under_any_string_settings(clean_db: Connection) -> None:
    for setting in ("on", "off"):
        clean_db.execute(f"set standard_conforming_strings = {setting}".encode())
        found = {text: words(clean_db, text) for text in SPLIT}
        assert {text: set(listed) for text, listed in found.items()} == SPLIT
        assert all(len(listed) == len(set(listed)) for listed in found.values())
        assert words(clean_db, None) == []


def test_every_character_is_part_of_a_word_or_between_words(
    clean_db: Connection, request: pytest.FixtureRequest
) -> None:
    """Characters of the first planes; without ``--soak`` all up to the currencies, those around unusual spaces, and a
    fifteenth of the rest."""
    odd = column(
        clean_db,
        """select distinct n from generate_series(1, 200000) n
        cross join lateral two_tower.words_of('a ' || chr(n) || ' b ' || chr(n) || 'c') as w
        where (n < 8400 or n between 12280 and 12300 or n between 65270 and 65540 or n %% %s = 0)
            and n not between 55296 and 57343 and (w ~ '[[:space:][:cntrl:]]' or w = '' or length(w) > 20)""",
        1 if request.config.getoption("--soak") else 15,
    )
    assert odd == []


def test_only_words_neither_rare_nor_common_have_inputs(clean_db: Connection) -> None:
    load(clean_db, WORLD)
    data = dataset.read(clean_db)
    likes = np.asarray(data.matrix(LIKE).sum(axis=0)).ravel()
    for segment, vocabulary in WORDS.items():
        known = data.schema.vocabularies[vocabulary]
        liked = data.item_counts[:, data.schema.segment("item", segment).slice][likes > 0]
        videos = np.asarray(liked.sum(axis=0)).ravel()
        assert len(known) > 5
        assert "title" not in known
        assert videos.min() >= 2
        assert videos.max() <= 0.1 * np.count_nonzero(likes)
    assert {word for text in WRITTEN for word in words(clean_db, text)} >= set(data.schema.vocabularies["title_word"])
    few = dataset.read(clean_db, dataset.DatasetOptions(max_word_features=3)).schema
    assert [few.vocabularies[name] for name in WORDS.values()] == [
        data.schema.vocabularies[name][:3] for name in WORDS.values()
    ]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("engine", ["sql", "onnxruntime"])
def test_a_new_title_moves_a_new_video_and_no_user(engine: str, clean_db: Connection) -> None:
    load(clean_db, WORLD)
    tiny_model(clean_db, engine=engine)
    known = dataset.read(clean_db).schema.vocabularies
    video = uuid4()
    clean_db.execute("insert into public.videos (id, product_url, title) values (%s, 'new', '')", (video,))
    place = "select embedding::text from two_tower.video_embeddings where video_id = %s"
    refresh(clean_db)
    everybody = clean_db.execute("select user_id, embedding::text from two_tower.user_embeddings order by 1").fetchall()
    seen = [one(clean_db, place, video)]
    for name, vocabulary in (("title", "title_word"), ("description", "description_word")):
        clean_db.execute(
            f"update public.videos set {name} = %s".encode() + b" where id = %s", (known[vocabulary][0], video)
        )
        refresh(clean_db)
        seen.append(one(clean_db, place, video))
    assert len(set(seen)) == 3
    clean_db.execute("call two_tower.rebuild()")
    assert one(clean_db, place, video) == seen[-1]
    users = clean_db.execute("select user_id, embedding::text from two_tower.user_embeddings order by 1").fetchall()
    assert users == everybody


def test_models_from_before_words_were_inputs_still_work(clean_db: Connection) -> None:
    load(clean_db, WORLD)
    data = dataset.read(clean_db)
    keys = dict(data.schema.vocabularies) | dict.fromkeys(WORDS.values(), ())
    model = random_model(FeatureSchema(keys))
    old = replace(model, feature_schema=model.schema.to_json(), vocabularies=dict(model.vocabularies))
    segments = old.feature_schema["item"]["segments"]
    old.feature_schema["item"]["segments"] = [s for s in segments if s["name"] not in WORDS]
    for name in WORDS.values():
        del old.vocabularies[name]
    register(clean_db, old, "old")
    register(clean_db, model, "same")
    vectors = [
        clean_db.execute(
            "select video_id, embedding::text from two_tower.compute_videos(array(select id from public.videos), %s)"
            " order by 1",
            (version,),
        ).fetchall()
        for version in ("old", "same")
    ]
    assert vectors[0] == vectors[1]
    assert len(vectors[0]) == len(WORLD.videos)
    loaded = towers.load(clean_db, "old")
    assert loaded.schema.item_dim == model.schema.item_dim


# ---------------------------------------------------------------------------------------------------- training


def told_by(data: TrainingData, vocabulary: str) -> TrainingData:
    """The same data with the tags as words. All other vocabularies except that of videos are empty."""
    keys = dict(data.schema.vocabularies)
    keys |= {vocabulary: tuple(keys["tag"]), "tag": ()}
    return replace(data, schema=FeatureSchema(keys))


def test_words_of_a_schema_count_however_common_they_become(clean_db: Connection) -> None:
    load(clean_db, WORLD)
    schema = dataset.read(clean_db).schema
    word = schema.vocabularies["title_word"][0]
    clean_db.execute("update public.videos set title = title || ' ' || %s", (word,))
    assert word not in dataset.read(clean_db).schema.vocabularies["title_word"]
    again = dataset.read(clean_db, schema=schema)
    assert again.item_counts[:, schema.segment("item", "title_words").offset].sum() == len(WORLD.videos)


def test_long_texts_are_split_within_a_second(clean_db: Connection) -> None:
    for text in ("㌖" * 4000, "あ" * 4000, "あいうえお" * 800, "a" * 100_000, "東京 " * 30_000):
        with clean_db.transaction():
            clean_db.execute("set local statement_timeout = '1s'")
            assert sum(map(len, words(clean_db, text))) <= 8000


def test_rare_descriptions_are_no_further_apart_than_frequent_ones() -> None:
    rng = np.random.default_rng(0)
    distances = []
    for share in (1.0, 0.05):
        data = make_data(items=150)
        described = (rng.random((data.n_items, 40)) < 0.1) * (np.arange(data.n_items)[:, None] < share * data.n_items)
        columns = data.schema.segment("item", "id").offset
        keys = dict(data.schema.vocabularies) | {"description_word": tuple(f"word-{n}" for n in range(40))}
        parts = [data.item_counts[:, :columns], sparse.csr_matrix(described), data.item_counts[:, columns:]]
        counts = sparse.hstack(parts, format="csr", dtype=np.float32)
        part = Part(
            replace(data, schema=FeatureSchema(keys), item_counts=counts), np.ones(len(data.user), bool), TrainOptions()
        )
        scale, square_width = part.scale(Choice())
        square = (
            part.content[:, part.placing("description_words")] * scale[part.placing("description_words")]
        ).square()
        lengths = square.sum(dim=1)
        distances.append(float(lengths[lengths > 0].mean()) / square_width)
    assert distances[0] == pytest.approx(distances[1], rel=0.3)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("vocabulary", WORDS.values())
def test_words_are_enough_to_place_new_videos(vocabulary: str) -> None:
    data = told_by(make_data(items=150, new_items=24), vocabulary)
    model = fit(data)
    counts = user_counts(data.schema, data.item_counts, data.matrix(LIKE), data.matrix(NOPE))
    scores = model.user_tower.embed(counts) @ model.item_tower.embed(data.item_counts)[126:].T
    mine = (np.arange(126, 150)[None, :] % 6) == (np.arange(data.n_users)[:, None] % 6)
    best = np.argsort(-scores, axis=1)[:, :4]
    assert np.take_along_axis(mine, best, axis=1).mean() > 0.9


def test_words_without_information_are_left_out() -> None:
    data = make_data(items=150, new_items=24)
    columns = data.schema.segment("item", "id").offset
    noise = (np.random.default_rng(0).random((data.n_items, 60)) < 0.1).astype(np.float32)
    keys = dict(data.schema.vocabularies) | {"title_word": tuple(f"word-{n}" for n in range(60))}
    parts = [data.item_counts[:, :columns], sparse.csr_matrix(noise), data.item_counts[:, columns:]]
    noisy = replace(data, schema=FeatureSchema(keys), item_counts=sparse.hstack(parts, format="csr", dtype=np.float32))
    model = fit(noisy)
    assert model.hyperparameters["title_words"] == 0
    with_words = fit(noisy, TrainOptions(val_ratio=0.0))
    assert with_words.hyperparameters["title_words"] > 0
