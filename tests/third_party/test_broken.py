"""A package's plug-in that does not hold costs nobody else anything, and is named with its package."""

from __future__ import annotations

from pathlib import Path

from tests.third_party.conftest import Run

POINT = "[multitune.loss]\ntorn = multitune_torn\n"
HOLDS = '"""A loss that holds."""\nfrom multitune.core import catalog\nOptions = catalog.Options\ndef build(options, needs): ...\n'


TORN = {
    "imports": ("import nowhere\n", "torn_imports.py, line 1: ModuleNotFoundError: No module named 'nowhere'"),
    "lacks": ("x = 1\ny = x.z\n", "torn_lacks.py, line 2: AttributeError"),
    "garbled": ("def build(:\n", "torn_garbled.py, line 1: invalid syntax"),
    "builds_not": (HOLDS.replace("def build", "def built"), 'the loss "builds_not" has no build'),
    "asks_not": (HOLDS.replace("Options = ", "Options_ = "), 'the loss "asks_not" has no Options'),
    "asks_oddly": (HOLDS.replace("catalog.Options", "dict"), 'Options of the loss "asks_oddly" is no catalog.Options'),
}


def test_what_does_not_hold_is_told_with_its_package_and_the_rest_is_listed(with_package: Run, tmp_path: Path) -> None:
    for name, (text, _) in TORN.items():
        (tmp_path / f"torn_{name}.py").write_text(text)
    points = "[multitune.loss]\n" + "".join(f"{name} = torn_{name}\n" for name in TORN)
    shown = with_package("-m", "multitune", "list", "loss", module="", points=points)
    assert shown.returncode == 0, shown.stderr
    assert "label_smoothing" in shown.stdout
    for name, (_, said) in TORN.items():
        told = next(line for line in shown.stdout.splitlines() if line.startswith(f"warning: loss {name}:"))
        assert said in told
        assert "multitune-torn 1.2" in told


def test_asked_for_it_is_refused_with_exit_code_2_and_no_traceback(with_package: Run) -> None:
    script = "from multitune.core import catalog\nfrom multitune.core.errors import PluginError\n"
    script += "try: catalog.find('loss', 'torn', where='loss')\nexcept PluginError as error: print(error.exit_code, error)"
    shown = with_package("-c", script, module="import nowhere\n", points=POINT)
    assert shown.stdout.startswith('2 loss: "torn" of multitune-torn 1.2 cannot be imported'), shown.stderr
    assert "uninstall" in shown.stdout


def test_two_packages_with_one_name_are_both_named(with_package: Run) -> None:
    with_package("-c", "", module=HOLDS, points=POINT)
    script = "from multitune.core import catalog; catalog.load('loss', 'torn')"
    other = POINT.replace("multitune_torn", "multitune_worn")
    shown = with_package("-c", script, module=HOLDS, points=other, package="multitune-worn")
    assert "multitune-torn 1.2" in shown.stderr.splitlines()[-1]
    assert "multitune-worn 1.2" in shown.stderr.splitlines()[-1]


def test_a_package_cannot_take_the_name_of_one_of_ours(with_package: Run) -> None:
    script = "from multitune.core import catalog; print(catalog.load('loss', 'cross_entropy').__name__, catalog.hidden('loss'))"
    shown = with_package("-c", script, module=HOLDS, points=POINT.replace("torn =", "cross_entropy ="))
    assert shown.stdout.strip() == "multitune.tuning.losses.cross_entropy {'cross_entropy': 'multitune-torn 1.2'}", shown.stderr


def test_its_first_line_is_read_without_importing_it(with_package: Run) -> None:
    script = "import sys; from multitune.core import catalog; print(catalog.summary('loss', 'torn'), 'multitune_torn' in sys.modules)"
    shown = with_package("-c", script, module=HOLDS, points=POINT)
    assert shown.stdout.strip() == "A loss that holds. False", shown.stderr
