"""Cross-entropy over the classes of each category answer and the tokens of each text answer.

One term for each answer. A row without the answer, and tokens marked -100, do not count; the weight of a term is the number of
rows (of tokens, for a text) that do. `label_smoothing` spreads that share of the truth evenly over all classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch.nn import functional

from multitune.core import catalog
from multitune.core.errors import RecipeError, did_you_mean, one_of
from multitune.core.protocols import Batch, Needs, Outputs, Tensor

IGNORED = -100


class Options(catalog.Options):
    """Smoothing, and the share of each answer's term in the sum."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    shares: dict[str, float] = Field(default_factory=dict, description="answer: what multiplies its term; 1 by default")


def build(options: Options, needs: Needs) -> CrossEntropy:
    """The loss for these answers.

    Raises: RecipeError for an answer that is neither a category nor a text, or a share for no answer.
    """
    for name, need in needs.answers.items():
        if need.modality not in ("category", "text"):
            raise RecipeError("loss", f'cross_entropy does not fit the answer "{name}" ({need.modality}).', "Use regression.")
    if not needs.answers:
        raise RecipeError("loss", "cross_entropy needs an answer; the recipe has none.", "Name one in data.answers.")
    for name in options.shares:
        if name not in needs.answers:
            known = list(needs.answers)
            raise RecipeError("loss.shares", f'"{name}" is no answer; answers are {one_of(known)}.', did_you_mean(name, known))
    return CrossEntropy(tuple(needs.answers), options)


class CrossEntropy:
    """The sum over counted rows or tokens, and their number, for each answer."""

    over: Literal["rows", "pairs"] = "rows"

    def __init__(self, answers: tuple[str, ...], options: Options) -> None:
        self.terms = answers
        self.shares: Mapping[str, float] = options.shares
        self._smoothing = options.label_smoothing

    def weights(self, batch: Batch) -> Mapping[str, float]:
        """How many rows or tokens count."""
        return {name: float(_counted(batch, name).sum()) for name in self.terms}

    def sums(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        """The summed cross-entropy of what counts, in float32."""
        result: dict[str, Tensor] = {}
        for name in self.terms:
            counted = _counted(batch, name)
            logits = outputs.logits[name][counted].float()  # taken out, not multiplied by zero: a NaN elsewhere cannot leak in
            truth = batch.answers[name][counted]
            result[name] = functional.cross_entropy(logits, truth, reduction="sum", label_smoothing=self._smoothing)
        return result


def _counted(batch: Batch, name: str) -> Tensor:
    truth = batch.answers[name]
    present = batch.presence[name]
    return (truth != IGNORED) & (present[:, None] if truth.ndim > 1 else present)
