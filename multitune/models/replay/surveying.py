"""What replay must know of a cut: how its tree lies over rows, and which modules, inputs and tensors of it are read by nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from multitune.core.protocols import Batch
from multitune.models.replay.cuts import Cut, Seam
from multitune.models.replay.idling import idle
from multitune.models.replay.modes import seeded
from multitune.models.replay.recording import Watched, giving, stored
from multitune.models.replay.replaying import blanked, emptied, replay
from multitune.models.replay.trees import Layout, Unlike, classify, flatten, rebuilt

ERRORS = (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError, AssertionError)


def survey(family: Any, cut: Cut, alone: Sequence[Watched], joined: Watched, batches: Sequence[Batch], together: Batch) -> Seam:
    """The seam of a cut, from what was seen of rows alone and joined.

    Raises: Unlike if what the cut's module gives cannot be taken apart by rows.
    """
    layout = classify([watched.trees[cut.path] for watched in alone], joined.trees[cut.path])
    longest = max(range(len(alone)), key=lambda row: sum(tensor.numel() for tensor in alone[row].trees[cut.path].tensors))
    shapes = alone[longest].trees[cut.path].shapes
    seam = Seam(cut, layout, shapes, _below(cut, alone, joined))
    read = _read(family, seam, alone[longest], batches[longest])
    leaves = tuple(
        replace(leaf, read=place in read.tensors or not leaf.dtype.is_floating_point) for place, leaf in enumerate(layout.leaves)
    )
    below = {path: inner for path, inner in seam.below.items() if path not in read.modules}
    inputs = [(part, name) for part, names in together.inputs.items() for name in names]
    seam = Seam(cut, replace(layout, leaves=leaves), shapes, below)
    seam = replace(seam, idle=idle(family, seam, batches[longest]))
    return _with_silent_inputs(family, seam, alone, together, [at for at in inputs if at not in read.inputs])


def _below(cut: Cut, alone: Sequence[Watched], joined: Watched) -> dict[str, Layout]:
    """The modules that end before the cut's begins, each called once, with the layouts of what they give."""
    found: dict[str, Layout] = {}
    for path in joined.before:
        if all(watched.calls[path] == 1 and path in watched.trees for watched in (*alone, joined)):
            try:
                found[path] = classify([watched.trees[path] for watched in alone], joined.trees[path])
            except Unlike:
                continue  # it is run, on NaN
    return found


class _Read:
    """What something above the cut reads: places in the cut's tree, paths of modules below it, inputs of the batch."""

    def __init__(self) -> None:
        self.tensors: set[int] = set()
        self.modules: set[str] = set()
        self.inputs: set[tuple[str, str]] = set()


def _read(family: Any, seam: Seam, watched: Watched, batch: Batch) -> _Read:
    """One run of a row with the cut's tree put in: what the outputs' gradient reaches is read.

    What is read on a way without a gradient stays unseen here; NaN in its place finds it out in the proof.
    """
    leaves: dict[Any, Tensor] = {}
    tree = watched.trees[seam.cut.path]

    def tracked(kind: str, at: Any, tensors: Sequence[Tensor]) -> list[Tensor]:
        made: list[Tensor] = []
        for place, tensor in enumerate(tensors):
            if tensor.is_floating_point():
                leaf = tensor if tensor.requires_grad else tensor.detach().clone().requires_grad_()
                leaves[kind, at, place] = leaf
                made.append(leaf if tensor.requires_grad else leaf.clone())
            else:
                made.append(tensor)
        return made

    def put_in(kind: str, at: Any, template: Any, tensors: Sequence[Tensor]) -> Any:
        return rebuilt(template, tracked(kind, at, tensors))

    inputs = {part: {name: tracked("input", (part, name), [t])[0] for name, t in names.items()} for part, names in batch.inputs.items()}
    with ExitStack() as stack, torch.enable_grad(), seeded("survey"):
        stack.enter_context(giving(family.get_submodule(seam.cut.path), lambda *_: put_in("tensor", 0, tree.template, tree.tensors)))
        for path in seam.below:
            hook = family.get_submodule(path).register_forward_hook(lambda *given, path=path: put_in("module", path, *flatten(given[-1])))
            stack.callback(hook.remove)
        outputs = family(replace(batch, inputs=inputs))
        total = [value.float().sum() for values in vars(outputs).values() for value in values.values() if value.requires_grad]
        found = torch.autograd.grad(torch.stack(total).sum(), [*leaves.values()], allow_unused=True) if total else [None] * len(leaves)
    read = _Read()
    for (kind, at, place), gradient in zip(leaves, found, strict=True):
        if gradient is not None:
            _note(read, kind, at, place)
    return read


def _note(read: _Read, kind: str, at: Any, place: int) -> None:
    if kind == "tensor":
        read.tensors.add(place)
    elif kind == "module":
        read.modules.add(at)
    else:
        read.inputs.add(at)


@torch.no_grad()
def _with_silent_inputs(family: Any, seam: Seam, alone: Sequence[Watched], batch: Batch, inputs: Sequence[tuple[str, str]]) -> Seam:
    """The seam with those of the inputs that only feed it: whatever they are, the outputs under replay are the same."""
    rows = [stored(seam, seen.trees[seam.cut.path].tensors, {path: seen.trees[path].shapes for path in seam.below}) for seen in alone]

    def outputs(given: Mapping[tuple[str, str], Tensor]) -> list[Tensor] | None:
        changed = {part: {name: given.get((part, name), tensor) for name, tensor in names.items()} for part, names in batch.inputs.items()}
        with replay(family, seam, rows), seeded("survey"):
            try:
                made = family(blanked(replace(batch, inputs=changed), seam))
            except ERRORS:
                return None
        return [value for values in vars(made).values() for value in values.values()]

    usual = outputs({})
    silent: list[tuple[str, str]] = []
    for part, name in inputs if usual is not None else ():
        tensor = batch.inputs[part].get(name)
        others = [] if tensor is None else [emptied(tensor), *([] if tensor.is_floating_point() else [torch.ones_like(tensor)])]
        found = [outputs({(part, name): other}) for other in others]
        if others and all(made is not None and all(map(torch.equal, made, usual or ())) for made in found):
            silent.append((part, name))
    return replace(seam, blank=(*seam.blank, *silent))
