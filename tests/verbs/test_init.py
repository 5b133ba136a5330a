"""`init` says what it sees, guesses nothing silently, asks where it could be two things, and writes recipes that hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import multitune
from multitune.core.errors import DataError, PluginError, UserError
from multitune.core.ledger import Ledger
from multitune.core.recipe import Recipe, read_recipe
from multitune.core.result import Result
from multitune.data.plan import outline
from tests.verbs.making import classes, medium, written_csv, written_jsonl


def made(tmp_path: Path, data: Path, **options: Any) -> tuple[Result, Recipe]:
    result = multitune.init(data, out=tmp_path / "recipe.yaml", **options)
    return result, read_recipe(result.paths["recipe"])


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures in a folder of their own, beside which tables are written."""
    for number in range(12):
        medium(tmp_path / "my pictures" / f"图 {number}.png", "image", number)
    return tmp_path


def rows_of(*columns: str) -> list[list[str]]:
    return [["file", *columns], *([f"my pictures/图 {n}.png", *(f"{c} {n % 3}" for c in columns)] for n in range(12))]


def test_a_folder_of_classes_is_seen_with_its_classes_and_sizes(tmp_path: Path) -> None:
    result, recipe = made(tmp_path, classes(tmp_path / "my pets", ["cat", "狗"], rows=14))
    assert "cat 7, 狗 7" in result.text
    assert "14 of 14 files looked at can be opened: 14 PNG" in result.text
    assert (recipe.task.name, recipe.data.answers, list(recipe.data.parts)) == ("classification", ("label",), ["image", "label"])
    assert outline(recipe, Ledger()).needs.answers["label"].labels == ("cat", "狗")


def test_a_table_with_a_mark_semicolons_and_chinese_names_is_read_as_it_is(pictures: Path) -> None:
    table = written_csv(
        pictures / "表 1.csv",
        [["图片 文件", "描述"], *([r[0], f"一张图 {n}"] for n, r in enumerate(rows_of()[1:]))],
        separator=";",
        encoding="utf-8-sig",
    )
    result, recipe = made(pictures, table)
    assert "cells separated by semicolons" in result.text
    assert {name: (part.modality, part.column) for name, part in recipe.data.parts.items()} == {
        "图片_文件": ("image", "图片 文件"),
        "描述": ("text", ""),
    }
    sample = outline(recipe, Ledger()).examples["train"].sample(0)
    assert sample.parts["图片_文件"].value.path.name.startswith("图 ")


def test_every_guess_stands_in_the_recipe_as_a_comment_and_on_the_screen(pictures: Path) -> None:
    result, _ = made(pictures, written_csv(pictures / "a.csv", rows_of("label")))
    written = result.paths["recipe"].read_text("utf-8")
    for told in ("label is a category", "3 different texts in 12 rows", "12 of 12 files looked at can be opened"):
        assert told in written
        assert told in result.text


@pytest.mark.parametrize(
    ("columns", "options", "task", "answers"),
    [
        (("label",), {}, "classification", ("label",)),
        (("shape", "label"), {}, "classification", ("label",)),
        (("shape", "colour"), {"answers": ["shape"]}, "classification", ("shape",)),
        (("shape", "colour"), {"parts": {"colour": "none"}}, "classification", ("shape",)),
        (("shape",), {"parts": {"shape": "text"}}, "retrieval", ()),
        (("shape",), {"parts": {"shape": "text"}, "task": "captioning"}, "captioning", ("shape",)),
    ],
)
def test_the_task_follows_from_the_columns_and_from_what_is_said(
    pictures: Path, columns: tuple[str, ...], options: dict[str, Any], task: str, answers: tuple[str, ...]
) -> None:
    _, recipe = made(pictures, written_csv(pictures / "a.csv", rows_of(*columns)), **options)
    assert (recipe.task.name, recipe.data.answers) == (task, answers)


@pytest.mark.parametrize("listed", [False, True])
def test_several_labels_in_a_cell_are_no_class_but_a_set_of_labels(pictures: Path, listed: bool) -> None:
    sets = (["red", "round"], ["blue"], ["blue", "round"], [])
    cells = [json.dumps(sets[n % 4]) if listed else "|".join(sets[n % 4]) or "|" for n in range(12)]
    table = written_csv(pictures / "a.csv", [["file", "tags"], *([row[0], cell] for row, cell in zip(rows_of()[1:], cells, strict=True))])
    result, recipe = made(pictures, table)
    assert (recipe.data.parts["tags"].modality, recipe.data.answers) == ("labels", ("tags",))
    assert "blue 6, round 6, red 3" in result.text
    assert "--part tags=category, if each of the 4 combinations is a class of its own" in result.text
    assert set(outline(recipe, Ledger()).needs.answers["tags"].labels) == {"red", "blue", "round"}


def test_labels_that_are_said_to_be_labels_are_answered(pictures: Path) -> None:
    assert made(pictures, written_csv(pictures / "a.csv", rows_of("tags")), parts={"tags": "labels"})[1].data.answers == ("tags",)


@pytest.mark.parametrize("said", [{}, {"words": "text", "file": "image"}])
def test_pictures_and_texts_that_come_twice_are_known_whoever_says_what_they_are(pictures: Path, said: dict[str, str]) -> None:
    texts = ["a red ring and a dot", "a blue ring and a dot"]
    table = written_csv(pictures / "a.csv", [["file", "words"], *([f"my pictures/图 {n // 2}.png", texts[n % 2]] for n in range(24))])
    _, recipe = made(pictures, table, parts=said)
    assert (recipe.task.name, recipe.data.split.group, recipe.evaluate.match) == ("retrieval", "file", "file")


def test_few_captions_of_several_words_are_texts_and_equal_ones_find_each_other(pictures: Path) -> None:
    result, recipe = made(pictures, written_csv(pictures / "a.csv", rows_of("caption")))
    assert (recipe.data.parts["caption"].modality, recipe.task.name, recipe.evaluate.match) == ("text", "retrieval", "caption")
    assert "--part caption=category, if each is a class" in result.text


def test_numbers_are_no_classes_and_sounds_with_what_is_said_are_written_down(tmp_path: Path) -> None:
    for number in range(12):
        medium(tmp_path / f"{number}.wav", "audio", number)
    rows = [{"audio": f"{n}.wav", "text": f"word {n} and more", "weight": n * 1.5} for n in range(12)]
    assert made(tmp_path, written_jsonl(tmp_path / "a.jsonl", rows))[1].task.name == "regression"
    spoken = written_jsonl(tmp_path / "b.jsonl", [{k: v for k, v in row.items() if k != "weight"} for row in rows])
    assert multitune.init(spoken, out=tmp_path / "b.yaml").text.count("task transcription") == 1


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        (("shape", "colour"), {}, "Say which: --answer shape"),
        (("label",), {"answers": ["lable"]}, 'Did you mean "label"?'),
        (("label",), {"answers": ["file"]}, "An answer is a category"),
        (("label",), {"task": "regression"}, "--part NAME=number"),
        (("label",), {"parts": {"lable": "text"}}, 'Did you mean "label"?'),
        ((), {}, "nothing to learn from"),
        (("label",), {"task": "captioning"}, "--part label=text for the column that is the answer"),
    ],
)
def test_what_could_be_two_things_or_none_is_asked_for(
    pictures: Path, columns: tuple[str, ...], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError) as told:
        made(pictures, written_csv(pictures / "a.csv", rows_of(*columns)), **options)
    assert said in str(told.value)
    assert not (pictures / "recipe.yaml").exists()


def test_a_column_of_one_value_is_told_with_the_value(pictures: Path) -> None:
    table = written_csv(pictures / "a.csv", [["file", "label"], *([row[0], "cat"] for row in rows_of()[1:])])
    with pytest.raises(DataError, match='label \\(not read: every row says "cat"\\)'):
        made(pictures, table)


def test_numbers_with_a_decimal_comma_are_no_texts_to_be_found(pictures: Path) -> None:
    table = written_csv(pictures / "a.csv", [["file", "price"], *([row[0], f"{n},5"] for n, row in enumerate(rows_of()[1:]))])
    with pytest.raises(DataError, match=r'price \(not read: numbers with a decimal comma, such as "0,5"\)'):
        made(pictures, table)


@pytest.mark.parametrize("mark", ["; ", ", "])
def test_cells_with_another_mark_between_labels_say_how_labels_are_written(pictures: Path, mark: str) -> None:
    sets = ("red", "blue", f"red{mark}round", f"blue{mark}round")
    table = written_csv(pictures / "a.csv", [["file", "tags"], *([row[0], sets[n % 4]] for n, row in enumerate(rows_of()[1:]))])
    assert "tags: write blue|round for" in made(pictures, table)[0].text


def test_an_unknown_task_is_named_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match='Did you mean "retrieval"'):
        multitune.init(tmp_path / "nowhere", task="retreival")


def test_paths_that_lead_nowhere_ask_for_their_root(pictures: Path) -> None:
    table = written_csv(pictures / "tables" / "a.csv", rows_of("label"))
    with pytest.raises(DataError, match="--root"):
        made(pictures, table)
    assert made(pictures, table, root=pictures)[1].data.source.options["root"] == pictures.as_posix()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["x/a.gif", "notes.txt"], r"holds nothing that can be read \(1 .gif, 1 .txt\)"),
        ([], "no files"),
        (["a.png", "b.png"], "nothing that says what they show"),
        (["x/a.png", "y/b.wav"], "side by side"),
        (["x/a.png", "x/b.png"], 'of one class, "x"'),
        (["a.csv", "b.csv"], "Name the one that is meant"),
    ],
)
def test_a_folder_that_cannot_be_read_in_one_way_is_refused_with_what_would_do(tmp_path: Path, files: list[str], said: str) -> None:
    (tmp_path / "data").mkdir()
    for number, name in enumerate(files):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in {".png", ".wav"}:
            medium(path, "image" if path.suffix == ".png" else "audio", number)
        else:
            path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=said):
        made(tmp_path, tmp_path / "data")


def test_lines_that_fit_two_separators_ask_which(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("a,b;c;d\n1,2;3;4\n5,6;7;8\n")
    with pytest.raises(DataError, match="--separator"):
        made(tmp_path, table)


def test_a_recipe_that_is_there_stays(pictures: Path) -> None:
    table = written_csv(pictures / "a.csv", rows_of("label"))
    first = made(pictures, table)[0].paths["recipe"]
    first.write_text("mine")
    with pytest.raises(UserError, match="--fresh"):
        made(pictures, table)
    made(pictures, table, fresh=True)
    assert (pictures / "recipe.yaml.old-1").read_text("utf-8") == "mine"


def test_missing_cells_are_counted_and_the_recipe_says_what_becomes_of_them(pictures: Path) -> None:
    rows = rows_of("label", "words")
    rows[3][2], rows[5][1] = "", ""
    result, recipe = made(pictures, written_csv(pictures / "a.csv", rows), parts={"words": "text"})
    assert result.text.count("missing in 1 of 12 rows") == 2
    assert (recipe.data.parts["words"].missing, recipe.data.parts["label"].missing) == ("mask", "drop")


def test_rows_that_share_a_picture_stay_in_one_split(pictures: Path) -> None:
    rows = rows_of()
    twice = [["file", "words"], *([row[0], f"a text {n} of its own"] for n, row in enumerate(rows[1:] * 2))]
    _, recipe = made(pictures, written_csv(pictures / "a.csv", twice))
    assert (recipe.data.split.group, recipe.evaluate.match) == ("file", "file")


def test_a_division_in_which_train_has_every_class_is_looked_for(pictures: Path) -> None:
    rows = [["file", "label"], *([row[0], "rare" if n < 2 else "often"] for n, row in enumerate(rows_of()[1:]))]
    result, recipe = made(pictures, written_csv(pictures / "a.csv", rows))
    assert outline(recipe, Ledger()).classes["label"]["train"].keys() == {"rare", "often"}
    assert "rare-classes" in {finding.code for finding in result.findings}


def test_files_that_cannot_be_opened_are_told(pictures: Path) -> None:
    (pictures / "my pictures" / "图 0.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    result, _ = made(pictures, written_csv(pictures / "a.csv", rows_of("label")))
    assert [(f.code, f.message.split(",")[0]) for f in result.findings] == [("unreadable", "1 of 12 looked at cannot be read")]


def test_tables_named_after_splits_are_the_splits(pictures: Path) -> None:
    for name in ("train", "test"):
        written_csv(pictures / "tables" / f"{name}.csv", rows_of("label"))
    _, recipe = made(pictures, pictures / "tables", root=pictures)
    assert recipe.data.source.options["path"].endswith("train.csv")
    assert recipe.data.split.sources["test"].options["path"].endswith("test.csv")
