"""sentence-transformers' side of a job: `python sentence_transformers_cached_peer.py JOB ANSWER`. Nothing of ours is imported here.

Source: its training overview and the page of CachedMultipleNegativesRankingLoss: a CLIP through the Transformer module, both directions
with a softmax each (what CLIP's own loss is), mini-batches as large as ours. A job of no steps has the gradient of the first rows written.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Image
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.losses import CachedMultipleNegativesRankingLoss
from sentence_transformers.models import Normalize, Transformer
from transformers import TrainerCallback, set_seed


class Clock(TrainerCallback):
    """When each step ended, and the bytes in memory before the first."""

    def __init__(self) -> None:
        self.ended: list[float] = []
        self.before = 0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.before = int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ended.append(time.perf_counter())


def main() -> None:
    """Train, or write a gradient."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(job["threads"])
    set_seed(job["seed"])
    home = Path(job["table"]).parent
    rows = [json.loads(line) for line in Path(job["table"]).read_text("utf-8").splitlines()]
    columns = {"image": [str(home / row["image"]) for row in rows], "caption": [row["caption"] for row in rows]}
    data = Dataset.from_dict(columns).cast_column("image", Image())
    read = Transformer(job["model"], model_kwargs={"dtype": torch.float32})
    model = SentenceTransformer(modules=[read, Normalize()], device="cpu")
    model.requires_grad_(True)
    both = ("query_to_doc", "doc_to_query")
    loss = CachedMultipleNegativesRankingLoss(model, mini_batch_size=job["micro"], directions=both, partition_mode="per_direction")
    answer = trained(job, model, loss, data) if job["steps"] else differentiated(job, model, loss, data)
    Path(sys.argv[2]).write_text(json.dumps(answer), "utf-8")


def trained(job: dict[str, Any], model: SentenceTransformer, loss: torch.nn.Module, data: Any) -> dict[str, Any]:
    """Seconds a step, of those after the first, and bytes at most above what was there before it."""
    clock = Clock()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.endswith("logit_scale"))
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            max_steps=job["steps"],
            per_device_train_batch_size=job["batch"],
            learning_rate=job["lr"],
            lr_scheduler_type="constant",
            weight_decay=job["weight_decay"],
            adam_beta1=job["betas"][0],
            adam_beta2=job["betas"][1],
            adam_epsilon=job["eps"],
            max_grad_norm=job["clip_norm"],
            seed=job["seed"],
            save_strategy="no",
            eval_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data, loss=loss, callbacks=[clock]).train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": (clock.ended[-1] - clock.ended[0]) / (len(clock.ended) - 1), "growth": peak - clock.before}


def differentiated(job: dict[str, Any], model: SentenceTransformer, loss: torch.nn.Module, data: Any) -> dict[str, Any]:
    """The gradient of the first rows in one step, written."""
    first = data[: job["batch"]]
    features = [dict(model.preprocess(first[name])) for name in ("image", "caption")]
    value = loss(features, torch.zeros(job["batch"]))
    value.backward()
    prefix = next(name for name, _ in model.named_parameters() if name.endswith("logit_scale")).removesuffix("logit_scale")
    named = ((name.removeprefix(prefix), parameter.grad) for name, parameter in model.named_parameters())
    save_file({name: gradient for name, gradient in named if gradient is not None}, job["gradients"])
    return {"loss": float(value.detach())}


if __name__ == "__main__":
    main()
