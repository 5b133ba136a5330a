"""Recipes: what is read, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multitune.core.errors import RecipeError
from multitune.core.notation.yaml import parse_yaml
from multitune.core.recipe import differences, make_recipe, read_recipe, steps_of


def small(**changes: Any) -> dict[str, Any]:
    data = {"source": "digits", "parts": {"image": "image", "label": "category"}, "answers": ["label"]}
    return {"name": "x", "task": "classification", "data": data} | changes


def test_a_component_may_be_just_its_name() -> None:
    recipe = make_recipe(small(strategy="lora"))
    assert recipe.strategy == make_recipe(small(strategy={"name": "lora"})).strategy


def test_an_override_turns_a_short_component_into_one_with_options() -> None:
    recipe = make_recipe(small(strategy="lora"), ["strategy.rank=4", "data.parts.image.column=scan"])
    assert recipe.strategy.options == {"rank": 4}
    assert recipe.data.parts["image"].column == "scan"


def test_yaml_is_1_2_core() -> None:
    found = parse_yaml("rate: 1e-4\ncountry: no\nday: 2020-01-01\n", where="x")
    assert found == {"rate": 1e-4, "country": "no", "day": "2020-01-01"}


def test_the_request_holds_only_what_was_stated() -> None:
    assert "train" not in make_recipe(small()).request()
    assert make_recipe(small(), ["train.lr=0.1"]).request()["train"] == {"lr": 0.1}


def test_the_same_request_has_the_same_hash_in_whatever_order_it_is_written() -> None:
    one = small()
    other = dict(reversed(list(small().items())))
    assert make_recipe(one).request_hash() == make_recipe(other).request_hash()
    assert make_recipe(one).request_hash() != make_recipe(one, ["seed=1"]).request_hash()


@pytest.mark.parametrize(
    ("overrides", "where", "words"),
    [
        (["train.lrr=3"], "train.lrr", 'Did you mean "lr"?'),
        (["dta.source=x"], "dta", 'Did you mean "data"?'),
        (["train.lr=fast"], "train.lr", "valid number"),
        (["train.lr"], "override", "key=value"),
        (["data.split.train=0.5"], "data.split", "should be 1"),
        (["data.answers=[colour]"], "data", 'the answer "colour" is no part'),
        (["train.warmup=x%"], "train.warmup", '"50%"'),
        (["name=../up"], "name", "letters, digits"),
        (["train.early_stop={patience: 3}"], "train.early_stop.metric", "missing"),
        (["data.split={column: split, train: 0.1}"], "data.split", "train would have no effect"),
        (["data.split={column: split, sources: {test: digits}}"], "data.split", "exclude each other"),
        (["data.split={test: 0.5, sources: {test: digits}}"], "data.split", "test has a source of its own"),
        (["data.parts.label={modality: category, augment: [flip]}"], "data", "never augmented"),
        (["data.answers.x=1"], "data.answers.x", "none of them"),
        (["data.answers.5=label"], "data.answers.5", "1 entries"),
        (["data.answers.²=label"], "data.answers.²", "none of them"),
        (["train.lr=.inf"], "train.lr", "finite"),
        (["train.epochs=.inf"], "train.epochs", "finite"),
        (["train.epochs=1e300"], "train.epochs", "1000000"),
        (["strategy=[{pattern: head, rate: .inf}]"], "strategy.0.rate", "finite"),
        (["strategy={name: full, head_rate: .nan}"], "strategy.head_rate", "finite"),
        (["train.trackers=[{name: mlflow, uri: 'http://me:hunter2@host'}]"], "train.trackers.0.uri", "MLFLOW_TRACKING_PASSWORD"),
        (["train.betas=[1.5, 2]"], "train.betas.0", "less than 1"),
        (["train.steps=10", "train.epochs=3"], "train", "train: epochs 3 and steps 10 are both stated"),
        (["train.schedule=constant", "train.decay=50%"], "train", "has no decay"),
        (["data.parts=[image]"], "data.parts", "such as {image: image, label: category}"),
        (["data.answers=label"], "data.answers", "Give a list, such as [a]"),
        (["data=rows.csv"], "data", "data.source.path=rows.csv"),
        (["train=5"], "train", "found 5. Give a mapping"),
        (["train.early_stop={metric: test/accuracy}"], "train.early_stop.metric", "such as valid/accuracy"),
        (["train.plateau={metric: loss}"], "train.plateau.metric", "such as valid/loss"),
        (["train.micro_batch=64"], "train", "more than the batch_size of 32"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_would_do(overrides: list[str], where: str, words: str) -> None:
    with pytest.raises(RecipeError) as told:
        make_recipe(small(), overrides)
    assert where in str(told.value)
    assert words in str(told.value)
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2\n", "line 2"),
        ("a: {b: 1}\na: {b: 2}\n", r'found the duplicate key "a"\. Keep one'),
        ("a: &x [1]\nb: *x\n", "alias"),
        ("a: !!python/object/apply:os.system [touch canary]\n", "tag"),
        ("a: [1\n", "line"),
        ("[" * 60 + "]" * 60, "nested"),
    ],
)
def test_yaml_that_is_damaged_or_dangerous_is_refused(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        parse_yaml(text, where="recipe.yaml")


@pytest.mark.parametrize("word", ["0", "null"])
def test_an_override_takes_the_place_of_what_it_excludes(word: str) -> None:
    steps = make_recipe(small(train={"steps": 10}), ["train.epochs=2", f"train.steps={word}"])
    assert (steps.train.steps, steps.train.epochs) == (0, 2.0)
    epochs = make_recipe(small(train={"epochs": 2}), ["train.epochs=null", "train.steps=10"])
    assert epochs.request()["train"] == {"steps": 10}


def test_a_file_that_is_not_there_too_large_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such file"):
        read_recipe(tmp_path / "missing.yaml")
    with pytest.raises(RecipeError, match=r"is a folder, not a recipe.*multitune init"):
        read_recipe(tmp_path)
    with pytest.raises(RecipeError, match=r"is a table, not a recipe.*multitune init"):
        read_recipe(tmp_path / "rows.csv")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (1 << 21))
    with pytest.raises(RecipeError, match="bytes"):
        read_recipe(large)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(RecipeError, match="UTF-8"):
        read_recipe(binary)


@pytest.mark.parametrize("value", ["builtins.exec", "os.system\nimport os", "../../etc", "{{7*7}}", "$(touch canary)"])
def test_a_component_name_is_only_ever_looked_up(value: str, tmp_path: Path) -> None:
    from multitune.core import catalog
    from multitune.core.errors import PluginError

    with pytest.raises(PluginError, match="not known"):
        catalog.find("loss", value)


def test_differences_name_every_changed_value() -> None:
    assert list(differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}, "d": 4})) == ["b.c: 2 -> 3", "d: not stated -> 4"]


@pytest.mark.parametrize(("value", "steps"), [(7, 7), ("50%", 5), ("0%", 0), ("100%", 10)])
def test_steps_are_a_count_or_a_share(value: int | str, steps: int) -> None:
    assert steps_of(value, total=10) == steps


@pytest.mark.parametrize("name", ["/tmp/elsewhere", "../up", "a.b", "a/b", "", "1st", "id", "cause", "a" * 65, "two words"])
def test_a_part_is_called_by_a_name_and_not_by_a_path(name: str) -> None:
    with pytest.raises(RecipeError, match="part"):
        make_recipe({"name": "x", "task": "classification", "data": {"source": "digits", "parts": {name: "image"}}})


def test_a_part_may_be_called_by_a_name_in_any_script() -> None:
    made = make_recipe(
        {"name": "x", "task": "classification", "data": {"source": "digits", "parts": {"图片": "image", "left-camera_2": "image"}}}
    )
    assert list(made.data.parts) == ["图片", "left-camera_2"]


def test_what_binds_speed_may_change_when_a_run_goes_on_and_nothing_else() -> None:
    def hashed(**train: object) -> str:
        data = {"source": "digits", "parts": {"image": "image"}, "max_loss": train.pop("max_loss", 0.01)}
        return make_recipe({"name": "x", "task": "classification", "data": data, "train": train}).request_hash()

    assert len({hashed(), hashed(workers=1), hashed(prefetch=3), hashed(checkpoint_every=7, keep=4), hashed(max_loss=0.2)}) == 1
    assert len({hashed(), hashed(lr=1e-3), hashed(threads=1), hashed(evaluate_every=7)}) == 4


def test_an_override_takes_the_place_of_what_excludes_it_in_the_file_and_two_in_the_file_are_refused() -> None:
    file = small(train={"epochs": 3})
    assert (make_recipe(file, ["train.steps=10"]).train.steps, make_recipe(file, ["train.steps=10"]).train.given("epochs")) == (10, False)
    assert make_recipe(small(train={"steps": 5}), ["train.epochs=2"]).train.steps == 0
    split = small()
    split["data"] = split["data"] | {"split": {"train": 0.5, "valid": 0.2, "test": 0.3}}
    assert make_recipe(split, ["data.split.column=part"]).data.split.column == "part"
    for both in (small(train={"epochs": 3, "steps": 5}),):
        with pytest.raises(RecipeError, match="leave one out"):
            make_recipe(both)
    with pytest.raises(RecipeError, match="leave one out"):
        make_recipe(file, ["train.steps=10", "train.epochs=2"])
