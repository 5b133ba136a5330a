"""The catalog: names become plug-ins, unknown ones are told with the nearest."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from multitune.core import catalog
from multitune.core.errors import PluginError


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(PluginError, match='Did you mean "retrieval"'):
        catalog.find("task", "retreival", where="task")


def test_an_unknown_option_is_told_with_its_place() -> None:
    with pytest.raises(PluginError, match=r'data\.source\.row.*Did you mean "rows"'):
        catalog.find("source", "chimes", {"row": 3}, where="data.source")


def test_a_summary_is_read_without_importing() -> None:
    assert catalog.summary("task", "retrieval").startswith("Bring the parts")


def test_a_registered_plugin_is_found_and_cannot_take_a_name() -> None:
    plugin = SimpleNamespace(__doc__="A task of mine.", Options=catalog.Options, build=lambda options: 7)
    catalog.register("task", "mine-for-a-test", plugin)
    assert catalog.find("task", "mine-for-a-test").build() == 7
    with pytest.raises(PluginError, match="exists already"):
        catalog.register("task", "retrieval", plugin)
    with pytest.raises(PluginError, match="no build"):
        catalog.register("task", "half", SimpleNamespace(Options=catalog.Options))


def test_a_file_named_by_the_operator_becomes_a_plugin(tmp_path: Path) -> None:
    path = tmp_path / "own_task.py"
    path.write_text(
        '"""A task of mine."""\nfrom multitune.core import catalog\nKIND = "task"\n'
        "class Options(catalog.Options):\n    x: int = 3\ndef build(options):\n    return options.x\n"
    )
    assert catalog.register_file(path) == "own_task"
    assert catalog.find("task", "own_task", {"x": 4}).build() == 4
    (tmp_path / "kindless.py").write_text("x = 1\n")
    with pytest.raises(PluginError, match="KIND"):
        catalog.register_file(tmp_path / "kindless.py")


def test_the_same_plugin_file_twice_is_one_plugin(tmp_path: Path) -> None:
    path = tmp_path / "twice_task.py"
    path.write_text('"""Twice."""\nfrom multitune.core import catalog\nKIND = "task"\nOptions = catalog.Options\ndef build(options): ...\n')
    assert catalog.register_file(path) == catalog.register_file(tmp_path / "." / "twice_task.py")
    assert catalog.plugin_files().count(path.resolve()) == 1


def test_an_option_of_another_plugin_of_the_kind_is_told_with_its_name() -> None:
    with pytest.raises(
        PluginError, match=r"strategy\.rank: .*The strategy here is full; lora takes it: name it too \(strategy\.name=lora\)"
    ):
        catalog.find("strategy", "full", {"rank": 4}, where="strategy")
