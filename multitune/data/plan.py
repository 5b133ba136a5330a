"""What the data say about themselves before anything is spent: splits, what they need of a model, values for the plan."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from multitune.core.errors import DataError, RecipeError, UserError, did_you_mean, one_of
from multitune.core.finding import Finding, Severity
from multitune.core.ledger import Ledger, over_budget
from multitune.core.plan import Origin, Value
from multitune.core.protocols import AnswerNeed, Needs, PartNeed, Split
from multitune.core.recipe import Component, DataSpec, Recipe
from multitune.data.align import Aligned, align, unaligned
from multitune.data.decode import modality
from multitune.data.duplicates import over_splits
from multitune.data.mix import Mixed, read
from multitune.data.order import Order
from multitune.data.reading.media import absent, misnamed
from multitune.data.sample import is_absent
from multitune.data.split import SPLITS, Examples, split, whole

FEW_ROWS = 30
LOOKED_AT = 10_000  # rows of each source whose files are looked for
IMBALANCE = 10.0
SPLIT_COLUMN = "split"


@dataclass(frozen=True)
class Outline:
    """The data of a recipe, read, aligned and split, no medium opened.

    needs: what they ask of a model; classes, mean and deviation are those of train. rows_per_epoch: rows drawn in an epoch, mixing
    weights and balance counted. classes: answer -> split -> class -> rows. dropped, masked: part -> rows.
    """

    examples: Mapping[Split, Examples]
    needs: Needs
    rows_per_epoch: int
    classes: Mapping[str, Mapping[Split, Mapping[str, int]]]
    dropped: Mapping[str, int]
    masked: Mapping[str, int]
    findings: tuple[Finding, ...]

    @property
    def mixed(self) -> Mixed:
        """All sources."""
        return self.examples["train"].mixed


def outline(recipe: Recipe, ledger: Ledger) -> Outline:
    """Read, align and split what the recipe names.

    Raises: DataError, PluginError, RecipeError for whatever does not hold.
    """
    spec = recipe.data
    aligned = align(read(spec), spec, ledger)
    examples = split(aligned, spec)
    balance = recipe.train.balance
    if balance and (balance not in spec.answers or spec.parts[balance].modality != "category"):
        known = [name for name in spec.answers if spec.parts[name].modality == "category"]
        raise RecipeError("train.balance", f'"{balance}" is no category among the answers.', did_you_mean(balance, known))
    train = examples["train"]
    order = Order(
        num_rows=len(train),
        seed=recipe.seed,
        batch_size=1,
        micro_batch=1,
        weights=train.weights,
        labels=train.column(balance) if balance else None,
    )
    if not order.rows_per_epoch:
        found = f"the weights leave no row of train's {len(train)} for an epoch."
        raise RecipeError("data.mix", found, "Raise a weight: 1 takes every row of its source once an epoch.")
    classes = {name: _counts(examples, name) for name in spec.answers if spec.parts[name].modality in ("category", "labels")}
    return Outline(
        examples=examples,
        needs=_needs(spec, examples["train"], classes),
        rows_per_epoch=order.rows_per_epoch,
        classes=classes,
        dropped=aligned.dropped,
        masked=aligned.masked,
        findings=tuple(_findings(aligned, examples, classes)),
    )


def everything(recipe: Recipe, ledger: Ledger) -> Examples:
    """All rows of the recipe's data as one set, for data that are only measured or predicted; nothing is split.

    Raises: as `outline`, but for what concerns splits.
    """
    return whole(align(read(recipe.data), recipe.data, ledger), recipe.data)


def every_row(recipe: Recipe) -> Examples:
    """All rows of the recipe's data as one set, those that lack a part among them; for data that are only predicted.

    Raises: as `outline`, but for what concerns splits and single rows.
    """
    return whole(unaligned(read(recipe.data), recipe.data), recipe.data)


def findings_of_others(recipe: Recipe, others: Examples, needs: Needs) -> Iterator[Finding]:
    """What a measure on other data should be read with: rows that the model was trained on, classes that it does not know.

    recipe: the one that the model was trained by. A row is one of train where its source's content and its id are the same; where the
    recipe's own data are no longer at hand, nothing is said about that.
    """
    try:
        trained_on = _shared_with_train(recipe, others)
    except UserError:  # an artifact is used without the data that it was made of
        trained_on = 0
    if trained_on:
        found = f"{trained_on} of {len(others)} rows were in the train split: these figures do not tell how it does on new rows."
        remedy = "Measure on rows that it was not trained on, such as the test split (without data=)."
        yield Finding("trained-on", Severity.WARNING, "data", found, remedy, {"rows": trained_on})
    for answer, need in needs.answers.items():
        counts = _named(others, answer)
        new = sorted(set(counts) - set(need.labels)) if need.labels else []
        if new:
            number = sum(counts[label] for label in new)
            classes = "1 class" if len(new) == 1 else f"{len(new)} classes"
            found = f'{number} of {len(others)} rows are of {classes} that the model does not know, such as "{new[0]}".'
            remedy = "They count as wrong: leave them out, or train with them."
            yield Finding("class-unknown", Severity.WARNING, f"data.{answer}", found, remedy, {"rows": number, "classes": new[:20]})


def _shared_with_train(recipe: Recipe, others: Examples) -> int:
    """How many of other rows are in the recipe's train split."""
    rows = others.mixed.entries[0].rows
    source = recipe.data.source
    kept = source.options.get("rows") if source is not None and source.name == "rows" else None
    spec = recipe.data
    if isinstance(kept, Mapping) and kept.get("memory") == rows.fingerprint:  # a request keeps no rows; these are those
        spec = spec.model_copy(update={"source": Component(name="rows", options={"rows": rows})})
    mixed = read(spec)
    if rows.fingerprint not in {entry.rows.fingerprint for entry in mixed.entries}:
        return 0
    train = set(_keys(split(align(mixed, spec, Ledger()), spec)["train"]))
    return sum(1 for key in _keys(others) if key in train)


def _keys(examples: Examples) -> Iterator[tuple[str, str]]:
    """Each row's source, by its content, and its id in it."""
    for number in examples.rows.tolist():
        entry, local = examples.mixed.entry(number)
        yield entry.rows.fingerprint, entry.rows.id(local)


def state(recipe: Recipe, outline: Outline) -> dict[str, Value]:
    """The values of the plan's section `data`, each with its origin."""
    spec, values = recipe.data, dict[str, Value]()
    components = [*(entry.source for entry in spec.entries), *spec.split.sources.values()]
    for name, entry, component in zip(_source_names(outline.mixed), outline.mixed.entries, components, strict=True):
        note = f"weight {entry.weight:g}" if entry.weight != 1 else ""
        values[f"data.{name}"] = Value(f"{_shown(spec, name, entry.name)}, {len(entry.rows):,} rows", "recipe", "nothing", note)
        options = {option: value for option, value in component.options.items() if isinstance(value, str | int | float | list | Path)}
        if options:
            shown = {option: str(value) if isinstance(value, Path) else value for option, value in options.items()}
            values[f"data.{name}.options"] = Value(shown, "recipe", "nothing")
        values[f"data.{name}.fingerprint"] = Value(entry.rows.fingerprint[:12], "derived")
        for joined in entry.joined:
            values[f"data.{name}.joined.{joined.rows.name}"] = Value(joined.rows.fingerprint[:12], "derived")
    if len(spec.entries) > 1:
        values["data.weights"] = Value([entry.weight for entry in spec.entries], "recipe")
    for name, part in spec.parts.items():
        values[f"data.parts.{name}"] = Value(_part_text(spec, name), "recipe")
        if part.augment:
            shown = [f"{c.name}({', '.join(f'{k}={v}' for k, v in c.options.items())})" for c in part.augment]
            values[f"data.parts.{name}.augment"] = Value(shown, "recipe")
    for name, need in outline.needs.answers.items():
        if need.labels:
            values[f"data.answers.{name}.classes"] = Value(list(need.labels), "derived")
        elif need.modality == "number":
            note = f"mean {need.mean:.4g}, deviation {need.deviation:.4g}"
            values[f"data.answers.{name}.standard"] = Value([need.mean, need.deviation], "derived", "bits", note)
    values["data.split"] = Value(_split_text(spec), _origin(spec, "split"))
    for name, examples in outline.examples.items():
        values[f"data.rows.{name}"] = Value(len(examples), "derived")
    values["data.rows.per_epoch"] = Value(outline.rows_per_epoch, "derived")
    values["data.missing"] = Value(spec.missing, _origin(spec, "missing"))
    if outline.dropped:
        values["data.dropped"] = Value({part or "every part": count for part, count in outline.dropped.items()}, "derived")
    if outline.masked:
        values["data.masked"] = Value(dict(outline.masked), "derived")
    values["data.max_loss"] = Value(spec.max_loss, _origin(spec, "max_loss"), "speed")
    if spec.limit:
        values["data.limit"] = Value(spec.limit, "recipe")
    return values


def _needs(spec: DataSpec, train: Examples, classes: Mapping[str, Mapping[Split, Mapping[str, int]]]) -> Needs:
    parts = {name: PartNeed(part.modality, dict(part.options)) for name, part in spec.inputs.items()}
    answers: dict[str, AnswerNeed] = {}
    for name in spec.answers:
        part = spec.parts[name]
        if name in classes:
            counts = classes[name]["train"]
            labels = tuple(sorted(counts))
            answers[name] = AnswerNeed(part.modality, labels=labels, counts=tuple(counts[c] for c in labels), options=dict(part.options))
        elif part.modality == "number":
            mean, deviation = _standard(name, train)
            answers[name] = AnswerNeed(part.modality, mean=mean, deviation=deviation, options=dict(part.options))
        else:
            answers[name] = AnswerNeed(part.modality, options=dict(part.options))
    return Needs(parts, answers)


def _standard(name: str, train: Examples) -> tuple[float, float]:
    numbers = [modality("number").decode(text) for text in train.column(name) if text is not None]
    if not numbers:
        raise DataError(f"data.answers.{name}", "train has no number.", "Split otherwise.")
    mean = math.fsum(numbers) / len(numbers)
    deviation = math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / len(numbers))
    return mean, deviation if deviation > 1e-12 * max(1.0, abs(mean)) else 1.0


def _counts(examples: Mapping[Split, Examples], answer: str) -> dict[Split, dict[str, int]]:
    return {name: dict(sorted(_named(rows, answer).items())) for name, rows in examples.items()}


def _named(rows: Examples, answer: str) -> Counter[str]:
    """How many rows have each class, or each label."""
    if rows.parts[answer].modality == "labels":
        return Counter(label for value in rows.values(answer) for label in value or ())
    counted = Counter(rows.cells(answer))
    counted.pop(None, None)
    return cast("Counter[str]", counted)


def _told_few(split: Split, rows: int) -> tuple[str, str]:
    """What a small or an empty split means, and what would do."""
    if rows:
        little = "they are little to learn from" if split == "train" else "its figures say little"
        return f"{split} has {rows} rows: {little}.", "Give it a larger share, or add rows."
    lost = {"train": "nothing is learned", "valid": "nothing is measured in training", "test": "nothing is measured in the end"}[split]
    return f"{split} has no rows: {lost}.", "Give it a share of the rows."


def _findings(
    aligned: Aligned, examples: Mapping[Split, Examples], classes: Mapping[str, Mapping[Split, Mapping[str, int]]]
) -> Iterator[Finding]:
    for name, rows in examples.items():
        if len(rows) < FEW_ROWS:
            yield Finding("few-rows", Severity.WARNING, f"data.split.{name}", *_told_few(name, len(rows)), {"rows": len(rows)})
    for answer, counts in classes.items():
        remedy = "loss.weights: balanced" if aligned.spec.parts[answer].modality == "labels" else f"train.balance: {answer}"
        yield from _class_findings(answer, counts, remedy)
    for answer, values in aligned.values.items():
        one = next((value for value in values if value is not None), None)
        if aligned.spec.parts[answer].modality == "number" and one is not None and all(value in (one, None) for value in values):
            yield Finding(
                "constant-answer", Severity.WARNING, f"data.answers.{answer}", "every row has the same number.", "Check the column."
            )
    for part, count in {**aligned.dropped, **aligned.masked}.items():
        fate = "dropped" if part in aligned.dropped else "masked"
        share = count / len(aligned.mixed)
        yield Finding(
            f"rows-{fate}",
            Severity.INFO,
            f"data.parts.{part}" if part else "data",
            f"{count} rows ({share:.1%}) are {fate}: it is missing.",
            evidence={"rows": count},
        )
    yield from _media(aligned)
    yield from _unused(aligned, examples["train"])
    yield from over_splits(examples)


def _media(aligned: Aligned) -> Iterator[Finding]:
    """Files that the first rows name and that are not there, or speak of another signal; an error where more are lost than may be."""
    spec, mixed = aligned.spec, aligned.mixed
    kept = np.zeros(len(mixed), dtype=bool)
    kept[aligned.kept] = True
    for name, part in spec.inputs.items():
        kind, column = modality(part.modality, part.options), part.column or name
        paths = [one for one in mixed.paths(column, limit=LOOKED_AT) if kept[one[0]]] if kind.media else []
        roots, known = mixed.roots(column), dict[tuple[str, int], str]()
        sources = np.searchsorted(mixed.starts, [index for index, _ in paths], side="right") - 1
        for (_, path), source in zip(paths, sources.tolist(), strict=True):  # many rows may name one file
            if (path, source) not in known:
                known[path, source] = absent(path, roots[source])
        causes = [known[path, source] for (_, path), source in zip(paths, sources.tolist(), strict=True)]
        lost = [(index, path, cause) for (index, path), cause in zip(paths, causes, strict=True) if cause]
        if lost:
            severity = Severity.ERROR if over_budget(len(lost), rows=len(paths), share=spec.max_loss) else Severity.WARNING
            remedy = f"Relative paths begin at the table's folder, or at the source's root; data.max_loss is {spec.max_loss:g}."
            yield _told(aligned, name, "media-absent", severity, lost, len(paths), remedy)
        gone = {index for index, _, _ in lost}
        names = {path: misnamed(path, kind) for path in {path for _, path in paths}}
        odd = [(index, path, names[path]) for index, path in paths if index not in gone and names[path]]
        if odd:
            yield _told(aligned, name, "media-ending", Severity.WARNING, odd, len(paths), "Check the column, or the part's modality.")


def _told(
    aligned: Aligned, name: str, code: str, severity: Severity, bad: Sequence[tuple[int, str, str]], looked: int, remedy: str
) -> Finding:
    index, path, cause = bad[0]
    where = f"{aligned.mixed.place(index)}: {path[:80]} {cause}"
    found = f"{len(bad):,} of {looked:,} files are in doubt, first {where}."
    return Finding(code, severity, f"data.parts.{name}", found, remedy, {"files": len(bad), "looked": looked})


def _unused(aligned: Aligned, train: Examples) -> Iterator[Finding]:
    """What the data offer and the recipe leaves aside without a word: a split column, a source that no epoch draws from."""
    spec, mixed = aligned.spec, aligned.mixed
    stated = spec.split.column or any(spec.split.given(name) for name in ("train", "valid", "test", "sources"))
    if not stated and SPLIT_COLUMN in mixed.columns and all(part.column or name != SPLIT_COLUMN for name, part in spec.parts.items()):
        words = {cell for cell in mixed.cells(SPLIT_COLUMN) if not is_absent(cell)}
        if words and words <= set(SPLITS):
            found = f'rows are split by a hash, and the column "{SPLIT_COLUMN}" of the data ({one_of(words)}) is not used.'
            remedy = "State data.split: {column: split}, or the shares, if the hash is meant."
            yield Finding("split-column-unused", Severity.WARNING, "data.split", found, remedy)
    for number, entry in enumerate(mixed.entries):
        rows = int((train.sources == number).sum())
        if rows and not round(entry.weight * rows):
            found = f"the weight {entry.weight:g} of {entry.name} takes none of its {rows} rows in train."
            yield Finding("source-not-drawn", Severity.WARNING, "data.mix", found, "Raise its weight, or leave the source out.")


def _class_findings(answer: str, counts: Mapping[Split, Mapping[str, int]], remedy: str) -> Iterator[Finding]:
    where = f"data.answers.{answer}"
    train = counts["train"]
    most, least = max(train, key=lambda c: train[c]), min(train, key=lambda c: train[c])
    if train[most] > IMBALANCE * train[least]:
        found = f'"{most}" has {train[most]} rows in train, "{least}" {train[least]}.'
        yield Finding("imbalance", Severity.WARNING, where, found, f"Consider {remedy}.", {"classes": dict(train)})
    alike: dict[str, list[str]] = {}
    for label in sorted(set[str]().union(*counts.values())):
        alike.setdefault(" ".join(label.split()).casefold(), []).append(label)
    for labels in [labels for labels in alike.values() if len(labels) > 1][:1]:
        found = f'the classes "{labels[0]}" and "{labels[1]}" differ by case or spaces alone.'
        yield Finding("classes-alike", Severity.WARNING, where, found, "Write them alike, if they are one class.", {"classes": labels})
    for name in ("valid", "test"):
        lacking = sorted(set(train) - set(counts[name]))
        if counts[name] and lacking:
            found = f'{name} lacks {len(lacking)} of {len(train)} classes, such as "{lacking[0]}".'
            yield Finding("class-missing", Severity.WARNING, where, found, "Its figures do not speak of them.", {"classes": lacking[:20]})


def _source_names(mixed: Mixed) -> list[str]:
    return ["source" if len(mixed.entries) == 1 else f"source.{entry.name}" for entry in mixed.entries]


def _shown(spec: DataSpec, name: str, entry: str) -> str:
    return spec.source.name if name == "source" and spec.source is not None else entry


def _part_text(spec: DataSpec, name: str) -> str:
    part = spec.parts[name]
    words = [part.modality, "answer" if name in spec.answers else "input"]
    words += [f"from {part.column}"] if part.column and part.column != name else []
    words += [f"{option} {value}" for option, value in part.options.items()]
    words += [f"missing: {part.missing}"] if part.missing != "data" else []
    return ", ".join(words)


def _split_text(spec: DataSpec) -> str:
    chosen = spec.split
    if chosen.column:
        return f"by column {chosen.column}"
    shares = [f"{name} {getattr(chosen, name):g}" for name in ("train", "valid", "test") if name not in chosen.sources]
    own = [f"{name} by its source" for name in chosen.sources]
    group = f", grouped by {chosen.group}" if chosen.group else ""
    return ", ".join([*shares, *own]) + f", seed {chosen.seed}{group}"


def _origin(spec: Any, name: str) -> Origin:
    return "recipe" if spec.given(name) else "default"
