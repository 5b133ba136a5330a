"""Between the pretrained weights and the tuned ones (WiSE-FT).

Of what moved, a tensor that was read from a pretrained model goes part of the way back; what was made new (a head, a projection) has no
other end and stays as it was tuned. Of LoRA, the matrix that began as zeros is multiplied by the share, which is the same as going
back in the weights that it changes.

Source: Wortsman et al. 2022, arXiv:2109.01903.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from multitune.core.errors import RecipeError
from multitune.tuning.scope import Scope

WHERE = "average.interpolate"


def pretrained(family: Any) -> set[int]:
    """`id` of every parameter of a family whose numbers were read and not drawn."""
    return {id(parameter) for source in family.sources.values() for parameter in _read(source)}


def _read(source: Any) -> Iterator[torch.nn.Parameter]:
    drawn = {*source.report.made_new, *source.report.never_used}
    for name, parameter in source.module.named_parameters() if source.provenance.weights == "pretrained" else ():
        if name not in drawn:
            yield parameter


def starts(scope: Scope) -> dict[str, Tensor]:
    """The values from which tensors go to their tuned ones, by public name; to be called before anything has moved.

    Raises: RecipeError where nothing that moves has such a value.
    """
    read = pretrained(scope.family)
    found: dict[str, Tensor] = {}
    for entry in scope.entries:
        goes_back = not bool(entry.parameter.detach().any()) if entry.inserted else id(entry.parameter) in read
        if goes_back:
            found[entry.name] = entry.parameter.detach().clone()
    if not found:
        raise RecipeError(WHERE, "nothing that moves was read from a pretrained model.", "Leave it out (average.interpolate=null).")
    return found


def between(starts: Mapping[str, Tensor], tuned: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The tensors of `tuned`, those with a start at `share` of the way from it: 0 is the start, 1 the tuned one, to the bit."""
    if share == 1:
        return dict(tuned)
    return {name: _between(starts[name], value, share) if name in starts else value for name, value in tuned.items()}


def _between(start: Tensor, end: Tensor, share: float) -> Tensor:
    return start.to(end.device) if share == 0 else torch.lerp(start.to(end.device), end, share)
