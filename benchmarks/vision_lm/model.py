"""A small model as LLaVA is built, from its config alone, and pictures of coloured shapes with a question, as files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, decoders, models
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast

from multitune.core.randomness import generator

ENDS = ["<s>", "</s>", "<pad>", "<image>"]
SIDE, PATCH = 224, 16
VISION = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 12, "num_attention_heads": 3}
LANGUAGE = {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4}
TEMPLATE = (
    "<s>{% for message in messages %}{% if message['role'] == 'assistant' %}{{ ' ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% else %}{{ '<image>' }}{% endif %}{% endfor %}{% if message['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ' }}{% endif %}"
)
COLOURS = {"red": (200, 40, 40), "green": (40, 170, 60), "blue": (50, 70, 200)}
SHAPES = ("circle", "square")
SIZE = (320, 240)


def write_model(folder: Path) -> None:
    """Weights drawn from a fixed seed, with the files of a processor."""
    folder.mkdir(parents=True)
    vocabulary = {token: place for place, token in enumerate([*ENDS, *sorted(ByteLevel.alphabet())])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer, backend.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    names: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "additional_special_tokens": ["<image>"]}
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=1000, **names).save_pretrained(folder)
    vision = {"model_type": "clip_vision_model", "image_size": SIDE, "patch_size": PATCH, "projection_dim": 64} | VISION
    text = {"model_type": "llama", "vocab_size": len(vocabulary), "max_position_embeddings": 400} | LANGUAGE
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    more = {"image_token_index": ENDS.index("<image>"), "image_seq_length": (SIDE // PATCH) ** 2, "pad_token_id": 2}
    torch.default_generator.manual_seed(0)
    config = AutoConfig.for_model("llava", vision_config=vision, text_config=text, **more)
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    pictures = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    own = {"processor_class": "LlavaProcessor", "patch_size": PATCH, "num_additional_image_tokens": 1, "image_token": "<image>"}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures), "utf-8")
    (folder / "processor_config.json").write_text(json.dumps(own | {"vision_feature_select_strategy": "default"}), "utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, "utf-8")


def write_rows(folder: Path, rows: int) -> Path:
    """JPEG files and a table of them; one row in eight is for validation, one for the test."""
    folder.mkdir(parents=True)
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["photo", "question", "answer", "split"])
        for place in range(rows):
            random = generator("vision-lm", place)
            colour, shape = [*COLOURS][int(random.integers(3))], SHAPES[int(random.integers(2))]
            _picture(random, colour, shape).save(folder / f"{place}.jpg", quality=90)
            split = {0: "valid", 1: "test"}.get(place % 8, "train")
            table.writerow([f"{place}.jpg", "What is it?", f"a {colour} {shape}", split])
    return folder / "rows.csv"


def _picture(random: np.random.Generator, colour: str, shape: str) -> Image.Image:
    made = Image.fromarray(random.integers(90, 160, (SIZE[1], SIZE[0], 3), dtype=np.uint8))
    left, top, size = (int(random.integers(low, high)) for low, high in ((0, 200), (0, 120), (60, 120)))
    box = (left, top, left + size, top + size)
    draw = ImageDraw.Draw(made)
    (draw.ellipse if shape == "circle" else draw.rectangle)(box, fill=COLOURS[colour])
    return made
