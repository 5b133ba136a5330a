"""Pictures through stages of convolutions, each half as high and wide and twice as deep as the one before; from scratch.

A block is a 3 x 3 convolution, a norm and two linear layers around a GELU, beside a skip. No batch statistics: a row's output is its own.

Source: blocks after Liu et al. 2022, arXiv:2201.03545 (ConvNeXt), with a dense 3 x 3 convolution instead of a 7 x 7 for each channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from transformers import PreTrainedConfig

from multitune.models.layers.scratch import ScratchTower, Size, TowerOutput, known, pictures
from multitune.models.load import Blueprint


class Options(Size):
    """The size of the tower and of its pictures; `width` is that of the last stage, `depth` counts the blocks of all stages."""

    depth: int = Field(default=6, ge=1, le=200, description="blocks, shared out among the stages; the later ones get what is left over")
    stages: int = Field(default=3, ge=1, le=6, description="each halves height and width")
    image_size: int = Field(default=64, ge=8, le=4096, description="pixels: height and width that pictures are brought to")

    @model_validator(mode="after")
    def _every_stage_has_a_block_and_pixels(self) -> Self:
        if self.depth < self.stages:
            raise ValueError(f"{self.depth} blocks are too few for {self.stages} stages: use depth >= {self.stages}, or fewer stages")
        if self.width % 2 ** (self.stages - 1):
            raise ValueError(f"the width {self.width} cannot be halved {self.stages - 1} times")
        if self.image_size < 2**self.stages:
            raise ValueError(f"the picture size {self.image_size} cannot be halved {self.stages} times")
        return self


class Config(PreTrainedConfig):
    """What config.json holds."""

    model_type = "multitune-cnn"

    hidden_size: int = 128
    num_hidden_layers: int = 6
    num_stages: int = 3
    image_size: int = 64
    dropout: float = 0.0


class Block(nn.Module):
    """Maps (rows, width before, height, width) -> the same with `after` channels, at half the height and width if it steps by 2."""

    def __init__(self, before: int, after: int, *, step: int, dropout: float) -> None:
        super().__init__()
        self.step = step
        self.look = nn.Conv2d(before, after, 3, stride=step, padding=1)
        self.norm = nn.LayerNorm(after)
        self.mlp = nn.Sequential(nn.Linear(after, 2 * after), nn.GELU(), nn.Linear(2 * after, after))
        self.skip = nn.Linear(before, after) if before != after else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, maps: Tensor) -> Tensor:
        """The skip and what the block adds."""
        seen = self.look(maps).permute(0, 2, 3, 1)
        kept = self.skip(maps[:, :, :: self.step, :: self.step].permute(0, 2, 3, 1))
        made: Tensor = kept + self.dropout(self.mlp(self.norm(seen)))
        return made.permute(0, 3, 1, 2)


class ConvolutionalTower(ScratchTower):
    """stem at half the size -> blocks -> norm; tokens are the places of the last map."""

    config_class = Config
    main_input_name = "pixel_values"
    input_modalities = "image"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        stages, depth = config.num_stages, config.num_hidden_layers
        before = config.hidden_size // 2 ** (stages - 1)
        self.stem = nn.Conv2d(3, before, 3, stride=2, padding=1)
        blocks: list[Block] = []
        for stage in range(stages):
            after = config.hidden_size // 2 ** (stages - 1 - stage)
            for place in range((depth + stage) // stages):
                step = 2 if stage and not place else 1
                blocks.append(Block(before, after, step=step, dropout=config.dropout))
                before = after
        self.layers = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.post_init()

    def forward(self, pixel_values: Tensor) -> TowerOutput:
        """pixel_values (rows, 3, height, width) -> tokens (rows, places, width)."""
        maps = self.stem(pixel_values)
        for layer in self.layers:
            maps = layer(maps)
        return TowerOutput(last_hidden_state=self.norm(maps.flatten(2).transpose(1, 2)))


def build(options: Options, reads: Sequence[str]) -> Blueprint:
    """The tower; `reads`, what its part takes, is checked by who asks."""
    config = Config(
        hidden_size=options.width,
        num_hidden_layers=options.depth,
        num_stages=options.stages,
        image_size=options.image_size,
        dropout=options.dropout,
    )
    return Blueprint(ConvolutionalTower, config, pictures(options.image_size))


known(Config, ConvolutionalTower)
