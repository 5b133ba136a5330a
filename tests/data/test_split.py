"""Mixing, joining, aligning, splitting: every row is somewhere, once, for a reason that stands in the ledger."""

from __future__ import annotations

import copy
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multitune.core.errors import DataError, PluginError, RecipeError
from multitune.core.ledger import Ledger
from multitune.core.plan import Plan
from multitune.data import plan
from multitune.data.workers import Note, read_sample
from tests.data.plain import HALVES, ids, memory, mix, of_mix, of_texts, outlined, picture, picture_table, png, recipe, texts, write_jsonl


def test_splits_are_disjoint_whole_and_near_their_shares() -> None:
    found = ids(outlined(of_texts(texts(2_000), split=HALVES)))
    assert set.union(*found.values()) == {f"r{n}" for n in range(2_000)}
    assert sum(len(one) for one in found.values()) == 2_000
    assert [round(len(one) / 2_000, 1) for one in found.values()] == [0.6, 0.2, 0.2]


def test_a_row_keeps_its_split_when_others_come_or_go() -> None:
    few, many = ids(outlined(of_texts(texts(200), split=HALVES))), ids(outlined(of_texts(texts(400), split=HALVES)))
    assert all(few[name] <= many[name] for name in few)


def test_another_seed_splits_otherwise() -> None:
    assert ids(outlined(of_texts(texts(200), split=HALVES))) != ids(outlined(of_texts(texts(200), split=HALVES | {"seed": 1})))


@pytest.mark.parametrize("column", ["group", "scene"])
def test_rows_of_a_group_stay_together(column: str) -> None:
    rows = texts(600, **{column: lambda n: f"g{n // 7}"})
    found = outlined(of_texts(rows, split=HALVES | ({} if column == "group" else {"group": column})))
    groups = [set(examples.column(column)) for examples in found.examples.values()]
    assert all(not one & other for one, other in zip(groups, [*groups[1:], groups[0]], strict=True))
    assert sum(len(examples) for examples in found.examples.values()) == 600


def test_a_sample_is_made_once_and_anew_when_its_file_changes(tmp_path: Path) -> None:
    rows = outlined(recipe(picture_table(tmp_path, 3))).examples["train"]
    before, other = rows.sample(0), rows.sample(1)
    assert rows.sample(0) is before
    media = before.parts["image"].value
    media.path.write_bytes(png(picture(9)))
    again = rows.sample(0)
    assert again.parts["image"].value.key != media.key
    assert rows.sample(0) is again
    assert rows.sample(1) is other


def test_a_column_names_the_split() -> None:
    rows = texts(30, part=lambda n: ("train", "train", "test")[n % 3])
    found = outlined(of_texts(rows, split={"column": "part"}))
    assert {name: len(examples) for name, examples in found.examples.items()} == {"train": 20, "valid": 0, "test": 10}


def test_a_split_column_with_another_word_names_the_row() -> None:
    rows = texts(30, part=lambda n: "train" if n != 4 else "dev")
    with pytest.raises(DataError, match=r'row 5 \(r4\), part: found "dev"'):
        outlined(of_texts(rows, split={"column": "part"}))


def test_a_group_in_two_splits_is_refused() -> None:
    rows = texts(30, part=lambda n: "train" if n < 20 else "test", group=lambda n: f"g{n // 3}")
    with pytest.raises(DataError, match='the group "g6" is in train and in test'):
        outlined(of_texts(rows, split={"column": "part"}))


def test_sources_of_their_own_are_valid_and_test(tmp_path: Path) -> None:
    other = write_jsonl(tmp_path / "other.jsonl", [{"id": f"o{n}", "caption": "x", "label": "ab"[n % 2]} for n in range(10)])
    split = {"sources": {"test": {"name": "table", "path": str(other)}}}
    found = ids(outlined(of_texts(texts(400), split=split)))
    assert found["test"] == {f"o{n}" for n in range(10)}
    assert len(found["train"]) + len(found["valid"]) == 400
    assert 0.05 < len(found["valid"]) / 400 < 0.17


def test_an_id_of_two_sources_is_refused(tmp_path: Path) -> None:
    other = write_jsonl(tmp_path / "other.jsonl", [{"id": "r3", "caption": "x", "label": "a"}])
    with pytest.raises(DataError, match='the id "r3"'):
        outlined(of_texts(texts(40), split={"sources": {"test": {"name": "table", "path": str(other)}}}))


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError, match="valid is empty"):
        outlined(of_texts(texts(4), split={"train": 0.99, "valid": 0.005, "test": 0.005}))


def test_a_class_only_in_test_is_refused() -> None:
    rows = texts(30, part=lambda n: "train" if n < 20 else "test")
    rows[25]["label"] = "rare"
    with pytest.raises(DataError, match='the class "rare" is in test'):
        outlined(of_texts(rows, split={"column": "part"}))


def test_one_class_only_is_refused() -> None:
    with pytest.raises(DataError, match='the only class in train is "a"'):
        outlined(of_texts(texts(9, label=lambda n: "a")))


def test_limit_takes_the_first_rows_of_train_by_hash_order() -> None:
    every, few, fewer = (ids(outlined(of_texts(texts(300), split=HALVES, limit=limit))) for limit in (0, 60, 30))
    assert [len(few["train"]), len(fewer["train"])] == [60, 30]
    assert fewer["train"] < few["train"] < every["train"]
    assert few["test"] == every["test"]


def test_missing_parts_are_refused_naming_the_first_row() -> None:
    rows = texts(9)
    rows[4]["caption"] = None
    with pytest.raises(DataError, match=r"row 5 \(r4\), caption: is missing\. 1 row lacks it\. Mend it,"):
        outlined(of_texts(rows))


@pytest.mark.parametrize(("policy", "kept"), [("drop", 7), ("mask", 8)])
def test_missing_parts_are_dropped_or_masked_and_taken_down(policy: str, kept: int) -> None:
    rows = texts(9, other=lambda n: f"o{n}")
    rows[4]["caption"] = rows[5]["caption"] = rows[5]["other"] = None
    ledger = Ledger()
    parts = {"caption": "text", "other": "text", "label": "category"}
    found = outlined(of_texts(rows, parts=parts, missing=policy), ledger)
    assert len(found.examples["train"]) == kept
    fates = {(record.id, record.fate, record.part) for record in ledger.records()}
    expected = {("r4", "dropped", "caption"), ("r5", "dropped", "caption")}
    assert fates == (expected if policy == "drop" else {("r4", "masked", "caption"), ("r5", "dropped", "")})


def test_a_part_may_have_a_policy_of_its_own() -> None:
    rows = texts(9)
    rows[4]["caption"], rows[5]["label"] = None, " "
    parts = {"caption": {"modality": "text", "missing": "drop"}, "label": {"modality": "category", "missing": "drop"}}
    assert len(outlined(of_texts(rows, parts=parts)).examples["train"]) == 7


def test_no_row_left_is_refused() -> None:
    with pytest.raises(DataError, match="no row is left of 4"):
        outlined(of_texts(texts(4, caption=lambda n: None), missing="drop", parts={"caption": "text", "label": "category"}))


def test_an_answer_that_is_no_number_names_its_row() -> None:
    rows = texts(9, age=lambda n: n if n != 3 else "old")
    with pytest.raises(DataError, match=r"row 4 \(r3\), age: found 'old', not a number"):
        outlined(of_texts(rows, parts={"caption": "text", "age": "number"}, answers=["age"]))


def test_numbers_are_standardised_by_train_alone() -> None:
    rows = texts(30, part=lambda n: "train" if n < 20 else "test", age=lambda n: n if n < 20 else 10_000)
    need = outlined(of_texts(rows, parts={"caption": "text", "age": "number"}, answers=["age"], split={"column": "part"})).needs.answers[
        "age"
    ]
    assert need.mean == pytest.approx(np.mean(range(20)))
    assert need.deviation == pytest.approx(np.std(range(20)))


def test_classes_are_text_sorted_and_counted() -> None:
    need = outlined(of_texts(texts(10, label=lambda n: [7, "007"][n % 5 == 0]))).needs.answers["label"]
    assert (need.labels, need.counts) == (("007", "7"), (2, 8))


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        ({"parts": {"captoin": "text", "label": "category"}}, DataError, 'Did you mean "caption"'),
        ({"parts": {"caption": "txt", "label": "category"}}, PluginError, 'Did you mean "text"'),
        ({"parts": {"caption": {"modality": "text", "options": {"max": 3}}, "label": "category"}}, PluginError, "max"),
        ({"parts": {"caption": "category", "label": "category"}}, DataError, "serves answers only"),
        ({"parts": {"caption": "image", "label": "category"}, "answers": ["caption", "label"]}, DataError, "is no answer"),
        ({"split": {"group": "scene"}}, DataError, "data.split.group"),
        ({"split": {"column": "fold"}}, DataError, "data.split.column"),
        ({"train": {"balance": "caption"}}, RecipeError, "train.balance"),
        ({"source": {"name": "tabel", "path": "x"}}, PluginError, 'Did you mean "table"'),
        ({"source": {"name": "table", "path": "none.csv"}}, DataError, "no such file"),
    ],
)
def test_what_the_data_do_not_hold_is_named(data: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error) as caught:
        outlined(of_texts(texts(9), **data))
    assert says in str(caught.value)


def test_sources_of_a_mix_are_named_and_their_ids_too() -> None:
    train = outlined(of_mix(mix((texts(3), 1), (texts(3), 1)))).examples["train"]
    assert train.ids == ["rows/r0", "rows/r1", "rows/r2", "rows-2/r0", "rows-2/r1", "rows-2/r2"]
    assert [train.sample(n).source for n in (0, 5)] == ["rows", "rows-2"]


def test_a_column_that_one_source_lacks_is_an_absent_part_there() -> None:
    entries = mix((texts(4), 1), (texts(4, kind=lambda n: "xy"[n % 2]), 1))
    parts = {"caption": "text", "label": "category", "kind": {"modality": "category", "missing": "mask"}}
    train = outlined(of_mix(entries, parts=parts, answers=["label", "kind"])).examples["train"]
    assert train.column("kind") == [None] * 4 + ["x", "y", "x", "y"]
    assert "kind" not in train.sample(0).parts
    assert train.sample(5).parts["kind"].value == "y"


def test_other_sources_are_joined_by_key(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png(picture(1)))
    other = write_jsonl(tmp_path / "pictures" / "other.jsonl", [{"key": "k1", "image": "a.png"}, {"key": "k3", "image": "a.png"}])
    join = {"key": "key", "sources": [{"name": "table", "path": str(other)}]}
    rows = texts(4, key=lambda n: f"k{n}")
    parts = {"image": "image", "caption": "text", "label": "category"}
    train = outlined(of_texts(rows, join=join, parts=parts, missing="mask")).examples["train"]
    assert ["image" in train.sample(n).parts for n in range(4)] == [False, True, False, True]
    assert train.sample(1).parts["image"].value.path == tmp_path / "pictures" / "a.png"


def test_a_key_twice_in_a_joined_source_is_refused() -> None:
    join = {"key": "key", "sources": [memory([{"key": "k", "x": "1"}, {"key": "k", "x": "2"}])]}
    with pytest.raises(DataError, match='the key "k" is in row 1 and in row 2'):
        outlined(of_texts(texts(4, key=lambda n: f"k{n}"), join=join))


def test_a_joined_column_that_is_there_already_is_refused() -> None:
    join = {"key": "key", "sources": [memory([{"key": "k", "caption": "1"}])]}
    with pytest.raises(DataError, match='brings the column "caption"'):
        outlined(of_texts(texts(4, key=lambda n: f"k{n}"), join=join))


def test_examples_travel(tmp_path: Path) -> None:
    train = outlined(recipe(picture_table(tmp_path, 5))).examples["train"]
    again = copy.deepcopy(train)
    assert len(ForkingPickler.dumps(train)) < 10_000  # as a spawned worker gets them
    assert [again.sample(n) for n in range(5)] == [train.sample(n) for n in range(5)]


def test_a_folder_of_classes_is_a_source(tmp_path: Path) -> None:
    for place in ("cat/1", "cat/deep/2", "dog/3"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{place}.png").write_bytes(png(picture(3)))
    (tmp_path / "cat" / "notes.txt").write_text("x")
    (tmp_path / "dog" / "link.png").symlink_to(tmp_path / "dog" / "3.png")
    made = recipe({"name": "folder", "path": str(tmp_path)}, parts={"image": "image", "label": "category"})
    train = outlined(made).examples["train"]
    assert list(zip(train.ids, train.column("label"), strict=True)) == [
        ("cat/1.png", "cat"),
        ("cat/deep/2.png", "cat"),
        ("dog/3.png", "dog"),
    ]


def test_folders_called_after_splits_are_splits(tmp_path: Path) -> None:
    for place in ("train/a/1", "train/b/2", "val/a/3", "test/b/4"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{place}.png").write_bytes(png(picture(3)))
    source = {"name": "folder", "path": str(tmp_path)}
    made = recipe(source, parts={"image": "image", "label": "category"}, split={"column": "split"})
    assert {name: len(rows) for name, rows in outlined(made).examples.items()} == {"train": 2, "valid": 1, "test": 1}


def test_equal_files_in_two_splits_are_a_finding(tmp_path: Path) -> None:
    table = picture_table(tmp_path, 8, part=lambda n: "train" if n < 6 else "test")
    (tmp_path / "7.png").write_bytes((tmp_path / "2.png").read_bytes())
    found = [f for f in outlined(recipe(table, split={"column": "part"})).findings if f.code == "duplicate-over-splits"]
    assert [(f.where, f.evidence) for f in found] == [("data.parts.image", {"files": 1})]
    assert "r002 (train) = r007 (test)" in found[0].message


def test_uneven_and_lacking_classes_are_findings() -> None:
    rows = texts(60, part=lambda n: "train" if n < 50 else "test", label=lambda n: "b" if n < 2 else "a")
    found = outlined(of_texts(rows, split={"column": "part"})).findings
    assert {"imbalance", "class-missing", "few-rows"} <= {finding.code for finding in found}
    small = next(finding for finding in found if finding.where == "data.split.test")
    assert (small.message, small.remedy) == ("test has 10 rows: its figures say little.", "Give it a larger share, or add rows.")


def test_classes_that_differ_by_case_or_spaces_alone_are_told() -> None:
    found = outlined(of_texts(texts(60, label=lambda n: ("cat", "Cat ", "dog")[n % 3]))).findings
    assert [(one.where, one.message) for one in found if one.code == "classes-alike"] == [
        ("data.answers.label", 'the classes "Cat " and "cat" differ by case or spaces alone.')
    ]


def test_an_empty_split_is_told_with_what_is_lost_by_it() -> None:
    found = outlined(of_texts(texts(60, label=lambda n: "ab"[n % 2]), split={"train": 1.0, "valid": 0.0, "test": 0.0})).findings
    assert [finding.message for finding in found if finding.code == "few-rows"] == [
        "valid has no rows: nothing is measured in training.",
        "test has no rows: nothing is measured in the end.",
    ]


def test_nothing_is_split_where_data_are_only_measured() -> None:
    assert plan.everything(of_texts(texts(9, label=lambda n: "a")), Ledger()).ids == [f"r{n}" for n in range(9)]


def test_the_plan_states_the_data_and_where_each_value_comes_from() -> None:
    made = of_texts(texts(40), split=HALVES)
    text = Plan("plain", {}, plan.state(made, outlined(made))).text()
    for line in ("rows, 40 rows", "answers.label.classes", "train 0.6, valid 0.2, test 0.2, seed 0", "caption", "max_loss"):
        assert line in text


def test_weights_that_leave_no_row_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"data\.mix: the weights leave no row of train's 8"):
        outlined(of_mix(mix((texts(4), 1e-3), (texts(4), 1e-3))))


def test_a_source_that_no_epoch_draws_from_is_a_finding() -> None:
    found = outlined(of_mix(mix((texts(40), 1), (texts(4), 0.1)))).findings
    assert ["rows-2" in finding.message for finding in found if finding.code == "source-not-drawn"] == [True]


@pytest.mark.parametrize(
    ("word", "split", "told"),
    [
        ("test", {}, True),
        ("test", {"seed": 1}, True),
        ("test", {"column": "split"}, False),
        ("test", HALVES, False),
        ("fold 3", {}, False),
    ],
)
def test_a_split_column_that_is_not_used_is_a_finding(word: str, split: dict[str, Any], told: bool) -> None:
    rows = texts(300, split=lambda n: "train" if n % 5 else word)
    codes = {finding.code: finding.remedy for finding in outlined(of_texts(rows, split=split)).findings}
    assert ("split-column-unused" in codes) is told
    assert not told or "{column: split}" in codes["split-column-unused"]


def test_a_number_too_large_to_be_squared_names_its_row() -> None:
    rows = texts(9, age=lambda n: n if n != 3 else 1e200)
    with pytest.raises(DataError, match=r"row 4 \(r3\), age: found 1e\+200, beyond 1e\+100"):
        outlined(of_texts(rows, parts={"caption": "text", "age": "number"}, answers=["age"]))


@pytest.mark.parametrize("length", [300, 5_000])
def test_a_text_in_place_of_a_picture_is_left_to_the_loader(length: int, tmp_path: Path) -> None:
    table = picture_table(tmp_path, 8, part=lambda n: "train" if n < 6 else "test", image=lambda n: "iVBO" * (length // 4))
    examples = outlined(recipe(table, split={"column": "part"})).examples["train"]
    notes: list[Note] = []
    assert read_sample(examples, 0, notes) is None
    assert f"is a text of {length:,} characters, no path of a file" in notes[0].cause


def test_bytes_and_a_file_that_are_equal_are_found_in_two_splits(tmp_path: Path) -> None:
    files = picture_table(tmp_path, 6)
    (tmp_path / "2.png").write_bytes(png(picture(2, side=64)))
    rows = [{"id": "m", "image": (tmp_path / "2.png").read_bytes(), "caption": "x", "label": "a"}]
    made = recipe(files, split={"sources": {"test": memory(rows)}, "valid": 0})
    found = [finding for finding in outlined(made).findings if finding.code == "duplicate-over-splits"]
    assert "r002 (train) = m (test)" in found[0].message


def test_every_row_is_there_for_data_that_are_only_predicted() -> None:
    rows = texts(5)
    rows[2]["caption"], rows[3]["label"] = None, None
    made = of_texts(rows, missing="drop")
    assert plan.everything(made, Ledger()).ids == ["r0", "r1", "r4"]
    assert plan.every_row(made).ids == [f"r{n}" for n in range(5)]


def test_a_column_that_data_to_be_predicted_lack_is_named() -> None:
    with pytest.raises(DataError, match=r'data\.parts\.captoin: no source has a column "captoin".*Did you mean "caption"'):
        plan.every_row(of_texts(texts(5), parts={"captoin": "text"}, answers=[]))
