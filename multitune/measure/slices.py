"""Slices: the rows of one value of a column, measured beside all rows while they stream by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from multitune.core.finding import Finding, Severity
from multitune.data.split import Examples

MOST = 50
LONGEST = 60
ABSENT = "(absent)"


@dataclass(frozen=True)
class Slice:
    """One value of a column; `name` is its place among figures: `slice/colour=red`."""

    column: str
    value: str
    name: str


@dataclass(frozen=True)
class Cut:
    """Which slices each row is in: for each column the slice of each row (None for a value too rare to have its own)."""

    rows: Sequence[Sequence[Slice | None]] = ()
    findings: tuple[Finding, ...] = ()

    def of(self, index: int) -> list[Slice]:
        """The slices of the row in place `index`."""
        return [found for column in self.rows if (found := column[index]) is not None]


def cut(columns: Sequence[str], examples: Examples) -> Cut:
    """The rows of a split by the values of columns; of a column with very many values the commonest 50 have slices."""
    rows: list[Sequence[Slice | None]] = []
    findings: list[Finding] = []
    for column in columns:
        values = [ABSENT if value is None else value for value in examples.column(column)]
        counts = Counter(values)
        commonest = [value for value, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST]]
        made = _made(column, sorted(commonest))
        rows.append([made.get(value) for value in values])
        if len(counts) > MOST:
            left = sum(counts.values()) - sum(counts[value] for value in commonest)
            found = (
                f'"{column}" has {len(counts):,} values: the commonest {MOST} have slices, {left:,} of {len(values):,} rows are in none.'
            )
            remedy = "Slice by a column of fewer values, such as ranges of it."
            findings.append(
                Finding("slices-capped", Severity.WARNING, "evaluate.slices", found, remedy, {"values": len(counts), "rows": left})
            )
    return Cut(rows, tuple(findings))


def _made(column: str, values: Sequence[str]) -> Mapping[str, Slice]:
    """A slice for each value, under a short name of its own without slashes (which part names of figures)."""
    made: dict[str, Slice] = {}
    taken = set[str]()
    for value in values:
        plain = value.replace("%", "%25").replace("/", "%2F")
        short, number = plain[:LONGEST], 2
        while short in taken:
            short, number = f"{plain[:LONGEST]}~{number}", number + 1
        taken.add(short)
        made[value] = Slice(column, value, f"slice/{column}={short}")
    return made
