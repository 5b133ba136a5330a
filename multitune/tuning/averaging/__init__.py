"""Averages of weights: along the run (EMA), over its evaluations (soup), and with the pretrained ones (WiSE-FT).

The loop asks one object, `Averaging`, at each step, evaluation, checkpoint and at the end; it does nothing that the plan does not name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from multitune.core.errors import StateError
from multitune.core.finding import Finding, Severity
from multitune.core.plan import Plan
from multitune.tuning.averaging import interpolation
from multitune.tuning.averaging.ema import Ema
from multitune.tuning.averaging.plan import choice_of, refuse_all_new, soup_of, state
from multitune.tuning.averaging.soup import Look, Measure, Weights, greedy, mean
from multitune.tuning.scope import Scope

SUFFIX = "!average"


@dataclass(frozen=True)
class Ended:
    """What the end of a run made of its weights.

    text: which weights they are, for people; empty where they are those of one step. figures: of them on the validation split.
    facts: every choice with what it rests on, as plain data.
    """

    text: str = ""
    figures: Mapping[str, float] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def numbers(self) -> dict[str, float]:
        """What was chosen, as figures: how many evaluations are in the mean, and the share of the tuned weights."""
        soup, back = self.facts.get("soup"), self.facts.get("interpolate")
        found = {"average/evaluations": float(len(soup["steps"]))} if soup else {}
        return found | ({"average/tuned": float(back["tuned"])} if back else {})

    @property
    def events(self) -> dict[str, float]:
        """The same with the figures that the model then has: `average/valid/accuracy`."""
        finite = {name: value for name, value in (self.figures or {}).items() if math.isfinite(value)}
        return self.numbers | {f"average/{name}": value for name, value in finite.items()}


class Averaging:
    """What a run averages. To be made while the family holds the weights that training begins with."""

    def __init__(self, plan: Plan, scope: Scope) -> None:
        self._scope, self._plan = scope, plan
        ema = plan.values.get("average.ema")
        self._ema = Ema(scope, **ema.value) if ema is not None else None
        self._soup, self._choice = soup_of(plan), choice_of(plan)
        shares = plan.values.get("average.interpolate")
        self._shares: list[float] = shares.value["tuned"] if shares is not None else []
        self._starts = interpolation.starts(scope) if shares is not None else {}
        self.looks: list[Look] = []

    @property
    def averages(self) -> dict[str, Tensor]:
        """The averages along the run as a checkpoint holds them."""
        return {f"{name}{SUFFIX}": tensor for name, tensor in self._ema.averages.items()} if self._ema else {}

    @property
    def active(self) -> bool:
        """Whether the plan averages anything."""
        return bool(self._ema or self._soup or self._shares)

    @property
    def keeps_looks(self) -> bool:
        """Whether every evaluation leaves a checkpoint."""
        return self._soup is not None

    def moved(self, done: int) -> None:
        """The weights have moved: `done` optimizer steps are taken."""
        if self._ema:
            self._ema.update(done)

    @contextmanager
    def worn(self) -> Generator[None]:
        """What is evaluated in the weights' place inside, the weights to the bit afterwards."""
        if self._ema is None:
            yield
            return
        with self._ema.worn():
            yield

    def looked(self, step: int, figures: Mapping[str, float]) -> None:
        """An evaluation of `step` gave these figures."""
        if self._soup:
            self.looks.append((step, self._choice.figure(figures) if self._choice else math.nan))

    def wanted(self) -> Collection[int]:
        """The steps whose checkpoints the end will need, as things stand."""
        return self._soup.wanted(self.looks) if self._soup else ()

    def facts(self) -> dict[str, Any]:
        """What a checkpoint holds beside tensors."""
        return {"looks": [[step, value if math.isfinite(value) else None] for step, value in self.looks]} if self._soup else {}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Take back what `facts` gave."""
        self.looks = [(step, math.nan if value is None else value) for step, value in facts.get("looks", [])]

    def end(self, *, best: int, read: Callable[[int], Weights], measure: Callable[[], Mapping[str, float]]) -> Ended:
        """Put the weights that are kept in place; the family holds those of step `best`.

        read: the tensors of a step's checkpoint, by name. measure: the family on the validation split, once.
        """
        if self._ema:
            self._ema.wear()
        if not self._soup and not self._shares:
            return Ended(f"the average up to step {best}", facts={"ema_of_step": best}) if self._ema else Ended()

        def measured(weights: Weights) -> Mapping[str, float]:
            self._put(weights)
            return measure()

        facts: dict[str, Any] = {}
        findings: list[Finding] = []
        weights, text = self._weights(), f"the average up to step {best}" if self._ema else f"weights of step {best}"
        if self._soup:
            weights, text = self._stirred(read, measured, facts, findings)
        if self._shares:
            weights, text = self._gone_back(weights, measured, facts, text)
        figures = measured(weights)
        facts["figures"] = {name: value for name, value in figures.items() if math.isfinite(value)}
        evidence = {name: value for name, value in facts.items() if name != "figures"}
        findings.append(Finding("averaged", Severity.INFO, "average", f"the model is {text}.", evidence=evidence))
        return Ended(text, figures, facts, tuple(findings))

    def _stirred(
        self, read: Callable[[int], Weights], measured: Measure, facts: dict[str, Any], findings: list[Finding]
    ) -> tuple[Weights, str]:
        soup, names = self._soup, set(self._weights())
        assert soup is not None
        found: dict[int, Weights] = {}
        for step in soup.wanted(self.looks):
            try:
                found[step] = {name: tensor for name, tensor in read(step).items() if name in names}
            except StateError as error:
                findings.append(Finding("soup-lost", Severity.ERROR, f"step {step}", f"{error}.", "The mean is of the others."))
        if not found:
            return self._weights(), "weights of its last step"
        steps = list(found)
        if soup.greedy and soup.choice is not None:
            steps, weights = greedy(steps, found.__getitem__, measured, soup.choice)
        else:
            weights = mean(list(found.values()))
        figures = {str(step): value for step, value in self.looks if step in found and math.isfinite(value)}
        facts["soup"] = {"steps": sorted(steps), "of": sorted(found), "alone": figures}
        return weights, f"the mean of the weights of steps {', '.join(map(str, sorted(steps)))}"

    def _gone_back(self, tuned: Weights, measured: Measure, facts: dict[str, Any], text: str) -> tuple[Weights, str]:
        share, values = self._shares[0], dict[str, float]()
        choice = self._choice
        if len(self._shares) > 1 and choice is not None:
            ranked = sorted(self._shares, reverse=True)  # of equals the most tuned
            tried = [choice.figure(measured(interpolation.between(self._starts, tuned, one))) for one in ranked]
            values = {f"{one:g}": value for one, value in zip(ranked, tried, strict=True) if math.isfinite(value)}
            share = ranked[choice.best(tried)]
        facts["interpolate"] = {"tuned": share, "tensors": len(self._starts), "tried": values}
        return interpolation.between(self._starts, tuned, share), f"{share:g} of the way from the pretrained weights to {text}"

    def _weights(self) -> dict[str, Tensor]:
        return {entry.name: entry.parameter.detach().clone() for entry in self._scope.entries}

    def _put(self, weights: Weights) -> None:
        for entry in self._scope.entries:
            entry.parameter.data.copy_(weights[entry.name])


__all__ = ["Averaging", "Ended", "refuse_all_new", "state"]
