"""Golden rows: a few inputs as files with the predictions that the saved model gave for them, so that any copy can be compared.

    golden/rows.json   golden/0/image.png   golden/0/sound.wav

The predictions are made from the files, read back through the decode gate, so nothing lies between them and a later reading.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from multitune.core.errors import ArtifactError
from multitune.core.protocols import (
    Answer,
    Category,
    CellModality,
    Embedding,
    Labels,
    MediaModality,
    Number,
    Prediction,
    Predictor,
    Sample,
    Text,
)
from multitune.core.recipe import PartSpec
from multitune.data.decode import BadPart, modality, opened
from multitune.data.sample import sample

FOLDER, ROWS = "golden", "rows.json"


def write(folder: Path, samples: Sequence[Sample], predictor: Predictor) -> None:
    """Write `golden/` with the samples that can be read, their answers left out."""
    place = folder / FOLDER
    place.mkdir()
    rows = [row for number, one in enumerate(samples) if (row := _written(place, str(number), one, predictor)) is not None]
    given = predictor.predict([_sample(place, row) for row in rows]) if rows else []
    for row, prediction in zip(rows, given, strict=True):
        row["answers"] = {name: plain(answer) for name, answer in prediction.answers.items()}
    text = json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False)
    (place / ROWS).write_text(text + "\n", "utf-8")


def count(folder: Path) -> int:
    """How many rows of the data an artifact holds."""
    return len(json.loads((folder / FOLDER / ROWS).read_text("utf-8")))


def read(folder: Path) -> Iterator[tuple[Sample, Prediction]]:
    """The golden samples with the predictions of the saved model."""
    place = folder / FOLDER
    for row in json.loads((place / ROWS).read_text("utf-8")):
        answers = {name: _answer(entry) for name, entry in row["answers"].items()}
        yield _sample(place, row), Prediction(row["id"], answers)


def distance(left: Prediction, right: Prediction) -> float:
    """How far two predictions are apart: the largest difference of scores or numbers; infinite where they say something else."""
    if left.answers.keys() != right.answers.keys():
        return float("inf")
    return max((_apart(answer, right.answers[name]) for name, answer in left.answers.items()), default=0.0)


def plain(answer: Answer) -> dict[str, Any]:
    """An answer as plain data."""
    if isinstance(answer, Embedding):
        return {"kind": answer.kind, "value": [float(number) for number in answer.value]}
    if isinstance(answer, Category):
        return {"kind": answer.kind, "value": answer.value, "scores": dict(answer.scores)}
    if isinstance(answer, Labels):
        return {"kind": answer.kind, "value": list(answer.value), "scores": dict(answer.scores)}
    return dict(vars(answer))


def _apart(left: Answer, right: Answer) -> float:
    match left, right:
        case Embedding(), Embedding() if left.value.shape == right.value.shape:
            return float(np.abs(left.value - right.value).max())
        case Number(), Number():
            return abs(left.value - right.value)
        case (Category(), Category()) | (Labels(), Labels()) if left.scores.keys() == right.scores.keys():
            return max(abs(score - right.scores[label]) for label, score in left.scores.items())
        case Text(), Text() if left.value == right.value:
            return abs(left.score - right.score)
        case _:
            return float("inf")


def _written(place: Path, number: str, one: Sample, predictor: Predictor) -> dict[str, Any] | None:
    """One row with its media as files; None where a part cannot be decoded, or be kept as a file."""
    try:
        parts = {name: opened(part) for name, part in one.parts.items() if name in predictor.needs.parts}
    except BadPart:
        return None
    row: dict[str, Any] = {"id": one.id, "parts": {}}
    for name, part in parts.items():
        entry: dict[str, Any] = {"modality": part.modality} | ({"options": dict(part.options)} if part.options else {})
        kind = modality(part.modality, part.options)
        value = kind.write(part.value) if isinstance(kind, CellModality) else part.value
        if (kind.media and not kind.magic) or not (kind.media or isinstance(value, str | int | float)):
            return None  # taken from memory only, or no plain data: nothing of it would be read back
        if kind.media:
            suffix, data = cast("MediaModality", kind).encode(part.value)
            file = place / number / f"{len(row['parts'])}{suffix}"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
            entry["file"] = file.relative_to(place).as_posix()
        else:
            entry["value"] = value
        row["parts"][name] = entry | ({"span": list(part.span)} if part.span else {})
    return row


def _sample(place: Path, row: Mapping[str, Any]) -> Sample:
    entries: Mapping[str, Mapping[str, Any]] = row["parts"]
    values = {name: entry.get("file", entry.get("value")) for name, entry in entries.items()}
    specs = {name: PartSpec(modality=entry["modality"], options=entry.get("options", {})) for name, entry in entries.items()}
    made = sample(values, specs, id=row["id"], root=place)
    spans = {name: tuple(entry["span"]) for name, entry in entries.items() if "span" in entry}
    return Sample(made.id, {name: replace(part, span=spans.get(name)) for name, part in made.parts.items()})


def _answer(entry: Mapping[str, Any]) -> Answer:
    match entry["kind"]:
        case "embedding":
            return Embedding(np.array(entry["value"], np.float32))
        case "category":
            return Category(entry["value"], entry["scores"])
        case "labels":
            return Labels(tuple(entry["value"]), entry["scores"])
        case "number":
            return Number(entry["value"])
        case "text":
            return Text(entry["value"], entry["score"])
        case kind:
            raise ArtifactError(f"{FOLDER}/{ROWS}", f'holds an answer of the kind "{kind}".', "Update multitune.")
