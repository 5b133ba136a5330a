"""The recipe as text, a comment to each choice; read back, it is the mapping that it was written from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multitune.core.notation.flow import flow
from multitune.verbs.init.deciding import SPEAKS, Choice
from multitune.verbs.init.finding_rows import Found
from multitune.verbs.init.looking import MEDIA, Column

TINY = {"image": "tiny/image", "audio": "tiny/audio", "text": "tiny/text"}
OTHERS = {
    "image": "google/vit-base-patch16-224, facebook/dinov2-small",
    "audio": "facebook/wav2vec2-base",
    "text": "FacebookAI/xlm-roberta-base, for many languages",
}
SHARES = ((0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.5, 0.25, 0.25))


@dataclass(frozen=True)
class Line:
    """A line of the recipe: its depth, its text, what is said about it."""

    depth: int
    text: str
    comment: str = ""


def part_names(columns: Sequence[str]) -> dict[str, str]:
    """Column -> the part's name: its own where that can be one, else made of its letters and digits."""
    names: dict[str, str] = {}
    for column in columns:
        name = re.sub(r"[^\w-]+", "_", column).strip("_")[:60] or "part"
        name = name if re.match(r"[^\W\d]", name) and name not in {"id", "cause"} else f"part_{name}"
        taken, number = set(names.values()), 2
        while name in taken:
            name, number = f"{name.rstrip('0123456789')}{number}", number + 1
        names[column] = name
    return names


def recipe_text(name: str, found: Found, columns: Sequence[Column], choice: Choice, split: Mapping[str, Any], told: str, where: str) -> str:
    """The recipe. split: `data.split` as it is written; told: what is said about it. where: what was looked at, for the heading."""
    by_name = {column.name: column for column in columns}
    names = part_names([*choice.inputs, *choice.answers])
    lines = [
        Line(0, f"name: {flow(name)}", "the run's folder begins with it"),
        Line(0, f"task: {choice.task}", choice.because),
        Line(0, "data:"),
        Line(1, f"source: {flow(dict(found.source))}", f"{len(found.rows):,} rows"),
        Line(1, "parts:", "part: modality; what is not right here is mended here"),
        *(_part(by_name[column], kind, names[column], choice) for column, kind in {**choice.inputs, **choice.answers}.items()),
    ]
    if choice.answers:
        lines.append(
            Line(1, f"answers: {flow([names[column] for column in choice.answers])}", "what the model is to say; it reads the others")
        )
    lines += [Line(1, f"split: {flow(dict(split))}", told)]
    lines += [Line(1, f"# {column}: not read: {why}") for column, why in choice.left.items()]
    lines += [*_model(choice, names), *_train(found, choice, names), *_evaluate(choice, by_name)]
    heading = [
        f"# What multitune init saw in {where}; every line may be edited. Try it: multitune plan RECIPE, then multitune train RECIPE."
    ]
    return "\n".join([*heading, *map(_shown, lines)]) + "\n"


def _shown(line: Line) -> str:
    comment = " ".join(line.comment.split())
    text = "  " * line.depth + " ".join(line.text.splitlines())
    return f"{text}  # {comment}" if comment else text


def _part(column: Column, kind: str, name: str, choice: Choice) -> Line:
    spec: dict[str, Any] = {"modality": kind}
    if name != column.name:
        spec["column"] = column.name
    if column.missing:
        spec["missing"] = "mask" if column.name in choice.inputs and len(choice.inputs) > 1 and choice.task not in SPEAKS else "drop"
    lacking = {"mask": "rows without it are read without it", "drop": "rows without it are left out"}.get(spec.get("missing", ""), "")
    told = f"{column.because}; missing in {column.missing:,} of {column.rows:,} rows: {lacking}" if column.missing else column.because
    return Line(2, f"{flow(name)}: {flow(kind if spec == {'modality': kind} else spec)}", told)


def _model(choice: Choice, names: Mapping[str, str]) -> list[Line]:
    lines = [Line(0, "model:")]
    if choice.task == "retrieval":
        lines.append(Line(1, "name: dual_encoder", "a vector for each part; those of one row are brought together"))
    elif choice.task in SPEAKS:
        lines.append(Line(1, "name: generative", "towers, a connector, and a language model that writes"))
    else:
        lines.append(Line(1, "name: fusion_encoder", "a tower for each part, then a head for each answer"))
    if choice.task not in SPEAKS and choice.task != "retrieval" and len(choice.inputs) > 1:
        lines.append(Line(1, "fuse: concat", "cross_attention where the parts have to look at each other"))
    towers = {column: kind for column, kind in choice.inputs.items() if choice.task not in SPEAKS or kind in MEDIA}
    if towers:
        lines.append(Line(1, "towers:", "tiny/* come with multitune and train anywhere; in their place a folder or a hub id"))
        lines += [Line(2, f"{flow(names[column])}: {TINY[kind]}", f"such as {OTHERS[kind]}") for column, kind in towers.items()]
    if choice.task in SPEAKS:
        lines.append(Line(1, "lm: tiny/lm", "it knows few English words; a larger one for real texts, such as Qwen/Qwen3-0.6B"))
    return [*lines, Line(0, "strategy: {name: full, head_rate: 3}", "everything moves, what is new three times as fast; or lora, partial")]


def _train(found: Found, choice: Choice, names: Mapping[str, str]) -> list[Line]:
    rows = len(found.rows)
    largest = 64 if choice.task == "retrieval" else 32
    batch = next((size for size in (64, 32, 16, 8, 4) if size <= largest and size * 4 <= rows), 2)
    figure = {"category": "accuracy", "labels": "micro_f1"}.get(next(iter(choice.answers.values()), ""), "")
    metric = f"valid/{figure}" if figure and choice.task == "classification" and len(choice.answers) == 1 else ""
    if choice.task == "retrieval":
        first, second = [names[column] for column in choice.inputs][:2]
        metric = f"valid/{first}_to_{second}/r_at_1"
    lines = [
        Line(0, "train:"),
        Line(1, f"epochs: {20 if rows < 2_000 else 5 if rows < 50_000 else 1}", "times over the rows of train"),
        Line(1, f"batch_size: {batch}", "rows of a step; micro_batch: 8 takes less memory for the same result"),
        Line(1, "lr: 3e-4", "for a larger pretrained model less, such as 3e-5"),
    ]
    return [
        *lines,
        *([Line(1, f"# early_stop: {{metric: {metric}, patience: 5}}", "the best checkpoint instead of the last")] if metric else []),
    ]


def _evaluate(choice: Choice, columns: Mapping[str, Column]) -> list[Line]:
    several = {name: max(columns[name].values.values(), default=1) > 1 for name in choice.inputs}
    repeated = [name for name in choice.inputs if several[name]] if choice.task == "retrieval" else []
    if choice.task in SPEAKS:
        return [Line(0, "evaluate:"), Line(1, "generate: {max_new_tokens: 32}", "the longest answer; greedy")]
    if repeated:
        told = f"several rows share one {repeated[0]}: each of them is a hit"
        return [Line(0, f"evaluate: {{match: {flow(repeated[0])}}}", told)]
    return []
