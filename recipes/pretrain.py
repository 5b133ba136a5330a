"""Train the embedded base `tiny` anew, with multitune itself: `make tiny`, or `python -m recipes.pretrain`.

Start folders are written to `build/tiny-start`, then four recipes run in order, each from what the one before it left: `image` and
`audio` (the named attributes), `align` (both with `text`, by captions), `lm` (captions). Runs lie in `build/tiny/<step>`; a run that
was stopped goes on, and one that is finished answers at once. Last, the towers are written into the package as fp16 safetensors
with a card each, if linear probes on other drawings (domain `target`) reach the gate. An hour on two cores at most.

    python -m recipes.pretrain --only image audio      these steps alone, nothing is packaged
    python -m recipes.pretrain train.threads=1         overrides, for every step
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import multitune
from recipes.tiny_probe import audio_probes, below_the_gate, image_probes
from recipes.tiny_start import write_start

ROOT = Path(__file__).resolve().parent.parent
START = Path("build/tiny-start")
RUNS = Path("build/tiny")
PACKAGED = ROOT / "multitune" / "models" / "bases" / "tiny"
STEPS = ("image", "audio", "align", "lm")
MAX_BYTES = 10_000_000
WEIGHTS = "model.safetensors"
SHOWN = re.compile(r"^test/((\w+/)?accuracy|\w*caption\w*/(r_at_10|median_rank)|bleu)$")  # what a card states of a run


@dataclass(frozen=True)
class Tower:
    """A packaged tower: the run and the name it has there, the steps that trained it, what it is, in words."""

    run: str
    part: str
    steps: tuple[str, ...]
    what: str


TOWERS: Mapping[str, Tower] = {
    "image": Tower("align", "image", ("image", "align"), "A small Vision Transformer: pictures of 64 x 64, patches of 16."),
    "audio": Tower("align", "audio", ("audio", "align"), "A small Audio Spectrogram Transformer: one second at 16 kHz, 64 mel bands."),
    "text": Tower("align", "caption", ("align",), "A small BERT-like encoder of captions, with its tokenizer."),
    "lm": Tower("lm", "lm", ("lm",), "A small GPT-2-like causal language model of captions, with its tokenizer."),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, package and probe; 1 if a probe stays below the gate."""
    parser = argparse.ArgumentParser(prog="python -m recipes.pretrain", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=STEPS, default=[], metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("overrides", nargs="*", help="key=value for every step")
    asked = parser.parse_args(arguments)
    if not all((START / name / "config.json").is_file() for name in TOWERS):
        write_start(START)
    figures = {step: trained(step, asked.overrides) for step in STEPS if not asked.only or step in asked.only}
    if asked.only:
        return 0
    probes = {"image": image_probes(towers_of("image")), "audio": audio_probes(towers_of("audio"))}
    low = [line for found in probes.values() for line in below_the_gate(found)]
    print("probes on target:", json.dumps(probes), file=sys.stderr)
    if low:
        print(f"below the gate, so nothing is packaged: {'; '.join(low)}", file=sys.stderr)
        return 1
    package(figures, probes)
    return 0


def trained(step: str, overrides: Sequence[str] = ()) -> dict[str, float]:
    """Run one recipe in its folder; its figures on the test split, with `seconds` and `steps`."""
    started = time.perf_counter()
    result = multitune.train(ROOT / "recipes" / f"pretrain-{step}.yaml", overrides=list(overrides), run=RUNS / step)
    print(f"{step}: {time.perf_counter() - started:.0f} s, {json.dumps(result.figures)}", file=sys.stderr)
    return dict(result.figures)


def towers_of(name: str) -> Path:
    """The folder of a trained tower in its run's artifact."""
    tower = TOWERS[name]
    return RUNS / tower.run / "artifact" / "towers" / tower.part


def package(figures: Mapping[str, Mapping[str, float]], probes: Mapping[str, Mapping[str, float]]) -> None:
    """Write the four towers as fp16 safetensors with their cards into the package.

    Raises: RuntimeError if they take more room than the package may give them.
    """
    for name in TOWERS:
        draft = RUNS / "packaged" / name
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        halve(towers_of(name), START / name, draft)
        (draft / "README.md").write_text(card(name, figures, probes.get(name, {})), "utf-8")
    size = sum(file.stat().st_size for file in (RUNS / "packaged").rglob("*") if file.is_file())
    if size > MAX_BYTES:
        raise RuntimeError(f"the towers take {size:,} bytes together; the package gives them {MAX_BYTES:,}")
    for name in TOWERS:
        (PACKAGED / name).mkdir(parents=True, exist_ok=True)
        for file in (RUNS / "packaged" / name).iterdir():
            shutil.copyfile(file, PACKAGED / name / file.name)
    print(f"packaged: {size:,} bytes", file=sys.stderr)


def halve(trained: Path, start: Path, folder: Path) -> None:
    """Write a trained tower as fp16: the tensors that its start folder had and no others, with that folder's other files."""
    names = load_file(start / WEIGHTS).keys()
    found = load_file(trained / WEIGHTS)
    save_file({name: found[name].to(torch.float16).contiguous() for name in names}, folder / WEIGHTS, metadata={"format": "pt"})
    config = json.loads((start / "config.json").read_text("utf-8")) | {"dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    for file in start.iterdir():
        if file.name not in {WEIGHTS, "config.json"}:
            shutil.copyfile(file, folder / file.name)


def card(name: str, figures: Mapping[str, Mapping[str, float]], probes: Mapping[str, float]) -> str:
    """The model card of a packaged tower."""
    tower = TOWERS[name]
    lines = [f"# tiny/{name}", "", tower.what, ""]
    lines += ["Width 128, 4 heads, about a million parameters, fp16 safetensors. Trained by multitune itself from first weights that"]
    lines += [
        "`recipes/tiny_start.py` draws (seed 0), on drawings of the sources `chimes` (domain `base`) and `glyphs`: no picture, sound or"
    ]
    lines += ["text of anyone's was used. `make tiny` trains it anew. It is made to learn from quickly, not to know the world.", ""]
    lines += ["| recipe | seed | steps | seconds |", "|---|---|---|---|"]
    for step in tower.steps:
        found = figures[step]
        lines.append(f"| `recipes/pretrain-{step}.yaml` | 0 | {found['steps']:,.0f} | {found['seconds']:,.0f} |")
    if probes:
        lines += [
            "",
            "Linear probes on 4,000 other drawings of domain `target` (half to fit, half to measure; features averaged over tokens):",
            "",
        ]
        if "shape_group_direct" in probes:
            lines += ["`shape group`: of the shape that its probe names; `direct`: of a probe for the two groups themselves.", ""]
        lines += [
            "| | accuracy |",
            "|---|---|",
            *(f"| {attribute.replace('_', ' ')} | {value:.3f} |" for attribute, value in probes.items()),
        ]
    lines += ["", "On the recipes' own test splits (domain `base`; many rows share a caption, so the own one is seldom first):", ""]
    lines += ["| recipe | figure | value |", "|---|---|---|"]
    for step in tower.steps:
        lines += [f"| {step} | {key} | {value:.3f} |" for key, value in figures[step].items() if SHOWN.search(key)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
