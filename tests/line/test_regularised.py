"""Losses, optimizers and regularisers from a recipe to an artifact."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

import multitune
from multitune.core.errors import UserError
from multitune.core.ledger import Ledger
from multitune.core.recipe import make_recipe
from multitune.core.result import Result
from multitune.data.plan import outline
from multitune.tuning.ranks import Ranks
from multitune.verbs.plan import as_recipe, make_plan
from multitune.verbs.train.line import Line
from tests.line.lines import TRAIN, recipe

pytestmark = pytest.mark.line
MODEL = {"name": "fusion_encoder", "towers": {"image": {"pretrained": "tiny/image", "dropout": 0.1}}}
ANSWERS = {"shape": "category", "words": "labels"}


def asked(rows: list[dict[str, Any]], **train: Any) -> dict[str, Any]:
    data = {"source": {"name": "rows", "rows": rows}, "parts": {"image": "image", **ANSWERS}, "answers": list(ANSWERS)}
    made = recipe("classifies", model=MODEL, strategy="full", loss={"name": "several", "uncertainty": True})
    return made | {"data": data | {"split": {"column": "split"}}, "train": TRAIN | train}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Pictures with a class and a set of labels."""

    data = outline(make_recipe(recipe("classifies")), Ledger())
    found: list[dict[str, Any]] = []
    for split, examples in data.examples.items():
        for place in range(min(len(examples), {"train": 48}.get(split, 24))):
            row = examples.rows_of(place)
            picture = str(Path(str(examples.root_of(place))) / str(row["image"]))
            labels = [row["colour"]] * (place % 3 > 0) + [row["shape"]] * (place % 2)
            found.append({"id": row["id"], "image": picture, "shape": row["shape"], "words": labels, "split": split})
    return found


def bits(result: Result) -> str:
    digest = hashlib.sha256()
    for path in sorted((result.paths["run"] / "artifact").rglob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def test_several_answers_with_learned_shares_pulled_to_the_start_and_watched_by_the_loss(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    train = {
        "optimizer": {"name": "adafactor"}, "lr": 1e-2, "l2_sp": 0.1, "weight_decay": 0, "clip_value": 0.5, "drift": True,
        "early_stop": {"metric": "valid/loss", "patience": 5},
    }  # fmt: skip
    kept = multitune.train(asked(rows, **train), run=tmp_path / "kept")
    plan = json.loads((tmp_path / "kept" / "plan.json").read_text("utf-8"))["values"]
    assert plan["strategy.rows.0"]["value"] == {"pattern": "loss"}
    assert plan["model.towers.image.random_in_training"]["value"]
    assert set(plan["model.towers.image.random_in_training"]["value"].values()) == {0.1}
    assert {"valid/loss", "valid/loss/shape", "valid/loss/words", "drift/image", "test/shape/accuracy"} <= set(kept.figures)
    assert 0 < kept.figures["drift/image"] < 1
    last = max((tmp_path / "kept" / "checkpoints").glob("step-*"))
    with safe_open(last / "tensors.safetensors", "pt") as file:
        own = [name for name in file.offset_keys() if name.startswith("loss.")]
    assert own == ["loss.uncertainty.shape", "loss.uncertainty.words"]
    answers = multitune.load(tmp_path / "kept").predict({"image": rows[0]["image"]}).answers
    assert [answers[name].kind for name in ANSWERS] == ["category", "labels"]
    again = multitune.train(asked(rows, **train, checkpoint_activations=True), run=tmp_path / "again")
    assert bits(again) == bits(kept)


def test_a_line_has_its_blocks_computed_again_where_the_plan_says_so(rows: list[dict[str, Any]]) -> None:
    for asked_for in (False, True):
        planned = make_plan(as_recipe(asked(rows, checkpoint_activations=asked_for)), Ledger())
        line = Line.start(planned, ledger=Ledger(), ranks=Ranks())
        line.loader.close()
        tower: Any = line.family.towers["image"]
        wrapped = any("forward" in vars(module) for module in tower.modules())
        assert (wrapped or bool(tower.is_activation_checkpointing)) is asked_for


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"loss": "cross_entropy"}, "Use several"),
        ({"loss": "contrastive"}, "contrastive needs two parts"),
        ({"loss": {"name": "several", "answers": {"words": {"name": "multi_label", "weights": {"violett": 2}}}}}, "is no class of words"),
        ({"train": TRAIN | {"clip_norm": 1.0, "clip_value": 1.0}}, "only one can hold"),
        ({"train": TRAIN | {"optimizer": "adafator"}}, 'Did you mean "adafactor"'),
        ({"model": {"name": "fusion_encoder", "towers": {"image": {"pretrained": "tiny/image", "stochastic_depth": 0.1}}}}, "no field"),
    ],
)
def test_what_does_not_hang_together_is_named_before_anything_is_spent(
    rows: list[dict[str, Any]], tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError) as caught:
        multitune.plan(asked(rows) | changes)
    assert told in str(caught.value)
