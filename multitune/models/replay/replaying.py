"""Replay: inside, a cut's module gives what was stored, and what only feeds it gives NaN and is not run."""

from __future__ import annotations

import functools
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from multitune.core.protocols import Batch
from multitune.models.replay.cuts import Seam
from multitune.models.replay.recording import Stored, device_of, giving
from multitune.models.replay.trees import Shape, blank, empty, join, joined_shape, rebuilt

SEVERAL = 5  # axes of a tensor that holds several pictures a row


@contextmanager
def replay(family: Any, seam: Seam, rows: Sequence[Stored | None]) -> Generator[None]:
    """Forwards inside must be of a batch of exactly these rows, in this order; give them `blanked(batch, seam)`.

    The module at the cut gives what the rows stored, each in its place and padded as the batch pads it. Modules that only feed it are
    not run: they give NaN (ids and flags: zeros) of the right shape, so that whatever else reads them is found out. Rows that stored
    nothing (None) are not in what the cut's module is asked for. Several cuts: one inside another.
    """
    there = [row for row in rows if row is not None]
    device = device_of(family)
    with ExitStack() as stack:
        stack.enter_context(giving(family.get_submodule(seam.cut.path), lambda *_: tree_of(seam, there, device)))
        for path, layout in seam.below.items():
            shapes = layout.joined_shapes([row.below[path] for row in there]) if there else []
            if there:
                blanks = functools.partial(_blanks, layout, shapes, device)
                stack.enter_context(giving(family.get_submodule(path), lambda *_, blanks=blanks: blanks()))
        yield


def tree_of(seam: Seam, rows: Sequence[Stored], device: torch.device) -> Any:
    """What the cut's module gives for a batch of these rows; nothing of it shares memory with them."""
    return rebuilt(seam.layout.template, tensors_of(seam, rows, device))


def tensors_of(seam: Seam, rows: Sequence[Stored], device: torch.device) -> list[Tensor]:
    """The tensors of the cut's tree for a batch of these rows."""
    made: list[Tensor] = []
    if not rows:  # a module that is asked for nothing gives what nobody looks at; NaN times nothing would still be NaN
        return [empty(shape, leaf, device).zero_() for shape, leaf in zip(seam.shapes, seam.layout.leaves, strict=True)]
    for place, leaf in enumerate(seam.layout.leaves):
        shapes = [row.shapes[place] for row in rows]
        if leaf.read and leaf.kind != "shared":
            made.append(join([row.tensors[place].to(device) for row in rows], leaf))
        else:
            made.append(blank(joined_shape(shapes, leaf), leaf, device))
    return made


def blanked(batch: Batch, seam: Seam) -> Batch:
    """The batch without what only feeds the cut: NaN of the same shape, zeros for ids and flags."""
    inputs = {part: dict(names) for part, names in batch.inputs.items()}
    for part, name in seam.blank:
        if name in inputs.get(part, {}):
            inputs[part][name] = emptied(inputs[part][name])
    return replace(batch, inputs=inputs)


def emptied(tensor: Tensor) -> Tensor:
    """A tensor of the same shape that says nothing: NaN, zeros for ids and flags.

    Of several pictures a row, those that are zeros throughout stay zeros: that is how they are padded, and some models count the others.
    """
    if not tensor.is_floating_point():
        return torch.zeros_like(tensor)
    made = torch.full_like(tensor, torch.nan)
    if tensor.dim() >= SEVERAL and not tensor.is_meta:
        made[~tensor.flatten(2).any(-1)] = 0
    return made


def _blanks(layout: Any, shapes: Sequence[Shape], device: torch.device) -> Any:
    return rebuilt(layout.template, [blank(shape, leaf, device) for shape, leaf in zip(shapes, layout.leaves, strict=True)])
