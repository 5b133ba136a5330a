"""The only place that reads pretrained models: a name becomes a module with its processor, and a report of what was read.

Safetensors only, never remote code, always an explicit dtype, and no random number from outside: what is made new is drawn
from a seed that is derived from the run's seed and the tower's name.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import torch
import transformers
from pydantic import Field, model_validator
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    AutoTokenizer,
    AutoVideoProcessor,
    PreTrainedModel,
)

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.core.randomness import derive
from multitune.models import signals, tokens
from multitune.models.weights.judging import Dtype, Judge, Report, other_modality, refuse_broken_numbers, unreadable
from multitune.models.weights.limits import limit_for, refuse_unfed
from multitune.models.weights.quietly import quiet
from multitune.models.where import Provenance, Stored, check_folder, check_processor, import_own, locate, read_json

Kind = Literal["backbone", "image_text_to_text", "causal_lm", "text_to_text", "speech_to_text"]
DTYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
MADE_OF_NOTHING = ("text", "any")  # processors that Transformers makes without a file; some of the others state theirs in config.json
Class: TypeAlias = Any  # an Auto class, or a PreTrainedModel class
_Probe: TypeAlias = Callable[[PreTrainedModel], list[str]]
_AUTO: Mapping[str, Class] = {
    "backbone": AutoModel,
    "image_text_to_text": AutoModelForImageTextToText,
    "causal_lm": AutoModelForCausalLM,
    "text_to_text": AutoModelForSeq2SeqLM,
    "speech_to_text": AutoModelForSpeechSeq2Seq,
}
_PROCESSORS: Mapping[str, Class] = {
    "image": AutoImageProcessor,
    "audio": AutoFeatureExtractor,
    "text": AutoTokenizer,
    "any": AutoProcessor,
    "video": AutoVideoProcessor,
}


class TowerSpec(catalog.Options):
    """A tower as the recipe names it; in its short form, just `pretrained`. A plug-in may state its options beside its `name`.

    pretrained: a plug-in of models/towers, an embedded base (`tiny/image`), a local folder or a hub id, in this order; a hub id's revision
    stands behind an @, or beside it as `revision`.
    weights: `random` starts from the folder's config alone. pool: how its tokens become one vector. allow_new: shell-style
    patterns of weights that may be missing. dtype: what the weights are loaded as. options: of a plug-in.
    """

    pretrained: str
    weights: Literal["pretrained", "random"] = "pretrained"
    pool: tokens.Pool = "mean"
    allow_new: tuple[str, ...] = ()
    dtype: Dtype = "fp32"
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and "name" in value and not {"pretrained", "options"} & set(value):
            own = {key: value[key] for key in cls.model_fields if key in value}
            rest = {key: option for key, option in value.items() if key != "name" and key not in own}
            return own | {"pretrained": value["name"], "options": rest}
        if isinstance(value, Mapping) and {"pretrained", "revision"} <= set(value):
            rest = {key: value[key] for key in value if key != "revision"}
            return rest | {"pretrained": f"{value['pretrained']}@{value['revision']}"}
        return {"pretrained": value} if isinstance(value, str) else value


@dataclass(frozen=True)
class Weights:
    """Where numbers come from: what was named, nowhere (meta: shapes only, for plans), or an artifact's folder."""

    mode: Literal["pretrained", "meta", "artifact"] = "pretrained"
    folder: Path | None = None
    seed: int = 0


@dataclass(frozen=True)
class Blueprint:
    """What a tower plug-in's `build(options, reads)` gives: a model class, its config and its processor.

    reads: the modalities of which the part takes one, empty for any; a tower that can read several chooses by it.
    """

    model: type[PreTrainedModel]
    config: Any
    processor: Any


@dataclass(frozen=True)
class Tower:
    """A loaded tower. width: of its pooled vector and of its tokens."""

    name: str
    modality: str
    module: PreTrainedModel
    processor: Any
    width: int
    pool: tokens.Pool
    provenance: Provenance
    report: Report


@dataclass(frozen=True)
class LoadedModel:
    """A whole model as it is, with the processor that joins its parts (a tokenizer where it reads text alone)."""

    module: PreTrainedModel
    processor: Any
    provenance: Provenance
    report: Report


@dataclass(frozen=True)
class Outline:
    """A model as its folder names it, head and all, on the meta device. made_new: weights that its files do not hold."""

    module: PreTrainedModel
    provenance: Provenance
    stored: Stored
    made_new: tuple[str, ...]
    blueprint: Blueprint | None


def load_outline(pretrained: str, *, where: str = "model") -> Outline:
    """The shapes of a model, without its weights.

    pretrained: as in a TowerSpec. The class is the one that config.json says it was saved from, else the one without a head.
    Raises: ModelError for a folder that does not hold, or weights that are not this model's.
    """
    place = locate(pretrained, where=where, read_weights=False)
    blueprint = _blueprint(TowerSpec(pretrained=pretrained), (), where=where) if place.folder is None else None
    model = blueprint.model if blueprint is not None else _saved_from(cast("Path", place.folder), where=where)
    module, report = _module(_Asked(model, place, Weights("meta"), "fp32", ("*",), where, blueprint), probe=lambda _: [])
    return Outline(module, place, report.stored, report.made_new, blueprint)


def processor_of(place: Provenance, modality: str, blueprint: Blueprint | None = None) -> tuple[Any, str]:
    """The processor of one modality in a model's folder, or None and why there is none."""
    try:
        return _processor(place, modality, blueprint, "model"), ""
    except ModelError as error:
        return None, error.found


def load_tower(name: str, spec: TowerSpec, *, modality: str | Sequence[str], weights: Weights) -> Tower:
    """The tower that a spec names, in eval mode. modality: what it must read, or several that would do.

    Of a model that joins several modalities (CLIP, say) the one tower that reads this one is taken.
    In mode `artifact` it comes from `towers/<name>` of that folder; nothing may be missing then.
    Raises: ModelError for a folder that does not hold, weights missing, extra, misshapen or not finite, or another modality.
    """
    where = f"model.towers.{name}"
    accepted = (modality,) if isinstance(modality, str) else tuple(modality)
    blueprint = None if weights.mode == "artifact" else _blueprint(spec, accepted, where=where)
    if weights.mode == "artifact":
        place = _in_artifact(weights, f"towers/{name}")
        spec = spec.model_copy(update={"weights": "pretrained", "allow_new": ()})
    elif blueprint is not None:
        place = Provenance("plug-in", spec.pretrained, weights="random")
    else:
        read = weights.mode != "meta" and spec.weights == "pretrained"
        place = replace(locate(spec.pretrained, where=where, read_weights=read), weights=spec.weights)
    asked = _Asked(AutoModel if blueprint is None else blueprint.model, place, weights, spec.dtype, spec.allow_new, where, blueprint)
    module, report = _module(asked, probe=_tower_probe(asked, spec.pool, accepted))
    module = _part_of(module, accepted)
    found = tokens.modality_of(module)
    if found not in accepted:
        raise other_modality(where, spec.pretrained, found, accepted)
    processor = _processor(place, found, blueprint, where)
    refuse_unfed(module, found, processor, where)
    width = _width(asked, module, found, processor, spec.pool)
    return Tower(name, found, module, processor, width, spec.pool, place, report)


def load_model(
    name: str, pretrained: str, *, kind: Kind, weights: Weights, allow_new: Sequence[str] = (), dtype: Dtype = "fp32", random: bool = False
) -> LoadedModel:
    """A whole model as it is, in eval mode.

    name: its folder in an artifact, `model` (processor beside it in `processor/`) or `towers/<x>` (processor in the same folder).
    random: from the config alone.
    Raises: ModelError as `load_tower`.
    """
    where = "model.pretrained" if name == "model" else f"model.{name.replace('/', '.')}"
    if weights.mode == "artifact":
        place, allow_new = _in_artifact(weights, name), ()
    else:
        found = locate(pretrained, where=where, read_weights=weights.mode != "meta" and not random)
        place = replace(found, weights="random" if random else "pretrained")
    if place.folder is None:
        raise ModelError(where, f'"{pretrained}" is a tower plug-in.', "Name a folder or a hub id.")
    asked = _Asked(_AUTO[kind], place, weights, dtype, tuple(allow_new), where, None)
    if kind == "causal_lm" and bool(_config(asked).is_encoder_decoder):
        raise ModelError(where, f"{place.folder} is an encoder-decoder.", "Name it as model.pretrained, without lm.")
    module, report = _module(asked, probe=lambda _: [])
    beside = place.folder.parent / "processor" if place.origin == "artifact" and name == "model" else place.folder
    processor = _processor(replace(place, folder=beside), "text" if kind in ("causal_lm", "text_to_text") else "any", None, where)
    return LoadedModel(module, processor, place, report)


def is_encoder_decoder(name: str, pretrained: str, weights: Weights) -> bool:
    """Whether the config of a whole model says so; false for an artifact without a model of this name. No weights are read.

    Raises: ModelError as `load_tower`.
    """
    where = "model.pretrained"
    if weights.mode == "artifact":
        place = Provenance("artifact", name, cast("Path", weights.folder) / name)
    else:
        place = locate(pretrained, where=where, read_weights=False)
    if place.folder is None or not place.folder.is_dir():
        return False
    check_folder(place.folder, where=where, need_weights=False)
    return bool(_config(_Asked(AutoModel, place, weights, "fp32", (), where, None)).is_encoder_decoder)


# ------------------------------------------------------------------------------------------------------------- building


@dataclass(frozen=True)
class _Asked:
    model: Class
    place: Provenance
    weights: Weights
    dtype: Dtype
    allow_new: tuple[str, ...]
    where: str
    blueprint: Blueprint | None


def _module(asked: _Asked, *, probe: _Probe) -> tuple[PreTrainedModel, Report]:
    folder, meta = asked.place.folder, asked.weights.mode == "meta"
    from_config = asked.place.weights == "random"
    stored = Stored() if folder is None else check_folder(folder, where=asked.where, need_weights=not (from_config or meta))
    if folder is None or from_config or (meta and not stored.numbers):
        module = _from_config(asked, on_meta=meta)
        return module.eval(), Report(stored=Stored() if from_config else stored, loaded=asked.dtype)
    with quiet(), _seeded(asked):
        try:
            module, information = asked.model.from_pretrained(
                folder,
                config=_config(asked),
                dtype=DTYPES[asked.dtype],
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **({"device_map": "meta"} if meta else {}),
            )
        except (OSError, ValueError, ImportError, SafetensorError, RuntimeError) as error:
            raise unreadable(asked.where, folder, error) from None
    report = Judge(asked.where, folder, asked.allow_new, asked.dtype, stored, probe).report(module.eval(), information)
    if not meta:
        refuse_broken_numbers(module, where=asked.where)
    return module, report


def _from_config(asked: _Asked, *, on_meta: bool) -> PreTrainedModel:
    with quiet(), _seeded(asked), torch.device("meta" if on_meta else "cpu"):
        if isinstance(asked.model, type) and issubclass(asked.model, PreTrainedModel):
            return cast("PreTrainedModel", cast("nn.Module", asked.model(_config(asked))).to(DTYPES[asked.dtype]))
        try:
            return asked.model.from_config(_config(asked), dtype=DTYPES[asked.dtype], trust_remote_code=False)
        except (ValueError, ImportError) as error:
            raise unreadable(asked.where, asked.place.folder, error) from None


def _saved_from(folder: Path, *, where: str) -> Class:
    """The class that a folder's config says it was saved from, if Transformers has it."""
    named = read_json(folder / "config.json", where=where).get("architectures")
    found = getattr(transformers, str(named[0]), None) if isinstance(named, list) and named else None
    return found if isinstance(found, type) and issubclass(found, PreTrainedModel) else AutoModel


def _config(asked: _Asked) -> Any:
    if asked.blueprint is not None:
        return asked.blueprint.config
    folder = cast("Path", asked.place.folder)
    import_own(read_json(folder / "config.json", where=asked.where))
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(asked.where, folder, error) from None


def _part_of(module: PreTrainedModel, accepted: Sequence[str]) -> PreTrainedModel:
    if tokens.modality_of(module):
        return module
    inner = [found.module for found in tokens.outermost(module).values() if found.modality in accepted]
    return inner[0] if len(inner) == 1 else module


# ------------------------------------------------------------------------------------------------- processors and trying


def _processor(place: Provenance, modality: str, blueprint: Blueprint | None, where: str) -> Any:
    if blueprint is not None:
        return blueprint.processor
    folder = cast("Path", place.folder)
    if modality in MADE_OF_NOTHING:
        check_processor(folder, modality, where=where)
    with quiet():
        try:
            made = _PROCESSORS[modality].from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError, TypeError) as error:
            check_processor(folder, modality, where=where)
            raise unreadable(where, folder, error) from None
    if modality == "any" and "tokenizer" in vars(made):
        check_processor(folder, "text", where=where)
    return made


def _tower_probe(asked: _Asked, pool: tokens.Pool, accepted: Sequence[str]) -> _Probe:
    """Finds the parameters that the tower's output does not depend on, by running it backward once."""

    def probe(module: PreTrainedModel) -> list[str]:
        modality = tokens.modality_of(module)
        if modality and modality not in accepted:
            raise other_modality(asked.where, asked.place.folder, modality, accepted)
        if not modality:
            return []
        tried = tokens.runnable(module)
        with torch.enable_grad():
            read = _run(tried, modality, _processor(asked.place, modality, asked.blueprint, asked.where), pool)
            return tokens.unreached(tried, read.pooled.sum() + (0 if pool == "pooler" else read.values.sum()))

    return probe


def _run(module: PreTrainedModel, modality: str, processor: Any, pool: tokens.Pool) -> tokens.Tokens:
    way = signals.signal(modality, processor, limit=limit_for(modality, module, processor))
    inputs = way.batch([way.row(way.sample())])
    return tokens.read(module, {name: _like(value, module) for name, value in inputs.items()}, pool=pool)


def _width(asked: _Asked, module: PreTrainedModel, modality: str, processor: Any, pool: tokens.Pool) -> int:
    """How wide the pooled vector is, found by running the tower; one that shapes alone cannot run is drawn in memory for it."""
    with torch.no_grad():
        try:
            return _run(tokens.runnable(module), modality, processor, pool).pooled.shape[-1]
        except RuntimeError:
            if asked.weights.mode != "meta":
                raise
            return _run(_from_config(asked, on_meta=False).eval(), modality, processor, pool).pooled.shape[-1]


def _like(tensor: Tensor, module: PreTrainedModel) -> Tensor:
    return tensor.to(device=module.device, dtype=module.dtype if tensor.is_floating_point() else None)


# ------------------------------------------------------------------------------------------------------------ small things


def _blueprint(spec: TowerSpec, accepted: Sequence[str], *, where: str) -> Blueprint | None:
    if spec.pretrained in catalog.names("tower"):
        return cast("Blueprint", catalog.find("tower", spec.pretrained, spec.options, where=where).build(accepted))
    if spec.options:
        raise ModelError(f"{where}.options", f"{spec.pretrained} is no plug-in.", "Only towers of models/towers take options.")
    return None


def _in_artifact(weights: Weights, name: str) -> Provenance:
    folder = cast("Path", weights.folder) / name
    if not folder.is_dir():
        raise ModelError("artifact", f"there is no {folder}.", "The artifact is incomplete.")
    return Provenance("artifact", name, folder)


@contextmanager
def _seeded(asked: _Asked) -> Generator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(asked.weights.seed, "weights", asked.where))
        yield
