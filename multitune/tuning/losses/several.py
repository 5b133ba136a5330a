"""Several answers, each judged by a loss of its own, in fixed or learned shares.

Without `answers` each is judged by what fits it: cross_entropy, multi_label or regression. Shares are fixed (`shares`) or learned
(`uncertainty: true`): then each answer has one number s, the logarithm of its variance, and its loss L becomes exp(-s) L + s / 2 (for a
number, exp(-s) L / 2 + s / 2), so that an answer which cannot be learned well is let go. These numbers are parameters of the loss: they
stand in the tuning table as `loss.uncertainty.<answer>`, move with the model, are kept in checkpoints and do not decay.

Source: Kendall, Gal, Cipolla 2018, arXiv:1705.07115.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from multitune.core import catalog
from multitune.core.errors import RecipeError, did_you_mean, one_of
from multitune.core.protocols import Batch, Loss, Needs, Outputs, Tensor
from multitune.core.recipe import Component
from multitune.models.encoders import child
from multitune.tuning.losses._answers import ADVICE, check_answers, check_shares


class Options(catalog.Options):
    """Each answer's loss, and how they are weighed against each other."""

    answers: dict[str, Component] = Field(default_factory=dict, description="answer: a loss, or {name, ...options}; else what fits it")
    shares: dict[str, float] = Field(default_factory=dict, description="answer: what multiplies its term; 1 by default")
    uncertainty: bool = Field(default=False, description="learn the shares")


def build(options: Options, needs: Needs) -> Several:
    """The loss for these answers.

    Raises: RecipeError for an answer or a share that is not there, or a loss that does not fit its answer.
    """
    check_answers("several", needs, tuple(ADVICE))
    check_shares(options.shares, list(needs.answers), what="answer")
    for name in options.answers:
        if name not in needs.answers:
            known = list(needs.answers)
            raise RecipeError("loss.answers", f'"{name}" is no answer; answers are {one_of(known)}.', did_you_mean(name, known))
    return Several({name: _loss(name, options, needs) for name in needs.answers}, needs, options)


def _loss(name: str, options: Options, needs: Needs) -> Loss:
    asked = options.answers.get(name, Component())
    where, chosen = f"loss.answers.{name}", ADVICE[needs.answers[name].modality] if asked.name == "auto" else asked.name
    made: Loss = catalog.find("loss", chosen, asked.options, where=where).build(Needs(needs.parts, {name: needs.answers[name]}))
    if made.over != "rows" or made.terms != (name,) or isinstance(made, nn.Module):
        raise RecipeError(where, f"{chosen} is no loss of one answer.", "Use cross_entropy, focal, multi_label or regression.")
    if made.shares:
        raise RecipeError(f"{where}.shares", "inside another loss it has no effect.", f"Write loss.shares: {{{name}: ...}}.")
    return made


class Several(nn.Module):
    """Each answer's sum and weight by its own loss; with `uncertainty`, under learned weights."""

    over: Literal["rows", "pairs"] = "rows"

    def __init__(self, losses: Mapping[str, Loss], needs: Needs, options: Options) -> None:
        super().__init__()
        self.terms = tuple(losses)
        self.shares: Mapping[str, float] = options.shares
        self._losses = dict(losses)
        self._factors = {name: 0.5 if need.modality == "number" else 1.0 for name, need in needs.answers.items()}
        self.uncertainty = nn.Module()
        for name in losses if options.uncertainty else ():
            self.uncertainty.register_parameter(child(name), nn.Parameter(torch.zeros(())))

    def learned(self) -> Mapping[str, float]:
        """What multiplies each answer's loss as learned so far; empty where the shares are fixed."""
        found = dict(self.uncertainty.named_parameters())
        return {name: self._factors[name] * math.exp(-float(found[child(name)].detach())) for name in self.terms} if found else {}

    def weights(self, batch: Batch) -> Mapping[str, float]:
        """Each answer's weight, as its own loss has it."""
        return {name: loss.weights(batch)[name] for name, loss in self._losses.items()}

    def sums(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        """Each answer's sum, as its own loss has it, weighed by what is learned."""
        found = {name: loss.sums(outputs, batch)[name] for name, loss in self._losses.items()}
        learned = dict(self.uncertainty.named_parameters())
        if not learned:
            return found
        weights, result = self.weights(batch), dict[str, Tensor]()
        for name, value in found.items():
            own = learned[child(name)]
            result[name] = self._factors[name] * torch.exp(-own) * value + 0.5 * own * weights[name]
        return result
