"""Nothing loaded is trusted: no pickle, no remote code, no shell; and no list of model types. Counted on the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.rules.source import called, imports, own_files, package_files, tree_of, where

FORBIDDEN_CALLS = ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "numpy.load", "np.load", "joblib.load")
FORBIDDEN_MODULES = ("pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib")


def calls(path: Path) -> Iterator[ast.Call]:
    """Every call in a file."""
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call))


def flagged(test: Callable[[ast.Call], bool]) -> list[str]:
    """Where in our files a call answers to `test`."""
    return [where(path, node.lineno) for path in own_files() for node in calls(path) if test(node)]


def states(node: ast.Call, name: str) -> bool:
    """Whether a call passes `name=` anything but a plain False."""
    given = [word.value for word in node.keywords if word.arg == name]
    return any(not (isinstance(value, ast.Constant) and value.value is False) for value in given)


@pytest.mark.parametrize("name", FORBIDDEN_CALLS)
def test_no_call_of(name: str) -> None:
    assert flagged(lambda node: called(node) == name) == []


@pytest.mark.parametrize("keyword", ["shell", "trust_remote_code", "allow_pickle", "weights_only"])
def test_no_call_switches_on(keyword: str) -> None:
    assert flagged(lambda node: states(node, keyword)) == []


def test_no_module_that_pickles_is_imported_by_the_package() -> None:
    wrong = [f"{f.place} imports {f.name}" for path in package_files() for f in imports(path) if f.name.split(".")[0] in FORBIDDEN_MODULES]
    assert wrong == []


def test_from_pretrained_is_called_in_one_file_of_the_package_alone() -> None:
    homes = {
        str(path.relative_to(path.parents[2]))
        for path in package_files()
        for node in calls(path)
        if called(node).endswith(".from_pretrained")
    }
    assert homes <= {"multitune/models/load.py"}, homes


def test_no_decision_rests_on_a_model_type_or_a_class_name() -> None:
    wrong: list[str] = []
    for path in (path for path in package_files() if path.parents[0].name != "sources"):  # a source knows cells, no models
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                if any(map(names_a_type, sides)) and any(map(spells_words, sides)):
                    wrong.append(where(path, node.lineno))
            elif isinstance(node, ast.Match) and names_a_type(node.subject):
                wrong.append(where(path, node.lineno))
    assert wrong == []


def spells_words(node: ast.expr) -> bool:
    """Whether an expression holds a text written in the code, as a comparison with a name of ours does."""
    return any(isinstance(inner, ast.Constant) and isinstance(inner.value, str) for inner in ast.walk(node))


def names_a_type(node: ast.expr) -> bool:
    """Whether an expression reads `.model_type`, or the `__name__` of a type."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and inner.attr == "model_type":
            return True
        if isinstance(inner, ast.Attribute) and inner.attr in {"__name__", "__qualname__"} and is_type_of(inner.value):
            return True
    return False


def is_type_of(node: ast.expr) -> bool:
    """Whether an expression is `type(x)` or `x.__class__`."""
    return (isinstance(node, ast.Call) and called(node) == "type") or (isinstance(node, ast.Attribute) and node.attr == "__class__")


def test_no_broad_except() -> None:
    wrong = [
        where(path, node.lineno)
        for path in own_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler) and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id == "Exception"))
    ]
    assert wrong == []
