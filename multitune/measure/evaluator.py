"""Measures a predictor on a split: streams rows through it, keeps counts, gives flat figures with intervals.

It asks the same `predict` that the verb predict and a server ask, so what is measured is what is used. Figures are named
`test/accuracy`, with several answers `test/<answer>/accuracy`; a variant stands before the answer: `test/majority/...`,
`test/untuned/...`, `test/without_<part>/...`, `test/shuffled_<part>/...`, `test/source/<name>/...`, `test/slice/<column>=<value>/...`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite

import numpy as np

from multitune.core import catalog
from multitune.core.errors import LossBudgetError, NonFiniteError
from multitune.core.ledger import Ledger, Record, over_budget, shown
from multitune.core.protocols import Category, Embedding, Labels, Needs, Number, Prediction, Predictor, Sample, TaskPreset
from multitune.core.randomness import derive
from multitune.core.recipe import EvaluateSpec
from multitune.data.decode import BadPart
from multitune.data.split import Examples
from multitune.measure.ablations import Ablations
from multitune.measure.extremes import Extremes
from multitune.measure.report import Report, judge, number, parts_table
from multitune.measure.slices import Slice, cut
from multitune.measure.tally import Named, Question, Tally, flat, prompted, questions
from multitune.models.predictor import answered

CHUNK = 512


@dataclass(frozen=True)
class Evaluator:
    """What is measured, and how; made once, asked for every split.

    seed: of the intervals and of shuffled parts. ledger: takes down the rows that cannot be read. max_loss: the share of them that is
    still fine. tell: called with rows done and all rows, for a progress bar.

    Raises: RecipeError or PluginError, when made, for a metric that does not exist or that no answer fits.
    """

    spec: EvaluateSpec
    preset: TaskPreset
    needs: Needs
    seed: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    max_loss: float = 1.0
    tell: Callable[[int, int], None] = lambda done, total: None
    questions: tuple[Question, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "questions", tuple(questions(self.spec, self.preset, self.needs)))

    def evaluate(
        self,
        predictor: Predictor,
        examples: Examples,
        *,
        name: str = "test",
        intervals: bool = True,
        baselines: bool = False,
        ablations: bool = False,
        keep: bool = False,
        extremes: Extremes | None = None,
    ) -> Report:
        """The figures of every row that can be read, and what they say about themselves.

        baselines: majority, mean or chance. ablations: for models that answer from several parts, each left out and each taken from
        another row. keep: the predictions come with the report. extremes: keeps the worst and the best rows.

        Raises: LossBudgetError if more rows than `max_loss` cannot be read; NonFiniteError naming a row.
        """
        asked, sliced = prompted(self.questions, predictor, self.needs, examples), cut(self.spec.slices, examples)
        tally, kept, read = Tally(asked), list[Prediction](), list[int]()
        for index, sample, prediction in self.answered(predictor, examples, range(len(examples))):
            tally.update(sample, prediction, sliced.of(index))
            read.append(index)
            if extremes is not None:
                extremes.update(sample, prediction)
            if keep:
                kept.append(prediction)
        draws, seed = self.spec.intervals if intervals else 0, derive(self.seed, "intervals")
        own, slices = list(tally.figures(draws=draws, seed=seed)), list(tally.slices(draws=draws, seed=seed))
        figures = {"rows": float(len(read)), "rows_lost": float(len(examples) - len(read))}
        figures |= {f"rows_without_{answer}": float(count) for answer, count in sorted(tally.unanswered.items())}
        figures |= flat(own) | flat(tally.sources(draws=draws, seed=seed))
        for one, count, found in slices:
            figures |= {f"{one.name}/rows": float(count), **flat(found)}
        if baselines:
            figures |= flat(tally.baselines())
        findings = list(sliced.findings)
        if ablations and self.needs.answers and len(self.needs.parts) > 1:
            measure = Ablations(tuple(self.needs.parts), asked, tally, draws, seed, self.seed)
            again = measure.figures(lambda change: self.answered(predictor, examples, read, change), examples, read, findings)
            figures |= flat(again)
        report = Report(
            name=name,
            rows=len(read),
            figures={f"{name}/{key}": value for key, value in figures.items()},
            primary={f"{name}/{one.name}": one.better for one in own if one.primary},
            details={**tally.tables(), **({"slices": _slices_table(slices)} if slices else {})},
            predictions=tuple(kept),
        )
        if len(parts := parts_table(report)) > 1:
            report = replace(report, details={**report.details, "parts": parts})
        checks = (catalog.find("check", check).build() for check in catalog.names("check"))
        found = (one for check in checks for one in check.findings({"report": report}))
        return replace(report, findings=(*judge(report), *findings, *found))

    def watch(self, predictor: Predictor, examples: Examples, *, name: str = "valid") -> dict[str, float]:
        """The cheap evaluation of the training loop: `valid/...` figures, no intervals, no classes, no counts."""
        report = self.evaluate(predictor, examples, name=name, intervals=False)
        counts = (f"{name}/rows", f"{name}/slice/")
        return {
            key: value
            for key, value in report.figures.items()
            if "/class/" not in key and not (key.startswith(counts[0]) or (key.startswith(counts[1]) and key.endswith("/rows")))
        }

    def untuned(self, predictor: Predictor, examples: Examples, *, name: str = "test") -> dict[str, float]:
        """The figures of the model before it was tuned, as `test/untuned/...`, to stand beside its own (`Report.beside`)."""
        found = self.watch(predictor, examples, name=name)
        groups = (f"{name}/source/", f"{name}/slice/")
        return {f"{name}/untuned/{key.removeprefix(f'{name}/')}": value for key, value in found.items() if not key.startswith(groups)}

    def answered(
        self, predictor: Predictor, examples: Examples, indices: Sequence[int], change: Callable[[int, Sample], Sample] | None = None
    ) -> Iterator[tuple[int, Sample, Prediction]]:
        """Rows that can be read with their predictions, in order, a chunk in memory at a time."""
        lost: list[Record] = []
        for start in range(0, len(indices), CHUNK):
            here = indices[start : start + CHUNK]
            read: dict[int, Sample] = {}
            for index in here:
                try:
                    read[index] = examples.sample(index)
                except BadPart as bad:
                    lost.append(self._lost(examples.ids[index], bad))
            asked = [self._asked(sample if change is None else change(index, sample)) for index, sample in read.items()]
            given = answered(predictor, asked)
            for place, (index, sample) in enumerate(read.items()):
                if place in given.predictions:
                    yield index, sample, _finite(given.predictions[place])
                else:
                    lost.append(self._lost(sample.id, given.causes[place], sample.source))
            if over_budget(len(lost), rows=len(indices), share=self.max_loss):
                raise LossBudgetError(
                    "data.max_loss",
                    f"{len(lost)} of {len(indices)} rows cannot be read, over the share {self.max_loss:g}: {shown(lost)}.",
                    "Mend these rows (the ledger names all), or raise data.max_loss.",
                )
            self.tell(start + len(here), len(indices))

    def _lost(self, row_id: str, bad: BadPart, source: str = "") -> Record:
        """The record of a row that cannot be read, taken down."""
        record = Record(id=row_id, fate="quarantined", part=bad.part, cause=bad.cause, source=source)
        self.ledger.record(id=record.id, fate=record.fate, part=record.part, cause=record.cause, source=record.source)
        return record

    def _asked(self, sample: Sample) -> Sample:
        """The sample without its answers: the model is not to see them."""
        return replace(sample, parts={name: part for name, part in sample.parts.items() if name in self.needs.parts})


def _slices_table(slices: Iterable[tuple[Slice, int, Sequence[Named]]]) -> list[list[str]]:
    """A row for each slice and figure."""
    rows = [["column", "value", "rows", "figure", "score", "low", "high"]]
    for one, count, found in slices:
        for named in found:
            ends = [number(named.figure.low), number(named.figure.high)] if named.figure.drawn else ["", ""]
            figure = named.name.removeprefix(f"{one.name}/")
            rows.append([one.column, one.value, f"{count:,}", figure, number(named.figure.value), *ends])
    return rows


def _finite(prediction: Prediction) -> Prediction:
    """The prediction itself.

    Raises: NonFiniteError if one of its numbers is not finite.
    """
    for name, given in prediction.answers.items():
        match given:
            case Category() | Labels():
                fine = all(map(isfinite, given.scores.values()))
            case Number():
                fine = isfinite(given.value)
            case Embedding():
                fine = bool(np.isfinite(given.value).all())
            case _:
                fine = isfinite(given.score)
        if not fine:
            raise NonFiniteError(f'evaluate: the model\'s "{name}" for row {prediction.id} is not finite')
    return prediction
