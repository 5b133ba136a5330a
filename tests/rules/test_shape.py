"""What a file looks like: its length, its name, its docstrings; and what a tracked file may not mention."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from multitune.core.catalog import KINDS
from tests.rules.source import PACKAGE, ROOT, own_files, package_files, tracked_files, tree_of, where

MAX_LINES = 400
MAX_FIXED_FILES = 12
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "manager", "base", "common", "misc", "stuff"}
# Home folders and the like of the machine that a file was written on. The test's own file spells them in pieces.
MACHINE_PATH = re.compile("|".join((r"/" + r"home/\w", r"/" + r"root/", r"/" + r"work/", r"/" + r"Users/\w", r"[A-Z]:\\" + r"Users")))
BINARY = {".safetensors", ".png", ".wav", ".jpg", ".ipc", ".parquet"}
Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in own_files()}
    assert {name: count for name, count in lengths.items() if count > MAX_LINES} == {}


def test_no_folder_has_more_than_twelve_fixed_files() -> None:
    plugin_folders = {PACKAGE / folder.replace(".", "/") for folder in KINDS.values()}
    folders = {path.parent for path in package_files()} - plugin_folders
    counts = {str(f.relative_to(ROOT)): sum(1 for path in f.glob("*.py") if path.name != "__init__.py") for f in folders}
    assert {name: count for name, count in counts.items() if count > MAX_FIXED_FILES} == {}


def test_no_name_is_empty_of_meaning() -> None:
    names = {str(path.relative_to(ROOT)): {path.stem, path.parent.name} for path in own_files()}
    assert [name for name, words in names.items() if words & EMPTY_NAMES] == []


def test_no_class_is_called_manager_helper_or_base() -> None:
    classes = [(path, node) for path in own_files() for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef)]
    assert [where(path, node.lineno) for path, node in classes if re.search(r"(Manager|Helper|Utils|Base)$", node.name)] == []


def test_every_module_with_code_says_what_it_is() -> None:
    silent = [path for path in package_files() if tree_of(path).body and not ast.get_docstring(tree_of(path))]
    assert [str(path.relative_to(ROOT)) for path in silent] == []


def test_every_public_function_and_class_says_what_it_gives() -> None:
    silent = [f"{where(path, node.lineno)} {node.name}" for path in package_files() for node in public(path) if not ast.get_docstring(node)]
    assert not silent, "\n".join(silent)


def test_every_verb_has_a_first_line() -> None:
    lines = {path.stem: (ast.get_docstring(tree_of(path)) or "").split("\n")[0] for path in (PACKAGE / "verbs").glob("[a-z]*.py")}
    assert [name for name, line in lines.items() if not line.endswith(".")] == []


def test_no_promise_is_left_in_a_file() -> None:
    words = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b|NotImplemented" + "Error")
    found = [str(path.relative_to(ROOT)) for path in own_files() if words.search(path.read_text("utf-8"))]
    assert found == []


def test_no_tracked_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    found = [str(path.relative_to(ROOT)) for path in tracked_files() if path.suffix not in BINARY and MACHINE_PATH.search(text_of(path))]
    assert found == []


def text_of(path: Path) -> str:
    """A tracked file as text; bytes that are none become a mark."""
    return path.read_text("utf-8", errors="replace")


def public(path: Path) -> Iterator[Named]:
    """The public functions and classes of a file. Methods are left out: a Protocol, or the class, says what they give."""
    for node in tree_of(path).body:
        if isinstance(node, Named) and not node.name.startswith("_"):
            yield node
