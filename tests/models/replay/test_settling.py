"""A run's cuts: chosen ones that do not hold become none with a finding, asked ones are an error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from multitune.core.errors import ModelError
from multitune.core.protocols import AnswerNeed, Needs, PartNeed
from multitune.core.recipe import make_recipe
from multitune.models import plan
from multitune.models.replay import settle
from tests.models.replay.test_cuts import family
from tests.models.replay.test_proof import moving

Folders = Mapping[str, Path]


def test_the_highest_cut_of_a_frozen_tower_is_chosen_and_proven(folders: Folders) -> None:
    made = family(folders["bert"], "text")
    settled = settle(made, moving(made))
    assert {tower: seam.cut.name for tower, seam in settled.seams.items()} == {"x": "x.pooled"}
    assert settled.findings == ()


def test_a_chosen_cut_that_does_not_hold_is_none_and_a_finding_says_why(folders: Folders) -> None:
    made = family(folders["wav2vec2"], "audio")
    settled = settle(made, moving(made))
    assert settled.seams == {}
    assert [(finding.code, finding.where) for finding in settled.findings] == [("cut-not-proven", "x.pooled")]
    assert "joined with longer rows" in settled.findings[0].message


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("x", "x does not hold: joined with longer rows"),
        ("head", '"head" is no tower and no block'),
        ("x.encoder.layer.2", 'Did you mean "x.encoder.layers.2"'),
    ],
)
def test_an_asked_cut_that_does_not_hold_is_an_error(folders: Folders, name: str, found: str) -> None:
    made = family(folders["wav2vec2"], "audio")
    with pytest.raises(ModelError, match=found):
        settle(made, moving(made), asked=[name])


def test_an_asked_cut_above_what_moves_is_an_error(folders: Folders) -> None:
    made = family(folders["bert"], "text")
    with pytest.raises(ModelError, match=r"x\.encoder\.layer\.2 is no cut here: tensors that move lie under it"):
        settle(made, moving(made, "x.embeddings", "x.encoder.layer.0", "x.encoder.layer.2"), asked=["x.encoder.layer.2"])


def test_nothing_is_run_where_everything_moves(folders: Folders) -> None:
    made: Any = family(folders["bert"], "text")
    made.register_forward_pre_hook(lambda *_: pytest.fail("it ran"))
    assert settle(made, moving(made, "nothing")).proofs == ()


def test_the_plan_proposes_the_highest_cuts_without_weights(folders: Folders) -> None:
    needs = Needs({"photo": PartNeed("image"), "words": PartNeed("text")}, {"label": AnswerNeed("category", ("a", "b"))})
    model = {"name": "fusion_encoder", "towers": {"photo": str(folders["vit"]), "words": str(folders["bert"])}}
    data = {"source": {"name": "rows"}, "parts": {"photo": "image", "words": "text", "label": "category"}, "answers": ["label"]}
    recipe = make_recipe({"name": "cuts", "task": "classification", "data": data, "model": model, "features": {"store": "off"}})
    outline = plan.state(recipe, needs)
    proposed = plan.cuts(outline, recipe, outline.anatomy.match("words.encoder.layer.2") + outline.anatomy.match("head"))
    assert {name: value.value for name, value in proposed.items()} == {
        "model.towers.photo.cut": "photo.pooled",
        "model.towers.words.cut": "words.encoder.layer.1",
    }
    assert plan.cuts(outline, recipe, outline.anatomy.parameters) == {}
