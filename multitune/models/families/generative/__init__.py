"""A language model that answers in words, about pictures, sounds or texts.

Composed: `towers` for the parts that are no plain text, a `connector` for each, and `lm`, a causal language model; the towers' tokens
stand before the prompt. Without towers it is the language model alone. As it is: `pretrained`, a folder or hub id of a model that
reads pictures and text through one processor, such as SmolVLM. `prompt` is a template over the text parts, such as
`Question: {question} Answer:`; without one the text parts stand one a line. The loss is on the answer (a text) alone.
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
from multitune.models.encoders import load_joint, load_towers, made_new, preparer
from multitune.models.families.generative.composed import Composed
from multitune.models.families.generative.preparing import LANGUAGE, ComposedPreparer, ends, room, wording
from multitune.models.families.generative.prompt import prompt
from multitune.models.families.generative.whole import build_whole
from multitune.models.load import LoadedModel, Tower, TowerSpec, Weights, load_model

RESERVED = (LANGUAGE, "connector")


class Options(catalog.Options):
    """towers: part -> tower. connector: from a tower's tokens to the language model. lm: a causal language model.

    pretrained: instead of these, a whole model as it is. prompt: a template over the text parts.
    """

    towers: dict[str, TowerSpec] = Field(default_factory=dict)
    connector: Component = Component(name="linear")
    lm: TowerSpec | None = None
    pretrained: TowerSpec | None = None
    prompt: str = ""

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Options:
        if (self.lm is None) == (self.pretrained is None):
            raise ValueError("give either lm (with towers) or pretrained")
        if self.pretrained is not None and self.towers:
            raise ValueError("pretrained is a whole model; it takes no towers")
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
    if options.pretrained is not None and media:
        return cast("Family", build_whole(options.pretrained, template, answer, media, needs, weights))
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
    random = spec.weights == "random"
    name = f"towers/{LANGUAGE}"
    return load_model(name, spec.pretrained, kind="causal_lm", weights=weights, allow_new=spec.allow_new, dtype=spec.dtype, random=random)


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
