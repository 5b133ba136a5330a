"""The model card: what a model is, what it was made from, how well it does, how it is loaded; in the form that the Hub reads."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from multitune.core.plan import Plan
from multitune.core.protocols import AnswerNeed
from multitune.deliver.model_card.averages import averaging
from multitune.deliver.model_card.front import base_models, front, sources
from multitune.deliver.model_card.story import Story
from multitune.measure.page.tables import ABLATIONS, BESIDE, Sorted, sort
from multitune.measure.report import Report, number

if TYPE_CHECKING:
    from multitune.deliver.artifact import Facts

MOST_CLASSES = 20
SPLITS = ("train", "valid", "test")
PROCEDURE = (
    "strategy.name", "loss.name", "train.optimizer", "train.lr", "train.schedule", "train.warmup_steps", "train.batch_size",
    "train.micro_batches", "train.ranks", "train.weight_decay", "train.clip_norm", "train.precision", "train.early_stop", "run.seed",
)  # fmt: skip
EXAMPLES = {"image": '"picture.png"', "audio": '"sound.wav"', "text": '"some words"', "category": '"a class"', "number": "1.5"}


def model_card(facts: Facts, plan: Plan, story: Story, *, folders: Collection[str], versions: Mapping[str, str]) -> str:
    """The README.md of an artifact. folders: those of models in it, such as `towers/image`. versions: of libraries, by name."""
    found = sort(Report("test", 0, facts.figures, story.primary))
    sections = (
        _parts(facts),
        _use(facts, plan, folders),
        _data(facts, plan, story),
        _procedure(facts, plan, story),
        _figures(found),
        _worth(found, [name.removeprefix("test/") for name in story.primary]),
        _limits(facts, plan, story),
        _proof(facts),
        _environment(facts, plan, story, versions),
    )
    body = "\n".join([*_head(facts, plan), *(line for section in sections for line in section)])
    return f"{front(facts, plan, story, found)}\n{body.rstrip()}\n"


def _head(facts: Facts, plan: Plan) -> Iterator[str]:
    yield f"# {facts.name}"
    yield ""
    reads = ", ".join(f"{name} ({need.modality})" for name, need in facts.needs.parts.items())
    gives = ", ".join(f"{name} ({need.modality})" for name, need in facts.needs.answers.items()) or "an embedding of each part"
    yield f"A `{facts.family.name}` for {facts.task}, fine-tuned with multitune {facts.multitune}. It reads {reads}; it gives {gives}."
    bases = [_cell(plan[name]) for name in _origins(plan)]
    if bases:
        yield f"It was made from {', '.join(bases)}."
    yield ""


def _origins(plan: Plan) -> list[str]:
    """The names of the plan's values that say where a model came from."""
    return [name for name in plan.values if name.startswith("model.") and name.endswith(".from")]


def _parts(facts: Facts) -> Iterator[str]:
    yield "## Parts and answers"
    yield ""
    rows = [
        (f"`{name}`", need.modality, "read", f"column `{_cell(facts.parts[name].column or name)}`; missing: {facts.parts[name].missing}")
        for name, need in facts.needs.parts.items()
    ]
    rows += [(f"`{name}`", need.modality, "given", _range(need)) for name, need in facts.needs.answers.items()]
    yield from _table(("name", "modality", "role", "values"), rows)


def _range(need: AnswerNeed) -> str:
    """What an answer can be."""
    if need.modality == "number":
        return "in the units of the data"
    shown = ", ".join(_cell(label) for label in need.labels[:MOST_CLASSES])
    more = f" and {len(need.labels) - MOST_CLASSES} more (labels.json)" if len(need.labels) > MOST_CLASSES else ""
    return f"{len(need.labels)} classes: {shown}{more}" if need.labels else ""


def _use(facts: Facts, plan: Plan, folders: Collection[str]) -> Iterator[str]:
    columns = {name: json.dumps(spec.column or name, ensure_ascii=False).replace("`", "\\x60") for name, spec in facts.parts.items()}
    given = ", ".join(f"{columns[name]}: {EXAMPLES.get(spec.modality, '...')}" for name, spec in facts.parts.items())
    answer = next(iter(facts.needs.answers), next(iter(facts.needs.parts), ""))
    yield "## How to use it"
    yield ""
    yield "```python"
    yield "import multitune"
    yield ""
    yield 'model = multitune.load("PATH")'
    yield f"prediction = model.predict({{{given}}})"
    yield f'prediction.answers["{answer}"].value'
    yield "```"
    yield ""
    yield "Or `multitune predict PATH data=rows.jsonl --out answers.parquet`, and `multitune evaluate PATH data=rows.jsonl` to measure it."
    yield ""
    own = {f"towers/{name.split('.')[2]}" for name in _origins(plan) if str(plan[name]).startswith("plug-in")}
    if set(folders) - own:
        yield "Plain Transformers reads each of its models" + (", without their adapters" if facts.adapters else "") + ":"
        yield ""
        yield "```python"
        yield "from transformers import AutoModel  # or the class that a config.json names"
        yield ""
        yield from (f'AutoModel.from_pretrained("PATH/{folder}")' for folder in sorted(set(folders) - own))
        yield "```"
        yield ""
    if facts.adapters:
        named = ", ".join(f"`adapters/{name}`" for name in facts.adapters)
        yield f"Adapters lie in {named}, each for the tower of its name; PEFT reads those that have an `adapter_config.json`."
        yield ""


def _data(facts: Facts, plan: Plan, story: Story) -> Iterator[str]:
    yield "## Training data"
    yield ""
    rows = [("source", _cell(source)) for source in sources(plan)]
    rows += [(f"rows of {split}", f"{plan[f'data.rows.{split}']:,}") for split in SPLITS if f"data.rows.{split}" in plan.values]
    rows += [(name, _cell(plan[f"data.{name}"])) for name in ("split", "missing") if f"data.{name}" in plan.values]
    yield from _table(("data", "value"), rows)
    lost = ", ".join(f"{count:,} {fate}" for fate, count in story.rows.items())
    yield f"Of these rows: {lost}; the run's ledger names each with its cause." if lost else "Every row was used as it was."
    yield ""


def _procedure(facts: Facts, plan: Plan, story: Story) -> Iterator[str]:
    yield "## Training procedure"
    yield ""
    rows = [(name, _cell(plan[name])) for name in PROCEDURE if name in plan.values and plan[name] not in ("", {}, None)]
    averages = [(name, _cell(told)) for name, told in averaging(facts.averaged, plan)]
    kept = "averages, as told below" if averages else f"those of step {story.best_step:,}"
    rows += [("steps", f"{story.steps:,}, the weights are {kept}")] if story.steps else []
    yield from _table(("plan", "value"), rows)
    if averages:
        yield from _table(("averaging", "value"), averages)
    moves = plan.tables.get("moves", ())
    if len(moves) > 1:
        heading, *body = moves
        yield from _table([cell or "what moved" for cell in heading], body)
    yield f"{facts.parameters_moved:,} numbers moved in training."
    yield ""


def _figures(found: Sorted) -> Iterator[str]:
    if not found.own:
        return
    kinds = [kind for kind in BESIDE if kind in found.variants]
    yield "## How well it does"
    yield ""
    yield "On the test split, which no decision of training has seen."
    yield ""
    rows = [
        [_cell(name), f"{value:.4g}", _sure(found, name), *(_told(found.variants[kind].get(name)) for kind in kinds)]
        for name, value in found.own.items()
    ]
    yield from _table(("figure", "value", "95 % interval", *kinds), rows)
    yield (
        "Intervals are from drawing rows with replacement (Wilson's where every draw says the same); where rows belong together they are "
        "too narrow."
    )
    yield ""


def _worth(found: Sorted, primary: Sequence[str]) -> Iterator[str]:
    parts = list(dict.fromkeys(kind.partition("_")[2] for kind in found.variants if kind.startswith(ABLATIONS)))
    rows: list[list[str]] = []
    for name in primary:
        for part in parts:
            values = [found.variants.get(f"{kind}{part}", {}).get(name) for kind in ABLATIONS]
            if any(value is not None for value in values):
                rows.append([_cell(name), _cell(part), number(found.own[name]), *map(_told, values)])
    if rows:
        yield "## What each part is worth"
        yield ""
        yield from _table(("figure", "part", "with all parts", "left out", "from another row"), rows)


def _limits(facts: Facts, plan: Plan, story: Story) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield "- Measured on rows like those that it was trained on; elsewhere, measure it again before relying on it."
    if any(need.labels for need in facts.needs.answers.values()):
        yield "- It knows the classes above and no others: whatever it is given, it answers with one of them."
    if any(need.modality == "text" for need in facts.needs.answers.values()):
        yield "- It writes what is likely, not what is true."
    yield from (f"- {_cell(finding)}" for finding in story.findings)
    bases = list(dict.fromkeys(base_models(plan)))
    yield "- No licence is stated here" + (f"; those of {', '.join(bases)} and of the data hold." if bases else "; that of the data holds.")
    yield ""


def _proof(facts: Facts) -> Iterator[str]:
    yield "## What can be checked"
    yield ""
    yield f"Plan `{facts.plan[:12]}`, preprocessing `{facts.contract[:12]}` (contract.json)."
    yield "`artifact.json` has the size and sha256 of every file; an artifact opens only if all of them are right."
    yield "`golden/` has a few rows of the test split with what the model said to them."
    yield ""


def _environment(facts: Facts, plan: Plan, story: Story, versions: Mapping[str, str]) -> Iterator[str]:
    yield "## Where it was made"
    yield ""
    rows = [("device", story.device), ("seconds of training", f"{story.seconds:,.0f}")] if story.device else []
    rows += [("multitune", facts.multitune), *versions.items()]
    yield from _table(("what", "value"), rows)


def _table(heading: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(heading)} |"
    yield "|" + "---|" * len(heading)
    for row in rows:
        yield f"| {' | '.join(str(cell) for cell in row)} |"
    yield ""


def _sure(found: Sorted, name: str) -> str:
    low, high = found.ends.get(name, (None, None))
    return "" if low is None or high is None else f"{low:.4g} to {high:.4g}"


def _told(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _cell(value: object) -> str:
    """Text that cannot break out of its cell of a table, nor become markup; a mapping as `name: value, name: value`."""
    if isinstance(value, Mapping):
        value = ", ".join(f"{name}: {inner}" for name, inner in value.items())
    text = str(value).replace("\\", "&#92;").replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[").replace("`", "'")
    return " ".join(text.split())


__all__ = ["Story", "model_card"]
