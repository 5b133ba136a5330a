"""A tower of pictures made to take another size: its tables of positions are interpolated, its config and its processor follow."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import PreTrainedModel

from multitune.core.errors import ModelError
from multitune.core.finding import Finding, Severity
from multitune.models.weights.fitting import sample

Grid = tuple[int, int]


@dataclass(frozen=True)
class Resized:
    """A tower with its processor, both for another picture size, and what was done."""

    module: PreTrainedModel
    processor: Any
    findings: tuple[Finding, ...]


def resize(module: PreTrainedModel, processor: Any, size: int, *, where: str, anew: Callable[[Any], PreTrainedModel]) -> Resized:
    """The same tower for pictures of `size` x `size`.

    anew: a module of the same class from a config. A table of positions is one whose length follows the number of patches.
    Raises: ModelError for a tower or a processor that keeps its size.
    Source: `interpolate_pos_encoding` of Transformers (bicubic, what precedes the patches kept), here once and in the weights.
    """
    config = copy.deepcopy(module.config)
    before = config.to_dict().get("image_size")
    findings: tuple[Finding, ...] = ()
    if isinstance(before, int | list | tuple):
        config.image_size = size if isinstance(before, int) else type(before)([size] * len(cast("list[int]", before)))
        resized = anew(config)
        grids = _grid(config.to_dict(), before), _grid(config.to_dict(), size)
        findings = _carry(module, resized, grids, where=where, sizes=(before, size))
        module = resized.eval()
    processor = type(processor).from_dict({**processor.to_dict(), **_settings(processor.to_dict(), size)})
    made = [tuple(value.shape[-2:]) for value in sample(module, "image", processor, where=where).values() if value.dim() == 4]
    if made != [(size, size)]:
        shown = ", ".join(f"{height} x {width}" for height, width in made) or "no plain ones"
        found = f"its processor cannot be set to pictures of {size} x {size}: it gives {shown}."
        raise ModelError(f"{where}.image_size", found, "Leave image_size out, or set the size in preprocessor_config.json.")
    return Resized(module, processor, findings)


def _carry(
    old: PreTrainedModel, new: PreTrainedModel, grids: tuple[Grid, Grid], *, where: str, sizes: tuple[object, int]
) -> tuple[Finding, ...]:
    """Every weight of the old tower into the new one, tables of positions interpolated."""
    theirs, state = new.state_dict(), dict(old.state_dict())
    tables = [name for name, tensor in state.items() if name in theirs and tensor.shape != theirs[name].shape]
    for name in tables:
        made = _interpolated(state[name], *grids)
        if made is None or made.shape != theirs[name].shape:
            shapes = f"{tuple(state[name].shape)}, would be {tuple(theirs[name].shape)}"
            raise ModelError(f"{where}.image_size", f"{name} {shapes}: not a table of one grid of patches.", "Leave image_size out.")
        state[name] = made
    new.load_state_dict(state)
    if not tables:
        return ()
    (height, width), (rows, columns) = grids
    found = f"positions were interpolated from {height} x {width} to {rows} x {columns} patches ({sizes[0]} -> {sizes[1]}): {tables[0]}."
    evidence = {"names": tables, "from": [height, width], "to": [rows, columns]}
    return (Finding("positions-resized", Severity.INFO, where, found, "They may need to move, if the sizes differ much.", evidence),)


def _interpolated(table: Tensor, before: Grid, after: Grid) -> Tensor | None:
    """A table (..., count, width) for another grid; what precedes the patches (a class token's position) stays as it is."""
    extra = table.shape[-2] - before[0] * before[1] if table.dim() > 1 and table.is_floating_point() else -1
    if extra < 0 or not before[0] * before[1]:
        return None
    flat = table.detach().reshape(-1, *table.shape[-2:])
    patches = flat[:, extra:].float().reshape(len(flat), *before, -1).permute(0, 3, 1, 2)
    spread = interpolate(patches, size=after, mode="bicubic", align_corners=False).permute(0, 2, 3, 1).flatten(1, 2)
    joined = torch.cat([flat[:, :extra], spread.to(table.dtype)], dim=1)
    return joined.reshape(*table.shape[:-2], *joined.shape[1:])


def _grid(config: Mapping[str, Any], size: object) -> Grid:
    """Patches by height and width; none where the config states no patches."""
    (height, width), patch = _pair(size), _pair(config.get("patch_size"))
    return (height // patch[0], width // patch[1]) if all(patch) else (0, 0)


def _pair(stated: object) -> Grid:
    if isinstance(stated, list | tuple):
        sides = cast("list[int]", stated)
        return sides[0], sides[-1]
    return (stated, stated) if isinstance(stated, int) else (0, 0)


def _settings(stated: Mapping[str, Any], size: int) -> dict[str, Any]:
    """A processor's settings for another size; where it crops, the border that it cuts off stays in proportion."""
    square = {"height": size, "width": size}
    sides = {name: side for name, side in (stated.get("size") or {}).items() if isinstance(side, int)}
    if not stated.get("do_center_crop"):
        return {"size": square if {*sides} == {*square} else dict.fromkeys(sides, size)}
    crop = max((stated.get("crop_size") or square).values())
    return {"crop_size": square, "size": {name: round(side * size / crop) for name, side in sides.items()}}
