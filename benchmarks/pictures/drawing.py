"""JPEG files of ten classes and the folder of a small ViT, drawn from a seed: what every side reads.

A picture is a plain hue, one of ten, under a scan of a digit in grey, a slant of light and noise. The tower is random, of ViT-Ti's size, so
that nothing need be fetched: what it gives of such a picture can be told apart by a linear layer.
"""

from __future__ import annotations

import colorsys
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from transformers import AutoConfig, AutoModel

from multitune.core.randomness import derive
from multitune.core.store import folder_once

CLASSES = 10
STRAY = 0.3  # of a hue, in steps from one class to the next: half a step would meet the neighbour
VERSION = 1  # of the drawing: what was drawn once is found again by it


@dataclass(frozen=True)
class Size:
    """How many pictures, how large their files, and the tower. held_out: rows that are measured, among `rows`."""

    rows: int = 512
    held_out: int = 128
    side: int = 384
    blocks: int = 12
    width: int = 192
    heads: int = 3
    tower_side: int = 224


def drawn(size: Size, seed: int = 0) -> Mapping[str, str]:
    """The paths `model` (a folder) and `rows` (JSON lines of id, image, label and split), made on the first call."""
    parts = {"size": asdict(size), "seed": seed, "version": VERSION}
    folder = folder_once("pictures", parts, lambda draft: _write(draft, size, seed))
    return {"model": str(folder / "model"), "rows": str(folder / "rows.jsonl")}


def _write(folder: Path, size: Size, seed: int) -> None:
    _write_model(folder / "model", size)
    (folder / "images").mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _rows(folder, size, seed)), "utf-8")


def _rows(folder: Path, size: Size, seed: int) -> Iterator[dict[str, str]]:
    rng = np.random.default_rng(derive("pictures", seed))
    classes = rng.permutation(np.arange(size.rows) % CLASSES)
    scans = load_digits().images / 16.0
    for place, kind in enumerate(classes.tolist()):
        path = folder / "images" / f"{place:04d}.jpg"
        _picture(rng, kind, scans[int(rng.integers(len(scans)))], size.side).save(path, quality=90)
        yield {
            "id": path.stem,
            "image": f"images/{path.name}",
            "label": f"hue-{kind}",
            "split": "valid" if place < size.held_out else "train",
        }


def _picture(rng: np.random.Generator, kind: int, scan: Any, side: int) -> Image.Image:
    hue = (kind + rng.uniform(-STRAY, STRAY)) / CLASSES % 1.0
    ground = 255 * np.asarray(colorsys.hsv_to_rgb(hue, rng.uniform(0.35, 0.9), rng.uniform(0.45, 0.95)))
    ink = np.asarray(Image.fromarray(np.uint8(255 * scan)).resize((side, side), Image.Resampling.BILINEAR))[..., None] / 255
    across, down = np.meshgrid(*[np.linspace(0, 1, side)] * 2)
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 - rng.uniform(0, 0.5) * np.clip(np.cos(angle) * across + np.sin(angle) * down, 0, 1)[..., None]
    seen = ground * light * (1 - ink) + rng.uniform(40, 215) * ink + rng.normal(0, 30, (side, side, 3))
    return Image.fromarray(np.uint8(np.clip(seen, 0, 255)))


def _write_model(folder: Path, size: Size) -> None:
    known = {"hidden_size": size.width, "num_hidden_layers": size.blocks, "num_attention_heads": size.heads}
    known |= {"intermediate_size": 4 * size.width, "image_size": size.tower_side, "patch_size": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(AutoConfig.for_model("vit", **known), add_pooling_layer=False).save_pretrained(folder)
    sides = {"height": size.tower_side, "width": size.tower_side}
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "ViTImageProcessor", "size": sides}), "utf-8")
