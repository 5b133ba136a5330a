"""A language model that reads other parts: [start] [each tower's tokens, connected] [prompt] [answer] [end]."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.core.protocols import Batch, Features, Needs, Outputs, Prediction, Text
from multitune.models.encoders import child, present, run_present, save_joint, save_pretrained, save_towers
from multitune.models.families.generative.decoding import Generation, write
from multitune.models.families.generative.packing import Packed, pack
from multitune.models.families.generative.preparing import IGNORED, LANGUAGE, ComposedPreparer
from multitune.models.load import LoadedModel, Tower


class Composed(nn.Module):
    """Towers, a connector for each, and a causal language model; without towers it is the language model alone."""

    def __init__(
        self, towers: Mapping[str, Tower], connectors: Mapping[str, nn.Module], lm: LoadedModel, preparer: ComposedPreparer, needs: Needs
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({child(part): tower.module for part, tower in towers.items()})
        self.connector = nn.ModuleDict({child(part): connector for part, connector in connectors.items()})
        self.lm = lm.module
        self.preparer = preparer
        self.needs = needs
        self.loaded = dict(towers)
        self.language = lm
        self.inside = (*(f"encoders.{child(part)}" for part in towers), "lm")
        self._answer = preparer.wording.answer
        self._ends = preparer.ends
        taken = inspect.signature(self.lm.forward).parameters
        self._takes_positions = "position_ids" in taken
        self._takes_keep = "logits_to_keep" in taken

    @property
    def towers(self) -> Mapping[str, nn.Module]:
        """The towers by part, and `lm`."""
        return {**{part: tower.module for part, tower in self.loaded.items()}, LANGUAGE: self.lm}

    @property
    def sources(self) -> Mapping[str, Tower | LoadedModel]:
        """What was read, by tower."""
        return {**self.loaded, LANGUAGE: self.language}

    @property
    def public(self) -> Mapping[str, str]:
        """What lies in no tower: `connector.<part>`."""
        return {f"connector.{child(part)}": f"connector.{part}" for part in self.loaded}

    def forward(self, batch: Batch) -> Outputs:
        """`join(encode(batch), batch)`."""
        return self.join(self.encode(batch), batch)

    def encode(self, batch: Batch) -> Features:
        """Each tower's tokens (rows, tokens, width) and mask (rows, tokens)."""
        return Features({part: self._read(part, batch) for part in self.loaded})

    def join(self, features: Features, batch: Batch) -> Outputs:
        """Logits (rows, tokens, vocabulary) of the answer's tokens, each predicted from all that stands before it."""
        answers = batch.answers[self._answer]
        asked = self._asked(features, batch)
        given = answers[:, :-1]
        packed = asked.then(self._embed(given.clamp(min=0)), given != IGNORED)
        self._refuse_too_long(packed)
        more: dict[str, Any] = {"position_ids": packed.positions} if self._takes_positions else {}
        if self._takes_keep:
            more["logits_to_keep"] = answers.shape[1]
        output = self.lm(inputs_embeds=packed.values, attention_mask=packed.mask.long(), use_cache=False, **more)
        return Outputs(logits={self._answer: output.logits[:, -answers.shape[1] :]})

    @torch.no_grad()
    def predict(self, batch: Batch, *, generate: Mapping[str, Any]) -> list[Prediction]:
        """Write each row's answer. generate: max_new_tokens, temperature (0: the likeliest token), top_p, seed."""
        generation = catalog.parse(Generation, generate, where="evaluate.generate")
        asked = self._asked(self.encode(batch), batch)
        self._refuse_too_long(asked, more=generation.max_new_tokens)
        inputs = {"inputs_embeds": asked.values, "attention_mask": asked.mask.long()}
        written = write(cast("Any", self.lm).generate, inputs, batch.ids, generation=generation, stop=self._ends.stop)
        said = [Text(self.preparer.text(row.tokens), row.score) for row in written]
        return [Prediction(id, {self._answer: text}) for id, text in zip(batch.ids, said, strict=True)]

    def save(self, folder: Path) -> None:
        """Write towers/<part>/, towers/lm/ and, where there is a connector, joint.safetensors."""
        save_towers(self.loaded, folder)
        save_pretrained(self.lm, folder / "towers" / LANGUAGE)
        self.language.processor.save_pretrained(folder / "towers" / LANGUAGE)
        save_joint(self, self.inside, folder)

    def _read(self, part: str, batch: Batch) -> dict[str, Tensor]:
        tower = self.loaded[part]
        read = run_present(tower.module, batch, part, pool="mean", width=tower.width)
        return {"tokens": read.values, "mask": read.mask}

    def _asked(self, features: Features, batch: Batch) -> Packed:
        inputs = batch.inputs[LANGUAGE]
        start = inputs["input_ids"].new_full((len(batch), 1), self._ends.start)
        pieces = [(self._embed(start), torch.ones_like(start, dtype=torch.bool))]
        for part in self.loaded:
            connector, read = self.connector[child(part)], features.parts[part]
            values, mask = connector(read["tokens"].to(next(connector.parameters()).dtype), read["mask"])
            pieces.append((values.to(pieces[0][0].dtype), mask & present(batch, part).unsqueeze(1)))
        pieces.append((self._embed(inputs["input_ids"]), inputs["attention_mask"].bool()))
        return pack(pieces)

    def _embed(self, ids: Tensor) -> Tensor:
        return self.lm.get_input_embeddings()(ids)

    def _refuse_too_long(self, packed: Packed, more: int = 0) -> None:
        limit = self.preparer.limit
        if packed.values.shape[1] + more <= limit:
            return  # the rows themselves are counted only where their padding does not fit: on a GPU it means waiting
        length = int(packed.mask.sum(1).max()) + more
        if length > limit:
            found = f"a sequence of {length} tokens is longer than the language model's {limit} positions."
            raise ModelError("model.lm", found, "Lower connector.tokens, a text part's max_length, or evaluate.generate.max_new_tokens.")
