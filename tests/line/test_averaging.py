"""From a recipe with averages to an artifact: what was chosen is what is served, and what cannot be is refused before anything is spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import multitune
from multitune.core.errors import RecipeError
from multitune.deliver.artifact import open_artifact
from tests.line.lines import TRAIN, bits, recipe

pytestmark = pytest.mark.line
STOP = {"early_stop": {"metric": "valid/accuracy", "patience": 5}}


def classifies(average: dict[str, Any], **train: Any) -> dict[str, Any]:
    return recipe("classifies", average=average, train={**TRAIN, **train})


def test_what_validation_chose_is_in_the_artifact_and_is_what_it_answers_with(tmp_path: Path) -> None:
    made = classifies({"soup": {"best": 2, "greedy": True}, "interpolate": {"tuned": [0.5, 1]}}, **STOP)
    result = multitune.train(made, run=tmp_path / "run")
    artifact = open_artifact(tmp_path / "run")
    chosen = artifact.facts.averaged
    assert result.figures["average/tuned"] == chosen["interpolate"]["tuned"]
    assert set(chosen["soup"]["of"]) <= {2, 4, 6}
    assert artifact.parity() == 0
    assert multitune.evaluate(tmp_path / "run").figures["test/accuracy"] == result.figures["test/accuracy"]
    assert "averaged" in {finding.code for finding in result.findings}
    before = bits(tmp_path / "run")
    (tmp_path / "run" / "artifact" / "artifact.json").unlink()
    multitune.train(made, run=tmp_path / "run")
    assert bits(tmp_path / "run") == before
    events = (tmp_path / "run" / "events.jsonl").read_text("utf-8").splitlines()
    assert sum('"average/tuned"' in line for line in events) == 1


def test_the_share_one_is_the_plain_model_to_the_bit(tmp_path: Path) -> None:
    for name, average in (("plain", {}), ("one", {"interpolate": {"tuned": 1}})):
        multitune.train(classifies(average, steps=2), run=tmp_path / name)
    weights = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "artifact").rglob("*.safetensors")} for name in ("plain", "one")
    ]
    assert weights[0] == weights[1]


def test_a_plan_says_what_is_averaged_only_where_it_is_asked_for() -> None:
    plain = multitune.plan(classifies({})).text
    assert "\naverage\n" not in plain
    text = multitune.plan(classifies({"ema": {"start": "50%"}, "interpolate": {"tuned": 0.5}})).text
    assert "decay: 0.999, start: 3, warmup: yes" in text
    assert "what is evaluated and kept is the average" in text


SCRATCH = {"name": "fusion_encoder", "towers": {part: {"pretrained": f"tiny/{part}", "weights": "random"} for part in ("image", "audio")}}
REFUSED = {
    "twice": ({"ema": {}, "soup": {"last": 2}}, {}, r"average: .*leave one out"),
    "neither": ({"soup": {}}, {}, r"average\.soup: .*either last or best"),
    "never": ({"ema": {"start": "100%"}}, {}, r"average\.ema\.start: .*never begin"),
    "too-many": ({"soup": {"last": 4}}, {}, r"average\.soup: 4 evaluations .* has 3"),
    "by-what": ({"soup": {"best": 2}}, {}, r"average\.metric: .*no figure"),
    "for-nothing": ({"ema": {}, "metric": "valid/accuracy"}, {}, r"average\.metric: .*no effect"),
    "share": ({"interpolate": {"tuned": 1.5}}, {}, r"average\.interpolate\.tuned"),
    "same-share": ({"interpolate": {"tuned": [0.5, 0.5]}}, {}, r"stands twice"),
    "statistics": ({"soup": {"last": 2}}, {"batch_norm": "moving", "micro_batch": 16}, r"average: .*batch norm"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_averaged_is_refused_by_the_plan(name: str) -> None:
    average, train, message = REFUSED[name]
    with pytest.raises(RecipeError, match=message):
        multitune.plan(classifies(average, **train))


def test_a_way_back_without_anything_pretrained_is_refused_by_the_plan() -> None:
    made = classifies({"interpolate": {"tuned": 0.5}}) | {"model": SCRATCH, "strategy": "full"}
    with pytest.raises(RecipeError, match=r"average\.interpolate: nothing that moves was read"):
        multitune.plan(made)


def test_a_figure_that_validation_does_not_give_is_refused_before_a_step_is_taken(tmp_path: Path) -> None:
    made = classifies({"soup": {"best": 2}, "metric": "valid/acuracy"})
    with pytest.raises(RecipeError, match=r"average\.metric: .*Did you mean .valid/accuracy"):
        multitune.train(made, run=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_choice_of_a_run_reads_as_json(tmp_path: Path) -> None:
    multitune.train(classifies({"ema": {"decay": 0.5}}, steps=2), run=tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "artifact" / "artifact.json").read_text("utf-8"))
    assert facts["averaged"] == {"ema_of_step": 2}
