"""Runs the sides of a comparison in turn, and reads what they answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.quality.environment import overlay
from multitune.core import store
from multitune.core.errors import Fault
from multitune.core.rundir import write_atomic

ROOT = Path(__file__).resolve().parents[2]
KIB = 1024
Answer = Mapping[str, Any]
Found = Mapping[str, Sequence[Answer]]


@dataclass(frozen=True)
class Side:
    """One of those that are compared. command: what the interpreter is given, such as `("-m", "benchmarks.x.ours")` or a script's path.

    overlaid: it needs the peers' packages, laid over our environment. job: what it is asked beyond what all are asked.
    """

    name: str
    command: tuple[str, ...]
    overlaid: bool = False
    job: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def threads() -> int:
    """The compute threads of every side: the cores there are."""
    return os.cpu_count() or 1


def cleared(run: Path, *, fresh: bool) -> Path:
    """The folder of a benchmark, absolute; with `fresh`, what it held is moved aside."""
    if fresh and run.exists():
        run.rename(run.with_name(f"{run.name}.old-{time.time_ns()}"))
    run.mkdir(parents=True, exist_ok=True)
    return run.resolve()


def answers(run: Path, sides: Sequence[Side], job: Mapping[str, Any], *, repeats: int) -> dict[str, list[Answer]]:
    """What each side answers to a job, once a repeat; side after side, another one first in each repeat.

    A job also has `folder` (the side's own, empty), `repeat` and `threads`. An answer also has `process_seconds` (from launch to end),
    `launched` (`time.monotonic()` at its launch) and `peak_bytes` (of the process, its resident memory at most).
    Raises: Fault if a side fails; UserError if the peers' packages cannot be installed.
    """
    peers = overlay() if any(side.overlaid for side in sides) else None
    found: dict[str, list[Answer]] = {side.name: [] for side in sides}
    for repeat in range(repeats):
        first = repeat % len(sides)
        for side in (*sides[first:], *sides[:first]):
            found[side.name].append(_answer(run, side, {**job, **side.job, "repeat": repeat, "threads": threads()}, peers))
    return found


def _answer(run: Path, side: Side, job: Mapping[str, Any], peers: Path | None) -> Answer:
    folder = run / side.name / str(job["repeat"])
    kept, asked = folder / "answer.json", store.key({"job": job, "command": side.command})
    if kept.is_file() and (before := json.loads(kept.read_text("utf-8")))["asked"] == asked:
        return before
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "work").mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({**job, "folder": str(folder / "work")}, indent=1) + "\n", "utf-8")
    path = os.pathsep.join([str(ROOT), *([str(peers)] if side.overlaid and peers else [])])
    given = {"PYTHONPATH": path, "OMP_NUM_THREADS": str(job["threads"]), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, *side.command, str(folder / "job.json"), str(folder / "said.json")]
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        launched = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **given, **side.environment}, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - launched
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Fault(f"{side.name} ended with {process.returncode}; what it said is in {folder / 'log.txt'}.")
    measured = {"process_seconds": seconds, "launched": launched, "peak_bytes": usage.ru_maxrss * KIB}
    answer = {**json.loads((folder / "said.json").read_text("utf-8")), **measured, "asked": asked}
    write_atomic(kept, json.dumps(answer).encode("utf-8"))
    shutil.rmtree(folder / "work")
    print(f"{side.name}, {job['repeat'] + 1}: {seconds:.1f} s", file=sys.stderr, flush=True)
    return answer
