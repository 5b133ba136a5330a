"""What all sides are asked: pictures and their captions, and a CLIP made from its config, drawn from a seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from multitune.core.randomness import generator

SIDE, PATCH, WORDS, LENGTH = 64, 8, 400, 14  # pixels, of a patch; known words; words of a caption
BLOCKS = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 2}
WIDTH = 128  # of the common space
SCALE = 20.0  # of the cosines: the peer's default, which it holds fixed
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def written(folder: Path, rows: int) -> dict[str, Any]:
    """The job's files: the model's folder, the pictures, their table."""
    model, pictures = folder / "model", folder / f"pictures-{rows}"
    if not model.is_dir():
        _model(model)
    if not pictures.is_dir():
        _pictures(pictures, rows)
    return {
        "model": str(model),
        "table": str(pictures / "rows.jsonl"),
        "seed": 0,
        "lr": 1e-4,
        "weight_decay": 0.01,
        "betas": [0.9, 0.999],
        "eps": 1e-8,
        "clip_norm": 1.0,
    }


def caption(number: int) -> str:
    """The words of a row: no two rows have the same."""
    drawn = generator("contrastive", "words", number).integers(0, WORDS, LENGTH)
    return " ".join(f"w{word}" for word in drawn)


def _pictures(folder: Path, rows: int) -> None:
    folder.mkdir(parents=True)
    lines: list[Mapping[str, str]] = []
    for number in range(rows):
        drawn = generator("contrastive", "picture", number).integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
        Image.fromarray(drawn).resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(folder / f"{number}.png")
        lines.append({"id": str(number), "image": f"{number}.png", "caption": caption(number)})
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def _model(folder: Path) -> None:
    words = {word: place for place, word in enumerate([*SPECIAL, *(f"w{number}" for number in range(WORDS))])}
    backend = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = WhitespaceSplit()
    ends = [("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])]
    backend.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=LENGTH + 2, **named).save_pretrained(folder)
    text = {"vocab_size": len(words), "max_position_embeddings": LENGTH + 2, **BLOCKS}
    text |= {"bos_token_id": words["[CLS]"], "eos_token_id": words["[SEP]"], "pad_token_id": words["[PAD]"]}
    vision = {"image_size": SIDE, "patch_size": PATCH, **BLOCKS}
    config = AutoConfig.for_model(
        "clip", text_config=text, vision_config=vision, projection_dim=WIDTH, logit_scale_init_value=float(np.log(SCALE))
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
    sides = {"height": SIDE, "width": SIDE}
    pictures = {"image_processor_type": "CLIPImageProcessor", "size": sides, "do_center_crop": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures), "utf-8")
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}), "utf-8")
