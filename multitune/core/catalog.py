"""The catalog: a name becomes a plug-in.

A plug-in is one file (or one folder) in its kind's folder, whose name is its name: a module docstring (its page in the
docs; the first line is its summary), `class Options(catalog.Options)`, and `build(options, ...)` with the arguments that its
kind's Protocol in `protocols.py` names. Third parties add one by an entry point in the group `multitune.<kind>`, a notebook
by `register`, the command line by `--plugin FILE`. A recipe or an artifact can never add one. One that a third party brings and that
does not hold costs nobody else anything: it is refused, with who brought it, when it is asked for.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import traceback
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.config import JsonDict

from multitune.core.errors import PluginError, did_you_mean, one_of
from multitune.core.store import hash_file, key

ROOT = Path(__file__).resolve().parent.parent
KINDS: Mapping[str, str] = {
    "verb": "verbs",
    "task": "core.tasks",
    "modality": "data.modalities",
    "source": "data.sources",
    "augmentation": "data.augmentations",
    "tower": "models.towers",
    "connector": "models.connectors",
    "fusion": "models.fusions",
    "family": "models.families",
    "strategy": "tuning.strategies",
    "insert": "tuning.inserts",
    "loss": "tuning.losses",
    "optimizer": "tuning.optimizers",
    "control": "tuning.controls",
    "engine": "tuning.engines",
    "tracker": "tuning.trackers",
    "metric": "measure.metrics",
    "check": "measure.checks",
    "format": "deliver.formats",
}
POSITIONAL: JsonDict = {"positional": True}  # marks an option of a verb that the command line takes without its name
COLUMN: JsonDict = {"column": "some"}  # marks an option of a metric that names a column (or several) of the data
COLUMN_OF_EVERY_ROW: JsonDict = {"column": "every"}  # the same, and every measured row must have a value there
BROKEN = (ImportError, AttributeError, SyntaxError, NameError, TypeError, ValueError, LookupError, OSError, RuntimeError, AssertionError)
IN_MEMORY = "registered in this process"
_IMPORTING = ("<frozen", __file__, str(Path(importlib.metadata.__file__).parent))  # where no plug-in's own lines are
_registered: dict[tuple[str, str], ModuleType] = {}
_files_given: dict[Path, tuple[str, str]] = {}  # in the order in which they were loaded
_noting: list[dict[tuple[str, str], str]] = []


class Options(BaseModel):
    """The base of every plug-in's options: unknown names are refused, values are checked, nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=False, protected_namespaces=(), allow_inf_nan=False)


@dataclass(frozen=True)
class Plugin:
    """A plug-in that was found, with its options checked."""

    kind: str
    name: str
    module: ModuleType
    options: Options

    def build(self, *arguments: Any, **named: Any) -> Any:
        """Call the plug-in's `build(options, ...)` with what its kind's Protocol names."""
        return self.module.build(self.options, *arguments, **named)


def names(kind: str) -> list[str]:
    """The names of all plug-ins of a kind, sorted; imports none of them."""
    return sorted({*_files(kind), *_entry_points(kind), *(name for k, name in _registered if k == kind)})


def summary(kind: str, name: str) -> str:
    """The first line of a plug-in's docstring, read without importing it where it is a file; empty where it has none."""
    path = _files(kind).get(name) or _source_of(kind, name)
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) if path else load(kind, name).__doc__
    return (text or "").strip().split("\n")[0]


def load(kind: str, name: str) -> ModuleType:
    """The module of a plug-in.

    Raises: PluginError if no plug-in of that kind has that name, or a third party's does not hold, naming who brought it.
    """
    if (kind, name) not in _registered and name in _files(kind):
        return importlib.import_module(f"multitune.{KINDS[kind]}.{name.replace('-', '_')}")
    module = _registered.get((kind, name)) or _from_package(kind, name)
    if module is None:
        known = names(kind)
        remedy = did_you_mean(name, known) or "One of another package asks for it to be installed, one in a file for --plugin FILE."
        raise PluginError(kind, f'"{name}" is not known; there are {one_of(known)}.', remedy)
    for noted in _noting:
        noted[kind, name] = brought_by(kind, name)
    return module


def brought_by(kind: str, name: str) -> str:
    """Who brought a plug-in: a package and its version, or a file and the hash of its content; empty for one of ours."""
    if (kind, name) in _registered:
        file = next((path for path, given in _files_given.items() if given == (kind, name)), None)
        return IN_MEMORY if file is None else f"{file.name} {hash_file(file)[:12]}"
    points = [] if name in _files(kind) else _entry_points(kind).get(name, [])
    return " and ".join(_package(point) for point in points)


def hidden(kind: str) -> dict[str, str]:
    """Plug-ins of packages that are not reached, since one of ours has their name: name -> who brought them."""
    return {name: " and ".join(map(_package, points)) for name, points in _entry_points(kind).items() if name in _files(kind)}


@contextmanager
def noting() -> Generator[dict[tuple[str, str], str]]:
    """Takes down which plug-ins of third parties are asked for inside: (kind, name) -> who brought it."""
    noted: dict[tuple[str, str], str] = {}
    _noting.append(noted)
    try:
        yield noted
    finally:
        _noting.remove(noted)


def find(kind: str, name: str, options: Mapping[str, object] | None = None, *, where: str = "") -> Plugin:
    """The plug-in of that name with its options checked.

    where: the recipe path that asked for it, for messages.
    Raises: PluginError for an unknown name, options without a name, or options that it does not take.
    """
    place = where or kind
    if name == "auto" and options:
        raise PluginError(place, f"no {kind} is named.", "Write {name: ..., option: value}; " + f"there are {one_of(names(kind))}.")
    try:
        module = load(kind, name)
    except PluginError as error:
        raise PluginError(place, error.found, error.remedy) from None
    try:
        return Plugin(kind, name, module, parse(module.Options, options or {}, where=place))
    except PluginError as error:
        takers = _takers(kind, error.where.removeprefix(f"{place}.")) if kind != "verb" and "is not known" in error.found else []
        remedy = (
            f"The {kind} here is {name}; {one_of(takers)} takes it: name it too ({place}.name={takers[0]})." if takers else error.remedy
        )
        raise PluginError(error.where, error.found, remedy) from None


def parse(model: type[Any], values: Mapping[str, object], *, where: str) -> Any:
    """Check values against a pydantic model and say what is wrong in our words.

    Raises: PluginError naming the path, what was found, and the nearest name.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problems = error.errors()
        first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])  # a typo explains the rest
        place = ".".join([where, *(str(step) for step in first["loc"])]).strip(".")
        raise PluginError(place, *explain(first, model)) from None


_LIST, _MAPPING = "Give a list, such as [a] or [a, b].", "Give a mapping, such as {name: value}."
_WANTED = {
    **dict.fromkeys(("tuple_type", "list_type", "set_type"), _LIST),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type", "mapping_type"), _MAPPING),
    "too_short": "Give at least one.",
}  # pydantic's kinds of problems whose own words name its types


def explain(problem: Mapping[str, Any], model: type[BaseModel]) -> tuple[str, str]:
    """What was found and what would do, for one problem that pydantic reports."""
    if problem["type"] == "extra_forbidden":
        known = _fields_at(model, problem["loc"])
        return f'"{problem["loc"][-1]}" is not known; there are {one_of(known)}.', did_you_mean(str(problem["loc"][-1]), known)
    if problem["type"] == "missing":
        return "is missing.", "Give it."
    if problem["type"] in _WANTED:
        return f"found {problem.get('input')!r:.80}.", _WANTED[problem["type"]]
    text = str(problem["msg"]).removeprefix("Value error, ")
    if isinstance(problem.get("input"), Mapping) and problem["type"] == "value_error":  # it says which of the fields do not go together
        return f"{text}.".replace("..", "."), ""
    return f"found {problem.get('input')!r:.80}: {text[:1].lower()}{text[1:]}.".replace("..", "."), ""


def _fields_at(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    here: Any = model
    for step in location[:-1]:
        field = getattr(here, "model_fields", {}).get(step)
        found = [] if field is None else [t for t in _types_in(field.annotation) if hasattr(t, "model_fields")]
        if found:
            here = found[0]
    return list(getattr(here, "model_fields", {}))


def _types_in(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _types_in(inner)


def _takers(kind: str, option: str) -> list[str]:
    """The plug-ins of ours that have an option of that name; imports none of them."""
    found = []
    for name, path in _files(kind).items():
        classes = [node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.ClassDef) and node.name == "Options"]
        fields = [line.target for one in classes for line in one.body if isinstance(line, ast.AnnAssign)]
        if any(isinstance(field, ast.Name) and field.id == option for field in fields):
            found.append(name)
    return found


def register(kind: str, name: str, module: Any) -> None:
    """Add a plug-in for this process: an object with `Options`, `build` and a docstring.

    Raises: PluginError for an unknown kind or a name that is taken.
    """
    if kind not in KINDS:
        raise PluginError("register", f'"{kind}" is no kind of plug-in; there are {one_of(KINDS)}.', did_you_mean(kind, list(KINDS)))
    if name in names(kind):
        raise PluginError("register", f'the {kind} "{name}" exists already.', "Choose another name.")
    _registered[kind, name] = _held(module, kind, name, where="register")


def register_file(path: Path) -> str:
    """Load a plug-in from a file that the operator names on the command line; the same file again is no second plug-in.

    The file states `KIND = "loss"` (say); its name is the file's. Returns the name.
    Raises: PluginError for what is no Python file, does not parse, states no KIND, or takes a name that is taken.
    """
    if not path.is_file():
        raise PluginError("--plugin", f"{path} is not a file.", "Name a Python file.")
    home = path.resolve()
    if home in _files_given:
        return _files_given[home][1]
    spec = importlib.util.spec_from_file_location(f"multitune_plugin_{path.stem}_{key({'path': str(home)})[:8]}", home)
    if spec is None or spec.loader is None:
        raise PluginError("--plugin", f"{path} cannot be loaded.", "Name a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BROKEN as error:
        del sys.modules[spec.name]
        raise PluginError("--plugin", f"{_told(error, home)}.", "Mend the file.") from None
    kind = vars(module).get("KIND")
    if not isinstance(kind, str):
        raise PluginError("--plugin", f"{path} does not state KIND.", f"Write KIND = one of {one_of(KINDS)}.")
    name = path.stem.replace("_", "-") if kind == "verb" else path.stem
    register(kind, name, module)
    _files_given[home] = (kind, name)
    return name


def plugin_files() -> tuple[Path, ...]:
    """The files that `register_file` has loaded: what another process must load too, in this order."""
    return tuple(_files_given)


def only_in_memory(wanted: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of the wanted (kind, name) that `register` added without a file: no other process can find them."""
    given = set(_files_given.values())
    return [one for one in wanted if one in _registered and one not in given]


def _files(kind: str) -> dict[str, Path]:
    folder = ROOT / KINDS[kind].replace(".", "/")
    found: dict[str, Path] = {}
    if not folder.is_dir():
        return found
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("_"):
            continue
        file = entry / "__init__.py" if entry.is_dir() else entry
        if file.suffix == ".py" and file.is_file():
            name = entry.stem
            found[name.replace("_", "-") if kind == "verb" else name] = file
    return found


def _entry_points(kind: str) -> dict[str, list[importlib.metadata.EntryPoint]]:
    found: dict[str, list[importlib.metadata.EntryPoint]] = {}
    for point in _points(tuple((place, _stamp(place)) for place in sys.path)).select(group=f"multitune.{kind}"):
        found.setdefault(point.name, []).append(point)
    return found


@functools.lru_cache(1)
def _points(_places: tuple[tuple[str, int], ...]) -> importlib.metadata.EntryPoints:
    """What all packages bring, read once while the folders of packages stay as they are: reading takes a hundredth of a second or more."""
    return cast("importlib.metadata.EntryPoints", importlib.metadata.entry_points())  # until 3.12 stubs call it by an older name


def _stamp(place: str) -> int:
    try:
        return os.stat(place or os.curdir).st_mtime_ns
    except OSError:
        return 0


def _package(point: importlib.metadata.EntryPoint) -> str:
    return "a package" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def _from_package(kind: str, name: str) -> ModuleType | None:
    """The plug-in of an installed package; None where no package brings one of that name."""
    points = _entry_points(kind).get(name, [])
    if not points:
        return None
    brought, remedy = brought_by(kind, name), "Mend that package, bring it up to date, or uninstall it."
    if len(points) > 1:
        raise PluginError(kind, f'two packages bring "{name}": {brought}.', "Uninstall one of them.")
    try:
        module = points[0].load()
    except BROKEN as error:
        raise PluginError(kind, f'"{name}" of {brought} cannot be imported ({points[0].value}): {_told(error)}.', remedy) from None
    try:
        return _held(module, kind, name, where=kind)
    except PluginError as error:
        raise PluginError(kind, f"{brought}: {error.found}", remedy) from None


def _source_of(kind: str, name: str) -> Path | None:
    """The file of a package's plug-in, found without importing it where its package alone shows the way."""
    point = next(iter(_entry_points(kind).get(name, [])), None)
    if point is None or point.attr or (kind, name) in _registered:
        return None
    try:
        spec = importlib.util.find_spec(point.module)
    except BROKEN:
        return None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin and spec.origin.endswith(".py") else None


def _held(module: Any, kind: str, name: str, *, where: str) -> Any:
    """The plug-in, if it has what every plug-in has. Raises: PluginError."""
    for needed in ("Options", "build"):
        if not hasattr(module, needed):
            raise PluginError(where, f'the {kind} "{name}" has no {needed}.', "See multitune/core/protocols.py.")
    options = module.Options
    if not isinstance(options, type) or not issubclass(options, Options):
        raise PluginError(where, f'Options of the {kind} "{name}" is no catalog.Options.', "Write class Options(catalog.Options).")
    return module


def _told(error: BaseException, home: Path | None = None) -> str:
    """What went wrong on import, with the line: of the plug-in's own file where it is known."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_IMPORTING)]
    at = next((frame for frame in reversed(frames) if home is None or frame.filename == str(home)), None)
    said = f"{type(error).__name__}: {error}".rstrip(".")
    return said if at is None else f"{at.filename}, line {at.lineno}: {said}"
