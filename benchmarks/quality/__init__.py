"""Is a model tuned here as good as the same model tuned by a peer? HF Trainer classifies, sentence-transformers retrieves.

Same weights to start from, same rows, steps, batches, rate, schedule and optimizer: one job file is read by both sides, each in a
process of its own, and one function scores what both give back (`scores.py`). Seeds choose the training rows, the order and what is made
new. `elsewhere` are rows of a domain that nobody trained on. The peers' scripts are in `benchmarks/peers`. `multitune` is the peer's
model, reading the token that it reads and minimising the loss that it minimises; `multitune-mean` and `multitune-symmetric` are our
defaults, which read the mean, and look both ways.

`agree` is 1 where our mean reaches at least the low end of the peer's 95 % interval over the seeds. `--quick`: 2 seeds in place of 5.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.quality import scores
from benchmarks.quality.environment import overlay
from benchmarks.quality.jobs import COMPARISONS, Comparison, Job, written
from multitune.core.errors import Fault

SEEDS = (0, 1, 2, 3, 4)
QUICK = (0, 1)
OURS = "multitune"
ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benchmarks" / "peers"
Found = Mapping[str, Sequence[Mapping[str, float]]]


def measure(run: Path, *, fresh: bool, quick: bool = False) -> tuple[dict[str, float], bool]:
    """Figures as `PEER/SIDE/SCORE`, `PEER/SIDE/SCORE/low` and `.../high`, `PEER/ahead` in points, `PEER/agree`, and `agree` over all.

    Raises: UserError if a peer cannot be installed; Fault if a side fails.
    """
    peers = overlay()
    if fresh and run.exists():
        run.rename(run.with_name(f"{run.name}.old-{int(time.time())}"))
    seeds = QUICK if quick else SEEDS
    figures: dict[str, float] = {}
    for comparison in COMPARISONS:
        found = measured(run, comparison, seeds, peers)
        print("\n".join(table(comparison, found)), file=sys.stderr, flush=True)
        figures |= summary(comparison, found)
    agree = min(figures[f"{comparison.peer}/agree"] for comparison in COMPARISONS)
    return figures | {"agree": agree}, agree == 1.0


def measured(run: Path, comparison: Comparison, seeds: Sequence[int], peers: Path) -> dict[str, list[dict[str, float]]]:
    """The scores of every seed, of both sides; as many processes at a time as there are cores, each computing on one thread."""
    jobs = [written(run.resolve(), comparison, seed) for seed in seeds]
    sides = [OURS, *comparison.more, comparison.peer]
    asked = [(side, job) for job in jobs for side in sides]
    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
        done = dict(zip(asked, pool.map(lambda one: _side(*one, comparison=comparison, peers=peers), asked), strict=True))
    found = {side: [done[side, job] for job in jobs] for side in sides}
    for side, rows in found.items():
        print(f"{comparison.title}, {side}: " + ", ".join(f"{row[comparison.score]:.4f}" for row in rows), file=sys.stderr, flush=True)
    return found


def _side(side: str, job: Job, *, comparison: Comparison, peers: Path) -> dict[str, float]:
    """The scores of one side for one job; what it gave once is read again."""
    answer = job.folder / f"{side}.json"
    if not answer.is_file():
        theirs = side == comparison.peer
        script = [str(PEERS / f"{side.replace('-', '_')}_peer.py")] if theirs else ["-m", "benchmarks.quality.ours"]
        path = os.pathsep.join([str(ROOT), *([str(peers)] if theirs else [])])
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        changes = [json.dumps(comparison.more[side])] if side in comparison.more else []
        command = [sys.executable, *script, str(job.path), str(answer), *changes]
        log = answer.with_suffix(".log")
        with log.open("w", encoding="utf-8") as told:
            done = subprocess.run(command, cwd=ROOT, env=environment, stdout=told, stderr=told, check=False)
        if done.returncode:
            raise Fault(f"{side} ended with {done.returncode} on {job.path}; what it said is in {log}.")
    return scores.score(job, json.loads(answer.read_text("utf-8")))


def summary(comparison: Comparison, found: Found) -> dict[str, float]:
    """Means and intervals of both sides, in and out of domain; how far ours is ahead, seed by seed; whether it agrees."""
    figures: dict[str, float] = {}
    for side, rows in found.items():
        for name in (comparison.score, "elsewhere", "seconds"):
            values = [row[name] for row in rows]
            figures[f"{comparison.peer}/{side}/{name}"] = statistics.mean(values)
            if name != "seconds":
                low, high = scores.interval(values)
                figures |= {f"{comparison.peer}/{side}/{name}/low": low, f"{comparison.peer}/{side}/{name}/high": high}
    ours, theirs = ([row[comparison.score] for row in found[side]] for side in (OURS, comparison.peer))
    ahead = [100 * (left - right) for left, right in zip(ours, theirs, strict=True)]
    figures[f"{comparison.peer}/ahead"] = statistics.mean(ahead)
    figures[f"{comparison.peer}/agree"] = float(scores.agrees(ours, theirs))
    return figures


def table(comparison: Comparison, found: Found) -> Iterator[str]:
    """The comparison as a Markdown table."""
    figures = summary(comparison, found)
    seeds = len(found[OURS])
    yield f"\n{comparison.title}: {comparison.about}; {seeds} seeds\n"
    yield f"| | {comparison.score} | 95 % interval | elsewhere | 95 % interval | seconds |"
    yield "|---|---|---|---|---|---|"
    for side in found:
        lead = f"{comparison.peer}/{side}"
        shown = [f"{figures[f'{lead}/{name}']:.4f} | {_span(figures, f'{lead}/{name}')}" for name in (comparison.score, "elsewhere")]
        yield f"| {side} | {shown[0]} | {shown[1]} | {figures[f'{lead}/seconds']:.1f} |"
    verdict = "agrees" if figures[f"{comparison.peer}/agree"] else "IS BELOW the peer's interval"
    yield f"\n{OURS} {verdict}; ahead by {figures[f'{comparison.peer}/ahead']:+.2f} points, seed by seed"


def _span(figures: Mapping[str, float], name: str) -> str:
    return f"{figures[f'{name}/low']:.4f} to {figures[f'{name}/high']:.4f}"
