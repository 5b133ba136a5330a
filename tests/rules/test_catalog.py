"""The contract of every plug-in, over the whole catalog: a new one is covered on arrival."""

from __future__ import annotations

import inspect

import pytest

from multitune.core import catalog
from multitune.core.errors import PluginError

PLUGINS = [(kind, name) for kind in catalog.KINDS for name in catalog.names(kind)]
IDS = [f"{kind}:{name}" for kind, name in PLUGINS]


@pytest.mark.parametrize(("kind", "name"), PLUGINS, ids=IDS)
def test_a_plug_in_has_a_page_options_and_build(kind: str, name: str) -> None:
    module = catalog.load(kind, name)
    first = (module.__doc__ or "").strip().split("\n")[0]
    assert first.endswith((".", ":")), f"the first line of its docstring is {first!r}"
    assert first == catalog.summary(kind, name)
    assert issubclass(module.Options, catalog.Options)
    assert callable(module.build)
    assert next(iter(inspect.signature(module.build).parameters)) == "options"


@pytest.mark.parametrize(("kind", "name"), PLUGINS, ids=IDS)
def test_a_plug_in_refuses_an_option_that_it_does_not_have(kind: str, name: str) -> None:
    options = catalog.load(kind, name).Options
    needed = [field_name for field_name, field in options.model_fields.items() if field.is_required()]
    with pytest.raises(PluginError, match=f"{needed[0]}: is missing" if needed else "no_such_option"):
        catalog.find(kind, name, {} if needed else {"no_such_option": 1})


@pytest.mark.parametrize(("kind", "name"), PLUGINS, ids=IDS)
def test_the_options_of_a_plug_in_are_closed_and_cannot_change(kind: str, name: str) -> None:
    config = catalog.load(kind, name).Options.model_config
    assert (config.get("extra"), config.get("frozen")) == ("forbid", True)


def test_there_is_a_plug_in_of_every_kind_that_the_straight_line_needs() -> None:
    needed = {"verb", "task", "modality", "source", "connector", "fusion", "family", "strategy", "loss", "control", "engine", "metric"}
    assert {kind for kind in needed if not catalog.names(kind)} == set()


@pytest.mark.parametrize("kind", catalog.KINDS)
def test_the_names_of_a_kind_are_read_without_importing_a_plug_in(kind: str) -> None:
    for name in catalog.names(kind):
        assert catalog.summary(kind, name)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(PluginError, match='Did you mean "digits"'):
        catalog.find("source", "digit")
