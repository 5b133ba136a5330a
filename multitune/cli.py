"""The command line: parse, call the verb, print. A verb's module is imported only when it is the one that is called."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import types
import typing
from pathlib import Path
from typing import Annotated, Any

import typer

ABOUT = "multitune fine-tunes multimodal transformers, from raw data to a served model."
VERBS = Path(__file__).resolve().parent / "verbs"


def main(arguments: list[str] | None = None) -> None:
    """Run `multitune ARGUMENTS` and leave with its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    asked = next((word for word in given if not word.startswith("-")), "")
    app(asked, given)(args=given, prog_name="multitune")


def app(asked: str, given: list[str]) -> typer.Typer:
    """The application: the verb that is asked for with all its options, the others by the first line of their files."""
    made = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, help=ABOUT)
    made.callback()(_no_verb)
    for name, summary in summaries().items():
        if name == asked:
            made.command(name, help=_help_of(name))(_command(name))
        else:
            made.command(name, help=summary)(_unasked)
    if asked and asked not in summaries() and not asked.startswith("-"):
        _third_party(made, asked, given)
    return made


def summaries() -> dict[str, str]:
    """Verb -> the first line of its file's docstring; nothing is imported."""
    found = {}
    for path in sorted(VERBS.glob("[a-z]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        found[path.stem.replace("_", "-")] = text.split("\n")[0]
    return found


def _no_verb() -> None:
    pass


def _unasked() -> None:
    pass


def _help_of(name: str) -> str:
    module = importlib.import_module(f"multitune.verbs.{name.replace('-', '_')}")
    return inspect.cleandoc(module.__doc__ or "")


def _third_party(made: typer.Typer, asked: str, given: list[str]) -> None:
    """A verb that an installed package brings by an entry point; an unknown one is refused with the nearest name."""
    catalog = importlib.import_module("multitune.core.catalog")
    errors = importlib.import_module("multitune.core.errors")
    try:
        module = catalog.load("verb", asked)
    except errors.PluginError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    made.command(asked, help=inspect.cleandoc(module.__doc__ or ""))(_command(asked))


def _command(name: str) -> Any:
    """A function whose signature is the verb's Options, for typer to read."""
    catalog = importlib.import_module("multitune.core.catalog")
    options = catalog.load("verb", name).Options
    parameters = [_parameter(field_name, field) for field_name, field in options.model_fields.items()]
    parameters.append(_flag("json", "print one JSON object as the last line", bool, False))
    parameters.append(_flag("plugin", "a Python file with a plug-in of yours", list[Path], []))

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
        made = typer.Argument(help=field.description, metavar=extra.get("metavar"))
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
    errors = importlib.import_module("multitune.core.errors")
    result_of = importlib.import_module("multitune.core.result").Result
    as_json, plugins = values.pop("json"), values.pop("plugin")
    try:
        for path in plugins:
            catalog.register_file(path)
        result = catalog.find("verb", name, {k: v for k, v in values.items() if v is not None}).build()
    except errors.MultituneError as error:
        print(f"error: {error}", file=sys.stderr)
        if as_json:
            print(result_of(ok=False, findings=(_as_finding(error),)).json_line())
        return error.exit_code
    except errors.Stopped as stopped:
        print(f"{stopped}", file=sys.stderr)
        return stopped.exit_code
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        return 130
    if result.text:
        print(result.text.rstrip())
    if as_json:
        print(result.json_line(), flush=True)
    return 0 if result.ok else 1


def _as_finding(error: Exception) -> Any:
    finding = importlib.import_module("multitune.core.finding")
    where = vars(error).get("where", type(error).__name__)
    return finding.Finding(code=type(error).__name__, severity=finding.Severity.ERROR, where=where, message=str(error))
