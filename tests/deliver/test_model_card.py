"""The model card is one that the Hub reads: its head parses, its results have their intervals, its tables hold."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModel

from multitune.core.plan import Plan, Value
from multitune.core.protocols import AnswerNeed, Needs, PartNeed
from multitune.deliver.artifact import Facts
from multitune.deliver.model_card import Story, model_card
from tests.deliver.making import Made

STORY = Story(
    steps=40,
    best_step=30,
    seconds=12.3,
    device="cpu, 2 threads",
    rows={"quarantined": 3},
    primary={"test/accuracy": "higher"},
    findings=('test/accuracy: does not depend on "image".',),
)
VALUES = {
    "data.source": "chimes, 500 rows",
    "data.source.options": {"rows": 500},
    "data.source.fingerprint": "0123456789ab",
    "data.rows.train": 360,
    "model.towers.image.from": "hub org/tower at 0123456789ab",
    "model.towers.audio.from": "embedded tiny/audio",
    "strategy.name": "lora",
    "train.lr": 1e-3,
    "run.seed": 0,
}
FIGURES = {
    "test/accuracy": 0.91, "test/accuracy/low": 0.88, "test/accuracy/high": 0.94, "test/majority/accuracy": 0.25,
    "test/untuned/accuracy": 0.3, "test/shuffled_image/accuracy": 0.5, "test/without_image/accuracy": 0.4, "test/rows": 400.0,
}  # fmt: skip
PLAN = Plan(
    "card", {}, {name: Value(value, "recipe") for name, value in VALUES.items()}, tables={"moves": (("", "moving"), ("image", "12"))}
)


def facts_of(made: Made, **changes: Any) -> Facts:
    return made.artifact.facts.model_copy(update={"figures": FIGURES, **changes})


def card_of(made: Made, **changes: Any) -> ModelCard:
    text = model_card(facts_of(made, **changes), PLAN, STORY, folders=["towers/image"], versions={"torch": "2.0"})
    return ModelCard(text)


@pytest.mark.parametrize("shape", ["tuned", "with_lora", "embedding", "speaking"])
def test_the_card_of_each_shape_is_read_by_the_hub_s_parser(shape: str, request: pytest.FixtureRequest) -> None:
    made: Made = request.getfixturevalue(shape)
    card = ModelCard.load(made.artifact.folder / "README.md")
    assert card.data.library_name == "multitune"
    assert card.data.tags[:2] == ["multitune", made.artifact.facts.family.name]
    assert card.text.lstrip().startswith("# small")
    for title in ("Parts and answers", "How to use it", "Training data", "Training procedure", "How well it does", "Limits"):
        assert f"## {title}\n" in card.text
    for title in ("What can be checked", "Where it was made"):
        assert f"## {title}\n" in card.text


def test_the_index_has_each_figure_with_its_interval(tuned: Made) -> None:
    data = card_of(tuned).data
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.91)
    assert result.metric_name == "accuracy (95 % interval 0.88 to 0.94)"
    assert (result.task_type, result.dataset_type, result.dataset_split) == ("classification", "chimes", "test")
    assert data.metrics == ["accuracy"]
    assert data.base_model == ["org/tower"]
    assert data.datasets == ["chimes"]


@pytest.mark.parametrize(
    ("reads", "gives", "tag"),
    [
        (["image"], ["category"], "image-classification"),
        (["image", "audio"], ["category"], None),
        (["image"], ["text"], "image-to-text"),
        (["audio"], ["text"], "automatic-speech-recognition"),
        (["image", "text"], [], "feature-extraction"),
    ],
)
def test_the_pipeline_is_told_where_the_hub_has_a_name_for_it(tuned: Made, reads: list[str], gives: list[str], tag: str | None) -> None:
    parts = {f"part{n}": PartNeed(kind) for n, kind in enumerate(reads)}
    needs = Needs(parts, {f"answer{n}": AnswerNeed(kind) for n, kind in enumerate(gives)})
    spec = next(iter(tuned.artifact.facts.parts.values()))
    assert card_of(tuned, needs=needs, parts=dict.fromkeys(parts, spec)).data.pipeline_tag == tag


def test_the_body_says_what_the_figures_and_the_ledger_say(tuned: Made) -> None:
    text = card_of(tuned).text
    assert "| accuracy | 0.91 | 0.88 to 0.94 | 0.25 | 0.3 |" in text
    assert "| accuracy | image | 0.910 | 0.4 | 0.5 |" in text
    assert "Of these rows: 3 quarantined" in text
    assert '- test/accuracy: does not depend on "image".' in text
    assert "| device | cpu, 2 threads |" in text
    assert "| steps | 40, the weights are those of step 30 |" in text


AVERAGED = {
    "soup": {"steps": [20, 30], "of": [10, 20, 30], "alone": {"10": 0.5, "20": 0.75, "30": 0.875}},
    "interpolate": {"tuned": 0.5, "tensors": 12, "tried": {"0.5": 0.9, "1": 0.875}},
}


@pytest.mark.parametrize(
    ("averaged", "values", "told"),
    [
        (
            AVERAGED,
            {"average.choice": {"metric": "valid/accuracy", "mode": "auto"}},
            [
                "| mean over evaluations (soup) | the weights of steps 20, 30, out of 3; on validation step 10: 0.5, step 20: 0.75, ",
                "| interpolation (WiSE-FT) | 0.5 of the way from the pretrained weights to the tuned ones, in 12 tensors; on validation ",
                "| chosen by | valid/accuracy, on the validation split |",
            ],
        ),
        (
            {"ema_of_step": 30},
            {"average.ema": {"decay": 0.99, "start": 5, "warmup": True}},
            ["| running average (EMA) | decay 0.99, from step 5, up to step 30 |"],
        ),
    ],
)
def test_a_card_says_of_what_the_weights_are_an_average(tuned: Made, averaged: Any, values: dict[str, Any], told: list[str]) -> None:
    plan = replace(PLAN, values={**PLAN.values, **{name: Value(value, "recipe") for name, value in values.items()}})
    text = model_card(facts_of(tuned, averaged=averaged), plan, STORY, folders=[], versions={})
    assert "| steps | 40, the weights are averages, as told below |" in text
    assert all(line in text for line in told)


def test_neither_a_column_nor_a_source_breaks_out_of_the_card(tuned: Made) -> None:
    evil = 'a"\n```\n| ![x](http://example.org/x.png) <script> `'
    spec = next(iter(tuned.artifact.facts.parts.values())).model_copy(update={"column": evil})
    plan = replace(PLAN, values={**PLAN.values, "data.source": Value(evil, "recipe")})
    facts = facts_of(tuned, parts=dict.fromkeys(tuned.artifact.facts.parts, spec))
    body = model_card(facts, plan, STORY, folders=[], versions={}).split("---\n", 2)[2]
    outside = "".join(body.split("```")[::2])
    assert len(body.split("```")) == 3, "one block of code"
    assert "<script" not in outside
    assert "![" not in outside
    for block in re.findall(r"(?:^\|.*\n)+", outside, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block


def test_no_label_breaks_out_of_its_table_or_becomes_markup(tuned: Made) -> None:
    evil = "a|b\n<script>`x`"
    needs = replace(tuned.artifact.needs, answers={"label": AnswerNeed("category", labels=(evil, "b"))})
    text = card_of(tuned, needs=needs).text
    assert "<script" not in text
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block


def test_plain_transformers_reads_what_the_card_says_it_reads(tuned: Made) -> None:
    text = (tuned.artifact.folder / "README.md").read_text("utf-8")
    folders = re.findall(r'AutoModel\.from_pretrained\("PATH/([\w/]+)"\)', text)
    assert sorted(folders) == ["towers/caption", "towers/image"]
    assert all(AutoModel.from_pretrained(tuned.artifact.folder / folder).num_parameters() > 0 for folder in folders)


def test_a_tower_of_our_own_is_not_said_to_be_one_of_transformers(tuned: Made) -> None:
    values = {**PLAN.values, "model.towers.image.from": Value("plug-in vit", "recipe")}
    text = model_card(facts_of(tuned), replace(PLAN, values=values), STORY, folders=["towers/image", "lm"], versions={})
    assert 'AutoModel.from_pretrained("PATH/lm")' in text
    assert "PATH/towers/image" not in text
