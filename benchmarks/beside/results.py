"""What a benchmark found, as a section of a Markdown file that keeps the sections of others."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from multitune.core.rundir import write_atomic

REPORT = "report.md"
HEAD = "## "


@dataclass(frozen=True)
class Section:
    """title: as it stands after the hashes, such as "`frozen --quick`, 2026-11-23"; what comes before a comma names it."""

    title: str
    lines: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of two sections with one name the later is kept."""
        return self.title.partition(",")[0].strip()


def tell(run: Path, lines: Iterable[str]) -> None:
    """Say what was found, on standard error and in the run's folder."""
    text = "\n".join(lines) + "\n"
    print(f"\n{text}", file=sys.stderr, flush=True)
    write_atomic(run / REPORT, text.encode("utf-8"))


def merged(text: str, new: Iterable[Section]) -> str:
    """A Markdown text with these sections in the place of those that have their names, or after all others; the rest stays as it is."""
    head, *kept = f"\n{text}".split(f"\n{HEAD}")
    sections = {(one := _read(piece)).name: one for piece in kept}
    sections |= {one.name: one for one in new}
    written = [f"{HEAD}{one.title}\n\n" + "\n".join(one.lines).strip("\n") for one in sections.values()]
    return "\n\n".join([head.strip("\n"), *written]) + "\n"


def _read(piece: str) -> Section:
    title, _, rest = piece.partition("\n")
    return Section(title.strip(), tuple(rest.strip("\n").splitlines()))
