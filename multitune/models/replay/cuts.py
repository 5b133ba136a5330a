"""Where a family can be cut: towers and blocks under which nothing moves and nothing is random, found by running it."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from multitune.core.protocols import Batch
from multitune.models.anatomy import Anatomy, TowerInfo
from multitune.models.replay.modes import as_it_was, seeded, set_modes, take_gradients
from multitune.models.replay.recording import Row, collated
from multitune.models.replay.trees import Layout, Shape, flatten

BatchNorm = Literal["eval", "moving"]
POOLED = "pooled"  # what a cut at a tower's vector is called by, after the tower: image.pooled


@dataclass(frozen=True)
class Cut:
    """A module under which nothing moves. path: inside the family. name: public, a tower's name or a block's path. tower: its tower.

    over: the path of a module that this one runs without holding it (its tower, where it gives the tower's vector); else empty.
    """

    path: str
    name: str
    tower: str
    over: str = ""

    @property
    def root(self) -> str:
        """The path of the module that holds what lies under the cut."""
        return self.over or self.path


@dataclass(frozen=True)
class Seam:
    """A cut with what was found of it by running.

    layout: of what its module gives; shapes: for one row. below: modules that only feed it (they are not run), with the layouts of what
    they give. blank: (part, name) of the batch's inputs that only feed it. idle: modules under it that nothing read of it depends on.
    """

    cut: Cut
    layout: Layout
    shapes: tuple[Shape, ...]
    below: Mapping[str, Layout] = field(default_factory=dict)
    blank: tuple[tuple[str, str], ...] = ()
    idle: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """A tower or block that is no cut, and why."""

    cut: Cut
    reason: str


@dataclass(frozen=True)
class Candidates:
    """cuts: the highest of a tower first, in the order of the towers. refused: towers and blocks that are none.

    num_bytes: of all that a cut's module gave for the row that was run, by path.
    """

    cuts: tuple[Cut, ...]
    refused: tuple[Refusal, ...]
    num_bytes: Mapping[str, int] = field(default_factory=dict)

    def highest(self) -> dict[str, Cut]:
        """Tower -> its highest cut."""
        found: dict[str, Cut] = {}
        for cut in self.cuts:
            found.setdefault(cut.tower, cut)
        return found


def places(anatomy: Anatomy) -> list[Cut]:
    """Every tower, what gives its vector where that is all that is read of it, and every block: the highest first."""
    return [cut for tower in anatomy.towers for cut in _places(tower)]


def _places(tower: TowerInfo) -> Iterator[Cut]:
    if tower.pooled:
        yield Cut(tower.pooled, f"{tower.name}.{POOLED}", tower.name, tower.path)
    yield Cut(tower.path, tower.name, tower.name)
    for block in reversed(tower.blocks):
        yield Cut(f"{tower.path}{block.removeprefix(tower.name)}", block, tower.name)


def could_be(anatomy: Anatomy, moving: Collection[str]) -> list[Cut]:
    """The towers and blocks in which nothing moves, as far as names tell."""
    names = set(moving)
    paths = [path for path, name in anatomy.names.items() if name in names]
    return [cut for cut in places(anatomy) if not any(path.startswith(f"{cut.root}.") for path in paths)]


def candidates(
    family: Any, anatomy: Anatomy, moving: Collection[str], *, row: Row, batch_norm: BatchNorm = "eval", kept: bool = True
) -> Candidates:
    """Every tower, vector and block boundary under which nothing moves and nothing is random, found by running one prepared row.

    moving: public names of the tensors that move at some step. The family runs in the modes that training has, and stays as it was.
    Buffers that a forward changes move too. kept: false on the meta device, where equal numbers say nothing: what draws is random.
    """
    batch = collated(family, [row])
    paths = {path for path, name in anatomy.names.items() if name in set(moving)}
    asked = places(anatomy)
    with as_it_was(family):
        take_gradients(family, paths)
        set_modes(family, still=batch_norm == "eval")
        seen = _run(family, batch, asked, anatomy, seed=0)
        again = _run(family, batch, asked, anatomy, seed=1, adversary=True) if kept and any(look.drew for look in seen.values()) else {}
    reasons = {cut: _reason(family, cut, paths, seen.get(cut.path), again.get(cut.path)) for cut in asked}
    return Candidates(
        tuple(cut for cut, reason in reasons.items() if not reason),
        tuple(Refusal(cut, reason) for cut, reason in reasons.items() if reason),
        {path: sum(tensor.numel() * tensor.element_size() for tensor in look.tensors) for path, look in seen.items()},
    )


@dataclass
class _Look:
    """What was seen of one place in a run: how often it was called, and what had happened in its tower when it ended."""

    calls: int = 0
    tensors: list[Tensor] = field(default_factory=list)
    grows: bool = False
    drew: bool = False
    changed: str = ""


def _reason(family: nn.Module, cut: Cut, moving: Collection[str], look: _Look | None, again: _Look | None) -> str:
    inside = sum(path.startswith(f"{cut.root}.") for path in moving)
    if look is None or look.calls != 1:
        return f"is called {look.calls if look else 0} times in a forward"
    if inside:
        return f"{inside} tensors inside move"
    if look.grows:
        return "tensors that move lie under it"
    if look.changed:
        return f"the buffer {look.changed} under it moves"
    if not look.tensors:
        return "gives no tensor"
    if not look.drew:
        return ""
    same = again is not None and len(again.tensors) == len(look.tensors) and all(map(_same, look.tensors, again.tensors))
    return "" if same else "something under it is random"


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(torch.equal(one.nan_to_num(), other.nan_to_num()))


class _Lowest(TorchFunctionMode):
    """`torch.rand` gives zeros: what is left out with any probability is left out."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        return made.zero_() if func is torch.rand else made


def _run(family: Any, batch: Batch, asked: Sequence[Cut], anatomy: Anatomy, *, seed: int, adversary: bool = False) -> dict[str, _Look]:
    """One forward; a look at each place by its path."""
    towers = {tower.name: tower.path for tower in anatomy.towers}
    looks: dict[str, _Look] = {}
    started: dict[str, tuple[Any, dict[str, tuple[int, int]]]] = {}

    def begins(path: str) -> None:
        started.setdefault(path, (_drawn(), _buffers(family.get_submodule(path))))

    def ends(cut: Cut, output: Any) -> None:
        look = looks.setdefault(cut.path, _Look())
        look.calls += 1
        tensors = flatten(output)[1]
        look.tensors = [tensor.detach().clone() for tensor in tensors]
        look.grows = any(tensor.requires_grad for tensor in tensors)
        state, buffers = started[towers[cut.tower]]
        look.drew = _drawn() != state
        after = _buffers(family.get_submodule(towers[cut.tower]))
        look.changed = next((name for name, version in after.items() if buffers.get(name) != version), "")

    with ExitStack() as stack:
        for path in towers.values():
            stack.callback(family.get_submodule(path).register_forward_pre_hook(lambda *_, path=path: begins(path)).remove)
        for cut in asked:
            hook = family.get_submodule(cut.path).register_forward_hook(lambda *given, cut=cut: ends(cut, given[-1]))
            stack.callback(hook.remove)
        stack.enter_context(seeded("candidates", seed))
        stack.enter_context(torch.enable_grad())
        if adversary:
            stack.enter_context(_Lowest())
        family(batch)
    return looks


def _drawn() -> tuple[bytes, Any, Any]:
    """The state of every generator that a model may draw from."""
    legacy = cast("tuple[Any, ...]", np.random.get_state())
    return torch.default_generator.get_state().numpy().tobytes(), (legacy[1].tobytes(), *legacy[2:]), random.getstate()


def _buffers(module: nn.Module) -> dict[str, tuple[int, int]]:
    """Which tensor each buffer is, and how often it was written."""
    return {name: (id(tensor), tensor._version) for name, tensor in module.named_buffers()}
