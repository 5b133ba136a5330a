"""An artifact: a model with all that using it takes, in a folder that is believed only where all of it verifies.

    artifact.json (what it is, and the sha256 of every other file)  towers/<name>/ or model/  processor/  adapters/<tower>/
    joint.safetensors  labels.json  contract.json  golden/  README.md

It loads with nothing else. It is written under a temporary name and renamed once.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

from pydantic import Field, ValidationError

import multitune
from multitune.core import catalog
from multitune.core.errors import ArtifactError, DataError, Fault, did_you_mean, one_of
from multitune.core.plan import Plan
from multitune.core.protocols import Family, Needs, Prediction, Sample
from multitune.core.recipe import PartSpec, Strict, make_recipe
from multitune.core.rundir import REQUEST, sync_folder
from multitune.data.decode import BadPart, unreadable
from multitune.data.sample import sample
from multitune.deliver import golden as goldens
from multitune.deliver import sealing
from multitune.deliver.adapters import load_adapters, save_adapters
from multitune.deliver.model_card import Story, model_card
from multitune.deliver.sealing import SEAL
from multitune.models.contract import contract
from multitune.models.load import Weights
from multitune.models.plan import family_plugin
from multitune.models.predictor import Predictor

if TYPE_CHECKING:
    from multitune.tuning.scope import Scope

FORM = 1
SHOWN_PATH = 200
MEND = "Mend it, or leave the row out."


class Asked(Strict):
    """A family as it was asked for, its defaults written out."""

    name: str
    options: dict[str, Any]


class Facts(Strict):
    """What artifact.json holds.

    plan, contract: hashes. request: the recipe as it was asked. generate: how texts are made. thresholds: answer -> label ->
    the probability from which on it is given (where not: a half). adapters: towers that have them.
    averaged: of which weights the model is the average, and what validation chose; empty where of none.
    files: path -> sha256 and size of every other file.
    """

    form: int
    multitune: str
    name: str
    task: str
    plan: str
    contract: str
    request: dict[str, Any]
    family: Asked
    parts: dict[str, PartSpec]
    needs: Needs
    generate: dict[str, Any]
    thresholds: dict[str, dict[str, float]] = Field(default_factory=dict)
    adapters: tuple[str, ...]
    parameters_moved: int
    figures: dict[str, float]
    averaged: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """An artifact that verified; the model itself is read when it is first asked for. merge: adapters are added into the weights."""

    folder: Path
    facts: Facts
    merge: bool = False

    @property
    def request(self) -> Mapping[str, Any]:
        """The recipe that it was trained by, as it was asked."""
        return self.facts.request

    @property
    def needs(self) -> Needs:
        """The parts that it reads and the answers that it gives."""
        return self.facts.needs

    @property
    def parts(self) -> Mapping[str, PartSpec]:
        """How each part that it reads is found in a row."""
        return self.facts.parts

    @property
    def figures(self) -> Mapping[str, float]:
        """What was measured when it was made."""
        return self.facts.figures

    @cached_property
    def family(self) -> Family:
        """The model, in eval mode.

        Raises: ArtifactError if its preprocessing is not what it was trained with.
        """
        asked = self.facts.family
        plugin = catalog.find("family", asked.name, asked.options, where=str(self.folder / SEAL))
        family = cast("Family", plugin.build(self.needs, Weights("artifact", self.folder)))
        load_adapters(family, self.folder, merge=self.merge)
        _refuse_other_contract(contract(family), self.folder)
        return family

    def predictor(self, generate: Mapping[str, Any] | None = None) -> Predictor:
        """What answers samples. generate: for texts; what it does not state is as the recipe has it."""
        return Predictor(self.family, generate={**self.facts.generate, **(generate or {})}, thresholds=self.facts.thresholds)

    @overload
    def predict(self, data: Mapping[str, Any]) -> Prediction: ...
    @overload
    def predict(self, data: Sequence[Mapping[str, Any]]) -> list[Prediction]: ...
    def predict(self, data: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Prediction | list[Prediction]:
        """The prediction for a mapping of parts, or those for a list of mappings, in order.

        A picture or a sound is a path, bytes, a PIL picture or an array (a sound: with its rate); `id` names the row.
        Raises: DataError for what is no mapping, naming the row and the part that is missing or cannot be read.
        """
        rows = [data] if isinstance(data, Mapping) else self._rows(data)
        asked = [self._sample(row, number) for number, row in enumerate(rows)]
        try:
            given = self.predictor().predict(asked)
        except BadPart as error:
            found = (self._unread(row, one.id, bad) for row, one in zip(rows, asked, strict=True) if (bad := unreadable(one)))
            raise next(found, DataError("predict", f"{error.part}: {error.cause}.", MEND)) from None
        return given[0] if isinstance(data, Mapping) else given

    def lacks(self, sample: Sample) -> str:
        """The first part that the model cannot do without and a sample does not have; empty where it has them all."""
        bare = not any(name in sample.parts for name in self.parts)
        needed = (name for name, spec in self.parts.items() if bare or (self.needs.answers and spec.missing != "mask"))
        return next((name for name in needed if name not in sample.parts), "")

    def parity(self) -> float:
        """The largest difference between what the model says to its golden inputs now and what it said when it was saved."""
        pairs = list(goldens.read(self.folder))
        given = self.predictor().predict([one for one, _ in pairs])
        return max((goldens.distance(now, before) for now, (_, before) in zip(given, pairs, strict=True)), default=0.0)

    def _sample(self, row: Mapping[str, Any], number: int) -> Sample:
        row_id = str(row.get("id", number))
        try:
            made = sample(row, self.parts, id=row_id)
        except BadPart as error:
            raise self._unread(row, row_id, error) from None
        if lacking := self.lacks(made):
            column = self.parts[lacking].column or lacking
            known = {spec.column or part for part, spec in self.parts.items()}
            near = next((str(name) for name in row if name not in known and did_you_mean(str(name), [column])), None)
            remedy = f"It reads {one_of(known)}." if near is None else f'Did you mean "{column}" where it says "{near}"?'
            raise DataError(f"predict, row {row_id}", f'"{column}" is missing.', remedy)
        return made

    def _rows(self, data: Any) -> list[Mapping[str, Any]]:
        """What was given as a list of mappings.

        Raises: DataError where it is none.
        """
        rows: list[Any] = list(data) if isinstance(data, Iterable) and not isinstance(data, str | bytes) else [data]
        for number, row in enumerate(rows):
            if not isinstance(row, Mapping):
                where = "predict" if row is data else f"predict, row {number}"
                parts = ", ".join(f'"{spec.column or part}": ...' for part, spec in self.parts.items())
                raise DataError(where, f"found {type(row).__name__}, no mapping of parts.", f"Give {{{parts}}}, or a list of such.")
        return rows

    def _unread(self, row: Mapping[str, Any], row_id: str, bad: BadPart) -> DataError:
        """The error of a part that cannot be read, with its path as it was given: the gate itself never names a folder."""
        spec = self.parts.get(bad.part)
        value = None if spec is None else row.get(spec.column or bad.part)
        named = isinstance(value, str | Path) and Path(value).name != str(value) and len(str(value)) <= SHOWN_PATH
        given = f' (given as "{value}")' if named else ""
        return DataError(f"predict, row {row_id}, {bad.part}", f"{bad.cause}{given}.", MEND)


def save(
    family: Family,
    *,
    folder: Path,
    plan: Plan,
    needs: Needs,
    scope: Scope,
    golden: Sequence[Sample],
    figures: Mapping[str, float],
    averaged: Mapping[str, Any] | None = None,
    thresholds: Mapping[str, Mapping[str, float]] | None = None,
    story: Story | None = None,
) -> Artifact:
    """Write a model as an artifact, whole or not at all; an older one gives way by a rename when the new one is complete.

    golden: a few samples to compare any copy by. averaged: what was averaged into the model, for its facts. story: for its card. What is
    given back has verified.
    Raises: Fault if the disk does not take it.
    """
    draft = folder.with_name(f"{folder.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        draft.mkdir(parents=True)
        _fill(
            draft,
            family,
            plan=plan,
            needs=needs,
            scope=scope,
            golden=golden,
            figures=figures,
            averaged=averaged or {},
            thresholds=thresholds or {},
            story=story or Story(),
        )
        _put(draft, folder)
    except OSError as error:
        found = f"{folder}: the artifact could not be written ({error.strerror or error})."
        raise Fault(f"{found} Free some space; run the same command again.") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return open_artifact(folder)


def open_artifact(path: Path | str, *, merge: bool = False) -> Artifact:
    """The artifact in a folder, or that of the run in it, once every file in it is what was written.

    merge: add LoRA adapters into the weights. Bottlenecks cannot be: the family of such an artifact then refuses to be read.
    Raises: ArtifactError for what is missing, extra, changed, a link or a pickle, or of a newer form.
    """
    folder = _of_run(Path(path))
    body = sealing.opened(folder, SEAL)
    if body.get("form") != FORM:
        found = f"has form {body.get('form')!r}; this multitune reads {FORM}."
        raise ArtifactError(str(folder / SEAL), found, "Use the multitune that wrote it.")
    try:
        return Artifact(folder, Facts.model_validate(body), merge)
    except ValidationError as error:
        first = error.errors()[0]
        raise ArtifactError(str(folder / SEAL), f"{'.'.join(map(str, first['loc']))}: {first['msg']}.", sealing.COPY_AGAIN) from None


def _of_run(folder: Path) -> Path:
    """The folder itself, or where a run's folder has its artifact.

    Raises: ArtifactError for a run that has not finished.
    """
    if not (folder / REQUEST).is_file():
        return folder
    if not (folder / "artifact").exists():
        found = "is the folder of a run that has not finished: it has no artifact yet."
        raise ArtifactError(str(folder), found, "Give the command of that run again: it goes on from its last checkpoint.")
    return folder / "artifact"


def _fill(
    draft: Path,
    family: Family,
    *,
    plan: Plan,
    needs: Needs,
    scope: Scope,
    golden: Sequence[Sample],
    figures: Mapping[str, float],
    averaged: Mapping[str, Any],
    thresholds: Mapping[str, Mapping[str, float]],
    story: Story,
) -> None:
    recipe = make_recipe(plan.request)
    plugin = family_plugin(recipe)
    family.save(draft)
    adapters = save_adapters(family, draft, scope.adapters)
    described = contract(family)
    _write_json(draft / "contract.json", described)
    _write_json(draft / "labels.json", {name: list(need.labels) for name, need in needs.answers.items() if need.labels})
    goldens.write(draft, golden, Predictor(family, generate=recipe.evaluate.generate, thresholds=thresholds))
    facts = Facts(
        form=FORM,
        multitune=multitune.__version__,
        name=recipe.name,
        task=recipe.task.name,
        plan=plan.hash(),
        contract=described["hash"],
        request=dict(plan.request),
        family=Asked(name=plugin.name, options=plugin.options.model_dump(mode="json")),
        parts={name: _settled(spec, recipe.data.missing) for name, spec in recipe.data.inputs.items()},
        needs=needs,
        generate=recipe.evaluate.generate,
        thresholds={name: dict(chosen) for name, chosen in thresholds.items()},
        adapters=tuple(adapters),
        parameters_moved=scope.parameters_moved,
        figures=dict(figures),
        averaged=dict(averaged),
    )
    folders = [
        path.parent.relative_to(draft).as_posix() for path in (*draft.glob("towers/*/config.json"), *draft.glob("model/config.json"))
    ]
    versions: dict[str, str] = {"torch": version("torch"), **described["versions"]}
    (draft / "README.md").write_text(model_card(facts, plan, story, folders=folders, versions=versions), "utf-8")
    sealing.seal(draft, SEAL, facts.model_dump(mode="json", exclude={"files"}))


def _put(draft: Path, folder: Path) -> None:
    """Rename the finished draft; what was there stands aside first and goes last."""
    aside = folder.with_name(f"{folder.name}.old-{uuid.uuid4().hex[:8]}")
    if folder.exists():
        folder.rename(aside)
    draft.rename(folder)
    sync_folder(folder.parent)
    for leftover in (*folder.parent.glob(f"{folder.name}.old-*"), *folder.parent.glob(f"{folder.name}.tmp-*")):
        shutil.rmtree(leftover, ignore_errors=True)


def _refuse_other_contract(now: Mapping[str, Any], folder: Path) -> None:
    """Versions of libraries may differ (parity tells whether it matters); what the preparer does may not."""
    then = json.loads((folder / "contract.json").read_text("utf-8"))
    if json.loads(json.dumps(now["preparer"])) != then["preparer"]:
        raise ArtifactError(
            str(folder / "contract.json"),
            "preprocesses its input otherwise than this installation does.",
            "Install the versions that contract.json names.",
        )


def _settled(spec: PartSpec, missing: str) -> PartSpec:
    """A part's spec with what holds for all parts written out; nothing is augmented when a model is used."""
    return spec.model_copy(update={"missing": missing if spec.missing == "data" else spec.missing, "augment": ()})


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
