"""The two sides of an encoder-decoder: what reads, what writes, and where the one hands over to the other."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from transformers import PreTrainedModel

from multitune.core.errors import ModelError
from multitune.models import tokens
from multitune.models.families.generative.preparing import LONGEST
from multitune.models.signals import Signal

WHERE = "model.pretrained"
Seam = Literal["encoder_outputs", "encoder_hidden_states"]


@dataclass(frozen=True)
class Sides:
    """seam: the argument that takes the encoder's tokens: of the whole model (`encoder_outputs`), or of a decoder that writes itself.

    reads: the modality of the encoder.
    """

    encoder: PreTrainedModel
    decoder: PreTrainedModel
    seam: Seam
    reads: str


def sides(model: PreTrainedModel, modality: str) -> Sides | None:
    """The two sides as Transformers names them, or None for a model that is not made of two.

    modality: what the encoder is to read: text, image or audio.
    Raises: ModelError for an encoder that reads something else, or masking that the encoder alone would not do.
    """
    decoder = model.get_decoder()
    if model.config.is_encoder_decoder and _takes(model, "encoder_outputs"):
        encoder, seam = model.get_encoder(), "encoder_outputs"
    elif decoder is not model and decoder.can_generate() and decoder.config.is_decoder and _takes(decoder, "encoder_hidden_states"):
        encoder, seam = model.get_encoder(None if modality == "text" else modality), "encoder_hidden_states"
    else:
        return None
    reads = tokens.modality_of(encoder) if isinstance(encoder, PreTrainedModel) else ""
    if reads != modality:
        found = f"its encoder reads {reads or 'several modalities at once'}; the parts give it {modality}."
        raise ModelError(WHERE, found, "Name the folder of a model that reads your parts, or compose one: lm, towers and a connector.")
    if model.config.to_dict().get("apply_spec_augment"):
        found = "config.json asks for SpecAugment, which this model applies before its encoder, and only when it is called as a whole."
        raise ModelError(WHERE, found, "Set apply_spec_augment to false in config.json.")
    return Sides(cast("PreTrainedModel", encoder), decoder, seam, reads)


@dataclass(frozen=True)
class Frame:
    """Token ids around an answer: what is given before it, what the model learns to end with, what ends the writing."""

    start: tuple[int, ...]
    end: int
    stop: tuple[int, ...]


def frame(model: PreTrainedModel, parts: Sides, tokenizer: Any, begin: str) -> Frame:
    """The ends that the tokenizer puts around a target text, after the token that the decoder starts with.

    begin: the text to start with instead of the tokenizer's own first tokens, such as `<|zh|><|transcribe|>`.
    Raises: ModelError for a folder that states no start token, or a tokenizer without an end token.
    """
    before, after = _around(tokenizer)
    stated = cast("Any", model if parts.seam == "encoder_outputs" else parts.decoder).generation_config
    first = stated.decoder_start_token_id if parts.seam == "encoder_outputs" else stated.bos_token_id
    first = stated.bos_token_id if first is None else first
    if first is None:
        found = "neither config.json nor generation_config.json states decoder_start_token_id."
        raise ModelError(WHERE, found, "State it in generation_config.json.")
    end = after[0] if after else tokenizer.eos_token_id
    if end is None:
        raise ModelError(WHERE, "its tokenizer has no end token (eos_token).", "State one in tokenizer_config.json.")
    if begin:
        before = [int(token) for token in tokenizer(begin, add_special_tokens=False, verbose=False)["input_ids"]]
    elif parts.seam == "encoder_hidden_states":  # its `generate` puts the start token in place of the tokenizer's
        before = before[1:]
    more = stated.eos_token_id
    stop = [end, *([] if more is None else [more] if isinstance(more, int) else more)]
    start = before if before[:1] == [first] else [first, *before]
    return Frame(tuple(start), int(end), tuple(dict.fromkeys(map(int, stop))))


def room(decoder: PreTrainedModel) -> int:
    """The most tokens that the decoder has positions for."""
    config = decoder.config.to_dict()
    stated = [config.get(name) for name in ("max_target_positions", "max_position_embeddings")]
    return next((int(limit) for limit in stated if isinstance(limit, int)), LONGEST)


def refuse_other_processor(model: PreTrainedModel, parts: Sides, signal: Signal, tokenizer: Any) -> None:
    """Refuse a processor that belongs to other weights: ids without an embedding, or an input that the encoder cannot read.

    Raises: ModelError.
    """
    largest, rows = max(tokenizer.get_vocab().values()), cast("Any", model.get_input_embeddings()).weight.shape[0]
    if largest >= rows:
        found = f"its tokenizer gives ids up to {largest}; the model has embeddings for {rows}."
        raise ModelError(WHERE, found, "Use the tokenizer that was saved with these weights.")
    tried = tokens.runnable(parts.encoder)
    weight = next(tried.parameters())
    inputs = {name: value.to(weight.device) for name, value in signal.batch([signal.row(signal.sample())]).items()}
    with torch.no_grad():
        try:
            tokens.read(tried, inputs, pool="mean")
        except (RuntimeError, ValueError, IndexError) as error:
            if weight.is_meta and not isinstance(error, ValueError):
                return  # some models read numbers on their way, which shapes alone do not have
            reason = str(error).strip().splitlines()[0][:200]
            raise ModelError(WHERE, f"its encoder cannot read what its processor gives: {reason}", _OWN) from None


_OWN = "Use the processor that was saved with these weights."


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and after a target text."""
    full = [int(token) for token in tokenizer(text_target="a", verbose=False)["input_ids"]]
    own = [int(token) for token in tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"]]
    for place in range(len(full) - len(own) + 1):
        if full[place : place + len(own)] == own:
            return full[:place], full[place + len(own) :]
    return [], []


def _takes(module: PreTrainedModel, name: str) -> bool:
    return name in inspect.signature(module.forward).parameters


def the_one(media: Sequence[str], reads: str) -> str:
    """The one part that an encoder of pictures or sounds reads.

    Raises: ModelError for several.
    """
    if len(media) != 1:
        found = f"its encoder reads one part of {reads}; the recipe has {', '.join(media)}."
        raise ModelError(WHERE, found, "Drop the others, or compose: lm, towers and a connector.")
    return media[0]
