"""What is inside a whole model: the models of one modality, and what lies beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn
from transformers import PreTrainedModel

from multitune.models import tokens
from multitune.models.families.generative.preparing import LANGUAGE


def paths_by_part(module: nn.Module, parts: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """The outermost models of one modality: by the part that each reads, `lm` for text, by path where that is ambiguous."""
    found: dict[str, str] = {}
    for path, inner in module.named_modules():
        if isinstance(inner, PreTrainedModel) and tokens.modality_of(inner) and not any(path.startswith(f"{outer}.") for outer in found):
            found[path] = tokens.modality_of(inner)
    named: dict[str, str] = {}
    for path, reads in found.items():
        readers = [part for part, accepted in parts.items() if reads in accepted and reads != "text"]
        short = LANGUAGE if reads == "text" else readers[0] if len(readers) == 1 else path
        named[short if list(found.values()).count(reads) == 1 else path] = path
    return named


def beside(module: nn.Module, paths: Sequence[str]) -> dict[str, str]:
    """Path -> own name of what lies beside these paths: `connector`, `lm_head`, `shared`."""
    around = {"", *(".".join(path.split(".")[:depth]) for path in paths for depth in range(1, path.count(".") + 1))}
    children = [(path, child) for path in around for child, _ in module.get_submodule(path).named_children()]
    named = [(f"{path}.{child}" if path else child, child) for path, child in children]
    return {path: child for path, child in named if path not in around and path not in paths}
