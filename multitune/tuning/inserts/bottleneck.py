"""Bottleneck adapters after the last linear layer of each block: down to a few numbers, through a bend, up again, and added.

They begin as nothing. They bend, so they cannot be added into the weights: an artifact keeps them beside the tower, and
`open_artifact` puts them back.

Source: Houlsby et al. 2019, arXiv:1902.00751; ours come after the feed-forward part alone, as in Pfeiffer et al. 2020, arXiv:2005.00247.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from multitune.core import catalog
from multitune.models.anatomy import Anatomy, linear_ends, matches
from multitune.models.layers.inserted import CHILD, Bottleneck, attach


class Options(catalog.Options):
    """How narrow an adapter is, and how it bends."""

    size: int = Field(default=32, ge=1, description="numbers in the middle")
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    scale: float = Field(default=1.0, gt=0, description="multiplies what is added")


def build(options: Options) -> BottleneckInsert:
    """The insert."""
    return BottleneckInsert(options)


class BottleneckInsert:
    """One bottleneck for each block, after its last linear layer: what its feed-forward part gives, before it joins the stream."""

    wants = "blocks with linear layers"

    def __init__(self, options: Options) -> None:
        self._options = options

    def places(self, tower: str, pattern: str, anatomy: Anatomy) -> Sequence[str]:
        """The last linear layer of each block in which a pattern means one."""
        meant = [path for path in anatomy.linear if matches(f"{path}.weight", pattern)]
        inside = ([path for path in meant if path.startswith(f"{block}.")] for block in anatomy.tower(tower).blocks)
        return [paths[-1].removeprefix(f"{tower}.") for paths in inside if paths]

    def size(self, tower: str, places: Sequence[str], anatomy: Anatomy) -> int:
        """Both matrices with their biases for each layer."""
        widths = [anatomy.linear[f"{tower}.{place}"][1] for place in places]
        return sum(2 * self._options.size * width + self._options.size + width for width in widths)

    def put(self, tower: Any, places: Sequence[str], *, where: str) -> list[str]:
        """Insert the adapters; gives the paths of their parameters."""
        options = self._options.model_dump()
        for place in places:
            layer = tower.get_submodule(place)
            _, width = linear_ends(layer)
            attach(layer, Bottleneck(width, **options).to(layer.weight.device).eval())
        return [f"{place}.{CHILD}.{name}" for place in places for name, _ in tower.get_submodule(f"{place}.{CHILD}").named_parameters()]
