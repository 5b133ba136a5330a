"""Zero-shot classification: labels as words, words in templates, the nearest wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from multitune.core import catalog
from multitune.core.errors import PluginError, RecipeError
from multitune.core.protocols import AnswerNeed, Embedding, Needs, Part, PartNeed, Prediction, Sample
from multitune.core.recipe import EvaluateSpec
from multitune.core.tasks import retrieval
from multitune.measure.evaluator import Evaluator
from tests.measure.test_evaluator import Rows

NEEDS = Needs({"picture": PartNeed("image"), "caption": PartNeed("text")}, {})
COLOURS = ("blue", "green", "red")
TASK = retrieval.build(retrieval.Options())


@dataclass
class Speller:
    """A predictor by rule: a text is the sum of its words' directions, a picture the direction of its one word; lengths differ."""

    needs: Needs = NEEDS

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        return [Prediction(one.id, {name: Embedding(self._sum(part.value)) for name, part in one.parts.items()}) for one in samples]

    def _sum(self, text: str) -> np.ndarray:
        words = {"blue": 0, "green": 1, "red": 2, "a": 3, "loud": 4}
        made = np.zeros(5, np.float32)
        for word in text.split():
            made[words[word]] += 7.0 if word == "loud" else 1.0
        return made


def asked(**options: Any) -> Any:
    return catalog.find("metric", "zero_shot", {"column": "colour"} | options).build("", AnswerNeed(""))


def measured(rows: Rows, **options: Any) -> dict[str, float]:
    spec = EvaluateSpec.model_validate({"intervals": 100, "metrics": [{"name": "zero_shot", "column": "colour"} | options]})
    return dict(Evaluator(spec, TASK, NEEDS).evaluate(Speller(), rows, baselines=True).figures)


def rows(pictures: Sequence[str], colours: Sequence[str]) -> Rows:
    pairs = zip(pictures, colours, strict=True)
    return Rows([Sample(str(n), {"picture": Part("image", shown)}, columns={"colour": colour}) for n, (shown, colour) in enumerate(pairs)])


NINE = rows([*COLOURS, *COLOURS, "red", "red", "red"], [*COLOURS, *COLOURS, "red", "blue", "green"])


def test_a_row_is_right_where_the_words_of_its_label_are_nearest() -> None:
    figures = measured(NINE)
    name = "test/zero_shot/picture/colour/accuracy"
    assert figures[name] == pytest.approx(7 / 9)
    assert figures[f"{name}/low"] < 7 / 9 < figures[f"{name}/high"]
    assert figures["test/chance/zero_shot/picture/colour/accuracy"] == pytest.approx(1 / 3)
    assert figures["test/zero_shot/picture/colour/class/blue/recall"] == pytest.approx(2 / 3)


def test_labels_may_have_words_of_their_own() -> None:
    turned = {"blue": "red", "green": "green", "red": "blue"}
    figures = measured(rows(["red", "blue"], ["blue", "red"]), labels=turned)
    assert figures["test/zero_shot/picture/colour/accuracy"] == 1.0


def test_every_label_is_put_into_every_template_and_nothing_else_is_put_in() -> None:
    metric = asked(templates=["a {}", "{} a {}"], labels=["blue", "{0}"])
    samples = metric.prompts(NEEDS, lambda column: [])
    assert [one.parts["caption"].value for one in samples] == ["a blue", "blue a blue", "a {0}", "{0} a {0}"]
    assert all(set(one.parts) == {"caption"} for one in samples)


def test_each_template_weighs_the_same_whatever_the_length_of_its_vectors() -> None:
    metric = asked(templates=["{}", "loud {}"])
    predictions = Speller().predict(metric.prompts(NEEDS, lambda column: COLOURS))
    metric.prompted(predictions)
    short, long = (np.array([1.0, 0, 0, 0, 0]), np.array([1.0, 0, 0, 0, 7.0]) / np.sqrt(50))
    expected = (short + long) / 2
    assert metric._vectors[0] == pytest.approx(expected / np.linalg.norm(expected))


def test_labels_that_are_equally_near_stand_before_the_true_one() -> None:
    figures = measured(rows(["a", "a", "a"], COLOURS))
    assert figures["test/zero_shot/picture/colour/accuracy"] == 0.0


def test_a_label_that_was_not_asked_for_counts_as_wrong_and_a_row_without_one_is_passed_over() -> None:
    some = rows(["red", "red", "blue"], ["red", "purple", "blue"])
    none = Sample("x", {"picture": Part("image", "red")})
    figures = measured(Rows([*some.samples, none]), labels=["red", "blue"])
    assert figures["test/zero_shot/picture/colour/accuracy"] == pytest.approx(2 / 3)


def test_with_more_than_five_labels_the_first_five_count_too() -> None:
    names = [f"{'a ' * n}red" for n in range(6)]
    figures = measured(rows(["red", "a"], [names[0], names[0]]), labels=names)
    assert figures["test/zero_shot/picture/colour/accuracy"] == 0.5
    assert figures["test/zero_shot/picture/colour/accuracy_at_5"] == 0.5


def test_slices_have_labels_too() -> None:
    spec = EvaluateSpec.model_validate({"slices": ["colour"], "metrics": [{"name": "zero_shot", "column": "colour"}]})
    figures = Evaluator(spec, TASK, NEEDS).evaluate(Speller(), NINE).figures
    assert figures["test/slice/colour=blue/zero_shot/picture/colour/accuracy"] == pytest.approx(2 / 3)
    assert figures["test/slice/colour=blue/rows"] == 3


def test_a_template_without_a_place_for_the_label_is_refused() -> None:
    with pytest.raises(PluginError, match=r'templates: .*the template "a picture" has no \{\}, where the label goes'):
        asked(templates=["a {}", "a picture"])


@pytest.mark.parametrize(
    ("needs", "options", "words"),
    [
        ({"picture": "image", "a": "text", "b": "text"}, {}, "zero_shot.text: the model has 2 of the kind text: a, b"),
        ({"picture": "image", "sound": "audio"}, {}, "zero_shot.text: the model has 0"),
        ({"picture": "image", "sound": "audio", "caption": "text"}, {}, "zero_shot.part: the model has 2 .*picture, sound"),
        ({"picture": "image", "caption": "text"}, {"part": "pictur"}, 'zero_shot.part: "pictur" is no such part.*Did you mean "picture"'),
        ({"picture": "image", "caption": "text"}, {"labels": ["red"]}, "zero_shot.labels: there are 1 labels"),
    ],
)
def test_what_is_not_clear_is_said_before_anything_is_asked(needs: dict[str, str], options: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        asked(**options).prompts(Needs({name: PartNeed(kind) for name, kind in needs.items()}, {}), lambda column: COLOURS)


def test_a_model_that_answers_is_not_asked_so() -> None:
    spec = EvaluateSpec.model_validate({"metrics": [{"name": "zero_shot", "column": "colour"}]})
    with pytest.raises(RecipeError, match='"zero_shot" judges embeddings; the answers are colour'):
        Evaluator(spec, TASK, Needs(NEEDS.parts, {"colour": AnswerNeed("category", labels=COLOURS)}))
