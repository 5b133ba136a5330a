"""Sets of labels, from a cell to a prediction that comes back from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from multitune.core import catalog
from multitune.core.errors import DataError
from multitune.core.ledger import Ledger
from multitune.core.protocols import Labels, Prediction
from multitune.core.recipe import make_recipe
from multitune.data.decode import BadPart, modality
from multitune.data.plan import Outline, outline
from multitune.deliver.golden import distance, plain
from multitune.models.load import Weights
from multitune.models.predictor import Forgetful, Predictor
from multitune.models.predictor import plain as as_data
from multitune.verbs.plan import as_recipe

ROWS = [{"text": f"row {n}", "tags": cell, "size": float(n)} for n, cell in enumerate(["a|b", '["b"]', "|", "[]", ["c", "a"], "a"] * 8)]


def read(rows: list[dict[str, Any]] = ROWS, **data: Any) -> Outline:
    parts = {"text": "text", "tags": "labels"}
    source = {"name": "rows", "rows": rows}
    asked = {"name": "x", "task": "classification", "data": {"source": source, "parts": parts, "answers": ["tags"], **data}}
    return outline(make_recipe(as_recipe(asked).model_dump(exclude_unset=True)), Ledger())


@pytest.mark.parametrize(
    ("cell", "labels"),
    [("b|a|b", ("a", "b")), (' ["b", "a|c"]', ("a|c", "b")), ("|", ()), ("[]", ()), (("x",), ("x",)), (["y", "x"], ("x", "y"))],
)
def test_a_cell_names_labels_in_words_or_as_a_list(cell: object, labels: tuple[str, ...]) -> None:
    assert modality("labels").decode(cell) == labels


@pytest.mark.parametrize("cell", ["[1]", "[a", 3, [""]])
def test_what_is_no_set_of_labels_is_refused(cell: object) -> None:
    with pytest.raises(ValueError, match=r"label|JSON list"):
        modality("labels").decode(cell)


def test_what_the_data_need_are_all_labels_of_train_and_how_often_each_is_there() -> None:
    data = read()
    counts = dict(data.classes["tags"]["train"])
    need = data.needs.answers["tags"]
    assert (need.modality, need.labels, need.counts) == ("labels", ("a", "b", "c"), tuple(counts[name] for name in "abc"))
    assert sum(sum(split.values()) for split in data.classes["tags"].values()) == 8 * 6


def test_a_label_that_train_lacks_is_refused() -> None:
    rows = [{**row, "split": "train"} for row in ROWS] + [{"text": "t", "tags": "z", "split": "test"}]
    with pytest.raises(DataError, match='the class "z" is in test'):
        read(rows, split={"column": "split"})


def family(data: Outline) -> Any:
    plugin = catalog.find("family", "fusion_encoder", {"towers": {"text": "tiny/text"}})
    return plugin.build(data.needs, Weights(seed=1))


def test_a_batch_holds_ones_where_labels_are_there_and_its_rows_are_answered_by_label() -> None:
    data = read()
    made, train = family(data), data.examples["train"]
    samples = [train.sample(place) for place in range(6)]
    batch = made.preparer.collate([made.preparer.prepare(one, Forgetful()) for one in samples])
    truths = [one.parts["tags"].value for one in samples]
    expected = torch.tensor([[float(label in truth) for label in "abc"] for truth in truths])
    assert torch.equal(batch.answers["tags"], expected)
    logits = made(batch).logits["tags"]
    for row, prediction in zip(logits.detach().double().sigmoid().tolist(), Predictor(made).predict(samples), strict=True):
        given = prediction.answers["tags"]
        assert isinstance(given, Labels)
        assert given.value == tuple(label for label, score in given.scores.items() if score >= 0.5)
        assert list(given.scores.values()) == pytest.approx(row, abs=1e-6)


def test_a_label_that_the_model_does_not_know_is_named() -> None:
    made = family(read())
    sample = read().examples["train"].sample(0)
    strange = {**sample.parts, "tags": replace(sample.parts["tags"], value=("a", "zebra"))}
    with pytest.raises(BadPart, match='"zebra" is no class of the training data'):
        made.preparer.prepare(replace(sample, parts=strange), Forgetful())


def test_a_prediction_of_labels_is_plain_data_and_differences_are_those_of_scores() -> None:
    one = Labels(("a",), {"a": 0.7, "b": 0.2})
    other = Labels(("a",), {"a": 0.6, "b": 0.25})
    written: Mapping[str, Any] = json.loads(json.dumps(plain(one)))
    assert written == {"kind": "labels", "value": ["a"], "scores": {"a": 0.7, "b": 0.2}}
    assert as_data(Prediction("1", {"x": one}))["answers"]["x"] == written
    assert distance(Prediction("1", {"x": one}), Prediction("1", {"x": other})) == pytest.approx(0.1)


def test_labels_come_back_from_an_artifacts_golden_rows(tmp_path: Path) -> None:
    from multitune.deliver import golden

    data = read()
    made = family(data)
    samples = [data.examples["train"].sample(place) for place in range(2)]
    golden.write(tmp_path, samples, Predictor(made))
    again = list(golden.read(tmp_path))
    assert [distance(prediction, Predictor(made).predict([sample])[0]) for sample, prediction in again] == [0.0, 0.0]
