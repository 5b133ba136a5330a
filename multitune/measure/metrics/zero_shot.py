"""Zero-shot classification by a model that embeds: the class whose words lie nearest.

`{name: zero_shot, column: kind, templates: ["a picture of a {}", "a small {}"]}`.
Each label is put into each template in place of `{}`; the texts are embedded by the model itself, brought to unit length, averaged over the
templates and brought to unit length again. A row is right where its true label is nearer than every other; labels as near (to 1e-6) stand
before it: ties never help. A true label that is not among `labels` counts as wrong. A rank is kept for each row, no scores.
Source: Radford et al. 2021, arXiv:2103.00020, section 3.1.4 (prompt ensembling in the space of embeddings).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from multitune.core import catalog
from multitune.core.errors import RecipeError, did_you_mean, one_of
from multitune.core.protocols import AnswerNeed, ByRow, Embedding, Figure, Metric, Needs, Part, Prediction, Sample
from multitune.measure.bootstrap import interval_of_share
from multitune.measure.paired import Share

SERVES = ("",)
PLACE = "{}"
DEPTHS = {"accuracy": 1, "accuracy_at_5": 5}
TIE = 1e-6
MOST_LABELS = 5000
WHERE = "evaluate.metrics.zero_shot"


class Options(catalog.Options):
    """What is classified, into what, in which words."""

    column: str = Field(description="the column with the true label", json_schema_extra=catalog.COLUMN)
    labels: tuple[str, ...] | dict[str, str] = Field(default=(), description="or {label: words}; empty: the values of the column")
    templates: tuple[str, ...] = Field(default=(PLACE,), min_length=1, description='such as "a picture of a {}"; {} is the label')
    part: str = Field(default="", description="the part that is classified; empty: the only one that is no text")
    text: str = Field(default="", description="the part that reads the templates; empty: the only one that is text")

    @field_validator("templates")
    @classmethod
    def _have_a_place(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for template in value:
            if PLACE not in template:
                raise ValueError(f'the template "{template}" has no {PLACE}, where the label goes')
        return value


def build(options: Options, answer: str, need: AnswerNeed) -> ZeroShot:
    """The metric over the embeddings of one part."""
    return ZeroShot(options)


class ZeroShot(Metric):
    """Keeps the vectors of the labels, and the rank of each row's true one."""

    primary = "accuracy"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._part, self._text = options.part, options.text
        self._words: dict[str, str] = {}
        self._vectors: NDArray[np.float64] = np.empty((0, 0))
        self._ranks, self._true = array("i"), array("i")

    def prompts(self, needs: Needs, column: Callable[[str], Sequence[str | None]]) -> Sequence[Sample]:
        """A text for each label and template.

        Raises: RecipeError where it is not clear what is classified, or there are no two labels.
        """
        self._text = _one("text", self._options.text, {name: need.modality == "text" for name, need in needs.parts.items()})
        self._part = _one("part", self._options.part, {name: name != self._text for name in needs.parts})
        self._words = self._labels(column)
        texts = [template.replace(PLACE, words) for words in self._words.values() for template in self._options.templates]
        return [Sample(f"prompt {number}", {self._text: Part("text", text)}) for number, text in enumerate(texts)]

    def prompted(self, predictions: Sequence[Prediction]) -> None:
        """Take the embeddings of the texts."""
        given = [one.answers[self._text] for one in predictions]
        vectors = np.array([one.value for one in given if isinstance(one, Embedding)], np.float64)
        each = _unit(vectors).reshape(len(self._words), len(self._options.templates), -1)
        self._vectors = _unit(each.mean(1))

    def update(self, prediction: Prediction, truth: Mapping[str, Any]) -> None:
        """Take one row; one without the part or without a label is passed over."""
        given, label = prediction.answers.get(self._part), truth.get(self._options.column)
        if not isinstance(given, Embedding) or label is None:
            return
        names = list(self._words)
        near = self._vectors @ np.asarray(given.value, np.float64)
        known = names.index(str(label)) if str(label) in self._words else -1
        before = near >= near[known] - TIE
        self._ranks.append(int(before.sum()) if known >= 0 else len(names) + 1)
        self._true.append(known)

    def compute(self, *, draws: int, seed: int) -> Iterator[Figure]:
        """`zero_shot/<part>/<column>/accuracy`, with more than five labels `accuracy_at_5`, then the recall of each label."""
        for name, hits in self._hits().items():
            low, high = interval_of_share(hits, np.ones(len(hits), np.int64), draws=draws, seed=seed)
            yield Figure(f"{self._name}/{name}", float(hits.mean()), low, high, drawn=draws > 0)
        first, true = np.array(self._ranks) == 1, np.array(self._true)
        for number, label in enumerate(self._words):
            if (here := true == number).any():
                value = float(first[here].mean())
                yield Figure(f"{self._name}/class/{label}/recall", value, value, value, drawn=False)

    def by_row(self) -> Mapping[str, ByRow]:
        """`accuracy` and `accuracy_at_5`."""
        return {f"{self._name}/{name}": Share(hits) for name, hits in self._hits().items()}

    def baseline(self) -> Iterator[Figure]:
        """`chance/...`: one label out of all."""
        for name in self._hits():
            value = DEPTHS[name] / len(self._words)
            yield Figure(f"chance/{self._name}/{name}", value, value, value, drawn=False)

    @property
    def _name(self) -> str:
        return f"zero_shot/{self._part}/{self._options.column}"

    def _hits(self) -> dict[str, NDArray[np.bool_]]:
        ranks = np.array(self._ranks)
        deep = {name: depth for name, depth in DEPTHS.items() if depth == 1 or len(self._words) > depth}
        return {name: ranks <= depth for name, depth in deep.items()} if len(ranks) else {}

    def _labels(self, column: Callable[[str], Sequence[str | None]]) -> dict[str, str]:
        """Label -> words."""
        given = self._options.labels
        if isinstance(given, dict):
            words = given
        else:
            words = {label: label for label in given or sorted({value for value in column(self._options.column) if value is not None})}
        if len(words) < 2:
            raise RecipeError(f"{WHERE}.labels", f"there are {len(words)} labels.", "Name two or more, or a column that has them.")
        if len(words) > MOST_LABELS:
            found = f'"{self._options.column}" has {len(words):,} values, more than {MOST_LABELS:,}.'
            raise RecipeError(f"{WHERE}.labels", found, "Name the labels, or a column of fewer.")
        return words


def _one(option: str, asked: str, fits: Mapping[str, bool]) -> str:
    """The part that an option names, or the only one that fits."""
    fitting = [name for name, fit in fits.items() if fit]
    if asked and asked not in fitting:
        raise RecipeError(f"{WHERE}.{option}", f'"{asked}" is no such part; there are {one_of(fitting)}.', did_you_mean(asked, fitting))
    if not asked and len(fitting) != 1:
        kind = "text" if option == "text" else "part beside the text"
        raise RecipeError(f"{WHERE}.{option}", f"the model has {len(fitting)} of the kind {kind}: {one_of(fitting)}.", "Name the one.")
    return asked or fitting[0]


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors (..., width) brought to unit length; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
