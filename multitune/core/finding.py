"""What a check says: one form for data, plan, training and export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding matters; ordered from `info` to `error`."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    code: stable, kebab-case, such as `few-negatives`. where: a recipe path, a tower, a sample. evidence: the numbers that
    it rests on. remedy: what would do, in one sentence.
    """

    code: str
    severity: Severity
    where: str
    message: str
    remedy: str = ""
    evidence: Mapping[str, object] = field(default_factory=dict)

    def line(self) -> str:
        """The finding as one line of text."""
        return f"{self.severity}: {self.where}: {self.message}" + (f" {self.remedy}" if self.remedy else "")

    def to_json(self) -> dict[str, object]:
        """The finding as plain data."""
        plain: dict[str, object] = asdict(self)
        return plain | {"severity": str(self.severity), "evidence": dict(self.evidence)}
