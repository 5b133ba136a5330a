"""A model that joins pictures and text itself, such as SmolVLM, as its folder has it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.core.protocols import Batch, Features, Needs, Outputs, Prediction, Text
from multitune.data.decode import modality
from multitune.models import tokens
from multitune.models.encoders import save_pretrained
from multitune.models.families.generative.decoding import Generation, write
from multitune.models.families.generative.joint import JOINED, JointPreparer
from multitune.models.families.generative.preparing import IGNORED, LANGUAGE, ends, room
from multitune.models.families.generative.prompt import Prompt
from multitune.models.load import LoadedModel, TowerSpec, Weights, load_model


class Whole(nn.Module):
    """The model under `model`; it encodes and joins in one forward, so `encode` gives nothing."""

    def __init__(self, loaded: LoadedModel, preparer: JointPreparer, needs: Needs) -> None:
        super().__init__()
        self.model = loaded.module
        self.preparer = preparer
        self.needs = needs
        self.language = loaded
        self._answer = preparer.answer
        known = ends(loaded.module, loaded.processor.tokenizer, where="model.pretrained")
        self._stop = tuple(dict.fromkeys([*known.stop, *preparer.stops()]))
        self._paths = _tower_paths(self, {name: modality(need.modality).towers for name, need in needs.parts.items()})

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
        inside = tuple(self._paths.values())
        around = {"", *(".".join(path.split(".")[:depth]) for path in inside for depth in range(1, path.count(".") + 1))}
        beside = [(path, child) for path in around for child, _ in self.get_submodule(path).named_children()]
        paths = [(f"{path}.{child}" if path else child, child) for path, child in beside]
        return {path: child for path, child in paths if path not in around and path not in inside}

    def forward(self, batch: Batch) -> Outputs:
        """`join(encode(batch), batch)`."""
        return self.join(self.encode(batch), batch)

    def encode(self, batch: Batch) -> Features:
        """Nothing: the model has no seam that its own forward would not cross again."""
        return Features({})

    def join(self, features: Features, batch: Batch) -> Outputs:
        """Logits (rows, tokens, vocabulary) of the answer's tokens, each predicted from all that stands before it."""
        answers = batch.answers[self._answer]
        told = _told(batch.inputs[JOINED], answers)
        given = told["attention_mask"].sum(1) - (answers != IGNORED).sum(1)
        places = (given - 1).unsqueeze(1) + torch.arange(answers.shape[1], device=answers.device)
        last = told["input_ids"].shape[1] - 1
        first = int(places.min())
        kept = torch.arange(first, min(last, int(places.max())) + 1, device=answers.device)
        output = self.model(**told, logits_to_keep=kept, use_cache=False)
        index = places.clamp(max=int(kept[-1])) - first
        return Outputs(logits={self._answer: torch.take_along_dim(output.logits, index.unsqueeze(-1), dim=1)})

    @torch.no_grad()
    def predict(self, batch: Batch, *, generate: Mapping[str, Any]) -> list[Prediction]:
        """Write each row's answer. generate: max_new_tokens, temperature (0: the likeliest token), top_p, seed."""
        generation = catalog.parse(Generation, generate, where="evaluate.generate")
        written = write(self.model, batch.inputs[JOINED], batch.ids, generation=generation, stop=self._stop)
        said = [Text(self.preparer.text(row.tokens), row.score) for row in written]
        return [Prediction(id, {self._answer: text}) for id, text in zip(batch.ids, said, strict=True)]

    def save(self, folder: Path) -> None:
        """`model/` and `processor/`, which plain Transformers loads."""
        save_pretrained(self.model, folder / "model")
        self.language.processor.save_pretrained(folder / "processor")


def build_whole(spec: TowerSpec, prompt: Prompt, answer: str, media: Mapping[str, str], needs: Needs, weights: Weights) -> Whole:
    """The model in a folder, with its processor.

    Raises: ModelError for parts that are no pictures, or a folder that does not hold.
    """
    for part in media:
        if "image" not in modality(media[part]).towers:
            found = f"a model as it is reads pictures and text; this part is {media[part]}."
            raise ModelError(f"data.parts.{part}", found, "Compose it: give lm, towers and a connector.")
    random = spec.weights == "random"
    loaded = load_model(
        "model", spec.pretrained, kind="image_text_to_text", weights=weights, allow_new=spec.allow_new, dtype=spec.dtype, random=random
    )
    stated = {name: need.options for name, need in (*needs.parts.items(), *needs.answers.items())}
    limits = {name: int(stated[name].get("max_length", 0)) for name in (*prompt.parts, answer)}
    limit = room(loaded.module, loaded.processor.tokenizer)
    preparer = JointPreparer(loaded.processor, prompt, answer, tuple(media), limits, limit)
    return Whole(loaded, preparer, needs).eval()


def _told(inputs: Mapping[str, Tensor], answers: Tensor) -> dict[str, Tensor]:
    """Prompt and answer in one row without holes, padded on the right: positions then need no words of ours."""
    real = answers != IGNORED
    mask = torch.cat([inputs["attention_mask"], real.to(inputs["attention_mask"].dtype)], 1)
    order = (1 - mask).argsort(dim=1, stable=True)
    made = dict(inputs) | {"attention_mask": mask.gather(1, order)}
    length = inputs["input_ids"].shape
    for name, tensor in inputs.items():
        if tensor.shape == length and name != "attention_mask":
            more = answers.clamp(min=0) if name == "input_ids" else torch.zeros_like(answers)
            made[name] = torch.cat([tensor, more.to(tensor.dtype)], 1).gather(1, order)
    return made


def _tower_paths(module: nn.Module, parts: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
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
