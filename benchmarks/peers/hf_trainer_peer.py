"""HF Trainer's side of a job: `python hf_trainer_peer.py JOB ANSWER`. Nothing of ours is imported here.

Source: Transformers' guide to image classification (AutoModelForImageClassification, Trainer, linear schedule after a tenth of
warmup), without the guide's random crops: both sides see the rows as they are. The dtype is stated: weights stored as float16 would be
trained as float16.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, Trainer, TrainingArguments, set_seed


class Rows(torch.utils.data.Dataset):
    """Rows of a job, prepared once."""

    def __init__(self, path: str, processor: Any, labels: list[str]) -> None:
        self.rows = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
        pictures = [Image.open(row["image"]).convert("RGB") for row in self.rows]
        self.pixels = processor(pictures, return_tensors="pt")["pixel_values"]
        self.labels = [labels.index(row["label"]) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixel_values": self.pixels[index], "labels": self.labels[index]}


def main() -> None:
    """Train, predict every measured row, write the answer."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(1)
    set_seed(job["seed"])
    train = [json.loads(line)["label"] for line in Path(job["splits"]["train"]).read_text("utf-8").splitlines()]
    labels = sorted(set(train))
    processor = AutoImageProcessor.from_pretrained(job["model"])
    data = {split: Rows(path, processor, labels) for split, path in job["splits"].items()}
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: place for place, name in enumerate(labels)}}
    model = AutoModelForImageClassification.from_pretrained(job["model"], dtype=torch.float32, num_labels=len(labels), **names)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=job["steps"],
            per_device_train_batch_size=job["batch"],
            per_device_eval_batch_size=job["batch"],
            learning_rate=job["lr"],
            lr_scheduler_type="linear",
            warmup_steps=job["warmup"],
            weight_decay=job["weight_decay"],
            adam_beta1=job["betas"][0],
            adam_beta2=job["betas"][1],
            adam_epsilon=job["eps"],
            max_grad_norm=job["clip_norm"],
            seed=job["seed"],
            save_strategy="no",
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=True,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=data["train"], processing_class=processor)
        started = time.perf_counter()
        trainer.train()
        answer: dict[str, Any] = {"seconds": time.perf_counter() - started}
        for split in ("test", "elsewhere"):
            said = trainer.predict(data[split]).predictions.argmax(-1)
            answer[split] = {row["id"]: labels[place] for row, place in zip(data[split].rows, said.tolist(), strict=True)}
    Path(sys.argv[2]).write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main()
