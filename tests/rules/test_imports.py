"""Imports point one way: verbs -> deliver -> measure | tuning -> models -> data -> core."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from multitune.core.catalog import KINDS
from tests.rules.source import PACKAGE, Import, imports, package_files

# A room may import those named here and itself. `measure` and `tuning` do not see each other.
MAY_SEE = {
    "core": set[str](),
    "data": {"core"},
    "models": {"core", "data"},
    "tuning": {"core", "data", "models"},
    "measure": {"core", "data", "models"},
    "deliver": {"core", "data", "models", "tuning", "measure"},
    "verbs": {"core", "data", "models", "tuning", "measure", "deliver"},
}
HEAVY = ("torch", "torchvision", "transformers", "accelerate", "peft", "sklearn", "pyarrow", "PIL", "soundfile", "torchmetrics")
PLUGIN_FOLDERS = {folder for kind, folder in KINDS.items() if kind != "verb"}


def room_of(path: Path) -> str:
    """The room that a file stands in; empty for the doors (`__init__`, `__main__`, `cli`)."""
    inside = path.relative_to(PACKAGE).parts
    return inside[0] if len(inside) > 1 else ""


def room_seen(found: Import) -> str:
    """The room that an import reaches; empty where it is not ours, or a door."""
    steps = found.name.split(".")
    return steps[1] if steps[0] == "multitune" and len(steps) > 1 and steps[1] in MAY_SEE else ""


def plugin_folder(dotted: str) -> str:
    """The plug-in folder that a module stands in, such as `data.sources`; else empty."""
    steps = dotted.split(".")
    folder = ".".join(steps[1:3])
    return folder if steps[0] == "multitune" and len(steps) > 3 and folder in PLUGIN_FOLDERS else ""


def test_every_file_stands_in_a_room_or_is_a_door() -> None:
    doors = {path.name for path in package_files() if not room_of(path)}
    assert doors <= {"__init__.py", "__main__.py", "cli.py"}
    assert {room_of(path) for path in package_files()} - {""} <= set(MAY_SEE)


@pytest.mark.parametrize("room", MAY_SEE)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    wrong = [
        f"{found.place} imports {found.name}"
        for path in package_files()
        if room_of(path) == room
        for found in imports(path)
        if room_seen(found) not in {"", room, *MAY_SEE[room]}
    ]
    assert not wrong, "\n".join(wrong)


def test_no_room_imports_a_door() -> None:
    wrong = [
        f"{found.place} imports {found.name}"
        for path in package_files()
        if room_of(path)
        for found in imports(path)
        if found.name == "multitune.cli" or found.name.startswith("multitune.cli.")
    ]
    assert not wrong, "\n".join(wrong)


def test_plug_in_folders_of_one_room_do_not_import_each_other() -> None:
    wrong: list[str] = []
    for path in package_files():
        dotted = ".".join(("multitune", *path.relative_to(PACKAGE).with_suffix("").parts))
        home = plugin_folder(dotted)
        for found in imports(path) if home else ():
            seen = plugin_folder(found.name)
            if seen and seen != home and seen.split(".")[0] == home.split(".")[0]:
                wrong.append(f"{found.place} imports {found.name}")
    assert not wrong, "\n".join(wrong)


def test_core_names_no_heavy_library() -> None:
    wrong = [
        f"{found.place} imports {found.name}"
        for path in package_files()
        if room_of(path) == "core"
        for found in imports(path)
        if found.name.split(".")[0] in HEAVY
    ]
    assert not wrong, "\n".join(wrong)


def test_importing_all_of_core_loads_no_torch() -> None:
    modules = sorted(
        ".".join(("multitune", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in package_files()
        if room_of(path) == "core"
    )
    assert loaded_after(modules) == []


def test_the_command_line_loads_no_torch() -> None:
    assert loaded_after(["multitune", "multitune.cli"]) == []


def test_no_file_reaches_into_the_model_classes_of_transformers() -> None:
    wrong = [f"{f.place} imports {f.name}" for path in package_files() for f in imports(path) if f.name.startswith("transformers.models")]
    assert not wrong, "\n".join(wrong)


def loaded_after(modules: list[str]) -> list[str]:
    """The heavy libraries that a fresh process holds after importing `modules`."""
    lines = ["import sys, importlib", *(f"importlib.import_module({name!r})" for name in modules)]
    lines.append(f"print(*[name for name in {HEAVY!r} if name in sys.modules])")
    answer = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False, timeout=60)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.split()
