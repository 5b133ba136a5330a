"""The project's Python files as syntax trees, for the house rules."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "multitune"


@dataclass(frozen=True)
class Import:
    """One imported module, by its full dotted name, and where it is imported."""

    place: str
    name: str


def where(path: Path, line: int) -> str:
    """`file:line`, relative to the repository."""
    return f"{path.relative_to(ROOT)}:{line}"


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text("utf-8"), filename=str(path))


@cache
def package_files() -> tuple[Path, ...]:
    """Every Python file of the package."""
    return tuple(sorted(PACKAGE.rglob("*.py")))


@cache
def own_files() -> tuple[Path, ...]:
    """Every Python file of ours: the package, tests, recipes and benchmarks."""
    folders = (ROOT / name for name in ("tests", "recipes", "benchmarks"))
    return (*package_files(), *sorted(path for folder in folders for path in folder.rglob("*.py")))


@cache
def tracked_files() -> tuple[Path, ...]:
    """What git tracks, where this is a checkout with git; else nothing."""
    try:
        answer = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ()
    return tuple(ROOT / name for name in answer.stdout.split("\0") if name and (ROOT / name).is_file())


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, lazy ones and those for types alone too. `from a import b` gives `a` and `a.b`."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (Import(where(path, node.lineno), alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(path, node)
            yield Import(where(path, node.lineno), module)
            yield from (Import(where(path, node.lineno), f"{module}.{alias.name}") for alias in node.names)


def called(node: ast.Call) -> str:
    """The dotted name of what is called; it begins with a dot where it is an attribute of no name, as in `f().eval()`."""
    steps: list[str] = []
    here: ast.expr = node.func
    while isinstance(here, ast.Attribute):
        steps.append(here.attr)
        here = here.value
    steps.append(here.id if isinstance(here, ast.Name) else "")
    return ".".join(reversed(steps))


def _absolute(path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = path.relative_to(ROOT).parent.parts
    steps = package[: len(package) - node.level + 1]
    return ".".join([*steps, *([node.module] if node.module else [])])
