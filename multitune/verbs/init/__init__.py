"""Look at a folder or a table and write a recipe for it, a comment to each choice.

`multitune init photos/` for a folder with a folder for each class, `multitune init rows.csv` for a table (JSONL, CSV, TSV, Parquet) with
paths, texts, labels or numbers. Every guess is shown with what it rests on and stands in the recipe, where it can be edited. What could
be two things is asked for: `--task`, `--answer`, `--part NAME=MODALITY`, `--root`, `--separator`. Nothing is trained, no model is read.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import DataError, PluginError, UserError, did_you_mean, one_of
from multitune.core.finding import Finding, Severity
from multitune.core.ledger import Ledger
from multitune.core.notation.yaml import parse_yaml
from multitune.core.recipe import Recipe, make_recipe
from multitune.core.result import Result
from multitune.core.rundir import write_atomic

if TYPE_CHECKING:
    from multitune.verbs.init.deciding import Choice
    from multitune.verbs.init.finding_rows import Found
    from multitune.verbs.init.looking import Column

SEEDS = 20  # divisions of the rows that are tried
FEW = 8  # rows below which no split can be made


class Options(catalog.Options):
    """What to look at, and what the user knows already."""

    data: Path = Field(description="a folder or a table", json_schema_extra={"positional": True, "metavar": "FOLDER_OR_TABLE"})
    out: Path = Field(default=Path("recipe.yaml"), description="the recipe that is written")
    task: str = Field(default="", description="classification, regression, retrieval, captioning ...; else by the columns")
    answer: tuple[str, ...] = Field(default=(), description="a column that the model is to produce; may be given several times")
    part: tuple[str, ...] = Field(default=(), description="NAME=MODALITY: what a column is; NAME=none leaves it out; several times")
    root: Path | None = Field(default=None, description="what relative paths in the table are relative to; by default the table's folder")
    separator: str = Field(default="", description="what stands between the cells of a table; by default what fits its lines")
    run: Path | None = Field(default=None, description="also keep what is shown in this folder")
    fresh: bool = Field(default=False, description="move a recipe of that name aside")


def build(options: Options) -> Result:
    """A recipe for what a path holds."""
    said = dict(_said(text) for text in options.part)
    made = init(
        options.data,
        out=options.out,
        task=options.task,
        answers=options.answer,
        parts=said,
        root=options.root,
        separator=options.separator,
        fresh=options.fresh,
    )
    return made if options.run is None else made.kept(options.run / "init.txt")


def init(
    data: Path | str,
    *,
    out: Path | str = "recipe.yaml",
    task: str = "",
    answers: Sequence[str] = (),
    parts: Mapping[str, str] | None = None,
    root: Path | str | None = None,
    separator: str = "",
    fresh: bool = False,
) -> Result:
    """Write a recipe for the rows at a path; figures: `rows`, `columns`, `parts`. paths: `recipe`.

    parts: column -> modality where the guess would be wrong; `none` leaves it out.
    Raises: DataError for what cannot be read or could be read in several ways, with the option that decides.
    """
    from multitune.verbs.init.deciding import choose
    from multitune.verbs.init.finding_rows import find
    from multitune.verbs.init.looking import look

    path, out = Path(data), Path(out)
    _refuse_taken(out, fresh)
    if task:
        catalog.find("task", task, where="--task")
    found = find(path, root=Path(root) if root is not None else None, separator=separator)
    said = dict(parts or {})
    unknown = [name for name in said if name not in found.rows.columns]
    if unknown:
        known = list(found.rows.columns)
        raise DataError("--part", f'there is no column "{unknown[0]}"; there are {one_of(known)}.', did_you_mean(unknown[0], known))
    columns = look(found.rows, said=said)
    choice = choose(columns, task=task, answers=answers, where=str(path))
    text, findings = _written(path, found, columns, choice)
    _put(out, text)
    findings = (*findings, *_findings(columns, choice))
    return Result(
        ok=all(finding.severity != Severity.ERROR for finding in findings),
        figures={"rows": float(len(found.rows)), "columns": float(len(columns)), "parts": float(len(choice.inputs) + len(choice.answers))},
        findings=findings,
        paths={"recipe": out},
        text=_told(path, found, columns, choice, findings, out),
    )


def _said(text: str) -> tuple[str, str]:
    name, equals, kind = text.rpartition("=")
    known = [*catalog.names("modality"), "none"]
    if not equals or kind not in known:
        raise PluginError("--part", f'found "{text}".', f"Write NAME=MODALITY; modalities are {one_of(known)}.")
    return name, kind


def _refuse_taken(out: Path, fresh: bool) -> None:
    """Refuse to write over a file that is there.

    Raises: UserError.
    """
    if out.exists() and not (fresh and out.is_file()):
        raise UserError(str(out), "is there already.", "Name another with --out, or move it aside with --fresh.")


def _put(out: Path, text: str) -> None:
    if out.is_file():
        number = 1
        while (aside := out.with_name(f"{out.name}.old-{number}")).exists():
            number += 1
        out.rename(aside)
    write_atomic(out, text.encode("utf-8"))


def _written(path: Path, found: Found, columns: Sequence[Column], choice: Choice) -> tuple[str, tuple[Finding, ...]]:
    """The recipe's text with a split that holds, and why none does where that is so.

    Of the divisions by a hash the first is taken in which each split has rows and train has every class.
    """
    from multitune.verbs.init.writing import recipe_text

    where = str(path)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().stem).strip("-._")[:60] or "my-data"
    error: DataError | None = None
    for split, told in _splits(found, columns, choice):
        text = recipe_text(name, found, columns, choice, split, told, where)
        error = _refusal(make_recipe(parse_yaml(text, where="init")))
        if error is None:
            return text, ()
    split, told = next(_splits(found, columns, choice))
    text = recipe_text(name, found, columns, choice, split, told, where)
    finding = Finding(
        "no-split", Severity.ERROR, error.where if error else "data.split", error.found if error else "", error.remedy if error else ""
    )
    return text, (finding,)


def _splits(found: Found, columns: Sequence[Column], choice: Choice) -> Any:
    from multitune.verbs.init.writing import SHARES

    if choice.split:
        yield {"column": choice.split}, "as the column says"
        return
    if found.others:
        yield {"sources": dict(found.others)}, "tables of their own; what has none is a share of train"
        return
    if "split" in found.rows.columns and "split" not in {column.name for column in columns}:
        yield {"column": "split"}, "as the folders say"
        return
    group = _group(columns, choice)
    for train, valid, test in SHARES:
        for seed in range(SEEDS):
            shares: dict[str, Any] = {"train": train, "valid": valid, "test": test}
            told = (
                "by a hash of the row's id" if not group else f"by a hash; rows of one {group} stay together, since several rows share it"
            )
            if seed:
                told += (
                    f"; with seed 0 to {seed - 1} a split would lack a class or have no rows"
                    if seed > 1
                    else "; with seed 0 a split would lack a class or rows"
                )
            yield shares | ({"group": group} if group else {}) | ({"seed": seed} if seed else {}), told


def _group(columns: Sequence[Column], choice: Choice) -> str:
    """The first column of media whose files stand in several rows: such rows may not be torn apart."""
    return next(
        (c.name for c in columns if c.name in choice.inputs and c.guess in {"image", "audio"} and max(c.values.values(), default=0) > 1), ""
    )


def _refusal(recipe: Recipe) -> DataError | None:
    """Why the data of a recipe cannot be split so; None where they can."""
    from multitune.data.plan import outline

    try:
        outline(recipe, Ledger())
    except DataError as error:
        return error
    return None


def _findings(columns: Sequence[Column], choice: Choice) -> tuple[Finding, ...]:
    found: list[Finding] = []
    for column in columns:
        if column.name not in choice.inputs and column.name not in choice.answers:
            continue
        bad, looked, cause = column.unread
        if bad:
            remedy = "Rows that cannot be read are left out and counted; data.max_loss says how many may be."
            severity = Severity.ERROR if bad == looked else Severity.WARNING
            found.append(
                Finding("unreadable", severity, column.name, f"{bad} of {looked} looked at cannot be read, first {cause}.", remedy)
            )
        counts = Counter(column.values) if column.name in choice.answers and column.guess == "category" else Counter[str]()
        rare = [value for value, number in counts.items() if number < 3]
        if rare:
            what = f'{len(rare)} of {len(counts)} classes are in fewer than 3 rows, such as "{rare[0]}".'
            found.append(
                Finding("rare-classes", Severity.WARNING, column.name, what, "They may be missing in a split: add rows, or leave them out.")
            )
    return tuple(found)


def _told(path: Path, found: Found, columns: Sequence[Column], choice: Choice, findings: Sequence[Finding], out: Path) -> str:
    """What a person reads: what was seen, column by column, what was chosen and what could be changed."""
    lines = [str(path), *(f"  {text}" for text in found.told), "", "columns"]
    wide = max(len(column.name) for column in columns)
    for column in columns:
        lacking = f"; missing in {column.missing:,} of {column.rows:,} rows" if column.missing else ""
        role = {"none": "not read", "lost": "not read"}.get(column.guess, column.guess)
        lines.append(f"  {column.name:<{wide}}  {role:<8}  {column.because}{lacking}")
    lines += ["", f"task {choice.task}: {choice.because}"]
    lines += [f"  reads    {', '.join(choice.inputs)}"] + ([f"  answers  {', '.join(choice.answers)}"] if choice.answers else [])
    lines += [f"  leaves   {name}: {why}" for name, why in choice.left.items()]
    doubts = [*choice.doubts, *(["the task: --task says another"] if "as --" not in choice.because else [])]
    lines += ["", "guessed; an option changes it", *(f"  {text}" for text in doubts)] if doubts else []
    lines += ["", *(finding.line() for finding in findings)] if findings else []
    return "\n".join([*lines, "", f"wrote {out}; next: multitune plan {shlex.quote(str(out))}"])
