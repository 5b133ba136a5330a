"""The model card: what a model is, what it was made from, how well it does, how it is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from multitune.core.plan import Plan
from multitune.core.protocols import AnswerNeed

if TYPE_CHECKING:
    from multitune.deliver.artifact import Facts


def model_card(facts: Facts, plan: Plan) -> str:
    """The README.md of an artifact."""
    return "\n".join(_lines(facts, plan)) + "\n"


def _lines(facts: Facts, plan: Plan) -> Iterator[str]:
    yield f"# {facts.name}"
    yield ""
    reads = ", ".join(f"{name} ({need.modality})" for name, need in facts.needs.parts.items())
    gives = ", ".join(f"{name} ({need.modality})" for name, need in facts.needs.answers.items()) or "an embedding of each part"
    yield f"A `{facts.family.name}` for {facts.task}, fine-tuned with multitune {facts.multitune}. It reads {reads}; it gives {gives}."
    adapters = ", ".join(f"`adapters/{name}`" for name in facts.adapters)
    yield f"{facts.parameters_moved:,} numbers moved in training" + (f"; adapters lie in {adapters}." if adapters else ".")
    yield ""
    yield from _made_of(facts, plan)
    yield from _classes(facts.needs.answers)
    yield from _figures(facts.figures)
    yield from _use(facts)


def _made_of(facts: Facts, plan: Plan) -> Iterator[str]:
    stated = {name: value.value for name, value in plan.values.items() if name.startswith("data.") or name.endswith(".from")}
    plain = {name: value for name, value in stated.items() if type(value) in (str, int, float) and value != ""}
    if plain:
        yield "## What it was made from"
        yield ""
        yield "| plan | value |"
        yield "|---|---|"
        yield from (f"| {name} | {_cell(value)} |" for name, value in plain.items())
        yield ""
    yield f"Plan `{facts.plan[:12]}`, preprocessing `{facts.contract[:12]}` (contract.json)."
    yield ""


def _classes(answers: Mapping[str, AnswerNeed]) -> Iterator[str]:
    for name, need in answers.items():
        if need.labels:
            shown = [_cell(label) for label in need.labels[:20]]
            more = f" and {len(need.labels) - 20} more (labels.json)" if len(need.labels) > 20 else ""
            yield f"Classes of {name}: {', '.join(shown)}{more}."
            yield ""


def _figures(figures: Mapping[str, float]) -> Iterator[str]:
    ends = ("/low", "/high")
    shown = {name: value for name, value in figures.items() if not (name.endswith(ends) and name.rpartition("/")[0] in figures)}
    if not shown:
        return
    yield "## How well it does"
    yield ""
    yield "| figure | value | 95 % interval |"
    yield "|---|---|---|"
    for name, value in shown.items():
        low, high = figures.get(f"{name}/low"), figures.get(f"{name}/high")
        sure = f"{low:.4g} to {high:.4g}" if low is not None and high is not None else ""
        yield f"| {_cell(name)} | {value:.4g} | {sure} |"
    yield ""
    yield "Intervals are from drawing rows with replacement; where rows belong together they are too narrow."
    yield ""


def _use(facts: Facts) -> Iterator[str]:
    example = ", ".join(f'"{spec.column or name}": ...' for name, spec in facts.parts.items())
    yield "## How to use it"
    yield ""
    yield "```python"
    yield "import multitune"
    yield ""
    yield 'model = multitune.load("PATH")'
    yield f"model.predict({{{example}}})"
    yield "```"
    yield ""
    yield "Each folder of `towers/`, or `model/`, is a Hugging Face folder" + (
        "; each of `adapters/` is for the tower of its name, PEFT's where it has an `adapter_config.json`." if facts.adapters else "."
    )


def _cell(value: object) -> str:
    """Text that cannot break out of its cell of a table."""
    return " ".join(str(value).replace("|", "\\|").replace("<", "&lt;").split())
