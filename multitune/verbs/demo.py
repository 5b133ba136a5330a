"""Fine-tune the embedded models on drawn pictures with sounds, and show what each way of tuning gives.

No download: rows of `chimes`, domain `target`, are drawn by code. The answer `pairing` needs both the picture and the sound. Each
line of the table is an ordinary run (its folder is kept, and answers at once when asked again); then a tuned model captions a
picture, and another finds the picture that a caption means.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from multitune.core import catalog
from multitune.core.result import Result
from multitune.verbs.train import train

SCRATCH_RATES = (3e-4, 1e-3, 3e-3)


class Options(catalog.Options):
    """Where the runs live."""

    run: Path = Field(default=Path("runs/demo"), description="the folder that holds the demo's runs")
    fresh: bool = Field(default=False, description="move earlier runs aside and train anew")
    rows: int = Field(default=2500, ge=400, description="rows of chimes to draw")
    steps: int = Field(default=50, ge=1, description="optimizer steps of every run of the table")
    words: int = Field(default=70, ge=1, description="optimizer steps of the captioning and of the retrieval")


@dataclass(frozen=True)
class Arm:
    """One line of the table: what differs from the common recipe."""

    name: str
    title: str
    towers: Mapping[str, Any]
    strategy: Any
    lr: float


def build(options: Options) -> Result:
    """Train every arm, then caption and retrieve; figures as `full/accuracy`, and `seconds` from the start of the process."""
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    say(f"chimes, domain target, {options.rows:,} rows: which of 4 pairings? {options.steps} steps of 32 rows each; test split")
    say("")
    say(f"  {'':<34} {'accuracy':>8}  {'95 % interval':<15}  {'seconds':>7}  {'moved':>11}")
    figures: dict[str, float] = {}
    for name, title, result in _arms(options):
        figures |= _row(name, result)
        low, high = result.figures["test/accuracy/low"], result.figures["test/accuracy/high"]
        moved = int(result.figures["parameters_moved"])
        score, seconds = result.figures["test/accuracy"], result.figures["seconds"]
        say(f"  {title:<34} {score:>8.3f}  {low:.3f} to {high:.3f}   {seconds:>7.1f}  {moved:>11,}")
    say("")
    for line in (*_caption(options, figures), *_retrieval(options, figures)):
        say(line)
    figures["seconds"] = _seconds_since_start()
    say("")
    say(f"{figures['seconds']:.0f} s in all. The runs are in {options.run}; measure one again: multitune evaluate {options.run / 'full'}")
    return Result(ok=True, figures=figures, paths={"runs": options.run})


def _row(name: str, result: Result) -> dict[str, float]:
    wanted = {"accuracy": "test/accuracy", "low": "test/accuracy/low", "high": "test/accuracy/high", "parameters_moved": "parameters_moved"}
    return {f"{name}/{short}": result.figures[long] for short, long in wanted.items()}


def _arms(options: Options) -> Iterator[tuple[str, str, Result]]:
    """Every line of the table; from scratch is the best of three rates by the validation split."""
    scratch = {part: {"pretrained": f"tiny/{part}", "weights": "random"} for part in ("image", "audio")}
    tried = [_train(options, Arm(f"scratch-{rate:g}", "", scratch, "full", rate)) for rate in SCRATCH_RATES]
    best = max(tried, key=lambda result: result.figures["valid/accuracy"])
    seconds = sum(result.figures["seconds"] for result in tried)
    yield "scratch", "from scratch (best of 3 rates)", Result(ok=True, figures={**best.figures, "seconds": seconds})
    tiny = {"image": "tiny/image", "audio": "tiny/audio"}
    for arm in (
        Arm("image_only", "the picture alone, full tuning", {"image": "tiny/image"}, HEAD_FASTER, 3e-4),
        Arm("audio_only", "the sound alone, full tuning", {"audio": "tiny/audio"}, HEAD_FASTER, 3e-4),
        Arm("frozen", "frozen towers, a head", tiny, {"name": "partial", "blocks": 0}, 3e-3),
        Arm("lora", "LoRA", tiny, {"name": "lora", "rank": 8}, 2e-3),
        Arm("full", "full tuning", tiny, HEAD_FASTER, 3e-4),
    ):
        yield arm.name, arm.title, _train(options, arm)


HEAD_FASTER = {"name": "full", "head_rate": 5.0}


def _train(options: Options, arm: Arm) -> Result:
    parts = {part: part for part in arm.towers}
    recipe = {
        "name": f"demo-{arm.name}",
        "task": "classification",
        "data": _data(options) | {"parts": parts | {"pairing": "category"}, "answers": ["pairing"]},
        "model": {"name": "fusion_encoder", "fuse": "concat", "towers": dict(arm.towers)},
        "strategy": arm.strategy,
        "train": _pace(options.steps, arm.lr),
        "evaluate": {"baselines": False, "ablations": False},
    }
    return train(recipe, run=options.run / arm.name, fresh=options.fresh)


def _data(options: Options) -> dict[str, Any]:
    source = {"name": "chimes", "rows": options.rows, "seed": 7, "domain": "target", "valid": 0.1, "test": 0.2}
    return {"source": source, "split": {"column": "split"}}


def _pace(steps: int, lr: float) -> dict[str, Any]:
    return {"steps": steps, "batch_size": 32, "lr": lr, "warmup": "10%", "evaluate_every": steps, "checkpoint_every": steps}


def _caption(options: Options, figures: dict[str, float]) -> Iterator[str]:
    """A tuned model says what a picture of the test split shows."""
    recipe = {
        "name": "demo-caption",
        "task": "captioning",
        "data": _data(options) | {"parts": {"image": "image", "image_caption": "text"}, "answers": ["image_caption"]},
        "model": {"name": "generative", "towers": {"image": "tiny/image"}, "lm": "tiny/lm"},
        "strategy": HEAD_FASTER,
        "train": _pace(options.words, 5e-4),
        "evaluate": {
            "baselines": False,
            "ablations": False,
            "metrics": [{"name": "mentions", "columns": ["shape", "colour"]}],
        },
    }
    result = train(recipe, run=options.run / "caption", fresh=options.fresh)
    figures["caption/shape_and_colour"] = result.figures["test/shape_and_colour"]
    artifact, rows = _opened(result)
    row = rows[0]
    said = artifact.predict({"image": row["image"]}).answers["image_caption"].value
    yield f'  caption of {row["name"]}: "{said}" (drawn: {row["colour"]} {row["shape"]})'
    yield f"    it names shape and colour rightly in {result.figures['test/shape_and_colour']:.1%} of the test split"


def _retrieval(options: Options, figures: dict[str, float]) -> Iterator[str]:
    """Another finds, among the pictures of the test split, the one that a caption means."""
    recipe = {
        "name": "demo-retrieval",
        "task": "retrieval",
        "data": _data(options) | {"parts": {"image": "image", "image_caption": "text"}},
        "model": {"name": "dual_encoder", "towers": {"image": "tiny/image", "image_caption": "tiny/text"}},
        "strategy": HEAD_FASTER,
        "train": _pace(options.words, 3e-4) | {"batch_size": 64},
        "evaluate": {"baselines": False, "ablations": False},
    }
    result = train(recipe, run=options.run / "retrieval", fresh=options.fresh)
    figures["retrieval/r_at_10"] = result.figures["test/image_caption_to_image/r_at_10"]
    artifact, rows = _opened(result)
    rows = rows[:100]
    asked = rows[1]
    query = artifact.predict({"image_caption": asked["image_caption"]}).answers["image_caption"].value
    pictures = [one.answers["image"].value for one in artifact.predict([{"image": row["image"]} for row in rows])]
    best = max(range(len(rows)), key=lambda index: float(query @ pictures[index]))
    found = rows[best]
    yield f'  "{asked["image_caption"]}" finds {found["name"]} ({found["colour"]} {found["shape"]}) among {len(rows)} pictures'
    yield f"    the very picture is among the first ten of the whole split in {result.figures['test/image_caption_to_image/r_at_10']:.1%}"


def _opened(result: Result) -> tuple[Any, list[dict[str, Any]]]:
    """The artifact, and the test rows of the data that it was trained on."""
    from multitune.core.ledger import Ledger
    from multitune.core.recipe import make_recipe
    from multitune.data import plan as data_plan
    from multitune.deliver.artifact import open_artifact

    artifact = open_artifact(result.paths["artifact"])
    examples = data_plan.outline(make_recipe(artifact.request), Ledger()).examples["test"]
    rows = []
    for index in range(len(examples)):
        row = dict(examples.rows_of(index))
        rows.append(row | {"name": row["image"], "image": examples.root_of(index) / row["image"]})
    return artifact, rows


def _seconds_since_start() -> float:
    """Seconds since this process started (where the system tells), imports included."""
    try:
        with open("/proc/self/stat", encoding="ascii") as stream:
            started = int(stream.read().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
        with open("/proc/uptime", encoding="ascii") as stream:
            return float(stream.read().split()[0]) - started
    except (OSError, ValueError, IndexError):
        print("the start of the process is not known here; seconds count from the first import", file=sys.stderr)
        return time.perf_counter()
