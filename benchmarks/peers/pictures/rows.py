"""The rows of a job as the peers read them: each picture is decoded when it is asked for, as a data set of files is.

Source: Transformers' guide to image classification, PyTorch's to data sets; nothing of ours is imported in this folder.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image


class Rows(torch.utils.data.Dataset):
    """Pixels and class of each row of a split."""

    def __init__(self, job: dict[str, Any], split: str, processor: Any, labels: Sequence[str]) -> None:
        self.rows = [row for row in read(job) if row["split"] == split]
        self.root, self.processor = Path(job["rows"]).parent, processor
        self.labels = [labels.index(row["label"]) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture = Image.open(self.root / self.rows[index]["image"]).convert("RGB")
        return {"pixel_values": self.processor(picture, return_tensors="pt")["pixel_values"][0], "labels": self.labels[index]}


def read(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of all splits."""
    return [json.loads(line) for line in Path(job["rows"]).read_text("utf-8").splitlines()]


def classes(job: dict[str, Any]) -> list[str]:
    """The classes, sorted."""
    return sorted({row["label"] for row in read(job)})


class Clock:
    """Seconds and memory of training: from when this is made."""

    def __init__(self) -> None:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        self._resident, self.marks = pages * resource.getpagesize(), [time.perf_counter()]

    def start(self) -> None:
        """Training begins now; memory counts from before."""
        self.marks = [time.perf_counter()]

    def mark(self) -> None:
        """An epoch ends now, its evaluation included."""
        self.marks.append(time.perf_counter())

    def answer(self, said: dict[str, str]) -> dict[str, Any]:
        """The numbers of this side, and what it said of each held-out row. Call it when training is over."""
        epochs = [after - before for before, after in zip(self.marks, self.marks[1:], strict=False)]
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - self._resident
        return {"seconds": sum(epochs), "epoch_seconds": epochs, "memory": grown, "said": said}
