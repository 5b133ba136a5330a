"""Whether the features of a cut are worth keeping: a cost model of bytes, seconds and readings, and nothing else.

The seconds of a row are measured; what a disk writes and memory reads is stated here, low rather than high. So is what a store costs
however few its rows are: to be opened, and to be checked.
"""

from __future__ import annotations

from dataclasses import dataclass

WRITTEN = 150e6  # bytes a second that are hashed and written
READ = 1e9  # bytes a second that are read back
LEAST_SECONDS = 2.0  # what is to be saved at least
LEAST_SHARE = 0.1  # of the seconds that it would take without
SPARE = 0.9  # of the free disk that features may take


@dataclass(frozen=True)
class Asked:
    """What steps and evaluations ask of a cut. rows: different ones, at most; reads: how often a row is asked for, in all."""

    rows: int
    reads: int


@dataclass(frozen=True)
class Cost:
    """Of one row at a cut: the seconds of its encoding, measured, and the bytes that it takes as they are stored."""

    seconds: float
    bytes: float


@dataclass(frozen=True)
class Choice:
    """What was chosen for a cut, with what it rests on. why: it is not kept; empty where it is."""

    tower: str
    cut: str
    asked: Asked
    cost: Cost
    why: str

    @property
    def kept(self) -> bool:
        """Whether its features are kept."""
        return not self.why

    @property
    def saved(self) -> float:
        """Seconds that keeping saves, as estimated."""
        return saved(self.asked, self.cost)

    def line(self) -> str:
        """For people: what is kept, and what it takes and saves."""
        size = f"{self.cost.bytes:,.0f} bytes a row, {self.cost.bytes * self.asked.rows:,.0f} in all"
        told = f"{self.cut}: {size}; {1000 * self.cost.seconds:.2g} ms a row, {self.asked.reads:,} readings of {self.asked.rows:,} rows"
        return f"{told}; saves about {self.saved:.2g} s" if self.kept else f"{told}; not kept: {self.why}"


def saved(asked: Asked, cost: Cost) -> float:
    """Seconds that keeping saves: those of every reading but the first, less those of writing and of reading back."""
    again = (asked.reads - asked.rows) * cost.seconds
    return again - asked.rows * cost.bytes / WRITTEN - asked.reads * cost.bytes / READ


def choose(tower: str, cut: str, *, asked: Asked, cost: Cost, free: float, must: bool) -> Choice:
    """Whether the features of a cut are kept. free: bytes that the disk has. must: they are, unless the disk has no room."""
    need, gain = cost.bytes * asked.rows, saved(asked, cost)
    why = ""
    if need > SPARE * free:
        why = f"they take up to {need:,.0f} bytes, and {free:,.0f} are free"
    elif not must and asked.reads <= asked.rows:
        why = "no row is read twice"
    elif not must and gain < max(LEAST_SECONDS, LEAST_SHARE * asked.reads * cost.seconds):
        why = f"it would save {max(gain, 0.0):.2g} s" if gain >= 0 else "it would take longer"
    return Choice(tower, cut, asked, cost, why)
