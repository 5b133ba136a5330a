"""Towers side by side, one for each part: loading, running and saving them, with whatever joins them beside."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from multitune.core import catalog
from multitune.core.errors import ArtifactError, ModelError, did_you_mean, one_of
from multitune.core.protocols import Batch, Needs
from multitune.core.randomness import derive
from multitune.models import tokens
from multitune.models.load import Tower, TowerSpec, Weights, load_tower, quiet
from multitune.models.prepare import TowerPreparer
from multitune.models.signals import Signal, signal
from multitune.models.weights.limits import limit_of, way_into

JOINT = "joint.safetensors"


def load_towers(specs: Mapping[str, TowerSpec], needs: Needs, weights: Weights) -> dict[str, Tower]:
    """A tower for each part, in the order of the parts.

    Raises: ModelError for a part without a tower, a tower without a part, or a tower that does not read its part.
    """
    for name in specs:
        if name not in needs.parts:
            near = did_you_mean(name, list(needs.parts)) or f"Parts are {one_of(needs.parts)}."
            raise ModelError("model.towers", f'"{name}" is no input part.', near)
    for name in needs.parts:
        if name not in specs:
            raise ModelError("model.towers", f'the part "{name}" has no tower.', f"Give one: towers: {{{name}: tiny/image}}, say.")
        if "." in name:
            raise ModelError(f"data.parts.{name}", "a part's name has no dot.", "Rename it.")
    return {name: load_tower(name, specs[name], modality=readable(name, needs), weights=weights) for name in needs.parts}


def readable(part: str, needs: Needs) -> tuple[str, ...]:
    """What a tower may read to take a part, as the part's modality says.

    Raises: ModelError for a modality that no tower reads.
    """
    need = needs.parts[part]
    accepted = tuple(catalog.find("modality", need.modality, need.options, where=f"data.parts.{part}").build().towers)
    if not accepted:
        raise ModelError(f"data.parts.{part}", f"no tower reads the modality {need.modality}.", "Make it an answer.")
    return accepted


def preparer(towers: Mapping[str, Tower], needs: Needs) -> TowerPreparer:
    """The preparer that feeds these towers."""
    return TowerPreparer(
        {name: tower_signal(name, tower.modality, tower.module, tower.processor, needs) for name, tower in towers.items()}, needs
    )


def tower_signal(part: str, modality: str, module: PreTrainedModel, processor: Any, needs: Needs) -> Signal:
    """A part's way into a tower; a text's limit is its tower's, or `max_length` of the part if that is smaller."""
    if modality != "text":
        return way_into(modality, module, processor)
    limit = limit_of(module, processor)
    asked = needs.parts[part].options.get("max_length")
    return signal(modality, processor, limit=min(limit, asked) if isinstance(asked, int) and asked > 0 else limit)


def child(name: str) -> str:
    """The attribute under which a ModuleDict keeps a user's name: itself, with an underscore where torch uses that name."""
    return f"{name}_" if hasattr(nn.ModuleDict, name) else name


def present(batch: Batch, part: str) -> Tensor:
    """bool (rows,): where a part is there."""
    return cast("Tensor", batch.presence[part])


def run_present(module: PreTrainedModel, batch: Batch, part: str, *, pool: tokens.Pool, width: int) -> tokens.Tokens:
    """Run a tower over the rows that have the part; the others get zeros under a mask that is false throughout.

    On the meta device every row counts as there.
    """
    inputs, there = batch.inputs[part], present(batch, part)
    if _all_there(there):
        return tokens.read(module, inputs, pool=pool)
    rows = there.nonzero()[:, 0]
    if not len(rows):
        empty = torch.zeros((len(there), 1, width), dtype=module.dtype, device=module.device)
        return tokens.Tokens(empty, torch.zeros_like(empty[..., 0], dtype=torch.bool), empty[:, 0])
    read = tokens.read(module, {name: value[rows] for name, value in inputs.items()}, pool=pool)
    return tokens.Tokens(*(_spread(value, rows, len(there)) for value in (read.values, read.mask, read.pooled)))


class Pooled(nn.Module):
    """One vector a row, where that is all that a family reads of a tower: a module, so that what it gives can be kept as a cut.

    It runs the tower that it is given, and holds nothing.
    """

    def __init__(self, pool: tokens.Pool) -> None:
        super().__init__()
        self.pool: tokens.Pool = pool

    def forward(self, module: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Tensor:
        """(rows, width)."""
        return tokens.read(module, inputs, pool=self.pool).pooled


def pooling(towers: Mapping[str, Tower]) -> nn.ModuleDict:
    """What gives the vectors of these towers, under their children's names."""
    return nn.ModuleDict({child(name): Pooled(tower.pool) for name, tower in towers.items()})


def pool_present(pooled: nn.Module, tower: Tower, batch: Batch, part: str) -> Tensor:
    """A tower's vector of each row that has the part, zeros (rows, width) for the others."""
    inputs, there = batch.inputs[part], present(batch, part)
    if _all_there(there):
        return cast("Tensor", pooled(tower.module, inputs))
    rows = there.nonzero()[:, 0]
    if not len(rows):
        return torch.zeros((len(there), tower.width), dtype=tower.module.dtype, device=tower.module.device)
    return _spread(pooled(tower.module, {name: value[rows] for name, value in inputs.items()}), rows, len(there))


def _all_there(there: Tensor) -> bool:
    return there.is_meta or bool(there.all())


def _spread(values: Tensor, rows: Tensor, count: int) -> Tensor:
    return values.new_zeros((count, *values.shape[1:])).index_copy(0, rows, values)


# --------------------------------------------------------------------------------------------------- making and saving


@contextmanager
def made_new(weights: Weights, *names: str) -> Generator[None]:
    """Modules made inside are drawn from a seed of their own; on the meta device they are shapes only."""
    with torch.random.fork_rng(devices=[]), torch.device("meta" if weights.mode == "meta" else "cpu"):
        torch.default_generator.manual_seed(derive(weights.seed, "weights", *names))
        yield


def save_pretrained(module: PreTrainedModel, folder: Path) -> None:
    """A folder that plain Transformers loads; without PEFT's adapters, their base under its own names."""
    state = module.state_dict()
    with quiet():
        module.save_pretrained(folder, state_dict={public: state[name] for name, public in tokens.base_names(module).items()})


def save_towers(towers: Mapping[str, Tower], folder: Path) -> None:
    """`towers/<name>/`: the model and its processor, each a Hugging Face folder."""
    for name, tower in towers.items():
        place = folder / "towers" / name
        save_pretrained(tower.module, place)
        with quiet():
            tower.processor.save_pretrained(place)


def save_joint(modules: nn.Module, inside: Sequence[str], folder: Path) -> None:
    """`joint.safetensors`: every tensor of the family that lies in none of the paths `inside`."""
    state = {name: tensor.contiguous() for name, tensor in modules.state_dict().items() if not _under(name, inside)}
    if state:
        save_file(state, folder / JOINT, metadata={"format": "pt"})


def load_joint(modules: nn.Module, inside: Sequence[str], folder: Path) -> None:
    """Read `joint.safetensors` back.

    Raises: ArtifactError for tensors missing, extra, misshapen or not finite.
    """
    here = {name: tensor for name, tensor in modules.state_dict().items() if not _under(name, inside)}
    path = folder / JOINT
    if not here and not path.is_file():
        return
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(str(path), f"cannot be read ({str(error)[:80]}).", "Copy the artifact again.") from None
    wrong = sorted({*state} ^ {*here}) or [name for name in sorted(here) if state[name].shape != here[name].shape]
    if wrong:
        raise ArtifactError(str(path), f"does not fit the model: {', '.join(wrong[:3])}.", "Copy the artifact again.")
    broken = [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise ArtifactError(str(path), f"{broken[0]} is not finite.", "Copy the artifact again.")
    modules.load_state_dict(state, strict=False)


def _under(name: str, paths: Sequence[str]) -> bool:
    return any(name.startswith(f"{path}.") for path in paths)
