"""What the key of a cut's features covers beside a row's content: all that could change one bit of them."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from multitune.core import store
from multitune.models.contract import LIBRARIES
from multitune.models.predictor import GROUP_ROWS
from multitune.models.replay import Seam
from multitune.models.replay.modes import as_it_was, seeded
from multitune.models.replay.recording import Row, collated, device_of
from multitune.models.replay.trees import Layout, Node, Slot, flatten

ROOM = Path(__file__).resolve().parents[1]
VIEW = "none"  # no augmentation
KNOWN = ("builtins", "multitune", "torch", "transformers")  # packages whose code or version is in every key
UNREAD = frozenset(
    ("_name_or_path", "architectures", "dtype", "id2label", "label2id", "problem_type", "return_dict", "transformers_version", "use_cache")
)


@dataclass(frozen=True)
class Asked:
    """What a run says of its features. type: that of the numbers on disk. threads: compute threads."""

    type: str
    threads: int


def key_parts(
    family: Any, seam: Seam, *, preparing: Mapping[str, Any], row: Row, asked: Asked, plugins: Mapping[str, str]
) -> dict[str, Any]:
    """The parts of a space's key, for `core.store.key`.

    preparing: what decides how the part is prepared. row: to run up to the cut. plugins: foreign code that prepares it.
    """
    return {
        "form": 1,
        "cut": seam.cut.path,
        "seam": _seam(seam),
        "pool": _pool(family, seam),
        "weights": weights_under(family, seam.cut.path, row, tower=seam.cut.over),
        "preparing": dict(preparing),
        "view": VIEW,
        "type": asked.type,
        "group_rows": GROUP_ROWS,
        "attention": _attention(family),
        "threads": asked.threads,
        "device": device_of(family).type,
        "matmul": torch.get_float32_matmul_precision(),
        "versions": {name: metadata.version(name) for name in ("torch", *LIBRARIES)},
        "plugins": dict(plugins),
        "code": code_hash(),
    }


def weights_under(family: nn.Module, path: str, row: Row, *, tower: str = "") -> str:
    """The sha256 (hex) of every parameter, buffer and setting that a cut's module depends on, found by running a row up to it.

    tower: the path of the one that it runs, if it does not hold it. Those of modules that begin before the cut's ends; a tower beside it,
    of which no gradient of the cut's output is, is left out.
    """
    begun: list[str] = []
    outputs: list[Tensor] = []
    with as_it_was(family), seeded("keys"), ExitStack() as hooks, torch.enable_grad():
        family.eval()
        named = [(name, parameter) for name, parameter in family.named_parameters() if parameter.is_floating_point()]
        for _, parameter in named:
            parameter.requires_grad_(True)
        for name, module in family.named_modules():
            hooks.callback(module.register_forward_pre_hook(lambda *_, name=name: begun.append(name)).remove)
        hooks.callback(family.get_submodule(path).register_forward_hook(lambda *given: _ended(outputs, given[-1])).remove)
        with suppress(_EndedError):
            family(collated(family, [row]))
        total = [tensor.double().sum() for tensor in outputs if tensor.requires_grad]
        found = torch.autograd.grad(torch.stack(total).sum(), [p for _, p in named], allow_unused=True) if total else [None] * len(named)
    fed = {name for (name, _), gradient in zip(named, found, strict=True) if gradient is not None}
    aside = [name for name in _beside(tower or _tower(family, path), begun) if _parameters(family, name) and not _feeds(name, fed)]
    under = {name for name in begun if not any(f"{name}.".startswith(f"{tower}.") for tower in aside)}
    digest = hashlib.sha256()
    for name, tensor in sorted(_tensors(family), key=lambda pair: pair[0]):
        if name.rpartition(".")[0] in under or name in fed:
            digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    digest.update(store.canonical(_settings([family.get_submodule(name) for name in sorted(under)])).encode())
    return digest.hexdigest()


def foreign(things: Iterable[object]) -> dict[str, str]:
    """The code of plug-ins among these, module name -> sha256 (hex) of its file; of ours and of the libraries `versions` tells."""
    files = {type(one).__module__: sys.modules.get(type(one).__module__) for one in things}
    places = {name: vars(module).get("__file__") for name, module in files.items() if module is not None}
    return {name: store.hash_file(Path(place)) for name, place in sorted(places.items()) if place and name.partition(".")[0] not in KNOWN}


def _settings(modules: Sequence[nn.Module]) -> list[Any]:
    """What the configs of modules say beside their weights (an activation, a number of heads, an epsilon), and foreign code of theirs."""
    configs = {id(config): config for module in modules if isinstance(config := vars(module).get("config"), PreTrainedConfig)}
    return [*(_stated(config.to_dict()) for config in configs.values()), foreign(modules)]


def _stated(value: Any) -> Any:
    """Settings as plain data, without those that change no value in eval mode."""
    if isinstance(value, Mapping):
        named = {str(name): inner for name, inner in cast("Mapping[Any, Any]", value).items()}
        return {name: _stated(inner) for name, inner in named.items() if name not in UNREAD and "drop" not in name}
    if isinstance(value, list | tuple):
        return [_stated(inner) for inner in cast("Sequence[Any]", value)]
    return value if isinstance(value, str | int | bool | None) else str(value)


class _EndedError(Exception):
    """The cut's module has ended."""


def _ended(outputs: list[Tensor], given: Any) -> None:
    outputs += flatten(given)[1]
    raise _EndedError


def _tower(family: Any, path: str) -> str:
    """The path of the tower that a cut is in; the cut's own where it is in none."""
    paths = {id(module): name for name, module in family.named_modules()}
    towers = [paths.get(id(tower), "") for tower in family.towers.values()]
    return next((tower for tower in towers if f"{path}.".startswith(f"{tower}.")), path)


def _beside(tower: str, begun: list[str]) -> set[str]:
    """The modules that lie beside a tower and beside those around it."""
    steps = tower.split(".")
    own = {".".join(steps[:depth]) for depth in range(len(steps) + 1)}
    around = own - {tower}
    return {name for name in begun if name and name.rpartition(".")[0] in around and name not in own}


def _feeds(name: str, fed: Collection[str]) -> bool:
    return any(parameter.startswith(f"{name}.") for parameter in fed)


def _parameters(family: nn.Module, name: str) -> bool:
    return next(family.get_submodule(name).parameters(), None) is not None


def _tensors(family: nn.Module) -> list[tuple[str, Tensor]]:
    return [*family.named_parameters(), *((f"{name}", buffer) for name, buffer in family.named_buffers())]


def _pool(family: Any, seam: Seam) -> str:
    """How a tower's vector is taken, where the cut is that."""
    return str(family.pooling[seam.cut.tower].pool) if seam.cut.over else ""


def _attention(family: Any) -> dict[str, str]:
    return {name: str(vars(tower.config).get("_attn_implementation_internal")) for name, tower in sorted(family.towers.items())}


def _seam(seam: Seam) -> Any:
    below = {path: _layout(layout) for path, layout in sorted(seam.below.items())}
    return {"tree": _layout(seam.layout), "below": below, "blank": sorted(map(list, seam.blank))}


def _layout(layout: Layout) -> Any:
    leaves = [[leaf.kind, leaf.axis, list(leaf.at_start), list(leaf.order), str(leaf.dtype), leaf.read] for leaf in layout.leaves]
    return {"template": _template(layout.template), "leaves": leaves}


def _template(value: Any) -> Any:
    if isinstance(value, Slot):
        return value.place
    if isinstance(value, Node):
        return [value.kind.__qualname__, list(value.keys or ()), [_template(child) for child in value.children]]
    return str(value)


@functools.cache
def code_hash() -> str:
    """The sha256 over the code that decides what features are: the rooms of the models and of the data."""
    files = [path for room in (ROOM, ROOM.parent / "data") for path in sorted(room.rglob("*.py"))]
    return store.key({path.relative_to(ROOM.parent).as_posix(): store.hash_file(path) for path in files})
