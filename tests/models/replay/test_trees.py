"""How a tensor lies over rows, and rows put together again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from multitune.models.replay.trees import Layout, Tree, Unlike, classify, flatten, rebuilt

LENGTHS = (2, 5, 3)


def rows(*shapes: Sequence[int]) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(tuple(shape), generator=draw) for shape in shapes]


def layout(alone: Sequence[Tensor], together: Tensor) -> Layout:
    return classify([Tree.of({"x": tensor}) for tensor in alone], Tree.of({"x": together}))


def padded(tensors: Sequence[Tensor], longest: int, *, at_start: bool = False) -> Tensor:
    pads = [(0, 0, longest - t.shape[1], 0) if at_start else (0, 0, 0, longest - t.shape[1]) for t in tensors]
    return torch.cat([torch.nn.functional.pad(t, pad) for t, pad in zip(tensors, pads, strict=True)])


def test_a_tree_comes_back_as_it_was_taken_apart() -> None:
    one, other = rows((1, 2), (3,))
    value = BaseModelOutputWithPooling(last_hidden_state=one, hidden_states=(one, other))
    again = rebuilt(*flatten((value, {"k": [other, 7, None]})))
    assert type(again[0]) is BaseModelOutputWithPooling
    assert torch.equal(again[0].hidden_states[1], other)
    assert again[0].pooler_output is None
    assert again[1]["k"][1:] == [7, None]


@pytest.mark.parametrize("at_start", [False, True])
def test_rows_of_different_lengths_are_padded_where_the_model_pads_them(at_start: bool) -> None:
    alone = rows(*[(1, length, 4) for length in LENGTHS])
    together = padded(alone, 5, at_start=at_start)
    found = layout(alone, together)
    assert found.leaves[0].kind == "row"
    assert found.leaves[0].at_start == ((1,) if at_start else ())
    assert torch.equal(found.joined([[tensor] for tensor in alone])[0], together)


def test_rows_flattened_into_one_axis_of_tokens_keep_their_offsets() -> None:
    alone = rows(*[(length, 4) for length in LENGTHS])
    found = layout(alone, torch.cat(alone))
    assert found.leaves[0].kind == "token"
    others = rows((4, 4), (1, 4), (2, 4))
    assert torch.equal(found.joined([[tensor] for tensor in others])[0], torch.cat(others))


def test_the_axis_of_tokens_need_not_be_the_first() -> None:
    alone = rows(*[(1, length, 4) for length in LENGTHS])
    found = layout(alone, torch.cat(alone, 1))
    assert (found.leaves[0].kind, found.leaves[0].axis) == ("token", 1)


def test_what_has_one_place_for_all_rows_is_shared() -> None:
    alone = rows(*[(1, 2, length, length) for length in LENGTHS])
    assert layout(alone, rows((1, 2, 5, 5))[0]).leaves[0].kind == "shared"


def test_rows_of_one_size_are_taken_apart_in_order() -> None:
    alone = rows(*[(length, 4) for length in LENGTHS])
    found = layout(alone, torch.cat(alone))
    equal = rows((3, 4), (3, 4))
    assert all(torch.equal(split[0], one) for split, one in zip(found.split([torch.cat(equal)], 2), equal, strict=True))
    with pytest.raises(Unlike, match="7 places for 2 rows"):
        found.split(rows((7, 4)), 2)


def test_what_follows_neither_rows_nor_the_longest_row_is_refused() -> None:
    with pytest.raises(Unlike, match=r"gives \[4, 4\] for a batch of rows that give \[2, 4\], \[5, 4\], \[3, 4\] alone"):
        layout(rows(*[(length, 4) for length in LENGTHS]), rows((4, 4))[0])


def test_rows_put_together_lie_in_memory_as_the_model_had_them() -> None:
    alone = [tensor.transpose(1, 2) for tensor in rows((1, 3, 4), (1, 3, 4))]
    together = torch.cat([tensor.transpose(1, 2) for tensor in alone]).transpose(1, 2)
    assert layout(alone, together).joined([[tensor] for tensor in alone])[0].stride() == together.stride()
