"""What the anatomy and the proof of a cut add to the start of training, for a picture tower of about 90 million parameters.

A ViT-base made from its config alone, frozen under a head. `ok`: at most 5 seconds, on as many cores as there are.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from transformers import AutoConfig, AutoModel

from multitune.core import catalog
from multitune.core.protocols import AnswerNeed, Needs, PartNeed
from multitune.models import anatomy, replay
from multitune.models.load import Weights

MAX_SECONDS = 5.0
SIDE = 224


def measure(run: Path, *, fresh: bool) -> tuple[dict[str, float], bool]:
    """Seconds of the anatomy, of finding the cuts and of proving the highest; nothing is kept in `run`, and every run is fresh."""
    del run, fresh
    with tempfile.TemporaryDirectory() as folder:
        AutoModel.from_config(AutoConfig.for_model("vit")).save_pretrained(folder)
        size = f'{{"height": {SIDE}, "width": {SIDE}}}'
        (Path(folder) / "preprocessor_config.json").write_text(f'{{"image_processor_type": "ViTImageProcessor", "size": {size}}}')
        needs = Needs({"picture": PartNeed("image")}, {"label": AnswerNeed("category", ("a", "b"))})
        family = catalog.find("family", "fusion_encoder", {"towers": {"picture": folder}}).build(needs, Weights())
    started, cpu = time.perf_counter(), time.process_time()
    found = anatomy.find(family)
    described = time.perf_counter()
    settled = replay.settle(family, [name for name in found.parameters if not name.startswith("picture.")])
    figures = {
        "parameters": float(found.num_parameters),
        "seconds_anatomy": described - started,
        "seconds_cuts": time.perf_counter() - described,
        "seconds_cpu": time.process_time() - cpu,
        "cuts": float(len(settled.seams)),
    }
    return figures, bool(settled.seams) and figures["seconds_anatomy"] + figures["seconds_cuts"] <= MAX_SECONDS
