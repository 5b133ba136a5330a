"""Texts through a transformer in which every token reads every other; from scratch.

Its tokenizer is that of an embedded base (`tiny/text`: the words of the embedded data, letters and bytes for all else), or of any folder
that has a tokenizer.json; it is written into the artifact.

Source: Devlin et al. 2019, arXiv:1810.04805, with norms before each step and positions begun as sines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedConfig

from multitune.models.layers.attention import Block
from multitune.models.layers.scratch import AttentiveSize, ScratchTower, Table, TowerOutput, known, words
from multitune.models.load import Blueprint


class Options(AttentiveSize):
    """The size of the tower, its tokenizer and its longest text."""

    tokenizer: str = Field(default="tiny/text", description="an embedded base, a folder or a hub id that has a tokenizer.json")
    max_length: int = Field(default=128, ge=2, le=65_536, description="tokens of the longest text; what is over is cut")


class Config(PreTrainedConfig):
    """What config.json holds."""

    model_type = "multitune-text_transformer"

    vocab_size: int = 631
    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    max_position_embeddings: int = 128
    pad_token_id: int | None = 0
    dropout: float = 0.0


class TextTransformer(ScratchTower):
    """tokens, positions -> blocks -> norm."""

    config_class = Config
    main_input_name = "input_ids"
    input_modalities = "text"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        width, length = config.hidden_size, config.max_position_embeddings
        self.tokens = nn.Embedding(config.vocab_size, width)
        self.positions = Table(length, width, grid=(length,))
        self.layers = nn.ModuleList(
            [Block(width, config.num_attention_heads, dropout=config.dropout) for _ in range(config.num_hidden_layers)]
        )
        self.norm = nn.LayerNorm(width)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The tokens' vectors."""
        return self.tokens

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> TowerOutput:
        """input_ids (rows, t), attention_mask (rows, t), 1 where real -> tokens (rows, t, width)."""
        mask = None if attention_mask is None else attention_mask.bool()
        tokens = self.tokens(input_ids) + self.positions.weight[: input_ids.shape[1]]
        for layer in self.layers:
            tokens = layer(tokens, mask)
        return TowerOutput(last_hidden_state=self.norm(tokens), token_mask=mask)


def build(options: Options, reads: Sequence[str]) -> Blueprint:
    """The tower with its tokenizer; `reads`, what its part takes, is checked by who asks.

    Raises: ModelError if there is no such tokenizer.
    """
    tokenizer = words(options.tokenizer, max_length=options.max_length, where="tower text_transformer, tokenizer")
    config = Config(
        vocab_size=len(tokenizer),
        hidden_size=options.width,
        num_hidden_layers=options.depth,
        num_attention_heads=options.heads,
        max_position_embeddings=options.max_length,
        dropout=options.dropout,
        pad_token_id=cast("int", tokenizer.pad_token_id),
    )
    return Blueprint(TextTransformer, config, tokenizer)


known(Config, TextTransformer)
