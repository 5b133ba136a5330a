"""HF Trainer's side of `padding`: `python hf_padding_peer.py JOB ANSWER`. Nothing of ours is imported here.

Source: Transformers' guide to text classification: tokenized ahead, DataCollatorWithPadding, Trainer; `grouped` in the job adds
`train_sampling_strategy="group_by_length"`. Tokenizing is not counted.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)


class Rows(torch.utils.data.Dataset):
    """Rows of a job, tokenized."""

    def __init__(self, path: str, tokenizer: Any, labels: list[str]) -> None:
        rows = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
        made = tokenizer([row["text"] for row in rows], truncation=True)
        self.rows = [
            {"input_ids": ids, "attention_mask": mask, "labels": labels.index(row["label"])}
            for row, ids, mask in zip(rows, made["input_ids"], made["attention_mask"], strict=True)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def main() -> None:
    """Train, and tell the seconds from the first step to the last."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(job["threads"])
    set_seed(job["seed"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    model = AutoModelForSequenceClassification.from_pretrained(job["model"], dtype=torch.float32, num_labels=len(job["labels"]))
    arguments = TrainingArguments(
        output_dir=job["folder"],
        max_steps=job["steps"],
        per_device_train_batch_size=job["batch"],
        learning_rate=job["lr"],
        lr_scheduler_type="linear",
        weight_decay=job["weight_decay"],
        adam_beta1=job["betas"][0],
        adam_beta2=job["betas"][1],
        adam_epsilon=job["eps"],
        max_grad_norm=job["clip_norm"],
        seed=job["seed"],
        train_sampling_strategy="group_by_length" if job["grouped"] else "random",
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    rows = Rows(job["rows"], tokenizer, job["labels"])
    trainer = Trainer(
        model=model, args=arguments, train_dataset=rows, processing_class=tokenizer, data_collator=DataCollatorWithPadding(tokenizer)
    )
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    real = sum(len(row["input_ids"]) for row in rows.rows)
    answer = {"seconds": seconds, "tokens": real, "tokens_per_second": real / seconds}
    Path(sys.argv[2]).write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main()
