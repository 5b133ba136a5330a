"""Which cuts a run keeps in each of its stages: what holds is proven, what a row costs is measured, and a cost model decides."""

from __future__ import annotations

import shutil
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from multitune.core.errors import RecipeError
from multitune.core.finding import Finding
from multitune.core.plan import Value
from multitune.core.recipe.features import NO_CUT
from multitune.verbs.train.stages import Stage

if TYPE_CHECKING:
    from multitune.models.features.choosing import Asked, Choice, Cost
    from multitune.models.features.measuring import Encoded
    from multitune.models.replay import Seam
    from multitune.verbs.train.line import Line

TRIED = 32  # rows that are looked at for a group of one shape, which is measured
WHERE = "features.store"
ONCE = "no row is read twice"


@dataclass(frozen=True)
class Possible:
    """What could be kept. stages: with all cuts that hold and can be stored. lines: of the proofs. findings: why others cannot."""

    stages: tuple[Stage, ...]
    lines: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def towers(self) -> list[tuple[int, str]]:
        """Every stage and tower that could be kept, in order."""
        return [(place, tower) for place, stage in enumerate(self.stages) for tower in stage.seams]

    def kept(self, wanted: Sequence[bool]) -> tuple[Stage, ...]:
        """The stages with those of `towers` alone that are wanted."""
        chosen = {at for at, want in zip(self.towers, wanted, strict=True) if want}
        return tuple(
            replace(stage, seams={tower: seam for tower, seam in stage.seams.items() if (place, tower) in chosen})
            for place, stage in enumerate(self.stages)
        )


def stretches(line: Line) -> list[tuple[int, int, frozenset[str]]]:
    """Steps in which the same tensors move; with averages of weights all that moves moves always, since they are of several steps."""
    average = line.planned.recipe.average
    if average.ema is None and average.soup is None and average.interpolate is None:
        return line.scope.stretches()
    return [(0, line.scope.total, frozenset(entry.name for entry in line.scope.entries))]


def possible(line: Line) -> Possible:
    """Prove the cuts of each stage.

    Raises: ModelError for a cut that was asked for and does not hold; RecipeError where all must be kept and one cannot.
    """
    from multitune.verbs.train.storing import fitting

    asked = {tower: cut for tower, cut in line.planned.recipe.features.cuts.items() if cut != NO_CUT}
    several = stretches(line)
    stages: list[Stage] = []
    lines: dict[str, None] = {}
    findings: dict[tuple[str, str], Finding] = {}
    for start, stop, moving in several:
        settled = line.cuts(moving, asked=[*asked.values()], where_possible=len(several) > 1)
        seams, unfit = fitting(line, settled.proofs)
        lines |= dict.fromkeys(settled.lines())
        findings |= {(finding.where, finding.message): finding for finding in (*settled.findings, *unfit)}
        stages.append(Stage(start, stop, {tower: seam for tower, seam in seams.items() if _wanted(line, tower)}, moving))
    _refuse_lack(line, asked, stages, [*findings.values()])
    return Possible(tuple(stages), tuple(lines), tuple(findings.values()))


def _wanted(line: Line, tower: str) -> bool:
    return line.planned.recipe.features.cuts.get(tower) != NO_CUT


def _refuse_lack(line: Line, asked: Mapping[str, str], stages: Sequence[Stage], findings: Sequence[Finding]) -> None:
    """Raises: RecipeError where what was asked for cannot be kept."""
    held = {seam.cut.name for stage in stages for seam in stage.seams.values()}
    for tower, cut in asked.items():
        if cut not in held:
            why = next((finding.message for finding in findings if finding.where == cut), "something under it moves in every step.")
            raise RecipeError(f"features.cuts.{tower}", f"{cut}: {why}", "Choose a lower block, or none.")
    if line.planned.recipe.features.store == "on" and (findings or not held):
        why = f"{findings[0].where}: {findings[0].message}" if findings else "nothing is frozen below a cut that holds."
        raise RecipeError(WHERE, f"on, but {why}", "Use auto, which keeps what it can.")


def read_twice(line: Line) -> bool:
    """Whether anything could be kept at all: some row is asked for twice, or it is to be kept whatever it saves."""
    spec = line.planned.recipe.features
    if spec.store == "on" or any(cut != NO_CUT for cut in spec.cuts.values()):
        return True
    stages = [Stage(start, stop) for start, stop, _ in stretches(line)]
    asked = [_asked(line, stages, place) for place in range(len(stages))]
    return any(one.reads > one.rows for one in asked)


def unread(line: Line) -> dict[str, Value]:
    """What the plan says where no row is asked for twice: nothing is proven, measured or kept."""
    from multitune.models.replay import could_be

    towers = dict.fromkeys(cut.tower for _, _, moving in stretches(line) for cut in could_be(line.anatomy, moving))
    return {f"features.{tower}.kept": Value(NO_CUT, "derived", note=f"not kept: {ONCE}") for tower in towers}


@dataclass(frozen=True)
class Chosen:
    """The choice for each of what could be kept. keys: of their spaces, by cut. begun: rows that were encoded, by their space's folder."""

    choices: tuple[Choice, ...] = ()
    keys: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    begun: Mapping[str, Sequence[Encoded]] = field(default_factory=dict)


def choose(line: Line, found: Possible) -> Chosen:
    """Decide for each of what could be kept.

    Raises: RecipeError where one must be kept and cannot.
    """
    from multitune.models.features import choosing

    spec, made = line.planned.recipe.features, list[Any]()
    costs, taken = _Costs(line), dict[str, float]()
    free = _free(line)
    for place, tower in found.towers:
        seam = found.stages[place].seams[tower]
        must = spec.store == "on" or tower in spec.cuts
        asked = _asked(line, found.stages, place)
        cost = costs.of(seam) if must or asked.reads > asked.rows else choosing.Cost(0.0, 0.0)
        left = free - sum(size for path, size in taken.items() if path != seam.cut.path)
        choice = choosing.choose(tower, seam.cut.name, asked=asked, cost=cost, free=left, must=must)
        if must and not choice.kept:
            raise RecipeError(WHERE, f"{seam.cut.name} was to be kept, and {choice.why}.", "Free some space, or use auto.")
        if choice.kept:
            taken[seam.cut.path] = max(taken.get(seam.cut.path, 0.0), cost.bytes * asked.rows)
        made.append(choice)
    return Chosen(tuple(made), costs.keys, costs.begun)


def _free(line: Line) -> float:
    from multitune.verbs.train.storing import folder_of

    root = folder_of(line)
    there = next(path for path in (root, *root.resolve().parents) if path.is_dir())
    return float(shutil.disk_usage(there).free)


def _asked(line: Line, stages: Sequence[Stage], place: int) -> Asked:
    """How often the steps and evaluations of a stage ask for rows."""
    from multitune.models.features.choosing import Asked

    recipe, loader = line.planned.recipe, line.loader
    stage, splits = stages[place], line.planned.data.examples
    rows = len(loader.first_asked(stage.stop, start=stage.start))
    reads = (stage.stop - stage.start) * loader.rows_per_epoch // loader.steps_per_epoch
    looks = evaluations(line, stage.start, stage.stop)
    valid, test = (len(splits[name]) if name in splits else 0 for name in ("valid", "test"))
    reads, rows = reads + looks * valid, rows + (valid if looks else 0)
    last = place == len(stages) - 1
    tests = int(recipe.evaluate.baselines and place == 0) + int(last)
    if last and recipe.evaluate.ablations:
        tests += 2 * len(line.planned.data.needs.parts)
    return Asked(rows + (test if tests else 0), max(reads, rows) + tests * test)


def evaluations(line: Line, start: int, stop: int) -> int:
    """How often the loop evaluates after steps `start` up to, not including, `stop`."""
    every, total = line.planned.plan["train.evaluate_every"], line.planned.plan["train.steps"]
    return stop // every - start // every + int(stop == total and total % every > 0)


class _Costs:
    """What rows cost at cuts, measured once on this machine. keys: of the cuts' spaces; begun: what was encoded for it, by folder."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.keys: dict[str, Mapping[str, Any]] = {}
        self.begun: dict[str, Sequence[Encoded]] = {}

    def of(self, seam: Seam) -> Cost:
        """What a row costs at a cut."""
        from multitune.models.features import measuring
        from multitune.models.features.filling import folder_name, space_key
        from multitune.verbs.train.storing import folder_of, wanted

        line, asked = self._line, wanted(self._line)
        key = self.keys[seam.cut.path] = space_key(line.family, seam, asked=asked)
        cost = measuring.remembered(folder_of(line), key)
        if cost is None:
            cost, self.begun[folder_name(key)] = measuring.measured(line.family, seam, self._rows(seam.cut.tower), type=asked.type)
            measuring.remember(folder_of(line), key, cost)
        return cost

    def _rows(self, tower: str) -> list[Any]:
        """A group of prepared rows of one shape that have what the tower reads, with contents and samples; made up where there is none."""
        from multitune.models.features.contents import Contents
        from multitune.models.features.filling import alone
        from multitune.models.features.ways import content, ways
        from multitune.models.predictor import GROUP_ROWS, Forgetful
        from multitune.models.replay import probe_rows, probe_sample
        from multitune.verbs.train.storing import taken

        line, contents = self._line, Contents()
        parts = ways(line.family.preparer)[tower].parts
        groups: dict[Hashable, list[Any]] = {}
        for sample in taken(line.loader, [(place, 0) for place in line.loader.order(0)[:TRIED].tolist()]):
            held = content(sample, parts, contents.of)  # before it is read, so that a file that changes meanwhile is found out
            row = alone(line.family, sample, tower, Forgetful())
            if row is not None:
                group = groups.setdefault(line.family.preparer.bucket(row), [])
                group.append((held, sample, row))
                if len(group) == GROUP_ROWS:
                    return group
        return max(groups.values(), key=len, default=[("", probe_sample(line.family.needs, seed=0), probe_rows(line.family, 1)[0])])


def values(stages: Sequence[Stage], possible: Possible, choices: Sequence[Choice] = ()) -> dict[str, Value]:
    """What the plan says of what was chosen, by tower: the cuts that are kept, which bind bits; what they rest on is a note."""
    notes: dict[str, list[str]] = {}
    for choice in choices:
        notes.setdefault(choice.tower, []).append(choice.line())
    made: dict[str, Value] = {}
    for tower in dict.fromkeys(tower for _, tower in possible.towers):
        named = [(stage.stop, stage.seams[tower].cut.name if tower in stage.seams else NO_CUT) for stage in stages]
        merged = [one for place, one in enumerate(named) if place + 1 == len(named) or named[place + 1][1] != one[1]]
        told = merged[0][1] if len(merged) == 1 else ", ".join(f"{cut} to step {stop:,}" for stop, cut in merged)
        made[f"features.{tower}.kept"] = Value(told, "derived", note="; ".join(notes.get(tower, ())))
    return made
