"""Blocks of a tower that nothing of what is read of it depends on: encoding passes them over.

A model that reads the tokens of a picture tower from its last block but one runs the last all the same.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from multitune.core.protocols import Batch
from multitune.models import anatomy as anatomies
from multitune.models.replay.cuts import Seam
from multitune.models.replay.recording import passing, reached
from multitune.models.replay.trees import flatten


@torch.no_grad()
def idle(family: Any, seam: Seam, batch: Batch) -> tuple[str, ...]:
    """Paths of the last blocks under a cut at a tower that need not run: all that is read of the tower is what an earlier block gave.

    Found by running `batch`, and run again without them: what is read has the same bits. Empty where everything is needed.
    """
    leaves, cut = seam.layout.leaves, seam.cut
    read = [place for place, leaf in enumerate(leaves) if leaf.read and leaf.kind != "shared"]
    tower = next((one for one in anatomies.find(family).towers if one.path == cut.path), None)
    if tower is None or len(read) == len(leaves):
        return ()
    blocks = [f"{tower.path}{block.removeprefix(tower.name)}" for block in tower.blocks]
    with _given(family, blocks) as given:
        usual = reached(family, [cut.path], (), batch)
    if cut.path not in usual:
        return ()
    needed = [_last_that_gave(usual[cut.path].tensors[place], given, blocks) for place in read]
    unread = blocks[max(needed) + 1 :] if needed and min(needed) >= 0 else []
    if not unread or any(path not in given for path in unread):
        return ()
    with passing(family, unread):
        again = reached(family, [cut.path], (), batch)
    pairs = [(usual[cut.path].tensors[place], again[cut.path].tensors[place]) for place in read]
    return tuple(unread) if all(torch.equal(one, other) for one, other in pairs) else ()


@contextmanager
def _given(family: nn.Module, blocks: Sequence[str]) -> Generator[dict[str, Tensor]]:
    """What each of the blocks gives in the forward inside, where that is one tensor like the first that it is given."""
    found: dict[str, Tensor] = {}

    def ends(path: str, taken: Any, output: Any) -> None:
        first = next(iter(flatten(taken)[1]), None)
        if isinstance(output, Tensor) and first is not None and output.shape == first.shape and path not in found:
            found[path] = output

    with ExitStack() as hooks:
        for path in blocks:
            hook = family.get_submodule(path).register_forward_hook(
                lambda _, args, more, output, path=path: ends(path, [args, more], output), with_kwargs=True
            )
            hooks.callback(hook.remove)
        yield found


def _last_that_gave(tensor: Tensor, given: dict[str, Tensor], blocks: Sequence[str]) -> int:
    """The place of the last block whose output this very memory is; -1 where it is none's."""
    same = [place for place, path in enumerate(blocks) if path in given and given[path].data_ptr() == tensor.data_ptr()]
    return max(same, default=-1)
