"""Which way of tuning, when? Every strategy on the same rows, in the same order, for the same steps; from scratch beside them.

Three settings (`arms.py`): `chimes` drawn in another domain than the base was trained on, with 20 and with 200 rows a class, and real
scans with 10 a class; five seeds each, which also choose the training rows. Each arm runs in a process of its own on one thread, as
many at a time as there are cores. `elsewhere` is the accuracy of the same tuned model on drawings of the domain that the base was
trained on. What ran once answers at once.

`--quick` takes one seed of `chimes-200` and eight arms; ok: all but scratch and frozen at least 5 points above scratch.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scipy import stats

from benchmarks.strategies.arms import ARMS, QUICK, SEEDS, SETTINGS

LEAD = 0.05
BASELINES = ("scratch", "frozen")
ROOT = Path(__file__).resolve().parents[2]
Rows = Mapping[str, Sequence[Mapping[str, float]]]


def measure(run: Path, *, fresh: bool, quick: bool = False) -> tuple[dict[str, float], bool]:
    """Mean accuracies as `NAME/accuracy` (with --quick) or `SETTING/NAME/accuracy`, with `low`, `high`, `seconds`, `moved`, `memory`."""
    if fresh and run.exists():
        run.rename(run.with_name(f"{run.name}.old-{int(time.time())}"))
    figures: dict[str, float] = {}
    ok = True
    for setting in ["chimes-200"] if quick else SETTINGS:
        found = measured(run, setting, QUICK if quick else tuple(ARMS), SEEDS[:1] if quick else SEEDS)
        print("\n".join(table(setting, found)), file=sys.stderr, flush=True)
        lead = f"{setting}/" if not quick else ""
        figures |= {f"{lead}{name}": value for name, value in summary(found).items()}
        ok = ok and leads(found)
    return figures, ok


def measured(run: Path, setting: str, arms: Sequence[str], seeds: Sequence[int]) -> dict[str, list[dict[str, float]]]:
    """The figures of every seed by arm."""
    fitting = [name for name in arms if not (ARMS[name].needs_two_towers and len(SETTINGS[setting].parts) < 2)]
    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:  # each arm computes on one thread, in a process of its own
        return dict(zip(fitting, pool.map(lambda name: _arm(run, setting, name, seeds), fitting), strict=True))


def _arm(run: Path, setting: str, name: str, seeds: Sequence[int]) -> list[dict[str, float]]:
    command = [sys.executable, "-m", "benchmarks.strategies.worker", setting, name, str(run.resolve()), *map(str, seeds)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"seed"')]
    print(f"{setting} {name}: " + ", ".join(f"{row['accuracy']:.3f}" for row in rows), file=sys.stderr, flush=True)
    return rows


def summary(found: Rows) -> dict[str, float]:
    """Means over the seeds; `low` and `high` are a t interval of 95 % where there are several."""
    figures: dict[str, float] = {}
    for name, rows in found.items():
        for figure in ("accuracy", "elsewhere", "moved"):
            if figure in rows[0]:
                figures[f"{name}/{figure}"] = statistics.mean(row[figure] for row in rows)
        figures |= {f"{name}/{figure}": rows[0][figure] for figure in ("seconds", "memory")}  # later seeds find what the first one loaded
        if len(rows) > 1:
            figures[f"{name}/low"], figures[f"{name}/high"] = interval([row["accuracy"] for row in rows])
    return figures


def interval(values: Sequence[float]) -> tuple[float, float]:
    """A 95 % t interval of the mean of independent values."""
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values) - half, statistics.mean(values) + half


def leads(found: Rows) -> bool:
    """Whether every arm but the two baselines is far enough above scratch."""
    mean = {name: statistics.mean(row["accuracy"] for row in rows) for name, rows in found.items()}
    return all(value >= mean["scratch"] + LEAD for name, value in mean.items() if name not in BASELINES)


def table(setting: str, found: Rows) -> Iterable[str]:
    """The setting as a Markdown table."""
    figures = summary(found)
    seeds = len(next(iter(found.values())))
    yield f"\n{SETTINGS[setting].title}; {seeds} seed{'s' * (seeds > 1)}\n"
    yield "| strategy | accuracy | 95 % interval | elsewhere | parameters moved | processor seconds | memory, MB |"
    yield "|---|---|---|---|---|---|---|"
    for name in found:
        low = f"{figures[f'{name}/low']:.3f} to {figures[f'{name}/high']:.3f}" if f"{name}/low" in figures else ""
        other = f"{figures[f'{name}/elsewhere']:.3f}" if f"{name}/elsewhere" in figures else ""
        yield (
            f"| {name} | {figures[f'{name}/accuracy']:.3f} | {low} | {other} | {figures[f'{name}/moved']:,.0f} "
            f"| {figures[f'{name}/seconds']:.1f} | {figures[f'{name}/memory'] / 1e6:.0f} |"
        )
