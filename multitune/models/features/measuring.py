"""What a row costs at a cut: measured on a group of rows, once for the same weights, code and threads on this machine.

What they gave is handed on: it is what filling the store would encode first.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multitune.core import store
from multitune.core.errors import WriteFault
from multitune.core.protocols import Sample
from multitune.core.rundir import write_atomic
from multitune.models.features.choosing import Cost
from multitune.models.features.shards import TYPES, rounded
from multitune.models.predictor import GROUP_ROWS
from multitune.models.replay import Seam, Stored, encode_rows
from multitune.models.replay.recording import Row

FOLDER = "measured"


@dataclass(frozen=True)
class Encoded:
    """A row that was encoded at a cut. content: the hash of what its parts held before, empty where it was made up."""

    content: str
    sample: Sample
    row: Row
    stored: Stored


def measured(family: Any, seam: Seam, rows: Sequence[tuple[str, Sample, Row]], *, type: str) -> tuple[Cost, tuple[Encoded, ...]]:
    """Encode prepared rows, each with its content and its sample, and take the time.

    Groups are always full, so that a row costs its share of one.
    """
    groups = len({family.preparer.bucket(row) for *_, row in rows})
    started = time.perf_counter()
    made = encode_rows(family, seam, [row for *_, row in rows])
    seconds = (time.perf_counter() - started) / (max(groups, 1) * GROUP_ROWS)
    encoded = tuple(Encoded(*given, one) for given, one in zip(rows, made, strict=True) if one is not None)
    sizes = [sum(rounded(tensor, TYPES[type]).nbytes for tensor in one.stored.tensors) for one in encoded]
    return Cost(seconds, sum(sizes) / max(len(sizes), 1)), encoded


def remembered(root: Path, key: Mapping[str, Any]) -> Cost | None:
    """What was measured before for a space's key on this machine."""
    try:
        found = json.loads(_place(root, key).read_text("utf-8"))
        return Cost(float(found["seconds"]), float(found["bytes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(root: Path, key: Mapping[str, Any], cost: Cost) -> None:
    """Keep what was measured, where the machine takes it."""
    try:
        write_atomic(_place(root, key), (json.dumps(vars(cost), sort_keys=True) + "\n").encode())
    except WriteFault:
        return


def _place(root: Path, key: Mapping[str, Any]) -> Path:
    machine = [platform.node(), platform.machine(), os.cpu_count()]
    return root / FOLDER / f"{store.key({**key, 'machine': machine})[:40]}.json"
