"""Small models in folders whose own processor joins pictures and text: one of fixed pictures, one whose pictures keep their shape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast

TALK = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 400,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
SIGHT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
ENDS = ["<s>", "</s>", "<pad>", "<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"]
TEMPLATE = (
    "<s>{% for message in messages %}{{message['role'] | upper}}: {% for line in message['content'] %}"
    "{% if line['type'] == 'text' %}{{line['text']}}{% else %}{{ 'PICTURE' }}\n{% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %}</s>{% else %}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT: ' }}{% endif %}"
)


def write_llava(folder: Path, sight: Mapping[str, Any] = SIGHT, talk: Mapping[str, Any] = TALK) -> Path:
    """A folder whose pictures all become as many tokens as its tower has patches."""
    size = _words(folder, "<|image_pad|>")
    patch, side = int(sight["patch_size"]), int(sight["image_size"])
    vision = {"model_type": "clip_vision_model", "projection_dim": 16} | dict(sight)
    text = {"model_type": "llama", "vocab_size": size} | dict(talk)
    more = {"image_token_index": ENDS.index("<|image_pad|>"), "image_seq_length": (side // patch) ** 2, "vision_feature_layer": -2}
    _model(folder, "llava", vision_config=vision, text_config=text, **more)
    pictures = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    own = {
        "patch_size": patch,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "image_token": "<|image_pad|>",
    }
    return _files(folder, pictures, {"processor_class": "LlavaProcessor"} | own)


def write_qwen(folder: Path) -> Path:
    """A folder whose pictures become more tokens the larger they are, all rows' in one axis."""
    size = _words(folder, "<|vision_start|><|image_pad|><|vision_end|>")
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "mlp_ratio": 2}
    text = {"vocab_size": size, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}} | dict(TALK)
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    _model(folder, "qwen2_vl", vision_config=vision, text_config=text, **{name: ENDS.index(token) for name, token in names.items()})
    pictures = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
    pictures |= {"min_pixels": 64, "max_pixels": 1024, "size": {"shortest_edge": 64, "longest_edge": 1024}}
    (folder / "video_preprocessor_config.json").write_text('{"video_processor_type": "Qwen2VLVideoProcessor"}')
    return _files(folder, pictures, {"processor_class": "Qwen2VLProcessor"})


def _words(folder: Path, picture: str) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: place for place, token in enumerate([*ENDS, *sorted(ByteLevel.alphabet())])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer, backend.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    names: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "additional_special_tokens": ENDS[3:]}
    made = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=1000, **names)
    made.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("PICTURE", picture))
    return len(made)


def _model(folder: Path, kind: str, **sizes: Any) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(kind, pad_token_id=2, **sizes))
        for parameter in model.parameters():
            parameter.data.mul_(4 if parameter.dim() > 1 else 1)
        model.save_pretrained(folder)


def _files(folder: Path, pictures: Mapping[str, Any], own: Mapping[str, Any]) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    (folder / "processor_config.json").write_text(json.dumps(own))
    return folder
