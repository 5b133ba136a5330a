"""The self-test: made-up rows, a tiny model, a few steps; saved, opened again, asked, and compared with itself."""

from __future__ import annotations

import contextlib
import io
import json
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multitune.core.errors import MultituneError
from multitune.core.finding import Finding, Severity

ROWS, STEPS = 24, 4
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Tried:
    """How the self-test went. device: what it computed on."""

    findings: tuple[Finding, ...]
    figures: Mapping[str, float]
    lines: tuple[str, ...]


def attempt(device: str = "cpu") -> Tried:
    """Train, save, open, predict and compare, in a temporary folder."""
    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="multitune-doctor-") as folder:
            loss, parity, answers = _walked(Path(folder) / "run", device)
    except (MultituneError, ImportError, OSError, RuntimeError) as error:
        found = f"a few steps on made-up rows failed ({type(error).__name__}: {str(error).splitlines()[0]:.200})."
        remedy = "Mend what is named above first; then install the versions of constraints.txt."
        return Tried((Finding("self-test", Severity.ERROR, device, found, remedy),), {}, (f"failed on {device}",))
    seconds = time.perf_counter() - started
    findings = tuple(_doubts(loss, parity, answers, device))
    figures = {f"{device}/seconds": seconds, f"{device}/parity": parity, f"{device}/loss": loss}
    told = f"{device}: trained {STEPS} steps, saved, opened and asked again in {seconds:.1f} s; largest difference {parity:g}"
    return Tried(findings, figures, (told,))


def _walked(folder: Path, device: str) -> tuple[float, float, int]:
    """The last loss, the largest difference of the opened model from the saved one, and how many rows it answered."""
    import multitune

    rows = _rows()
    with contextlib.redirect_stderr(io.StringIO()):  # how it goes on is of no interest here
        result = multitune.train(_recipe(rows, device), run=folder)
    artifact = multitune.load(result.paths["artifact"])
    given = artifact.predict([{"image": row["image"]} for row in rows[:4]])
    losses = [event["value"] for event in _events(folder / "events.jsonl") if event.get("name") == "train/loss"]
    return float(losses[-1]), artifact.parity(), sum(bool(one.answers) for one in given)


def _events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _rows() -> list[dict[str, Any]]:
    from multitune.data.decode import modality

    made: Any = modality("image")
    return [
        {"id": str(n), "image": made.synthesize(n), "label": "ab"[n % 2], "split": ("train", "train", "valid", "test")[n // 2 % 4]}
        for n in range(ROWS)
    ]


def _recipe(rows: list[dict[str, Any]], device: str) -> dict[str, Any]:
    return {
        "name": "doctor",
        "task": "classification",
        "data": {
            "source": {"name": "rows", "rows": rows},
            "parts": {"image": "image", "label": "category"},
            "answers": ["label"],
            "split": {"column": "split"},
        },
        "model": {"name": "fusion_encoder", "towers": {"image": "tiny/image"}},
        "strategy": {"name": "partial", "blocks": 1},
        "train": {"steps": STEPS, "batch_size": 4, "threads": 1, "workers": 0, "device": device, "evaluate_every": STEPS},
        "evaluate": {"intervals": 0, "baselines": False, "ablations": False},
    }


def _doubts(loss: float, parity: float, answers: int, device: str) -> list[Finding]:
    found: list[Finding] = []
    if not math.isfinite(loss):
        found.append(Finding("self-test", Severity.ERROR, device, f"the loss is {loss}.", "Install another build of torch."))
    if parity > TOLERANCE:
        what = f"the model that was opened differs by {parity:g} from the one that was saved; at most {TOLERANCE:g} is right."
        found.append(Finding("self-test", Severity.ERROR, device, what, "Install the versions of constraints.txt."))
    if answers != 4:
        found.append(
            Finding("self-test", Severity.ERROR, device, f"{answers} of 4 rows were answered.", "Install the versions of constraints.txt.")
        )
    return found
