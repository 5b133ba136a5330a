"""What a block was called with, as plain data: enough to compile for it again, not one value of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

_PLAIN = (bool, int, float, str, type(None))


def written(value: Any) -> dict[str, Any] | None:
    """Tensors by shape, stride, type, device and whether they have a way back; None where something is neither that nor plain.

    A view comes with what it is a view of, since torch tells the two apart.
    """
    if type(value) is Tensor or type(value) is torch.nn.Parameter:
        facts = {"shape": list(value.shape), "stride": list(value.stride()), "grad": value.requires_grad}
        if value._base is not None:
            return {"view": facts | {"offset": value.storage_offset(), "of": written(value._base)}}
        return {"tensor": facts | {"type": str(value.dtype).removeprefix("torch."), "device": str(value.device)}}
    if type(value) in _PLAIN:
        return {"plain": value}
    if type(value) in (tuple, list):
        inner = [written(one) for one in value]
        return None if None in inner else {type(value).__name__: inner}
    if type(value) is dict and all(type(name) is str for name in value):
        named = {name: written(one) for name, one in value.items()}
        return None if None in named.values() else {"dict": named}
    return None


def read(kept: Mapping[str, Any]) -> Any:
    """What `written` wrote, its tensors zero."""
    ((kind, held),) = kept.items()
    if kind == "plain":
        return held
    if kind == "dict":
        return {name: read(one) for name, one in held.items()}
    if kind == "list":
        return [read(one) for one in held]
    if kind == "tuple":
        return tuple(read(one) for one in held)
    if kind == "view":
        with torch.set_grad_enabled(held["grad"]):
            return read(held["of"]).as_strided(held["shape"], held["stride"], held["offset"])
    made = torch.empty_strided(held["shape"], held["stride"], dtype=getattr(torch, held["type"]), device=held["device"])
    cast("Any", made.untyped_storage()).fill_(0)
    return made.requires_grad_(held["grad"])
