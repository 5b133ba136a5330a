"""Predict every row of a table with an artifact and write a table.

`multitune predict ARTIFACT data=rows.jsonl --out x.parquet` writes one row per input row, in order: its id, each answer with its
score, or each part's embedding. Rows that cannot be read are in the output with their cause, never left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import DataError
from multitune.core.ledger import Ledger
from multitune.core.protocols import Category, Embedding, Number, Prediction, Split, Text
from multitune.core.recipe import make_recipe
from multitune.core.result import Result
from multitune.core.rundir import write_atomic
from multitune.verbs.evaluate import data_of, examples_of, open_run_or_artifact

if TYPE_CHECKING:
    from multitune.deliver.artifact import Artifact

CHUNK = 256


class Options(catalog.Options):
    """Which artifact, on what, to where."""

    artifact: Path = Field(description="an artifact's folder, or a run's", json_schema_extra={"positional": True, "metavar": "ARTIFACT"})
    overrides: tuple[str, ...] = Field(default=(), description="data=PATH; evaluate.generate...", json_schema_extra=catalog.POSITIONAL)
    out: Path = Field(default=Path("predictions.jsonl"), description="a .parquet, .csv or .jsonl file")
    split: Split = Field(default="test", description="without data=: which split of the recipe's own data")
    run: Path | None = Field(default=None, description="keep the ledger of unreadable rows in this folder")
    fresh: bool = Field(default=False, description="overwrite --out")


def build(options: Options) -> Result:
    """Predict and write."""
    data, rest = data_of(options.overrides)
    if options.out.exists() and not options.fresh:
        raise DataError(str(options.out), "exists already.", "Choose another --out, or --fresh to overwrite it.")
    if options.out.suffix not in WRITERS:
        raise DataError("--out", f'found "{options.out.suffix}".', f"Give one of {', '.join(WRITERS)}.")
    artifact = open_run_or_artifact(options.artifact)
    ledger = Ledger(options.run / "ledger" if options.run is not None else None)
    recipe = make_recipe(artifact.request, rest)
    _, examples = examples_of(_without_answers(recipe, data), artifact, data, options.split, ledger)
    rows = list(_rows(artifact, examples, ledger, recipe.evaluate.generate))
    WRITERS[options.out.suffix](options.out, rows)
    ledger.seal("end")
    lost = sum(1 for row in rows if row["cause"])
    text = f"{len(rows) - lost} rows predicted, {lost} not readable: {options.out}"
    return Result(ok=True, figures={"rows": float(len(rows)), "rows_lost": float(lost)}, paths={"predictions": options.out}, text=text)


def predict(artifact: Path | str | Artifact, data: Any, *, ledger: Ledger | None = None) -> list[Prediction]:
    """The predictions for a table's path, a component, or rows in memory, in order; rows that cannot be read raise.

    Raises: DataError naming the row that cannot be read; ArtifactError.
    """
    from multitune.deliver.artifact import Artifact as Opened

    opened = artifact if isinstance(artifact, Opened) else open_run_or_artifact(artifact)
    recipe = make_recipe(opened.request)
    _, examples = examples_of(_without_answers(recipe, data), opened, data, "test", ledger or Ledger())
    predictor = opened.predictor()
    return [made for start in range(0, len(examples), CHUNK) for made in predictor.predict(_chunk(examples, start))]


def _without_answers(recipe: Any, data: Any) -> Any:
    """Other data need no answers: they are what is to be found."""
    if data is None:
        return recipe
    plain = recipe.model_dump(exclude_unset=True)
    parts = {name: spec for name, spec in plain["data"]["parts"].items() if name not in recipe.data.answers}
    plain["data"] = plain["data"] | {"parts": parts, "answers": []}
    return make_recipe(plain)


def _chunk(examples: Any, start: int) -> list[Any]:
    return [examples.sample(index) for index in range(start, min(start + CHUNK, len(examples)))]


def _rows(artifact: Artifact, examples: Any, ledger: Ledger, generate: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    from multitune.data.decode import readable

    predictor = artifact.predictor(generate=generate)
    for start in range(0, len(examples), CHUNK):
        samples = _chunk(examples, start)
        causes = {sample.id: cause for sample in samples if (cause := readable(sample))}
        for row_id, cause in causes.items():
            ledger.record(id=row_id, fate="quarantined", cause=cause)
        made = {one.id: one for one in predictor.predict([sample for sample in samples if sample.id not in causes])}
        for sample in samples:
            yield _row(sample.id, made.get(sample.id), causes.get(sample.id, ""))


def _row(row_id: str, prediction: Prediction | None, cause: str) -> dict[str, Any]:
    row: dict[str, Any] = {"id": row_id, "cause": cause}
    for name, answer in ({} if prediction is None else prediction.answers).items():
        if isinstance(answer, Category):
            row |= {name: answer.value, f"{name}.score": answer.scores[answer.value]}
        elif isinstance(answer, Number):
            row[name] = answer.value
        elif isinstance(answer, Text):
            row |= {name: answer.value, f"{name}.score": answer.score}
        elif isinstance(answer, Embedding):
            row[name] = [float(value) for value in answer.value]
    return row


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8"))


def _table(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    return pa.table({name: [row.get(name) for row in rows] for name in _columns(rows)})


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(_table(rows), sink)
    write_atomic(path, sink.getvalue().to_pybytes())


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    import csv
    import io

    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=_columns(rows))
    writer.writeheader()
    writer.writerows({name: json.dumps(value) if isinstance(value, list) else value for name, value in row.items()} for row in rows)
    write_atomic(path, stream.getvalue().encode("utf-8"))


WRITERS = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_jsonl}
