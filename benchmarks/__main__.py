"""Run one benchmark: `python -m benchmarks NAME [--quick] [--json]`; each is a file (or a folder) beside this one."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from multitune.core.errors import MultituneError
from multitune.core.finding import Finding, Severity
from multitune.core.result import Result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark that is named; its figures as lines, with --json as one object in the last line of standard output."""
    known = sorted({path.stem.replace("_", "-") for path in _found(Path(__file__).parent)})
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Side by side with simpler ways, on the same split.")
    parser.add_argument("name", choices=known, metavar="NAME", help=", ".join(known))
    parser.add_argument("--quick", action="store_true", help="fewer seeds and settings, where the benchmark has a quick form")
    parser.add_argument("--again", action="store_true", help="a second run on what a first one left, where the benchmark has that form")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--run", type=Path, default=None, help="the folder that holds the runs; by default runs/benchmark-NAME")
    parser.add_argument("--fresh", action="store_true", help="move earlier runs aside and train anew")
    asked = parser.parse_args(arguments)
    measure = importlib.import_module(f"benchmarks.{asked.name.replace('-', '_')}").measure
    more: dict[str, bool] = {}
    for form in ("quick", "again"):
        wanted = bool(getattr(asked, form))
        if form in inspect.signature(measure).parameters:
            more[form] = wanted
        elif wanted:
            parser.error(f"{asked.name} has no {form} form: leave --{form} out")
    try:
        figures, ok = measure(asked.run or Path("runs") / f"benchmark-{asked.name}", fresh=asked.fresh, **more)
    except MultituneError as error:
        print(f"error: {error}", file=sys.stderr)
        if asked.json:
            finding = Finding(type(error).__name__, Severity.ERROR, asked.name, str(error))
            print(Result(ok=False, findings=(finding,)).json_line(), flush=True)
        return error.exit_code
    for name, value in figures.items():
        print(f"{name:<20} {value:.4f}", file=sys.stderr if asked.json else sys.stdout)
    if asked.json:
        print(json.dumps({"ok": ok, "figures": figures, "findings": [], "paths": {}}), flush=True)
    return 0 if ok else 1


def _found(folder: Path) -> list[Path]:
    """Files and packages here that measure something; what starts with an underscore, and helpers without `measure`, do not."""
    files = [*folder.glob("[a-z]*.py"), *folder.glob("[a-z]*/__init__.py")]
    return [path.parent if path.name == "__init__.py" else path for path in files if "\ndef measure(" in path.read_text("utf-8")]


if __name__ == "__main__":
    raise SystemExit(main())
