"""The portrait of a model: what it is made of and what it takes. Built on the meta device, so a large model costs no memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from multitune.core.errors import ModelError
from multitune.core.finding import Finding
from multitune.models import signals, tokens
from multitune.models.anatomy import block_paths
from multitune.models.inspection.limits import limits_of
from multitune.models.load import Outline, processor_of
from multitune.models.weights import fitting
from multitune.models.weights.judging import REFUSALS, said
from multitune.models.weights.limits import way_into

Shape = tuple[int, ...]
MAX_IN_MEMORY = 1_000_000_000


@dataclass(frozen=True)
class Block:
    """A block of a tower. shape: of what it gives, rows first; empty if it was not run."""

    path: str
    num_parameters: int
    shape: Shape = ()


@dataclass(frozen=True)
class TowerPortrait:
    """A tower.

    path: of its module in the model; empty for the model itself. given, gives: shapes of what was fed to it and of its tokens, by
    name. limits: what it takes, such as `picture`: `224 x 224`. untried: why it was not run, empty if it was. notes: what a
    reader should know of it beside its processor. signal: its way in.
    """

    name: str
    path: str
    modality: str
    architecture: str
    num_parameters: int
    blocks: tuple[Block, ...]
    limits: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, Shape] = field(default_factory=dict)
    gives: Shape = ()
    untried: str = ""
    notes: tuple[str, ...] = ()
    signal: signals.Signal | None = None
    module: PreTrainedModel | None = None


@dataclass(frozen=True)
class Portrait:
    """A model.

    source: where it was found, as a plan says it. stored: numbers in the files by type. outside: what lies in no tower, by module, and
    how many parameters it has. tied: a parameter's other names -> its first. labels: the classes of its head, if its config names any.
    notes: what a reader should know.
    """

    source: str
    architecture: str
    stored: Mapping[str, int]
    num_bytes: int
    num_files: int
    num_parameters: int
    towers: tuple[TowerPortrait, ...]
    outside: Mapping[str, int]
    tied: Mapping[str, str]
    labels: tuple[str, ...]
    notes: tuple[str, ...]


def draw(outline: Outline) -> Portrait:
    """The portrait of a model that was built without weights."""
    module = outline.module
    places = towers_of(module)
    paths = {id(inner): path for path, inner in module.named_modules()}
    towers = tuple(_tower(name, paths[id(tower)], modality, tower, outline) for name, (modality, tower) in places.items())
    within = {id(parameter) for _, tower in places.values() for parameter in tower.parameters()}
    outside: dict[str, int] = {}
    for path, parameter in module.named_parameters():
        if id(parameter) not in within:
            name = path.rpartition(".")[0] or path
            outside[name] = outside.get(name, 0) + parameter.numel()
    return Portrait(
        source=outline.provenance.line(),
        architecture=type(module).__name__,
        stored=outline.stored.numbers,
        num_bytes=outline.stored.num_bytes,
        num_files=outline.stored.num_files,
        num_parameters=_size(module),
        towers=towers,
        outside=outside,
        tied=_tied(module),
        labels=_labels(module, outside),
        notes=tuple(_notes(outline, towers)),
    )


def towers_of(module: PreTrainedModel) -> dict[str, tuple[str, PreTrainedModel]]:
    """The towers of a model as it is, by name: modality and module.

    A model of one modality is one tower without its head, or an encoder and a decoder; any other is what joins its outermost models
    of one modality. They are named by their modality, by their path where that is ambiguous.
    """
    if module.config.is_encoder_decoder:
        halves = {"encoder": module.get_encoder(), "decoder": module.get_decoder()}
        return {name: (tokens.modality_of(half), half) for name, half in halves.items() if isinstance(half, PreTrainedModel)}
    modality = tokens.modality_of(module)
    if modality:
        inner = module.base_model
        return {modality: (modality, inner if isinstance(inner, PreTrainedModel) else module)}
    found = tokens.outermost(module)
    modalities = [tower.modality for tower in found.values()]
    alone = {path: tower.modality if modalities.count(tower.modality) == 1 else path for path, tower in found.items()}
    return {alone[path]: (tower.modality, tower.module) for path, tower in found.items()}


def _tower(name: str, path: str, modality: str, tower: PreTrainedModel, outline: Outline) -> TowerPortrait:
    processor, lacking = processor_of(outline.provenance, modality, outline.blueprint)
    paths = block_paths(tower)
    way: signals.Signal | None = None
    given: Mapping[str, Shape] = {}
    shapes: Mapping[str, Shape] = {}
    untried = lacking
    told: tuple[Finding, ...] = ()
    if processor is not None:
        try:
            way = way_into(modality, tower, processor)
            told = fitting.beside(tower, modality, processor, where=name)
            try:
                given, shapes = _run(tokens.runnable(tower), paths, way)
            except RuntimeError:  # some models read numbers on their way, which shapes alone do not have
                given, shapes = _run(tokens.runnable(tower, most=MAX_IN_MEMORY), paths, way)
        except ModelError as error:
            untried = error.found
        except REFUSALS as error:
            untried = said(error)
    return TowerPortrait(
        name=name,
        path=path,
        modality=modality,
        architecture=type(tower).__name__,
        num_parameters=_size(tower),
        blocks=tuple(Block(block, _size(tower.get_submodule(block)), shapes.get(block, ())) for block in paths),
        limits=limits_of(modality, tower, processor),
        given=given,
        gives=shapes.get("", ()),
        untried=untried,
        notes=tuple(f"{name}: {finding.message}" for finding in told),
        signal=way,
        module=tower,
    )


def _run(tried: PreTrainedModel, blocks: Sequence[str], way: signals.Signal) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """Shapes of what goes in, by name, and of what each block gives, by path; the tower's own tokens under an empty path."""
    inputs = {
        name: _folded(value, way).to(tried.device)
        for name, value in way.batch([way.row(way.sample())]).items()
        if tokens.takes(tried, name)
    }
    seen: dict[str, Shape] = {}
    with ExitStack() as hooks, torch.no_grad():
        for path in blocks:
            handle = tried.get_submodule(path).register_forward_hook(partial(_note_shape, seen, path))
            hooks.callback(handle.remove)
        read = tokens.read(tried, inputs, pool="mean")
    seen[""] = tuple(read.values.shape)
    return {name: tuple(value.shape) for name, value in inputs.items() if name != tokens.SHARE}, seen


def _folded(value: Tensor, way: signals.Signal) -> Tensor:
    """Pictures as a tower takes them: processors of models that read several in a row give (rows, pictures, channels, height, width)."""
    return value.flatten(0, 1) if way.modality == "image" and value.dim() == 5 else value


def _note_shape(seen: dict[str, Shape], path: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
    first = output if isinstance(output, Tensor) else next((value for value in output if isinstance(value, Tensor)), None)
    if first is not None:
        seen[path] = tuple(first.shape)


def _tied(module: nn.Module) -> dict[str, str]:
    first: dict[int, str] = {}
    tied: dict[str, str] = {}
    for path, parameter in module.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), path) != path:
            tied[path] = first[id(parameter)]
    return tied


def _labels(module: PreTrainedModel, outside: Mapping[str, int]) -> tuple[str, ...]:
    """The classes that a head outside the towers gives, by its config; none for a model without one."""
    named = getattr(module.config, "id2label", None)
    if not isinstance(named, Mapping) or not outside:
        return ()
    classes = [str(label) for _, label in sorted(cast("Mapping[int, str]", named).items())]
    fits = any(
        inner.out_features == len(classes) for path, inner in module.named_modules() if path in outside and isinstance(inner, nn.Linear)
    )
    return tuple(classes) if fits else ()


def _notes(outline: Outline, towers: Sequence[TowerPortrait]) -> list[str]:
    notes: list[str] = []
    if not outline.stored.numbers and outline.blueprint is None:
        notes.append("There are no weights here: it can be built from its config alone ({weights: random}).")
    if outline.made_new:
        notes.append(f"{len(outline.made_new)} weights are not in the file and would start at random, such as {outline.made_new[0]}.")
    notes += [note for tower in towers for note in tower.notes]
    notes += [f"{tower.name}: no chain of blocks was found: it can be frozen as a whole only." for tower in towers if not tower.blocks]
    return notes


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
