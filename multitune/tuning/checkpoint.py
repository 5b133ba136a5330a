"""Resume state: private, whole or absent, and never believed unread.

    checkpoints/step-000100/   tensors.safetensors  moments.safetensors  state.json  manifest.json (sha256 of the others, last)

A checkpoint is written under a temporary name, every file flushed, and renamed once. "Latest" is the newest that verifies; what
does not is set aside as `step-000100.bad` and said. Frozen tensors are not stored; a hash of them is compared on resume.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from multitune.core.errors import Fault, StateError
from multitune.core.finding import Finding, Severity
from multitune.core.rundir import sync_folder
from multitune.core.store import hash_file

FORM = 1
FILES = ("tensors.safetensors", "moments.safetensors", "state.json")
_FINAL = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class State:
    """What a run needs to go on after `step` optimizer steps.

    tensors: what moved so far, by public name. moments: the optimizer's, as `<public name>|<kind>`. facts: plain data.
    """

    step: int
    tensors: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """The newest state that verifies, and what was said of newer ones."""

    state: State
    findings: tuple[Finding, ...]


def save(folder: Path, state: State, *, keep: int, needed: Collection[int] = ()) -> Path:
    """Write a checkpoint whole or not at all, then drop all but the newest `keep` and those of the steps that are needed.

    Raises: Fault if the disk does not take it; older checkpoints are then untouched.
    """
    final = folder / f"step-{state.step:06d}"
    draft = final.with_name(f"{final.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        draft.mkdir(parents=True)
        _write(draft, state)
        if final.exists():
            _discard(final)
        draft.rename(final)
        sync_folder(folder)
        _rotate(folder, keep=keep, needed=needed)
    except (OSError, SafetensorError) as error:
        raise Fault(f"{final}: the checkpoint could not be written ({error}). Free some space; older checkpoints are intact.") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return final


def latest(folder: Path) -> Found | None:
    """The newest checkpoint that verifies, or None where none was ever finished; leftovers of a kill are removed.

    Raises: StateError if there are checkpoints and none verifies.
    """
    if not folder.is_dir():
        return None
    for leftover in folder.glob("step-*.tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    faults: dict[Path, str] = {}
    for path in sorted(_finished(folder).values(), reverse=True):
        try:
            state = read(path)
        except StateError as error:
            faults[path] = str(error)
            continue
        for bad in faults:
            _set_aside(bad)
        return Found(state, tuple(_finding(bad, fault) for bad, fault in faults.items()))
    if faults:
        raise StateError(f"no checkpoint verifies: {'; '.join(faults.values())}. Restore one from a copy, or start anew with --fresh.")
    return None


def read(path: Path) -> State:
    """The state in one checkpoint, verified.

    Raises: StateError saying which file does not verify.
    """
    manifest = _json(path / "manifest.json")
    listed = manifest.get("files")
    if manifest.get("form") != FORM or not isinstance(listed, dict) or set(listed) != set(FILES):
        raise StateError(f"{path}: manifest.json is not of this form")
    for name, entry in listed.items():
        file = path / name
        if not file.is_file() or entry != _entry(file):
            raise StateError(f"{path}: {name} is not what was written")
    facts = _json(path / "state.json")
    return State(int(facts["step"]), load_file(path / FILES[0]), load_file(path / FILES[1]), facts["facts"])


def at(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step:06d}"


def _write(draft: Path, state: State) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}, draft / FILES[0])
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.moments.items()}, draft / FILES[1])
    facts = {"step": state.step, "facts": dict(state.facts)}
    (draft / FILES[2]).write_text(json.dumps(facts, ensure_ascii=False, allow_nan=False), "utf-8")
    listed: dict[str, dict[str, object]] = {}
    for name in FILES:
        _sync(draft / name)
        listed[name] = _entry(draft / name)
    (draft / "manifest.json").write_text(json.dumps({"form": FORM, "files": listed}, indent=1), "utf-8")
    _sync(draft / "manifest.json")
    sync_folder(draft)


def _entry(path: Path) -> dict[str, object]:
    return {"size": path.stat().st_size, "sha256": hash_file(path)}


def _sync(path: Path) -> None:
    with path.open("r+b") as stream:
        os.fsync(stream.fileno())


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StateError(f"{path} cannot be read ({error})") from None
    if not isinstance(value, dict):
        raise StateError(f"{path} is no JSON object")
    return value


def _finished(folder: Path) -> dict[int, Path]:
    found = {path: _FINAL.fullmatch(path.name) for path in folder.iterdir() if path.is_dir()}
    return {int(match[1]): path for path, match in found.items() if match}


def _rotate(folder: Path, *, keep: int, needed: Collection[int]) -> None:
    finished = _finished(folder)
    for step in sorted(finished)[:-keep]:
        if step not in needed:
            _discard(finished[step])


def _discard(path: Path) -> None:
    """Take a checkpoint out of sight first: a kill never leaves half of one under its final name."""
    aside = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:8]}")
    path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _set_aside(path: Path) -> None:
    aside = path.with_name(f"{path.name}.bad")
    if aside.exists():
        shutil.rmtree(aside)
    path.rename(aside)


def _finding(path: Path, fault: str) -> Finding:
    return Finding("checkpoint-bad", Severity.WARNING, path.name, f"did not verify: {fault}.", "The run went on from an older one.")
