"""Parts of a tower: its layers from the top down, rows whose rates fall with depth, and the shortest patterns that mean some tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from multitune.core.errors import ModelError
from multitune.core.recipe import TuningRow
from multitune.models.anatomy import Anatomy, TowerInfo, matches


@dataclass(frozen=True)
class Layer:
    """What lies at one depth of a tower: 0 is what follows its last block, 1 the last block, and so on down to what precedes the first.

    patterns: what means all of it and nothing else. What stands between two blocks goes with the one before it.
    """

    depth: int
    patterns: tuple[str, ...]


def layers(anatomy: Anatomy, tower: TowerInfo) -> list[Layer]:
    """A tower's layers from the top down, those that hold nothing left out.

    Raises: ModelError for a tower without a chain of blocks.
    """
    if not tower.blocks:
        found = f"no chain of blocks was found in the tower {tower.name}: it has no depth to go by."
        raise ModelError("strategy.towers", found, f"Leave {tower.name} out of what goes by depth, or name its tensors in a tuning table.")
    depths = _depths([name for name in anatomy.parameters if name.startswith(f"{tower.name}.")], tower.blocks)
    found = ((depth, [name for name, own in depths.items() if own == depth]) for depth in range(len(tower.blocks) + 2))
    return [Layer(depth, tuple(_patterns(mine, depths))) for depth, mine in found if mine]


def rows_by_depth(
    anatomy: Anatomy, tower: TowerInfo, *, rate: float, decay: float, start: int | str = 0, stop: int | str | None = None
) -> list[TuningRow]:
    """Rows for a whole tower: one, or (where decay is not 1) one for each pattern of each layer, at rate x decay ** depth.

    Raises: ModelError for a tower without blocks that is to decay.
    Source: Bao et al. 2021, arXiv:2106.08254: what follows the blocks has the whole rate, what precedes them the smallest.
    """
    times = {name: value for name, value in (("start", start), ("stop", stop)) if value not in (0, None)}
    if decay == 1.0:
        return [TuningRow.model_validate({"pattern": tower.name, "rate": rate, **times})]
    return [
        TuningRow.model_validate({"pattern": pattern, "rate": rate * decay**layer.depth, **times})
        for layer in layers(anatomy, tower)
        for pattern in layer.patterns
    ]


def _depths(names: Sequence[str], blocks: Sequence[str]) -> dict[str, int]:
    """The depth of each parameter of a tower, by the last block that it stands in or after, in the model's order."""
    inside = {name: place for name in names for place, block in enumerate(blocks) if name.startswith(f"{block}.")}
    last = max(place for place, name in enumerate(names) if name in inside)
    depths: dict[str, int] = {}
    block = -1
    for place, name in enumerate(names):
        block = inside.get(name, block)
        depths[name] = 0 if place > last else len(blocks) - block
    return depths


def _patterns(mine: Sequence[str], depths: dict[str, int]) -> Iterator[str]:
    """The fewest paths that mean these parameters and no others of the tower: modules as high as can be, else names."""
    own, given = set(mine), set[str]()
    for name in mine:
        steps = name.split(".")
        paths = (".".join(steps[:length]) for length in range(1, len(steps)))
        path = next((path for path in paths if all(other in own for other in depths if other.startswith(f"{path}."))), name)
        if path not in given:
            given.add(path)
            yield path


def shortest(anatomy: Anatomy, tower: TowerInfo, names: Collection[str]) -> list[str]:
    """Patterns that mean these parameters of a tower alone: `image.*.norm1` where all modules of that name are meant, else paths."""
    wanted = set(names)
    modules: dict[str, list[str]] = {}
    for name in anatomy.parameters:
        if name.startswith(f"{tower.name}."):
            modules.setdefault(name.rpartition(".")[0], []).append(name)
    units = (module if wanted.issuperset(own) else name for module, own in modules.items() for name in own if name in wanted)
    found: list[str] = []
    for unit in dict.fromkeys(units):
        anywhere = f"{tower.name}.*.{unit.rpartition('.')[2]}"
        meant = [name for name in anatomy.parameters if matches(name, anywhere)]
        found.append(anywhere if wanted.issuperset(meant) and any(matches(name, unit) for name in meant) else unit)
    return list(dict.fromkeys(found))
