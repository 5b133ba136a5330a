"""Whether a run keeps what its frozen towers give, decided once; the line from there on runs on it."""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multitune.core.errors import WriteFault
from multitune.core.finding import Finding, Severity
from multitune.core.plan import Value
from multitune.core.protocols import Sample, Split
from multitune.core.rundir import RunDir
from multitune.verbs.train.keeping import beside
from multitune.verbs.train.line import CUTS, Line, keep_cuts
from multitune.verbs.train.stages import Stages

if TYPE_CHECKING:
    from multitune.data.loader import Loader
    from multitune.data.split import Examples
    from multitune.models.features.keys import Asked
    from multitune.models.predictor import Predictor
    from multitune.models.replay import Proof, Seam
    from multitune.tuning.ranks import Ranks
    from multitune.tuning.teaching import Steps
    from multitune.verbs.train.deciding import Possible

FILE = "features.json"  # in the run: what was decided at its first start
OFF = "The run goes on without: what is frozen is computed in every step."
_DECISIONS = ("", "on", "off")


@dataclass(frozen=True)
class Kept:
    """The line, running on what the run keeps if it keeps something. findings: why not."""

    line: Line
    findings: tuple[Finding, ...] = ()

    def predictor(self, generate: Mapping[str, Any], *, thresholds: Mapping[str, Mapping[str, float]] | None = None) -> Predictor:
        """What evaluations ask: it reads what is kept."""
        from multitune.data.loader import shared_memo
        from multitune.models.features.filling import FillingPredictor
        from multitune.models.predictor import Predictor

        features = self.line.stages.now() if self.line.stages is not None else None
        if features is not None:
            return FillingPredictor(features, generate=generate, memo=shared_memo, thresholds=thresholds)
        return Predictor(self.line.family, generate=generate, memo=shared_memo, thresholds=thresholds)

    @contextmanager
    def fitting(self) -> Generator[Steps]:
        """Inside, the family runs on what is kept; gives the steps of the run."""
        if self.line.stages is None:
            yield self.line.loader
            return
        with self.line.stages.attached():
            yield self.line.stages

    def rest(self, step: int) -> None:
        """The family has the weights that it had after so many steps."""
        if self.line.stages is not None:
            self.line.stages.rest(step)

    def figures(self) -> dict[str, float]:
        """What was found and done, by name; nothing where nothing is kept."""
        return self.line.stages.counts.figures() if self.line.stages is not None else {}

    @property
    def summary(self) -> str:
        """One line for people, of what was encoded and found; empty where nothing is kept."""
        if self.line.stages is None:
            return ""
        counts = self.line.stages.counts
        return f"features: {counts.encoded:,} rows encoded, {counts.hits:,} found in the store"

    @property
    def told(self) -> tuple[Finding, ...]:
        """Why something is not kept, and what was set aside."""
        return (*self.findings, *(self.line.stages.findings if self.line.stages is not None else ()))


def keep(line: Line, run: RunDir, ranks: Ranks) -> Kept:
    """`_kept`, uncollected: modules and weights stay, and looking through all of them again and again would take half a second."""
    gc.freeze()
    try:
        return _kept(line, run, ranks)
    finally:
        gc.unfreeze()


def _kept(line: Line, run: RunDir, ranks: Ranks) -> Kept:
    """Decide what is kept, or do as this run decided before; the plan of the line says which.

    Raises: RecipeError where something must be kept and cannot; WriteFault where a run that began with stored features cannot have them;
    Fault for a stored row that the model no longer gives.
    """
    from multitune.verbs.train.deciding import possible, read_twice, unread, values

    if line.planned.recipe.features.store == "off" or not could_keep(line):
        return Kept(line)
    before = run.read_json(FILE) if ranks.main else None
    (decided,) = ranks.from_main([_DECISIONS.index("" if before is None else str(before["store"]))])
    findings = () if before is None else _findings(before)
    if _DECISIONS[decided] == "off":
        return Kept(line, findings)
    as_in_training(line, ranks)
    if not decided and not read_twice(line):
        if ranks.main:
            keep_cuts((), (), run)
            run.write_json(FILE, {"store": "off", "kept": [], "findings": []})
        return Kept(_running(line, Stages(line, (), ranks), unread(line)))
    found = possible(line)
    if ranks.main and run.read_json(CUTS) is None:
        keep_cuts(found.lines, found.findings, run)
    if not decided:
        return _decided(line, found, run, ranks)
    flags = ranks.from_main([0] * len(found.towers) if before is None else [int(flag) for flag in before["kept"]])
    stages = Stages(line, found.kept([*map(bool, flags)]), ranks)
    return Kept(_running(line, stages, values(stages.stages, found)), findings)


def _decided(line: Line, found: Possible, run: RunDir, ranks: Ranks) -> Kept:
    """What a run that has not begun keeps; it may still go on without."""
    from multitune.verbs.train.deciding import Chosen, choose, values

    must = line.planned.recipe.features.store == "on"
    chosen = ranks.on_main(lambda: choose(line, found)) or Chosen()
    wanted = ranks.from_main([int(choice.kept) for choice in chosen.choices] if ranks.main else [0] * len(found.towers))
    stages, findings = Stages(line, found.kept([*map(bool, wanted)]), ranks, begun=chosen.begun), list[Finding]()

    def filled() -> bool:
        try:
            stages.enter(0, chosen.keys)
        except WriteFault as fault:
            if must:
                raise
            findings.append(Finding("features-not-kept", Severity.WARNING, "features.store", str(fault), OFF))
            return False
        return True

    (there,) = ranks.from_main([int(ranks.on_main(filled) or 0)])
    if not there:
        stages, wanted = Stages(line, found.kept([False] * len(wanted)), ranks), [0] * len(wanted)
    if ranks.main:
        facts = {"store": "on" if any(wanted) else "off", "kept": wanted, "findings": [finding.to_json() for finding in findings]}
        run.write_json(FILE, facts)
    return Kept(_running(line, stages, values(stages.stages, found, chosen.choices)), tuple(findings))


def _running(line: Line, stages: Stages, said: Mapping[str, Value]) -> Line:
    """The line on what its stages keep; its plan says what that is."""
    plan = line.planned.plan
    planned = replace(line.planned, plan=replace(plan, values=beside(plan.values, said)))
    return replace(line, planned=planned, stages=stages if stages.keeps else None)


def could_keep(line: Line) -> bool:
    """Whether anything of a tower is still in any stage."""
    from multitune.models.replay import could_be
    from multitune.verbs.train.deciding import stretches

    asked = line.planned.recipe.features
    return asked.store == "on" or bool(asked.cuts) or any(could_be(line.anatomy, moving) for _, _, moving in stretches(line))


def _findings(before: Mapping[str, Any]) -> tuple[Finding, ...]:
    return tuple(Finding(**(finding | {"severity": Severity(finding["severity"])})) for finding in before["findings"])


def wanted(line: Line) -> Asked:
    """What the run says of its features."""
    from multitune.models.features.keys import Asked

    plan = line.planned.plan
    return Asked(plan["features.type"], plan["train.threads"])


def folder_of(line: Line) -> Path:
    """The store's folder: the recipe's, else in the cache."""
    from multitune.models.features.upkeep import root_of

    return root_of(line.planned.recipe.features.folder)


def every_sample(line: Line, start: int, stop: int, *, first: bool) -> Iterator[Sample]:
    """The rows that steps `start` up to, not including, `stop` read, as they are first asked for, and those of evaluations among them.

    first: the stage is the run's first, in which the model may be measured before it is tuned.
    """
    from multitune.verbs.train.deciding import evaluations

    splits = line.planned.data.examples
    yield from taken(line.loader, line.loader.first_asked(stop, start=start))
    last = stop >= line.planned.plan["train.steps"]
    asked: dict[Split, bool] = {
        "valid": evaluations(line, start, stop) > 0,
        "test": last or (first and line.planned.recipe.evaluate.baselines),
    }
    for name, is_asked in asked.items():
        if is_asked and name in splits:
            yield from samples(splits[name], range(len(splits[name])))


def every_row(line: Line) -> Iterator[Sample]:
    """All rows of all splits; of those to train on every view that there will be."""
    steps = line.planned.plan["train.steps"]
    for name, split in line.planned.data.examples.items():
        if name == "train":
            views = {view for _, view in line.loader.first_asked(steps)}
            yield from taken(line.loader, [(place, view) for view in sorted(views) for place in range(len(split))])
        else:
            yield from samples(split, range(len(split)))


def samples(examples: Examples, places: Sequence[int]) -> Iterator[Sample]:
    """The samples in these places; what cannot be one is passed over: the loader takes it down."""
    from multitune.data.decode import BadPart

    for place in places:
        try:
            yield examples.sample(place)
        except BadPart:
            continue


def taken(loader: Loader, asked: Sequence[tuple[int, int]]) -> Iterator[Sample]:
    """The samples in these places as steps take them, each with its view; what cannot be one is passed over."""
    from multitune.data.decode import BadPart

    for place, view in asked:
        try:
            yield loader.sample(place, view)
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
        elif not recipe.features.views and (augmented := [name for name in way.parts if parts[name].augment]):
            why = f"{' and '.join(augmented)} is augmented, another one in each epoch (features.views: a fixed number of them)"
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
