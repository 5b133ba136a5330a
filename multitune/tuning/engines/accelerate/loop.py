"""What a run carries from step to step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multitune.core.errors import StateError, Stopped
from multitune.core.finding import Finding, Severity
from multitune.core.ledger import Ledger
from multitune.core.plan import Plan
from multitune.core.protocols import Control, Loss
from multitune.core.rundir import RunDir
from multitune.tuning import checkpoint, events, optimizer
from multitune.tuning.averaging import Averaging, Ended
from multitune.tuning.compiling import compiled_of
from multitune.tuning.engines.accelerate.pacing import Pacing
from multitune.tuning.events import Events, Probe
from multitune.tuning.events.tracking import Tracking
from multitune.tuning.events.waiting import Waiting
from multitune.tuning.gradients import Gradients
from multitune.tuning.plan import statistics_every
from multitune.tuning.plan.compiling import asked as compiles
from multitune.tuning.plan.optimizing import optimizer_of
from multitune.tuning.plan.regularising import regulariser, regularisers_of
from multitune.tuning.ranks import Ranks, put
from multitune.tuning.regularisers.start import told
from multitune.tuning.schedule import Schedule
from multitune.tuning.scope import LearningLoss, Scope
from multitune.tuning.signals import Asked, Interrupted
from multitune.tuning.step import Report, Step

Watch = Callable[[Any], Mapping[str, float]]
CHECKPOINT_SECONDS = 2.0  # apart, where the recipe does not say how often: each is flushed to the disk, which may take longer than an epoch


@dataclass(frozen=True)
class Outcome:
    """How training ended; the family holds the weights of `best_step`, or what was averaged. stopped_by: why it ended early, else empty.

    resumed: the step from which its last start went on, 0 where that was the first. weights: which they are where they were averaged;
    averaged: what was chosen for them, as plain data.
    """

    step: int
    best_step: int
    best_figures: Mapping[str, float]
    stopped_by: str
    seconds: float
    steps_per_second: float
    findings: tuple[Finding, ...]
    resumed: int = 0
    weights: str = ""
    averaged: Mapping[str, Any] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, float]:
        """The figures of the best step, by name, and how fast training went."""
        return {**self.best_figures, "train/best_step": float(self.best_step), "train/steps_per_second": self.steps_per_second}

    @property
    def summary(self) -> str:
        """One line for people."""
        kept = self.weights or f"weights of step {self.best_step}"
        text = f"trained {self.step} steps in {self.seconds:.1f} s ({self.steps_per_second:.2f} steps/s), {kept}"
        text += f"; stopped early: {self.stopped_by}" if self.stopped_by else ""
        return f"{text}; went on from step {self.resumed}" if self.resumed else text


@dataclass
class Loop:
    """What a run carries from step to step. done: optimizer steps taken. figures: of the last evaluation of this start."""

    family: Any
    scope: Scope
    loss: Loss
    plan: Plan
    run: RunDir
    ranks: Ranks
    watch: Watch
    ledger: Ledger
    control: Control | None
    done: int = 0
    looked: int = 0
    kept: int = 0
    skipped: int = 0
    best_step: int = 0
    best_figures: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    stopped_by: str = ""
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        plan = self.plan
        self.schedule = Schedule(plan["train.schedule"], self.scope.total, plan["train.warmup_steps"], plan["train.decay_steps"])
        self.optimizer = optimizer_of(plan, self.scope)
        watched = () if compiles(plan) else tuple(self.family.needs.parts)  # blocks above what is watched would be other graphs
        self.probe = Probe(self.ranks, statistics_every(plan), watched)
        gradients = Gradients(self.family, self.loss, plan["run.seed"], self.ranks, plan["train.precision"], self.probe)
        self.compiling = compiled_of(plan, self.family, self.ranks.device)
        self.penalties, self.start = regularisers_of(plan, self.scope)
        self.one_step = Step(
            gradients,
            scope=self.scope,
            optimizer=self.optimizer,
            clip_norm=plan["train.clip_norm"],
            clip_value=regulariser(plan, "clip_value"),
            penalties=self.penalties,
        )
        self.folder: Path = self.run.folder / "checkpoints"
        self.control_state: Mapping[str, Any] = self.control.start() if self.control else {}
        self.start_hashes = self.scope.hashes()
        self.waiting = Waiting()
        self.averaging, self.pacing = Averaging(plan, self.scope), Pacing(plan, self.scope)
        self._seconds_before = 0.0
        self._resume()
        self.ranks.share([*(p.data for p in self.family.parameters()), *self.scope.buffers().values(), *self.averaging.averages.values()])
        self.events = Events(self.run.folder / "events.jsonl", after=self.done) if self.ranks.main else None
        self.tracking = Tracking.of(plan, self.run, after=self.done) if self.ranks.main else Tracking()
        self._started, self._first = time.monotonic(), self.done
        self._kept_at = self._started

    @property
    def seconds(self) -> float:
        """Seconds of training, over all starts of the run."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def rate(self) -> float:
        """Steps a second since this start."""
        return (self.done - self._first) / max(time.monotonic() - self._started, 1e-9)

    def place(self) -> str:
        """The step and the run's folder, for people."""
        return f"step {self.done} in {self.run.folder}"

    def step(self, batch: Any) -> Report:
        """Take one optimizer step and say what it gave."""
        began = time.perf_counter()
        self.scope.enter(self.done)
        rate = optimizer.set_rates(self.optimizer, self.schedule, lr=self.plan["train.lr"], step=self.done, clock=self.scope.clock)
        self.probe.begin(self.done)
        with self.compiling.step(self.done):
            report = self.one_step(self.done, batch.micro)
        self.done += 1
        self.skipped += report.skipped
        if not report.skipped:
            self.averaging.moved(self.done)
        values = {"train/loss": report.loss, "train/lr": rate, "train/gradient_norm": report.gradient_norm}
        if self.penalties.active:
            values["train/penalty"] = report.penalty
        if len(report.terms) > 1:
            values |= {f"train/loss/{term}": value for term, value in report.terms.items()}
        shared = {term: self.loss.shares.get(term, 1.0) * value for term, value in report.terms.items()}
        looked_at = self.probe.values(shared)
        values |= {"train/wait_seconds": batch.wait_seconds} | self.probe.times()
        self._say(values | looked_at | (self._learned() if looked_at else {}))
        self.waiting.add(batch.wait_seconds, time.perf_counter() - began)
        return report

    def heed(self, asked: Asked) -> None:
        """Where a signal asked any rank for an end: keep a checkpoint of this step and end.

        Raises: Stopped.
        """
        number = int(self.ranks.highest(asked.number))
        if number:
            if self.kept < self.done:
                self.keep()
            raise Stopped(asked.name(number), 128 + number, kept=self.place())

    def look(self, asked: Asked) -> bool:
        """Evaluate and keep a checkpoint where this step asks for it, nothing twice; whether it evaluated.

        Raises: Stopped, after a checkpoint, where a signal came meanwhile; an evaluation that it cut short is done again on resume.
        """
        last, every = self.done == self.scope.total, self.plan.values["train.checkpoint_every"]
        evaluates = self.looked < self.done and (last or self.done % self.plan["train.evaluate_every"] == 0)
        if evaluates:
            self._evaluate(asked)
        due = self.done % every.value == 0 and (every.origin == "recipe" or self._long_since())
        wanted = last or due or self.best_step == self.done or self.stopped_by
        wanted = wanted or (evaluates and self.averaging.keeps_looks)
        keeps = self.kept < self.done and bool(wanted)
        if keeps:
            self.keep()
        if evaluates or keeps:
            self.heed(asked)
        return evaluates

    def _long_since(self) -> bool:
        """Whether the last checkpoint is long enough ago, by the main process's clock: what follows is done by all ranks or by none."""
        return bool(self.ranks.from_main([int(time.monotonic() - self._kept_at >= CHECKPOINT_SECONDS)])[0])

    def keep(self) -> None:
        """Write a checkpoint; what it rests on (events, ledger) is on the disk before it."""
        self.kept, self._kept_at = self.done, time.monotonic()
        self.compiling.gather(self.ranks)
        if self.events is None:
            return
        self.events.sync()
        self.ledger.seal(f"{self.done:06d}")
        tensors = {entry.name: entry.parameter for entry in self.scope.entries}
        tensors |= {f"{name}!buffer": tensor.clone() for name, tensor in self.scope.buffers().items()} | self.averaging.averages
        state = checkpoint.State(self.done, tensors, optimizer.moments(self.optimizer, self.scope), self._facts())
        checkpoint.save(self.folder, state, keep=self.plan["train.keep"], needed={self.best_step, *self.averaging.wanted()})

    def finish(self, asked: Asked) -> Outcome:
        """Compare what moved with the plan, and put the best step's weights, or what the plan averages, in place.

        Raises: Stopped where a signal came meanwhile; the same command does it again.
        """
        self.findings += self.scope.compare(self.start_hashes, self.scope.hashes(), steps=self.done)
        self.findings += [*self.waiting.findings(self.plan["train.workers"]), *self.compiling.findings()]
        if self.skipped:
            self.findings.append(Finding("steps-skipped", Severity.INFO, "train.precision", f"fp16 overflowed in {self.skipped} steps."))
        best = self.best_step or self.done
        if best != self.done:
            try:
                self._put(checkpoint.read(checkpoint.at(self.folder, best)))
            except StateError as error:
                self.findings.append(Finding("best-lost", Severity.ERROR, f"step {best}", f"{error}.", "The last weights are used."))
                best = self.done
        self.scope.leave()
        seconds = self.seconds
        speed = self.done / max(seconds, 1e-9)
        ended = self._averaged(best, asked)
        drift = self.start.drift(self.scope) if self.start else {}
        figures, findings = {**self.best_figures, **drift, **self._learned()}, (*self.findings, *told(drift), *self.tracking.findings)
        return Outcome(self.done, best, figures, self.stopped_by, seconds, speed, findings, self._first, ended.text, ended.facts)

    def close(self) -> None:
        """Close the events."""
        if self.events is not None:
            self.events.close()
        self.tracking.close()

    def _evaluate(self, asked: Asked) -> None:
        whole, best, stop, phase = self.ranks.from_main(self._judged(asked) if self.ranks.main else [0, 0, 0, 0])
        self.pacing.bring(phase, self.done)
        self.looked = self.done if whole else self.looked
        self.best_step = self.done if best else self.best_step
        self.stopped_by = self.stopped_by or ("the main process" if stop else "")

    def _judged(self, asked: Asked) -> list[int]:
        """Whether the evaluation came to its end, whether this step is the best so far, whether to stop, which phase starts now."""
        self.scope.leave()
        try:
            with self.averaging.worn(), asked.at_once():
                figures = dict(self.watch(self.family))
        except Interrupted:
            return [0, 0, 0, 0]
        self.figures = {name: value for name, value in figures.items() if math.isfinite(value)}
        self._say(self.figures | (self.start.drift(self.scope) if self.start else {}))
        self.averaging.looked(self.done, figures)
        best, stop = False, False
        if self.control:
            self.control_state, decision = self.control.decide(self.control_state, step=self.done, figures=figures)
            best, stop = decision.best, decision.stop
            self.stopped_by = decision.reason if stop else ""
        if best or not self.control:
            self.best_figures = figures
        phase = self.pacing.looked(self.done, figures)
        if phase:
            self._say({"train/phase_brought_forward": float(phase)})
        return [1, int(best), int(stop), phase]

    def _averaged(self, best: int, asked: Asked) -> Ended:
        """Put what the plan averages in place, on all ranks alike; of what it then is, only what was to move may have changed."""

        def measure() -> Mapping[str, float]:
            try:
                with asked.at_once():
                    return dict(self.watch(self.family))
            except Interrupted:
                raise Stopped(asked.name(asked.number), 128 + asked.number, kept=self.place()) from None

        def end() -> Ended:
            return self.averaging.end(
                best=best, read=lambda step: checkpoint.read(checkpoint.at(self.folder, step)).tensors, measure=measure
            )

        if not self.averaging.active:
            return Ended()
        ended = self.ranks.on_main(end) or Ended()
        self.ranks.share([entry.parameter.data for entry in self.scope.entries])
        if self.ranks.main:
            strays = self.scope.compare(self.start_hashes, self.scope.hashes(), steps=self.done)
            self.findings += [*ended.findings, *(finding for finding in strays if finding.code == "moved-unplanned")]
            self.best_figures = {**(self.best_figures if ended.figures is None else ended.figures), **ended.numbers}
            if not any(event["name"] in ended.events for event in events.read(self.run.folder / "events.jsonl")):
                self._say(ended.events)
        return ended

    def _learned(self) -> dict[str, float]:
        """What the loss learned of its terms' shares, as figures."""
        shares = self.loss.learned() if isinstance(self.loss, LearningLoss) else {}
        return {f"train/learned_share/{term}": value for term, value in shares.items()}

    def _say(self, values: Mapping[str, float]) -> None:
        if self.events is not None:
            self.events.write(values, step=self.done, seconds=self.seconds)
            self.tracking.write(values, step=self.done)

    def _facts(self) -> dict[str, Any]:
        return {
            "plan": self.plan.hash(),
            "looked": self.looked,
            "skipped": self.skipped,
            "best_step": self.best_step,
            "best_figures": {name: value for name, value in self.best_figures.items() if math.isfinite(value)},
            "stopped_by": self.stopped_by,
            "control": dict(self.control_state),
            "scale": vars(self.one_step.scale),
            "seconds": round(self.seconds, 3),
            "start": self.start_hashes,
            **self.averaging.facts(),
            **self.pacing.facts(),
            **self.compiling.facts(),
        }

    def _resume(self) -> None:
        """Go back to the newest checkpoint that verifies, if there is one."""
        found = checkpoint.latest(self.folder) if self.ranks.main else None
        (step,) = self.ranks.from_main([found.state.step if found else 0])
        if not step:
            return
        state = found.state if found else checkpoint.read(checkpoint.at(self.folder, step))
        facts = state.facts
        changed = [name for name in {**facts["start"], **self.start_hashes} if facts["start"].get(name) != self.start_hashes.get(name)]
        if facts["plan"] != self.plan.hash() or changed:
            what = f"the model is another than the run began with (such as {changed[0]})" if changed else "the plan is another"
            raise StateError(f"{self.folder}: {what}. Undo the change, or start anew with --fresh.")
        self.pacing.restore(facts)
        self.compiling.restore(facts, scope=self.scope, ranks=self.ranks)
        self._put(state)
        optimizer.load_moments(self.optimizer, self.scope, state.moments)
        self.done = self.kept = step
        self.scope.step = step - 1
        self.looked, self.skipped, self.stopped_by = facts["looked"], facts["skipped"], facts["stopped_by"]
        self.best_step, self.best_figures, self.control_state = facts["best_step"], facts["best_figures"], facts["control"]
        vars(self.one_step.scale).update(facts["scale"])
        self._seconds_before = facts["seconds"]
        self.averaging.restore(facts)
        self.findings += found.findings if found else ()

    def _put(self, state: checkpoint.State) -> None:
        homes = {entry.name: entry.parameter.data for entry in self.scope.entries}
        homes |= {f"{name}!buffer": tensor for name, tensor in self.scope.buffers().items()} | self.averaging.averages
        if homes.keys() != state.tensors.keys():
            raise StateError(f"{self.folder}: the checkpoint of step {state.step} holds other tensors than move now")
        for name, home in homes.items():
            put(state.tensors[name], into=home)
