"""What the model room states: where each tower comes from, what it is made of, and what in it is random; built without weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from multitune.core import catalog
from multitune.core.errors import RecipeError, did_you_mean
from multitune.core.finding import Finding, Severity
from multitune.core.plan import Value, stated
from multitune.core.protocols import Family, Needs, TaskPreset
from multitune.core.recipe import Recipe
from multitune.core.recipe.features import NO_CUT
from multitune.models import anatomy as anatomies
from multitune.models import tokens
from multitune.models.anatomy import Anatomy, TowerInfo
from multitune.models.load import Report, Weights
from multitune.models.predictor import Forgetful, moved
from multitune.models.replay import Candidates, Cut, candidates, could_be, places, probe_sample
from multitune.models.where import Provenance

MADE_UP = 0.02
FEATURE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
WHEN = {
    "auto": "at most, of a made-up row; kept where that saves time, which `train` and `plan --prove` measure",
    "on": "at most, of a made-up row; encoded once, then read",
}


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


def cuts(
    outline: ModelOutline, recipe: Recipe, moving: Collection[str], *, rows: int = 0, in_turn: Sequence[tuple[int, Collection[str]]] = ()
) -> dict[str, Value]:
    """The highest cut of each tower that has one, proposed without weights, and what would be kept at it.

    moving: public names of what moves at some step. rows: of all splits. in_turn: what moves in each phase, and the step that ends it.
    Raises: RecipeError for a cut in the recipe that is none of its tower's, or under which something moves.
    """
    _refuse_cuts(outline.anatomy, recipe)
    keeps, several = recipe.features.store != "off", in_turn if len(in_turn) > 1 else [(0, moving)]
    if not any(could_be(outline.anatomy, names) for _, names in ((0, moving), *(several if keeps else ()))):
        if keeps:
            _refuse_moving(recipe, ())
        return {}
    family = tokens.runnable(outline.blueprint)
    made_up = not next(family.parameters()).is_meta
    row = family.preparer.prepare(probe_sample(family.needs, seed=recipe.seed), Forgetful())
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for parameter in family.parameters() if made_up else ():
            if parameter.is_floating_point():
                parameter.normal_(0, MADE_UP)

    def highest(names: Collection[str]) -> Candidates:
        if not could_be(outline.anatomy, names):
            return Candidates((), ())
        return candidates(family, outline.anatomy, names, row=row, batch_norm=recipe.train.batch_norm, kept=made_up)

    try:
        whole = highest(moving)
        found = [(stop, whole if len(several) == 1 else highest(names)) for stop, names in several] if keeps else []
    except RuntimeError:  # some models read numbers on their way, which shapes alone do not have; training looks again, with weights
        return {}
    _refuse_moving(recipe, [one for _, one in found])
    note = "proposed: nothing moves under it; proven at the start of train"
    made = {f"model.towers.{tower}.cut": Value(cut.name, "derived", "nothing", note) for tower, cut in whole.highest().items()}
    return made | _features(recipe, found, rows)


def _features(recipe: Recipe, found: Sequence[tuple[int, Candidates]], rows: int) -> dict[str, Value]:
    """What the features of each tower at its cuts take. found: the cuts of each phase, and the step that ends it."""
    asked = recipe.features
    share = FEATURE_BYTES[asked.type] / FEATURE_BYTES["fp32"]
    chosen = [(stop, _chosen(recipe, one), one.num_bytes) for stop, one in found]
    values: dict[str, Value] = {}
    for tower in dict.fromkeys(tower for _, cuts, _ in chosen for tower in cuts):
        told: list[str] = []
        for stop, cuts, sizes in chosen:
            cut = cuts.get(tower)
            each = 0 if cut is None else round(sizes.get(cut.path, 0) * share)
            until = f" to step {stop:,}" if len(chosen) > 1 else ""
            told += [f"none{until}" if cut is None else f"{cut.name}{until}: {each:,} bytes a row, {each * rows:,} in all"]
        values[f"features.{tower}"] = Value("; ".join(told), "derived", "nothing", WHEN[asked.store])
    return values


def _chosen(recipe: Recipe, found: Candidates) -> dict[str, Cut]:
    """The cut of each tower: that of the recipe where it can be, else the highest."""
    asked = recipe.features.cuts
    named = {cut.tower: cut for cut in found.cuts if asked.get(cut.tower) == cut.name}
    return {tower: cut for tower, cut in (found.highest() | named).items() if asked.get(tower) != NO_CUT}


def _refuse_cuts(anatomy: Anatomy, recipe: Recipe) -> None:
    """Raises: RecipeError for a cut in the recipe that is none of its tower's."""
    for tower, name in recipe.features.cuts.items():
        where, towers = f"features.cuts.{tower}", [one.name for one in anatomy.towers]
        if tower not in towers:
            raise RecipeError(where, f'"{tower}" is no tower.', did_you_mean(tower, towers) or f"There are {', '.join(towers)}.")
        known = [NO_CUT, *(cut.name for cut in places(anatomy) if cut.tower == tower)]
        if name not in known:
            first, more = known[1:8], len(known) - 8
            there = f"There are {', '.join(first)}{f' and {more} more' if more > 0 else ''}; {NO_CUT} keeps nothing of it."
            raise RecipeError(where, f'"{name}" is no block of it.', did_you_mean(name, known) or there)


def _refuse_moving(recipe: Recipe, found: Sequence[Candidates]) -> None:
    """Raises: RecipeError for a cut in the recipe under which something moves in every phase."""
    for tower, name in recipe.features.cuts.items():
        reasons = [refusal.reason for one in found for refusal in one.refused if refusal.cut.name == name and "move" in refusal.reason]
        if name != NO_CUT and len(reasons) == len(found):
            highest = next((one.highest()[tower].name for one in found if tower in one.highest()), "")
            remedy = f"The highest cut that would do is {highest}." if highest else "Nothing of it is still: leave the cut out."
            raise RecipeError(f"features.cuts.{tower}", f"{name} cannot be kept: {[*reasons, 'all of it moves'][0]}.", remedy)


def asked_features(recipe: Recipe) -> dict[str, Value]:
    """Whether features are kept, where and in which type; nothing where they are not."""
    asked = recipe.features
    views = stated("features", asked, ("views",)) if asked.views else {}
    if asked.store == "off":
        return (stated("features", asked, ("store",)) if asked.given("store") else {}) | views
    folder = stated("features", asked, ("folder",), binds="speed") if asked.folder else {}
    return stated("features", asked, ("store", *(("cuts",) if asked.cuts else ()), "type")) | views | folder


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
