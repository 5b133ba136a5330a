"""A model that joins pictures and text itself, such as SmolVLM, as its folder has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from multitune.core import catalog
from multitune.core.protocols import Batch, Features, Needs, Outputs, Prediction, Text
from multitune.data.decode import modality
from multitune.models import tokens
from multitune.models.encoders import save_pretrained
from multitune.models.families.generative.decoding import Generation, write
from multitune.models.families.generative.inside import beside, paths_by_part
from multitune.models.families.generative.joint import JOINED, JointPreparer
from multitune.models.families.generative.packing import places, told
from multitune.models.families.generative.preparing import ends, room
from multitune.models.families.generative.prompt import Prompt
from multitune.models.load import LoadedModel


class Whole(nn.Module):
    """The model under `model`; it encodes and joins in one forward, so `encode` gives nothing."""

    def __init__(self, loaded: LoadedModel, preparer: JointPreparer, needs: Needs) -> None:
        super().__init__()
        self.model = loaded.module
        self.needs = needs
        self.language = loaded
        self._answer = preparer.answer
        known = ends(loaded.module, loaded.processor.tokenizer, where="model.pretrained")
        self._stop = tuple(dict.fromkeys([*known.stop, *preparer.stops()]))
        self._paths = paths_by_part(self, {name: modality(need.modality).towers for name, need in needs.parts.items()})
        seeing = [name for name, path in self._paths.items() if tokens.modality_of(cast("Any", self.get_submodule(path))) == "image"]
        self.preparer = replace(preparer, sight=seeing[0]) if len(seeing) == 1 else preparer

    @property
    def towers(self) -> Mapping[str, nn.Module]:
        """The models of one modality inside: by their part, `lm` for the language model, by path where that is ambiguous."""
        return {name: self.get_submodule(path) for name, path in self._paths.items()}

    @property
    def sources(self) -> Mapping[str, LoadedModel]:
        """What was read: one model."""
        return {"model": self.language}

    @property
    def public(self) -> Mapping[str, str]:
        """What lies beside the towers goes by its own name: `connector`, `lm_head`."""
        return beside(self, tuple(self._paths.values()))

    def forward(self, batch: Batch) -> Outputs:
        """`join(encode(batch), batch)`."""
        return self.join(self.encode(batch), batch)

    def encode(self, batch: Batch) -> Features:
        """Nothing: the model has no seam that its own forward would not cross again."""
        return Features({})

    def join(self, features: Features, batch: Batch) -> Outputs:
        """Logits (rows, tokens, vocabulary) of the answer's tokens, each predicted from all that stands before it."""
        answers = batch.answers[self._answer]
        inputs = told(batch.inputs[JOINED], answers)
        wanted = places(inputs, answers)
        last = inputs["input_ids"].shape[1] - 1
        first = int(wanted.min())
        kept = torch.arange(first, min(last, int(wanted.max())) + 1, device=answers.device)
        output = self.model(**inputs, logits_to_keep=kept, use_cache=False)
        index = wanted.clamp(max=int(kept[-1])) - first
        return Outputs(logits={self._answer: torch.take_along_dim(output.logits, index.unsqueeze(-1), dim=1)})

    @torch.no_grad()
    def predict(self, batch: Batch, *, generate: Mapping[str, Any]) -> list[Prediction]:
        """Write each row's answer. generate: max_new_tokens, temperature (0: the likeliest token), top_p, seed."""
        generation = catalog.parse(Generation, generate, where="evaluate.generate")
        written = write(cast("Any", self.model).generate, batch.inputs[JOINED], batch.ids, generation=generation, stop=self._stop)
        said = [Text(self.preparer.text(row.tokens), row.score) for row in written]
        return [Prediction(id, {self._answer: text}) for id, text in zip(batch.ids, said, strict=True)]

    def save(self, folder: Path) -> None:
        """`model/` and `processor/`, which plain Transformers loads."""
        save_pretrained(self.model, folder / "model")
        self.language.processor.save_pretrained(folder / "processor")


def build_whole(loaded: LoadedModel, prompt: Prompt, answer: str, media: Sequence[str], needs: Needs) -> Whole:
    """The model in a folder, with its processor. media: the parts that are pictures, in order.

    Raises: ModelError for a folder that does not hold.
    """
    stated = {name: need.options for name, need in (*needs.parts.items(), *needs.answers.items())}
    limits = {name: int(stated[name].get("max_length", 0)) for name in (*prompt.parts, answer)}
    limit = room(loaded.module, loaded.processor.tokenizer)
    preparer = JointPreparer(loaded.processor, prompt, answer, tuple(media), limits, limit)
    return Whole(loaded, preparer, needs).eval()
