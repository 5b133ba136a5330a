"""Tables: every cell is exactly what was written, and whatever does not parse is named."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multitune.core.errors import DataError
from multitune.core.recipe import DataSpec
from multitune.core.store import cache_root
from multitune.data import manifest, mix, reading
from multitune.data.manifest import FIRST, Manifest, open_table
from multitune.data.reading import parquet
from multitune.data.sample import is_absent
from multitune.data.sources.rows import MemoryRows


def opened(path: Path, content: str | bytes) -> Manifest:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_table(path, name="t")


def rows(manifest: Manifest) -> list[dict[str, object]]:
    return [dict(manifest.row(index)) for index in range(len(manifest))]


def test_codes_dates_and_words_for_nothing_survive_in_csv(tmp_path: Path) -> None:
    manifest = opened(tmp_path / "a.csv", "id,code,when,word\n1,007,2020-01-01,NA\n2,1e5,,null\n")
    assert rows(manifest) == [
        {"id": "1", "code": "007", "when": "2020-01-01", "word": "NA"},
        {"id": "2", "code": "1e5", "word": "null"},
    ]


def test_json_numbers_are_the_text_that_was_written(tmp_path: Path) -> None:
    manifest = opened(
        tmp_path / "a.jsonl", '{"a": 1.50, "b": 1e-4, "c": 12345678901234567890123, "d": true, "e": null, "f": [1.0, null]}\n'
    )
    assert rows(manifest) == [{"a": "1.50", "b": "1e-4", "c": "12345678901234567890123", "d": "true", "f": "[1.0, null]"}]


def test_ids_that_are_there_twice_are_refused_each_time_and_another_column_for_them_is_looked_at_anew(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,n\n1,2\n1,3\n", "utf-8")
    for _ in range(2):
        with pytest.raises(DataError, match='the id "1" is in row 1 and in row 2'):
            open_table(tmp_path / "a.csv", name="t")
    assert open_table(tmp_path / "a.csv", name="t", id_column="n").id(1) == "3"
    with pytest.raises(DataError, match='the id "1" is in row 1 and in row 2'):
        open_table(tmp_path / "a.csv", name="t")


def test_quotes_line_ends_and_a_byte_order_mark_are_no_content(tmp_path: Path) -> None:
    manifest = opened(tmp_path / "a.csv", '\ufeffid,text\r\n1,"a, ""b""\nc"\r\n\r\n')
    assert rows(manifest) == [{"id": "1", "text": 'a, "b"\nc'}]


def test_csv_jsonl_and_parquet_of_the_same_table_are_equal(tmp_path: Path) -> None:
    cells = [{"id": "x1", "n": "007", "t": "ä ö"}, {"id": "x2", "n": "8", "t": "NA"}]
    csv = opened(tmp_path / "t.csv", "id,n,t\n" + "".join(",".join(row.values()) + "\n" for row in cells))
    jsonl = opened(tmp_path / "t.jsonl", "".join(json.dumps(row) + "\n" for row in cells))
    pq.write_table(pa.Table.from_pylist(cells), tmp_path / "t.parquet")
    assert rows(csv) == rows(jsonl) == rows(open_table(tmp_path / "t.parquet", name="t")) == cells


def test_parquet_keeps_bytes_and_casts_the_rest(tmp_path: Path) -> None:
    table = pa.table(
        {"n": [7, None], "picture": [{"bytes": b"\x00\xff", "path": None}, {"bytes": None, "path": "a.png"}], "raw": [b"r", None]}
    )
    pq.write_table(table, tmp_path / "t.parquet")
    assert rows(open_table(tmp_path / "t.parquet", name="t")) == [{"n": "7", "picture": b"\x00\xff", "raw": b"r"}, {"picture": "a.png"}]


def test_an_empty_cell_of_a_one_column_table_is_a_row(tmp_path: Path) -> None:
    manifest = opened(tmp_path / "a.csv", "text\nx\n\n\ny\n\n")
    assert rows(manifest) == [{"text": "x"}, {}, {}, {"text": "y"}]
    assert manifest.id(3) == "a:4"


def test_what_a_parquet_table_of_media_holds_is_known_without_its_bytes(tmp_path: Path) -> None:
    struct = [{"bytes": b"x", "path": None}, None, {"bytes": None, "path": "a.png"}, {"bytes": None, "path": ""}]
    pq.write_table(pa.table({"picture": struct, "raw": [b"", None, b"r", b"r"], "text": ["x", " ", None, ""]}), tmp_path / "t.parquet")
    manifest = open_table(tmp_path / "t.parquet", name="t")
    for name in manifest.columns:
        assert manifest.present(name).tolist() == [not is_absent(cell) for cell in manifest.column(name)]


def test_a_parquet_table_read_in_pieces_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [{"id": f"k{n}", "raw": bytes([n]) * 500, "list": [n, None]} for n in range(200)]
    pq.write_table(pa.Table.from_pylist(cells), tmp_path / "t.parquet", row_group_size=70)
    whole = pa.concat_tables(reading.tables(tmp_path / "t.parquet", "parquet"))
    monkeypatch.setattr(parquet, "PIECE_BYTES", 9_000)
    pieces = list(reading.tables(tmp_path / "t.parquet", "parquet"))
    assert len(pieces) > 10
    assert pa.concat_tables(pieces).equals(whole)


def test_a_table_longer_than_a_batch_keeps_its_order(tmp_path: Path) -> None:
    manifest = opened(tmp_path / "a.csv", "id,n\n" + "".join(f"k{n},{n}\n" for n in range(40_000)))
    assert [manifest.row(n)["n"] for n in (0, 16_383, 16_384, 39_999)] == ["0", "16383", "16384", "39999"]
    assert manifest.column("n") == [str(n) for n in range(40_000)]


def test_rows_without_an_id_are_named_by_file_and_number(tmp_path: Path) -> None:
    manifest = opened(tmp_path / "birds.csv", "a\nx\ny\n")
    assert [manifest.id(0), manifest.id(1)] == ["birds:1", "birds:2"]


def first_row(manifest: Manifest) -> dict[str, object]:
    return dict(manifest.row(0))


def test_a_manifest_travels_to_another_process(tmp_path: Path) -> None:
    manifest = opened(tmp_path / "a.csv", "id,n\n1,007\n")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(first_row, (manifest,)) == {"id": "1", "n": "007"}


def test_the_fingerprint_is_of_the_content_alone(tmp_path: Path) -> None:
    first, same, other = (opened(tmp_path / name, text) for name, text in (("a.csv", "n\n1\n"), ("b.csv", "n\n1\n"), ("c.csv", "n\n2\n")))
    assert first.fingerprint == same.fingerprint != other.fingerprint


@pytest.fixture
def settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table that was opened when its last change was no longer new."""
    monkeypatch.setattr("multitune.data.manifest.SETTLED_SECONDS", -1.0)
    opened(tmp_path / "a.csv", "n\n1\n")
    return tmp_path / "a.csv"


def test_a_table_that_changed_is_read_anew_though_its_time_stamp_was_put_back(settled: Path) -> None:
    before = settled.stat()
    settled.write_text("n\n2\n")
    os.utime(settled, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert rows(open_table(settled, name="t")) == [{"n": "2"}]


@pytest.mark.usefixtures("settled")
def test_a_settled_table_is_not_hashed_again() -> None:
    assert len(list((cache_root() / "hashes").glob("*.json"))) == 1


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "id,n\n", "no rows"),
        ("a.jsonl", "\n\n", "no rows"),
        ("a.csv", "id,n\n1,2,3\n", "line 2: has 3 cells, the header 2"),
        ("a.csv", "id;n\n1;2,5\n", 'The header looks separated by ";"'),
        ("a.csv", 'id,n\n1,"2\n3,4\n', "does not parse"),
        ("a.csv", 'id,n\n1,"2"x\n', "line 2: does not parse"),
        ("a.csv", "id,n\n1,2\n1,3\n", 'the id "1" is in row 1 and in row 2'),
        ("a.csv", "id,n\n,2\n", "row 1: has no id"),
        ("a.csv", "n,n\n1,2\n", 'the column "n" twice'),
        ("a.csv", ",n\n1,2\n", "column 1 has no name"),
        ("a.csv", b"n\n\xe4\n", "line 2: is not UTF-8 text (byte 0xe4)"),
        ("a.csv", "n\n1\n".encode("utf-16"), "UTF-16"),
        ("a.jsonl", '{"a": 1}\n{"a": NaN}\n', "line 2: holds NaN"),
        ("a.jsonl", '{"a": -Infinity}\n', "line 1: holds -Infinity"),
        ("a.jsonl", '{"a": 1, "a": 2}\n', 'line 1: has the key "a" twice'),
        ("a.jsonl", '{"a": 1}\n{"a": \n', "line 2:"),
        ("a.jsonl", "[1]\n", "line 1: is no object"),
        ("a.jsonl", '{"a": ' + "[" * 100_000 + "\n", "nested too deep"),
        ("a.parquet", "id,n\n1,2\n", "does not hold what the ending"),
        ("a.parquet", b"PAR1" + b"x" * 100, "no whole Parquet file"),
        ("a.csv", b"PAR1....", "does not hold what the ending"),
        ("a.pkl", b"\x80\x04}.", "can run code"),
        ("a.csv", b"\x80\x04}.", "holds a pickle"),
        ("a.npy", b"\x93NUMPY", "can run code"),
        ("a.json", "[]", ".jsonl"),
        ("a.jsonl", b"PK\x03\x04", "zip"),
    ],
)
def test_a_table_that_does_not_hold_is_refused(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    with pytest.raises(DataError, match=r"a[.]") as caught:
        opened(tmp_path / name, content)
    assert says in str(caught.value)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", tmp_path, tmp_path / "none.csv"):
        with pytest.raises(DataError):
            open_table(path, name="t")


@pytest.mark.parametrize("limit", [1 << 28, 0], ids=["small", "large"])
def test_a_kept_table_whose_bytes_changed_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(manifest, "READ_AGAIN", limit)
    monkeypatch.setenv("MULTITUNE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "t.csv"
    path.write_text("id,word\na,circle\nb,square\n", "utf-8")
    asked = [open_table(path, name="t").row(place) for place in range(2)]
    (kept,) = (tmp_path / "cache" / "tables").glob(f"*/{manifest.KEPT}")
    content = kept.read_bytes()
    assert b"circle" in content
    kept.write_bytes(content.replace(b"circle", b"circus"))
    assert [open_table(path, name="t").row(place) for place in range(2)] == asked
    (again,) = (tmp_path / "cache" / "tables").glob(f"*/{manifest.KEPT}")
    assert again.read_bytes() == content
    (again.parent / manifest.SEAL).unlink()
    assert [open_table(path, name="t").row(place) for place in range(2)] == asked


def test_an_unknown_column_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='Did you mean "caption"'):
        opened(tmp_path / "a.csv", "caption\nx\n").column("captoin")


def test_rows_in_memory_equal_the_table_of_the_same_data(tmp_path: Path) -> None:
    cells = [{"id": "a", "n": 7, "x": 0.1, "yes": True, "none": None}, {"id": "b", "n": -1, "x": 1e-9, "yes": False, "none": None}]
    table = opened(tmp_path / "t.jsonl", "".join(json.dumps(row) + "\n" for row in cells))
    memory = MemoryRows.of(cells)
    assert [memory.row(n) for n in range(2)] == rows(table)
    assert [memory.id(n) for n in range(2)] == [table.id(n) for n in range(2)]


def test_an_arrow_table_in_memory_is_read_as_a_parquet_file_is(tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b"], "n": [1, 2], "x": [0.5, None]})
    pq.write_table(table, tmp_path / "t.parquet")
    file = open_table(tmp_path / "t.parquet", name="t")
    assert [MemoryRows.of(table).row(n) for n in range(2)] == rows(file)


def test_the_fingerprint_of_rows_in_memory_sees_shape_and_content() -> None:
    flat = np.zeros((2, 6, 3), np.uint8)
    given = [[{"image": flat}], [{"image": flat.reshape(6, 2, 3)}], [{"image": flat + 1}], [{"image": flat.tobytes()}], [{"im": flat}]]
    assert len({MemoryRows.of(data).fingerprint for data in given}) == len(given)
    assert MemoryRows.of(copy.deepcopy(given[0])).fingerprint == MemoryRows.of(given[0]).fingerprint


@pytest.mark.parametrize("data", [[], "text", {"a": 1}, 3, [1, 2], [{"id": "a"}, {"id": "a"}], [{"a": object()}]])
def test_what_holds_no_rows_is_refused(data: object) -> None:
    with pytest.raises(DataError):
        MemoryRows.of(data)


@pytest.mark.parametrize(
    ("name", "header", "mark"), [("a.csv", "image;label", '";"'), ("a.csv", "image\tlabel", "tabs"), ("a.tsv", "image,label", "commas")]
)
def test_a_header_that_another_separator_would_part_is_told(tmp_path: Path, name: str, header: str, mark: str) -> None:
    (tmp_path / name).write_text(f"{header}\nx\n")
    spec = DataSpec.model_validate({"source": {"name": "table", "path": tmp_path / name}, "parts": {"image": "image"}})
    with pytest.raises(DataError, match="save the table with commas") as told:
        mix.read(spec).require("image")
    assert f"looks separated by {mark}" in str(told.value)


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.csv", 'n,m\n1,2\n\n"3\n",4\n5,6\n', "a.csv, line 6"),
        ("a.csv", "id,m\nx,2\ny,4\nz,6\n", "a.csv, line 4 (z)"),
        ("a.jsonl", '{"n": 1}\n\n{"n": 2}\n{"n": 3}\n', "a.jsonl, line 4"),
    ],
)
def test_the_place_of_a_row_is_its_line(tmp_path: Path, name: str, content: str, place: str) -> None:
    assert opened(tmp_path / name, content).place(2) == place


def test_the_place_of_a_row_of_parquet_is_its_number(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": ["1", "2"]}), tmp_path / "a.parquet")
    assert open_table(tmp_path / "a.parquet", name="t").place(1) == "a.parquet, row 2"


@pytest.mark.parametrize(("ending", "separator"), [(".csv", ";"), (".csv", "|"), (".tsv", ","), (".csv", "\t")])
def test_a_separator_that_is_stated_takes_the_place_of_the_endings(tmp_path: Path, ending: str, separator: str) -> None:
    path = tmp_path / f"a{ending}"
    path.write_text(f"id{separator}n\nx{separator}1\n\ny{separator}2\n")
    rows = open_table(path, name="a", separator=separator)
    assert [rows.row(0), rows.row(1)] == [{"id": "x", "n": "1"}, {"id": "y", "n": "2"}]
    assert rows.place(1) == f"a{ending}, line 4 (y)"


def test_a_format_without_separators_takes_none(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n')
    with pytest.raises(DataError, match="has no separator"):
        open_table(path, name="a", separator=";")


def test_a_column_of_few_texts_gives_what_a_column_of_many_gives(tmp_path: Path) -> None:
    few = ["a", "", " ", "é", "007"]
    lines = [{"few": few[place % 5] if place % 7 else None, "many": f"{place}"} for place in range(3 * FIRST)]
    table = opened(tmp_path / "a.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    cells = [table.row(place).get("few") for place in range(len(table))]
    assert table.column("few") == cells
    assert table.present("few").tolist() == [cell is not None and bool(cell.strip()) for cell in cells]
    assert table.column("many") == [str(place) for place in range(len(table))]
