"""Cuts are offered where nothing under them moves and nothing is random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from multitune.core import catalog
from multitune.core.protocols import AnswerNeed, Needs, PartNeed
from multitune.models import anatomy
from multitune.models.load import Weights
from multitune.models.replay import Candidates, candidates, probe_rows

Folders = Mapping[str, Path]
MODALITY = {"vit": "image", "swin": "image", "resnet": "image", "bert": "text", "wav2vec2": "audio"}


def family(folder: Path, modality: str, **options: Any) -> Any:
    needs = Needs({"x": PartNeed(modality)}, {"label": AnswerNeed("category", ("a", "b", "c"))})
    return catalog.find("family", "fusion_encoder", {"towers": {"x": str(folder)}} | options).build(needs, Weights())


def tried(made: Any, *patterns: str) -> Candidates:
    found = anatomy.find(made)
    return candidates(made, found, [name for pattern in patterns for name in found.match(pattern)], row=probe_rows(made, 1)[0])


def names(found: Candidates) -> list[str]:
    return [cut.name for cut in found.cuts]


def test_a_frozen_tower_is_a_cut_and_so_is_each_block_the_highest_first(folders: Folders) -> None:
    found = tried(family(folders["swin"], "image"), "head", "fusion")
    assert names(found) == ["x.pooled", "x", "x.encoder.layers.1.blocks.1", "x.encoder.layers.1.blocks.0", "x.encoder.layers.0.blocks.0"]
    assert found.highest()["x"].path == "pooled.x"


def test_where_tokens_are_read_no_vector_is_a_cut(folders: Folders) -> None:
    found = tried(family(folders["vit"], "image", fuse="cross_attention"), "head", "fusion")
    assert names(found)[:2] == ["x", "x.layers.2"]


def test_no_cut_lies_above_what_moves(folders: Folders) -> None:
    found = tried(family(folders["bert"], "text"), "x.encoder.layer.1", "head")
    assert names(found) == ["x.encoder.layer.0"]
    assert [refusal.reason for refusal in found.refused] == [
        "16 tensors inside move",
        "16 tensors inside move",
        "tensors that move lie under it",
        "16 tensors inside move",
    ]


def test_a_buffer_that_a_forward_writes_moves(folders: Folders) -> None:
    made = family(folders["bert"], "text")
    layer = made.tower["x"].encoder.layer[1]
    layer.register_buffer("seen", torch.zeros(()))

    def counts(module: torch.nn.Module, _: Any) -> None:
        module.get_buffer("seen").add_(1)

    layer.register_forward_pre_hook(counts)
    found = tried(made, "head")
    assert names(found) == ["x.encoder.layer.0"]
    assert "buffer encoder.layer.1.seen" in found.refused[0].reason
    assert float(layer.seen) == 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"mask_time_prob": 0.5, "mask_time_length": 2}, []),
        ({"layerdrop": 0.05}, []),
        ({}, ["x.encoder.layers.1", "x.encoder.layers.0"]),
    ],
)
def test_what_is_random_in_training_is_no_cut(folders: Folders, settings: Mapping[str, Any], expected: Sequence[str]) -> None:
    made = family(folders["wav2vec2"], "audio")
    still = {"mask_time_prob": 0.0, "layerdrop": 0.0, "hidden_dropout": 0.0, "feat_proj_dropout": 0.0, "attention_dropout": 0.0}
    made.tower["x"].config.update(still | dict(settings))
    made.tower["x"].encoder.dropout.p = 0.0
    assert names(tried(made, "x.encoder.layers.2", "head")) == expected


def test_dropout_under_a_frozen_tower_is_not_active(folders: Folders) -> None:
    assert names(tried(family(folders["bert"], "text"), "head"))[0] == "x.pooled"


def test_looking_leaves_the_family_as_it_was(folders: Folders) -> None:
    made = family(folders["bert"], "text").train()
    made.tower["x"].eval()
    for parameter in made.fusion.parameters():
        parameter.requires_grad_(False)
    before = [module.training for module in made.modules()], [parameter.requires_grad for parameter in made.parameters()]
    tried(made, "x.encoder.layer.1", "head")
    assert before == ([module.training for module in made.modules()], [parameter.requires_grad for parameter in made.parameters()])
