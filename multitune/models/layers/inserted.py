"""Layers that tuning puts beside those of a pretrained model: they are no part of its folder."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

CHILD = "inserted"
ACTIVATIONS = {"gelu": functional.gelu, "relu": functional.relu, "silu": functional.silu}


class Bottleneck(nn.Module):
    """Down to `size`, through a bend, up again, and added to what came in; as it is made it changes nothing.

    It computes in the type of its own weights, and gives the type that came in.
    """

    def __init__(self, width: int, size: int, *, activation: str = "gelu", dropout: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.drop = nn.Dropout(dropout)
        self.activation, self.scale = activation, scale

    def forward(self, states: Tensor) -> Tensor:
        """states (..., width), and the same shape out."""
        bent = ACTIVATIONS[self.activation](self.down(self.drop(states.to(self.down.weight.dtype))))
        return states + (self.scale * self.up(bent)).to(states.dtype)


def attach(layer: nn.Module, bottleneck: Bottleneck) -> None:
    """Let what a layer gives pass through a bottleneck; the layer itself keeps its name, its type and its weights.

    The hook finds the bottleneck in the layer that it is called for, so a copy of the layer has its own.
    """
    layer.add_module(CHILD, bottleneck)
    layer.register_forward_hook(_through)


def inserted(module: nn.Module) -> list[str]:
    """Paths of the bottlenecks inside a module."""
    return [path for path, inner in module.named_modules() if isinstance(inner, Bottleneck)]


def _through(layer: nn.Module, _: Any, output: Tensor) -> Tensor:
    return layer.get_submodule(CHILD)(output)
