"""One walk for every kind of model: it is read, taken apart, frozen in part, tuned, saved and opened again, by the product's own code."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.core.protocols import AnswerNeed, Batch, Needs, Part, PartNeed, Sample
from multitune.core.recipe import TuningRow
from multitune.data.decode import modality
from multitune.models import anatomy as anatomies
from multitune.models import replay
from multitune.models.anatomy import Anatomy, TowerInfo
from multitune.models.load import Weights
from multitune.models.plan import probe_sample
from multitune.models.predictor import GROUP_ROWS, Forgetful, plain
from multitune.tuning import optimizer as optimizers
from multitune.tuning import scope as scopes
from multitune.tuning.gradients import Gradients
from multitune.tuning.scope import Scope
from multitune.tuning.step import Step
from tests.models.kinds import folders
from tests.models.kinds.kind import Kind

LABELS = ("a", "b", "c", "d")
FAMILIES = {"classify": "fusion_encoder", "embed": "dual_encoder", "speak": "generative"}
LOSSES = {"classify": "cross_entropy", "embed": "contrastive", "speak": "cross_entropy"}
ROWS = 8
MAX_STEPS = 100
FEW_STEPS = 2
POOL = 64
FAULTS = (AssertionError, ArithmeticError, AttributeError, LookupError, ModelError, OSError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Line:
    """What became of one line of the walk. said: what was seen, or why it does not hold."""

    name: str
    ok: bool
    said: str
    seconds: float


class Walk:
    """A kind under all lines. The folder is written once; each line builds its model anew from it."""

    def __init__(self, kind: Kind, root: Path) -> None:
        self.kind, self.root = kind, root

    def line(self, name: str) -> Line:
        """One line, judged: what it raises is the reason why it does not hold."""
        start = perf_counter()
        try:
            said, ok = LINES[name](self), True
        except FAULTS as error:
            said, ok = _reason(error), False
        return Line(name, ok, said, perf_counter() - start)

    # ------------------------------------------------------------------------------------------------------ what is walked

    @cached_property
    def folder(self) -> Path:
        """The kind's folder."""
        return folders.write(self.kind, self.root / "pretrained")

    @cached_property
    def needs(self) -> Needs:
        """Its parts and what it answers."""
        answers = {"classify": {"label": AnswerNeed("category", LABELS)}, "embed": {}, "speak": {"reply": AnswerNeed("text")}}
        return Needs({name: PartNeed(kind) for name, kind in self.kind.parts.items()}, answers[self.kind.shape])

    @cached_property
    def rows(self) -> list[Sample]:
        """Made-up rows, every one another."""
        return [self._row(place) for place in range(POOL)]

    def family(self, weights: Weights | None = None) -> Any:
        """The family around the folder, or out of an artifact."""
        options = (
            {"towers": dict.fromkeys(self.kind.parts, str(self.folder))}
            if self.kind.shape == "classify"
            else {"pretrained": str(self.folder)}
        )
        return catalog.find("family", FAMILIES[self.kind.shape], options).build(self.needs, weights or Weights())

    def batch(self, family: Any, samples: Sequence[Sample]) -> Batch:
        """Samples as the family takes them."""
        return family.preparer.collate([family.preparer.prepare(sample, Forgetful()) for sample in samples])

    def tuned(self, family: Any, strategy: Mapping[str, Any], **options: Any) -> Tuned:
        """A family under a strategy, ready to step over its first rows."""
        found = anatomies.find(family)
        table: list[TuningRow] = (
            catalog.find("strategy", strategy["name"], {k: v for k, v in strategy.items() if k != "name"}).build().rows(found)
        )
        probe = self.batch(family, [probe_sample(self.needs, seed=0)])
        scope = scopes.apply(table, found, family, total_steps=MAX_STEPS, seed=0, unused=anatomies.unused(family, probe), **options)
        loss = catalog.find("loss", LOSSES[self.kind.shape], {}).build(self.needs)
        return Tuned(family, scope, Gradients(family, loss, seed=0), self.batch(family, self.rows[:ROWS]), self.kind.lr)

    def _row(self, place: int) -> Sample:
        parts = {name: Part(kind, modality(kind).synthesize(place)) for name, kind in self.kind.parts.items()}
        if self.kind.shape == "classify":
            parts["label"] = Part("category", LABELS[place % len(LABELS)])
        elif self.kind.shape == "speak":
            parts["reply"] = Part("text", " ".join(modality("text").synthesize(1000 + place).split()[:2]))
        return Sample(f"row-{place}", parts)


@dataclass
class Tuned:
    """A family being tuned on one batch."""

    family: Any
    scope: Scope
    gradients: Gradients
    batch: Batch
    lr: float

    def steps(self, count: int) -> list[float]:
        """The loss before each of `count` steps."""
        self.scope.enter(0)
        optimizer = optimizers.build(self.scope, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01)
        for group in optimizer.param_groups:
            group["lr"] = self.lr
        step = Step(self.gradients, scope=self.scope, optimizer=optimizer, clip_norm=1.0)
        losses: list[float] = []
        for number in range(count):
            losses.append(step(number, [(0, self.batch)]).loss)
            if losses[-1] <= losses[0] / 10:
                break
        self.scope.leave()
        return losses

    def moved(self, count: int = FEW_STEPS) -> set[str]:
        """Names in the state dict of what differs after `count` steps."""
        before = {name: tensor.clone() for name, tensor in self.family.state_dict().items()}
        self.steps(count)
        return {name for name, tensor in self.family.state_dict().items() if not torch.equal(tensor, before[name])}

    @property
    def planned(self) -> set[str]:
        """Names in the state dict of the parameters that are to move."""
        meant = {id(entry.parameter) for entry in self.scope.entries}
        return {name for name, parameter in self.family.named_parameters(remove_duplicate=False) if id(parameter) in meant}


# ------------------------------------------------------------------------------------------------------------------ lines


def towers(walk: Walk) -> str:
    """A tower for each part, reading what the part is."""
    found = {tower.name: tower.modality for tower in anatomies.find(walk.family()).towers}
    reads = next(iter(walk.kind.parts.values()))
    expected = {name: reads if name == "encoder" else walk.kind.parts.get(name, "text") for name in walk.kind.blocks}
    assert found == expected, f"found {found}, not {expected}"
    return ", ".join(f"{name} reads {read}" for name, read in found.items())


def blocks(walk: Walk) -> str:
    """As many blocks as the config says, each called once, in the order named."""
    family = walk.family()
    found = anatomies.find(family)
    counts = {tower.name: len(tower.blocks) for tower in found.towers}
    config = family.sources.get("model", next(iter(family.sources.values()))).module.config.to_dict()
    expected = {tower: _counted(config, path) for tower, path in walk.kind.blocks.items()}
    assert counts == expected, f"found {counts} blocks; the config says {expected}"
    for tower in found.towers:
        _refuse_other_order(walk, family, tower)
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def freezing(walk: Walk) -> str:
    """With everything frozen but what joins the towers (or, where nothing does, with one tower frozen), no frozen bit changes."""
    tuned, towers_frozen = _frozen(walk)
    frozen = _inside(tuned.family, towers_frozen)
    moved = tuned.moved()
    assert moved, "nothing moved at all"
    assert not moved & frozen, f"moved, though frozen: {sorted(moved & frozen)[:3]}"
    assert moved <= tuned.planned, f"moved, though not planned: {sorted(moved - tuned.planned)[:3]}"
    return f"{len(moved)} tensors moved, none of what is frozen"


def partial(walk: Walk) -> str:
    """With the last block of each tower moving, nothing else of it does."""
    family = walk.family()
    found = anatomies.find(family)
    early = {name for tower in found.towers for block in tower.blocks[:-1] for name in _inside(family, [tower.name], block)}
    tuned = walk.tuned(family, {"name": "partial", "blocks": 1})
    assert not tuned.planned & early, f"planned to move before the last block: {sorted(tuned.planned & early)[:3]}"
    return _only_planned(tuned, found)


def lora(walk: Walk) -> str:
    """Adapters move, their base does not; a tower without linear layers is refused by name."""
    family = walk.family()
    found = anatomies.find(family)
    if not found.linear:
        try:
            walk.tuned(family, {"name": "lora", "rank": 2})
        except ModelError as error:
            return f"refused: {error}"
        raise AssertionError("adapters went into a tower without linear layers")
    tuned = walk.tuned(family, {"name": "lora", "rank": 2})
    assert {entry.inserted for entry in tuned.scope.entries if entry.tower} == {True}, "something beside adapters moves in a tower"
    return _only_planned(tuned, found)


def buffers(walk: Walk) -> str:
    """With batch statistics moving, those under a frozen part stay as they are; with them still, all do."""
    for how in ("moving", "eval"):
        family = walk.family()
        tuned = walk.tuned(family, {"name": "partial", "blocks": 1}, batch_norm=how)
        before = {name: tensor.clone() for name, tensor in family.named_buffers()}
        tuned.steps(FEW_STEPS)
        changed = {name for name, tensor in family.named_buffers() if not torch.equal(tensor, before[name])}
        touched = {name.rpartition(".")[0] for name in tuned.planned} if how == "moving" else set()
        strays = sorted(name for name in changed if name.rpartition(".")[0] not in touched)
        assert not strays, f"buffers moved under a frozen part: {strays[:3]}"
    return f"{len(before)} buffers"


def neighbours(walk: Walk) -> str:
    """A row's features and prediction keep their bits when the other rows of its group change."""
    family = walk.family()
    groups: dict[Any, list[Any]] = {}
    for row in (family.preparer.prepare(sample, Forgetful()) for sample in walk.rows):
        groups.setdefault(family.preparer.bucket(row), []).append(row)
    largest = max(groups.values(), key=len)
    assert len(largest) > 3, f"{len(groups)} buckets for {POOL} rows: no row has neighbours"
    for place in range(3):
        others = [row for row in largest if row is not largest[place]]
        beside = [others[number % len(others)] for number in range(GROUP_ROWS)]
        beside[5 * place] = largest[place]
        alone = _seen(family, [largest[place]] * GROUP_ROWS, 0)
        other = _seen(family, beside, 5 * place)
        wrong = [name for name, value in alone.items() if not _same(value, other[name])]
        assert not wrong, f"{wrong[0]} of a row changes with its neighbours"
    return f"3 rows beside {len(largest) - 1} others"


def overfit(walk: Walk) -> str:
    """Eight rows learned by heart: a tenth of the first loss within 100 steps."""
    losses = walk.tuned(walk.family(), {"name": "full"}).steps(MAX_STEPS)
    said = f"from {losses[0]:.3f} to {min(losses):.3f} in {len(losses)} steps"
    assert losses[-1] <= losses[0] / 10, said
    return f"a tenth of the loss in {len(losses)} steps"


def saved(walk: Walk) -> str:
    """A tuned model comes back from its folders with the same bits, and gives the same."""
    family = walk.family()
    walk.tuned(family, {"name": "full"}).steps(FEW_STEPS)
    folder = walk.root / "saved"
    family.save(folder)
    again = walk.family(Weights("artifact", folder, seed=99))
    state, other = family.state_dict(), again.state_dict()
    assert state.keys() == other.keys(), f"other tensors: {sorted(state.keys() ^ other.keys())[:3]}"
    wrong = [name for name, tensor in state.items() if not torch.equal(tensor, other[name])]
    assert not wrong, f"{len(wrong)} tensors came back otherwise, such as {wrong[0]}"
    rows = [family.preparer.prepare(sample, Forgetful()) for sample in walk.rows[:1]] * 2
    first, second = _seen(family, rows, 0), _seen(again, rows, 0)
    assert all(_same(first[name], second[name]) for name in first), "the same tensors, another output"
    return f"{len(state)} tensors"


def opened(walk: Walk) -> str:
    """Plain Transformers opens the saved folders, each with its processor: no tensor missing, none left over, the same bits."""
    family = walk.family()
    walk.tuned(family, {"name": "full"}).steps(FEW_STEPS)
    folder = walk.root / "opened"
    family.save(folder)
    for name, source in family.sources.items():
        place = folder / "model" if name == "model" else folder / "towers" / name
        kind = folders.CLASSES[walk.kind.opened_as] if name == "model" else AutoModel
        module, information = kind.from_pretrained(place, dtype=torch.float32, output_loading_info=True)
        amiss = {key: sorted(map(str, value))[:2] for key, value in information.items() if value}
        assert not amiss, f"{name}: {amiss}"
        state = source.module.state_dict()
        wrong = [key for key, tensor in module.state_dict().items() if not torch.equal(tensor, state[key])]
        assert not wrong, f"{name}: other bits in {wrong[0]}"
        beside = folder / "processor" if name == "model" else place
        type(source.processor).from_pretrained(beside)
    return f"{', '.join(type(source.module).__name__ for source in family.sources.values())}"


def cuts(walk: Walk) -> str:
    """Cuts are offered only where replay is proven, on rows of different sizes, alone and joined; where none is, it says why."""
    said: dict[str, None] = {}
    proven = 0
    for blocks_moving in (0, 1):
        tuned = walk.tuned(walk.family(), {"name": "partial", "blocks": 1}) if blocks_moving else _frozen(walk)[0]
        family, moving = tuned.family, {entry.name for entry in tuned.scope.entries}
        found = anatomies.find(family)
        rows = replay.probe_rows(family)
        offered = replay.candidates(family, found, moving, row=rows[0])
        proofs = [replay.prove(family, cut, rows, moving=moving) for cut in offered.highest().values()]
        proven += sum(proof.equal for proof in proofs)
        said |= dict.fromkeys(f"{proof.cut.name} proven" if proof.equal else f"{proof.cut.name}: {proof.reason}" for proof in proofs)
        said |= {} if proofs else {f"{refusal.cut.name}: {refusal.reason}": None for refusal in offered.refused[:1]}
    assert proven or all(said), "no cut, and no reason"
    return "; ".join(said)


LINES = {
    "towers": towers,
    "blocks": blocks,
    "freezing": freezing,
    "partial": partial,
    "lora": lora,
    "buffers": buffers,
    "neighbours": neighbours,
    "overfit": overfit,
    "saved": saved,
    "opened": opened,
    "cuts": cuts,
}

# ------------------------------------------------------------------------------------------------------------ small things


def _reason(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        text
        if isinstance(error, AssertionError | ModelError)
        else f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}: {text}"
    )


def _counted(config: Mapping[str, Any], path: str | int) -> int:
    if isinstance(path, int):
        return path
    value: Any = config
    for step in path.split("."):
        value = value[step]
    return sum(value) if isinstance(value, list | tuple) else int(value)


def _refuse_other_order(walk: Walk, family: Any, tower: TowerInfo) -> None:
    called: list[str] = []
    module = family.towers[tower.name]
    paths = [block.removeprefix(f"{tower.name}.") for block in tower.blocks]
    hooks = [module.get_submodule(path).register_forward_hook(lambda *_, path=path: called.append(path)) for path in paths]
    with torch.no_grad():
        family(walk.batch(family, walk.rows[:2]))
    for hook in hooks:
        hook.remove()
    assert called == paths, f"the blocks of {tower.name} were called as {called}"


def _frozen(walk: Walk) -> tuple[Tuned, list[str]]:
    """A family with its towers frozen, and their names; where nothing lies outside them, only the first is."""
    tuned, names = walk.tuned(walk.family(), {"name": "partial"}), list(walk.kind.blocks)
    return (tuned, names) if tuned.scope.entries else (walk.tuned(walk.family(), {"name": "full", "towers": {names[0]: 0.0}}), names[:1])


def _inside(family: Any, towers: Sequence[str], block: str = "") -> set[str]:
    """Names in the state dict of what lies in towers, or in one block of them (its public path), whatever a scope says."""
    found = anatomies.find(family)
    return {path for path, name in found.names.items() if name.startswith(f"{block}." if block else tuple(f"{one}." for one in towers))}


def _only_planned(tuned: Tuned, found: Anatomy) -> str:
    moved, planned = tuned.moved(), tuned.planned
    assert moved <= planned, f"moved, though not planned: {sorted(moved - planned)[:3]}"
    moving = {entry.tower for entry in tuned.scope.entries if entry.tower}
    still = {tower.name for tower in found.towers} - moving
    assert not still, f"nothing of {', '.join(sorted(still))} was to move"
    names = {entry.name.split(".")[0] for entry in tuned.scope.entries}
    return f"{len(moved)} of {len(planned)} planned tensors moved, of {', '.join(sorted(names))}"


def _seen(family: Any, rows: Sequence[Any], place: int) -> dict[str, Any]:
    """All that a family gives for the row at a place: its features, and its prediction."""
    batch = family.preparer.collate(rows)
    with torch.inference_mode():
        features = family.encode(batch).parts
        prediction = family.predict(batch, generate={})[place]
    tensors = {f"{part}.{name}": tensor[place] for part, tree in features.items() for name, tensor in tree.items()}
    return {**tensors, "prediction": plain(prediction)["answers"]}


def _same(first: Any, second: Any) -> bool:
    return torch.equal(first, second) if isinstance(first, Tensor) else first == second
