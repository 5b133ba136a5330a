"""Rows without the weight of what only feeds a cut: arrays that say nothing but their shape, and how a row is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from multitune.core.protocols import Batch

MADE = "made"


def hollow(shape: Sequence[int], dtype: np.dtype[Any] | str) -> np.ndarray:
    """An array of this shape that says nothing and takes no memory: NaN, or 0 where there is no NaN."""
    kind = np.dtype(dtype)
    return np.broadcast_to(np.array(np.nan if kind.kind == "f" else 0, kind), tuple(shape))


def is_hollow(array: np.ndarray | Tensor) -> bool:
    """Whether an array, or a tensor, is one number in all its places."""
    strides = array.stride() if isinstance(array, Tensor) else array.strides
    return len(strides) > 0 and not any(strides)


def of_batch(tensors: Mapping[str, Tensor], silent: Sequence[str]) -> dict[str, Any]:
    """A row whose signal works on whole batches, from its batch of one: what is silent without content."""
    made = {name: tensor[0].numpy() for name, tensor in tensors.items()}
    return {MADE: {name: hollow(array.shape, array.dtype) if name in silent else array for name, array in made.items()}}


def joined(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor] | None:
    """The batch of rows that `of_batch` made; None where none of them is such a row. One that is not has the shape of the others."""
    light: list[Mapping[str, np.ndarray]] = [row[MADE] for row in rows if MADE in row]
    if not light:
        return None
    made: dict[str, Tensor] = {}
    for name, first in light[0].items():
        if is_hollow(first):
            made[name] = torch.from_numpy(np.array(first.flat[0], first.dtype)).expand(len(rows), *first.shape)
        else:
            made[name] = torch.from_numpy(np.stack([row[MADE][name] if MADE in row else first for row in rows]))
    return made


def blanked(batch: Batch, blank: Sequence[tuple[str, str]], without: Any) -> dict[str, dict[str, Tensor]]:
    """The inputs of a batch without what only feeds a cut; what says nothing already stays. without: gives a tensor that says nothing."""
    inputs = {part: dict(names) for part, names in batch.inputs.items()}
    for part, name in blank:
        tensor = inputs.get(part, {}).get(name)
        if tensor is not None and not is_hollow(tensor):
            inputs[part][name] = without(tensor)
    return inputs


def taken_down(row: Any, arrays: list[np.ndarray]) -> Any:
    """A row as plain data; its arrays that say something go to `arrays`."""
    if isinstance(row, Mapping):
        return {str(name): taken_down(inner, arrays) for name, inner in cast("Mapping[str, Any]", row).items()}
    if isinstance(row, np.ndarray):
        if is_hollow(row) and row.size:
            return {"~": [row.dtype.str, list(row.shape)]}
        arrays.append(np.ascontiguousarray(row))
        return {"=": len(arrays) - 1}
    if isinstance(row, list | tuple):
        return [taken_down(inner, arrays) for inner in cast("Sequence[Any]", row)]
    return row.item() if isinstance(row, np.generic) else row


def taken_up(data: Any, arrays: Sequence[np.ndarray]) -> Any:
    """The row that `taken_down` wrote."""
    if isinstance(data, list):
        return [taken_up(inner, arrays) for inner in cast("list[Any]", data)]
    if not isinstance(data, Mapping):
        return data
    named = cast("Mapping[str, Any]", data)
    if "~" in named:
        return hollow(named["~"][1], named["~"][0])
    if "=" in named:
        return arrays[named["="]]
    return {name: taken_up(inner, arrays) for name, inner in named.items()}
