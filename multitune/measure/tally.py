"""Counts while rows stream by: every metric of every answer, on all rows, on those of each source and on those of each slice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal

from multitune.core import catalog
from multitune.core.catalog import Plugin
from multitune.core.errors import DataError, RecipeError, did_you_mean, one_of
from multitune.core.protocols import AnswerNeed, ByRow, Figure, Metric, Needs, Prediction, Predictor, Sample, TaskPreset
from multitune.core.recipe import EvaluateSpec
from multitune.core.result import smaller_is_better
from multitune.data.split import Examples
from multitune.measure.slices import Slice


@dataclass(frozen=True)
class Question:
    """One metric that one answer is judged by; `answer` is empty for a model without answers.

    prefix: stands before the metric's figures: `<answer>/` where there are several answers. ready: a metric that has seen no row and knows
    what the model said to its own samples, such as the texts of labels.
    """

    plugin: Plugin
    answer: str
    need: AnswerNeed
    prefix: str
    ready: Metric | None = None

    def ask(self) -> Metric:
        """A fresh metric."""
        metric: Metric = self.plugin.build(self.answer, self.need) if self.ready is None else deepcopy(self.ready)
        return metric


@dataclass(frozen=True)
class Named:
    """A figure under its name within the split, `<answer>/accuracy`; whether it is its metric's primary one, and how it is better."""

    name: str
    figure: Figure
    primary: bool
    better: str


def better(metric: Metric, figure: str) -> Literal["higher", "lower"]:
    """Which way a figure of a metric is better."""
    turned = figure.rpartition("/")[2] in metric.otherwise
    return "lower" if (metric.better == "lower") != turned else "higher"


def way(asked: Iterable[Question], figure: str) -> Literal["higher", "lower"]:
    """Which way a figure is better: as the metric says that names it, else by the words of its name, else as most metrics have it."""
    metrics, name = [question.ask() for question in asked], figure.rpartition("/")[2]
    for metric in metrics:
        if name == metric.primary or name in metric.otherwise:
            return better(metric, name)
    if smaller_is_better(figure):
        return "lower"
    smaller = sum(metric.better == "lower" for metric in metrics)
    return "lower" if 2 * smaller > len(metrics) else "higher"


def flat(found: Iterable[Named]) -> dict[str, float]:
    """Figures by name, an interval as `<name>/low` and `<name>/high`."""
    made: dict[str, float] = {}
    for one in found:
        made[one.name] = one.figure.value
        if one.figure.drawn:
            made |= {f"{one.name}/low": one.figure.low, f"{one.name}/high": one.figure.high}
    return made


class Tally:
    """Metrics that are fed row by row; keeps what they keep and nothing else."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = questions
        self.unanswered: Counter[str] = Counter()
        self._all = [question.ask() for question in questions]
        self._of_source: dict[str, list[Metric]] = {}
        self._of_slice: dict[Slice, list[Metric]] = {}
        self._rows_of: Counter[Slice] = Counter()

    def update(self, sample: Sample, prediction: Prediction, slices: Sequence[Slice] = ()) -> None:
        """Feed one row to every metric, and to those of the slices that it is in; counts the answers that it lacks."""
        truth = truth_of(sample, {question.answer for question in self.questions})
        self.unanswered.update({question.answer for question in self.questions if question.answer and question.answer not in truth})
        if sample.source not in self._of_source:
            self._of_source[sample.source] = [question.ask() for question in self.questions]
        for one in slices:
            self._rows_of[one] += 1
            if one not in self._of_slice:
                self._of_slice[one] = [question.ask() for question in self.questions]
        groups = (self._of_source[sample.source], *(self._of_slice[one] for one in slices))
        for metric in (*self._all, *(metric for group in groups for metric in group)):
            metric.update(prediction, truth)

    def figures(self, *, draws: int, seed: int) -> Iterator[Named]:
        """The figures of all rows."""
        return _named(self.questions, self._all, draws=draws, seed=seed)

    def sources(self, *, draws: int, seed: int) -> Iterator[Named]:
        """The primary figures of each source, `source/<name>/...`; nothing where there is one source only."""
        if len(self._of_source) < 2:
            return
        for source, metrics in sorted(self._of_source.items()):
            yield from self._primary(f"source/{source}", metrics, draws=draws, seed=seed)

    def slices(self, *, draws: int, seed: int) -> Iterator[tuple[Slice, int, Sequence[Named]]]:
        """Each slice with its rows and its primary figures, `slice/<column>=<value>/...`."""
        for one in sorted(self._of_slice, key=lambda one: one.name):
            yield one, self._rows_of[one], list(self._primary(one.name, self._of_slice[one], draws=draws, seed=seed))

    def by_row(self) -> dict[str, tuple[ByRow, str]]:
        """Figures that can be compared row by row, by their names within the split, and how each is better."""
        return {
            f"{question.prefix}{name}": (found, better(metric, name))
            for question, metric in zip(self.questions, self._all, strict=True)
            for name, found in metric.by_row().items()
        }

    def _primary(self, group: str, metrics: Sequence[Metric], *, draws: int, seed: int) -> Iterator[Named]:
        for question, metric in zip(self.questions, metrics, strict=True):
            try:
                found = [named for named in _named([question], [metric], draws=draws, seed=seed) if named.primary]
            except DataError:  # a group need not have the columns that a metric asks for; that none has them is told by `figures`
                continue
            yield from (Named(f"{group}/{named.name}", named.figure, True, named.better) for named in found)

    def baselines(self) -> Iterator[Named]:
        """What a model that looks at nothing reaches: `majority/...`, `mean/...`, `chance/...`."""
        for question, metric in zip(self.questions, self._all, strict=True):
            for figure in metric.baseline():
                kind, _, rest = figure.name.partition("/")
                yield Named(f"{kind}/{question.prefix}{rest}", figure, False, better(metric, rest))

    def tables(self) -> dict[str, Sequence[Sequence[str]]]:
        """The metrics' tables: `confusion`, with several answers `<answer>/confusion`."""
        found: dict[str, Sequence[Sequence[str]]] = {}
        for question, metric in zip(self.questions, self._all, strict=True):
            found |= {f"{question.prefix}{name}": rows for name, rows in metric.tables().items()}
        return found


def questions(spec: EvaluateSpec, preset: TaskPreset, needs: Needs) -> Iterator[Question]:
    """Each answer with the metrics that judge it: those of the recipe, else the task's.

    Raises: RecipeError for a metric that no answer fits; PluginError for one that does not exist.
    """
    answers = needs.answers or {"": AnswerNeed(modality="")}
    several = len(answers) > 1
    wanted: list[tuple[str, Plugin, str]] = []
    for place, component in enumerate(spec.metrics):
        plugin = _found(component.name, component.options, spec, f"evaluate.metrics.{place}")
        serves: tuple[str, ...] = plugin.module.SERVES
        fitting = [answer for answer, need in answers.items() if need.modality in serves]
        if not fitting:
            told = one_of(f"{name} ({need.modality})" for name, need in needs.answers.items())
            found = f'"{component.name}" judges {one_of(serves) if any(serves) else "embeddings"}; the answers are {told}.'
            raise RecipeError(f"evaluate.metrics.{place}", found, "Choose another metric, or leave evaluate.metrics out.")
        wanted += [(answer, plugin, component.name) for answer in fitting]
    if not spec.metrics:
        for answer, need in answers.items():
            names = preset.metrics.get(need.modality, ())
            if not names:
                raise RecipeError("task", f'has no metric for an answer of modality "{need.modality}".', "Name one in evaluate.metrics.")
            wanted += [(answer, _found(name, {}, spec, "evaluate"), name) for name in names]
    for answer, plugin, _ in wanted:
        yield Question(plugin, answer, answers[answer], f"{answer}/" if several else "")


def prompted(asked: Iterable[Question], predictor: Predictor, needs: Needs, examples: Examples) -> tuple[Question, ...]:
    """The questions, with what the model says to their metrics' own samples."""
    made: list[Question] = []
    for question in asked:
        metric = question.ask()
        samples = metric.prompts(needs, examples.column)
        if samples:
            metric.prompted(predictor.predict(samples))
        made.append(replace(question, ready=metric) if samples else question)
    return tuple(made)


def check_columns(asked: Iterable[Question], examples: Mapping[Any, Examples], *, needs: Needs, slices: Sequence[str] = ()) -> None:
    """Look for the columns that metrics and slices name, and whether metrics fit the parts, before anything is spent.

    Raises: DataError for a column that is not there, or that a row of the validation or test split lacks where every row must have it;
    RecipeError for a metric that does not fit.
    """
    some = next(iter(examples.values()))
    known = sorted({*some.mixed.columns, *some.parts})
    for place, column in enumerate(slices):
        if column not in known:
            found = f'there is no column "{column}"; there are {one_of(known)}.'
            raise DataError(f"evaluate.slices.{place}", found, did_you_mean(column, known))
    asked = list(asked)
    for question in asked:
        for field, info in type(question.plugin.options).model_fields.items():
            extra = info.json_schema_extra
            need = extra.get("column") if isinstance(extra, dict) else None
            value = getattr(question.plugin.options, field)
            where = "evaluate.match" if field == "match" else f"evaluate.metrics.{question.plugin.name}.{field}"
            for column in ([value] if isinstance(value, str) else value) if need and value else ():
                if column not in known:
                    raise DataError(where, f'there is no column "{column}"; there are {one_of(known)}.', did_you_mean(column, known))
                if need == "every":
                    _check_every_row(column, examples, where)
    for question in asked:
        question.ask().prompts(needs, some.column)


def _check_every_row(column: str, examples: Mapping[Any, Examples], where: str) -> None:
    for name, split in examples.items():
        if name == "train":
            continue
        lacking = next((place for place, value in enumerate(split.column(column)) if value is None), None)
        if lacking is not None:
            raise DataError(where, f'row {split.ids[lacking]} ({name}) has no "{column}".', "Name a column that every row has.")


def truth_of(sample: Sample, answers: set[str]) -> Mapping[str, Any]:
    """A row's text columns and its parts that are text, category, labels or number; an answer comes from its part only."""
    columns = {name: value for name, value in sample.columns.items() if name not in answers}
    return columns | {name: part.value for name, part in sample.parts.items() if isinstance(part.value, str | int | float | tuple)}


def _found(name: str, options: Mapping[str, Any], spec: EvaluateSpec, where: str) -> Plugin:
    module = catalog.load("metric", name) if name in catalog.names("metric") else None
    takes_match = module is not None and "match" in module.Options.model_fields
    return catalog.find("metric", name, {"match": spec.match} | dict(options) if takes_match else options, where=where)


def _named(questions: Sequence[Question], metrics: Sequence[Metric], *, draws: int, seed: int) -> Iterator[Named]:
    seen: set[str] = set()
    for question, metric in zip(questions, metrics, strict=True):
        for figure in metric.compute(draws=draws, seed=seed):
            name = f"{question.prefix}{figure.name}"
            if name in seen:
                raise RecipeError("evaluate.metrics", f'two metrics give the figure "{name}".', "Keep one of the two.")
            seen.add(name)
            last = figure.name.rpartition("/")[2] == metric.primary and not figure.name.startswith("class/")
            yield Named(name, figure, last, better(metric, name))
