"""LoRA beside the linear layers of a tower's blocks: the product of two small matrices is added to what each gives.

PEFT inserts it, and an artifact holds it as PEFT's folder. It begins as nothing, and can be added into the weights.

Source: Hu et al. 2021, arXiv:2106.09685; `dora`: Liu et al. 2024, arXiv:2402.09353; `rslora`: Kalajdzievski 2023, arXiv:2312.03732.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.models.anatomy import Anatomy, matches


class Options(catalog.Options):
    """How large an adapter is and how strongly it acts: its product is multiplied by alpha / rank."""

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    dora: bool = Field(default=False, description="the size of each output's weights moves apart from their direction")
    rslora: bool = Field(default=False, description="the product is multiplied by alpha / sqrt(rank) instead")
    layers: tuple[str, ...] = Field(default=(), description="which linear layers, as patterns inside the tower; empty: all of its blocks")


def build(options: Options) -> Lora:
    """The insert."""
    return Lora(options)


class Lora:
    """Adapters that PEFT puts beside linear layers."""

    wants = "linear layers"

    def __init__(self, options: Options) -> None:
        self._options = options

    def places(self, tower: str, pattern: str, anatomy: Anatomy) -> Sequence[str]:
        """The linear layers that a pattern means inside a tower."""
        asked = self._options.layers or ("*",)
        inside = (path for path in anatomy.linear if path.startswith(f"{tower}.") and matches(f"{path}.weight", pattern))
        paths = (path.removeprefix(f"{tower}.") for path in inside)
        return [path for path in paths if any(fnmatch.fnmatchcase(path, one) or fnmatch.fnmatchcase(path, f"*.{one}") for one in asked)]

    def size(self, tower: str, places: Sequence[str], anatomy: Anatomy) -> int:
        """rank x (inputs + outputs) for each layer, and with dora its outputs once more."""
        ends = [anatomy.linear[f"{tower}.{place}"] for place in places]
        return sum(self._options.rank * (inputs + outputs) + (outputs if self._options.dora else 0) for inputs, outputs in ends)

    def put(self, tower: Any, places: Sequence[str], *, where: str) -> list[str]:
        """Insert the adapters; gives the paths of their parameters.

        Raises: ModelError where PEFT would wrap other layers than those meant.
        """
        from peft import LoraConfig, inject_adapter_in_model  # seconds to import, and only LoRA needs it

        options = self._options
        config = LoraConfig(
            r=options.rank,
            lora_alpha=options.alpha,  # type: ignore[arg-type]
            lora_dropout=options.dropout,
            use_dora=options.dora,
            use_rslora=options.rslora,
            target_modules=_shortest(tower, places),
            fan_in_fan_out=not isinstance(tower.get_submodule(places[0]), torch.nn.Linear),
        )
        inject_adapter_in_model(config, tower)
        new = [name for name, _ in tower.named_parameters() if ".lora_" in name]
        if {name.partition(".lora_")[0] for name in new} != set(places):
            raise ModelError(where, "these layers cannot be told apart from others by name.", "Use another pattern.")
        return new


def _shortest(tower: torch.nn.Module, layers: Sequence[str]) -> list[str]:
    """Their last names, as is usual, where these mean the same layers; else their full paths."""
    last = {layer.rpartition(".")[2] for layer in layers}
    meant = {path for path, _ in tower.named_modules() if path.rpartition(".")[2] in last}
    return sorted(last) if meant == set(layers) else list(layers)
