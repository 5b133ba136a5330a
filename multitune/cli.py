"""The command line: parse, call the verb, print. A verb's module is imported only when it is the one that is called."""

from __future__ import annotations

import importlib
import inspect
import itertools
import os
import signal
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

ABOUT = "multitune fine-tunes multimodal transformers, from raw data to a served model."
PLUGIN = "a Python file with a plug-in of yours"
COMPLETING = "_MULTITUNE_COMPLETE"  # set by a shell that asks what a line may go on with
VERBS = Path(__file__).resolve().parent / "verbs"


def main(arguments: list[str] | None = None) -> None:
    """Run `multitune ARGUMENTS` and leave with its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    asked, plugins = _verb_and_plugins(given or _words_to_complete())
    if plugins:
        _guarded(lambda: _register(plugins), as_json="--json" in given)
    app(asked)(args=given, prog_name="multitune")


def app(asked: str) -> typer.Typer:
    """The application: the verb that is asked for with all its options, the others by the first line of their files."""
    made = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, help=ABOUT)
    made.callback()(_no_verb)
    for name, summary in summaries().items():
        if name == asked:
            made.command(name, help=_help_of(name))(_command(name))
        else:
            made.command(name, help=summary, short_help=summary)(_unasked)
    if asked and asked not in summaries() and COMPLETING not in os.environ:
        _third_party(made, asked)
    return made


def _verb_and_plugins(given: list[str]) -> tuple[str, list[Path]]:
    """The first word that is no option (empty: none), and the files given with `--plugin`, before the verb or after it."""
    asked, plugins = "", list[Path]()
    words = iter(given)
    for word in words:
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if name == "--plugin":
            plugins += map(Path, [value] if equals else itertools.islice(words, 1))
        elif not asked and not word.startswith("-"):
            asked = word
    return asked, plugins


def _words_to_complete() -> list[str]:
    """What stands on the line that a shell asks to complete; empty where none asks."""
    line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")
    return line.split()[1:] if COMPLETING in os.environ else []


def _recipes(incomplete: str) -> list[str]:
    """Recipes and folders that a path may go on to."""
    return _paths(incomplete, {".yaml", ".yml"})


def _runs(incomplete: str) -> list[str]:
    """Folders, those of runs among them."""
    return _paths(incomplete, set()) or _paths(f"runs/{incomplete}", set())


def _paths(incomplete: str, endings: set[str]) -> list[str]:
    home, start = os.path.split(incomplete)
    try:
        with os.scandir(home or ".") as found:
            entries = [entry for entry in found if entry.name.startswith(start) and (start or not entry.name.startswith("."))]
    except OSError:
        return []
    folders = [os.path.join(home, entry.name) + "/" for entry in entries if entry.is_dir()]
    return sorted([os.path.join(home, entry.name) for entry in entries if Path(entry.name).suffix in endings] + folders)


def _fields(incomplete: str) -> list[str]:
    """The fields of a recipe, as overrides name them: `train.lr=`."""
    recipe = importlib.import_module("multitune.core.recipe").Recipe
    found: list[str] = []
    for name, field in recipe.model_fields.items():
        inner = getattr(field.annotation, "model_fields", {})
        sections = {} if "options" in inner else inner  # a component has a name and options of its own
        found += [f"{name}.{one}=" for one in sections] or [f"{name}="]
    return [path for path in found if path.startswith(incomplete)]


COMPLETIONS: dict[str, Callable[[str], list[str]]] = {"recipe": _recipes, "overrides": _fields, "artifact": _runs, "folders": _runs}


def _register(plugins: list[Path]) -> None:
    catalog = importlib.import_module("multitune.core.catalog")
    for path in plugins:
        catalog.register_file(path)


def summaries() -> dict[str, str]:
    """Verb -> the first line of its file's docstring; nothing is imported."""
    found = {}
    for path in sorted([*VERBS.glob("[a-z]*.py"), *(home / "__init__.py" for home in VERBS.glob("[a-z]*") if home.is_dir())]):
        name = path.parent.name if path.name == "__init__.py" else path.stem
        found[name.replace("_", "-")] = _first_line(path)
    return dict(sorted(found.items()))


def _first_line(path: Path) -> str:
    """The first line of a file's docstring, read without parsing the rest."""
    with path.open(encoding="utf-8") as stream:
        return next(stream, "").strip().strip('"')


def _no_verb(plugin: Annotated[list[Path], typer.Option("--plugin", help=PLUGIN)] = []) -> None:  # noqa: B006  typer reads it
    pass


def _unasked() -> None:
    pass


def _help_of(name: str) -> str:
    module = importlib.import_module(f"multitune.verbs.{name.replace('-', '_')}")
    return inspect.cleandoc(module.__doc__ or "")


def _third_party(made: typer.Typer, asked: str) -> None:
    """A verb of a `--plugin` file or an installed package; an unknown one is refused with the nearest name."""
    catalog = importlib.import_module("multitune.core.catalog")
    module = _guarded(lambda: catalog.load("verb", asked), as_json=False)
    made.command(asked, help=inspect.cleandoc(module.__doc__ or ""))(_command(asked))


def _command(name: str) -> Any:
    """A function whose signature is the verb's Options, for typer to read."""
    catalog = importlib.import_module("multitune.core.catalog")
    options = catalog.load("verb", name).Options
    parameters = [_parameter(field_name, field) for field_name, field in options.model_fields.items()]
    parameters.append(_flag("json", "print one JSON object as the last line", bool, False))
    parameters.append(_flag("plugin", PLUGIN, list[Path], []))

    def command(**values: Any) -> None:
        raise SystemExit(_run(name, values))

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _parameter(name: str, field: Any) -> inspect.Parameter:
    extra = field.json_schema_extra or {}
    kind = _plain_type(field.annotation)
    default = inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
    if extra.get("positional"):
        made = typer.Argument(help=field.description, metavar=extra.get("metavar"), autocompletion=COMPLETIONS.get(name))
        default = list(default) if isinstance(default, tuple) else default
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, made])
    return _flag(name, field.description or "", kind, default)


def _flag(name: str, text: str, kind: Any, default: Any) -> inspect.Parameter:
    word = "--" + name.replace("_", "-")
    made = typer.Option(word, help=text, show_default=default not in (None, "", [], False))
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, made])


def _plain_type(annotation: Any) -> Any:
    """The type as typer reads it: `tuple[X, ...]` becomes a list."""
    if typing.get_origin(annotation) is tuple:
        return list[typing.get_args(annotation)[0]]
    if isinstance(annotation, types.UnionType):
        return typing.Optional[typing.get_args(annotation)[0]]  # noqa: UP045  typer reads this form
    return annotation


def _run(name: str, values: dict[str, Any]) -> int:
    """Call the verb; print its text, or its JSON as the last line; give the exit code."""
    catalog = importlib.import_module("multitune.core.catalog")
    as_json = values.pop("json")
    values.pop("plugin")  # loaded before the verb was looked for
    options = {name: value for name, value in values.items() if value is not None}
    result = _guarded(lambda: catalog.find("verb", name, options).build(), as_json=as_json)
    if result.text:
        print(result.text.rstrip())
    if as_json:
        print(result.json_line(), flush=True)
    return 0 if result.ok else 1


def _guarded(work: Callable[[], Any], *, as_json: bool) -> Any:
    """What `work` gives; what was raised on purpose, or by the machine, ends the process with its text and exit code.

    A bug of ours passes through, with its traceback.
    """
    errors = importlib.import_module("multitune.core.errors")
    before = signal.signal(signal.SIGTERM, _terminate)  # where no loop listens: an end like any other, not a sudden one
    try:
        return work()
    except errors.MultituneError as error:
        _leave(error, f"error: {error}", error.exit_code, as_json)
    except errors.Stopped as stopped:
        _leave(stopped, str(stopped), stopped.exit_code, as_json)
    except KeyboardInterrupt as stopped:
        _leave(stopped, "stopped by Ctrl-C", 130, as_json)
    except MemoryError as error:
        _leave(error, "error: the machine has no memory left. Use a smaller batch, or free some.", 3, as_json)
    except OSError as error:
        if error.errno not in errors.MACHINE:
            raise
        _leave(
            error,
            f"error: {error.filename or 'the machine'}: {error.strerror}. Mend the machine and give the same command again.",
            3,
            as_json,
        )
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, _: types.FrameType | None) -> None:
    errors = importlib.import_module("multitune.core.errors")
    raise errors.Stopped(signal.Signals(number).name, 128 + number)


def _leave(error: BaseException, text: str, code: int, as_json: bool) -> NoReturn:
    print(text, file=sys.stderr)
    if as_json:
        finding = importlib.import_module("multitune.core.finding")
        where = vars(error).get("where", type(error).__name__)
        told = finding.Finding(
            code=type(error).__name__, severity=finding.Severity.ERROR, where=where, message=text.removeprefix("error: ")
        )
        print(importlib.import_module("multitune.core.result").Result(ok=False, findings=(told,)).json_line(), flush=True)
    raise SystemExit(code)
