"""sentence-transformers' side of a job: `python sentence_transformers_peer.py JOB ANSWER`. Nothing of ours is imported here.

Source: its training overview (SentenceTransformerTrainer, MultipleNegativesRankingLoss with its default scale, batches without
duplicates as that loss advises, linear schedule after a tenth of warmup) and its Router for queries and documents: a tower for each, mean
pooling, a linear projection, unit length, as ours has them.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.losses import MultipleNegativesRankingLoss
from sentence_transformers.models import Dense, Normalize, Pooling, Router, Transformer
from sentence_transformers.training_args import BatchSamplers
from transformers import set_seed


def tower(job: dict[str, Any]) -> list[torch.nn.Module]:
    """A tower with its projection."""
    read = Transformer(job["model"], model_kwargs={"dtype": torch.float32})
    pool = Pooling(read.get_word_embedding_dimension(), pooling_mode="mean")
    project = Dense(read.get_word_embedding_dimension(), job["width"], activation_function=torch.nn.Identity())
    return [read, pool, project]


def main() -> None:
    """Train, embed every measured row, write the answer."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(1)
    set_seed(job["seed"])
    rows = {split: [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()] for split, path in job["splits"].items()}
    model = SentenceTransformer(modules=[Router.for_query_document(tower(job), tower(job)), Normalize()], device="cpu")
    data = Dataset.from_dict({name: [row[name] for row in rows["train"]] for name in ("query", "document")})
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            max_steps=job["steps"],
            per_device_train_batch_size=job["batch"],
            learning_rate=job["lr"],
            lr_scheduler_type="linear",
            warmup_steps=job["warmup"],
            weight_decay=job["weight_decay"],
            adam_beta1=job["betas"][0],
            adam_beta2=job["betas"][1],
            adam_epsilon=job["eps"],
            max_grad_norm=job["clip_norm"],
            seed=job["seed"],
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            router_mapping={"query": "query", "document": "document"},
            save_strategy="no",
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data, loss=MultipleNegativesRankingLoss(model))
        started = time.perf_counter()
        trainer.train()
        answer: dict[str, Any] = {"seconds": time.perf_counter() - started}
    out = Path(sys.argv[2])
    for split in ("test", "elsewhere"):
        embed = {"query": model.encode_query, "document": model.encode_document}
        vectors = {part: embed[part]([row[part] for row in rows[split]], convert_to_numpy=True) for part in embed}
        file = out.with_name(f"{out.stem}-{split}.safetensors")
        save_file(vectors, file)
        answer[split] = str(file)
    out.write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main()
