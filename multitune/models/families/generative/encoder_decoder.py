"""An encoder-decoder as its folder has it: an answer written from a text, a sound or a picture."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.modeling_outputs import BaseModelOutput

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.core.protocols import Batch, Features, Needs, Outputs, Prediction, Text
from multitune.models import tokens
from multitune.models.encoders import save_pretrained
from multitune.models.families.generative.decoding import Generation, Written, write
from multitune.models.families.generative.inside import beside
from multitune.models.families.generative.packing import places, told
from multitune.models.families.generative.preparing import LONGEST_ANSWER
from multitune.models.families.generative.prompt import Prompt
from multitune.models.families.generative.sides import WHERE, Sides, frame, refuse_other_processor, room
from multitune.models.families.generative.two_sided import DECODER, ENCODER, TwoSidedPreparer
from multitune.models.load import LoadedModel
from multitune.models.signals import signal
from multitune.models.weights.limits import limit_of


class EncoderDecoder(nn.Module):
    """The model under `model`; `encode` runs its encoder alone, `join` its decoder over what the encoder gave."""

    def __init__(self, loaded: LoadedModel, parts: Sides, preparer: TwoSidedPreparer, needs: Needs, limit: int) -> None:
        super().__init__()
        self.model = loaded.module
        self.preparer = preparer
        self.needs = needs
        self.whole = loaded
        self._answer = preparer.answer
        self._seam = parts.seam
        self._limit = limit
        paths = {id(module): path for path, module in self.named_modules()}
        self._paths = {ENCODER: paths[id(parts.encoder)], DECODER: paths[id(parts.decoder)]}

    @property
    def towers(self) -> Mapping[str, nn.Module]:
        """`encoder` and `decoder`."""
        return {name: self.get_submodule(path) for name, path in self._paths.items()}

    @property
    def sources(self) -> Mapping[str, LoadedModel]:
        """What was read: one model."""
        return {"model": self.whole}

    @property
    def public(self) -> Mapping[str, str]:
        """What lies beside the two is the decoder's, as a language model's head is its own: `decoder.shared`, `decoder.lm_head`."""
        return {path: f"{DECODER}.{name}" for path, name in beside(self, tuple(self._paths.values())).items()}

    def forward(self, batch: Batch) -> Outputs:
        """`join(encode(batch), batch)`."""
        return self.join(self.encode(batch), batch)

    def encode(self, batch: Batch) -> Features:
        """The encoder's tokens (rows, tokens, width) and mask (rows, tokens)."""
        read = tokens.read(cast("Any", self.towers[ENCODER]), batch.inputs[ENCODER], pool="mean")
        return Features({ENCODER: {"tokens": read.values, "mask": read.mask}})

    def join(self, features: Features, batch: Batch) -> Outputs:
        """Logits (rows, tokens, vocabulary) of the answer's tokens, each predicted from the source and all that stands before it."""
        answers = batch.answers[self._answer]
        given = told(batch.inputs[DECODER], answers)
        wanted = places(given, answers)
        heard = self._heard(features.parts[ENCODER], batch)
        if self._seam == "encoder_outputs":
            output = self.model(**heard, decoder_input_ids=given["input_ids"], use_cache=False)
        else:
            output = self.towers[DECODER](**heard, input_ids=given["input_ids"], use_cache=False)
        index = wanted.clamp(max=given["input_ids"].shape[1] - 1).unsqueeze(-1)
        return Outputs(logits={self._answer: torch.take_along_dim(output.logits, index, dim=1)})

    @torch.no_grad()
    def predict(self, batch: Batch, *, generate: Mapping[str, Any]) -> list[Prediction]:
        """Write each row's answer. generate: max_new_tokens, temperature (0: the likeliest token), top_p, seed.

        Raises: ModelError if the decoder has no positions for so many tokens.
        """
        generation = catalog.parse(Generation, generate, where="evaluate.generate")
        given = batch.inputs[DECODER]
        lengths = given["attention_mask"].sum(1)
        if int(lengths.max()) + generation.max_new_tokens > self._limit:
            found = (
                f"{generation.max_new_tokens} new tokens after {int(lengths.max())} that are given; the decoder has {self._limit} places."
            )
            raise ModelError("evaluate.generate.max_new_tokens", found, "Lower it.")
        read = self.encode(batch).parts[ENCODER]
        written: dict[int, Written] = {}
        for length in lengths.unique().tolist():  # rows of one length at a time: nothing is then padded before the answer
            rows = (lengths == length).nonzero()[:, 0]
            heard = self._heard({name: value[rows] for name, value in read.items()}, _taken(batch, rows))
            said = self._write(heard, given["input_ids"][rows, :length], [batch.ids[row] for row in rows.tolist()], generation)
            written |= dict(zip(rows.tolist(), said, strict=True))
        said = [Text(self.preparer.text(written[row].tokens), written[row].score) for row in range(len(batch))]
        return [Prediction(id, {self._answer: text}) for id, text in zip(batch.ids, said, strict=True)]

    def save(self, folder: Path) -> None:
        """`model/` and `processor/`, which plain Transformers loads."""
        save_pretrained(self.model, folder / "model")
        self.whole.processor.save_pretrained(folder / "processor")

    def _heard(self, read: Mapping[str, Tensor], batch: Batch) -> dict[str, Any]:
        """The encoder's tokens as the decoder takes them; the mask is the source's own, as the model itself hands it on."""
        values = read["tokens"].to(self.model.dtype)
        if self._seam == "encoder_hidden_states":
            return {"encoder_hidden_states": values, "encoder_attention_mask": read["mask"].long()}
        mask = batch.inputs[ENCODER].get("attention_mask")
        more = {} if mask is None or mask.is_meta else {"attention_mask": mask}
        return {"encoder_outputs": BaseModelOutput(last_hidden_state=cast("Any", values)), **more}

    def _write(self, heard: Mapping[str, Any], given: Tensor, ids: list[str], generation: Generation) -> list[Written]:
        stop = self.preparer.frame.stop
        if self._seam == "encoder_hidden_states":
            run = cast("Any", self.towers[DECODER]).generate
            return write(run, {**heard, "input_ids": given}, ids, generation=generation, stop=stop)
        # The mixin's own: a model that overrides it would put its own tokens before the answer, in place of those that are given.
        run = partial(cast("Any", GenerationMixin).generate, self.model)
        return write(run, {**heard, "decoder_input_ids": given}, ids, generation=generation, stop=stop)


def build_encoder_decoder(
    loaded: LoadedModel, parts: Sides, prompt: Prompt, answer: str, medium: str, begin: str, needs: Needs
) -> EncoderDecoder:
    """The model in a folder, with its processor. medium: the part that is no text; empty where the encoder reads text.

    Raises: ModelError for a processor that is not the model's, or a start that leaves no room for an answer.
    """
    tokenizer, source = _readers(loaded.processor, parts.reads)
    way = signal(parts.reads, source, limit=limit_of(parts.encoder, tokenizer))
    refuse_other_processor(loaded.module, parts, way, tokenizer)
    ends = frame(loaded.module, parts, tokenizer, begin)
    limit = room(parts.decoder)
    left = limit - len(ends.start)
    asked = int(needs.answers[answer].options.get("max_length", 0))
    answer_limit = min(asked or min(LONGEST_ANSWER, limit // 2 if medium and prompt.parts else left), left)
    if answer_limit < 1:
        raise ModelError(WHERE, f"{len(ends.start)} tokens before the answer fill the decoder's {limit} places.", "Shorten model.begin.")
    limits = {name: int(needs.parts[name].options.get("max_length", 0)) for name in prompt.parts}
    preparer = TwoSidedPreparer(way, tokenizer, prompt, answer, medium, ends, limits, left - answer_limit, answer_limit)
    return EncoderDecoder(loaded, parts, preparer, needs, limit).eval()


def _readers(processor: Any, reads: str) -> tuple[Any, Any]:
    """The tokenizer of the answers, and what prepares the encoder's input.

    Raises: ModelError for a processor that lacks one of them.
    """
    if reads == "text":
        return processor, processor
    inside = vars(processor)
    for name in ("tokenizer", _READERS[reads]):
        if inside.get(name) is None:
            word = name.replace("_", " ")
            raise ModelError(WHERE, f"its processor has no {word}.", f"Add the files of the {word} that belongs to these weights.")
    return inside["tokenizer"], inside[_READERS[reads]]


_READERS = {"image": "image_processor", "audio": "feature_extractor"}


def _taken(batch: Batch, rows: Tensor) -> Batch:
    """Those rows of the encoder's input."""
    inputs = {name: value[rows] for name, value in batch.inputs[ENCODER].items()}
    return Batch(tuple(batch.ids[row] for row in rows.tolist()), {ENCODER: inputs}, {}, {})
