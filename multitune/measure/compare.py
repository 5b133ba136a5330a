"""Two models on the same rows: which is better, and how surely.

Rows are put side by side by their ids, so the two may read different parts of them; what is true must be the same. Both are asked about a
chunk at a time; each figure has its difference with a 95 % interval from a paired bootstrap, and shares of rows McNemar's exact test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multitune.core.errors import ArtifactError, DataError, one_of
from multitune.core.finding import Finding, Severity
from multitune.core.protocols import Needs, Prediction, Predictor, Sample
from multitune.core.randomness import derive
from multitune.data.split import Examples
from multitune.measure.evaluator import Evaluator
from multitune.measure.paired import Difference, difference
from multitune.measure.report import Report, number
from multitune.measure.tally import Named, Tally, flat, prompted

AGAINST = "against"
WHERE = "--against"
Answered = Iterator[tuple[int, Sample, Prediction]]


@dataclass(frozen=True)
class Side:
    """One of the two: what measures it, on which rows, what answers.

    predictor: made when first needed, so that what differs is said before anything is read.
    """

    evaluator: Evaluator
    examples: Examples
    predictor: Callable[[], Predictor]

    @property
    def needs(self) -> Needs:
        """What it reads and answers."""
        return self.evaluator.needs


def compare(one: Side, other: Side, *, name: str = "test") -> Report:
    """The figures of both on the rows that both can read, `test/...` and `test/against/...`, and `test/.../difference`.

    Raises: ArtifactError where the two answer other questions; DataError where rows or what is true of them differ, before either is asked.
    """
    refuse_other_questions(one.needs, other.needs)
    places = _places(one.examples, other.examples)
    for answer in one.needs.answers or ([one.evaluator.spec.match] if one.evaluator.spec.match else []):
        _refuse_other_truth(answer, one.examples, other.examples, places)
    sides = [(side, side.predictor()) for side in (one, other)]
    tallies = [Tally(prompted(side.evaluator.questions, predictor, side.needs, side.examples)) for side, predictor in sides]
    answered = [
        side.evaluator.answered(predictor, side.examples, where)
        for (side, predictor), where in zip(sides, (range(len(places)), places), strict=True)
    ]
    rows = 0
    for pair in _both(answered[0], answered[1], places):
        rows += 1
        for tally, (sample, prediction) in zip(tallies, pair, strict=True):
            tally.update(sample, prediction)
    return _report(one.evaluator, *tallies, name=name, rows=rows, lost=len(places) - rows)


def refuse_other_questions(one: Needs, other: Needs) -> None:
    """Two models are compared in what both answer.

    Raises: ArtifactError for other answers, other labels, or, without answers, other parts.
    """
    if not one.answers and not other.answers:
        if set(one.parts) != set(other.parts):
            found = f"one brings {one_of(one.parts)} together, the other {one_of(other.parts)}."
            raise ArtifactError(WHERE, found, "Compare models of the same parts.")
        return
    kinds = [{name: need.modality for name, need in needs.answers.items()} for needs in (one, other)]
    if kinds[0] != kinds[1]:
        told = [one_of(f"{name} ({kind})" for name, kind in each.items()) for each in kinds]
        raise ArtifactError(WHERE, f"one answers {told[0]}, the other {told[1]}.", "Compare models that answer the same.")
    for name, need in one.answers.items():
        apart = sorted(set(need.labels) ^ set(other.answers[name].labels))
        if apart:
            found = f'only one of the two knows {len(apart)} labels of "{name}", such as "{apart[0]}".'
            raise ArtifactError(WHERE, found, "Compare models that were trained on the same labels.")


def text(report: Report) -> str:
    """The comparison as aligned plain text."""
    table = report.details[AGAINST]
    wide = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    lines = ["  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, wide, strict=True)).rstrip() for row in table]
    return "\n".join([f"{report.name}: {report.rows:,} rows", *lines]) + "\n"


def _places(one: Examples, other: Examples) -> list[int]:
    """Where the other has each row of the one.

    Raises: DataError where one has rows that the other has not.
    """
    there = {row_id: place for place, row_id in enumerate(other.ids)}
    missing = [row_id for row_id in one.ids if row_id not in there]
    extra = sorted(set(there) - set(one.ids))
    if missing or extra:
        named = (f'{len(rows)} only in {whose}, such as "{rows[0]}"' for rows, whose in ((missing, "one"), (extra, "the other")) if rows)
        raise DataError(WHERE, f"their rows differ: {', '.join(named)}.", "Give both the same rows: data=PATH.")
    return [there[row_id] for row_id in one.ids]


def _refuse_other_truth(column: str, one: Examples, other: Examples, places: Sequence[int]) -> None:
    here, there = one.column(column), other.column(column)
    for place, value in enumerate(here):
        if value != there[places[place]]:
            told = " and ".join("nothing" if found is None else f'"{found}"' for found in (value, there[places[place]]))
            raise DataError(WHERE, f'row {one.ids[place]} has two truths of "{column}": {told}.', "Give both the same rows: data=PATH.")


def _both(one: Answered, other: Answered, places: Sequence[int]) -> Iterator[tuple[tuple[Sample, Prediction], tuple[Sample, Prediction]]]:
    """The rows that both could read, in the order of the one; both streams leave rows out and never change the order."""
    order = {place: number for number, place in enumerate(places)}
    ahead = next(other, None)
    for index, sample, prediction in one:
        while ahead is not None and order[ahead[0]] < index:
            ahead = next(other, None)
        if ahead is not None and order[ahead[0]] == index:
            yield (sample, prediction), ahead[1:]
    for _ in other:  # what is left of the last chunk: its lost rows are taken down too
        continue


def _report(evaluator: Evaluator, one: Tally, other: Tally, *, name: str, rows: int, lost: int) -> Report:
    draws, seed = evaluator.spec.intervals, derive(evaluator.seed, "intervals")
    own = [found for found in one.figures(draws=draws, seed=seed) if "class/" not in found.name]
    theirs = {found.name: found for found in other.figures(draws=draws, seed=seed)}
    pairs, others = one.by_row(), other.by_row()
    figures: dict[str, float] = {"rows": float(rows), "rows_lost": float(lost)}
    table = [["figure", "this", AGAINST, "difference", "low", "high", "chance", "mcnemar"]]
    findings: list[Finding] = []
    for found in own:
        if found.name not in theirs:
            continue
        against = theirs[found.name]
        figures |= flat([found, Named(f"{AGAINST}/{found.name}", against.figure, False, found.better)])
        row = [found.name, number(found.figure.value), number(against.figure.value)]
        if found.name in pairs and found.name in others and len(pairs[found.name][0]) == len(others[found.name][0]):
            apart = difference(pairs[found.name][0], others[found.name][0], draws=draws, seed=seed)
            figures |= {f"{found.name}/difference{end}": value for end, value in _plain(apart, drawn=draws > 0).items()}
            row += [number(apart.value), *([number(apart.low), number(apart.high), f"{apart.chance:.2g}"] if draws else ["", "", ""])]
            row.append("" if apart.mcnemar is None else f"{apart.mcnemar:.2g}")
            if found.primary and draws:
                findings.append(_judged(f"{name}/{found.name}", found, apart))
        table.append([*row, *[""] * (len(table[0]) - len(row))])
    primary = {f"{name}/{found.name}": found.better for found in own if found.primary}
    full = {f"{name}/{key}": value for key, value in figures.items()}
    return Report(name, rows, full, primary, {AGAINST: table}, tuple(findings))


def _plain(apart: Difference, *, drawn: bool) -> Mapping[str, float]:
    ends = {"/low": apart.low, "/high": apart.high, "/chance": apart.chance} if drawn else {}
    return {"": apart.value, **ends, **({} if apart.mcnemar is None else {"/mcnemar": apart.mcnemar})}


def _judged(where: str, found: Named, apart: Difference) -> Finding:
    """Whether the difference is sure: its interval does not hold zero."""
    better, worse = (apart.low > 0, apart.high < 0) if found.better == "higher" else (apart.high < 0, apart.low > 0)
    code, said = (
        ("surely-better", "surely better")
        if better
        else ("surely-worse", "surely worse")
        if worse
        else ("no-sure-difference", "not surely apart")
    )
    evidence: dict[str, Any] = {"difference": apart.value, "low": apart.low, "high": apart.high, "chance": apart.chance}
    told = f"{said}: the difference is {number(apart.value)} ({number(apart.low)} to {number(apart.high)}) on the same rows."
    return Finding(code, Severity.INFO, where, told, evidence=evidence)
