"""What is said of a kind of model, and the sizes that small ones share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Json = Mapping[str, Any]
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<mask>", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
MORE = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
TOKENS = (*SPECIAL, *MORE)
VOCABULARY = len(TOKENS) + 256
EVERY = "*"
ENDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
TEXT = SMALL | ENDS | {"vocab_size": VOCABULARY, "max_position_embeddings": 80}
HEARD = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|zh|>", "<|transcribe|>", "<|translate|>", "<|startofprev|>",
         "<|notimestamps|>")  # fmt: skip
TWO_SIDED = {"d_model": 16, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
TWO_SIDED |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
LLAMA = TEXT | {"model_type": "llama", "num_key_value_heads": 1, "max_position_embeddings": 400}
SEES = SMALL | {"image_size": 32, "patch_size": 8}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "drop_path_rate": 0.0}
VISION = SMALL | {"image_size": 32, "patch_size": 16}
WAVES = SMALL | {"conv_dim": [8, 8, 8], "conv_stride": [10, 8, 4], "conv_kernel": [10, 8, 4], "num_conv_pos_embeddings": 8,
                 "num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 3}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    name: Transformers' model type. shape: the family that it is walked under. config: its sizes. parts: part -> modality of the rows.
    blocks: tower -> path in the config of how many blocks it has (a list there is summed), or the number that the architecture fixes.
    files: name -> content, beside the weights. tokenizer: whether one is written, with or without marks around a text, or as Whisper
    has it. opened_as: the auto class of the whole folder. lr: of the overfitted rows. fast: also in `make test`. red: lines that it
    does not hold to (`*`: none), and what a user can still do.
    """

    name: str
    title: str
    shape: Literal["classify", "embed", "speak"]
    config: Json
    parts: Mapping[str, str]
    blocks: Mapping[str, str | int]
    files: Mapping[str, Json | str] = field(default_factory=dict)
    tokenizer: Literal["", "marked", "plain", "heard"] = ""
    opened_as: str = "AutoModel"
    lr: float = 3e-3
    fast: bool = False
    red: Mapping[str, str] = field(default_factory=dict)

    def is_red(self, line: str) -> bool:
        """Whether the kind is known not to hold to a line."""
        return line in self.red or EVERY in self.red


def pictures(processor: str, **more: Any) -> dict[str, Json]:
    """An image processor's file, for pictures of 32 x 32."""
    return {"preprocessor_config.json": {"image_processor_type": processor, "size": {"height": 32, "width": 32}} | more}


def sounds(extractor: str, **more: Any) -> dict[str, Json]:
    """A feature extractor's file."""
    return {"preprocessor_config.json": {"feature_extractor_type": extractor} | more}


def picture(name: str, title: str, config: Json, blocks: str | int, files: Mapping[str, Json] | None = None, **more: Any) -> Kind:
    """A tower that reads pictures."""
    return Kind(
        name,
        title,
        "classify",
        config,
        {"image": "image"},
        {"image": blocks},
        pictures("ViTImageProcessor") if files is None else files,
        **more,
    )


def sound(name: str, title: str, config: Json, files: Mapping[str, Json], **more: Any) -> Kind:
    """A tower that reads sounds."""
    return Kind(name, title, "classify", config, {"audio": "audio"}, {"audio": "num_hidden_layers"}, files, **more)


def words(name: str, title: str, config: Json, blocks: str | int, **more: Any) -> Kind:
    """A tower that reads texts."""
    return Kind(name, title, "classify", config, {"text": "text"}, {"text": blocks}, tokenizer="marked", **more)


def pair(name: str, title: str, config: Json, files: Mapping[str, Json], other: str = "image", **more: Any) -> Kind:
    """A model that embeds texts and something else."""
    inner = "vision_config" if other == "image" else "audio_config"
    blocks = {other: f"{inner}.num_hidden_layers", "text": "text_config.num_hidden_layers"} | more.pop("blocks", {})
    return Kind(name, title, "embed", config, {other: other, "text": "text"}, blocks, files, tokenizer="marked", **more)


def speaker(name: str, title: str, config: Json, files: Mapping[str, Any], blocks: str, image: str = "<image>", **more: Any) -> Kind:
    """A model that writes about a picture."""
    lines = "{% for message in messages %}{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}{% else %}"
    template = lines + image + "{% endif %}{% endfor %}</s>{% endfor %}"
    counts = {"image": blocks, "lm": "text_config.num_hidden_layers"}
    tokens = {"tokenizer": "plain", "opened_as": "AutoModelForImageTextToText", "lr": 1e-2}
    return Kind(name, title, "speak", config, {"image": "image"}, counts, {**files, "chat_template.jinja": template}, **tokens, **more)


def writer(
    name: str, title: str, reads: str, config: Json, blocks: tuple[str, str], files: Mapping[str, Any] | None = None, **more: Any
) -> Kind:
    """An encoder that reads and a decoder that writes."""
    counts = dict(zip(("encoder", "decoder"), blocks, strict=True))
    known = {"tokenizer": "marked", "opened_as": "AutoModelForSeq2SeqLM", "lr": 1e-2} | more
    return Kind(name, title, "speak", config, {"source": reads}, counts, files or {}, **known)
