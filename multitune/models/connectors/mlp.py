"""Two linear maps with a GELU between them, from a tower's width to the language model's; `tokens` as in `linear`."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from multitune.models.joining import TokenPooling, pool_tokens


class Options(TokenPooling):
    """hidden: width between the two maps; 0: the language model's."""

    hidden: int = Field(default=0, ge=0)


class Mlp(nn.Module):
    """tokens (rows, n, width) -> (rows, m, target); the mask (rows, n) goes along.

    Source: Liu et al. 2023, arXiv:2310.03744 (LLaVA 1.5).
    """

    def __init__(self, tokens: int, width: int, hidden: int, target: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.into = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, target)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The mapped tokens with their mask."""
        tokens, mask = pool_tokens(tokens, mask, self.tokens)
        return self.out(nn.functional.gelu(self.into(tokens))), mask


def build(options: Options, width: int, target: int) -> Mlp:
    """A connector between two widths; its weights are new."""
    return Mlp(options.tokens, width, options.hidden or target, target)
