"""Two models on the same rows: their differences, and what may not be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from multitune.core.errors import ArtifactError, DataError
from multitune.core.ledger import Ledger
from multitune.core.protocols import AnswerNeed, Needs, Part, PartNeed, Prediction, Sample
from multitune.core.recipe import EvaluateSpec
from multitune.measure.compare import Side, compare, text
from multitune.measure.evaluator import Evaluator
from tests.measure.test_evaluator import CLASSES, CLASSIFY, ONE, PARTS, QUICK, RETRIEVE, Comparer, Embedder, Rows, broken, pairs


def side(rows: Rows, predictor: Comparer | Embedder, needs: Needs = ONE, ledger: Ledger | None = None) -> Side:
    evaluator = Evaluator(QUICK, CLASSIFY if needs.answers else RETRIEVE, needs, ledger=ledger or Ledger())
    return Side(evaluator, rows, lambda: predictor)


@dataclass
class Sloppy(Comparer):
    """Says no, wrongly or not, in every fifth row that the careful one would answer with yes."""

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        careful = super().predict(samples)
        return [Prediction(one.id, {"same": replace(one.answers["same"], value="no")}) if int(one.id) % 5 == 1 else one for one in careful]


def test_the_figures_of_both_stand_beside_their_difference() -> None:
    rows = pairs(300)
    report = compare(side(rows, Comparer(ONE)), side(rows, Sloppy(ONE)))
    for variant, predictor in (("", Comparer(ONE)), ("against/", Sloppy(ONE))):
        alone = Evaluator(QUICK, CLASSIFY, ONE).evaluate(predictor, rows).figures
        for end in ("", "/low", "/high"):
            assert report.figures[f"test/{variant}accuracy{end}"] == alone[f"test/accuracy{end}"]
    apart = {end: report.figures[f"test/accuracy/difference{end}"] for end in ("", "/low", "/high", "/chance", "/mcnemar")}
    assert apart[""] == pytest.approx(report.figures["test/accuracy"] - report.figures["test/against/accuracy"])
    assert 0 < apart["/low"] < apart[""] < apart["/high"]
    assert max(apart["/chance"], apart["/mcnemar"]) < 0.02
    assert "test/macro_f1/difference" in report.figures
    assert [(one.code, one.where) for one in report.findings] == [("surely-better", "test/accuracy")]


def test_the_other_way_round_has_the_opposite_sign() -> None:
    rows = pairs(300)
    report = compare(side(rows, Sloppy(ONE)), side(rows, Comparer(ONE)))
    forth = compare(side(rows, Comparer(ONE)), side(rows, Sloppy(ONE)))
    assert report.figures["test/accuracy/difference/high"] == pytest.approx(-forth.figures["test/accuracy/difference/low"])
    assert [one.code for one in report.findings] == ["surely-worse"]


def test_a_model_against_itself_is_not_surely_apart() -> None:
    rows = pairs(120)
    report = compare(side(rows, Comparer(ONE)), side(rows, Comparer(ONE)))
    assert report.figures["test/accuracy/difference"] == 0
    assert report.figures["test/accuracy/difference/low"] < 0 < report.figures["test/accuracy/difference/high"]
    assert [one.code for one in report.findings] == ["no-sure-difference"]


def test_rows_meet_by_their_ids_whatever_their_order() -> None:
    rows = pairs(900)  # more than a chunk
    turned = Rows(list(reversed(rows.samples)))
    straight = compare(side(rows, Comparer(ONE)), side(rows, Sloppy(ONE)))
    assert compare(side(rows, Comparer(ONE)), side(turned, Sloppy(ONE))).figures == straight.figures


def test_a_row_that_either_cannot_read_counts_for_neither() -> None:
    rows, ledger = pairs(100), Ledger()
    one, other = broken(rows, (3, 50)), broken(rows, (50, 99))
    report = compare(side(one, Comparer(ONE), ledger=ledger), side(other, Sloppy(ONE), ledger=ledger))
    assert (report.figures["test/rows"], report.figures["test/rows_lost"]) == (97, 3)
    kept = Rows([sample for place, sample in enumerate(rows.samples) if place not in (3, 50, 99)])
    assert (
        report.figures["test/accuracy/difference"]
        == compare(side(kept, Comparer(ONE)), side(kept, Sloppy(ONE))).figures["test/accuracy/difference"]
    )
    assert {record.id for record in ledger.records()} == {"3", "50", "99"}


def test_the_two_may_read_different_parts() -> None:
    rows, needs = pairs(200), Needs({"left": PartNeed("text")}, {"same": CLASSES})
    report = compare(side(rows, Comparer(ONE)), side(rows, Comparer(needs, reads=("left",)), needs))
    assert report.figures["test/accuracy/difference/low"] > 0.2


def test_retrieval_is_compared_in_every_direction() -> None:
    needs = Needs(PARTS, {})
    rows = Rows([Sample(str(i), {name: Part("text", "abcd"[i % 4]) for name in PARTS}) for i in range(40)])
    figures = compare(side(rows, Embedder(needs), needs), side(rows, Embedder(needs), needs)).figures
    assert figures["test/left_to_right/r_at_1/difference"] == figures["test/right_to_left/median_rank/difference"] == 0


def test_the_text_has_a_line_for_each_figure() -> None:
    rows = pairs(200)
    lines = text(compare(side(rows, Comparer(ONE)), side(rows, Sloppy(ONE)))).splitlines()
    assert lines[0] == "test: 200 rows"
    assert lines[1].split() == ["figure", "this", "against", "difference", "low", "high", "chance", "mcnemar"]
    assert [line.split()[0] for line in lines[2:]] == ["accuracy", "macro_f1"]


class Untouched:
    """A predictor that may not be made."""

    def __call__(self) -> Comparer:
        raise AssertionError("was made")


def refused(one: Rows, other: Rows, needs: Needs = ONE, others: Needs = ONE) -> str:
    sides = [Side(Evaluator(EvaluateSpec(), CLASSIFY, each), rows, Untouched()) for each, rows in ((needs, one), (others, other))]
    with pytest.raises((ArtifactError, DataError)) as error:
        compare(*sides)
    return str(error.value)


def test_other_rows_are_refused_before_either_is_asked() -> None:
    found = refused(pairs(20), Rows([*pairs(20).samples[2:], *pairs(5, source="x").samples]))
    assert found.startswith('--against: their rows differ: 2 only in one, such as "0", 5 only in the other, such as "x0".')


def test_another_truth_is_refused_with_its_row() -> None:
    rows = pairs(20)
    turned = [replace(one, parts={**one.parts, "same": Part("category", "no")}) if one.id == "7" else one for one in rows.samples]
    truth = rows.samples[7].parts["same"].value
    assert truth == "yes"
    assert 'row 7 has two truths of "same": "yes" and "no".' in refused(rows, Rows(turned))


def test_other_answers_and_other_labels_are_refused() -> None:
    rows = pairs(20)
    number = Needs(PARTS, {"same": AnswerNeed("number")})
    wider = Needs(PARTS, {"same": AnswerNeed("category", labels=("maybe", "no", "yes"))})
    assert 'only one of the two knows 1 labels of "same", such as "maybe".' in refused(rows, rows, others=wider)
    assert "one answers same (category), the other same (number)." in refused(rows, rows, others=number)
