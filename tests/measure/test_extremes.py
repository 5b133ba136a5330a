"""The worst and best rows, kept while all stream by."""

from __future__ import annotations

import math

import numpy as np
import pytest

from multitune.core.protocols import AnswerNeed, Category, Embedding, Labels, Needs, Number, Part, PartNeed, Prediction, Sample, Text
from multitune.core.randomness import generator
from multitune.measure.extremes import Extremes

PARTS = {"words": PartNeed("text"), "more": PartNeed("text")}


def kept_of(answer: object, truth: object, need: AnswerNeed) -> float:
    """How badly one row with this answer goes."""
    extremes = Extremes(Needs(PARTS, {"answer": need}))
    extremes.update(Sample("one", {"answer": Part(need.modality, truth)}), Prediction("one", {"answer": answer}))  # type: ignore[dict-item]
    return extremes.worst()[0].loss


def test_those_kept_are_those_that_sorting_all_rows_would_give() -> None:
    shares = generator("extremes").permutation(1000) / 1000
    extremes = Extremes(Needs(PARTS, {"kind": AnswerNeed("category", labels=("no", "yes"))}))
    for row, share in enumerate(shares.tolist()):
        sample = Sample(f"{row:04d}", {"kind": Part("category", "yes")})
        extremes.update(sample, Prediction(sample.id, {"kind": Category("yes", {"yes": share, "no": 1 - share})}))
    order = np.argsort(shares)
    assert [kept.sample.id for kept in extremes.worst()] == [f"{row:04d}" for row in order[:12]]
    assert [kept.sample.id for kept in extremes.best()] == [f"{row:04d}" for row in order[::-1][:6]]


def test_no_row_is_shown_twice_and_one_without_its_answer_not_at_all() -> None:
    extremes = Extremes(Needs(PARTS, {"size": AnswerNeed("number", deviation=2.0)}))
    for row in range(5):
        parts = {"size": Part("number", 1.0)} if row else {}
        extremes.update(Sample(str(row), parts), Prediction(str(row), {"size": Number(1.0 + row)}))
    assert [kept.sample.id for kept in extremes.worst()] == ["4", "3", "2", "1"]
    assert extremes.best() == []


def test_how_badly_a_row_goes_follows_its_answer() -> None:
    assert kept_of(Category("a", {"a": 0.75, "b": 0.25}), "b", AnswerNeed("category")) == pytest.approx(math.log(4))
    assert kept_of(Category("a", {"a": 1.0}), "unknown", AnswerNeed("category")) == pytest.approx(-math.log(1e-12))
    assert kept_of(Number(5.0), 2.0, AnswerNeed("number", deviation=1.5)) == 2.0
    assert kept_of(Labels(("a",), {"a": 0.5, "b": 0.25}), ("a",), AnswerNeed("labels")) == pytest.approx((math.log(2) - math.log(0.75)) / 2)
    assert kept_of(Text("a red ring", 0.0), "a blue ring", AnswerNeed("text")) == pytest.approx(1 / 3)
    assert kept_of(Text("红色", 0.0), "红圈", AnswerNeed("text")) == 0.5


def test_a_model_that_embeds_does_worst_where_a_row_s_parts_lie_apart() -> None:
    extremes = Extremes(Needs(PARTS, {}))
    for row, turn in enumerate((0.0, 1.0, 2.0)):
        turned = Embedding(np.array([math.cos(turn), math.sin(turn)], np.float32))
        extremes.update(Sample(str(row), {}), Prediction(str(row), {"words": Embedding(np.array([1, 0], np.float32)), "more": turned}))
    assert [round(kept.loss, 4) for kept in extremes.worst()] == [round(1 - math.cos(turn), 4) for turn in (2.0, 1.0, 0.0)]
