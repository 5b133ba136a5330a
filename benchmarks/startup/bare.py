"""The bare script: `python benchmarks/startup/bare.py JOB ANSWER`. torch and Transformers, by hand; nothing is checked."""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor


def main() -> None:
    """Read, shuffle, take one step."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    home = Path(job["table"]).parent
    with Path(job["table"]).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = {name: place for place, name in enumerate(sorted({row["label"] for row in rows}))}
    size = {"height": 64, "width": 64}
    processor = ViTImageProcessor(size=size)
    shape = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512}
    model = ViTForImageClassification(ViTConfig(**shape, image_size=64, patch_size=8, num_labels=len(labels)))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    chosen = [rows[place] for place in torch.randperm(len(rows))[: job["batch"]].tolist()]
    pixels = processor([Image.open(home / row["image"]).convert("RGB") for row in chosen], return_tensors="pt")["pixel_values"]
    loss = model(pixel_values=pixels, labels=torch.tensor([labels[row["label"]] for row in chosen])).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    Path(sys.argv[2]).write_text(json.dumps({"stepped": time.monotonic(), "cpu": time.process_time()}), "utf-8")


if __name__ == "__main__":
    main()
