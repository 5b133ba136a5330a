"""Walk every kind, keep what was found in build/conformance.json, and write docs/support.md: `make kinds`."""

from __future__ import annotations

import re
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import torch

from multitune.models.inspection.conformance import Kind, Line, root, write
from multitune.models.weights.quietly import quiet
from tests.models.kinds.kind import Kind as Spec
from tests.models.kinds.specs import KINDS
from tests.models.kinds.walk import LINES, Walk

PAGE = Path("docs") / "support.md"
HEAD = """# Kinds of models

Any model that Transformers loads is taken apart by running it, without a list of names in the code. `make kinds` builds each kind
below small from its config, saves it as a real folder with its processor, loads it back, and holds it to every line:

{lines}

This page is written by `make kinds`; {green} of {count} kinds hold to every line. The towers of a kind that is not listed are found
the same way; `multitune inspect FOLDER` shows what is found.

| kind | model type | reads | blocks | LoRA | proven cuts |
|---|---|---|---|---|---|
{rows}
"""


def walked(kind: Spec) -> Kind:
    """One kind under every line."""
    with tempfile.TemporaryDirectory() as folder:
        walk = Walk(kind, Path(folder))
        lines = tuple(Line(line.name, line.ok, line.said) for line in map(walk.line, LINES))
    return Kind(kind.name, kind.title, tuple(dict.fromkeys(kind.parts.values())), lines, " ".join(dict.fromkeys(kind.red.values())))


def surprises(spec: Spec, found: Kind) -> list[str]:
    """Lines that came out otherwise than the spec says."""
    return [f"{found.name}-{line.name}: {line.said}" for line in found.lines if line.ok == spec.is_red(line.name)]


def page(kinds: Sequence[Kind]) -> str:
    """docs/support.md."""
    lines = "\n".join(f"- **{name}**: {(line.__doc__ or '').splitlines()[0]}" for name, line in LINES.items())
    green = sum(kind.green for kind in kinds)
    text = HEAD.format(lines=lines, green=green, count=len(kinds), rows="\n".join(map(_row, kinds)))
    red = [kind for kind in kinds if not kind.green]
    return text + "".join(["\n## What does not hold\n", *map(_reason, red)] if red else [])


def _row(kind: Kind) -> str:
    said = {line.name: line.said if line.ok else "" for line in kind.lines}
    if not kind.green:
        return f"| {kind.title} | `{kind.name}` | {', '.join(kind.reads)} | red, see below | | |"
    proven = [piece.removesuffix(" proven") for piece in said["cuts"].split("; ") if piece.endswith(" proven")]
    refused = re.sub(r": [\d.e+-]+ standard deviations apart\.?$", " comes out otherwise", said["cuts"].split("; ")[0].split(": ", 1)[-1])
    cuts = ", ".join(f"`{name}`" for name in proven) or f"none: {refused}"
    lora = "no linear layers" if said["lora"].startswith("refused") else "yes"
    return f"| {kind.title} | `{kind.name}` | {', '.join(kind.reads)} | {said['blocks']} | {lora} | {cuts} |"


def _reason(kind: Kind) -> str:
    lines = [line for line in kind.lines if not line.ok]
    names = "every line" if len(lines) == len(kind.lines) else ", ".join(line.name for line in lines)
    return f"\n**{kind.title}** ({names}): {lines[0].said.rstrip('.')}. What can be done: {kind.advice}\n"


def main() -> int:
    """Walk all; 1 if a line came out otherwise than its spec says."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found: list[Kind] = []
    unexpected: list[str] = []
    for spec in KINDS:
        start = perf_counter()
        with quiet():
            kind = walked(spec)
        found.append(kind)
        unexpected += surprises(spec, kind)
        print(f"{'green' if kind.green else 'red':<6}{spec.title:<28}{perf_counter() - start:6.1f} s", flush=True)
    (root() / PAGE).write_text(page(found), "utf-8")
    print(f"{sum(kind.green for kind in found)} of {len(found)} kinds green; written: {write(found, root())}, {PAGE}")
    for line in unexpected:
        print(f"otherwise than its spec says: {line}")
    return int(bool(unexpected))


if __name__ == "__main__":
    sys.exit(main())
