"""Pictures on their way through a processor that joins them with text, and what stands for them where their tower's features are kept.

Such a processor hands the pictures to a processor of pictures and counts, from what that gives, the tokens that they take among
the text. So what it gave is kept, without the pictures' numbers, and given again: the text side runs as ever.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature

from multitune.core.protocols import Memo, Sample
from multitune.models.features.light import hollow
from multitune.models.replay.replaying import SEVERAL

if TYPE_CHECKING:
    from multitune.models.families.generative.joint import JointPreparer


@dataclass(frozen=True)
class Seen:
    """The pictures of a row, in order. made: what the processor of pictures gave for them before; None where it is to be asked."""

    pictures: tuple[Image.Image, ...]
    made: Mapping[str, Any] | None = None

    @classmethod
    def kept(cls, light: Mapping[str, Any]) -> Seen:
        """From what `SightWay` keeps: pictures of the same sizes, without content."""
        return cls(tuple(Image.new("RGB", (int(width), int(height))) for width, height in light["sizes"]), light["made"])


class Replayed:
    """A processor of pictures that gives what it gave before, or is asked once and remembered; all else of it is its own."""

    def __init__(self, real: Any, given: Mapping[str, Any] | None) -> None:
        self.real, self.given = real, given

    def __call__(self, *args: Any, **more: Any) -> BatchFeature:
        if self.given is None:
            self.given = {name: _array(value) for name, value in self.real(*args, **more).items()}
        return BatchFeature(dict(self.given))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@dataclass(frozen=True)
class SightWay:
    """The pictures of a row, all together, to the tower that reads them."""

    preparer: JointPreparer
    parts: tuple[str, ...]
    inputs: str = "joined"
    modality: str = "image"
    always: bool = False

    def describe(self) -> Mapping[str, Any]:
        """The processor's settings; the words around the pictures are none of them."""
        settings = json.loads(self.preparer.processor.to_json_string())
        return {"parts": list(self.parts), "processor": {name: value for name, value in settings.items() if name != "chat_template"}}

    def alone(self, sample: Sample, memo: Memo) -> Mapping[str, Any]:
        """The row of pictures with an empty text; `made` and `sizes` are what is kept of them."""
        return self.preparer.recorded(sample, memo)

    def light(self, row: Mapping[str, Any], silent: Sequence[str]) -> Mapping[str, Any]:
        """What the processor of pictures gave, silent arrays without content, and the pictures' sizes."""
        made = {name: _quiet(value) if name in silent else value for name, value in row["made"].items()}
        return {"made": made, "sizes": row["sizes"]}


def _quiet(value: Any) -> Any:
    """The shape alone; but pictures beside each other of which one is zeros, as padding is, stay: a model may leave that one out."""
    if not isinstance(value, np.ndarray):
        return value
    if value.ndim >= SEVERAL and not value.reshape(*value.shape[:2], -1).any(-1).all():
        return value
    return hollow(value.shape, value.dtype)


def _array(value: Any) -> Any:
    return value.numpy() if isinstance(value, torch.Tensor) else value
