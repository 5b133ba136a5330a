"""Pieces of a sequence joined so that no row has a hole: what is masked moves to the left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multitune.models.families.generative.preparing import IGNORED


@dataclass(frozen=True)
class Packed:
    """values (rows, tokens, width), mask (rows, tokens): false on the left, true from each row's first real token on."""

    values: Tensor
    mask: Tensor

    @property
    def positions(self) -> Tensor:
        """int64 (rows, tokens): 0 at each row's first real token and on what is masked before it."""
        return (self.mask.cumsum(1) - 1).clamp(min=0)

    def then(self, values: Tensor, mask: Tensor) -> Packed:
        """These tokens followed by others, which may be masked at their end."""
        return Packed(torch.cat([self.values, values.to(self.values.dtype)], 1), torch.cat([self.mask, mask], 1))


def pack(pieces: Sequence[tuple[Tensor, Tensor]]) -> Packed:
    """Join pieces (rows, n, width) with masks (rows, n) in order; masked tokens become zeros and move to the front of their row.

    The first column is always masked: attention then takes the same path whether or not a row has padding, so that a row's bits do
    not depend on its neighbours.
    """
    values = torch.cat([piece for piece, _ in pieces], 1)
    mask = torch.cat([real for _, real in pieces], 1)
    order = mask.to(torch.int8).argsort(dim=1, stable=True)
    mask = mask.gather(1, order)
    values = values.gather(1, order.unsqueeze(-1).expand_as(values)).masked_fill(~mask.unsqueeze(-1), 0)
    return Packed(torch.nn.functional.pad(values, (0, 0, 1, 0)), torch.nn.functional.pad(mask, (1, 0)))


def told(inputs: Mapping[str, Tensor], answers: Tensor) -> dict[str, Tensor]:
    """Prompt and answer in one row without holes, padded on the right: positions then need no words of ours.

    inputs: `input_ids` and `attention_mask` (rows, tokens), with whatever else the model reads. answers (rows, tokens): -100 outside.
    """
    real = answers != IGNORED
    mask = torch.cat([inputs["attention_mask"], real.to(inputs["attention_mask"].dtype)], 1)
    order = (1 - mask).argsort(dim=1, stable=True)
    made = dict(inputs) | {"attention_mask": mask.gather(1, order)}
    length = inputs["input_ids"].shape
    for name, tensor in inputs.items():
        if tensor.shape == length and name != "attention_mask":
            more = answers.clamp(min=0) if name == "input_ids" else torch.zeros_like(answers)
            made[name] = torch.cat([tensor, more.to(tensor.dtype)], 1).gather(1, order)
    return made


def places(inputs: Mapping[str, Tensor], answers: Tensor) -> Tensor:
    """int64 (rows, tokens): in rows as `told` gives them, which token's logits stand for each token of the answer."""
    given = inputs["attention_mask"].sum(1) - (answers != IGNORED).sum(1)
    return (given - 1).unsqueeze(1) + torch.arange(answers.shape[1], device=answers.device)
