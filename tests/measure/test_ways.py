"""Which way a figure is better: as its metric says, for controls, choices and comparisons alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from multitune.core import catalog
from multitune.core.protocols import AnswerNeed, Figure, Metric, Needs, Number, Prediction, Sample
from multitune.core.protocols import Part as Value
from multitune.core.recipe import EvaluateSpec
from multitune.measure.tally import Question, Tally, questions, way

NEEDS = {
    "number": AnswerNeed(modality="number", mean=0.0, deviation=1.0),
    "category": AnswerNeed(modality="category", labels=("a", "b")),
}


def asked(modality: str, *metrics: Any) -> tuple[Question, ...]:
    answers = {"answer": NEEDS[modality]} if modality else {}
    preset: Any = SimpleNamespace(metrics={})
    return tuple(questions(EvaluateSpec(metrics=metrics), preset, Needs(parts={}, answers=answers)))


@pytest.mark.parametrize(
    ("modality", "metrics", "figure", "better"),
    [
        ("number", ["regression"], "valid/mae", "lower"),
        ("number", ["regression"], "valid/r2", "higher"),
        ("", ["retrieval"], "valid/a_to_b/r_at_5", "higher"),
        ("", ["retrieval"], "valid/a_to_b/median_rank", "lower"),
        ("category", ["calibration", "classification"], "valid/ece", "lower"),
        ("category", ["calibration", "classification"], "valid/slice/far=x/accuracy", "higher"),
        ("category", ["calibration", "classification"], "valid/loss/answer", "lower"),
    ],
)
def test_a_figure_is_better_as_its_metric_says(modality: str, metrics: list[str], figure: str, better: str) -> None:
    assert way(asked(modality, *metrics), figure) == better


class Distance(Metric):
    """A metric of another package, whose names say nothing."""

    primary = "hausdorff"
    better = "lower"

    def update(self, prediction: Prediction, truth: Mapping[str, Any]) -> None:
        """Nothing."""

    def compute(self, *, draws: int, seed: int) -> Iterator[Figure]:
        """One figure."""
        yield Figure("hausdorff", 1.0, 1.0, 1.0, drawn=False)


def test_a_metric_of_another_package_is_believed_where_the_name_says_nothing() -> None:
    module = SimpleNamespace(
        Options=catalog.Options, SERVES=("number",), build=lambda _options, _answer, _need: Distance(), __doc__="Distance."
    )
    catalog.register("metric", "far", module)
    found = asked("number", "far")
    assert [way(found, name) for name in ("valid/hausdorff", "valid/chamfer", "valid/loss")] == ["lower"] * 3
    assert way(asked("number", "far", "regression"), "valid/r2") == "higher"


def test_models_are_compared_by_each_figure_its_own_way() -> None:
    tally = Tally(asked("number", "regression"))
    for number in range(4):
        tally.update(Sample(str(number), {"answer": Value("number", float(number))}), Prediction(str(number), {"answer": Number(0.5)}))
    assert {name: better for name, (_, better) in tally.by_row().items()} == {"mae": "lower", "r2": "higher"}
    assert {named.name: named.better for named in tally.figures(draws=0, seed=0)} == {"mae": "lower", "r2": "higher"}
