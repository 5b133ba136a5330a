"""One way of scoring what both sides gave."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from scipy import stats

from benchmarks.quality.jobs import Job
from multitune.measure.metrics.retrieval import ranks_of

MEASURED = ("test", "elsewhere")


def score(job: Job, answer: Mapping[str, Any]) -> dict[str, float]:
    """The job's score on `test` under its name, on `elsewhere` under that one, and the side's seconds of training."""
    judge = _accuracy if job.kind == "classification" else _recall
    found = {split: judge(job.rows(split), answer[split]) for split in MEASURED}
    return {job.score: found["test"], "elsewhere": found["elsewhere"], "seconds": float(answer["seconds"])}


def _accuracy(rows: Sequence[Mapping[str, Any]], said: Mapping[str, str]) -> float:
    """said: id -> class."""
    assert {row["id"] for row in rows} == said.keys()
    return statistics.mean(said[row["id"]] == row["label"] for row in rows)


def _recall(rows: Sequence[Mapping[str, Any]], file: str) -> float:
    """The share of queries whose nearest document has their own text. file: safetensors `query` and `document` (rows, width)."""
    vectors = load_file(Path(file))
    texts = {text: number for number, text in enumerate(dict.fromkeys(row["document"] for row in rows))}
    hits = np.array([texts[row["document"]] for row in rows], np.int64)
    assert vectors["query"].shape == vectors["document"].shape
    assert len(hits) == len(vectors["query"])
    return float((ranks_of(vectors["query"], vectors["document"], hits) == 1).mean())


def interval(values: Sequence[float]) -> tuple[float, float]:
    """A 95 % t interval of the mean over seeds."""
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values) - half, statistics.mean(values) + half


def agrees(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Whether our mean lies within the peer's interval, or above it."""
    return statistics.mean(ours) >= interval(theirs)[0] - 1e-12
