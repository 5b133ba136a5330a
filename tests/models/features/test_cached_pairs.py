"""Gradient caching over the store: what is stored runs in neither pass, and the gradient is that of a plain step."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from multitune.core import catalog
from multitune.core.protocols import Sample
from multitune.models import anatomy
from multitune.models.features.filling import Features
from multitune.tuning.gradients import Gradients
from tests.models.features.conftest import embedder, moving, opened
from tests.models.features.test_equality import prepared

SIZES = ((0, 3), (3, 6), (6, 9))


def step(family: Any, preparer: Any, rows: list[Sample], names: list[str], features: Features | None) -> dict[str, torch.Tensor]:
    for path, name in anatomy.find(family).names.items():
        parameter = family.get_parameter(path)
        parameter.grad = None
        parameter.requires_grad_(name in names)
    micro = [(number, prepared(preparer, rows[start:stop])) for number, (start, stop) in enumerate(SIZES)]
    with nullcontext() if features is None else features.attached():
        work = Gradients(family, catalog.find("loss", "contrastive").build(family.needs), seed=0).work(0, micro)
        for position in work.order():
            work.backward(position)
    return {name: parameter.grad for name, parameter in family.named_parameters() if parameter.grad is not None}


def counted(module: torch.nn.Module) -> list[int]:
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_a_stored_tower_runs_in_neither_pass_and_what_moves_twice_but_for_the_last_chunk(
    folders: Mapping[str, Path], rows: list[Sample], tmp_path: Path
) -> None:
    family = embedder(folders)
    names = moving(family, "photo")
    plain = step(family, family.preparer, rows, names, None)
    features = opened(family, names, tmp_path / "store")
    features.fill(rows)
    photo, words = family.towers["photo"], family.towers["words"]
    inside, outside = counted(photo.get_submodule(anatomy.block_paths(photo)[0])), counted(words)
    stored = step(family, features.preparer(), rows, names, features)
    assert (len(inside), len(outside)) == (0, 2 * len(SIZES) - 1)
    whole = torch.nn.utils.get_total_norm(list(plain.values()))
    assert stored.keys() == plain.keys()
    assert all(float((stored[name] - tensor).norm()) <= 1e-5 * float(whole) for name, tensor in plain.items())
