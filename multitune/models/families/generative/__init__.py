"""A language model that answers in words, about pictures, sounds or texts.

Composed: `towers` for the parts that are no plain text, a `connector` for each, and `lm`, a causal language model; the towers' tokens
stand before the prompt. Without towers it is the language model alone. As it is: `pretrained`, a folder or hub id of a model that
reads pictures and text through one processor, such as SmolVLM, or of an encoder-decoder, which reads a text, a sound or a picture, such
as T5, Whisper or BLIP. `prompt` is a template over the text parts, such as `Question: {question} Answer:`; without one the text parts
stand one a line. An encoder of text reads it; beside a picture or a sound it stands before the answer. The loss is on the answer (a
text) alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pydantic import Field, model_validator
from torch import nn

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.core.protocols import Family, Needs
from multitune.core.recipe import Component
from multitune.data.decode import modality
from multitune.models.encoders import load_joint, load_towers, made_new, preparer
from multitune.models.families.generative.composed import Composed
from multitune.models.families.generative.encoder_decoder import build_encoder_decoder
from multitune.models.families.generative.preparing import LANGUAGE, ComposedPreparer, ends, room, wording
from multitune.models.families.generative.prompt import Prompt, prompt
from multitune.models.families.generative.sides import sides, the_one
from multitune.models.families.generative.whole import build_whole
from multitune.models.load import Kind, LoadedModel, Tower, TowerSpec, Weights, is_encoder_decoder, load_model

RESERVED = (LANGUAGE, "connector")


class Options(catalog.Options):
    """towers: part -> tower. connector: from a tower's tokens to the language model. lm: a causal language model.

    pretrained: instead of these, a whole model as it is. prompt: a template over the text parts. begin: what an encoder-decoder's
    answer starts with, instead of what its tokenizer puts there: `<|startoftranscript|><|zh|><|transcribe|><|notimestamps|>`, say.
    """

    towers: dict[str, TowerSpec] = Field(default_factory=dict)
    connector: Component = Component(name="linear")
    lm: TowerSpec | None = None
    pretrained: TowerSpec | None = None
    prompt: str = ""
    begin: str = ""

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Options:
        if (self.lm is None) == (self.pretrained is None):
            raise ValueError("give either lm (with towers) or pretrained")
        if self.pretrained is not None and self.towers:
            raise ValueError("pretrained is a whole model; it takes no towers")
        if self.begin and self.pretrained is None:
            raise ValueError("begin is for a whole model that is an encoder-decoder; write it into prompt")
        return self


def build(options: Options, needs: Needs, weights: Weights) -> Family:
    """The model, in eval mode.

    Raises: ModelError for an answer that is no text, a part that nothing reads, a prompt that does not fit the text parts, or a folder
    that does not hold.
    """
    answer = _answer(needs)
    texts = tuple(name for name, need in needs.parts.items() if need.modality == "text" and name not in options.towers)
    media = {name: need.modality for name, need in needs.parts.items() if name not in texts}
    template = prompt(options.prompt, texts, where="model.prompt")
    whole = options.pretrained and _whole(options.pretrained, options.begin, template, answer, media, needs, weights)
    if whole:
        return whole
    spec = options.pretrained or cast("TowerSpec", options.lm)
    lm = _language_model(spec, weights)
    spoken = replace(needs, parts={name: need for name, need in needs.parts.items() if name in media}, answers={})
    towers = _towers(options, spoken, weights)
    limit = room(lm.module, lm.processor)
    words = wording(template, answer, needs, limit=limit)
    composing = ComposedPreparer(preparer(towers, spoken), lm.processor, words, ends(lm.module, lm.processor, where="model.lm"), limit)
    composing.check()
    family = Composed(towers, _connectors(options, towers, lm, weights), lm, composing, needs)
    if weights.mode == "artifact":
        load_joint(family, family.inside, cast("Path", weights.folder))
    return cast("Family", family.eval())


def _whole(
    spec: TowerSpec, begin: str, template: Prompt, answer: str, media: Mapping[str, str], needs: Needs, weights: Weights
) -> Family | None:
    """The model as it is, or None for a language model, which reads text alone."""
    kinds = {part: modality(name).towers for part, name in media.items()}
    two_sided = is_encoder_decoder("model", spec.pretrained, weights)
    for part, towers in kinds.items():
        if not {"image", *(["audio"] if two_sided else [])} & {*towers}:
            found = f"a model as it is reads pictures and text, an encoder-decoder a sound too; this part is {media[part]}."
            raise ModelError(f"data.parts.{part}", found, "Compose it: give lm, towers and a connector.")
    if not media and not two_sided:
        return None
    reads = "text" if not media else "image" if all("image" in towers for towers in kinds.values()) else "audio"
    loaded = _loaded("model", spec, _KINDS[reads], weights)
    parts = sides(loaded.module, reads)
    if parts is None:
        if begin:
            raise ModelError("model.begin", "this model is no encoder-decoder.", "Write it into prompt.")
        return cast("Family", build_whole(loaded, template, answer, tuple(media), needs))
    medium = the_one(tuple(media), reads) if media else ""
    return cast("Family", build_encoder_decoder(loaded, parts, template, answer, medium, begin, needs))


_KINDS: Mapping[str, Kind] = {"text": "text_to_text", "image": "image_text_to_text", "audio": "speech_to_text"}


def _answer(needs: Needs) -> str:
    answers = {name: need.modality for name, need in needs.answers.items()}
    if list(answers.values()) != ["text"]:
        found = ", ".join(f"{name} ({kind})" for name, kind in answers.items()) or "none"
        found = f"generative gives one answer, a text; the answers are {found}."
        raise ModelError("model", found, "Name one text part in data.answers.")
    return next(iter(answers))


def _language_model(spec: TowerSpec, weights: Weights) -> LoadedModel:
    if spec.options:
        raise ModelError("model.lm.options", "a language model takes none.", "Remove them.")
    return _loaded(f"towers/{LANGUAGE}", spec, "causal_lm", weights)


def _loaded(name: str, spec: TowerSpec, kind: Kind, weights: Weights) -> LoadedModel:
    random = spec.weights == "random"
    return load_model(name, spec.pretrained, kind=kind, weights=weights, allow_new=spec.allow_new, dtype=spec.dtype, random=random)


def _towers(options: Options, spoken: Needs, weights: Weights) -> dict[str, Tower]:
    for part in spoken.parts:
        if part in RESERVED:
            raise ModelError(f"data.parts.{part}", f'"{part}" is the name of a piece of the model.', "Give the part another name.")
    return load_towers(options.towers, spoken, weights)


def _connectors(options: Options, towers: Mapping[str, Tower], lm: LoadedModel, weights: Weights) -> dict[str, nn.Module]:
    target = int(cast("Any", lm.module.get_input_embeddings()).weight.shape[1])
    plugin = catalog.find("connector", options.connector.name, options.connector.options, where="model.connector")
    made: dict[str, nn.Module] = {}
    for part, tower in towers.items():
        with made_new(weights, "model.connector", part):
            made[part] = plugin.build(tower.width, target)
    return made
