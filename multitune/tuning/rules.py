"""The tuning table in time: which of its rows rules a tensor at which step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from multitune.core.recipe import TuningRow, steps_of
from multitune.models.anatomy import Anatomy


@dataclass(frozen=True)
class Span:
    """Optimizer steps `start` (inclusive) to `stop` (exclusive) in which something moves at a rate that multiplies the run's.

    since: the first step of the unbroken stretch that the span belongs to: there the optimizer's state is new and a warmup begins.
    """

    start: int
    stop: int
    rate: float
    since: int


@dataclass
class Clock:
    """Which planned step a step of the run stands for: a phase may start earlier than planned (a control asks for it), never later.

    early: the planned start of a phase that was brought forward -> the step at which it started.
    """

    early: dict[int, int] = field(default_factory=dict)

    def moment(self, step: int) -> int:
        """The planned step that rules what moves at `step`."""
        return max((step, *(planned for planned, began in self.early.items() if began <= step)))

    def began(self, planned: int) -> int:
        """The step at which that began which was planned for `planned`."""
        return self.early.get(planned, planned)


def resolve(
    rows: Sequence[TuningRow], anatomy: Anatomy, *, total: int, by_row: Mapping[int, Sequence[str]] | None = None
) -> dict[str, tuple[TuningRow, ...]]:
    """For each public name that a row means, the rows that rule it: a row takes the place of those before it that share a step with it.

    anatomy: that of the model before anything is inserted. A row that inserts rules what it brought (`by_row`), not the tensors
    that it is put beside. total: optimizer steps of the run.
    Raises: ModelError for a pattern that matches nothing.
    """
    rules: dict[str, tuple[TuningRow, ...]] = {}
    for position, row in enumerate(rows):
        where = f"strategy.{position}.pattern"
        names = anatomy.match(row.pattern, where=where) if row.insert is None else (by_row or {}).get(position, ())
        for name in names:
            rules[name] = (*(old for old in rules.get(name, ()) if apart(old, row, total)), row)
    return rules


def span(row: TuningRow, total: int) -> tuple[int, int]:
    """Start (inclusive) and stop (exclusive) of a row in optimizer steps of `total`."""
    stop = total if row.stop is None else min(total, steps_of(row.stop, total=total))
    return steps_of(row.start, total=total), stop


def spans(rows: Sequence[TuningRow], *, total: int) -> tuple[Span, ...]:
    """When and how fast that moves which these rows rule, in the order of time; spans of one rate that touch are one."""
    found: list[Span] = []
    for start, stop, rate in sorted((*span(row, total), row.rate) for row in rows):
        if rate <= 0 or start >= stop:
            continue
        before = found[-1] if found and found[-1].stop == start else None
        if before is not None and before.rate == rate:
            found[-1] = Span(before.start, stop, rate, before.since)
        else:
            found.append(Span(start, stop, rate, before.since if before is not None else start))
    return tuple(found)


def apart(one: TuningRow, other: TuningRow, total: int) -> bool:
    """Whether two rows share no step. A row of no steps stands for the whole run: it says that what it means does not move."""
    (start, stop), (begin, end) = span(one, total), span(other, total)
    return start < stop and begin < end and (stop <= begin or end <= start)
