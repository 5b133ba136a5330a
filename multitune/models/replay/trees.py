"""What a module gives, as a tree of tensors, and how each tensor lies over the rows of a batch.

A tensor is laid along one axis, a row after the other: one place a row (`row`), or as many as the row has tokens (`token`: the
offsets are the sums of the rows' counts); its other axes are padded to the longest row. What has no such axis is `shared`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor

Kind = Literal["row", "token", "shared"]
Shape = tuple[int, ...]
_PLAIN = (bool, int, float, str, torch.dtype, torch.device)


class Unlike(ValueError):
    """A tree that cannot be taken apart by rows; its text says why."""


@dataclass(frozen=True)
class Slot:
    """The place of a tensor among those of its tree."""

    place: int


@dataclass(frozen=True)
class Node:
    """A mapping (with keys) or a sequence in a tree; what is no tensor, no container and no plain value is None."""

    kind: Any
    keys: tuple[str, ...] | None
    children: tuple[Any, ...]


def flatten(value: Any) -> tuple[Any, list[Tensor]]:
    """A template of nodes, slots and plain values, and the tensors of its slots."""
    tensors: list[Tensor] = []

    def walk(inner: Any) -> Any:
        if isinstance(inner, Tensor):
            tensors.append(inner)
            return Slot(len(tensors) - 1)
        if isinstance(inner, Mapping):
            named = cast("Mapping[str, Any]", inner)
            return Node(type(inner), tuple(named), tuple(walk(child) for child in named.values()))
        if isinstance(inner, tuple | list):
            return Node(type(inner), None, tuple(walk(child) for child in cast("Sequence[Any]", inner)))
        return inner if isinstance(inner, _PLAIN) else None

    return walk(value), tensors


def rebuilt(template: Any, tensors: Sequence[Tensor]) -> Any:
    """The tree that `flatten` took apart, with these tensors."""
    if isinstance(template, Slot):
        return tensors[template.place]
    if not isinstance(template, Node):
        return template
    children = [rebuilt(child, tensors) for child in template.children]
    if template.keys is None:
        return template.kind(*children) if hasattr(template.kind, "_fields") else template.kind(children)
    named = dict(zip(template.keys, children, strict=True))
    return named if template.kind is dict else template.kind(**named)


@dataclass(frozen=True)
class Leaf:
    """How one tensor lies over rows.

    axis: along which rows follow each other. at_start: axes that are padded at their start; the others are padded at their end.
    order: its axes from the slowest to the fastest in memory, which decides the kernels that read it. read: whether anything above
    reads it; what nothing reads is not kept.
    """

    kind: Kind
    axis: int
    at_start: tuple[int, ...]
    order: tuple[int, ...]
    dtype: torch.dtype
    read: bool = True


@dataclass(frozen=True)
class Layout:
    """A module's tree: its template, and how each of its tensors lies over rows."""

    template: Any
    leaves: tuple[Leaf, ...]

    def split(self, tensors: Sequence[Tensor], count: int) -> list[list[Tensor]]:
        """The tensors of each of `count` rows of one size; a shared tensor is every row's.

        Raises: Unlike if a tensor's places are no multiple of the rows.
        """
        pieces = [_chunks(tensor, leaf, count) for tensor, leaf in zip(tensors, self.leaves, strict=True)]
        return [[piece[row] for piece in pieces] for row in range(count)]

    def joined(self, rows: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """The tensors of a batch of these rows: one after the other, padded with zeros to the longest."""
        return [join([row[place] for row in rows], leaf) for place, leaf in enumerate(self.leaves)]

    def joined_shapes(self, rows: Sequence[Sequence[Shape]]) -> list[Shape]:
        """The shapes of what `joined` would give."""
        return [joined_shape([row[place] for row in rows], leaf) for place, leaf in enumerate(self.leaves)]


@dataclass(frozen=True)
class Tree:
    """One run of a module: the template of what it gave, and its tensors."""

    template: Any
    tensors: tuple[Tensor, ...] = field(repr=False)

    @classmethod
    def of(cls, value: Any) -> Tree:
        """A module's output, detached."""
        template, tensors = flatten(value)
        return cls(template, tuple(tensor.detach() for tensor in tensors))

    def copied(self) -> Tree:
        """The same with memory of its own."""
        return Tree(self.template, tuple(tensor.clone() for tensor in self.tensors))

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shape of each tensor."""
        return tuple(tuple(tensor.shape) for tensor in self.tensors)


def classify(alone: Sequence[Tree], together: Tree) -> Layout:
    """The layout of a module, from its trees for rows of different sizes alone and for a batch of all of them.

    Raises: Unlike with the reason why there is none.
    """
    if any(tree.template != together.template for tree in alone):
        raise Unlike("gives another tree for other rows")
    places = range(len(together.tensors))
    return Layout(together.template, tuple(_leaf([tree.tensors[p] for tree in alone], together.tensors[p]) for p in places))


def _leaf(alone: Sequence[Tensor], together: Tensor) -> Leaf:
    shapes, whole = [tuple(tensor.shape) for tensor in alone], tuple(together.shape)
    if any(len(shape) != len(whole) for shape in shapes):
        raise Unlike(f"gives a tensor of {len(whole)} axes for a batch, of {len(shapes[0])} for a row")
    longest = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
    order = tuple(sorted(range(len(whole)), key=lambda axis: (-together.stride(axis), axis)))
    for axis in range(len(whole)):
        counts = [shape[axis] for shape in shapes]
        if whole == (*longest[:axis], sum(counts), *longest[axis + 1 :]) and len(counts) > 1:
            kind: Kind = "row" if set(counts) == {1} else "token"
            leaf = Leaf(kind, axis, (), order, together.dtype)
            return Leaf(kind, axis, _padded_at_start(alone, together, leaf), order, together.dtype)
    if whole == longest:
        return Leaf("shared", 0, (), order, together.dtype)
    raise Unlike(f"gives {list(whole)} for a batch of rows that give {', '.join(str(list(shape)) for shape in shapes)} alone")


def _padded_at_start(alone: Sequence[Tensor], together: Tensor, leaf: Leaf) -> tuple[int, ...]:
    """The axes along which the rows alone are found at the end of their place in the batch, not at its start."""
    if together.is_meta:
        return ()
    found: list[int] = []
    for axis in range(together.dim()):
        if axis == leaf.axis or all(tensor.shape[axis] == together.shape[axis] for tensor in alone):
            continue
        offset, missed = 0, [0.0, 0.0]
        for tensor in alone:
            place = together.narrow(leaf.axis, offset, tensor.shape[leaf.axis])
            offset += tensor.shape[leaf.axis]
            for other in range(together.dim()):
                if other not in (axis, leaf.axis):
                    place = place.narrow(other, 0, min(tensor.shape[other], place.shape[other]))
            length = tensor.shape[axis]
            missed[0] += _apart(place.narrow(axis, 0, length), tensor)
            missed[1] += _apart(place.narrow(axis, place.shape[axis] - length, length), tensor)
        if missed[1] < missed[0]:
            found.append(axis)
    return tuple(found)


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).nan_to_num().abs().mean()) if one.numel() else 0.0


def _chunks(tensor: Tensor, leaf: Leaf, count: int) -> Sequence[Tensor]:
    if leaf.kind == "shared":
        return [tensor] * count
    if tensor.shape[leaf.axis] % count:
        raise Unlike(f"gives {tensor.shape[leaf.axis]} places for {count} rows of one size")
    return tensor.chunk(count, leaf.axis)


def joined_shape(shapes: Sequence[Shape], leaf: Leaf) -> Shape:
    """The shape of a batch of rows of these shapes."""
    longest = [max(sizes) for sizes in zip(*shapes, strict=True)]
    if leaf.kind != "shared":
        longest[leaf.axis] = sum(shape[leaf.axis] for shape in shapes)
    return tuple(longest)


def join(rows: Sequence[Tensor], leaf: Leaf) -> Tensor:
    """A tensor of a batch from those of its rows; never one of them itself."""
    whole = joined_shape([tuple(row.shape) for row in rows], leaf)
    if leaf.kind == "shared":
        return next(row for row in rows if tuple(row.shape) == whole).clone()
    if leaf.order == tuple(range(len(whole))) and all(row.shape == rows[0].shape for row in rows):
        return torch.cat([*rows], leaf.axis).to(leaf.dtype)
    made = empty(whole, leaf, rows[0].device).zero_()
    offset = 0
    for row in rows:
        place = made.narrow(leaf.axis, offset, row.shape[leaf.axis])
        offset += row.shape[leaf.axis]
        for axis, length in enumerate(row.shape):
            if axis != leaf.axis:
                place = place.narrow(axis, place.shape[axis] - length if axis in leaf.at_start else 0, length)
        place.copy_(row)
    return made


def empty(shape: Shape, leaf: Leaf, device: torch.device | str) -> Tensor:
    """A tensor of this shape without values, its axes in memory as the model had them."""
    made = torch.empty([shape[axis] for axis in leaf.order], dtype=leaf.dtype, device=device)
    return made.permute([leaf.order.index(axis) for axis in range(len(shape))])


def blank(shape: Shape, leaf: Leaf, device: torch.device | str) -> Tensor:
    """NaN where numbers would be, zeros (padding) where ids and flags would be."""
    made = empty(shape, leaf, device)
    return made.fill_(torch.nan) if leaf.dtype.is_floating_point or leaf.dtype.is_complex else made.zero_()
