"""What the walk found counts for the code that it walked, and for no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from multitune.core.errors import ModelError
from multitune.core.result import Result
from multitune.models.inspection import conformance
from multitune.models.inspection.conformance import Kind, Line, code_hash, read, root, write
from multitune.verbs import list as listing
from tests.models.kinds.conformance import PAGE, page, surprises
from tests.models.kinds.kind import EVERY
from tests.models.kinds.kind import Kind as Spec
from tests.models.kinds.specs import KINDS
from tests.models.kinds.walk import Walk

HELD = (Line("blocks", True, "image 3"), Line("lora", True, "moved"), Line("cuts", True, "image proven"))
GREEN = Kind("clip", "CLIP", ("image", "text"), HELD)
RED = Kind("vilt", "ViLT", ("image",), (Line("blocks", False, "there is no tower."),), "Compose towers.")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with a file of the package and one of its tests."""
    for name in ("multitune/a.py", "tests/test_a.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("a = 1\n")
    return tmp_path


def listed(monkeypatch: pytest.MonkeyPatch, at: Path) -> Result:
    """`multitune list models` in that folder."""
    monkeypatch.setattr(conformance, "root", lambda: at)
    return listing.build(listing.Options(kind="models"))


def test_what_was_written_is_read_back_while_the_code_is_the_same(checkout: Path) -> None:
    write([GREEN, RED], checkout)
    assert read(checkout) == ((GREEN, RED), "")


@pytest.mark.parametrize("name", ["multitune/a.py", "tests/test_a.py", "tests/new.json"])
def test_the_figure_counts_nothing_once_a_file_has_changed(monkeypatch: pytest.MonkeyPatch, checkout: Path, name: str) -> None:
    write([GREEN, RED], checkout)
    assert listed(monkeypatch, checkout).figures == {"kinds_green": 1.0, "kinds_walked": 2.0}
    (checkout / name).write_text("a = 2\n")
    result = listed(monkeypatch, checkout)
    assert result.figures == {"kinds_green": 0.0, "kinds_walked": 0.0}
    assert "belongs to other code" in result.text


def test_without_a_walk_the_figure_is_zero_and_says_how_to_walk(monkeypatch: pytest.MonkeyPatch, checkout: Path) -> None:
    result = listed(monkeypatch, checkout)
    assert result.figures["kinds_green"] == 0
    assert "make kinds" in result.text


def test_what_python_makes_of_files_does_not_change_the_hash(checkout: Path) -> None:
    before = code_hash(checkout)
    (checkout / "tests" / "__pycache__").mkdir()
    (checkout / "tests" / "__pycache__" / "a.pyc").write_bytes(b"1")
    assert code_hash(checkout) == before


def test_a_line_that_comes_out_otherwise_than_its_spec_says_is_a_surprise_either_way() -> None:
    spec = Spec("vilt", "ViLT", "embed", {}, {}, {}, red={EVERY: "Compose towers."})
    assert surprises(spec, RED) == []
    assert len(surprises(spec, GREEN)) == 3
    assert len(surprises(Spec("vilt", "ViLT", "embed", {}, {}, {}), RED)) == 1


def test_the_page_gives_a_red_kind_its_reason_and_what_can_be_done() -> None:
    text = page([GREEN, RED])
    assert "1 of 2 kinds" in text
    assert "there is no tower. What can be done: Compose towers." in text


def test_the_page_of_the_project_names_every_kind() -> None:
    text = (root() / PAGE).read_text("utf-8")
    assert [kind.title for kind in KINDS if kind.title not in text] == []


def test_a_tower_that_its_processor_cannot_feed_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    spec = next(kind for kind in KINDS if kind.name == "perceiver")
    with pytest.raises(ModelError, match=r"PerceiverModel needs inputs; its processor gives pixel_values"):
        Walk(spec, tmp_path).family()
