"""What a page is made of: plain data that the verb brings together from the rooms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multitune.core.finding import Finding
from multitune.core.ledger import Record
from multitune.measure.extremes import Extremes
from multitune.measure.report import Report


@dataclass(frozen=True)
class Content:
    """Everything on a page; what is left empty has no section.

    title: of the run or the artifact. about: a line beneath it. facts: name -> value, such as steps and device. events: as
    events.jsonl holds them: `{step, name, value}`. best_step: whose weights were kept. findings: of the whole run; else the report's.
    ledger: what became of rows that did not simply pass. extremes: the worst and best rows. plan: as people read it.
    """

    title: str
    report: Report
    about: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
    best_step: int = 0
    findings: Sequence[Finding] = ()
    ledger: Sequence[Record] = ()
    extremes: Extremes | None = None
    plan: str = ""
