"""Untrained folders of the four `tiny` towers: ordinary Hugging Face folders with configs, processors and first weights.

`write_start(folder)` gives `image`, `audio`, `text` and `lm` below `folder`. Training starts from these; at this width
Transformers' own first weights (deviation 0.02) hardly move in 600 steps, so they are drawn at 1/sqrt(inputs) instead, at most
0.09, and pictures and spectrograms get sines over both axes as their first positions.
"""

from __future__ import annotations

import json
import math
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from multitune.core.randomness import derive
from multitune.data.sources.chimes.words import VOCABULARY

WIDTH = 128
DEEP = {"hidden_size": WIDTH, "num_attention_heads": 4, "intermediate_size": 512}
UNDROPPED = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
MAX_TOKENS = 128
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")
SPOKEN = """
I a about above after again all also always an and any are as at back be because been before below best between big both bright but by
can child colour could dark day different do does dog down each eight every few find first five for four from get go good great green
had half has have he her here high him his how if in into is it its just kind large last left less light like line little long look
loud low made make man many may me middle more most much music my name near new next night nine no not note now number of off old on
one only or other our out over part people photo picture place play quiet right round same say scene see seven shape she short show
side six small so some sound square such take ten than that the their them then there these they thing this three through time to
tone top tune two under up use very voice was water way we well were what when where which while white who will with without woman
word work would yes you your zero black brown grey white cat car house tree
"""

# `mean` and `std` are those of log-mel values over chimes (the extractor divides by twice `std`).
IMAGE_PROCESSOR: Mapping[str, Any] = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 64, "width": 64},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "do_convert_rgb": True,
}
AUDIO_EXTRACTOR: Mapping[str, Any] = {
    "feature_extractor_type": "ASTFeatureExtractor",
    "feature_size": 1,
    "sampling_rate": 16_000,
    "num_mel_bins": 64,
    "max_length": 96,
    "do_normalize": True,
    "mean": -3.3,
    "std": 3.8,
    "padding_value": 0.0,
    "padding_side": "right",
    "return_attention_mask": False,
}


def write_start(folder: Path, *, seed: int = 0) -> None:
    """Write the four start folders below `folder`; the same seed gives the same bytes."""
    _write_image(folder / "image", seed)
    _write_audio(folder / "audio", seed)
    tokenizer = make_tokenizer()
    _write_text(folder / "text", tokenizer, seed)
    _write_lm(folder / "lm", tokenizer, seed)


def make_tokenizer() -> Tokenizer:
    """Words that the embedded data say are one token, and so are common words; all else is spelled in characters, then bytes.

    No text is lost: what is decoded equals what was encoded, whatever its language.
    """
    words = sorted({f"▁{word}" for word in (*VOCABULARY, *SPOKEN.split(), *string.digits)})
    letters = sorted({*string.ascii_letters, *string.digits, *string.punctuation, "▁"} - set(words))
    octets = [f"<0x{value:02X}>" for value in range(256)]
    pieces = [(token, 0.0) for token in SPECIAL]
    pieces += [(word, -4.0) for word in words] + [(letter, -9.0) for letter in letters] + [(octet, -12.0) for octet in octets]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=SPECIAL.index("<unk>"), byte_fallback=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always"), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def _write_tokenizer(folder: Path, tokenizer: Tokenizer, *, ends: bool) -> None:
    """Save it in `folder`; ends: put `<s>` before and `</s>` after every text, as encoders of text expect."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    if ends:
        marks = [(token, SPECIAL.index(token)) for token in ("<s>", "</s>")]
        copy.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=marks)
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token", "mask_token"), SPECIAL, strict=True))
    if ends:
        names |= {"cls_token": "<s>", "sep_token": "</s>"}
    inputs = ["input_ids", "attention_mask"]
    PreTrainedTokenizerFast(
        tokenizer_object=copy, model_max_length=MAX_TOKENS, model_input_names=inputs, clean_up_tokenization_spaces=False, **names
    ).save_pretrained(folder)


def _write_image(folder: Path, seed: int) -> None:
    config = AutoConfig.for_model("vit", image_size=64, patch_size=16, num_hidden_layers=5, **DEEP, **UNDROPPED)
    model = AutoModel.from_config(config, add_pooling_layer=False)
    redraw(model, seed=derive("tiny", seed, "image"))
    _set_positions(model, high=4, wide=4)
    model.save_pretrained(folder)
    _write_processor(folder, IMAGE_PROCESSOR)


def _write_audio(folder: Path, seed: int) -> None:
    mel, frames = AUDIO_EXTRACTOR["num_mel_bins"], AUDIO_EXTRACTOR["max_length"]
    config = AutoConfig.for_model(
        "audio-spectrogram-transformer",
        num_mel_bins=mel,
        max_length=frames,
        patch_size=16,
        frequency_stride=16,
        time_stride=16,
        num_hidden_layers=5,
        **DEEP,
        **UNDROPPED,
    )
    model = AutoModel.from_config(config)
    redraw(model, seed=derive("tiny", seed, "audio"))
    _set_positions(model, high=mel // 16, wide=frames // 16)
    model.save_pretrained(folder)
    _write_processor(folder, AUDIO_EXTRACTOR)


def _write_text(folder: Path, tokenizer: Tokenizer, seed: int) -> None:
    config = AutoConfig.for_model(
        "bert",
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=MAX_TOKENS,
        type_vocab_size=1,
        num_hidden_layers=4,
        pad_token_id=SPECIAL.index("<pad>"),
        **DEEP,
        **UNDROPPED,
    )
    model = AutoModel.from_config(config, add_pooling_layer=False)
    redraw(model, seed=derive("tiny", seed, "text"))
    model.save_pretrained(folder)
    _write_tokenizer(folder, tokenizer, ends=True)


def _write_lm(folder: Path, tokenizer: Tokenizer, seed: int) -> None:
    config = AutoConfig.for_model(
        "gpt2",
        vocab_size=tokenizer.get_vocab_size(),
        n_positions=MAX_TOKENS,
        n_embd=WIDTH,
        n_layer=5,
        n_head=4,
        n_inner=512,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=SPECIAL.index("<s>"),
        eos_token_id=SPECIAL.index("</s>"),
        pad_token_id=SPECIAL.index("<pad>"),
        tie_word_embeddings=True,
    )
    model = AutoModelForCausalLM.from_config(config)
    redraw(model, seed=derive("tiny", seed, "lm"))
    model.save_pretrained(folder)
    _write_tokenizer(folder, tokenizer, ends=False)


def _write_processor(folder: Path, settings: Mapping[str, Any]) -> None:
    """Have the library itself read and write the settings, so that the file has the form it wants."""
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(dict(settings)), "utf-8")
    loader = AutoImageProcessor if "image_processor_type" in settings else AutoFeatureExtractor
    loader.from_pretrained(folder).save_pretrained(folder)


def redraw(model: PreTrainedModel, *, seed: int) -> None:
    """Draw every matrix anew: normal, deviation 1/sqrt(inputs) but at most 0.09; biases and norms stay as they are."""
    draws = torch.Generator().manual_seed(seed)
    seen: set[int] = set()
    with torch.no_grad():
        for module in model.modules():
            for name, weight in module.named_parameters(recurse=False):
                if weight.dim() < 2 or id(weight) in seen:
                    continue
                seen.add(id(weight))
                weight.normal_(0.0, min(1 / math.sqrt(_inputs(module, name, weight)), 0.09), generator=draws)


def _inputs(module: nn.Module, name: str, weight: Tensor) -> int:
    """How many values one output sums over. GPT-2's `Conv1D` keeps its matrix (inputs, outputs), and so do embeddings."""
    if isinstance(module, nn.Linear | nn.Conv2d) and name == "weight":
        return weight[0].numel()
    return weight.shape[0] if weight.dim() == 2 and not isinstance(module, nn.Embedding) else weight.shape[-1]


def _set_positions(model: PreTrainedModel, *, high: int, wide: int) -> None:
    """Sines over rows and columns at half height as first positions; the marks before the patches keep zero."""
    (positions,) = (weight for name, weight in model.named_parameters() if name.endswith("position_embeddings"))
    with torch.no_grad():
        positions.zero_()
        positions[0, -high * wide :] = 0.5 * sines(high=high, wide=wide, width=positions.shape[-1])


def sines(*, high: int, wide: int, width: int) -> Tensor:
    """Positions (high * wide, width): half of the channels for the row, half for the column, in sines and cosines.

    Frequencies fall from 1 to 1/100, since no axis is longer than a few patches.
    """
    rates = 100.0 ** -torch.linspace(0, 1, width // 4)
    row, column = torch.meshgrid(torch.arange(high), torch.arange(wide), indexing="ij")
    waves = [turn(axis.flatten()[:, None] * rates) for axis in (row, column) for turn in (torch.sin, torch.cos)]
    return torch.cat(waves, dim=1)
