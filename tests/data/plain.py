"""A preparer without a model, small tables with real media, and recipes over them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image

from multitune.core.ledger import Ledger
from multitune.core.protocols import Batch, Memo, Sample, Sound, Split
from multitune.core.recipe import Recipe, make_recipe
from multitune.data import plan
from multitune.data.decode import modality, opened
from multitune.data.plan import Outline
from multitune.data.sources.rows import MemoryRows

HALVES = {"train": 0.6, "valid": 0.2, "test": 0.2}


class Plain:
    """Decodes every medium and gives its mean; texts give their length."""

    def prepare(self, sample: Sample, memo: Memo) -> Mapping[str, Any]:
        row: dict[str, Any] = {"id": sample.id}
        for name, part in sample.parts.items():
            value = opened(part).value
            if isinstance(value, Sound):
                row[name] = torch.tensor(float(np.abs(value.wave).mean()))
            elif isinstance(value, np.ndarray):
                row[name] = torch.from_numpy(value[:4, :4].astype(np.float32))
            else:
                row[name] = torch.tensor(float(len(str(value))))
        return row

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        names = sorted({name for row in rows for name in row} - {"id"})
        inputs = {name: {"x": torch.stack([row[name] for row in rows if name in row])} for name in names}
        return Batch(tuple(row["id"] for row in rows), inputs, {}, {})

    def bucket(self, row: Mapping[str, Any]) -> str:
        return ""

    def describe(self) -> Mapping[str, Any]:
        return {}


def png(pixels: np.ndarray) -> bytes:
    """Pixels as a PNG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def picture(seed: int, side: int = 16) -> np.ndarray:
    """A random square picture."""
    return np.random.default_rng(seed).integers(0, 256, size=(side, side, 3), dtype=np.uint8)


def wav(seed: int, **options: Any) -> bytes:
    """A made-up sound as a WAV."""
    sound = modality("audio").synthesize(seed)
    stream = io.BytesIO()
    soundfile.write(stream, sound.wave, sound.rate, format="WAV", **options)
    return stream.getvalue()


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def picture_table(folder: Path, count: int, **columns: Any) -> Path:
    """A table of `count` pictures with the columns id, image, caption, label and whatever `columns` makes of a number."""
    rows = []
    for number in range(count):
        (folder / f"{number}.png").write_bytes(png(picture(number)))
        row = {"id": f"r{number:03d}", "image": f"{number}.png", "caption": f"picture {number}", "label": "ab"[number % 2]}
        rows.append(row | {name: make(number) for name, make in columns.items()})
    return write_jsonl(folder / "table.jsonl", rows)


def recipe(source: Any, **data: Any) -> Recipe:
    """A recipe over one source: an image, a caption and a label, all in train but where `data` says otherwise."""
    source = {"name": "table", "path": str(source)} if isinstance(source, Path) else source
    spec: dict[str, Any] = {"source": source} if source is not None else {}
    spec |= {"parts": {"image": "image", "caption": "text", "label": "category"}, "answers": ["label"]}
    spec |= {"split": {"train": 1.0, "valid": 0.0, "test": 0.0}}
    train = data.pop("train", {})
    return make_recipe({"name": "plain", "task": "classification", "data": spec | data, "train": train})


def outlined(made: Recipe, ledger: Ledger | None = None) -> Outline:
    """The recipe's data, read, aligned and split."""
    return plan.outline(made, ledger if ledger is not None else Ledger())


def memory(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The source of rows in memory."""
    return {"name": "rows", "rows": MemoryRows.of(rows)}


def texts(count: int, **columns: Any) -> list[dict[str, Any]]:
    """Rows with the caption and label that `recipe` asks for, and no picture."""
    rows = [{"id": f"r{n}", "caption": f"c{n}", "label": "ab"[n % 2]} for n in range(count)]
    return [row | {name: make(n) for name, make in columns.items()} for n, row in enumerate(rows)]


def of_texts(rows: list[dict[str, Any]], **data: Any) -> Recipe:
    """A recipe over captions and labels."""
    source = data.pop("source", None) or memory(rows)
    return recipe(source, **({"parts": {"caption": "text", "label": "category"}} | data))


def ids(found: Outline) -> dict[Split, set[str]]:
    """The ids of each split."""
    return {name: set(examples.ids) for name, examples in found.examples.items()}


def mix(*entries: tuple[list[dict[str, Any]], float]) -> list[dict[str, Any]]:
    """A mix of rows with their weights."""
    return [{"source": memory(rows), "weight": weight} for rows, weight in entries]


def of_mix(entries: list[dict[str, Any]], **data: Any) -> Recipe:
    """A recipe over a mix of captions and labels."""
    return recipe(None, mix=entries, **({"parts": {"caption": "text", "label": "category"}} | data))
