"""What all sides are asked: texts whose lengths stand in a file, and a BERT made from its config with a tokenizer of whole words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

LENGTHS = Path(__file__).parent / "lengths.json"
WORDS = 2000
LABELS = ("even", "odd")
SIZES = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 768, "max_position_embeddings": 512}
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
BATCH, ENDS = 16, 2  # rows of a batch; tokens around a text


def tokens(rows: int) -> list[int]:
    """The lengths of the first rows in tokens, those at both ends among them."""
    return json.loads(LENGTHS.read_text("utf-8"))[:rows]


def without_padding(lengths: Sequence[int]) -> list[int]:
    """As many rows with as many tokens, to a few, that come in batches of one length: nothing of them is padded.

    As many lengths, too, as batches of like length are padded to: a kernel that meets a new size may first have to be made.
    """
    made: list[int] = []
    owed = 0.0
    for start in range(0, len(lengths), BATCH):
        mean = float(np.mean(sorted(lengths)[start : start + BATCH])) + owed
        made += [max(ENDS + 1, round(mean))] * BATCH
        owed = mean - made[-1]
    return made[: len(lengths)]


def written(folder: Path, rows: int) -> dict[str, Any]:
    """The job, its rows and its model's folder written."""
    folder.mkdir(parents=True, exist_ok=True)
    _model(folder / "model")
    lengths = tokens(rows)
    files = {"rows": lengths, "even": without_padding(lengths)}
    for name, counted in files.items():
        lines = (json.dumps(row) for row in _rows(counted))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return {
        "rows": str(folder / "rows.jsonl"),
        "even": str(folder / "even.jsonl"),
        "model": str(folder / "model"),
        "labels": list(LABELS),
        "steps": rows // BATCH,
        "batch": BATCH,
        "seed": 0,
        "lr": 3e-4,
        "weight_decay": 0.01,
        "betas": [0.9, 0.999],
        "eps": 1e-8,
        "clip_norm": 1.0,
        "tokens": {name: sum(counted) for name, counted in files.items()},
    }


def _rows(lengths: Sequence[int]) -> list[Mapping[str, str]]:
    rng = np.random.default_rng(7)
    texts = [rng.integers(0, WORDS, length - ENDS) for length in lengths]
    return [
        {"id": f"r{place}", "text": " ".join(f"w{word}" for word in text), "label": LABELS[int(text[0]) % 2]}
        for place, text in enumerate(texts)
    ]


def _model(folder: Path) -> None:
    words = {word: place for place, word in enumerate([*SPECIAL, *(f"w{number}" for number in range(WORDS))])}
    backend = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = WhitespaceSplit()
    ends = [("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])]
    backend.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=512, **named).save_pretrained(folder)
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model("bert", vocab_size=len(words), pad_token_id=0, **SIZES)).save_pretrained(folder)
