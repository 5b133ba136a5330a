"""Pictures in square patches, each a token, through a transformer; from scratch.

Its output has one token for each patch, row by row, and no summary token: their mean is the picture's vector.

Source: Dosovitskiy et al. 2021, arXiv:2010.11929, without the class token and with positions begun as sines, as in Beyer et al. 2022,
arXiv:2205.01580; here the positions are learned on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from transformers import PreTrainedConfig

from multitune.models.layers.attention import Block
from multitune.models.layers.scratch import AttentiveSize, ScratchTower, Table, TowerOutput, known, pictures
from multitune.models.load import Blueprint


class Options(AttentiveSize):
    """The size of the tower and of its pictures."""

    image_size: int = Field(default=64, ge=8, le=4096, description="pixels: height and width that pictures are brought to")
    patch_size: int = Field(default=8, ge=1, description="pixels: height and width of a patch")

    @model_validator(mode="after")
    def _patches_fill_the_picture(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(f"the picture size {self.image_size} is no multiple of the patch size {self.patch_size}")
        return self


class Config(PreTrainedConfig):
    """What config.json holds."""

    model_type = "multitune-vit"

    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    image_size: int = 64
    patch_size: int = 8
    dropout: float = 0.0


class VisionTransformer(ScratchTower):
    """patches -> linear, positions -> blocks -> norm."""

    config_class = Config
    main_input_name = "pixel_values"
    input_modalities = "image"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        width, side = config.hidden_size, config.image_size // config.patch_size
        self.patches = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size)
        self.positions = Table(side * side, width, grid=(side, side))
        self.layers = nn.ModuleList(
            [Block(width, config.num_attention_heads, dropout=config.dropout) for _ in range(config.num_hidden_layers)]
        )
        self.norm = nn.LayerNorm(width)
        self.post_init()

    def forward(self, pixel_values: Tensor) -> TowerOutput:
        """pixel_values (rows, 3, size, size) -> tokens (rows, patches, width)."""
        tokens = self.patches(pixel_values).flatten(2).transpose(1, 2) + self.positions.weight
        for layer in self.layers:
            tokens = layer(tokens)
        return TowerOutput(last_hidden_state=self.norm(tokens))


def build(options: Options, reads: Sequence[str]) -> Blueprint:
    """The tower; `reads`, what its part takes, is checked by who asks."""
    config = Config(
        hidden_size=options.width,
        num_hidden_layers=options.depth,
        num_attention_heads=options.heads,
        image_size=options.image_size,
        patch_size=options.patch_size,
        dropout=options.dropout,
    )
    return Blueprint(VisionTransformer, config, pictures(options.image_size))


known(Config, VisionTransformer)
