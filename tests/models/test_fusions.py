"""What each fusion can learn: whether two parts belong together is in neither alone, and in no sum of the two."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.models.joining import Heads

WIDTH = 32


def relation(seed: int, rows: int = 64) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, torch.Tensor], torch.Tensor]:
    """Two parts of a few tokens, each of one of four kinds; the answer says whether both kinds are even, or both odd."""
    centres = torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(seed)
    kinds = torch.randint(0, 4, (2, rows), generator=random)
    parts = {}
    for place, (name, length) in enumerate({"a": 5, "b": 7}.items()):
        tokens = centres[place][kinds[place]][:, None] + torch.randn(rows, length, WIDTH, generator=random)
        parts[name] = {"tokens": tokens, "mask": torch.ones(rows, length, dtype=torch.bool), "pooled": tokens.mean(1)}
    there = torch.ones(rows, dtype=torch.bool)
    return parts, {"a": there, "b": there}, (kinds[0] % 2 == kinds[1] % 2).long()


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("cross_attention", 0.95, 1.0),
        ("unified", 0.95, 1.0),
        ("perceiver", 0.95, 1.0),
        ("concat", 0.95, 1.0),
        ("late_sum", 0.0, 0.6),
    ],
)
def test_only_a_fusion_with_interaction_learns_a_relation(name: str, least: float, most: float) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        fusion = catalog.find("fusion", name).build({"a": WIDTH, "b": WIDTH}, WIDTH)
        heads = Heads(fusion.slots, {"x": 2}, 0.0)
    optimizer = torch.optim.AdamW([*fusion.parameters(), *heads.parameters()], lr=3e-3)
    for step in range(80):
        parts, presence, truth = relation(step + 1)
        optimizer.zero_grad()
        functional.cross_entropy(heads.read(fusion(parts, presence))["x"], truth).backward()
        optimizer.step()
    parts, presence, truth = relation(0, 1000)
    with torch.inference_mode():
        accuracy = (heads.read(fusion(parts, presence))["x"].argmax(1) == truth).float().mean().item()
    assert least <= accuracy <= most


@pytest.mark.parametrize("name", ["cross_attention", "unified", "perceiver"])
def test_a_width_that_heads_cannot_share_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="the joint width 30 is no multiple of 4 heads"):
        catalog.find("fusion", name).build({"a": 8}, 30)
