"""Small folders and tables of pictures and sounds, as users have them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from multitune.data.decode import modality

SUFFIX = {"image": ".png", "audio": ".wav"}


def medium(path: Path, kind: str, seed: int) -> Path:
    """A small picture or sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made: Any = modality(kind)
    path.write_bytes(made.encode(made.synthesize(seed))[1])
    return path


def classes(root: Path, names: Sequence[str], *, rows: int, kind: str = "image") -> Path:
    """A folder with a folder for each class."""
    for number in range(rows):
        medium(root / names[number % len(names)] / f"file {number}{SUFFIX[kind]}", kind, number)
    return root


def written_csv(path: Path, rows: Iterable[Sequence[str]], *, separator: str = ",", encoding: str = "utf-8") -> Path:
    """A CSV, its header the first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding=encoding, newline="") as stream:
        csv.writer(stream, delimiter=separator).writerows(rows)
    return path


def written_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """One object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path
