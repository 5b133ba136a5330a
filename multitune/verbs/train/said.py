"""What a teacher said of rows, in the feature store: the next run with the same teacher and the same rows asks it nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from multitune.core import store
from multitune.core.errors import WriteFault
from multitune.core.finding import Finding, Severity
from multitune.core.protocols import Needs, Sample
from multitune.models.contract import LIBRARIES
from multitune.models.features import shards, upkeep, ways
from multitune.models.features.contents import Contents
from multitune.models.features.keys import code_hash
from multitune.models.features.shards import Kept, Space
from multitune.models.predictor import GROUP_ROWS
from multitune.models.replay import Stored

TYPE = "fp32"
Row = Mapping[str, Tensor]


@dataclass
class Counts:
    """hits: rows of which it was known what the teacher says. asked: rows that it was asked about. findings: what went wrong."""

    hits: int = 0
    asked: int = 0
    findings: list[Finding] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """By name."""
        return {"teacher/hits": float(self.hits), "teacher/asked": float(self.asked)}


@dataclass
class Said:
    """What is known of a teacher's words; parts: those that it reads. Without a space nothing is known, and nothing is kept."""

    parts: tuple[str, ...]
    columns: tuple[str, ...]
    space: Space | None = None
    contents: Contents = field(default_factory=Contents)
    counts: Counts = field(default_factory=Counts)

    @classmethod
    def open(cls, root: Path, *, teacher: str, name: str, needs: Needs, asked: Needs, parts: Sequence[str], device: torch.device) -> Said:
        """The words of one teacher in a store. needs: the teacher's. asked, parts: the answers and the vectors that it gives.

        All that could change one bit of them is in the key. A store that may not be written is done without, with a finding.
        """
        columns = (*(f"answer/{name}" for name in asked.answers), *(f"feature/{part}" for part in parts))
        key = {
            "form": 1,
            "teacher": teacher,
            "answers": {name: [need.modality, list(need.labels), need.mean, need.deviation] for name, need in asked.answers.items()},
            "parts": {name: [need.modality, dict(need.options)] for name, need in needs.parts.items()},
            "columns": list(columns),
            "group_rows": GROUP_ROWS,
            "type": TYPE,
            "threads": torch.get_num_threads(),
            "device": device.type,
            "versions": {name: metadata.version(name) for name in ("torch", *LIBRARIES)},
            "code": code_hash(),
        }
        made = cls(tuple(needs.parts), columns)
        folder = root / store.key(key)[:40]
        try:
            shards.about(folder, {"tower": "teacher", "cut": name, "modality": "", "key": key})
            space = Space(folder, TYPE)
            made.counts.findings += space.look(verify=True)
            upkeep.used(folder)
            made.space, made.contents = space, Contents(root / upkeep.MEDIA)
        except WriteFault as fault:
            made.without(fault)
        return made

    def content(self, sample: Sample) -> str:
        """The hash of what the teacher reads of a row; empty where nothing is kept or a part cannot be read."""
        if self.space is None or not any(name in sample.parts for name in self.parts):
            return ""
        return ways.content(sample, self.parts, self.contents.of)

    def before(self, content: str) -> Row | None:
        """What it said of a row; None where that is not known."""
        if self.space is None or content not in self.space:
            return None
        self.counts.hits += 1
        return dict(zip(self.columns, self.space.read(content).tensors, strict=True))

    def keep(self, rows: Mapping[str, tuple[Sample, Row]]) -> None:
        """Write down what it said, by the hash of what it read; of a row whose file changed meanwhile nothing."""
        there = {at: row for at, (sample, row) in rows.items() if ways.still(sample, self.parts, at, self.contents)}
        made = {content: _kept([row[name] for name in self.columns]) for content, row in there.items()}
        try:
            if self.space is not None and made:
                self.space.write(made)
                self.contents.flush()
        except WriteFault as fault:
            self.without(fault)

    def without(self, fault: WriteFault) -> None:
        """Go on without keeping anything, and say so."""
        self.space = None
        self.counts.findings.append(
            Finding("features-not-kept", Severity.WARNING, "loss.teacher", str(fault), "What the teacher says is kept for this run alone.")
        )


def _kept(tensors: Sequence[Tensor]) -> Kept:
    return Kept(Stored(tuple(tensors), tuple(tuple(tensor.shape) for tensor in tensors)), {})
