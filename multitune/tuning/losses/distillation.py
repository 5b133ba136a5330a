"""Learn from a teacher: what another model says of the same rows, beside the recipe's own loss.

teacher is an artifact, or a run's folder; for features alone also a Hugging Face folder or hub id. It runs once over the rows of the train
split before the first step, in inference mode, through its own preprocessing and without augmentation; what it said is kept in the run's
folder. Per answer there is a term `<answer>_teacher`: for a category the divergence of the student's distribution from the teacher's, both
softened by `temperature` and multiplied by its square; for several labels the same of each label; for a number the squared error in
standard deviations. The own loss's terms count 1 - alpha, these alpha. `features` adds `<part>_features`: each tower's pooled vector
against the teacher's, where widths differ the wider one projected by a fixed matrix with orthonormal columns.

Source: Hinton, Vinyals, Dean 2015, arXiv:1503.02531; Romero et al. 2015, arXiv:1412.6550, for features (there with a learned projection).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from multitune.core import catalog
from multitune.core.errors import RecipeError, did_you_mean, one_of
from multitune.core.protocols import AnswerNeed, Batch, Loss, Needs, Outputs, Tensor
from multitune.core.randomness import derive
from multitune.core.recipe import Component
from multitune.tuning.losses._answers import ADVICE, check_answers
from multitune.tuning.scope import LearningLoss

TAUGHT = ("category", "labels", "number")


class Options(catalog.Options):
    """Who teaches, how softly, and how much it counts."""

    teacher: str = Field(min_length=1, description="an artifact, a run's folder; for features alone also a folder or hub id")
    temperature: float = Field(default=2.0, gt=0, description="above 1: more of what the teacher thinks of the other classes")
    alpha: float = Field(default=0.5, ge=0, le=1, description="share of the teacher's answers; the own loss has the rest")
    plain: Component = Field(default=Component(), description="the own loss; auto: what fits the answers")
    features: Literal["none", "mse", "cosine"] = Field(default="none", description="also match each tower's pooled vector")
    parts: list[str] = Field(default_factory=list, description="whose vectors are matched; empty: of every part")
    features_share: float = Field(default=1.0, gt=0, description="what multiplies the features' terms")


def build(options: Options, needs: Needs) -> Distillation:
    """The loss for these answers.

    Raises: RecipeError for an answer that cannot be taught, an own loss over pairs, or nothing to learn from the teacher.
    """
    check_answers("distillation", needs, TAUGHT)
    for part in options.parts:
        if part not in needs.parts:
            known = list(needs.parts)
            raise RecipeError("loss.parts", f'"{part}" is no part; parts are {one_of(known)}.', did_you_mean(part, known))
    name = options.plain.name
    if name == "auto":
        name = "several" if len(needs.answers) > 1 else ADVICE[next(iter(needs.answers.values())).modality]
    plain: Loss = catalog.find("loss", name, options.plain.options, where="loss.plain").build(needs)
    if plain.over != "rows":
        raise RecipeError("loss.plain", f"{name} judges pairs of rows.", "Use a loss over rows, such as cross_entropy.")
    return Distillation(plain, needs, options)


class Distillation(nn.Module):
    """The own loss's terms, those of the teacher's answers, and those of its features."""

    over: Literal["rows", "pairs"] = "rows"

    def __init__(self, plain: Loss, needs: Needs, options: Options) -> None:
        super().__init__()
        self.teacher = options.teacher
        self.plain = plain
        self._answers = {f"{name}_teacher": name for name in needs.answers} if options.alpha > 0 else {}
        self._parts = {f"{name}_features": name for name in options.parts or needs.parts} if options.features != "none" else {}
        self._needs, self._temperature, self._cosine = needs, options.temperature, options.features == "cosine"
        self.terms = (*(plain.terms if options.alpha < 1 else ()), *self._answers, *self._parts)
        own = {term: plain.shares.get(term, 1.0) * (1 - options.alpha) for term in plain.terms}
        taught = dict.fromkeys(self._answers, options.alpha) | dict.fromkeys(self._parts, options.features_share)
        self.shares: Mapping[str, float] = (own if options.alpha < 1 else {}) | taught

    @property
    def taught_answers(self) -> tuple[str, ...]:
        """The answers that the teacher must give."""
        return tuple(self._answers.values())

    @property
    def taught_parts(self) -> tuple[str, ...]:
        """The parts of which the teacher's pooled vectors are asked for."""
        return tuple(self._parts.values())

    def learned(self) -> Mapping[str, float]:
        """What the own loss learned of its terms' shares."""
        return self.plain.learned() if isinstance(self.plain, LearningLoss) else {}

    def weights(self, batch: Batch) -> Mapping[str, float]:
        """The own loss's; of the teacher's terms the rows of which it said something, and which have the part."""
        taught = {term: float(batch.teacher["there"].sum()) for term in self._answers}
        taught |= {term: float(_seen(batch, part).sum()) for term, part in self._parts.items()}
        return {**{term: weight for term, weight in self.plain.weights(batch).items() if term in self.terms}, **taught}

    def sums(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        """The own loss's; the teacher's in float32."""
        own = self.plain.sums(outputs, batch) if self.terms[0] in self.plain.terms else {}
        found = {term: value for term, value in own.items() if term in self.terms}
        for term, name in self._answers.items():
            there = batch.teacher["there"]
            student, teacher = outputs.logits[name][there].float(), batch.teacher[f"answer/{name}"][there].float()
            found[term] = self._apart(student, teacher, self._needs.answers[name])
        for term, part in self._parts.items():
            seen, column = _seen(batch, part), f"feature/{part}"
            if part not in outputs.features or column not in batch.teacher:
                found_none = f'there is no pooled vector of "{part}" on both sides.'
                raise RecipeError("loss.features", found_none, "Use features: none, or a fusion_encoder.")
            found[term] = self._between(outputs.features[part][seen].float(), batch.teacher[column][seen].float(), part)
        return found

    def _apart(self, student: Tensor, teacher: Tensor, need: AnswerNeed) -> Tensor:
        """The summed distance of what the student says from what the teacher said."""
        if need.modality == "number":
            return functional.mse_loss(student, teacher, reduction="sum")
        heat = self._temperature
        if need.modality == "labels":
            wanted = torch.sigmoid(teacher / heat)
            crossed = functional.binary_cross_entropy_with_logits(student / heat, wanted, reduction="sum")
            return heat**2 * (crossed - functional.binary_cross_entropy(wanted, wanted, reduction="sum"))
        goal, said = (functional.log_softmax(logits / heat, dim=-1) for logits in (teacher, student))
        return heat**2 * functional.kl_div(said, goal, reduction="sum", log_target=True)

    def _between(self, student: Tensor, teacher: Tensor, part: str) -> Tensor:
        """The summed distance of pooled vectors, the wider ones projected."""
        narrow = min(student.shape[1], teacher.shape[1])
        student, teacher = (_narrowed(vectors, narrow, part) for vectors in (student, teacher))
        if self._cosine:
            return (1 - functional.cosine_similarity(student, teacher, dim=-1)).sum()
        return (student - teacher).square().mean(-1).sum()


def _seen(batch: Batch, part: str) -> Tensor:
    return batch.teacher["there"] & batch.presence[part]


def _narrowed(vectors: Tensor, width: int, part: str) -> Tensor:
    """Vectors of a width: themselves, or projected by a matrix with orthonormal columns that follows from the widths and the part."""
    wide = vectors.shape[1]
    if wide == width:
        return vectors
    rng = torch.Generator().manual_seed(derive("distillation", part, wide, width))
    matrix, _ = torch.linalg.qr(torch.randn(wide, width, generator=rng, dtype=torch.float64))
    return vectors @ matrix.to(vectors)
