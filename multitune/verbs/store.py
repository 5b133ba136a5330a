"""List, verify or prune the feature store.

`list` shows what is kept, by cut. `verify` hashes every shard and reads every file again whose content is remembered: what does not hold
is set aside and told. `prune --to SIZE` takes away what was used longest ago until SIZE is left, such as `20GB`.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Literal

from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import UserError
from multitune.core.result import Result

UNITS = {"": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}


class Options(catalog.Options):
    """What to do, and with which store."""

    action: str = Field(description="list, verify or prune", json_schema_extra={"positional": True, "metavar": "ACTION"})
    folder: Path | None = Field(default=None, description="the store; by default `features` in MULTITUNE_CACHE")
    to: str = Field(default="", description="prune: the bytes that are left, such as 500MB, 20GB or 0")
    run: Path | None = Field(default=None, description="also write what is shown into this folder")
    fresh: bool = Field(default=False, description="no effect here; taken so that the same flags fit every verb")


def build(options: Options) -> Result:
    """Do it.

    Raises: UserError for another action, or a size that is none.
    """
    if options.action not in ("list", "verify", "prune"):
        raise UserError("store", f'"{options.action}" is no action.', "There are list, verify and prune.")
    made = store(options.action, folder=options.folder, to=options.to)
    return made if options.run is None else made.kept(options.run / "store.txt")


def store(action: Literal["list", "verify", "prune"] | str, *, folder: Path | None = None, to: str = "") -> Result:
    """What a store holds, whether it holds, or less of it.

    figures: `spaces`, `rows`, `bytes`; for prune also `pruned_bytes`. Not ok where verify found something.
    Raises: UserError for a size that is none; WriteFault for a file that cannot be taken away.
    """
    from multitune.models.features import upkeep

    root = upkeep.root_of(str(folder) if folder is not None else "")
    if action == "prune":
        size = size_of(to)
        pruned = upkeep.prune(root, size)
        text = f"{pruned.shards:,} files of {pruned.bytes:,} bytes taken away; {pruned.left:,} bytes are left in {root}"
        return Result(ok=True, figures={"pruned_bytes": float(pruned.bytes), "bytes": float(pruned.left)}, paths={"store": root}, text=text)
    findings = tuple(upkeep.verify(root)) if action == "verify" else ()
    held = upkeep.held(root)
    figures = {"spaces": float(len(held)), "rows": float(sum(one.rows for one in held)), "bytes": float(sum(one.bytes for one in held))}
    lines = [f"{root}: {int(figures['rows']):,} rows, {int(figures['bytes']):,} bytes"]
    for one in held:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.used))
        lines.append(f"  {one.cut:<32} {one.type}  {one.rows:>9,} rows  {one.bytes:>15,} bytes  used {used}  {one.folder.name[:12]}")
    lines += [finding.line() for finding in findings]
    lines += ["every shard and every remembered file holds"] if action == "verify" and not findings else []
    return Result(ok=not findings, figures=figures, findings=findings, paths={"store": root}, text="\n".join(lines))


def size_of(text: str) -> int:
    """Bytes of a text such as `20GB`.

    Raises: UserError for what is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B)?", text.strip(), flags=re.IGNORECASE)
    if found is None:
        raise UserError("--to", f'"{text}" is no size.' if text else "no size is given.", "Give one such as 500MB, 20GB or 0.")
    return int(float(found[1]) * UNITS[(found[2] or "").upper().removesuffix("B") + "B" if found[2] and found[2].upper() != "B" else ""])
