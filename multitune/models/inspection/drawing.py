"""A portrait as text: one screen for a model of any size, blocks that are alike on one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby

from multitune.models.inspection.portrait import Block, Portrait, Shape, TowerPortrait

INDENT = " " * 2


def text(portrait: Portrait) -> str:
    """The portrait, drawn."""
    return "\n".join(_lines(portrait)) + "\n"


def _lines(portrait: Portrait) -> Iterator[str]:
    yield f"model: {portrait.source}"
    stored = " and ".join(portrait.stored) or "no weights"
    yield from _table({"class": portrait.architecture, "parameters": f"{portrait.num_parameters:,}", "stored": _stored(stored, portrait)})
    for tower in portrait.towers:
        yield ""
        yield from _tower(tower)
    if portrait.outside:
        yield ""
        yield "outside the towers"
        yield from _table({path: f"{count:,}" for path, count in portrait.outside.items()})
    if portrait.tied:
        yield ""
        yield "tied: one tensor under several names"
        yield from _table(dict(portrait.tied))
    if portrait.labels:
        yield ""
        yield f"head: {len(portrait.labels)} classes: {_few(portrait.labels)}"
    for note in portrait.notes:
        yield ""
        yield f"note: {note}"


def _stored(kinds: str, portrait: Portrait) -> str:
    files = f" in {portrait.num_files} files" if portrait.num_files > 1 else ""
    return f"{kinds}, {portrait.num_bytes:,} bytes{files}" if portrait.num_bytes else kinds


def _tower(tower: TowerPortrait) -> Iterator[str]:
    yield f"tower {tower.name}: reads {tower.modality or 'several modalities'}"
    rows = {"at": tower.path or "the model itself", "class": tower.architecture, "parameters": f"{tower.num_parameters:,}"}
    rows |= tower.limits
    if tower.untried:
        rows["shapes"] = f"not tried: {tower.untried}"
    else:
        rows |= {"in": ", ".join(f"{name} {_shape(shape)}" for name, shape in tower.given.items()), "out": f"tokens {_shape(tower.gives)}"}
    rows["cuts"] = "the tower as a whole" + (f", and each of its {len(tower.blocks)} blocks" if tower.blocks else "")
    rows["cuts"] += "; one is proven before it is used (plan --prove)"
    rows["blocks"] = str(len(tower.blocks)) if tower.blocks else "none found"
    yield from _table(rows)
    for _, alike in groupby(tower.blocks, key=lambda block: (block.num_parameters, block.shape, block.path.rpartition(".")[0])):
        yield INDENT * 2 + _run_of(list(alike))


def _run_of(blocks: list[Block]) -> str:
    first, last = blocks[0], blocks[-1]
    last_place = f" .. {last.path.rpartition('.')[2]}" if len(blocks) > 1 else ""
    each = " each" if len(blocks) > 1 else ""
    gives = f" -> {_shape(first.shape)}" if first.shape else ""
    return f"{first.path}{last_place}  {first.num_parameters:,}{each}{gives}"


def _shape(shape: Shape) -> str:
    return "(" + ", ".join(str(size) for size in shape) + ")"


def _few(names: tuple[str, ...], shown: int = 6) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _table(rows: Mapping[str, str]) -> Iterator[str]:
    width = max(len(name) for name in rows)
    for name, value in rows.items():
        yield f"{INDENT}{name:<{width}}  {value}"
