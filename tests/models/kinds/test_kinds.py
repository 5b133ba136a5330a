"""Every kind of model under every line of the walk; a few kinds in `make test`, all of them in `make proof`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

from tests.models.kinds.kind import Kind
from tests.models.kinds.specs import KINDS
from tests.models.kinds.walk import LINES, Walk

CASES = [
    pytest.param(kind, line, id=f"{kind.name}-{line}", marks=() if kind.fast else (pytest.mark.slow,))
    for kind, line in product(KINDS, LINES)
]


@pytest.fixture(scope="module")
def walk_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind], Walk]:
    """The walk of a kind, its folder written once."""
    walks: dict[str, Walk] = {}
    return lambda kind: walks.setdefault(kind.name, Walk(kind, tmp_path_factory.mktemp(kind.name)))


@pytest.mark.parametrize(("kind", "line"), CASES)
def test_a_kind_holds_to_a_line_unless_its_spec_says_why_not(walk_of: Callable[[Kind], Walk], kind: Kind, line: str) -> None:
    judged = walk_of(kind).line(line)
    assert judged.ok is not kind.is_red(line), judged.said
