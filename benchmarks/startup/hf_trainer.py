"""HF Trainer's side: `python benchmarks/startup/hf_trainer.py JOB ANSWER`.

Source: Transformers' guide to image classification: `Trainer` over rows whose pictures are opened and prepared as they are asked for.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import Trainer, TrainerCallback, TrainingArguments, ViTConfig, ViTForImageClassification, ViTImageProcessor


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """The rows of a table."""

    def __init__(self, path: Path, processor: Any) -> None:
        with path.open(encoding="utf-8", newline="") as file:
            self.rows = list(csv.DictReader(file))
        self.home, self.processor = path.parent, processor
        self.labels = {name: place for place, name in enumerate(sorted({row["label"] for row in self.rows}))}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        picture = Image.open(self.home / row["image"]).convert("RGB")
        return {"pixel_values": self.processor(picture, return_tensors="pt")["pixel_values"][0], "labels": self.labels[row["label"]]}


class Clock(TrainerCallback):
    """When the first step ended, and the CPU time that the process had taken."""

    stepped = cpu = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the time."""
        self.stepped, self.cpu = time.monotonic(), time.process_time()


def main() -> None:
    """One step of `Trainer`."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(job["threads"])
    rows = Rows(Path(job["table"]), ViTImageProcessor(size={"height": 64, "width": 64}))
    shape = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512}
    model = ViTForImageClassification(ViTConfig(**shape, image_size=64, patch_size=8, num_labels=len(rows.labels)))
    clock = Clock()
    arguments = TrainingArguments(
        output_dir=job["folder"],
        max_steps=1,
        per_device_train_batch_size=job["batch"],
        remove_unused_columns=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[clock]).train()
    Path(sys.argv[2]).write_text(json.dumps({"stepped": clock.stepped, "cpu": clock.cpu}), "utf-8")


if __name__ == "__main__":
    main()
