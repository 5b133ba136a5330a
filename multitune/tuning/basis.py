"""What a run rests on besides its plan, kept in `basis.json`: the files that its splits name, and the libraries that compute.

Of each medium only size and time stamp are looked at, 8 hex digits a row. Files in our own cache follow from the plan and may be made
anew: their size counts alone. What lies in the table itself is in the plan's fingerprint.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

from multitune.core.errors import RunError
from multitune.core.rundir import RunDir
from multitune.core.store import cache_root
from multitune.data.align import together
from multitune.data.decode import modality
from multitune.data.split import Examples

FILE = "basis.json"
FORM = 1
DIGITS = 8
LIBRARIES = (
    "multitune", "torch", "torchvision", "transformers", "tokenizers", "peft", "accelerate", "timm", "numpy", "pillow", "soundfile", "soxr",
)  # fmt: skip


def keep(examples: Mapping[Any, Examples], run: RunDir) -> None:
    """Take down what the run rests on, or compare it with what it began with.

    Raises: RunError with the first difference.
    """
    now: dict[str, Any] = {"form": FORM, "versions": versions(), "media": {name: dict(_stamps(split)) for name, split in examples.items()}}
    kept = run.read_json(FILE)
    if kept is None:
        run.write_json(FILE, now)
        return
    where = str(run.folder)
    for name in sorted({*kept["versions"], *now["versions"]}):
        before, here = (str(found["versions"].get(name, "none")) for found in (kept, now))
        if before != here:
            found = f"it began with {name} {before}, here is {here}: the bits would differ."
            raise RunError(where, found, f"Install {name} {before} again, or start anew with --fresh.")
    for split, part, changed in _changed(kept["media"], now["media"]):
        row = examples[split].ids[changed[0]]
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        found = f"the {part} of row {row} ({split}){more} is another file than the run began with: its size or time stamp changed."
        raise RunError(where, found, "Put it back (`cp -a` keeps the time stamps of a copied folder), or start anew with --fresh.")


def versions() -> dict[str, str]:
    """The versions of what can change bits, of the libraries that are installed."""
    found = {"python": ".".join(map(str, sys.version_info[:2]))}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _changed(before: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str, list[int]]]:
    """Split, part and the places whose stamps differ, where any do; rows and parts are the plan's, so they are the same."""
    for split, parts in now.items():
        for part, stamps in parts.items():
            old = before.get(split, {}).get(part, "")
            if old != stamps:
                starts = range(0, len(stamps), DIGITS)
                yield split, part, [at // DIGITS for at in starts if old[at : at + DIGITS] != stamps[at : at + DIGITS]]


def _stamps(examples: Examples) -> Iterator[tuple[str, str]]:
    """Part -> the stamps of its media in the split's order, joined."""
    own = os.path.join(os.path.abspath(cache_root()), "")
    for name, spec in examples.parts.items():
        if not modality(spec.modality, spec.options).media:
            continue
        column = spec.column or name
        yield name, "".join(_stamps_of(examples, column, own))


def _stamps_of(examples: Examples, column: str, own: str) -> Iterator[str]:
    """The stamp of each row's file; a file that many rows name is looked at once."""
    roots, known = examples.mixed.roots(column), dict[tuple[int, str | None], str]()
    rest = iter(examples.sources.tolist())

    def stamp(cell: Any, source: int) -> str:
        path = _path(cell)  # where none is named: nothing is there, or content that the table's own fingerprint covers
        if path is None:
            return "0" * DIGITS
        if (source, path) not in known:
            known[source, path] = _stamp(path, roots[source], own)
        return known[source, path]

    for some, texts in together(examples.cells_of(column)):
        sources = list(islice(rest, len(some)))
        if not texts:
            yield from map(stamp, some, sources)
            continue
        named = list(zip(sources, some, strict=True))
        known |= {(source, cell): stamp(cell, source) for source, cell in dict.fromkeys(named) if (source, cell) not in known}
        yield from map(known.__getitem__, named)


def _path(cell: Any) -> str | None:
    path = cell.get("path") if isinstance(cell, Mapping) and cell.get("bytes") is None else cell
    return str(path) if isinstance(path, str | Path) else None


def _stamp(path: str, root: Path | None, own: str) -> str:
    place = os.path.abspath(os.path.join(root or "", path))
    try:
        status = os.stat(place)
    except (OSError, ValueError):
        return "f" * DIGITS
    told = f"{status.st_size}" if place.startswith(own) else f"{status.st_size}|{status.st_mtime_ns}"
    return blake2b(told.encode(), digest_size=DIGITS // 2).hexdigest()
