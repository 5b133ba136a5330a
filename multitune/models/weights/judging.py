"""What a folder's weights are to the model that reads them: what fits, what is missing, what is left over, what is broken."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel

from multitune.core.errors import ModelError
from multitune.core.finding import Finding
from multitune.models.where import Stored, read_json

Dtype = Literal["fp32", "fp16", "bf16"]
# What Transformers, its processors and its models raise on files and sizes that do not fit; around calls of theirs alone.
REFUSALS = (
    OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, ImportError, RuntimeError,
    SafetensorError, StrictDataclassError,
)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """What was read.

    made_new: not in the file, drawn, and used. never_used: not in the file, drawn, and no gradient reaches it. left_out: a
    head in the file that is not part of the tower. findings: what else a user should know, such as positions that were resized.
    """

    stored: Stored = field(default_factory=Stored)
    loaded: Dtype = "fp32"
    made_new: tuple[str, ...] = ()
    never_used: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Judge:
    """Compares what was read with what the model has.

    where: of the recipe, for messages. allow_new: patterns of weights that may be missing. probe: names of the parameters that no
    gradient of the output reaches.
    """

    where: str
    folder: Path
    allow_new: tuple[str, ...]
    dtype: Dtype
    stored: Stored
    probe: Callable[[PreTrainedModel], list[str]]

    def report(self, module: PreTrainedModel, information: Mapping[str, Any]) -> Report:
        """The report; information: what `from_pretrained` says of its loading.

        Raises: ModelError for weights that are missing, extra or misshapen.
        """
        missing, extra = sorted(information["missing_keys"]), sorted(information["unexpected_keys"])
        misshapen = sorted(f"{entry[0]} {tuple(entry[1])} for {tuple(entry[2])}" for entry in information["mismatched_keys"])
        if misshapen:
            raise ModelError(self.where, f"weights of another shape: {few(misshapen)}.", "Name the folder whose config fits its weights.")
        left_out = [key for key in extra if _of_a_head(key, module, self.folder)]
        unknown = [key for key in extra if key not in left_out]
        if unknown:
            found = f"weights that the model does not have: {few(unknown)}."
            raise ModelError(self.where, found, "Name the folder whose config fits its weights.")
        allowed = {key for key in missing if any(fnmatch.fnmatchcase(key, pattern) for pattern in self.allow_new)}
        reached = set(missing) - set(self.probe(module)) if set(missing) - allowed else set(missing)
        refused = sorted(reached - allowed)
        if refused:
            raise ModelError(
                self.where, f"weights are missing: {few(refused)}.", "Add them, or name them in allow_new to start them at random."
            )
        unused = sorted(set(missing) - reached)
        return Report(self.stored, self.dtype, tuple(sorted(set(missing) - set(unused))), tuple(unused), tuple(left_out))


def _of_a_head(key: str, module: PreTrainedModel, folder: Path) -> bool:
    """Whether a weight lies beside the model in a file that holds the model under its prefix, as files with a head do."""
    prefix = module.base_model_prefix
    architectures = read_json(folder / "config.json", where="model").get("architectures") or [type(module).__name__]
    return bool(prefix) and not key.startswith(f"{prefix}.") and type(module).__name__ not in architectures


def refuse_broken_numbers(module: nn.Module, *, where: str) -> None:
    """Refuse NaN and infinity among parameters, and NaN among buffers.

    Raises: ModelError naming the first.
    """
    for name, tensor in module.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(where, f"{name} holds numbers that are not finite.", "Get the weights again.")
    for name, tensor in module.named_buffers():
        if tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            raise ModelError(where, f"{name} holds NaN.", "Get the weights again.")


def other_modality(where: str, what: object, found: str, accepted: Sequence[str]) -> ModelError:
    """A model reads `found`, not what the part needs."""
    reads = f"reads {found}" if found else "joins several modalities"
    return ModelError(where, f"{what} {reads}.", f"This part needs a tower that reads {' or '.join(accepted)}.")


def unreadable(where: str, folder: Path | None, error: Exception, remedy: str = "Check config.json, or the folder.") -> ModelError:
    """Transformers refused a folder: it would have to run code that lies in it, or cannot read it."""
    if "trust_remote_code" in str(error):
        found = f"{folder} needs code of its own (auto_map), which is never run."
        return ModelError(where, found, "Choose a model that Transformers knows.")
    return ModelError(where, f"Transformers cannot read {folder}: {said(error)}.", remedy)


def said(error: Exception) -> str:
    """The beginning of what an error says, on one line."""
    return " ".join((str(error) or type(error).__name__).split())[:200].rstrip(".")


def few(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
