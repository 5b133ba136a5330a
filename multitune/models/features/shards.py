"""A space: the rows of one cut under one key, in shards that are written once and never changed.

A shard is a safetensors file that goes by the hash of its bytes. It gets that name only when it is whole and on the disk, so that a kill
leaves less, never something wrong, and several processes may fill one folder: what they add does not touch what is there. Reading
takes no lock. Shards are mapped into memory, not read into it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from multitune.core import store
from multitune.core.finding import Finding, Severity
from multitune.core.rundir import write_atomic
from multitune.models.features.light import taken_down, taken_up
from multitune.models.replay import Stored

SUFFIX = ".safetensors"
DAMAGED = ".damaged"
FORM = "1"
NAME_DIGITS = 40
HELD_ROWS = 1024  # of a shard: the views of its rows, not their numbers
TYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Kept:
    """What is kept of a row. light: the row as its signal made it, without what only feeds the cut."""

    stored: Stored
    light: Mapping[str, Any]


class Space:
    """The rows of one folder by the hash of their content; `type` is that of the numbers on disk."""

    def __init__(self, folder: Path, type: str = "fp32") -> None:
        self.folder, self.type = folder, type
        self._shards: dict[str, _Shard] = {}
        self._rows: dict[str, tuple[str, int]] = {}

    def __contains__(self, content: str) -> bool:
        return content in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def names(self) -> frozenset[str]:
        """The shards that were taken up."""
        return frozenset(self._shards)

    def look(self, *, verify: bool, only: Collection[str] | None = None) -> list[Finding]:
        """Take up the shards that are new in the folder, and forget those that are gone; only: those of these names.

        verify: hash them first. One that does not hold is set aside, one that cannot be read is passed over, each with a finding.
        """
        findings: list[Finding] = []
        paths = sorted(self.folder.glob(f"*{SUFFIX}"))
        self._forget(self._shards.keys() - {path.name for path in paths})
        for path in paths:
            if path.name in self._shards or (only is not None and path.name not in only):
                continue
            try:
                if verify and not holds(path):
                    raise ValueError("its bytes are not those that were written")
                self._take(path)
            except FileNotFoundError:
                continue  # pruned meanwhile
            except OSError as error:  # it may hold all the same: for another user, or when the machine is well again
                findings.append(_damaged(path, f"cannot be read: {error.strerror or error}."))
            except (SafetensorError, ValueError, KeyError, TypeError, IndexError) as error:
                findings.append(_set_aside(path, str(error)))
        return findings

    def write(self, rows: Mapping[str, Kept]) -> int:
        """Add rows as one shard; gives its bytes. They are read back from it, rounded to the stored type.

        Raises: Fault if the machine does not take it.
        """
        data = _packed(rows, TYPES[self.type])
        path = self.folder / f"{hashlib.sha256(data).hexdigest()[:NAME_DIGITS]}{SUFFIX}"
        write_atomic(path, data)
        self._take(path)
        return len(data)

    def read(self, content: str) -> Stored:
        """What a row left at the cut."""
        name, number = self._rows[content]
        return self._shards[name].read(number)

    def light(self, content: str) -> Mapping[str, Any]:
        """The row as its signal made it, without what only feeds the cut."""
        name, number = self._rows[content]
        return self._shards[name].light(number)

    def _take(self, path: Path) -> None:
        self._shards[path.name] = _Shard(path)
        self._index(path.name)

    def _forget(self, names: Collection[str]) -> None:
        if names:
            self._shards = {name: shard for name, shard in self._shards.items() if name not in names}
            self._rows = {}
            for name in self._shards:
                self._index(name)

    def _index(self, name: str) -> None:
        for number, content in enumerate(self._shards[name].contents):
            self._rows.setdefault(content, (name, number))


class _Shard:
    """One file, mapped. Of each row: what kind it is (shapes, the light row without its arrays), and its tensors `row.place`."""

    def __init__(self, path: Path) -> None:
        self._file: Any = safe_open(path, framework="pt")
        metadata: Mapping[str, str] = self._file.metadata() or {}
        if metadata.get("form") != FORM:
            raise ValueError("it is of another form")
        self.contents: list[str] = json.loads(metadata["rows"])
        self._kinds: list[Any] = json.loads(metadata["kinds"])
        self._of: list[int] = json.loads(metadata["of"])
        self._names = frozenset(self._file.keys())
        self._shapes = [tuple(map(tuple, kind["shapes"])) for kind in self._kinds]
        self._below = [{path: tuple(map(tuple, shapes)) for path, shapes in kind["below"].items()} for kind in self._kinds]
        self._lights = {number: taken_up(kind["light"], []) for number, kind in enumerate(self._kinds) if not kind["arrays"]}
        self._held = functools.lru_cache(HELD_ROWS)(self._made)
        if len(self._of) != len(self.contents):
            raise ValueError("it counts its rows in two ways")

    def read(self, number: int) -> Stored:
        """The tensors of a row, those that are not kept empty; of the rows that were read last they are held, mapped as they are."""
        return self._held(number)

    def _made(self, number: int) -> Stored:
        kind = self._of[number]
        tensors = [self._tensor(f"{number}.{place}") for place in range(len(self._shapes[kind]))]
        return Stored(tuple(tensors), self._shapes[kind], self._below[kind])

    def light(self, number: int) -> Mapping[str, Any]:
        """The light row."""
        if self._of[number] in self._lights:  # all rows of a kind are the same but for their features
            return self._lights[self._of[number]]
        kind = self._kinds[self._of[number]]
        arrays = [self._tensor(f"{number}:{place}").numpy() for place in range(kind["arrays"])]
        return taken_up(kind["light"], arrays)

    def _tensor(self, name: str) -> Tensor:
        return self._file.get_tensor(name) if name in self._names else torch.empty(0)


def holds(path: Path) -> bool:
    """Whether a shard's bytes are those that it is named after."""
    return store.hash_file(path)[:NAME_DIGITS] == path.name.removesuffix(SUFFIX)


def _packed(rows: Mapping[str, Kept], type: torch.dtype) -> bytes:
    tensors: dict[str, Tensor] = {}
    kinds: dict[str, int] = {}
    of: list[int] = []
    for number, kept in enumerate(rows.values()):
        arrays: list[np.ndarray] = []
        light = taken_down(kept.light, arrays)
        below = {path: [list(shape) for shape in shapes] for path, shapes in kept.stored.below.items()}
        kind = {"shapes": [list(shape) for shape in kept.stored.shapes], "below": below, "light": light, "arrays": len(arrays)}
        of.append(kinds.setdefault(store.canonical(kind), len(kinds)))
        for place, tensor in enumerate(kept.stored.tensors):
            if tensor.numel():
                tensors[f"{number}.{place}"] = rounded(tensor, type).cpu().contiguous()
        for place, array in enumerate(arrays):
            tensors[f"{number}:{place}"] = torch.from_numpy(np.array(array))
    metadata = {"form": FORM, "rows": json.dumps([*rows]), "kinds": f"[{','.join(kinds)}]", "of": json.dumps(of)}
    return save(tensors, metadata)


def rounded(tensor: Tensor, type: torch.dtype) -> Tensor:
    """The tensor in the stored type, where that is coarser than its own."""
    return tensor.to(type) if tensor.is_floating_point() and tensor.element_size() > torch.finfo(type).bits // 8 else tensor


def _set_aside(path: Path, why: str) -> Finding:
    found = f"cannot be used: {why.strip().splitlines()[0] if why.strip() else 'it is not whole'}."
    try:
        path.rename(path.with_name(path.name + DAMAGED))
    except OSError:
        found += " It could not be set aside either."
    return _damaged(path, found)


def _damaged(path: Path, found: str) -> Finding:
    return Finding("shard-damaged", Severity.WARNING, str(path), found, "Its rows are encoded anew.")


def spaces(folder: Path) -> Iterable[Path]:
    """The folders of all spaces in a store."""
    return sorted(path.parent for path in folder.glob(f"*/{ABOUT}"))


ABOUT = "space.json"


def about(folder: Path, facts: Mapping[str, object]) -> None:
    """Say in a space's folder what it is of, unless it says so. Raises: Fault if the machine does not take it."""
    path = folder / ABOUT
    if store.canonical(told(folder)) != store.canonical(facts):
        write_atomic(path, (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode())


def told(folder: Path) -> Mapping[str, Any]:
    """What `about` said of a space; empty where that cannot be read."""
    try:
        found = json.loads((folder / ABOUT).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


__all__: Sequence[str] = ["ABOUT", "DAMAGED", "SUFFIX", "TYPES", "Kept", "Space", "about", "holds", "rounded", "spaces", "told"]
