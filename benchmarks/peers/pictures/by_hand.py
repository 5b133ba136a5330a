"""What one would write by hand: `python by_hand.py JOB ANSWER`. What is frozen runs once over the rows, the rest is trained on that.

With `blocks: 0` that is a logistic regression on the tower's first token. Else the last blocks, the norm and a linear head are trained
alone, on the hidden states below them, with an evaluation in each epoch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from rows import Clock, Rows, classes
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor, AutoModel


@torch.inference_mode()
def encoded(tower: nn.Module, rows: Rows, job: dict[str, Any]) -> Tensor:
    """What lies under the top gives for each row: tokens (rows, n, width), or the first token alone."""
    given = []
    for batch in DataLoader(rows, batch_size=job["batch"], num_workers=job["workers"]):
        tokens = tower(batch["pixel_values"]).last_hidden_state
        given.append(tokens if job["blocks"] else tokens[:, 0])
    return torch.cat(given)


class Top(nn.Module):
    """The last blocks of a tower, its norm and a linear head on the first token."""

    def __init__(self, blocks: nn.ModuleList, norm: nn.Module, width: int, size: int) -> None:
        super().__init__()
        self.blocks, self.norm, self.head = blocks, norm, nn.Linear(width, size)

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens)[:, 0])


def trained(top: Top, train: Tensor, truth: Tensor, valid: Tensor, job: dict[str, Any]) -> list[int]:
    """The classes that the top gives the held-out rows after the last epoch."""
    moving, size = list(top.parameters()), job["batch"]
    settings = {"lr": job["lr"], "weight_decay": job["weight_decay"], "betas": tuple(job["betas"]), "eps": job["eps"]}
    optimizer = torch.optim.AdamW(moving, **settings)
    total = job["epochs"] * -(-len(train) // size)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total)
    said: list[int] = []
    for _ in range(job["epochs"]):
        for places in torch.randperm(len(train)).split(size):
            nn.functional.cross_entropy(top(train[places]), truth[places]).backward()
            nn.utils.clip_grad_norm_(moving, job["clip_norm"])
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        with torch.inference_mode():
            said = [place for tokens in valid.split(size) for place in top(tokens).argmax(-1).tolist()]
    return said


def main() -> None:
    """Encode once, train what moves, say what each held-out row is."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    clock, labels = Clock(), classes(job)
    processor = AutoImageProcessor.from_pretrained(job["model"])
    train, valid = (Rows(job, split, processor, labels) for split in ("train", "valid"))
    tower = AutoModel.from_pretrained(job["model"], dtype=torch.float32, add_pooling_layer=False).eval()
    clock.start()
    if job["blocks"]:
        layers, norm = tower.layers, tower.layernorm
        top = Top(layers[-job["blocks"] :], norm, tower.config.hidden_size, len(labels))
        tower.layers, tower.layernorm = layers[: -job["blocks"]], nn.Identity()
        features = [encoded(tower, rows, job).clone() for rows in (train, valid)]
        said = trained(top, features[0], torch.tensor(train.labels), features[1], job)
    else:
        features = [encoded(tower, rows, job) for rows in (train, valid)]
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features[0].numpy(), train.labels)
        said = model.predict(features[1].numpy()).tolist()
    clock.mark()
    answer = clock.answer({row["id"]: labels[place] for row, place in zip(valid.rows, said, strict=True)})
    Path(sys.argv[2]).write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main()
