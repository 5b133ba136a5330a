"""What every benchmark beside peers shares: sides run in turn, each in a process of its own; medians, ratios, a table, results.

A side is a program: `python COMMAND... JOB ANSWER`. JOB is a file of JSON with all that it is asked; it writes its numbers to ANSWER as one
JSON object. What a side answered once in a run's folder is read again, as long as its job is the same; `--fresh` moves it aside.
"""

from benchmarks.beside.figures import Wanted, best, extrapolated, judged, median, ratio, spread, table
from benchmarks.beside.machine import machine, peak_bytes, resident_bytes, versions
from benchmarks.beside.results import REPORT, Section, merged, tell
from benchmarks.beside.running import Answer, Found, Side, answers, cleared, threads

__all__ = [
    "REPORT",
    "Answer",
    "Found",
    "Section",
    "Side",
    "Wanted",
    "answers",
    "best",
    "cleared",
    "extrapolated",
    "judged",
    "machine",
    "median",
    "merged",
    "peak_bytes",
    "ratio",
    "resident_bytes",
    "spread",
    "table",
    "tell",
    "threads",
    "versions",
]
