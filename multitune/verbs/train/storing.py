"""Whether a run keeps what its frozen towers give, decided once; the line from there on runs on it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multitune.core.errors import WriteFault
from multitune.core.finding import Finding, Severity
from multitune.core.protocols import Sample
from multitune.core.rundir import RunDir
from multitune.verbs.train.line import CUTS, Line, keep_cuts

if TYPE_CHECKING:
    from multitune.data.split import Examples
    from multitune.models.features.filling import Features
    from multitune.models.predictor import Predictor
    from multitune.models.replay import Proof, Seam
    from multitune.tuning.ranks import Ranks

FILE = "features.json"  # in the run: what was decided at its first start
SPARE = 0.9  # of the free disk that features may take
OFF = "The run goes on without: what is frozen is computed in every step."


@dataclass(frozen=True)
class Kept:
    """The line, running on what the run keeps if it keeps something. findings: why not, and what was set aside."""

    line: Line
    findings: tuple[Finding, ...] = ()

    def predictor(self, generate: Mapping[str, Any], *, thresholds: Mapping[str, Mapping[str, float]] | None = None) -> Predictor:
        """What evaluations ask: it reads what is kept."""
        from multitune.data.loader import shared_memo
        from multitune.models.features.filling import FillingPredictor
        from multitune.models.predictor import Predictor

        if self.line.features is not None:
            return FillingPredictor(self.line.features, generate=generate, memo=shared_memo, thresholds=thresholds)
        return Predictor(self.line.family, generate=generate, memo=shared_memo, thresholds=thresholds)

    def figures(self) -> dict[str, float]:
        """What was found and done, by name; nothing where nothing is kept."""
        return self.line.features.counts.figures() if self.line.features is not None else {}


def keep(line: Line, run: RunDir, ranks: Ranks) -> Kept:
    """Decide what is kept, or do as this run decided before, and encode what its steps and evaluations read.

    Raises: WriteFault where a run that began with stored features cannot have them; Fault for a stored row that the model no longer gives.
    """
    if line.planned.recipe.features.store == "off":
        return Kept(line)
    (decided,) = ranks.from_main([_DECISIONS.index(_before(run) if ranks.main else "")])
    before = _DECISIONS[decided]
    if before == "off":
        return Kept(line, _findings_before(run) if ranks.main else ())
    settled = line.cuts()
    if ranks.main and run.read_json(CUTS) is None:
        keep_cuts(settled, run)
    kept = _kept(line, settled.proofs, ranks, first=not before)
    if ranks.main and not before:
        facts = {"store": "on" if kept.line.features is not None else "off", "findings": [finding.to_json() for finding in kept.findings]}
        run.write_json(FILE, facts)
    return kept


_DECISIONS = ("", "on", "off")


def _before(run: RunDir) -> str:
    found = run.read_json(FILE)
    return "" if found is None else str(found["store"])


def _findings_before(run: RunDir) -> tuple[Finding, ...]:
    found = run.read_json(FILE)
    return tuple(Finding(**(finding | {"severity": Severity(finding["severity"])})) for finding in (found or {"findings": []})["findings"])


def _kept(line: Line, proofs: Sequence[Proof], ranks: Ranks, *, first: bool) -> Kept:
    """What is kept of the cuts that hold. first: a run that has not begun may still go on without."""
    seams, findings = fitting(line, proofs)
    if not seams:
        return Kept(line, tuple(findings))
    as_in_training(line, ranks)

    def filled() -> tuple[Features | None, list[Finding]]:
        try:
            if first:
                _refuse_lack_of_space(line, proofs, seams)
            features, found = opened(line, seams)
            features.fill(every_sample(line))
            features.check()
        except WriteFault as fault:
            if not first:
                raise
            return None, [Finding("features-not-kept", Severity.WARNING, "features.store", str(fault), OFF)]
        return features, found

    made = ranks.on_main(filled)
    (there,) = ranks.from_main([int(made is not None and made[0] is not None)])
    if not there:
        return Kept(line, (*findings, *(made[1] if made is not None else ())))
    features, found = made if made is not None else opened(line, seams)
    if features is None:
        return Kept(line, (*findings, *found))
    loader = line.loader.over(features.preparer())
    return Kept(replace(line, loader=loader, features=features), (*findings, *found))


def opened(line: Line, seams: Mapping[str, Seam]) -> tuple[Features, list[Finding]]:
    """The store that the recipe names, for cuts that hold, and what was set aside in it.

    Raises: WriteFault if the folder does not take a file.
    """
    from multitune.models.features.filling import Features
    from multitune.models.features.keys import Asked

    plan = line.planned.plan
    asked = Asked(plan["features.type"], plan["train.threads"])
    return Features.open(line.family, seams, root=folder_of(line), asked=asked, seed=plan["run.seed"])


def folder_of(line: Line) -> Path:
    """The store's folder: the recipe's, else in the cache."""
    from multitune.models.features.upkeep import root_of

    return root_of(line.planned.recipe.features.folder)


def every_sample(line: Line) -> Iterator[Sample]:
    """The rows that planned steps read, in the order in which they ask for them, and those that evaluations do."""
    splits = line.planned.data.examples
    yield from samples(splits["train"], line.loader.first_asked(line.planned.plan["train.steps"]))
    for name in ("valid", "test"):
        if name in splits:
            yield from samples(splits[name], range(len(splits[name])))


def every_row(line: Line) -> Iterator[Sample]:
    """All rows of all splits."""
    for split in line.planned.data.examples.values():
        yield from samples(split, range(len(split)))


def samples(examples: Examples, places: Sequence[int]) -> Iterator[Sample]:
    """The samples in these places; what cannot be one is passed over: the loader takes it down."""
    from multitune.data.decode import BadPart

    for place in places:
        try:
            yield examples.sample(place)
        except BadPart:
            continue


def fitting(line: Line, proofs: Sequence[Proof]) -> tuple[dict[str, Seam], list[Finding]]:
    """The cuts that hold and can be stored, by tower, and why the others cannot."""
    from multitune.models.features import ways
    from multitune.models.replay import probe_samples

    recipe, preparer = line.planned.recipe, line.family.preparer
    known = ways.ways(preparer)
    seams: dict[str, Seam] = {}
    findings: list[Finding] = []
    for proof in proofs:
        tower, seam = proof.cut.tower, proof.seam
        if not proof.equal or seam is None:
            continue
        way, parts = known.get(tower), recipe.data.parts
        outside = [path for path in seam.below if not path.startswith(f"{_root(line, tower)}.")]
        why = ""
        if recipe.train.precision != "fp32":
            why = f"training is in {recipe.train.precision}, and they would be in fp32"
        elif way is None:
            why = "its input cannot be kept apart: it is joined with other parts, or its signal has no `light`"
        elif augmented := [name for name in way.parts if parts[name].augment]:
            why = f"{' and '.join(augmented)} is augmented, another one in each epoch"
        elif outside:
            why = f"{outside[0]}, which is of another tower, runs below it"
        else:
            why = ways.trouble(preparer, way, probe_samples(line.family.needs), [name for at, name in seam.blank if at == way.inputs])
        if why:
            findings.append(Finding("features-not-kept", Severity.INFO, proof.cut.name, f"its features are not kept: {why}.", ""))
        else:
            seams[tower] = seam
    return seams, findings


def _root(line: Line, tower: str) -> str:
    return line.anatomy.tower(tower).path


def as_in_training(line: Line, ranks: Ranks) -> None:
    """The threads and the device that training will have: both are in the key."""
    import torch

    torch.set_num_threads(line.planned.plan["train.threads"])
    line.scope.family.to(ranks.device)


def _refuse_lack_of_space(line: Line, proofs: Sequence[Proof], seams: Mapping[str, Seam]) -> None:
    """Raises: Fault where the disk has clearly no room for what all rows would leave."""
    root, rows = folder_of(line), sum(map(len, line.planned.data.examples.values()))
    need = sum(max(proof.num_bytes) * rows for proof in proofs if proof.cut.tower in seams)
    there = next(path for path in (root, *root.resolve().parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    if need > SPARE * free:
        raise WriteFault(f"{root}: features of {rows:,} rows take up to {need:,} bytes, and {free:,} are free. Free some space.")
