"""The evaluator: figures of every row that can be read, under their names, with what stands beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from multitune.core.errors import DataError, LossBudgetError, NonFiniteError, PluginError, RecipeError
from multitune.core.ledger import Ledger
from multitune.core.protocols import AnswerNeed, Category, Embedding, Needs, Number, Part, PartNeed, Prediction, Sample, TaskPreset
from multitune.core.randomness import generator
from multitune.core.recipe import EvaluateSpec
from multitune.core.tasks import classification, retrieval
from multitune.data.decode import BadPart
from multitune.measure.evaluator import Evaluator

PARTS = {"left": PartNeed("text"), "right": PartNeed("text")}
CLASSES = AnswerNeed("category", labels=("no", "yes"), counts=(30, 10))
ONE = Needs(PARTS, {"same": CLASSES})
CLASSIFY = classification.build(classification.Options())
RETRIEVE = retrieval.build(retrieval.Options())
QUICK = EvaluateSpec(intervals=200)


@dataclass
class Rows:
    """Samples in memory."""

    samples: Sequence[Sample]

    @property
    def ids(self) -> list[str]:
        return [sample.id for sample in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def sample(self, index: int) -> Sample:
        return self.samples[index]

    def column(self, name: str) -> list[str | None]:
        return [str(one.parts[name].value) if name in one.parts else one.columns.get(name) for one in self.samples]


@dataclass
class Comparer:
    """A predictor by rule: whether its two texts are equal; `reads` are the parts that it looks at, others count as equal.

    A text that is empty cannot be read. `seen` has every sample that it was asked about.
    """

    needs: Needs
    reads: tuple[str, ...] = ("left", "right")
    seen: list[Sample] = field(default_factory=list)

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        self.seen += samples
        return [self._one(sample) for sample in samples]

    def _one(self, sample: Sample) -> Prediction:
        texts = [sample.parts[name].value for name in self.reads if name in sample.parts]
        if "unreadable" in texts:
            raise BadPart(next(name for name, part in sample.parts.items() if part.value == "unreadable"), "is unreadable")
        said = "yes" if len(texts) == 2 and texts[0] == texts[1] else "no"
        answers = {
            name: Number(float(len(texts[0]))) if need.modality == "number" else Category(said, {said: 1.0})
            for name, need in self.needs.answers.items()
        }
        return Prediction(sample.id, answers)


def pairs(count: int, *, source: str = "", answers: Sequence[str] = ("same",)) -> Rows:
    """Rows of two letters and whether they are the same, truly in every tenth row wrong."""
    random = generator("pairs", count)
    made: list[Sample] = []
    for row in range(count):
        left = "abcd"[int(random.integers(4))]
        right = left if random.random() < 0.4 else "abcd"[int(random.integers(4))]
        truth = "yes" if (left == right) != (row % 10 == 0) else "no"
        parts = {"left": Part("text", left), "right": Part("text", right), **{name: Part("category", truth) for name in answers}}
        made.append(Sample(f"{source}{row}", parts, source=source))
    return Rows(made)


def broken(rows: Rows, places: Sequence[int]) -> Rows:
    """The same rows, some with a part that cannot be read."""
    return Rows(
        [
            Sample(one.id, {**one.parts, "left": Part("text", "unreadable")}) if place in places else one
            for place, one in enumerate(rows.samples)
        ]
    )


def test_figures_have_their_split_their_interval_and_their_rows() -> None:
    figures = Evaluator(QUICK, CLASSIFY, ONE).evaluate(Comparer(ONE), pairs(200)).figures
    assert figures["test/accuracy"] == 0.9
    assert figures["test/accuracy/low"] < 0.9 < figures["test/accuracy/high"]
    assert (figures["test/rows"], figures["test/rows_lost"]) == (200, 0)
    assert "test/class/yes/recall" in figures


def test_several_answers_stand_under_their_names() -> None:
    needs = Needs(PARTS, {"same": CLASSES, "alike": CLASSES})
    figures = Evaluator(QUICK, CLASSIFY, needs).evaluate(Comparer(needs), pairs(40, answers=("same", "alike")), baselines=True).figures
    assert figures["test/same/accuracy"] == figures["test/alike/accuracy"] == 0.9
    assert "test/accuracy" not in figures
    assert "test/majority/alike/accuracy" in figures


def test_answers_of_two_kinds_have_the_metrics_of_their_kind() -> None:
    needs = Needs(PARTS, {"same": CLASSES, "length": AnswerNeed("number", mean=1.0)})
    rows = Rows([Sample(one.id, {**one.parts, "length": Part("number", 1.0)}) for one in pairs(20).samples])
    figures = Evaluator(QUICK, CLASSIFY, needs).evaluate(Comparer(needs), rows).figures
    assert figures["test/length/mae"] == 0.0
    assert figures["test/same/accuracy"] == 0.9


def test_the_model_does_not_see_the_answers() -> None:
    predictor = Comparer(ONE)
    Evaluator(QUICK, CLASSIFY, ONE).evaluate(predictor, pairs(20))
    assert {name for sample in predictor.seen for name in sample.parts} == {"left", "right"}


def test_rows_that_cannot_be_read_are_lost_counted_and_taken_down() -> None:
    ledger = Ledger()
    rows = pairs(60)
    report = Evaluator(QUICK, CLASSIFY, ONE, ledger=ledger).evaluate(Comparer(ONE), broken(rows, (3, 17, 18)), keep=True)
    assert (report.figures["test/rows"], report.figures["test/rows_lost"]) == (57, 3)
    assert [(record.id, record.part, record.cause) for record in ledger.records()] == [
        (i, "left", "is unreadable") for i in ("17", "18", "3")
    ]
    kept = Rows([one for place, one in enumerate(rows.samples) if place not in (3, 17, 18)])
    assert report.figures["test/accuracy"] == Evaluator(QUICK, CLASSIFY, ONE).evaluate(Comparer(ONE), kept).figures["test/accuracy"]
    assert [one.id for one in report.predictions] == kept.ids
    assert "rows-lost" in {finding.code for finding in report.findings}


def test_more_lost_rows_than_allowed_stop_the_evaluation() -> None:
    with pytest.raises(LossBudgetError, match=r"3 of 60 rows cannot be read.*: 3, left: is unreadable; 17, left: is unreadable; 18, left"):
        Evaluator(QUICK, CLASSIFY, ONE, max_loss=0.01).evaluate(Comparer(ONE), broken(pairs(60), (3, 17, 18)))


def test_one_row_of_a_small_split_does_not_end_a_run() -> None:
    report = Evaluator(QUICK, CLASSIFY, ONE, max_loss=0.01).evaluate(Comparer(ONE), broken(pairs(60), (3,)))
    assert (report.figures["test/rows"], report.figures["test/rows_lost"]) == (59, 1)
    with pytest.raises(LossBudgetError, match="1 of 60"):
        Evaluator(QUICK, CLASSIFY, ONE, max_loss=0).evaluate(Comparer(ONE), broken(pairs(60), (3,)))


def test_rows_without_the_answer_are_passed_over_and_counted() -> None:
    rows = pairs(50)
    bare = Rows([Sample(one.id, {k: v for k, v in one.parts.items() if k != "same" or int(one.id) > 4}) for one in rows.samples])
    figures = Evaluator(QUICK, CLASSIFY, ONE).evaluate(Comparer(ONE), bare).figures
    assert (figures["test/rows"], figures["test/rows_without_same"]) == (50, 5)


def test_a_column_does_not_stand_in_for_an_answer_that_is_absent() -> None:
    rows = Rows([Sample("0", {"left": Part("text", "a"), "right": Part("text", "a")}, columns={"same": "yes"})])
    assert "test/accuracy" not in Evaluator(QUICK, CLASSIFY, ONE).evaluate(Comparer(ONE), rows).figures


def test_the_majority_stands_beside_and_is_compared_with() -> None:
    report = Evaluator(QUICK, CLASSIFY, ONE).evaluate(Comparer(ONE, reads=("left",)), pairs(300), baselines=True)
    assert report.figures["test/majority/accuracy"] == report.figures["test/accuracy"]
    assert "no-better-than-majority" in {finding.code for finding in report.findings}


def test_a_part_left_out_and_a_part_shuffled_are_measured() -> None:
    figures = Evaluator(QUICK, CLASSIFY, ONE).evaluate(Comparer(ONE), pairs(300), ablations=True).figures
    assert figures["test/without_left/accuracy"] < figures["test/accuracy"] - 0.2
    assert figures["test/shuffled_right/accuracy"] < figures["test/accuracy"] - 0.2


def test_shuffling_gives_every_row_another_rows_part_and_each_once() -> None:
    rows = Rows([Sample(str(row), {"left": Part("text", str(row)), "right": Part("text", str(row))}) for row in range(30)])
    predictor = Comparer(ONE)
    Evaluator(QUICK, CLASSIFY, ONE).evaluate(predictor, rows, ablations=True)
    shuffled = [one for one in predictor.seen[60:90] if len(one.parts) == 2]
    assert len(shuffled) == 30
    assert all(one.parts["left"].value != one.parts["right"].value == one.id for one in shuffled)
    assert sorted(int(one.parts["left"].value) for one in shuffled) == list(range(30))


def test_a_part_that_is_not_used_is_found_out() -> None:
    needs = Needs(PARTS, {"same": CLASSES})
    rows = Rows([Sample(one.id, {**one.parts, "same": Part("category", "no")}) for one in pairs(200).samples])
    report = Evaluator(QUICK, CLASSIFY, needs).evaluate(Comparer(needs, reads=("left",)), rows, ablations=True)
    told = [finding.message for finding in report.findings if finding.code == "ignores-part"]
    assert any('"right"' in message for message in told)
    assert "uses-parts" not in {finding.code for finding in report.findings}


def test_a_part_without_which_it_is_worse_has_its_cost_with_a_paired_interval() -> None:
    report = Evaluator(QUICK, CLASSIFY, ONE).evaluate(Comparer(ONE), pairs(300), ablations=True)
    for variant in ("without_left", "shuffled_right"):
        own, less = report.figures["test/accuracy"], report.figures[f"test/{variant}/accuracy"]
        assert report.figures[f"test/{variant}/accuracy/cost"] == pytest.approx(own - less)
        assert 0 < report.figures[f"test/{variant}/accuracy/cost/low"] < own - less < report.figures[f"test/{variant}/accuracy/cost/high"]
        assert report.figures[f"test/{variant}/accuracy/low"] < less < report.figures[f"test/{variant}/accuracy/high"]
    assert [one.message[:16] for one in report.findings if one.code == "uses-parts"] == ["uses both parts:"]
    assert report.details["parts"][1][:2] == ["accuracy", "left"]


def test_a_slice_has_the_figures_of_its_rows_alone() -> None:
    rows = Rows([replace(one, columns={"kind": "even" if int(one.id) % 2 == 0 else "a/b"}) for one in pairs(100).samples])
    report = Evaluator(EvaluateSpec(intervals=200, slices=("kind",)), CLASSIFY, ONE).evaluate(Comparer(ONE), rows)
    for value, name in (("even", "even"), ("a/b", "a%2Fb")):
        alone = Evaluator(QUICK, CLASSIFY, ONE).evaluate(Comparer(ONE), Rows([one for one in rows.samples if one.columns["kind"] == value]))
        for end in ("", "/low", "/high"):
            assert report.figures[f"test/slice/kind={name}/accuracy{end}"] == alone.figures[f"test/accuracy{end}"]
        assert report.figures[f"test/slice/kind={name}/rows"] == 50
    assert report.figures["test/slice/kind=a%2Fb/accuracy"] == 1.0 > report.figures["test/slice/kind=even/accuracy"]
    assert [row[:4] for row in report.details["slices"][1:]] == [["kind", "a/b", "50", "accuracy"], ["kind", "even", "50", "accuracy"]]
    assert "weak-slices" not in {finding.code for finding in report.findings}


def test_small_and_weak_slices_are_told_and_a_row_without_the_value_has_its_own() -> None:
    rows = Rows([replace(one, columns={} if int(one.id) % 10 == 0 else {"kind": "right"}) for one in pairs(200).samples])
    report = Evaluator(EvaluateSpec(intervals=200, slices=("kind",)), CLASSIFY, ONE).evaluate(Comparer(ONE), rows)
    assert report.figures["test/slice/kind=(absent)/accuracy"] == 0.0
    told = {finding.code: finding.message for finding in report.findings}
    assert told["small-slices"] == "1 of 2 slices have fewer than 30 rows: kind=(absent) (20)."
    assert told["weak-slices"] == "is surely worse than 0.900 in 1 of 2 slices: kind=(absent) (0.000)."


def test_of_very_many_values_the_commonest_have_slices_and_it_is_said() -> None:
    rows = Rows([replace(one, columns={"kind": "often" if int(one.id) < 20 else one.id}) for one in pairs(120).samples])
    report = Evaluator(EvaluateSpec(intervals=0, slices=("kind",)), CLASSIFY, ONE).evaluate(Comparer(ONE), rows)
    (told,) = [finding.message for finding in report.findings if finding.code == "slices-capped"]
    assert told == '"kind" has 101 values: the commonest 50 have slices, 51 of 120 rows are in none.'
    assert sum(name.endswith("/rows") and "/slice/" in name for name in report.figures) == 50


def test_the_watched_figures_have_slices_without_counts() -> None:
    rows = Rows([replace(one, columns={"kind": "k"}) for one in pairs(40).samples])
    watched = Evaluator(EvaluateSpec(slices=("kind",)), CLASSIFY, ONE).watch(Comparer(ONE), rows)
    assert set(watched) == {"valid/accuracy", "valid/macro_f1", "valid/slice/kind=k/accuracy"}


def test_each_source_of_a_mix_has_its_figures() -> None:
    rows = Rows([*pairs(100, source="x").samples, *pairs(50, source="y").samples])
    figures = Evaluator(QUICK, CLASSIFY, ONE).evaluate(Comparer(ONE), rows).figures
    alone = Evaluator(QUICK, CLASSIFY, ONE).evaluate(Comparer(ONE), pairs(50, source="y")).figures
    assert figures["test/source/y/accuracy"] == alone["test/accuracy"]
    assert "test/source/y/accuracy" not in alone


def test_the_watched_figures_are_the_evaluated_ones_without_intervals() -> None:
    evaluator = Evaluator(QUICK, CLASSIFY, ONE)
    watched = evaluator.watch(Comparer(ONE), pairs(80))
    assert set(watched) == {"valid/accuracy", "valid/macro_f1"}
    assert watched["valid/accuracy"] == evaluator.evaluate(Comparer(ONE), pairs(80), name="valid").figures["valid/accuracy"]


def test_the_untuned_model_stands_beside() -> None:
    evaluator = Evaluator(QUICK, CLASSIFY, ONE)
    untuned = evaluator.untuned(Comparer(ONE), pairs(80))
    report = evaluator.evaluate(Comparer(ONE), pairs(80)).beside(untuned)
    assert report.figures["test/untuned/accuracy"] == report.figures["test/accuracy"]
    assert "no-better-than-untuned" in {finding.code for finding in report.findings}


def test_two_evaluations_give_the_same_figures() -> None:
    reports = [Evaluator(QUICK, CLASSIFY, ONE, seed=3).evaluate(Comparer(ONE), pairs(90), baselines=True, ablations=True) for _ in range(2)]
    assert reports[0].figures == reports[1].figures


@dataclass
class Embedder:
    """A predictor by rule: each letter has a direction; the right part's is turned a little."""

    needs: Needs

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        return [
            Prediction(one.id, {name: Embedding(self._direction(f"{one.id} {name}", part.value)) for name, part in one.parts.items()})
            for one in samples
        ]

    def _direction(self, noise: str, text: str) -> np.ndarray:
        values = np.eye(4)["abcd".index(text)] + 0.2 * generator(noise).normal(size=4)
        return (values / np.linalg.norm(values)).astype(np.float32)


def test_retrieval_is_measured_in_both_directions_beside_chance() -> None:
    needs = Needs(PARTS, {})
    letters = ["abcd"[row % 4] for row in range(60)]
    rows = Rows([Sample(str(i), {name: Part("text", text) for name in PARTS}, columns={"kind": text}) for i, text in enumerate(letters)])
    figures = Evaluator(EvaluateSpec(intervals=50, match="kind"), RETRIEVE, needs).evaluate(Embedder(needs), rows, baselines=True).figures
    assert figures["test/left_to_right/r_at_1"] > 0.9
    assert figures["test/chance/right_to_left/r_at_1"] == pytest.approx(0.25)
    alone = Evaluator(EvaluateSpec(intervals=0), RETRIEVE, needs).evaluate(Embedder(needs), rows).figures
    assert alone["test/left_to_right/r_at_1"] < 0.5


def test_a_prediction_that_is_not_finite_names_its_row() -> None:
    @dataclass
    class Broken:
        needs: Needs

        def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
            return [Prediction(one.id, {"same": Category("no", {"no": float("nan")})}) for one in samples]

    with pytest.raises(NonFiniteError, match="row 0 is not finite"):
        Evaluator(QUICK, CLASSIFY, ONE).evaluate(Broken(ONE), pairs(3))


def test_an_ablation_that_the_model_cannot_take_is_said() -> None:
    @dataclass
    class Strict:
        needs: Needs

        def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
            if any(len(one.parts) < 2 for one in samples):
                raise DataError("left", "is missing.")
            return Comparer(self.needs).predict(samples)

    report = Evaluator(QUICK, CLASSIFY, ONE).evaluate(Strict(ONE), pairs(30), ablations=True)
    assert [finding.where for finding in report.findings if finding.code == "no-ablation"] == ["without_left", "without_right"]
    assert "test/shuffled_left/accuracy" in report.figures


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        (("regression",), RecipeError, r'evaluate\.metrics\.0: "regression" judges number; the answers are same \(category\)'),
        (("clasification",), PluginError, r'evaluate\.metrics\.0: "clasification" is not known.*Did you mean "classification"'),
        (({"name": "classification", "top": 5},), PluginError, r'evaluate\.metrics\.0\.top: "top" is not known'),
    ],
)
def test_a_metric_that_does_not_fit_is_said_before_anything_is_measured(
    metrics: tuple[str | Mapping[str, object], ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Evaluator(EvaluateSpec.model_validate({"metrics": metrics}), CLASSIFY, ONE)


def test_two_metrics_of_one_figure_are_refused() -> None:
    spec = EvaluateSpec.model_validate({"metrics": ("classification", "classification")})
    with pytest.raises(RecipeError, match='two metrics give the figure "accuracy"'):
        Evaluator(spec, CLASSIFY, ONE).evaluate(Comparer(ONE), pairs(5))


def test_a_task_without_a_metric_for_an_answer_says_so() -> None:
    with pytest.raises(RecipeError, match='has no metric for an answer of modality "category"'):
        Evaluator(QUICK, TaskPreset("x", "y", {}), ONE)
