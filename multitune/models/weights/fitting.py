"""Whether a tower and its processor belong together: found by feeding the tower one small sample, before anything is spent."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from multitune.core.errors import ModelError
from multitune.core.finding import Finding, Severity
from multitune.models import tokens
from multitune.models.weights.judging import REFUSALS, said
from multitune.models.weights.limits import channels_of, way_into

OWN = "Use the processor that was saved with these weights."
Inputs = Mapping[str, Tensor]


def judge(module: PreTrainedModel, modality: str, processor: Any, *, where: str) -> tuple[Finding, ...]:
    """What a user should know of a tower that is called by itself, beside its processor.

    Raises: ModelError as `beside`, or for a processor that does not give all that the tower's forward asks for.
    """
    told = beside(module, modality, processor, where=where)
    given = sample(module, modality, processor, where=where)
    asked = inspect.signature(module.forward).parameters.values()
    plain = (one for one in asked if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY))
    lacking = [one.name for one in plain if one.default is one.empty and one.name not in given]
    if lacking:
        found = f"{type(module).__name__} needs {', '.join(lacking)}; its processor gives {', '.join(given)}."
        raise ModelError(where, found, "Choose a model whose processor feeds it as it is, without a head.")
    return told


def beside(module: PreTrainedModel, modality: str, processor: Any, *, where: str) -> tuple[Finding, ...]:
    """What a user should know of a tower beside its processor.

    Raises: ModelError for ids without an embedding, for pictures of other channels, or of a size that the tower cannot take.
    """
    if modality == "text":
        return of_tokenizer(module, processor, where=where)
    sizes = _sizes(module, sample(module, modality, processor, where=where)) if modality == "image" else None
    if sizes is None:
        return ()
    with suppress(RuntimeError), torch.no_grad():  # from the meta device, where some models cannot run
        run(tokens.runnable(module), modality, processor, "mean", where=where)
    (height, width), built = sizes
    found = f"its processor makes pictures of {height} x {width}, the tower was built for {built[0]} x {built[1]}; it takes them."
    evidence = {"processor": [height, width], "tower": [*built]}
    return (Finding("picture-size", Severity.INFO, where, found, "image_size would match the two.", evidence),)


def of_tokenizer(module: PreTrainedModel, tokenizer: Any, *, where: str) -> tuple[Finding, ...]:
    """What a user should know of a tokenizer beside the model that reads its ids.

    Raises: ModelError for ids that the model has no embedding for.
    """
    rows, largest = _embeddings(module), max(tokenizer.get_vocab().values(), default=0)
    if rows and largest >= rows:
        found = f"its tokenizer gives ids up to {largest}; the model has embeddings for {rows}."
        raise ModelError(where, found, "Use the tokenizer that was saved with these weights.")
    if tokenizer.pad_token_id is not None:
        return ()
    filler = tokenizer.eos_token or "the first token"
    found = f"its tokenizer has no padding token; {filler} fills short rows, under the mask."
    return (Finding("no-padding-token", Severity.INFO, where, found),)


def sample(module: PreTrainedModel, modality: str, processor: Any, *, where: str) -> dict[str, Tensor]:
    """One small sample, prepared for a tower.

    Raises: ModelError if the processor cannot, or gives pictures of other channels than the tower reads.
    """
    try:
        way = way_into(modality, module, processor)
        given = way.batch([way.row(way.sample())])
    except REFUSALS as error:
        grey = modality == "image" and channels_of(module) == 1
        remedy = "For grey pictures image_mean and image_std hold one number." if grey else OWN
        raise ModelError(where, f"its processor ({type(processor).__name__}) cannot prepare {modality}: {said(error)}.", remedy) from None
    pictures = _pictures(module, given)
    if modality == "image" and pictures is not None and pictures.shape[1] != channels_of(module):
        found = f"the tower reads pictures of {channels_of(module)} channels (num_channels), its processor gives {pictures.shape[1]}."
        raise ModelError(where, found, "Choose a tower of 3 channels (red, green, blue), or of 1, which gets grey pictures.")
    return given


def run(module: PreTrainedModel, modality: str, processor: Any, pool: tokens.Pool, *, where: str) -> tokens.Tokens:
    """What a tower makes of one small sample. On the meta device, where some models cannot run, a RuntimeError passes.

    Raises: ModelError if the tower cannot read what its processor gives.
    """
    given = sample(module, modality, processor, where=where)
    inputs = {name: value.to(module.device, module.dtype if value.is_floating_point() else None) for name, value in given.items()}
    try:
        return tokens.read(module, inputs, pool=pool)
    except ModelError:
        raise
    except REFUSALS as error:
        if module.device.type == "meta" and isinstance(error, RuntimeError):
            raise
        sizes = _sizes(module, given)
        if sizes is not None:
            (height, width), built = sizes
            found = f"its processor makes pictures of {height} x {width}, the tower was built for {built[0]} x {built[1]}: {said(error)}."
            remedy = f"Ask for image_size: {height}, or let preprocessor_config.json say {built[0]}."
            raise ModelError(where, found, remedy) from None
        raise ModelError(where, f"{type(module).__name__} cannot read what its processor gives: {said(error)}.", OWN) from None


def width(
    module: PreTrainedModel, modality: str, processor: Any, pool: tokens.Pool, *, where: str, anew: Callable[[], PreTrainedModel]
) -> int:
    """How wide the pooled vector is, found by running the tower; one that shapes alone cannot run is made `anew` in memory for it.

    Raises: ModelError as `run`.
    """
    with torch.no_grad():
        try:
            return run(tokens.runnable(module), modality, processor, pool, where=where).pooled.shape[-1]
        except RuntimeError:
            return run(anew(), modality, processor, pool, where=where).pooled.shape[-1]


def _sizes(module: PreTrainedModel, given: Inputs) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """What the processor makes and what the tower was built for, where the two differ."""
    pictures, stated = _pictures(module, given), module.config.to_dict().get("image_size")
    if pictures is None or not isinstance(stated, int | list | tuple):
        return None
    built = (stated, stated) if isinstance(stated, int) else tuple(cast("list[int]", stated))
    made = (int(pictures.shape[2]), int(pictures.shape[3]))
    return (made, (built[0], built[-1])) if made != built else None


def _pictures(module: PreTrainedModel, given: Inputs) -> Tensor | None:
    """The tensor (rows, channels, height, width) that a tower reads first, if it reads one."""
    first = given.get(module.main_input_name)
    return first if first is not None and first.dim() == 4 else None


def _embeddings(module: PreTrainedModel) -> int:
    try:
        table = module.get_input_embeddings()
    except RuntimeError:  # as Transformers says that a model has none
        return 0
    return table.num_embeddings if isinstance(table, nn.Embedding) else 0
