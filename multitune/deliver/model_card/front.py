"""What stands at the head of a model card, as the Hub reads it: library, task, tags, base models, data, results."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from multitune.core.plan import Plan
from multitune.deliver.model_card.story import Story
from multitune.measure.page.tables import Sorted

if TYPE_CHECKING:
    from multitune.deliver.artifact import Facts

LIBRARY = "multitune"
# The Hub's names, by what a model reads and gives (modalities, sorted); the Hub has none for the rest.
PIPELINES: dict[tuple[tuple[str, ...], tuple[str, ...]], str] = {
    (("image",), ("category",)): "image-classification",
    (("text",), ("category",)): "text-classification",
    (("audio",), ("category",)): "audio-classification",
    (("video",), ("category",)): "video-classification",
    (("image",), ("text",)): "image-to-text",
    (("image", "text"), ("text",)): "image-text-to-text",
    (("audio",), ("text",)): "automatic-speech-recognition",
    (("text",), ("text",)): "text-generation",
    (("text",), ()): "sentence-similarity",
}
EMBEDS = "feature-extraction"
METRICS = {"macro_f1": "f1", "micro_f1": "f1", "r_at_1": "recall", "r_at_5": "recall", "r_at_10": "recall"}


def front(facts: Facts, plan: Plan, story: Story, found: Sorted) -> str:
    """The YAML between the two lines of hyphens, those included."""
    task = pipeline(facts)
    values: dict[str, Any] = {"library_name": LIBRARY}
    if task:
        values["pipeline_tag"] = task
    values["tags"] = list(dict.fromkeys(_tags(facts, plan)))
    if bases := list(dict.fromkeys(base_models(plan))):
        values["base_model"] = bases
    values["datasets"] = list(dict.fromkeys(_slug(name) for name in sources(plan)))
    results = [result for name in found.own if (result := _result(name, found)) is not None]
    if results:
        values["metrics"] = list(dict.fromkeys(result["type"] for result in results))
        data = {"name": ", ".join(sources(plan)) or "unnamed", "type": "-".join(values["datasets"]) or "unnamed", "split": "test"}
        one = {"task": {"type": task or facts.task, "name": facts.task}, "dataset": data, "metrics": results}
        values["model-index"] = [{"name": facts.name, "results": [one]}]
    return f"---\n{_yaml(values)}---\n"


def pipeline(facts: Facts) -> str:
    """The Hub's name for what the model does; empty where it has none."""
    reads = tuple(sorted({need.modality for need in facts.needs.parts.values()}))
    gives = tuple(sorted({need.modality for need in facts.needs.answers.values()}))
    return PIPELINES.get((reads, gives), "" if gives else EMBEDS)


def base_models(plan: Plan) -> Iterator[str]:
    """The Hub's ids of what was tuned; other bases have none."""
    for name, value in plan.values.items():
        if name.startswith("model.") and name.endswith(".from"):
            told = re.match(r"hub (\S+/\S+)", str(value.value))
            if told:
                yield told[1]


def sources(plan: Plan) -> list[str]:
    """What the plan says of each source of rows, such as `chimes, 500 rows`."""
    named = re.compile(r"data\.source(\.(?!options$|fingerprint$)[^.]+)?")
    return [str(value.value) for name, value in plan.values.items() if named.fullmatch(name)]


def _tags(facts: Facts, plan: Plan) -> Iterator[str]:
    yield from (LIBRARY, facts.family.name, facts.task)
    yield from (need.modality for need in facts.needs.parts.values())
    strategy = plan.values.get("strategy.name")
    if strategy is not None:
        yield str(strategy.value)
    if facts.adapters:
        yield "adapters"
    if len(facts.needs.parts) > 1:
        yield "multimodal"


def _result(name: str, found: Sorted) -> Mapping[str, Any] | None:
    """A figure that has its interval, as the Hub's index has it; the interval stands in its name, for there is no other place."""
    if name not in found.ends:
        return None
    low, high = found.ends[name]
    kind = name.rpartition("/")[2]
    told = f"{name} (95 % interval {low:.4g} to {high:.4g})"
    return {"type": METRICS.get(kind, kind), "value": round(found.own[name], 6), "name": told}


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text.split(",")[0]).strip("-._").lower() or "unnamed"


def _yaml(values: Mapping[str, Any]) -> str:
    text = io.StringIO()
    writer = YAML(pure=True)
    writer.default_flow_style, writer.width = False, 4096
    writer.dump(dict(values), text)
    return text.getvalue()
