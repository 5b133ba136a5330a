"""Small encoder-decoders in folders, made from configs: two that read text, one that hears, one that sees."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, processors
from tokenizers.pre_tokenizers import ByteLevel
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    PreTrainedTokenizerFast,
    WhisperTokenizer,
)

from multitune.core import catalog
from multitune.core.protocols import AnswerNeed, Batch, Needs, Part, PartNeed, Prediction, Sample, Sound, Text
from multitune.core.randomness import generator
from multitune.models.load import Weights
from multitune.models.predictor import Forgetful, Predictor

IGNORED = -100
BYTES = sorted(ByteLevel.alphabet())
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
SIDES = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
WIDE = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "dropout": 0.0}
BART = SIDES | WIDE | {"max_position_embeddings": 80}
WINDOW = {"num_mel_bins": 20, "max_source_positions": 50, "max_target_positions": 40}
WHISPER: Mapping[str, Any] = SIDES | WIDE | WINDOW | {"begin_suppress_tokens": None}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
TEXTS = {"hidden_size": 32, "encoder_hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
WRITER = TEXTS | {"max_position_embeddings": 40, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
HEARD = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|zh|>",
    "<|transcribe|>",
    "<|translate|>",
    "<|startofprev|>",
    "<|notimestamps|>",
]
KINDS = ("t5", "bart", "whisper", "blip")
READS = {"t5": "text", "bart": "text", "whisper": "audio", "blip": "image"}
AUTOS: Mapping[str, Any] = {
    "t5": AutoModelForSeq2SeqLM,
    "bart": AutoModelForSeq2SeqLM,
    "whisper": AutoModelForSpeechSeq2Seq,
    "blip": AutoModelForImageTextToText,
}
READ: Mapping[str, Any] = {"model_input_names": ["input_ids", "attention_mask"]}
Folders = Mapping[str, Path]


def write_folders(root: Path) -> Folders:
    """One folder for each of `KINDS`, all weights drawn and large enough that a wrong one shows."""
    _save(root / "t5", "t5", _t5(root / "t5"), pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, **T5)
    ends = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    _save(root / "bart", "bart", _bart(root / "bart"), **ends, **BART)
    heard = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "decoder_start_token_id": 1}
    _save(root / "whisper", "whisper", _whisper(root / "whisper"), **heard, **WHISPER)
    size = _blip(root / "blip")
    text = WRITER | {"vocab_size": size, "bos_token_id": 4, "eos_token_id": 2, "pad_token_id": 0, "sep_token_id": 3}
    _save(root / "blip", "blip", size, vision_config=VISION, text_config=text)
    return {kind: root / kind for kind in KINDS}


def _save(folder: Path, kind: str, size: int, **sizes: Any) -> None:
    stated = sizes if "text_config" in sizes else sizes | {"vocab_size": size}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        model = AUTOS[kind].from_config(AutoConfig.for_model(kind, **stated))
        for name, parameter in model.named_parameters():
            parameter.data.mul_(1 if kind == "t5" or parameter.dim() < 2 or "norm" in name else 3)
        model.save_pretrained(folder)


def _fast(folder: Path, special: Sequence[str], template: str, **names: str) -> int:
    vocabulary = {token: place for place, token in enumerate([*special, *BYTES])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer, backend.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    used = [(token, vocabulary[token]) for token in special if token in template]
    backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    extra = [AddedToken(token, special=True, normalized=False) for token in special if token not in names.values()]
    made = PreTrainedTokenizerFast(tokenizer_object=backend, additional_special_tokens=extra, model_max_length=64, **READ, **names)
    made.save_pretrained(folder)
    return len(made)


def _t5(folder: Path) -> int:
    special = ["<pad>", "</s>", "<unk>", "<extra_id_0>"]
    return _fast(folder, special, "$A </s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _bart(folder: Path) -> int:
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "mask_token": "<mask>"}
    return _fast(folder, ["<s>", "<pad>", "</s>", "<mask>"], "<s> $A </s>", **names)


def _whisper(folder: Path) -> int:
    folder.mkdir(parents=True)
    vocabulary = {token: place for place, token in enumerate([*HEARD, *BYTES])}
    extra = [AddedToken(token, special=True, normalized=False) for token in HEARD[1:]]
    made = WhisperTokenizer(vocab=vocabulary, merges=[], additional_special_tokens=extra, language="en", task="transcribe")
    made.save_pretrained(folder)
    sounds = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 20, "chunk_length": 1, "sampling_rate": 16000}
    (folder / "preprocessor_config.json").write_text(json.dumps(sounds | {"processor_class": "WhisperProcessor"}))
    return len(made)


def _blip(folder: Path) -> int:
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    size = _fast(folder, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]"], "[CLS] $A [SEP]", **names)
    pictures = {"image_processor_type": "BlipImageProcessor", "size": {"height": 16, "width": 16}, "processor_class": "BlipProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    return size


def needs(kind: str, more: Mapping[str, PartNeed] | None = None, **options: Any) -> Needs:
    """One part, `source`, that the kind reads, and the answer `said`; options are the answer's."""
    return Needs({"source": PartNeed(READS[kind]), **(more or {})}, {"said": AnswerNeed("text", options=options)})


def built(folder: Path | str, needs: Needs, weights: Weights | None = None, **options: Any) -> Any:
    """The family of a folder."""
    return catalog.find("family", "generative", {"pretrained": str(folder), **options}).build(needs, weights or Weights())


def row(kind: str, place: int, said: str | None = "a red star", **texts: str) -> Sample:
    """A sample whose source is a text, a sound or a picture of its own."""
    random = generator("source", place)
    made: dict[str, Any] = {
        "text": "what is number " + "0123456789"[place] * (3 * place + 1) + "?",
        "audio": Sound(random.normal(0, 0.3, 4000 + 900 * place).astype(np.float32), 16000),
        "image": random.integers(0, 255, (12 + place, 20, 3), dtype=np.uint8),
    }
    parts = {"source": Part(READS[kind], made[READS[kind]])} | {name: Part("text", text) for name, text in texts.items()}
    return Sample(f"row-{place}", parts | ({} if said is None else {"said": Part("text", said)}))


def rows(kind: str) -> list[Sample]:
    """Five rows of different lengths; their answers too."""
    return [row(kind, place, said) for place, said in enumerate(["a red star", "no", "x", "a blue ring on it", "a moon"])]


def batched(family: Any, samples: Sequence[Sample]) -> Batch:
    """The samples as a batch."""
    return family.preparer.collate([family.preparer.prepare(sample, Forgetful()) for sample in samples])


def loss(family: Any, batch: Batch) -> torch.Tensor:
    """Cross-entropy summed over the answers' tokens."""
    logits = family(batch).logits["said"]
    return functional.cross_entropy(logits.flatten(0, 1), batch.answers["said"].flatten(), ignore_index=IGNORED, reduction="sum")


def written(family: Any, samples: Sequence[Sample], **generate: Any) -> list[Text]:
    """What the predictor writes."""
    predictions: list[Prediction] = Predictor(family, group_rows=4, generate={"max_new_tokens": 8} | generate).predict(samples)
    return [cast("Text", prediction.answers["said"]) for prediction in predictions]
