"""Activation checkpointing changes no bit of the gradient, and really computes again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from multitune.core import catalog
from multitune.core.protocols import AnswerNeed, Batch, Needs, PartNeed
from multitune.models import anatomy
from multitune.models.layers.recomputing import recompute
from multitune.models.load import Weights
from tests.tuning.small import cut, rows, scope_of, small
from tests.tuning.test_gradients import gradient

PICTURE = Needs({"image": PartNeed("image")}, {"kind": AnswerNeed("category", labels=tuple("abcd"))})


def own_tower(*, dropout: float) -> tuple[Any, Batch]:
    """A family on a tower of ours, which Transformers knows no checkpointing of, and rows for it."""
    spec = {"name": "vit", "depth": 2, "width": 16}
    family = catalog.find("family", "fusion_encoder", {"towers": {"image": spec}, "dropout": dropout}).build(PICTURE, Weights(seed=1))
    prepared = [family.preparer.signals["image"].row(family.preparer.signals["image"].sample()) for _ in range(4)]
    inputs = {"image": family.preparer.signals["image"].batch(prepared)}
    there = torch.ones(4, dtype=torch.bool)
    return family, Batch(tuple("abcd"), inputs, {"kind": torch.tensor([0, 1, 2, 3])}, {"image": there, "kind": there})


def calls_of(module: nn.Module) -> list[int]:
    """Grows by one at each call of the module."""
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("dropout", [0.0, 0.3], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("shape", ["classify", "embed"])
def test_transformers_own_gives_the_same_bits(shape: Any, dropout: float) -> None:
    plain, again = small(shape, dropout=dropout), small(shape, dropout=dropout)
    assert recompute(again.towers) == []
    name = next(iter(again.towers))
    before, after = (calls_of(one.get_submodule(f"tower.{name}.encoder.layer.0.attention")) for one in (plain, again))
    micro = cut(rows(plain, 8), (4, 4))
    kept, computed = gradient(plain, micro), gradient(again, micro)
    assert torch.equal(kept, computed)
    assert kept.norm() > 1e-3
    assert len(after) == len(before) + 2, "one more call for each way back"


@pytest.mark.parametrize("dropout", [0.0, 0.3], ids=["no dropout", "dropout"])
def test_torchs_own_around_our_blocks_gives_the_same_bits(dropout: float) -> None:
    (plain, batch), (again, _) = own_tower(dropout=dropout), own_tower(dropout=dropout)
    assert recompute(again.towers) == []
    blocks = [again.towers["image"].get_submodule(path) for path in anatomy.block_paths(again.towers["image"])]
    calls = calls_of(next(iter(blocks[0].children())))
    micro = [(0, batch)]
    assert torch.equal(gradient(plain, micro), gradient(again, micro))
    assert len(calls) == 2
    scope = scope_of(again)
    scope.leave()
    again(batch)
    assert len(calls) == 3, "nothing is computed again outside training"
