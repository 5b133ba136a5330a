"""Run one benchmark: `python -m benchmarks NAME [--json]`; each is a file beside this one."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark that is named; its figures as lines, with --json as one object in the last line of standard output."""
    known = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Side by side with simpler ways, on the same split.")
    parser.add_argument("name", choices=known, metavar="NAME", help=", ".join(known))
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--run", type=Path, default=None, help="the folder that holds the runs; by default runs/benchmark-NAME")
    parser.add_argument("--fresh", action="store_true", help="move earlier runs aside and train anew")
    asked = parser.parse_args(arguments)
    module = importlib.import_module(f"benchmarks.{asked.name}")
    figures, ok = module.measure(asked.run or Path("runs") / f"benchmark-{asked.name}", fresh=asked.fresh)
    for name, value in figures.items():
        print(f"{name:<20} {value:.4f}", file=sys.stderr if asked.json else sys.stdout)
    if asked.json:
        print(json.dumps({"ok": ok, "figures": figures, "findings": [], "paths": {}}), flush=True)
    return 0 if ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
