"""The teacher of a run: opened, refused where it does not fit, and asked once about the rows of the train split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from multitune.core import store
from multitune.core.errors import ArtifactError, DataError, ModelError, RecipeError, one_of
from multitune.core.finding import Finding, Severity
from multitune.core.plan import Value
from multitune.core.protocols import (
    Answer,
    AnswerNeed,
    Batch,
    Category,
    Embedding,
    Labels,
    Needs,
    Number,
    Outputs,
    Prediction,
    Sample,
    TaughtLoss,
)
from multitune.core.rundir import REQUEST, RunDir
from multitune.data.decode import BadPart
from multitune.data.split import Examples
from multitune.deliver.sealing import SEAL
from multitune.models import encoders
from multitune.models.load import TowerSpec, Weights, load_tower
from multitune.models.predictor import Predictor, answered
from multitune.tuning.ranks import Ranks
from multitune.tuning.teaching import Table, keep, kept
from multitune.verbs.train.line import Line
from multitune.verbs.train.said import Said

if TYPE_CHECKING:
    from multitune.deliver.artifact import Artifact

WHERE = "loss.teacher"
CHUNK = 512
PARITY = 1e-3
LEAST = 1e-30  # of a probability whose logarithm is taken


@dataclass(frozen=True)
class Teacher:
    """A model that is asked and does not learn. identity: a hash of it. artifact: None for a bare tower, which gives vectors alone."""

    name: str
    identity: str
    needs: Needs
    artifact: Artifact | None

    @cached_property
    def family(self) -> Any:
        """The model, in eval mode.

        Raises: RecipeError for an artifact that no longer gives what it gave when it was saved.
        """
        if self.artifact is None:
            return _Bare(self.name, self.needs, Weights("pretrained"))
        far = self.artifact.parity()
        if not far <= PARITY:
            found = f"{self.name} does not give the predictions that it was saved with: they are {far:g} apart."
            raise RecipeError(WHERE, found, "Use the library versions that its contract.json names, or train it again.")
        return self.artifact.family

    def says(self, samples: Sequence[Sample], *, vectors: bool) -> Mapping[int, Prediction]:
        """What it says of samples, by their place, as its own preprocessing reads them; not of those that it cannot read.

        vectors: its towers' pooled vectors in place of its answers.
        """
        asked = [replace(one, parts={name: part for name, part in one.parts.items() if name in self.needs.parts}) for one in samples]
        fit = [place for place, one in enumerate(asked) if one.parts and not (self.artifact is not None and self.artifact.lacks(one))]
        predictor = Predictor(_Looked(self.family)) if vectors or self.artifact is None else Predictor(self.family)
        given = answered(predictor, [asked[place] for place in fit]).predictions
        return {fit[place]: prediction for place, prediction in given.items()}


def plan(loss: object, needs: Needs) -> tuple[dict[str, Value], tuple[Finding, ...]]:
    """What a plan says of a loss's teacher; nothing for a loss without one.

    Raises: RecipeError for a teacher that cannot be opened, or has other parts, answers or labels.
    """
    if not isinstance(loss, TaughtLoss) or not _asks(loss):
        return {}, ()
    teacher = opened(loss, needs)
    values = {"loss.teacher_hash": Value(teacher.identity, "derived", note=f"of {teacher.name}; it is asked once, without augmentation")}
    moved = [name for name in loss.taught_answers if teacher.needs.answers[name].labels != needs.answers[name].labels]
    message = f"its labels of {one_of(moved)} stand in another order; they are matched by name."
    return values, ((Finding("teacher-order", Severity.INFO, WHERE, message),) if moved else ())


def opened(loss: TaughtLoss, needs: Needs) -> Teacher:
    """The teacher that a loss names, its weights not yet read.

    Raises: RecipeError as `plan` does.
    """
    from multitune.deliver.artifact import open_artifact  # with all that it takes, which a run without a teacher need not wait for

    path = Path(loss.teacher)
    try:
        if (path / SEAL).is_file() or (path / REQUEST).is_file():
            artifact = open_artifact(path)
            identity = store.hash_file(artifact.folder / SEAL)
            teacher = Teacher(artifact.facts.name, identity, artifact.needs, artifact)
        else:
            teacher = _tower(loss, needs)
    except (ArtifactError, ModelError) as error:
        raise RecipeError(WHERE, f"{loss.teacher}: {error.found}", error.remedy) from None
    _refuse(loss, teacher, needs)
    return teacher


def table(line: Line, run: RunDir, device: torch.device, root: Path | None) -> Table | None:
    """What the teacher says of every row, from the run's folder, or asked and kept there; None for a loss without a teacher.

    root: the store in which its words are looked for and kept, if one is used.
    Raises: RunError for a table that is not what was written; RecipeError for a teacher that does not give what is asked.
    """
    loss, needs, examples = line.loss, line.planned.data.needs, line.planned.data.examples["train"]
    if not isinstance(loss, TaughtLoss) or not _asks(loss):
        return None
    teacher = opened(loss, needs)
    asked = {"teacher": teacher.identity, "answers": loss.taught_answers, "parts": loss.taught_parts, "rows": examples.ids}
    rests_on = store.key(asked)
    found = kept(run, rests_on)
    if found is not None:
        return replace(found, counts={"teacher/hits": float(len(found.ids)), "teacher/asked": 0.0})
    torch.set_num_threads(line.planned.plan["train.threads"])
    said = _said(teacher, loss, needs, device, root)
    made = ask(teacher, loss, needs, examples, range(len(examples)), said=said, device=device)
    return replace(keep(run, made, rests_on), counts=said.counts.figures(), findings=tuple(said.counts.findings))


def _said(teacher: Teacher, loss: TaughtLoss, needs: Needs, device: torch.device, root: Path | None) -> Said:
    if root is None:
        return Said(tuple(teacher.needs.parts), ())
    wanted = Needs({}, {name: needs.answers[name] for name in loss.taught_answers})
    own = teacher.needs
    return Said.open(root, teacher=teacher.identity, name=teacher.name, needs=own, asked=wanted, parts=loss.taught_parts, device=device)


def tabled(line: Line, run: RunDir, ranks: Ranks, root: Path | None) -> Table | None:
    """`table` on every rank: the main one makes it, the others read it."""
    made = ranks.on_main(lambda: table(line, run, ranks.device, root))
    return made if ranks.main else table(line, run, ranks.device, None)


def of_batch(loss: object, needs: Needs, examples: Examples, batch: Batch) -> Batch:
    """A batch with what the teacher says of its rows, asked for them alone."""
    if not isinstance(loss, TaughtLoss) or not _asks(loss):
        return batch
    wanted = set(batch.ids)
    places = [place for place, name in enumerate(examples.ids) if name in wanted]
    return ask(opened(loss, needs), loss, needs, examples, places).joined(batch)


def ask(
    teacher: Teacher,
    loss: TaughtLoss,
    needs: Needs,
    examples: Examples,
    places: Sequence[int],
    *,
    said: Said | None = None,
    device: torch.device | None = None,
) -> Table:
    """What the teacher says of rows; of those that it was asked about before, what it said.

    Raises: RecipeError where it gives no vector of a part, or can read no row; DataError where two rows have one id.
    """
    if len(set(examples.ids)) != len(examples.ids):
        raise DataError(WHERE, "two rows of train have the same id, and what a teacher says is joined by it.", "Give each row its own.")
    said = said or Said(tuple(teacher.needs.parts), ())
    rows: dict[str, Mapping[str, torch.Tensor]] = {}
    for start in range(0, len(places), CHUNK):
        samples = [one for place in places[start : start + CHUNK] if (one := _read(examples, place)) is not None]
        contents = [said.content(one) for one in samples]
        known = {one.id: row for one, content in zip(samples, contents, strict=True) if (row := said.before(content)) is not None}
        new = {one.id: (content, one) for one, content in zip(samples, contents, strict=True) if one.id not in known}
        if new and device is not None:
            teacher.family.to(device)
        said.counts.asked += len(new)
        told = _told(teacher, loss, needs, [one for _, one in new.values()]) if new else {}
        said.keep({new[id][0]: (new[id][1], row) for id, row in told.items() if new[id][0]})
        both = {**known, **told}
        rows |= {one.id: both[one.id] for one in samples if one.id in both}
    if not rows:
        raise RecipeError(WHERE, f"{teacher.name} can read none of the rows.", "Choose another, or look at a row with `multitune predict`.")
    names = next(iter(rows.values()))
    return Table(tuple(rows), {name: torch.stack(_even([row[name] for row in rows.values()])) for name in names})


def _told(teacher: Teacher, loss: TaughtLoss, needs: Needs, samples: Sequence[Sample]) -> dict[str, Mapping[str, torch.Tensor]]:
    """Id -> column -> what the teacher says now of these rows; those that it cannot read are left out."""
    said = teacher.says(samples, vectors=False) if loss.taught_answers else {}
    seen = teacher.says(samples, vectors=True) if loss.taught_parts else said
    made: dict[str, Mapping[str, torch.Tensor]] = {}
    for place in sorted((said or seen).keys() & seen.keys()):
        answers = {f"answer/{name}": _number(said[place].answers[name], needs.answers[name]) for name in loss.taught_answers}
        vectors = {f"feature/{part}": _vector(seen[place].answers.get(part), part) for part in loss.taught_parts}
        made[samples[place].id] = answers | vectors
    return made


def _asks(loss: TaughtLoss) -> bool:
    return bool(loss.taught_answers or loss.taught_parts)


def _read(examples: Examples, place: int) -> Sample | None:
    try:
        return examples.sample(place)
    except BadPart:
        return None  # the loader takes it down when it comes to it


def _number(answer: Answer, need: AnswerNeed) -> torch.Tensor:
    """An answer in the order and the units of the student: logarithms of probabilities, log-odds, standard deviations."""
    match answer:
        case Category():
            return torch.tensor([math.log(max(answer.scores[label], LEAST)) for label in need.labels])
        case Labels():
            odds = [(max(answer.scores[label], LEAST), max(1 - answer.scores[label], LEAST)) for label in need.labels]
            return torch.tensor([math.log(yes) - math.log(no) for yes, no in odds])
        case Number():
            return torch.tensor((answer.value - need.mean) / need.deviation)
        case _:
            raise RecipeError(WHERE, f"its answer is {answer.kind}, which is not taught.", "Teach a category, labels or a number.")


def _vector(answer: Answer | None, part: str) -> torch.Tensor:
    """A part's pooled vector; empty where the row lacks the part."""
    return torch.from_numpy(answer.value) if isinstance(answer, Embedding) else torch.zeros(0)


def _even(rows: list[torch.Tensor]) -> list[torch.Tensor]:
    """Rows of one shape: what is empty becomes zeros, which no loss reads."""
    shape = max((row.shape for row in rows), key=lambda one: one.numel())
    return [row if row.shape == shape else torch.zeros(shape) for row in rows]


def _refuse(loss: TaughtLoss, teacher: Teacher, needs: Needs) -> None:
    name = teacher.name
    for part, need in teacher.needs.parts.items():
        if part not in needs.parts or needs.parts[part].modality != need.modality:
            has = f"has it as {needs.parts[part].modality}" if part in needs.parts else f"has {one_of(needs.parts)}"
            found = f'{name} reads the part "{part}" ({need.modality}); the recipe {has}.'
            raise RecipeError(WHERE, found, "Choose a teacher of these parts.")
    for part in loss.taught_parts:
        if part not in teacher.needs.parts:
            raise RecipeError("loss.parts", f'{name} does not read "{part}"; it reads {one_of(teacher.needs.parts)}.', "Name those.")
    for answer in loss.taught_answers:
        _refuse_answer(name, answer, needs.answers[answer], teacher.needs)


def _refuse_answer(name: str, answer: str, mine: AnswerNeed, taught: Needs) -> None:
    its = taught.answers.get(answer)
    if its is None:
        gives = one_of(taught.answers) if taught.answers else "vectors alone"
        found, remedy = f'{name} does not answer "{answer}"; it gives {gives}.', "Choose another, or features with alpha: 0."
        raise RecipeError(WHERE, found, remedy)
    if its.modality != mine.modality:
        found = f'{name} answers "{answer}" with {its.modality}, the recipe asks for {mine.modality}.'
        raise RecipeError(WHERE, found, "Choose another.")
    more, fewer = (", ".join(sorted({*one} - {*other})[:3]) for one, other in ((its.labels, mine.labels), (mine.labels, its.labels)))
    if more or fewer:
        told = " and ".join(filter(None, (f"knows {more} besides" if more else "", f"does not know {fewer}" if fewer else "")))
        raise RecipeError(WHERE, f'{name} has other labels of "{answer}": it {told}.', "Choose one of the same labels.")


def _tower(loss: TaughtLoss, needs: Needs) -> Teacher:
    """A Hugging Face folder or hub id as a teacher of vectors, for the part that it reads."""
    parts = loss.taught_parts
    if len(parts) != 1:
        found = f"{loss.teacher} is no artifact, so it gives the vector of one part, and {len(parts)} are asked for."
        if not Path(loss.teacher).exists():
            found = f"there is no folder {loss.teacher}, and a tower of the hub gives the vector of one part alone."
        raise RecipeError(WHERE, found, "Name an artifact or a finished run; or features with parts: [one of them].")
    own = Needs({parts[0]: needs.parts[parts[0]]}, {})
    tower = _Bare(loss.teacher, own, Weights("meta")).tower
    files = sorted(Path(tower.provenance.folder).glob("*.safetensors")) if tower.provenance.folder is not None else []
    identity = store.key({"from": tower.provenance.line(), "weights": [store.hash_file(file) for file in files]})
    return Teacher(loss.teacher, identity, own, None)


class _Bare(nn.Module):
    """A tower by itself: its pooled vector of one part."""

    def __init__(self, name: str, needs: Needs, weights: Weights) -> None:
        super().__init__()
        (part,) = needs.parts
        self.needs, self.part = needs, part
        self.tower = load_tower(part, TowerSpec(pretrained=name), modality=encoders.readable(part, needs), weights=weights)
        self.module = self.tower.module
        self.preparer = encoders.preparer({part: self.tower}, needs)

    def forward(self, batch: Batch) -> Outputs:
        read = encoders.run_present(self.tower.module, batch, self.part, pool=self.tower.pool, width=self.tower.width)
        return Outputs(features={self.part: read.pooled})


class _Looked(nn.Module):
    """A family asked for its towers' pooled vectors, under the names of their parts."""

    def __init__(self, family: Any) -> None:
        super().__init__()
        self.family, self.needs, self.preparer = family, family.needs, family.preparer

    def predict(self, batch: Batch, *, generate: Mapping[str, Any]) -> list[Prediction]:
        features = cast("Outputs", self.family(batch)).features
        if not features:
            raise RecipeError("loss.features", "the teacher gives no pooled vectors.", "Use a fusion_encoder, or features: none.")
        vectors = {part: vector.float().cpu().numpy() for part, vector in features.items()}
        there = {part: batch.presence[part].tolist() for part in vectors}
        return [
            Prediction(id, {part: Embedding(np.array(rows[row])) for part, rows in vectors.items() if there[part][row]})
            for row, id in enumerate(batch.ids)
        ]


__all__ = ["Teacher", "ask", "of_batch", "opened", "plan", "table", "tabled"]
