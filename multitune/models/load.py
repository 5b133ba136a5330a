"""The only place that reads pretrained models: a name becomes a module with its processor, and a report of what was read.

Safetensors only, never remote code, always an explicit dtype, and no random number from outside: what is made new is drawn
from a seed that is derived from the run's seed and the tower's name.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import torch
import transformers
from torch import nn
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
from multitune.core.finding import Finding
from multitune.core.randomness import derive
from multitune.models import tokens
from multitune.models.weights import fitting
from multitune.models.weights.dropping import override
from multitune.models.weights.judging import REFUSALS, Dtype, Judge, Report, other_modality, refuse_broken_numbers, unreadable
from multitune.models.weights.pictures import resize
from multitune.models.weights.quietly import quiet
from multitune.models.weights.spec import TowerSpec, Weights
from multitune.models.where import (
    Provenance,
    Stored,
    check_folder,
    check_processor,
    has_weights,
    import_own,
    locate,
    read_json,
    refuse_pictures,
)

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
    built = place if blueprint is not None or has_weights(cast("Path", place.folder), where=where) else replace(place, weights="random")
    module, report = _module(_Asked(model, built, Weights("meta"), "fp32", ("*",), where, blueprint), probe=lambda _: [])
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
    if weights.mode != "artifact":  # its config has them already
        asked = replace(asked, change=partial(override, dropout=spec.dropout, stochastic_depth=spec.stochastic_depth, where=where))
    module, report = _module(asked, probe=_tower_probe(asked, spec.pool, accepted))
    module = _part_of(module, accepted)
    found = tokens.modality_of(module)
    if found not in accepted:
        raise other_modality(where, spec.pretrained, found, accepted)
    return _with_processor(name, spec, asked, module, report)


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
    reads_text = kind in ("causal_lm", "text_to_text")
    processor = _processor(replace(place, folder=beside), "text" if reads_text else "any", None, where)
    told = fitting.of_tokenizer(module, processor, where=where) if reads_text else ()
    return LoadedModel(module, processor, place, replace(report, findings=told))


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
    change: Callable[[Any], Any] = lambda config: config


def _module(asked: _Asked, *, probe: _Probe) -> tuple[PreTrainedModel, Report]:
    folder, meta = asked.place.folder, asked.weights.mode == "meta"
    from_config = asked.place.weights == "random"
    needed = not from_config and (not meta or asked.place.origin == "folder")  # a hub's weights are not fetched for a plan
    stored = Stored() if folder is None else check_folder(folder, where=asked.where, need_weights=needed)
    if folder is None or from_config or (meta and not stored.numbers):
        module = _from_config(asked)
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
        except REFUSALS as error:
            raise unreadable(asked.where, folder, error) from None
    report = Judge(asked.where, folder, asked.allow_new, asked.dtype, stored, probe).report(module.eval(), information)
    if not meta:
        refuse_broken_numbers(module, where=asked.where)
    return module, report


def _from_config(asked: _Asked) -> PreTrainedModel:
    if isinstance(asked.model, type) and issubclass(asked.model, PreTrainedModel):
        return _built(asked, asked.model, _config(asked))
    with quiet(), _seeded(asked), torch.device("meta" if asked.weights.mode == "meta" else "cpu"):
        try:
            return asked.model.from_config(_config(asked), dtype=DTYPES[asked.dtype], trust_remote_code=False)
        except REFUSALS as error:
            raise unreadable(asked.where, asked.place.folder, error) from None


def _built(asked: _Asked, model: type[PreTrainedModel], config: Any) -> PreTrainedModel:
    with quiet(), _seeded(asked), torch.device("meta" if asked.weights.mode == "meta" else "cpu"):
        try:
            made = model(config)
        except REFUSALS as error:
            raise unreadable(asked.where, asked.place.folder, error) from None
    return cast("PreTrainedModel", cast("nn.Module", made).to(DTYPES[asked.dtype])).eval()


def _saved_from(folder: Path, *, where: str) -> Class:
    """The class that a folder's config says it was saved from, if Transformers has it."""
    named = read_json(folder / "config.json", where=where).get("architectures")
    found = getattr(transformers, str(named[0]), None) if isinstance(named, list) and named else None
    return found if isinstance(found, type) and issubclass(found, PreTrainedModel) else AutoModel


def _config(asked: _Asked) -> Any:
    if asked.blueprint is not None:
        return asked.change(asked.blueprint.config)
    folder = cast("Path", asked.place.folder)
    import_own(read_json(folder / "config.json", where=asked.where), where=asked.where)
    try:
        return asked.change(AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True))
    except REFUSALS as error:
        raise unreadable(asked.where, folder, error) from None


def _with_processor(name: str, spec: TowerSpec, asked: _Asked, module: PreTrainedModel, report: Report) -> Tower:
    """The tower beside its processor, both made for another picture size where the spec asks for one, and tried."""
    found, where = tokens.modality_of(module), asked.where
    processor = _processor(asked.place, found, asked.blueprint, where)
    told: tuple[Finding, ...] = ()
    if spec.image_size and asked.weights.mode != "artifact":
        if found != "image" or asked.blueprint is not None:
            raise ModelError(
                f"{where}.image_size", f"{spec.pretrained} takes none.", "Pretrained towers of pictures do; a plug-in, among its options."
            )
        made = resize(module, processor, spec.image_size, where=where, anew=partial(_built, asked, type(module)))
        module, processor, told = made.module, made.processor, made.findings
    told += fitting.judge(module, found, processor, where=where)
    anew = partial(_built, replace(asked, weights=Weights(seed=asked.weights.seed)), type(module), module.config)
    width = fitting.width(module, found, processor, spec.pool, where=where, anew=anew)
    return Tower(name, found, module, processor, width, spec.pool, asked.place, replace(report, findings=told))


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
    if modality == "audio":
        refuse_pictures(folder, where=where)
    with quiet():
        try:
            made = _PROCESSORS.get(modality, AutoFeatureExtractor).from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        except REFUSALS as error:
            check_processor(folder, modality, where=where)
            raise unreadable(where, folder, error, fitting.OWN) from None
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
            processor = _processor(asked.place, modality, asked.blueprint, asked.where)
            read = fitting.run(tried, modality, processor, pool, where=asked.where)
            return tokens.unreached(tried, read.pooled.sum() + (0 if pool == "pooler" else read.values.sum()))

    return probe


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
