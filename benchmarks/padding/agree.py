"""Whether grouping changes any row's loss: `python -m benchmarks.padding.agree JOB ANSWER`.

Three times the same weights: in batches as they are drawn, in batches of rows of like length, and rows alone, without any padding, run by
plain Transformers below our head.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from benchmarks.padding.ours import recipe
from multitune.core.ledger import Ledger
from multitune.core.protocols import Batch, Features
from multitune.core.recipe import make_recipe
from multitune.data.loader import Loader
from multitune.models.load import Weights
from multitune.models.plan import build_family
from multitune.verbs.plan import make_plan

ALONE = 64


def main() -> None:
    """The largest difference between the rows' losses."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(job["threads"])
    plans = {
        name: make_plan(make_recipe(recipe(job, file="rows", bucket=bucket)), Ledger())
        for name, bucket in (("drawn", None), ("grouped", job["bucket"]))
    }
    asked = plans["drawn"].recipe
    family: Any = build_family(asked, plans["drawn"].data.needs, Weights("pretrained", seed=asked.seed))
    family.eval()
    found: dict[str, dict[str, float]] = {}
    shapes: dict[str, int] = {}
    batches: list[Batch] = []
    for name, planned in plans.items():
        rows = planned.data.examples["train"]
        loader = Loader(rows, family.preparer, seed=asked.seed, batch_size=job["batch"], grouping=planned.grouping)
        batches = [batch for step in loader.steps(0, loader.steps_per_epoch) for _, batch in step.micro]
        shapes[name] = sum(batch.inputs["text"]["input_ids"].numel() for batch in batches)
        found[name] = {row: loss for batch in batches for row, loss in each(family, batch).items()}
    found["alone"] = alone(family, batches, job["model"])
    answer = {f"apart_{name}": apart(found["drawn"], found[name]) for name in ("grouped", "alone")}
    answer |= {"tokens_drawn": float(shapes["drawn"]), "tokens_grouped": float(shapes["grouped"]), "rows": float(len(found["grouped"]))}
    Path(sys.argv[2]).write_text(json.dumps(answer), "utf-8")


@torch.no_grad()
def each(family: Any, batch: Batch) -> dict[str, float]:
    """The loss of each row of a batch."""
    return _losses(family(batch).logits["label"], batch)


@torch.no_grad()
def alone(family: Any, batches: list[Batch], folder: str) -> dict[str, float]:
    """The losses of a few rows, each by itself without padding, the tower run by plain Transformers."""
    tower = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    found: dict[str, float] = {}
    for batch in batches[:: max(1, len(batches) // ALONE)]:
        length = int(batch.inputs["text"]["attention_mask"][0].sum())
        said = tower(input_ids=batch.inputs["text"]["input_ids"][:1, :length]).last_hidden_state[:, 0]
        one = Batch(batch.ids[:1], {}, {"label": batch.answers["label"][:1]}, {"text": batch.presence["text"][:1]})
        found |= _losses(family.join(Features({"text": {"pooled": said}}), one).logits["label"], one)
    return found


def _losses(logits: torch.Tensor, batch: Batch) -> dict[str, float]:
    losses = torch.nn.functional.cross_entropy(logits, batch.answers["label"], reduction="none")
    return dict(zip(batch.ids, losses.tolist(), strict=True))


def apart(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """The largest difference of rows that both have; all of `other` are in `one`."""
    return max(abs(one[row] - loss) for row, loss in other.items())


if __name__ == "__main__":
    main()
