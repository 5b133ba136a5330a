"""Seals a folder: what it holds is written down with sizes and hashes, and believed only where all of it verifies.

The seal is one JSON file that is exactly the bytes that would be written again, and carries a hash of itself.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from multitune.core.errors import ArtifactError
from multitune.core.rundir import sync_folder
from multitune.core.store import hash_file, key

SEAL = "artifact.json"
MAX_SEAL = 64 << 20
COPY_AGAIN = "Copy the artifact again, or train it again."
OF_THE_HUB = (".gitattributes", ".cache")  # what a hub and its downloads put beside; nothing of it is read
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".joblib", ".h5", ".keras", ".msgpack")
_PROGRAMS = (".py", ".pyc", ".so", ".dll", ".dylib", ".sh", ".exe")


def seal(folder: Path, name: str, facts: Mapping[str, Any]) -> None:
    """Write `name` with the facts and the size and sha256 of every other file, after all of them are on the disk."""
    files: dict[str, dict[str, Any]] = {}
    for path in _files(folder):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        files[path.relative_to(folder).as_posix()] = {"sha256": hash_file(path), "size": path.stat().st_size}
    body = {**facts, "files": files}
    target = folder / name
    with target.open("wb") as stream:
        stream.write(_text(body | {"seal": key(body)}))
        stream.flush()
        os.fsync(stream.fileno())
    for inner in {folder, *(path.parent for path in folder.rglob("*"))}:
        sync_folder(inner)


def opened(folder: Path, name: str) -> dict[str, Any]:
    """The facts of a sealed folder, once every file in it is what was sealed.

    Raises: ArtifactError for what is missing, extra, changed, a link, a pickle, or outside the folder.
    """
    if not folder.is_dir():
        raise ArtifactError(str(folder), "there is no such folder.", "Name an artifact's folder.")
    body = _read(folder / name)
    listed = body["files"]
    found = {path.relative_to(folder).as_posix(): path for path in _files(folder, besides=OF_THE_HUB)}
    del found[name]
    for path in sorted(listed.keys() - found.keys()):
        raise ArtifactError(str(folder / path), "is missing.", COPY_AGAIN)
    for path in sorted(found.keys() - listed.keys()):
        raise ArtifactError(str(folder / path), "does not belong to the artifact.", "Remove it, or copy the artifact again.")
    for path, file in found.items():
        if file.suffix.lower() in (*_PICKLES, *_PROGRAMS):
            raise ArtifactError(str(file), "is a pickle or a program.", "An artifact holds safetensors and JSON only.")
        entry = listed[path]
        if entry != {"sha256": entry["sha256"], "size": file.stat().st_size} or entry["sha256"] != hash_file(file):
            raise ArtifactError(str(file), "was changed since it was written.", COPY_AGAIN)
    return body


def _files(folder: Path, *, besides: tuple[str, ...] = ()) -> Iterator[Path]:
    """Every file below, in order. besides: names in the folder itself that are passed over.

    Raises: ArtifactError for a link or anything that is neither file nor folder: it could lead out of the folder.
    """
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.name in besides:
            continue
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            yield from _files(path)
        elif stat.S_ISREG(mode):
            yield path
        else:
            kind = "a link" if stat.S_ISLNK(mode) else "no regular file"
            raise ArtifactError(str(path), f"is {kind}.", "An artifact holds plain files only; copy it again.")


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.is_symlink():
            raise ArtifactError(str(path), "is a link.", "An artifact holds plain files only; copy it again.")
        if path.stat().st_size > MAX_SEAL:
            raise ArtifactError(str(path), f"is {path.stat().st_size:,} bytes; at most {MAX_SEAL:,} are read.", COPY_AGAIN)
        data = path.read_bytes()
    except FileNotFoundError:
        found = f"is no artifact (it has no {path.name})."
        raise ArtifactError(str(path.parent), found, "Name an artifact's folder, or a finished run's.") from None
    body: Any = None
    whole = False
    try:
        body = json.loads(data)
        sealed = body.pop("seal")
        whole = isinstance(body["files"], dict) and sealed == key(body) and data == _text(body | {"seal": sealed})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    if not whole:
        raise ArtifactError(str(path), "was changed since it was written.", COPY_AGAIN)
    return body


def _text(body: Mapping[str, Any]) -> bytes:
    return (json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
