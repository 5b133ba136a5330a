"""Models of the Hugging Face hub: an id with its revision becomes a local folder, from the hub's cache wherever that holds it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RevisionNotFoundError

from multitune.core.errors import ModelError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_SMALL = ("*.json", "*.txt", "*.model", "*.jinja")
_PROCESSORS = ("*processor_config.json", "tokenizer*", "vocab.*", "*.model")
_ID = re.compile(r"[\w.-]+/[\w.-]+")
_REVISION = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*")  # a commit, a tag, a branch, refs/pr/1: no way out of the cache


@dataclass(frozen=True)
class HubId:
    """A repository. revision: a commit, a tag or a branch; empty for the one that the hub gives by default."""

    name: str
    revision: str = ""

    @classmethod
    def of(cls, text: str, *, where: str) -> HubId:
        """`org/name` or `org/name@revision`.

        Raises: ModelError for anything else.
        """
        name, at, revision = text.partition("@")
        if not _ID.fullmatch(name):
            raise ModelError(where, f'"{name}" is no hub id.', "It reads org/name, or org/name@revision.")
        if at and not _REVISION.fullmatch(revision):
            raise ModelError(where, f'"{revision}" is no revision.', "Name a commit, a tag or a branch: org/name@revision.")
        return cls(name, revision)


def fetch(asked: HubId, *, where: str, read_weights: bool) -> Path:
    """The folder of a repository at its revision; its last name is the commit.

    What the cache holds is taken without asking the network: the same name gives the same bits until the cache is emptied or another
    revision is named. Only what lacks is asked for. read_weights: whether the weights are needed too, or the small files only.
    Raises: ModelError if neither the cache nor the hub has it.
    """
    wanted = [*_SMALL, *(["*.safetensors"] if read_weights else [])]
    get = partial(snapshot_download, asked.name, revision=asked.revision or None, allow_patterns=wanted, ignore_patterns=["*/*"])
    try:
        cached = Path(get(local_files_only=True))
        if _whole(cached, read_weights=read_weights):
            return cached
    except (HFValidationError, LocalEntryNotFoundError, OSError):
        pass  # then the hub is asked
    try:
        folder = Path(get())
    except RevisionNotFoundError:
        raise ModelError(where, f'{asked.name} has no revision "{asked.revision}".', "Name a commit, a tag or a branch of it.") from None
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:160]
        named = f'"{asked.name}"' + (f" at {asked.revision}" if asked.revision else "")
        found = f"{named} is no base that is embedded, no folder and not in the hub's cache, and the hub did not give it ({reason})."
        raise ModelError(where, found, "Give a local folder, or connect to the hub once.") from None
    if read_weights and not any(folder.glob("*.safetensors")):
        found = f'"{asked.name}" came without its weights: the repository has no {WEIGHTS}, or the hub cannot be reached.'
        raise ModelError(where, found, "Choose a revision that has them, or connect to the hub once.")
    return folder


def _whole(folder: Path, *, read_weights: bool) -> bool:
    """Whether a cached folder has a config, a processor and, if asked for, every file of its weights."""
    if not (folder / "config.json").is_file() or not any(path for pattern in _PROCESSORS for path in folder.glob(pattern)):
        return False
    if not read_weights or (folder / WEIGHTS).is_file():
        return True
    try:
        named = json.loads((folder / INDEX).read_text("utf-8"))["weight_map"].values()
        return all((folder / Path(name).name).is_file() for name in named)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
