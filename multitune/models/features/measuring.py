"""What a row costs at a cut: measured on a few rows, once for the same weights, code and threads on this machine."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multitune.core import store
from multitune.core.errors import WriteFault
from multitune.core.rundir import write_atomic
from multitune.models.features.choosing import Cost
from multitune.models.features.shards import TYPES, rounded
from multitune.models.predictor import GROUP_ROWS
from multitune.models.replay import Seam, encode_rows
from multitune.models.replay.recording import Row

FOLDER = "measured"


def measured(family: Any, seam: Seam, rows: Sequence[Row], *, type: str) -> Cost:
    """Encode a few prepared rows, and take the time.

    Groups are always full, so that a row costs its share of one.
    """
    groups = len({family.preparer.bucket(row) for row in rows})
    started = time.perf_counter()
    made = [one for one in encode_rows(family, seam, rows) if one is not None]
    seconds = (time.perf_counter() - started) / (max(groups, 1) * GROUP_ROWS)
    sizes = [sum(rounded(tensor, TYPES[type]).nbytes for tensor in one.tensors) for one in made]
    return Cost(seconds, sum(sizes) / max(len(sizes), 1))


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
