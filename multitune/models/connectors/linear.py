"""One linear map from a tower's width to the language model's; `tokens` averages neighbouring tokens down to that many first."""

from __future__ import annotations

from torch import Tensor, nn

from multitune.models.joining import TokenPooling, pool_tokens


class Options(TokenPooling):
    """tokens: how many tokens each part becomes; 0: as many as its tower gives."""


class Linear(nn.Module):
    """tokens (rows, n, width) -> (rows, m, target); the mask (rows, n) goes along."""

    def __init__(self, tokens: int, width: int, target: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.projection = nn.Linear(width, target)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The mapped tokens with their mask."""
        tokens, mask = pool_tokens(tokens, mask, self.tokens)
        return self.projection(tokens), mask


def build(options: Options, width: int, target: int) -> Linear:
    """A connector between two widths; its weights are new."""
    return Linear(options.tokens, width, target)
