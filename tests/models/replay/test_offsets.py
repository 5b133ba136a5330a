"""Replay of a module that lays the tokens of all rows along one axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multitune.core.protocols import Batch, Outputs
from multitune.models.replay import Cut, Proof, blanked, encode_rows, prove, replay
from multitune.models.replay.recording import collated


class Flattened(nn.Module):
    """A frozen layer over the tokens of all rows in one axis, as packed picture towers have it; a head over each row's mean."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.layer, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
        self.towers: Mapping[str, nn.Module] = {}
        self.public: Mapping[str, str] = {}

    @property
    def preparer(self) -> Flattened:
        return self

    def bucket(self, row: Tensor) -> int:
        return len(row)

    def collate(self, rows: Sequence[Tensor]) -> Batch:
        values = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        real = nn.utils.rnn.pad_sequence([torch.ones(len(row)) for row in rows], batch_first=True).bool()
        return Batch(tuple(map(str, range(len(rows)))), {"x": {"values": values, "real": real}}, {}, {})

    def forward(self, batch: Batch) -> Outputs:
        real = batch.inputs["x"]["real"]
        flat = self.layer(batch.inputs["x"]["values"][real])
        sums = flat.new_zeros(len(real), 4).index_add(0, real.nonzero()[:, 0], flat)
        return Outputs(logits={"label": self.head(sums / real.sum(1, keepdim=True))})


def rows(*lengths: int) -> list[Any]:
    draw = torch.Generator().manual_seed(len(lengths))
    return [torch.randn(length, 3, generator=draw) for length in lengths]


@pytest.fixture
def family() -> Any:
    return Flattened()


@pytest.fixture
def proof(family: Any) -> Proof:
    return prove(family, Cut("layer", "layer", ""), rows(2, 5, 3), moving=["head.weight", "head.bias"])


def test_a_module_over_tokens_of_all_rows_holds(proof: Proof) -> None:
    assert proof.equal, proof.reason
    assert proof.seam is not None
    assert proof.seam.layout.leaves[0].kind == "token"
    assert proof.seam.blank == (("x", "values"),)


def test_rows_encoded_in_groups_come_back_each_at_its_offset(family: Any, proof: Proof) -> None:
    assert proof.seam is not None
    given = rows(4, 1, 6, 4)
    kept, batch = encode_rows(family, proof.seam, given, group_rows=2), collated(family, given)
    with replay(family, proof.seam, kept):
        again = family(blanked(batch, proof.seam)).logits["label"]
    assert torch.allclose(again, family(batch).logits["label"], atol=1e-6)
