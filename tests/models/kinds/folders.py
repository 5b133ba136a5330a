"""A kind as a real folder: a model made from its config, drawn, saved, with its tokenizer and processor files beside it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, processors
from tokenizers.pre_tokenizers import ByteLevel
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    PreTrainedTokenizerFast,
    WhisperTokenizer,
)

from multitune.core.randomness import derive
from tests.models.kinds.kind import HEARD, TOKENS, Kind

CLASSES = {
    "AutoModel": AutoModel,
    "AutoModelForImageTextToText": AutoModelForImageTextToText,
    "AutoModelForSeq2SeqLM": AutoModelForSeq2SeqLM,
    "AutoModelForSpeechSeq2Seq": AutoModelForSpeechSeq2Seq,
}


def write(kind: Kind, folder: Path) -> Path:
    """The folder of a kind; its numbers follow from its name."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive("kind", kind.name))
        model = CLASSES[kind.opened_as].from_config(AutoConfig.for_model(kind.name, **kind.config))
        for parameter in model.parameters():
            parameter.data.mul_(2 if parameter.dim() > 1 else 1)  # drawn numbers are small: a wrong one should show
        if set(kind.parts.values()) == {"image"}:
            _settle(model)
    model.save_pretrained(folder)
    for name, content in kind.files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    if kind.tokenizer == "heard":
        _heard().save_pretrained(folder)
    elif kind.tokenizer:
        tokenizer(marked=kind.tokenizer == "marked").save_pretrained(folder)
    return folder


def _settle(model: torch.nn.Module) -> None:
    """Give batch norms statistics of real inputs, as a pretrained model has them: as drawn, signals die out in deep chains."""
    if any(hasattr(module, "running_mean") for module in model.modules()):
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.ones_(module.weight)
        with torch.no_grad():
            for _ in range(40):
                model.train()(pixel_values=functional.interpolate(torch.rand(16, 3, 4, 4), (32, 32), mode="bilinear"))
        model.eval()


def _heard() -> WhisperTokenizer:
    """A tokenizer whose text begins with what is to be done in which language."""
    vocabulary = {token: place for place, token in enumerate([*HEARD, *sorted(ByteLevel.alphabet())])}
    more = [AddedToken(token, special=True, normalized=False) for token in HEARD[1:]]
    return WhisperTokenizer(vocab=vocabulary, merges=[], additional_special_tokens=more, language="en", task="transcribe")


def tokenizer(*, marked: bool) -> PreTrainedTokenizerFast:
    """One token a byte, and the special ones. marked: a start and an end token stand around each text."""
    vocabulary = {token: place for place, token in enumerate([*TOKENS, *sorted(ByteLevel.alphabet())])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if marked:
        ends = [(token, vocabulary[token]) for token in ("<s>", "</s>")]
        backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        additional_special_tokens=list(TOKENS[5:]),
        model_max_length=1000,
    )
