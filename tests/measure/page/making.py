"""Pages of made-up evaluations, of all three shapes, as large as an evaluation of 100,000 rows gives them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from multitune.core.finding import Finding, Severity
from multitune.core.ledger import Record
from multitune.core.protocols import (
    Answer,
    AnswerNeed,
    Category,
    Embedding,
    Needs,
    Part,
    PartNeed,
    Prediction,
    Sample,
    Sound,
    Text,
)  # fmt: skip
from multitune.core.randomness import generator
from multitune.measure.extremes import Extremes
from multitune.measure.page import Content
from multitune.measure.report import Report

Shape = Literal["classifies", "embeds", "speaks"]
SHAPES: tuple[Shape, ...] = ("classifies", "embeds", "speaks")
COLOURS = ("blue", "green", "red", "yellow")
PLAN = "plan of made-up\n\ntrain.steps  400  [recipe]\n"
FINDINGS = (
    Finding("small-split", Severity.INFO, "test", "80 rows are few.", "Put more rows into this split."),
    Finding("part-not-used", Severity.WARNING, "test/accuracy", 'does not depend on "audio".', "Leave the part out."),
)
LEDGER = tuple(Record(f"row-{number}", "quarantined", "image", f"was cut: found {number} bytes") for number in range(300))


def needs_of(shape: Shape) -> Needs:
    """A picture and a sound to a colour, to each other, or a picture to words."""
    parts = {"image": PartNeed("image"), "audio": PartNeed("audio")}
    if shape == "embeds":
        return Needs(parts, {})
    if shape == "speaks":
        return Needs({"image": PartNeed("image")}, {"caption": AnswerNeed("text")})
    return Needs(parts, {"colour": AnswerNeed("category", labels=COLOURS)})


def content(shape: Shape, *, rows: int = 40, side: int = 64, steps: int = 400, word: str = "a red ring") -> Content:
    """Everything that a page can hold, for a model of this shape."""
    return Content(
        title=f"made-up-{shape}",
        report=report(shape, rows),
        about=f"{shape} · full",
        facts={"steps": f"{steps:,}", "device": "cpu"},
        events=list(events(shape, steps)),
        best_step=steps // 2,
        findings=FINDINGS,
        ledger=LEDGER,
        extremes=extremes(shape, rows, side, word),
        plan=PLAN,
    )


def report(shape: Shape, rows: int) -> Report:
    """Figures with intervals, beside baselines, of slices and sources and with parts left out."""
    name = {"classifies": "accuracy", "embeds": "image_to_audio/r_at_1", "speaks": "bleu"}[shape]
    own = {name: 0.81, f"{name}/low": 0.78, f"{name}/high": 0.84, "rows": float(rows), "rows_lost": 3.0}
    own |= {f"{kind}/{name}": value for kind, value in (("untuned", 0.22), ("chance" if shape == "embeds" else "majority", 0.26))}
    own |= {f"slice/colour={colour}/{figure}": value for colour in COLOURS for figure, value in ((name, 0.8), ("rows", 20.0))}
    own |= {f"slice/colour={colour}/{name}/{end}": value for colour in COLOURS for end, value in (("low", 0.7), ("high", 0.9))}
    own |= {f"source/{source}/{name}": 0.8 for source in ("base", "target")}
    details: dict[str, Sequence[Sequence[str]]] = {}
    if shape == "classifies":
        variants = {"without_audio": 0.6, "shuffled_audio": 0.5, "shuffled_audio/accuracy/cost": 0.31}
        own |= {key if "/" in key else f"{key}/accuracy": value for key, value in variants.items()}
        own |= {f"class/{colour}/{kind}": 0.8 for colour in COLOURS for kind in ("precision", "recall")}
        counts = [[str(40 if truth == given else 3) for given in COLOURS] for truth in COLOURS]
        details["confusion"] = [("truth \\ prediction", *COLOURS), *((c, *row) for c, row in zip(COLOURS, counts, strict=True))]
        bins = [("0.1", "0.15", "80"), ("0.5", "0.42", "200"), ("0.9", "0.81", "900")]
        details["reliability"] = [("confidence", "accuracy", "rows"), *bins]
    return Report("test", rows, {f"test/{key}": value for key, value in own.items()}, {f"test/{name}": "higher"}, details)


def events(shape: Shape, steps: int) -> Any:
    """What a run of so many steps tells."""
    towers = ("image", "lm") if shape == "speaks" else ("image", "audio", "head")
    for step in range(1, steps + 1):
        values = {"train/loss": 2 * math.exp(-3 * step / steps) + 0.1 * math.sin(step), "train/lr": 1e-3 * (1 - step / steps)}
        values |= {"train/gradient_norm": 1.0, "train/wait_seconds": 0.01, "drift/image.layers.0": step / steps}
        for place, tower in enumerate(towers):
            values |= {f"train/gradient_norm/{tower}": 10.0**-place * (1 + 0.2 * math.cos(step)), f"train/update_ratio/{tower}": 1e-3}
        if step % 20 == 0:
            values |= {"valid/accuracy": 0.8 * step / steps, "train/part_share/image": 0.7, "train/part_share/audio": 0.3}
            values |= {"train/seconds/forward": 0.1, "train/seconds/backward": 0.2, "train/seconds/optimizer": 0.09}
        yield from ({"step": step, "seconds": float(step), "name": name, "value": value} for name, value in values.items())


def extremes(shape: Shape, rows: int, side: int, word: str) -> Extremes:
    """The few kept of many rows; every row's picture and sound is the same object, so that many cost nothing."""
    kept = Extremes(needs_of(shape))
    random = generator("pages", rows)
    pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
    sound = Sound(random.uniform(-1, 1, 3 * 44_100).astype(np.float32), 44_100)
    drawn = random.random(rows)
    for number in range(rows):
        parts = {
            "image": Part("image", pixels),
            "audio": Part("audio", sound),
            "colour": Part("category", "red"),
            "caption": Part("text", word),
        }
        kept.update(Sample(f"row-{number:06d}", parts), Prediction(f"row-{number:06d}", _answers(shape, float(drawn[number]), word)))
    return kept


def _answers(shape: Shape, share: float, word: str) -> dict[str, Answer]:
    if shape == "embeds":
        turned = np.array([math.cos(share), math.sin(share)], np.float32)
        return {"image": Embedding(np.array([1, 0], np.float32)), "audio": Embedding(turned)}
    if shape == "speaks":
        return {"caption": Text(word if share > 0.5 else "a blue cross", -share)}
    return {"colour": Category("red" if share > 0.5 else "blue", {"red": share, "blue": 1 - share})}
