"""Files as exporters write them: encodings, delimiters, types, numbers, scales, times, lengths; and the errors for
unusable files."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import itertools
import json
import os
import re
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psycopg
import pytest
from typer.testing import CliRunner

from two_tower.cli.main import app
from two_tower.data import csv_file
from two_tower.data.encodings import japanese, readings
from two_tower.data.files import open_table
from two_tower.data.imports import ImportOptions, ImportSummary, import_catalog, import_decisions, import_reviews
from two_tower.data.imports.catalog import Catalog
from two_tower.data.imports.cells import ids, listed, listed_addresses, number_texts, read_price, stars, timestamps
from two_tower.data.table import Rejects
from two_tower.errors import UserError
from two_tower.ids import user_uuid
from two_tower.limits import LONGEST, LONGEST_ADDRESS, LONGEST_ID, MOST_LISTED
from two_tower.trainer.dataset_files import load

Connection = psycopg.Connection[Any]
ANNA = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, which is the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shop(db: Connection, here: Path) -> Connection:
    """A database with ten videos u/0 to u/9, and one user, Anna."""
    import_catalog(db, text_file("product_url,title\n" + "".join(f"u/{n},Title\n" for n in range(10)), "catalog.csv"))
    db.execute("insert into auth.users (id) values (%s)", [ANNA])
    return db


def text_file(content: str | bytes, name: str = "file.csv") -> Path:
    path = Path(name)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(db: Connection, query: Any) -> list[Any]:
    return [row[0] if len(row) == 1 else row for row in db.execute(query).fetchall()]


def rejects(summary: ImportSummary) -> list[tuple[Any, ...]]:
    """(line, column, value, reason), by line."""
    if summary.rejects is None:
        return []
    with summary.rejects.open(encoding="utf-8", newline="") as file:
        return sorted((int(line), *rest) for line, *rest in list(csv.reader(file))[1:])


def read(path: Path, **options: Any) -> tuple[list[tuple[Any, ...]], list[str]]:
    """The rows of a file's ``product_url`` and ``title``, and the messages about it."""
    said: list[str] = []
    expected = {"product_url", "title", "tags"}
    with (
        Rejects(Path("rejects.csv")) as refused,
        open_table(path, refused, expected=expected, say=said.append, **options) as table,
    ):
        columns = ["product_url", "title"]
        found = [row for batch in table.batches(columns) for row in batch.select(columns).rows()]
    assert refused.rows == 0
    return found, said


# ---------------------------------------------------------------------------------------------------------- encodings

JAPANESE = [
    ("u/1", "㈱髙橋の①話"),
    ("u/2", "波～ダッシュ―と－"),
    ("u/3", "ﾃｽﾄのｶﾀｶﾅ"),
    ("u/4", "恋愛, それは「二行」"),
    ("u/5", "表示ソ能ポ"),  # bytes of it are a backslash and a vertical bar
]
PLAIN_JAPANESE = [("u/1", "恋愛と学園の話"), ("u/2", "テスト"), ("u/3", "ひらがな")]
WRITERS: dict[str, dict[str, Any]] = {
    "comma": {"delimiter": ","},
    "semicolon, as Excel in Europe": {"delimiter": ";", "lineterminator": "\r\n"},
    "tab, as Excel's Unicode text": {"delimiter": "\t", "lineterminator": "\r\n"},
    "vertical bar, all quoted": {"delimiter": "|", "quoting": csv.QUOTE_ALL},
    "CR, as an old Mac": {"delimiter": ",", "lineterminator": "\r"},
}


def written(content: list[tuple[str, str]], encoding: str, writer: dict[str, Any]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, **{"lineterminator": "\n", **writer}).writerows([("product_url", "title"), *content])
    return text.getvalue().encode(encoding)


@pytest.mark.parametrize("writer", WRITERS)
def test_every_encoding_of_every_exporter_reads_the_same(
    here: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    """Encodings × exporters × sizes of a block × gzip."""
    cases: list[tuple[str, list[tuple[str, str]]]]
    cases = [(encoding, JAPANESE) for encoding in ("utf-8", "utf-8-sig", "cp932", "utf-16", "utf-16-le", "utf-32")]
    cases += [("euc_jp", PLAIN_JAPANESE), ("shift_jis", PLAIN_JAPANESE)]
    for encoding, content in cases:
        for block, packed in ((1 << 22, False), (256, False), (1 << 22, True)):
            monkeypatch.setattr(csv_file, "BLOCK", block)
            data = written(content * 20, encoding, WRITERS[writer])
            found, said = read(text_file(gzip.compress(data) if packed else data))
            assert found == content * 20, (encoding, block, packed)
            assert any("it is in" in line for line in said) == (encoding in ("cp932", "shift_jis", "euc_jp"))
            assert read(text_file(data), encoding=encoding)[0] == content * 20


def test_an_ambiguous_encoding_is_refused_with_samples_of_each_reading(here: Path) -> None:
    told = {
        ("cp1252", "Größe"): ("cp1252", "Größe"),
        ("cp1252", "Été à la plage"): ("cp1252", "Été à la pla"),
        ("cp1252", "¿Qué? ¡año!"): ("cp1252", "¿Qué? ¡año!"),
        ("cp1252", "it’s “good”"): ("cp1252", "it’s “good”"),
        ("cp932", "ｱｲｳ"): ("cp932", "ｱｲｳ"),
        ("cp932", "恋愛"): ("cp932", "恋愛"),
        ("cp932", "㈱髙①"): ("cp932", "㈱髙①"),
        ("euc_jp", "恋愛"): ("euc_jp", "恋愛"),
    }
    for (encoding, title), (first, reading) in told.items():
        data = f"product_url,title\nu/1,plain\nu/2,{title}\n".encode(encoding)
        with pytest.raises(UserError, match=r"line 3, byte \d+: 0x.. is not valid UTF-8") as caught:
            read(text_file(data))
        assert f"by its encoding: --encoding {first} reads {reading}" in str(caught.value.hint), title
        assert read(text_file(data), encoding=encoding)[0][1] == ("u/2", title)


@pytest.mark.parametrize(
    ("encoding", "title"),
    [("gbk", "这是一个测试 优の良品 你好世界"), ("big5", "這是一個測試"), ("euc_kr", "안녕하세요"),
     ("cp1251", "ПРИВЕТ мир"),
     ("koi8-r", "Привет"), ("cp1250", "Zażółć gęślą jaźń"), ("mac_roman", "Été à la plage"),
     ("cp1252", "ÄÖÜ ÃÃ±²³"),
     ("cp1253", "Καλημέρα"), ("cp874", "สวัสดี")],
)  # fmt: skip
def test_text_that_is_not_japanese_is_not_detected_as_japanese(encoding: str, title: str) -> None:
    assert japanese(title.encode(encoding)) is None
    assert all(shown for _, shown in readings(title.encode(encoding)))


def test_sep_lines_and_double_colon_delimiters_are_read(here: Path) -> None:
    for mark in ";,\t|":
        for line in (f"sep={mark}", f'"sep={mark}"', f"SEP={mark}\r"):
            assert read(text_file(f"{line}\nproduct_url{mark}title\nu/1{mark}One\n"))[0] == [("u/1", "One")]
    for names, first in ((("title", "product_url"), ""), ((), "title::product_url\n")):
        found, said = read(text_file(first + "One::u/1\nTwo: 2::u/2\n"), names=names)
        assert found == [("u/1", "One"), ("u/2", "Two: 2")]
        assert "double colons" in said[0]
    assert read(text_file("ｐｒｏｄｕｃｔ＿ｕｒｌ，ＴＩＴＬＥ\nu/1,One\n"))[0] == [("u/1", "One")]


@pytest.mark.parametrize("rule", ["-----------,-----", "---------- , ---", "-----------+-------"])
def test_a_rule_below_the_header_is_not_a_row(here: Path, rule: str) -> None:
    assert read(text_file(f"product_url,title\n{rule}\nu/1,--\n-,-\n"))[0] == [("u/1", "--"), ("-", "-")]


@pytest.mark.parametrize("quoted", [False, True], ids=["plain", "with quotes"])
def test_null_markers_of_exporters_are_empty_cells(here: Path, quoted: bool) -> None:
    """Also in blocks with a quote, which the csv module reads."""
    words = ["", *csv_file.NOTHING]
    lines = [f"u/{n},{word}\n" for n, word in enumerate(words)] + ['u/a,"A ""title"""\n' if quoted else "u/a,A\n"]
    others = ["nana", "Nil", "\\Next", "NULL and void", "-"]
    found, _ = read(text_file("product_url,title\n" + "".join(lines) + "".join(f"u/o,{word}\n" for word in others)))
    assert [title for _, title in found[: len(words)]] == [None] * len(words)
    assert [title for _, title in found[len(words) + 1 :]] == others


def test_null_markers_are_no_user_and_no_price(shop: Connection) -> None:
    """R's NA and MySQL's \\N are no user's id, and an unknown price does not reject its row."""
    for n, word in enumerate(csv_file.NOTHING):
        catalog = f"product_url,title,tags,maker,price,released_at\nu/{n},T" + f",{word}" * 4 + "\n"
        assert import_catalog(shop, text_file(catalog)).rejected == 0, word
        reviews = f"product_url,reviewer_id,stars,created_at\nu/1,somebody {n},5,{word}\nu/1,{word},5,\n"
        found = rejects(import_reviews(shop, text_file(reviews), ImportOptions(most_rejected=1)))
        assert found == [(3, "reviewer_id", "", "empty")], word
    assert rows(shop, "select count(*) from public.tags") == [0]
    assert rows(shop, "select distinct maker from public.videos") == [None]


def test_byte_order_marks_are_removed_from_cells(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in concatenated files and in pasted cells."""
    mark = "\ufeff"
    for block in (1 << 22, 16):
        monkeypatch.setattr(csv_file, "BLOCK", block)
        for quote in ("", '"'):
            data = (
                f"{mark}product_url,title\nu/1,{quote}One{quote}\n{mark}u/2,T{mark}wo\nu/3,{mark}{quote}Three{quote}\n"
            )
            for encoding in ("utf-8", "utf-16"):
                found = read(text_file(data.encode(encoding)))[0]
                assert found == [("u/1", "One"), ("u/2", "Two"), ("u/3", "Three")], (block, quote, encoding)


def test_tags_are_equal_in_every_unicode_normal_form(shop: Connection) -> None:
    import_catalog(shop, text_file("product_url,title,tags,maker\nu/1,T,が|é,ガ\nu/2,T,か\u3099|e\u0301|が,カ\u3099\n"
                                   "u/3,T,(no genres listed),\n"))  # fmt: skip
    assert sorted(rows(shop, "select name from public.tags")) == sorted(["が", "é"])
    assert rows(shop, "select count(*) from public.video_tags") == [4]
    assert rows(shop, "select count(distinct maker) from public.videos") == [1]


# ------------------------------------------------------------------------------------------------------------ numbers

WIDE = str.maketrans("0123456789.,", "０１２３４５６７８９．，")


@pytest.mark.parametrize("value", ["0", "7", "980", "1980", "12.5", "1980.25", "1234567", "1234567.5"])
def test_a_price_reads_the_same_in_every_spelling(value: str) -> None:
    whole, _, part = value.partition(".")
    grouped = f"{int(whole):,}"
    spellings = [value, f" {value} ", f"+{value}"]
    spellings += [grouped + (f".{part}" if part else "")]
    spellings += [grouped.replace(",", mark) + (f".{part}" if part else "") for mark in (" ", "\u00a0", "\u202f", "'")]
    if part:
        spellings += [f"{whole},{part}", grouped.replace(",", ".") + f",{part}"]
    spellings += [spelling.translate(WIDE) for spelling in spellings]
    spellings += [
        form.format(spelling) for spelling in spellings for form in ("¥{}", "￥{}", "{}円", "JPY {}", "{} 円")
    ]
    found = number_texts(pl.Series(spellings), read_price)
    assert {Decimal(text) for text in found.to_list()} == {Decimal(value)}, dict(zip(spellings, found, strict=True))


@pytest.mark.parametrize("text", [
    "$9", "€9", "9 USD", "12,34,567", "1,2,3", "1_000", "0x10", "1e", "--1", "1-2", "free", "980円円", ",5,", "1.2.3",
    "九百八十", "∞",
])  # fmt: skip
def test_text_that_is_not_a_price_is_null(text: str) -> None:
    assert number_texts(pl.Series([text]), read_price).to_list() == [None]


@pytest.mark.parametrize("scale", [5.0, 10.0, 100.0])
@pytest.mark.parametrize("fifth", range(6))
def test_stars_read_the_same_in_every_spelling(scale: float, fifth: int) -> None:
    value = fifth * scale / 5
    spellings = [f"{value:g}", f"{value:.1f}", f"{value:.1f}".replace(".", ","), f"{value:g}".translate(WIDE)]
    spellings += [f"{fifth}/5", f"{fifth * 2}/10", f"{fifth * 20} / 100"]
    spellings += ["★" * fifth, "★" * fifth + "☆" * (5 - fifth), "⭐" * fifth, "⭐️" * fifth] if fifth else []
    found = stars(pl.Series(spellings), scale).to_list()
    assert found == pytest.approx([float(fifth)] * len(spellings)), spellings
    beyond = stars(pl.Series([f"{scale + 1:g}", "-1", "★★★★★★", "6/5", "11/10", "nan", "inf", "five", "1/0"]), scale)
    assert beyond.null_count() == len(beyond)


def ratings(top: float, count: int = 200) -> str:
    """Rows of a table of ratings that go from 1 to ``top``."""
    return "product_url,reviewer_id,stars\n" + "".join(
        f"u/{n % 10},r{n // 10},{1 + n * 7 % int(top)}\n" for n in range(count)
    )


@pytest.mark.parametrize("digits", range(1, 25))
def test_stars_with_any_exponent_raise_no_error(digits: int) -> None:
    """Decimals overflow when created or when multiplied, depending on the size of the exponent."""
    for of in (5, 10, 100):
        for scale in (5.0, 10.0, 100.0):
            for sign in "+-":
                found = stars(pl.Series([f"1e{sign}{'9' * digits}/{of}"]), scale).to_list()
                assert found in ([None], [pytest.approx(0, abs=1e-6)]), (of, scale, sign)


def test_a_ten_point_scale_is_detected_or_given(shop: Connection) -> None:
    half = "select (stars * 2)::int, count(*) from two_tower.reviews group by 1 order by 1"
    expected = [(n, 20) for n in range(1, 11)]
    for options in (ImportOptions(), ImportOptions(scale=10), ImportOptions(chunk=7), ImportOptions(chunk=7, scale=10)):
        shop.execute("truncate two_tower.reviews")
        shop.execute("delete from two_tower.job_runs")
        summary = import_reviews(shop, text_file(ratings(10)), options)
        assert (summary.inserted, summary.rejected) == (200, 0)
        assert rows(shop, half) == expected
    frame = pl.read_csv(text_file(ratings(10)))
    for kind in (pl.Int8, pl.Float32, pl.Float64, pl.UInt64, pl.String, pl.Decimal(4, 1), pl.Categorical):
        frame.with_columns(pl.col("stars").cast(pl.String).cast(kind)).write_parquet("ratings.parquet")
        assert import_reviews(shop, Path("ratings.parquet")).unchanged == 200, kind


@pytest.mark.parametrize("top", [4, 5])
def test_a_five_point_scale_is_kept(shop: Connection, top: int) -> None:
    """Also if a few rows are wrong."""
    text = ratings(top) + "u/1,x,9\nu/2,x,7\n"
    summary = import_reviews(shop, text_file(text))
    assert [reject[2] for reject in rejects(summary)] == ["9", "7"]
    assert rows(shop, "select max(stars)::int from two_tower.reviews") == [top]


def test_stars_of_decisions_are_read_as_those_of_reviews(shop: Connection) -> None:
    """Their spellings, and their scale, which would halve every weight or reject the best ones."""
    spellings = ["4", "4,0", "★★★★", "4/5", "8/10", "４", "4.0"]
    text = "".join(f"u/{n},{ANNA},like,{stars}\n" for n, stars in enumerate(spellings))
    import_decisions(
        shop, text_file("product_url;user_id;decision;stars\n" + text.replace(f",{ANNA},like,", f";{ANNA};like;"))
    )
    assert rows(shop, "select round(weight::numeric, 3), count(*) from public.user_video_decisions group by 1") == [
        (Decimal("0.800"), len(spellings))
    ]
    text = "product_url,user_id,decision,stars\n" + "".join(f"u/{n},{ANNA},like,{n + 1}\n" for n in range(10))
    for scale in (None, 10.0):
        shop.execute("delete from public.user_video_decisions")
        said: list[str] = []
        summary = import_decisions(shop, text_file(text), ImportOptions(scale=scale, say=said.append))
        assert (summary.inserted, summary.rejected, len(said)) == (10, 0, 1 if scale is None else 0)
        assert rows(shop, "select max(weight), min(weight) from public.user_video_decisions") == [(1.0, 0.1)]


def test_minus_nothing_is_nothing(shop: Connection) -> None:
    summary = import_reviews(shop, text_file("product_url,reviewer_id,stars\nu/1,a,-0\nu/2,a,-0.0\nu/3,a,0\n"))
    assert summary.distribution == {"0": 3}


def test_a_change_of_scale_within_a_file_ends_the_import(shop: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_file, "BLOCK", 256)
    late = ratings(5) + ratings(10).split("\n", 1)[1]
    with pytest.raises(UserError, match=r"from line \d+ on stars go to 10") as caught:
        import_reviews(shop, text_file(late))
    assert "--scale 10" in str(caught.value.hint)
    assert rows(shop, "select count(*) from two_tower.reviews") == [0]
    assert import_reviews(shop, text_file(late), ImportOptions(scale=10)).rejected == 0


def test_a_file_with_mostly_bad_rows_is_refused_unless_allowed(shop: Connection, dsn: str) -> None:
    for share, code in ((0.4, 0), (0.5, 0), (0.6, 1), (1.0, 1)):
        bad = round(share * 20)
        lines = [f"u/{n % 10},x{n // 10},{'bad' if n < bad else 3}\n" for n in range(20)]
        path = text_file("product_url,reviewer_id,stars\n" + "".join(lines))
        shop.execute("truncate two_tower.reviews")
        for more in ([], ["--chunk", "7"]):
            before = rows(shop, "select count(*) from two_tower.reviews")
            result = CliRunner().invoke(app, ["import", "reviews", str(path), "--dsn", dsn, *more])
            assert result.exit_code == code, result.output
            if code:
                assert f"{bad} of 20 rows are rejected, {bad} of them in the column stars" in result.output
                assert "--most-rejected 1" in result.output
                assert more or rows(shop, "select count(*) from two_tower.reviews") == before
        result = CliRunner().invoke(app, ["import", "reviews", str(path), "--dsn", dsn, "--most-rejected", "1"])
        assert result.exit_code == 0
        assert rows(shop, "select count(*) from two_tower.reviews") == [20 - bad]


# ------------------------------------------------------------------------------------------------------------ escapes


def escaping(*signs: str, **letters: str) -> Callable[[str | None], str]:
    """Writes a cell with a backslash before each of ``signs``, and with letter escapes such as \\n."""
    table = {sign: "\\" + sign for sign in ("\\", *signs)} | {sign: "\\" + letter for letter, sign in letters.items()}
    return lambda cell: "\\N" if cell is None else "".join(table.get(sign, sign) for sign in cell)


def quoting(write: Callable[[str | None], str]) -> Callable[[str | None], str]:
    return lambda cell: "\\N" if cell is None else f'"{write(cell)}"'


DUMPS: dict[str, tuple[str, Callable[[str | None], str]]] = {
    "MySQL into outfile": ("\t", escaping("\t", "\n")),
    "MySQL with commas": (",", escaping(",", "\n")),
    "MySQL with quotes": (",", quoting(escaping('"', "\n"))),
    "MySQL with carets": ("^", escaping("^", "\n")),
    "PostgreSQL's text": ("\t", escaping(n="\n", t="\t", r="\r")),
    "Spark": (",", quoting(escaping('"'))),
    "pandas with an escapechar": (",", escaping('"', ",")),
}
ESCAPED = [
    ("u/1", 'The "best", of all'), ("u/2", "a\nb\\\n"), ("u/3", "tab\tand, comma^"), ("u/4", "back\\slash\\"),
    ("u/5", "\\N"), ("u/6", None), ("u/7", "plain"), ("u/8", 'a"'), ("u/9", "恋愛\n\n\\\\"), ("u/10", "n"),
]  # fmt: skip


@pytest.mark.parametrize("form", DUMPS)
def test_backslash_escapes_of_dumps_are_read(here: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """The escapes are detected, also if a block ends anywhere in the file."""
    delimiter, write = DUMPS[form]
    content = [row for row in ESCAPED if not (form.startswith(("Spark", "pandas")) and "\n" in (row[1] or ""))]
    lines = [delimiter.join((write(url), write(title))) + "\n" for url, title in content]
    data = f"product_url{delimiter}title\n" + "".join(lines)
    for block in (1 << 22, 7, 64):
        monkeypatch.setattr(csv_file, "BLOCK", block)
        options = {"delimiter": delimiter, "backslashes": None if block > 100 else True}
        found, said = read(text_file(data), **options)
        assert found == content, block
        assert any("--no-backslashes" in line for line in said) == (block > 100)


def test_a_row_after_escaped_line_ends_is_reported_by_its_line(
    shop: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for block in (1 << 22, 20):
        monkeypatch.setattr(csv_file, "BLOCK", block)
        data = "product_url,title\nn/1,a\\\n\\\nb\\,\n,T\nn/2,x\n"
        summary = import_catalog(shop, text_file(data), ImportOptions(backslashes=True))
        assert [reject[:2] for reject in rejects(summary)] == [(5, "product_url")], block
    assert rows(shop, "select title from public.videos where product_url ~ '^n/' order by 1") == ["a\n\nb,", "x"]


def test_backslashes_are_literal_unless_the_file_escapes_with_them(here: Path) -> None:
    content = [("u/1", "C:\\new\\table\\"), ("u/2", 'a "b" \\'), ("u/3", "\\o/, \\o/"), ("u/4", "x\\\\y")]
    for writer in WRITERS.values():
        found, said = read(text_file(written(content, "utf-8", writer)))
        assert found == content
        assert not any("backslash" in line for line in said)
    assert read(text_file("product_url\ttitle\nu/1\tC:\\Users\nu/2\t\\N\n"))[0] == [("u/1", "C:\\Users"), ("u/2", None)]
    assert read(text_file("product_url,title\nu/1,a\\,b\nu/2,x\n"), backslashes=True)[0] == [
        ("u/1", "a,b"),
        ("u/2", "x"),
    ]


def test_escapes_found_late_are_reported_with_the_option(shop: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_file, "BLOCK", 64)
    plain = "product_url,title\n" + "".join(f"n/{n},T\n" for n in range(20))
    for row in ("n/x,a\\, b\n", 'n/x,"a \\"b\\" c"\n'):
        summary = import_catalog(shop, text_file(plain + row))
        assert [(line, reason.endswith("with --backslashes")) for line, *_, reason in rejects(summary)] == [(22, True)]
        summary = import_catalog(shop, text_file(plain + row), ImportOptions(backslashes=True))
        assert summary.rejected == 0
    with pytest.raises(UserError, match="never closes") as caught:
        import_catalog(shop, text_file(plain + 'n/x,"a\\""\n'))
    assert "--backslashes" in str(caught.value.hint)


@pytest.mark.parametrize("quote", ["", '"'])
def test_repeated_headers_are_skipped(shop: Connection, monkeypatch: pytest.MonkeyPatch, quote: str) -> None:
    """In concatenated files, also with column aliases or a byte order mark."""
    for block, again in itertools.product((1 << 22, 30), ("url,Title", "\ufeffURL , TITLE", "product_url,title")):
        monkeypatch.setattr(csv_file, "BLOCK", block)
        said: list[str] = []
        part = f"u/1,{quote}One{quote}\nu/2,title\n"
        options = ImportOptions(columns={"url": "product_url", "URL": "product_url"}, say=said.append)
        summary = import_catalog(shop, text_file(f"url,Title\n{part}{again}\n{part}{again}\n{part},T\n"), options)
        assert (summary.rows, summary.duplicates, summary.rejected) == (7, 4, 1), (block, again)
        assert said == ["file.csv: line 4 and 1 others name the columns again, and are passed over"]
        assert [line for line, *_ in rejects(summary)] == [10]
    assert rows(shop, "select count(*) from public.videos") == [10]
    with pytest.raises(UserError, match="line 3: the columns are named again, in another order"):
        import_catalog(shop, text_file("product_url,title\nu/1,T\ntitle,product_url\nT,u/1\n"))


def as_r(rows: list[tuple[str, str | None]], names: list[str], sep: str, quoted: bool) -> str:
    """What ``write.table(rows, sep = sep, quote = quoted)`` of R writes."""
    quote = '"' if quoted else ""

    def cell(text: str | None) -> str:
        return "NA" if text is None else quote + text.replace('"', '\\"' if quoted else '"') + quote

    lines: list[list[str | None]] = [["product_url", "title"]]
    lines += [[name, url, title] for name, (url, title) in zip(names, rows, strict=True)]
    return "".join(sep.join(map(cell, line)) + "\n" for line in lines)


@pytest.mark.parametrize("names", [["1", "2", "3"], ["7", "12", "9"], ["a", "b c", "d"]], ids=" ".join)
def test_row_names_written_by_r_are_not_a_column(here: Path, names: list[str]) -> None:
    content = [("u/1", 'The "best", of all'), ("u/2", None), ("u/3", "Three")]
    for sep, quoted in ((" ", True), (",", True), (";", True), ("\t", True), ("\t", False)):
        text = as_r(content, names, sep, quoted)
        found, said = read(text_file(text))
        assert found == content, text
        assert any("the first cell of each row is passed over" in line for line in said)


@pytest.mark.parametrize("text", [
    "product_url,title\nu/1,Hello, world\nu/2,Good bye, moon\n", 'product_url,title\n"u/1",a,"b"\n"u/2",c,"d"\n',
    '"product_url","title"\n"u/1","a","b"\n"u/1","c","d"\n', '"product_url","title"\n"1","u/1","b"\n"u/1","c"\n',
    "product_url\ttitle\n\tu/1\ta\n\tu/2\tb\n",
])  # fmt: skip
def test_rows_with_an_extra_cell_are_rejected(shop: Connection, text: str) -> None:
    """A comma in a title, the same or no name in each row, rows that fit the header among them."""
    refused = [line for line, *_ in rejects(import_catalog(shop, text_file(text)))]
    assert refused == ([2] if text.count('"') == 14 else [2, 3])


def test_excel_text_formulas_are_read_as_their_text(here: Path) -> None:
    found, _ = read(
        text_file('product_url,title\nu/1,="0012"\n"=""u/2""","=""a, b"""\nu/3,=""\nu/4,="a" & "b"\nu/5,=x\n')
    )
    assert found == [("u/1", "0012"), ("u/2", "a, b"), ("u/3", None), ("u/4", '="a" & "b"'), ("u/5", "=x")]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|", "::"])
def test_a_trailing_delimiter_in_rows_is_not_a_cell(here: Path, mark: str) -> None:
    lines = ["product_url,title", "u/1,One,", "u/2,,", ",Three,"]
    found, said = read(text_file("".join(line.replace(",", mark) + "\n" for line in lines)))
    assert found == [("u/1", "One"), ("u/2", None), (None, "Three")]
    assert "the last cell of each row is passed over" in said[-1]


QUOTES_OF_TITLES = [
    ("u/1", '"Weird" Al'), ("u/2", '"Open'), ("u/3", 'Close"'), ("u/4", '"a" and "b"'), ("u/5", '12" & 7"'),
    ("u/6", '"'), ("u/7", '""x'), ("u/8", "plain"), ("u/9", '"last'),
]  # fmt: skip


@pytest.mark.parametrize("mark", ["\t", "::"])
def test_quotes_inside_unquoted_cells_are_literal(here: Path, monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    """In formats that usually quote nothing, anywhere in a row, also if a block ends anywhere in the file."""
    for columns, block in itertools.product((["product_url", "title"], ["title", "product_url"]), (1 << 22, 30)):
        monkeypatch.setattr(csv_file, "BLOCK", block)
        lines = [mark.join(row if columns[0] == "product_url" else row[::-1]) for row in QUOTES_OF_TITLES]
        found, _ = read(text_file(mark.join(columns) + "\n" + "\n".join(lines) + "\n"))
        assert found == QUOTES_OF_TITLES, (columns, block)
    quoted = [("u/1", "Heroes"), ("u/2", f"a{mark}b"), ("u/3", "two\nlines"), ("u/4", 'a "b"'), ("u/5", '"Weird" Al')]
    text = written(quoted[:4], "utf-8", {"delimiter": "\0"}).decode().replace("\0", mark)
    text = text.replace(f"a{mark}b", f'"a{mark}b"').replace("Heroes", '"Heroes"')
    assert read(text_file(text + f'u/5{mark}"Weird" Al\n'))[0] == quoted


# -------------------------------------------------------------------------------------------------------------- times

MOMENTS = [
    dt.datetime(1973, 3, 4, 5, 6, 7), dt.datetime(2001, 9, 9, 1, 46, 39), dt.datetime(2001, 9, 9, 1, 46, 40),
    dt.datetime(2025, 1, 31), dt.datetime(2024, 2, 29, 23, 59, 59), dt.datetime(2099, 12, 31, 12),
]  # fmt: skip
FORMS: dict[str, Callable[[dt.datetime], str]] = {
    "ISO": lambda t: t.isoformat() + "Z",
    "with a space": str,
    "with an offset": lambda t: (t + dt.timedelta(hours=9)).isoformat() + "+09:00",
    "with a short offset": lambda t: (t + dt.timedelta(hours=9)).strftime("%Y-%m-%dT%H:%M:%S+0900"),
    "with a space before the offset": lambda t: (t - dt.timedelta(hours=3)).strftime("%Y-%m-%d %H:%M:%S -0300"),
    "in Japan's time": lambda t: (t + dt.timedelta(hours=9)).strftime("%Y/%m/%d %H:%M:%S JST"),
    "in Japanese": lambda t: f"{t.year}年{t.month}月{t.day}日 {t.hour}時{t.minute}分{t.second}秒",
    "without zeros": lambda t: f"{t.year}/{t.month}/{t.day} {t.hour}:{t:%M:%S}",
    "with dots": lambda t: t.strftime("%Y.%m.%d %H:%M:%S"),
    "German": lambda t: t.strftime("%d.%m.%Y %H:%M:%S"),
    "of HTTP": lambda t: t.strftime("%a, %d %b %Y %H:%M:%S GMT"),
    "of mail": lambda t: t.strftime("%a, %d %b %Y %H:%M:%S +0000"),
    "of ctime": lambda t: t.strftime("%a %b %d %H:%M:%S %Y"),
    "with twelve hours": lambda t: t.strftime("%Y-%m-%d %I:%M:%S %p"),
    "without signs": lambda t: t.strftime("%Y%m%d%H%M%S"),
    "basic ISO": lambda t: t.strftime("%Y%m%dT%H%M%SZ"),
    "nanoseconds of ISO": lambda t: t.isoformat() + ".000000000Z",
    "full width": lambda t: str(t).translate(str.maketrans("0123456789-:", "０１２３４５６７８９－：")),
    "seconds": lambda t: f"{(t - dt.datetime(1970, 1, 1)).total_seconds():.0f}",
    "seconds with a point": lambda t: f"{(t - dt.datetime(1970, 1, 1)).total_seconds():.1f}",
    "milliseconds": lambda t: f"{(t - dt.datetime(1970, 1, 1)).total_seconds():.0f}000",
    "microseconds": lambda t: f"{(t - dt.datetime(1970, 1, 1)).total_seconds():.0f}000000",
    "nanoseconds": lambda t: f"{(t - dt.datetime(1970, 1, 1)).total_seconds():.0f}000000000",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_time_reads_the_same_in_every_format(form: str) -> None:
    written = [FORMS[form](moment) for moment in MOMENTS]
    found = timestamps(pl.Series(written)).to_list()
    if form == "milliseconds":  # 12 digits could be a time to the minute; others could not
        assert all(a in (b, None) for a, b in zip(found, MOMENTS, strict=True))
        assert found[2:] == MOMENTS[2:]
    else:
        assert found == MOMENTS, dict(zip(written, found, strict=True))


def test_dates_and_numbers_of_every_type_are_times() -> None:
    day = dt.datetime(2025, 1, 31)
    for text in ("2025-01-31", "2025/1/31", "2025年1月31日", "31.01.2025", "31-Jan-2025", "Jan 31, 2025",
                 "January 31, 2025", "31 January 2025", "20250131", "Fri, 31 Jan 2025"):  # fmt: skip
        assert timestamps(pl.Series([text])).to_list() == [day], text
    seconds = [999_999_999, 1_000_000_000, 1_738_281_600]
    expected = [dt.datetime(1970, 1, 1) + dt.timedelta(seconds=n) for n in seconds]
    for kind, factor in itertools.product((pl.Int64, pl.UInt64, pl.Float64, pl.String), (1, 10**6, 10**9)):
        if kind == pl.Float64 and factor == 10**9:
            continue  # double precision is not that exact
        cells = (pl.Series(seconds, dtype=pl.Int64) * factor).cast(kind)
        assert timestamps(cells).to_list() == expected, (kind, factor)
    assert timestamps(pl.Series([1e9 + 0.25])).to_list() == [dt.datetime(2001, 9, 9, 1, 46, 40, 250_000)]


@pytest.mark.parametrize("text", [
    "01/02/2025", "1/2/25", "202501311200", "12", "0", "-1", "2025-02-30", "2025-01-31T24:00:00Z", "R7.1.31",
    "infinity", "45678", "yesterday", "99999-01-01", "12345678901", "2025-01-31 12:00 IST", "1.5", "2025-13-01",
    "31-02-2025",
    "1700000000000.5",
])  # fmt: skip
def test_an_ambiguous_or_invalid_time_is_null(text: str) -> None:
    assert timestamps(pl.Series([text])).to_list() == [None]


def test_a_time_outside_the_calendar_is_reported_in_its_unit(shop: Connection) -> None:
    """The limits of each Parquet type. Values within the calendar are reported as dates."""
    for kind in (pl.Date, pl.Datetime("ms"), pl.Datetime("us", "Asia/Tokyo"), pl.Datetime("us"), pl.Datetime("ns")):
        far = 2**31 - 1 if kind == pl.Date else 2**63 - 1
        unit = {None: "days", "ms": "milliseconds", "us": "microseconds", "ns": ""}[getattr(kind, "time_unit", None)]
        held = pl.Series("released_at", [far, -far], dtype=pl.Int64).cast(kind)
        pl.DataFrame({"product_url": ["n/1", "n/2"], "title": "T", "released_at": held}).write_parquet("far.parquet")
        found = rejects(import_catalog(shop, Path("far.parquet")))
        assert [reject[:2] for reject in found] == [(1, "released_at"), (2, "released_at")], kind
        values = [reject[2] for reject in found]
        if unit:
            assert values == [f"{far} {unit} since 1970", f"{-far} {unit} since 1970"]
        else:  # nanoseconds range from 1677 to 2262, within the calendar
            assert [value[:11] for value in values] == ["2262-04-11 ", "1677-09-21 "]


# -------------------------------------------------------------------------------------------------------------- types

INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt32, pl.UInt64)


def test_an_id_is_the_same_user_in_every_type(shop: Connection) -> None:
    numbers = [1, 2, 100]
    kinds: list[Any] = [*INTEGERS, pl.Float32, pl.Float64, pl.String, pl.Categorical, pl.Decimal(10, 0)]
    for users, products in itertools.product(kinds, (pl.Int64, pl.Float64, pl.String)):
        frame = pl.DataFrame({"product_url": numbers, "title": "T", "reviewer_id": numbers, "stars": 3})
        frame = frame.with_columns(
            pl.col("reviewer_id").cast(pl.String).cast(users), pl.col("product_url").cast(products)
        )
        frame.write_parquet("typed.parquet")
        import_catalog(shop, Path("typed.parquet"))
        assert import_reviews(shop, Path("typed.parquet")).rejected == 0
    assert rows(shop, "select count(*) from two_tower.reviews") == [3]
    assert set(rows(shop, "select reviewer_id from two_tower.reviews")) == {user_uuid(str(n)) for n in numbers}
    assert rows(shop, "select product_url from public.videos where product_url !~ 'u/' order by 1") == ["1", "100", "2"]
    pl.DataFrame(
        {"product_url": "u/1", "reviewer_id": [1.5, 2.0**53, float("inf"), None, 3.0], "stars": 3}
    ).write_parquet("typed.parquet")
    refused = import_reviews(shop, Path("typed.parquet"))
    assert [(line, column) for line, column, *_ in rejects(refused)] == [(n, "reviewer_id") for n in (1, 2, 3, 4)]
    assert ids(pl.Series([float("nan"), -0.0])).to_list() == [None, "0"]


def test_an_id_reads_the_same_in_every_spelling_of_exporters() -> None:
    """As pandas, R and mongoexport write it. An id rounded by a spreadsheet is ambiguous."""
    object_id = "507f1f77bcf86cd799439011"
    same = {
        "7": ["7", " 7 ", "7.0", "7.00"],
        "100000": ["100000", "100000.0", "1e+05"],
        "123400": ["1.234e+05"],
        object_id: [object_id, f"ObjectId({object_id})", f'ObjectId("{object_id}")'],
    }
    for expected, ways in same.items():
        assert ids(pl.Series(ways)).to_list() == [expected] * len(ways)
        assert ids(pl.Series(ways, dtype=pl.Categorical)).to_list() == [expected] * len(ways)
    names = [
        "1e5",
        "1.5",
        "v1.0",
        "1.0.0",
        "007",
        "-7.0",
        "a.0",
        "E+1",
        "ObjectId()",
        "12e+05",
        "https://x.example/1.0",
    ]
    assert ids(pl.Series(names)).to_list() == names
    rounded = ["1.23457E+11", "1E+12", "1e+17", "1.23456e+04", None]
    assert ids(pl.Series(rounded)).to_list() == [None, None, None, None, None]


# Characters of no width, beyond those that join letters or choose their form, which a reader sees.
INVISIBLE = ("\u00ad", "\u061c", "\u180e", "\u200b", "\u200e", "\u202a", "\u202e", "\u2060", "\u2066", "\ufeff")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_nobody_sees_is_no_part_of_an_id_or_a_name(db: Connection, here: Path, kind: str) -> None:
    def spelt(text: str) -> list[str]:
        ways = [text, *(way for m in INVISIBLE for way in (m + text, text + m, f"{text[:2]}{m}{text[2:]}"))]
        return [*ways, f"\u200b {text} \u2060"]

    def written(columns: dict[str, Any]) -> Path:
        frame = pl.DataFrame(columns)
        path = Path(f"file.{kind}")
        frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
        return path

    products, people = spelt("u/100"), spelt("somebody")
    written_items = text_file("product_url\nu/100\n", "items.csv")
    names = {name: spelt(f"{name} 日本") for name in ("tags", "performers", "maker", "label", "series", "source")}
    import_catalog(db, written({"product_url": products, "title": spelt("Title"), **names}))
    assert rows(db, "select product_url from public.videos") == ["u/100"]
    for name in ("tags", "performers"):
        assert rows(db, f"select name from public.{name}") == [f"{name} 日本"], name
    found = db.execute("select maker, label, series, source from public.videos").fetchone()
    assert found == tuple(f"{name} 日本" for name in ("maker", "label", "series", "source"))
    summary = import_reviews(db, written({"reviewer_id": people, "product_url": products, "stars": 5}))
    assert (summary.rejected, summary.users, summary.items) == (0, 1, 1)
    assert {user_uuid(spelling) for spelling in people} == {user_uuid("somebody")}
    both = written({"reviewer_id": ["が", "か\u3099"], "product_url": "u/100", "stars": [4, 5]})
    assert (import_reviews(db, both).inserted, user_uuid("が")) == (1, user_uuid("か\u3099"))
    assert load(both, None, written_items, item_key="product_url").data.user_ids.tolist() == ["が"]
    video = rows(db, "select id::text from public.videos")[0]
    told = written({"user_id": spelt(ANNA), "video_id": spelt(video), "decision": "like"})
    assert import_decisions(db, told, create_users=True).users_created == 1
    assert rows(db, "select user_id::text from public.user_video_decisions") == [ANNA]
    nobody = written({"reviewer_id": ["\u200b", "x"], "product_url": ["u/100", "\u00ad\u2060"], "stars": 5})
    found = import_reviews(db, nobody, ImportOptions(most_rejected=1))
    assert [reject[:2] + reject[3:] for reject in rejects(found)] == [
        (n + (kind == "csv"), column, "empty") for n, column in ((1, "reviewer_id"), (2, "product_url"))
    ]


def test_a_video_stored_with_an_invisible_character_is_found(shop: Connection) -> None:
    """An application wrote it, and its files may have the character or not."""
    shop.execute("update public.videos set product_url = 'u/\u200b1' where product_url = 'u/1'")
    for setting in ("as_written", "normalised"):
        shop.execute("update two_tower.settings set value = to_jsonb(%s::text) where name = 'product_urls'", [setting])
        for n, address in enumerate(("u/1", "u/\u200b1", "u/1\u00ad")):
            title = f"{setting} {n}"
            import_catalog(shop, text_file(f"product_url,title\n{address},{title}\n"))
            assert rows(shop, "select title from public.videos where product_url ~ '^u/.?1$'") == [title]
            text = f"reviewer_id,product_url,stars\nsomebody,{address},{n}\n"
            assert import_reviews(shop, text_file(text), ImportOptions(unknown="create")).items_created == 0


def test_an_id_rounded_by_a_spreadsheet_is_rejected(shop: Connection) -> None:
    text = "product_url,reviewer_id,stars\nu/1,1.23457E+11,5\nu/2,7.0,5\nu/2,7,5\n1E+12,8,5\n"
    summary = import_reviews(shop, text_file(text))
    found = [(line, column, value) for line, column, value, _ in rejects(summary)]
    assert found == [(2, "reviewer_id", "1.23457E+11"), (5, "product_url", "1E+12")]
    assert (summary.users, summary.duplicates) == (1, 1)
    catalog = import_catalog(shop, text_file("product_url,title\n1E+12,T\n1.0,T\n"))
    assert [reject[:3] for reject in rejects(catalog)] == [(2, "product_url", "1E+12")]
    assert rows(shop, "select count(*) from public.videos where product_url = '1'") == [1]


def test_lists_of_names_are_read_from_every_supported_type(shop: Connection) -> None:
    tags: dict[str, Any] = {
        "texts": ["a", "b"],
        "texts with blanks": [" a ", "", None, "b", "a"],
        "structs of a name": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "structs of one text": [{"x": "a"}, {"x": "b"}],
        "one text": "a|b",
        "an array": pl.Series([["a", "b"]], dtype=pl.Array(pl.String, 2)),
        "categories": pl.Series([["a", "b"]], dtype=pl.List(pl.Categorical)),
        "bytes": b"a|b",
        "a list that Parquet is not told of": {"list": [{"element": "a"}, {"element": "b"}]},
    }
    for kind, value in tags.items():
        cells = value if isinstance(value, pl.Series) else [value]
        pl.DataFrame({"product_url": ["u/1"], "title": ["T"], "tags": cells}).write_parquet("t.parquet")
        shop.execute("truncate public.tags cascade")
        import_catalog(shop, Path("t.parquet"))
        assert rows(shop, "select name from public.tags order by 1") == ["a", "b"], kind
    for whole in ([[1, 2]], [[1.0, 2.0]]):
        pl.DataFrame({"product_url": ["u/1"], "title": ["T"], "tags": whole}).write_parquet("t.parquet")
        import_catalog(shop, Path("t.parquet"))
        assert rows(shop, "select name from public.tags order by 1") == ["1", "2", "a", "b"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"tags": [[{"x": "a", "y": "b"}]]}, "column tags is of type"),
        ({"tags": [[["a"]]]}, "column tags is of type"),
        ({"tags": [{"name": "a"}]}, "column tags is of type"),
        ({"maker": [["a"]]}, "column maker holds lists"),
        ({"maker": [b"\xff"]}, "column maker"),
        ({"Title": ["other"]}, "names a column twice: title"),
        ({" title": ["other"]}, "names a column twice: title"),
    ],
)
def test_columns_of_ambiguous_types_are_refused(shop: Connection, columns: dict[str, Any], message: str) -> None:
    pl.DataFrame({"product_url": ["u/1"], "title": ["T"], **columns}).write_parquet("t.parquet")
    with pytest.raises(UserError, match=message):
        import_catalog(shop, Path("t.parquet"))


# -------------------------------------------------------------------------------------------------------------- lists


def in_postgres(names: list[str]) -> str:
    quoted = (n if re.fullmatch(r"[\w ]*\w", n) and n.lower() != "null" else json.dumps(n, ensure_ascii=False)
              for n in names)  # fmt: skip
    return "{" + ",".join(quoted) + "}"


LISTS: dict[str, Callable[[list[str]], str]] = {
    "bars": "|".join,
    "PostgreSQL": in_postgres,
    "JSON": json.dumps,
    "JSON in letters": lambda names: json.dumps(names, ensure_ascii=False, separators=(",", ":")),
    "Python": repr,
    "a tuple of Python": lambda names: "(" + ", ".join(map(repr, names)) + ")",
    "a set of Python": lambda names: "{" + ", ".join(map(repr, names)) + "}" if names else "set()",
    "numpy": lambda names: str(np.array(names, dtype=object)),
    "objects of JSON": lambda names: json.dumps([{"id": n, "name": name} for n, name in enumerate(names)]),
    "objects of Python": lambda names: repr([{"id": n, "name": name} for n, name in enumerate(names)]),
    "R": lambda names: "c(" + ", ".join(json.dumps(name) for name in names) + ")",
    "DuckDB": lambda names: "[" + ", ".join(n if n.isalnum() else repr(n) for n in names) + "]",
    "bare, as DuckDB": lambda names: "[" + ", ".join(names) + "]",
    "bare, as a Java program": lambda names: "[" + ",".join(names) + "]",
}
CONTENTS = [
    ["a"],
    ["a", "b c"],
    ["Ünï", "恋愛", "💫"],
    ["it's", 'the "x"'],
    ["a,b", "c|d"],
    ["[x]", "{y}"],
    ["back\\slash"],
]
"""Lists of names; the first three read the same in every notation."""


@pytest.mark.parametrize("form", LISTS)
def test_a_list_of_names_is_read_in_every_notation(here: Path, form: str) -> None:
    plain = form.startswith(("bars", "bare"))
    contents = CONTENTS[:3] if plain else CONTENTS
    cells = [LISTS[form](names) for names in contents]
    assert listed(pl.Series(cells)).to_list() == contents, cells
    assert listed_addresses(pl.Series([f" {cell} " for cell in cells])).to_list() == contents


def test_empty_lists_and_unnamed_elements_give_no_names() -> None:
    empty = [
        "",
        " ",
        "[]",
        "{}",
        "[ ]",
        "[None]",
        "{NULL}",
        "[null]",
        "[nan]",
        '[""]',
        "['', None]",
        "(no genres listed)",
    ]
    assert [found or [] for found in listed(pl.Series(empty)).to_list()] == [[]] * len(empty)
    assert listed(pl.Series(['{a,NULL,"NULL"}', "['x', None]", '[1, "2"]'])).to_list() == [
        ["a", "NULL"],
        ["x"],
        ["1", "2"],
    ]


def test_a_name_with_brackets_is_one_name() -> None:
    names = ["[Live] a", "(500) Days", "[a] and [b]", "{x} y", "(Untitled)", "a [b]", "【生】", "(a, b)", "['a'] b",
             '("Weird") Al', 'c("x") y', "{x}{y}", "it's [b, c]"]  # fmt: skip
    assert listed(pl.Series(names)).to_list() == [[name] for name in names]
    assert listed(pl.Series(["[HD]|(500) Days| x "])).to_list() == [["[HD]", "(500) Days", "x"]]


NO_LISTS = [
    '["a", "b', "['a', 'b", "{a,b", "[a, b", "[a, [b]]", "{{a,b},{c}}", '[["a"]]', '[{"id": 1}]', '["a\\u0000b"]',
    '["\\ud800"]', "['a' 'b' ... 'c']", '[{"x": "a", "y": "b"}]', "[" * 5_000, '[{"a":' * 5_000,
]  # fmt: skip


@pytest.mark.parametrize("column", ["tags", "performers", "image_urls"])
def test_a_truncated_or_nested_list_is_rejected_by_line_and_column(shop: Connection, column: str) -> None:
    frame = pl.DataFrame({"product_url": [f"n/{n}" for n in range(len(NO_LISTS) + 1)], "title": "T"})
    frame.with_columns(pl.Series(column, [*NO_LISTS, '["a", "b"]'])).write_csv("lists.csv")
    summary = import_catalog(shop, Path("lists.csv"))
    expected = [(n + 2, column, cell[:200]) for n, cell in enumerate(NO_LISTS)]
    assert [reject[:3] for reject in rejects(summary)] == expected
    assert summary.inserted == 1


# ------------------------------------------------------------------------------------------------------------ lengths


def noise(size: int, letters: str = "abcdefghijklmnopqrstuvwxyz0123456789") -> str:
    """Text that does not compress, of ``size`` bytes."""
    width = len(letters[0].encode())
    return "".join(letters[byte % len(letters)] for byte in os.urandom(size // width)) + "a" * (size % width)


@pytest.mark.parametrize("letters", ["abcdefghijklmnopqrstuvwxyz", "あいうえおかきくけこ恋愛学園髙"])
def test_every_text_has_a_longest_length(shop: Connection, letters: str) -> None:
    """One byte more is rejected by line and column, and every other row comes in; the same from CSV and Parquet."""
    columns = [name for name in LONGEST if name in Catalog.optional or name in ("product_url", "title")]
    assert {"title", "description", "thumbnail_url", "image_urls", "tags", "maker"} < set(columns)
    for column in columns:
        limit = LONGEST[column]
        lines = []
        for size in (limit, limit + 1, 100_000):
            cells = {"product_url": f"new/{size}/{column}", "title": "Title", column: noise(size, letters)}
            if column in Catalog.lists:
                cells[column] = f"short|{cells[column]}"
            lines.append(cells)
        pl.DataFrame(lines).write_csv("long.csv")
        pl.DataFrame(lines).write_parquet("long.parquet")
        for name, first in (("long.csv", 2), ("long.parquet", 1)):
            summary = import_catalog(shop, Path(name))
            assert [reject[:2] for reject in rejects(summary)] == [(first + 1, column), (first + 2, column)], column
            assert {reject[3] for reject in rejects(summary)} == {f"longer than {limit:,} bytes"}
            assert summary.inserted + summary.unchanged == 1
    for unknown in ("reject", "create"):
        lengths = (LONGEST_ADDRESS, LONGEST_ADDRESS + 1, 20_000)
        addresses = [*(noise(length, letters) for length in lengths), "u/1", "u/2"]
        reviewers = [*[noise(LONGEST_ID, letters)] * 4, noise(LONGEST_ID + 1, letters)]
        pl.DataFrame({"product_url": addresses, "reviewer_id": reviewers, "stars": 3}).write_csv("long.csv")
        summary = import_reviews(shop, Path("long.csv"), ImportOptions(unknown=unknown))
        lines_of = [line for line, *_ in rejects(summary)]
        assert lines_of == ([2, 3, 4, 6] if unknown == "reject" else [3, 4, 6])


@pytest.mark.parametrize("column", Catalog.lists)
def test_a_list_has_a_longest_length(shop: Connection, column: str) -> None:
    lists = ["|".join(f"a{n}" for n in range(size)) for size in (MOST_LISTED, MOST_LISTED + 1)]
    pl.DataFrame({"product_url": ["n/1", "n/2"], "title": "Title", column: lists}).write_csv("long.csv")
    summary = import_catalog(shop, Path("long.csv"))
    assert [(reject[0], *reject[2:]) for reject in rejects(summary)] == [
        (3, lists[1][:200], "a list of more than 1,000")
    ]
    assert summary.inserted == 1


def test_a_text_too_long_for_an_index_rejects_one_row_only(shop: Connection) -> None:
    shop.execute("create index on public.videos (title)")
    summary = import_catalog(shop, text_file(f"product_url,title\nn/1,A\nn/2,{noise(4_000)}\nn/3,B\n"))
    assert summary.inserted == 2
    ((line, _, _, reason),) = rejects(summary)
    assert line == 3
    assert "index row" in reason


# ---------------------------------------------------------------------------------------- rejected rows leave nothing

BAD = {
    "an empty user": ("new/1,,1,2024-01-01", "user"),
    "a label": ("new/1,%s,what,2024-01-01", "label"),
    "a time": ("new/1,%s,1,sometime", "created_at"),
    "a time to come": ("new/1,%s,1,2999-01-01", "created_at"),
    "an unknown user": ("new/1,nobody,1,2024-01-01", "user"),
}


@pytest.mark.parametrize("chunk", [None, 1])
def test_rejected_rows_create_no_videos(shop: Connection, chunk: int | None) -> None:
    options = ImportOptions(unknown="create", chunk=chunk)
    for kind, (line, _) in BAD.items():
        text = (line % ANNA if "%s" in line else line) + "\n"
        good = f"u/1,{ANNA},1,2024-01-01\n"
        summary = import_decisions(shop, text_file("product_url,user_id,label,created_at\n" + text + good), options)
        assert (summary.rejected, summary.items_created) == (1, 0), kind
        if kind != "an unknown user":
            text = text.replace(",what,", ",9,")
            path = text_file("product_url,reviewer_id,stars,created_at\n" + text + good)
            assert import_reviews(shop, path, options).items_created == 0, kind
        assert rows(shop, "select count(*) from public.videos where product_url like 'new/%'") == [0], kind
    shop.execute("alter table public.user_video_decisions add check (decision_type <> 'skip')")
    text = f"product_url,user_id,decision\nnew/1,{ANNA},skip\nnew/2,{ANNA},like\nu/2,{ANNA},skip\n"
    summary = import_decisions(shop, text_file(text), options)
    assert (summary.rejected, summary.items_created) == (2, 1)
    assert rows(shop, "select product_url from public.videos where product_url like 'new/%'") == ["new/2"]


def test_names_in_a_list_are_distinct() -> None:
    assert listed(pl.Series(["a|b||a| c ", "(no genres listed)", None])).to_list() == [["a", "b", "c"], [], None]


# ---------------------------------------------------------------------------------------------------------- addresses

SAME = [
    "https://shop.example/item/1", "http://shop.example/item/1", "https://shop.example/item/1/", "HTTPS://Shop.Example/item/1",
    "https://shop.example:443/item/1", "http://shop.example:80/item/1//", "https://shop.example/item/1#frag",
    "https://shop.example/item/1?utm_source=x&UTM_Medium=y", "https://shop.example/item/1?gclid=1&fbclid=2#a",
    " https://shop.example/item/1 ",
]  # fmt: skip
OTHER = [
    "https://shop.example/item/2", "https://shop.example/item/1?page=2", "https://shop.example:8443/item/1",
    "https://www.shop.example/item/1", "u/1/", "item:1", "https://[", "https://shop.example:x/item/1", "https://shop.example/Item/1",
]  # fmt: skip


@pytest.mark.parametrize("setting", ["as_written", "normalised", "normalised_lower_case"])
def test_equivalent_product_urls_are_one_product_if_set(shop: Connection, setting: str) -> None:
    shop.execute("update two_tower.settings set value = to_jsonb(%s::text) where name = 'product_urls'", [setting])
    addresses = [*SAME, *OTHER]
    pl.DataFrame({"product_url": addresses, "title": "T", "reviewer_id": addresses, "stars": 3}).write_csv("a.csv")
    first = import_catalog(shop, Path("a.csv"))
    expected = {"as_written": len(addresses) - 1, "normalised": 1 + len(OTHER), "normalised_lower_case": len(OTHER)}
    assert first.inserted == expected[setting]
    known = import_reviews(shop, Path("a.csv"))
    assert (known.rejected, known.items) == (0, expected[setting])
    assert import_catalog(shop, Path("a.csv")).inserted == 0
    new = [address.replace("item", "new") for address in addresses]
    pl.DataFrame({"product_url": new, "user_id": ANNA, "label": 1}).write_csv("b.csv")
    created = import_decisions(shop, Path("b.csv"), ImportOptions(unknown="create"))
    distinct = {address.strip() for address in new} - {address.strip() for address in addresses}
    assert created.items_created == (len(distinct) if setting == "as_written" else created.items - 3)


def test_an_existing_video_keeps_its_product_url(shop: Connection) -> None:
    """Also a video imported before the setting, or written by an application."""
    shop.execute(
        "insert into public.videos (product_url, title) values ('http://Shop.example/item/1/?utm_source=x', 'Old')"
    )
    shop.execute("update two_tower.settings set value = '\"normalised\"' where name = 'product_urls'")
    summary = import_catalog(shop, text_file("product_url,title\n" + "".join(f"{address},New\n" for address in SAME)))
    assert (summary.inserted, summary.updated, summary.duplicates) == (0, 1, len(SAME) - 1)
    assert import_reviews(shop, text_file(f"product_url,reviewer_id,stars\n{SAME[0]},x,3\n")).inserted == 1
    assert rows(shop, "select product_url from public.videos where product_url like 'http%'") == [
        "http://Shop.example/item/1/?utm_source=x"
    ]


def test_decimal_numbers_are_valid_ids(here: Path) -> None:
    numbers = pl.Series([Decimal("7.0"), Decimal("10.0"), Decimal("8.5"), None], dtype=pl.Decimal(20, 1))
    assert ids(numbers).to_list() == ["7", "10", None, None]


def test_parquet_uuids_are_uuids_and_other_bytes_are_text(here: Path) -> None:
    """As DuckDB and Arrow write them, in 16 bytes. A text of 16 bytes is not a UUID."""
    given = [uuid.UUID(int=n << 64 | n | 0x8000000000000000) for n in range(1, 200)] + [
        uuid.uuid4() for _ in range(200)
    ]
    pl.DataFrame({"product_url": [each.bytes for each in given], "title": "T"}).write_parquet("uuids.parquet")
    assert [url for url, _ in read(Path("uuids.parquet"))[0]] == [str(each) for each in given]
    texts = ["sixteen letters!", "恋愛恋愛恋x", "u/1", "àààààààà"]
    pl.DataFrame({"product_url": [each.encode() for each in texts], "title": "T"}).write_parquet("texts.parquet")
    assert [url for url, _ in read(Path("texts.parquet"))[0]] == texts


def test_unsupported_types_and_formats_are_refused_by_name(here: Path) -> None:
    frame = pl.DataFrame({"product_url": ["u/1"], "title": [dt.timedelta(seconds=62)]})
    frame.write_parquet("spans.parquet")
    with pytest.raises(UserError, match="the column title is of type Duration"):
        read(Path("spans.parquet"))
    for text, kind in (('[\n {"product_url": 1}]', "JSON"), ('{"product_url": "u"}\n', "JSON"), ("<html>", "HTML")):
        with pytest.raises(UserError, match=f"is {kind}"):
            read(text_file(text))
    frame.write_ipc("file.arrow")
    with pytest.raises(UserError, match="an Arrow"):
        read(Path("file.arrow"))


# ------------------------------------------------------------------------------------ files that are not what they seem

HEAD = "product_url,title\n"


def refused(db: Connection, path: Path, **options: Any) -> str:
    """The message and the hint of a refused catalogue."""
    with pytest.raises(UserError) as caught:
        import_catalog(db, path, ImportOptions(**options))
    return str(caught.value).replace("\n", "; ")


def test_an_unusable_header_is_explained_in_one_sentence(db: Connection, here: Path) -> None:
    """Headers of any length, with line ends or control characters."""
    told = {
        "product_url,title," + "x" * 1_100_000 + "\nu/1,One,\n": "lacks the columns",
        'product_url,"title\n",tags\nu/1,One,x\n': "a quote opens among the names of the columns",
        "product_url,title\ru/1,One\nu/2,Two\n": "lacks the columns",
        "\x1b[31mred,\u202etitle\n": "its header has: \ufffd[31mred, title;",
        ",".join(f"c{n}" for n in range(2000)) + "\n": "c19 and 1,980 others;",
    }
    for content, said in told.items():
        answer = refused(db, text_file(content))
        assert said in answer
        assert len(answer) < 500
        assert answer.isprintable()
    assert import_catalog(db, text_file("product_url,title," + "x" * 200_000 + "\nu/1,One,\n")).inserted == 1


def test_a_column_name_beside_a_multi_line_cell_is_a_row(here: Path) -> None:
    assert read(text_file(HEAD + 'title,"two\nlines"\nu/1,One\n'))[0] == [("title", "two\nlines"), ("u/1", "One")]


@pytest.mark.parametrize("inside", [bytes, gzip.compress], ids=["plain", "in gzip"])
def test_files_of_other_formats_are_refused_by_name(
    db: Connection, here: Path, inside: Callable[[bytes], bytes]
) -> None:
    json_text = '[{"product_url": "u/1"}]'
    formats = {
        b"PK\x03\x04\0\0": "a zip archive or a spreadsheet",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0": "a spreadsheet in Excel's old format",
        b"PARE" + bytes(20): "encrypted Parquet",
        b"SQLite format 3\0" + bytes(20): "no text: a NUL byte is in its first line",
        json_text.encode(): "JSON",
        json_text.encode("utf-8-sig"): "JSON",
        json_text.encode("utf-16"): "JSON",
        b'[["product_url", "title"]]': "JSON",
        "\ufeff<?xml version='1.0'?><a/>".encode(): "HTML or XML",
    }
    for data, name in formats.items():
        assert f"is {name}; give CSV, gzip of CSV, or Parquet" in refused(db, text_file(inside(data))), data
    assert "compressed with gzip twice" in refused(db, text_file(gzip.compress(gzip.compress(HEAD.encode()))))


def test_an_impossible_encoding_is_refused(db: Connection, here: Path) -> None:
    path = text_file(HEAD + "u/1,+2AA- \\ud800\n")
    for encoding in ("hex", "base64", "rot13"):
        assert f"there is no encoding '{encoding}'" in refused(db, path, encoding=encoding)
    for encoding in ("utf-16", "utf-7", "unicode_escape", "punycode", "undefined"):
        assert f"not {encoding}: " in refused(db, path, encoding=encoding)


def test_invalid_delimiters_are_refused(dsn: str, here: Path) -> None:
    path = text_file("product_urlあtitle\nu/1あOne\n")
    for delimiter in ('"', "あ", "\n", "\r", ",,"):
        done = CliRunner().invoke(app, ["import", "catalog", str(path), "--dsn", dsn, "--delimiter", delimiter])
        assert done.exit_code == 2, delimiter
    with pytest.raises(UserError, match="lacks the columns"), psycopg.connect(dsn) as connection:
        import_catalog(connection, text_file("sep=あ\nproduct_urlあtitle\n"))


def test_a_report_never_overwrites_the_file_being_read(dsn: str, here: Path) -> None:
    """The report of rejects, by its usual name or a given one, and the summary."""
    content = HEAD + "u/1,One\n,Two\n"
    for words in (["fixed.rejects.csv"], ["a.csv", "--rejects", "a.csv"], ["b.csv", "--summary", "./b.csv"]):
        path = text_file(content, words[0])
        done = CliRunner().invoke(app, ["import", "catalog", *words, "--dsn", dsn])
        assert done.exit_code == 1, words
        assert "would be replaced, and is the file that is read" in done.output
        assert path.read_text() == content


def test_a_file_may_have_any_name(db: Connection, here: Path) -> None:
    """Also a name that is not UTF-8, or that polars would read as a pattern."""
    for name in ("likes[1].parquet", "li*.parquet", "l?kes.parquet"):
        pl.DataFrame({"product_url": [name], "title": ["One"]}).write_parquet(text_file(b"", name).open("wb"))
        assert import_catalog(db, Path(name)).inserted == 1, name
    summary = import_catalog(db, text_file(HEAD + "u/1,One\n", os.fsdecode(b"\xff.csv")), ImportOptions(chunk=1))
    assert json.loads(summary.to_json().encode())["inserted"] == 1


def test_parquet_that_makes_polars_panic_is_refused(db: Connection, here: Path) -> None:
    """With an unknown time zone."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    times = pa.array([1], pa.timestamp("us", "Mars/Phobos"))
    pq.write_table(pa.table({"product_url": ["u"], "title": ["One"], "released_at": times}), "mars.parquet")
    assert "is not a readable Parquet file: " in refused(db, Path("mars.parquet"))
    whole = io.BytesIO()
    pl.DataFrame({"product_url": ["u"], "title": ["One"]}).write_parquet(whole)
    for cut in (4, 12, len(whole.getvalue()) // 2, len(whole.getvalue()) - 1):
        assert "is not a readable Parquet file: " in refused(db, text_file(whole.getvalue()[:cut]))


def test_a_stray_carriage_return_and_an_unterminated_cell_are_reported(db: Connection, here: Path) -> None:
    found = rejects(import_catalog(db, text_file(HEAD + "u/1,One\nu/2,Two\ru/3,Three\n")))
    assert found == [(3, "", "", "not CSV: a carriage return ends a line in the middle of the row")]
    data = HEAD + "u/1," + "x" * 1_100_000 + '\nu/2,"two"\n'
    found = rejects(import_catalog(db, text_file(data)))
    assert found == [(2, "", "", "not CSV: a cell has more than 1,048,576 characters")]


# ---------------------------------------------------------------------------------------------------- names of columns


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_mapped_column_that_is_not_there_is_an_error(db: Connection, here: Path, kind: str) -> None:
    """Whether it is needed or not, in every import; and so is one that is mapped to what the import does not read."""
    frame = pl.DataFrame({"product_url": ["u/1"], "Headline": ["One"], "Genres ": ["a|b"]})
    path = Path(f"file.{kind}")
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    for absent in ("genre", "headlines"):
        said = refused(db, path, columns={"Headline": "title", absent: "tags"})
        columns = "product_url, Headline, Genres"
        assert said == f"{path} has no column {absent}, which --map names; its columns are: {columns}"
    said = refused(db, path, columns={"Headline": "title", "genres": "tag"})
    assert "'tag' is no column of catalog; those are: product_url, title, tags, " in said
    assert "names a column twice: title" in refused(db, path, columns={"Headline": "title", "genres": "title"})
    # In other letters of case, and beside one that is the same but for that.
    import_catalog(db, path, ImportOptions(columns={"headline": "title", "GENRES": "tags"}))
    assert rows(db, "select name from public.tags order by 1") == ["a", "b"]
    both = pl.DataFrame({"product_url": ["u/1"], "Title": ["One"], "title": ["Two"]})
    both.write_csv(path) if kind == "csv" else both.write_parquet(path)
    import_catalog(db, path, ImportOptions(columns={"Title": "title", "title": "description"}))
    assert rows(db, "select title, description from public.videos") == [("One", "Two")]


def test_what_nobody_sees_is_no_part_of_a_column_name(db: Connection, here: Path) -> None:
    for mark in ("\ufeff", "\u200b", "\u00a0", "\u2060", "\u00ad", "\u3000", "\u202a", " "):
        spellings = [mark + "product_url", "product_url" + mark, f"{mark}PRODUCT_URL{mark}", "ｐｒｏｄｕｃｔ＿ｕｒｌ"]
        spellings += ["product" + mark + "_url"] if mark.strip() else []
        for name in spellings:
            frame = pl.DataFrame({name: ["u/1"], "title": [f"{mark!r} in {name!r}"]})
            frame.write_parquet("file.parquet")
            summary = import_catalog(db, Path("file.parquet"))
            assert summary.inserted + summary.updated == 1, frame
            frame.write_csv("file.csv")
            assert import_catalog(db, Path("file.csv")).unchanged == 1, frame


def test_a_file_with_the_longest_name_has_a_report(db: Connection, here: Path) -> None:
    for stem in ("x" * 251, "あ" * 83 + "xx", "x" * 243, "x" * 244):
        summary = import_catalog(db, text_file(HEAD + ",One\n", f"{stem}.csv"))
        assert summary.rejects is not None
        assert [reject[:2] for reject in rejects(summary)] == [(2, "product_url")]
        assert stem.startswith(summary.rejects.name.removesuffix(".rejects.csv"))


def test_a_time_is_read_from_created_at_or_timestamp(shop: Connection) -> None:
    """By imports as by ``train --train``; a number that only orders the rows is none."""
    text = "product_url,reviewer_id,stars,timestamp\nu/1,a,5,964982703\nu/2,a,4,2000-07-30T18:45:03Z\nu/3,a,4,3\n"
    summary = import_reviews(shop, text_file(text))
    assert [reject[:3] for reject in rejects(summary)] == [(4, "timestamp", "3")]
    moment = dt.datetime(2000, 7, 30, 18, 45, 3, tzinfo=dt.UTC)
    assert rows(shop, "select created_at from two_tower.reviews") == [moment, moment]
    both = "product_url,user_id,decision,timestamp,created_at\nu/1," + ANNA + ",like,1,2000-07-30T18:45:03Z\n"
    import_decisions(shop, text_file(both))
    assert rows(shop, "select created_at from public.user_video_decisions") == [moment]


def test_a_product_is_named_by_item_id_as_by_video_id(shop: Connection) -> None:
    """As files of interactions name it, which training reads."""
    (video,) = rows(shop, "select id from public.videos where product_url = 'u/1'")
    assert import_decisions(shop, text_file(f"user_id,item_id,label\n{ANNA},{str(video).upper()},1\n")).inserted == 1
    summary = import_decisions(shop, text_file(f"user_id,item_id,label\n{ANNA},{video},1\n{ANNA},7,1\n"))
    assert (summary.unchanged, [reject[:3] for reject in rejects(summary)]) == (1, [(3, "item_id", "7")])


@pytest.mark.parametrize("column", ["label", "decision"])
def test_a_decision_reads_the_same_in_imports_and_in_training(shop: Connection, column: str) -> None:
    """Of -1, which is a skip to some and a dislike to others, neither guesses."""
    words = ["LIKE", "Like", "1", "1.0", "true", "t", "DISLIKE", "nope ", "0", "0.0", "f", "SKIP", "１"]
    words += ["-1", "-1.0", "−1", "2", "yes", "いいね", "", "NaN", "like\u200b!"]
    text = f"user_id,product_url,{column}\n" + "".join(f"{n:02},u/1,{word}\n" for n, word in enumerate(words))
    path, items = text_file(text), text_file("product_url\nu/1\n", "items.csv")
    imported = import_decisions(shop, path, create_users=True)
    stored = dict(shop.execute("select user_id, decision_type from public.user_video_decisions").fetchall())
    trained = load(path, None, items, item_key="product_url")
    meant = {1: "like", 0: "nope", -1: "skip"}
    found = {user: meant[label] for user, label in zip(trained.data.user_ids, trained.data.label, strict=True)}
    assert stored == {user_uuid(user): word for user, word in found.items()}
    assert list(found.values()) == ["like"] * 6 + ["nope"] * 5 + ["skip", "like"]
    report = Path("train.rejects.csv").read_text(encoding="utf-8")
    assert imported.rejects is not None
    assert report == imported.rejects.read_text(encoding="utf-8")
    assert "could be a dislike or a skip" in report
