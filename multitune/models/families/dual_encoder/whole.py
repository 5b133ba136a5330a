"""A CLIP-like model as it is: its own towers, projections and scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from multitune.core.errors import ModelError, one_of
from multitune.core.protocols import Batch, Features, Needs, Outputs, Prediction
from multitune.models import encoders, tokens
from multitune.models.families.dual_encoder.space import MAX_SCALE, embeddings, predictions
from multitune.models.load import LoadedModel, Weights, load_model
from multitune.models.prepare import TowerPreparer
from multitune.models.signals import SHARE
from multitune.models.weights import fitting

DEFAULT_SCALE = 1 / 0.07
_PROCESSORS = {"image": "image_processor", "text": "tokenizer", "audio": "feature_extractor"}


class Whole(nn.Module):
    """Parts go to the model's towers by modality; what they become is the model's own `get_<modality>_features`."""

    def __init__(self, loaded: LoadedModel, needs: Needs) -> None:
        super().__init__()
        self.needs = needs
        self.model = loaded.module
        found = {tower.modality: (path, tower.module) for path, tower in tokens.outermost(loaded.module).items()}
        self.modality = {name: _modality(name, needs, found) for name in needs.parts}
        told = [
            fitting.beside(found[modality][1], modality, _processor(loaded.processor, modality), where=f"model.towers.{name}")
            for name, modality in self.modality.items()
        ]
        self.loaded = replace(loaded, report=replace(loaded.report, findings=tuple(finding for each in told for finding in each)))
        self._embed = {name: _embedder(loaded.module, modality) for name, modality in self.modality.items()}
        uses = Counter(self.modality.values())
        names = {modality: name for name, modality in self.modality.items() if uses[modality] == 1}
        self._towers = {names.get(modality, modality): module for modality, (_, module) in found.items()}
        signals = {
            name: encoders.tower_signal(name, modality, found[modality][1], _processor(loaded.processor, modality), needs)
            for name, modality in self.modality.items()
        }
        self.preparer = TowerPreparer(signals, needs)
        self._width = 0  # of the vectors, once one was seen
        self._left = [
            path for path in dict(self.named_parameters()) if not any(path.startswith(f"model.{at}.") for at, _ in found.values())
        ]

    @property
    def towers(self) -> Mapping[str, PreTrainedModel]:
        """The model's towers, by the part that each encodes; by modality where no part or several go to it."""
        return self._towers

    @property
    def sources(self) -> Mapping[str, LoadedModel]:
        """What was read: one model."""
        return {"model": self.loaded}

    @property
    def public(self) -> Mapping[str, str]:
        """Scalars are called `scale...`, everything else beside the towers `projection...`."""
        sizes = {path: parameter.dim() for path, parameter in self.named_parameters()}
        return {path: f"{'projection' if sizes[path] else 'scale'}.{path.removeprefix('model.')}" for path in self._left}

    def encode(self, batch: Batch) -> Features:
        """part -> `vector` (rows, width), already projected; zeros where absent.

        A part that no row of the batch has is not run: what stands for a tower in a replay would be asked for rows that it does not have.
        """
        made = {name: self._vector(name, batch) for name in self.needs.parts}
        like = next((vector for vector in made.values() if vector is not None), None)
        nothing = self._nothing(batch) if like is None else torch.zeros_like(like)
        self._width = nothing.shape[-1]
        return Features({name: {"vector": nothing if vector is None else vector} for name, vector in made.items()})

    def join(self, features: Features, batch: Batch) -> Outputs:
        """Embeddings of unit length, zeros where absent, and the model's scale (and bias, if it has one)."""
        own = dict(self.model.named_parameters(recurse=False))
        scale = (
            own["logit_scale"].exp().clamp(max=MAX_SCALE) if "logit_scale" in own else torch.tensor(DEFAULT_SCALE, device=self.model.device)
        )
        scalars = {"scale": scale.reshape(())} | ({"bias": own["logit_bias"].reshape(())} if "logit_bias" in own else {})
        return Outputs(embeddings=embeddings({name: part["vector"] for name, part in features.parts.items()}, batch), scalars=scalars)

    def forward(self, batch: Batch) -> Outputs:
        """`join(encode(batch), batch)`."""
        return self.join(self.encode(batch), batch)

    def predict(self, batch: Batch, *, generate: Mapping[str, Any]) -> list[Prediction]:
        """The embedding of each part that is there; `generate` has no use here."""
        return predictions(self(batch).embeddings, batch)

    def save(self, folder: Path) -> None:
        """`model/`, as plain Transformers loads it, and `processor/`."""
        encoders.save_pretrained(self.model, folder / "model")
        self.loaded.processor.save_pretrained(folder / "processor")

    def _vector(self, name: str, batch: Batch) -> Tensor | None:
        there = encoders.present(batch, name)
        inputs = {key: value for key, value in batch.inputs[name].items() if key != SHARE}
        if there.is_meta or bool(there.all()):
            return _tensor(self._embed[name](**inputs))
        rows = there.nonzero()[:, 0]
        if not len(rows):
            return None
        made = _tensor(self._embed[name](**{key: value[rows] for key, value in inputs.items()}))
        return made.new_zeros((len(there), made.shape[-1])).index_copy(0, rows, made)

    def _nothing(self, batch: Batch) -> Tensor:
        """Zeros (rows, width), of a batch in which no row has any part; the width is that of a filler's vector, unless one was seen."""
        if not self._width:
            name = next(iter(self.needs.parts))
            filler = {key: value[:1] for key, value in batch.inputs[name].items() if key != SHARE}
            self._width = _tensor(self._embed[name](**filler)).shape[-1]
        return torch.zeros((len(batch.ids), self._width), dtype=self.model.dtype, device=self.model.device)


def _tensor(features: Any) -> Tensor:
    """The projected vectors: newer models give them as `pooler_output`, older ones as they are; of projected tokens the first."""
    made = features if isinstance(features, Tensor) else cast("Tensor", features["pooler_output"])
    return made[:, 0] if made.dim() == 3 else made


def _modality(part: str, needs: Needs, found: Mapping[str, Any]) -> str:
    accepted = encoders.readable(part, needs)
    for modality in accepted:
        if modality in found:
            return modality
    raise ModelError(
        "model.pretrained", f'has no tower for the part "{part}"; it reads {one_of(found)}.', "Choose another model, or drop the part."
    )


def _embedder(model: PreTrainedModel, modality: str) -> Callable[..., Any]:
    name = f"get_{modality}_features"
    if not hasattr(model, name):
        raise ModelError("model.pretrained", f"{type(model).__name__} has no {name}: it does not embed.", "Compose towers instead.")
    return cast("Callable[..., Any]", getattr(model, name))


def _processor(processor: Any, modality: str) -> Any:
    inner = vars(processor).get(_PROCESSORS[modality]) if modality in _PROCESSORS else None
    if inner is None:
        raise ModelError("model.pretrained", f"its processor has no {_PROCESSORS.get(modality, modality)}.", "Add it to the folder.")
    return inner


def take(pretrained: str, needs: Needs, weights: Weights) -> Whole:
    """The family of one model as it is.

    Raises: ModelError for a model that does not embed these parts.
    """
    loaded = load_model("model", pretrained, kind="backbone", weights=weights)
    return Whole(loaded, needs).eval()
