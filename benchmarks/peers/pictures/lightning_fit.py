"""Lightning's side: `python lightning_fit.py JOB ANSWER`; the tower frozen, but for its last `blocks` blocks, or opened in phases.

Source: Lightning's documentation of transfer learning (a frozen extractor runs in eval mode under `torch.no_grad`), of BaseFinetuning
(`freeze`, `unfreeze_and_add_param_group`) and of speeding up training: no logger, checkpoints, progress bar or sanity check; workers
stay alive.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BaseFinetuning, Callback
from rows import Clock, Rows, classes
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor, AutoModel


class Pictures(pl.LightningModule):
    """A tower and a linear head on its first token."""

    def __init__(self, job: dict[str, Any], labels: list[str]) -> None:
        super().__init__()
        self.job, self.said = job, {}
        self.tower = AutoModel.from_pretrained(job["model"], dtype=torch.float32, add_pooling_layer=False)
        self.head = torch.nn.Linear(self.tower.config.hidden_size, len(labels))
        self.tower.requires_grad_(False)
        if job["blocks"]:
            self.tower.layers[-job["blocks"] :].requires_grad_(True)
            self.tower.layernorm.requires_grad_(True)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.job["blocks"] or self.job["starts"]:
            return self.head(self.tower(pixels).last_hidden_state[:, 0])
        self.tower.eval()
        with torch.no_grad():
            read = self.tower(pixels).last_hidden_state[:, 0]
        return self.head(read)

    def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self(batch["pixel_values"]), batch["labels"])

    def validation_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
        self.said[index] = self(batch["pixel_values"]).argmax(-1)
        self.log("accuracy", (self.said[index] == batch["labels"]).float().mean())

    def configure_optimizers(self) -> Any:
        job = self.job
        moving = [parameter for parameter in self.parameters() if parameter.requires_grad]
        settings = {"lr": job["lr"], "weight_decay": job["weight_decay"], "betas": tuple(job["betas"]), "eps": job["eps"]}
        optimizer = torch.optim.AdamW(moving, **settings)
        if job["starts"]:
            return optimizer
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, self.trainer.estimated_stepping_batches)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Phases(BaseFinetuning):
    """The head first; at each start the next block of the tower, from the last one down, the norm with it."""

    def __init__(self, starts: list[int], rate: float) -> None:
        super().__init__()
        self.starts, self.rate = starts, rate

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.tower)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        for place, start in enumerate(self.starts, 1):
            if epoch == start:
                opened = [pl_module.tower.layers[-place], *([pl_module.tower.layernorm] if place == 1 else [])]
                self.unfreeze_and_add_param_group(opened, optimizer, lr=self.rate)


class Marks(Callback):
    """Marks the end of each epoch, its validation included."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.clock.start()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.clock.mark()


def main() -> None:
    """Train, validate in each epoch, say what each held-out row is."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(job["threads"])
    pl.seed_everything(job["seed"])
    clock, labels = Clock(), classes(job)
    processor = AutoImageProcessor.from_pretrained(job["model"])
    train, valid = (Rows(job, split, processor, labels) for split in ("train", "valid"))
    loading = {"batch_size": job["batch"], "num_workers": job["workers"], "persistent_workers": job["workers"] > 0}
    model = Pictures(job, labels)
    trainer = pl.Trainer(
        max_epochs=job["epochs"],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        gradient_clip_val=job["clip_norm"],
        default_root_dir=job["folder"],
        callbacks=[Marks(clock), *([Phases(job["starts"], job["lr"])] if job["starts"] else [])],
    )
    trainer.fit(model, DataLoader(train, shuffle=True, **loading), DataLoader(valid, **loading))
    said = torch.cat([model.said[index] for index in sorted(model.said)]).tolist()
    answer = clock.answer({row["id"]: labels[place] for row, place in zip(valid.rows, said, strict=True)})
    Path(sys.argv[2]).write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main()
