"""What a family is made of: its towers, their blocks, and a public name for every parameter.

A tower's parameters are called by its name (`image.encoder.layer.3.attention...`), what lies in no tower by the family's own
names: `head`, `fusion`, `projection`, `connector`, and `scale` for what a loss multiplies by. PEFT's wrapping does not show:
`base_layer` is left out of names.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from multitune.core.errors import ModelError, did_you_mean, one_of
from multitune.core.protocols import Batch, Family
from multitune.models import tokens


@dataclass(frozen=True)
class TowerInfo:
    """A tower. path: of the module inside the family. blocks: public paths of its layers in call order, stages opened.

    pooled: the path of the module that gives its vector, where nothing else is read of it; else empty.
    """

    name: str
    path: str
    modality: str
    blocks: tuple[str, ...]
    num_parameters: int
    pooled: str = ""


@runtime_checkable
class Pooling(Protocol):
    """A family that has modules that run a tower and give one vector a row, by tower: of these towers it reads nothing else."""

    @property
    def pooling(self) -> Mapping[str, nn.Module]: ...


@dataclass(frozen=True)
class Anatomy:
    """names: path of a parameter inside the family -> its public name. sizes: public name -> numbers in it.

    shapes: public name -> its shape. linear: public path of a linear layer that adapters may be put into -> its inputs and outputs.
    """

    towers: tuple[TowerInfo, ...]
    names: Mapping[str, str]
    sizes: Mapping[str, int]
    linear: Mapping[str, tuple[int, int]]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def parameters(self) -> list[str]:
        """All public names, in the model's order."""
        return list(self.names.values())

    @property
    def num_parameters(self) -> int:
        """Numbers in all parameters."""
        return sum(self.sizes.values())

    @cached_property
    def left(self) -> tuple[str, ...]:
        """The names of what lies in no tower: `head`, `fusion`, `projection`, `connector`, `scale`."""
        own = {tower.name for tower in self.towers}
        return tuple(dict.fromkeys(name.split(".")[0] for name in self.parameters if name.split(".")[0] not in own))

    def tower(self, name: str) -> TowerInfo:
        """A tower by its name.

        Raises: ModelError with the nearest name.
        """
        for tower in self.towers:
            if tower.name == name:
                return tower
        known = [tower.name for tower in self.towers]
        raise ModelError(
            "strategy.towers",
            f'"{name}" matches no tower; towers are {", ".join(known)} (and {one_of(self.left)}).',
            did_you_mean(name, known),
        )

    def match(self, pattern: str, *, where: str = "pattern") -> list[str]:
        """Public names of the parameters that a shell-style pattern means; the path of a module means all below it.

        Raises: ModelError with the nearest path if there are none.
        """
        found = [name for name in self.parameters if matches(name, pattern)]
        if found:
            return found
        paths = {".".join(name.split(".")[:depth]) for name in self.parameters for depth in range(1, name.count(".") + 2)}
        tops = [*(tower.name for tower in self.towers), *self.left]
        near = did_you_mean(pattern, tops) or did_you_mean(pattern, sorted(paths))
        raise ModelError(where, f'"{pattern}" matches nothing; there are {", ".join(tops)}.', near)


def matches(name: str, pattern: str) -> bool:
    """Whether a parameter is meant by a pattern, itself or by a module above it."""
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}.*")


def find(family: Family | Any) -> Anatomy:
    """The anatomy of a family, with weights or on the meta device."""
    towers = {name: cast("PreTrainedModel", tower) for name, tower in family.towers.items()}
    module = cast("nn.Module", family)
    paths = {id(inner): path for path, inner in module.named_modules()}
    prefixes = {paths[id(tower)]: name for name, tower in towers.items()} | dict(family.public)
    longest = sorted(prefixes, key=len, reverse=True)
    wrapped = [f"{path}.base_layer." for path in tokens.adapters(module)]
    names: dict[str, str] = {}
    sizes: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for path, parameter in module.named_parameters():
        public = _renamed(_unwrapped(path, wrapped), prefixes, longest)
        names[path] = public
        sizes[public], shapes[public] = parameter.numel(), tuple(parameter.shape)
    linear = {f"{name}.{path}": linear_ends(tower.get_submodule(path)) for name, tower in towers.items() for path in linear_targets(tower)}
    pooled = {name: paths[id(given)] for name, given in family.pooling.items()} if isinstance(family, Pooling) else {}
    infos = tuple(_info(name, paths[id(tower)], tower, pooled.get(name, "")) for name, tower in towers.items())
    return Anatomy(infos, names, sizes, linear, shapes)


def _info(name: str, path: str, tower: PreTrainedModel, pooled: str) -> TowerInfo:
    blocks = tuple(f"{name}.{block}" for block in block_paths(tower))
    return TowerInfo(name, path, tokens.modality_of(tower), blocks, sum(parameter.numel() for parameter in tower.parameters()), pooled)


def linear_ends(layer: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear layer."""
    first, second = cast("Tensor", layer.weight).shape
    return (second, first) if isinstance(layer, nn.Linear) else (first, second)


def _unwrapped(path: str, wrapped: Sequence[str]) -> str:
    for base in wrapped:
        if path.startswith(base):
            return base.removesuffix("base_layer.") + path.removeprefix(base)
    return path


def _renamed(path: str, prefixes: Mapping[str, str], longest: Sequence[str]) -> str:
    for prefix in longest:
        if path == prefix or path.startswith(f"{prefix}."):
            return prefixes[prefix] + path.removeprefix(prefix)
    return path


# --------------------------------------------------------------------------------------------------------------- blocks


def block_paths(tower: nn.Module) -> list[str]:
    """Paths of a tower's blocks in call order; empty where it has no chain of them.

    Transformers says which class gives the hidden states; where it does not, the chain (ModuleList or Sequential) that holds
    most parameters. A block that is itself mostly a chain of blocks (a stage) is opened.
    """
    stated = list(_stated(tower))
    if stated:
        return [path for block in stated for path in _opened(tower, block)]
    chains = [(path, inner) for path, inner in tower.named_modules() if isinstance(inner, nn.ModuleList | nn.Sequential) and len(inner) > 1]
    if not chains:
        return []
    path, chain = max(chains, key=lambda found: _size(found[1]))
    return [inner for place in range(len(chain)) for inner in _opened(tower, f"{path}.{place}" if path else str(place))]


def linear_targets(tower: nn.Module) -> list[str]:
    """Paths of the linear layers inside a tower's blocks (all of them, if it has no blocks): what LoRA is put into."""
    blocks = block_paths(tower)
    linear = [path for path, module in tower.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    return [path for path in linear if not blocks or any(path.startswith(f"{block}.") for block in blocks)]


def _stated(tower: nn.Module) -> Iterator[str]:
    recorded: Mapping[str, Any] = tower.can_record_outputs if isinstance(tower, PreTrainedModel) else {}
    kinds = recorded.get("hidden_states", ())
    for path, module in tower.named_modules():
        if path and any(_is_kind(path, module, kind) for kind in (kinds if isinstance(kinds, list | tuple) else (kinds,))):
            yield path


def _is_kind(path: str, module: nn.Module, kind: Any) -> bool:
    if isinstance(kind, type):
        return isinstance(module, kind)
    target, layer = vars(kind)["target_class"], vars(kind)["layer_name"]
    return isinstance(module, target) and (layer is None or layer in path)


def _opened(tower: nn.Module, path: str) -> list[str]:
    """A stage's blocks, or the block itself. Opened once only: what lies inside a stage's block may be bridged by its skip."""
    block = tower.get_submodule(path)
    for inner, chain in block.named_children():
        if not isinstance(chain, nn.ModuleList | nn.Sequential) or 2 * _size(chain) <= _size(block):
            continue
        links = list(cast("nn.Sequential", chain))
        if all(any(link.children()) for link in links) and len({type(link) for link in links}) == 1:
            return [f"{path}.{inner}.{place}" for place in range(len(links))]
    return [path]


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# --------------------------------------------------------------------------------------------------------------- unused


def unused(family: Family | Any, batch: Batch) -> list[str]:
    """Public names of the parameters that no gradient of any output reaches in one forward and backward over `batch`.

    The family stays as it was: its modes, what requires a gradient, and `.grad` too.
    """
    module = cast("nn.Module", family)
    names = find(family).names
    frozen = [parameter for parameter in module.parameters() if not parameter.requires_grad and parameter.is_floating_point()]
    training = [inner for inner in module.modules() if inner.training]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        module.eval()
        with torch.enable_grad():
            silent = tokens.unreached(module, _total(family(batch)))
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for inner in training:
            inner.training = True
    return [names[path] for path in silent]


def _total(outputs: Any) -> Tensor:
    given = [*outputs.logits.values(), *outputs.embeddings.values(), *outputs.scalars.values()]
    return cast("Tensor", sum(tensor.float().sum() for tensor in given if isinstance(tensor, Tensor)))
