"""BLEU, exact match and mentions: against sacrebleu itself and against counts made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import sacrebleu

from multitune.core import catalog
from multitune.core.errors import DataError, PluginError
from multitune.core.protocols import AnswerNeed, Figure, Prediction, Text
from multitune.core.randomness import generator

WORDS = ["the", "picture", "shows", "a", "red", "blue", "green", "star", "ring", "moon", "on", "dark", "ground"]


def measured(metric: Any, rows: Sequence[tuple[str, dict[str, str]]], draws: int = 50) -> dict[str, Figure]:
    for place, (said, truth) in enumerate(rows):
        metric.update(Prediction(str(place), {"caption": Text(said, -1.0)}), truth)
    return {figure.name: figure for figure in metric.compute(draws=draws, seed=7)}


def built(name: str, **options: Any) -> Any:
    return catalog.find("metric", name, options).build("caption", AnswerNeed("text"))


def sentences(count: int, seed: int) -> list[str]:
    random = generator("sentences", seed)
    return [" ".join(random.choice(WORDS, size=random.integers(1, 9))) for _ in range(count)]


def test_bleu_equals_sacrebleu_on_the_corpus() -> None:
    said, true = sentences(40, 1), sentences(40, 2)
    said[:20] = true[:20]
    figures = measured(built("text"), [(a, {"caption": b}) for a, b in zip(said, true, strict=True)])
    assert figures["bleu"].value == pytest.approx(sacrebleu.corpus_bleu(said, [true]).score, abs=1e-9)


def test_a_bootstrap_draw_of_bleu_is_the_bleu_of_the_drawn_sentences() -> None:
    from multitune.measure.metrics.text import _bleu

    said, true = sentences(12, 3), sentences(12, 4)
    said[:6] = true[:6]
    metric = built("text")
    measured(metric, [(a, {"caption": b}) for a, b in zip(said, true, strict=True)])
    drawn = generator("draw", 0).integers(12, size=12)
    sums = np.asarray(metric._rows)[drawn].sum(0, keepdims=True)
    expected = sacrebleu.corpus_bleu([said[i] for i in drawn], [[true[i] for i in drawn]]).score
    assert _bleu(sums)[0] == pytest.approx(expected, abs=1e-9)


def test_the_interval_of_bleu_holds_its_value_and_is_drawn_alike_twice() -> None:
    rows = [(a, {"caption": b}) for a, b in zip(sentences(20, 5), sentences(20, 5)[::-1], strict=True)]
    first, second = measured(built("text"), rows)["bleu"], measured(built("text"), rows)["bleu"]
    assert first == second
    assert first.low <= first.value <= first.high


def test_an_empty_answer_scores_nothing() -> None:
    figures = measured(built("text"), [("", {"caption": "a red star"})])
    assert figures["bleu"].value == 0
    assert figures["exact_match"].value == 0


def test_exact_match_looks_past_white_space_only() -> None:
    rows = [("a  star ", "a star"), ("A star", "a star"), ("a star.", "a star"), ("a star", "a star")]
    assert measured(built("text"), [(a, {"caption": b}) for a, b in rows])["exact_match"].value == 0.5


def test_rows_without_the_answer_are_not_counted() -> None:
    assert measured(built("text"), [("a star", {}), ("a star", {"caption": "a star"})])["exact_match"].value == 1
    assert not measured(built("text"), [("a star", {})])


SHAPES = [
    ("a red star", "star", "red", True, True),
    ("a Red, star!", "star", "red", True, True),
    ("a red ring", "star", "red", False, True),
    ("a red star and a ring", "star", "red", False, True),
    ("a redder starling", "star", "red", False, False),
    ("a blue ring", "ring", "blue", True, True),
    ("ring", "ring", "blue", True, False),
]


def test_mentions_counts_the_right_word_alone() -> None:
    rows = [(said, {"shape": shape, "colour": colour}) for said, shape, colour, _, _ in SHAPES]
    figures = measured(built("mentions", columns=["shape", "colour"]), rows)
    assert figures["shape"].value == pytest.approx(np.mean([row[3] for row in SHAPES]))
    assert figures["colour"].value == pytest.approx(np.mean([row[4] for row in SHAPES]))
    assert figures["shape_and_colour"].value == pytest.approx(np.mean([row[3] and row[4] for row in SHAPES]))


def test_a_value_of_several_words_is_not_taken_for_one_of_its_words() -> None:
    rows = [("a light blue star", {"colour": "light blue"}), ("a blue star", {"colour": "blue"}), ("light blue", {"colour": "blue"})]
    assert measured(built("mentions", columns=["colour"]), rows)["colour"].value == pytest.approx(2 / 3)


def test_one_column_gives_one_figure() -> None:
    assert set(measured(built("mentions", columns=["shape"]), [("star", {"shape": "star"})])) == {"shape"}


def test_a_value_with_signs_of_a_pattern_is_taken_literally() -> None:
    assert measured(built("mentions", columns=["grade"]), [("a c++ b", {"grade": "c++"}), ("a", {"grade": "a."})])["grade"].value == 0.5


def test_a_column_that_no_row_has_is_named_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r'no row has the column "shap".*Did you mean "shape"'):
        measured(built("mentions", columns=["shap"]), [("star", {"shape": "star"})])


def test_mentions_needs_a_column() -> None:
    with pytest.raises(PluginError):
        built("mentions", columns=[])
