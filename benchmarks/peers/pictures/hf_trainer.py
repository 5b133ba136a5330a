"""HF Trainer's side: `python hf_trainer.py JOB ANSWER`; the tower frozen, but for its last `blocks` blocks.

Source: Transformers' guide to image classification (AutoModelForImageClassification, Trainer, evaluation in each epoch) and its
documentation of TrainingArguments: what is frozen has `requires_grad` off, nothing is saved or logged meanwhile, workers stay alive.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from rows import Clock, Rows, classes
from transformers import AutoImageProcessor, AutoModelForImageClassification, Trainer, TrainerCallback, TrainingArguments, set_seed


class Marks(TrainerCallback):
    """Marks the end of each epoch's evaluation."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.clock.mark()


def model_of(job: dict[str, Any], labels: list[str]) -> Any:
    """The model of a job, all frozen that is to be."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: place for place, name in enumerate(labels)}}
    model = AutoModelForImageClassification.from_pretrained(job["model"], dtype=torch.float32, num_labels=len(labels), **names)
    model.base_model.requires_grad_(False)
    if job["blocks"]:
        model.base_model.layers[-job["blocks"] :].requires_grad_(True)
        model.base_model.layernorm.requires_grad_(True)
    return model


def arguments(job: dict[str, Any]) -> TrainingArguments:
    """The documented settings for a run that only has to be fast."""
    return TrainingArguments(
        output_dir=job["folder"],
        num_train_epochs=job["epochs"],
        per_device_train_batch_size=job["batch"],
        per_device_eval_batch_size=job["batch"],
        learning_rate=job["lr"],
        lr_scheduler_type="linear",
        weight_decay=job["weight_decay"],
        adam_beta1=job["betas"][0],
        adam_beta2=job["betas"][1],
        adam_epsilon=job["eps"],
        max_grad_norm=job["clip_norm"],
        seed=job["seed"],
        dataloader_num_workers=job["workers"],
        dataloader_persistent_workers=job["workers"] > 0,
        eval_strategy="epoch",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=True,
    )


def main() -> None:
    """Train, evaluate in each epoch, say what each held-out row is."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(job["threads"])
    set_seed(job["seed"])
    clock, labels = Clock(), classes(job)
    processor = AutoImageProcessor.from_pretrained(job["model"])
    train, valid = (Rows(job, split, processor, labels) for split in ("train", "valid"))
    trainer = Trainer(
        model=model_of(job, labels),
        args=arguments(job),
        train_dataset=train,
        eval_dataset=valid,
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())},
        callbacks=[Marks(clock)],
    )
    clock.start()
    trainer.train()
    answer = clock.answer({})
    said = trainer.predict(valid).predictions.argmax(-1).tolist()
    answer["said"] = {row["id"]: labels[place] for row, place in zip(valid.rows, said, strict=True)}
    Path(sys.argv[2]).write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main()
