"""Predict every row of a table with an artifact and write a table.

`multitune predict ARTIFACT data=rows.jsonl --out x.parquet` writes one row per input row, in order: its id, each answer with its
score, or each part's embedding. Rows that cannot be read, or lack a part that the model needs, are in the output with their cause,
never left out. The rows of the recipe's own split are those that training kept.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import DataError, writing
from multitune.core.finding import Finding, Severity
from multitune.core.ledger import Ledger
from multitune.core.protocols import Category, Embedding, Labels, Needs, Number, Prediction, Sample, Split, Text
from multitune.core.recipe import Recipe, make_recipe
from multitune.core.result import Result
from multitune.core.rundir import replacing
from multitune.verbs.evaluate import asked_of, data_of, examples_of, over

if TYPE_CHECKING:
    from multitune.data.decode import BadPart
    from multitune.data.split import Examples
    from multitune.deliver.artifact import Artifact

CHUNK = 256
PREDICTED = ("evaluate.generate", "data")
PREDICTED_ELSEWHERE = ("evaluate.generate", "data.parts")
Column = Literal["text", "number", "numbers"]
Write = Callable[[list[dict[str, Any]]], None]


class Options(catalog.Options):
    """Which artifact, on what, to where."""

    artifact: Path = Field(description="an artifact's folder, or a run's", json_schema_extra={"positional": True, "metavar": "ARTIFACT"})
    overrides: tuple[str, ...] = Field(default=(), description="data=PATH; evaluate.generate...", json_schema_extra=catalog.POSITIONAL)
    out: Path = Field(default=Path("predictions.jsonl"), description="a .parquet, .csv or .jsonl file")
    split: Split = Field(default="test", description="without data=: which split of the recipe's own data")
    run: Path | None = Field(default=None, description="keep the ledger of unreadable rows in this folder")
    fresh: bool = Field(default=False, description="overwrite --out")


def build(options: Options) -> Result:
    """Predict and write; where no row could be read, that is an error."""
    from multitune.deliver.artifact import open_artifact

    data, rest = data_of(options.overrides)
    out = options.out
    if out.exists() and not options.fresh:
        raise DataError(str(out), "exists already.", "Choose another --out, or --fresh to overwrite it.")
    if out.suffix not in WRITERS:
        raise DataError("--out", f'found "{out.suffix}".', f"Give one of {', '.join(WRITERS)}.")
    artifact, ledger = open_artifact(options.artifact), Ledger()
    recipe = asked_of(artifact, rest, takes=PREDICTED if data is None else PREDICTED_ELSEWHERE)
    examples = _examples(recipe, artifact, data, options.split, ledger)
    rows, lost, first = 0, 0, ""
    try:
        with replacing(out) as draft, WRITERS[out.suffix](draft, columns_of(artifact.needs)) as write:
            for chunk in _chunks(artifact, examples, recipe.evaluate.generate):
                for one in chunk:
                    if one.cause:
                        ledger.record(id=one.id, fate="quarantined", cause=one.cause)
                with writing(out):
                    write([_row(one) for one in chunk])
                unread = [f"row {one.id}, {one.cause}" for one in chunk if one.cause]
                rows, lost, first = rows + len(chunk), lost + len(unread), first or next(iter(unread), "")
    finally:
        if options.run is not None:
            ledger.write(options.run / f"{out.stem}-ledger.jsonl")
    findings = (_unread(out, rows, lost, first),) if lost else ()
    text = "\n".join([f"{rows - lost} rows predicted, {lost} not readable: {out}", *(finding.line() for finding in findings)])
    figures = {"rows": float(rows), "rows_lost": float(lost)}
    return Result(ok=not lost or lost < rows, figures=figures, findings=findings, paths={"predictions": out}, text=text)


def _unread(out: Path, rows: int, lost: int, first: str) -> Finding:
    """That rows could not be read, with the first cause; an error where none could."""
    remedy, evidence = 'Mend them; the column "cause" says why for each.', {"lost": lost, "rows": rows}
    if lost == rows:
        return Finding(
            "rows-lost", Severity.ERROR, str(out), f"none of the {rows} rows could be read; the first: {first}.", remedy, evidence
        )
    found = f"{lost} of {rows} rows could not be read; the first: {first}."
    return Finding("rows-lost", Severity.WARNING, str(out), found, remedy, evidence)


def predict(artifact: Path | str | Artifact, data: Any, *, ledger: Ledger | None = None) -> list[Prediction]:
    """The predictions for a table's path, a component, or rows in memory, in order; rows that cannot be read raise.

    Raises: DataError naming the row that cannot be read; ArtifactError.
    """
    from multitune.deliver.artifact import Artifact as Opened
    from multitune.deliver.artifact import open_artifact

    opened = artifact if isinstance(artifact, Opened) else open_artifact(artifact)
    examples = _examples(make_recipe(opened.request), opened, data, "test", ledger or Ledger())
    made: list[Prediction] = []
    for one in (one for chunk in _chunks(opened, examples, {}) for one in chunk):
        if one.prediction is None:
            raise DataError(f"predict, row {one.id}", f"{one.cause}.", "Mend it, or leave the row out.")
        made.append(one.prediction)
    return made


@dataclass(frozen=True)
class _Reply:
    """What became of a row: its prediction, or the cause why there is none."""

    id: str
    prediction: Prediction | None
    cause: str = ""


def _examples(recipe: Recipe, artifact: Artifact, data: Any, split: Split, ledger: Ledger) -> Examples:
    """The rows to predict: of other data every one, whatever it lacks, and without answers, which are what is to be found."""
    if data is None:
        return examples_of(recipe, artifact, None, split, ledger)[1]
    from multitune.data.plan import every_row

    plain = recipe.model_dump(exclude_unset=True)
    parts = {name: spec for name, spec in plain["data"]["parts"].items() if name in artifact.parts}
    return every_row(over(make_recipe(plain | {"data": plain["data"] | {"parts": parts, "answers": []}}), data))


def _chunks(artifact: Artifact, examples: Examples, generate: Mapping[str, Any]) -> Iterator[list[_Reply]]:
    from multitune.models.predictor import answered

    predictor = artifact.predictor(generate=generate)
    for start in range(0, len(examples), CHUNK):
        causes: dict[int, str] = {}
        samples: dict[int, Sample] = {}
        places = range(start, min(start + CHUNK, len(examples)))
        for place in places:
            found = _sample(artifact, examples, place)
            if isinstance(found, str):
                causes[place] = found
            else:
                samples[place] = found
        given = answered(predictor, list(samples.values()))
        number = {place: position for position, place in enumerate(samples)}
        causes |= {place: _said(given.causes[at]) for place, at in number.items() if at in given.causes}
        yield [_Reply(examples.ids[p], given.predictions[number[p]] if p not in causes else None, causes.get(p, "")) for p in places]


def _sample(artifact: Artifact, examples: Examples, place: int) -> Sample | str:
    """The sample in a place with the parts that the model reads, or why there is none."""
    from multitune.data.decode import BadPart

    try:
        found = examples.sample(place)
    except BadPart as bad:
        return _said(bad)
    lacking = artifact.lacks(found)
    if lacking:
        return f"{lacking}: is missing"
    return replace(found, parts={name: part for name, part in found.parts.items() if name in artifact.parts})


def _said(bad: BadPart) -> str:
    return f"{bad.part}: {bad.cause}"


def columns_of(needs: Needs) -> dict[str, Column]:
    """The columns of the output and what they hold: id, cause, each answer (with its score), or each part's embedding."""
    columns: dict[str, Column] = {"id": "text", "cause": "text"}
    for name, need in needs.answers.items():
        columns[name] = "number" if need.modality == "number" else "text"
        if need.modality == "labels":
            columns[f"{name}.scores"] = "text"
        elif need.modality != "number":
            columns[f"{name}.score"] = "number"
    for name in () if needs.answers else needs.parts:
        columns[name] = "numbers"
    return columns


def _row(reply: _Reply) -> dict[str, Any]:
    row: dict[str, Any] = {"id": reply.id, "cause": reply.cause}
    for name, answer in ({} if reply.prediction is None else reply.prediction.answers).items():
        if isinstance(answer, Category):
            row |= {name: answer.value, f"{name}.score": answer.scores[answer.value]}
        elif isinstance(answer, Labels):
            shown, scores = (json.dumps(value, ensure_ascii=False) for value in (list(answer.value), dict(answer.scores)))
            row |= {name: shown, f"{name}.scores": scores}
        elif isinstance(answer, Number):
            row[name] = answer.value
        elif isinstance(answer, Text):
            row |= {name: answer.value, f"{name}.score": answer.score}
        elif isinstance(answer, Embedding):
            row[name] = [float(value) for value in answer.value]
    return row


@contextmanager
def _jsonl(path: Path, columns: Mapping[str, Column]) -> Generator[Write]:
    with path.open("w", encoding="utf-8") as stream:
        yield lambda rows: stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@contextmanager
def _csv(path: Path, columns: Mapping[str, Column]) -> Generator[Write]:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(columns))
        writer.writeheader()
        yield lambda rows: writer.writerows({n: json.dumps(v) if isinstance(v, list) else v for n, v in row.items()} for row in rows)


@contextmanager
def _parquet(path: Path, columns: Mapping[str, Column]) -> Generator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"text": pa.string(), "number": pa.float64(), "numbers": pa.list_(pa.float64())}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    with pq.ParquetWriter(path, schema) as writer:
        yield lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema=schema))


WRITERS: Mapping[str, Callable[[Path, Mapping[str, Column]], AbstractContextManager[Write]]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _jsonl,
}
