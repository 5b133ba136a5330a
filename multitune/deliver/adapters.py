"""What was inserted into towers, in an artifact: a folder for each of them, beside the base that it was trained on.

LoRA's is what PEFT itself writes, so `PeftModel.from_pretrained(AutoModel.from_pretrained("towers/image"), "adapters/image")`
gives the same tower in plain Transformers. What PEFT does not know (bottlenecks) is kept as its plug-in's name, options and places
in `insert.json`, its numbers in `insert.safetensors`. PEFT takes a third of a second to import: only towers with its adapters wait for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from multitune.core import catalog
from multitune.core.errors import ArtifactError
from multitune.core.protocols import Family
from multitune.tuning.inserts import Put

if TYPE_CHECKING:
    from peft import PeftConfig

ROOT = "adapters"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
INSERT, NUMBERS = "insert.json", "insert.safetensors"
PREFIX = "base_model.model."


def save_adapters(family: Family, folder: Path, inserted: Mapping[str, Put]) -> list[str]:
    """Write `adapters/<tower>/` for every tower into which something was inserted; gives those towers."""
    found: list[str] = []
    for name, tower in family.towers.items():
        if name in inserted and not _configs(tower):
            _save_insert(tower, inserted[name], folder / ROOT / name)
            found.append(name)
        for adapter, config in _configs(tower).items():
            from peft import get_peft_model_state_dict

            place = folder / ROOT / name
            place.mkdir(parents=True)
            state = get_peft_model_state_dict(tower, adapter_name=adapter)
            tensors = {f"{PREFIX}{key}": tensor.detach().contiguous().cpu() for key, tensor in state.items()}
            save_file(tensors, place / WEIGHTS, metadata={"format": "pt"})
            text = json.dumps(_plain(config.to_dict() | {"inference_mode": True}), indent=1, sort_keys=True)
            (place / CONFIG).write_text(text + "\n", "utf-8")
            found.append(name)
    return found


def load_adapters(family: Family, folder: Path, *, merge: bool) -> None:
    """Insert what `save_adapters` wrote. merge: add them into the weights instead, so that nothing is left inserted.

    Raises: ArtifactError if an adapter does not fit its tower, or cannot be added into the weights.
    """
    for place in sorted((folder / ROOT).glob("*")):
        tower = family.towers.get(place.name)
        if tower is None:
            raise ArtifactError(str(place), "is for a tower that the model does not have.", "Copy the artifact again.")
        if (place / INSERT).is_file():
            _load_insert(tower, place, merge=merge)
            continue
        from peft import PeftConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict

        config = PeftConfig.from_peft_type(**json.loads((place / CONFIG).read_text("utf-8")))
        inject_adapter_in_model(config, tower, adapter_name="default")
        state = {key.removeprefix(PREFIX): tensor for key, tensor in load_file(place / WEIGHTS).items()}
        if state.keys() != get_peft_model_state_dict(tower, adapter_name="default").keys():
            raise ArtifactError(str(place), "does not fit its tower.", "Copy the artifact again.")
        set_peft_model_state_dict(tower, state, adapter_name="default")
        if merge:
            _merge(tower)
        tower.requires_grad_(False)


def _save_insert(tower: nn.Module, put: Put, place: Path) -> None:
    place.mkdir(parents=True)
    save_file({name: tower.get_parameter(name).detach().contiguous().cpu() for name in put.parameters}, place / NUMBERS)
    told = {"name": put.name, "options": dict(put.options), "places": list(put.places)}
    (place / INSERT).write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", "utf-8")


def _load_insert(tower: nn.Module, place: Path, *, merge: bool) -> None:
    told = json.loads((place / INSERT).read_text("utf-8"))
    if merge:
        found = f"holds what cannot be added into the weights ({told['name']}: it is not linear)."
        raise ArtifactError(str(place), found, "Open the artifact without merging; it gives the same.")
    with torch.random.fork_rng(devices=[]):
        names = (
            catalog.find("insert", told["name"], told["options"], where=str(place / INSERT))
            .build()
            .put(tower, told["places"], where=str(place))
        )
    numbers = load_file(place / NUMBERS)
    homes = {name: tower.get_parameter(name) for name in names}
    if {name: home.shape for name, home in homes.items()} != {name: tensor.shape for name, tensor in numbers.items()}:
        raise ArtifactError(str(place), "does not fit its tower.", "Copy the artifact again.")
    for name, home in homes.items():
        home.data.copy_(numbers[name])
        home.requires_grad_(False)


def _configs(tower: nn.Module) -> Mapping[str, PeftConfig]:
    """The adapters that PEFT has put into a tower, by their name; it keeps them in this attribute."""
    return vars(tower).get("peft_config", {})


def _merge(tower: nn.Module) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(name, module) for name, module in tower.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, layer in layers:
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(tower.get_submodule(parent), child, layer.get_base_layer())
    del tower.peft_config


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """PEFT's configuration as JSON, sets in order, so that the same adapter gives the same bytes."""
    return dict(_plain_items(values))


def _plain_items(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, set):
            yield key, sorted(value)
        elif isinstance(value, Mapping):
            yield key, _plain(value)
        else:
            yield key, value
