"""How much a tower forgets in training, as its config states it: dropout, and stochastic depth (whole blocks left out).

Which fields mean that is told by their names, as Transformers writes them: `hidden_dropout_prob`, `attn_pdrop`, `drop_path_rate`,
`layerdrop`. There is no list of models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedConfig

from multitune.core.errors import ModelError

DEPTH = re.compile(r"drop_?path|path_drop|layer_?drop|drop_connect")
DROPOUT = re.compile(r"dropout|pdrop$|drop_rate$")


def override(config: Any, *, dropout: float | None, stochastic_depth: float | None, where: str) -> Any:
    """The config with what is asked for in every field that means it, those of configs inside it too; None leaves them.

    Raises: ModelError where the config has no such field.
    """
    for asked, name, meant in ((dropout, "dropout", _is_dropout), (stochastic_depth, "stochastic_depth", _is_depth)):
        if asked is None:
            continue
        found = [(owner, field) for owner, field in _numbers(config) if meant(field)]
        if not found:
            words = "dropout" if name == "dropout" else "stochastic depth (such as drop_path_rate or layerdrop)"
            raise ModelError(f"{where}.{name}", f"its config has no field for {words}.", f"Leave {name} out, or choose another tower.")
        for owner, field in found:
            before = getattr(owner, field)
            setattr(owner, field, [asked] * len(before) if isinstance(before, list | tuple) else asked)
    return config


def _is_depth(field: str) -> bool:
    return DEPTH.search(field) is not None


def _is_dropout(field: str) -> bool:
    return DROPOUT.search(field) is not None and not _is_depth(field)


def _numbers(config: Any) -> Iterator[tuple[Any, str]]:
    """Every field that holds a probability, or one for each stage, with the config that it stands in."""
    for field, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            yield from _numbers(value)
        elif _is_number(value) or (isinstance(value, list | tuple) and value and all(map(_is_number, value))):
            yield config, field


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
