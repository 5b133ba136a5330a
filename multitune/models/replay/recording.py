"""Running a family while watching what its modules give, and encoding rows under a cut in groups that keep a row's bits its own."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Collection, Generator, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from multitune.core.protocols import Batch
from multitune.models.predictor import GROUP_ROWS, moved
from multitune.models.replay.modes import as_it_was, seeded
from multitune.models.replay.trees import Shape, Tree, flatten

if TYPE_CHECKING:
    from multitune.models.replay.cuts import Seam

Row = Mapping[str, Any]


class _ReachedError(Exception):
    """The cut was reached; what lies above it need not run."""


@dataclass(frozen=True)
class Stored:
    """What one row leaves at a cut.

    tensors: this row's share of each tensor of the cut's tree that is read; an empty one for what is shared or not read. shapes: of every
    tensor of the tree. below: path of a module that only feeds the cut -> the shapes of what it gave for this row.
    """

    tensors: tuple[Tensor, ...]
    shapes: tuple[Shape, ...]
    below: Mapping[str, tuple[Shape, ...]] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensors that are kept."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)


@dataclass
class Watched:
    """What was seen in one forward: trees and number of calls by module path, and what had ended before the cut's module began.

    before: paths of the modules that had run before the cut's module began.
    """

    trees: dict[str, Tree] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    before: list[str] = field(default_factory=list)


@contextmanager
def watching(family: nn.Module, cut: str) -> Generator[Watched]:
    """Keep what the module at `cut` gives in the forward run inside, and what the modules beside it and beside those around it give."""
    around = {".".join(cut.split(".")[:depth]) for depth in range(cut.count(".") + 1)}
    beside = [path for path, _ in family.named_modules() if path and path not in around and path.rpartition(".")[0] in around]
    watched = Watched()

    def begins() -> None:
        watched.before = [*watched.trees]

    def ends(path: str, output: Any) -> None:
        watched.calls[path] += 1
        tree = Tree.of(output)
        watched.trees[path] = tree.copied() if path == cut else tree  # what lies above the cut may write into it

    with ExitStack() as hooks:
        hooks.callback(family.get_submodule(cut).register_forward_pre_hook(lambda *_: begins()).remove)
        for path in beside:
            hook = family.get_submodule(path).register_forward_hook(lambda *given, path=path: ends(path, given[-1]))
            hooks.callback(hook.remove)
        yield watched


def device_of(family: nn.Module) -> torch.device:
    """Where the family's parameters are."""
    return next((parameter.device for parameter in family.parameters()), torch.device("cpu"))


def collated(family: Any, rows: Sequence[Row]) -> Batch:
    """A batch of prepared rows, on the family's device."""
    return moved(family.preparer.collate(rows), device_of(family))


def encode_rows(family: Any, seam: Seam, rows: Sequence[Row], *, group_rows: int = GROUP_ROWS) -> list[Stored | None]:
    """What each prepared row leaves at a cut, in the order of the rows; None where the cut's module has nothing to do for it.

    Rows run in groups of `group_rows` that pad each other in no way; the last group of a shape is filled by repetition. So a row's bits
    depend on the row alone. The family runs in eval mode up to the cut and no further, and stays as it was.
    """
    (made,) = encode_at(family, [seam], rows, group_rows=group_rows)
    return made


@torch.no_grad()
def encode_at(family: Any, seams: Sequence[Seam], rows: Sequence[Row], *, group_rows: int = GROUP_ROWS) -> tuple[list[Stored | None], ...]:
    """What `encode_rows` gives at each of several cuts, to the same bits, from one forward up to the last of them."""
    made: list[dict[int, Stored | None]] = [{} for _ in seams]
    waiting: dict[Hashable, list[int]] = {}

    def encode(group: Sequence[int]) -> None:
        for known, found in zip(made, _encoded(family, seams, rows, group, group_rows), strict=True):
            known.update(found)

    with as_it_was(family), seeded("encode"):
        family.eval()
        for place, row in enumerate(rows):
            group = waiting.setdefault(family.preparer.bucket(row), [])
            group.append(place)
            if len(group) == group_rows:
                encode(group)
                group.clear()
        for group in waiting.values():
            if group:
                encode(group)
    return tuple([known[place] for place in range(len(rows))] for known in made)


def _encoded(
    family: Any, seams: Sequence[Seam], rows: Sequence[Row], group: Sequence[int], count: int
) -> Iterator[dict[int, Stored | None]]:
    """What a group of rows of one shape leaves at each cut, by place."""
    batch = collated(family, [rows[place] for place in (*group, *[group[-1]] * (count - len(group)))])
    with passing(family, set.intersection(*(set(seam.idle) for seam in seams))):
        trees = reached(family, [seam.cut.path for seam in seams], {path for seam in seams for path in seam.below}, batch)
    for seam in seams:
        if seam.cut.path not in trees:
            yield dict.fromkeys(group)
            continue
        whole = seam.layout.split(trees[seam.cut.path].tensors, count)
        below = {path: layout.split(trees[path].tensors, count) for path, layout in seam.below.items()}
        yield {
            place: stored(seam, whole[at], {path: tuple(tuple(t.shape) for t in split[at]) for path, split in below.items()})
            for at, place in enumerate(group)
        }


def stored(seam: Seam, tensors: Sequence[Tensor], below: Mapping[str, tuple[Shape, ...]]) -> Stored:
    """A row's share of a cut's tree, with memory of its own."""
    kept = [
        tensor.detach().clone() if leaf.read and leaf.kind != "shared" else tensor.new_empty(0)
        for tensor, leaf in zip(tensors, seam.layout.leaves, strict=True)
    ]
    return Stored(tuple(kept), tuple(tuple(tensor.shape) for tensor in tensors), below)


@contextmanager
def passing(family: nn.Module, paths: Collection[str]) -> Generator[None]:
    """Inside, these modules do not run: each gives NaN in the shape of the first tensor that it is given."""

    with ExitStack() as stack:
        for path in paths:
            like = giving(family.get_submodule(path), lambda *given: torch.full_like(flatten([*given])[1][0], torch.nan))
            stack.enter_context(like)
        yield


@contextmanager
def giving(module: nn.Module, give: Callable[[tuple[Any, ...], Mapping[str, Any]], Any]) -> Generator[None]:
    """Inside, the module's forward gives what `give` makes of its arguments, by place and by name; its signature stays."""
    own = vars(module).get("forward")
    module.forward = functools.wraps(module.forward)(lambda *args, **more: give(args, more))
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def reached(family: nn.Module, paths: Collection[str], below: Collection[str], batch: Batch) -> dict[str, Tree]:
    """Run a family until all the modules at `paths` have run: the trees of those that did, and of the modules at `below`."""
    trees: dict[str, Tree] = {}
    cuts = set(paths)
    waiting = set(cuts)

    def keep(name: str, output: Any) -> None:
        tree = Tree.of(output)
        waiting.discard(name)
        trees[name] = tree.copied() if waiting and name in cuts else tree  # what runs on may write into it
        if not waiting:
            raise _ReachedError

    with ExitStack() as hooks:
        for name in {*below, *cuts}:
            hook = family.get_submodule(name).register_forward_hook(lambda *given, name=name: keep(name, given[-1]))
            hooks.callback(hook.remove)
        with suppress(_ReachedError):
            family(batch)
    return trees
