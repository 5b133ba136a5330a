"""Small language models and a picture tower made from configs, and the generative family built of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models
from tokenizers.pre_tokenizers import ByteLevel
from torch.nn import functional
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast

from multitune.core import catalog
from multitune.core.protocols import AnswerNeed, Batch, Needs, Part, PartNeed, Prediction, Sample, Text
from multitune.core.randomness import generator
from multitune.models.load import Weights
from multitune.models.predictor import Forgetful, Predictor

SPECIAL = ["<s>", "</s>", "<pad>", "<image>"]
VOCABULARY = len(SPECIAL) + 256
IGNORED = -100
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 160, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 160,
}
NEEDS = Needs({"image": PartNeed("image"), "question": PartNeed("text")}, {"caption": AnswerNeed("text")})
Folders = Mapping[str, Path]


def write_folders(root: Path) -> Folders:
    """Small models in folders: a picture tower and two language models, all weights drawn."""
    torch.default_generator.manual_seed(1)
    vit = AutoConfig.for_model(
        "vit", hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8
    )
    AutoModel.from_config(vit).save_pretrained(root / "vit")
    (root / "vit" / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}'
    )
    for name, sizes in {"gpt2": GPT2, "llama": LLAMA}.items():
        config = AutoConfig.for_model(name, vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1, pad_token_id=2, **sizes)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            parameter.data.mul_(4)  # as drawn, all logits are so near each other that a wrong token would hardly show
        model.save_pretrained(root / name)
        tokenizer().save_pretrained(root / name)
    return {path.name: path for path in root.iterdir()}


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and four special ones."""
    vocabulary = {token: place for place, token in enumerate([*SPECIAL, *sorted(ByteLevel.alphabet())])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
        model_max_length=1000,
    )


def built(folders: Folders, needs: Needs = NEEDS, weights: Weights | None = None, lm: str = "gpt2", **options: Any) -> Any:
    given = {"lm": {"pretrained": str(folders[lm])}, "towers": {"image": {"pretrained": str(folders["vit"])}}} | options
    return catalog.find("family", "generative", given).build(needs, weights or Weights())


def text_model(folders: Folders, lm: str = "gpt2", **options: Any) -> Any:
    """A language model alone."""
    return built(folders, replace(NEEDS, parts={}), lm=lm, towers={}, **options)


def row(place: int, caption: str | None = "a red star", question: str | None = "what is it?", picture: bool = True) -> Sample:
    random = generator("picture", place)
    parts = {"image": Part("image", random.integers(0, 255, (12 + place, 20, 3), dtype=np.uint8))} if picture else {}
    parts |= {} if question is None else {"question": Part("text", question)}
    parts |= {} if caption is None else {"caption": Part("text", caption)}
    return Sample(f"row-{place}", parts)


ROWS = [
    row(0),
    row(1, "a blue ring on the left", "which?"),
    row(2, "no", "and this? " * 3),
    row(3, "a moon", picture=False),
    row(4, "x", None),
]


def batched(family: Any, samples: Sequence[Sample]) -> Batch:
    return family.preparer.collate([family.preparer.prepare(sample, Forgetful()) for sample in samples])


def loss(family: Any, batch: Batch) -> torch.Tensor:
    logits = family(batch).logits["caption"]
    return functional.cross_entropy(logits.flatten(0, 1), batch.answers["caption"].flatten(), ignore_index=IGNORED, reduction="sum")


def said(family: Any, samples: Sequence[Sample], **generate: Any) -> list[Text]:
    predictions: list[Prediction] = Predictor(family, group_rows=4, generate={"max_new_tokens": 8} | generate).predict(samples)
    return [prediction.answers["caption"] for prediction in predictions]
