"""Every benchmark, each in a process of its own, and what they found in `benchmarks/RESULTS.md`.

A benchmark's section takes the place of its earlier one; the sections of other forms (`--quick` or not) and of benchmarks that fail stay.
"""

from __future__ import annotations

import datetime
import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.beside import REPORT, Section, cleared, machine, merged, versions
from benchmarks.beside.running import ROOT
from multitune.core.rundir import write_atomic

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
FORMS = ("again",)  # further forms of a benchmark, each a section of its own


def measure(run: Path, *, fresh: bool, quick: bool = False) -> tuple[dict[str, float], bool]:
    """The figures of all as `NAME/FIGURE`, and whether each was as wanted; a benchmark that could not be run has `NAME/failed`."""
    run = cleared(run, fresh=fresh)
    figures: dict[str, float] = {}
    ok, sections = True, []
    for name, forms in asked(quick):
        title = " ".join([name, *forms])
        told = _run(run / name, name, forms)
        ok = ok and bool(told.get("ok"))
        found = told.get("figures", {})
        key = title.replace(" --quick", "").replace(" --", "-")
        figures |= {f"{key}/{figure}": value for figure, value in found.items()} if found else {f"{key}/failed": 1.0}
        if found:
            sections.append(Section(f"`{title}`, {datetime.date.today()}", tuple(_lines(run / name, found))))
            write_atomic(RESULTS, merged(RESULTS.read_text("utf-8"), sections).encode("utf-8"))
    return figures, ok


def asked(quick: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each benchmark with the options of each of its forms; the quick form where it has one and that is asked for."""
    files = [*HERE.glob("[a-z]*.py"), *HERE.glob("[a-z]*/__init__.py")]
    places = (path.parent if path.name == "__init__.py" else path for path in files if "\ndef measure(" in path.read_text("utf-8"))
    for name in sorted({path.stem for path in places} - {Path(__file__).stem}):
        takes = inspect.signature(importlib.import_module(f"benchmarks.{name}").measure).parameters
        common = ("--quick",) if quick and "quick" in takes else ()
        word = name.replace("_", "-")
        yield word, common
        yield from ((word, (f"--{form}", *common)) for form in FORMS if form in takes)


def _run(run: Path, name: str, forms: Sequence[str]) -> dict[str, object]:
    """The benchmark's last line, or nothing where it did not come to one."""
    (run / REPORT).unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks", name, *forms, "--json", "--run", str(run)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    last = (done.stdout.splitlines() or [""])[-1]
    return json.loads(last) if last.startswith("{") else {}


def _lines(run: Path, found: dict[str, float]) -> Iterator[str]:
    """What the benchmark wrote for people, else its figures and the machine."""
    if (run / REPORT).is_file():
        yield from (run / REPORT).read_text("utf-8").splitlines()
        return
    yield from (f"{machine()}; {versions()}.", "", "| figure | value |", "|---|---|")
    yield from (f"| `{name}` | {value:.4g} |" for name, value in found.items())
