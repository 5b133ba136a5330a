"""When phases start: as planned, or earlier where a control asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multitune.core.plan import Plan
from multitune.tuning.plan import plateau_of
from multitune.tuning.scope import Scope


class Pacing:
    """The control of a run's phases, its state in the phase that it judges (by its planned start), and what it did: the scope's clock."""

    def __init__(self, plan: Plan, scope: Scope) -> None:
        self._scope, self._control = scope, plateau_of(plan)
        self._state: Mapping[str, Any] = self._control.start() if self._control else {}
        self._phase = 0

    def looked(self, done: int, figures: Mapping[str, float]) -> int:
        """Take an evaluation after `done` steps in; gives the planned start of the phase that is to start now, 0 where none is.

        Where a phase starts now as planned there is nothing to bring forward; each phase begins with a fresh state.
        """
        if self._control is None:
            return 0
        judged, following = self._scope.phase(done - 1), self._scope.phase(done)
        if following != self._phase:
            self._state, self._phase = self._control.start(), following
        if judged != following:
            return 0
        self._state, decision = self._control.decide(self._state, step=done, figures=figures)
        return self._scope.next_start(done) if decision.advance else 0

    def bring(self, planned: int, done: int) -> None:
        """Start the phase that was planned for the step `planned` after `done` steps; nothing where `planned` is 0."""
        if planned:
            self._scope.clock.early[planned] = done

    def facts(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        if self._control is None:
            return {}
        early = {str(planned): began for planned, began in self._scope.clock.early.items()}
        return {"pacing": {"state": dict(self._state), "phase": self._phase, "early": early}}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Put back what `facts` gave."""
        if "pacing" in facts:
            self._state, self._phase = facts["pacing"]["state"], facts["pacing"]["phase"]
            self._scope.clock.early.update({int(planned): began for planned, began in facts["pacing"]["early"].items()})
