"""What a tower gives, in one form: tokens with a mask, and one vector a row."""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from multitune.core.errors import ModelError
from multitune.models.layers.inserted import inserted

Pool = Literal["mean", "first", "pooler"]
SEEN = {"image", "video"}
Module = TypeVar("Module", bound=nn.Module)
SHARE = "share"
MAX_COPIED = 50_000_000
_BY_MAIN_INPUT: Mapping[str, tuple[str, ...]] = {
    "pixel_values": ("image", "video"),
    "pixel_values_videos": ("video",),
    "input_ids": ("text",),
    "input_values": ("audio",),
    "input_features": ("audio",),
}


@dataclass(frozen=True)
class Tokens:
    """values (rows, tokens, width); mask (rows, tokens), true where a token is not padding; pooled (rows, width) if asked for."""

    values: Tensor
    mask: Tensor
    pooled: Tensor


def modality_of(module: PreTrainedModel) -> str:
    """The one modality that a model encodes, or an empty text if it joins several.

    `main_input_name` decides and `input_modalities` confirms: some classes inherit "text" without reading any. A name that forward
    does not take is inherited too (SmolVLM's vision tower) and decides nothing. What reads pictures and films reads pictures.
    """
    stated = module.input_modalities
    modalities = (stated,) if isinstance(stated, str) else tuple(stated)
    if len(modalities) > 1:
        return "image" if set(modalities) == SEEN else ""
    taken = inspect.signature(module.forward).parameters
    by_name = _BY_MAIN_INPUT.get(module.main_input_name) if module.main_input_name in taken else None
    if by_name is None:
        return modalities[0] if modalities else ""
    return modalities[0] if modalities and modalities[0] in by_name else by_name[0]


@dataclass(frozen=True)
class Found:
    """A model of one modality inside another."""

    modality: str
    module: PreTrainedModel


def outermost(model: PreTrainedModel) -> dict[str, Found]:
    """The outermost models of one modality strictly inside a model, by path: its towers."""
    found: dict[str, Found] = {}
    for path, module in model.named_modules():
        if not path or not isinstance(module, PreTrainedModel) or any(path.startswith(f"{outer}.") for outer in found):
            continue
        modality = modality_of(module)
        if modality:
            found[path] = Found(modality, module)
    return found


def read(module: PreTrainedModel, inputs: Mapping[str, Tensor], *, pool: Pool) -> Tokens:
    """Run a tower and give its last hidden state as tokens.

    inputs: what the tower's forward takes, rows first; `share` (rows,), if there, is the part of the padded length that is
    real. Maps (rows, channels, height, width) become tokens row by row. What a half precision tower gives is fp32 again. On
    the meta device, where models cannot ask whether anything is padding, nothing is.
    Raises: ModelError if `pool` is `pooler` and the tower has none.
    """
    meta = next(iter(inputs.values())).is_meta
    half = module.dtype.itemsize < 4
    left_out = {SHARE, *(["attention_mask"] if meta else [])}
    given = {name: value for name, value in inputs.items() if name not in left_out and takes(module, name)}
    output = module(**{name: value.to(module.dtype) if value.is_floating_point() else value for name, value in given.items()})
    values = cast("Tensor", output["last_hidden_state"])
    values = values.float() if half else values
    if values.dim() == 4:
        values = values.flatten(2).transpose(1, 2)
    stated = output.get("token_mask")  # a tower that knows which of its tokens are real says so
    mask = _mask(values, inputs) if stated is None else cast("Tensor", stated)
    return Tokens(values, mask, _pooled(values, mask, output, pool))


def takes(module: PreTrainedModel, name: str) -> bool:
    """Whether a model's forward takes an input; a tokenizer may give more than its tower reads, such as token types."""
    names, any_name = _takes(type(module)) if "forward" not in vars(module) else _of(module.forward)
    return any_name or name in names


@functools.cache
def _takes(kind: type[PreTrainedModel]) -> tuple[frozenset[str], bool]:
    return _of(kind.forward)  # asked at every forward: reading a signature takes a tenth of a millisecond


def _of(forward: Any) -> tuple[frozenset[str], bool]:
    """The names of what a forward takes, and whether it takes any name."""
    parameters = inspect.signature(forward).parameters
    return frozenset(parameters), any(one.kind == inspect.Parameter.VAR_KEYWORD for one in parameters.values())


def mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of each row's tokens that are not padding, (rows, width); zeros where a row has none."""
    weight = mask.to(values.dtype).unsqueeze(-1)
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1)


def _mask(values: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    rows, length = values.shape[:2]
    given = inputs.get("attention_mask")
    if given is not None and given.dim() == 2 and given.shape[1] == length:
        return given.bool()
    share = inputs.get(SHARE)
    if share is None:
        return torch.ones((rows, length), dtype=torch.bool, device=values.device)
    real = torch.ceil(share.to(torch.float64) * length - 1e-6).clamp(min=1)
    return torch.arange(length, device=values.device)[None, :] < real[:, None]


def _pooled(values: Tensor, mask: Tensor, output: Mapping[str, Any], pool: Pool) -> Tensor:
    if pool == "mean":
        return mean(values, mask)
    if pool == "first":
        return values[:, 0]
    pooled = output.get("pooler_output")
    if pooled is None:
        raise ModelError("pool", "this tower has no pooler.", "Use mean or first.")
    return cast("Tensor", pooled).flatten(1).to(values.dtype)


def runnable(module: Module, *, most: int = MAX_COPIED) -> Module:
    """A module to try out what needs no numbers: on the meta device, one of at most `most` numbers as a copy full of zeros.

    A plan of two small towers takes a third of the CPU time that shapes alone take, and models that look at numbers run too.
    """
    tensors = [*module.parameters(), *module.buffers()]
    if not any(tensor.is_meta for tensor in tensors) or sum(tensor.numel() for tensor in tensors) > most:
        return module
    copied = copy.deepcopy(module).to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*copied.parameters(), *copied.buffers()):
            tensor.zero_()
    return copied


def unreached(module: nn.Module, total: Tensor) -> list[str]:
    """Names of the parameters that no gradient of `total` reaches; nothing is left in `.grad`."""
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    if not total.requires_grad:
        return [name for name, _ in named]
    gradients = torch.autograd.grad(total, [parameter for _, parameter in named], allow_unused=True)
    return [name for (name, _), gradient in zip(named, gradients, strict=True) if gradient is None]


def adapters(module: nn.Module) -> Iterator[str]:
    """Paths of the layers that PEFT has wrapped; their own weights lie under `base_layer`.

    PEFT is looked up only where it is loaded already: it takes seconds to import, and without it nothing can be wrapped.
    """
    tuners = sys.modules.get("peft.tuners.tuners_utils")
    if tuners is not None:
        kind = vars(tuners)["BaseTunerLayer"]
        yield from (path for path, inner in module.named_modules() if isinstance(inner, kind))


def base_names(module: nn.Module) -> dict[str, str]:
    """For each name in the state dict of a module: its name without PEFT's wrapping; what was inserted is left out."""
    wrapped = sorted([*adapters(module), *inserted(module)], key=len, reverse=True)
    names: dict[str, str] = {}
    for name in module.state_dict():
        layer = next((path for path in wrapped if name.startswith(f"{path}.")), None)
        if layer is None:
            names[name] = name
        elif name.startswith(f"{layer}.base_layer."):
            names[name] = f"{layer}.{name.removeprefix(f'{layer}.base_layer.')}"
    return names


def vocabulary(tokenizer: Any) -> Any:
    """All that decides a tokenizer's ids, as plain data; without what its last call left behind (how it cut and padded)."""
    if not tokenizer.is_fast:
        return sorted(tokenizer.get_vocab().items())
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return backend.to_str()
