"""Thresholds of labels: the best F1 on the validation split, kept in the artifact, used by whatever opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

import multitune
from multitune.core.errors import RecipeError
from multitune.core.randomness import generator
from multitune.measure.thresholds import HALF, best
from tests.data.plain import picture_table


def test_the_threshold_is_that_of_the_highest_f1_of_all() -> None:
    random = generator("thresholds")
    for _ in range(20):
        true = random.random(40) < 0.3
        scores = np.round(random.random(40) * 0.5 + 0.2 * true, 2).astype(np.float32)
        chosen = best(scores, true)
        reached = f1_score(true, scores >= chosen)
        assert reached == pytest.approx(max(f1_score(true, scores >= edge) for edge in np.unique(scores)))
        assert chosen not in scores


def test_of_equally_good_thresholds_the_nearest_to_a_half_is_taken() -> None:
    true = np.array([True, True, False, False])
    assert best(np.array([0.9, 0.7, 0.4, 0.1], np.float32), true) == pytest.approx(0.55)
    assert best(np.array([0.3, 0.2, 0.1, 0.1], np.float32), true) == pytest.approx(0.15)


def test_a_label_that_no_row_has_keeps_a_half() -> None:
    assert best(np.array([0.9, 0.1], np.float32), np.array([False, False])) == HALF


def recipe(tmp_path: Path, **evaluate: Any) -> dict[str, Any]:
    """A recipe over pictures with labels of which one is rare."""
    table = picture_table(tmp_path, 48, tags=lambda number: "|".join(["often", *(["rare"] if number % 4 == 0 else [])]))
    data = {"source": {"name": "table", "path": str(table)}, "parts": {"image": "image", "tags": "labels"}, "answers": ["tags"]}
    made = {"name": "x", "task": "classification", "data": data | {"split": {"train": 0.5, "valid": 0.25, "test": 0.25}}}
    made["model"] = {"name": "fusion_encoder", "towers": {"image": "tiny/image"}}
    made["train"] = {"steps": 2, "batch_size": 8, "threads": 1, "workers": 0}
    return made | {"evaluate": {"intervals": 0, "baselines": False} | evaluate}


@pytest.mark.line
def test_what_was_chosen_on_valid_is_kept_in_the_artifact_and_used_by_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = multitune.train(recipe(tmp_path, thresholds="valid"), run=run)
    (told,) = [one for one in result.findings if one.code == "thresholds-chosen"]
    artifact = multitune.load(run)
    chosen = artifact.facts.thresholds["tags"]
    assert told.evidence["thresholds"] == chosen
    assert set(chosen) == {"often", "rare"}
    assert chosen["rare"] != HALF
    again = multitune.evaluate(run).figures
    assert again["test/micro_f1"] == result.figures["test/micro_f1"]
    given = artifact.predict({"image": str(next(tmp_path.rglob("*.png")))}).answers["tags"]
    assert given.value == tuple(label for label, score in given.scores.items() if score >= chosen[label])
    with pytest.raises(RecipeError, match=r"override evaluate\.thresholds: has no effect on a model that is trained already"):
        multitune.evaluate(run, overrides=["evaluate.thresholds=half"])


def test_thresholds_for_a_category_are_refused_by_the_plan(tmp_path: Path) -> None:
    made = recipe(tmp_path, thresholds="valid")
    made["data"] |= {"parts": {"image": "image", "label": "category"}, "answers": ["label"]}
    with pytest.raises(RecipeError, match=r"evaluate\.thresholds: no answer is one of labels"):
        multitune.plan(made)


def test_thresholds_without_a_validation_split_are_refused_by_the_plan(tmp_path: Path) -> None:
    made = recipe(tmp_path, thresholds="valid")
    made["data"]["split"] = {"train": 0.7, "valid": 0.0, "test": 0.3}
    with pytest.raises(RecipeError, match=r"evaluate\.thresholds: the validation split is empty"):
        multitune.plan(made)
