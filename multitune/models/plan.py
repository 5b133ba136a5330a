"""What the model room states: where each tower comes from, what it is made of, and what in it is random; built without weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from multitune.core import catalog
from multitune.core.finding import Finding, Severity
from multitune.core.plan import Value, stated
from multitune.core.protocols import Family, Needs, TaskPreset
from multitune.core.recipe import Recipe
from multitune.models import anatomy as anatomies
from multitune.models import tokens
from multitune.models.anatomy import Anatomy, TowerInfo
from multitune.models.load import Report, Weights
from multitune.models.predictor import Forgetful, moved
from multitune.models.replay import Candidates, candidates, could_be, probe_sample
from multitune.models.where import Provenance

MADE_UP = 0.02
FEATURE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class ModelOutline:
    """What a plan knows of a model.

    options: the family's, checked, defaults in place. unused: public names of parameters that no gradient reaches; they do not
    move, whatever the tuning table says. blueprint: the family on the meta device.
    """

    family: str
    options: Mapping[str, Any]
    values: Mapping[str, Value]
    anatomy: Anatomy
    unused: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    blueprint: Any = field(default=None, repr=False, compare=False)


def family_plugin(recipe: Recipe) -> catalog.Plugin:
    """The family that the recipe names, or its task's, with its options checked."""
    preset = cast("TaskPreset", catalog.find("task", recipe.task.name, recipe.task.options, where="task").build())
    name = preset.family if recipe.model.name == "auto" else recipe.model.name
    return catalog.find("family", name, recipe.model.options, where="model")


def build_family(recipe: Recipe, needs: Needs, weights: Weights) -> Family:
    """The family of a recipe, its weights from where `weights` says; numbers made new follow from its seed."""
    return cast("Family", family_plugin(recipe).build(needs, weights))


def state(recipe: Recipe, needs: Needs) -> ModelOutline:
    """What the model will be, without its weights."""
    plugin = family_plugin(recipe)
    family = plugin.build(needs, Weights("meta", seed=recipe.seed))
    anatomy = anatomies.find(family)
    silent = _unused(family, recipe)
    values = {
        "model.family": Value(plugin.name, "recipe" if recipe.model.name != "auto" else "derived"),
        **_options(plugin.options),
        "model.parameters": Value(anatomy.num_parameters, "derived", "nothing"),
        "model.bytes": Value(_bytes(family), "derived", "nothing"),
    }
    findings: list[Finding] = []
    for tower in anatomy.towers:
        values |= dict(_tower(tower, family, silent))
    for name, source in family.sources.items():
        if name not in family.towers:
            values |= {f"model.{key}": value for key, value in _origin(source)}
        findings += _findings(name, source.report)
    options = plugin.options.model_dump(mode="json")
    return ModelOutline(plugin.name, options, values, anatomy, tuple(silent), tuple(findings), family)


def cuts(outline: ModelOutline, recipe: Recipe, moving: Collection[str], *, rows: int = 0) -> dict[str, Value]:
    """The highest cut of each tower that has one, proposed without weights, and what is kept at it where features are.

    moving: public names of what moves at some step. rows: of all splits.
    """
    if not could_be(outline.anatomy, moving):
        return {}
    family = tokens.runnable(outline.blueprint)
    made_up = not next(family.parameters()).is_meta
    row = family.preparer.prepare(probe_sample(family.needs, seed=recipe.seed), Forgetful())
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for parameter in family.parameters() if made_up else ():
            if parameter.is_floating_point():
                parameter.normal_(0, MADE_UP)
    try:
        found = candidates(family, outline.anatomy, moving, row=row, batch_norm=recipe.train.batch_norm, kept=made_up)
    except RuntimeError:  # some models read numbers on their way, which shapes alone do not have; training looks again, with weights
        return {}
    note = "proposed: nothing moves under it; proven at the start of train"
    made = {f"model.towers.{tower}.cut": Value(cut.name, "derived", "nothing", note) for tower, cut in found.highest().items()}
    return made | (_features(recipe, found, rows) if recipe.features.store != "off" else {})


def _features(recipe: Recipe, found: Candidates, rows: int) -> dict[str, Value]:
    """What the features of each tower at its cut take."""
    asked = recipe.features
    values: dict[str, Value] = {}
    for tower, cut in found.highest().items():
        share = FEATURE_BYTES[asked.type] / FEATURE_BYTES["fp32"]
        each = round(found.num_bytes.get(cut.path, 0) * share)
        told = f"{cut.name}: {each:,} bytes a row, {each * rows:,} in all"
        values[f"features.{tower}"] = Value(told, "derived", "nothing", "at most, of a made-up row; encoded once, then read")
    return values


def asked_features(recipe: Recipe) -> dict[str, Value]:
    """Whether features are kept, where and in which type; nothing where they are not."""
    asked = recipe.features
    if asked.store == "off":
        return {}
    folder = stated("features", asked, ("folder",), binds="speed") if asked.folder else {}
    return stated("features", asked, ("store", "type")) | folder


def _options(options: catalog.Options) -> dict[str, Value]:
    """The family's options: those that were stated, as they were, and the defaults that say something."""
    stated = options.model_dump(mode="json", exclude_unset=True)
    values = {f"model.{name}": Value(_short(value), "recipe") for name, value in stated.items()}
    ours = {name: value for name, value in options.model_dump(mode="json").items() if name not in stated}
    return values | {f"model.{name}": Value(_short(value), "default") for name, value in ours.items() if value not in (None, "", [], {})}


def _short(value: Any) -> Any:
    """A component without options, or a tower of which nothing but its base was stated, as just its name."""
    if not isinstance(value, Mapping):
        return value
    if not set(value) - {"name", "options"} and "name" in value:
        return {"name": value["name"]} | _short(value["options"]) if value.get("options") else value["name"]
    if set(value) == {"pretrained"}:
        return value["pretrained"]
    return {name: _short(inner) for name, inner in value.items()}


def _bytes(family: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in family.parameters())


def _tower(info: TowerInfo, family: Any, silent: list[str]) -> Iterator[tuple[str, Value]]:
    here = f"model.towers.{info.name}"
    if info.name in family.sources:
        yield from ((f"{here}.{key}", value) for key, value in _origin(family.sources[info.name]))
    yield f"{here}.reads", Value(info.modality, "derived")
    yield f"{here}.parameters", Value(info.num_parameters, "derived", "nothing")
    yield f"{here}.blocks", Value(len(info.blocks), "derived", "nothing", note="" if info.blocks else "no chain of blocks was found")
    unused = [name for name in silent if name.startswith(f"{info.name}.")]
    if unused:
        yield f"{here}.unused", Value(_modules(unused), "derived", "nothing", note="no gradient reaches it; it does not move")
    random = randomness(family.towers[info.name])
    note = "" if random else "its config drops and masks nothing"
    yield f"{here}.random_in_training", Value(random, "derived", note=note)


def _origin(source: Any) -> Iterator[tuple[str, Value]]:
    yield "from", Value(source.provenance.line(), "derived")
    yield "dtype", Value(_dtypes(source.provenance, source.report), "derived")


def _dtypes(place: Provenance, report: Report) -> str:
    stored = " and ".join(report.stored.numbers) or ("none" if place.weights == "random" else "unknown")
    return f"{stored} -> {report.loaded}"


def _modules(names: list[str]) -> list[str]:
    """The modules that hold these parameters, each once."""
    return list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))


def randomness(tower: PreTrainedModel) -> dict[str, float]:
    """What a tower's config makes random in training: dropouts, LayerDrop, SpecAugment, with their probabilities."""
    settings = tower.config.to_dict()
    found = {name: value for name, value in settings.items() if isinstance(value, float) and value > 0 and "drop" in name}
    if settings.get("apply_spec_augment"):
        found |= {name: settings[name] for name in ("mask_time_prob", "mask_feature_prob") if settings.get(name)}
    return {name: float(value) for name, value in sorted(found.items())}


def _findings(name: str, report: Report) -> Iterator[Finding]:
    where = f"model.towers.{name}"
    if report.made_new:
        yield Finding(
            "weights-made-new",
            Severity.WARNING,
            where,
            f"{len(report.made_new)} weights are not in the file and start at random: {', '.join(report.made_new[:3])}.",
            "They should be among what moves.",
            {"names": list(report.made_new)},
        )
    if report.left_out:
        shown = f"{len(report.left_out)} weights of the file belong to a head that is not used: {', '.join(report.left_out[:3])}."
        yield Finding("weights-left-out", Severity.INFO, where, shown, evidence={"names": list(report.left_out)})
    yield from report.findings


def _unused(family: Any, recipe: Recipe) -> list[str]:
    preparer = family.preparer
    row = preparer.prepare(probe_sample(family.needs, seed=recipe.seed), Forgetful())
    tried = tokens.runnable(family)
    try:
        return anatomies.unused(tried, moved(preparer.collate([row]), next(tried.parameters()).device))
    except RuntimeError:  # some models read numbers on their way, which shapes alone do not have
        return []
