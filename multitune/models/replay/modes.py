"""What a model is put into for a while, and put back from: modes, what takes gradients, its buffers, the seeds."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from multitune.core.randomness import derive, seed_standard


def statistics(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules that keep running statistics (batch norm and its like), by path."""
    for path, inner in module.named_modules():
        if "running_mean" in dict(inner.named_buffers(recurse=False)):
            yield path, inner


def set_modes(module: nn.Module, *, still: bool) -> None:
    """Training mode for modules in which a tensor takes a gradient, and for what has none of its own inside these; eval mode elsewhere.

    still: what keeps running statistics stays in eval mode all the same.
    """
    module.eval()
    _descend(module)
    if still:
        for _, inner in statistics(module):
            inner.training = False


def _descend(module: nn.Module) -> None:
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        return
    module.training = True
    for child in module.children():
        _descend(child)


@contextmanager
def as_it_was(module: nn.Module) -> Generator[None]:
    """Afterwards modes, what takes gradients, `.grad` and buffers are what they were before."""
    training = {inner: inner.training for inner in module.modules()}
    taking = {parameter: parameter.requires_grad for parameter in module.parameters()}
    kept = [(inner, name, tensor, tensor.clone()) for inner in module.modules() for name, tensor in inner.named_buffers(recurse=False)]
    versions = [tensor._version for _, _, tensor, _ in kept]
    try:
        yield
    finally:
        for inner, mode in training.items():
            inner.training = mode
        for parameter, needed in taking.items():
            parameter.requires_grad_(needed)
        with torch.no_grad():
            for (inner, name, tensor, copy), version in zip(kept, versions, strict=True):
                if dict(inner.named_buffers(recurse=False)).get(name) is not tensor:
                    setattr(inner, name, tensor)
                if tensor._version != version:
                    tensor.copy_(copy)


def take_gradients(module: nn.Module, paths: Collection[str]) -> None:
    """Exactly the parameters at these paths take gradients."""
    for path, parameter in module.named_parameters():
        parameter.requires_grad_(path in paths and parameter.is_floating_point())


@contextmanager
def seeded(*names: int | str) -> Generator[None]:
    """The generators of torch, numpy and Python start from a derived seed inside; torch's goes on afterwards where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive("replay", *names))
        seed_standard(derive("replay", "standard", *names))
        yield
