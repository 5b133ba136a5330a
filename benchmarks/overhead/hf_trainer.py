"""HF Trainer's side: `python -m benchmarks.overhead.hf_trainer JOB ANSWER`. It trains the very module that our side trains.

Source: Transformers' guide to a custom model in `Trainer` (forward gives the loss), its default optimizer (fused AdamW) and its default
collator over rows that are tensors already: nothing is tokenized or padded while it trains. What it would write and log is off.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.overhead.module import Start, norm_of


class Plain(nn.Module):
    """The tower, the fusion and the head as one module with a loss, as `Trainer` takes it."""

    def __init__(self, family: Any) -> None:
        super().__init__()
        self.tower, self.norm = family.tower["text"], family.fusion.norm["text"]
        self.mix, self.head = family.fusion.mix, family.head["label"]

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss and the logits."""
        values = self.tower(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.to(values.dtype).unsqueeze(-1)
        pooled = (values * weight).sum(1) / weight.sum(1).clamp(min=1)
        logits = self.head(nn.functional.gelu(self.mix(self.norm(pooled))))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Rows(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Rows that are tensors already."""

    def __init__(self, columns: dict[str, Tensor]) -> None:
        self.rows = [{name: column[place] for name, column in columns.items()} for place in range(len(columns["labels"]))]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.rows[index]


class Clock(TrainerCallback):
    """When steps ended."""

    def __init__(self, wanted: set[int]) -> None:
        self.wanted, self.ended = wanted, dict[int, float]()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the time of the steps that are wanted."""
        if state.global_step in self.wanted:
            self.ended[state.global_step] = time.perf_counter()


def main() -> None:
    """The first loss, then the training."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(1)
    start = Start.of(job["recipe"])
    asked, batch = job["recipe"]["train"], start.batch(0)
    columns = {"labels": batch.answers["label"], **{name: batch.inputs["text"][name] for name in ("input_ids", "attention_mask")}}
    model = Plain(start.family)
    loss = model(**{name: column[: job["batch"]] for name, column in columns.items()})["loss"]
    loss.backward()
    answer: dict[str, Any] = {"parameters": start.parameters, "first_loss": float(loss), "first_norm": norm_of(model)}
    arguments = TrainingArguments(
        output_dir=job["folder"],
        max_steps=job["steps"],
        per_device_train_batch_size=job["batch"],
        learning_rate=asked["lr"],
        lr_scheduler_type="linear",
        weight_decay=asked["weight_decay"],
        max_grad_norm=1.0,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    clock = Clock({job["from"], job["steps"]})
    Trainer(model=model, args=arguments, train_dataset=Rows(columns), callbacks=[clock]).train()
    answer["seconds_per_step"] = (clock.ended[job["steps"]] - clock.ended[job["from"]]) / (job["steps"] - job["from"])
    Path(sys.argv[2]).write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main()
