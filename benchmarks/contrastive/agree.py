"""Whether caching changes the gradient: `python -m benchmarks.contrastive.agree JOB ANSWER`; `gradients` in the job are the peer's."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.contrastive.ours import recipe
from multitune.core.ledger import Ledger
from multitune.core.recipe import make_recipe
from multitune.data.loader import batches
from multitune.models.load import Weights
from multitune.models.plan import build_family
from multitune.tuning.gradients import Gradients
from multitune.tuning.plan import loss_of
from multitune.verbs.plan import make_plan

LEAST = 1e-2  # of the whole gradient's norm: what a tensor's difference is measured by where its own norm is less


def main() -> None:
    """The gradients of the first rows, in micro-batches and undivided."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(job["threads"])
    planned = make_plan(make_recipe(recipe({**job, "steps": 1, "allocator": "auto"})), Ledger())
    family: Any = build_family(planned.recipe, planned.data.needs, Weights("pretrained", seed=job["seed"]))
    loss, rows = loss_of(planned.recipe, planned.preset, planned.data.needs), planned.data.examples["train"]
    found: list[dict[str, Tensor]] = []
    for size in (job["micro"], job["batch"]):
        micro = []
        for number, (_, batch) in zip(range(job["batch"] // size), batches(rows, family.preparer, size=size), strict=False):
            micro.append((number, batch))
        family.zero_grad(set_to_none=True)
        work = Gradients(family, loss, seed=0).work(0, micro)
        for position in work.order():
            work.backward(position)
        named = family.named_parameters()
        found.append({name.removeprefix("model."): p.grad for name, p in named if p.grad is not None and name != "model.logit_scale"})
    peer = load_file(job["gradients"])
    answer = {"apart_undivided": apart(found[0], found[1]), "apart_peer": apart(found[0], peer), "tensors": float(len(found[0]))}
    Path(sys.argv[2]).write_text(json.dumps(answer), "utf-8")


def apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The largest difference between two gradients' tensors; both have the same, by name."""
    if one.keys() != other.keys():
        raise KeyError(f"only one has {', '.join(sorted(one.keys() ^ other.keys())[:5])}")
    whole = float(torch.nn.utils.get_total_norm(list(other.values())))
    return max(float((tensor - other[name]).norm()) / max(float(other[name].norm()), LEAST * whole) for name, tensor in one.items())


if __name__ == "__main__":
    main()
