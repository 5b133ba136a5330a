"""What the walk over kinds of models found, as `make kinds` wrote it; it counts for the code that it walked and for no other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multitune.core import store

FILE = Path("build") / "conformance.json"
WALKED = ("multitune", "tests")
FORM = 1


@dataclass(frozen=True)
class Line:
    """One line of the walk for one kind. said: what was seen, or why it does not hold."""

    name: str
    ok: bool
    said: str


@dataclass(frozen=True)
class Kind:
    """A kind of model. name: Transformers' model type. reads: modalities. advice: what can still be done where it is not green."""

    name: str
    title: str
    reads: tuple[str, ...]
    lines: tuple[Line, ...]
    advice: str = ""

    @property
    def green(self) -> bool:
        """Whether every line holds."""
        return all(line.ok for line in self.lines)


def root() -> Path:
    """The folder that holds the package, and its tests where this is a checkout."""
    return Path(__file__).resolve().parents[3]


def code_hash(at: Path) -> str:
    """The sha256 over every file of the package and its tests, by path; what Python makes of them is left out."""
    files = (path for folder in WALKED for path in sorted((at / folder).rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return store.key({path.relative_to(at).as_posix(): store.hash_file(path) for path in files})


def write(kinds: Sequence[Kind], at: Path) -> Path:
    """Keep what was found, with the hash of the code."""
    path = at / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"form": FORM, "hash": code_hash(at), "kinds": [asdict(kind) for kind in kinds]}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return path


def read(at: Path) -> tuple[tuple[Kind, ...], str]:
    """What was found for this very code; or nothing, and why."""
    path = at / FILE
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return (), f"there is no {FILE.as_posix()}: `make kinds` writes it"
    except ValueError:
        return (), f"{FILE.as_posix()} is not JSON: `make kinds` writes it anew"
    if content.get("hash") != code_hash(at) or content.get("form") != FORM:
        return (), f"{FILE.as_posix()} belongs to other code: `make kinds` writes it anew"
    return tuple(_kind(entry) for entry in content["kinds"]), ""


def _kind(entry: Mapping[str, Any]) -> Kind:
    lines = tuple(Line(**line) for line in entry["lines"])
    return Kind(entry["name"], entry["title"], tuple(entry["reads"]), lines, entry["advice"])
