"""Small recipes of all three shapes on the embedded base, for tests that run from end to end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SOURCE = {"name": "chimes", "rows": 240, "seed": 3, "domain": "target", "valid": 0.15, "test": 0.25}
TRAIN = {"steps": 6, "batch_size": 16, "micro_batch": 8, "lr": 1e-3, "evaluate_every": 2, "checkpoint_every": 2, "threads": 1}
SHAPES = ("classifies", "embeds", "speaks")


def recipe(shape: str, **changes: Any) -> dict[str, Any]:
    """A recipe of one shape: `classifies`, `embeds` or `speaks`; changes replace whole sections."""
    made: dict[str, Any] = {"name": shape, "data": {"source": dict(SOURCE), "split": {"column": "split"}}, "train": dict(TRAIN)}
    made["evaluate"] = {"intervals": 50, "baselines": False, "ablations": False}
    if shape == "classifies":
        made["task"] = "classification"
        made["data"] |= {"parts": {"image": "image", "audio": "audio", "pairing": "category"}, "answers": ["pairing"]}
        made["model"] = {"name": "fusion_encoder", "fuse": "cross_attention", "towers": {"image": "tiny/image", "audio": "tiny/audio"}}
        made["strategy"] = {"name": "lora", "rank": 4, "dropout": 0.1}
    elif shape == "embeds":
        made["task"] = "retrieval"
        made["data"] |= {"parts": {"image": "image", "image_caption": "text"}}
        made["model"] = {"name": "dual_encoder", "towers": {"image": "tiny/image", "image_caption": "tiny/text"}}
        made["strategy"] = {"name": "full", "head_rate": 3}
    else:
        made["task"] = "captioning"
        made["data"] |= {"parts": {"image": "image", "image_caption": "text"}, "answers": ["image_caption"]}
        made["model"] = {"name": "generative", "towers": {"image": "tiny/image"}, "lm": "tiny/lm"}
        made["strategy"] = {"name": "partial", "blocks": 1}
        made["evaluate"]["generate"] = {"max_new_tokens": 8}
    return made | changes


def bits(run: Path) -> str:
    """A hash of the artifact's weights and of every figure that is no time and no count of what was stored before."""
    digest = hashlib.sha256()
    for path in sorted((run / "artifact").rglob("*.safetensors")):
        digest.update(path.name.encode() + path.read_bytes())
    figures: Mapping[str, float] = json.loads((run / "result.json").read_text("utf-8"))["figures"]
    told = {name: value for name, value in figures.items() if "second" not in name and not name.startswith(("features/", "teacher/"))}
    digest.update(json.dumps(told, sort_keys=True).encode())
    return digest.hexdigest()
