"""What losses over answers share: which answers they fit, shares of terms, and weights of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from multitune.core.errors import RecipeError, did_you_mean, one_of
from multitune.core.protocols import AnswerNeed, Needs

ByClass: TypeAlias = Literal["balanced"] | dict[str, float]
ClassWeights: TypeAlias = Literal["balanced"] | dict[str, float] | dict[str, ByClass]
ADVICE = {"category": "cross_entropy", "text": "cross_entropy", "labels": "multi_label", "number": "regression"}
TEXT = "balanced, or a mapping of classes to weights (unnamed: 1); with several answers, answer: one of the two"


def check_answers(loss: str, needs: Needs, fits: Sequence[str]) -> None:
    """Refuse answers that a loss does not judge.

    Raises: RecipeError naming the loss that does.
    """
    if not needs.answers:
        raise RecipeError("loss", f"{loss} needs an answer; the recipe has none.", "Name one in data.answers.")
    for name, need in needs.answers.items():
        if need.modality not in fits:
            fitting = ADVICE.get(need.modality, "another loss")
            other = f"Use {fitting}." if len(needs.answers) == 1 else "Use several, which takes a loss for each answer."
            raise RecipeError("loss", f'{loss} does not fit the answer "{name}" ({need.modality}).', other)


def check_shares(shares: Mapping[str, float], terms: Sequence[str], *, what: str) -> None:
    """Refuse a share of nothing, and one that is negative.

    Raises: RecipeError with the nearest name.
    """
    for name, share in shares.items():
        if name not in terms:
            known = list(terms)
            raise RecipeError("loss.shares", f'"{name}" is no {what}; {what}s are {one_of(known)}.', did_you_mean(name, known))
        if share < 0:
            raise RecipeError(f"loss.shares.{name}", f"found {share:g}: a term is not turned round.", "Give 0 or more.")


def class_weights(weights: ClassWeights | None, needs: Needs) -> dict[str, list[float]]:
    """For each answer that has some, the weight of each of its classes or labels, in their order.

    balanced: in inverse proportion to the rows of train, so that every class counts as much as any other.
    Raises: RecipeError for an answer or a class that is not there, or weights that are no weights.
    """
    fitting = {name: need for name, need in needs.answers.items() if need.labels}
    if weights is None:
        return {}
    if not fitting:
        raise RecipeError("loss.weights", "no answer has classes.", "Leave it out.")
    if weights == "balanced":
        return {name: _balanced(name, need) for name, need in fitting.items()}
    by_answer = {name: value for name, value in weights.items() if not isinstance(value, int | float)}
    if not by_answer:
        if len(fitting) > 1:
            remedy = f"Write weights: {{{next(iter(fitting))}: {{class: weight}}}}."
            raise RecipeError("loss.weights", f"there are several answers with classes ({one_of(fitting)}).", remedy)
        by_answer = {next(iter(fitting)): weights}
    for name in by_answer:
        if name not in fitting:
            known = list(fitting)
            raise RecipeError("loss.weights", f'"{name}" is no answer with classes; they are {one_of(known)}.', did_you_mean(name, known))
    return {name: _weights(name, fitting[name], value) for name, value in by_answer.items()}


def _weights(name: str, need: AnswerNeed, stated: object) -> list[float]:
    if not isinstance(stated, Mapping):
        return _balanced(name, need)
    for label, weight in stated.items():
        if label not in need.labels:
            found = f'"{label}" is no class of {name} in train; they are {one_of(need.labels[:12])}.'
            raise RecipeError("loss.weights", found, did_you_mean(label, list(need.labels)))
        if weight < 0:
            raise RecipeError(f"loss.weights.{label}", f"found {weight:g}.", "A weight is 0 or more.")
    made = [float(stated.get(label, 1.0)) for label in need.labels]
    if not any(made):
        raise RecipeError("loss.weights", f"every class of {name} weighs 0.", "Give one a weight.")
    return made


def _balanced(name: str, need: AnswerNeed) -> list[float]:
    if not need.counts or not all(need.counts):
        raise RecipeError("loss.weights", f"how often the classes of {name} stand in train is not known.", "State each class's weight.")
    mean = sum(need.counts) / len(need.counts)
    return [mean / count for count in need.counts]
